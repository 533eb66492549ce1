#include "tools/sockets.h"

#include "engine/fault.h"
#include "engine/listener.h"
#include "engine/log.h"
#include "engine/resolver.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

/* How long an address may be held by nobody any more, and how often it is tried meanwhile. */
#define RELEASE_MS      300
#define RELEASE_STEP_MS 5

void ag_sockets_init(struct ag_sockets *s, uint32_t shard_count, int backlog)
{
    *s = (struct ag_sockets){.shard_count = shard_count, .backlog = backlog};
    s->items = calloc(AG_SOCKETS_MAX, sizeof(*s->items));
    AG_ASSERT(s->items && shard_count <= AG_SOCKET_FDS);
}

static void close_fds(struct ag_socket *k)
{
    for (uint32_t i = 0; i < k->fd_count; i++) {
        (void)close(k->fds[i]);
    }
    k->fd_count = k->quiet = 0;
}

/* Forgets it; the descriptors are closed by who has them last. */
static void drop(const struct ag_sockets *s, struct ag_socket *k)
{
    if (k->fresh || s->keeps) {
        close_fds(k);
    }
}

void ag_sockets_deinit(struct ag_sockets *s)
{
    for (uint32_t i = 0; i < s->count; i++) {
        drop(s, &s->items[i]);
    }
    free(s->items);
    *s = (struct ag_sockets){0};
}

static struct ag_socket *find(const struct ag_sockets *s, const union ag_addr *addr)
{
    for (uint32_t i = 0; i < s->count; i++) {
        if (ag_addr_same(&s->items[i].addr, addr)) {
            return &s->items[i];
        }
    }
    return NULL;
}

const struct ag_socket *ag_sockets_find(const struct ag_sockets *s, const union ag_addr *addr)
{
    return find(s, addr);
}

/* A socket without descriptors yet. */
static struct ag_socket *add(struct ag_sockets *s, const union ag_addr *addr)
{
    struct ag_socket *k;

    AG_ASSERT(s->items && s->count < AG_SOCKETS_MAX);
    k = &s->items[s->count++];
    k->addr = *addr;
    k->id = ++s->last_id;
    k->fd_count = k->quiet = 0;
    k->shared = k->wanted = false;
    k->fresh = true;
    return k;
}

void ag_sockets_adopt(struct ag_sockets *s, const union ag_addr *addr, const int *fds,
                      uint32_t count, bool shared)
{
    struct ag_socket *k = add(s, addr);

    AG_ASSERT(count <= AG_SOCKET_FDS);
    k->shared = shared;
    k->fd_count = count;
    memcpy(k->fds, fds, count * sizeof(*fds));
}

/* ---- binding ---- */

/* A socket of this server, or of its predecessor, that has the port of `addr`; NULL: none. */
static const struct ag_socket *in_the_way(const struct ag_sockets *s, const union ag_addr *addr)
{
    for (uint32_t i = 0; i < s->count; i++) {
        const struct ag_socket *k = &s->items[i];

        if (k->fd_count > 0 && &k->addr != addr && ag_addr_overlaps(&k->addr, addr)) {
            return k;
        }
    }
    return NULL;
}

static void complain(struct ag_buf *why, const union ag_addr *addr, int error, const char *step)
{
    const char *hint = "";

    ag_buf_printf(why, "cannot %s ", step);
    ag_addr_format(addr, true, why);
    if (error == EADDRINUSE) {
        hint = "; hint: another process listens there; stop it or choose another port";
    } else if (error == EACCES) {
        hint = "; hint: ports below 1024 need root or CAP_NET_BIND_SERVICE";
    } else if (error == EADDRNOTAVAIL) {
        hint = "; hint: no interface of this machine has that address";
    }
    ag_buf_printf(why, ": %s%s", strerrordesc_np(error), hint);
}

static void complain_of_own(struct ag_buf *why, const union ag_addr *addr, const union ag_addr *own)
{
    ag_buf_printf(why, "cannot bind ");
    ag_addr_format(addr, true, why);
    ag_buf_printf(why, ": this server itself listens on ");
    ag_addr_format(own, true, why);
    ag_buf_printf(why, ", and no two can share the port; hint: restart, or take the one out by a "
                       "reload and put the other in by the next");
}

/* ag_listener_bind, waiting a while for the sockets of a process that has been killed: the kernel ends an io_uring,
 * and so closes what its operations hold, some milliseconds after the process. */
static enum ag_status bind_patiently(const union ag_addr *addr, bool reuse_port, int backlog,
                                     int *out_fd, int *out_error, const char **out_step)
{
    for (int waited_ms = 0;; waited_ms += RELEASE_STEP_MS) {
        enum ag_status st =
            ag_listener_bind(addr, reuse_port, backlog, out_fd, out_error, out_step);

        if (st == AG_OK || *out_error != EADDRINUSE || waited_ms >= RELEASE_MS) {
            return st;
        }
        (void)poll(NULL, 0, RELEASE_STEP_MS);
    }
}

/* One socket alone, without SO_REUSEPORT: with it the kernel would let two servers of the same user
 * share the port in silence. */
static enum ag_status only_user(const union ag_addr *addr, int *out_error, const char **out_step)
{
    int fd = -1;
    enum ag_status st = bind_patiently(addr, false, 1, &fd, out_error, out_step);

    if (st == AG_OK) {
        (void)close(fd);
    }
    return st;
}

