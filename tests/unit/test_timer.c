/*
 * Goal: the wheel fires exactly what a plain sorted list would: never early, at most two ticks late
 * when it is run as often as it asks for.
 * Method: random arms, moves, cancels and time jumps of every size against a table of deadlines.
 */
#include "engine/timer.h"

#include <criterion/criterion.h>

#define COUNT 30u /* below AG_TIMER_BURST */
_Static_assert(COUNT < AG_TIMER_BURST, "one run fires all that is due");

struct item {
    struct ag_timer timer;
    bool armed;
    uint64_t at_ms;    /* asked for */
    uint64_t seen_ms;  /* the time when it was armed */
    uint64_t fired_ms; /* of the last firing */
    unsigned fired;
};

static struct ag_wheel wheel;
static struct item items[COUNT];
static uint64_t now;

static void fired(struct ag_timer *t)
{
    struct item *it = ag_container_of(t, struct item, timer);

    cr_assert(it->armed, "fired though not armed");
    cr_assert_geq(now, it->at_ms, "early");
    cr_assert_not(ag_timer_armed(t));
    it->armed = false;
    it->fired++;
    it->fired_ms = now;
}

static void start(uint64_t at)
{
    now = at;
    ag_wheel_init(&wheel, now);
    for (size_t i = 0; i < COUNT; i++) {
        items[i] = (struct item){0};
        ag_timer_init(&items[i].timer, fired);
    }
}

static void arm(struct item *it, uint64_t at_ms)
{
    it->armed = true;
    it->at_ms = at_ms;
    it->seen_ms = now;
    ag_timer_arm(&wheel, &it->timer, at_ms);
}

static uint32_t armed_count(void)
{
    uint32_t n = 0;
    bool agree = true; /* one assert: Criterion's are slow */

    for (size_t i = 0; i < COUNT; i++) {
        n += items[i].armed;
        agree &= ag_timer_armed(&items[i].timer) == items[i].armed;
    }
    cr_assert(agree);
    return n;
}

/* Nothing may be left that was due two ticks ago. */
static void run_and_check(void)
{
    ag_wheel_run(&wheel, now);
    for (size_t i = 0; i < COUNT; i++) {
        if (items[i].armed && now >= items[i].at_ms + 2 * AG_TIMER_TICK_MS) {
            cr_assert_fail("late: asked %lu now %lu", items[i].at_ms, now);
        }
    }
    cr_assert_eq(wheel.armed, armed_count());
}

static uint64_t random_u64(void)
{
    return (uint64_t)rand() << 31 ^ (uint64_t)rand();
}

/* A span of time of any magnitude up to 2^bits ms. */
static uint64_t random_span(unsigned bits)
{
    return random_u64() >> (62 - (unsigned)rand() % (bits + 1));
}

static void random_run(unsigned seed, uint64_t from, unsigned bits)
{
    srand(seed);
    start(from);
    for (int round = 0; round < 3000; round++) {
        struct item *it = &items[(unsigned)rand() % COUNT];

        switch (rand() % 8) {
        case 0:
            ag_timer_cancel(&wheel, &it->timer);
            it->armed = false;
            break;
        case 1:
            now += random_span(bits);
            run_and_check();
            break;
        case 2:
            arm(it, now > 500 ? now - (uint64_t)rand() % 500 : 0);
            break;
        default:
            arm(it, now + random_span(bits));
            break;
        }
        uint32_t wait = ag_wheel_wait_ms(&wheel, now);
        cr_assert_eq(wait == UINT32_MAX, wheel.armed == 0);
        uint64_t first = UINT64_MAX - AG_TIMER_TICK_MS;
        for (size_t i = 0; i < COUNT; i++) {
            first = items[i].armed ? ag_min_u64(first, items[i].at_ms) : first;
        }
        cr_assert(wait == UINT32_MAX || wait == UINT32_MAX - 1 ||
                      now + wait <= (first > now ? first : now) + AG_TIMER_TICK_MS,
                  "wait %u too long", wait);
    }
}

