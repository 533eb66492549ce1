/*
 * Goal: the sections come out typed, with the documented defaults; what is wrong is said at its place,
 * all of it in one run. Method: tables.
 */
#include "router/model_impl.h"
#include "tests/unit/config_util.h"

#include <arpa/inet.h>

static struct ag_model *read_text(struct fixture *f, const char *text)
{
    struct ag_source *src = ag_config_source(&f->arena, "t", ag_span_str(text));
    struct ag_node *root = ag_config_parse_yaml(src, &f->diags);

    cr_assert_not_null(root, "%s", f->diags.first ? f->diags.first->what : "");
    return ag_model_read(root, &f->diags);
}

static struct ag_model *read_good(struct fixture *f, const char *text)
{
    struct ag_model *m = read_text(f, text);

    cr_assert_eq(f->diags.errors, 0, "%s", f->diags.first ? f->diags.first->what : "");
    cr_assert_not_null(m);
    return m;
}

static void check_addr(const struct ag_listen *l, const char *want)
{
    char text[128];

    if (l->addr.sa.sa_family == AF_INET) {
        inet_ntop(AF_INET, &l->addr.in.sin_addr, text, sizeof(text));
        cr_assert_eq(ntohs(l->addr.in.sin_port), l->port);
    } else if (l->addr.sa.sa_family == AF_INET6) {
        inet_ntop(AF_INET6, &l->addr.in6.sin6_addr, text, sizeof(text));
        cr_assert_eq(ntohs(l->addr.in6.sin6_port), l->port);
    } else {
        cr_assert_eq(l->addr.sa.sa_family, AF_UNIX);
        cr_assert_eq(l->port, 0);
        (void)snprintf(text, sizeof(text), "%s", l->addr.un.sun_path);
    }
    cr_assert_str_eq(text, want);
}

Test(model, defaults)
{
    struct fixture f;
    fixture_init(&f);
    struct ag_model *m = read_good(&f, "");

    cr_assert_eq(m->listen_count, 2);
    check_addr(&m->listens[0], "0.0.0.0");
    check_addr(&m->listens[1], "::");
    cr_assert_eq(m->listens[0].port, 8080);
    cr_assert_eq(m->listens[1].port, 8080);
    cr_assert_eq(m->workers, 0);
    cr_assert_eq(m->backend, AG_BACKEND_AUTO);
    cr_assert_eq(m->limits.head.line_max, 8192);
    cr_assert_eq(m->limits.head.head_max, 32768);
    cr_assert_eq(m->limits.head.field_max, 100);
    cr_assert_eq(m->limits.header_timeout_ms, 10000);
    cr_assert_eq(m->limits.idle_timeout_ms, 75000);
    cr_assert_eq(m->limits.route.body_timeout_ms, 30000);
    cr_assert_eq(m->limits.route.write_timeout_ms, 30000);
    cr_assert_eq(m->limits.discard_max_bytes, 262144);
    cr_assert_eq(m->limits.route.max_body_bytes, 10485760);
    cr_assert_eq(m->limits.route.body_grace_ms, 5000);
    cr_assert_eq(m->limits.route.min_rate, 240);
    cr_assert_eq(m->limits.route.min_read_rate, 240);
    cr_assert_eq(m->limits.route.stream, AG_STREAMING_AUTO);
    cr_assert_eq(m->limits.max_requests, 0);
    cr_assert_eq(m->limits.max_connections, 0);
    cr_assert_eq(m->listens[0].limits.idle_timeout_ms, 75000);
    cr_assert_eq(m->drain_timeout_ms, 30000);
    cr_assert_eq(m->log_level, AG_LOG_INFO);
    cr_assert_eq(m->log_format, AG_LOG_HUMAN);
    cr_assert_eq(m->max_connections, 0);
    cr_assert_eq(m->memory.small_buffers, 0);
    cr_assert_null(m->user);
    cr_assert_null(m->chroot);
    cr_assert_eq(m->seccomp, AG_CONFINE_AUTO);
    cr_assert_null(m->trusted_proxies);
    cr_assert_eq(m->access_log, AG_ACCESS_OFF);
    cr_assert_eq(m->route_count + m->group_count + m->plugin_count, 0);
    fixture_deinit(&f);
}

