/*
 * Goal: every op has exactly one final completion, with the right result, on either backend, and the
 * loop's timers, tasks and messages come when they should.
 */
#include "engine/buffers.h"
#include "tests/unit/loops.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

/* An op with a record of what came. */
struct probe {
    union {
        struct ag_op op;
        struct ag_write write;
    };
    unsigned calls, finals;
    int32_t res;    /* of the last completion */
    uint64_t bytes; /* received, checked against the pattern */
    bool bad;
    struct ag_slice held[64]; /* when holding: slices kept */
    unsigned held_count;
    bool hold;
    uint32_t most_large; /* large buffers in use at most, when something came */
    int fds[64];         /* accepted */
    unsigned fd_count;
};

static void on_probe(struct ag_loop *l, struct ag_op *op, const struct ag_result *r)
{
    struct probe *p = ag_container_of(op, struct probe, op);
    struct ag_slice slice = r->slice;
    bool accepted = r->more && !slice.owner;
    uint32_t large = ag_loop_bufs_used(l, AG_BUF_LARGE);

    p->most_large = large > p->most_large ? large : p->most_large;
    p->calls++;
    p->res = r->res;
    p->finals += !r->more;
    if (accepted) {
        cr_assert(p->fd_count < AG_COUNT(p->fds));
        p->fds[p->fd_count++] = r->res;
    }
    for (size_t i = 0; i < slice.len; i++) {
        p->bad |= slice.ptr[i] != pattern_at(p->bytes + i);
    }
    p->bytes += slice.len;
    if (p->hold && slice.owner) {
        cr_assert(p->held_count < AG_COUNT(p->held));
        p->held[p->held_count++] = slice;
    } else {
        ag_slice_release(&slice);
    }
}

static struct probe *probe_new(void)
{
    struct probe *p = calloc(1, sizeof(*p));

    cr_assert(p);
    ag_write_init(&p->write, on_probe);
    return p;
}

static void probe_let_go(struct probe *p)
{
    while (p->held_count > 0) {
        ag_slice_release(&p->held[--p->held_count]);
    }
}

static uint8_t *pattern_new(size_t len)
{
    uint8_t *bytes = malloc(len);

    cr_assert(bytes);
    for (size_t i = 0; i < len; i++) {
        bytes[i] = pattern_at(i);
    }
    return bytes;
}

/* Two connected descriptors and a probe for each. */
struct wire {
    struct fixture *f;
    struct ag_loop *l;
    struct ag_fd a, b; /* ops write to a and read from b */
    struct probe *wr, *rd;
};

static struct wire wire_new(enum ag_backend_kind kind, bool tcp, uint32_t small, uint32_t large)
{
    struct wire w = {.f = fixture_new(kind, small, large), .wr = probe_new(), .rd = probe_new()};
    int pair[2];

    if (tcp) {
        make_tcp_pair(pair);
    } else {
        make_pair(pair);
    }
    w.l = &w.f->loop;
    ag_fd_init(&w.a, pair[0]);
    ag_fd_init(&w.b, pair[1]);
    return w;
}

static void wire_free(struct wire *w)
{
    ag_loop_cancel(w->l, &w->rd->op);
    ag_loop_cancel(w->l, &w->wr->op);
    turn_until(w->l, !ag_op_in_flight(&w->rd->op) && !ag_op_in_flight(&w->wr->op));
    probe_let_go(w->rd);
    ag_loop_close(w->l, &w->a);
    ag_loop_close(w->l, &w->b);
    cr_expect_eq(w->a.fd, -1);
    cr_expect(!w->rd->bad);
    fixture_free(w->f);
    free(w->rd);
    free(w->wr);
}

Test(loop, choose)
{
    enum ag_backend_kind kind = AG_BACKEND_AUTO;
    const char *why = NULL;
    unsigned fds = count_fds();

    cr_assert_eq(ag_backend_choose(AG_BACKEND_EPOLL, &kind, &why), AG_OK);
    cr_expect_eq(kind, AG_BACKEND_EPOLL);
    cr_expect(why && *why);
    cr_assert_eq(ag_backend_choose(AG_BACKEND_AUTO, &kind, &why), AG_OK);
    cr_expect_neq(kind, AG_BACKEND_AUTO);
    cr_expect(why && *why);
    cr_expect_eq(count_fds(), fds);
    cr_expect_str_eq(ag_backend_name(AG_BACKEND_URING), "io_uring");
    cr_expect_str_eq(ag_backend_name(AG_BACKEND_EPOLL), "epoll");
}

/* Makes io_uring_setup fail with `error`, as a container's policy does. */
static void forbid_uring(uint32_t error)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog prog = {.len = AG_COUNT(code), .filter = code};

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) != 0) {
        cr_skip_test("no seccomp here");
    }
}

