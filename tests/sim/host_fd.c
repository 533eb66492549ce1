/* host_fd: the descriptors of the process, and their end. */
#include "tests/sim/host_parts.h"

#include <errno.h>

struct host_sock *host_sock_of(const struct host *h, int fd)
{
    uint32_t i = (uint32_t)(fd - HOST_FD_BASE);

    if (fd < HOST_FD_BASE || i >= HOST_FDS || !h->fds[i]) {
        sim_fail(h->sim, "descriptor %d is used and not open", fd);
    }
    return h->fds[i];
}

bool host_is_open(const struct host *h, int fd)
{
    return fd >= HOST_FD_BASE && fd < HOST_FD_BASE + (int)HOST_FDS && h->fds[fd - HOST_FD_BASE];
}

/* The lowest number, as a kernel does: a descriptor used after its close meets another's socket. */
struct host_sock *host_open_fd(struct host *h, enum host_kind kind)
{
    struct host_sock *s;
    uint32_t i = 0;

    while (i < HOST_FDS && h->fds[i]) {
        i++;
    }
    if (i == HOST_FDS) {
        sim_fail(h->sim, "the host's table of descriptors is full");
    }
    s = sim_alloc(h->sim, sizeof(*s));
    s->fd = HOST_FD_BASE + (int)i;
    s->kind = kind;
    h->fds[i] = s;
    h->fd_count++;
    h->fd_most = h->fd_count > h->fd_most ? h->fd_count : h->fd_most;
    return s;
}

void host_close(struct host *h, int fd)
{
    struct host_sock *s = host_sock_of(h, fd);

    if (s->rd || s->wr) {
        sim_fail(h->sim, "descriptor %d is closed with an op in flight", fd);
    }
    if (s->kind == HOST_SOCKET && s->end) {
        s->end->notify = NULL;
        net_close(s->end);
    } else if (s->kind == HOST_LISTENER) {
        s->listener->notify = NULL;
        net_unlisten(s->listener);
    }
    h->fds[fd - HOST_FD_BASE] = NULL;
    h->fd_count--;
}

void host_on_end(struct net_end *e)
{
    host_look(e->owner);
}

static void on_listener(struct net_listener *l)
{
    host_look(l->owner);
}

int host_listen(struct host *h, uint16_t port, uint32_t backlog)
{
    struct host_sock *s = host_open_fd(h, HOST_LISTENER);

    s->listener = net_listen(h->sim, h->ip, port, backlog, on_listener, s);
    return s->fd;
}

int host_open_limited(struct host *h, struct host_sock **out)
{
    static const int errors[] = {-EMFILE, -ENFILE, -ENOMEM, -ENOBUFS};

    *out = NULL;
    if (h->fd_count >= h->fd_limit) {
        h->shortages++;
        return -EMFILE;
    }
    if (fails(h, h->faults.socket)) {
        h->shortages++;
        return errors[sim_below(h->sim, AG_COUNT(errors))];
    }
    *out = host_open_fd(h, HOST_SOCKET);
    return 0;
}

int host_accept_one(struct host *h, struct net_listener *l)
{
    struct host_sock *s;
    int err;

    if (!l->first) {
        return -EAGAIN;
    }
    err = host_open_limited(h, &s);
    if (!s) {
        return err;
    }
    s->end = net_accept(l);
    s->end->notify = host_on_end;
    s->end->owner = s;
    sim_note(h->sim, "host: accept", s->end->conn->id, (uint64_t)s->fd);
    return s->fd;
}
