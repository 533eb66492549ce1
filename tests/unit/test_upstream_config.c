/*
 * Goal: what the config says of upstreams arrives as said, mistakes are met with their position, and
 * equal definitions are the same upstream.
 * Method: trees made by hand; each mistake in a section that is else right.
 */
#include "actions/proxy/proxy.h"
#include "actions/proxy/proxy_config.h"
#include "actions/upstream/upstream_config.h"
#include "engine/networks.h"
#include "engine/resolver.h"
#include "tests/unit/certs.h"

#include <criterion/criterion.h>

static struct ag_arena arena;
static struct ag_diags diags;
static const struct ag_source source = {.name = "t"};

static void setup(void)
{
    ag_arena_init(&arena, NULL, 0);
    ag_diags_init(&diags, &arena);
}

static void teardown(void)
{
    ag_arena_release(&arena);
}

static struct ag_pos at(uint32_t col)
{
    return (struct ag_pos){&source, 1, col};
}

static struct ag_node *scalar(const char *key, const char *text, uint32_t col)
{
    struct ag_node *n = ag_node_new(&arena, AG_NODE_SCALAR, at(col));

    n->key = ag_span_str(key ? key : "");
    n->key_pos = at(col);
    n->text = ag_span_str(text);
    return n;
}

static struct ag_node *group(const char *key, enum ag_node_kind kind)
{
    struct ag_node *n = ag_node_new(&arena, kind, at(1));

    n->key = ag_span_str(key);
    n->key_pos = at(1);
    return n;
}

/* upstream `name` with servers of the NULL-terminated list. */
static struct ag_node *upstream(const char *name, const char *const *servers)
{
    struct ag_node *up = group(name, AG_NODE_MAP), *list = group("servers", AG_NODE_SEQ);

    for (uint32_t i = 0; servers[i]; i++) {
        ag_node_append(list, scalar(NULL, servers[i], 10 * (i + 1)));
    }
    ag_node_append(up, list);
    return up;
}

static struct ag_upstream *read_up(const struct ag_node *node)
{
    const struct ag_upstream_options defaults = ag_upstream_default_options();

    struct ag_action_build build = {.arena = &arena, .diags = &diags};

    return ag_upstream_read(&build, node, &defaults);
}

static struct ag_upstream *from(const char *authority)
{
    const struct ag_upstream_options defaults = ag_upstream_default_options();

    return ag_upstream_from_authority(&arena, ag_span_str(authority), at(5), &diags, &defaults);
}

TestSuite(upstream_config, .init = setup, .fini = teardown);

Test(upstream_config, servers_and_options)
{
    const char *const servers[] = {"10.0.0.1:8080", "api.example weight=3", "[::1]:81",
                                   "unix:/run/x.sock max=50 weight=2", NULL};
    struct ag_node *node = upstream("api", servers), *t = group("timeouts", AG_NODE_MAP);
    struct ag_node *k = group("keepalive", AG_NODE_MAP);
    struct ag_upstream *up;

    ag_node_append(t, scalar("connect", "250ms", 1));
    ag_node_append(t, scalar("total", "5m", 1));
    ag_node_append(k, scalar("max_idle", "7", 1));
    ag_node_append(node, t);
    ag_node_append(node, k);
    ag_node_append(node, scalar("host", "upstream", 1));
    ag_node_append(node, scalar("balance", "round_robin", 1));
    ag_node_append(node, scalar("max_connections", "9", 1));
    ag_node_append(node, scalar("proxy_protocol", "v2", 1));
    up = read_up(node);
    cr_assert(up);
    cr_expect_eq(diags.errors, 0);
    cr_assert_eq(up->server_count, 4);
    cr_expect_not(up->servers[0].named);
    cr_expect_eq(up->servers[0].addr.in.sin_port, htons(8080));
    cr_expect(up->servers[1].named);
    cr_expect_eq(up->servers[1].weight, 3);
    cr_expect_eq(up->servers[1].port, 80);
    cr_expect_eq(up->servers[2].addr.sa.sa_family, AF_INET6);
    cr_expect(ag_span_eq(up->servers[2].authority, AG_SPAN("[::1]:81")));
    cr_expect_eq(up->servers[3].addr.sa.sa_family, AF_UNIX);
    cr_expect(ag_span_eq(up->servers[3].authority, AG_SPAN("localhost")));
    cr_expect_eq(up->servers[2].max_connections, 0);
    cr_expect_eq(up->servers[3].max_connections, 50);
    cr_expect_eq(up->servers[3].weight, 2);
    cr_expect_eq(up->options.timeouts.connect_ms, 250);
    cr_expect_eq(up->options.timeouts.total_ms, 300000);
    cr_expect_eq(up->options.timeouts.read_ms, 60000);
    cr_expect_eq(up->options.max_idle, 7);
    cr_expect_eq(up->options.max_connections, 9);
    cr_expect_eq(up->options.proxy_protocol, AG_PROXY_PROTOCOL_V2);
    cr_expect_eq(up->options.host_mode, AG_UPSTREAM_HOST_SERVER);
}

