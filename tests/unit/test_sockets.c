/*
 * Goal: a plan that fails leaves the set and its descriptors as they were; what stays wanted keeps its
 * descriptors; nobody leaks.
 */
#include "tools/sockets.h"

#include "engine/listener.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#define SHARDS 3u

static union ag_addr loopback(uint16_t port)
{
    return (union ag_addr){.in = {.sin_family = AF_INET,
                                  .sin_port = htons(port),
                                  .sin_addr = {htonl(INADDR_LOOPBACK)}}};
}

static unsigned open_descriptors(void)
{
    unsigned n = 0;

    for (int fd = 0; fd < 256; fd++) {
        n += fcntl(fd, F_GETFD) >= 0;
    }
    return n;
}

/* A port that nobody listens on, as far as can be told: none of those that the system gives to whoever connects, which
 * it might before it is bound, nor of tests/ports.py. */
static uint16_t free_port(void)
{
    enum { FIRST = 2000, COUNT = 8000, EACH = 31 };
    static unsigned given;

    for (;;) {
        union ag_addr addr =
            loopback((uint16_t)(FIRST + ((unsigned)getpid() * EACH + given++) % COUNT));
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        bool is_free = bind(fd, &addr.sa, sizeof(addr.in)) == 0;

        (void)close(fd);
        if (is_free) {
            return ntohs(addr.in.sin_port);
        }
        cr_assert_lt(given, COUNT);
    }
}

static struct ag_model *model_of(const union ag_addr *addrs, unsigned count)
{
    struct ag_model *m = calloc(1, sizeof(*m));

    cr_assert_not_null(m);
    m->listen_count = (uint16_t)count;
    for (unsigned i = 0; i < count; i++) {
        m->listens[i].addr = addrs[i];
    }
    return m;
}

static enum ag_status plan(struct ag_sockets *s, const union ag_addr *addrs, unsigned count,
                           char *why, size_t cap)
{
    struct ag_model *m = model_of(addrs, count);
    struct ag_buf b = ag_buf(why, cap - 1);
    enum ag_status st = ag_sockets_plan(s, m, &b);

    why[b.len] = '\0';
    free(m);
    return st;
}

/* What shards do with what a commit gave them. */
static void close_taken(const struct ag_socket *k)
{
    for (uint32_t i = 0; i < k->fd_count; i++) {
        cr_assert_eq(close(k->fds[i]), 0);
    }
}

Test(sockets, one_descriptor_a_shard)
{
    union ag_addr addr = loopback(free_port());
    struct ag_sockets s;
    char why[200];

    ag_sockets_init(&s, SHARDS, 16);
    cr_assert_eq(plan(&s, &addr, 1, why, sizeof(why)), AG_OK, "%s", why);
    const struct ag_socket *k = ag_sockets_find(&s, &addr);
    cr_assert(k && k->fresh && !k->shared);
    cr_expect_eq(k->fd_count, SHARDS);
    ag_sockets_cancel(&s);
    cr_expect_null(ag_sockets_find(&s, &addr));
    ag_sockets_deinit(&s);
}

Test(sockets, what_stays_keeps_its_descriptors)
{
    union ag_addr a = loopback(free_port()), b = loopback(free_port());
    unsigned before = open_descriptors();
    const union ag_addr both[] = {a, b};
    struct ag_sockets s;
    char why[200];

    ag_sockets_init(&s, SHARDS, 16);
    cr_assert_eq(plan(&s, &a, 1, why, sizeof(why)), AG_OK, "%s", why);
    ag_sockets_commit(&s);
    struct ag_socket first = *ag_sockets_find(&s, &a);
    cr_assert_eq(plan(&s, both, 2, why, sizeof(why)), AG_OK, "%s", why);
    ag_sockets_commit(&s);
    const struct ag_socket *kept = ag_sockets_find(&s, &a);
    cr_expect_eq(kept->id, first.id);
    cr_expect_arr_eq(kept->fds, first.fds, SHARDS * sizeof(int));
    struct ag_socket second = *ag_sockets_find(&s, &b);
    cr_expect_neq(second.id, first.id);

    /* Dropped: the shards close theirs, the set only forgets. */
    cr_assert_eq(plan(&s, &b, 1, why, sizeof(why)), AG_OK, "%s", why);
    ag_sockets_commit(&s);
    cr_expect_null(ag_sockets_find(&s, &a));
    close_taken(&first);
    close_taken(&second);
    ag_sockets_deinit(&s);
    cr_expect_eq(open_descriptors(), before);
}

