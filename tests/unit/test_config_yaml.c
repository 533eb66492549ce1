/*
 * Goal: route lines come out verbatim and true to their positions, whatever YAML thinks of them; the
 * rest is YAML, with positions; mistakes are named where they are.
 * Method: tables of texts with the expected nodes or the first diagnosis; random mutations of good
 * texts, checked against the source (a line's text is what stands at its position).
 */
#include "tests/unit/config_util.h"

static struct ag_node *parse(struct fixture *f, const char *text)
{
    struct ag_source *src = ag_config_source(&f->arena, "t", ag_span_str(text));
    struct ag_node *root = ag_config_parse_yaml(src, &f->diags);

    if (f->diags.first) {
        cr_assert(!root || f->diags.errors > 0);
    }
    return root;
}

static const struct ag_node *routes_of(struct fixture *f, const char *text)
{
    struct ag_node *root = parse(f, text);

    cr_assert_not_null(root, "%s\n%s", text, f->diags.first ? f->diags.first->what : "");
    cr_assert_eq(f->diags.errors, 0, "%s\n%s", text, f->diags.first ? f->diags.first->what : "");
    return must_get(root, "routes");
}

static void check_line(const struct ag_node *n, uint32_t line, uint32_t col, const char *text)
{
    cr_assert_not_null(n, "missing: %s", text);
    cr_assert(n->dsl && n->kind == AG_NODE_SCALAR && n->key.len == 0, "%s", text);
    cr_assert(text_is(n->text, text), "\"%.*s\" is not %s", (int)n->text.len,
              (const char *)n->text.ptr, text);
    cr_assert(n->pos.line == line && n->pos.col == col, "%s: at %u:%u, not %u:%u", text,
              n->pos.line, n->pos.col, line, col);
}

static void check_entry(const struct ag_node *n, uint32_t line, uint32_t col, const char *key)
{
    cr_assert_not_null(n, "missing: %s", key);
    cr_assert(!n->dsl && text_is(n->key, key), "\"%.*s\" is not %s", (int)n->key.len,
              (const char *)n->key.ptr, key);
    cr_assert(n->key_pos.line == line && n->key_pos.col == col, "%s: at %u:%u, not %u:%u", key,
              n->key_pos.line, n->key_pos.col, line, col);
}

/* SPEC.md section 1, verbatim. */
static const char *const promises[] = {
    "\"/\": \"/dist/\"",
    "\"/ping\": \"http://auth/ping\"",
    "GET POST PATCH /api/mock/rude: FORBIDDEN {\"msg\":\"GO PATCH UR MUM!\"}",
    "GET /fastest/ever/ok: OK",
    "/a/b/c: *",
    "/a/b/c-forbidden: FORBIDDEN *",
};

/* All promises behind `head`, each after `lead`. */
static void check_promises(const char *head, const char *lead, const char *eol)
{
    struct fixture f;
    fixture_init(&f);
    char text[1024];
    size_t at = (size_t)snprintf(text, sizeof(text), "%s%s", head, eol);
    uint32_t line = 1;

    for (const char *c = head; (c = strchr(c, '\n')); c++) {
        line++;
    }
    for (size_t i = 0; i < AG_COUNT(promises); i++) {
        at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%s%s", lead, promises[i], eol);
    }
    const struct ag_node *routes = routes_of(&f, text);
    cr_assert_eq(child_count(routes), AG_COUNT(promises));
    for (size_t i = 0; i < AG_COUNT(promises); i++) {
        check_line(child_at(routes, i), line + 1 + (uint32_t)i, (uint32_t)strlen(lead) + 1,
                   promises[i]);
    }
    fixture_deinit(&f);
}

Test(config_yaml, the_six_promises_in_every_form)
{
    check_promises("routes:", "  ", "\n");
    check_promises("routes:", " ", "\r\n");
    check_promises("routes: # comment", "        ", "\n");
    check_promises("\"routes\" :", "  ", "\n");
    check_promises("server:\n  workers: 2\n\nroutes:", "    ", "\n");
    check_promises("routes:", "  - ", "\n");
    check_promises("routes:", "- ", "\n");
    check_promises("routes:", "  -   ", "\n");
    check_promises("routes: |", "  ", "\n");
    check_promises("routes: |-", "   ", "\r\n");
    check_promises("routes: |2+ # comment", "  ", "\n");
    check_promises("---\n# \xc3\xbc\nroutes:", "  ", "\n");
    check_promises("server: {user: \"\xc3\xbc\xe4\xb8\xad\"}\nroutes:", "  ", "\n");
}

