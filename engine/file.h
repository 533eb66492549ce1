/*
 * file: open and read below a root, and keep bytes in files without a name, without ever blocking the shard.
 *
 * An operation first tries what cannot block (openat2 with RESOLVE_CACHED, preadv2 with RWF_NOWAIT);
 * what would block goes to a helper thread. A write goes there at once: it may wait for the disk, for room in
 * the page cache and for other writers, and few file systems can tell. done() always comes from the loop.
 *
 * Where openat2 is forbidden (an old seccomp profile) a walk component by component stands in; it
 * follows no symlink below BENEATH either, since it could not tell where one leads.
 */
#pragma once
#include "engine/helper.h"

/* How symlinks are treated below a root. */
enum ag_follow {
    AG_FOLLOW_BENEATH, /* followed while they stay below the root (RESOLVE_BENEATH) */
    AG_FOLLOW_ANY,     /* followed anywhere (the administrator's word) */
    AG_FOLLOW_NONE,    /* any symlink is an error (RESOLVE_NO_SYMLINKS) */
};

struct ag_file_stat {
    uint64_t size_bytes;
    int64_t mtime_s;
    uint32_t mtime_ns;
    uint64_t inode;
    uint64_t device;
    bool is_dir, is_regular;
};

struct ag_file_op;
typedef void ag_file_fn(struct ag_file_op *);

/* Embedded in its owner; must stay until done. Inputs are set by the call, outputs before done. */
struct ag_file_op {
    ag_file_fn *done;
    struct ag_loop *loop;
    /* open: path (relative, NUL-terminated, borrowed until done) below dir_fd; make: the folder */
    int dir_fd;
    const char *path;
    enum ag_follow follow;
    /* read, write */
    int fd;
    uint8_t *buf;      /* read */
    struct iovec *iov; /* write: `len` pieces, used up; they stay until done, as do their bytes */
    size_t len;
    uint64_t offset;
    /* outputs: AG_OK, AG_ENOENT (also ENOTDIR, ELOOP, EXDEV: it left the root, ENAMETOOLONG, ENXIO: no
     * file to read), AG_EACCES, AG_ELIMIT (no descriptor, memory, helper or room on the disk is free), AG_ESYS */
    enum ag_status status;
    int error; /* errno behind a failure, for the log; EAGAIN beside AG_ELIMIT: no helper is free */
    int out_fd;               /* open, make: the caller owns it */
    struct ag_file_stat stat; /* open, stat */
    size_t
        out_len; /* read: bytes; less than len only at the end of the file. write: those that are in the
                     * file, also after a failure */
    /* private */
    uint8_t what;
    struct ag_task task;
    struct ag_job job;
};

/* Opens read-only (files and directories) and stats. Opening never waits, not even for a FIFO's writer;
 * reading what is not regular (see stat) is the caller's risk. An absolute path is AG_ENOENT, and so
 * is one with ".." segments under AG_FOLLOW_ANY, where the kernel would not hold it below the root. */
void ag_file_open(struct ag_loop *l, struct ag_file_op *op, int dir_fd, const char *path,
                  enum ag_follow follow, ag_file_fn *done);
/* Stats without opening, for validating a cache entry. */
void ag_file_stat(struct ag_loop *l, struct ag_file_op *op, int dir_fd, const char *path,
                  enum ag_follow follow, ag_file_fn *done);
/* Reads `len` bytes at `offset`. */
void ag_file_read(struct ag_loop *l, struct ag_file_op *op, int fd, uint8_t *buf, size_t len,
                  uint64_t offset, ag_file_fn *done);
/* Brings [offset, offset + len) into the page cache, so that sendfile will not wait for the disk. What
 * lies beyond the file's end is no error. */
void ag_file_warm(struct ag_loop *l, struct ag_file_op *op, int fd, uint64_t offset, size_t len,
                  ag_file_fn *done);
/* True when [offset, offset + len) can be sent without waiting for the disk, as far as can be told: the
 * first byte, the last and a few in between are asked for. False also where the file system cannot tell
 * (overlayfs, FUSE): so after a warm send without asking again. */
bool ag_file_is_warm(struct ag_loop *l, int fd, uint64_t offset, size_t len);

/* Makes a file without a name in the folder `dir_fd` (O_TMPFILE), to be written and read, that nobody can give one
 * (O_EXCL): whatever happens to the process, nothing of it is left. AG_ESYS with EOPNOTSUPP: the file system has
 * no such files. */
void ag_file_make(struct ag_loop *l, struct ag_file_op *op, int dir_fd, ag_file_fn *done);
/* The same now, whatever it waits for; 0 or errno. */
AG_MUST_USE int ag_file_make_now(int dir_fd, int *out_fd);
/* Writes the `count` pieces (at least one, IOV_MAX at most; none empty) at `offset`: all, or it has failed. */
void ag_file_write(struct ag_loop *l, struct ag_file_op *op, int fd, struct iovec *iov,
                   uint32_t count, uint64_t offset, ag_file_fn *done);
/* Closes `fd`, which is gone when this returns as far as the caller goes: giving back a large file that has no name
 * takes its time. It always goes well. */
void ag_file_close(struct ag_loop *l, struct ag_file_op *op, int fd, ag_file_fn *done);

/* A file in a chain of slices. */
struct ag_file_block {
    struct ag_block block;
    struct ag_loop *loop; /* its pool `files` */
};

/* A block that owns an open file and closes it at the last release; from the loop's pool `files`. NULL:
 * none left (the descriptor stays the caller's). */
AG_MUST_USE struct ag_block *ag_file_block(struct ag_loop *l, int fd);
