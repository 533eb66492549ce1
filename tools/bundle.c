#include "tools/bundle.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MAGIC    0x616e796761746531u
#define FDS_MAX  1000000u
#define SEAL_ALL (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

struct head {
    uint64_t magic;
    uint32_t socket_count, dir_count;
    uint64_t answers_bytes;
};

struct socket_entry {
    union ag_addr addr;
    uint32_t fd_count, shared;
};

_Static_assert(sizeof(struct head) % 8 == 0, "what follows is aligned");

/* ---- sending ---- */

static bool write_all(int fd, struct ag_span s)
{
    while (s.len > 0) {
        ssize_t n = write(fd, s.ptr, s.len);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return false;
        }
        s = ag_span_sub(s, (size_t)n, s.len);
    }
    return true;
}

static bool write_sockets(int fd, const struct ag_sockets *sockets)
{
    bool good = true;

    for (uint32_t i = 0; i < sockets->count && good; i++) {
        const struct ag_socket *k = &sockets->items[i];
        struct socket_entry e;

        if (k->fresh) {
            memset(&e, 0, sizeof(e));
            e.addr = k->addr;
            e.fd_count = k->fd_count;
            e.shared = k->shared;
            good = write_all(fd, ag_span(&e, sizeof(e)));
        }
    }
    return good;
}

/* The memory file, or -1 with errno. */
static int make_file(struct ag_opener *answers, const struct ag_sockets *sockets)
{
    struct head head = {.magic = MAGIC};
    struct ag_arena arena;
    int fd = memfd_create("anygate-config", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd < 0) {
        return -1;
    }
    ag_arena_init(&arena, NULL, 0);
    struct ag_span saved = ag_opener_save(answers, &arena);
    head.answers_bytes = saved.len;
    (void)ag_opener_fds(answers, &head.dir_count);
    for (uint32_t i = 0; i < sockets->count; i++) {
        head.socket_count += sockets->items[i].fresh;
    }
    bool good = write_all(fd, ag_span(&head, sizeof(head))) && write_sockets(fd, sockets) &&
                write_all(fd, saved) && fcntl(fd, F_ADD_SEALS, SEAL_ALL) == 0;
    ag_arena_release(&arena);
    if (!good) {
        int error = errno;

        (void)close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

/* The directory as a mount that is bound nowhere: ".." of its root is its root. -1: not to be had. */
static int detach_dir(int dir, bool writable)
{
    struct mount_attr attr = {.attr_set = (writable ? 0 : MOUNT_ATTR_RDONLY) | MOUNT_ATTR_NOSUID |
                                          MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC};
    long fd = syscall(SYS_open_tree, dir, "",
                      OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | AT_RECURSIVE);

    if (fd < 0) {
        return -1;
    }
    /* Without it (before Linux 5.12) the user's own rights decide about writing, as everywhere. */
    (void)syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr, sizeof(attr));
    return (int)fd;
}

static bool is_same(int dir, const struct stat *other)
{
    struct stat st;

    return other && fstat(dir, &st) == 0 && st.st_dev == other->st_dev &&
           st.st_ino == other->st_ino;
}

bool ag_bundle_detach(struct ag_opener *answers, const struct stat *writable)
{
    uint32_t count;
    int *dirs = ag_opener_fds(answers, &count);
    bool all = true;

    for (uint32_t i = 0; i < count; i++) {
        int fd = detach_dir(dirs[i], is_same(dirs[i], writable));

        if (fd < 0) {
            all = false;
            continue;
        }
        (void)close(dirs[i]);
        dirs[i] = fd;
    }
    return all;
}

/* Messages that fill up with descriptors and leave when they are full. */
struct sender {
    int end;
    enum ag_status status;
    struct ag_channel_msg msg;
};

static void flush(struct sender *s)
{
    if (s->msg.fd_count && s->status == AG_OK) {
        s->msg.count = s->msg.fd_count;
        s->status = ag_channel_send(s->end, &s->msg);
    }
    s->msg.fd_count = 0;
}

static void put_fds(struct sender *s, const int *fds, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        s->msg.fds[s->msg.fd_count++] = fds[i];
        if (s->msg.fd_count == AG_CHANNEL_FDS) {
            flush(s);
        }
    }
}

static enum ag_status send_all(struct sender *s, int file, const struct ag_sockets *sockets,
                               const int *dirs, uint32_t dir_count)
{
    uint32_t total = dir_count;

    for (uint32_t i = 0; i < sockets->count; i++) {
        total += sockets->items[i].fresh ? sockets->items[i].fd_count : 0;
    }
    s->msg.type = AG_CHANNEL_BUNDLE;
    s->msg.count = total;
    s->msg.fds[0] = file;
    s->msg.fd_count = 1;
    s->msg.text_len = 0;
    s->status = ag_channel_send(s->end, &s->msg);
    s->msg.type = AG_CHANNEL_DESCRIPTORS;
    s->msg.fd_count = 0;
    put_fds(s, dirs, dir_count);
    for (uint32_t i = 0; i < sockets->count; i++) {
        if (sockets->items[i].fresh) {
            put_fds(s, sockets->items[i].fds, sockets->items[i].fd_count);
        }
    }
    flush(s);
    return s->status;
}

