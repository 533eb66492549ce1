#include "router/config_impl.h"

struct ag_node *ag_config_parse_gate(const struct ag_source *src, struct ag_diags *diags)
{
    struct ag_prescan p = {.src = src, .diags = diags};
    struct ag_pos start = {src, 1, 1};

    if (!ag_config_check_text(src, diags)) {
        return NULL;
    }
    ag_config_prescan_lines(&p);
    struct ag_node *root = ag_node_new(diags->arena, AG_NODE_MAP, start);
    struct ag_node *routes = ag_node_new(diags->arena, AG_NODE_SEQ, start);
    routes->key = AG_SPAN("routes");
    routes->key_pos = start;
    ag_config_prescan_merge(&p, routes);
    ag_node_append(root, routes);
    ag_keyset_deinit(&p.seen);
    return root;
}