struct mistake {
    const char *key, *text; /* of the upstream; NULL: the server is wrong */
    const char *server;
    const char *what; /* in the message */
    uint32_t col;
};

static const struct mistake mistakes[] = {
    {"balance", "rond_robin", NULL, "rond_robin", 33},
    {"health", "x", NULL, "not a path", 33},
    {"tls", "x", NULL, "must be a mapping", 33},
    {"breaker", "x", NULL, "must be a mapping", 33},
    {"ejection", "x", NULL, "must be a mapping", 33},
    {"panic", "101%", NULL, "not a share", 33},
    {"panic", "30", NULL, "not a share", 33},
    {"slow_start", "30", NULL, "duration", 33},
    {"max_conections", "5", NULL, "max_conections", 33},
    {"max_pending", "-1", NULL, "", 33},
    {"host", "a b", NULL, "not a host", 33},
    {"proxy_protocol", "v3", NULL, "v3", 33},
    {"proxy_protocol", "true", NULL, "true", 33},
    {NULL, NULL, "10.0.0.1:99999", "not a server", 10},
    {NULL, NULL, "http://10.0.0.1", "not a server", 10},
    {NULL, NULL, "", "without an address", 10},
    {NULL, NULL, "a:80 weight=0", "weight", 22},
    {NULL, NULL, "a:80 wight=2", "unknown option", 15},
    {NULL, NULL, "a:80 max=0", "not a number of connections", 19},
    {NULL, NULL, "a:80 max=1000001", "not a number of connections", 19},
    {NULL, NULL, "a:80 max=", "not a number of connections", 19},
    {NULL, NULL, "a:80 max", "unknown option", 15},
    {NULL, NULL, "a:80 maxconn=5", "unknown option", 15},
    {NULL, NULL, "unix:", "not a unix socket", 10},
};

Test(upstream_config, mistakes_have_a_place)
{
    for (size_t i = 0; i < AG_COUNT(mistakes); i++) {
        const struct mistake *m = &mistakes[i];
        const char *const servers[] = {m->server ? m->server : "10.0.0.1:80", NULL};
        struct ag_node *node = upstream("api", servers);

        ag_diags_init(&diags, &arena);
        if (m->key) {
            ag_node_append(node, scalar(m->key, m->text, 33));
        }
        (void)read_up(node);
        cr_assert_eq(diags.errors, 1, "%zu: %u", i, diags.errors);
        cr_expect(strstr(diags.first->what, m->what), "%zu: %s", i, diags.first->what);
        cr_expect_eq(diags.first->pos.col, m->col, "%zu: %u", i, diags.first->pos.col);
    }
}

Test(upstream_config, an_upstream_needs_servers)
{
    struct ag_node *node = group("api", AG_NODE_MAP);

    cr_expect_null(read_up(node));
    ag_node_append(node, group("servers", AG_NODE_SEQ));
    cr_expect_null(read_up(node));
    cr_expect_eq(diags.errors, 2);
    cr_expect_null(read_up(scalar("api", "10.0.0.1:80", 3)));
}

