/*
 * Goal: the trie chooses as SPEC.md section 4 says.
 * Method: random sets of routes and requests over small alphabets, so that nearly every request has
 * several candidates; each answer is compared with a matcher that looks at all routes one by one.
 * Examples by hand, and a set of routes that would make a careless search exponential.
 */
#include "router/trie.h"

#include <criterion/criterion.h>
#include <stdio.h>

#define ROUTES_MAX 40u

static uint64_t seed;

static uint32_t below(uint32_t n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 32) % n;
}

struct set {
    struct ag_arena arena;
    struct ag_pattern patterns[ROUTES_MAX];
    struct ag_trie_entry entries[ROUTES_MAX];
    uint32_t count;
};

static const char *const hosts[] = {"", "", "", "a.test", "x.a.test", "*.test", "*.a.test"};
static const char *const asked[] = {"",       "a.test", "A.Test.", "x.a.test", "y.x.a.test",
                                    "b.test", "test",   "other",   ".a.test",  "xa.test"};
static const char *const words[] = {"a", "b", "ab", "", "a%2Fb"};
static const struct ag_span others[] = {AG_SPAN_INIT("PURGE"), AG_SPAN_INIT("LOCK")};

static struct ag_segment random_segment(bool last)
{
    uint32_t r = below(10);

    if (r < 6) {
        return (struct ag_segment){AG_SEG_EXACT, ag_span_str(words[below(AG_COUNT(words))])};
    }
    return (struct ag_segment){last && r > 7 ? AG_SEG_SPLAT : AG_SEG_PARAM, AG_SPAN("p")};
}

static void random_pattern(struct set *s, struct ag_pattern *p)
{
    uint16_t count = (uint16_t)(1 + below(5));
    struct ag_segment *segments = ag_arena_alloc(&s->arena, count * sizeof(*segments));

    *p = (struct ag_pattern){.host = ag_span_str(hosts[below(AG_COUNT(hosts))]),
                             .port = (uint16_t)(below(4) == 0 ? 80 + below(2) : 0),
                             .count = count,
                             .segments = segments};
    for (uint16_t i = 0; i < count; i++) {
        segments[i] = random_segment(i + 1 == count);
    }
    if (below(2) == 0) {
        p->methods = below(1u << AG_METHODS) & ~1u & ~(1u << AG_METHOD_TRACE);
    }
    if (below(8) == 0) {
        p->other_methods = &others[below(2)];
        p->other_count = 1;
    }
}

static void random_set(struct set *s)
{
    ag_arena_init(&s->arena, NULL, 0);
    s->count = 1 + below(ROUTES_MAX);
    for (uint32_t i = 0; i < s->count; i++) {
        random_pattern(s, &s->patterns[i]);
        s->entries[i] = (struct ag_trie_entry){&s->patterns[i], 0, i};
        if (below(5) == 0) {
            s->entries[i].methods = 1u << AG_METHOD_GET | 1u << AG_METHOD_HEAD;
        }
    }
}

/* ---- the naive matcher ---- */

static bool host_matches(const struct ag_pattern *p, struct ag_span host)
{
    struct ag_span suffix;

    if (host.len && host.ptr[host.len - 1] == '.') {
        host.len--;
    }
    if (p->host.len == 0) {
        return true;
    }
    if (p->host.ptr[0] != '*') {
        return ag_span_ieq(p->host, host);
    }
    suffix = ag_span_sub(p->host, 1, p->host.len);
    return host.len > suffix.len && host.ptr[0] != '.' &&
           ag_span_ieq(suffix, ag_span_sub(host, host.len - suffix.len, host.len));
}

