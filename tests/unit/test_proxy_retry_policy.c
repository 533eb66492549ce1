/*
 * Goal: retries never go beyond their budget, waits not beyond their bounds; what the config says of them
 * arrives, mistakes are met with their position.
 * Method: rounds of chance against the bound of the header; trees made by hand.
 */
#include "actions/upstream/proxy_retry_policy.h"

#include <criterion/criterion.h>
#include <stdlib.h>

/* ---- the budget ---- */

/* Whatever requests and retries come when: retries <= requests * percent + SPARE * (seconds + 1). */
Test(proxy_retry_policy, retries_stay_within_their_budget)
{
    unsigned seed = 3;

    for (unsigned round = 0; round < 300; round++) {
        struct ag_retry_policy p = ag_retry_default_policy();
        struct ag_retry_budget b = {0};
        uint64_t start = (uint64_t)rand_r(&seed), now = start, requests = 0, retries = 0, asked = 0;
        unsigned rate = 1 + (unsigned)rand_r(&seed) % 50, thirst = (unsigned)rand_r(&seed) % 101;

        p.percent = (uint8_t)(rand_r(&seed) % 101);
        for (unsigned i = 0; i < 3000; i++) {
            now += (uint64_t)rand_r(&seed) % rate;
            if (rand_r(&seed) % 100 < 2) {
                now += 5000; /* silence saves nothing up */
            }
            ag_retry_save(&b, &p);
            requests++;
            if ((unsigned)rand_r(&seed) % 100 < thirst) {
                retries += ag_retry_take(&b, now);
                asked++;
            }
            cr_assert_leq(retries * 1000,
                          requests * p.percent * 10 + AG_RETRY_SPARE * (now - start + 1000));
        }
        cr_expect_eq(b.taken, retries);
        cr_expect_eq(b.refused, asked - retries);
    }
}

Test(proxy_retry_policy, all_of_the_budget_can_be_had)
{
    struct ag_retry_policy p = ag_retry_default_policy();
    struct ag_retry_budget b = {0};
    unsigned retries = 0;

    for (unsigned i = 0; i < 1000; i++) { /* in one moment */
        ag_retry_save(&b, &p);
        retries += ag_retry_take(&b, 1000000);
    }
    cr_expect_geq(retries, 1000 * p.percent / 100);
    cr_expect_leq(retries, 1000 * p.percent / 100 + AG_RETRY_SPARE);
    retries = 0;
    for (unsigned i = 0; i < 100; i++) { /* without any request */
        retries += ag_retry_take(&b, 1000000 + 1000);
    }
    cr_expect_geq(retries, AG_RETRY_SPARE);
    cr_expect_leq(retries, AG_RETRY_SPARE + 1);
}

Test(proxy_retry_policy, savings_are_bounded)
{
    struct ag_retry_policy p = {.percent = 100};
    struct ag_retry_budget b = {0};
    unsigned retries = 0;

    for (unsigned i = 0; i < 100000; i++) {
        ag_retry_save(&b, &p);
    }
    while (ag_retry_take(&b, 1000)) {
        retries++;
    }
    cr_expect_eq(retries, AG_RETRY_SAVED + AG_RETRY_SPARE);
}

/* ---- waits ---- */

Test(proxy_retry_policy, waits_double_up_to_their_bound)
{
    const struct ag_retry_policy p = {.backoff_ms = 25, .max_backoff_ms = 150};
    const uint32_t most[] = {25, 50, 100, 150, 150, 150, 150, 150, 150, 150};
    unsigned seed = 1;

    for (unsigned retry = 1; retry <= AG_RETRY_ATTEMPTS_MAX; retry++) {
        uint32_t longest = 0, shortest = UINT32_MAX;

        for (unsigned i = 0; i < 20000; i++) {
            uint32_t ms = ag_retry_delay_ms(&p, retry, (uint64_t)rand_r(&seed));

            longest = ms > longest ? ms : longest;
            shortest = ms < shortest ? ms : shortest;
        }
        cr_expect_eq(longest, most[retry - 1]);
        cr_expect_eq(shortest, 0);
    }
}

/* ---- settings ---- */

static struct ag_arena arena;
static struct ag_diags diags;
static const struct ag_source source = {.name = "t"};

static void setup(void)
{
    ag_arena_init(&arena, NULL, 0);
    ag_diags_init(&diags, &arena);
}

static void teardown(void)
{
    ag_arena_release(&arena);
}

TestSuite(proxy_retry_policy, .init = setup, .fini = teardown);

static struct ag_node *node(enum ag_node_kind kind, const char *key, const char *text, uint32_t col)
{
    struct ag_node *n = ag_node_new(&arena, kind, (struct ag_pos){&source, 1, col});

