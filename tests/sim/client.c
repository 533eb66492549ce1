#include "tests/sim/run.h"

#include <errno.h>
#include <inttypes.h>

#define DISCARD_MIN 32768u /* the least that a configuration lets a server drop */
#define PIECE_MAX   16384u
#define HEAD_BYTES  100u /* of a request over HTTP/2, about */
/* How long a client waits for 100 before it sends its content all the same. */
#define EXPECT_US (1 * SIM_S)
/* Whatever becomes of it, it must be over by then. */
#define LIFE_US (400 * SIM_S)
/* One that does not read goes after this long. */
#define DEAF_US (90 * SIM_S)

static void write_soon(struct client *c, uint64_t max_us);

static struct sim *sim_of(const struct client *c)
{
    return c->run->sim;
}

/* ---- the end ---- */

void client_finish(struct client *c)
{
    if (c->done) {
        return;
    }
    c->done = true;
    c->run->clients_done++;
    sim_note(sim_of(c), "client: done", c->index, c->answered);
    if (c->end->open) {
        if (c->manners.leave_by_reset && c->gone) {
            net_abort(c->end);
        } else {
            net_close(c->end);
        }
    }
}

void client_leave(struct client *c)
{
    c->gone = true;
    client_finish(c);
}

static void on_finish(struct sim *s, void *arg)
{
    (void)s;
    client_finish(arg);
}

static void on_life_over(struct sim *s, void *arg)
{
    struct client *c = arg;

    if (!c->done && c->received_total + c->sent_total > c->moved_then) { /* by a small window */
        c->moved_then = c->received_total + c->sent_total;
        sim_at(s, LIFE_US, on_life_over, c);
    } else if (!c->done) {
        sim_fail(s, "client %u hangs: %u of %u answers, conn %u", c->index, c->answered,
                 c->request_count, c->end->conn->id);
    }
}

static void on_deaf_over(struct sim *s, void *arg)
{
    struct client *c = arg;

    (void)s;
    if (!c->done) {
        client_leave(c);
    }
}

/* The server has ended the connection, or the network has. */
static void ended(struct client *c, bool by_error)
{
    if (c->tunnel) {
        client_tunnel_look(c);
        return;
    }
    if (!by_error && c->arrival.message.begun && c->answered < c->request_count) {
        struct request *q = c->requests[c->answered];

        message_end(&c->arrival.message);
        if (c->arrival.message.state == MESSAGE_DONE && c->arrival.began) {
            oracle_answer(c->run, c, q, &c->arrival);
            c->answered++;
            c->told_close = true; /* the end was its framing */
        }
    }
    oracle_gone(c->run, c, by_error);
    client_finish(c);
}

/* ---- sending ---- */

static bool may_start(const struct client *c)
{
    return c->sending < c->request_count && c->sending - c->answered < c->manners.depth &&
           !c->told_close;
}

/* How much of the request may go now. */
static size_t piece_of(struct client *c, const struct request *q)
{
    size_t end = c->waits_for_100 ? q->wire_head : q->wire_len, n = end - c->sent;
    const struct manners *m = &c->manners;

    if (m->piece_max && n > 0) {
        n = sim_between(sim_of(c), 1, ag_min_u64(n, m->piece_max + c->sent_total / 32));
    }
    if (!m->leave_reading) {
        n = ag_min_u64(n, m->leave_at - c->sent_total);
    }
    return ag_min_u64(n, m->stop_at - c->sent_total);
}

static void on_no_100(struct sim *s, void *arg)
{
    struct client *c = arg;

    (void)s;
    if (c->waits_for_100) {
        c->waits_for_100 = false;
        write_soon(c, 0);
    }
}

static void on_request_sent(struct client *c, struct request *q)
{
    q->sent_us = sim_of(c)->now_us;
    c->sending++;
    c->sent = 0;
    if (c->sending < c->request_count) {
        return;
    }
    if (c->manners.half_close) {
        net_shut(c->end);
    }
    if (c->manners.deaf_at_end) {
        sim_at(sim_of(c), DEAF_US, on_deaf_over, c);
    }
}

/* False: nothing more can be written now. */
static bool write_piece(struct client *c)
{
    struct request *q = c->requests[c->sending];
    int64_t n;
    size_t len;

    if (c->sent == 0) {
        q->config_first = c->run->config_settled;
        if (q->expect && !c->waits_for_100 && q->wire_head < q->wire_len) {
            c->waits_for_100 = true;
            sim_at(sim_of(c), EXPECT_US, on_no_100, c);
        }
    }
    len = piece_of(c, q);
    if (len == 0) {
        return false;
    }
    n = net_write(c->end, q->wire + c->sent, ag_min_size(len, PIECE_MAX));
    if (n < 0) {
        c->broken |= n != -EAGAIN;
        return false; /* the end shows when it reads */
    }
    c->sent += (size_t)n;
    c->sent_total += (uint64_t)n;
    if (c->sent == q->wire_len) {
        on_request_sent(c, q);
    }
    return true;
}

