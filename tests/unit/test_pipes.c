/*
 * Goal: a pipe brings what came and nothing else: never more than was asked for, never a byte of whom used it
 * before; where there is none, nothing is lost; and none is left behind.
 * Method: the pool by hand; then ops of the loop and whole connections that pass their content on, between raw
 * sockets of the test, TCP and unix.
 */
#include "engine/buffers.h"
#include "engine/bulk.h"
#include "engine/conn.h"
#include "engine/pipes.h"
#include "tests/unit/loops.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/resource.h>

/* A new connected pair of either kind. */
static void pair_new(bool tcp, int out_pair[2])
{
    if (tcp) {
        make_tcp_pair(out_pair);
    } else {
        make_pair(out_pair);
    }
}

/* Sends what the socket takes of [at, end) of the pattern; where it is then. */
static uint64_t feed(int fd, uint64_t at, uint64_t end)
{
    static uint8_t buf[65536];

    while (at < end) {
        size_t len = ag_min_size(sizeof(buf), (size_t)(end - at));

        for (size_t i = 0; i < len; i++) {
            buf[i] = pattern_at(at + i);
        }
        ssize_t n = send(fd, buf, len, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n <= 0) {
            break;
        }
        at += (uint64_t)n;
    }
    return at;
}

static void put_zeros(int fd, size_t len)
{
    static const uint8_t zeros[65536];

    cr_assert_leq(len, sizeof(zeros));
    cr_assert_eq(send(fd, zeros, len, MSG_NOSIGNAL), (ssize_t)len);
}

/* Reads `len` bytes, which must be the pattern from `at` on. */
static void expect_pattern(int fd, uint64_t at, size_t len)
{
    static uint8_t buf[AG_PIPE_BYTES];

    cr_assert_leq(len, sizeof(buf));
    cr_assert_eq(read(fd, buf, len), (ssize_t)len);
    for (size_t i = 0; i < len; i++) {
        cr_assert_eq(buf[i], pattern_at(at + i), "byte %zu", (size_t)at + i);
    }
}

/* Takes all bytes of a pipe and gives it back. */
static void drain(struct ag_block *pipe, uint64_t at)
{
    uint32_t len = pipe->size;

    expect_pattern(pipe->fd, at, len);
    ag_pipe_sent(pipe, len);
    ag_block_release(pipe);
}

/* ---- the pool ---- */

struct pool {
    struct fixture *f;
    struct ag_pipes *pipes;
    int in, out; /* what is sent to `in` is received from `out` */
};

static struct pool pool_new(void)
{
    struct pool p = {.f = fixture_new(AG_BACKEND_EPOLL, 16, 4)};
    int pair[2];

    make_tcp_pair(pair);
    p.pipes = p.f->loop.pipes;
    p.in = pair[0];
    p.out = pair[1];
    return p;
}

static void pool_free(struct pool *p)
{
    cr_expect_eq(ag_pipes_used(p->pipes), 0);
    (void)close(p->in);
    (void)close(p->out);
    fixture_free(p->f);
}

static struct ag_block *fill(struct pool *p, uint64_t at, size_t len)
{
    struct ag_block *pipe = NULL;

    cr_assert_eq(feed(p->in, at, at + len), at + len);
    cr_assert_eq(ag_pipes_recv(p->pipes, p->out, len, &pipe), (int32_t)len);
    cr_assert(pipe && pipe->pipe && pipe->refs == 1 && pipe->size == len);
    return pipe;
}

Test(pipes, brings_what_came)
{
    struct pool p = pool_new();
    struct ag_block *pipe = NULL;

    cr_expect_eq(ag_pipes_open(p.pipes), 0, "made when wanted");
    cr_assert_eq(feed(p.in, 0, 5000), 5000);
    cr_assert_eq(ag_pipes_recv(p.pipes, p.out, 1000, &pipe), 1000, "no more than asked for");
    cr_expect_eq(ag_pipes_used(p.pipes), 1);
    drain(pipe, 0);
    cr_expect_eq(ag_pipes_used(p.pipes), 0);
    cr_assert_eq(ag_pipes_recv(p.pipes, p.out, AG_PIPE_BYTES, &pipe), 4000, "what is there");
    drain(pipe, 1000);
    cr_expect_eq(ag_pipes_open(p.pipes), 1, "one after the other");
    pool_free(&p);
}