Test(config_yaml, lines_that_yaml_would_spoil)
{
    static const char *const lines[] = {
        "/x: OK {\"m\":\"a #b\"}",
        "/x: OK {\"msg\":\"x: y\"}",
        "/x: OK it's \"fine\"",
        "/x: 'single",
        "/x: @at",
        "/x: %percent",
        "/x: `tick`",
        "/x: OK # comment",
        "/x: OK\t",
        "no colon at all",
        "*.example.com/: OK",
        ":9001/ping: OK",
        "/x: - y",
        "/x: ? y",
        "/x: \"unclosed",
        "? /x: OK",
        "/x: a: b: c",
        "\"/a: b\": OK",
        "/x: \xe4\xb8\xad\xc3\xbc",
        "@: %",
        "/users/:id: http://a:80/:id",
        "<<: *base",
        "/x:OK",
        "\"/x\\\"y\": OK",
    };

    for (size_t i = 0; i < AG_COUNT(lines); i++) {
        static const char *const forms[][2] = {
            {"routes:\n", "  "}, {"routes:\n", "- "}, {"routes: |\n", "  "}};
        for (size_t form = 0; form < AG_COUNT(forms); form++) {
            struct fixture f;
            fixture_init(&f);
            char text[256];
            (void)snprintf(text, sizeof(text), "%s%s%s\nserver: {workers: 3}\n", forms[form][0],
                           forms[form][1], lines[i]);
            check_line(child_at(routes_of(&f, text), 0), 2, 3, lines[i]);
            struct ag_node *root = parse(&f, text);
            const struct ag_node *workers = must_get(must_get(root, "server"), "workers");
            cr_assert(text_is(workers->text, "3"));
            cr_assert(workers->pos.line == 3 && workers->pos.col == 19);
            fixture_deinit(&f);
        }
    }
}

Test(config_yaml, long_forms_between_lines)
{
    struct fixture f;
    fixture_init(&f);
    const struct ag_node *r = routes_of(&f, "routes:\n"
                                            "  /a: OK\n"
                                            "  \"/b \\u00fc\":\n"
                                            "    # a comment\n"
                                            "    action: \"*\"\n"
                                            "    methods: [GET,\n"
                                            "      PUT]\n"
                                            "\n"
                                            "  GET *.example.com/c: {action: OK}  # trailing\n"
                                            "  /d: *\n"
                                            "  /e: {\n"
                                            "    action: 'it}s', # /z: *\n"
                                            "  }\n"
                                            "  GET \"/f\": [1]\n"
                                            "  /g: |\n"
                                            "    OK line one\n"
                                            "    # line: two\n"
                                            "  /h: >-\n"
                                            "    OK a\n"
                                            "    b\n"
                                            "  # last\n"
                                            "  /i: OK\n");
    cr_assert_eq(child_count(r), 9);
    check_line(child_at(r, 0), 2, 3, "/a: OK");
    check_entry(child_at(r, 1), 3, 3, "/b \xc3\xbc");
    cr_assert_eq(child_at(r, 1)->kind, AG_NODE_MAP);
    const struct ag_node *action = must_get(child_at(r, 1), "action");
    cr_assert(text_is(action->text, "*") && action->quoted);
    cr_assert(action->pos.line == 5 && action->pos.col == 13);
    cr_assert(action->key_pos.line == 5 && action->key_pos.col == 5);
    cr_assert_eq(child_count(must_get(child_at(r, 1), "methods")), 2);
    check_entry(child_at(r, 2), 9, 3, "GET *.example.com/c");
    check_line(child_at(r, 3), 10, 3, "/d: *");
    check_entry(child_at(r, 4), 11, 3, "/e");
    cr_assert(text_is(must_get(child_at(r, 4), "action")->text, "it}s"));
    check_entry(child_at(r, 5), 14, 3, "GET \"/f\"");
    cr_assert_eq(child_at(r, 5)->kind, AG_NODE_SEQ);
    check_entry(child_at(r, 6), 15, 3, "/g");
    cr_assert(text_is(child_at(r, 6)->text, "OK line one\n# line: two"));
    check_entry(child_at(r, 7), 18, 3, "/h");
    cr_assert(text_is(child_at(r, 7)->text, "OK a b"));
    check_line(child_at(r, 8), 22, 3, "/i: OK");
    fixture_deinit(&f);
}

