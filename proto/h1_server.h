/*
 * h1_server: HTTP/1 on one downstream stream: requests in, answers out, in order (RFC 9112).
 *
 *   IDLE --bytes--> HEAD --head complete--> EXCHANGE --answer sent, request read--> IDLE
 *                    | bad: answer, close        | tunnel after 101: TUNNEL
 *
 * One exchange at a time; what the client pipelines waits as slices (bounded: reading pauses) and is
 * answered in turn; answers that are ready at once leave in one send. Request content goes to the
 * exchange's req_body while it has room, else reading pauses. An answer that comes before the request
 * was read to its end: the rest is read and dropped within limits, or the connection ends.
 */
#pragma once
#include "proto/exchange.h"
#include "proto/h1_chunk.h"
#include "proto/h1_parse.h"
#include "proto/proxy_protocol.h"

/* Per listener. */
#define AG_LIMITS_OF_NOBODY UINT16_MAX /* the index of a listener that a reload has taken away */

struct ag_server_limits {
    struct ag_h1_limits head;
    uint32_t header_timeout_ms;   /* a whole head: 408 */
    uint32_t idle_timeout_ms;     /* between requests, and of an exchange that streams: close */
    uint32_t max_requests;        /* on one connection, the last one closes it; 0: any number */
    uint32_t max_connections;     /* of this listener, shared out among the shards; 0: any number */
    uint64_t discard_max_bytes;   /* request content read and dropped to keep the connection */
    struct ag_route_limits route; /* before a route is known, and where it says nothing else */
    uint32_t h2_streams_max;      /* of one connection at a time; 0: AG_H2_STREAMS_MAX */
    uint32_t h2_resets_max;       /* of its streams in 10 s; 0: AG_H2_RESETS_MAX */
    uint16_t index;               /* of `route` among the different ones of all listeners */
    uint16_t redirect_port;       /* requests go to https at this port; 0: they are served */
};

enum ag_h1_state {
    AG_H1_IDLE = 0, /* no request under way             -> HEAD, CLOSING */
    AG_H1_HEAD,     /* part of a head has come          -> EXCHANGE, CLOSING */
    AG_H1_EXCHANGE, /* ex is live                       -> IDLE, TUNNEL, CLOSING */
    AG_H1_TUNNEL,   /* bytes both ways                  -> CLOSING */
    AG_H1_CLOSING,  /* finish or abort was called */
};

/* How far a request and its answer are: in its exchange's room, for an idle connection is to be small. */
struct ag_h1_progress {
    struct ag_h1_parser parser;
    struct ag_h1_chunk chunk;
    uint64_t body_left;  /* of a request with Content-Length */
    uint64_t body_bytes; /* content of this request so far; of an answered one: what was dropped */
    struct ag_pace body_pace;    /* of the request's content, while limits hold for it */
    uint64_t res_left;           /* of an answer with Content-Length */
    struct ag_stream_look taken; /* of a tunnel */
};

struct ag_h1_server {
    struct ag_stream *stream;
    struct ag_context *context;
    const struct ag_server_limits *limits;
    struct ag_exchange *ex; /* in HEAD, EXCHANGE, TUNNEL; with struct ag_h1_progress */
    struct ag_chain in;     /* received, not yet used */
    struct ag_task work;
    const struct ag_proxied
        *proxied;      /* set by the owner after init; NULL: no header told anything */
    uint64_t due_ms;   /* loop time: IDLE, HEAD: the end of it; else of a stream's silence */
    uint64_t look_ms;  /* loop time of the next look at a client that takes output; 0: none */
    uint32_t requests; /* begun on this connection */
    uint16_t listener_port;
    struct ag_peer peer;
    uint8_t state;      /* enum ag_h1_state */
    uint8_t small_run;  /* `large`: requests in a row that had little content or none */
    bool paused;        /* reading is paused by us */
    bool draining;      /* close after the present exchange */
    bool body_done;     /* the request was read to its end */
    bool res_started;   /* the final head is written */
    bool res_done;      /* the answer is written to its end */
    bool keep_alive;    /* the connection may live on after this exchange */
    bool last;          /* the client has said that nothing follows its request */
    bool continue_owed; /* the client waits for 100 */
    bool in_trailers;
    bool running;      /* inside run(): wake-ups need no task */
    bool eof      : 1; /* the client has shut its side */
    bool cut      : 1; /* or somebody else has: what has no end of its own is not whole */
    bool yielding : 1; /* draining, and what is idle waits for one more */
    bool blank    : 1; /* HEAD: what has come of it is an empty line, and due_ms is that of IDLE */
    bool large    : 1; /* reading in large buffers */
    bool tls      : 1;
    bool granted  : 1; /* more time, while it waited for a buffer; until data comes */
};

/* Starts on an open stream; the owner's ag_stream_user calls the functions below. `limits` stays as long
 * as the connection, and may change. */
void ag_h1_server_init(struct ag_h1_server *h, struct ag_stream *s, struct ag_context *ctx,
                       const struct ag_server_limits *limits, uint16_t listener_port);

/* The stream's callbacks, for the owner's table to call. */
void ag_h1_server_data(struct ag_h1_server *h, struct ag_slice s);
void ag_h1_server_eof(struct ag_h1_server *h);
void ag_h1_server_cut(struct ag_h1_server *h);
void ag_h1_server_drained(struct ag_h1_server *h);
void ag_h1_server_deadline(struct ag_h1_server *h);
/* The stream is gone: aborts what is live. The owner frees both afterwards. */
void ag_h1_server_closed(struct ag_h1_server *h, enum ag_reason why);

/* Drain: an idle connection ends unless a request is on its way, a busy one after its exchange
 * (Connection: close). */
void ag_h1_server_drain(struct ag_h1_server *h);
/* The next answer is the last one, and says so: a connection that is idle now waits for it, for a
 * request may be on its way and would be lost by closing. */
void ag_h1_server_yield(struct ag_h1_server *h);
/* The limits are shorter than before: whoever is idle, or sends a head, has no longer than they say from now. */
void ag_h1_server_hasten(struct ag_h1_server *h);
/* Nobody waits for an answer: what came of a head is nothing, or the empty line that old clients send
 * after content (RFC 9112 section 2.2). */
bool ag_h1_server_idle(const struct ag_h1_server *h);
