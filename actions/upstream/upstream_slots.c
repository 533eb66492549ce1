#include "actions/upstream/upstream_parts.h"

/*
 * The bound `max_connections` is the whole process's. A shard takes a slot when it connects and gives it back when
 * the connection is gone; both are one atomic. What waits for a slot in one shard is told to the others when one
 * may be had: those that have idle connections end one, those that wait themselves try again.
 *
 * So that none starves, a shard that has more than its part of the slots ends connections instead of using
 * them again while others wait.
 */

static bool is_bounded(const struct ag_upstream_pool *pool)
{
    return pool->options.max_connections != 0;
}

bool ag_upstream_has_slot(const struct ag_upstream_pool *pool)
{
    return !is_bounded(pool) ||
           atomic_load_explicit(&pool->group->connections, memory_order_relaxed) <
               pool->options.max_connections;
}

bool ag_upstream_slot_take(struct ag_upstream_pool *pool)
{
    uint32_t before = atomic_fetch_add_explicit(&pool->group->connections, 1, memory_order_relaxed);

    if (is_bounded(pool) && before >= pool->options.max_connections) {
        (void)atomic_fetch_sub_explicit(&pool->group->connections, 1, memory_order_relaxed);
        return false;
    }
    pool->conn_count++;
    return true;
}

/* ---- those of other shards ---- */

bool ag_upstream_others_wait(const struct ag_upstream_pool *pool)
{
    return is_bounded(pool) &&
           atomic_load_explicit(&pool->group->pending, memory_order_relaxed) > pool->pending_count;
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

static void on_told(struct ag_loop *l, struct ag_msg *m)
{
    struct ag_upstream_pool *pool = ag_container_of(m, struct ag_upstream_pool, tell);

    (void)l;
    ag_upstream_group_lock(pool->group);
    pool->told = false;
    ag_upstream_group_unlock(pool->group);
    ag_upstream_known(pool);
    if (pool->pending_count > 0) {
        ag_upstream_wake(pool);
    } else if (pool->idle_count > 0 && ag_upstream_others_wait(pool)) {
        ag_upstream_evict(pool);
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

void ag_upstream_slot_give(struct ag_upstream_pool *pool)
{
    pool->conn_count--;
    (void)atomic_fetch_sub_explicit(&pool->group->connections, 1, memory_order_relaxed);
    ag_upstream_wake(pool);
    if (ag_upstream_others_wait(pool)) {
        tell_others(pool);
    }
}

bool ag_upstream_slot_is_due(const struct ag_upstream_pool *pool)
{
    uint32_t part = pool->options.max_connections / pool->all->shard_count;

    return ag_upstream_others_wait(pool) && (pool->pending_count == 0 || pool->conn_count > part);
}

bool ag_upstream_pending_begin(struct ag_upstream_pool *pool)
{
    uint32_t before = atomic_fetch_add_explicit(&pool->group->pending, 1, memory_order_relaxed);

    if (before >= pool->options.max_pending) {
        (void)atomic_fetch_sub_explicit(&pool->group->pending, 1, memory_order_relaxed);
        return false;
    }
    pool->pending_count++;
    return true;
}

void ag_upstream_pending_end(struct ag_upstream_pool *pool)
{
    pool->pending_count--;
    (void)atomic_fetch_sub_explicit(&pool->group->pending, 1, memory_order_relaxed);
}

void ag_upstream_slot_wanted(struct ag_upstream_pool *pool)
{
    if (pool->idle_count > 0) {
        ag_upstream_evict(
            pool); /* idle ones that are of no use to who waits must not keep it waiting */
    } else if (is_bounded(pool) && atomic_load_explicit(&pool->group->connections,
                                                        memory_order_relaxed) > pool->conn_count) {
        tell_others(pool);
    }
}
