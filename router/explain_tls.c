/* Listeners with TLS, for people. */
#include "router/explain_text.h"

#define NAMES_SHOWN 4u

static bool is_first_of_entry(const struct ag_model *m, uint16_t i)
{
    return i == 0 || m->listens[i].tls != m->listens[i - 1].tls;
}

static const struct ag_tls_file *file_of(const struct ag_snapshot *s,
                                         const struct ag_tls_identity *id)
{
    for (const struct ag_tls_file *f = s->tls_files->first; f; f = f->next) {
        if (f->identity == id) {
            return f;
        }
    }
    AG_UNREACHABLE("identities come from files");
}

/* ---- the report ---- */

static const char *key_name(const struct ag_tls_identity *id)
{
    static const char *const names[AG_TLS_KEY_KINDS] = {
        [AG_TLS_KEY_RSA] = "RSA", [AG_TLS_KEY_ECDSA] = "ECDSA", [AG_TLS_KEY_ED25519] = "Ed25519"};

    return names[id->kind];
}

static void put_identity(const struct ag_snapshot *s, const struct ag_tls_identity *id,
                         struct ag_buf *out)
{
    ag_buf_put(out, AG_SPAN("  "));
    for (uint32_t i = 0; i < id->name_count && i < NAMES_SHOWN; i++) {
        ag_buf_put(out, i ? AG_SPAN(", ") : AG_SPAN(""));
        ag_buf_put(out, id->names[i]);
    }
    if (id->name_count == 0) {
        ag_buf_put(out, id->subject);
    }
    if (id->name_count > NAMES_SHOWN) {
        ag_buf_printf(out, ", %u more", id->name_count - NAMES_SHOWN);
    }
    ag_buf_printf(out, ": %s", key_name(id));
    if (id->kind != AG_TLS_KEY_ED25519) {
        ag_buf_printf(out, " %u", id->key_bits);
    }
    ag_buf_put(out, AG_SPAN(", until "));
    ag_tls_put_date(id->not_after_s, out);
    ag_buf_put(out, id->self_signed ? AG_SPAN(", self-signed") : AG_SPAN(""));
    ag_buf_put(out, id->must_staple ? AG_SPAN(", must-staple") : AG_SPAN(""));
    ag_buf_printf(out, ", %s\n", file_of(s, id)->path);
}

static void put_clients(const struct ag_tls_server_settings *t, struct ag_buf *out)
{
    switch ((enum ag_tls_client_auth)t->client_auth) {
    case AG_TLS_CLIENTS_UNASKED:
        return;
    case AG_TLS_CLIENTS_BY_NAME:
        ag_buf_put(out, AG_SPAN("  client certificates: asked for at "));
        for (uint32_t i = 0; i < t->ask_name_count; i++) {
            ag_buf_put(out, i ? AG_SPAN(", ") : AG_SPAN(""));
            ag_buf_put(out, t->ask_names[i].len ? t->ask_names[i] : AG_SPAN("any host"));
        }
        ag_buf_put(out, t->ask_name_count ? AG_SPAN("\n") : AG_SPAN("no host\n"));
        return;
    case AG_TLS_CLIENTS_ASKED:
        ag_buf_put(out, AG_SPAN("  client certificates: optional\n"));
        return;
    case AG_TLS_CLIENTS_REQUIRED:
        ag_buf_put(out, AG_SPAN("  client certificates: required\n"));
        return;
    }
}

static void put_listener(const struct ag_snapshot *s, const struct ag_listen *l, struct ag_buf *out)
{
    const struct ag_tls_server_settings *t = l->tls;
    bool all_asked = t->client_auth >= AG_TLS_CLIENTS_ASKED; /* who is asked gets none */

    ag_buf_put(out, AG_SPAN("TLS on "));
    ag_buf_put(out, l->text);
    ag_buf_printf(out, "\n  %s: %s, %s, %s%s\n", ag_tls_profile_name(t->profile),
                  t->profile == AG_TLS_MODERN ? "TLS 1.3" : "TLS 1.2 and 1.3",
                  t->h2 ? "HTTP/2 and HTTP/1.1" : "HTTP/1.1",
                  t->tickets && !all_asked ? "tickets" : "no tickets",
                  t->strict_sni ? ", strict SNI" : "");
    for (uint32_t i = 0; i < t->identity_count; i++) {
        put_identity(s, t->identities[i], out);
    }
    put_clients(t, out);
}

void ag_explain_tls(const struct ag_snapshot *s, struct ag_buf *out)
{
    const struct ag_model *m = s->model;

    for (uint16_t i = 0; i < m->listen_count; i++) {
        const struct ag_listen *l = &m->listens[i];

        if (l->tls && is_first_of_entry(m, i)) {
            put_listener(s, l, out);
        } else if (l->limits.redirect_port && (i == 0 || l->node != m->listens[i - 1].node)) {
            ag_buf_put(out, l->text);
            ag_buf_printf(out, "\n  redirects to https at port %u\n", l->limits.redirect_port);
        }
    }
}

/* ---- warnings ---- */

/* A host of routes stands for what clients put into SNI; "*.x" for one label more. */
static bool covers_host(const struct ag_tls_identity *id, struct ag_span host)
{
    uint8_t room[260];
    struct ag_buf b = ag_buf(room, sizeof(room));

    if (host.ptr[0] != '*') {
        return ag_tls_identity_covers(id, host);
    }
    ag_buf_putc(&b, 'w');
    ag_buf_put(&b, ag_span_sub(host, 1, host.len));
    return ag_tls_identity_covers(id, ag_buf_span(&b));
}

