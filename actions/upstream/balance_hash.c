/*
 * balance: consistent hashing.
 *
 *   key --16 bits--> slot --> the server that wins the slot's race
 *
 * In a race each server has a number that only the slot, its identity and its weight say: an exponentially
 * distributed one, its mean the inverse of the weight. The least wins, and so each wins its weight's share. A
 * server that comes takes from all what it wins, one that goes leaves what it had won to the second of each race:
 * nothing else moves. The table remembers who wins among all servers, from the first time that it is asked, and who
 * is second and third, from the first time that the winner cannot be had. Where none of the three is in the set, or
 * each has too much under way, the race is run among those that may be chosen: with one server in ten left out that is
 * one choice in a thousand.
 *
 * All of it is integers, so that every machine comes to the same winners.
 */
#include "actions/upstream/balance_parts.h"

#define SLOT_BITS 16u
#define SLOTS     (1u << SLOT_BITS)

/* Of a race that are remembered. */
#define FIRST 3u

struct places {
    uint8_t age; /* that they were found at; 0: never */
    uint8_t
        who[FIRST]; /* in order; the last one again where there are fewer, or no more are known */
};

struct ag_balance_table {
    uint8_t age; /* 1 to 255; another one after each change */
    struct places slot[SLOTS];
};
_Static_assert(AG_BALANCE_SERVERS <= 256, "a winner is a byte");
_Static_assert(sizeof(struct places) == 4, "one load");

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

/* The first of a race so far. */
struct runner {
    uint64_t number;
    int who; /* -1: nobody yet */
};

/* Whether `number` of `who` is before `other`; of equal ones, that of the lesser identity. */
static inline bool leads(const struct ag_balance *b, uint64_t number, uint32_t who,
                         const struct runner *other)
{
    return number < other->number || (number == other->number && other->who >= 0 &&
                                      b->identity[who] < b->identity[other->who]);
}

/* The number of a server; a greater one, where it is beyond `worst` for sure: -ln(1 - v) > v, without a logarithm.
 * Where all weights are equal, whoever has thrown least has the least number too. */
static inline uint64_t number_of(const struct ag_balance *b, uint64_t race, uint64_t worst,
                                 uint32_t who, bool uniform)
{
    uint64_t thrown = throw_of(race, b->identity[who]), weight;

    if (uniform) {
        return thrown;
    }
    weight = (uint64_t)b->weight[who];
    if (thrown >> 32 << 16 >= (worst + 1) * weight) {
        return UINT64_MAX;
    }
    return (minus_log((uint32_t)(thrown >> 32)) << 16) / weight;
}

/* Puts it where it belongs among the first `count`, whose last one it leads. */
static inline void enter(const struct ag_balance *b, struct runner *first, uint32_t count,
                         uint64_t number, uint32_t who)
{
    uint32_t at = count - 1;

    for (; at > 0 && leads(b, number, who, &first[at - 1]); at--) {
        first[at] = first[at - 1];
    }
    first[at] = (struct runner){number, (int)who};
}

struct field {
    const struct ag_balance_set *set; /* who runs; not empty */
    uint64_t race;
    bool bounded;       /* without those who are full */
    int64_t set_weight; /* 0: not known yet */
};

static inline __attribute__((always_inline)) void
run(const struct ag_balance *b, struct field *f, struct runner *first, uint32_t count, bool uniform)
{
    for (uint32_t word = 0; word < AG_COUNT(f->set->w); word++) {
        for (uint64_t rest = f->set->w[word]; rest; rest &= rest - 1) {
            uint32_t who = 64 * word + (uint32_t)__builtin_ctzll(rest);
            uint64_t number = number_of(b, f->race, first[count - 1].number, who, uniform);

            if (ag_unlikely(leads(b, number, who, &first[count - 1])) &&
                !(f->bounded && is_full(b, f->set, who, &f->set_weight))) {
                enter(b, first, count, number, who);
            }
        }
    }
}

/* Fills `first`; where fewer run, the rest is nobody. */
static inline __attribute__((always_inline)) void
find_first(const struct ag_balance *b, struct field *f, struct runner *first, uint32_t count)
{
    /* Above every number; with weights, with room for a factor of 1000. */
    for (uint32_t i = 0; i < count; i++) {
        first[i] = (struct runner){b->uniform ? UINT64_MAX : UINT64_MAX >> 10, -1};
    }
    if (b->uniform) {
        run(b, f, first, count, true);
    } else {
        run(b, f, first, count, false);
    }
    AG_ASSERT(first[0].who >= 0);
}

/* Who wins among `set` (not empty), without those that are full. */
static AG_NOINLINE int winner_among(const struct ag_balance *b, const struct ag_balance_set *set,
                                    uint32_t slot, int64_t set_weight)
{
    struct field f = {set, race_of(slot), true, set_weight};
    struct runner first;

    find_first(b, &f, &first, 1);
    return first.who;
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
    if (t && ++t->age == 0) {
        memset(t, 0, sizeof(*t));
        t->age = 1;
    }
}

/* The first `count`, 1 or FIRST, of the slot's race among all. */
static AG_NOINLINE struct places find_places(struct ag_balance *b, uint32_t slot, uint32_t count)
{
    struct field f = {&b->live, race_of(slot), false, 0};
    struct places found = {.age = b->table->age};
    struct runner first[FIRST] = {{0, -1}, {0, -1}, {0, -1}};

    if (count == 1) {
        find_first(b, &f, first, 1);
    } else {
        find_first(b, &f, first, FIRST);
    }
    for (uint32_t i = 0; i < FIRST; i++) {
        found.who[i] = first[i].who >= 0 ? (uint8_t)first[i].who : found.who[i - 1];
    }
    b->table->slot[slot] = found;
    return found;
}

int ag_balance_hashed(struct ag_balance *b, const struct ag_balance_set *among, uint64_t key)
{
    uint32_t slot = slot_of(key);
    int64_t set_weight = 0;
    struct places p;

    if (ag_unlikely(!b->table)) {
        return winner_among(b, among, slot, set_weight);
    }
    p = b->table->slot[slot];
    if (ag_unlikely(p.age != b->table->age)) {
        p = find_places(b, slot, 1);
    }
    for (uint32_t i = 0; i < FIRST; i++) {
        if (ag_likely(ag_balance_set_has(among, p.who[i]) &&
                      !is_full(b, among, p.who[i], &set_weight))) {
            return p.who[i];
        }
        if (p.who[1] == p.who[0]) {
            p = find_places(b, slot, FIRST);
        }
    }
    return winner_among(b, among, slot, set_weight);
}
