/*
 * pool: a slab of equal objects, sized once. Get and put are O(1), LIFO (the hottest object comes
 * first) and never allocate; an empty pool is a value (NULL), not a crash. One shard's only.
 *
 * The memory is mapped at init and touched on first use, so an unused slot costs no RSS. Under ASan
 * a free object is poisoned once it, or the one before it, has been handed out.
 */
#pragma once
#include "engine/base.h"

struct ag_pool {
    const char *name;   /* for metrics and panics, static */
    uint8_t *base;      /* count * stride bytes, mapped */
    void *free;         /* singly linked through the objects */
    uint32_t count;     /* objects in all */
    uint32_t untouched; /* objects from here on were never handed out */
    uint32_t used;      /* objects handed out now */
    size_t stride;      /* bytes from one object to the next */
};

/* Maps room for `count` objects of `size_bytes`, aligned to 16 (64 from 64 bytes up). AG_ENOMEM. */
AG_MUST_USE enum ag_status ag_pool_init(struct ag_pool *p, const char *name, size_t size_bytes,
                                        uint32_t count);
/* What such a pool maps. */
uint64_t ag_pool_bytes(size_t size_bytes, uint32_t count);
/* Every object must be back: a leak is a program error. */
void ag_pool_deinit(struct ag_pool *p);

/* An object of undefined content, or NULL when the pool is empty. */
AG_MUST_USE void *ag_pool_get(struct ag_pool *p);
/* The same of a pool that has one for everybody who may ask: never NULL, and no fault to be injected. */
AG_MUST_USE void *ag_pool_take(struct ag_pool *p);
void ag_pool_put(struct ag_pool *p, void *object);
