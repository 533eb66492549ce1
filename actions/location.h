/*
 * location: redirects whose target holds what a client sent.
 *
 *   begin --> put (text of ours), put_path (from the request) ... --> respond
 *
 * The Location never begins with "//" or "/\": a browser would take what follows for a host
 * (THREATS.md, paths).
 */
#pragma once
#include "proto/exchange.h"

struct ag_location {
    struct ag_buf buf;
    struct ag_block *block; /* where it does not fit the arena; NULL else */
};

/* Room for `bound` bytes. False: there is none. */
AG_MUST_USE bool ag_location_begin(struct ag_location *l, struct ag_exchange *ex, size_t bound);
void ag_location_put(struct ag_location *l, struct ag_span text);
/* Percent-encodes what a path may not hold (RFC 3986 section 3.3), up to three bytes for each; escapes
 * stay as they are. */
void ag_location_put_path(struct ag_location *l, struct ag_span path);
/* Bytes that put_path needs at most. */
size_t ag_location_path_bound(struct ag_span path);
/* Answers with `status`, the Location and no content. Ends `l`. */
void ag_location_respond(struct ag_location *l, struct ag_exchange *ex, unsigned status);
/* Writes `joint` ("?" or "&", 0: nothing) and the request's query, when it has one. */
void ag_location_put_query(struct ag_location *l, const struct ag_exchange *ex, uint8_t joint);
