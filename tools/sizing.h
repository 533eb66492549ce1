/*
 * sizing: how much of everything a server takes, decided once before it starts (DESIGN.md section 6).
 *
 *   model, RLIMIT_NOFILE, memory, cores  --compute-->  shards, connections, pools of each loop, ceiling
 *
 * The ceiling is what a shard's memory comes to when all its pools are in use. Beside the shards the
 * process has its program, libraries, configuration and log: AG_SIZING_BASE_BYTES and the configuration.
 */
#pragma once
#include "engine/loop.h"
#include "router/snapshot.h"

#define AG_SIZING_BASE_BYTES (16u << 20)

/* What the ceiling is made of. */
enum ag_sizing_part {
    AG_SIZING_BUFFERS = 0, /* receive and send buffers */
    AG_SIZING_PAGES,       /* of exchanges */
    AG_SIZING_QUEUES,      /* slices and open files */
    AG_SIZING_CLIENTS,     /* their connections */
    AG_SIZING_ACTIONS,     /* upstreams, the static cache */
    AG_SIZING_LOOP,        /* stack, rings, names, accepted connections that wait */
    AG_SIZING_PARTS,
};

struct ag_sizing {
    uint32_t shards;
    uint32_t connections; /* of clients, of each shard; accept pauses there */
    struct ag_loop_config
        loop; /* pool sizes, none of them 0; backend and helpers are the caller's */
    uint64_t part_bytes[AG_SIZING_PARTS]; /* of one shard */
    uint64_t ceiling_bytes;               /* their sum */
    uint64_t nofile;                      /* RLIMIT_NOFILE as it is now */
    uint64_t memory_bytes;       /* that the machine, or the control group, has; 0: unknown */
    uint64_t connections_asked;  /* server.max_connections; 0: as many as descriptors allow */
    uint64_t connections_by_fds; /* what nofile allows the whole process, upstreams' among them */
    bool proxies;                /* there are upstreams */
    uint64_t fixed_bytes;        /* what server.memory itself makes of a shard's pools */
    bool by_memory;              /* pools are smaller than the connections ask for */
    bool excess;                 /* fixed_bytes are more than there is: nothing was made smaller */
};

/* Raises the soft RLIMIT_NOFILE to the hard one, then sizes. */
void ag_sizing_compute(const struct ag_snapshot *snapshot, struct ag_sizing *out);
/* For people: connections, and the ceiling with its parts. */
void ag_sizing_describe(const struct ag_sizing *s, struct ag_buf *out);
/* What server.memory asks for beyond what there is, with a hint; false: nothing. */
bool ag_sizing_excess(const struct ag_sizing *s, struct ag_buf *out);
/* Says in the log what was decided, and what had to be lowered. */
void ag_sizing_log(const struct ag_sizing *s);
