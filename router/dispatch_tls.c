#include "router/dispatch_tls.h"

static const struct ag_listen_kind *kind_of(const struct ag_exchange *ex,
                                            const struct ag_snapshot *s)
{
    static const struct ag_listen_kind none;

    /* A listener that this snapshot has no more: what its handshakes have settled still holds, but that a certificate
     * is good for a route that requires one: who vouches for that now cannot be said. */
    return ex->limits_index < s->model->route_limit_count
               ? &s->model->listen_kinds[ex->limits_index]
               : &none;
}

/* ---- to https ---- */

/* Certificate authorities ask for these over plain HTTP (RFC 8555 section 8.3). */
static bool is_challenge(const struct ag_exchange *ex)
{
    return ag_span_starts(ex->req.path, AG_SPAN("/.well-known/acme-challenge/"));
}

static void redirect(struct ag_exchange *ex, uint16_t port)
{
    const struct ag_request *r = &ex->req;
    size_t cap = sizeof("https://:65535?") + r->host.len + r->path.len + r->query.len;
    struct ag_buf b = ag_buf(ag_arena_alloc(&ex->arena, cap), cap);

    if (r->host.len == 0 || r->path.len == 0 || r->path.ptr[0] != '/') {
        ag_exchange_fail(ex, 400, AG_REASON_NONE,
                         "only https is served here, and no host is named");
        return;
    }
    if (!b.ptr) {
        ag_exchange_fail(ex, 503, AG_REASON_RESOURCES, "out of memory for the answer");
        return;
    }
    ag_buf_put(&b, AG_SPAN("https://"));
    ag_buf_put(&b, r->host);
    if (port != 443) {
        ag_buf_putc(&b, ':');
        ag_buf_put_u64(&b, port);
    }
    ag_buf_put(&b, r->path);
    if (r->has_query) {
        ag_buf_putc(&b, '?');
        ag_buf_put(&b, r->query);
    }
    AG_ASSERT(!b.overflow);
    ex->res.status = 308;
    ex->res.framing = AG_FRAMING_LENGTH;
    ex->res.content_length = 0;
    if (ag_exchange_field(ex, AG_FIELD_LOCATION, ag_buf_span(&b)) != AG_OK) {
        ag_exchange_fail(ex, 503, AG_REASON_RESOURCES, "out of memory for the answer");
        return;
    }
    ag_body_end(&ex->res_body, NULL);
    ag_exchange_respond(ex);
}

/* ---- client certificates ---- */

static bool is_address(struct ag_span host)
{
    bool digits = host.len > 0;

    for (size_t i = 0; i < host.len; i++) {
        digits = digits && (host.ptr[i] == '.' || (host.ptr[i] >= '0' && host.ptr[i] <= '9'));
    }
    return digits || (host.len > 0 && host.ptr[0] == '[');
}

static struct ag_span without_dot(struct ag_span host)
{
    return host.len > 1 && host.ptr[host.len - 1] == '.' ? ag_span_sub(host, 0, host.len - 1)
                                                         : host;
}

/* The handshake was for another name than the request is: what it asked for says nothing of this one. Addresses are
 * never in SNI (RFC 6066 section 3). */
static bool names_differ(const struct ag_exchange *ex, const struct ag_tls_session *t)
{
    if (t->server_name.len == 0) {
        return false;
    }
    return is_address(ex->req.host) ||
           !ag_span_ieq(without_dot(ex->req.host), without_dot(t->server_name));
}

static bool is_cert_host(const struct ag_tls_hosts *hosts, struct ag_span host)
{
    for (uint32_t i = 0; i < hosts->count; i++) {
        struct ag_span p = hosts->v[i];

        if (p.len == 0 || ag_span_ieq(p, host)) {
            return true;
        }
        if (p.ptr[0] == '*' && host.len >= p.len &&
            ag_span_ieq(ag_span_sub(p, 1, p.len),
                        ag_span_sub(host, host.len - (p.len - 1), host.len))) {
            return true;
        }
    }
    return false;
}

