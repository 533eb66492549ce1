#include "actions/proxy.h"

#include "actions/proxy_config.h"
#include "actions/proxy_describe.h"
#include "actions/proxy_forward.h"
#include "actions/proxy_head.h"
#include "actions/proxy_tunnel.h"
#include "actions/upstream_pool.h"

#define REPLAYS_MAX 3u

/* One request on its way; in the exchange's arena. */
struct proxy_call {
    struct ag_exchange *ex;
    const struct ag_proxy_settings *settings; /* NULL: gone with the snapshot */
    struct ag_upstream_timeouts timeouts;     /* of the settings */
    struct ag_upstream_claim claim;
    struct ag_call call;
    struct ag_request req; /* as it goes to the upstream */
    struct ag_h1_request_opts opts;
    struct ag_proxy_tunneling tunnel;
    uint8_t replays; /* after the upstream had refused it unseen */
    bool answered;   /* the head was given to the exchange */
    bool retried;    /* a dead pooled connection was made up for */
    bool over;       /* the hold on the exchange is gone */
};

static void go_on(struct proxy_call *p, enum ag_status st);

/* ---- the end ---- */

static void let_go(struct proxy_call *p)
{
    if (!p->over) {
        p->over = true;
        ag_exchange_release(p->ex);
    }
}

/* The answer is ours then, or what was begun ends in a reset. Nothing may be under way upstream. */
static void fail(struct proxy_call *p, unsigned status, enum ag_reason why, const char *detail)
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
        /* The aborted content ends the stream, after what came before it; but for a tunnel whose
         * upstream had ended its part: nothing else would tell the client. */
        if (ex->res_body.ended) {
            ex->server->reset(ex, why);
        }
    }
    let_go(p);
}

/* ---- the upstream's answer ---- */

static struct proxy_call *of(struct ag_call *call)
{
    return ag_container_of(call, struct proxy_call, call);
}

static void on_interim(struct ag_call *call, const struct ag_response *res)
{
    struct proxy_call *p = of(call);
    struct ag_field room[AG_PROXY_INTERIM_FIELDS];
    struct ag_fields fields = ag_proxy_interim_fields(res, room);

    p->ex->server->send_interim(p->ex, res->status, &fields);
}

static void on_head(struct ag_call *call, const struct ag_response *res)
{
    struct proxy_call *p = of(call);
    struct ag_exchange *ex = p->ex;
    enum ag_proxy_agreement agreement = ag_proxy_tunnel_agreement(&p->tunnel, &p->req, res);
    enum ag_status st;

    if (agreement == AG_PROXY_DISAGREED) {
        ag_upstream_cancel(&p->claim);
        fail(p, 502, AG_REASON_PROTOCOL, "the new protocol is not the one asked for");
        return;
    }
    st = ag_proxy_response(ex, res, call->head_owner);
    if (st == AG_OK && agreement == AG_PROXY_AGREED) {
        st = ag_proxy_tunnel_answer(&p->tunnel, ex);
    }
    if (st != AG_OK) {
        ag_upstream_cancel(&p->claim);
        if (st == AG_EPROTO) {
            fail(p, 502, AG_REASON_PROTOCOL, "the upstream lists too many connection options");
        } else {
            fail(p, 503, AG_REASON_RESOURCES, "out of memory for the upstream's answer");
        }
        return;
    }
    p->answered = true;
    ag_exchange_respond(ex);
    if (p->claim.state != AG_CLAIM_GIVEN) {
        return; /* the client was lost over it */
    }
    if (agreement == AG_PROXY_AGREED) {
        call->ops->accept_tunnel(call);
    }
    ag_upstream_watch(&p->claim);
}

static void on_done(struct ag_call *call)
{
    struct proxy_call *p = of(call);

    ag_upstream_release(&p->claim);
    let_go(p);
}

/* Silently, when nothing can happen twice and nothing is lost (RFC 9110 section 9.2.2). A pooled connection
 * that the upstream had just closed, or spoilt, is nobody's fault: once (RFC 9112 section 9.3.1). And one
 * that the upstream says it has done nothing about (RFC 9113 section 8.7), a few times. */
static bool may_repeat(const struct proxy_call *p, enum ag_reason why)
{
    const struct ag_body *body = &p->ex->req_body;
    bool untouched = body->total_bytes == body->q.bytes;
    bool dead = why == AG_REASON_EOF || why == AG_REASON_RESET || why == AG_REASON_PROTOCOL;

    if (p->call.replayable) {
        return p->settings && untouched && p->replays < REPLAYS_MAX;
    }
    return dead && p->settings && !p->retried && !p->call.received && p->claim.pooled &&
           untouched && (!p->call.sent || ag_method_is_idempotent((enum ag_method)p->req.method));
}

