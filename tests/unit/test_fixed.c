/* Goal: fixed answers: type, framing by status, headers, parameters escaped for where they stand. */
#include "actions/fixed.h"
#include "actions/json_check.h"
#include "tests/unit/actions_util.h"

/* Configures; options: "headers.Name" pairs, NULL-terminated. */
static enum ag_status make(struct fake *f, struct fake_route *r, const char *pattern,
                           unsigned status, const char *body, const char *const *options)
{
    struct ag_node *map = ag_node_new(&f->arena, AG_NODE_MAP, (struct ag_pos){0});

    memset(r, 0, sizeof(*r));
    for (; options && *options; options += 2) {
        fake_set(f, map, options[0], options[1]);
    }
    fake_pattern(f, r, pattern);
    r->decl.status = status;
    r->decl.body = ag_span_str(body);
    r->decl.options = options ? map : NULL;
    return fake_configure(f, r);
}

struct row {
    unsigned status;
    const char *body, *type, *length; /* NULL: no such field */
};

static const struct row rows[] = {
    {200, "", NULL, "0"},
    {200, "hello", "text/plain; charset=utf-8", "5"},
    {403, "{\"msg\":\"GO PATCH UR MUM!\"}", "application/json", "26"},
    {200, "[1, 2.5e3, null]", "application/json", "16"},
    {200, "{\"a\":1,}", "text/plain; charset=utf-8", "8"},
    {200, "{not json}", "text/plain; charset=utf-8", "10"},
    {200, "[1] [2]", "text/plain; charset=utf-8", "7"},
    {200, "\"text\"", "text/plain; charset=utf-8", "6"},
    {204, "", NULL, NULL},
    {304, "", NULL, NULL},
    {205, "", NULL, "0"},
    {204, "dropped", NULL, NULL},
    {599, "x", "text/plain; charset=utf-8", "1"},
};

Test(fixed, type_and_framing)
{
    struct fake *f = fake_new(&ag_action_fixed);
    struct fake_route r;

    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        bool none = rows[i].status == 204 || rows[i].status == 304 || rows[i].status == 205;
        cr_assert(make(f, &r, "/x", rows[i].status, rows[i].body, NULL) == AG_OK);
        const struct answer *a = fake_ask(f, &r, "GET /x", NULL);
        const char *type = fake_field(a, "Content-Type");
        cr_expect(a->prepared && a->status == rows[i].status);
        cr_expect(!type == !rows[i].type && (!type || strcmp(type, rows[i].type) == 0), "row %zu",
                  i);
        const char *length = fake_field(a, "Content-Length");
        cr_expect(!length == !rows[i].length && (!length || strcmp(length, rows[i].length) == 0),
                  "row %zu", i);
        expect_body(a, none ? "" : rows[i].body);
    }
    cr_expect(f->diags.warnings == 4); /* the last but one, and three that are no JSON */
    fake_free(f);
}

Test(fixed, what_begins_as_json_and_is_none_is_told_unless_it_is_meant)
{
    static const char *const html[] = {"headers.Content-Type", "text/html", NULL};
    static const char *const json[] = {"headers.Content-Type", "application/problem+json", NULL};
    struct fake *f = fake_new(&ag_action_fixed);
    struct fake_route r;

    cr_assert(make(f, &r, "/x", 200, "{\"m\":\"a", html) == AG_OK);
    cr_assert(make(f, &r, "/:a", 200, "{param.a} {", NULL) == AG_OK);
    cr_assert(make(f, &r, "/:a", 200, "{\"m\":\"{param.a}\"}", NULL) == AG_OK);
    cr_expect(f->diags.warnings == 0);
    cr_assert(make(f, &r, "/x", 200, "{\"m\":\"a", NULL) == AG_OK);
    cr_assert(make(f, &r, "/x", 200, "{\"m\":\"a", json) == AG_OK);
    cr_expect(f->diags.warnings == 2);
    fake_free(f);
}

Test(fixed, head_has_the_length_of_get)
{
    struct fake *f = fake_new(&ag_action_fixed);
    struct fake_route r;

    cr_assert(make(f, &r, "/x", 200, "hello", NULL) == AG_OK);
    const struct answer *a = fake_ask(f, &r, "HEAD /x", NULL);
    expect_field(a, "Content-Length", "5");
    cr_expect(a->body_len == 0);
    fake_free(f);
}

Test(fixed, no_allocation_to_serve)
{
    struct fake *f = fake_new(&ag_action_fixed);
    struct fake_route r;

    cr_assert(make(f, &r, "/x", 200, "hello", NULL) == AG_OK);
    struct ag_exchange *ex = fake_begin(f, &r, "GET /x", NULL);
    uint32_t pages = f->loop.pages.used;
    const uint8_t *at = ex->arena.at;
    fake_start(ex);
    cr_expect(f->loop.pages.used == pages && ex->arena.at == at);
    fake_end(f, ex);
    fake_free(f);
}

