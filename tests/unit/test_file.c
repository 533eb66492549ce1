/*
 * Goal: nothing outside the root is ever opened, nothing hangs, and reads are whole.
 * Method: a real tree with every way out that symlinks and dots give; each case on the shard itself, by
 * helpers, and where openat2 is forbidden (a seccomp filter, as in older containers).
 */
#include "engine/file.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct ag_loop loop;
static struct ag_helpers *helpers;
static char base[64];
static int root = -1;
static unsigned calls;

static void write_file(int dir, const char *name, const void *bytes, size_t len)
{
    int fd = openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC, 0644);

    cr_assert_neq(fd, -1);
    cr_assert_eq(write(fd, bytes, len), (ssize_t)len);
    cr_assert_eq(close(fd), 0);
}

/* base/secret, and below base/root: a/b/file, links of every kind, a FIFO. */
static void make_tree(void)
{
    (void)snprintf(base, sizeof(base), "/tmp/ag-file-XXXXXX");
    cr_assert(mkdtemp(base));
    int top = open(base, O_RDONLY | O_DIRECTORY);
    cr_assert_neq(top, -1);
    write_file(top, "secret", "secret", 6);
    cr_assert_eq(mkdirat(top, "root", 0755), 0);
    root = openat(top, "root", O_PATH | O_DIRECTORY | O_CLOEXEC);
    cr_assert_neq(root, -1);
    cr_assert_eq(mkdirat(root, "a", 0755), 0);
    cr_assert_eq(mkdirat(root, "a/b", 0755), 0);
    write_file(root, "a/b/file", "content", 7);
    cr_assert_eq(symlinkat("a/b", root, "inside"), 0);
    cr_assert_eq(symlinkat("b/file", root, "a/near"), 0);
    cr_assert_eq(symlinkat("../secret", root, "out"), 0);
    cr_assert_eq(symlinkat("/etc", root, "abs"), 0);
    cr_assert_eq(symlinkat("loop", root, "loop"), 0);
    cr_assert_eq(mkfifoat(root, "fifo", 0644), 0);
    cr_assert_eq(close(top), 0);
}

static void start(bool with_helpers)
{
    const char *why = NULL;

    helpers = with_helpers ? ag_helpers_new(2, 8) : NULL;
    struct ag_loop_config config = {
        .backend = AG_BACKEND_EPOLL, .buf_count = {64, 8}, .node_count = 8, .helpers = helpers};
    cr_assert_eq(ag_loop_init(&loop, &config, &why), AG_OK, "%s", why);
}

static void stop(void)
{
    ag_helpers_free(helpers);
    ag_loop_deinit(&loop);
}

static void setup(void)
{
    make_tree();
    calls = 0;
}

static void teardown(void)
{
    char command[96];

    (void)close(root);
    (void)snprintf(command, sizeof(command), "rm -rf %s", base);
    cr_expect_eq(system(command), 0);
}

TestSuite(file, .init = setup, .fini = teardown);

static void on_done(struct ag_file_op *op)
{
    (void)op;
    calls++;
}

static void await(void)
{
    unsigned before = calls;

    while (calls == before) {
        ag_loop_turn(&loop, UINT32_MAX);
    }
    cr_assert_eq(calls, before + 1);
}

static void open_path(struct ag_file_op *op, const char *path, enum ag_follow follow)
{
    unsigned before = calls;

    ag_file_open(&loop, op, root, path, follow, on_done);
    cr_assert_eq(calls, before, "done comes from the loop, not from the call");
    await();
}

struct path_row {
    const char *path;
    enum ag_status beneath, any, none; /* of AG_FOLLOW_... */
};

static const struct path_row paths[] = {
    {"a/b/file", AG_OK, AG_OK, AG_OK},
    {"a//b/./file", AG_OK, AG_OK, AG_OK},
    {"a", AG_OK, AG_OK, AG_OK},
    {"a/b/", AG_OK, AG_OK, AG_OK},
    {".", AG_OK, AG_OK, AG_OK},
    {"a/b/file/", AG_ENOENT, AG_ENOENT, AG_ENOENT},
    {"a/b/file/x", AG_ENOENT, AG_ENOENT, AG_ENOENT},
    {"nothing", AG_ENOENT, AG_ENOENT, AG_ENOENT},
    {"", AG_ENOENT, AG_ENOENT, AG_ENOENT},
    {"inside/file", AG_OK, AG_OK, AG_ENOENT},
    {"a/near", AG_OK, AG_OK, AG_ENOENT},
    {"out", AG_ENOENT, AG_OK, AG_ENOENT},
    {"abs/hosts", AG_ENOENT, AG_OK, AG_ENOENT},
    {"loop", AG_ENOENT, AG_ENOENT, AG_ENOENT},
    {"../secret", AG_ENOENT, AG_ENOENT, AG_ENOENT},
    {"a/../../secret", AG_ENOENT, AG_ENOENT, AG_ENOENT},
    {"a/b/../../../secret", AG_ENOENT, AG_ENOENT, AG_ENOENT},
    {"..", AG_ENOENT, AG_ENOENT, AG_ENOENT},
    {"/etc/hosts", AG_ENOENT, AG_ENOENT, AG_ENOENT},
    {"fifo", AG_OK, AG_OK, AG_OK}, /* nobody writes: must not hang */
};

