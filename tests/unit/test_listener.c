/*
 * Goal: no connection that the kernel accepted is lost, whether the listener pauses, runs out of
 * descriptors or closes; start-up errors name their step.
 */
#include "tests/unit/loops.h"

#include "engine/listener.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/resource.h>

struct server {
    struct ag_listener ls;
    struct fixture *f;
    struct ag_loop *l;
    int fds[256];
    unsigned count, closed, pause_at;
    struct ag_task between; /* runs after each part of a crowd, as what else is ready does */
    unsigned in_a_row, in_a_row_max;
};

static void on_accepted(struct ag_listener *ls, int fd)
{
    struct server *s = ag_container_of(ls, struct server, ls);

    cr_assert(s->count < AG_COUNT(s->fds));
    s->fds[s->count++] = fd;
    if (++s->in_a_row > s->in_a_row_max) {
        s->in_a_row_max = s->in_a_row;
    }
    if (s->between.run) {
        ag_task_queue(s->l, &s->between);
    }
    if (s->count == s->pause_at) {
        ag_listener_pause(ls);
    }
}

static void between(struct ag_task *t)
{
    ag_container_of(t, struct server, between)->in_a_row = 0;
}

static void on_closed(struct ag_listener *ls)
{
    struct server *s = ag_container_of(ls, struct server, ls);

    s->closed++;
    memset(ls, 0xa5, sizeof(*ls)); /* freed: whoever touches it now fails */
}

static int bind_ok(const union ag_addr *addr, bool reuse_port)
{
    const char *step = "none";
    int fd = -1, err = 0;

    cr_assert_eq(ag_listener_bind(addr, reuse_port, 200, &fd, &err, &step), AG_OK, "%s: %d", step,
                 err);
    return fd;
}

static union ag_addr loopback(void)
{
    return (union ag_addr){.in = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}}};
}

static struct server *server_new(enum ag_backend_kind kind)
{
    struct server *s = calloc(1, sizeof(*s));
    union ag_addr addr = loopback();

    cr_assert(s);
    s->f = fixture_new(kind, 16, 4);
    s->l = &s->f->loop;
    ag_listener_open(&s->ls, s->l, bind_ok(&addr, false), on_accepted);
    cr_assert_neq(s->ls.addr.in.sin_port, 0);
    return s;
}

static void server_close(struct server *s)
{
    ag_listener_close(&s->ls, on_closed);
    cr_expect_eq(s->closed, 0, "closed came from inside the call");
    turn_until(s->l, s->closed == 1);
}

static void server_free(struct server *s)
{
    for (unsigned i = 0; i < s->count; i++) {
        (void)close(s->fds[i]);
    }
    fixture_free(s->f);
    free(s);
}

static int dial(const union ag_addr *addr)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    cr_assert(fd >= 0);
    cr_assert_eq(connect(fd, &addr->sa, sizeof(addr->in)), 0);
    return fd;
}

BOTH(listener, accepts)
{
    struct server *s = server_new(kind);
    int fds[50], on = 0;
    socklen_t len = sizeof(on);

    for (size_t i = 0; i < AG_COUNT(fds); i++) {
        fds[i] = dial(&s->ls.addr);
    }
    turn_until(s->l, s->count == AG_COUNT(fds));
    cr_assert_eq(getsockopt(s->fds[0], IPPROTO_TCP, TCP_NODELAY, &on, &len), 0);
    cr_expect_neq(on, 0, "TCP_NODELAY is not inherited");
    for (size_t i = 0; i < AG_COUNT(fds); i++) {
        (void)close(fds[i]);
    }
    server_close(s);
    server_free(s);
}

/* Who has room for so many and no more gets no more, however many wait. */
BOTH(listener, pause_is_at_once_where_sparing)
{
    struct server *s = server_new(kind);
    int fds[50];

    s->pause_at = 5;
    for (size_t i = 0; i < AG_COUNT(fds); i++) {
        fds[i] = dial(&s->ls.addr);
    }
    while (s->count < AG_COUNT(fds)) {
        unsigned count = s->count;

        s->pause_at = count + 5;
        ag_listener_resume(&s->ls);
        turn_until(s->l, s->count >= s->pause_at);
        for (unsigned i = 0; i < 10; i++) {
            ag_loop_turn(s->l, 0);
        }
        cr_assert_eq(s->count, count + 5, "accepted while paused");
    }
    for (size_t i = 0; i < AG_COUNT(fds); i++) {
        (void)close(fds[i]);
    }
    server_close(s);
    server_free(s);
}

