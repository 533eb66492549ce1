/*
 * downstream: a client's connection: socket and protocol machine in one slab slot, and the shard's
 * list of them.
 */
#pragma once
#include "engine/conn.h"
#include "engine/listener.h"
#include "proto/h1_server.h"
#include "router/model.h"

struct ag_downstreams {
    struct ag_context *context;
    const struct ag_server_limits *limits;
    struct ag_pool pool; /* struct ag_downstream */
    struct ag_link open; /* all live ones */
    bool draining;
    void (*changed)(struct ag_downstreams *); /* one has gone */
};

struct ag_downstream {
    struct ag_conn conn;
    struct ag_h1_server h1;
    struct ag_link link;
    struct ag_downstreams *all;
};

/* AG_ENOMEM. */
AG_MUST_USE enum ag_status ag_downstreams_init(struct ag_downstreams *d, struct ag_context *ctx,
                                               const struct ag_server_limits *limits,
                                               uint32_t connection_max);
/* All must be gone. */
void ag_downstreams_deinit(struct ag_downstreams *d);
/* Takes over an accepted descriptor. False when the slab is full: the caller closes it and pauses. */
bool ag_downstream_accept(struct ag_downstreams *d, int fd, uint16_t listener_port);
/* Idle ones end now, busy ones after their exchange. */
void ag_downstreams_drain(struct ag_downstreams *d);
/* Ends all at once. */
void ag_downstreams_abort(struct ag_downstreams *d);
static inline bool ag_downstreams_full(const struct ag_downstreams *d)
{
    return d->pool.used == d->pool.count;
}
