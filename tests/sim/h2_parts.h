/*
 * h2_parts: what the files of h2 share; nobody else includes it.
 *
 *   h2.c         streams and output
 *   h2_input.c   frames and field sections that come, and what may not
 */
#pragma once
#include "tests/sim/h2.h"

#define H2_HEADER_BYTES 9u
#define H2_BLOCK_MAX    40000u

static inline void h2_u32_to(uint8_t *to, uint32_t v)
{
    to[0] = (uint8_t)(v >> 24);
    to[1] = (uint8_t)(v >> 16);
    to[2] = (uint8_t)(v >> 8);
    to[3] = (uint8_t)v;
}

static inline uint32_t h2_u32_at(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* Whether the stream was still open; when it is not any more, it counts no longer. */
static inline void h2_count_over(struct h2 *h, bool was_over, const struct h2_stream *st)
{
    if (!was_over && h2_is_over(st)) {
        AG_ASSERT(h->open > 0);
        h->open--;
    }
}
