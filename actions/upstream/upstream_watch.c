#include "actions/upstream/upstream_parts.h"

/* The earlier of two points in time; 0 is never. */
static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a == 0 || (b != 0 && b < a) ? b : a;
}

static uint64_t after(uint64_t from_ms, uint32_t ms)
{
    return ms ? from_ms + ms : 0;
}

static uint64_t now_of(const struct ag_upstream_conn *c)
{
    return c->stream.loop->now_ms;
}

/* ---- when a call is late ---- */

/* When the call is late in its present phase; *out_what says for what, *out_phase which one it is. 0: never. */
static uint64_t phase_due(const struct ag_upstream_claim *claim, enum ag_call_phase *out_phase,
                          const char **out_what)
{
    const struct ag_upstream_timeouts *t = claim->timeouts;
    uint64_t since_ms;

    *out_phase = claim->call->ops->phase(claim->call, &since_ms);
    switch (*out_phase) {
    case AG_CALL_CALLER:
        return 0;
    case AG_CALL_WRITE:
    case AG_CALL_WINDOW:
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

static uint64_t call_due(const struct ag_upstream_claim *claim, enum ag_call_phase *out_phase,
                         const char **out_what)
{
    uint64_t phase = phase_due(claim, out_phase, out_what);
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

/* ---- the alarm ---- */

/* Sees to it that the alarm fires by then; 0 is never. One that fires earlier only looks and waits on, so that
 * a connection in use costs no timer work per call. */
static void alarm_by(struct ag_upstream_conn *c, uint64_t due)
{
    if (due && !(ag_timer_armed(&c->alarm) && c->alarm.at_ms <= due)) {
        ag_timer_arm(&c->stream.loop->wheel, &c->alarm, due);
    }
}

/* What the kernel had taken has moved since the last look: of a shared connection that tells only of those who wait
 * for the connection itself. Or the client of a tunnel has taken some of what its upstream had sent. */
static bool has_moved(const struct ag_upstream_claim *claim, enum ag_call_phase phase)
{
    struct ag_upstream_conn *c = claim->conn;
    struct ag_call *call = claim->call;
    bool moved =
        (!c->h2 || phase == AG_CALL_WRITE) && ag_stream_has_moved(&c->stream, &c->stream.look);
    bool taken = phase == AG_CALL_TUNNEL && call->events->taken && call->events->taken(call);

    return moved || taken;
}

/* A call that is late fails, unless something has moved. */
static void look_at_call(struct ag_upstream_claim *claim)
{
    struct ag_upstream_conn *c = claim->conn;
    struct ag_call *call = claim->call;
    enum ag_call_phase phase;
    const char *what = NULL;
    uint64_t now = now_of(c), due = call_due(claim, &phase, &what);

    if (due && due <= now && has_moved(claim, phase)) {
        call->progress_ms = now;
        due = call_due(claim, &phase, &what);
    }
    if (due && due <= now) {
        call->ops->fail(call, AG_REASON_TIMEOUT, what);
    } else {
        alarm_by(c, earlier(due, look_again(claim)));
    }
}

/* A call that fails may take others with it, and whoever made it may begin another one here: each goes to the
 * end of the list, and none out of it, by which the connection knows that it is in use. */
static void look_at_calls(struct ag_upstream_conn *c)
{
    uint32_t left = 0;

    ag_list_foreach(it, &c->claims) {
        left++;
    }
    while (left-- > 0 && !ag_list_empty(&c->claims)) {
        struct ag_link *it = ag_list_pop(&c->claims);
        struct ag_upstream_claim *claim = ag_container_of(it, struct ag_upstream_claim, link);

        ag_list_push(&c->claims, it);
        if (claim->call && claim->call->ops) {
            look_at_call(claim);
        }
    }
}

static uint64_t idle_due(const struct ag_upstream_conn *c)
{
    const struct ag_upstream_options *o = &c->peer->pool->options;

    return earlier(c->idle_ms + o->idle_timeout_ms, after(c->opened_ms, o->max_age_ms));
}

/* The pool is to have some ready, for anybody: those outlast their time, not their age. */
static bool is_kept_ready(const struct ag_upstream_conn *c)
{
    const struct ag_upstream_pool *pool = c->peer->pool;
    uint64_t old_ms = after(c->opened_ms, pool->options.max_age_ms);

    return !ag_upstream_is_private(c) &&
           pool->idle_count + pool->open_count <= pool->options.min_idle &&
           !(old_ms && old_ms <= now_of(c));
}

const char *ag_upstream_late_detail(const struct ag_upstream_conn *c)
{
    return c->peer->pool->tls && !c->bare && c->tls.state == AG_TLS_HANDSHAKE
               ? "the handshake took too long"
               : NULL;
}

static void on_alarm(struct ag_timer *t)
{
    struct ag_upstream_conn *c = ag_container_of(t, struct ag_upstream_conn, alarm);

    switch ((enum ag_upstream_conn_state)c->state) {
    case AG_UPSTREAM_CONNECTING:
        if (ag_upstream_late_detail(c)) {
            c->tls.detail = ag_upstream_late_detail(c);
        }
        ag_stream_abort(&c->stream, AG_REASON_TIMEOUT);
        return;
    case AG_UPSTREAM_ACTIVE:
        look_at_calls(c);
        return;
    case AG_UPSTREAM_IDLE:
        if (idle_due(c) > now_of(c)) {
            alarm_by(c, idle_due(c));
        } else if (is_kept_ready(c)) {
            alarm_by(c, now_of(c) + c->peer->pool->options.idle_timeout_ms);
        } else {
            ag_upstream_conn_finish(c);
        }
        return;
    case AG_UPSTREAM_CLOSING:
        return;
    }
    AG_UNREACHABLE("a state that is none");
}

void ag_upstream_alarm_init(struct ag_upstream_conn *c, uint64_t due_ms)
{
    ag_timer_init(&c->alarm, on_alarm);
    alarm_by(c, due_ms);
}

void ag_upstream_alarm_extend(struct ag_upstream_conn *c, uint64_t due_ms)
{
    if (ag_timer_armed(&c->alarm) && c->alarm.at_ms < due_ms) {
        ag_timer_arm(&c->stream.loop->wheel, &c->alarm, due_ms);
    }
}

void ag_upstream_watch_idle(struct ag_upstream_conn *c)
{
    alarm_by(c, idle_due(c));
}

void ag_upstream_watch(struct ag_upstream_claim *claim)
{
    AG_ASSERT(claim->state == AG_CLAIM_GIVEN && claim->call);
    ag_upstream_moved(claim);
    alarm_by(claim->conn, look_again(claim));
}
