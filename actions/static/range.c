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
                                         struct ag_range *out)
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
    out->len = ag_min_u64(len, size_bytes);
    out->from = size_bytes - out->len;
    return AG_RANGE_PART;
}

static enum ag_range_result int_range(struct ag_span spec, uint64_t size_bytes,
                                      struct ag_range *out)
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
    out->from = first;
    out->len = last - first + 1;
    return AG_RANGE_PART;
}

/* Whether one part costs less than the two would. */
static bool is_close(const struct ag_range *a, const struct ag_range *b)
{
    const struct ag_range *first = a->from <= b->from ? a : b, *second = first == a ? b : a;
    uint64_t end = first->from + first->len;

    return second->from <= end || second->from - end < AG_RANGE_GAP_BYTES;
}

static struct ag_range hull(const struct ag_range *a, const struct ag_range *b)
{
    uint64_t from = ag_min_u64(a->from, b->from);
    uint64_t end_a = a->from + a->len, end_b = b->from + b->len;

    return (struct ag_range){from, (end_a > end_b ? end_a : end_b) - from};
}

/* Those that are there are not close to each other, so none is close to the hull that is not to the new one or to
 * what that took in: one pass will do. The hull stands where the first of them stood (section 15.3.7.2). */
static void add(struct ag_ranges *set, struct ag_range r)
{
    uint32_t kept = 0, place = AG_RANGES_MAX;

    for (uint32_t i = 0; i < set->count; i++) {
        if (!is_close(&set->v[i], &r)) {
            set->v[kept++] = set->v[i];
            continue;
        }
        r = hull(&set->v[i], &r);
        if (place == AG_RANGES_MAX) {
            place = kept++;
        }
    }
    if (place == AG_RANGES_MAX) {
        place = kept++;
    }
    AG_ASSERT(place < AG_RANGES_MAX);
    set->v[place] = r;
    set->count = kept;
}

enum ag_range_result ag_range_parse(struct ag_span value, uint64_t size_bytes,
                                    struct ag_ranges *out)
{
    const struct ag_span unit = AG_SPAN("bytes=");
    uint32_t specs = 0;
    uint64_t sum = 0;
    struct ag_span rest;

    out->count = 0;
    if (value.len < unit.len || !ag_span_ieq(ag_span_sub(value, 0, unit.len), unit)) {
        return AG_RANGE_WHOLE;
    }
    rest = ag_span_sub(value, unit.len, value.len);
    while (rest.len) { /* empty elements of the list are allowed (section 5.6.1.2) */
        size_t comma = ag_span_find(rest, ',');
        struct ag_span spec = ag_span_trim(ag_span_sub(rest, 0, comma));
        enum ag_range_result one;
        struct ag_range r;
        rest = ag_span_sub(rest, comma < rest.len ? comma + 1 : comma, rest.len);
        if (spec.len == 0) {
            continue;
        }
        if (++specs > AG_RANGES_MAX) {
            return AG_RANGE_WHOLE;
        }
        one = spec.ptr[0] == '-' ? suffix_range(spec, size_bytes, &r)
                                 : int_range(spec, size_bytes, &r);
        if (one == AG_RANGE_WHOLE) {
            return AG_RANGE_WHOLE;
        }
        if (one == AG_RANGE_PART) {
            if (r.len > size_bytes - sum) {
                return AG_RANGE_WHOLE;
            }
            sum += r.len;
            add(out, r);
        }
    }
    if (specs == 0) {
        return AG_RANGE_WHOLE;
    }
    return out->count ? AG_RANGE_PART : AG_RANGE_UNSATISFIABLE;
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
