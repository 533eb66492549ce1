#include "actions/upstream/upstream_parts.h"

/*
 * keepalive.min_idle: so many connections are there before anyone asks, so that requests after a pause, a start or
 * a reload need not wait for a handshake. They are made one after the other, spread over the servers as requests
 * would be. It goes by the clock: requests that take one pay nothing for it.
 */

#define LOOK_MS 500u
/* After one that could not be made. */
#define FAILED_MS 2000u

static bool is_wanted(const struct ag_upstream_pool *pool)
{
    return pool->options.min_idle > 0 && !pool->options.proxy_protocol &&
           pool->order == pool->all->order && !pool->all->closing;
}

static void make_more(struct ag_upstream_pool *pool);

static void on_ready(struct ag_upstream_claim *c)
{
    struct ag_upstream_pool *pool = c->pool;

    c->conn->calls--; /* it has carried none */
    ag_upstream_release(c);
    make_more(pool);
}

static void on_failed(struct ag_upstream_claim *c)
{
    c->pool->warm_at_ms = c->pool->all->loop->now_ms + FAILED_MS;
}

static const struct ag_upstream_claim_ops warm_ops = {.ready = on_ready, .failed = on_failed};

static void make_more(struct ag_upstream_pool *pool)
{
    enum ag_status st;

    if (!is_wanted(pool) || pool->idle_count + pool->open_count >= pool->options.min_idle ||
        pool->options.min_idle > pool->options.max_idle || pool->pending_count > 0 ||
        ag_upstream_others_wait(pool) || !ag_upstream_has_any_slot(pool)) {
        return;
    }
    pool->warm = (struct ag_upstream_claim){.ops = &warm_ops,
                                            .timeouts = &pool->warm_timeouts,
                                            .pool = pool,
                                            .started_ms = pool->all->loop->now_ms};
    st = ag_upstream_claim_again(&pool->warm, true);
    AG_ASSERT(st != AG_OK); /* it is a new one, so it is not there at once */
}

static void on_look(struct ag_timer *t)
{
    struct ag_upstream_pool *pool = ag_container_of(t, struct ag_upstream_pool, warm_timer);

    if (is_wanted(pool)) {
        ag_upstream_pool_look(pool);
        if (pool->warm.state == AG_CLAIM_OVER && pool->all->loop->now_ms >= pool->warm_at_ms) {
            make_more(pool);
        }
        ag_loop_arm(pool->all->loop, &pool->warm_timer, LOOK_MS);
    }
}

void ag_upstream_warm_init(struct ag_upstream_pool *pool)
{
    ag_timer_init(&pool->warm_timer, on_look);
    pool->warm.state = AG_CLAIM_OVER;
}

void ag_upstream_warm_begin(struct ag_upstreams *u, const struct ag_upstream *up)
{
    struct ag_upstream_pool *pool = up->options.min_idle ? ag_upstream_pool_of(u, up) : NULL;

    if (pool) {
        pool->warm_timeouts = up->options.timeouts;
        if (!ag_timer_armed(&pool->warm_timer)) {
            ag_loop_arm(u->loop, &pool->warm_timer, 1);
        }
    }
}

bool ag_upstream_warm_end(struct ag_upstream_pool *pool)
{
    if (is_wanted(pool)) {
        return false;
    }
    ag_timer_cancel(&pool->all->loop->wheel, &pool->warm_timer);
    ag_upstream_cancel(&pool->warm);
    return true;
}
