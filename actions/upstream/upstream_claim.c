#include "actions/upstream/upstream_parts.h"

static struct ag_loop *loop_of(const struct ag_upstream_claim *c)
{
    return c->pool->all->loop;
}

/* ---- what is under way at a server ---- */

void ag_upstream_discharge(struct ag_upstream_claim *c)
{
    if (c->pool && c->charged) {
        c->charged = false;
        ag_balance_end(&c->pool->balance, c->index);
    }
}

static void charge(struct ag_upstream_claim *c, struct ag_upstream_peer *p)
{
    ag_upstream_discharge(c);
    c->peer = p;
    c->index = p->index;
    c->number = p->number;
    c->charged = true;
    ag_balance_begin(&c->pool->balance, p->index);
}

/* ---- how it ends ---- */

#define NO_SERVERS "no servers of the upstream are known yet"
#define NO_ADDRESS "resolve upstream: its name leads to no address that is allowed"

static enum ag_status refuse(struct ag_upstream_claim *c, unsigned status, enum ag_reason why,
                             const char *detail)
{
    ag_upstream_discharge(c);
    ag_upstream_trial_ended(c, AG_TRIAL_ABANDONED);
    c->state = AG_CLAIM_OVER;
    c->status = (uint16_t)status;
    c->reason = (uint8_t)why;
    c->detail = detail;
    return AG_ESYS;
}

/* Servers were looked for, and there is none. */
static enum ag_status give_up_finding(struct ag_upstream_claim *c)
{
    return ag_upstream_group_servers(c->pool->group) == AG_SERVERS_REFUSED
               ? refuse(c, 502, AG_REASON_NAME, NO_ADDRESS)
               : refuse(c, 503, AG_REASON_NAME, NO_SERVERS);
}

