#include "actions/proxy/proxy.h"

#include "actions/proxy/error_pages.h"
#include "actions/proxy/proxy_config.h"
#include "actions/proxy/proxy_describe.h"
#include "actions/proxy/proxy_forward.h"
#include "actions/proxy/proxy_head.h"
#include "actions/proxy/proxy_retry.h"
#include "actions/proxy/proxy_steer.h"
#include "actions/proxy/proxy_tunnel.h"
#include "actions/proxy/rewrite_answer.h"
#include "actions/upstream/health.h"
#include "actions/upstream/upstream_discover.h"
#include "actions/upstream/upstream_pool.h"

/* ---- the end ---- */

void ag_proxy_let_go(struct ag_proxy_call *p)
{
    if (!p->over) {
        p->over = true;
        ag_proxy_end_more(p);
        ag_exchange_release(p->ex);
    }
}

void ag_proxy_fail(struct ag_proxy_call *p, unsigned status, enum ag_reason why, const char *detail)
{
    struct ag_exchange *ex = p->ex;

    if (!p->answered) {
        ag_body_discard(&ex->req_body);
        ag_exchange_fail(ex, status, why, detail);
    } else {
        if (ex->reason == AG_REASON_NONE) {
            ex->reason = (uint8_t)why;
            ex->detail = detail;
        }
        ag_body_abort(&ex->res_body, why); /* a relayed answer's end would not come */
        /* The aborted content ends the stream, after what came before it; but for a tunnel whose
         * upstream had ended its part: nothing else would tell the client. */
        if (ex->res_body.ended) {
            ex->server->reset(ex, why);
        }
    }
    ag_proxy_let_go(p);
}

/* ---- the upstream's answer ---- */

static struct ag_proxy_try *of(struct ag_call *call)
{
    return ag_container_of(call, struct ag_proxy_try, call);
}

static void on_interim(struct ag_call *call, const struct ag_response *res)
{
    struct ag_proxy_call *p = of(call)->whole;
    struct ag_field room[AG_PROXY_INTERIM_FIELDS];
    struct ag_fields fields = ag_proxy_interim_fields(res, room);

    if (call != &p->first.call) {
        return; /* the first try's are enough */
    }
    p->ex->server->send_interim(p->ex, res->status, &fields);
}

static struct ag_span host_of(const struct ag_proxy_try *t)
{
    const struct ag_proxy_call *p = t->whole;
    const struct ag_proxy_settings *s = p->settings;

    if (s->host_mode == AG_UPSTREAM_HOST_LITERAL) {
        return s->host;
    }
    if (s->host_mode == AG_UPSTREAM_HOST_KEEP && p->req.authority.len > 0) {
        return p->req.authority;
    }
    return t->claim.peer->authority;
}

/* Whom the claim has led to; while there are settings. */
static struct ag_rewrite_peer rewrite_peer(const struct ag_proxy_try *t)
{
    const struct ag_proxy_call *p = t->whole;
    const struct ag_proxy_settings *s = p->settings;
    bool clients = s->host_mode == AG_UPSTREAM_HOST_KEEP && p->req.authority.len > 0;

    return (struct ag_rewrite_peer){
        .target = s->has_target ? &s->target : NULL,
        .own = {t->claim.peer->authority, s->upstream->name, clients ? AG_SPAN("") : host_of(t)},
        .tls = s->upstream->tls != NULL};
}

/* Redirects and cookies; the head is in ex->res. */
static enum ag_status rewrite_answer(const struct ag_proxy_try *t)
{
    const struct ag_proxy_call *p = t->whole;
    struct ag_rewrite_peer peer;

    if (p->kept) {
        return ag_rewrite_answer(&p->kept->rw, p->ex, &p->kept->peer);
    }
    peer = rewrite_peer(t);
    return ag_rewrite_answer(p->settings->rewrite, p->ex, &peer);
}

