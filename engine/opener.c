#include "engine/opener.h"

#include "engine/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <sys/stat.h>
#include <unistd.h>

#define BUCKETS 4096u
#define NO_FD   UINT32_MAX

enum question { ASK_FILE, ASK_DIR, ASK_LOOK, ASK_GLOB, ASK_REALPATH, ASK_CWD, QUESTIONS };

/* One question and its answer. */
struct fact {
    struct fact *next;   /* in the order of asking */
    struct fact *bucket; /* with the same hash */
    enum question question;
    struct ag_span key;
    struct ag_answer answer; /* fd is unused */
    uint32_t fd_index;       /* in the opener's descriptors, or NO_FD */
};

struct ag_opener {
    struct ag_arena arena;
    bool replaying;
    bool pinned;
    struct fact *first, **last;
    struct fact *buckets[BUCKETS];
    int *fds;
    uint32_t fd_count, fd_cap;
};

/* A fact's head in saved bytes; key and text follow, each padded to 8 bytes. */
struct saved {
    uint64_t device, inode, key_len, text_len;
    uint32_t question, kind;
    int32_t error;
    uint32_t fd_index;
    uint32_t mode, unused;
    int64_t mtime_ns;
};

_Static_assert(sizeof(struct saved) % 8 == 0, "what follows is aligned");

/* ---- the system's answers ---- */

static void refuse(struct ag_answer *out, int error)
{
    *out = (struct ag_answer){.error = error, .fd = -1};
}

static void describe(struct ag_answer *out, const struct stat *st)
{
    out->kind = S_ISREG(st->st_mode)   ? AG_FILE_REGULAR
                : S_ISDIR(st->st_mode) ? AG_FILE_DIR
                                       : AG_FILE_OTHER;
    out->device = (uint64_t)st->st_dev;
    out->inode = (uint64_t)st->st_ino;
    out->mode = (uint32_t)st->st_mode & 07777u;
    out->mtime_ns = (int64_t)st->st_mtim.tv_sec * 1000000000 + (int64_t)st->st_mtim.tv_nsec;
}

static struct ag_span keep_text(struct ag_arena *arena, struct ag_span s)
{
    return ag_span(ag_arena_strdup(arena, s), s.len);
}

/* errno, or 0. A file that is cut meanwhile ends where it ends. */
static int read_whole(int fd, struct ag_arena *arena, size_t size, struct ag_span *out)
{
    uint8_t *text = ag_arena_alloc(arena, size + 1);
    size_t len = 0;

    while (len < size) {
        ssize_t n = AG_SYS("load.read", read(fd, text + len, size - len));

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return errno;
        }
        if (n == 0) {
            break;
        }
        len += (size_t)n;
    }
    text[len] = '\0';
    *out = ag_span(text, len);
    return 0;
}

static void ask_file(struct ag_arena *arena, const char *path, size_t max_bytes,
                     struct ag_answer *out)
{
    struct stat st;
    /* Not to be stuck on a fifo. */
    int fd = AG_SYS("load.open", open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));

    if (fd < 0 || AG_SYS("load.fstat", fstat(fd, &st)) != 0) {
        refuse(out, errno);
    } else {
        describe(out, &st);
        if (out->kind == AG_FILE_REGULAR) {
            out->error = (uint64_t)st.st_size > max_bytes
                             ? EFBIG
                             : read_whole(fd, arena, (size_t)st.st_size, &out->text);
        }
    }
    if (fd >= 0) {
        (void)close(fd); /* read only: nothing can be lost */
    }
}

static void ask_dir(const char *path, struct ag_answer *out)
{
    struct stat st;
    int fd = AG_SYS("load.dir", open(path, O_PATH | O_DIRECTORY | O_CLOEXEC));

    if (fd < 0) {
        refuse(out, errno);
    } else if (AG_SYS("load.fstat", fstat(fd, &st)) != 0) {
        refuse(out, errno);
        (void)close(fd);
    } else {
        describe(out, &st);
        out->fd = fd;
    }
}

static void ask_look(const char *path, struct ag_answer *out)
{
    struct stat st;

    if (AG_SYS("load.stat", stat(path, &st)) != 0) {
        refuse(out, errno);
    } else {
        describe(out, &st);
    }
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* A directory that is not there matches nothing; one that cannot be read might hide a file. */
static int on_glob_error(const char *path, int error)
{
    (void)path;
    return error != ENOENT && error != ENOTDIR;
}

static void ask_glob(struct ag_arena *arena, const char *pattern, struct ag_answer *out)
{
    glob_t found = {0};
    size_t len = 0;
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): not with GLOB_TILDE; by one thread at a time */
    int rc = glob(pattern, GLOB_NOSORT, on_glob_error, &found);

    if (rc == GLOB_NOSPACE || rc == GLOB_ABORTED) {
        refuse(out, rc == GLOB_NOSPACE ? ENOMEM : errno);
    } else if (found.gl_pathc > 0) {
        qsort(found.gl_pathv, found.gl_pathc, sizeof(*found.gl_pathv), by_text);
        for (size_t i = 0; i < found.gl_pathc; i++) {
            len += strlen(found.gl_pathv[i]) + 1;
        }
        uint8_t *text = ag_arena_alloc(arena, len + 1);
        struct ag_buf b = ag_buf(text, len);
        for (size_t i = 0; i < found.gl_pathc; i++) {
            ag_buf_put(&b, ag_span(found.gl_pathv[i], strlen(found.gl_pathv[i]) + 1));
        }
        AG_ASSERT(b.len == len && !b.overflow);
        text[len] = '\0';
        out->text = ag_span(text, len);
    }
    globfree(&found);
}

