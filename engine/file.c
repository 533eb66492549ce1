#include "engine/file.h"

#include "engine/backend.h"
#include "engine/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define OPEN_FLAGS (O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)
#define STAT_FLAGS (O_PATH | O_CLOEXEC)
#define MAKE_FLAGS (O_TMPFILE | O_RDWR | O_EXCL | O_CLOEXEC)
/* Of a step of the walk: a symlink is opened as itself and then is no directory. */
#define STEP_FLAGS (O_PATH | O_CLOEXEC | O_NOFOLLOW | O_DIRECTORY)

/* A rename of a directory on the way makes a guarded lookup fail with EAGAIN; so often at most. */
#define OPEN_RETRIES 8

#define PAGE_BYTES   4096u
#define WARM_SAMPLES 6u /* pages that ag_file_is_warm looks at */

enum what { WHAT_OPEN, WHAT_STAT, WHAT_READ, WHAT_WARM, WHAT_MAKE, WHAT_WRITE, WHAT_CLOSE };

/* ---- outcome ---- */

static enum ag_status status_of(int error)
{
    switch (error) {
    case 0:
        return AG_OK;
    case ENOENT:
    case ENOTDIR:
    case ELOOP:
    case EXDEV:
    case ENAMETOOLONG:
    case ENXIO:
    case ENODEV:
        return AG_ENOENT;
    case EACCES:
    case EPERM:
        return AG_EACCES;
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return AG_ELIMIT;
    default:
        return AG_ESYS;
    }
}

/* Delivers from a task: done() never comes from inside the call that began the operation. */
static void on_task(struct ag_task *t)
{
    struct ag_file_op *op = ag_container_of(t, struct ag_file_op, task);

    op->done(op);
}

static void finish(struct ag_file_op *op, int error)
{
    op->error = error;
    op->status = status_of(error);
    ag_task_queue(op->loop, &op->task);
}

/* ---- open and stat ---- */

static int fill_stat(struct ag_file_stat *out, int fd)
{
    struct stat st;

    if (AG_SYS("fstat", fstat(fd, &st)) != 0) {
        return errno;
    }
    /* O_PATH opens the symlink that O_NOFOLLOW meets, where an open for reading fails. */
    if (S_ISLNK(st.st_mode)) {
        return ELOOP;
    }
    *out = (struct ag_file_stat){
        .size_bytes = st.st_size > 0 ? (uint64_t)st.st_size : 0,
        .mtime_s = st.st_mtim.tv_sec,
        .mtime_ns = (uint32_t)st.st_mtim.tv_nsec,
        .inode = st.st_ino,
        .device = st.st_dev,
        .is_dir = S_ISDIR(st.st_mode),
        .is_regular = S_ISREG(st.st_mode),
    };
    return 0;
}

/* Whether some segment of `path` is "..". */
static bool has_parent(const char *path)
{
    for (const char *at = path; at; at = strchr(at, '/')) {
        at += *at == '/';
        if (at[0] == '.' && at[1] == '.' && (at[2] == '/' || at[2] == '\0')) {
            return true;
        }
    }
    return false;
}

/* -errno, or a descriptor. */
static int open_once(const struct ag_file_op *op, uint64_t extra)
{
    static const uint64_t resolve[] = {
        [AG_FOLLOW_BENEATH] = RESOLVE_BENEATH,
        [AG_FOLLOW_ANY] = 0,
        [AG_FOLLOW_NONE] = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS,
    };
    struct open_how how = {
        .flags = op->what == WHAT_STAT ? STAT_FLAGS : OPEN_FLAGS,
        .resolve = resolve[op->follow] | RESOLVE_NO_MAGICLINKS | extra,
    };
    long fd;

    do { /* a network file system may be interrupted */
        fd = AG_SYS("openat2", syscall(SYS_openat2, op->dir_fd, op->path, &how, sizeof(how)));
    } while (fd < 0 && errno == EINTR);
    return fd < 0 ? -errno : (int)fd;
}

/* The same by openat. */
static int open_plain(int dir, const char *path, int flags)
{
    int fd;

    do {
        fd = AG_SYS("openat", openat(dir, path, flags));
    } while (fd < 0 && errno == EINTR);
    return fd < 0 ? -errno : fd;
}

