#include "actions/static/static_dirs.h"

#include <fcntl.h>
#include <unistd.h>

/* Directories of earlier configs are closed when they were not asked for this long. */
#define IDLE_MS (600u * 1000u)

struct ag_static_dir {
    struct ag_static_dir *next; /* in its bucket */
    struct ag_static_dirs *all;
    struct ag_block *block; /* owns the descriptor; NULL: it was never open */
    enum ag_status status; /* of the last look: AG_ENOENT: no such directory; else what ran short */
    uint64_t device, inode;
    uint64_t hash;
    uint64_t checked_ms, used_ms;
    bool checked; /* checked_ms means something */
    bool busy;    /* `op` is in flight: a stat, then maybe an open */
    struct ag_link waiters;
    struct ag_file_op op;
    char path[];
};

void ag_static_wake(struct ag_link *waiters)
{
    struct ag_link all;
    struct ag_link *l;

    /* A list of its own: who is woken may wait again. */
    ag_list_init(&all);
    while ((l = ag_list_pop(waiters)) != NULL) {
        ag_list_push(&all, l);
    }
    while ((l = ag_list_pop(&all)) != NULL) {
        struct ag_static_waiter *w = ag_container_of(l, struct ag_static_waiter, link);
        w->ready(w);
    }
}

void ag_static_dirs_init(struct ag_static_dirs *d, struct ag_loop *l)
{
    memset(d, 0, sizeof(*d));
    d->loop = l;
    d->slash_fd = -1;
}

static void dir_free(struct ag_static_dir *dir)
{
    AG_ASSERT(!dir->busy && ag_list_empty(&dir->waiters));
    dir->all->count--;
    ag_block_release(dir->block);
    free(dir);
}

void ag_static_dirs_deinit(struct ag_static_dirs *d)
{
    while (d->ops > 0) {
        ag_loop_turn(d->loop, 10);
    }
    for (size_t i = 0; i < AG_STATIC_DIR_BUCKETS; i++) {
        while (d->buckets[i]) {
            struct ag_static_dir *dir = d->buckets[i];
            d->buckets[i] = dir->next;
            dir_free(dir);
        }
    }
    if (d->slash_fd >= 0) {
        (void)close(d->slash_fd);
    }
}

/* Walks all; called only when a directory is met for the first time. */
static void free_idle(struct ag_static_dirs *d)
{
    for (size_t i = 0; i < AG_STATIC_DIR_BUCKETS; i++) {
        struct ag_static_dir **at = &d->buckets[i];
        while (*at) {
            struct ag_static_dir *dir = *at;
            if (!dir->busy && d->loop->now_ms - dir->used_ms > IDLE_MS) {
                *at = dir->next;
                dir_free(dir);
            } else {
                at = &dir->next;
            }
        }
    }
}

/* The loop's block for a descriptor; closes it when there is none. */
static struct ag_block *own(struct ag_loop *l, int fd)
{
    struct ag_block *block = fd >= 0 ? ag_file_block(l, fd) : NULL;

    if (fd >= 0 && !block) {
        (void)close(fd);
    }
    return block;
}

/* The descriptor of the snapshot's. */
static void take_over(struct ag_static_dir *dir, const struct ag_static_root *root)
{
    if (root->fd >= 0) {
        dir->block = own(dir->all->loop, fcntl(root->fd, F_DUPFD_CLOEXEC, 0));
        dir->device = root->device;
        dir->inode = root->inode;
    }
}

static struct ag_static_dir *dir_new(struct ag_static_dirs *d, const struct ag_static_root *root)
{
    size_t len = strlen(root->path) + 1;
    struct ag_static_dir *dir;

    free_idle(d);
    dir = calloc(1, sizeof(*dir) + len);
    if (!dir) {
        return NULL;
    }
    dir->all = d;
    dir->hash = root->hash;
    memcpy(dir->path, root->path, len);
    ag_list_init(&dir->waiters);
    take_over(dir, root);
    dir->next = d->buckets[root->hash % AG_STATIC_DIR_BUCKETS];
    d->buckets[root->hash % AG_STATIC_DIR_BUCKETS] = dir;
    d->count++;
    return dir;
}

