/*
 * Goal: a line of the DSL means what SPEC.md section 4 says, and each mistake is reported once, at the
 * byte where it is, with a hint that helps.
 * Method: tables of lines; the parsed route is printed back in one normal form and compared.
 */
#include "router/dsl.h"

#include <criterion/criterion.h>
#include <stdio.h>

struct result {
    struct ag_arena arena;
    struct ag_diags diags;
    struct ag_pattern pattern;
    struct ag_action_decl action;
    enum ag_status st;
    char text[1024];
};

static const struct ag_source source = {"t.gate", {NULL, 0}};

/* Methods, host, port, then segments with ":" and "*" before names. */
static void put_pattern(struct ag_buf *b, const struct ag_pattern *p)
{
    for (unsigned m = 1; m < AG_METHODS; m++) {
        if (p->methods & 1u << m) {
            ag_buf_put(b, ag_method_name((enum ag_method)m));
            ag_buf_putc(b, ' ');
        }
    }
    for (uint16_t i = 0; i < p->other_count; i++) {
        ag_buf_put(b, p->other_methods[i]);
        ag_buf_putc(b, ' ');
    }
    ag_buf_put(b, p->host);
    if (p->port) {
        ag_buf_printf(b, ":%u", p->port);
    }
    for (uint16_t i = 0; i < p->count; i++) {
        const char *lead[] = {"/", "/:", "/*"};

        ag_buf_put(b, ag_span_str(lead[p->segments[i].kind]));
        ag_buf_put(b, p->segments[i].text);
    }
}

static void put_action(struct ag_buf *b, const struct ag_action_decl *a)
{
    static const char *const kinds[] = {"fixed", "echo", "redirect", "static", "proxy"};

    ag_buf_printf(b, " = %s", kinds[a->kind]);
    if (a->status) {
        ag_buf_printf(b, " %u", a->status);
    }
    if (a->kind == AG_ACTION_FIXED) {
        ag_buf_printf(b, " <%.*s>", (int)a->body.len, (const char *)a->body.ptr);
    }
    if (a->kind == AG_ACTION_PROXY) {
        ag_buf_printf(b, " %.*s %.*s", (int)a->scheme.len, (const char *)a->scheme.ptr,
                      (int)a->authority.len, (const char *)a->authority.ptr);
    }
    if (a->has_path) {
        ag_buf_putc(b, ' ');
    }
    for (uint16_t i = 0; i < a->target.count; i++) {
        const struct ag_template_part *part = &a->target.parts[i];

        if (part->param < 0) {
            ag_buf_put(b, part->literal);
        } else {
            ag_buf_printf(b, "[%d]", part->param);
        }
    }
}

/* In memory of the line's exact size, so that ASan sees any read beyond it. */
static struct result *parse(const char *line)
{
    struct result *r = calloc(1, sizeof(*r));
    size_t len = strlen(line);
    struct ag_buf b;
    uint8_t *copy;

    AG_ASSERT(r);
    b = ag_buf(r->text, sizeof(r->text) - 1);
    ag_arena_init(&r->arena, NULL, 0);
    ag_diags_init(&r->diags, &r->arena);
    copy = ag_arena_alloc(&r->arena, len + 1);
    memcpy(copy, line, len);
    r->st = ag_dsl_parse_line(&r->arena, &r->diags, (struct ag_pos){&source, 1, 1},
                              ag_span(copy, len), &r->pattern, &r->action);
    if (r->st == AG_OK) {
        put_pattern(&b, &r->pattern);
        put_action(&b, &r->action);
    }
    return r;
}

static void drop(struct result *r)
{
    ag_arena_release(&r->arena);
    free(r);
}