/* One segment down; takes `dir` when it is not the root. */
static int step(const struct ag_file_op *op, int dir, const char *name, size_t len, int flags)
{
    char segment[256]; /* NAME_MAX and its NUL */
    int fd = -ENAMETOOLONG;

    if (len < sizeof(segment)) {
        memcpy(segment, name, len);
        segment[len] = '\0';
        fd = open_plain(dir, segment, flags);
    }
    if (dir != op->dir_fd) {
        (void)close(dir);
    }
    return fd;
}

/* Without openat2: no symlink is followed, so that nothing can lead out; AG_FOLLOW_ANY needs no guard.
 * The last segment is opened with O_NOFOLLOW alone, which fails on a symlink with ELOOP. */
static int open_walk(const struct ag_file_op *op)
{
    int flags = op->what == WHAT_STAT ? STAT_FLAGS : OPEN_FLAGS, dir = op->dir_fd;
    const char *at = op->path;

    if (op->follow == AG_FOLLOW_ANY) {
        return open_plain(op->dir_fd, op->path, flags);
    }
    if (has_parent(op->path)) {
        return -EXDEV;
    }
    for (;;) {
        size_t len = strcspn(at, "/");
        const char *next = at + len + strspn(at + len, "/");

        if (*next == '\0') { /* "a/" must be a directory */
            return step(op, dir, at, len, flags | O_NOFOLLOW | (at[len] == '/' ? O_DIRECTORY : 0));
        }
        dir = step(op, dir, at, len, STEP_FLAGS);
        if (dir < 0) {
            return dir;
        }
        at = next;
    }
}

static int open_blocking(const struct ag_file_op *op)
{
    int fd = open_once(op, 0);

    for (int i = 0; fd == -EAGAIN && i < OPEN_RETRIES; i++) {
        fd = open_once(op, 0);
    }
    /* EPERM: how older container run-times refuse a system call that they do not know. */
    return fd == -ENOSYS || fd == -EPERM ? open_walk(op) : fd;
}

/* Fills the outputs. errno, or 0. */
static int opened(struct ag_file_op *op, int fd)
{
    if (fd < 0) {
        return -fd;
    }
    int error = fill_stat(&op->stat, fd);
    if (error != 0 || op->what == WHAT_STAT) {
        (void)close(fd);
    } else {
        op->out_fd = fd;
    }
    return error;
}

/* ---- read and warm ---- */

/* From out_len on; 0 when done, EAGAIN when the rest is not in memory. */
static int read_on(struct ag_file_op *op, int flags)
{
    while (op->out_len < op->len) {
        size_t len = AG_FAULT("preadv.short") ? 1 : op->len - op->out_len;
        struct iovec iov = {op->buf + op->out_len, len};
        off_t at = (off_t)(op->offset + op->out_len);
        ssize_t n = AG_SYS("preadv", preadv2(op->fd, &iov, 1, at, flags));

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return errno;
        }
        if (n == 0) {
            break;
        }
        op->out_len += (size_t)n;
    }
    return 0;
}

/* 1: there, 0: at or beyond the file's end, -1: with errno. */
static ssize_t touch(int fd, uint64_t offset, int flags)
{
    uint8_t byte;
    struct iovec iov = {&byte, 1};
    ssize_t n;

    do {
        n = AG_SYS("preadv.touch", preadv2(fd, &iov, 1, (off_t)offset, flags));
    } while (n < 0 && errno == EINTR);
    return n;
}

/* readahead begins as much at once as the device likes; touching each page waits for it and lets the
 * kernel's own read-ahead bring the rest. */
static int warm_blocking(const struct ag_file_op *op)
{
    uint64_t end = op->offset + op->len;

    (void)readahead(op->fd, (off_t)op->offset, op->len);
    for (uint64_t at = op->offset; at < end; at += PAGE_BYTES - at % PAGE_BYTES) {
        ssize_t n = touch(op->fd, at, 0);

        if (n <= 0) {
            return n < 0 ? errno : 0;
        }
    }
    return 0;
}

bool ag_file_is_warm(struct ag_loop *l, int fd, uint64_t offset, size_t len)
{
    if (len == 0) {
        return true;
    }
    if (ag_unlikely(l->backend->system->file_is_warm)) {
        return l->backend->system->file_is_warm(l, fd, offset, len);
    }
    if (AG_FAULT("file.cold")) {
        return false;
    }
    size_t gap = len / (WARM_SAMPLES - 1);

    gap = gap > PAGE_BYTES ? gap : PAGE_BYTES;
    for (size_t at = 0; at < len - 1; at += gap) {
        if (touch(fd, offset + at, RWF_NOWAIT) < 0) {
            return false;
        }
    }
    return touch(fd, offset + len - 1, RWF_NOWAIT) >= 0;
}

