/*
 * Goal: the config's TLS becomes the settings that it says, of each listener its own; mistakes are met where they
 * stand; who asks for client certificates where follows from the routes.
 * Method: configs in YAML through the real reader, with certificates in a folder of the test's own.
 */
#include "engine/tls_settings.h"

#include "router/explain.h"
#include "router/snapshot.h"
#include "tests/unit/certs.h"

#if AG_WOLFSSL

struct load {
    struct ag_arena arena;
    struct ag_diags diags;
    struct ag_source source;
    struct ag_snapshot *s;
    const char *text; /* of all diagnoses */
    char name[128];
    char yaml[8192];
    uint32_t errors;
};

static void setup(void)
{
    folder_make();
    certs_self("a", CERTS_P256, "/CN=a",
               "-addext subjectAltName=DNS:a.example,DNS:*.b.example -addext "
               "extendedKeyUsage=serverAuth");
    certs_self("r", "rsa:2048", "/CN=a", "-addext subjectAltName=DNS:a.example");
    certs_run("cat a.crt a.key >both.pem; chmod 600 *.key both.pem");
}

TestSuite(model_tls, .init = setup, .fini = folder_remove);

static const char *tell(struct load *l)
{
    char *text = ag_arena_printf(&l->diags.arena[0], "%s", "");

    for (const struct ag_diag *d = l->diags.first; d; d = d->next) {
        text = ag_arena_printf(l->diags.arena, "%s%u:%u %s; %s\n", text, d->pos.line, d->pos.col,
                               d->what, d->hint ? d->hint : "");
    }
    return text;
}

static struct load *load(const char *yaml)
{
    struct load *l = calloc(1, sizeof(*l));
    const struct ag_node *root;

    AG_ASSERT(l);
    ag_arena_init(&l->arena, NULL, 0);
    ag_diags_init(&l->diags, &l->arena);
    (void)snprintf(l->name, sizeof(l->name), "%s/t.yml", folder);
    (void)snprintf(l->yaml, sizeof(l->yaml), "%s", yaml);
    l->source = (struct ag_source){l->name, ag_span_str(l->yaml)};
    root = ag_config_parse_yaml(&l->source, &l->diags);
    cr_assert(root);
    l->s = ag_snapshot_compile(&l->arena, root, folder, NULL, &l->diags);
    l->errors = l->diags.errors;
    l->text = tell(l);
    return l;
}

static struct load *good(const char *yaml)
{
    struct load *l = load(yaml);

    cr_assert(l->s, "%s", l->text);
    return l;
}

static void unload(struct load *l)
{
    ag_snapshot_free(l->s);
    ag_arena_release(&l->arena);
    free(l);
}

static const struct ag_tls_server_settings *listener(const struct load *l, uint16_t port)
{
    for (uint16_t i = 0; i < l->s->model->listen_count; i++) {
        if (l->s->model->listens[i].port == port) {
            return l->s->model->listens[i].tls;
        }
    }
    cr_assert_fail("no listener at %u", port);
    return NULL;
}

Test(model_tls, defaults)
{
    struct load *l = good("server: {listen: [':80', {address: ':443', tls: true}]}\n"
                          "tls: {certificates: {cert: a.crt, key: a.key}}\n");
    const struct ag_tls_server_settings *t = listener(l, 443);

    cr_assert_null(listener(l, 80));
    cr_assert_not_null(t);
    cr_expect_eq(t->profile, AG_TLS_INTERMEDIATE);
    cr_expect_eq(t->identity_count, 1);
    cr_expect(t->h2 && t->tickets && t->stapling && !t->strict_sni);
    cr_expect_eq(t->client_auth, AG_TLS_CLIENTS_UNASKED);
    cr_expect_eq(t->handshake_ms, 10000);
    cr_expect_eq(t->session_cache, 20000);
    cr_expect_eq(l->s->model->tickets.rotate_ms, 12 * 3600000);
    cr_expect_eq(l->s->model->tickets.keep, 3);
    cr_expect_null(l->s->model->tickets.file);
    unload(l);
}

