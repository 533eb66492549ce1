#include "engine/pool.h"

#include "engine/fault.h"
#include "engine/poison.h"

#include <stdio.h>
#include <sys/mman.h>

/* What a free object holds: the link to the next one. */
struct free_object {
    struct free_object *next;
};

static size_t align_of(size_t size_bytes)
{
    return size_bytes >= AG_CACHE_LINE ? AG_CACHE_LINE : 16;
}

uint64_t ag_pool_bytes(size_t size_bytes, uint32_t count)
{
    size_t align = align_of(size_bytes);

    return (uint64_t)((size_bytes + align - 1) / align * align) * count;
}

enum ag_status ag_pool_init(struct ag_pool *p, const char *name, size_t size_bytes, uint32_t count)
{
    size_t align = align_of(size_bytes);
    size_t stride = 0, bytes = 0;

    AG_ASSERT(name && size_bytes > 0 && count > 0);
    if (__builtin_add_overflow(size_bytes, align - 1, &stride)) {
        return AG_ENOMEM;
    }
    stride -= stride % align;
    if (__builtin_mul_overflow(stride, (size_t)count, &bytes)) {
        return AG_ENOMEM;
    }
    void *base = AG_SYS("mmap.pool", mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (base == MAP_FAILED) {
        return AG_ENOMEM;
    }
    *p = (struct ag_pool){.name = name, .base = base, .count = count, .stride = stride};
    ag_poison_next(p->base, p->stride, p->untouched, p->count);
    return AG_OK;
}

void ag_pool_deinit(struct ag_pool *p)
{
    size_t bytes = p->stride * p->count;

    if (p->used) {
        char what[128];

        (void)snprintf(what, sizeof(what), "pool %s: %u of %u objects not given back", p->name,
                       p->used, p->count);
        ag_panic(__FILE__, __LINE__, what);
    }
    ag_unpoison_slab(p->base, p->stride, p->untouched, p->count);
    int rc = munmap(p->base, bytes);
    AG_ASSERT(rc == 0);
    *p = (struct ag_pool){.name = p->name};
}

static inline void *get(struct ag_pool *p)
{
    struct free_object *o = p->free;

    if (o) {
        ag_unpoison(o, p->stride);
        p->free = o->next;
    } else if (p->untouched < p->count) {
        o = (struct free_object *)(void *)(p->base + p->stride * p->untouched++);
        ag_unpoison(o, p->stride);
        ag_poison_next(p->base, p->stride, p->untouched, p->count);
    } else {
        return NULL;
    }
    p->used++;
    return o;
}

void *ag_pool_get(struct ag_pool *p)
{
    if (p->used > 0 && AG_FAULT("pool_get")) { /* an empty pool cannot be all given out */
        return NULL;
    }
    return get(p);
}

void *ag_pool_take(struct ag_pool *p)
{
    void *o = get(p);

    AG_ASSERT(o);
    return o;
}

void ag_pool_put(struct ag_pool *p, void *object)
{
    struct free_object *o = object;

    AG_ASSERT(p->used > 0);
    AG_ASSERT((size_t)((uint8_t *)object - p->base) < p->stride * p->untouched);
    AG_ASSERT(!ag_poisoned(object)); /* given back twice */
    o->next = p->free;
    p->free = o;
    p->used--;
    ag_poison(o, p->stride);
}
