/*
 * Goal: a config becomes the routes, chains and limits that SPEC.md sections 3, 4 and 7 say; groups
 * guard every path that is theirs, and never change which route wins.
 * Method: configs in YAML through the real reader; a filter of the test's own that only has a label.
 * Random routes and groups are compared with a matcher that looks at each group by itself.
 */
#include "filters/filter.h"
#include "router/snapshot.h"

#include <criterion/criterion.h>
#include <stdio.h>

/* ---- a filter with a label ---- */

struct label {
    struct ag_span text;
};

static enum ag_status label_configure(struct ag_filter_build *b, const struct ag_node *n,
                                      const void **out_settings)
{
    struct label *l = ag_arena_zalloc(b->arena, sizeof(*l));

    if (n->kind == AG_NODE_SEQ) {
        return AG_EINVAL; /* and says nothing of it */
    }
    if (n->kind == AG_NODE_SCALAR) {
        l->text = n->text;
    } else if (ag_node_get(n, "text")) {
        l->text = ag_node_get(n, "text")->text;
    } else {
        l->text = AG_SPAN("default");
    }
    *out_settings = l;
    return AG_OK;
}

static const struct ag_filter_ops label_ops = {
    .name = "label", .state_bytes = 24, .configure = label_configure};
static const struct ag_filter_ops *const test_filters[] = {&label_ops};

static void setup(void)
{
    ag_filter_register_tests(test_filters, AG_COUNT(test_filters));
}

TestSuite(compile, .init = setup);

/* ---- loading ---- */

struct load {
    struct ag_arena arena;
    struct ag_diags diags;
    struct ag_source source;
    struct ag_snapshot *s;
    char text[4096]; /* of all diagnoses */
};

static struct load *load(const char *yaml)
{
    struct load *l = calloc(1, sizeof(*l));
    const struct ag_node *root;
    size_t n = 0;

    AG_ASSERT(l);
    ag_arena_init(&l->arena, NULL, 0);
    ag_diags_init(&l->diags, &l->arena);
    l->source = (struct ag_source){"t.yml", ag_span_str(yaml)};
    root = ag_config_parse_yaml(&l->source, &l->diags);
    if (root) {
        l->s = ag_snapshot_compile(&l->arena, root, "/nonexistent", NULL, &l->diags);
    }
    for (const struct ag_diag *d = l->diags.first; d && n < sizeof(l->text); d = d->next) {
        if (d->severity == AG_SEV_ERROR) {
            n += (size_t)snprintf(l->text + n, sizeof(l->text) - n, "%u:%u %s; %s\n", d->pos.line,
                                  d->pos.col, d->what, d->hint ? d->hint : "");
        }
    }
    return l;
}

static void unload(struct load *l)
{
    ag_snapshot_free(l->s);
    ag_arena_release(&l->arena);
    free(l);
}

static const struct ag_route *find(const struct load *l, const char *method, const char *host,
                                   const char *path)
{
    struct ag_trie_query q = {.host = ag_span_str(host),
                              .port = 8080,
                              .path = ag_span_str(path),
                              .method = ag_method_from_name(ag_span_str(method)),
                              .method_name = ag_span_str(method)};

    return ag_snapshot_find(l->s, &q);
}

/* "pattern filter,filter", or "none". */
static const char *seen(const struct load *l, const char *method, const char *path)
{
    static char text[256];
    const struct ag_route *r = find(l, method, "", path);
    size_t n = 0;

    if (!r) {
        return "none";
    }
    n = (size_t)snprintf(text, sizeof(text), "%.*s", (int)r->pattern.text.len,
                         (const char *)r->pattern.text.ptr);
    for (uint16_t i = 0; i < r->filters.count; i++) {
        const struct label *s = r->filters.v[i].settings;

        n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%.*s", i ? "," : " ", (int)s->text.len,
                              (const char *)s->text.ptr);
    }
    return text;
}

