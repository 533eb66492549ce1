#include "actions/upstream/upstream_parts.h"

/*
 * Bounds of connections, the upstream's (`max_connections`) and its servers' (`max`), are the whole process's. A shard
 * takes a slot of both when it connects and gives them back when the connection is gone; each is one atomic. What waits
 * for a slot in one shard is told to the others when one may be had: those that have idle connections end one, those
 * that wait themselves try again.
 *
 * So that none starves, a shard that has more than its part of the slots ends connections instead of using
 * them again while others wait.
 *
 * No wake-up is lost: who waits is counted before it looks at the slots once more, and who gives one back looks at
 * those who wait after it, all in one order that every shard sees alike (sequentially consistent).
 */

static bool is_below(const _Atomic uint32_t *count, uint32_t max)
{
    return max == 0 || atomic_load(count) < max;
}

/* Never beyond the bound, not for a moment: another shard would take that for a slot that is not free. */
static bool take_one(_Atomic uint32_t *count, uint32_t max)
{
    uint32_t n = atomic_load_explicit(count, memory_order_relaxed);

    do {
        if (max != 0 && n >= max) {
            return false;
        }
    } while (!atomic_compare_exchange_weak(count, &n, n + 1));
    return true;
}

bool ag_upstream_is_full(const struct ag_upstream_pool *pool)
{
    return !is_below(&pool->group->connections, pool->options.max_connections);
}

static bool has_own_slot(const struct ag_upstream_peer *p)
{
    return is_below(&p->member->connections, p->max_connections);
}

bool ag_upstream_has_slot(const struct ag_upstream_peer *p)
{
    return has_own_slot(p) && !ag_upstream_is_full(p->pool);
}

/* The first of the set that has a slot of its own, or NULL. */
static const struct ag_upstream_peer *find_free(const struct ag_upstream_pool *pool,
                                                const struct ag_balance_set *set)
{
    for (uint32_t i = 0; i < pool->count; i++) {
        if (ag_balance_set_has(set, i) && has_own_slot(pool->peers[i])) {
            return pool->peers[i];
        }
    }
    return NULL;
}

bool ag_upstream_has_any_slot(const struct ag_upstream_pool *pool)
{
    return !ag_upstream_is_full(pool) &&
           (!pool->server_bounds || ag_balance_set_empty(&pool->usable) ||
            find_free(pool, &pool->usable) != NULL);
}

/* ---- those of other shards ---- */

/* How many requests wait for a slot there. */
static uint32_t waiting_elsewhere(const struct ag_upstream_pool *pool)
{
    uint32_t all = pool->bounds ? atomic_load(&pool->group->pending) : 0;

    return all > pool->pending_count ? all - pool->pending_count : 0;
}

bool ag_upstream_others_wait(const struct ag_upstream_pool *pool)
{
    return waiting_elsewhere(pool) > 0;
}

void ag_upstream_tell(struct ag_upstream_group *g, const struct ag_upstream_pool *except)
{
    ag_upstream_group_lock(g);
    ag_list_foreach(it, &g->pools) {
        struct ag_upstream_pool *other = ag_container_of(it, struct ag_upstream_pool, in_group);

        if (other != except && !other->told) {
            other->told = true;
            ag_loop_post(other->all->loop, &other->tell);
        }
    }
    ag_upstream_group_unlock(g);
}

static void tell_others(struct ag_upstream_pool *pool)
{
    ag_upstream_tell(pool->group, pool);
}

static void evict_some(struct ag_upstream_pool *pool, uint32_t count,
                       const struct ag_balance_set *among)
{
    while (count > 0 && pool->idle_count > 0 && ag_upstream_evict(pool, among)) {
        count--;
    }
}

void ag_upstream_evict_for_others(struct ag_upstream_pool *pool)
{
    uint32_t waiting = waiting_elsewhere(pool);

    if (waiting > 0 && ag_upstream_is_full(pool)) {
        evict_some(pool, waiting, NULL);
        return;
    }
    for (uint32_t i = 0; i < pool->count && waiting > 0; i++) {
        if (ag_balance_set_has(&pool->bounded, i) && !has_own_slot(pool->peers[i])) {
            struct ag_balance_set only = {{0}};

            /* Of each server: those who wait may have no use for another one's slot. */
            ag_balance_set_add(&only, i);
            evict_some(pool, waiting, &only);
        }
    }
}

static void on_told(struct ag_loop *l, struct ag_msg *m)
{
    struct ag_upstream_pool *pool = ag_container_of(m, struct ag_upstream_pool, tell);

    (void)l;
    ag_upstream_group_lock(pool->group);
    pool->told = false;
    ag_upstream_group_unlock(pool->group);
    ag_upstream_known(pool);
    if (pool->pending_count > 0) {
        pool->asks_again = true;
        ag_upstream_wake(pool);
    } else {
        ag_upstream_evict_for_others(pool);
    }
}

void ag_upstream_slots_join(struct ag_upstream_pool *pool)
{
    pool->tell.run = on_told;
    ag_list_init(&pool->in_group);
    ag_upstream_group_lock(pool->group);
    ag_list_push(&pool->group->pools, &pool->in_group);
    ag_upstream_group_unlock(pool->group);
}

