/*
 * Any bytes as lines of the DSL: nothing is read beyond a line, what is accepted keeps the promises of
 * dsl.h, what is refused is reported, and the trie takes whatever was accepted.
 */
#include "router/trie.h"

#define ROUTES_MAX 64u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_pattern(const struct ag_pattern *p)
{
    AG_ASSERT(p->count >= 1 && p->count <= AG_SEGMENTS_MAX);
    AG_ASSERT(p->param_count <= AG_PARAMS_MAX && p->other_count <= AG_METHOD_NAMES_MAX);
    for (uint16_t i = 0; i < p->count; i++) {
        AG_ASSERT(p->segments[i].kind != AG_SEG_SPLAT || i + 1 == p->count);
        AG_ASSERT(ag_span_find(p->segments[i].text, '/') == p->segments[i].text.len);
    }
    for (uint16_t i = 0; i < p->param_count; i++) {
        AG_ASSERT(p->params[i].segment < p->count);
        AG_ASSERT(p->segments[p->params[i].segment].kind != AG_SEG_EXACT);
    }
}

static void check_action(const struct ag_action_decl *a, const struct ag_pattern *p)
{
    AG_ASSERT(a->kind < AG_ACTION_KINDS);
    for (uint16_t i = 0; i < a->target.count; i++) {
        AG_ASSERT(a->target.parts[i].param < (int)p->param_count);
    }
    if (a->kind == AG_ACTION_PROXY) {
        AG_ASSERT(a->authority.len > 0 && ag_span_find(a->authority, '*') == a->authority.len);
    }
}

static void check_trie(const struct ag_pattern *patterns, uint32_t count)
{
    struct ag_trie_entry entries[ROUTES_MAX];
    struct ag_trie *t;

    for (uint32_t i = 0; i < count; i++) {
        entries[i] = (struct ag_trie_entry){&patterns[i], 0, i};
    }
    t = ag_trie_build(entries, count);
    for (uint32_t i = 0; i < count; i++) {
        struct ag_span text = patterns[i].text;
        size_t slash = ag_span_find(text, '/');
        struct ag_trie_query q = {.host = ag_span_sub(text, 0, slash),
                                  .port = patterns[i].port,
                                  .path = ag_span_sub(text, slash, text.len),
                                  .method = AG_METHOD_GET};
        uint32_t id = ag_trie_lookup(t, &q);

        AG_ASSERT(id == AG_TRIE_NONE || id < count);
        AG_ASSERT(id == AG_TRIE_NONE || ag_trie_allowed(t, &q) != 0);
    }
    ag_trie_free(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ag_span rest = ag_span(data, size);
    static struct ag_pattern patterns[ROUTES_MAX];
    struct ag_arena arena;
    struct ag_diags diags;
    uint32_t count = 0, line_number = 1;

    ag_arena_init(&arena, NULL, 0);
    ag_diags_init(&diags, &arena);
    while (rest.len > 0 && count < ROUTES_MAX) {
        size_t len = ag_span_find(rest, '\n');
        uint8_t *exact = malloc(len + 1); /* ASan sees a read beyond the line */
        struct ag_span line = ag_span(exact, len);
        struct ag_action_decl action;
        uint32_t errors = diags.errors;
        enum ag_status st;

        AG_ASSERT(exact);
        memcpy(exact, rest.ptr, len);
        AG_ASSERT(ag_dsl_find_colon(line) <= len);
        st = ag_dsl_parse_line(&arena, &diags, (struct ag_pos){NULL, line_number++, 1}, line,
                               &patterns[count], &action);
        AG_ASSERT((st == AG_EINVAL) == (diags.errors > errors));
        if (st == AG_OK) {
            check_pattern(&patterns[count]);
            check_action(&action, &patterns[count]);
            /* The line's bytes live no longer than this turn; the trie wants them later. */
            st = ag_dsl_parse_line(&arena, &diags, (struct ag_pos){NULL, 1, 1},
                                   ag_arena_copy(&arena, line), &patterns[count], &action);
            AG_ASSERT(st == AG_OK);
            count++;
        }
        free(exact);
        rest = ag_span_sub(rest, ag_min_size(len + 1, rest.len), rest.len);
    }
    check_trie(patterns, count);
    ag_arena_release(&arena);
    return 0;
}
