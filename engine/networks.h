/*
 * networks: a set of peers by their addresses: a list of CIDR blocks, addresses and "unix" (peers on unix
 * sockets), as server.trusted_proxies and a listener's proxy_protocol have it.
 */
#pragma once
#include "engine/loop.h"
#include "engine/node.h"

struct ag_network {
    uint8_t bytes[16]; /* IPv4 as ::ffff:a.b.c.d */
    uint8_t bits;      /* 0 .. 128 */
};

/* All zero: nobody. */
struct ag_networks {
    const struct ag_network *blocks;
    uint32_t count;
    bool unix_peers;
};

/* "10.0.0.0/8", "fd00::/8", "192.0.2.1". False: none of these; *out is undefined. */
bool ag_network_parse(struct ag_span text, struct ag_network *out);
/* Reads the list (NULL: none) that is the value of `key`, in the arena. False after a diagnosis. */
bool ag_networks_read(struct ag_arena *arena, const struct ag_node *list, struct ag_diags *diags,
                      const char *key, struct ag_networks *out);
/* `addr` may be NULL: it is not. */
bool ag_networks_have(const struct ag_networks *n, const union ag_addr *addr);
static inline bool ag_networks_are_empty(const struct ag_networks *n)
{
    return n->count == 0 && !n->unix_peers;
}
/* The same set in memory of its own, for who outlives the arena; freed by free(3). NULL: no memory. */
AG_MUST_USE struct ag_networks *ag_networks_copy(const struct ag_networks *n);
/* As it is written: "10.0.0.0/8, fd00::/8, unix". */
void ag_networks_put(const struct ag_networks *n, struct ag_buf *out);
