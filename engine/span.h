/*
 * span: borrowed bytes, and a fixed-capacity buffer to write bytes into.
 *
 * A span never owns; it is valid as long as what it points into. A buf never grows: a write that
 * does not fit sets `overflow` and writes nothing, so a long sequence of puts is checked once.
 */
#pragma once
#include "engine/base.h"

struct ag_span {
    const uint8_t *ptr; /* may be NULL when len is 0 */
    size_t len;         /* bytes */
};

/* The span of a string literal, without its NUL. */
#define AG_SPAN(lit) ((struct ag_span){(const uint8_t *)("" lit), sizeof(lit) - 1})
/* The same as an initialiser of static data. */
#define AG_SPAN_INIT(lit)                          \
    {                                              \
        (const uint8_t *)("" lit), sizeof(lit) - 1 \
    }

static inline struct ag_span ag_span(const void *ptr, size_t len)
{
    return (struct ag_span){(const uint8_t *)ptr, len};
}

static inline struct ag_span ag_span_str(const char *s)
{
    return ag_span(s, strlen(s));
}

static inline bool ag_span_eq(struct ag_span a, struct ag_span b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

/* Bytes [from, to) of `s`; both must lie within it. */
static inline struct ag_span ag_span_sub(struct ag_span s, size_t from, size_t to)
{
    AG_ASSERT(from <= to && to <= s.len);
    return (struct ag_span){s.ptr + from, to - from};
}

static inline bool ag_span_starts(struct ag_span s, struct ag_span prefix)
{
    return s.len >= prefix.len && (prefix.len == 0 || memcmp(s.ptr, prefix.ptr, prefix.len) == 0);
}

static inline uint8_t ag_ascii_lower(uint8_t ch)
{
    return (uint8_t)(ch >= 'A' && ch <= 'Z' ? ch | 0x20 : ch);
}

/* Words of text, of any alignment. */
static inline uint64_t ag_load64(const uint8_t *p)
{
    uint64_t x;

    memcpy(&x, p, sizeof(x));
    return x;
}

static inline uint32_t ag_load32(const uint8_t *p)
{
    uint32_t x;

    memcpy(&x, p, sizeof(x));
    return x;
}

/* memcpy of what is often a few words, for which a call costs more than the copy; words overlap at the end. Of no
 * bytes both may be NULL. */
static inline void ag_copy(uint8_t *to, const uint8_t *from, size_t len)
{
    uint64_t a, b;

    if (__builtin_constant_p(len) || len > 16) {
        memcpy(to, from, len);
    } else if (len >= 8) {
        memcpy(&a, from, 8);
        memcpy(&b, from + len - 8, 8);
        memcpy(to, &a, 8);
        memcpy(to + len - 8, &b, 8);
    } else if (len >= 4) {
        uint32_t c, d;

        memcpy(&c, from, 4);
        memcpy(&d, from + len - 4, 4);
        memcpy(to, &c, 4);
        memcpy(to + len - 4, &d, 4);
    } else if (len) {
        to[0] = from[0];
        to[len / 2] = from[len / 2];
        to[len - 1] = from[len - 1];
    }
}

/* Copies `s` to where there is room for it, and returns its end. Inlined: of text that is known where it is called a few
 * stores are left. */
static inline __attribute__((always_inline)) uint8_t *ag_put(uint8_t *to, struct ag_span s)
{
    ag_copy(to, s.ptr, s.len);
    return to + s.len;
}

bool ag_bytes_ieq(const uint8_t *a, const uint8_t *b, size_t len);
/* Equal, ASCII letters compared without case; locale never plays a part. */
static inline bool ag_span_ieq(struct ag_span a, struct ag_span b)
{
    return a.len == b.len && ag_bytes_ieq(a.ptr, b.ptr, a.len);
}

/* Index of the first `ch`, or s.len when there is none. */
size_t ag_span_find(struct ag_span s, uint8_t ch);

/* `s` without leading and trailing SP and HTAB (OWS of RFC 9110 section 5.6.3). */
struct ag_span ag_span_trim(struct ag_span s);

/* Decimal digits only, at least one, no sign, no overflow. AG_EINVAL else. */
AG_MUST_USE enum ag_status ag_span_u64(struct ag_span s, uint64_t *out_value);

/* Edit distance (optimal string alignment), capped at `cap`: for "did you mean" hints. Words that
 * differ over more than 64 bytes count as `cap`. */
unsigned ag_span_distance(struct ag_span a, struct ag_span b, unsigned cap);

struct ag_buf {
    uint8_t *ptr;
    size_t cap; /* bytes at ptr */
    size_t len; /* bytes written, <= cap */
    bool overflow;
};

static inline struct ag_buf ag_buf(void *ptr, size_t cap)
{
    return (struct ag_buf){(uint8_t *)ptr, cap, 0, false};
}

static inline void ag_buf_put(struct ag_buf *b, struct ag_span s)
{
    if (ag_unlikely(s.len > b->cap - b->len)) {
        b->overflow = true;
        return;
    }
    if (s.len) {
        memcpy(b->ptr + b->len, s.ptr, s.len);
        b->len += s.len;
    }
}

static inline void ag_buf_putc(struct ag_buf *b, uint8_t ch)
{
    ag_buf_put(b, ag_span(&ch, 1));
}

void ag_buf_put_u64(struct ag_buf *b, uint64_t value);
void ag_buf_put_hex(struct ag_buf *b, uint64_t value);
/* Needs a spare byte after the text, for the NUL that it writes there and does not count. */
void ag_buf_printf(struct ag_buf *b, const char *fmt, ...) AG_PRINTF(2, 3);

static inline struct ag_span ag_buf_span(const struct ag_buf *b)
{
    return (struct ag_span){b->ptr, b->len};
}
