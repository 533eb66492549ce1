#include "actions/proxy/proxy_retry_parts.h"

#define REPLAYS_MAX 3u
/* What is read of an answer that nobody wants, and for how long at least, before its connection is given up. */
#define DRAIN_BYTES (16u * 1024u)
#define DRAIN_MS    10u

/* ---- tries beside each other ---- */

static bool is_alive(const struct ag_proxy_try *t)
{
    return t->claim.state != AG_CLAIM_OVER;
}

static bool hedge_alive(const struct ag_proxy_call *p, const struct ag_proxy_try *but)
{
    for (unsigned i = 0; p->more && i < p->more->hedge_count; i++) {
        const struct ag_proxy_try *t = &p->more->hedges[i]->one;

        if (t != but && is_alive(t)) {
            return true;
        }
    }
    return false;
}

static bool others_alive(const struct ag_proxy_try *t)
{
    const struct ag_proxy_call *p = t->whole;

    return (t != &p->first && is_alive(&p->first)) || hedge_alive(p, t);
}

static void cancel_others(struct ag_proxy_call *p, const struct ag_proxy_try *but)
{
    if (but != &p->first) {
        ag_upstream_cancel(&p->first.claim);
    }
    for (unsigned i = 0; p->more && i < p->more->hedge_count; i++) {
        struct ag_proxy_try *t = &p->more->hedges[i]->one;

        if (t != but) {
            ag_upstream_cancel(&t->claim);
        }
    }
}

void ag_proxy_cancel_tries(struct ag_proxy_call *p)
{
    cancel_others(p, NULL);
}

/* ---- whether it may be asked again ---- */

/* Nothing of its content is lost: it is kept, or was not touched. */
static bool is_whole(const struct ag_proxy_call *p)
{
    const struct ag_body *body = &p->ex->req_body;

    if (ag_proxy_holds(p)) {
        return ag_spool_is_whole(p->buffers->request);
    }
    if (p->more && p->more->replays) {
        return ag_replay_is_whole(&p->more->content);
    }
    return body->total_bytes == body->q.bytes && !body->discarding && !body->aborted;
}

/* Nothing can happen twice that must not (RFC 9110 section 9.2.2). */
static bool is_safe(const struct ag_proxy_try *t)
{
    return ag_proxy_is_idempotent(t->whole) || t->whole->settings->retry.all_methods ||
           !t->call.sent || t->call.replayable;
}

/* Silently: a pooled connection that the upstream had just closed, or spoilt, is nobody's fault: once (RFC 9112
 * section 9.3.1). And what the upstream says it has done nothing about (RFC 9113 section 8.7), a few times. */
static bool may_repeat(const struct ag_proxy_try *t, enum ag_reason why)
{
    const struct ag_proxy_call *p = t->whole;
    bool dead = why == AG_REASON_EOF || why == AG_REASON_RESET || why == AG_REASON_PROTOCOL;

    if (t->call.replayable) {
        return p->replays < REPLAYS_MAX && is_whole(p);
    }
    return dead && !p->retried && !t->call.received && t->claim.pooled && is_whole(p) && is_safe(t);
}

/* It can be sent again, as far as it is here. */
static bool keeps_content(const struct ag_proxy_call *p)
{
    return ag_proxy_holds(p) || (p->more && p->more->replays);
}

/* Until the next try takes it, the rest of the content waits where it is. */
static void stop_content(struct ag_proxy_call *p)
{
    if (ag_proxy_holds(p)) {
        ag_spool_close(p->buffers->request);
    } else if (p->more && p->more->replays) {
        ag_replay_stop(&p->more->content);
    }
}

static void pause_before(struct ag_proxy_call *p, uint32_t delay_ms)
{
    ag_proxy_stop_timers(p);
    ag_upstream_pause(&p->first.claim);
    ag_loop_arm(ag_proxy_loop(p), &p->more->pause, delay_ms);
}

