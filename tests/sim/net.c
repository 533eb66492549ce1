#include "tests/sim/net.h"

#include <errno.h>

/* The first packet is sent again after 1, 3, 7 ... seconds, so many times. */
#define SYN_TRIES 5u
/* Buffers grow by one byte for so many that have arrived. */
#define GROWTH 16u

#define RING_MIN 4096u
#define RING_MAX (1024u * 1024u)

static void move_soon(struct net_pipe *p);

static struct net_pipe *in_of(const struct net_end *e)
{
    return &e->conn->pipe[1 - e->side];
}

static struct net_pipe *out_of(const struct net_end *e)
{
    return &e->conn->pipe[e->side];
}

static void notify(struct net_end *e)
{
    if (e->layer && e->open) {
        e->layer->notify(e);
    }
    if (e->notify && e->open) {
        e->notify(e);
    }
}

static uint64_t latency(struct net_conn *c)
{
    return sim_between(c->sim, c->profile.latency_min_us, c->profile.latency_max_us);
}

/* ---- resets ---- */

static void end_dies(struct net_end *e, int error)
{
    struct net_pipe *in = in_of(e), *out = out_of(e);

    if (e->dead) {
        return;
    }
    e->dead = true;
    e->error = error;
    in->cut = true;
    out->cut = true;
    out->written = out->arrived;
    if (e->forgets) {
        in->taken = in->arrived;
    }
    notify(e);
}

static void on_rst(struct sim *s, void *arg)
{
    struct net_end *to = arg;
    struct net_pipe *p = in_of(to);

    sim_note(s, "net: reset arrives", to->conn->id, to->side);
    if (to->conn->rst_flushes && p->ring) {
        p->arrived += ag_min_u64(p->written - p->arrived, p->size / 2 - (p->arrived - p->taken));
    }
    end_dies(to, -ECONNRESET);
}

/* From `e`, which is closed or will hear nothing more. */
static void send_rst(struct net_end *e)
{
    struct net_conn *c = e->conn;

    if (!e->dead) {
        e->dead = true;
        c->rst_flushes = sim_chance(c->sim, 500);
        out_of(e)->cut = true;
        in_of(e)->cut = true;
        sim_at(c->sim, latency(c), on_rst, net_peer(e));
    }
}

void net_break(struct net_conn *c)
{
    c->faulted = true;
    c->rst_flushes = false;
    end_dies(&c->end[0], -ECONNRESET);
    end_dies(&c->end[1], -ECONNRESET);
}

/* ---- data on its way ---- */

/* Bytes that each buffer of the pipe holds by now. */
static uint64_t window(const struct net_pipe *p)
{
    return ag_min_u64(p->conn->profile.window + p->arrived / GROWTH, p->size / 2);
}

static uint64_t room_to_arrive(const struct net_pipe *p)
{
    uint64_t held = p->arrived - p->taken, max = window(p);

    return held < max ? max - held : 0;
}

static bool has_to_move(const struct net_pipe *p)
{
    uint64_t left = p->written - p->arrived;

    return !p->cut &&
           ((left > 0 && room_to_arrive(p) > 0) || (left == 0 && p->fin && !p->fin_arrived));
}

/* How much comes with this arrival: all, or a piece. */
static uint64_t piece_of(struct net_pipe *p)
{
    const struct net_profile *profile = &p->conn->profile;
    uint64_t n = ag_min_u64(p->written - p->arrived, room_to_arrive(p));
    uint64_t max = profile->piece_max + p->arrived / GROWTH;

    if (profile->piece_max == 0 || n == 0) {
        return n;
    }
    return sim_between(p->conn->sim, 1, ag_min_u64(n, max));
}

