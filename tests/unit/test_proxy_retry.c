/*
 * Goal: a request that fails before its answer's head is asked again where that is allowed and only there, of
 * another server first; its content arrives whole each time; hedges win or go; what a client sees is one
 * answer; nothing is left.
 * Method: real server, real action, scripted upstreams that fail at each moment, on both backends.
 */
#include "tests/unit/retrying.h"

/* ---- the default ---- */

static void expect_other_server(enum ag_backend_kind kind,
                                void (*script)(struct fake *, struct fake_conn *))
{
    struct world *w = world_new(kind);
    struct fake *a = fake_new(w, NULL), *b = fake_new(w, OK2);
    struct client *c = client_new(w);

    a->script = script;
    (void)route_to_both(w, a, b);
    for (unsigned i = 0; i < 4; i++) {
        ask(w, c, GET, OK);
    }
    cr_expect_geq(a->requests, 1);
    cr_expect_eq(b->requests, 4);
    cr_expect_eq(budget_of(w)->taken, a->requests);
    world_free(w);
}

BOTH(proxy_retry, a_broken_connection_is_another_servers_chance)
{
    expect_other_server(kind, close_always);
}

BOTH(proxy_retry, half_a_head_is_none)
{
    expect_other_server(kind, half_a_head);
}

BOTH(proxy_retry, garbage_is_no_answer)
{
    expect_other_server(kind, garbage);
}

BOTH(proxy_retry, what_may_not_happen_twice_does_not)
{
    struct world *w = world_new(kind);
    struct fake *a = fake_new(w, NULL), *b = fake_new(w, NULL);
    struct client *c = client_new(w);
    struct ag_proxy_settings *s = route_to_both(w, a, b);

    a->script = b->script = close_always;
    ask(w, c, POST0, "\n");
    cr_expect(client_has(c, "HTTP/1.1 502 "));
    cr_expect_eq(a->requests + b->requests, 1);
    s->retry.all_methods = true;
    ask(w, c, POST0, "\n");
    cr_expect_eq(a->requests + b->requests, 3);
    world_free(w);
}

BOTH(proxy_retry, not_after_the_head)
{
    struct world *w = world_new(kind);
    struct fake *a = fake_new(w, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf");
    struct client *c = client_new(w);

    (void)retry_of(route_to_fake(w, a), 3);
    client_send(c, GET);
    world_until(w, client_has(c, "half"));
    fake_hang_up(&a->conns[0]);
    world_until(w, client_over(c));
    cr_expect_eq(a->requests, 1);
    world_free(w);
}

/* ---- by the key ---- */

BOTH(proxy_retry, the_same_server_where_there_is_no_other)
{
    struct world *w = world_new(kind);
    struct fake *a = fake_new(w, NULL);
    struct client *c = client_new(w);
    struct ag_proxy_settings *s = route_to_fake(w, a);

    a->script = third_time_lucky;
    (void)retry_of(s, 3);
    ask(w, c, GET, OK);
    cr_expect_eq(a->requests, 3);
    a->requests = 0;
    a->script = close_always;
    (void)retry_of(s, 2);
    ask(w, c, GET, "\n");
    cr_expect(client_has(c, "HTTP/1.1 502 "));
    cr_expect_eq(a->requests, 3, "one of them for the pooled connection that had died");
    world_free(w);
}

BOTH(proxy_retry, nobody_there_is_asked_again)
{
    struct world *w = world_new(kind);
    struct fake *a = fake_new(w, OK2);
    struct client *c = client_new(w);
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    struct ag_retry_policy *p = retry_of(route_to_fake(w, a), 10);
    uint16_t port = a->port;

    fake_close(a);
    p->backoff_ms = p->max_backoff_ms = 200;
    client_send(c, POST0); /* nothing was sent: it may be asked again, whatever it is */
    world_until(w, upstreams_of(w)->conns.used == 1);
    world_until(w, upstreams_of(w)->conns.used == 0);
    in.sin_port = htons(port);
    {
        const int on = 1;

        a->ls = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        cr_assert_eq(setsockopt(a->ls, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)), 0);
        cr_assert_eq(bind(a->ls, (struct sockaddr *)&in, sizeof(in)), 0);
        cr_assert_eq(listen(a->ls, 8), 0);
    }
    world_until(w, client_has(c, OK));
    world_free(w);
}

