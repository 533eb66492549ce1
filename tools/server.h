/*
 * server: wires the layers into a running process: shards, listeners, connections, control thread.
 *
 *   main thread = control: signals        shard threads: loop, listeners, downstream connections
 *   SIGTERM --post drain--> each shard: close listeners, drain connections, end when none is left
 */
#pragma once
#include "router/snapshot.h"

/* Runs until stopped by a signal; returns the exit status. Takes over `snapshot`. */
int ag_server_run(struct ag_snapshot *snapshot);
