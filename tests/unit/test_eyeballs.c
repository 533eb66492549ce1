/*
 * Goal: every address is tried once; families take turns, beginning with the one that worked; what has failed waits
 * behind what has not, and is forgiven; the next attempt begins after the delay, or when none is under way.
 * Method: plans spelt out as text ("6a 4a 6b": family and last byte); then random ones against what must hold of all.
 */
#include "actions/upstream/eyeballs.h"
#include "engine/random.h"

#include <criterion/criterion.h>
#include <stdio.h>

/* "6a": fd00::a; "4b": 10.0.0.11. */
static union ag_addr addr_of(const char *text)
{
    union ag_addr a = {0};
    char host[32];

    if (text[0] == '6') {
        (void)snprintf(host, sizeof(host), "fd00::%c", text[1]);
    } else {
        (void)snprintf(host, sizeof(host), "10.0.0.%d", text[1] - 'a' + 10);
    }
    cr_assert_eq(ag_addr_parse(ag_span_str(host), 80, &a), AG_OK);
    return a;
}

static void check_turn(const struct ag_eyeballs *e, uint32_t turn, uint64_t now_ms,
                       const char *given, const char *want)
{
    union ag_addr addrs[AG_RESOLVE_MAX];
    struct ag_eyeballs_plan p;
    char text[64] = "";
    size_t n = 0;
    uint32_t count = 0;

    for (const char *at = given; *at; at += at[2] ? 3 : 2) {
        addrs[count++] = addr_of(at);
    }
    ag_eyeballs_plan(e, addrs, count, turn, now_ms, &p);
    for (uint8_t i = 0; i < p.count; i++) {
        n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%.2s", i ? " " : "",
                              given + 3u * p.order[i]);
    }
    cr_expect_str_eq(text, want);
}

static void check_at(const struct ag_eyeballs *e, uint64_t now_ms, const char *given,
                     const char *want)
{
    check_turn(e, 0, now_ms, given, want);
}

static struct ag_eyeballs memory;

static void failed(const char *text, uint64_t at_ms)
{
    union ag_addr a = addr_of(text);

    ag_eyeballs_failed(&memory, &a, at_ms);
}

static void worked(const char *text)
{
    union ag_addr a = addr_of(text);

    ag_eyeballs_worked(&memory, &a);
}

Test(eyeballs, as_the_resolver_has_them)
{
    check_at(&memory, 1000, "6a 4a 6b 4b", "6a 4a 6b 4b");
    check_at(&memory, 1000, "4a 6a 4b", "4a 6a 4b");
    check_at(&memory, 1000, "4a 4b 4c", "4a 4b 4c");
    check_at(&memory, 1000, "6a 6b 4a 4b 4c", "6a 4a 6b 4b 4c");
    check_at(&memory, 1000, "", "");
}

Test(eyeballs, the_family_that_worked_goes_first)
{
    worked("4z");
    check_at(&memory, 1000, "6a 4a 6b 4b", "4a 6a 4b 6b");
    check_at(&memory, 1000, "6a 6b", "6a 6b");
    worked("6f");
    check_at(&memory, 1000, "4a 6a", "6a 4a");
}

Test(eyeballs, what_has_failed_waits)
{
    failed("6a", 1000);
    check_at(&memory, 1500, "6a 4a 6b 4b", "4a 6b 4b 6a");
    failed("6b", 1500);
    check_at(&memory, 1500, "6a 4a 6b 4b", "4a 4b 6a 6b");
    check_at(&memory, 1000 + AG_EYEBALLS_FORGIVE_MS - 1, "6a 4a", "4a 6a");
    check_at(&memory, 1000 + AG_EYEBALLS_FORGIVE_MS, "6a 4a", "6a 4a");
    worked("6b");
    check_at(&memory, 1600, "6a 6b", "6b 6a");
    failed("6b", 0);
    check_at(&memory, 1, "6b 6c", "6c 6b");
}

Test(eyeballs, those_of_the_family_take_turns)
{
    static const struct {
        uint32_t turn;
        const char *given, *want;
    } rows[] = {
        {1, "4a 4b 4c", "4b 4c 4a"},       {2, "4a 4b 4c", "4c 4a 4b"},
        {3, "4a 4b 4c", "4a 4b 4c"},       {1, "6a 4a 6b 4b", "6b 4a 6a 4b"},
        {1, "6a 4a 4b 4c", "6a 4a 4b 4c"}, {UINT32_MAX, "6a 4a", "6a 4a"},
    };

    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        check_turn(&memory, rows[i].turn, 1000, rows[i].given, rows[i].want);
    }
    worked("4z");
    check_turn(&memory, 1, 1000, "6a 4a 4b 4c", "4b 6a 4c 4a");
    failed("4a", 1000);
    check_turn(&memory, 0, 1000, "4a 4b 4c", "4b 4c 4a");
    check_turn(&memory, 1, 1000, "4a 4b 4c", "4c 4b 4a");
    check_turn(&memory, 2, 1000, "4a 4b 4c", "4b 4c 4a");
}

Test(eyeballs, the_next_attempt)
{
    union ag_addr addrs[3] = {addr_of("6a"), addr_of("4a"), addr_of("6b")};
    struct ag_eyeballs_plan p;

    ag_eyeballs_plan(&memory, addrs, 3, 0, 0, &p);
    cr_expect_eq(ag_eyeballs_next_ms(&p, 1, 500), 750);
    cr_expect_eq(ag_eyeballs_next_ms(&p, 2, 750), 1000);
    cr_expect_eq(ag_eyeballs_next_ms(&p, 3, 1000), UINT64_MAX);
}

static uint64_t state[4] = {1, 2, 3, 4};

static union ag_addr any_addr(void)
{
    char text[3] = {ag_random_next(state) % 2 ? '6' : '4', (char)('a' + ag_random_next(state) % 6),
                    '\0'};

    return addr_of(text);
}

Test(eyeballs, each_address_once)
{
    for (unsigned round = 0; round < 20000; round++) {
        uint64_t now = 1 + ag_random_next(state) % 100000;
        uint32_t count = (uint32_t)(ag_random_next(state) % (AG_RESOLVE_MAX + 1)), seen = 0;
        union ag_addr addrs[AG_RESOLVE_MAX], other = any_addr();
        struct ag_eyeballs_plan p;

        if (ag_random_next(state) % 3 == 0) {
            ag_eyeballs_worked(&memory, &other);
        } else {
            ag_eyeballs_failed(&memory, &other, now);
        }
        for (uint32_t i = 0; i < count; i++) {
            addrs[i] = any_addr();
        }
        ag_eyeballs_plan(&memory, addrs, count, round, now, &p);
        cr_assert_eq(p.count, count);
        for (uint32_t i = 0; i < count; i++) {
            seen |= 1u << p.order[i];
        }
        cr_assert_eq(seen, count == 0 ? 0 : UINT32_MAX >> (32 - count));
    }
}
