/* host_system: what the host answers at once (struct ag_system): clock, descriptors, names, files. */
#include "tests/sim/host_parts.h"

#include <errno.h>

/* ---- struct ag_system ---- */

static void host_clock(struct ag_loop *l)
{
    uint64_t ms = sim_of(l)->now_us / SIM_MS;

    l->now_ms = HOST_BOOT_MS + ms;
    l->wall_s = HOST_WALL_S + (int64_t)(ms / 1000);
}

static uint64_t host_now_ns(struct ag_loop *l)
{
    return HOST_BOOT_MS * 1000000 + sim_of(l)->now_us * 1000;
}

static void host_seed(struct ag_loop *l, uint64_t out[static 4])
{
    for (unsigned i = 0; i < 4; i++) {
        out[i] = sim_random(sim_of(l));
    }
}

static int host_wake_open(struct ag_loop *l)
{
    struct host_sock *s = host_open_fd(of(l)->host, HOST_WAKE);

    s->loop = of(l);
    l->wake_fd = s->fd;
    return 0;
}

static void host_wake(struct ag_loop *l)
{
    struct host_sock *s = host_sock_of(of(l)->host, l->wake_fd);

    s->signalled = true;
    host_look_soon(s);
}

static void host_wake_clear(struct ag_loop *l)
{
    host_sock_of(of(l)->host, l->wake_fd)->signalled = false;
}

static int host_socket(struct ag_loop *l, int family, int type)
{
    struct host_sock *s;
    int err = host_open_limited(of(l)->host, &s);

    AG_ASSERT(family == AF_INET && type == SOCK_STREAM);
    return err ? err : s->fd;
}

static int host_accept(struct ag_loop *l, int fd)
{
    return host_accept_one(of(l)->host, host_sock_of(of(l)->host, fd)->listener);
}

static void host_close_fd(struct ag_loop *l, int fd)
{
    host_close(of(l)->host, fd);
}

static void host_shut(struct ag_loop *l, int fd)
{
    net_shut(host_sock_of(of(l)->host, fd)->end);
}

static void host_nodelay(struct ag_loop *l, int fd)
{
    AG_ASSERT(host_sock_of(of(l)->host, fd)->kind == HOST_SOCKET);
}

static void host_reset_on_close(struct ag_loop *l, int fd)
{
    host_sock_of(of(l)->host, fd)->end->reset_on_close = true;
}

static uint32_t host_unsent(struct ag_loop *l, int fd)
{
    return (uint32_t)net_unacked(host_sock_of(of(l)->host, fd)->end);
}

static uint32_t host_progress(struct ag_loop *l, int fd)
{
    return (uint32_t)net_acked(host_sock_of(of(l)->host, fd)->end);
}

static void set_addr(union ag_addr *out, uint32_t ip, uint16_t port)
{
    out->in.sin_family = AF_INET;
    out->in.sin_addr.s_addr = htonl(ip);
    out->in.sin_port = htons(port);
}

static bool host_peer(struct ag_loop *l, int fd, union ag_addr *out)
{
    const struct net_end *e = host_sock_of(of(l)->host, fd)->end;

    if (!e || e->dead) {
        return false;
    }
    if (e->side == 1) {
        set_addr(out, e->conn->client_ip, e->conn->client_port);
    } else {
        set_addr(out, e->conn->server_ip, e->conn->server_port);
    }
    return true;
}

static bool host_local(struct ag_loop *l, int fd, union ag_addr *out)
{
    const struct host_sock *s = host_sock_of(of(l)->host, fd);

    if (s->kind == HOST_LISTENER) {
        set_addr(out, s->listener->ip, s->listener->port);
        return true;
    }
    if (s->end && s->end->side == 1) {
        set_addr(out, s->end->conn->server_ip, s->end->conn->server_port);
        return true;
    }
    return false;
}

/* ---- names and files ---- */

struct lookup {
    struct host_loop *loop;
    char name[64];
};

