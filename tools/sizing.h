/*
 * sizing: how much of everything a server takes, decided once before it starts (DESIGN.md section 6).
 *
 *   model, RLIMIT_NOFILE, cores  --compute-->  shards, connections, pools of each loop, ceiling
 */
#pragma once
#include "engine/loop.h"
#include "router/snapshot.h"

struct ag_sizing {
    uint32_t shards;
    uint32_t connections; /* of clients, of each shard; accept pauses there */
    struct ag_loop_config
        loop;               /* pool sizes, none of them 0; backend and helpers are the caller's */
    uint64_t ceiling_bytes; /* of one shard: what its pools come to when all are in use */
    uint64_t nofile;        /* RLIMIT_NOFILE as it is now */
    uint64_t connections_asked;  /* server.max_connections; 0: as many as descriptors allow */
    uint64_t connections_by_fds; /* what nofile allows the whole process */
};

/* Raises the soft RLIMIT_NOFILE to the hard one, then sizes. */
void ag_sizing_compute(const struct ag_snapshot *snapshot, struct ag_sizing *out);
/* Says in the log what was decided, and what had to be lowered. */
void ag_sizing_log(const struct ag_sizing *s);