/* ---- files without a name ---- */

int ag_file_make_now(int dir_fd, int *out_fd)
{
    struct open_how how = {.flags = MAKE_FLAGS, .mode = 0600};
    long fd;

    do {
        fd = AG_SYS("openat2.make", syscall(SYS_openat2, dir_fd, ".", &how, sizeof(how)));
        if (fd < 0 && errno == ENOSYS) { /* an old seccomp profile */
            fd = openat(dir_fd, ".", MAKE_FLAGS, 0600);
        }
    } while (fd < 0 && errno == EINTR);
    if (fd < 0) {
        return errno;
    }
    *out_fd = (int)fd;
    return 0;
}

/* The first `n` bytes of what is to be written are. */
static void advance(struct ag_file_op *op, size_t n)
{
    op->out_len += n;
    while (op->len > 0 && n >= op->iov->iov_len) {
        n -= op->iov->iov_len;
        op->iov++;
        op->len--;
    }
    if (n > 0) {
        op->iov->iov_base = (uint8_t *)op->iov->iov_base + n;
        op->iov->iov_len -= n;
    }
}

static int write_all(struct ag_file_op *op)
{
    while (op->len > 0) {
        struct iovec one = {op->iov->iov_base, 1};
        bool cut = AG_FAULT("pwritev.short");
        ssize_t n = AG_SYS("pwritev", pwritev(op->fd, cut ? &one : op->iov, cut ? 1 : (int)op->len,
                                              (off_t)(op->offset + op->out_len)));

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return n < 0 ? errno : ENOSPC;
        }
        advance(op, (size_t)n);
    }
    return 0;
}

/* ---- operations ---- */

static int run_blocking(struct ag_file_op *op)
{
    switch ((enum what)op->what) {
    case WHAT_OPEN:
    case WHAT_STAT:
        return opened(op, open_blocking(op));
    case WHAT_READ:
        return read_on(op, 0);
    case WHAT_WARM:
        return warm_blocking(op);
    case WHAT_MAKE:
        return ag_file_make_now(op->dir_fd, &op->out_fd);
    case WHAT_WRITE:
        return write_all(op);
    case WHAT_CLOSE:
        (void)close(op->fd);
        return 0;
    }
    AG_UNREACHABLE("no such file operation");
}

static void on_helper(struct ag_job *j)
{
    struct ag_file_op *op = ag_container_of(j, struct ag_file_op, job);

    op->error = run_blocking(op);
}

static void on_helped(struct ag_job *j)
{
    struct ag_file_op *op = ag_container_of(j, struct ag_file_op, job);

    op->status = status_of(op->error);
    op->done(op);
}

static bool submit(struct ag_file_op *op)
{
    op->job.run = on_helper;
    op->job.done = on_helped;
    return ag_helpers_submit(op->loop->helpers, op->loop, &op->job) == AG_OK;
}

/* For what might block. */
static void hand_over(struct ag_file_op *op)
{
    if (!op->loop->helpers) {
        finish(op, run_blocking(op));
    } else if (!submit(op)) {
        finish(op, EAGAIN);
        op->status = AG_ELIMIT;
    }
}

void ag_file_perform(struct ag_file_op *op, int error)
{
    finish(op, error ? error : run_blocking(op));
}

/* A simulation has taken it. */
static bool taken_over(struct ag_file_op *op)
{
    bool (*take)(struct ag_loop *, struct ag_file_op *) = op->loop->backend->system->file;

    return ag_unlikely(take) && take(op->loop, op);
}

static struct ag_file_op begin(struct ag_loop *l, enum what what, ag_file_fn *done)
{
    struct ag_file_op op = {.done = done, .loop = l, .what = (uint8_t)what, .out_fd = -1, .fd = -1};

    return op;
}