Test(config_yaml, brackets_are_followed_as_yaml_does)
{
    struct fixture f;
    fixture_init(&f);
    const struct ag_node *r = routes_of(&f, "routes:\n"
                                            "  /a: {\n"
                                            "  x: it's fine, y: \"a\\\"}\",\n"
                                            "  z: 'b''}', # }\n"
                                            "  v: [p#q],\n"
                                            "  w: [\"r\n"
                                            "  s\"]\n"
                                            "  }\n"
                                            "  /b: *\n");
    cr_assert_eq(child_count(r), 2);
    cr_assert(text_is(must_get(child_at(r, 0), "x")->text, "it's fine"));
    cr_assert(text_is(must_get(child_at(r, 0), "y")->text, "a\"}"));
    cr_assert(text_is(must_get(child_at(r, 0), "z")->text, "b'}"));
    cr_assert(text_is(child_at(must_get(child_at(r, 0), "w"), 0)->text, "r s"));
    check_line(child_at(r, 1), 9, 3, "/b: *");
    fixture_deinit(&f);
}

Test(config_yaml, long_forms_in_lists)
{
    struct fixture f;
    fixture_init(&f);
    const struct ag_node *r = routes_of(&f, "routes:\n"
                                            "  - /a: OK\n"
                                            "  - \"/b\":\n"
                                            "      action: OK\n"
                                            "  - *.example.com/c: {action: OK}\n"
                                            "  - {\"/d\": {action: OK}, /e: OK}\n"
                                            "  -\n"
                                            "    /f: {action: OK}\n"
                                            "  - \"GET /g: OK\"\n"
                                            "  - /h: *\n");
    cr_assert_eq(child_count(r), 8);
    check_line(child_at(r, 0), 2, 5, "/a: OK");
    check_entry(child_at(r, 1), 3, 5, "/b");
    check_entry(child_at(r, 2), 5, 5, "*.example.com/c");
    check_entry(child_at(r, 3), 6, 6, "/d");
    check_entry(child_at(r, 4), 6, 26, "/e");
    check_entry(child_at(r, 5), 8, 5, "/f");
    check_line(child_at(r, 6), 9, 6, "GET /g: OK");
    check_line(child_at(r, 7), 10, 5, "/h: *");
    fixture_deinit(&f);
}

Test(config_yaml, routes_in_brackets_are_plain_yaml)
{
    struct fixture f;
    fixture_init(&f);
    const struct ag_node *r =
        routes_of(&f, "{routes: {\"/a\": \"/dist/\",\n \"/b\": {action: OK}}}");

    cr_assert_eq(child_count(r), 2);
    check_entry(child_at(r, 0), 1, 11, "/a");
    cr_assert(text_is(child_at(r, 0)->text, "/dist/"));
    check_entry(child_at(r, 1), 2, 2, "/b");
    r = routes_of(&f, "routes: [\"GET /x: OK\"]");
    check_line(child_at(r, 0), 1, 11, "GET /x: OK");
    r = routes_of(&f, "routes:\n  {\"/a\": OK}\n");
    check_entry(child_at(r, 0), 2, 4, "/a");
    fixture_deinit(&f);
}

