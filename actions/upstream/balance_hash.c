/*
 * balance: consistent hashing.
 *
 *   key --16 bits--> slot --> the server that wins the slot's race
 *
 * In a race each server has a number that only the slot, its identity and its weight say: an exponentially
 * distributed one, its mean the inverse of the weight. The least wins, and so each wins its weight's share. A
 * server that comes takes from all what it wins, one that goes leaves what it had won to the second of each race:
 * nothing else moves. The table remembers who wins among all servers, from the first time that it is asked; where
 * that one is not in the set, or has too much under way, the race is run among those that may be chosen.
 *
 * All of it is integers, so that every machine comes to the same winners.
 */
#include "actions/upstream/balance_parts.h"

#define SLOT_BITS 16u
#define SLOTS     (1u << SLOT_BITS)

struct ag_balance_table {
    uint16_t age;         /* 1 to 255; another one after each change */
    uint16_t slot[SLOTS]; /* the age that it was found at, times 256, and the winner */
};
_Static_assert(AG_BALANCE_SERVERS <= 256, "a winner is a byte");

static inline uint32_t slot_of(uint64_t key)
{
    return (uint32_t)(key * UINT64_C(0x9e3779b97f4a7c15) >> (64 - SLOT_BITS));
}

/* Where a race begins; the same for all who run it. */
static inline uint64_t race_of(uint32_t slot)
{
    return ag_balance_mix((slot + UINT64_C(1)) * UINT64_C(0x9e3779b97f4a7c15));
}

/* Uniform in 64 bits, of which the upper 32 are v. */
static inline uint64_t throw_of(uint64_t race, uint64_t identity)
{
    uint64_t x = (race ^ identity) * UINT64_C(0xbf58476d1ce4e5b9);

    x = (x ^ x >> 32) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 32;
}

/*
 * -ln(1 - v) for v = (thrown + 1/2) / 2^32, in 2^-32: to 2^-31, and to 2^-16 of it. 1 - v is brought to 1/2 .. 1 by
 * doubling, and -ln(1 - x) = 2 artanh(x / (2 - x)).
 */
static uint64_t minus_log(uint32_t thrown)
{
    const uint64_t one = UINT64_C(1) << 32, ln_2 = UINT64_C(2977044472);
    uint64_t rest = 2 * one - (2 * (uint64_t)thrown + 1);    /* 1 - v, in 2^-33 */
    unsigned doubled = (unsigned)__builtin_clzll(rest) - 31; /* until it has 33 bits */
    uint64_t x = 2 * one - (rest << doubled);                /* in 2^-33 */
    uint64_t z = (x << 31) / ((4 * one - x) >> 1);           /* in 2^-32, at most 1/3 */
    uint64_t z2 = z * z >> 32, z4 = z2 * z2 >> 32, z6 = z4 * z2 >> 32;
    uint64_t log = doubled * ln_2 + (z * (one + z2 / 3 + z4 / 5 + z6 / 7) >> 31);

    return log > thrown ? log : thrown; /* as it is before it is rounded: number_of relies on it */
}

/* Beyond 1.25 times its share of what is under way with one more. Never all of a set that weighs `set_weight`
 * (0: not known yet). */
static inline bool is_full(const struct ag_balance *b, const struct ag_balance_set *among,
                           uint32_t i, int64_t *set_weight)
{
    if (ag_likely(b->active[i] < AG_BALANCE_BOUND_FREE)) {
        return false;
    }
    if (*set_weight == 0) {
        *set_weight = ag_balance_weight_of(b, among);
    }
    return 4 * (int64_t)b->active[i] * *set_weight >=
           5 * (b->under_way + INT64_C(1)) * b->weight[i];
}

struct race {
    uint64_t bits; /* of the slot */
    uint64_t best; /* the winner's number */
    int winner;    /* -1: none so far */
};