static void on_move(struct sim *s, void *arg)
{
    struct net_pipe *p = arg;
    struct net_conn *c = p->conn;
    uint8_t side = p == &c->pipe[1];
    struct net_end *to = &c->end[1 - side];
    uint64_t n;

    p->moving = false;
    if (p->cut) {
        return;
    }
    if (sim_chance(s, c->profile.reset_per_mille)) {
        sim_note(s, "net: breaks", c->id, side);
        net_break(c);
        return;
    }
    n = piece_of(p);
    p->arrived += n;
    if (p->fin && p->arrived == p->written && (n == 0 || sim_chance(s, 500))) {
        p->fin_arrived = true;
    }
    sim_note(s, side ? "net: to client" : "net: to server", c->id, n);
    if (!to->open && n > 0) {
        send_rst(to); /* nobody takes it any more */
        return;
    }
    notify(to);
    notify(&c->end[side]);
    move_soon(p);
}

static void move_soon(struct net_pipe *p)
{
    struct net_conn *c = p->conn;
    uint64_t delay;

    if (p->moving || !has_to_move(p) || c->state != NET_OPEN) {
        return;
    }
    p->moving = true;
    delay = latency(c);
    if (sim_chance(c->sim, c->profile.stall_per_mille)) {
        delay += sim_between(c->sim, 0, c->profile.stall_us);
    }
    sim_at(c->sim, delay, on_move, p);
}

static void make_ring(struct net_pipe *p)
{
    uint32_t size = RING_MIN;

    while (size < RING_MAX && size < 4 * p->conn->profile.window) {
        size *= 2;
    }
    p->size = size;
    p->ring = sim_alloc_raw(p->conn->sim, size);
}

static void copy_in(struct net_pipe *p, const uint8_t *from, size_t len)
{
    size_t at = p->written & (p->size - 1), first = ag_min_size(len, p->size - at);

    memcpy(p->ring + at, from, first);
    memcpy(p->ring, from + first, len - first);
    p->written += len;
}

static void copy_out(struct net_pipe *p, uint8_t *to, size_t len)
{
    size_t at = p->taken & (p->size - 1), first = ag_min_size(len, p->size - at);

    memcpy(to, p->ring + at, first);
    memcpy(to + first, p->ring, len - first);
    p->taken += len;
}

/* ---- ends ---- */

static uint64_t room_to_write(const struct net_pipe *p)
{
    uint64_t held = p->written - p->arrived;
    uint64_t max = p->ring ? window(p) : p->conn->profile.window;

    return held < max ? max - held : 0;
}

int64_t net_raw_write(struct net_end *e, const void *ptr, size_t len)
{
    struct net_pipe *p = out_of(e);
    size_t n;

    AG_ASSERT(e->open && len > 0);
    if (e->dead) {
        int error = e->error ? e->error : -EPIPE;

        e->error = 0;
        return error;
    }
    if (p->fin) {
        return -EPIPE;
    }
    if (e->conn->state != NET_OPEN) {
        return -EAGAIN;
    }
    if (!p->ring) {
        make_ring(p);
    }
    n = ag_min_u64(len, room_to_write(p));
    if (n == 0) {
        return -EAGAIN;
    }
    copy_in(p, ptr, n);
    move_soon(p);
    return (int64_t)n;
}

int64_t net_raw_read(struct net_end *e, void *buf, size_t len)
{
    struct net_pipe *p = in_of(e);
    size_t n = ag_min_u64(len, p->arrived - p->taken);

    AG_ASSERT(e->open && len > 0);
    if (n > 0) {
        copy_out(p, buf, n);
        move_soon(p);
        return (int64_t)n;
    }
    if (e->dead) {
        int error = e->error;

        e->error = 0;
        return error;
    }
    return p->fin_arrived ? 0 : -EAGAIN;
}

size_t net_readable(const struct net_end *e)
{
    const struct net_pipe *p = in_of(e);

    return p->arrived - p->taken;
}

bool net_raw_has_input(const struct net_end *e)
{
    return net_readable(e) > 0 || e->dead || in_of(e)->fin_arrived;
}

int net_raw_peek(const struct net_end *e)
{
    const struct net_pipe *p = in_of(e);

    return net_readable(e) > 0 ? p->ring[p->taken & (p->size - 1)] : -1;
}

