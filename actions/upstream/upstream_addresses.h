/*
 * upstream_addresses: which addresses names of servers may lead to.
 *
 *   addresses: any                       # all; the default
 *   addresses: public                    # none of this machine, of private and of other special networks
 *   addresses: [10.0.0.0/8, public]      # those in any of these
 *
 * Whoever rules a name can have it lead anywhere, and elsewhere tomorrow: to this machine, to a cloud's metadata
 * (server-side request forgery, DNS rebinding). So every answer is looked at, not the configuration: an address
 * that is not allowed is as if the answer had been without it. Addresses that are written out in the configuration
 * are the operator's own word and are not asked about.
 */
#pragma once
#include "engine/networks.h"

#define AG_ADDRESSES_MAX 32u /* networks of one list */

/* All zero: any. Numbers alone, so that it may be copied. */
struct ag_addresses {
    bool limited;
    bool public_ones;
    uint8_t count;
    struct ag_network networks[AG_ADDRESSES_MAX];
};

/* What `node` says, over what `io` holds; NULL: no change. False after a diagnosis. */
bool ag_addresses_read(const struct ag_node *node, struct ag_diags *diags, struct ag_addresses *io);
/* Whether a name may lead there. ::ffff:10.0.0.1 is 10.0.0.1. */
bool ag_addresses_allow(const struct ag_addresses *a, const union ag_addr *addr);
/* Takes out of `addrs` those that are not allowed; returns how many are left, in their order. */
uint32_t ag_addresses_keep(const struct ag_addresses *a, union ag_addr *addrs, uint32_t count);
/* "public, 10.0.0.0/8"; "any". */
void ag_addresses_put(const struct ag_addresses *a, struct ag_buf *out);
