/*
 * h1_scan: byte searches of the parsers of both HTTP versions, 16 bytes at a time where the machine has them (SSE2,
 * NEON), else one by one. Internal to proto/.
 *
 * A search stops at `end` and never reads at or beyond it: the input may end at an unmapped page. So the
 * last bytes are loaded in parts, with zeros behind them.
 */
#pragma once
#include "engine/span.h"

#if defined(__SSE2__)
#    include <emmintrin.h>
#    define AG_SCAN_SIMD 1
typedef __m128i ag_scan_vec;
#elif defined(__aarch64__) && defined(__ARM_NEON)
#    include <arm_neon.h>
#    define AG_SCAN_SIMD 1
typedef uint8x16_t ag_scan_vec;
#else
#    define AG_SCAN_SIMD 0
#endif

/* What kind of character a byte is; combined by |. */
enum ag_char {
    AG_CHAR_TOKEN = 1,  /* tchar, RFC 9110 section 5.6.2 */
    AG_CHAR_PATH = 2,   /* stays as it is in a normal path: pchar without "%", and "/" */
    AG_CHAR_RAW = 4,    /* other VCHAR that clients send raw in a path and that is kept */
    AG_CHAR_HOST = 8,   /* reg-name without escapes, RFC 3986 section 3.2.2 */
    AG_CHAR_PLAIN = 16, /* unreserved, RFC 3986 section 2.3 */
    AG_CHAR_TARGET =
        32,             /* may stand in a request target: VCHAR without "#", RFC 9112 section 3.2 */
    AG_CHAR_LOWER = 64, /* tchar that is no capital, RFC 9113 section 8.2.1 */
};
extern const uint8_t ag_char_table[256];

static inline bool ag_char_is(uint8_t ch, enum ag_char kind)
{
    return (ag_char_table[ch] & kind) != 0;
}

/* The value of a hex digit, or -1. */
static inline int ag_hex_value(uint8_t ch)
{
    if (ch >= '0' && ch <= '9') {
        return ch - '0';
    }
    ch |= 0x20;
    return ch >= 'a' && ch <= 'f' ? ch - 'a' + 10 : -1;
}

/* OWS of RFC 9110 section 5.6.3. */
static inline bool ag_scan_is_ows(uint8_t ch)
{
    return ch == ' ' || ch == '\t';
}

/* Controls that end or spoil a line: all but HTAB (RFC 9110 section 5.5). */
static inline bool ag_scan_is_ctl(uint8_t ch)
{
    return (ch < 0x20 && ch != '\t') || ch == 0x7f;
}

#if AG_SCAN_SIMD
#    if defined(__SSE2__)
static inline ag_scan_vec ag_scan_load(const uint8_t *p)
{
    return _mm_loadu_si128((const __m128i *)(const void *)p);
}

static inline ag_scan_vec ag_scan_words(uint64_t low, uint64_t high)
{
    return _mm_set_epi64x((long long)high, (long long)low);
}

static inline ag_scan_vec ag_scan_fill(uint8_t ch)
{
    return _mm_set1_epi8((char)ch);
}

static inline ag_scan_vec ag_scan_eq(ag_scan_vec v, uint8_t ch)
{
    return _mm_cmpeq_epi8(v, ag_scan_fill(ch));
}

static inline ag_scan_vec ag_scan_or(ag_scan_vec a, ag_scan_vec b)
{
    return _mm_or_si128(a, b);
}

static inline ag_scan_vec ag_scan_not(ag_scan_vec v)
{
    return _mm_cmpeq_epi8(v, _mm_setzero_si128());
}

/* Bytes from `low` to `high`, both below 0x80. */
static inline ag_scan_vec ag_scan_within(ag_scan_vec v, uint8_t low, uint8_t high)
{
    return _mm_and_si128(_mm_cmpgt_epi8(v, _mm_set1_epi8((char)(low - 1))),
                         _mm_cmplt_epi8(v, _mm_set1_epi8((char)(high + 1))));
}

