/* sockio: the system calls that a backend tries at once. */
#include "engine/backend.h"
#include "engine/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Entries of a caller's iovec that one call takes; the rest goes by the next. */
#define WINDOW 64u

size_t ag_sockio_send_len(const struct ag_write *w)
{
    size_t sum = 0;

    if (w->send.ptr) {
        return w->send.len;
    }
    for (size_t i = 0; i < w->send.msg->msg_iovlen; i++) {
        sum += w->send.msg->msg_iov[i].iov_len;
    }
    return sum;
}

/* The part of `msg` after its first `skip` bytes, at most WINDOW entries. The caller's iovec is const:
 * it may be asked to send it again. */
static size_t window(const struct msghdr *msg, size_t skip, struct iovec out[static WINDOW])
{
    size_t n = 0;

    for (size_t i = 0; i < msg->msg_iovlen && n < WINDOW; i++) {
        struct iovec v = msg->msg_iov[i];
        if (skip >= v.iov_len) {
            skip -= v.iov_len;
            continue;
        }
        v.iov_base = (uint8_t *)v.iov_base + skip;
        v.iov_len -= skip;
        skip = 0;
        out[n++] = v;
    }
    return n;
}

/* These two not by the library's functions: in a process of several threads each is a point of cancellation,
 * which costs more instructions than all else that they do. */

int32_t ag_sockio_recv(int fd, void *ptr, size_t len)
{
    ssize_t n;

    do {
        n = AG_SYS("recv", syscall(SYS_recvfrom, fd, ptr, len, 0, NULL, NULL));
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : (int32_t)n;
}

int32_t ag_sockio_send(int fd, const void *ptr, size_t len)
{
    ssize_t n;

    len = AG_FAULT("send.short") ? 1 : len;
    do {
        n = AG_SYS_ON(fd, "send",
                      syscall(SYS_sendto, fd, ptr, len, MSG_NOSIGNAL | MSG_DONTWAIT, NULL, 0));
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : (int32_t)n;
}

static ssize_t send_some(const struct ag_write *w, size_t done)
{
    struct iovec iov[WINDOW];
    int flags = MSG_NOSIGNAL | MSG_DONTWAIT;

    if (w->send.ptr) {
        size_t len = AG_FAULT("send.short") ? 1 : w->send.len - done;

        return AG_SYS_ON(w->op.fd->fd, "send", send(w->op.fd->fd, w->send.ptr + done, len, flags));
    }
    struct msghdr msg = {.msg_iov = iov};
    msg.msg_iovlen = window(w->send.msg, done, iov);
    if (AG_FAULT("sendmsg.short")) {
        msg.msg_iovlen = iov[0].iov_len = 1;
    }
    /* More of this op follows when the window does not reach its end: do not push yet. */
    flags |= w->send.msg->msg_flags & MSG_MORE;
    flags |= msg.msg_iovlen == WINDOW && w->send.msg->msg_iovlen > WINDOW ? MSG_MORE : 0;
    return AG_SYS_ON(w->op.fd->fd, "sendmsg", sendmsg(w->op.fd->fd, &msg, flags));
}

static int32_t write_send(struct ag_write *w)
{
    size_t total = ag_sockio_send_len(w);

    while ((size_t)w->op.res < total) {
        ssize_t n = send_some(w, (size_t)w->op.res);
        if (n > 0) {
            w->op.res += (int32_t)n;
            continue;
        }
        if (n == 0) { /* nothing taken and no error: not a stream socket */
            return -EPIPE;
        }
        if (errno != EINTR) {
            return errno == EWOULDBLOCK ? -EAGAIN : -errno;
        }
    }
    return w->op.res;
}

static ssize_t file_some(const struct ag_write *w)
{
    int fd = w->op.fd->fd;
    size_t len = w->file.len;
    off_t at = (off_t)w->file.offset;

    if (w->file.offset == AG_OFFSET_PIPE) {
        len = AG_FAULT("splice.out.short") ? 1 : len;
        return AG_SYS_ON(fd, "splice.out",
                         splice(w->file.fd, NULL, fd, NULL, len, SPLICE_F_NONBLOCK));
    }
    len = AG_FAULT("sendfile.short") ? 1 : len;
    return AG_SYS_ON(fd, "sendfile", sendfile(fd, w->file.fd, &at, len));
}

static int32_t write_file(const struct ag_write *w)
{
    ssize_t n;

    do {
        n = file_some(w);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : (int32_t)n;
}

int32_t ag_sockio_write(struct ag_op *op)
{
    AG_ASSERT(op->kind == AG_OP_SEND || op->kind == AG_OP_SENDFILE);
    return op->kind == AG_OP_SEND ? write_send(ag_write_of(op)) : write_file(ag_write_of(op));
}

int32_t ag_sockio_accept(int fd)
{
    int got = AG_SYS("accept", accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC));

    return got < 0 ? -errno : got;
}

bool ag_sockio_accept_again(int32_t res)
{
    switch (-res) {
    case ECONNABORTED:
    case EINTR:
    case EPERM: /* a firewall's word on this connection */
    case EPROTO:
    case ENOPROTOOPT:
    case ENETDOWN:
    case ENETUNREACH:
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case ENONET:
    case EOPNOTSUPP:
    case ETIMEDOUT:
        return true;
    default:
        return false;
    }
}
