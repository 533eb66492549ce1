/*
 * Goal: what balance.h says of each kind holds for any weights, sets and changes.
 * Method: random ones from fixed seeds, against the definition of a share; a simulated fleet of unequal speeds on
 * virtual time.
 */
#include "actions/upstream/balance.h"
#include "engine/random.h"

#include <criterion/criterion.h>
#include <stdio.h>

static uint64_t rng[4];
static struct ag_balance b;

static void setup(void)
{
    for (unsigned i = 0; i < 4; i++) {
        rng[i] = 77 + i;
    }
}

static void teardown(void)
{
    ag_balance_deinit(&b);
}

TestSuite(balance, .init = setup, .fini = teardown);

static uint32_t below(uint32_t n)
{
    return (uint32_t)((ag_random_next(rng) >> 32) * n >> 32);
}

static uint64_t identity_of(uint32_t i)
{
    return (i + UINT64_C(1)) * UINT64_C(0xd6e8feb86659fd93);
}

static struct ag_balance_set all_of(uint32_t count)
{
    struct ag_balance_set s = {0};

    for (uint32_t i = 0; i < count; i++) {
        ag_balance_set_add(&s, i);
    }
    return s;
}

static struct ag_balance_set some_of(uint32_t count)
{
    struct ag_balance_set s = {0};

    ag_balance_set_add(&s, below(count));
    for (uint32_t i = 0; i < count; i++) {
        if (below(2)) {
            ag_balance_set_add(&s, i);
        }
    }
    return s;
}

static void begin(enum ag_balance_kind kind, uint32_t count, const uint32_t *weights)
{
    ag_balance_deinit(&b);
    ag_balance_init(&b, kind, below(1u << 30));
    for (uint32_t i = 0; i < count; i++) {
        ag_balance_put(&b, i, weights ? weights[i] : 1, identity_of(i));
    }
    cr_assert_eq(ag_balance_settle(&b), AG_OK);
}

static uint32_t pick(const struct ag_balance_set *among, uint64_t key)
{
    int i = ag_balance_pick(&b, among, key);

    cr_assert(i >= 0 && ag_balance_set_has(among, (uint32_t)i) && b.weight[i] > 0, "%d", i);
    return (uint32_t)i;
}

/* Of several shapes: any, small, one heavy among light ones, of any magnitude. */
static uint32_t random_weights(uint32_t w[static AG_BALANCE_SERVERS], uint32_t most)
{
    uint32_t count = 1 + below(most), shape = below(4);

    for (uint32_t i = 0; i < count; i++) {
        w[i] = shape == 0   ? 1 + below(1000)
               : shape == 1 ? 1 + below(5)
               : shape == 2 ? (i == 0 ? 500 : 1)
                            : 1 + (below(1000) >> below(10));
    }
    return count;
}

static const enum ag_balance_kind kinds[] = {AG_BALANCE_ROUND_ROBIN, AG_BALANCE_LEAST_CONN,
                                             AG_BALANCE_RANDOM_TWO, AG_BALANCE_RANDOM_TWO_EWMA,
                                             AG_BALANCE_HASH};

/* ---- all kinds ---- */

Test(balance, one_of_the_set_or_none)
{
    for (unsigned k = 0; k < AG_COUNT(kinds); k++) {
        const struct ag_balance_set none = {0};
        uint32_t w[AG_BALANCE_SERVERS], held[64], holds = 0;
        uint32_t count = random_weights(w, AG_BALANCE_SERVERS);

        begin(kinds[k], count, w);
        for (uint32_t n = 0; n < 20000; n++) {
            struct ag_balance_set s = some_of(count), live = {0};
            uint32_t i = below(count);

            if (below(20) == 0) {
                ag_balance_weigh(&b, i, below(3) ? 1 + below(1000) : 0);
            }
            for (uint32_t j = 0; j < count; j++) {
                if (ag_balance_set_has(&s, j) && b.weight[j] > 0) {
                    ag_balance_set_add(&live, j);
                }
            }
            if (ag_balance_set_empty(&live)) {
                cr_assert_eq(ag_balance_pick(&b, &s, n), -1);
                continue;
            }
            i = pick(&s, ag_random_next(rng));
            if (holds == AG_COUNT(held)) {
                ag_balance_end(&b, held[--holds]);
            }
            ag_balance_begin(&b, held[holds++] = i);
            ag_balance_observe(&b, i, 1 + below(100000), n);
        }
        cr_assert_eq(ag_balance_pick(&b, &none, 1), -1);
        cr_assert_eq(b.under_way, holds);
    }
}