/* False: refused. */
static bool admit(struct ag_exchange *ex, const struct ag_tls_session *t, bool required, bool asks)
{
    if (!t) {
        if (required) {
            ag_exchange_fail(ex, 403, AG_REASON_NONE,
                             "a client certificate is required: use https");
        }
        return !required;
    }
    if (t->client_cert == AG_TLS_CLIENT_VALID) {
        return true;
    }
    if (t->client_cert == AG_TLS_CLIENT_INVALID) {
        ag_exchange_fail(ex, 403, AG_REASON_NONE,
                         t->client_error ? t->client_error : "the client certificate is not valid");
        return false;
    }
    if (required && !t->client_cert_asked && asks) {
        /* The connection is older than the rule: on a new one the client will be asked. */
        ag_exchange_fail(ex, 421, AG_REASON_NONE,
                         "client certificates are asked for on a new connection");
        return false;
    }
    if (required) {
        ag_exchange_fail(ex, 403, AG_REASON_NONE, "a client certificate is required");
    }
    return !required;
}

/* Its authority is among those of now, or nobody is asked any more (or the listener is gone): then it is good for what
 * requires none. */
static bool is_good_still(const struct ag_tls_session *t, const struct ag_listen_kind *kind,
                          const struct ag_snapshot *s)
{
    return t->client_cert != AG_TLS_CLIENT_VALID || kind->client_ca.len == 0 ||
           ag_tls_server_takes(s->tls[kind->listener], t->client_mark);
}

bool ag_dispatch_tls_listener(struct ag_exchange *ex, const struct ag_snapshot *s)
{
    const struct ag_listen_kind *kind = kind_of(ex, s);
    const struct ag_tls_session *t;

    if (!ex->req.tls) {
        if (ex->redirect_port && !is_challenge(ex)) {
            redirect(ex, ex->redirect_port);
            return false;
        }
        return true;
    }
    t = ag_exchange_tls(ex);
    if (t && !is_good_still(t, kind, s)) {
        /* The connection is older than the rule: on a new one the certificate is judged again. */
        ag_exchange_fail(ex, 421, AG_REASON_NONE,
                         "the client certificate's authority is taken no longer");
        return false;
    }
    if (!t || !(kind->certs_required || t->client_cert_required)) {
        return true;
    }
    if (names_differ(ex, t)) {
        ag_exchange_fail(ex, 421, AG_REASON_NONE, "the connection is for another host");
        return false;
    }
    return admit(ex, t, true, kind->certs_asked);
}

bool ag_dispatch_tls_route(struct ag_exchange *ex, const struct ag_snapshot *s)
{
    enum ag_client_cert want = ex->route->client_cert;
    const struct ag_tls_session *t;

    if (ex->req.tls) {
        ex->hsts = ex->route->hsts;
    }
    if (s->cert_hosts.count == 0) {
        return true;
    }
    t = ag_exchange_tls(ex);
    if (t && (want >= AG_CLIENT_CERT_OPTIONAL || is_cert_host(&s->cert_hosts, ex->req.host)) &&
        names_differ(ex, t)) {
        ag_exchange_fail(ex, 421, AG_REASON_NONE, "the connection is for another host");
        return false;
    }
    if (t && want == AG_CLIENT_CERT_REQUIRED && t->client_cert == AG_TLS_CLIENT_VALID &&
        kind_of(ex, s)->client_ca.len == 0) {
        ag_exchange_fail(ex, 421, AG_REASON_NONE, "client certificates are taken no longer");
        return false;
    }
    return want < AG_CLIENT_CERT_OPTIONAL ||
           admit(ex, t, want == AG_CLIENT_CERT_REQUIRED, kind_of(ex, s)->certs_asked);
}

/* ---- HSTS ---- */

/* This side's policy is the only one: the first of several would count (RFC 6797 section 8.1). */
void ag_dispatch_tls_head(struct ag_exchange *ex)
{
    struct ag_span name = AG_SPAN("Strict-Transport-Security");
    struct ag_field *f = NULL;

    if (ex->hsts.len == 0) {
        return;
    }
    while ((f = ag_fields_find_name(&ex->res.fields, name, f)) != NULL) {
        f->removed = true;
    }
    (void)!ag_fields_add(&ex->res.fields, &ex->arena, AG_FIELD_OTHER, name, ex->hsts);
}
