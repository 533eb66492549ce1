#include "actions/proxy/proxy_retry_parts.h"

/* Content that waits for a call beside what is kept, and what the server holds: little. */
#define SENDING_BYTES (64u * 1024u)

struct ag_proxy_more *ag_proxy_more_of(struct ag_proxy_call *p)
{
    struct ag_proxy_more *more = p->more;

    if (!more) {
        more = ag_arena_zalloc(&p->ex->arena, sizeof(*more));
        if (!more) {
            return NULL;
        }
        more->whole = p;
        ag_proxy_init_timers(more);
        p->more = more;
    }
    return more;
}

/* Content whose length is told, and beyond the limit, is not kept at all. */
static uint32_t worth_keeping(const struct ag_proxy_call *p, uint32_t limit)
{
    return p->req.framing == AG_FRAMING_LENGTH && p->req.content_length > limit ? 0 : limit;
}

uint32_t ag_proxy_kept_bytes(const struct ag_proxy_call *p)
{
    const struct ag_proxy_settings *s = p->settings;
    uint32_t limit = 0;

    if (!ag_proxy_has_content(p)) {
        return 0;
    }
    if ((s->retry.attempts > 1 || s->retry.hedges > 0) &&
        (s->retry.all_methods || ag_proxy_is_idempotent(p))) {
        limit = s->retry.buffer_bytes;
    }
    if (p->mirrored && s->mirror->buffer_bytes > limit) {
        limit = s->mirror->buffer_bytes;
    }
    return worth_keeping(p, limit);
}

static void replay(struct ag_proxy_call *p, uint32_t limit)
{
    p->more->replays = true;
    ag_body_init(&p->more->sending, ag_proxy_loop(p));
    ag_replay_init(&p->more->content, &p->ex->req_body, &p->more->sending, limit);
}

/* Before its first byte is taken. An upstream of HTTP/2 says what it has not looked at (RFC 9113 section 8.7), which
 * may be repeated whatever the method and the policy are. Without memory it is as if it were too long. */
static void keep_for_refusals(struct ag_proxy_call *p)
{
    const struct ag_retry_policy *policy = &p->settings->retry;
    const struct ag_body *body = &p->ex->req_body;
    uint32_t limit =
        worth_keeping(p, policy->elsewhere ? AG_RETRY_BUFFER_DEFAULT : policy->buffer_bytes);

    if (limit > 0 && p->req.content_length > 0 && body->total_bytes == body->q.bytes &&
        ag_proxy_more_of(p)) {
        replay(p, limit);
    }
}

static void send_copy(struct ag_proxy_call *p, const struct ag_chain *content)
{
    const struct ag_mirror_request copy = {.req = &p->req,
                                           .target = p->opts.target,
                                           .content = content,
                                           .te_trailers = p->opts.te_trailers};

    p->mirrored = false;
    ag_mirror_send(ag_proxy_upstreams(p)->mirrors, p->settings->mirror, &copy);
}

static void leave_copy_out(struct ag_proxy_call *p)
{
    if (p->mirrored) {
        p->mirrored = false;
        ag_mirror_leave_out(ag_proxy_upstreams(p)->mirrors);
    }
}

/* The whole request has passed. */
static void on_complete(struct ag_replay *r, void *owner)
{
    struct ag_proxy_call *p = owner;

    /* More may have been kept for the retries. */
    if (p->mirrored && ag_replay_is_complete(r) &&
        r->kept.bytes <= p->settings->mirror->buffer_bytes) {
        send_copy(p, &r->kept);
    }
    leave_copy_out(p);
    if (p->answered) {
        ag_replay_forget(r);
    }
}

/* A copy of a request that was buffered, if memory has it. */
static void send_held_copy(struct ag_proxy_call *p)
{
    const struct ag_chain *content = ag_spool_in_memory(p->buffers->request);

    if (content && content->bytes <= p->settings->mirror->buffer_bytes) {
        send_copy(p, content);
    } else {
        leave_copy_out(p);
    }
}

