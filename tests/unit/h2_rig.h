/*
 * h2_rig: h2_server on a stream in memory, with a clock of the test's, a client that speaks in frames, and
 * actions that the test leads by hand.
 *
 *   H2_TEST(suite, name) { ... r ... }   runs twice: input whole, and byte by byte
 *   ask(r, 1, "/fixed", END)             HEADERS of a GET; say(r, ...) any frame; then a turn
 *   told(r)                              what the server has sent since, a line for each frame:
 *
 *       HEADERS 1 :status=200,content-length=2
 *       DATA 1 "ok" END
 *       RST_STREAM 3 CANCEL
 *       GOAWAY 3 PROTOCOL_ERROR a frame for an idle stream
 *
 * What a request's path names is what happens to it, as in h1_rig.h:
 *   /fixed     answered at once           /echo    answered with its content, when it has all of it
 *   /wait      the test answers           /open    head at once, the test writes the content
 *   /filter    a filter waits for the test, then as /echo
 *   /tunnel    200 at once, content comes back
 * Requests are known by the order in which they came: works[0] is the first.
 */
#pragma once
#include "proto/h2_server.h"
#include "tests/memwire.h"

#include <criterion/criterion.h>
#include <stdio.h>

#define RIG_OUT_BYTES (4u * 1024u * 1024u)
#define RIG_WORKS     1024u

#define END        AG_H2_END_STREAM
#define OPEN       0u
#define WHOLE      AG_H2_END_HEADERS
#define FRAME_ROOM (AG_H2_HEADER_BYTES + 20000u)

struct work {
    struct rig *r;
    struct ag_exchange *ex; /* held; NULL: over */
    bool filter;            /* a filter waits */
    bool hold;              /* the action takes no content */
    struct ag_block *kept;  /* content that /echo has */
    size_t kept_len, total;
    enum ag_reason why; /* of an abort */
    bool aborted;
    const struct ag_fields *trailers;
};

struct rig {
    struct memloop m;
    struct memwire w;
    struct ag_h2_server h;
    struct ag_context ctx;
    struct ag_block snapshot_ref;
    struct ag_server_limits limits;
    struct work works[RIG_WORKS];
    unsigned starts, aborts, dones, closes;
    enum ag_reason close_why;
    bool bytewise; /* input comes byte by byte */
    bool hold;     /* actions that begin from now on take no content */
    bool linger;   /* actions hold on to what was aborted */
    struct ag_arena arena;
    struct ag_hpack_decoder decoder;
    struct ag_arena fields;
    uint8_t block[80000]; /* a section that goes on */
    size_t block_len;
    size_t seen; /* of out */
    uint8_t out[RIG_OUT_BYTES + 1];
    char text[RIG_OUT_BYTES / 8];
};

static inline struct rig *rig_of(struct ag_exchange *ex)
{
    return ag_container_of(ex->context, struct rig, ctx);
}

/* ---- actions ---- */

static inline void let_go(struct work *w)
{
    struct ag_exchange *ex = w->ex;

    if (ex) {
        w->ex = NULL;
        w->filter = false;
        ag_block_release(w->kept);
        w->kept = NULL;
        ex->action_data = NULL;
        ag_body_set_consumer(&ex->req_body, NULL, NULL);
        ag_body_set_producer(&ex->res_body, NULL, NULL);
        ag_exchange_release(ex);
    }
}

/* The head of the answer; false: the exchange did not outlive it. */
static inline bool begin_answer(struct work *w, unsigned status, enum ag_framing framing,
                                uint64_t len)
{
    w->ex->res.status = status;
    w->ex->res.framing = (uint8_t)framing;
    w->ex->res.content_length = len;
    ag_exchange_respond(w->ex);
    return w->ex != NULL;
}

static inline void write_answer(struct work *w, struct ag_slice s)
{
    if (ag_body_write(&w->ex->res_body, s) != AG_OK) {
        let_go(w);
    }
}