static const struct {
    const char *line, *want;
} good[] = {
    /* SPEC.md section 1, verbatim */
    {"\"/\": \"/dist/\"", "/ = static /dist/"},
    {"\"/ping\": \"http://auth/ping\"", "/ping = proxy http auth /ping"},
    {"GET POST PATCH /api/mock/rude: FORBIDDEN {\"msg\":\"GO PATCH UR MUM!\"}",
     "GET POST PATCH /api/mock/rude = fixed 403 <{\"msg\":\"GO PATCH UR MUM!\"}>"},
    {"GET /fastest/ever/ok: OK", "GET /fastest/ever/ok = fixed 200 <>"},
    {"/a/b/c: *", "/a/b/c = echo 200"},
    {"/a/b/c-forbidden: FORBIDDEN *", "/a/b/c-forbidden = echo 403"},
    /* patterns */
    {"/a/ : 404", "/a/ = fixed 404 <>"},
    {"/a//b: OK", "/a//b = fixed 200 <>"},
    {"/%7euser/%2f: OK", "/~user/%2F = fixed 200 <>"},
    {"/caf\xc3\xa9: OK", "/caf%C3%A9 = fixed 200 <>"},
    {"\"/a b\": OK", "/a%20b = fixed 200 <>"},
    {"\"GET /x\": OK", "GET /x = fixed 200 <>"},
    {"GET \"/x y/:id\": OK", "GET /x%20y/:id = fixed 200 <>"},
    {"\"/\\u00e9\\/\\\"\": OK", "/%C3%A9/\" = fixed 200 <>"},
    {"/v1/x:batch: OK", "/v1/x:batch = fixed 200 <>"},
    {"/:a/:b/*rest: OK", "/:a/:b/*rest = fixed 200 <>"},
    {"/*: OK", "/* = fixed 200 <>"},
    {"PURGE M-SEARCH GET /x: OK", "GET PURGE M-SEARCH /x = fixed 200 <>"},
    /* hosts */
    {"API.Example.com/v1/*: OK", "api.example.com/v1/* = fixed 200 <>"},
    {"*.example.com/: OK", "*.example.com/ = fixed 200 <>"},
    {":9001/ping: OK", ":9001/ping = fixed 200 <>"},
    {"GET a.b:80/x: OK", "GET a.b:80/x = fixed 200 <>"},
    {"a.b./x: OK", "a.b/x = fixed 200 <>"},
    {"[::1]:80/x: OK", "[::1]:80/x = fixed 200 <>"},
    {"[0:0:0:0:0:0:0:1]/x: OK", "[::1]/x = fixed 200 <>"},
    {"[2001:DB8:0::A]:80/x: OK", "[2001:db8::a]:80/x = fixed 200 <>"},
    /* fixed */
    {"/x: 200 12:30 # later", "/x = fixed 200 <12:30>"},
    {"/x: OK it's \"fine\" is text", "/x = fixed 200 <it's \"fine\" is text>"},
    {"/x: OK {\"m\":\"a #b\"} # c", "/x = fixed 200 <{\"m\":\"a #b\"}>"},
    {"/x: OK {\"m\":\"\\\" #b\"}  # c", "/x = fixed 200 <{\"m\":\"\\\" #b\"}>"},
    {"/x: OK \"a #b\" #c", "/x = fixed 200 <\"a #b\">"},
    {"/x: OK a#b", "/x = fixed 200 <a#b>"},
    {"/x: \"OK a #b\" #c", "/x = fixed 200 <a #b>"},
    {"/x: NO_CONTENT", "/x = fixed 204 <>"},
    {"  /x: OK  \r", "/x = fixed 200 <>"},
    {"/x: TOO_MANY_REQUESTS slow", "/x = fixed 429 <slow>"},
    /* static */
    {"/x: ./file.txt", "/x = static ./file.txt"},
    {"/x/*: ../d/*", "/x/* = static ../d/[0]"},
    {"/x: \"/my dist/\"", "/x = static /my dist/"},
    {"/u/:id: /u/:id/index.html", "/u/:id = static /u/[0]/index.html"},
    /* proxy */
    {"/x: http://h", "/x = proxy http h"},
    {"/x: HTTPS://h:81,i:82/", "/x = proxy https h:81,i:82 /"},
    {"/x/:id/*: h2c://h/y/*/z/:id", "/x/:id/* = proxy h2c h /y/[1]/z/[0]"},
    {"/x: http://unix:/run/a.sock:/p", "/x = proxy http unix:/run/a.sock: /p"},
    {"/x: http://unix:/run/a.sock", "/x = proxy http unix:/run/a.sock:"},
    {"/x/*r: ws://[::1]:8/a:b/*r", "/x/*r = proxy ws [::1]:8 /a:b/[0]"},
    {"/x: http://h/%7e/12:30", "/x = proxy http h /~/12:30"},
    /* redirects */
    {"/x: 301 -> /y", "/x = redirect 301 /y"},
    {"/x/*: FOUND -> https://h:8443/*?a=:b#*", "/x/* = redirect 302 https://h:8443/[0]?a=:b#*"},
    {"/:a: PERMANENT_REDIRECT -> /:a/x", "/:a = redirect 308 /[0]/x"},
    {"/x: 307 -> https://h", "/x = redirect 307 https://h"},
    {"/x: OK ->x", "/x = fixed 200 <->x>"},
    /* escapes */
    {"/x: \"OK a\\nb\\tc\\r\\nd\"", "/x = fixed 200 <a\nb\tc\r\nd>"},
};

