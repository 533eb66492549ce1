#include "actions/upstream/upstream_parts.h"

#include "actions/upstream/health.h"
#include "actions/upstream/upstream_discover.h"
#include "engine/log.h"

#include <stdlib.h>

/* How often live upstreams are looked over, and how long an unused one stays. */
#define SWEEP_MS  15000u
#define UNUSED_MS 60000u
/* Of a millisecond at most, at the end, for connections to say that they end. */
#define PART_TURNS 100u
/* A failed look-up is not tried again before. */
#define NAME_RETRY_MS 1000u

/* ---- making and dropping ---- */

static void drop_pool(struct ag_upstream_pool *pool)
{
    AG_ASSERT(pool->conn_count == 0 && pool->own_count == 0);
    AG_ASSERT(pool->pending_count == 0 && pool->waiting_count == 0);
    ag_upstream_peers_drop(pool);
    ag_balance_deinit(&pool->balance);
    ag_upstream_group_release(pool->group);
    ag_task_cancel(&pool->wake);
    ag_list_remove(&pool->link);
    ag_tls_client_release(pool->tls);
    ag_pool_put(&pool->all->pools, pool);
}

/* Drops what nobody has used since `before_ms`; true when any is left. */
static bool sweep(struct ag_upstreams *u, uint64_t before_ms)
{
    for (uint32_t i = 0; i < AG_UPSTREAM_BUCKETS; i++) {
        struct ag_link *next;

        for (struct ag_link *it = u->buckets[i].next; it != &u->buckets[i]; it = next) {
            struct ag_upstream_pool *p = ag_container_of(it, struct ag_upstream_pool, link);
            bool used =
                p->waking || p->conn_count + p->own_count + p->pending_count + p->waiting_count > 0;

            next = it->next;
            if (!used && p->used_ms <= before_ms && p->retired_count == 0 &&
                ag_upstream_warm_end(p) && ag_upstream_slots_leave(p)) {
                drop_pool(p);
            } else if (!u->closing) {
                ag_upstream_pool_look(p);
            }
        }
    }
    return u->pools.used > 0;
}

static void on_sweep(struct ag_timer *t)
{
    struct ag_upstreams *u = ag_container_of(t, struct ag_upstreams, sweep);
    uint64_t now = u->loop->now_ms;

    if (sweep(u, now > UNUSED_MS ? now - UNUSED_MS : 0)) {
        ag_loop_arm(u->loop, &u->sweep, SWEEP_MS);
    }
}

/* Of the configuration that `up` is part of; 0: another than the present one. */
static uint64_t order_of(const struct ag_upstreams *u, const struct ag_upstream *up)
{
    return up->config && up->config == u->config ? u->order : 0;
}

static struct ag_upstream_pool *make_pool(struct ag_upstreams *u, const struct ag_upstream *up)
{
    struct ag_upstream_pool *p;

    if (u->pools.used == u->pools.count || u->peers.count - u->peers.used < up->server_count) {
        (void)sweep(u, u->loop->now_ms);
    }
    p = ag_pool_get(&u->pools);
    if (!p) {
        return NULL;
    }
    memset(p, 0, sizeof(*p));
    p->all = u;
    p->group = ag_upstream_group_hold(u->groups, up, order_of(u, up));
    p->key[0] = up->key[0];
    p->key[1] = up->key[1];
    p->order = order_of(u, up);
    p->used_ms = u->loop->now_ms;
    p->protocol = up->protocol;
    p->tls = up->client;
    if (!p->group) {
        ag_pool_put(&u->pools, p);
        return NULL;
    }
    if (p->tls) {
        ag_tls_client_hold(p->tls);
    }
    ag_list_init(&p->link);
    ag_list_init(&p->pending);
    ag_list_init(&p->expectant);
    ag_task_init(&p->wake, ag_upstream_wake_task);
    ag_upstream_warm_init(p);
    ag_balance_init(&p->balance, up->options.balance.kind, u->seed);
    ag_upstream_pool_refresh(p);
    if (p->peer_count == 0 && p->count > 0) {
        drop_pool(p);
        return NULL;
    }
    ag_upstream_slots_join(p);
    ag_list_push_front(&u->buckets[up->key[0] % AG_UPSTREAM_BUCKETS], &p->link);
    if (!ag_timer_armed(&u->sweep)) {
        ag_loop_arm(u->loop, &u->sweep, SWEEP_MS);
    }
    return p;
}

