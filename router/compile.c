#include "router/compile.h"

#include <time.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#define SPLITS_MAX      (1u << 20) /* routes that groups may make of the declared ones */
#define SAME_ROUTES_MAX 1000u      /* routes of one pattern, by method */

void *ag_compile_grow(void *array, uint32_t count, uint32_t *cap, size_t size)
{
    void *to;

    if (count < *cap) {
        return array;
    }
    *cap = *cap ? *cap * 2 : 16;
    to = realloc(array, *cap * size);
    if (!to) {
        ag_panic(__FILE__, __LINE__, "out of memory for the routes");
    }
    return to;
}

enum ag_status ag_compile_told(struct ag_compile *c, enum ag_status st, struct ag_pos pos,
                               const char *what)
{
    if (st != AG_OK && c->diags->errors == 0) {
        ag_diag_error(c->diags, pos, "see whether a key has no value, or another one than is meant",
                      "%s cannot be made of what is written", what);
    }
    return st;
}

/* ---- routes that are there twice ---- */

static uint64_t pattern_hash(const struct ag_pattern *p)
{
    uint64_t h = XXH3_64bits_withSeed(p->host.ptr, p->host.len, p->port);

    for (uint16_t i = 0; i < p->count; i++) {
        const struct ag_segment *s = &p->segments[i];

        h = XXH3_64bits_withSeed(s->text.ptr, s->kind == AG_SEG_EXACT ? s->text.len : 0,
                                 h + (uint64_t)s->kind);
    }
    return h;
}

static bool share_method(const struct ag_pattern *a, const struct ag_pattern *b)
{
    bool a_named = a->methods || a->other_count, b_named = b->methods || b->other_count;

    if (!a_named || !b_named) {
        return a_named == b_named;
    }
    for (uint16_t i = 0; i < a->other_count; i++) {
        for (uint16_t k = 0; k < b->other_count; k++) {
            if (ag_span_eq(a->other_methods[i], b->other_methods[k])) {
                return true;
            }
        }
    }
    return (a->methods & b->methods) != 0;
}

static void report_twice(struct ag_compile *c, const struct ag_pattern *first,
                         const struct ag_pattern *again)
{
    const char *hint = ag_arena_printf(
        c->arena, "the first is at %s:%u:%u: remove one, or give them different methods",
        first->pos.source ? first->pos.source->name : "?", first->pos.line, first->pos.col);

    ag_diag_error(c->diags, again->pos, hint, "the route \"%.*s\" is there twice",
                  (int)ag_min_size(again->text.len, 80), (const char *)again->text.ptr);
}

/* Against all declared before with the same pattern; false when there are too many of them. */
static void check_one(struct ag_compile *c, const uint32_t *next, uint32_t first, uint32_t route)
{
    uint32_t same = 0;

    for (uint32_t k = first; k; k = next[k]) {
        const struct ag_pattern *p = &c->routes[k - 1].pattern;

        if (!ag_pattern_same(p, &c->routes[route].pattern)) {
            continue;
        }
        if (share_method(p, &c->routes[route].pattern)) {
            report_twice(c, p, &c->routes[route].pattern);
            return;
        }
        if (++same == SAME_ROUTES_MAX) {
            ag_diag_error(c->diags, c->routes[route].pattern.pos, NULL,
                          "more than %u routes of one pattern", SAME_ROUTES_MAX);
            return;
        }
    }
}

static void check_duplicates(struct ag_compile *c)
{
    uint32_t slots = 16;
    uint32_t *table, *next;

    while (slots < c->declared * 2) {
        slots *= 2;
    }
    table = calloc(slots, sizeof(*table)); /* chains of route + 1 */
    next = calloc(c->declared + 1u, sizeof(*next));
    AG_ASSERT(table && next);
    for (uint32_t i = 0; i < c->declared && c->diags->errors < AG_DIAGS_MAX; i++) {
        uint32_t *slot = &table[pattern_hash(&c->routes[i].pattern) & (slots - 1)];

        check_one(c, next, *slot, i);
        next[i + 1] = *slot;
        *slot = i + 1;
    }
    free(table);
    free(next);
}

