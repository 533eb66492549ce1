/*
 * h2_server_parts: what the files of h2_server share; nobody else includes it.
 *
 *   h2_server.c          the machine: callbacks, deadlines, drain, the end of streams
 *   h2_server_request.c  input: requests, content, trailers, their limits
 *   h2_server_answer.c   output: what actions answer, as frames
 */
#pragma once
#include "proto/h2_server.h"

/* In the exchange's arena. */
struct ag_h2_request {
    struct ag_h2_stream s;       /* first */
    struct ag_h2_server *server; /* NULL: the connection is gone */
    struct ag_exchange *ex;
    struct ag_link done;      /* in the server's, while it waits there */
    struct ag_pace body_pace; /* of the request's content, while limits hold for it */
    uint64_t body_bytes;      /* of the request so far; when it is answered: dropped */
    bool res_started;         /* the final head is written */
    bool tunnel;              /* bytes both ways, after a 2xx to an extended CONNECT */
    bool continue_owed;       /* the client waits for 100 */
    bool discards;            /* the answer is complete, the request's rest is dropped */
};

static inline struct ag_h2_request *ag_h2_request_of(struct ag_h2_stream *s)
{
    return ag_container_of(s, struct ag_h2_request, s);
}

static inline struct ag_h2_server *ag_h2_server_of(struct ag_h2_conn *c)
{
    return ag_container_of(c, struct ag_h2_server, conn);
}

/* ---- h2_server.c ---- */

/* The answer is written to its end. To be called from the loop, not out of the exchange. */
void ag_h2_server_answered(struct ag_h2_request *r);
/* The same, in a call of the exchange's: soon. */
void ag_h2_server_answered_soon(struct ag_h2_request *r);
/* The stream is reset, and its exchange ends. */
void ag_h2_server_drop(struct ag_h2_request *r, enum ag_h2_error code, enum ag_reason why);
/* The stream has left: the exchange is told. */
void ag_h2_server_lost(struct ag_h2_stream *s, enum ag_h2_error code, enum ag_reason why,
                       const char *what);
/* The stream has left, or was never begun: the exchange holds its slot until it is freed. */
void ag_h2_server_orphan(struct ag_h2_request *r);
/* Looks again at this loop time, or sooner; 0: never. */
void ag_h2_server_check_at(struct ag_h2_server *h, uint64_t due_ms);

/* ---- h2_server_request.c ---- */

void ag_h2_server_open(struct ag_h2_conn *c, uint32_t id, struct ag_span section, bool end);
void ag_h2_server_trailers(struct ag_h2_stream *s, struct ag_span section, bool end);
void ag_h2_server_content(struct ag_h2_stream *s, size_t len);
void ag_h2_server_ended(struct ag_h2_stream *s);
/* Whether the rest of an answered request can be read and dropped, as h1_server does: a client that is told
 * to stop may lose the answer. */
bool ag_h2_server_rest_is_small(const struct ag_h2_request *r);
/* Drops what comes of it, within limits. */
void ag_h2_server_discard(struct ag_h2_request *r);
/* The client is to send its request's content, or more of it, from now on. */
void ag_h2_server_await_body(struct ag_h2_request *r);
/* Loop time by which more of it has to come; 0: it is not waited for. */
uint64_t ag_h2_server_body_due(const struct ag_h2_request *r);
/* It has not come in time. */
void ag_h2_server_body_late(struct ag_h2_request *r);

/* ---- h2_server_answer.c ---- */

extern const struct ag_server_ops ag_h2_server_ops;