static void on_head(struct ag_call *call, const struct ag_response *res)
{
    struct ag_proxy_try *t = of(call);
    struct ag_proxy_call *p = t->whole;
    struct ag_exchange *ex = p->ex;
    enum ag_proxy_agreement agreement = ag_proxy_tunnel_agreement(&p->tunnel, &p->req, res);
    enum ag_status st;

    ag_upstream_answered(&t->claim, res->status);
    if (ag_proxy_retry_answer(t, res)) {
        return;
    }
    ag_proxy_won(t);
    if (agreement == AG_PROXY_DISAGREED) {
        ag_upstream_cancel(&t->claim);
        ag_proxy_fail(p, 502, AG_REASON_PROTOCOL, "the new protocol is not the one asked for");
        return;
    }
    if (res->status >= 400 && ag_error_pages_take(ex, res)) {
        unsigned status = res->status; /* the head goes with the call */

        ag_upstream_cancel(&t->claim);
        ag_proxy_fail(p, status, AG_REASON_NONE, "the upstream answered with an error");
        return;
    }
    st = ag_proxy_response(ex, res, call->head_owner);
    if (st == AG_OK && (p->kept || (p->settings && p->settings->rewrite)) &&
        ag_rewrite_may_concern(&ex->res.fields)) {
        st = rewrite_answer(t);
    }
    if (st == AG_OK && p->settings) {
        st = ag_proxy_stick(ex, p->settings->upstream, &t->claim);
    }
    if (st == AG_OK && agreement == AG_PROXY_AGREED) {
        st = ag_proxy_tunnel_answer(&p->tunnel, ex);
    }
    if (st != AG_OK) {
        ag_upstream_cancel(&t->claim);
        if (st == AG_EPROTO) {
            ag_proxy_fail(p, 502, AG_REASON_PROTOCOL,
                          "the upstream lists too many connection options");
        } else {
            ag_proxy_fail(p, 503, AG_REASON_RESOURCES, "out of memory for the upstream's answer");
        }
        return;
    }
    p->answered = true;
    ex->res_body.counted = ex->res.content_length == AG_LENGTH_UNKNOWN;
    ag_proxy_pass_on(t, res);
    ag_exchange_respond(ex);
    if (t->claim.state != AG_CLAIM_GIVEN) {
        return; /* the client was lost over it */
    }
    if (agreement == AG_PROXY_AGREED) {
        call->ops->accept_tunnel(call);
    }
    ag_upstream_moved(&t->claim);
}

static void on_done(struct ag_call *call)
{
    struct ag_proxy_try *t = of(call);

    ag_upstream_release(&t->claim);
    if (!ag_proxy_goes_on(t)) {
        ag_proxy_let_go(t->whole);
    }
}

static void on_failed(struct ag_call *call, enum ag_reason why, const char *detail)
{
    struct ag_proxy_try *t = of(call);
    struct ag_proxy_call *p = t->whole;

    if (call->h1_required) {
        call->replayable = ag_upstream_fall_back(&t->claim);
    }
    if (!p->answered || p->tunnel.asked == AG_PROXY_NO_TUNNEL) {
        ag_upstream_failed(&t->claim, call, why);
    }
    ag_upstream_release(&t->claim);
    if (why == AG_REASON_RESET) {
        detail = "read from upstream: connection reset";
    }
    if (ag_proxy_retry_failed(t, why) || ag_proxy_breaks_off(p, why, detail)) {
        return;
    }
    if (ag_proxy_buffers_lost(p->buffers)) {
        ag_proxy_fail(p, 503, AG_REASON_RESOURCES, "the buffered request cannot be read back");
        return;
    }
    switch (why) {
    case AG_REASON_TIMEOUT:
        ag_proxy_fail(p, 504, why, detail);
        return;
    case AG_REASON_RESOURCES:
    case AG_REASON_LIMIT:
        ag_proxy_fail(p, 503, why, detail);
        return;
    case AG_REASON_NONE:
    case AG_REASON_EOF:
    case AG_REASON_RESET:
    case AG_REASON_REFUSED:
    case AG_REASON_UNREACHABLE:
    case AG_REASON_NAME:
    case AG_REASON_PROTOCOL:
    case AG_REASON_ABORTED:
    case AG_REASON_TLS:
    case AG_REASON_OTHER:
        ag_proxy_fail(p, 502, why, detail);
        return;
    }
    AG_UNREACHABLE("a reason that is none");
}

