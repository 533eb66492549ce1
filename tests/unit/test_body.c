/* The push queue between a message's producer and its consumer. */
#include "proto/body.h"

#include "loops.h"

struct counts {
    unsigned readable, writable;
};

static void on_readable(struct ag_body *b, void *owner)
{
    (void)b;
    ((struct counts *)owner)->readable++;
}

static void on_writable(struct ag_body *b, void *owner)
{
    (void)b;
    ((struct counts *)owner)->writable++;
}

static struct fixture *f;
static struct ag_body b;
static struct counts counts;

static void setup(void)
{
    f = fixture_new(AG_BACKEND_EPOLL, 128, 16);
    counts = (struct counts){0};
    ag_body_init(&b, &f->loop);
    ag_body_set_consumer(&b, on_readable, &counts);
    ag_body_set_producer(&b, on_writable, &counts);
}

static void teardown(void)
{
    ag_body_deinit(&b);
    fixture_free(f);
}

TestSuite(body, .init = setup, .fini = teardown);

/* `len` bytes in a buffer of their own. */
static void write_buf(enum ag_buf_group group, uint32_t len)
{
    struct ag_block *block = ag_loop_buf(&f->loop, group);

    cr_assert(block && len <= block->size);
    memset(block->data, 'x', len);
    cr_assert_eq(ag_body_write(&b, (struct ag_slice){{.ptr = block->data}, len, block}), AG_OK);
}

static void take(void)
{
    struct ag_slice s = ag_body_take(&b);

    cr_assert_gt(s.len, 0);
    ag_slice_release(&s);
}

static void run_tasks(void)
{
    ag_loop_turn(&f->loop, 0);
}

Test(body, is_bounded_by_the_memory_it_pins)
{
    unsigned n = 0;

    while (ag_body_room(&b)) {
        write_buf(AG_BUF_LARGE, AG_BUF_LARGE_BYTES);
        n++;
    }
    cr_expect_geq(n * AG_BUF_LARGE_BYTES, AG_BODY_BYTES_MAX);
    cr_expect_lt((n - 1) * AG_BUF_LARGE_BYTES, AG_BODY_BYTES_MAX);
    run_tasks();
    cr_expect_eq(counts.writable, 0);
    cr_expect_eq(counts.readable, 1, "many writes make one wake-up");
    while (b.pinned_bytes > AG_BODY_BYTES_MAX / 2) {
        cr_expect_eq(counts.writable, 0, "not before it is half empty");
        take();
        run_tasks();
    }
    cr_expect_eq(counts.writable, 1);
}

Test(body, is_bounded_by_its_slices)
{
    unsigned n = 0;

    while (ag_body_room(&b)) {
        cr_assert_eq(ag_body_write(&b, (struct ag_slice){{.ptr = (const uint8_t *)"x"}, 1, NULL}),
                     AG_OK);
        n++;
    }
    cr_expect_eq(n, AG_BODY_SLICES_MAX);
    for (; n > AG_BODY_SLICES_MAX / 2; n--) {
        run_tasks();
        cr_expect_eq(counts.writable, 0);
        take();
    }
    run_tasks();
    cr_expect_eq(counts.writable, 1);
}

Test(body, a_few_bytes_do_not_hold_a_large_buffer)
{
    write_buf(AG_BUF_LARGE, AG_BUF_LARGE_BYTES);
    for (unsigned i = 0; i < 10; i++) {
        write_buf(AG_BUF_LARGE, 10);
    }
    cr_expect_eq(ag_loop_bufs_used(&f->loop, AG_BUF_LARGE), 1);
    cr_expect_eq(ag_loop_bufs_used(&f->loop, AG_BUF_SMALL), 10);
    cr_expect_eq(b.pinned_bytes, AG_BUF_LARGE_BYTES + 10 * AG_BUF_SMALL_BYTES);
    take();
    struct ag_slice s = ag_body_take(&b);
    cr_expect_eq(s.len, 10);
    cr_expect_eq(s.ptr[9], 'x');
    ag_slice_release(&s);
}