Test(model, everything_set)
{
    struct fixture f;
    fixture_init(&f);
    struct ag_model *m =
        read_good(&f, "version: 1\n"
                      "server:\n"
                      "  listen: [\":80\", \"127.0.0.1:81\", \"[::1]:82\", \"unix:/run/a.sock\",\n"
                      "           {address: \":83\", tls: false}]\n"
                      "  workers: 3\n"
                      "  backend: io_uring\n"
                      "  trusted_proxies: [10.0.0.0/8]\n"
                      "  drain_timeout: 1m\n"
                      "  access_log: json\n"
                      "  max_connections: 5000\n"
                      "  memory: {small_buffers: 100, large_buffers: 5, pages: 200}\n"
                      "  user: www-data:33\n  chroot: /srv\n  seccomp: log\n"
                      "  log: {level: debug, format: json}\n"
                      "  limits: {header_timeout: 1s, idle_timeout: 2s, body_timeout: 3s,\n"
                      "    write_timeout: 4s, body_grace: 0, max_line: 1k, max_header: 4k,\n"
                      "    max_fields: 10, max_body: 0, max_discard: 0, min_rate: 0,\n"
                      "    min_read_rate: 1k, max_requests: 7, max_connections: 8}\n"
                      "proxy: {}\nstatic: {}\necho: {}\n"
                      "plugins:\n  limit: {rate: 1/s}\n  logger: {}\n"
                      "groups:\n  - match: \"/api/*\"\n    filters: [logger]\n"
                      "routes:\n  /a: OK\n  /b: {action: OK}\n");

    cr_assert_eq(m->listen_count, 7);
    check_addr(&m->listens[2], "127.0.0.1");
    cr_assert_eq(m->listens[2].port, 81);
    check_addr(&m->listens[3], "::1");
    check_addr(&m->listens[4], "/run/a.sock");
    check_addr(&m->listens[6], "::");
    cr_assert_eq(m->listens[6].port, 83);
    cr_assert(text_is(m->listens[6].text, ":83"));
    cr_assert(m->listens[3].pos.line == 3 && m->listens[3].pos.col == 35);
    cr_assert_eq(m->workers, 3);
    cr_assert_eq(m->backend, AG_BACKEND_URING);
    cr_assert(text_is(m->trusted_proxies->first->text, "10.0.0.0/8"));
    cr_assert_eq(m->drain_timeout_ms, 60000);
    cr_assert_eq(m->access_log, AG_ACCESS_JSON);
    cr_assert_eq(m->max_connections, 5000);
    cr_assert_eq(m->memory.small_buffers, 100);
    cr_assert_eq(m->memory.large_buffers, 5);
    cr_assert_eq(m->memory.pages, 200);
    cr_assert_str_eq(m->user, "www-data:33");
    cr_assert_str_eq(m->chroot, "/srv");
    cr_assert_eq(m->seccomp, AG_CONFINE_LOG);
    cr_assert_eq(m->log_level, AG_LOG_DEBUG);
    cr_assert_eq(m->log_format, AG_LOG_JSON);
    cr_assert_eq(m->limits.header_timeout_ms, 1000);
    cr_assert_eq(m->limits.idle_timeout_ms, 2000);
    cr_assert_eq(m->limits.route.body_timeout_ms, 3000);
    cr_assert_eq(m->limits.route.write_timeout_ms, 4000);
    cr_assert_eq(m->limits.head.line_max, 1024);
    cr_assert_eq(m->limits.head.head_max, 4096);
    cr_assert_eq(m->limits.head.field_max, 10);
    cr_assert_eq(m->limits.discard_max_bytes, 0);
    cr_assert_eq(m->limits.route.max_body_bytes, 0);
    cr_assert_eq(m->limits.route.body_grace_ms, 0);
    cr_assert_eq(m->limits.route.min_rate, 0);
    cr_assert_eq(m->limits.route.min_read_rate, 1024);
    cr_assert_eq(m->limits.max_requests, 7);
    cr_assert_eq(m->limits.max_connections, 8);
    cr_assert_eq(m->plugin_count, 2);
    cr_assert(text_is(m->plugins[0].name, "limit"));
    cr_assert_eq(m->group_count, 1);
    cr_assert(text_is(m->groups[0].match, "/api/*"));
    cr_assert_not_null(must_get(m->groups[0].node, "filters"));
    cr_assert_eq(m->route_count, 2);
    cr_assert(m->routes[0].node->dsl);
    cr_assert(text_is(m->routes[1].node->key, "/b"));
    fixture_deinit(&f);
}

