#include "tests/sim/upstream.h"

#include <errno.h>
#include <inttypes.h>

#define SERVERS   13u
#define PIECE_MAX 16384u
#define FIRST_US  (60 * SIM_S)
/* A slow answer comes in so many pieces, at most so far from each other: less than any timeout. */
#define SLOW_PIECES 8u
#define SLOW_US     (SIM_S)

struct up {
    struct server *server;
    struct net_end *end;
    struct message message;
    struct request *q; /* NULL: idle, or its head is on the way */
    struct answer answer;
    size_t sent;
    uint32_t serial; /* of requests: a late event knows its own */
    bool answering, answered;
    bool read_all; /* the request's content */
    bool tunnel;
    bool input_ended; /* of a tunnel */
    uint64_t tunnel_sent, tunnel_got;
    bool reading, writing; /* an event is under way */
    bool waits;            /* nothing of its answer found room */
    bool greets;           /* a PROXY header is to come first */
    struct greeting_seen greeting;
    struct up *next;
};

struct upstreams {
    struct server servers[SERVERS];
    uint32_t server_count;
    struct up *all;
};

static void write_soon(struct up *u, uint64_t max_us);
static void read_soon(struct up *u);

static struct sim *sim_of(const struct up *u)
{
    return u->server->run->sim;
}

/* ---- the end of a connection ---- */

static void close_now(struct up *u, bool reset)
{
    if (u->end->open) {
        if (reset) {
            net_abort(u->end);
        } else {
            net_close(u->end);
        }
    }
}

struct idle {
    struct up *up;
    uint32_t serial;
};

static void on_idle(struct sim *s, void *arg)
{
    struct idle *i = arg;

    if (i->up->serial == i->serial && !i->up->message.begun) {
        sim_note(s, "upstream: idle", i->up->end->conn->id, 0);
        close_now(i->up, net_is_taken(i->up->end) && sim_chance(s, 200));
    }
}

static void next_request(struct up *u)
{
    struct idle *i = sim_alloc(sim_of(u), sizeof(*i));

    message_begin(&u->message, sim_of(u), true, false);
    u->q = NULL;
    u->answering = u->answered = u->read_all = false;
    u->sent = 0;
    *i = (struct idle){u, ++u->serial};
    /* A new connection is given time for its first request. */
    sim_at(sim_of(u), u->serial == 1 ? FIRST_US : sim_below(sim_of(u), u->server->idle_us), on_idle,
           i);
}

/* ---- requests ---- */

static void begin_answer(struct up *u)
{
    if (!u->answering) {
        u->answering = true;
        answer_make(sim_of(u), u->q, !u->message.keep_alive,
                    u->server->piece_max == 0 && u->end->conn->profile.piece_max == 0, &u->answer);
        write_soon(u, u->server->delay_us);
    }
}

static void on_head(struct up *u)
{
    u->q = upstream_identify(u->server, &u->message);
    sim_note(sim_of(u), "upstream: request", u->q->id, u->q->seen);
    if (u->server->group == 'p') {
        greeting_check(u->end, &u->greeting, u->q->client->end, u->q->client->greeting);
    }
    if (upstream_is_early(u->q)) {
        begin_answer(u);
    }
}

/* Answer and request are both through: the next one, unless the connection has ended. */
static void settle(struct up *u)
{
    if (u->answered && u->read_all && u->end->open && !u->tunnel) {
        next_request(u);
        if (net_has_input(u->end)) {
            read_soon(u);
        }
    }
}

static void on_complete(struct up *u)
{
    struct request *q = u->q;

    upstream_complete(u->server->run, q, &u->message);
    u->read_all = true;
    begin_answer(u);
    settle(u);
}

/* A check of the server's, on a connection of its own: it is told that all is well, or not, or nothing. */
static bool is_check(struct up *u)
{
    static const char well[] = "HTTP/1.1 204 Well\r\n\r\n";
    static const char ill[] = "HTTP/1.1 503 Ill\r\nContent-Length: 3\r\n\r\nill";
    uint64_t chance;

    if (!ag_span_eq(u->message.target, AG_SPAN("/healthz"))) {
        return false;
    }
    chance = sim_below(sim_of(u), 10);
    sim_note(sim_of(u), "upstream: check", u->end->conn->id, chance);
    if (chance > 0) {
        bool ok = chance > 2;

        (void)net_write(u->end, (const uint8_t *)(ok ? well : ill),
                        ok ? sizeof(well) - 1 : sizeof(ill) - 1);
        close_now(u, false);
    }
    return true;
}

