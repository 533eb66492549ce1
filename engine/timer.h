/*
 * timer: a hierarchical timer wheel. Arm and cancel are O(1); coarse (a tick is 8 ms): a timer never
 * fires early, and at most two ticks late, unless more than AG_TIMER_BURST are due.
 *
 *   level 0: 256 slots of 1 tick    level 1: 64 slots of 256 ticks    levels 2, 3: 64 times wider each
 *   an armed timer sits in the lowest level that reaches its tick; slots cascade down as time passes
 */
#pragma once
#include "engine/list.h"

#define AG_TIMER_TICK_MS 8u
#define AG_TIMER_LEVELS  4u
#define AG_TIMER_SLOTS0  256u
#define AG_TIMER_SLOTS   64u
#define AG_TIMER_ALL     (AG_TIMER_SLOTS0 + (AG_TIMER_LEVELS - 1) * AG_TIMER_SLOTS)
/* Timers that one run fires at most: ten thousand clients that are late at once do not keep those waiting
 * who have input. */
#define AG_TIMER_BURST 32u

struct ag_timer;
typedef void ag_timer_fn(struct ag_timer *);

/* Embedded in its owner. The callback may arm it again, or free the owner's other timers. */
struct ag_timer {
    struct ag_link link; /* in a slot while armed */
    ag_timer_fn *fire;
    uint64_t at_ms; /* when armed: the deadline asked for */
};

struct ag_wheel {
    uint64_t tick;                      /* all ticks up to and including this one have fired */
    uint32_t armed;                     /* timers in the wheel */
    struct ag_link slots[AG_TIMER_ALL]; /* level 0, then those above it */
    uint64_t busy[AG_TIMER_ALL / 64];   /* which of them hold timers: a level above 0 is a word */
};

void ag_wheel_init(struct ag_wheel *w, uint64_t now_ms);
void ag_timer_init(struct ag_timer *t, ag_timer_fn *fire);
/* Arms `t`, moving it when it is armed already. A deadline in the past fires at the next run. */
void ag_timer_arm(struct ag_wheel *w, struct ag_timer *t, uint64_t at_ms);
/* Harmless when not armed. */
void ag_timer_cancel(struct ag_wheel *w, struct ag_timer *t);
static inline bool ag_timer_armed(const struct ag_timer *t)
{
    return t->link.next != &t->link;
}
/* Fires what is due at `now_ms`, AG_TIMER_BURST of it at most; time never goes back. */
void ag_wheel_run(struct ag_wheel *w, uint64_t now_ms);
/* A bound on when to run next: milliseconds from now_ms, or UINT32_MAX when nothing is armed. May be
 * earlier than the first deadline (a cascade), never later by more than a tick. */
uint32_t ag_wheel_wait_ms(const struct ag_wheel *w, uint64_t now_ms);
