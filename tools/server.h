/*
 * server: wires the layers into a running process: sockets, shards, and the control thread.
 *
 *   main thread = control (server.c): signals, what the shards tell, reload (reload.c)
 *   shard threads: a loop each, and on it one shard's serving state (serving.h)
 *
 *   shards up --> privileges given up (worker.h) or filtered (seccomp.h) --> the first snapshot is served
 *   SIGHUP   --load, bind--> change for each shard --post--> ag_serving_apply --> old snapshot freed
 *   SIGTERM  --post--> each shard drains, ends when no connection is left
 */
#pragma once
#include "router/snapshot.h"

struct ag_worker;

/* Runs until stopped by a signal; returns the exit status. Takes over `snapshot`, which was loaded from
 * `input`; a reload loads from it again. With `worker` (else NULL) a master takes the place of signals
 * and files: what it sent lies opened in worker->bundle, and what it sends later is obeyed. */
int ag_server_run(const struct ag_config_input *input, struct ag_snapshot *snapshot,
                  struct ag_worker *worker);
