#include "tools/pidfile.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static enum ag_status status_of(int error)
{
    return error == EACCES || error == EPERM ? AG_EACCES : AG_ESYS;
}

/* Reads at most cap - 1 bytes of a small file, NUL-terminated. -1: errno tells. */
static ssize_t slurp(const char *path, char *out, size_t cap)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    ssize_t n = fd < 0 ? -1 : read(fd, out, cap - 1);
    int error = errno;

    if (fd >= 0) {
        (void)close(fd);
    }
    out[n < 0 ? 0 : n] = '\0';
    errno = error;
    return n;
}

enum ag_status ag_pidfile_read(const char *path, pid_t *out_pid)
{
    char text[32];
    uint64_t pid = 0;
    ssize_t n = slurp(path, text, sizeof(text));

    if (n < 0) {
        return errno == ENOENT ? AG_ENOENT : status_of(errno);
    }
    if (n > 0 && text[n - 1] == '\n') {
        n--;
    }
    if (ag_span_u64(ag_span(text, (size_t)n), &pid) != AG_OK || pid == 0 || pid > INT_MAX) {
        return AG_EINVAL;
    }
    *out_pid = (pid_t)pid;
    return AG_OK;
}

/* ---- whose it is ---- */

static bool begins_with_anygate(struct ag_span name)
{
    return ag_span_starts(name, AG_SPAN("anygate"));
}

