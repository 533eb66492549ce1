#include "engine/conn.h"

#include "engine/bulk.h"
#include "engine/pipes.h"
#include "engine/resolver.h"

#include <errno.h>

/* Bytes that one send takes at most: its memory is free only when all of it has gone. */
#define SEND_MAX ((size_t)1024 * 1024)

/* A gathered send's, in a buffer leased for it. */
struct ag_conn_iov {
    struct msghdr msg;
    struct iovec iov[AG_CONN_IOV];
};

_Static_assert(sizeof(struct ag_conn_iov) <= AG_BUF_SMALL_BYTES, "it lies in a small buffer");
_Static_assert(sizeof(struct ag_conn) <= 248, "idle connections are what there is most of");
_Static_assert(SEND_MAX <= INT32_MAX, "a send's result is an int32_t");

static void on_wr(struct ag_loop *l, struct ag_op *op, const struct ag_result *r);
static void update_read(struct ag_conn *c);
static void maybe_close(struct ag_conn *c);

static void set_state(struct ag_conn *c, enum ag_conn_state next)
{
    static const uint8_t edges[] = {
        [AG_CONN_CONNECTING] = 1u << AG_CONN_OPEN | 1u << AG_CONN_CLOSING,
        [AG_CONN_OPEN] = 1u << AG_CONN_FLUSHING | 1u << AG_CONN_CLOSING,
        [AG_CONN_FLUSHING] = 1u << AG_CONN_LINGERING | 1u << AG_CONN_CLOSING,
        [AG_CONN_LINGERING] = 1u << AG_CONN_CLOSING,
        [AG_CONN_CLOSING] = 1u << AG_CONN_CLOSED,
        [AG_CONN_CLOSED] = 0,
    };

    AG_ASSERT(edges[c->state] & 1u << next);
    c->state = (uint8_t)next;
}

/* ---- the end ---- */

/* To CLOSING, from wherever it is; the first reason stays. Callable from any callback: on_close comes
 * from the task or from the last op's completion. */
static void begin_close(struct ag_conn *c, enum ag_reason why)
{
    struct ag_stream *s = &c->stream;

    if (c->state >= AG_CONN_CLOSING) {
        return;
    }
    if (c->state != AG_CONN_CONNECTING && c->send) {
        ag_loop_cancel(s->loop, &c->send->wr.op);
    }
    set_state(c, AG_CONN_CLOSING);
    if (c->reason == AG_REASON_NONE) {
        c->reason = (uint8_t)why;
    }
    s->closing = true;
    ag_chain_clear(&s->out, &s->loop->nodes);
    ag_timer_cancel(&s->loop->wheel, &s->deadline);
    ag_loop_cancel(s->loop, &c->rd);
    ag_task_queue(s->loop, &s->flush_task);
}

/* After an error of the system's: what was still to be sent may end where the connection does, and must
 * not look complete then. */
static void break_off(struct ag_conn *c, enum ag_reason why)
{
    ag_loop_reset_on_close(c->stream.loop, &c->fd);
    begin_close(c, why);
}

/* The kernel has let go of it. */
static void end_send(struct ag_conn *c)
{
    struct ag_loop *l = c->stream.loop;

    ag_chain_clear(&c->send->chain, &l->nodes);
    ag_block_release(c->send->block);
    ag_pool_put(&l->sends, c->send);
    c->send = NULL;
}

/* The one place that ends a connection. Its memory may be gone afterwards. */
static void maybe_close(struct ag_conn *c)
{
    struct ag_stream *s = &c->stream;

    if (c->state != AG_CONN_CLOSING || ag_op_in_flight(&c->rd) || ag_conn_is_sending(c)) {
        return;
    }
    set_state(c, AG_CONN_CLOSED);
    ag_loop_close(s->loop, &c->fd);
    if (c->send) {
        end_send(c);
    }
    ag_stream_deinit(s);
    s->user->on_close(s, (enum ag_reason)c->reason);
}

bool ag_conn_is_through(const struct ag_conn *c)
{
    return c->state == AG_CONN_LINGERING ? ag_loop_unsent(c->stream.loop, &c->fd) == 0
                                         : c->state > AG_CONN_LINGERING;
}

static void on_linger_end(struct ag_timer *t)
{
    begin_close(ag_conn_of(ag_container_of(t, struct ag_stream, deadline)), AG_REASON_NONE);
}

