/*
 * pidfile: the file that names the serving process, for `anygate reload` and `anygate stop`: its number
 * and a newline.
 *
 *   check --> (listen) --> write --> ... --> remove
 *
 * It appears whole (a temporary file beside it is renamed). One that a living anygate holds is not
 * taken; one that a dead process left is. Whatever is not one stays: only what is absent, empty, or a
 * regular file that holds a number is replaced, and only one that holds our number is removed.
 */
#pragma once
#include "engine/span.h"

#include <sys/types.h>

#define AG_PIDFILE_PATH 1024u /* of what lies beside it too */

/* The process that the file names. AG_ENOENT: no such file; AG_EINVAL: no number in it; AG_EACCES,
 * AG_ESYS: it cannot be read (errno tells). */
AG_MUST_USE enum ag_status ag_pidfile_read(const char *path, pid_t *out_pid);
/* Whether process `pid` runs (a zombie does not) and is an anygate: by its name or its binary's, or by
 * being the very binary that asks. */
bool ag_pidfile_is_anygate(pid_t pid);

/* A descriptor (close-on-exec) that is readable when process `pid` has ended; -1: errno tells. */
int ag_pidfile_watch(pid_t pid);

/* AG_OK: what is at `path`, if anything, may be replaced, whoever's number it is. AG_EINVAL: it is no pid
 * file; AG_EACCES, AG_ESYS: it cannot be read, or there is no such directory. The reason with a hint is
 * appended to `why`. Nothing is made. */
AG_MUST_USE enum ag_status ag_pidfile_look(const char *path, struct ag_buf *why);
/* As ag_pidfile_look, and: AG_ELIMIT: another living anygate holds it; AG_EACCES, AG_ESYS: no file can be
 * made there. */
AG_MUST_USE enum ag_status ag_pidfile_check(const char *path, struct ag_buf *why);
/* Writes `pid` in the place of what may be replaced. Errors of ag_pidfile_look, AG_EACCES or AG_ESYS, the reason
 * appended to `why`. */
AG_MUST_USE enum ag_status ag_pidfile_write(const char *path, pid_t pid, struct ag_buf *why);
/* Removes it when it names this process: a successor's stays. */
void ag_pidfile_remove(const char *path);
