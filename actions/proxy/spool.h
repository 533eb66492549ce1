/*
 * spool: content taken in as fast as it comes, into memory and then into a file without a name, and given on in
 * order.
 *
 *   from --take--> [ memory ] ------------------give--> to
 *                      |  it is full                ^
 *                      v                            |
 *                   writing --> file --read, a buffer at a time
 *
 *   in order:   file [read, written) | writing | memory | from
 *
 * A stream (an answer) gives while it takes. What was given is gone: the file is a ring of `disk_bytes`, and begins
 * anew whenever it is empty. When neither memory nor disk take more it takes no more either, and so its sender has
 * to wait, as without a spool.
 *
 *   TAKING --all was given, or the abort--> OVER
 *
 * A hold (a request) gives nothing before all of it is here, and keeps it, so that it can be given again from the
 * first byte on, until it is told to forget. When it cannot be kept it has failed.
 *
 *   TAKING --all is here--> WHOLE --open--> gives --all was given--> OVER --close, open--> gives ...
 *        `--it cannot be kept, or was aborted--> FAILED
 *
 * Memory is bounded by `memory_bytes`, which may be pinned twice while one part is written, and one large buffer to
 * read into. When the shard's buffers run short (ag_loop.tight) a single block is enough for the disk. The file is
 * made when it is needed, on a helper, as all that touches the disk is (engine/file.h); while an operation is under
 * way the exchange, in whose arena a spool lies, is held by it.
 *
 *   file:  NONE --memory is full--> MAKING --> MADE --a write fails--> REFUSED: what is in it can be read
 *                                         `--it cannot be made--> REFUSED
 */
#pragma once
#include "engine/file.h"
#include "proto/exchange.h"

/* Files of a process at once, and not more than a part of its descriptors. */
#define AG_SPOOL_FILES_MAX  4096u
#define AG_SPOOL_FILES_PART 4u

/* What all shards of a process have on the disk. */
struct ag_spool_disk {
    _Atomic uint64_t bytes;
    _Atomic uint32_t files;
    uint32_t files_max;
};

/* Where files are made; counted, for spools outlive the configuration that names it. */
struct ag_spool_folder {
    _Atomic uint32_t refs;
    int fd;
};

struct ag_spool_settings {
    struct ag_spool_folder *folder; /* NULL: memory alone */
    struct ag_spool_disk *disk;
    uint64_t disk_bytes;   /* of this file; 0: memory alone */
    uint64_t total_bytes;  /* of all of the process's */
    uint32_t memory_bytes; /* pinned */
    bool hold;
};

enum ag_spool_state { AG_SPOOL_TAKING = 0, AG_SPOOL_WHOLE, AG_SPOOL_OVER, AG_SPOOL_FAILED };

enum ag_spool_failure {
    AG_SPOOL_NO_FAILURE = 0,
    AG_SPOOL_ABORTED,   /* `from` was */
    AG_SPOOL_TOO_LARGE, /* beyond memory and disk_bytes */
    AG_SPOOL_NO_ROOM,   /* no disk, descriptor, helper or buffer takes it, or the disk fails */
};

enum ag_spool_file { AG_SPOOL_NONE = 0, AG_SPOOL_MAKING, AG_SPOOL_MADE, AG_SPOOL_REFUSED };

struct ag_spool;
/* From a task: a stream is over (once), a hold is whole or has failed (once). */
typedef void ag_spool_fn(struct ag_spool *, void *owner);

struct ag_spool {
    struct ag_exchange *ex;
    struct ag_body *from, *to;
    struct ag_spool_settings set;
    ag_spool_fn *ended; /* the owner's; NULL: it was told, or nobody asks */
    void *owner;
    struct ag_body memory;   /* a queue: nobody is woken by it */
    struct ag_chain writing; /* in the file soon, or never, when it is refused */
    struct ag_slice_node
        *next; /* of memory.q, the first to be given; NULL: all were. Of a hold that keeps */
    struct ag_block *into;  /* what is being read goes there; NULL: nothing is */
    uint64_t read, written; /* bytes of content: given, in the file; modulo disk_bytes: where */
    uint64_t extent;        /* bytes of the file, charged to the process */
    int fd;                 /* -1: none */
    uint8_t state, failure, file;         /* the enums above */
    bool keeps;                           /* a hold that can be given again */
    bool open;                            /* `to` has a consumer */
    bool closed;                          /* deinit was called */
    bool reading, changing;               /* `read_op`, `op` are in flight */
    bool stale;                           /* what is being read is not wanted any more */
    struct ag_task tell, wait;            /* calls `ended`; for a buffer */
    struct ag_file_op op;                 /* make, write, close */
    struct ag_file_op read_op;            /* read */
    struct iovec iov[AG_BODY_SLICES_MAX]; /* of what is being written */
};

/* `set` is copied, and the folder held. In the exchange's arena; takes from `from` at once. A stream is open, a hold
 * has no `to` before it is. */
void ag_spool_init(struct ag_spool *sp, struct ag_exchange *ex, struct ag_body *from,
                   struct ag_body *to, const struct ag_spool_settings *set);
/* Who is told; before the next turn. */
static inline void ag_spool_tell(struct ag_spool *sp, ag_spool_fn *ended, void *owner)
{
    sp->ended = ended;
    sp->owner = owner;
}
/* A whole hold begins to give to `to`, which is new. */
void ag_spool_open(struct ag_spool *sp, struct ag_body *to);
/* Nobody takes from `to` any more. */
void ag_spool_close(struct ag_spool *sp);
/* All content is here and can be given from the first byte on. */
static inline bool ag_spool_is_whole(const struct ag_spool *sp)
{
    return sp->keeps && sp->failure == AG_SPOOL_NO_FAILURE && sp->state != AG_SPOOL_TAKING;
}
/* The same, and all of it is in memory: this is it. NULL: it is not. */
const struct ag_chain *ag_spool_in_memory(const struct ag_spool *sp);
/* A hold will not be given again: what has been is let go of; all of it when it is closed, but for one that still
 * takes. */
void ag_spool_forget(struct ag_spool *sp);
/* Lets go of all, of both bodies as they are, and of the exchange when nothing is under way any more. */
void ag_spool_deinit(struct ag_spool *sp);

/* ---- folders ---- */

/* Of the directory `fd`, which becomes its own; held once. */
AG_MUST_USE struct ag_spool_folder *ag_spool_folder_new(int fd);
/* Whether a file can be made there: 0, or errno. */
AG_MUST_USE int ag_spool_folder_try(const struct ag_spool_folder *folder);
/* NULL is allowed. */
struct ag_spool_folder *ag_spool_folder_hold(struct ag_spool_folder *folder);
void ag_spool_folder_release(struct ag_spool_folder *folder);
/* What a process starts with. */
void ag_spool_disk_init(struct ag_spool_disk *disk);
