/*
 * Goal: consistent hashing moves what it must and nothing else, in every process alike, keeps shares and bounds.
 * Method: many keys before and after each change; random identities, weights, sets and loads.
 */
#include "actions/upstream/balance.h"
#include "engine/random.h"

#include <criterion/criterion.h>
#include <math.h>

#define KEYS 40000u

static uint64_t rng[4];
static struct ag_balance b;
static uint64_t keys[KEYS];
static uint8_t was[KEYS], is[KEYS];

static uint32_t below(uint32_t n)
{
    return (uint32_t)((ag_random_next(rng) >> 32) * n >> 32);
}

static void setup(void)
{
    for (unsigned i = 0; i < 4; i++) {
        rng[i] = 33 + i;
    }
    for (uint32_t k = 0; k < KEYS; k++) {
        keys[k] = ag_random_next(rng);
    }
    ag_balance_init(&b, AG_BALANCE_HASH, 1);
}

static void teardown(void)
{
    ag_balance_deinit(&b);
}

TestSuite(balance_hash, .init = setup, .fini = teardown);

static uint64_t identity_of(uint32_t i)
{
    return (i + UINT64_C(1)) * UINT64_C(0xd6e8feb86659fd93);
}

static void put(uint32_t i, uint32_t weight)
{
    ag_balance_put(&b, i, weight, identity_of(i));
    cr_assert_eq(ag_balance_settle(&b), AG_OK);
}

static const struct ag_balance_set every = {{UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX}};

static void place(uint8_t out[static KEYS], const struct ag_balance_set *among)
{
    for (uint32_t k = 0; k < KEYS; k++) {
        int i = ag_balance_pick(&b, among, keys[k]);
        cr_assert(i >= 0);
        out[k] = (uint8_t)i;
    }
}

/* Each has its weight's share, to five standard deviations of 65,536 slots and of the keys. */
static void check_shares(const uint8_t placed[static KEYS])
{
    uint32_t counts[AG_BALANCE_SERVERS] = {0};
    double total = 0;

    for (uint32_t k = 0; k < KEYS; k++) {
        counts[placed[k]]++;
    }
    for (uint32_t i = 0; i < b.count; i++) {
        total += b.weight[i];
    }
    for (uint32_t i = 0; i < b.count; i++) {
        double share = b.weight[i] / total, fair = KEYS * share;
        double sigma = sqrt(fair + KEYS * fair / 65536);
        cr_assert(fabs(counts[i] - fair) < 5 * sigma + 1, "%u of weight %d: %u of %f", i,
                  b.weight[i], counts[i], fair);
    }
}

Test(balance_hash, shares_are_by_weight)
{
    static const uint32_t counts[] = {1, 2, 3, 10, 100, 256};

    for (unsigned c = 0; c < AG_COUNT(counts); c++) {
        for (unsigned shape = 0; shape < 4; shape++) {
            ag_balance_deinit(&b);
            ag_balance_init(&b, AG_BALANCE_HASH, 1);
            for (uint32_t i = 0; i < counts[c]; i++) {
                put(i, shape == 0   ? 1
                       : shape == 1 ? 1 + i % 10
                       : shape == 2 ? 1 + below(1000)
                                    : (i == 0 ? 1000 : 1));
            }
            place(is, &every);
            check_shares(is);
        }
    }
}

/* The fullest of 10, and of 100, servers is not far above the mean. */
Test(balance_hash, the_fullest_is_near_the_mean)
{
    static const double most_of[] = {1.06, 1.35};

    for (unsigned c = 0; c < 2; c++) {
        uint32_t n = c ? 100 : 10, counts[100] = {0}, most = 0;

        for (uint32_t i = b.count; i < n; i++) {
            put(i, 1);
        }
        place(is, &every);
        for (uint32_t k = 0; k < KEYS; k++) {
            uint32_t count = ++counts[is[k]];
            most = count > most ? count : most;
        }
        cr_assert(most < most_of[c] * KEYS / n, "%u of %u", most, KEYS / n);
    }
}

