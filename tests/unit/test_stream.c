/*
 * Goal: what is written comes out in order, once, in one flush a turn, and no buffer or node stays.
 * Method: a transport over memory that takes as many bytes as the test allows.
 */
#include "tests/unit/loops.h"

#include "engine/stream.h"

#include <errno.h>

struct sink {
    struct ag_stream stream; /* first */
    uint8_t got[65536];
    size_t len;
    unsigned flushes, drains, deadlines, aborts, finishes;
    enum ag_reason why;
};

static struct sink *sink_of(struct ag_stream *s)
{
    return ag_container_of(s, struct sink, stream);
}

static void sink_flush(struct ag_stream *s)
{
    sink_of(s)->flushes++;
}

static void sink_nothing(struct ag_stream *s)
{
    (void)s;
}

static void sink_resume(struct ag_stream *s, enum ag_buf_group group)
{
    (void)s;
    (void)group;
}

static void sink_finish(struct ag_stream *s)
{
    sink_of(s)->finishes++;
}

static void sink_abort(struct ag_stream *s, enum ag_reason why)
{
    sink_of(s)->aborts++;
    sink_of(s)->why = why;
}

static void on_drain(struct ag_stream *s)
{
    sink_of(s)->drains++;
}

static void on_deadline(struct ag_stream *s)
{
    sink_of(s)->deadlines++;
}

static const struct ag_stream_ops ops = {
    .flush = sink_flush,
    .pause = sink_nothing,
    .resume = sink_resume,
    .shut = sink_nothing,
    .finish = sink_finish,
    .abort = sink_abort,
};
static const struct ag_stream_user user = {.on_drain = on_drain, .on_deadline = on_deadline};

/* Takes `n` bytes as a transport does: off the queue, then into the kernel. */
static void take(struct sink *k, size_t n)
{
    struct ag_stream *s = &k->stream;

    while (n > 0) {
        const struct ag_slice *first = &s->out.head->slice;
        size_t part = ag_min_size(n, first->len);
        if (k->len + part <= sizeof(k->got)) {
            memcpy(k->got + k->len, first->ptr, part);
        }
        k->len += part;
        n -= part;
        s->sending_bytes += part;
        ag_chain_consume(&s->out, &s->loop->nodes, part);
        ag_stream_sent(s, part);
    }
}

static struct sink *sink_new(struct fixture *f)
{
    struct sink *k = calloc(1, sizeof(*k));

    cr_assert(k);
    ag_stream_init(&k->stream, &f->loop, &ops, &user);
    return k;
}

static void sink_free(struct fixture *f, struct sink *k)
{
    ag_stream_deinit(&k->stream);
    free(k);
    fixture_free(f);
}

BOTH(stream, small_writes_share_one_slice_and_one_flush)
{
    struct fixture *f = fixture_new(kind, 16, 4);
    struct sink *k = sink_new(f);

    for (unsigned i = 0; i < 10; i++) {
        uint8_t *to = ag_stream_reserve(&k->stream, 100); /* more than is committed */
        cr_assert(to);
        memcpy(to, "abc", 3);
        ag_stream_commit(&k->stream, 3);
    }
    cr_expect_eq(k->stream.out.count, 1);
    cr_expect_eq(k->stream.out.bytes, 30);
    cr_expect_eq(k->flushes, 0);
    ag_loop_turn(&f->loop, 0);
    cr_expect_eq(k->flushes, 1);
    take(k, 30);
    cr_expect_eq(memcmp(k->got, "abcabcabcabcabcabcabcabcabcabc", 30), 0);
    cr_expect_eq(ag_loop_bufs_used(&f->loop, AG_BUF_SMALL), 0, "an idle stream holds no buffer");
    sink_free(f, k);
}

BOTH(stream, copies_and_references_keep_their_order)
{
    struct fixture *f = fixture_new(kind, 32, 4);
    struct sink *k = sink_new(f);
    static uint8_t bytes[10000], want[30000];
    size_t at = 0;

    for (size_t i = 0; i < sizeof(bytes); i++) {
        bytes[i] = pattern_at(i);
    }
    for (unsigned i = 0; i < 40; i++) {
        size_t n = i * 37 + 1;
        if (i % 3 == 2) {
            cr_assert_eq(ag_stream_write(&k->stream, ag_slice_static(ag_span(bytes + i, n))),
                         AG_OK);
        } else {
            cr_assert_eq(ag_stream_put(&k->stream, ag_span(bytes + i, n)), AG_OK);
        }
        memcpy(want + at, bytes + i, n);
        at += n;
    }
    cr_assert_eq(ag_stream_queued(&k->stream), at);
    for (size_t left = at; left > 0;) {
        size_t n = ag_min_size(left, 777);
        take(k, n);
        left -= n;
    }
    cr_expect_eq(memcmp(k->got, want, at), 0);
    cr_expect_eq(ag_loop_bufs_used(&f->loop, AG_BUF_SMALL), 0);
    sink_free(f, k);
}

