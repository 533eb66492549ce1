#include "tools/tickets.h"

#include "engine/log.h"
#include "engine/tls_tickets.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Another process may have written the file. */
#define LOOK_MS 60000u

static uint64_t now_ms(clockid_t clock)
{
    struct timespec ts;

    (void)clock_gettime(clock, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* ---- the file ---- */

static uint64_t state_of(const struct stat *st)
{
    return ((uint64_t)st->st_ino * 31 + (uint64_t)st->st_mtim.tv_sec) * 1000003 +
           (uint64_t)st->st_mtim.tv_nsec + 1;
}

static uint64_t look_at(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0 ? state_of(&st) : 0;
}

/* Who may put a link there could choose what is overwritten: none is followed, and none replaced. */
static void tell_unreadable(const struct ag_tickets *t, int error)
{
    struct stat st;

    if (lstat(t->file, &st) == 0 && S_ISLNK(st.st_mode)) {
        ag_log(AG_LOG_ERROR,
               "ticket keys are neither read from nor kept in %s: it is a symbolic link; hint: "
               "tickets.file names the file itself",
               t->file);
    } else {
        ag_log(AG_LOG_ERROR, "cannot read the ticket keys %s: %s", t->file, strerrordesc_np(error));
    }
}

/* Its age in *out_age_ms. False: it is not there, or cannot be used, which was told. */
static bool read_file(struct ag_tickets *t, uint64_t *out_age_ms)
{
    uint8_t text[AG_TLS_TICKETS_TEXT_BYTES];
    int fd = open(t->file, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW);
    struct stat st;
    ssize_t n = -1;
    bool good = false;

    if (fd < 0) {
        t->foreign = errno != ENOENT;
        if (t->foreign) {
            tell_unreadable(t, errno);
        }
        t->seen = look_at(t->file);
        return false;
    }
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode)) {
        uint64_t wall = now_ms(CLOCK_REALTIME), written = (uint64_t)st.st_mtim.tv_sec * 1000;

        n = read(fd, text, sizeof(text));
        t->seen = state_of(&st);
        *out_age_ms = wall > written ? wall - written : 0;
        if (st.st_mode & (S_IRWXG | S_IRWXO)) {
            ag_log(AG_LOG_WARN, "others may read the ticket keys %s; hint: chmod 600", t->file);
        }
    }
    (void)close(fd);
    good = n > 0 && ag_tls_tickets_load(t->ring, ag_span(text, (size_t)n)) == AG_OK;
    explicit_bzero(text, sizeof(text));
    t->foreign = !good;
    if (!good) {
        ag_log(AG_LOG_ERROR, "%s holds no ticket keys; hint: remove it", t->file);
    }
    return good;
}