static void on_write(struct sim *s, void *arg)
{
    struct client *c = arg;

    (void)s;
    c->writing = false;
    if (c->done || c->silent || c->end->conn->state != NET_OPEN) {
        return;
    }
    if (c->tunnel) {
        client_tunnel_look(c);
        return;
    }
    while ((c->sent > 0 || may_start(c)) && c->sending < c->request_count) {
        if (!c->manners.leave_reading && c->sent_total >= c->manners.leave_at) {
            client_leave(c);
            return;
        }
        if (c->sent_total >= c->manners.stop_at) {
            c->silent = true;
            return;
        }
        if (!write_piece(c)) {
            return;
        }
        if (c->manners.pause_us) {
            write_soon(c, c->manners.pause_us);
            return;
        }
    }
}

static void write_soon(struct client *c, uint64_t max_us)
{
    if (!c->writing) {
        c->writing = true;
        sim_at(sim_of(c), max_us ? sim_below(sim_of(c), max_us) : 0, on_write, c);
    }
}

/* ---- answers ---- */

static void next_answer(struct client *c)
{
    bool head = c->answered < c->request_count && c->requests[c->answered]->head;

    message_begin(&c->arrival.message, sim_of(c), false, head);
    c->arrival.began = false;
}

static void on_interim(struct client *c)
{
    const struct request *q = c->requests[c->answered];
    unsigned status = c->arrival.message.status;

    sim_note(sim_of(c), "client: interim", q->id, status);
    if (q->version_10 || (status == 100 ? !q->expect : q->kind != REQUEST_PROXY)) {
        sim_fail(sim_of(c), "client %u: unexpected %u before the answer to request %u", c->index,
                 status, q->id);
    }
    if (status == 100 && c->waits_for_100 && c->sending == c->answered) {
        c->waits_for_100 = false;
        write_soon(c, c->manners.pause_us);
    }
}

static void on_answered(struct client *c)
{
    struct request *q = c->requests[c->answered];
    bool unsent = c->sending == c->answered; /* answered before all of it was sent */

    oracle_answer(c->run, c, q, &c->arrival);
    c->answered++;
    if (q->kind == REQUEST_TUNNEL && c->arrival.message.status == 101) {
        client_tunnel_begin(c);
        return;
    }
    if (!c->arrival.message.keep_alive) {
        c->told_close = true;
    }
    c->discarded |= q->chunked && q->body_bytes > DISCARD_MIN;
    /* More than was told is seen behind it, over HTTP/2. */
    c->discarded |= q->plan == PLAN_EXTRA && (q->upstream == 'h' || q->upstream == 'g');
    c->discards_length |= q->body_bytes > DISCARD_MIN;
    if (unsent && c->waits_for_100) {
        if (!c->told_close) {
            sim_fail(sim_of(c), "client %u: request %u: who waits for 100 cannot go on", c->index,
                     q->id);
        }
        c->silent = true;
    }
    next_answer(c);
    if (c->told_close) {
        return; /* the server closes */
    }
    if (c->answered < c->request_count) {
        write_soon(c, c->manners.think_us);
    } else if (!c->manners.stays && !c->manners.half_close) {
        sim_at(sim_of(c), sim_below(sim_of(c), 20 * SIM_MS), on_finish, c);
    }
}

static size_t feed(struct client *c, struct ag_span in)
{
    struct message *m = &c->arrival.message;
    struct ag_span body;
    size_t used;

    if (c->answered >= c->request_count ||
        (c->answered > c->sending || (c->answered == c->sending && c->sent == 0))) {
        sim_fail(sim_of(c), "client %u: an answer to no request: %.*s", c->index,
                 (int)ag_min_size(in.len, 60), (const char *)in.ptr);
    }
    used = message_feed(m, in, &body);
    if (m->state == MESSAGE_BAD) {
        sim_fail(sim_of(c), "client %u: malformed answer to request %u: %s", c->index,
                 c->requests[c->answered]->id, m->error);
    }
    if (m->head_seen && m->status < 200 && m->status != 101) {
        on_interim(c);
        next_answer(c);
        return used;
    }
    if (m->head_seen && !c->arrival.began) {
        c->arrival.began = true;
        oracle_head(c->run, c, c->requests[c->answered], &c->arrival);
    }
    if (body.len) {
        oracle_content(c->run, c, c->requests[c->answered], &c->arrival, body);
    }
    if (m->state == MESSAGE_DONE) {
        on_answered(c);
    }
    return used;
}

