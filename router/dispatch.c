#include "router/dispatch_errors.h"
#include "router/dispatch_tls.h"

/* ---- finding the route ---- */

/* The split of `r` for the region that the path lies in, or `r` itself. */
static const struct ag_route *in_region(const struct ag_snapshot *s, const struct ag_route *r,
                                        const struct ag_trie_query *q)
{
    struct ag_trie_query any = *q;
    uint32_t region, low = 0, high = r->split_count;

    any.method = AG_METHOD_GET; /* groups hold for every method */
    region = ag_trie_lookup(s->regions, &any);
    while (low < high) {
        uint32_t mid = (low + high) / 2;

        if (r->splits[mid].region < region) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low < r->split_count && r->splits[low].region == region
               ? &s->routes[r->splits[low].route]
               : r;
}

const struct ag_route *ag_snapshot_find(const struct ag_snapshot *s, const struct ag_trie_query *q)
{
    uint32_t id = ag_trie_lookup(s->trie, q);
    const struct ag_route *r;

    if (id == AG_TRIE_NONE) {
        return NULL;
    }
    AG_ASSERT(id < s->route_count);
    r = &s->routes[id];
    return r->split_count ? in_region(s, r, q) : r;
}

/* An extended CONNECT goes where the GET with Upgrade would that it stands for (RFC 8441 section 5). */
static struct ag_trie_query query_of(const struct ag_exchange *ex)
{
    bool extended = ex->req.protocol.len > 0;

    return (struct ag_trie_query){
        .host = ex->req.host,
        .port = ex->listener_port,
        .path = ex->req.path,
        .method = extended ? AG_METHOD_GET : (enum ag_method)ex->req.method,
        .method_name = extended ? ag_method_name(AG_METHOD_GET) : ex->req.method_name};
}

/* ---- answers without a route ---- */

/* Collects the names of Allow. */
struct allow {
    const struct ag_snapshot *snapshot;
    struct ag_buf names;
    uint32_t methods;
};

static void put_name(struct ag_buf *out, struct ag_span name)
{
    size_t len = out->len;

    if (len) {
        ag_buf_put(out, AG_SPAN(", "));
    }
    ag_buf_put(out, name);
    if (out->overflow) {
        out->len = len; /* no half names */
        out->overflow = false;
    }
}

static bool has_name(const struct ag_buf *names, struct ag_span name)
{
    size_t at = 0;
    struct ag_span have;

    while (ag_list_next(ag_buf_span(names), &at, &have)) {
        if (ag_span_eq(have, name)) {
            return true;
        }
    }
    return false;
}

static void add_route(void *arg, uint32_t id, uint32_t methods)
{
    struct allow *a = arg;
    const struct ag_pattern *p = &a->snapshot->routes[id].pattern;

    a->methods |= methods;
    for (uint16_t i = 0; i < p->other_count; i++) {
        if (!has_name(&a->names, p->other_methods[i])) {
            put_name(&a->names, p->other_methods[i]);
        }
    }
}

/* Sets Allow from all patterns that match. False: none does. */
static bool set_allow(struct ag_exchange *ex, const struct ag_snapshot *s)
{
    uint8_t room[512];
    struct allow a = {s, ag_buf(room, sizeof(room)), 0};
    struct ag_trie_query q = query_of(ex);
    struct ag_span value;

    ag_trie_each(s->trie, &q, add_route, &a);
    if (a.methods == 0) {
        return false;
    }
    a.methods |= 1u << AG_METHOD_OPTIONS; /* answered here where it is not routed */
    for (unsigned m = 1; m < AG_METHODS; m++) {
        if (a.methods & 1u << m) {
            put_name(&a.names, ag_method_name((enum ag_method)m));
        }
    }
    value = ag_arena_copy(&ex->arena, ag_buf_span(&a.names));
    if (value.ptr) {
        (void)!ag_exchange_field(ex, AG_FIELD_ALLOW, value);
    }
    return true;
}

static void answer_options(struct ag_exchange *ex)
{
    ex->res.status = 204;
    ex->res.framing = AG_FRAMING_NONE;
    ag_body_end(&ex->res_body, NULL);
    ag_exchange_respond(ex);
}

/* "OPTIONS *" asks for the server as a whole (RFC 9110 section 9.3.7). */
static void answer_server_options(struct ag_exchange *ex)
{
    (void)!ag_exchange_field(ex, AG_FIELD_ALLOW,
                             AG_SPAN("GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH"));
    answer_options(ex);
}

static void answer_unrouted(struct ag_exchange *ex, const struct ag_snapshot *s)
{
    bool never = ex->req.method == AG_METHOD_TRACE ||
                 (ex->req.method == AG_METHOD_CONNECT && ex->req.protocol.len == 0);
    bool exists = set_allow(ex, s);

    if (exists && ex->req.method == AG_METHOD_OPTIONS) {
        answer_options(ex);
    } else if (never && !exists) {
        (void)!ag_exchange_field(ex, AG_FIELD_ALLOW,
                                 AG_SPAN("GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH"));
        ag_exchange_fail(ex, 405, AG_REASON_NONE, "this method is not served");
    } else if (exists) {
        ag_exchange_fail(ex, 405, AG_REASON_NONE, "no route takes this method here");
    } else {
        ag_exchange_fail(ex, 404, AG_REASON_NONE, "no route takes this path");
    }
}

/* ---- the chain ---- */

static void *state_of(const struct ag_exchange *ex, const struct ag_filter *f)
{
    return f->ops->state_bytes ? (uint8_t *)ex->filter_data + f->state_offset : NULL;
}

static void start_action(struct ag_exchange *ex)
{
    if (ex->req.protocol.len > 0 && ex->route->action.ops->kind != AG_ACTION_PROXY) {
        (void)set_allow(ex, ex->context->snapshot);
        ag_exchange_fail(ex, 405, AG_REASON_NONE, "there is nothing to tunnel to");
        return;
    }
    ex->action = &ex->route->action;
    ag_exchange_hold(ex);
    ex->action->ops->start(ex);
}

static void wait_for(struct ag_exchange *ex)
{
    ex->filter_waits = true;
    ag_exchange_hold(ex);
    /* Failing keeps the receive buffer pinned: nothing else is lost. */
    (void)!ag_exchange_detach(ex);
}

/* Runs what is left of the chain, then the action. A filter counts from its pre on: it sees the answer,
 * its own one too. */
static void run_chain(struct ag_exchange *ex)
{
    const struct ag_filter_chain *chain = &ex->route->filters;

    while (ex->filter_at < chain->count) {
        const struct ag_filter *f = &chain->v[ex->filter_at++];
        enum ag_verdict verdict =
            f->ops->pre ? f->ops->pre(ex, f->settings, state_of(ex, f)) : AG_CONTINUE;

        if (ex->ended || ex->abandoned) {
            return;
        }
        switch (verdict) {
        case AG_CONTINUE:
            break;
        case AG_ANSWERED:
            return;
        case AG_WAIT:
            wait_for(ex);
            return;
        case AG_FAIL:
            ag_exchange_fail(ex, 500, AG_REASON_OTHER, "a filter failed");
            return;
        }
    }
    start_action(ex);
}

/* gRPC has bodies that go on as long as both sides talk. Only a proxy speaks it. */
static bool is_grpc(const struct ag_exchange *ex)
{
    struct ag_span name = AG_SPAN("application/grpc"), type;
    const struct ag_field *f;

    if (ex->route->action.ops->kind != AG_ACTION_PROXY) {
        return false;
    }
    f = ag_fields_find(&ex->req.fields, AG_FIELD_CONTENT_TYPE, NULL);
    type = f ? ag_field_value(f) : AG_SPAN("");
    if (type.len < name.len || !ag_span_ieq(ag_span_sub(type, 0, name.len), name)) {
        return false;
    }
    return type.len == name.len || type.ptr[name.len] == '+' || type.ptr[name.len] == ';';
}

static uint64_t most_content(const struct ag_route_limits *l)
{
    return l->stream == AG_STREAMING_ON || l->max_body_bytes == 0 ? UINT64_MAX : l->max_body_bytes;
}

/* For a listener that this snapshot has no more: those that allow the least content. */
static const struct ag_route_limits *tightest(const struct ag_route_limits *all, uint16_t count)
{
    const struct ag_route_limits *found = all;

    for (uint16_t i = 1; i < count; i++) {
        if (most_content(&all[i]) < most_content(found)) {
            found = &all[i];
        }
    }
    return found;
}

static void choose_limits(struct ag_exchange *ex, const struct ag_snapshot *s)
{
    const struct ag_route_limits *all = ex->route->limits;
    uint16_t count = s->model->route_limit_count;

    ex->limits = ex->limits_index < count ? &all[ex->limits_index] : tightest(all, count);
    ex->streams = ex->limits->stream == AG_STREAMING_ON ||
                  (ex->limits->stream == AG_STREAMING_AUTO && is_grpc(ex));
}

/* Told by its length, before anybody has begun to work on it. */
static bool too_large(const struct ag_exchange *ex)
{
    return !ex->streams && ex->limits->max_body_bytes &&
           ex->req.content_length != AG_LENGTH_UNKNOWN &&
           ex->req.content_length > ex->limits->max_body_bytes;
}

static void start(struct ag_exchange *ex)
{
    const struct ag_snapshot *s = ex->context->snapshot;
    struct ag_trie_query q = query_of(ex);
    const struct ag_route *r = NULL;

    AG_ASSERT(s && !ex->route);
    ag_exchange_pin(ex);
    ex->hsts = ex->req.tls ? s->model->hsts : ex->hsts;
    if (s->model->access_log != AG_ACCESS_OFF) {
        ex->started_ns = ag_loop_now_ns(ex->context->loop);
        (void)ag_exchange_remote(ex); /* after an abort the system would not say any more */
    }
    if (!ag_dispatch_tls_listener(ex, s)) {
        return;
    }
    if (ex->req.method == AG_METHOD_OPTIONS && ag_span_eq(ex->req.path, AG_SPAN("*"))) {
        answer_server_options(ex);
        return;
    }
    if (q.method != AG_METHOD_TRACE && q.method != AG_METHOD_CONNECT) {
        r = ag_snapshot_find(s, &q);
    }
    if (!r) {
        answer_unrouted(ex, s);
        return;
    }
    ex->route = r;
    ex->params = r->match.params;
    ex->param_count = r->match.param_count;
    choose_limits(ex, s);
    if (!ag_dispatch_tls_route(ex, s)) {
        return;
    }
    if (too_large(ex)) {
        ag_exchange_fail(ex, 413, AG_REASON_LIMIT, "request content too large");
        return;
    }
    if (r->filters.count == 0) {
        start_action(ex);
        return;
    }
    if (r->filters.state_bytes) {
        ex->filter_data = ag_arena_zalloc(&ex->arena, r->filters.state_bytes);
        if (!ex->filter_data) {
            ag_exchange_fail(ex, 503, AG_REASON_RESOURCES, "out of memory for the filters");
            return;
        }
    }
    run_chain(ex);
}

static void resume(struct ag_exchange *ex, int verdict)
{
    AG_ASSERT(ex->filter_waits && verdict != AG_WAIT);
    ex->filter_waits = false;
    ag_body_kick(&ex->req_body); /* the server had stopped reading content */
    if (!ex->ended && !ex->abandoned && verdict == AG_CONTINUE) {
        run_chain(ex);
    } else if (!ex->ended && verdict == AG_FAIL) {
        ag_exchange_fail(ex, 500, AG_REASON_OTHER, "a filter failed");
    }
    ag_exchange_release(ex);
}

/* An answer whose content a transform may change: not for HEAD, whose fields stay as the action has
 * set them, nor for what has no content or is a tunnel. */
static bool has_content(const struct ag_exchange *ex)
{
    return ex->req.method != AG_METHOD_HEAD && ex->res.framing != AG_FRAMING_NONE &&
           ex->res.status != 101 && ex->res.status != 204 && ex->res.status != 304;
}

static void respond(struct ag_exchange *ex)
{
    for (uint16_t i = ex->filter_at; i > 0; i--) {
        const struct ag_filter *f = &ex->route->filters.v[i - 1];
        struct ag_body *body = NULL;

        if (f->ops->on_head) {
            f->ops->on_head(ex, f->settings, state_of(ex, f));
        }
        if (f->ops->wrap_body && has_content(ex)) {
            body = f->ops->wrap_body(ex, f->settings, state_of(ex, f), ex->res_source);
        }
        if (body) {
            ex->res_source = body;
        }
    }
    ag_dispatch_tls_head(ex);
    ex->status = (uint16_t)ex->res.status;
    ex->head_sent = true;
    ex->server->send_head(ex);
}

/* Called once. Beside the server's hold there is a filter's that waits, or the action's, or none: an
 * action that has let go must not hear of it. */
static void abort_work(struct ag_exchange *ex, enum ag_reason why)
{
    if (ex->filter_waits) {
        const struct ag_filter *f = &ex->route->filters.v[ex->filter_at - 1];

        ex->filter_waits = false;
        AG_ASSERT(f->ops->cancel);
        f->ops->cancel(ex, f->settings, state_of(ex, f));
    } else if (ex->action && ex->holders > 1 && ex->action->ops->abort) {
        ex->action->ops->abort(ex, why);
    }
}

static void filters_done(struct ag_exchange *ex)
{
    while (ex->filter_at > 0) {
        const struct ag_filter *f = &ex->route->filters.v[--ex->filter_at];

        if (f->ops->on_done) {
            f->ops->on_done(ex, f->settings, state_of(ex, f));
        }
    }
}

/* Also for requests that never came as far as `start`: 400, 408. The log is the present snapshot's. */
static void done(struct ag_exchange *ex)
{
    const struct ag_snapshot *s = ex->context->snapshot;

    filters_done(ex);
    if (s->model->access_log != AG_ACCESS_OFF) {
        ag_access_log(ex, s->model->access_log);
    }
}

/* ---- living on without the snapshot ---- */

/* What an exchange keeps of it, in its arena. */
struct kept {
    struct ag_route_limits limits;
    struct ag_action action; /* its ops alone */
    struct ag_param_spec params[];
};

/* Some filter that has run is yet to see the answer, or its end before there was a beginning. */
static bool filters_want_answer(const struct ag_exchange *ex)
{
    for (uint16_t i = 0; i < ex->filter_at; i++) {
        const struct ag_filter_ops *ops = ex->route->filters.v[i].ops;

        if (ops->on_head || ops->wrap_body || ops->on_done) {
            return true;
        }
    }
    return false;
}

static bool action_outlives(struct ag_exchange *ex)
{
    if (!ex->action || ex->holders == (ex->server_stream ? 1 : 0)) {
        return true; /* there is none, or it has let go; the server may have, too */
    }
    return ex->action->ops->outlive ? ex->action->ops->outlive(ex) : ex->head_sent;
}

/* Limits, action, and parameters while the answer may still be made of them. */
static struct kept *keep(struct ag_exchange *ex)
{
    uint16_t count = ex->head_sent ? 0 : ex->param_count;
    struct kept *k = ag_arena_alloc(&ex->arena, sizeof(*k) + count * sizeof(k->params[0]));

    if (!k) {
        return NULL;
    }
    k->limits = *ex->limits;
    k->action = (struct ag_action){.ops = ex->action ? ex->action->ops : NULL};
    for (uint16_t i = 0; i < count; i++) {
        k->params[i] = ex->params[i];
        k->params[i].name = ag_arena_copy(&ex->arena, ex->params[i].name);
        if (!k->params[i].name.ptr) {
            return NULL;
        }
    }
    return k;
}

/* What filters have set, from field `from` on, may lie in their settings. Without memory a field is lost:
 * the log and error answers are all that may still ask for it. */
static void keep_fields(struct ag_exchange *ex, struct ag_fields *fields, uint16_t from)
{
    for (uint16_t i = from; i < fields->count; i++) {
        struct ag_field *f = &fields->v[i];
        struct ag_span name, value;

        if (f->removed) {
            continue;
        }
        name = ag_arena_copy(&ex->arena, ag_field_key(f));
        value = ag_arena_copy(&ex->arena, ag_field_value(f));
        f->removed = !name.ptr || !value.ptr;
        f->line = false;
        f->name = name.ptr;
        f->value = value.ptr;
    }
}

static bool outlive(struct ag_exchange *ex)
{
    struct kept *k;

    if (ex->filter_waits || (!ex->head_sent && filters_want_answer(ex)) || !action_outlives(ex)) {
        return false;
    }
    k = keep(ex);
    if (!k) {
        return false;
    }
    if (ex->hsts.len && !ex->head_sent) {
        ex->hsts = ag_arena_copy(&ex->arena, ex->hsts);
        ex->hsts.len = ex->hsts.ptr ? ex->hsts.len : 0; /* without memory it is lost */
    }
    filters_done(ex);
    keep_fields(ex, &ex->req.fields, ex->req.received_count);
    if (ex->head_sent) {
        ex->res.fields = (struct ag_fields){0};
    } else {
        keep_fields(ex, &ex->res.fields, 0);
    }
    ex->limits = &k->limits;
    ex->action = ex->action ? &k->action : NULL;
    ex->params = k->params;
    ex->param_count = ex->head_sent ? 0 : ex->param_count;
    ex->route = NULL;
    return true;
}

const struct ag_pipeline_ops ag_dispatch = {
    .start = start,
    .resume = resume,
    .respond = respond,
    .abort = abort_work,
    .done = done,
    .outlive = outlive,
    .error_page = ag_dispatch_error_page,
    .intercepts = ag_dispatch_intercepts,
};
