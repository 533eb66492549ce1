/*
 * h1_rig: h1_server on a stream in memory, with a clock of the test's and one action that the test leads
 * by hand.
 *
 *   say(r, "GET /fixed ...")     bytes of the client, as one slice; then a turn
 *   tick(r, ms)                  time passes
 *   got(r)                       all that the client got so far
 *
 * What a request's path names is what happens to it:
 *   /fixed     answered at once           /echo    answered with its content, when it has all of it
 *   /wait      the test answers           /open    head at once, the test writes the content
 *   /tunnel    101                        /filter  a filter waits for the test, then as /echo
 */
#pragma once
#include "proto/h1_server.h"
#include "tests/memwire.h"

#include <criterion/criterion.h>

#define RIG_OUT_BYTES (1024u * 1024u)

struct rig {
    struct memloop m;
    struct memwire w;
    struct ag_h1_server h;
    struct ag_context ctx;
    struct ag_block snapshot_ref;
    struct ag_server_limits limits;
    struct ag_exchange *ex; /* the action's: it holds it; NULL: none */
    bool filter;            /* a filter waits */
    bool hold;              /* the action takes no content */
    struct ag_block *kept;  /* content that /echo has */
    size_t kept_len;
    unsigned starts, aborts, dones, closes;
    enum ag_reason abort_why, close_why;
    uint8_t out[RIG_OUT_BYTES + 1];
};

static struct rig *rig_of(struct ag_exchange *ex)
{
    return ag_container_of(ex->context, struct rig, ctx);
}

/* ---- the action ---- */

static inline void let_go(struct rig *r)
{
    struct ag_exchange *ex = r->ex;

    if (ex) {
        r->ex = NULL;
        r->filter = false;
        ag_block_release(r->kept);
        r->kept = NULL;
        ag_body_set_consumer(&ex->req_body, NULL, NULL);
        ag_body_set_producer(&ex->res_body, NULL, NULL);
        ag_exchange_release(ex);
    }
}

/* The head of the answer; false: the exchange did not outlive it. */
static inline bool begin_answer(struct rig *r, unsigned status, enum ag_framing framing, size_t len)
{
    r->ex->res.status = status;
    r->ex->res.framing = (uint8_t)framing;
    r->ex->res.content_length = len;
    ag_exchange_respond(r->ex);
    return r->ex != NULL;
}

static inline void write_answer(struct rig *r, struct ag_slice s)
{
    if (ag_body_write(&r->ex->res_body, s) != AG_OK) {
        let_go(r);
    }
}

static inline void end_answer(struct rig *r)
{
    if (r->ex) {
        ag_body_end(&r->ex->res_body, NULL);
        let_go(r);
    }
}

/* The whole answer of /wait. */
static inline void answer(struct rig *r, struct ag_span body)
{
    if (begin_answer(r, 200, AG_FRAMING_LENGTH, body.len)) {
        write_answer(r, ag_slice_static(body));
        end_answer(r);
    }
}

static inline void on_content(struct ag_body *b, void *owner)
{
    struct rig *r = owner;

    while (r->ex && !r->hold && b->q.bytes > 0) {
        struct ag_slice s = ag_body_take(b);

        if (!r->kept) {
            r->kept = ag_loop_buf(&r->m.loop, AG_BUF_SMALL);
        }
        if (!r->kept || r->kept_len + s.len > AG_BUF_SMALL_BYTES) {
            ag_exchange_fail(r->ex, 503, AG_REASON_RESOURCES, "no buffer");
            let_go(r);
        } else {
            memcpy(r->kept->data + r->kept_len, s.ptr, s.len);
            r->kept_len += s.len;
        }
        ag_slice_release(&s);
    }
    if (r->ex && ag_body_at_end(b) && begin_answer(r, 200, AG_FRAMING_LENGTH, r->kept_len)) {
        if (r->kept_len) {
            write_answer(
                r, (struct ag_slice){{.ptr = r->kept->data}, r->kept_len, ag_block_hold(r->kept)});
        }
        end_answer(r);
    }
}

static inline void read_content(struct rig *r)
{
    r->ex->server->want_body(r->ex);
    if (r->ex) {
        ag_body_set_consumer(&r->ex->req_body, on_content, r);
    }
}

static inline void start(struct ag_exchange *ex)
{
    static const struct ag_prepared fixed = {
        .status = 200,
        .h1 = AG_SPAN_INIT("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"),
        .body = AG_SPAN_INIT("ok"),
    };
    struct rig *r = rig_of(ex);
    struct ag_span path = ex->req.path;

    cr_assert(!r->ex, "one exchange at a time");
    r->starts++;
    r->kept_len = 0;
    ag_exchange_pin(ex);
    ag_exchange_hold(ex);
    r->ex = ex;
    if (ag_span_eq(path, AG_SPAN("/fixed"))) {
        ag_exchange_respond_prepared(ex, &fixed);
        let_go(r);
    } else if (ag_span_eq(path, AG_SPAN("/echo"))) {
        read_content(r);
    } else if (ag_span_eq(path, AG_SPAN("/open"))) {
        (void)begin_answer(r, 200, AG_FRAMING_CHUNKED, AG_LENGTH_UNKNOWN);
    } else if (ag_span_eq(path, AG_SPAN("/tunnel"))) {
        cr_assert(ag_exchange_field(ex, AG_FIELD_UPGRADE, AG_SPAN("test")) == AG_OK);
        (void)begin_answer(r, 101, AG_FRAMING_NONE, 0);
    } else if (ag_span_eq(path, AG_SPAN("/filter"))) {
        r->filter = ex->filter_waits = true;
    } else {
        cr_assert(ag_span_eq(path, AG_SPAN("/wait")));
    }
}

