#include "router/model_impl.h"

bool ag_model_refuse_unbuilt(const struct ag_node *n, struct ag_diags *diags, const char *what)
{
    if (!n || n->kind == AG_NODE_NULL) {
        return false;
    }
    ag_diag_error(diags, n->key.len ? n->key_pos : n->pos, "remove it", "%s is not supported yet",
                  what);
    return true;
}

static void read_version(const struct ag_node *n, struct ag_diags *diags)
{
    if (n && !(n->kind == AG_NODE_SCALAR && ag_span_eq(n->text, AG_SPAN("1")))) {
        ag_diag_error(diags, n->pos, "this program reads version: 1", "unknown config version");
    }
}

static uint32_t count_children(const struct ag_node *n)
{
    uint32_t count = 0;

    for (const struct ag_node *c = n->first; c; c = c->next) {
        count++;
    }
    return count;
}

static void read_group(const struct ag_node *n, struct ag_diags *diags, struct ag_group *out)
{
    static const char *const keys[] = {"match",  "filters",     "limits", "timeouts",
                                       "stream", "client_cert", "hsts",   "error_pages"};
    const struct ag_node *match = ag_node_get(n, "match");

    if (n->kind == AG_NODE_NULL || !ag_node_check_keys(n, diags, "a group", keys, AG_COUNT(keys))) {
        if (n->kind == AG_NODE_NULL) {
            ag_diag_error(diags, n->pos, NULL, "a group is empty");
        }
        return;
    }
    out->pos = match ? match->pos : n->pos;
    if (!ag_node_text(match, diags, &out->match) && (!match || match->kind == AG_NODE_NULL)) {
        ag_diag_error(diags, n->pos, "such as match: \"/api/*\"", "a group needs a match");
    }
}

static void read_groups(struct ag_model *m, const struct ag_node *n, struct ag_diags *diags)
{
    if (!n || n->kind == AG_NODE_NULL) {
        return;
    }
    if (n->kind != AG_NODE_SEQ) {
        ag_diag_error(diags, n->pos, "- match: \"/api/*\"", "groups must be a list");
        return;
    }
    struct ag_group *groups =
        ag_arena_zalloc(diags->arena, count_children(n) * sizeof(struct ag_group));
    for (const struct ag_node *c = n->first; c; c = c->next) {
        struct ag_group *g = &groups[m->group_count];
        read_group(c, diags, g);
        if (g->match.ptr) {
            g->node = c;
            m->group_count++;
        }
    }
    m->groups = groups;
}

static void read_plugins(struct ag_model *m, const struct ag_node *n, struct ag_diags *diags)
{
    if (!n || n->kind == AG_NODE_NULL) {
        return;
    }
    if (n->kind != AG_NODE_MAP) {
        ag_diag_error(diags, n->pos, "plugins: {NAME: {FILTER: {...}}}",
                      "plugins must be a mapping");
        return;
    }
    struct ag_plugin *plugins =
        ag_arena_zalloc(diags->arena, count_children(n) * sizeof(struct ag_plugin));
    for (const struct ag_node *c = n->first; c; c = c->next) {
        plugins[m->plugin_count++] = (struct ag_plugin){c->key, c};
    }
    m->plugins = plugins;
}

static bool check_route(const struct ag_node *n, struct ag_diags *diags)
{
    switch (n->kind) {
    case AG_NODE_SCALAR:
    case AG_NODE_MAP:
        return true;
    case AG_NODE_NULL:
        if (n->told) {
            return false;
        }
        ag_diag_error(diags, n->key_pos, "such as \"/x\": OK, or a mapping with action: below it",
                      "route \"%.*s\" has no action", (int)ag_min_size(n->key.len, 80),
                      (const char *)n->key.ptr);
        return false;
    case AG_NODE_SEQ:
        ag_diag_error(diags, n->pos, "write an action, or a mapping with action:",
                      "route \"%.*s\": a list is no action", (int)ag_min_size(n->key.len, 80),
                      (const char *)n->key.ptr);
        return false;
    }
    AG_UNREACHABLE("node kind");
}

static void read_routes(struct ag_model *m, const struct ag_node *n, struct ag_diags *diags)
{
    if (!n || n->kind == AG_NODE_NULL) {
        return;
    }
    if (n->kind == AG_NODE_SCALAR) {
        ag_diag_error(diags, n->pos, "a block of lines begins with |",
                      "routes must be a mapping, a list, or a block of lines");
        return;
    }
    struct ag_route_node *routes =
        ag_arena_alloc(diags->arena, count_children(n) * sizeof(struct ag_route_node));
    for (const struct ag_node *c = n->first; c; c = c->next) {
        if (check_route(c, diags)) {
            routes[m->route_count++].node = c;
        }
    }
    m->routes = routes;
}

struct ag_model *ag_model_read(const struct ag_node *root, struct ag_diags *diags)
{
    static const char *const keys[] = {"version", "server",  "tls",    "proxy",  "static",
                                       "echo",    "plugins", "groups", "routes", "tcp",
                                       "cache",   "tunnel",  "acme"};
    static const char *const unbuilt[] = {"cache", "tunnel", "acme"};

    if (!ag_node_check_keys(root, diags, "the config", keys, AG_COUNT(keys))) {
        return NULL;
    }
    struct ag_model *m = ag_arena_zalloc(diags->arena, sizeof(*m));
    read_version(ag_node_get(root, "version"), diags);
    for (size_t i = 0; i < AG_COUNT(unbuilt); i++) {
        (void)ag_model_refuse_unbuilt(ag_node_get(root, unbuilt[i]), diags, unbuilt[i]);
    }
    ag_model_read_server(m, ag_node_get(root, "server"), diags);
    ag_model_read_tcp(m, ag_node_get(root, "tcp"), diags);
    read_plugins(m, ag_node_get(root, "plugins"), diags);
    read_groups(m, ag_node_get(root, "groups"), diags);
    read_routes(m, ag_node_get(root, "routes"), diags);
    return m;
}