Test(pipes, results_without_bytes)
{
    struct pool p = pool_new();
    struct linger abort = {1, 0};
    struct ag_block *pipe = NULL;
    int pair[2], event = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);

    cr_assert_eq(ag_pipes_recv(p.pipes, p.out, 1000, &pipe), -EAGAIN);
    cr_expect_eq(pipe, NULL);
    cr_assert_eq(shutdown(p.in, SHUT_WR), 0);
    cr_assert_eq(ag_pipes_recv(p.pipes, p.out, 1000, &pipe), 0, "the end");
    make_tcp_pair(pair);
    cr_assert_eq(setsockopt(pair[0], SOL_SOCKET, SO_LINGER, &abort, sizeof(abort)), 0);
    (void)close(pair[0]);
    cr_assert_eq(ag_pipes_recv(p.pipes, pair[1], 1000, &pipe), -ECONNRESET);
    (void)close(pair[1]);
    cr_assert_eq(ag_pipes_recv(p.pipes, event, 1000, &pipe), -ENOBUFS, "what cannot be spliced");
    (void)close(event);
    cr_expect_eq(pipe, NULL);
    cr_expect_eq(ag_pipes_used(p.pipes), 0);
    cr_expect_eq(ag_pipes_open(p.pipes), 1, "the same each time");
    pool_free(&p);
}

Test(pipes, there_are_so_many)
{
    struct pool p = pool_new();
    struct ag_block *pipes[AG_PIPES_MAX], *more = NULL;

    for (uint32_t i = 0; i < AG_PIPES_MAX; i++) {
        pipes[i] = fill(&p, (uint64_t)i * 10, 10);
    }
    cr_assert_eq(feed(p.in, 0, 10), 10);
    cr_assert_eq(ag_pipes_recv(p.pipes, p.out, 10, &more), -ENOBUFS);
    cr_expect_eq(more, NULL);
    cr_expect_eq(ag_pipes_open(p.pipes), AG_PIPES_MAX);
    cr_expect_eq(ag_pipes_used(p.pipes), AG_PIPES_MAX);
    drain(pipes[7], 70);
    cr_assert_eq(ag_pipes_recv(p.pipes, p.out, 10, &more), 10, "nothing was lost meanwhile");
    drain(more, 0);
    for (uint32_t i = 0; i < AG_PIPES_MAX; i++) {
        if (i != 7) {
            drain(pipes[i], (uint64_t)i * 10);
        }
    }
    pool_free(&p);
}

Test(pipes, one_with_bytes_left_is_not_used_again)
{
    struct pool p = pool_new();
    struct ag_block *pipe;

    put_zeros(p.in, 100);
    cr_assert_eq(ag_pipes_recv(p.pipes, p.out, 100, &pipe), 100);
    ag_pipe_sent(pipe, 99);
    ag_block_release(pipe);
    cr_expect_eq(ag_pipes_used(p.pipes), 0);
    cr_expect_eq(ag_pipes_open(p.pipes), 0, "closed");
    pipe = fill(&p, 0, 50);
    drain(pipe, 0);
    cr_expect_eq(ag_pipes_open(p.pipes), 1, "kept");
    pool_free(&p);
}

