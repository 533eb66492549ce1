#include "tests/sim/relay.h"

#include "tests/sim/greeting.h"

#include <errno.h>
#include <inttypes.h>

#define CALLS_MAX  6u
#define SERVERS    3u
#define HEAD_BYTES 3u /* 'R' and the call's number */
#define PIECE_MAX  16384u
#define BYTES_MAX  150000u
#define KEY        UINT64_C(500000)
/* Whatever becomes of it, it must be over by then. */
#define LIFE_US (400 * SIM_S)
/* The first byte of a ClientHello. */
#define HANDSHAKE 22

struct call;
struct relay_server;

/* One end of what the relay joins. */
struct party {
    struct run *run;
    struct net_end *end;
    struct call *call;           /* a server's: NULL until its head is here */
    struct relay_server *server; /* NULL: a caller */
    struct greeting_seen greeting;
    uint8_t head[HEAD_BYTES];
    uint32_t head_len;  /* of a server's, taken so far */
    uint64_t sent, got; /* content */
    uint32_t piece_max; /* 0: all at once */
    uint64_t pause_us;  /* between two pieces, at most */
    bool greets;        /* a header is to come first */
    bool begun;         /* it is known whether it is TLS */
    bool looking;       /* an event is under way */
    bool ended, shut;   /* the other's way; this one's */
    bool over;
    struct party *next;
};

struct call {
    struct party front;
    uint32_t id;
    uint16_t port;
    uint32_t up, down; /* bytes of content */
    struct tls_ways ways;
    bool tls;
    char group;   /* of the server that it has to reach */
    bool strange; /* a name that nobody has: refused, or by default */
    bool rude;    /* leaves at some time */
    bool left;
    bool at_risk; /* drained, or its listener has gone */
    bool seen;    /* by a server */
    bool waits;   /* its server says nothing before it has all */
    bool last;    /* its caller ends last */
    uint32_t config_first;
    struct greeting *greeting;
};

struct relay_server {
    struct run *run;
    char group;
    struct net_listener *listener;
};

struct relays {
    struct relay_server servers[SERVERS];
    struct call calls[CALLS_MAX];
    uint32_t call_count, over_count;
    struct party *accepted;
};

static void look_soon(struct party *p, uint64_t max_us);

static struct sim *sim_of(const struct party *p)
{
    return p->run->sim;
}

/* ---- what may be ---- */

/* Of a server that yields nobody listens any more, who was accepted before is served on. */
static bool may_break(const struct party *p, const struct call *q)
{
    const struct run *r = p->run;
    const struct weather *w = &r->weather;
    const struct net_conn *c = p->end->conn;

    return w->storms || w->upstream_storms || w->shortage || w->few_slots || q->rude ||
           q->at_risk || r->draining || (r->yielding && c->state == NET_FAILED) || c->faulted ||
           c->profile.stall_per_mille;
}

/* Whether some, or all, of the configurations since it began send names that nobody has nowhere. */
static bool is_refused(const struct call *q, bool by_all)
{
    const struct run *r = q->front.run;
    struct site_config config;
    bool some = false, all = true;

    for (uint32_t i = q->config_first; i < r->config_count; i++) {
        site_config(r->configs[i], &config);
        some |= !config.relay_default;
        all &= !config.relay_default;
    }
    return q->strange && (by_all ? all : some);
}

/* ---- the end ---- */

static void finish(struct party *p, bool reset)
{
    struct call *q = p->call;

    if (p->over) {
        return;
    }
    p->over = true;
    if (reset) {
        net_abort(p->end);
    } else if (p->end->open) {
        net_close(p->end);
    }
    if (!p->server) {
        p->run->relays->over_count++;
        sim_note(sim_of(p), "caller: over", q->id, p->got);
    }
}

/* The connection has ended where more was due. */
static void broken(struct party *p)
{
    const struct call *q = p->call;

    if (q && !may_break(p, q) && !(!p->server && is_refused(q, false) && !q->seen)) {
        sim_fail(sim_of(p),
                 "relay: call %u is broken off at the %s: %" PRIu64 " there, %" PRIu64 " back",
                 q->id, p->server ? "server" : "caller", p->got, p->sent);
    }
    finish(p, false);
}

