/* balance_parts: what the files of balance share, and nobody else includes. */
#pragma once
#include "actions/upstream/balance.h"

/* splitmix64 (Steele, Lea, Flood 2014). */
static inline uint64_t ag_balance_mix(uint64_t x)
{
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static inline uint64_t ag_balance_random(struct ag_balance *b)
{
    b->random += UINT64_C(0x9e3779b97f4a7c15);
    return ag_balance_mix(b->random);
}

/* `a` without what is not in `b`. */
static inline struct ag_balance_set ag_balance_set_and(const struct ag_balance_set *a,
                                                       const struct ag_balance_set *b)
{
    struct ag_balance_set both;

    for (unsigned i = 0; i < AG_COUNT(both.w); i++) {
        both.w[i] = a->w[i] & b->w[i];
    }
    return both;
}

static inline bool ag_balance_set_same(const struct ag_balance_set *a,
                                       const struct ag_balance_set *b)
{
    return memcmp(a, b, sizeof(*a)) == 0;
}

/* The lowest index in `s` from `from` on (which may be beyond the last), or -1. */
static inline int ag_balance_set_next(const struct ag_balance_set *s, uint32_t from)
{
    for (uint32_t i = from / 64; i < AG_COUNT(s->w); i++) {
        uint64_t rest = i == from / 64 ? s->w[i] & ~UINT64_C(0) << from % 64 : s->w[i];

        if (rest) {
            return (int)(64 * i + (uint32_t)__builtin_ctzll(rest));
        }
    }
    return -1;
}

/* All take a set of live servers that is not empty. */
int ag_balance_in_turn(struct ag_balance *b, const struct ag_balance_set *among);
int ag_balance_least(struct ag_balance *b, const struct ag_balance_set *among);
int ag_balance_two(struct ag_balance *b, const struct ag_balance_set *among, bool ewma);
int ag_balance_hashed(struct ag_balance *b, const struct ag_balance_set *among, uint64_t key);

/* Once. */
void ag_balance_make_ranks(struct ag_balance *b, bool by_chance);
/* All are in `last` again, in which nothing is chosen before another one is made. */
void ag_balance_forget_set(struct ag_balance *b);
/* Weights have changed. */
void ag_balance_make_turns(struct ag_balance *b);
void ag_balance_make_draws(struct ag_balance *b);
void ag_balance_forget_winners(struct ag_balance *b);

/* The sum of the set's weights. */
static inline int64_t ag_balance_weight_of(const struct ag_balance *b,
                                           const struct ag_balance_set *set)
{
    int64_t sum = 0;

    for (int i = ag_balance_set_next(set, 0); i >= 0;
         i = ag_balance_set_next(set, (uint32_t)i + 1)) {
        sum += b->weight[i];
    }
    return sum;
}