Test(dsl, reads)
{
    for (size_t i = 0; i < AG_COUNT(good); i++) {
        struct result *r = parse(good[i].line);

        cr_expect_eq(r->st, AG_OK, "%s: %s", good[i].line,
                     r->diags.first ? r->diags.first->what : "?");
        cr_expect_str_eq(r->text, good[i].want, "%s: %s", good[i].line, r->text);
        cr_expect_eq(r->diags.errors + r->diags.warnings, 0, "%s", good[i].line);
        drop(r);
    }
}

static const struct {
    const char *line;
    uint32_t col;
    const char *what, *hint; /* parts of them; hint NULL: any */
} bad[] = {
    {"/x", 2, "no \": \"", "METHODS"},
    {"/x:OK", 3, "no \": \"", "space after the colon"},
    {"\"/x: OK", 1, "not closed", NULL},
    {"\"/x\"y: OK", 5, "after the closing quote", NULL},
    {"/x: \"OK", 5, "not closed", NULL},
    {"/x: \"OK\" z", 9, "after the closing quote", NULL},
    {"\"/\\x\": OK", 3, "escape", NULL},
    {"\"/\\u000a\": OK", 3, "control byte 0x0a", NULL},
    {"\"/p\\n\": OK", 4, "control byte 0x0a", NULL},
    {"\"GET\\n/y\": OK", 5, "control byte 0x0a", NULL},
    {"/x: \"OK \\u0000x\"", 9, "control byte 0x00", "body"},
    {"/x: \"./a\\tb\"", 9, "control byte 0x09", NULL},
    {"/x: \"FOUND -> /a\\nb\"", 17, "cannot stand in a URL", NULL},
    {"/x: \"http://h/a\\nb\"", 16, "text after", NULL},
    {"\"/\\ud800x\": OK", 3, "escape", NULL},
    {"/x:", 4, "no action", NULL},
    {"/x: # c", 5, "no action", NULL},
    {"GET : OK", 4, "no pattern", NULL},
    {"get /x: OK", 1, "neither a method", "did you mean GET?"},
    {"GTE /x: BAD", 9, "neither a status", NULL},
    {"g3t /x: OK", 1, "neither a method", "GET"},
    {"example.com: OK", 1, "neither a method", "slash"},
    {"GET TRACE /x: OK", 5, "TRACE cannot be routed", NULL},
    {"CONNECT /x: OK", 1, "CONNECT cannot be routed", NULL},
    {"/a*b: OK", 3, "'*'", "whole segment"},
    {"/*/a: OK", 2, "not the last", ":name"},
    {"/*a.b: OK", 2, "not a splat", NULL},
    {"/a/:: OK", 4, "not a parameter", NULL},
    {"/a/:id.json: OK", 4, "not a parameter", "whole segment"},
    {"/:a/:a: OK", 5, "twice", NULL},
    {"/:a/*a: OK", 5, "twice", NULL},
    {"/users/{id}: OK", 8, "'{'", ":name"},
    {"/a?b: OK", 3, "'?'", "query"},
    {"/a/../b: OK", 4, "dot segment", NULL},
    {"/a/%2e/b: OK", 4, "dot segment", NULL},
    {"/a/%zz: OK", 4, "not a valid path", NULL},
    {"/a/%00: OK", 4, "not a valid path", NULL},
    {"/a b: OK", 3, "after the pattern", "%20"},
    {":99999/x: OK", 2, "not a port", NULL},
    {":0/x: OK", 2, "not a port", NULL},
    {"*/x: OK", 1, "not a host", NULL},
    {"a.*.b/x: OK", 1, "not a host", "first label"},
    {"a..b/x: OK", 1, "not a host", NULL},
    {"a_b!/x: OK", 1, "not a host", NULL},
    {"*x: OK", 1, "has no \"/\"", NULL},
    {"/x: FORBIDEN", 5, "neither a status", "did you mean FORBIDDEN?"},
    {"/x: ok", 5, "neither a status", "did you mean OK?"},
    {"/x: 1000", 5, "not a status", NULL},
    {"/x: 20", 5, "not a status", NULL},
    {"/x: 700", 5, "no status 700", NULL},
    {"/x: 101", 5, "no final answer", NULL},
    {"/x: CONTINUE", 5, "no final answer", NULL},
    {"/x: 204 body", 9, "no body", NULL},
    {"/x: NOT_MODIFIED *", 18, "no body", NULL},
    {"/x: * body", 5, "not an action", "alone"},
    {"/x: 404 -> /y", 5, "not the status of a redirect", "301"},
    {"/x: FOUND ->", 13, "no target", NULL},
    {"/x: FOUND -> y", 14, "not a redirect's target", NULL},
    {"/x: FOUND -> //evil", 14, "another host", NULL},
    {"/:a: FOUND -> https://:a/x", 23, "cannot be a host", NULL},
    {"/*: FOUND -> https://*/x", 22, "cannot be a host", NULL},
    {"/x: FOUND -> /a b", 16, "cannot stand in a URL", NULL},
    {"/x: htp://h", 5, "not a scheme", "did you mean"},
    {"/x: http://", 12, "no host", NULL},
    {"/x: http:///p", 12, "no host", NULL},
    {"/:a: http://:a/p", 13, "cannot be a host", "path only"},
    {"/*: http://*/p", 12, "cannot be a host", NULL},
    {"/x: http://u@h/", 12, "user information", NULL},
    {"/x: http://h,/", 14, "not a host", NULL},
    {"/x: http://h:0/", 12, "not a host", NULL},
    {"/x: http://h/?a", 14, "proxy target", "query"},
    {"/x: http://h/ y", 14, "text after", NULL},
    {"/x: http://unix:x:/", 12, "socket path", NULL},
    {"/*: http://unix:/a.sock/*", 12, "socket's path", "colon"},
    {"/users/:id: http://h/:ID", 22, "not in the pattern", NULL},
    {"/:user: http://h/a/:usr", 20, "not in the pattern", "did you mean user?"},
    {"/x: http://h/*", 14, "not in the pattern", "/*"},
    {"/*a: http://h/*b", 15, "not in the pattern", NULL},
    {"/:a: http://h/:a.b", 15, "not a parameter", NULL},
    {"/x: /a b/", 7, "text after", "quotes"},
    {"/x: localhost:3000", 5, "neither a status", "http://localhost:3000"},
    {"/x: dist/", 5, "neither a status", "./dist/"},
    {"/x\x01: OK", 3, "control byte 0x01", NULL},
    {"/x: O\x7f", 6, "control byte 0x7f", NULL},
};

