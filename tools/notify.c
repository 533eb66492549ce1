#include "tools/notify.h"

#include "engine/span.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#define MESSAGE_BYTES 512u

/* A variable's value; gone from the environment. */
static const char *take_env(const char *name)
{
    const char *value = getenv(name); /* NOLINT(concurrency-mt-unsafe): before any thread */

    (void)unsetenv(name); /* NOLINT(concurrency-mt-unsafe): before any thread */
    return value;
}

static uint64_t number(const char *text)
{
    uint64_t value = 0;

    return text && ag_span_u64(ag_span_str(text), &value) == AG_OK ? value : 0;
}

static enum ag_status read_address(struct ag_notify *n, const char *text)
{
    size_t len = strlen(text);

    if ((text[0] != '/' && text[0] != '@') || len < 2 || len >= sizeof(n->addr.sun_path)) {
        return AG_EINVAL;
    }
    n->addr = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(n->addr.sun_path, text, len);
    if (text[0] == '@') {
        n->addr.sun_path[0] = '\0'; /* the name of an abstract socket has no end but its length */
    }
    n->addr_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + (text[0] == '/'));
    return AG_OK;
}

enum ag_status ag_notify_open(struct ag_notify *n)
{
    const struct timeval patience = {.tv_sec = AG_NOTIFY_SEND_MS / 1000};
    const char *address = take_env("NOTIFY_SOCKET");
    uint64_t watchdog_us = number(take_env("WATCHDOG_USEC"));
    const char *watchdog_pid = take_env("WATCHDOG_PID");

    *n = (struct ag_notify){.fd = -1};
    if (!address || !address[0]) {
        return AG_OK;
    }
    if (read_address(n, address) != AG_OK) {
        return AG_EINVAL;
    }
    n->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (n->fd < 0) {
        return AG_EINVAL;
    }
    (void)setsockopt(n->fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    /* Now, since after a chroot the path leads nowhere. */
    (void)connect(n->fd, (const struct sockaddr *)&n->addr, n->addr_len);
    if (!watchdog_pid || number(watchdog_pid) == (uint64_t)getpid()) {
        n->watchdog_ms = watchdog_us / 2000;
    }
    return AG_OK;
}

void ag_notify_close(struct ag_notify *n)
{
    if (n->fd >= 0) {
        (void)close(n->fd);
    }
    n->fd = -1;
}

static bool transmit(const struct ag_notify *n, const char *text, size_t len)
{
    ssize_t sent;

    do {
        sent = send(n->fd, text, len, MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    return sent >= 0;
}

void ag_notify_send(struct ag_notify *n, const char *fmt, ...)
{
    char text[MESSAGE_BYTES];
    va_list args;
    int len;

    if (n->fd < 0) {
        return;
    }
    va_start(args, fmt);
    len = vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    if (len < 0) {
        return;
    }
    size_t bytes = ag_min_size((size_t)len, sizeof(text) - 1);
    /* A manager that has started again has a new socket at the old address. */
    if (!transmit(n, text, bytes) && errno != EAGAIN &&
        connect(n->fd, (const struct sockaddr *)&n->addr, n->addr_len) == 0) {
        (void)transmit(n, text, bytes);
    }
}

void ag_notify_reloading(struct ag_notify *n)
{
    struct timespec now = {0};

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    ag_notify_send(n, "RELOADING=1\nMONOTONIC_USEC=%" PRIu64 "\nSTATUS=reloading",
                   (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u);
}
