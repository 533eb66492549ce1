/*
 * message: a reader of HTTP/1 messages, written from RFC 9112 for the oracle alone: it takes what is
 * well-formed and nothing else, and shares no code with the server.
 *
 *   HEAD -> BODY | CHUNK_SIZE <-> CHUNK_DATA -> TRAILERS -> DONE     BAD from anywhere
 */
#pragma once
#include "tests/sim/world.h"

#define MESSAGE_HEAD_MAX   16384u
#define MESSAGE_FIELDS_MAX 64u

enum message_state {
    MESSAGE_HEAD = 0,
    MESSAGE_BODY,       /* `left` bytes, or to the end of the connection */
    MESSAGE_CHUNK_SIZE, /* in a line */
    MESSAGE_CHUNK_DATA,
    MESSAGE_CHUNK_END, /* the CRLF behind data */
    MESSAGE_TRAILERS,
    MESSAGE_DONE,
    MESSAGE_BAD, /* `error` says why */
};

struct message_field {
    struct ag_span name, value;
};

struct message {
    struct sim *sim;
    bool request;
    bool h2;      /* it came over HTTP/2: h2.h */
    bool to_head; /* response: the request was HEAD */
    uint8_t state;
    bool close_delimited;
    bool chunked;
    bool keep_alive;
    bool version_10;
    bool head_seen; /* the head is complete */
    bool begun;     /* at least one byte came */
    const char *error;
    uint8_t *head; /* MESSAGE_HEAD_MAX */
    size_t head_len;
    uint8_t line[64]; /* a chunk's size, a trailer */
    size_t line_len;
    uint64_t left;       /* of the body or the chunk */
    uint64_t body_bytes; /* so far */
    unsigned status;     /* response */
    struct ag_span method, target;
    struct message_field fields[MESSAGE_FIELDS_MAX];
    unsigned field_count;
};

/* Ready for the next message. `m->head` is kept. */
void message_begin(struct message *m, struct sim *s, bool request, bool to_head);
/*
 * Takes bytes of `in` up to something worth telling: returns how many were used, with *out_body the
 * content among them. Stops behind a head, a piece of content and the end.
 */
size_t message_feed(struct message *m, struct ag_span in, struct ag_span *out_body);
/* The connection has ended: DONE when that ends the message, else BAD. */
void message_end(struct message *m);
/* The value of a field (names in any case), or an empty span; *out_count: how often it stands. */
struct ag_span message_field(const struct message *m, const char *name, unsigned *out_count);
/* The value as a number; UINT64_MAX: it is none. */
uint64_t message_number(struct ag_span s);
