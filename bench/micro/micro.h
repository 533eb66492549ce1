/*
 * micro: what single operations of the parts cost, without kernel and network.
 *
 *   set_up --> [prepare --> run] batch by batch --> tear_down
 *
 * Only `run` is timed or counted. Both see one batch through micro_batch, which valgrind knows by its name.
 */
#pragma once
#include "engine/base.h"

struct micro {
    const char *name;
    uint32_t batch;                        /* operations of one run: some microseconds or more */
    uint32_t goal_ns;                      /* of one operation; 0: none is told */
    void (*set_up)(const struct micro *);  /* NULL: nothing is to be done; so are the next ones */
    void (*prepare)(const struct micro *); /* what each run uses up */
    void (*run)(const struct micro *);
    void (*tear_down)(const struct micro *);
    const void *of; /* what its file wants to know */
};

/* The operations of each file. */
struct micro_list {
    const struct micro *v;
    size_t count;
};
extern const struct micro_list micro_balance, micro_h1, micro_h2, micro_hpack, micro_timer,
    micro_trie;

/* The compiler no longer knows what `p` points at: nothing is worked out beforehand. */
#define MICRO_HIDE(p) __asm__ volatile("" : "+r"(p) : : "memory")

/* Random numbers below `n`, the same ones in each run of the program. */
uint32_t micro_below(uint32_t n);
