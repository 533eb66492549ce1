/*
 * Goal: content passes whole and in order whatever its pieces; what is kept is all of it and can be sent again
 * as often as wanted; it pins little more memory than it has bytes, and is given up beyond its bound; nothing
 * is left.
 * Method: bodies on a small loop, pieces of chance, both kinds of buffers; a naive copy beside it.
 */
#include "actions/proxy/replay.h"
#include "tests/unit/loops.h"

#define MOST (512u * 1024u)

static struct fixture *f;
static struct ag_body from, to;
static struct ag_replay r;
static uint8_t sent[MOST], got[MOST];
static size_t sent_len, got_len;
static unsigned told;

static void on_ended(struct ag_replay *replay, void *owner)
{
    cr_expect_eq(replay, &r);
    cr_expect_eq(owner, &told);
    told++;
}

static void setup(void)
{
    f = fixture_new(AG_BACKEND_EPOLL, 512, 64);
    ag_body_init(&from, &f->loop);
    ag_body_init(&to, &f->loop);
    sent_len = got_len = told = 0;
}

static void teardown(void)
{
    ag_replay_deinit(&r);
    ag_body_deinit(&from);
    ag_body_deinit(&to);
    fixture_free(f);
}

TestSuite(replay, .init = setup, .fini = teardown);

static void begin(uint32_t limit)
{
    ag_replay_init(&r, &from, &to, limit);
    r.ended = on_ended;
    r.owner = &told;
    ag_replay_open(&r);
}

/* `len` bytes at `at` of a buffer of their own. */
static void put(enum ag_buf_group group, uint32_t at, uint32_t len)
{
    struct ag_block *block = ag_loop_buf(&f->loop, group);

    cr_assert(block && at + len <= block->size && sent_len + len <= MOST);
    for (uint32_t i = 0; i < len; i++) {
        block->data[at + i] = sent[sent_len + i] = (uint8_t)((sent_len + i) * 31 >> 3);
    }
    sent_len += len;
    cr_assert_eq(ag_body_write(&from, (struct ag_slice){{.ptr = block->data + at}, len, block}),
                 AG_OK);
}

static void take_all(void)
{
    for (unsigned i = 0; i < 4 || to.q.bytes > 0; i++) {
        ag_loop_turn(&f->loop, 0);
        while (to.q.bytes > 0) {
            struct ag_slice s = ag_body_take(&to);

            cr_assert_leq(got_len + s.len, MOST);
            memcpy(got + got_len, s.ptr, s.len);
            got_len += s.len;
            ag_slice_release(&s);
        }
    }
}

static void expect_same(void)
{
    take_all();
    cr_expect_eq(got_len, sent_len);
    cr_expect_eq(memcmp(got, sent, sent_len), 0);
}

static void again(void)
{
    ag_replay_close(&r);
    got_len = 0;
    ag_replay_open(&r);
}

static size_t pinned(void)
{
    return ag_loop_bufs_used(&f->loop, AG_BUF_SMALL) * (size_t)AG_BUF_SMALL_BYTES +
           ag_loop_bufs_used(&f->loop, AG_BUF_LARGE) * (size_t)AG_BUF_LARGE_BYTES;
}

Test(replay, pieces_of_chance)
{
    unsigned seed = 7;

    for (unsigned round = 0; round < 50; round++) {
        begin(MOST);
        for (unsigned i = 0; i < 40; i++) {
            bool large = rand_r(&seed) % 4 == 0;
            uint32_t size = large ? AG_BUF_LARGE_BYTES : AG_BUF_SMALL_BYTES;
            uint32_t len = 1 + (uint32_t)rand_r(&seed) % (rand_r(&seed) % 2 ? 100 : size / 8);

            if (ag_body_room(&from)) {
                put(large ? AG_BUF_LARGE : AG_BUF_SMALL, (uint32_t)rand_r(&seed) % (size - len),
                    len);
            }
            if (rand_r(&seed) % 3 == 0) {
                take_all();
            }
            if (rand_r(&seed) % 16 == 0) {
                cr_assert(ag_replay_is_whole(&r));
                again();
            }
        }
        expect_same();
        cr_expect_eq(r.kept.bytes, sent_len);
        cr_expect_leq(pinned(), 2 * sent_len + AG_BUF_SMALL_BYTES);
        cr_expect_not(ag_replay_is_complete(&r));
        ag_body_end(&from, NULL);
        take_all();
        cr_expect(ag_body_at_end(&to));
        cr_expect(ag_replay_is_complete(&r));
        cr_expect_eq(told, 1);
        again();
        expect_same();
        cr_expect(ag_body_at_end(&to));
        cr_expect_eq(told, 1, "once");
        ag_replay_deinit(&r);
        cr_expect_eq(pinned(), 0);
        teardown();
        setup();
    }
    begin(1);
}