/* By the policy, and its budget: arranges for the next try, after a while, and of another server. */
static bool retry(struct ag_proxy_try *t, enum ag_retry_cause cause)
{
    struct ag_proxy_call *p = t->whole;
    const struct ag_retry_policy *policy = &p->settings->retry;
    struct ag_upstream_claim *claim = &p->first.claim;
    struct ag_loop *l = ag_proxy_loop(p);
    uint32_t delay_ms, total_ms = p->timeouts.total_ms;

    if (!ag_retry_has_cause(policy, cause) || p->retries + 1u >= policy->attempts || !is_safe(t) ||
        !is_whole(p) || !claim->pool) {
        return false;
    }
    delay_ms = ag_retry_delay_ms(policy, p->retries + 1u, ag_loop_random(l));
    delay_ms = cause == AG_RETRY_STATUS && delay_ms < DRAIN_MS ? DRAIN_MS : delay_ms;
    if (total_ms && l->now_ms + delay_ms >= claim->started_ms + total_ms) {
        return false;
    }
    if (!ag_upstream_elsewhere(claim)) {
        if (policy->elsewhere) {
            return false;
        }
        ag_upstream_forgive(claim);
    }
    if (!ag_retry_take(&claim->pool->retries, l->now_ms)) {
        return false;
    }
    stop_content(p);
    p->retries++;
    p->fresh = cause == AG_RETRY_RESET;
    pause_before(p, delay_ms);
    return true;
}

/* ---- the next try ---- */

/* Of the first claim, whatever try has failed: those beside it are over. */
static void try_again(struct ag_proxy_call *p, bool fresh)
{
    ag_proxy_begin_patience(p);
    ag_proxy_go_on(&p->first, ag_upstream_claim_again(&p->first.claim, fresh));
}

static void on_pause(struct ag_timer *timer)
{
    struct ag_proxy_more *more = ag_container_of(timer, struct ag_proxy_more, pause);
    struct ag_proxy_call *p = more->whole;

    if (more->draining) {
        struct ag_body *body = more->draining->call.res_body;

        ag_upstream_cancel(&more->draining->claim);
        ag_body_deinit(body);
        ag_body_init(body, ag_proxy_loop(p));
        more->draining = NULL;
    }
    try_again(p, p->fresh);
}

/* One try fails, and all others are given up. */
static void run_out_of_patience(struct ag_proxy_call *p)
{
    struct ag_proxy_try *t = &p->first;
    static const char *const detail = "wait for upstream's answer: timeout of a try";

    for (unsigned i = 0; i < p->more->hedge_count; i++) {
        if (is_alive(&p->more->hedges[i]->one)) {
            t = &p->more->hedges[i]->one;
        }
    }
    cancel_others(p, t);
    if (t->claim.state == AG_CLAIM_GIVEN) {
        t->call.ops->fail(&t->call, AG_REASON_TIMEOUT, detail);
        return;
    }
    ag_upstream_cancel(&t->claim);
    t->claim.status = 504;
    t->claim.reason = AG_REASON_TIMEOUT;
    t->claim.detail = detail;
    ag_proxy_go_on(t, AG_ESYS);
}

/* While the client still sends its own limits hold; the upstream has its time from then on. */
static void on_patience(struct ag_timer *timer)
{
    struct ag_proxy_more *more = ag_container_of(timer, struct ag_proxy_more, patience);

    if (more->sends_late) {
        ag_proxy_begin_patience(more->whole);
    } else {
        run_out_of_patience(more->whole);
    }
}

void ag_proxy_begin_patience(struct ag_proxy_call *p)
{
    struct ag_proxy_more *more = p->more;

    if (more && more->per_try_ms) {
        more->sends_late = ag_proxy_has_content(p) && !p->ex->req_body.ended;
        ag_loop_arm(ag_proxy_loop(p), &more->patience,
                    more->sends_late ? 1 + more->per_try_ms / 4 : more->per_try_ms);
    }
}

/* ---- hedges ---- */

bool ag_proxy_may_hedge(const struct ag_proxy_call *p)
{
    const struct ag_retry_policy *policy = &p->settings->retry;

    return policy->hedges > 0 && !ag_proxy_has_tunnel(p) &&
           (ag_proxy_is_idempotent(p) || policy->all_methods) &&
           (!ag_proxy_has_content(p) || keeps_content(p));
}

/* All content, when it is here and in memory; else NULL. */
static const struct ag_chain *shareable(const struct ag_proxy_call *p)
{
    if (ag_proxy_holds(p)) {
        return ag_spool_in_memory(p->buffers->request);
    }
    return ag_replay_is_complete(&p->more->content) ? &p->more->content.kept : NULL;
}

/* All content that is kept into the hedge's own body. What fails aborts that, and so the hedge. */
static void share_content(const struct ag_proxy_call *p, const struct ag_chain *content,
                          struct ag_body *to)
{
    for (struct ag_slice_node *n = content->head; n; n = n->next) {
        (void)!ag_body_write(to, ag_slice_sub(&n->slice, 0, n->slice.len));
    }
    ag_body_end(to, p->ex->req_body.trailers);
}

