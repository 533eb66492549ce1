#include "tests/sim/host_parts.h"

#include "engine/bulk.h"
#include "engine/poison.h"
#include "tests/sim/chance.h"

#include <errno.h>
#include <poll.h>

/* Of 1000 pieces so many are the last of their receive, for no reason. */
#define ENDS 10u
/* Of 1000 receives that may be left in a pipe so many are. */
#define PIPES 700u

/* ---- completions ---- */

/* An array of twice as many; *cap of `size` bytes each are kept. */
static void *grown(struct sim *s, const void *array, uint32_t *cap, size_t size)
{
    void *larger = sim_alloc_raw(s, (*cap ? 2 * *cap : 256) * size);

    if (*cap) {
        memcpy(larger, array, *cap * size);
    }
    *cap = *cap ? 2 * *cap : 256;
    return larger;
}

static void ask(struct host_sock *s, struct ag_op *op, bool write, bool cancel)
{
    struct host_loop *l = s->loop;

    if (l->asked_count == l->asked_cap) {
        l->asked = grown(l->host->sim, l->asked, &l->asked_cap, sizeof(*l->asked));
    }
    l->asked[l->asked_count++] =
        (struct host_entry){s, op, write ? s->wr_run : s->rd_run, write, cancel};
}

static void complete(struct host_sock *s, const struct host_completion *c)
{
    struct host_loop *l = s->loop;

    if (l->done_at == l->done_count) {
        l->done_at = l->done_count = 0;
    }
    if (l->done_count == l->done_cap) {
        l->done = grown(l->host->sim, l->done, &l->done_cap, sizeof(*l->done));
    }
    l->done[l->done_count++] = *c;
}

static void rd_result(struct host_sock *s, int32_t res, bool more)
{
    s->rd_over = !more;
    complete(s, &(struct host_completion){.sock = s, .op = s->rd, .res = res, .more = more});
}

static void wr_result(struct host_sock *s, int32_t res)
{
    s->wr_over = true;
    complete(s, &(struct host_completion){.sock = s, .op = s->wr, .res = res, .write = true});
}

static void check_op(const struct host_completion *c)
{
    const struct host_sock *s = c->sock;

    if ((c->write ? s->wr : s->rd) != c->op || c->op->kind == AG_OP_NONE || !c->op->fd ||
        c->op->fd->fd != s->fd) {
        sim_fail(s->loop->host->sim, "an op has gone before its completion (descriptor %d)", s->fd);
    }
}

/* A receive has ended with a piece of input: one at a time while it is tight, or the kernel's whim. */
static void go_on(struct host_sock *s, struct ag_op *op)
{
    struct ag_loop *l = &s->loop->loop;

    if (op->cancelled) {
        ag_loop_complete(l, op, -ECANCELED);
    } else if (l->tight) {
        ag_loop_ready(l, op);
    } else {
        s->rd = op;
        s->rd_run++;
        ask(s, op, false, false);
    }
}

/* The op is the host's again, until input comes. */
static void await_input(struct host_sock *s, struct ag_op *op)
{
    s->rd = op;
    s->rd_run++;
    s->rd_armed = true;
}

/* Into a pipe, and the receive goes on. False: there is none, or nothing for it. */
static bool recv_unseen(struct ag_loop *l, struct host_sock *s, struct ag_op *op)
{
    struct ag_bulk b = {.count = 1};

    b.blocks[0] = host_pipe_recv(s, op);
    if (!b.blocks[0]) {
        return false;
    }
    if (net_has_input(s->end)) {
        ag_loop_ready(l, op);
    } else if (of(l)->like_epoll) {
        await_input(s, op);
    } else {
        go_on(s, op);
    }
    ag_bulk_deliver(l, op, &b, b.blocks[0]->size);
    return true;
}

/* What was to come unseen when it was polled may have come otherwise since. */
static void on_polled(struct ag_loop *l, struct host_sock *s, struct ag_op *op)
{
    s->rd = NULL;
    s->rd_over = s->rd_armed = false;
    if (op->cancelled || !recv_unseen(l, s, op)) {
        go_on(s, op);
    }
}

