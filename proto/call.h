/*
 * call: one request to an upstream and its answer, whichever version carries it. The caller sees neither
 * h1_client nor h2_client.
 *
 *   caller --start (upstream_pool gives the carrier)--> carrier: an h1 connection, or a stream of an h2 one
 *   interim*, head, then content in res_body ... done | failed
 */
#pragma once
#include "proto/body.h"
#include "proto/h1_write.h"

struct ag_call;

/* To the caller; all from the loop. After `done` or `failed` nothing more comes. */
struct ag_call_events {
    /* 1xx but 101; may come several times. */
    void (*interim)(struct ag_call *, const struct ag_response *);
    /* The final head (or 101), its spans valid during the call only, longer while call->head_owner is held;
     * content follows in res_body. */
    void (*head)(struct ag_call *, const struct ag_response *);
    /* The answer is complete and in res_body; the carrier is free or gone. */
    void (*done)(struct ag_call *);
    /* No complete answer will come; res_body was aborted if its head had been given. */
    void (*failed)(struct ag_call *, enum ag_reason, const char *detail);
};

/* What carries it; h1_client.c and h2_client.c have one each. */
struct ag_call_ops {
    /* Gives the call up: nothing more is called back. */
    void (*cancel)(struct ag_call *);
    /* From `head` of 101, or of 2xx to an extended CONNECT: the bodies carry raw bytes from now on. */
    void (*accept_tunnel)(struct ag_call *);
};

struct ag_call {
    /* The caller's, set before the start. */
    const struct ag_call_events *events;
    const struct ag_request *req; /* during the start only */
    const struct ag_h1_request_opts
        *opts;                /* target, host, upgrade, trailers; during the start only */
    struct ag_span scheme;    /* "http" or "https", for h2's :scheme */
    struct ag_body *req_body; /* content to send; NULL: none */
    struct ag_body *res_body; /* where the answer's content goes */
    struct ag_arena *keep;    /* where fields of the answer that outlive it are kept */
    /* The carrier's. */
    const struct ag_call_ops *ops; /* NULL: not under way */
    void *carrier;
    struct ag_block
        *head_owner; /* during interim and head: what the response's spans lie in; NULL: `keep` */
    uint64_t progress_ms; /* loop time of the last bytes either way, or when waiting began */
    bool sent,
        received;    /* bytes of the request may have been seen; at least one of an answer came */
    bool replayable; /* failed: the upstream says it did nothing (REFUSED_STREAM, GOAWAY) */
    bool req_done, head_done, paused, tunnel;
};
