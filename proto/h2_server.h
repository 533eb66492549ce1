/*
 * h2_server: HTTP/2 on one downstream stream: requests in, answers out, many at a time (RFC 9113). A role of
 * h2_conn; it makes exchanges of streams and enforces what a route allows.
 *
 *   HEADERS --open--> exchange, with its stream behind it in the same page --start--> ... answer
 *
 *   live      in the connection's table: the request, the answer or both are under way
 *   orphan    the stream has left, the exchange is still worked on: it keeps its slot, so that a client
 *             that resets what it asked for cannot start more than it may have at a time
 *   gone      the exchange was freed: the slot is free
 *
 * Drain, in two steps (section 6.8): GOAWAY of the highest id; once the client must have seen that, GOAWAY of
 * the last one taken. What was taken is answered, then the connection ends.
 */
#pragma once
#include "proto/h1_server.h"
#include "proto/h2_conn.h"
#include "proto/h2_memo.h"

struct ag_h2_server {
    struct ag_h2_conn conn; /* first */
    struct ag_context *context;
    const struct ag_server_limits *limits;
    const struct ag_proxied
        *proxied;            /* set by the owner after init; NULL: no header told anything */
    struct ag_h2_memo *memo; /* of requests; in the connection's memory; NULL: none (yet) */
    struct ag_link done;     /* streams whose answers were complete inside of a call */
    struct ag_link orphans;  /* streams that have left, with exchanges that live */
    uint64_t idle_due_ms;    /* loop time; while no stream lives */
    uint64_t check_due_ms;   /* of the earliest look at the streams' content; 0: none */
    uint64_t drain_due_ms;   /* of the drain's second step; 0: not begun, or over */
    uint32_t slots;          /* exchanges that live */
    uint32_t requests;       /* begun on this connection */
    uint16_t listener_port;
    struct ag_peer peer;
    bool tls;
    bool draining;
    bool ending; /* no more streams are taken: ends with the last one */
};

/* Starts on an open stream, at the client's preface; the owner's ag_stream_user calls the functions below.
 * `limits` stays as long as the connection, and may change. The stream may be aborted at once, for want of
 * a buffer. */
void ag_h2_server_init(struct ag_h2_server *h, struct ag_stream *s, struct ag_context *ctx,
                       const struct ag_server_limits *limits, uint16_t listener_port);

/* The stream's callbacks, for the owner's table to call. */
void ag_h2_server_data(struct ag_h2_server *h, struct ag_slice s);
void ag_h2_server_eof(struct ag_h2_server *h);
void ag_h2_server_drained(struct ag_h2_server *h);
void ag_h2_server_deadline(struct ag_h2_server *h);
/* The stream is gone: aborts what is live. The owner frees both afterwards. */
void ag_h2_server_closed(struct ag_h2_server *h, enum ag_reason why);

/* Drain: what is on its way is answered, then the connection ends; nothing is lost. */
void ag_h2_server_drain(struct ag_h2_server *h);
/* The same: a client is told, and a request that is on its way is still taken. */
void ag_h2_server_yield(struct ag_h2_server *h);
/* The limits are shorter than before: an idle one has no longer than they say from now. */
void ag_h2_server_hasten(struct ag_h2_server *h);
/* No request is under way, and none has begun to come. */
bool ag_h2_server_idle(const struct ag_h2_server *h);