static bool path_matches(const struct ag_pattern *p, struct ag_span path)
{
    size_t at = 1;

    for (uint16_t i = 0; i < p->count; i++) {
        struct ag_span rest, s;

        if (at > path.len) {
            return false;
        }
        rest = ag_span_sub(path, at, path.len);
        s = ag_span_sub(rest, 0, ag_span_find(rest, '/'));
        if (p->segments[i].kind == AG_SEG_SPLAT) {
            return true;
        }
        if (p->segments[i].kind == AG_SEG_PARAM ? s.len == 0
                                                : !ag_span_eq(s, p->segments[i].text)) {
            return false;
        }
        at += s.len + 1;
    }
    return at == path.len + 1;
}

static bool is_named(const struct ag_trie_entry *e)
{
    return e->pattern->methods || e->pattern->other_count;
}

static bool has(uint32_t methods, enum ag_method m)
{
    return methods & 1u << m || (m == AG_METHOD_HEAD && methods & 1u << AG_METHOD_GET);
}

static bool takes(const struct ag_trie_entry *e, const struct ag_trie_query *q)
{
    if (!is_named(e)) {
        if (e->methods) {
            return has(e->methods, q->method);
        }
        return q->method != AG_METHOD_TRACE && q->method != AG_METHOD_CONNECT;
    }
    for (uint16_t i = 0; i < e->pattern->other_count && q->method == AG_METHOD_OTHER; i++) {
        if (ag_span_eq(e->pattern->other_methods[i], q->method_name)) {
            return true;
        }
    }
    return q->method != AG_METHOD_OTHER && has(e->pattern->methods, q->method);
}

static int host_rank(const struct ag_pattern *p)
{
    if (p->host.len == 0) {
        return 1000;
    }
    return p->host.ptr[0] == '*' ? 500 - (int)p->host.len : 0;
}

/* Negative: `a` goes before `b`; both match the request. */
static int compare(const struct ag_trie_entry *a, const struct ag_trie_entry *b,
                   const struct ag_trie_query *q)
{
    const struct ag_pattern *p = a->pattern, *o = b->pattern;
    int d = host_rank(p) - host_rank(o);

    if (d == 0) {
        d = (p->port == 0) - (o->port == 0);
    }
    for (uint16_t i = 0; d == 0 && i < p->count && i < o->count; i++) {
        d = (int)p->segments[i].kind - (int)o->segments[i].kind;
    }
    if (d == 0 && q->method == AG_METHOD_HEAD) {
        d = !(p->methods & 1u << AG_METHOD_HEAD) - !(o->methods & 1u << AG_METHOD_HEAD);
    }
    if (d == 0) {
        d = is_named(b) - is_named(a);
    }
    return d ? d : (int)a->id - (int)b->id;
}

static bool matches(const struct ag_trie_entry *e, const struct ag_trie_query *q)
{
    return (e->pattern->port == 0 || e->pattern->port == q->port) &&
           host_matches(e->pattern, q->host) && path_matches(e->pattern, q->path);
}

static uint32_t naive(const struct set *s, const struct ag_trie_query *q, uint32_t *out_allowed)
{
    const struct ag_trie_entry *best = NULL;

    *out_allowed = 0;
    for (uint32_t i = 0; i < s->count; i++) {
        const struct ag_trie_entry *e = &s->entries[i];

        if (!matches(e, q)) {
            continue;
        }
        for (unsigned m = 1; m < AG_METHODS; m++) {
            struct ag_trie_query other = *q;

            other.method = (enum ag_method)m;
            *out_allowed |= takes(e, &other) ? 1u << m : 0;
        }
        *out_allowed |= e->pattern->other_count || (!is_named(e) && !e->methods);
        if (takes(e, q) && (!best || compare(e, best, q) < 0)) {
            best = e;
        }
    }
    return best ? best->id : AG_TRIE_NONE;
}

/* ---- the comparison ---- */

static struct ag_trie_query random_query(char *path, size_t cap)
{
    size_t n = 0;
    uint32_t count = 1 + below(6);
    struct ag_trie_query q = {.host = ag_span_str(asked[below(AG_COUNT(asked))]),
                              .port = (uint16_t)(79 + below(3)),
                              .method = (enum ag_method)below(AG_METHODS)};

