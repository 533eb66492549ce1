#include "actions/upstream/upstream_parts.h"

static const struct ag_stream_user conn_user;

static struct ag_upstream_conn *of(struct ag_stream *s)
{
    return ag_container_of(s, struct ag_upstream_conn, stream);
}

static uint64_t now_of(const struct ag_upstream_conn *c)
{
    return c->stream.loop->now_ms;
}

void ag_upstream_conn_become(struct ag_upstream_conn *c, enum ag_upstream_conn_state to)
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

/* ---- which calls it takes ---- */

/* It may have been told of its end in this very turn. */
bool ag_upstream_conn_takes(const struct ag_upstream_conn *c)
{
    const struct ag_upstream_options *o = &c->peer->pool->options;

    if (c->state == AG_UPSTREAM_CLOSING || c->peer->retired || c->own || c->raw || c->barred ||
        (c->h2 && c->peer->h1_required)) {
        return false;
    }
    if (ag_upstream_is_private(c) && !c->client && c->calls > 0) {
        return false; /* its header told whose that call was */
    }
    return (c->h2 ? !c->retired && ag_h2_client_room(c->h2) > 0
                  : c->h1.state == AG_H1_CLIENT_READY) &&
           (!o->max_age_ms || now_of(c) - c->opened_ms < o->max_age_ms) &&
           (!o->max_requests || c->calls < o->max_requests);
}

static void withdraw(struct ag_upstream_conn *c)
{
    if (c->offered) {
        c->offered = false;
        ag_list_remove(&c->link);
        c->peer->pool->open_count--;
    }
}

/* One of HTTP/2 that has calls: whether others may share it. */
static void offer(struct ag_upstream_conn *c)
{
    bool takes;

    c->retired = c->retired || ag_upstream_slot_is_due(c->peer);
    takes =
        c->state == AG_UPSTREAM_ACTIVE && !ag_upstream_is_private(c) && ag_upstream_conn_takes(c);

    if (!takes) {
        withdraw(c);
    } else if (!c->offered) {
        c->offered = true;
        ag_list_push_front(&c->peer->open, &c->link);
        c->peer->pool->open_count++;
        ag_upstream_wake(c->peer->pool);
    }
}

void ag_upstream_conn_bar(struct ag_upstream_conn *c)
{
    c->barred = true;
    withdraw(c);
    if (c->state == AG_UPSTREAM_CONNECTING) {
        ag_list_remove(&c->link); /* those who wait for it asked before */
    }
}

/* Leaves its peer's stack. */
static void leave_idle(struct ag_upstream_conn *c)
{
    AG_ASSERT(c->state == AG_UPSTREAM_IDLE);
    ag_list_remove(&c->link);
    c->peer->pool->idle_count--;
}

struct ag_upstream_conn *ag_upstream_take(const struct ag_upstream_claim *claim)
{
    struct ag_upstream_peer *p = claim->peer;

    if (claim->pool->options.proxy_protocol != AG_PROXY_PROTOCOL_NONE) {
        return ag_upstream_find_own(claim, p);
    }
    while (!ag_list_empty(&p->open)) {
        struct ag_upstream_conn *c = ag_container_of(p->open.next, struct ag_upstream_conn, link);

        if (ag_upstream_conn_takes(c)) {
            return c;
        }
        withdraw(c);
    }
    while (!ag_list_empty(&p->idle)) {
        struct ag_upstream_conn *c = ag_container_of(p->idle.next, struct ag_upstream_conn, link);

        if (ag_upstream_conn_takes(c)) {
            return c;
        }
        ag_upstream_conn_close(c);
    }
    return NULL;
}

bool ag_upstream_evict(struct ag_upstream_pool *pool, const struct ag_balance_set *among)
{
    struct ag_upstream_conn *oldest = NULL;

    for (uint32_t i = 0; i < pool->count; i++) {
        struct ag_upstream_peer *p = pool->peers[i];

        if (p && !ag_list_empty(&p->idle) && (!among || ag_balance_set_has(among, i))) {
            struct ag_upstream_conn *c =
                ag_container_of(p->idle.prev, struct ag_upstream_conn, link);

            oldest = !oldest || c->idle_ms < oldest->idle_ms ? c : oldest;
        }
    }
    if (oldest) {
        ag_upstream_conn_part(oldest);
    }
    return oldest;
}

/* ---- given, and given back ---- */

