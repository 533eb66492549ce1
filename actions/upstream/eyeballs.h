/*
 * eyeballs: the order in which the addresses of one server are tried, and when the next attempt begins beside those
 * under way (Happy Eyeballs, RFC 8305). Pure: who connects tells what came of it and what time it is.
 *
 *   addresses --plan--> order      attempt 0 --250 ms, or its failure--> attempt 1 --...--> the first that connects
 *        ^                                                                                  wins; the others are closed
 *        `-- memory: the family that worked last, and which addresses failed when
 *
 * The resolver gives addresses in the order of RFC 6724 with the families in turn. The family that worked last goes
 * first (section 4: a history of connections may), its addresses in turn, so that several hosts of one name share the
 * load; and an address that has failed within the last
 * AG_EYEBALLS_FORGIVE_MS goes behind those that have not: so a broken family, or host, costs a delay once and not
 * with every connection.
 */
#pragma once
#include "engine/resolver.h"

#define AG_EYEBALLS_DELAY_MS   250u   /* RFC 8305 section 5: Connection Attempt Delay */
#define AG_EYEBALLS_FORGIVE_MS 10000u /* a failure counts that long */

/* What is remembered of one server's addresses; all zero: nothing. One shard's. */
struct ag_eyeballs {
    struct ag_eyeballs_failure {
        union ag_addr addr;
        uint64_t at_ms;         /* loop time; 0: none */
    } failures[AG_RESOLVE_MAX]; /* the latest ones */
    sa_family_t worked;         /* AF_UNSPEC: none yet */
};

/* Indices of addresses, in the order to try them. */
struct ag_eyeballs_plan {
    uint8_t order[AG_RESOLVE_MAX];
    uint8_t count;
};

/* `addrs`: `count` of them, at most AG_RESOLVE_MAX, as the resolver gives them. Each is in the plan once. `turn`: one
 * more with each plan. */
void ag_eyeballs_plan(const struct ag_eyeballs *e, const union ag_addr *addrs, uint32_t count,
                      uint32_t turn, uint64_t now_ms, struct ag_eyeballs_plan *out);
/*
 * When the next attempt is to begin beside those under way, in loop time; UINT64_MAX: there is none. When one has
 * failed, it is now.
 *   begun       attempts so far; those of the plan's order
 *   last_ms     when the last one began, from which RFC 8305 section 5 counts
 */
uint64_t ag_eyeballs_next_ms(const struct ag_eyeballs_plan *p, uint32_t begun, uint64_t last_ms);
/* What came of an attempt; one that was closed because another won is not told. */
void ag_eyeballs_worked(struct ag_eyeballs *e, const union ag_addr *addr);
void ag_eyeballs_failed(struct ag_eyeballs *e, const union ag_addr *addr, uint64_t now_ms);