Test(dsl, reports)
{
    for (size_t i = 0; i < AG_COUNT(bad); i++) {
        struct result *r = parse(bad[i].line);
        const struct ag_diag *d = r->diags.first;

        while (d && d->severity != AG_SEV_ERROR) {
            d = d->next;
        }
        cr_expect_eq(r->st, AG_EINVAL, "%s", bad[i].line);
        cr_assert(d, "%s: no error", bad[i].line);
        cr_expect_eq(r->diags.errors, 1, "%s: %u errors", bad[i].line, r->diags.errors);
        cr_expect_eq(d->pos.col, bad[i].col, "%s: col %u, %s", bad[i].line, d->pos.col, d->what);
        cr_expect(strstr(d->what, bad[i].what), "%s: %s", bad[i].line, d->what);
        cr_expect(!bad[i].hint || (d->hint && strstr(d->hint, bad[i].hint)), "%s: hint %s",
                  bad[i].line, d->hint ? d->hint : "none");
        drop(r);
    }
}

Test(dsl, comments_and_blank_lines_are_no_routes)
{
    static const char *const lines[] = {"", "   ", "# x: OK", "  # y", "\t\r"};

    for (size_t i = 0; i < AG_COUNT(lines); i++) {
        struct result *r = parse(lines[i]);

        cr_expect_eq(r->st, AG_ENOENT);
        cr_expect_null(r->diags.first);
        drop(r);
    }
}

