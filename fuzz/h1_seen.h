/*
 * h1_seen: a record of what a pipeline and its action were given of a request, in copies, so that it can
 * be compared with what was sent when the request is long gone.
 */
#pragma once
#include "proto/exchange.h"

struct act_seen {
    struct ag_span method, target, path, query, authority, host;
    struct ag_span fields; /* a line "name: value\n" each */
    uint64_t length;
    uint8_t framing, version;
    uint16_t port; /* of the authority */
    bool keep_alive, expects, upgrade, has_query, absolute;
    unsigned act;            /* enum act */
    uint64_t body_len;       /* content that the action took */
    size_t body;             /* where it starts in the record's memory */
    bool body_ended;         /* to its true end */
    struct ag_span trailers; /* as `fields`, when it has ended */
    /* when it was over */
    bool done;
    unsigned status; /* of the exchange: the answer's, 0: none */
    uint64_t sent;   /* bytes of content that the exchange has counted */
};

/* A request as the pipeline gets it. `bytes` is memory for copies; panics when it is full. */
void seen_request(struct act_seen *seen, const struct ag_request *req, struct ag_buf *bytes);
/* A piece of content that the action takes. */
void seen_content(struct act_seen *seen, struct ag_span piece, struct ag_buf *bytes);
/* Content has come to its end. Panics when it counted other bytes than were taken, but for a tunnel. */
void seen_end(struct act_seen *seen, const struct ag_body *body, struct ag_buf *bytes);
/* It is over. Panics when it has been before, or when the request is not what it was at first. */
void seen_done(struct act_seen *seen, const struct ag_exchange *ex, struct ag_buf *bytes);
