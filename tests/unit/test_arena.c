/*
 * Goal: allocations are aligned, apart from each other and bounded; everything comes back at once.
 */
#include "engine/arena.h"

#include "engine/poison.h"
#include "tests/memwire.h"

#include <criterion/criterion.h>

static struct ag_pool pages;

static void setup(void)
{
    cr_assert_eq(ag_pool_init(&pages, "pages", AG_ARENA_PAGE_BYTES, 8), AG_OK);
}

static void teardown(void)
{
    ag_pool_deinit(&pages); /* panics when a page leaked */
}

TestSuite(arena, .init = setup, .fini = teardown);

Test(arena, pooled_bounds)
{
    struct ag_arena a;

    ag_arena_init(&a, &pages, 3);
    cr_expect_null(ag_arena_alloc(&a, AG_ARENA_ALLOC_MAX + 1));
    cr_expect_null(ag_arena_alloc(&a, SIZE_MAX));
    cr_expect_null(ag_arena_alloc(&a, SIZE_MAX - 6));
    cr_expect_eq(pages.used, 0, "a refused allocation takes no page");
    for (int i = 0; i < 3; i++) {
        uint8_t *p = ag_arena_alloc(&a, AG_ARENA_ALLOC_MAX);

        cr_assert(p);
        memset(p, i, AG_ARENA_ALLOC_MAX);
    }
    cr_expect_null(ag_arena_alloc(&a, 1), "page_max reached");
    cr_expect_eq(a.page_count, 3);
    cr_expect_eq(pages.used, 3);
    ag_arena_release(&a);
    cr_expect_eq(pages.used, 0);
    void *again = ag_arena_alloc(&a, 8);
    cr_expect(again, "a released arena is empty, not dead");
    ag_arena_release(&a);
}

Test(arena, an_empty_pool_is_a_value)
{
    struct ag_arena a, b;

    ag_arena_init(&a, &pages, 100);
    ag_arena_init(&b, &pages, 100);
    for (int i = 0; i < 8; i++) {
        cr_assert(ag_arena_alloc(&a, 4000));
    }
    cr_expect_null(ag_arena_alloc(&a, 4000));
    cr_expect_null(ag_arena_alloc(&b, 1));
    cr_expect_null(ag_arena_copy(&b, AG_SPAN("x")).ptr);
    cr_expect_null(ag_arena_strdup(&b, AG_SPAN("")));
    cr_expect_null(ag_arena_zalloc(&b, 8));
    void *rest = ag_arena_alloc(&a, 16);
    cr_expect(rest, "the newest page still has room");
    ag_arena_release(&b);
    ag_arena_release(&a);
}

/* Random sizes; each allocation keeps its own pattern until the end. */
static void overlap(struct ag_arena *a, size_t size_max)
{
    enum { COUNT = 300 };
    static struct ag_span all[COUNT];
    size_t n = 0;

    for (; n < COUNT; n++) {
        size_t len = (size_t)rand() % size_max;
        uint8_t *p = ag_arena_alloc(a, len);

        if (!p) {
            break;
        }
        cr_assert_eq((uintptr_t)p % 8, 0);
        memset(p, (int)(n & 255), len);
        all[n] = ag_span(p, len);
    }
    cr_assert_gt(n, 20);
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < all[i].len; j++) {
            cr_assert_eq(all[i].ptr[j], i & 255);
        }
    }
}

Test(arena, allocations_do_not_overlap)
{
    struct ag_arena a;

    srand(3);
    for (int round = 0; round < 20; round++) {
        ag_arena_init(&a, &pages, 8);
        overlap(&a, 400);
        ag_arena_release(&a);
        ag_arena_init(&a, NULL, 0);
        overlap(&a, 40000);
        ag_arena_release(&a);
    }
}