/* `path` is malloc'ed and freed here, or NULL with errno. */
static void take_path(struct ag_arena *arena, char *path, struct ag_answer *out)
{
    if (!path) {
        refuse(out, errno);
        return;
    }
    out->text = keep_text(arena, ag_span_str(path));
    free(path);
}

static void ask_system(enum question q, struct ag_arena *arena, const char *key, size_t max_bytes,
                       struct ag_answer *out)
{
    *out = (struct ag_answer){.fd = -1, .text = AG_SPAN("")};
    switch (q) {
    case ASK_FILE:
        ask_file(arena, key, max_bytes, out);
        return;
    case ASK_DIR:
        ask_dir(key, out);
        return;
    case ASK_LOOK:
        ask_look(key, out);
        return;
    case ASK_GLOB:
        ask_glob(arena, key, out);
        return;
    case ASK_REALPATH:
        take_path(arena, realpath(key, NULL), out);
        return;
    case ASK_CWD:
        take_path(arena, getcwd(NULL, 0), out);
        return;
    case QUESTIONS:
        break;
    }
    AG_UNREACHABLE("no such question");
}

/* ---- facts ---- */

static struct fact **bucket_of(struct ag_opener *o, enum question q, struct ag_span key)
{
    uint64_t h = 14695981039346656037u ^ (uint64_t)q; /* FNV-1a: keys are the administrator's */

    for (size_t i = 0; i < key.len; i++) {
        h = (h ^ key.ptr[i]) * 1099511628211u;
    }
    return &o->buckets[(h ^ h >> 32) % BUCKETS];
}

static const struct fact *find(struct ag_opener *o, enum question q, struct ag_span key)
{
    const struct fact *f = *bucket_of(o, q, key);

    while (f && (f->question != q || !ag_span_eq(f->key, key))) {
        f = f->bucket;
    }
    return f;
}

static struct fact *add(struct ag_opener *o, enum question q, struct ag_span key)
{
    struct fact *f = ag_arena_zalloc(&o->arena, sizeof(*f)), **bucket = bucket_of(o, q, key);

    f->question = q;
    f->key = key;
    f->fd_index = NO_FD;
    f->bucket = *bucket;
    *bucket = f;
    *o->last = f;
    o->last = &f->next;
    return f;
}

static uint32_t add_fd(struct ag_opener *o, int fd)
{
    if (o->fd_count == o->fd_cap) {
        o->fd_cap = o->fd_cap ? o->fd_cap * 2 : 16;
        o->fds = realloc(o->fds, o->fd_cap * sizeof(*o->fds)); /* NOLINT: a failure panics */
        AG_ASSERT(o->fds);
    }
    o->fds[o->fd_count] = fd;
    return o->fd_count++;
}

/* What a fact says, as the caller's own. */
static void answer(const struct ag_opener *o, const struct fact *f, struct ag_arena *arena,
                   struct ag_answer *out)
{
    *out = f->answer;
    out->fd = -1;
    out->pinned = o->pinned;
    if (arena) {
        out->text = keep_text(arena, f->answer.text);
    }
    if (f->fd_index != NO_FD) {
        out->fd = AG_SYS("load.dup", fcntl(o->fds[f->fd_index], F_DUPFD_CLOEXEC, 0));
        if (out->fd < 0) {
            refuse(out, errno);
        }
    }
}

static void ask(struct ag_opener *o, enum question q, struct ag_arena *arena, const char *key,
                size_t max_bytes, struct ag_answer *out)
{
    struct ag_span bytes = ag_span_str(key);
    const struct fact *known;

    if (!o) {
        ask_system(q, arena, key, max_bytes, out);
        return;
    }
    known = find(o, q, bytes);
    if (!known && o->replaying) {
        refuse(out, ENODATA);
        return;
    }
    if (!known) {
        struct fact *f = add(o, q, keep_text(&o->arena, bytes));

        ask_system(q, &o->arena, key, max_bytes, &f->answer);
        f->fd_index = f->answer.fd >= 0 ? add_fd(o, f->answer.fd) : NO_FD;
        known = f;
    }
    answer(o, known, arena, out);
}

void ag_opener_file(struct ag_opener *o, struct ag_arena *arena, const char *path, size_t max_bytes,
                    struct ag_answer *out)
{
    ask(o, ASK_FILE, arena, path, max_bytes, out);
}

void ag_opener_dir(struct ag_opener *o, const char *path, struct ag_answer *out)
{
    ask(o, ASK_DIR, NULL, path, 0, out);
}

