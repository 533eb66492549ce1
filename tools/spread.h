/*
 * spread: a new connection that came to a shard with more than its share goes on to one with less, before a byte is
 * read. The kernel chooses listeners of one address by a hash, which is even for many connections alone; one in use
 * never moves.
 *
 *   passed --> [other shard] taken --> home
 *                            not taken (it drains, is full, has no such listener) --> home, with the descriptor
 *
 * One a shard, on its thread; the way there and back is the loops' messages. A connection on its way keeps its
 * shard from ending.
 */
#pragma once
#include "tools/board.h"

#define AG_SPREAD_PASSES 64u /* on their way at once; beyond that a shard serves what it gets */

struct ag_spread;

struct ag_spread_pass {
    struct ag_msg msg;
    struct ag_spread *from, *to;
    struct ag_spread_pass *next; /* of those that are free */
    void *origin;                /* the sender's listener */
    uint32_t socket_id;
    int fd;         /* -1: taken; the receiver's until it is home */
    uint32_t shard; /* where it went; the sender's, as is `out` */
    bool out;
};

struct ag_spread {
    uint32_t index;
    const struct ag_board *board; /* NULL: alone */
    /* Carries a message to a shard's loop; false when that has ended. NULL: alone. */
    bool (*post)(void *owner, uint32_t shard, struct ag_msg *);
    void *owner; /* post's */
    /* Serves `fd`, accepted by a listener of `socket_id` elsewhere; false when that is not possible. */
    bool (*take)(struct ag_spread *, uint32_t socket_id, int fd);
    /* One that was passed on is done with: `fd` is -1, or comes back. */
    void (*home)(struct ag_spread *, void *origin, int fd);
    struct ag_spread_pass *free;
    uint32_t out; /* on their way */
    struct ag_spread_pass passes[AG_SPREAD_PASSES];
};

/* All but the passes is set before. */
void ag_spread_open(struct ag_spread *s);

/* Passes `fd` on when another shard has clearly fewer connections than this one's `own`. Returns whether it has gone;
 * then `origin` must live until `home`. */
bool ag_spread_pass(struct ag_spread *s, uint32_t own, uint32_t socket_id, void *origin, int fd);
