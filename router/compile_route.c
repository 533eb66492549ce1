#include "router/compile.h"

/* Keys of a route's long form that every action has; the others are the action's own. */
static const char *const common_keys[] = {"action", "methods",     "filters", "limits",
                                          "stream", "client_cert", "hsts",    "error_pages"};

#define OPTION_KEYS_MAX 32u

/* Parsing one route. */
struct parse {
    struct ag_compile *c;
    const struct ag_node *n;
    struct ag_route *route;
    struct ag_compile_own *own;
};

static enum ag_status parse_methods(struct parse *p, const struct ag_node *n)
{
    struct ag_pattern *pattern = &p->route->pattern;
    const struct ag_node *m = n;

    if (!n) {
        return AG_OK;
    }
    if (pattern->methods || pattern->other_count) {
        ag_diag_error(p->c->diags, n->pos, "name them in one place",
                      "the pattern names methods already");
        return AG_EINVAL;
    }
    if (n->kind == AG_NODE_SEQ) {
        m = n->first;
    }
    if (!m) {
        ag_diag_error(p->c->diags, n->pos, "leave it out for all methods", "no method is named");
        return AG_EINVAL;
    }
    for (; m; m = n->kind == AG_NODE_SEQ ? m->next : NULL) {
        if (m->kind != AG_NODE_SCALAR) {
            ag_diag_error(p->c->diags, m->pos, "methods: [GET, PUT]", "this is no method");
            return AG_EINVAL;
        }
        if (ag_dsl_parse_method(p->c->arena, p->c->diags, m->pos, m->text, pattern) != AG_OK) {
            return AG_EINVAL;
        }
    }
    return AG_OK;
}

/* `known`: the kind of action is; else the key has to be one of some kind. */
static void check_keys(struct parse *p, bool known)
{
    const char *keys[AG_COUNT(common_keys) + AG_ACTION_KINDS * OPTION_KEYS_MAX];
    const char *what = "a route";
    size_t count = AG_COUNT(common_keys);

    memcpy(keys, common_keys, sizeof(common_keys));
    for (unsigned kind = 0; kind < AG_ACTION_KINDS; kind++) {
        size_t own = 0;
        const char *const *more = ag_action_option_keys((enum ag_action_kind)kind, &own);

        AG_ASSERT(own <= OPTION_KEYS_MAX);
        if (own && (!known || p->route->decl.kind == kind)) {
            memcpy(keys + count, more, own * sizeof(*more));
            count += own;
        }
    }
    if (known) {
        what = ag_arena_printf(p->c->arena, "a route of kind %s",
                               ag_action_ops_of(p->route->decl.kind)->name);
    }
    (void)ag_node_check_keys(p->n, p->c->diags, what, keys, count);
}

/* Both halves are read, so that one run tells the mistakes of both. `action` may be NULL: it had some. */
static enum ag_status parse_halves(struct parse *p, struct ag_pos pos, const struct ag_span *action)
{
    struct ag_compile *c = p->c;
    struct ag_pattern *pattern = &p->route->pattern;
    enum ag_status st = ag_dsl_parse_pattern(c->arena, c->diags, p->n->key_pos, p->n->key, pattern);

    if (!action || ag_dsl_parse_action(c->arena, c->diags, pos, *action,
                                       st == AG_OK ? pattern : NULL, &p->route->decl) != AG_OK) {
        return AG_EINVAL;
    }
    return st;
}

/* Mistakes in settings leave the route be, so that those which its action finds are told as well. */
static enum ag_status parse_long(struct parse *p)
{
    struct ag_compile *c = p->c;
    const struct ag_node *action = ag_node_get(p->n, "action");
    struct ag_route_limits scratch = {0};
    struct ag_span text;
    bool has_action = false;
    enum ag_status st;

    if (!action || (action->kind == AG_NODE_NULL && !action->told)) {
        ag_diag_error(c->diags, p->n->key_pos, "action: OK, action: \"http://host/\", ...",
                      "the route has no action");
    } else {
        has_action = ag_node_text(action, c->diags, &text);
    }
    st = parse_halves(p, action ? action->pos : p->n->pos, has_action ? &text : NULL);
    check_keys(p, st == AG_OK);
    if (parse_methods(p, ag_node_get(p->n, "methods")) != AG_OK) {
        st = AG_EINVAL;
    }
    p->own->options = p->n;
    (void)!ag_compile_filters(c, ag_node_get(p->n, "filters"), &p->own->filters);
    (void)!ag_model_route_limits(p->n, c->diags, &scratch);
    ag_compile_tls_keys(c, p->n, &p->own->tls);
    ag_compile_errors_read(c, p->n, p->route->pattern.text, &p->own->errors);
    return st;
}

static enum ag_status parse_route(struct parse *p)
{
    struct ag_route *r = p->route;

