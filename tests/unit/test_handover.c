/*
 * Goal: a successor gets every socket of its predecessor, at the right address, or none; and nothing
 * stays open when the other side lies, stops or goes.
 * Method: both sides in one process over a real pair; open descriptors are counted.
 */
#include "tools/handover.h"

#include "engine/listener.h"
#include "engine/resolver.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

static int ends[2];
static struct ag_sockets ours, theirs;
static char why_text[512];
static struct ag_buf why;
static unsigned open_at_start;

static unsigned open_count(void)
{
    DIR *d = opendir("/proc/self/fd");
    unsigned n = 0;

    cr_assert_not_null(d);
    while (readdir(d)) {
        n++;
    }
    (void)closedir(d);
    return n;
}

static void setup(void)
{
    ag_sockets_init(&ours, 1, 16);
    ag_sockets_init(&theirs, 1, 16);
    memset(why_text, 0, sizeof(why_text));
    why = ag_buf(why_text, sizeof(why_text) - 1);
    open_at_start = open_count();
    cr_assert_eq(ag_handover_pair(ends), AG_OK);
}

static void teardown(void)
{
    ag_sockets_deinit(&ours);
    ag_sockets_deinit(&theirs);
    for (int i = 0; i < 2; i++) {
        if (ends[i] >= 0) {
            (void)close(ends[i]);
        }
    }
    cr_expect_eq(open_count(), open_at_start);
}

TestSuite(handover, .init = setup, .fini = teardown);

static int bound(const union ag_addr *addr, bool reuse)
{
    const char *step = "";
    int fd = -1, error = 0;

    cr_assert_eq(ag_listener_bind(addr, reuse, 16, &fd, &error, &step), AG_OK, "%s: %s", step,
                 strerror(error));
    return fd;
}

static union ag_addr address(const char *host, uint16_t port)
{
    union ag_addr a;

    cr_assert_eq(ag_addr_parse(ag_span_str(host), port, &a), AG_OK);
    return a;
}

/* A set of `count` sockets at a free port of `host`; where it is. */
static union ag_addr add(const char *host, uint32_t count, bool reuse)
{
    union ag_addr a = address(host, 0);
    socklen_t len = sizeof(a);
    int fds[AG_SOCKET_FDS];

    fds[0] = bound(&a, reuse);
    cr_assert_eq(getsockname(fds[0], &a.sa, &len), 0);
    for (uint32_t i = 1; i < count; i++) {
        fds[i] = reuse ? bound(&a, true) : fcntl(fds[0], F_DUPFD_CLOEXEC, 0);
        cr_assert_geq(fds[i], 0);
    }
    ag_sockets_adopt(&ours, &a, fds, count, !reuse && count > 1);
    return a;
}

static bool same_socket(int a, int b)
{
    socklen_t len = sizeof(uint64_t);
    uint64_t cookie_a = 0, cookie_b = 1;

    cr_assert_eq(getsockopt(a, SOL_SOCKET, SO_COOKIE, &cookie_a, &len), 0);
    cr_assert_eq(getsockopt(b, SOL_SOCKET, SO_COOKIE, &cookie_b, &len), 0);
    return cookie_a == cookie_b;
}

static void send_all(void)
{
    struct ag_handover_cursor cursor = {0};

    cr_assert_eq(ag_handover_send(ends[0], &ours, &cursor), AG_OK);
    cr_assert(cursor.ended);
}

static void say(const char *text)
{
    cr_assert_eq(send(ends[0], text, strlen(text), 0), (ssize_t)strlen(text));
}

static void expect_same(void)
{
    cr_assert_eq(theirs.count, ours.count);
    for (uint32_t i = 0; i < ours.count; i++) {
        const struct ag_socket *k = &ours.items[i];
        const struct ag_socket *got = ag_sockets_find(&theirs, &k->addr);

        cr_assert_not_null(got);
        cr_assert_eq(got->fd_count, k->fd_count);
        for (uint32_t f = 0; f < k->fd_count; f++) {
            cr_assert(same_socket(got->fds[f], k->fds[f]), "address %u, descriptor %u", i, f);
            cr_assert(fcntl(got->fds[f], F_GETFD) & FD_CLOEXEC);
            cr_assert(fcntl(got->fds[f], F_GETFL) & O_NONBLOCK);
        }
    }
}

Test(handover, all_kinds)
{
    char path[64];
    union ag_addr none = address("::2", 4711);

    (void)snprintf(path, sizeof(path), "unix:/tmp/anygate-handover-%d", (int)getpid());
    union ag_addr each = add("127.0.0.1", 3, true), one = add("127.0.0.1", 1, false);
    add(path, 3, false);
    ag_sockets_adopt(&ours, &none, ends, 0, false); /* a family that this system lacks */
    send_all();
    cr_assert_eq(ag_handover_receive(ends[1], 1000, &theirs, &why), AG_OK, "%s", why_text);
    expect_same();
    cr_expect_not(ag_sockets_find(&theirs, &each)->shared);
    cr_expect(ag_sockets_find(&theirs, &one)->shared, "nobody can bind beside it");
    (void)unlink(path + 5);
}