Test(upstream_config, authorities)
{
    struct ag_upstream *up = from("10.0.0.1:80,b:81,[::1]");

    cr_assert(up);
    cr_expect_eq(up->server_count, 3);
    cr_expect_eq(up->servers[1].port, 81);
    up = from("unix:/run/x.sock:");
    cr_assert(up);
    cr_expect(ag_span_eq(up->servers[0].host, AG_SPAN("unix:/run/x.sock")));
    cr_expect_null(from("10.0.0.1,,b"));
    cr_expect_eq(diags.first->pos.col, 5 + 9);
    cr_expect_null(from(""));
    cr_expect_null(from("a:80,b:x"));
}

Test(upstream_config, equal_definitions_have_equal_keys)
{
    const struct ag_upstream *a = from("a:80,b:81"), *b = from("a:80,b:81"), *c = from("a:80,b:82");

    cr_expect_eq(memcmp(a->key, b->key, sizeof(a->key)), 0);
    cr_expect_neq(a->key[0], c->key[0]);
    cr_expect_neq(a->key[1], c->key[1]);
    cr_expect_neq(a->key[0], a->key[1]);
}

Test(upstream_config, what_connections_begin_with_parts_pools)
{
    const char *const servers[] = {"10.0.0.1", NULL}, *const versions[] = {"off", "v1", "v2"};
    struct ag_upstream *ups[3];

    for (size_t i = 0; i < AG_COUNT(versions); i++) {
        struct ag_node *node = upstream("a", servers);

        ag_node_append(node, scalar("proxy_protocol", versions[i], 1));
        ups[i] = read_up(node);
        cr_assert(ups[i]);
        cr_expect_eq(ups[i]->options.proxy_protocol, i);
        for (size_t k = 0; k < i; k++) {
            cr_expect_neq(ups[i]->key[0], ups[k]->key[0]);
        }
    }
}

Test(upstream_config, named_upstreams_and_routes)
{
    const char *const servers[] = {"10.0.0.1:80", NULL};
    struct ag_node *root = group("", AG_NODE_MAP), *proxy = group("proxy", AG_NODE_MAP);
    struct ag_node *ups = group("upstreams", AG_NODE_MAP), *options = group("", AG_NODE_MAP);
    struct ag_node *timeouts = group("timeouts", AG_NODE_MAP);
    struct ag_action_build build = {.arena = &arena, .diags = &diags, .config = root};
    struct ag_action_decl decl = {.scheme = AG_SPAN("http"), .authority = AG_SPAN("api")};
    const struct ag_proxy_settings *s;
    const void *named = NULL, *other = NULL;

    ag_node_append(ups, upstream("api", servers));
    ag_node_append(proxy, ups);
    ag_node_append(root, proxy);
    ag_node_append(timeouts, scalar("read", "5s", 1));
    ag_node_append(options, timeouts);
    ag_node_append(options, scalar("host", "h.example", 1));
    cr_assert_eq(ag_proxy_configure_section(&build), AG_OK);
    decl.options = options;
    cr_assert_eq(ag_proxy_configure(&build, &decl, &named), AG_OK);
    s = named;
    cr_expect(ag_span_eq(s->upstream->name, AG_SPAN("api")));
    cr_expect_not(s->upstream->servers[0].named);
    cr_expect_eq(s->timeouts.read_ms, 5000);
    cr_expect_eq(s->upstream->options.timeouts.read_ms, 60000);
    cr_expect_eq(s->host_mode, AG_UPSTREAM_HOST_LITERAL);
    decl.authority = AG_SPAN("api:8080"); /* a host, not the upstream */
    cr_assert_eq(ag_proxy_configure(&build, &decl, &other), AG_OK);
    s = other;
    cr_expect(s->upstream->servers[0].named);
}

/* ---- TLS ---- */