Test(compile, the_six_lines)
{
    struct load *l =
        load("routes:\n"
             "  \"/\": \"/dist/\"\n"
             "  \"/ping\": \"http://auth/ping\"\n"
             "  GET POST PATCH /api/mock/rude: FORBIDDEN {\"msg\":\"GO PATCH UR MUM!\"}\n"
             "  GET /fastest/ever/ok: OK\n"
             "  /a/b/c: *\n"
             "  /a/b/c-forbidden: FORBIDDEN *\n");

    cr_assert(l->s, "%s", l->text);
    cr_expect_eq(l->s->declared_count, 6);
    cr_expect_str_eq(seen(l, "GET", "/"), "/");
    cr_expect_str_eq(seen(l, "GET", "/deep/below"), "/");
    cr_expect_str_eq(seen(l, "POST", "/deep/below"), "none");
    cr_expect_str_eq(seen(l, "POST", "/ping"), "/ping");
    cr_expect_str_eq(seen(l, "PATCH", "/api/mock/rude"), "/api/mock/rude");
    cr_expect_str_eq(seen(l, "DELETE", "/api/mock/rude"), "none");
    cr_expect_str_eq(seen(l, "HEAD", "/fastest/ever/ok"), "/fastest/ever/ok");
    cr_expect_str_eq(seen(l, "X", "/a/b/c"), "/a/b/c");
    cr_expect_eq(find(l, "GET", "", "/ping")->limits->max_body_bytes, 10u << 20);
    unload(l);
}

Test(compile, limits_of_listener_group_and_route)
{
    struct load *l = load("server:\n"
                          "  listen:\n"
                          "    - \":8080\"\n"
                          "    - {address: \":81\", limits: {max_body: 1k, min_rate: 9}}\n"
                          "groups:\n"
                          "  - match: /g/*\n"
                          "    stream: true\n"
                          "    limits: {min_rate: 2k, body_timeout: 3s}\n"
                          "routes:\n"
                          "  /a: OK\n"
                          "  /g/a: OK\n"
                          "  /g/b: {action: OK, stream: false}\n"
                          "  /b: {action: OK, limits: {max_body: 2k, write_timeout: 4s,\n"
                          "       min_read_rate: 0, body_grace: 1s}}\n");
    const struct ag_route_limits *of;

    cr_assert(l->s, "%s", l->text);
    cr_assert_eq(l->s->model->route_limit_count, 2);
    of = find(l, "GET", "", "/a")->limits;
    cr_expect(of[0].max_body_bytes == 10u << 20 && of[0].min_rate == 240);
    cr_expect(of[1].max_body_bytes == 1024 && of[1].min_rate == 9);
    of = find(l, "GET", "", "/g/a")->limits;
    cr_expect(of[0].max_body_bytes == 10u << 20 && of[1].max_body_bytes == 1024);
    cr_expect(of[0].min_rate == 2048 && of[1].min_rate == 2048);
    cr_expect(of[0].body_timeout_ms == 3000 && of[0].stream == AG_STREAMING_ON);
    of = find(l, "GET", "", "/g/b")->limits;
    cr_expect(of[1].stream == AG_STREAMING_OFF && of[1].min_rate == 2048);
    of = find(l, "GET", "", "/b")->limits;
    cr_expect(of[0].max_body_bytes == 2048 && of[1].max_body_bytes == 2048);
    cr_expect(of[0].min_rate == 240 && of[1].min_rate == 9);
    cr_expect(of[0].write_timeout_ms == 4000 && of[0].min_read_rate == 0);
    cr_expect(of[0].body_grace_ms == 1000 && of[0].stream == AG_STREAMING_AUTO);
    unload(l);
}

Test(compile, a_directory_owns_its_subtree)
{
    struct load *l = load("routes:\n"
                          "  /docs/: /dist/docs/\n"
                          "  /u/:id: /home/:id/\n"
                          "  /one: /dist/one.html\n"
                          "  /docs2: /d/\n"
                          "  GET /docs2: OK\n");
    const struct ag_route *r;

    cr_assert(l->s, "%s", l->text);
    cr_expect_str_eq(seen(l, "GET", "/docs/a/b"), "/docs/");
    cr_expect_str_eq(seen(l, "GET", "/docs/"), "/docs/");
    cr_expect_str_eq(seen(l, "GET", "/docs"), "/docs/", "is redirected by the action");
    cr_expect_str_eq(seen(l, "GET", "/one/x"), "none");
    cr_expect_str_eq(seen(l, "GET", "/docs2"), "/docs2");
    cr_expect_eq(find(l, "GET", "", "/docs2")->decl.kind, AG_ACTION_FIXED, "a declared one first");
    r = find(l, "GET", "", "/u/7/x/y");
    cr_assert(r);
    cr_assert_eq(r->match.param_count, 2);
    cr_expect(r->match.params[1].splat && r->match.params[1].segment == 2);
    unload(l);
}