/* All output has gone. */
static void flushed(struct ag_conn *c)
{
    struct ag_stream *s = &c->stream;
    bool flushing = c->state == AG_CONN_FLUSHING;

    if (flushing && (c->eof || s->hasty)) { /* its FIN comes by the close */
        begin_close(c, AG_REASON_NONE);
        return;
    }
    if ((flushing || c->shut) && !c->shut_done) {
        c->shut_done = true;
        ag_loop_shut(s->loop, &c->fd);
    }
    if (!flushing) {
        return;
    }
    /* A close with input unread, or arriving, is a reset that would erase the last answer. */
    if (c->lingered_bytes >= AG_CONN_LINGER_BYTES) {
        begin_close(c, AG_REASON_NONE);
        return;
    }
    set_state(c, AG_CONN_LINGERING);
    ag_timer_cancel(&s->loop->wheel, &s->deadline);
    s->deadline.fire = on_linger_end;
    ag_loop_arm(s->loop, &s->deadline, AG_CONN_LINGER_MS);
    update_read(c);
}

/* ---- sending ---- */

/* Moves the next slices of the queue into the send: all memory up to a file, or one file. */
static void take_output(struct ag_conn *c)
{
    struct ag_chain *out = &c->stream.out;
    struct ag_slice_node *last = out->head;

    if (out->count == 1) { /* most often */
        c->stream.sending_bytes += out->bytes;
        c->send->chain = *out;
        *out = (struct ag_chain){0};
        return;
    }
    uint64_t bytes = last->slice.len;
    uint32_t count = 1;

    if (!ag_slice_is_file(&last->slice)) {
        while (count < AG_CONN_IOV && last->next && !ag_slice_is_file(&last->next->slice)) {
            last = last->next;
            bytes += last->slice.len;
            count++;
        }
    }
    c->send->chain = (struct ag_chain){out->head, last, bytes, count};
    out->head = last->next;
    out->tail = out->head ? out->tail : NULL;
    out->bytes -= bytes;
    out->count -= count;
    last->next = NULL;
    c->stream.sending_bytes += bytes;
}

/* A gathered send of what the chain holds; false when no buffer is left for its iovec. */
static bool send_gathered(struct ag_conn *c)
{
    struct ag_conn_send *send = c->send;
    struct ag_conn_iov *iov;
    size_t n = 0, left = SEND_MAX;

    AG_ASSERT(!send->block);
    send->block = ag_loop_buf(c->stream.loop, AG_BUF_SMALL);
    if (!send->block) {
        return false;
    }
    iov = (struct ag_conn_iov *)(void *)send->block->data;
    for (const struct ag_slice_node *it = send->chain.head; it && left > 0; it = it->next) {
        size_t len = ag_min_size(it->slice.len, left);
        AG_ASSERT(n < AG_CONN_IOV);
        /* sendmsg only reads, yet iov_base is not const. */
        iov->iov[n++] = (struct iovec){(void *)(uintptr_t)it->slice.ptr, len};
        left -= len;
    }
    iov->msg = (struct msghdr){.msg_iov = iov->iov, .msg_iovlen = n};
    /* What follows at once fills the last packet up: a head and the first bytes of its file. */
    if (c->stream.out.count > 0 || SEND_MAX - left < send->chain.bytes) {
        iov->msg.msg_flags = MSG_MORE;
    }
    ag_loop_send(c->stream.loop, &c->fd, &send->wr, &iov->msg);
    return true;
}

static void start_send(struct ag_conn *c)
{
    struct ag_stream *s = &c->stream;
    struct ag_conn_send *send = c->send;

    if (!send) {
        send = c->send = ag_pool_get(&s->loop->sends);
        if (!send) { /* a fault's doing */
            break_off(c, AG_REASON_RESOURCES);
            return;
        }
        ag_op_init(&send->wr.op, on_wr);
        send->block = NULL;
        send->conn = c;
        take_output(c);
    }
    const struct ag_slice *first = &send->chain.head->slice;
    if (ag_slice_is_file(first)) {
        ag_loop_sendfile(s->loop, &c->fd, &send->wr, first->owner->fd,
                         ag_slice_is_pipe(first) ? AG_OFFSET_PIPE : first->offset, first->len);
        return;
    }
    if ((send->chain.count > 1 || s->out.count > 0) && send_gathered(c)) {
        return;
    }
    ag_loop_send_one(s->loop, &c->fd, &send->wr, first->ptr, ag_min_size(first->len, SEND_MAX));
}