bool ag_proxy_prepare_more(struct ag_proxy_call *p)
{
    const struct ag_proxy_settings *s = p->settings;
    bool held;
    uint32_t limit;

    p->mirrored = s->mirror && !ag_proxy_has_tunnel(p) &&
                  ag_mirror_wants(ag_proxy_upstreams(p)->mirrors, s->mirror);
    if ((s->buffer.request || s->buffer.response) && !ag_proxy_buffers_init(p)) {
        return false;
    }
    held = ag_proxy_holds(p);
    limit = held ? 0 : ag_proxy_kept_bytes(p);
    if (ag_proxy_has_content(p) && limit == 0 && !held) {
        leave_copy_out(p);
    }
    if (limit == 0 && !s->retry.per_try_ms && !ag_proxy_may_hedge(p) && !p->buffers) {
        return true;
    }
    if (!ag_proxy_more_of(p)) {
        return false;
    }
    p->more->per_try_ms = s->retry.per_try_ms;
    if (limit > 0) {
        replay(p, limit);
        p->more->content.ended = on_complete;
        p->more->content.owner = p;
    }
    return true;
}

void ag_proxy_begin(struct ag_proxy_call *p, struct ag_upstreams *u)
{
    const struct ag_retry_policy *policy = &p->settings->retry;
    enum ag_status st = ag_upstream_claim(u, p->settings->upstream, &p->first.claim);

    if (p->first.claim.pool && (policy->attempts > 1 || policy->hedges > 0)) {
        ag_retry_save(&p->first.claim.pool->retries, policy);
    }
    ag_proxy_begin_patience(p);
    if (p->more && ag_proxy_may_hedge(p)) {
        ag_loop_arm(ag_proxy_loop(p), &p->more->hedging, policy->after_ms);
    }
    ag_proxy_go_on(&p->first, st);
    if (p->mirrored && ag_proxy_holds(p)) {
        send_held_copy(p);
    } else if (p->mirrored && !ag_proxy_has_content(p)) {
        send_copy(p, NULL);
    }
}

struct ag_body *ag_proxy_content(struct ag_proxy_try *t)
{
    struct ag_proxy_call *p = t->whole;
    struct ag_proxy_more *more = p->more;

    if (p->req.framing == AG_FRAMING_NONE && !ag_proxy_has_tunnel(p)) {
        return NULL;
    }
    if (t != &p->first) {
        return &ag_container_of(t, struct ag_proxy_hedge, one)->req_body;
    }
    if (ag_proxy_holds(p)) {
        return ag_proxy_buffers_content(p->buffers);
    }
    if (!(more && more->replays) && !ag_proxy_has_tunnel(p) && ag_upstream_is_h2(&t->claim)) {
        keep_for_refusals(p);
        more = p->more;
    }
    if (!more || !more->replays) {
        return &p->ex->req_body;
    }
    ag_replay_close(&more->content); /* what the try before has left */
    more->sending.limit_bytes = SENDING_BYTES;
    ag_replay_open(&more->content);
    return &more->sending;
}

void ag_proxy_end_more(struct ag_proxy_call *p)
{
    struct ag_proxy_more *more = p->more;

    leave_copy_out(p);
    ag_proxy_buffers_end(p);
    if (!more) {
        return;
    }
    ag_proxy_stop_timers(p);
    if (more->replays) {
        if (!more->content.over) {
            ag_body_discard(&p->ex->req_body);
        }
        ag_replay_deinit(&more->content);
        ag_body_deinit(&more->sending);
    }
    if (more->relays) {
        ag_replay_deinit(&more->answer);
    }
    for (unsigned i = 0; i < more->hedge_count; i++) {
        ag_body_deinit(&more->hedges[i]->req_body);
        ag_body_deinit(&more->hedges[i]->res_body);
    }
}
