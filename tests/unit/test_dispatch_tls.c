/*
 * Goal: who may make a request over TLS, and where it has to go instead: each combination of what the config wants and
 * what the handshake has settled gets its one answer; HSTS goes with every answer over TLS, and none without.
 * Method: a table of them against the dispatcher, with a server that only keeps the answer's head.
 */
#include "engine/tls_chain.h"
#include "engine/tls_pem.h"
#include "router/snapshot.h"
#include "tests/unit/certs.h"

#if AG_WOLFSSL

/* ---- a server with a session ---- */

struct answer {
    unsigned status;
    char location[256], hsts[128];
    const char *detail;
    bool prepared;
};

static struct answer got;
static const struct ag_tls_session *session;

static void keep(const struct ag_exchange *ex, const char *name, char *out, size_t cap)
{
    const struct ag_field *f = ag_fields_find_name(&ex->res.fields, ag_span_str(name), NULL);

    (void)snprintf(out, cap, "%.*s", f ? (int)f->value_len : 0, f ? (const char *)f->value : "");
}

static void send_head(struct ag_exchange *ex)
{
    got.status = ex->res.status;
    got.detail = ex->detail;
    keep(ex, "location", got.location, sizeof(got.location));
    keep(ex, "strict-transport-security", got.hsts, sizeof(got.hsts));
}

static void send_prepared(struct ag_exchange *ex, const struct ag_prepared *p)
{
    (void)ex;
    got.status = p->status;
    got.prepared = true;
}

static const struct ag_tls_session *tls_of(struct ag_exchange *ex)
{
    (void)ex;
    return session;
}

static void nothing(struct ag_exchange *ex)
{
    (void)ex;
}

static const struct ag_server_ops ops = {
    .send_head = send_head, .send_prepared = send_prepared, .tls = tls_of, .want_body = nothing};

/* ---- a shard ---- */

static struct ag_loop loop;
static struct ag_context ctx;
static struct ag_block ref;
static struct ag_arena arena;
static struct ag_diags diags;
static struct ag_source source;
static char name[128];
static uint8_t mark[AG_TLS_MARK_BYTES]; /* of a.crt */

static void free_ref(struct ag_block *b)
{
    (void)b;
}

static void read_mark(const char *file)
{
    struct ag_span pem = certs_read(&arena, file), der;
    struct ag_pem block;

    cr_assert_eq(ag_pem_next(&pem, &block), AG_OK);
    cr_assert_eq(ag_pem_decode(&block, &arena, &der), AG_OK);
    cr_assert(ag_tls_authority_mark(der, mark));
}

static void open_site(const char *yaml)
{
    struct ag_loop_config config = {
        .backend = AG_BACKEND_EPOLL, .buf_count = {8, 8}, .node_count = 64, .page_count = 64};
    const char *why = "";

    folder_make();
    certs_self("a", CERTS_P256, "/CN=a", "-addext subjectAltName=DNS:a.example");
    certs_self("b", CERTS_P256, "/CN=a", "-addext subjectAltName=DNS:a.example");
    certs_run("cat b.crt a.crt > both.crt");
    cr_assert_eq(ag_loop_init(&loop, &config, &why), AG_OK, "%s", why);
    ag_arena_init(&arena, NULL, 0);
    ag_diags_init(&diags, &arena);
    (void)snprintf(name, sizeof(name), "%s/t.yml", folder);
    source = (struct ag_source){name, ag_span_str(yaml)};
    ref = (struct ag_block){.refs = 1, .free = free_ref, .fd = -1};
    ctx = (struct ag_context){.loop = &loop, .pipeline = &ag_dispatch, .snapshot_ref = &ref};
    ctx.snapshot =
        ag_snapshot_compile(&arena, ag_config_parse_yaml(&source, &diags), folder, NULL, &diags);
    cr_assert(ctx.snapshot, "%s", diags.first ? diags.first->what : "?");
    cr_assert_eq(ag_snapshot_open_tls(ctx.snapshot, 1, NULL, &diags), AG_OK);
    read_mark("a.crt");
}

static void close_site(void)
{
    ag_loop_turn(&loop, 0);
    cr_expect_eq(ctx.exchanges_live, 0);
    ag_block_release(&ref);
    ag_snapshot_free(ctx.snapshot);
    ag_arena_release(&arena);
    ag_loop_deinit(&loop);
    folder_remove();
}

struct request {
    uint16_t port;
    const char *host, *path, *query;
    const struct ag_tls_session *tls;
};

