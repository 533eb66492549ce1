/*
 * Goal: content passes whole and in order whatever its pieces, whoever is slow and whatever the bounds; what is kept
 * can be given again; memory, file and process stay within their bounds; a disk that fails loses a stream nothing
 * that it has not got, and never makes a part look whole; and nothing is left, also of what is under way.
 * Method: bodies on a small loop, pieces of chance, a naive copy beside it. Descriptors that fail are put in the
 * place of the file; helpers are held back where an operation has to be under way.
 */
#include "actions/proxy/spool.h"
#include "tests/unit/loops.h"

#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#define MOST (2u << 20)

static struct ag_loop loop;
static struct ag_context ctx;
static struct ag_helpers *helpers;
static struct ag_spool_disk disk;
static struct ag_spool_folder *folder;
static struct ag_exchange *ex;
static struct ag_body from, to;
static struct ag_spool *sp;
static uint8_t sent[MOST], got[MOST];
static size_t sent_len, got_len;
static unsigned told, fds;

static void on_ended(struct ag_spool *spool, void *owner)
{
    cr_expect_eq(spool, sp);
    cr_expect_eq(owner, &told);
    told++;
}

static void start(bool with_helpers)
{
    const char *why = "";

    fds = count_fds();
    helpers = with_helpers ? ag_helpers_new(1, 8) : NULL;
    const struct ag_loop_config config = {.backend = AG_BACKEND_EPOLL,
                                          .buf_count = {512, 64},
                                          .node_count = 4096,
                                          .page_count = 16,
                                          .helpers = helpers};
    cr_assert_eq(ag_loop_init(&loop, &config, &why), AG_OK, "%s", why);
    ctx = (struct ag_context){.loop = &loop};
    ag_spool_disk_init(&disk);
    folder = ag_spool_folder_new(open("/tmp", O_PATH | O_DIRECTORY | O_CLOEXEC));
    cr_assert_eq(ag_spool_folder_try(folder), 0);
}

static void stop(void)
{
    ag_spool_folder_release(folder);
    cr_expect_eq(disk.files, 0u);
    cr_expect_eq(disk.bytes, 0u);
    ag_helpers_free(helpers);
    cr_expect_eq(ag_loop_bufs_used(&loop, AG_BUF_SMALL), 0);
    cr_expect_eq(ag_loop_bufs_used(&loop, AG_BUF_LARGE), 0);
    cr_expect_eq(loop.nodes.used, 0);
    ag_loop_deinit(&loop);
    cr_expect_eq(count_fds(), fds);
}

static void turns(void)
{
    for (unsigned i = 0; i < 4; i++) {
        ag_loop_turn(&loop, 0);
    }
}

static void begin(const struct ag_spool_settings *set)
{
    static const struct ag_server_ops nobody;

    struct ag_spool_settings own = *set;

    own.folder = set->disk_bytes ? folder : NULL;
    ex = ag_exchange_new(&ctx, &nobody, NULL);
    cr_assert(ex);
    ag_body_init(&from, &loop);
    ag_body_init(&to, &loop);
    sp = ag_arena_zalloc(&ex->arena, sizeof(*sp));
    cr_assert(sp);
    sent_len = got_len = told = 0;
    ag_spool_init(sp, ex, &from, set->hold ? NULL : &to, &own);
    ag_spool_tell(sp, on_ended, &told);
}

/* Whatever is under way. */
static void finish(void)
{
    ag_spool_deinit(sp);
    ag_body_deinit(&from);
    ag_body_deinit(&to);
    ag_exchange_release(ex);
    turn_until(&loop, ctx.exchanges_live == 0);
}

static struct ag_spool_settings settings(uint32_t memory, uint64_t most, bool hold)
{
    return (struct ag_spool_settings){.disk = &disk,
                                      .disk_bytes = most,
                                      .total_bytes = UINT64_C(1) << 40,
                                      .memory_bytes = memory,
                                      .hold = hold};
}

/* So many bytes more, in a buffer of their own. */
static void put(enum ag_buf_group group, uint32_t len)
{
    struct ag_block *block = ag_loop_buf(&loop, group);

    cr_assert(block && len <= block->size && sent_len + len <= MOST);
    for (uint32_t i = 0; i < len; i++) {
        block->data[i] = sent[sent_len + i] = (uint8_t)((sent_len + i) * 2654435761u >> 11);
    }
    sent_len += len;
    cr_assert_eq(ag_body_write(&from, (struct ag_slice){{.ptr = block->data}, len, block}), AG_OK);
}