static const struct ag_upstream *target(struct ag_action_build *build, const char *scheme,
                                        const char *authority)
{
    struct ag_action_decl decl = {
        .scheme = ag_span_str(scheme), .authority = ag_span_str(authority), .pos = at(7)};
    const void *settings = NULL;

    if (ag_proxy_configure(build, &decl, &settings) != AG_OK) {
        return NULL;
    }
    return ((const struct ag_proxy_settings *)settings)->upstream;
}

/* An upstream "api" whose `tls` holds pairs of key and text; NULL ends them. */
static void section(struct ag_action_build *build, struct ag_tls_files *files,
                    const char *const *pairs)
{
    const char *const servers[] = {"10.0.0.1", "b:80 weight=2", "c:443", "d:8443", NULL};
    struct ag_node *root = group("", AG_NODE_MAP), *proxy = group("proxy", AG_NODE_MAP);
    struct ag_node *ups = group("upstreams", AG_NODE_MAP), *api = upstream("api", servers);
    struct ag_node *tls = group("tls", AG_NODE_MAP);

    for (size_t i = 0; pairs[i]; i += 2) {
        ag_node_append(tls, scalar(pairs[i], pairs[i + 1], 44));
    }
    ag_node_append(api, tls);
    ag_node_append(ups, api);
    ag_node_append(proxy, ups);
    ag_node_append(root, proxy);
    ag_tls_files_init(files, &arena, NULL, &diags);
    *build = (struct ag_action_build){
        .arena = &arena, .diags = &diags, .config = root, .tls_files = files};
}

Test(upstream_config, schemes)
{
    const char *const pairs[] = {"verify", "false", "server_name", "x.example", NULL};
    const struct ag_upstream *plain, *https, *wss, *h2, *h2c;
    struct ag_action_build build;
    struct ag_tls_files files;

    section(&build, &files, pairs);
    cr_assert_eq(ag_proxy_configure_section(&build), AG_OK);
    plain = target(&build, "http", "api");
    https = target(&build, "https", "api");
    wss = target(&build, "wss", "api");
    h2 = target(&build, "h2", "api");
    h2c = target(&build, "h2c", "api");
    cr_assert(plain && https && wss && h2 && h2c);
    cr_expect(plain == target(&build, "ws", "api") && https == target(&build, "https", "api"));
    cr_expect(plain->protocol == AG_UPSTREAM_H1 && !plain->tls);
    cr_expect(https->protocol == AG_UPSTREAM_AUTO && https->tls->h2 && https->tls->h1);
    cr_expect(wss->protocol == AG_UPSTREAM_H1 && !wss->tls->h2 && wss->tls->h1);
    cr_expect(h2->protocol == AG_UPSTREAM_H2 && h2->tls->h2 && !h2->tls->h1);
    cr_expect(h2c->protocol == AG_UPSTREAM_H2C && !h2c->tls);
    cr_expect(!https->tls->verify && ag_span_eq(https->tls->server_name, AG_SPAN("x.example")));
    cr_expect_neq(memcmp(https->tls->key, h2->tls->key, sizeof(h2->tls->key)), 0);
    const struct ag_upstream *all[] = {plain, https, wss, h2, h2c};
    for (size_t i = 0; i < AG_COUNT(all); i++) {
        for (size_t k = 0; k < i; k++) {
            cr_expect_neq(all[i]->key[0], all[k]->key[0], "%zu and %zu share pools", i, k);
        }
    }
}

Test(upstream_config, ports_by_scheme)
{
    const char *const pairs[] = {"verify", "false", NULL};
    static const struct {
        uint16_t plain, tls;
        const char *plain_host, *tls_host;
    } rows[] = {{80, 443, "10.0.0.1", "10.0.0.1"},
                {80, 80, "b", "b:80"},
                {443, 443, "c:443", "c"},
                {8443, 8443, "d:8443", "d:8443"}};
    struct ag_action_build build;
    struct ag_tls_files files;

    section(&build, &files, pairs);
    cr_assert_eq(ag_proxy_configure_section(&build), AG_OK);
    const struct ag_upstream *plain = target(&build, "http", "api");
    const struct ag_upstream *https = target(&build, "https", "api");
    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        const struct ag_upstream_server *p = &plain->servers[i], *t = &https->servers[i];

        cr_expect_eq(p->port, rows[i].plain);
        cr_expect_eq(t->port, rows[i].tls);
        cr_expect(ag_span_eq(p->authority, ag_span_str(rows[i].plain_host)), "%zu", i);
        cr_expect(ag_span_eq(t->authority, ag_span_str(rows[i].tls_host)), "%zu", i);
        cr_expect_eq(p->weight, t->weight);
    }
    cr_expect_eq(ntohs(https->servers[0].addr.in.sin_port), 443);
}