/* "12 (name) S ...": the name may hold anything, so its end is the last parenthesis. */
static bool runs_as_anygate(pid_t pid, bool *out_alive)
{
    char path[32], text[512];

    *out_alive = false;
    (void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    if (slurp(path, text, sizeof(text)) <= 0) {
        return false;
    }
    const char *name = strchr(text, '('), *end = strrchr(text, ')');
    if (!name || !end || end < name || end[1] != ' ') {
        return false;
    }
    *out_alive = end[2] != 'Z' && end[2] != 'X';
    name++;
    return begins_with_anygate(ag_span(name, (size_t)(end - name)));
}

static bool binary_is_anygate(pid_t pid)
{
    char path[32], target[AG_PIDFILE_PATH];
    struct stat theirs, ours;
    ssize_t n;

    (void)snprintf(path, sizeof(path), "/proc/%d/exe", (int)pid);
    n = readlink(path, target, sizeof(target) - 1);
    if (n <= 0) {
        return false; /* another user's */
    }
    target[n] = '\0';
    const char *slash = strrchr(target, '/');
    return begins_with_anygate(ag_span_str(slash ? slash + 1 : target)) ||
           (stat(path, &theirs) == 0 && stat("/proc/self/exe", &ours) == 0 &&
            theirs.st_dev == ours.st_dev && theirs.st_ino == ours.st_ino);
}

bool ag_pidfile_is_anygate(pid_t pid)
{
    bool alive, named = runs_as_anygate(pid, &alive);

    return alive && (named || binary_is_anygate(pid));
}

int ag_pidfile_watch(pid_t pid)
{
    return (int)syscall(SYS_pidfd_open, pid, 0); /* C libraries have no name for it in common */
}

/* ---- the file ---- */

/* A name beside `path`, so that a rename is atomic. False: it would be too long. */
static bool beside(const char *path, char *out, size_t cap)
{
    int n = snprintf(out, cap, "%s.%d.tmp", path, (int)getpid());

    return n > 0 && (size_t)n < cap;
}

static enum ag_status complain(const char *path, int error, struct ag_buf *why)
{
    ag_buf_printf(why, "cannot write the pid file %s: %s", path, strerrordesc_np(error));
    if (error == ENOENT) {
        ag_buf_printf(why, "; hint: its directory does not exist");
    } else if (error == EACCES) {
        ag_buf_printf(why, "; hint: this user may not write to its directory");
    }
    return status_of(error);
}

/* The temporary file, open; -1: errno tells. */
static int open_temp(const char *path, char *out_name, size_t cap)
{
    if (!beside(path, out_name, cap)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    (void)unlink(out_name); /* of a process that had our number and crashed */
    return open(out_name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
}

static const char *kind_of(mode_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFREG:
        return "holds something else than the number of a process";
    case S_IFDIR:
        return "is a directory";
    case S_IFLNK:
        return "is a symbolic link";
    default:
        return "is no regular file";
    }
}

/* Whether what is to hold the file is a directory. */
static enum ag_status look_at_folder(const char *path, struct ag_buf *why)
{
    char folder[AG_PIDFILE_PATH];
    const char *slash = strrchr(path, '/');
    struct stat st;
    int n = snprintf(folder, sizeof(folder), "%.*s/.", slash ? (int)(slash - path) : 1,
                     slash ? path : ".");

    if (n < 0 || (size_t)n >= sizeof(folder)) {
        return complain(path, ENAMETOOLONG, why);
    }
    return stat(folder, &st) == 0 ? AG_OK : complain(path, errno, why);
}

enum ag_status ag_pidfile_look(const char *path, struct ag_buf *why)
{
    struct stat st;
    pid_t pid;

    if (lstat(path, &st) != 0) {
        return errno == ENOENT ? look_at_folder(path, why) : complain(path, errno, why);
    }
    if (S_ISREG(st.st_mode)) {
        enum ag_status read = st.st_size == 0 ? AG_OK : ag_pidfile_read(path, &pid);

        if (read == AG_OK || read == AG_ENOENT) { /* it may have gone since */
            return AG_OK;
        }
        if (read != AG_EINVAL) {
            ag_buf_printf(why, "cannot read %s, which the pid file would replace: %s", path,
                          strerrordesc_np(errno));
            return read;
        }
    }
    ag_buf_printf(
        why,
        "%s %s, and a pid file would replace it; hint: remove it when nobody needs it, or "
        "choose another server.pid_file",
        path, kind_of(st.st_mode));
    return AG_EINVAL;
}

enum ag_status ag_pidfile_check(const char *path, struct ag_buf *why)
{
    char temp[AG_PIDFILE_PATH];
    pid_t pid = 0;
    int fd;
    enum ag_status st = ag_pidfile_look(path, why);

    if (st != AG_OK) {
        return st;
    }
    if (ag_pidfile_read(path, &pid) == AG_OK && pid != getpid() && ag_pidfile_is_anygate(pid)) {
        ag_buf_printf(why,
                      "%s is the pid file of another anygate, process %d; hint: stop it with "
                      "anygate stop --pid-file %s, or choose another server.pid_file",
                      path, (int)pid, path);
        return AG_ELIMIT;
    }
    fd = open_temp(path, temp, sizeof(temp));
    if (fd < 0) {
        return complain(path, errno, why);
    }
    (void)close(fd);
    (void)unlink(temp);
    return AG_OK;
}

enum ag_status ag_pidfile_write(const char *path, pid_t pid, struct ag_buf *why)
{
    char temp[AG_PIDFILE_PATH], text[32];
    enum ag_status st = ag_pidfile_look(path, why);
    int fd, len, error = 0;

    if (st != AG_OK) {
        return st;
    }
    fd = open_temp(path, temp, sizeof(temp));
    if (fd < 0) {
        return complain(path, errno, why);
    }
    len = snprintf(text, sizeof(text), "%d\n", (int)pid);
    if (write(fd, text, (size_t)len) != len) {
        error = errno;
    }
    if (close(fd) != 0 && error == 0) {
        error = errno;
    }
    if (error == 0 && rename(temp, path) == 0) {
        return AG_OK;
    }
    error = error ? error : errno;
    (void)unlink(temp);
    return complain(path, error, why);
}

void ag_pidfile_remove(const char *path)
{
    pid_t pid = 0;

    if (ag_pidfile_read(path, &pid) == AG_OK && pid == getpid()) {
        (void)unlink(path);
    }
}