static void on_failed(struct ag_call *call, enum ag_reason why, const char *detail)
{
    struct proxy_call *p = of(call);
    bool repeat = may_repeat(p, why);

    ag_upstream_release(&p->claim);
    if (repeat) {
        p->replays += call->replayable;
        p->retried = p->retried || !call->replayable;
        go_on(p, ag_upstream_claim_again(&p->claim, !call->replayable));
        return;
    }
    switch (why) {
    case AG_REASON_TIMEOUT:
        fail(p, 504, why, detail);
        return;
    case AG_REASON_RESOURCES:
    case AG_REASON_LIMIT:
        fail(p, 503, why, detail);
        return;
    case AG_REASON_RESET:
        fail(p, 502, why, "read from upstream: connection reset");
        return;
    case AG_REASON_NONE:
    case AG_REASON_EOF:
    case AG_REASON_REFUSED:
    case AG_REASON_UNREACHABLE:
    case AG_REASON_NAME:
    case AG_REASON_PROTOCOL:
    case AG_REASON_ABORTED:
    case AG_REASON_TLS:
    case AG_REASON_OTHER:
        fail(p, 502, why, detail);
        return;
    }
    AG_UNREACHABLE("a reason that is none");
}

static const struct ag_call_events call_events = {
    .interim = on_interim,
    .head = on_head,
    .done = on_done,
    .failed = on_failed,
};

/* ---- the connection ---- */

static struct ag_span host_of(const struct proxy_call *p)
{
    const struct ag_proxy_settings *s = p->settings;

    if (s->host_mode == AG_UPSTREAM_HOST_LITERAL) {
        return s->host;
    }
    if (s->host_mode == AG_UPSTREAM_HOST_KEEP && p->req.authority.len > 0) {
        return p->req.authority;
    }
    return p->claim.peer->authority;
}

/* The connection is here: the call begins. */
static void begin(struct proxy_call *p)
{
    struct ag_exchange *ex = p->ex;
    struct ag_upstream_claim *claim = &p->claim;
    bool tunnel = p->tunnel.asked != AG_PROXY_NO_TUNNEL;

    if (tunnel) {
        const char *why =
            ag_proxy_tunnel_shape(&p->tunnel, ex, &p->req, &p->opts, ag_upstream_is_h2(claim),
                                  ag_upstream_tunnels(claim));
        if (why) {
            ag_upstream_release(claim);
            fail(p, 502, AG_REASON_PROTOCOL, why);
            return;
        }
    }
    p->opts.host = host_of(p);
    p->call.events = &call_events;
    p->call.req = &p->req;
    p->call.opts = &p->opts;
    p->call.req_body = p->req.framing != AG_FRAMING_NONE || tunnel ? &ex->req_body : NULL;
    p->call.res_body = &ex->res_body;
    p->call.keep = &ex->arena;
    if (ag_upstream_start(claim, &p->call) != AG_OK) {
        ag_upstream_release(claim);
        fail(p, 503, AG_REASON_RESOURCES, "out of buffers towards the upstream");
    }
}

/* What was wrong with the handshake, for the log and the answer. */
static const char *tls_detail(struct proxy_call *p)
{
    struct ag_span what = ag_span_str(p->claim.detail ? p->claim.detail : "failed");
    struct ag_span text = AG_SPAN("TLS handshake with upstream: ");
    char *room = ag_arena_alloc(&p->ex->arena, text.len + what.len + 1);

    if (!room) {
        return "TLS handshake with upstream failed";
    }
    memcpy(room, text.ptr, text.len);
    memcpy(room + text.len, what.ptr, what.len);
    room[text.len + what.len] = 0;
    return room;
}

static void go_on(struct proxy_call *p, enum ag_status st)
{
    struct ag_upstream_claim *claim = &p->claim;

    if (st == AG_OK) {
        begin(p);
    } else if (st != AG_AGAIN) {
        fail(p, claim->status, (enum ag_reason)claim->reason,
             claim->reason == AG_REASON_TLS ? tls_detail(p) : claim->detail);
    }
}

static void on_ready(struct ag_upstream_claim *claim)
{
    go_on(ag_container_of(claim, struct proxy_call, claim), AG_OK);
}

static void on_refused(struct ag_upstream_claim *claim)
{
    go_on(ag_container_of(claim, struct proxy_call, claim), AG_ESYS);
}

static const struct ag_upstream_claim_ops claim_ops = {
    .ready = on_ready,
    .failed = on_refused,
};

/* ---- the request ---- */

/* The request's path and query as they lie there, when they lie in one piece. */
static struct ag_span whole_target(const struct ag_request *r)
{
    if (!r->has_query) {
        return r->path;
    }
    if (r->path.ptr + r->path.len + 1 == r->query.ptr) {
        return ag_span(r->path.ptr, r->path.len + 1 + r->query.len);
    }
    return (struct ag_span){NULL, 0};
}

