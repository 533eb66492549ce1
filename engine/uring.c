/*
 * uring: the completion API over io_uring.
 *
 * One io_uring_enter a turn submits all that was queued and waits. user_data is the op's pointer;
 * IGNORED marks requests whose completion says nothing (cancels).
 *
 *   accept multishot; a sparing one is a poll, and then calls
 *   recv   multishot, buffers from the group's ring; ends of the kernel's own making (no buffer, a
 *          full completion queue) are mended here and not seen by the owner
 *          what gives much (bulk.h): poll for input, then received at once
 *   send   of much: tried at once, so that its memory is free again; else MSG_WAITALL; a short one is finished by
 *          tries and a poll for room, as sendfile always is
 *
 * A request of a kind that is not yet among those of restrict_and_enable (uring_setup.c) is refused there.
 */
#include "engine/bulk.h"
#include "engine/fault.h"
#include "engine/uring_impl.h"

#include <errno.h>
#include <poll.h>

#define IGNORED 1u

/* Completions that one turn handles at most. */
#define REAP_MAX 256u
/* Those that one entry into the kernel brings about at most, beside what it submits (from 6.14 on:
 * IO_LOCAL_TW_DEFAULT_MAX). */
#define ENTER_MAX 20u

/* Until a cancel that the kernel had no room for is tried again. */
#define CANCEL_AGAIN_MS 10u

/* send, arg: the op is in a poll for room, not in the kernel's send. */
#define ARG_POLLING 1u

_Static_assert(_Alignof(struct ag_op) >= 2, "the low bit of an op's address is free");

/* ---- submission ---- */

/* NULL: the kernel takes nothing now (out of memory). */
static struct io_uring_sqe *get_sqe(struct ag_uring *u)
{
    struct io_uring_sqe *sqe;

    if (AG_FAULT("uring.get_sqe")) {
        return NULL;
    }
    sqe = io_uring_get_sqe(&u->ring);
    if (ag_unlikely(!sqe)) {
        (void)io_uring_submit(&u->ring); /* a failure shows in the next line */
        sqe = io_uring_get_sqe(&u->ring);
    }
    return sqe;
}

/* An entry for `op`; without one the op ends with -ENOMEM. */
static struct io_uring_sqe *op_sqe(struct ag_loop *l, struct ag_op *op)
{
    struct io_uring_sqe *sqe = get_sqe(l->uring);

    if (ag_unlikely(!sqe)) {
        ag_loop_complete(l, op, -ENOMEM);
    }
    return sqe;
}

static void submit_poll(struct ag_loop *l, struct ag_op *op, unsigned events)
{
    struct io_uring_sqe *sqe = op_sqe(l, op);

    if (sqe) {
        io_uring_prep_poll_add(sqe, op->fd->fd, events);
        io_uring_sqe_set_data(sqe, op);
    }
}

static void submit_recv(struct ag_loop *l, struct ag_op *op)
{
    struct io_uring_sqe *sqe;

    op->fd->polled = ag_bulk_is_due(op) && !l->tight;
    if (op->fd->polled) {
        submit_poll(l, op, POLLIN);
        return;
    }
    sqe = op_sqe(l, op);
    if (sqe) {
        if (l->tight) { /* one piece at a time, so that its owner can say when it is enough */
            io_uring_prep_recv(sqe, op->fd->fd, NULL, 0, 0);
        } else {
            io_uring_prep_recv_multishot(sqe, op->fd->fd, NULL, 0, 0);
        }
        sqe->flags |= IOSQE_BUFFER_SELECT;
        sqe->buf_group = op->arg;
        io_uring_sqe_set_data(sqe, op);
    }
}