static void ask(const struct request *r)
{
    struct ag_exchange *ex = ag_exchange_new(&ctx, &ops, &got);

    cr_assert(ex);
    got = (struct answer){0};
    session = r->tls;
    ex->req.method_name = AG_SPAN("GET");
    ex->req.method = AG_METHOD_GET;
    ex->req.path = ag_span_str(r->path);
    ex->req.target = ex->req.path;
    ex->req.host = ag_span_str(r->host);
    ex->req.version = AG_HTTP_11;
    ex->req.tls = r->tls != NULL;
    if (r->query) {
        ex->req.has_query = true;
        ex->req.query = ag_span_str(r->query);
    }
    ex->listener_port = r->port;
    ex->limits_index = AG_LIMITS_OF_NOBODY;
    for (uint16_t i = 0; i < ctx.snapshot->model->listen_count; i++) {
        if (ctx.snapshot->model->listens[i].port == r->port) {
            ex->limits_index = ctx.snapshot->model->listens[i].limits.index;
            ex->redirect_port = ctx.snapshot->model->listens[i].limits.redirect_port;
        }
    }
    ag_dispatch.start(ex);
    cr_assert(ex->head_sent, "%s%s", r->host, r->path);
    ag_exchange_complete(ex);
    ag_loop_turn(&loop, 0);
}

/* ---- sessions ---- */

#    define SESSION(sni, cert, was_asked)                                                          \
        ((const struct ag_tls_session){.server_name = AG_SPAN(sni),                                \
                                       .version = "TLSv1.3",                                       \
                                       .client_cert = (cert),                                      \
                                       .client_mark = (cert) == AG_TLS_CLIENT_VALID ? mark : NULL, \
                                       .client_cert_asked = (was_asked)})

struct row {
    const char *host, *path;
    struct ag_tls_session tls;
    unsigned status;
};

static void check(uint16_t port, const struct row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct request r = {port, rows[i].host, rows[i].path, NULL,
                                  rows[i].tls.version ? &rows[i].tls : NULL};

        ask(&r);
        cr_expect_eq(got.status, rows[i].status, "%zu: %s%s: %u, not %u (%s)", i, rows[i].host,
                     rows[i].path, got.status, rows[i].status, got.detail ? got.detail : "");
    }
}

#    define PLAIN ((const struct ag_tls_session){.version = NULL})
#    define NONE  AG_TLS_CLIENT_NONE
#    define VALID AG_TLS_CLIENT_VALID
#    define BAD   AG_TLS_CLIENT_INVALID

Test(dispatch_tls, routes_that_want_certificates)
{
    const struct row rows[] = {
        /* required */
        {"s.example", "/must", SESSION("s.example", VALID, true), 200},
        {"S.Example.", "/must", SESSION("s.example", VALID, true), 200},
        {"s.example", "/must", SESSION("s.example", NONE, true), 403},
        {"s.example", "/must", SESSION("s.example", BAD, true), 403},
        {"s.example", "/must", SESSION("", NONE, true), 403},
        {"s.example", "/must", SESSION("", VALID, true), 200},
        {"s.example", "/must", SESSION("", NONE, false), 421},
        {"s.example", "/must", PLAIN, 403},
        /* the rule is newer than the connection */
        {"s.example", "/must", SESSION("s.example", NONE, false), 421},
        /* SNI and Host disagree */
        {"s.example", "/must", SESSION("p.example", VALID, true), 421},
        {"s.example", "/must", SESSION("p.example", NONE, false), 421},
        {"s.example", "/may", SESSION("p.example", NONE, false), 421},
        {"s.example", "/free", SESSION("p.example", NONE, false), 421},
        {"10.0.0.1", "/must", SESSION("s.example", VALID, true), 404},
        {"p.example", "/", SESSION("s.example", VALID, true), 200},
        {"p.example", "/", SESSION("s.example", NONE, true), 200},
        /* optional */
        {"s.example", "/may", SESSION("s.example", NONE, true), 200},
        {"s.example", "/may", SESSION("s.example", VALID, true), 200},
        {"s.example", "/may", SESSION("s.example", BAD, true), 403},
        {"s.example", "/may", PLAIN, 200},
        /* neither */
        {"s.example", "/free", SESSION("s.example", BAD, true), 200},
        {"s.example", "/free", SESSION("s.example", NONE, true), 200},
        {"p.example", "/", SESSION("p.example", NONE, false), 200},
        {"p.example", "/", SESSION("q.example", NONE, false), 200},
        /* wildcards */
        {"a.w.example", "/", SESSION("b.w.example", VALID, true), 421},
        {"a.w.example", "/", SESSION("a.w.example", VALID, true), 200},
        {"w.example", "/", SESSION("x.example", NONE, false), 404},
    };

    open_site("server: {listen: [':80', {address: ':443', tls: {certificates: {cert: a.crt, key: "
              "a.key}, client_auth: {ca: a.crt, mode: routes}}}]}\n"
              "routes:\n"
              "  \"s.example/must\": {action: OK, client_cert: required}\n"
              "  \"s.example/may\": {action: OK, client_cert: optional}\n"
              "  \"s.example/free\": OK\n"
              "  \"*.w.example/\": {action: OK, client_cert: required}\n"
              "  \"p.example/\": OK\n");
    check(443, rows, AG_COUNT(rows));
    close_site();
}