Test(fixed, headers)
{
    static const char *const options[] = {"headers.content-type",
                                          "text/html",
                                          "headers.X-One",
                                          "12:30 *",
                                          "headers.set-cookie[]",
                                          "a=1",
                                          "headers.set-cookie[]",
                                          "b=2",
                                          NULL};
    struct fake *f = fake_new(&ag_action_fixed);
    struct fake_route r;

    cr_assert(make(f, &r, "/x", 200, "<p>", options) == AG_OK);
    const struct answer *a = fake_ask(f, &r, "GET /x", NULL);
    cr_expect(a->prepared);
    cr_expect_str_eq(a->head, "Content-Type: text/html\nX-One: 12:30 *\nSet-Cookie: a=1\n"
                              "Set-Cookie: b=2\nContent-Length: 3\n");
    fake_free(f);
}

Test(fixed, a_long_head_goes_as_fields)
{
    static char value[3001];
    const char *options[] = {"headers.Content-Security-Policy", value, NULL};
    struct fake *f = fake_new(&ag_action_fixed);
    struct fake_route r;

    memset(value, 'v', sizeof(value) - 1);
    value[sizeof(value) - 1] = 0;
    cr_assert(make(f, &r, "/x", 200, "hi", options) == AG_OK);
    const struct answer *a = fake_ask(f, &r, "GET /x", NULL);
    cr_expect(!a->prepared && a->status == 200);
    expect_field(a, "Content-Security-Policy", value);
    expect_field(a, "Content-Length", "2");
    expect_body(a, "hi");
    fake_free(f);
}

Test(fixed, refused_headers)
{
    static const char *const refused[] = {
        "Connection", "content-length", "Transfer-Encoding", "Keep-Alive", "TE",  "Trailer",
        "Upgrade",    "Date",           "Proxy-Connection",  "bad name",   "a:b", "HTTP2-Settings"};
    struct fake *f = fake_new(&ag_action_fixed);
    struct fake_route r;

    for (size_t i = 0; i < AG_COUNT(refused); i++) {
        char key[64];
        const char *options[] = {key, "1", NULL};
        (void)snprintf(key, sizeof(key), "headers.%s", refused[i]);
        cr_expect(make(f, &r, "/x", 200, "", options) == AG_EINVAL, "%s", refused[i]);
        cr_expect(f->diags.errors == i + 1, "%s", refused[i]);
    }
    const char *crlf[] = {"headers.X-A", "1\r\nX-B: 2", NULL};
    cr_expect(make(f, &r, "/x", 200, "", crlf) == AG_EINVAL);
    fake_free(f);
}

Test(fixed, refused_statuses)
{
    struct fake *f = fake_new(&ag_action_fixed);
    struct fake_route r;

    cr_expect(make(f, &r, "/x", 100, "", NULL) == AG_EINVAL);
    cr_expect(make(f, &r, "/x", 101, "", NULL) == AG_EINVAL);
    cr_expect(make(f, &r, "/x", 600, "", NULL) == AG_EINVAL);
    cr_expect(f->diags.errors == 3);
    fake_free(f);
}

struct expansion {
    const char *pattern, *body, *type; /* type: of the option, or NULL */
    const char *line, *want;
};

static const struct expansion expansions[] = {
    {"/hi/:name", "hello {param.name}!", NULL, "GET /hi/bob", "hello bob!"},
    {"/hi/:name", "{param.name}", NULL, "GET /hi/a%20b%2Fc", "a b/c"},
    {"/hi/:name", "{\"n\":\"{param.name}\"}", NULL, "GET /hi/a%22,%22x%22:%22b%5C%0A",
     "{\"n\":\"a\\u0022,\\u0022x\\u0022:\\u0022b\\\\\\n\"}"},
    {"/hi/:name", "{\"n\":\"{param.name}\"}", NULL, "GET /hi/%C3%A9%FF",
     "{\"n\":\"\xC3\xA9\\u00ff\"}"},
    {"/hi/:name", "<b>{param.name}</b>", "text/html", "GET /hi/%3Cscript%3E&'",
     "<b>&lt;script&gt;&amp;&#39;</b>"},
    {"/hi/:name", "<script>f(`{param.name}`)</script>", "text/html", "GET /hi/%5C%60${x}",
     "<script>f(`&#92;&#96;&#36;{x}`)</script>"},
    {"/hi/:name", "f(`{param.name}`)", "text/javascript", "GET /hi/%5C%60${x}",
     "f(`\\\\\\u0060\\u0024{x}`)"},
    {"/f/*", "{splat}|{splat}", NULL, "GET /f/a/b", "a/b|a/b"},
    {"/f/*", "{splat}", NULL, "GET /f/", ""},
    {"/f/*", "{} {splat} {x}", NULL, "GET /f/1", "{} 1 {x}"},
};

