/*
 * upstream_group: what all shards of a process know together of one upstream: which servers it has now, and how
 * each of them is. Everything else of an upstream (pools, connections) is a shard's own.
 *
 *   config, discovery, operator --change--> group: members, a version --look (a load)--> each shard's pool
 *   health checks, breakers     --flags---> member ----- version -----/
 *
 * A shard compares the version at each request, which costs a load of a line that is rarely written; only when
 * it differs it takes the lock and brings its own list up to date (upstream_peers.c). So servers come and go
 * while connections to those that stay live on, at a reload too: groups are found by name, protocol and TLS.
 *
 * A group is made when it is first needed and held by whoever has to do with it: pools, health checks, discovery,
 * and the process itself once an operator has changed something. A member is held by its group and by each shard
 * that has it. Nothing here is called for a request but ag_upstream_group_version.
 *
 * An operator's changes are over what the configuration and discovery say, as long as these say the same: who was
 * added stays, who was removed comes back only when the operator adds it, or when it was gone from there meanwhile.
 */
#pragma once
#include "actions/upstream/upstream.h"

#include <pthread.h>
#include <stdatomic.h>

#define AG_UPSTREAM_GROUP_BUCKETS 1024u

/* What keeps requests away from a member. Whoever changes one calls ag_upstream_group_changed. */
#define AG_MEMBER_DOWN    1u /* health checks say so */
#define AG_MEMBER_EJECTED 2u /* its breaker is open, or it is an outlier */
#define AG_MEMBER_DRAINED 4u /* an operator says so */
#define AG_MEMBER_REMOVED 8u /* no longer in its group; set under the lock, for good */

/* Who put it there. */
enum ag_member_origin {
    AG_MEMBER_CONFIGURED = 0,
    AG_MEMBER_ORDERED, /* an operator */
    AG_MEMBER_FOUND,   /* discovery */
};

/* Whether there are servers, where they are looked for. */
enum ag_group_servers {
    AG_SERVERS_KNOWN = 0, /* some are, or were */
    AG_SERVERS_AWAITED,   /* none, and the first answer is to come */
    AG_SERVERS_UNKNOWN,   /* none: they were looked for in vain */
    AG_SERVERS_REFUSED,   /* none: what was found is not allowed */
};

/* What has happened at a member since it is one; each is added to when something has, never for a request that
 * went well. */
struct ag_member_counts {
    _Atomic uint64_t errors;    /* of requests and connections */
    _Atomic uint64_t ejections; /* its breaker has opened so often */
    _Atomic uint64_t held_back; /* it would have, but for the bound of those that are out */
    _Atomic uint64_t checks, checks_failed;
    _Atomic uint64_t downs; /* checks have taken it down */
};

/* A server, as all shards have it. */
struct ag_upstream_member {
    /* Written when something happens to it, read by every shard then. */
    _Alignas(64) _Atomic uint32_t flags;
    _Atomic uint32_t weight; /* 1 .. AG_UPSTREAM_WEIGHT_MAX: configured, or ordered since */
    _Atomic uint32_t max_connections; /* 0: no bound of its own */
    _Atomic uint64_t up_ms; /* loop time when requests came back to it; 0: it was never away */
    _Atomic bool backup;    /* asked when no other one takes requests */
    /* Written when something goes wrong there. */
    struct ag_breaker breaker;
    struct ag_member_counts counts;
    /* What shards have met since the last look for outliers, once a second each. */
    _Atomic uint64_t latency_sum_us;
    _Atomic uint32_t latency_count;
    /* Of the shard that checks it: checks in a row. */
    _Atomic uint32_t passed_in_row, failed_in_row;
    /* Written when connections to it come and go. */
    _Alignas(64) _Atomic uint32_t
        connections; /* of all shards, in any state, but those of checks */
    /* Constant. */
    _Alignas(64) struct ag_upstream_group *group;
    struct ag_upstream_server server; /* its spans in `text` */
    uint64_t identity; /* hash of host (`one_of`: addr) and port: the same everywhere */
    uint32_t index;    /* in the group, while it is a member */
    /* Under the lock. */
    enum ag_member_origin origin; /* who has said last that it is one */
    uint32_t holders;
    bool seen; /* of a change that is being made */
    struct ag_upstream_member *next_removed;
    uint8_t text[];
};

