/*
 * client: requests of the server's own (OCSP, and whatever else asks before it can answer): their answers are
 * small and read whole.
 *
 *   owner --request--> [connection, call, content] --done--> owner reads the answer
 *                 \--cancel--> nothing more comes
 *
 * Declared here so that who asks need not know upstreams; actions/upstream/client.c implements it over their pools.
 */
#pragma once
#include "engine/stream.h"
#include "proto/http.h"

struct ag_client;         /* a shard's; the carrier's own */
struct ag_client_target;  /* where to: made at load (actions/upstream/client.h) */
struct ag_client_request; /* one question */
struct ag_upstream_aim;   /* one server of the target alone; the carrier's own */

struct ag_client_header {
    struct ag_span name, value;
};

/* What an answer's content may come to, bytes. */
#define AG_CLIENT_ANSWER_MAX (64u * 1024u)

struct ag_client_ops {
    /* Asks. False: out of memory, nothing was begun. `done` comes later, never from within. */
    bool (*request)(struct ag_client *, struct ag_client_request *);
    /* Gives the question up; harmless when none is under way. */
    void (*cancel)(struct ag_client_request *);
};

/* Embedded in its owner; stays until `done` has come or it was cancelled. */
struct ag_client_request {
    /* The owner's, set before. */
    const struct ag_client_target *target;
    enum ag_method method;
    struct ag_span content_type;            /* of `content`; empty: none is sent */
    struct ag_span content;                 /* copied; at most AG_BUF_LARGE_BYTES */
    struct ag_span accept;                  /* Accept; empty: none */
    struct ag_span loop;                    /* CDN-Loop (RFC 8586); empty: none */
    struct ag_span host;                    /* Host; empty: the server's own */
    const struct ag_client_header *headers; /* others; stay until the end */
    uint32_t header_count;
    const struct ag_upstream_aim *aim; /* NULL: any server; stays until the end */
    bool clip;                         /* of an answer that is too large the beginning is enough */
    void (*done)(struct ag_client_request *);
    /* The answer, valid in `done` alone. */
    unsigned status;       /* 0: there is none, see reason and detail */
    enum ag_reason reason; /* why not */
    const char *detail;    /* static text beside it */
    const struct ag_fields *fields;
    struct ag_span answer; /* its content */
    /* The carrier's. */
    void *under_way;
};
