#include "tests/sim/upstream_h2.h"

#include <inttypes.h>

#define SLOW_PIECES 8u
#define SLOW_US     (SIM_S)

static struct sim *sim_of(const struct up_h2 *u)
{
    return u->server->run->sim;
}

static void put_interims(struct call *c, uint64_t count)
{
    struct h2 *h = &c->u->h;

    for (uint64_t i = 0; i < count; i++) {
        h2_head_begin(h);
        h2_head_printf(h, ":status", "%u", i % 2 ? 102u : 103u);
        h2_head_printf(h, "link", "</%" PRIu64 ">", i);
        h2_head_end(h, c->st, false);
    }
}

static void begin_head(struct call *c, unsigned status)
{
    struct h2 *h = &c->u->h;

    h2_head_begin(h);
    h2_head_printf(h, ":status", "%u", status);
    h2_head_printf(h, "x-id", "%u", c->q->id);
    if (sim_chance(h->sim, 50)) {
        h2_head_printf(h, "x-long", "%0200d", 0);
    }
}

static bool is_length_told(const struct request *q)
{
    return q->plan != PLAN_CHUNKED && q->plan != PLAN_CLOSE;
}

/* Malformed, or an end of another kind. */
static void put_bad_head(struct call *c)
{
    struct h2 *h = &c->u->h;
    const struct request *q = c->q;

    begin_head(c, q->plan == PLAN_SWITCH ? 101 : 200);
    if (q->plan == PLAN_GARBAGE) {
        h2_head_raw(h, q->id % 2 ? AG_SPAN("X-Upper") : AG_SPAN("connection"), AG_SPAN("close"));
    } else if (q->plan == PLAN_TWO_LENGTHS) {
        h2_head_put(h, "content-length", AG_SPAN("3"));
        h2_head_put(h, "content-length", AG_SPAN("4"));
    }
    h2_head_end(h, c->st, false);
    c->state = CALL_DONE;
}

static void put_large_head(struct call *c)
{
    struct h2 *h = &c->u->h;

    h2_head_begin(h);
    h2_head_put(h, ":status", AG_SPAN("200"));
    for (uint32_t i = 0; h->head.len < 36000; i++) {
        h2_head_printf(h, "x-fill", "%0150u", i);
    }
    h2_head_end(h, c->st, false);
    c->state = CALL_DONE;
}

/* It will say that it has done nothing: all may be asked again. */
static void disown(struct up_h2 *u)
{
    for (struct call *c = u->calls; c; c = c->next) {
        if (c->q && !h2_is_over(c->st)) {
            c->q->seen -= c->q->seen > 0;
        }
    }
}

/* The connection goes with it. */
static void kill_connection(struct call *c)
{
    struct up_h2 *u = c->u;

    c->state = CALL_DONE;
    switch (sim_below(sim_of(u), 5)) {
    case 0:
        disown(u);
        h2_put_goaway(&u->h, 0, H2_INTERNAL_ERROR);
        u->going = true;
        (void)h2_write(&u->h, UPSTREAM_PIECE_MAX);
        upstream_h2_close(u, false);
        break;
    case 1:
        h2_put_raw(&u->h, "HTTP/1.1 400 Bad Request\r\n\r\n", 28);
        break;
    case 2:
        h2_put_frame(&u->h, H2_HEADERS, 0, c->st->id, "\x88", 1);
        (void)h2_write(&u->h, UPSTREAM_PIECE_MAX);
        upstream_h2_close(u, false);
        break;
    case 3:
        h2_put_frame(&u->h, H2_PUSH_PROMISE, H2_END_HEADERS, c->st->id, "\0\0\0\2\x88", 5);
        break;
    default:
        upstream_h2_close(u, true);
        break;
    }
}

static void fail_call(struct call *c)
{
    static const uint32_t codes[] = {H2_CANCEL, H2_INTERNAL_ERROR, H2_PROTOCOL_ERROR, H2_CALM};

    c->state = CALL_DONE;
    if (c->u->server->kills && sim_chance(sim_of(c->u), 500)) {
        kill_connection(c);
    } else if (!c->st->reset_got) {
        h2_put_reset(&c->u->h, c->st, codes[sim_below(sim_of(c->u), AG_COUNT(codes))]);
    }
    upstream_h2_look_for_end(c->u);
}

static bool is_cut(const struct request *q)
{
    return q->plan == PLAN_STALL || q->plan == PLAN_CUT_FIN || q->plan == PLAN_CUT_RST;
}

