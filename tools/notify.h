/*
 * notify: tells the service manager how the process does, by the protocol of sd_notify(3): one datagram
 * of NAME=VALUE lines to the unix socket that $NOTIFY_SOCKET names ("/path" or "@abstract").
 *
 * Without a service manager every call does nothing. A message that cannot be delivered is lost: the
 * process serves all the same. Sending waits at most AG_NOTIFY_SEND_MS.
 */
#pragma once
#include "engine/base.h"

#include <sys/socket.h>
#include <sys/un.h>

#define AG_NOTIFY_SEND_MS 1000

struct ag_notify {
    int fd; /* -1: nobody is to be told */
    socklen_t addr_len;
    struct sockaddr_un addr;
    uint64_t
        watchdog_ms; /* WATCHDOG=1 is due this often (half of what the manager waits); 0: never */
};

/* Reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID and removes them from the environment: children
 * must not speak for this process. Before any thread. AG_EINVAL: NOTIFY_SOCKET is of no known form, or
 * there is no socket to be had; then nobody is told. */
AG_MUST_USE enum ag_status ag_notify_open(struct ag_notify *n);
void ag_notify_close(struct ag_notify *n);

static inline bool ag_notify_on(const struct ag_notify *n)
{
    return n->fd >= 0;
}

/* One message: lines of NAME=VALUE, at most 512 bytes (what is beyond is cut). */
void ag_notify_send(struct ag_notify *n, const char *fmt, ...) AG_PRINTF(2, 3);
/* RELOADING=1 with the clock, by which the manager tells this reload from an earlier one. READY=1 is to
 * follow, also when the reload was refused. */
void ag_notify_reloading(struct ag_notify *n);
