/*
 * h2_client_rig.h: h2_client on a stream in memory, with a clock of the test's and an upstream that the test
 * leads frame by frame.
 *
 *   one = call(r, ...)         starts a call
 *   put_*(r, ...) feed(r)      frames of the upstream, in pieces of r->step bytes; then a turn
 *   find(r, type, id)          the next frame that the upstream got of that type and stream
 */
#pragma once
#include "proto/h2_client.h"
#include "tests/memwire.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#define RIG_OUT_BYTES  (4u * 1024u * 1024u)
#define RIG_IN_BYTES   (1024u * 1024u)
#define RIG_CALLS      160u
#define RIG_BODY_BYTES (256u * 1024u)

struct one {
    struct rig *r;
    struct ag_call call;
    struct ag_body req_body, res_body;
    struct ag_arena keep;
    unsigned heads, interims, dones, faileds, status;
    enum ag_reason why;
    const char *detail;
    char x[64];       /* value of the answer's x field */
    char trailer[64]; /* and of its trailers' */
    bool hold;        /* takes nothing */
    bool accept;      /* a tunnel */
    bool drop;        /* cancels in `head` */
    char body[1024];
    size_t body_len; /* what fits */
    uint64_t taken;
    bool ended, aborted;
    enum ag_reason aborted_why;
};

struct rig {
    struct memloop m;
    struct memwire w;
    struct ag_h2_client c;
    unsigned settled, closing, closes;
    enum ag_reason close_why;
    struct one *calls[RIG_CALLS];
    unsigned count;
    struct ag_buf in; /* frames to be fed */
    size_t step;      /* 0: all at once */
    size_t at;        /* of what the upstream got, looked at */
    uint32_t next_id; /* of the next call */
    struct ag_arena tables;
    struct ag_hpack_decoder decoder; /* the upstream's */
    uint8_t in_room[RIG_IN_BYTES];
    uint8_t out[RIG_OUT_BYTES + 1];
};

static inline struct rig *rig_of(struct ag_stream *s)
{
    return ag_container_of(memwire_of(s), struct rig, w);
}

/* ---- the stream's owner ---- */

static inline void rig_data(struct ag_stream *s, struct ag_slice slice)
{
    ag_h2_client_data(&rig_of(s)->c, slice);
}

static inline void rig_eof(struct ag_stream *s)
{
    ag_h2_client_eof(&rig_of(s)->c);
}

static inline void rig_drain(struct ag_stream *s)
{
    ag_h2_client_drained(&rig_of(s)->c);
}

static inline void rig_deadline(struct ag_stream *s)
{
    ag_h2_client_deadline(&rig_of(s)->c);
}

static inline void rig_close(struct ag_stream *s, enum ag_reason why)
{
    struct rig *r = rig_of(s);

    r->closes++;
    r->close_why = why;
    ag_h2_client_closed(&r->c, why);
}

static const struct ag_stream_user rig_user = {.on_data = rig_data,
                                               .on_eof = rig_eof,
                                               .on_drain = rig_drain,
                                               .on_deadline = rig_deadline,
                                               .on_close = rig_close};

static inline void rig_settled(struct ag_h2_client *c)
{
    ag_container_of(c, struct rig, c)->settled++;
}

static inline void rig_closing(struct ag_h2_client *c)
{
    ag_container_of(c, struct rig, c)->closing++;
}

static const struct ag_h2_client_ops rig_ops = {rig_settled, rig_closing};

static inline void tick(struct rig *r, uint64_t ms)
{
    memloop_turn(&r->m, ms);
}

/* ---- frames of the upstream ---- */

static inline void put_frame(struct rig *r, enum ag_h2_type type, unsigned flags, uint32_t id,
                             struct ag_span payload)
{
    uint8_t header[AG_H2_HEADER_BYTES];

    (void)ag_h2_put_header(header, payload.len, type, flags, id);
    ag_buf_put(&r->in, ag_span(header, sizeof(header)));
    ag_buf_put(&r->in, payload);
    cr_assert_not(r->in.overflow);
}

