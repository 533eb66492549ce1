/*
 * arena: memory that is given back all at once.
 *
 *   pages from a pool (an exchange: bounded, never malloc)   or   from malloc (config: unbounded)
 *
 *   page:  [ next | ........ used ........ at | ... free ... end ]
 *
 * What is larger than a pooled page comes from large receive buffers, where the owner allows it.
 *
 * Nothing long-lived may point into an exchange's arena.
 */
#pragma once
#include "engine/pool.h"
#include "engine/span.h"

/* Bytes of a pooled page, its link included; the largest pooled allocation is a little less. */
#define AG_ARENA_PAGE_BYTES 4096u
#define AG_ARENA_ALLOC_MAX  (AG_ARENA_PAGE_BYTES - 16u)
/* From one page of a pool to the next. Exchanges begin with theirs: a multiple of 4 KB would put all of them
 * into the same few sets of the processor's caches. */
#define AG_ARENA_STRIDE_BYTES (AG_ARENA_PAGE_BYTES + AG_CACHE_LINE)

/* Large buffers that a pooled arena may take: one for a head, one for what is made of it. */
#define AG_ARENA_WIDE 2u

struct ag_block;
struct ag_loop;

struct ag_arena {
    struct ag_pool *pages; /* NULL: malloc */
    void *first;           /* the pages, newest first */
    uint8_t *at, *end;     /* free bytes of the newest page */
    uint32_t page_count;
    uint32_t page_max;                    /* pages this arena may take (pooled only) */
    struct ag_loop *loop;                 /* whose large buffers it may take; NULL: none */
    struct ag_block *wide[AG_ARENA_WIDE]; /* large buffers; those that are not taken: NULL */
    uint32_t wide_used;                   /* bytes of the newest of them */
};

/* An arena over `pages` (objects of AG_ARENA_PAGE_BYTES), taking at most `page_max` of them.
 * With `pages` NULL it allocates by malloc, without a bound, and panics when memory is out. */
void ag_arena_init(struct ag_arena *a, struct ag_pool *pages, uint32_t page_max);
/* Lets a pooled arena take up to AG_ARENA_WIDE large buffers of `l` for what is above
 * AG_ARENA_ALLOC_MAX, unless they run short (ag_loop.tight). */
void ag_arena_widen(struct ag_arena *a, struct ag_loop *l);
void ag_arena_release(struct ag_arena *a);

/* An object of `size_bytes`, at most AG_ARENA_ALLOC_MAX, not zeroed, at the start of an arena over the pages of `l`,
 * widened, that is the object's own member at `offset`. NULL: the pool is empty. */
AG_MUST_USE void *ag_arena_begin(struct ag_loop *l, uint32_t page_max, size_t size_bytes,
                                 size_t offset);
/* Gives back an arena that was begun so, and its object with it. */
void ag_arena_end(struct ag_arena *a);

/* `size_bytes` of undefined memory aligned to 8. NULL when a pooled arena is at its bound, its pool
 * is empty, or the size is above AG_ARENA_ALLOC_MAX and no large buffer has room for it; never NULL
 * from a malloc arena. */
AG_MUST_USE void *ag_arena_alloc(struct ag_arena *a, size_t size_bytes);
/* `ptr` was allocated with `size_bytes`, and only its first `used_bytes` are wanted. The rest is free again
 * when nothing was allocated since. */
void ag_arena_trim(struct ag_arena *a, void *ptr, size_t size_bytes, size_t used_bytes);
/* The same, zeroed. */
AG_MUST_USE void *ag_arena_zalloc(struct ag_arena *a, size_t size_bytes);
/* A copy of `s`; its ptr is NULL when there was no room. */
AG_MUST_USE struct ag_span ag_arena_copy(struct ag_arena *a, struct ag_span s);
/* A NUL-terminated copy; NULL when there was no room. */
AG_MUST_USE char *ag_arena_strdup(struct ag_arena *a, struct ag_span s);
/* Formatted text, NUL-terminated; for malloc arenas (config, messages). */
AG_MUST_USE char *ag_arena_printf(struct ag_arena *a, const char *fmt, ...) AG_PRINTF(2, 3);