/* ---- settings of a route, by the groups that hold ---- */

static void append_child(struct ag_compile *c, struct ag_node *map, const struct ag_node *child)
{
    struct ag_node *copy = ag_node_new(c->arena, child->kind, child->pos);

    *copy = *child;
    copy->next = NULL;
    ag_node_append(map, copy);
}

static bool has_key(const struct ag_node *map, struct ag_span key)
{
    for (const struct ag_node *n = map->first; n; n = n->next) {
        if (ag_span_eq(n->key, key)) {
            return true;
        }
    }
    return false;
}

/* The route's options with the groups' timeouts added; inner groups and the route itself go first. */
static const struct ag_node *merged_options(struct ag_compile *c, const struct ag_compile_set *set,
                                            const struct ag_node *options)
{
    const struct ag_node *own = ag_node_get(options, "timeouts");
    struct ag_node *map = NULL, *timeouts = NULL;

    for (uint32_t i = set->count; i > 0; i--) {
        const struct ag_node *from = c->groups[set->groups[i - 1]].timeouts;

        if (!from || from->kind != AG_NODE_MAP) {
            continue;
        }
        if (!timeouts) {
            timeouts = ag_node_new(c->arena, AG_NODE_MAP, from->pos);
            timeouts->key = AG_SPAN("timeouts");
            timeouts->key_pos = from->key_pos;
            for (const struct ag_node *n = own ? own->first : NULL; n; n = n->next) {
                append_child(c, timeouts, n);
            }
        }
        for (const struct ag_node *n = from->first; n; n = n->next) {
            if (!has_key(timeouts, n->key)) {
                append_child(c, timeouts, n);
            }
        }
    }
    if (!timeouts) {
        return options;
    }
    map = ag_node_new(c->arena, AG_NODE_MAP, timeouts->pos);
    for (const struct ag_node *n = options ? options->first : NULL; n; n = n->next) {
        if (n != own) {
            append_child(c, map, n);
        }
    }
    ag_node_append(map, timeouts);
    return map;
}

static bool set_has_timeouts(const struct ag_compile *c, const struct ag_compile_set *set)
{
    for (uint32_t i = 0; i < set->count; i++) {
        if (c->groups[set->groups[i]].timeouts) {
            return true;
        }
    }
    return false;
}

/* Filters see the head in reverse order. */
static struct ag_media_change media_change(const struct ag_filter_chain *filters)
{
    struct ag_media_change change = {0};

    for (uint16_t i = filters->count; i > 0; i--) {
        const struct ag_filter *f = &filters->v[i - 1];

        if (f->ops->media) {
            f->ops->media(f->settings, &change);
        }
    }
    return change;
}

static bool changes_media(const struct ag_route *r, const struct ag_route *origin)
{
    struct ag_media_change a = media_change(&r->filters), b = media_change(&origin->filters);

    return a.replaced != b.replaced || a.added != b.added;
}

static enum ag_status configure_with(struct ag_compile *c, struct ag_route *r,
                                     const struct ag_node *options)
{
    const struct ag_action_ops *ops = ag_action_ops_of(r->decl.kind);

    r->decl.options = options;
    c->build.params = r->match.params;
    c->build.param_count = r->match.param_count;
    c->build.pattern_has_splat = c->routes[r->split_of].match.has_splat;
    c->build.pattern = r->pattern.text;
    c->build.media = media_change(&r->filters);
    r->action = (struct ag_action){.ops = ops, .shared = c->build.shared[r->decl.kind]};
    return ops->configure
               ? ag_compile_told(c, ops->configure(&c->build, &r->decl, &r->action.settings),
                                 r->decl.pos, ops->name)
               : AG_OK;
}

static enum ag_status configure_action(struct ag_compile *c, struct ag_route *r, uint32_t set)
{
    const struct ag_node *options = c->own[r->split_of].options;
    const struct ag_node *timeouts = ag_node_get(options, "timeouts");
    bool mistaken = timeouts && timeouts->kind != AG_NODE_MAP && timeouts->kind != AG_NODE_NULL;

