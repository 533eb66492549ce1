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

/* When the call is late in its present phase; *out_what says for what. 0: never. */
static uint64_t phase_due(const struct ag_upstream_claim *claim, const char **out_what)
{
    const struct ag_upstream_timeouts *t = claim->timeouts;
    const struct ag_call *call = claim->call;
    uint64_t since_ms;

    switch (call->ops->phase(call, &since_ms)) {
    case AG_CALL_CALLER:
        return 0;
    case AG_CALL_WRITE:
        *out_what = "write to upstream: timeout";
        return after(since_ms, t->write_ms);
    case AG_CALL_FIRST_BYTE:
        *out_what = "wait for upstream's answer: timeout";
        return after(since_ms, t->first_byte_ms);
    case AG_CALL_READ:
        *out_what = "read from upstream: timeout";
        return after(since_ms, t->read_ms);
    case AG_CALL_TUNNEL:
        *out_what = "upstream: idle timeout";
        return after(since_ms, t->idle_ms);
    }
    AG_UNREACHABLE("a phase that is none");
}

static uint64_t call_due(const struct ag_upstream_claim *claim, const char **out_what)
{
    uint64_t phase = phase_due(claim, out_what);
    uint64_t total = after(claim->started_ms, claim->timeouts->total_ms);

    if (total && earlier(phase, total) == total) {
        *out_what = "upstream: total timeout";
        return total;
    }
    return phase;
}

/* When to look at the call again at the latest: phases change without a word, and the next one may be
 * shorter. */
static uint64_t look_again(const struct ag_upstream_claim *claim)
{
    const struct ag_upstream_timeouts *t = claim->timeouts;
    uint64_t shortest =
        earlier(earlier(t->first_byte_ms, t->read_ms), earlier(t->write_ms, t->idle_ms));

    return earlier(after(now_of(claim->conn), (uint32_t)shortest),
                   after(claim->started_ms, t->total_ms));
}

/* Sees to it that the deadline fires by then; 0 is never. One that fires earlier only looks and waits on, so
 * that a connection in use costs no timer work per call. */
static void alarm_by(struct ag_upstream_conn *c, uint64_t due)
{
    if (due && earlier(c->alarm_ms, due) != c->alarm_ms) {
        c->alarm_ms = due;
        ag_stream_deadline(&c->conn.stream, due > now_of(c) ? due - now_of(c) : 0);
    }
}

static uint64_t idle_due(const struct ag_upstream_conn *c)
{
    const struct ag_upstream_options *o = &c->peer->pool->options;

    return earlier(c->idle_ms + o->idle_timeout_ms, after(c->opened_ms, o->max_age_ms));
}

/* A call that is late fails, unless what the kernel had taken has moved since the last look. */
static void look_at_call(struct ag_upstream_claim *claim)
{
    struct ag_call *call = claim->call;
    uint64_t now = now_of(claim->conn), due;
    const char *what = NULL;

    due = call_due(claim, &what);
    if (due && due <= now && ag_stream_has_moved(&claim->conn->conn.stream)) {
        call->progress_ms = now;
        due = call_due(claim, &what);
    }
    if (due && due <= now) {
        call->ops->fail(call, AG_REASON_TIMEOUT, what);
    } else {
        alarm_by(claim->conn, earlier(due, look_again(claim)));
    }
}

/* A call that fails may take others with it, and whoever made it may begin another one here. */
static void look_at_calls(struct ag_upstream_conn *c)
{
    struct ag_link waiting, *it;

    ag_list_init(&waiting);
    while ((it = ag_list_pop(&c->claims)) != NULL) {
        ag_list_push(&waiting, it);
    }
    while ((it = ag_list_pop(&waiting)) != NULL) {
        struct ag_upstream_claim *claim = ag_container_of(it, struct ag_upstream_claim, link);

        ag_list_push(&c->claims, it);
        if (claim->call) {
            look_at_call(claim);
        }
    }
}

static void on_deadline(struct ag_stream *s)
{
    struct ag_upstream_conn *c = of(s);

    c->alarm_ms = 0;
    switch ((enum ag_upstream_conn_state)c->state) {
    case AG_UPSTREAM_CONNECTING:
        ag_stream_abort(s, AG_REASON_TIMEOUT);
        return;
    case AG_UPSTREAM_ACTIVE:
        look_at_calls(c);
        return;
    case AG_UPSTREAM_IDLE:
        if (idle_due(c) <= now_of(c)) {
            ag_upstream_conn_close(c);
        } else {
            alarm_by(c, idle_due(c));
        }
        return;
    case AG_UPSTREAM_CLOSING:
        return;
    }
    AG_UNREACHABLE("a state that is none");
}

void ag_upstream_watch(struct ag_upstream_claim *claim)
{
    AG_ASSERT(claim->state == AG_CLAIM_GIVEN && claim->call);
    ag_stream_look_anew(&claim->conn->conn.stream);
    alarm_by(claim->conn, look_again(claim)); /* it has just moved */
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
    if (c->state != AG_UPSTREAM_CLOSING && !c->claim && ag_list_empty(&c->claims)) {
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
    c->claim = NULL;
    ag_list_init(&claim->link);
    ag_list_push(&c->claims, &claim->link);
    claim->pooled = c->calls > 0;
    c->calls++;
    claim->conn = c;
    claim->call = NULL;
    claim->state = AG_CLAIM_GIVEN;
}

enum ag_status ag_upstream_start(struct ag_upstream_claim *claim, struct ag_call *call)
{
    enum ag_status st = ag_h1_client_start(&claim->conn->h1, call);

    if (st == AG_OK) {
        claim->call = call;
        ag_upstream_watch(claim);
    }
    return st;
}

void ag_upstream_release(struct ag_upstream_claim *claim)
{
    struct ag_upstream_conn *c = claim->conn;
    struct ag_upstream_pool *pool = c->peer->pool;
    const struct ag_upstream_options *o = &pool->options;

    AG_ASSERT(claim->state == AG_CLAIM_GIVEN);
    claim->state = AG_CLAIM_OVER;
    claim->conn = NULL;
    claim->call = NULL;
    ag_list_remove(&claim->link);
    c->peer->large = c->h1.large;
    if (pool->all->closing || o->max_idle == 0 || !is_alive(c) ||
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
    alarm_by(c, idle_due(c));
    ag_upstream_wake(pool);
    if (pool->idle_count > o->max_idle) {
        ag_upstream_evict(pool);
    }
}

/* ---- the beginning ---- */

static void on_connected(struct ag_conn *conn)
{
    struct ag_upstream_conn *c = ag_container_of(conn, struct ag_upstream_conn, conn);
    struct ag_upstream_claim *claim = c->claim;

    /* What follows has other limits. */
    c->alarm_ms = 0;
    ag_stream_deadline(&conn->stream, UINT64_MAX);
    ag_upstream_give(claim, c);
    ag_upstream_connected(claim);
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
    ag_list_init(&c->claims);
    ag_list_push(&u->live, &c->live);
    claim->conn = c;
    p->pool->conn_count++;
    ag_conn_connect(&c->conn, u->loop, addr, ag_addr_len(addr), &conn_user, on_connected,
                    p->large ? AG_BUF_LARGE : AG_BUF_SMALL);
    ag_h1_client_init(&c->h1, &c->conn.stream);
    c->h1.large = p->large;
    alarm_by(c, c->opened_ms + claim->timeouts->connect_ms);
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
