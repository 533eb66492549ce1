/*
 * Goal: paths, queries, redirects and cookies come out as the settings say, and nothing that a client or
 * an upstream writes makes of them what nobody said: a host of its own, a parameter that should be gone.
 * Method: the settings are made by hand, requests and answers by table; no upstream, no sockets.
 */
#include "actions/proxy/rewrite_answer.h"
#include "actions/redirect.h"
#include "tests/unit/actions_util.h"

struct rig {
    struct fake *f;
    struct fake_route route;
    struct ag_exchange *ex;
};

static struct rig *rig_new(const char *pattern, const char *line)
{
    struct rig *r = calloc(1, sizeof(*r));

    cr_assert(r);
    r->f = fake_new(&ag_action_redirect);
    fake_pattern(r->f, &r->route, pattern);
    r->route.action.ops = r->f->ops;
    r->ex =
        fake_begin(r->f, &r->route, line, "Host: gate.example\nX-A: a&b=c/\nX-Bad: evil;Path=/\n");
    r->ex->req.authority = r->ex->req.host = AG_SPAN("gate.example");
    r->ex->req.received_count = r->ex->req.fields.count;
    return r;
}

static void rig_free(struct rig *r)
{
    fake_end(r->f, r->ex);
    fake_free(r->f);
    free(r);
}

static const struct ag_vars *vars(struct rig *r, const char *text)
{
    const struct ag_vars *v =
        ag_vars_compile(&r->f->arena, &r->f->diags, (struct ag_pos){0}, ag_span_str(text));

    cr_assert(v);
    return v;
}

static bool is(struct ag_span got, const char *want)
{
    return ag_span_eq(got, ag_span_str(want));
}

/* ---- requests ---- */

Test(rewrite, prefixes_go_by_segments)
{
    static const struct {
        const char *strip, *add, *line, *want;
    } cases[] = {
        {"/api", "", "GET /api/users?q=1", "/users?q=1"},
        {"/api", "", "GET /api", "/"},
        {"/api", "", "GET /api?", "/?"},
        {"/api", "", "GET /api/", "/"},
        {"/api", "", "GET /apix/users", "/apix/users"},
        {"/api", "", "GET /api//evil.example/", "/evil.example/"},
        {"/api", "", "GET /api////", "/"},
        {"/api", "/v1", "GET /api/users", "/v1/users"},
        {"/api", "/v1", "GET /api", "/v1"},
        {"/api", "/v1", "GET /other", "/v1/other"},
        {"", "/v1", "GET /", "/v1/"},
        {"/api/v%2F", "", "GET /api/v%2F/x", "/x"},
    };

    for (size_t i = 0; i < AG_COUNT(cases); i++) {
        struct rig *r = rig_new("/*", cases[i].line);
        struct ag_rewrite rw = {.strip = ag_span_str(cases[i].strip),
                                .add = ag_span_str(cases[i].add)};
        struct ag_span got = ag_rewrite_target(&rw, r->ex, NULL);

        cr_expect(is(got, cases[i].want), "%s: %.*s", cases[i].line, (int)got.len,
                  (const char *)got.ptr);
        rig_free(r);
    }
}

Test(rewrite, a_query_without_what_is_removed_and_with_what_is_set)
{
    static const struct {
        const char *line, *want;
    } cases[] = {
        {"GET /", "/?k=v%26"},
        {"GET /?a=1&debug=1&b", "/?a=1&b&k=v%26"},
        {"GET /?debug", "/?k=v%26"},
        {"GET /?%64ebug=1&de%62ug&DEBUG=1", "/?DEBUG=1&k=v%26"},
        {"GET /?k=evil&%6b=evil&kk=1", "/?kk=1&k=v%26"},
        {"GET /?a+b=1&a%20b=2&a%2Bb=3", "/?a%2Bb=3&k=v%26"},
        {"GET /?a=1&&b=%zz&", "/?a=1&&b=%zz&k=v%26"},
    };

    for (size_t i = 0; i < AG_COUNT(cases); i++) {
        struct rig *r = rig_new("/*", cases[i].line);
        const struct ag_rewrite_param params[] = {
            {.name = AG_SPAN("debug"), .removes = true},
            {.name = AG_SPAN("a b"), .removes = true},
            {.name = AG_SPAN("k"),
             .encoded = AG_SPAN("k"),
             .value = vars(r, "v&"),
             .removes = true},
        };
        struct ag_rewrite rw = {.params = params, .param_count = AG_COUNT(params)};
        struct ag_span got = ag_rewrite_target(&rw, r->ex, NULL);

        cr_expect(is(got, cases[i].want), "%s: %.*s", cases[i].line, (int)got.len,
                  (const char *)got.ptr);
        rig_free(r);
    }
}

