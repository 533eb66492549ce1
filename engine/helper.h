/*
 * helper: a small pool of threads for what may block: files not in the page cache, password hashes.
 * Shared by all shards of the process; the queue is bounded.
 */
#pragma once
#include "engine/loop.h"

struct ag_helpers;
struct ag_job;

/* Embedded in its owner, which must not free it between submit and done; the loop must live as long. */
struct ag_job {
    struct ag_msg msg;             /* the way back; private */
    struct ag_link link;           /* private */
    struct ag_loop *loop;          /* where done runs; set by submit */
    void (*run)(struct ag_job *);  /* on a helper thread */
    void (*done)(struct ag_job *); /* on the submitting loop's thread */
};

/* `threads` >= 1; `queue_max` jobs may wait. NULL when the system gives no thread. */
AG_MUST_USE struct ag_helpers *ag_helpers_new(uint32_t threads, uint32_t queue_max);
/* Waits for running jobs; queued ones are run too. */
void ag_helpers_free(struct ag_helpers *h);
/* AG_ELIMIT when the queue is full; then nothing is called. */
AG_MUST_USE enum ag_status ag_helpers_submit(struct ag_helpers *h, struct ag_loop *l,
                                             struct ag_job *j);
/* Waits until no job is queued and no thread touches a loop any more, for a posted job may arrive, and
 * end its loop, before the posting call returns. Called before a loop that had jobs is torn down
 * (shard.c does it) unless the helpers have been freed before. */
void ag_helpers_settle(struct ag_helpers *h);