static inline ag_scan_vec ag_scan_ctl_vec(ag_scan_vec v)
{
    __m128i low = _mm_cmpeq_epi8(_mm_min_epu8(v, _mm_set1_epi8(0x1f)), v);

    return ag_scan_or(low, ag_scan_eq(v, 0x7f));
}

/* Bits of the bytes of a mask: as many for each byte, the first one's are the lowest. */
#        define AG_SCAN_BITS 1u
static inline uint64_t ag_scan_bits(ag_scan_vec v)
{
    return (unsigned)_mm_movemask_epi8(v);
}

/* Index of the first byte of `v` that is not zero, or 16. */
static inline unsigned ag_scan_first(ag_scan_vec v)
{
    return (unsigned)__builtin_ctz((unsigned)_mm_movemask_epi8(v) | 0x10000u);
}

/* The same behind the first `skip` (< 16) bytes, counted from there: at most 16 - skip. */
static inline unsigned ag_scan_first_behind(ag_scan_vec v, unsigned skip)
{
    return (unsigned)__builtin_ctz(((unsigned)_mm_movemask_epi8(v) | 0x10000u) >> skip);
}
#    else
static inline ag_scan_vec ag_scan_load(const uint8_t *p)
{
    return vld1q_u8(p);
}

static inline ag_scan_vec ag_scan_words(uint64_t low, uint64_t high)
{
    return vcombine_u8(vcreate_u8(low), vcreate_u8(high));
}

static inline ag_scan_vec ag_scan_fill(uint8_t ch)
{
    return vdupq_n_u8(ch);
}

static inline ag_scan_vec ag_scan_eq(ag_scan_vec v, uint8_t ch)
{
    return vceqq_u8(v, ag_scan_fill(ch));
}

static inline ag_scan_vec ag_scan_or(ag_scan_vec a, ag_scan_vec b)
{
    return vorrq_u8(a, b);
}

static inline ag_scan_vec ag_scan_not(ag_scan_vec v)
{
    return vmvnq_u8(v);
}

/* Bytes from `low` to `high`, both below 0x80. */
static inline ag_scan_vec ag_scan_within(ag_scan_vec v, uint8_t low, uint8_t high)
{
    return vandq_u8(vcgeq_u8(v, vdupq_n_u8(low)), vcleq_u8(v, vdupq_n_u8(high)));
}

static inline ag_scan_vec ag_scan_ctl_vec(ag_scan_vec v)
{
    return ag_scan_or(vcltq_u8(v, vdupq_n_u8(0x20)), ag_scan_eq(v, 0x7f));
}

/* Bits of the bytes of a mask: as many for each byte, the first one's are the lowest. NEON has no movemask: narrowing by
 * 4 leaves one nibble a byte. */
#        define AG_SCAN_BITS 4u
static inline uint64_t ag_scan_bits(ag_scan_vec v)
{
    return vget_lane_u64(vreinterpret_u64_u8(vshrn_n_u16(vreinterpretq_u16_u8(v), 4)), 0);
}

/* Index of the first byte of `v` that is not zero, or 16. */
static inline unsigned ag_scan_first(ag_scan_vec v)
{
    uint64_t mask = ag_scan_bits(v);

    return mask ? (unsigned)__builtin_ctzll(mask) / 4 : 16;
}

/* The same behind the first `skip` (< 16) bytes, counted from there: at most 16 - skip. */
static inline unsigned ag_scan_first_behind(ag_scan_vec v, unsigned skip)
{
    uint64_t mask = ag_scan_bits(v) >> 4 * skip;

    return mask ? (unsigned)__builtin_ctzll(mask) / 4 : 16 - skip;
}
#    endif

