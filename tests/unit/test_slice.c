/*
 * Goal: no reference is lost or dropped twice, and a chain's bytes are those pushed, in order,
 * whatever is cut, moved, consumed or refused.
 */
#include "engine/slice.h"

#include <criterion/criterion.h>

static struct ag_pool nodes;
static unsigned freed;

static void count_free(struct ag_block *b)
{
    cr_assert_eq(b->refs, 0);
    freed++;
}

static void setup(void)
{
    freed = 0;
    cr_assert_eq(ag_pool_init(&nodes, "nodes", sizeof(struct ag_slice_node), 4), AG_OK);
}

static void teardown(void)
{
    ag_pool_deinit(&nodes);
}

TestSuite(slice, .init = setup, .fini = teardown);

static struct ag_block memory_block(const char *text)
{
    return (struct ag_block){.refs = 1,
                             .size = (uint32_t)strlen(text),
                             .free = count_free,
                             .data = (uint8_t *)(uintptr_t)text,
                             .fd = -1};
}

/* A slice of the whole block, which takes over the block's first reference. */
static struct ag_slice whole(struct ag_block *b)
{
    return (struct ag_slice){{.ptr = b->data}, b->size, b};
}

static void expect_bytes(const struct ag_chain *c, const char *want)
{
    char got[256];
    size_t len = 0;
    uint32_t count = 0;

    for (const struct ag_slice_node *n = c->head; n; n = n->next) {
        struct ag_span s = ag_slice_span(&n->slice);

        memcpy(got + len, s.ptr, s.len);
        len += s.len;
        count++;
        cr_expect(n->next || n == c->tail);
    }
    cr_expect(ag_span_eq(ag_span(got, len), ag_span_str(want)), "%.*s", (int)len, got);
    cr_expect_eq(c->bytes, len);
    cr_expect_eq(c->count, count);
    cr_expect_eq(c->head == NULL, c->tail == NULL);
}

Test(slice, consume_across_slices)
{
    struct ag_chain c = {0};
    struct ag_block a = memory_block("abcd"), b = memory_block("efg");

    cr_assert_eq(ag_chain_push(&c, &nodes, whole(&a)), AG_OK);
    cr_assert_eq(ag_chain_push(&c, &nodes, whole(&b)), AG_OK);
    cr_assert_eq(ag_chain_push(&c, &nodes, ag_slice_static(AG_SPAN("hi"))), AG_OK);
    expect_bytes(&c, "abcdefghi");
    ag_chain_consume(&c, &nodes, 0);
    ag_chain_consume(&c, &nodes, 1);
    expect_bytes(&c, "bcdefghi");
    cr_expect_eq(freed, 0);
    ag_chain_consume(&c, &nodes, 3);
    cr_expect_eq(freed, 1);
    cr_expect_eq(c.count, 2);
    ag_chain_consume(&c, &nodes, 4);
    expect_bytes(&c, "i");
    cr_expect_eq(freed, 2);
    ag_chain_consume(&c, &nodes, 1);
    expect_bytes(&c, "");
    ag_chain_consume(&c, &nodes, 0);
    cr_assert_eq(ag_chain_push(&c, &nodes, ag_slice_static(AG_SPAN("again"))), AG_OK);
    expect_bytes(&c, "again");
    ag_chain_clear(&c, &nodes);
}

Test(slice, sub_holds_a_reference)
{
    struct ag_block a = memory_block("abcdef");
    struct ag_slice all = whole(&a), mid = ag_slice_sub(&all, 2, 3),
                    none = ag_slice_sub(&mid, 3, 0);

    cr_expect_eq(a.refs, 3);
    cr_expect(ag_span_eq(ag_slice_span(&mid), AG_SPAN("cde")));
    ag_slice_advance(&mid, 1);
    cr_expect(ag_span_eq(ag_slice_span(&mid), AG_SPAN("de")));
    ag_slice_release(&all);
    ag_slice_release(&all); /* harmless: it owns nothing any more */
    ag_slice_release(&none);
    cr_expect_eq(freed, 0);
    ag_slice_release(&mid);
    cr_expect_eq(freed, 1);
}