Test(handover, ipv6)
{
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    union ag_addr a = address("::1", 0);

    if (fd < 0 || bind(fd, &a.sa, sizeof(a.in6)) != 0) {
        (void)close(fd);
        cr_skip("no IPv6 here");
    }
    (void)close(fd);
    add("::1", 2, true);
    send_all();
    cr_assert_eq(ag_handover_receive(ends[1], 1000, &theirs, &why), AG_OK, "%s", why_text);
    expect_same();
}

Test(handover, nothing)
{
    send_all();
    cr_assert_eq(ag_handover_receive(ends[1], 1000, &theirs, &why), AG_OK, "%s", why_text);
    cr_assert_eq(theirs.count, 0);
}

/* More than one message holds, and more than the channel holds. */
Test(handover, many)
{
    struct ag_handover_cursor cursor = {0};
    int small = 1;
    enum ag_status st;

    for (int i = 0; i < 4; i++) {
        add("127.0.0.1", 450, false);
    }
    cr_assert_eq(setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
    st = ag_handover_send(ends[0], &ours, &cursor);
    cr_assert_eq(st, AG_AGAIN);
    if (fork() == 0) { /* the reader; its descriptors are its own */
        cr_assert_eq(close(ends[0]), 0);
        bool good =
            ag_handover_receive(ends[1], 10000, &theirs, &why) == AG_OK && theirs.count == 4;
        for (uint32_t i = 0; good && i < 4; i++) {
            const struct ag_socket *k = &ours.items[i];
            const struct ag_socket *got = ag_sockets_find(&theirs, &k->addr);

            good = got && got->fd_count == 450 && same_socket(got->fds[449], k->fds[0]);
        }
        (void)!ag_handover_say(ends[1], good ? AG_HANDOVER_YOURS : AG_HANDOVER_NEVER);
        _exit(0);
    }
    while (st == AG_AGAIN) {
        (void)usleep(1000);
        st = ag_handover_send(ends[0], &ours, &cursor);
    }
    cr_assert_eq(st, AG_OK);
    enum ag_handover_word word = AG_HANDOVER_READY;
    struct ag_handover_ready ready;
    while (ag_handover_hear(ends[0], &word, &ready) == AG_AGAIN) {
        (void)usleep(1000);
    }
    cr_expect_eq(word, AG_HANDOVER_YOURS);
}

Test(handover, what_is_not_understood)
{
    static const char *const rows[][3] = {
        {"hello", NULL, "does not understand: hello"},
        {"socket all 127.0.0.1:80", NULL, "does not understand: socket all"},
        {"socket each 127.0.0.1", NULL, "does not understand"},
        {"socket each 127.0.0.1:65536", NULL, "does not understand"},
        {"socket each localhost:80", NULL, "does not understand"},
        {"socket each", NULL, "does not understand"},
        {"end", NULL, "does not understand"},
        {"end 1", NULL, "does not understand: end 1"},
        {"socket each 127.0.0.1:80", "end 2", "does not understand: end 2"},
        {"ready 5 ", NULL, "does not understand"},
    };

    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        say(rows[i][0]);
        if (rows[i][1]) {
            say(rows[i][1]);
        }
        cr_expect_eq(ag_handover_receive(ends[1], 1000, &theirs, &why), AG_EPROTO, "row %zu", i);
        cr_expect(strstr(why_text, rows[i][2]), "row %zu: %s", i, why_text);
        cr_expect_eq(theirs.count, 0);
        teardown();
        setup();
    }
}

/* The message with the descriptors of `k` alone. */
static void send_socket(const struct ag_socket *k)
{
    struct ag_sockets one = {.items = (struct ag_socket *)(uintptr_t)k, .count = 1};
    struct ag_handover_cursor cursor = {.ended = true};

    cr_assert_eq(ag_handover_send(ends[0], &one, &cursor), AG_OK);
}

Test(handover, what_was_taken_is_closed_when_the_rest_fails)
{
    static const char *const ends_with[] = {"end 5", "nonsense", NULL};

    add("127.0.0.1", 2, true);
    for (size_t i = 0; i < AG_COUNT(ends_with); i++) {
        unsigned before = open_count();

        send_socket(&ours.items[0]);
        if (ends_with[i]) {
            say(ends_with[i]);
        }
        cr_expect_eq(ag_handover_receive(ends[1], 20, &theirs, &why), AG_EPROTO, "row %zu", i);
        cr_expect_eq(theirs.count, 0);
        cr_expect_eq(open_count(), before, "row %zu", i);
    }
    cr_expect(strstr(why_text, "hands nothing over"), "%s", why_text);
}

Test(handover, the_same_address_twice)
{
    add("127.0.0.1", 1, true);
    add("127.0.0.1", 1, true);
    send_socket(&ours.items[0]);
    send_socket(&ours.items[1]);
    send_socket(&ours.items[0]);
    cr_expect_eq(ag_handover_receive(ends[1], 1000, &theirs, &why), AG_EPROTO);
    cr_expect_eq(theirs.count, 0);
}

