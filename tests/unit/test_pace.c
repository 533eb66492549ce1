/*
 * Goal: who keeps the rate is never late; who does not is late within a stall and what it had saved,
 * however it spreads its bytes.
 * Method: scripted progress on a clock of the test's own; random patterns against the sum of the bytes.
 */
#include "engine/pace.h"

#include <criterion/criterion.h>
#include <stdlib.h>

#define RATE  240u
#define STALL 30000u
#define GRACE 5000u

Test(pace, nothing_is_late_after_the_grace)
{
    struct ag_pace p = {0};

    ag_pace_start(&p, 1000, GRACE);
    cr_expect(!ag_pace_is_late(&p, 1000 + GRACE - 1));
    cr_expect(ag_pace_is_late(&p, 1000 + GRACE));
    ag_pace_moved(&p, 2000, 0, RATE, STALL);
    cr_expect(ag_pace_is_late(&p, 1000 + GRACE), "no byte buys nothing");
    ag_pace_moved(&p, 2000, 24, RATE, STALL);
    cr_expect(!ag_pace_is_late(&p, 1000 + GRACE + 99));
    cr_expect(ag_pace_is_late(&p, 1000 + GRACE + 100));
}

Test(pace, a_burst_buys_one_stall_at_most)
{
    struct ag_pace p = {0};

    ag_pace_start(&p, 0, GRACE);
    ag_pace_moved(&p, 10, 100u << 20, RATE, STALL);
    cr_expect(!ag_pace_is_late(&p, 10 + STALL - 1));
    cr_expect(ag_pace_is_late(&p, 10 + STALL));
    ag_pace_moved(&p, 20, (uint64_t)1 << 40, RATE, STALL);
    cr_expect_eq(p.due_ms, 20 + STALL);
    ag_pace_moved(&p, 30, 1, RATE, 0);
    cr_expect_eq(p.due_ms, 20 + STALL, "what is bought stays");
}

Test(pace, without_a_rate_any_byte_is_enough)
{
    struct ag_pace p = {0};

    ag_pace_start(&p, 0, STALL);
    for (uint64_t now = 0; now < 10 * STALL; now += STALL - 1) {
        cr_expect(!ag_pace_is_late(&p, now));
        ag_pace_moved(&p, now, 1, 0, STALL);
    }
}

Test(pace, bytes_that_buy_no_millisecond_add_up)
{
    struct ag_pace p = {0};

    ag_pace_start(&p, 0, 1);
    for (unsigned i = 0; i < 100000; i++) { /* a second at 100,000 bytes a second */
        ag_pace_moved(&p, 0, 1, 100000, STALL);
    }
    cr_expect_eq(p.due_ms, 1001);
}

Test(pace, being_kept_back_is_made_up_for)
{
    struct ag_pace p = {0};

    ag_pace_start(&p, 0, GRACE);
    ag_pace_extend(&p, 60000, GRACE);
    cr_expect_eq(p.due_ms, 60000 + GRACE);
    ag_pace_extend(&p, 60000, 10);
    cr_expect_eq(p.due_ms, 60000 + GRACE);
}

/* The moment it was found late, or `end`. */
static uint64_t run_pattern(unsigned seed, uint32_t percent, uint64_t end)
{
    struct ag_pace p = {0};
    uint64_t now = 0, owed = 0;

    srand(seed);
    ag_pace_start(&p, 0, GRACE);
    while (now < end) {
        uint64_t pause = 1 + (uint64_t)rand() % GRACE; /* never beyond what it has */
        owed += pause * RATE * percent / 100;
        now += pause;
        if (ag_pace_is_late(&p, now)) {
            return now;
        }
        ag_pace_moved(&p, now, owed / 1000, RATE, STALL);
        owed %= 1000;
    }
    return end;
}

Test(pace, any_pattern)
{
    for (unsigned seed = 0; seed < 200; seed++) {
        uint64_t hour = 3600000;

        /* A little more than the rate, for thousandths of bytes that are still owed. */
        cr_expect_eq(run_pattern(seed, 101, hour), hour, "seed %u", seed);
        cr_expect_lt(run_pattern(seed, 50, hour), 2 * GRACE + 2 * GRACE, "seed %u", seed);
    }
}
