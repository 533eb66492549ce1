/*
 * upstream_parts: what the files of upstream_pool share; nobody else includes it.
 *
 *   upstream_pool.c   the shard's upstreams: made, found, dropped; names
 *   upstream_peers.c  its servers: those that come, those that go, who of them may be asked
 *   upstream_slots.c  connections that all shards together may have
 *   upstream_warm.c   connections that are there before anyone asks
 *   upstream_pick.c   who of the servers is asked: those that were tried, those that have room
 *   upstream_claim.c  who wants a connection: waiting, failing over
 *   upstream_making.c connections that are being made: who waits for them, addresses tried beside each other
 *   upstream_conn.c   connections: opened, shared, idle, ended
 *   upstream_private.c connections that are one client's
 *   upstream_watch.c  what is late on them
 *   upstream_health.c what requests tell of servers, who may be asked because of it
 */
#pragma once
#include "actions/upstream/upstream_pool.h"

/* ---- upstream_pool.c ---- */

/* The live upstream of this definition; NULL when no slot is left. */
struct ag_upstream_pool *ag_upstream_pool_of(struct ag_upstreams *u, const struct ag_upstream *up);
/* Has the peer's name looked up unless that is under way; ends in ag_upstream_named. */
void ag_upstream_resolve(struct ag_upstream_peer *p);

/* ---- upstream_peers.c ---- */

/* Brings the pool up to date with its group. */
void ag_upstream_pool_refresh(struct ag_upstream_pool *pool);
static inline void ag_upstream_pool_look(struct ag_upstream_pool *pool)
{
    if (pool->version != ag_upstream_group_version(pool->group) ||
        pool->all->loop->now_ms >= pool->look_ms) {
        ag_upstream_pool_refresh(pool);
    }
}
static inline void ag_upstream_look_by(struct ag_upstream_pool *pool, uint64_t at_ms)
{
    pool->look_ms = at_ms < pool->look_ms ? at_ms : pool->look_ms;
}
/* Someone has let go of it: one that is retired may go. */
void ag_upstream_peer_left(struct ag_upstream_peer *p);
/* Frees them all: nothing is under way at any. */
void ag_upstream_peers_drop(struct ag_upstream_pool *pool);

/* ---- upstream_slots.c ---- */

/* The upstream has as many connections as it may, whatever its servers' bounds are. */
bool ag_upstream_is_full(const struct ag_upstream_pool *pool);
/* A connection more to it is within all bounds, as far as one can tell without taking the slot. */
bool ag_upstream_has_slot(const struct ag_upstream_peer *p);
/* The same of any that takes requests; also where none does. */
bool ag_upstream_has_any_slot(const struct ag_upstream_pool *pool);
/* For a connection that is being made; false: none is free. */
AG_MUST_USE bool ag_upstream_slot_take(struct ag_upstream_peer *p);
/* The connection has gone: others may have it. */
void ag_upstream_slot_give(struct ag_upstream_peer *p);
/* A connection that could serve again had better end: its slot is another shard's turn, or was taken away. */
bool ag_upstream_slot_is_due(const struct ag_upstream_peer *p);
/* Bounds are the group's and its members' as they are now; idle connections beyond them end. */
void ag_upstream_slots_follow(struct ag_upstream_pool *pool);
/* Requests wait for a slot in other shards. */
bool ag_upstream_others_wait(const struct ag_upstream_pool *pool);
/* Ends an idle connection for each that waits elsewhere, of each server whose slots it may wait for. */
void ag_upstream_evict_for_others(struct ag_upstream_pool *pool);
/* One more request waits; false: too many do. */
AG_MUST_USE bool ag_upstream_pending_begin(struct ag_upstream_pool *pool);
void ag_upstream_pending_end(struct ag_upstream_pool *pool);
/* Something that pools of the group wait for may have come: all look, in their shards, but for `except` (NULL: none). */
void ag_upstream_tell(struct ag_upstream_group *g, const struct ag_upstream_pool *except);
/* Who waits for a slot at one of `among` could have one that is free since, or idle, here or elsewhere. */
void ag_upstream_slot_wanted(struct ag_upstream_pool *pool, const struct ag_balance_set *among);
/* The pool is one of its group's from now on, and no longer. False: it stays, a message to it is on its way. */
void ag_upstream_slots_join(struct ag_upstream_pool *pool);
AG_MUST_USE bool ag_upstream_slots_leave(struct ag_upstream_pool *pool);