Test(model_tls, a_listener_overrides)
{
    struct load *l = good("server:\n"
                          "  listen:\n"
                          "    - {address: ':1', tls: true}\n"
                          "    - {address: ':2', tls: {profile: modern, h2: true, tickets: false, "
                          "certificates: [r.crt]}}\n"
                          "    - {address: ':3', tls: false}\n"
                          "tls:\n"
                          "  profile: fips-like\n"
                          "  certificates: [both.pem, {cert: r.crt, key: r.key}]\n"
                          "  strict_sni: true\n"
                          "  h2: false\n"
                          "  tickets: {rotate: 1h, keep: 5, file: keys}\n"
                          "  session_cache: 0\n"
                          "  stapling: off\n"
                          "  handshake_timeout: 3s\n");
    const struct ag_tls_server_settings *one = listener(l, 1), *two = listener(l, 2);

    cr_assert(one && two && !listener(l, 3));
    cr_expect(one->profile == AG_TLS_FIPS_LIKE && two->profile == AG_TLS_MODERN);
    cr_expect_eq(one->identity_count, 2);
    cr_expect_eq(one->identities[0]->kind, AG_TLS_KEY_ECDSA);
    cr_expect_eq(two->identity_count, 1);
    cr_expect(two->identities[0] == one->identities[1], "read once");
    cr_expect(one->strict_sni && two->strict_sni && !one->h2 && two->h2);
    cr_expect(one->tickets && !two->tickets);
    cr_expect(!one->stapling && one->session_cache == 0 && one->handshake_ms == 3000);
    cr_expect_eq(l->s->model->tickets.keep, 5);
    cr_expect_eq(l->s->model->tickets.rotate_ms, 3600000);
    cr_expect_str_eq(l->s->model->tickets.file + strlen(folder), "/keys");
    unload(l);
}

Test(model_tls, the_filter_keeps_keys_from_their_file)
{
    static const struct {
        const char *server;
        bool told;
    } rows[] = {
        {"seccomp: 'on'", true},
        {"seccomp: 'on', user: nobody", false},
        {"seccomp: log", false},
        {"seccomp: auto", false},
    };

    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        char yaml[200];

        (void)snprintf(yaml, sizeof(yaml),
                       "server: {listen: {address: ':1', tls: {certificates: both.pem}}, %s}\n"
                       "tls: {tickets: {file: keys}}\n",
                       rows[i].server);
        struct load *l = good(yaml);
        cr_expect(!strstr(l->text, "at the start alone") == !rows[i].told, "%s", l->text);
        unload(l);
    }
}

Test(model_tls, folders_and_patterns)
{
    certs_run("mkdir d && cp a.crt d/x.crt && cp a.key d/x.key && cat r.crt r.key >d/y.pem && echo "
              "no >d/README && chmod 600 d/*");
    struct load *l = good("server: {listen: [{address: ':1', tls: {certificates: d}}, {address: "
                          "':2', tls: {certificates: 'd/*.pem'}}]}\n");

    cr_expect_eq(listener(l, 1)->identity_count, 2);
    cr_expect_eq(listener(l, 2)->identity_count, 1);
    cr_expect_eq(listener(l, 2)->identities[0]->kind, AG_TLS_KEY_RSA);
    unload(l);
}

/* Equal settings share tickets: whatever differs must show in the key. */
Test(model_tls, keys_tell_settings_apart)
{
    static const char *const variants[] = {
        "",
        "profile: modern",
        "certificates: r.crt",
        "certificates: [both.pem, r.crt]",
        "strict_sni: true",
        "h2: false",
        "tickets: false",
        "session_cache: 5",
        "stapling: off",
        "handshake_timeout: 1s",
        "client_auth: {ca: a.crt}",
        "client_auth: {ca: r.crt}",
        "client_auth: {ca: a.crt, depth: 1}",
        "client_auth: {ca: a.crt, mode: optional}",
        "client_auth: {ca: a.crt, mode: routes}",
    };
    uint8_t keys[AG_COUNT(variants)][16];

    for (size_t i = 0; i < AG_COUNT(variants); i++) {
        char yaml[512];

        (void)snprintf(
            yaml, sizeof(yaml),
            "server: {listen: {address: ':1', tls: {%s}}}\ntls: {certificates: both.pem}\n",
            variants[i]);
        struct load *l = good(yaml), *again = good(yaml);
        memcpy(keys[i], listener(l, 1)->key, 16);
        cr_expect_arr_eq(keys[i], listener(again, 1)->key, 16, "%s", variants[i]);
        for (size_t k = 0; k < i; k++) {
            cr_expect_neq(memcmp(keys[i], keys[k], 16), 0, "%s and %s", variants[i], variants[k]);
        }
        unload(l);
        unload(again);
    }
}