/* Origin-form for the upstream. Its ptr is NULL when it is too long. */
static struct ag_span make_target(struct ag_exchange *ex, const struct ag_proxy_settings *s)
{
    const struct ag_request *r = &ex->req;
    struct ag_span whole = s->has_target ? (struct ag_span){NULL, 0} : whole_target(r);
    size_t max = 1 + s->target_bytes + s->target_params * r->path.len + 1 + r->query.len;
    struct ag_buf b;
    uint8_t *room;

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
    return ag_buf_span(&b);
}

/* Fills p->req and p->opts; false when the request was answered instead. */
static bool prepare(struct proxy_call *p, const struct ag_proxy_section *section)
{
    struct ag_exchange *ex = p->ex;
    unsigned hops = 0;
    enum ag_status st;

    p->req = ex->req;
    if (p->req.framing == AG_FRAMING_H2) {
        p->req.framing =
            p->req.content_length == AG_LENGTH_UNKNOWN ? AG_FRAMING_CHUNKED : AG_FRAMING_LENGTH;
    }
    p->tunnel.asked = (uint8_t)ag_proxy_tunnel_asked(&ex->req);
    p->opts.te_trailers = ag_fields_list_has(&ex->req.fields, AG_FIELD_TE, AG_SPAN("trailers"));
    p->opts.target = make_target(ex, p->settings);
    if (!p->opts.target.ptr) {
        fail(p, 414, AG_REASON_LIMIT, "the target is too long for the upstream");
        return false;
    }
    st = ag_proxy_request_fields(ex, &section->trust, p->tunnel.asked == AG_PROXY_UPGRADE,
                                 &p->req.fields, &hops);
    if (st == AG_EPROTO) {
        fail(p, 400, AG_REASON_PROTOCOL, "too many connection options");
    } else if (st != AG_OK) {
        fail(p, 503, AG_REASON_RESOURCES, "out of memory for the request");
    } else if (hops > AG_PROXY_HOPS_MAX) {
        fail(p, 508, AG_REASON_PROTOCOL, "the request goes in a loop");
        st = AG_EPROTO;
    }
    return st == AG_OK;
}

/* What tells the upstream whose the connection is, if it asks. False: the request was answered instead. */
static bool greet(struct proxy_call *p)
{
    enum ag_proxy_protocol version = p->settings->upstream->options.proxy_protocol;

    if (version == AG_PROXY_PROTOCOL_NONE) {
        return true;
    }
    p->claim.greeting = ag_proxy_greeting(p->ex, version);
    if (p->claim.greeting.len == 0) {
        fail(p, 503, AG_REASON_RESOURCES, "out of memory for the request");
    }
    return p->claim.greeting.len > 0;
}

static void start(struct ag_exchange *ex)
{
    struct ag_upstreams *upstreams = ex->context->action_state[AG_ACTION_PROXY];
    struct proxy_call *p;

    /* It waits for the upstream: its receive buffer must not wait too. Without room it does. */
    (void)!ag_exchange_detach(ex);
    p = ag_arena_zalloc(&ex->arena, sizeof(*p));
    if (!p) {
        ag_exchange_fail(ex, 503, AG_REASON_RESOURCES, "out of memory for the request");
        ag_exchange_release(ex);
        return;
    }
    p->ex = ex;
    p->settings = ex->action->settings;
    p->claim.ops = &claim_ops;
    p->timeouts = p->settings->timeouts;
    p->claim.timeouts = &p->timeouts;
    ex->action_data = p;
    if (prepare(p, ex->action->shared) && greet(p)) {
        go_on(p, ag_upstream_claim(upstreams, p->settings->upstream, &p->claim));
    }
}

static void abort_call(struct ag_exchange *ex, enum ag_reason why)
{
    struct proxy_call *p = ex->action_data;

    (void)why;
    if (p && !p->over) {
        ag_upstream_cancel(&p->claim);
        let_go(p);
    }
}

/* Once the request is on its way its settings have done their part, but for a second try. */
static bool outlive(struct ag_exchange *ex)
{
    struct proxy_call *p = ex->action_data;

    if (!p || p->claim.state != AG_CLAIM_GIVEN) {
        return false;
    }
    p->settings = NULL;
    return true;
}

static enum ag_status shard_open(struct ag_context *ctx, void **out_state)
{
    struct ag_upstreams *u = ag_upstreams_new(ctx->loop, ctx->shard_count);

    if (!u) {
        return AG_ENOMEM;
    }
    *out_state = u;
    return AG_OK;
}

static void shard_close(struct ag_context *ctx, void *state)
{
    (void)ctx;
    ag_upstreams_free(state);
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
    .shard_open = shard_open,
    .shard_close = shard_close,
    .shard_bytes = shard_bytes,
    .start = start,
    .abort = abort_call,
    .outlive = outlive,
};
