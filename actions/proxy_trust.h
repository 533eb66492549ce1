/*
 * proxy_trust: whose forwarding fields are believed: server.trusted_proxies, a list of CIDR blocks,
 * addresses and "unix" (peers on unix sockets).
 */
#pragma once
#include "engine/loop.h"
#include "engine/node.h"

struct ag_proxy_block {
    uint8_t bytes[16]; /* IPv4 as ::ffff:a.b.c.d */
    uint8_t bits;      /* 0 .. 128 */
};

struct ag_proxy_trust {
    const struct ag_proxy_block *blocks;
    uint32_t count;
    bool unix_peers;
};

/* Reads the list (NULL: none), in the arena. False after a diagnosis. */
bool ag_proxy_trust_read(struct ag_arena *arena, const struct ag_node *list, struct ag_diags *diags,
                         struct ag_proxy_trust *out);
/* `addr` may be NULL: not trusted. */
bool ag_proxy_trusts(const struct ag_proxy_trust *t, const union ag_addr *addr);