struct ag_upstream_group {
    _Alignas(64) _Atomic uint32_t version; /* never 0 */
    /* Written when connections come and go, and when requests wait for one. */
    _Alignas(64) _Atomic uint32_t connections; /* of all shards, in any state */
    _Atomic uint32_t pending; /* requests of all shards that wait for a connection */
    _Atomic bool panics;      /* too few of its members are usable */
    _Atomic uint8_t servers;  /* enum ag_group_servers */
    /* Constant. */
    struct ag_upstream_groups *all;
    uint64_t key[2];
    enum ag_upstream_protocol protocol;
    bool tls;
    /* Under the lock. */
    struct ag_link link; /* in its bucket */
    struct ag_span name; /* behind the group */
    uint32_t holders;
    struct ag_link pools; /* struct ag_upstream_pool, one a shard */
    uint64_t order;       /* of the newest configuration that it is in; 0: not known */
    bool kept; /* by the process: what an operator changed or discovery found is not to be lost */
    struct ag_upstream_options options; /* numbers alone: its spans and nodes are not to be used */
    /* Members that an operator has removed, though they are configured or found: they are not to come back. */
    struct ag_upstream_member *removed;
    uint32_t count; /* one more than the highest index in use */
    struct ag_upstream_member *members[AG_UPSTREAM_SERVERS_MAX]; /* NULL: a free index */
};

/* The process's. */
struct ag_upstream_groups {
    pthread_mutex_t lock;
    struct ag_link buckets[AG_UPSTREAM_GROUP_BUCKETS]; /* struct ag_upstream_group */
    uint32_t count;
    uint64_t order; /* of the newest configuration */
};

/* NULL: no memory. */
AG_MUST_USE struct ag_upstream_groups *ag_upstream_groups_new(void);
/* When no shard holds any. NULL is fine. */
void ag_upstream_groups_free(struct ag_upstream_groups *all);

/*
 * The upstreams of a configuration are these now: groups that are there follow. `order` grows from one to the
 * next; what is not newer than the present one is ignored, for shards come to a new one at different times, and
 * the first brings it. Servers that stay keep what is known of them; those that an operator has added stay as
 * well, and so do all there are where servers are looked for from now on: until some are found. What the process
 * has kept of upstreams that are no longer there is let go with the next one.
 */
void ag_upstream_groups_configure(struct ag_upstream_groups *all,
                                  const struct ag_upstream *const *upstreams, uint32_t count,
                                  uint64_t order);

/* The group of that definition, held; made of it when there is none. `order`: of the configuration that `up` is of,
 * 0: not the present one. NULL: no memory. */
AG_MUST_USE struct ag_upstream_group *ag_upstream_group_hold(struct ag_upstream_groups *all,
                                                             const struct ag_upstream *up,
                                                             uint64_t order);
/* Becomes what `up` says, if that is of a newer configuration. */
void ag_upstream_group_follow(struct ag_upstream_group *g, const struct ag_upstream *up,
                              uint64_t order);
void ag_upstream_group_release(struct ag_upstream_group *g);
/* Calls `each` for all that are there, under the lock: it may look, and hold by `holders`. */
void ag_upstream_groups_each(struct ag_upstream_groups *all,
                             void (*each)(void *arg, struct ag_upstream_group *g), void *arg);
/* The process holds it until a configuration is without it. */
void ag_upstream_group_keep(struct ag_upstream_group *g);
/* Something that shards look at has changed. */
void ag_upstream_group_changed(struct ag_upstream_group *g);
static inline uint32_t ag_upstream_group_version(const struct ag_upstream_group *g)
{
    return atomic_load_explicit(&g->version, memory_order_acquire);
}

