/*
 * Goal: byte helpers are right at their edges: empty, full, overflow, letters that only look alike.
 * Method: tables; exact-size heap copies so that ASan sees a read past the end; the edit distance
 * against a plain recursive definition on random words.
 */
#include "engine/span.h"

#include <criterion/criterion.h>
#include <stdio.h>

/* A copy in a heap block of exactly its size. */
static struct ag_span tight(const char *s)
{
    size_t len = strlen(s);
    uint8_t *p = malloc(len ? len : 1);

    cr_assert(p);
    memcpy(p, s, len);
    return ag_span(p, len);
}

static void tight_free(struct ag_span s)
{
    free((void *)(uintptr_t)s.ptr);
}

/* By words, which overlap at the end: each length, each place, each byte against each other. */
Test(span, ieq_is_the_same_by_words)
{
    for (size_t len = 1; len <= 20; len++) {
        uint8_t *a = malloc(len), *b = malloc(len); /* exact, so that a read beyond is seen */

        for (size_t i = 0; i < len; i++) {
            a[i] = (uint8_t)("aZ-09_~@")[i % 8];
        }
        for (size_t at = 0; at < len; at++) {
            for (unsigned x = 0; x < 256; x++) {
                memcpy(b, a, len);
                b[at] = (uint8_t)x;
                cr_assert_eq(ag_bytes_ieq(a, b, len),
                             ag_ascii_lower(a[at]) == ag_ascii_lower((uint8_t)x),
                             "length %zu, place %zu, byte %u", len, at, x);
            }
        }
        free(a);
        free(b);
    }
    for (unsigned x = 0; x < 256; x++) {
        for (unsigned y = 0; y < 256; y++) {
            uint8_t a[8], b[8];

            memset(a, (int)x, sizeof(a));
            memset(b, (int)y, sizeof(b));
            cr_assert_eq(ag_bytes_ieq(a, b, sizeof(a)),
                         ag_ascii_lower((uint8_t)x) == ag_ascii_lower((uint8_t)y));
        }
    }
}

Test(span, ieq_folds_ascii_letters_only)
{
    static const struct {
        const char *a, *b;
        bool want;
    } rows[] = {
        {"", "", true},
        {"Host", "hOST", true},
        {"host", "hos", false},
        {"@", "`", false},
        {"[", "{", false},
        {"Z", "z", true},
        {"\xc3\x84", "\xc3\xa4", false},
        {"k", "\xe2", false},
        {"-_", "-_", true},
        {"a\x5f", "A\x7f", false},
    };

    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        struct ag_span a = tight(rows[i].a), b = tight(rows[i].b);

        cr_expect_eq(ag_span_ieq(a, b), rows[i].want, "row %zu", i);
        cr_expect_eq(ag_span_ieq(b, a), rows[i].want, "row %zu", i);
        tight_free(a);
        tight_free(b);
    }
    cr_expect(ag_span_ieq(ag_span("a\0B", 3), ag_span("A\0b", 3)));
    cr_expect_not(ag_span_ieq(ag_span("a\0B", 3), ag_span("A\0c", 3)));
    for (unsigned ch = 0; ch < 256; ch++) {
        bool upper = ch >= 'A' && ch <= 'Z';

        cr_expect_eq(ag_ascii_lower((uint8_t)ch), upper ? ch + 32 : ch);
    }
}

Test(span, find_trim_starts)
{
    cr_expect_eq(ag_span_find(AG_SPAN("abca"), 'a'), 0);
    cr_expect_eq(ag_span_find(AG_SPAN("abca"), 'c'), 2);
    cr_expect_eq(ag_span_find(AG_SPAN("abca"), 'x'), 4);
    cr_expect_eq(ag_span_find((struct ag_span){NULL, 0}, 'x'), 0);
    cr_expect_eq(ag_span_find(ag_span("a\0b", 3), 0), 1);

    cr_expect(ag_span_eq(ag_span_trim(AG_SPAN(" \t a b\t ")), AG_SPAN("a b")));
    cr_expect_eq(ag_span_trim(AG_SPAN(" \t ")).len, 0);
    cr_expect_eq(ag_span_trim(AG_SPAN("")).len, 0);
    /* Only OWS: a line break or a NUL is not space. */
    cr_expect(ag_span_eq(ag_span_trim(AG_SPAN(" \r\na\v ")), AG_SPAN("\r\na\v")));

    cr_expect(ag_span_starts(AG_SPAN("abc"), AG_SPAN("ab")));
    cr_expect(ag_span_starts(AG_SPAN("abc"), (struct ag_span){NULL, 0}));
    cr_expect_not(ag_span_starts(AG_SPAN("ab"), AG_SPAN("abc")));
    cr_expect_not(ag_span_starts(AG_SPAN("xbc"), AG_SPAN("ab")));
}

Test(span, u64_takes_digits_alone)
{
    static const struct {
        const char *text;
        bool ok;
        uint64_t value;
    } rows[] = {
        {"0", true, 0},
        {"007", true, 7},
        {"18446744073709551615", true, UINT64_MAX},
        {"18446744073709551616", false, 0},
        {"18446744073709551625", false, 0},
        {"99999999999999999999999", false, 0},
        {"", false, 0},
        {"+1", false, 0},
        {"-1", false, 0},
        {" 1", false, 0},
        {"1 ", false, 0},
        {"0x10", false, 0},
        {"1a", false, 0},
        {"/", false, 0},
        {":", false, 0},
    };

    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        struct ag_span s = tight(rows[i].text);
        uint64_t value = 4711;
        enum ag_status st = ag_span_u64(s, &value);

        cr_expect_eq(st, rows[i].ok ? AG_OK : AG_EINVAL, "%s", rows[i].text);
        cr_expect_eq(value, rows[i].ok ? rows[i].value : 4711, "%s", rows[i].text);
        tight_free(s);
    }
}

