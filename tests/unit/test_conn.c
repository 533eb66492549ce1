/*
 * Goal: bytes pass whole and in order however the peer behaves, and every path ends in exactly one
 * on_close that leaves nothing behind.
 * Method: a conn on a loop, and a raw socket that the test plays the peer with.
 */
#include "tests/unit/loops.h"

#include "engine/conn.h"
#include "engine/listener.h"

#include <errno.h>
#include <poll.h>

struct peer {
    struct ag_conn conn;
    struct fixture *f;
    struct ag_loop *l;
    int fd;             /* the test's end */
    uint64_t in, eofs;  /* bytes that came by on_data, checked against the pattern */
    uint64_t read_back; /* bytes that the test read, checked likewise */
    unsigned closes, drains, deadlines, connects, datas;
    size_t longest; /* slice seen */
    enum ag_reason why;
    bool bad;
    void (*then)(struct peer *); /* called at the end of on_data and on_eof */
    struct ag_slice held[16];
    unsigned held_count, hold_max;
};

static struct peer *peer_of(struct ag_stream *s)
{
    return ag_container_of(ag_conn_of(s), struct peer, conn);
}

static void on_data(struct ag_stream *s, struct ag_slice slice)
{
    struct peer *p = peer_of(s);

    for (size_t i = 0; i < slice.len; i++) {
        p->bad |= slice.ptr[i] != pattern_at(p->in + i);
    }
    p->in += slice.len;
    p->datas++;
    p->longest = slice.len > p->longest ? slice.len : p->longest;
    if (p->held_count < p->hold_max) {
        p->held[p->held_count++] = slice;
    } else {
        ag_slice_release(&slice);
    }
    if (p->then) {
        p->then(p);
    }
}

static void on_eof(struct ag_stream *s)
{
    struct peer *p = peer_of(s);

    p->eofs++;
    if (p->then) {
        p->then(p);
    }
}

static void on_drain(struct ag_stream *s)
{
    peer_of(s)->drains++;
}

static void on_deadline(struct ag_stream *s)
{
    peer_of(s)->deadlines++;
    ag_stream_abort(s, AG_REASON_TIMEOUT);
}

static void on_close(struct ag_stream *s, enum ag_reason why)
{
    struct peer *p = peer_of(s);

    p->closes++;
    p->why = why;
    memset(&p->conn, 0xa5, sizeof(p->conn)); /* freed: whoever touches it now fails */
}

static void on_connected(struct ag_conn *c)
{
    peer_of(&c->stream)->connects++;
}

static const struct ag_stream_user user = {.on_data = on_data,
                                           .on_eof = on_eof,
                                           .on_drain = on_drain,
                                           .on_deadline = on_deadline,
                                           .on_close = on_close};

static struct peer *peer_alone(enum ag_backend_kind kind, uint32_t small, uint32_t large)
{
    struct peer *p = calloc(1, sizeof(*p));

    cr_assert(p);
    p->f = fixture_new(kind, small, large);
    p->l = &p->f->loop;
    p->fd = -1;
    return p;
}

static struct peer *peer_new(enum ag_backend_kind kind, uint32_t small, uint32_t large)
{
    struct peer *p = peer_alone(kind, small, large);
    int pair[2];

    make_tcp_pair(pair);
    p->fd = pair[0];
    ag_conn_accept(&p->conn, p->l, pair[1], &user);
    return p;
}

/* The conn must be closed, once. */
static void peer_free(struct peer *p)
{
    cr_expect_eq(p->closes, 1);
    cr_expect(!p->bad);
    while (p->held_count > 0) {
        ag_slice_release(&p->held[--p->held_count]);
    }
    for (unsigned i = 0; i < 5; i++) {
        ag_loop_turn(p->l, 0);
    }
    cr_expect_eq(p->closes, 1);
    if (p->fd >= 0) {
        (void)close(p->fd);
    }
    fixture_free(p->f);
    free(p);
}

static void peer_end(struct peer *p)
{
    ag_stream_abort(&p->conn.stream, AG_REASON_ABORTED);
    cr_expect_eq(p->closes, 0, "on_close came from inside the call");
    turn_until(p->l, p->closes == 1);
    cr_expect_eq(p->why, AG_REASON_ABORTED);
    peer_free(p);
}

