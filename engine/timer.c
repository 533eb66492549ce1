#include "engine/timer.h"

#define BITS0 8u /* of a tick that level 0 resolves */
#define BITS  6u /* and each level above */

/* Ticks that the whole wheel reaches ahead (about six days); later timers wait in the last slot and
 * are placed anew when it cascades. */
#define REACH ((uint64_t)1 << (BITS0 + BITS * (AG_TIMER_LEVELS - 1)))

_Static_assert(AG_TIMER_SLOTS0 == 1u << BITS0 && AG_TIMER_SLOTS == 1u << BITS, "slots are powers");
_Static_assert(AG_TIMER_SLOTS == 64, "a level above 0 is a word of busy bits");

/* Ticks of a slot of level `level`, as a shift. */
static unsigned level_shift(unsigned level)
{
    return level == 0 ? 0 : BITS0 + BITS * (level - 1);
}

/* The slot of level `level` that `tick` falls into. */
static size_t slot_of(unsigned level, uint64_t tick)
{
    return level == 0 ? tick % AG_TIMER_SLOTS0
                      : AG_TIMER_SLOTS0 + (level - 1) * AG_TIMER_SLOTS +
                            (tick >> level_shift(level)) % AG_TIMER_SLOTS;
}

void ag_wheel_init(struct ag_wheel *w, uint64_t now_ms)
{
    *w = (struct ag_wheel){.tick = now_ms / AG_TIMER_TICK_MS};
    for (unsigned i = 0; i < AG_TIMER_ALL; i++) {
        ag_list_init(&w->slots[i]);
    }
}

void ag_timer_init(struct ag_timer *t, ag_timer_fn *fire)
{
    *t = (struct ag_timer){.fire = fire};
    ag_list_init(&t->link);
}

/* Puts `t` into the lowest level that reaches it. What is due already goes to the slot of the present
 * tick, which every run looks at first. */
static void place(struct ag_wheel *w, struct ag_timer *t)
{
    /* Rounded up: the tick's whole time has passed when it fires, so never early. */
    uint64_t tick = t->at_ms / AG_TIMER_TICK_MS + (t->at_ms % AG_TIMER_TICK_MS != 0);
    uint64_t ahead = tick > w->tick ? tick - w->tick : 0;
    unsigned level = 0;

    if (ahead >= REACH) {
        ahead = REACH - 1;
    }
    while (ahead >> level_shift(level + 1)) {
        level++;
    }
    size_t i = slot_of(level, w->tick + ahead);
    ag_list_push(&w->slots[i], &t->link);
    w->busy[i / 64] |= (uint64_t)1 << i % 64;
}

/* Takes `t` out of its list. The last one of a slot takes the slot's bit along: its neighbours on both
 * sides are the same link, the slot. */
static void unlink_timer(struct ag_wheel *w, struct ag_timer *t)
{
    uintptr_t slot = (uintptr_t)t->link.next, first = (uintptr_t)w->slots;

    if (t->link.next == t->link.prev && slot >= first && slot - first < sizeof(w->slots)) {
        size_t i = (slot - first) / sizeof(w->slots[0]);

        w->busy[i / 64] &= ~((uint64_t)1 << i % 64);
    }
    ag_list_remove(&t->link);
}

void ag_timer_arm(struct ag_wheel *w, struct ag_timer *t, uint64_t at_ms)
{
    ag_timer_cancel(w, t);
    t->at_ms = at_ms;
    w->armed++;
    place(w, t);
}

void ag_timer_cancel(struct ag_wheel *w, struct ag_timer *t)
{
    if (ag_timer_armed(t)) {
        AG_ASSERT(w->armed > 0);
        w->armed--;
        unlink_timer(w, t);
    }
}

/* Moves all of `from` to the end of `to`. */
static void splice(struct ag_link *to, struct ag_link *from)
{
    if (!ag_list_empty(from)) {
        from->next->prev = to->prev;
        to->prev->next = from->next;
        from->prev->next = to;
        to->prev = from->prev;
        ag_list_init(from);
    }
}

/* Empties slot `i` into `to`. */
static void take_slot(struct ag_wheel *w, size_t i, struct ag_link *to)
{
    splice(to, &w->slots[i]);
    w->busy[i / 64] &= ~((uint64_t)1 << i % 64);
}

