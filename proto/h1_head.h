/*
 * h1_head: what request heads, response heads and trailers have in common: lines, field lines, and
 * the fields that decide framing and connection. Internal to the h1_parse*.c files.
 *
 * A line is found first and read afterwards, so a head parsed byte by byte meets the same errors in
 * the same order as one that came in one piece:
 *
 *   at        at + scanned
 *   |             |
 *   "Host: example.com\r\n"       the search goes on at `scanned`; it stops at any control, which
 *                                 must be CR and be followed by LF (RFC 9112 section 2.2)
 */
#pragma once
#include "proto/h1_parse.h"
#include "proto/head.h"

enum ag_h1_parse_state { AG_H1_PARSE_START = 0, AG_H1_PARSE_FIELDS, AG_H1_PARSE_DONE };

/* Records the answer and its cause; returns AG_EPROTO. */
AG_COLD enum ag_status ag_h1_fail(struct ag_h1_parser *p, uint16_t status, const char *error);

/* The start line without its CRLF; p->at moves behind it. Beyond its limit the status is 414. */
AG_MUST_USE enum ag_status ag_h1_start_line(struct ag_h1_parser *p, struct ag_span in,
                                            const struct ag_h1_limits *limits,
                                            struct ag_span *out_line);

/* Field lines up to and with the empty line. `trailers`: leaves out what may not stand there. */
AG_MUST_USE enum ag_status ag_h1_read_fields(struct ag_h1_parser *p, struct ag_span in,
                                             const struct ag_h1_limits *limits, bool trailers,
                                             struct ag_fields *out, struct ag_arena *arena);

/* The fields that say how the message ends and what becomes of the connection. */
struct ag_h1_summary {
    struct ag_field *host;         /* the first of each */
    const struct ag_field *length; /* Content-Length */
    const struct ag_field *coding; /* Transfer-Encoding */
    uint16_t host_count, length_count, coding_count;
    bool close, keep_alive, upgrade_option; /* listed in Connection */
    bool upgrade_field;
    bool expect_continue, expect_other;
};
void ag_h1_summarise(const struct ag_fields *fields, struct ag_h1_summary *out);

/* Checks Content-Length and Transfer-Encoding (RFC 9112 sections 6.1 to 6.3, and stricter).
 *   out_length   AG_LENGTH_UNKNOWN without Content-Length */
AG_MUST_USE enum ag_status ag_h1_check_framing(struct ag_h1_parser *p,
                                               const struct ag_h1_summary *s,
                                               enum ag_http_version version, uint64_t *out_length,
                                               bool *out_chunked);

/* RFC 9112 section 9.3: whether the sender wants the connection to persist. */
static inline bool ag_h1_wants_keep_alive(const struct ag_h1_summary *s,
                                          enum ag_http_version version)
{
    return !s->close && (version >= AG_HTTP_11 || s->keep_alive);
}
