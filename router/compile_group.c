#include "router/compile.h"

/* Bound on what groups cut the paths into; a config that needs more is a mistake. */
#define REGIONS_MAX 2048u

/* ---- patterns as sets of requests ---- */

static bool is_suffix(struct ag_span host)
{
    return host.len > 0 && host.ptr[0] == '*';
}

/* `outer` is a suffix ("*.x") that covers `inner`, a host or a longer suffix. */
static bool suffix_covers(struct ag_span outer, struct ag_span inner)
{
    struct ag_span tail = ag_span_sub(outer, 1, outer.len);

    return inner.len > tail.len &&
           ag_span_eq(tail, ag_span_sub(inner, inner.len - tail.len, inner.len));
}

static bool meet_hosts(struct ag_span a, struct ag_span b, struct ag_span *out)
{
    if (a.len == 0 || ag_span_eq(a, b)) {
        *out = b;
        return true;
    }
    if (b.len == 0 || (is_suffix(b) && suffix_covers(b, a))) {
        *out = a;
        return true;
    }
    *out = b;
    return is_suffix(a) && suffix_covers(a, b);
}

static bool meet_segments(struct ag_segment a, struct ag_segment b, struct ag_segment *out)
{
    *out = a.kind == AG_SEG_EXACT ? a : b;
    if (a.kind == AG_SEG_EXACT && b.kind == AG_SEG_EXACT) {
        return ag_span_eq(a.text, b.text);
    }
    return out->kind == AG_SEG_PARAM || out->text.len > 0; /* a parameter is not empty */
}

bool ag_pattern_meet(const struct ag_pattern *a, const struct ag_pattern *b,
                     struct ag_segment *segments, struct ag_pattern *out)
{
    uint16_t i = 0;

    AG_ASSERT(a->count > 0 && b->count > 0);
    /* Most pairs part at the first literal. */
    if (a->segments[0].kind == AG_SEG_EXACT && b->segments[0].kind == AG_SEG_EXACT &&
        !ag_span_eq(a->segments[0].text, b->segments[0].text)) {
        return false;
    }
    *out = *a;
    if (!meet_hosts(a->host, b->host, &out->host) || (a->port && b->port && a->port != b->port)) {
        return false;
    }
    out->port = a->port ? a->port : b->port;
    for (; i < a->count && i < b->count; i++) {
        const struct ag_pattern *rest = a->segments[i].kind == AG_SEG_SPLAT ? b : a;

        if (a->segments[i].kind == AG_SEG_SPLAT || b->segments[i].kind == AG_SEG_SPLAT) {
            memcpy(segments + i, rest->segments + i, (rest->count - i) * sizeof(*segments));
            i = rest->count;
            break;
        }
        if (!meet_segments(a->segments[i], b->segments[i], &segments[i])) {
            return false;
        }
        if (i + 1 == a->count || i + 1 == b->count) {
            if (a->count != b->count) {
                return false;
            }
        }
    }
    out->count = i;
    out->segments = segments;
    AG_ASSERT(i > 0);
    out->has_splat = segments[i - 1].kind == AG_SEG_SPLAT;
    return true;
}

bool ag_pattern_same(const struct ag_pattern *a, const struct ag_pattern *b)
{
    if (a->count != b->count || a->port != b->port || !ag_span_eq(a->host, b->host)) {
        return false;
    }
    for (uint16_t i = 0; i < a->count; i++) {
        const struct ag_segment *x = &a->segments[i], *y = &b->segments[i];

        if (x->kind != y->kind || (x->kind == AG_SEG_EXACT && !ag_span_eq(x->text, y->text))) {
            return false;
        }
    }
    return true;
}

/* Every request of `inner` is one of `outer`. */
static bool covers(const struct ag_pattern *outer, const struct ag_pattern *inner)
{
    struct ag_segment segments[AG_SEGMENTS_MAX];
    struct ag_pattern both;

    return ag_pattern_meet(outer, inner, segments, &both) && ag_pattern_same(&both, inner);
}

