#include "engine/resolver.h"

#include "engine/backend.h"
#include "engine/fault.h"

#include <ares.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <unistd.h>

#define NAME_MAX_BYTES 253u /* RFC 1035 section 3.1, as text */
#define ENTRIES_MAX    256u /* names remembered or being asked for */
#define SOCKS_MAX      32u

#define TTL_MIN_MS  1000u
#define TTL_MAX_MS  3600000u
#define TTL_FAIL_MS 1000u

/* A lost packet is asked again after this long, so many times for each server. */
#define TIMEOUT_MS 2000
#define TRIES      3

/* A socket of c-ares. It stays open until the loop's polls on it have ended, though c-ares has let go. */
struct sock {
    struct ag_fd fd;
    struct ag_op rd, wr;   /* polls, resubmitted while wanted */
    bool want_rd, want_wr; /* c-ares waits for it */
    bool used, closing;
};

struct host {
    sa_family_t family;
    union {
        struct in_addr in;
        struct in6_addr in6;
    };
};

/* A name and its answer, or the lookup that will bring it. */
struct entry {
    struct ag_resolver *owner;
    struct ag_link waiters; /* struct ag_resolve, while pending */
    uint64_t expires_ms;
    uint64_t used_at; /* of `uses`: the longest unused goes first */
    const char *error;
    enum ag_status status;
    uint32_t count;
    bool used, pending;
    uint8_t name_len;
    char name[NAME_MAX_BYTES + 1]; /* lower case */
    struct host hosts[AG_RESOLVE_MAX];
};

struct ag_resolver {
    struct ag_loop *loop;
    ares_channel channel;  /* NULL: somebody else looks names up (struct ag_system) */
    struct ag_timer timer; /* c-ares's next time-out */
    uint64_t uses;
    struct sock socks[SOCKS_MAX];
    struct entry entries[ENTRIES_MAX];
};

static void on_readable(struct ag_loop *l, struct ag_op *op, const struct ag_result *r);
static void on_writable(struct ag_loop *l, struct ag_op *op, const struct ag_result *r);

/* ---- c-ares's sockets ---- */

static struct sock *sock_of(struct ag_resolver *v, int fd)
{
    for (size_t i = 0; i < SOCKS_MAX; i++) {
        if (v->socks[i].used && !v->socks[i].closing && v->socks[i].fd.fd == fd) {
            return &v->socks[i];
        }
    }
    return NULL;
}