/* ---- reading ---- */

static void read_soon(struct client *c);

static bool is_deaf(const struct client *c)
{
    return c->manners.deaf_at_end && c->sending == c->request_count;
}

/* False: the connection is over, for this client. */
static bool read_piece(struct client *c)
{
    uint8_t buf[PIECE_MAX];
    size_t max = sizeof(buf);
    int64_t n;

    if (c->manners.read_max) {
        max = ag_min_u64(max, c->manners.read_max + c->received_total / 32);
    }
    if (c->manners.leave_reading) {
        max = ag_min_u64(max, c->manners.leave_at - c->received_total);
    }
    n = net_read(c->end, buf, max);
    if (n <= 0) {
        if (n != -EAGAIN) {
            ended(c, n < 0 || c->broken);
        }
        return false;
    }
    c->received_total += (uint64_t)n;
    sim_note(sim_of(c), "client: read", c->index, (uint64_t)n);
    sim_show(sim_of(c), buf, (size_t)n);
    for (size_t at = 0; at < (size_t)n && !c->tunnel;) {
        at += feed(c, ag_span(buf + at, (size_t)n - at));
        if (c->tunnel && at < (size_t)n) {
            client_tunnel_bytes(c, ag_span(buf + at, (size_t)n - at));
        }
    }
    if (c->manners.leave_reading && c->received_total >= c->manners.leave_at && !c->done) {
        client_leave(c);
    }
    return !c->done;
}

static void on_read(struct sim *s, void *arg)
{
    struct client *c = arg;

    (void)s;
    c->reading = false;
    if (c->tunnel) {
        client_tunnel_look(c);
        return;
    }
    while (!c->done && !is_deaf(c) && net_has_input(c->end)) {
        if (!read_piece(c)) {
            return;
        }
        if (c->tunnel) {
            client_tunnel_look(c);
            return;
        }
        if (c->manners.read_us) {
            read_soon(c);
            return;
        }
    }
}

static void read_soon(struct client *c)
{
    if (!c->reading) {
        c->reading = true;
        sim_at(sim_of(c), c->manners.read_us ? sim_below(sim_of(c), c->manners.read_us) : 0,
               on_read, c);
    }
}

static void on_notify(struct net_end *e)
{
    struct client *c = e->owner;

    if (c->done) {
        return;
    }
    if (e->conn->state == NET_FAILED) {
        oracle_refused(c->run, c);
        client_finish(c);
        return;
    }
    if (net_has_input(e)) {
        if (is_deaf(c) && e->dead) {
            client_leave(c);
            return;
        }
        read_soon(c);
    }
    if (net_has_room(e)) {
        write_soon(c, c->manners.pause_us);
    }
}

/* ---- the beginning ---- */

static void on_start(struct sim *s, void *arg)
{
    struct client *c = arg;
    struct run *r = c->run;

    c->end = net_connect(s, NET_IP(192, 168, 0, c->index + 1), SITE_IP, c->port,
                         c->h2 ? client_h2_notify : on_notify, c);
    c->end->forgets = sim_chance(s, 500);
    c->config_first = r->config_settled;
    c->started_us = s->now_us;
    greeting_send(c->end, c->greeting);
    if (c->tls) {
        tls_connect(c->end, &c->ways);
    }
    c->port_at_risk = !r->listens[c->port - SITE_PORT].open;
    c->drained_under = r->draining || r->yielding;
    sim_at(s, LIFE_US, on_life_over, c);
    if (c->h2) {
        client_h2_start(c);
    }
}

void client_start(struct client *c, uint64_t delay_us)
{
    sim_at(sim_of(c), delay_us, on_start, c);
}

static void choose_rudeness(struct client *c)
{
    struct sim *s = sim_of(c);
    struct manners *m = &c->manners;
    uint64_t total = 0;

    for (uint32_t i = 0; i < c->request_count; i++) {
        total += c->requests[i]->wire_len ? c->requests[i]->wire_len
                                          : c->requests[i]->body_bytes + HEAD_BYTES;
    }
    m->rude = true;
    if (c->tls && sim_chance(s, 400)) {
        c->ways.harm = sim_chance(s, 600) ? TLS_SPOIL : TLS_SILENCE;
        c->ways.harm_at = sim_below(s, sim_chance(s, 500) ? 900 : 900 + total);
        return;
    }
    switch (sim_below(s, 6)) {
    case 0:
        m->leave_at = sim_below(s, total + 1);
        m->leave_by_reset = sim_chance(s, 500);
        break;
    case 1:
        m->leave_reading = true;
        m->leave_at = sim_between(s, 1, 30000);
        m->leave_by_reset = sim_chance(s, 500);
        break;
    case 2:
        m->stop_at = sim_below(s, total + 1);
        break;
    case 3:
        m->deaf_at_end = true;
        break;
    case 4: /* reads slowly */
        m->read_max = (uint32_t)sim_between(s, 100, 5000);
        m->read_us = sim_between(s, 100 * SIM_MS, SIM_S);
        break;
    default: /* sends slowly */
        m->piece_max = (uint32_t)sim_between(s, 1, 500);
        m->pause_us = sim_between(s, 100 * SIM_MS, SIM_S);
        break;
    }
}

