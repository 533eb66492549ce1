/*
 * Goal: what a master's load has read and bound is what its worker loads from and serves; a directory
 * that is handed over leads nowhere else.
 * Method: both sides in one process over a channel: real directories and sockets, more descriptors than
 * one message carries, and parts that do not fit together.
 */
#include "tools/bundle.h"

#include "tests/unit/folder.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int ends[2];
static struct ag_arena arena;
static struct ag_sockets ours, theirs;
static struct ag_bundle bundle;
static struct ag_channel_msg msg;

static void begin(void)
{
    ag_arena_init(&arena, NULL, 0);
    folder_make();
    folder_put_text("conf", "text");
    folder_put_text("www/page", "page");
    cr_assert_eq(ag_channel_pair(ends), AG_OK);
    ag_sockets_init(&ours, 2, 16);
    ours.keeps = true;
    ag_sockets_init(&theirs, 2, 16);
}

static void end(void)
{
    ag_bundle_close(&bundle);
    ag_sockets_deinit(&ours);
    ag_sockets_deinit(&theirs);
    (void)close(ends[0]);
    (void)close(ends[1]);
    folder_remove();
    ag_arena_release(&arena);
}

TestSuite(bundle, .init = begin, .fini = end);

/* What a load would ask for. */
static struct ag_opener *record(void)
{
    struct ag_opener *o = ag_opener_record();
    struct ag_answer a;

    ag_opener_file(o, &arena, folder_at("conf"), 100, &a);
    ag_opener_dir(o, folder_at("www"), &a);
    cr_assert_eq(close(a.fd), 0);
    return o;
}

static void send_bundle(bool detach)
{
    struct ag_opener *answers = record();
    struct ag_buf why = ag_buf(NULL, 0);

    cr_assert(!detach || ag_bundle_detach(answers, NULL));
    cr_assert_eq(ag_bundle_send(ends[0], 5, answers, &ours, &why), AG_OK);
    ag_opener_free(answers);
}

/* Until the bundle is whole. */
static void receive(void)
{
    enum ag_status st = AG_AGAIN;

    while (st == AG_AGAIN) {
        cr_assert_eq(ag_channel_receive(ends[1], true, &msg), AG_OK);
        st = ag_bundle_take(&bundle, &msg);
    }
    cr_assert_eq(st, AG_OK);
}

static int open_replayed_dir(struct ag_opener *o)
{
    struct ag_answer a;

    ag_opener_dir(o, folder_at("www"), &a);
    cr_assert_eq(a.error, 0);
    return a.fd;
}

static void adopt_many(const union ag_addr *addr, uint32_t count)
{
    int fds[AG_SOCKET_FDS], fd = socket(AF_UNIX, SOCK_STREAM, 0);

    for (uint32_t i = 0; i < count; i++) {
        fds[i] = dup(fd);
        cr_assert_neq(fds[i], -1);
    }
    (void)close(fd);
    ag_sockets_adopt(&ours, addr, fds, count, true);
}

Test(bundle, arrives_as_it_was)
{
    union ag_addr a = {.un = {.sun_family = AF_UNIX, .sun_path = "/a"}};
    union ag_addr b = {.un = {.sun_family = AF_UNIX, .sun_path = "/b"}};
    struct ag_answer found;
    struct stat st;

    adopt_many(&a, 600); /* three messages */
    adopt_many(&b, 1);
    send_bundle(false);
    cr_assert_eq(unlink(folder_at("conf")), 0, "the worker does not read it");
    receive();
    cr_assert_eq(bundle.generation, 5);
    struct ag_opener *o = ag_bundle_open(&bundle);
    cr_assert_not_null(o);
    ag_opener_file(o, &arena, folder_at("conf"), 100, &found);
    cr_assert_str_eq((const char *)found.text.ptr, "text");
    int dir = open_replayed_dir(o);
    cr_assert_eq(fstatat(dir, "page", &st, 0), 0);
    cr_assert_eq(close(dir), 0);
    ag_opener_free(o);
    ag_bundle_adopt(&bundle, &theirs);
    const struct ag_socket *k = ag_sockets_find(&theirs, &a);
    cr_assert(k && k->fd_count == 600 && k->shared && k->fresh);
    cr_assert_eq(fcntl(k->fds[599], F_GETFD), FD_CLOEXEC);
    k = ag_sockets_find(&theirs, &b);
    cr_assert(k && k->fd_count == 1);
}

Test(bundle, nothing_new_to_listen_on)
{
    send_bundle(false);
    receive();
    struct ag_opener *o = ag_bundle_open(&bundle);
    cr_assert_not_null(o);
    ag_bundle_adopt(&bundle, &theirs);
    cr_assert_eq(theirs.count, 0);
    ag_opener_free(o);
}