Test(arena, heap_takes_any_size)
{
    struct ag_arena a;

    ag_arena_init(&a, NULL, 0);
    char *small = ag_arena_strdup(&a, AG_SPAN("small"));
    uint8_t *large = ag_arena_zalloc(&a, 10u << 20);
    char *after = ag_arena_strdup(&a, AG_SPAN("after"));
    cr_assert(small && large && after);
    cr_expect_eq(a.page_count, 2, "a large one leaves the newest page in use");
    cr_expect(large[0] == 0 && large[(10u << 20) - 1] == 0);
    cr_expect_str_eq(small, "small");
    cr_expect_str_eq(after, "after");
    ag_arena_release(&a);

    ag_arena_init(&a, NULL, 0);
    large = ag_arena_alloc(&a, 100000);
    cr_assert(large);
    memset(large, 1, 100000);
    small = ag_arena_strdup(&a, AG_SPAN("x"));
    cr_expect_str_eq(small, "x");
    ag_arena_release(&a);
}

Test(arena, texts)
{
    struct ag_arena a;

    ag_arena_init(&a, &pages, 2);
    struct ag_span empty = ag_arena_copy(&a, (struct ag_span){NULL, 0});
    cr_expect(empty.ptr && empty.len == 0, "an empty copy is no failure");
    cr_expect(ag_span_eq(ag_arena_copy(&a, ag_span("a\0b", 3)), ag_span("a\0b", 3)));
    cr_expect_str_eq(ag_arena_strdup(&a, (struct ag_span){NULL, 0}), "");
    cr_expect_str_eq(ag_arena_printf(&a, "%s:%d", "x", 5), "x:5");
    cr_expect_null(ag_arena_printf(&a, "%5000d", 1));
    cr_expect(ag_arena_alloc(&a, 0));
    cr_expect_neq(ag_arena_alloc(&a, 0), ag_arena_alloc(&a, 0));
    ag_arena_release(&a);
}

#if defined(AG_ASAN)
Test(arena, free_bytes_are_poisoned_under_asan)
{
    struct ag_arena a;

    ag_arena_init(&a, &pages, 2);
    uint8_t *p = ag_arena_alloc(&a, 16);
    cr_assert(p);
    cr_expect_not(ag_poisoned(p + 15));
    cr_expect(ag_poisoned(p + 16));
    ag_arena_release(&a);
    cr_expect(ag_poisoned(p));
}
#endif

Test(arena, what_is_not_used_is_given_back)
{
    struct ag_arena a;

    ag_arena_init(&a, &pages, 2);
    uint8_t *p = ag_arena_alloc(&a, 100), *q, *other;
    cr_assert(p);
    ag_arena_trim(&a, p, 100, 9);
    q = ag_arena_alloc(&a, 100);
    cr_expect_eq(q, p + 16);
    other = ag_arena_alloc(&a, 8);
    ag_arena_trim(&a, q, 100, 0);
    cr_expect_eq(ag_arena_alloc(&a, 8), other + 8, "not when something came behind");
    ag_arena_release(&a);
}

/* Large buffers hold what a page does not, as many of them as allowed. */
Test(arena, wide)
{
    struct memloop m;
    struct ag_arena a;
    uint8_t *p, *q;

    memloop_init(&m, (struct ag_loop_config){.buf_count = {8, 8}, .page_count = 8});
    ag_arena_init(&a, &pages, 1);
    ag_arena_widen(&a, &m.loop);
    cr_expect_null(ag_arena_alloc(&a, AG_BUF_LARGE_BYTES + 1));
    m.loop.tight = true;
    cr_expect_null(ag_arena_alloc(&a, 5000), "when buffers run short");
    m.loop.tight = false;
    p = ag_arena_alloc(&a, 5000);
    q = ag_arena_alloc(&a, AG_BUF_LARGE_BYTES - 5000);
    cr_assert(p && q);
    cr_expect_eq(q, p + 5000);
    cr_expect_eq(ag_loop_bufs_used(&m.loop, AG_BUF_LARGE), 1);
    cr_expect(ag_arena_alloc(&a, 5000));
    cr_expect_null(ag_arena_alloc(&a, AG_BUF_LARGE_BYTES));
    cr_expect_eq(pages.used, 0);
    ag_arena_release(&a);
    cr_expect_eq(ag_loop_bufs_used(&m.loop, AG_BUF_LARGE), 0);
    memloop_deinit(&m);
}
