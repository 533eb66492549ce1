#include "tests/sim/upstream_h2.h"

#include <errno.h>
#include <inttypes.h>

#define FIRST_US (60 * SIM_S)

static struct sim *sim_of(const struct up_h2 *u)
{
    return u->server->run->sim;
}

/* ---- the end of a connection ---- */

/* In order: what was written arrives, and what comes until then is read. */
void upstream_h2_close(struct up_h2 *u, bool reset)
{
    if (!u->end->open) {
        return;
    }
    sim_note(sim_of(u), "upstream: closes", u->end->conn->id, reset);
    if (reset) {
        net_abort(u->end);
    } else if (!u->end->shut) {
        net_shut(u->end);
    }
}

/* Says GOAWAY, and goes when the last stream is through. */
static void go(struct up_h2 *u)
{
    if (!u->going && u->end->open && !u->end->shut) {
        u->going = true;
        h2_put_goaway(&u->h, u->h.top_id, H2_NO_ERROR);
        upstream_h2_write_soon(u, 0);
    }
}

struct idle {
    struct up_h2 *up;
    uint32_t serial;
};

static void on_idle(struct sim *s, void *arg)
{
    struct idle *i = arg;

    if (i->up->serial == i->serial && i->up->h.open == 0 && h2_unwritten(&i->up->h) == 0) {
        sim_note(s, "upstream: idle", i->up->end->conn->id, 0);
        if (sim_chance(s, 700)) {
            go(i->up);
        } else {
            upstream_h2_close(i->up, net_is_taken(i->up->end) && sim_chance(s, 200));
        }
    }
}

static void wait_for_more(struct up_h2 *u, uint64_t max_us)
{
    struct idle *i = sim_alloc(sim_of(u), sizeof(*i));

    *i = (struct idle){u, u->serial};
    sim_at(sim_of(u), max_us, on_idle, i);
}

void upstream_h2_look_for_end(struct up_h2 *u)
{
    if (u->h.open > 0 || !u->end->open || u->end->shut || u->serial == 0) {
        return; /* a new connection is given time for its first request */
    }
    if (u->going && h2_unwritten(&u->h) == 0) {
        upstream_h2_close(u, false);
    } else if (!u->going) {
        wait_for_more(u, 1 + sim_below(sim_of(u), u->server->idle_us));
    }
}

/* ---- answers ---- */

static bool can_go(const struct call *c)
{
    return !c->st->reset_got && !c->st->reset_sent &&
           (c->state == CALL_ANSWERING ||
            (c->state == CALL_BODY && (h2_room(&c->u->h, c->st) > 0 || c->sent == c->told)));
}

/* False: nothing can be sent now. */
static bool produce(struct up_h2 *u)
{
    struct call *chosen = NULL;
    uint64_t n = 1;

    for (struct call *c = u->calls; c; c = c->next) {
        if (can_go(c) && sim_below(sim_of(u), n++) == 0) {
            chosen = c;
        }
    }
    if (!chosen) {
        return false;
    }
    if (sim_chance(sim_of(u), 20)) {
        h2_put_ping(&u->h, 7);
    }
    if (chosen->state == CALL_ANSWERING) {
        upstream_h2_begin(chosen);
    } else {
        upstream_h2_put_body(chosen);
    }
    return true;
}

static void on_answer_due(struct sim *s, void *arg)
{
    struct call *c = arg;

    (void)s;
    if (c->state == CALL_WAITING) {
        c->state = CALL_ANSWERING;
        upstream_h2_write_soon(c->u, 0);
    }
}

static void begin_answer(struct call *c)
{
    uint64_t max_us = c->u->server->delay_us;

    sim_at(sim_of(c->u), max_us ? sim_below(sim_of(c->u), max_us) : 0, on_answer_due, c);
}

/* ---- requests ---- */

static struct h2_stream *on_opened(struct h2 *h, uint32_t id)
{
    struct up_h2 *u = h->owner;
    struct call *c;

    u->serial++;
    if (u->going) {
        return NULL; /* it was told so */
    }
    c = sim_alloc(h->sim, sizeof(*c));
    c->u = u;
    message_begin(&c->message, h->sim, true, false);
    c->message.h2 = true;
    c->st = h2_open(h, id, &c->message);
    c->st->owner = c;
    c->next = u->calls;
    u->calls = c;
    return c->st;
}