static void deliver(struct ag_loop *l, const struct host_completion *c)
{
    struct host_sock *s = c->sock;
    struct ag_result r = {.res = c->res, .more = c->more};
    struct ag_op *op = c->op;

    check_op(c);
    sim_note(sim_of(l), c->write ? "host: written" : "host: read", (uint64_t)s->fd,
             (uint64_t)(int64_t)c->res);
    if (c->polled) {
        on_polled(l, s, op);
        return;
    }
    if (c->has_buffer) {
        struct ag_block *b = ag_bufs_from_ring(l->bufs, (enum ag_buf_group)op->arg, c->buffer);

        r.slice = (struct ag_slice){{.ptr = b->data}, (size_t)c->res, b};
    }
    if (!c->more && c->write) {
        s->wr = NULL;
        s->wr_over = s->wr_armed = false;
    } else if (!c->more) {
        s->rd = NULL;
        s->rd_over = s->rd_armed = false;
    }
    if (c->has_buffer && !c->more) {
        r.more = true;
        go_on(s, op);
    }
    if (!c->write && c->res == -ENOBUFS && op->kind == AG_OP_RECV && !op->cancelled) {
        ag_bufs_starve(l->bufs, op); /* until perform it is the loop's */
        return;
    }
    if (r.res == -ENOBUFS && op->kind == AG_OP_RECV) {
        r.res = -ECANCELED;
    }
    ag_loop_deliver(l, op, &r);
}

static void host_reap(struct ag_loop *loop)
{
    struct host_loop *l = of(loop);
    uint32_t end = l->done_count;

    while (l->done_at < end) {
        struct host_completion c = l->done[l->done_at++];

        if (c.op) {
            deliver(loop, &c);
        } else {
            c.sock->ready = false;
            if (c.sock->rd) {
                ag_loop_ready(loop, c.sock->rd); /* until perform it is the loop's */
                c.sock->rd = NULL;
            }
        }
        if (l->done_at == 0) {
            break; /* the queue was empty and began anew */
        }
    }
}

/* ---- what ops do ---- */

static void do_accept(struct host_sock *s)
{
    struct host *h = s->loop->host;
    int fd = 0;

    while (s->listener->first && fd >= 0) {
        fd = host_accept_one(h, s->listener);
        rd_result(s, fd, fd >= 0);
    }
}

static bool take_ring(struct host_loop *l, unsigned group, uint32_t *out_id)
{
    if (l->ring_count[group] == 0) {
        return false;
    }
    *out_id = l->ring[group][l->ring_at[group]++ % HOST_RING_MAX];
    l->ring_count[group]--;
    return true;
}

static void break_now(struct sim *sim, void *arg)
{
    (void)sim;
    net_break(arg);
}

int64_t host_receive(struct host_sock *s, void *to, size_t len)
{
    struct host *h = s->loop->host;

    if (fails(h, h->faults.recv)) {
        sim_at(h->sim, 0, break_now, s->end->conn);
    }
    return net_read(s->end, to, len);
}

/* Like io_uring: bytes go into buffers as they arrive, one after the other but when it is tight. */
static void do_recv(struct host_sock *s)
{
    struct host_loop *l = s->loop;
    unsigned group = s->rd->arg;
    const struct ag_buf_pool *pool = &l->loop.bufs->pools[group];

    while (!s->rd_over && net_has_input(s->end)) {
        uint8_t byte;
        uint32_t id;
        int64_t n;

        if (net_readable(s->end) == 0) {
            rd_result(s, (int32_t)net_read(s->end, &byte, 1), false);
        } else if (host_pipe_is_due(s->rd) && sim_chance(l->host->sim, PIPES)) {
            s->rd_over = true;
            complete(s, &(struct host_completion){.sock = s, .op = s->rd, .polled = true});
        } else if (!take_ring(l, group, &id)) {
            rd_result(s, -ENOBUFS, false);
        } else {
            uint8_t *to = ag_buf_data(pool, id);

            ag_unpoison(to, pool->size); /* the kernel's write */
            n = host_receive(s, to, pool->size);
            AG_ASSERT(n > 0);
            s->rd_over = l->loop.tight || sim_chance(l->host->sim, ENDS);
            complete(s, &(struct host_completion){.sock = s,
                                                  .op = s->rd,
                                                  .res = (int32_t)n,
                                                  .buffer = id,
                                                  .more = !s->rd_over,
                                                  .has_buffer = true});
        }
    }
}