Test(config_yaml, only_the_routes_of_the_root_are_lines)
{
    struct fixture f;
    fixture_init(&f);
    struct ag_node *root = parse(&f, "a:\n"
                                     "  routes:\n"
                                     "    /x: 1\n"
                                     "b: {\n"
                                     "routes: 2\n"
                                     "}\n"
                                     "c: \"\n"
                                     "routes:\n"
                                     "  /y: 3\"\n"
                                     "d: |\n"
                                     "  routes:\n"
                                     "    z\n"
                                     "routes:\n"
                                     "  /real: *\n"
                                     "e: 5\n");
    cr_assert_eq(f.diags.errors, 0, "%s", f.diags.first ? f.diags.first->what : "");
    const struct ag_node *x = must_get(must_get(must_get(root, "a"), "routes"), "/x");
    cr_assert(text_is(x->text, "1") && !x->dsl);
    cr_assert(text_is(must_get(must_get(root, "b"), "routes")->text, "2"));
    cr_assert(text_is(must_get(root, "c")->text, " routes: /y: 3"));
    check_line(child_at(must_get(root, "routes"), 0), 14, 3, "/real: *");
    cr_assert(text_is(must_get(root, "e")->text, "5"));
    fixture_deinit(&f);
}

Test(config_yaml, empty_files_and_sections)
{
    static const char *const texts[] = {"", "\n", "# nothing\n", "---\n", "---\n...\n", "~", "{}"};

    for (size_t i = 0; i < AG_COUNT(texts); i++) {
        struct fixture f;
        fixture_init(&f);
        struct ag_node *root = parse(&f, texts[i]);
        cr_assert(root && root->kind == AG_NODE_MAP && !root->first, "%s", texts[i]);
        cr_assert_eq(f.diags.errors, 0);
        fixture_deinit(&f);
    }
    static const char *const none[] = {"routes:",          "routes:\nserver: {}\n",
                                       "routes:\n  # x\n", "routes: |\n",
                                       "routes: {}",       "routes: []",
                                       "routes: ~"};
    for (size_t i = 0; i < AG_COUNT(none); i++) {
        struct fixture f;
        fixture_init(&f);
        cr_assert_eq(child_count(routes_of(&f, none[i])), 0, "%s", none[i]);
        fixture_deinit(&f);
    }
}

Test(config_yaml, scalars)
{
    struct fixture f;
    fixture_init(&f);
    struct ag_node *r = parse(&f, "a: ~\nb: null\nc:\nd: ''\ne: 'null'\nf: 5\ng: \"5\"\n"
                                  "h: x y # z\n\"\xc3\xbc\xc3\xbc\": \"\xc3\xbc\" # ü\ni: 1\n");

    cr_assert_eq(must_get(r, "a")->kind, AG_NODE_NULL);
    cr_assert_eq(must_get(r, "b")->kind, AG_NODE_NULL);
    cr_assert_eq(must_get(r, "c")->kind, AG_NODE_NULL);
    cr_assert_eq(must_get(r, "d")->kind, AG_NODE_SCALAR);
    cr_assert(text_is(must_get(r, "e")->text, "null") && must_get(r, "e")->quoted);
    cr_assert(!must_get(r, "f")->quoted && must_get(r, "g")->quoted);
    cr_assert(text_is(must_get(r, "h")->text, "x y"));
    /* Columns count bytes: two for each ü. */
    cr_assert_eq(must_get(r, "\xc3\xbc\xc3\xbc")->pos.col, 9);
    cr_assert_eq(must_get(r, "i")->pos.line, 10);
    fixture_deinit(&f);
}

