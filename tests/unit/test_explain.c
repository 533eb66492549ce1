/*
 * Goal: what people are told about routes is what happens, with the reason that decided.
 * Method: a config through the real reader; texts are searched for the parts that matter. Explanations
 * are checked against the lookup for every request that is asked.
 */
#include "router/explain.h"

#include <criterion/criterion.h>
#include <stdio.h>

struct load {
    struct ag_arena arena;
    struct ag_diags diags;
    struct ag_source source;
    struct ag_snapshot *s;
    char out[16384];
};

static const char config[] = "server: {listen: [':8080']}\n"
                             "plugins:\n"
                             "  api: {headers: {set: {X-Api: 1}}}\n"
                             "groups:\n"
                             "  - {match: /api/*, filters: [api]}\n"
                             "routes:\n"
                             "  - \"/: /dist/\"\n"
                             "  - GET POST /api/users/:id: OK\n"
                             "  - /api/users/me: OK {\"me\":true}\n"
                             "  - PUT /api/users/:id: 204\n"
                             "  - /api/*: http://127.0.0.1:1\n"
                             "  - /docs/: /docs/\n"
                             "  - api.test/v1/:x: FOUND -> /v2/:x\n"
                             "  - :9001/ping: \"*\"\n";

static struct load *load(const char *yaml)
{
    struct load *l = calloc(1, sizeof(*l));
    const struct ag_node *root;

    AG_ASSERT(l);
    ag_arena_init(&l->arena, NULL, 0);
    ag_diags_init(&l->diags, &l->arena);
    l->source = (struct ag_source){"t.yml", ag_span_str(yaml)};
    root = ag_config_parse_yaml(&l->source, &l->diags);
    l->s = ag_snapshot_compile(&l->arena, root, "/nonexistent", NULL, &l->diags);
    cr_assert(l->s, "%s", l->diags.first ? l->diags.first->what : "?");
    return l;
}

static void unload(struct load *l)
{
    ag_snapshot_free(l->s);
    ag_arena_release(&l->arena);
    free(l);
}

static bool ask(struct load *l, const char *method, const char *target, const char *host)
{
    struct ag_buf b = ag_buf(l->out, sizeof(l->out) - 1);
    bool won = ag_explain_request(l->s, ag_span_str(method), ag_span_str(target), ag_span_str(host),
                                  0, &b, false);

    cr_assert_not(b.overflow);
    l->out[b.len] = 0;
    return won;
}

static void expect(const struct load *l, const char *part)
{
    cr_expect(strstr(l->out, part), "\"%s\" is not in:\n%s", part, l->out);
}

Test(explain, the_winner_and_its_parameters)
{
    struct load *l = load(config);

    cr_expect(ask(l, "GET", "/api/users/7?x=%zz", ""));
    expect(l, "wins  GET POST /api/users/:id   200");
    expect(l, ":id = \"7\"");
    expect(l, "group /api/*");
    expect(l, "filters headers");
    expect(l, "lost  any /api/*: matches too, but at segment 2 a literal goes before a splat");
    expect(l, "lost  PUT /api/users/:id: takes PUT only");
    expect(l, "near  any /api/users/me: segment 3 is \"7\", not \"me\"");
    expect(l, "t.yml:8");
    unload(l);
}

Test(explain, losses)
{
    struct load *l = load(config);

    cr_expect_not(ask(l, "PUT", "/x", ""));
    expect(l, "405");
    expect(l, "takes GET, HEAD only");
    cr_expect_not(ask(l, "GET", "relative", ""));
    expect(l, "400");
    cr_expect(ask(l, "GET", "/docs", ""));
    expect(l, "wins  GET HEAD /docs/");
    cr_expect_not(ask(l, "OPTIONS", "/x", ""));
    expect(l, "204");
    cr_expect_not(ask(l, "TRACE", "/api/users/me", ""));
    expect(l, "405");
    unload(l);
}

