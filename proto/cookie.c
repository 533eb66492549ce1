#include "proto/cookie.h"

static bool next_in(struct ag_span field, struct ag_span name, size_t *at,
                    struct ag_span *out_value)
{
    while (*at < field.len) {
        struct ag_span rest = ag_span_sub(field, *at, field.len);
        struct ag_span pair = ag_span_sub(rest, 0, ag_span_find(rest, ';'));
        size_t equals = ag_span_find(pair, '=');

        *at += pair.len + 1;
        if (equals < pair.len && ag_span_eq(ag_span_trim(ag_span_sub(pair, 0, equals)), name)) {
            struct ag_span value = ag_span_trim(ag_span_sub(pair, equals + 1, pair.len));

            if (value.len >= 2 && value.ptr[0] == '"' && value.ptr[value.len - 1] == '"') {
                value = ag_span_sub(value, 1, value.len - 1);
            }
            *out_value = value;
            return true;
        }
    }
    return false;
}

bool ag_cookie_next(const struct ag_fields *fields, struct ag_span name,
                    struct ag_cookie_walk *walk, struct ag_span *out_value)
{
    if (!walk->field) {
        walk->field = ag_fields_find(fields, AG_FIELD_COOKIE, NULL);
    }
    while (walk->field) {
        if (next_in(ag_field_value(walk->field), name, &walk->at, out_value)) {
            return true;
        }
        walk->field = ag_fields_find(fields, AG_FIELD_COOKIE, walk->field);
        walk->at = 0;
    }
    return false;
}