static bool covers_any_route(const struct ag_snapshot *s, const struct ag_listen *l,
                             const struct ag_tls_identity *id)
{
    for (uint32_t i = 0; i < s->declared_count; i++) {
        const struct ag_pattern *p = &s->routes[i].pattern;

        if ((p->port == 0 || p->port == l->port) &&
            (p->host.len == 0 || covers_host(id, p->host))) {
            return true;
        }
    }
    return false;
}

/* The one before it that has all its names and the same kind of key. */
static const struct ag_tls_identity *covered_by(const struct ag_tls_server_settings *t, uint32_t at)
{
    const struct ag_tls_identity *id = t->identities[at];

    for (uint32_t i = 0; i < at && id->name_count; i++) {
        bool all = t->identities[i]->kind == id->kind;

        for (uint32_t k = 0; all && k < id->name_count; k++) {
            struct ag_span name = id->names[k];
            all = name.ptr[0] == '*' ? covers_host(t->identities[i], name)
                                     : ag_tls_identity_covers(t->identities[i], name);
        }
        if (all) {
            return t->identities[i];
        }
    }
    return NULL;
}

/* Where it stands among a listener's; -1: nowhere. */
static int64_t place_of(const struct ag_tls_identity *id, const struct ag_listen *l)
{
    for (uint32_t i = 0; l->tls && i < l->tls->identity_count; i++) {
        if (l->tls->identities[i] == id) {
            return i;
        }
    }
    return -1;
}

/* At the first listener that has it. */
static bool is_told(const struct ag_snapshot *s, const struct ag_listen *l,
                    const struct ag_tls_identity *id)
{
    const struct ag_listen *before = s->model->listens;

    while (before < l && place_of(id, before) < 0) {
        before++;
    }
    return before < l;
}

/* At some listener it is the one that is shown for a route's host. */
static bool is_of_use(const struct ag_snapshot *s, const struct ag_tls_identity *id)
{
    for (uint16_t i = 0; i < s->model->listen_count; i++) {
        const struct ag_listen *l = &s->model->listens[i];
        int64_t at = place_of(id, l);

        if (at >= 0 && !covered_by(l->tls, (uint32_t)at) && covers_any_route(s, l, id)) {
            return true;
        }
    }
    return false;
}

static void warn_identity(const struct ag_snapshot *s, const struct ag_listen *l, uint32_t at,
                          struct ag_diags *diags)
{
    const struct ag_tls_identity *id = l->tls->identities[at], *by = covered_by(l->tls, at);
    const struct ag_tls_file *file = file_of(s, id);

    if (is_told(s, l, id)) {
        return;
    }
    if (id->self_signed) {
        ag_diag_warn(diags, file->pos, "for a test that may do",
                     "%s: the certificate is self-signed: clients do not trust it", file->path);
    }
    if (id->no_alt_names) {
        ag_diag_warn(diags, file->pos, "make it with a subjectAltName",
                     "%s: the certificate has no subjectAltName: clients find no name in it",
                     file->path);
    }
    if (!id->for_servers) {
        ag_diag_warn(diags, file->pos, "it needs serverAuth among its extended key usages",
                     "%s: the certificate is not meant for servers", file->path);
    }
    if (is_of_use(s, id)) {
        return;
    }
    if (by) {
        ag_diag_warn(diags, file->pos, "remove one of them",
                     "%s: never used: %s has the same names", file->path, file_of(s, by)->path);
    } else {
        ag_diag_warn(diags, file->pos, NULL, "%s: no route has a host that is among its names",
                     file->path);
    }
}

static bool host_is_covered(const struct ag_snapshot *s, const struct ag_pattern *p)
{
    for (uint16_t i = 0; i < s->model->listen_count; i++) {
        const struct ag_listen *l = &s->model->listens[i];

        if (l->admin || (p->port != 0 && p->port != l->port)) {
            continue;
        }
        if (!l->tls) {
            return true; /* it can be asked for there */
        }
        for (uint32_t k = 0; k < l->tls->identity_count; k++) {
            if (covers_host(l->tls->identities[k], p->host)) {
                return true;
            }
        }
    }
    return false;
}

static void warn_host(const struct ag_snapshot *s, uint32_t route, struct ag_diags *diags)
{
    const struct ag_pattern *p = &s->routes[route].pattern;

    if (p->host.len == 0 || host_is_covered(s, p)) {
        return;
    }
    for (uint32_t i = 0; i < route; i++) {
        if (ag_span_eq(s->routes[i].pattern.host, p->host)) {
            return; /* told */
        }
    }
    ag_diag_warn(diags, p->pos, "add one to tls.certificates", "no certificate is for %.*s",
                 (int)p->host.len, (const char *)p->host.ptr);
}

void ag_explain_tls_warnings(const struct ag_snapshot *s, struct ag_diags *diags)
{
    const struct ag_model *m = s->model;
    bool any = false;

    for (uint16_t i = 0; i < m->listen_count; i++) {
        const struct ag_listen *l = &m->listens[i];

        if (!l->tls || !is_first_of_entry(m, i)) {
            continue;
        }
        any = true;
        for (uint32_t k = 0; k < l->tls->identity_count; k++) {
            warn_identity(s, l, k, diags);
        }
        if (l->tls->client_auth == AG_TLS_CLIENTS_BY_NAME && l->tls->ask_name_count == 0) {
            ag_diag_warn(diags, l->pos, "client_cert: required, in a route or a group",
                         "no route wants client certificates: nobody is asked for one here");
        }
    }
    for (uint32_t i = 0; any && i < s->declared_count; i++) {
        warn_host(s, i, diags);
    }
}