Test(dispatch_tls, the_reason_is_told)
{
    struct ag_tls_session bad = SESSION("s.example", BAD, true);
    const struct request r = {443, "s.example", "/", NULL, &bad};

    open_site("server: {listen: [{address: ':443', tls: {certificates: {cert: a.crt, key: "
              "a.key}, client_auth: {ca: a.crt, mode: routes}}}]}\n"
              "routes: {\"s.example/\": {action: OK, client_cert: required}}\n");
    bad.client_error = "certificate has expired";
    ask(&r);
    cr_expect_eq(got.status, 403);
    cr_expect_str_eq(got.detail, "certificate has expired");
    close_site();
}

Test(dispatch_tls, listeners_that_require_certificates)
{
    const struct row rows[] = {
        {"a.example", "/", SESSION("a.example", VALID, true), 200},
        {"a.example", "/", SESSION("a.example", NONE, true), 403},
        {"a.example", "/", SESSION("a.example", BAD, true), 403},
        {"a.example", "/", SESSION("a.example", NONE, false), 421},
        {"a.example", "/off", SESSION("a.example", NONE, true), 403},
        {"a.example", "/none", SESSION("a.example", NONE, true), 403},
        {"a.example", "/none", SESSION("a.example", VALID, true), 404},
        {"a.example", "/", SESSION("b.example", VALID, true), 421},
        {"a.example", "/", SESSION("", VALID, true), 200},
    };
    const struct row open[] = {{"a.example", "/", SESSION("a.example", NONE, false), 200}};
    struct ag_tls_session settled = SESSION("a.example", NONE, true);
    const struct request r = {9, "a.example", "/", NULL, &settled};

    open_site("server: {listen: [{address: ':443', tls: {client_auth: {ca: a.crt}}}, {address: "
              "':444', tls: true}]}\n"
              "tls: {certificates: {cert: a.crt, key: a.key}}\n"
              "routes: {/: OK, /off: {action: OK, client_cert: off}}\n");
    check(443, rows, AG_COUNT(rows));
    check(444, open, AG_COUNT(open));
    /* A listener that the configuration has no more, whose handshakes were to bring one. */
    settled.client_cert_required = true;
    ask(&r);
    cr_expect_eq(got.status, 403);
    close_site();
}

/* The configuration has another authority now, or none, than the handshake had. */
Test(dispatch_tls, an_authority_that_was_taken_away)
{
    const struct row rows[] = {
        {"s.example", "/must", SESSION("s.example", VALID, true), 421},
        {"s.example", "/may", SESSION("s.example", VALID, true), 421},
        {"s.example", "/", SESSION("s.example", VALID, true), 421},
        {"s.example", "/must", SESSION("s.example", BAD, true), 403},
        {"s.example", "/must", SESSION("s.example", NONE, true), 403},
        {"s.example", "/", SESSION("s.example", BAD, true), 200},
        {"s.example", "/", SESSION("s.example", NONE, true), 200},
    };
    const struct row both[] = {{"s.example", "/must", SESSION("s.example", VALID, true), 200}};
    /* Nobody is asked any more: who came with one is not worse off than who comes without. */
    const struct row gone[] = {{"s.example", "/must", SESSION("s.example", VALID, true), 421},
                               {"s.example", "/may", SESSION("s.example", VALID, true), 200},
                               {"s.example", "/", SESSION("s.example", VALID, true), 200}};

    open_site(
        "server: {listen: [{address: ':443', tls: {client_auth: {ca: b.crt, mode: optional}}}, "
        "{address: ':444', tls: {client_auth: {ca: both.crt, mode: optional}}}, "
        "{address: ':445', tls: true}]}\n"
        "tls: {certificates: {cert: a.crt, key: a.key}}\n"
        "routes:\n"
        "  \"/must\": {action: OK, client_cert: required}\n"
        "  \"/may\": {action: OK, client_cert: optional}\n"
        "  \"/\": OK\n");
    check(443, rows, AG_COUNT(rows));
    check(444, both, AG_COUNT(both));
    check(445, gone, AG_COUNT(gone));
    check(9, gone, AG_COUNT(gone));
    close_site();
}

