/*
 * h2_seen: what a server has sent on an HTTP/2 connection, read by the rules that bind it (RFC 9113): whole
 * sections that decode, one final head for each stream, content behind it, nothing behind its end, nothing
 * for streams that no client began, nothing behind the GOAWAY of an error.
 */
#pragma once
#include "proto/h2_frame.h"
#include "proto/hpack.h"

#define H2_SEEN_IDS 8192u

struct h2_seen {
    struct ag_arena memory;
    struct ag_hpack_decoder decoder;
    size_t at; /* of what was sent: bytes that were read */
    uint32_t frames;
    uint32_t section_id; /* a section that goes on; 0: none */
    bool section_end;
    uint8_t section[80000];
    size_t section_len;
    bool failed; /* GOAWAY with an error was sent */
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
