/*
 * admin: what an operator asks of a running process: a listener of its own (server.admin), whose requests go to a table
 * of endpoints and not to routes.
 *
 *   listener --> downstreams of its own --h1, h2--> exchange --who asks? which endpoint?--> ag_admin_endpoint.answer
 *                                                                            content (JSON) <--ag_admin_read--'
 *
 * Connections and pipeline are its own: no route leads there, none of its requests comes to a route, and it answers
 * when clients have taken all connections. Every shard serves it; what an endpoint tells of other shards is on the
 * board. It stays while the process drains, and goes last; but at an upgrade, where the successor has it at once.
 *
 * Who may ask: with a token (server.admin.token), whoever shows it (RFC 6750). Without one, peers on this machine, who
 * name an address or localhost as host: a page of a browser that has its own name lead here does not. Pages are told
 * by the field Origin, too, and refused always. Content has to say that it is JSON, which no form of a page can.
 *
 * A new endpoint is a line in a table; a new table is a line in admin.c.
 */
#pragma once
#include "actions/json_write.h"
#include "engine/node.h"
#include "tools/downstream.h"

#define AG_ADMIN_CONNECTIONS 32u        /* of each shard */
#define AG_ADMIN_JSON_MAX    (1u << 20) /* of an answer */
#define AG_ADMIN_CONTENT_MAX (8u << 10) /* of a request */
#define AG_ADMIN_SEGMENT_MAX (2u << 10) /* of a path's segment, decoded */

struct ag_serving;

struct ag_admin {
    struct ag_context ctx; /* its snapshot is the current one, and is pinned by nobody */
    struct ag_downstreams down;
    struct ag_serving *serving;
};

struct ag_admin_endpoint {
    const char *path; /* a segment "*" stands for any that is not empty */
    uint32_t methods; /* bits by enum ag_method; HEAD comes with GET */
    /* Answers by one of the functions below: at once, or in what is called by ag_admin_read. */
    void (*answer)(struct ag_admin *, struct ag_exchange *);
};

/* A table ends with a path of NULL. */
extern const struct ag_admin_endpoint ag_admin_status_endpoints[];
extern const struct ag_admin_endpoint ag_admin_upstream_endpoints[];
extern const struct ag_admin_endpoint ag_admin_upstream_change_endpoints[];

/* AG_ENOMEM. `changed` as in struct ag_downstreams. */
AG_MUST_USE enum ag_status ag_admin_init(struct ag_admin *a, struct ag_serving *serving,
                                         void (*changed)(struct ag_downstreams *,
                                                         struct ag_downstream_origin *));
void ag_admin_deinit(struct ag_admin *a);

/* ---- for endpoints: admin_exchange.c ---- */

/* A line of text, static. */
void ag_admin_text(struct ag_exchange *ex, unsigned status, struct ag_span text);
/* An error and what is wrong, which is copied: a problem (RFC 9457) for who accepts JSON, else a line of text. */
void ag_admin_refuse(struct ag_exchange *ex, unsigned status, struct ag_span why);
/* The first diagnosis, as a 400. */
void ag_admin_refuse_content(struct ag_exchange *ex, const struct ag_diags *diags);
/* What was written into `o`, at most AG_ADMIN_JSON_MAX; 503 when that failed. */
void ag_admin_json(struct ag_exchange *ex, unsigned status, struct ag_json_out *o);
/* 204. */
void ag_admin_nothing(struct ag_exchange *ex);

/* Segment `index` of the path, decoded, in the exchange's arena. Its ptr is NULL when that is too long or no memory
 * is left: there is nothing of such a name. */
struct ag_span ag_admin_segment(struct ag_exchange *ex, unsigned index);

/* `root`: the content, an object; it lives, as `diags`, until the return. Answers. */
typedef void ag_admin_content_fn(struct ag_admin *a, struct ag_exchange *ex,
                                 const struct ag_node *root, struct ag_diags *diags);
/* Reads the request's content, at most AG_ADMIN_CONTENT_MAX of JSON, and calls `then`, or answers by itself: 415, 413,
 * 400. Nothing is called when the client has gone. */
void ag_admin_read(struct ag_exchange *ex, ag_admin_content_fn *then);

/* For the pipeline: the exchange's end. */
void ag_admin_let_go(struct ag_exchange *ex);
