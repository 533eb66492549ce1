/* Goal: where redirects lead: templates, query, fragment; and where no client can make them lead. */
#include "actions/redirect.h"
#include "tests/unit/actions_util.h"

static enum ag_status make(struct fake *f, struct fake_route *r, const char *pattern,
                           unsigned status, const char *target)
{
    memset(r, 0, sizeof(*r));
    fake_pattern(f, r, pattern);
    fake_target(f, r, target);
    r->decl.status = status;
    return fake_configure(f, r);
}

struct row {
    const char *pattern, *target, *line, *want;
};

static const struct row rows[] = {
    {"/old", "/new", "GET /old", "/new"},
    {"/old", "/new", "GET /old?a=1&b", "/new?a=1&b"},
    {"/old", "/new", "GET /old?", "/new"},
    {"/old", "/new?x=1", "GET /old", "/new?x=1"},
    {"/old", "/new?x=1", "GET /old?a=1", "/new?x=1&a=1"},
    {"/old", "/new?x=1&", "GET /old?a=1", "/new?x=1&a=1"},
    {"/old", "/new?", "GET /old?a=1", "/new?a=1"},
    {"/old", "/new#top", "GET /old?a=1", "/new?a=1#top"},
    {"/old", "/new#top", "GET /old", "/new#top"},
    {"/old", "https://example.com/x", "GET /old?a=1", "https://example.com/x?a=1"},
    {"/u/:id", "/users/:id/home", "GET /u/7", "/users/7/home"},
    {"/u/:id", "https://example.com/:id", "GET /u/7?q", "https://example.com/7?q"},
    {"/u/:id", "/x/:id#f", "GET /u/7?q", "/x/7?q#f"},
    {"/u/:id", "/users/:id", "GET /u/a%2Fb%0D%0A", "/users/a%2Fb%0D%0A"},
    {"/u/:id", "/users/:id", "GET /u/a\"b{c}", "/users/a%22b%7Bc%7D"},
    {"/o/*", "/n/*", "GET /o/a/b/", "/n/a/b/"},
    {"/o/*", "/n/*", "GET /o/", "/n/"},
    {"/o/*", "/*", "GET /o//evil.example/", "/evil.example/"},
    {"/o/*", "/*", "GET /o////evil.example/", "/evil.example/"},
    {"/o/*", "/*", "GET /o/%5Cevil.example/", "/%5Cevil.example/"},
    {"/o/*", "/*", "GET /o/\\evil.example/", "/%5Cevil.example/"},
    {"/o/*", "https://h.example/*", "GET /o//x", "https://h.example//x"},
};

Test(redirect, targets)
{
    struct fake *f = fake_new(&ag_action_redirect);
    struct fake_route r;

    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        cr_assert(make(f, &r, rows[i].pattern, 308, rows[i].target) == AG_OK, "%s", rows[i].target);
        const struct answer *a = fake_ask(f, &r, rows[i].line, NULL);
        cr_expect(a->status == 308 && a->body_len == 0);
        expect_field(a, "Location", rows[i].want);
        expect_field(a, "Content-Length", "0");
    }
    fake_free(f);
}

Test(redirect, prepared_without_query)
{
    struct fake *f = fake_new(&ag_action_redirect);
    struct fake_route r;

    cr_assert(make(f, &r, "/old", 301, "/new") == AG_OK);
    cr_expect(fake_ask(f, &r, "GET /old", NULL)->prepared);
    cr_expect(!fake_ask(f, &r, "GET /old?a", NULL)->prepared);
    fake_free(f);
}

Test(redirect, long_queries)
{
    struct fake *f = fake_new(&ag_action_redirect);
    struct fake_route r;
    static char line[7000], want[7000];

    cr_assert(make(f, &r, "/old", 302, "/new") == AG_OK);
    for (size_t n = 900; n < sizeof(line) - 32; n += 1499) {
        int used = snprintf(line, sizeof(line), "GET /old?");
        memset(line + used, 'q', n);
        line[(size_t)used + n] = 0;
        (void)snprintf(want, sizeof(want), "/new?%s", line + used);
        const struct answer *a = fake_ask(f, &r, line, NULL);
        cr_expect(a->status == 302);
        expect_field(a, "Location", want);
    }
    fake_free(f);
}

Test(redirect, refused)
{
    static const char *const targets[] = {
        "//evil.example/", "new",       "",       "/a b",          "/a\\b",
        "/\r\nX: 1",       "/\xC3\xA9", "https:", "https://h?:id", "https://h#/:id",
        "/x#/:id/y"};
    struct fake *f = fake_new(&ag_action_redirect);
    struct fake_route r;

    for (size_t i = 0; i < AG_COUNT(targets); i++) {
        cr_expect(make(f, &r, "/u/:id", 301, targets[i]) == AG_EINVAL ||
                      !strstr(targets[i], ":id/") /* a parameter is a whole segment */,
                  "%s", targets[i]);
    }
    for (size_t i = 0; i < 8; i++) {
        cr_expect(make(f, &r, "/u/:id", 301, targets[i]) == AG_EINVAL, "%s", targets[i]);
    }
    cr_expect(make(f, &r, "/u/:id", 301, "/x#/:id") == AG_EINVAL);
    cr_expect(make(f, &r, "/u/:id", 301, "https://:id") == AG_EINVAL);
    cr_expect(make(f, &r, "/u/:id", 301, "https:/:id") == AG_EINVAL);
    cr_expect(make(f, &r, "/u/:id", 200, "/x") == AG_EINVAL);
    cr_expect(make(f, &r, "/u/:id", 304, "/x") == AG_EINVAL);
    fake_free(f);
}