/* Something about it changed, or an op was armed. */
void host_look(struct host_sock *s)
{
    if (s->rd && s->rd_armed && !s->rd_over) {
        if (s->rd->kind == AG_OP_ACCEPT) {
            do_accept(s);
        } else if (s->rd->kind == AG_OP_POLL && s->signalled) {
            rd_result(s, POLLIN, false);
        } else if (s->rd->kind == AG_OP_RECV && !s->loop->like_epoll) {
            do_recv(s);
        } else if (s->rd->kind == AG_OP_RECV && !s->ready && net_has_input(s->end)) {
            s->ready = true;
            complete(s, &(struct host_completion){.sock = s});
        }
    }
    if (s->wr && s->wr_armed && !s->wr_over) {
        int32_t res = host_try_write(s, s->wr);

        if (res != -EAGAIN) {
            wr_result(s, res);
        }
    }
}

static void late_look(struct sim *sim, void *arg)
{
    struct host_sock *s = arg;

    (void)sim;
    s->look_asked = false;
    if (s->loop->host->fds[s->fd - HOST_FD_BASE] == s) {
        host_look(s);
    }
}

/* Now, or a little later. */
void host_look_soon(struct host_sock *s)
{
    struct host *h = s->loop->host;

    if (!fails(h, h->faults.lag)) {
        host_look(s);
    } else if (!s->look_asked) {
        s->look_asked = true;
        sim_at(h->sim, sim_below(h->sim, 5 * SIM_MS), late_look, s);
    }
}

/* ---- submission ---- */

static void do_cancel(const struct host_entry *e)
{
    struct host_sock *s = e->sock;

    if (e->write ? s->wr != e->op || s->wr_run != e->run || s->wr_over
                 : s->rd != e->op || s->rd_run != e->run || s->rd_over) {
        return; /* its own result was faster */
    }
    if (e->write) {
        wr_result(s, -ECANCELED);
    } else if (e->op->state != AG_OP_STARVED) {
        rd_result(s, -ECANCELED, false);
    }
}

static void enter(struct host_loop *l)
{
    l->entering = false;
    for (uint32_t i = 0; i < l->asked_count; i++) {
        struct host_entry e = l->asked[i];

        if (e.cancel) {
            do_cancel(&e);
        } else if (e.write && e.sock->wr == e.op && e.sock->wr_run == e.run) {
            e.sock->wr_armed = true;
            host_look_soon(e.sock);
        } else if (!e.write && e.sock->rd == e.op && e.sock->rd_run == e.run) {
            e.sock->rd_armed = true;
            host_look_soon(e.sock);
        }
    }
    l->asked_count = 0;
}

static bool is_write(const struct ag_op *op)
{
    return op->kind == AG_OP_SEND || op->kind == AG_OP_SENDFILE || op->kind == AG_OP_CONNECT;
}

static void host_start(struct ag_loop *l, struct ag_op *op)
{
    struct host_sock *s = host_sock_of(of(l)->host, op->fd->fd);
    bool write = is_write(op);

    AG_ASSERT(write ? !s->wr : !s->rd);
    s->loop = of(l);
    if (write && of(l)->like_epoll) {
        int32_t res = host_try_write(s, op);

        if (res != -EAGAIN) {
            ag_loop_complete(l, op, res);
            return;
        }
    }
    if (write) {
        s->wr = op;
        s->wr_run++;
    } else {
        s->rd = op;
        s->rd_run++;
    }
    ask(s, op, write, false);
}

