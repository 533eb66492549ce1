/*
 * h2_asked: what a client has sent on an HTTP/2 connection, read by the rules that bind it (RFC 9113): the magic and
 * SETTINGS first, whole sections that decode, streams in order of their numbers, each of them ended or reset once
 * and nothing behind that, nothing behind the GOAWAY of an error; and content that is what it is to be.
 */
#pragma once
#include "proto/h2_frame.h"
#include "proto/hpack.h"

#define H2_ASKED_STREAMS 64u
/* Byte number i of any stream's content is `content`'s at i % H2_ASKED_PERIOD; it lies there twice. */
#define H2_ASKED_PERIOD 65536u

struct h2_asked_stream {
    uint64_t got; /* bytes of content */
    bool begun, ended, reset;
};

struct h2_asked {
    struct ag_arena memory;
    struct ag_hpack_decoder decoder;
    const uint8_t *content;
    size_t at; /* of what was sent: bytes that were read */
    uint32_t frames;
    uint32_t last_id;    /* of the newest stream */
    uint32_t section_id; /* a section that goes on; 0: none */
    bool section_end;
    bool failed; /* GOAWAY with an error was sent */
    size_t section_len;
    uint8_t section[80000];
    struct h2_asked_stream streams[H2_ASKED_STREAMS]; /* by id / 2 */
};

void h2_asked_begin(struct h2_asked *s, const uint8_t *content);
/* `all` that was sent so far; panics when it breaks a rule. */
void h2_asked_read(struct h2_asked *s, struct ag_span all);
void h2_asked_end(struct h2_asked *s);