Test(replay, large_pieces_are_kept_without_a_copy)
{
    begin(128 * 1024);
    put(AG_BUF_LARGE, 0, 60000);
    ag_loop_turn(&f->loop, 0);
    cr_expect_eq(r.kept.head->slice.ptr, to.q.head->slice.ptr);
    cr_expect_eq(ag_loop_bufs_used(&f->loop, AG_BUF_LARGE), 1);
    expect_same();
    again();
    expect_same();
}

Test(replay, a_few_bytes_free_their_large_buffer)
{
    begin(64 * 1024);
    for (unsigned i = 0; i < 30; i++) {
        put(AG_BUF_LARGE, 100, 10);
        expect_same();
    }
    cr_expect_eq(ag_loop_bufs_used(&f->loop, AG_BUF_LARGE), 0);
    cr_expect_eq(ag_loop_bufs_used(&f->loop, AG_BUF_SMALL), 1);
    cr_expect_eq(r.kept.count, 1);
}

Test(replay, beyond_its_bound_it_is_given_up)
{
    begin(10000);
    put(AG_BUF_LARGE, 0, 8000);
    expect_same();
    cr_expect(ag_replay_is_whole(&r));
    put(AG_BUF_SMALL, 0, 2000);
    expect_same();
    cr_expect(ag_replay_is_whole(&r));
    put(AG_BUF_SMALL, 0, 1);
    expect_same();
    cr_expect_not(ag_replay_is_whole(&r));
    cr_expect_eq(r.kept.bytes, 0);
    cr_expect_eq(pinned(), 0);
    put(AG_BUF_SMALL, 0, 3000); /* what comes passes through */
    expect_same();
    cr_expect_eq(pinned(), 0);
}

Test(replay, when_buffers_run_short_it_is_given_up)
{
    begin(100000);
    put(AG_BUF_SMALL, 0, 4000);
    expect_same();
    f->loop.tight = true;
    put(AG_BUF_SMALL, 0, 4000);
    expect_same();
    f->loop.tight = false;
    cr_expect_not(ag_replay_is_whole(&r));
    cr_expect_eq(pinned(), 0);
}

Test(replay, a_slow_consumer_holds_its_producer_back)
{
    unsigned n = 0;

    begin(4096);
    while (ag_body_room(&from) && n < 100) {
        put(AG_BUF_LARGE, 0, 5000);
        ag_loop_turn(&f->loop, 0);
        n++;
    }
    cr_expect_lt(n, 10);
    expect_same();
    cr_expect(ag_body_room(&from));
}

Test(replay, nothing_is_pulled_while_it_is_closed)
{
    begin(65536);
    put(AG_BUF_SMALL, 0, 100);
    expect_same();
    ag_replay_close(&r);
    put(AG_BUF_SMALL, 0, 100);
    ag_loop_turn(&f->loop, 0);
    cr_expect_eq(from.q.bytes, 100);
    got_len = 0;
    ag_replay_open(&r);
    expect_same();
}

Test(replay, an_abort_is_seen_after_the_bytes_before_it)
{
    begin(65536);
    put(AG_BUF_SMALL, 0, 100);
    ag_body_abort(&from, AG_REASON_RESET);
    ag_loop_turn(&f->loop, 0);
    cr_expect(to.aborted);
    cr_expect_eq(to.reason, AG_REASON_RESET);
    expect_same();
    cr_expect_not(ag_replay_is_whole(&r));
    cr_expect_not(ag_replay_is_complete(&r));
}

Test(replay, what_nobody_takes_is_not_whole)
{
    begin(65536);
    put(AG_BUF_SMALL, 0, 100);
    ag_body_discard(&from);
    cr_expect_not(ag_replay_is_whole(&r));
}