struct ag_upstream_pool *ag_upstream_pool_of(struct ag_upstreams *u, const struct ag_upstream *up)
{
    struct ag_link *bucket = &u->buckets[up->key[0] % AG_UPSTREAM_BUCKETS];

    ag_list_foreach(it, bucket) {
        struct ag_upstream_pool *p = ag_container_of(it, struct ag_upstream_pool, link);
        if (p->key[0] == up->key[0] && p->key[1] == up->key[1]) {
            p->used_ms = u->loop->now_ms;
            if (p->order < order_of(u, up)) {
                p->order = u->order;
                ag_upstream_group_follow(p->group, up, u->order);
            }
            ag_upstream_pool_look(p);
            return p;
        }
    }
    return make_pool(u, up);
}

/* ---- names ---- */

/* Told once each time it becomes so. */
static void set_refused(struct ag_upstream_peer *p, bool refused)
{
    if (refused && !p->refused) {
        ag_log(AG_LOG_WARN, "upstream %.*s: %.*s leads to no address that is allowed",
               (int)p->pool->group->name.len, (const char *)p->pool->group->name.ptr,
               (int)p->host.len, (const char *)p->host.ptr);
    }
    p->refused = refused;
}

static void on_resolved(struct ag_resolve *r)
{
    struct ag_upstream_peer *p = ag_container_of(r, struct ag_upstream_peer, resolve);

    const struct ag_addresses *allowed = &p->pool->options.addresses;
    bool found = r->status == AG_OK && r->count > 0;
    uint32_t kept = found ? ag_addresses_keep(allowed, r->addr, r->count) : 0;

    p->resolving = false;
    set_refused(p, found && kept == 0);
    if (kept > 0) {
        memcpy(p->addr, r->addr, kept * sizeof(r->addr[0]));
        p->addr_count = kept;
        p->addr_next = 0;
        p->edition++;
        p->expires_ms = r->expires_ms;
    } else {
        /* Old addresses are better than none. */
        p->expires_ms = p->pool->all->loop->now_ms + NAME_RETRY_MS;
    }
    ag_upstream_named(p);
}

void ag_upstream_resolve(struct ag_upstream_peer *p)
{
    if (!p->resolving) {
        p->resolving = true;
        ag_resolve_start(p->pool->all->loop, &p->resolve, p->host, p->port, on_resolved);
    }
}

/* ---- a shard's ---- */

struct ag_upstreams *ag_upstreams_new(struct ag_loop *l, uint32_t shard_count,
                                      struct ag_upstream_groups *groups)
{
    struct ag_upstreams *u = calloc(1, sizeof(*u));

    if (!u) {
        return NULL;
    }
    u->loop = l;
    u->shard_count = shard_count ? shard_count : 1;
    u->owns_groups = !groups;
    u->groups = groups ? groups : ag_upstream_groups_new();
    if (!u->groups) {
        free(u);
        return NULL;
    }
    ag_list_init(&u->live);
    for (uint32_t i = 0; i < AG_UPSTREAM_BUCKETS; i++) {
        ag_list_init(&u->kins[i]);
    }
    ag_timer_init(&u->sweep, on_sweep);
    for (uint32_t i = 0; i < AG_UPSTREAM_BUCKETS; i++) {
        ag_list_init(&u->buckets[i]);
    }
    if (ag_pool_init(&u->pools, "upstreams", sizeof(struct ag_upstream_pool), AG_UPSTREAM_POOLS) !=
        AG_OK) {
        goto no_pools;
    }
    if (ag_pool_init(&u->peers, "upstream servers", sizeof(struct ag_upstream_peer),
                     AG_UPSTREAM_PEERS) != AG_OK) {
        goto no_peers;
    }
    if (ag_pool_init(&u->conns, "upstream connections", sizeof(struct ag_upstream_conn),
                     AG_UPSTREAM_CONNS) != AG_OK) {
        goto no_conns;
    }
    if (ag_pool_init(&u->h2s, "upstream connections of HTTP/2", sizeof(struct ag_h2_client),
                     AG_UPSTREAM_H2S) != AG_OK) {
        goto no_h2s;
    }
    if (ag_pool_init(&u->races, "races of upstream connections", sizeof(struct ag_upstream_race),
                     AG_UPSTREAM_CONNS) != AG_OK) {
        goto no_races;
    }
    return u;
no_races:
    ag_pool_deinit(&u->h2s);
no_h2s:
    ag_pool_deinit(&u->conns);
no_conns:
    ag_pool_deinit(&u->peers);
no_peers:
    ag_pool_deinit(&u->pools);
no_pools:
    if (u->owns_groups) {
        ag_upstream_groups_free(u->groups);
    }
    free(u);
    return NULL;
}