static void falls_back(uint32_t error, const char *word)
{
    enum ag_backend_kind kind = AG_BACKEND_AUTO;
    const char *why = NULL;
    unsigned fds;

    forbid_uring(error);
    fds = count_fds();
    cr_assert_eq(ag_backend_choose(AG_BACKEND_AUTO, &kind, &why), AG_OK);
    cr_expect_eq(kind, AG_BACKEND_EPOLL);
    cr_expect(strstr(why, word), "%s", why);
    kind = AG_BACKEND_AUTO;
    cr_expect_eq(ag_backend_choose(AG_BACKEND_URING, &kind, &why), AG_ESYS);
    cr_expect_eq(kind, AG_BACKEND_AUTO, "an output was touched on failure");
    cr_expect_eq(count_fds(), fds);
}

Test(loop, forbidden_uring_falls_back)
{
    falls_back(EPERM, "io_uring is");
}

Test(loop, missing_uring_falls_back)
{
    falls_back(ENOSYS, "no io_uring");
}

Test(loop, memlock_is_named)
{
    falls_back(ENOMEM, "memlock");
}

BOTH(loop, round_trip)
{
    struct wire w = wire_new(kind, false, 16, 4);
    uint8_t *bytes = pattern_new(300);

    ag_loop_recv(w.l, &w.b, &w.rd->op, AG_BUF_SMALL);
    for (unsigned i = 0; i < 3; i++) {
        ag_loop_send_one(w.l, &w.a, &w.wr->write, bytes + 100 * i, 100);
        cr_expect_eq(w.wr->calls, i, "done came from inside the call");
        turn_until(w.l, w.wr->finals == i + 1 && w.rd->bytes == 100 * (i + 1));
        cr_expect_eq(w.wr->res, 100);
    }
    cr_expect_eq(w.rd->finals, 0);
    cr_expect_eq(ag_loop_bufs_used(w.l, AG_BUF_SMALL), 0);
    ag_loop_shut(w.l, &w.a);
    turn_until(w.l, w.rd->finals == 1);
    cr_expect_eq(w.rd->res, 0);
    free(bytes);
    wire_free(&w);
}

/* More than any socket buffer holds, in both groups: the send is one completion. */
static void transfer(enum ag_backend_kind kind, enum ag_buf_group group, bool tcp)
{
    const size_t len = 8u << 20;
    struct wire w = wire_new(kind, tcp, 64, 16);
    uint8_t *bytes = pattern_new(len);

    ag_loop_send_one(w.l, &w.a, &w.wr->write, bytes, len);
    ag_loop_turn(w.l, 0);
    ag_loop_turn(w.l, 0);
    cr_expect_eq(w.wr->calls, 0, "all sent though nobody reads");
    ag_loop_recv(w.l, &w.b, &w.rd->op, group);
    turn_until(w.l, w.wr->finals == 1 && w.rd->bytes == len);
    cr_expect_eq(w.wr->res, (int32_t)len);
    cr_expect_eq(w.wr->calls, 1);
    free(bytes);
    wire_free(&w);
}

BOTH(loop, big_send_small_buffers)
{
    transfer(kind, AG_BUF_SMALL, true);
}

BOTH(loop, big_send_large_buffers)
{
    transfer(kind, AG_BUF_LARGE, false);
}

static void await_input(int fd, int bytes)
{
    int have = 0;

    while (have < bytes) {
        cr_assert_eq(ioctl(fd, FIONREAD, &have), 0);
    }
}

/* Once a socket has filled a large buffer it is given several at a time, of which none lie idle. */
Test(loop, much_input_is_received_by_several_buffers_at_once_epoll)
{
    const size_t len = 9 * AG_BUF_LARGE_BYTES + 100;
    const int room = 4 << 20;
    struct wire w = wire_new(AG_BACKEND_EPOLL, true, 16, 16);
    uint8_t *bytes = pattern_new(len);

    cr_assert_eq(setsockopt(w.b.fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room)), 0);
    ag_loop_send_one(w.l, &w.a, &w.wr->write, bytes, len);
    turn_until(w.l, w.wr->finals == 1);
    await_input(w.b.fd, (int)len);
    ag_loop_recv(w.l, &w.b, &w.rd->op, AG_BUF_LARGE);
    turn_until(w.l, w.rd->bytes == len);
    cr_expect_eq(w.rd->calls, 10, "%u pieces", w.rd->calls);
    cr_expect_eq(w.rd->most_large, AG_RECV_BLOCKS);
    free(bytes);
    wire_free(&w);
}

