/*
 * h1_client: HTTP/1 towards an upstream, one call at a time on a stream (RFC 9112).
 *
 *   READY --start--> CALL --both sides complete--> READY (reusable) or dead
 *                     | 101 accepted: TUNNEL
 *
 * A call borrows two bodies: it takes the request's content from `req_body` and writes the answer's
 * into `res_body`, whole slices, no copies. A violation by the upstream ends the call with
 * AG_REASON_PROTOCOL; bytes that come while READY end the connection (a lying or confused upstream).
 *
 * Heads are parsed where they were received; one that straddles receive buffers is gathered in a
 * buffer of its own. Reading stops while res_body has no room. An answer of 16k or more is received
 * in large buffers, and so is what follows on this stream until several small answers in a row.
 */
#pragma once
#include "proto/body.h"
#include "proto/h1_chunk.h"
#include "proto/h1_parse.h"
#include "proto/h1_write.h"

struct ag_h1_client;

/* To the caller; all from the loop. After `done` or `failed` nothing more comes for this call. */
struct ag_h1_call_ops {
    /* 1xx but 101; may come several times, at most AG_H1_INTERIM_MAX. */
    void (*interim)(struct ag_h1_client *, const struct ag_response *);
    /* The final head (or 101), its spans valid during the call only; content follows in res_body. */
    void (*head)(struct ag_h1_client *, const struct ag_response *);
    /* The answer is complete and in res_body. `reusable`: the stream may carry the next call, which
     * may be started from here; else the client has ended the stream. The request's content may be
     * unsent: then it is discarded, and the stream not reusable. */
    void (*done)(struct ag_h1_client *, bool reusable);
    /* No complete answer will come; res_body was aborted if its head had been given. The stream is
     * aborted by the client. `sent`: bytes of the request may have been seen by the upstream;
     * `received`: at least one byte of an answer came. */
    void (*failed)(struct ag_h1_client *, enum ag_reason, const char *detail);
};

#define AG_H1_INTERIM_MAX 16u

enum ag_h1_client_state {
    AG_H1_CLIENT_READY = 0, /* no call               -> CALL, DEAD */
    AG_H1_CLIENT_CALL,      /*                       -> READY, TUNNEL, DEAD */
    AG_H1_CLIENT_TUNNEL,    /* after 101             -> DEAD */
    AG_H1_CLIENT_DEAD,      /* the stream is closing */
};

struct ag_h1_client {
    struct ag_stream *stream;
    const struct ag_h1_call_ops *ops;
    void *caller;             /* the ops' */
    struct ag_body *req_body; /* NULL: no content */
    struct ag_body *res_body;
    struct ag_chain in;
    /* During `interim` and `head`: what the response's spans lie in. Who holds it keeps them valid. */
    struct ag_block *head_owner;
    struct ag_block *head; /* a head that straddles receive buffers is gathered here */
    uint32_t head_len;
    struct ag_h1_parser parser;
    struct ag_h1_chunk chunk;
    struct ag_arena *keep;       /* the caller's: trailers of the answer */
    struct ag_arena arena;       /* field tables of heads and trailers; released after each call */
    struct ag_response *partial; /* of the gathered head or trailers; in `arena` */
    struct ag_task work;         /* sends what of req_body comes in the turn of the start */
    uint64_t req_left;           /* of a request with Content-Length */
    uint64_t res_left;
    uint64_t progress_ms; /* loop time of the last bytes either way, or when waiting began */
    uint64_t written;     /* bytes in the stream's queue after the head was written */
    uint32_t interim_count;
    uint8_t full_run;    /* full small buffers in a row */
    uint8_t small_run;   /* small answers in a row */
    uint8_t state;       /* enum ag_h1_client_state */
    uint8_t res_framing; /* enum ag_framing */
    uint8_t req_framing;
    uint8_t method; /* enum ag_method */
    bool paused, eof;
    bool head_done; /* final head was given */
    bool res_done, req_done;
    bool keep_alive;
    bool in_trailers;
    bool upgrade;        /* the request asked for it: 101 is a possible answer */
    bool repeated;       /* not the connection's first call */
    bool large;          /* receiving in large buffers; the owner may set it after init */
    bool sent, received; /* see failed */
};

void ag_h1_client_init(struct ag_h1_client *c, struct ag_stream *s);
/* What a call works with; `req` and `opts` are used during ag_h1_client_start only. */
struct ag_h1_call {
    const struct ag_request *req;
    const struct ag_h1_request_opts *opts;
    /* Content to send, framed by req->framing (LENGTH or CHUNKED); with opts->upgrade it is what the
     * tunnel will carry. NULL: none. */
    struct ag_body *req_body;
    struct ag_body *res_body; /* where the answer's content goes; the client is its producer */
    struct ag_arena *keep;    /* where the answer's trailers are kept: as long-lived as res_body */
    const struct ag_h1_call_ops *ops;
    void *caller;
};
/* Starts a call: writes the head at once. AG_ENOMEM: nothing was started, the stream is aborted. */
AG_MUST_USE enum ag_status ag_h1_client_start(struct ag_h1_client *c,
                                              const struct ag_h1_call *call);
/* From `head` with status 101 only: the bodies carry raw bytes from now on. Not accepted: the call
 * fails. */
void ag_h1_client_accept_tunnel(struct ag_h1_client *c);
/* Gives the call up: nothing more is called back; the stream is aborted. Harmless without a call. */
void ag_h1_client_cancel(struct ag_h1_client *c);

/* The stream's callbacks, for the owner's table to call. */
void ag_h1_client_data(struct ag_h1_client *c, struct ag_slice s);
void ag_h1_client_eof(struct ag_h1_client *c);
void ag_h1_client_drained(struct ag_h1_client *c);
/* The stream is gone: a live call fails with `why`. */
void ag_h1_client_closed(struct ag_h1_client *c, enum ag_reason why);