void ag_upstream_give(struct ag_upstream_claim *claim, struct ag_upstream_conn *c)
{
    if (c->state ==
        AG_UPSTREAM_IDLE) { /* also one whose first claim wanted it no more when it was made */
        leave_idle(c);
    }
    if (c->state != AG_UPSTREAM_ACTIVE) {
        ag_upstream_conn_become(c, AG_UPSTREAM_ACTIVE);
    }
    if (ag_upstream_is_private(c)) {
        ag_upstream_own(c, claim);
    }
    ag_list_init(&claim->link);
    ag_list_push(&c->claims, &claim->link);
    claim->pooled = c->calls > 0 || c->idle_ms > 0;
    c->calls++;
    claim->conn = c;
    claim->call = NULL;
    claim->given_ns = c->peer->pool->times_latency ? ag_loop_now_ns(c->stream.loop) : 0;
    claim->given = true;
    claim->state = AG_CLAIM_GIVEN;
}

enum ag_status ag_upstream_start(struct ag_upstream_claim *claim, struct ag_call *call)
{
    struct ag_upstream_conn *c = claim->conn;
    enum ag_status st;

    if (c->h2) {
        call->scheme = c->peer->pool->tls ? AG_SPAN("https") : AG_SPAN("http");
        st = ag_h2_client_start(c->h2, call);
        offer(c);
    } else {
        st = ag_h1_client_start(&c->h1, call);
    }
    if (st == AG_OK) {
        claim->call = call;
        ag_upstream_watch(claim);
    }
    return st;
}

bool ag_upstream_fall_back(struct ag_upstream_claim *claim)
{
    struct ag_upstream_peer *p = claim->conn->peer;

    if (!claim->call->h1_required || !claim->conn->h2 || p->pool->protocol != AG_UPSTREAM_AUTO) {
        return false;
    }
    p->h1 = p->h1_required = true;
    return true;
}

static void become_idle(struct ag_upstream_conn *c)
{
    struct ag_upstream_pool *pool = c->peer->pool;

    ag_upstream_conn_become(c, AG_UPSTREAM_IDLE);
    c->idle_ms = now_of(c);
    ag_list_push_front(&c->peer->idle, &c->link);
    pool->idle_count++;
    ag_upstream_watch_idle(c);
    ag_upstream_wake(pool);
    if (pool->idle_count > pool->options.max_idle) {
        (void)ag_upstream_evict(pool, NULL);
    }
}

void ag_upstream_release(struct ag_upstream_claim *claim)
{
    struct ag_upstream_conn *c = claim->conn;
    struct ag_upstream_pool *pool = c->peer->pool;

    AG_ASSERT(claim->state == AG_CLAIM_GIVEN && !c->raw);
    ag_upstream_discharge(claim);
    ag_upstream_trial_ended(claim, AG_TRIAL_ABANDONED);
    claim->state = AG_CLAIM_OVER;
    claim->conn = NULL;
    claim->call = NULL;
    ag_list_remove(&claim->link);
    if (c->h2) {
        offer(c);
        if (!ag_list_empty(&c->claims)) {
            return;
        }
        withdraw(c);
    } else {
        c->peer->large = c->h1.large;
    }
    if (!pool->all->closing && pool->options.max_idle > 0 && ag_upstream_conn_takes(c) &&
        !ag_upstream_member_is_drained(c->peer->member) && !ag_upstream_slot_is_due(c->peer) &&
        (!ag_upstream_is_private(c) || ag_upstream_keep_own(c))) {
        become_idle(c);
        return;
    }
    ag_upstream_conn_become(c, AG_UPSTREAM_CLOSING);
    /* Inside on_close it is gone already; a tunnel's last bytes are on their way, or the GOAWAY of a
     * connection that has failed, which ends its stream itself. */
    if (!c->stream.closing && !(c->h2 && ag_h2_conn_is_closing(&c->h2->conn))) {
        ag_upstream_conn_finish(c);
    }
}

/* ---- the end ---- */

static bool is_secured(const struct ag_upstream_conn *c)
{
    return c->peer->pool->tls && !c->bare;
}

/* Of HTTP/1: nothing of a call is left, which must not look whole. */
static bool may_say_so(const struct ag_upstream_conn *c)
{
    return is_secured(c) && c->state >= AG_UPSTREAM_IDLE && c->h1.state == AG_H1_CLIENT_READY;
}