/* The peer takes no more. It may have answered before it closed, and that answer may lie in our
 * socket yet: while the user reads, reading to the end comes first (nothing is sent any more, and the
 * reason is kept for then). */
static void send_failed(struct ag_conn *c, enum ag_reason why)
{
    struct ag_stream *s = &c->stream;

    if (c->state != AG_CONN_OPEN || why != AG_REASON_RESET || c->eof || !ag_op_in_flight(&c->rd) ||
        c->rd.cancelled) {
        break_off(c, why);
        return;
    }
    c->reason = (uint8_t)why;
    if (c->send) { /* none where it was tried without an op */
        end_send(c);
    }
    ag_chain_clear(&s->out, &s->loop->nodes);
    s->sending_bytes = 0;
}

/* Most output is one piece that the socket has room for, and needs no op. False: what is queued does. */
static bool sent_now(struct ag_conn *c)
{
    struct ag_stream *s = &c->stream;
    const struct ag_slice *first;
    int32_t res;

    if (s->sending_bytes > 0 || s->out.count > 1 || ag_slice_is_file(&s->out.head->slice)) {
        return false;
    }
    first = &s->out.head->slice;
    res = ag_loop_send_now(s->loop, &c->fd, first->ptr, ag_min_size(first->len, SEND_MAX));
    if (res <= 0) {
        if (res < 0) {
            send_failed(c, ag_reason_from_errno(res));
        }
        return res < 0;
    }
    s->sending_bytes = (uint64_t)res;
    ag_chain_consume(&s->out, &s->loop->nodes, (uint64_t)res);
    ag_stream_sent(s, (uint64_t)res);
    return ag_stream_queued(s) == 0;
}

static void conn_flush(struct ag_stream *s)
{
    struct ag_conn *c = ag_conn_of(s);

    if (c->state == AG_CONN_CLOSING) {
        maybe_close(c);
    } else if (c->state == AG_CONN_CONNECTING || ag_conn_is_sending(c)) {
        return; /* goes on when that completes */
    } else if (c->reason != AG_REASON_NONE) {
        ag_chain_clear(&s->out, &s->loop->nodes); /* broken: see send_failed */
    } else if (ag_stream_queued(s) > 0 && !sent_now(c)) {
        start_send(c);
    } else if (c->reason == AG_REASON_NONE && c->state != AG_CONN_LINGERING) {
        flushed(c);
    }
}

static void on_wr(struct ag_loop *l, struct ag_op *op, const struct ag_result *r)
{
    struct ag_conn_send *send = ag_container_of(op, struct ag_conn_send, wr.op);
    struct ag_conn *c = send->conn;
    struct ag_stream *s = &c->stream;

    if (r->res > 0 && ag_slice_is_pipe(&send->chain.head->slice)) {
        ag_pipe_sent(send->chain.head->slice.owner, (size_t)r->res);
    }
    if (c->state != AG_CONN_CLOSING) {
        if (r->res > 0 && (uint64_t)r->res == send->chain.bytes) {
            end_send(c);
        } else if (r->res > 0) {
            ag_block_release(send->block);
            send->block = NULL;
            ag_chain_consume(&send->chain, &l->nodes, (uint64_t)r->res);
        }
        if (r->res > 0) {
            if (ag_stream_queued(s) > (uint64_t)r->res || c->state != AG_CONN_OPEN || c->shut) {
                ag_task_queue(l, &s->flush_task); /* with what else this turn writes */
            }
            ag_stream_sent(s, (uint64_t)r->res);
        } else {
            /* 0: the file became shorter than what was promised; only a reset says so. */
            send_failed(c, r->res == 0 ? AG_REASON_OTHER : ag_reason_from_errno(r->res));
        }
    }
    maybe_close(c);
}

/* ---- receiving ---- */

static bool wants_input(const struct ag_conn *c)
{
    switch ((enum ag_conn_state)c->state) {
    case AG_CONN_OPEN:
        return c->reading && !c->eof;
    case AG_CONN_FLUSHING:
    case AG_CONN_LINGERING:
        return !c->eof && c->lingered_bytes < AG_CONN_LINGER_BYTES;
    case AG_CONN_CONNECTING:
    case AG_CONN_CLOSING:
    case AG_CONN_CLOSED:
        return false;
    }
    AG_UNREACHABLE("a state that is none");
}