    if (r->decl.kind == AG_ACTION_PROXY && !mistaken) { /* else the proxy tells it */
        options = merged_options(c, &c->sets[set], options);
    }
    return configure_with(c, r, options);
}

/* For the mistakes that actions find, where others keep the routes from being compiled. */
static void configure_for_mistakes(struct ag_compile *c)
{
    for (uint32_t i = 0; i < c->declared; i++) {
        (void)!configure_with(c, &c->routes[i], c->own[i].options);
    }
}

/* What the groups of a set and then the route itself say, over what each kind of listener does. NULL
 * after a diagnosis. */
static const struct ag_route_limits *
make_limits(struct ag_compile *c, const struct ag_compile_set *set, const struct ag_node *own)
{
    uint16_t count = c->model->route_limit_count;
    struct ag_route_limits *v = ag_arena_alloc(c->arena, count * sizeof(*v));

    for (uint16_t k = 0; k < count; k++) {
        v[k] = c->model->route_limits[k];
        for (uint32_t i = 0; i < set->count; i++) {
            const struct ag_node *group = c->groups[set->groups[i]].decl->node;

            if (ag_model_route_limits(group, c->diags, &v[k]) != AG_OK) {
                return NULL;
            }
        }
        if (ag_model_route_limits(own, c->diags, &v[k]) != AG_OK) {
            return NULL;
        }
    }
    return v;
}

/* Most routes say nothing of limits: they share those of their set. */
static const struct ag_route_limits *limits_of(struct ag_compile *c, struct ag_compile_set *set,
                                               const struct ag_node *own)
{
    if (ag_node_get(own, "limits") || ag_node_get(own, "stream")) {
        return make_limits(c, set, own);
    }
    if (!set->limits) {
        set->limits = make_limits(c, set, NULL);
    }
    return set->limits;
}

/* Limits and filters; the action is configured apart, as splits mostly share it. */
static enum ag_status apply_set(struct ag_compile *c, struct ag_route *r, uint32_t set_index)
{
    struct ag_compile_set *set = &c->sets[set_index];
    const struct ag_compile_own *own = &c->own[r->split_of];

    r->limits = limits_of(c, set, own->options);
    if (!r->limits) {
        return AG_EINVAL;
    }
    ag_compile_tls_route(c, set, own, r);
    r->errors = ag_compile_errors(c, set, own->errors);
    if (set->count) {
        r->group = c->groups[set->groups[set->count - 1]].name;
    }
    return ag_compile_chain(c, set_index, &own->filters, r->pattern.pos, &r->filters);
}

/* ---- splits ---- */

static bool is_literal(const struct ag_pattern *p)
{
    return p->param_count == 0 && !p->has_splat;
}

/* The set of a path without parameters, by one lookup; regions are by path alone here. */
static uint32_t literal_set(struct ag_compile *c, const struct ag_pattern *p)
{
    struct ag_trie_query q = {.method = AG_METHOD_GET};
    size_t cap = 1;
    uint32_t region;
    struct ag_buf b;

    for (uint16_t i = 0; i < p->count; i++) {
        cap += 1 + p->segments[i].text.len;
    }
    b = ag_buf(malloc(cap), cap);
    AG_ASSERT(b.ptr);
    for (uint16_t i = 0; i < p->count; i++) {
        ag_buf_putc(&b, '/');
        ag_buf_put(&b, p->segments[i].text);
    }
    q.path = ag_buf_span(&b);
    region = ag_trie_lookup(c->region_trie, &q);
    free(b.ptr);
    return region == AG_TRIE_NONE ? 0 : c->regions[region].set;
}

static uint32_t base_set(struct ag_compile *c, const struct ag_pattern *p)
{
    if (!c->region_trie) {
        return 0;
    }
    if (is_literal(p) && !c->region_hosts) {
        return literal_set(c, p);
    }
    return ag_compile_base_set(c, p);
}

static uint32_t find_split(const struct ag_compile *c, const struct ag_route_split *v,
                           uint32_t count, uint32_t set)
{
    for (uint32_t i = 0; i < count; i++) {
        if (c->regions[v[i].region].set == set) {
            return v[i].route;
        }
    }
    return AG_TRIE_NONE;
}

