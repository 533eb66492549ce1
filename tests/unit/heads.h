/*
 * heads.h: requests and answers as text, for tests that compare what heads say.
 */
#pragma once
#include "proto/http.h"

#include <criterion/criterion.h>

static inline void put_named(struct ag_buf *b, const char *name, struct ag_span value)
{
    if (value.len) {
        ag_buf_printf(b, " %s=%.*s", name, (int)value.len, (const char *)value.ptr);
    }
}

/* "1 GET path=/ host=a auth=a:80 11 none keep" */
static inline void describe(const struct ag_request *r, struct ag_buf *b)
{
    static const char *const framing[] = {"none", "length", "chunked", "close", "tunnel", "h2"};

    ag_buf_printf(b, "%u %.*s", r->method, (int)r->method_name.len,
                  (const char *)r->method_name.ptr);
    put_named(b, "path", r->path);
    ag_buf_printf(b, "%s%.*s", r->has_query ? "?" : "", (int)r->query.len,
                  (const char *)r->query.ptr);
    put_named(b, "host", r->host);
    put_named(b, "auth", r->authority);
    if (r->port) {
        ag_buf_printf(b, " port=%u", r->port);
    }
    ag_buf_printf(b, " %u %s", r->version, framing[r->framing]);
    if (r->content_length != AG_LENGTH_UNKNOWN) {
        ag_buf_printf(b, "=%llu", (unsigned long long)r->content_length);
    }
    ag_buf_printf(b, "%s%s%s%s", r->absolute_form ? " absolute" : "",
                  r->keep_alive ? " keep" : " close", r->expect_continue ? " expect" : "",
                  r->upgrade ? " upgrade" : "");
}

static inline void describe_fields(const struct ag_fields *f, struct ag_buf *b)
{
    for (size_t i = 0; i < f->count; i++) {
        struct ag_span name = ag_field_key(&f->v[i]), value = ag_field_value(&f->v[i]);

        cr_assert_eq(f->v[i].id, ag_field_id_from_name(name));
        ag_buf_printf(b, "[%.*s=%.*s]", (int)name.len, (const char *)name.ptr, (int)value.len,
                      (const char *)value.ptr);
    }
}
