#include "actions/upstream_parts.h"

static struct ag_loop *loop_of(const struct ag_upstream_claim *c)
{
    return c->pool->all->loop;
}

/* ---- how it ends ---- */

static enum ag_status refuse(struct ag_upstream_claim *c, unsigned status, enum ag_reason why,
                             const char *detail)
{
    c->state = AG_CLAIM_OVER;
    c->status = (uint16_t)status;
    c->reason = (uint8_t)why;
    c->detail = detail;
    return AG_ESYS;
}

/* No server is left: the last one's trouble is the answer. */
static enum ag_status give_up(struct ag_upstream_claim *c)
{
    switch ((enum ag_reason)c->reason) {
    case AG_REASON_TIMEOUT:
        return refuse(c, 504, AG_REASON_TIMEOUT, "connect to upstream: timeout");
    case AG_REASON_REFUSED:
        return refuse(c, 502, AG_REASON_REFUSED, "connect to upstream: connection refused");
    case AG_REASON_UNREACHABLE:
        return refuse(c, 502, AG_REASON_UNREACHABLE, "connect to upstream: unreachable");
    case AG_REASON_NAME:
        return refuse(c, 502, AG_REASON_NAME, "resolve upstream: name not resolved");
    case AG_REASON_RESOURCES:
        return refuse(c, 503, AG_REASON_RESOURCES, "connect to upstream: out of resources");
    case AG_REASON_TLS:
        return refuse(c, 502, AG_REASON_TLS, c->detail);
    case AG_REASON_PROTOCOL:
        return refuse(c, 502, AG_REASON_PROTOCOL, "connect to upstream: it speaks no HTTP/2");
    case AG_REASON_RESET:
    case AG_REASON_EOF:
        return refuse(c, 502, AG_REASON_RESET, "connect to upstream: connection reset");
    case AG_REASON_NONE:
    case AG_REASON_LIMIT:
    case AG_REASON_ABORTED:
    case AG_REASON_OTHER:
        break;
    }
    return refuse(c, 502, AG_REASON_OTHER, "connect to upstream: system error");
}

/* ---- waiting ---- */

static void stop_waiting(struct ag_upstream_claim *c)
{
    if (c->state == AG_CLAIM_PENDING) {
        c->pool->pending_count--;
    } else if (c->state == AG_CLAIM_NAME) {
        c->pool->waiting_count--;
    } else {
        return;
    }
    c->state = AG_CLAIM_OVER;
    ag_list_remove(&c->link);
    ag_timer_cancel(&loop_of(c)->wheel, &c->timer);
}

static void on_waited(struct ag_timer *t)
{
    struct ag_upstream_claim *c = ag_container_of(t, struct ag_upstream_claim, timer);
    bool pending = c->state == AG_CLAIM_PENDING;

    stop_waiting(c);
    if (pending) {
        (void)refuse(c, 503, AG_REASON_LIMIT, "no upstream connection came free in time");
    } else {
        (void)refuse(c, 504, AG_REASON_TIMEOUT, "resolve upstream: timeout");
    }
    c->ops->failed(c);
}

static enum ag_status wait_on(struct ag_upstream_claim *c, struct ag_link *queue,
                              enum ag_upstream_claim_state state)
{
    c->state = (uint8_t)state;
    ag_list_init(&c->link);
    ag_list_push(queue, &c->link);
    ag_timer_init(&c->timer, on_waited);
    ag_loop_arm(loop_of(c), &c->timer, c->timeouts->connect_ms);
    return AG_AGAIN;
}

static enum ag_status join_pending(struct ag_upstream_claim *c)
{
    struct ag_upstream_pool *pool = c->pool;

    if (pool->pending_count >= pool->options.max_pending) {
        return refuse(c, 503, AG_REASON_LIMIT, "too many requests wait for the upstream");
    }
    pool->pending_count++;
    return wait_on(c, &pool->pending, AG_CLAIM_PENDING);
}

static enum ag_status wait_for_slot(struct ag_upstream_claim *c)
{
    enum ag_status st = join_pending(c);

    /* Idle connections that are of no use to this claim must not keep it waiting. */
    if (st == AG_AGAIN && c->pool->idle_count > 0) {
        ag_upstream_evict(c->pool);
    }
    return st;
}

static enum ag_status wait_for_name(struct ag_upstream_claim *c)
{
    c->pool->waiting_count++;
    ag_upstream_resolve(c->peer);
    return wait_on(c, &c->peer->waiting, AG_CLAIM_NAME);
}

/* ---- the choice of a server ---- */

static bool has_slot(const struct ag_upstream_pool *pool)
{
    return pool->conn_count < pool->conn_max;
}

static bool is_untried(const struct ag_upstream_claim *c, const struct ag_upstream_peer *p)
{
    return !(c->tried >> p->index & 1u);
}

static bool is_usable(const struct ag_upstream_claim *c, const struct ag_upstream_peer *p)
{
    return is_untried(c, p) &&
           (has_slot(c->pool) || !ag_list_empty(&p->making) ||
            (!c->fresh && !c->raw && !(ag_list_empty(&p->idle) && ag_list_empty(&p->open))));
}

/* Smooth weighted round robin, as nginx does it: everyone gains its weight, the richest is taken and
 * pays for all. Equal shares over any stretch, and no bursts to the heavy ones. */
static struct ag_upstream_peer *pick(struct ag_upstream_claim *c)
{
    struct ag_upstream_pool *pool = c->pool;
    struct ag_upstream_peer *best = NULL;
    int64_t total = 0;