Test(balance_hash, the_same_whatever_the_order_and_the_indices)
{
    for (unsigned trial = 0; trial < 10; trial++) {
        uint8_t order[20], names[20];
        uint32_t uniform = below(2);

        ag_balance_deinit(&b);
        ag_balance_init(&b, AG_BALANCE_HASH, trial);
        for (uint32_t i = 0; i < 20; i++) {
            order[i] = (uint8_t)i;
            put(i, uniform ? 1 : 1 + i);
        }
        place(was, &every);
        ag_balance_deinit(&b);
        ag_balance_init(&b, AG_BALANCE_HASH, trial + 100);
        for (uint32_t i = 0; i < 20; i++) {
            uint32_t j = i + below(20 - i);
            uint8_t t = order[i];
            order[i] = order[j];
            order[j] = t;
            names[i] = order[i];
            ag_balance_put(&b, i, uniform ? 1 : 1u + names[i], identity_of(names[i]));
        }
        cr_assert(trial % 2 || ag_balance_settle(&b) == AG_OK); /* without a table, too */
        place(is, &every);
        for (uint32_t k = 0; k < KEYS; k++) {
            cr_assert_eq(names[is[k]], was[k]);
        }
    }
}

/* What every release and machine must agree on, or a rolling upgrade moves all keys. */
Test(balance_hash, the_same_for_ever)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < 50; i++) {
        put(i, 1);
    }
    for (uint64_t k = 0; k < 10000; k++) {
        sum = sum * 31 + (uint64_t)ag_balance_pick(&b, &every, k * UINT64_C(0x9e3779b97f4a7c15));
    }
    for (uint32_t i = 0; i < 50; i++) {
        ag_balance_weigh(&b, i, 1 + i * i % 97);
    }
    for (uint64_t k = 0; k < 10000; k++) {
        sum = sum * 31 + (uint64_t)ag_balance_pick(&b, &every, k * UINT64_C(0x9e3779b97f4a7c15));
    }
    cr_assert_eq(sum, UINT64_C(6372658303912380405), "%llu", (unsigned long long)sum);
}

Test(balance_hash, one_that_comes_takes_its_share_and_nothing_else_moves)
{
    for (uint32_t n = 2; n <= 130; n += n < 12 ? 1 : 40) {
        uint32_t moved = 0;

        ag_balance_deinit(&b);
        ag_balance_init(&b, AG_BALANCE_HASH, 1);
        for (uint32_t i = 0; i < n - 1; i++) {
            put(i, 1 + (n % 2) * i % 7);
        }
        place(was, &every);
        put(n - 1, 1);
        place(is, &every);
        for (uint32_t k = 0; k < KEYS; k++) {
            cr_assert(is[k] == was[k] || is[k] == n - 1);
            moved += is[k] != was[k];
        }
        cr_assert(moved > 0);
        check_shares(is);
        ag_balance_remove(&b, n - 1);
        place(is, &every);
        cr_assert(memcmp(is, was, sizeof(is)) == 0, "all comes back");
    }
}

Test(balance_hash, more_weight_only_takes_and_less_only_gives)
{
    for (uint32_t i = 0; i < 12; i++) {
        put(i, 5 + i);
    }
    place(was, &every);
    for (unsigned trial = 0; trial < 20; trial++) {
        uint32_t who = below(12), before = (uint32_t)b.weight[who], now = 1 + below(30);

        ag_balance_weigh(&b, who, now);
        place(is, &every);
        for (uint32_t k = 0; k < KEYS; k++) {
            cr_assert(is[k] == was[k] || (now > before ? is[k] : was[k]) == who);
        }
        check_shares(is);
        memcpy(was, is, sizeof(was));
    }
}

/* Those out of the set hand their keys to the others, by weight; the others keep theirs. */
Test(balance_hash, who_is_out_of_the_set_hands_over_evenly)
{
    struct ag_balance_set s = every;
    uint32_t counts[10] = {0}, handed = 0;

    for (uint32_t i = 0; i < 10; i++) {
        put(i, 1);
    }
    place(was, &every);
    ag_balance_set_remove(&s, 4);
    place(is, &s);
    for (uint32_t k = 0; k < KEYS; k++) {
        cr_assert(is[k] == was[k] || was[k] == 4);
        counts[is[k]] += was[k] == 4;
        handed += was[k] == 4;
    }
    for (uint32_t i = 0; i < 10; i++) {
        cr_assert(i == 4 ? counts[i] == 0
                         : 9 * counts[i] > 0.8 * handed && 9 * counts[i] < 1.2 * handed,
                  "%u: %u of %u", i, counts[i], handed);
    }
    ag_balance_remove(&b, 4);
    place(was, &every);
    cr_assert(memcmp(is, was, sizeof(is)) == 0, "as if it were not there");
}

Test(balance_hash, many_changes_leave_no_old_winner)
{
    for (uint32_t i = 0; i < 10; i++) {
        put(i, 1);
    }
    for (uint32_t n = 0; n < 600; n++) { /* more than there are ages */
        ag_balance_weigh(&b, n % 10, 0);
        for (uint32_t k = 0; k < 50; k++) {
            cr_assert(ag_balance_pick(&b, &every, keys[k]) != (int)(n % 10));
        }
        ag_balance_weigh(&b, n % 10, 1);
        cr_assert(ag_balance_pick(&b, &every, keys[n]) >= 0);
    }
}

