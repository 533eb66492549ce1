#include "engine/listener.h"

#include "engine/backend.h"
#include "engine/fault.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <sys/stat.h>
#include <unistd.h>

/* Wait before accept is tried again after EMFILE and the like. */
#define RETRY_MS 100u
/* Connections that a closing listener takes from its queue at most. */
#define DRAIN_MAX 4096u
/* How long the kernel keeps a connection that brings no bytes, about: one retransmission. */
#define DEFERRED_S 1

/* ---- start-up ---- */

static socklen_t addr_len(const union ag_addr *addr)
{
    const struct sockaddr_un *un = &addr->un;

    switch (addr->sa.sa_family) {
    case AF_INET:
        return sizeof(addr->in);
    case AF_INET6:
        return sizeof(addr->in6);
    default:
        break;
    }
    AG_ASSERT(addr->sa.sa_family == AF_UNIX);
    if (un->sun_path[0] == '\0') { /* abstract: the name after the NUL */
        return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 +
                           strnlen(un->sun_path + 1, sizeof(un->sun_path) - 1));
    }
    return sizeof(*un);
}

/* True when a socket lies at the path and nobody listens to it any more. */
static bool unix_is_dead(const union ag_addr *addr)
{
    struct stat st;
    bool dead;
    int fd;

    /* connect answers the same for any other file, and that is not ours to remove. */
    if (lstat(addr->un.sun_path, &st) != 0 || !S_ISSOCK(st.st_mode)) {
        return false;
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return false;
    }
    dead = connect(fd, &addr->sa, addr_len(addr)) != 0 && errno == ECONNREFUSED;
    (void)close(fd);
    return dead;
}

static bool set_int(int fd, int level, int option, int value)
{
    return AG_SYS("listen.setsockopt", setsockopt(fd, level, option, &value, sizeof(value))) == 0;
}

static bool set_options(int fd, int family, bool reuse_port)
{
    if (family == AF_UNIX) {
        return true;
    }
    /* Linux hands TCP's options of the listener on to what it accepts: no call per connection. */
    return set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1) && set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1) &&
           set_int(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, AG_UNSENT_MAX) &&
           (!reuse_port || set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1)) &&
           (family != AF_INET6 || set_int(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1));
}

static bool bind_addr(int fd, const union ag_addr *addr)
{
    if (AG_SYS("bind", bind(fd, &addr->sa, addr_len(addr))) == 0) {
        return true;
    }
    if (errno != EADDRINUSE || addr->sa.sa_family != AF_UNIX || addr->un.sun_path[0] == '\0') {
        return false;
    }
    if (!unix_is_dead(addr) || unlink(addr->un.sun_path) != 0) {
        errno = EADDRINUSE;
        return false;
    }
    return bind(fd, &addr->sa, addr_len(addr)) == 0;
}

enum ag_status ag_listener_bind(const union ag_addr *addr, bool reuse_port, int backlog,
                                int *out_fd, int *out_error, const char **out_step)
{
    const char *step = "socket";
    int err;
    int fd = AG_SYS("listen.socket",
                    socket(addr->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));

    if (fd >= 0 && set_options(fd, addr->sa.sa_family, reuse_port)) {
        step = "bind";
        if (bind_addr(fd, addr)) {
            step = "listen";
            if (backlog == 0 || AG_SYS("listen", listen(fd, backlog)) == 0) {
                *out_fd = fd;
                return AG_OK;
            }
        }
    }
    err = errno;
    if (fd >= 0) {
        (void)close(fd);
    }
    *out_error = err;
    *out_step = step;
    return err == EACCES || err == EPERM ? AG_EACCES : AG_ESYS;
}

/* ---- running ---- */

static void end(struct ag_listener *ls)
{
    ag_timer_cancel(&ls->loop->wheel, &ls->retry);
    /* Closing resets what waits in the queue: take it first. */
    for (unsigned i = 0; i < DRAIN_MAX; i++) {
        int fd = ag_loop_accept_now(ls->loop, &ls->fd);
        if (fd >= 0) {
            ls->accepted(ls, fd);
        } else if (!ag_sockio_accept_again(fd)) {
            break;
        }
    }
    ag_loop_close(ls->loop, &ls->fd);
    ls->closed(ls);
}

static void update(struct ag_listener *ls)
{
    if (!ls->paused && !ls->closing && !ag_op_in_flight(&ls->op) && !ag_timer_armed(&ls->retry)) {
        ag_loop_accept(ls->loop, &ls->fd, &ls->op, ls->way);
    }
}

static void on_retry(struct ag_timer *t)
{
    struct ag_listener *ls = ag_container_of(t, struct ag_listener, retry);

    if (ls->closing) {
        end(ls);
    } else {
        update(ls);
    }
}

static void on_accept(struct ag_loop *l, struct ag_op *op, const struct ag_result *r)
{
    struct ag_listener *ls = ag_container_of(op, struct ag_listener, op);

    if (r->res >= 0) {
        ls->accepted(ls, r->res);
        return;
    }
    AG_ASSERT(!r->more);
    if (ls->closing) {
        end(ls);
        return;
    }
    if (r->res != -ECANCELED) { /* no descriptor, no memory: they come back in time */
        ag_loop_arm(l, &ls->retry, RETRY_MS);
    }
    update(ls);
}

void ag_listener_open(struct ag_listener *ls, struct ag_loop *l, int fd,
                      void (*accepted)(struct ag_listener *, int fd))
{
    void *user = ls->user;

    *ls = (struct ag_listener){
        .loop = l, .accepted = accepted, .user = user, .way = AG_ACCEPT_SPARING};
    ag_fd_init(&ls->fd, fd);
    ls->fd.shared = true; /* with a successor, or a master */
    ag_op_init(&ls->op, on_accept);
    ag_timer_init(&ls->retry, on_retry);
    ag_loop_local(l, &ls->fd, &ls->addr);
    update(ls);
}

void ag_listener_pause(struct ag_listener *ls)
{
    ls->paused = true;
    ag_loop_cancel(ls->loop, &ls->op);
}

void ag_listener_resume(struct ag_listener *ls)
{
    ls->paused = false;
    update(ls);
}

void ag_listener_set_way(struct ag_listener *ls, enum ag_accept_way way)
{
    if (ls->way != way) {
        ls->way = way;
        ag_loop_cancel(ls->loop, &ls->op);
    }
}

void ag_listener_set_deferred(struct ag_listener *ls, bool deferred)
{
    if (ls->deferred != deferred && ls->addr.sa.sa_family != AF_UNIX) {
        ls->deferred = deferred;
        /* Without it connections only come earlier. */
        (void)set_int(ls->fd.fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, deferred ? DEFERRED_S : 0);
    }
}

void ag_listener_close(struct ag_listener *ls, void (*closed)(struct ag_listener *))
{
    AG_ASSERT(!ls->closing);
    ls->closing = true;
    ls->closed = closed;
    if (ag_op_in_flight(&ls->op)) {
        ag_loop_cancel(ls->loop, &ls->op);
    } else {
        ag_loop_arm(ls->loop, &ls->retry, 0); /* `closed` comes from the loop */
    }
}
