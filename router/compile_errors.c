#include "router/compile.h"

void ag_compile_errors_read(struct ag_compile *c, const struct ag_node *owner, struct ag_span name,
                            const struct ag_error_level **out)
{
    struct ag_error_place *place;

    /* A mistake is in the diagnoses. */
    if (ag_compile_told(c, ag_error_level_read(&c->build, owner, out),
                        owner ? owner->pos : c->build.config->pos, "error_pages") != AG_OK ||
        !*out) {
        return;
    }
    place = ag_arena_alloc(c->arena, sizeof(*place));
    *place = (struct ag_error_place){NULL, name, *out};
    *(c->last_errors ? &c->last_errors->next : &c->first_errors) = place;
    c->last_errors = place;
}

const struct ag_error_pages *ag_compile_errors(struct ag_compile *c, struct ag_compile_set *set,
                                               const struct ag_error_level *own)
{
    if (!set->has_errors) {
        set->has_errors = true;
        set->errors = ag_error_pages_over(c->arena, NULL, c->errors);
        for (uint32_t i = 0; i < set->count; i++) {
            set->errors =
                ag_error_pages_over(c->arena, set->errors, c->groups[set->groups[i]].errors);
        }
    }
    return ag_error_pages_over(c->arena, set->errors, own);
}

void ag_compile_errors_snapshot(struct ag_compile *c, struct ag_snapshot *s)
{
    const struct ag_error_pages **v;

    s->error_places = c->first_errors;
    if (!c->first_errors) {
        return;
    }
    v = ag_arena_alloc(c->arena, c->region_count * sizeof(struct ag_error_pages *));
    for (uint32_t i = 0; i < c->region_count; i++) {
        v[i] = ag_compile_errors(c, &c->sets[c->regions[i].set], NULL);
    }
    s->region_errors = v;
}