/* Makes what is in flight agree with what is wanted. */
static void sock_update(struct ag_resolver *v, struct sock *s)
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
    for (size_t i = 0; i < SOCKS_MAX; i++) {
        struct sock *s = &v->socks[i];

        if (!s->used) {
            int fd = ag_loop_socket(v->loop, family, type);

            if (fd < 0) {
                errno = -fd;
                return -1;
            }
            *s = (struct sock){.used = true};
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
    struct sock *s = sock_of(v, fd);

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
    struct sock *s = sock_of(v, fd);

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
    struct sock *s = ag_container_of(op, struct sock, rd);

    if (!s->closing && r->res != -ECANCELED) {
        process(l->resolver, s->fd.fd, ARES_SOCKET_BAD);
    }
    sock_update(l->resolver, s);
}

static void on_writable(struct ag_loop *l, struct ag_op *op, const struct ag_result *r)
{
    struct sock *s = ag_container_of(op, struct sock, wr);

    if (!s->closing && r->res != -ECANCELED) {
        process(l->resolver, ARES_SOCKET_BAD, s->fd.fd);
    }
    sock_update(l->resolver, s);
}

/* ---- answers ---- */

static void set_host(union ag_addr *out, const struct host *h, in_port_t port)
{
    *out = (union ag_addr){0};
    if (h->family == AF_INET) {
        out->in.sin_family = AF_INET;
        out->in.sin_port = port;
        out->in.sin_addr = h->in;
    } else {
        out->in6.sin6_family = AF_INET6;
        out->in6.sin6_port = port;
        out->in6.sin6_addr = h->in6;
    }
}

/* Gives the answer of `e` to `r`, whose first address holds the port meanwhile. */
static void answer(struct ag_resolve *r, const struct entry *e)
{
    in_port_t port = r->addr[0].in.sin_port;

    r->status = e->status;
    r->error = e->error;
    r->count = e->count;
    r->expires_ms = e->expires_ms;
    for (uint32_t i = 0; i < e->count; i++) {
        set_host(&r->addr[i], &e->hosts[i], port);
    }
    ag_task_queue(r->loop, &r->task);
}

static void answer_all(struct entry *e, uint64_t ttl_ms)
{
    e->pending = false;
    e->expires_ms = e->owner->loop->now_ms + ttl_ms;
    for (struct ag_link *l = ag_list_pop(&e->waiters); l; l = ag_list_pop(&e->waiters)) {
        answer(ag_container_of(l, struct ag_resolve, link), e);
    }
}

static bool host_of(const union ag_addr *a, struct host *out)
{
    memset(out, 0, sizeof(*out)); /* all of the union is compared */
    out->family = a->sa.sa_family;
    if (a->sa.sa_family == AF_INET) {
        out->in = a->in.sin_addr;
        return true;
    }
    if (a->sa.sa_family == AF_INET6) {
        out->in6 = a->in6.sin6_addr;
        return true;
    }
    return false;
}

static void add_host(struct entry *e, const struct host *h)
{
    for (uint32_t i = 0; i < e->count; i++) {
        if (e->hosts[i].family == h->family &&
            memcmp(&e->hosts[i].in6, &h->in6, sizeof(h->in6)) == 0) {
            return;
        }
    }
    if (e->count < AG_RESOLVE_MAX) {
        e->hosts[e->count++] = *h;
    }
}

/* Each address once; the shortest time to live. */
static uint64_t take_hosts(struct entry *e, const struct ares_addrinfo_node *n)
{
    uint64_t ttl_ms = TTL_MAX_MS;

    for (; n && e->count < AG_RESOLVE_MAX; n = n->ai_next) {
        uint64_t this_ms = n->ai_ttl > 0 ? (uint64_t)n->ai_ttl * 1000 : 0;
        union ag_addr a = {0};
        struct host h;

        memcpy(&a, n->ai_addr, ag_min_size(n->ai_addrlen, sizeof(a)));
        if (host_of(&a, &h)) {
            add_host(e, &h);
            ttl_ms = ag_min_u64(ttl_ms, this_ms);
        }
    }
    return ttl_ms > TTL_MIN_MS ? ttl_ms : TTL_MIN_MS;
}

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

static void on_answer(void *arg, int status, int timeouts, struct ares_addrinfo *info)
{
    struct entry *e = arg;
    uint64_t ttl_ms = TTL_FAIL_MS;

    (void)timeouts;
    AG_ASSERT(e->pending);
    e->count = 0;
    if (status == ARES_SUCCESS) {
        ttl_ms = take_hosts(e, info->nodes);
        status = e->count ? ARES_SUCCESS : ARES_ENODATA;
    }
    if (info) {
        ares_freeaddrinfo(info);
    }
    e->status = status == ARES_SUCCESS ? AG_OK : status_of(status);
    e->error = status == ARES_SUCCESS ? NULL : ares_strerror(status);
    answer_all(e, ttl_ms);
}

/* ---- entries ---- */

static struct entry *entry_find(struct ag_resolver *v, const char *name, size_t len)
{
    for (size_t i = 0; i < ENTRIES_MAX; i++) {
        struct entry *e = &v->entries[i];

        if (e->used && e->name_len == len && memcmp(e->name, name, len) == 0) {
            return e;
        }
    }
    return NULL;
}

/* A free entry, or the one that was not asked for the longest. NULL: all are being looked up. */
static struct entry *entry_take(struct ag_resolver *v, const char *name, size_t len)
{
    struct entry *best = NULL;

    for (size_t i = 0; i < ENTRIES_MAX; i++) {
        struct entry *e = &v->entries[i];

        if (!e->used) {
            best = e;
            break;
        }
        if (!e->pending && (!best || e->used_at < best->used_at)) {
            best = e;
        }
    }
    if (best) {
        best->owner = v;
        best->used = true;
        best->pending = false;
        best->expires_ms = 0;
        best->name_len = (uint8_t)len;
        memcpy(best->name, name, len);
        best->name[len] = '\0';
        ag_list_init(&best->waiters);
    }
    return best;
}

/* Letters, digits, '-', '_' and '.', in lower case. False: no host name. */
static bool normalise(struct ag_span host, char out[static NAME_MAX_BYTES + 1])
{
    if (host.len == 0 || host.len > NAME_MAX_BYTES) {
        return false;
    }
    for (size_t i = 0; i < host.len; i++) {
        uint8_t ch = ag_ascii_lower(host.ptr[i]);

        if (!(ch >= 'a' && ch <= 'z') && !(ch >= '0' && ch <= '9') && ch != '-' && ch != '_' &&
            ch != '.') {
            return false;
        }
        out[i] = (char)ch;
    }
    return true;
}

/* ---- public ---- */

static enum ag_status open_channel(struct ag_resolver *v)
{
    static char lookups[] = "fb"; /* files (/etc/hosts), then the name servers */
    struct ares_options options = {.timeout = TIMEOUT_MS,
                                   .tries = TRIES,
                                   .lookups = lookups,
                                   .sock_state_cb = on_state,
                                   .sock_state_cb_data = v};
    int status = ares_init_options(&v->channel, &options,
                                   ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_LOOKUPS |
                                       ARES_OPT_SOCK_STATE_CB);

    if (status != ARES_SUCCESS) {
        return status == ARES_ENOMEM ? AG_ENOMEM : AG_ESYS;
    }
    ares_set_socket_functions(v->channel, &socket_functions, v);
    return AG_OK;
}

static void library_init(void)
{
    AG_ASSERT(ares_library_init(ARES_LIB_INIT_ALL) == ARES_SUCCESS);
}

enum ag_status ag_resolver_init(struct ag_loop *l)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    AG_ASSERT(!l->resolver);
    (void)pthread_once(&once, library_init);
    struct ag_resolver *v = AG_SYS_NULL("calloc.resolver", calloc(1, sizeof(*v)));
    if (!v) {
        return AG_ENOMEM;
    }
    v->loop = l;
    ag_timer_init(&v->timer, on_timer);
    enum ag_status st = l->backend->system->look_up ? AG_OK : open_channel(v);
    if (st != AG_OK) {
        free(v);
        return st;
    }
    l->resolver = v;
    return AG_OK;
}

