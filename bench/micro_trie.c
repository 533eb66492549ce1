/*
 * What a route lookup costs with 10 and with 100,000 routes: uniformly random hits and misses over all
 * routes, four segments deep; half of the routes literal, a quarter each with a parameter and a splat.
 * Prints nanoseconds a lookup (the median of the batches), build time and memory. PERF.md has the goals:
 * 60 ns, 120 ns, and no more than twice as much.
 */
#include "router/trie.h"

#include <stdio.h>
#include <time.h>

#define BATCH   64u /* requests made, then looked up: as hot as a server has them */
#define BATCHES 4096u

struct set {
    struct ag_pattern *patterns;
    struct ag_trie_entry *entries;
    struct ag_segment *segments; /* 4 a route */
    struct ag_trie *trie;
};

struct queries {
    struct ag_trie_query v[BATCH];
    char path[BATCH][48];
};

static uint64_t now_ns(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static uint32_t below(uint32_t n)
{
    static uint64_t state = 88172645463325252u;

    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 32) % n;
}

static void *must_alloc(size_t count, size_t size)
{
    void *p = calloc(count, size);

    AG_ASSERT(p);
    return p;
}

static struct ag_span text(const char *word, uint32_t value)
{
    char *s = must_alloc(1, 24);

    (void)snprintf(s, 24, "%s%u", word, value);
    return ag_span_str(s);
}

static void make_routes(struct set *s, uint32_t count)
{
    s->patterns = must_alloc(count, sizeof(*s->patterns));
    s->entries = must_alloc(count, sizeof(*s->entries));
    s->segments = must_alloc(4 * (size_t)count, sizeof(*s->segments));
    for (uint32_t i = 0; i < count; i++) {
        struct ag_segment *seg = &s->segments[4 * (size_t)i];

        seg[0] = (struct ag_segment){AG_SEG_EXACT, AG_SPAN("api")};
        seg[1] = (struct ag_segment){AG_SEG_EXACT, text("team", i % 300)};
        seg[2] = (struct ag_segment){AG_SEG_EXACT, text("item", i)};
        seg[3] = (struct ag_segment){AG_SEG_EXACT, AG_SPAN("edit")};
        if (i % 4 >= 2) {
            seg[3] = (struct ag_segment){i % 4 == 2 ? AG_SEG_PARAM : AG_SEG_SPLAT, AG_SPAN("p")};
        }
        s->patterns[i] = (struct ag_pattern){.count = 4, .segments = seg};
        s->entries[i] = (struct ag_trie_entry){&s->patterns[i], 0, i};
    }
}

static void make_queries(struct queries *q, uint32_t routes, bool hits)
{
    for (uint32_t i = 0; i < BATCH; i++) {
        uint32_t r = below(routes);
        int n = snprintf(q->path[i], sizeof(q->path[i]), "/api/team%u/%s%u/edit", r % 300,
                         hits ? "item" : "itex", r);

        q->v[i] = (struct ag_trie_query){.host = AG_SPAN("www.example.com"),
                                         .port = 8080,
                                         .path = ag_span(q->path[i], (size_t)n),
                                         .method = AG_METHOD_GET};
    }
}

static int compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

/* The median over all batches. */
static double measure(const struct ag_trie *t, uint32_t routes, bool hits)
{
    static uint64_t times[BATCHES];
    static struct queries q;
    uint64_t middle;

    for (uint32_t batch = 0; batch < BATCHES; batch++) {
        uint32_t found = 0;
        uint64_t start;

        make_queries(&q, routes, hits);
        start = now_ns();
        for (uint32_t i = 0; i < BATCH; i++) {
            found += ag_trie_lookup(t, &q.v[i]) != AG_TRIE_NONE;
        }
        times[batch] = now_ns() - start;
        AG_ASSERT(found == (hits ? BATCH : 0));
    }
    qsort(times, BATCHES, sizeof(times[0]), compare_u64);
    middle = times[BATCHES / 2];
    return (double)middle / BATCH;
}

int main(void)
{
    static const uint32_t counts[] = {10, 1000, 100000};
    double result[AG_COUNT(counts)][2];

    printf("%8s %9s %9s %10s %12s\n", "routes", "hit ns", "miss ns", "build ms", "bytes");
    for (size_t i = 0; i < AG_COUNT(counts); i++) {
        struct set s;
        uint64_t start, built;

        make_routes(&s, counts[i]);
        start = now_ns();
        s.trie = ag_trie_build(s.entries, counts[i]);
        built = now_ns() - start;
        for (int hits = 1; hits >= 0; hits--) {
            result[i][hits] = measure(s.trie, counts[i], hits);
        }
        printf("%8u %9.1f %9.1f %10.2f %12zu\n", counts[i], result[i][1], result[i][0],
               (double)built / 1e6, ag_trie_bytes(s.trie));
        ag_trie_free(s.trie);
    }
    printf("ratio 100000 : 10   hits %.2f   misses %.2f\n", result[2][1] / result[0][1],
           result[2][0] / result[0][0]);
    return 0;
}