Test(dsl, both_halves_report)
{
    struct result *r = parse("/a*: BAD");

    cr_expect_eq(r->diags.errors, 2);
    drop(r);
}

Test(dsl, unusual_methods_warn_when_near_a_usual_one)
{
    struct result *r = parse("GTE /x: OK"), *p = parse("PROPFIND /x: OK");

    cr_expect_eq(r->st, AG_OK);
    cr_expect_eq(r->diags.warnings, 1);
    cr_expect_eq(p->diags.warnings, 0);
    drop(r);
    drop(p);
}

Test(dsl, too_much_of_anything)
{
    static char line[AG_SEGMENTS_MAX * 4 + 64];
    size_t n = 0;
    struct result *r;

    for (unsigned i = 0; i < AG_SEGMENTS_MAX; i++) {
        n += (size_t)snprintf(line + n, sizeof(line) - n, "/s");
    }
    (void)snprintf(line + n, sizeof(line) - n, ": OK");
    r = parse(line);
    cr_expect_eq(r->st, AG_OK);
    drop(r);
    (void)snprintf(line + n, sizeof(line) - n, "/s: OK");
    r = parse(line);
    cr_expect_eq(r->st, AG_EINVAL);
    drop(r);
    n = 0;
    for (unsigned i = 0; i <= AG_PARAMS_MAX; i++) {
        n += (size_t)snprintf(line + n, sizeof(line) - n, "/:p%u", i);
    }
    (void)snprintf(line + n, sizeof(line) - n, ": OK");
    r = parse(line);
    cr_expect_eq(r->st, AG_EINVAL);
    drop(r);
    r = parse("A B C D E F G H /x: OK");
    cr_expect_eq(r->st, AG_OK);
    drop(r);
    r = parse("A B C D E F G H I /x: OK");
    cr_expect_eq(r->st, AG_EINVAL);
    drop(r);
}

Test(dsl, finds_the_colon)
{
    static const struct {
        const char *line;
        size_t at;
    } rows[] = {
        {"/a: OK", 2}, {"\"/a: b\": OK", 7},  {":9/a/:b: OK", 7}, {"/a", 2},
        {"/a:", 2},    {"# /a: OK", 8},       {"/a # b: c", 9},   {"GET \"/: \": x", 9},
        {"", 0},       {"\"unclosed: x", 12},
    };

    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        cr_expect_eq(ag_dsl_find_colon(ag_span_str(rows[i].line)), rows[i].at, "%s", rows[i].line);
    }
}

/* Quotes of the config's format are undone already: spaces are part of the text. */
Test(dsl, values_of_a_config)
{
    struct ag_arena arena;
    struct ag_diags diags;
    struct ag_pattern p;
    struct ag_action_decl a;
    struct ag_pos pos = {&source, 1, 1};

    ag_arena_init(&arena, NULL, 0);
    ag_diags_init(&diags, &arena);
    cr_assert_eq(ag_dsl_parse_pattern(&arena, &diags, pos, AG_SPAN("GET /a b"), &p), AG_OK);
    cr_expect_eq(p.methods, 1u << AG_METHOD_GET);
    cr_expect(ag_span_eq(p.segments[0].text, AG_SPAN("a%20b")));
    cr_assert_eq(ag_dsl_parse_action(&arena, &diags, pos, AG_SPAN("/my dist/"), &p, &a), AG_OK);
    cr_expect_eq(a.kind, AG_ACTION_STATIC);
    cr_assert_eq(ag_dsl_parse_action(&arena, &diags, pos, AG_SPAN("OK a #b\nc"), &p, &a), AG_OK);
    cr_expect(ag_span_eq(a.body, AG_SPAN("a #b\nc")));
    cr_assert_eq(ag_dsl_parse_method(&arena, &diags, pos, AG_SPAN("PURGE"), &p), AG_OK);
    cr_expect_eq(p.other_count, 1);
    cr_expect_eq(ag_dsl_parse_method(&arena, &diags, pos, AG_SPAN("put"), &p), AG_EINVAL);
    cr_expect_eq(diags.errors, 1);
    ag_arena_release(&arena);
}