BOTH(proxy_retry, a_status_is_asked_again)
{
    struct world *w = world_new(kind);
    struct fake *a = fake_new(w, NOT_OK), *b = fake_new(w, OK2);
    struct client *c = client_new(w);

    on_status(retry_of(route_to_both(w, a, b), 2), 503);
    for (unsigned i = 0; i < 4; i++) {
        ask(w, c, GET, OK);
        world_settle(w);
    }
    cr_expect_geq(a->requests, 2);
    cr_expect_eq(a->accepted, 1, "its connections are used again");
    cr_expect_eq(b->requests, 4);
    world_free(w);
}

BOTH(proxy_retry, the_last_answer_is_passed_on)
{
    struct world *w = world_new(kind);
    struct fake *a = fake_new(w, NOT_OK);
    struct client *c = client_new(w);

    on_status(retry_of(route_to_fake(w, a), 3), 503);
    ask(w, c, GET, "\r\n\r\nbusy");
    cr_expect(client_has(c, "HTTP/1.1 503 No\r\n"));
    cr_expect_eq(a->requests, 3);
    ask(w, c, POST0, "\r\n\r\nbusy"); /* it was seen */
    cr_expect_eq(a->requests, 4);
    world_free(w);
}

BOTH(proxy_retry, an_unwanted_answer_that_does_not_end_is_given_up)
{
    static char wire[40000];
    struct world *w = world_new(kind);
    struct fake *a = fake_new(w, wire), *b = fake_new(w, OK2);
    struct client *c = client_new(w);
    int n = snprintf(wire, sizeof(wire), "HTTP/1.1 503 No\r\nContent-Length: 90000\r\n\r\n");

    on_status(retry_of(route_to_both(w, a, b), 2), 503);
    ask(w, c, GET, OK);
    memset(wire + n, 'x', sizeof(wire) - (size_t)n - 1);
    for (unsigned i = 0; i < 4; i++) {
        ask(w, c, GET, OK);
    }
    cr_expect_geq(a->requests, 2);
    cr_expect_eq(a->accepted, a->requests);
    cr_expect_eq(b->requests, 5);
    world_until(w, fake_open_count(a) == 0);
    world_free(w);
}

BOTH(proxy_retry, an_endless_unwanted_answer_is_not_read_for_long)
{
    static char piece[4001];
    struct world *w = world_new(kind);
    struct fake *a = fake_new(w, "HTTP/1.1 503 No\r\n\r\n"), *b = fake_new(w, OK2);
    struct client *c = client_new(w);
    struct ag_retry_policy *p = retry_of(route_to_both(w, a, b), 2);
    unsigned n = 0;

    memset(piece, 'x', sizeof(piece) - 1);
    on_status(p, 503);
    p->backoff_ms = p->max_backoff_ms = 60000;
    client_send(c, GET);
    world_until(w, a->requests == 1);
    while (fake_open_count(a) > 0 && n < 1000) {
        n += write(a->conns[0].fd, piece, sizeof(piece) - 1) > 0;
        world_turn(w);
    }
    cr_expect_lt(n, 1000);
    cr_expect_eq(b->requests, 0, "it waits all the same");
    {
        const struct linger now = {.l_onoff = 1};

        cr_assert_eq(setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now)), 0);
    }
    world_free(w);
}

BOTH(proxy_retry, a_try_has_its_time)
{
    struct world *w = world_new(kind);
    struct fake *a = fake_new(w, NULL), *b = fake_new(w, OK2);
    struct client *c = client_new(w);
    struct ag_retry_policy *p = retry_of(route_to_both(w, a, b), 2);

    a->script = silent;
    p->causes |= 1u << AG_RETRY_TIMEOUT;
    p->per_try_ms = 500; /* ample for who answers, on a busy machine too */
    for (unsigned i = 0; i < 2; i++) {
        ask(w, c, GET, OK);
    }
    cr_expect_eq(a->requests, 1);
    p->causes = 0;
    b->script = silent;
    ask(w, c, GET, "timeout of a try\n");
    cr_expect(client_has(c, "HTTP/1.1 504 "));
    world_free(w);
}

BOTH(proxy_retry, no_longer_than_all_of_it_may_take)
{
    struct world *w = world_new(kind);
    struct fake *a = fake_new(w, NULL);
    struct client *c = client_new(w);
    struct ag_proxy_settings *s = route_to_fake(w, a);
    struct ag_retry_policy *p = retry_of(s, 10);

    a->script = close_always;
    p->backoff_ms = p->max_backoff_ms = 1u << 30; /* by chance, up to this: not within it */
    s->timeouts.total_ms = 5000;
    ask(w, c, GET, "\n");
    cr_expect(client_has(c, "HTTP/1.1 502 "));
    cr_expect_eq(a->requests, 1);
    world_free(w);
}