Test(balance, of_none_there_is_none)
{
    const struct ag_balance_set any = all_of(AG_BALANCE_SERVERS);

    for (unsigned k = 0; k < AG_COUNT(kinds); k++) {
        begin(kinds[k], 0, NULL);
        cr_assert_eq(ag_balance_pick(&b, &any, 1), -1);
        ag_balance_put(&b, 255, 0, 9);
        cr_assert_eq(ag_balance_pick(&b, &any, 1), -1);
        ag_balance_weigh(&b, 255, 3);
        cr_assert_eq(ag_balance_pick(&b, &any, 1), 255);
        ag_balance_remove(&b, 255);
        cr_assert_eq(ag_balance_pick(&b, &any, 1), -1);
        cr_assert_eq(b.count, 0);
    }
}

Test(balance, what_is_under_way_at_a_removed_server_ends)
{
    const struct ag_balance_set both = all_of(2);

    begin(AG_BALANCE_LEAST_CONN, 2, NULL);
    ag_balance_begin(&b, 1);
    ag_balance_remove(&b, 1);
    cr_assert_eq(pick(&both, 0), 0);
    cr_assert_eq(b.under_way, 1);
    ag_balance_end(&b, 1);
    ag_balance_put(&b, 1, 1, 5);
    ag_balance_begin(&b, 0);
    cr_assert_eq(pick(&both, 0), 1);
}

Test(balance, another_kind_from_now_on)
{
    const struct ag_balance_set s = all_of(5);

    begin(AG_BALANCE_ROUND_ROBIN, 5, NULL);
    for (unsigned n = 0; n < 40; n++) {
        enum ag_balance_kind kind = kinds[n % AG_COUNT(kinds)];

        ag_balance_become(&b, kind);
        cr_assert_eq(ag_balance_settle(&b), AG_OK);
        cr_assert_eq(b.table != NULL, kind == AG_BALANCE_HASH);
        for (unsigned i = 0; i < 20; i++) {
            ag_balance_begin(&b, pick(&s, ag_random_next(rng)));
        }
    }
}

/* ---- round robin ---- */

/* How far the counts of n choices are from the shares of the set, in choices; the most of all. */
static double off_by(const uint32_t *counts, const struct ag_balance_set *s, uint32_t count,
                     uint32_t n)
{
    double total = 0, most = 0;

    for (uint32_t i = 0; i < count; i++) {
        total += ag_balance_set_has(s, i) ? b.weight[i] : 0;
    }
    for (uint32_t i = 0; i < count; i++) {
        double off = counts[i] - (ag_balance_set_has(s, i) ? n * (b.weight[i] / total) : 0);
        most = off > most ? off : -off > most ? -off : most;
    }
    return most;
}

Test(balance, shares_are_met_within_one)
{
    for (unsigned trial = 0; trial < 150; trial++) {
        uint32_t w[AG_BALANCE_SERVERS], counts[AG_BALANCE_SERVERS] = {0};
        uint32_t count = random_weights(w, trial % 3 ? 12 : AG_BALANCE_SERVERS);
        struct ag_balance_set s = trial % 2 ? all_of(count) : some_of(count);

        begin(AG_BALANCE_ROUND_ROBIN, count, w);
        for (uint32_t n = 1; n <= 4000; n++) {
            counts[pick(&s, 0)]++;
            cr_assert(off_by(counts, &s, count, n) <= 1.002,
                      "trial %u of %u servers, choice %u: %f", trial, count, n,
                      off_by(counts, &s, count, n));
        }
    }
}

/* Whatever was before, and as long as it goes on: rounding does not add up. */
Test(balance, shares_stay_exact)
{
    const uint32_t w[] = {3, 7, 11, 13, 1};
    uint32_t counts[5] = {0};
    struct ag_balance_set s = all_of(5);

    begin(AG_BALANCE_ROUND_ROBIN, 5, w);
    for (uint32_t n = 0; n < 35 * 100000; n++) {
        counts[pick(&s, 0)]++;
    }
    for (uint32_t i = 0; i < 5; i++) {
        cr_assert(counts[i] + 1 >= w[i] * 100000 && counts[i] <= w[i] * 100000 + 1, "%u: %u", w[i],
                  counts[i]);
    }
}

