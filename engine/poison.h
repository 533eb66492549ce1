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