static size_t feed(struct up *u, struct ag_span in)
{
    struct message *m = &u->message;
    struct ag_span body;
    size_t used;

    if (u->read_all && u->q) {
        sim_fail(sim_of(u), "upstream: bytes behind request %u, which has no answer yet", u->q->id);
    }
    used = message_feed(m, in, &body);
    if (m->state == MESSAGE_BAD) {
        sim_fail(sim_of(u), "upstream: malformed request: %s: %.*s", m->error,
                 (int)ag_min_size(m->head_len, 200), (const char *)m->head);
    }
    if (m->head_seen && !u->q) {
        if (is_check(u)) {
            return in.len;
        }
        on_head(u);
    }
    if (body.len) {
        upstream_check_content(u->server->run, u->q, &u->message, body);
    }
    if (m->state == MESSAGE_DONE) {
        on_complete(u);
    }
    return used;
}

/* ---- tunnels ---- */

static void tunnel_bytes(struct up *u, struct ag_span bytes)
{
    if (bytes.len > u->q->tunnel_up - u->tunnel_got ||
        !content_is(request_key(u->q), u->tunnel_got, bytes)) {
        sim_fail(sim_of(u), "upstream: wrong bytes at %" PRIu64 " of the tunnel of request %u",
                 u->tunnel_got, u->q->id);
    }
    u->tunnel_got += bytes.len;
}

static void tunnel_write(struct up *u)
{
    const struct request *q = u->q;

    while (u->end->open && u->tunnel_sent < q->tunnel_down) {
        struct ag_span piece = content_at(answer_key(q), u->tunnel_sent,
                                          ag_min_u64(q->tunnel_down - u->tunnel_sent,
                                                     q->slow ? q->tunnel_down / SLOW_PIECES + 1
                                                             : sim_between(sim_of(u), 1, 20000)));
        int64_t n = net_write(u->end, piece.ptr, piece.len);

        if (n < 0) {
            return;
        }
        u->tunnel_sent += (uint64_t)n;
        if (q->slow && u->tunnel_sent < q->tunnel_down) {
            write_soon(u, SLOW_US);
            return;
        }
    }
    if (u->end->open && u->tunnel_sent == q->tunnel_down) {
        if (u->input_ended) {
            close_now(u, false);
        } else if (q->id % 2 == 0) {
            net_shut(u->end);
        }
    }
}

/* The other side has ended its part: this one ends, when it has sent all. */
static void tunnel_input_ended(struct up *u, bool by_error)
{
    const struct request *q = u->q;
    /* Nothing has come of one whose answer took too long to arrive as a whole. */
    uint32_t ends = u->tunnel_got == 0 ? OUT_CUT | OUT_504 : OUT_CUT;

    u->input_ended = true;
    if (!by_error && u->tunnel_got != q->tunnel_up &&
        !(oracle_allows(u->server->run, q->client, q) & ends)) {
        sim_fail(sim_of(u), "upstream: the tunnel of request %u ends after %" PRIu64 " of %u",
                 q->id, u->tunnel_got, q->tunnel_up);
    }
    if (by_error || u->tunnel_sent == q->tunnel_down || u->end->dead) {
        close_now(u, false);
    }
}

/* ---- events ---- */

static void finish_answer(struct up *u)
{
    u->answered = true;
    if (u->q->kind == REQUEST_TUNNEL && u->answer.end == ANSWER_KEEP && !u->q->refused_upgrade) {
        u->tunnel = true;
        tunnel_write(u);
        return;
    }
    switch ((enum answer_end)u->answer.end) {
    case ANSWER_KEEP:
        settle(u);
        return;
    case ANSWER_FIN:
        close_now(u, false);
        return;
    case ANSWER_RST:
        close_now(u, true);
        return;
    case ANSWER_STALL:
        u->answered = false; /* it never ends */
        return;
    }
}

