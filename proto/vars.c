#include "proto/vars.h"

#include "engine/foreign.h"

#include <arpa/inet.h>

enum var {
    VAR_TEXT,
    VAR_METHOD,
    VAR_PATH,
    VAR_QUERY,
    VAR_URI,
    VAR_HOST,
    VAR_PORT,
    VAR_SCHEME,
    VAR_PROTOCOL,
    VAR_STATUS,
    VAR_REMOTE_IP,
    VAR_REMOTE_PORT,
    VAR_SERVER_PORT,
    VAR_SPLAT,
    VAR_TRACE_ID,
    VAR_TLS_VERSION,
    VAR_TLS_CIPHER,
    VAR_TLS_SERVER_NAME,
    VAR_TLS_SUBJECT,
    VAR_TLS_FINGERPRINT,
    VAR_TLS_VERIFIED,
    VAR_PARAM, /* from here on with a name */
    VAR_HEADER,
    VAR_RESPONSE,
};

static const char *const plain_names[] = {
    [VAR_TEXT] = "",
    [VAR_METHOD] = "method",
    [VAR_PATH] = "path",
    [VAR_QUERY] = "query",
    [VAR_URI] = "uri",
    [VAR_HOST] = "host",
    [VAR_PORT] = "port",
    [VAR_SCHEME] = "scheme",
    [VAR_PROTOCOL] = "protocol",
    [VAR_STATUS] = "status",
    [VAR_REMOTE_IP] = "remote.ip",
    [VAR_REMOTE_PORT] = "remote.port",
    [VAR_SERVER_PORT] = "server.port",
    [VAR_SPLAT] = "splat",
    [VAR_TRACE_ID] = "trace_id",
    [VAR_TLS_VERSION] = "tls.version",
    [VAR_TLS_CIPHER] = "tls.cipher",
    [VAR_TLS_SERVER_NAME] = "tls.server_name",
    [VAR_TLS_SUBJECT] = "tls.client.subject",
    [VAR_TLS_FINGERPRINT] = "tls.client.fingerprint",
    [VAR_TLS_VERIFIED] = "tls.client.verified",
};

static const struct prefix {
    enum var var;
    struct ag_span text;
} prefixes[] = {
    {VAR_PARAM, AG_SPAN_INIT("param.")},
    {VAR_HEADER, AG_SPAN_INIT("header.")},
    {VAR_RESPONSE, AG_SPAN_INIT("response.")},
};

struct part {
    enum var var;
    enum ag_field_id id; /* HEADER, RESPONSE */
    struct ag_span text; /* TEXT: itself; else the name */
};

struct ag_vars {
    uint32_t count;
    struct part v[];
};

/* ---- compiling ---- */

static bool find_prefixed(struct ag_span name, struct part *out)
{
    for (size_t i = 0; i < AG_COUNT(prefixes); i++) {
        const struct prefix *p = &prefixes[i];

        if (ag_span_starts(name, p->text) && name.len > p->text.len) {
            out->var = p->var;
            out->text = ag_span_sub(name, p->text.len, name.len);
            out->id = ag_field_id_from_name(out->text);
            return ag_is_token(out->text);
        }
    }
    return false;
}

static bool find_var(struct ag_span name, struct part *out)
{
    for (size_t i = VAR_METHOD; i < AG_COUNT(plain_names); i++) {
        if (ag_span_eq(name, ag_span_str(plain_names[i]))) {
            *out = (struct part){.var = (enum var)i};
            return true;
        }
    }
    return find_prefixed(name, out);
}

static enum ag_status add_var(struct ag_diags *diags, struct ag_pos pos, struct ag_span name,
                              struct part *out)
{
    const char *hint;

    if (find_var(name, out)) {
        return AG_OK;
    }
    hint =
        ag_diag_nearest(diags, name, plain_names + VAR_METHOD, AG_COUNT(plain_names) - VAR_METHOD);
    ag_diag_error(
        diags, pos, hint ? hint : "such as {remote.ip}, {param.NAME}, {header.NAME}; {{ is a brace",
        "there is no variable {%.*s}", (int)ag_min_size(name.len, 60), (const char *)name.ptr);
    return AG_EINVAL;
}

/* What begins at `at`: text up to a brace, one literal brace, or a variable. Moves `at` on. */
static enum ag_status next_part(struct ag_diags *diags, struct ag_pos pos, struct ag_span text,
                                size_t *at, struct part *out)
{
    size_t from = *at, end;
    struct ag_span rest = ag_span_sub(text, from, text.len);

    *out = (struct part){.var = VAR_TEXT};
    if (rest.ptr[0] != '{') {
        out->text = ag_span_sub(rest, 0, ag_span_find(rest, '{'));
        *at += out->text.len;
        return AG_OK;
    }
    if (rest.len > 1 && rest.ptr[1] == '{') {
        out->text = ag_span_sub(rest, 0, 1);
        *at += 2;
        return AG_OK;
    }
    end = ag_span_find(rest, '}');
    if (end == rest.len) {
        ag_diag_error(diags, ag_pos_at(pos, from), "close it with }, or write {{ for a brace",
                      "the variable is not closed");
        return AG_EINVAL;
    }
    *at += end + 1;
    return add_var(diags, ag_pos_at(pos, from), ag_span_sub(rest, 1, end), out);
}