/* As if it had never come. */
static bool refuse(struct call *c)
{
    struct sim *s = sim_of(c->u);

    if (c->q->refused || !sim_chance(s, 50)) {
        return false;
    }
    sim_note(s, "upstream: refuses", c->q->id, c->st->id);
    c->q->refused = true;
    c->q->seen--;
    c->state = CALL_DONE;
    h2_put_reset(&c->u->h, c->st, H2_REFUSED_STREAM);
    upstream_h2_write_soon(c->u, 0);
    return true;
}

static void on_head(struct h2 *h, struct h2_stream *st)
{
    struct call *c = st->owner;
    unsigned count;
    struct ag_span scheme = message_field(&c->message, ":scheme", &count);

    if (!ag_span_eq(scheme, ag_span_str(c->u->end->layer ? "https" : "http"))) {
        sim_fail(h->sim, "upstream: a scheme of %.*s", (int)scheme.len, (const char *)scheme.ptr);
    }
    c->q = upstream_identify(c->u->server, &c->message);
    st->q = c->q;
    sim_note(h->sim, "upstream: request", c->q->id, c->q->seen);
    if (refuse(c)) {
        return;
    }
    if (upstream_is_early(c->q)) {
        begin_answer(c);
    }
    if (--c->u->go_after == 0) {
        go(c->u);
    }
}

static void on_data(struct h2 *h, struct h2_stream *st, struct ag_span content)
{
    const struct call *c = st->owner;

    (void)h;
    upstream_check_content(c->u->server->run, c->q, &c->message, content);
}

static void on_end(struct h2 *h, struct h2_stream *st)
{
    struct call *c = st->owner;

    (void)h;
    upstream_complete(c->u->server->run, c->q, &c->message);
    if (!upstream_is_early(c->q)) {
        begin_answer(c);
    }
    upstream_h2_look_for_end(c->u);
}

static void on_reset(struct h2 *h, struct h2_stream *st, uint32_t code)
{
    struct call *c = st->owner;

    sim_note(h->sim, "upstream: is reset", st->id, code);
    c->state = CALL_DONE;
    upstream_h2_look_for_end(c->u);
}

static void on_goaway(struct h2 *h, uint32_t last, uint32_t code)
{
    const struct server *v = ((struct up_h2 *)h->owner)->server;

    (void)last;
    if (code != H2_NO_ERROR && !v->kills && !v->run->weather.shortage) {
        sim_fail(h->sim, "upstream: GOAWAY %u", code);
    }
}

static void on_pong(struct h2 *h, uint64_t opaque)
{
    (void)h;
    AG_ASSERT(opaque == 7);
}

static const struct h2_events events = {
    .opened = on_opened,
    .head = on_head,
    .data = on_data,
    .end = on_end,
    .reset = on_reset,
    .goaway = on_goaway,
    .ponged = on_pong,
};

/* ---- windows ---- */

static void on_grant(struct sim *s, void *arg)
{
    struct up_h2 *u = arg;

    (void)s;
    u->granting = false;
    if (!u->end->open) {
        return;
    }
    if (u->h.owed) {
        h2_grant(&u->h, NULL, (uint32_t)u->h.owed);
    }
    for (struct h2_stream *st = u->h.streams; st; st = st->next) {
        if (st->owed && !st->end_got && !st->reset_sent && !st->reset_got) {
            h2_grant(&u->h, st, (uint32_t)st->owed);
        }
    }
    upstream_h2_write_soon(u, 0);
}

static void grant(struct up_h2 *u)
{
    if (!u->granting && u->h.owed > 0) {
        u->granting = true;
        sim_at(sim_of(u), u->grant_us ? sim_below(sim_of(u), u->grant_us) : 0, on_grant, u);
    }
}

/* ---- events ---- */

static void on_write(struct sim *s, void *arg)
{
    struct up_h2 *u = arg;

    u->writing = false;
    while (u->end->open && !u->end->shut && (h2_unwritten(&u->h) > 0 || produce(u))) {
        size_t len = ag_min_size(h2_unwritten(&u->h), UPSTREAM_PIECE_MAX);
        int64_t n;

        if (u->server->piece_max && len > 0) {
            len = sim_between(s, 1, ag_min_u64(len, u->server->piece_max + u->h.out_at / 32));
        }
        if (!u->end->open || u->end->shut) {
            return;
        }
        n = len ? h2_write(&u->h, len) : 0;
        if (n < 0) {
            return; /* an error shows when it reads */
        }
        if (u->server->pause_us && h2_unwritten(&u->h) > 0) {
            upstream_h2_write_soon(u, u->server->pause_us);
            return;
        }
    }
    upstream_h2_look_for_end(u);
}

