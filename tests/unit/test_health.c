/*
 * Goal: what requests meet is counted for the server whose doing it is, trials are as few as is said and never
 * lost, and a server that is drained ends what it has.
 * Method: real server, real action, scripted upstreams; a breaker's time is set by hand.
 */
#include "actions/upstream/health.h"

#include "tests/unit/proxying.h"

#define OK2 "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
#define GET "GET /p HTTP/1.1\r\nHost: x\r\n\r\n"

/* ---- members ---- */

struct search {
    uint16_t port;
    struct ag_upstream_member *found;
};

static void search(void *arg, struct ag_upstream_group *g)
{
    struct search *s = arg;

    for (uint32_t i = 0; i < g->count; i++) {
        if (g->members[i] && g->members[i]->server.port == s->port) {
            s->found = g->members[i];
        }
    }
}

/* Of the server that `f` is, when a request has made its upstream. */
static struct ag_upstream_member *member_of(struct world *w, const struct fake *f)
{
    struct search s = {.port = f->port};

    ag_upstream_groups_each(upstreams_of(w)->groups, search, &s);
    cr_assert(s.found);
    return s.found;
}

static struct ag_proxy_settings *route_to_two(struct world *w, const struct fake *f,
                                              const struct fake *g)
{
    char authority[64];

    (void)snprintf(authority, sizeof(authority), "127.0.0.1:%u,127.0.0.1:%u", f->port, g->port);
    return route_to(w, authority);
}

/* One request makes the upstream; then its breaker is opened, and due. */
static struct ag_upstream_member *opened(struct world *w, struct fake *f, uint32_t trials)
{
    struct ag_upstream_options *o = options_of(route_to_fake(w, f));
    struct client *c = client_new(w);
    struct ag_breaker_options at_once;
    struct ag_upstream_member *m;

    o->health.breaker.trials = trials;
    o->health.breaker.max_percent = 100;
    o->health.breaker.for_ms = o->health.breaker.max_for_ms = 60000; /* longer than trials take */
    at_once = o->health.breaker;
    at_once.for_ms = at_once.max_for_ms = 0;
    ask(w, c, GET, "ok");
    client_close(c);
    m = member_of(w, f);
    cr_assert(ag_breaker_open(&m->breaker, &at_once, w->loop.now_ms));
    cr_assert(ag_upstream_member_eject(m, 100));
    f->wire = NULL;
    return m;
}

/* ---- trials ---- */

BOTH(health, no_more_trials_than_are_asked_for)
{
    struct world *w = world_new(kind);
    struct fake *f = fake_new(w, OK2);
    struct ag_upstream_member *m = opened(w, f, 2);
    struct client *c[4];
    unsigned before = f->requests;

    for (unsigned i = 0; i < 4; i++) {
        c[i] = client_new(w);
        client_send(c[i], GET);
        world_settle(w);
    }
    cr_expect_eq(f->requests, before + 2);
    cr_expect(client_has(c[2], "503"));
    cr_expect(client_has(c[3], "503"));
    for (unsigned i = 0; i < FAKE_CONNS_MAX; i++) {
        if (f->conns[i].fd >= 0 && !f->conns[i].eof) {
            fake_send(&f->conns[i], OK2);
        }
    }
    world_until(w, client_has(c[0], "ok") && client_has(c[1], "ok"));
    cr_expect_eq(m->flags, 0, "it is back");
    cr_expect_neq(m->up_ms, 0);
    world_free(w);
}

static void client_reset(struct client *c)
{
    const struct linger now = {.l_onoff = 1};

    cr_assert_eq(setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now)), 0);
    client_close(c);
}

/* A trial whose client leaves tells nothing: the next request is one. */
BOTH(health, a_trial_is_never_lost)
{
    struct world *w = world_new(kind);
    struct fake *f = fake_new(w, OK2);
    struct ag_upstream_member *m = opened(w, f, 1);

    for (unsigned i = 0; i < 3; i++) {
        struct client *c = client_new(w);
        unsigned before = f->requests;

        client_send(c, GET);
        world_until(w, f->requests > before);
        client_reset(c);
        world_settle(w);
        cr_expect_eq(ag_breaker_state(&m->breaker), AG_BREAKER_HALF_OPEN);
    }
    f->wire = OK2;
    ask(w, client_new(w), GET, "ok");
    cr_expect_eq(ag_breaker_state(&m->breaker), AG_BREAKER_CLOSED);
    cr_expect_eq(m->flags, 0);
    world_free(w);
}

BOTH(health, a_trial_that_fails_opens_it_again)
{
    struct world *w = world_new(kind);
    struct fake *f = fake_new(w, OK2);
    struct ag_upstream_member *m = opened(w, f, 1);

    f->wire = "nonsense\r\n\r\n";
    ask(w, client_new(w), GET, "502");
    cr_expect_eq(ag_breaker_state(&m->breaker), AG_BREAKER_OPEN);
    cr_expect_eq(m->flags, AG_MEMBER_EJECTED);
    world_free(w);
}

