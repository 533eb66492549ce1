#include "actions/upstream/upstream_parts.h"

/* A server that no slot was left for is tried again then. */
#define SLOT_RETRY_MS 1000u

static struct ag_upstream_peer *make_peer(struct ag_upstream_pool *pool,
                                          struct ag_upstream_member *m)
{
    struct ag_upstream_peer *p = ag_pool_get(&pool->all->peers);

    if (!p) {
        return NULL;
    }
    memset(p, 0, sizeof(*p));
    p->pool = pool;
    p->member = m;
    p->index = m->index;
    p->number = ++pool->made_count;
    p->port = m->server.port;
    p->named = m->server.named;
    p->host = m->server.host;
    p->authority = m->server.authority;
    if (!p->named) {
        p->addr[0] = m->server.addr;
        p->addr_count = 1;
    }
    ag_list_init(&p->idle);
    ag_list_init(&p->open);
    ag_list_init(&p->making);
    ag_list_init(&p->waiting);
    return p;
}

static void free_peer(struct ag_upstream_peer *p)
{
    struct ag_upstream_member *m = p->member;

    if (p->resolving) {
        ag_resolve_cancel(&p->resolve);
    }
    ag_pool_put(&p->pool->all->peers, p);
    ag_upstream_member_release(m);
}

void ag_upstream_peer_left(struct ag_upstream_peer *p)
{
    if (p->retired && p->users == 0 && ag_list_empty(&p->waiting)) {
        p->pool->retired_count--;
        free_peer(p);
    }
}

/* Its connections that nobody uses, or those of them that are barred: they are of no use, and old when the server
 * is back. */
static void let_idle_go(struct ag_upstream_peer *p, bool barred_alone)
{
    struct ag_link *next;

    p->users++; /* it is not to go while its connections do */
    for (struct ag_link *it = p->idle.next; it != &p->idle; it = next) {
        struct ag_upstream_conn *c = ag_container_of(it, struct ag_upstream_conn, link);

        next = it->next;
        if (c->barred || !barred_alone) {
            ag_upstream_conn_finish(c);
        }
    }
    p->users--;
}

/* Takes no more requests; those that it has end in peace. */
static void retire(struct ag_upstream_peer *p)
{
    p->pool->peers[p->index] = NULL;
    ag_balance_remove(&p->pool->balance, p->index);
    p->pool->peer_count--;
    p->pool->retired_count++;
    p->retired = true;
    let_idle_go(p, false);
    ag_upstream_peer_left(p);
}

/* The member at index `i` is `m` now, held for the peer; NULL: there is none. */
static void follow_member(struct ag_upstream_pool *pool, uint32_t i, struct ag_upstream_member *m)
{
    struct ag_upstream_peer *p = pool->peers[i];

    if (p && p->member == m) {
        ag_upstream_member_release(m);
        return;
    }
    if (p) {
        retire(p);
    }
    if (!m) {
        return;
    }
    pool->peers[i] = make_peer(pool, m);
    if (pool->peers[i]) {
        pool->peer_count++;
        ag_balance_put(&pool->balance, i, 1, m->identity);
    } else {
        ag_upstream_member_release(m);
        pool->look_ms = pool->all->loop->now_ms + SLOT_RETRY_MS;
    }
}

static enum ag_upstream_tier tier_of(const struct ag_upstream_member *m)
{
    return atomic_load_explicit(&m->backup, memory_order_relaxed) ? AG_UPSTREAM_BACKUP
           : m->server.remote                                     ? AG_UPSTREAM_FAR
                                                                  : AG_UPSTREAM_NEAR;
}