size_t net_raw_room(const struct net_end *e)
{
    const struct net_pipe *p = out_of(e);

    return e->dead || p->fin || e->conn->state != NET_OPEN ? 0 : room_to_write(p);
}

uint64_t net_unacked(const struct net_end *e)
{
    return out_of(e)->written - out_of(e)->arrived;
}

uint64_t net_acked(const struct net_end *e)
{
    return out_of(e)->arrived;
}

void net_raw_shut(struct net_end *e)
{
    struct net_pipe *p = out_of(e);

    if (!p->fin && !e->dead) {
        e->shut = true;
        p->fin = true;
        move_soon(p);
    }
}

void net_close(struct net_end *e)
{
    AG_ASSERT(e->open);
    sim_note(e->conn->sim, "net: close", e->conn->id, e->side);
    if (e->layer) {
        e->layer->close(e);
    }
    e->open = false;
    if (e->conn->state == NET_CONNECTING) {
        e->conn->state = NET_FAILED;
        e->dead = true;
    } else if (e->reset_on_close || net_readable(e) > 0) {
        send_rst(e);
    } else {
        net_raw_shut(e);
    }
}

void net_abort(struct net_end *e)
{
    e->reset_on_close = true;
    net_close(e);
}

/* ---- above a layer ---- */

int64_t net_write(struct net_end *e, const void *ptr, size_t len)
{
    return e->layer ? e->layer->write(e, ptr, len) : net_raw_write(e, ptr, len);
}

int64_t net_read(struct net_end *e, void *buf, size_t len)
{
    return e->layer ? e->layer->read(e, buf, len) : net_raw_read(e, buf, len);
}

bool net_has_input(const struct net_end *e)
{
    return e->layer ? e->layer->has_input(e) : net_raw_has_input(e);
}

bool net_has_room(const struct net_end *e)
{
    return e->dead || e->shut || (e->layer ? e->layer->has_room(e) : net_raw_room(e) > 0);
}

void net_shut(struct net_end *e)
{
    if (e->layer) {
        e->layer->shut(e);
    } else {
        net_raw_shut(e);
    }
}

/* ---- listeners ---- */

struct net_listener *net_listen(struct sim *s, uint32_t ip, uint16_t port, uint32_t backlog,
                                void (*on_event)(struct net_listener *), void *owner)
{
    struct net_listener *l = sim_alloc(s, sizeof(*l));

    *l = (struct net_listener){.sim = s,
                               .ip = ip,
                               .port = port,
                               .open = true,
                               .backlog = backlog,
                               .notify = on_event,
                               .owner = owner,
                               .next = s->net->listeners};
    s->net->listeners = l;
    return l;
}

void net_unlisten(struct net_listener *l)
{
    AG_ASSERT(l->open);
    l->open = false;
    for (struct net_conn *c = l->first; c; c = c->next) {
        sim_note(l->sim, "net: dropped from a queue", c->id, l->port);
        c->end[1].open = false;
        send_rst(&c->end[1]);
    }
    l->first = l->last = NULL;
}

struct net_end *net_accept(struct net_listener *l)
{
    struct net_conn *c = l->first;

    if (!c) {
        return NULL;
    }
    l->first = c->next;
    l->last = l->first ? l->last : NULL;
    l->queued--;
    c->accepted = true;
    return &c->end[1];
}

static bool listens_for(const struct net_listener *l, const struct net_conn *c)
{
    return l->open && l->ip == c->server_ip && l->port == c->server_port;
}

/* One of those who listen there; NULL: nobody does. */
static struct net_listener *find_listener(struct net_conn *c)
{
    struct net_listener *l;
    uint64_t count = 0, at;