/* The same on io_uring, which waits for readiness meanwhile; it can be cancelled there, and ends with small input. */
Test(loop, much_input_is_waited_for_and_cancelled_uring)
{
    const size_t len = 9 * AG_BUF_LARGE_BYTES + 100;
    const int room = 4 << 20;
    uint8_t *bytes = pattern_new(len + 2000);
    struct wire w;

    skip_without_uring();
    w = wire_new(AG_BACKEND_URING, true, 64, 16);
    cr_assert_eq(setsockopt(w.b.fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room)), 0);
    ag_loop_send_one(w.l, &w.a, &w.wr->write, bytes, len);
    turn_until(w.l, w.wr->finals == 1);
    await_input(w.b.fd, (int)len);
    ag_loop_recv(w.l, &w.b, &w.rd->op, AG_BUF_LARGE);
    turn_until(w.l, w.rd->bytes == len);
    cr_assert(w.b.polled);
    ag_loop_cancel(w.l, &w.rd->op);
    turn_until(w.l, w.rd->finals == 1);
    cr_expect_eq(w.rd->res, -ECANCELED);
    ag_loop_recv(w.l, &w.b, &w.rd->op, AG_BUF_LARGE);
    for (unsigned i = 0; i < 20; i++) {
        cr_assert_eq(write(w.a.fd, bytes + len + 100 * (size_t)i, 100), 100);
        turn_until(w.l, w.rd->bytes == len + 100 * (size_t)(i + 1));
    }
    cr_expect(!w.b.polled);
    ag_loop_shut(w.l, &w.a);
    turn_until(w.l, w.rd->finals == 2);
    cr_expect_eq(w.rd->res, 0);
    free(bytes);
    wire_free(&w);
}

/* Few are left: so many as there are beside the reserve, and one where it is tight. */
Test(loop, much_input_leaves_buffers_for_others_epoll)
{
    const size_t len = 9 * AG_BUF_LARGE_BYTES;
    const int room = 4 << 20;
    struct wire w = wire_new(AG_BACKEND_EPOLL, true, 16, 8);
    uint8_t *bytes = pattern_new(len);
    struct ag_block *taken[4];

    cr_assert_eq(setsockopt(w.b.fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room)), 0);
    ag_loop_send_one(w.l, &w.a, &w.wr->write, bytes, len);
    turn_until(w.l, w.wr->finals == 1);
    await_input(w.b.fd, (int)len);
    for (size_t i = 0; i < AG_COUNT(taken); i++) {
        taken[i] = ag_loop_buf(w.l, AG_BUF_LARGE);
    }
    cr_assert(!w.l->tight);
    ag_loop_recv(w.l, &w.b, &w.rd->op, AG_BUF_LARGE);
    turn_until(w.l, w.rd->bytes == len);
    cr_expect_eq(w.rd->most_large, AG_COUNT(taken) + 1, "%u", w.rd->most_large);
    for (size_t i = 0; i < AG_COUNT(taken); i++) {
        ag_block_release(taken[i]);
    }
    free(bytes);
    wire_free(&w);
}

/* Whoever receives, and lets go of it two tasks later. */
struct passer {
    struct ag_op op;
    struct ag_task first, second;
    struct ag_loop *l;
    struct ag_slice slice;
    uint32_t most_large;
    uint64_t turn;
};

static void pass_first(struct ag_task *t)
{
    struct passer *p = ag_container_of(t, struct passer, first);

    ag_task_queue(p->l, &p->second);
}

static void pass_second(struct ag_task *t)
{
    ag_slice_release(&ag_container_of(t, struct passer, second)->slice);
}

static void on_pass(struct ag_loop *l, struct ag_op *op, const struct ag_result *r)
{
    struct passer *p = ag_container_of(op, struct passer, op);

    if (r->res > 0) {
        p->slice = r->slice;
        p->turn = l->stats.turns;
        p->most_large = ag_loop_bufs_used(l, AG_BUF_LARGE);
        ag_task_queue(l, &p->first);
    }
}

/* So one buffer goes round, however many have input at once. */
Test(loop, much_input_is_passed_on_before_the_next_comes_epoll)
{
    enum { PASSERS = 8 };
    struct wire w[PASSERS];
    struct passer p[PASSERS];
    uint8_t *bytes = pattern_new(AG_BUF_LARGE_BYTES - 1);
    struct fixture *f = fixture_new(AG_BACKEND_EPOLL, 16, 16);

    for (size_t i = 0; i < PASSERS; i++) {
        int pair[2];

        make_pair(pair);
        ag_fd_init(&w[i].a, pair[0]);
        ag_fd_init(&w[i].b, pair[1]);
        cr_assert_eq(write(pair[0], bytes, AG_BUF_LARGE_BYTES - 1), AG_BUF_LARGE_BYTES - 1);
        p[i] = (struct passer){.l = &f->loop};
        ag_op_init(&p[i].op, on_pass);
        ag_task_init(&p[i].first, pass_first);
        ag_task_init(&p[i].second, pass_second);
        ag_loop_recv(&f->loop, &w[i].b, &p[i].op, AG_BUF_LARGE);
    }
    turn_until(&f->loop, p[PASSERS - 1].turn > 0);
    for (size_t i = 0; i < PASSERS; i++) {
        cr_expect_eq(p[i].turn, p[0].turn, "all in one turn");
        cr_expect_eq(p[i].most_large, 1);
        ag_loop_cancel(&f->loop, &p[i].op);
    }
    ag_loop_turn(&f->loop, 0);
    for (size_t i = 0; i < PASSERS; i++) {
        ag_loop_close(&f->loop, &w[i].a);
        ag_loop_close(&f->loop, &w[i].b);
    }
    free(bytes);
    fixture_free(f);
}

