/*
 * Goal: a pool hands out each object once, hottest first, and says when it is empty; leaks and double
 * returns stop the program.
 */
#include "engine/pool.h"

#include "engine/poison.h"

#include <criterion/criterion.h>
#include <signal.h>

Test(pool, exhaustion_and_reuse)
{
    struct ag_pool p;
    void *all[5];

    cr_assert_eq(ag_pool_init(&p, "test", 40, 5), AG_OK);
    for (size_t i = 0; i < 5; i++) {
        all[i] = ag_pool_get(&p);
        cr_assert(all[i]);
        cr_expect_eq((uintptr_t)all[i] % 16, 0);
        for (size_t j = 0; j < i; j++) {
            cr_expect_neq(all[i], all[j]);
        }
        memset(all[i], (int)i, 40);
    }
    cr_expect_eq(p.used, 5);
    cr_expect_null(ag_pool_get(&p));
    cr_expect_null(ag_pool_get(&p));
    for (size_t i = 0; i < 5; i++) {
        const uint8_t *bytes = all[i];

        cr_expect(bytes[0] == i && bytes[39] == i, "objects do not overlap");
    }
    ag_pool_put(&p, all[3]);
    ag_pool_put(&p, all[1]);
    cr_expect_eq(ag_pool_get(&p), all[1], "last in, first out");
    cr_expect_eq(ag_pool_get(&p), all[3]);
    cr_expect_null(ag_pool_get(&p));
    for (size_t i = 0; i < 5; i++) {
        ag_pool_put(&p, all[i]);
    }
    cr_expect_eq(p.used, 0);
    ag_pool_deinit(&p);
}

Test(pool, random_gets_and_puts_against_a_set)
{
    struct ag_pool p;
    void *held[64];
    size_t n = 0;

    srand(2);
    cr_assert_eq(ag_pool_init(&p, "test", 100, 64), AG_OK);
    for (int round = 0; round < 20000; round++) {
        if (rand() % 2) {
            void *o = ag_pool_get(&p);

            cr_assert_eq(o == NULL, n == 64);
            if (o) {
                cr_assert_eq((uintptr_t)o % 64, 0);
                for (size_t i = 0; i < n; i++) {
                    cr_assert_neq(o, held[i]);
                }
                held[n++] = o;
            }
        } else if (n) {
            size_t i = (size_t)rand() % n;

            ag_pool_put(&p, held[i]);
            held[i] = held[--n];
        }
        cr_assert_eq(p.used, n);
    }
    while (n) {
        ag_pool_put(&p, held[--n]);
    }
    ag_pool_deinit(&p);
}

Test(pool, sizes)
{
    struct ag_pool p;

    cr_assert_eq(ag_pool_init(&p, "one byte", 1, 3), AG_OK);
    cr_expect_eq(p.stride, 16);
    ag_pool_deinit(&p);
    cr_assert_eq(ag_pool_init(&p, "line", 65, 3), AG_OK);
    cr_expect_eq(p.stride, 128);
    ag_pool_deinit(&p);
    cr_expect_eq(ag_pool_init(&p, "huge", SIZE_MAX, 1), AG_ENOMEM);
    cr_expect_eq(ag_pool_init(&p, "huge", SIZE_MAX / 2, UINT32_MAX), AG_ENOMEM);
    cr_expect_eq(ag_pool_init(&p, "huge", (size_t)1 << 46, 2), AG_ENOMEM);
}

Test(pool, free_objects_are_poisoned_under_asan)
{
    struct ag_pool p;

    cr_assert_eq(ag_pool_init(&p, "test", 64, 2), AG_OK);
    uint8_t *o = ag_pool_get(&p);
    cr_assert(o);
    cr_expect_not(ag_poisoned(o + 63));
#if defined(AG_ASAN)
    cr_expect(ag_poisoned(o + 64));
    ag_pool_put(&p, o);
    cr_expect(ag_poisoned(o));
    o = ag_pool_get(&p);
    cr_expect_not(ag_poisoned(o));
#endif
    ag_pool_put(&p, o);
    ag_pool_deinit(&p);
}

Test(pool, a_leak_stops_the_program, .signal = SIGABRT)
{
    struct ag_pool p;

    cr_assert_eq(ag_pool_init(&p, "leaky", 64, 2), AG_OK);
    void *o = ag_pool_get(&p);
    cr_assert(o);
    ag_pool_deinit(&p);
}

Test(pool, a_foreign_object_stops_the_program, .signal = SIGABRT)
{
    struct ag_pool p;
    uint64_t other[8];

    cr_assert_eq(ag_pool_init(&p, "test", 64, 2), AG_OK);
    void *o = ag_pool_get(&p);
    cr_assert(o);
    ag_pool_put(&p, other);
}
