/*
 * activation: listening sockets that the service manager opened (sd_listen_fds(3)): descriptors from 3
 * on, counted by $LISTEN_FDS, for the process $LISTEN_PID, named by $LISTEN_FDNAMES.
 *
 *   environment --read--> checked descriptors --give--> sockets (sockets.h), by bound address
 *
 * A listener whose address a descriptor is bound to is served from it instead of being bound. A socket
 * on [::] that takes IPv4 too stands for both addresses of ":8080". A descriptor that no listener wants
 * is an error: the manager would let clients connect, and nobody would ever answer them.
 */
#pragma once
#include "tools/sockets.h"

#define AG_ACTIVATION_MAX   64u
#define AG_ACTIVATION_FIRST 3 /* the first descriptor, by the protocol */

struct ag_activated {
    int fd;
    union ag_addr addr; /* as bound */
    bool dual;          /* IPv6 that takes IPv4 too */
    char name[64];      /* for messages; may be "" */
};

struct ag_activation {
    struct ag_activated items[AG_ACTIVATION_MAX];
    uint32_t count;
};

/* Reads and removes the variables; checks and prepares the descriptors (non-blocking, close-on-exec)
 * from `first` on. Before any thread and before anything is opened. Nothing for this process: AG_OK,
 * count 0. AG_EINVAL: the reason with a hint is appended to `why`; nothing is taken over. */
AG_MUST_USE enum ag_status ag_activation_read(struct ag_activation *a, int first,
                                              struct ag_buf *why);
/* Gives the descriptors that `m` listens on to `s`, before its first plan. AG_EINVAL: one that no
 * listener wants; the reason with a hint is appended to `why`. */
AG_MUST_USE enum ag_status ag_activation_give(struct ag_activation *a, const struct ag_model *m,
                                              struct ag_sockets *s, struct ag_buf *why);