/* ---- upstream_warm.c ---- */

void ag_upstream_warm_init(struct ag_upstream_pool *pool);
/* Makes and keeps the pool that `up` wants to have connections to spare. */
void ag_upstream_warm_begin(struct ag_upstreams *u, const struct ag_upstream *up);
/* The pool may go, and its connections to spare with it; false: they are wanted. */
AG_MUST_USE bool ag_upstream_warm_end(struct ag_upstream_pool *pool);

/* ---- upstream_pick.c ---- */

/* Who is asked next; NULL: nobody can be. One that may only be tried now and then is on trial by this. */
struct ag_upstream_peer *ag_upstream_find_peer(struct ag_upstream_claim *c);
/* The claim's peer is of no use for this request any more. */
void ag_upstream_avoid(struct ag_upstream_claim *c);
/* Those of the first tier that has any which were not tried yet; and whether there are any, some of which may have come
 * since. */
struct ag_balance_set ag_upstream_untried(const struct ag_upstream_claim *c);
bool ag_upstream_any_untried(struct ag_upstream_claim *c);
/* No connection that is there, or that others wait for, will do. */
bool ag_upstream_is_apart(const struct ag_upstream_claim *c);

/* ---- upstream_claim.c ---- */

/* Its request has had all its time (timeouts.total); and when, if not within `ms` from now. */
bool ag_upstream_is_late(const struct ag_upstream_claim *c);
uint64_t ag_upstream_due(const struct ag_upstream_claim *c, uint32_t ms);
/* Servers may be known now: those who wait for them go on. */
void ag_upstream_known(struct ag_upstream_pool *pool);
/* The peer's look-up has ended: those who wait for it go on. */
void ag_upstream_named(struct ag_upstream_peer *p);
/* Whoever is pending has a chance now. */
void ag_upstream_wake(struct ag_upstream_pool *pool);
void ag_upstream_wake_task(struct ag_task *t);
/* The claim's attempt has ended, in a connection or not; `whole`: no address of the server was left to try. */
void ag_upstream_connected(struct ag_upstream_claim *c);
void ag_upstream_connect_failed(struct ag_upstream_claim *c, enum ag_reason why, const char *detail,
                                bool whole);
/* The claim is no longer under way at its peer. */
void ag_upstream_discharge(struct ag_upstream_claim *c);
/* The connection that it waited for has no room for it: it goes on. */
void ag_upstream_crowded_out(struct ag_upstream_claim *c);

/* ---- upstream_making.c ---- */

/* Waits for a connection that is being made to the claim's peer. False: there is none that has room. */
bool ag_upstream_join(struct ag_upstream_claim *claim);
/* The claim waits no more for its connection; one that nobody waits for is closed. */
void ag_upstream_leave(struct ag_upstream_claim *claim);
/* Starts to connect to the claim's peer, for which a slot was taken. False: the shard is out of connections. */
bool ag_upstream_connect(struct ag_upstream_claim *claim);
/* It is ready: those who wait for it have it, as far as it has room; the others go on. */
void ag_upstream_admit(struct ag_upstream_conn *c);
/* It is CLOSING and will not be ready: those who wait for it go on, at another address where that is under way. */
void ag_upstream_unmake(struct ag_upstream_conn *c, enum ag_reason why);

/* ---- upstream_conn.c ---- */

