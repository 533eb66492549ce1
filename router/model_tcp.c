/* The section `tcp`, as far as it is about listeners; where they lead is the proxy's (relay_config.c). */
#include "router/model_impl.h"

/* What is HTTP's, or TLS's. */
static bool check_listener(const struct ag_node *n, struct ag_diags *diags)
{
    static const char *const others[] = {"tls", "redirect_https", "stream", "deferred"};
    bool ok = true;

    for (size_t i = 0; i < AG_COUNT(others); i++) {
        const struct ag_node *key = n ? ag_node_get(n, others[i]) : NULL;
        if (key) {
            ag_diag_error(diags, key->key_pos, NULL, "%s is no key of a listener of tcp",
                          others[i]);
            ok = false;
        }
    }
    return ok;
}

void ag_model_read_tcp(struct ag_model *m, const struct ag_node *list, struct ag_diags *diags)
{
    uint32_t index = 0;

    if (!list || list->kind == AG_NODE_NULL) {
        return;
    }
    if (list->kind != AG_NODE_SEQ) {
        ag_diag_error(diags, list->pos, "tcp: [{listen: \":5432\", to: db}]", "tcp is a list");
        return;
    }
    for (const struct ag_node *n = list->first; n; n = n->next) {
        const struct ag_node *listen = ag_node_get(n, "listen");
        uint16_t first = m->listen_count;

        index++;
        if (n->kind != AG_NODE_MAP || !listen || listen->kind == AG_NODE_NULL) {
            ag_diag_error(diags, n->pos, "listen: \":5432\"", "an entry of tcp needs an address");
            continue;
        }
        ag_model_read_listens(m, listen, diags);
        for (; first < m->listen_count; first++) {
            struct ag_listen *l = &m->listens[first];

            l->tcp = index;
            if (!check_listener(l->node, diags)) {
                break;
            }
            l->node = NULL; /* nothing else is read of it */
        }
    }
}