Test(compile, groups_guard_what_wider_routes_serve)
{
    struct load *l = load("plugins:\n"
                          "  auth: {label: auth}\n"
                          "  log: {label: {text: log}}\n"
                          "  short: {label: x, text: short}\n"
                          "groups:\n"
                          "  - match: /admin/secret/*\n"
                          "    filters: [short, auth]\n"
                          "    limits: {max_body: 1k}\n"
                          "  - match: /admin/*\n"
                          "    filters: [auth, log]\n"
                          "    limits: {max_body: 2k, min_rate: 7}\n"
                          "routes:\n"
                          "  /: /dist/\n"
                          "  /admin/users/:id:\n"
                          "    action: OK\n"
                          "    filters: [{label: own}, log]\n"
                          "    limits: {max_body: 3k}\n"
                          "  /:any/:id: OK\n"
                          "  GET /admin/secret/x: OK\n");
    const struct ag_route *r;

    cr_assert(l->s, "%s", l->text);
    cr_expect_str_eq(seen(l, "GET", "/x/y/z"), "/");
    cr_expect_str_eq(seen(l, "GET", "/admin/x/y"), "/ auth,log");
    cr_expect_str_eq(seen(l, "GET", "/admin"), "/ auth,log", "the door itself");
    cr_expect_str_eq(seen(l, "GET", "/admin/"), "/ auth,log");
    cr_expect_str_eq(seen(l, "GET", "/administrator"), "/");
    cr_expect_str_eq(seen(l, "GET", "/admin/secret"), "/:any/:id auth,log,short");
    cr_expect_str_eq(seen(l, "GET", "/admin/secret/a"), "/ auth,log,short", "outer ones first");
    cr_expect_str_eq(seen(l, "GET", "/admin/secret/x"), "/admin/secret/x auth,log,short");
    cr_expect_str_eq(seen(l, "GET", "/admin/users/7"), "/admin/users/:id auth,log,own",
                     "a named filter runs once");
    cr_expect_str_eq(seen(l, "GET", "/x/7"), "/:any/:id");
    cr_expect_str_eq(seen(l, "GET", "/admin/7"), "/:any/:id auth,log");
    cr_expect_eq(find(l, "GET", "", "/admin/q/q")->limits->max_body_bytes, 2048);
    cr_expect_eq(find(l, "GET", "", "/admin/secret/a")->limits->max_body_bytes, 1024);
    cr_expect_eq(find(l, "GET", "", "/admin/secret/a")->limits->min_rate, 7);
    cr_expect_eq(find(l, "GET", "", "/admin/users/7")->limits->max_body_bytes, 3072);
    r = find(l, "GET", "", "/admin/7");
    cr_expect_eq(r->match.param_count, 2, "parameters stay those of the origin");
    cr_expect_eq(r->action.settings, find(l, "GET", "", "/x/7")->action.settings);
    cr_expect_eq(r->split_of, find(l, "GET", "", "/x/7")->id);
    r = find(l, "GET", "", "/admin/secret/a");
    cr_expect_eq(r->filters.state_bytes, 3 * 32);
    cr_expect_eq(r->filters.v[1].state_offset, 32);
    unload(l);
}

Test(compile, groups_by_host_and_port)
{
    struct load *l = load("groups:\n"
                          "  - {match: 'api.test/*', filters: [{label: api}]}\n"
                          "  - {match: '*.test/*', filters: [{label: test}]}\n"
                          "  - {match: ':8080/p', filters: [{label: port}]}\n"
                          "routes:\n"
                          "  /p: OK\n"
                          "  other/p: NOT_FOUND\n");
    const struct ag_route *r;

    cr_assert(l->s, "%s", l->text);
    r = find(l, "GET", "api.test", "/p");
    cr_expect_eq(r->filters.count, 3);
    cr_expect_eq(find(l, "GET", "x.test", "/p")->filters.count, 2);
    cr_expect_eq(find(l, "GET", "x", "/p")->filters.count, 1);
    cr_expect_eq(find(l, "GET", "other", "/p")->filters.count, 1);
    unload(l);
}

