/*
 * world: one simulated run: virtual time, chance, memory and the order of events, all from a seed.
 *
 *   sim_at(delay, fn, arg) --> heap of events by (time, order of asking) --> sim_step: now moves, fn runs
 *
 * Everything in a run happens on one thread and takes its time and its chance from here, so the same
 * seed gives the same run; `trace` is a hash of all that was noted, by which that is checked. Memory is
 * taken from one block that is as good as freed at the end of the run.
 */
#pragma once
#include "engine/span.h"

#include <stdio.h>

#define SIM_MS UINT64_C(1000) /* time is in microseconds */
#define SIM_S  UINT64_C(1000000)

struct sim;
typedef void sim_fn(struct sim *, void *arg);

struct sim_event {
    uint64_t at_us;
    uint64_t order;
    sim_fn *fn;
    void *arg;
};

struct sim {
    uint64_t seed;
    uint64_t now_us; /* since the start of the run */
    uint64_t random[4];
    uint64_t trace;
    uint64_t events; /* run so far */
    bool verbose;
    struct sim_event *heap;
    uint32_t heap_count, heap_cap;
    uint64_t order;
    uint8_t *memory; /* the run's */
    size_t memory_used;
    struct net *net; /* net.h */
    void *run;       /* run.h */
};

/* Once for each process. */
void sim_init(struct sim *s);
void sim_deinit(struct sim *s);
/* Forgets the last run and begins that of `seed`. */
void sim_begin(struct sim *s, uint64_t seed, bool verbose);

/* ---- chance ---- */

uint64_t sim_random(struct sim *s);
/* Uniform in [0, n), n > 0; in [from, to]. */
uint64_t sim_below(struct sim *s, uint64_t n);
uint64_t sim_between(struct sim *s, uint64_t from, uint64_t to);
/* True in `per_mille` of 1000 cases. */
bool sim_chance(struct sim *s, uint32_t per_mille);
/* Mixes two numbers; the same for the same ones, in every run. */
uint64_t sim_hash(uint64_t a, uint64_t b);

/* ---- time ---- */

void sim_at(struct sim *s, uint64_t delay_us, sim_fn *fn, void *arg);
/* When the next event is due; UINT64_MAX: there is none. */
uint64_t sim_next_us(const struct sim *s);
/* Runs the next event, moving time on to it; false: there is none. */
bool sim_step(struct sim *s);

/* ---- memory ---- */

/* Zeroed; until the next run. */
void *sim_alloc(struct sim *s, size_t bytes);
/* The same with whatever lies there. */
void *sim_alloc_raw(struct sim *s, size_t bytes);

/* ---- what happens ---- */

/* Goes into the trace; printed when the run is verbose. `what` is a literal. */
void sim_note(struct sim *s, const char *what, uint64_t a, uint64_t b);
/* Prints the beginning of `bytes`, when the run is verbose. */
void sim_show(const struct sim *s, const uint8_t *bytes, size_t len);
/* The run has found a mistake: says so, with the seed, and ends the process. */
_Noreturn void sim_fail(const struct sim *s, const char *fmt, ...) AG_PRINTF(2, 3);