static bool is_taken(struct ag_call *call)
{
    struct ag_exchange *ex = of(call)->whole->ex;

    return ex->server->taken && ex->server->taken(ex);
}

static const struct ag_call_events call_events = {
    .interim = on_interim,
    .head = on_head,
    .done = on_done,
    .failed = on_failed,
    .taken = is_taken,
};

/* ---- the connection ---- */

/* The connection is here: the call begins. */
static void begin(struct ag_proxy_try *t)
{
    struct ag_proxy_call *p = t->whole;
    struct ag_exchange *ex = p->ex;
    bool tunnel = p->tunnel.asked != AG_PROXY_NO_TUNNEL;

    if (tunnel) {
        const char *why =
            ag_proxy_tunnel_shape(&p->tunnel, ex, &p->req, &p->opts, ag_upstream_is_h2(&t->claim),
                                  ag_upstream_tunnels(&t->claim));
        if (why) {
            ag_upstream_release(&t->claim);
            ag_proxy_fail(p, 502, AG_REASON_PROTOCOL, why);
            return;
        }
    }
    p->opts.host = host_of(t);
    t->call.events = &call_events;
    t->call.req = &p->req;
    t->call.opts = &p->opts;
    t->call.req_body = ag_proxy_content(t);
    t->call.keep = &ex->arena;
    ex->upstream_tries++;
    if (ag_upstream_start(&t->claim, &t->call) != AG_OK) {
        ag_upstream_release(&t->claim);
        if (!ag_proxy_retry_failed(t, AG_REASON_RESOURCES)) {
            ag_proxy_fail(p, 503, AG_REASON_RESOURCES, "out of buffers towards the upstream");
        }
    }
}

/* A tunnel that its connection does not take, and another one of its server may. */
static bool needs_h1(const struct ag_proxy_try *t)
{
    const struct ag_proxy_call *p = t->whole;

    return p->tunnel.asked != AG_PROXY_NO_TUNNEL && ag_upstream_is_h2(&t->claim) &&
           ag_upstream_has_h1(&t->claim) &&
           ag_proxy_tunnel_needs_h1(&p->tunnel, p->ex, ag_upstream_tunnels(&t->claim));
}

/* What was wrong with the handshake, for the log and the answer. */
static const char *tls_detail(struct ag_proxy_try *t)
{
    struct ag_span what = ag_span_str(t->claim.detail ? t->claim.detail : "failed");
    struct ag_span text = AG_SPAN("TLS handshake with upstream: ");
    char *room = ag_arena_alloc(&t->whole->ex->arena, text.len + what.len + 1);

    if (!room) {
        return "TLS handshake with upstream failed";
    }
    memcpy(room, text.ptr, text.len);
    memcpy(room + text.len, what.ptr, what.len);
    room[text.len + what.len] = 0;
    return room;
}

void ag_proxy_go_on(struct ag_proxy_try *t, enum ag_status st)
{
    struct ag_upstream_claim *claim = &t->claim;

    if (st == AG_OK && needs_h1(t)) {
        st = ag_upstream_claim_h1(claim);
    }
    if (st == AG_OK) {
        begin(t);
    } else if (st != AG_AGAIN && !ag_proxy_retry_unconnected(t)) {
        ag_proxy_fail(t->whole, claim->status, (enum ag_reason)claim->reason,
                      claim->reason == AG_REASON_TLS ? tls_detail(t) : claim->detail);
    }
}