Test(compile, group_timeouts_reach_the_proxy)
{
    struct load *l = load("groups:\n"
                          "  - {match: /slow/*, timeouts: {read: 9s, connect: 8s}}\n"
                          "routes:\n"
                          "  /*: http://127.0.0.1:1\n"
                          "  /slow/x:\n"
                          "    action: http://127.0.0.1:1\n"
                          "    timeouts: {read: 1s}\n");
    const struct ag_route *r, *x;

    cr_assert(l->s, "%s", l->text);
    r = find(l, "GET", "", "/slow/y");
    cr_expect_null(find(l, "GET", "", "/y")->decl.options);
    cr_assert(ag_node_get(ag_node_get(r->decl.options, "timeouts"), "read"));
    cr_expect_neq(r->action.settings, find(l, "GET", "", "/y")->action.settings);
    x = find(l, "GET", "", "/slow/x");
    cr_expect(ag_span_eq(ag_node_get(ag_node_get(x->decl.options, "timeouts"), "read")->text,
                         AG_SPAN("1s")));
    cr_expect(ag_span_eq(ag_node_get(ag_node_get(x->decl.options, "timeouts"), "connect")->text,
                         AG_SPAN("8s")));
    unload(l);
}

static const struct {
    const char *yaml, *want; /* parts of the diagnoses */
} mistakes[] = {
    {"routes:\n  /x: OK\n  /x: NOT_FOUND\n", "there is"},
    {"routes:\n  - /x: OK\n  - GET /x: OK\n  - PUT GET /x: OK\n",
     "4:13 the route \"/x\" is there twice; "
     "the first is at t.yml:3:9"},
    {"routes:\n  - /u/:id: OK\n  - /u/:name: OK\n", "twice"},
    {"routes:\n  - A.test/: OK\n  - a.test/: OK\n", "twice"},
    {"routes:\n  /x:\n    filters: []\n", "no action"},
    {"routes:\n  /x:\n    action: OK\n    methosd: [GET]\n", "did you mean methods?"},
    {"routes:\n  GET /x:\n    action: OK\n    methods: [PUT]\n", "names methods already"},
    {"routes:\n  /x:\n    action: OK\n    methods: [get]\n", "did you mean GET?"},
    {"routes:\n  /x:\n    action: OK\n    methods: []\n", "no method"},
    {"routes:\n  /x:\n    action: OK\n    limits: {max_bdy: 1k}\n", "did you mean max_body?"},
    {"routes:\n  /x:\n    action: OK\n    filters: [lable]\n", "no plugin or filter"},
    {"routes:\n  /x:\n    action: OK\n    filters: [hedaers]\n", "did you mean headers?"},
    {"routes:\n  /x:\n    action: OK\n    filters: [{hedaers: {}}]\n", "did you mean headers?"},
    {"routes:\n  /x:\n    action: OK\n    filters: [{label: a, headers: {}}]\n", "one key"},
    {"routes:\n  /x:\n    action: OK\n    filters: [{label: []}]\n",
     "4:23 label cannot be made of what is written"},
    {"routes:\n  /x:\n    action: OK\n    methods:\n", "this is no method"},
    {"plugins:\n  a: {headers: {set: {X-A: }}}\nroutes:\n  /x: OK\n",
     "X-A: expected text, found nothing"},
    {"plugins:\n  a: {nothing: 1}\nroutes:\n  /x: OK\n", "names no filter"},
    {"plugins:\n  a: {label: 1, headers: {}}\nroutes:\n  /x: OK\n", "several filters"},
    {"groups:\n  - {match: GET /x/*}\nroutes:\n  /x: OK\n", "every method"},
    {"groups:\n  - {match: /x*y}\nroutes:\n  /x: OK\n", "'*'"},
    {"groups:\n  - {match: /x/*, limits: {max_body: x}}\nroutes:\n  /x: OK\n", "2:38"},
    {"groups:\n  - {match: /*, timeouts: 5s}\nroutes:\n  /x: OK\n",
     "2:27 timeouts must be a mapping"},
    {"groups:\n  - {match: /*, timeouts: {read: 5s}}\n"
     "routes:\n  /x:\n    action: http://127.0.0.1:1\n    timeouts: 5s\n",
     "6:15 timeouts must be a mapping"},
    {"routes:\n  /x: FORBIDEN\n  GET /y: OKK\n", "did you mean OK?"},
    {"plugins:\n  a: {headers: {set: {Connection: x}}}\nroutes:\n  /x: OK\n",
     "Connection cannot be changed"},
    {"plugins:\n  a: {headers: {set: {\"X Y\": x}}}\nroutes:\n  /x: OK\n", "not a field name"},
    {"plugins:\n  a: {headers: {set: {X-Y: \"a\\nb\"}}}\nroutes:\n  /x: OK\n", "not a field value"},
    {"plugins:\n  a: {headers: {ste: {X-Y: 1}}}\nroutes:\n  /x: OK\n", "did you mean set?"},
    {"plugins:\n  a: {headers: {set: {X-Y: \"{remote.pi}\"}}}\nroutes:\n  /x: OK\n",
     "did you mean remote.ip?"},
};

