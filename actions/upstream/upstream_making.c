#include "actions/upstream/upstream_parts.h"

/*
 * Where a server has one address, a connection is made there, and that is all. Where its name has several, they are a
 * race (RFC 8305): one more begins beside those under way when a while has passed, and at once when one has failed. The
 * claims have joined the first one of the race; when that fails, or another one is ready first, they go over to
 * another. So the race looks to them like one connection that is long in coming.
 *
 *   claims --joined--> lead      at the plan's first address --failed--> the claims go over to the next in the race
 *                      rival     250 ms later, or at once
 *                      rival     ready --> the claims go over to it, the others are closed
 */

static uint64_t now_of(const struct ag_upstream_peer *p)
{
    return p->pool->all->loop->now_ms;
}

static struct ag_upstream_claim *first_joined(const struct ag_upstream_conn *c)
{
    AG_ASSERT(!ag_list_empty(&c->joined));
    return ag_container_of(c->joined.next, struct ag_upstream_claim, link);
}

/* Several claims may wait for it, or might yet. */
static bool may_be_shared(const struct ag_upstream_conn *c)
{
    const struct ag_upstream_peer *p = c->peer;
    enum ag_upstream_protocol protocol = p->pool->protocol;

    if (c->own || c->barred || c->raw ||
        p->pool->options.proxy_protocol != AG_PROXY_PROTOCOL_NONE) {
        return false;
    }
    return protocol == AG_UPSTREAM_H2 || protocol == AG_UPSTREAM_H2C ||
           (protocol == AG_UPSTREAM_AUTO && !p->h1 && !c->h1_alone);
}

/* ---- the claims that wait for it ---- */

/* The last one that was begun for those who have joined `c`. */
static uint64_t begun_ms(const struct ag_upstream_conn *c)
{
    return c->race
               ? ag_container_of(c->race->members.prev, struct ag_upstream_conn, rival)->opened_ms
               : c->opened_ms;
}

/* Others may wait longer for the connection: this one goes on elsewhere. */
static void on_late_claim(struct ag_timer *t)
{
    struct ag_upstream_claim *claim = ag_container_of(t, struct ag_upstream_claim, timer);
    struct ag_upstream_peer *p = claim->peer;
    uint64_t due = begun_ms(claim->conn) + claim->timeouts->connect_ms, now = now_of(p);
    const char *detail = ag_upstream_late_detail(claim->conn);

    if (due > now && !ag_upstream_is_late(claim)) { /* an attempt of the race has time left */
        ag_timer_arm(&p->pool->all->loop->wheel, t, ag_upstream_due(claim, (uint32_t)(due - now)));
        return;
    }
    p->users++; /* it outlasts its connections here, and its pool does */
    p->pool->waiting_count++;
    claim->state = AG_CLAIM_OVER;
    ag_upstream_leave(claim);
    ag_upstream_connect_failed(claim, AG_REASON_TIMEOUT, detail, true);
    p->pool->waiting_count--;
    p->users--;
    ag_upstream_peer_left(p);
}

/* The connection's alarm is that of who waits longest, which mostly is each of them; those who wait less have timers. */
static void set_due(struct ag_upstream_conn *c, struct ag_upstream_claim *claim)
{
    struct ag_wheel *wheel = &c->stream.loop->wheel;
    uint64_t due = ag_upstream_due(claim, claim->timeouts->connect_ms), by = c->alarm.at_ms;

    ag_timer_init(&claim->timer, on_late_claim);
    if (due < by) {
        ag_timer_arm(wheel, &claim->timer, due);
    }
    if (due <= by) {
        return;
    }
    ag_list_foreach(it, &c->joined) {
        struct ag_timer *t = &ag_container_of(it, struct ag_upstream_claim, link)->timer;

        if (!ag_timer_armed(t)) {
            ag_timer_arm(wheel, t, by);
        }
    }
    ag_upstream_alarm_extend(c, due);
    if (c->race) {
        ag_list_foreach(it, &c->race->members) {
            ag_upstream_alarm_extend(ag_container_of(it, struct ag_upstream_conn, rival), due);
        }
    }
}