static void take(size_t most)
{
    while (most > 0 && to.q.bytes > 0) {
        struct ag_slice s = ag_body_take_most(&to, most);

        cr_assert_leq(got_len + s.len, MOST);
        memcpy(got + got_len, s.ptr, s.len);
        got_len += s.len;
        most -= s.len;
        ag_slice_release(&s);
    }
}

/* As much as goes in by itself, up to `len`. */
static void fill(size_t len)
{
    for (unsigned idle = 0; sent_len < len && idle < 50;) {
        if (ag_body_room(&from)) {
            put(AG_BUF_SMALL, (uint32_t)ag_min_size(AG_BUF_SMALL_BYTES, len - sent_len));
            idle = 0;
        } else {
            idle++;
        }
        ag_loop_turn(&loop, 1);
    }
}

static void expect_same(const char *what)
{
    cr_expect(got_len == sent_len && memcmp(got, sent, sent_len) == 0, "%s: %zu of %zu", what,
              got_len, sent_len);
}

/* Until `to` has ended, or was aborted. */
static void take_all(void)
{
    turn_until(&loop, (take(MOST), to.q.bytes == 0 && (to.ended || to.aborted)));
}

static uint64_t file_bytes(void)
{
    struct stat st;

    return sp->fd >= 0 && fstat(sp->fd, &st) == 0 ? (uint64_t)st.st_size : 0;
}

/* ---- streams ---- */

static void stream_by_chance(unsigned seed, uint32_t memory, uint64_t most)
{
    const struct ag_spool_settings set = settings(memory, most, false);

    begin(&set);
    for (unsigned i = 0; i < 400; i++) {
        bool large = rand_r(&seed) % 3 == 0;
        uint32_t size = large ? AG_BUF_LARGE_BYTES : AG_BUF_SMALL_BYTES;
        uint32_t len = 1 + (uint32_t)rand_r(&seed) % (rand_r(&seed) % 2 ? 300 : size / 4);

        if (sent_len + len <= MOST && ag_body_room(&from)) {
            put(large ? AG_BUF_LARGE : AG_BUF_SMALL, len);
        }
        loop.tight = rand_r(&seed) % 16 == 0;
        if (rand_r(&seed) % 8 == 0) {
            take((size_t)rand_r(&seed) % 100000);
        }
        ag_loop_turn(&loop, 0);
        cr_expect_leq(file_bytes(), most);
    }
    loop.tight = false;
    ag_body_end(&from, NULL);
    cr_expect_eq(told, 0u, "much is still to be given");
    take_all();
    turn_until(&loop, told == 1);
    expect_same("stream");
    cr_expect(to.ended && told == 1 && sp->state == AG_SPOOL_OVER);
    finish();
}

Test(spool, streams_of_chance)
{
    static const uint32_t memory[] = {0, 5000, 65536};
    static const uint64_t most[] = {0, 10000, 200001, 1u << 20};

    for (unsigned with = 0; with < 2; with++) {
        start(with);
        for (unsigned i = 0; i < AG_COUNT(memory) * AG_COUNT(most); i++) {
            stream_by_chance(i, memory[i % AG_COUNT(memory)], most[i / AG_COUNT(memory)]);
        }
        stop();
    }
}

Test(spool, a_stream_is_taken_while_nobody_reads_it_up_to_its_bounds)
{
    const struct ag_spool_settings set = settings(65536, 1u << 20, false);

    start(false);
    begin(&set);
    fill(MOST);
    cr_expect_geq(sent_len, (1u << 20) + AG_BODY_BYTES_MAX);
    cr_expect_lt(sent_len, (1u << 20) + 3 * AG_BODY_BYTES_MAX);
    cr_expect_gt(file_bytes(), (1u << 20) - 65536 - 1);
    cr_expect_leq(file_bytes(), 1u << 20);
    cr_expect_eq(disk.bytes, sp->extent);
    cr_expect_eq(disk.files, 1u, "%u", disk.files);
    while (sent_len < MOST) { /* the ring goes round */
        take(20000);
        fill(sent_len + 20000 < MOST ? sent_len + 20000 : MOST);
    }
    ag_body_end(&from, NULL);
    take_all();
    expect_same("ring");
    finish();
    stop();
}

Test(spool, when_buffers_run_short_one_block_is_enough_for_the_disk)
{
    const struct ag_spool_settings set = settings(65536, 1u << 20, false);

    start(false);
    loop.tight = true;
    begin(&set);
    for (unsigned i = 0; i < 8; i++) {
        put(AG_BUF_SMALL, 1000);
        turns();
    }
    cr_expect_geq(file_bytes(), 5000u);
    cr_expect_leq(ag_loop_bufs_used(&loop, AG_BUF_SMALL), 4);
    ag_body_end(&from, NULL);
    take_all();
    loop.tight = false;
    expect_same("tight");
    finish();
    stop();
}

