/*
 * health: the checks of all upstreams in use, made by one shard for all of them, and the search for outliers.
 *
 *   watch (an upstream in use) --its group's members--> checks, one a server
 *   check: waits -> under way -> passed | failed -> waits ...    flags of the member: what all shards see
 *
 * A check makes a connection of its own, which is closed after it: a server that no longer takes connections
 * is down, whatever lives on older ones. It does not count against max_connections. A named server is one
 * server: its addresses are tried in turn until one answers, as for a request. What fails on this side (no
 * buffers, no descriptors) tells nothing about the server and is not counted.
 *
 * What is known of a server (its flags) is its member's and stays over a reload that keeps it, and so do the
 * counts towards rise and fall; a check under way at a reload is made again by the new settings.
 */
#pragma once
#include "actions/upstream/upstream_pool.h"

#define AG_HEALTH_CHECKS    AG_UPSTREAM_PEERS /* servers that are checked */
#define AG_HEALTH_UNDER_WAY 128u              /* checks at once; others wait */

struct ag_health; /* one shard's */

/* NULL: no memory. */
AG_MUST_USE struct ag_health *ag_health_new(struct ag_upstreams *all);
/* Gives up what is under way. NULL is fine. */
void ag_health_free(struct ag_health *h);
/* These are the upstreams in use, and their definitions live until the next call. */
void ag_health_use(struct ag_health *h, const struct ag_upstream *const *upstreams, uint32_t count);
/* What it takes when all are in use. */
uint64_t ag_health_bytes(void);

/* An interval with its jitter; `random`: any bits. */
uint32_t ag_health_wait_ms(const struct ag_health_check *c, uint64_t random);

/* ---- for who asks how things are ---- */

struct ag_health_view {
    struct ag_span upstream, server; /* names, as configured */
    uint32_t flags;                  /* AG_MEMBER_* */
    uint32_t weight;
    enum ag_breaker_state breaker;
    enum ag_member_origin origin;
    bool backup, checked;
    uint64_t errors, ejections, held_back, checks, checks_failed, downs;
};
/* Calls `each` for every server of every upstream that lives, under the lock of the groups: it may look and
 * copy. Any thread. */
void ag_health_each(struct ag_upstream_groups *all,
                    void (*each)(void *arg, const struct ag_health_view *v), void *arg);