Test(compile, reports_mistakes)
{
    for (size_t i = 0; i < AG_COUNT(mistakes); i++) {
        struct load *l = load(mistakes[i].yaml);

        cr_expect_null(l->s, "%s", mistakes[i].yaml);
        if (i > 0) { /* the first: duplicate keys are found by the reader or here */
            cr_expect(strstr(l->text, mistakes[i].want), "%s\n%s", mistakes[i].yaml, l->text);
        }
        unload(l);
    }
}

Test(compile, all_mistakes_in_one_run)
{
    struct load *l = load("plugins:\n  a: {nothing: 1}\n"
                          "routes:\n  /x: FORBIDEN\n  /y*: OK\n  /z: OKK\n");

    cr_expect_null(l->s);
    cr_expect_eq(l->diags.errors, 4, "%s", l->text);
    unload(l);
}

/* ---- random routes and groups ---- */

static uint64_t seed;

static uint32_t below(uint32_t n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 32) % n;
}

static size_t random_pattern(char *to, size_t cap, bool splat)
{
    static const char *const words[] = {"a", "b", ":p", ":q", "a", "b"};
    static const char *const hosts[] = {"", "", "", "h.test", "*.test"};
    uint32_t count = 1 + below(3), used = 0;
    size_t n = (size_t)snprintf(to, cap, "%s", hosts[below(AG_COUNT(hosts))]);

    for (uint32_t i = 0; i < count; i++) {
        uint32_t w = below(AG_COUNT(words));

        w = used >> w & 1u ? 0 : w; /* a parameter's name once */
        used |= w == 2 || w == 3 ? 1u << w : 0;
        n += (size_t)snprintf(to + n, cap - n, "/%s", words[w]);
    }
    if (splat) {
        n += (size_t)snprintf(to + n, cap - n, "/*");
    }
    return n;
}

static bool segment_matches(const char *want, struct ag_span got)
{
    return want[0] == ':' ? got.len > 0 : ag_span_eq(ag_span_str(want), got);
}

/* Whether a group's pattern, as text, holds for a request; "/x/" + "*" holds for "/x" too. */
static bool group_holds(const char *pattern, const char *host, const char *path)
{
    char copy[512], *save = NULL, *slash;
    struct ag_span left = ag_span_str(path);

    (void)snprintf(copy, sizeof(copy), "%s", pattern);
    slash = strchr(copy, '/');
    AG_ASSERT(slash);
    *slash = 0;
    if (copy[0] == '*' ? !(strlen(host) > strlen(copy + 1) &&
                           strcmp(host + strlen(host) - strlen(copy + 1), copy + 1) == 0)
                       : copy[0] && strcmp(copy, host) != 0) {
        return false;
    }
    for (char *s = strtok_r(slash + 1, "/", &save); s; s = strtok_r(NULL, "/", &save)) {
        struct ag_span got;

        if (strcmp(s, "*") == 0) {
            return true;
        }
        if (left.len == 0) {
            return false;
        }
        left = ag_span_sub(left, 1, left.len);
        got = ag_span_sub(left, 0, ag_span_find(left, '/'));
        if (!segment_matches(s, got)) {
            return false;
        }
        left = ag_span_sub(left, got.len, left.len);
    }
    return left.len == 0;
}

