#include "proto/hpack_huffman.h"

#include "proto/hpack_huffman_table.h"

/* ---- encoding ---- */

static unsigned length_of(uint8_t symbol)
{
    return codes[symbol] & 63;
}

size_t ag_huffman_length(struct ag_span s)
{
    size_t bits = 0;

    for (size_t i = 0; i < s.len; i++) {
        bits += length_of(s.ptr[i]);
    }
    return (bits + 7) / 8;
}

static void store32(uint8_t *to, uint32_t x)
{
    x = __builtin_bswap32(x);
    memcpy(to, &x, sizeof(x));
}

void ag_huffman_encode_known(struct ag_buf *out, struct ag_span s, size_t len)
{
    uint8_t *to = out->ptr + out->len;
    uint64_t acc = 0; /* its low `bits` bits are not written yet */
    unsigned bits = 0;

    if (ag_unlikely(len > out->cap - out->len)) {
        out->overflow = true;
        return;
    }
    for (size_t i = 0; i < s.len; i++) {
        uint64_t code = codes[s.ptr[i]];
        unsigned length = code & 63;

        acc = acc << length | code >> 6;
        bits += length;
        if (bits >= 32) {
            bits -= 32;
            store32(to, (uint32_t)(acc >> bits));
            to += 4;
        }
    }
    for (; bits >= 8; to++) {
        bits -= 8;
        *to = (uint8_t)(acc >> bits);
    }
    if (bits) {
        *to++ = (uint8_t)(acc << (8 - bits) | 0xffu >> bits);
    }
    AG_ASSERT((size_t)(to - out->ptr) - out->len == len);
    out->len += len;
}

void ag_huffman_encode(struct ag_buf *out, struct ag_span s)
{
    ag_huffman_encode_known(out, s, ag_huffman_length(s));
}

/* ---- decoding ---- */

/* Bits that are not used yet, the next one on top; zeros below. */
struct bits {
    uint64_t acc;
    unsigned count;
};

/* The next 1 .. 7 bytes on top, zeros below. */
static uint64_t load_few(const uint8_t *p, size_t n)
{
    uint32_t first, last;

    if (n < 4) {
        return (uint64_t)p[0] << 56 | (uint64_t)p[n / 2] << (56 - n / 2 * 8) |
               (uint64_t)p[n - 1] << (64 - n * 8);
    }
    memcpy(&first, p, sizeof(first));
    memcpy(&last, p + n - 4, sizeof(last));
    return (uint64_t)__builtin_bswap32(first) << 32 | (uint64_t)__builtin_bswap32(last)
                                                          << (64 - n * 8);
}

/* As many whole bytes as there is room for. */
static void refill(struct bits *b, struct ag_span s, size_t *at)
{
    size_t left = s.len - *at;
    unsigned bytes = (64 - b->count) / 8;
    uint64_t word;

    if (left >= 8) {
        memcpy(&word, s.ptr + *at, sizeof(word));
        word = __builtin_bswap64(word);
    } else if (left > 0) {
        word = load_few(s.ptr + *at, left);
        bytes = (unsigned)ag_min_size(left, bytes);
    } else {
        return;
    }
    if (bytes < 8) {
        word &= ~(UINT64_MAX >> (8 * bytes));
    }
    b->acc |= word >> b->count;
    b->count += 8 * bytes;
    *at += bytes;
}

/* A code that is longer than FAST_BITS: EOS when it is that, or none at all. */
static unsigned decode_long(uint64_t acc, unsigned *out_length)
{
    for (unsigned length = FAST_BITS + 1; length <= LENGTH_MAX; length++) {
        uint64_t beyond = (acc >> (64 - length)) - lengths[length].first;

        if (acc >> (64 - length) >= lengths[length].first && beyond < lengths[length].count) {
            *out_length = length;
            return order[lengths[length].place + beyond];
        }
    }
    AG_UNREACHABLE("the code is complete");
}

/* What remains is nothing, or the first bits of EOS, fewer than a byte of them. */
static bool is_padding(const struct bits *b)
{
    return b->count < 8 && b->acc == (b->count ? UINT64_MAX << (64 - b->count) : 0);
}

enum ag_status ag_huffman_decode(struct ag_buf *out, struct ag_span s)
{
    struct bits b = {0};
    uint8_t *to = out->ptr + out->len, *end = out->ptr + out->cap;
    size_t at = 0;

    for (;;) {
        unsigned symbol, length, entry;

        if (b.count < LENGTH_MAX) {
            refill(&b, s, &at);
        }
        /* Where so many bits are left, those of a short code are a symbol. */
        while (b.count >= FAST_BITS && to < end && (entry = fast[b.acc >> (64 - FAST_BITS)])) {
            *to++ = (uint8_t)(entry >> 8);
            b.acc <<= entry & 0xff;
            b.count -= entry & 0xff;
        }
        if (b.count < LENGTH_MAX && at < s.len) {
            continue;
        }
        if (is_padding(&b)) { /* there would be more bits otherwise */
            out->len = (size_t)(to - out->ptr);
            return AG_OK;
        }
        length = fast[b.acc >> (64 - FAST_BITS)] & 0xff;
        symbol = fast[b.acc >> (64 - FAST_BITS)] >> 8;
        if (ag_unlikely(length == 0)) {
            symbol = decode_long(b.acc, &length);
        }
        if (ag_unlikely(length > b.count || symbol == EOS)) {
            return AG_EPROTO;
        }
        if (ag_unlikely(to == end)) {
            return AG_ELIMIT;
        }
        *to++ = (uint8_t)symbol;
        b.acc <<= length;
        b.count -= length;
    }
}
