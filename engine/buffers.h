/*
 * buffers: a loop's receive and send buffers: two groups of equal blocks (DESIGN.md section 3).
 *
 *   block    free (LIFO, the warmest first) --take--> used --last release--> free or ring
 *   ring     with io_uring, up to AG_BUF_RING_* blocks lie in a ring from which the kernel takes
 *            them for receives; what it takes is replaced at once from the free list
 *   starved  receives that found no block wait here, in order, for one to come back
 *   writers  tasks that need a block to write into, and wait the same way
 *
 *   mapping:  [ block 0 | 64 ][ block 1 | 64 ] ...   the gap spreads first lines over cache sets
 *
 * tight: so many are in use that nobody may hoard any more (ag_loop.tight): receives take one block at a
 * time, small ones, and queues that hold some take no more. So the rest goes round: everyone who comes
 * late still gets the block or two that it takes to be served.
 *
 * A part of each group (AG_BUF_RESERVE) is kept from receives, so that answers can still be written
 * when input has taken the rest. Under ASan a block that nobody holds is poisoned
 * once it, or the one before it, has been used.
 */
#pragma once
#include "engine/loop.h"

/* Blocks that lie in the kernel's ring at most; powers of two. And one of so many at most: the kernel may
 * hand out all of them in the turn in which it becomes tight. */
#define AG_BUF_RING_SMALL 256u
#define AG_BUF_RING_LARGE 64u
#define AG_BUF_RING_PART  4u
/* One of so many blocks is kept from receives. */
#define AG_BUF_RESERVE 8u
/* Tight when more than one of so many are in use. Of small ones there are some for every connection, of
 * large ones there are few. */
#define AG_BUF_TIGHT_SMALL 4u
#define AG_BUF_TIGHT_LARGE 2u
/* Blocks that one receive fills at most. */
#define AG_RECV_BLOCKS 4u
/* Buffer ids of a kernel ring are 16 bits wide. */
#define AG_BUF_COUNT_MAX 65536u

struct ag_buf_pool;

struct ag_buf_slot {
    struct ag_block block; /* first; data points to its bytes */
    struct ag_buf_pool *pool;
};

struct ag_buf_pool {
    struct ag_bufs *bufs;
    uint8_t *base;
    size_t stride;             /* bytes from one block to the next */
    uint32_t size;             /* bytes of a block */
    uint32_t count;            /* blocks in all: free_count + ring_count + used */
    uint32_t used;             /* handed out */
    uint32_t free_count;       /* in `free`, or never touched */
    uint32_t untouched;        /* blocks from here on were never used */
    uint32_t reserve;          /* free blocks that receives leave alone */
    uint32_t tight_from;       /* blocks in use from which on it is tight */
    uint32_t ring_max;         /* 0: no ring */
    uint32_t ring_count;       /* in the ring now */
    uint16_t group;            /* enum ag_buf_group */
    uint32_t *free;            /* stack of block numbers */
    struct ag_buf_slot *slots; /* count of them */
    struct ag_link starved;    /* struct ag_op, AG_OP_STARVED */
};

/* Puts block `id` into the kernel's ring of `pool`. */
typedef void ag_buf_publish_fn(struct ag_loop *, struct ag_buf_pool *, uint32_t id);

struct ag_bufs {
    struct ag_loop *loop;
    ag_buf_publish_fn *publish; /* NULL: no ring */
    struct ag_task feed;        /* wakes starved receives and writers */
    struct ag_link writers;     /* struct ag_task */
    struct ag_buf_pool pools[AG_BUF_GROUPS];
};

/* Maps `count` blocks per group. NULL: no memory. */
AG_MUST_USE struct ag_bufs *ag_bufs_new(struct ag_loop *l, const uint32_t count[AG_BUF_GROUPS]);
/* What it maps and allocates for that. */
uint64_t ag_bufs_bytes(const uint32_t count[AG_BUF_GROUPS]);
/* Every block must be back. */
void ag_bufs_free(struct ag_bufs *b);

/* Entries the kernel's ring of `group` needs: a power of two. */
uint32_t ag_bufs_ring_size(const struct ag_bufs *b, enum ag_buf_group group);
/* Fills the rings, now and later through `fn`. */
void ag_bufs_start_rings(struct ag_bufs *b, ag_buf_publish_fn *fn);
/* The kernel took block `id` out of the ring: its holder now is the caller (refs 1). */
AG_MUST_USE struct ag_block *ag_bufs_from_ring(struct ag_bufs *b, enum ag_buf_group group,
                                               uint32_t id);
/* A block to receive into without a ring, while it is tight a small one if there is one; NULL: wait by
 * ag_bufs_starve. */
AG_MUST_USE struct ag_block *ag_bufs_for_recv(struct ag_bufs *b, enum ag_buf_group group);
/* Large blocks for one receive of much, as many of AG_RECV_BLOCKS as may be had; 0 while it is tight. */
AG_MUST_USE uint32_t ag_bufs_for_bulk(struct ag_bufs *b,
                                      struct ag_block *out[static AG_RECV_BLOCKS]);
/* Those of them that were not used: the last is the first to be taken again. */
void ag_bufs_give_back(struct ag_block *const blocks[], uint32_t count);
/* Queues `op` until a block may be had; then it becomes AG_OP_READY. One that wanted a large block is
 * content with a small one. */
void ag_bufs_starve(struct ag_bufs *b, struct ag_op *op);

static inline uint8_t *ag_buf_data(const struct ag_buf_pool *p, uint32_t id)
{
    return p->base + (size_t)id * p->stride;
}
