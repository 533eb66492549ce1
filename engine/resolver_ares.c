/* Asks name servers: c-ares on the loop's own sockets and timers. */
#include "engine/fault.h"
#include "engine/resolver_impl.h"

#include <ares.h>
#include <arpa/nameser.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <unistd.h>

static void on_readable(struct ag_loop *l, struct ag_op *op, const struct ag_result *r);
static void on_writable(struct ag_loop *l, struct ag_op *op, const struct ag_result *r);

/* ---- c-ares's sockets ---- */

static struct ag_resolver_sock *sock_of(struct ag_resolver *v, int fd)
{
    for (size_t i = 0; i < AG_RESOLVER_SOCKS; i++) {
        if (v->socks[i].used && !v->socks[i].closing && v->socks[i].fd.fd == fd) {
            return &v->socks[i];
        }
    }
    return NULL;
}

/* Makes what is in flight agree with what is wanted. */
static void sock_update(struct ag_resolver *v, struct ag_resolver_sock *s)
{
    if (!s->used) {
        return;
    }
    if (!s->want_rd) {
        ag_loop_cancel(v->loop, &s->rd);
    } else if (!ag_op_in_flight(&s->rd)) {
        ag_loop_poll(v->loop, &s->fd, &s->rd, POLLIN);
    }
    if (!s->want_wr) {
        ag_loop_cancel(v->loop, &s->wr);
    } else if (!ag_op_in_flight(&s->wr)) {
        ag_loop_poll(v->loop, &s->fd, &s->wr, POLLOUT);
    }
    if (s->closing && !ag_op_in_flight(&s->rd) && !ag_op_in_flight(&s->wr)) {
        ag_loop_close(v->loop, &s->fd);
        s->used = false;
    }
}

static ares_socket_t open_socket(int family, int type, int protocol, void *data)
{
    struct ag_resolver *v = data;

    (void)protocol;
    for (size_t i = 0; i < AG_RESOLVER_SOCKS; i++) {
        struct ag_resolver_sock *s = &v->socks[i];

        if (!s->used) {
            int fd = ag_loop_socket(v->loop, family, type);

            if (fd < 0) {
                errno = -fd;
                return -1;
            }
            *s = (struct ag_resolver_sock){.used = true};
            ag_fd_init(&s->fd, fd);
            ag_op_init(&s->rd, on_readable);
            ag_op_init(&s->wr, on_writable);
            return fd;
        }
    }
    errno = EMFILE;
    return -1;
}

static int close_socket(ares_socket_t fd, void *data)
{
    struct ag_resolver *v = data;
    struct ag_resolver_sock *s = sock_of(v, fd);

    AG_ASSERT(s);
    s->closing = true;
    s->want_rd = s->want_wr = false;
    sock_update(v, s);
    return 0;
}

static int connect_socket(ares_socket_t fd, const struct sockaddr *addr, ares_socklen_t len,
                          void *data)
{
    (void)data;
    return AG_SYS("dns.connect", connect(fd, addr, len));
}

/* NOLINTNEXTLINE(readability-function-size): c-ares's signature */
static ares_ssize_t receive(ares_socket_t fd, void *buf, size_t len, int flags,
                            struct sockaddr *from, ares_socklen_t *from_len, void *data)
{
    (void)data;
    return AG_SYS("dns.recvfrom", recvfrom(fd, buf, len, flags, from, from_len));
}

static ares_ssize_t send_parts(ares_socket_t fd, const struct iovec *iov, int count, void *data)
{
    struct iovec parts[4];
    struct msghdr msg = {.msg_iov = parts, .msg_iovlen = (size_t)count};

    (void)data;
    AG_ASSERT(count >= 0 && (size_t)count <= AG_COUNT(parts)); /* c-ares uses one */
    memcpy(parts, iov, (size_t)count * sizeof(*iov));
    return AG_SYS("dns.sendmsg", sendmsg(fd, &msg, MSG_NOSIGNAL));
}

static const struct ares_socket_functions socket_functions = {
    .asocket = open_socket,
    .aclose = close_socket,
    .aconnect = connect_socket,
    .arecvfrom = receive,
    .asendv = send_parts,
};

/* c-ares tells what it waits for; nothing at all before it closes. */
static void on_state(void *data, ares_socket_t fd, int readable, int writable)
{
    struct ag_resolver *v = data;
    struct ag_resolver_sock *s = sock_of(v, fd);

    if (s) {
        s->want_rd = readable != 0;
        s->want_wr = writable != 0;
        sock_update(v, s);
    }
}

