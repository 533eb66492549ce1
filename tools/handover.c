#include "tools/handover.h"

#include "engine/resolver.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

/* Descriptors of one message; the kernel allows 253. */
#define FDS_MAX 200u

struct message {
    char text[AG_HANDOVER_TEXT + 1]; /* NUL-terminated */
    size_t len;
    int fds[FDS_MAX];
    uint32_t fd_count;
};

union control {
    struct cmsghdr align;
    char room[CMSG_SPACE(FDS_MAX * sizeof(int))];
};

enum ag_status ag_handover_pair(int out_ends[2])
{
    int ends[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
        return AG_ESYS;
    }
    out_ends[0] = ends[0];
    out_ends[1] = ends[1];
    return AG_OK;
}

/* ---- one message ---- */

static enum ag_status transmit(int channel, struct ag_span text, const int *fds, uint32_t count)
{
    union control control = {0};
    struct iovec iov = {.iov_base = (void *)(uintptr_t)text.ptr, .iov_len = text.len};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    ssize_t n;

    AG_ASSERT(text.len > 0 && text.len <= AG_HANDOVER_TEXT && count <= FDS_MAX);
    if (count > 0) {
        msg.msg_control = &control;
        msg.msg_controllen = CMSG_SPACE(count * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(count * sizeof(int));
        memcpy(CMSG_DATA(c), fds, count * sizeof(int));
    }
    do {
        n = sendmsg(channel, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        return errno == EAGAIN ? AG_AGAIN : AG_ESYS;
    }
    return AG_OK;
}

static void drop_fds(struct message *m)
{
    for (uint32_t i = 0; i < m->fd_count; i++) {
        (void)close(m->fds[i]);
    }
    m->fd_count = 0;
}

static void take_fds(struct msghdr *msg, struct message *m)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
            size_t bytes = c->cmsg_len - CMSG_LEN(0);

            AG_ASSERT(m->fd_count * sizeof(int) + bytes <= sizeof(m->fds));
            memcpy(&m->fds[m->fd_count], CMSG_DATA(c), bytes);
            m->fd_count += (uint32_t)(bytes / sizeof(int));
        }
    }
}

/* AG_AGAIN, AG_ENOENT (the other side is gone), AG_ESYS (errno tells), AG_EPROTO (cut short). */
static enum ag_status receive(int channel, struct message *m)
{
    union control control = {0};
    struct iovec iov = {.iov_base = m->text, .iov_len = AG_HANDOVER_TEXT};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = &control,
                         .msg_controllen = sizeof(control)};
    ssize_t n;

    m->fd_count = 0;
    /* The end of a side that has not read everything comes as ECONNRESET, once, before its last words. */
    do {
        n = recvmsg(channel, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    } while (n < 0 && (errno == EINTR || errno == ECONNRESET));
    if (n < 0) {
        return errno == EAGAIN ? AG_AGAIN : AG_ESYS;
    }
    take_fds(&msg, m);
    m->len = (size_t)n;
    m->text[n] = '\0';
    if (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) {
        drop_fds(m);
        return AG_EPROTO;
    }
    return n == 0 ? AG_ENOENT : AG_OK;
}

/* What follows `word` and a space, or NULL when the text is another. */
static const char *after(const char *text, const char *word)
{
    size_t len = strlen(word);

    return strncmp(text, word, len) == 0 && text[len] == ' ' ? text + len + 1 : NULL;
}

/* ---- sockets ---- */

/* Sockets that do not let others share their address are shared by duplicates. */
static bool is_shared(const struct ag_socket *k)
{
    socklen_t len = sizeof(int);
    int reuse = 0;

    return k->shared || k->fd_count == 0 ||
           getsockopt(k->fds[0], SOL_SOCKET, SO_REUSEPORT, &reuse, &len) != 0 || !reuse;
}