/* ---- client certificates ---- */

static const char mtls[] =
    "server: {listen: [{address: ':1', tls: true}]}\n"
    "tls: {certificates: both.pem, client_auth: {ca: a.crt, mode: routes}}\n";

static const char *asked(const struct load *l)
{
    static char text[256];
    const struct ag_tls_server_settings *t = listener(l, 1);
    size_t n = 0;

    text[0] = 0;
    for (uint32_t i = 0; i < t->ask_name_count; i++) {
        n += (size_t)snprintf(text + n, sizeof(text) - n, "%.*s;", (int)t->ask_names[i].len,
                              (const char *)t->ask_names[i].ptr);
    }
    return text;
}

static const struct ag_route *route(const struct load *l, const char *host, const char *path)
{
    struct ag_trie_query q = {.host = ag_span_str(host),
                              .port = 1,
                              .path = ag_span_str(path),
                              .method = AG_METHOD_GET,
                              .method_name = AG_SPAN("GET")};

    return ag_snapshot_find(l->s, &q);
}

Test(model_tls, routes_say_where_clients_are_asked)
{
    char yaml[2048];

    (void)snprintf(yaml, sizeof(yaml), "%s%s", mtls,
                   "groups:\n"
                   "  - {match: 'g.example/in/*', client_cert: required}\n"
                   "  - {match: 'g.example/in/open/*', client_cert: off}\n"
                   "routes:\n"
                   "  \"a.example/\": {action: OK, client_cert: optional}\n"
                   "  \"a.example/x\": {action: OK, client_cert: required}\n"
                   "  \"*.w.example/\": {action: OK, client_cert: required}\n"
                   "  \"other.example/\": OK\n"
                   "  \"p.example:2/\": {action: OK, client_cert: required}\n"
                   "  \"p.example:1/\": OK\n"
                   "  \"g.example/*\": OK\n"
                   "  \"/in/own\": {action: OK, client_cert: off}\n");
    /* port 2 needs a listener of its own that asks */
    char *at = strstr(yaml, "tls: true}]");
    memmove(at + strlen("tls: true}, {address: ':2', tls: true}]"), at + strlen("tls: true}]"),
            strlen(at + strlen("tls: true}]")) + 1);
    memcpy(at, "tls: true}, {address: ':2', tls: true}]",
           strlen("tls: true}, {address: ':2', tls: true}]"));
    struct load *l = good(yaml);

    cr_expect_str_eq(asked(l), "a.example;*.w.example;g.example;", "%s", asked(l));
    cr_expect_eq(l->s->cert_hosts.count, 4);
    cr_expect_eq(route(l, "g.example", "/in/x")->client_cert, AG_CLIENT_CERT_REQUIRED);
    cr_expect_eq(route(l, "g.example", "/in/open/x")->client_cert, AG_CLIENT_CERT_OFF);
    cr_expect_eq(route(l, "g.example", "/out")->client_cert, AG_CLIENT_CERT_UNSAID);
    cr_expect_eq(route(l, "h.example", "/in/own")->client_cert, AG_CLIENT_CERT_OFF);
    unload(l);
}

Test(model_tls, a_route_without_host_asks_everybody)
{
    char yaml[1024];

    (void)snprintf(yaml, sizeof(yaml), "%s%s", mtls,
                   "routes: {'/x': {action: OK, client_cert: required}}\n");
    struct load *l = good(yaml);
    cr_expect_str_eq(asked(l), ";");
    unload(l);
}

/* ---- redirects, HSTS ---- */

Test(model_tls, redirects)
{
    struct load *l = good("server: {listen: [{address: ':80', redirect_https: true}, {address: "
                          "':81', redirect_https: 8443}, {address: ':9443', tls: true}, ':82']}\n"
                          "tls: {certificates: both.pem}\n");
    const struct ag_model *m = l->s->model;

    for (uint16_t i = 0; i < m->listen_count; i++) {
        uint16_t port = m->listens[i].port;
        uint16_t want = port == 80 ? 9443 : port == 81 ? 8443 : 0;

        cr_expect_eq(m->listens[i].limits.redirect_port, want, "%u", port);
    }
    unload(l);
}