static void check_path(const struct path_row *row, enum ag_follow follow, enum ag_status want)
{
    struct ag_file_op op;

    open_path(&op, row->path, follow);
    cr_expect_eq(op.status, want, "%s, follow %d: %d (errno %d)", row->path, (int)follow,
                 (int)op.status, op.error);
    cr_expect_eq(op.status == AG_OK, op.error == 0);
    cr_expect_eq(op.status == AG_OK, op.out_fd >= 0);
    if (op.status == AG_OK) {
        struct stat st;

        cr_expect_eq(fstat(op.out_fd, &st), 0);
        cr_expect_eq(op.stat.inode, st.st_ino);
        cr_expect_eq(op.stat.is_dir, S_ISDIR(st.st_mode));
        cr_expect_eq(op.stat.is_regular, S_ISREG(st.st_mode));
        cr_expect_eq(fcntl(op.out_fd, F_GETFD), FD_CLOEXEC);
        cr_expect_eq(close(op.out_fd), 0);
    }
    struct ag_file_op stat_op;
    ag_file_stat(&loop, &stat_op, root, row->path, follow, on_done);
    await();
    cr_expect_eq(stat_op.status, want, "stat %s, follow %d: %d (errno %d)", row->path, (int)follow,
                 (int)stat_op.status, stat_op.error);
    cr_expect_eq(stat_op.out_fd, -1);
    if (stat_op.status == AG_OK && op.status == AG_OK) {
        cr_expect_eq(stat_op.stat.inode, op.stat.inode);
    }
}

static void check_paths(bool links)
{
    for (size_t i = 0; i < AG_COUNT(paths); i++) {
        bool linked = paths[i].beneath != paths[i].none;

        check_path(&paths[i], AG_FOLLOW_BENEATH, links || !linked ? paths[i].beneath : AG_ENOENT);
        check_path(&paths[i], AG_FOLLOW_ANY, paths[i].any);
        check_path(&paths[i], AG_FOLLOW_NONE, paths[i].none);
    }
    int fd = open("/dev/null", O_RDONLY); /* no descriptor leaked: the next free one is low */
    cr_expect_lt(fd, 64);
    (void)close(fd);
}

Test(file, paths_on_the_loop)
{
    start(false);
    check_paths(true);
    stop();
}

Test(file, paths_by_helpers)
{
    start(true);
    check_paths(true);
    stop();
}

/* Makes openat2 fail with `error`, for this process and its threads to come. */
static bool forbid_openat2(unsigned error)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat2, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog prog = {AG_COUNT(code), code};

    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) == 0;
}

Test(file, paths_without_openat2)
{
    if (!forbid_openat2(ENOSYS)) {
        cr_skip_test("no seccomp here");
    }
    start(true);
    check_paths(false);
    stop();
}

Test(file, paths_with_openat2_refused)
{
    if (!forbid_openat2(EPERM)) {
        cr_skip_test("no seccomp here");
    }
    start(false);
    check_paths(false);
    stop();
}

Test(file, names_too_long_are_no_files)
{
    static char name[5000];
    struct ag_file_op op;

    start(true);
    memset(name, 'x', sizeof(name) - 1);
    open_path(&op, name, AG_FOLLOW_BENEATH);
    cr_expect_eq(op.status, AG_ENOENT);
    name[300] = '\0';
    open_path(&op, name, AG_FOLLOW_BENEATH);
    cr_expect_eq(op.status, AG_ENOENT);
    stop();
}

Test(file, no_descriptor_left)
{
    struct ag_file_op op;
    const struct rlimit few = {64, 64};
    int fds[64], n = 0;

    start(true);
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
    while (n < 64 && (fds[n] = open("/dev/null", O_RDONLY)) >= 0) {
        n++;
    }
    cr_assert_lt(n, 64);
    open_path(&op, "a/b/file", AG_FOLLOW_BENEATH);
    cr_expect_eq(op.status, AG_ELIMIT);
    cr_expect_eq(op.error, EMFILE);
    while (n > 0) {
        (void)close(fds[--n]);
    }
    stop();
}

enum { SIZE = 300000 };