Test(model, listen_may_be_one_value)
{
    struct fixture f;
    fixture_init(&f);

    cr_assert_eq(read_good(&f, "server: {listen: \"unix:x\"}")->listen_count, 1);
    cr_assert_eq(read_good(&f, "server: {listen: {address: \":1\"}}")->listen_count, 2);
    fixture_deinit(&f);
}

Test(model, a_listener_has_limits_of_its_own)
{
    struct fixture f;
    fixture_init(&f);
    struct ag_model *m =
        read_good(&f, "server:\n"
                      "  limits: {max_body: 1k, idle_timeout: 5s, max_header: 2k}\n"
                      "  listen:\n"
                      "    - \"127.0.0.1:1\"\n"
                      "    - address: \":2\"\n"
                      "      limits: {idle_timeout: 1s, max_body: 2k, max_connections: 3}\n"
                      "      stream: false\n"
                      "    - {address: \"127.0.0.1:3\", limits: {max_header: 4k, max_line: 4k}}\n"
                      "    - {address: \"127.0.0.1:4\", limits: {max_body: 2k}, stream: false}\n");

    struct ag_tls_files files;

    ag_tls_files_init(&files, &f.arena, NULL, &f.diags);
    ag_model_read_tls(m, NULL, &files);
    cr_assert_eq(m->listen_count, 5);
    cr_expect_eq(m->listens[0].limits.route.max_body_bytes, 1024);
    cr_expect_eq(m->listens[0].limits.head.line_max, 2048);
    for (unsigned i = 1; i < 3; i++) { /* one address, two families */
        cr_expect_eq(m->listens[i].limits.idle_timeout_ms, 1000);
        cr_expect_eq(m->listens[i].limits.max_connections, 3);
        cr_expect_eq(m->listens[i].limits.route.max_body_bytes, 2048);
        cr_expect_eq(m->listens[i].limits.route.stream, AG_STREAMING_OFF);
        cr_expect_eq(m->listens[i].limits.head.head_max, 2048);
        cr_expect_eq(m->listens[i].limits.index, 1);
    }
    cr_expect_eq(m->listens[3].limits.idle_timeout_ms, 5000);
    cr_expect_eq(m->listens[3].limits.head.line_max, 4096);
    cr_expect_eq(m->listens[3].limits.index, 0, "what routes may change is the first's");
    cr_expect_eq(m->listens[4].limits.index, 1);
    cr_assert_eq(m->route_limit_count, 2);
    cr_expect_eq(m->route_limits[1].max_body_bytes, 2048);
    fixture_deinit(&f);
}

