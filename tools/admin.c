#include "tools/admin.h"

#include "engine/resolver.h"
#include "tools/serving.h"

static const struct ag_admin_endpoint *const tables[] = {
    ag_admin_status_endpoints, ag_admin_upstream_endpoints, ag_admin_upstream_change_endpoints};

/* Of the content of its requests; its size is ag_admin_read's. */
static const struct ag_route_limits limits = {.min_rate = 240,
                                              .body_grace_ms = 5000,
                                              .body_timeout_ms = 10000,
                                              .min_read_rate = 240,
                                              .write_timeout_ms = 30000};

/* ---- who asks ---- */

/* Takes as long as what was shown is, whatever is right of it. */
static bool is_same_secret(struct ag_span shown, struct ag_span secret)
{
    size_t wrong = shown.len ^ secret.len;

    for (size_t i = 0; i < shown.len; i++) {
        wrong |= shown.ptr[i] ^ secret.ptr[i % secret.len];
    }
    return wrong == 0;
}

static bool shows_token(const struct ag_exchange *ex, struct ag_span token)
{
    struct ag_span scheme = AG_SPAN("bearer ");
    const struct ag_field *f = ag_fields_find(&ex->req.fields, AG_FIELD_AUTHORIZATION, NULL);
    struct ag_span value = f ? ag_field_value(f) : AG_SPAN("");

    if (!f || ag_fields_find(&ex->req.fields, AG_FIELD_AUTHORIZATION, f) ||
        value.len < scheme.len || !ag_span_ieq(ag_span_sub(value, 0, scheme.len), scheme)) {
        return false;
    }
    return is_same_secret(ag_span_sub(value, scheme.len, value.len), token);
}

/* A name leads wherever its owner says (DNS rebinding); an address, or what is never asked of a name server, does not. */
static bool is_local_host(struct ag_span host)
{
    union ag_addr addr;

    if (host.len > 2 && host.ptr[0] == '[') {
        host = ag_span_sub(host, 1, host.len - 1);
    }
    return host.len == 0 || ag_span_ieq(host, AG_SPAN("localhost")) ||
           ag_addr_parse(host, 0, &addr) == AG_OK;
}

/* The rule of the configuration, once more: a connection may be older than the configuration is. */
static bool is_here(struct ag_exchange *ex)
{
    const union ag_addr *peer = ag_exchange_remote(ex);

    if (peer && peer->sa.sa_family == AF_UNIX) {
        return true;
    }
    return peer && ag_addr_is_loopback(peer) && is_local_host(ex->req.host);
}

static void refuse_token(struct ag_exchange *ex)
{
    (void)!ag_exchange_field(ex, AG_FIELD_WWW_AUTHENTICATE, AG_SPAN("Bearer realm=\"anygate\""));
    ag_admin_refuse(ex, 401, AG_SPAN("a token is needed: Authorization: Bearer TOKEN"));
}

/* False: it was answered. */
static bool admit(struct ag_exchange *ex, const struct ag_model *m)
{
    if (ag_fields_find(&ex->req.fields, AG_FIELD_ORIGIN, NULL)) {
        ag_admin_refuse(ex, 403, AG_SPAN("no page of a browser may ask here"));
        return false;
    }
    if (m->admin_token.len > 0) {
        if (!shows_token(ex, m->admin_token)) {
            refuse_token(ex);
            return false;
        }
        return true;
    }
    if (!is_here(ex)) {
        ag_admin_refuse(ex, 403, AG_SPAN("asked from this machine only, by address or localhost"));
        return false;
    }
    return true;
}

/* ---- the pipeline ---- */

/* The segment at *io_rest, which begins with its slash; *io_rest is what follows. */
static struct ag_span next_segment(struct ag_span *io_rest)
{
    struct ag_span s = ag_span_sub(*io_rest, 1, io_rest->len);
    size_t len = ag_span_find(s, '/');

    *io_rest = ag_span_sub(s, len, s.len);
    return ag_span_sub(s, 0, len);
}

