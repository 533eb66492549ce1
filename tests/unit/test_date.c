/*
 * Goal: the three forms of RFC 9110 section 5.6.7 are read, ranges are strict, and what is written
 * reads back as the same second.
 */
#include "proto/date.h"

#include <criterion/criterion.h>

#include <stdio.h>
#include <time.h>

Test(date, the_three_forms)
{
    static const char *const rows[] = {"Sun, 06 Nov 1994 08:49:37 GMT",
                                       "Sunday, 06-Nov-94 08:49:37 GMT",
                                       "Sun Nov  6 08:49:37 1994"};

    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        int64_t got = 0;
        cr_expect_eq(ag_date_parse(ag_span_str(rows[i]), &got), AG_OK, "%s", rows[i]);
        cr_expect_eq(got, 784111777, "%s", rows[i]);
    }
}

Test(date, other_good_dates)
{
    static const struct {
        const char *text;
        int64_t want;
    } rows[] = {
        {"Thu, 01 Jan 1970 00:00:00 GMT", 0},
        {"Wed, 31 Dec 1969 23:59:59 GMT", -1},
        {"Tue, 29 Feb 2000 00:00:00 GMT", 951782400},
        {"Thu, 29 Feb 2024 12:00:00 GMT", 1709208000},
        {"Sat, 31 Dec 2016 23:59:60 GMT", 1483228800}, /* a leap second */
        {"Fri, 31 Dec 9999 23:59:59 GMT", 253402300799},
        {"Tue Mar 10 01:02:03 2026", 1773104523},
        {"Saturday, 31-Dec-16 23:59:59 GMT", 1483228799},
    };

    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        int64_t got = 77;
        cr_expect_eq(ag_date_parse(ag_span_str(rows[i].text), &got), AG_OK, "%s", rows[i].text);
        cr_expect_eq(got, rows[i].want, "%s: %lld", rows[i].text, (long long)got);
    }
}

Test(date, bad_dates)
{
    static const char *const rows[] = {
        "",
        "S",
        "Sun",
        "Sun,",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 GMT ",
        " Sun, 06 Nov 1994 08:49:37 GMT",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 94 08:49:37 GMT",
        "Sun,06 Nov 1994 08:49:37 GMT",
        "sun, 06 Nov 1994 08:49:37 GMT",
        "Sun, 06 nov 1994 08:49:37 GMT",
        "Xyz, 06 Nov 1994 08:49:37 GMT",
        "Sun, 00 Nov 1994 08:49:37 GMT",
        "Sun, 31 Nov 1994 08:49:37 GMT",
        "Sun, 32 Jan 1994 08:49:37 GMT",
        "Wed, 29 Feb 2023 00:00:00 GMT",
        "Thu, 29 Feb 1900 00:00:00 GMT",
        "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 06 Nov 1994 08:60:37 GMT",
        "Sun, 06 Nov 1994 08:49:61 GMT",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 08:49:37 +0000",
        "Sun, 06 Nov 1994 8:49:37 GMT",
        "Sun, 06 Nov 1994 08-49-37 GMT",
        "Sun, 06 Nov +994 08:49:37 GMT",
        "Sunday, 06-Nov-1994 08:49:37 GMT",
        "Sunday, 06 Nov 94 08:49:37 GMT",
        "Sundey, 06-Nov-94 08:49:37 GMT",
        "Sun Nov 6 08:49:37 1994",
        "Sun Nov 06 08:49:37 94",
        "Sun Nov  6 08:49:37 1994 GMT",
        "784111777",
        "0",
    };

    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        int64_t got = 77;
        cr_expect_eq(ag_date_parse(ag_span_str(rows[i]), &got), AG_EINVAL, "%s", rows[i]);
        cr_expect_eq(got, 77, "untouched on failure");
    }
}

Test(date, two_digit_years)
{
    /* More than 50 years ahead, counted from 2026, is the past (RFC 9110 section 5.6.7). */
    for (unsigned year = 0; year < 100; year++) {
        char text[64], same[64];
        int64_t got = 0, want = 1;

        (void)snprintf(text, sizeof(text), "Monday, 01-Mar-%02u 00:00:01 GMT", year);
        (void)snprintf(same, sizeof(same), "Mon, 01 Mar %u 00:00:01 GMT",
                       year + (year > 75 ? 1900 : 2000));
        cr_assert_eq(ag_date_parse(ag_span_str(text), &got), AG_OK, "%s", text);
        cr_assert_eq(ag_date_parse(ag_span_str(same), &want), AG_OK, "%s", same);
        cr_expect_eq(got, want, "%s", text);
    }
}

Test(date, formats_like_the_c_library)
{
    /* Steps of a prime number of seconds, over every month and all leap rules. */
    for (int64_t t = -2208988800; t < 7258118400; t += 7654321) {
        uint8_t got[AG_DATE_LEN];
        char want[64];
        time_t clock = (time_t)t;
        struct tm tm;
        int64_t back = 0;

        cr_assert(gmtime_r(&clock, &tm));
        cr_assert_eq(strftime(want, sizeof(want), "%a, %d %b %Y %H:%M:%S GMT", &tm), AG_DATE_LEN);
        ag_date_format(t, got);
        cr_assert_eq(memcmp(got, want, AG_DATE_LEN), 0, "%s", want);
        cr_assert_eq(ag_date_parse(ag_span(got, AG_DATE_LEN), &back), AG_OK);
        cr_assert_eq(back, t);
    }
}

Test(date, clamps_what_four_digits_cannot_say)
{
    uint8_t got[AG_DATE_LEN];

    ag_date_format(INT64_MAX, got);
    cr_expect_eq(memcmp(got, "Fri, 31 Dec 9999 23:59:59 GMT", AG_DATE_LEN), 0);
    ag_date_format(INT64_MIN, got);
    cr_expect_eq(memcmp(got, "Sat, 01 Jan 0000 00:00:00 GMT", AG_DATE_LEN), 0);
}