static inline void end_answer(struct work *w)
{
    if (w->ex) {
        ag_body_end(&w->ex->res_body, NULL);
        let_go(w);
    }
}

/* The whole answer of /wait. */
static inline void answer(struct rig *r, unsigned index, struct ag_span body)
{
    struct work *w = &r->works[index];

    cr_assert(w->ex, "request %u is over", index);
    if (begin_answer(w, 200, AG_FRAMING_LENGTH, body.len)) {
        write_answer(w, ag_slice_static(body));
        end_answer(w);
    }
}

static inline void on_content(struct ag_body *b, void *owner)
{
    struct work *w = owner;

    while (w->ex && !w->hold && b->q.bytes > 0) {
        struct ag_slice s = ag_body_take(b);

        w->total += s.len;
        if (!w->kept) {
            w->kept = ag_loop_buf(&w->r->m.loop, AG_BUF_SMALL);
        }
        if (w->kept && w->kept_len + s.len <= AG_BUF_SMALL_BYTES) {
            memcpy(w->kept->data + w->kept_len, s.ptr, s.len);
            w->kept_len += s.len;
        }
        ag_slice_release(&s);
    }
    if (w->ex && ag_body_at_end(b)) {
        w->trailers = b->trailers;
        if (begin_answer(w, 200, AG_FRAMING_LENGTH, w->kept_len)) {
            if (w->kept_len) {
                write_answer(w, (struct ag_slice){
                                    {.ptr = w->kept->data}, w->kept_len, ag_block_hold(w->kept)});
            }
            end_answer(w);
        }
    }
}

/* A tunnel's content goes back as it comes. */
static inline void on_tunnel(struct ag_body *b, void *owner)
{
    struct work *w = owner;

    while (w->ex && b->q.bytes > 0) {
        write_answer(w, ag_body_take(b));
    }
    if (w->ex && ag_body_at_end(b)) {
        end_answer(w);
    }
}

static inline void read_content(struct work *w)
{
    w->ex->server->want_body(w->ex);
    if (w->ex) {
        ag_body_set_consumer(&w->ex->req_body, on_content, w);
    }
}

static inline void rig_start(struct ag_exchange *ex)
{
    /* :status 200, content-length: 2 */
    static const struct ag_prepared fixed = {
        .status = 200,
        .h1 = AG_SPAN_INIT("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"),
        .h2 = AG_SPAN_INIT("\x88\x0f\x0d\x01"
                           "2"),
        .body = AG_SPAN_INIT("ok"),
        .response = {.status = 200, .framing = AG_FRAMING_LENGTH, .content_length = 2},
    };
    struct rig *r = rig_of(ex);
    struct work *w = &r->works[r->starts++];
    struct ag_span path = ex->req.path;

    cr_assert_lt(r->starts, RIG_WORKS);
    *w = (struct work){.r = r, .ex = ex, .hold = r->hold};
    ex->action_data = w;
    ag_exchange_pin(ex);
    ag_exchange_hold(ex);
    if (ag_span_eq(path, AG_SPAN("/fixed"))) {
        ag_exchange_respond_prepared(ex, &fixed);
        let_go(w);
    } else if (ag_span_eq(path, AG_SPAN("/echo"))) {
        read_content(w);
    } else if (ag_span_eq(path, AG_SPAN("/open"))) {
        (void)begin_answer(w, 200, AG_FRAMING_CHUNKED, AG_LENGTH_UNKNOWN);
    } else if (ag_span_eq(path, AG_SPAN("/tunnel"))) {
        if (begin_answer(w, 101, AG_FRAMING_NONE, 0)) {
            ag_body_set_consumer(&ex->req_body, on_tunnel, w);
        }
    } else if (ag_span_eq(path, AG_SPAN("/filter"))) {
        w->filter = ex->filter_waits = true;
    } else {
        cr_assert(ag_span_eq(path, AG_SPAN("/wait")));
    }
}