Test(rewrite, values_of_a_query_are_encoded)
{
    struct rig *r = rig_new("/:id", "GET /x?a=1");
    const struct ag_rewrite_param params[] = {
        {.name = AG_SPAN("f"), .encoded = AG_SPAN("f"), .value = vars(r, "{header.x-a}")},
        {.name = AG_SPAN("ip"), .encoded = AG_SPAN("ip"), .value = vars(r, "{remote.ip}")}};
    struct ag_rewrite rw = {.params = params, .param_count = 2};
    struct ag_span got = ag_rewrite_target(&rw, r->ex, NULL);

    cr_expect(is(got, "/x?a=1&f=a%26b%3Dc/&ip=192.0.2.1"), "%.*s", (int)got.len,
              (const char *)got.ptr);
    rig_free(r);
}

Test(rewrite, only_removed_leaves_no_question_mark)
{
    struct rig *r = rig_new("/*", "GET /x?debug=1");
    const struct ag_rewrite_param param = {.name = AG_SPAN("debug"), .removes = true};
    struct ag_rewrite rw = {.params = &param, .param_count = 1};

    cr_expect(is(ag_rewrite_target(&rw, r->ex, NULL), "/x"));
    rig_free(r);
}

Test(rewrite, the_prefix_is_told)
{
    struct rig *r = rig_new("/*", "GET /api/x");
    struct ag_rewrite rw = {.strip = AG_SPAN("/api")};
    struct ag_fields fields = {0};
    struct ag_field *f;

    cr_assert_eq(ag_rewrite_fields(&rw, r->ex, &fields), AG_OK);
    f = ag_fields_find_name(&fields, AG_SPAN("x-forwarded-prefix"), NULL);
    cr_assert(f && is(ag_field_value(f), "/api"));
    rw.strip = AG_SPAN("/other");
    fields.count = 0;
    cr_assert_eq(ag_rewrite_fields(&rw, r->ex, &fields), AG_OK);
    cr_expect_eq(fields.count, 0);
    /* What a filter says stands. */
    rw.strip = AG_SPAN("/api");
    cr_assert_eq(ag_fields_add(&r->ex->req.fields, &r->ex->arena, AG_FIELD_OTHER,
                               AG_SPAN("X-Forwarded-Prefix"), AG_SPAN("/mine")),
                 AG_OK);
    cr_assert_eq(ag_rewrite_fields(&rw, r->ex, &fields), AG_OK);
    cr_expect_eq(fields.count, 0);
    rig_free(r);
}

/* ---- redirects ---- */

/* Location as it comes out of an answer to GET /app/x on the route "/app/...". */
static void expect_location(struct rig *r, const struct ag_rewrite *rw,
                            const struct ag_template *target, bool tls, const char *name,
                            const char *value, const char *want)
{
    const struct ag_rewrite_peer peer = {
        .target = target,
        .own = {AG_SPAN("10.0.0.1:8080"), AG_SPAN("api"), AG_SPAN("up.internal")},
        .tls = tls};
    struct ag_span key = ag_span_str(name), got;

    r->ex->res.fields.count = 0;
    cr_assert_eq(ag_fields_add(&r->ex->res.fields, &r->ex->arena, ag_field_id_from_name(key), key,
                               ag_span_str(value)),
                 AG_OK);
    cr_assert_eq(ag_rewrite_answer(rw, r->ex, &peer), AG_OK);
    got = ag_field_value(&r->ex->res.fields.v[0]);
    cr_expect(is(got, want ? want : value), "%s: %.*s", value, (int)got.len, (const char *)got.ptr);
}