Test(pipes, idle_ones_are_closed_after_a_while)
{
    struct pool p = pool_new();
    struct ag_block *first = fill(&p, 0, 10), *second = fill(&p, 10, 10);
    uint64_t idle_ms = p.f->loop.now_ms;

    drain(first, 0);
    turn_until(&p.f->loop, ag_pipes_open(p.pipes) == 1);
    cr_expect_geq(p.f->loop.now_ms, idle_ms + AG_PIPES_KEEP_MS);
    cr_expect_eq(ag_pipes_used(p.pipes), 1, "what is in use stays");
    drain(second, 10);
    idle_ms = p.f->loop.now_ms;
    cr_expect_eq(ag_pipes_open(p.pipes), 1);
    turn_until(&p.f->loop, ag_pipes_open(p.pipes) == 0);
    cr_expect_geq(p.f->loop.now_ms, idle_ms + AG_PIPES_KEEP_MS, "each time anew");
    pool_free(&p);
}

Test(pipes, without_a_descriptor_there_is_none)
{
    struct pool p = pool_new();
    struct ag_block *pipe = NULL;
    struct rlimit was, low;
    int lowest = dup(p.in);

    cr_assert(lowest >= 0);
    (void)close(lowest);
    cr_assert_eq(feed(p.in, 0, 100), 100);
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &was), 0);
    for (rlim_t more = 0; more < 2; more++) { /* a pipe takes two */
        low = was;
        p.f->loop.now_ms += AG_PIPES_KEEP_MS; /* for it is not asked again at once */
        low.rlim_cur = (rlim_t)lowest + more;
        cr_assert_eq(setrlimit(RLIMIT_NOFILE, &low), 0);
        cr_expect_eq(ag_pipes_recv(p.pipes, p.out, 100, &pipe), -ENOBUFS);
        cr_expect_eq(ag_pipes_open(p.pipes), 0);
    }
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &was), 0);
    cr_expect_eq(ag_pipes_recv(p.pipes, p.out, 100, &pipe), -ENOBUFS, "it is asked again at once");
    uint64_t later_ms = p.f->loop.now_ms + AG_PIPES_KEEP_MS;
    turn_until(&p.f->loop, p.f->loop.now_ms >= later_ms);
    cr_assert_eq(ag_pipes_recv(p.pipes, p.out, 100, &pipe), 100);
    drain(pipe, 0);
    pool_free(&p);
}

/* ---- sent by the loop ---- */

struct sender {
    struct fixture *f;
    struct ag_loop *l;
    struct ag_write write;
    struct ag_fd to;
    struct ag_block *pipe;
    int peer; /* where it arrives; -1: closed */
    unsigned finals;
    int32_t res;
};

static void on_sent(struct ag_loop *l, struct ag_op *op, const struct ag_result *r)
{
    struct sender *s = ag_container_of(op, struct sender, write.op);

    (void)l;
    s->res = r->res;
    s->finals++;
}

/* A pipe with `len` bytes of the pattern, and a socket to send them to. */
static struct sender *sender_new(enum ag_backend_kind kind, bool tcp, size_t len)
{
    struct sender *s = calloc(1, sizeof(*s));
    int from[2], to[2];

    cr_assert(s);
    s->f = fixture_new(kind, 16, 4);
    s->l = &s->f->loop;
    pair_new(tcp, to);
    s->peer = to[0];
    ag_fd_init(&s->to, to[1]);
    ag_write_init(&s->write, on_sent);
    make_pair(from);
    cr_assert_eq(feed(from[0], 0, len), len);
    cr_assert_eq(ag_pipes_recv(s->l->pipes, from[1], len, &s->pipe), (int32_t)len);
    (void)close(from[0]);
    (void)close(from[1]);
    return s;
}

static void send_pipe(struct sender *s)
{
    s->finals = 0;
    ag_loop_sendfile(s->l, &s->to, &s->write, s->pipe->fd, AG_OFFSET_PIPE, s->pipe->size);
}

static void sender_free(struct sender *s)
{
    ag_block_release(s->pipe);
    cr_expect_eq(ag_pipes_used(s->l->pipes), 0);
    ag_loop_close(s->l, &s->to);
    if (s->peer >= 0) {
        (void)close(s->peer);
    }
    fixture_free(s->f);
    free(s);
}

