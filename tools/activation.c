#include "tools/activation.h"

#include "engine/loop.h"
#include "engine/resolver.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <unistd.h>

/* A variable's value; gone from the environment. */
static const char *take_env(const char *name)
{
    const char *value = getenv(name); /* NOLINT(concurrency-mt-unsafe): before any thread */

    (void)unsetenv(name); /* NOLINT(concurrency-mt-unsafe): before any thread */
    return value;
}

/* The next of the names between colons; "" when there are no more. */
static void take_name(const char **names, char *out, size_t cap)
{
    size_t len = *names ? strcspn(*names, ":") : 0;

    (void)snprintf(out, cap, "%.*s", (int)ag_min_size(len, cap - 1), *names ? *names : "");
    if (*names) {
        *names += len + ((*names)[len] == ':');
    }
}

static bool option_is(int fd, int level, int option, int want)
{
    socklen_t len = sizeof(int);
    int value = -1;

    return getsockopt(fd, level, option, &value, &len) == 0 && value == want;
}

static bool is_listening(int fd)
{
    return option_is(fd, SOL_SOCKET, SO_TYPE, SOCK_STREAM) &&
           option_is(fd, SOL_SOCKET, SO_ACCEPTCONN, 1);
}

/* Bound where? */
static bool read_address(struct ag_activated *item)
{
    socklen_t len = sizeof(item->addr);

    item->addr = (union ag_addr){0};
    if (getsockname(item->fd, &item->addr.sa, &len) != 0) {
        return false;
    }
    item->dual = item->addr.sa.sa_family == AF_INET6 &&
                 IN6_IS_ADDR_UNSPECIFIED(&item->addr.in6.sin6_addr) &&
                 option_is(item->fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
    return item->addr.sa.sa_family == AF_INET || item->addr.sa.sa_family == AF_INET6 ||
           item->addr.sa.sa_family == AF_UNIX;
}

static bool prepare(int fd, int family)
{
    const int one = 1, unsent = AG_UNSENT_MAX;
    int flags = fcntl(fd, F_GETFL);

    /* TCP's options are handed on to what the socket accepts. */
    return flags >= 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0 &&
           fcntl(fd, F_SETFD, FD_CLOEXEC) == 0 &&
           (family == AF_UNIX ||
            (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) == 0 &&
             setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof(unsent)) == 0));
}

static void describe(struct ag_buf *why, const struct ag_activated *item)
{
    ag_buf_printf(why, "descriptor %d", item->fd);
    if (item->name[0]) {
        ag_buf_printf(why, " (%s)", item->name);
    }
}

static enum ag_status take(struct ag_activated *item, struct ag_buf *why)
{
    if (!is_listening(item->fd) || !read_address(item)) {
        describe(why, item);
        ag_buf_printf(why, " from the service manager is not a listening stream socket; hint: "
                           "ListenStream= with Accept=no");
        return AG_EINVAL;
    }
    if (!prepare(item->fd, item->addr.sa.sa_family)) {
        describe(why, item);
        ag_buf_printf(why, " from the service manager: %s", strerrordesc_np(errno));
        return AG_EINVAL;
    }
    return AG_OK;
}

enum ag_status ag_activation_read(struct ag_activation *a, int first, struct ag_buf *why)
{
    const char *pid_text = take_env("LISTEN_PID"), *count_text = take_env("LISTEN_FDS");
    const char *names = take_env("LISTEN_FDNAMES");
    uint64_t pid = 0, count = 0;

    a->count = 0;
    if (!pid_text || !count_text || ag_span_u64(ag_span_str(pid_text), &pid) != AG_OK ||
        pid != (uint64_t)getpid()) {
        return AG_OK; /* meant for another process */
    }
    if (ag_span_u64(ag_span_str(count_text), &count) != AG_OK || count > AG_ACTIVATION_MAX) {
        ag_buf_printf(why, "LISTEN_FDS=%.20s: expected a number up to %u", count_text,
                      AG_ACTIVATION_MAX);
        return AG_EINVAL;
    }
    for (uint32_t i = 0; i < count; i++) {
        struct ag_activated *item = &a->items[i];

        *item = (struct ag_activated){.fd = first + (int)i};
        take_name(&names, item->name, sizeof(item->name));
        if (take(item, why) != AG_OK) {
            return AG_EINVAL;
        }
    }
    a->count = (uint32_t)count;
    return AG_OK;
}

