/*
 * Goal: a breaker opens when it should and not before, lets so many trials through and no more, and closes; one
 * thread or two.
 * Method: virtual time; what requests meet is told by hand.
 */
#include "actions/upstream/breaker.h"

#include <criterion/criterion.h>
#include <pthread.h>

static const struct ag_breaker_options usual = {.consecutive = 5,
                                                .error_percent = 50,
                                                .minimum = 20,
                                                .window_ms = 10000,
                                                .for_ms = 10000,
                                                .max_for_ms = 60000,
                                                .trials = 1,
                                                .max_percent = 50};

static struct ag_breaker b;
static struct ag_breaker_tally tally;
static struct ag_breaker_count counted;

static void setup(void)
{
    memset(&b, 0, sizeof(b));
    memset(&tally, 0, sizeof(tally));
}

TestSuite(breaker, .init = setup);

static void well(const struct ag_breaker_options *o, uint64_t now_ms, unsigned n)
{
    while (n-- > 0) {
        ag_breaker_success(&b, &tally, o, now_ms);
    }
}

static bool badly(const struct ag_breaker_options *o, uint64_t now_ms)
{
    return ag_breaker_error(&b, &tally, o, now_ms, &counted);
}

static enum ag_breaker_state ended(const struct ag_breaker_options *o, enum ag_breaker_trial how,
                                   uint64_t now_ms, bool changes)
{
    bool changed;
    enum ag_breaker_state to = ag_breaker_trial_ended(&b, o, how, now_ms, &changed);

    cr_expect_eq(changed, changes);
    return to;
}

static void open_it(const struct ag_breaker_options *o, uint64_t now_ms)
{
    cr_assert(ag_breaker_open(&b, o, now_ms));
    cr_assert_eq(ag_breaker_state(&b), AG_BREAKER_OPEN);
}

Test(breaker, errors_in_a_row_open_it_and_a_success_ends_the_row)
{
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < 4; i++) {
            cr_assert_not(badly(&usual, 100000));
        }
        well(&usual, 100000, 20);
    }
    for (unsigned i = 0; i < 4; i++) {
        cr_assert_not(badly(&usual, 200000));
    }
    cr_assert(badly(&usual, 200000));
    cr_expect_eq(counted.in_row, 5);
    cr_expect_eq(counted.errors, 5);
    cr_expect_eq(counted.requests, 5);
}

Test(breaker, a_share_of_errors_opens_it_when_there_are_enough_requests)
{
    struct ag_breaker_options o = usual;

    o.consecutive = 0;
    for (unsigned i = 0; i < 9; i++) {
        well(&o, 100000, 1);
        cr_assert_not(badly(&o, 100000), "%u requests", 2 * i + 2);
    }
    well(&o, 100000, 1);
    cr_assert(badly(&o, 100000));
    cr_expect_eq(counted.errors, 10);
    cr_expect_eq(counted.requests, 20);
    well(&o, 100000, 1);
    cr_assert_not(
        badly(&(struct ag_breaker_options){.error_percent = 60, .minimum = 20, .window_ms = 10000},
              100000));
}

/* Successes are the shard's own until there is an error to compare them with: then they all count. */
Test(breaker, successes_before_the_first_error_count)
{
    struct ag_breaker_options o = usual;

    o.consecutive = 0;
    well(&o, 94000, 100); /* the half before */
    well(&o, 95000, 1000);
    cr_expect_eq(atomic_load(&b.half[0]) + atomic_load(&b.half[1]), 0, "nothing is shared");
    cr_assert_not(badly(&o, 96000));
    cr_expect_eq(counted.requests, 1101);
    well(&o, 96000, 1);
    cr_assert_not(badly(&o, 99999));
    cr_expect_eq(counted.requests, 1103);
    cr_assert_not(badly(&o, 100000));
    cr_expect_eq(counted.requests, 1004, "the oldest half is over");
    cr_expect_eq(counted.errors, 3);
    cr_assert_not(badly(&o, 110000));
    cr_expect_eq(counted.requests, 1, "all are");
    cr_expect_eq(counted.errors, 1);
}

Test(breaker, two_shards_are_one)
{
    struct ag_breaker_options o = usual;
    struct ag_breaker_tally other = {0};

    o.consecutive = 0;
    for (unsigned i = 0; i < 5; i++) {
        cr_assert_not(badly(&o, 100000));
        cr_assert_not(ag_breaker_error(&b, &other, &o, 100000, &counted));
    }
    for (unsigned i = 0; i < 9; i++) {
        ag_breaker_success(&b, i % 2 ? &other : &tally, &o, 100000);
    }
    cr_assert(ag_breaker_error(&b, &other, &o, 100000, &counted));
    cr_expect_eq(counted.requests, 20);
}