Test(config_yaml, mistakes)
{
    static const struct bad rows[] = {
        /* route lines */
        {"routes:\n  /a: OK\n    more\n", 3, 5, "continued", "one line"},
        {"routes:\n  - /a: OK\n    more\n", 3, 5, "continued", "one line"},
        {"routes: |\n  /a: OK\n    more\n", 3, 5, "continued", "one line"},
        {"routes:\n    /a: OK\n  /b: OK\n", 3, 3, "less", "alike"},
        {"routes:\n  /a: OK\n  - /b: OK\n", 3, 3, "list entry", "all"},
        {"routes:\n  - /a: OK\n  /b: OK\n", 3, 3, "expected \"- \"", "*"},
        {"routes:\n  \t/a: OK\n", 2, 3, "tab", "spaces"},
        {"routes:\n  /a: OK\n  /b: OK\n  /a: *\n", 4, 3, "duplicate key \"/a\"", "line 2"},
        {"routes:\n  \"/a\": OK\n  /a: *\n", 3, 3, "duplicate key \"/a\"", "line 2"},
        {"routes:\n  /a: OK\n  /a: {action: OK}\n", 3, 3, "duplicate key \"/a\"", "line 2"},
        {"routes:\n  /a: {action: OK}\n  /a: OK\n", 3, 3, "duplicate key \"/a\"", "line 2"},
        {"routes:\n  /a: {x: 1}\n  /a:\n    x: 1\n", 3, 3, "duplicate key \"/a\"", "line 2"},
        {"routes:\n  \"/\\x\": {action: OK}\n", 2, 5, "escape", "JSON"},
        {"routes: yes\n", 1, 9, "routes must be", "|"},
        {"routes: >\n  /a: OK\n", 1, 9, "routes must be", "|"},
        {"routes:\n  - [1]\n", 2, 5, "a route is expected", "*"},
        {"routes:\n  /a: OK\nserver: {}\nroutes:\n  /b: *\n", 4, 1, "duplicate key \"routes\"",
         "line 1"},
        /* YAML */
        {"a: 1\nb: 2\na: 3\n", 3, 1, "duplicate key \"a\"", "line 1"},
        {"a: {b: 1, c: 2, b: 3}\n", 1, 17, "duplicate key \"b\"", "line 1"},
        {"a: *x\n", 1, 4, "aliases are not supported", "quote"},
        {"a: &x 1\n", 1, 4, "aliases are not supported", "*"},
        {"a: !!str 1\n", 1, 4, "tags are not supported", "*"},
        {"a: {b: *}\n", 1, 8, "alias", "quote"},
        {"a: b: c\n", 1, 5, "mapping values are not allowed", "quote"},
        {"server:\n  workers:4\n  x: 1\n", 3, 4, "mapping values are not allowed", "space"},
        {"server: 1\nworkers:4\nx: 1\n", 2, 1, "could not find expected ':'", "space"},
        {"server:4\n", 1, 1, "mapping of sections", "space"},
        {"- a\n", 1, 1, "mapping of sections", NULL},
        {"a:\n\tb: 1\n", 2, 1, "cannot start any token", "tabs"},
        {"\xc3\xbc: @x\n", 1, 5, "cannot start any token", "quote"},
        {"a: [1, 2\nb: 3\n", 2, 2, "did not find expected ',' or ']'", "bracket"},
        {"a: \"x\n", 2, 1, "unexpected end of stream", "quote"},
        {"a:\n    b: 1\n  c: 2\n", 3, 3, "did not find expected key", "indent"},
        {"a: {b: ${X}}\n", 1, 9, "did not find expected ',' or '}'", "${...}"},
        {"? [a]\n: 1\n", 1, 3, "a key must be plain text", NULL},
        {"a: 1\n---\nb: 2\n", 2, 1, "second document", "include"},
        /* bytes */
        {"a: \xff\n", 1, 4, "not UTF-8", "UTF-8"},
        {"\xff\xfe\n", 1, 1, "UTF-16", "UTF-8"},
        {"a: 1\nb: \x07\n", 2, 4, "control", "*"},
        {"a: 1\rb: 2\n", 1, 5, "carriage return", "*"},
        {"routes:\n  /a: OK \x1b[2J\n", 2, 10, "control", "*"},
        {"routes:\n  /a: OK \xc2\x80\n", 2, 10, "control", "*"},
    };

    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        struct fixture f;
        fixture_init(&f);
        (void)parse(&f, rows[i].text);
        check_bad(&rows[i], &f.diags);
        cr_assert_eq(f.diags.errors, 1, "%s: %u errors", rows[i].text, f.diags.errors);
        fixture_deinit(&f);
    }
}

Test(config_yaml, several_mistakes_in_one_run)
{
    struct fixture f;
    fixture_init(&f);
    (void)parse(&f, "a: *x\n"
                    "routes:\n"
                    "  /a: OK\n"
                    "     more\n"
                    "  /a: OK\n"
                    "b: !t 1\n"
                    "a: 2\n");
    cr_assert_eq(f.diags.errors, 5);
    fixture_deinit(&f);
}