const struct ag_vars *ag_vars_compile(struct ag_arena *arena, struct ag_diags *diags,
                                      struct ag_pos pos, struct ag_span text)
{
    size_t parts = 1;
    struct ag_vars *v;

    ag_foreign_warn(diags, pos, text, NULL);
    for (size_t i = 0; i < text.len; i++) {
        parts += text.ptr[i] == '{' ? 2 : 0;
    }
    v = ag_arena_alloc(arena, sizeof(*v) + parts * sizeof(v->v[0]));
    v->count = 0;
    for (size_t at = 0; at < text.len;) {
        AG_ASSERT(v->count < parts);
        if (next_part(diags, pos, text, &at, &v->v[v->count++]) != AG_OK) {
            return NULL;
        }
    }
    return v;
}

const struct ag_vars *ag_vars_copy(struct ag_arena *arena, const struct ag_vars *v)
{
    struct ag_vars *copy = ag_arena_alloc(arena, sizeof(*v) + v->count * sizeof(v->v[0]));

    if (!copy) {
        return NULL;
    }
    copy->count = v->count;
    for (uint32_t i = 0; i < v->count; i++) {
        copy->v[i] = v->v[i];
        copy->v[i].text = ag_arena_copy(arena, v->v[i].text);
        if (!copy->v[i].text.ptr) {
            return NULL;
        }
    }
    return copy;
}

bool ag_vars_literal(const struct ag_vars *v, struct ag_span *out)
{
    if (v->count > 1 || (v->count == 1 && v->v[0].var != VAR_TEXT)) {
        return false;
    }
    *out = v->count ? v->v[0].text : AG_SPAN("");
    return true;
}

/* ---- expanding ---- */

/* Values come from clients and upstreams: what could end a field is left out. */
static void put_clean(struct ag_buf *out, struct ag_span s)
{
    size_t from = 0;

    for (size_t i = 0; i < s.len; i++) {
        if ((s.ptr[i] < 0x20 && s.ptr[i] != '\t') || s.ptr[i] == 0x7f) {
            ag_buf_put(out, ag_span_sub(s, from, i));
            from = i + 1;
        }
    }
    ag_buf_put(out, ag_span_sub(s, from, s.len));
}

static void put_param(struct ag_buf *out, const struct ag_exchange *ex, struct ag_span name,
                      bool splat)
{
    for (unsigned i = 0; i < ex->param_count; i++) {
        if (splat ? ex->params[i].splat : ag_span_eq(ex->params[i].name, name)) {
            put_clean(out, ag_exchange_param(ex, i));
            return;
        }
    }
}

static void put_field(struct ag_buf *out, const struct ag_fields *fields, const struct part *p)
{
    const struct ag_field *f = p->id == AG_FIELD_OTHER ? ag_fields_find_name(fields, p->text, NULL)
                                                       : ag_fields_find(fields, p->id, NULL);

    if (f) {
        put_clean(out, ag_field_value(f));
    }
}

static void put_remote(struct ag_buf *out, const struct ag_exchange *ex, bool port)
{
    /* The address is asked for once and kept: not a change that anyone sees. */
    const union ag_addr *a = ag_exchange_remote((struct ag_exchange *)(uintptr_t)ex);
    char text[INET6_ADDRSTRLEN];
    const void *ip;

    if (!a || (a->sa.sa_family != AF_INET && a->sa.sa_family != AF_INET6)) {
        return;
    }
    if (port) {
        ag_buf_put_u64(out, ntohs(a->sa.sa_family == AF_INET ? a->in.sin_port : a->in6.sin6_port));
        return;
    }
    ip = a->sa.sa_family == AF_INET ? (const void *)&a->in.sin_addr : &a->in6.sin6_addr;
    if (inet_ntop(a->sa.sa_family, ip, text, sizeof(text))) {
        ag_buf_put(out, ag_span_str(text));
    }
}

