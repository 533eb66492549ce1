/*
 * Goal: content is sent again whole where it is kept, whenever it comes, and a request whose content is not is not
 * asked again; hedges win or go, with all of the content; what a client sees is one answer; nothing is left.
 * Method: real server, real action, scripted upstreams that fail at each moment, on both backends.
 */
#include "tests/unit/retrying.h"

/* ---- content ---- */

BOTH(proxy_retry_content, content_is_sent_again_whole)
{
    struct world *w = world_new(kind);
    struct fake *a = fake_new(w, NULL);
    struct client *c = client_new(w);
    char *put = put_of(12000, false);

    (void)retry_of(route_to_fake(w, a), 3);
    client_send(c, put);
    for (unsigned i = 0; i < 2; i++) {
        world_until(w, a->accepted == i + 1 && has_content(a, 0, put, 12000));
        fake_hang_up(&a->conns[0]);
    }
    world_until(w, a->accepted == 3 && has_content(a, 0, put, 12000));
    fake_send(&a->conns[0], OK2);
    world_until(w, client_has(c, OK));
    free(put);
    world_free(w);
}

/* The chunks of `wire` hold `first`, and `rest` up to its line's end. */
static void expect_chunks(const char *wire, const char *first, const char *rest)
{
    char want[8192], got[8192];
    size_t len = 0, n;

    (void)snprintf(want, sizeof(want), "%s%.*s", first, (int)strcspn(rest, "\r"), rest);
    while ((n = strtoul(wire, NULL, 16)) > 0) {
        cr_assert_lt(len + n, sizeof(got));
        wire = strstr(wire, "\r\n") + 2;
        memcpy(got + len, wire, n);
        len += n;
        wire += n + 2;
    }
    got[len] = 0;
    cr_expect_str_eq(got, want);
}

BOTH(proxy_retry_content, content_that_is_still_coming_follows)
{
    struct world *w = world_new(kind);
    struct fake *a = fake_new(w, NULL);
    struct client *c = client_new(w);
    char *put = put_of(6000, true), rest[8000];
    size_t cut = strlen(put) - 4000;

    (void)snprintf(rest, sizeof(rest), "%s", put + cut);
    put[cut] = 0;
    (void)retry_of(route_to_fake(w, a), 2);
    client_send(c, put);
    world_until(w, a->conns[0].len > 1000);
    fake_hang_up(&a->conns[0]);
    world_until(w, a->accepted == 2 && a->conns[0].len > 1000);
    client_send(c, rest);
    world_until(w, a->requests == 3); /* the empty line of the last chunk counts as one */
    expect_chunks(a->head, strstr(strstr(put, "\r\n\r\n") + 4, "\r\n") + 2, rest);
    fake_send(&a->conns[0], OK2);
    world_until(w, client_has(c, OK));
    free(put);
    world_free(w);
}

/* Content that is kept is not held back, and the answer may come before its end. */
BOTH(proxy_retry_content, both_ways_at_once)
{
    struct world *w = world_new(kind);
    struct fake *a = fake_new(w, NULL);
    struct client *c = client_new(w);

    (void)retry_of(route_to_fake(w, a), 2);
    client_send(c, "PUT /p HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n");
    world_until(w, memmem(a->conns[0].in, a->conns[0].len, "one", 3) != NULL);
    fake_send(&a->conns[0], "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nuno\r\n");
    world_until(w, client_has(c, "uno"));
    client_send(c, "3\r\ntwo\r\n");
    world_until(w, memmem(a->conns[0].in, a->conns[0].len, "two", 3) != NULL);
    cr_expect_eq(ag_loop_bufs_used(&w->loop, AG_BUF_LARGE), 0);
    fake_send(&a->conns[0], "3\r\ndue\r\n");
    world_until(w, client_has(c, "due"));
    client_send(c, "0\r\n\r\n");
    world_until(w, a->requests == 2); /* the empty line of the last chunk counts as one */
    fake_send(&a->conns[0], "0\r\n\r\n");
    world_until(w, client_has(c, "\r\n0\r\n\r\n"));
    world_free(w);
}

