/*
 * Goal: who is far slower than the others is found, and nobody else.
 * Method: what was met is made up.
 */
#include "actions/upstream/ejection.h"

#include <criterion/criterion.h>

static const struct ag_ejection_options thrice = {
    .latency_percent = 300, .minimum = 50, .window_ms = 10000};
static uint64_t median[AG_BALANCE_SERVERS];

static struct ag_balance_set find(const struct ag_ejection_sample *v, uint32_t count)
{
    struct ag_balance_set s;

    ag_ejection_find(v, count, &thrice, &s, median);
    return s;
}

static struct ag_ejection_sample met(uint64_t mean_ms, uint32_t count)
{
    return (struct ag_ejection_sample){mean_ms * 1000 * count, count};
}

Test(ejection, an_outlier_is_compared_with_the_others)
{
    const struct ag_ejection_sample v[] = {met(10, 50), met(20, 50), met(100, 50), met(30, 50)};
    struct ag_balance_set s = find(v, 4);

    cr_expect(ag_balance_set_has(&s, 2));
    cr_expect_eq(median[2], 20000);
    cr_expect_eq(median[0], 30000);
    ag_balance_set_remove(&s, 2);
    cr_expect(ag_balance_set_empty(&s));
}

Test(ejection, the_median_of_an_even_number_lies_between_two)
{
    const struct ag_ejection_sample v[] = {met(10, 50), met(20, 50), met(100, 50)};
    struct ag_balance_set s = find(v, 3);

    cr_expect(ag_balance_set_has(&s, 2));
    cr_expect_eq(median[2], 15000);
    cr_expect_eq(median[1], 55000);
}

Test(ejection, as_many_times_as_is_said_is_not_more)
{
    const struct ag_ejection_sample v[] = {met(10, 50), met(10, 50), met(30, 50)};
    const struct ag_ejection_sample w[] = {met(10, 50), met(10, 50), met(31, 50)};
    struct ag_balance_set s = find(v, 3), t = find(w, 3);

    cr_expect(ag_balance_set_empty(&s));
    cr_expect(ag_balance_set_has(&t, 2));
}

Test(ejection, a_few_milliseconds_are_nothing)
{
    const struct ag_ejection_sample v[] = {{50 * 200, 50}, {50 * 200, 50}, {50 * 5000, 50}};
    struct ag_balance_set s = find(v, 3);

    cr_expect(ag_balance_set_empty(&s));
}

/* Neither judged nor compared with. */
Test(ejection, too_few_requests_tell_nothing)
{
    const struct ag_ejection_sample v[] = {met(10, 50), met(10, 50), met(1000, 49), {0, 0}};
    const struct ag_ejection_sample w[] = {met(10, 50), met(100, 50)};
    struct ag_balance_set s = find(v, 4), t = find(w, 2);

    cr_expect(ag_balance_set_empty(&s));
    cr_expect(ag_balance_set_empty(&t), "of two none is the odd one");
}

Test(ejection, as_many_as_there_can_be)
{
    struct ag_ejection_sample v[AG_BALANCE_SERVERS];
    struct ag_balance_set s;

    for (uint32_t i = 0; i < AG_BALANCE_SERVERS; i++) {
        v[i] = met(i == 77 ? 500 : 10 + i % 5, 60);
    }
    s = find(v, AG_BALANCE_SERVERS);
    cr_expect(ag_balance_set_has(&s, 77));
    ag_balance_set_remove(&s, 77);
    cr_expect(ag_balance_set_empty(&s));
}