/* The trace's id of W3C Trace Context: version "-" 32 hex digits "-" ... */
static void put_trace_id(struct ag_buf *out, const struct ag_exchange *ex)
{
    const struct ag_field *f = ag_fields_find_name(&ex->req.fields, AG_SPAN("traceparent"), NULL);
    struct ag_span v = f ? ag_field_value(f) : AG_SPAN("");

    if (v.len < 55 || v.ptr[2] != '-' || v.ptr[35] != '-') {
        return;
    }
    for (size_t i = 3; i < 35; i++) {
        bool digit = v.ptr[i] >= '0' && v.ptr[i] <= '9';

        if (!digit && !(v.ptr[i] >= 'a' && v.ptr[i] <= 'f')) {
            return;
        }
    }
    ag_buf_put(out, ag_span_sub(v, 3, 35));
}

static struct ag_span protocol_of(const struct ag_request *r)
{
    switch ((enum ag_http_version)r->version) {
    case AG_HTTP_10:
        return AG_SPAN("HTTP/1.0");
    case AG_HTTP_11:
        return AG_SPAN("HTTP/1.1");
    case AG_HTTP_2:
        return AG_SPAN("HTTP/2.0");
    }
    return AG_SPAN("");
}

static void put_uri(struct ag_buf *out, const struct ag_request *r)
{
    put_clean(out, r->path);
    if (r->has_query) {
        ag_buf_putc(out, '?');
        put_clean(out, r->query);
    }
}

/* The port of the authority, else what the scheme implies. */
static uint64_t port_of(const struct ag_request *r)
{
    if (r->port) {
        return r->port;
    }
    return r->tls ? 443 : 80;
}

static struct ag_span text_of(const char *s)
{
    return s ? ag_span_str(s) : AG_SPAN("");
}

static struct ag_span verified_of(const struct ag_tls_session *t)
{
    switch ((enum ag_tls_client_cert)t->client_cert) {
    case AG_TLS_CLIENT_VALID:
        return AG_SPAN("valid");
    case AG_TLS_CLIENT_INVALID:
        return AG_SPAN("invalid");
    case AG_TLS_CLIENT_NONE:
        break;
    }
    return AG_SPAN("none");
}

/* Nothing for a plain connection. */
static void put_tls(struct ag_buf *out, const struct ag_exchange *ex, enum var var)
{
    const struct ag_tls_session *t = ag_exchange_tls(ex);

    if (!t) {
        return;
    }
    put_clean(out, var == VAR_TLS_VERSION       ? text_of(t->version)
                   : var == VAR_TLS_CIPHER      ? text_of(t->cipher)
                   : var == VAR_TLS_SERVER_NAME ? t->server_name
                   : var == VAR_TLS_SUBJECT     ? t->client_subject
                   : var == VAR_TLS_FINGERPRINT ? t->client_sha256
                                                : verified_of(t));
}

static void put_part(struct ag_buf *out, const struct ag_exchange *ex, const struct part *p)
{
    const struct ag_request *r = &ex->req;

    switch (p->var) {
    case VAR_TEXT:
        put_clean(out, p->text);
        break;
    case VAR_METHOD:
        put_clean(out, r->method_name);
        break;
    case VAR_PATH:
        put_clean(out, r->path);
        break;
    case VAR_QUERY:
        put_clean(out, r->query);
        break;
    case VAR_URI:
        put_uri(out, r);
        break;
    case VAR_HOST:
        put_clean(out, r->host);
        break;
    case VAR_PORT:
        ag_buf_put_u64(out, port_of(r));
        break;
    case VAR_SCHEME:
        ag_buf_put(out, r->tls ? AG_SPAN("https") : AG_SPAN("http"));
        break;
    case VAR_PROTOCOL:
        ag_buf_put(out, protocol_of(r));
        break;
    case VAR_STATUS:
        ag_buf_put_u64(out, ex->status);
        break;
    case VAR_REMOTE_IP:
    case VAR_REMOTE_PORT:
        put_remote(out, ex, p->var == VAR_REMOTE_PORT);
        break;
    case VAR_SERVER_PORT:
        ag_buf_put_u64(out, ex->listener_port);
        break;
    case VAR_TRACE_ID:
        put_trace_id(out, ex);
        break;
    case VAR_TLS_VERSION:
    case VAR_TLS_CIPHER:
    case VAR_TLS_SERVER_NAME:
    case VAR_TLS_SUBJECT:
    case VAR_TLS_FINGERPRINT:
    case VAR_TLS_VERIFIED:
        put_tls(out, ex, p->var);
        break;
    case VAR_SPLAT:
    case VAR_PARAM:
        put_param(out, ex, p->text, p->var == VAR_SPLAT);
        break;
    case VAR_HEADER:
        put_field(out, &r->fields, p);
        break;
    case VAR_RESPONSE:
        put_field(out, &ex->res.fields, p);
        break;
    }
}

void ag_vars_expand(const struct ag_vars *v, const struct ag_exchange *ex, struct ag_buf *out)
{
    for (uint32_t i = 0; i < v->count; i++) {
        put_part(out, ex, &v->v[i]);
    }
}
