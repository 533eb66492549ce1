/* What bench/ws.c and bench/ws_echo.c share of RFC 6455: messages of one frame each, up to 64k. */
#ifndef BENCH_WS_FRAME_H
#define BENCH_WS_FRAME_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define WS_TEXT        1u
#define WS_CLOSE       8u
#define WS_MESSAGE_MAX 65535u
#define WS_HEAD_MAX    8u /* opcode, length of 16 bits, mask */
#define WS_FRAME_MAX   (WS_HEAD_MAX + WS_MESSAGE_MAX)

struct ws_frame {
    unsigned opcode;
    bool masked;
    uint8_t mask[4];
    uint8_t *content;
    size_t len, whole_len; /* of its content, of all of it */
};

/* 1: it is at `at`; 0: not all of it is there yet; -1: no frame of this kind. */
static inline int ws_read(uint8_t *at, size_t have, struct ws_frame *out)
{
    size_t head = 2;

    if (have < head) {
        return 0;
    }
    out->opcode = at[0] & 0x0fu;
    out->masked = at[1] & 0x80u;
    out->len = at[1] & 0x7fu;
    memset(out->mask, 0, sizeof(out->mask));
    if (!(at[0] & 0x80u) || out->len == 127) {
        return -1;
    }
    head += (out->len == 126 ? 2u : 0u) + (out->masked ? 4u : 0u);
    if (have < head) {
        return 0;
    }
    if (out->len == 126) {
        out->len = (size_t)at[2] << 8 | at[3];
    }
    if (out->masked) {
        memcpy(out->mask, at + head - 4, 4);
    }
    out->content = at + head;
    out->whole_len = head + out->len;
    return have >= out->whole_len;
}

/* The head of a frame of text, as far as its mask: its length. */
static inline size_t ws_put_head(uint8_t *at, size_t len, bool masked)
{
    at[0] = 0x80u | WS_TEXT;
    at[1] = (uint8_t)((len < 126 ? len : 126u) | (masked ? 0x80u : 0u));
    if (len < 126) {
        return 2;
    }
    at[2] = (uint8_t)(len >> 8);
    at[3] = (uint8_t)len;
    return 4;
}

/* Masks, or takes the mask off. */
static inline void ws_mask(uint8_t *content, size_t len, const uint8_t mask[4])
{
    for (size_t i = 0; i < len; i++) {
        content[i] ^= mask[i & 3u];
    }
}

#endif
