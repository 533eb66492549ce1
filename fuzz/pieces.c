#include "fuzz/pieces.h"

struct pieces pieces_of(size_t len, size_t most)
{
    return (struct pieces){len, most, (uint32_t)most * 2654435761u + 1};
}

size_t pieces_next(struct pieces *p)
{
    size_t len = p->left;

    p->random = p->random * 1664525u + 1013904223u;
    if (p->most != SIZE_MAX) {
        len = ag_min_size(1 + (p->random >> 8) % p->most, len);
    }
    p->left -= len;
    return len;
}

enum ag_status pieces_grow(struct ag_span in, size_t most, const struct pieces_parser *parser,
                           void *run, uint8_t **out_bytes)
{
    struct pieces p = pieces_of(in.len, most);
    enum ag_status st = AG_AGAIN;
    uint8_t *bytes = NULL;
    size_t len = 0;

    for (size_t piece; st == AG_AGAIN && (piece = pieces_next(&p)) > 0;) {
        uint8_t *block = malloc(len + piece);

        AG_ASSERT(block);
        memcpy(block, in.ptr, len + piece);
        parser->moved(run, bytes, len, block);
        free(bytes);
        bytes = block;
        len += piece;
        st = parser->parse(run, ag_span(block, len));
    }
    *out_bytes = bytes;
    return st;
}

void pieces_same_fields(const struct ag_fields *x, const struct ag_fields *y)
{
    AG_ASSERT(x->count == y->count);
    for (size_t i = 0; i < x->count; i++) {
        AG_ASSERT(x->v[i].id == y->v[i].id);
        AG_ASSERT(ag_span_eq(ag_field_key(&x->v[i]), ag_field_key(&y->v[i])));
        AG_ASSERT(ag_span_eq(ag_field_value(&x->v[i]), ag_field_value(&y->v[i])));
    }
}
