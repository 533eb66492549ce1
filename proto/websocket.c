#include "proto/websocket.h"

#define SHA1_LEN       20u
#define SHA1_BLOCK_LEN 64u
/* Where the message's bit length stands in the last block. */
#define SHA1_LENGTH_AT 56u

static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
static const char base64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

struct sha1 {
    uint32_t h[5];
    uint64_t len; /* bytes so far */
    uint8_t block[SHA1_BLOCK_LEN];
};

static uint32_t rotate(uint32_t x, unsigned n)
{
    return x << n | x >> (32 - n);
}

/* One block (FIPS 180-4 section 6.1.2). */
static void sha1_block(struct sha1 *s)
{
    uint32_t w[80], a = s->h[0], b = s->h[1], c = s->h[2], d = s->h[3], e = s->h[4];

    for (unsigned i = 0; i < 16; i++) {
        const uint8_t *p = s->block + (size_t)4 * i;
        w[i] = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
    }
    for (unsigned i = 16; i < 80; i++) {
        w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    }
    for (unsigned i = 0; i < 80; i++) {
        uint32_t f;
        if (i < 20) {
            f = ((b & c) | (~b & d)) + 0x5a827999u;
        } else if (i < 40) {
            f = (b ^ c ^ d) + 0x6ed9eba1u;
        } else if (i < 60) {
            f = ((b & c) | (b & d) | (c & d)) + 0x8f1bbcdcu;
        } else {
            f = (b ^ c ^ d) + 0xca62c1d6u;
        }
        uint32_t next = rotate(a, 5) + f + e + w[i];
        e = d;
        d = c;
        c = rotate(b, 30);
        b = a;
        a = next;
    }
    s->h[0] += a;
    s->h[1] += b;
    s->h[2] += c;
    s->h[3] += d;
    s->h[4] += e;
}

static void sha1_byte(struct sha1 *s, uint8_t ch)
{
    s->block[s->len++ % SHA1_BLOCK_LEN] = ch;
    if (s->len % SHA1_BLOCK_LEN == 0) {
        sha1_block(s);
    }
}

static void sha1_add(struct sha1 *s, struct ag_span bytes)
{
    for (size_t i = 0; i < bytes.len; i++) {
        sha1_byte(s, bytes.ptr[i]);
    }
}

static void sha1_end(struct sha1 *s, uint8_t out[static SHA1_LEN])
{
    uint64_t bits = s->len * 8;

    sha1_byte(s, 0x80);
    while (s->len % SHA1_BLOCK_LEN != SHA1_LENGTH_AT) {
        sha1_byte(s, 0);
    }
    for (unsigned i = 0; i < 8; i++) {
        sha1_byte(s, (uint8_t)(bits >> (56 - 8 * i)));
    }
    for (unsigned i = 0; i < SHA1_LEN; i++) {
        out[i] = (uint8_t)(s->h[i / 4] >> (24 - 8 * (i % 4)));
    }
}

/* Four characters for up to three bytes (RFC 4648 section 4). */
static void base64_group(struct ag_span in, uint8_t out[static 4])
{
    uint32_t bits = (uint32_t)in.ptr[0] << 16;

    bits |= in.len > 1 ? (uint32_t)in.ptr[1] << 8 : 0;
    bits |= in.len > 2 ? in.ptr[2] : 0;
    out[0] = (uint8_t)base64[bits >> 18];
    out[1] = (uint8_t)base64[bits >> 12 & 63];
    out[2] = (uint8_t)(in.len > 1 ? base64[bits >> 6 & 63] : '=');
    out[3] = (uint8_t)(in.len > 2 ? base64[bits & 63] : '=');
}

void ag_websocket_accept(struct ag_span key, uint8_t out[static AG_WEBSOCKET_ACCEPT_LEN])
{
    struct sha1 s = {.h = {0x67452301u, 0xefcdab89u, 0x98badcfeu, 0x10325476u, 0xc3d2e1f0u}};
    uint8_t digest[SHA1_LEN];

    _Static_assert((SHA1_LEN + 2) / 3 * 4 == AG_WEBSOCKET_ACCEPT_LEN, "base64 of a digest");
    sha1_add(&s, key);
    sha1_add(&s, ag_span(guid, sizeof(guid) - 1));
    sha1_end(&s, digest);
    for (size_t i = 0; i < SHA1_LEN; i += 3) {
        base64_group(ag_span(digest + i, ag_min_size(3, SHA1_LEN - i)), out + i / 3 * 4);
    }
}

void ag_websocket_key(const uint8_t nonce[static AG_WEBSOCKET_KEY_BYTES],
                      uint8_t out[static AG_WEBSOCKET_KEY_LEN])
{
    _Static_assert((AG_WEBSOCKET_KEY_BYTES + 2) / 3 * 4 == AG_WEBSOCKET_KEY_LEN,
                   "base64 of a nonce");
    for (size_t i = 0; i < AG_WEBSOCKET_KEY_BYTES; i += 3) {
        base64_group(ag_span(nonce + i, ag_min_size(3, AG_WEBSOCKET_KEY_BYTES - i)),
                     out + i / 3 * 4);
    }
}

bool ag_websocket_key_is_valid(struct ag_span key)
{
    if (key.len != AG_WEBSOCKET_KEY_LEN) {
        return false;
    }
    for (size_t i = 0; i < AG_WEBSOCKET_KEY_LEN - 2; i++) {
        if (!key.ptr[i] || !strchr(base64, key.ptr[i])) {
            return false;
        }
    }
    return key.ptr[AG_WEBSOCKET_KEY_LEN - 2] == '=' && key.ptr[AG_WEBSOCKET_KEY_LEN - 1] == '=';
}