static inline void put_settings(struct rig *r, const struct ag_h2_pair *v, size_t count)
{
    uint8_t payload[8 * AG_H2_SETTING_BYTES], *at = payload;

    for (size_t i = 0; i < count; i++) {
        at = ag_h2_put_setting(at, v[i].id, v[i].value);
    }
    put_frame(r, AG_H2_SETTINGS, 0, 0, ag_span(payload, (size_t)(at - payload)));
}

static inline void put_setting(struct rig *r, enum ag_h2_setting id, uint32_t value)
{
    put_settings(r, &(struct ag_h2_pair){(uint16_t)id, value}, 1);
}

/* "name: value\n" lines as literals. */
static inline size_t write_fields(uint8_t *out, size_t cap, const char *text)
{
    size_t n = 0;

    while (*text) {
        const char *end = strchr(text, '\n'), *colon = strchr(text + 1, ':');
        size_t name = (size_t)(colon - text), value = (size_t)(end - colon - 2);

        cr_assert(name < 127 && value < 127 && n + name + value + 3 < cap);
        out[n++] = 0;
        out[n++] = (uint8_t)name;
        memcpy(out + n, text, name);
        n += name;
        out[n++] = (uint8_t)value;
        memcpy(out + n, colon + 2, value);
        n += value;
        text = end + 1;
    }
    return n;
}

static inline void put_headers(struct rig *r, uint32_t id, const char *text, bool end)
{
    uint8_t block[8192];

    put_frame(r, AG_H2_HEADERS, AG_H2_END_HEADERS | (end ? AG_H2_END_STREAM : 0), id,
              ag_span(block, write_fields(block, sizeof(block), text)));
}

static inline void put_data(struct rig *r, uint32_t id, const char *text, bool end)
{
    put_frame(r, AG_H2_DATA, end ? AG_H2_END_STREAM : 0, id, ag_span_str(text));
}

static inline void put_u32(struct rig *r, enum ag_h2_type type, uint32_t id, uint32_t value)
{
    uint8_t payload[4];

    (void)ag_h2_put_u32(payload, value);
    put_frame(r, type, 0, id, ag_span(payload, 4));
}

static inline void put_reset(struct rig *r, uint32_t id, enum ag_h2_error code)
{
    put_u32(r, AG_H2_RST_STREAM, id, code);
}

static inline void put_goaway(struct rig *r, uint32_t last, enum ag_h2_error code)
{
    uint8_t payload[8];

    (void)ag_h2_put_u32(ag_h2_put_u32(payload, last), code);
    put_frame(r, AG_H2_GOAWAY, 0, 0, ag_span(payload, 8));
}

static inline void feed(struct rig *r)
{
    struct ag_span left = ag_buf_span(&r->in);

    while (left.len > 0 && memwire_open(&r->w)) {
        size_t n = r->step ? ag_min_size(r->step, left.len) : left.len;

        n = memwire_feed(&r->w, ag_span_sub(left, 0, n));
        cr_assert_gt(n, 0);
        left = ag_span_sub(left, n, left.len);
        if (r->step) {
            tick(r, 0);
        }
    }
    r->in.len = 0;
    tick(r, 0);
    tick(r, 0);
}

/* ---- what the upstream got ---- */

/* The frame at r->at, if it is whole. */
static inline bool peek(struct rig *r, struct ag_h2_frame *out, struct ag_span *out_payload)
{
    size_t left = r->w.out.len - r->at;

    if (left < AG_H2_HEADER_BYTES) {
        return false;
    }
    *out = ag_h2_read_header(r->out + r->at);
    if (out->len > left - AG_H2_HEADER_BYTES) {
        return false;
    }
    *out_payload = ag_span(r->out + r->at + AG_H2_HEADER_BYTES, out->len);
    return true;
}

/* The next frame of that type and stream, others being passed over; false: there is none. */
static inline bool seek(struct rig *r, enum ag_h2_type type, uint32_t id, struct ag_h2_frame *f,
                        struct ag_span *payload)
{
    size_t from = r->at;

    while (peek(r, f, payload)) {
        r->at += AG_H2_HEADER_BYTES + f->len;
        if (f->type == type && f->id == id) {
            return true;
        }
    }
    r->at = from;
    return false;
}

static inline bool got(struct rig *r, enum ag_h2_type type, uint32_t id)
{
    struct ag_h2_frame f = {0};
    struct ag_span payload = AG_SPAN("");

    return seek(r, type, id, &f, &payload);
}

