/*
 * outcome: what became of the last reload, in a file beside the pid file (PID_FILE.reload), for
 * `anygate reload` to tell:
 *
 *   applied 00001234567890123456 0000000042    verdict; CLOCK_MONOTONIC nanoseconds when the reload
 *   anygate.yml:3:3: warning: ...              began; bytes of the text: diagnoses, as the log has them
 *
 * Who asks for a reload notes the clock first: an outcome that began later is of a reload that saw the
 * files as they were then, whoever asked for it. The first line is blanked while the text changes and
 * comes last, so nobody takes half of one for a whole. The file stays open: a process that has given
 * away what it needs to make files (seccomp, chroot) can still tell.
 */
#pragma once
#include "tools/pidfile.h"

struct ag_outcome {
    int fd; /* the text goes there; -1: nobody will read it */
    uint64_t began_ns;
};

uint64_t ag_outcome_now_ns(void);

/* Makes the file, anew; without it (`pid_file` NULL, or no file can be made, for what lies there is something
 * else) the calls below do nothing. */
void ag_outcome_open(struct ag_outcome *o, const char *pid_file);
/* The same, but takes over what a predecessor in an upgrade has told: who asked may not have read it
 * yet. Both have the file open then, and one of them at a time reloads. */
void ag_outcome_join(struct ag_outcome *o, const char *pid_file);
/* A reload begins, now. */
void ag_outcome_begin(struct ag_outcome *o);
/* Appends to the text. */
void ag_outcome_say(struct ag_outcome *o, const char *fmt, ...) AG_PRINTF(2, 3);
/* It is over. */
void ag_outcome_end(struct ag_outcome *o, bool applied);
void ag_outcome_close(struct ag_outcome *o);
/* Removes the file, when it is one. */
void ag_outcome_remove(const char *pid_file);

/* AG_OK: the outcome of a reload that began at `since_ns` or later; its text is put into `out_text`,
 * which says by `overflow` that there was more. AG_AGAIN: there is none yet. */
AG_MUST_USE enum ag_status ag_outcome_read(const char *pid_file, uint64_t since_ns,
                                           bool *out_applied, struct ag_buf *out_text);
