/*
 * Any bytes as a YAML config and as a .gate file: no crash; a tree or a diagnosis; a route line's text
 * is what stands in the file at its position.
 */
#include "router/config_impl.h"
#include "router/model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The bytes at `pos`. */
static struct ag_span text_at(const struct ag_source *src, struct ag_pos pos)
{
    struct ag_span rest = src->text;

    AG_ASSERT(pos.source == src && pos.line >= 1 && pos.col >= 1);
    for (uint32_t line = 1; line < pos.line; line++) {
        size_t end = ag_span_find(rest, '\n');
        AG_ASSERT(end < rest.len);
        rest = ag_span_sub(rest, end + 1, rest.len);
    }
    return ag_span_sub(rest, pos.col - 1, rest.len);
}

static void check_lines(const struct ag_source *src, const struct ag_node *root)
{
    const struct ag_node *routes = ag_node_get(root, "routes");
    unsigned budget = 100;

    for (const struct ag_node *n = routes ? routes->first : NULL; n && budget--; n = n->next) {
        /* A list's strings are YAML's: escapes are undone in them, and lines joined. */
        if (n->dsl && n->text.ptr >= src->text.ptr && n->text.ptr < src->text.ptr + src->text.len) {
            AG_ASSERT(ag_span_starts(text_at(src, n->pos), n->text));
            AG_ASSERT(ag_span_find(n->text, '\n') == n->text.len);
        }
    }
}

static void run(struct ag_span text,
                struct ag_node *(*parse)(const struct ag_source *, struct ag_diags *))
{
    static const char *const environ[] = {"A=1", "ANYGATE_SERVER__WORKERS=3", NULL};
    struct ag_source src = {"fuzz", text};
    struct ag_arena arena;
    struct ag_diags diags;
    struct ag_config_env env;

    ag_arena_init(&arena, NULL, 0);
    ag_diags_init(&diags, &arena);
    ag_config_env_init(&env, &arena, environ);
    struct ag_node *root = parse(&src, &diags);
    AG_ASSERT(root || diags.errors > 0);
    if (root) {
        check_lines(&src, root);
        ag_config_expand(root, &env, &diags);
        ag_config_set_env(root, &env, &diags);
        AG_ASSERT(ag_model_read(root, &diags) || diags.errors > 0);
    }
    for (const struct ag_diag *g = diags.first; g; g = g->next) {
        if (g->pos.source == &src) {
            (void)text_at(&src, (struct ag_pos){&src, g->pos.line, 1});
        }
    }
    ag_arena_release(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    run(ag_span(data, size), ag_config_parse_yaml);
    run(ag_span(data, size), ag_config_parse_gate);
    return 0;
}
