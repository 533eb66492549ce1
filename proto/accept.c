#include "proto/accept.h"

#define Q_MAX 1000u

/* q of "type/subtype;a=b;q=0.5" in thousandths. */
static unsigned weight_of(struct ag_span range)
{
    size_t at = ag_span_find(range, ';');
    unsigned q = Q_MAX, unit = Q_MAX;

    while (at < range.len) {
        struct ag_span rest = ag_span_sub(range, at + 1, range.len);
        struct ag_span p = ag_span_trim(ag_span_sub(rest, 0, ag_span_find(rest, ';')));

        at += 1 + ag_span_find(rest, ';');
        if (p.len < 3 || ag_ascii_lower(p.ptr[0]) != 'q' || p.ptr[1] != '=') {
            continue;
        }
        q = 0;
        for (size_t i = 2; i < p.len && i < 7; i++) {
            if (i == 3 && p.ptr[i] == '.') {
                continue;
            }
            if (p.ptr[i] < '0' || p.ptr[i] > '9') {
                return Q_MAX;
            }
            q += (unsigned)(p.ptr[i] - '0') * unit;
            unit /= 10;
        }
        return q < Q_MAX ? q : Q_MAX;
    }
    return q;
}

static bool ends_in(struct ag_span s, struct ag_span end)
{
    return s.len >= end.len && ag_span_ieq(ag_span_sub(s, s.len - end.len, s.len), end);
}

static bool is_json(struct ag_span type)
{
    return ends_in(type, AG_SPAN("/json")) || ends_in(type, AG_SPAN("+json"));
}

static bool is_text(struct ag_span type)
{
    return ag_span_ieq(type, AG_SPAN("text/plain")) || ag_span_ieq(type, AG_SPAN("text/html")) ||
           ag_span_ieq(type, AG_SPAN("text/*"));
}

bool ag_accepts_json(const struct ag_fields *fields)
{
    const struct ag_field *f = NULL;
    unsigned json = 0, text = 0;

    while ((f = ag_fields_find(fields, AG_FIELD_ACCEPT, f)) != NULL) {
        struct ag_span range;
        size_t at = 0;

        while (ag_list_next(ag_field_value(f), &at, &range)) {
            struct ag_span type = ag_span_trim(ag_span_sub(range, 0, ag_span_find(range, ';')));
            unsigned q = weight_of(range);

            if (is_json(type) && q > json) {
                json = q;
            } else if (is_text(type) && q > text) {
                text = q;
            }
        }
    }
    return json > 0 && json >= text;
}