Test(slice, empty_slices_are_released_not_queued)
{
    struct ag_chain c = {0};
    struct ag_block a = memory_block("");

    cr_assert_eq(ag_chain_push(&c, &nodes, whole(&a)), AG_OK);
    cr_expect_eq(freed, 1);
    expect_bytes(&c, "");
    cr_expect_eq(nodes.used, 0);
}

Test(slice, a_failing_node_pool_loses_no_reference)
{
    struct ag_chain c = {0};
    struct ag_block a = memory_block("x");
    struct ag_slice s = whole(&a);

    for (int i = 0; i < 4; i++) {
        cr_assert_eq(ag_chain_push(&c, &nodes, ag_slice_sub(&s, 0, 1)), AG_OK);
    }
    cr_expect_eq(a.refs, 5);
    cr_expect_eq(ag_chain_push(&c, &nodes, ag_slice_sub(&s, 0, 1)), AG_ENOMEM);
    cr_expect_eq(a.refs, 5, "the refused slice was released");
    expect_bytes(&c, "xxxx");
    struct ag_slice got = ag_chain_pop(&c, &nodes);
    cr_expect_eq(a.refs, 5, "pop passes the reference on");
    cr_expect_eq(ag_chain_push(&c, &nodes, got), AG_OK);
    expect_bytes(&c, "xxxx");
    ag_chain_clear(&c, &nodes);
    cr_expect_eq(a.refs, 1);
    ag_slice_release(&s);
    cr_expect_eq(freed, 1);
}

Test(slice, splice)
{
    struct ag_chain a = {0}, b = {0};

    ag_chain_splice(&a, &b);
    expect_bytes(&a, "");
    cr_assert_eq(ag_chain_push(&b, &nodes, ag_slice_static(AG_SPAN("12"))), AG_OK);
    ag_chain_splice(&a, &b);
    expect_bytes(&a, "12");
    expect_bytes(&b, "");
    cr_assert_eq(ag_chain_push(&b, &nodes, ag_slice_static(AG_SPAN("34"))), AG_OK);
    cr_assert_eq(ag_chain_push(&b, &nodes, ag_slice_static(AG_SPAN("5"))), AG_OK);
    ag_chain_splice(&a, &b);
    expect_bytes(&a, "12345");
    ag_chain_splice(&a, &b);
    cr_assert_eq(ag_chain_push(&a, &nodes, ag_slice_static(AG_SPAN("6"))), AG_OK);
    expect_bytes(&a, "123456");
    ag_chain_clear(&a, &nodes);
    expect_bytes(&a, "");
}

Test(slice, file_ranges)
{
    struct ag_chain c = {0};
    struct ag_block f = {.refs = 1, .free = count_free, .fd = 0};
    struct ag_slice s = {{.offset = (uint64_t)5 << 32}, (size_t)3 << 32, &f};

    cr_expect(ag_slice_is_file(&s));
    struct ag_slice part = ag_slice_sub(&s, 100, 50);
    cr_expect_eq(part.offset, ((uint64_t)5 << 32) + 100);
    ag_slice_release(&part);
    cr_assert_eq(ag_chain_push(&c, &nodes, s), AG_OK);
    cr_assert_eq(ag_chain_push(&c, &nodes, ag_slice_static(AG_SPAN("end"))), AG_OK);
    cr_expect_eq(c.bytes, ((uint64_t)3 << 32) + 3);
    ag_chain_consume(&c, &nodes, (uint64_t)2 << 32);
    cr_expect_eq(c.head->slice.offset, (uint64_t)7 << 32);
    cr_expect_eq(c.head->slice.len, (size_t)1 << 32);
    cr_expect_eq(freed, 0);
    ag_chain_consume(&c, &nodes, (uint64_t)1 << 32);
    cr_expect_eq(freed, 1);
    expect_bytes(&c, "end");
    ag_chain_clear(&c, &nodes);
}
