#include "actions/static/range.h"

/* Digits at *at; more than 64 bits count as the largest number, which no file reaches. */
static bool take_number(struct ag_span s, size_t *at, uint64_t *out)
{
    size_t from = *at;
    uint64_t value = 0;

    while (*at < s.len && s.ptr[*at] >= '0' && s.ptr[*at] <= '9') {
        uint64_t digit = (uint64_t)(s.ptr[*at] - '0');
        value = value > (UINT64_MAX - digit) / 10 ? UINT64_MAX : value * 10 + digit;
        (*at)++;
    }
    *out = value;
    return *at > from;
}

static enum ag_range_result suffix_range(struct ag_span spec, uint64_t size_bytes,
                                         uint64_t *out_from, uint64_t *out_len)
{
    size_t at = 1;
    uint64_t len;

    if (!take_number(spec, &at, &len) || at != spec.len) {
        return AG_RANGE_WHOLE;
    }
    if (len == 0) {
        return AG_RANGE_UNSATISFIABLE;
    }
    if (size_bytes == 0) { /* satisfiable, but Content-Range cannot say so */
        return AG_RANGE_WHOLE;
    }
    *out_len = ag_min_u64(len, size_bytes);
    *out_from = size_bytes - *out_len;
    return AG_RANGE_PART;
}

static enum ag_range_result int_range(struct ag_span spec, uint64_t size_bytes, uint64_t *out_from,
                                      uint64_t *out_len)
{
    size_t at = 0;
    uint64_t first, last = UINT64_MAX;

    if (!take_number(spec, &at, &first) || at == spec.len || spec.ptr[at] != '-') {
        return AG_RANGE_WHOLE;
    }
    at++;
    if (at < spec.len && (!take_number(spec, &at, &last) || at != spec.len)) {
        return AG_RANGE_WHOLE;
    }
    if (last < first) {
        return AG_RANGE_WHOLE;
    }
    if (first >= size_bytes) {
        return AG_RANGE_UNSATISFIABLE;
    }
    last = ag_min_u64(last, size_bytes - 1);
    *out_from = first;
    *out_len = last - first + 1;
    return AG_RANGE_PART;
}

enum ag_range_result ag_range_parse(struct ag_span value, uint64_t size_bytes, uint64_t *out_from,
                                    uint64_t *out_len)
{
    const struct ag_span unit = AG_SPAN("bytes=");
    struct ag_span spec = ag_span(NULL, 0), rest;

    if (value.len < unit.len || !ag_span_ieq(ag_span_sub(value, 0, unit.len), unit)) {
        return AG_RANGE_WHOLE;
    }
    rest = ag_span_sub(value, unit.len, value.len);
    while (rest.len) { /* empty elements of the list are allowed (section 5.6.1.2) */
        size_t comma = ag_span_find(rest, ',');
        struct ag_span element = ag_span_trim(ag_span_sub(rest, 0, comma));
        rest = ag_span_sub(rest, comma < rest.len ? comma + 1 : comma, rest.len);
        if (element.len && spec.len) {
            return AG_RANGE_WHOLE;
        }
        if (element.len) {
            spec = element;
        }
    }
    if (spec.len == 0) {
        return AG_RANGE_WHOLE;
    }
    return spec.ptr[0] == '-' ? suffix_range(spec, size_bytes, out_from, out_len)
                              : int_range(spec, size_bytes, out_from, out_len);
}

void ag_range_put_content_range(struct ag_buf *out, uint64_t from, uint64_t len,
                                uint64_t size_bytes)
{
    ag_buf_put(out, AG_SPAN("bytes "));
    if (len == 0) {
        ag_buf_putc(out, '*');
    } else {
        ag_buf_put_u64(out, from);
        ag_buf_putc(out, '-');
        ag_buf_put_u64(out, from + len - 1);
    }
    ag_buf_putc(out, '/');
    ag_buf_put_u64(out, size_bytes);
}
