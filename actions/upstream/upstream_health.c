/* What requests tell of servers, and what follows from it. */
#include "actions/upstream/upstream_parts.h"

#include "engine/log.h"

#include <stdio.h>

#define NAME(s) (int)(s).len, (const char *)(s).ptr

static const struct ag_health_options *options_of(const struct ag_upstream_peer *p)
{
    return &p->pool->options.health;
}

static uint64_t now_of(const struct ag_upstream_peer *p)
{
    return p->pool->all->loop->now_ms;
}

static void add_one(_Atomic uint64_t *counter)
{
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

/* ---- out, and back ---- */

void ag_upstream_eject(struct ag_upstream_member *m, const struct ag_breaker_options *o,
                       uint64_t now_ms, const char *why)
{
    const struct ag_upstream_group *g = m->group;

    if (!ag_breaker_open(&m->breaker, o, now_ms)) {
        return;
    }
    if (!ag_upstream_member_eject(m, o->max_percent)) {
        if (ag_breaker_state(&m->breaker) == AG_BREAKER_CLOSED) {
            return; /* a check has taken it up since */
        }
        ag_breaker_reset(&m->breaker);
        add_one(&m->counts.held_back);
        ag_log(AG_LOG_WARN,
               "upstream %.*s: server %.*s stays, for no more than %u%% may be left out: %s",
               NAME(g->name), NAME(m->server.written), o->max_percent, why);
        return;
    }
    add_one(&m->counts.ejections);
    ag_log(AG_LOG_WARN, "upstream %.*s: server %.*s is left out for %u ms: %s", NAME(g->name),
           NAME(m->server.written), ag_breaker_time(&m->breaker, o), why);
}

static void tell_of_trial(struct ag_upstream_member *m, const struct ag_breaker_options *o,
                          enum ag_breaker_state to, uint64_t now_ms)
{
    const struct ag_upstream_group *g = m->group;

    if (to == AG_BREAKER_CLOSED) {
        (void)ag_upstream_member_mark(m, 0, AG_MEMBER_EJECTED, now_ms);
        ag_log(AG_LOG_INFO, "upstream %.*s: server %.*s takes requests again: trials passed",
               NAME(g->name), NAME(m->server.written));
    } else {
        ag_upstream_group_changed(m->group); /* shards look at when the next one is due */
        add_one(&m->counts.ejections);
        ag_log(AG_LOG_WARN, "upstream %.*s: server %.*s is left out for %u ms: a trial failed",
               NAME(g->name), NAME(m->server.written), ag_breaker_time(&m->breaker, o));
    }
}

/* ---- trials ---- */

bool ag_upstream_try(struct ag_upstream_claim *c, struct ag_upstream_peer *p)
{
    struct ag_upstream_pool *pool = p->pool;
    struct ag_upstream_member *m = p->member;

    if (!ag_balance_set_has(&pool->trial, p->index)) {
        return true;
    }
    if (!ag_breaker_try(&m->breaker, &pool->options.health.breaker, now_of(p))) {
        /* In a panic it is asked all the same; and it may have come back just now. */
        return pool->panics || ag_breaker_state(&m->breaker) == AG_BREAKER_CLOSED;
    }
    ag_upstream_member_hold(m);
    c->trial = m;
    ag_log(AG_LOG_INFO, "upstream %.*s: server %.*s is tried by a request", NAME(m->group->name),
           NAME(m->server.written));
    return true;
}

void ag_upstream_end_trial(struct ag_upstream_claim *c, enum ag_breaker_trial how)
{
    struct ag_upstream_member *m = c->trial;
    const struct ag_breaker_options *o = &c->pool->options.health.breaker;
    uint64_t now_ms = c->pool->all->loop->now_ms;
    enum ag_breaker_state to;
    bool changed;

    c->trial = NULL;
    to = ag_breaker_trial_ended(&m->breaker, o, how, now_ms, &changed);
    if (changed) {
        tell_of_trial(m, o, to, now_ms);
    }
    ag_upstream_member_release(m);
}

/* ---- what a request has met ---- */

static void count_error(struct ag_upstream_claim *c, const char *what)
{
    struct ag_upstream_peer *p = c->peer;
    struct ag_upstream_member *m = p->member;
    const struct ag_breaker_options *o = &options_of(p)->breaker;
    struct ag_breaker_count n;
    char why[160];

    add_one(&m->counts.errors);
    if (!ag_breaker_is_on(o)) {
        ag_upstream_trial_ended(c, AG_TRIAL_FAILED);
        return;
    }
    if (ag_breaker_error(&m->breaker, &p->tally, o, now_of(p), &n)) {
        (void)snprintf(why, sizeof(why), "%u errors in a row, %u of %u in %u ms, the last one: %s",
                       n.in_row, n.errors, n.requests, o->window_ms, what);
        ag_upstream_eject(m, o, now_of(p), why);
    }
    ag_upstream_trial_ended(c, AG_TRIAL_FAILED);
}

/* Once a second the shard's sums go to the member. */
static void count_latency(struct ag_upstream_claim *c)
{
    struct ag_upstream_peer *p = c->peer;
    struct ag_upstream_member *m = p->member;
    uint64_t us;

    if (c->given_ns == 0 || !c->call || c->call->req_body) {
        return; /* how long an upload takes is the client's */
    }
    us = (ag_loop_now_ns(p->pool->all->loop) - c->given_ns) / 1000;
    ag_balance_observe(&p->pool->balance, p->index, (uint32_t)ag_min_u64(us, UINT32_MAX),
                       now_of(p));
    p->latency_sum_us += us;
    p->latency_count++;
    if (now_of(p) >= p->latency_told_ms + 1000) {
        p->latency_told_ms = now_of(p);
        atomic_fetch_add_explicit(&m->latency_sum_us, p->latency_sum_us, memory_order_relaxed);
        atomic_fetch_add_explicit(&m->latency_count, p->latency_count, memory_order_relaxed);
        p->latency_sum_us = 0;
        p->latency_count = 0;
    }
}

void ag_upstream_went_well(struct ag_upstream_claim *c)
{
    struct ag_upstream_peer *p = c->peer;
    const struct ag_breaker_options *o = &options_of(p)->breaker;

    if (ag_breaker_is_on(o)) {
        ag_breaker_success(&p->member->breaker, &p->tally, o, now_of(p));
    }
    ag_upstream_trial_ended(c, AG_TRIAL_PASSED);
}

void ag_upstream_answered(struct ag_upstream_claim *c, unsigned status)
{
    if (ag_statuses_has(&options_of(c->peer)->breaker.statuses, status)) {
        char what[32];

        (void)snprintf(what, sizeof(what), "status %u", status);
        count_error(c, what);
        return;
    }
    count_latency(c);
    ag_upstream_went_well(c);
}

/* Whether it tells something of the server. */
static bool is_its_fault(const struct ag_upstream_claim *c, const struct ag_call *call,
                         enum ag_reason why)
{
    switch (why) {
    case AG_REASON_NONE:
    case AG_REASON_EOF:
    case AG_REASON_RESET:
        /* A connection that was idle until just now may be closed at any time. */
        return !call->replayable && !(c->pooled && !call->received);
    case AG_REASON_TIMEOUT:
        /* While content is yet to come from the client, it may be the client that was late. */
        return !call->req_body || call->req_body->ended;
    case AG_REASON_PROTOCOL:
    case AG_REASON_REFUSED:
    case AG_REASON_UNREACHABLE:
    case AG_REASON_TLS:
        return true;
    case AG_REASON_ABORTED:
        return call->given_up;
    case AG_REASON_NAME:
    case AG_REASON_RESOURCES:
    case AG_REASON_LIMIT:
    case AG_REASON_OTHER:
        return false;
    }
    AG_UNREACHABLE("a reason that is none");
}

void ag_upstream_failed(struct ag_upstream_claim *c, const struct ag_call *call, enum ag_reason why)
{
    if (is_its_fault(c, call, why)) {
        count_error(c, why == AG_REASON_NONE      ? "closed without an answer"
                       : why == AG_REASON_ABORTED ? "stream reset by the server"
                                                  : ag_reason_text(why));
    }
}

bool ag_upstream_is_telling(enum ag_reason why)
{
    return why != AG_REASON_RESOURCES && why != AG_REASON_LIMIT && why != AG_REASON_ABORTED &&
           why != AG_REASON_NAME && why != AG_REASON_OTHER;
}

void ag_upstream_unreached(struct ag_upstream_claim *c, enum ag_reason why)
{
    /* That it takes no HTTP/1.1 is nothing against a server that speaks HTTP/2. */
    bool counts = c->maker && !c->h1_alone && ag_upstream_is_telling(why);
    char what[64];

    c->maker = false;
    if (counts && !c->aim) {
        (void)snprintf(what, sizeof(what), "connect: %s", ag_reason_text(why));
        count_error(c, what);
    }
}

/* ---- who may be asked ---- */

/* Weights as far as servers that have come back may have them: from a tenth to all of it. While any of them is
 * on its way the weights of all grow, or one of 1 could have no tenth. */
static uint32_t warm(const struct ag_upstream_pool *pool, const struct ag_upstream_member *m,
                     uint32_t weight, uint32_t factor)
{
    uint64_t slow_ms = pool->options.health.slow_start_ms, now_ms = pool->all->loop->now_ms;
    uint64_t up_ms = atomic_load_explicit(&m->up_ms, memory_order_relaxed), part;

    if (up_ms == 0 || now_ms >= up_ms + slow_ms) {
        return weight * factor;
    }
    part = now_ms > up_ms ? (now_ms - up_ms) * 100 / slow_ms : 0;
    part = part < 10 ? 10 : part;
    part = weight * factor * part / 100;
    return part ? (uint32_t)part : 1;
}

void ag_upstream_warm_up(struct ag_upstream_pool *pool)
{
    uint64_t slow_ms = pool->options.health.slow_start_ms, now_ms = pool->all->loop->now_ms;
    uint32_t most = 1, factor;
    bool any = false;

    for (uint32_t i = 0; i < pool->count && slow_ms > 0; i++) {
        struct ag_upstream_peer *p = pool->peers[i];
        uint64_t up_ms = p ? atomic_load_explicit(&p->member->up_ms, memory_order_relaxed) : 0;

        if (p) {
            any = any || (up_ms != 0 && now_ms < up_ms + slow_ms);
            most = p->weight > most ? p->weight : most;
        }
    }
    if (!any) {
        return;
    }
    factor = AG_UPSTREAM_WEIGHT_MAX / most;
    for (uint32_t i = 0; i < pool->count; i++) {
        struct ag_upstream_peer *p = pool->peers[i];

        if (p) {
            p->weight = warm(pool, p->member, p->weight, factor ? factor : 1);
        }
    }
    ag_upstream_look_by(pool, now_ms + (slow_ms < 10000 ? 100 : ag_min_u64(1000, slow_ms / 100)));
}

bool ag_upstream_is_usable(struct ag_upstream_pool *pool, const struct ag_upstream_peer *p)
{
    uint32_t flags = atomic_load_explicit(&p->member->flags, memory_order_relaxed);
    uint64_t due;

    if (flags != AG_MEMBER_EJECTED) {
        return flags == 0;
    }
    due = ag_breaker_due(&p->member->breaker);
    if (due == 0) {
        return false; /* it is closed: the flag goes at once */
    }
    if (due > pool->all->loop->now_ms) {
        ag_upstream_look_by(pool, due);
        return false;
    }
    ag_balance_set_add(&pool->trial, p->index);
    return true;
}

static bool stands_by(const struct ag_upstream_peer *p)
{
    return atomic_load_explicit(&p->member->backup, memory_order_relaxed);
}

/* Whether so few are usable that all are asked. Backup servers do not count, but while one of them is there to
 * be asked there is no need to panic. */
static bool is_panic(const struct ag_upstream_pool *pool, uint32_t *out_all)
{
    uint32_t all = 0, usable = 0, backups = 0;

    for (uint32_t i = 0; i < pool->count; i++) {
        const struct ag_upstream_peer *p = pool->peers[i];
        uint32_t flags =
            p ? atomic_load_explicit(&p->member->flags, memory_order_relaxed) : AG_MEMBER_DRAINED;
        bool takes = ag_balance_set_has(&pool->usable, i);

        if (flags & (AG_MEMBER_DRAINED | AG_MEMBER_REMOVED)) {
            continue;
        }
        all += !stands_by(p);
        usable += takes && !stands_by(p);
        backups += takes && stands_by(p);
    }
    *out_all = all;
    return backups == 0 && all > 0 && usable * 100 < all * pool->options.health.panic_percent;
}

void ag_upstream_panic(struct ag_upstream_pool *pool)
{
    struct ag_upstream_group *g = pool->group;
    uint32_t all;
    bool panic = is_panic(pool, &all);

    if (atomic_load_explicit(&g->panics, memory_order_relaxed) != panic &&
        atomic_exchange_explicit(&g->panics, panic, memory_order_relaxed) != panic) {
        ag_log(AG_LOG_WARN,
               panic ? "upstream %.*s: fewer than %u%% of %u servers are usable: all are asked"
                     : "upstream %.*s: no fewer than %u%% of %u servers are usable again",
               NAME(g->name), pool->options.health.panic_percent, all);
    }
    pool->panics = panic;
    for (uint32_t i = 0; panic && i < pool->count; i++) {
        const struct ag_upstream_peer *p = pool->peers[i];
        uint32_t flags =
            p ? atomic_load_explicit(&p->member->flags, memory_order_relaxed) : AG_MEMBER_DRAINED;

        if (!(flags & (AG_MEMBER_DRAINED | AG_MEMBER_REMOVED))) {
            ag_balance_set_add(&pool->usable, i);
        }
    }
}