    if (p->n->dsl) {
        return ag_dsl_parse_line(p->c->arena, p->c->diags, p->n->pos, p->n->text, &r->pattern,
                                 &r->decl);
    }
    if (p->n->kind == AG_NODE_MAP) {
        return parse_long(p);
    }
    AG_ASSERT(p->n->kind == AG_NODE_SCALAR);
    return parse_halves(p, p->n->pos, &p->n->text);
}

/* A directory owns its subtree: "/docs" and "/docs/" become "/docs" + "/" + "*". */
static enum ag_status match_subtree(struct ag_compile *c, struct ag_route *r)
{
    const struct ag_pattern *p = &r->pattern;
    bool slash =
        p->segments[p->count - 1].kind == AG_SEG_EXACT && p->segments[p->count - 1].text.len == 0;
    uint16_t kept = (uint16_t)(p->count - slash);
    struct ag_segment *segments;
    struct ag_param_spec *params;

    if (kept == AG_SEGMENTS_MAX || p->param_count == AG_PARAMS_MAX) {
        ag_diag_error(c->diags, p->pos, NULL, "too many segments or parameters for a directory");
        return AG_EINVAL;
    }
    segments = ag_arena_alloc(c->arena, (kept + 1u) * sizeof(*segments));
    memcpy(segments, p->segments, kept * sizeof(*segments));
    segments[kept] = (struct ag_segment){AG_SEG_SPLAT, AG_SPAN("")};
    params = ag_arena_alloc(c->arena, (p->param_count + 1u) * sizeof(*params));
    if (p->param_count) {
        memcpy(params, p->params, p->param_count * sizeof(*params));
    }
    params[p->param_count] = (struct ag_param_spec){AG_SPAN(""), kept, true};
    r->match = *p;
    r->match.segments = segments;
    r->match.count = (uint16_t)(kept + 1);
    r->match.params = params;
    r->match.param_count++;
    r->match.has_splat = true;
    return AG_OK;
}

/* Some actions take a few methods alone: a route that names others could only refuse them, and would keep
 * them from wider routes. */
static enum ag_status check_methods(struct ag_compile *c, const struct ag_route *r)
{
    uint32_t takes = ag_action_ops_of(r->decl.kind)->default_methods;

    if (takes == 0 || ((r->pattern.methods & ~takes) == 0 && r->pattern.other_count == 0)) {
        return AG_OK;
    }
    AG_ASSERT(r->decl.kind == AG_ACTION_STATIC);
    ag_diag_error(c->diags, r->pattern.pos, "name GET and HEAD alone, or leave the methods out",
                  "the route \"%.*s\" serves files, which take GET and HEAD only",
                  (int)r->pattern.text.len, (const char *)r->pattern.text.ptr);
    return AG_EINVAL;
}

static bool is_directory(const struct ag_action_decl *d)
{
    return d->kind == AG_ACTION_STATIC && d->path.len > 0 && d->path.ptr[d->path.len - 1] == '/';
}

/* "/docs" itself, for the redirect to "/docs/"; after all declared routes, which go first. */
static void add_implied(struct ag_compile *c)
{
    for (uint32_t i = 0; i < c->declared; i++) {
        const struct ag_route *r = &c->routes[i];
        struct ag_route *to;

        if (r->pattern.has_splat || !r->match.has_splat || r->match.count < 2) {
            continue;
        }
        c->routes = ag_compile_grow(c->routes, c->route_count, &c->route_cap, sizeof(*c->routes));
        to = &c->routes[c->route_count];
        *to = c->routes[i];
        to->id = c->route_count++;
        to->match.count--;
        to->match.has_splat = false;
    }
}

void ag_compile_routes(struct ag_compile *c)
{
    const struct ag_model *m = c->model;

    c->route_cap = m->route_count + m->route_count / 8 + 16;
    c->routes = calloc(c->route_cap, sizeof(*c->routes));
    c->own = calloc(m->route_count + 1u, sizeof(*c->own));
    AG_ASSERT(c->routes && c->own);
    for (uint32_t i = 0; i < m->route_count; i++) {
        struct ag_route *r = &c->routes[c->route_count];
        struct parse p = {c, m->routes[i].node, r, &c->own[c->route_count]};

        *r = (struct ag_route){.id = c->route_count, .split_of = c->route_count};
        *p.own = (struct ag_compile_own){.options = NULL};
        if (parse_route(&p) != AG_OK || check_methods(c, r) != AG_OK) {
            continue;
        }
        r->match = r->pattern;
        if (!is_directory(&r->decl) || r->pattern.has_splat || match_subtree(c, r) == AG_OK) {
            c->route_count++;
        }
    }
    c->declared = c->route_count;
    add_implied(c);
}