static void start_path(struct ag_file_op *op)
{
    ag_task_init(&op->task, on_task);
    if (op->path[0] == '/' || (op->follow == AG_FOLLOW_ANY && has_parent(op->path))) {
        finish(op, ENOENT);
        return;
    }
    if (taken_over(op)) {
        return;
    }
    int fd = AG_FAULT("file.cold") ? -EAGAIN : open_once(op, RESOLVE_CACHED);
    /* EAGAIN: not all of it is in memory. EINVAL: a kernel before 5.12. */
    if (fd == -EAGAIN || fd == -EINVAL || fd == -ENOSYS || fd == -EPERM) {
        hand_over(op);
        return;
    }
    finish(op, opened(op, fd));
}

void ag_file_open(struct ag_loop *l, struct ag_file_op *op, int dir_fd, const char *path,
                  enum ag_follow follow, ag_file_fn *done)
{
    *op = begin(l, WHAT_OPEN, done);
    op->dir_fd = dir_fd;
    op->path = path;
    op->follow = follow;
    start_path(op);
}

void ag_file_stat(struct ag_loop *l, struct ag_file_op *op, int dir_fd, const char *path,
                  enum ag_follow follow, ag_file_fn *done)
{
    *op = begin(l, WHAT_STAT, done);
    op->dir_fd = dir_fd;
    op->path = path;
    op->follow = follow;
    start_path(op);
}

/* NOLINTNEXTLINE(readability-function-size): pread's arguments, and where to */
void ag_file_read(struct ag_loop *l, struct ag_file_op *op, int fd, uint8_t *buf, size_t len,
                  uint64_t offset, ag_file_fn *done)
{
    AG_ASSERT(offset <= INT64_MAX && len <= INT64_MAX - offset);
    *op = begin(l, WHAT_READ, done);
    op->fd = fd;
    op->buf = buf;
    op->len = len;
    op->offset = offset;
    ag_task_init(&op->task, on_task);
    if (taken_over(op)) {
        return;
    }
    int error = AG_FAULT("file.cold") ? EAGAIN : read_on(op, RWF_NOWAIT);
    if (error == EAGAIN || error == EOPNOTSUPP) {
        hand_over(op);
        return;
    }
    finish(op, error);
}

void ag_file_warm(struct ag_loop *l, struct ag_file_op *op, int fd, uint64_t offset, size_t len,
                  ag_file_fn *done)
{
    AG_ASSERT(offset <= INT64_MAX && len <= INT64_MAX - offset);
    *op = begin(l, WHAT_WARM, done);
    op->fd = fd;
    op->len = len;
    op->offset = offset;
    ag_task_init(&op->task, on_task);
    if (!taken_over(op)) {
        hand_over(op);
    }
}

void ag_file_make(struct ag_loop *l, struct ag_file_op *op, int dir_fd, ag_file_fn *done)
{
    *op = begin(l, WHAT_MAKE, done);
    op->dir_fd = dir_fd;
    ag_task_init(&op->task, on_task);
    if (!taken_over(op)) {
        hand_over(op);
    }
}

/* NOLINTNEXTLINE(readability-function-size): pwritev's arguments, and where to */
void ag_file_write(struct ag_loop *l, struct ag_file_op *op, int fd, struct iovec *iov,
                   uint32_t count, uint64_t offset, ag_file_fn *done)
{
    AG_ASSERT(count > 0 && offset <= INT64_MAX);
    *op = begin(l, WHAT_WRITE, done);
    op->fd = fd;
    op->iov = iov;
    op->len = count;
    op->offset = offset;
    ag_task_init(&op->task, on_task);
    if (!taken_over(op)) {
        hand_over(op);
    }
}

void ag_file_close(struct ag_loop *l, struct ag_file_op *op, int fd, ag_file_fn *done)
{
    *op = begin(l, WHAT_CLOSE, done);
    op->fd = fd;
    ag_task_init(&op->task, on_task);
    /* A simulation has no say in it. */
    if (l->backend->system->file || !l->helpers || !submit(op)) {
        finish(op, run_blocking(op));
    }
}

/* ---- blocks ---- */

static void block_free(struct ag_block *b)
{
    struct ag_file_block *f = ag_container_of(b, struct ag_file_block, block);

    (void)close(b->fd);
    ag_pool_put(&f->loop->files, f);
}

struct ag_block *ag_file_block(struct ag_loop *l, int fd)
{
    struct ag_file_block *f = ag_pool_get(&l->files);

    AG_ASSERT(fd >= 0);
    if (!f) {
        return NULL;
    }
    *f = (struct ag_file_block){.block = {.refs = 1, .free = block_free, .fd = fd}, .loop = l};
    return &f->block;
}