bool ag_upstream_slots_leave(struct ag_upstream_pool *pool)
{
    bool leaves;

    ag_upstream_group_lock(pool->group);
    leaves = !pool->told;
    if (leaves) {
        ag_list_remove(&pool->in_group);
    }
    ag_upstream_group_unlock(pool->group);
    return leaves;
}

/* ---- slots that come free, and those who wait for one ---- */

static void free_up(struct ag_upstream_pool *pool, _Atomic uint32_t *count)
{
    (void)atomic_fetch_sub(count, 1);
    if (ag_upstream_others_wait(pool)) {
        tell_others(pool);
    }
}

bool ag_upstream_slot_take(struct ag_upstream_peer *p)
{
    struct ag_upstream_pool *pool = p->pool;

    if (!take_one(&pool->group->connections, pool->options.max_connections)) {
        return false;
    }
    if (!take_one(&p->member->connections, p->max_connections)) {
        free_up(pool, &pool->group->connections); /* another shard may have missed it meanwhile */
        return false;
    }
    pool->conn_count++;
    p->conn_count++;
    return true;
}

void ag_upstream_slot_give(struct ag_upstream_peer *p)
{
    struct ag_upstream_pool *pool = p->pool;

    AG_ASSERT(pool->conn_count > 0 && p->conn_count > 0);
    pool->conn_count--;
    p->conn_count--;
    (void)atomic_fetch_sub(&p->member->connections, 1);
    free_up(pool, &pool->group->connections);
    ag_upstream_wake(pool);
}

/* Bounds are less than they were when it was made. */
static uint32_t beyond(const _Atomic uint32_t *count, uint32_t max)
{
    uint32_t n = max ? atomic_load_explicit(count, memory_order_relaxed) : 0;

    return n > max ? n - max : 0;
}

bool ag_upstream_slot_is_due(const struct ag_upstream_peer *p)
{
    const struct ag_upstream_pool *pool = p->pool;
    uint32_t max = pool->options.max_connections, shards = pool->all->shard_count;

    if (ag_likely(!pool->bounds)) {
        return false;
    }
    if (beyond(&pool->group->connections, max) > 0 ||
        beyond(&p->member->connections, p->max_connections) > 0) {
        return true;
    }
    if (!ag_upstream_others_wait(pool)) {
        return false;
    }
    return (max > 0 && (pool->pending_count == 0 || pool->conn_count > max / shards)) ||
           (!has_own_slot(p) &&
            (pool->pending_count == 0 || p->conn_count > p->max_connections / shards));
}

void ag_upstream_slots_follow(struct ag_upstream_pool *pool)
{
    pool->bounded = (struct ag_balance_set){{0}};
    for (uint32_t i = 0; i < pool->count; i++) {
        struct ag_upstream_peer *p = pool->peers[i];
        struct ag_balance_set only = {{0}};

        if (!p) {
            continue;
        }
        p->max_connections =
            atomic_load_explicit(&p->member->max_connections, memory_order_relaxed);
        if (p->max_connections > 0) {
            ag_balance_set_add(&pool->bounded, i);
        }
        ag_balance_set_add(&only, i);
        evict_some(pool, beyond(&p->member->connections, p->max_connections), &only);
    }
    evict_some(pool, beyond(&pool->group->connections, pool->options.max_connections), NULL);
    pool->server_bounds = !ag_balance_set_empty(&pool->bounded);
    pool->bounds = pool->server_bounds || pool->options.max_connections > 0;
}

bool ag_upstream_pending_begin(struct ag_upstream_pool *pool)
{
    if (atomic_fetch_add(&pool->group->pending, 1) >= pool->options.max_pending) {
        (void)atomic_fetch_sub(&pool->group->pending, 1);
        return false;
    }
    pool->pending_count++;
    return true;
}

void ag_upstream_pending_end(struct ag_upstream_pool *pool)
{
    pool->pending_count--;
    (void)atomic_fetch_sub(&pool->group->pending, 1);
}

/* Other shards have connections whose slots would do. */
static bool others_have(const struct ag_upstream_pool *pool, const struct ag_balance_set *among)
{
    bool have = false;

    if (ag_upstream_is_full(pool)) {
        return atomic_load(&pool->group->connections) > pool->conn_count;
    }
    for (uint32_t i = 0; i < pool->count && !have; i++) {
        const struct ag_upstream_peer *p = ag_balance_set_has(among, i) ? pool->peers[i] : NULL;

        have = p && atomic_load(&p->member->connections) > p->conn_count;
    }
    return have;
}

void ag_upstream_slot_wanted(struct ag_upstream_pool *pool, const struct ag_balance_set *among)
{
    bool full = ag_upstream_is_full(pool);

    if (!full && find_free(pool, among)) { /* it was given back before this one was seen to wait */
        ag_upstream_wake(pool);
    } else if (!ag_upstream_evict(pool, full ? NULL : among) && others_have(pool, among)) {
        /* Idle ones that are of no use to who waits must not keep it waiting. */
        tell_others(pool);
    }
}