static void send_whole(enum ag_backend_kind kind, bool tcp)
{
    enum { LEN = 20000 };
    struct sender *s = sender_new(kind, tcp, LEN);

    send_pipe(s);
    turn_until(s->l, s->finals == 1);
    cr_assert_eq(s->res, LEN);
    ag_pipe_sent(s->pipe, LEN);
    expect_pattern(s->peer, 0, LEN);
    sender_free(s);
}

BOTH(pipes, sends_whole)
{
    send_whole(kind, true);
    send_whole(kind, false);
}

/* Fills a socket until it takes nothing. */
static size_t stuff(int fd)
{
    static const uint8_t zeros[65536];
    size_t sum = 0;
    ssize_t n;

    while ((n = send(fd, zeros, sizeof(zeros), MSG_DONTWAIT | MSG_NOSIGNAL)) > 0) {
        sum += (size_t)n;
    }
    return sum;
}

/* Reads at most `most` bytes that are zeros; how many. */
static size_t unstuff(int fd, size_t most)
{
    static uint8_t buf[65536];
    ssize_t n = recv(fd, buf, ag_min_size(most, sizeof(buf)), MSG_DONTWAIT);

    for (ssize_t i = 0; i < n; i++) {
        cr_assert_eq(buf[i], 0);
    }
    return n > 0 ? (size_t)n : 0;
}

static void send_into_full(enum ag_backend_kind kind, bool tcp)
{
    enum { LEN = 120000 };
    struct sender *s = sender_new(kind, tcp, LEN);
    size_t before = stuff(s->to.fd), at = 0;
    int room = 4096;

    send_pipe(s);
    for (unsigned i = 0; i < 5; i++) {
        ag_loop_turn(s->l, 0);
    }
    cr_expect_eq(s->finals, 0, "it waits for room");
    while (before > 0 || at < LEN) {
        static uint8_t buf[4096];

        before -= unstuff(s->peer, before);
        ssize_t n = before > 0 ? 0 : recv(s->peer, buf, (size_t)room, MSG_DONTWAIT);
        for (ssize_t i = 0; i < n; i++) {
            cr_assert_eq(buf[i], pattern_at(at + (size_t)i));
        }
        at += n > 0 ? (size_t)n : 0;
        ag_loop_turn(s->l, 1);
        if (s->finals == 1 && s->pipe->size > 0) {
            cr_assert(s->res > 0 && (uint32_t)s->res <= s->pipe->size);
            ag_pipe_sent(s->pipe, (size_t)s->res);
            if (s->pipe->size > 0) {
                send_pipe(s);
            }
        }
    }
    cr_expect_eq(s->pipe->size, 0);
    sender_free(s);
}

BOTH(pipes, sends_as_there_is_room)
{
    send_into_full(kind, true);
    send_into_full(kind, false);
}

static void send_to_nobody(enum ag_backend_kind kind, bool tcp)
{
    struct sender *s = sender_new(kind, tcp, 20000);
    struct linger abort = {1, 0};

    (void)setsockopt(s->peer, SOL_SOCKET, SO_LINGER, &abort, sizeof(abort));
    (void)close(s->peer);
    s->peer = -1;
    send_pipe(s); /* would raise SIGPIPE */
    turn_until(s->l, s->finals == 1);
    cr_expect(s->res == -EPIPE || s->res == -ECONNRESET, "%d", s->res);
    cr_expect_eq(s->pipe->size, 20000);
    sender_free(s);
}

BOTH(pipes, sends_to_nobody)
{
    send_to_nobody(kind, true);
    send_to_nobody(kind, false);
}

BOTH(pipes, a_send_that_waits_is_cancelled)
{
    struct sender *s = sender_new(kind, true, 20000);

    (void)stuff(s->to.fd);
    send_pipe(s);
    ag_loop_turn(s->l, 0);
    ag_loop_cancel(s->l, &s->write.op);
    turn_until(s->l, s->finals == 1);
    cr_expect_eq(s->res, -ECANCELED);
    sender_free(s);
}

/* ---- between connections ---- */

