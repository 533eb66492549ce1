/*
 * Goal: messages and descriptors arrive whole; a worker in other hands cannot make its master take a
 * descriptor, wait, or believe a message that is none.
 * Method: both ends in one process, one of them also written to without the module.
 */
#include "tools/channel.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

static int ends[2];
static struct ag_channel_msg out, in;

static void begin(void)
{
    cr_assert_eq(ag_channel_pair(ends), AG_OK);
}

static void finish(void)
{
    (void)close(ends[0]);
    (void)close(ends[1]);
}

TestSuite(channel, .init = begin, .fini = finish);

static unsigned open_fds(void)
{
    unsigned n = 0;
    DIR *d = opendir("/proc/self/fd");

    cr_assert(d);
    while (readdir(d)) { // NOLINT(concurrency-mt-unsafe)
        n++;
    }
    (void)closedir(d);
    return n;
}

static void message(enum ag_channel_type type, const char *text, uint32_t fd_count)
{
    out.type = type;
    out.generation = 7;
    out.count = 3;
    out.text_len = (uint32_t)strlen(text);
    memcpy(out.text, text, out.text_len);
    out.fd_count = fd_count;
    for (uint32_t i = 0; i < fd_count; i++) {
        out.fds[i] = ends[0];
    }
}

static void close_received(void)
{
    for (uint32_t i = 0; i < in.fd_count; i++) {
        cr_assert_eq(close(in.fds[i]), 0);
    }
}

Test(channel, messages_keep_their_order_and_bounds)
{
    cr_assert_eq(ag_channel_receive(ends[1], true, &in), AG_AGAIN);
    message(AG_CHANNEL_REFUSED, "no such thing", 0);
    cr_assert_eq(ag_channel_send(ends[0], &out), AG_OK);
    cr_assert_eq(ag_channel_tell(ends[0], AG_CHANNEL_COMMIT, 9), AG_OK);
    cr_assert_eq(ag_channel_receive(ends[1], true, &in), AG_OK);
    cr_assert(in.type == AG_CHANNEL_REFUSED && in.generation == 7 && in.count == 3 &&
              in.fd_count == 0 && in.text_len == 13 && memcmp(in.text, "no such thing", 13) == 0);
    cr_assert_eq(ag_channel_receive(ends[1], true, &in), AG_OK);
    cr_assert(in.type == AG_CHANNEL_COMMIT && in.generation == 9 && in.text_len == 0);
    cr_assert_eq(ag_channel_receive(ends[1], true, &in), AG_AGAIN);
}

Test(channel, descriptors_come_along)
{
    unsigned before = open_fds();

    message(AG_CHANNEL_DESCRIPTORS, "x", AG_CHANNEL_FDS);
    cr_assert_eq(ag_channel_send(ends[0], &out), AG_OK);
    cr_assert_eq(ag_channel_receive(ends[1], true, &in), AG_OK);
    cr_assert_eq(in.fd_count, AG_CHANNEL_FDS);
    cr_assert_eq(fcntl(in.fds[AG_CHANNEL_FDS - 1], F_GETFD), FD_CLOEXEC);
    cr_assert_eq(open_fds(), before + AG_CHANNEL_FDS);
    close_received();
}

Test(channel, a_master_takes_no_descriptor)
{
    unsigned before = open_fds();

    message(AG_CHANNEL_READY, "", AG_CHANNEL_FDS);
    cr_assert_eq(ag_channel_send(ends[1], &out), AG_OK);
    cr_assert_eq(ag_channel_receive(ends[0], false, &in), AG_OK);
    cr_assert_eq(in.fd_count, 0);
    cr_assert_eq(open_fds(), before);
}

Test(channel, descriptors_beyond_the_limit)
{
    struct rlimit limit = {open_fds() + 10, 1000};
    unsigned before = open_fds();

    message(AG_CHANNEL_DESCRIPTORS, "", 100);
    cr_assert_eq(ag_channel_send(ends[0], &out), AG_OK);
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    in.generation = out.generation + 1;
    cr_assert_eq(ag_channel_receive(ends[1], true, &in), AG_ELIMIT);
    cr_assert_eq(in.type, AG_CHANNEL_DESCRIPTORS);
    cr_assert_eq(in.generation, out.generation, "whose they were");
    cr_assert_eq(in.fd_count, 0);
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
    cr_assert_eq(open_fds(), before, "those that did come are closed");
}

Test(channel, what_is_no_message)
{
    static const struct {
        uint32_t words[5];
        size_t bytes;
    } all[] = {
        {{0}, 1},
        {{AG_CHANNEL_READY}, 4},
        {{AG_CHANNEL_READY}, 15},
        {{0}, 16},                           /* no type */
        {{AG_CHANNEL_TYPES}, 16},            /* one beyond */
        {{0xffffffff}, 16},                  /* */
        {{AG_CHANNEL_REFUSED, 0, 0, 5}, 20}, /* text of another length */
        {{AG_CHANNEL_REFUSED, 0, 0, 0}, 20}, /* */
        {{AG_CHANNEL_REFUSED, 0, 0, 0xffffffff}, 20},
    };
    uint8_t large[AG_CHANNEL_TEXT + 17] = {AG_CHANNEL_READY};
    unsigned before = open_fds();

    for (size_t i = 0; i < AG_COUNT(all); i++) {
        cr_assert_eq(send(ends[1], all[i].words, all[i].bytes, 0), (ssize_t)all[i].bytes);
        cr_expect_eq(ag_channel_receive(ends[0], true, &in), AG_EPROTO, "%zu", i);
    }
    cr_assert_eq(send(ends[1], large, sizeof(large), 0), (ssize_t)sizeof(large));
    cr_expect_eq(ag_channel_receive(ends[0], true, &in), AG_EPROTO);
    cr_assert_eq(open_fds(), before);
}

Test(channel, a_peer_that_does_not_read_is_not_waited_for)
{
    enum ag_status st = AG_OK;
    unsigned sent = 0;

    message(AG_CHANNEL_DESCRIPTORS, "", AG_CHANNEL_FDS);
    while (st == AG_OK && sent < 100000) {
        st = ag_channel_send(ends[0], &out);
        sent += st == AG_OK;
    }
    cr_assert_eq(st, AG_AGAIN);
    cr_assert_gt(sent, 50, "room for what one bundle takes: %u", sent);
}

Test(channel, a_peer_that_is_gone)
{
    cr_assert_eq(close(ends[1]), 0);
    cr_assert_eq(ag_channel_receive(ends[0], false, &in), AG_ENOENT);
    cr_assert_eq(ag_channel_tell(ends[0], AG_CHANNEL_DRAIN, 1), AG_ENOENT);
}
