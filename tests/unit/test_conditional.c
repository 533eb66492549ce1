/*
 * Goal: RFC 9110 section 13.2.2: each condition's outcome, and their precedence.
 * Method: rows of request fields against one representation.
 */
#include "actions/static/conditional.h"

#include <criterion/criterion.h>

#define DATE   "Sun, 06 Nov 1994 08:49:37 GMT"
#define DATE_S 784111777
#define OLDER  "Sun, 06 Nov 1994 08:49:36 GMT"
#define NEWER  "Sun, 06 Nov 1994 08:49:38 GMT"

enum want { HOLDS = AG_PRECONDITION_HOLDS, NOT_MODIFIED, FAILED };

struct row {
    enum ag_method method;
    const char *etag;
    const char *fields;
    enum want want;
};

static const struct row rows[] = {
    {AG_METHOD_GET, "\"a\"", "", HOLDS},
    /* If-Match: strong */
    {AG_METHOD_GET, "\"a\"", "If-Match: \"a\"\n", HOLDS},
    {AG_METHOD_GET, "\"a\"", "If-Match: *\n", HOLDS},
    {AG_METHOD_GET, "\"a\"", "If-Match: \"b\", \"a\"\n", HOLDS},
    {AG_METHOD_GET, "\"a\"", "If-Match: \"b\"\nIf-Match: \"a\"\n", HOLDS},
    {AG_METHOD_GET, "\"a\"", "If-Match: \"b\"\n", FAILED},
    {AG_METHOD_GET, "\"a\"", "If-Match: W/\"a\"\n", FAILED},
    {AG_METHOD_GET, "W/\"a\"", "If-Match: W/\"a\"\n", FAILED},
    {AG_METHOD_GET, "W/\"a\"", "If-Match: *\n", HOLDS},
    {AG_METHOD_GET, "\"a\"", "If-Match: a\n", FAILED},
    {AG_METHOD_GET, "\"a\"", "If-Match: \"a\n", FAILED},
    {AG_METHOD_GET, "\"a\\\"", "If-Match: \"a\\\"\n", HOLDS}, /* a backslash escapes nothing */
    {AG_METHOD_GET, "\"a,b\"", "If-Match: \"x\",\"a,b\"\n", HOLDS},
    /* If-Unmodified-Since, without If-Match alone */
    {AG_METHOD_GET, "\"a\"", "If-Unmodified-Since: " DATE "\n", HOLDS},
    {AG_METHOD_GET, "\"a\"", "If-Unmodified-Since: " NEWER "\n", HOLDS},
    {AG_METHOD_GET, "\"a\"", "If-Unmodified-Since: " OLDER "\n", FAILED},
    {AG_METHOD_GET, "\"a\"", "If-Unmodified-Since: yesterday\n", HOLDS},
    {AG_METHOD_GET, "\"a\"", "If-Match: \"a\"\nIf-Unmodified-Since: " OLDER "\n", HOLDS},
    {AG_METHOD_GET, "\"a\"", "If-Unmodified-Since: " OLDER "\nIf-Unmodified-Since: " OLDER "\n",
     HOLDS},
    /* If-None-Match: weak */
    {AG_METHOD_GET, "\"a\"", "If-None-Match: \"a\"\n", NOT_MODIFIED},
    {AG_METHOD_HEAD, "\"a\"", "If-None-Match: \"a\"\n", NOT_MODIFIED},
    {AG_METHOD_PUT, "\"a\"", "If-None-Match: \"a\"\n", FAILED},
    {AG_METHOD_GET, "\"a\"", "If-None-Match: W/\"a\"\n", NOT_MODIFIED},
    {AG_METHOD_GET, "W/\"a\"", "If-None-Match: \"a\"\n", NOT_MODIFIED},
    {AG_METHOD_GET, "\"a\"", "If-None-Match: \"b\", W/\"a\"\n", NOT_MODIFIED},
    {AG_METHOD_GET, "\"a\"", "If-None-Match: *\n", NOT_MODIFIED},
    {AG_METHOD_GET, "\"a\"", "If-None-Match: \"b\"\n", HOLDS},
    {AG_METHOD_GET, "\"a\"", "If-None-Match: a\n", HOLDS},
    /* If-Modified-Since, without If-None-Match alone, GET and HEAD alone */
    {AG_METHOD_GET, "\"a\"", "If-Modified-Since: " DATE "\n", NOT_MODIFIED},
    {AG_METHOD_HEAD, "\"a\"", "If-Modified-Since: " NEWER "\n", NOT_MODIFIED},
    {AG_METHOD_GET, "\"a\"", "If-Modified-Since: Sunday, 06-Nov-94 08:49:37 GMT\n", NOT_MODIFIED},
    {AG_METHOD_GET, "\"a\"", "If-Modified-Since: " OLDER "\n", HOLDS},
    {AG_METHOD_PUT, "\"a\"", "If-Modified-Since: " DATE "\n", HOLDS},
    {AG_METHOD_GET, "\"a\"", "If-Modified-Since: 784111777\n", HOLDS},
    {AG_METHOD_GET, "\"a\"", "If-None-Match: \"b\"\nIf-Modified-Since: " DATE "\n", HOLDS},
    /* the first group goes before the second */
    {AG_METHOD_GET, "\"a\"", "If-None-Match: \"a\"\nIf-Match: \"b\"\n", FAILED},
    {AG_METHOD_GET, "\"a\"", "If-None-Match: \"a\"\nIf-Match: \"a\"\n", NOT_MODIFIED},
};

