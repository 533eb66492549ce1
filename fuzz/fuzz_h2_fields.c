/*
 * Field sections of HTTP/2, one after another on one connection: what is let pass keeps the rules of RFC 9113
 * and means the same in HTTP/1, whose parser takes it; written again and read again it is the same; the
 * table goes on as that of a decoder that keeps nothing; what comes again byte for byte is read as if it were new;
 * and no bound is passed.
 *
 *   input: [ bounds | sections: kind and how often, length, bytes ]
 */
#include "proto/h1_scan.h"
#include "proto/h2_memo.h"
#include "proto/hpack_table.h"
#include "tests/memwire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define PAGES_MAX     12u
#define SECTION_BYTES (1u << 18)

struct side {
    struct ag_arena memory;
    struct ag_hpack_decoder decoder;
    struct ag_hpack_encoder encoder;
};

static struct memloop loop;
static struct side peer, mirror, other, plain; /* `plain` has no memo */
static struct ag_h2_memo requests, responses;
static struct ag_arena arena, second, third;
static struct ag_h1_limits limits;
static const struct ag_h1_limits wide = {1u << 17, 1u << 18, 1000};
static uint8_t bytes[SECTION_BYTES];

static void begin(struct side *s)
{
    ag_arena_init(&s->memory, &loop.loop.pages, PAGES_MAX);
    ag_hpack_decoder_init(&s->decoder, &s->memory);
    ag_hpack_encoder_init(&s->encoder, &s->memory);
}

static void check_tables(const struct ag_hpack_table *a, const struct ag_hpack_table *b)
{
    AG_ASSERT(a->count == b->count && a->bytes == b->bytes && a->max_bytes == b->max_bytes);
}

/* ---- what may be in fields ---- */

static void check_fields(const struct ag_fields *f, bool request)
{
    unsigned hosts = 0, cookies = 0, lengths = 0;

    for (size_t i = 0; i < f->count; i++) {
        struct ag_span name = ag_field_key(&f->v[i]), value = ag_field_value(&f->v[i]);

        AG_ASSERT(f->v[i].id == ag_field_id_from_name(name));
        AG_ASSERT(ag_is_token(name) && ag_is_field_value(value));
        AG_ASSERT(ag_span_trim(value).len == value.len || f->v[i].id == AG_FIELD_COOKIE);
        for (size_t k = 0; k < name.len; k++) {
            AG_ASSERT(name.ptr[k] == ag_ascii_lower(name.ptr[k]));
        }
        AG_ASSERT(f->v[i].id != AG_FIELD_CONNECTION && f->v[i].id != AG_FIELD_UPGRADE &&
                  f->v[i].id != AG_FIELD_TRANSFER_ENCODING && f->v[i].id != AG_FIELD_KEEP_ALIVE &&
                  f->v[i].id != AG_FIELD_PROXY_CONNECTION);
        AG_ASSERT(f->v[i].id != AG_FIELD_TE || ag_span_ieq(value, AG_SPAN("trailers")));
        hosts += f->v[i].id == AG_FIELD_HOST;
        cookies += f->v[i].id == AG_FIELD_COOKIE;
        lengths += f->v[i].id == AG_FIELD_CONTENT_LENGTH;
    }
    AG_ASSERT(lengths <= 1);
    AG_ASSERT(!request || (hosts == 1 && cookies <= 1));
    AG_ASSERT(f->count <= limits.field_max + 1u);
}

/* But for those that are written from what the message says. */
static bool is_written(const struct ag_field *f)
{
    return f->id != AG_FIELD_HOST && f->id != AG_FIELD_CONTENT_LENGTH && f->id != AG_FIELD_TE &&
           f->id != AG_FIELD_HTTP2_SETTINGS;
}

static void check_same(const struct ag_fields *a, const struct ag_fields *b)
{
    size_t k = 0;

    for (size_t i = 0; i < a->count; i++) {
        if (!is_written(&a->v[i])) {
            continue;
        }
        while (k < b->count && !is_written(&b->v[k])) {
            k++;
        }
        AG_ASSERT(k < b->count);
        AG_ASSERT(ag_span_ieq(ag_field_key(&a->v[i]), ag_field_key(&b->v[k])));
        AG_ASSERT(ag_span_eq(ag_field_value(&a->v[i]), ag_field_value(&b->v[k])));
        k++;
    }
    while (k < b->count && !is_written(&b->v[k])) {
        k++;
    }
    AG_ASSERT(k == b->count);
}

/* ---- requests ---- */