Test(config_yaml, depth_is_bounded)
{
    struct fixture f;
    fixture_init(&f);
    char text[512] = "a: ";

    memset(text + 3, '[', AG_CONFIG_DEPTH_MAX);
    cr_assert_null(parse(&f, text));
    cr_assert(strstr(f.diags.first->what, "nested too deeply"));
    cr_assert_eq(f.diags.first->pos.col, 3 + AG_CONFIG_DEPTH_MAX);
    fixture_deinit(&f);
    fixture_init(&f);
    memset(text + 3, '[', AG_CONFIG_DEPTH_MAX - 1);
    memset(text + 3 + AG_CONFIG_DEPTH_MAX - 1, ']', AG_CONFIG_DEPTH_MAX - 1);
    struct ag_node *root = parse(&f, text);
    cr_assert_not_null(root);
    ag_config_expand(root, &(struct ag_config_env){0}, &f.diags);
    cr_assert_eq(f.diags.errors, 0);
    fixture_deinit(&f);
}

/* Each route line's text is what stands at its position; positions lie in the text. */
static void check_tree(const struct ag_source *src, const struct ag_node *routes)
{
    for (const struct ag_node *n = routes->first; n; n = n->next) {
        if (!n->dsl || n->quoted) {
            continue;
        }
        const uint8_t *at = src->text.ptr, *end = at + src->text.len;
        for (uint32_t line = 1; line < n->pos.line; line++) {
            at = memchr(at, '\n', (size_t)(end - at));
            cr_assert_not_null(at);
            at++;
        }
        at += n->pos.col - 1;
        cr_assert(at <= end && n->text.len <= (size_t)(end - at));
        /* A plain scalar of a list that YAML read may span lines. */
        cr_assert(ag_span_find(n->text, ' ') < n->text.len ||
                  memcmp(at, n->text.ptr, n->text.len) == 0);
    }
}

Test(config_yaml, mutations_never_crash)
{
    static const char seed_text[] = "server:\n  listen: [\":8080\", {address: \":8443\"}]\n"
                                    "routes:\n  \"/\": \"/dist/\"\n  /a/b/c: *\n"
                                    "  \"/u/:id\":\n    action: \"http://a/:id\"\n"
                                    "  /e: {\n    action: 'x'}\n  /g: |\n    OK\n  - /l: OK\n"
                                    "plugins:\n  a: {b: 1}\n";
    static const char bytes[] = "\n\n  -:#\"'{}[]|>&!*\t\\/ar\xc3\xbc\0\r";
    uint64_t x = 88172645463325252u;
    unsigned parsed = 0;

    for (unsigned round = 0; round < 20000; round++) {
        struct fixture f;
        fixture_init(&f);
        char text[sizeof(seed_text)];
        size_t len = sizeof(seed_text) - 1;
        memcpy(text, seed_text, sizeof(text));
        for (unsigned i = 0; i < 1 + round % 4; i++) {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            text[(x >> 8) % len] = bytes[(x >> 32) % (sizeof(bytes) - 1)];
        }
        struct ag_source *src = source_of(&f, ag_span(text, len));
        struct ag_node *root = ag_config_parse_yaml(src, &f.diags);
        cr_assert(root || f.diags.errors > 0);
        const struct ag_node *routes = ag_node_get(root, "routes");
        if (routes) {
            parsed++;
            check_tree(src, routes);
        }
        source_free(src);
        fixture_deinit(&f);
    }
    cr_assert_gt(parsed, 500);
}

Test(config_yaml, many_routes_take_no_time_of_their_own)
{
    struct fixture f;
    fixture_init(&f);
    const uint32_t count = 20000;
    char *text = malloc(count * 64 + 16);
    AG_ASSERT(text);
    size_t at = (size_t)sprintf(text, "routes:\n");

    for (uint32_t i = 0; i < count; i++) {
        at += (size_t)sprintf(text + at, i % 2 ? "  /r/%u: *\n" : "  \"/r/%u\": {action: OK}\n", i);
    }
    const struct ag_node *r = routes_of(&f, text);
    cr_assert_eq(child_count(r), count);
    check_entry(child_at(r, count - 2), count, 3, "/r/19998");
    check_line(child_at(r, count - 1), count + 1, 3, "/r/19999: *");
    free(text);
    fixture_deinit(&f);
}