static bool matches(struct ag_span pattern, struct ag_span path)
{
    while (pattern.len > 0 && path.len > 0 && path.ptr[0] == '/') {
        struct ag_span want = next_segment(&pattern), is = next_segment(&path);

        if (ag_span_eq(want, AG_SPAN("*")) ? is.len == 0 : !ag_span_eq(want, is)) {
            return false;
        }
    }
    return pattern.len == 0 && path.len == 0;
}

static bool takes(uint32_t methods, uint16_t method)
{
    return (methods & 1u << (method == AG_METHOD_HEAD ? AG_METHOD_GET : method)) != 0;
}

/* *out_methods: all that the path takes; 0: there is no such path. */
static const struct ag_admin_endpoint *find(struct ag_span path, uint16_t method,
                                            uint32_t *out_methods)
{
    const struct ag_admin_endpoint *found = NULL;

    *out_methods = 0;
    for (size_t i = 0; i < AG_COUNT(tables); i++) {
        for (const struct ag_admin_endpoint *e = tables[i]; e->path; e++) {
            if (matches(ag_span_str(e->path), path)) {
                *out_methods |= e->methods;
                found = takes(e->methods, method) ? e : found;
            }
        }
    }
    return found;
}

static void refuse_method(struct ag_exchange *ex, uint32_t methods)
{
    char text[64];
    struct ag_buf b = ag_buf(text, sizeof(text));
    struct ag_span value;

    for (unsigned m = 1; m < AG_METHODS; m++) {
        if (takes(methods, (uint16_t)m)) {
            ag_buf_put(&b, b.len ? AG_SPAN(", ") : AG_SPAN(""));
            ag_buf_put(&b, ag_method_name((enum ag_method)m));
        }
    }
    value = ag_arena_copy(&ex->arena, ag_buf_span(&b));
    if (value.ptr) {
        (void)!ag_exchange_field(ex, AG_FIELD_ALLOW, value);
    }
    ag_admin_refuse(ex, 405, AG_SPAN("this method does nothing here"));
}

static void start(struct ag_exchange *ex)
{
    struct ag_admin *a = ag_container_of(ex->context, struct ag_admin, ctx);
    const struct ag_admin_endpoint *e;
    uint32_t methods;

    ex->limits = &limits;
    if (!admit(ex, a->ctx.snapshot->model)) {
        return;
    }
    e = find(ex->req.path, ex->req.method, &methods);
    if (e) {
        e->answer(a, ex);
    } else if (methods) {
        refuse_method(ex, methods);
    } else {
        ag_admin_refuse(ex, 404, AG_SPAN("there is no such endpoint"));
    }
}

static void resume(struct ag_exchange *ex, int verdict)
{
    (void)ex;
    (void)verdict;
    AG_UNREACHABLE("no filter waits here");
}

static void respond(struct ag_exchange *ex)
{
    ex->status = (uint16_t)ex->res.status;
    ex->head_sent = true;
    ex->server->send_head(ex);
}

static void abort_work(struct ag_exchange *ex, enum ag_reason why)
{
    (void)why;
    ag_admin_let_go(ex);
}

static void done(struct ag_exchange *ex)
{
    (void)ex;
}

static bool outlive(struct ag_exchange *ex)
{
    (void)ex;
    return true;
}

static const struct ag_pipeline_ops pipeline = {
    .start = start,
    .resume = resume,
    .respond = respond,
    .abort = abort_work,
    .done = done,
    .outlive = outlive,
};

enum ag_status ag_admin_init(struct ag_admin *a, struct ag_serving *serving,
                             void (*changed)(struct ag_downstreams *,
                                             struct ag_downstream_origin *))
{
    enum ag_status st;

    a->serving = serving;
    a->ctx = (struct ag_context){.loop = serving->ctx.loop,
                                 .pipeline = &pipeline,
                                 .shard_count = serving->ctx.shard_count,
                                 .shard_index = serving->ctx.shard_index};
    st = ag_downstreams_init(&a->down, &a->ctx, AG_ADMIN_CONNECTIONS);
    if (st == AG_OK) {
        a->down.changed = changed;
    }
    return st;
}

void ag_admin_deinit(struct ag_admin *a)
{
    ag_downstreams_deinit(&a->down);
}
