/*
 * h2_asked: what a client has sent on an HTTP/2 connection, read by the rules that bind it (RFC 9113) beside those of
 * h2_frames.h: the magic first, streams in order of their numbers, each of them ended or reset once and nothing behind
 * that; and content that is what it is to be.
 */
#pragma once
#include "fuzz/h2_frames.h"

#define H2_ASKED_STREAMS 64u
/* Byte number i of any stream's content is `content`'s at i % H2_ASKED_PERIOD; it lies there twice. */
#define H2_ASKED_PERIOD 65536u

struct h2_asked_stream {
    uint64_t got; /* bytes of content */
    bool begun, ended, reset;
};

struct h2_asked {
    struct h2_frames frames; /* first */
    const uint8_t *content;
    uint32_t last_id; /* of the newest stream */
    bool pseudo;      /* no other field of the section has come yet */
    struct h2_asked_stream streams[H2_ASKED_STREAMS]; /* by id / 2 */
};

void h2_asked_begin(struct h2_asked *s, const uint8_t *content);
/* `all` that was sent so far; panics when it breaks a rule. */
void h2_asked_read(struct h2_asked *s, struct ag_span all);
void h2_asked_end(struct h2_asked *s);