Test(upstream_config, a_socket_has_no_name_to_verify)
{
    const char *const off[] = {"verify", "false", NULL};
    struct ag_action_build build;
    struct ag_tls_files files;

    section(&build, &files, off);
    cr_assert_eq(ag_proxy_configure_section(&build), AG_OK);
    cr_expect_null(target(&build, "https", "unix:/run/x.sock"), "verified by default");
    cr_assert_eq(diags.errors, 1);
    cr_expect(strstr(diags.first->what, "without a name"), "%s", diags.first->what);
    cr_expect_not_null(target(&build, "http", "unix:/run/x.sock"));
}

#if AG_WOLFSSL

Test(upstream_config, tls_reads_its_files)
{
    struct ag_action_build build;
    struct ag_tls_files files;
    const struct ag_upstream *up;

    folder_make();
    certs_self("ca", CERTS_P256, "/CN=ca", "");
    certs_signed("me", CERTS_P256, "/CN=me", "ca", "extendedKeyUsage=clientAuth\n");
    const char *const pairs[] = {"ca",  folder_at("ca.crt"), "cert", folder_at("me.crt"),
                                 "key", folder_at("me.key"), "h2",   "false",
                                 NULL};
    section(&build, &files, pairs);
    cr_assert_eq(ag_proxy_configure_section(&build), AG_OK);
    up = target(&build, "https", "api");
    cr_assert(up && up->tls);
    cr_expect(up->tls->verify && up->tls->ca.len > 0 && up->tls->identity);
    cr_expect(ag_span_eq(up->tls->identity->subject, AG_SPAN("CN=me")));
    cr_expect_eq(up->protocol, AG_UPSTREAM_H1, "h2 is not offered");
    folder_remove();
}

Test(upstream_config, the_systems_authorities_by_default)
{
    const char *const pairs[] = {"server_name", "x", NULL};
    struct ag_action_build build;
    struct ag_tls_files files;
    const struct ag_upstream *up;

    section(&build, &files, pairs);
    if (ag_proxy_configure_section(&build) != AG_OK) {
        cr_assert(strstr(diags.first->what, "no store of authorities"));
        return; /* a machine without */
    }
    up = target(&build, "https", "api");
    cr_assert(up && up->tls && up->tls->verify && up->tls->ca.len > 0);
}

Test(upstream_config, mistakes_of_tls)
{
    static const struct {
        const char *key, *text, *what;
    } rows[] = {
        {"verify", "maybe", "verify"},
        {"ca", "/nonexistent/ca.pem", "cannot read"},
        {"server_name", "a b", "not the name"},
        {"key", "/x.key", "without a certificate"},
        {"cert", "/nonexistent/x", "cannot"},
        {"handshake_timeout", "0", "out of range"},
        {"verfy", "true", "verfy"},
    };

    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        const char *const pairs[] = {rows[i].key, rows[i].text, NULL};
        struct ag_action_build build;
        struct ag_tls_files files;

        ag_diags_init(&diags, &arena);
        section(&build, &files, pairs);
        (void)!ag_proxy_configure_section(&build);
        cr_assert_eq(diags.errors, 1, "%s: %u", rows[i].key, diags.errors);
        cr_expect(strstr(diags.first->what, rows[i].what), "%s", diags.first->what);
        cr_expect_eq(diags.first->pos.col, 44, "%s", rows[i].key);
    }
}

#endif