/* The route as it is within one region. */
static enum ag_status add_split(struct ag_compile *c, uint32_t origin, uint32_t base,
                                uint32_t region, const struct ag_pattern *match,
                                uint32_t *out_route)
{
    uint32_t set = c->regions[region].set;
    struct ag_segment *segments;
    struct ag_route *r;

    if (c->route_count - c->declared >= SPLITS_MAX) {
        ag_diag_error(c->diags, c->routes[origin].pattern.pos, "use fewer groups",
                      "groups split the routes into more than %u", SPLITS_MAX);
        return AG_EINVAL;
    }
    c->routes = ag_compile_grow(c->routes, c->route_count, &c->route_cap, sizeof(*c->routes));
    r = &c->routes[c->route_count];
    *r = c->routes[origin];
    r->id = c->route_count;
    r->splits = NULL;
    r->split_count = 0;
    segments = ag_arena_alloc(c->arena, match->count * sizeof(*segments));
    memcpy(segments, match->segments, match->count * sizeof(*segments));
    /* Parameters stay where the origin has them: they are found by segment. */
    r->match.segments = segments;
    r->match.count = match->count;
    r->match.host = match->host;
    r->match.port = match->port;
    r->match.has_splat = match->has_splat;
    if (apply_set(c, r, set) != AG_OK) {
        return AG_EINVAL;
    }
    if (r->decl.kind == AG_ACTION_PROXY &&
        (set_has_timeouts(c, &c->sets[set]) || set_has_timeouts(c, &c->sets[base])) &&
        configure_action(c, r, set) != AG_OK) {
        return AG_EINVAL;
    }
    if (r->decl.kind == AG_ACTION_FIXED && changes_media(r, &c->routes[origin]) &&
        configure_action(c, r, set) != AG_OK) {
        return AG_EINVAL;
    }
    *out_route = c->route_count++;
    return AG_OK;
}

/* Splits a route at the regions that hold for a part of it. */
static enum ag_status split_route(struct ag_compile *c, uint32_t route, uint32_t base)
{
    struct ag_route_split *v = calloc(c->region_count, sizeof(*v)), *kept;
    enum ag_status st = AG_OK;
    uint32_t count = 0;

    AG_ASSERT(v);
    for (uint32_t i = 1; i < c->region_count && st == AG_OK; i++) {
        struct ag_segment segments[AG_SEGMENTS_MAX];
        struct ag_pattern both;
        uint32_t set = c->regions[i].set, to;

        if (set == base ||
            !ag_pattern_meet(&c->routes[route].match, &c->regions[i].pattern, segments, &both)) {
            continue;
        }
        to = find_split(c, v, count, set);
        if (to == AG_TRIE_NONE) {
            st = add_split(c, route, base, i, &both, &to);
        }
        v[count++] = (struct ag_route_split){i, to};
    }
    if (count && st == AG_OK) {
        kept = ag_arena_alloc(c->arena, count * sizeof(*kept));
        memcpy(kept, v, count * sizeof(*kept));
        c->routes[route].splits = kept;
        c->routes[route].split_count = count;
    }
    free(v);
    return st;
}

static void compile_settings(struct ag_compile *c)
{
    uint32_t whole = c->route_count;

    for (uint32_t i = 0; i < whole; i++) {
        uint32_t base = base_set(c, &c->routes[i].match);
        struct ag_route *r = &c->routes[i];

        if (apply_set(c, r, base) != AG_OK) {
            continue;
        }
        if (i >= c->declared) {
            r->action = c->routes[r->split_of].action; /* an implied one: the same directory */
        } else if (configure_action(c, r, base) != AG_OK) {
            continue;
        }
        if (c->region_trie && !(is_literal(&r->match) && !c->region_hosts) &&
            split_route(c, i, base) != AG_OK) {
            return;
        }
    }
}

/* ---- the snapshot ---- */

static struct ag_trie *build_trie(struct ag_compile *c, uint32_t whole)
{
    struct ag_trie_entry *entries = calloc(whole + 1u, sizeof(*entries));
    struct ag_trie *t;

