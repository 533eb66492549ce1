/*
 * outcome: what became of the last reload, in a file beside the pid file (PID_FILE.reload), for
 * `anygate reload` to tell. Written whole or not at all:
 *
 *   applied 1234567890123        verdict, and CLOCK_MONOTONIC nanoseconds when the reload began
 *   anygate.yml:3:3: warning: ...   diagnoses and reasons, as the log has them
 *
 * Who asks for a reload notes the clock first: an outcome that began later is of a reload that saw the
 * files as they were then, whoever asked for it.
 */
#pragma once
#include "tools/pidfile.h"

struct ag_outcome {
    int fd; /* the text goes there; -1: nobody will read it (no pid file, or no file can be made) */
    uint64_t began_ns;
    char path[AG_PIDFILE_PATH];
    char temp[AG_PIDFILE_PATH];
};

uint64_t ag_outcome_now_ns(void);

/* A reload begins, now. `pid_file` NULL: there is none to write beside. */
void ag_outcome_open(struct ag_outcome *o, const char *pid_file);
/* Appends to the text. */
void ag_outcome_say(struct ag_outcome *o, const char *fmt, ...) AG_PRINTF(2, 3);
/* Publishes it. */
void ag_outcome_close(struct ag_outcome *o, bool applied);
/* Removes what was published: the process ends. */
void ag_outcome_remove(const char *pid_file);

/* AG_OK: the outcome of a reload that began at `since_ns` or later; its text is put into `out_text`,
 * which says by `overflow` that there was more. AG_AGAIN: there is none yet. */
AG_MUST_USE enum ag_status ag_outcome_read(const char *pid_file, uint64_t since_ns,
                                           bool *out_applied, struct ag_buf *out_text);