Test(upstream_config, targets_are_checked)
{
    static const struct ag_template_part good[] = {{AG_SPAN_INIT("/a/"), -1}, {{NULL, 0}, 0}};
    static const struct ag_template_part bad[] = {{AG_SPAN_INIT("/a\r\nX: y"), -1}};
    static const struct ag_template_part query[] = {{AG_SPAN_INIT("/a?b=c"), -1}};
    struct ag_action_build build = {.arena = &arena, .diags = &diags};
    struct ag_action_decl decl = {.scheme = AG_SPAN("http"), .authority = AG_SPAN("a")};
    const void *settings = NULL;

    cr_assert_eq(ag_proxy_configure_section(&build), AG_OK);
    decl.has_path = true;
    decl.target = (struct ag_template){good, 2};
    cr_expect_eq(ag_proxy_configure(&build, &decl, &settings), AG_OK);
    decl.target = (struct ag_template){query, 1};
    cr_expect_eq(ag_proxy_configure(&build, &decl, &settings), AG_OK);
    cr_expect(((const struct ag_proxy_settings *)settings)->target_has_query);
    decl.target = (struct ag_template){bad, 1};
    cr_expect_eq(ag_proxy_configure(&build, &decl, &settings), AG_EINVAL);
    cr_expect_eq(diags.errors, 1);
}

static bool trusts(const struct ag_networks *t, const char *ip)
{
    union ag_addr addr = {0};

    cr_assert_eq(ag_addr_parse(ag_span_str(ip), 1, &addr), AG_OK);
    return ag_networks_have(t, &addr);
}

Test(upstream_config, trusted_peers)
{
    static const char *const wrong[] = {"10.0.0.0/33", "x", "10.0.0.0/", "::/129", "10.0.0.0/8/8"};
    struct ag_node *list = group("trusted_proxies", AG_NODE_SEQ);
    struct ag_networks t;

    ag_node_append(list, scalar(NULL, "10.0.0.0/9", 1));
    ag_node_append(list, scalar(NULL, "192.0.2.7", 1));
    ag_node_append(list, scalar(NULL, "fd00::/8", 1));
    cr_assert(ag_networks_read(&arena, list, &diags, "trusted_proxies", &t));
    cr_expect(trusts(&t, "10.127.255.255"));
    cr_expect_not(trusts(&t, "10.128.0.0"));
    cr_expect(trusts(&t, "::ffff:10.0.0.1"));
    cr_expect(trusts(&t, "192.0.2.7"));
    cr_expect_not(trusts(&t, "192.0.2.6"));
    cr_expect(trusts(&t, "fdff::1"));
    cr_expect_not(trusts(&t, "fe00::1"));
    cr_expect_not(trusts(&t, "unix:/x"));
    cr_expect_not(ag_networks_have(&t, NULL));
    ag_node_append(list, scalar(NULL, "unix", 1));
    cr_assert(ag_networks_read(&arena, list, &diags, "trusted_proxies", &t));
    cr_expect(trusts(&t, "unix:/x"));
    for (size_t i = 0; i < AG_COUNT(wrong); i++) {
        struct ag_node *bad = group("trusted_proxies", AG_NODE_SEQ);
        ag_node_append(bad, scalar(NULL, wrong[i], 7));
        cr_expect_not(ag_networks_read(&arena, bad, &diags, "trusted_proxies", &t), "%s", wrong[i]);
    }
    cr_expect_eq(diags.errors, AG_COUNT(wrong));
}

Test(upstream_config, one_trusted_peer_needs_no_list)
{
    struct ag_networks t;

    /* As the environment has it: ANYGATE_SERVER__TRUSTED_PROXIES=10.0.0.0/8. */
    cr_assert(ag_networks_read(&arena, scalar("trusted_proxies", "10.0.0.0/8", 1), &diags,
                               "trusted_proxies", &t));
    cr_expect(trusts(&t, "10.1.2.3"));
    cr_expect_not(trusts(&t, "11.1.2.3"));
    cr_assert(ag_networks_read(&arena, group("trusted_proxies", AG_NODE_NULL), &diags,
                               "trusted_proxies", &t));
    cr_expect_not(trusts(&t, "10.1.2.3"));
}