static struct ag_request request(struct ag_arena *arena, enum ag_method method, const char *fields)
{
    struct ag_request req = {.method = (uint8_t)method};

    while (*fields) {
        size_t len = strcspn(fields, "\n"), colon = strcspn(fields, ":");
        struct ag_span name = ag_span(fields, colon);
        struct ag_span value = ag_span_trim(ag_span(fields + colon + 1, len - colon - 1));
        cr_assert(ag_fields_add(&req.fields, arena, ag_field_id_from_name(name), name, value) ==
                  AG_OK);
        fields += len + 1;
    }
    return req;
}

Test(conditional, precedence)
{
    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        struct ag_arena arena;
        ag_arena_init(&arena, NULL, 0);
        struct ag_request req = request(&arena, rows[i].method, rows[i].fields);
        struct ag_validators v = {ag_span_str(rows[i].etag), DATE_S, true};
        cr_expect((enum want)ag_conditional_check(&req, &v) == rows[i].want, "row %zu: %s", i,
                  rows[i].fields);
        cr_expect(ag_conditional_asked(&req.fields) == (rows[i].fields[0] != 0), "row %zu", i);
        ag_arena_release(&arena);
    }
}

static bool applies(enum ag_method method, const char *etag, const char *fields, int64_t now_s)
{
    struct ag_arena arena;
    struct ag_validators v = {ag_span_str(etag), DATE_S, true};
    bool yes;

    ag_arena_init(&arena, NULL, 0);
    struct ag_request req = request(&arena, method, fields);
    yes = ag_span_eq(ag_conditional_range(&req, &v, now_s), AG_SPAN("bytes=0-1"));
    ag_arena_release(&arena);
    return yes;
}

Test(conditional, if_range)
{
    const char *range = "Range: bytes=0-1\n";
    int64_t later = DATE_S + 60;

    cr_expect(applies(AG_METHOD_GET, "\"a\"", range, later));
    cr_expect(!applies(AG_METHOD_HEAD, "\"a\"", range, later));
    cr_expect(!applies(AG_METHOD_GET, "\"a\"", "If-Range: \"a\"\n", later));
    cr_expect(!applies(AG_METHOD_GET, "\"a\"", "Range: bytes=0-1\nRange: bytes=0-1\n", later));
    cr_expect(applies(AG_METHOD_GET, "\"a\"", "Range: bytes=0-1\nIf-Range: \"a\"\n", later));
    cr_expect(!applies(AG_METHOD_GET, "\"a\"", "Range: bytes=0-1\nIf-Range: \"b\"\n", later));
    cr_expect(!applies(AG_METHOD_GET, "\"a\"", "Range: bytes=0-1\nIf-Range: W/\"a\"\n", later));
    cr_expect(!applies(AG_METHOD_GET, "W/\"a\"", "Range: bytes=0-1\nIf-Range: W/\"a\"\n", later));
    cr_expect(
        !applies(AG_METHOD_GET, "\"a\"", "Range: bytes=0-1\nIf-Range: \"a\", \"b\"\n", later));
    cr_expect(applies(AG_METHOD_GET, "\"a\"", "Range: bytes=0-1\nIf-Range: " DATE "\n", later));
    cr_expect(!applies(AG_METHOD_GET, "\"a\"", "Range: bytes=0-1\nIf-Range: " NEWER "\n", later));
    cr_expect(!applies(AG_METHOD_GET, "\"a\"", "Range: bytes=0-1\nIf-Range: " OLDER "\n", later));
    cr_expect(!applies(AG_METHOD_GET, "\"a\"", "Range: bytes=0-1\nIf-Range: " DATE "\n", DATE_S));
    cr_expect(!applies(AG_METHOD_GET, "\"a\"", "Range: bytes=0-1\nIf-Range: soon\n", later));
}
