/*
 * static_dirs: the directories that a shard serves from, open, and looked at again once a second.
 *
 *   snapshot's descriptor --first use--> dir --stat of its path says another inode--> opened anew
 *
 * So a directory that was missing at load is found once it is there, and a deployment that renames or
 * links another directory into place is seen without a reload. A path that is gone keeps the last
 * directory: between the two steps of a swap nothing is lost. A pinned root (a worker in a chroot) is
 * never looked at again: what its path names there is something else.
 */
#pragma once
#include "actions/static/static_config.h"

#define AG_STATIC_CHECK_MS 1000u

/* Someone who waits for a file operation of another. Embedded in its owner. */
struct ag_static_waiter {
    struct ag_link link;
    void (*ready)(struct ag_static_waiter *); /* from the loop; it is in no list any more */
};

struct ag_static_dir;

#define AG_STATIC_DIR_BUCKETS 256u

struct ag_static_dirs {
    struct ag_loop *loop;
    struct ag_static_dir *buckets[AG_STATIC_DIR_BUCKETS];
    uint32_t count;
    int slash_fd; /* "/", from which the paths start; -1 until the first look */
    uint32_t ops; /* file operations in flight */
};

void ag_static_dirs_init(struct ag_static_dirs *d, struct ag_loop *l);
/* Waits for what is in flight, then closes all. Nobody may wait any more. */
void ag_static_dirs_deinit(struct ag_static_dirs *d);

/*
 * AG_OK: *out_dir is the open directory, held for the caller (NULL: there is none).
 * AG_AGAIN: it is being looked at; `w` is called, and then the caller asks again.
 * AG_ENOMEM, AG_ELIMIT, AG_ESYS: nobody knows, for memory or descriptors ran out.
 */
AG_MUST_USE enum ag_status ag_static_dirs_get(struct ag_static_dirs *d,
                                              const struct ag_static_root *root,
                                              struct ag_static_waiter *w,
                                              struct ag_block **out_dir);

/* Calls and empties a list of waiters. */
void ag_static_wake(struct ag_link *waiters);