/* A crowd is taken in parts: whoever is ready beside it does not wait for all of it. */
BOTH(listener, others_have_their_turn_where_sparing)
{
    struct server *s = server_new(kind);
    int fds[100];

    ag_listener_pause(&s->ls);
    turn_until(s->l, !ag_op_in_flight(&s->ls.op));
    for (size_t i = 0; i < AG_COUNT(fds); i++) {
        fds[i] = dial(&s->ls.addr);
    }
    ag_task_init(&s->between, between);
    ag_listener_resume(&s->ls);
    turn_until(s->l, s->count == AG_COUNT(fds));
    cr_expect(s->in_a_row_max <= 32, "%u in a row", s->in_a_row_max); /* twice before tasks run */
    for (size_t i = 0; i < AG_COUNT(fds); i++) {
        (void)close(fds[i]);
    }
    server_close(s);
    server_free(s);
}

BOTH(listener, way_changes_under_way)
{
    struct server *s = server_new(kind);
    int fds[60];

    for (size_t i = 0; i < AG_COUNT(fds); i++) {
        fds[i] = dial(&s->ls.addr);
        ag_listener_set_way(&s->ls, i % 2 ? AG_ACCEPT_SPARING : AG_ACCEPT_ALL);
        if (i % 3 == 0) {
            ag_loop_turn(s->l, 0);
        }
    }
    turn_until(s->l, s->count == AG_COUNT(fds));
    for (size_t i = 0; i < AG_COUNT(fds); i++) {
        (void)close(fds[i]);
    }
    server_close(s);
    server_free(s);
}

BOTH(listener, pause_and_resume)
{
    struct server *s = server_new(kind);
    int fds[50];

    ag_listener_set_way(&s->ls, AG_ACCEPT_ALL);
    s->pause_at = 5;
    for (size_t i = 0; i < AG_COUNT(fds); i++) {
        fds[i] = dial(&s->ls.addr);
    }
    turn_until(s->l, s->count >= 5);
    for (unsigned i = 0; i < 10; i++) {
        ag_loop_turn(s->l, 0);
    }
    unsigned count = s->count;
    for (unsigned i = 0; i < 10; i++) {
        ag_loop_turn(s->l, 0);
    }
    cr_expect_eq(s->count, count, "accepted while paused");
    ag_listener_resume(&s->ls);
    ag_listener_pause(&s->ls);
    ag_listener_resume(&s->ls);
    turn_until(s->l, s->count == AG_COUNT(fds));
    for (size_t i = 0; i < AG_COUNT(fds); i++) {
        (void)close(fds[i]);
    }
    server_close(s);
    server_free(s);
}

BOTH(listener, close_serves_what_is_queued)
{
    struct server *s = server_new(kind);
    union ag_addr addr = s->ls.addr;
    int fds[50];

    ag_loop_turn(s->l, 0);
    for (size_t i = 0; i < AG_COUNT(fds); i++) {
        fds[i] = dial(&addr);
    }
    server_close(s);
    cr_expect_eq(s->count, AG_COUNT(fds));
    for (size_t i = 0; i < AG_COUNT(fds); i++) {
        (void)close(fds[i]);
    }
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_expect_neq(connect(fd, &addr.sa, sizeof(addr.in)), 0, "still listening");
    (void)close(fd);
    server_free(s);
}

BOTH(listener, close_while_paused)
{
    struct server *s = server_new(kind);

    ag_listener_pause(&s->ls);
    for (unsigned i = 0; i < 5; i++) {
        ag_loop_turn(s->l, 0);
    }
    int fd = dial(&s->ls.addr);
    server_close(s);
    cr_expect_eq(s->count, 1);
    (void)close(fd);
    server_free(s);
}