static void join(struct ag_upstream_conn *c, struct ag_upstream_claim *claim)
{
    set_due(c, claim);
    claim->tries++;
    claim->maker = c->joined_count == 0;
    claim->conn = c;
    claim->state = AG_CLAIM_CONNECTING;
    ag_list_init(&claim->link);
    ag_list_push(&c->joined, &claim->link);
    c->joined_count++;
}

/* Whether it may be joined is seen anew. */
static void offer_to_join(struct ag_upstream_conn *c)
{
    ag_list_remove(&c->link);
    if (may_be_shared(c) && c->joined_count < AG_UPSTREAM_JOINED) {
        ag_list_push_front(&c->peer->making, &c->link);
    }
}

bool ag_upstream_join(struct ag_upstream_claim *claim)
{
    struct ag_link *making = &claim->peer->making;
    struct ag_upstream_conn *c = ag_container_of(making->next, struct ag_upstream_conn, link);

    if (ag_list_empty(making)) {
        return false;
    }
    join(c, claim);
    offer_to_join(c);
    return true;
}

static struct ag_upstream_claim *pop_joined(struct ag_upstream_conn *c)
{
    struct ag_link *it = ag_list_pop(&c->joined);
    struct ag_upstream_claim *claim;

    if (!it) {
        return NULL;
    }
    claim = ag_container_of(it, struct ag_upstream_claim, link);
    ag_timer_cancel(&c->stream.loop->wheel, &claim->timer);
    c->joined_count--;
    claim->state = AG_CLAIM_OVER;
    claim->conn = NULL;
    return claim;
}

static void hand_over(struct ag_upstream_conn *from, struct ag_upstream_conn *to)
{
    struct ag_link *it;

    ag_list_remove(&from->link);
    while ((it = ag_list_pop(&from->joined)) != NULL) {
        ag_container_of(it, struct ag_upstream_claim, link)->conn = to;
        ag_list_push(&to->joined, it);
    }
    ag_upstream_alarm_extend(to, from->alarm.at_ms);
    to->joined_count = from->joined_count;
    from->joined_count = 0;
    offer_to_join(to);
}

/* ---- one attempt ---- */

static void set_port(union ag_addr *addr, uint16_t port)
{
    if (addr->sa.sa_family == AF_INET) {
        addr->in.sin_port = htons(port);
    } else if (addr->sa.sa_family == AF_INET6) {
        addr->in6.sin6_port = htons(port);
    }
}

/* What goes ahead of all else, of a handshake too: it leaves with the connection's first bytes. */
static void greet(struct ag_upstream_conn *c, struct ag_span greeting)
{
    enum ag_proxy_protocol version = c->peer->pool->options.proxy_protocol;
    uint8_t room[AG_PROXY_PROTOCOL_OUT_MAX];
    struct ag_buf own = ag_buf(room, sizeof(room));
    enum ag_status st;

    if (version == AG_PROXY_PROTOCOL_NONE) {
        return;
    }
    if (greeting.len == 0) {
        ag_proxy_protocol_put_local(&own, version);
        greeting = ag_buf_span(&own);
    }
    st = c->peer->pool->tls && !c->bare ? ag_tls_put_before(&c->tls, greeting)
                                        : ag_stream_put(&c->stream, greeting);
    if (st != AG_OK) {
        ag_stream_abort(&c->stream, AG_REASON_RESOURCES);
    }
}

static bool is_room(const struct ag_upstreams *u)
{
    return !u->closing && u->conns.used < u->conns.count;
}

/* There is room for it, and its slot is taken. What fails at once is told by the loop. */
static struct ag_upstream_conn *attempt(const struct ag_upstream_claim *claim, uint8_t at)
{
    struct ag_upstream_peer *p = claim->peer;
    struct ag_upstreams *u = p->pool->all;
    struct ag_upstream_conn *c = ag_pool_take(&u->conns);
    const struct ag_upstream_aim *aim = claim->aim;
    union ag_addr addr = p->addr[at];

