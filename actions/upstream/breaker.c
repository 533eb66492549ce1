#include "actions/upstream/breaker.h"

/*
 * word:  until or since ms, 44 bits | openings 4 | trials passed 7 | trials begun 7 | state 2
 * half:  its number 20 bits | errors 22 | requests 22
 */
#define WORD_BEGUN    2u
#define WORD_PASSED   9u
#define WORD_OPENINGS 16u
#define WORD_TIME     20u
#define TRIALS_MASK   UINT64_C(127)
#define OPENINGS_MAX  15u
#define TIME_MASK     ((UINT64_C(1) << 44) - 1)
#define COUNT_BITS    22u
#define COUNT_MAX     ((UINT64_C(1) << COUNT_BITS) - 1)
#define NUMBER_MASK   ((UINT64_C(1) << 20) - 1)
_Static_assert(AG_BREAKER_TRIALS_MAX <= TRIALS_MASK, "trials fit their bits");

/* ---- the word ---- */

struct word {
    enum ag_breaker_state state;
    uint32_t begun, passed; /* HALF_OPEN: trials */
    uint32_t openings;      /* in short succession, but for the first */
    uint64_t time_ms; /* CLOSED: since; OPEN: trials from then on; HALF_OPEN: of the last one */
};

static struct word parts(uint64_t w)
{
    return (struct word){(enum ag_breaker_state)(w & 3), (uint32_t)(w >> WORD_BEGUN & TRIALS_MASK),
                         (uint32_t)(w >> WORD_PASSED & TRIALS_MASK),
                         (uint32_t)(w >> WORD_OPENINGS & OPENINGS_MAX), w >> WORD_TIME};
}

static uint64_t whole(struct word p)
{
    return (uint64_t)p.state | (uint64_t)p.begun << WORD_BEGUN | (uint64_t)p.passed << WORD_PASSED |
           (uint64_t)p.openings << WORD_OPENINGS | (p.time_ms & TIME_MASK) << WORD_TIME;
}

static uint64_t load(const struct ag_breaker *b)
{
    return atomic_load_explicit(&b->word, memory_order_acquire);
}

/* *io_seen is what is there now when this fails. */
static bool swap(struct ag_breaker *b, uint64_t *io_seen, struct word to)
{
    uint64_t seen = *io_seen;
    bool done = atomic_compare_exchange_strong_explicit(&b->word, &seen, whole(to),
                                                        memory_order_acq_rel, memory_order_acquire);

    *io_seen = seen;
    return done;
}

static uint64_t time_of(const struct ag_breaker_options *o, uint32_t openings)
{
    uint64_t ms = (uint64_t)o->for_ms << openings;

    return ms < o->max_for_ms ? ms : o->max_for_ms;
}

static struct word opened(const struct ag_breaker_options *o, uint32_t openings, uint64_t now_ms)
{
    openings = openings < OPENINGS_MAX ? openings : OPENINGS_MAX;
    return (struct word){
        .state = AG_BREAKER_OPEN, .openings = openings, .time_ms = now_ms + time_of(o, openings)};
}

/* ---- the window ---- */

static uint64_t half_at(const struct ag_breaker_options *o, uint64_t now_ms)
{
    uint64_t length = o->window_ms / 2;

    return now_ms / (length ? length : 1);
}

static bool is_of(uint64_t word, uint64_t half)
{
    return word >> 2 * COUNT_BITS == (half & NUMBER_MASK);
}

static uint64_t errors_in(uint64_t word, uint64_t half)
{
    return is_of(word, half) ? word >> COUNT_BITS & COUNT_MAX : 0;
}

static uint64_t requests_in(uint64_t word, uint64_t half)
{
    return is_of(word, half) ? word & COUNT_MAX : 0;
}

static uint64_t half_word(const struct ag_breaker *b, uint64_t half)
{
    return atomic_load_explicit(&b->half[half & 1], memory_order_relaxed);
}

/* Too many for their bits: their share stays. */
static void add(struct ag_breaker *b, uint64_t half, uint32_t errors, uint32_t requests)
{
    uint64_t seen = half_word(b, half), e, r;

    if (requests == 0) {
        return;
    }
    do {
        e = errors_in(seen, half) + errors;
        r = requests_in(seen, half) + requests;
        while (r > COUNT_MAX) {
            e /= 2;
            r /= 2;
        }
    } while (!atomic_compare_exchange_weak_explicit(
        &b->half[half & 1], &seen, (half & NUMBER_MASK) << 2 * COUNT_BITS | e << COUNT_BITS | r,
        memory_order_relaxed, memory_order_relaxed));
}

/* The tally goes on to that half; what is older than the one before is forgotten. */
static void turn(struct ag_breaker_tally *t, uint64_t half)
{
    if (t->half == half) {
        return;
    }
    if (t->half + 1 != half) {
        t->count[~half & 1] = 0;
    }
    t->count[half & 1] = 0;
    t->half = half;
}

static void publish(struct ag_breaker *b, struct ag_breaker_tally *t)
{
    add(b, t->half, 0, t->count[t->half & 1]);
    add(b, t->half - 1, 0, t->count[~t->half & 1]);
    t->count[0] = t->count[1] = 0;
}

