/*
 * guarded: bytes that end right before an unmapped page, so that a read past the input's end stops
 * the test. Two places take turns, so that input also moves from one call to the next; the place
 * left behind is overwritten.
 */
#pragma once
#include "engine/span.h"

#include <criterion/criterion.h>
#include <sys/mman.h>
#include <unistd.h>

#define GUARDED_BYTES ((size_t)64 * 1024)

struct guarded {
    uint8_t *base[2];
    unsigned turn;
};

static inline void guarded_open(struct guarded *g)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);

    for (unsigned i = 0; i < 2; i++) {
        void *at = mmap(NULL, GUARDED_BYTES + page, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        cr_assert_neq(at, MAP_FAILED);
        g->base[i] = at;
        cr_assert_eq(mprotect(g->base[i] + GUARDED_BYTES, page, PROT_NONE), 0);
    }
    g->turn = 0;
}

static inline void guarded_close(struct guarded *g)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);

    for (unsigned i = 0; i < 2; i++) {
        cr_assert_eq(munmap(g->base[i], GUARDED_BYTES + page), 0);
    }
}

/* A copy of `s` that ends at the unmapped page, at another address than the one before. */
static inline struct ag_span guarded_copy(struct guarded *g, struct ag_span s)
{
    uint8_t *end, *old_end = g->base[g->turn] + GUARDED_BYTES;

    cr_assert_leq(s.len, GUARDED_BYTES);
    g->turn ^= 1;
    end = g->base[g->turn] + GUARDED_BYTES;
    if (s.len) {
        memcpy(end - s.len, s.ptr, s.len);
    }
    memset(old_end - s.len, 0xee, s.len);
    return ag_span(end - s.len, s.len);
}
