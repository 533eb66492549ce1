#include "engine/networks.h"

#include "engine/resolver.h"

#define MAPPED_BITS 96u

/* As 16 bytes; false for what is no IP address. */
static bool to_bytes(const union ag_addr *a, uint8_t out[static 16])
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};

    if (a->sa.sa_family == AF_INET6) {
        memcpy(out, &a->in6.sin6_addr, 16);
        return true;
    }
    memcpy(out, mapped, sizeof(mapped));
    memcpy(out + sizeof(mapped), &a->in.sin_addr, 4);
    return a->sa.sa_family == AF_INET;
}

static bool in_block(const uint8_t bytes[static 16], const struct ag_network *b)
{
    size_t whole = b->bits / 8u, rest = b->bits % 8u;

    if (memcmp(bytes, b->bytes, whole) != 0) {
        return false;
    }
    return rest == 0 || (bytes[whole] ^ b->bytes[whole]) >> (8u - rest) == 0;
}

bool ag_networks_have(const struct ag_networks *n, const union ag_addr *addr)
{
    uint8_t bytes[16];

    if (!addr) {
        return false;
    }
    if (addr->sa.sa_family == AF_UNIX) {
        return n->unix_peers;
    }
    if (n->count == 0 || !to_bytes(addr, bytes)) {
        return false;
    }
    for (uint32_t i = 0; i < n->count; i++) {
        if (in_block(bytes, &n->blocks[i])) {
            return true;
        }
    }
    return false;
}

bool ag_network_parse(struct ag_span text, struct ag_network *out)
{
    size_t slash = ag_span_find(text, '/');
    union ag_addr addr;
    uint64_t bits, most;

    if (ag_addr_parse(ag_span_sub(text, 0, slash), 0, &addr) != AG_OK ||
        !to_bytes(&addr, out->bytes)) {
        return false;
    }
    bits = most = addr.sa.sa_family == AF_INET ? 32 : 128;
    if (slash < text.len &&
        (ag_span_u64(ag_span_sub(text, slash + 1, text.len), &bits) != AG_OK || bits > most)) {
        return false;
    }
    out->bits = (uint8_t)(bits + (most == 32 ? MAPPED_BITS : 0));
    return true;
}

bool ag_networks_read(struct ag_arena *arena, const struct ag_node *list, struct ag_diags *diags,
                      const char *key, struct ag_networks *out)
{
    const struct ag_node *first;
    struct ag_network *blocks;
    uint32_t count = 0;
    bool ok = true;

    *out = (struct ag_networks){0};
    if (!list || list->kind == AG_NODE_NULL) {
        return true;
    }
    if (list->kind == AG_NODE_MAP) {
        ag_diag_error(diags, list->pos, "[10.0.0.0/8]", "%s is a list", key);
        return false;
    }
    first = list->kind == AG_NODE_SEQ ? list->first : list;
    for (const struct ag_node *n = first; n; n = n == list ? NULL : n->next) {
        count++;
    }
    blocks = count ? ag_arena_zalloc(arena, count * sizeof(*blocks)) : NULL;
    for (const struct ag_node *n = first; n; n = n == list ? NULL : n->next) {
        struct ag_span text;

        if (!ag_node_text(n, diags, &text)) {
            ok = false;
        } else if (ag_span_eq(text, AG_SPAN("unix"))) {
            out->unix_peers = true;
        } else if (blocks && ag_network_parse(text, &blocks[out->count])) {
            out->count++;
        } else {
            ag_diag_error(diags, n->pos, "use 10.0.0.0/8, fd00::/8, an address, or unix",
                          "\"%.*s\" is not a CIDR block", (int)text.len, (const char *)text.ptr);
            ok = false;
        }
    }
    out->blocks = blocks;
    return ok;
}

struct ag_networks *ag_networks_copy(const struct ag_networks *n)
{
    struct ag_networks *copy = malloc(sizeof(*copy) + n->count * sizeof(*n->blocks));

    if (copy) {
        *copy = *n;
        copy->blocks = NULL;
        if (n->count > 0) {
            copy->blocks = memcpy(copy + 1, n->blocks, n->count * sizeof(*n->blocks));
        }
    }
    return copy;
}

static void put_block(const struct ag_network *b, struct ag_buf *out)
{
    union ag_addr addr = {.in6 = {.sin6_family = AF_INET6}};
    unsigned bits = b->bits;

    memcpy(&addr.in6.sin6_addr, b->bytes, sizeof(b->bytes));
    if (bits >= MAPPED_BITS) {
        ag_addr_unmap(&addr);
        bits -= addr.sa.sa_family == AF_INET ? MAPPED_BITS : 0;
    }
    ag_addr_format(&addr, false, out);
    if (b->bits < 128) {
        ag_buf_putc(out, '/');
        ag_buf_put_u64(out, bits);
    }
}

void ag_networks_put(const struct ag_networks *n, struct ag_buf *out)
{
    for (uint32_t i = 0; i < n->count; i++) {
        ag_buf_put(out, i ? AG_SPAN(", ") : AG_SPAN(""));
        put_block(&n->blocks[i], out);
    }
    if (n->unix_peers) {
        ag_buf_put(out, n->count ? AG_SPAN(", unix") : AG_SPAN("unix"));
    }
}