static void check_same_request(const struct ag_request *a, const struct ag_request *b)
{
    AG_ASSERT(ag_span_eq(a->method_name, b->method_name) && a->method == b->method);
    AG_ASSERT(ag_span_eq(a->path, b->path) && ag_span_eq(a->query, b->query));
    AG_ASSERT(a->has_query == b->has_query && a->port == b->port);
    AG_ASSERT(ag_span_eq(a->authority, b->authority) && ag_span_eq(a->host, b->host));
    AG_ASSERT(a->content_length == b->content_length && a->expect_continue == b->expect_continue);
    check_same(&a->fields, &b->fields);
}

static void by_http2(const struct ag_request *req)
{
    struct ag_buf out = ag_buf(bytes, ag_h2_request_max(req, req->target, req->authority));
    struct ag_request back = {0};
    struct ag_h2_field_error e = {0};

    AG_ASSERT(out.cap <= sizeof(bytes));
    ag_h2_put_request(&other.encoder, &out, req,
                      req->https_target ? AG_SPAN("https") : AG_SPAN("http"), req->target,
                      req->authority, false);
    AG_ASSERT(!out.overflow);
    AG_ASSERT(ag_h2_read_request(&other.decoder, ag_buf_span(&out), &wide, &back, &second, &e) ==
              AG_OK);
    check_tables(&other.encoder.table, &other.decoder.table);
    check_same_request(req, &back);
    AG_ASSERT(ag_span_eq(req->protocol, back.protocol) && req->https_target == back.https_target);
}

/* As its text would be. An extended CONNECT has none. */
static void by_http1(const struct ag_request *req)
{
    struct ag_buf out = ag_buf(bytes, sizeof(bytes));
    struct ag_h1_parser p = {0};
    struct ag_request back = {0};

    if (req->protocol.len) {
        return;
    }
    ag_buf_put(&out, req->method_name);
    ag_buf_putc(&out, ' ');
    ag_buf_put(&out, req->target);
    ag_buf_put(&out, AG_SPAN(" HTTP/1.1\r\n"));
    for (size_t i = 0; i < req->fields.count; i++) {
        ag_buf_put(&out, ag_field_key(&req->fields.v[i]));
        ag_buf_put(&out, AG_SPAN(":"));
        ag_buf_put(&out, ag_field_value(&req->fields.v[i]));
        ag_buf_put(&out, AG_SPAN("\r\n"));
    }
    ag_buf_put(&out, AG_SPAN("\r\n"));
    AG_ASSERT(!out.overflow);
    AG_ASSERT(ag_h1_parse_request(&p, ag_buf_span(&out), &wide, &back, &second) == AG_OK);
    AG_ASSERT(p.at == out.len);
    check_same_request(req, &back);
}

/* Field by field, name and value. */
static void check_equal(const struct ag_fields *a, const struct ag_fields *b)
{
    AG_ASSERT(a->count == b->count);
    for (size_t i = 0; i < a->count; i++) {
        AG_ASSERT(ag_span_eq(ag_field_key(&a->v[i]), ag_field_key(&b->v[i])));
        AG_ASSERT(ag_span_eq(ag_field_value(&a->v[i]), ag_field_value(&b->v[i])));
        AG_ASSERT(a->v[i].id == b->v[i].id && a->v[i].removed == b->v[i].removed);
    }
}

/* Without the memo it is the same request, or the same mistake. */
static void check_plain(struct ag_span section, enum ag_status st, const struct ag_request *req,
                        const struct ag_h2_field_error *e)
{
    struct ag_field room[3];
    struct ag_request back = {.fields = {room, 0, AG_COUNT(room)}};
    struct ag_h2_field_error f = {0};

    AG_ASSERT(ag_h2_read_request(&plain.decoder, section, &limits, &back, &third, &f) == st);
    AG_ASSERT(e->status == f.status && e->connection == f.connection && e->why == f.why);
    if (st == AG_OK) {
        check_same_request(req, &back);
        check_equal(&req->fields, &back.fields);
        AG_ASSERT(ag_span_eq(req->target, back.target) && ag_span_eq(req->protocol, back.protocol));
        AG_ASSERT(req->received_count == back.received_count && req->version == back.version &&
                  req->framing == back.framing && req->keep_alive == back.keep_alive &&
                  req->https_target == back.https_target);
    }
}

static enum ag_status request(struct ag_span section, struct ag_h2_field_error *e)
{
    struct ag_field room[3];
    struct ag_request req = {.fields = {room, 0, AG_COUNT(room)}};
    enum ag_status st =
        ag_h2_memo_request(&requests, &peer.decoder, section, &limits, &req, &arena, e);
    struct ag_h2_priority priority = AG_H2_PRIORITY_DEFAULT;
    const struct ag_field *f;

