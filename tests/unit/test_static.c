/*
 * Goal: what paths mean: files, indexes, fallback, hostile paths; and the section's settings.
 * Method: a directory of its own for each test.
 */
#include "tests/unit/static_util.h"

/* ---- what is found ---- */

Test(static, files_and_indexes)
{
    site();
    serve("/", "/");
    for (int again = 0; again < 2; again++) {
        const struct answer *a = get("/", NULL);
        cr_expect(a->status == 200 && a->prepared);
        expect_body(a, "<home>");
        expect_field(a, "Content-Type", "text/html; charset=utf-8");
        expect_field(a, "Cache-Control", "no-cache");
        expect_field(a, "Accept-Ranges", "bytes");
        expect_field(a, "Content-Length", "6");
        a = get("/app.js?v=1", NULL);
        expect_body(a, "alert(1)");
        cr_expect(!fake_field(a, "Cache-Control") && fake_field(a, "Last-Modified"));
        cr_expect(strlen(fake_field(a, "ETag")) == AG_ETAG_STRONG_LEN);
        a = get("/assets/app.3f2a9c1b.js", NULL);
        expect_field(a, "Cache-Control", "public, max-age=31536000, immutable");
        expect_body(get("/a%20b.txt", NULL), "space");
        expect_body(get("/docs/", NULL), "<docs>");
        expect_body(get("/.well-known/security.txt", NULL), "Contact");
        a = get("/nothing.txt", NULL);
        cr_expect(a->status == 200 && a->body_len == 0);
    }
    end();
}

Test(static, head)
{
    site();
    serve("/", "/");
    for (int again = 0; again < 2; again++) {
        const struct answer *a = fake_ask(f, &r, "HEAD /app.js", NULL);
        cr_expect(a->status == 200 && a->body_len == 0);
        expect_field(a, "Content-Length", "8");
    }
    const struct answer *a = fake_ask(f, &r, "POST /app.js", NULL);
    cr_expect(a->status == 405);
    expect_field(a, "Allow", "GET, HEAD");
    end();
}

Test(static, hostile_paths)
{
    static const char *const hidden[] = {"/.env",
                                         "/.git/config",
                                         "/.git/",
                                         "/assets/..%2F.env",
                                         "/..%2Fetc",
                                         "//app.js",
                                         "/assets//app.3f2a9c1b.js",
                                         "///",
                                         "/app.js/",
                                         "/%2E%2E/%2E%2E/",
                                         "/docs%2Findex.html",
                                         "/docs%2F",
                                         "/a\\..\\app.js",
                                         "/.well-known/.x",
                                         "/docs/.well-known/x"};

    site();
    folder_put_text("docs/.well-known/x", "no");
    folder_put_text(".well-known/.x", "no");
    serve("/", "/");
    for (size_t i = 0; i < AG_COUNT(hidden); i++) {
        cr_expect(get(hidden[i], "Accept: image/png\n")->status == 404, "%s", hidden[i]);
    }
    /* not even a browser gets the index for these */
    cr_expect(get("/.env", "Accept: text/html\n")->status == 404);
    cr_expect(get("//admin", "Accept: text/html\n")->status == 404);
    char *path = malloc(6001);
    memset(path, 'a', 6000);
    path[0] = '/';
    path[6000] = 0;
    cr_expect(get(path, "Accept: text/html\n")->status == 404);
    free(path);
    end();
}

Test(static, dotfiles_allowed)
{
    site();
    f = fake_new(&ag_action_static);
    fake_set(f, f->config, "static.root", folder);
    fake_set(f, f->config, "static.dotfiles", "allow");
    cr_assert(fake_section(f) == AG_OK);
    serve("/", "/");
    expect_body(get("/.env", NULL), "SECRET");
    end();
}