Test(spool, a_stream_breaks_off_after_what_came)
{
    const struct ag_spool_settings set = settings(4096, 1u << 20, false);

    start(false);
    begin(&set);
    fill(600000);
    ag_body_abort(&from, AG_REASON_RESET);
    turns();
    cr_expect(!to.aborted && told == 0);
    take_all();
    turns();
    expect_same("all that came");
    cr_expect(to.aborted && to.reason == AG_REASON_RESET && !to.ended && told == 1);
    cr_expect_eq(sp->failure, AG_SPOOL_ABORTED);
    finish();
    stop();
}

Test(spool, what_nobody_wants_is_dropped)
{
    const struct ag_spool_settings set = settings(4096, 1u << 20, false);

    start(false);
    begin(&set);
    fill(600000);
    ag_body_discard(&to);
    fill(MOST);
    cr_expect_eq(sent_len, MOST);
    ag_body_end(&from, NULL);
    turns();
    cr_expect_eq(told, 1u);
    finish();
    stop();
}

/* ---- holds ---- */

static void give_again(void)
{
    ag_spool_close(sp);
    ag_body_deinit(&to);
    ag_body_init(&to, &loop);
    got_len = 0;
    ag_spool_open(sp, &to);
}

static void hold(uint32_t memory, uint64_t most, size_t len)
{
    const struct ag_spool_settings set = settings(memory, most, true);

    begin(&set);
    for (unsigned i = 0; sent_len < len && i < 400; i++) { /* the helper may stand still */
        fill(len);
    }
    cr_assert_eq(sent_len, len);
    turns();
    cr_expect(told == 0 && sp->state == AG_SPOOL_TAKING);
    ag_body_end(&from, NULL);
    turn_until(&loop, told == 1);
    cr_expect(ag_spool_is_whole(sp));
    cr_expect_eq(ag_spool_in_memory(sp) != NULL, file_bytes() == 0);
    cr_expect_eq(file_bytes() > 0, len > 65536);
}

Test(spool, a_hold_gives_all_again_and_again)
{
    static const size_t lens[] = {0, 1, 5000, 65000, 200000, 1500000};

    for (unsigned with = 0; with < 2; with++) {
        start(with);
        for (unsigned i = 0; i < AG_COUNT(lens); i++) {
            hold(65536, MOST, lens[i]);
            for (unsigned k = 0; k < 3; k++) {
                give_again();
                turns();
                take(100000); /* and the rest is not wanted: a read may be under way */
            }
            give_again();
            take_all();
            expect_same("hold");
            cr_expect(to.ended && ag_spool_is_whole(sp));
            give_again();
            turns();
            take(1000);
            ag_spool_forget(sp);
            cr_expect_not(ag_spool_is_whole(sp));
            take_all();
            expect_same("forgotten half-way");
            turn_until(&loop, disk.files == 0); /* long before the exchange ends */
            cr_expect_eq(ag_loop_bufs_used(&loop, AG_BUF_SMALL), 0);
            finish();
        }
        stop();
    }
}

static void hold_fails(struct ag_spool_settings set, enum ag_spool_failure why)
{
    begin(&set);
    fill(MOST);
    turn_until(&loop, told == 1);
    cr_expect(sp->state == AG_SPOOL_FAILED && sp->failure == why, "%d", sp->failure);
    cr_expect(!ag_spool_is_whole(sp) && !ag_spool_in_memory(sp));
    finish();
}

Test(spool, holds_that_cannot_be)
{
    struct ag_spool_settings set;

    start(false);
    hold_fails(settings(65536, 0, true), AG_SPOOL_TOO_LARGE);
    hold_fails(settings(65536, 300000, true), AG_SPOOL_TOO_LARGE);
    set = settings(65536, MOST, true);
    set.total_bytes = 300000;
    hold_fails(set, AG_SPOOL_NO_ROOM);
    set = settings(65536, MOST, true);
    disk.files_max = 0;
    hold_fails(set, AG_SPOOL_NO_ROOM);
    stop();
}

Test(spool, an_aborted_hold_has_failed)
{
    const struct ag_spool_settings set = settings(4096, MOST, true);

    start(false);
    begin(&set);
    fill(100000);
    ag_body_abort(&from, AG_REASON_EOF);
    turn_until(&loop, told == 1);
    cr_expect(sp->state == AG_SPOOL_FAILED && sp->failure == AG_SPOOL_ABORTED,
              "%d %d file %d max %u", sp->state, sp->failure, sp->file, disk.files_max);
    finish();
    stop();
}

/* ---- a disk that fails ---- */