/* Who may be asked, and when. */
static void sort_out(struct ag_upstream_pool *pool)
{
    uint32_t usable = 0;

    memset(pool->tiers, 0, sizeof(pool->tiers));
    pool->usable = pool->trial = (struct ag_balance_set){{0}};
    for (uint32_t i = 0; i < pool->count; i++) {
        struct ag_upstream_peer *p = pool->peers[i];

        if (!p) {
            continue;
        }
        p->weight = atomic_load_explicit(&p->member->weight, memory_order_relaxed);
        if (ag_upstream_is_usable(pool, p)) {
            ag_balance_set_add(&pool->usable, i);
        } else {
            let_idle_go(p, false);
        }
    }
    ag_upstream_panic(pool);
    ag_upstream_warm_up(pool);
    pool->lone = NULL;
    for (uint32_t i = 0; i < pool->count; i++) {
        struct ag_upstream_peer *p = pool->peers[i];

        if (!p) {
            continue;
        }
        ag_balance_weigh(&pool->balance, i, p->weight);
        if (ag_balance_set_has(&pool->usable, i)) {
            ag_balance_set_add(&pool->tiers[tier_of(p->member)], i);
            pool->lone = usable++ == 0 && p->weight > 0 ? p : NULL;
        }
    }
}

/* It leads to where its name might now. While it is being made one cannot tell. */
static bool is_allowed(const struct ag_upstream_conn *c)
{
    const struct ag_upstream_peer *p = c->peer;
    union ag_addr addr;

    if (!p->named) {
        return true;
    }
    ag_conn_peer(p->pool->tls && !c->bare ? &c->tls.conn : &c->plain, &addr);
    return addr.sa.sa_family != AF_UNSPEC && ag_addresses_allow(&p->pool->options.addresses, &addr);
}

/* Others are allowed now: what names led to is looked at again, and what is connected there is not used again. */
static void leave_addresses(struct ag_upstream_pool *pool)
{
    ag_list_foreach(it, &pool->all->live) {
        struct ag_upstream_conn *c = ag_container_of(it, struct ag_upstream_conn, live);

        if (c->peer->pool == pool && !is_allowed(c)) {
            ag_upstream_conn_bar(c);
        }
    }
    for (uint32_t i = 0; i < pool->count; i++) {
        struct ag_upstream_peer *p = pool->peers[i];

        if (p && p->named) {
            uint32_t kept = ag_addresses_keep(&pool->options.addresses, p->addr, p->addr_count);

            p->edition += kept < p->addr_count;
            p->addr_count = kept;
            let_idle_go(p, true);
        }
    }
}

void ag_upstream_pool_refresh(struct ag_upstream_pool *pool)
{
    struct ag_upstream_member *members[AG_UPSTREAM_SERVERS_MAX];
    uint32_t before = pool->count;

    struct ag_addresses allowed = pool->options.addresses;

    pool->look_ms = UINT64_MAX;
    pool->version = ag_upstream_group_read(pool->group, &pool->options, members, &pool->count);
    for (uint32_t i = 0; i < pool->count || i < before; i++) {
        follow_member(pool, i, i < pool->count ? members[i] : NULL);
    }
    if (memcmp(&allowed, &pool->options.addresses, sizeof(allowed)) != 0) {
        leave_addresses(pool);
    }
    if (pool->balance.kind != pool->options.balance.kind) {
        ag_balance_become(&pool->balance, pool->options.balance.kind);
    }
    pool->times_latency = pool->options.health.ejection.latency_percent > 0 ||
                          pool->balance.kind == AG_BALANCE_RANDOM_TWO_EWMA;
    sort_out(pool);
    ag_upstream_slots_follow(pool);
    (void)!ag_balance_settle(&pool->balance); /* without memory it is slower */
    ag_upstream_wake(pool);                   /* there may be more to be had */
}

void ag_upstream_peers_drop(struct ag_upstream_pool *pool)
{
    AG_ASSERT(pool->retired_count == 0);
    for (uint32_t i = 0; i < pool->count; i++) {
        if (pool->peers[i]) {
            free_peer(pool->peers[i]);
            pool->peers[i] = NULL;
        }
    }
}