void ag_upstream_conn_finish(struct ag_upstream_conn *c)
{
    bool idle = c->state == AG_UPSTREAM_IDLE;

    if (c->stream.closing || (c->h2 ? ag_h2_conn_is_closing(&c->h2->conn) : !may_say_so(c))) {
        ag_upstream_conn_close(c);
        return;
    }
    if (idle) {
        leave_idle(c);
        ag_upstream_conn_become(c, AG_UPSTREAM_CLOSING);
    }
    if (c->h2) {
        ag_h2_client_finish(c->h2);
    } else { /* a close_notify (RFC 8446 section 6.1), for whoever may hear it */
        c->tls.conn.stream.hasty = true;
        ag_stream_finish(&c->stream);
    }
}

void ag_upstream_conn_part(struct ag_upstream_conn *c)
{
    if (c->state == AG_UPSTREAM_IDLE) {
        (is_secured(c) ? &c->tls.conn : &c->plain)->stream.hasty = true;
        ag_upstream_conn_finish(c);
    } else {
        ag_upstream_conn_close(c);
    }
}

void ag_upstream_conn_close(struct ag_upstream_conn *c)
{
    if (c->state == AG_UPSTREAM_IDLE) {
        leave_idle(c);
        ag_upstream_conn_become(c, AG_UPSTREAM_CLOSING);
    }
    /* Calls and claims are told by the stream's end. */
    ag_stream_abort(&c->stream, AG_REASON_NONE);
}

/* Its claimer is told last: it may be gone afterwards. */
static void end_raw(struct ag_upstream_claim *claim, enum ag_reason why)
{
    ag_upstream_discharge(claim);
    claim->state = AG_CLAIM_OVER;
    claim->conn = NULL;
    claim->raw->closed(claim, why);
}

static void free_conn(struct ag_upstream_conn *c)
{
    struct ag_upstream_peer *p = c->peer;
    struct ag_upstreams *u = p->pool->all;

    ag_timer_cancel(&u->loop->wheel, &c->alarm);
    if (c->h2) {
        ag_pool_put(&u->h2s, c->h2);
    }
    ag_list_remove(&c->live);
    ag_upstream_disown(c);
    p->users--;
    ag_pool_put(&u->conns, c);
    ag_upstream_peer_left(p);
}

static void on_close(struct ag_stream *s, enum ag_reason why)
{
    struct ag_upstream_conn *c = of(s);
    struct ag_upstream_pool *pool = c->peer->pool;
    struct ag_link *it;
    bool making = false;

    switch ((enum ag_upstream_conn_state)c->state) {
    case AG_UPSTREAM_CONNECTING:
        ag_upstream_conn_become(c, AG_UPSTREAM_CLOSING);
        making = true;
        break;
    case AG_UPSTREAM_IDLE:
        leave_idle(c);
        ag_upstream_conn_become(c, AG_UPSTREAM_CLOSING);
        break;
    case AG_UPSTREAM_ACTIVE:
    case AG_UPSTREAM_CLOSING:
        withdraw(c);
        break;
    }
    it = c->raw ? ag_list_pop(&c->claims) : NULL;
    if (c->h2) {
        ag_h2_client_closed(c->h2, why); /* calls that fail give the connection back */
    } else if (c->h1.stream) {
        ag_h1_client_closed(&c->h1, why);
    }
    if (c->own) {
        pool->own_count--;
    } else {
        ag_upstream_slot_give(c->peer);
    }
    if (making) {
        ag_upstream_unmake(c, why);
    }
    free_conn(c);
    if (it) {
        end_raw(ag_container_of(it, struct ag_upstream_claim, link), why);
    }
}

/* ---- the beginning ---- */

static void on_settled(struct ag_h2_client *h2)
{
    struct ag_upstream_conn *c = of(h2->conn.stream);

    if (c->state == AG_UPSTREAM_ACTIVE) {
        offer(c);
    } else if (c->state == AG_UPSTREAM_CONNECTING && ag_h2_client_room(h2) > 0) {
        ag_upstream_admit(c);
    }
}

static void on_closing(struct ag_h2_client *h2)
{
    struct ag_upstream_conn *c = of(h2->conn.stream);

    c->retired = true;
    withdraw(c);
    if (c->state == AG_UPSTREAM_IDLE) {
        ag_upstream_conn_finish(c);
    } else if (c->state == AG_UPSTREAM_CONNECTING) {
        ag_upstream_conn_close(c);
    }
    ag_upstream_wake(c->peer->pool);
}

static const struct ag_h2_client_ops h2_ops = {.settled = on_settled, .closing = on_closing};

static void begin_h1(struct ag_upstream_conn *c)
{
    ag_h1_client_init(&c->h1, &c->stream);
    c->h1.large = c->peer->large;
    ag_upstream_admit(c);
}

