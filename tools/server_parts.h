/*
 * server_parts: what the files of the control thread share; nobody else includes it.
 *
 *   server.c   start, signals, end
 *   reload.c   a new configuration in place of the old one
 *   orders.c   in a worker: what the master sends
 */
#pragma once
#include "engine/shard.h"
#include "tools/lifecycle.h"
#include "tools/material.h"
#include "tools/serving.h"
#include "tools/sizing.h"
#include "tools/sockets.h"
#include "tools/stapling.h"
#include "tools/worker.h"

struct ag_server;
struct ag_server_fixed; /* reload.c's */

/* One shard's part; lives as long as the server. */
struct ag_server_shard {
    struct ag_server *server;
    struct ag_shard *shard;
    struct ag_serving serving;
    struct ag_msg drain_msg, abort_msg, yield_msg, ping_msg;
    bool ended; /* under server->ending: posts no more, and takes no more posts */
};

/* A snapshot that no shard uses any more, on its way to who frees it. */
struct ag_server_dead {
    struct ag_server_dead *next;
    struct ag_snapshot *snapshot;
};

struct ag_server {
    const struct ag_config_input *input;
    struct ag_worker *worker;     /* NULL: alone */
    struct ag_snapshot *snapshot; /* the current one */
    struct ag_sockets sockets;
    struct ag_lifecycle life;    /* a worker's is its master's */
    struct ag_material material; /* a worker's: the ring of ticket keys alone */
    struct ag_stapling stapling;
    struct ag_shards *shards;
    struct ag_server_shard *each; /* one a shard */
    struct ag_sizing sizing;
    struct ag_helpers *helpers;
    struct ag_action_commons commons;
    struct ag_board board;
    int signal_fd;
    int wake_fd;    /* eventfd: a shard has news */
    unsigned stops; /* to drain, then at once */
    bool yielded;   /* to another process: the shards come to their end by themselves */
    /* orders.c */
    struct ag_load staged; /* loaded and its sockets planned; without a snapshot: none */
    uint32_t generation;   /* of it */
    bool untold;           /* of what is published: that every shard has applied it */
    bool serves;           /* the master knows */

    struct ag_server_fixed *began; /* with what is set up once */
    /* Keys that the current snapshot has otherwise and only a restart takes up, in its arena; empty: none. */
    struct ag_span fixed;

    bool pinging;              /* and not all shards have answered */
    bool reload_asked;         /* while another change was under way */
    pthread_mutex_t ending;    /* guards `ended` against posts of the control thread */
    _Atomic uint32_t running;  /* shards that have not ended */
    _Atomic uint32_t changing; /* shards that have not yet applied the change under way */
    _Atomic uint32_t unheard;  /* shards that have not yet answered the ping under way */
    _Atomic(struct ag_server_dead *) dead;
    _Atomic bool cut;
};

/* Whether the shards come to their end. The snapshot goes with the last one: it is the control thread's no more. */
static inline bool ag_server_ends(const struct ag_server *s)
{
    return s->stops > 0 || s->yielded;
}

/* Any thread: the control thread looks around. */
void ag_server_wake(struct ag_server *s);
/* Posts to a shard, unless it has ended: then false, and nothing happens. */
bool ag_server_post(struct ag_server *s, uint32_t shard, struct ag_msg *m);

/* To all shards: drain, or end at once. */
void ag_server_stop_shards(struct ag_server *s, bool at_once);
/* To all shards: another process serves on (ag_serving_yield). */
void ag_server_yield_shards(struct ag_server *s);
/* Has all shards answer: then the lifecycle is told. One at a time. */
void ag_server_ping_shards(struct ag_server *s);

/* ---- reload.c ---- */

/* Binds what the first snapshot listens on. False after an error was printed. */
bool ag_server_bind(struct ag_server *s);
/* Hands the current snapshot and the planned sockets to the shards. */
void ag_server_publish(struct ag_server *s);
/* Loads again and publishes. On a mistake all stays as it is and the log says why. */
void ag_server_reload(struct ag_server *s);
/* Loads what the TLS library makes of a configuration, on the control thread. Without a snapshot afterwards it
 * refuses, and the diagnoses tell. */
void ag_server_open_tls(struct ag_server *s, struct ag_load *load);
/* Publishes what was loaded, its sockets planned, in the place of the current snapshot. Takes it over. */
void ag_server_switch(struct ag_server *s, struct ag_load *load);

/* Copies of what a model says of what is set up once a process. */
struct ag_server_fixed *ag_server_fixed_new(const struct ag_model *m);
void ag_server_fixed_free(struct ag_server_fixed *f);
/* Logs that every shard serves what it was switched to. */
void ag_server_tell_reloaded(const struct ag_server *s);
/* On a shard's thread: it uses the snapshot no more. The last one sends it to ag_server_reclaim. */
void ag_server_let_go(struct ag_serving *serving, struct ag_snapshot *snapshot);
/* Frees what the shards have let go. */
void ag_server_reclaim(struct ag_server *s);

/* ---- orders.c ---- */

/* The master's channel can be read. */
void ag_server_obey(struct ag_server *s);
/* Tells the master once every shard has applied what was published. */
void ag_server_report(struct ag_server *s);
/* Gives up what is staged. */
void ag_server_unstage(struct ag_server *s);
