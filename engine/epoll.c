/*
 * epoll: the completion API over readiness. Every descriptor is registered once, edge-triggered; a
 * write is tried when it is submitted, its result waits in l->completed; an op that waits is performed
 * at its edge, one whose edge was seen before it was submitted is READY and performed by the loop.
 *
 *   epoll_wait --> reap: readable, writable, hangup --> waiting op --> perform
 *
 * Events carry number and generation, not a pointer: a descriptor shared with another process (a
 * listener handed over, a child before exec) keeps its registration after our close.
 */
#include "engine/backend.h"
#include "engine/bulk.h"
#include "engine/fault.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

/* Events taken by one wait; more come with the next. */
#define EVENTS 256
/* Descriptor numbers that can be registered at most: bounds the table where the limit is huge. */
#define TABLE_MAX (1u << 22)

struct entry {
    struct ag_fd *f; /* NULL: not registered */
    uint32_t generation;
};

struct ag_epoll {
    int fd;
    int count;           /* of `events`, between wait and reap */
    uint32_t table_size; /* entries */
    struct entry *table; /* by descriptor number; mapped, touched where used */
    struct epoll_event events[EVENTS];
};

static enum ag_status epoll_init(struct ag_loop *l, const struct ag_loop_config *config,
                                 const char **out_why)
{
    struct ag_epoll *e = AG_SYS_NULL("calloc.epoll", calloc(1, sizeof(*e)));
    struct rlimit limit;

    (void)config;
    if (!e) {
        *out_why = "no memory for epoll";
        return AG_ENOMEM;
    }
    AG_ASSERT(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    e->table_size = (uint32_t)ag_min_u64(limit.rlim_max, TABLE_MAX);
    e->table =
        AG_SYS("mmap.epoll", mmap(NULL, e->table_size * sizeof(*e->table), PROT_READ | PROT_WRITE,
                                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (e->table == MAP_FAILED) {
        *out_why = "no memory for the table of descriptors";
        free(e);
        return AG_ENOMEM;
    }
    e->fd = AG_SYS("epoll_create", epoll_create1(EPOLL_CLOEXEC));
    if (e->fd < 0) {
        *out_why = ag_loop_why("epoll_create1: %s", strerrordesc_np(errno));
        AG_ASSERT(munmap(e->table, e->table_size * sizeof(*e->table)) == 0);
        free(e);
        return AG_ESYS;
    }
    l->epoll = e;
    return AG_OK;
}

static void epoll_deinit(struct ag_loop *l)
{
    struct ag_epoll *e = l->epoll;

    (void)close(e->fd);
    AG_ASSERT(munmap(e->table, e->table_size * sizeof(*e->table)) == 0);
    free(e);
    l->epoll = NULL;
}

static void epoll_wait_events(struct ag_loop *l, uint32_t wait_ms)
{
    struct ag_epoll *e = l->epoll;
    int timeout = wait_ms == UINT32_MAX ? -1 : (int)ag_min_u64(wait_ms, INT_MAX);

    e->count = AG_SYS("epoll_wait", epoll_wait(e->fd, e->events, EVENTS, timeout));
    if (e->count < 0) {
        AG_ASSERT(errno == EINTR);
        e->count = 0;
    }
}

/* Adding reports the present state as a first edge, so nothing that came before is missed. */
static int enroll(struct ag_loop *l, struct ag_fd *f)
{
    struct ag_epoll *e = l->epoll;
    struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP | EPOLLET};
    uint32_t number = (uint32_t)f->fd;

    if (f->registered) {
        return 0;
    }
    if (number >= e->table_size) {
        return -EMFILE;
    }
    struct entry *entry = &e->table[number];
    AG_ASSERT(!entry->f);
    ev.data.u64 = (uint64_t)entry->generation << 32 | number;
    if (AG_SYS("epoll_ctl", epoll_ctl(e->fd, EPOLL_CTL_ADD, f->fd, &ev)) != 0) {
        return -errno;
    }
    entry->f = f;
    f->registered = true;
    return 0;
}

/* Puts `op` to sleep until an edge comes. */
static void await_edge(struct ag_loop *l, struct ag_op *op)
{
    int err = enroll(l, op->fd);

    if (err) {
        ag_loop_complete(l, op, err);
    }
}

static void epoll_forget(struct ag_loop *l, struct ag_fd *f)
{
    if (f->registered) {
        struct entry *entry = &l->epoll->table[f->fd];
        AG_ASSERT(entry->f == f);
        if (f->shared) { /* else closing it takes it out */
            (void)epoll_ctl(l->epoll->fd, EPOLL_CTL_DEL, f->fd, NULL);
        }
        entry->f = NULL;
        entry->generation++;
        f->registered = false;
    }
}

/* ---- ops ---- */

static void perform_accept(struct ag_loop *l, struct ag_op *op)
{
    struct ag_fd *f = op->fd;

    if (ag_loop_accept_some(l, op)) {
        f->readable = false;
    }
}

/* A short piece has emptied the socket, and what comes later makes a new edge; after a hangup there may be none, so
 * read to the end, as with urgent data, before which a receive stops. Nor is there one before it is registered: if it
 * lives on, the next try does that. */
static bool is_more(const struct ag_fd *f, size_t got, size_t size)
{
    return got == size || f->hangup || !f->registered;
}

/* A receive that brought no bytes. */
static void no_input(struct ag_loop *l, struct ag_op *op, int32_t res)
{
    if (res == -EAGAIN) {
        op->fd->readable = false;
        await_edge(l, op);
    } else {
        ag_loop_deliver_res(l, op, res);
    }
}

/* False: there is no block for it. */
static bool perform_bulk(struct ag_loop *l, struct ag_op *op)
{
    struct ag_bulk b;
    int32_t n = ag_bulk_recv(l, op, &b);

    if (b.count == 0) {
        return false;
    }
    if (n <= 0) {
        no_input(l, op, n);
        return true;
    }
    op->fd->readable = is_more(op->fd, (size_t)n, b.size);
    if (op->fd->readable) {
        ag_loop_ready(l, op);
    }
    ag_bulk_deliver(l, op, &b, (size_t)n);
    return true;
}

static void perform_recv(struct ag_loop *l, struct ag_op *op)
{
    struct ag_fd *f = op->fd;
    struct ag_block *block;
    size_t size;
    int32_t res;

    if (ag_bulk_is_due(op) && perform_bulk(l, op)) {
        return;
    }
    block = ag_bufs_for_recv(l->bufs, (enum ag_buf_group)op->arg);
    if (!block) {
        ag_bufs_starve(l->bufs, op);
        return;
    }
    size = AG_FAULT("recv.short") ? 1 : block->size;
    res = ag_sockio_recv(f->fd, block->data, size);
    if (res <= 0) {
        ag_block_release(block);
        no_input(l, op, res);
        return;
    }
    f->readable = is_more(f, (size_t)res, size);
    ag_loop_received(l, op, block, res);
    if ((size_t)res >= AG_HEAVY_BYTES) {
        ag_bulk_weigh(op, (size_t)res);
        ag_loop_pass_on(l);
    }
}

/* The result of a write tried now, or -EAGAIN with the op asleep. */
static int32_t try_write(struct ag_loop *l, struct ag_op *op)
{
    int32_t res = ag_sockio_write(op);

    if (res == -EAGAIN) {
        op->fd->writable = false;
        await_edge(l, op);
    }
    return res;
}

static int32_t connect_result(const struct ag_op *op)
{
    int err = 0;
    socklen_t len = sizeof(err);

    if (AG_SYS("so_error", getsockopt(op->fd->fd, SOL_SOCKET, SO_ERROR, &err, &len)) != 0) {
        return -errno;
    }
    return -err;
}

/* A level-triggered question on an edge-triggered set: ask for the present state each time. */
static void perform_poll(struct ag_loop *l, struct ag_op *op)
{
    struct pollfd p = {.fd = op->fd->fd, .events = op->arg};

    if (AG_SYS("poll", poll(&p, 1, 0)) > 0) {
        ag_loop_deliver_res(l, op, p.revents);
    } else {
        await_edge(l, op);
    }
}

static void epoll_perform(struct ag_loop *l, struct ag_op *op)
{
    int32_t res;

    switch ((enum ag_op_kind)op->kind) {
    case AG_OP_ACCEPT:
        perform_accept(l, op);
        return;
    case AG_OP_RECV:
        perform_recv(l, op);
        return;
    case AG_OP_SEND:
    case AG_OP_SENDFILE:
        res = try_write(l, op);
        if (res != -EAGAIN) {
            ag_loop_deliver_res(l, op, res);
        }
        return;
    case AG_OP_CONNECT:
        ag_loop_deliver_res(l, op, connect_result(op));
        return;
    case AG_OP_POLL:
        perform_poll(l, op);
        return;
    case AG_OP_NONE:
        break;
    }
    AG_UNREACHABLE("an op that is not in flight");
}

static void start_input(struct ag_loop *l, struct ag_op *op)
{
    if (op->fd->readable) {
        ag_loop_ready(l, op);
    } else {
        await_edge(l, op);
    }
}

static void epoll_start(struct ag_loop *l, struct ag_op *op)
{
    int32_t res;

    switch ((enum ag_op_kind)op->kind) {
    case AG_OP_ACCEPT:
    case AG_OP_RECV:
        start_input(l, op);
        return;
    case AG_OP_POLL:
        ag_loop_ready(l, op);
        return;
    case AG_OP_SEND:
    case AG_OP_SENDFILE:
        if (!op->fd->writable) {
            await_edge(l, op);
            return;
        }
        res = try_write(l, op);
        if (res != -EAGAIN) {
            ag_loop_complete(l, op, res);
        }
        return;
    case AG_OP_CONNECT:
    case AG_OP_NONE:
        break;
    }
    AG_UNREACHABLE("connect has a function of its own");
}

static void epoll_connect(struct ag_loop *l, struct ag_op *op, const union ag_addr *addr,
                          socklen_t addr_len)
{
    /* Before the registration: a socket that was never connected reports a hangup. */
    AG_ASSERT(!op->fd->registered);
    if (AG_SYS("connect", connect(op->fd->fd, &addr->sa, addr_len)) == 0) {
        ag_loop_complete(l, op, 0);
    } else if (errno == EINPROGRESS || errno == EINTR) {
        op->fd->writable = false;
        await_edge(l, op);
    } else {
        ag_loop_complete(l, op, -errno);
    }
}

static void epoll_cancel(struct ag_loop *l, struct ag_op *op)
{
    ag_loop_complete(l, op, -ECANCELED);
}

static int32_t epoll_send_now(struct ag_fd *f, const void *ptr, size_t len)
{
    int32_t res = f->writable ? ag_sockio_send(f->fd, ptr, len) : 0;

    if (res == -EAGAIN) {
        f->writable = false;
        return 0;
    }
    return res;
}

/* ---- events ---- */

static void on_edge(struct ag_loop *l, struct ag_op *op)
{
    if (op && op->state == AG_OP_WAITING) {
        epoll_perform(l, op);
    }
}

/* The descriptor that an event is about; NULL: it was closed since. */
static struct ag_fd *fd_of(const struct ag_epoll *e, uint64_t data)
{
    const struct entry *entry = &e->table[(uint32_t)data];

    return entry->generation == data >> 32 ? entry->f : NULL;
}

/* What one event leads to may close the descriptors of those that follow, and its own. */
static void epoll_reap(struct ag_loop *l)
{
    struct ag_epoll *e = l->epoll;

    for (int i = 0; i < e->count; i++) {
        uint64_t data = e->events[i].data.u64;
        uint32_t events = e->events[i].events;
        bool in = events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR);
        bool out = events & (EPOLLOUT | EPOLLHUP | EPOLLERR);
        struct ag_fd *f = fd_of(e, data);

        if (!f) {
            continue;
        }
        f->hangup |= (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR | EPOLLPRI)) != 0;
        f->readable |= in;
        f->writable |= out;
        if (in) {
            on_edge(l, f->rd);
            f = fd_of(e, data);
        }
        if (out && f) {
            on_edge(l, f->wr);
        }
    }
    e->count = 0;
}

const struct ag_backend ag_backend_epoll = {
    .name = "epoll",
    .system = &ag_system_kernel,
    .init = epoll_init,
    .deinit = epoll_deinit,
    .wait = epoll_wait_events,
    .reap = epoll_reap,
    .start = epoll_start,
    .connect = epoll_connect,
    .send_now = epoll_send_now,
    .perform = epoll_perform,
    .cancel = epoll_cancel,
    .forget = epoll_forget,
};