/* The same request, to a server that was not asked yet; NULL: it has no content. */
static void hedge(struct ag_proxy_call *p, const struct ag_chain *content)
{
    struct ag_proxy_more *more = p->more;
    struct ag_upstream_claim *claim = &p->first.claim;
    struct ag_proxy_hedge *h = ag_arena_zalloc(&p->ex->arena, sizeof(*h));

    if (!h || !ag_upstream_elsewhere(claim) ||
        !ag_retry_take(&claim->pool->retries, ag_proxy_loop(p)->now_ms)) {
        return;
    }
    ag_body_init(&h->req_body, ag_proxy_loop(p));
    ag_body_init(&h->res_body, ag_proxy_loop(p));
    if (content) {
        share_content(p, content, &h->req_body);
    }
    ag_proxy_try_init(&h->one, p, &h->res_body);
    more->hedges[more->hedge_count++] = h;
    ag_upstream_avoid_same(&h->one.claim, claim);
    if (more->hedge_count < p->settings->retry.hedges) {
        ag_loop_arm(ag_proxy_loop(p), &more->hedging, p->settings->retry.after_ms);
    }
    ag_proxy_go_on(&h->one,
                   ag_upstream_claim(ag_proxy_upstreams(p), p->settings->upstream, &h->one.claim));
    (void)ag_upstream_elsewhere(&h->one.claim); /* the next one goes elsewhere again */
    ag_upstream_avoid_same(claim, &h->one.claim);
}

static void on_hedging(struct ag_timer *timer)
{
    struct ag_proxy_more *more = ag_container_of(timer, struct ag_proxy_more, hedging);
    struct ag_proxy_call *p = more->whole;
    const struct ag_chain *content;
    uint8_t state = p->first.claim.state;

    content = ag_proxy_has_content(p) ? shareable(p) : NULL;
    if (ag_proxy_has_content(p) && !content) {
        /* The client still sends, or the first server does not take what lies here. On the disk it stays. */
        if (is_whole(p) && !(ag_proxy_holds(p) && p->ex->req_body.ended)) {
            ag_loop_arm(ag_proxy_loop(p), &more->hedging, p->settings->retry.after_ms);
        }
        return;
    }
    /* Where requests wait for a connection, more of them would not help. */
    if (state == AG_CLAIM_GIVEN || state == AG_CLAIM_CONNECTING) {
        hedge(p, content);
    }
}

void ag_proxy_init_timers(struct ag_proxy_more *more)
{
    ag_timer_init(&more->pause, on_pause);
    ag_timer_init(&more->patience, on_patience);
    ag_timer_init(&more->hedging, on_hedging);
}

/* ---- what became of a try ---- */

bool ag_proxy_retry_failed(struct ag_proxy_try *t, enum ag_reason why)
{
    struct ag_proxy_call *p = t->whole;
    bool broken = why == AG_REASON_EOF || why == AG_REASON_RESET || why == AG_REASON_PROTOCOL ||
                  why == AG_REASON_ABORTED || why == AG_REASON_TLS ||
                  why == AG_REASON_UNREACHABLE || why == AG_REASON_OTHER;

    if (p->answered || p->over) {
        return false;
    }
    if ((p->more && p->more->draining == t) || others_alive(t)) {
        return true;
    }
    if (!p->settings) {
        return false;
    }
    if (may_repeat(t, why)) {
        bool replayable = t->call.replayable;

        p->replays += replayable;
        p->retried = p->retried || !replayable;
        stop_content(p);
        ag_upstream_absolve(&p->first.claim, &t->claim);
        try_again(p, !replayable);
        return true;
    }
    return (broken || why == AG_REASON_TIMEOUT) && ag_proxy_more_of(p) &&
           retry(t, broken ? AG_RETRY_RESET : AG_RETRY_TIMEOUT);
}

bool ag_proxy_retry_unconnected(struct ag_proxy_try *t)
{
    struct ag_proxy_call *p = t->whole;
    bool reached = t->claim.reason == AG_REASON_LIMIT || t->claim.reason == AG_REASON_RESOURCES;

    if (others_alive(t)) {
        return true;
    }
    return !p->over && p->settings && !reached && ag_proxy_more_of(p) && retry(t, AG_RETRY_CONNECT);
}

