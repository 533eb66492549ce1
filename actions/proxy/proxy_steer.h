/*
 * proxy_steer: what of a request says which of an upstream's servers it goes to: what it is hashed by, and the
 * cookie of the one that its client sticks to.
 */
#pragma once
#include "actions/upstream/upstream_pool.h"
#include "engine/networks.h"
#include "proto/exchange.h"

/* Sets the claim's key and the server that it wants. Of an upstream that has neither it costs two compares. */
void ag_proxy_steer(struct ag_exchange *ex, const struct ag_upstream *up,
                    const struct ag_networks *trust, struct ag_upstream_claim *claim);
/* Before the answer of the claim's server is given: adds the cookie where it is to be set, or set again.
 * AG_ENOMEM. */
AG_MUST_USE enum ag_status ag_proxy_stick(struct ag_exchange *ex, const struct ag_upstream *up,
                                          const struct ag_upstream_claim *claim);