static void on_ready(struct ag_upstream_claim *claim)
{
    ag_proxy_go_on(ag_container_of(claim, struct ag_proxy_try, claim), AG_OK);
}

static void on_refused(struct ag_upstream_claim *claim)
{
    ag_proxy_go_on(ag_container_of(claim, struct ag_proxy_try, claim), AG_ESYS);
}

static const struct ag_upstream_claim_ops claim_ops = {
    .ready = on_ready,
    .failed = on_refused,
};

void ag_proxy_try_init(struct ag_proxy_try *t, struct ag_proxy_call *p, struct ag_body *res_body)
{
    t->whole = p;
    t->claim.ops = &claim_ops;
    t->claim.timeouts = &p->timeouts;
    t->claim.key = p->first.claim.key;
    t->claim.greeting = p->first.claim.greeting;
    t->claim.client = p->first.claim.client;
    t->call.res_body = res_body;
}

/* ---- the request ---- */

/* What the route's target makes of the path, when it is an end of that: "/api/" before "*" made "/" before it. Its ptr is
 * NULL when it is not. */
static struct ag_span end_of_path(const struct ag_exchange *ex, const struct ag_template *t)
{
    struct ag_span path = ex->req.path, rest, head;

    if (t->count != 2 || t->parts[0].param >= 0 || t->parts[1].param < 0) {
        return (struct ag_span){NULL, 0};
    }
    head = t->parts[0].literal;
    rest = ag_exchange_param(ex, (unsigned)t->parts[1].param);
    if (rest.len == 0 || rest.ptr + rest.len != path.ptr + path.len ||
        head.len > path.len - rest.len || memcmp(rest.ptr - head.len, head.ptr, head.len) != 0) {
        return (struct ag_span){NULL, 0};
    }
    rest = ag_span(rest.ptr - head.len, head.len + rest.len);
    return rest.ptr[1] == '/' && rest.ptr != path.ptr ? ag_rewrite_one_slash(t, rest) : rest;
}

/* Path and query of the target as they lie in the request, when they lie there in one piece. */
static struct ag_span whole_target(const struct ag_exchange *ex, const struct ag_proxy_settings *s)
{
    const struct ag_request *r = &ex->req;
    struct ag_span path = s->has_target ? end_of_path(ex, &s->target) : r->path;

    if (!r->has_query || !path.ptr) {
        return path;
    }
    if (path.ptr + path.len + 1 == r->query.ptr && !s->target_has_query) {
        return ag_span(path.ptr, path.len + 1 + r->query.len);
    }
    return (struct ag_span){NULL, 0};
}

/* Origin-form for the upstream. Its ptr is NULL when it is too long. */
static struct ag_span make_target(struct ag_exchange *ex, const struct ag_proxy_settings *s)
{
    const struct ag_request *r = &ex->req;
    struct ag_span whole;
    size_t max = 1 + s->target_bytes + s->target_params * r->path.len + 1 + r->query.len;
    struct ag_buf b;
    uint8_t *room;

    if (s->rewrite && ag_rewrite_has_target(s->rewrite)) {
        return ag_rewrite_target(s->rewrite, ex, s->has_target ? &s->target : NULL);
    }
    whole = whole_target(ex, s);
    if (whole.ptr) {
        return whole;
    }
    max += s->has_target ? 0 : r->path.len;
    room = ag_arena_alloc(&ex->arena, max);
    if (!room) {
        return whole;
    }
    b = ag_buf(room, max);
    if (s->has_target) {
        ag_template_expand(&s->target, ex, &b);
    } else {
        ag_buf_put(&b, r->path);
    }
    if (b.len == 0) {
        ag_buf_putc(&b, '/');
    }
    if (r->has_query) {
        ag_buf_putc(&b, s->target_has_query ? '&' : '?');
        ag_buf_put(&b, r->query);
    }
    AG_ASSERT(!b.overflow);
    whole = ag_buf_span(&b);
    return s->has_target ? ag_rewrite_one_slash(&s->target, whole) : whole;
}

