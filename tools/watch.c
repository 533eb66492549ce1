#include "tools/watch.h"

#include <errno.h>
#include <limits.h>
#include <sys/inotify.h>
#include <time.h>
#include <unistd.h>

#define LINKS_MAX 16u /* one behind the other */

static uint64_t now_ms(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

void ag_watch_init(struct ag_watch *w)
{
    *w = (struct ag_watch){.fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC)};
    ag_arena_init(&w->arena, NULL, 0);
}

void ag_watch_deinit(struct ag_watch *w)
{
    if (w->fd >= 0) {
        (void)close(w->fd);
    }
    ag_arena_release(&w->arena);
    *w = (struct ag_watch){.fd = -1};
}

/* Where a link leads, in the arena; NULL: it is none. */
static const char *follow(struct ag_watch *w, const char *path)
{
    char to[PATH_MAX];
    ssize_t n = readlink(path, to, sizeof(to) - 1);
    const char *slash = strrchr(path, '/');

    if (n <= 0) {
        return NULL;
    }
    to[n] = '\0';
    return to[0] == '/' || !slash
               ? ag_arena_printf(&w->arena, "%s", to)
               : ag_arena_printf(&w->arena, "%.*s/%s", (int)(slash - path), path, to);
}

/* The folder that a path lies in; a folder's own path. */
static void add_folder(struct ag_watch *w, const char *path, bool itself)
{
    const uint32_t events = IN_CLOSE_WRITE | IN_CREATE | IN_MOVED_TO | IN_DELETE | IN_MOVED_FROM |
                            IN_ATTRIB | IN_ONLYDIR;
    const char *slash = strrchr(path, '/');
    const char *folder = itself ? path
                         : slash
                             ? ag_arena_strdup(&w->arena, ag_span(path, (size_t)(slash - path) + 1))
                             : ".";

    /* The same folder again is the same watch. One that cannot be watched is looked at each minute. */
    (void)inotify_add_watch(w->fd, folder, events);
}

/* And those of what it leads to, where it is a link: that may be written to where it lies. */
static void add_file(struct ag_watch *w, const char *path)
{
    for (unsigned i = 0; path && i < LINKS_MAX; i++) {
        add_folder(w, path, false);
        path = follow(w, path);
    }
}

static void drop_watches(struct ag_watch *w)
{
    if (w->fd >= 0) {
        (void)close(w->fd);
    }
    w->fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
}

void ag_watch_set(struct ag_watch *w, const struct ag_tls_files *files)
{
    if (w->due_ms) {
        drop_watches(w); /* folders of files that are used no more */
    }
    ag_arena_release(&w->arena);
    ag_arena_init(&w->arena, NULL, 0);
    ag_tls_files_copy(files, &w->arena, &w->files);
    /* Soon: they may have changed since they were read, before anybody watched. */
    w->due_ms = w->files.first ? now_ms() + AG_WATCH_QUIET_MS : 0;
    w->event_ms = 0;
    w->seen = 0;
    for (const struct ag_tls_file *f = w->files.first; f; f = f->next) {
        w->seen = w->seen * 31 + f->signature;
        if (w->fd >= 0) {
            if (f->kind == AG_TLS_FILE_FOLDER) {
                add_folder(w, f->path, true);
            } else {
                add_file(w, f->path);
            }
        }
        if (w->fd >= 0 && f->kind == AG_TLS_FILE_IDENTITY) {
            add_file(w, f->key_path);
        }
    }
}

int ag_watch_wait_ms(const struct ag_watch *w)
{
    uint64_t now = now_ms();

    if (w->due_ms == 0) {
        return -1;
    }
    return w->due_ms <= now ? 0 : (int)(w->due_ms - now);
}

/* Which ones does not matter. */
static bool drain(struct ag_watch *w)
{
    char events[2048];
    bool any = false;

    while (w->fd >= 0 && read(w->fd, events, sizeof(events)) > 0) {
        any = true;
    }
    return any;
}

bool ag_watch_turn(struct ag_watch *w)
{
    bool any = drain(w);
    uint64_t now = now_ms(), state = 0;

    if (any && w->due_ms) {
        w->event_ms = w->event_ms ? w->event_ms : now;
        w->due_ms = ag_min_u64(now + AG_WATCH_QUIET_MS, w->event_ms + AG_WATCH_BUSY_MS);
    }
    if (w->due_ms == 0 || now < w->due_ms) {
        return false;
    }
    w->event_ms = 0;
    w->due_ms = now + AG_WATCH_POLL_MS;
    for (const struct ag_tls_file *f = w->files.first; f; f = f->next) {
        state = state * 31 + ag_tls_file_signature(f);
    }
    if (state == w->seen) {
        return false;
    }
    w->seen = state;
    return true;
}
