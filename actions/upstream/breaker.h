/*
 * breaker: when a server is left out because of what requests met there, and when it is tried again. One for
 * each server, shared by all shards: a few atomics, no lock, no clock of its own.
 *
 *             errors in a row, or too large a share of them; or an order (an outlier)
 *   CLOSED ------------------------------------------------------------------------> OPEN
 *     ^                                                                               |  for a while, then
 *     |  as many trials have passed as are asked for                                  v  the first trial
 *     `----------------------------------------------------------------------- HALF_OPEN
 *                                                    a trial has failed: OPEN ----^
 *
 * A trial may last as long as a request may. One that has not ended within `for` keeps no other one out any more.
 *
 * `for` doubles each time that it opens again within that time after it has closed, or by a trial that failed,
 * up to `max_for`.
 *
 * A success reads two words that nobody writes as long as all is well, and counts in the shard's own tally. Only
 * once there are errors in the window are tallies added to what is shared; so the rate is of all shards, but for
 * successes of shards that have had none since the first error.
 *
 * Windows: two halves that take turns. An error is looked at among those of its own half and the one before, so
 * a window is between a half and the whole of what is configured long.
 *
 * Every time is loop time in milliseconds, the same clock in all shards.
 */
#pragma once
#include "actions/upstream/statuses.h"
#include "engine/base.h"

#include <stdatomic.h>

#define AG_BREAKER_TRIALS_MAX 100u

struct ag_breaker_options {
    uint32_t consecutive;   /* errors in a row that open it; 0: none do */
    uint32_t error_percent; /* of a window's requests; 0: none do */
    uint32_t minimum;       /* requests in a window that a share is made of */
    uint32_t window_ms;
    uint32_t for_ms, max_for_ms; /* how long it is open: at first, and at most */
    uint32_t trials;             /* 1 .. AG_BREAKER_TRIALS_MAX; so many at once, and to pass */
    uint32_t max_percent;        /* of an upstream's servers that may be left out at once */
    struct ag_statuses statuses; /* answers that are errors */
    bool written;                /* the config has the key */
};

static inline bool ag_breaker_is_on(const struct ag_breaker_options *o)
{
    return o->consecutive > 0 || o->error_percent > 0;
}

enum ag_breaker_state {
    AG_BREAKER_CLOSED = 0, /* requests go there */
    AG_BREAKER_OPEN,       /* none do */
    AG_BREAKER_HALF_OPEN,  /* trials do */
};

/* All zero: CLOSED, nothing known. */
struct ag_breaker {
    _Alignas(64) _Atomic uint64_t word; /* state, trials, openings, since or until when */
    _Atomic uint64_t half[2];           /* of the window: which one, errors, requests */
    _Atomic uint32_t in_row;            /* errors since the last success */
};

/* A shard's successes at one server that are not in the breaker's halves yet. */
struct ag_breaker_tally {
    uint64_t half; /* the later one's number */
    uint32_t count[2];
};

/* What an error was found among. */
struct ag_breaker_count {
    uint32_t in_row;
    uint32_t errors, requests; /* of the window */
};

static inline enum ag_breaker_state ag_breaker_state(const struct ag_breaker *b)
{
    return (enum ag_breaker_state)(atomic_load_explicit(&b->word, memory_order_relaxed) & 3);
}

/* A request went well. */
void ag_breaker_success(struct ag_breaker *b, struct ag_breaker_tally *t,
                        const struct ag_breaker_options *o, uint64_t now_ms);
/* One did not. True: enough is enough, ag_breaker_open should follow. */
AG_MUST_USE bool ag_breaker_error(struct ag_breaker *b, struct ag_breaker_tally *t,
                                  const struct ag_breaker_options *o, uint64_t now_ms,
                                  struct ag_breaker_count *out);
/* CLOSED -> OPEN. False: another one was first. */
AG_MUST_USE bool ag_breaker_open(struct ag_breaker *b, const struct ag_breaker_options *o,
                                 uint64_t now_ms);
/* Back to CLOSED, whatever it was; what it has counted is forgotten. */
void ag_breaker_reset(struct ag_breaker *b);

/* From when on it takes trials (HALF_OPEN: a time in the past); 0: it is CLOSED. */
uint64_t ag_breaker_due(const struct ag_breaker *b);
/* How long it is open for this time. */
uint32_t ag_breaker_time(const struct ag_breaker *b, const struct ag_breaker_options *o);
/* Whether a request may go there as a trial: it then has to end as one, once. False: CLOSED, not yet due, or
 * trials enough are under way, the last of them begun less than `for` ago. */
AG_MUST_USE bool ag_breaker_try(struct ag_breaker *b, const struct ag_breaker_options *o,
                                uint64_t now_ms);

enum ag_breaker_trial {
    AG_TRIAL_PASSED = 0,
    AG_TRIAL_FAILED,
    AG_TRIAL_ABANDONED, /* it told nothing: another one takes its place */
};
/* The state that this has led to; the one it was in before: nothing has changed. */
enum ag_breaker_state ag_breaker_trial_ended(struct ag_breaker *b,
                                             const struct ag_breaker_options *o,
                                             enum ag_breaker_trial how, uint64_t now_ms,
                                             bool *out_changed);
