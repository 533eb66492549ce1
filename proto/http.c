#include "proto/http.h"

/* Addresses are compared as numbers: `from` may have been freed, so only its value is of use. */
static const uint8_t *moved(const uint8_t *p, const uint8_t *from, size_t len, const uint8_t *to)
{
    size_t at = (size_t)((uintptr_t)p - (uintptr_t)from);

    return p && at < len ? to + at : p;
}

static void move_span(struct ag_span *s, const uint8_t *from, size_t len, const uint8_t *to)
{
    s->ptr = moved(s->ptr, from, len, to);
}

void ag_fields_rebase(struct ag_fields *f, const uint8_t *from, size_t len, const uint8_t *to)
{
    for (size_t i = 0; i < f->count; i++) {
        f->v[i].name = moved(f->v[i].name, from, len, to);
        f->v[i].value = moved(f->v[i].value, from, len, to);
    }
}

void ag_request_rebase(struct ag_request *r, const uint8_t *from, size_t len, const uint8_t *to)
{
    move_span(&r->method_name, from, len, to);
    move_span(&r->target, from, len, to);
    move_span(&r->host, from, len, to);
    move_span(&r->authority, from, len, to);
    move_span(&r->path, from, len, to);
    move_span(&r->query, from, len, to);
    move_span(&r->protocol, from, len, to);
    ag_fields_rebase(&r->fields, from, len, to);
}

void ag_response_rebase(struct ag_response *r, const uint8_t *from, size_t len, const uint8_t *to)
{
    move_span(&r->reason, from, len, to);
    ag_fields_rebase(&r->fields, from, len, to);
}
