/*
 * poison: tells AddressSanitizer which bytes of our own pools and arenas are free, so that a use after
 * put is caught like a use after free. Nothing in other builds.
 */
#pragma once
#include "engine/base.h"

#if defined(__has_feature)
#    if __has_feature(address_sanitizer)
#        define AG_ASAN 1
#    endif
#endif
#if !defined(AG_ASAN) && defined(__SANITIZE_ADDRESS__)
#    define AG_ASAN 1
#endif

#if defined(AG_ASAN)
#    include <sanitizer/asan_interface.h>

static inline void ag_poison(void *ptr, size_t size_bytes)
{
    __asan_poison_memory_region(ptr, size_bytes);
}

static inline void ag_unpoison(void *ptr, size_t size_bytes)
{
    __asan_unpoison_memory_region(ptr, size_bytes);
}

static inline bool ag_poisoned(const void *ptr)
{
    return __asan_address_is_poisoned(ptr) != 0;
}
#else
static inline void ag_poison(void *ptr, size_t size_bytes)
{
    (void)ptr;
    (void)size_bytes;
}

static inline void ag_unpoison(void *ptr, size_t size_bytes)
{
    (void)ptr;
    (void)size_bytes;
}

static inline bool ag_poisoned(const void *ptr)
{
    (void)ptr;
    return false;
}
#endif

/*
 * A slab of `count` objects, of which those before `untouched` were handed out at some time: of the others the first
 * one alone is poisoned. All of them would touch an eighth of the slab at each start.
 */
static inline void ag_poison_next(uint8_t *base, size_t stride, uint32_t untouched, uint32_t count)
{
    if (untouched < count) {
        ag_poison(base + stride * untouched, stride);
    }
}

/* What may be poisoned of such a slab, before its memory goes. */
static inline void ag_unpoison_slab(uint8_t *base, size_t stride, uint32_t untouched,
                                    uint32_t count)
{
    ag_unpoison(base, stride * (untouched < count ? untouched + 1 : count));
}