static void check_request(const struct load *l, char groups[][64], uint32_t count, const char *host,
                          const char *path)
{
    struct ag_trie_query q = {.host = ag_span_str(host),
                              .port = 8080,
                              .path = ag_span_str(path),
                              .method = AG_METHOD_GET};
    uint32_t id = ag_trie_lookup(l->s->trie, &q), want = 0, got = 0;
    const struct ag_route *r = ag_snapshot_find(l->s, &q);

    cr_assert_eq(r != NULL, id != AG_TRIE_NONE);
    if (!r) {
        return;
    }
    cr_assert_eq(r->split_of, l->s->routes[id].split_of, "a group changed the route of %s", path);
    for (uint32_t i = 0; i < count; i++) {
        want |= group_holds(groups[i], host, path) ? 1u << i : 0;
    }
    for (uint16_t i = 0; i < r->filters.count; i++) {
        const struct label *s = r->filters.v[i].settings;

        got |= 1u << (s->text.ptr[0] - 'A');
    }
    cr_assert_eq(got, want, "%s%s by %.*s: groups %x, not %x", host, path, (int)r->pattern.text.len,
                 (const char *)r->pattern.text.ptr, got, want);
}

Test(compile, groups_hold_for_all_their_paths)
{
    static const char *const hosts[] = {"", "h.test", "x.test", "other"};
    static const char *const words[] = {"a", "b", "c", ""};
    static char yaml[4096], groups[5][64], path[64];
    uint32_t guarded = 0;

    for (uint64_t round = 1; round <= 300; round++) {
        uint32_t count, routes;
        struct load *l;
        size_t n;

        seed = round * 0x9e3779b97f4a7c15u;
        count = 1 + below(5);
        n = (size_t)snprintf(yaml, sizeof(yaml), "groups:\n");
        for (uint32_t i = 0; i < count; i++) {
            (void)random_pattern(groups[i], sizeof(groups[i]), below(3) != 0);
            n += (size_t)snprintf(yaml + n, sizeof(yaml) - n,
                                  "  - {match: '%s', filters: [{label: %c}]}\n", groups[i],
                                  (int)('A' + i));
        }
        n += (size_t)snprintf(yaml + n, sizeof(yaml) - n, "routes:\n  - /*: OK\n");
        routes = below(6);
        for (uint32_t i = 0; i < routes; i++) {
            char pattern[64];

            (void)random_pattern(pattern, sizeof(pattern), below(2));
            /* One custom method each, beside GET on some, so that no two are the same. */
            n += (size_t)snprintf(yaml + n, sizeof(yaml) - n, "  - M%u %s: OK\n", i, pattern);
            n += (size_t)snprintf(yaml + n, sizeof(yaml) - n, "  - p%u.test%s: OK\n", i,
                                  strchr(pattern, '/'));
        }
        (void)random_pattern(path, sizeof(path), false);
        (void)snprintf(yaml + n, sizeof(yaml) - n, "  - GET %s: OK\n", path);
        l = load(yaml);
        cr_assert(l->s, "%s\n%s", yaml, l->text);
        for (int i = 0; i < 60; i++) {
            size_t at = 0;
            uint32_t depth = 1 + below(4);

            for (uint32_t k = 0; k < depth; k++) {
                at += (size_t)snprintf(path + at, sizeof(path) - at, "/%s",
                                       words[below(AG_COUNT(words))]);
            }
            check_request(l, groups, count, hosts[below(AG_COUNT(hosts))], path);
            guarded += find(l, "GET", "", path)->filters.count > 0;
        }
        unload(l);
    }
    cr_expect_gt(guarded, 1000);
}
