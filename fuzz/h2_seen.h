/*
 * h2_seen: what a server has sent on an HTTP/2 connection, read by the rules that bind it (RFC 9113) beside those of
 * h2_frames.h: one final head for each stream, content behind it, nothing behind its end, nothing for streams that no
 * client began.
 */
#pragma once
#include "fuzz/h2_frames.h"

#define H2_SEEN_IDS 8192u

struct h2_seen {
    struct h2_frames frames; /* first */
    unsigned status;         /* of the section that is read; 0: trailers */
    struct {
        uint8_t heads; /* final ones and trailers */
        bool ended, reset;
    } streams[H2_SEEN_IDS];
};

void h2_seen_begin(struct h2_seen *s);
/* `all` that was sent so far; panics when it breaks a rule. */
void h2_seen_read(struct h2_seen *s, struct ag_span all);
/* The connection is over. Unless it was `aborted`, no frame broke off. */
void h2_seen_end(struct h2_seen *s, bool aborted);
