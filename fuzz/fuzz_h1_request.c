/*
 * A request head means the same in one piece and in pieces that move about; what is accepted keeps
 * the promises of http.h; and forwarded as normalised it is accepted again and means the same.
 *
 * Input: one byte that chooses the pieces and limits, then the head.
 */
#include "fuzz/pieces.h"
#include "proto/h1_parse.h"
#include "proto/uri.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct run {
    struct ag_h1_parser parser;
    struct ag_request req;
    const struct ag_h1_limits *limits;
    struct ag_arena *arena;
    enum ag_status status;
    uint8_t *bytes; /* what the spans point into */
};

static const struct ag_h1_limits default_limits = AG_H1_LIMITS_DEFAULT;
static const struct ag_h1_limits small_limits = {64, 200, 5};

static void moved(void *run, const uint8_t *old, size_t len, const uint8_t *to)
{
    ag_request_rebase(&((struct run *)run)->req, old, len, to);
}

static enum ag_status parse_so_far(void *run, struct ag_span so_far)
{
    struct run *r = run;

    return ag_h1_parse_request(&r->parser, so_far, r->limits, &r->req, r->arena);
}

static const struct pieces_parser parser = {moved, parse_so_far};

static void parse(struct run *r, struct ag_span in, size_t most, const struct ag_h1_limits *limits,
                  struct ag_arena *arena)
{
    *r = (struct run){.limits = limits, .arena = arena};
    r->status = pieces_grow(in, most, &parser, r, &r->bytes);
}

static void check_same(const struct run *a, const struct run *b)
{
    const struct ag_request *x = &a->req, *y = &b->req;

    AG_ASSERT(a->status == b->status);
    AG_ASSERT(a->parser.status == b->parser.status && a->parser.error == b->parser.error);
    if (a->status != AG_OK) {
        return;
    }
    AG_ASSERT(a->parser.at == b->parser.at);
    AG_ASSERT(ag_span_eq(x->method_name, y->method_name) && ag_span_eq(x->target, y->target));
    AG_ASSERT(ag_span_eq(x->host, y->host) && ag_span_eq(x->authority, y->authority));
    AG_ASSERT(ag_span_eq(x->path, y->path) && ag_span_eq(x->query, y->query));
    AG_ASSERT(x->content_length == y->content_length && x->port == y->port);
    AG_ASSERT(x->method == y->method && x->version == y->version && x->framing == y->framing);
    AG_ASSERT(x->has_query == y->has_query && x->absolute_form == y->absolute_form);
    AG_ASSERT(x->keep_alive == y->keep_alive && x->upgrade == y->upgrade);
    AG_ASSERT(x->expect_continue == y->expect_continue);
    pieces_same_fields(&x->fields, &y->fields);
}

static unsigned count(const struct ag_fields *f, enum ag_field_id id)
{
    unsigned n = 0;

    for (const struct ag_field *at = NULL; (at = ag_fields_find(f, id, at));) {
        n++;
    }
    return n;
}

static void check_authority(const struct ag_request *req)
{
    const struct ag_field *field = ag_fields_find(&req->fields, AG_FIELD_HOST, NULL);
    struct ag_span host;
    uint16_t port;

    if (req->authority.len == 0) {
        AG_ASSERT(req->version == AG_HTTP_10);
        return;
    }
    AG_ASSERT(ag_authority_parse(req->authority, &host, &port) == AG_OK);
    AG_ASSERT(ag_span_eq(host, req->host) && port == req->port);
    AG_ASSERT(!field || ag_span_eq(ag_field_value(field), req->authority));
}