/* The next message of this address. */
static enum ag_status send_some(int channel, const struct ag_socket *k, uint32_t from,
                                uint32_t *out_count)
{
    char text[AG_HANDOVER_TEXT];
    struct ag_buf b = ag_buf(text, sizeof(text));
    uint32_t count = k->fd_count - from < FDS_MAX ? k->fd_count - from : FDS_MAX;

    ag_buf_printf(&b, "socket %s ", is_shared(k) ? "shared" : "each");
    ag_addr_format(&k->addr, true, &b);
    AG_ASSERT(!b.overflow);
    *out_count = count;
    return transmit(channel, ag_buf_span(&b), k->fds + from, count);
}

enum ag_status ag_handover_send(int channel, const struct ag_sockets *s,
                                struct ag_handover_cursor *cursor)
{
    enum ag_status st = AG_OK;
    char text[32];

    while (cursor->socket < s->count) {
        const struct ag_socket *k = &s->items[cursor->socket];
        uint32_t count = 0;

        st = send_some(channel, k, cursor->fd, &count);
        if (st != AG_OK) {
            return st;
        }
        cursor->fd += count;
        if (cursor->fd == k->fd_count) {
            cursor->socket++;
            cursor->fd = 0;
        }
    }
    if (!cursor->ended) {
        int len = snprintf(text, sizeof(text), "end %u", s->count);

        st = transmit(channel, ag_span(text, (size_t)len), NULL, 0);
        cursor->ended = st == AG_OK;
    }
    return st;
}

/* ---- receiving them ---- */

/* Messages of one address follow each other. */
struct incoming {
    struct ag_sockets *sockets;
    union ag_addr addr;
    bool shared, open; /* open: an address is being collected */
    uint32_t count, addresses;
    int fds[AG_SOCKET_FDS];
    struct message message;
};

/* "1.2.3.4:80", "[::1]:80", "unix:/path": what ag_addr_format writes. */
static enum ag_status parse_address(const char *text, union ag_addr *out_addr)
{
    struct ag_span s = ag_span_str(text), host = s;
    const char *colon = strrchr(text, ':');
    uint64_t port = 0;

    if (ag_span_starts(s, AG_SPAN("unix:"))) {
        return ag_addr_parse(s, 0, out_addr);
    }
    if (!colon || ag_span_u64(ag_span_str(colon + 1), &port) != AG_OK || port > UINT16_MAX) {
        return AG_EPROTO;
    }
    host.len = (size_t)(colon - text);
    if (host.len > 2 && host.ptr[0] == '[' && host.ptr[host.len - 1] == ']') {
        host = ag_span_sub(host, 1, host.len - 1);
    }
    return ag_addr_parse(host, (uint16_t)port, out_addr);
}

static void adopt_collected(struct incoming *in)
{
    if (in->open) {
        ag_sockets_adopt(in->sockets, &in->addr, in->fds, in->count, in->shared);
    }
    in->open = false;
    in->count = 0;
}

/* `rest`: "shared ADDRESS" or "each ADDRESS". Takes the message's descriptors when it is good. */
static bool take_socket(struct incoming *in, const char *rest)
{
    const char *shared = after(rest, "shared"), *each = after(rest, "each");
    struct message *m = &in->message;
    union ag_addr addr;

    if ((!shared && !each) || parse_address(shared ? shared : each, &addr) != AG_OK) {
        return false;
    }
    if (!in->open || !ag_addr_same(&addr, &in->addr)) {
        adopt_collected(in);
        if (in->addresses == AG_LISTEN_MAX || ag_sockets_find(in->sockets, &addr)) {
            return false;
        }
        in->addresses++;
        in->open = true;
        in->addr = addr;
        in->shared = shared != NULL;
    }
    if (m->fd_count > AG_SOCKET_FDS - in->count) {
        return false;
    }
    memcpy(in->fds + in->count, m->fds, m->fd_count * sizeof(int));
    in->count += m->fd_count;
    m->fd_count = 0;
    return true;
}

static enum ag_status next_message(int channel, int timeout_ms, struct message *m,
                                   struct ag_buf *why)
{
    enum ag_status st = receive(channel, m);