static void choose_manners(struct client *c, bool probe)
{
    struct sim *s = sim_of(c);
    struct manners *m = &c->manners;
    const struct request *last = c->requests[c->request_count - 1];

    m->depth = sim_chance(s, 400) ? (uint32_t)sim_between(s, 2, 8) : 1;
    m->stop_at = m->leave_at = UINT64_MAX;
    if (sim_chance(s, 500)) {
        m->piece_max = (uint32_t)sim_between(s, 1, sim_chance(s, 300) ? 8 : 3000);
        m->pause_us = m->piece_max > 64 ? sim_below(s, 5 * SIM_MS) : sim_below(s, 100);
    }
    if (sim_chance(s, 500)) {
        m->read_max = (uint32_t)sim_between(s, 1, 3000);
        m->read_us = sim_below(s, m->read_max > 64 ? 3 * SIM_MS : 100);
    }
    m->think_us = sim_chance(s, 300) ? sim_below(s, 500 * SIM_MS) : 0;
    m->stays = sim_chance(s, 200);
    m->half_close = last->kind != REQUEST_TUNNEL && sim_chance(s, 100);
    if (!probe && c->run->weather.rude && sim_chance(s, 500)) {
        choose_rudeness(c);
    }
}

static void choose_port(struct client *c, bool probe, bool h2)
{
    const struct run *r = c->run;

    c->port = SITE_PORT;
    for (uint16_t i = 1; i < SITE_TLS && !probe; i++) {
        if (r->listens[i].open && sim_chance(r->sim, 300)) {
            c->port = (uint16_t)(SITE_PORT + i);
        }
    }
    if (r->listens[SITE_TLS].open && sim_chance(r->sim, 650)) {
        c->port = SITE_PORT + SITE_TLS;
        c->tls = true;
        c->ways = (struct tls_ways){.h2 = h2,
                                    .resumes = !r->weather.shortage && !r->weather.more,
                                    .generations = run_tls_generations,
                                    .settings = run_tls_settings,
                                    .stapled = run_tls_stapled};
        if (r->weather.more) {
            c->ways.shows = (uint8_t)sim_below(r->sim, 3);
            c->ways.asks_status = sim_chance(r->sim, 600);
        }
    }
}

/* Behind a balancer that says whose it is. */
static void choose_greeting(struct client *c)
{
    const struct run *r = c->run;
    uint32_t port = c->tls ? SITE_GREETED_TLS : SITE_GREETED;

    if (r->weather.more && r->listens[port].open && sim_chance(r->sim, 400)) {
        c->port = (uint16_t)(SITE_PORT + port);
        c->greeting = greeting_make(r->sim, c->manners.rude && sim_chance(r->sim, 200));
    }
}

struct client *client_make(struct run *r, bool probe)
{
    struct sim *s = r->sim;
    struct client *c = sim_alloc(s, sizeof(*c));
    bool h2;

    AG_ASSERT(r->client_count < RUN_CLIENTS);
    c->run = r;
    c->index = r->client_count;
    c->probe = probe;
    r->clients[r->client_count++] = c;
    h2 = sim_chance(s, 350);
    c->request_count = (uint32_t)sim_between(s, 1, sim_chance(s, 300) ? 8 : h2 ? 5 : 3);
    for (uint32_t i = 0; i < c->request_count; i++) {
        c->requests[i] = request_make(r, c, probe, h2);
        if (!h2 && (c->requests[i]->kind == REQUEST_TUNNEL || c->requests[i]->close)) {
            c->request_count = i + 1; /* the connection is not one for requests afterwards */
        }
    }
    for (uint32_t i = 0; i < c->request_count && !h2; i++) {
        request_write(r, c->requests[i]);
    }
    choose_port(c, probe, h2);
    c->arrival.text = sim_alloc_raw(s, RUN_TEXT_MAX);
    choose_manners(c, probe);
    choose_greeting(c);
    if (h2) {
        client_h2_make(c);
    } else {
        next_answer(c);
    }
    return c;
}
