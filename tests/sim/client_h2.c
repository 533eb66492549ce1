#include "tests/sim/client_h2.h"

#include <errno.h>
#include <inttypes.h>

#define PIECE_MAX 16384u
#define EXPECT_US (1 * SIM_S)
#define DEAF_US   (90 * SIM_S)
/* Who lets less come at once gives each crumb back, which looks like a flood. */
#define WINDOW_MIN 256u

static void read_soon(struct client *c);

static struct sim *sim_of(const struct client *c)
{
    return c->run->sim;
}

/* ---- lanes ---- */

static struct client *client_of(const struct h2 *h)
{
    return ((struct client_h2 *)h->owner)->client;
}

static bool is_under_way(const struct lane *l)
{
    return l->st && !l->settled;
}

static uint32_t under_way(const struct client_h2 *v)
{
    return v->opened - v->settled;
}

void client_h2_each(struct client *c, void (*fn)(struct run *, struct request *, bool began))
{
    for (uint32_t i = 0; i < c->h2->opened; i++) {
        if (is_under_way(&c->h2->lanes[i])) {
            fn(c->run, c->h2->lanes[i].q, c->h2->lanes[i].arrival.began);
        }
    }
}

static void on_finish(struct sim *s, void *arg)
{
    (void)s;
    client_finish(arg);
}

/* Through with all of them: it goes, or waits for the server to do so. */
static void look_for_end(struct client *c)
{
    struct client_h2 *v = c->h2;

    if (v->ended || under_way(v) > 0 || (v->opened < c->request_count && !v->told)) {
        return;
    }
    v->ended = true;
    if (c->manners.half_close || v->lingers) {
        client_h2_write_soon(c, 0);
    } else if (!c->manners.stays && !v->told) {
        if (sim_chance(sim_of(c), 500)) {
            h2_put_goaway(&v->h, 0, H2_NO_ERROR);
            client_h2_write_soon(c, 0);
        }
        sim_at(sim_of(c), sim_below(sim_of(c), 20 * SIM_MS), on_finish, c);
    }
}

void client_h2_settle(struct lane *l)
{
    struct client *c = l->client;

    if (l->settled) {
        return;
    }
    l->settled = true;
    c->h2->settled++;
    c->answered++;
    sim_note(sim_of(c), "client: settled", l->q->id, c->answered);
    client_h2_write_soon(c, c->manners.think_us);
    look_for_end(c);
}

static void begin_arrival(struct lane *l)
{
    struct arrival *a = &l->arrival;

    message_begin(&a->message, sim_of(l->client), false, l->q->head);
    a->text = a->text ? a->text : sim_alloc_raw(sim_of(l->client), RUN_TEXT_MAX);
    a->began = false;
}

/* ---- what comes ---- */

static void on_interim(struct lane *l)
{
    const struct request *q = l->q;
    unsigned status = l->arrival.message.status;

    sim_note(sim_of(l->client), "client: interim", q->id, status);
    if (status == 100 ? !q->expect : q->kind != REQUEST_PROXY) {
        sim_fail(sim_of(l->client), "client %u: unexpected %u before the answer to request %u",
                 l->client->index, status, q->id);
    }
    if (status == 100 && l->waits_for_100) {
        l->waits_for_100 = false;
        client_h2_write_soon(l->client, l->client->manners.pause_us);
    }
}

static void on_head(struct h2 *h, struct h2_stream *st)
{
    struct lane *l = st->owner;

    if (!l || l->settled) {
        return;
    }
    if (!st->headed) {
        on_interim(l);
        return;
    }
    l->arrival.began = true;
    oracle_head(client_of(h)->run, client_of(h), l->q, &l->arrival);
    l->tunnel = l->q->kind == REQUEST_TUNNEL && l->arrival.message.status == 200;
    if (l->tunnel) {
        client_of(h)->h2->lingers = true;
        sim_note(h->sim, "client: tunnel", l->q->id, st->id);
    }
}

static void on_data(struct h2 *h, struct h2_stream *st, struct ag_span content)
{
    struct lane *l = st->owner;

    if (l && !l->settled) {
        oracle_content(client_of(h)->run, client_of(h), l->q, &l->arrival, content);
    }
}