/* More than the bits of a count hold: the share stays what it is. */
Test(breaker, counts_do_not_run_over)
{
    struct ag_breaker_options o = usual;

    o.consecutive = 0;
    cr_assert_not(badly(&o, 100000));
    tally.count[0] = 4000000;
    (void)badly(&o, 100000);
    tally.count[0] = 4000000;
    cr_assert_not(badly(&o, 100000));
    cr_expect_lt(counted.requests, 1u << 22);
    cr_expect_gt(counted.requests, 1u << 21);
    cr_expect_leq(counted.errors, 3);
}

Test(breaker, is_open_for_its_time_then_takes_one_trial)
{
    open_it(&usual, 100000);
    cr_expect_not(ag_breaker_open(&b, &usual, 100000), "it is");
    cr_expect_eq(ag_breaker_due(&b), 110000);
    cr_expect_not(ag_breaker_try(&b, &usual, 109999));
    cr_expect(ag_breaker_try(&b, &usual, 110000));
    cr_expect_eq(ag_breaker_state(&b), AG_BREAKER_HALF_OPEN);
    cr_expect_not(ag_breaker_try(&b, &usual, 110000), "one at a time");
    cr_expect_eq(ended(&usual, AG_TRIAL_PASSED, 110005, true), AG_BREAKER_CLOSED);
    cr_expect_eq(ag_breaker_due(&b), 0);
    cr_expect_not(ag_breaker_try(&b, &usual, 110010), "there is nothing to try");
}

Test(breaker, a_trial_that_tells_nothing_makes_room_for_another)
{
    open_it(&usual, 100000);
    cr_assert(ag_breaker_try(&b, &usual, 110000));
    cr_expect_eq(ended(&usual, AG_TRIAL_ABANDONED, 110001, false), AG_BREAKER_HALF_OPEN);
    cr_expect(ag_breaker_try(&b, &usual, 110002));
    cr_expect_not(ag_breaker_try(&b, &usual, 110002));
}

Test(breaker, a_trial_that_does_not_end_keeps_others_out_for_its_time_alone)
{
    open_it(&usual, 100000);
    cr_assert(ag_breaker_try(&b, &usual, 115000));
    cr_expect_not(ag_breaker_try(&b, &usual, 124999));
    cr_expect(ag_breaker_try(&b, &usual, 125000));
    cr_expect_not(ag_breaker_try(&b, &usual, 125000), "one more");
    cr_expect_eq(ended(&usual, AG_TRIAL_PASSED, 125001, true), AG_BREAKER_CLOSED);
    cr_expect_eq(ended(&usual, AG_TRIAL_FAILED, 125002, false), AG_BREAKER_CLOSED, "too late");
}

Test(breaker, trials_without_end_do_not_run_over)
{
    open_it(&usual, 100000);
    for (uint64_t now = 110000; now < 110000 + 1000 * 10000; now += 10000) {
        cr_assert(ag_breaker_try(&b, &usual, now));
        cr_assert_eq(ag_breaker_state(&b), AG_BREAKER_HALF_OPEN);
        cr_assert_eq(ag_breaker_time(&b, &usual), 10000);
    }
}

Test(breaker, is_open_for_longer_each_time_up_to_a_bound)
{
    uint64_t now = 100000;
    const uint32_t times[] = {10000, 20000, 40000, 60000, 60000};

    open_it(&usual, now);
    for (unsigned i = 0; i < AG_COUNT(times); i++) {
        cr_expect_eq(ag_breaker_time(&b, &usual), times[i]);
        cr_expect_eq(ag_breaker_due(&b), now + times[i]);
        now += times[i];
        cr_assert(ag_breaker_try(&b, &usual, now));
        cr_expect_eq(ended(&usual, AG_TRIAL_FAILED, now, true), AG_BREAKER_OPEN);
    }
    for (unsigned i = 0; i < 20; i++) {
        now = ag_breaker_due(&b);
        cr_assert(ag_breaker_try(&b, &usual, now));
        (void)ended(&usual, AG_TRIAL_FAILED, now, true);
        cr_expect_eq(ag_breaker_due(&b), now + 60000);
    }
}

Test(breaker, what_opens_again_soon_is_open_for_longer_what_was_well_for_long_is_not)
{
    open_it(&usual, 100000);
    cr_assert(ag_breaker_try(&b, &usual, 110000));
    (void)ended(&usual, AG_TRIAL_PASSED, 110000, true);
    open_it(&usual, 119999);
    cr_expect_eq(ag_breaker_time(&b, &usual), 20000);
    cr_assert(ag_breaker_try(&b, &usual, 140000));
    (void)ended(&usual, AG_TRIAL_PASSED, 140000, true);
    open_it(&usual, 160000);
    cr_expect_eq(ag_breaker_time(&b, &usual), 10000);
}