    for (uint32_t i = 0; i < count; i++) {
        const char *word = below(8) == 0 ? "zz" : words[below(AG_COUNT(words))];

        n += (size_t)snprintf(path + n, cap - n, "/%s", word);
    }
    q.path = ag_span(path, n);
    if (q.method == AG_METHOD_OTHER) {
        q.method_name = below(3) ? others[below(2)] : AG_SPAN("X");
    }
    return q;
}

Test(trie, agrees_with_the_naive_matcher)
{
    uint32_t hits = 0, refused = 0;

    for (uint64_t round = 1; round <= 2000; round++) {
        struct set s;
        struct ag_trie *t;

        seed = round * 0x9e3779b97f4a7c15u;
        random_set(&s);
        t = ag_trie_build(s.entries, s.count);
        for (int i = 0; i < 60; i++) {
            char path[128];
            struct ag_trie_query q = random_query(path, sizeof(path));
            uint32_t allowed, want = naive(&s, &q, &allowed), got = ag_trie_lookup(t, &q);

            cr_assert_eq(got, want, "round %lu: %s on \"%.*s\" port %u method %d: %u, not %u",
                         (unsigned long)round, path, (int)q.host.len, (const char *)q.host.ptr,
                         q.port, q.method, got, want);
            cr_assert_eq(ag_trie_allowed(t, &q), allowed, "round %lu: %s", (unsigned long)round,
                         path);
            hits += want != AG_TRIE_NONE;
            refused += want == AG_TRIE_NONE && allowed != 0;
        }
        ag_trie_free(t);
        ag_arena_release(&s.arena);
    }
    cr_assert_gt(hits, 10000, "the requests must find something to be a test");
    cr_assert_gt(refused, 1000);
}

/* ---- by hand ---- */

static struct ag_segment literal(const char *text)
{
    return (struct ag_segment){AG_SEG_EXACT, ag_span_str(text)};
}

static const struct ag_segment param = {AG_SEG_PARAM, AG_SPAN_INIT("p")};
static const struct ag_segment splat = {AG_SEG_SPLAT, AG_SPAN_INIT("")};

static uint32_t get(const struct ag_trie *t, const char *path)
{
    struct ag_trie_query q = {.path = ag_span_str(path), .method = AG_METHOD_GET};

    return ag_trie_lookup(t, &q);
}

Test(trie, empty)
{
    struct ag_trie *t = ag_trie_build(NULL, 0);

    cr_assert_eq(get(t, "/"), AG_TRIE_NONE);
    cr_assert_eq(get(t, ""), AG_TRIE_NONE);
    cr_assert_eq(get(t, "*"), AG_TRIE_NONE);
    ag_trie_free(t);
}

Test(trie, chains_split_where_routes_part)
{
    struct ag_segment a[] = {literal("api"), literal("v1"), literal("users"), param};
    struct ag_segment b[] = {literal("api"), literal("v1"), literal("items"), splat};
    struct ag_segment c[] = {literal("api"), literal("v1")};
    struct ag_pattern p[] = {
        {.count = 4, .segments = a}, {.count = 4, .segments = b}, {.count = 2, .segments = c}};
    struct ag_trie_entry e[] = {{&p[0], 0, 0}, {&p[1], 0, 1}, {&p[2], 0, 2}};
    struct ag_trie *t = ag_trie_build(e, 3);

    cr_assert_eq(get(t, "/api/v1/users/7"), 0);
    cr_assert_eq(get(t, "/api/v1/users/"), AG_TRIE_NONE, "a parameter is not empty");
    cr_assert_eq(get(t, "/api/v1/users"), AG_TRIE_NONE);
    cr_assert_eq(get(t, "/api/v1/users/7/x"), AG_TRIE_NONE);
    cr_assert_eq(get(t, "/api/v1/items/"), 1, "a splat may be empty");
    cr_assert_eq(get(t, "/api/v1/items"), AG_TRIE_NONE);
    cr_assert_eq(get(t, "/api/v1/items/a/b"), 1);
    cr_assert_eq(get(t, "/api/v1"), 2);
    cr_assert_eq(get(t, "/api/v1/"), AG_TRIE_NONE);
    cr_assert_eq(get(t, "/api/v"), AG_TRIE_NONE);
    cr_assert_eq(get(t, "/api/v1/usersx/7"), AG_TRIE_NONE);
    cr_assert_eq(get(t, "/api"), AG_TRIE_NONE);
    ag_trie_free(t);
}