BOTH(loop, gathered_send)
{
    enum { PARTS = 130 };
    const size_t len = 4u << 20;
    struct wire w = wire_new(kind, true, 64, 16);
    uint8_t *bytes = pattern_new(len);
    struct iovec iov[PARTS];
    size_t at = 0;

    for (size_t i = 0; i < PARTS; i++) { /* uneven, an empty one among them */
        size_t n = i == 7 ? 0 : i == PARTS - 1 ? len - at : i * 97 + 1;
        iov[i] = (struct iovec){bytes + at, n};
        at += n;
    }
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = PARTS};
    ag_loop_send(w.l, &w.a, &w.wr->write, &msg);
    ag_loop_turn(w.l, 0);
    ag_loop_recv(w.l, &w.b, &w.rd->op, AG_BUF_LARGE);
    turn_until(w.l, w.wr->finals == 1 && w.rd->bytes == len);
    cr_expect_eq(w.wr->res, (int32_t)len);
    free(bytes);
    wire_free(&w);
}

/* A receive stops before the urgent byte, which is not part of the stream; behind it more lies ready. */
BOTH(loop, receives_on_behind_urgent_data)
{
    enum { HALF = 500 };
    struct wire w = wire_new(kind, true, 64, 16);
    uint8_t *bytes = pattern_new(2 * (size_t)HALF);

    ag_loop_recv(w.l, &w.b, &w.rd->op, AG_BUF_SMALL);
    ag_loop_turn(w.l, 0);
    cr_assert_eq(send(w.a.fd, bytes, HALF, 0), HALF);
    cr_assert_eq(send(w.a.fd, "!", 1, MSG_OOB), 1);
    cr_assert_eq(send(w.a.fd, bytes + HALF, HALF, 0), HALF);
    turn_until(w.l, w.rd->bytes == 2 * (uint64_t)HALF);
    free(bytes);
    wire_free(&w);
}

BOTH(loop, sendfile)
{
    const size_t len = 3u << 20;
    int file = make_file(len);
    struct wire w = wire_new(kind, true, 64, 16);
    size_t at = 0;

    ag_loop_recv(w.l, &w.b, &w.rd->op, AG_BUF_LARGE);
    for (unsigned calls = 1; at < len; calls++) {
        ag_loop_sendfile(w.l, &w.a, &w.wr->write, file, at, len - at);
        turn_until(w.l, w.wr->finals == calls);
        cr_assert(w.wr->res > 0 && w.wr->res <= 512 * 1024);
        at += (size_t)w.wr->res;
    }
    turn_until(w.l, w.rd->bytes == len);
    ag_loop_sendfile(w.l, &w.a, &w.wr->write, file, len, 10);
    unsigned finals = w.wr->finals;
    turn_until(w.l, w.wr->finals == finals + 1);
    cr_expect_eq(w.wr->res, 0, "past the end of the file");
    wire_free(&w);
    (void)close(file);
}

BOTH(loop, writes_wait_for_room_and_cancel)
{
    const size_t len = 16u << 20;
    int file = make_file(1u << 20);
    struct wire w = wire_new(kind, true, 16, 4);
    uint8_t *bytes = pattern_new(len);

    ag_loop_send_one(w.l, &w.a, &w.wr->write, bytes, len);
    ag_loop_turn(w.l, 0);
    ag_loop_cancel(w.l, &w.wr->op);
    cr_expect_eq(w.wr->calls, 0, "done came from inside the call");
    turn_until(w.l, w.wr->finals == 1);
    cr_expect_eq(w.wr->res, -ECANCELED);
    /* The socket is full: sendfile must wait, too. */
    ag_loop_turn(w.l, 0);
    do {
        ag_loop_sendfile(w.l, &w.a, &w.wr->write, file, 0, 1u << 20);
        for (unsigned i = 0; i < 4 && ag_op_in_flight(&w.wr->op); i++) {
            ag_loop_turn(w.l, 0);
        }
    } while (!ag_op_in_flight(&w.wr->op));
    unsigned finals = w.wr->finals;
    ag_loop_cancel(w.l, &w.wr->op);
    turn_until(w.l, w.wr->finals == finals + 1);
    cr_expect_eq(w.wr->res, -ECANCELED);
    free(bytes);
    wire_free(&w);
    (void)close(file);
}