Test(balance, equals_are_chosen_once_a_round_in_each_shard_another_way)
{
    const struct ag_balance_set s = all_of(10);
    struct ag_balance two[2];
    uint32_t first[2], sum[10] = {0}, differ = 0;

    for (uint64_t seed = 0; seed < 50; seed++) {
        memset(sum, 0, sizeof(sum));
        for (unsigned shard = 0; shard < 2; shard++) {
            uint32_t counts[10] = {0};

            ag_balance_init(&two[shard], AG_BALANCE_ROUND_ROBIN, 2 * seed + shard);
            for (uint32_t i = 0; i < 10; i++) {
                ag_balance_put(&two[shard], i, 1, identity_of(i));
            }
            for (uint32_t n = 0; n < 1234; n++) {
                int i = ag_balance_pick(&two[shard], &s, 0);
                first[shard] = n == 0 ? (uint32_t)i : first[shard];
                cr_assert_eq(counts[i], n / 10, "each once before any twice");
                counts[i]++;
                sum[i]++;
            }
        }
        differ += first[0] != first[1];
        for (uint32_t i = 0; i < 10; i++) {
            cr_assert(sum[i] >= 2 * 123 && sum[i] <= 2 * 124);
        }
    }
    cr_assert(differ > 30, "%u", differ);
}

Test(balance, heavy_ones_come_in_no_bursts)
{
    const uint32_t w[] = {6, 1, 1, 1, 1, 1, 1};
    struct ag_balance_set s = all_of(7);
    uint32_t in_row = 0, most = 0;

    begin(AG_BALANCE_ROUND_ROBIN, 7, w);
    for (uint32_t n = 0; n < 1200; n++) {
        in_row = pick(&s, 0) == 0 ? in_row + 1 : 0;
        most = in_row > most ? in_row : most;
    }
    cr_assert(most <= 2, "%u", most);
}

/* A server that was out, is new, or has another weight, gets its share from then on, and one choice more at most. */
static void no_burst(const char *what, uint32_t i, const struct ag_balance_set *s, uint32_t count)
{
    uint32_t counts[AG_BALANCE_SERVERS] = {0};
    double total = 0;

    for (uint32_t j = 0; j < count; j++) {
        total += b.weight[j];
    }
    for (uint32_t n = 1; n <= 500; n++) {
        double fair;

        counts[pick(s, 0)]++;
        fair = n * (b.weight[i] / total);
        cr_assert(counts[i] <= fair + 2.1 && counts[i] + 2.1 >= fair, "%s: %u of %f after %u", what,
                  counts[i], fair, n);
    }
}

Test(balance, changes_make_no_bursts)
{
    for (unsigned trial = 0; trial < 300; trial++) {
        uint32_t w[AG_BALANCE_SERVERS], count = 2 + random_weights(w, 30), i = below(count);
        struct ag_balance_set s = all_of(count), without = s;

        w[count - 2] = w[count - 1] = 1 + below(1000);
        begin(AG_BALANCE_ROUND_ROBIN, count, w);
        ag_balance_set_remove(&without, i);
        for (uint32_t n = below(1000); n > 0; n--) {
            (void)pick(&without, 0);
        }
        no_burst("out of the set", i, &s, count);
        ag_balance_weigh(&b, i, 0);
        for (uint32_t n = below(1000); n > 0; n--) {
            (void)pick(&s, 0);
        }
        ag_balance_weigh(&b, i, 1 + below(1000));
        no_burst("weight 0", i, &s, count);
        ag_balance_weigh(&b, i, 1 + below(1000));
        no_burst("another weight", i, &s, count);
        ag_balance_remove(&b, i);
        for (uint32_t n = below(1000); n > 0; n--) {
            (void)pick(&s, 0);
        }
        ag_balance_put(&b, i, 1 + below(1000), 7);
        no_burst("new", i, &s, count);
    }
}

/* Slow start changes a weight again and again: nobody loses his place by that. */
Test(balance, weights_that_change_all_the_time_starve_nobody)
{
    const struct ag_balance_set s = all_of(10);
    uint32_t counts[10] = {0};

    begin(AG_BALANCE_ROUND_ROBIN, 10, NULL);
    for (uint32_t n = 0; n < 10000; n++) {
        ag_balance_weigh(&b, 3, 1 + n % 2);
        counts[pick(&s, 0)]++;
    }
    for (uint32_t i = 0; i < 10; i++) {
        cr_assert(counts[i] > 800 && counts[i] < (i == 3 ? 1600 : 1100), "%u: %u", i, counts[i]);
    }
}

/* Each is in the set by a chance of its own. */
static struct ag_balance_set uneven(uint32_t count)
{
    struct ag_balance_set s = {0};

