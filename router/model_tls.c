/*
 * TLS as the config has it: the section `tls`, and what a listener's own map says over it.
 *
 *   section --read--> draft --copied for each TLS listener, its map over it--> settings
 */
#include "engine/tls_info.h"
#include "engine/tls_tickets.h"
#include "router/model_impl.h"

#include <errno.h>

#define HANDSHAKE_MAX_MS UINT64_C(600000)
#define SESSIONS_MAX     UINT64_C(10000000)
#define DEPTH_MAX        8u
#define ROTATE_MIN_MS    UINT64_C(1000)
#define ROTATE_MAX_MS    (UINT64_C(7) * 24 * 3600000) /* RFC 8446 section 4.6.1: seven days */
#define HSTS_DEFAULT_S   UINT64_C(31536000)
#define HSTS_MAX_S       UINT64_C(3153600000)
#define CERTIFICATES_MAX 4096u

static const char *const profiles[] = {[AG_TLS_INTERMEDIATE] = "intermediate",
                                       [AG_TLS_MODERN] = "modern",
                                       [AG_TLS_FIPS_LIKE] = "fips-like"};

const char *ag_tls_profile_name(enum ag_tls_profile profile)
{
    return profiles[profile];
}

/* A listener's settings under way. */
struct draft {
    struct ag_tls_server_settings settings;
    const struct ag_tls_identity **identities; /* CERTIFICATES_MAX, in use up to identity_count */
    bool no_certificates; /* nothing was said of them, or all of it was wrong */
};

struct reader {
    struct ag_tls_files *files;
    struct ag_diags *diags;
    struct ag_arena *arena;
};

/* ---- words ---- */

/* `off` or false, `on` or true; else -1. */
static int switch_of(const struct ag_node *n)
{
    if (n->kind != AG_NODE_SCALAR || n->quoted) {
        return -1;
    }
    if (ag_span_eq(n->text, AG_SPAN("off")) || ag_span_eq(n->text, AG_SPAN("false"))) {
        return 0;
    }
    return ag_span_eq(n->text, AG_SPAN("on")) || ag_span_eq(n->text, AG_SPAN("true")) ? 1 : -1;
}

static bool is_there(const struct ag_node *n)
{
    return n && n->kind != AG_NODE_NULL;
}

static bool read_ms(const struct ag_node *n, struct ag_diags *diags, uint64_t min, uint64_t max,
                    const char *range, uint64_t *io)
{
    uint64_t ms = 0;

    if (!ag_node_duration(n, diags, &ms)) {
        return false;
    }
    if (ms < min || ms > max) {
        ag_diag_error(diags, n->pos, range, "%.*s is out of range", (int)n->key.len,
                      (const char *)n->key.ptr);
        return false;
    }
    *io = ms;
    return true;
}

static const char *path_at(struct reader *r, const struct ag_node *n)
{
    struct ag_span text;

    if (!ag_node_text(n, r->diags, &text)) {
        return NULL;
    }
    if (text.len == 0 || memchr(text.ptr, 0, text.len)) {
        ag_diag_error(r->diags, n->pos, NULL, "expected the path of a file");
        return NULL;
    }
    return ag_node_path(r->arena, n, text);
}

/* ---- certificates ---- */

static void add_identity(struct reader *r, struct draft *d, struct ag_pos pos,
                         const struct ag_tls_file *file)
{
    if (!file) {
        return; /* told */
    }
    for (uint32_t i = 0; i < d->settings.identity_count; i++) {
        if (d->identities[i] == file->identity) {
            return;
        }
    }
    if (d->settings.identity_count == CERTIFICATES_MAX) {
        ag_diag_error(r->diags, pos, NULL, "more than %u certificates", CERTIFICATES_MAX);
        return;
    }
    d->identities[d->settings.identity_count++] = file->identity;
}

static void add_list(struct reader *r, struct draft *d, struct ag_pos pos, const char *pattern)
{
    struct ag_span paths;

    if (!ag_tls_files_list(r->files, pos, pattern, &paths)) {
        return;
    }
    for (size_t at = 0; at < paths.len;) {
        const char *path = (const char *)paths.ptr + at;

        add_identity(
            r, d, pos,
            ag_tls_files_identity(r->files, pos, path, ag_tls_files_key_beside(r->files, path)));
        at += strlen(path) + 1;
    }
}