    memset(c, 0, sizeof(*c));
    if (aim && aim->port) {
        set_port(&addr, aim->port);
    }
    c->peer = p;
    c->at = at;
    c->own = aim;
    p->pool->own_count += aim != NULL;
    c->bare = aim && aim->bare;
    c->raw = claim->raw != NULL;
    c->h1_alone = claim->h1_alone;
    AG_ASSERT(!c->raw || !p->pool->tls);
    c->opened_ms = u->loop->now_ms;
    c->state = AG_UPSTREAM_CONNECTING;
    ag_list_init(&c->link);
    ag_list_init(&c->live);
    ag_list_init(&c->rival);
    ag_list_init(&c->kin);
    ag_list_init(&c->joined);
    ag_list_init(&c->claims);
    ag_list_push(&u->live, &c->live);
    p->users++;
    ag_upstream_conn_open(c, &addr);
    greet(c, claim->greeting);
    ag_upstream_alarm_init(c, ag_upstream_due(claim, claim->timeouts->connect_ms));
    return c;
}

/* It is of no use any more to those who waited for it. */
static void discard(struct ag_upstream_conn *c)
{
    ag_list_remove(&c->link);
    ag_upstream_conn_become(c, AG_UPSTREAM_CLOSING);
    ag_upstream_conn_close(c);
}

/* ---- the race ---- */

static struct ag_upstream_conn *lead_of(const struct ag_upstream_race *race)
{
    return ag_container_of(race->members.next, struct ag_upstream_conn, rival);
}

static struct ag_upstream_conn *enter(struct ag_upstream_race *race,
                                      const struct ag_upstream_claim *claim)
{
    struct ag_upstream_peer *p = claim->peer;
    struct ag_upstream_conn *c = attempt(claim, race->plan.order[race->begun++]);
    uint64_t next_ms = ag_eyeballs_next_ms(&race->plan, race->begun, now_of(p));

    c->race = race;
    ag_list_push(&race->members, &c->rival);
    if (next_ms != UINT64_MAX) {
        ag_timer_arm(&p->pool->all->loop->wheel, &race->timer, next_ms);
    }
    return c;
}

/* One more, at the next address, for those who have joined `c`. False: there is none, or no room for it. */
static bool begin_next(struct ag_upstream_race *race, const struct ag_upstream_conn *c)
{
    const struct ag_upstream_claim *first = first_joined(c);
    struct ag_upstream_peer *p = c->peer;
    struct ag_upstream_conn *next;

    if (race->begun == race->plan.count || first->tries >= AG_UPSTREAM_TRIES || p->retired ||
        race->edition != p->edition || !is_room(p->pool->all) ||
        !(c->own || ag_upstream_slot_take(p))) {
        return false;
    }
    next = enter(race, first);
    ag_list_foreach(it, &c->joined) {
        struct ag_upstream_claim *claim = ag_container_of(it, struct ag_upstream_claim, link);

        claim->tries++;
        ag_upstream_alarm_extend(next, ag_upstream_due(claim, claim->timeouts->connect_ms));
    }
    return true;
}

static void free_race(struct ag_upstream_race *race, struct ag_upstreams *u)
{
    ag_timer_cancel(&u->loop->wheel, &race->timer);
    ag_pool_put(&u->races, race);
}

/* It has got through to its server, which may be slow: another one beside it would only be more work for that. */
static bool has_reached(const struct ag_upstream_conn *c)
{
    const struct ag_conn *conn = c->peer->pool->tls && !c->bare ? &c->tls.conn : &c->plain;

    return conn->state != AG_CONN_CONNECTING;
}

static void on_late(struct ag_timer *t)
{
    struct ag_upstream_race *race = ag_container_of(t, struct ag_upstream_race, timer);
    struct ag_upstream_conn *lead = lead_of(race);

    ag_list_foreach(it, &race->members) {
        if (has_reached(ag_container_of(it, struct ag_upstream_conn, rival))) {
            return;
        }
    }
    if (!begin_next(race, lead)) {
        ag_loop_arm(lead->peer->pool->all->loop, t,
                    AG_EYEBALLS_DELAY_MS); /* a slot may be free then */
    }
}

static struct ag_upstream_race *make_race(const struct ag_upstream_claim *claim)
{
    struct ag_upstream_peer *p = claim->peer;
    struct ag_upstream_race *race = ag_pool_take(&p->pool->all->races); /* as many as connections */

    memset(race, 0, sizeof(*race));
    ag_list_init(&race->members);
    ag_timer_init(&race->timer, on_late);
    race->edition = p->edition;
    race->aside = claim->aim && claim->aim->port;
    ag_eyeballs_plan(&p->eyeballs, p->addr, p->addr_count, p->addr_next++, now_of(p), &race->plan);
    return race;
}