/*
 * What the group is now: its options, and its members by index (NULL: none there), each held once for the
 * caller. Returns the version that this is.
 */
uint32_t ag_upstream_group_read(struct ag_upstream_group *g,
                                struct ag_upstream_options *out_options,
                                struct ag_upstream_member *out_members[AG_UPSTREAM_SERVERS_MAX],
                                uint32_t *out_count);
void ag_upstream_member_hold(struct ag_upstream_member *m);
void ag_upstream_member_release(struct ag_upstream_member *m);

/* For what the shards' pools have in the group under its lock; nothing else may be called meanwhile. */
void ag_upstream_group_lock(struct ag_upstream_group *g);
void ag_upstream_group_unlock(struct ag_upstream_group *g);

/* ---- servers that come and go ---- */

/* Adds a server; one that was removed is of the origin that it had. AG_EINVAL: one of its place is there already; AG_ENOMEM: no memory, or no
 * index is free. */
AG_MUST_USE enum ag_status ag_upstream_group_add(struct ag_upstream_group *g,
                                                 const struct ag_upstream_server *server,
                                                 enum ag_member_origin origin);
/* Takes out each server at the place (host and port) of `place`. AG_ENOENT. */
AG_MUST_USE enum ag_status ag_upstream_group_remove(struct ag_upstream_group *g,
                                                    const struct ag_upstream_server *place);
/* Those that are there, held for the caller. Returns how many. */
uint32_t ag_upstream_group_at(struct ag_upstream_group *g, const struct ag_upstream_server *place,
                              struct ag_upstream_member *out_members[AG_UPSTREAM_SERVERS_MAX]);
/* Makes `servers`, of which there is one at least, all that discovery has found: those that are new come, those that
 * are gone go, and so do those of a list that was configured before. *out_changed: anything has. Nothing does where a
 * newer configuration has a list, which the shard that looks has yet to come to; nor do those come whose addresses it
 * does not allow. AG_ENOMEM: some could not be added. */
AG_MUST_USE enum ag_status ag_upstream_group_found(struct ag_upstream_group *g,
                                                   const struct ag_upstream_server *servers,
                                                   uint32_t count, bool *out_changed);
/* Nothing was found, because of `why`: what there is stays. True: there is none, and those who wait for the first
 * answer have it now. */
bool ag_upstream_group_not_found(struct ag_upstream_group *g, enum ag_group_servers why);
static inline enum ag_group_servers ag_upstream_group_servers(const struct ag_upstream_group *g)
{
    return (enum ag_group_servers)atomic_load_explicit(&g->servers, memory_order_acquire);
}

/* ---- flags ---- */

static inline bool ag_upstream_member_is_up(const struct ag_upstream_member *m)
{
    return atomic_load_explicit(&m->flags, memory_order_relaxed) == 0;
}
static inline bool ag_upstream_member_is_drained(const struct ag_upstream_member *m)
{
    return (atomic_load_explicit(&m->flags, memory_order_relaxed) & AG_MEMBER_DRAINED) != 0;
}
/* Sets and clears flags, tells the shards when that changes anything: true. When the last one goes at `now_ms`
 * the member is back from then on (slow start). Where checks are off none is DOWN. */
bool ag_upstream_member_mark(struct ag_upstream_member *m, uint32_t set, uint32_t clear,
                             uint64_t now_ms);
/* Neither DOWN nor EJECTED any more, and its breaker CLOSED, all at once. True: it was either. */
bool ag_upstream_member_take_up(struct ag_upstream_member *m, uint64_t now_ms);
/* Makes it EJECTED, unless that would take more than `max_percent` of its group's members, or its breaker, which has
 * opened for this, is CLOSED again: false. Those that are drained do not count. */
AG_MUST_USE bool ag_upstream_member_eject(struct ag_upstream_member *m, uint32_t max_percent);
void ag_upstream_member_weigh(struct ag_upstream_member *m, uint32_t weight);