Test(body, what_is_first_or_fills_its_buffer_is_not_copied)
{
    write_buf(AG_BUF_LARGE, 10);
    write_buf(AG_BUF_LARGE, AG_BUF_LARGE_BYTES / 4 + 1);
    cr_expect_eq(ag_loop_bufs_used(&f->loop, AG_BUF_LARGE), 2);
    cr_expect_eq(ag_loop_bufs_used(&f->loop, AG_BUF_SMALL), 0);
}

Test(body, neighbours_in_one_buffer_are_charged_once)
{
    struct ag_block *block = ag_loop_buf(&f->loop, AG_BUF_LARGE);

    cr_assert(block);
    for (unsigned i = 0; i < 3; i++) {
        cr_assert_eq(ag_body_write(&b, (struct ag_slice){{.ptr = block->data + 20000u * i},
                                                         20000,
                                                         ag_block_hold(block)}),
                     AG_OK);
        cr_expect_eq(b.pinned_bytes, AG_BUF_LARGE_BYTES);
    }
    ag_block_release(block);
    take();
    cr_expect_eq(b.pinned_bytes, AG_BUF_LARGE_BYTES);
    take();
    take();
    cr_expect_eq(b.pinned_bytes, 0);
}

Test(body, the_end_comes_behind_the_bytes)
{
    write_buf(AG_BUF_SMALL, 5);
    ag_body_end(&b, NULL);
    cr_expect(ag_body_has_news(&b) && !ag_body_at_end(&b));
    take();
    cr_expect(ag_body_has_news(&b) && ag_body_at_end(&b));
    ag_body_abort(&b, AG_REASON_RESET);
    cr_expect(!b.aborted, "an end is an end");
}

Test(body, an_abort_is_no_end)
{
    write_buf(AG_BUF_SMALL, 5);
    ag_body_abort(&b, AG_REASON_RESET);
    ag_body_end(&b, NULL);
    cr_expect(!b.ended && b.reason == AG_REASON_RESET);
    take();
    cr_expect(ag_body_has_news(&b) && !ag_body_at_end(&b));
    write_buf(AG_BUF_SMALL, 5); /* dropped */
    cr_expect_eq(b.q.bytes, 0);
}

Test(body, what_nobody_wants_is_dropped)
{
    while (ag_body_room(&b)) {
        write_buf(AG_BUF_LARGE, AG_BUF_LARGE_BYTES);
    }
    ag_body_discard(&b);
    run_tasks();
    cr_expect_eq(counts.writable, 1);
    cr_expect_eq(ag_loop_bufs_used(&f->loop, AG_BUF_LARGE), 0);
    cr_expect(ag_body_room(&b));
    write_buf(AG_BUF_LARGE, 100);
    cr_expect_eq(b.q.bytes, 0);
}

/* ---- pieces of whatever size ---- */

/* A piece of a buffer whose receiver still holds it, as input does. */
static void append_piece(struct ag_block *block, uint32_t at, uint32_t len)
{
    struct ag_slice s = {{.ptr = block->data + at}, len, ag_block_hold(block)};

    cr_assert_eq(ag_body_append(&b, s), AG_OK);
}

Test(body, small_pieces_share_a_buffer)
{
    struct ag_block *block = ag_loop_buf(&f->loop, AG_BUF_LARGE);
    uint8_t all[3000];
    size_t n = 0;

    for (uint32_t i = 0; i < 300; i++) {
        memset(block->data + i * 10u, (int)i, 10);
        append_piece(block, i * 10u, 10);
    }
    cr_expect_eq(b.q.bytes, 3000);
    cr_expect_eq(b.q.count, 1);
    cr_expect_eq(b.total_bytes, 3000);
    cr_expect_eq(b.pinned_bytes, AG_BUF_SMALL_BYTES);
    cr_expect_eq(block->refs, 1);
    while (b.q.bytes > 0) {
        struct ag_slice s = ag_body_take_most(&b, 7);

        cr_assert(s.len > 0 && s.len <= 7 && n + s.len <= sizeof(all));
        memcpy(all + n, s.ptr, s.len);
        n += s.len;
        ag_slice_release(&s);
    }
    cr_expect(n == 3000 && memcmp(all, block->data, n) == 0);
    cr_expect_eq(b.pinned_bytes, 0);
    ag_block_release(block);
}