/* Brings a shared socket to one descriptor a shard. */
static enum ag_status share(struct ag_sockets *s, struct ag_socket *k, struct ag_buf *why)
{
    while (k->fd_count > 0 && k->fd_count < s->shard_count) {
        int fd = fcntl(k->fds[0], F_DUPFD_CLOEXEC, 0);

        if (fd < 0) {
            complain(why, &k->addr, errno, "share");
            return AG_ESYS;
        }
        k->fds[k->fd_count++] = fd;
    }
    return AG_OK;
}

/* Every shard binds a TCP address (SO_REUSEPORT); a unix path is bound once and shared. */
static enum ag_status bind_missing(struct ag_sockets *s, struct ag_socket *k, struct ag_buf *why)
{
    bool unix_socket = k->addr.sa.sa_family == AF_UNIX;
    bool reuse = !unix_socket && s->shard_count > 1;
    uint32_t target = unix_socket ? 1 : s->shard_count;
    bool beside = k->fd_count > 0; /* adopted ones, which are served */
    enum ag_status st = AG_OK;
    const char *step = "";
    int error = 0;

    if (reuse && !beside) {
        st = only_user(&k->addr, &error, &step);
    }
    while (st == AG_OK && k->fd_count < target) {
        int fd = -1;

        st = bind_patiently(&k->addr, reuse, beside ? 0 : s->backlog, &fd, &error, &step);
        if (st == AG_OK) {
            k->fds[k->fd_count++] = fd;
            k->quiet += beside;
        }
    }
    if (st != AG_OK && error == EAFNOSUPPORT && k->addr.sa.sa_family == AF_INET6) {
        return AG_OK; /* ":8080" without IPv6 in this system is just IPv4 */
    }
    if (st != AG_OK) {
        const struct ag_socket *own = error == EADDRINUSE ? in_the_way(s, &k->addr) : NULL;

        if (own) {
            complain_of_own(why, &k->addr, &own->addr);
        } else {
            complain(why, &k->addr, error, step);
        }
        return st;
    }
    k->shared = unix_socket;
    return share(s, k, why);
}

/* ---- plans ---- */

/* Whether the socket on [::] that serves this address too, one of a service manager's, is to go. It is the manager's,
 * who has it open: nothing else can be bound there. */
static bool loses_cover(const struct ag_sockets *s, const struct ag_socket *k)
{
    const union ag_addr any = {.in6 = {.sin6_family = AF_INET6, .sin6_port = k->addr.in.sin_port}};
    const struct ag_socket *cover = find(s, &any);

    return k->wanted && k->shared && k->fd_count == 0 && k->addr.sa.sa_family == AF_INET &&
           !(cover && cover->wanted);
}

static enum ag_status check_cover(const struct ag_sockets *s, struct ag_buf *why)
{
    for (uint32_t i = 0; i < s->count; i++) {
        const struct ag_socket *k = &s->items[i];

        if (loses_cover(s, k)) {
            ag_buf_printf(why, "cannot listen on ");
            ag_addr_format(&k->addr, true, why);
            ag_buf_printf(why,
                          " alone: the service manager's socket on [::]:%u serves it, too; hint: "
                          "leave that in server.listen, or restart",
                          ntohs(k->addr.in.sin_port));
            return AG_ESYS;
        }
    }
    return AG_OK;
}

enum ag_status ag_sockets_plan(struct ag_sockets *s, const struct ag_model *m, struct ag_buf *why)
{
    enum ag_status st = AG_OK;

    for (uint16_t i = 0; i < m->listen_count && st == AG_OK; i++) {
        const union ag_addr *addr = &m->listens[i].addr;
        struct ag_socket *k = find(s, addr);

        if (!k) {
            k = add(s, addr);
        }
        k->wanted = true;
        if (k->fresh) {
            st = k->shared ? share(s, k, why) : bind_missing(s, k, why);
        }
    }
    if (st == AG_OK) {
        st = check_cover(s, why);
    }
    if (st != AG_OK) {
        ag_sockets_cancel(s);
    }
    return st;
}

void ag_sockets_listen(struct ag_sockets *s)
{
    for (uint32_t i = 0; i < s->count; i++) {
        struct ag_socket *k = &s->items[i];

        for (; k->quiet > 0; k->quiet--) {
            if (AG_SYS("listen", listen(k->fds[k->fd_count - k->quiet], s->backlog)) != 0) {
                char text[200];
                struct ag_buf why = ag_buf(text, sizeof(text));

                complain(&why, &k->addr, errno, "listen");
                ag_log(AG_LOG_ERROR, "%.*s", (int)why.len, text);
            }
        }
    }
}

static void remove_at(struct ag_sockets *s, uint32_t i)
{
    s->items[i] = s->items[--s->count];
}

void ag_sockets_commit(struct ag_sockets *s)
{
    for (uint32_t i = s->count; i-- > 0;) {
        struct ag_socket *k = &s->items[i];

        AG_ASSERT(k->quiet == 0);
        if (k->wanted) {
            k->wanted = k->fresh = false;
            continue;
        }
        drop(s, k);
        remove_at(s, i);
    }
}

void ag_sockets_cancel(struct ag_sockets *s)
{
    for (uint32_t i = s->count; i-- > 0;) {
        struct ag_socket *k = &s->items[i];

        k->wanted = false;
        if (k->fresh) {
            close_fds(k);
            remove_at(s, i);
        }
    }
}