/* ---- c-ares's clock ---- */

static void rearm(struct ag_resolver *v)
{
    struct timeval tv, *next = ares_timeout(v->channel, NULL, &tv);

    if (!next) {
        ag_timer_cancel(&v->loop->wheel, &v->timer);
        return;
    }
    ag_loop_arm(v->loop, &v->timer,
                (uint64_t)next->tv_sec * 1000 + (uint64_t)next->tv_usec / 1000 + 1);
}

static void process(struct ag_resolver *v, ares_socket_t readable, ares_socket_t writable)
{
    ares_process_fd(v->channel, readable, writable);
    rearm(v);
}

static void on_timer(struct ag_timer *t)
{
    process(ag_container_of(t, struct ag_resolver, timer), ARES_SOCKET_BAD, ARES_SOCKET_BAD);
}

/* A poll that failed is passed on too: the call that c-ares then makes shows it the error. */
static void on_readable(struct ag_loop *l, struct ag_op *op, const struct ag_result *r)
{
    struct ag_resolver_sock *s = ag_container_of(op, struct ag_resolver_sock, rd);

    if (!s->closing && r->res != -ECANCELED) {
        process(l->resolver, s->fd.fd, ARES_SOCKET_BAD);
    }
    sock_update(l->resolver, s);
}

static void on_writable(struct ag_loop *l, struct ag_op *op, const struct ag_result *r)
{
    struct ag_resolver_sock *s = ag_container_of(op, struct ag_resolver_sock, wr);

    if (!s->closing && r->res != -ECANCELED) {
        process(l->resolver, ARES_SOCKET_BAD, s->fd.fd);
    }
    sock_update(l->resolver, s);
}

/* ---- answers ---- */

static enum ag_status status_of(int status)
{
    switch (status) {
    case ARES_ENODATA:
    case ARES_ENOTFOUND:
    case ARES_EBADNAME:
    case ARES_ENONAME:
        return AG_ENOENT;
    default: /* servers that fail, refuse or say nothing: later may be better */
        return AG_AGAIN;
    }
}

/* Another channel will ask (open_channel), or nobody any more (close_channel). */
static bool is_given_up(int status)
{
    return status == ARES_EDESTRUCTION;
}

static uint64_t ttl_of(const struct ares_addrinfo_node *n)
{
    return n->ai_ttl > 0 ? (uint64_t)n->ai_ttl * 1000 : 0;
}

/* The shortest time to live counts for all of them. */
static void on_hosts(void *arg, int status, int timeouts, struct ares_addrinfo *info)
{
    struct ag_resolver_entry *e = arg;
    struct ag_resolver_gather *g = ag_resolver_gather_begin(e->owner);
    uint64_t ttl_ms = UINT64_MAX;

    (void)timeouts;
    AG_ASSERT(e->pending);
    for (const struct ares_addrinfo_node *n = info ? info->nodes : NULL; n; n = n->ai_next) {
        union ag_addr a = {0};

        memcpy(&a, n->ai_addr, ag_min_size(n->ai_addrlen, sizeof(a)));
        ag_resolver_gather_add(g, &a);
        ttl_ms = ag_min_u64(ttl_ms, ttl_of(n));
    }
    if (info) {
        ares_freeaddrinfo(info);
    }
    if (is_given_up(status)) {
        return;
    }
    if (status == ARES_SUCCESS && g->count[0] + g->count[1] == 0) {
        status = ARES_ENODATA;
    }
    if (status == ARES_SUCCESS) {
        ag_resolver_settle_hosts(e, g, ttl_ms);
    } else {
        ag_resolver_settle_failed(e, status_of(status), ares_strerror(status));
    }
}