Test(body, large_pieces_are_not_copied)
{
    struct ag_block *block = ag_loop_buf(&f->loop, AG_BUF_LARGE);

    append_piece(block, 0, 20000);
    append_piece(block, 20000, 20000);
    cr_expect_eq(b.q.count, 2);
    cr_expect_eq(block->refs, 3);
    cr_expect_eq(b.pinned_bytes, AG_BUF_LARGE_BYTES);
    ag_block_release(block);
}

/* What somebody else still reads is not written behind. */
Test(body, a_buffer_in_use_is_left_alone)
{
    struct ag_block *block = ag_loop_buf(&f->loop, AG_BUF_LARGE);
    struct ag_slice s;

    append_piece(block, 0, 100);
    s = ag_body_take_most(&b, 50);
    append_piece(block, 100, 100);
    cr_expect_eq(b.q.count, 2);
    cr_expect_eq(s.len, 50);
    ag_slice_release(&s);
    append_piece(block, 200, 100);
    cr_expect_eq(b.q.count, 2);
    cr_expect_eq(b.q.bytes, 250);
    ag_block_release(block);
}

Test(body, pieces_for_nobody)
{
    struct ag_block *block = ag_loop_buf(&f->loop, AG_BUF_LARGE);

    append_piece(block, 0, 10);
    ag_body_discard(&b);
    append_piece(block, 10, 10);
    cr_expect_eq(b.q.bytes, 0);
    cr_expect_eq(b.total_bytes, 20);
    cr_expect_eq(block->refs, 1);
    ag_block_release(block);
}

/* At once: all of the queue has come in this turn. */
Test(body, a_stream_s_pieces_are_counted_by_their_turn)
{
    struct ag_slice s;

    write_buf(AG_BUF_SMALL, 10);
    take();
    cr_expect_eq(f->loop.stats.passed_at_once, 0, "it is not asked for");
    b.counted = true;
    write_buf(AG_BUF_SMALL, 10);
    take();
    cr_expect_eq(f->loop.stats.passed_at_once, 1);
    write_buf(AG_BUF_SMALL, 10);
    ag_loop_turn(&f->loop, 0);
    write_buf(AG_BUF_SMALL, 10);
    s = ag_body_take_most(&b, 5);
    ag_slice_release(&s);
    take();
    take();
    cr_expect_eq(f->loop.stats.passed_at_once, 1);
    cr_expect_eq(f->loop.stats.passed_later, 3);
    write_buf(AG_BUF_SMALL, 10);
    s = ag_body_take_most(&b, 5);
    ag_slice_release(&s);
    take();
    cr_expect_eq(f->loop.stats.passed_at_once, 3, "the queue was empty in between");
    cr_expect_eq(f->loop.stats.passed_later, 3);
}

static void let_go(struct ag_block *block)
{
    (void)block;
}

Test(body, what_lies_in_pipes_is_bounded_too)
{
    struct ag_block pipes[3];

    for (size_t i = 0; i < AG_COUNT(pipes); i++) {
        pipes[i] = (struct ag_block){
            .refs = 1, .size = AG_BODY_BYTES_MAX / 2, .free = let_go, .fd = 0, .pipe = true};
        cr_expect(ag_body_room(&b), "pipe %zu", i);
        cr_assert_eq(ag_body_write(&b, (struct ag_slice){{.ptr = NULL}, pipes[i].size, &pipes[i]}),
                     AG_OK);
        if (i == 1) {
            cr_expect_not(ag_body_room(&b));
            take();
        }
    }
    take();
    take();
    cr_expect_eq(b.pinned_bytes, 0);
}
