/*
 * usage: micro [PART]            nanoseconds of the operations whose names have PART in them (all)
 *        micro --count [PART]    runs a fixed number of each and tells it, for bench/instructions_check.py
 *
 * Told are the median of the batches, and what a tenth of them is below and above: the first says what an operation
 * costs while nobody else uses the machine.
 */
#include "bench/micro/micro.h"

#include <stdio.h>
#include <time.h>

#define BATCHES_MIN   64u
#define BATCHES_MAX   8192u
#define TIME_NS       UINT64_C(200000000) /* of an operation, warming left out */
#define COUNT_BATCHES 4u

static const struct micro_list *const lists[] = {&micro_h1,   &micro_hpack, &micro_h2,
                                                 &micro_trie, &micro_timer, &micro_balance};

uint32_t micro_below(uint32_t n)
{
    static uint64_t state = 88172645463325252u;

    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 32) % n;
}

static uint64_t now_ns(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static int compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static void call(void (*step)(const struct micro *), const struct micro *m)
{
    if (step) {
        step(m);
    }
}

/* Callgrind collects what is in here. */
__attribute__((noinline, used)) static void micro_batch(const struct micro *m)
{
    m->run(m);
}

/* Callgrind writes down what it has collected at the end of it. */
__attribute__((noinline, used)) static void micro_count(const struct micro *m)
{
    for (uint32_t i = 0; i < COUNT_BATCHES; i++) {
        call(m->prepare, m);
        micro_batch(m);
    }
}

static uint64_t timed(const struct micro *m)
{
    uint64_t start;

    call(m->prepare, m);
    start = now_ns();
    micro_batch(m);
    return now_ns() - start;
}

static double of_one(const struct micro *m, uint64_t batch_ns)
{
    return (double)batch_ns / m->batch;
}

static void measure(const struct micro *m)
{
    static uint64_t took[BATCHES_MAX];
    uint64_t warm = 0;
    uint32_t count;

    for (uint32_t i = 0; i < BATCHES_MIN; i++) {
        warm += timed(m);
    }
    count = (uint32_t)(TIME_NS * BATCHES_MIN / (warm + 1));
    count = count < BATCHES_MIN ? BATCHES_MIN : count > BATCHES_MAX ? BATCHES_MAX : count;
    for (uint32_t i = 0; i < count; i++) {
        took[i] = timed(m);
    }
    qsort(took, count, sizeof(took[0]), compare_u64);
    printf("%-58s %9.1f %9.1f %9.1f", m->name, of_one(m, took[count / 2]),
           of_one(m, took[count / 10]), of_one(m, took[count - count / 10 - 1]));
    if (m->goal_ns) {
        printf(" %6u", m->goal_ns);
    }
    printf("\n");
}

int main(int argc, char **argv)
{
    bool counts = argc > 1 && strcmp(argv[1], "--count") == 0;
    const char *part = argc > 1 + counts ? argv[1 + counts] : "";

    if (!counts) {
        printf("%-58s %9s %9s %9s %6s\n", "ns per operation", "median", "10 %", "90 %", "goal");
    }
    for (size_t i = 0; i < AG_COUNT(lists); i++) {
        for (size_t j = 0; j < lists[i]->count; j++) {
            const struct micro *m = &lists[i]->v[j];

            if (!strstr(m->name, part)) {
                continue;
            }
            call(m->set_up, m);
            if (counts) {
                call(m->prepare, m);
                m->run(m); /* what is done the first time alone */
                micro_count(m);
                printf("%u\t%s\n", COUNT_BATCHES * m->batch, m->name);
            } else {
                measure(m);
            }
            call(m->tear_down, m);
            (void)fflush(stdout);
        }
    }
    return 0;
}