/* The indices that the race has are those of the peer's addresses, and of the port that requests go to. */
static bool is_of_note(const struct ag_upstream_race *race, const struct ag_upstream_peer *p)
{
    return race->edition == p->edition && !race->aside;
}

/* Over: `winner` is ready, or nobody waits any more (NULL). */
static void end_race(struct ag_upstream_race *race, struct ag_upstream_conn *winner)
{
    struct ag_upstream_conn *lead = lead_of(race);
    struct ag_upstream_peer *p = lead->peer;
    struct ag_link *it;

    if (winner && is_of_note(race, p)) {
        ag_eyeballs_worked(&p->eyeballs, &p->addr[winner->at]);
    }
    if (winner && winner != lead) {
        hand_over(lead, winner);
    }
    if (winner) {
        ag_list_remove(&winner->rival);
        winner->race = NULL;
    }
    while ((it = ag_list_pop(&race->members)) != NULL) {
        struct ag_upstream_conn *c = ag_container_of(it, struct ag_upstream_conn, rival);

        c->race = NULL;
        discard(c);
    }
    free_race(race, p->pool->all);
}

/* Its attempt has failed: whether another one is under way for those who have joined it; *out_whole: no address is
 * left that was not tried. */
static bool goes_on(struct ag_upstream_conn *c, enum ag_reason why, bool *out_whole)
{
    struct ag_upstream_race *race = c->race;
    struct ag_upstream_peer *p = c->peer;

    if (is_of_note(race, p) && ag_upstream_is_telling(why)) {
        ag_eyeballs_failed(&p->eyeballs, &p->addr[c->at], now_of(p));
    }
    (void)begin_next(race, lead_of(race));
    c->race = NULL;
    ag_list_remove(&c->rival);
    if (ag_list_empty(&race->members)) {
        *out_whole = race->begun == race->plan.count;
        free_race(race, p->pool->all);
        return false;
    }
    if (c->joined_count > 0) {
        hand_over(c, lead_of(race));
    }
    return true;
}

/* ---- the beginning, and the end ---- */

bool ag_upstream_connect(struct ag_upstream_claim *claim)
{
    struct ag_upstream_conn *c;

    if (!is_room(claim->pool->all)) {
        return false;
    }
    c = claim->peer->addr_count > 1 ? enter(make_race(claim), claim) : attempt(claim, 0);
    join(c, claim);
    offer_to_join(c);
    return true;
}

void ag_upstream_leave(struct ag_upstream_claim *claim)
{
    struct ag_upstream_conn *c = claim->conn;

    claim->conn = NULL;
    ag_list_remove(&claim->link);
    ag_timer_cancel(&c->stream.loop->wheel, &claim->timer);
    c->joined_count--;
    if (c->joined_count > 0 || c->state != AG_UPSTREAM_CONNECTING) {
        return;
    }
    if (c->race) {
        end_race(c->race, NULL);
    } else {
        discard(c);
    }
}

void ag_upstream_admit(struct ag_upstream_conn *c)
{
    struct ag_upstream_claim *claim;

    if (c->race) {
        end_race(c->race, c);
    }
    ag_list_remove(&c->link);
    ag_timer_cancel(&c->stream.loop->wheel, &c->alarm); /* what follows has other limits */
    while ((claim = pop_joined(c)) != NULL) {
        if (c->state == AG_UPSTREAM_CONNECTING || ag_upstream_conn_takes(c)) {
            ag_upstream_give(claim, c);
            if (c->raw) { /* that it was reached is all that can be told */
                ag_upstream_went_well(claim);
            }
            ag_upstream_connected(claim);
        } else {
            ag_upstream_crowded_out(claim);
        }
    }
}

void ag_upstream_unmake(struct ag_upstream_conn *c, enum ag_reason why)
{
    const char *detail = c->peer->pool->tls && !c->bare ? ag_tls_detail(&c->tls) : NULL;
    struct ag_upstream_claim *claim;
    bool whole = true;

    why = why == AG_REASON_NONE ? AG_REASON_EOF : why;
    ag_list_remove(&c->link);
    if (c->race && goes_on(c, why, &whole)) {
        return;
    }
    while ((claim = pop_joined(c)) != NULL) {
        ag_upstream_connect_failed(claim, why, detail, whole);
    }
}
