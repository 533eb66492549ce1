#include "engine/bulk.h"

#include "engine/fault.h"
#include "engine/pipes.h"

#include <errno.h>

/* So many receives in a row that one block would have done for: then one it is again. */
#define BULK_RUN 8u

void ag_bulk_weigh(struct ag_op *op, size_t got)
{
    struct ag_fd *f = op->fd;

    if (op->arg != AG_BUF_LARGE) {
        return;
    }
    if (got >= AG_BUF_LARGE_BYTES) {
        f->bulk_run = BULK_RUN;
    } else if (f->bulk_run > 0) {
        f->bulk_run--;
    }
}

/* False: there is no pipe, or nothing came that way, which memory has to confirm: the system moves no byte of what
 * lies behind TCP's urgent mark into a pipe, and says that there is nothing (-EAGAIN) or that it is the end. */
static bool recv_unseen(struct ag_loop *l, struct ag_op *op, struct ag_bulk *out, int32_t *out_res)
{
    size_t most = (size_t)op->fd->unseen * AG_BULK_UNSEEN_BYTES;
    int32_t res = most ? ag_pipes_recv(l->pipes, op->fd->fd, most, &out->blocks[0]) : -ENOBUFS;

    if (res == -ENOBUFS || res == -EAGAIN || res == 0) {
        return false;
    }
    out->count = 1;
    out->size = res > 0 ? (size_t)res : 0;
    *out_res = res;
    return true;
}

int32_t ag_bulk_recv(struct ag_loop *l, struct ag_op *op, struct ag_bulk *out)
{
    struct iovec iov[AG_RECV_BLOCKS];
    ssize_t n;
    int32_t res;

    if (recv_unseen(l, op, out, &res)) {
        return res;
    }
    out->count = ag_bufs_for_bulk(l->bufs, out->blocks);
    out->size = 0;
    if (out->count == 0) {
        return 0;
    }
    for (uint32_t i = 0; i < out->count; i++) {
        iov[i] = (struct iovec){out->blocks[i]->data, out->blocks[i]->size};
        out->size += out->blocks[i]->size;
    }
    do {
        n = AG_SYS("recv", readv(op->fd->fd, iov, (int)out->count));
    } while (n < 0 && errno == EINTR);
    res = n < 0 ? -errno : (int32_t)n;
    if (res <= 0) {
        ag_bufs_give_back(out->blocks, out->count);
    }
    return res;
}

void ag_bulk_deliver(struct ag_loop *l, struct ag_op *op, const struct ag_bulk *b, size_t got)
{
    size_t each = b->blocks[0]->pipe ? got : AG_BUF_LARGE_BYTES;
    uint32_t used = (uint32_t)((got + each - 1) / each);

    AG_ASSERT(got > 0 && used <= b->count);
    ag_bufs_give_back(b->blocks + used, b->count - used);
    ag_bulk_weigh(op, got);
    for (uint32_t i = 0; i < used; i++) {
        size_t len = ag_min_size(got, each);

        got -= len;
        ag_loop_deliver_piece(l, op, b->blocks[i], len);
    }
    ag_loop_pass_on(l);
}
