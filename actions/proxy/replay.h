/*
 * replay: the content of a request on its way to an upstream, kept so that it can be sent again, and that of
 * an answer on its way from one body into another.
 *
 *   from ----take----> pump ----write----> to          a call, or the server, is the consumer of `to`
 *                       |
 *                       `--hold--> kept                 as far as it was told to keep
 *
 * Nothing is copied but what would pin far more memory than it has bytes: that goes into small buffers, once,
 * for both ways. So what is kept pins at most twice its bytes and one small buffer. What grows beyond the bound
 * is given up, and so is all of it when the shard's buffers run short (ag_loop.tight): what comes passes
 * through, and can no longer be sent again.
 *
 * It pulls only while it is open: between two calls the content waits in `from`, and so its sender.
 */
#pragma once
#include "proto/body.h"

struct ag_replay;
/* From a task, once: the content has ended, or was aborted, and all of it was passed on. */
typedef void ag_replay_fn(struct ag_replay *, void *owner);

struct ag_replay {
    struct ag_loop *loop;
    struct ag_body *from, *to;
    struct ag_chain kept;   /* from the first byte on */
    struct ag_block *small; /* of `kept`: a buffer that what is copied goes into; NULL: none */
    struct ag_task tell;    /* calls `ended` */
    uint32_t small_used;    /* bytes */
    uint32_t limit_bytes;   /* of `kept` */
    bool keeping;           /* `kept` has all that was taken so far */
    bool open;              /* `to` has a consumer */
    bool over;              /* the end or abort was passed on, or would have been */
    ag_replay_fn *ended;    /* the owner's; NULL: nobody asks */
    void *owner;
};

/* From `from`, whose consumer it becomes when it is opened, to `to`, which it is the producer of. Nothing was
 * taken out of `from` before. `limit_bytes` 0: nothing is kept. */
void ag_replay_init(struct ag_replay *r, struct ag_body *from, struct ag_body *to,
                    uint32_t limit_bytes);
/* Begins to pass content to `to`, which is new: what is kept first. May be opened again, after a close, while it
 * is whole. */
void ag_replay_open(struct ag_replay *r);
/* Nothing more is taken out of `from`, for the call that takes from `to` is over, or nobody wants it any more:
 * what came meanwhile might go beyond the bound, and would be lost. */
void ag_replay_stop(struct ag_replay *r);
/* The same, and `to`, which nobody takes from any more, is as new. */
void ag_replay_close(struct ag_replay *r);
/* Whether all content that has been taken can be sent again, and the rest is still to come. */
bool ag_replay_is_whole(const struct ag_replay *r);
/* All of the content is here, and kept. */
bool ag_replay_is_complete(const struct ag_replay *r);
/* Lets go of what is kept; what comes passes through. */
void ag_replay_forget(struct ag_replay *r);
/* Lets go of all, and of both bodies as they are. */
void ag_replay_deinit(struct ag_replay *r);
