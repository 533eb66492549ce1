/*
 * admin: what an operator asks of a running process: a listener of its own (server.admin), whose requests go to a table
 * of endpoints and not to routes.
 *
 *   listener --> downstreams of its own --h1, h2--> exchange --who asks? which endpoint?--> ag_admin_endpoint.answer
 *
 * Connections and pipeline are its own: no route leads there, none of its requests comes to a route, and it answers
 * when clients have taken all connections. Every shard serves it; what an endpoint tells of other shards is on the
 * board. It stays while the process drains, and goes last; but at an upgrade, where the successor has it at once.
 *
 * Who may ask: with a token (server.admin.token), whoever shows it (RFC 6750). Without one, peers on this machine, who
 * name an address or localhost as host: a page of a browser that has its own name lead here does not. Pages are told
 * by the field Origin, too, and refused always.
 *
 * A new endpoint is a line in a table; a new table is a line in admin.c.
 */
#pragma once
#include "actions/json_write.h"
#include "tools/downstream.h"

#define AG_ADMIN_CONNECTIONS 32u          /* of each shard */
#define AG_ADMIN_JSON_MAX    (128u << 10) /* of an answer */

struct ag_serving;

struct ag_admin {
    struct ag_context ctx; /* its snapshot is the current one, and is pinned by nobody */
    struct ag_downstreams down;
    struct ag_serving *serving;
};

struct ag_admin_endpoint {
    const char *path;
    uint32_t methods; /* bits by enum ag_method; HEAD comes with GET */
    /* Answers at once, by one of the functions below. */
    void (*answer)(struct ag_admin *, struct ag_exchange *);
};

/* A table ends with a path of NULL. */
extern const struct ag_admin_endpoint ag_admin_status_endpoints[];

/* AG_ENOMEM. `changed` as in struct ag_downstreams. */
AG_MUST_USE enum ag_status ag_admin_init(struct ag_admin *a, struct ag_serving *serving,
                                         void (*changed)(struct ag_downstreams *,
                                                         struct ag_downstream_origin *));
void ag_admin_deinit(struct ag_admin *a);

/* ---- for endpoints ---- */

/* A line of text, static. */
void ag_admin_text(struct ag_exchange *ex, unsigned status, struct ag_span text);
/* What was written into `o`, at most AG_ADMIN_JSON_MAX; 503 when that failed. */
void ag_admin_json(struct ag_exchange *ex, unsigned status, struct ag_json_out *o);