/* Without a reset: it must be whole. */
static void on_end(struct party *p)
{
    const struct call *q = p->call;

    p->ended = true;
    if (!q) { /* it was never sent anything */
        finish(p, false);
        return;
    }
    if (p->server ? p->got != q->up && !q->left : p->got != q->down && (q->seen || p->got > 0)) {
        sim_fail(sim_of(p), "relay: call %u looks whole at the %s with %" PRIu64 " of %u bytes",
                 q->id, p->server ? "server" : "caller", p->got, p->server ? q->up : q->down);
    }
    if (!p->server && p->got != q->down) { /* no server was reached */
        broken(p);
    }
}

/* ---- bytes ---- */

static uint64_t key_of(const struct party *p, bool sent)
{
    return KEY + 2 * p->call->id + (sent == !p->server);
}

/* What a server is told first. */
static void identify(struct party *p)
{
    struct relays *all = p->run->relays;
    uint32_t id = (uint32_t)p->head[1] << 8 | p->head[2];
    struct call *q = &all->calls[id];

    if (p->head[0] != 'R' || id >= all->call_count) {
        sim_fail(sim_of(p), "relay: a call of nobody");
    }
    sim_note(sim_of(p), "relay server: call", id, p->end->conn->id);
    if (q->seen || q->group != p->server->group || is_refused(q, true) ||
        (q->greeting && q->greeting->bad)) {
        sim_fail(sim_of(p), "relay: call %u comes to %c, %s", id, p->server->group,
                 q->seen ? "twice" : "where it must not");
    }
    q->seen = true;
    p->call = q;
    if (p->server->group == 'r') {
        greeting_check(p->end, &p->greeting, q->front.end, q->greeting);
    }
}

static void take(struct party *p, struct ag_span in)
{
    uint64_t most;

    while (p->server && p->head_len < HEAD_BYTES && in.len > 0) {
        p->head[p->head_len++] = in.ptr[0];
        in = ag_span_sub(in, 1, in.len);
        if (p->head_len == HEAD_BYTES) {
            identify(p);
        }
    }
    if (in.len == 0) {
        return;
    }
    most = p->server ? p->call->up : p->call->down;
    if (in.len > most - p->got || !content_is(key_of(p, false), p->got, in)) {
        sim_fail(sim_of(p), "relay: call %u: wrong bytes at %" PRIu64 " at the %s", p->call->id,
                 p->got, p->server ? "server" : "caller");
    }
    p->got += in.len;
}

static void receive(struct party *p)
{
    uint8_t buf[PIECE_MAX];

    while (!p->ended && !p->over) {
        int64_t n = net_read(p->end, buf, sizeof(buf));

        if (n == -EAGAIN) {
            return;
        }
        if (n > 0) {
            take(p, ag_span(buf, (size_t)n));
        } else if (n == 0) {
            on_end(p);
        } else {
            broken(p);
        }
    }
}

/* The next piece of what it has to say; empty: that was all. */
static struct ag_span next_piece(const struct party *p)
{
    uint64_t head = p->server ? 0 : HEAD_BYTES,
             all = head + (p->server ? p->call->down : p->call->up);
    uint64_t most = ag_min_u64(all - p->sent, PIECE_MAX);

    if (p->sent < head) {
        return ag_span(p->head + p->sent, head - p->sent);
    }
    if (most > 0 && p->piece_max) {
        most = sim_between(p->run->sim, 1, ag_min_u64(most, p->piece_max + p->sent / 32));
    }
    return most > 0 ? content_at(key_of(p, true), p->sent - head, most) : ag_span(NULL, 0);
}

static bool is_ready(const struct party *p)
{
    return p->call && !(p->server && p->call->waits && !p->ended);
}

