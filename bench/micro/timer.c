/* The timer wheel with 10,000 timers, at random times within a minute. */
#include "engine/timer.h"

#include "bench/micro/micro.h"

#define TIMERS    10000u
#define WITHIN_MS 60000u

static struct ag_wheel wheel;
static struct ag_timer timers[TIMERS];
static uint64_t at_ms[TIMERS];

static void fired(struct ag_timer *t)
{
    (void)t;
}

static void set_up(const struct micro *m)
{
    (void)m;
    for (uint32_t i = 0; i < TIMERS; i++) {
        ag_timer_init(&timers[i], fired);
    }
    ag_wheel_init(&wheel, 0);
}

static void times(void)
{
    for (uint32_t i = 0; i < TIMERS; i++) {
        at_ms[i] = wheel.tick * AG_TIMER_TICK_MS + micro_below(WITHIN_MS);
    }
}

static void arm(const struct micro *m)
{
    (void)m;
    for (uint32_t i = 0; i < TIMERS; i++) {
        ag_timer_arm(&wheel, &timers[i], at_ms[i]);
    }
}

static void cancel(const struct micro *m)
{
    (void)m;
    for (uint32_t i = 0; i < TIMERS; i++) {
        ag_timer_cancel(&wheel, &timers[i]);
    }
}

static void expire(const struct micro *m)
{
    (void)m;
    for (uint64_t now = wheel.tick * AG_TIMER_TICK_MS; wheel.armed > 0; now += AG_TIMER_TICK_MS) {
        ag_wheel_run(&wheel, now);
    }
}

static void none_armed(const struct micro *m)
{
    cancel(m);
    times();
}

static void all_armed(const struct micro *m)
{
    times();
    arm(m);
    times(); /* where they are moved to */
}

static const struct micro all[] = {
    {"timer, arm", TIMERS, 0, set_up, none_armed, arm, cancel, NULL},
    {"timer, move", TIMERS, 0, set_up, all_armed, arm, cancel, NULL},
    {"timer, cancel", TIMERS, 0, set_up, all_armed, cancel, NULL, NULL},
    {"timer, expire (a tick of 8 ms at a time)", TIMERS, 0, set_up, all_armed, expire, NULL, NULL},
};
const struct micro_list micro_timer = {all, AG_COUNT(all)};
