/*
 * downstream: a client's connection: socket and protocol machine in one slab slot, and the shard's
 * list of them.
 */
#pragma once
#include "engine/conn.h"
#include "engine/listener.h"
#include "proto/h1_server.h"

/* What connections of one listener share; outlives them. */
struct ag_downstream_origin {
    struct ag_server_limits limits; /* a reload may change them under live connections */
    uint32_t connections;
    uint16_t port;
    bool draining; /* new ones are answered once */
};

struct ag_downstreams {
    struct ag_context *context;
    struct ag_pool pool; /* struct ag_downstream */
    struct ag_link open; /* all live ones */
    /* One has gone; origin->connections is counted down before. */
    void (*changed)(struct ag_downstreams *, struct ag_downstream_origin *);
};

struct ag_downstream {
    struct ag_conn conn;
    struct ag_h1_server h1;
    struct ag_link link;
    struct ag_downstreams *all;
    struct ag_downstream_origin *origin;
};

/* AG_ENOMEM. */
AG_MUST_USE enum ag_status ag_downstreams_init(struct ag_downstreams *d, struct ag_context *ctx,
                                               uint32_t connection_max);
/* All must be gone. */
void ag_downstreams_deinit(struct ag_downstreams *d);
/* Takes over an accepted descriptor. False when the slab is full: nothing is done. */
bool ag_downstream_accept(struct ag_downstreams *d, int fd, struct ag_downstream_origin *origin);
/* Those of `origin` (NULL: of every one): idle ones end now, busy ones after their exchange. */
void ag_downstreams_drain(struct ag_downstreams *d, struct ag_downstream_origin *origin);
/* All: each ends with its next answer, idle ones too (ag_h1_server_yield). */
void ag_downstreams_yield(struct ag_downstreams *d);
/* Ends all at once. False: some were not idle. */
bool ag_downstreams_abort(struct ag_downstreams *d);
static inline bool ag_downstreams_full(const struct ag_downstreams *d)
{
    return d->pool.used == d->pool.count;
}
