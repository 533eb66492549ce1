#include "actions/upstream_parts.h"

static const struct ag_stream_user conn_user;

static struct ag_upstream_conn *of(struct ag_stream *s)
{
    return ag_container_of(ag_conn_of(s), struct ag_upstream_conn, conn);
}

static uint64_t now_of(const struct ag_upstream_conn *c)
{
    return c->conn.stream.loop->now_ms;
}

static void set_state(struct ag_upstream_conn *c, enum ag_upstream_conn_state to)
{
    static const uint8_t edges[] = {
        [AG_UPSTREAM_CONNECTING] = 1u << AG_UPSTREAM_ACTIVE | 1u << AG_UPSTREAM_CLOSING,
        [AG_UPSTREAM_ACTIVE] = 1u << AG_UPSTREAM_IDLE | 1u << AG_UPSTREAM_CLOSING,
        [AG_UPSTREAM_IDLE] = 1u << AG_UPSTREAM_ACTIVE | 1u << AG_UPSTREAM_CLOSING,
        [AG_UPSTREAM_CLOSING] = 0,
    };

    AG_ASSERT(edges[c->state] & 1u << to);
    c->state = (uint8_t)to;
}

/* ---- time ---- */

/* The earlier of two points in time; 0 is never. */
static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a == 0 || (b != 0 && b < a) ? b : a;
}

static uint64_t after(uint64_t from_ms, uint32_t ms)
{
    return ms ? from_ms + ms : 0;
}

/* The request waits to be sent, and not for its answer yet. */
static bool is_sending(const struct ag_upstream_conn *c)
{
    return ag_stream_queued(&c->conn.stream) > 0 && !(c->h1.req_done && c->h1.head_done);
}

/* When anything moved last, either way. */
static uint64_t moved_ms(const struct ag_upstream_conn *c)
{
    uint64_t now = now_of(c), sent = now - (uint32_t)((uint32_t)now - c->conn.stream.sent_ms);

    return c->h1.progress_ms > sent ? c->h1.progress_ms : sent;
}

/* When the call is late in its present phase; *out_what says for what. */
static uint64_t phase_due(const struct ag_upstream_conn *c, const char **out_what)
{
    const struct ag_upstream_timeouts *t = c->claim->timeouts;
    const struct ag_h1_client *h = &c->h1;

    if (h->state == AG_H1_CLIENT_TUNNEL) {
        *out_what = "upstream: idle timeout";
        return after(moved_ms(c), t->idle_ms);
    }
    if (is_sending(c)) {
        *out_what = "write to upstream: timeout";
        return after(moved_ms(c), t->write_ms);
    }
    if (h->paused || (!h->req_done && !h->head_done)) {
        return 0; /* the client is who is waited for; its own limits hold */
    }
    if (!h->head_done) {
        *out_what = "wait for upstream's answer: timeout";
        return after(moved_ms(c), t->first_byte_ms);
    }
    *out_what = "read from upstream: timeout";
    return after(h->progress_ms, t->read_ms);
}

/* When something is to be done about it; 0: never. */
static uint64_t due_of(const struct ag_upstream_conn *c, const char **out_what)
{
    switch ((enum ag_upstream_conn_state)c->state) {
    case AG_UPSTREAM_CONNECTING:
        return c->opened_ms + c->claim->timeouts->connect_ms;
    case AG_UPSTREAM_ACTIVE: {
        const struct ag_upstream_claim *claim = c->claim;
        uint64_t phase = phase_due(c, out_what);
        uint64_t total = after(claim->started_ms, claim->timeouts->total_ms);

        if (total && earlier(phase, total) == total) {
            *out_what = "upstream: total timeout";
            return total;
        }
        return phase;
    }
    case AG_UPSTREAM_IDLE: {
        const struct ag_upstream_options *o = &c->peer->pool->options;
        return earlier(c->idle_ms + o->idle_timeout_ms, after(c->opened_ms, o->max_age_ms));
    }
    case AG_UPSTREAM_CLOSING:
        return 0;
    }
    AG_UNREACHABLE("a state that is none");
}

/* The longest that a call's phase may go unlooked at: phases change without a word, and the next one
 * may be shorter. */