void ag_breaker_success(struct ag_breaker *b, struct ag_breaker_tally *t,
                        const struct ag_breaker_options *o, uint64_t now_ms)
{
    uint64_t half;

    if (atomic_load_explicit(&b->in_row, memory_order_relaxed) != 0) {
        atomic_store_explicit(&b->in_row, 0, memory_order_relaxed);
    }
    if (o->error_percent == 0) {
        return;
    }
    half = half_at(o, now_ms);
    turn(t, half);
    t->count[half & 1]++;
    if (errors_in(half_word(b, half), half) + errors_in(half_word(b, half - 1), half - 1) > 0) {
        publish(b, t);
    }
}

bool ag_breaker_error(struct ag_breaker *b, struct ag_breaker_tally *t,
                      const struct ag_breaker_options *o, uint64_t now_ms,
                      struct ag_breaker_count *out)
{
    uint64_t half = half_at(o, now_ms), now, before;

    *out = (struct ag_breaker_count){
        .in_row = atomic_fetch_add_explicit(&b->in_row, 1, memory_order_relaxed) + 1};
    turn(t, half);
    publish(b, t);
    add(b, half, 1, 1);
    now = half_word(b, half);
    before = half_word(b, half - 1);
    out->errors = (uint32_t)(errors_in(now, half) + errors_in(before, half - 1));
    out->requests = (uint32_t)(requests_in(now, half) + requests_in(before, half - 1));
    if (ag_breaker_state(b) != AG_BREAKER_CLOSED) {
        return false;
    }
    return (o->consecutive && out->in_row >= o->consecutive) ||
           (o->error_percent && out->requests >= o->minimum &&
            (uint64_t)out->errors * 100 >= (uint64_t)out->requests * o->error_percent);
}

/* ---- transitions ---- */

static void forget(struct ag_breaker *b)
{
    atomic_store_explicit(&b->in_row, 0, memory_order_relaxed);
    atomic_store_explicit(&b->half[0], 0, memory_order_relaxed);
    atomic_store_explicit(&b->half[1], 0, memory_order_relaxed);
}

bool ag_breaker_open(struct ag_breaker *b, const struct ag_breaker_options *o, uint64_t now_ms)
{
    uint64_t seen = load(b);

    for (;;) {
        struct word p = parts(seen);
        bool again = p.time_ms != 0 && now_ms < p.time_ms + time_of(o, p.openings);

        if (p.state != AG_BREAKER_CLOSED) {
            return false;
        }
        if (swap(b, &seen, opened(o, again ? p.openings + 1 : 0, now_ms))) {
            return true;
        }
    }
}

void ag_breaker_reset(struct ag_breaker *b)
{
    atomic_store_explicit(&b->word, 0, memory_order_release);
    forget(b);
}

uint64_t ag_breaker_due(const struct ag_breaker *b)
{
    struct word p = parts(load(b));

    return p.state == AG_BREAKER_CLOSED ? 0 : p.time_ms;
}

uint32_t ag_breaker_time(const struct ag_breaker *b, const struct ag_breaker_options *o)
{
    return (uint32_t)time_of(o, parts(load(b)).openings);
}

bool ag_breaker_try(struct ag_breaker *b, const struct ag_breaker_options *o, uint64_t now_ms)
{
    uint64_t seen = load(b);

    for (;;) {
        struct word p = parts(seen);
        bool late = now_ms >= p.time_ms + o->for_ms; /* of those that are under way */

        if (p.state == AG_BREAKER_CLOSED || now_ms < p.time_ms ||
            (p.state == AG_BREAKER_HALF_OPEN && p.begun >= o->trials && !late)) {
            return false;
        }
        p.begun = p.state == AG_BREAKER_OPEN ? 1 : p.begun + (p.begun < TRIALS_MASK);
        p.state = AG_BREAKER_HALF_OPEN;
        p.time_ms = now_ms;
        if (swap(b, &seen, p)) {
            return true;
        }
    }
}

/* What a trial's end makes of it. */
static struct word after_trial(struct word p, const struct ag_breaker_options *o,
                               enum ag_breaker_trial how, uint64_t now_ms)
{
    switch (how) {
    case AG_TRIAL_PASSED:
        p.passed++;
        return p.passed < o->trials ? p
                                    : (struct word){.state = AG_BREAKER_CLOSED,
                                                    .openings = p.openings,
                                                    .time_ms = now_ms};
    case AG_TRIAL_FAILED:
        return opened(o, p.openings + 1, now_ms);
    case AG_TRIAL_ABANDONED:
        p.begun -= p.begun > 0;
        return p;
    }
    AG_UNREACHABLE("an end that is none");
}

enum ag_breaker_state ag_breaker_trial_ended(struct ag_breaker *b,
                                             const struct ag_breaker_options *o,
                                             enum ag_breaker_trial how, uint64_t now_ms,
                                             bool *out_changed)
{
    uint64_t seen = load(b);

    for (;;) {
        struct word before = parts(seen), after;

        *out_changed = false;
        if (before.state != AG_BREAKER_HALF_OPEN) {
            return before.state; /* another trial has settled it */
        }
        after = after_trial(before, o, how, now_ms);
        if (swap(b, &seen, after)) {
            *out_changed = after.state != before.state;
            if (after.state == AG_BREAKER_CLOSED) {
                forget(b);
            }
            return after.state;
        }
    }
}
