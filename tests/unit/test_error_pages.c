/*
 * Goal: of all pages for errors the closest stands: the innermost place that has any for a status, and
 * there the one for the fewest statuses; whether upstreams' errors are taken is said by the innermost
 * place that says anything.
 * Method: levels by hand.
 */
#include "actions/proxy/error_pages.h"

#include <criterion/criterion.h>

static const struct ag_error_page server_v[] = {
    {.from = 400, .to = 599, .body = AG_SPAN_INIT("any")},
    {.from = 404, .to = 404, .body = AG_SPAN_INIT("server 404")},
    {.from = 500, .to = 599, .body = AG_SPAN_INIT("server 5xx")},
};
static const struct ag_error_page group_v[] = {
    {.from = 502, .to = 504, .body = AG_SPAN_INIT("group range")},
    {.from = 500, .to = 599, .body = AG_SPAN_INIT("group 5xx")},
    {.from = 503, .to = 503, .body = AG_SPAN_INIT("group 503")},
};
static const struct ag_error_level server = {.v = server_v, .count = 3},
                                   group = {.v = group_v,
                                            .count = 3,
                                            .says_intercept = true,
                                            .intercept = true},
                                   silent = {.v = group_v, .count = 0},
                                   refuses = {.v = group_v, .count = 0, .says_intercept = true};

Test(error_pages, the_closest_stands)
{
    struct ag_arena arena;
    const struct ag_error_pages *outer, *pages;
    static const struct {
        unsigned status;
        const char *body;
    } cases[] = {{404, "server 404"},  {403, "any"},       {500, "group 5xx"},
                 {502, "group range"}, {503, "group 503"}, {504, "group range"},
                 {599, "group 5xx"},   {400, "any"}};

    ag_arena_init(&arena, NULL, 0);
    outer = ag_error_pages_over(&arena, NULL, &server);
    pages = ag_error_pages_over(&arena, outer, &group);
    for (size_t i = 0; i < AG_COUNT(cases); i++) {
        const struct ag_error_page *p = ag_error_pages_find(pages, cases[i].status);

        cr_assert(p && ag_span_eq(p->body, ag_span_str(cases[i].body)), "%u", cases[i].status);
    }
    cr_expect(ag_span_eq(ag_error_pages_find(outer, 503)->body, AG_SPAN("server 5xx")));
    cr_expect_null(ag_error_pages_find(ag_error_pages_over(&arena, NULL, &group), 404));
    cr_expect_null(ag_error_pages_find(NULL, 404));
    cr_expect_eq(ag_error_pages_over(&arena, outer, NULL), outer);
    ag_arena_release(&arena);
}

Test(error_pages, who_says_what_is_taken)
{
    struct ag_arena arena;
    const struct ag_error_pages *p;

    ag_arena_init(&arena, NULL, 0);
    p = ag_error_pages_over(&arena, NULL, &server);
    cr_expect_not(ag_error_pages_intercept(p, 404));
    p = ag_error_pages_over(&arena, p, &group);
    cr_expect(ag_error_pages_intercept(p, 404));
    p = ag_error_pages_over(&arena, p, &silent);
    cr_expect(ag_error_pages_intercept(p, 404));
    p = ag_error_pages_over(&arena, p, &refuses);
    cr_expect_not(ag_error_pages_intercept(p, 404));
    p = ag_error_pages_over(&arena, NULL, &group);
    cr_expect_not(ag_error_pages_intercept(p, 404), "no page, nothing is taken");
    cr_expect_not(ag_error_pages_intercept(NULL, 404));
    ag_arena_release(&arena);
}