    ag_balance_set_add(&s, below(count));
    for (uint32_t i = 0; i < count; i++) {
        if (below(8) <= i % 8) {
            ag_balance_set_add(&s, i);
        }
    }
    return s;
}

/* Each has its share of the choices that it was there for: it neither loses nor saves any while it is not. */
Test(balance, sets_that_change_all_the_time_starve_nobody)
{
    for (unsigned trial = 0; trial < 40; trial++) {
        uint32_t count = 2 + below(trial % 4 < 2 ? 4 : 60), counts[64] = {0};
        double fair[64] = {0};

        begin(trial % 2 ? AG_BALANCE_ROUND_ROBIN : AG_BALANCE_LEAST_CONN, count, NULL);
        for (uint32_t n = 0; n < 20000; n++) {
            struct ag_balance_set s = uneven(count);
            uint32_t members = 0;

            for (unsigned i = 0; i < AG_COUNT(s.w); i++) {
                members += (uint32_t)__builtin_popcountll(s.w[i]);
            }
            for (uint32_t i = 0; i < count; i++) {
                fair[i] += ag_balance_set_has(&s, i) ? 1.0 / members : 0;
            }
            counts[pick(&s, 0)]++;
        }
        for (uint32_t i = 0; i < count; i++) {
            cr_assert(counts[i] > 0.9 * fair[i] - 5 && counts[i] < 1.1 * fair[i] + 5,
                      "%u of %u: %u of %f", i, count, counts[i], fair[i]);
        }
    }
}

/* ---- least connections ---- */

