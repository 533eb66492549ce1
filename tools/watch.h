/*
 * watch: the files that certificates were read from: whether they have changed since. The control thread's; where
 * there is a master it is the master's.
 *
 *   inotify on their folders --some event--> a moment of quiet (or a few seconds) --> compare --changed--> reload
 *   and once a minute, for where inotify tells nothing (network, layers)
 *
 * A folder is watched rather than a file, for files are replaced by renaming, and links by other links; of a link also
 * the one that it leads to, where the file may be written to in place. What is
 * compared are inodes and times, through links; a state that was tried once is not tried again.
 */
#pragma once
#include "engine/tls_files.h"

#define AG_WATCH_QUIET_MS 500u
#define AG_WATCH_BUSY_MS  5000u /* in a folder that knows no quiet */
#define AG_WATCH_POLL_MS  60000u

struct ag_watch {
    int fd; /* inotify; readable: ag_watch_turn. -1: there is none */
    struct ag_arena arena;
    struct ag_tls_files files; /* copies in `arena` */
    uint64_t seen;             /* of all of them */
    uint64_t due_ms;           /* monotonic: when to compare; 0: there is nothing to watch */
    uint64_t event_ms;         /* monotonic: the first event since they were compared; 0: none */
};

/* Before privileges and system calls are given up. Without inotify there is the minute. */
void ag_watch_init(struct ag_watch *w);
void ag_watch_deinit(struct ag_watch *w);
/* From now on these, as they were when they were read. */
void ag_watch_set(struct ag_watch *w, const struct ag_tls_files *files);
/* How long poll may wait; -1: for ever. */
int ag_watch_wait_ms(const struct ag_watch *w);
/* After each poll. True: they have changed, and not to a state that was told before. */
AG_MUST_USE bool ag_watch_turn(struct ag_watch *w);