static const struct ag_rewrite_redirects automatic = {.automatic = true};

Test(rewrite, redirects_by_where_the_request_went)
{
    static const struct {
        const char *value, *want; /* NULL: as it is */
    } cases[] = {
        {"http://10.0.0.1:8080/two/y?q#f", "/app/y?q#f"},
        {"http://10.0.0.1:8080/two", "/app"},
        {"http://10.0.0.1:8080/two?q", "/app?q"},
        {"http://10.0.0.1:8080/twofold", "/twofold"},
        {"http://10.0.0.1:8080/other?q#f", "/other?q#f"},
        {"http://10.0.0.1:8080//evil.example/", "/evil.example/"},
        {"http://10.0.0.1:8080", "/"},
        {"http://10.0.0.1:8080?q", "/?q"},
        {"http://gate.example/other", NULL},
        {"http://10.0.0.1:8080/app/y", "/app/y"},
        {"http://10.0.0.1:8080/app", "/app"},
        {"http://10.0.0.1/two/y", NULL},
        {"https://10.0.0.1:8080/two/y", "/app/y"},
        {"http://api/two/y", "/app/y"},
        {"http://API:80/two/y", "/app/y"},
        {"https://api/two/y", NULL}, /* another port */
        {"http://up.internal/two/y", "/app/y"},
        {"//up.internal/two/y", "/app/y"},
        {"//evil.example/two/y", NULL},
        {"http://user@api/two/y", NULL},
        {"http://evil.example/two/y", NULL},
        {"http://api.evil.example/two/y", NULL},
        {"http://gate.example/two/y", "http://gate.example/app/y"},
        {"https://gate.example/two/y", NULL}, /* another port than the client's */
        {"http://gate.example:80/two/y", "http://gate.example:80/app/y"},
        {"/two/y", "/app/y"},
        {"/two", "/app"},
        {"/app/y", "/app/y"},
        {"/login", NULL},
        {"y", NULL},
        {"?q", NULL},
        {"", NULL},
        {"ftp://api/two/y", NULL},
        {"javascript:alert(1)", NULL},
        {"http:/two/y", NULL},
        {"/two/\ty", NULL},
        {" /two/y", NULL},
        {"/two\\y", NULL},
    };
    struct rig *r = rig_new("/app/*", "GET /app/x");
    struct ag_rewrite rw = {.redirects = &automatic};

    fake_target(r->f, &r->route, "/two/*");
    for (size_t i = 0; i < AG_COUNT(cases); i++) {
        expect_location(r, &rw, &r->route.decl.target, false, "Location", cases[i].value,
                        cases[i].want);
    }
    expect_location(r, &rw, &r->route.decl.target, true, "Location", "https://api/two/y", "/app/y");
    expect_location(r, &rw, &r->route.decl.target, false, "Content-Location", "/two/y", "/app/y");
    expect_location(r, &rw, &r->route.decl.target, false, "Refresh", "5; url=/two/y",
                    "5; url=/app/y");
    expect_location(r, &rw, &r->route.decl.target, false, "Refresh", "0;URL='http://api/two/y'",
                    "0;URL='/app/y'");
    expect_location(r, &rw, &r->route.decl.target, false, "Refresh", "5", NULL);
    expect_location(r, &rw, &r->route.decl.target, false, "X-Location", "/two/y", NULL);
    rig_free(r);
}