/* Reads what is there, at most `max` bytes; false at the end. `*out_error` is errno of a failure. */
static bool peer_read(struct peer *p, size_t max, int *out_error)
{
    static uint8_t buf[65536];
    ssize_t n = recv(p->fd, buf, ag_min_size(max, sizeof(buf)), MSG_DONTWAIT);

    *out_error = n < 0 ? errno : 0;
    for (ssize_t i = 0; i < n; i++) {
        p->bad |= buf[i] != pattern_at(p->read_back + (uint64_t)i);
    }
    p->read_back += n > 0 ? (uint64_t)n : 0;
    return n > 0 || (n < 0 && errno == EAGAIN);
}

static bool peer_ended(struct peer *p)
{
    int err;

    return !peer_read(p, 65536, &err);
}

/* Reads, and tells whether `total` bytes have come in all. */
static bool peer_has(struct peer *p, uint64_t total)
{
    int err;

    (void)peer_read(p, 65536, &err);
    return p->read_back == total;
}

/* Sends the next bytes of the pattern; `at` is what was sent before. */
static size_t peer_write(struct peer *p, uint64_t at, size_t len)
{
    static uint8_t buf[65536];

    len = ag_min_size(len, sizeof(buf));
    for (size_t i = 0; i < len; i++) {
        buf[i] = pattern_at(at + i);
    }
    ssize_t n = send(p->fd, buf, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    return n > 0 ? (size_t)n : 0;
}

/* The pattern at `at`, in static memory. */
static struct ag_slice pattern_slice(uint64_t at, size_t len)
{
    enum { PERIOD = 1 << 24, SPARE = 1 << 20 };
    static uint8_t *bytes;

    if (!bytes) {
        bytes = malloc(PERIOD + SPARE);
        cr_assert(bytes);
        for (size_t i = 0; i < PERIOD + SPARE; i++) {
            bytes[i] = pattern_at(i);
        }
    }
    cr_assert(len <= SPARE);
    return ag_slice_static(ag_span(bytes + at % PERIOD, len));
}

static void put_pattern(struct peer *p, uint64_t at, size_t len)
{
    struct ag_slice slice = pattern_slice(at, len);

    cr_assert_eq(ag_stream_put(&p->conn.stream, ag_slice_span(&slice)), AG_OK);
}

static void write_pattern(struct peer *p, uint64_t at, size_t len)
{
    cr_assert_eq(ag_stream_write(&p->conn.stream, pattern_slice(at, len)), AG_OK);
}

BOTH(conn, ping_pong)
{
    struct peer *p = peer_new(kind, 16, 4);

    for (uint64_t i = 0; i < 200; i++) {
        cr_assert_eq(peer_write(p, i * 10, 10), 10);
        turn_until(p->l, p->in == (i + 1) * 10);
        put_pattern(p, i * 10, 4);
        put_pattern(p, i * 10 + 4, 6);
        turn_until(p->l, peer_has(p, (i + 1) * 10));
    }
    turn_until(p->l, !p->conn.send);
    cr_expect_eq(p->l->sends.used, 0, "an idle connection holds a send");
    cr_expect_eq(ag_loop_bufs_used(p->l, AG_BUF_SMALL), 0, "an idle connection holds a buffer");
    peer_end(p);
}

/* Much more than all buffers hold, to a reader that stops now and then; then an orderly end. */
static void send_much(enum ag_backend_kind kind, uint64_t total, size_t step, bool waits)
{
    struct peer *p = peer_new(kind, 64, 8);
    uint64_t at = 0;
    unsigned drains = 0;
    int err = 0;
    bool open = true;

    /* The writer either fills up at each turn, or waits until it is told to go on. */
    for (unsigned i = 0; open && i < TURNS_MAX * 10; i++) {
        bool may = !waits || at == 0 || p->drains > drains;
        drains = p->drains;
        while (may && at < total && !ag_stream_full(&p->conn.stream)) {
            size_t n = (size_t)ag_min_u64(total - at, step);
            write_pattern(p, at, n);
            at += n;
            if (at == total) {
                ag_stream_finish(&p->conn.stream);
            }
        }
        ag_loop_turn(p->l, 0);
        if (i % 16 >= 8) {
            open = peer_read(p, 65536, &err);
        }
    }
    cr_expect_eq(err, 0);
    cr_expect_eq(p->read_back, total);
    (void)close(p->fd);
    p->fd = -1;
    turn_until(p->l, p->closes == 1);
    cr_expect_eq(p->why, AG_REASON_NONE);
    peer_free(p);
}

BOTH(conn, slow_reader_gets_all)
{
    send_much(kind, 50u << 20, 100000, true);
}

BOTH(conn, many_slices_a_send)
{
    send_much(kind, 8u << 20, 333, false);
}

BOTH(conn, receives_all)
{
    const uint64_t total = 20u << 20;
    struct peer *p = peer_new(kind, 64, 16);
    uint64_t sent = 0;

    /* The group changes on the way, more than once. */
    for (unsigned i = 0; p->in < total && i < TURNS_MAX * 10; i++) {
        if (sent < total) {
            sent += peer_write(p, sent, (size_t)ag_min_u64(total - sent, 65536));
        }
        ag_loop_turn(p->l, 0);
        if (i % 50 == 20) {
            ag_stream_resume(&p->conn.stream, i % 100 == 20 ? AG_BUF_LARGE : AG_BUF_SMALL);
        }
    }
    cr_expect_eq(p->in, total);
    cr_expect(p->longest > AG_BUF_SMALL_BYTES, "large buffers were never used");
    (void)close(p->fd);
    p->fd = -1;
    turn_until(p->l, p->eofs == 1);
    peer_end(p);
}

BOTH(conn, few_buffers_lose_nothing)
{
    const uint64_t total = 4u << 20;
    struct peer *p = peer_new(kind, 4, 2);
    uint64_t sent = 0;

    p->hold_max = 4;
    for (unsigned i = 0; p->in < total && i < TURNS_MAX * 10; i++) {
        if (sent < total) {
            sent += peer_write(p, sent, (size_t)ag_min_u64(total - sent, 65536));
        }
        ag_loop_turn(p->l, 0);
        if (i % 10 == 9) {
            while (p->held_count > 0) {
                ag_slice_release(&p->held[--p->held_count]);
            }
        }
    }
    cr_expect_eq(p->in, total);
    cr_expect(p->l->stats.starved > 0);
    peer_end(p);
}

/* While it is tight, receives take small buffers; one that was begun for large ones must not ask for a
 * small one again and again. */
BOTH(conn, large_buffers_do_when_no_small_one_is_left)
{
    struct peer *p = peer_new(kind, 8, 8);
    struct ag_block *held[8];
    unsigned count = 0;

    (void)peer_write(p, 0, 10);
    turn_until(p->l, p->in == 10);
    ag_stream_pause(&p->conn.stream);
    for (unsigned i = 0; i < 6; i++) {
        ag_loop_turn(p->l, 0);
        if (i == 3) {
            ag_stream_resume(&p->conn.stream, AG_BUF_LARGE);
        }
    }
    while (count < AG_COUNT(held) && (held[count] = ag_loop_buf(p->l, AG_BUF_SMALL)) != NULL) {
        count++;
    }
    cr_assert(p->l->tight);
    (void)peer_write(p, 10, 10);
    turn_until(p->l, p->in == 20);
    while (count > 0) {
        ag_block_release(held[--count]);
    }
    peer_end(p);
}

static void pause_now(struct peer *p)
{
    ag_stream_pause(&p->conn.stream);
}

BOTH(conn, pause_and_resume)
{
    struct peer *p = peer_new(kind, 64, 4);
    uint64_t sent = 0;

    p->then = pause_now;
    for (unsigned round = 0; round < 20; round++) {
        sent += peer_write(p, sent, 65536);
        turn_until(p->l, p->datas > 0);
        for (unsigned i = 0; i < 6; i++) {
            ag_loop_turn(p->l, 0);
        }
        uint64_t in = p->in;
        for (unsigned i = 0; i < 6; i++) {
            ag_loop_turn(p->l, 0);
        }
        cr_expect_eq(p->in, in, "data came while paused");
        p->datas = 0;
        ag_stream_resume(&p->conn.stream, round % 2 ? AG_BUF_SMALL : AG_BUF_LARGE);
        ag_stream_pause(&p->conn.stream);
        ag_stream_resume(&p->conn.stream, round % 2 ? AG_BUF_LARGE : AG_BUF_SMALL);
    }
    p->then = NULL;
    ag_stream_resume(&p->conn.stream, AG_BUF_SMALL);
    turn_until(p->l, p->in == sent);
    peer_end(p);
}

BOTH(conn, files_and_memory_keep_their_order)
{
    enum { FILE_BYTES = 3 << 20 };
    struct peer *p = peer_new(kind, 64, 4);
    struct ag_block block = {.refs = 1, .fd = make_file(FILE_BYTES)};
    uint64_t at = 0;
    int err;

    /* head, file, tail, head, file: the pieces continue one pattern. */
    put_pattern(p, at, 300);
    at += 300;
    write_pattern(p, at, 50);
    at += 50;
    for (unsigned i = 0; i < 2; i++) {
        uint64_t end = i == 0 ? 2500000 : FILE_BYTES;
        struct ag_slice file = {{.offset = at}, (size_t)(end - at), ag_block_hold(&block)};
        cr_assert_eq(ag_stream_write(&p->conn.stream, file), AG_OK);
        at = end;
        put_pattern(p, at, 1000);
        at += 1000;
    }
    ag_stream_finish(&p->conn.stream);
    for (unsigned i = 0; i < TURNS_MAX; i++) {
        ag_loop_turn(p->l, i < 100 ? 0 : TURN_MS);
        if (!peer_read(p, 65536, &err)) {
            break;
        }
    }
    cr_expect_eq(err, 0);
    cr_expect_eq(p->read_back, at);
    cr_expect_eq(block.refs, 1);
    (void)close(p->fd);
    p->fd = -1;
    turn_until(p->l, p->closes == 1);
    (void)close(block.fd);
    peer_free(p);
}

BOTH(conn, file_that_shrank_is_a_reset)
{
    struct peer *p = peer_new(kind, 16, 4);
    struct ag_block block = {.refs = 1, .fd = make_file(1000)};
    struct ag_slice file = {{.offset = 0}, 2000, ag_block_hold(&block)};

    cr_assert_eq(ag_stream_write(&p->conn.stream, file), AG_OK);
    turn_until(p->l, p->closes == 1);
    cr_expect_eq(p->why, AG_REASON_OTHER);
    cr_expect_eq(block.refs, 1);
    (void)close(block.fd);
    peer_free(p);
}

/* Without the lingering close the unread input makes the kernel reset, and erase, the answer. */
BOTH(conn, finish_with_input_unread_delivers_the_answer)
{
    struct peer *p = peer_new(kind, 16, 4);
    uint64_t sent = 0, finish_ms;
    int err = 0;

    ag_stream_pause(&p->conn.stream);
    ag_loop_turn(p->l, 0);
    ag_loop_turn(p->l, 0);
    finish_ms = p->l->now_ms;
    for (unsigned i = 0; i < 2; i++) {
        sent += peer_write(p, sent, 60000);
    }
    put_pattern(p, 0, 1000);
    ag_stream_finish(&p->conn.stream);
    for (unsigned i = 0; i < 20; i++) {
        ag_loop_turn(p->l, 1);
        sent += peer_write(p, sent, 1000); /* still talking */
    }
    while (peer_read(p, 65536, &err) && p->closes == 0) {
        ag_loop_turn(p->l, 1);
    }
    if (p->l->now_ms - finish_ms < AG_CONN_LINGER_MS) { /* or this test has stood still */
        cr_expect_eq(err, 0, "the answer was erased");
        cr_expect_eq(p->read_back, 1000);
        cr_expect_eq(p->closes, 0, "it does not wait for the peer");
    }
    (void)close(p->fd);
    p->fd = -1;
    turn_until(p->l, p->closes == 1);
    cr_expect_eq(p->why, AG_REASON_NONE);
    cr_expect_eq(p->datas, 0, "data came after finish");
    peer_free(p);
}

BOTH(conn, linger_ends_by_bytes)
{
    struct peer *p = peer_new(kind, 16, 4);
    const int small = 65536;            /* so that little waits between the two */
    const uint64_t bound = 256u * 1024; /* said here once more, so that it cannot grow unseen */
    uint64_t sent = 0, finish_ms = p->l->now_ms;

    cr_assert_eq(setsockopt(p->fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
    cr_assert_eq(setsockopt(p->conn.fd.fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)), 0);
    ag_stream_finish(&p->conn.stream);
    for (unsigned i = 0; i < TURNS_MAX && p->closes == 0; i++) {
        sent += peer_write(p, sent, 65536);
        ag_loop_turn(p->l, 1);
    }
    cr_expect_eq(p->closes, 1);
    cr_expect(sent >= bound || p->l->now_ms - finish_ms >= AG_CONN_LINGER_MS);
    cr_expect(sent < 4 * bound, "the bound is one of bytes, not of time");
    peer_free(p);
}

BOTH(conn, linger_ends_by_time)
{
    struct peer *p = peer_new(kind, 16, 4);
    uint64_t start = p->l->now_ms;

    ag_stream_finish(&p->conn.stream);
    turn_until(p->l, p->closes == 1 || p->l->now_ms - start > 15ul * AG_CONN_LINGER_MS);
    cr_expect_eq(p->closes, 1, "it ends at all");
    cr_expect(p->l->now_ms - start >= AG_CONN_LINGER_MS);
    cr_expect_eq(p->why, AG_REASON_NONE);
    peer_free(p);
}

/* The peer sends no more: its FIN is not waited for, and what was queued arrives all the same. */
BOTH(conn, a_hasty_finish_waits_for_nobody)
{
    struct peer *p = peer_new(kind, 16, 4);

    cr_assert_eq(peer_write(p, 0, 10), 10);
    turn_until(p->l, p->in == 10);
    p->conn.stream.hasty = true;
    put_pattern(p, 0, 1000);
    ag_stream_finish(&p->conn.stream);
    turn_until(p->l, p->closes == 1);
    cr_expect_eq(p->why, AG_REASON_NONE);
    while (!peer_ended(p)) {
    }
    cr_expect_eq(p->read_back, 1000);
    peer_free(p);
}

/* What is there when it is accepted comes at once, and what comes later, too. */
BOTH(conn, input_from_before_it_was_accepted)
{
    struct peer *p = peer_alone(kind, 16, 4);
    int pair[2];

    make_tcp_pair(pair);
    p->fd = pair[0];
    cr_assert_eq(peer_write(p, 0, 100), 100);
    ag_conn_accept(&p->conn, p->l, pair[1], &user);
    for (uint64_t sent = 100; sent < 500; sent += 100) {
        turn_until(p->l, p->in == sent);
        cr_assert_eq(peer_write(p, sent, 100), 100);
    }
    turn_until(p->l, p->in == 500);
    peer_end(p);
}

/* Pieces that are received and not passed on yet are not lost by a pause, nor is what follows them. */
BOTH(conn, pausing_at_each_piece_loses_none)
{
    struct peer *p = peer_new(kind, 16, 4);

    p->then = pause_now;
    for (uint64_t sent = 0; sent < 40000; sent = p->in) {
        cr_assert_eq(peer_write(p, sent, 5000), 5000); /* more than a small buffer */
        do {
            ag_stream_resume(&p->conn.stream, AG_BUF_SMALL);
            ag_loop_turn(p->l, TURN_MS);
        } while (p->in < sent + 5000);
    }
    peer_end(p);
}

static void finish_now(struct peer *p)
{
    ag_stream_finish(&p->conn.stream);
    ag_stream_pause(&p->conn.stream);
    ag_stream_resume(&p->conn.stream, AG_BUF_LARGE);
    ag_stream_shut(&p->conn.stream);
}

/* The peer has closed already: nothing to linger for. */
BOTH(conn, finish_in_on_eof)
{
    struct peer *p = peer_new(kind, 16, 4);

    p->then = finish_now;
    (void)close(p->fd);
    p->fd = -1;
    turn_until(p->l, p->closes == 1);
    cr_expect_eq(p->eofs, 1);
    cr_expect_eq(p->why, AG_REASON_NONE);
    peer_free(p);
}

static void abort_now(struct peer *p)
{
    ag_stream_abort(&p->conn.stream, AG_REASON_PROTOCOL);
    ag_stream_abort(&p->conn.stream, AG_REASON_LIMIT);
}

BOTH(conn, abort_in_on_data)
{
    struct peer *p = peer_new(kind, 16, 4);

    p->then = abort_now;
    cr_assert(peer_write(p, 0, 30000) > 0);
    turn_until(p->l, p->closes == 1);
    cr_expect_eq(p->datas, 1, "data came after abort");
    cr_expect_eq(p->why, AG_REASON_PROTOCOL);
    peer_free(p);
}

BOTH(conn, abort_in_on_eof)
{
    struct peer *p = peer_new(kind, 16, 4);

    p->then = abort_now;
    (void)shutdown(p->fd, SHUT_WR);
    turn_until(p->l, p->closes == 1);
    cr_expect_eq(p->why, AG_REASON_PROTOCOL);
    peer_free(p);
}

/* Output cut short must not look like an end: the peer sees a reset, not a FIN. */
BOTH(conn, abort_with_output_resets)
{
    struct peer *p = peer_new(kind, 16, 4);
    int err = 0;

    for (uint64_t i = 0; i < 16; i++) {
        write_pattern(p, i << 20, 1u << 20);
    }
    for (unsigned i = 0; i < 10; i++) {
        ag_loop_turn(p->l, 0);
    }
    cr_assert(ag_stream_queued(&p->conn.stream) > 0);
    ag_stream_abort(&p->conn.stream, AG_REASON_TIMEOUT);
    turn_until(p->l, p->closes == 1);
    cr_expect_eq(p->why, AG_REASON_TIMEOUT);
    while (peer_read(p, 65536, &err)) {
    }
    cr_expect_eq(err, ECONNRESET);
    peer_free(p);
}

BOTH(conn, abort_when_idle_closes_in_order)
{
    struct peer *p = peer_new(kind, 16, 4);
    int err = 0;

    ag_loop_turn(p->l, 0);
    ag_stream_abort(&p->conn.stream, AG_REASON_ABORTED);
    turn_until(p->l, p->closes == 1);
    cr_expect(!peer_read(p, 10, &err));
    cr_expect_eq(err, 0);
    peer_free(p);
}

BOTH(conn, peer_resets)
{
    const struct linger reset = {1, 0};
    struct peer *p = peer_new(kind, 16, 4);

    for (uint64_t i = 0; i < 16; i++) {
        write_pattern(p, i << 20, 1u << 20);
    }
    ag_loop_turn(p->l, 0);
    cr_assert_eq(setsockopt(p->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)), 0);
    (void)close(p->fd);
    p->fd = -1;
    turn_until(p->l, p->closes == 1);
    cr_expect_eq(p->why, AG_REASON_RESET);
    peer_free(p);
}

/* The peer answers early and closes while we still send: its answer must be read, not lost. */
BOTH(conn, early_answer_survives_a_failed_send)
{
    struct peer *p = peer_alone(kind, 64, 4);
    int pair[2];

    make_pair(pair); /* unix: EPIPE comes at once, with the answer still unread */
    p->fd = pair[0];
    ag_conn_accept(&p->conn, p->l, pair[1], &user);
    for (unsigned i = 0; i < 5; i++) {
        ag_loop_turn(p->l, 0);
    }
    ag_stream_pause(&p->conn.stream);
    for (unsigned i = 0; i < 5; i++) {
        ag_loop_turn(p->l, 0);
    }
    size_t sent = peer_write(p, 0, 40000);
    cr_assert(sent > 0);
    (void)close(p->fd);
    p->fd = -1;
    ag_stream_resume(&p->conn.stream, AG_BUF_SMALL);
    write_pattern(p, 0, 1000);
    turn_until(p->l, p->closes == 1 || p->eofs == 1);
    cr_expect_eq(p->in, sent);
    if (p->closes == 0) { /* the input ended before the send was tried */
        ag_stream_abort(&p->conn.stream, AG_REASON_RESET);
        turn_until(p->l, p->closes == 1);
    }
    cr_expect_eq(p->why, AG_REASON_RESET);
    peer_free(p);
}

BOTH(conn, half_close_both_ways)
{
    struct peer *p = peer_new(kind, 16, 4);
    int err = 0;

    put_pattern(p, 0, 100);
    ag_stream_shut(&p->conn.stream);
    turn_until(p->l, peer_ended(p));
    cr_expect_eq(p->read_back, 100);
    /* The other way goes on. */
    cr_assert_eq(peer_write(p, 0, 50), 50);
    turn_until(p->l, p->in == 50);
    (void)shutdown(p->fd, SHUT_WR);
    turn_until(p->l, p->eofs == 1);
    cr_expect_eq(p->closes, 0);
    ag_stream_finish(&p->conn.stream);
    turn_until(p->l, p->closes == 1);
    cr_expect(!peer_read(p, 10, &err));
    cr_expect_eq(err, 0);
    peer_free(p);
}

BOTH(conn, send_after_peers_eof)
{
    struct peer *p = peer_new(kind, 16, 4);

    (void)shutdown(p->fd, SHUT_WR);
    turn_until(p->l, p->eofs == 1);
    for (uint64_t i = 0; i < 4; i++) {
        write_pattern(p, i << 20, 1u << 20);
    }
    ag_stream_finish(&p->conn.stream);
    turn_until(p->l, peer_ended(p));
    cr_expect_eq(p->read_back, 4u << 20);
    turn_until(p->l, p->closes == 1);
    peer_free(p);
}

BOTH(conn, deadline)
{
    struct peer *p = peer_new(kind, 16, 4);

    ag_stream_deadline(&p->conn.stream, 10);
    turn_until(p->l, p->closes == 1);
    cr_expect_eq(p->deadlines, 1);
    cr_expect_eq(p->why, AG_REASON_TIMEOUT);
    peer_free(p);
}

/* Lets the time between two looks of the flush watch pass without the wait. */
static void pass_flush_period(struct peer *p)
{
    struct ag_stream *s = &p->conn.stream;

    cr_assert(ag_timer_armed(&s->deadline));
    ag_timer_cancel(&p->l->wheel, &s->deadline);
    s->pace.due_ms -= s->pace.due_ms ? s->stall_ms / 3 : 0;
    s->deadline.fire(&s->deadline);
    for (unsigned i = 0; i < 5; i++) {
        ag_loop_turn(p->l, 0);
    }
}

/* After finish nobody else watches a peer that takes its last answer a byte at a time, or never. */
BOTH(conn, finish_does_not_wait_for_a_stalled_reader)
{
    struct peer *p = peer_new(kind, 16, 4);
    int err = 0;

    for (uint64_t i = 0; i < 16; i++) {
        write_pattern(p, i << 20, 1u << 20);
    }
    ag_stream_finish(&p->conn.stream);
    for (unsigned i = 0; i < 10; i++) {
        ag_loop_turn(p->l, 0);
    }
    pass_flush_period(p); /* it took the first bytes */
    for (unsigned round = 0; round < 6; round++) {
        pass_flush_period(p);
        /* It comes back in time, with much. */
        uint64_t before = p->read_back;
        for (unsigned i = 0; i < TURNS_MAX && p->read_back < before + (1u << 20); i++) {
            (void)peer_read(p, 65536, &err);
            ag_loop_turn(p->l, 0);
        }
        pass_flush_period(p);
        pass_flush_period(p);
        cr_assert_eq(p->closes, 0, "a reader that makes progress was cut");
    }
    pass_flush_period(p);
    cr_assert_eq(p->closes, 0, "not before its time is over");
    pass_flush_period(p);
    turn_until(p->l, p->closes == 1);
    cr_expect_eq(p->why, AG_REASON_TIMEOUT);
    while (peer_read(p, 65536, &err)) {
    }
    cr_expect_eq(err, ECONNRESET);
    peer_free(p);
}

/* ---- connect ---- */

struct server {
    struct ag_listener ls;
    int fds[8];
    unsigned count, closed;
};

static void on_accepted(struct ag_listener *ls, int fd)
{
    struct server *srv = ag_container_of(ls, struct server, ls);

    cr_assert(srv->count < AG_COUNT(srv->fds));
    srv->fds[srv->count++] = fd;
}

static void on_closed(struct ag_listener *ls)
{
    ag_container_of(ls, struct server, ls)->closed++;
}

static void server_open(struct server *srv, struct ag_loop *l)
{
    union ag_addr addr = {.in = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}}};
    const char *step = "";
    int fd = -1, err = 0;

    *srv = (struct server){0};
    cr_assert_eq(ag_listener_bind(&addr, false, 8, &fd, &err, &step), AG_OK, "%s: %d", step, err);
    ag_listener_open(&srv->ls, l, fd, on_accepted);
}