/* in -> from -> to -> out: `content` bytes, all of which `from` may leave unseen, and others behind. */
struct relay {
    struct ag_conn from, to;
    struct fixture *f;
    struct ag_loop *l;
    int in, out; /* the test's ends */
    uint64_t content, got, sent;
    uint64_t pipe_bytes; /* of what came by on_data */
    unsigned pieces, pipes, closes;
    uint32_t most_used; /* pipes at once */
    bool once;          /* it says only at first that content goes unseen */
    bool forward;       /* to `to` */
    bool bad;
};

static struct relay *relay_of(struct ag_stream *s, bool from)
{
    return from ? ag_container_of(ag_conn_of(s), struct relay, from)
                : ag_container_of(ag_conn_of(s), struct relay, to);
}

/* Bytes that a slice names must be the pattern, and of a pipe content. */
static void look_at(struct relay *r, const struct ag_slice *s)
{
    if (ag_slice_is_pipe(s)) {
        r->pipes++;
        r->pipe_bytes += s->len;
        r->bad |= r->got + s->len > r->content || s->len != s->owner->size;
    } else {
        for (size_t i = 0; i < s->len; i++) {
            r->bad |= s->ptr[i] != pattern_at(r->got + i);
        }
    }
    r->got += s->len;
    r->pieces++;
    r->most_used =
        ag_pipes_used(r->l->pipes) > r->most_used ? ag_pipes_used(r->l->pipes) : r->most_used;
}

static void on_data(struct ag_stream *stream, struct ag_slice slice)
{
    struct relay *r = relay_of(stream, true);
    uint64_t at = r->got;

    look_at(r, &slice);
    if (!r->once) {
        ag_stream_unseen(stream, r->content > r->got ? r->content - r->got : 0);
    }
    if (r->forward) {
        cr_assert_eq(ag_stream_write(&r->to.stream, slice), AG_OK);
        if (ag_stream_full(&r->to.stream)) {
            ag_stream_pause(stream);
        }
    } else if (ag_slice_is_pipe(&slice)) {
        drain(slice.owner, at);
    } else {
        ag_slice_release(&slice);
    }
}

static void on_other_data(struct ag_stream *s, struct ag_slice slice)
{
    (void)s;
    ag_slice_release(&slice);
}

static void on_eof(struct ag_stream *s)
{
    (void)s;
}

static void on_drain(struct ag_stream *s)
{
    ag_stream_resume(&relay_of(s, false)->from.stream, AG_BUF_LARGE);
}

static void on_no_drain(struct ag_stream *s)
{
    (void)s;
}

static void on_from_close(struct ag_stream *s, enum ag_reason why)
{
    (void)why;
    relay_of(s, true)->closes++;
}

static void on_to_close(struct ag_stream *s, enum ag_reason why)
{
    (void)why;
    relay_of(s, false)->closes++;
}

static const struct ag_stream_user from_user = {.on_data = on_data,
                                                .on_eof = on_eof,
                                                .on_drain = on_no_drain,
                                                .on_deadline = on_no_drain,
                                                .on_close = on_from_close};
static const struct ag_stream_user to_user = {.on_data = on_other_data,
                                              .on_eof = on_eof,
                                              .on_drain = on_drain,
                                              .on_deadline = on_no_drain,
                                              .on_close = on_to_close};

static struct relay *relay_new(enum ag_backend_kind kind, bool tcp, uint64_t content)
{
    struct relay *r = calloc(1, sizeof(*r));
    int in[2], out[2];

    cr_assert(r);
    r->f = fixture_new(kind, 64, 16);
    r->l = &r->f->loop;
    r->content = content;
    pair_new(tcp, in);
    pair_new(tcp, out);
    r->in = in[0];
    r->out = out[0];
    ag_conn_accept(&r->from, r->l, in[1], &from_user);
    ag_conn_accept(&r->to, r->l, out[1], &to_user);
    r->from.fd.bulk_run = 8; /* as if it had given much already */
    ag_stream_resume(&r->from.stream, AG_BUF_LARGE);
    ag_stream_unseen(&r->from.stream, content);
    ag_loop_turn(r->l, 0);
    return r;
}