/* The filter's wait is over. */
static inline void resume(struct work *w)
{
    w->filter = w->ex->filter_waits = false;
    ag_body_kick(&w->ex->req_body);
    read_content(w);
}

static inline void rig_respond(struct ag_exchange *ex)
{
    ex->head_sent = true;
    ex->server->send_head(ex);
}

static inline void rig_abort(struct ag_exchange *ex, enum ag_reason why)
{
    struct work *w = ex->action_data;
    struct rig *r = rig_of(ex);

    ex->filter_waits = false;
    if (w) {
        r->aborts++;
        w->aborted = true;
        w->why = why;
        if (!r->linger) {
            let_go(w);
        }
    }
}

static inline void rig_done(struct ag_exchange *ex)
{
    rig_of(ex)->dones++;
}

static const struct ag_pipeline_ops rig_pipeline = {
    .start = rig_start, .respond = rig_respond, .abort = rig_abort, .done = rig_done};

/* ---- the connection ---- */

static inline struct rig *rig_of_stream(struct ag_stream *s)
{
    return ag_container_of(memwire_of(s), struct rig, w);
}

static inline void on_data(struct ag_stream *s, struct ag_slice slice)
{
    ag_h2_server_data(&rig_of_stream(s)->h, slice);
}

static inline void on_eof(struct ag_stream *s)
{
    ag_h2_server_eof(&rig_of_stream(s)->h);
}

static inline void on_drain(struct ag_stream *s)
{
    ag_h2_server_drained(&rig_of_stream(s)->h);
}

static inline void on_deadline(struct ag_stream *s)
{
    ag_h2_server_deadline(&rig_of_stream(s)->h);
}