    AG_ASSERT(entries);
    for (uint32_t i = 0; i < whole; i++) {
        entries[i] = (struct ag_trie_entry){
            &c->routes[i].match, ag_action_ops_of(c->routes[i].decl.kind)->default_methods, i};
    }
    t = ag_trie_build(entries, whole);
    free(entries);
    return t;
}

static struct ag_snapshot *make_snapshot(struct ag_compile *c, uint32_t whole)
{
    struct ag_snapshot *s = ag_arena_zalloc(c->arena, sizeof(*s));
    struct ag_route *routes = ag_arena_alloc(c->arena, (c->route_count + 1u) * sizeof(*routes));

    memcpy(routes, c->routes, c->route_count * sizeof(*routes));
    s->model = c->model;
    s->routes = routes;
    s->route_count = c->route_count;
    s->declared_count = c->declared;
    s->trie = build_trie(c, whole);
    s->regions = c->region_trie;
    ag_compile_errors_snapshot(c, s);
    s->tls_files = c->tls_files;
    c->region_trie = NULL;
    memcpy(s->shared, c->build.shared, sizeof(s->shared));
    s->arena = *c->arena;
    ag_arena_init(c->arena, NULL, 0);
    return s;
}

static void release_sections(void *const *shared)
{
    for (unsigned k = 0; k < AG_ACTION_KINDS; k++) {
        const struct ag_action_ops *ops = ag_action_ops_of((enum ag_action_kind)k);

        if (ops->release_section && shared[k]) {
            ops->release_section(shared[k]);
        }
    }
}

/* Where connections come that are passed on: none is to be passed on to there. */
static const struct ag_addr_list *relay_listens(const struct ag_compile *c)
{
    const struct ag_model *m = c->model;
    struct ag_addr_list *list =
        ag_arena_zalloc(c->arena, sizeof(*list) + m->listen_count * sizeof(list->each[0]));

    AG_ASSERT(list);
    for (uint16_t i = 0; i < m->listen_count; i++) {
        if (m->listens[i].tcp) {
            list->each[list->count++] = m->listens[i].addr;
        }
    }
    return list;
}

static void configure_sections(struct ag_compile *c)
{
    for (unsigned k = 0; k < AG_ACTION_KINDS; k++) {
        const struct ag_action_ops *ops = ag_action_ops_of((enum ag_action_kind)k);

        if (ops->configure_section) {
            /* A mistake is in the diagnoses; the others are read all the same. */
            (void)!ag_compile_told(c, ops->configure_section(&c->build), c->build.config->pos,
                                   ops->name);
        }
    }
}

static void free_compile(struct ag_compile *c)
{
    free(c->plugins);
    free(c->groups);
    free(c->sets);
    free(c->regions);
    free(c->routes);
    free(c->own);
    ag_trie_free(c->region_trie);
}

/* An empty file, or a text that was to hold them and is empty; unless nothing here asks for routes. */
static void warn_no_routes(const struct ag_compile *c, const struct ag_node *root)
{
    const struct ag_model *m = c->model;
    bool asks = false;

    for (uint16_t i = 0; i < m->listen_count; i++) {
        if (m->listens[i].tcp) {
            return;
        }
        asks |= !m->listens[i].admin && !m->listens[i].limits.redirect_port;
    }
    if (asks && c->declared == 0) {
        ag_diag_warn(c->diags, root->pos,
                     "such as routes: {\"/\": \"./dist/\"}, or -r '/: ./dist/'",
                     "there are no routes: every request gets 404");
    }
}

struct ag_snapshot *ag_snapshot_compile(struct ag_arena *arena, const struct ag_node *root,
                                        const char *base_dir, struct ag_opener *opener,
                                        struct ag_diags *diags)
{
    struct ag_compile c = {.arena = arena, .diags = diags, .model = ag_model_read(root, diags)};
    struct ag_tls_hosts cert_hosts = {0};
    struct ag_snapshot *s = NULL;
    uint32_t whole, unread; /* mistakes in actions' sections */