/* Slots from the present one to the first busy one of level 0, 0 .. 255; 256 when there is none. */
static unsigned next_busy0(const struct ag_wheel *w)
{
    unsigned at = (unsigned)(w->tick % AG_TIMER_SLOTS0);

    for (unsigned skipped = 0; skipped < AG_TIMER_SLOTS0;) {
        unsigned i = (at + skipped) % AG_TIMER_SLOTS0;
        uint64_t word = w->busy[i / 64] >> i % 64;

        if (word) {
            skipped += (unsigned)__builtin_ctzll(word);
            return skipped < AG_TIMER_SLOTS0 ? skipped : AG_TIMER_SLOTS0;
        }
        skipped += 64 - i % 64;
    }
    return AG_TIMER_SLOTS0;
}

/* The next tick at which something is to be done: a slot of level 0 that holds timers, or one above
 * that has to cascade. UINT64_MAX: nothing is armed. The present tick counts. */
static uint64_t next_tick(const struct ag_wheel *w)
{
    unsigned ahead = next_busy0(w);
    uint64_t next = ahead < AG_TIMER_SLOTS0 ? w->tick + ahead : UINT64_MAX;

    for (unsigned level = 1; level < AG_TIMER_LEVELS; level++) {
        uint64_t at = w->tick >> level_shift(level);
        uint64_t busy = w->busy[slot_of(level, 0) / 64];

        /* No slot of this level or above it begins sooner than the next one. */
        if (next < (at + 1) << level_shift(level)) {
            return next;
        }
        if (busy) {
            unsigned turn = (unsigned)((at + 1) % AG_TIMER_SLOTS);

            busy = busy >> turn | busy << (AG_TIMER_SLOTS - turn) % AG_TIMER_SLOTS;
            at += 1 + (unsigned)__builtin_ctzll(busy);
            next = ag_min_u64(next, at << level_shift(level));
        }
    }
    return next;
}

/* At the first tick of a slot of an upper level its timers move down. */
static void cascade(struct ag_wheel *w)
{
    for (unsigned level = AG_TIMER_LEVELS - 1; level > 0; level--) {
        unsigned shift = level_shift(level);
        struct ag_link moving;

        if (w->tick & (((uint64_t)1 << shift) - 1)) {
            continue;
        }
        ag_list_init(&moving);
        take_slot(w, slot_of(level, w->tick), &moving);
        for (struct ag_link *l = ag_list_pop(&moving); l; l = ag_list_pop(&moving)) {
            place(w, ag_container_of(l, struct ag_timer, link));
        }
    }
}

/* What was due and has not fired goes first at the next run. */
static void put_back(struct ag_wheel *w, struct ag_link *due)
{
    size_t i = slot_of(0, w->tick);

    if (!ag_list_empty(due)) {
        splice(due, &w->slots[i]);
        splice(&w->slots[i], due);
        w->busy[i / 64] |= (uint64_t)1 << i % 64;
    }
}

void ag_wheel_run(struct ag_wheel *w, uint64_t now_ms)
{
    uint64_t target = now_ms / AG_TIMER_TICK_MS;
    struct ag_link due;

    AG_ASSERT(target >= w->tick);
    /* All that is due is collected first and fired after: so a callback may arm and cancel whatever it
     * likes, and what it arms for the past waits for the next run, never for this one. */
    ag_list_init(&due);
    for (uint64_t next = next_tick(w); next <= target; next = next_tick(w)) {
        if (next > w->tick) {
            w->tick = next;
            cascade(w);
        }
        take_slot(w, slot_of(0, w->tick), &due);
    }
    w->tick = target;
    for (unsigned left = AG_TIMER_BURST; left > 0 && !ag_list_empty(&due); left--) {
        struct ag_timer *t = ag_container_of(ag_list_pop(&due), struct ag_timer, link);

        AG_ASSERT(w->armed > 0);
        w->armed--;
        t->fire(t);
    }
    put_back(w, &due);
}

uint32_t ag_wheel_wait_ms(const struct ag_wheel *w, uint64_t now_ms)
{
    uint64_t next = w->armed ? next_tick(w) : UINT64_MAX;

    if (next == UINT64_MAX) {
        return UINT32_MAX;
    }
    uint64_t at_ms = next * AG_TIMER_TICK_MS;
    return at_ms <= now_ms ? 0 : (uint32_t)ag_min_u64(at_ms - now_ms, UINT32_MAX - 1);
}