static void host_connect(struct ag_loop *l, struct ag_op *op, const union ag_addr *addr,
                         socklen_t addr_len)
{
    struct host *h = of(l)->host;
    struct host_sock *s = host_sock_of(h, op->fd->fd);

    (void)addr_len;
    AG_ASSERT(s->kind == HOST_SOCKET && !s->end && addr->sa.sa_family == AF_INET);
    s->loop = of(l);
    s->end = net_connect(h->sim, h->ip, ntohl(addr->in.sin_addr.s_addr), ntohs(addr->in.sin_port),
                         host_on_end, s);
    s->wr = op;
    s->wr_run++;
    ask(s, op, true, false);
}

/* Like epoll: into one block, or into several by one call. */
static void perform_recv(struct ag_loop *l, struct host_sock *s, struct ag_op *op)
{
    bool bulk = op->arg == AG_BUF_LARGE && sim_chance(sim_of(l), 500);
    struct ag_bulk b = {0};
    uint32_t at = 0;
    int64_t n, got = 0;

    if (!net_has_input(s->end)) {
        await_input(s, op);
        return;
    }
    if (host_pipe_is_due(op) && sim_chance(sim_of(l), PIPES) && recv_unseen(l, s, op)) {
        return;
    }
    b.count = bulk ? ag_bufs_for_bulk(l->bufs, b.blocks) : 0;
    bulk = b.count > 0;
    if (!bulk) {
        b.blocks[0] = ag_bufs_for_recv(l->bufs, (enum ag_buf_group)op->arg);
        b.count = b.blocks[0] ? 1 : 0;
    }
    if (b.count == 0) {
        ag_bufs_starve(l->bufs, op);
        return;
    }
    do {
        n = host_receive(s, b.blocks[at]->data, b.blocks[at]->size);
        got += n > 0 ? n : 0;
    } while (n == (int64_t)b.blocks[at]->size && ++at < b.count && net_readable(s->end) > 0);
    sim_note(sim_of(l), "host: read", (uint64_t)s->fd, (uint64_t)(got ? got : n));
    if (got == 0) {
        ag_bufs_give_back(b.blocks, b.count);
        ag_loop_deliver_res(l, op, (int32_t)n);
        return;
    }
    if (net_has_input(s->end)) {
        ag_loop_ready(l, op);
    } else {
        await_input(s, op);
    }
    if (bulk) {
        ag_bulk_deliver(l, op, &b, (size_t)got);
        return;
    }
    ag_loop_deliver_piece(l, op, b.blocks[0], (size_t)got);
}

/* Receives alone: an edge was seen, or a buffer came back. */
static void host_perform(struct ag_loop *l, struct ag_op *op)
{
    struct host_sock *s = host_sock_of(of(l)->host, op->fd->fd);

    AG_ASSERT(op->kind == AG_OP_RECV && !s->rd);
    if (of(l)->like_epoll) {
        perform_recv(l, s, op);
    } else {
        s->rd = op;
        s->rd_run++;
        ask(s, op, false, false);
    }
}

static void host_cancel(struct ag_loop *l, struct ag_op *op)
{
    struct host_sock *s = host_sock_of(of(l)->host, op->fd->fd);
    bool write = is_write(op);

    AG_ASSERT((write ? s->wr : s->rd) == op);
    if (!of(l)->like_epoll || op->kind == AG_OP_ACCEPT || op->kind == AG_OP_POLL) {
        ask(s, op, write, true);
    } else if (write && !s->wr_over) {
        s->wr = NULL;
        s->wr_armed = false;
        ag_loop_complete(l, op, -ECANCELED);
    } else if (!write) {
        s->rd = NULL;
        s->rd_armed = false;
        ag_loop_complete(l, op, -ECANCELED);
    }
}

/* ---- turns ---- */

bool host_runnable(const struct host_loop *l)
{
    return l->done_at < l->done_count || !ag_list_empty(&l->loop.tasks) ||
           !ag_list_empty(&l->loop.completed) || host_wakes_us(l) <= l->host->sim->now_us;
}

static uint64_t since_boot_us(uint64_t host_ms)
{
    return (host_ms - HOST_BOOT_MS) * SIM_MS;
}

