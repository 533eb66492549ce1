#include "tools/channel.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

/* On the wire, before the text. */
struct head {
    uint32_t type, generation, count, text_len;
};

union control {
    struct cmsghdr head;
    uint8_t room[CMSG_SPACE(AG_CHANNEL_FDS * sizeof(int))];
};

enum ag_status ag_channel_pair(int out_ends[static 2])
{
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, out_ends) == 0
               ? AG_OK
               : AG_ESYS;
}

/* ---- sending ---- */

static enum ag_status status_of(int error)
{
    switch (error) {
    case EAGAIN:
    case ENOBUFS:
        return AG_AGAIN;
    case EPIPE:
    case ECONNRESET:
    case ENOTCONN:
        return AG_ENOENT;
    default:
        return AG_ESYS;
    }
}

enum ag_status ag_channel_send(int end, const struct ag_channel_msg *m)
{
    struct head head = {(uint32_t)m->type, m->generation, m->count, m->text_len};
    struct iovec parts[] = {{&head, sizeof(head)}, {(void *)(uintptr_t)m->text, m->text_len}};
    union control control = {0};
    struct msghdr msg = {.msg_iov = parts, .msg_iovlen = AG_COUNT(parts)};
    ssize_t n;

    AG_ASSERT(m->fd_count <= AG_CHANNEL_FDS && m->text_len <= AG_CHANNEL_TEXT);
    if (m->fd_count) {
        size_t bytes = m->fd_count * sizeof(int);

        msg.msg_control = &control;
        msg.msg_controllen = CMSG_SPACE(bytes);
        control.head.cmsg_level = SOL_SOCKET;
        control.head.cmsg_type = SCM_RIGHTS;
        control.head.cmsg_len = CMSG_LEN(bytes);
        memcpy(CMSG_DATA(&control.head), m->fds, bytes);
    }
    do {
        n = sendmsg(end, &msg, MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? status_of(errno) : AG_OK;
}

enum ag_status ag_channel_tell(int end, enum ag_channel_type type, uint32_t generation)
{
    struct ag_channel_msg m;

    m.type = type;
    m.generation = generation;
    m.count = m.fd_count = m.text_len = 0;
    return ag_channel_send(end, &m);
}

/* ---- receiving ---- */

static void close_all(struct ag_channel_msg *m)
{
    for (uint32_t i = 0; i < m->fd_count; i++) {
        (void)close(m->fds[i]);
    }
    m->fd_count = 0;
}

/* Descriptors that came along. */
static void collect(struct msghdr *msg, struct ag_channel_msg *out)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        size_t bytes = c->cmsg_len - CMSG_LEN(0);

        AG_ASSERT(bytes <= sizeof(out->fds) - out->fd_count * sizeof(int));
        memcpy(&out->fds[out->fd_count], CMSG_DATA(c), bytes);
        out->fd_count += (uint32_t)(bytes / sizeof(int));
    }
}

static bool is_message(const struct head *head, size_t len)
{
    return len >= sizeof(*head) && head->type >= AG_CHANNEL_BUNDLE &&
           head->type < AG_CHANNEL_TYPES && head->text_len == len - sizeof(*head);
}

enum ag_status ag_channel_receive(int end, bool take_fds, struct ag_channel_msg *out)
{
    struct head head = {0};
    struct iovec parts[] = {{&head, sizeof(head)}, {out->text, sizeof(out->text)}};
    union control control;
    struct msghdr msg = {.msg_iov = parts, .msg_iovlen = AG_COUNT(parts)};
    ssize_t n;

    if (take_fds) {
        msg.msg_control = &control;
        msg.msg_controllen = sizeof(control);
    }
    do {
        n = recvmsg(end, &msg, MSG_CMSG_CLOEXEC);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        return status_of(errno);
    }
    out->fd_count = 0;
    if (take_fds) {
        collect(&msg, out);
    }
    if (n == 0) {
        return AG_ENOENT;
    }
    if ((msg.msg_flags & MSG_TRUNC) || !is_message(&head, (size_t)n)) {
        close_all(out);
        return AG_EPROTO;
    }
    out->type = (enum ag_channel_type)head.type;
    out->generation = head.generation;
    out->count = head.count;
    out->text_len = head.text_len;
    if (take_fds && (msg.msg_flags & MSG_CTRUNC)) {
        close_all(out);
        return AG_ELIMIT;
    }
    return AG_OK;
}
