/*
 * call: one request to an upstream and its answer, whichever version carries it. The caller sees neither
 * h1_client nor h2_client.
 *
 *   caller --start (upstream_pool.h)--> carrier: an h1 connection, or a stream of an h2 one
 *   interim*, head, then content in res_body ... done | failed
 *
 * A call borrows two bodies: the carrier takes the request's content from `req_body` and writes the
 * answer's into `res_body`, whole slices, no copies. It lives from its start until done, failed or cancel.
 */
#pragma once
#include "proto/body.h"
#include "proto/h1_write.h"

struct ag_call;

/* To the caller; all from the loop. After `done` or `failed` nothing more comes. */
struct ag_call_events {
    /* 1xx but 101; may come several times, at most AG_CALL_INTERIM_MAX. */
    void (*interim)(struct ag_call *, const struct ag_response *);
    /* The final head (or 101), its spans valid during the call only, longer while call->head_owner is
     * held; content follows in res_body. */
    void (*head)(struct ag_call *, const struct ag_response *);
    /* The answer is complete and in res_body; the carrier has let go. The request's content may be unsent:
     * then it is discarded. */
    void (*done)(struct ag_call *);
    /* No complete answer will come; res_body was aborted if its head had been given. `detail` is static. */
    void (*failed)(struct ag_call *, enum ag_reason, const char *detail);
    /* Of a tunnel: whether who is behind the caller has taken any of it since this was asked last. May be NULL. */
    bool (*taken)(struct ag_call *);
};

#define AG_CALL_INTERIM_MAX 16u

/* What a call waits for, for whoever watches the time. */
enum ag_call_phase {
    AG_CALL_CALLER = 0, /* the caller: for content, or for room in res_body */
    AG_CALL_WRITE,      /* the connection is to take the request */
    AG_CALL_WINDOW,     /* the upstream is to open a window for it (HTTP/2) */
    AG_CALL_FIRST_BYTE, /* it is to answer */
    AG_CALL_READ,       /* more of its answer is to come */
    AG_CALL_TUNNEL,     /* either way */
};

/* What carries it; h1_client.c and h2_client.c have one each. */
struct ag_call_ops {
    /* Gives the call up: nothing more is called back. */
    void (*cancel)(struct ag_call *);
    /* The same, and the caller is told by `failed`. Not from within another callback of the call. */
    void (*fail)(struct ag_call *, enum ag_reason, const char *detail);
    /* From `head` of 101, or of 2xx to an extended CONNECT: the bodies carry raw bytes from now on. Not
     * accepted: the call fails. */
    void (*accept_tunnel)(struct ag_call *);
    /* The phase, and the loop time since when nothing has moved in it. */
    enum ag_call_phase (*phase)(struct ag_call *, uint64_t *out_since_ms);
};

struct ag_call {
    /* The caller's, set before the start; all else is zero. */
    const struct ag_call_events *events;
    const struct ag_request *req;          /* during the start only */
    const struct ag_h1_request_opts *opts; /* during the start only */
    struct ag_span scheme;                 /* "http" or "https", for HTTP/2's :scheme */
    /* Content to send, framed by req->framing; with opts->upgrade it is what the tunnel will carry. NULL:
     * none. */
    struct ag_body *req_body;
    struct ag_body *res_body; /* where the answer's content goes; the carrier is its producer */
    struct ag_arena
        *keep; /* where what outlives the answer's buffers is kept; lives as long as res_body */
    /* The carrier's. */
    const struct ag_call_ops *ops; /* NULL: not under way */
    void *carrier;
    /* During interim and head: what the response's spans lie in; NULL: `keep`. Who holds it keeps them. */
    struct ag_block *head_owner;
    uint64_t progress_ms; /* loop time of the last bytes either way, or when waiting began */
    bool sent;            /* bytes of the request may have been seen by the upstream */
    bool received;        /* at least one byte of an answer came */
    bool replayable;  /* failed: the upstream says that it did nothing (REFUSED_STREAM, GOAWAY) */
    bool h1_required; /* failed: the upstream did nothing, for it wants this over HTTP/1.1 */
    bool given_up;    /* failed: the upstream has reset it for an error of either side */
};
