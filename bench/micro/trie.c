/*
 * Route lookups with 10, 1,000 and 100,000 routes: uniformly random hits and misses over all routes, four segments
 * deep; half of the routes literal, a quarter each with a parameter and a splat.
 */
#include "router/trie.h"

#include "bench/micro/micro.h"

#include <stdio.h>

#define BATCH 64u /* requests made, then looked up: as hot as a server has them */

struct of {
    uint32_t routes;
    bool hits;
};

static struct ag_arena memory;
static struct ag_pattern *patterns;
static struct ag_trie_entry *entries;
static struct ag_trie *trie;
static struct ag_trie_query queries[BATCH];
static char paths[BATCH][48];

static void *must_alloc(size_t count, size_t size)
{
    void *p = ag_arena_zalloc(&memory, count * size);

    AG_ASSERT(p);
    return p;
}

static struct ag_span text(const char *word, uint32_t value)
{
    return ag_span_str(ag_arena_printf(&memory, "%s%u", word, value));
}

static void set_up(const struct micro *m)
{
    const struct of *of = m->of;

    ag_arena_init(&memory, NULL, 0);
    patterns = must_alloc(of->routes, sizeof(*patterns));
    entries = must_alloc(of->routes, sizeof(*entries));
    for (uint32_t i = 0; i < of->routes; i++) {
        struct ag_segment *seg = must_alloc(4, sizeof(*seg));

        seg[0] = (struct ag_segment){AG_SEG_EXACT, AG_SPAN("api")};
        seg[1] = (struct ag_segment){AG_SEG_EXACT, text("team", i % 300)};
        seg[2] = (struct ag_segment){AG_SEG_EXACT, text("item", i)};
        seg[3] = (struct ag_segment){AG_SEG_EXACT, AG_SPAN("edit")};
        if (i % 4 >= 2) {
            seg[3] = (struct ag_segment){i % 4 == 2 ? AG_SEG_PARAM : AG_SEG_SPLAT, AG_SPAN("p")};
        }
        patterns[i] = (struct ag_pattern){.count = 4, .segments = seg};
        entries[i] = (struct ag_trie_entry){&patterns[i], 0, i};
    }
    trie = ag_trie_build(entries, of->routes);
}

static void tear_down(const struct micro *m)
{
    (void)m;
    ag_trie_free(trie);
    ag_arena_release(&memory);
}

static void make_queries(const struct micro *m)
{
    const struct of *of = m->of;

    for (uint32_t i = 0; i < BATCH; i++) {
        uint32_t r = micro_below(of->routes);
        int n = snprintf(paths[i], sizeof(paths[i]), "/api/team%u/%s%u/edit", r % 300,
                         of->hits ? "item" : "itex", r);

        queries[i] = (struct ag_trie_query){.host = AG_SPAN("www.example.com"),
                                            .port = 8080,
                                            .path = ag_span(paths[i], (size_t)n),
                                            .method = AG_METHOD_GET};
    }
}

static void look_up(const struct micro *m)
{
    const struct of *of = m->of;
    uint32_t found = 0;

    for (uint32_t i = 0; i < BATCH; i++) {
        found += ag_trie_lookup(trie, &queries[i]) != AG_TRIE_NONE;
    }
    AG_ASSERT(found == (of->hits ? BATCH : 0));
}

static void build(const struct micro *m)
{
    ag_trie_free(ag_trie_build(entries, ((const struct of *)m->of)->routes));
}

#define LOOKUPS(told, routes, goal)                                                           \
    {"trie, " told " routes, hit",    BATCH, goal, set_up, make_queries, look_up, tear_down,  \
     &(const struct of){routes, true}},                                                       \
    {                                                                                         \
        "trie, " told " routes, miss", BATCH, goal, set_up, make_queries, look_up, tear_down, \
            &(const struct of)                                                                \
        {                                                                                     \
            routes, false                                                                     \
        }                                                                                     \
    }
static const struct micro all[] = {
    LOOKUPS("10", 10, 60),
    LOOKUPS("1,000", 1000, 0),
    LOOKUPS("100,000", 100000, 120),
    {"trie, built, a route of 1,000", 1000, 0, set_up, NULL, build, tear_down,
     &(const struct of){1000, false}},
};
const struct micro_list micro_trie = {all, AG_COUNT(all)};