void upstream_h2_write_soon(struct up_h2 *u, uint64_t max_us)
{
    if (!u->writing) {
        u->writing = true;
        sim_at(sim_of(u), max_us ? sim_below(sim_of(u), max_us) : 0, on_write, u);
    }
}

static void read_soon(struct up_h2 *u);

static void on_read(struct sim *s, void *arg)
{
    struct up_h2 *u = arg;
    uint8_t buf[UPSTREAM_PIECE_MAX];

    u->reading = false;
    while (u->end->open && net_has_input(u->end)) {
        int64_t n = net_read(u->end, buf, sizeof(buf));

        if (n == -EAGAIN) {
            return; /* a part of a record */
        }
        if (n <= 0) {
            net_close(u->end);
            return;
        }
        sim_note(s, "upstream: read", u->end->conn->id, (uint64_t)n);
        if (u->end->shut) {
            continue; /* nobody looks at it any more */
        }
        h2_feed(&u->h, ag_span(buf, (size_t)n));
        grant(u);
        upstream_h2_write_soon(u, u->server->pause_us);
        if (u->server->pause_us) {
            read_soon(u);
            return;
        }
    }
}

static void read_soon(struct up_h2 *u)
{
    if (!u->reading) {
        uint64_t max_us = u->server->pause_us;

        u->reading = true;
        sim_at(sim_of(u), max_us ? sim_below(sim_of(u), max_us) : 0, on_read, u);
    }
}

static void on_notify(struct net_end *e)
{
    struct up_h2 *u = e->owner;

    if (net_has_input(e)) {
        read_soon(u);
    }
    if (net_has_room(e) && h2_unwritten(&u->h) > 0) {
        upstream_h2_write_soon(u, u->server->pause_us);
    }
}

static void greet(struct up_h2 *u)
{
    /* Whose windows are of some bytes is taken for somebody who wants to keep a proxy busy. */
    static const uint32_t windows[] = {40, 4000, 20000, 100000, 1000000};
    struct sim *s = sim_of(u);
    struct h2_pair pairs[8];
    unsigned count = 0;

    if (sim_chance(s, 400)) {
        pairs[count++] = (struct h2_pair){
            H2_INITIAL_WINDOW,
            windows[sim_between(s, u->server->kills ? 0 : 1, AG_COUNT(windows) - 1)]};
    }
    if (sim_chance(s, 300)) {
        pairs[count++] = (struct h2_pair){H2_MAX_STREAMS, (uint32_t)sim_between(s, 1, 6)};
    }
    if (sim_chance(s, 300)) {
        pairs[count++] = (struct h2_pair){H2_TABLE_SIZE, (uint32_t)sim_below(s, 6000)};
    }
    if (sim_chance(s, 200)) {
        pairs[count++] = (struct h2_pair){0x7a7a, 12345};
    }
    h2_put_settings(&u->h, pairs, count);
    u->go_after = sim_chance(s, 300) ? (uint32_t)sim_between(s, 1, 6) : UINT32_MAX;
    u->grant_us = sim_chance(s, 500) ? sim_below(s, 20 * SIM_MS) : 0;
    upstream_h2_write_soon(u, u->server->delay_us);
}

void upstream_h2_accept(struct net_listener *l)
{
    struct server *v = l->owner;
    struct net_end *e;

    while ((e = upstream_take(l)) != NULL) {
        struct up_h2 *u = sim_alloc(v->run->sim, sizeof(*u));

        u->server = v;
        u->end = e;
        e->owner = u;
        e->notify = on_notify;
        e->forgets = sim_chance(v->run->sim, 300);
        u->next = v->run->upstreams_h2;
        v->run->upstreams_h2 = u;
        h2_init(&u->h, v->run->sim, e, true, &events, u);
        greet(u);
        wait_for_more(u, FIRST_US);
    }
}

void upstream_h2_kill(struct server *v)
{
    for (struct up_h2 *u = v->run->upstreams_h2; u; u = u->next) {
        if (u->server == v && u->end->open) {
            net_abort(u->end);
        }
    }
}

uint32_t upstream_h2_open(const struct run *r)
{
    uint32_t n = 0;

    for (const struct up_h2 *u = r->upstreams_h2; u; u = u->next) {
        n += u->end->open;
    }
    return n;
}