/* Brings the receive op to what is wanted. A change goes through its final completion. */
static void update_read(struct ag_conn *c)
{
    struct ag_loop *l = c->stream.loop;
    bool want = wants_input(c);
    enum ag_buf_group group = l->tight ? AG_BUF_SMALL : (enum ag_buf_group)c->group;

    if (ag_op_in_flight(&c->rd)) {
        if (!want || c->rd.arg != group) {
            ag_loop_cancel(l, &c->rd);
        }
    } else if (want) {
        ag_loop_recv(l, &c->fd, &c->rd, group);
    }
}

static void discard(struct ag_conn *c, struct ag_slice slice)
{
    c->lingered_bytes += (uint32_t)slice.len;
    ag_slice_release(&slice);
    if (c->lingered_bytes < AG_CONN_LINGER_BYTES) {
        return;
    }
    if (c->state == AG_CONN_LINGERING) {
        begin_close(c, AG_REASON_NONE);
    } else {
        update_read(c);
    }
}

static void on_input_end(struct ag_conn *c, int32_t res)
{
    struct ag_stream *s = &c->stream;

    switch ((enum ag_conn_state)c->state) {
    case AG_CONN_OPEN:
        if (res == -ECANCELED) {
            update_read(c);
        } else if (c->reason != AG_REASON_NONE) { /* sending failed before: now all was read */
            begin_close(c, AG_REASON_NONE);
        } else if (res == 0) {
            c->eof = true;
            s->user->on_eof(s);
        } else {
            break_off(c, ag_reason_from_errno(res));
        }
        return;
    case AG_CONN_FLUSHING:
        if (res == -ECANCELED) {
            update_read(c);
        } else if (res == 0) {
            c->eof = true;
        } else {
            break_off(c, ag_reason_from_errno(res));
        }
        return;
    case AG_CONN_LINGERING:
        if (res == -ECANCELED) {
            update_read(c);
        } else { /* the peer has closed, in whatever way: the answer went out */
            begin_close(c, AG_REASON_NONE);
        }
        return;
    case AG_CONN_CONNECTING:
    case AG_CONN_CLOSING:
    case AG_CONN_CLOSED:
        return;
    }
    AG_UNREACHABLE("a state that is none");
}

static void on_rd(struct ag_loop *l, struct ag_op *op, const struct ag_result *r)
{
    struct ag_conn *c = ag_container_of(op, struct ag_conn, rd);
    struct ag_slice slice = r->slice;

    (void)l;
    if (r->res <= 0) {
        on_input_end(c, r->res);
        maybe_close(c);
    } else if (c->state == AG_CONN_OPEN) {
        c->fd.unseen = 0;
        c->stream.user->on_data(&c->stream, slice);
    } else if (c->state == AG_CONN_FLUSHING || c->state == AG_CONN_LINGERING) {
        discard(c, slice);
    } else {
        ag_slice_release(&slice);
    }
}

/* ---- the stream's operations ---- */

static void conn_pause(struct ag_stream *s)
{
    struct ag_conn *c = ag_conn_of(s);

    c->reading = false;
    if (c->state == AG_CONN_OPEN && c->reason != AG_REASON_NONE) {
        begin_close(c, AG_REASON_NONE); /* only reading kept it */
    } else if (c->state == AG_CONN_OPEN) {
        update_read(c);
    }
}

static void conn_resume(struct ag_stream *s, enum ag_buf_group group)
{
    struct ag_conn *c = ag_conn_of(s);

    c->reading = true;
    c->group = (uint8_t)group;
    if (c->state == AG_CONN_OPEN) {
        update_read(c);
    }
}

static void conn_unseen(struct ag_stream *s, uint64_t bytes)
{
    ag_conn_of(s)->fd.unseen = (uint8_t)ag_min_u64(bytes / AG_BULK_UNSEEN_BYTES, UINT8_MAX);
}

static void conn_shut(struct ag_stream *s)
{
    ag_conn_of(s)->shut = true;
    ag_task_queue(s->loop, &s->flush_task);
}

static void conn_finish(struct ag_stream *s)
{
    struct ag_conn *c = ag_conn_of(s);

    if (c->state != AG_CONN_OPEN || c->reason != AG_REASON_NONE) {
        begin_close(c, AG_REASON_NONE);
        return;
    }
    set_state(c, AG_CONN_FLUSHING);
    update_read(c);
    ag_stream_watch_flush(s);
    ag_task_queue(s->loop, &s->flush_task);
}