Test(timer, random_against_a_table)
{
    static const unsigned bits[] = {6, 12, 16, 22, 28, 34, 40};

    for (unsigned i = 0; i < AG_COUNT(bits); i++) {
        random_run(i, 0, bits[i]);
        random_run(i + 100, 12345678901u, bits[i]);
    }
}

/* As the loop does: sleep as long as the wheel says, run. Every timer fires within two ticks. */
Test(timer, waiting_as_told_is_punctual)
{
    srand(7);
    start(999);
    for (int round = 0; round < 20; round++) {
        for (size_t i = 0; i < COUNT; i++) {
            arm(&items[i], now + random_span(30));
        }
        unsigned turns = 0;
        for (uint32_t wait = ag_wheel_wait_ms(&wheel, now); wait != UINT32_MAX;
             wait = ag_wheel_wait_ms(&wheel, now)) {
            now += wait;
            run_and_check();
            turns++;
        }
        cr_assert_eq(armed_count(), 0);
        cr_assert_leq(turns, COUNT * AG_TIMER_LEVELS + 8, "wakes only to fire or to cascade");
        for (size_t i = 0; i < COUNT; i++) {
            cr_assert_leq(items[i].fired_ms, items[i].at_ms + 2 * AG_TIMER_TICK_MS);
            cr_assert_eq(items[i].fired, (unsigned)round + 1);
        }
    }
}

Test(timer, each_deadline_near_a_boundary)
{
    static const uint64_t edges[] = {256, 256 * 64, 256 * 64 * 64, 256u * 64 * 64 * 64};

    for (size_t e = 0; e < AG_COUNT(edges); e++) {
        for (uint64_t from = edges[e] - 2; from <= edges[e] + 2; from++) {
            for (uint64_t ahead = edges[e] - 2; ahead <= edges[e] + 2; ahead++) {
                start(from * AG_TIMER_TICK_MS);
                arm(&items[0], (from + ahead) * AG_TIMER_TICK_MS);
                now = items[0].at_ms - 1;
                ag_wheel_run(&wheel, now);
                cr_assert_eq(items[0].fired, 0);
                now++;
                ag_wheel_run(&wheel, now);
                cr_assert_eq(items[0].fired, 1, "from %lu ahead %lu", from, ahead);
            }
        }
    }
}

Test(timer, the_past_and_the_far_future)
{
    start(1000);
    cr_expect_eq(ag_wheel_wait_ms(&wheel, now), UINT32_MAX);
    arm(&items[0], 0);
    arm(&items[1], 1000);
    arm(&items[2], UINT64_MAX);
    cr_expect_eq(ag_wheel_wait_ms(&wheel, now), 0);
    ag_wheel_run(&wheel, now);
    cr_expect_eq(items[0].fired, 1, "a deadline in the past fires at the next run");
    cr_expect_eq(items[1].fired, 1);
    now += (uint64_t)1 << 45; /* a thousand years, in no time */
    ag_wheel_run(&wheel, now);
    cr_expect_eq(items[2].fired, 0);
    cr_expect_eq(wheel.armed, 1);
    ag_timer_cancel(&wheel, &items[2].timer);
    ag_timer_cancel(&wheel, &items[2].timer);
    cr_expect_eq(wheel.armed, 0);
    cr_expect_eq(ag_wheel_wait_ms(&wheel, now), UINT32_MAX);
    now += (uint64_t)1 << 60;
    ag_wheel_run(&wheel, now);
}

static void rearm(struct ag_timer *t)
{
    struct item *it = ag_container_of(t, struct item, timer);

    it->fired++;
    ag_timer_arm(&wheel, t, 0);
}

