#include "tools/outcome.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

/* The first line has one length, so that it can be written last. */
#define HEAD_FORMAT "%-8s%020" PRIu64 "\n"
#define HEAD_BYTES  29

static const char applied_word[] = "applied ", refused_word[] = "refused ";

uint64_t ag_outcome_now_ns(void)
{
    struct timespec now = {0};

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static bool name_it(const char *pid_file, const char *ending, char *out, size_t cap)
{
    int n = snprintf(out, cap, "%s.reload%s", pid_file, ending);

    return n > 0 && (size_t)n < cap;
}

void ag_outcome_open(struct ag_outcome *o, const char *pid_file)
{
    static const char blank[HEAD_BYTES];

    o->fd = -1;
    o->began_ns = ag_outcome_now_ns();
    if (!pid_file || !name_it(pid_file, "", o->path, sizeof(o->path)) ||
        !name_it(pid_file, ".tmp", o->temp, sizeof(o->temp))) {
        return;
    }
    (void)unlink(o->temp);
    o->fd = open(o->temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (o->fd >= 0 && write(o->fd, blank, sizeof(blank)) != (ssize_t)sizeof(blank)) {
        (void)close(o->fd);
        (void)unlink(o->temp);
        o->fd = -1;
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

void ag_outcome_close(struct ag_outcome *o, bool applied)
{
    char head[HEAD_BYTES + 1];
    bool good;

    if (o->fd < 0) {
        return;
    }
    (void)snprintf(head, sizeof(head), HEAD_FORMAT, applied ? applied_word : refused_word,
                   o->began_ns);
    good = pwrite(o->fd, head, HEAD_BYTES, 0) == HEAD_BYTES;
    good = close(o->fd) == 0 && good;
    o->fd = -1;
    if (!good || rename(o->temp, o->path) != 0) {
        (void)unlink(o->temp);
    }
}

void ag_outcome_remove(const char *pid_file)
{
    char path[AG_PIDFILE_PATH];

    if (name_it(pid_file, "", path, sizeof(path))) {
        (void)unlink(path);
    }
}

/* ---- reading ---- */

static void read_text(int fd, struct ag_buf *out)
{
    ssize_t n = 1;
    char more;

    while (n > 0 && out->len < out->cap) {
        n = read(fd, out->ptr + out->len, out->cap - out->len);
        out->len += n > 0 ? (size_t)n : 0;
    }
    out->overflow = n > 0 && read(fd, &more, 1) == 1;
}

enum ag_status ag_outcome_read(const char *pid_file, uint64_t since_ns, bool *out_applied,
                               struct ag_buf *out_text)
{
    const size_t word = sizeof(applied_word) - 1;
    char path[AG_PIDFILE_PATH], head[HEAD_BYTES];
    enum ag_status st = AG_AGAIN;
    uint64_t began = 0;
    int fd = -1;

    if (name_it(pid_file, "", path, sizeof(path))) {
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    }
    if (fd < 0) {
        return AG_AGAIN;
    }
    if (read(fd, head, sizeof(head)) == HEAD_BYTES &&
        ag_span_u64(ag_span(head + word, HEAD_BYTES - 1 - word), &began) == AG_OK &&
        began >= since_ns) {
        *out_applied = memcmp(head, applied_word, word) == 0;
        read_text(fd, out_text);
        st = AG_OK;
    }
    (void)close(fd);
    return st;
}