/* Each leads to the gate itself, whatever the upstream writes behind its own host. */
Test(rewrite, no_redirect_to_a_host_is_made)
{
    static const struct {
        const char *value, *want;
    } cases[] = {
        {"http://api//evil.example/", "/evil.example/"},
        {"http://api///evil.example/", "/evil.example/"},
        {"http://api/\\evil.example/", "/evil.example/"},
        {"http://api/two//evil.example", "/evil.example"},
        {"http://api", "/"},
        {"http://api?//evil", "/?//evil"},
        {"http://api\\@evil.example/", NULL},
        {"/two//evil.example", "/evil.example"},
        {"/two/\\evil.example", "/evil.example"},
    };
    struct rig *r = rig_new("/*", "GET /x");
    struct ag_rewrite rw = {.redirects = &automatic};

    for (size_t i = 0; i < AG_COUNT(cases); i++) {
        bool below = strstr(cases[i].value, "/two") != NULL;

        rw.add = below ? AG_SPAN("/two") : AG_SPAN("");
        expect_location(r, &rw, NULL, false, "Location", cases[i].value, cases[i].want);
    }
    rig_free(r);
}

/* Of pieces in any order: what is changed leads to the gate itself, by path or by the host that the client asked. */
Test(rewrite, whatever_an_upstream_writes_leads_here_or_stays)
{
    static const char *const begins[] = {
        "http://api", "http://up.internal", "//api", "http://gate.example", "/two", "/", ""};
    static const char *const pieces[] = {"//", "/",  "\\",  "evil.example", ":80",  "@",  "?",
                                         "#",  "..", "%2f", "/two",         "/app", "\t", "two"};
    static const char *const own = "http://gate.example";
    struct rig *r = rig_new("/app/*", "GET /app/x");
    const struct ag_rewrite rw = {.redirects = &automatic};
    struct ag_rewrite_peer peer = {
        .own = {AG_SPAN("10.0.0.1:8080"), AG_SPAN("api"), AG_SPAN("up.internal")}};
    struct ag_rewrite_paths paths[] = {{AG_SPAN("/app"), AG_SPAN("/two"), false},
                                       {AG_SPAN(""), AG_SPAN("/two"), false},
                                       {AG_SPAN("/app"), AG_SPAN(""), false},
                                       {AG_SPAN(""), AG_SPAN(""), false},
                                       {AG_SPAN("/"), AG_SPAN("/two"), true}};
    unsigned seed = 1, changed = 0;

    for (unsigned i = 0; i < 20000; i++) {
        char text[128];
        struct ag_field f = {
            .name = (const uint8_t *)"Location", .name_len = 8, .id = AG_FIELD_LOCATION};
        struct ag_arena arena = r->ex->arena;
        struct ag_span got;

        strcpy(text, begins[(unsigned)rand_r(&seed) % AG_COUNT(begins)]);
        for (unsigned n = (unsigned)rand_r(&seed) % 6; n > 0; n--) {
            strcat(text, pieces[(unsigned)rand_r(&seed) % AG_COUNT(pieces)]);
        }
        f.value = (const uint8_t *)text;
        f.value_len = (uint32_t)strlen(text);
        peer.paths = &paths[i % AG_COUNT(paths)];
        r->ex->res.fields = (struct ag_fields){&f, 1, 1};
        ag_arena_init(&r->ex->arena, NULL, 0);
        cr_assert_eq(ag_rewrite_answer(&rw, r->ex, &peer), AG_OK);
        got = ag_field_value(&f);
        if (got.ptr != (const uint8_t *)text) {
            bool here =
                got.ptr[0] == '/' && (got.len == 1 || (got.ptr[1] != '/' && got.ptr[1] != '\\'));
            bool ours = ag_span_starts(got, ag_span_str(own)) &&
                        (got.ptr[strlen(own)] == '/' || got.ptr[strlen(own)] == ':');

            changed++;
            cr_assert(here || ours, "%s: %.*s", text, (int)got.len, (const char *)got.ptr);
        }
        ag_arena_release(&r->ex->arena);
        r->ex->arena = arena;
    }
    r->ex->res.fields = (struct ag_fields){0};
    cr_expect_gt(changed, 500);
    rig_free(r);
}