static void on_write(struct sim *s, void *arg)
{
    struct up *u = arg;

    u->writing = false;
    if (!u->end->open) {
        return;
    }
    if (u->tunnel) {
        tunnel_write(u);
        return;
    }
    while (u->answering && !u->answered && u->sent < u->answer.len) {
        size_t len = ag_min_size(u->answer.len - u->sent, PIECE_MAX);
        int64_t n;

        if (u->q->slow) {
            len = ag_min_size(len, u->answer.len / SLOW_PIECES + 1);
        } else if (u->server->piece_max) {
            len = sim_between(s, 1, ag_min_u64(len, u->server->piece_max + u->sent / 32));
        }
        n = net_write(u->end, u->answer.bytes + u->sent, len);
        u->waits = n == -EAGAIN;
        if (n < 0) {
            return; /* an error shows when it reads */
        }
        u->q->answering = true;
        u->sent += (size_t)n;
        if ((u->server->pause_us || u->q->slow) && u->sent < u->answer.len) {
            write_soon(u, u->q->slow ? SLOW_US : u->server->pause_us);
            return;
        }
    }
    if (u->answering && !u->answered && u->sent == u->answer.len) {
        finish_answer(u);
    }
}

static void write_soon(struct up *u, uint64_t max_us)
{
    if (!u->writing) {
        u->writing = true;
        sim_at(sim_of(u), max_us ? sim_below(sim_of(u), max_us) : 0, on_write, u);
    }
}

static void on_read(struct sim *s, void *arg)
{
    struct up *u = arg;
    uint8_t buf[PIECE_MAX];
    int64_t n;

    u->reading = false;
    while (u->end->open && !u->input_ended && net_has_input(u->end)) {
        n = net_read(u->end, buf, sizeof(buf));
        if (n == -EAGAIN) {
            return; /* a part of a record */
        }
        if (n <= 0) {
            if (u->tunnel) {
                tunnel_input_ended(u, n < 0);
            } else {
                close_now(u, false);
            }
            return;
        }
        sim_note(s, "upstream: read", u->end->conn->id, (uint64_t)n);
        sim_show(s, buf, (size_t)n);
        for (size_t at = 0; at < (size_t)n && u->end->open;) {
            if (u->tunnel) {
                tunnel_bytes(u, ag_span(buf + at, (size_t)n - at));
                break;
            }
            at += feed(u, ag_span(buf + at, (size_t)n - at));
        }
        if (u->server->pause_us) {
            read_soon(u);
            return;
        }
    }
}

static void read_soon(struct up *u)
{
    if (!u->reading) {
        uint64_t max_us = u->server->pause_us;

        u->reading = true;
        sim_at(sim_of(u), max_us ? sim_below(sim_of(u), max_us) : 0, on_read, u);
    }
}

/* Takes the header, and lets TLS begin behind it. False: it is not whole, or will not be. */
static bool greet(struct up *u)
{
    int64_t n = greeting_read(u->end, &u->greeting);

    if (n <= 0) {
        if (n != -EAGAIN) {
            close_now(u, false);
        }
        return false;
    }
    u->greets = false;
    if (u->end->conn->server_port == TLS_PORT) {
        tls_accept(u->end, false, false);
        tls_demand(u->end);
        u->end->layer->notify(u->end);
    }
    return true;
}

static void on_notify(struct net_end *e)
{
    struct up *u = e->owner;

    if (u->greets && !greet(u)) {
        return;
    }
    if (e->dead && u->input_ended) {
        close_now(u, false);
        return;
    }
    if (net_has_input(e) && !u->input_ended) {
        read_soon(u);
    }
    if (net_has_room(e) && (u->tunnel || (u->answering && (u->sent > 0 || u->waits)))) {
        write_soon(u, u->server->pause_us);
    }
}

static void on_accept(struct net_listener *l)
{
    struct server *v = l->owner;
    struct net_end *e;

    while ((e = upstream_take(l)) != NULL) {
        struct up *u = sim_alloc(v->run->sim, sizeof(*u));

        u->server = v;
        u->end = e;
        e->owner = u;
        e->notify = on_notify;
        e->forgets = sim_chance(v->run->sim, 300);
        u->greets = v->group == 'p';
        u->next = v->run->upstreams->all;
        v->run->upstreams->all = u;
        next_request(u);
    }
}