    check_plain(section, st, &req, e);
    if (st != AG_OK) {
        return st;
    }
    AG_ASSERT(ag_is_token(req.method_name) && req.version == AG_HTTP_2);
    AG_ASSERT(req.received_count == req.fields.count);
    check_fields(&req.fields, true);
    by_http2(&req);
    by_http1(&req);
    f = ag_fields_find(&req.fields, AG_FIELD_PRIORITY, NULL);
    if (f) {
        ag_h2_priority_read(ag_field_value(f), &priority);
        AG_ASSERT(priority.urgency <= 7);
    }
    return st;
}

/* ---- answers and trailers ---- */

/* Made at load it says the same, to a decoder of which nothing is known, and leaves it so. */
static void prepared(const struct ag_response *res)
{
    struct ag_buf out = ag_buf(bytes, ag_h2_response_max(res));
    struct ag_response back = {0};
    struct ag_h2_field_error e = {0};
    struct side fresh;

    begin(&fresh);
    ag_h2_prepare(&out, res);
    AG_ASSERT(!out.overflow);
    AG_ASSERT(ag_h2_read_response(&fresh.decoder, ag_buf_span(&out), &wide, AG_METHOD_GET, &back,
                                  &second, &e) == AG_OK);
    AG_ASSERT(fresh.decoder.table.count == 0 && back.status == res->status);
    check_same(&res->fields, &back.fields);
    ag_arena_release(&fresh.memory);
}

static void check_plain_response(struct ag_span section, enum ag_method method, enum ag_status st,
                                 const struct ag_response *res, const struct ag_h2_field_error *e)
{
    struct ag_field room[3];
    struct ag_response back = {.fields = {room, 0, AG_COUNT(room)}};
    struct ag_h2_field_error f = {0};

    AG_ASSERT(ag_h2_read_response(&plain.decoder, section, &limits, method, &back, &third, &f) ==
              st);
    AG_ASSERT(e->status == f.status && e->connection == f.connection && e->why == f.why);
    if (st == AG_OK) {
        check_equal(&res->fields, &back.fields);
        AG_ASSERT(res->status == back.status && res->framing == back.framing &&
                  res->content_length == back.content_length && res->version == back.version &&
                  res->keep_alive == back.keep_alive);
    }
}

static enum ag_status response(struct ag_span section, enum ag_method method,
                               struct ag_h2_field_error *e)
{
    struct ag_field room[3];
    struct ag_response res = {.fields = {room, 0, AG_COUNT(room)}}, back = {0};
    enum ag_status st =
        ag_h2_memo_response(&responses, &peer.decoder, section, &limits, method, &res, &arena, e);
    struct ag_h2_field_error f = {0};
    struct ag_buf out;

    check_plain_response(section, method, st, &res, e);
    if (st != AG_OK) {
        return st;
    }
    AG_ASSERT(res.status >= 100 && res.status <= 999 && res.status != 101);
    check_fields(&res.fields, false);
    out = ag_buf(bytes, ag_h2_response_max(&res));
    AG_ASSERT(out.cap <= sizeof(bytes));
    ag_h2_put_response(&other.encoder, &out, &res, AG_SPAN(""));
    AG_ASSERT(!out.overflow);
    AG_ASSERT(ag_h2_read_response(&other.decoder, ag_buf_span(&out), &wide, method, &back, &second,
                                  &f) == AG_OK);
    check_tables(&other.encoder.table, &other.decoder.table);
    AG_ASSERT(back.status == res.status && back.framing == res.framing);
    check_same(&res.fields, &back.fields);
    prepared(&res);
    return st;
}

static enum ag_status trailers(struct ag_span section, struct ag_h2_field_error *e)
{
    struct ag_fields fields = {0}, back = {0};
    enum ag_status st = ag_h2_read_trailers(&peer.decoder, section, &limits, &fields, &arena, e);
    struct ag_h2_field_error f = {0};
    struct ag_buf out;

    if (st != AG_OK) {
        return st;
    }
    check_fields(&fields, false);
    out = ag_buf(bytes, ag_h2_fields_max(&fields));
    AG_ASSERT(out.cap <= sizeof(bytes));
    ag_h2_put_trailers(&other.encoder, &out, &fields);
    AG_ASSERT(!out.overflow);
    AG_ASSERT(ag_h2_read_trailers(&other.decoder, ag_buf_span(&out), &wide, &back, &second, &f) ==
              AG_OK);
    check_same(&fields, &back);
    return st;
}

