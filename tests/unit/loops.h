/*
 * loops.h: for tests of the loop: each test runs on both backends, on a small loop that must be left
 * without a buffer, node or descriptor in use.
 */
#pragma once
#include "engine/loop.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

/* Turns that a test waits for something at most, and what each waits. */
#define TURNS_MAX 20000u
#define TURN_MS   20u

/* Turns `l` until `cond` holds. */
#define turn_until(l, cond)                                                  \
    do {                                                                     \
        for (unsigned turns_ = 0; !(cond) && turns_ < TURNS_MAX; turns_++) { \
            ag_loop_turn(l, TURN_MS);                                        \
        }                                                                    \
        cr_assert(cond, "never came: %s", #cond);                            \
    } while (0)

/* A test `name` of `suite` for each backend; its body takes `kind`. */
#define BOTH(suite, name)                                  \
    static void suite##_##name(enum ag_backend_kind kind); \
    Test(suite, name##_uring)                              \
    {                                                      \
        skip_without_uring();                              \
        suite##_##name(AG_BACKEND_URING);                  \
    }                                                      \
    Test(suite, name##_epoll)                              \
    {                                                      \
        suite##_##name(AG_BACKEND_EPOLL);                  \
    }                                                      \
    static void suite##_##name(enum ag_backend_kind kind)

static inline void skip_without_uring(void)
{
    enum ag_backend_kind kind;
    const char *why = NULL;

    if (ag_backend_choose(AG_BACKEND_URING, &kind, &why) != AG_OK) {
        cr_skip_test("no io_uring here: %s", why);
    }
}

static inline unsigned count_fds(void)
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

struct fixture {
    struct ag_loop loop;
    unsigned fds;
};

/* A loop with so many buffers of each group. On the heap: it is too large for a frame. */
static inline struct fixture *fixture_new(enum ag_backend_kind kind, uint32_t small, uint32_t large)
{
    const struct ag_loop_config config = {.backend = kind,
                                          .ring_entries = 256,
                                          .buf_count = {small, large},
                                          .node_count = 4096,
                                          .page_count = 16};
    struct fixture *f = calloc(1, sizeof(*f));
    const char *why = "";

    cr_assert(f);
    f->fds = count_fds();
    cr_assert(ag_loop_init(&f->loop, &config, &why) == AG_OK, "%s", why);
    return f;
}

/* Everything must be back. */
static inline void fixture_free(struct fixture *f)
{
    cr_expect_eq(ag_loop_bufs_used(&f->loop, AG_BUF_SMALL), 0);
    cr_expect_eq(ag_loop_bufs_used(&f->loop, AG_BUF_LARGE), 0);
    cr_expect_eq(f->loop.nodes.used, 0);
    ag_loop_deinit(&f->loop);
    cr_expect_eq(count_fds(), f->fds);
    free(f);
}

static inline void make_pair(int out_pair[2])
{
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, out_pair), 0);
}

/* A connected pair of TCP sockets over loopback, non-blocking. */
static inline void make_tcp_pair(int out_pair[2])
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof(in);
    int ls = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    cr_assert(ls >= 0);
    cr_assert_eq(bind(ls, (struct sockaddr *)&in, sizeof(in)), 0);
    cr_assert_eq(listen(ls, 1), 0);
    cr_assert_eq(getsockname(ls, (struct sockaddr *)&in, &len), 0);
    out_pair[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert(out_pair[0] >= 0);
    cr_assert_eq(connect(out_pair[0], (struct sockaddr *)&in, sizeof(in)), 0);
    out_pair[1] = accept4(ls, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    cr_assert(out_pair[1] >= 0);
    cr_assert_eq(fcntl(out_pair[0], F_SETFL, O_NONBLOCK), 0);
    (void)close(ls);
}

/* A file in memory with `len` bytes of the pattern; the caller closes it. */
static inline uint8_t pattern_at(uint64_t i)
{
    return (uint8_t)(i * 131 + (i >> 8) * 7 + (i >> 16));
}

static inline int make_file(size_t len)
{
    int fd = memfd_create("pattern", MFD_CLOEXEC);
    uint8_t *bytes = malloc(len);

    cr_assert(fd >= 0 && bytes);
    for (size_t i = 0; i < len; i++) {
        bytes[i] = pattern_at(i);
    }
    cr_assert_eq(write(fd, bytes, len), (ssize_t)len);
    free(bytes);
    return fd;
}