/* More than may be kept comes while no try is under way: it waits. */
BOTH(proxy_retry_content, content_that_comes_in_the_pause_is_not_lost)
{
    struct world *w = world_new(kind);
    struct fake *a = fake_new(w, NULL);
    struct client *c = client_new(w);
    struct ag_retry_policy *p = retry_of(route_to_fake(w, a), 2);
    char *put = put_of(9000, false), rest[8000], first;
    struct ag_proxy_call *call;
    size_t cut = strlen(put) - 7000;

    (void)snprintf(rest, sizeof(rest), "%s", put + cut);
    first = put[cut];
    put[cut] = 0;
    p->buffer_bytes = 9000;
    p->backoff_ms = p->max_backoff_ms = 300;
    client_send(c, put);
    world_until(w, a->conns[0].len == 2000);
    call = w->ex->action_data;
    call->more->content.limit_bytes = 3000;
    fake_hang_up(&a->conns[0]);
    world_until(w, call->retries == 1);
    client_send(c, rest);
    put[cut] = first;
    world_until(w, a->accepted == 2 && has_content(a, 0, put, 9000));
    fake_send(&a->conns[0], OK2);
    world_until(w, client_has(c, OK));
    free(put);
    world_free(w);
}

BOTH(proxy_retry_content, content_beyond_the_bound_is_not)
{
    struct world *w = world_new(kind);
    struct fake *a = fake_new(w, NULL);
    struct client *c = client_new(w);
    struct ag_retry_policy *p = retry_of(route_to_fake(w, a), 3);

    p->buffer_bytes = 4000;
    for (unsigned i = 0; i < 2; i++) {
        char *put = put_of(5000, i == 1);

        c->len = 0;
        client_send(c, put);
        world_until(w, a->accepted == i + 1 && (a->conns[0].len == 5000 || a->requests == 3));
        fake_hang_up(&a->conns[0]);
        world_until(w, client_has(c, "\n"));
        cr_expect(client_has(c, "HTTP/1.1 502 "));
        free(put);
    }
    world_settle(w);
    cr_expect_eq(a->accepted, 2);
    world_free(w);
}

BOTH(proxy_retry_content, an_early_refusal_leaves_the_content_whole)
{
    struct world *w = world_new(kind);
    struct fake *a = fake_new(w, NULL);
    struct client *c = client_new(w);
    char *put = put_of(8000, false), rest[8000];

    (void)snprintf(rest, sizeof(rest), "%s", put + 2000);
    put[2000] = 0;
    on_status(retry_of(route_to_fake(w, a), 2), 503);
    client_send(c, put);
    world_until(w, a->accepted == 1 && a->conns[0].len > 1000);
    fake_send(&a->conns[0], NOT_OK);
    world_until(w, a->accepted == 2);
    client_send(c, rest);
    put[2000] = rest[0];
    world_until(w, has_content(a, a->conns[0].eof ? 1 : 0, put, 8000));
    fake_send(&a->conns[a->conns[0].eof ? 1 : 0], OK2);
    world_until(w, client_has(c, OK));
    free(put);
    world_free(w);
}

BOTH(proxy_retry_content, an_early_refusal_of_what_is_not_kept_is_passed_on)
{
    struct world *w = world_new(kind);
    struct fake *a = fake_new(w, NOT_OK);
    struct client *c = client_new(w);
    struct ag_retry_policy *p = retry_of(route_to_fake(w, a), 2);

    on_status(p, 503);
    p->buffer_bytes = 0;
    ask(w, c, "PUT /p HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n", "\r\n\r\nbusy");
    cr_expect_eq(a->requests, 1);
    world_free(w);
}

/* ---- hedges ---- */

BOTH(proxy_retry_content, a_hedge_wins)
{
    static char wire[100200];
    struct world *w = world_new(kind);
    struct fake *a = fake_new(w, NULL), *b = fake_new(w, wire);
    struct client *c = client_new(w);
    int n = snprintf(wire, sizeof(wire), "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n");
    const uint8_t *head;

    memset(wire + n, 'x', 99998);
    (void)snprintf(wire + n + 99998, 3, "ok");
    a->script = silent;
    (void)hedge_of(route_to_both(w, a, b));
    ask(w, c, GET, "xxok");
    head = memmem(c->got, c->len, "\r\n\r\n", 4);
    cr_assert(head);
    cr_expect_eq(c->got + c->len - (head + 4), 100000);
    cr_expect_eq(a->requests, 1);
    cr_expect_eq(b->requests, 1);
    world_until(w, fake_open_count(a) == 0);
    ask(w, c, GET, "xxok"); /* the connections of both ends are as they were */
    cr_expect_eq(b->accepted, 1);
    world_free(w);
}