BOTH(stream, a_long_put_spans_buffers)
{
    struct fixture *f = fixture_new(kind, 32, 4);
    struct sink *k = sink_new(f);
    uint8_t *bytes = malloc(50000);

    cr_assert(bytes);
    for (size_t i = 0; i < 50000; i++) {
        bytes[i] = pattern_at(i);
    }
    cr_assert_eq(ag_stream_put(&k->stream, ag_span(bytes, 50000)), AG_OK);
    take(k, 50000);
    cr_expect_eq(memcmp(k->got, bytes, 50000), 0);
    free(bytes);
    sink_free(f, k);
}

BOTH(stream, out_of_buffers_is_a_value)
{
    struct fixture *f = fixture_new(kind, 8, 2);
    struct sink *k = sink_new(f);
    static const uint8_t bytes[100000];

    cr_expect_eq(ag_stream_put(&k->stream, ag_span(bytes, sizeof(bytes))), AG_ENOMEM);
    cr_expect_null(ag_stream_reserve(&k->stream, AG_BUF_SMALL_BYTES));
    sink_free(f, k);
}

BOTH(stream, out_of_nodes_is_a_value)
{
    struct fixture *f = fixture_new(kind, 8, 2);
    struct sink *k = sink_new(f);
    enum ag_status st = AG_OK;
    uint32_t n = 0;

    for (; n <= f->loop.nodes.count && st == AG_OK; n++) {
        st = ag_stream_write(&k->stream, ag_slice_static(AG_SPAN("x")));
    }
    cr_expect_eq(st, AG_ENOMEM);
    cr_expect_eq(n, f->loop.nodes.count + 1);
    cr_expect_null(ag_stream_reserve(&k->stream, 1), "no node for it");
    sink_free(f, k);
}

/* Each piece comes in a buffer of its own; what the peer does not take must not hold them all. */
BOTH(stream, waiting_pieces_hold_little_memory)
{
    struct fixture *f = fixture_new(kind, 8, 4);
    struct sink *k = sink_new(f);
    char want[128] = "";

    for (unsigned i = 0; i < 100; i++) {
        enum ag_buf_group group = i % 2 ? AG_BUF_SMALL : AG_BUF_LARGE;
        struct ag_slice s = {.len = 1, .owner = ag_loop_buf(&f->loop, group)};

        cr_assert(s.owner, "piece %u finds no buffer", i);
        want[i] = (char)('a' + i % 26);
        s.owner->data[7] = (uint8_t)want[i];
        s.ptr = s.owner->data + 7;
        cr_assert_eq(ag_stream_write(&k->stream, s), AG_OK);
    }
    cr_expect_leq(ag_loop_bufs_used(&f->loop, AG_BUF_SMALL), 1);
    cr_expect_leq(ag_loop_bufs_used(&f->loop, AG_BUF_LARGE), 1, "the first went as it was");
    cr_expect_eq(ag_stream_queued(&k->stream), 100);
    take(k, 100);
    cr_expect_arr_eq(k->got, want, 100);
    sink_free(f, k);
}

BOTH(stream, watermarks)
{
    struct fixture *f = fixture_new(kind, 8, 2);
    struct sink *k = sink_new(f);
    static const uint8_t bytes[AG_STREAM_HIGH];
    const size_t half = AG_STREAM_HIGH - AG_STREAM_LOW;

    cr_assert_eq(ag_stream_write(&k->stream, ag_slice_static(ag_span(bytes, sizeof(bytes) - 1))),
                 AG_OK);
    cr_expect(!ag_stream_full(&k->stream));
    take(k, sizeof(bytes) - 1);
    cr_expect_eq(k->drains, 0, "never full: none is owed");

    cr_assert_eq(ag_stream_write(&k->stream, ag_slice_static(ag_span(bytes, sizeof(bytes)))),
                 AG_OK);
    cr_expect(ag_stream_full(&k->stream));
    take(k, half - 1);
    cr_expect_eq(k->drains, 0);
    take(k, 1);
    cr_expect_eq(k->drains, 1);
    take(k, AG_STREAM_LOW);
    cr_expect_eq(k->drains, 1);
    sink_free(f, k);
}

