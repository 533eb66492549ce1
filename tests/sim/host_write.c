/* host_write: what ops that write do: sends, files, the end of a connect. */
#include "tests/sim/host_parts.h"

#include <errno.h>
#include <unistd.h>

/* Bytes that a sendfile reads at once. */
#define FILE_PIECE 16384u

/* The next piece of a send, from its `skip`th byte. */
static struct ag_span next_piece(const struct ag_write *w, size_t skip)
{
    const struct msghdr *m = w->send.msg;

    if (w->send.ptr) {
        return ag_span(w->send.ptr + skip, w->send.len - skip);
    }
    for (size_t i = 0; i < m->msg_iovlen; i++) {
        if (skip < m->msg_iov[i].iov_len) {
            return ag_span((const uint8_t *)m->msg_iov[i].iov_base + skip,
                           m->msg_iov[i].iov_len - skip);
        }
        skip -= m->msg_iov[i].iov_len;
    }
    return AG_SPAN("");
}

/* The final result, or -EAGAIN with progress in op->res. */
static int32_t try_send(struct host_sock *s, struct ag_op *op)
{
    struct host *h = s->loop->host;

    for (;;) {
        struct ag_span piece = next_piece(ag_write_of(op), (size_t)op->res);
        int64_t n;

        if (piece.len == 0) {
            return op->res;
        }
        if (fails(h, h->faults.send)) {
            s->end->conn->faulted = true;
            return -ENOBUFS;
        }
        n = net_write(s->end, piece.ptr, piece.len);
        if (n < 0) {
            return (int32_t)n;
        }
        op->res += (int32_t)n;
    }
}

static int32_t try_sendfile(struct host_sock *s, struct ag_op *op)
{
    const struct ag_write *w = ag_write_of(op);
    uint8_t piece[FILE_PIECE];
    int32_t total = 0;

    if (w->file.offset == AG_OFFSET_PIPE) {
        return host_pipe_send(s, w);
    }
    if (!net_has_room(s->end)) {
        return -EAGAIN;
    }
    while ((uint32_t)total < w->file.len) {
        size_t want = ag_min_size(w->file.len - (uint32_t)total, sizeof(piece));
        ssize_t got = pread(w->file.fd, piece, want, (off_t)(w->file.offset + (uint32_t)total));
        int64_t n;

        if (got <= 0) {
            return got < 0 ? -errno : total;
        }
        n = net_write(s->end, piece, (size_t)got);
        if (n <= 0) {
            return total ? total : (int32_t)n;
        }
        total += (int32_t)n;
        if (n < got || sim_chance(s->loop->host->sim, 100)) {
            break;
        }
    }
    return total;
}

int32_t host_try_write(struct host_sock *s, struct ag_op *op)
{
    if (op->kind == AG_OP_CONNECT) {
        const struct net_conn *c = s->end->conn;

        return c->state == NET_OPEN ? 0 : c->state == NET_FAILED ? s->end->error : -EAGAIN;
    }
    return op->kind == AG_OP_SEND ? try_send(s, op) : try_sendfile(s, op);
}
