/*
 * What a choice costs by each kind of balancing, with 10 and 100 servers: of weights 1 and of 1 to 10, with as many
 * requests under way as servers; all of them, or nine in ten, to be chosen among. Prints nanoseconds a choice with
 * its begin and end: the median of the batches, and the tenth part that is below all others, which says what it costs
 * while nobody else uses the machine. The goal: 50 ns at 100 servers. Of hash without its table every choice is what
 * only the first of a key's slot after a change is with it.
 *
 *   micro_balance [KIND]     one alone, for instructions by callgrind: 524,288 choices a figure
 */
#include "actions/upstream/balance.h"

#include <stdio.h>
#include <time.h>

#define BATCH   64u
#define BATCHES 8192u

struct run {
    struct ag_balance b;
    struct ag_balance_set among;
    uint32_t count;
    bool weighted;
    int held[AG_BALANCE_SERVERS]; /* servers of the requests under way, oldest first from `next` */
    uint32_t next;
    uint64_t key;
};

static const char *only; /* NULL: every kind */

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

static void begin(struct run *r, enum ag_balance_kind kind, bool settle)
{
    ag_balance_init(&r->b, kind, 7);
    r->among = (struct ag_balance_set){0};
    r->next = 0;
    for (uint32_t i = 0; i < r->count; i++) {
        ag_balance_put(&r->b, i, r->weighted ? 1 + i % 10 : 1,
                       (i + 1) * UINT64_C(0x9e3779b97f4a7c15));
        ag_balance_set_add(&r->among, i);
        ag_balance_observe(&r->b, i, 1000 + i, 1);
        r->held[i] = -1;
    }
    AG_ASSERT(!settle || ag_balance_settle(&r->b) == AG_OK);
}

/* One request ends, another begins. */
static inline void turn(struct run *r)
{
    int *slot = &r->held[r->next];

    r->next = r->next + 1 < r->count ? r->next + 1 : 0;
    if (*slot >= 0) {
        ag_balance_end(&r->b, (uint32_t)*slot);
    }
    r->key += UINT64_C(0x9e3779b97f4a7c15);
    *slot = ag_balance_pick(&r->b, &r->among, r->key);
    ag_balance_begin(&r->b, (uint32_t)*slot);
}

struct figures {
    double median, tenth;
};

static double per_choice(uint64_t batch_ns)
{
    return (double)batch_ns / BATCH;
}

static struct figures measure(struct run *r)
{
    static uint64_t times[BATCHES];

    for (uint32_t batch = 0; batch < BATCHES; batch++) {
        uint64_t start = now_ns();

        for (uint32_t i = 0; i < BATCH; i++) {
            turn(r);
        }
        times[batch] = now_ns() - start;
    }
    qsort(times, BATCHES, sizeof(times[0]), compare_u64);
    return (struct figures){.median = per_choice(times[BATCHES / 2]),
                            .tenth = per_choice(times[BATCHES / 10])};
}

static void show(struct run *r, const char *name, enum ag_balance_kind kind, bool settle)
{
    struct figures all, fewer;

    if (only && strcmp(only, name) != 0) {
        return;
    }
    begin(r, kind, settle);
    all = measure(r);
    ag_balance_deinit(&r->b);
    begin(r, kind, settle);
    for (uint32_t i = 0; i < r->count; i += 10) {
        ag_balance_set_remove(&r->among, i);
    }
    fewer = measure(r);
    ag_balance_deinit(&r->b);
    printf("%-16s %7u %8s %8.1f %6.1f %12.1f %6.1f\n", name, r->count,
           r->weighted ? "1 to 10" : "1", all.median, all.tenth, fewer.median, fewer.tenth);
}

int main(int argc, char **argv)
{
    static struct run r;

    only = argc > 1 ? argv[1] : NULL;
    printf("%-16s %7s %8s %8s %6s %12s %6s\n", "kind", "servers", "weights", "all ns", "tenth",
           "9 of 10 ns", "tenth");
    for (uint32_t count = 10; count <= 100; count += 90) {
        for (int weighted = 0; weighted < 2; weighted++) {
            r.count = count;
            r.weighted = weighted;
            show(&r, "round_robin", AG_BALANCE_ROUND_ROBIN, true);
            show(&r, "least_conn", AG_BALANCE_LEAST_CONN, true);
            show(&r, "random_two", AG_BALANCE_RANDOM_TWO, true);
            show(&r, "random_two ewma", AG_BALANCE_RANDOM_TWO_EWMA, true);
            show(&r, "hash", AG_BALANCE_HASH, true);
            show(&r, "hash, no table", AG_BALANCE_HASH, false);
        }
    }
    return 0;
}