    if (st == AG_AGAIN) {
        struct pollfd p = {.fd = channel, .events = POLLIN};

        while (poll(&p, 1, timeout_ms) < 0 && errno == EINTR) {
        }
        st = receive(channel, m);
    }
    if (st == AG_ESYS) {
        ag_buf_printf(why, "the predecessor hands nothing over: %s", strerrordesc_np(errno));
    } else if (st != AG_OK) {
        ag_buf_printf(why, "the predecessor %s",
                      st == AG_AGAIN    ? "hands nothing over"
                      : st == AG_ENOENT ? "is gone"
                                        : "hands over more than this process may have open");
    }
    return st;
}

/* Until "end". */
static enum ag_status collect(struct incoming *in, int channel, int timeout_ms, struct ag_buf *why)
{
    struct message *m = &in->message;
    uint64_t want = 0;

    for (;;) {
        const char *rest;

        if (next_message(channel, timeout_ms, m, why) != AG_OK) {
            return AG_EPROTO;
        }
        rest = after(m->text, "socket");
        if (rest && take_socket(in, rest)) {
            continue;
        }
        rest = after(m->text, "end");
        drop_fds(m);
        if (rest && ag_span_u64(ag_span_str(rest), &want) == AG_OK && want == in->addresses) {
            adopt_collected(in);
            return AG_OK;
        }
        ag_buf_printf(why, "the predecessor says what this release does not understand: %.60s",
                      m->text);
        return AG_EPROTO;
    }
}

enum ag_status ag_handover_receive(int channel, int timeout_ms, struct ag_sockets *s,
                                   struct ag_buf *why)
{
    struct incoming *in = calloc(1, sizeof(*in));
    enum ag_status st;

    AG_ASSERT(in && s->count == 0);
    in->sockets = s;
    st = collect(in, channel, timeout_ms, why);
    if (st != AG_OK) {
        adopt_collected(in);
        ag_sockets_cancel(s);
    }
    free(in);
    return st;
}

/* ---- words ---- */

enum ag_status ag_handover_say_ready(int channel, const char *pid_file)
{
    char text[AG_HANDOVER_TEXT];
    int len = snprintf(text, sizeof(text), "ready %d %s", (int)getpid(), pid_file ? pid_file : "");

    if (len < 0 || (size_t)len >= sizeof(text)) {
        return AG_ESYS;
    }
    return transmit(channel, ag_span(text, (size_t)len), NULL, 0);
}

/* Those that are all of their message. */
static const char *const plain[] = {
    [AG_HANDOVER_YOURS] = "yours", [AG_HANDOVER_TAKEN] = "taken", [AG_HANDOVER_NEVER] = "never"};

enum ag_status ag_handover_say(int channel, enum ag_handover_word word)
{
    AG_ASSERT(word != AG_HANDOVER_READY);
    return transmit(channel, ag_span_str(plain[word]), NULL, 0);
}

/* "4711 /run/x.pid", the path being what is left. */
static enum ag_status parse_ready(const char *rest, struct ag_handover_ready *out)
{
    size_t digits = strcspn(rest, " ");
    uint64_t pid = 0;

    if (rest[digits] != ' ' || ag_span_u64(ag_span(rest, digits), &pid) != AG_OK || pid == 0 ||
        pid > INT_MAX) {
        return AG_EPROTO;
    }
    out->pid = (pid_t)pid;
    (void)snprintf(out->pid_file, sizeof(out->pid_file), "%s", rest + digits + 1);
    return AG_OK;
}

enum ag_status ag_handover_hear(int channel, enum ag_handover_word *out_word,
                                struct ag_handover_ready *out_ready)
{
    struct message m = {0};
    enum ag_status st = receive(channel, &m);
    const char *rest;

    if (st != AG_OK) {
        return st == AG_ESYS ? AG_ENOENT : st;
    }
    drop_fds(&m);
    rest = after(m.text, "ready");
    if (rest) {
        *out_word = AG_HANDOVER_READY;
        return parse_ready(rest, out_ready);
    }
    for (unsigned i = AG_HANDOVER_YOURS; i < AG_COUNT(plain); i++) {
        if (strcmp(m.text, plain[i]) == 0) {
            *out_word = (enum ag_handover_word)i;
            return AG_OK;
        }
    }
    return AG_EPROTO;
}
