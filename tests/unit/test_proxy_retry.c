/*
 * Goal: a request that fails before its answer's head is asked again where that is allowed and only there, of
 * another server first; its content arrives whole each time; hedges win or go; what a client sees is one
 * answer; nothing is left.
 * Method: real server, real action, scripted upstreams that fail at each moment, on both backends.
 */
#include "actions/proxy_retry.h"
#include "tests/unit/proxying.h"

#include <stdlib.h>

#define OK2    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
#define NOT_OK "HTTP/1.1 503 No\r\nContent-Length: 4\r\n\r\nbusy"
#define GET    "GET /p HTTP/1.1\r\nHost: x\r\n\r\n"
#define POST0  "POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
#define OK     "\r\n\r\nok"

static struct ag_proxy_settings *route_to_both(struct world *w, const struct fake *a,
                                               const struct fake *b)
{
    char authority[128];

    (void)snprintf(authority, sizeof(authority), "127.0.0.1:%u,127.0.0.1:%u", a->port, b->port);
    return route_to(w, authority);
}

/* As `retry: {attempts: N, backoff: 1ms, on: ...}` would have it. */
static struct ag_retry_policy *retry_of(struct ag_proxy_settings *s, uint8_t attempts)
{
    s->retry.elsewhere = false;
    s->retry.attempts = attempts;
    s->retry.backoff_ms = s->retry.max_backoff_ms = 1;
    s->retry.buffer_bytes = 65536;
    return &s->retry;
}

static void on_status(struct ag_retry_policy *p, unsigned status)
{
    p->causes |= 1u << AG_RETRY_STATUS;
    p->statuses[(status - 400) / 64] |= UINT64_C(1) << (status - 400) % 64;
}

static const struct ag_retry_budget *budget_of(struct world *w)
{
    struct ag_upstreams *u = upstreams_of(w);

    for (unsigned i = 0; i < AG_UPSTREAM_BUCKETS; i++) {
        if (!ag_list_empty(&u->buckets[i])) {
            return &ag_container_of(u->buckets[i].next, struct ag_upstream_pool, link)->retries;
        }
    }
    cr_assert(false, "no upstream");
    return NULL;
}

static void close_always(struct fake *f, struct fake_conn *c)
{
    (void)f;
    fake_hang_up(c);
}

static void half_a_head(struct fake *f, struct fake_conn *c)
{
    (void)f;
    fake_send(c, "HTTP/1.1 200 OK\r\nContent-");
    fake_hang_up(c);
}

static void garbage(struct fake *f, struct fake_conn *c)
{
    (void)f;
    fake_send(c, "SSH-2.0-x\r\n\r\n");
}

static void silent(struct fake *f, struct fake_conn *c)
{
    (void)f;
    (void)c;
}

/* The first two requests fail. */
static void third_time_lucky(struct fake *f, struct fake_conn *c)
{
    if (f->requests < 3) {
        fake_hang_up(c);
    } else {
        fake_send(c, OK2);
    }
}

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
    p->per_try_ms = 30;
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

    a->script = close_always;
    (void)retry_of(s, 10);
    s->timeouts.total_ms = 1;
    ask(w, c, GET, "\n");
    cr_expect(client_has(c, "HTTP/1.1 50"));
    cr_expect_leq(a->requests, 2);
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

/* ---- content ---- */

/* A PUT with `len` bytes of content; free it. */
static char *put_of(size_t len, bool chunked)
{
    char *text = malloc(len + 256);
    int n;

    cr_assert(text);
    n = chunked
            ? snprintf(text, 256,
                       "PUT /p HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%zx\r\n",
                       len)
            : snprintf(text, 256, "PUT /p HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n", len);
    for (size_t i = 0; i < len; i++) {
        text[(size_t)n + i] = (char)('a' + i * 7 / 3 % 26);
    }
    (void)snprintf(text + n + len, 16, "%s", chunked ? "\r\n0\r\n\r\n" : "");
    return text;
}

static bool has_content(const struct fake *f, unsigned conn, const char *request, size_t len)
{
    const char *content = strstr(request, "\r\n\r\n") + 4;
    const struct fake_conn *c = &f->conns[conn];

    return c->len == len && memcmp(c->in, content, len) == 0;
}

BOTH(proxy_retry, content_is_sent_again_whole)
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

BOTH(proxy_retry, content_that_is_still_coming_follows)
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
BOTH(proxy_retry, both_ways_at_once)
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
BOTH(proxy_retry, content_that_comes_in_the_pause_is_not_lost)
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

BOTH(proxy_retry, content_beyond_the_bound_is_not)
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

BOTH(proxy_retry, an_early_refusal_leaves_the_content_whole)
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

BOTH(proxy_retry, an_early_refusal_of_what_is_not_kept_is_passed_on)
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

static struct ag_retry_policy *hedge_of(struct ag_proxy_settings *s)
{
    s->retry.hedges = 1;
    s->retry.after_ms = 10;
    return &s->retry;
}

BOTH(proxy_retry, a_hedge_wins)
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

BOTH(proxy_retry, a_hedge_has_all_of_the_content)
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

BOTH(proxy_retry, a_hedge_loses)
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

BOTH(proxy_retry, a_try_that_fails_leaves_it_to_its_hedge)
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

BOTH(proxy_retry, no_hedge_of_what_is_answered_or_may_not_happen_twice)
{
    struct world *w = world_new(kind);
    struct fake *a = fake_new(w, OK2), *b = fake_new(w, OK2);
    struct client *c = client_new(w);

    (void)hedge_of(route_to_both(w, a, b));
    ask(w, c, GET, OK);
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

BOTH(proxy_retry, a_cut_answer_of_a_hedge_is_seen_to_be_cut)
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

BOTH(proxy_retry, a_client_that_goes_takes_all_tries_along)
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