static void submit_send(struct ag_loop *l, struct ag_op *op)
{
    struct io_uring_sqe *sqe = op_sqe(l, op);
    const struct ag_write *w = ag_write_of(op);
    int flags = MSG_WAITALL | MSG_NOSIGNAL;

    if (!sqe) {
        return;
    }
    if (w->send.ptr) {
        size_t len = AG_FAULT("uring.send.short") ? 1 : w->send.len;
        io_uring_prep_send(sqe, op->fd->fd, w->send.ptr, len, flags);
    } else if (AG_FAULT("uring.sendmsg.short")) {
        io_uring_prep_send(sqe, op->fd->fd, w->send.msg->msg_iov[0].iov_base, 1, flags);
    } else {
        flags |= w->send.msg->msg_flags & MSG_MORE;
        io_uring_prep_sendmsg(sqe, op->fd->fd, w->send.msg, (unsigned)flags);
    }
    io_uring_sqe_set_data(sqe, op);
}

/* The kernel's multishot takes all that the listener's queue holds, at once. */
static void submit_accept(struct ag_loop *l, struct ag_op *op)
{
    struct io_uring_sqe *sqe;

    if (op->arg == AG_ACCEPT_SPARING) {
        submit_poll(l, op, POLLIN);
        return;
    }
    sqe = op_sqe(l, op);
    if (sqe) {
        io_uring_prep_multishot_accept(sqe, op->fd->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        io_uring_sqe_set_data(sqe, op);
    }
}

/* The result of a write tried now, or -EAGAIN with a poll for room on its way. */
static int32_t try_write(struct ag_loop *l, struct ag_op *op)
{
    int32_t res = ag_sockio_write(op);

    if (res == -EAGAIN) {
        op->arg = ARG_POLLING;
        submit_poll(l, op, POLLOUT);
    }
    return res;
}

static void uring_start(struct ag_loop *l, struct ag_op *op)
{
    int32_t res;

    switch ((enum ag_op_kind)op->kind) {
    case AG_OP_ACCEPT:
        submit_accept(l, op);
        return;
    case AG_OP_RECV:
        submit_recv(l, op);
        return;
    case AG_OP_SEND:
        if (ag_sockio_send_len(ag_write_of(op)) < AG_HEAVY_BYTES) {
            submit_send(l, op);
            return;
        }
        __attribute__((fallthrough));
    case AG_OP_SENDFILE:
        res = try_write(l, op);
        if (res != -EAGAIN) {
            ag_loop_complete(l, op, res);
        }
        return;
    case AG_OP_POLL:
        submit_poll(l, op, op->arg);
        return;
    case AG_OP_CONNECT:
    case AG_OP_NONE:
        break;
    }
    AG_UNREACHABLE("connect has a function of its own");
}

/* There is input, probably. */
static void recv_bulk(struct ag_loop *l, struct ag_op *op)
{
    struct ag_bulk b;
    int32_t n = ag_bulk_recv(l, op, &b);

    if (b.count == 0) {
        op->fd->bulk_run = 0;
        submit_recv(l, op);
    } else if (n == -EAGAIN) {
        submit_recv(l, op);
    } else if (n <= 0) {
        ag_loop_deliver_res(l, op, n);
    } else {
        if ((size_t)n == b.size) {
            ag_loop_ready(l, op);
        } else {
            submit_recv(l, op);
        }
        ag_bulk_deliver(l, op, &b, (size_t)n);
    }
}

/* What becomes READY here: a receive whose buffer came back, or whose next piece is wanted; a sparing accept. */
static void uring_perform(struct ag_loop *l, struct ag_op *op)
{
    if (op->kind == AG_OP_ACCEPT) {
        if (ag_loop_accept_some(l, op)) {
            submit_accept(l, op);
        }
        return;
    }
    AG_ASSERT(op->kind == AG_OP_RECV);
    if (op->fd->polled) {
        recv_bulk(l, op);
    } else {
        submit_recv(l, op);
    }
}

static void uring_connect(struct ag_loop *l, struct ag_op *op, const union ag_addr *addr,
                          socklen_t addr_len)
{
    struct ag_uring *u = l->uring;
    struct io_uring_sqe *sqe;

    if (u->addr_count == AG_URING_ADDRS || AG_FAULT("uring.addrs")) {
        (void)io_uring_submit(&u->ring);
        if (io_uring_sq_ready(&u->ring) > 0) {
            ag_loop_complete(l, op, -ENOMEM);
            return;
        }
        u->addr_count = 0;
    }
    sqe = op_sqe(l, op);
    if (sqe) {
        union ag_addr *copy = &u->addrs[u->addr_count++];
        memcpy(copy, addr, addr_len);
        io_uring_prep_connect(sqe, op->fd->fd, &copy->sa, addr_len);
        io_uring_sqe_set_data(sqe, op);
    }
}

static void uring_cancel(struct ag_loop *l, struct ag_op *op)
{
    struct io_uring_sqe *sqe = AG_FAULT("uring.cancel") ? NULL : get_sqe(l->uring);

    if (ag_unlikely(!sqe)) {
        ag_list_remove(&op->link); /* a bulk one's owner may cancel it, too */
        ag_list_push(&l->uring->to_cancel, &op->link);
        return;
    }
    io_uring_prep_cancel(sqe, op, 0);
    io_uring_sqe_set_data64(sqe, IGNORED);
}

/* ---- completion ---- */

static void final(struct ag_loop *l, struct ag_op *op, int32_t res)
{
    ag_list_remove(&op->link); /* from to_cancel */
    ag_loop_deliver_res(l, op, res);
}

/* A multishot op that the kernel ended though its owner did not want it: arm it again, or say that it
 * was cancelled. */
static void go_on(struct ag_loop *l, struct ag_op *op)
{
    ag_list_remove(&op->link);
    if (op->cancelled) {
        ag_loop_complete(l, op, -ECANCELED);
    } else if (op->kind == AG_OP_RECV) {
        submit_recv(l, op);
    } else {
        submit_accept(l, op);
    }
}

static void on_accept(struct ag_loop *l, struct ag_op *op, int32_t res, uint32_t flags)
{
    bool more = flags & IORING_CQE_F_MORE;

    if (res < 0 && !ag_sockio_accept_again(res)) {
        AG_ASSERT(!more);
        final(l, op, res);
        return;
    }
    if (op->arg == AG_ACCEPT_SPARING && res >= 0 && !op->cancelled) {
        ag_loop_ready(l, op);
        return;
    }
    if (!more) {
        go_on(l, op);
    }
    if (res >= 0 && op->arg != AG_ACCEPT_SPARING) {
        ag_loop_deliver(l, op, &(struct ag_result){.res = res, .more = true});
    }
}

/* A multishot receive of what turns out to give much is cancelled, to be begun anew by go_on. */
static void note_bulk(struct ag_loop *l, struct ag_op *op, size_t got, bool more)
{
    if (got < AG_HEAVY_BYTES || ag_bulk_is_due(op)) {
        return;
    }
    ag_bulk_weigh(op, got);
    if (ag_bulk_is_due(op) && more && !op->cancelled) {
        uring_cancel(l, op);
    }
}

static void on_polled(struct ag_loop *l, struct ag_op *op, int32_t res)
{
    ag_list_remove(&op->link); /* from to_cancel */
    if (op->cancelled) {
        ag_loop_complete(l, op, -ECANCELED);
    } else if (res < 0) {
        final(l, op, res);
    } else {
        recv_bulk(l, op);
    }
}

static void on_recv(struct ag_loop *l, struct ag_op *op, int32_t res, uint32_t flags)
{
    bool more = flags & IORING_CQE_F_MORE;
    struct ag_block *block = NULL;

    if (op->fd->polled) {
        on_polled(l, op, res);
        return;
    }
    if (!more) {
        ag_list_remove(&op->link); /* from to_cancel */
    }
    if (flags & IORING_CQE_F_BUFFER) {
        block = ag_bufs_from_ring(l->bufs, (enum ag_buf_group)op->arg,
                                  flags >> IORING_CQE_BUFFER_SHIFT);
    }
    if (res > 0) {
        AG_ASSERT(block && (uint32_t)res <= block->size);
        note_bulk(l, op, (size_t)res, more);
        if (!more && l->tight && !op->cancelled) {
            ag_loop_ready(l, op);
        } else if (!more) {
            go_on(l, op);
        }
        ag_loop_deliver_piece(l, op, block, (size_t)res);
        return;
    }
    ag_block_release(block);
    AG_ASSERT(!more);
    if (res == -EINTR || ((res == -ENOBUFS || res == -ECANCELED) && ag_bulk_is_due(op))) {
        go_on(l, op);
    } else if (res == -ENOBUFS && !op->cancelled) {
        ag_bufs_starve(l->bufs, op);
    } else {
        final(l, op, res == -ENOBUFS ? -ECANCELED : res);
    }
}

/* A send that came back short, or a poll for room that came. */
static void write_on(struct ag_loop *l, struct ag_op *op)
{
    int32_t res;

    if (op->cancelled) {
        final(l, op, -ECANCELED);
        return;
    }
    res = try_write(l, op);
    if (res != -EAGAIN) {
        final(l, op, res);
    }
}

static void on_send(struct ag_loop *l, struct ag_op *op, int32_t res)
{
    if (res < 0) {
        final(l, op, res);
        return;
    }
    if (op->arg != ARG_POLLING) {
        op->res = res;
        if ((size_t)res == ag_sockio_send_len(ag_write_of(op))) {
            final(l, op, res);
            return;
        }
    }
    write_on(l, op);
}

static void on_cqe(struct ag_loop *l, struct ag_op *op, int32_t res, uint32_t flags)
{
    switch ((enum ag_op_kind)op->kind) {
    case AG_OP_ACCEPT:
        on_accept(l, op, res, flags);
        return;
    case AG_OP_RECV:
        on_recv(l, op, res, flags);
        return;
    case AG_OP_SEND:
        on_send(l, op, res);
        return;
    case AG_OP_SENDFILE:
        if (res < 0) {
            final(l, op, res);
        } else {
            write_on(l, op);
        }
        return;
    case AG_OP_CONNECT:
    case AG_OP_POLL:
        final(l, op, res);
        return;
    case AG_OP_NONE:
        break;
    }
    AG_UNREACHABLE("a completion for an op that is not in flight");
}

/* ---- faults ---- */

/* The error that a good completion of `op` is to become, negative, or 0. */
static int32_t cqe_fault(const struct ag_op *op)
{
    switch ((enum ag_op_kind)op->kind) {
    case AG_OP_ACCEPT:
        return -AG_FAULT("uring.cqe.accept");
    case AG_OP_RECV:
        return -AG_FAULT("uring.cqe.recv");
    case AG_OP_SEND:
        return -AG_FAULT("uring.cqe.send");
    case AG_OP_SENDFILE:
        return -AG_FAULT("uring.cqe.sendfile");
    case AG_OP_CONNECT:
        return -AG_FAULT("uring.cqe.connect");
    case AG_OP_POLL:
        return -AG_FAULT("uring.cqe.poll");
    case AG_OP_NONE:
        break;
    }
    return 0;
}

/* The result of a completion, as the fault hook wants it. A multishot op that goes on is delivered what
 * it brought and then ended with the error, as the kernel does it: op->res keeps it meanwhile. */
static int32_t spoil(struct ag_loop *l, struct ag_op *op, int32_t res, uint32_t flags)
{
    bool multishot =
             op->kind == AG_OP_RECV || (op->kind == AG_OP_ACCEPT && op->arg != AG_ACCEPT_SPARING),
         more = flags & IORING_CQE_F_MORE;

    if (multishot && op->res < 0) {
        int32_t error = op->res;
        if (more || res != -ECANCELED || op->cancelled) {
            return res;
        }
        op->res = 0;
        return error;
    }
    if (res < 0 || op->cancelled || (multishot && !more && res > 0)) {
        return res;
    }
    int32_t error = cqe_fault(op);
    if (error && more) {
        op->res = error;
        uring_cancel(l, op);
        return res;
    }
    if (error && (op->kind == AG_OP_SEND || op->kind == AG_OP_RECV)) {
        (void)ag_fault_hang_up(op->fd->fd, -error);
    }
    return error ? error : res;
}

static void retry_cancels(struct ag_loop *l)
{
    struct ag_link waiting = l->uring->to_cancel, *link;

    if (ag_likely(ag_list_empty(&l->uring->to_cancel))) {
        return;
    }
    waiting.next->prev = waiting.prev->next = &waiting;
    ag_list_init(&l->uring->to_cancel);
    while ((link = ag_list_pop(&waiting))) {
        uring_cancel(l, ag_container_of(link, struct ag_op, link));
    }
}

static void check_enter(int ret)
{
    switch (ret < 0 ? -ret : 0) {
    case 0:
    case ETIME:
    case EINTR:
    case EAGAIN: /* no memory for a request: what is left goes with the next turn */
    case ENOMEM:
    case EBUSY: /* completions must be reaped first; so they will be */
        return;
    default:
        AG_UNREACHABLE("io_uring_enter refuses what the program asks");
    }
}

static int enter(struct ag_uring *u, uint32_t wait_ms)
{
    struct io_uring_cqe *cqe;

    if (wait_ms == 0 || io_uring_cq_ready(&u->ring) > 0) {
        return io_uring_submit_and_get_events(&u->ring);
    }
    if (wait_ms == UINT32_MAX) {
        return io_uring_submit_and_wait(&u->ring, 1);
    }
    struct __kernel_timespec ts = {.tv_sec = wait_ms / 1000,
                                   .tv_nsec = (long long)(wait_ms % 1000) * 1000000};
    return io_uring_submit_and_wait_timeout(&u->ring, &cqe, 1, &ts, NULL);
}

/* A loop with work of its own takes what has come meanwhile, a turn's worth of it: by so few at a time a crowd
 * of deadlines would leave ever more behind. */
static void take_more(struct ag_uring *u, unsigned before)
{
    unsigned ready = io_uring_cq_ready(&u->ring);

    while (ready < REAP_MAX && ready - before >= ENTER_MAX) {
        before = ready;
        check_enter(io_uring_get_events(&u->ring));
        ready = io_uring_cq_ready(&u->ring);
    }
}

static void uring_wait(struct ag_loop *l, uint32_t wait_ms)
{
    struct ag_uring *u = l->uring;

    retry_cancels(l);
    if (ag_unlikely(!ag_list_empty(&u->to_cancel))) {
        wait_ms = (uint32_t)ag_min_u64(wait_ms, CANCEL_AGAIN_MS);
    }
    if (io_uring_cq_has_overflow(&u->ring)) {
        l->stats.overflows++;
        wait_ms = 0;
    }
    unsigned before = io_uring_cq_ready(&u->ring);
    check_enter(AG_SYS_NEG("uring.enter", enter(u, wait_ms)));
    if (wait_ms == 0) {
        take_more(u, before);
    }
    if (io_uring_sq_ready(&u->ring) == 0) {
        u->addr_count = 0;
    }
}

/* Each entry is given back before its callback runs, for that may submit, and so add completions. What is
 * beyond REAP_MAX waits for the next turn, and what these have to send does not wait for it. */
static void uring_reap(struct ag_loop *l)
{
    struct ag_uring *u = l->uring;
    unsigned ready = io_uring_cq_ready(&u->ring);
    unsigned left = ready < REAP_MAX ? ready : REAP_MAX;
    struct io_uring_cqe *cqe;

    while (left-- > 0 && io_uring_peek_cqe(&u->ring, &cqe) == 0) {
        uint64_t data = cqe->user_data;
        int32_t res = cqe->res;
        uint32_t flags = cqe->flags;
        io_uring_cqe_seen(&u->ring, cqe);
        if (data != IGNORED) {
            struct ag_op *op = (struct ag_op *)(uintptr_t)data; // NOLINT(performance-no-int-to-ptr)
            res = AG_FAULTS ? spoil(l, op, res, flags) : res;
            on_cqe(l, op, res, flags);
        }
    }
}

const struct ag_backend ag_backend_uring = {
    .name = "io_uring",
    .system = &ag_system_kernel,
    .init = ag_uring_init,
    .deinit = ag_uring_deinit,
    .wait = uring_wait,
    .reap = uring_reap,
    .start = uring_start,
    .connect = uring_connect,
    .perform = uring_perform,
    .cancel = uring_cancel,
};