    n->key = ag_span_str(key ? key : "");
    n->key_pos = (struct ag_pos){&source, 1, col};
    n->text = ag_span_str(text ? text : "");
    return n;
}

/* {retry: {key: text}}, the value at column 7. */
static bool read_one(const char *key, const char *text, struct ag_retry_policy *io)
{
    struct ag_node *root = node(AG_NODE_MAP, NULL, NULL, 1);
    struct ag_node *retry = node(AG_NODE_MAP, "retry", NULL, 1);

    ag_node_append(root, retry);
    ag_node_append(retry, node(AG_NODE_SCALAR, key, text, 7));
    return ag_retry_read(root, &diags, io);
}

Test(proxy_retry_policy, nothing_said_is_the_default)
{
    struct ag_retry_policy p = ag_retry_default_policy();
    struct ag_node *root = node(AG_NODE_MAP, NULL, NULL, 1);

    cr_expect(ag_retry_read(NULL, &diags, &p));
    cr_expect(ag_retry_read(root, &diags, &p));
    cr_expect(p.elsewhere);
    cr_expect_eq(p.attempts, 2);
    cr_expect_eq(p.buffer_bytes, 0, "nothing is kept");
    cr_expect_not(ag_retry_has_cause(&p, AG_RETRY_TIMEOUT));
    cr_expect_not(ag_retry_has_status(&p, 503));
}

Test(proxy_retry_policy, words)
{
    struct ag_retry_policy p = ag_retry_default_policy();
    struct ag_node *root = node(AG_NODE_MAP, NULL, NULL, 1);

    ag_node_append(root, node(AG_NODE_SCALAR, "retry", "off", 1));
    cr_expect(ag_retry_read(root, &diags, &p));
    cr_expect_eq(p.attempts, 1);
    root->first->text = AG_SPAN("all");
    cr_expect(ag_retry_read(root, &diags, &p));
    cr_expect_eq(p.attempts, 2);
    cr_expect(p.all_methods);
    cr_expect_eq(p.buffer_bytes, 65536);
    root->first->text = AG_SPAN("idempotent");
    cr_expect(ag_retry_read(root, &diags, &p));
    cr_expect_not(p.all_methods);
    root->first->text = AG_SPAN("some");
    cr_expect_not(ag_retry_read(root, &diags, &p));
}

Test(proxy_retry_policy, each_setting)
{
    struct ag_retry_policy p = ag_retry_default_policy();

    cr_expect(read_one("attempts", "4", &p) && p.attempts == 4);
    cr_expect(read_one("backoff", "10ms", &p) && p.backoff_ms == 10);
    cr_expect(read_one("max_backoff", "2s", &p) && p.max_backoff_ms == 2000);
    cr_expect(read_one("per_try", "5s", &p) && p.per_try_ms == 5000);
    cr_expect(read_one("buffer", "16k", &p) && p.buffer_bytes == 16384);
    cr_expect(read_one("buffer", "0", &p) && p.buffer_bytes == 0);
    cr_expect(read_one("budget", "35%", &p) && p.percent == 35);
    cr_expect(read_one("methods", "all", &p) && p.all_methods);
    cr_expect(read_one("on", "503", &p));
    cr_expect(ag_retry_has_status(&p, 503) && !ag_retry_has_status(&p, 502) &&
              !ag_retry_has_status(&p, 999) && !ag_retry_has_status(&p, 200));
    cr_expect_not(ag_retry_has_cause(&p, AG_RETRY_RESET), "what is written is all");
    cr_expect(read_one("on", "timeout", &p));
    cr_expect_not(ag_retry_has_status(&p, 503));
    cr_expect(ag_retry_has_cause(&p, AG_RETRY_TIMEOUT));
    cr_expect_eq(diags.errors, 0);
}

Test(proxy_retry_policy, mistakes)
{
    static const char *const wrong[][2] = {
        {"attempts", "0"}, {"attempts", "11"}, {"on", "sometimes"},  {"on", "200"},
        {"on", "600"},     {"methods", "GET"}, {"backoff", "2m"},    {"backoff", "2s"},
        {"buffer", "2m"},  {"budget", "20"},   {"budget", "101%"},   {"budget", "%"},
        {"budget", "x%"},  {"per_try", "1h"},  {"max_backoff", "1"}, {"atempts", "2"},
    };

    for (size_t i = 0; i < AG_COUNT(wrong); i++) {
        struct ag_retry_policy p = ag_retry_default_policy();
        uint32_t before = (uint32_t)diags.errors;
        bool ok = read_one(wrong[i][0], wrong[i][1], &p);

        cr_expect(!ok || diags.errors > before, "%s: %s", wrong[i][0], wrong[i][1]);
        cr_expect_eq(diags.errors, before + 1, "%s: %s", wrong[i][0], wrong[i][1]);
    }
}
