#include "actions/upstream/upstream_addresses.h"

#include "engine/resolver.h"

#include <string.h>

#define V4(a, b, c, d, bits)                                       \
    {                                                              \
        {[10] = 0xff, [11] = 0xff, a, b, c, d}, 96 + (uint8_t)bits \
    }

/* The IANA registries of special-purpose addresses (RFC 6890), what is not globally reachable of them; multicast,
 * and what carries an IPv4 address that nobody would look at: 6to4 and Teredo. */
static const struct ag_network special_blocks[] = {
    V4(0, 0, 0, 0, 8),              /* this host */
    V4(10, 0, 0, 0, 8),             /* RFC 1918 */
    V4(100, 64, 0, 0, 10),          /* carriers (RFC 6598) */
    V4(127, 0, 0, 0, 8),            /* loopback */
    V4(169, 254, 0, 0, 16),         /* link-local: metadata of clouds */
    V4(172, 16, 0, 0, 12),          /* RFC 1918 */
    V4(192, 0, 0, 0, 24),           /* protocol assignments */
    V4(192, 0, 2, 0, 24),           /* documentation */
    V4(192, 88, 99, 0, 24),         /* relays of 6to4 */
    V4(192, 168, 0, 0, 16),         /* RFC 1918 */
    V4(198, 18, 0, 0, 15),          /* benchmarks */
    V4(198, 51, 100, 0, 24),        /* documentation */
    V4(203, 0, 113, 0, 24),         /* documentation */
    V4(224, 0, 0, 0, 4),            /* multicast */
    V4(240, 0, 0, 0, 4),            /* reserved, broadcast */
    {{0x20, 0x01}, 23},             /* 2001::/23: protocol assignments, Teredo */
    {{0x20, 0x01, 0x0d, 0xb8}, 32}, /* documentation */
    {{0x20, 0x02}, 16},             /* 6to4 */
    {{0x3f, 0xff}, 20},             /* documentation */
};
static const struct ag_networks special = {.blocks = special_blocks,
                                           .count = AG_COUNT(special_blocks)};

/* All that is assigned to be reached from everywhere (RFC 4291 section 2.4). */
static const struct ag_network unicast_blocks[] = {{{0x20}, 3}};
static const struct ag_networks unicast = {.blocks = unicast_blocks, .count = 1};

/* RFC 6052 section 2.1: the last four bytes are the IPv4 address that it leads to. */
static const struct ag_network nat64_blocks[] = {{{0x00, 0x64, 0xff, 0x9b}, 96}};
static const struct ag_networks nat64 = {.blocks = nat64_blocks, .count = 1};

static bool is_public(const union ag_addr *addr)
{
    union ag_addr a = *addr;

    ag_addr_unmap(&a);
    if (ag_networks_have(&nat64, &a)) {
        union ag_addr inner = {.in = {.sin_family = AF_INET}};

        memcpy(&inner.in.sin_addr, &a.in6.sin6_addr.s6_addr[12], sizeof(inner.in.sin_addr));
        a = inner;
    }
    if (a.sa.sa_family == AF_INET6 && !ag_networks_have(&unicast, &a)) {
        return false;
    }
    return !ag_networks_have(&special, &a);
}

bool ag_addresses_allow(const struct ag_addresses *a, const union ag_addr *addr)
{
    const struct ag_networks listed = {.blocks = a->networks, .count = a->count};

    return !a->limited || (a->public_ones && is_public(addr)) || ag_networks_have(&listed, addr);
}

uint32_t ag_addresses_keep(const struct ag_addresses *a, union ag_addr *addrs, uint32_t count)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < count; i++) {
        if (ag_addresses_allow(a, &addrs[i])) {
            addrs[kept++] = addrs[i];
        }
    }
    return kept;
}

/* ---- as configured ---- */

#define HINT "use any, public, or a list such as [public, 10.0.0.0/8]"

static bool is_word(const struct ag_node *n, const char *word)
{
    return n->kind == AG_NODE_SCALAR && !n->quoted && ag_span_eq(n->text, ag_span_str(word));
}

static bool read_entry(const struct ag_node *n, struct ag_diags *diags, struct ag_addresses *to)
{
    struct ag_network block;
    struct ag_span text;

    if (is_word(n, "public")) {
        to->public_ones = true;
        return true;
    }
    if (!ag_node_text(n, diags, &text)) {
        return false;
    }
    if (!ag_network_parse(text, &block)) {
        ag_diag_error(diags, n->pos, HINT, "\"%.*s\" is no network", (int)text.len,
                      (const char *)text.ptr);
        return false;
    }
    if (to->count == AG_ADDRESSES_MAX) {
        ag_diag_error(diags, n->pos, NULL, "more than %u networks", AG_ADDRESSES_MAX);
        return false;
    }
    to->networks[to->count++] = block;
    return true;
}

bool ag_addresses_read(const struct ag_node *node, struct ag_diags *diags, struct ag_addresses *io)
{
    struct ag_addresses a = {.limited = true};
    const struct ag_node *first;
    bool ok = true;

    if (!node) {
        return true;
    }
    first = node->kind == AG_NODE_SEQ ? node->first : node;
    if (is_word(node, "any")) {
        a.limited = false;
    } else if (node->kind == AG_NODE_MAP || node->kind == AG_NODE_NULL || !first) {
        ag_diag_error(diags, node->pos, HINT, "addresses is empty, or a map");
        ok = false;
    } else {
        for (const struct ag_node *n = first; n; n = n == node ? NULL : n->next) {
            ok = read_entry(n, diags, &a) && ok;
        }
    }
    if (ok) {
        *io = a;
    }
    return ok;
}

void ag_addresses_put(const struct ag_addresses *a, struct ag_buf *out)
{
    const struct ag_networks listed = {.blocks = a->networks, .count = a->count};

    if (!a->limited) {
        ag_buf_put(out, AG_SPAN("any"));
        return;
    }
    ag_buf_put(out, a->public_ones ? AG_SPAN("public") : AG_SPAN(""));
    ag_buf_put(out, a->public_ones && a->count ? AG_SPAN(", ") : AG_SPAN(""));
    ag_networks_put(&listed, out);
}
