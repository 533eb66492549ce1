/*
 * Goal: one range gives the bytes that RFC 9110 section 14 says; all that is odd gives the whole.
 * Method: rows of value and size, in buffers cut to size so that ASan sees a read past the end.
 */
#include "actions/static/range.h"

#include <criterion/criterion.h>
#include <stdlib.h>

struct row {
    const char *value;
    uint64_t size;
    enum ag_range_result want;
    uint64_t from, len;
};

static const struct row rows[] = {
    {"bytes=0-499", 1000, AG_RANGE_PART, 0, 500},
    {"bytes=500-999", 1000, AG_RANGE_PART, 500, 500},
    {"bytes=0-0", 1000, AG_RANGE_PART, 0, 1},
    {"bytes=999-", 1000, AG_RANGE_PART, 999, 1},
    {"bytes=0-", 1000, AG_RANGE_PART, 0, 1000},
    {"bytes=-1", 1000, AG_RANGE_PART, 999, 1},
    {"bytes=-5000", 1000, AG_RANGE_PART, 0, 1000},
    {"bytes=10-5000", 1000, AG_RANGE_PART, 10, 990},
    {"BYTES=1-2", 1000, AG_RANGE_PART, 1, 2},
    {"bytes= 1-2 ", 1000, AG_RANGE_PART, 1, 2},
    {"bytes=,1-2,", 1000, AG_RANGE_PART, 1, 2},
    {"bytes=0-99999999999999999999999999", 1000, AG_RANGE_PART, 0, 1000},
    {"bytes=-99999999999999999999999999", 1000, AG_RANGE_PART, 0, 1000},
    {"bytes=1000-", 1000, AG_RANGE_UNSATISFIABLE, 0, 0},
    {"bytes=1000-2000", 1000, AG_RANGE_UNSATISFIABLE, 0, 0},
    {"bytes=99999999999999999999-", 1000, AG_RANGE_UNSATISFIABLE, 0, 0},
    {"bytes=-0", 1000, AG_RANGE_UNSATISFIABLE, 0, 0},
    {"bytes=0-", 0, AG_RANGE_UNSATISFIABLE, 0, 0},
    {"bytes=-1", 0, AG_RANGE_WHOLE, 0, 0},
    {"bytes=0-1,4-5", 1000, AG_RANGE_WHOLE, 0, 0},
    {"bytes=5-4", 1000, AG_RANGE_WHOLE, 0, 0},
    {"bytes=", 1000, AG_RANGE_WHOLE, 0, 0},
    {"bytes", 1000, AG_RANGE_WHOLE, 0, 0},
    {"", 1000, AG_RANGE_WHOLE, 0, 0},
    {"bytes=-", 1000, AG_RANGE_WHOLE, 0, 0},
    {"bytes=--1", 1000, AG_RANGE_WHOLE, 0, 0},
    {"bytes=a-b", 1000, AG_RANGE_WHOLE, 0, 0},
    {"bytes=1-2x", 1000, AG_RANGE_WHOLE, 0, 0},
    {"bytes=1 - 2", 1000, AG_RANGE_WHOLE, 0, 0},
    {"bytes=+1-2", 1000, AG_RANGE_WHOLE, 0, 0},
    {"bytes=1", 1000, AG_RANGE_WHOLE, 0, 0},
    {"items=0-1", 1000, AG_RANGE_WHOLE, 0, 0},
};

Test(range, rows)
{
    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        const struct row *r = &rows[i];
        uint64_t from = 0, len = 0;
        size_t n = strlen(r->value);
        uint8_t *cut = malloc(n + !n);
        AG_ASSERT(cut);
        memcpy(cut, r->value, n);
        cr_expect(ag_range_parse(ag_span(cut, n), r->size, &from, &len) == r->want, "%s", r->value);
        cr_expect(from == r->from && len == r->len, "%s: %llu+%llu", r->value,
                  (unsigned long long)from, (unsigned long long)len);
        free(cut);
    }
}

Test(range, content_range)
{
    uint8_t text[AG_CONTENT_RANGE_MAX];
    struct ag_buf b = ag_buf(text, sizeof(text));

    ag_range_put_content_range(&b, 500, 500, 1000);
    cr_expect(ag_span_eq(ag_buf_span(&b), AG_SPAN("bytes 500-999/1000")));
    b.len = 0;
    ag_range_put_content_range(&b, 0, 0, 1000);
    cr_expect(ag_span_eq(ag_buf_span(&b), AG_SPAN("bytes *"
                                                  "/1000")));
    b.len = 0;
    ag_range_put_content_range(&b, UINT64_MAX - 2, 2, UINT64_MAX);
    cr_expect(!b.overflow);
}
