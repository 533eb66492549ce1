/*
 * prepare: an answer's head as bytes of each version, written before any request asks for it.
 *
 *   status, fields, framing  --measure, write-->  "HTTP/1.1 200 OK\r\nETag: ...\r\nContent-Length: 2\r\n"
 *                            --write_h2-->        a field section (ag_h2_prepare)
 *
 * Date, Connection and the empty line are the server's (struct ag_prepared).
 */
#pragma once
#include "proto/exchange.h"

/* A longer head is answered as fields: the server writes a prepared one, its own lines and a small body
 * into one small buffer. */
#define AG_PREPARED_HEAD_MAX 2048u

/* True for statuses that never have content (RFC 9110 sections 15.3.5, 15.3.6, 15.4.5). */
bool ag_status_has_no_content(unsigned status);

/* Bytes that ag_prepare_write writes. */
size_t ag_prepare_measure(const struct ag_response *res);
/* Writes status line, fields and framing; framing NONE or LENGTH. */
void ag_prepare_write(const struct ag_response *res, struct ag_buf *out);
/* Appends the same for HTTP/2, and returns it; empty when it may be long, or `out` has no room (overflow). */
struct ag_span ag_prepare_write_h2(const struct ag_response *res, struct ag_buf *out);
/* Fills `p` for a snapshot: status, h1 and h2 (empty when h1 is longer than AG_PREPARED_HEAD_MAX), body, response.
 * Spans of `res` and `body` must live in `arena` (malloc) or be static. */
void ag_prepare(struct ag_arena *arena, const struct ag_response *res, struct ag_span body,
                struct ag_prepared *out);
/* Answers with what ag_prepare made, whichever way it has to go. Its fields must live as long as the
 * exchange: in the snapshot. */
void ag_prepared_respond(struct ag_exchange *ex, const struct ag_prepared *p);