/* Output that will never be complete must not look complete: the peer gets a reset. */
static void conn_abort(struct ag_stream *s, enum ag_reason why)
{
    struct ag_conn *c = ag_conn_of(s);

    if (c->state >= AG_CONN_CLOSING) {
        return;
    }
    if (c->state != AG_CONN_CONNECTING &&
        (s->incomplete || ag_stream_queued(s) > 0 || ag_conn_is_sending(c) ||
         ag_loop_unsent(s->loop, &c->fd) > 0)) {
        ag_loop_reset_on_close(s->loop, &c->fd);
    }
    begin_close(c, why);
}

static void conn_peer(struct ag_stream *s, union ag_addr *out_addr)
{
    ag_conn_peer(ag_conn_of(s), out_addr);
}

static void conn_local(struct ag_stream *s, union ag_addr *out_addr)
{
    ag_conn_local(ag_conn_of(s), out_addr);
}

static uint32_t conn_progress(struct ag_stream *s, uint32_t *out_unsent)
{
    const struct ag_fd *f = &ag_conn_of(s)->fd;

    *out_unsent = ag_loop_unsent(s->loop, f);
    return ag_loop_progress(s->loop, f);
}

static bool conn_starved(struct ag_stream *s)
{
    const struct ag_op *rd = &ag_conn_of(s)->rd;

    return ag_op_in_flight(rd) && rd->state == AG_OP_STARVED;
}

static const struct ag_stream_ops conn_ops = {
    .flush = conn_flush,
    .pause = conn_pause,
    .resume = conn_resume,
    .unseen = conn_unseen,
    .shut = conn_shut,
    .finish = conn_finish,
    .abort = conn_abort,
    .peer = conn_peer,
    .local = conn_local,
    .progress = conn_progress,
    .starved = conn_starved,
};

/* ---- the beginning ---- */

static void init(struct ag_conn *c, struct ag_loop *l, const struct ag_stream_user *user, int fd)
{
    *c = (struct ag_conn){.reading = true};
    ag_stream_init(&c->stream, l, &conn_ops, user);
    ag_fd_init(&c->fd, fd);
    ag_op_init(&c->rd, on_rd);
}

void ag_conn_accept(struct ag_conn *c, struct ag_loop *l, int fd, const struct ag_stream_user *user)
{
    AG_ASSERT(fd >= 0);
    init(c, l, user, fd);
    c->fd.readable = true; /* clients speak first, and often have by now: worth a try */
    c->state = AG_CONN_OPEN;
    update_read(c);
}

static void on_connect(struct ag_loop *l, struct ag_op *op, const struct ag_result *r)
{
    struct ag_conn *c = ag_container_of(op, struct ag_conn, rd);
    void (*connected)(struct ag_conn *) = c->connected;

    c->rd.done = on_rd;
    c->send = NULL;
    if (c->state == AG_CONN_CONNECTING) {
        if (r->res < 0) {
            begin_close(c, ag_reason_from_errno(r->res));
        } else {
            set_state(c, AG_CONN_OPEN);
            ag_task_queue(l, &c->stream.flush_task); /* what was written meanwhile */
            connected(c);
            update_read(c);
        }
    }
    maybe_close(c);
}

// NOLINTNEXTLINE(readability-function-size): the interface is wider than the body is long
void ag_conn_connect(struct ag_conn *c, struct ag_loop *l, const union ag_addr *addr,
                     socklen_t addr_len, const struct ag_stream_user *user,
                     void (*connected)(struct ag_conn *), enum ag_buf_group group)
{
    int fd = ag_loop_socket(l, addr->sa.sa_family, SOCK_STREAM);

    init(c, l, user, fd < 0 ? -1 : fd);
    c->group = (uint8_t)group;
    c->state = AG_CONN_CONNECTING;
    if (fd < 0) {
        begin_close(c, ag_reason_from_errno(fd));
        return;
    }
    c->connected = connected;
    if (addr->sa.sa_family != AF_UNIX) {
        ag_loop_nodelay(l, &c->fd);
    }
    c->rd.done = on_connect;
    ag_loop_connect(l, &c->fd, &c->rd, addr, addr_len);
}

void ag_conn_peer(const struct ag_conn *c, union ag_addr *out_addr)
{
    ag_loop_peer(c->stream.loop, &c->fd, out_addr);
    ag_addr_unmap(out_addr);
}

void ag_conn_local(const struct ag_conn *c, union ag_addr *out_addr)
{
    ag_loop_local(c->stream.loop, &c->fd, out_addr);
    ag_addr_unmap(out_addr);
}
