/*
 * h1_answers: a strict reading of what an HTTP/1 server sends (RFC 9112), for tests: it takes nothing
 * that the RFC does not have, and calls nothing of proto/.
 */
#pragma once
#include "engine/span.h"

struct answer {
    unsigned status;     /* of the final head; 0: not even that is there */
    struct ag_span body; /* decoded so far, in the caller's memory */
    size_t trailers;     /* field lines after the last chunk */
    bool complete;
    bool close;           /* Connection: close */
    bool keep_alive;      /* Connection: keep-alive */
    bool until_close;     /* the content ends with the connection */
    bool tunnel;          /* 101: what follows is not HTTP, and is `body` */
    unsigned interim;     /* heads of 1xx before the final one */
    unsigned continues;   /* of them, 100 */
    struct ag_span head;  /* the final one: its lines, each with CRLF, without the empty one */
    struct ag_span hints; /* the last interim one */
    bool has_length;
    size_t length;              /* Content-Length */
    struct ag_span trailers_at; /* the lines after the last chunk, each with CRLF */
};

/*
 * Reads the answer at the start of `in`, which `head_request` says to be one to HEAD; returns its
 * length. Panics at what no server may send. `ended` says that the connection has ended here.
 *   body  memory as long as `in`
 */
size_t answer_read(struct ag_span in, bool head_request, bool ended, uint8_t *body,
                   struct answer *out);

/* How many fields `name` there are in `head`; *out_value is the first one's value, or empty. */
unsigned answer_field(struct ag_span head, const char *name, struct ag_span *out_value);