    if (pool->peer_count == 1) {
        return is_usable(c, pool->peers[0]) ? pool->peers[0] : NULL;
    }
    for (uint32_t i = 0; i < pool->peer_count; i++) {
        struct ag_upstream_peer *p = pool->peers[i];
        if (is_usable(c, p)) {
            p->credit += p->weight;
            total += p->weight;
            best = !best || p->credit > best->credit ? p : best;
        }
    }
    if (best) {
        best->credit -= total;
    }
    return best;
}

static bool any_untried(const struct ag_upstream_claim *c)
{
    for (uint32_t i = 0; i < c->pool->peer_count; i++) {
        if (is_untried(c, c->pool->peers[i])) {
            return true;
        }
    }
    return false;
}

/* A connection that is there, or a new one, to the chosen peer. */
static enum ag_status use_peer(struct ag_upstream_claim *c)
{
    struct ag_upstream_peer *p = c->peer;
    struct ag_upstream_conn *conn = c->fresh || c->raw ? NULL : ag_upstream_take(p);

    if (conn) {
        ag_upstream_give(c, conn);
        return AG_OK;
    }
    if (!c->raw && ag_upstream_join(c)) {
        return AG_AGAIN;
    }
    if (p->addr_count == 0) {
        return wait_for_name(c);
    }
    if (p->named && loop_of(c)->now_ms >= p->expires_ms) {
        ag_upstream_resolve(p); /* the old addresses serve until the new ones are here */
    }
    if (!has_slot(c->pool)) { /* what looked idle was dead */
        return wait_for_slot(c);
    }
    if (!ag_upstream_connect(c)) {
        return refuse(c, 503, AG_REASON_RESOURCES, "the shard is out of upstream connections");
    }
    return AG_AGAIN;
}

static enum ag_status choose(struct ag_upstream_claim *c)
{
    struct ag_upstream_peer *p = pick(c);

    if (!p) {
        return any_untried(c) ? wait_for_slot(c) : give_up(c);
    }
    c->peer = p;
    c->addresses = 0;
    return use_peer(c);
}

/* Tells a claim that has waited or failed over what became of it. */
static void settle(struct ag_upstream_claim *c, enum ag_status st)
{
    if (st == AG_OK) {
        c->ops->ready(c);
    } else if (st != AG_AGAIN) {
        c->ops->failed(c);
    }
}

/* ---- events ---- */

void ag_upstream_connected(struct ag_upstream_claim *c)
{
    settle(c, AG_OK);
}

void ag_upstream_crowded_out(struct ag_upstream_claim *c)
{
    c->tries--;
    settle(c, choose(c));
}

void ag_upstream_connect_failed(struct ag_upstream_claim *c, enum ag_reason why, const char *detail)
{
    enum ag_status st;

    c->reason = (uint8_t)why;
    c->detail = detail;
    if (c->tries >= AG_UPSTREAM_TRIES) {
        st = give_up(c);
    } else if (c->addresses < c->peer->addr_count && has_slot(c->pool)) {
        st = use_peer(c); /* at its next address */
    } else {
        c->tried |= UINT64_C(1) << c->peer->index;
        st = choose(c);
    }
    settle(c, st);
}

void ag_upstream_named(struct ag_upstream_peer *p)
{
    struct ag_link waiting, *it;

    /* Those who wait again must not be met twice. */
    ag_list_init(&waiting);
    while ((it = ag_list_pop(&p->waiting)) != NULL) {
        ag_list_push(&waiting, it);
    }
    while ((it = ag_list_pop(&waiting)) != NULL) {
        struct ag_upstream_claim *c = ag_container_of(it, struct ag_upstream_claim, link);

        stop_waiting(c);
        if (p->addr_count > 0) {
            settle(c, has_slot(c->pool) ? use_peer(c) : choose(c));
        } else {
            c->reason = AG_REASON_NAME;
            c->tried |= UINT64_C(1) << p->index;
            settle(c, choose(c));
        }
    }
}

void ag_upstream_wake(struct ag_upstream_pool *pool)
{
    if (pool->pending_count > 0) {
        ag_task_queue(pool->all->loop, &pool->wake);
    }
}

void ag_upstream_wake_task(struct ag_task *t)
{
    struct ag_upstream_pool *pool = ag_container_of(t, struct ag_upstream_pool, wake);
    uint32_t most = pool->pending_count;

    while (most-- > 0 && pool->pending_count > 0 &&
           (has_slot(pool) || pool->idle_count > 0 || pool->open_count > 0)) {
        struct ag_link *first = pool->pending.next;
        struct ag_upstream_claim *c = ag_container_of(first, struct ag_upstream_claim, link);

        stop_waiting(c);
        settle(c, choose(c));
    }
}

/* ---- for claimers ---- */

enum ag_status ag_upstream_claim(struct ag_upstreams *u, const struct ag_upstream *up,
                                 struct ag_upstream_claim *c)
{
    c->started_ms = u->loop->now_ms;
    c->pool = ag_upstream_pool_of(u, up);
    if (!c->pool || u->closing) {
        return refuse(c, 503, AG_REASON_RESOURCES, "the shard is out of upstreams");
    }
    /* Those who came first are served first. */
    return c->pool->pending_count > 0 ? join_pending(c) : choose(c);
}

enum ag_status ag_upstream_claim_again(struct ag_upstream_claim *c, bool fresh)
{
    AG_ASSERT(c->state == AG_CLAIM_OVER);
    c->fresh = fresh;
    return choose(c);
}

void ag_upstream_cancel(struct ag_upstream_claim *c)
{
    stop_waiting(c);
    if (c->state == AG_CLAIM_CONNECTING) {
        c->state = AG_CLAIM_OVER;
        ag_upstream_leave(c);
    } else if (c->state == AG_CLAIM_GIVEN) {
        if (c->call && c->call->ops) {
            c->call->ops->cancel(c->call);
        }
        ag_upstream_release(c);
    }
}
