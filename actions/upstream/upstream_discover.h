/*
 * upstream_discover: servers that name servers know: the targets of a service's SRV records (RFC 2782), or all
 * addresses of a name. One shard looks for those of all upstreams in use; the group tells the others.
 *
 *   source (upstream.h) --look-up--> records --map--> servers --> ag_upstream_group_found --> every shard
 *        ^                    |
 *        `---- by time to live, or refresh; after a failure in 1 s, 2 s, 4 s ... 10 s ----'
 *
 * What is known stays when a look-up fails, and also when it says that there is no such name, or nothing there: a slip
 * in a zone must not take a whole service down, and servers that are really gone are found out by requests and
 * checks. That is said once each time it becomes so.
 *
 *   SRV      host: the target, whose addresses are looked up when it is asked, as those of any name
 *            weight: the record's, in proportion where one is beyond AG_UPSTREAM_WEIGHT_MAX; 0 becomes 1
 *            the lowest priority number serves, all others stand by
 *   name     host: the name, for Host, SNI and certificates; the address tells servers apart
 */
#pragma once
#include "actions/upstream/upstream_pool.h"

#define AG_DISCOVER_TEXT (AG_DNS_NAME_MAX + sizeof(":65535"))

/* One answer's servers. 130 KB: a shard has one. */
struct ag_discovered {
    uint32_t count;
    uint32_t refused; /* addresses that are not allowed */
    struct ag_upstream_server servers[AG_UPSTREAM_SERVERS_MAX];
    uint8_t text[AG_UPSTREAM_SERVERS_MAX * AG_DISCOVER_TEXT]; /* their spans */
};

/* What `targets`, sorted by priority, at most AG_UPSTREAM_SERVERS_MAX, are for `up`. */
void ag_discover_places(const struct ag_upstream *up, const struct ag_srv_target *targets,
                        uint32_t count, struct ag_discovered *out);
/* The same for addresses, whose port is set. */
void ag_discover_addresses(const struct ag_upstream *up, const union ag_addr *addrs, uint32_t count,
                           struct ag_discovered *out);

struct ag_discover; /* one shard's */

/* NULL: no memory. */
AG_MUST_USE struct ag_discover *ag_discover_new(struct ag_upstreams *all);
/* Gives up what is under way. NULL is fine. */
void ag_discover_free(struct ag_discover *d);
/* These are the upstreams in use, and their definitions live until the next call. */
void ag_discover_use(struct ag_discover *d, const struct ag_upstream *const *upstreams,
                     uint32_t count);