    if (!c.model) {
        return NULL;
    }
    c.build = (struct ag_action_build){
        .arena = arena, .diags = diags, .config = root, .base_dir = base_dir, .opener = opener};
    c.tls_files = ag_arena_alloc(arena, sizeof(*c.tls_files));
    ag_tls_files_init(c.tls_files, arena, opener, diags);
    c.build.tls_files = c.tls_files;
    c.build.relay_listens = relay_listens(&c);
    ag_model_read_tls(c.model, root, c.tls_files);
    unread = diags->errors;
    configure_sections(&c);
    unread = diags->errors - unread;
    ag_compile_plugins(&c);
    ag_compile_errors_read(&c, ag_node_get(root, "server"), AG_SPAN("server"), &c.errors);
    ag_compile_groups(&c);
    ag_compile_routes(&c);
    whole = c.route_count;
    check_duplicates(&c);
    /* With mistakes in sections, what follows would only repeat them. */
    if (diags->errors && !unread) {
        configure_for_mistakes(&c);
    }
    if (diags->errors == 0 && ag_compile_regions(&c) == AG_OK) {
        compile_settings(&c);
        ag_compile_tls_listeners(&c, &cert_hosts);
    }
    if (diags->errors == 0) {
        warn_no_routes(&c, root);
        ag_tls_files_warn(c.tls_files, (int64_t)time(NULL)); /* before the arena goes */
        s = make_snapshot(&c, whole);
        s->cert_hosts = cert_hosts;
    } else {
        release_sections(c.build.shared);
    }
    free_compile(&c);
    return s;
}

/* ---- what the TLS library makes of it ---- */

static enum ag_status open_sections(struct ag_snapshot *s, struct ag_diags *diags)
{
    enum ag_status st = AG_OK;

    for (unsigned k = 0; k < AG_ACTION_KINDS; k++) {
        const struct ag_action_ops *ops = ag_action_ops_of((enum ag_action_kind)k);

        if (ops->open_section && ops->open_section(s->shared[k], diags) != AG_OK) {
            st = AG_EINVAL;
        }
    }
    return st;
}

/* Listeners of one entry share an object, as they share the settings. */
static enum ag_status open_listener(struct ag_snapshot *s, uint16_t i, uint32_t shard_count,
                                    struct ag_tls_tickets *tickets, struct ag_diags *diags)
{
    const struct ag_listen *l = &s->model->listens[i];
    const char *why = "there is no TLS library, or it fails";

    for (uint16_t k = 0; k < i; k++) {
        if (s->model->listens[k].tls == l->tls) {
            s->tls[i] = ag_tls_server_hold(s->tls[k]);
            return AG_OK;
        }
    }
    if (ag_tls_library_init() == AG_OK) {
        s->tls[i] = ag_tls_server_new(l->tls, shard_count, l->tls->tickets ? tickets : NULL, &why);
    }
    if (!s->tls[i]) {
        ag_diag_error(diags, l->pos, NULL, "TLS cannot be set up for this listener: %s", why);
        return AG_EINVAL;
    }
    return AG_OK;
}

enum ag_status ag_snapshot_open_tls(struct ag_snapshot *s, uint32_t shard_count,
                                    struct ag_tls_tickets *tickets, struct ag_diags *diags)
{
    enum ag_status st = open_sections(s, diags);

    for (uint16_t i = 0; i < s->model->listen_count; i++) {
        if (s->model->listens[i].tls && open_listener(s, i, shard_count, tickets, diags) != AG_OK) {
            st = AG_EINVAL;
        }
    }
    return st;
}

static void release_tls(struct ag_snapshot *s)
{
    for (uint16_t i = 0; i < s->model->listen_count; i++) {
        ag_tls_server_release(s->tls[i]);
    }
}

void ag_snapshot_free(struct ag_snapshot *s)
{
    struct ag_arena arena;

    if (!s) {
        return;
    }
    release_sections(s->shared);
    release_tls(s);
    ag_tls_files_wipe(s->tls_files);
    ag_trie_free(s->trie);
    ag_trie_free(s->regions);
    arena = s->arena; /* s lies in it */
    ag_arena_release(&arena);
}