Test(model_tls, a_redirect_to_what_is_not_served)
{
    struct load *l = good("server: {listen: {address: ':80', redirect_https: true}}\n");
    cr_expect_not_null(strstr(l->text, "no listener speaks TLS"), "%s", l->text);
    unload(l);
    l = good("server: {listen: {address: ':80', redirect_https: 443}}\n");
    cr_expect_null(strstr(l->text, "no listener speaks TLS"), "%s", l->text);
    unload(l);
}

Test(model_tls, strict_transport_security)
{
    struct load *l = good(
        "tls: {hsts: true}\n"
        "groups: [{match: '/g/*', hsts: {max_age: 1h}}]\n"
        "routes:\n"
        "  /d: OK\n"
        "  /off: {action: OK, hsts: off}\n"
        "  /g/x: OK\n"
        "  /g/y: {action: OK, hsts: {max_age: 730d, include_subdomains: true, preload: true}}\n");
    static const struct {
        const char *path, *want;
    } rows[] = {{"/d", "max-age=31536000"},
                {"/off", ""},
                {"/g/x", "max-age=3600"},
                {"/g/y", "max-age=63072000; includeSubDomains; preload"}};

    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        struct ag_span is = route(l, "", rows[i].path)->hsts;
        cr_expect(ag_span_eq(is, ag_span_str(rows[i].want)), "%s: %.*s", rows[i].path, (int)is.len,
                  (const char *)is.ptr);
    }
    unload(l);
}

/* ---- mistakes ---- */

Test(model_tls, mistakes)
{
    static const struct {
        const char *yaml;
        uint32_t line, col;
        const char *what;
    } rows[] = {
        {"server: {listen: {address: ':1', tls: true}}", 1, 34, "needs a certificate"},
        {"server: {listen: {address: ':1', tls: maybe}}", 1, 39, "expected what TLS is"},
        {"server: {listen: {address: ':1', tls: {tickets: {rotate: 1h}, certificates: both.pem}}}",
         1, 49, "on or off"},
        {"server: {listen: {address: ':1', tls: {hsts: true, certificates: both.pem}}}", 1, 40,
         "unknown key \"hsts\""},
        {"server: {listen: {address: ':1', redirect_https: true, tls: {certificates: both.pem}}}",
         1, 34, "cannot redirect"},
        {"server: {listen: {address: ':1', redirect_https: 0}}", 1, 50, "redirect_https"},
        {"server: {listen: {address: ':1', redirect_https: yes}}", 1, 50,
         "expected true, false or a port"},
        {"tls: {profle: modern}", 1, 7, "unknown key \"profle\""},
        {"tls: {profile: old}", 1, 16, "profile: expected one"},
        {"tls: {certificates: none.pem}", 1, 21, "cannot read"},
        {"tls: {certificates: [[a]]}", 1, 22, "expected a certificate"},
        {"tls: {certificates: {key: a.key}}", 1, 21, "needs a file"},
        {"tls: {certificates: {cert: a.crt, key: r.key}}", 1, 28, "not the certificate's"},
        {"tls: {certificates: {cert: a.key}}", 1, 28, "no certificate"},
        {"tls: {certificates: 'x*.pem'}", 1, 21, "there is no certificate at"},
        {"tls: {session_cache: -1}", 1, 22, "session_cache"},
        {"tls: {stapling: on}", 1, 17, "stapling"},
        {"tls: {handshake_timeout: 1h}", 1, 26, "out of range"},
        {"tls: {tickets: {rotate: 8d}}", 1, 25, "out of range"},
        {"tls: {tickets: {keep: 0}}", 1, 23, "keep"},
        {"tls: {tickets: {kep: 3}}", 1, 17, "unknown key"},
        {"tls: {client_auth: {mode: required}}", 1, 20, "needs the authorities"},
        {"tls: {client_auth: {ca: a.key}}", 1, 25, "no certificate"},
        {"tls: {client_auth: {ca: a.crt, mode: maybe}}", 1, 38, "mode"},
        {"tls: {client_auth: {ca: a.crt, depth: 9}}", 1, 39, "depth"},
        {"tls: {hsts: {max_age: 1}}", 1, 23, "max_age"},
        {"tls: {hsts: {max_ag: 1h}}", 1, 14, "unknown key"},
        {"routes:\n  /x: {action: OK, client_cert: yes}", 2, 33, "client_cert"},
        {"routes:\n  /x: {action: OK, client_cert: required}", 2, 3, "no listener of it with TLS"},
        {"groups: [{match: '/x/*', hsts: 5}]\nroutes:\n  /x: OK", 1, 32, "hsts"},
    };

    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        struct load *l = load(rows[i].yaml);

        cr_expect_null(l->s, "%s", rows[i].yaml);
        cr_expect_eq(l->errors, 1, "%s: %s", rows[i].yaml, l->text);
        cr_expect(l->diags.first && strstr(l->diags.first->what, rows[i].what), "%s: %s",
                  rows[i].yaml, l->text);
        cr_expect(l->diags.first && l->diags.first->pos.line == rows[i].line &&
                      l->diags.first->pos.col == rows[i].col,
                  "%s: %s", rows[i].yaml, l->text);
        unload(l);
    }
}