BOTH(conn, connect)
{
    struct peer *p = peer_alone(kind, 16, 4);
    struct server srv;
    union ag_addr addr;

    server_open(&srv, p->l);
    ag_conn_connect(&p->conn, p->l, &srv.ls.addr, sizeof(srv.ls.addr.in), &user, on_connected,
                    AG_BUF_SMALL);
    cr_expect_eq(p->connects, 0);
    put_pattern(p, 0, 100); /* goes out once it is connected */
    turn_until(p->l, p->connects == 1 && srv.count == 1);
    p->fd = srv.fds[0];
    turn_until(p->l, peer_has(p, 100));
    cr_assert_eq(peer_write(p, 0, 10), 10);
    turn_until(p->l, p->in == 10);
    ag_conn_peer(&p->conn, &addr);
    cr_expect_eq(addr.in.sin_port, srv.ls.addr.in.sin_port);
    ag_conn_local(&p->conn, &addr);
    cr_expect_eq(addr.in.sin_family, AF_INET);
    cr_expect_neq(addr.in.sin_port, srv.ls.addr.in.sin_port);
    ag_listener_close(&srv.ls, on_closed);
    turn_until(p->l, srv.closed == 1);
    peer_end(p);
}

BOTH(conn, connect_refused)
{
    struct peer *p = peer_alone(kind, 16, 4);
    union ag_addr addr = {.in = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}}};
    socklen_t len = sizeof(addr);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    cr_assert_eq(bind(fd, &addr.sa, sizeof(addr.in)), 0);
    cr_assert_eq(getsockname(fd, &addr.sa, &len), 0);
    ag_conn_connect(&p->conn, p->l, &addr, sizeof(addr.in), &user, on_connected, AG_BUF_SMALL);
    put_pattern(p, 0, 100);
    turn_until(p->l, p->closes == 1);
    cr_expect_eq(p->why, AG_REASON_REFUSED);
    cr_expect_eq(p->connects, 0);
    (void)close(fd);
    peer_free(p);
}

