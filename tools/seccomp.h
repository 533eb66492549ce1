/*
 * seccomp: which system calls are left to the process once it serves (seccomp(2), by libseccomp).
 *
 *   what a server does              allowed, arguments checked where they decide
 *   what only an intruder does      ends the process: exec, ptrace, mount, setuid, bpf, keys, modules ...
 *   the rest                        ENOSYS, and a line in the kernel's log
 *
 * Not an end for all that is unknown: a new libc asks for a new call first and falls back when it is not
 * there, and a site must survive the update of a library. So ENOSYS, as from an older kernel.
 *
 * The filter cannot look into memory: the flags of openat2 are not seen, so writing by path is refused
 * by Landlock (privilege.h). Requests through io_uring are not seen either: rings are restricted where
 * they are made (engine/uring_setup.c), and no new ones can be made.
 */
#pragma once
#include "engine/base.h"

enum ag_seccomp_profile {
    AG_SECCOMP_WORKER, /* is handed all it needs by a master: listens on nothing new, lists nothing */
    AG_SECCOMP_ALONE, /* does a master's work too: reload, new listeners; but no upgrade (no exec) */
};

/* For all threads of the process, for ever. `log_only`: nothing is refused, what would be is told to the
 * kernel's log. Sets no_new_privs. AG_ESYS with a reason. */
AG_MUST_USE enum ag_status ag_seccomp_apply(enum ag_seccomp_profile profile, bool log_only,
                                            const char **out_why);