/* What smuggling needs is not there: one length, told by one field. */
static void check_framing(const struct ag_request *req)
{
    unsigned lengths = count(&req->fields, AG_FIELD_CONTENT_LENGTH);
    unsigned codings = count(&req->fields, AG_FIELD_TRANSFER_ENCODING);

    AG_ASSERT(lengths + codings <= 1 && count(&req->fields, AG_FIELD_HOST) <= 1);
    AG_ASSERT((req->framing == AG_FRAMING_LENGTH) == (lengths == 1));
    AG_ASSERT((req->framing == AG_FRAMING_CHUNKED) == (codings == 1));
    AG_ASSERT((req->content_length != AG_LENGTH_UNKNOWN) == (lengths == 1));
}

static void check_promises(const struct ag_request *req)
{
    for (size_t i = 0; i < req->fields.count; i++) {
        AG_ASSERT(ag_is_token(ag_field_key(&req->fields.v[i])));
        AG_ASSERT(ag_is_field_value(ag_field_value(&req->fields.v[i])));
    }
    AG_ASSERT(ag_is_token(req->method_name) && ag_query_is_valid(req->query));
    if (req->method == AG_METHOD_CONNECT) {
        AG_ASSERT(req->path.len == 0 && req->port != 0);
    } else {
        AG_ASSERT(ag_path_is_normal(req->path) || ag_span_eq(req->path, AG_SPAN("*")));
    }
    check_authority(req);
    check_framing(req);
}

/* Writes the request as a proxy would, and parses that. */
static void check_forwarded(const struct ag_request *req, struct ag_arena *arena)
{
    static uint8_t room[65536];
    struct ag_buf b = ag_buf(room, sizeof(room));
    struct ag_h1_parser p = {0};
    struct ag_request back = {0};

    if (req->method == AG_METHOD_CONNECT || !req->host.len) {
        return;
    }
    ag_buf_put(&b, req->method_name);
    ag_buf_putc(&b, ' ');
    ag_buf_put(&b, req->path);
    ag_buf_put(&b, req->has_query ? AG_SPAN("?") : AG_SPAN(""));
    ag_buf_put(&b, req->query);
    ag_buf_put(&b, AG_SPAN(" HTTP/1.1\r\n"));
    for (size_t i = 0; i < req->fields.count; i++) {
        ag_buf_put(&b, ag_field_key(&req->fields.v[i]));
        ag_buf_put(&b, AG_SPAN(": "));
        ag_buf_put(&b, ag_field_value(&req->fields.v[i]));
        ag_buf_put(&b, AG_SPAN("\r\n"));
    }
    if (!ag_fields_find(&req->fields, AG_FIELD_HOST, NULL)) {
        ag_buf_put(&b, AG_SPAN("Host: "));
        ag_buf_put(&b, req->authority);
        ag_buf_put(&b, AG_SPAN("\r\n"));
    }
    ag_buf_put(&b, AG_SPAN("\r\n"));
    struct ag_h1_limits limits = {sizeof(room), sizeof(room), 1000};
    AG_ASSERT(!b.overflow);
    AG_ASSERT(ag_h1_parse_request(&p, ag_buf_span(&b), &limits, &back, arena) == AG_OK);
    AG_ASSERT(p.at == b.len);
    AG_ASSERT(ag_span_eq(back.path, req->path) && ag_span_eq(back.query, req->query));
    AG_ASSERT(ag_span_eq(back.authority, req->authority));
    AG_ASSERT(back.framing == req->framing && back.content_length == req->content_length);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct run whole, pieces;
    struct ag_arena arena;

    if (size < 2) {
        return 0;
    }
    struct ag_span in = ag_span(data + 1, size - 1);
    const struct ag_h1_limits *limits = data[0] & 1 ? &small_limits : &default_limits;
    ag_arena_init(&arena, NULL, 0);
    parse(&whole, in, SIZE_MAX, limits, &arena);
    parse(&pieces, in, 1 + (data[0] >> 1), limits, &arena);
    check_same(&whole, &pieces);
    if (whole.status == AG_OK) {
        check_promises(&whole.req);
        check_forwarded(&whole.req, &arena);
    }
    free(whole.bytes);
    free(pieces.bytes);
    ag_arena_release(&arena);
    return 0;
}
