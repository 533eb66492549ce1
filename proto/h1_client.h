/*
 * h1_client: HTTP/1 towards an upstream, one call at a time on a stream (RFC 9112).
 *
 *   READY --start--> CALL --both sides complete--> READY (reusable) or dead
 *                     | 101 accepted: TUNNEL
 *
 * It carries what call.h describes. A violation by the upstream ends the call with AG_REASON_PROTOCOL;
 * bytes that come while READY end the connection (a lying or confused upstream).
 *
 * Heads are parsed where they were received; one that straddles receive buffers is gathered in a
 * buffer of its own. Reading stops while res_body has no room. An answer of 16k or more is received
 * in large buffers, and so is what follows on this stream until several small answers in a row.
 */
#pragma once
#include "proto/call.h"
#include "proto/h1_chunk.h"
#include "proto/h1_parse.h"

struct ag_h1_client;

enum ag_h1_client_state {
    AG_H1_CLIENT_READY = 0, /* no call               -> CALL, DEAD */
    AG_H1_CLIENT_CALL,      /*                       -> READY, TUNNEL, DEAD */
    AG_H1_CLIENT_TUNNEL,    /* after 101             -> DEAD */
    AG_H1_CLIENT_DEAD,      /* the stream is closing */
};

struct ag_h1_client {
    struct ag_stream *stream;
    struct ag_call *call;  /* CALL, TUNNEL; else NULL */
    struct ag_slice now;   /* the input: its present slice, of no bytes: there is none */
    struct ag_chain in;    /* what came behind that */
    struct ag_block *head; /* a head that straddles receive buffers is gathered here */
    uint32_t head_len;
    struct ag_h1_parser parser;
    struct ag_h1_chunk chunk;
    struct ag_arena arena;       /* field tables of heads and trailers; released after each call */
    struct ag_response *partial; /* of the gathered head or trailers; in `arena` */
    struct ag_task work;         /* sends what of req_body comes in the turn of the start */
    uint64_t req_left;           /* of a request with Content-Length */
    uint64_t res_left;
    uint64_t written;     /* bytes in the stream's queue after the head was written */
    uint32_t ahead_bytes; /* of the queue that the owner had put there before the first call */
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
    bool upgrade;  /* the request asked for it: 101 is a possible answer */
    bool expects;  /* it asked for 100, which has not come */
    bool repeated; /* not the connection's first call */
    bool large;    /* receiving in large buffers; the owner may set it after init */
};

void ag_h1_client_init(struct ag_h1_client *c, struct ag_stream *s);
/*
 * Starts a call on a READY client: writes the head at once. The request's content is framed as LENGTH or
 * CHUNKED, of HTTP/2 by its length if that is known. After done the client is READY for the next call, which
 * may be started from there, or DEAD: then it has ended the stream.
 * AG_ENOMEM: nothing was started, the stream is aborted.
 */
AG_MUST_USE enum ag_status ag_h1_client_start(struct ag_h1_client *c, struct ag_call *call);

/* The stream's callbacks, for the owner's table to call. */
void ag_h1_client_data(struct ag_h1_client *c, struct ag_slice s);
void ag_h1_client_eof(struct ag_h1_client *c);
void ag_h1_client_drained(struct ag_h1_client *c);
/* The stream is gone: a live call fails with `why`. */
void ag_h1_client_closed(struct ag_h1_client *c, enum ag_reason why);
