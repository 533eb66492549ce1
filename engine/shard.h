/*
 * shard: a thread pinned to a core with a loop of its own. It shares nothing mutable but inboxes.
 *
 *   main thread                      shard threads
 *   ag_shards_start --------------->  loop_init, start(shard)
 *   ready() once all are up ------->  loop_run ... stop(shard), loop_deinit
 *   ag_loop_post(&shard->loop, m) -->  m->run
 */
#pragma once
#include "engine/loop.h"

#include <pthread.h>

struct ag_shard {
    struct ag_loop loop;
    uint32_t index; /* 0 .. count - 1 */
    int core;       /* pinned to, or -1 */
    void *app;      /* what `start` made */
    pthread_t thread;
    /* private */
    struct ag_shards *all;
    enum ag_status status;
    const char *why;
};

struct ag_shards_config {
    uint32_t count;
    struct ag_loop_config loop;
    /* On the shard's thread before and after its loop runs. A failed start stops all. */
    enum ag_status (*start)(struct ag_shard *, void *arg, const char **out_why);
    void (*stop)(struct ag_shard *, void *arg);
    /* On the thread that starts them, when all have started and before a loop turns: nothing has come
     * from outside yet. May be NULL. A failure stops all. */
    enum ag_status (*ready)(void *arg, const char **out_why);
    void *arg;
};

struct ag_shards;

/* Starts all and waits until each is up. NULL with *out_why when one could not; the others are ended
 * again. Shards are pinned to the cores this process may use when there are at least as many. */
AG_MUST_USE struct ag_shards *ag_shards_start(const struct ag_shards_config *config,
                                              const char **out_why);
uint32_t ag_shards_count(const struct ag_shards *s);
struct ag_shard *ag_shards_at(struct ag_shards *s, uint32_t index);
/* Waits until every loop has ended (ag_loop_stop by its own shard), then frees. From the call on no
 * thread but the shards may post to them. */
void ag_shards_join(struct ag_shards *s);
/* Cores in this process's affinity mask. */
uint32_t ag_cores_available(void);