static unsigned min2(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

/* Optimal string alignment by its definition; exponential, for short words. */
static unsigned osa(const char *a, size_t i, const char *b, size_t j)
{
    if (i == 0 || j == 0) {
        return (unsigned)(i + j);
    }
    unsigned d = osa(a, i - 1, b, j - 1) + (a[i - 1] != b[j - 1]);
    d = min2(d, osa(a, i - 1, b, j) + 1);
    d = min2(d, osa(a, i, b, j - 1) + 1);
    if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        d = min2(d, osa(a, i - 2, b, j - 2) + 1);
    }
    return d;
}

Test(span, distance)
{
    cr_expect_eq(ag_span_distance(AG_SPAN("FORBIDEN"), AG_SPAN("FORBIDDEN"), 9), 1);
    cr_expect_eq(ag_span_distance(AG_SPAN("ab"), AG_SPAN("ba"), 9), 1);
    cr_expect_eq(ag_span_distance(AG_SPAN("ca"), AG_SPAN("abc"), 9), 3); /* OSA, not Damerau's 2 */
    cr_expect_eq(ag_span_distance(AG_SPAN("kitten"), AG_SPAN("sitting"), 9), 3);
    cr_expect_eq(ag_span_distance(AG_SPAN("kitten"), AG_SPAN("sitting"), 2), 2);
    cr_expect_eq(ag_span_distance(AG_SPAN(""), AG_SPAN(""), 0), 0);
    cr_expect_eq(ag_span_distance(AG_SPAN(""), AG_SPAN("abc"), 9), 3);

    srand(1);
    for (int round = 0; round < 2000; round++) {
        char a[6], b[6];
        size_t na = (size_t)rand() % sizeof(a), nb = (size_t)rand() % sizeof(b);

        for (size_t i = 0; i < na; i++) {
            a[i] = (char)('a' + rand() % 3);
        }
        for (size_t i = 0; i < nb; i++) {
            b[i] = (char)('a' + rand() % 3);
        }
        cr_assert_eq(ag_span_distance(ag_span(a, na), ag_span(b, nb), 99), osa(a, na, b, nb),
                     "%.*s %.*s", (int)na, a, (int)nb, b);
    }
}

Test(span, distance_of_long_words_is_bounded)
{
    static char a[100000], b[100000];

    memset(a, 'a', sizeof(a));
    memset(b, 'b', sizeof(b));
    cr_expect_eq(ag_span_distance(ag_span(a, sizeof(a)), ag_span(b, sizeof(b)), 3), 3);
    memset(b, 'a', sizeof(b));
    b[50000] = 'x';
    cr_expect_eq(ag_span_distance(ag_span(a, sizeof(a)), ag_span(b, sizeof(b)), 3), 1);
}

Test(buf, numbers)
{
    static const uint64_t values[] = {0, 7, 10, 99, 100, 255, 4096, UINT32_MAX, UINT64_MAX};

    for (size_t i = 0; i < AG_COUNT(values); i++) {
        uint8_t out[20];
        char want[32];
        struct ag_buf b = ag_buf(out, sizeof(out));

        ag_buf_put_u64(&b, values[i]);
        (void)snprintf(want, sizeof(want), "%lu", values[i]);
        cr_expect(ag_span_eq(ag_buf_span(&b), ag_span_str(want)));
        b = ag_buf(out, sizeof(out));
        ag_buf_put_hex(&b, values[i]);
        (void)snprintf(want, sizeof(want), "%lx", values[i]);
        cr_expect(ag_span_eq(ag_buf_span(&b), ag_span_str(want)));
        cr_expect_not(b.overflow);
    }
}

Test(buf, what_does_not_fit_is_not_written)
{
    uint8_t *out = malloc(4);
    struct ag_buf b = ag_buf(out, 4);

    cr_assert(out);
    ag_buf_put(&b, AG_SPAN("abc"));
    ag_buf_put(&b, AG_SPAN("de"));
    cr_expect(b.overflow);
    cr_expect_eq(b.len, 3);
    ag_buf_putc(&b, 'd');
    cr_expect(ag_span_eq(ag_buf_span(&b), AG_SPAN("abcd")));
    ag_buf_putc(&b, 'e');
    ag_buf_put(&b, AG_SPAN(""));
    cr_expect_eq(b.len, 4);

    b = ag_buf(out, 4);
    ag_buf_printf(&b, "%d", 123);
    cr_expect(ag_span_eq(ag_buf_span(&b), AG_SPAN("123")));
    cr_expect_not(b.overflow);
    ag_buf_printf(&b, "%d", 4);
    cr_expect(b.overflow);
    cr_expect_eq(b.len, 3);
    b.overflow = false;
    ag_buf_printf(&b, "%s", "");
    cr_expect_not(b.overflow);
    free(out);

    b = ag_buf(NULL, 0);
    ag_buf_put(&b, (struct ag_span){NULL, 0});
    ag_buf_printf(&b, "%s", "");
    cr_expect_not(b.overflow);
    ag_buf_printf(&b, "x");
    cr_expect(b.overflow);
}