BOTH(loop, send_to_closed_peer)
{
    struct wire w = wire_new(kind, false, 16, 4);
    uint8_t *bytes = pattern_new(10);

    ag_loop_close(w.l, &w.b);
    ag_loop_send_one(w.l, &w.a, &w.wr->write, bytes, 10);
    turn_until(w.l, w.wr->finals == 1);
    cr_expect_eq(w.wr->res, -EPIPE);
    int file = make_file(10);
    ag_loop_sendfile(w.l, &w.a, &w.wr->write, file, 0, 10); /* would raise SIGPIPE */
    turn_until(w.l, w.wr->finals == 2);
    cr_expect_eq(w.wr->res, -EPIPE);
    (void)close(file);
    free(bytes);
    wire_free(&w);
}

BOTH(loop, cancel_reads)
{
    struct wire w = wire_new(kind, false, 16, 4);

    ag_loop_recv(w.l, &w.b, &w.rd->op, AG_BUF_SMALL);
    ag_loop_turn(w.l, 0);
    ag_loop_cancel(w.l, &w.rd->op);
    ag_loop_cancel(w.l, &w.rd->op); /* twice is once */
    turn_until(w.l, w.rd->finals == 1);
    cr_expect_eq(w.rd->res, -ECANCELED);

    /* In the turn of its submission. */
    ag_loop_recv(w.l, &w.b, &w.rd->op, AG_BUF_LARGE);
    ag_loop_cancel(w.l, &w.rd->op);
    turn_until(w.l, w.rd->finals == 2);
    cr_expect_eq(w.rd->res, -ECANCELED);

    ag_loop_poll(w.l, &w.b, &w.rd->op, POLLIN);
    ag_loop_turn(w.l, 0);
    ag_loop_cancel(w.l, &w.rd->op);
    turn_until(w.l, w.rd->finals == 3);
    cr_expect_eq(w.rd->res, -ECANCELED);

    ag_loop_cancel(w.l, &w.rd->op); /* not in flight */
    ag_loop_turn(w.l, 0);
    cr_expect_eq(w.rd->calls, 3);

    /* Nothing that was there is lost by a cancel. */
    cr_assert_eq(write(w.a.fd, (uint8_t[]){pattern_at(0)}, 1), 1);
    ag_loop_recv(w.l, &w.b, &w.rd->op, AG_BUF_SMALL);
    turn_until(w.l, w.rd->bytes == 1);
    wire_free(&w);
}

BOTH(loop, poll)
{
    struct wire w = wire_new(kind, false, 16, 4);

    ag_loop_poll(w.l, &w.b, &w.rd->op, POLLIN);
    ag_loop_turn(w.l, 0);
    ag_loop_turn(w.l, 0);
    cr_expect_eq(w.rd->calls, 0);
    cr_assert_eq(write(w.a.fd, "x", 1), 1);
    turn_until(w.l, w.rd->finals == 1);
    cr_expect(w.rd->res & POLLIN);
    /* What is still unread is seen again: the question is about the state, not about an edge. */
    ag_loop_poll(w.l, &w.b, &w.rd->op, POLLIN);
    turn_until(w.l, w.rd->finals == 2);
    ag_loop_poll(w.l, &w.a, &w.wr->op, POLLOUT);
    turn_until(w.l, w.wr->finals == 1);
    cr_expect(w.wr->res & POLLOUT);
    wire_free(&w);
}

BOTH(loop, peer_reset)
{
    const struct linger reset = {1, 0};
    struct wire w = wire_new(kind, true, 16, 4);

    ag_loop_recv(w.l, &w.b, &w.rd->op, AG_BUF_SMALL);
    ag_loop_turn(w.l, 0);
    cr_assert_eq(setsockopt(w.a.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)), 0);
    ag_loop_close(w.l, &w.a);
    turn_until(w.l, w.rd->finals == 1);
    cr_expect_eq(w.rd->res, -ECONNRESET);
    wire_free(&w);
}

/* The receiver holds every buffer it gets, then lets go: all bytes must still come. */
BOTH(loop, starved_receive_goes_on)
{
    const size_t len = 1u << 20;
    struct wire w = wire_new(kind, false, 8, 2);
    uint8_t *bytes = pattern_new(len);

    w.rd->hold = true;
    ag_loop_recv(w.l, &w.b, &w.rd->op, AG_BUF_SMALL);
    ag_loop_send_one(w.l, &w.a, &w.wr->write, bytes, len);
    while (w.rd->bytes < len) {
        uint64_t starved = w.l->stats.starved;
        turn_until(w.l, w.l->stats.starved > starved || w.rd->bytes == len);
        struct ag_block *reserved = ag_loop_buf(w.l, AG_BUF_SMALL);
        cr_expect(reserved || w.rd->bytes == len, "receives took the answers' buffers, too");
        ag_block_release(reserved);
        probe_let_go(w.rd);
    }
    cr_expect(w.l->stats.starved > 0);
    turn_until(w.l, w.wr->finals == 1);
    cr_expect_eq(w.wr->res, (int32_t)len);
    free(bytes);
    wire_free(&w);
}