/* Puts `path` in the place of the file. */
static void replace_file(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC);

    cr_assert(fd >= 0 && sp->fd >= 0);
    cr_assert_eq(dup3(fd, sp->fd, O_CLOEXEC), sp->fd);
    cr_assert_eq(close(fd), 0);
}

Test(spool, a_full_disk_makes_a_stream_wait_and_a_hold_fail)
{
    struct ag_spool_settings set = settings(65536, MOST, false);
    const struct rlimit full = {200000, RLIM_INFINITY}; /* the last write is a short one */

    start(false);
    cr_assert_neq(signal(SIGXFSZ, SIG_IGN), SIG_ERR);
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &full), 0);
    begin(&set);
    fill(MOST);
    cr_expect_lt(sent_len, 200000 + 4 * AG_BODY_BYTES_MAX, "its sender waits");
    cr_expect_eq(sp->file, AG_SPOOL_REFUSED);
    cr_expect_eq(file_bytes(), 200000u);
    while (sent_len < MOST) {
        take(20000);
        fill(sent_len + 20000 < MOST ? sent_len + 20000 : MOST);
    }
    ag_body_end(&from, NULL);
    take_all();
    expect_same("all of it, by memory alone");
    finish();
    hold_fails(settings(65536, MOST, true), AG_SPOOL_NO_ROOM);
    stop();
}

Test(spool, what_cannot_be_read_back_is_never_a_whole)
{
    const struct ag_spool_settings set = settings(4096, MOST, false);

    start(false);
    for (unsigned i = 0; i < 2; i++) { /* an error, and a file that has become shorter */
        begin(&set);
        fill(700000);
        ag_body_end(&from, NULL);
        turns();
        if (i == 0) {
            replace_file("/dev/null", O_WRONLY);
        } else {
            cr_assert_eq(ftruncate(sp->fd, 5000), 0);
        }
        take_all();
        turns();
        cr_expect(to.aborted && !to.ended && told == 1 && sp->failure == AG_SPOOL_NO_ROOM);
        cr_expect(got_len < sent_len && memcmp(got, sent, got_len) == 0);
        finish();
        hold(4096, MOST, 700000);
        replace_file("/dev/null", O_WRONLY);
        ag_spool_open(sp, &to);
        take_all();
        cr_expect(to.aborted && !to.ended && !ag_spool_is_whole(sp));
        finish();
    }
    stop();
}

/* ---- what is under way ---- */

struct gate {
    struct ag_job job;
    pthread_barrier_t entered, leave;
};

static void wait_in_gate(struct ag_job *j)
{
    struct gate *g = ag_container_of(j, struct gate, job);

    (void)pthread_barrier_wait(&g->entered);
    (void)pthread_barrier_wait(&g->leave);
}

static void nothing(struct ag_job *j)
{
    (void)j;
}

/* Keeps the only helper busy. */
static void shut(struct gate *g)
{
    g->job = (struct ag_job){.run = wait_in_gate, .done = nothing};
    cr_assert_eq(pthread_barrier_init(&g->entered, NULL, 2), 0);
    cr_assert_eq(pthread_barrier_init(&g->leave, NULL, 2), 0);
    cr_assert_eq(ag_helpers_submit(helpers, &loop, &g->job), AG_OK);
    (void)pthread_barrier_wait(&g->entered);
}

static void let_through(struct gate *g)
{
    (void)pthread_barrier_wait(&g->leave);
}

Test(spool, it_may_end_while_the_disk_is_at_work)
{
    const struct ag_spool_settings set = settings(4096, MOST, false);
    struct gate making, writing;

    start(true);
    begin(&set);
    shut(&making);
    fill(MOST);
    cr_assert_eq(sp->file, AG_SPOOL_MAKING);
    ag_spool_deinit(sp);
    ag_body_deinit(&from);
    ag_body_deinit(&to);
    ag_exchange_release(ex);
    turns();
    cr_expect_eq(ctx.exchanges_live, 1u, "its memory stays");
    let_through(&making);
    turn_until(&loop, ctx.exchanges_live == 0);
    begin(&set);
    fill(400000);
    turn_until(&loop, sp->file == AG_SPOOL_MADE && !sp->changing);
    shut(&writing);
    fill(MOST);
    cr_assert(sp->changing && sp->writing.bytes > 0);
    ag_spool_deinit(sp);
    ag_body_deinit(&from);
    ag_body_deinit(&to);
    ag_exchange_release(ex);
    turns();
    cr_expect_eq(ctx.exchanges_live, 1u, "so do the bytes that are being written");
    cr_expect_gt(ag_loop_bufs_used(&loop, AG_BUF_SMALL), 0);
    let_through(&writing);
    turn_until(&loop, ctx.exchanges_live == 0);
    stop();
}