/* ---- whose doing it is ---- */

/* A client that sends its content slowly could else have servers left out, one by one. */
BOTH(health, a_client_that_is_late_is_no_error_of_the_server)
{
    struct world *w = world_new(kind);
    struct fake *f = fake_new(w, NULL);
    struct ag_proxy_settings *s = route_to_fake(w, f);
    struct client *c = client_new(w);

    s->timeouts.total_ms = 50;
    ask(w, c, "POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab", "504");
    cr_expect_eq(member_of(w, f)->counts.errors, 0);
    client_close(c);
    uint64_t errors = 0;
    for (unsigned tries = 0, had = f->requests; f->requests == had; tries++) {
        cr_assert_lt(tries,
                     50); /* where its time was over before it had any, as this test stood still */
        errors = member_of(w, f)->counts.errors;
        c = client_new(w);
        ask(w, c, "POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab", "504");
        client_close(c);
    }
    cr_expect_eq(member_of(w, f)->counts.errors, errors + 1, "it had all of it");
    world_free(w);
}

static void close_the_second(struct fake *f, struct fake_conn *c)
{
    if (c->requests == 2) {
        fake_hang_up(c);
    } else {
        fake_send(c, OK2);
    }
    (void)f;
}

BOTH(health, a_connection_that_was_idle_may_be_closed)
{
    struct world *w = world_new(kind);
    struct fake *f = fake_new(w, NULL);
    struct client *c = client_new(w);

    (void)route_to_fake(w, f);
    f->script = close_the_second;
    ask(w, c, GET, "ok");
    ask(w, c, GET, "ok");
    cr_expect_eq(f->accepted, 2);
    cr_expect_eq(member_of(w, f)->counts.errors, 0);
    world_free(w);
}

BOTH(health, answers_that_are_none_are_errors)
{
    struct world *w = world_new(kind);
    struct fake *f = fake_new(w, "HTTP/1.1 2000 OK\r\n\r\n");

    (void)route_to_fake(w, f);
    ask(w, client_new(w), GET, "502");
    cr_expect_eq(member_of(w, f)->counts.errors, 1);
    world_free(w);
}

/* ---- drained ---- */

BOTH(health, who_is_drained_ends_what_it_has)
{
    struct world *w = world_new(kind);
    struct fake *f = fake_new(w, NULL), *g = fake_new(w, OK2);
    struct client *c = client_new(w), *other = client_new(w);
    struct ag_upstream_member *m;

    (void)route_to_two(w, f, g);
    client_send(c, GET);
    world_until(w, f->requests == 1 || g->requests == 1);
    if (g->requests == 1) { /* whose turn it is */
        world_until(w, client_has(c, "ok"));
        client_send(c, GET);
        world_until(w, f->requests == 1);
    }
    m = member_of(w, f);
    (void)ag_upstream_member_mark(m, AG_MEMBER_DRAINED, 0, w->loop.now_ms);
    for (unsigned i = 0; i < 6; i++) {
        ask(w, other, GET, "ok");
    }
    cr_expect_eq(f->requests, 1);
    c->len = 0;
    fake_send(&f->conns[0], OK2);
    world_until(w, client_has(c, "ok"));
    ask(w, other, GET, "ok");
    (void)ag_upstream_member_mark(m, 0, AG_MEMBER_DRAINED, w->loop.now_ms);
    f->wire = OK2;
    ask(w, other, GET, "ok");
    ask(w, other, GET, "ok");
    cr_expect_eq(f->requests, 2);
    world_free(w);
}

/* ---- what is asked ---- */

static void count_views(void *arg, const struct ag_health_view *v)
{
    unsigned *n = arg;

    cr_expect_eq(v->errors, 1);
    cr_expect_eq(v->breaker, AG_BREAKER_CLOSED);
    cr_expect_eq(v->flags, 0);
    cr_expect(ag_span_starts(v->server, AG_SPAN("127.0.0.1:")));
    cr_expect(ag_span_eq(v->server, v->upstream));
    (*n)++;
}

BOTH(health, who_asks_is_told)
{
    struct world *w = world_new(kind);
    struct fake *f = fake_new(w, "nonsense\r\n\r\n");
    unsigned n = 0;

    (void)route_to_fake(w, f);
    ask(w, client_new(w), GET, "502");
    ag_health_each(upstreams_of(w)->groups, count_views, &n);
    cr_expect_eq(n, 1);
    world_free(w);
}

Test(health, an_interval_has_its_jitter)
{
    const struct ag_health_check c = {.interval_ms = 1000, .jitter_percent = 10};
    const struct ag_health_check none = {.interval_ms = 1000};

    cr_expect_eq(ag_health_wait_ms(&c, 0), 900);
    cr_expect_eq(ag_health_wait_ms(&c, 200), 1100);
    cr_expect_eq(ag_health_wait_ms(&c, 201), 900);
    cr_expect_eq(ag_health_wait_ms(&none, 12345), 1000);
}