/* An idle receive that was starved must not keep the freed buffer from one that has input. */
BOTH(loop, idle_starved_receives_do_not_block_others)
{
    enum { IDLE = 30 };
    struct wire w = wire_new(kind, false, 2, 2);
    struct probe *idle[IDLE];
    struct ag_fd fds[IDLE], others[IDLE];

    w.rd->hold = true;
    ag_loop_recv(w.l, &w.b, &w.rd->op, AG_BUF_SMALL);
    for (size_t i = 0; i < 10 && w.rd->held_count < 2; i++) {
        cr_assert(write(w.a.fd, (uint8_t[]){pattern_at(w.rd->bytes)}, 1) == 1);
        ag_loop_turn(w.l, TURN_MS);
    }
    cr_assert(w.rd->held_count > 0);
    for (size_t i = 0; i < IDLE; i++) {
        int pair[2];
        make_pair(pair);
        ag_fd_init(&fds[i], pair[0]);
        ag_fd_init(&others[i], pair[1]);
        idle[i] = probe_new();
        ag_loop_recv(w.l, &fds[i], &idle[i]->op, AG_BUF_SMALL);
        ag_loop_turn(w.l, 0);
    }
    cr_assert_eq(write(others[IDLE - 1].fd, (uint8_t[]){pattern_at(0)}, 1), 1);
    ag_loop_turn(w.l, 0);
    probe_let_go(w.rd);
    turn_until(w.l, idle[IDLE - 1]->bytes == 1);
    for (size_t i = 0; i < IDLE; i++) {
        ag_loop_cancel(w.l, &idle[i]->op);
        turn_until(w.l, idle[i]->finals == 1);
        cr_expect_eq(idle[i]->res, -ECANCELED);
        ag_loop_close(w.l, &fds[i]);
        ag_loop_close(w.l, &others[i]);
        free(idle[i]);
    }
    wire_free(&w);
}

BOTH(loop, cancel_starved)
{
    struct wire w = wire_new(kind, false, 2, 2);
    uint8_t *bytes = pattern_new(65536);

    w.rd->hold = true;
    ag_loop_recv(w.l, &w.b, &w.rd->op, AG_BUF_SMALL);
    ag_loop_send_one(w.l, &w.a, &w.wr->write, bytes, 65536);
    turn_until(w.l, w.l->stats.starved > 0);
    ag_loop_cancel(w.l, &w.rd->op);
    turn_until(w.l, w.rd->finals == 1);
    cr_expect_eq(w.rd->res, -ECANCELED);
    probe_let_go(w.rd);
    turn_until(w.l, ag_loop_bufs_used(w.l, AG_BUF_SMALL) == 0);
    free(bytes);
    wire_free(&w);
}

/* A descriptor that another process still holds stays in the epoll set after our close; what it
 * reports must not be taken for news of the descriptor that has its number now. */
Test(loop, epoll_ignores_the_dead)
{
    struct wire w = wire_new(AG_BACKEND_EPOLL, false, 16, 4);
    int number = w.b.fd, shared = fcntl(w.b.fd, F_DUPFD_CLOEXEC, 200);

    ag_loop_recv(w.l, &w.b, &w.rd->op, AG_BUF_SMALL);
    ag_loop_turn(w.l, 0);
    ag_loop_cancel(w.l, &w.rd->op);
    turn_until(w.l, w.rd->finals == 1);
    ag_loop_close(w.l, &w.b);
    int other = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    cr_assert_eq(other, number);
    ag_fd_init(&w.b, other);
    ag_loop_poll(w.l, &w.b, &w.rd->op, POLLIN);
    ag_loop_turn(w.l, 0);
    ag_loop_turn(w.l, 0);
    cr_assert_eq(write(w.a.fd, "x", 1), 1);
    ag_loop_turn(w.l, 0);
    cr_expect(!w.b.readable, "took the dead one's event");
    cr_expect_eq(w.rd->finals, 1);
    (void)close(shared);
    wire_free(&w);
}

/* ---- accept and connect ---- */

static union ag_addr listen_on(struct ag_fd *out_fd, int backlog)
{
    union ag_addr addr = {.in = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}}};
    socklen_t len = sizeof(addr);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    cr_assert(fd >= 0);
    cr_assert_eq(bind(fd, &addr.sa, sizeof(addr.in)), 0);
    cr_assert_eq(getsockname(fd, &addr.sa, &len), 0);
    if (backlog > 0) {
        cr_assert_eq(listen(fd, backlog), 0);
    }
    ag_fd_init(out_fd, fd);
    return addr;
}