Test(dispatch_tls, a_listener_that_only_asks)
{
    const struct row rows[] = {
        {"a.example", "/", SESSION("a.example", NONE, true), 200},
        {"a.example", "/", SESSION("a.example", BAD, true), 200},
        {"a.example", "/must", SESSION("a.example", BAD, true), 403},
        {"a.example", "/must", SESSION("a.example", VALID, true), 200},
    };

    open_site("server: {listen: [{address: ':443', tls: {client_auth: {ca: a.crt, mode: "
              "optional}}}]}\n"
              "tls: {certificates: {cert: a.crt, key: a.key}}\n"
              "routes: {/: OK, /must: {action: OK, client_cert: required}}\n");
    check(443, rows, AG_COUNT(rows));
    close_site();
}

Test(dispatch_tls, redirects_to_https)
{
    static const struct {
        uint16_t port;
        const char *host, *path, *query;
        unsigned status;
        const char *location;
    } rows[] = {
        {80, "a.example", "/", NULL, 308, "https://a.example/"},
        {80, "a.example", "/none/of", "x=1&y", 308, "https://a.example/none/of?x=1&y"},
        {81, "a.example", "/", "", 308, "https://a.example:8443/?"},
        {80, "[::1]", "/", NULL, 308, "https://[::1]/"},
        {80, "", "/", NULL, 400, ""},
        {80, "a.example", "*", NULL, 400, ""},
        {80, "a.example", "/.well-known/acme-challenge/x", NULL, 404, ""},
        {82, "a.example", "/", NULL, 200, ""},
    };

    open_site("server: {listen: [{address: ':80', redirect_https: 443}, {address: ':81', "
              "redirect_https: 8443}, ':82', {address: ':443', tls: {certificates: {cert: a.crt, "
              "key: a.key}}}]}\nroutes: {/: OK}\n");
    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        const struct request r = {rows[i].port, rows[i].host, rows[i].path, rows[i].query, NULL};

        ask(&r);
        cr_expect_eq(got.status, rows[i].status, "%zu: %u", i, got.status);
        cr_expect_str_eq(got.location, rows[i].location, "%zu: %s", i, got.location);
    }
    close_site();
}

Test(dispatch_tls, hsts_over_tls_alone)
{
    static const struct ag_tls_session tls = {.version = "TLSv1.3"};
    static const struct {
        const char *path;
        const struct ag_tls_session *tls;
        unsigned status;
        const char *hsts;
        bool prepared;
    } rows[] = {
        {"/", &tls, 200, "max-age=31536000", false},
        {"/own", &tls, 200, "max-age=60; includeSubDomains", false},
        {"/off", &tls, 200, "", true},
        {"/headers", &tls, 200, "max-age=31536000", false},
        {"/none", &tls, 404, "max-age=31536000", false},
        {"/", NULL, 200, "", true},
        {"/none", NULL, 404, "", false},
    };

    open_site("server: {listen: [':80', {address: ':443', tls: true}]}\n"
              "tls: {certificates: {cert: a.crt, key: a.key}, hsts: true}\n"
              "routes:\n"
              "  /: OK x\n"
              "  /own: {action: OK x, hsts: {max_age: 1m, include_subdomains: true}}\n"
              "  /off: {action: OK x, hsts: off}\n"
              "  /headers: {action: OK x, headers: {Strict-Transport-Security: max-age=1}}\n");
    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        const struct request r = {443, "a.example", rows[i].path, NULL, rows[i].tls};

        ask(&r);
        cr_expect_eq(got.status, rows[i].status, "%s: %u", rows[i].path, got.status);
        cr_expect_str_eq(got.hsts, rows[i].hsts, "%s: %s", rows[i].path, got.hsts);
        cr_expect_eq(got.prepared, rows[i].prepared, "%s", rows[i].path);
    }
    close_site();
}

#endif
