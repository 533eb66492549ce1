#include "tools/outcome.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* The first line: three words of fixed length. */
#define WORD_BYTES  8u /* with the space */
#define CLOCK_BYTES 20u
#define SIZE_BYTES  10u
#define HEAD_BYTES  (WORD_BYTES + CLOCK_BYTES + 1 + SIZE_BYTES + 1)

static const char applied_word[] = "applied ", refused_word[] = "refused ";

uint64_t ag_outcome_now_ns(void)
{
    struct timespec now = {0};

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static bool name_it(const char *pid_file, char *out, size_t cap)
{
    int n = snprintf(out, cap, "%s.reload", pid_file);

    return n > 0 && (size_t)n < cap;
}

/* ---- writing ---- */

/* A file that cannot be written tells nothing from now on. */
static void put(struct ag_outcome *o, const char *text, size_t len, off_t at)
{
    if (o->fd >= 0 && pwrite(o->fd, text, len, at) != (ssize_t)len) {
        ag_outcome_close(o);
    }
}

/* Unless it is a file that holds something else, or none at all: that is nobody's to remove. */
static void remove_old(const char *path)
{
    char word[WORD_BYTES] = "";
    struct stat st;
    ssize_t n = 0;

    if (lstat(path, &st) != 0 || !(S_ISREG(st.st_mode) || S_ISLNK(st.st_mode))) {
        return;
    }
    if (S_ISREG(st.st_mode) && st.st_size > 0) {
        int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);

        n = fd < 0 ? -1 : pread(fd, word, sizeof(word), 0);
        if (fd >= 0) {
            (void)close(fd);
        }
    }
    if (n == 0 || (n == sizeof(word) && (word[0] == '\0' || /* a reload was under way */
                                         memcmp(word, applied_word, sizeof(word)) == 0 ||
                                         memcmp(word, refused_word, sizeof(word)) == 0))) {
        (void)unlink(path);
    }
}

void ag_outcome_open(struct ag_outcome *o, const char *pid_file)
{
    char path[AG_PIDFILE_PATH];

    ag_outcome_close(o);
    if (pid_file && name_it(pid_file, path, sizeof(path))) {
        remove_old(path);
        o->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
    }
}

/* What this program made, and nobody has put in its place. */
static bool is_ours(int fd)
{
    struct stat st;

    return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_uid == geteuid() && st.st_nlink == 1;
}

void ag_outcome_join(struct ag_outcome *o, const char *pid_file)
{
    char path[AG_PIDFILE_PATH];

    ag_outcome_close(o);
    if (pid_file && name_it(pid_file, path, sizeof(path))) {
        o->fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    }
    if (o->fd < 0 || !is_ours(o->fd)) {
        ag_outcome_open(o, pid_file);
    }
}

void ag_outcome_begin(struct ag_outcome *o)
{
    static const char blank[HEAD_BYTES];

    o->began_ns = ag_outcome_now_ns();
    put(o, blank, sizeof(blank), 0);
    if (o->fd >= 0) {
        (void)!ftruncate(o->fd, HEAD_BYTES); /* for people; the size in the first line counts */
        (void)lseek(o->fd, HEAD_BYTES, SEEK_SET);
    }
}

void ag_outcome_say(struct ag_outcome *o, const char *fmt, ...)
{
    va_list args;

    if (o->fd >= 0) {
        va_start(args, fmt);
        (void)vdprintf(o->fd, fmt, args);
        va_end(args);
    }
}

void ag_outcome_end(struct ag_outcome *o, bool applied)
{
    char head[HEAD_BYTES + 1];
    off_t end = o->fd >= 0 ? lseek(o->fd, 0, SEEK_CUR) : 0;

    if (end < (off_t)HEAD_BYTES) {
        return;
    }
    (void)snprintf(head, sizeof(head), "%s%020" PRIu64 " %010u\n",
                   applied ? applied_word : refused_word, o->began_ns,
                   (unsigned)(end - (off_t)HEAD_BYTES));
    put(o, head, HEAD_BYTES, 0);
}

void ag_outcome_close(struct ag_outcome *o)
{
    if (o->fd >= 0) {
        (void)close(o->fd);
    }
    o->fd = -1;
}

void ag_outcome_remove(const char *pid_file)
{
    char path[AG_PIDFILE_PATH];

    if (name_it(pid_file, path, sizeof(path))) {
        remove_old(path);
    }
}

/* ---- reading ---- */

struct head {
    char bytes[HEAD_BYTES];
    uint64_t began_ns, size_bytes;
};

static bool read_head(int fd, struct head *out)
{
    const char *clock = out->bytes + WORD_BYTES, *size = clock + CLOCK_BYTES + 1;

    return pread(fd, out->bytes, HEAD_BYTES, 0) == (ssize_t)HEAD_BYTES &&
           ag_span_u64(ag_span(clock, CLOCK_BYTES), &out->began_ns) == AG_OK &&
           ag_span_u64(ag_span(size, SIZE_BYTES), &out->size_bytes) == AG_OK;
}

/* False: the file is shorter than its first line says. */
static bool read_text(int fd, uint64_t size_bytes, struct ag_buf *out)
{
    size_t want = (size_t)ag_min_u64(size_bytes, out->cap);

    out->len = 0;
    while (out->len < want) {
        ssize_t n = pread(fd, out->ptr + out->len, want - out->len, (off_t)(HEAD_BYTES + out->len));

        if (n <= 0) {
            return false;
        }
        out->len += (size_t)n;
    }
    out->overflow = want < size_bytes;
    return true;
}

enum ag_status ag_outcome_read(const char *pid_file, uint64_t since_ns, bool *out_applied,
                               struct ag_buf *out_text)
{
    char path[AG_PIDFILE_PATH];
    enum ag_status st = AG_AGAIN;
    struct head before = {0}, after = {0};
    int fd = -1;

    if (name_it(pid_file, path, sizeof(path))) {
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    }
    if (fd < 0) {
        return AG_AGAIN;
    }
    /* The same first line before and after: what is between was not changed meanwhile. */
    if (read_head(fd, &before) && before.began_ns >= since_ns &&
        read_text(fd, before.size_bytes, out_text) && read_head(fd, &after) &&
        memcmp(before.bytes, after.bytes, HEAD_BYTES) == 0) {
        *out_applied = memcmp(before.bytes, applied_word, WORD_BYTES) == 0;
        st = AG_OK;
    }
    (void)close(fd);
    return st;
}