Test(breaker, as_many_trials_as_are_asked_for)
{
    struct ag_breaker_options o = usual;

    o.trials = 3;
    open_it(&o, 100000);
    for (unsigned i = 0; i < 3; i++) {
        cr_assert(ag_breaker_try(&b, &o, 110000));
    }
    cr_assert_not(ag_breaker_try(&b, &o, 110000));
    (void)ended(&o, AG_TRIAL_PASSED, 110000, false);
    (void)ended(&o, AG_TRIAL_PASSED, 110000, false);
    cr_assert_not(ag_breaker_try(&b, &o, 110000), "three were made");
    cr_expect_eq(ended(&o, AG_TRIAL_PASSED, 110000, true), AG_BREAKER_CLOSED);
    cr_expect_eq(ended(&o, AG_TRIAL_FAILED, 110000, false), AG_BREAKER_CLOSED, "too late");
}

Test(breaker, what_it_had_counted_is_forgotten_when_it_closes)
{
    for (unsigned i = 0; i < 5; i++) {
        (void)badly(&usual, 100000);
    }
    open_it(&usual, 100000);
    cr_assert_not(badly(&usual, 100001), "it is open");
    cr_assert(ag_breaker_try(&b, &usual, 110000));
    (void)ended(&usual, AG_TRIAL_PASSED, 110000, true);
    cr_assert_not(badly(&usual, 110000));
    cr_expect_eq(counted.in_row, 1);
    cr_expect_eq(counted.errors, 1);
    ag_breaker_reset(&b);
    cr_expect_eq(ag_breaker_state(&b), AG_BREAKER_CLOSED);
}

Test(breaker, a_success_writes_nothing_shared_while_all_is_well)
{
    for (uint64_t now = 1000; now < 100000; now += 7) {
        well(&usual, now, 3);
        cr_assert_eq(atomic_load(&b.word) | atomic_load(&b.half[0]) | atomic_load(&b.half[1]) |
                         atomic_load(&b.in_row),
                     0);
    }
}

/* ---- two threads ---- */

#define ROUNDS 20000u

struct thread {
    pthread_t id;
    unsigned opened, trials, closed, reopened;
};

static _Atomic uint64_t clock_ms = 1000000;
static _Atomic uint64_t trial_ms; /* when the one that is under way began; 0: none is */
static _Atomic unsigned too_soon;

static const struct ag_breaker_options fast = {.consecutive = 2,
                                               .error_percent = 50,
                                               .minimum = 5,
                                               .window_ms = 1000,
                                               .for_ms = 10,
                                               .max_for_ms = 20,
                                               .trials = 1,
                                               .max_percent = 100};

static void try_once(struct thread *t, struct ag_breaker_tally *mine, uint64_t now, unsigned i)
{
    struct ag_breaker_count n;
    bool changed;

    if (ag_breaker_try(&b, &fast, now)) {
        uint64_t before = atomic_exchange(&trial_ms, now), mine_ms = now;
        enum ag_breaker_state to;

        /* The other thread may be held up in one for so long that it passes for lost. */
        atomic_fetch_add(&too_soon, before && now >= before && now - before < fast.for_ms);
        t->trials++;
        (void)atomic_compare_exchange_strong(&trial_ms, &mine_ms, 0);
        to = ag_breaker_trial_ended(&b, &fast, (enum ag_breaker_trial)(i % 3), now, &changed);
        t->closed += changed && to == AG_BREAKER_CLOSED;
        t->reopened += changed && to == AG_BREAKER_OPEN;
    } else if (ag_breaker_error(&b, mine, &fast, now, &n)) {
        t->opened += ag_breaker_open(&b, &fast, now);
    } else if (i % 5 == 0) {
        ag_breaker_success(&b, mine, &fast, now);
    }
}

static void *run(void *arg)
{
    struct ag_breaker_tally mine = {0};

    for (unsigned i = 0; i < ROUNDS; i++) {
        try_once(arg, &mine, atomic_fetch_add(&clock_ms, 1), i);
    }
    return NULL;
}

Test(breaker, two_threads_open_and_close_it_as_one_would)
{
    struct thread v[2] = {{0}};
    unsigned opened, closed, reopened, trials;

    for (unsigned i = 0; i < 2; i++) {
        cr_assert_eq(pthread_create(&v[i].id, NULL, run, &v[i]), 0);
    }
    for (unsigned i = 0; i < 2; i++) {
        cr_assert_eq(pthread_join(v[i].id, NULL), 0);
    }
    opened = v[0].opened + v[1].opened;
    closed = v[0].closed + v[1].closed;
    reopened = v[0].reopened + v[1].reopened;
    trials = v[0].trials + v[1].trials;
    cr_expect_eq(atomic_load(&too_soon), 0, "one trial at a time");
    cr_expect_gt(closed, 10);
    cr_expect_gt(reopened, 10);
    cr_expect_leq(closed, opened, "each closing follows an opening");
    cr_expect_leq(opened, closed + 1, "and each opening but the last is followed by one");
    cr_expect_geq(trials, closed + reopened);
}
