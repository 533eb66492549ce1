/*
 * opener: what loading a configuration asks of the system: files, directories, names, where it stands.
 *
 *   NULL        the system answers
 *   recording   the system answers, each question once; the answers are kept
 *   replaying   what a recording kept answers; the system is not asked
 *
 *   with privileges     load --recording--> answers --save--> bytes + descriptors
 *   without, elsewhere  bytes + descriptors --replay--> the same load with the same outcome
 *
 * So a process that may open nothing any more (chroot, another user) loads what one that may has read.
 * Layout of saved bytes: for each answer a struct saved (opener.c), its key and its text, each padded
 * to 8 bytes. They never leave the machine nor the program's version.
 */
#pragma once
#include "engine/arena.h"

struct ag_opener;

enum ag_file_kind { AG_FILE_REGULAR, AG_FILE_DIR, AG_FILE_OTHER };

struct ag_answer {
    int error; /* errno, for people; 0: what follows holds */
    enum ag_file_kind kind;
    uint64_t device, inode;
    uint32_t mode;       /* permission bits */
    int64_t mtime_ns;    /* of its content, since the epoch */
    int fd;              /* dir: O_PATH, the caller's from now on; else -1 */
    bool pinned;         /* the path means nothing to this process: only the answer leads there */
    struct ag_span text; /* in the caller's arena, with a NUL behind it that is not counted */
};

/* The content of a regular file of at most `max_bytes` (EFBIG). Anything else that is there is no error,
 * but has no text. Never waits for a FIFO's writer. */
void ag_opener_file(struct ag_opener *o, struct ag_arena *arena, const char *path, size_t max_bytes,
                    struct ag_answer *out);
/* A directory, opened as a place to start from (O_PATH). */
void ag_opener_dir(struct ag_opener *o, const char *path, struct ag_answer *out);
/* What lies at a path, symlinks followed. */
void ag_opener_look(struct ag_opener *o, const char *path, struct ag_answer *out);
/* The paths that match a pattern of glob(3), sorted by bytes; text: each with its NUL. None is no error;
 * a directory that is not there matches nothing, one that cannot be read is an error. */
void ag_opener_glob(struct ag_opener *o, struct ag_arena *arena, const char *pattern,
                    struct ag_answer *out);
/* text: `path` with its symlinks resolved. */
void ag_opener_realpath(struct ag_opener *o, struct ag_arena *arena, const char *path,
                        struct ag_answer *out);
/* text: the working directory. */
void ag_opener_cwd(struct ag_opener *o, struct ag_arena *arena, struct ag_answer *out);

/* A recording one; malloc. */
AG_MUST_USE struct ag_opener *ag_opener_record(void);
/* A replaying one over saved bytes, which must stay; takes over the descriptors. NULL when they are not
 * what ag_opener_save made; then the descriptors stay the caller's. A question that the recording was
 * not asked is answered with ENODATA. */
AG_MUST_USE struct ag_opener *ag_opener_replay(struct ag_span saved, const int *fds,
                                               uint32_t fd_count);
/* Of a replaying one, in a process with another root than the recording one's: its answers are pinned. */
void ag_opener_pin(struct ag_opener *o);
/* Closes its descriptors; what it handed out are copies. */
void ag_opener_free(struct ag_opener *o);

/* The answers as bytes, in `arena`. */
AG_MUST_USE struct ag_span ag_opener_save(const struct ag_opener *o, struct ag_arena *arena);
/* The descriptors that belong to them, in order; the opener's, who may be given others in their place:
 * the caller then closes those that were there. */
int *ag_opener_fds(struct ag_opener *o, uint32_t *out_count);
