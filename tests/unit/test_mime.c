/* Goal: types by extension: any case, the last dot counts, the administrator's word goes first. */
#include "actions/mime.h"

#include <criterion/criterion.h>

static const struct ag_mime_override overrides[] = {
    {AG_SPAN_INIT("glsl"), AG_SPAN_INIT("text/x-glsl")},
    {AG_SPAN_INIT("html"), AG_SPAN_INIT("application/xhtml+xml")},
};
static const struct ag_mime_table table = {overrides, AG_COUNT(overrides)};

static bool is(const char *name, const struct ag_mime_table *t, const char *type)
{
    return ag_span_eq(ag_mime_type(ag_span_str(name), t), ag_span_str(type));
}

Test(mime, types)
{
    cr_expect(is("index.html", NULL, "text/html; charset=utf-8"));
    cr_expect(is("a/b.c/INDEX.HTML", NULL, "text/html; charset=utf-8"));
    cr_expect(is("app.3f2a9c1b.js", NULL, "text/javascript; charset=utf-8"));
    cr_expect(is("x.css", NULL, "text/css; charset=utf-8"));
    cr_expect(is("x.json", NULL, "application/json"));
    cr_expect(is("x.wasm", NULL, "application/wasm"));
    cr_expect(is("x.woff2", NULL, "font/woff2"));
    cr_expect(is("x.svg", NULL, "image/svg+xml"));
    cr_expect(is("x.7z", NULL, "application/x-7z-compressed")); /* ends of the table */
    cr_expect(is("x.3g2", NULL, "video/3gpp2"));
    cr_expect(is("x.zst", NULL, "application/zstd"));
    cr_expect(is("x.glsl", NULL, "application/octet-stream"));
    cr_expect(is("x.GLSL", &table, "text/x-glsl"));
    cr_expect(is("x.html", &table, "application/xhtml+xml"));
    cr_expect(is("x.htm", &table, "text/html; charset=utf-8"));
}

Test(mime, without_extension)
{
    const char *names[] = {"",      "README", "a.js/README",           ".html",
                           "a/.js", "x.",     "x.averyveryverylongone"};

    for (size_t i = 0; i < AG_COUNT(names); i++) {
        cr_expect(is(names[i], &table, "application/octet-stream"), "%s", names[i]);
    }
    cr_expect(
        ag_span_eq(ag_mime_type(ag_span("x.js\0", 5), NULL), AG_SPAN("application/octet-stream")));
    cr_expect(ag_mime_extension(AG_SPAN("a.b/c")).len == 0);
    cr_expect(ag_span_eq(ag_mime_extension(AG_SPAN("a.b/c.tar.GZ")), AG_SPAN("GZ")));
}
