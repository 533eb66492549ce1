/*
 * slice: bytes that travel from receive to send without a copy, and chains of them.
 *
 *   block   owns memory or a file; counted by its shard alone (no atomics)
 *   slice   a range of a block, holding one reference (owner NULL: static memory, never freed)
 *   chain   a queue of slices, in nodes from the shard's pool
 *
 *   block  [ ........ slice ........ | .. slice .. ]      refs = 2
 */
#pragma once
#include "engine/pool.h"
#include "engine/span.h"

struct ag_block;
typedef void ag_block_free_fn(struct ag_block *);

/* Embedded in whatever owns the bytes: a receive buffer, a cached file, a snapshot's handle. */
struct ag_block {
    uint32_t refs;
    uint32_t size;          /* bytes of memory it pins, for accounting; of a pipe: that are in it */
    ag_block_free_fn *free; /* called when refs falls to 0 */
    uint8_t *data;          /* its memory; NULL when it is a file */
    int fd;                 /* an open file, or -1 when it is memory */
    bool pipe;              /* the file is a pipe: read once, in order (pipes.h) */
};

struct ag_slice {
    union {
        const uint8_t *ptr; /* memory */
        uint64_t offset;    /* file */
    };
    size_t len;
    struct ag_block *owner;
};

static inline bool ag_slice_is_file(const struct ag_slice *s)
{
    return s->owner && s->owner->fd >= 0;
}

static inline bool ag_slice_is_pipe(const struct ag_slice *s)
{
    return s->owner && s->owner->pipe;
}

static inline struct ag_block *ag_block_hold(struct ag_block *b)
{
    if (b) {
        AG_ASSERT(b->refs > 0 && b->refs < UINT32_MAX);
        b->refs++;
    }
    return b;
}

/* NULL is allowed. */
static inline void ag_block_release(struct ag_block *b)
{
    if (b) {
        AG_ASSERT(b->refs > 0);
        if (--b->refs == 0) {
            b->free(b);
        }
    }
}

/* A slice of static bytes. */
static inline struct ag_slice ag_slice_static(struct ag_span s)
{
    return (struct ag_slice){{.ptr = s.ptr}, s.len, NULL};
}

/* A new slice of [from, from + len) of `s`, with a reference of its own. */
static inline struct ag_slice ag_slice_sub(const struct ag_slice *s, size_t from, size_t len)
{
    AG_ASSERT(from <= s->len && len <= s->len - from);
    return (struct ag_slice){{.offset = s->offset + from}, len, ag_block_hold(s->owner)};
}

/* Drops the first `n` bytes of `s` in place. */
static inline void ag_slice_advance(struct ag_slice *s, size_t n)
{
    AG_ASSERT(n <= s->len);
    s->offset += n;
    s->len -= n;
}

static inline struct ag_span ag_slice_span(const struct ag_slice *s)
{
    AG_ASSERT(!ag_slice_is_file(s));
    return (struct ag_span){s->ptr, s->len};
}

static inline void ag_slice_release(struct ag_slice *s)
{
    ag_block_release(s->owner);
    s->owner = NULL;
    s->len = 0;
}

_Static_assert(sizeof(const uint8_t *) == sizeof(uint64_t), "ptr and offset advance alike");

struct ag_slice_node {
    struct ag_slice slice;
    struct ag_slice_node *next;
};

/* All zero is empty. Nodes come from, and must go back to, one pool. */
struct ag_chain {
    struct ag_slice_node *head, *tail;
    uint64_t bytes;
    uint32_t count; /* slices */
};

/* Appends `s`, whose reference the chain takes, also on failure (it is released then).
 * AG_ENOMEM when the node pool is empty. Empty slices are released and not queued. */
AG_MUST_USE enum ag_status ag_chain_push(struct ag_chain *c, struct ag_pool *nodes,
                                         struct ag_slice s);
/* Drops the first `n` bytes; they must be there. */
void ag_chain_consume(struct ag_chain *c, struct ag_pool *nodes, uint64_t n);
/* Takes the first slice out, with its reference. The chain must not be empty. */
struct ag_slice ag_chain_pop(struct ag_chain *c, struct ag_pool *nodes);
/* Moves all of `from` to the end of `to`. */
void ag_chain_splice(struct ag_chain *to, struct ag_chain *from);
void ag_chain_clear(struct ag_chain *c, struct ag_pool *nodes);