Test(explain, slashes_hosts_and_ports)
{
    struct load *l = load("routes:\n  - /a/b/: OK\n  - /a/c: OK\n  - /a/d/*: OK\n"
                          "  - h.test/a/e: OK\n  - :9/a/f: OK\n  - /a/b/:id/x: OK\n");

    cr_expect_not(ask(l, "GET", "/a/b", ""));
    expect(l, "404");
    expect(l, "/a/b/: the path has no slash at its end");
    (void)ask(l, "GET", "/a/c/", "");
    expect(l, "/a/c: the path has a slash at its end");
    (void)ask(l, "GET", "/a/d", "");
    expect(l, "/a/d/*: the path has no slash at its end");
    (void)ask(l, "GET", "/a/e", "other");
    expect(l, "h.test/a/e: host is \"other\", not \"h.test\"");
    (void)ask(l, "GET", "/a/f", "");
    expect(l, ":9/a/f: serves port 9, not 8080");
    (void)ask(l, "GET", "/a/b//x", "");
    expect(l, "segment 3 is empty, :id needs a value");
    (void)ask(l, "GET", "/a/b/1/x/y", "");
    expect(l, "the path goes on after it");
    unload(l);
}

Test(explain, the_tree)
{
    struct load *l = load(config);
    struct ag_buf b = ag_buf(l->out, sizeof(l->out) - 1);

    ag_explain_tree(l->s, &b, false);
    l->out[b.len] = 0;
    expect(l, "any host\n");
    expect(l, "any host, port 9001\n");
    expect(l, "api.test\n");
    expect(l, "302 -> /v2/:x");
    expect(l, "204");
    expect(l, "in /api/*");
    cr_expect_lt(strstr(l->out, "/api/users/me"), strstr(l->out, "/api/users/:id"));
    cr_expect_lt(strstr(l->out, "/api/users/:id"), strstr(l->out, "  /api/*  "), "%s", l->out);
    cr_expect_null(strstr(l->out, "\x1b"));
    b = ag_buf(l->out, sizeof(l->out) - 1);
    ag_explain_tree(l->s, &b, true);
    l->out[b.len] = 0;
    expect(l, "\x1b[");
    unload(l);
}

/* A buffer that is too small is reported, not overrun. */
Test(explain, little_room)
{
    struct load *l = load(config);
    struct ag_buf all = ag_buf(l->out, sizeof(l->out));

    ag_explain_tree(l->s, &all, true);
    cr_assert_not(all.overflow);
    for (size_t cap = 0; cap < all.len; cap += 7) {
        uint8_t *room = malloc(cap + 1);
        struct ag_buf b = ag_buf(room, cap);

        AG_ASSERT(room);
        ag_explain_tree(l->s, &b, true);
        cr_expect(b.overflow);
        b = ag_buf(room, cap / 8);
        (void)ag_explain_request(l->s, AG_SPAN("GET"), AG_SPAN("/api/users/7"), AG_SPAN(""), 0, &b,
                                 true);
        cr_expect(b.overflow);
        free(room);
    }
    unload(l);
}

static const struct {
    const char *yaml;
    uint32_t line; /* of the one warning; 0: none */
    const char *what;
} warned[] = {
    {"routes:\n  - /a: OK\n  - GET /a: OK\n  - /b/*: OK\n  - /b/c: OK\n", 0, ""},
    {"routes:\n  - /: /d/\n  - /*: OK\n", 3, "serves only what"},
    {"routes:\n  - /*: OK\n  - /: /d/\n", 3, "never used"},
    {"routes:\n  - GET /d/*: OK\n  - /d/: /d/\n", 3, "never used"},
    {"routes:\n  - :9001/x: OK\n", 2, "no listener has port 9001"},
    {"routes:\n  - /:a/x: OK\n  - /y/:b: OK\n", 3, "\"/y/:b\" goes first"},
    {"routes:\n  - GET /:a/x: OK\n  - PUT /y/:b: OK\n", 0, ""},
    {"routes:\n  - a.test/:a/x: OK\n  - /y/:b: OK\n", 0, ""},
    /* HEAD goes to who names it, wherever it stands */
    {"routes:\n  - GET /h: OK\n  - HEAD /h: 204\n", 0, ""},
    {"routes:\n  - HEAD /h: 204\n  - GET /h: OK\n", 0, ""},
    {"routes:\n  - GET HEAD /d/*: OK\n  - GET /d/: /d/\n", 3, "never used"},
    {"routes:\n  - GET /d/*: OK\n  - GET HEAD /d/: /d/\n", 0, ""},
};