/* `cold`: the file's pages are dropped from memory first, so that helpers have to work. */
static void check_read(bool cold)
{
    static uint8_t bytes[SIZE], got[SIZE + 100];
    static const struct {
        uint64_t offset;
        size_t len, want;
    } rows[] = {
        {0, SIZE, SIZE},
        {0, SIZE + 100, SIZE},
        {1, 5000, 5000},
        {4095, 2, 2},
        {SIZE - 1, 100, 1},
        {SIZE, 10, 0},
        {(uint64_t)1 << 40, 10, 0},
        {7, 0, 0},
    };
    struct ag_file_op op;

    for (size_t i = 0; i < SIZE; i++) {
        bytes[i] = (uint8_t)(i * 2654435761u >> 13);
    }
    write_file(root, "large", bytes, SIZE);
    open_path(&op, "large", AG_FOLLOW_NONE);
    cr_assert_eq(op.status, AG_OK);
    int fd = op.out_fd;
    cr_expect_eq(op.stat.size_bytes, SIZE);
    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        if (cold) {
            cr_assert_eq(fsync(fd), 0);
            (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
        }
        memset(got, 0xaa, sizeof(got));
        ag_file_read(&loop, &op, fd, got, rows[i].len, rows[i].offset, on_done);
        await();
        cr_expect_eq(op.status, AG_OK);
        cr_expect_eq(op.out_len, rows[i].want, "row %zu: %zu", i, op.out_len);
        if (rows[i].want) {
            cr_expect_arr_eq(got, bytes + rows[i].offset, rows[i].want);
        }
        cr_expect_eq(got[rows[i].want], 0xaa);
    }
    ag_file_read(&loop, &op, -1, got, 1, 0, on_done);
    await();
    cr_expect_eq(op.status, AG_ESYS);
    cr_expect_eq(op.error, EBADF);
    cr_expect_eq(close(fd), 0);
}

Test(file, read)
{
    start(false);
    check_read(false);
    check_read(true);
    stop();
    start(true);
    check_read(false);
    check_read(true);
    stop();
}

Test(file, warm)
{
    static const uint8_t bytes[SIZE];
    struct ag_file_op op;

    start(true);
    write_file(root, "large", bytes, SIZE);
    open_path(&op, "large", AG_FOLLOW_NONE);
    cr_assert_eq(op.status, AG_OK);
    int fd = op.out_fd;
    cr_assert_eq(fsync(fd), 0);
    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    ag_file_warm(&loop, &op, fd, 0, SIZE, on_done);
    await();
    cr_expect_eq(op.status, AG_OK);
    uint8_t byte;
    struct iovec iov = {&byte, 1};
    if (preadv2(fd, &iov, 1, 0, RWF_NOWAIT) == 1) { /* where the file system can tell */
        cr_expect(ag_file_is_warm(&loop, fd, 0, SIZE));
        cr_expect(ag_file_is_warm(&loop, fd, SIZE - 1, 1));
        cr_expect(ag_file_is_warm(&loop, fd, SIZE, 100),
                  "beyond the end there is nothing to wait for");
    }
    cr_expect(ag_file_is_warm(&loop, fd, 0, 0));
    cr_expect_not(ag_file_is_warm(&loop, -1, 0, 1));
    ag_file_warm(&loop, &op, fd, SIZE - 10, 1000, on_done);
    await();
    cr_expect_eq(op.status, AG_OK, "less than asked for is no error");
    ag_file_warm(&loop, &op, -1, 0, 10, on_done);
    await();
    cr_expect_eq(op.status, AG_ESYS);
    cr_expect_eq(close(fd), 0);
    stop();
}

/* Pieces of several sizes at an offset, and what is read of them. */
static void check_write(void)
{
    static uint8_t bytes[SIZE], back[SIZE];
    struct iovec iov[] = {{bytes, 1}, {bytes + 1, 4095}, {bytes + 4096, SIZE - 4096}};
    struct ag_file_op op;
    struct stat st;
    char path[32];

    for (size_t i = 0; i < SIZE; i++) {
        bytes[i] = (uint8_t)(i * 2654435761u >> 13);
    }
    ag_file_make(&loop, &op, root, on_done);
    await();
    cr_assert_eq(op.status, AG_OK);
    int fd = op.out_fd;
    cr_assert_eq(fstat(fd, &st), 0);
    cr_expect_eq(st.st_nlink, 0u, "it has no name");
    cr_expect_eq(st.st_mode & 07777, 0600u);
    cr_expect_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    cr_expect_neq(linkat(AT_FDCWD, path, root, "named", AT_SYMLINK_FOLLOW), 0,
                  "nor can it get one");
    ag_file_write(&loop, &op, fd, iov, 3, 5000, on_done);
    await();
    cr_expect_eq(op.status, AG_OK);
    cr_expect_eq(op.out_len, (size_t)SIZE);
    ag_file_read(&loop, &op, fd, back, SIZE, 5000, on_done);
    await();
    cr_expect(op.out_len == SIZE && memcmp(back, bytes, SIZE) == 0);
    ag_file_close(&loop, &op, fd, on_done);
    await();
    cr_expect_eq(op.status, AG_OK);
    cr_expect_eq(fcntl(fd, F_GETFD), -1);
    ag_file_write(&loop, &op, -1, (struct iovec[]){{bytes, 1}}, 1, 0, on_done);
    await();
    cr_expect(op.status == AG_ESYS && op.error == EBADF && op.out_len == 0);
}