BOTH(loop, accept_and_connect)
{
    enum { CONNS = 40 };
    struct fixture *f = fixture_new(kind, 16, 4);
    struct ag_loop *l = &f->loop;
    struct probe *acc = probe_new(), *con[CONNS];
    struct ag_fd ls, fds[CONNS];
    union ag_addr addr = listen_on(&ls, CONNS);

    ag_loop_accept(l, &ls, &acc->op, AG_ACCEPT_ALL);
    for (size_t i = 0; i < CONNS; i++) {
        con[i] = probe_new();
        ag_fd_init(&fds[i], ag_loop_socket(l, AF_INET, SOCK_STREAM));
        ag_loop_connect(l, &fds[i], &con[i]->op, &addr, sizeof(addr.in));
        cr_expect_eq(con[i]->calls, 0);
    }
    for (size_t i = 0; i < CONNS; i++) {
        turn_until(l, con[i]->finals == 1);
        cr_expect_eq(con[i]->res, 0);
    }
    turn_until(l, acc->fd_count == CONNS);
    cr_expect_eq(acc->finals, 0);
    cr_expect(fcntl(acc->fds[0], F_GETFL) & O_NONBLOCK);
    cr_expect(fcntl(acc->fds[0], F_GETFD) & FD_CLOEXEC);
    ag_loop_cancel(l, &acc->op);
    turn_until(l, acc->finals == 1);
    cr_expect_eq(acc->res, -ECANCELED);
    for (size_t i = 0; i < CONNS; i++) {
        ag_loop_close(l, &fds[i]);
        (void)close(acc->fds[i]);
        free(con[i]);
    }
    ag_loop_close(l, &ls);
    free(acc);
    fixture_free(f);
}

BOTH(loop, connect_refused_and_cancelled)
{
    struct fixture *f = fixture_new(kind, 16, 4);
    struct ag_loop *l = &f->loop;
    struct probe *con = probe_new();
    struct ag_fd ls, fd;
    union ag_addr addr = listen_on(&ls, 0); /* bound, not listening: nobody else gets the port */

    ag_fd_init(&fd, ag_loop_socket(l, AF_INET, SOCK_STREAM));
    ag_loop_connect(l, &fd, &con->op, &addr, sizeof(addr.in));
    turn_until(l, con->finals == 1);
    cr_expect_eq(con->res, -ECONNREFUSED);
    ag_loop_close(l, &fd);

    /* A listener whose queue is full does not answer: the connect hangs until it is cancelled. */
    cr_assert_eq(listen(ls.fd, 0), 0);
    struct ag_fd fill[4];
    struct probe *fills[4];
    for (size_t i = 0; i < 4; i++) {
        fills[i] = probe_new();
        ag_fd_init(&fill[i], ag_loop_socket(l, AF_INET, SOCK_STREAM));
        ag_loop_connect(l, &fill[i], &fills[i]->op, &addr, sizeof(addr.in));
    }
    ag_loop_turn(l, TURN_MS);
    ag_loop_turn(l, TURN_MS);
    cr_assert(ag_op_in_flight(&fills[3]->op));
    for (size_t i = 0; i < 4; i++) {
        ag_loop_cancel(l, &fills[i]->op);
    }
    turn_until(l, fills[3]->finals == 1);
    cr_expect_eq(fills[3]->res, -ECANCELED);
    for (size_t i = 0; i < 4; i++) {
        turn_until(l, fills[i]->finals == 1);
        ag_loop_close(l, &fill[i]);
        free(fills[i]);
    }
    ag_loop_close(l, &ls);
    free(con);
    fixture_free(f);
}

/* ---- timers, tasks, messages ---- */

struct clock {
    struct ag_timer timer;
    struct ag_loop *l;
    uint64_t at_ms;
    unsigned fired;
};

static void on_timer(struct ag_timer *t)
{
    struct clock *c = ag_container_of(t, struct clock, timer);

    cr_expect(c->l->now_ms >= c->at_ms, "fired early");
    c->fired++;
}

BOTH(loop, timer)
{
    struct fixture *f = fixture_new(kind, 16, 4);
    struct clock c = {.l = &f->loop, .at_ms = f->loop.now_ms + 30};

    ag_timer_init(&c.timer, on_timer);
    ag_loop_arm(&f->loop, &c.timer, 30);
    /* The wait ends for the timer: not one of these turns may hang. */
    for (unsigned i = 0; i < TURNS_MAX && c.fired == 0; i++) {
        ag_loop_turn(&f->loop, UINT32_MAX);
    }
    cr_expect_eq(c.fired, 1);
    cr_expect(f->loop.wall_s > 1600000000);
    cr_expect(ag_loop_now_ns(&f->loop) / 1000000 >= f->loop.now_ms);
    cr_expect_neq(ag_loop_random(&f->loop), ag_loop_random(&f->loop));
    fixture_free(f);
}

