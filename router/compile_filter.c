#include "engine/foreign.h"
#include "router/compile.h"

/* The key that names the filter of a plugin whose own name is not one: {headers: {...}}, or the short
 * {rate: 100/s, burst: 50}, whose settings are the whole map. */
static const struct ag_node *filter_key(const struct ag_node *n, uint32_t *out_found)
{
    const struct ag_node *found = NULL;

    *out_found = 0;
    for (const struct ag_node *k = n->kind == AG_NODE_MAP ? n->first : NULL; k; k = k->next) {
        if (ag_filter_find(k->key)) {
            found = k;
            ++*out_found;
        }
    }
    return found;
}

/* "did you mean", over filters and, where they count, plugins. */
static const char *nearest(struct ag_compile *c, struct ag_span word, bool plugins)
{
    size_t filters = 0, count = 0;
    const char *const *names = ag_filter_names(&filters);
    size_t cap = filters + c->model->plugin_count;
    const char *hint = ag_foreign_hint(word);
    const char **all = ag_arena_alloc(c->arena, (cap + 1) * sizeof(*all));

    for (; count < filters; count++) {
        all[count] = names[count];
    }
    for (uint32_t i = 0; plugins && i < c->model->plugin_count; i++) {
        all[count++] = ag_arena_strdup(c->arena, c->model->plugins[i].name);
    }
    return hint ? hint : ag_diag_nearest(c->diags, word, all, count);
}

static enum ag_status configure(struct ag_compile *c, const struct ag_filter_ops *ops,
                                const struct ag_node *settings, struct ag_filter_ref *out)
{
    struct ag_filter_build build = {c->arena, c->diags, c->build.base_dir};
    const void *made = NULL;

    if (ops->configure && ag_compile_told(c, ops->configure(&build, settings, &made), settings->pos,
                                          ops->name) != AG_OK) {
        return AG_EINVAL;
    }
    *out = (struct ag_filter_ref){ops, made, NULL};
    return AG_OK;
}

/* The filter and its settings of a plugin whose own name is no filter's. NULL after a diagnosis. */
static const struct ag_filter_ops *filter_of(struct ag_compile *c, const struct ag_plugin *p,
                                             const struct ag_node **out_settings)
{
    uint32_t found;
    const struct ag_node *key = filter_key(p->node, &found), *first = p->node->first, *other;

    if (found != 1) {
        const char *hint =
            found ? "one plugin is one filter" : nearest(c, first ? first->key : p->name, false);

        ag_diag_error(c->diags, p->node->key_pos,
                      hint ? hint : "NAME: {FILTER: {...}}, such as {headers: {set: {X-A: 1}}}",
                      found ? "plugin \"%.*s\" names several filters"
                            : "plugin \"%.*s\" names no filter",
                      (int)p->name.len, (const char *)p->name.ptr);
        return NULL;
    }
    other = first == key ? key->next : first;
    if (other && key->kind == AG_NODE_MAP) { /* not the short form */
        ag_diag_error(
            c->diags, other->key_pos, "one plugin is one filter: make it a plugin of its own",
            "\"%.*s\" cannot stand beside the filter %.*s", (int)ag_min_size(other->key.len, 60),
            (const char *)other->key.ptr, (int)key->key.len, (const char *)key->key.ptr);
        return NULL;
    }
    *out_settings = other ? p->node : key;
    return ag_filter_find(key->key);
}

static void compile_plugin(struct ag_compile *c, const struct ag_plugin *p,
                           struct ag_compile_plugin *out)
{
    const struct ag_filter_ops *ops = ag_filter_find(p->name);
    const struct ag_node *settings = p->node;

    ops = ops ? ops : filter_of(c, p, &settings);
    if (ops && configure(c, ops, settings, &out->ref) == AG_OK) {
        out->ref.instance = p;
    }
}

void ag_compile_plugins(struct ag_compile *c)
{
    c->plugins = calloc(c->model->plugin_count + 1u, sizeof(*c->plugins));
    AG_ASSERT(c->plugins);
    for (uint32_t i = 0; i < c->model->plugin_count; i++) {
        compile_plugin(c, &c->model->plugins[i], &c->plugins[i]);
    }
}

/* A name in a list: a plugin, else a filter with its defaults. */
static enum ag_status find_named(struct ag_compile *c, const struct ag_node *n,
                                 struct ag_filter_ref *out)
{
    const struct ag_filter_ops *ops;
    const char *hint;

    for (uint32_t i = 0; i < c->model->plugin_count; i++) {
        if (ag_span_eq(c->model->plugins[i].name, n->text)) {
            *out = c->plugins[i].ref;
            return out->ops ? AG_OK : AG_EINVAL; /* reported at the plugin */
        }
    }
    ops = ag_filter_find(n->text);
    if (ops) {
        return configure(c, ops, ag_node_new(c->arena, AG_NODE_NULL, n->pos), out);
    }
    hint = nearest(c, n->text, true);
    ag_diag_error(c->diags, n->pos, hint ? hint : "name it in plugins, or write {FILTER: {...}}",
                  "there is no plugin or filter \"%.*s\"", (int)ag_min_size(n->text.len, 60),
                  (const char *)n->text.ptr);
    return AG_EINVAL;
}