Test(model, mistakes)
{
    static const struct bad rows[] = {
        {"servr: {}", 1, 1, "unknown key \"servr\" in the config", "did you mean server?"},
        {"version: 2", 1, 10, "unknown config version", "version: 1"},
        {"version: [1]", 1, 10, "unknown config version", "*"},
        {"server: 5", 1, 9, "server must be a mapping", "*"},
        {"server: {lisen: 1}", 1, 10, "unknown key \"lisen\" in server", "did you mean listen?"},
        {"server: {limits: {max_heder: 1k}}", 1, 19, "unknown key \"max_heder\" in server.limits",
         "max_header"},
        {"server: {listen: [{address: ':1', limits: {max_bdy: 1k}}]}", 1, 44,
         "unknown key \"max_bdy\" in a listener's limits", "max_body"},
        {"server: {listen: [{address: ':1', limits: {idle_timeout: 25h}}]}", 1, 58,
         "idle_timeout must lie between 1ms and 24h", "*"},
        {"server: {listen: [{address: ':1', stream: maybe}]}", 1, 43, "stream", "*"},
        {"server: {log: {levl: x}}", 1, 16, "in server.log", "level"},
        {"server: {listen: [{adress: ':1', address: ':2'}]}", 1, 20, "in a listener", "address"},
        /* not there yet */
        {"cache: {x: 1}", 1, 1, "cache is not supported yet", "*"},
        {"tunnel: 1", 1, 1, "tunnel is not supported yet", "*"},
        {"acme: 1", 1, 1, "acme is not supported yet", "*"},
        /* admin, name servers */
        {"server: {admin: '0.0.0.0:9'}", 1, 17, "it needs a token", "*"},
        {"server: {admin: {address: '::1'}}", 1, 27, "needs brackets", "*"},
        {"server: {admin: [a]}", 1, 17, "expected an address", "*"},
        {"server: {admin: {address: ':1', token: '0123456789abcde'}}", 1, 40, "16 to 256", "*"},
        {"server: {admin: {address: ':1', token: '0123456789 abcdef'}}", 1, 40, "16 to 256", "*"},
        {"server: {admin: {address: '127.0.0.1:1', adress: ':1'}}", 1, 42, "adress", "address"},
        {"server: {resolver: {servers: [a.example]}}", 1, 31, "a name server's address", "*"},
        {"server: {resolver: {servers: '[::1]x'}}", 1, 30, "a name server's address", "*"},
        {"server: {resolver: {servers: '1.2.3.4:65536'}}", 1, 30, "a name server's address", "*"},
        {"server: {resolver: {servers: [1.1.1.1, 1.1.1.1, 1.1.1.1, 1.1.1.1, 1.1.1.1, 1.1.1.1, "
         "1.1.1.1, 1.1.1.1, 1.1.1.1]}}",
         1, 103, "at most 8", "*"},
        {"server: {resolver: {timeout: 9ms}}", 1, 30, "between 10ms and 60s", "*"},
        {"server: {resolver: {attempts: 11}}", 1, 31, "from 1 to 10", "*"},
        /* whose PROXY headers are believed */
        {"server: {listen: [{address: ':1', proxy_protocol: [a]}]}", 1, 52, "not a CIDR block",
         "*"},
        {"server: {listen: [{address: ':1', proxy_protocol: true}]}", 1, 51, "from whom?", "*"},
        {"server: {listen: [{address: ':1', proxy_protocol: {from: a}}]}", 1, 51,
         "proxy_protocol is a list", "*"},
        /* privileges */
        {"server: {user: ''}", 1, 16, "expected a user", "www-data"},
        {"server: {user: 'www-data:'}", 1, 16, "expected a user", "33:33"},
        {"server: {user: ':root'}", 1, 16, "expected a user", "33:33"},
        {"server: {user: [a]}", 1, 16, "expected text", "*"},
        {"server: {user: a, chroot: srv}", 1, 27, "expected an absolute path", "/var/empty"},
        {"server: {chroot: /srv}", 1, 18, "chroot without user", "add server.user"},
        {"server: {seccomp: yes}", 1, 19, "yes", "*"},
        /* listen */
        {"server: {listen: [8080]}", 1, 19, "no port", "did you mean \":8080\"?"},
        {"server: {listen: ['localhost']}", 1, 19, "no port", "forms"},
        {"server: {listen: ['localhost:80']}", 1, 19, "not an IP address", "forms"},
        {"server: {listen: ['*:80']}", 1, 19, "not an IP address", "forms"},
        {"server: {listen: [':0']}", 1, 19, "from 1 to 65535", NULL},
        {"server: {listen: [':65536']}", 1, 19, "from 1 to 65535", NULL},
        {"server: {listen: [':http']}", 1, 19, "from 1 to 65535", NULL},
        {"server: {listen: ['1.2.3:80']}", 1, 19, "not an IP address", "*"},
        {"server: {listen: ['::1:80']}", 1, 19, "needs brackets", "[ADDRESS]:PORT"},
        {"server: {listen: ['[::1]']}", 1, 19, "no port", "*"},
        {"server: {listen: ['[]:80']}", 1, 19, "not an IP address", "*"},
        {"server: {listen: ['unix:']}", 1, 19, "not a path", "*"},
        {"server: {listen: []}", 1, 18, "listen is empty", "*"},
        {"server: {listen: null}", 1, 18, "listen is empty", "*"},
        {"server: {listen: }", 1, 18, "listen is empty", "*"},
        {"server: {listen: [{address: }]}", 1, 19, "needs an address", "*"},
        {"server: {listen: [{address: ':1', limits: {max_body: }}]}", 1, 54,
         "max_body: expected a size, found nothing", "64k"},
        {"server: {listen: [{address: ':1', stream: null}]}", 1, 43,
         "stream: expected true or false, found nothing", NULL},
        {"server: {listen: [[':1']]}", 1, 19, "expected a listener", "*"},
        {"server: {listen: [{tls: false}]}", 1, 19, "needs an address", "*"},
        {"server: {listen: [{address: [1]}]}", 1, 29, "address: expected text", NULL},
        {"server: {listen: [':1', '0.0.0.0:1']}", 1, 25, "taken by another", "t:1:19"},
        {"server: {listen: ['unix:a', 'unix:a']}", 1, 29, "taken by another", "t:1:19"},
        /* the rest of server */
        {"server: {workers: many}", 1, 19, "workers: expected a number or auto", "*"},
        {"server: {workers: 0}", 1, 19, "workers: expected a number from 1 to 1024", NULL},
        {"server: {workers: -1}", 1, 19, "workers: expected a number or auto", "*"},
        {"server: {backend: epol}", 1, 19, "backend: expected one", "did you mean epoll?"},
        {"server: {drain_timeout: 30}", 1, 25, "drain_timeout: expected a duration", "30s"},
        {"server: {drain_timeout: 25h}", 1, 25, "drain_timeout is out of range", "0 to 24h"},
        {"server: {drain_timeout: }", 1, 25, "drain_timeout: expected a duration, found nothing",
         "10s"},
        {"server: {workers: ~}", 1, 19, "workers: expected a whole number, found nothing", NULL},
        {"server: {admin: {address: ':9', token: }}", 1, 40, "token: expected text, found nothing",
         NULL},
        {"server: {resolver: {servers: }}", 1, 30, "expected a name server's address", "*"},
        {"server: {max_connections: 0}", 1, 27, "max_connections: expected a number", NULL},
        {"server: {log: {level: trace}}", 1, 23, "level: expected one", "known: error, warn"},
        {"server: {trusted_proxies: {a: b}}", 1, 27, "expected addresses", "*"},
        {"server: {trusted_proxies: [[a]]}", 1, 28, "expected addresses", "*"},
        /* limits */
        {"server: {limits: {header_timeout: 0}}", 1, 35, "between 1ms and 24h", NULL},
        {"server: {limits: {idle_timeout: 25h}}", 1, 33, "between 1ms and 24h", NULL},
        {"server: {limits: {body_grace: 25h}}", 1, 31, "at most 24h", NULL},
        {"server: {limits: {max_header: 1m}}", 1, 31, "between 1024 and 65536", NULL},
        {"server: {limits: {max_header: 10kb}}", 1, 31, "expected a size", "64k"},
        {"server: {limits: {max_header: 4k, max_line: 8k}}", 1, 45, "larger than max_header", "*"},
        {"server: {limits: {max_fields: 0}}", 1, 31, "from 1 to 1000", NULL},
        {"server: {limits: {min_rate: 8g}}", 1, 29, "between 0 and 4294967295", NULL},
        /* other sections */
        {"groups: {a: 1}", 1, 9, "groups must be a list", "*"},
        {"groups: [5]", 1, 10, "a group must be a mapping", "*"},
        {"groups: [{filters: []}]", 1, 10, "a group needs a match", "*"},
        {"groups: [{match: [a]}]", 1, 18, "match: expected text", NULL},
        {"groups: [{match: a, filter: []}]", 1, 21, "unknown key", "filters"},
        {"groups:\n  -\n", 2, 4, "a group is empty", NULL},
        {"plugins: [a]", 1, 10, "plugins must be a mapping", "*"},
        {"routes:\n  /x:\n", 2, 3, "route \"/x\" has no action", "*"},
        {"routes:\n  /x: [a]\n", 2, 7, "a list is no action", "*"},
    };

    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        struct fixture f;
        fixture_init(&f);
        (void)read_text(&f, rows[i].text);
        check_bad(&rows[i], &f.diags);
        cr_assert_eq(f.diags.errors, 1, "%s: %u errors", rows[i].text, f.diags.errors);
        fixture_deinit(&f);
    }
}

