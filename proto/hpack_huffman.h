/* hpack_huffman: the static Huffman code of HPACK (RFC 7541 section 5.2, appendix B). */
#pragma once
#include "engine/span.h"

/* The shortest code has 5 bits, so `len` encoded bytes are at most so many decoded ones. */
static inline size_t ag_huffman_decoded_max(size_t len)
{
    return len * 8 / 5;
}

/* Bytes that `s` takes encoded, the padding included. */
size_t ag_huffman_length(struct ag_span s);

/* Appends `s`, encoded and padded with ones; sets out->overflow when it does not fit. */
void ag_huffman_encode(struct ag_buf *out, struct ag_span s);

/* The same with the length, which the caller has computed. */
void ag_huffman_encode_known(struct ag_buf *out, struct ag_span s, size_t len);

/* Appends what `s` stands for, all of it or nothing.
 * AG_EPROTO: the end-of-string symbol, or padding that is longer than 7 bits or not of ones.
 * AG_ELIMIT: it does not fit. */
AG_MUST_USE enum ag_status ag_huffman_decode(struct ag_buf *out, struct ag_span s);