/* `len` bytes, 0 to 16, and zeros behind them. */
static inline ag_scan_vec ag_scan_load_part(const uint8_t *p, size_t len)
{
    uint64_t low = 0, high = 0;

    if (len >= 16) {
        return ag_scan_load(p);
    }
    if (len > 8) { /* parts overlap */
        low = ag_load64(p);
        high = ag_load64(p + len - 8) >> 8 * (16 - len);
    } else if (len >= 4) {
        low = ag_load32(p) | (uint64_t)ag_load32(p + len - 4) << 8 * (len - 4);
    } else if (len) {
        low = p[0] | (uint64_t)p[len / 2] << 8 * (len / 2) | (uint64_t)p[len - 1] << 8 * (len - 1);
    }
    return ag_scan_words(low, high);
}

/* Lowers letters. It changes a few other bytes from 0x40 on too, but none of them into a letter, a digit or "-". */
static inline ag_scan_vec ag_scan_fold(ag_scan_vec v)
{
#    if defined(__SSE2__)
    return _mm_or_si128(v, _mm_srli_epi16(_mm_and_si128(v, ag_scan_fill(0x40)), 1));
#    else
    return vorrq_u8(v, vshrq_n_u8(vandq_u8(v, ag_scan_fill(0x40)), 1));
#    endif
}

/* Where the bytes of two are not the same. */
static inline ag_scan_vec ag_scan_differ(ag_scan_vec a, ag_scan_vec b)
{
#    if defined(__SSE2__)
    return ag_scan_not(_mm_cmpeq_epi8(a, b));
#    else
    return ag_scan_not(vceqq_u8(a, b));
#    endif
}

/* Letters, digits and "-": what nearly all field names are made of. */
static inline ag_scan_vec ag_scan_name_vec(ag_scan_vec v)
{
    /* Setting bit 5 lowers letters; it turns no other byte into one. */
    ag_scan_vec lower = ag_scan_or(v, ag_scan_fill(0x20));

    return ag_scan_or(ag_scan_or(ag_scan_within(lower, 'a', 'z'), ag_scan_within(v, '0', '9')),
                      ag_scan_eq(v, '-'));
}

/* The most frequent of AG_CHAR_PATH, without "." */
static inline ag_scan_vec ag_scan_path_vec(ag_scan_vec v)
{
    return ag_scan_or(ag_scan_or(ag_scan_name_vec(v), ag_scan_eq(v, '/')), ag_scan_eq(v, '_'));
}

/* The most frequent of AG_CHAR_HOST. */
static inline ag_scan_vec ag_scan_host_vec(ag_scan_vec v)
{
    return ag_scan_or(ag_scan_name_vec(v), ag_scan_eq(v, '.'));
}

/* Index of the first byte that is not of `kind`, as NUL never is, or s.len. */
static inline size_t ag_scan_while(struct ag_span s, ag_scan_vec (*kind)(ag_scan_vec))
{
    size_t at = 0, odd;

    do {
        odd = ag_scan_first(ag_scan_not(kind(ag_scan_load_part(s.ptr + at, s.len - at))));
        at += odd;
    } while (odd == 16);
    return at;
}
#endif

/* How many bytes at the start of `s` need no look at each: all of them are AG_CHAR_PATH and not "." */
static inline size_t ag_scan_path(struct ag_span s)
{
#if AG_SCAN_SIMD
    return ag_scan_while(s, ag_scan_path_vec);
#else
    (void)s;
    return 0;
#endif
}

/* The same of AG_CHAR_HOST. */
static inline size_t ag_scan_host(struct ag_span s)
{
#if AG_SCAN_SIMD
    return ag_scan_while(s, ag_scan_host_vec);
#else
    (void)s;
    return 0;
#endif
}