/* Claims that wait for servers to be found may not have to any more: there may be a list now. */
static void tell_expectant(struct ag_upstreams *u)
{
    for (uint32_t i = 0; i < AG_UPSTREAM_BUCKETS; i++) {
        ag_list_foreach(it, &u->buckets[i]) {
            struct ag_upstream_pool *p = ag_container_of(it, struct ag_upstream_pool, link);

            if (!ag_list_empty(&p->expectant)) {
                ag_upstream_tell(p->group, NULL);
            }
        }
    }
}

void ag_upstreams_use(struct ag_upstreams *u, const void *config,
                      const struct ag_upstream *const *upstreams, uint32_t count)
{
    u->config = config;
    u->order++;
    ag_upstream_groups_configure(u->groups, upstreams, count, u->order);
    tell_expectant(u);
    for (uint32_t i = 0; i < AG_UPSTREAM_BUCKETS; i++) {
        ag_list_foreach(it, &u->buckets[i]) {
            ag_upstream_wake(ag_container_of(it, struct ag_upstream_pool, link));
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        ag_upstream_warm_begin(u, upstreams[i]);
    }
    if (u->health) {
        ag_health_use(u->health, upstreams, count);
    }
    if (u->discover) {
        ag_discover_use(u->discover, upstreams, count);
    }
}

uint64_t ag_upstreams_bytes(void)
{
    return sizeof(struct ag_upstreams) +
           ag_pool_bytes(sizeof(struct ag_upstream_pool), AG_UPSTREAM_POOLS) +
           ag_pool_bytes(sizeof(struct ag_upstream_peer), AG_UPSTREAM_PEERS) +
           ag_pool_bytes(sizeof(struct ag_upstream_conn), AG_UPSTREAM_CONNS) +
           ag_pool_bytes(sizeof(struct ag_h2_client), AG_UPSTREAM_H2S) +
           ag_pool_bytes(sizeof(struct ag_upstream_race), AG_UPSTREAM_CONNS) + ag_health_bytes();
}

void ag_upstreams_free(struct ag_upstreams *u)
{
    if (!u) {
        return;
    }
    ag_health_free(u->health);
    ag_discover_free(u->discover);
    u->closing = true;
    ag_timer_cancel(&u->loop->wheel, &u->sweep);
    for (uint32_t i = 0; i < AG_UPSTREAM_BUCKETS; i++) {
        ag_list_foreach(it, &u->buckets[i]) {
            (void)!ag_upstream_warm_end(ag_container_of(it, struct ag_upstream_pool, link));
        }
    }
    ag_list_foreach(it, &u->live) {
        ag_upstream_conn_part(ag_container_of(it, struct ag_upstream_conn, live));
    }
    for (unsigned turns = 0; u->conns.used > 0; turns++) {
        if (turns == PART_TURNS) { /* whose sockets take nothing */
            ag_list_foreach(it, &u->live) {
                ag_upstream_conn_close(ag_container_of(it, struct ag_upstream_conn, live));
            }
        }
        ag_loop_turn(u->loop, 1);
    }
    while (sweep(u, UINT64_MAX)) {
        ag_loop_turn(u->loop, 1); /* another shard's message is on its way */
    }
    ag_pool_deinit(&u->races);
    ag_pool_deinit(&u->h2s);
    ag_pool_deinit(&u->conns);
    ag_pool_deinit(&u->peers);
    ag_pool_deinit(&u->pools);
    if (u->owns_groups) {
        ag_upstream_groups_free(u->groups);
    }
    free(u);
}