static void read_pair(struct reader *r, struct draft *d, const struct ag_node *n)
{
    static const char *const keys[] = {"cert", "key"};
    const struct ag_node *cert = ag_node_get(n, "cert"), *key = ag_node_get(n, "key");
    const char *path, *key_path = NULL;

    (void)ag_node_check_keys(n, r->diags, "a certificate", keys, AG_COUNT(keys));
    if (!is_there(cert)) {
        ag_diag_error(r->diags, n->pos, "{cert: FILE, key: FILE}", "a certificate needs a file");
        return;
    }
    path = path_at(r, cert);
    if (key) {
        key_path = path_at(r, key);
    }
    if (!path || (key && !key_path)) {
        return;
    }
    add_identity(r, d, cert->pos,
                 key_path ? ag_tls_files_pair(r->files, cert->pos, path, key->pos, key_path)
                          : ag_tls_files_identity(r->files, cert->pos, path,
                                                  ag_tls_files_key_beside(r->files, path)));
}

static void read_certificate(struct reader *r, struct draft *d, const struct ag_node *n)
{
    const char *path;

    if (n->kind == AG_NODE_MAP) {
        read_pair(r, d, n);
        return;
    }
    if (n->kind != AG_NODE_SCALAR) {
        ag_diag_error(r->diags, n->pos, "a file, a folder, or {cert: FILE, key: FILE}",
                      "expected a certificate");
        return;
    }
    path = path_at(r, n);
    if (path && ag_tls_files_is_list(r->files, path)) {
        add_list(r, d, n->pos, path);
    } else if (path) {
        add_identity(
            r, d, n->pos,
            ag_tls_files_identity(r->files, n->pos, path, ag_tls_files_key_beside(r->files, path)));
    }
}

static void read_certificates(struct reader *r, struct draft *d, const struct ag_node *n)
{
    if (!n) {
        return;
    }
    d->identities = ag_arena_alloc(r->arena, CERTIFICATES_MAX * sizeof(struct ag_tls_identity *));
    d->settings.identity_count = 0;
    if (n->kind == AG_NODE_SCALAR || n->kind == AG_NODE_MAP) {
        read_certificate(r, d, n);
    } else {
        for (const struct ag_node *c = n->first; c; c = c->next) {
            read_certificate(r, d, c);
        }
    }
    d->no_certificates = d->settings.identity_count == 0;
    d->settings.identities = d->identities;
}

/* ---- client certificates ---- */

static void read_client_auth(struct reader *r, struct draft *d, const struct ag_node *n)
{
    static const char *const keys[] = {"ca", "mode", "depth"};
    static const char *const modes[] = {"routes", "optional", "required"};
    static const uint8_t kinds[] = {AG_TLS_CLIENTS_BY_NAME, AG_TLS_CLIENTS_ASKED,
                                    AG_TLS_CLIENTS_REQUIRED};
    struct ag_tls_server_settings *s = &d->settings;
    const struct ag_node *ca = ag_node_get(n, "ca");
    const struct ag_tls_file *file = NULL;
    unsigned mode = 2;
    uint64_t depth = 2;

    if (!n) {
        return;
    }
    s->client_auth = AG_TLS_CLIENTS_UNASKED;
    s->client_ca = AG_SPAN("");
    if (switch_of(n) == 0 ||
        !ag_node_check_keys(n, r->diags, "client_auth", keys, AG_COUNT(keys))) {
        return;
    }
    (void)ag_node_enum(ag_node_get(n, "mode"), r->diags, modes, AG_COUNT(modes), &mode);
    (void)ag_node_u64(ag_node_get(n, "depth"), r->diags, 0, DEPTH_MAX, &depth);
    if (!is_there(ca)) {
        ag_diag_error(r->diags, n->pos, "client_auth: {ca: FILE}",
                      "client_auth needs the authorities that sign the clients' certificates");
        return;
    }
    const char *path = path_at(r, ca);
    file = path ? ag_tls_files_ca(r->files, ca->pos, path) : NULL;
    if (file && file->authority_count == 0) {
        ag_diag_warn(r->diags, ca->pos, "name the certificate that signs the clients'",
                     "%s holds no authority: who has one of its very certificates is let in, and "
                     "nobody else",
                     path);
    }
    if (file) {
        s->client_ca = file->ca;
        s->client_auth = kinds[mode];
        s->client_depth = (uint8_t)depth;
    }
}

/* ---- the settings ---- */

#define SETTING_KEYS                                                            \
    "profile", "certificates", "strict_sni", "h2", "session_cache", "stapling", \
        "handshake_timeout", "client_auth"