static void on_end(struct h2 *h, struct h2_stream *st)
{
    struct lane *l = st->owner;

    if (l && !l->settled) {
        if (l->tunnel) {
            client_h2_end_tunnel(l);
            return;
        }
        oracle_answer(client_of(h)->run, client_of(h), l->q, &l->arrival);
        client_h2_settle(l); /* what is not sent of it goes on until it is told not to */
    }
}

static void on_reset(struct h2 *h, struct h2_stream *st, uint32_t code)
{
    struct lane *l = st->owner;

    sim_note(h->sim, "client: reset", st->id, code);
    if (l && !l->settled) {
        oracle_reset(client_of(h)->run, client_of(h), l->q, code);
        client_h2_settle(l);
    }
}

static void on_goaway(struct h2 *h, uint32_t last, uint32_t code)
{
    struct client *c = client_of(h);
    struct client_h2 *v = c->h2;
    /* Who falls silent within it made no mistake yet. */
    bool done = v->antic && v->antic_done && h2_unwritten(h) == 0;

    oracle_goaway(c->run, c, code, done ? antic_codes(v->antic) : 0,
                  done && antic_is_flood(v->antic));
    v->told |= !v->opens_on || last != H2_ID_MAX;
    for (uint32_t i = 0; i < v->opened; i++) {
        struct lane *l = &v->lanes[i];

        if (is_under_way(l) && l->st->id > last) {
            oracle_reset(c->run, c, l->q, H2_REFUSED_STREAM);
            client_h2_settle(l);
        }
    }
    look_for_end(c);
}

static void on_pong(struct h2 *h, uint64_t opaque)
{
    const struct client_h2 *v = h->owner;

    if (opaque == ANTIC_PING && v->antic && !antic_is_flood(v->antic) &&
        !(v->told && antic_is_unseen(v->antic))) {
        sim_fail(h->sim, "client %u: a mistake was not seen", v->client->index);
    }
}

static const struct h2_events events = {
    .head = on_head,
    .data = on_data,
    .end = on_end,
    .reset = on_reset,
    .goaway = on_goaway,
    .ponged = on_pong,
};

/* ---- the end of the connection ---- */

static void ended(struct client *c, bool by_error)
{
    struct client_h2 *v = c->h2;
    bool told = v->h.going;

    if (!by_error && !h2_is_between(&v->h)) {
        sim_fail(sim_of(c), "client %u: it ends within a frame", c->index);
    }
    oracle_gone_h2(c->run, c, by_error, v->h.other, told);
    for (uint32_t i = 0; i < c->request_count; i++) {
        struct lane *l = &v->lanes[i];

        if (is_under_way(l)) {
            oracle_unanswered(c->run, c, l->q, by_error);
        }
    }
    client_finish(c);
}

/* ---- sending ---- */

static void on_no_100(struct sim *s, void *arg)
{
    struct lane *l = arg;

    (void)s;
    if (l->waits_for_100) {
        l->waits_for_100 = false;
        client_h2_write_soon(l->client, 0);
    }
}

static bool may_open(const struct client_h2 *v)
{
    const struct client *c = v->client;

    return v->opened < c->request_count && under_way(v) < c->manners.depth && !v->told &&
           v->h.open < v->h.peer_streams_max &&
           (v->lanes[v->opened].q->kind != REQUEST_TUNNEL || v->h.peer_connect);
}

void client_h2_sent(struct lane *l)
{
    struct client *c = l->client;

    l->q->sent_us = l->q->sent_us ? l->q->sent_us : sim_of(c)->now_us;
    c->sending++;
    if (c->sending == c->request_count && c->manners.deaf_at_end) {
        sim_at(sim_of(c), DEAF_US, on_finish, c);
    }
}

static void open_next(struct client_h2 *v)
{
    struct lane *l = &v->lanes[v->opened++];
    struct request *q = l->q;

    begin_arrival(l);
    q->config_first = v->client->run->config_settled;
    l->st = request_put_h2(&v->h, q, &l->arrival.message);
    l->st->owner = l;
    sim_note(v->h.sim, "client: opens", q->id, l->st->id);
    if (l->st->end_sent) {
        client_h2_sent(l);
    } else if (q->kind == REQUEST_TUNNEL) {
        q->sent_us = v->h.sim->now_us; /* its time runs from here */
    } else if (q->expect) {
        l->waits_for_100 = true;
        sim_at(v->h.sim, EXPECT_US, on_no_100, l);
    }
}