/* After as many changes as there are ages, what was found so long ago counts no more. */
Test(balance_hash, ages_come_again)
{
    for (uint32_t i = 0; i < 10; i++) {
        put(i, 1);
    }
    ag_balance_weigh(&b, 0, 0);
    place(was, &every);
    for (uint32_t n = 1; n <= 255; n++) {
        ag_balance_weigh(&b, 0, n % 2);
        cr_assert(ag_balance_pick(&b, &every, keys[0]) >= 0);
    }
    place(is, &every);
    check_shares(is);
}

/* ---- bounds ---- */

Test(balance_hash, few_requests_stay_together)
{
    for (uint32_t i = 0; i < 10; i++) {
        put(i, 1);
    }
    for (uint32_t n = 0; n < AG_BALANCE_BOUND_FREE; n++) {
        int i = ag_balance_pick(&b, &every, keys[0]);
        cr_assert_eq(b.active[i], n);
        ag_balance_begin(&b, (uint32_t)i);
    }
    cr_assert_eq(b.active[ag_balance_pick(&b, &every, keys[0])], 0,
                 "one key is 1.25 shares at most");
}

Test(balance_hash, nobody_is_beyond_his_bound)
{
    for (unsigned trial = 0; trial < 20; trial++) {
        uint32_t n = 2 + below(30), hot = 1 + below(5), held[3000], holds = 0;
        double total = 0;

        ag_balance_deinit(&b);
        ag_balance_init(&b, AG_BALANCE_HASH, 1);
        for (uint32_t i = 0; i < n; i++) {
            put(i, trial % 2 ? 1 : 1 + below(20));
            total += b.weight[i];
        }
        for (uint32_t r = 0; r < 6000; r++) {
            uint32_t i = (uint32_t)ag_balance_pick(&b, &every, keys[below(hot)]);
            double bound = 1.25 * (b.under_way + 1) * b.weight[i] / total;

            cr_assert(b.active[i] < bound || b.active[i] < AG_BALANCE_BOUND_FREE, "%u of %f",
                      b.active[i], bound);
            ag_balance_begin(&b, i);
            if (holds == AG_COUNT(held)) {
                uint32_t at = below(holds);
                ag_balance_end(&b, held[at]);
                held[at] = i;
            } else {
                held[holds++] = i;
            }
        }
    }
}

/* The table only remembers: without it each choice is the same, whatever is left out or full. */
Test(balance_hash, a_table_changes_nothing)
{
    for (unsigned trial = 0; trial < 12; trial++) {
        uint32_t count = 1 + below(trial < 4 ? 4 : 60), held[64] = {0};
        struct ag_balance none;

        ag_balance_init(&none, AG_BALANCE_HASH, 1);
        ag_balance_init(&b, AG_BALANCE_HASH, 1);
        cr_assert_eq(ag_balance_settle(&b), AG_OK);
        for (uint32_t i = 0; i < count; i++) {
            uint32_t weight = trial % 2 ? 1 : 1 + below(9);

            ag_balance_put(&b, i, weight, identity_of(i));
            ag_balance_put(&none, i, weight, identity_of(i));
        }
        for (uint32_t n = 0; n < 20000; n++) {
            /* Few keys, so that what is remembered is asked for, and many requests, so that some are full. */
            uint64_t key = below(300) * UINT64_C(0x9e3779b97f4a7c15);
            struct ag_balance_set set = {0};
            int one, other;

            for (uint32_t i = 0; i < count; i++) {
                if (below(4) || i == n % count) {
                    ag_balance_set_add(&set, i);
                }
            }
            one = ag_balance_pick(&b, &set, key);
            other = ag_balance_pick(&none, &set, key);
            cr_assert_eq(one, other, "%u servers: %d, and %d without a table", count, one, other);
            if (n >= AG_COUNT(held)) {
                ag_balance_end(&b, held[n % AG_COUNT(held)]);
                ag_balance_end(&none, held[n % AG_COUNT(held)]);
            }
            held[n % AG_COUNT(held)] = (uint32_t)one;
            ag_balance_begin(&b, (uint32_t)one);
            ag_balance_begin(&none, (uint32_t)one);
            if (below(500) == 0) {
                uint32_t i = below(count), weight = 1 + below(9);

                ag_balance_weigh(&b, i, weight);
                ag_balance_weigh(&none, i, weight);
            }
        }
        ag_balance_deinit(&b);
    }
}