struct job {
    struct ag_task task;
    struct ag_loop *l;
    unsigned runs, again;
};

static void run_job(struct ag_task *t)
{
    struct job *j = ag_container_of(t, struct job, task);

    j->runs++;
    if (j->again > 0) {
        j->again--;
        ag_task_queue(j->l, t);
    }
}

BOTH(loop, tasks)
{
    struct fixture *f = fixture_new(kind, 16, 4);
    struct job a = {.l = &f->loop, .again = 1000}, b = {.l = &f->loop};

    ag_task_init(&a.task, run_job);
    ag_task_init(&b.task, run_job);
    ag_task_queue(&f->loop, &b.task);
    ag_task_queue(&f->loop, &b.task);
    cr_expect(ag_task_queued(&b.task));
    ag_task_cancel(&b.task);
    ag_task_cancel(&b.task);
    ag_task_queue(&f->loop, &a.task);
    ag_loop_turn(&f->loop, 0);
    cr_expect(a.runs > 1 && a.runs < 1000, "a task that comes again must not hold up the kernel");
    while (a.runs <= 1000) {
        ag_loop_turn(&f->loop, UINT32_MAX); /* tasks left: no wait */
    }
    cr_expect_eq(b.runs, 0);
    fixture_free(f);
}

enum { MESSAGES = 2000 };

struct mail {
    struct ag_msg msg;
    unsigned number;
};

struct post {
    struct ag_loop *l;
    struct mail mails[MESSAGES];
};

static unsigned next_mail;

static void on_mail(struct ag_loop *l, struct ag_msg *m)
{
    struct mail *mail = ag_container_of(m, struct mail, msg);

    cr_expect_eq(mail->number, next_mail, "out of order");
    next_mail++;
    if (next_mail == MESSAGES) {
        ag_loop_stop(l);
    }
}

static void *send_mails(void *arg)
{
    struct post *p = arg;

    for (unsigned i = 0; i < MESSAGES; i++) {
        p->mails[i] = (struct mail){{.run = on_mail}, i};
        ag_loop_post(p->l, &p->mails[i].msg);
        if (i % 100 == 0) {
            (void)usleep(500); /* so that the loop sleeps in between */
        }
    }
    return NULL;
}

BOTH(loop, messages)
{
    struct fixture *f = fixture_new(kind, 16, 4);
    struct post *p = calloc(1, sizeof(*p));
    pthread_t thread;

    cr_assert(p);
    p->l = &f->loop;
    cr_assert_eq(pthread_create(&thread, NULL, send_mails, p), 0);
    ag_loop_run(&f->loop);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    cr_expect_eq(next_mail, MESSAGES);
    free(p);
    fixture_free(f);
}

/* More ops at once than the submission queue holds, and all complete at once. */
BOTH(loop, many_ops)
{
    enum { PAIRS = 1500 };
    struct fixture *f = fixture_new(kind, 4096, 4);
    struct ag_loop *l = &f->loop;
    struct probe *probes = calloc(PAIRS, sizeof(*probes));
    struct ag_fd *fds = calloc(PAIRS, sizeof(*fds));
    int *others = calloc(PAIRS, sizeof(*others));
    unsigned ended = 0;

    cr_assert(probes && fds && others);
    for (size_t i = 0; i < PAIRS; i++) {
        int pair[2];
        make_pair(pair);
        ag_fd_init(&fds[i], pair[0]);
        others[i] = pair[1];
        ag_op_init(&probes[i].op, on_probe);
        ag_loop_recv(l, &fds[i], &probes[i].op, AG_BUF_SMALL);
    }
    ag_loop_turn(l, 0);
    for (size_t i = 0; i < PAIRS; i++) {
        cr_assert_eq(write(others[i], (uint8_t[]){pattern_at(0)}, 1), 1);
        (void)close(others[i]);
    }
    for (unsigned turns = 0; ended < PAIRS && turns < TURNS_MAX; turns++) {
        ag_loop_turn(l, TURN_MS);
        ended = 0;
        for (size_t i = 0; i < PAIRS; i++) {
            ended += probes[i].finals;
        }
    }
    for (size_t i = 0; i < PAIRS; i++) {
        cr_expect_eq(probes[i].bytes, 1);
        cr_expect_eq(probes[i].finals, 1);
        cr_expect_eq(probes[i].res, 0);
        ag_loop_close(l, &fds[i]);
    }
    free(others);
    free(fds);
    free(probes);
    fixture_free(f);
}