/* errno, or 0. */
static int write_all(int fd, struct ag_span text)
{
    for (size_t at = 0; at < text.len;) {
        ssize_t n = write(fd, text.ptr + at, text.len - at);

        if (n < 0 && errno != EINTR) {
            return errno;
        }
        at += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

static int replace(const char *path, const char *temp, struct ag_span text, struct stat *out)
{
    int fd, error;

    (void)unlink(temp); /* of a process that had our number and crashed */
    fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return errno;
    }
    error = write_all(fd, text);
    if (error == 0 && (fsync(fd) != 0 || fstat(fd, out) != 0)) {
        error = errno;
    }
    if (close(fd) != 0 && error == 0) {
        error = errno;
    }
    if (error == 0 && rename(temp, path) != 0) {
        error = errno;
    }
    if (error != 0) {
        (void)unlink(temp);
    }
    return error;
}

/* Serving matters more: what cannot be written is told once, and no more. */
static void write_file(struct ag_tickets *t)
{
    uint8_t text[AG_TLS_TICKETS_TEXT_BYTES];
    struct ag_buf b = ag_buf(text, sizeof(text));
    char temp[1024];
    struct stat st = {0};
    int error = ENAMETOOLONG;

    if (snprintf(temp, sizeof(temp), "%s.%d.tmp", t->file, (int)getpid()) < (int)sizeof(temp)) {
        ag_tls_tickets_save(t->ring, &b);
        error = replace(t->file, temp, ag_buf_span(&b), &st);
        explicit_bzero(text, sizeof(text));
    }
    if (error == 0) {
        t->seen = state_of(&st);
    } else if (!t->failed) {
        ag_log(AG_LOG_ERROR, "cannot write the ticket keys %s: %s", t->file,
               strerrordesc_np(error));
    }
    t->failed = error != 0;
}

static bool file_is_new(const struct ag_tickets *t)
{
    uint64_t state = look_at(t->file);

    return state != 0 && state != t->seen;
}

static bool may_write(const struct ag_tickets *t)
{
    return !t->foreign || look_at(t->file) == 0;
}

/* ---- life ---- */

void ag_tickets_init(struct ag_tickets *t, struct ag_span inherited)
{
    *t = (struct ag_tickets){0};
    if (inherited.len == 0) {
        return;
    }
    t->ring = ag_tls_tickets_new(AG_TLS_TICKETS_KEEP_MAX);
    if (t->ring && ag_tls_tickets_load(t->ring, inherited) != AG_OK) {
        ag_log(AG_LOG_WARN,
               "the predecessor's ticket keys are of another form: sessions begin anew");
    }
}

void ag_tickets_deinit(struct ag_tickets *t)
{
    ag_tls_tickets_free(t->ring);
    free(t->file);
    *t = (struct ag_tickets){0};
}

static bool gives_tickets(const struct ag_model *m)
{
    for (uint16_t i = 0; i < m->listen_count; i++) {
        if (m->listens[i].tls && m->listens[i].tls->tickets) {
            return true;
        }
    }
    return false;
}

bool ag_tickets_prepare(struct ag_tickets *t, const struct ag_model *m)
{
    if (!t->ring && gives_tickets(m)) {
        t->ring = ag_tls_tickets_new(m->tickets.keep);
    }
    return t->ring || !gives_tickets(m);
}

static void set_file(struct ag_tickets *t, const char *file)
{
    uint64_t age_ms = 0;

    if (t->file && file && strcmp(t->file, file) == 0) {
        return;
    }
    free(t->file);
    t->file = file ? strdup(file) : NULL;
    t->seen = 0;
    t->failed = t->foreign = false;
    if (!t->file) {
        return;
    }
    if (read_file(t, &age_ms)) {
        t->rotate_at_ms =
            now_ms(CLOCK_MONOTONIC) + (age_ms < t->rotate_ms ? t->rotate_ms - age_ms : 0);
    } else if (may_write(t)) {
        write_file(t);
    }
}

void ag_tickets_apply(struct ag_tickets *t, const struct ag_model *m)
{
    bool was_on = t->on;

    t->on = t->ring && gives_tickets(m);
    if (!t->on) {
        return;
    }
    ag_tls_tickets_keep(t->ring, m->tickets.keep);
    if (!was_on || t->rotate_ms != m->tickets.rotate_ms) {
        t->rotate_ms = m->tickets.rotate_ms;
        t->rotate_at_ms = now_ms(CLOCK_MONOTONIC) + t->rotate_ms;
    }
    set_file(t, m->tickets.file);
    t->look_at_ms = now_ms(CLOCK_MONOTONIC) + LOOK_MS;
}

int ag_tickets_wait_ms(const struct ag_tickets *t)
{
    uint64_t now = now_ms(CLOCK_MONOTONIC), due = t->rotate_at_ms;

    if (!t->on) {
        return -1;
    }
    if (t->file) {
        due = ag_min_u64(due, t->look_at_ms);
    }
    return due <= now ? 0 : (int)ag_min_u64(due - now, LOOK_MS);
}

bool ag_tickets_turn(struct ag_tickets *t)
{
    uint64_t now = now_ms(CLOCK_MONOTONIC), age_ms = 0;
    bool changed = false;

    if (!t->on || (now < t->rotate_at_ms && (!t->file || now < t->look_at_ms))) {
        return false;
    }
    t->look_at_ms = now + LOOK_MS;
    if (t->file && file_is_new(t) && read_file(t, &age_ms)) {
        t->rotate_at_ms = now + (age_ms < t->rotate_ms ? t->rotate_ms - age_ms : 0);
        changed = true;
    }
    if (now >= t->rotate_at_ms) {
        ag_tls_tickets_rotate(t->ring);
        t->rotate_at_ms = now + t->rotate_ms;
        changed = true;
        if (t->file && may_write(t)) {
            write_file(t);
        }
    }
    return changed;
}

void ag_tickets_save(const struct ag_tickets *t, struct ag_buf *out)
{
    if (t->on) {
        ag_tls_tickets_save(t->ring, out);
    }
}
