#define XXH_INLINE_ALL
#include "router/config_impl.h"

#include <xxhash.h>

#define CAP_MIN 64u

static size_t slot_of(const struct ag_keyset *s, const void *map, struct ag_span key)
{
    uint64_t hash = XXH3_64bits_withSeed(key.len ? (const void *)key.ptr : "", key.len,
                                         (uint64_t)(uintptr_t)map);
    size_t at = (size_t)hash & (s->cap - 1);

    /* At most half of the table is in use, so a free slot ends every walk. */
    while (s->v[at].map && !(s->v[at].map == map && ag_span_eq(s->v[at].key, key))) {
        at = (at + 1) & (s->cap - 1);
    }
    return at;
}

static void grow(struct ag_keyset *s)
{
    struct ag_keyset old = *s;

    s->cap = old.cap ? old.cap * 2 : CAP_MIN;
    s->v = calloc(s->cap, sizeof(*s->v));
    if (!s->v) {
        ag_panic(__FILE__, __LINE__, "out of memory");
    }
    for (size_t i = 0; i < old.cap; i++) {
        if (old.v[i].map) {
            s->v[slot_of(s, old.v[i].map, old.v[i].key)] = old.v[i];
        }
    }
    free(old.v);
}

struct ag_node *ag_keyset_add(struct ag_keyset *s, const void *map, struct ag_span key,
                              struct ag_node *node)
{
    AG_ASSERT(map && node);
    if ((s->count + 1) * 2 > s->cap) {
        grow(s);
    }
    struct ag_keyset_entry *e = &s->v[slot_of(s, map, key)];
    if (e->map) {
        return e->node;
    }
    *e = (struct ag_keyset_entry){map, key, node};
    s->count++;
    return NULL;
}

void ag_keyset_deinit(struct ag_keyset *s)
{
    free(s->v);
    *s = (struct ag_keyset){0};
}

struct ag_pos ag_config_key_pos(const struct ag_node *n)
{
    return n->dsl ? n->pos : n->key_pos;
}

bool ag_config_key_is_new(struct ag_keyset *s, struct ag_diags *diags, const void *map,
                          struct ag_span key, struct ag_node *node)
{
    struct ag_node *other = ag_keyset_add(s, map, key, node);

    if (!other) {
        return true;
    }
    struct ag_pos first = ag_config_key_pos(other), second = ag_config_key_pos(node);
    /* Route lines are all read before the long forms between them. */
    if (second.line < first.line || (second.line == first.line && second.col < first.col)) {
        struct ag_pos swap = first;
        first = second;
        second = swap;
    }
    /* Formatted only while it will be shown, so that a file of nothing but errors costs no memory. */
    const char *hint = NULL;
    if (diags->errors < AG_DIAGS_MAX) {
        hint = ag_arena_printf(diags->arena, "the first is on line %u", first.line);
    }
    ag_diag_error(diags, second, hint, "duplicate key \"%.*s\"", AG_CONFIG_SHOW(key));
    return false;
}