static bool any_socket(const struct ag_resolver *v)
{
    for (size_t i = 0; i < SOCKS_MAX; i++) {
        if (v->socks[i].used) {
            return true;
        }
    }
    return false;
}

void ag_resolver_deinit(struct ag_loop *l)
{
    struct ag_resolver *v = l->resolver;

    if (!v) {
        return;
    }
    for (size_t i = 0; i < ENTRIES_MAX; i++) {
        AG_ASSERT(!v->entries[i].pending || ag_list_empty(&v->entries[i].waiters));
    }
    if (v->channel) {
        ares_destroy(v->channel);
    }
    ag_timer_cancel(&l->wheel, &v->timer);
    while (any_socket(v)) {
        ag_loop_turn(l, UINT32_MAX); /* the polls' cancellation */
    }
    l->resolver = NULL;
    free(v);
}

enum ag_status ag_resolver_set_servers(struct ag_loop *l, const char *servers)
{
    return ares_set_servers_ports_csv(l->resolver->channel, servers) == ARES_SUCCESS ? AG_OK
                                                                                     : AG_EINVAL;
}

static void on_task(struct ag_task *t)
{
    struct ag_resolve *r = ag_container_of(t, struct ag_resolve, task);

    r->done(r);
}

/* An outcome that is known without asking. */
static void settle(struct ag_resolve *r, enum ag_status status, const char *error)
{
    r->status = status;
    r->error = error;
    r->count = status == AG_OK ? 1 : 0;
    r->expires_ms = status == AG_OK ? UINT64_MAX : r->loop->now_ms + TTL_FAIL_MS;
    ag_task_queue(r->loop, &r->task);
}

static void look_up(struct ag_resolver *v, struct entry *e, struct ag_resolve *r)
{
    static const struct ares_addrinfo_hints hints = {.ai_family = AF_UNSPEC,
                                                     .ai_socktype = SOCK_STREAM};
    bool first = !e->pending;

    ag_list_push(&e->waiters, &r->link);
    if (!first) {
        return;
    }
    e->pending = true;
    if (v->loop->backend->system->look_up) {
        v->loop->backend->system->look_up(v->loop, e->name);
    } else {
        /* May answer at once, from /etc/hosts; done() still comes by task. */
        ares_getaddrinfo(v->channel, e->name, NULL, &hints, on_answer, e);
        rearm(v);
    }
}

void ag_resolve_start(struct ag_loop *l, struct ag_resolve *r, struct ag_span host, uint16_t port,
                      ag_resolve_fn *done)
{
    struct ag_resolver *v = l->resolver;
    char name[NAME_MAX_BYTES + 1];

    r->done = done;
    r->loop = l;
    r->count = 0;
    ag_list_init(&r->link);
    ag_task_init(&r->task, on_task);
    if (ag_addr_parse(host, port, &r->addr[0]) == AG_OK) {
        settle(r, AG_OK, NULL);
        return;
    }
    AG_ASSERT(v);
    if (!normalise(host, name)) {
        settle(r, AG_ENOENT, "not a host name");
        return;
    }
    struct entry *e = entry_find(v, name, host.len);
    if (!e) {
        e = entry_take(v, name, host.len);
    }
    if (!e) {
        settle(r, AG_AGAIN, "too many lookups at once");
        return;
    }
    e->used_at = ++v->uses;
    r->addr[0].in.sin_port = htons(port);
    if (!e->pending && e->expires_ms > l->now_ms) {
        answer(r, e);
    } else {
        look_up(v, e, r);
    }
}

void ag_resolve_cancel(struct ag_resolve *r)
{
    if (r->loop) {
        ag_list_remove(&r->link);
        ag_task_cancel(&r->task);
    }
}

void ag_resolver_answer(struct ag_loop *l, const char *name, enum ag_status st,
                        const union ag_addr *addrs, uint32_t count, uint64_t ttl_ms)
{
    struct entry *e = l->resolver ? entry_find(l->resolver, name, strlen(name)) : NULL;
    struct host h;

    if (!e || !e->pending) {
        return;
    }
    e->count = 0;
    e->status = st;
    e->error = st == AG_OK ? NULL : "the look-up failed";
    for (uint32_t i = 0; st == AG_OK && i < count; i++) {
        if (host_of(&addrs[i], &h)) {
            add_host(e, &h);
        }
    }
    answer_all(e, ttl_ms);
}