/* ---- what check says ---- */

static const char *warnings(struct load *l)
{
    ag_explain_warnings(l->s, &l->diags);
    return tell(l);
}

Test(model_tls, warnings_of_certificates)
{
    certs_run(
        "openssl req -x509 -newkey %s -nodes -keyout old.key -out old.crt -subj /CN=x -days 10 "
        "-addext subjectAltName=DNS:old.example; cat r.crt r.key >again.pem; chmod 600 "
        "again.pem; chmod 644 old.key",
        CERTS_P256);
    certs_self("cl", CERTS_P256, "/CN=cl.example", "-addext extendedKeyUsage=clientAuth");
    struct load *l = good("server: {listen: {address: ':1', tls: true}}\n"
                          "tls:\n"
                          "  certificates:\n"
                          "  - both.pem\n"
                          "  - old.crt\n"
                          "  - r.crt\n"
                          "  - again.pem\n"
                          "  - cl.crt\n"
                          "routes:\n"
                          "  \"a.example/\": OK\n"
                          "  \"x.b.example/\": OK\n"
                          "  \"none.example/\": OK\n");
    const char *text = warnings(l);
    static const char *const want[] = {"5:5 ",
                                       "old.crt: the certificate expires in ",
                                       "everybody on this machine can read the private key",
                                       "old.crt: no route has a host that is among its names",
                                       "7:5 ",
                                       "again.pem: never used: ",
                                       "8:5 ",
                                       "cl.crt: the certificate has no subjectAltName",
                                       "cl.crt: the certificate is not meant for servers",
                                       "self-signed",
                                       "12:4 no certificate is for none.example"};

    for (size_t i = 0; i < AG_COUNT(want); i++) {
        cr_expect_not_null(strstr(text, want[i]), "%s in:\n%s", want[i], text);
    }
    cr_expect_null(strstr(text, "both.pem: never"), "another kind of key: %s", text);
    cr_expect_null(strstr(text, "no certificate is for x.b.example"));
    unload(l);
}

Test(model_tls, what_is_over_is_a_warning)
{
    certs_run("openssl req -newkey %s -nodes -keyout e.key -out e.csr -subj /CN=e && openssl x509 "
              "-req -in e.csr -signkey e.key -days -1 -out e.crt; chmod 600 e.key",
              CERTS_P256);
    struct load *l = good("server: {listen: {address: ':1', tls: {certificates: e.crt}}}\n");
    cr_expect_not_null(strstr(l->text, "e.crt: the certificate expired on "), "%s", l->text);
    unload(l);
}

Test(model_tls, the_report)
{
    char room[4096];
    struct ag_buf b = ag_buf(room, sizeof(room) - 1);
    struct load *l = good(
        "server: {listen: [{address: ':1', tls: {client_auth: {ca: a.crt}}}, {address: ':2', "
        "tls: true}, {address: ':80', redirect_https: 443}]}\ntls: {certificates: both.pem, strict_sni: true}\n");

    ag_explain_tls(l->s, &b);
    room[b.len] = 0;
    static const char *const want[] = {
        "TLS on :1\n  intermediate: TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1, no tickets, strict SNI\n",
        "TLS on :2\n  intermediate: TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1, tickets, strict SNI\n",
        "  a.example, *.b.example: ECDSA 256, until 20",
        ", self-signed, ",
        "  client certificates: required\n",
        ":80\n  redirects to https at port 443\n"};
    for (size_t i = 0; i < AG_COUNT(want); i++) {
        cr_expect_not_null(strstr(room, want[i]), "%s in:\n%s", want[i], room);
    }
    unload(l);
}

#endif