static void read_settings(struct reader *r, struct draft *d, const struct ag_node *n)
{
    static const char *const staplings[] = {"off", "auto"};
    struct ag_tls_server_settings *s = &d->settings;
    unsigned profile = s->profile, stapling = s->stapling;
    uint64_t ms = s->handshake_ms, sessions = s->session_cache;

    (void)ag_node_enum(ag_node_get(n, "profile"), r->diags, profiles, AG_COUNT(profiles), &profile);
    s->profile = (enum ag_tls_profile)profile;
    read_certificates(r, d, ag_node_get(n, "certificates"));
    (void)ag_node_bool(ag_node_get(n, "strict_sni"), r->diags, &s->strict_sni);
    (void)ag_node_bool(ag_node_get(n, "h2"), r->diags, &s->h2);
    (void)ag_node_u64(ag_node_get(n, "session_cache"), r->diags, 0, SESSIONS_MAX, &sessions);
    s->session_cache = (uint32_t)sessions;
    (void)ag_node_enum(ag_node_get(n, "stapling"), r->diags, staplings, AG_COUNT(staplings),
                       &stapling);
    s->stapling = stapling != 0 && ag_tls_info_is_ours();
    if (is_there(ag_node_get(n, "stapling")) && stapling != 0 && !s->stapling) {
        ag_diag_warn(r->diags, ag_node_get(n, "stapling")->pos,
                     "build with WOLFSSL=source, which is the default",
                     "no responses are stapled: this build has the distribution's wolfSSL, which "
                     "loses memory with each of them");
    }
    (void)read_ms(ag_node_get(n, "handshake_timeout"), r->diags, 1, HANDSHAKE_MAX_MS,
                  "use 1ms to 10m", &ms);
    s->handshake_ms = (uint32_t)ms;
    read_client_auth(r, d, ag_node_get(n, "client_auth"));
}

/* ---- tickets ---- */

/* A warning: without it sessions begin anew after a restart, and all else is served. */
static void look_for_folder(struct reader *r, const struct ag_node *n, const char *path)
{
    const char *slash = path ? strrchr(path, '/') : NULL, *folder = ".";
    struct ag_answer a;

    if (!path) {
        return; /* told */
    }
    if (slash) {
        folder = ag_arena_printf(r->arena, "%.*s", (int)(slash - path) + (slash == path), path);
    }
    ag_opener_look(r->files->opener, folder, &a);
    if (a.error != 0 || a.kind != AG_FILE_DIR) {
        ag_diag_warn(r->diags, n->pos, "make the folder", "ticket keys cannot be kept in %s: %s",
                     path, strerrordesc_np(a.error != 0 ? a.error : ENOTDIR));
    }
}

static void read_tickets(struct reader *r, const struct ag_node *n, struct ag_ticket_settings *io)
{
    static const char *const keys[] = {"rotate", "keep", "file"};
    uint64_t keep = io->keep;

    if (!is_there(n)) {
        return;
    }
    if (switch_of(n) >= 0) {
        io->on = switch_of(n) == 1;
        return;
    }
    if (!ag_node_check_keys(n, r->diags, "tls.tickets", keys, AG_COUNT(keys))) {
        return;
    }
    (void)read_ms(ag_node_get(n, "rotate"), r->diags, ROTATE_MIN_MS, ROTATE_MAX_MS, "use 1s to 7d",
                  &io->rotate_ms);
    (void)ag_node_u64(ag_node_get(n, "keep"), r->diags, 1, AG_TLS_TICKETS_KEEP_MAX, &keep);
    io->keep = (uint32_t)keep;
    if (ag_node_get(n, "file")) {
        io->file = path_at(r, ag_node_get(n, "file"));
        look_for_folder(r, ag_node_get(n, "file"), io->file);
    }
}

/* A warning: the filter lets no file be made once it stands, and a worker's master has none. */
static void look_for_filter(const struct reader *r, const struct ag_model *m,
                            const struct ag_node *file)
{
    if (m->tickets.file && m->seccomp == AG_CONFINE_ON && !m->user) {
        ag_diag_warn(
            r->diags, file->pos, "server.user leaves that to a process without the filter",
            "ticket keys are written at the start alone: without user, seccomp: on refuses to make files");
    }
}

