/*
 * bulk: receives of much, the same for every backend that makes them by itself.
 *
 *   a receive fills a large block --> bulk: the next ones get AG_RECV_BLOCKS by one call
 *        ^                                 |
 *        '--- one would have done, eight times in a row
 *
 * What nobody here has to see (ag_stream_unseen) is left in a pipe, if there is one.
 *
 * A megabyte in pieces of 272k costs half of what it costs in pieces of 68k: fewer calls, fewer updates of the
 * window, fewer packets with a small rest.
 */
#pragma once
#include "engine/backend.h"

/* Of what need not be seen, less is worth no pipe: the unit of ag_fd.unseen. */
#define AG_BULK_UNSEEN_BYTES 65536u

struct ag_bulk {
    struct ag_block *blocks[AG_RECV_BLOCKS];
    uint32_t count; /* of them; 0: none is to be had, nothing was received */
    size_t size; /* bytes of all; of a pipe: that came, for it tells not whether there were more */
};

/* Whether the socket of this receive gives much at a time. */
static inline bool ag_bulk_is_due(const struct ag_op *op)
{
    return op->arg == AG_BUF_LARGE && op->fd->bulk_run > 0;
}

/* What a receive into large blocks brought says about the next one. */
void ag_bulk_weigh(struct ag_op *op, size_t got);
/* Receives without waiting: bytes, 0 at the end of input, or -errno. The blocks are the caller's, to be delivered,
 * when the result is > 0. */
int32_t ag_bulk_recv(struct ag_loop *l, struct ag_op *op, struct ag_bulk *out);
/* Delivers `got` (> 0) bytes in pieces, gives back what holds none, and passes them on. */
void ag_bulk_deliver(struct ag_loop *l, struct ag_op *op, const struct ag_bulk *b, size_t got);