/* ---- sections ---- */

enum {
    REQUEST,
    GET_RESPONSE,
    HEAD_RESPONSE,
    CONNECT_RESPONSE,
    TRAILERS,
    SKIP,
    PRIORITY,
    RESIZE,
    KINDS
};

static void priority(struct ag_span value)
{
    struct ag_h2_priority p = AG_H2_PRIORITY_DEFAULT, q;

    ag_h2_priority_read(value, &p);
    AG_ASSERT(p.urgency <= 7);
    q = p;
    ag_h2_priority_read(value, &q);
    AG_ASSERT(p.urgency == q.urgency && p.incremental == q.incremental);
}

static enum ag_status read_section(unsigned kind, struct ag_span section,
                                   struct ag_h2_field_error *e)
{
    enum ag_status st;

    if (kind == REQUEST) {
        return request(section, e);
    }
    if (kind == TRAILERS) {
        return trailers(section, e);
    }
    if (kind == SKIP) {
        st = ag_h2_skip_section(&peer.decoder, section, &limits);
        e->connection = st != AG_OK;
        return st;
    }
    return response(section,
                    kind == GET_RESPONSE    ? AG_METHOD_GET
                    : kind == HEAD_RESPONSE ? AG_METHOD_HEAD
                                            : AG_METHOD_CONNECT,
                    e);
}

/* False: the connection has ended. */
static bool section(unsigned kind, struct ag_span in)
{
    struct ag_h2_field_error e = {0};
    enum ag_status st, mirrored;

    if (kind == PRIORITY) {
        priority(in);
        return true;
    }
    if (kind == RESIZE) {
        ag_hpack_resize(&other.encoder, in.len ? in.ptr[0] * 20u : 0);
        return true;
    }
    ag_arena_init(&arena, &loop.loop.pages, PAGES_MAX);
    ag_arena_init(&second, NULL, 0);
    ag_arena_init(&third, &loop.loop.pages, PAGES_MAX);
    if (limits.head_max > AG_ARENA_ALLOC_MAX) {
        ag_arena_widen(&arena, &loop.loop);
        ag_arena_widen(&third, &loop.loop);
    }
    AG_ASSERT(ag_arena_alloc(&arena, 8) && ag_arena_alloc(&third, 8)); /* as an exchange does */
    st = read_section(kind, in, &e);
    AG_ASSERT(kind == SKIP || (st == AG_OK) == (e.why == NULL));
    AG_ASSERT(!e.connection || (st != AG_OK && e.status == 0));
    ag_arena_release(&arena);
    ag_arena_release(&second);
    ag_arena_release(&third);
    mirrored = ag_h2_skip_section(&mirror.decoder, in, &limits);
    /* Each counts a flood by what it does not keep. */
    AG_ASSERT(!e.connection || st == AG_ELIMIT || mirrored == AG_ELIMIT || mirrored == st);
    if (e.connection || mirrored != AG_OK) {
        return false;
    }
    check_tables(&peer.decoder.table, &mirror.decoder.table);
    if (kind == TRAILERS || kind == SKIP) {
        AG_ASSERT(ag_h2_skip_section(&plain.decoder, in, &limits) == AG_OK);
    }
    check_tables(&peer.decoder.table, &plain.decoder.table);
    return true;
}

static void sections(struct ag_span in)
{
    while (in.len > 3) {
        size_t len = ag_min_size(in.ptr[1] | (size_t)in.ptr[2] << 8, in.len - 3);

        for (unsigned times = 1 + in.ptr[0] / KINDS % 4; times > 0; times--) {
            if (!section(in.ptr[0] % KINDS, ag_span_sub(in, 3, 3 + len))) {
                return;
            }
        }
        in = ag_span_sub(in, 3 + len, in.len);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    if (!loop.loop.pages.count) {
        memloop_init(&loop, (struct ag_loop_config){.buf_count = {8, 8}, .page_count = 128});
    }
    limits = (struct ag_h1_limits){.line_max = 100u << (data[0] & 7),
                                   .head_max = 256u << (data[0] >> 3 & 7),
                                   .field_max = (uint16_t)(4u << (data[0] >> 6) * 2)};
    begin(&peer);
    begin(&mirror);
    begin(&other);
    begin(&plain);
    requests = responses = (struct ag_h2_memo){0};
    sections(ag_span(data + 1, size - 1));
    ag_arena_release(&peer.memory);
    ag_arena_release(&mirror.memory);
    ag_arena_release(&other.memory);
    ag_arena_release(&plain.memory);
    return 0;
}