/* A pinned directory is told by what it is; another at the same path came with another load. */
static bool is_of(const struct ag_static_dir *dir, const struct ag_static_root *root)
{
    return dir->hash == root->hash && strcmp(dir->path, root->path) == 0 &&
           (!root->pinned || (dir->device == root->device && dir->inode == root->inode));
}

static struct ag_static_dir *find(struct ag_static_dirs *d, const struct ag_static_root *root)
{
    struct ag_static_dir *dir = d->buckets[root->hash % AG_STATIC_DIR_BUCKETS];

    while (dir && !is_of(dir, root)) {
        dir = dir->next;
    }
    return dir ? dir : dir_new(d, root);
}

/* Paths of file operations are relative. */
static const char *below_slash(const struct ag_static_dir *dir)
{
    return dir->path[1] ? dir->path + 1 : ".";
}

static void check_done(struct ag_static_dir *dir, enum ag_status st)
{
    dir->busy = false;
    dir->status = st == AG_EACCES ? AG_ENOENT : st;
    dir->all->ops--;
    dir->checked = true;
    dir->checked_ms = dir->all->loop->now_ms;
    ag_static_wake(&dir->waiters);
}

static void opened(struct ag_file_op *op)
{
    struct ag_static_dir *dir = ag_container_of(op, struct ag_static_dir, op);
    enum ag_status st = op->status;

    if (op->status == AG_OK && !op->stat.is_dir) {
        (void)close(op->out_fd);
        st = AG_ENOENT;
    } else if (op->status == AG_OK) {
        struct ag_block *block = own(dir->all->loop, op->out_fd);
        if (block) {
            ag_block_release(dir->block);
            dir->block = block;
            dir->device = op->stat.device;
            dir->inode = op->stat.inode;
        } else {
            st = AG_ELIMIT;
        }
    }
    check_done(dir, st);
}

static void looked(struct ag_file_op *op)
{
    struct ag_static_dir *dir = ag_container_of(op, struct ag_static_dir, op);
    bool same = dir->block && op->stat.device == dir->device && op->stat.inode == dir->inode;

    if (op->status != AG_OK || !op->stat.is_dir || same) {
        check_done(dir, op->status == AG_OK && !same ? AG_ENOENT : op->status);
        return;
    }
    ag_file_open(dir->all->loop, &dir->op, dir->all->slash_fd, below_slash(dir), AG_FOLLOW_ANY,
                 opened);
}

/* What is known of it; a directory that was open once stays the one, whatever was seen later. */
static enum ag_status tell(const struct ag_static_dir *dir, struct ag_block **out_dir)
{
    if (!dir->block && dir->status != AG_OK && dir->status != AG_ENOENT) {
        return dir->status;
    }
    *out_dir = ag_block_hold(dir->block);
    return AG_OK;
}

enum ag_status ag_static_dirs_get(struct ag_static_dirs *d, const struct ag_static_root *root,
                                  struct ag_static_waiter *w, struct ag_block **out_dir)
{
    struct ag_static_dir *dir = find(d, root);

    if (!dir) {
        return AG_ENOMEM;
    }
    dir->used_ms = d->loop->now_ms;
    if (root->pinned) {
        if (!dir->block) {
            take_over(dir, root);
            dir->status = dir->block || root->fd < 0 ? AG_OK : AG_ELIMIT;
        }
        return tell(dir, out_dir);
    }
    if (!dir->busy && dir->checked && d->loop->now_ms - dir->checked_ms < AG_STATIC_CHECK_MS) {
        return tell(dir, out_dir);
    }
    ag_list_push(&dir->waiters, &w->link);
    if (!dir->busy) {
        dir->busy = true;
        d->ops++;
        if (d->slash_fd < 0) { /* not at start: a chroot may come in between, and this led out */
            d->slash_fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
        }
        ag_file_stat(d->loop, &dir->op, d->slash_fd, below_slash(dir), AG_FOLLOW_ANY, looked);
    }
    return AG_AGAIN;
}