/* The filter's wait is over. */
static inline void resume(struct rig *r)
{
    r->filter = r->ex->filter_waits = false;
    ag_body_kick(&r->ex->req_body);
    read_content(r);
}

static inline void respond(struct ag_exchange *ex)
{
    ex->head_sent = true;
    ex->server->send_head(ex);
}

static inline void on_abort(struct ag_exchange *ex, enum ag_reason why)
{
    struct rig *r = rig_of(ex);

    ex->filter_waits = false;
    if (r->ex == ex) {
        r->aborts++;
        r->abort_why = why;
        let_go(r);
    }
}

static inline void on_done(struct ag_exchange *ex)
{
    rig_of(ex)->dones++;
}

static const struct ag_pipeline_ops pipeline = {
    .start = start, .respond = respond, .abort = on_abort, .done = on_done};

/* ---- the connection ---- */

static inline struct rig *rig_of_stream(struct ag_stream *s)
{
    return ag_container_of(memwire_of(s), struct rig, w);
}

static inline void on_data(struct ag_stream *s, struct ag_slice slice)
{
    ag_h1_server_data(&rig_of_stream(s)->h, slice);
}

static inline void on_eof(struct ag_stream *s)
{
    ag_h1_server_eof(&rig_of_stream(s)->h);
}

static inline void on_drain(struct ag_stream *s)
{
    ag_h1_server_drained(&rig_of_stream(s)->h);
}

static inline void on_deadline(struct ag_stream *s)
{
    ag_h1_server_deadline(&rig_of_stream(s)->h);
}

static inline void on_close(struct ag_stream *s, enum ag_reason why)
{
    struct rig *r = rig_of_stream(s);

    r->closes++;
    r->close_why = why;
    ag_h1_server_closed(&r->h, why);
}

static const struct ag_stream_user rig_user = {.on_data = on_data,
                                               .on_eof = on_eof,
                                               .on_drain = on_drain,
                                               .on_deadline = on_deadline,
                                               .on_close = on_close};

static inline void keep_snapshot(struct ag_block *b)
{
    (void)b;
    cr_assert(false, "the rig holds the snapshot");
}

/* Limits as small as tests like them; change them before the first byte. */
static inline struct rig *rig_new(void)
{
    const struct ag_loop_config config = {
        .buf_count = {256, 16}, .node_count = 512, .page_count = 64};
    struct rig *r = calloc(1, sizeof(*r));

    cr_assert(r);
    memloop_init(&r->m, config);
    r->snapshot_ref = (struct ag_block){.refs = 1, .free = keep_snapshot, .fd = -1};
    r->ctx = (struct ag_context){.loop = &r->m.loop,
                                 .pipeline = &pipeline,
                                 .snapshot_ref = &r->snapshot_ref,
                                 .shard_count = 1};
    r->limits = (struct ag_server_limits){.head = {1024, 4096, 50},
                                          .header_timeout_ms = 10000,
                                          .idle_timeout_ms = 75000,
                                          .discard_max_bytes = 1000,
                                          .route = AG_ROUTE_LIMITS_DEFAULT};
    memwire_init(&r->w, &r->m, &rig_user, ag_buf(r->out, RIG_OUT_BYTES));
    ag_h1_server_init(&r->h, &r->w.stream, &r->ctx, &r->limits, 80);
    return r;
}

static inline void tick(struct rig *r, uint64_t ms)
{
    memloop_turn(&r->m, ms);
}

/* Time in which timers may be late (timer.h). */
#define LATE_MS (3u * AG_TIMER_TICK_MS)

static inline void say_bytes(struct rig *r, struct ag_span bytes)
{
    cr_assert(memwire_open(&r->w) && !r->w.paused, "the server does not read");
    cr_assert_eq(memwire_feed(&r->w, bytes), bytes.len);
}

static inline void say(struct rig *r, const char *text)
{
    say_bytes(r, ag_span_str(text));
    tick(r, 0);
}

static inline const char *got(struct rig *r)
{
    r->out[r->w.out.len] = '\0';
    return (const char *)r->out;
}

/* How often `text` stands in what the client got. */
static inline unsigned got_times(struct rig *r, const char *text)
{
    unsigned n = 0;

    for (const char *at = got(r); (at = strstr(at, text)); at += strlen(text)) {
        n++;
    }
    return n;
}

/* The server has let the connection go, and all it was to send has been sent. */
static inline bool ended(const struct rig *r)
{
    return r->w.closed && !r->w.aborted;
}

/* Everything must be back; what is still open is aborted. */
static inline void rig_free(struct rig *r)
{
    if (!r->w.closed) {
        memwire_abort(&r->w.stream, AG_REASON_RESET);
        tick(r, 0);
    }
    let_go(r);
    tick(r, 0);
    cr_expect_eq(r->closes, 1);
    cr_expect_eq(r->h.state, AG_H1_CLOSING);
    cr_expect_eq(r->ctx.exchanges_live, 0);
    cr_expect_eq(r->snapshot_ref.refs, 1);
    cr_expect_eq(r->m.loop.nodes.used, 0);
    cr_expect_eq(r->m.loop.pages.used, 0);
    cr_expect_eq(ag_loop_bufs_used(&r->m.loop, AG_BUF_SMALL), 0);
    cr_expect_eq(ag_loop_bufs_used(&r->m.loop, AG_BUF_LARGE), 0);
    cr_expect_eq(r->m.loop.wheel.armed, 0);
    memloop_deinit(&r->m);
    free(r);
}