static void transmit(struct party *p)
{
    while (!p->over && !p->shut && is_ready(p)) {
        struct ag_span piece = next_piece(p);
        int64_t n;

        if (piece.len == 0 && !p->server && p->call->last && !p->ended) {
            return;
        }
        if (piece.len == 0) {
            net_shut(p->end);
            p->shut = true;
            return;
        }
        n = net_write(p->end, piece.ptr, piece.len);
        if (n < 0) {
            if (n != -EAGAIN) {
                broken(p);
            }
            return;
        }
        p->sent += (uint64_t)n;
        if (p->pause_us) {
            look_soon(p, p->pause_us);
            return;
        }
    }
}

/* ---- events ---- */

/* A server's: the header, and whether what follows is TLS. False: not yet. */
static bool begin(struct party *p)
{
    int64_t n = p->greets ? greeting_read(p->end, &p->greeting) : 1;
    int first;

    if (n == 0 || (n < 0 && n != -EAGAIN)) {
        finish(p, false);
    }
    if (n <= 0) {
        return false;
    }
    p->greets = false;
    first = net_raw_peek(p->end);
    if (first < 0 && !net_raw_has_input(p->end)) {
        return false;
    }
    p->begun = true;
    if (first == HANDSHAKE) {
        tls_accept(p->end, false, false);
        p->end->layer->notify(p->end);
    }
    return true;
}

static void look(struct party *p)
{
    if (p->over || (p->server && !p->begun && !begin(p))) {
        return;
    }
    receive(p);
    transmit(p);
    if (!p->over && p->ended && p->shut) {
        finish(p, false);
    }
}

static void on_look(struct sim *s, void *arg)
{
    struct party *p = arg;

    (void)s;
    p->looking = false;
    look(p);
}

static void look_soon(struct party *p, uint64_t max_us)
{
    if (!p->looking) {
        p->looking = true;
        sim_at(sim_of(p), max_us ? sim_below(sim_of(p), max_us) : 0, on_look, p);
    }
}

static void on_notify(struct net_end *e)
{
    struct party *p = e->owner;

    if (p->over) {
        return;
    }
    if (e->conn->state == NET_FAILED) {
        broken(p);
        return;
    }
    look_soon(p, p->pause_us);
}

static void choose_pace(struct party *p)
{
    struct sim *s = sim_of(p);

    if (sim_chance(s, 400)) {
        p->piece_max = (uint32_t)sim_between(s, 1, sim_chance(s, 300) ? 50 : 5000);
        p->pause_us = sim_below(s, 5 * SIM_MS);
    }
}

/* ---- callers ---- */

static void on_leave(struct sim *s, void *arg)
{
    struct call *q = arg;

    if (!q->front.over) {
        q->left = true;
        finish(&q->front, sim_chance(s, 500));
    }
}

static void on_life_over(struct sim *s, void *arg)
{
    const struct call *q = arg;

    if (!q->front.over) {
        sim_fail(s, "relay: call %u hangs: %" PRIu64 " of %u there, %" PRIu64 " of %u back", q->id,
                 q->front.sent, q->up, q->front.got, q->down);
    }
}

static void on_start(struct sim *s, void *arg)
{
    struct call *q = arg;
    struct run *r = q->front.run;
    struct net_end *e =
        net_connect(s, NET_IP(192, 168, 0, 100 + q->id), SITE_IP, q->port, on_notify, &q->front);

    q->front.end = e;
    q->config_first = r->config_settled;
    q->at_risk |= r->draining || r->yielding || !r->listens[q->port - SITE_PORT].open;
    greeting_send(e, q->greeting);
    if (q->tls) {
        tls_connect(e, &q->ways);
    }
    if (q->rude) {
        sim_at(s, sim_below(s, 300 * SIM_MS), on_leave, q);
    }
    sim_at(s, LIFE_US, on_life_over, q);
}