enum ag_status ag_bundle_send(int end, uint32_t generation, struct ag_opener *answers,
                              const struct ag_sockets *sockets, struct ag_buf *why)
{
    struct sender s = {.end = end, .msg.generation = generation};
    uint32_t dir_count;

    int file = make_file(answers, sockets);
    if (file < 0) {
        ag_buf_printf(why, "no memory file for the worker: %s", strerrordesc_np(errno));
        return AG_ESYS;
    }
    const int *dirs = ag_opener_fds(answers, &dir_count);
    enum ag_status st = send_all(&s, file, sockets, dirs, dir_count);
    (void)close(file);
    if (st == AG_AGAIN) {
        ag_buf_printf(why, "the worker does not take messages");
    } else if (st == AG_ENOENT) {
        ag_buf_printf(why, "the worker is gone");
    } else if (st != AG_OK) {
        ag_buf_printf(why, "descriptors cannot be passed: %s", strerrordesc_np(errno));
    }
    return st;
}

/* ---- receiving ---- */

static void close_fds(const int *fds, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        (void)close(fds[i]);
    }
}

void ag_bundle_close(struct ag_bundle *b)
{
    for (uint32_t i = b->first_socket_fd; i < b->fd_count; i++) {
        (void)close(b->fds[i]);
    }
    free(b->fds);
    if (b->begun) {
        (void)close(b->memory_fd);
    }
    if (b->map) {
        (void)munmap((void *)(uintptr_t)b->map, b->map_bytes);
    }
    *b = (struct ag_bundle){0};
}

static bool begin(struct ag_bundle *b, const struct ag_channel_msg *m)
{
    ag_bundle_close(b);
    if (m->fd_count != 1 || m->count > FDS_MAX) {
        return false;
    }
    b->fds = calloc(m->count ? m->count : 1, sizeof(*b->fds));
    AG_ASSERT(b->fds);
    b->begun = true;
    b->generation = m->generation;
    b->memory_fd = m->fds[0];
    b->fd_expected = m->count;
    return true;
}

static bool add(struct ag_bundle *b, const struct ag_channel_msg *m)
{
    if (!b->begun || m->generation != b->generation || m->fd_count != m->count ||
        m->fd_count > b->fd_expected - b->fd_count) {
        return false;
    }
    memcpy(&b->fds[b->fd_count], m->fds, m->fd_count * sizeof(*b->fds));
    b->fd_count += m->fd_count;
    return true;
}

enum ag_status ag_bundle_take(struct ag_bundle *b, const struct ag_channel_msg *m)
{
    bool good = m->type == AG_CHANNEL_BUNDLE        ? begin(b, m)
                : m->type == AG_CHANNEL_DESCRIPTORS ? add(b, m)
                                                    : false;

    if (!good) {
        close_fds(m->fds, m->fd_count);
        ag_bundle_close(b);
        return AG_EPROTO;
    }
    return b->fd_count == b->fd_expected ? AG_OK : AG_AGAIN;
}

static bool map_file(struct ag_bundle *b)
{
    struct stat st;
    void *map;

    if (fstat(b->memory_fd, &st) != 0 || st.st_size < (off_t)sizeof(struct head)) {
        return false;
    }
    map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, b->memory_fd, 0);
    if (map == MAP_FAILED) {
        return false;
    }
    b->map = map;
    b->map_bytes = (size_t)st.st_size;
    return true;
}

static const struct socket_entry *entries_of(const struct ag_bundle *b)
{
    return (const struct socket_entry *)(const void *)(b->map + sizeof(struct head));
}

/* Whether the file's parts and the descriptors add up. */
static bool adds_up(const struct ag_bundle *b, const struct head *head,
                    const struct socket_entry *entries)
{
    uint64_t fds = head->dir_count;

    for (uint32_t i = 0; i < head->socket_count; i++) {
        if (entries[i].fd_count > AG_SOCKET_FDS) {
            return false;
        }
        fds += entries[i].fd_count;
    }
    return fds == b->fd_count;
}

struct ag_opener *ag_bundle_open(struct ag_bundle *b)
{
    struct ag_opener *answers;
    struct head head;

    AG_ASSERT(b->begun && b->fd_count == b->fd_expected && !b->map);
    if (!map_file(b)) {
        return NULL;
    }
    memcpy(&head, b->map, sizeof(head));
    size_t rest = b->map_bytes - sizeof(head);
    const struct socket_entry *entries = entries_of(b);
    if (head.magic != MAGIC || head.socket_count > AG_LISTEN_MAX ||
        head.socket_count * sizeof(*entries) > rest ||
        head.answers_bytes != rest - head.socket_count * sizeof(*entries) ||
        !adds_up(b, &head, entries)) {
        return NULL;
    }
    answers = ag_opener_replay(ag_span(entries + head.socket_count, head.answers_bytes), b->fds,
                               head.dir_count);
    if (answers) {
        b->first_socket_fd = head.dir_count; /* those before are the answers' now */
    }
    return answers;
}

void ag_bundle_adopt(struct ag_bundle *b, struct ag_sockets *sockets)
{
    const struct socket_entry *entries = entries_of(b);
    const int *fds = b->fds + b->first_socket_fd;
    struct head head;

    AG_ASSERT(b->map);
    memcpy(&head, b->map, sizeof(head));
    for (uint32_t i = 0; i < head.socket_count; i++) {
        ag_sockets_adopt(sockets, &entries[i].addr, fds, entries[i].fd_count,
                         entries[i].shared != 0);
        fds += entries[i].fd_count;
    }
    b->first_socket_fd = b->fd_count; /* all have other owners */
    ag_bundle_close(b);
}