static inline void expect_reset(struct rig *r, uint32_t id, enum ag_h2_error code)
{
    struct ag_h2_frame f = {0};
    struct ag_span payload = AG_SPAN("");

    cr_assert(seek(r, AG_H2_RST_STREAM, id, &f, &payload), "no RST_STREAM of %u", id);
    cr_expect_eq(ag_h2_u32(payload.ptr), code, "%u", ag_h2_u32(payload.ptr));
}

static inline void expect_goaway(struct rig *r, enum ag_h2_error code)
{
    struct ag_h2_frame f = {0};
    struct ag_span payload = AG_SPAN("");

    cr_assert(seek(r, AG_H2_GOAWAY, 0, &f, &payload), "no GOAWAY");
    cr_expect_eq(ag_h2_u32(payload.ptr + 4), code, "%u", ag_h2_u32(payload.ptr + 4));
}

/* ---- calls ---- */

static inline struct one *one_of(struct ag_call *call)
{
    return ag_container_of(call, struct one, call);
}

static inline void one_interim(struct ag_call *call, const struct ag_response *res)
{
    one_of(call)->interims++;
    one_of(call)->status = res->status;
}

static inline void one_head(struct ag_call *call, const struct ag_response *res)
{
    struct one *o = one_of(call);
    struct ag_field *x = ag_fields_find_name(&res->fields, AG_SPAN("x"), NULL);

    o->heads++;
    o->status = res->status;
    if (x) {
        (void)snprintf(o->x, sizeof(o->x), "%.*s", (int)x->value_len, (const char *)x->value);
    }
    if (o->drop) {
        call->ops->cancel(call);
    } else if (o->accept) {
        call->ops->accept_tunnel(call);
    }
}

static inline void one_done(struct ag_call *call)
{
    cr_assert_null(call->ops);
    one_of(call)->dones++;
}

static inline void one_failed(struct ag_call *call, enum ag_reason why, const char *detail)
{
    cr_assert_null(call->ops);
    one_of(call)->faileds++;
    one_of(call)->why = why;
    one_of(call)->detail = detail;
}

static const struct ag_call_events one_events = {
    .interim = one_interim, .head = one_head, .done = one_done, .failed = one_failed};

static inline void one_take(struct ag_body *b, void *owner)
{
    struct one *o = owner;

    while (!o->hold && b->q.bytes > 0) {
        struct ag_slice s = ag_body_take(b);
        size_t n = ag_min_size(s.len, sizeof(o->body) - 1 - o->body_len);

        memcpy(o->body + o->body_len, s.ptr, n);
        o->body_len += n;
        o->taken += s.len;
        ag_slice_release(&s);
    }
    if (ag_body_at_end(b) && !o->ended) {
        struct ag_field *t =
            b->trailers ? ag_fields_find_name(b->trailers, AG_SPAN("t"), NULL) : NULL;

        o->ended = true;
        if (t) {
            (void)snprintf(o->trailer, sizeof(o->trailer), "%.*s", (int)t->value_len,
                           (const char *)t->value);
        }
    }
    if (b->aborted && b->q.bytes == 0) {
        o->aborted = true;
        o->aborted_why = (enum ag_reason)b->reason;
    }
}

static inline struct one *one_new(struct rig *r)
{
    struct one *o = calloc(1, sizeof(*o));

    cr_assert(o && r->count < RIG_CALLS);
    o->r = r;
    ag_arena_init(&o->keep, &r->m.loop.pages, 16);
    ag_body_init(&o->req_body, &r->m.loop);
    ag_body_init(&o->res_body, &r->m.loop);
    ag_body_set_consumer(&o->res_body, one_take, o);
    r->calls[r->count++] = o;
    return o;
}