Test(sockets, a_plan_that_fails_changes_nothing)
{
    union ag_addr a = loopback(free_port()), other = loopback(free_port()), taken = loopback(0);
    socklen_t len = sizeof(taken);
    struct ag_sockets s;
    char why[200];
    int busy = socket(AF_INET, SOCK_STREAM, 0);

    cr_assert(bind(busy, &taken.sa, sizeof(taken.in)) == 0 && listen(busy, 1) == 0 &&
              getsockname(busy, &taken.sa, &len) == 0);
    ag_sockets_init(&s, SHARDS, 16);
    cr_assert_eq(plan(&s, &a, 1, why, sizeof(why)), AG_OK, "%s", why);
    ag_sockets_commit(&s);
    struct ag_socket first = *ag_sockets_find(&s, &a);
    unsigned before = open_descriptors();
    const union ag_addr wanted[] = {a, other, taken};
    cr_expect_neq(plan(&s, wanted, 3, why, sizeof(why)), AG_OK);
    cr_expect(strstr(why, "cannot bind 127.0.0.1:"), "%s", why);
    cr_expect(strstr(why, "another process listens there"), "%s", why);
    cr_expect_eq(open_descriptors(), before);
    cr_expect_null(ag_sockets_find(&s, &other));
    cr_expect_eq(ag_sockets_find(&s, &a)->id, first.id);
    close_taken(&first);
    ag_sockets_deinit(&s);
    (void)close(busy);
}

Test(sockets, a_unix_path_is_bound_once_and_shared)
{
    union ag_addr addr = {.un = {.sun_family = AF_UNIX}};
    unsigned before = open_descriptors();
    struct ag_sockets s;
    char why[200];

    (void)snprintf(addr.un.sun_path + 1, sizeof(addr.un.sun_path) - 1, "anygate-%d", (int)getpid());
    ag_sockets_init(&s, SHARDS, 16);
    cr_assert_eq(plan(&s, &addr, 1, why, sizeof(why)), AG_OK, "%s", why);
    cr_expect(ag_sockets_find(&s, &addr)->shared);
    cr_expect_eq(ag_sockets_find(&s, &addr)->fd_count, SHARDS);
    ag_sockets_cancel(&s);
    ag_sockets_deinit(&s);
    cr_expect_eq(open_descriptors(), before);
}

static void *let_go(void *fd)
{
    (void)usleep(50000);
    (void)close(*(const int *)fd);
    return NULL;
}

/* As of a process that was killed, and whose io_uring the kernel is still taking down. */
Test(sockets, what_nobody_holds_soon_is_waited_for)
{
    union ag_addr addrs[] = {loopback(free_port()), {.un = {.sun_family = AF_UNIX}}};
    const char *step;
    char why[200];
    int error;

    (void)snprintf(addrs[1].un.sun_path, sizeof(addrs[1].un.sun_path), "/tmp/anygate-sockets-%d",
                   (int)getpid());
    for (size_t i = 0; i < AG_COUNT(addrs); i++) {
        enum ag_status st = AG_ESYS;

        /* Again where the thread that lets go of it stood still for too long. */
        for (unsigned tries = 0; st != AG_OK && tries < 20; tries++) {
            struct ag_sockets s;
            pthread_t thread;
            int fd = -1;

            cr_assert_eq(ag_listener_bind(&addrs[i], false, 16, &fd, &error, &step), AG_OK);
            cr_assert_eq(pthread_create(&thread, NULL, let_go, &fd), 0);
            ag_sockets_init(&s, SHARDS, 16);
            st = plan(&s, &addrs[i], 1, why, sizeof(why));
            (void)pthread_join(thread, NULL);
            ag_sockets_cancel(&s);
            ag_sockets_deinit(&s);
        }
        cr_expect_eq(st, AG_OK, "%s", why);
    }
    (void)unlink(addrs[1].un.sun_path);
}

/* What a plan gives up is served until it holds. */
Test(sockets, its_own_are_in_the_way_of_wider_ones)
{
    uint16_t port = free_port();
    union ag_addr narrow = loopback(port), wide = loopback(port);
    struct ag_sockets s;
    char why[300];

    wide.in.sin_addr.s_addr = htonl(INADDR_ANY);
    ag_sockets_init(&s, SHARDS, 16);
    cr_assert_eq(plan(&s, &narrow, 1, why, sizeof(why)), AG_OK, "%s", why);
    ag_sockets_commit(&s);
    struct ag_socket first = *ag_sockets_find(&s, &narrow);
    cr_expect_neq(plan(&s, &wide, 1, why, sizeof(why)), AG_OK);
    cr_expect(strstr(why, "cannot bind 0.0.0.0:"), "%s", why);
    cr_expect(strstr(why, ": this server itself listens on 127.0.0.1:"), "%s", why);
    cr_expect(strstr(why, "; hint: restart, or "), "%s", why);
    cr_expect_not_null(ag_sockets_find(&s, &narrow));
    close_taken(&first);
    ag_sockets_deinit(&s);
}