uint64_t host_wakes_us(const struct host_loop *l)
{
    uint32_t wait_ms = ag_wheel_wait_ms(&l->loop.wheel, l->loop.now_ms);

    return wait_ms == UINT32_MAX ? UINT64_MAX : since_boot_us(l->loop.now_ms + wait_ms);
}

static void on_enter(struct sim *s, void *arg)
{
    (void)s;
    enter(arg);
}

void host_after_turn(struct host_loop *l)
{
    struct host *h = l->host;

    if (l->asked_count > 0 && !l->entering) {
        l->entering = true;
        sim_at(h->sim, fails(h, h->faults.lag) ? sim_below(h->sim, SIM_MS) : 0, on_enter, l);
    }
}

/* A loop that is turned by the run has something to do; one that is turned by the server itself waits
 * here while the world goes on. */
static void host_wait(struct ag_loop *loop, uint32_t wait_ms)
{
    struct host_loop *l = of(loop);
    struct sim *s = l->host->sim;
    uint64_t until = wait_ms == UINT32_MAX ? UINT64_MAX : since_boot_us(loop->now_ms + wait_ms);

    enter(l);
    while (l->done_at == l->done_count && s->now_us < until) {
        if (sim_next_us(s) <= until && sim_step(s)) {
            continue;
        }
        if (until == UINT64_MAX) {
            sim_fail(s, "loop %u waits for ever", l->index);
        }
        s->now_us = until;
    }
}

/* ---- start and stop ---- */

static void publish(struct ag_loop *loop, struct ag_buf_pool *p, uint32_t id)
{
    struct host_loop *l = of(loop);

    AG_ASSERT(l->ring_count[p->group] < HOST_RING_MAX);
    l->ring[p->group][(l->ring_at[p->group] + l->ring_count[p->group]++) % HOST_RING_MAX] = id;
}

static enum ag_status host_init(struct ag_loop *l, const struct ag_loop_config *config,
                                const char **out_why)
{
    (void)config;
    (void)out_why;
    if (!of(l)->like_epoll) {
        ag_bufs_start_rings(l->bufs, publish);
    }
    return AG_OK;
}

static void host_deinit(struct ag_loop *l)
{
    AG_ASSERT(of(l)->done_at == of(l)->done_count);
}

static const struct ag_backend host_backend = {
    .name = "sim",
    .system = &host_system,
    .init = host_init,
    .deinit = host_deinit,
    .wait = host_wait,
    .reap = host_reap,
    .start = host_start,
    .connect = host_connect,
    .perform = host_perform,
    .cancel = host_cancel,
};

void host_loop_init(struct host *h, uint32_t index, bool like_epoll, const struct ag_loop_config *c)
{
    struct host_loop *l = &h->loops[index];
    struct ag_loop_config config = *c;
    const char *why = "";

    l->host = h;
    l->index = index;
    l->like_epoll = like_epoll;
    config.simulated = &host_backend;
    config.simulation = l;
    if (ag_loop_init(&l->loop, &config, &why) != AG_OK) {
        sim_fail(h->sim, "the loop does not start: %s", why);
    }
    l->live = true;
}

/* What helpers still have comes first, as a shard's thread waits for them (ag_helpers_settle). */
static void settle_files(struct host_loop *l)
{
    if (l->pending_files > 0) {
        while (l->pending_files > 0) {
            AG_ASSERT(sim_step(l->host->sim));
        }
        ag_loop_turn(&l->loop, 0);
    }
}

void host_loop_deinit(struct host *h, uint32_t index)
{
    struct ag_loop *l = &h->loops[index].loop;

    settle_files(&h->loops[index]);
    if (l->wheel.armed > 0 || !ag_list_empty(&l->tasks)) {
        sim_fail(h->sim, "loop %u: %u timers and some tasks are left", index, l->wheel.armed);
    }
    host_pipes_check(&h->loops[index]);
    ag_loop_deinit(l);
    h->loops[index].live = false;
}

void host_begin(struct host *h, struct sim *s)
{
    memset(h, 0, sizeof(*h));
    h->sim = s;
    h->fd_limit = HOST_FDS;
    chance_begin(s, HOST_WALL_S);
}