void ag_opener_look(struct ag_opener *o, const char *path, struct ag_answer *out)
{
    ask(o, ASK_LOOK, NULL, path, 0, out);
}

void ag_opener_glob(struct ag_opener *o, struct ag_arena *arena, const char *pattern,
                    struct ag_answer *out)
{
    ask(o, ASK_GLOB, arena, pattern, 0, out);
}

void ag_opener_realpath(struct ag_opener *o, struct ag_arena *arena, const char *path,
                        struct ag_answer *out)
{
    ask(o, ASK_REALPATH, arena, path, 0, out);
}

void ag_opener_cwd(struct ag_opener *o, struct ag_arena *arena, struct ag_answer *out)
{
    ask(o, ASK_CWD, arena, "", 0, out);
}

/* ---- life ---- */

struct ag_opener *ag_opener_record(void)
{
    struct ag_opener *o = calloc(1, sizeof(*o));

    AG_ASSERT(o);
    ag_arena_init(&o->arena, NULL, 0);
    o->last = &o->first;
    return o;
}

void ag_opener_pin(struct ag_opener *o)
{
    AG_ASSERT(o->replaying);
    o->pinned = true;
}

void ag_opener_free(struct ag_opener *o)
{
    if (!o) {
        return;
    }
    for (uint32_t i = 0; i < o->fd_count; i++) {
        (void)close(o->fds[i]);
    }
    free(o->fds);
    ag_arena_release(&o->arena);
    free(o);
}

int *ag_opener_fds(struct ag_opener *o, uint32_t *out_count)
{
    *out_count = o->fd_count;
    return o->fds;
}

/* ---- saved bytes ---- */

static size_t padded(size_t len)
{
    return (len + 7) & ~(size_t)7;
}

static void put_padded(struct ag_buf *b, struct ag_span s)
{
    static const uint8_t zero[8];

    ag_buf_put(b, s);
    ag_buf_put(b, ag_span(zero, padded(s.len) - s.len));
}

struct ag_span ag_opener_save(const struct ag_opener *o, struct ag_arena *arena)
{
    size_t cap = 0;

    for (const struct fact *f = o->first; f; f = f->next) {
        cap += sizeof(struct saved) + padded(f->key.len) + padded(f->answer.text.len);
    }
    struct ag_buf b = ag_buf(ag_arena_alloc(arena, cap), cap);
    for (const struct fact *f = o->first; f; f = f->next) {
        struct saved s = {
            .device = f->answer.device,
            .inode = f->answer.inode,
            .key_len = f->key.len,
            .text_len = f->answer.text.len,
            .question = (uint32_t)f->question,
            .kind = (uint32_t)f->answer.kind,
            .error = f->answer.error,
            .fd_index = f->fd_index,
            .mode = f->answer.mode,
            .mtime_ns = f->answer.mtime_ns,
        };
        ag_buf_put(&b, ag_span(&s, sizeof(s)));
        put_padded(&b, f->key);
        put_padded(&b, f->answer.text);
    }
    AG_ASSERT(b.len == cap && !b.overflow);
    return ag_buf_span(&b);
}

/* The next `len` bytes and their padding; false when there are not so many. */
static bool take(struct ag_span *rest, uint64_t len, struct ag_span *out)
{
    if (len > rest->len || padded(len) > rest->len) {
        return false;
    }
    *out = ag_span_sub(*rest, 0, len);
    *rest = ag_span_sub(*rest, padded(len), rest->len);
    return true;
}

static bool replay_one(struct ag_opener *o, struct ag_span *rest, uint32_t fd_count)
{
    struct ag_span head, key, text;
    struct saved s;

    if (!take(rest, sizeof(s), &head)) {
        return false;
    }
    memcpy(&s, head.ptr, sizeof(s));
    if (s.question >= QUESTIONS || s.kind > AG_FILE_OTHER ||
        (s.fd_index != NO_FD && (s.fd_index >= fd_count || s.question != ASK_DIR)) ||
        !take(rest, s.key_len, &key) || !take(rest, s.text_len, &text) ||
        find(o, (enum question)s.question, key)) {
        return false;
    }
    struct fact *f = add(o, (enum question)s.question, key);
    f->fd_index = s.fd_index;
    f->answer = (struct ag_answer){.error = s.error,
                                   .kind = (enum ag_file_kind)s.kind,
                                   .device = s.device,
                                   .inode = s.inode,
                                   .mode = s.mode,
                                   .mtime_ns = s.mtime_ns,
                                   .fd = -1,
                                   .text = text};
    return true;
}

struct ag_opener *ag_opener_replay(struct ag_span saved, const int *fds, uint32_t fd_count)
{
    struct ag_opener *o = ag_opener_record();

    o->replaying = true;
    while (saved.len > 0) {
        if (!replay_one(o, &saved, fd_count)) {
            ag_opener_free(o);
            return NULL;
        }
    }
    for (uint32_t i = 0; i < fd_count; i++) {
        (void)add_fd(o, fds[i]);
    }
    return o;
}
