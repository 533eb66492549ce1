/*
 * utf8: one code point at a time, strictly: no overlong form, no surrogate, nothing above U+10FFFF.
 * Source: RFC 3629.
 */
#pragma once
#include "engine/span.h"

/* Decodes the code point that `s` (not empty) begins with. Returns its length in bytes, or 0 when it
 * is malformed or cut short (*out_cp is untouched then). */
static inline size_t ag_utf8_decode(struct ag_span s, uint32_t *out_cp)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    uint8_t lead = s.ptr[0];

    if (lead < 0x80) {
        *out_cp = lead;
        return 1;
    }
    size_t n = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    if (lead < 0xc2 || lead > 0xf4 || s.len < n) {
        return 0;
    }
    uint32_t cp = lead & (0x7fu >> n);
    for (size_t i = 1; i < n; i++) {
        if ((s.ptr[i] & 0xc0) != 0x80) {
            return 0;
        }
        cp = cp << 6 | (s.ptr[i] & 0x3fu);
    }
    if (cp < least[n] || cp > 0x10ffff || (cp >= 0xd800 && cp <= 0xdfff)) {
        return 0;
    }
    *out_cp = cp;
    return n;
}

/* Encodes `cp` (a code point, no surrogate); returns the bytes written. */
static inline size_t ag_utf8_encode(uint32_t cp, uint8_t out[static 4])
{
    AG_ASSERT(cp <= 0x10ffff && !(cp >= 0xd800 && cp <= 0xdfff));
    if (cp < 0x80) {
        out[0] = (uint8_t)cp;
        return 1;
    }
    size_t n = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--) {
        out[i] = (uint8_t)(0x80 | (cp & 0x3f));
        cp >>= 6;
    }
    out[0] = (uint8_t)((0xf00u >> n & 0xffu) | cp);
    return n;
}