Test(static, symlinks)
{
    char path[128], outside[128];

    site();
    (void)snprintf(path, sizeof(path), "%s/in.js", folder);
    cr_assert(symlink("app.js", path) == 0);
    (void)snprintf(path, sizeof(path), "%s/out", folder);
    cr_assert(symlink("/etc", path) == 0);
    (void)snprintf(outside, sizeof(outside), "%s/up", folder);
    cr_assert(symlink("..", outside) == 0);
    serve("/", "/");
    expect_body(get("/in.js", NULL), "alert(1)");
    cr_expect(get("/out/passwd", "Accept: image/png\n")->status == 404);
    cr_expect(get("/up/x", "Accept: image/png\n")->status == 404);
    fake_free(f);
    f = fake_new(&ag_action_static);
    fake_set(f, f->config, "static.root", folder);
    fake_set(f, f->config, "static.follow", "none");
    cr_assert(fake_section(f) == AG_OK);
    serve("/", "/");
    cr_expect(get("/in.js", NULL)->status == 404);
    fake_free(f);
    f = fake_new(&ag_action_static);
    fake_set(f, f->config, "static.root", folder);
    fake_set(f, f->config, "static.follow", "any");
    cr_assert(fake_section(f) == AG_OK);
    serve("/", "/");
    cr_expect(get("/out/passwd", NULL)->status == 200);
    end();
}

Test(static, directories_without_slash)
{
    site();
    folder_put_text("\\evil/index.html", "x");
    serve("/", "/");
    const struct answer *a = get("/docs?a=1", NULL);
    cr_expect(a->status == 301);
    expect_field(a, "Location", "/docs/?a=1");
    a = get("/%5Cevil", NULL);
    expect_field(a, "Location", "/%5Cevil/");
    serve("/app", "/docs/");
    a = get("/app", NULL);
    cr_expect(a->status == 301);
    expect_field(a, "Location", "/app/");
    expect_body(get("/app/", NULL), "<docs>");
    expect_body(get("/app/index.html", NULL), "<docs>");
    serve("/app/", "/"); /* well-known is a place of the host's, not of a path below */
    cr_expect(get("/app/.well-known/security.txt", NULL)->status == 404);
    end();
}

struct fallback {
    const char *target, *fields;
    bool falls;
};

static const struct fallback fallbacks[] = {
    {"/users/7", "Accept: text/html,application/xhtml+xml,*/*;q=0.8\n", true},
    {"/users/7.5", "Accept: text/html\n", true},
    {"/users/7", "Accept: TEXT/HTML;level=1\n", true},
    {"/users/7", "Accept: application/json\nAccept: text/html\n", true},
    {"/users/7", "Accept: */*\n", true},
    {"/users/7", NULL, true},
    {"/users/", NULL, true},
    {"/empty/", NULL, true},
    {"/users/7.5", "Accept: */*\n", false},
    {"/missing.js", NULL, false},
    {"/missing.js", "Accept: */*\n", false},
    {"/users/7", "Accept: application/json\n", false},
    {"/users/7", "Accept: image/webp,*/*;q=0.8\n", false},
    {"/users/7", "Accept: text/html;q=0\n", false},
    {"/users/7", "Accept: text/htmlx\n", false},
};

Test(static, history_fallback)
{
    site();
    serve("/", "/");
    for (int again = 0; again < 2; again++) {
        for (size_t i = 0; i < AG_COUNT(fallbacks); i++) {
            const struct answer *a = get(fallbacks[i].target, fallbacks[i].fields);
            cr_expect(a->status == (fallbacks[i].falls ? 200 : 404), "row %zu", i);
            if (fallbacks[i].falls) {
                expect_body(a, "<home>");
                expect_field(a, "Cache-Control", "no-cache");
            }
        }
    }
    /* below a directory that has no index there is no fallback */
    serve("/", "/assets/");
    cr_expect(get("/users/7", NULL)->status == 404);
    end();
}

Test(static, fallback_off)
{
    site();
    f = fake_new(&ag_action_static);
    fake_set(f, f->config, "static.root", folder);
    fake_set(f, f->config, "static.spa", "off");
    fake_set(f, f->config, "static.cache_control", "max-age=60");
    fake_set(f, f->config, "static.types.js", "text/x-test");
    cr_assert(fake_section(f) == AG_OK);
    serve("/", "/");
    cr_expect(get("/users/7", NULL)->status == 404);
    expect_field(get("/", NULL), "Cache-Control", "max-age=60");
    expect_field(get("/app.js", NULL), "Content-Type", "text/x-test");
    end();
}

