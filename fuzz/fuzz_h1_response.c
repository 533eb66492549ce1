/*
 * A response head, or a trailer section, means the same in one piece and in pieces that move about,
 * and what is accepted keeps the promises of http.h.
 *
 * Input: one byte that chooses the pieces, one the request's method or trailers, then the bytes.
 */
#include "fuzz/pieces.h"
#include "proto/h1_parse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct run {
    struct ag_h1_parser parser;
    struct ag_response res;
    enum ag_method method; /* of the request; AG_METHODS stands for trailers */
    struct ag_arena *arena;
    enum ag_status status;
    uint8_t *bytes; /* what the spans point into */
};

static const struct ag_h1_limits limits = {256, 2048, 20};

static void moved(void *run, const uint8_t *old, size_t len, const uint8_t *to)
{
    ag_response_rebase(&((struct run *)run)->res, old, len, to);
}

static enum ag_status parse_so_far(void *run, struct ag_span so_far)
{
    struct run *r = run;

    return r->method == AG_METHODS
               ? ag_h1_parse_trailers(&r->parser, so_far, &limits, &r->res.fields, r->arena)
               : ag_h1_parse_response(&r->parser, so_far, &limits, r->method, &r->res, r->arena);
}

static const struct pieces_parser parser = {moved, parse_so_far};

static void parse(struct run *r, struct ag_span in, size_t most, enum ag_method method,
                  struct ag_arena *arena)
{
    *r = (struct run){.method = method, .arena = arena};
    r->status = pieces_grow(in, most, &parser, r, &r->bytes);
}

static void check_same(const struct run *a, const struct run *b)
{
    const struct ag_response *x = &a->res, *y = &b->res;

    AG_ASSERT(a->status == b->status);
    AG_ASSERT(a->parser.status == b->parser.status && a->parser.error == b->parser.error);
    if (a->status != AG_OK) {
        return;
    }
    AG_ASSERT(a->parser.at == b->parser.at);
    AG_ASSERT(x->status == y->status && ag_span_eq(x->reason, y->reason));
    AG_ASSERT(x->content_length == y->content_length && x->framing == y->framing);
    AG_ASSERT(x->version == y->version && x->keep_alive == y->keep_alive);
    AG_ASSERT(x->upgrade == y->upgrade);
    pieces_same_fields(&x->fields, &y->fields);
}

static void check_promises(const struct run *r, enum ag_method method)
{
    const struct ag_fields *f = &r->res.fields;

    for (size_t i = 0; i < f->count; i++) {
        AG_ASSERT(ag_is_token(ag_field_key(&f->v[i])));
        AG_ASSERT(ag_is_field_value(ag_field_value(&f->v[i])));
    }
    const struct ag_field *length = ag_fields_find(f, AG_FIELD_CONTENT_LENGTH, NULL);
    const struct ag_field *coding = ag_fields_find(f, AG_FIELD_TRANSFER_ENCODING, NULL);
    if (method == AG_METHODS) {
        AG_ASSERT(!length && !coding && !ag_fields_find(f, AG_FIELD_HOST, NULL));
        return;
    }
    AG_ASSERT(!(length && coding));
    AG_ASSERT(!length || !ag_fields_find(f, AG_FIELD_CONTENT_LENGTH, length));
    AG_ASSERT(!coding || !ag_fields_find(f, AG_FIELD_TRANSFER_ENCODING, coding));
    AG_ASSERT(r->res.status >= 100 && r->res.status <= 999);
    AG_ASSERT(ag_is_field_value(r->res.reason));
    AG_ASSERT(r->res.framing != AG_FRAMING_CLOSE || !r->res.keep_alive);
    AG_ASSERT(method != AG_METHOD_HEAD || r->res.framing == AG_FRAMING_NONE ||
              r->res.status == 101);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct run whole, pieces;
    struct ag_arena arena;

    if (size < 3) {
        return 0;
    }
    struct ag_span in = ag_span(data + 2, size - 2);
    enum ag_method method = (enum ag_method)(data[1] % (AG_METHODS + 1));
    ag_arena_init(&arena, NULL, 0);
    parse(&whole, in, SIZE_MAX, method, &arena);
    parse(&pieces, in, 1 + data[0], method, &arena);
    check_same(&whole, &pieces);
    if (whole.status == AG_OK) {
        check_promises(&whole, method);
    }
    AG_ASSERT(whole.status != AG_EPROTO || method == AG_METHODS || whole.parser.status == 502);
    free(whole.bytes);
    free(pieces.bytes);
    ag_arena_release(&arena);
    return 0;
}