Test(trie, keeps_its_segments_after_the_patterns_are_gone)
{
    char text[] = "users";
    struct ag_segment a[] = {literal(text), param};
    struct ag_pattern p = {.count = 2, .segments = a};
    struct ag_trie_entry e = {&p, 0, 5};
    struct ag_trie *t = ag_trie_build(&e, 1);

    memset(text, 'x', sizeof(text));
    cr_assert_eq(get(t, "/users/7"), 5);
    cr_assert_eq(get(t, "/xxxxx/7"), AG_TRIE_NONE);
    ag_trie_free(t);
}

/* At each of 30 levels a literal and a parameter lead on: a search without bound would try 2^30 ways
 * before it gave the miss. */
Test(trie, backtracking_is_bounded, .timeout = 20)
{
    enum { LEVELS = 30 };
    static struct ag_segment segments[LEVELS * LEVELS][LEVELS + 1];
    static struct ag_pattern p[LEVELS * LEVELS];
    static struct ag_trie_entry e[LEVELS * LEVELS];
    uint32_t count = 0;
    char path[2 * LEVELS + 3];
    struct ag_trie *t;

    for (int i = 0; i < LEVELS; i++) {
        for (int k = 0; k < LEVELS; k++) {
            for (int level = 0; level < LEVELS; level++) {
                segments[count][level] = level == i || level == k ? param : literal("a");
            }
            segments[count][LEVELS] = literal("end");
            p[count] = (struct ag_pattern){.count = LEVELS + 1, .segments = segments[count]};
            e[count] = (struct ag_trie_entry){&p[count], 0, count};
            count++;
        }
    }
    t = ag_trie_build(e, count);
    for (int i = 0; i < LEVELS; i++) {
        memcpy(path + 2 * i, "/a", 2);
    }
    memcpy(path + 2 * LEVELS, "/x", 3);
    for (int i = 0; i < 100; i++) {
        cr_assert_eq(get(t, path), AG_TRIE_NONE);
    }
    ag_trie_free(t);
}

Test(trie, many_hosts)
{
    enum { HOSTS = 3000 };
    static struct ag_pattern p[HOSTS];
    static struct ag_trie_entry e[HOSTS];
    static char names[HOSTS][32];
    struct ag_segment root = literal("");
    struct ag_trie_query q = {.path = AG_SPAN("/"), .method = AG_METHOD_GET};
    struct ag_trie *t;

    for (uint32_t i = 0; i < HOSTS; i++) {
        (void)snprintf(names[i], sizeof(names[i]), i % 2 ? "*.h%u.test" : "h%u.test", i);
        p[i] = (struct ag_pattern){.host = ag_span_str(names[i]), .count = 1, .segments = &root};
        e[i] = (struct ag_trie_entry){&p[i], 0, i};
    }
    t = ag_trie_build(e, HOSTS);
    for (uint32_t i = 0; i < HOSTS; i++) {
        char host[48];

        (void)snprintf(host, sizeof(host), i % 2 ? "www.h%u.test" : "h%u.test", i);
        q.host = ag_span_str(host);
        cr_assert_eq(ag_trie_lookup(t, &q), i);
    }
    q.host = AG_SPAN("www.h0.test");
    cr_assert_eq(ag_trie_lookup(t, &q), AG_TRIE_NONE);
    ag_trie_free(t);
}