/* No server is left: the last one's trouble is the answer. */
static enum ag_status give_up(struct ag_upstream_claim *c)
{
    if (c->pool->count == 0 && c->pool->options.discovered) {
        return give_up_finding(c);
    }
    if (c->reason == AG_REASON_NONE && c->given) {
        return refuse(c, 502, AG_REASON_RESET, "no other server of the upstream is left");
    }
    if (c->tries == 0 && c->reason == AG_REASON_NONE) {
        return refuse(c, 503, AG_REASON_UNREACHABLE, "no server of the upstream takes requests");
    }
    switch ((enum ag_reason)c->reason) {
    case AG_REASON_TIMEOUT:
        return refuse(c, 504, AG_REASON_TIMEOUT,
                      c->detail ? "TLS handshake with upstream: timeout"
                                : "connect to upstream: timeout");
    case AG_REASON_REFUSED:
        return refuse(c, 502, AG_REASON_REFUSED, "connect to upstream: connection refused");
    case AG_REASON_UNREACHABLE:
        return refuse(c, 502, AG_REASON_UNREACHABLE, "connect to upstream: unreachable");
    case AG_REASON_NAME:
        return refuse(c, 502, AG_REASON_NAME, c->detail);
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

/* ---- time ---- */

bool ag_upstream_is_late(const struct ag_upstream_claim *c)
{
    uint32_t total_ms = c->timeouts->total_ms;

    return total_ms && loop_of(c)->now_ms >= c->started_ms + total_ms;
}

uint64_t ag_upstream_due(const struct ag_upstream_claim *c, uint32_t ms)
{
    uint64_t due = loop_of(c)->now_ms + ms;
    uint32_t total_ms = c->timeouts->total_ms;

    return total_ms ? ag_min_u64(due, c->started_ms + total_ms) : due;
}

static enum ag_status refuse_late(struct ag_upstream_claim *c)
{
    return refuse(c, 504, AG_REASON_TIMEOUT, "upstream: total timeout");
}

/* ---- waiting ---- */

static void stop_waiting(struct ag_upstream_claim *c)
{
    bool pending = c->state == AG_CLAIM_PENDING, named = c->state == AG_CLAIM_NAME;

    if (!pending && !named && c->state != AG_CLAIM_SERVERS) {
        return;
    }
    if (pending) {
        ag_upstream_pending_end(c->pool);
    } else {
        c->pool->waiting_count--;
    }
    c->state = AG_CLAIM_OVER;
    ag_list_remove(&c->link);
    ag_timer_cancel(&loop_of(c)->wheel, &c->timer);
    if (named) {
        ag_upstream_peer_left(c->peer);
    }
}

static void on_waited(struct ag_timer *t)
{
    struct ag_upstream_claim *c = ag_container_of(t, struct ag_upstream_claim, timer);
    enum ag_upstream_claim_state was = (enum ag_upstream_claim_state)c->state;

    stop_waiting(c);
    if (ag_upstream_is_late(c)) {
        (void)refuse_late(c);
    } else if (was == AG_CLAIM_SERVERS) {
        (void)refuse(c, 503, AG_REASON_NAME, NO_SERVERS);
    } else if (was == AG_CLAIM_PENDING) {
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
    ag_timer_arm(&loop_of(c)->wheel, &c->timer,
                 ag_upstream_due(c, state == AG_CLAIM_PENDING && c->pool->options.pending_ms
                                        ? c->pool->options.pending_ms
                                        : c->timeouts->connect_ms));
    return AG_AGAIN;
}

static enum ag_status join_pending(struct ag_upstream_claim *c)
{
    struct ag_upstream_pool *pool = c->pool;

    ag_upstream_discharge(c);
    if (!ag_upstream_pending_begin(pool)) {
        return refuse(c, 503, AG_REASON_LIMIT, "too many requests wait for the upstream");
    }
    return wait_on(c, &pool->pending, AG_CLAIM_PENDING);
}

static enum ag_status wait_for_name(struct ag_upstream_claim *c)
{
    c->pool->waiting_count++;
    ag_upstream_resolve(c->peer);
    return wait_on(c, &c->peer->waiting, AG_CLAIM_NAME);
}

static enum ag_status wait_for_servers(struct ag_upstream_claim *c)
{
    ag_upstream_discharge(c);
    c->pool->waiting_count++;
    return wait_on(c, &c->pool->expectant, AG_CLAIM_SERVERS);
}

/* ---- to a server ---- */

static enum ag_status wait_for_slot(struct ag_upstream_claim *c)
{
    struct ag_balance_set among;
    enum ag_status st;

    ag_upstream_trial_ended(c, AG_TRIAL_ABANDONED);
    st = join_pending(c);
    if (st == AG_AGAIN) {
        among = ag_upstream_untried(c);
        ag_upstream_slot_wanted(c->pool, &among);
    }
    return st;
}

/* A connection that is there, or a new one, to the chosen peer. AG_ELIMIT: what looked idle was dead, or another shard
 * was faster. */
static enum ag_status try_peer(struct ag_upstream_claim *c)
{
    struct ag_upstream_peer *p = c->peer;
    struct ag_upstream_conn *conn =
        c->fresh || ag_upstream_is_apart(c) ? NULL : ag_upstream_take(c);

    if (conn) {
        ag_upstream_give(c, conn);
        return AG_OK;
    }
    if (!c->aim && !ag_upstream_is_apart(c) && ag_upstream_join(c)) {
        return AG_AGAIN;
    }
    if (p->addr_count == 0) {
        return wait_for_name(c);
    }
    if (p->named && loop_of(c)->now_ms >= p->expires_ms) {
        ag_upstream_resolve(p); /* the old addresses serve until the new ones are here */
    }
    if (!c->aim && !ag_upstream_slot_take(p)) {
        return AG_ELIMIT;
    }
    if (!ag_upstream_connect(c)) {
        if (!c->aim) {
            ag_upstream_slot_give(p);
        }
        return refuse(c, 503, AG_REASON_RESOURCES, "the shard is out of upstream connections");
    }
    return AG_AGAIN;
}

/* To `p`, or whoever else has room: each time that none is left a slot has gone to another shard, and not for ever. */
static enum ag_status go_to(struct ag_upstream_claim *c, struct ag_upstream_peer *p)
{
    enum ag_status st;

    for (unsigned i = 0; p && i < AG_UPSTREAM_TRIES; i++, p = ag_upstream_find_peer(c)) {
        charge(c, p);
        st = try_peer(c);
        if (st != AG_ELIMIT) {
            return st;
        }
    }
    return ag_upstream_any_untried(c) ? wait_for_slot(c) : give_up(c);
}

static enum ag_status choose(struct ag_upstream_claim *c)
{
    struct ag_upstream_peer *p;

    if (c->aim) {
        return give_up(c);
    }
    ag_upstream_pool_look(c->pool);
    p = ag_upstream_find_peer(c);
    if (!p && c->pool->count == 0) {
        if (ag_upstream_group_servers(c->pool->group) == AG_SERVERS_AWAITED) {
            return wait_for_servers(c);
        }
        ag_upstream_pool_look(c->pool); /* the first answer may have come just now */
        p = ag_upstream_find_peer(c);
    }
    return go_to(c, p);
}

/* Of a claim that has been under way for a while. */
static enum ag_status choose_on(struct ag_upstream_claim *c)
{
    return !c->aim && ag_upstream_is_late(c) ? refuse_late(c) : choose(c);
}

static enum ag_status use_peer(struct ag_upstream_claim *c)
{
    enum ag_status st = try_peer(c);

    return st == AG_ELIMIT ? choose(c) : st;
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
    ag_upstream_absolve(c, c);
    settle(c, choose_on(c));
}

void ag_upstream_connect_failed(struct ag_upstream_claim *c, enum ag_reason why, const char *detail,
                                bool whole)
{
    enum ag_status st;

    c->reason = (uint8_t)why;
    c->detail = detail;
    if (!whole && c->tries < AG_UPSTREAM_TRIES) {
        ag_upstream_absolve(c, c); /* it is not found wanting yet */
        settle(c, choose_on(c));
        return;
    }
    ag_upstream_unreached(c, why);
    if (c->tries >= AG_UPSTREAM_TRIES) {
        st = give_up(c);
    } else {
        ag_upstream_avoid(c);
        st = choose_on(c);
    }
    settle(c, st);
}

/* All of the queue: those who wait again must not be met twice. */
static void take_waiting(struct ag_link *queue, struct ag_link *out)
{
    struct ag_link *it;

    ag_list_init(out);
    while ((it = ag_list_pop(queue)) != NULL) {
        ag_list_push(out, it);
    }
}

void ag_upstream_known(struct ag_upstream_pool *pool)
{
    struct ag_link waiting, *it;

    ag_upstream_pool_look(pool);
    if (pool->count == 0 && ag_upstream_group_servers(pool->group) == AG_SERVERS_AWAITED) {
        return;
    }
    take_waiting(&pool->expectant, &waiting);
    while ((it = ag_list_pop(&waiting)) != NULL) {
        struct ag_upstream_claim *c = ag_container_of(it, struct ag_upstream_claim, link);

        stop_waiting(c);
        settle(c, choose_on(c));
    }
}

void ag_upstream_named(struct ag_upstream_peer *p)
{
    struct ag_link waiting, *it;

    p->users++;
    take_waiting(&p->waiting, &waiting);
    while ((it = ag_list_pop(&waiting)) != NULL) {
        struct ag_upstream_claim *c = ag_container_of(it, struct ag_upstream_claim, link);

        stop_waiting(c);
        if (p->addr_count > 0) {
            settle(c, !p->retired ? use_peer(c) : choose_on(c));
        } else {
            c->reason = AG_REASON_NAME;
            c->detail = p->refused ? NO_ADDRESS : "resolve upstream: name not resolved";
            ag_upstream_avoid(c);
            settle(c, choose_on(c));
        }
    }
    p->users--;
    ag_upstream_peer_left(p);
}

void ag_upstream_wake(struct ag_upstream_pool *pool)
{
    if (pool->pending_count > 0) {
        ag_task_queue(pool->all->loop, &pool->wake);
    }
}

/* Some of those who are pending could have a connection. */
static bool may_serve(const struct ag_upstream_pool *pool)
{
    return pool->idle_count > 0 || pool->open_count > 0 || ag_upstream_has_any_slot(pool);
}

/* The idle ones that are of no use to it make room. */
static void make_room(struct ag_upstream_claim *c)
{
    struct ag_balance_set among = ag_upstream_untried(c);

    (void)ag_upstream_evict(c->pool, ag_upstream_is_full(c->pool) ? NULL : &among);
}

/* False: what there is is of no use to it, and it waits on as if it had not been asked. */
static bool serve(struct ag_upstream_claim *c)
{
    uint64_t until_ms = c->timer.at_ms;
    struct ag_upstream_peer *p = ag_upstream_find_peer(c);
    enum ag_status st;

    if (!p && ag_upstream_any_untried(c)) {
        if (ag_upstream_is_apart(c)) {
            make_room(c);
        }
        return false;
    }
    stop_waiting(c);
    st = go_to(c, p);
    if (st == AG_AGAIN && c->state == AG_CLAIM_PENDING) {
        ag_timer_arm(&loop_of(c)->wheel, &c->timer, until_ms);
        return false;
    }
    settle(c, st);
    return true;
}

void ag_upstream_wake_task(struct ag_task *t)
{
    struct ag_upstream_pool *pool = ag_container_of(t, struct ag_upstream_pool, wake);
    uint32_t most = pool->pending_count;
    bool asks_again = pool->asks_again, served = false;
    struct ag_link passed;

    pool->waking = true;
    ag_list_init(&passed); /* those who wait on, and are the first ones still */
    pool->asks_again = false;
    ag_upstream_pool_look(pool);
    while (most-- > 0 && !ag_list_empty(&pool->pending) && may_serve(pool)) {
        struct ag_upstream_claim *c =
            ag_container_of(pool->pending.next, struct ag_upstream_claim, link);

        if (serve(c)) {
            served = true;
        } else {
            ag_list_remove(&c->link);
            ag_list_push(&passed, &c->link);
        }
    }
    while (!ag_list_empty(&passed)) {
        struct ag_link *last = passed.prev;

        ag_list_remove(last);
        ag_list_push_front(&pool->pending, last);
    }
    if (served && asks_again && pool->pending_count > 0) {
        ag_upstream_slot_wanted(pool, &pool->usable); /* one slot was told of; there may be more */
    }
    ag_upstream_evict_for_others(pool); /* what nobody here wants, now that all were asked */
    pool->waking = false;
}

/* ---- for claimers ---- */

enum ag_status ag_upstream_claim(struct ag_upstreams *u, const struct ag_upstream *up,
                                 struct ag_upstream_claim *c)
{
    enum ag_status st;

    c->started_ms = u->loop->now_ms;
    c->pool = ag_upstream_pool_of(u, up);
    if (!c->pool || u->closing) {
        return refuse(c, 503, AG_REASON_RESOURCES, "the shard is out of upstreams");
    }
    c->known = c->known ? c->known : c->pool->made_count; /* nothing was tried yet */
    if (c->pool->pending_count == 0) {
        return choose(c);
    }
    /* Those who came first are served first; they may wait for others than this one could have. */
    st = join_pending(c);
    if (st == AG_AGAIN && may_serve(c->pool)) {
        ag_upstream_wake(c->pool);
    }
    return st;
}

enum ag_status ag_upstream_claim_aimed(struct ag_upstreams *u, const struct ag_upstream *up,
                                       const struct ag_upstream_aim *aim,
                                       struct ag_upstream_claim *c)
{
    const struct ag_upstream_pool *pool;
    uint32_t i = aim->member->index;

    c->started_ms = u->loop->now_ms;
    c->pool = ag_upstream_pool_of(u, up);
    c->aim = aim;
    c->fresh = true;
    pool = c->pool;
    if (!pool || u->closing || i >= pool->count || !pool->peers[i] ||
        pool->peers[i]->member != aim->member) {
        return refuse(c, 503, AG_REASON_RESOURCES, "the shard is out of upstreams");
    }
    c->peer = pool->peers[i];
    c->index = i;
    return use_peer(c);
}

void ag_upstream_pause(struct ag_upstream_claim *c)
{
    AG_ASSERT(!c->paused);
    c->paused = true;
    c->pool->waiting_count++;
}

void ag_upstream_unpause(struct ag_upstream_claim *c)
{
    if (c->paused) {
        c->paused = false;
        c->pool->waiting_count--;
    }
}

enum ag_status ag_upstream_claim_again(struct ag_upstream_claim *c, bool fresh)
{
    AG_ASSERT(c->state == AG_CLAIM_OVER);
    ag_upstream_unpause(c);
    c->pool->used_ms = loop_of(c)->now_ms;
    if (c->status == 503) {
        c->reason =
            AG_REASON_NONE; /* that nobody was free, or there at all, is no server's trouble */
    }
    c->fresh = fresh;
    return choose_on(c);
}

enum ag_status ag_upstream_claim_h1(struct ag_upstream_claim *c)
{
    struct ag_upstream_peer *p = c->peer;
    bool retired = p->retired;

    AG_ASSERT(ag_upstream_is_h2(c) && ag_upstream_has_h1(c));
    ag_upstream_release(c);
    c->h1_alone = true;
    return retired || !ag_upstream_try(c, p) ? choose(c) : go_to(c, p);
}

void ag_upstream_cancel(struct ag_upstream_claim *c)
{
    ag_upstream_trial_ended(c, AG_TRIAL_ABANDONED);
    stop_waiting(c);
    if (c->state != AG_CLAIM_GIVEN) {
        ag_upstream_discharge(c);
    }
    if (c->state == AG_CLAIM_CONNECTING) {
        c->state = AG_CLAIM_OVER;
        ag_upstream_leave(c);
    } else if (c->state == AG_CLAIM_GIVEN) {
        if (c->call && c->call->ops) {
            c->call->ops->cancel(c->call);
        }
        ag_upstream_disown(c->conn); /* its client may be gone */
        ag_upstream_release(c);
    }
}