/* ---- servers ---- */

struct net_end *upstream_take(struct net_listener *l)
{
    const struct server *v = l->owner;
    struct net_end *e = net_accept(l);

    if (e && l->port == TLS_PORT && v->group != 'p') {
        tls_accept(e, v->h2, v->group == 'x');
    }
    return e;
}

void upstream_listen(struct server *v)
{
    void (*accept)(struct net_listener *) = v->h2 ? upstream_h2_accept : on_accept;
    struct sim *s = v->run->sim;

    v->tls = net_listen(s, v->ip, TLS_PORT, 64, accept, v);
    v->listener = v->group == 'x' ? NULL : net_listen(s, v->ip, 80, 64, accept, v);
}

static void on_return(struct sim *s, void *arg)
{
    (void)s;
    upstream_listen(arg);
}

/* One of the servers ends, and all that it is at; it comes again later. */
static void on_death(struct sim *s, void *arg)
{
    struct upstreams *all = arg;
    struct server *v = &all->servers[sim_below(s, all->server_count)];

    if (v->run->probing) {
        return;
    }
    if (v->listener) {
        sim_note(s, "upstream: dies", v->ip & 255, 0);
        net_unlisten(v->listener);
        net_unlisten(v->tls);
        v->listener = v->tls = NULL;
        for (const struct up *u = all->all; u; u = u->next) {
            if (u->server == v && u->end->open) {
                net_abort(u->end);
            }
        }
        upstream_h2_kill(v);
        sim_at(s, sim_below(s, 2 * SIM_S), on_return, v);
    }
    sim_at(s, sim_below(s, 5 * SIM_S), on_death, all);
}

static void start_server(struct run *r, char group, uint32_t ip)
{
    struct sim *s = r->sim;
    struct server *v = &r->upstreams->servers[r->upstreams->server_count++];

    *v = (struct server){.run = r, .group = group, .ip = ip};
    v->h2 = group == 'h' || group == 'g';
    v->kills = group == 'g';
    upstream_listen(v);
    v->idle_us = sim_between(s, SIM_MS, sim_chance(s, 500) ? 100 * SIM_MS : 10 * SIM_S);
    if (group == 'c' && !r->weather.flaky) {
        return; /* who waits for one of its few connections gets one soon */
    }
    v->delay_us = sim_chance(s, 500) ? sim_below(s, 300 * SIM_MS) : 0;
    if (sim_chance(s, 400)) {
        v->piece_max = (uint32_t)sim_between(s, 1, sim_chance(s, 300) ? 8 : 3000);
        v->pause_us = v->piece_max > 64 ? sim_below(s, 5 * SIM_MS) : sim_below(s, 100);
    }
}

void upstreams_start(struct run *r)
{
    r->upstreams = sim_alloc(r->sim, sizeof(*r->upstreams));
    start_server(r, 'a', NET_IP(10, 1, 0, 1));
    start_server(r, 'a', NET_IP(10, 1, 0, 2));
    start_server(r, 'b', NET_IP(10, 1, 0, 3));
    start_server(r, 'b', NET_IP(10, 1, 0, 4));
    start_server(r, 'c', NET_IP(10, 1, 0, 5));
    start_server(r, 'n', NET_IP(10, 1, 0, 6));
    start_server(r, 'n', NET_IP(10, 1, 0, 7));
    if (r->weather.tls) {
        start_server(r, 'x', NET_IP(10, 1, 0, 9));
    }
    start_server(r, 'h', NET_IP(10, 1, 0, 10));
    start_server(r, 'h', NET_IP(10, 1, 0, 11));
    start_server(r, 'g', NET_IP(10, 1, 0, 12));
    start_server(r, 'g', NET_IP(10, 1, 0, 13));
    if (r->weather.more) {
        start_server(r, 'p', NET_IP(10, 1, 0, 14));
    }
    if (r->weather.upstream_storms) {
        sim_at(r->sim, sim_below(r->sim, 3 * SIM_S), on_death, r->upstreams);
    }
}

uint32_t upstreams_open(const struct run *r)
{
    uint32_t n = 0;

    for (const struct up *u = r->upstreams->all; u; u = u->next) {
        n += u->end->open;
    }
    return n + upstream_h2_open(r);
}