Test(handover, more_addresses_than_there_may_be)
{
    char text[64];

    for (unsigned i = 0; i <= AG_LISTEN_MAX; i++) {
        (void)snprintf(text, sizeof(text), "socket each 127.0.0.1:%u", 1000 + i);
        say(text);
    }
    cr_expect_eq(ag_handover_receive(ends[1], 1000, &theirs, &why), AG_EPROTO);
    cr_expect(strstr(why_text, "127.0.0.1:1064"), "%s", why_text);
}

Test(handover, more_descriptors_than_this_process_may_have)
{
    struct rlimit was, low;

    add("127.0.0.1", 100, false);
    send_all();
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &was), 0);
    low = was;
    low.rlim_cur = open_count() + 50;
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &low), 0);
    cr_expect_eq(ag_handover_receive(ends[1], 1000, &theirs, &why), AG_EPROTO);
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &was), 0);
    cr_expect(strstr(why_text, "more than this process may have open"), "%s", why_text);
}

Test(handover, no_channel)
{
    cr_expect_eq(ag_handover_receive(0x7fff, 1000, &theirs, &why), AG_EPROTO);
    cr_expect(strstr(why_text, "Bad file descriptor"), "%s", why_text);
    (void)close(ends[0]);
    ends[0] = -1;
    why.len = 0;
    cr_expect_eq(ag_handover_receive(ends[1], 1000, &theirs, &why), AG_EPROTO);
    cr_expect(strstr(why_text, "is gone"), "%s", why_text);
}

Test(handover, words)
{
    struct ag_handover_ready ready = {0};
    enum ag_handover_word word = AG_HANDOVER_NEVER;

    cr_assert_eq(ag_handover_hear(ends[1], &word, &ready), AG_AGAIN);
    cr_assert_eq(ag_handover_say_ready(ends[0], "/run/a b.pid"), AG_OK);
    cr_assert_eq(ag_handover_say_ready(ends[0], NULL), AG_OK);
    cr_assert_eq(ag_handover_say(ends[0], AG_HANDOVER_YOURS), AG_OK);
    cr_assert_eq(ag_handover_say(ends[0], AG_HANDOVER_TAKEN), AG_OK);
    cr_assert_eq(ag_handover_say(ends[0], AG_HANDOVER_NEVER), AG_OK);
    cr_assert_eq(ag_handover_hear(ends[1], &word, &ready), AG_OK);
    cr_expect_eq(word, AG_HANDOVER_READY);
    cr_expect_eq(ready.pid, getpid());
    cr_expect_str_eq(ready.pid_file, "/run/a b.pid");
    cr_assert_eq(ag_handover_hear(ends[1], &word, &ready), AG_OK);
    cr_expect_str_eq(ready.pid_file, "");
    cr_assert_eq(ag_handover_hear(ends[1], &word, &ready), AG_OK);
    cr_expect_eq(word, AG_HANDOVER_YOURS);
    cr_assert_eq(ag_handover_hear(ends[1], &word, &ready), AG_OK);
    cr_expect_eq(word, AG_HANDOVER_TAKEN);
    cr_assert_eq(ag_handover_hear(ends[1], &word, &ready), AG_OK);
    cr_expect_eq(word, AG_HANDOVER_NEVER);
    cr_assert_eq(ag_handover_hear(ends[1], &word, &ready), AG_AGAIN);

    static const char *const bad[] = {"ready",    "ready 5",   "ready x /a",
                                      "ready 0 ", "ready -1 ", "ready 4294967296 ",
                                      "Yours",    "yours ",    "y"};
    for (size_t i = 0; i < AG_COUNT(bad); i++) {
        say(bad[i]);
        cr_expect_eq(ag_handover_hear(ends[1], &word, &ready), AG_EPROTO, "%s", bad[i]);
    }
    (void)close(ends[0]);
    ends[0] = -1;
    cr_expect_eq(ag_handover_hear(ends[1], &word, &ready), AG_ENOENT);
    cr_expect_eq(ag_handover_say(ends[1], AG_HANDOVER_YOURS), AG_ESYS);
}

/* The last words of a side that goes without having read all. */
Test(handover, last_words)
{
    struct ag_handover_ready ready = {0};
    enum ag_handover_word word = AG_HANDOVER_NEVER;

    cr_assert_eq(ag_handover_say(ends[1], AG_HANDOVER_YOURS), AG_OK);
    cr_assert_eq(ag_handover_say(ends[0], AG_HANDOVER_TAKEN), AG_OK);
    (void)close(ends[0]);
    ends[0] = -1;
    cr_expect_eq(ag_handover_hear(ends[1], &word, &ready), AG_OK);
    cr_expect_eq(word, AG_HANDOVER_TAKEN);
    cr_expect_eq(ag_handover_hear(ends[1], &word, &ready), AG_ENOENT);
}
