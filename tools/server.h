/*
 * server: wires the layers into a running process: sockets, shards, and the control thread.
 *
 *   main thread = control (server.c): signals, what the shards tell, reload (reload.c)
 *   shard threads: a loop each, and on it one shard's serving state (serving.h)
 *
 *   SIGHUP   --load, bind--> change for each shard --post--> ag_serving_apply --> old snapshot freed
 *   SIGTERM  --post--> each shard drains, ends when no connection is left
 */
#pragma once
#include "router/snapshot.h"

/* Runs until stopped by a signal; returns the exit status. Takes over `snapshot`, which was loaded from
 * `input`; a reload loads from it again. */
int ag_server_run(const struct ag_config_input *input, struct ag_snapshot *snapshot);
