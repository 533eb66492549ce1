/*
 * Goal: ranges give the bytes that RFC 9110 section 14 says, those that are close being one; all that is odd, or more
 * than a client needs, gives the whole.
 * Method: rows of value, size and "from+len ..." in order, in buffers cut to size so that ASan sees a read past the
 * end; then ranges by chance against a table of bytes.
 */
#include "actions/static/range.h"
#include "engine/random.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

struct row {
    const char *value;
    uint64_t size;
    enum ag_range_result want;
    const char *ranges;
};

#define SIXTEEN                                                                              \
    "0-0,100-100,200-200,300-300,400-400,500-500,600-600,700-700,800-800,900-900,1000-1000," \
    "1100-1100,1200-1200,1300-1300,1400-1400,1500-1500"
#define WHOLE AG_RANGE_WHOLE, ""
#define NONE  AG_RANGE_UNSATISFIABLE, ""

static const struct row rows[] = {
    {"bytes=0-499", 1000, AG_RANGE_PART, "0+500"},
    {"bytes=500-999", 1000, AG_RANGE_PART, "500+500"},
    {"bytes=0-0", 1000, AG_RANGE_PART, "0+1"},
    {"bytes=999-", 1000, AG_RANGE_PART, "999+1"},
    {"bytes=0-", 1000, AG_RANGE_PART, "0+1000"},
    {"bytes=-1", 1000, AG_RANGE_PART, "999+1"},
    {"bytes=-5000", 1000, AG_RANGE_PART, "0+1000"},
    {"bytes=10-5000", 1000, AG_RANGE_PART, "10+990"},
    {"BYTES=1-2", 1000, AG_RANGE_PART, "1+2"},
    {"bytes= 1-2 ", 1000, AG_RANGE_PART, "1+2"},
    {"bytes=,1-2,", 1000, AG_RANGE_PART, "1+2"},
    {"bytes=0-99999999999999999999999999", 1000, AG_RANGE_PART, "0+1000"},
    {"bytes=-99999999999999999999999999", 1000, AG_RANGE_PART, "0+1000"},
    {"bytes=1000-", 1000, NONE},
    {"bytes=1000-2000", 1000, NONE},
    {"bytes=99999999999999999999-", 1000, NONE},
    {"bytes=-0", 1000, NONE},
    {"bytes=0-", 0, NONE},
    {"bytes=-1", 0, WHOLE},
    {"bytes=5-4", 1000, WHOLE},
    {"bytes=", 1000, WHOLE},
    {"bytes", 1000, WHOLE},
    {"", 1000, WHOLE},
    {"bytes=-", 1000, WHOLE},
    {"bytes=--1", 1000, WHOLE},
    {"bytes=a-b", 1000, WHOLE},
    {"bytes=1-2x", 1000, WHOLE},
    {"bytes=1 - 2", 1000, WHOLE},
    {"bytes=+1-2", 1000, WHOLE},
    {"bytes=1", 1000, WHOLE},
    {"items=0-1", 1000, WHOLE},
    /* several, in order of the request */
    {"bytes=0-1,500-501", 1000, AG_RANGE_PART, "0+2 500+2"},
    {"bytes=500-501 , 0-1", 1000, AG_RANGE_PART, "500+2 0+2"},
    {"bytes=,,500-600, ,-1400,", 2000, AG_RANGE_PART, "500+1500"},
    {"bytes=-1,0-0", 1000, AG_RANGE_PART, "999+1 0+1"},
    /* unsatisfiable ones are dropped */
    {"bytes=1000-,0-1,-0,500-501,2000-3000", 1000, AG_RANGE_PART, "0+2 500+2"},
    {"bytes=1000-,5-6", 1000, AG_RANGE_PART, "5+2"},
    {"bytes=99999-,88888-", 1000, NONE},
    {"bytes=-0,-0", 1000, NONE},
    {"bytes=0-,-0", 0, NONE},
    {"bytes=0-,-1", 0, WHOLE},
    /* a bad one spoils all */
    {"bytes=0-1,5-4", 1000, WHOLE},
    {"bytes=0-1,x", 1000, WHOLE},
    {"bytes=2000-,x", 1000, WHOLE},
    {"bytes=0-1;5-6", 1000, WHOLE},
    {"bytes=0-1 500-501", 1000, WHOLE},
    {"bytes=0-1,bytes=500-501", 1000, WHOLE},
    /* overlapping, adjacent and close ones are one */
    {"bytes=0-9,5-19", 1000, AG_RANGE_PART, "0+20"},
    {"bytes=5-19,0-9", 1000, AG_RANGE_PART, "0+20"},
    {"bytes=0-99,10-19", 1000, AG_RANGE_PART, "0+100"},
    {"bytes=10-19,0-99", 1000, AG_RANGE_PART, "0+100"},
    {"bytes=7-7,7-7", 1000, AG_RANGE_PART, "7+1"},
    {"bytes=0-1,2-3", 1000, AG_RANGE_PART, "0+4"},
    {"bytes=2-3,0-1", 1000, AG_RANGE_PART, "0+4"},
    {"bytes=0-1,3-4", 1000, AG_RANGE_PART, "0+5"},
    {"bytes=0-0,80-80", 1000, AG_RANGE_PART, "0+81"},
    {"bytes=0-0,81-81", 1000, AG_RANGE_PART, "0+1 81+1"},
    {"bytes=81-81,0-0", 1000, AG_RANGE_PART, "81+1 0+1"},
    {"bytes=500-509,0-9,510-519,300-309,10-19", 1000, AG_RANGE_PART, "500+20 0+20 300+10"},
    {"bytes=0-9,900-909,200-209,100-109,150-199", 1000, AG_RANGE_PART, "0+10 900+10 100+110"},
    {"bytes=0-9,100-109,200-209,9-100", 1000, AG_RANGE_PART, "0+110 200+10"},
    {"bytes=0-9,100-109,200-209,300-309,105-305", 1000, AG_RANGE_PART, "0+10 100+210"},
    /* at most so many, whatever becomes of them */
    {"bytes=" SIXTEEN, 2000, AG_RANGE_PART,
     "0+1 100+1 200+1 300+1 400+1 500+1 600+1 700+1 800+1 900+1 1000+1 1100+1 1200+1 1300+1 1400+1 "
     "1500+1"},
    {"bytes=" SIXTEEN ",1600-1600", 2000, WHOLE},
    {"bytes=" SIXTEEN ",0-0", 2000, WHOLE},
    {"bytes=" SIXTEEN ",2000-", 2000, WHOLE},
    {"bytes=,,,,,,,,,,,,,,,,,,,0-0", 2000, AG_RANGE_PART, "0+1"},
    /* and no more than all */
    {"bytes=0-499,500-999", 1000, AG_RANGE_PART, "0+1000"},
    {"bytes=0-499,499-999", 1000, WHOLE},
    {"bytes=0-,0-,0-", 1000, WHOLE},
    {"bytes=0-,-1", 1000, WHOLE},
    {"bytes=0-18446744073709551614,0-18446744073709551614", 18446744073709551615u, WHOLE},
};