BOTH(proxy_retry, the_budget_bounds_them)
{
    struct world *w = world_new(kind);
    struct fake *a = fake_new(w, NULL);
    struct client *c = client_new(w);
    struct ag_retry_policy *p = retry_of(route_to_fake(w, a), 2);
    const struct ag_retry_budget *b;

    a->script = close_always;
    p->percent = 0;
    p->backoff_ms = p->max_backoff_ms = 0;
    for (unsigned i = 0; i < 60; i++) {
        ask(w, c, GET, "\n");
    }
    b = budget_of(w);
    cr_expect_eq(a->requests, 60 + b->taken);
    cr_expect_eq(b->taken + b->refused, 60);
    cr_expect_geq(b->taken, 1);
    world_free(w);
}

BOTH(proxy_retry, a_client_that_goes_ends_the_wait)
{
    struct world *w = world_new(kind);
    struct fake *a = fake_new(w, NULL);
    struct client *c = client_new(w);
    const struct linger now = {.l_onoff = 1};
    struct ag_retry_policy *p = retry_of(route_to_fake(w, a), 5);

    a->script = close_always;
    p->backoff_ms = p->max_backoff_ms = 60000;
    client_send(c, GET);
    world_until(w, a->requests == 1);
    world_settle(w);
    cr_assert_eq(setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now)), 0);
    world_free(w);
}

/* Upstreams that nobody uses are dropped after a while: one that a request is to go back to is not. */
BOTH(proxy_retry, its_upstream_outlasts_the_wait)
{
    struct world *w = world_new(kind);
    struct ag_upstreams *u = upstreams_of(w);
    struct fake *a = fake_new(w, NULL);
    struct client *c = client_new(w);
    struct ag_retry_policy *p = retry_of(route_to_fake(w, a), 3);

    a->script = third_time_lucky;
    p->backoff_ms = p->max_backoff_ms = 400;
    client_send(c, GET);
    for (unsigned tries = 1; tries < 3; tries++) { /* the wait may have been none */
        world_until(w, a->requests > tries || (a->requests == tries && u->conns.used == 0));
        ag_container_of(budget_of(w), struct ag_upstream_pool, retries)->used_ms = 0;
        u->sweep.fire(&u->sweep);
        cr_assert_eq(u->pools.used, 1);
    }
    world_until(w, client_has(c, OK));
    cr_expect_gt(ag_container_of(budget_of(w), struct ag_upstream_pool, retries)->used_ms, 0);
    world_free(w);
}

/* ---- settings that go ---- */

/* A reload takes them from a request that is on its way: it does without another try. */
BOTH(proxy_retry, a_request_outlives_its_settings)
{
    struct world *w = world_new(kind);
    struct fake *a = fake_new(w, NULL), *b = fake_new(w, NULL);
    struct client *c = client_new(w);
    char *put = put_of(5000, false);
    struct ag_proxy_settings *s = route_to_both(w, a, b);

    a->script = b->script = silent;
    (void)retry_of(s, 3);
    (void)hedge_of(s);
    s->retry.after_ms = 60;
    put[strlen(put) - 1000] = 0;
    client_send(c, put);
    world_until(w, a->conns[0].len == 4000);
    cr_expect(ag_action_proxy.outlive(w->ex));
    memset(s, 0xee, sizeof(*s));
    fake_hang_up(&a->conns[0]);
    world_until(w, client_has(c, "HTTP/1.1 502 "));
    cr_expect_eq(b->accepted, 0);
    free(put);
    world_free(w);
}

BOTH(proxy_retry, settings_are_needed_while_it_waits)
{
    struct world *w = world_new(kind);
    struct fake *a = fake_new(w, NULL);
    struct client *c = client_new(w);
    struct ag_retry_policy *p = retry_of(route_to_fake(w, a), 2);

    a->script = close_always;
    p->backoff_ms = p->max_backoff_ms = 400;
    client_send(c, GET);
    world_until(w, a->requests == 1);
    world_until(w, ((struct ag_proxy_call *)w->ex->action_data)->retries == 1);
    if (a->requests == 1) { /* the wait may have been none */
        cr_expect_not(ag_action_proxy.outlive(w->ex));
    }
    world_until(w, client_has(c, "HTTP/1.1 502 "));
    world_free(w);
}