static uint64_t look_again(const struct ag_upstream_conn *c)
{
    const struct ag_upstream_timeouts *t = c->claim->timeouts;
    uint64_t shortest =
        earlier(earlier(t->first_byte_ms, t->read_ms), earlier(t->write_ms, t->idle_ms));

    return shortest ? now_of(c) + shortest : 0;
}

/* Sees to it that the deadline fires by then. One that fires earlier only looks and waits on, so that
 * a connection in use costs no timer work per call. */
static void watch(struct ag_upstream_conn *c)
{
    const char *what = NULL;
    uint64_t due = due_of(c, &what);

    if (c->state == AG_UPSTREAM_ACTIVE) {
        due = earlier(due, look_again(c));
    }
    if (due && earlier(c->alarm_ms, due) != c->alarm_ms) {
        c->alarm_ms = due;
        ag_stream_deadline(&c->conn.stream, due > now_of(c) ? due - now_of(c) : 0);
    }
}

static void on_deadline(struct ag_stream *s)
{
    struct ag_upstream_conn *c = of(s);
    const char *what = NULL;
    uint64_t due = due_of(c, &what);

    c->alarm_ms = 0;
    if (due && due <= now_of(c) && c->state == AG_UPSTREAM_ACTIVE && ag_stream_has_moved(s)) {
        c->h1.progress_ms = now_of(c); /* what the kernel has taken may still be on its way */
        due = due_of(c, &what);
    }
    if (due == 0 || due > now_of(c)) {
        watch(c);
    } else if (c->state == AG_UPSTREAM_IDLE) {
        ag_upstream_conn_close(c);
    } else {
        c->claim->late = what;
        ag_stream_abort(s, AG_REASON_TIMEOUT);
    }
}

void ag_upstream_watch(struct ag_upstream_claim *c)
{
    AG_ASSERT(c->state == AG_CLAIM_GIVEN);
    ag_stream_look_anew(&c->conn->conn.stream);
    watch(c->conn);
}

/* ---- the end ---- */

/* Leaves its peer's stack. */
static void leave_idle(struct ag_upstream_conn *c)
{
    AG_ASSERT(c->state == AG_UPSTREAM_IDLE);
    ag_list_remove(&c->link);
    c->peer->pool->idle_count--;
}

void ag_upstream_conn_close(struct ag_upstream_conn *c)
{
    if (c->state == AG_UPSTREAM_IDLE) {
        leave_idle(c);
    }
    /* A call that is still on is told by the stream's end. */
    if (c->state != AG_UPSTREAM_CLOSING && !c->claim) {
        set_state(c, AG_UPSTREAM_CLOSING);
    }
    ag_stream_abort(&c->conn.stream, AG_REASON_NONE);
}

static void on_close(struct ag_stream *s, enum ag_reason why)
{
    struct ag_upstream_conn *c = of(s);
    struct ag_upstream_pool *pool = c->peer->pool;
    struct ag_upstream_claim *claim = c->claim;
    bool connecting = c->state == AG_UPSTREAM_CONNECTING;

    if (c->state == AG_UPSTREAM_IDLE) {
        leave_idle(c);
    }
    if (!connecting) {
        ag_h1_client_closed(&c->h1, why); /* a call that fails gives the connection back */
    }
    c->claim = NULL;
    ag_list_remove(&c->live);
    pool->conn_count--;
    ag_pool_put(&pool->all->conns, c);
    ag_upstream_wake(pool);
    if (connecting && claim) {
        claim->conn = NULL;
        ag_upstream_connect_failed(claim, why == AG_REASON_NONE ? AG_REASON_EOF : why);
    }
}

/* ---- idle ---- */

/* It may have been told of its end in this very turn. */
static bool is_alive(const struct ag_upstream_conn *c)
{
    const struct ag_upstream_options *o = &c->peer->pool->options;

    return c->h1.state == AG_H1_CLIENT_READY &&
           (!o->max_age_ms || now_of(c) - c->opened_ms < o->max_age_ms);
}

struct ag_upstream_conn *ag_upstream_take_idle(struct ag_upstream_peer *p)
{
    while (!ag_list_empty(&p->idle)) {
        struct ag_upstream_conn *c = ag_container_of(p->idle.next, struct ag_upstream_conn, link);

        if (is_alive(c)) {
            leave_idle(c);
            return c;
        }
        ag_upstream_conn_close(c);
    }
    return NULL;
}