/* A shared connection of the claim's peer that has room, or the most recently used idle one. NULL: none is alive. */
struct ag_upstream_conn *ag_upstream_take(const struct ag_upstream_claim *claim);
void ag_upstream_give(struct ag_upstream_claim *claim, struct ag_upstream_conn *c);
void ag_upstream_conn_become(struct ag_upstream_conn *c, enum ag_upstream_conn_state to);
/* Whether it may carry one more call. */
bool ag_upstream_conn_takes(const struct ag_upstream_conn *c);
/* It carries no more calls than it has, or is being made for. */
void ag_upstream_conn_bar(struct ag_upstream_conn *c);
/* Begins with its stream; ends in ag_upstream_admit, or in ag_upstream_unmake. */
void ag_upstream_conn_open(struct ag_upstream_conn *c, const union ag_addr *addr);
/* Ends the connection that was idle longest; `among`: of those peers, NULL: of all. False: none is idle. */
bool ag_upstream_evict(struct ag_upstream_pool *pool, const struct ag_balance_set *among);
/* Ends it at once, and in order as far as its protocol knows that. */
void ag_upstream_conn_close(struct ag_upstream_conn *c);
void ag_upstream_conn_finish(struct ag_upstream_conn *c);
/* The same, of one that is idle: it is said, and no peer waited for. */
void ag_upstream_conn_part(struct ag_upstream_conn *c);

/* ---- upstream_private.c ---- */

/* Its upstream is told whose each connection is. */
static inline bool ag_upstream_is_private(const struct ag_upstream_conn *c)
{
    return c->peer->pool->options.proxy_protocol != AG_PROXY_PROTOCOL_NONE;
}
/* The new connection, of that kind, is the claim's client's; and nobody's any more: it carries no other call. */
void ag_upstream_own(struct ag_upstream_conn *c, const struct ag_upstream_claim *claim);
void ag_upstream_disown(struct ag_upstream_conn *c);
/* The idle connection of the claim's client to `p`. NULL: there is none. */
struct ag_upstream_conn *ag_upstream_find_own(const struct ag_upstream_claim *claim,
                                              const struct ag_upstream_peer *p);
/* It is about to be idle: the client has no other one there, and nobody waits for its slot. False: it had better end. */
bool ag_upstream_keep_own(const struct ag_upstream_conn *c);

/* ---- upstream_watch.c ---- */

/* The new connection has until then to be made; and later, if that is later. */
void ag_upstream_alarm_init(struct ag_upstream_conn *c, uint64_t due_ms);
void ag_upstream_alarm_extend(struct ag_upstream_conn *c, uint64_t due_ms);
/* What it would be late with while it is being made; NULL: the connection itself. */
const char *ag_upstream_late_detail(const struct ag_upstream_conn *c);
/* The claim's call has begun: it is looked at as soon as any of its phases may be too long. */
void ag_upstream_watch(struct ag_upstream_claim *claim);
/* It has become idle. */
void ag_upstream_watch_idle(struct ag_upstream_conn *c);

/* ---- upstream_health.c ---- */

/* Leaves the member out for `why`, as far as the bound allows. */
void ag_upstream_eject(struct ag_upstream_member *m, const struct ag_breaker_options *o,
                       uint64_t now_ms, const char *why);
/* Whether the claim may go to the peer that was chosen: not when that is to be tried by few, and enough are
 * under way. It may be a trial then. */
bool ag_upstream_try(struct ag_upstream_claim *c, struct ag_upstream_peer *p);
/* The end of the claim's trial, which it is. */
void ag_upstream_end_trial(struct ag_upstream_claim *c, enum ag_breaker_trial how);
/* The same; harmless when it is none, as most are. */
static inline void ag_upstream_trial_ended(struct ag_upstream_claim *c, enum ag_breaker_trial how)
{
    if (c->trial) {
        ag_upstream_end_trial(c, how);
    }
}
/* It has met nothing that speaks against its peer. */
void ag_upstream_went_well(struct ag_upstream_claim *c);
/* Whether a connection that was not made because of that tells something of whom it was to. */
bool ag_upstream_is_telling(enum ag_reason why);
/* No connection to the claim's peer has come about. */
void ag_upstream_unreached(struct ag_upstream_claim *c, enum ag_reason why);
/* Whether the peer takes requests, be it for a trial (pool->trial); else when to look again. */
bool ag_upstream_is_usable(struct ag_upstream_pool *pool, const struct ag_upstream_peer *p);
/* Makes more of them usable when there are too few. */
void ag_upstream_panic(struct ag_upstream_pool *pool);
/* Makes the weights of those that have just come back small. */
void ag_upstream_warm_up(struct ag_upstream_pool *pool);