Test(fixed, parameters)
{
    struct fake *f = fake_new(&ag_action_fixed);
    struct fake_route r;

    for (size_t i = 0; i < AG_COUNT(expansions); i++) {
        const struct expansion *e = &expansions[i];
        const char *options[] = {"headers.Content-Type", e->type, NULL};
        char length[24];
        cr_assert(make(f, &r, e->pattern, 200, e->body, e->type ? options : NULL) == AG_OK);
        const struct answer *a = fake_ask(f, &r, e->line, NULL);
        expect_body(a, e->want);
        (void)snprintf(length, sizeof(length), "%zu", strlen(e->want));
        expect_field(a, "Content-Length", length);
    }
    static const char *const options[] = {"headers.Link", "</u/{param.id}>", NULL};
    cr_assert(make(f, &r, "/u/:id", 200, "", options) == AG_OK);
    const struct answer *a = fake_ask(f, &r, "GET /u/a%0D%0Ab", NULL);
    expect_field(a, "Link", "</u/a%0D%0Ab>");
    fake_free(f);
}

Test(fixed, what_filters_make_of_the_type)
{
    static const struct {
        const char *type; /* of the option, or NULL */
        struct ag_media_change change;
        const char *want;
    } changes[] = {
        {NULL, {false, 0}, "<\""},
        {NULL, {false, AG_MEDIA_MARKUP}, "&lt;&quot;"},
        {NULL, {true, AG_MEDIA_MARKUP}, "&lt;&quot;"},
        {NULL, {true, AG_MEDIA_SCRIPT}, "\\u003c\\u0022"},
        {"text/html", {false, AG_MEDIA_ANY}, "\\u003c\\u0022"},
        {"text/html", {false, 0}, "&lt;&quot;"},
        {"text/html", {true, 0}, "<\""},
        {"text/{param.n}", {false, 0}, "\\u003c\\u0022"},
        {"html", {false, 0}, "\\u003c\\u0022"},
    };
    struct fake *f = fake_new(&ag_action_fixed);
    struct fake_route r;

    for (size_t i = 0; i < AG_COUNT(changes); i++) {
        const char *options[] = {"headers.Content-Type", changes[i].type, NULL};
        f->build.media = changes[i].change;
        cr_assert(make(f, &r, "/:n", 200, "{param.n}", changes[i].type ? options : NULL) == AG_OK);
        expect_body(fake_ask(f, &r, "GET /%3C%22", NULL), changes[i].want);
    }
    fake_free(f);
}

Test(fixed, unknown_parameters)
{
    struct fake *f = fake_new(&ag_action_fixed);
    struct fake_route r;

    cr_expect(make(f, &r, "/x/:id", 200, "{param.no}", NULL) == AG_EINVAL);
    cr_expect(make(f, &r, "/x/:id", 200, "{splat}", NULL) == AG_EINVAL);
    cr_expect(make(f, &r, "/x/:id", 200, "{param.}", NULL) == AG_EINVAL);
    cr_expect(f->diags.errors == 3);
    fake_free(f);
}

/* ---- the check for JSON ---- */

static bool valid(const char *text)
{
    size_t n = strlen(text);
    uint8_t *cut = malloc(n + !n);
    bool yes;

    AG_ASSERT(cut);
    memcpy(cut, text, n);
    yes = ag_json_is_valid(ag_span(cut, n));
    free(cut);
    return yes;
}

Test(fixed, json_check)
{
    static const char *const good[] = {
        "{}",           "[]",      " [ ] ", "0",
        "-0",           "1.5E+10", "\"\"",  "\"\\u00e9\\n\"",
        "true",         "false",   "null",  "{\"a\":{\"b\":[1,{\"c\":null}]},\"d\":\"\xC3\xA9\"}",
        "[[],[[]],{}]",
    };
    static const char *const bad[] = {
        "",
        " ",
        "{",
        "[",
        "]",
        "}",
        "[1,]",
        "[,1]",
        "{,}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{a:1}",
        "{1:1}",
        "[1 2]",
        "01",
        "1.",
        ".5",
        "+1",
        "1e",
        "-",
        "\"",
        "\"\\x\"",
        "\"\\u12g4\"",
        "\"\t\"",
        "tru",
        "nulll",
        "[1]]",
        "{]",
        "[}",
        "\"\xFF\"",
        "\"\xC0\x80\"",
        "\"\xED\xA0\x80\"",
        "'a'",
        "// x",
        "[1]x",
        "{\"a\":1 \"b\":2}",
    };
    static char deep[1200];

    for (size_t i = 0; i < AG_COUNT(good); i++) {
        cr_expect(valid(good[i]), "%s", good[i]);
    }
    for (size_t i = 0; i < AG_COUNT(bad); i++) {
        cr_expect(!valid(bad[i]), "%s", bad[i]);
    }
    for (size_t depth = AG_JSON_DEPTH_MAX; depth <= AG_JSON_DEPTH_MAX + 1; depth++) {
        memset(deep, '[', depth);
        memset(deep + depth, ']', depth);
        deep[2 * depth] = 0;
        cr_expect(valid(deep) == (depth == AG_JSON_DEPTH_MAX));
    }
}