    for (l = c->sim->net->listeners; l; l = l->next) {
        count += listens_for(l, c);
    }
    if (count == 0) {
        return NULL;
    }
    at = sim_below(c->sim, count);
    for (l = c->sim->net->listeners; at > 0 || !listens_for(l, c); l = l->next) {
        at -= listens_for(l, c);
    }
    return l;
}

/* ---- connecting ---- */

static void connect_fails(struct net_conn *c, int error)
{
    sim_note(c->sim, "net: connect fails", c->id, (uint64_t)-error);
    c->state = NET_FAILED;
    c->end[0].error = error;
    c->end[0].dead = true;
    notify(&c->end[0]);
}

static void on_refused(struct sim *s, void *arg)
{
    struct net_conn *c = arg;

    (void)s;
    if (c->state == NET_CONNECTING) {
        connect_fails(c, -ECONNREFUSED);
    }
}

static void on_unreachable(struct sim *s, void *arg)
{
    struct net_conn *c = arg;

    (void)s;
    if (c->state == NET_CONNECTING) {
        connect_fails(c, -EHOSTUNREACH);
    }
}

/* The answer to the first packet has come. */
static void on_established(struct sim *s, void *arg)
{
    struct net_conn *c = arg;

    sim_note(s, "net: connected", c->id, c->server_port);
    notify(&c->end[0]);
    move_soon(&c->pipe[0]);
    move_soon(&c->pipe[1]);
}

static void enqueue(struct net_listener *l, struct net_conn *c)
{
    c->state = NET_OPEN;
    c->end[1].open = true;
    if (c->end[0].before.len > 0 && c->end[0].open) {
        const struct ag_span before = c->end[0].before;

        AG_ASSERT(net_raw_write(&c->end[0], before.ptr, before.len) == (int64_t)before.len);
    }
    if (l->last) {
        l->last->next = c;
    } else {
        l->first = c;
    }
    l->last = c;
    l->queued++;
    if (l->notify) {
        l->notify(l);
    }
    sim_at(c->sim, latency(c), on_established, c);
}

static void on_syn(struct sim *s, void *arg)
{
    struct net_conn *c = arg;
    struct net_listener *l = find_listener(c);
    enum net_fate fate = s->net->fate(s, c);

    if (c->state != NET_CONNECTING) {
        return;
    }
    if (fate == NET_REFUSE || (fate == NET_ADMIT && !l)) {
        sim_at(s, latency(c), on_refused, c);
    } else if (fate == NET_UNREACHABLE) {
        sim_at(s, latency(c), on_unreachable, c);
    } else if (fate == NET_DROP || !l || l->queued >= l->backlog) {
        if (c->tries++ >= SYN_TRIES) {
            connect_fails(c, -ETIMEDOUT);
        } else {
            sim_at(s, (SIM_S << c->tries) - SIM_S, on_syn, c);
        }
    } else {
        enqueue(l, c);
    }
}

struct net_end *net_connect(struct sim *s, uint32_t from_ip, uint32_t ip, uint16_t port,
                            void (*on_event)(struct net_end *), void *owner)
{
    struct net_conn *c = sim_alloc(s, sizeof(*c));
    struct net *n = s->net;

    c->sim = s;
    c->id = ++n->conn_count;
    c->client_ip = from_ip;
    c->client_port = (uint16_t)(20000 + n->port_next++ % 40000);
    c->server_ip = ip;
    c->server_port = port;
    c->older = n->conns;
    n->conns = c;
    for (uint8_t i = 0; i < 2; i++) {
        c->end[i].conn = c;
        c->end[i].side = i;
        c->pipe[i].conn = c;
    }
    c->end[0].open = true;
    c->end[0].notify = on_event;
    c->end[0].owner = owner;
    n->profile(s, c);
    AG_ASSERT(c->profile.window > 0);
    sim_note(s, "net: connect to .N:port", c->id, (ip & 255) * 100000 + port);
    sim_at(s, latency(c), on_syn, c);
    return &c->end[0];
}

void net_begin(struct sim *s)
{
    s->net = sim_alloc(s, sizeof(*s->net));
}