Test(explain, a_named_head_goes_before_an_implied_one)
{
    struct load *l = load("routes:\n  - GET /h: OK\n  - HEAD /h: 204\n");

    cr_expect(ask(l, "HEAD", "/h", ""));
    expect(l, "wins  HEAD /h   204");
    expect(l, "lost  GET /h: matches too, but the other names the method");
    unload(l);
}

Test(explain, warnings)
{
    for (size_t i = 0; i < AG_COUNT(warned); i++) {
        struct load *l = load(warned[i].yaml);
        struct ag_arena arena;
        struct ag_diags diags;
        const struct ag_diag *d;

        ag_arena_init(&arena, NULL, 0);
        ag_diags_init(&diags, &arena);
        ag_explain_warnings(l->s, &diags);
        d = diags.first;
        cr_expect_eq(diags.warnings, warned[i].line ? 1 : 0, "%s: %s", warned[i].yaml,
                     d ? d->what : "none");
        if (d && warned[i].line) {
            cr_expect_eq(d->pos.line, warned[i].line);
            cr_expect(strstr(d->what, warned[i].what), "%s: %s", warned[i].yaml, d->what);
        }
        cr_expect_eq(diags.errors, 0);
        ag_arena_release(&arena);
        unload(l);
    }
}

Test(explain, limits_that_hold_and_where_they_differ)
{
    struct load *l =
        load("server:\n"
             "  listen:\n"
             "    - ':8080'\n"
             "    - {address: '127.0.0.1:81', limits: {max_body: 1g, idle_timeout: 5m}}\n"
             "groups:\n"
             "  - {match: /api/*, limits: {max_body: 1500}}\n"
             "routes:\n"
             "  /: /dist/\n"
             "  GET /same: {action: OK, limits: {min_rate: 240}}\n"
             "  /up: {action: '*', limits: {body_timeout: 1500ms}, stream: true}\n");
    struct ag_buf b = ag_buf(l->out, sizeof(l->out) - 1);
    static const char *const wanted[] = {
        "limits of :8080\n  header_timeout: 10s, idle_timeout: 75s, max_line: 8k, ",
        ", max_header: 32k, max_fields: 100, max_discard: 256k, max_requests: 0, ",
        ", max_connections: 0\n  max_body: 10m, min_rate: 240, body_grace: 5s, ",
        ", body_timeout: 30s, min_read_rate: 240, write_timeout: 30s, stream: grpc\n",
        "\nlimits of 127.0.0.1:81\n",
        "idle_timeout: 5m, ",
        "  max_body: 1g, ",
        "limits of /api/* in GET HEAD /\n  max_body: 1500\n",
        "limits of any /up\n  body_timeout: 1500ms, stream: true\n",
    };

    ag_explain_limits(l->s, &b);
    cr_assert(!b.overflow);
    b.ptr[b.len] = 0;
    for (size_t i = 0; i < AG_COUNT(wanted); i++) {
        cr_expect(strstr(l->out, wanted[i]), "%s\nis not in\n%s", wanted[i], l->out);
    }
    cr_expect(!strstr(l->out, "/same"), "it says what holds anyway");
    unload(l);
}
