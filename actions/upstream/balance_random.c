/* balance: the better of two that are drawn by weight. */
#include "actions/upstream/balance_parts.h"

/* A latency counts half after so long without another: 10 s to 1/e. */
#define HALF_LIFE_MS 6931u
/* So many draws from all servers meet a set of half of them but once in 65,000; then the set is walked. */
#define DRAWS_MAX 16u
/* Of a server whose first answer is still awaited: tried once, then not before others have it. */
#define UNKNOWN_US UINT64_C(60000000)

/* 2^-x by thirds: 1 - x (CUBIC_1 - x (CUBIC_2 - x CUBIC_3)), times 65536. */
#define CUBIC_1 45319u
#define CUBIC_2 15141u
#define CUBIC_3 2589u

/* Vose: each of `count` columns is as high as the mean, and holds a part of its own server's weight and, above
 * `draw_below` (of 2^32), one of another. */
void ag_balance_make_draws(struct ag_balance *b)
{
    uint64_t height[AG_BALANCE_SERVERS];
    uint8_t low[AG_BALANCE_SERVERS] = {0}, high[AG_BALANCE_SERVERS] = {0};
    uint32_t lows = 0, highs = 0;
    const uint64_t mean = (uint64_t)ag_balance_weight_of(b, &b->live);

    for (uint32_t i = 0; i < b->count; i++) {
        height[i] = (uint64_t)b->weight[i] * b->count;
        if (height[i] < mean) {
            low[lows++] = (uint8_t)i;
        } else {
            high[highs++] = (uint8_t)i;
        }
    }
    while (lows > 0 && highs > 0) {
        uint8_t from = low[--lows], rest = high[highs - 1];

        b->draw_below[from] = (uint32_t)((height[from] << 32) / mean);
        b->draw_else[from] = rest;
        height[rest] -= mean - height[from];
        if (height[rest] < mean) {
            highs--;
            low[lows++] = rest;
        }
    }
    for (; highs > 0; highs--) { /* as high as the mean: all of it is its own */
        b->draw_below[high[highs - 1]] = UINT32_MAX;
        b->draw_else[high[highs - 1]] = high[highs - 1];
    }
    AG_ASSERT(lows == 0);
}

static AG_COLD int draw_walking(struct ag_balance *b, const struct ag_balance_set *set)
{
    uint64_t most = (uint64_t)ag_balance_weight_of(b, set);
    int64_t rest = (int64_t)((ag_balance_random(b) >> 32) * most >> 32);
    int i = ag_balance_set_next(set, 0);

    while ((rest -= b->weight[i]) >= 0) {
        i = ag_balance_set_next(set, (uint32_t)i + 1);
    }
    return i;
}

/* A server of the set, by weight. */
static inline int draw(struct ag_balance *b, const struct ag_balance_set *set)
{
    for (unsigned tries = 0; tries < DRAWS_MAX; tries++) {
        uint64_t bits = ag_balance_random(b);
        uint32_t i = (uint32_t)((bits >> 32) * b->count >> 32);

        /* Without a branch, which nobody could predict. */
        i ^= (i ^ b->draw_else[i]) & -(uint32_t)((uint32_t)bits >= b->draw_below[i]);
        if (ag_balance_set_has(set, i)) {
            return (int)i;
        }
    }
    return draw_walking(b, set);
}

/* `value` halved for every half-life, exact to 1.5 in 10,000. */
static uint32_t decay(uint32_t value, uint64_t ms)
{
    uint64_t halves = ms / HALF_LIFE_MS, x, part;

    if (halves >= 32) {
        return 0;
    }
    x = (ms % HALF_LIFE_MS << 16) / HALF_LIFE_MS;
    part = 65536 - (x * (CUBIC_1 - (x * (CUBIC_2 - (x * CUBIC_3 >> 16)) >> 16)) >> 16);
    return (uint32_t)(value * part >> 16 >> halves);
}

/* The peak: what was seen just now, or what is left of more that was seen before. */
void ag_balance_observe(struct ag_balance *b, uint32_t index, uint32_t latency_us, uint64_t now_ms)
{
    uint32_t left;

    AG_ASSERT(index < AG_BALANCE_SERVERS);
    b->now_ms = now_ms > b->now_ms ? now_ms : b->now_ms;
    left = decay(b->latency_us[index], b->now_ms - b->latency_at_ms[index]);
    latency_us = latency_us > left ? latency_us : left;
    b->latency_us[index] = latency_us ? latency_us : 1;
    b->latency_at_ms[index] = b->now_ms;
}

/* What a request would cost there: it waits for those before it. */
static inline uint64_t cost_of(const struct ag_balance *b, int i)
{
    uint64_t latency = b->latency_us[i], requests = (uint64_t)b->active[i] + 1;

    if (latency == 0) {
        return requests == 1 ? 0 : UNKNOWN_US * requests;
    }
    return (decay((uint32_t)latency, b->now_ms - b->latency_at_ms[i]) + 1) * requests;
}

int ag_balance_two(struct ag_balance *b, const struct ag_balance_set *among, bool ewma)
{
    struct ag_balance_set others = *among;
    int one = draw(b, among), two, other_is_better;

    ag_balance_set_remove(&others, (uint32_t)one);
    if (ag_unlikely(ag_balance_set_empty(&others))) {
        return one;
    }
    two = draw(b, &others);
    other_is_better = ewma ? cost_of(b, two) * (uint64_t)b->weight[one] <
                                 cost_of(b, one) * (uint64_t)b->weight[two]
                           : b->load[two] < b->load[one];
    return one ^ ((one ^ two) & -other_is_better); /* also without a branch */
}