/* It has content left, and may send some. */
static bool can_send(const struct client_h2 *v, const struct lane *l)
{
    return l->st && !l->st->end_sent && !l->st->reset_sent && !l->st->reset_got &&
           !l->waits_for_100 &&
           (l->q->kind == REQUEST_TUNNEL
                ? client_h2_can_tunnel(v, l)
                : h2_room(&v->h, l->st) > 0 || l->sent == l->q->body_bytes);
}

static void send_content(struct client_h2 *v, struct lane *l)
{
    struct sim *s = v->h.sim;
    uint32_t left = l->q->body_bytes - l->sent;
    uint32_t most = (uint32_t)ag_min_u64(left, h2_room(&v->h, l->st));
    uint32_t n = most > 0 && sim_chance(s, 500) ? (uint32_t)sim_between(s, 1, most) : most;

    if (l->q->kind == REQUEST_TUNNEL) {
        client_h2_tunnel(v, l);
        return;
    }
    request_put_content_h2(&v->h, l->st, l->q, l->sent, n);
    l->sent += n;
    if (l->st->end_sent) {
        client_h2_sent(l);
    }
}

/* Something that changes nothing. */
static void put_aside(struct client_h2 *v)
{
    struct sim *s = v->h.sim;
    const struct h2_pair change[] = {
        {H2_INITIAL_WINDOW, (uint32_t)sim_between(s, WINDOW_MIN, 100000)},
        {H2_TABLE_SIZE, (uint32_t)sim_below(s, 8192)},
    };

    switch (sim_below(s, 5)) {
    case 0:
        h2_put_ping(&v->h, 1);
        break;
    case 1:
        if (v->h.pending_count < 2 && v->grant != GRANT_DRIBBLE) {
            h2_put_settings(&v->h, change + sim_below(s, 2), 1);
        }
        break;
    case 2:
        h2_put_frame(&v->h, H2_PRIORITY, 0, v->h.next_id, "\0\0\0\0\x10", 5);
        break;
    case 3:
        h2_put_frame(&v->h, 0x77, 0x55, v->h.top_id, "unknown", 7);
        break;
    default:
        h2_put_frame(&v->h, H2_PRIORITY_UPDATE, 0, 0, "\0\0\0\x01u=2,i", 9);
        break;
    }
}

static void cancel_some(struct client_h2 *v)
{
    struct lane *l = &v->lanes[sim_below(v->h.sim, v->opened)];

    if (is_under_way(l) && !h2_is_over(l->st)) {
        sim_note(v->h.sim, "client: cancels", l->q->id, l->st->id);
        l->q->cancelled = true;
        h2_put_reset(&v->h, l->st, sim_chance(v->h.sim, 800) ? H2_CANCEL : H2_NO_ERROR);
        client_h2_settle(l);
    }
}

/* Puts one thing to be sent; false: there is none. */
static bool produce(struct client_h2 *v)
{
    struct lane *can[LANES];
    uint64_t count = 0, n;
    bool opens = may_open(v);

    for (uint32_t i = 0; i < v->opened; i++) {
        if (can_send(v, &v->lanes[i])) {
            can[count++] = &v->lanes[i];
        }
    }
    if (count + opens == 0) {
        return false;
    }
    v->things++;
    if (v->antic && !v->antic_done && v->things > v->antic_at) {
        antic_do(v);
        return true;
    }
    if (v->opened && sim_chance(v->h.sim, v->cancel_per_mille)) {
        cancel_some(v);
        return true;
    }
    if (sim_chance(v->h.sim, 30)) {
        put_aside(v);
    }
    n = sim_below(v->h.sim, count + opens);
    if (n < count) {
        send_content(v, can[n]);
    } else {
        open_next(v);
    }
    return true;
}

static size_t piece_of(struct client *c)
{
    const struct manners *m = &c->manners;
    size_t n = ag_min_size(h2_unwritten(&c->h2->h), PIECE_MAX);

    if (m->piece_max && n > 0) {
        n = sim_between(sim_of(c), 1, ag_min_u64(n, m->piece_max + c->sent_total / 32));
    }
    if (!m->leave_reading) {
        n = ag_min_u64(n, m->leave_at - c->sent_total);
    }
    return ag_min_u64(n, m->stop_at - c->sent_total);
}