BOTH(stream, deadline)
{
    struct fixture *f = fixture_new(kind, 8, 2);
    struct sink *k = sink_new(f);

    ag_stream_deadline(&k->stream, 1);
    ag_stream_deadline(&k->stream, UINT64_MAX);
    cr_expect(!ag_timer_armed(&k->stream.deadline));
    ag_stream_deadline(&k->stream, 1000000);
    ag_stream_deadline(&k->stream, 5);
    turn_until(&f->loop, k->deadlines == 1);
    sink_free(f, k);
}

BOTH(stream, writes_after_the_end_are_dropped)
{
    struct fixture *f = fixture_new(kind, 8, 2);
    struct sink *k = sink_new(f);
    struct ag_slice held = {.len = 5, .owner = ag_loop_buf(&f->loop, AG_BUF_SMALL)};

    held.ptr = held.owner->data;
    ag_stream_deadline(&k->stream, 5);
    ag_stream_finish(&k->stream);
    ag_stream_finish(&k->stream);
    cr_expect_eq(k->finishes, 1);
    cr_expect(!ag_timer_armed(&k->stream.deadline));
    cr_expect_eq(ag_stream_write(&k->stream, held), AG_OK);
    cr_expect_eq(ag_stream_put(&k->stream, AG_SPAN("late")), AG_OK);
    uint8_t *to = ag_stream_reserve(&k->stream, 4);
    cr_assert(to);
    ag_stream_commit(&k->stream, 4);
    cr_expect_eq(ag_stream_queued(&k->stream), 0);
    cr_expect_eq(ag_loop_bufs_used(&f->loop, AG_BUF_SMALL), 0);
    ag_stream_abort(&k->stream, AG_REASON_LIMIT); /* goes through, also after finish */
    cr_expect_eq(k->aborts, 1);
    cr_expect_eq(k->why, AG_REASON_LIMIT);
    sink_free(f, k);
}

/* An end of one connection ends calls on others, whose failures are answered into the first, in the middle of its
 * on_close. A piece was taken and not yet sent. */
BOTH(stream, writes_into_a_closed_one_are_dropped)
{
    struct fixture *f = fixture_new(kind, 8, 2);
    struct sink *k = sink_new(f), *other = sink_new(f);

    cr_assert_eq(ag_stream_put(&k->stream, AG_SPAN("queued")), AG_OK);
    k->stream.sending_bytes = 5;
    ag_stream_deinit(&k->stream);
    cr_expect_eq(ag_stream_put(&k->stream, AG_SPAN("late")), AG_OK);
    uint8_t *to = ag_stream_reserve(&k->stream, 4);
    cr_assert(to);
    ag_stream_commit(&k->stream, 4);
    cr_expect_eq(ag_loop_bufs_used(&f->loop, AG_BUF_SMALL), 0);
    while (ag_stream_write(&other->stream, ag_slice_static(AG_SPAN("x"))) == AG_OK) {
    }
    cr_assert(ag_stream_reserve(&k->stream, 4), "nodes are no matter");
    ag_stream_commit(&k->stream, 4);
    cr_expect_eq(ag_loop_bufs_used(&f->loop, AG_BUF_SMALL), 0);
    cr_expect_eq(k->flushes, 0);
    free(k);
    sink_free(f, other);
}

Test(stream, reasons)
{
    for (int r = 0; r <= AG_REASON_OTHER; r++) {
        cr_expect(*ag_reason_text((enum ag_reason)r));
    }
    cr_expect_eq(ag_reason_from_errno(-ECONNREFUSED), AG_REASON_REFUSED);
    cr_expect_eq(ag_reason_from_errno(-EPIPE), AG_REASON_RESET);
    cr_expect_eq(ag_reason_from_errno(-ENETUNREACH), AG_REASON_UNREACHABLE);
    cr_expect_eq(ag_reason_from_errno(-ETIMEDOUT), AG_REASON_TIMEOUT);
    cr_expect_eq(ag_reason_from_errno(-EMFILE), AG_REASON_RESOURCES);
    cr_expect_eq(ag_reason_from_errno(-EXDEV), AG_REASON_OTHER);
}