static void on_place_found(struct sim *s, void *arg)
{
    struct lookup *u = arg;
    struct host *h = u->loop->host;
    struct ag_srv_target targets[4] = {0};
    uint32_t count = h->places(s, u->name, targets);
    uint32_t ttl_s = (uint32_t)sim_between(s, 1, 20);

    h->pending_names--;
    if (!u->loop->live) {
        return;
    }
    if (fails(h, h->faults.name)) {
        h->shortages++;
        ag_resolver_answer_srv(&u->loop->loop, u->name, AG_AGAIN, NULL, 0, 1);
    } else {
        ag_resolver_answer_srv(&u->loop->loop, u->name, count ? AG_OK : AG_ENOENT, targets, count,
                               ttl_s);
    }
}

static void on_looked_up(struct sim *s, void *arg)
{
    struct lookup *u = arg;
    struct host *h = u->loop->host;
    union ag_addr addrs[4] = {0};
    uint32_t ips[4], count = h->resolve(s, u->name, ips);
    uint64_t ttl_ms = sim_between(s, 1000, 20000);

    h->pending_names--;
    if (!u->loop->live) {
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        set_addr(&addrs[i], ips[i], 0);
    }
    if (fails(h, h->faults.name)) {
        h->shortages++;
        ag_resolver_answer(&u->loop->loop, u->name, AG_AGAIN, NULL, 0, 1000);
    } else {
        ag_resolver_answer(&u->loop->loop, u->name, count ? AG_OK : AG_ENOENT, addrs, count,
                           ttl_ms);
    }
}

static void host_look_up(struct ag_loop *l, const char *name, enum ag_lookup_kind kind)
{
    struct host *h = of(l)->host;
    struct lookup *u = sim_alloc(h->sim, sizeof(*u));
    bool slow = fails(h, h->faults.name_slow);

    AG_ASSERT(strlen(name) < sizeof(u->name));
    u->loop = of(l);
    memcpy(u->name, name, strlen(name));
    h->pending_names++;
    h->shortages += slow;
    sim_at(h->sim, slow ? sim_between(h->sim, SIM_S, 9 * SIM_S) : sim_below(h->sim, 20 * SIM_MS),
           kind == AG_LOOKUP_SRV ? on_place_found : on_looked_up, u);
}

/* The number that the file system gave is another one in each process, and validators show it. */
static void perform_file(struct ag_file_op *op, int error)
{
    ag_file_perform(op, error);
    if (op->stat.is_regular) {
        op->stat.inode = op->stat.size_bytes + 1;
    }
}

struct file_work {
    struct host_loop *loop;
    struct ag_file_op *op;
    int error;
};

static void on_file(struct sim *s, void *arg)
{
    struct file_work *w = arg;

    sim_note(s, "host: file", (uint64_t)w->error, 0);
    w->loop->host->pending_files--;
    w->loop->pending_files--;
    AG_ASSERT(w->loop->live);
    perform_file(w->op, w->error);
}

static bool host_file(struct ag_loop *l, struct ag_file_op *op)
{
    static const int errors[] = {EMFILE, ENFILE, ENOMEM, EIO, EINTR};
    struct host *h = of(l)->host;
    struct file_work *w;
    bool bad = fails(h, h->faults.file);

    if (!bad && !fails(h, h->faults.file_slow)) {
        perform_file(op, 0);
        return true;
    }
    w = sim_alloc(h->sim, sizeof(*w));
    w->loop = of(l);
    w->op = op;
    if (bad) {
        h->shortages++;
        w->error = errors[sim_below(h->sim, AG_COUNT(errors))];
    }
    h->pending_files++;
    of(l)->pending_files++;
    sim_at(h->sim, sim_below(h->sim, 50 * SIM_MS), on_file, w);
    return true;
}

static bool host_file_is_warm(struct ag_loop *l, int fd, uint64_t offset, size_t len)
{
    (void)fd;
    (void)offset;
    (void)len;
    return !fails(of(l)->host, 300);
}

const struct ag_system host_system = {
    .clock = host_clock,
    .now_ns = host_now_ns,
    .seed = host_seed,
    .wake_open = host_wake_open,
    .wake = host_wake,
    .wake_clear = host_wake_clear,
    .socket = host_socket,
    .accept = host_accept,
    .close = host_close_fd,
    .shut = host_shut,
    .nodelay = host_nodelay,
    .reset_on_close = host_reset_on_close,
    .unsent = host_unsent,
    .progress = host_progress,
    .peer = host_peer,
    .local = host_local,
    .look_up = host_look_up,
    .file = host_file,
    .file_is_warm = host_file_is_warm,
};