Test(bundle, a_detached_directory_leads_nowhere_else)
{
    struct stat st, parent;
    int fd;

    if (geteuid() != 0) {
        cr_skip_test("only root can make mounts");
    }
    send_bundle(true);
    receive();
    struct ag_opener *o = ag_bundle_open(&bundle);
    cr_assert_not_null(o);
    int dir = open_replayed_dir(o);
    cr_assert_eq(fstatat(dir, "page", &st, 0), 0, "it is the directory");
    cr_assert_eq(fstatat(dir, "../conf", &st, 0), -1, "and there is no way up");
    cr_assert_eq(fstatat(dir, ".", &st, 0), 0);
    cr_assert_eq(fstatat(dir, "../../..", &parent, 0), 0);
    cr_assert_eq(parent.st_ino, st.st_ino);
    fd = openat(dir, "page", O_WRONLY);
    cr_assert(fd == -1 && errno == EROFS);
    cr_assert_eq(close(dir), 0);
    ag_opener_free(o);
}

Test(bundle, a_new_one_drops_half_of_an_old_one)
{
    union ag_addr a = {.un = {.sun_family = AF_UNIX, .sun_path = "/a"}};

    adopt_many(&a, 300);
    send_bundle(false);
    for (int i = 0; i < 2; i++) { /* the file, and the first descriptors */
        cr_assert_eq(ag_channel_receive(ends[1], true, &msg), AG_OK);
        cr_assert_eq(ag_bundle_take(&bundle, &msg), AG_AGAIN);
    }
    cr_assert_eq(ag_channel_receive(ends[1], true, &msg), AG_OK);
    for (uint32_t i = 0; i < msg.fd_count; i++) {
        (void)close(msg.fds[i]);
    }
    send_bundle(false);
    receive();
    cr_assert_eq(bundle.fd_count, 301);
}

static void mail(enum ag_channel_type type, uint32_t generation, uint32_t count, uint32_t fds)
{
    memset(&msg, 0, sizeof(msg));
    msg.type = type;
    msg.generation = generation;
    msg.count = count;
    msg.fd_count = fds;
    for (uint32_t i = 0; i < fds; i++) {
        msg.fds[i] = dup(ends[0]);
    }
}

Test(bundle, parts_that_do_not_fit)
{
    mail(AG_CHANNEL_DESCRIPTORS, 1, 2, 2); /* of no bundle */
    cr_expect_eq(ag_bundle_take(&bundle, &msg), AG_EPROTO);
    mail(AG_CHANNEL_BUNDLE, 1, 2, 0); /* no file */
    cr_expect_eq(ag_bundle_take(&bundle, &msg), AG_EPROTO);
    mail(AG_CHANNEL_BUNDLE, 1, 0xffffffff, 1);
    cr_expect_eq(ag_bundle_take(&bundle, &msg), AG_EPROTO);
    mail(AG_CHANNEL_BUNDLE, 1, 2, 1);
    cr_expect_eq(ag_bundle_take(&bundle, &msg), AG_AGAIN);
    mail(AG_CHANNEL_DESCRIPTORS, 2, 2, 2); /* of another */
    cr_expect_eq(ag_bundle_take(&bundle, &msg), AG_EPROTO);
    mail(AG_CHANNEL_BUNDLE, 1, 2, 1);
    cr_expect_eq(ag_bundle_take(&bundle, &msg), AG_AGAIN);
    mail(AG_CHANNEL_DESCRIPTORS, 1, 3, 3); /* too many */
    cr_expect_eq(ag_bundle_take(&bundle, &msg), AG_EPROTO);
    mail(AG_CHANNEL_BUNDLE, 1, 0, 1); /* whole, but its file is a socket */
    cr_expect_eq(ag_bundle_take(&bundle, &msg), AG_OK);
    cr_expect_null(ag_bundle_open(&bundle));
}

Test(bundle, files_that_are_no_bundle)
{
    static const char *const contents[] = {"", "short", "0123456789012345678901234567890123456789"};

    for (size_t i = 0; i < AG_COUNT(contents); i++) {
        mail(AG_CHANNEL_BUNDLE, 1, 0, 0);
        msg.fd_count = 1;
        msg.fds[0] = memfd_create("x", 0);
        cr_assert_eq(write(msg.fds[0], contents[i], strlen(contents[i])),
                     (ssize_t)strlen(contents[i]));
        cr_assert_eq(ag_bundle_take(&bundle, &msg), AG_OK);
        cr_expect_null(ag_bundle_open(&bundle), "%zu", i);
        ag_bundle_close(&bundle);
    }
}
