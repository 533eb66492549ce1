#include "tests/sim/world.h"

#include "engine/poison.h"
#include "engine/random.h"

#include <inttypes.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <unistd.h>

#define MEMORY_BYTES ((size_t)1024 * 1024 * 1024) /* what a run does not touch costs nothing */
#define SHOWN_MAX    400u
/* A run with more than so many events spins. */
#define EVENTS_MAX UINT64_C(4000000)

/* ---- chance ---- */

uint64_t sim_hash(uint64_t a, uint64_t b)
{
    uint64_t z = a + b * UINT64_C(0x9e3779b97f4a7c15) + UINT64_C(0x632be59bd9b4e019);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

uint64_t sim_random(struct sim *s)
{
    return ag_random_next(s->random);
}

uint64_t sim_below(struct sim *s, uint64_t n)
{
    AG_ASSERT(n > 0);
    return sim_random(s) % n;
}

uint64_t sim_between(struct sim *s, uint64_t from, uint64_t to)
{
    AG_ASSERT(from <= to);
    return from + sim_below(s, to - from + 1);
}

bool sim_chance(struct sim *s, uint32_t per_mille)
{
    return per_mille > 0 && sim_below(s, 1000) < per_mille;
}

/* ---- time ---- */

static bool before(const struct sim_event *a, const struct sim_event *b)
{
    return a->at_us != b->at_us ? a->at_us < b->at_us : a->order < b->order;
}

void sim_at(struct sim *s, uint64_t delay_us, sim_fn *fn, void *arg)
{
    struct sim_event e = {s->now_us + delay_us, s->order++, fn, arg};
    uint32_t i = s->heap_count++;

    if (s->heap_count > s->heap_cap) {
        s->heap_cap = s->heap_cap ? s->heap_cap * 2 : 1024;
        s->heap = realloc(s->heap, s->heap_cap * sizeof(*s->heap));
        AG_ASSERT(s->heap);
    }
    for (; i > 0 && before(&e, &s->heap[(i - 1) / 2]); i = (i - 1) / 2) {
        s->heap[i] = s->heap[(i - 1) / 2];
    }
    s->heap[i] = e;
}

static struct sim_event take_first(struct sim *s)
{
    struct sim_event first = s->heap[0], last = s->heap[--s->heap_count];
    uint32_t i = 0;

    for (;;) {
        uint32_t child = 2 * i + 1;

        if (child + 1 < s->heap_count && before(&s->heap[child + 1], &s->heap[child])) {
            child++;
        }
        if (child >= s->heap_count || !before(&s->heap[child], &last)) {
            break;
        }
        s->heap[i] = s->heap[child];
        i = child;
    }
    s->heap[i] = last;
    return first;
}

uint64_t sim_next_us(const struct sim *s)
{
    return s->heap_count ? s->heap[0].at_us : UINT64_MAX;
}

bool sim_step(struct sim *s)
{
    struct sim_event e;

    if (s->heap_count == 0) {
        return false;
    }
    e = take_first(s);
    if (e.at_us > s->now_us) {
        s->now_us = e.at_us;
    }
    if (++s->events > EVENTS_MAX) {
        sim_fail(s, "%" PRIu64 " events and no end", s->events);
    }
    e.fn(s, e.arg);
    return true;
}

/* ---- memory ---- */

void *sim_alloc_raw(struct sim *s, size_t bytes)
{
    size_t size = (bytes + 15) & ~(size_t)15;
    void *p = s->memory + s->memory_used;

    if (size > MEMORY_BYTES - s->memory_used) {
        sim_fail(s, "the run takes too much memory");
    }
    s->memory_used += size;
    return p;
}

void *sim_alloc(struct sim *s, size_t bytes)
{
    return memset(sim_alloc_raw(s, bytes), 0, bytes);
}

/* ---- what happens ---- */

void sim_note(struct sim *s, const char *what, uint64_t a, uint64_t b)
{
    uint64_t h = s->trace;

    for (const char *at = what; *at; at++) {
        h = (h ^ (uint8_t)*at) * UINT64_C(0x100000001b3);
    }
    s->trace = sim_hash(sim_hash(h, a), sim_hash(s->now_us, b));
    if (s->verbose) {
        (void)printf("%4" PRIu64 ".%06" PRIu64 " %-28s %" PRIu64 " %" PRIu64 "\n",
                     s->now_us / SIM_S, s->now_us % SIM_S, what, a, b);
    }
}

void sim_show(const struct sim *s, const uint8_t *bytes, size_t len)
{
    if (s->verbose) {
        (void)printf("            ");
        for (size_t i = 0; i < len && i < SHOWN_MAX; i++) {
            (void)printf(bytes[i] >= 0x20 && bytes[i] < 0x7f ? "%c" : "\\x%02x", bytes[i]);
        }
        (void)printf("\n");
    }
}

_Noreturn void sim_fail(const struct sim *s, const char *fmt, ...)
{
    va_list args;

    (void)fflush(stdout);
    (void)fprintf(stderr, "sim: seed %" PRIu64 " at %" PRIu64 ".%06" PRIu64 " s: ", s->seed,
                  s->now_us / SIM_S, s->now_us % SIM_S);
    va_start(args, fmt);
    (void)vfprintf(stderr, fmt, args);
    va_end(args);
    (void)fputc('\n', stderr);
    _exit(1);
}

/* ---- runs ---- */

void sim_init(struct sim *s)
{
    *s = (struct sim){0};
    s->memory = mmap(NULL, MEMORY_BYTES, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    AG_ASSERT(s->memory != MAP_FAILED);
}

void sim_deinit(struct sim *s)
{
    AG_ASSERT(munmap(s->memory, MEMORY_BYTES) == 0);
    free(s->heap);
}

void sim_begin(struct sim *s, uint64_t seed, bool verbose)
{
    s->seed = seed;
    s->verbose = verbose;
    s->now_us = 0;
    s->events = 0;
    s->order = 0;
    s->trace = 0;
    s->heap_count = 0;
    s->memory_used = 0;
    s->net = NULL;
    s->run = NULL;
    for (unsigned i = 0; i < 4; i++) {
        s->random[i] = sim_hash(seed, i);
    }
}