/* Pipes that were used, and may be used again, hold nothing. */
static void expect_clean(struct ag_pipes *from)
{
    struct ag_block *pipes[AG_PIPES_MAX];
    uint32_t open = ag_pipes_open(from);
    int pair[2], held;

    make_pair(pair);
    for (uint32_t i = 0; i < open; i++) {
        cr_assert_eq(feed(pair[0], i, i + 1), i + 1);
        cr_assert_eq(ag_pipes_recv(from, pair[1], 1, &pipes[i]), 1);
        cr_assert_eq(ioctl(pipes[i]->fd, FIONREAD, &held), 0);
        cr_expect_eq(held, 1);
    }
    for (uint32_t i = 0; i < open; i++) {
        drain(pipes[i], i);
    }
    (void)close(pair[0]);
    (void)close(pair[1]);
}

static void relay_free(struct relay *r)
{
    cr_expect(!r->bad);
    ag_stream_abort(&r->from.stream, AG_REASON_ABORTED);
    ag_stream_abort(&r->to.stream, AG_REASON_ABORTED);
    turn_until(r->l, r->closes == 2);
    cr_expect_eq(ag_pipes_used(r->l->pipes), 0);
    expect_clean(r->l->pipes);
    (void)close(r->in);
    if (r->out >= 0) {
        (void)close(r->out);
    }
    fixture_free(r->f);
    free(r);
}

/* Sends up to `end`, and has all of it taken by `from`. */
static void pass(struct relay *r, uint64_t end)
{
    for (unsigned i = 0; r->got < end && i < TURNS_MAX; i++) {
        r->sent = feed(r->in, r->sent, end);
        ag_loop_turn(r->l, 1);
    }
    cr_assert_eq(r->got, end);
}

static void bytes_behind_are_seen(enum ag_backend_kind kind, bool tcp)
{
    enum { CONTENT = 2 * AG_BULK_UNSEEN_BYTES + 1000, BEHIND = 700 };
    struct relay *r = relay_new(kind, tcp, CONTENT);

    pass(r, CONTENT + BEHIND); /* both lie in the socket at once, or come in many pieces */
    cr_expect_gt(r->pipe_bytes, 0);
    cr_expect_leq(r->pipe_bytes, 2 * AG_BULK_UNSEEN_BYTES);
    relay_free(r);
}

BOTH(pipes, bytes_behind_content_are_seen)
{
    bytes_behind_are_seen(kind, true);
    bytes_behind_are_seen(kind, false);
}

static void little_is_seen(enum ag_backend_kind kind, bool tcp)
{
    struct relay *r = relay_new(kind, tcp, AG_BULK_UNSEEN_BYTES - 1);

    pass(r, AG_BULK_UNSEEN_BYTES - 1);
    cr_expect_eq(r->pipes, 0);
    relay_free(r);
}

BOTH(pipes, little_is_worth_none)
{
    little_is_seen(kind, true);
    little_is_seen(kind, false);
}

static void taken_back(enum ag_backend_kind kind, bool tcp)
{
    struct relay *r = relay_new(kind, tcp, 16 * AG_BULK_UNSEEN_BYTES);

    r->once = true;
    pass(r, 4 * AG_BULK_UNSEEN_BYTES);
    cr_expect_eq(r->pipes, 1, "the first piece alone");
    cr_expect_gt(r->pieces, 1);
    relay_free(r);
}

BOTH(pipes, a_delivery_takes_it_back)
{
    taken_back(kind, true);
    taken_back(kind, false);
}