/* No descriptor is free: accept waits and neither spins nor forgets. */
BOTH(listener, out_of_descriptors)
{
    struct server *s = server_new(kind);
    struct rlimit old, low;
    int fds[3];

    /* io_uring reads the limit when accept is armed, so that must come after. */
    ag_listener_pause(&s->ls);
    turn_until(s->l, !ag_op_in_flight(&s->ls.op));
    for (size_t i = 0; i < AG_COUNT(fds); i++) {
        fds[i] = dial(&s->ls.addr);
    }
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &old), 0);
    low = (struct rlimit){3, old.rlim_max};
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &low), 0);
    ag_listener_resume(&s->ls);
    turn_until(s->l, ag_timer_armed(&s->ls.retry));
    cr_expect_eq(s->count, 0);
    uint64_t turns = s->l->stats.turns, completions = s->l->stats.completions;
    uint64_t since_ms = s->l->now_ms;
    for (unsigned i = 0; i < 10; i++) {
        ag_loop_turn(s->l, 5);
    }
    cr_expect_eq(s->l->stats.turns - turns, 10);
    /* It tries again every 100 ms, while these turns take 50. */
    cr_expect(s->l->stats.completions - completions <= 4 + (s->l->now_ms - since_ms) / 50,
              "it spins");
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &old), 0);
    turn_until(s->l, s->count == AG_COUNT(fds));
    for (size_t i = 0; i < AG_COUNT(fds); i++) {
        (void)close(fds[i]);
    }
    server_close(s);
    server_free(s);
}

Test(listener, errors_name_their_step)
{
    union ag_addr addr = loopback();
    socklen_t len = sizeof(addr);
    const char *step = "none";
    int fd = bind_ok(&addr, false), fd2 = -1, err = 0;

    cr_assert_eq(getsockname(fd, &addr.sa, &len), 0);
    cr_expect_eq(ag_listener_bind(&addr, false, 1, &fd2, &err, &step), AG_ESYS);
    cr_expect_eq(err, EADDRINUSE);
    cr_expect(strcmp(step, "bind") == 0 || strcmp(step, "listen") == 0, "%s", step);
    cr_expect_eq(fd2, -1);
    (void)close(fd);

    union ag_addr nowhere = {.un = {.sun_family = AF_UNIX, .sun_path = "no-such-folder/socket"}};
    cr_expect_eq(ag_listener_bind(&nowhere, false, 1, &fd2, &err, &step), AG_ESYS);
    cr_expect_eq(err, ENOENT);
    cr_expect_str_eq(step, "bind");
}

Test(listener, shards_share_a_port)
{
    union ag_addr addr = loopback();
    socklen_t len = sizeof(addr);
    int first = bind_ok(&addr, true);

    cr_assert_eq(getsockname(first, &addr.sa, &len), 0);
    int second = bind_ok(&addr, true);
    (void)close(first);
    (void)close(second);
}

Test(listener, ipv6_leaves_ipv4_alone)
{
    union ag_addr addr = {.in6 = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_ANY_INIT}};
    const char *step = "none";
    int fd = -1, err = 0, on = 0;
    socklen_t len = sizeof(on);

    if (ag_listener_bind(&addr, false, 1, &fd, &err, &step) != AG_OK) {
        cr_skip_test("no IPv6 here: %s %d", step, err);
    }
    cr_assert_eq(getsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, &len), 0);
    cr_expect_neq(on, 0);
    (void)close(fd);
}

Test(listener, unix_path_of_the_dead_is_taken_over)
{
    union ag_addr addr = {.un = {.sun_family = AF_UNIX}};
    const char *step = "none";
    char dir[] = "/tmp/ag-listener-XXXXXX";
    int fd2 = -1, err = 0;

    cr_assert(mkdtemp(dir));
    (void)snprintf(addr.un.sun_path, sizeof(addr.un.sun_path), "%s/s", dir);
    int fd = bind_ok(&addr, false);
    /* Alive: not ours to take. */
    cr_expect_eq(ag_listener_bind(&addr, false, 1, &fd2, &err, &step), AG_ESYS);
    cr_expect_eq(err, EADDRINUSE);
    (void)close(fd);
    fd = bind_ok(&addr, false);
    (void)close(fd);
    cr_assert_eq(unlink(addr.un.sun_path), 0);
    /* A file that is no socket is never removed. */
    fd = open(addr.un.sun_path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    cr_assert(fd >= 0);
    (void)close(fd);
    cr_expect_eq(ag_listener_bind(&addr, false, 1, &fd2, &err, &step), AG_ESYS);
    cr_expect_eq(err, EADDRINUSE);
    cr_expect_eq(access(addr.un.sun_path, F_OK), 0, "a file of the user's was removed");
    cr_assert_eq(unlink(addr.un.sun_path), 0);
    cr_assert_eq(rmdir(dir), 0);
}