Test(timer, rearmed_for_the_past_fires_once_a_run)
{
    start(5000);
    ag_timer_init(&items[0].timer, rearm);
    ag_timer_arm(&wheel, &items[0].timer, 5100);
    for (unsigned i = 0; i < 10; i++) {
        now = i < 5 ? 6000 : 60000;
        ag_wheel_run(&wheel, now);
        cr_assert_eq(items[0].fired, i + 1);
    }
    ag_timer_cancel(&wheel, &items[0].timer);
}

static struct item crowd[3 * AG_TIMER_BURST];
static unsigned crowd_fired;

static void fire_in_order(struct ag_timer *t)
{
    struct item *it = ag_container_of(t, struct item, timer);

    cr_assert_eq(it, &crowd[crowd_fired]);
    it->fired++;
    crowd_fired++;
}

/* Many that are late at once fire in several runs, in order; those that wait can still be cancelled, and
 * the wheel asks to be run again at once. */
Test(timer, a_run_fires_so_many_at_most)
{
    struct item late = {.fired = 0};

    start(5000);
    for (size_t i = 0; i < AG_COUNT(crowd); i++) {
        ag_timer_init(&crowd[i].timer, fire_in_order);
        ag_timer_arm(&wheel, &crowd[i].timer, 5100);
    }
    now = 5200;
    ag_wheel_run(&wheel, now);
    cr_assert_eq(crowd_fired, AG_TIMER_BURST);
    cr_assert_eq(ag_wheel_wait_ms(&wheel, now), 0);
    ag_timer_init(&late.timer, rearm);
    ag_timer_arm(&wheel, &late.timer, 0); /* behind those that were due before */
    ag_wheel_run(&wheel, now);
    cr_assert_eq(crowd_fired, 2 * AG_TIMER_BURST);
    cr_assert_eq(late.fired, 0);
    ag_timer_cancel(&wheel, &late.timer);
    for (size_t i = crowd_fired; i < AG_COUNT(crowd); i++) {
        ag_timer_cancel(&wheel, &crowd[i].timer);
    }
    ag_wheel_run(&wheel, now);
    cr_assert_eq(crowd_fired, 2 * AG_TIMER_BURST);
    cr_assert_eq(wheel.armed, 0);
    cr_assert_eq(ag_wheel_wait_ms(&wheel, now), UINT32_MAX);
}

static void kill_all(struct ag_timer *t)
{
    struct item *it = ag_container_of(t, struct item, timer);

    it->fired++;
    for (size_t i = 0; i < COUNT; i++) {
        ag_timer_cancel(&wheel, &items[i].timer);
    }
}

/* Whichever comes first, of the same slot or of others due in this run, silences the rest. */
Test(timer, a_callback_may_cancel_and_arm_its_neighbours)
{
    unsigned total = 0;

    start(0);
    for (size_t i = 0; i < COUNT; i++) {
        ag_timer_init(&items[i].timer, kill_all);
        ag_timer_arm(&wheel, &items[i].timer, 100 + i % 4 * 3000);
    }
    now = 100000;
    ag_wheel_run(&wheel, now);
    for (size_t i = 0; i < COUNT; i++) {
        total += items[i].fired;
    }
    cr_expect_eq(total, 1);
    cr_expect_eq(wheel.armed, 0);
}

static void push_away(struct ag_timer *t)
{
    struct item *it = ag_container_of(t, struct item, timer);

    it->fired++;
    for (size_t i = 0; i < COUNT; i++) {
        if (&items[i] != it) {
            ag_timer_arm(&wheel, &items[i].timer, now + 50);
        }
    }
}

Test(timer, a_callback_may_move_what_is_due)
{
    start(0);
    for (size_t i = 0; i < COUNT; i++) {
        ag_timer_init(&items[i].timer, push_away);
        ag_timer_arm(&wheel, &items[i].timer, 100);
    }
    now = 104;
    ag_wheel_run(&wheel, now);
    cr_expect_eq(items[0].fired, 1);
    for (size_t i = 1; i < COUNT; i++) {
        cr_expect_eq(items[i].fired, 0);
    }
    cr_expect_eq(wheel.armed, COUNT - 1);
}