/* Names that the configurations have (site.c), and whose they are. */
static void choose_name(struct run *r, struct call *q)
{
    static const struct {
        const char *name;
        char group;
        bool strange;
    } names[] = {{"q.test", 'q', false},     {"one.r.test", 'r', false}, {"a.b.r.test", 'r', false},
                 {"nobody.test", 'q', true}, {"r.test", 'q', true},      {NULL, 'q', true}};
    size_t i = sim_below(r->sim, AG_COUNT(names));

    q->group = names[i].group;
    q->strange = names[i].strange;
    q->ways = (struct tls_ways){.passes = true, .name = names[i].name};
}

static void make_call(struct run *r, struct call *q, uint32_t id)
{
    struct sim *s = r->sim;
    bool by_name = r->listens[SITE_SNI].open && sim_chance(s, 600);

    q->front.run = r;
    q->front.call = q;
    q->id = id;
    q->front.head[0] = 'R';
    q->front.head[1] = (uint8_t)(id >> 8);
    q->front.head[2] = (uint8_t)id;
    q->up = sim_chance(s, 200) ? 0 : (uint32_t)sim_below(s, sim_chance(s, 700) ? 3000 : BYTES_MAX);
    q->down =
        sim_chance(s, 200) ? 0 : (uint32_t)sim_below(s, sim_chance(s, 700) ? 3000 : BYTES_MAX);
    q->port = (uint16_t)(SITE_PORT + (by_name ? SITE_SNI : SITE_RELAY));
    q->tls = sim_chance(s, by_name ? 850 : 300);
    q->group = 'q';
    q->strange = by_name;
    q->ways = (struct tls_ways){.passes = true};
    if (by_name) {
        bool bad = r->weather.rude && sim_chance(s, 150);

        q->greeting = greeting_make(s, bad);
        q->rude |= bad;
    }
    if (by_name && q->tls) {
        choose_name(r, q);
    }
    choose_pace(&q->front);
    q->waits = sim_chance(s, 350);
    q->last = !q->waits && sim_chance(s, 350);
    q->rude |= r->weather.rude && sim_chance(s, 300);
    sim_at(s, sim_below(s, 2 * SIM_S), on_start, q);
}

/* ---- servers ---- */

static void on_accept(struct net_listener *l)
{
    struct relay_server *v = l->owner;
    struct net_end *e;

    while ((e = net_accept(l)) != NULL) {
        struct party *p = sim_alloc(v->run->sim, sizeof(*p));

        p->run = v->run;
        p->server = v;
        p->end = e;
        p->greets = v->group == 'r';
        e->owner = p;
        e->notify = on_notify;
        choose_pace(p);
        p->next = v->run->relays->accepted;
        v->run->relays->accepted = p;
        look_soon(p, 0);
    }
}

static void start_server(struct run *r, uint32_t i, char group)
{
    struct relay_server *v = &r->relays->servers[i];

    *v = (struct relay_server){.run = r, .group = group};
    v->listener = net_listen(r->sim, NET_IP(10, 1, 0, 15 + i), SITE_BEHIND, 64, on_accept, v);
}

/* ---- the run's ---- */

void relays_start(struct run *r)
{
    struct relays *all = sim_alloc(r->sim, sizeof(*all));

    r->relays = all;
    start_server(r, 0, 'q');
    start_server(r, 1, 'q');
    start_server(r, 2, 'r');
    all->call_count = (uint32_t)sim_between(r->sim, 1, CALLS_MAX);
    for (uint32_t i = 0; i < all->call_count; i++) {
        make_call(r, &all->calls[i], i);
    }
}

void relays_at_risk(struct run *r, uint32_t ports)
{
    for (uint32_t i = 0; r->relays && i < r->relays->call_count; i++) {
        struct call *q = &r->relays->calls[i];

        q->at_risk |= ports >> (q->port - SITE_PORT) & 1;
    }
}

bool relays_done(const struct run *r)
{
    return !r->relays || r->relays->over_count == r->relays->call_count;
}

uint32_t relays_open(const struct run *r)
{
    uint32_t n = 0;

    for (const struct party *p = r->relays ? r->relays->accepted : NULL; p; p = p->next) {
        n += p->end->open;
    }
    return n;
}