Test(model, a_socket_path_has_a_bound)
{
    struct fixture f;
    fixture_init(&f);
    char text[256];

    (void)snprintf(text, sizeof(text), "server: {listen: \"unix:/%0107d\"}", 0);
    (void)read_text(&f, text);
    cr_assert_eq(f.diags.errors, 1);
    cr_assert(strstr(f.diags.first->what, "not a path for a socket"));
    fixture_deinit(&f);
}

Test(model, listeners_are_bounded)
{
    struct fixture f;
    fixture_init(&f);
    char text[8192];
    size_t at = (size_t)snprintf(text, sizeof(text), "server:\n  listen:\n");

    for (unsigned i = 0; i < AG_LISTEN_MAX + 1; i++) { /* each of another kind */
        at += (size_t)snprintf(text + at, sizeof(text) - at,
                               "  - {address: '127.0.0.1:%u', limits: {max_body: %uk}}\n", 1000 + i,
                               i);
    }
    struct ag_model *m = read_text(&f, text);
    cr_assert_eq(m->listen_count, AG_LISTEN_MAX);
    cr_assert_eq(f.diags.errors, 1);
    cr_assert_eq(f.diags.first->pos.line, 3 + AG_LISTEN_MAX);
    fixture_deinit(&f);
}

/* More kinds of them than listeners that are any good. */
Test(model, mistakes_in_listeners_with_limits_of_their_own)
{
    struct fixture f;
    fixture_init(&f);

    struct ag_model *m = read_text(&f, "server:\n"
                                       "  listen:\n"
                                       "  - {address: ':1x', limits: {max_body: 1k}}\n"
                                       "  - {address: ':2x', limits: {max_body: 2k}}\n"
                                       "  - {address: ':3x', limits: {max_body: 3k}}\n");
    cr_assert_eq(f.diags.errors, 3);
    cr_assert_eq(m->listen_count, 0);
    fixture_deinit(&f);
}

