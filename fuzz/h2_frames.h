/*
 * h2_frames: what one side of an HTTP/2 connection has sent, read by the rules that bind either (RFC 9113): SETTINGS first,
 * whole sections that decode and that nothing interrupts, frames of the connection as long as they are to be, nothing
 * behind the GOAWAY of an error. What binds one side alone is its reader's: h2_seen.h for servers, h2_asked.h for clients.
 */
#pragma once
#include "proto/h2_frame.h"
#include "proto/hpack.h"

struct h2_frames;

struct h2_frames_rules {
    /* DATA, HEADERS, CONTINUATION, RST_STREAM and WINDOW_UPDATE of a stream. */
    void (*frame)(struct h2_frames *, const struct ag_h2_frame *, struct ag_span payload);
    /* A field of a section that is whole, by its place from 0 on; then its end. */
    void (*field)(struct h2_frames *, const struct ag_field *, unsigned place);
    void (*section)(struct h2_frames *, uint32_t id, bool end_stream);
};

struct h2_frames {
    const struct h2_frames_rules *rules;
    struct ag_arena memory;
    struct ag_hpack_decoder decoder;
    size_t at; /* of what was sent: bytes that were read */
    uint32_t frames;
    uint32_t section_id; /* a section that goes on; 0: none */
    bool section_end;
    bool failed; /* GOAWAY with an error was sent */
    size_t section_len;
    uint8_t section[80000];
};

void h2_frames_begin(struct h2_frames *s, const struct h2_frames_rules *rules);
/* `all` that was sent so far; panics when it breaks a rule. */
void h2_frames_read(struct h2_frames *s, struct ag_span all);
void h2_frames_end(struct h2_frames *s);