/* ---- to whom ---- */

static bool listens_on(const struct ag_model *m, const union ag_addr *addr)
{
    for (uint16_t i = 0; i < m->listen_count; i++) {
        if (ag_addr_same(&m->listens[i].addr, addr)) {
            return true;
        }
    }
    return false;
}

static bool has(const struct ag_activation *a, const union ag_addr *addr)
{
    for (uint32_t i = 0; i < a->count; i++) {
        if (ag_addr_same(&a->items[i].addr, addr)) {
            return true;
        }
    }
    return false;
}

/* 0.0.0.0 with the port of a socket on [::]. */
static union ag_addr any_ipv4(const struct ag_activated *item)
{
    return (union ag_addr){.in = {.sin_family = AF_INET, .sin_port = item->addr.in6.sin6_port}};
}

/* Whether the socket for both families is to serve a listener on 0.0.0.0 too. */
static bool covers_ipv4(const struct ag_activation *a, const struct ag_model *m,
                        const struct ag_activated *item)
{
    union ag_addr ipv4 = any_ipv4(item);

    return item->dual && listens_on(m, &ipv4) && !has(a, &ipv4);
}

/* All sockets bound to one address (ReusePort=) at once. */
static void give_as(const struct ag_activation *a, const struct ag_activated *item,
                    const union ag_addr *addr, struct ag_sockets *s)
{
    int fds[AG_ACTIVATION_MAX];
    uint32_t count = 0;

    for (uint32_t i = 0; i < a->count; i++) {
        if (ag_addr_same(&a->items[i].addr, &item->addr)) {
            fds[count++] = a->items[i].fd;
        }
    }
    ag_sockets_adopt(s, addr, fds, count, true);
}

static void give(const struct ag_activation *a, const struct ag_model *m,
                 const struct ag_activated *item, struct ag_sockets *s)
{
    union ag_addr ipv4 = any_ipv4(item);

    if (!listens_on(m, &item->addr)) {
        give_as(a, item, &ipv4, s);
        return;
    }
    give_as(a, item, &item->addr, s);
    if (covers_ipv4(a, m, item)) {
        /* Its clients come by the other: there is nothing to bind. */
        ag_sockets_adopt(s, &ipv4, &item->fd, 0, true);
    }
}

/* By another that is bound to the same address. */
static bool given(const struct ag_model *m, const struct ag_activated *item,
                  const struct ag_sockets *s)
{
    union ag_addr ipv4 = any_ipv4(item);

    return ag_sockets_find(s, listens_on(m, &item->addr) ? &item->addr : &ipv4);
}

static void complain_unwanted(struct ag_buf *why, const struct ag_activated *item)
{
    describe(why, item);
    ag_buf_printf(why, " from the service manager is bound to ");
    ag_addr_format(&item->addr, true, why);
    ag_buf_printf(why, ", where no listener is configured; hint: add \"");
    ag_addr_format(&item->addr, true, why);
    ag_buf_printf(why, "\" to server.listen, or take it out of the socket unit");
}

enum ag_status ag_activation_give(struct ag_activation *a, const struct ag_model *m,
                                  struct ag_sockets *s, struct ag_buf *why)
{
    for (uint32_t i = 0; i < a->count; i++) {
        const struct ag_activated *item = &a->items[i];

        if (!listens_on(m, &item->addr) && !covers_ipv4(a, m, item)) {
            complain_unwanted(why, item);
            return AG_EINVAL;
        }
    }
    for (uint32_t i = 0; i < a->count; i++) {
        if (!given(m, &a->items[i], s)) {
            give(a, m, &a->items[i], s);
        }
    }
    a->count = 0;
    return AG_OK;
}