Test(file, write)
{
    start(false);
    check_write();
    stop();
    start(true);
    check_write();
    stop();
}

Test(file, a_full_disk_is_told_with_what_it_took)
{
    static uint8_t bytes[SIZE];
    const struct rlimit full = {100000, RLIM_INFINITY};
    struct iovec iov[] = {{bytes, 70000}, {bytes, 70000}};
    struct ag_file_op op;

    start(true); /* whose threads block the signal */
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &full), 0);
    ag_file_make(&loop, &op, root, on_done);
    await();
    int fd = op.out_fd;
    ag_file_write(&loop, &op, fd, iov, 2, 0, on_done);
    await();
    cr_expect(op.status == AG_ELIMIT && op.error == EFBIG && op.out_len == 100000);
    ag_file_close(&loop, &op, fd, on_done);
    await();
    ag_file_make(&loop, &op, -1, on_done);
    await();
    cr_expect(op.status == AG_ESYS && op.out_fd == -1);
    stop();
}

Test(file, blocks_close_at_the_last_release)
{
    struct ag_block *all[8];

    start(false);
    for (int i = 0; i < 8; i++) {
        all[i] = ag_file_block(&loop, dup(root));
        cr_assert(all[i]);
    }
    cr_expect_null(ag_file_block(&loop, root), "none left; the descriptor stays the caller's");
    cr_expect_neq(fcntl(root, F_GETFD), -1);
    int fd = all[0]->fd;
    struct ag_slice s = {{.offset = 0}, 100, all[0]}, half = ag_slice_sub(&s, 50, 50);
    cr_expect(ag_slice_is_file(&half));
    ag_slice_release(&s);
    cr_expect_neq(fcntl(fd, F_GETFD), -1);
    ag_slice_release(&half);
    cr_expect_eq(fcntl(fd, F_GETFD), -1);
    for (int i = 1; i < 8; i++) {
        ag_block_release(all[i]);
    }
    stop(); /* panics when a block leaked */
}

struct gate {
    struct ag_job job;
    pthread_barrier_t *entered, *leave;
};

static void hold(struct ag_job *j)
{
    struct gate *g = ag_container_of(j, struct gate, job);

    (void)pthread_barrier_wait(g->entered);
    (void)pthread_barrier_wait(g->leave);
}

static void nothing(struct ag_job *j)
{
    (void)j;
}

static void came_back(struct ag_job *j)
{
    (void)j;
    calls++;
}

Test(file, a_full_helper_queue_is_told)
{
    pthread_barrier_t entered, leave;
    struct gate gates[2];
    struct ag_job jobs[8];
    struct ag_file_op op;

    start(true);
    open_path(&op, "a/b/file", AG_FOLLOW_NONE);
    int fd = op.out_fd;
    calls = 0;
    cr_assert_eq(pthread_barrier_init(&entered, NULL, 3), 0);
    cr_assert_eq(pthread_barrier_init(&leave, NULL, 3), 0);
    for (int i = 0; i < 2; i++) { /* both threads are busy */
        gates[i] = (struct gate){{.run = hold, .done = came_back}, &entered, &leave};
        cr_assert_eq(ag_helpers_submit(helpers, &loop, &gates[i].job), AG_OK);
    }
    (void)pthread_barrier_wait(&entered);
    for (int i = 0; i < 8; i++) { /* and the queue is full */
        jobs[i] = (struct ag_job){.run = nothing, .done = came_back};
        cr_assert_eq(ag_helpers_submit(helpers, &loop, &jobs[i]), AG_OK);
    }
    ag_file_warm(&loop, &op, fd, 0, 1, on_done);
    cr_expect_eq(calls, 0);
    await();
    cr_expect_eq(op.status, AG_ELIMIT);
    (void)pthread_barrier_wait(&leave);
    while (calls < 11) {
        ag_loop_turn(&loop, UINT32_MAX);
    }
    ag_file_warm(&loop, &op, fd, 0, 1, on_done);
    await();
    cr_expect_eq(op.status, AG_OK);
    cr_expect_eq(close(fd), 0);
    stop();
    cr_expect_eq(pthread_barrier_destroy(&entered), 0);
    cr_expect_eq(pthread_barrier_destroy(&leave), 0);
}