static bool group_covers(const struct ag_compile_group *g, const struct ag_pattern *p)
{
    for (uint16_t i = 0; i < g->pattern_count; i++) {
        if (covers(&g->patterns[i], p)) {
            return true;
        }
    }
    return false;
}

/* ---- groups ---- */

/* A group of "/admin/" and below guards "/admin" too: what stands in front of a door is part of it. */
static void add_slashless(struct ag_compile_group *g)
{
    struct ag_pattern *p = &g->patterns[0], *bare = &g->patterns[1];

    if (!p->has_splat || p->count < 2) {
        return;
    }
    *bare = *p;
    bare->count--;
    bare->has_splat = false;
    g->pattern_count = 2;
}

static void compile_group(struct ag_compile *c, const struct ag_group *decl,
                          struct ag_compile_group *g)
{
    struct ag_route_limits scratch = {0};
    struct ag_pattern *p = &g->patterns[0];

    g->decl = decl;
    g->name = ag_arena_strdup(c->arena, decl->match);
    g->timeouts = ag_node_get(decl->node, "timeouts");
    ag_group_timeouts_check(g->timeouts, c->diags);
    (void)!ag_compile_filters(c, ag_node_get(decl->node, "filters"), &g->filters);
    (void)!ag_model_route_limits(decl->node, c->diags, &scratch);
    ag_compile_tls_keys(c, decl->node, &g->tls);
    ag_compile_errors_read(c, decl->node, decl->match, &g->errors);
    if (ag_dsl_parse_pattern(c->arena, c->diags, decl->pos, decl->match, p) != AG_OK) {
        return;
    }
    if (p->methods || p->other_count) {
        ag_diag_error(c->diags, decl->pos, "leave the methods out",
                      "a group holds for every method");
        return;
    }
    if (!p->has_splat && p->segments[p->count - 1].kind == AG_SEG_EXACT &&
        p->segments[p->count - 1].text.len == 0) {
        ag_diag_warn(c->diags, decl->pos, "end it with /* for all that is below",
                     "the group \"%.*s\" holds for that one path", (int)decl->match.len,
                     (const char *)decl->match.ptr);
    }
    g->pattern_count = 1;
    add_slashless(g);
}

void ag_compile_groups(struct ag_compile *c)
{
    c->groups = calloc(c->model->group_count + 1u, sizeof(*c->groups));
    AG_ASSERT(c->groups);
    for (uint32_t i = 0; i < c->model->group_count; i++) {
        compile_group(c, &c->model->groups[i], &c->groups[i]);
    }
    for (uint32_t i = 0; i < c->model->group_count; i++) {
        for (uint32_t k = 0; k < c->model->group_count; k++) {
            struct ag_compile_group *g = &c->groups[i];

            g->outer += i != k && g->pattern_count &&
                        group_covers(&c->groups[k], &g->patterns[0]) &&
                        !group_covers(g, &c->groups[k].patterns[0]);
        }
    }
}

/* ---- sets ---- */

static bool comes_before(const struct ag_compile *c, uint32_t a, uint32_t b)
{
    uint32_t x = c->groups[a].outer, y = c->groups[b].outer;

    return x != y ? x < y : a < b;
}

