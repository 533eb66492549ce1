/*
 * serving: one shard's serving state: the snapshot in use, listeners, downstream connections. Knows no
 * threads and no signals: who runs the loop calls it, on the loop's thread.
 *
 *   open --> apply (snapshot and listeners; again at each reload) --> drain --> [ended] --> close
 *                                                                     abort
 *
 * A change is made by the control thread and consumed by the shard. Requests keep the snapshot that
 * they began with; when the last of them is done, `let_go` is called for it.
 */
#pragma once
#include "router/snapshot.h"
#include "tools/admin.h"
#include "tools/board.h"
#include "tools/downstream.h"
#include "tools/spread.h"

/* A listener after the change; those of other sockets are closed. */
struct ag_serving_listen {
    uint32_t socket_id;
    int fd; /* listening, taken over; -1: the shard has it already */
    uint16_t port;
    bool admin;    /* its requests go to admin.h's endpoints */
    bool deferred; /* listener.h */
    struct ag_server_limits limits;
    struct ag_tls_server *tls;             /* the snapshot's; NULL: plain */
    const struct ag_relay_settings *relay; /* the snapshot's; NULL: it speaks HTTP */
    const struct ag_networks
        *proxied; /* the snapshot's: who begins with a PROXY header; NULL: nobody */
};

struct ag_serving;

/* What a shard is to serve from now on. */
struct ag_serving_change {
    struct ag_msg msg; /* the carrier's; serving does not look at it */
    struct ag_serving *serving;
    struct ag_snapshot *snapshot;
    struct ag_serving_use *use; /* taken over by apply */
    void *owner;                /* the carrier's */
    uint32_t listen_count;
    struct ag_serving_listen listens[];
};

#define AG_SERVING_WAITING 1024u /* accepted beyond the limit of connections */

struct ag_serving {
    struct ag_context ctx;
    struct ag_downstreams down;
    struct ag_spread spread; /* its `post` is the owner's, with that of `board` */
    struct ag_admin admin;
    struct ag_link listeners; /* struct listener, closing ones too */
    uint32_t listening;       /* not closed yet, but for those of admin */
    uint32_t admin_listening; /* those */
    struct ag_serving_use *use;
    struct ag_serving_waiting *waiting; /* AG_SERVING_WAITING, in order of arrival */
    uint32_t waiting_count;
    struct ag_timer drain_timer;
    struct ag_task end_task;
    uint64_t drain_timeout_ms;
    bool draining;
    bool admin_closing; /* all else has ended */
    bool over;          /* all connections were ended: what is accepted yet is closed */
    bool cut;           /* connections were ended while something was under way */
    /* The owner's, set before open. */
    void *owner;
    const struct ag_action_commons *commons; /* the process's */
    struct ag_board *board;                  /* NULL: nobody reads it */
    /* Of the first snapshot, for what has to be opened before rights are given up. NULL: /etc/resolv.conf. */
    const struct ag_resolver_settings *resolver;
    /* This shard uses `snapshot` no more. */
    void (*let_go)(struct ag_serving *, struct ag_snapshot *);
    /* Drained: no listener and no connection is left. Called once, from a task. */
    void (*ended)(struct ag_serving *);
};

/* Room for `listen_max` listeners, zeroed; with all that applying it needs, so that apply cannot fail. */
struct ag_serving_change *ag_serving_change_new(struct ag_serving *s, struct ag_snapshot *snapshot,
                                                uint32_t listen_max);

/* A change that no shard will apply: closes its descriptors. */
void ag_serving_change_drop(struct ag_serving_change *c);

/* Sets up pools and the actions' state of shard `index`, on the loop's thread; nothing is served before the
 * first apply. AG_ENOMEM. */
AG_MUST_USE enum ag_status ag_serving_open(struct ag_serving *s, struct ag_loop *l, uint32_t index,
                                           uint32_t shard_count, uint32_t connection_max);
/* Serves by `c` from now on, and frees it. After drain: only lets its snapshot go and closes its
 * descriptors. */
void ag_serving_apply(struct ag_serving *s, struct ag_serving_change *c);
/* Closes listeners; connections end after what they are at, at the latest after drain_timeout. */
void ag_serving_drain(struct ag_serving *s);
/* The same when another process serves on: idle connections stay for one more answer, so that none is
 * closed under a request that is on its way. drain may follow. */
void ag_serving_yield(struct ag_serving *s);
/* Draining, and all connections end now. */
void ag_serving_abort(struct ag_serving *s);
/* After `ended`, outside callbacks: turns the loop until all is given back. */
void ag_serving_close(struct ag_serving *s);