Test(static, routes_to_files_and_parameters)
{
    site();
    folder_put_text("u/7/index.html", "seven");
    folder_put_text("u/7/x/y.txt", "deep");
    folder_put_text("u/.h/index.html", "hidden");
    serve("/favicon.ico", "/app.js");
    expect_body(get("/favicon.ico", NULL), "alert(1)");
    serve("/users/:id", "/u/:id/index.html");
    expect_body(get("/users/7", NULL), "seven");
    expect_body(get("/users/7", NULL), "seven");
    cr_expect(get("/users/8", NULL)->status == 404);
    cr_expect(get("/users/.h", NULL)->status == 404);
    cr_expect(get("/users/..", NULL)->status == 404);
    cr_expect(get("/users/7%2Fx", NULL)->status == 404);
    serve("/users/:id/*", "/u/:id/*");
    expect_body(get("/users/7/x/y.txt", NULL), "deep");
    expect_body(get("/users/7/", NULL), "seven");
    serve("/users/:id/*", "/u/:id/");
    expect_body(get("/users/7/x/y.txt", NULL), "deep");
    serve("/s/*", "/u/");
    expect_body(get("/s/7/x/y.txt", NULL), "deep");
    end();
}

/* ---- configuration ---- */

Test(static, mistakes)
{
    static const char *const wrong[][2] = {
        {"static.roots", "/x"},         {"static.follow", "sometimes"},
        {"static.dotfiles", "yes"},     {"static.spa", "maybe"},
        {"static.index", "a/b"},        {"static.index", ""},
        {"static.types.a.b", "x/y"},    {"static.types.wasm", "nonsense"},
        {"static.cache.max", "1k"},     {"static.cache.max_file", "17m"},
        {"static.cache_control", "\n"}, {"static.cache.max_file", "lots"}};

    site();
    for (size_t i = 0; i < AG_COUNT(wrong); i++) {
        f = fake_new(&ag_action_static);
        fake_set(f, f->config, wrong[i][0], wrong[i][1]);
        cr_expect(fake_section(f) == AG_EINVAL && f->diags.errors == 1, "%s: %s", wrong[i][0],
                  wrong[i][1]);
        fake_free(f);
    }
    f = NULL;
    serve("/", "/");
    cr_expect(configure("/x", "/docs") == AG_EINVAL, "a directory without its slash");
    cr_expect(configure("/x", "/missing.txt") == AG_OK && f->diags.warnings == 1);
    end();
}

Test(static, relative_paths)
{
    char base[128];

    site();
    f = fake_new(&ag_action_static);
    (void)snprintf(base, sizeof(base), "%s/assets", folder);
    f->build.base_dir = base;
    cr_assert(fake_section(f) == AG_OK);
    cr_assert(configure("/", "../docs/") == AG_OK);
    expect_body(get("/", NULL), "<docs>");
    cr_assert(configure("/", "./") == AG_OK);
    expect_body(get("/app.3f2a9c1b.js", NULL), "hashed");
    fake_free(f);
    f = fake_new(&ag_action_static);
    f->build.base_dir = base;
    fake_set(f, f->config, "static.root", "../docs/./..");
    cr_assert(fake_section(f) == AG_OK);
    cr_assert(configure("/", "/docs/") == AG_OK);
    expect_body(get("/", NULL), "<docs>");
    end();
}

Test(static, hashed_names)
{
    static const char *const hashed[] = {
        "app.3f2a9c1b.js",   "main.073c9b0a.chunk.css",    "index-Bx7_Kd2Q.js",
        "chunk-7A2BCDEF.js", "a/b-0123456789abcdef.woff2", "logo.8f3a2b1c.svg",
        "index-B-7xKd_Q.css"};
    static const char *const plain[] = {
        "app.js",          "report-20240101.pdf", "photo-20240101.jpg", "3f2a9c1b.html",
        "deadbeef.js",     "IMG20240.jpg",        "photo-IMG2K45X.jpg", "app-abcdefgh.js",
        "jquery-3.7.1.js", "index-Bx7_Kd2.js",    "a.3f2a9c1b/app.js",  "x.3f2a9c1b"};

    for (size_t i = 0; i < AG_COUNT(hashed); i++) {
        cr_expect(ag_static_name_is_hashed(ag_span_str(hashed[i])), "%s", hashed[i]);
    }
    for (size_t i = 0; i < AG_COUNT(plain); i++) {
        cr_expect(!ag_static_name_is_hashed(ag_span_str(plain[i])), "%s", plain[i]);
    }
}