/* Fills p->req and p->opts; false when the request was answered instead. */
static bool prepare(struct ag_proxy_call *p, const struct ag_proxy_section *section)
{
    struct ag_exchange *ex = p->ex;
    struct ag_proxy_told told = {0};
    enum ag_status st;

    p->req = ex->req;
    if (p->req.framing == AG_FRAMING_H2) {
        p->req.framing =
            p->req.content_length == AG_LENGTH_UNKNOWN ? AG_FRAMING_CHUNKED : AG_FRAMING_LENGTH;
    }
    p->tunnel.asked = (uint8_t)ag_proxy_tunnel_asked(&ex->req);
    p->opts.target = make_target(ex, p->settings);
    if (!p->opts.target.ptr) {
        ag_proxy_fail(p, 414, AG_REASON_LIMIT, "the target is too long for the upstream");
        return false;
    }
    st = ag_proxy_request_fields(ex, &section->trust, p->tunnel.asked == AG_PROXY_UPGRADE,
                                 &p->req.fields, &told);
    p->opts.te_trailers = told.te_trailers;
    if (st == AG_OK && p->settings->rewrite) {
        st = ag_rewrite_fields(p->settings->rewrite, ex, &p->req.fields);
    }
    if (st == AG_EPROTO) {
        ag_proxy_fail(p, 400, AG_REASON_PROTOCOL, "too many connection options");
    } else if (st != AG_OK) {
        ag_proxy_fail(p, 503, AG_REASON_RESOURCES, "out of memory for the request");
    } else if (told.hops > AG_PROXY_HOPS_MAX) {
        ag_proxy_fail(p, 508, AG_REASON_PROTOCOL, "the request goes in a loop");
        st = AG_EPROTO;
    }
    return st == AG_OK;
}

/* What tells the upstream whose the connection is, if it asks. False: the request was answered instead. */
static bool greet(struct ag_proxy_call *p)
{
    enum ag_proxy_protocol version = p->settings->upstream->options.proxy_protocol;

    if (version == AG_PROXY_PROTOCOL_NONE) {
        return true;
    }
    p->first.claim.client = ag_exchange_client(p->ex);
    p->first.claim.greeting = ag_proxy_greeting(p->ex, version);
    if (p->first.claim.greeting.len == 0) {
        ag_proxy_fail(p, 503, AG_REASON_RESOURCES, "out of memory for the request");
    }
    return p->first.claim.greeting.len > 0;
}

static void start(struct ag_exchange *ex)
{
    struct ag_proxy_call *p;

    /* It waits for the upstream: its receive buffer must not wait too. Without room it does. */
    (void)!ag_exchange_detach(ex);
    p = ag_arena_alloc(&ex->arena, sizeof(*p));
    if (!p) {
        ag_exchange_fail(ex, 503, AG_REASON_RESOURCES, "out of memory for the request");
        ag_exchange_release(ex);
        return;
    }
    memset(p, 0, offsetof(struct ag_proxy_call, req));
    p->ex = ex;
    ex->req_body.counted = ex->req.content_length == AG_LENGTH_UNKNOWN;
    p->settings = ex->action->settings;
    p->timeouts = p->settings->timeouts;
    ag_proxy_try_init(&p->first, p, &ex->res_body);
    ex->action_data = p;
    if (!prepare(p, ex->action->shared) || !greet(p)) {
        return;
    }
    ag_proxy_steer(ex, p->settings->upstream,
                   &((const struct ag_proxy_section *)ex->action->shared)->trust, &p->first.claim);
    if (!ag_proxy_prepare_more(p)) {
        ag_proxy_fail(p, 503, AG_REASON_RESOURCES, "out of memory for the request");
        return;
    }
    ag_proxy_buffers_begin(p);
}

