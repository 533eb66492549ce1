#include "actions/upstream/health_parts.h"
#include "engine/log.h"

/* All are busy: whoever is due asks again after this time. */
#define BUSY_MS 16u

#define NAME(s) (int)ag_min_size((s).len, 100), (const char *)(s).ptr

static struct ag_loop *loop_of(const struct ag_health_task *c)
{
    return c->watch->health->all->loop;
}

static const struct ag_health_check *settings_of(const struct ag_health_task *c)
{
    return &c->watch->up->options.health.check;
}

uint32_t ag_health_wait_ms(const struct ag_health_check *c, uint64_t random)
{
    uint64_t most = (uint64_t)c->interval_ms * c->jitter_percent / 100;

    return (uint32_t)(c->interval_ms - most + random % (2 * most + 1));
}

/* ---- what follows from it ---- */

/* "GET /healthz", or what else it is. */
static void print_what(const struct ag_health_check *s, char *to, size_t max)
{
    if (s->type == AG_HEALTH_HTTP) {
        struct ag_span path = s->path.len ? s->path : AG_SPAN("/");
        struct ag_span method = ag_method_name(s->method);

        (void)snprintf(to, max, "%.*s %.*s", NAME(method), NAME(path));
    } else {
        (void)snprintf(to, max, s->type == AG_HEALTH_TCP ? "connect" : "TLS handshake");
    }
}

static void go_down(struct ag_health_task *c, uint32_t in_row, const char *why)
{
    struct ag_upstream_member *m = c->aim.member;
    const struct ag_upstream_group *g = m->group;
    char what[224];

    if (!ag_upstream_member_mark(m, AG_MEMBER_DOWN, 0, loop_of(c)->now_ms)) {
        return;
    }
    atomic_fetch_add_explicit(&m->counts.downs, 1, memory_order_relaxed);
    print_what(settings_of(c), what, sizeof(what));
    ag_log(AG_LOG_WARN, "upstream %.*s: server %.*s is down, was up: %s: %s (%u in a row)",
           NAME(g->name), NAME(m->server.written), what, why, in_row);
}

static void come_up(struct ag_health_task *c, uint32_t in_row)
{
    struct ag_upstream_member *m = c->aim.member;
    const struct ag_upstream_group *g = m->group;
    char what[224];

    /* What its breaker knows is from before it went down. */
    if (ag_upstream_member_take_up(m, loop_of(c)->now_ms)) {
        print_what(settings_of(c), what, sizeof(what));
        ag_log(AG_LOG_INFO, "upstream %.*s: server %.*s is up, was down: %s passed (%u in a row)",
               NAME(g->name), NAME(m->server.written), what, in_row);
    }
}

/* `why` it has failed; NULL: it has passed. */
static void judge(struct ag_health_task *c, const char *why)
{
    const struct ag_health_check *s = settings_of(c);
    struct ag_upstream_member *m = c->aim.member;
    bool down = atomic_load_explicit(&m->flags, memory_order_relaxed) & AG_MEMBER_DOWN;
    bool first = atomic_fetch_add_explicit(&m->counts.checks, 1, memory_order_relaxed) == 0;
    _Atomic uint32_t *same = why ? &m->failed_in_row : &m->passed_in_row;
    _Atomic uint32_t *other = why ? &m->passed_in_row : &m->failed_in_row;
    uint32_t in_row = atomic_fetch_add_explicit(same, 1, memory_order_relaxed) + 1;

    atomic_store_explicit(other, 0, memory_order_relaxed);
    if (why) {
        atomic_fetch_add_explicit(&m->counts.checks_failed, 1, memory_order_relaxed);
    }
    if (why && !down && in_row >= s->fall) {
        go_down(c, in_row, why);
    } else if (!why && down && (in_row >= s->rise || first)) { /* new, and well: why wait */
        come_up(c, in_row);
    }
}

/* ---- one check ---- */

static void wait_for_next(struct ag_health_task *c)
{
    uint64_t due = c->started_ms + ag_health_wait_ms(settings_of(c), ag_loop_random(loop_of(c)));

    ag_timer_arm(&loop_of(c)->wheel, &c->timer, due);
}

static void leave(struct ag_health_task *c)
{
    AG_ASSERT(c->under_way);
    c->under_way = false;
    c->watch->health->under_way--;
}

static void finish(struct ag_health_task *c, const char *why)
{
    leave(c);
    judge(c, why);
    wait_for_next(c);
}

/* By this side's fault: it tells nothing. */
static void no_check(struct ag_health_task *c)
{
    leave(c);
    wait_for_next(c);
}

static bool is_ours(enum ag_reason why)
{
    return why == AG_REASON_RESOURCES || why == AG_REASON_ABORTED;
}

static void fail(struct ag_health_task *c, enum ag_reason why, const char *detail)
{
    if (is_ours(why)) {
        no_check(c);
    } else {
        finish(c, why == AG_REASON_TLS && detail ? detail : ag_reason_text(why));
    }
}

/* ---- by a request ---- */