/* {headers: {...}}: a filter for this place alone. */
static enum ag_status find_inline(struct ag_compile *c, const struct ag_node *n,
                                  struct ag_filter_ref *out)
{
    const struct ag_node *key = n->first;
    const struct ag_filter_ops *ops;
    const char *hint;

    if (!key || key->next) {
        ag_diag_error(c->diags, n->pos, "{FILTER: {...}}, one entry each",
                      "an unnamed filter has one key");
        return AG_EINVAL;
    }
    ops = ag_filter_find(key->key);
    if (ops) {
        return configure(c, ops, key, out);
    }
    hint = nearest(c, key->key, false);
    ag_diag_error(c->diags, key->key_pos, hint, "there is no filter \"%.*s\"",
                  (int)ag_min_size(key->key.len, 60), (const char *)key->key.ptr);
    return AG_EINVAL;
}

enum ag_status ag_compile_filters(struct ag_compile *c, const struct ag_node *list,
                                  struct ag_filter_refs *out)
{
    struct ag_filter_ref *v;
    enum ag_status st = AG_OK;
    uint32_t count = 0;

    *out = (struct ag_filter_refs){NULL, 0};
    if (!list || list->kind == AG_NODE_NULL) {
        return AG_OK;
    }
    if (list->kind != AG_NODE_SEQ) {
        ag_diag_error(c->diags, list->pos, "filters: [NAME, {headers: {...}}]",
                      "filters must be a list");
        return AG_EINVAL;
    }
    for (const struct ag_node *n = list->first; n; n = n->next) {
        count++;
    }
    if (count > 64) {
        ag_diag_error(c->diags, list->pos, NULL, "more than 64 filters in one list");
        return AG_EINVAL;
    }
    v = ag_arena_zalloc(c->arena, (count + 1) * sizeof(*v));
    for (const struct ag_node *n = list->first; n; n = n->next) {
        enum ag_status one = n->kind == AG_NODE_MAP ? find_inline(c, n, &v[out->count]) : AG_EINVAL;

        if (n->kind == AG_NODE_SCALAR) {
            one = find_named(c, n, &v[out->count]);
        } else if (n->kind != AG_NODE_MAP) {
            ag_diag_error(c->diags, n->pos, "a name, or {FILTER: {...}}", "this is no filter");
        }
        st = one == AG_OK ? st : AG_EINVAL;
        out->count++;
    }
    out->v = v;
    return st;
}

/* Filters on their way into a chain. */
struct chain {
    struct ag_filter *v;
    const void **instances;
    uint32_t count, state_bytes;
};

static void append(struct chain *to, const struct ag_filter_refs *refs)
{
    for (uint16_t i = 0; i < refs->count; i++) {
        const struct ag_filter_ref *ref = &refs->v[i];
        bool have = false;

        for (uint32_t k = 0; k < to->count && ref->instance; k++) {
            have |= to->instances[k] == ref->instance;
        }
        if (!have) {
            to->instances[to->count] = ref->instance;
            to->v[to->count++] = (struct ag_filter){ref->ops, ref->settings, to->state_bytes};
            to->state_bytes += (ref->ops->state_bytes + 15u) & ~15u;
        }
    }
}

enum ag_status ag_compile_chain(struct ag_compile *c, uint32_t set_index,
                                const struct ag_filter_refs *own, struct ag_pos pos,
                                struct ag_filter_chain *out)
{
    struct ag_compile_set *set = &c->sets[set_index];
    struct chain chain = {0};
    uint32_t cap = own->count;

    if (own->count == 0 && set->has_chain) {
        *out = set->chain;
        return AG_OK;
    }
    for (uint32_t i = 0; i < set->count; i++) {
        cap += c->groups[set->groups[i]].filters.count;
    }
    chain.v = ag_arena_alloc(c->arena, (cap + 1) * sizeof(*chain.v));
    chain.instances = calloc(cap + 1, sizeof(*chain.instances));
    AG_ASSERT(chain.instances);
    for (uint32_t i = 0; i < set->count; i++) {
        append(&chain, &c->groups[set->groups[i]].filters);
    }
    append(&chain, own);
    free(chain.instances);
    if (chain.count > UINT16_MAX || chain.state_bytes > AG_ARENA_ALLOC_MAX) {
        ag_diag_error(c->diags, pos, NULL, "too many filters on one route");
        return AG_EINVAL;
    }
    *out = (struct ag_filter_chain){chain.v, (uint16_t)chain.count, chain.state_bytes};
    if (own->count == 0) {
        set->chain = *out;
        set->has_chain = true;
    }
    return AG_OK;
}