BOTH(conn, connect_to_no_unix_socket)
{
    struct peer *p = peer_alone(kind, 16, 4);
    union ag_addr addr = {.un = {.sun_family = AF_UNIX, .sun_path = "no-such-socket"}};

    ag_conn_connect(&p->conn, p->l, &addr, sizeof(addr.un), &user, on_connected, AG_BUF_SMALL);
    cr_expect_eq(p->closes, 0);
    turn_until(p->l, p->closes == 1);
    cr_expect_eq(p->why, AG_REASON_REFUSED);
    peer_free(p);
}

BOTH(conn, connect_without_a_descriptor)
{
    struct peer *p = peer_alone(kind, 16, 4);
    union ag_addr addr = {.sa = {.sa_family = 250}};

    ag_conn_connect(&p->conn, p->l, &addr, sizeof(addr.in), &user, on_connected, AG_BUF_SMALL);
    cr_expect_eq(p->closes, 0, "on_close came from inside the call");
    turn_until(p->l, p->closes == 1);
    cr_expect_eq(p->why, AG_REASON_UNREACHABLE);
    peer_free(p);
}

BOTH(conn, abort_while_connecting)
{
    struct peer *p = peer_alone(kind, 16, 4);
    struct server srv;

    server_open(&srv, p->l);
    ag_conn_connect(&p->conn, p->l, &srv.ls.addr, sizeof(srv.ls.addr.in), &user, on_connected,
                    AG_BUF_SMALL);
    ag_stream_abort(&p->conn.stream, AG_REASON_ABORTED);
    turn_until(p->l, p->closes == 1);
    cr_expect_eq(p->connects, 0);
    cr_expect_eq(p->why, AG_REASON_ABORTED);
    ag_listener_close(&srv.ls, on_closed);
    turn_until(p->l, srv.closed == 1);
    for (unsigned i = 0; i < srv.count; i++) {
        (void)close(srv.fds[i]);
    }
    peer_free(p);
}
