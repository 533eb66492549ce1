/*
 * master: a small process of one thread that keeps root's privileges, when `server.user` is set. It reads
 * files and binds sockets, nothing from the network; all else is its worker's (worker.h).
 *
 *   load (recording), bind --bundle--> worker: load (replaying), serve
 *
 *   STARTING --READY--> SERVING --SIGHUP: load, bind, bundle--> LOADING --REFUSED--> SERVING
 *                                    LOADING --LOADED: COMMIT--> APPLYING --APPLIED--> SERVING
 *                                    LOADING --no answer in time: CANCEL--> SERVING
 *                                    APPLYING --no answer in time--> no other reload until there is one
 *   any --SIGTERM: DRAIN; again: ABORT--> DRAINING --worker ends--> exit with its status
 *   SERVING --a successor serves (SIGUSR2): YIELD--> DRAINING
 *   any --worker ends by itself--> exit 1: the supervisor starts both again
 *
 * It keeps duplicates of the listening sockets, for a successor, and lets them go before the worker is
 * told to drain. A worker that says what does not belong here is killed. Service manager, pid file and
 * upgrade (lifecycle.h) are the master's.
 */
#pragma once
#include "router/snapshot.h"

/* A worker that was told to end and is still there so long after it should have gone is killed. */
#define AG_MASTER_PATIENCE_MS 10000u

/* Whether this process and this configuration make a master: root, and a user to become. */
bool ag_master_wanted(const struct ag_model *m);
/* Runs as the master, and in the forked worker as that; returns the exit status of either. Takes over
 * `snapshot`, which was loaded from `input` by its recording opener, and the opener. */
int ag_master_run(const struct ag_config_input *input, struct ag_snapshot *snapshot);