/* A listener says whether it gives tickets; the keys are the whole process's. */
static void read_own_tickets(struct reader *r, const struct ag_node *n, bool *io)
{
    if (n && switch_of(n) < 0) {
        ag_diag_error(r->diags, n->pos, "rotate, keep and file belong to the section tls",
                      "a listener's tickets are on or off");
    } else if (n) {
        *io = switch_of(n) == 1;
    }
}

/* ---- hsts, client_cert ---- */

static void check_preload(const struct ag_node *n, struct ag_diags *diags, bool sub, uint64_t age_s)
{
    if (!sub || age_s < HSTS_DEFAULT_S) {
        ag_diag_warn(diags, n->pos,
                     "hsts: {max_age: 365d, include_subdomains: true, preload: true}",
                     "browsers' preload lists want include_subdomains and a max_age of a year");
    }
}

bool ag_model_hsts(const struct ag_node *owner, struct ag_diags *diags, struct ag_span *out)
{
    static const char *const keys[] = {"max_age", "include_subdomains", "preload"};
    const struct ag_node *n = ag_node_get(owner, "hsts");
    bool sub = false, preload = false;
    uint64_t ms = HSTS_DEFAULT_S * 1000;
    uint32_t errors = diags->errors;

    if (!n) {
        return false;
    }
    if (switch_of(n) == 0) {
        *out = AG_SPAN("");
        return true;
    }
    if (switch_of(n) < 0) {
        if (!ag_node_check_keys(n, diags, "hsts", keys, AG_COUNT(keys))) {
            return false;
        }
        (void)read_ms(ag_node_get(n, "max_age"), diags, 0, HSTS_MAX_S * 1000, "use 0 to 36500d",
                      &ms);
        (void)ag_node_bool(ag_node_get(n, "include_subdomains"), diags, &sub);
        (void)ag_node_bool(ag_node_get(n, "preload"), diags, &preload);
    }
    if (diags->errors != errors) {
        return false;
    }
    if (preload) {
        check_preload(n, diags, sub, ms / 1000);
    }
    *out = ag_span_str(
        ag_arena_printf(diags->arena, "max-age=%llu%s%s", (unsigned long long)(ms / 1000),
                        sub ? "; includeSubDomains" : "", preload ? "; preload" : ""));
    return true;
}

bool ag_model_client_cert(const struct ag_node *owner, struct ag_diags *diags,
                          enum ag_client_cert *out)
{
    static const char *const words[] = {"off", "optional", "required"};
    unsigned index = 0;

    if (!ag_node_enum(ag_node_get(owner, "client_cert"), diags, words, AG_COUNT(words), &index)) {
        return false;
    }
    *out = (enum ag_client_cert)(AG_CLIENT_CERT_OFF + index);
    return true;
}

/* ---- listeners ---- */

static void read_listener(struct reader *r, struct ag_listen *l, const struct draft *base)
{
    static const char *const keys[] = {SETTING_KEYS, "tickets"};
    const struct ag_node *n = ag_node_get(l->node, "tls");
    struct draft d = *base;

    if (!n || switch_of(n) == 0) {
        return;
    }
    if (switch_of(n) < 0) {
        if (n->kind != AG_NODE_MAP && n->kind != AG_NODE_NULL) {
            ag_diag_error(r->diags, n->pos,
                          "tls: true, or a map of what differs from the section tls",
                          "expected what TLS is to be here");
            return;
        }
        (void)ag_node_check_keys(n, r->diags, "a listener's tls", keys, AG_COUNT(keys));
        read_settings(r, &d, n);
        read_own_tickets(r, ag_node_get(n, "tickets"), &d.settings.tickets);
    }
    if (d.no_certificates) {
        if (r->diags->errors == 0) {
            ag_diag_error(r->diags, n->key_pos, "tls: {certificates: [{cert: FILE, key: FILE}]}",
                          "a listener with TLS needs a certificate");
        }
        return;
    }
    l->tls = ag_arena_alloc(r->arena, sizeof(*l->tls));
    *l->tls = d.settings;
}

/* Where https is: at 443 when that is served, else at the first listener with TLS. */
static uint16_t https_port(const struct ag_model *m)
{
    uint16_t first = 0;

    for (uint16_t i = 0; i < m->listen_count; i++) {
        if (m->listens[i].tls && m->listens[i].port == 443) {
            return 443;
        }
        if (m->listens[i].tls && first == 0) {
            first = m->listens[i].port;
        }
    }
    return first ? first : 443;
}

static bool has_tls(const struct ag_model *m)
{
    bool any = false;

    for (uint16_t i = 0; i < m->listen_count; i++) {
        any |= m->listens[i].tls != NULL;
    }
    return any;
}

