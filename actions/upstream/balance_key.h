/* balance_key: what a request is hashed by, so that those that belong together come to the same server. */
#pragma once
#include "actions/upstream/balance_config.h"
#include "engine/networks.h"
#include "proto/exchange.h"

/*
 * XXH3 of what `o` names; 0 where servers are not chosen by hash. A request that does not have it (or has an empty
 * one) is hashed by its client's address.
 *
 * The client is the peer; where that is trusted, the last address of X-Forwarded-For that is not trusted itself: all
 * that is left of it may be made up. Ports do not count, and an IPv4 address counts the same however it is written.
 */
uint64_t ag_balance_key(struct ag_exchange *ex, const struct ag_balance_options *o,
                        const struct ag_networks *trust);