/* Whether `number` wins so far; of equal ones, that of the lesser identity. */
static inline bool leads(const struct race *r, const struct ag_balance *b, uint64_t number,
                         uint32_t who)
{
    return number < r->best ||
           (number == r->best && r->winner >= 0 && b->identity[who] < b->identity[r->winner]);
}

/* The number of a server; a greater one, where that is enough to rule it out: -ln(1 - v) > v, without a logarithm.
 * Where all weights are equal, whoever has thrown least has the least number too. */
static inline uint64_t number_of(const struct race *r, const struct ag_balance *b, uint32_t who,
                                 bool uniform)
{
    uint64_t thrown = throw_of(r->bits, b->identity[who]), weight;

    if (uniform) {
        return thrown;
    }
    weight = (uint64_t)b->weight[who];
    if (thrown >> 32 << 16 >= (r->best + 1) * weight) {
        return UINT64_MAX;
    }
    return (minus_log((uint32_t)(thrown >> 32)) << 16) / weight;
}

static inline void run(struct race *r, const struct ag_balance *b, const struct ag_balance_set *set,
                       bool uniform, bool bounded, int64_t *set_weight)
{
    for (uint32_t word = 0; word < AG_COUNT(set->w); word++) {
        for (uint64_t rest = set->w[word]; rest; rest &= rest - 1) {
            uint32_t who = 64 * word + (uint32_t)__builtin_ctzll(rest);
            uint64_t number = number_of(r, b, who, uniform);

            if (leads(r, b, number, who) && !(bounded && is_full(b, set, who, set_weight))) {
                r->best = number;
                r->winner = (int)who;
            }
        }
    }
}

/* Who wins among `set` (not empty); `bounded`: without those that are full. */
static int winner_among(const struct ag_balance *b, const struct ag_balance_set *set, uint32_t slot,
                        bool bounded, int64_t *set_weight)
{
    struct race r = {.bits = race_of(slot), .best = UINT64_MAX, .winner = -1};

    if (b->uniform) {
        run(&r, b, set, true, bounded, set_weight);
    } else {
        r.best = UINT64_MAX >> 10; /* above every number, with room for a factor of 1000 */
        run(&r, b, set, false, bounded, set_weight);
    }
    AG_ASSERT(r.winner >= 0);
    return r.winner;
}

/* ---- the table ---- */

enum ag_status ag_balance_settle(struct ag_balance *b)
{
    if (b->kind == AG_BALANCE_HASH && !b->table) {
        b->table = calloc(1, sizeof(*b->table));
        if (!b->table) {
            return AG_ENOMEM;
        }
        b->table->age = 1;
    }
    return AG_OK;
}

void ag_balance_forget_winners(struct ag_balance *b)
{
    struct ag_balance_table *t = b->table;
    int first = ag_balance_set_next(&b->live, 0);

    b->uniform = true;
    for (int i = first; i >= 0; i = ag_balance_set_next(&b->live, (uint32_t)i + 1)) {
        b->uniform &= b->weight[i] == b->weight[first];
    }
    if (t && ++t->age == 256) {
        *t = (struct ag_balance_table){.age = 1};
    }
}

static inline uint32_t winner_of(struct ag_balance *b, uint32_t slot)
{
    struct ag_balance_table *t = b->table;

    if (ag_unlikely(t->slot[slot] / 256 != t->age)) {
        t->slot[slot] = (uint16_t)(t->age * 256 + winner_among(b, &b->live, slot, false, NULL));
    }
    return t->slot[slot] % 256;
}

int ag_balance_hashed(struct ag_balance *b, const struct ag_balance_set *among, uint64_t key)
{
    uint32_t slot = slot_of(key);
    int64_t set_weight = 0;

    if (ag_likely(b->table)) {
        uint32_t winner = winner_of(b, slot);

        if (ag_likely(ag_balance_set_has(among, winner) &&
                      !is_full(b, among, winner, &set_weight))) {
            return (int)winner;
        }
    }
    return winner_among(b, among, slot, true, &set_weight);
}