static void all_in_use(enum ag_backend_kind kind, bool tcp)
{
    struct relay *r = relay_new(kind, tcp, 8 * AG_BULK_UNSEEN_BYTES);
    struct ag_block *pipes[AG_PIPES_MAX];
    int pair[2];

    make_pair(pair);
    for (uint32_t i = 0; i < AG_PIPES_MAX; i++) {
        cr_assert_eq(feed(pair[0], i, i + 1), i + 1);
        cr_assert_eq(ag_pipes_recv(r->l->pipes, pair[1], 1, &pipes[i]), 1);
    }
    pass(r, 4 * AG_BULK_UNSEEN_BYTES);
    cr_expect_eq(r->pipes, 0);
    for (uint32_t i = 0; i < AG_PIPES_MAX; i++) {
        drain(pipes[i], i);
    }
    pass(r, 8 * AG_BULK_UNSEEN_BYTES);
    cr_expect_gt(r->pipes, 0);
    (void)close(pair[0]);
    (void)close(pair[1]);
    relay_free(r);
}

BOTH(pipes, memory_does_when_all_are_in_use)
{
    all_in_use(kind, true);
    all_in_use(kind, false);
}

/* Sends `end` bytes, with an urgent one, which nobody wants, amid those that go unseen. */
BOTH(pipes, urgent_data_is_no_end)
{
    enum { MARK = 3 * AG_BULK_UNSEEN_BYTES, END = 8 * AG_BULK_UNSEEN_BYTES };
    struct relay *r = relay_new(kind, true, END);

    pass(r, MARK);
    cr_assert_eq(send(r->in, "!", 1, MSG_OOB), 1);
    pass(r, END);
    cr_expect_gt(r->pipes, 0);
    relay_free(r);
}

/* What came out so far must be the pattern from `at` on; where that ends. */
static uint64_t look_out(struct relay *r, uint64_t at)
{
    static uint8_t buf[65536];
    ssize_t n = recv(r->out, buf, sizeof(buf), MSG_DONTWAIT);

    for (ssize_t i = 0; i < n; i++) {
        r->bad |= buf[i] != pattern_at(at + (uint64_t)i);
    }
    return n > 0 ? at + (uint64_t)n : at;
}

static void forward_all(enum ag_backend_kind kind, bool tcp, unsigned pace)
{
    const uint64_t content = 6u << 20, total = content + 300;
    struct relay *r = relay_new(kind, tcp, content);
    uint64_t at = 0;

    r->forward = true;
    for (unsigned i = 0; at < total && i < 10 * TURNS_MAX; i++) {
        r->sent = feed(r->in, r->sent, total);
        if (i % pace == 0) {
            at = look_out(r, at);
        }
        ag_loop_turn(r->l, i % 8 == 0);
    }
    cr_assert_eq(at, total);
    cr_assert_eq(r->got, total);
    cr_expect_gt(r->pipe_bytes, content / 2);
    relay_free(r);
}

BOTH(pipes, content_passes_between_connections)
{
    forward_all(kind, true, 1);
    forward_all(kind, false, 1);
}

BOTH(pipes, content_passes_to_a_slow_reader)
{
    forward_all(kind, true, 7);
    forward_all(kind, false, 7);
}

static void end_with_pipes(enum ag_backend_kind kind, bool tcp, bool peer_gone)
{
    const uint64_t content = 8u << 20;
    struct relay *r = relay_new(kind, tcp, content);

    r->forward = true;
    for (unsigned i = 0; ag_stream_queued(&r->to.stream) == 0 && i < TURNS_MAX; i++) {
        r->sent = feed(r->in, r->sent, content);
        ag_loop_turn(r->l, 0);
    }
    cr_assert_gt(ag_pipes_used(r->l->pipes), 0, "nobody reads: some wait");
    if (peer_gone) {
        (void)close(r->out);
        r->out = -1;
        turn_until(r->l, r->closes == 1);
    }
    relay_free(r);
}

BOTH(pipes, an_end_with_bytes_in_them)
{
    end_with_pipes(kind, true, false);
    end_with_pipes(kind, false, false);
}

BOTH(pipes, a_peer_that_leaves_bytes_in_them)
{
    end_with_pipes(kind, true, true);
    end_with_pipes(kind, false, true);
}