static void read_redirect(struct reader *r, struct ag_model *m, struct ag_listen *l)
{
    const struct ag_node *n = ag_node_get(l->node, "redirect_https");
    uint64_t port = 0;

    if (!n || switch_of(n) == 0) {
        return;
    }
    if (switch_of(n) == 1) {
        port = https_port(m);
        if (!has_tls(m) && r->diags->errors == 0) {
            ag_diag_warn(r->diags, n->pos, "give one tls: true; or say where https is: 443",
                         "no listener speaks TLS: requests are sent to port 443 all the same");
        }
    } else if (n->kind != AG_NODE_SCALAR || ag_span_u64(n->text, &port) != AG_OK) {
        ag_diag_error(r->diags, n->pos, "true, or the port of https",
                      "redirect_https: expected true, false or a port");
        return;
    } else if (!ag_node_u64(n, r->diags, 1, UINT16_MAX, &port)) {
        return;
    }
    if (l->tls) {
        ag_diag_error(r->diags, n->key_pos, "give it to the plain listener, such as :80",
                      "a listener with TLS cannot redirect to https");
        return;
    }
    l->limits.redirect_port = (uint16_t)port;
}

/* Each entry of server.listen once; ":8443" has become two listeners. */
static bool is_same_entry(const struct ag_model *m, const struct ag_listen *l)
{
    return l > m->listens && l->node && l->node == l[-1].node;
}

static void settle_kinds(struct ag_model *m)
{
    m->route_limit_count = 0;
    for (uint16_t i = 0; i < m->listen_count; i++) {
        struct ag_listen *l = &m->listens[i];
        struct ag_listen_kind kind = {.listener = i};

        if (l->admin) {
            continue; /* whose requests are not dispatched */
        }
        kind.certs_asked = l->tls && l->tls->client_auth != AG_TLS_CLIENTS_UNASKED;
        kind.client_ca = l->tls ? l->tls->client_ca : ag_span(NULL, 0);
        kind.certs_required = l->tls && l->tls->client_auth == AG_TLS_CLIENTS_REQUIRED;
        l->limits.index = ag_model_listen_kind(m, &l->limits.route, &kind);
    }
    if (m->listen_count == 0) { /* with mistakes in them */
        (void)ag_model_listen_kind(m, &m->limits.route, &(struct ag_listen_kind){0});
    }
}

void ag_model_read_tls(struct ag_model *m, const struct ag_node *root, struct ag_tls_files *files)
{
    static const char *const keys[] = {SETTING_KEYS, "tickets", "hsts"};
    const struct ag_node *n = ag_node_get(root, "tls");
    struct reader r = {files, files->diags, files->arena};
    struct draft base = {.settings = {.h2 = true,
                                      .stapling = ag_tls_info_is_ours(),
                                      .handshake_ms = 10000,
                                      .session_cache = 20000},
                         .no_certificates = true};

    m->tickets = (struct ag_ticket_settings){.on = true, .rotate_ms = 12 * 3600000u, .keep = 3};
    if (is_there(n) && ag_node_check_keys(n, r.diags, "tls", keys, AG_COUNT(keys))) {
        read_settings(&r, &base, n);
        read_tickets(&r, ag_node_get(n, "tickets"), &m->tickets);
        look_for_filter(&r, m, ag_node_get(ag_node_get(n, "tickets"), "file"));
        (void)ag_model_hsts(n, r.diags, &m->hsts);
    }
    base.settings.tickets = m->tickets.on;
    for (uint16_t i = 0; i < m->listen_count; i++) {
        if (is_same_entry(m, &m->listens[i])) {
            m->listens[i].tls = m->listens[i - 1].tls;
        } else {
            read_listener(&r, &m->listens[i], &base);
        }
    }
    for (uint16_t i = 0; i < m->listen_count; i++) {
        if (is_same_entry(m, &m->listens[i])) {
            m->listens[i].limits.redirect_port = m->listens[i - 1].limits.redirect_port;
        } else {
            read_redirect(&r, m, &m->listens[i]);
        }
    }
    if (is_there(ag_node_get(n, "certificates")) && !has_tls(m) && r.diags->errors == 0) {
        ag_diag_warn(r.diags, ag_node_get(n, "certificates")->key_pos,
                     "server: {listen: [{address: ':443', tls: true}]}",
                     "the certificates are shown to nobody: no listener speaks TLS");
    }
    settle_kinds(m);
}