Test(model, several_mistakes_in_one_run)
{
    struct fixture f;
    fixture_init(&f);

    struct ag_model *m = read_text(&f, "servr: 1\n"
                                       "server:\n"
                                       "  workers: x\n"
                                       "  listen: [a, ':2']\n"
                                       "  limits: {max_body: y, idle_timeout: 5}\n"
                                       "routes:\n"
                                       "  /x:\n"
                                       "  /y: OK\n");
    cr_assert_eq(f.diags.errors, 6);
    cr_assert_eq(m->route_count, 1);
    cr_assert_eq(m->listen_count, 2);
    fixture_deinit(&f);
}

Test(model, admin_and_name_servers)
{
    struct fixture f;
    const struct ag_model *m;

    fixture_init(&f);
    m = read_good(
        &f, "server:\n  listen: \":80\"\n"
            "  admin: {address: \":81\", token: \"AZaz09-._~+/=0123\"}\n"
            "  resolver: {servers: [1.2.3.4, \"1.2.3.4:5\", \"::1\", \"[::2]\", \"[::3]:6\"],\n"
            "             timeout: 60s, attempts: 10}\n");

    cr_assert_eq(m->listen_count, 4);
    cr_expect(!m->listens[0].admin && !m->listens[1].admin);
    cr_expect(m->listens[2].admin && m->listens[3].admin && m->listens[3].port == 81);
    cr_expect(text_is(m->admin_token, "AZaz09-._~+/=0123"));
    cr_expect_str_eq(m->resolver.servers, "1.2.3.4:53,1.2.3.4:5,[::1]:53,[::2]:53,[::3]:6");
    cr_expect(m->resolver.timeout_ms == 60000 && m->resolver.attempts == 10);
    m = read_good(&f, "server: {admin: null, resolver: null}\n");
    cr_expect_eq(m->listen_count, 2);
    cr_expect(m->resolver.servers[0] == 0 && m->resolver.timeout_ms == 2000);
}

Test(model, whose_headers_are_believed)
{
    struct fixture f;
    struct ag_model *m;
    char room[100];
    struct ag_buf b = ag_buf(room, sizeof(room));

    fixture_init(&f);
    m = read_good(
        &f, "server: {listen: [{address: ':1', proxy_protocol: [10.0.0.0/9, 192.0.2.7, 'fd00::/8', "
            "'::ffff:1.0.0.0', unix]}, {address: ':2', proxy_protocol: false}, ':3']}");
    cr_assert_eq(m->listen_count, 6);
    for (unsigned i = 0; i < 2; i++) { /* both families of one */
        cr_assert(ag_listen_proxied(&m->listens[i]));
        cr_expect_eq(m->listens[i].proxied.count, 4);
    }
    for (unsigned i = 2; i < 6; i++) {
        cr_expect_null(ag_listen_proxied(&m->listens[i]));
    }
    ag_networks_put(&m->listens[0].proxied, &b);
    cr_expect(
        ag_span_eq(ag_buf_span(&b), AG_SPAN("10.0.0.0/9, 192.0.2.7, fd00::/8, 1.0.0.0, unix")),
        "%.*s", (int)b.len, room);
    fixture_deinit(&f);
}
