#include "proto/date.h"

#define DAY_S 86400
/* Years of four digits: what a fixdate can say. File times may lie beyond. */
#define YEAR_0_S    (-62167219200)
#define YEAR_9999_S 253402300799

static const char month_names[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
static const char day_names[] = "SunMonTueWedThuFriSat";
static const char *const long_day_names[] = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                             "Thursday", "Friday", "Saturday"};

/* RFC 850's two-digit years from here on are of the last century: more than 50 years after 2026
 * begins (RFC 9110 section 5.6.7). A constant, for there is no clock here; it may move with the
 * decades. */
#define CENTURY_SPLIT 76

struct civil {
    int64_t year;
    unsigned month; /* 1.. */
    unsigned day;   /* 1.. */
    unsigned hour, minute, second;
};

/* Days since 1970-01-01 in the proleptic Gregorian calendar; years begin in March, so that the leap
 * day is a year's last (H. Hinnant, "chrono-Compatible Low-Level Date Algorithms"). */
static int64_t days_from_civil(int64_t year, unsigned month, unsigned day)
{
    int64_t y = year - (month <= 2);
    int64_t era = (y >= 0 ? y : y - 399) / 400;
    int64_t of_era = y - era * 400;
    int64_t of_year = (153 * (int64_t)(month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;

    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

static void civil_from_days(int64_t days, struct civil *out)
{
    int64_t z = days + 719468;
    int64_t era = (z >= 0 ? z : z - 146096) / 146097;
    int64_t of_era = z - era * 146097;
    int64_t year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int64_t of_year = of_era - (365 * year + year / 4 - year / 100);
    int64_t month = (5 * of_year + 2) / 153;

    out->day = (unsigned)(of_year - (153 * month + 2) / 5 + 1);
    out->month = (unsigned)(month < 10 ? month + 3 : month - 9);
    out->year = year + era * 400 + (out->month <= 2);
}

static uint8_t *put_digits(uint8_t *at, unsigned value, unsigned count)
{
    for (unsigned i = count; i > 0; i--) {
        at[i - 1] = (uint8_t)('0' + value % 10);
        value /= 10;
    }
    return at + count;
}

static uint8_t *put(uint8_t *at, const char *text, size_t len)
{
    memcpy(at, text, len);
    return at + len;
}

void ag_date_format(int64_t seconds, uint8_t out[static AG_DATE_LEN])
{
    struct civil c;
    uint8_t *at = out;

    seconds = seconds < YEAR_0_S ? YEAR_0_S : seconds > YEAR_9999_S ? YEAR_9999_S : seconds;
    int64_t of_day = ((seconds % DAY_S) + DAY_S) % DAY_S;
    int64_t days = (seconds - of_day) / DAY_S;
    civil_from_days(days, &c);
    size_t weekday = (size_t)(((days + 4) % 7 + 7) % 7); /* 1970-01-01 was a Thursday */

    at = put(at, day_names + 3 * weekday, 3);
    at = put(at, ", ", 2);
    at = put_digits(at, c.day, 2);
    *at++ = ' ';
    at = put(at, month_names + (size_t)3 * (c.month - 1), 3);
    *at++ = ' ';
    at = put_digits(at, (unsigned)c.year, 4);
    *at++ = ' ';
    at = put_digits(at, (unsigned)(of_day / 3600), 2);
    *at++ = ':';
    at = put_digits(at, (unsigned)(of_day / 60 % 60), 2);
    *at++ = ':';
    at = put_digits(at, (unsigned)(of_day % 60), 2);
    at = put(at, " GMT", 4);
    AG_ASSERT(at == out + AG_DATE_LEN);
}

/* A cursor over the text; a step that does not match sets `bad`, and all later ones fail too. */
struct reader {
    struct ag_span rest;
    bool bad;
};

static void skip(struct reader *r, const char *text)
{
    struct ag_span want = ag_span_str(text);

    if (r->bad || !ag_span_starts(r->rest, want)) {
        r->bad = true;
        return;
    }
    r->rest = ag_span_sub(r->rest, want.len, r->rest.len);
}

static unsigned digits(struct reader *r, unsigned count)
{
    unsigned value = 0;

    if (r->bad || r->rest.len < count) {
        r->bad = true;
        return 0;
    }
    for (unsigned i = 0; i < count; i++) {
        unsigned digit = r->rest.ptr[i] - (unsigned)'0';
        if (digit > 9) {
            r->bad = true;
            return 0;
        }
        value = value * 10 + digit;
    }
    r->rest = ag_span_sub(r->rest, count, r->rest.len);
    return value;
}

/* One of the three-letter names in `names`: its index. Names are case-sensitive (5.6.7). */
static unsigned name3(struct reader *r, const char *names, unsigned count)
{
    for (unsigned i = 0; !r->bad && r->rest.len >= 3 && i < count; i++) {
        if (memcmp(r->rest.ptr, names + (size_t)3 * i, 3) == 0) {
            r->rest = ag_span_sub(r->rest, 3, r->rest.len);
            return i;
        }
    }
    r->bad = true;
    return 0;
}

static void time_of_day(struct reader *r, struct civil *c)
{
    c->hour = digits(r, 2);
    skip(r, ":");
    c->minute = digits(r, 2);
    skip(r, ":");
    c->second = digits(r, 2);
}

/* "Sun, 06 Nov 1994 08:49:37 GMT" */
static void fixdate(struct reader *r, struct civil *c)
{
    (void)name3(r, day_names, 7);
    skip(r, ", ");
    c->day = digits(r, 2);
    skip(r, " ");
    c->month = name3(r, month_names, 12) + 1;
    skip(r, " ");
    c->year = digits(r, 4);
    skip(r, " ");
    time_of_day(r, c);
    skip(r, " GMT");
}

/* "Sun Nov  6 08:49:37 1994" */
static void asctime_date(struct reader *r, struct civil *c)
{
    (void)name3(r, day_names, 7);
    skip(r, " ");
    c->month = name3(r, month_names, 12) + 1;
    skip(r, " ");
    if (!r->bad && r->rest.len && r->rest.ptr[0] == ' ') {
        skip(r, " ");
        c->day = digits(r, 1);
    } else {
        c->day = digits(r, 2);
    }
    skip(r, " ");
    time_of_day(r, c);
    skip(r, " ");
    c->year = digits(r, 4);
}

/* "Sunday, 06-Nov-94 08:49:37 GMT"; `day_len` is the length of the day's name. The year keeps its
 * two digits. */
static void rfc850_date(struct reader *r, size_t day_len, struct civil *c)
{
    r->rest = ag_span_sub(r->rest, day_len, r->rest.len);
    skip(r, ", ");
    c->day = digits(r, 2);
    skip(r, "-");
    c->month = name3(r, month_names, 12) + 1;
    skip(r, "-");
    c->year = digits(r, 2);
    skip(r, " ");
    time_of_day(r, c);
    skip(r, " GMT");
}

static bool in_range(const struct civil *c)
{
    static const uint8_t month_days[] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = c->year % 4 == 0 && (c->year % 100 != 0 || c->year % 400 == 0);

    if (c->day < 1 || c->day > month_days[c->month - 1] ||
        (c->month == 2 && c->day == 29 && !leap)) {
        return false;
    }
    /* Second 60 is a leap second (RFC 9110 section 5.6.7); it counts as the next one. */
    return c->hour <= 23 && c->minute <= 59 && c->second <= 60;
}

static int64_t seconds_of(const struct civil *c)
{
    int64_t hour = c->hour, minute = c->minute;

    return days_from_civil(c->year, c->month, c->day) * DAY_S + hour * 3600 + minute * 60 +
           c->second;
}

enum ag_status ag_date_parse(struct ag_span s, int64_t *out_seconds)
{
    struct reader r = {s, false};
    struct civil c = {.month = 1};
    size_t day_len = 0;

    for (size_t i = 0; i < AG_COUNT(long_day_names); i++) {
        if (ag_span_starts(s, ag_span_str(long_day_names[i]))) {
            day_len = strlen(long_day_names[i]);
        }
    }
    if (day_len) {
        rfc850_date(&r, day_len, &c);
        c.year += c.year < CENTURY_SPLIT ? 2000 : 1900;
    } else if (s.len > 3 && s.ptr[3] == ',') {
        fixdate(&r, &c);
    } else {
        asctime_date(&r, &c);
    }
    if (r.bad || r.rest.len || !in_range(&c)) {
        return AG_EINVAL;
    }
    *out_seconds = seconds_of(&c);
    return AG_OK;
}
