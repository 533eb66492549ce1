/*
 * worker: the process that serves, when a master keeps the privileges (master.h). Forked by the master,
 * it is handed configurations as bundles, sets up its rings and threads while it still may, then gives
 * its privileges up, and only then accepts connections.
 *
 *   bundle --load--> snapshot --shards up--> drop --> READY, serve
 *   later bundle --load--> LOADED --COMMIT--> published (orders.c) --shards--> APPLIED
 *   YIELD, DRAIN, or the master's end: drain and end
 */
#pragma once
#include "tools/bundle.h"
#include "tools/load.h"
#include "tools/privilege.h"

struct ag_worker {
    int channel; /* to the master; -1: it is gone */
    const struct ag_user *user;
    const char *chroot; /* or NULL */
    enum ag_confine seccomp;
    bool landlock;
    int folder; /* where the first configuration buffers content; its own; -1: nowhere */
    struct ag_bundle bundle;
    uint32_t refused;          /* generation of the last bundle that could not be taken whole */
    struct ag_channel_msg msg; /* the last one */
};

/* What the master wants next. */
enum ag_worker_order {
    AG_ORDER_NONE, /* for now */
    AG_ORDER_LOAD, /* worker->bundle is whole */
    AG_ORDER_COMMIT,
    AG_ORDER_CANCEL,
    AG_ORDER_YIELD,
    AG_ORDER_DRAIN,
    AG_ORDER_ABORT,
    AG_ORDER_PING,
    AG_ORDER_TICKETS, /* worker->msg has the keys */
    AG_ORDER_GONE,    /* there is no master any more; told once */
};

/* Runs as the worker until it ends: the exit status. `channel`, user, chroot and seccomp are set; what
 * they point to must stay. `input` is what the master loads, but for its opener. */
int ag_worker_run(struct ag_worker *w, const struct ag_config_input *input);

/* ---- for the control thread (server.c, orders.c) ---- */

/* Reads one message. */
enum ag_worker_order ag_worker_read(struct ag_worker *w);
/* Loads the whole bundle; its sockets wait in it for ag_bundle_adopt. Without a snapshot in *out the
 * bundle is closed, and the reason is in the diagnoses or appended to `why`. */
void ag_worker_load(struct ag_worker *w, const struct ag_config_input *input, struct ag_load *out,
                    struct ag_buf *why);
/* When all threads have started: gives all privileges up, and says so in the log. AG_ESYS with the
 * reason in *out_why. */
AG_MUST_USE enum ag_status ag_worker_drop(struct ag_worker *w, const char **out_why);
/* Tells the master; `text` may be empty. That it is gone is noticed by reading. */
void ag_worker_tell(struct ag_worker *w, enum ag_channel_type type, uint32_t generation,
                    struct ag_span text);