void ag_upstream_evict(struct ag_upstream_pool *pool)
{
    struct ag_upstream_conn *oldest = NULL;

    for (uint32_t i = 0; i < pool->peer_count; i++) {
        struct ag_link *idle = &pool->peers[i]->idle;
        struct ag_upstream_conn *c = ag_container_of(idle->prev, struct ag_upstream_conn, link);

        if (!ag_list_empty(idle) && (!oldest || c->idle_ms < oldest->idle_ms)) {
            oldest = c;
        }
    }
    AG_ASSERT(oldest);
    ag_upstream_conn_close(oldest);
}

void ag_upstream_give(struct ag_upstream_claim *claim, struct ag_upstream_conn *c)
{
    set_state(c, AG_UPSTREAM_ACTIVE);
    c->calls++;
    c->claim = claim;
    claim->conn = c;
    claim->state = AG_CLAIM_GIVEN;
}

void ag_upstream_release(struct ag_upstream_claim *claim, bool reusable)
{
    struct ag_upstream_conn *c = claim->conn;
    struct ag_upstream_pool *pool = c->peer->pool;
    const struct ag_upstream_options *o = &pool->options;

    AG_ASSERT(claim->state == AG_CLAIM_GIVEN);
    claim->state = AG_CLAIM_OVER;
    claim->conn = NULL;
    c->claim = NULL;
    c->peer->large = c->h1.large;
    if (!reusable || pool->all->closing || o->max_idle == 0 || !is_alive(c) ||
        (o->max_requests && c->calls >= o->max_requests)) {
        set_state(c, AG_UPSTREAM_CLOSING);
        /* Inside on_close it is gone already; a tunnel's last bytes are on their way. */
        if (!c->conn.stream.closing) {
            ag_stream_abort(&c->conn.stream, AG_REASON_NONE);
        }
        return;
    }
    set_state(c, AG_UPSTREAM_IDLE);
    c->idle_ms = now_of(c);
    ag_list_push_front(&c->peer->idle, &c->link);
    pool->idle_count++;
    watch(c);
    ag_upstream_wake(pool);
    if (pool->idle_count > o->max_idle) {
        ag_upstream_evict(pool);
    }
}

/* ---- the beginning ---- */

static void on_connected(struct ag_conn *conn)
{
    struct ag_upstream_conn *c = ag_container_of(conn, struct ag_upstream_conn, conn);

    /* What follows has other limits. */
    c->alarm_ms = 0;
    ag_stream_deadline(&conn->stream, UINT64_MAX);
    ag_upstream_give(c->claim, c);
    ag_upstream_connected(c->claim);
}

bool ag_upstream_connect(struct ag_upstream_claim *claim)
{
    struct ag_upstream_peer *p = claim->peer;
    struct ag_upstreams *u = p->pool->all;
    struct ag_upstream_conn *c = u->closing ? NULL : ag_pool_get(&u->conns);
    const union ag_addr *addr = &p->addr[p->addr_next % p->addr_count];

    if (!c) {
        return false;
    }
    p->addr_next = (p->addr_next + 1) % p->addr_count;
    memset(c, 0, sizeof(*c));
    c->peer = p;
    c->claim = claim;
    c->opened_ms = u->loop->now_ms;
    c->state = AG_UPSTREAM_CONNECTING;
    ag_list_init(&c->link);
    ag_list_init(&c->live);
    ag_list_push(&u->live, &c->live);
    claim->conn = c;
    p->pool->conn_count++;
    ag_conn_connect(&c->conn, u->loop, addr, ag_addr_len(addr), &conn_user, on_connected,
                    p->large ? AG_BUF_LARGE : AG_BUF_SMALL);
    ag_h1_client_init(&c->h1, &c->conn.stream);
    c->h1.large = p->large;
    watch(c);
    return true;
}

static void on_data(struct ag_stream *s, struct ag_slice slice)
{
    ag_h1_client_data(&of(s)->h1, slice);
}

static void on_eof(struct ag_stream *s)
{
    ag_h1_client_eof(&of(s)->h1);
}

static void on_drain(struct ag_stream *s)
{
    ag_h1_client_drained(&of(s)->h1);
}

static const struct ag_stream_user conn_user = {
    .on_data = on_data,
    .on_eof = on_eof,
    .on_drain = on_drain,
    .on_deadline = on_deadline,
    .on_close = on_close,
};
