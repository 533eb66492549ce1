/*
 * h1_parse: HTTP/1 heads, strictly (RFC 9112). Incremental and zero-copy: bytes of one head lie in one
 * contiguous buffer that grows; a call goes on at the first line not yet parsed. Scanned by SIMD.
 *
 *   "GET /a?b HTTP/1.1\r\nHost: x\r\n\r\n"   at = start of the first unparsed line
 *
 * Refused (THREATS.md, HTTP/1 framing): bare CR or LF, obs-fold, space before the colon, empty or
 * non-token names, CTLs, Content-Length that is not one plain number, Content-Length beside
 * Transfer-Encoding, any Transfer-Encoding but exactly one "chunked", Transfer-Encoding in HTTP/1.0,
 * Host missing, twice or malformed.
 */
#pragma once
#include "proto/http.h"

struct ag_h1_limits {
    uint32_t line_max;  /* request or status line, bytes with CRLF: 414 beyond */
    uint32_t head_max;  /* the whole head, bytes: 431 beyond */
    uint16_t field_max; /* fields: 431 beyond */
};
#define AG_H1_LIMITS_DEFAULT ((struct ag_h1_limits){8192, 32768, 100})

/* All zero is the initial state. */
struct ag_h1_parser {
    uint32_t at;      /* offset of the first line that is not parsed yet */
    uint32_t scanned; /* bytes from `at` on that hold no LF */
    uint8_t state;    /* start line, fields, done */
    bool skipped_empty_line;
    uint16_t status;   /* after AG_EPROTO: what to answer (400, 414, 417, 431, 501, 505) */
    const char *error; /* after AG_EPROTO: a static phrase, the cause */
};

/*
 * Parses a request head from in[0].
 *   in     all bytes of this head so far (the same ones as before, and more); may have moved: the
 *          caller rebases `out` then (ag_request_rebase)
 *   out    zeroed before the first call; filled line by line; complete only after AG_OK
 *   arena  for the field table beyond out->fields.cap, and for a path that was not in normal form
 *
 * AG_OK      the head is complete; p->at is its length
 * AG_AGAIN   needs more bytes
 * AG_EPROTO  p->status and p->error say what is wrong: answer and close
 * AG_ENOMEM  the arena is out of room
 */
AG_MUST_USE enum ag_status ag_h1_parse_request(struct ag_h1_parser *p, struct ag_span in,
                                               const struct ag_h1_limits *limits,
                                               struct ag_request *out, struct ag_arena *arena);

/*
 * The same for a response; `request_method` decides whether there is content (RFC 9112 6.3). Any
 * violation means 502 to the client and a connection that is not used again. A bad length beside
 * chunked is refused too.
 */
AG_MUST_USE enum ag_status ag_h1_parse_response(struct ag_h1_parser *p, struct ag_span in,
                                                const struct ag_h1_limits *limits,
                                                enum ag_method request_method,
                                                struct ag_response *out, struct ag_arena *arena);

/*
 * The trailer section after the last chunk: field lines up to an empty line. Fields that carry
 * framing, routing, authentication or content metadata (RFC 9110 6.5.1) are parsed and left out.
 */
AG_MUST_USE enum ag_status ag_h1_parse_trailers(struct ag_h1_parser *p, struct ag_span in,
                                                const struct ag_h1_limits *limits,
                                                struct ag_fields *out, struct ag_arena *arena);