/* "from+len from+len" */
static const char *text_of(enum ag_range_result result, const struct ag_ranges *r)
{
    static char text[1024];
    size_t n = 0;

    text[0] = '\0';
    for (uint32_t i = 0; result == AG_RANGE_PART && i < r->count; i++) {
        n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%llu+%llu", i ? " " : "",
                              (unsigned long long)r->v[i].from, (unsigned long long)r->v[i].len);
    }
    return text;
}

Test(range, rows)
{
    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        const struct row *r = &rows[i];
        struct ag_ranges got;
        size_t n = strlen(r->value);
        uint8_t *cut = malloc(n + !n);
        AG_ASSERT(cut);
        memcpy(cut, r->value, n);
        enum ag_range_result result = ag_range_parse(ag_span(cut, n), r->size, &got);
        cr_expect(result == r->want, "%s", r->value);
        cr_expect_str_eq(text_of(result, &got), r->ranges, "%s: %s", r->value,
                         text_of(result, &got));
        free(cut);
    }
}

#define SIZE 1200u

/* What a reader of the standard would keep of a file: the bytes asked for, and gaps too small to part them. */
Test(range, by_chance)
{
    uint64_t random[4] = {1, 2, 3, 4};

    for (int run = 0; run < 20000; run++) {
        bool asked[SIZE] = {false}, given[SIZE] = {false};
        uint32_t count = 1 + (uint32_t)(ag_random_next(random) % AG_RANGES_MAX), sum = 0;
        char value[512] = "bytes=";
        size_t n = strlen(value), parts = 0;
        struct ag_ranges got;

        for (uint32_t i = 0; i < count; i++) {
            uint32_t from = (uint32_t)(ag_random_next(random) % SIZE);
            uint32_t len = 1 + (uint32_t)(ag_random_next(random) % 100);
            len = len < SIZE - from ? len : SIZE - from;
            n += (size_t)snprintf(value + n, sizeof(value) - n, "%u-%u,", from, from + len - 1);
            memset(asked + from, true, len);
            sum += len;
        }
        for (uint32_t at = 0, end = 0; at < SIZE; at++) {
            if (asked[at]) {
                if (parts && at - end < AG_RANGE_GAP_BYTES) {
                    memset(asked + end, true, at - end);
                } else {
                    parts++;
                }
                end = at + 1;
            }
        }
        enum ag_range_result result = ag_range_parse(ag_span_str(value), SIZE, &got);
        cr_assert(result == (sum > SIZE ? AG_RANGE_WHOLE : AG_RANGE_PART), "%s", value);
        if (result == AG_RANGE_PART) {
            for (uint32_t i = 0; i < got.count; i++) {
                memset(given + got.v[i].from, true, got.v[i].len);
            }
            cr_assert(got.count == parts && memcmp(asked, given, SIZE) == 0, "%s", value);
        }
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