/* The set of the groups that cover `p`; made when it is new. */
uint32_t ag_compile_base_set(struct ag_compile *c, const struct ag_pattern *p)
{
    uint32_t *found = calloc(c->model->group_count + 1u, sizeof(*found)), count = 0, index = 0;

    AG_ASSERT(found);
    for (uint32_t i = 0; i < c->model->group_count; i++) {
        uint32_t at = count;

        if (!group_covers(&c->groups[i], p)) {
            continue;
        }
        for (; at > 0 && comes_before(c, i, found[at - 1]); at--) {
            found[at] = found[at - 1];
        }
        found[at] = i;
        count++;
    }
    for (; index < c->set_count; index++) {
        const struct ag_compile_set *s = &c->sets[index];

        if (s->count == count &&
            (count == 0 || memcmp(s->groups, found, count * sizeof(*found)) == 0)) {
            free(found);
            return index;
        }
    }
    uint32_t *kept = ag_arena_alloc(c->arena, (count + 1) * sizeof(*kept));

    memcpy(kept, found, count * sizeof(*found));
    free(found);
    c->sets = ag_compile_grow(c->sets, c->set_count, &c->set_cap, sizeof(*c->sets));
    c->sets[c->set_count] = (struct ag_compile_set){.groups = kept, .count = count};
    return c->set_count++;
}

/* ---- regions ---- */

/* False when there are too many. */
static bool add_region(struct ag_compile *c, const struct ag_pattern *p)
{
    struct ag_segment *segments;

    for (uint32_t i = 1; i < c->region_count; i++) {
        if (ag_pattern_same(&c->regions[i].pattern, p)) {
            return true;
        }
    }
    if (c->region_count == REGIONS_MAX) {
        return false;
    }
    segments = ag_arena_alloc(c->arena, p->count * sizeof(*segments));
    memcpy(segments, p->segments, p->count * sizeof(*segments));
    c->regions[c->region_count].pattern = *p;
    c->regions[c->region_count++].pattern.segments = segments;
    c->region_hosts |= p->host.len > 0 || p->port != 0;
    return true;
}

static bool add_group_regions(struct ag_compile *c, const struct ag_compile_group *g)
{
    for (uint16_t k = 0; k < g->pattern_count; k++) {
        uint32_t have = c->region_count;

        for (uint32_t i = 1; i < have; i++) {
            struct ag_segment segments[AG_SEGMENTS_MAX];
            struct ag_pattern both;

            if (ag_pattern_meet(&g->patterns[k], &c->regions[i].pattern, segments, &both) &&
                !add_region(c, &both)) {
                return false;
            }
        }
        if (!add_region(c, &g->patterns[k])) {
            return false;
        }
    }
    return true;
}

static void build_region_trie(struct ag_compile *c)
{
    struct ag_trie_entry *entries = calloc(c->region_count, sizeof(*entries));

    AG_ASSERT(entries);
    for (uint32_t i = 1; i < c->region_count; i++) {
        c->regions[i].set = ag_compile_base_set(c, &c->regions[i].pattern);
        entries[i - 1] = (struct ag_trie_entry){&c->regions[i].pattern, 0, i};
    }
    c->region_trie = ag_trie_build(entries, c->region_count - 1u);
    free(entries);
}

enum ag_status ag_compile_regions(struct ag_compile *c)
{
    static const struct ag_segment any_path = {AG_SEG_SPLAT, {NULL, 0}};
    struct ag_pattern nowhere = {.count = 1, .segments = &any_path, .host = AG_SPAN("")};

    c->regions = calloc(REGIONS_MAX, sizeof(*c->regions));
    AG_ASSERT(c->regions);
    c->region_count = 1;
    /* Set 0 is the one of no group: it must exist before any other is looked for. */
    c->sets = ag_compile_grow(c->sets, 0, &c->set_cap, sizeof(*c->sets));
    c->sets[c->set_count++] = (struct ag_compile_set){.count = 0};
    c->regions[0].pattern = nowhere;
    for (uint32_t i = 0; i < c->model->group_count; i++) {
        if (!add_group_regions(c, &c->groups[i])) {
            ag_diag_error(c->diags, c->groups[i].decl->pos,
                          "let groups lie within each other or apart",
                          "groups overlap in more than %u ways", REGIONS_MAX);
            return AG_EINVAL;
        }
    }
    if (c->region_count > 1) {
        build_region_trie(c);
    }
    return AG_OK;
}
