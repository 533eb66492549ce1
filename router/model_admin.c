/* server.admin: where operators ask a running process, and what they have to show. */
#include "engine/resolver.h"
#include "router/model_impl.h"

#define TOKEN_MIN_BYTES 16u
#define TOKEN_MAX_BYTES 256u

/* What a field can carry behind "Bearer " (RFC 6750 section 2.1). The token itself is told nobody. */
static bool is_token(struct ag_span text)
{
    for (size_t i = 0; i < text.len; i++) {
        uint8_t ch = text.ptr[i], lower = ag_ascii_lower(ch);

        if (!(lower >= 'a' && lower <= 'z') && !(ch >= '0' && ch <= '9') &&
            !strchr("-._~+/=", ch)) {
            return false;
        }
    }
    return text.len >= TOKEN_MIN_BYTES && text.len <= TOKEN_MAX_BYTES;
}

static void read_token(struct ag_model *m, const struct ag_node *n, struct ag_diags *diags)
{
    struct ag_span text;

    if (!ag_node_text(n, diags, &text)) {
        return;
    }
    if (!is_token(text)) {
        ag_diag_error(diags, n->pos, "such as ${ADMIN_TOKEN}, made by: openssl rand -hex 32",
                      "token: expected %u to %u letters, digits, or -._~+/=", TOKEN_MIN_BYTES,
                      TOKEN_MAX_BYTES);
        return;
    }
    m->admin_token = text;
}

static bool is_here(const union ag_addr *addr)
{
    return addr->sa.sa_family == AF_UNIX || ag_addr_is_loopback(addr);
}

void ag_model_read_admin(struct ag_model *m, const struct ag_node *n, struct ag_diags *diags)
{
    static const char *const keys[] = {"address", "token"};
    const struct ag_node *address = n, *token = NULL;
    uint16_t first = m->listen_count;

    if (!n || n->kind == AG_NODE_NULL) {
        return;
    }
    if (n->kind == AG_NODE_MAP) {
        (void)ag_node_check_keys(n, diags, "server.admin", keys, AG_COUNT(keys));
        address = ag_node_get(n, "address");
        token = ag_node_get(n, "token");
        read_token(m, token, diags);
    }
    if (!address || address->kind != AG_NODE_SCALAR) {
        ag_diag_error(diags, address ? address->pos : n->pos, "such as admin: \"127.0.0.1:9901\"",
                      "admin: expected an address");
        return;
    }
    ag_model_read_address(m, address, diags);
    for (uint16_t i = first; i < m->listen_count; i++) {
        struct ag_listen *l = &m->listens[i];

        l->admin = true;
        l->limits = m->limits;
        l->limits.max_connections = 0;
        if (!is_here(&l->addr) && !token) {
            ag_diag_error(diags, l->pos, "admin: {address: ..., token: \"${ADMIN_TOKEN}\"}",
                          "admin: others than this machine reach that address: it needs a token");
            return;
        }
    }
}
