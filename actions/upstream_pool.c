#include "actions/upstream_parts.h"

#include <stdlib.h>

/* How often live upstreams are looked over, and how long an unused one stays. */
#define SWEEP_MS  15000u
#define UNUSED_MS 60000u
/* A failed look-up is not tried again before. */
#define NAME_RETRY_MS 1000u

/* ---- making and dropping ---- */

static void drop_pool(struct ag_upstream_pool *pool)
{
    AG_ASSERT(pool->conn_count == 0 && pool->pending_count == 0 && pool->waiting_count == 0);
    for (uint32_t i = 0; i < pool->peer_count; i++) {
        if (pool->peers[i]->resolving) {
            ag_resolve_cancel(&pool->peers[i]->resolve);
        }
        ag_pool_put(&pool->all->peers, pool->peers[i]);
    }
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
            bool used = p->conn_count + p->pending_count + p->waiting_count > 0;

            next = it->next;
            if (!used && p->used_ms <= before_ms) {
                drop_pool(p);
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

static struct ag_span copy_text(struct ag_buf *to, struct ag_span s)
{
    const uint8_t *at = to->ptr + to->len;

    ag_buf_put(to, s);
    AG_ASSERT(!to->overflow); /* the config's bounds */
    return ag_span(at, s.len);
}

static struct ag_upstream_peer *make_peer(struct ag_upstream_pool *pool, uint32_t index,
                                          const struct ag_upstream_server *server)
{
    struct ag_upstream_peer *p = ag_pool_get(&pool->all->peers);
    struct ag_buf text;

    if (!p) {
        return NULL;
    }
    memset(p, 0, sizeof(*p));
    p->pool = pool;
    p->index = index;
    p->weight = server->weight;
    p->port = server->port;
    p->named = server->named;
    if (!server->named) {
        p->addr[0] = server->addr;
        p->addr_count = 1;
    }
    ag_list_init(&p->idle);
    ag_list_init(&p->open);
    ag_list_init(&p->making);
    ag_list_init(&p->waiting);
    text = ag_buf(p->text, sizeof(p->text));
    p->host = copy_text(&text, server->host);
    p->authority = copy_text(&text, server->authority);
    return p;
}

static uint32_t share_of(uint32_t total, uint32_t shards)
{
    return total == 0 ? AG_UPSTREAM_CONNS : total < shards ? 1 : total / shards;
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
    *p = (struct ag_upstream_pool){.all = u,
                                   .key = {up->key[0], up->key[1]},
                                   .used_ms = u->loop->now_ms,
                                   .options = up->options,
                                   .protocol = up->protocol,
                                   .tls = up->client};
    if (p->tls) {
        ag_tls_client_hold(p->tls);
    }
    p->conn_max = share_of(up->options.max_connections, u->shard_count);
    ag_list_init(&p->link);
    ag_list_init(&p->pending);
    ag_task_init(&p->wake, ag_upstream_wake_task);
    for (uint32_t i = 0; i < up->server_count; i++) {
        struct ag_upstream_peer *peer = make_peer(p, i, &up->servers[i]);
        if (!peer) {
            drop_pool(p);
            return NULL;
        }
        p->peers[p->peer_count++] = peer;
    }
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
            return p;
        }
    }
    return make_pool(u, up);
}

/* ---- names ---- */

static void on_resolved(struct ag_resolve *r)
{
    struct ag_upstream_peer *p = ag_container_of(r, struct ag_upstream_peer, resolve);

    p->resolving = false;
    if (r->status == AG_OK && r->count > 0) {
        memcpy(p->addr, r->addr, r->count * sizeof(r->addr[0]));
        p->addr_count = r->count;
        p->addr_next = 0;
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

struct ag_upstreams *ag_upstreams_new(struct ag_loop *l, uint32_t shard_count)
{
    struct ag_upstreams *u = calloc(1, sizeof(*u));

    if (!u) {
        return NULL;
    }
    u->loop = l;
    u->shard_count = shard_count ? shard_count : 1;
    ag_list_init(&u->live);
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
    return u;
no_h2s:
    ag_pool_deinit(&u->conns);
no_conns:
    ag_pool_deinit(&u->peers);
no_peers:
    ag_pool_deinit(&u->pools);
no_pools:
    free(u);
    return NULL;
}

uint64_t ag_upstreams_bytes(void)
{
    return sizeof(struct ag_upstreams) +
           ag_pool_bytes(sizeof(struct ag_upstream_pool), AG_UPSTREAM_POOLS) +
           ag_pool_bytes(sizeof(struct ag_upstream_peer), AG_UPSTREAM_PEERS) +
           ag_pool_bytes(sizeof(struct ag_upstream_conn), AG_UPSTREAM_CONNS) +
           ag_pool_bytes(sizeof(struct ag_h2_client), AG_UPSTREAM_H2S);
}

void ag_upstreams_free(struct ag_upstreams *u)
{
    if (!u) {
        return;
    }
    u->closing = true;
    ag_timer_cancel(&u->loop->wheel, &u->sweep);
    ag_list_foreach(it, &u->live) {
        ag_upstream_conn_close(ag_container_of(it, struct ag_upstream_conn, live));
    }
    while (u->conns.used > 0) {
        ag_loop_turn(u->loop, 1);
    }
    (void)sweep(u, UINT64_MAX);
    ag_pool_deinit(&u->h2s);
    ag_pool_deinit(&u->conns);
    ag_pool_deinit(&u->peers);
    ag_pool_deinit(&u->pools);
    free(u);
}
