/*
 * h1_oracle: a strict reading of what an HTTP/1 client sends, written from RFC 9112, 9110 and 3986
 * alone: it calls nothing of proto/. Slow and plain, one message at a time, always from the message's
 * first byte. Where the RFCs leave a choice it is the one of docs/ARCHITECTURE.md section 8.
 *
 *   head:     MORE    the input ends in it
 *             REFUSE  one of `statuses` is the answer, and the connection's end
 *             OK      `head_len` bytes; framing says what follows
 *   content:  the same; `body` is what came of it, decoded
 */
#pragma once
#include "engine/span.h"

enum oracle_verdict { ORACLE_OK, ORACLE_MORE, ORACLE_REFUSE };

/* Sets of statuses. */
enum oracle_status {
    ORACLE_400 = 1,
    ORACLE_413 = 2,
    ORACLE_414 = 4,
    ORACLE_417 = 8,
    ORACLE_421 = 16,
    ORACLE_431 = 32,
    ORACLE_501 = 64,
    ORACLE_505 = 128,
};
/* 0 for a status that is none of them. */
unsigned oracle_status_bit(unsigned status);

struct oracle_limits {
    size_t line_max, head_max, field_max; /* as in h1_parse.h */
    size_t chunk_line_max;                /* bytes of a chunk's size line, CRLF included */
};

struct oracle_head {
    enum oracle_verdict verdict;
    unsigned statuses; /* REFUSE */
    size_t head_len;   /* OK: bytes with the empty line */
    struct ag_span method, target;
    struct ag_buf path; /* the normal form, in the caller's memory; empty for CONNECT */
    struct ag_span query;
    struct ag_span authority; /* of the target, else of Host */
    struct ag_buf fields;     /* in the caller's memory: a line "name: value\n" each; Host says what
                               * the target says */
    bool json; /* an Accept names JSON: it may be preferred, else it may not be sent */
    bool http10, chunked, has_length;
    bool keep_alive;
    struct ag_span host; /* of the authority, */
    unsigned port;       /* and its port, or 0 */
    bool has_query, absolute;
    bool secured;        /* the target is of the https scheme */
    bool odd_connection; /* Connection holds quotes: keep_alive is a guess */
    bool expects, upgrade;
    uint64_t length;
};

struct oracle_body {
    enum oracle_verdict verdict;
    unsigned statuses;    /* REFUSE */
    size_t len;           /* bytes of the input that belong to the message */
    struct ag_buf body;   /* decoded, in the caller's memory */
    size_t trailers;      /* lines */
    struct ag_buf passed; /* those that may be handed on, as `fields`, in the caller's memory */
};

/* Reads the head at the start of `in`. `path` is memory for its normal form, as long as `in`, and
 * `fields` for its fields, twice as long. */
void oracle_read_head(struct ag_span in, const struct oracle_limits *limits, struct ag_buf path,
                      struct ag_buf fields, struct oracle_head *out);
/* Reads the content at the start of `in`; `body` and `passed` are memory as long as `in`, each. */
void oracle_read_body(struct ag_span in, const struct oracle_head *head,
                      const struct oracle_limits *limits, struct ag_buf body, struct ag_buf passed,
                      struct oracle_body *out);