BOTH(proxy_retry_content, a_hedge_has_all_of_the_content)
{
    struct world *w = world_new(kind);
    struct fake *a = fake_new(w, NULL), *b = fake_new(w, NULL);
    struct client *c = client_new(w);
    char *put = put_of(9000, false), rest[8000];
    size_t cut = strlen(put) - 7000;
    struct ag_proxy_settings *s = route_to_both(w, a, b);

    (void)retry_of(s, 2);
    (void)hedge_of(s);
    (void)snprintf(rest, sizeof(rest), "%s", put + cut);
    put[cut] = 0;
    client_send(c, put);
    world_until(w, a->conns[0].len == 2000);
    for (unsigned i = 0; i < 3; i++) {
        world_settle(w);
    }
    cr_expect_eq(b->accepted, 0, "not before it is here");
    client_send(c, rest);
    put[cut] = rest[0];
    world_until(w, b->accepted == 1 && has_content(b, 0, put, 9000));
    cr_expect(has_content(a, 0, put, 9000));
    fake_hang_up(&a->conns[0]);
    world_settle(w);
    fake_send(&b->conns[0], OK2);
    world_until(w, client_has(c, OK));
    free(put);
    world_free(w);
}

/* Makes room for what comes, and keeps the beginning of an end. */
static void drain(struct fake_conn *c)
{
    if (c->len == FAKE_IN_MAX) {
        memmove(c->in, c->in + FAKE_IN_MAX - 4, 4);
        c->len = 4;
    }
}

/* What the client has sent is all here, but the first server takes too little of it to keep the rest. */
BOTH(proxy_retry_content, a_hedge_waits_for_content_that_the_first_server_does_not_take)
{
    struct world *w = world_new(kind);
    struct fake *a = fake_new(w, NULL), *b = fake_new(w, NULL);
    struct client *c = client_new(w);
    struct ag_proxy_settings *s = route_to_both(w, a, b);
    const int small = 4096, mss = 536;
    char chunk[8 + 8192 + 2 + 1] = "2000\r\n";
    uint64_t then;

    cr_assert_eq(setsockopt(a->ls, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)), 0);
    cr_assert_eq(setsockopt(a->ls, IPPROTO_TCP, TCP_MAXSEG, &mss, sizeof(mss)), 0);
    retry_of(s, 2)->buffer_bytes = AG_RETRY_BUFFER_MAX;
    (void)hedge_of(s);
    memset(chunk + 6, 'x', 8192);
    memcpy(chunk + 6 + 8192, "\r\n", 3);
    client_send(c, "PUT /p HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    world_until(w, a->requests == 1);
    for (unsigned stuck = 0; stuck < 50;) { /* until nothing more goes to the first server */
        if (stuck == 0) {
            client_send(c, chunk);
        }
        world_turn(w);
        stuck = w->ex->req_body.q.bytes > 0 ? stuck + 1 : 0;
        cr_assert_lt(w->ex->req_body.total_bytes, AG_RETRY_BUFFER_MAX);
    }
    client_send(c, "0\r\n\r\n");
    world_until(w, w->ex->req_body.ended);
    cr_assert_gt(w->ex->req_body.q.bytes, 0);
    then = w->loop.now_ms;
    world_until(w, w->loop.now_ms > then + 3 * s->retry.after_ms);
    cr_expect_eq(b->accepted, 0, "not before all of it is kept");
    for (unsigned i = 0; i < TURNS_MAX && b->requests < 2; i++) { /* an end looks like a head's */
        drain(&a->conns[0]);
        drain(&b->conns[0]);
        world_turn(w);
    }
    cr_expect_eq(b->requests, 2);
    fake_send(&b->conns[0], OK2);
    world_until(w, client_has(c, OK));
    world_free(w);
}

/* Nor is what the first server did not take kept until the answer ends. */
BOTH(proxy_retry_content, a_request_that_is_held_is_let_go_when_its_hedge_wins)
{
    struct world *w = world_new(kind);
    struct fake *a = fake_new(w, NULL), *b = fake_new(w, NULL);
    struct client *c = client_new(w);
    struct ag_proxy_settings *s = route_to_both(w, a, b);
    static char part[8193];
    const struct ag_proxy_call *call;

    a->script = b->script = silent;
    s->buffer = (struct ag_buffer_policy){.request = true, .memory_bytes = 8u << 20};
    (void)hedge_of(s);
    memset(part, 'x', sizeof(part) - 1);
    client_send(c, "PUT /p HTTP/1.1\r\nHost: x\r\nContent-Length: 1638400\r\n\r\n");
    for (unsigned i = 0; i < 200; i++) {
        client_send(c, part);
        world_turn(w);
    }
    world_until(w, b->requests == 1);
    call = w->ex->action_data;
    for (unsigned i = 0; i < TURNS_MAX && call->more->hedges[0]->req_body.q.bytes > 0; i++) {
        drain(&b->conns[0]);
        world_turn(w);
    }
    cr_assert_gt(call->buffers->request->memory.q.bytes, 0, "the first server has not taken it");
    fake_send(&b->conns[0], "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npart");
    world_until(w, client_has(c, "part"));
    cr_expect_eq(call->buffers->request->memory.q.bytes, 0);
    cr_expect_eq(call->buffers->sending.q.bytes, 0);
    fake_send(&b->conns[0], "ok");
    world_until(w, client_has(c, "partok"));
    world_free(w);
}