static inline enum ag_status start(struct one *o, enum ag_method method, enum ag_framing framing,
                                   uint64_t length, const char *protocol)
{
    const struct ag_request req = {.method_name = ag_method_name(method),
                                   .method = (uint8_t)method,
                                   .framing = (uint8_t)framing,
                                   .content_length = length,
                                   .protocol = ag_span_str(protocol),
                                   .version = AG_HTTP_2};
    const struct ag_h1_request_opts opts = {.target = AG_SPAN("/t?q"), .host = AG_SPAN("example")};

    o->call.events = &one_events;
    o->call.req = &req;
    o->call.opts = &opts;
    o->call.scheme = AG_SPAN("http");
    o->call.req_body = framing == AG_FRAMING_NONE && !protocol[0] ? NULL : &o->req_body;
    o->call.res_body = &o->res_body;
    o->call.keep = &o->keep;
    return ag_h2_client_start(&o->r->c, &o->call);
}

static inline struct one *get(struct rig *r)
{
    struct one *o = one_new(r);

    cr_assert_eq(start(o, AG_METHOD_GET, AG_FRAMING_NONE, AG_LENGTH_UNKNOWN, ""), AG_OK);
    tick(r, 0);
    return o;
}

static inline struct one *post(struct rig *r, uint64_t length)
{
    struct one *o = one_new(r);

    cr_assert_eq(start(o, AG_METHOD_POST,
                       length == AG_LENGTH_UNKNOWN ? AG_FRAMING_CHUNKED : AG_FRAMING_LENGTH, length,
                       ""),
                 AG_OK);
    tick(r, 0);
    return o;
}

/* Content of the request. */
static inline void give(struct one *o, const char *text)
{
    cr_assert_eq(ag_body_write(&o->req_body, ag_slice_static(ag_span_str(text))), AG_OK);
    tick(o->r, 0);
}

static inline void give_end(struct one *o)
{
    ag_body_end(&o->req_body, NULL);
    tick(o->r, 0);
}

static inline void cancel(struct one *o)
{
    if (o->call.ops) {
        o->call.ops->cancel(&o->call);
    }
}

/* ---- the whole ---- */

static inline struct rig *rig_new(void)
{
    const struct ag_loop_config config = {
        .buf_count = {1024, 64}, .node_count = 4096, .page_count = 1024};
    struct rig *r = calloc(1, sizeof(*r));

    cr_assert(r);
    memloop_init(&r->m, config);
    r->in = ag_buf(r->in_room, RIG_IN_BYTES);
    r->next_id = 1;
    ag_arena_init(&r->tables, &r->m.loop.pages, 16);
    ag_hpack_decoder_init(&r->decoder, &r->tables);
    memwire_init(&r->w, &r->m, &rig_user, ag_buf(r->out, RIG_OUT_BYTES));
    cr_assert(ag_h2_client_open(&r->c, &r->w.stream, &rig_ops));
    tick(r, 0);
    cr_assert_geq(r->w.out.len, AG_H2_MAGIC.len);
    cr_assert(ag_span_eq(ag_span(r->out, AG_H2_MAGIC.len), AG_H2_MAGIC));
    r->at = AG_H2_MAGIC.len;
    return r;
}

/* With the upstream's SETTINGS. */
static inline struct rig *rig_open(void)
{
    struct rig *r = rig_new();

    put_settings(r, NULL, 0);
    feed(r);
    cr_assert_eq(r->settled, 1);
    return r;
}

static inline void rig_free(struct rig *r)
{
    for (unsigned i = 0; i < r->count; i++) {
        cancel(r->calls[i]);
    }
    if (!r->w.closed) {
        memwire_abort(&r->w.stream, AG_REASON_RESET);
    }
    tick(r, 0);
    tick(r, 0);
    cr_expect_eq(r->closes, 1);
    for (unsigned i = 0; i < r->count; i++) {
        struct one *o = r->calls[i];

        cr_expect_leq(o->dones + o->faileds, 1);
        ag_body_deinit(&o->req_body);
        ag_body_deinit(&o->res_body);
        ag_arena_release(&o->keep);
        free(o);
    }
    ag_arena_release(&r->tables);
    cr_expect_eq(r->m.loop.nodes.used, 0);
    cr_expect_eq(r->m.loop.pages.used, 0);
    cr_expect_eq(ag_loop_bufs_used(&r->m.loop, AG_BUF_SMALL), 0);
    cr_expect_eq(ag_loop_bufs_used(&r->m.loop, AG_BUF_LARGE), 0);
    cr_expect_eq(r->m.loop.wheel.armed, 0);
    memloop_deinit(&r->m);
    free(r);
}