/* An answer that nobody wants. */
static void on_unwanted(struct ag_body *b, void *owner)
{
    struct ag_proxy_call *p = owner;
    struct ag_proxy_try *t = p->more->draining;

    while (b->q.bytes > 0) {
        struct ag_slice s = ag_body_take(b);

        ag_slice_release(&s);
    }
    if (t && b->total_bytes > DRAIN_BYTES) {
        ag_upstream_cancel(&t->claim);
    }
}

bool ag_proxy_retry_answer(struct ag_proxy_try *t, const struct ag_response *res)
{
    struct ag_proxy_call *p = t->whole;

    if (!p->settings || ag_proxy_has_tunnel(p) ||
        !ag_retry_has_status(&p->settings->retry, res->status)) {
        return false;
    }
    if (others_alive(t)) {
        ag_upstream_cancel(&t->claim);
        return true;
    }
    /* An upstream that answers early has its content discarded: it has to be kept. */
    if ((ag_proxy_has_content(p) && !keeps_content(p)) || !ag_proxy_more_of(p) ||
        !retry(t, AG_RETRY_STATUS)) {
        return false;
    }
    p->more->draining = t;
    ag_body_set_consumer(t->call.res_body, on_unwanted, p);
    return true;
}

void ag_proxy_passed(struct ag_proxy_call *p)
{
    if (!is_alive(&p->first) && !hedge_alive(p, NULL)) {
        ag_proxy_let_go(p);
    }
}

static void on_relayed(struct ag_replay *r, void *owner)
{
    (void)r;
    ag_proxy_passed(owner);
}

void ag_proxy_won(struct ag_proxy_try *t)
{
    struct ag_proxy_call *p = t->whole;
    struct ag_proxy_more *more = p->more;

    if (!more) {
        return;
    }
    ag_proxy_stop_timers(p);
    cancel_others(p, t);
    if (ag_proxy_holds(p)) {
        ag_proxy_buffers_forget(p->buffers, t == &p->first); /* hedges have their own */
    }
    if (more->replays && !p->mirrored) {
        ag_replay_forget(&more->content);
    }
}

void ag_proxy_pass_on(struct ag_proxy_try *t, const struct ag_response *res)
{
    struct ag_proxy_call *p = t->whole;
    struct ag_proxy_more *more = p->more;

    if (t->call.res_body == &p->ex->res_body || ag_proxy_buffers_answer(p, t->call.res_body, res)) {
        return;
    }
    more->relays = true;
    ag_replay_init(&more->answer, t->call.res_body, &p->ex->res_body, 0);
    more->answer.ended = on_relayed;
    more->answer.owner = p;
    ag_replay_open(&more->answer);
}

/* Some of the answer, or its end, is still on its way from the body that the call has written. */
static bool still_passes(const struct ag_proxy_call *p)
{
    return (p->more && p->more->relays && p->more->answer.ended) ||
           ag_proxy_buffers_pass(p->buffers);
}

bool ag_proxy_goes_on(struct ag_proxy_try *t)
{
    const struct ag_proxy_more *more = t->whole->more;

    return (more && more->draining == t) || still_passes(t->whole);
}

bool ag_proxy_breaks_off(struct ag_proxy_call *p, enum ag_reason why, const char *detail)
{
    const struct ag_proxy_more *more = p->more;
    /* Of a tunnel whose upstream had ended its part the relay would tell nothing but that end. */
    bool half = ag_proxy_has_tunnel(p) && more && more->relays && more->answer.from->ended;

    if (!p->answered || half || !still_passes(p)) {
        return false;
    }
    p->ex->reason = (uint8_t)why;
    p->ex->detail = detail;
    return true;
}

/* ---- the end ---- */

bool ag_proxy_may_outlive(const struct ag_proxy_call *p)
{
    const struct ag_proxy_more *more = p->more;

    return !p->mirrored && (p->answered || (p->first.claim.state == AG_CLAIM_GIVEN &&
                                            !(more && (more->draining || hedge_alive(p, NULL)))));
}

void ag_proxy_outlive(struct ag_proxy_call *p)
{
    struct ag_proxy_more *more = p->more;

    AG_ASSERT(ag_proxy_may_outlive(p));
    if (more && !p->answered) {
        ag_timer_cancel(&ag_proxy_loop(p)->wheel, &more->hedging);
        if (more->replays) {
            ag_replay_forget(&more->content);
        }
    }
    if (ag_proxy_holds(p)) {
        ag_proxy_buffers_forget(p->buffers, true);
    }
    p->settings = NULL;
}