Test(rewrite, redirects_of_a_stripped_prefix)
{
    struct rig *r = rig_new("/api/*", "GET /api/x");
    struct ag_rewrite rw = {.strip = AG_SPAN("/api"), .redirects = &automatic};

    expect_location(r, &rw, NULL, false, "Location", "/y", "/api/y");
    expect_location(r, &rw, NULL, false, "Location", "/", "/api/");
    expect_location(r, &rw, NULL, false, "Location", "/api/y", NULL);
    expect_location(r, &rw, NULL, false, "Location", "http://api", "/api/");
    expect_location(r, &rw, NULL, false, "Location", "http://api?q", "/api/?q");
    rw.add = AG_SPAN("/v1");
    expect_location(r, &rw, NULL, false, "Location", "/v1/y", "/api/y");
    expect_location(r, &rw, NULL, false, "Location", "/v1", "/api");
    expect_location(r, &rw, NULL, false, "Location", "/y", NULL);
    rig_free(r);
}

Test(rewrite, redirects_of_parameters)
{
    struct rig *r = rig_new("/:tenant/app/*", "GET /t1/app/a/b");
    struct ag_rewrite rw = {.redirects = &automatic};

    fake_target(r->f, &r->route, "/tenants/:tenant/*");
    expect_location(r, &rw, &r->route.decl.target, false, "Location", "/tenants/t1/z", "/t1/app/z");
    expect_location(r, &rw, &r->route.decl.target, false, "Location", "/tenants/t2/z", NULL);
    rig_free(r);
}

/* Without a splat nothing else is known of the upstream's paths. */
Test(rewrite, redirects_of_one_path)
{
    struct rig *r = rig_new("/login", "GET /login");
    struct ag_rewrite rw = {.redirects = &automatic};

    fake_target(r->f, &r->route, "/do/login");
    expect_location(r, &rw, &r->route.decl.target, false, "Location", "/do/login?again",
                    "/login?again");
    expect_location(r, &rw, &r->route.decl.target, false, "Location", "/do/login/", "/login/");
    expect_location(r, &rw, &r->route.decl.target, false, "Location", "/do/login/x", NULL);
    expect_location(r, &rw, &r->route.decl.target, false, "Location", "/do", NULL);
    expect_location(r, &rw, &r->route.decl.target, false, "Location", "http://api/do/login",
                    "/login");
    expect_location(r, &rw, &r->route.decl.target, false, "Location", "http://api/login", "/login");
    expect_location(r, &rw, &r->route.decl.target, false, "Location", "http://api/x", "/x");
    expect_location(r, &rw, &r->route.decl.target, false, "Location", "/login", NULL);
    fake_target(r->f, &r->route, "/");
    expect_location(r, &rw, &r->route.decl.target, false, "Location", "/", "/login");
    expect_location(r, &rw, &r->route.decl.target, false, "Location", "http://api", "/login");
    expect_location(r, &rw, &r->route.decl.target, false, "Location", "http://api?q", "/login?q");
    expect_location(r, &rw, &r->route.decl.target, false, "Location", "/x", NULL);
    rig_free(r);
    r = rig_new("/", "GET /");
    fake_target(r->f, &r->route, "/home");
    expect_location(r, &rw, &r->route.decl.target, false, "Location", "/home", "/");
    expect_location(r, &rw, &r->route.decl.target, false, "Location", "/home/", "/");
    expect_location(r, &rw, &r->route.decl.target, false, "Location", "/home/x", NULL);
    rig_free(r);
}

