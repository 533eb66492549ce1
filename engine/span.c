#include "engine/span.h"

#include <stdarg.h>
#include <stdio.h>

/* Bytes in which two words may differ before ag_span_distance stops counting: bounds its stack and
 * its time (quadratic). No keyword comes near it. */
#define DISTANCE_MAX 64u

/* ag_ascii_lower of eight bytes: the top bit of each sum tells whether a byte is at least that letter. */
static uint64_t lower64(uint64_t x)
{
    const uint64_t each = 0x0101010101010101u, top = 0x80 * each;
    uint64_t low = x & ~top;
    uint64_t upper = (low + (0x80 - 'A') * each) & ~(low + (0x7f - 'Z') * each) & ~x & top;

    return x | upper >> 2;
}

bool ag_bytes_ieq(const uint8_t *a, const uint8_t *b, size_t len)
{
    /* Words overlap at the end instead of a tail. */
    if (len >= 8) {
        uint64_t diff = lower64(ag_load64(a + len - 8)) ^ lower64(ag_load64(b + len - 8));

        for (size_t i = 0; i + 8 < len && diff == 0; i += 8) {
            diff = lower64(ag_load64(a + i)) ^ lower64(ag_load64(b + i));
        }
        return diff == 0;
    }
    if (len >= 4) {
        uint64_t x = (uint64_t)ag_load32(a) << 32 | ag_load32(a + len - 4);
        uint64_t y = (uint64_t)ag_load32(b) << 32 | ag_load32(b + len - 4);

        return lower64(x) == lower64(y);
    }
    for (size_t i = 0; i < len; i++) {
        if (ag_ascii_lower(a[i]) != ag_ascii_lower(b[i])) {
            return false;
        }
    }
    return true;
}

size_t ag_span_find(struct ag_span s, uint8_t ch)
{
    const uint8_t *at = s.len ? memchr(s.ptr, ch, s.len) : NULL;

    return at ? (size_t)(at - s.ptr) : s.len;
}

static bool is_ows(uint8_t ch)
{
    return ch == ' ' || ch == '\t';
}

struct ag_span ag_span_trim(struct ag_span s)
{
    size_t from = 0, to = s.len;

    while (from < to && is_ows(s.ptr[from])) {
        from++;
    }
    while (to > from && is_ows(s.ptr[to - 1])) {
        to--;
    }
    return ag_span_sub(s, from, to);
}

enum ag_status ag_span_u64(struct ag_span s, uint64_t *out_value)
{
    uint64_t value = 0;

    if (s.len == 0) {
        return AG_EINVAL;
    }
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] < '0' || s.ptr[i] > '9' || __builtin_mul_overflow(value, 10u, &value) ||
            __builtin_add_overflow(value, (uint64_t)(s.ptr[i] - '0'), &value)) {
            return AG_EINVAL;
        }
    }
    *out_value = value;
    return AG_OK;
}

static unsigned min3(unsigned a, unsigned b, unsigned c)
{
    unsigned m = a < b ? a : b;

    return m < c ? m : c;
}

/* Three rows suffice: a transposition looks back two. Both lengths are at most DISTANCE_MAX. */
static unsigned distance(struct ag_span a, struct ag_span b)
{
    unsigned rows[3][DISTANCE_MAX + 1];

    for (unsigned j = 0; j <= b.len; j++) {
        rows[0][j] = j;
    }
    for (unsigned i = 1; i <= a.len; i++) {
        unsigned *row = rows[i % 3], *up = rows[(i + 2) % 3], *up2 = rows[(i + 1) % 3];

        row[0] = i;
        for (unsigned j = 1; j <= b.len; j++) {
            unsigned change = a.ptr[i - 1] == b.ptr[j - 1] ? 0 : 1;

            row[j] = min3(up[j] + 1, row[j - 1] + 1, up[j - 1] + change);
            if (i > 1 && j > 1 && a.ptr[i - 1] == b.ptr[j - 2] && a.ptr[i - 2] == b.ptr[j - 1] &&
                up2[j - 2] + 1 < row[j]) {
                row[j] = up2[j - 2] + 1;
            }
        }
    }
    return rows[a.len % 3][b.len];
}

unsigned ag_span_distance(struct ag_span a, struct ag_span b, unsigned cap)
{
    /* A common head or tail never changes the distance. */
    while (a.len && b.len && a.ptr[0] == b.ptr[0]) {
        a = ag_span_sub(a, 1, a.len);
        b = ag_span_sub(b, 1, b.len);
    }
    while (a.len && b.len && a.ptr[a.len - 1] == b.ptr[b.len - 1]) {
        a.len--;
        b.len--;
    }
    size_t apart = a.len > b.len ? a.len - b.len : b.len - a.len;
    if (apart >= cap || a.len > DISTANCE_MAX || b.len > DISTANCE_MAX) {
        return cap;
    }
    unsigned d = distance(a, b);
    return d < cap ? d : cap;
}

void ag_buf_put_u64(struct ag_buf *b, uint64_t value)
{
    uint8_t digits[20];
    size_t at = sizeof(digits);

    if (value < 10) {
        ag_buf_putc(b, (uint8_t)('0' + value));
        return;
    }
    do {
        digits[--at] = (uint8_t)('0' + value % 10);
        value /= 10;
    } while (value);
    ag_buf_put(b, ag_span(digits + at, sizeof(digits) - at));
}

void ag_buf_put_hex(struct ag_buf *b, uint64_t value)
{
    static const char hex[] = "0123456789abcdef";
    uint8_t digits[16];
    size_t at = sizeof(digits);

    do {
        digits[--at] = (uint8_t)hex[value & 15];
        value >>= 4;
    } while (value);
    ag_buf_put(b, ag_span(digits + at, sizeof(digits) - at));
}

void ag_buf_printf(struct ag_buf *b, const char *fmt, ...)
{
    size_t room = b->cap - b->len;
    va_list args;

    va_start(args, fmt);
    int n = vsnprintf(room ? (char *)b->ptr + b->len : NULL, room, fmt, args);
    va_end(args);
    AG_ASSERT(n >= 0);
    if (n > 0 && (size_t)n >= room) {
        b->overflow = true;
        return;
    }
    b->len += (size_t)n;
}