Test(balance, the_least_loaded_is_chosen)
{
    for (unsigned trial = 0; trial < 100; trial++) {
        uint32_t w[AG_BALANCE_SERVERS], count = random_weights(w, 60), held[500], holds = 0;

        begin(AG_BALANCE_LEAST_CONN, count, w);
        for (uint32_t n = 0; n < 1000; n++) {
            struct ag_balance_set s = some_of(count);
            uint32_t i = pick(&s, 0);

            for (uint32_t j = 0; j < count; j++) {
                cr_assert(!ag_balance_set_has(&s, j) ||
                          (double)b.active[i] / w[i] <= (double)b.active[j] / w[j] * 1.000001);
            }
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

/* One request at a time: all are always equal. */
Test(balance, equals_are_chosen_in_turn_by_weight)
{
    const uint32_t w[] = {1, 2, 3, 4};
    const struct ag_balance_set s = all_of(4);
    uint32_t counts[4] = {0};

    begin(AG_BALANCE_LEAST_CONN, 4, w);
    for (uint32_t n = 1; n <= 10000; n++) {
        uint32_t i = pick(&s, 0);

        ag_balance_begin(&b, i);
        ag_balance_end(&b, i);
        counts[i]++;
        cr_assert(off_by(counts, &s, 4, n) <= 2, "%u", n);
    }
}

/* ---- the better of two ---- */

Test(balance, draws_are_by_weight)
{
    for (unsigned trial = 0; trial < 20; trial++) {
        uint32_t w[AG_BALANCE_SERVERS], count = random_weights(w, 40), counts[40] = {0};
        struct ag_balance_set s = trial % 2 ? all_of(count) : some_of(count);
        double total = 0, chi = 0;
        uint32_t classes = 0;

        begin(AG_BALANCE_RANDOM_TWO, count, w); /* nothing under way: the first one */
        for (uint32_t n = 0; n < 100000; n++) {
            counts[pick(&s, 0)]++;
        }
        for (uint32_t i = 0; i < count; i++) {
            total += ag_balance_set_has(&s, i) ? w[i] : 0;
        }
        for (uint32_t i = 0; i < count; i++) {
            double fair = ag_balance_set_has(&s, i) ? 100000 * (w[i] / total) : 0;
            if (fair > 5) {
                chi += (counts[i] - fair) * (counts[i] - fair) / fair;
                classes++;
            }
        }
        cr_assert(chi < 2 * classes + 30, "chi-squared %f of %u", chi, classes);
    }
}

/* Balls into bins: of n with one choice each the fullest has about ln n / ln ln n, with two ln ln n / ln 2 + O(1). */
Test(balance, two_choices_are_far_better_than_one)
{
    const struct ag_balance_set s = all_of(256);
    uint32_t most_of_one = 0, most_of_two = 0;

    for (unsigned trial = 0; trial < 50; trial++) {
        uint32_t one[256] = {0};

        begin(AG_BALANCE_RANDOM_TWO, 256, NULL);
        for (uint32_t n = 0; n < 256; n++) {
            uint32_t i = pick(&s, 0), j = below(256);

            ag_balance_begin(&b, i);
            one[j]++;
            most_of_two = b.active[i] > most_of_two ? b.active[i] : most_of_two;
            most_of_one = one[j] > most_of_one ? one[j] : most_of_one;
        }
    }
    cr_assert(most_of_two <= 4 && most_of_one >= 6, "%u %u", most_of_two, most_of_one);
}

Test(balance, a_slow_server_is_avoided_and_tried_again)
{
    const struct ag_balance_set s = all_of(4);
    uint32_t counts[4] = {0};
    uint64_t now = 1000;

    begin(AG_BALANCE_RANDOM_TWO_EWMA, 4, NULL);
    for (uint32_t n = 0; n < 4; n++) { /* nobody is known: each is tried once */
        uint32_t i = pick(&s, 0);
        counts[i]++;
        ag_balance_begin(&b, i);
        ag_balance_end(&b, i);
        ag_balance_observe(&b, i, i == 2 ? 100000 : 1000, now);
    }
    for (uint32_t n = 0; n < 4000; n++, now++) {
        uint32_t i = pick(&s, 0);
        counts[i]++;
        ag_balance_observe(&b, i, i == 2 ? 100000 : 1000, now);
    }
    cr_assert(counts[2] <= 2, "%u", counts[2]);
    counts[2] = 0;
    for (uint32_t n = 0; n < 60000;
         n++, now++) { /* it has recovered; 100 times as much decays in 46 s */
        uint32_t i = pick(&s, 0);
        counts[i]++;
        ag_balance_observe(&b, i, 1000, now);
    }
    cr_assert(counts[2] > 1000, "%u", counts[2]);
}

Test(balance, an_unknown_server_is_tried_but_not_flooded)
{
    const struct ag_balance_set s = all_of(2);
    uint32_t tried = 0;

    begin(AG_BALANCE_RANDOM_TWO_EWMA, 2, NULL);
    ag_balance_observe(&b, 0, 1000000, 1);
    for (uint32_t n = 0; n < 50; n++) {
        uint32_t i = pick(&s, 0);
        ag_balance_begin(&b, i);
        tried += i == 1;
    }
    cr_assert_eq(tried, 1);
}

Test(balance, latency_peaks_at_once_and_decays_in_ten_seconds)
{
    begin(AG_BALANCE_RANDOM_TWO_EWMA, 1, NULL);
    ag_balance_observe(&b, 0, 1000, 1000);
    cr_assert_eq(b.latency_us[0], 1000);
    ag_balance_observe(&b, 0, 500000, 1001);
    cr_assert_eq(b.latency_us[0], 500000);
    ag_balance_observe(&b, 0, 1000, 11001); /* 500000 / e */
    cr_assert(b.latency_us[0] > 183800 && b.latency_us[0] < 184100, "%u", b.latency_us[0]);
    ag_balance_observe(&b, 0, 0, 10000000);
    cr_assert_eq(b.latency_us[0], 1);
    ag_balance_observe(&b, 0, UINT32_MAX, 5); /* a clock that goes back */
    cr_assert_eq(b.latency_us[0], UINT32_MAX);
    ag_balance_observe(&b, 0, 7, 10000001);
    cr_assert(b.latency_us[0] > UINT32_MAX / 2);
}

/* ---- a fleet ---- */

/* Servers that take so many requests at a time, some slower, and a queue at each; requests come at random times, to any of
 * the shards, each of which knows its own alone. */
struct fleet {
    uint32_t count;
    uint32_t shards;
    struct ag_balance of[4];
    uint32_t workers; /* of each server */
    double speed[16], free_at[16][8];
    struct {
        double at;
        uint32_t server, shard, took_us;
    } ends[4096];
    uint32_t ends_count;
};

static double exponential(double mean)
{
    /* -ln of a uniform number, by the sum of a geometric and a uniform part: the shape matters little. */
    double x = 0;

    while (below(100) < 37 && x < 20) {
        x += 1;
    }
    return mean * (x + below(1000) / 1000.0) / 1.0873;
}

static void open_shards(struct fleet *f, enum ag_balance_kind kind)
{
    for (uint32_t k = 0; k < f->shards; k++) {
        ag_balance_init(&f->of[k], kind, below(1u << 30));
        for (uint32_t i = 0; i < f->count; i++) {
            ag_balance_put(&f->of[k], i, 1, identity_of(i));
        }
    }
}

/* The mean latency of 20,000 requests, in mean times of work. */
static double mean_latency(struct fleet *f, enum ag_balance_kind kind, double use)
{
    const struct ag_balance_set s = all_of(f->count);
    double now = 0, speed = 0, sum = 0;

    open_shards(f, kind);
    f->ends_count = 0;
    for (uint32_t i = 0; i < f->count; i++) {
        speed += f->speed[i];
        memset(f->free_at[i], 0, sizeof(f->free_at[i]));
    }
    for (uint32_t n = 0; n < 20000; n++) {
        uint32_t shard = below(f->shards), i;
        double *free_at;

        now += exponential(1 / (use * speed * f->workers));
        for (uint32_t e = 0; e < f->ends_count;) {
            if (f->ends[e].at <= now) {
                struct ag_balance *its = &f->of[f->ends[e].shard];

                ag_balance_end(its, f->ends[e].server);
                ag_balance_observe(its, f->ends[e].server, f->ends[e].took_us,
                                   (uint64_t)(now * 10));
                f->ends[e] = f->ends[--f->ends_count];
            } else {
                e++;
            }
        }
        i = (uint32_t)ag_balance_pick(&f->of[shard], &s, 0);
        ag_balance_begin(&f->of[shard], i);
        free_at = &f->free_at[i][0];
        for (uint32_t k = 1; k < f->workers; k++) {
            free_at = f->free_at[i][k] < *free_at ? &f->free_at[i][k] : free_at;
        }
        *free_at = (*free_at > now ? *free_at : now) + exponential(1 / f->speed[i]);
        sum += *free_at - now;
        cr_assert(f->ends_count < AG_COUNT(f->ends));
        f->ends[f->ends_count].at = *free_at;
        f->ends[f->ends_count].server = i;
        f->ends[f->ends_count].shard = shard;
        f->ends[f->ends_count++].took_us = (uint32_t)((*free_at - now) * 10000);
    }
    return sum / 20000;
}

Test(balance, load_goes_where_it_is_worked_off)
{
    static struct fleet f = {.count = 10, .shards = 1, .workers = 1};
    double turns, least, two, ewma;

    for (uint32_t i = 0; i < f.count; i++) {
        f.speed[i] = i < 2 ? 0.25 : 1; /* two at a quarter of the others' speed */
    }
    turns = mean_latency(&f, AG_BALANCE_ROUND_ROBIN, 0.7);
    least = mean_latency(&f, AG_BALANCE_LEAST_CONN, 0.7);
    two = mean_latency(&f, AG_BALANCE_RANDOM_TWO, 0.7);
    ewma = mean_latency(&f, AG_BALANCE_RANDOM_TWO_EWMA, 0.7);
    cr_assert(turns > 20, "in turn the slow ones are overrun: %f", turns);
    cr_assert(least < 2.2 && two < 3.2 && ewma < 2.6, "%f %f %f", least, two, ewma);
    cr_assert(least < two && ewma < two, "%f %f %f", least, two, ewma);
}

/* What a shard does not see of the others' requests costs little where servers take several at a time; where they take
 * one, it is still far better than turns. */
Test(balance, the_least_loaded_of_a_shard_follows_the_load_of_all)
{
    static struct fleet f = {.count = 10};
    static const double uses[] = {0.3, 0.5, 0.7, 0.9};

    for (unsigned k = 0; k < 2 * AG_COUNT(uses); k++) {
        double use = uses[k / 2], turns, one, two;

        for (uint32_t i = 0; i < f.count; i++) {
            f.speed[i] = k % 2 && i < 2 ? 0.25 : 1;
        }
        f.workers = 8;
        f.shards = 1;
        one = mean_latency(&f, AG_BALANCE_LEAST_CONN, use);
        f.shards = 2;
        two = mean_latency(&f, AG_BALANCE_LEAST_CONN, use);
        cr_assert(two < one * 1.1, "at %.1f: %f, and %f with two shards", use, one, two);
        f.workers = 1;
        two = mean_latency(&f, AG_BALANCE_LEAST_CONN, use);
        f.shards = 1;
        one = mean_latency(&f, AG_BALANCE_LEAST_CONN, use);
        turns = mean_latency(&f, AG_BALANCE_ROUND_ROBIN, use);
        cr_assert(two < one * 1.5, "at %.1f: %f, and %f with two shards", use, one, two);
        cr_assert(use < 0.7 || two < turns * 0.95, "at %.1f: %f, in turn %f", use, two, turns);
    }
}
