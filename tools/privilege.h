/*
 * privilege: from root to a process that may do nothing but serve.
 *
 *   root --ag_privilege_bind_hands--> still root, but: no new privileges, no capability to come back to,
 *     |                               no file may be written, made or removed by path (Landlock), but for
 *     |                               those without a name that content is buffered in
 *     |     threads start, rings are set up (they may need more locked memory than a user has)
 *     +--ag_privilege_drop--> chroot, groups, group, user: no capability is left
 *
 * The first step holds for the threads that start after it, the second for all there are.
 */
#pragma once
#include "engine/span.h"

#include <sys/types.h>

#define AG_USER_GROUPS 256u

struct ag_user {
    uid_t uid;
    gid_t gid;
    uint32_t group_count;
    gid_t groups[AG_USER_GROUPS]; /* supplementary ones, `gid` included */
};

/* "name", "name:group", or numbers in their place. A name brings the groups it is a member of; a number
 * without a name, or a group of its own, brings that group alone. AG_ENOENT with the reason appended to
 * `why`: no such user or group, or it is root. */
AG_MUST_USE enum ag_status ag_user_find(const char *text, struct ag_user *out, struct ag_buf *why);

struct ag_privilege_report {
    bool landlock; /* false: this kernel has none; what the user may write, an intruder may */
};

/* With one thread running. `folder`: a directory below which what is there may be written, and files without a name
 * made; -1: none. AG_ESYS with the reason appended to `why`. */
AG_MUST_USE enum ag_status ag_privilege_bind_hands(int folder, struct ag_privilege_report *out,
                                                   struct ag_buf *why);
/* With all threads started; `root` may be NULL: no chroot. Makes sure that there is no way back. AG_ESYS
 * with the reason appended to `why`: the process must end. */
AG_MUST_USE enum ag_status ag_privilege_drop(const struct ag_user *user, const char *root,
                                             struct ag_buf *why);