static void on_write(struct sim *s, void *arg)
{
    struct client *c = arg;
    struct client_h2 *v = c->h2;

    (void)s;
    c->writing = false;
    if (c->done || c->silent || c->end->conn->state != NET_OPEN || c->end->shut) {
        return;
    }
    while (h2_unwritten(&v->h) > 0 || produce(v)) {
        size_t len;
        int64_t n;

        if (!c->manners.leave_reading && c->sent_total >= c->manners.leave_at) {
            client_leave(c);
            return;
        }
        if (c->sent_total >= c->manners.stop_at) {
            c->silent = true;
            return;
        }
        len = piece_of(c);
        if (len == 0) {
            continue; /* nothing came of it */
        }
        n = h2_write(&v->h, len);
        if (n < 0) {
            c->broken |= n != -EAGAIN;
            return; /* the end shows when it reads */
        }
        c->sent_total += (uint64_t)n;
        if (c->manners.pause_us) {
            client_h2_write_soon(c, c->manners.pause_us);
            return;
        }
    }
    if (v->ended && (c->manners.half_close || v->lingers)) {
        net_shut(c->end);
    }
}

void client_h2_write_soon(struct client *c, uint64_t max_us)
{
    if (!c->writing) {
        c->writing = true;
        sim_at(sim_of(c), max_us ? sim_below(sim_of(c), max_us) : 0, on_write, c);
    }
}

/* ---- reading ---- */

static bool is_deaf(const struct client *c)
{
    return c->manners.deaf_at_end && c->sending == c->request_count;
}

/* False: the connection is over, for this client. */
static bool read_piece(struct client *c)
{
    uint8_t buf[PIECE_MAX];
    uint64_t max = sizeof(buf);
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
    h2_feed(&c->h2->h, ag_span(buf, (size_t)n));
    client_h2_grant(c);
    if (!c->silent) {
        client_h2_write_soon(c, c->manners.pause_us);
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
    while (!c->done && !is_deaf(c) && net_has_input(c->end)) {
        if (!read_piece(c)) {
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

void client_h2_notify(struct net_end *e)
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
        client_h2_write_soon(c, c->manners.pause_us);
    }
}

/* ---- the beginning ---- */

void client_h2_start(struct client *c)
{
    struct client_h2 *v = c->h2;
    struct sim *s = sim_of(c);
    struct h2_pair pairs[8];
    unsigned count = 0;

    h2_init(&v->h, s, c->end, false, &events, v);
    h2_put_raw(&v->h, H2_PREFACE, sizeof(H2_PREFACE) - 1);
    if (v->first_window != H2_WINDOW) {
        pairs[count++] = (struct h2_pair){H2_INITIAL_WINDOW, v->first_window};
    }
    if (sim_chance(s, 300)) {
        pairs[count++] = (struct h2_pair){H2_TABLE_SIZE, (uint32_t)sim_below(s, 6000)};
    }
    if (sim_chance(s, 300)) {
        pairs[count++] =
            (struct h2_pair){H2_MAX_FRAME, H2_FRAME_MIN + (uint32_t)sim_below(s, H2_FRAME_MIN)};
    }
    if (sim_chance(s, 500)) {
        pairs[count++] = (struct h2_pair){H2_ENABLE_PUSH, 0};
    }
    if (sim_chance(s, 300)) {
        pairs[count++] = (struct h2_pair){H2_NO_PRIORITIES, 1};
    }
    if (sim_chance(s, 200)) {
        pairs[count++] = (struct h2_pair){0x7a7a, 12345}; /* GREASE */
    }
    h2_put_settings(&v->h, pairs, count);
    client_h2_open_windows(c);
}

void client_h2_make(struct client *c)
{
    struct sim *s = sim_of(c);
    struct client_h2 *v = c->h2 = sim_alloc(s, sizeof(*v));

    AG_ASSERT(c->request_count <= LANES);
    v->client = c;
    for (uint32_t i = 0; i < c->request_count; i++) {
        v->lanes[i] = (struct lane){.client = c, .q = c->requests[i]};
    }
    client_h2_choose_windows(v);
    v->opens_on = sim_chance(s, 300);
    v->cancel_per_mille = !c->probe && sim_chance(s, 250) ? (uint32_t)sim_between(s, 5, 100) : 0;
    c->manners.depth = (uint32_t)sim_between(s, 1, LANES);
    if (c->manners.rude) {
        if (sim_chance(s, 400)) {
            v->antic = antic_choose(s);
            v->antic_at = (uint32_t)sim_below(s, 12);
        } else if (sim_chance(s, 200)) {
            v->grant = GRANT_NEVER;
        }
    }
}