BOTH(proxy_retry_content, a_hedge_loses)
{
    struct world *w = world_new(kind);
    struct fake *a = fake_new(w, NULL), *b = fake_new(w, NULL);
    struct client *c = client_new(w);

    a->script = b->script = silent;
    (void)hedge_of(route_to_both(w, a, b));
    client_send(c, GET);
    world_until(w, a->requests == 1 && b->requests == 1);
    fake_send(&a->conns[0], OK2);
    world_until(w, client_has(c, OK));
    world_until(w, fake_open_count(b) == 0);
    cr_expect_eq(fake_open_count(a), 1);
    world_free(w);
}

BOTH(proxy_retry_content, a_try_that_fails_leaves_it_to_its_hedge)
{
    struct world *w = world_new(kind);
    struct fake *a = fake_new(w, NULL), *b = fake_new(w, NULL);
    struct client *c = client_new(w);
    struct ag_proxy_settings *s = route_to_both(w, a, b);

    a->script = b->script = silent;
    s->retry.attempts = 1;
    (void)hedge_of(s);
    client_send(c, GET);
    world_until(w, a->requests == 1 && b->requests == 1);
    fake_hang_up(&a->conns[0]);
    world_settle(w);
    cr_expect_not(client_has(c, "HTTP"));
    fake_send(&b->conns[0], OK2);
    world_until(w, client_has(c, OK));
    client_send(c, GET); /* and both of them */
    world_until(w, a->requests == 2 && b->requests == 2);
    c->len = 0;
    fake_hang_up(&b->conns[0]);
    fake_hang_up(&a->conns[0]);
    world_until(w, client_has(c, "HTTP/1.1 502 "));
    world_free(w);
}

BOTH(proxy_retry_content, no_hedge_of_what_is_answered_or_may_not_happen_twice)
{
    struct world *w = world_new(kind);
    struct fake *a = fake_new(w, OK2), *b = fake_new(w, OK2);
    struct client *c = client_new(w);

    struct ag_retry_policy *p = hedge_of(route_to_both(w, a, b));

    p->after_ms = 5000; /* longer than any machine takes to answer */
    ask(w, c, GET, OK);
    p->after_ms = 10;
    a->script = b->script = silent;
    client_send(c, POST0);
    world_until(w, a->requests + b->requests == 2);
    for (unsigned i = 0; i < 5; i++) {
        world_settle(w);
    }
    cr_expect_eq(a->requests + b->requests, 2);
    fake_send(b->requests ? &b->conns[0] : &a->conns[0], OK2);
    world_free(w);
}

BOTH(proxy_retry_content, a_cut_answer_of_a_hedge_is_seen_to_be_cut)
{
    struct world *w = world_new(kind);
    struct fake *a = fake_new(w, NULL);
    struct fake *b = fake_new(w, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf");
    struct client *c = client_new(w);

    a->script = silent;
    (void)hedge_of(route_to_both(w, a, b));
    client_send(c, GET);
    world_until(w, client_has(c, "half"));
    fake_hang_up(&b->conns[0]);
    world_until(w, client_over(c));
    world_free(w);
}

BOTH(proxy_retry_content, a_client_that_goes_takes_all_tries_along)
{
    struct world *w = world_new(kind);
    struct fake *a = fake_new(w, NULL), *b = fake_new(w, NULL);
    struct client *c = client_new(w);
    const struct linger now = {.l_onoff = 1};

    a->script = b->script = silent;
    (void)hedge_of(route_to_both(w, a, b));
    client_send(c, GET);
    world_until(w, a->requests == 1 && b->requests == 1);
    cr_assert_eq(setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now)), 0);
    client_close(c);
    world_until(w, fake_open_count(a) + fake_open_count(b) == 0);
    world_free(w);
}
