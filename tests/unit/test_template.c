/*
 * Goal: a target with parameters becomes the path that the request asks for.
 * Method: the pattern and target go through the DSL; the exchange holds only path and parameters.
 */
#include "router/dsl.h"

#include <criterion/criterion.h>
#include <stdio.h>

static const struct {
    const char *line, *path, *want;
} rows[] = {
    {"/x: http://h/y", "/x", "/y"},
    {"/u/:id: http://h/users/:id/x", "/u/7%2F8", "/users/7%2F8/x"},
    {"/:a/:b/*: http://h/:b/:a/*", "/1/2/3/4", "/2/1/3/4"},
    {"/a/*: http://h/*", "/a/", "/"},
    {"/a/*: http://h/b/*/c", "/a/x/y", "/b/x/y/c"},
    {"/:id: FOUND -> https://h/:id?a#b", "/7", "https://h/7?a#b"},
    {"/:id: FOUND -> /:id/:id", "/7", "/7/7"},
    {"/*p: ./d/*p", "/a//b", "./d/a//b"},
};

Test(template, expands)
{
    struct ag_exchange *ex = calloc(1, sizeof(*ex));

    AG_ASSERT(ex);
    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        struct ag_arena arena;
        struct ag_diags diags;
        struct ag_pattern p;
        struct ag_action_decl a;
        char out[128];
        struct ag_buf b = ag_buf(out, sizeof(out) - 1);

        ag_arena_init(&arena, NULL, 0);
        ag_diags_init(&diags, &arena);
        cr_assert_eq(ag_dsl_parse_line(&arena, &diags, (struct ag_pos){0},
                                       ag_span_str(rows[i].line), &p, &a),
                     AG_OK, "%s", rows[i].line);
        ex->req.path = ag_span_str(rows[i].path);
        ex->params = p.params;
        ex->param_count = p.param_count;
        ag_template_expand(&a.target, ex, &b);
        out[b.len] = 0;
        cr_expect_str_eq(out, rows[i].want, "%s: %s", rows[i].line, out);
        cr_expect_eq(a.has_params, p.param_count > 0);
        b = ag_buf(out, strlen(rows[i].want) - 1);
        ag_template_expand(&a.target, ex, &b);
        cr_expect(b.overflow);
        ag_arena_release(&arena);
    }
    free(ex);
}