/* From a supervisor: one socket for an address that is configured, one for another that is not. */
Test(sockets, adopted_ones_are_shared_or_closed)
{
    union ag_addr a = loopback(free_port()), b = loopback(free_port());
    unsigned before = open_descriptors();
    const char *step;
    struct ag_sockets s;
    char why[200];
    int fd_a, fd_b, error;

    cr_assert_eq(ag_listener_bind(&a, false, 16, &fd_a, &error, &step), AG_OK);
    cr_assert_eq(ag_listener_bind(&b, false, 16, &fd_b, &error, &step), AG_OK);
    ag_sockets_init(&s, SHARDS, 16);
    ag_sockets_adopt(&s, &a, &fd_a, 1, true);
    ag_sockets_adopt(&s, &b, &fd_b, 1, true);
    cr_assert_eq(plan(&s, &a, 1, why, sizeof(why)), AG_OK, "%s", why);
    ag_sockets_commit(&s);
    struct ag_socket k = *ag_sockets_find(&s, &a);
    cr_expect_eq(k.fd_count, SHARDS);
    cr_expect_eq(k.fds[0], fd_a);
    cr_expect(fcntl(fd_b, F_GETFD) < 0 && errno == EBADF);
    close_taken(&k);
    ag_sockets_deinit(&s);
    cr_expect_eq(open_descriptors(), before);
}

/* How many of an address's sockets take connections. */
Test(sockets, one_that_another_serves_does_not_stay_alone)
{
    const uint16_t port = htons(free_port());
    const union ag_addr both[] = {{.in6 = {.sin6_family = AF_INET6, .sin6_port = port}},
                                  {.in = {.sin_family = AF_INET, .sin_port = port}}};
    const int fd = open("/dev/null", O_RDONLY | O_CLOEXEC); /* stands for the socket */
    struct ag_sockets s;
    char why[300];

    ag_sockets_init(&s, SHARDS, 16);
    ag_sockets_adopt(&s, &both[0], &fd, 1, true);
    ag_sockets_adopt(&s, &both[1], &fd, 0, true);
    cr_assert_eq(plan(&s, both, 2, why, sizeof(why)), AG_OK, "%s", why);
    ag_sockets_commit(&s);
    for (int turn = 0; turn < 2; turn++) {
        cr_expect_eq(plan(&s, &both[1], 1, why, sizeof(why)), AG_ESYS);
        cr_expect(strstr(why, "the service manager's socket on [::]:"), "%s", why);
    }
    cr_expect_eq(plan(&s, both, 2, why, sizeof(why)), AG_OK, "%s", why);
    ag_sockets_commit(&s);
    cr_expect_eq(plan(&s, &both[0], 1, why, sizeof(why)), AG_OK, "%s", why);
    const struct ag_socket *k = ag_sockets_find(&s, &both[0]);
    cr_assert_eq(k->fd_count, SHARDS);
    close_taken(k);
    ag_sockets_deinit(&s);
}

static uint32_t listening(const struct ag_sockets *s, const union ag_addr *addr)
{
    const struct ag_socket *k = ag_sockets_find(s, addr);
    uint32_t count = 0;

    for (uint32_t i = 0; i < k->fd_count; i++) {
        socklen_t len = sizeof(int);
        int is = 0;

        cr_assert_eq(getsockopt(k->fds[i], SOL_SOCKET, SO_ACCEPTCONN, &is, &len), 0);
        count += is != 0;
    }
    return count;
}

/* From a predecessor with fewer shards, and from one with more. */
Test(sockets, inherited_ones_are_completed_or_spread)
{
    for (uint32_t inherited = 1; inherited <= SHARDS + 2; inherited++) {
        union ag_addr addr = loopback(free_port());
        struct ag_sockets s;
        const char *step;
        char why[200];
        int fds[SHARDS + 2], error;

        for (uint32_t i = 0; i < inherited; i++) {
            cr_assert_eq(ag_listener_bind(&addr, true, 16, &fds[i], &error, &step), AG_OK);
        }
        ag_sockets_init(&s, SHARDS, 16);
        ag_sockets_adopt(&s, &addr, fds, inherited, false);
        cr_assert_eq(plan(&s, &addr, 1, why, sizeof(why)), AG_OK, "%s", why);
        cr_expect_eq(listening(&s, &addr), inherited, "the others are served by nobody yet");
        ag_sockets_listen(&s);
        ag_sockets_commit(&s);
        struct ag_socket k = *ag_sockets_find(&s, &addr);
        cr_expect_eq(listening(&s, &addr), k.fd_count);
        cr_expect_eq(k.fd_count, inherited > SHARDS ? inherited : SHARDS);
        cr_expect_arr_eq(k.fds, fds, inherited * sizeof(int));
        close_taken(&k);
        ag_sockets_deinit(&s);
    }
}