/* Puts the head; content follows when the state is BODY. */
static void put_head(struct call *c)
{
    struct h2 *h = &c->u->h;
    const struct request *q = c->q;
    bool none = q->head || q->plan == PLAN_EMPTY;

    if (q->plan == PLAN_INTERIM || q->plan == PLAN_STORM) {
        put_interims(c, q->plan == PLAN_STORM ? 20 : sim_between(h->sim, 1, 16));
    }
    begin_head(c, q->plan == PLAN_EMPTY ? 204 : 200);
    c->told = is_cut(q) ? q->answer_bytes / 2 : q->answer_bytes;
    if (q->plan != PLAN_EMPTY && is_length_told(q)) {
        h2_head_printf(h, "content-length", "%u",
                       q->plan == PLAN_BAD_CHUNK ? q->answer_bytes + 10 : q->answer_bytes);
    }
    if (q->plan == PLAN_EXTRA) {
        c->told += 5;
    }
    h2_head_end(h, c->st, none);
    c->state = none ? CALL_DONE : CALL_BODY;
}

/* The head, or what stands in its place. */
void upstream_h2_begin(struct call *c)
{
    c->q->answering = true;
    sim_note(sim_of(c->u), "upstream: answers", c->q->id, c->q->plan);
    switch ((enum plan)c->q->plan) {
    case PLAN_NO_ANSWER:
        c->state = CALL_DONE;
        break;
    case PLAN_CUT_HEAD:
    case PLAN_CLOSED:
    case PLAN_RESET:
        fail_call(c);
        break;
    case PLAN_GARBAGE:
    case PLAN_TWO_LENGTHS:
    case PLAN_SWITCH:
        put_bad_head(c);
        break;
    case PLAN_LARGE_HEAD:
        if (c->u->server->kills) {
            put_large_head(c);
        } else {
            fail_call(c);
        }
        break;
    case PLAN_LENGTH:
    case PLAN_CHUNKED:
    case PLAN_CLOSE:
    case PLAN_EMPTY:
    case PLAN_INTERIM:
    case PLAN_EARLY:
    case PLAN_EARLY_CLOSE:
    case PLAN_STORM:
    case PLAN_STALL:
    case PLAN_CUT_FIN:
    case PLAN_CUT_RST:
    case PLAN_EXTRA:
    case PLAN_BAD_CHUNK:
    case PLANS:
        put_head(c);
        break;
    }
}

static void end_answer(struct call *c, bool ended)
{
    struct h2 *h = &c->u->h;

    c->state = CALL_DONE;
    if (!ended) { /* with trailers */
        h2_head_begin(h);
        h2_head_put(h, "x-trailer", AG_SPAN("t"));
        h2_head_end(h, c->st, true);
    }
    if (c->q->plan == PLAN_EARLY_CLOSE && !c->st->end_got) {
        h2_put_reset(h, c->st, H2_NO_ERROR);
    }
    upstream_h2_look_for_end(c->u);
}

static void on_pause_over(struct sim *s, void *arg)
{
    struct call *c = arg;

    (void)s;
    if (c->state == CALL_PAUSED) {
        c->state = CALL_BODY;
        upstream_h2_write_soon(c->u, 0);
    }
}

void upstream_h2_put_body(struct call *c)
{
    struct sim *s = sim_of(c->u);
    uint8_t piece[H2_FRAME_MIN];
    uint32_t left = c->told - c->sent;
    uint32_t n = (uint32_t)ag_min_u64(left, h2_room(&c->u->h, c->st));
    bool trailers = c->q->plan == PLAN_CHUNKED && c->q->id % 3 == 0, last;

    if (is_cut(c->q) && left == 0) {
        c->state = CALL_DONE;
        if (c->q->plan != PLAN_STALL) {
            fail_call(c);
        }
        return;
    }
    if (c->q->slow) {
        n = (uint32_t)ag_min_u64(n, c->told / SLOW_PIECES + 1);
    } else if (n > 0 && sim_chance(s, 300)) {
        n = (uint32_t)sim_between(s, 1, n);
    }
    last = n == left && !is_cut(c->q);
    content_fill(answer_key(c->q), c->sent, piece, n);
    h2_put_data(&c->u->h, c->st, ag_span(piece, n), last && !trailers);
    c->sent += n;
    if (last) {
        end_answer(c, !trailers);
    } else if (c->q->slow) {
        c->state = CALL_PAUSED;
        sim_at(s, sim_below(s, SLOW_US), on_pause_over, c);
    }
}