/* NOLINTNEXTLINE(readability-non-const-parameter): c-ares's signature */
static void on_srv(void *arg, int status, int timeouts, unsigned char *message, int len)
{
    struct ag_resolver_entry *e = arg;
    struct ag_resolver_srv *s = ag_container_of(e, struct ag_resolver_srv, entry);
    enum ag_status st;

    (void)timeouts;
    AG_ASSERT(e->pending);
    if (is_given_up(status)) {
        return;
    }
    if (status != ARES_SUCCESS) {
        ag_resolver_settle_failed(e, status_of(status), ares_strerror(status));
        return;
    }
    st = ag_dns_srv_parse(ag_span(message, (size_t)len), &s->answer);
    if (st == AG_OK) {
        ag_resolver_settle_srv(s);
    } else if (st == AG_ENOENT) {
        ag_resolver_settle_failed(e, AG_ENOENT, "no server is named there");
    } else {
        ag_resolver_settle_failed(e, AG_AGAIN, "the answer is malformed");
    }
}

/* ---- channels ---- */

void ag_resolver_ask(struct ag_resolver_entry *e)
{
    static const struct ares_addrinfo_hints hints = {.ai_family = AF_UNSPEC,
                                                     .ai_socktype = SOCK_STREAM};
    struct ag_resolver *v = e->owner;

    if (e->kind == AG_LOOKUP_SRV) {
        ares_query(v->channel, e->name, ns_c_in, ns_t_srv, on_srv, e);
    } else {
        ares_getaddrinfo(v->channel, e->name, NULL, &hints, on_hosts, e);
    }
    rearm(v);
}

static void library_init(void)
{
    AG_ASSERT(ares_library_init(ARES_LIB_INIT_ALL) == ARES_SUCCESS);
}

static enum ag_status status_of_init(int status)
{
    return status == ARES_ENOMEM ? AG_ENOMEM : AG_ESYS;
}

/* Without servers of its own what resolv.conf says of domains to search holds, too. */
static enum ag_status make_channel(struct ag_resolver *v,
                                   const struct ag_resolver_settings *settings, ares_channel *out)
{
    static char lookups[] = "fb"; /* files (/etc/hosts), then the name servers */
    struct ares_options options = {.timeout = (int)settings->timeout_ms,
                                   .tries = (int)settings->attempts,
                                   .lookups = lookups,
                                   .sock_state_cb = on_state,
                                   .sock_state_cb_data = v};
    int mask = ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_LOOKUPS | ARES_OPT_SOCK_STATE_CB;
    int status =
        ares_init_options(out, &options, settings->servers[0] ? mask | ARES_OPT_DOMAINS : mask);

    if (status != ARES_SUCCESS) {
        return status_of_init(status);
    }
    ares_set_socket_functions(*out, &socket_functions, v);
    if (settings->servers[0]) {
        status = ares_set_servers_ports_csv(*out, settings->servers);
        if (status != ARES_SUCCESS) {
            ares_destroy(*out);
            return status == ARES_ENOMEM ? AG_ENOMEM : AG_EINVAL;
        }
    }
    return AG_OK;
}

static void ask_again(struct ag_resolver *v)
{
    struct ag_resolver_entry *e;

    for (size_t i = 0; (e = ag_resolver_entry_at(v, i)) != NULL; i++) {
        if (e->used && e->pending) {
            ag_resolver_ask(e);
        }
    }
}

/* c-ares has the numbers of its questions from there, and where it is not to be had (a chroot) from rand(), which
 * anybody could foretell. */
static bool has_chance(void)
{
    int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);

    if (fd >= 0) {
        (void)close(fd);
    }
    return fd >= 0;
}

enum ag_status ag_resolver_open_channel(struct ag_resolver *v,
                                        const struct ag_resolver_settings *settings)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    ares_channel old = v->channel, fresh;
    enum ag_status st;

    (void)pthread_once(&once, library_init);
    if (old && !has_chance()) {
        return AG_ESYS;
    }
    st = make_channel(v, settings, &fresh);
    if (st != AG_OK) {
        return st;
    }
    v->channel = fresh;
    if (!old) {
        ag_timer_init(&v->timer, on_timer);
    } else {
        ares_destroy(old);
        rearm(v);
        ask_again(v);
    }
    return AG_OK;
}

static bool any_socket(const struct ag_resolver *v)
{
    for (size_t i = 0; i < AG_RESOLVER_SOCKS; i++) {
        if (v->socks[i].used) {
            return true;
        }
    }
    return false;
}

void ag_resolver_close_channel(struct ag_resolver *v)
{
    ares_destroy(v->channel);
    v->channel = NULL;
    ag_timer_cancel(&v->loop->wheel, &v->timer);
    while (any_socket(v)) {
        ag_loop_turn(v->loop, UINT32_MAX); /* the polls' cancellation */
    }
}