/* Who waits for it is told when the upstream has sent its SETTINGS. */
static void begin_h2(struct ag_upstream_conn *c)
{
    c->h2 = ag_pool_get(&c->peer->pool->all->h2s);
    if (!c->h2) {
        ag_stream_abort(&c->stream, AG_REASON_RESOURCES);
        return;
    }
    (void)ag_h2_client_open(c->h2, &c->stream, &h2_ops); /* what fails ends the stream */
}

static void on_connected(struct ag_conn *conn)
{
    struct ag_upstream_conn *c = of(&conn->stream);

    if (c->raw) {
        ag_upstream_admit(c);
    } else if (c->peer->pool->protocol == AG_UPSTREAM_H1 || c->bare) {
        begin_h1(c);
    } else {
        begin_h2(c);
    }
}

static void on_secured(struct ag_tls *tls)
{
    struct ag_upstream_conn *c = of(&tls->stream);
    enum ag_upstream_protocol protocol = c->peer->pool->protocol;
    bool h2 = tls->session.alpn == AG_ALPN_H2;

    if (!c->h1_alone && !c->own) { /* a check's may be to another port */
        c->peer->h1 = !h2 || c->peer->h1_required;
    }
    if (h2) {
        begin_h2(c);
    } else if (protocol == AG_UPSTREAM_H2) {
        ag_stream_abort(&c->stream, AG_REASON_PROTOCOL);
    } else {
        begin_h1(c);
    }
}

void ag_upstream_conn_open(struct ag_upstream_conn *c, const union ag_addr *addr)
{
    const struct ag_upstream_peer *p = c->peer;
    struct ag_loop *l = p->pool->all->loop;
    enum ag_buf_group group = p->large ? AG_BUF_LARGE : AG_BUF_SMALL;

    if (p->pool->tls && !c->bare) {
        ag_tls_connect(&c->tls, l, addr, ag_addr_len(addr), p->pool->tls,
                       p->port ? p->host : p->authority, &conn_user, on_secured, group);
        c->tls.h1_only = p->h1_required || c->h1_alone;
    } else {
        ag_conn_connect(&c->plain, l, addr, ag_addr_len(addr), &conn_user, on_connected, group);
    }
}

/* ---- the stream's callbacks ---- */

/* Of a raw one that is given: it has one. */
static struct ag_upstream_claim *claim_of(struct ag_upstream_conn *c)
{
    return ag_container_of(c->claims.next, struct ag_upstream_claim, link);
}

/* One that was to become HTTP/2 and proved to be something else lingers before it is closed. */
static void look_at_making(struct ag_upstream_conn *c)
{
    if (c->state == AG_UPSTREAM_CONNECTING && ag_h2_conn_is_closing(&c->h2->conn)) {
        ag_upstream_conn_become(c, AG_UPSTREAM_CLOSING);
        ag_upstream_unmake(c, (enum ag_reason)c->h2->conn.reason);
    }
}

static void on_data(struct ag_stream *s, struct ag_slice slice)
{
    struct ag_upstream_conn *c = of(s);

    if (c->raw) {
        claim_of(c)->raw->data(claim_of(c), slice);
    } else if (c->h2) {
        ag_h2_client_data(c->h2, slice);
        look_at_making(c);
    } else {
        ag_h1_client_data(&c->h1, slice);
    }
}

static void on_eof(struct ag_stream *s)
{
    struct ag_upstream_conn *c = of(s);

    if (c->raw) {
        claim_of(c)->raw->eof(claim_of(c));
    } else if (c->h2) {
        ag_h2_client_eof(c->h2);
        look_at_making(c);
    } else {
        ag_h1_client_eof(&c->h1);
    }
}

static void on_drain(struct ag_stream *s)
{
    struct ag_upstream_conn *c = of(s);

    if (c->raw) {
        claim_of(c)->raw->drained(claim_of(c));
    } else if (c->h2) {
        ag_h2_client_drained(c->h2);
    } else {
        ag_h1_client_drained(&c->h1);
    }
}

/* HTTP/2's own; what calls may take is up to the alarm. */
static void on_deadline(struct ag_stream *s)
{
    struct ag_upstream_conn *c = of(s);

    if (c->h2) {
        ag_h2_client_deadline(c->h2);
        look_at_making(c);
    }
}

static const struct ag_stream_user conn_user = {
    .on_data = on_data,
    .on_eof = on_eof,
    .on_drain = on_drain,
    .on_deadline = on_deadline,
    .on_close = on_close,
};