static inline void on_close(struct ag_stream *s, enum ag_reason why)
{
    struct rig *r = rig_of_stream(s);

    r->closes++;
    r->close_why = why;
    ag_h2_server_closed(&r->h, why);
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

static inline void tick(struct rig *r, uint64_t ms)
{
    memloop_turn(&r->m, ms);
}

/* Time in which timers may be late (timer.h). */
#define LATE_MS (3u * AG_TIMER_TICK_MS)

/* ---- what the server says ---- */

static inline const char *type_name(uint8_t type)
{
    static const char *const names[] = {"DATA",          "HEADERS",     "PRIORITY", "RST_STREAM",
                                        "SETTINGS",      "PUSH",        "PING",     "GOAWAY",
                                        "WINDOW_UPDATE", "CONTINUATION"};

    return type < AG_COUNT(names) ? names[type] : "unknown";
}

static inline enum ag_status more_text(struct ag_hpack_section *s, size_t bytes)
{
    static uint8_t room[65536];

    (void)bytes;
    s->text = ag_buf(room, sizeof(room));
    return AG_OK;
}

static inline void tell_fields(struct rig *r, struct ag_buf *b, struct ag_span block)
{
    struct ag_hpack_section s = {.in = block, .more = more_text, .left_bytes = 1 << 20};
    struct ag_field f;
    enum ag_status st;
    const char *between = " ";

    while ((st = ag_hpack_next(&r->decoder, &s, &f)) == AG_OK) {
        if (ag_span_eq(ag_field_key(&f), AG_SPAN("date"))) {
            cr_expect(ag_span_eq(ag_field_value(&f), AG_SPAN("Sun, 06 Nov 1994 08:49:37 GMT")));
            continue;
        }
        if (f.value_len > 60) {
            ag_buf_printf(b, "%s%.*s=[%u]", between, f.name_len, (const char *)f.name, f.value_len);
        } else {
            ag_buf_printf(b, "%s%.*s=%.*s", between, f.name_len, (const char *)f.name,
                          (int)f.value_len, (const char *)f.value);
        }
        between = ",";
    }
    cr_assert_eq(st, AG_AGAIN);
}

static inline void tell_payload(struct rig *r, struct ag_buf *b, const struct ag_h2_frame *f,
                                const uint8_t *p)
{
    switch (f->type) {
    case AG_H2_HEADERS:
    case AG_H2_CONTINUATION:
        cr_assert(f->len <= sizeof(r->block) - r->block_len);
        memcpy(r->block + r->block_len, p, f->len);
        r->block_len += f->len;
        if (f->flags & AG_H2_END_HEADERS) {
            tell_fields(r, b, ag_span(r->block, r->block_len));
            r->block_len = 0;
        }
        break;
    case AG_H2_DATA:
        if (f->len > 40) {
            ag_buf_printf(b, " [%u]", f->len);
        } else {
            ag_buf_printf(b, " \"%.*s\"", (int)f->len, (const char *)p);
        }
        break;
    case AG_H2_RST_STREAM:
        ag_buf_printf(b, " %s", ag_h2_error_name(ag_h2_u32(p)));
        break;
    case AG_H2_WINDOW_UPDATE:
        ag_buf_printf(b, " %u", ag_h2_u32(p));
        break;
    case AG_H2_GOAWAY:
        ag_buf_printf(b, " %u %s", ag_h2_u32(p), ag_h2_error_name(ag_h2_u32(p + 4)));
        if (f->len > 8) {
            ag_buf_printf(b, " %.*s", (int)f->len - 8, (const char *)p + 8);
        }
        break;
    case AG_H2_PING:
        ag_buf_printf(b, " %.7s%u", (const char *)p, p[7]);
        break;
    case AG_H2_SETTINGS:
        for (uint32_t at = 0; at < f->len; at += AG_H2_SETTING_BYTES) {
            struct ag_h2_pair pair = ag_h2_read_setting(p + at);
            ag_buf_printf(b, " %u=%u", pair.id, pair.value);
        }
        break;
    default:
        break;
    }
}

/* What came since the last call. */
static inline const char *told(struct rig *r)
{
    struct ag_buf b = ag_buf(r->text, sizeof(r->text));

    while (r->w.out.len - r->seen >= AG_H2_HEADER_BYTES) {
        struct ag_h2_frame f = ag_h2_read_header(r->out + r->seen);
        bool ack = (f.type == AG_H2_SETTINGS || f.type == AG_H2_PING) && f.flags & AG_H2_ACK;
        bool end = (f.type == AG_H2_HEADERS || f.type == AG_H2_DATA) && f.flags & AG_H2_END_STREAM;

        if (r->w.out.len - r->seen - AG_H2_HEADER_BYTES < f.len) {
            break;
        }
        ag_buf_printf(&b, "%s", type_name(f.type));
        if (f.id || f.type == AG_H2_WINDOW_UPDATE) {
            ag_buf_printf(&b, " %u", f.id);
        }
        tell_payload(r, &b, &f, r->out + r->seen + AG_H2_HEADER_BYTES);
        ag_buf_printf(&b, "%s%s\n", ack ? " ACK" : "", end ? " END" : "");
        r->seen += AG_H2_HEADER_BYTES + f.len;
    }
    cr_assert(!b.overflow);
    r->text[b.len] = '\0';
    return r->text;
}

#define expect_told(r, text) cr_expect_str_eq(told(r), text)
/* Its first words, up to those that only explain. */
#define expect_begins(r, text)                                                           \
    do {                                                                                 \
        const char *is_ = told(r);                                                       \
        cr_expect(!strncmp(is_, text, strlen(text)), "\"%s\" is not \"%s\"", is_, text); \
    } while (0)

/* How often `text` stands in `in`. */
static inline unsigned times(const char *in, const char *text)
{
    unsigned n = 0;

    for (const char *at = in; (at = strstr(at, text)); at += strlen(text)) {
        n++;
    }
    return n;
}

/* The server has let the connection go, and all it was to send has been sent. */
static inline bool ended(const struct rig *r)
{
    return r->w.closed && !r->w.aborted;
}

/* ---- what the client says ---- */

/* Without a turn behind it. */
static inline void feed(struct rig *r, struct ag_span bytes)
{
    while (bytes.len > 0 && memwire_open(&r->w)) {
        size_t n = memwire_feed(&r->w, ag_span_sub(bytes, 0, r->bytewise ? 1 : bytes.len));

        cr_assert(n > 0, "out of buffers");
        bytes = ag_span_sub(bytes, n, bytes.len);
        if (r->bytewise) {
            tick(r, 0);
        }
    }
}

static inline void say_part(struct rig *r, enum ag_h2_type type, unsigned flags, uint32_t id,
                            struct ag_span payload)
{
    static uint8_t room[FRAME_ROOM];

    cr_assert_leq(payload.len, FRAME_ROOM - AG_H2_HEADER_BYTES);
    (void)ag_h2_put_header(room, payload.len, type, flags, id);
    if (payload.len) {
        memcpy(room + AG_H2_HEADER_BYTES, payload.ptr, payload.len);
    }
    feed(r, ag_span(room, AG_H2_HEADER_BYTES + payload.len));
}

static inline void say(struct rig *r, enum ag_h2_type type, unsigned flags, uint32_t id,
                       struct ag_span payload)
{
    say_part(r, type, flags, id, payload);
    tick(r, 0);
}

static inline void say_u32(struct rig *r, enum ag_h2_type type, uint32_t id, uint32_t value)
{
    uint8_t p[4];

    (void)ag_h2_put_u32(p, value);
    say(r, type, 0, id, ag_span(p, sizeof(p)));
}

static inline void say_setting(struct rig *r, enum ag_h2_setting id, uint32_t value)
{
    uint8_t p[AG_H2_SETTING_BYTES];

    (void)ag_h2_put_setting(p, id, value);
    say(r, AG_H2_SETTINGS, 0, 0, ag_span(p, sizeof(p)));
}

/* A section of literals that no table keeps: "name: value\n" for each field. */
static inline struct ag_span section(const char *text)
{
    static uint8_t room[20000];
    struct ag_buf b = ag_buf(room, sizeof(room));

    while (*text) {
        const char *colon = strstr(text, ": "), *end = strchr(text, '\n');
        size_t name = (size_t)(colon - text), value = (size_t)(end - colon - 2);

        cr_assert(name < 127 && value < 127);
        ag_buf_putc(&b, 0);
        ag_buf_putc(&b, (uint8_t)name);
        ag_buf_put(&b, ag_span(text, name));
        ag_buf_putc(&b, (uint8_t)value);
        ag_buf_put(&b, ag_span(colon + 2, value));
        text = end + 1;
    }
    cr_assert(!b.overflow);
    return ag_buf_span(&b);
}

static inline const char *head_of(const char *method, const char *path, const char *more)
{
    static char text[4096];

    (void)snprintf(text, sizeof(text),
                   ":method: %s\n:scheme: http\n:path: %s\n:authority: example.com\n%s", method,
                   path, more);
    return text;
}

/* A request with more fields; `flags`: END or OPEN. */
static inline void request(struct rig *r, uint32_t id, const char *method, const char *path,
                           const char *more, unsigned flags)
{
    say(r, AG_H2_HEADERS, flags | WHOLE, id, section(head_of(method, path, more)));
}

static inline void ask(struct rig *r, uint32_t id, const char *path, unsigned flags)
{
    request(r, id, flags & END ? "GET" : "POST", path, "", flags);
}

static inline void data(struct rig *r, uint32_t id, const char *text, unsigned flags)
{
    say(r, AG_H2_DATA, flags, id, ag_span_str(text));
}

/* `n` bytes that mean nothing. */
static inline void data_bytes(struct rig *r, uint32_t id, size_t n, unsigned flags)
{
    static uint8_t room[AG_H2_FRAME_DEFAULT];

    say(r, AG_H2_DATA, flags, id, ag_span(room, n));
}

/* The connection still takes requests. */
static inline void expect_alive(struct rig *r)
{
    ask(r, 99, "/fixed", END);
    cr_expect(strstr(told(r), "DATA 99 \"ok\" END\n"), "%s", r->text);
}

/* ---- begin and end ---- */

/* Limits as small as tests like them; change them before the first byte. */
static inline struct rig *rig_new_raw(bool bytewise)
{
    const struct ag_loop_config config = {
        .buf_count = {1024, 64}, .node_count = 2048, .page_count = 2048};
    struct rig *r = calloc(1, sizeof(*r));

    cr_assert(r);
    r->bytewise = bytewise;
    memloop_init(&r->m, config);
    r->snapshot_ref = (struct ag_block){.refs = 1, .free = keep_snapshot, .fd = -1};
    r->ctx = (struct ag_context){.loop = &r->m.loop,
                                 .pipeline = &rig_pipeline,
                                 .snapshot_ref = &r->snapshot_ref,
                                 .shard_count = 1};
    r->limits = (struct ag_server_limits){.head = {1024, 4096, 50},
                                          .header_timeout_ms = 10000,
                                          .idle_timeout_ms = 75000,
                                          .discard_max_bytes = 1000,
                                          .route = AG_ROUTE_LIMITS_DEFAULT};
    memwire_init(&r->w, &r->m, &rig_user, ag_buf(r->out, RIG_OUT_BYTES));
    ag_arena_init(&r->arena, NULL, 0);
    ag_hpack_decoder_init(&r->decoder, &r->arena);
    ag_h2_server_init(&r->h, &r->w.stream, &r->ctx, &r->limits, 80);
    return r;
}

/* Both prefaces are over. */
static inline void rig_greet(struct rig *r)
{
    feed(r, AG_H2_MAGIC);
    say(r, AG_H2_SETTINGS, 0, 0, AG_SPAN(""));
    say(r, AG_H2_SETTINGS, AG_H2_ACK, 0, AG_SPAN(""));
    expect_told(r, "SETTINGS 3=128 6=4096 8=1 9=1\nWINDOW_UPDATE 0 983041\nSETTINGS ACK\n");
}

/* Everything must be back; what is still open is aborted. */
static inline void rig_free(struct rig *r)
{
    if (!r->w.closed) {
        memwire_abort(&r->w.stream, AG_REASON_RESET);
        tick(r, 0);
    }
    r->linger = false;
    for (unsigned i = 0; i < r->starts; i++) {
        let_go(&r->works[i]);
    }
    tick(r, 0);
    cr_expect_eq(r->closes, 1);
    cr_expect_eq(r->h.conn.state, AG_H2_CLOSING);
    cr_expect_eq(r->h.conn.streams, 0);
    cr_expect_eq(r->h.conn.held, 0);
    cr_expect_eq(r->ctx.exchanges_live, 0);
    cr_expect_eq(r->snapshot_ref.refs, 1);
    cr_expect_eq(r->m.loop.nodes.used, 0);
    cr_expect_eq(r->m.loop.pages.used, 0);
    cr_expect_eq(ag_loop_bufs_used(&r->m.loop, AG_BUF_SMALL), 0);
    cr_expect_eq(ag_loop_bufs_used(&r->m.loop, AG_BUF_LARGE), 0);
    cr_expect_eq(r->m.loop.wheel.armed, 0);
    ag_arena_release(&r->arena);
    memloop_deinit(&r->m);
    free(r);
}

#define H2_TEST(suite, name)                       \
    static void suite##_##name(struct rig *r);     \
    Test(suite, name)                              \
    {                                              \
        for (int i_ = 0; i_ < 2; i_++) {           \
            struct rig *r_ = rig_new_raw(i_ == 1); \
            rig_greet(r_);                         \
            suite##_##name(r_);                    \
            rig_free(r_);                          \
        }                                          \
    }                                              \
    static void suite##_##name(struct rig *r)