/* The first control in [p, end), or end; `from` is where bytes begin that may be read, at or before p. */
static inline const uint8_t *ag_scan_ctl(const uint8_t *from, const uint8_t *p, const uint8_t *end)
{
#if AG_SCAN_SIMD
    while (end - p >= 16) {
        unsigned at = ag_scan_first(ag_scan_ctl_vec(ag_scan_load(p)));
        p += at;
        if (at < 16) {
            if (ag_likely(*p != '\t')) {
                return p;
            }
            p++; /* rare enough not to be told from the others above */
        }
    }
    if (ag_likely(p < end && end - from >= 16)) {
        p += ag_scan_first_behind(ag_scan_ctl_vec(ag_scan_load(end - 16)),
                                  (unsigned)(16 - (end - p)));
    }
#endif
    while (p < end && !ag_scan_is_ctl(*p)) {
        p++;
    }
    return p;
}

/* The token that starts at `p` and has `len` bytes, checked; reads no further than `end`. */
static inline bool ag_scan_is_token(const uint8_t *p, size_t len, const uint8_t *end)
{
    size_t at = 0;

#if AG_SCAN_SIMD
    while (at < len && (size_t)(end - p) - at >= 16) {
        unsigned odd = ag_scan_first(ag_scan_not(ag_scan_name_vec(ag_scan_load(p + at))));
        if (odd < 16 && odd < len - at) {
            break; /* the table knows the other characters */
        }
        at += 16;
    }
#endif
    while (at < len && ag_char_is(p[at], AG_CHAR_TOKEN)) {
        at++;
    }
    return len > 0 && at >= len;
}

/* The first `ch`, not NUL, in [p, end), or end. For short distances: memchr costs a call. */
static inline const uint8_t *ag_scan_byte(const uint8_t *p, const uint8_t *end, uint8_t ch)
{
#if AG_SCAN_SIMD
    while (end - p >= 16) {
        unsigned at = ag_scan_first(ag_scan_eq(ag_scan_load(p), ch));
        p += at;
        if (at < 16) {
            return p;
        }
    }
    size_t left = (size_t)(end - p);
    if (left == 0 || *p == ch) {
        return p;
    }
    unsigned at = ag_scan_first(ag_scan_eq(ag_scan_load_part(p, left), ch));
    return p + (at < left ? at : left);
#else
    while (p < end && *p != ch) {
        p++;
    }
    return p;
#endif
}

/* Whether one of 8 bytes is a control, or HTAB. */
static inline bool ag_scan_word_has_ctl(uint64_t x)
{
    const uint64_t ones = UINT64_C(0x0101010101010101), tops = ones << 7;
    uint64_t del = x ^ (ones * 0x7f);

    /* A borrow spoils only bytes above one that counts already. */
    return (((x - ones * 0x20) & ~x) | ((del - ones) & ~del)) & tops;
}

/* Whether there may be a control among `len` bytes: exact but for HTAB. For short values, all of whose
 * ends lie apart in memory. */
static inline bool ag_scan_may_have_ctl(const uint8_t *p, size_t len)
{
    uint64_t a = UINT64_C(0x6161616161616161), b = a;

    if (len >= 16) {
#if AG_SCAN_SIMD
        ag_scan_vec any = ag_scan_ctl_vec(ag_scan_load(p + len - 16));

        for (size_t at = 0; at + 16 < len; at += 16) {
            any = ag_scan_or(any, ag_scan_ctl_vec(ag_scan_load(p + at)));
        }
        return ag_scan_first(any) < 16;
#else
        return ag_scan_ctl(p, p, p + len) < p + len || memchr(p, '\t', len);
#endif
    }
    if (len >= 8) {
        memcpy(&a, p, 8);
        memcpy(&b, p + len - 8, 8);
        return ag_scan_word_has_ctl(a) || ag_scan_word_has_ctl(b);
    }
    if (len >= 4) {
        memcpy(&a, p, 4);
        memcpy((uint8_t *)&a + 4, p + len - 4, 4);
    } else if (len) {
        uint8_t few[3] = {p[0], p[len / 2], p[len - 1]};
        memcpy(&a, few, sizeof(few));
    }
    return ag_scan_word_has_ctl(a);
}