static bool has_text(struct ag_span content, struct ag_span text)
{
    return text.len == 0 || (content.len >= text.len &&
                             memmem(content.ptr, content.len, text.ptr, text.len) != NULL);
}

static void on_answer(struct ag_client_request *r)
{
    struct ag_health_task *c = ag_container_of(r, struct ag_health_task, request);
    const struct ag_health_check *s = settings_of(c);
    uint8_t room[256];
    struct ag_buf why = ag_buf(room, sizeof(room) - 1);

    if (r->status == 0) {
        fail(c, r->reason, r->detail);
        return;
    }
    if (ag_statuses_has(&s->statuses, r->status) && has_text(r->answer, s->body)) {
        finish(c, NULL);
        return;
    }
    ag_buf_put_u64(&why, r->status);
    if (ag_statuses_has(&s->statuses, r->status)) {
        ag_buf_put(&why, AG_SPAN(", but the text asked for is not in the answer"));
    } else {
        ag_buf_put(&why, AG_SPAN(" instead of "));
        ag_statuses_print(&s->statuses, &why);
    }
    room[why.len] = 0;
    finish(c, (const char *)room);
}

static void ask(struct ag_health_task *c)
{
    struct ag_health *h = c->watch->health;
    const struct ag_health_check *s = settings_of(c);

    c->target.path = s->path.len ? s->path : AG_SPAN("/");
    c->request = (struct ag_client_request){.target = &c->target,
                                            .method = s->method,
                                            .host = s->host,
                                            .headers = c->watch->headers,
                                            .header_count = c->watch->header_count,
                                            .aim = &c->aim,
                                            .clip = true,
                                            .done = on_answer};
    if (!ag_client_ops.request((struct ag_client *)(void *)h->all, &c->request)) {
        no_check(c);
    }
}

/* ---- by a connection ---- */

static void on_connected(struct ag_upstream_claim *claim)
{
    struct ag_health_task *c = ag_container_of(claim, struct ag_health_task, claim);

    ag_upstream_release(claim);
    finish(c, NULL);
}

static void on_refused(struct ag_upstream_claim *claim)
{
    fail(ag_container_of(claim, struct ag_health_task, claim), (enum ag_reason)claim->reason,
         claim->detail);
}

static const struct ag_upstream_claim_ops claim_ops = {.ready = on_connected, .failed = on_refused};

static void connect_to(struct ag_health_task *c)
{
    enum ag_status st;

    c->claim = (struct ag_upstream_claim){.ops = &claim_ops, .timeouts = &c->target.timeouts};
    st = ag_upstream_claim_aimed(c->watch->health->all, c->watch->up, &c->aim, &c->claim);
    AG_ASSERT(st != AG_OK); /* it is a new connection */
    if (st != AG_AGAIN) {
        on_refused(&c->claim);
    }
}

/* ---- time ---- */

static void begin(struct ag_health_task *c)
{
    struct ag_health *h = c->watch->health;
    const struct ag_health_check *s = settings_of(c);

    if (h->under_way >= AG_HEALTH_UNDER_WAY) {
        ag_loop_arm(loop_of(c), &c->timer, BUSY_MS);
        return;
    }
    c->started_ms = loop_of(c)->now_ms;
    c->under_way = true;
    h->under_way++;
    c->aim.port = s->port;
    c->aim.bare = s->type == AG_HEALTH_TCP;
    c->target.upstream = c->watch->up;
    c->target.timeouts = (struct ag_upstream_timeouts){.connect_ms = s->timeout_ms};
    ag_loop_arm(loop_of(c), &c->timer, s->timeout_ms);
    if (s->type == AG_HEALTH_HTTP) {
        ask(c);
    } else {
        connect_to(c);
    }
}

/* Whichever way it was made by; the other one is over. */
static void give_up(struct ag_health_task *c)
{
    ag_client_ops.cancel(&c->request);
    ag_upstream_cancel(&c->claim);
}

static void on_timer(struct ag_timer *t)
{
    struct ag_health_task *c = ag_container_of(t, struct ag_health_task, timer);

    if (c->under_way) {
        give_up(c);
        finish(c, "timeout");
    } else {
        begin(c);
    }
}

void ag_health_task_init(struct ag_health_task *c)
{
    ag_timer_init(&c->timer, on_timer);
    ag_loop_arm(loop_of(c), &c->timer, 0);
}

void ag_health_task_stop(struct ag_health_task *c)
{
    ag_timer_cancel(&loop_of(c)->wheel, &c->timer);
    if (c->under_way) {
        give_up(c);
        leave(c);
    }
}

void ag_health_task_renew(struct ag_health_task *c)
{
    uint64_t latest = loop_of(c)->now_ms + settings_of(c)->interval_ms;
    bool again = c->under_way;

    if (again || c->timer.at_ms > latest) {
        ag_health_task_stop(c);
        ag_timer_arm(&loop_of(c)->wheel, &c->timer, again ? loop_of(c)->now_ms : latest);
    }
}