static void abort_call(struct ag_exchange *ex, enum ag_reason why)
{
    struct ag_proxy_call *p = ex->action_data;

    (void)why;
    if (p && !p->over) {
        ag_proxy_cancel_tries(p);
        ag_proxy_let_go(p);
    }
}

/* Once the request is on its way its settings have done their part, but for another try; what rewrites the answer
 * is kept: once, for this is asked again until it can be. */
static bool outlive(struct ag_exchange *ex)
{
    struct ag_proxy_call *p = ex->action_data;

    if (!p || !ag_proxy_may_outlive(p)) {
        return false;
    }
    if (p->settings && p->settings->rewrite && !p->answered) {
        struct ag_rewrite_peer peer = rewrite_peer(&p->first);

        p->kept = ag_rewrite_keep(p->settings->rewrite, ex, &peer);
        if (!p->kept) {
            return false;
        }
    }
    ag_proxy_outlive(p);
    return true;
}

static enum ag_status common_open(void **out_common)
{
    struct ag_proxy_common *common = malloc(sizeof(*common));

    if (!common) {
        return AG_ENOMEM;
    }
    *common = (struct ag_proxy_common){.groups = ag_upstream_groups_new()};
    ag_spool_disk_init(&common->disk);
    if (!common->groups) {
        free(common);
        return AG_ENOMEM;
    }
    *out_common = common;
    return AG_OK;
}

static void common_close(void *state)
{
    struct ag_proxy_common *common = state;

    AG_ASSERT(common->disk.files == 0 && common->disk.bytes == 0);
    ag_upstream_groups_free(common->groups);
    free(common);
}

static void close_upstreams(struct ag_upstreams *u)
{
    ag_mirrors_deinit(u->mirrors);
    free(u->mirrors);
    ag_upstreams_free(u);
}

static enum ag_status shard_open(struct ag_context *ctx, void **out_state)
{
    const struct ag_proxy_common *common = ctx->action_common[AG_ACTION_PROXY];
    struct ag_upstreams *u =
        ag_upstreams_new(ctx->loop, ctx->shard_count, common ? common->groups : NULL);
    struct ag_mirrors *mirrors = malloc(sizeof(*mirrors));

    if (!u || !mirrors) {
        free(mirrors);
        ag_upstreams_free(u);
        return AG_ENOMEM;
    }
    u->seed = ctx->shard_index;
    ag_mirrors_init(mirrors, u);
    u->mirrors = mirrors;
    /* One checks for all, and looks for all. */
    u->health = ctx->shard_index == 0 ? ag_health_new(u) : NULL;
    u->discover = ctx->shard_index == 0 ? ag_discover_new(u) : NULL;
    if (ctx->shard_index == 0 && (!u->health || !u->discover)) {
        close_upstreams(u);
        return AG_ENOMEM;
    }
    *out_state = u;
    return AG_OK;
}

static void shard_close(struct ag_context *ctx, void *state)
{
    (void)ctx;
    close_upstreams(state);
}

static void shard_use(struct ag_context *ctx, void *state, const void *shared)
{
    const struct ag_proxy_section *section = shared;

    (void)ctx;
    ag_upstreams_use(state, section, section->used, section->used_count);
}

static uint64_t shard_bytes(const void *shared)
{
    (void)shared;
    return ag_upstreams_bytes();
}

const struct ag_action_ops ag_action_proxy = {
    .name = "proxy",
    .kind = AG_ACTION_PROXY,
    .configure_section = ag_proxy_configure_section,
    .describe = ag_proxy_describe,
    .examine = ag_proxy_examine,
    .open_section = ag_proxy_open_section,
    .release_section = ag_proxy_release_section,
    .configure = ag_proxy_configure,
    .common_open = common_open,
    .common_close = common_close,
    .shard_open = shard_open,
    .shard_close = shard_close,
    .shard_use = shard_use,
    .shard_bytes = shard_bytes,
    .start = start,
    .abort = abort_call,
    .outlive = outlive,
};
