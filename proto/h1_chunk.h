/*
 * h1_chunk: decode the chunked transfer coding (RFC 9112 section 7.1) in place.
 *
 * Pure: no I/O, no allocation, no clock. Feed it bytes in any split.
 *
 *   wire:  "4\r\nWiki\r\n0\r\n\r\n"  ->  body spans "Wiki", then AG_OK
 */
#pragma once
#include "engine/span.h"

/* Longest chunk-size line we accept, bytes, CRLF included; bounds work per body byte. */
#define AG_H1_CHUNK_LINE_MAX 256u

enum ag_h1_chunk_state {
    AG_H1_CHUNK_SIZE = 0, /* hex digits of chunk-size             -> EXT, SIZE_LF */
    AG_H1_CHUNK_EXT,      /* skipping chunk-ext                   -> SIZE_LF */
    AG_H1_CHUNK_SIZE_LF,  /* CR seen                              -> DATA, TRAILERS */
    AG_H1_CHUNK_DATA,     /* left > 0 body bytes to come          -> DATA_CR */
    AG_H1_CHUNK_DATA_CR,  /* chunk complete                       -> DATA_LF */
    AG_H1_CHUNK_DATA_LF,  /*                                      -> SIZE */
    AG_H1_CHUNK_TRAILERS, /* last chunk seen: ag_h1_parse_trailers goes on */
};

/* All zero is the initial state. The owner embeds it; it holds no pointers. */
struct ag_h1_chunk {
    uint64_t left;     /* body bytes left in this chunk */
    uint32_t line_len; /* bytes of the current size line so far */
    enum ag_h1_chunk_state state;
};

/*
 * Decodes until one body span is found, the last chunk's line ends, or `in` runs out.
 *
 *   in        borrowed for the call
 *   out_used  bytes of `in` consumed; set on every return
 *   out_body  a range of `in`; empty when no body byte was found
 *
 * AG_OK      the last chunk was seen; bytes after *out_used are the trailer section
 * AG_AGAIN   call again: with the rest of `in` if some is left, else with more input
 * AG_EPROTO  framing is broken: answer 400 and close, never resynchronise (RFC 9112 section 11.2)
 * AG_ELIMIT  a size line exceeds AG_H1_CHUNK_LINE_MAX
 */
AG_MUST_USE enum ag_status ag_h1_chunk_decode(struct ag_h1_chunk *c, struct ag_span in,
                                              size_t *out_used, struct ag_span *out_body);

/* Longest chunk header that ag_h1_chunk_header writes: 16 digits and CRLF. */
#define AG_H1_CHUNK_HEADER_MAX 18u
/* Writes "<hex>\r\n" for a chunk of `len` > 0 bytes; returns the bytes written. */
size_t ag_h1_chunk_header(uint64_t len, uint8_t out[static AG_H1_CHUNK_HEADER_MAX]);