Test(rewrite, redirects_by_maps)
{
    struct rig *r = rig_new("/*", "GET /x");
    const struct ag_rewrite_map v[] = {
        {AG_SPAN("http://old.example/"), 18, vars(r, "/")},
        {AG_SPAN("http://new.example"), 18, vars(r, "https://{host}")},
        {AG_SPAN("/a"), 0, vars(r, "/b")},
        {AG_SPAN("http://none.example/"), 19, vars(r, "https://{header.gone}/")},
    };
    const struct ag_rewrite_redirects redirects = {.maps = {v, AG_COUNT(v)}};
    struct ag_rewrite rw = {.redirects = &redirects};
    static const struct {
        const char *value, *want;
    } cases[] = {
        {"http://old.example/x?q", "/x?q"},
        {"HTTP://OLD.example/x", "/x"},
        {"http://old.example//evil", "/evil"},
        {"http://old.example", NULL},
        {"http://new.example/x", "https://gate.example/x"},
        {"http://new.example", "https://gate.example"},
        {"http://new.example.evil/", NULL},
        {"http://new.example:1/", NULL},
        {"/a/x", "/b/x"},
        {"/a", "/b"},
        {"/A", NULL},
        {"/ab", NULL},
        {"//a", NULL},
        {"http://none.example/evil", NULL},
        {"http://api/x", NULL}, /* not automatic */
    };

    for (size_t i = 0; i < AG_COUNT(cases); i++) {
        expect_location(r, &rw, NULL, false, "Location", cases[i].value, cases[i].want);
    }
    rig_free(r);
}

/* ---- cookies ---- */

Test(rewrite, cookies)
{
    struct rig *r = rig_new("/*", "GET /x");
    const struct ag_rewrite_map domains[] = {
        {AG_SPAN("app.internal"), 0, vars(r, "example.com")},
        {AG_SPAN("told.internal"), 0, vars(r, "{header.x-bad}")},
        {AG_SPAN("*"), 0, NULL},
    };
    const struct ag_rewrite_map paths[] = {{AG_SPAN("/two"), 0, vars(r, "/app")},
                                           {AG_SPAN("/"), 0, vars(r, "/all/")}};
    struct ag_rewrite_cookies c = {.domains = {domains, 3},
                                   .paths = {paths, 2},
                                   .secure = AG_REWRITE_SET,
                                   .http_only = AG_REWRITE_REMOVE,
                                   .same_site = AG_REWRITE_SET,
                                   .same_site_value = AG_SPAN("Lax")};
    static const struct {
        const char *value, *want;
    } cases[] = {
        {"a=b", "a=b; Secure; SameSite=Lax"},
        {"a=\"b, c\"; Path=/two", "a=\"b, c\"; Path=/app; Secure; SameSite=Lax"},
        {"a=b;path=/two/x;HttpOnly", "a=b; path=/app/x; Secure; SameSite=Lax"},
        {"a=b; Path=/twofold", "a=b; Path=/all/twofold; Secure; SameSite=Lax"},
        {"a=b; Domain=.App.Internal; Max-Age=5",
         "a=b; Domain=example.com; Max-Age=5; Secure; SameSite=Lax"},
        {"a=b; domain=other", "a=b; Secure; SameSite=Lax"},
        {"a=b; domain=told.internal", "a=b; Secure; SameSite=Lax"},
        {"a=b; secure; samesite=None; httponly; Expires=Wed, 21 Oct 2015 07:28:00 GMT",
         "a=b; Expires=Wed, 21 Oct 2015 07:28:00 GMT; Secure; SameSite=Lax"},
        {"__Host-a=b; Path=/; Secure", "__Host-a=b; Path=/; Secure; SameSite=Lax"},
        {"path=/two; Path=relative", "path=/two; Path=relative; Secure; SameSite=Lax"},
        {"", "; Secure; SameSite=Lax"},
        {"a=b;;", "a=b; Secure; SameSite=Lax"},
    };

    for (size_t i = 0; i < AG_COUNT(cases); i++) {
        struct ag_span value = ag_span_str(cases[i].value);
        size_t cap = ag_rewrite_cookie_bound(&c, value);
        uint8_t room[8192];
        struct ag_buf out = ag_buf(room, cap);

        cr_assert(cap <= sizeof(room));
        ag_rewrite_cookie(&c, r->ex, value, &out);
        cr_expect(!out.overflow && is(ag_buf_span(&out), cases[i].want), "%s: %.*s", cases[i].value,
                  (int)out.len, (const char *)out.ptr);
    }
    rig_free(r);
}
