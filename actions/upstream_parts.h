/*
 * upstream_parts: what the files of upstream_pool share; nobody else includes it.
 *
 *   upstream_pool.c   the shard's upstreams: made, found, dropped; names
 *   upstream_claim.c  who wants a connection: choice of a server, waiting, failing over
 *   upstream_conn.c   connections: made, idle, timed, ended
 */
#pragma once
#include "actions/upstream_pool.h"

/* ---- upstream_pool.c ---- */

/* The live upstream of this definition; NULL when no slot is left. */
struct ag_upstream_pool *ag_upstream_pool_of(struct ag_upstreams *u, const struct ag_upstream *up);
/* Has the peer's name looked up unless that is under way; ends in ag_upstream_named. */
void ag_upstream_resolve(struct ag_upstream_peer *p);

/* ---- upstream_claim.c ---- */

/* The peer's look-up has ended: those who wait for it go on. */
void ag_upstream_named(struct ag_upstream_peer *p);
/* Whoever is pending has a chance now. */
void ag_upstream_wake(struct ag_upstream_pool *pool);
void ag_upstream_wake_task(struct ag_task *t);
/* The claim's attempt has ended, in a connection or not. */
void ag_upstream_connected(struct ag_upstream_claim *c);
void ag_upstream_connect_failed(struct ag_upstream_claim *c, enum ag_reason why);

/* ---- upstream_conn.c ---- */

/* Takes the most recently used idle connection that is alive. NULL: none. */
struct ag_upstream_conn *ag_upstream_take_idle(struct ag_upstream_peer *p);
void ag_upstream_give(struct ag_upstream_claim *claim, struct ag_upstream_conn *c);
/* Starts to connect to the peer's next address. False: the shard is out of connections. */
bool ag_upstream_connect(struct ag_upstream_claim *claim);
/* Ends the connection that was idle longest. */
void ag_upstream_evict(struct ag_upstream_pool *pool);
void ag_upstream_conn_close(struct ag_upstream_conn *c);
