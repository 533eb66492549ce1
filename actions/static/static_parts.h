/*
 * static_parts: which bytes of a file an answer has: one range, or several as multipart/byteranges (RFC 9110
 * section 14.6).
 *
 *   one       [from, from + left)
 *   several   head [range] head [range] ... last line
 *
 *   head      CRLF "--" boundary CRLF "Content-Type: " type CRLF "Content-Range: " range CRLF CRLF
 *   last line CRLF "--" boundary "--" CRLF           (no CRLF before the first head)
 *
 * Heads and last line are written into one buffer at once; the ranges come from memory or from the file.
 */
#pragma once
#include "actions/static/range.h"
#include "proto/exchange.h"

#define AG_BOUNDARY_LEN 16u
/* "multipart/byteranges; boundary=" and the boundary. */
#define AG_MULTIPART_TYPE_LEN (31u + AG_BOUNDARY_LEN)

/* In the exchange's arena. */
struct ag_static_parts {
    struct ag_ranges ranges;
    struct ag_block *heads;           /* a small buffer */
    uint64_t bytes;                   /* of the whole content */
    uint16_t ends[AG_RANGES_MAX + 1]; /* in `heads`: of each head, and of the last line */
    uint16_t at;                      /* the head that comes next */
};

struct ag_static_content {
    uint64_t from, left;           /* of the range at hand: not yet written to the body */
    struct ag_static_parts *parts; /* what follows it; NULL: nothing */
};

/* Writes the heads for `ranges` of a file of `type` (at most AG_MIME_TYPE_MAX long) and `size_bytes`, and the
 * Content-Type of the whole, AG_MULTIPART_TYPE_LEN long, to `out_type`. AG_ENOMEM: no buffer, or no room in the
 * arena. */
AG_MUST_USE enum ag_status
ag_static_parts_begin(struct ag_exchange *ex, const struct ag_ranges *ranges, struct ag_span type,
                      uint64_t size_bytes, struct ag_static_content *out, struct ag_buf *out_type);
/* Gives the heads' buffer back. */
void ag_static_content_release(struct ag_static_content *c);

/* The length of all. Only before anything was taken. */
static inline uint64_t ag_static_content_bytes(const struct ag_static_content *c)
{
    return c->parts ? c->parts->bytes : c->left;
}

/* Whether something is still to be written: of the range at hand (left > 0), else a head. */
static inline bool ag_static_content_goes_on(const struct ag_static_content *c)
{
    return c->left > 0 || (c->parts && c->parts->at <= c->parts->ranges.count);
}

/* The next head or the last line, with a reference; c->from and c->left are now of the range behind it. */
AG_MUST_USE struct ag_slice ag_static_content_head(struct ag_static_content *c);
