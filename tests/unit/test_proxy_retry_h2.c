/*
 * Goal: over HTTP/2 too a request is asked again whole, where that is allowed; an unwanted answer costs its
 * stream at most; the loser of a hedge is reset, and its connection goes on.
 * Method: real server, real action and pool, an upstream of frames on raw sockets, on both backends.
 */
#include "actions/proxy/proxy_retry.h"
#include "tests/unit/h2_fake.h"

#define GET  "GET /p HTTP/1.1\r\nHost: x\r\n\r\n"
#define POST "POST /up HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
#define PUT  "PUT /up HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
#define OK   "\r\n\r\nok"

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

static void keep_silent(struct h2_fake_conn *c, uint32_t id, const struct ag_request *req)
{
    (void)c;
    (void)id;
    (void)req;
}

/* All of the content is here, and the first such stream meets `code`. */
static void reset_first(struct h2_fake_conn *c, uint32_t id, bool end, enum ag_h2_error code)
{
    if (end && c->fake->requests == 1) {
        h2_refuse(c, id, code);
    } else if (end) {
        h2_answer(c, id);
    }
}

static void refuse_late(struct h2_fake_conn *c, uint32_t id, struct ag_span data, bool end)
{
    cr_expect(ag_span_eq(data, AG_SPAN("hello")));
    reset_first(c, id, end, AG_H2_REFUSED_STREAM);
}

static void break_late(struct h2_fake_conn *c, uint32_t id, struct ag_span data, bool end)
{
    cr_expect(ag_span_eq(data, AG_SPAN("hello")));
    reset_first(c, id, end, AG_H2_INTERNAL_ERROR);
}

BOTH(proxy_retry_h2, what_was_refused_is_asked_again_with_its_content)
{
    struct world *w = world_new(kind);
    struct h2_fake *f = h2_fake_new();
    struct client *c = client_new(w);

    retry_of(route_to_h2(w, f), 2)->all_methods = true;
    f->script = keep_silent;
    f->on_data = refuse_late;
    h2_ask(w, f, c, POST, OK);
    cr_expect_eq(f->requests, 2);
    cr_expect_eq(f->conns[0].content, 10);
    h2_world_free(w, f);
}

/* Whatever the method: nothing was done about it. `buffer: 0` keeps nothing, for this neither. */
BOTH(proxy_retry_h2, content_that_was_refused_needs_no_policy)
{
    struct world *w = world_new(kind);
    struct h2_fake *f = h2_fake_new();
    struct client *c = client_new(w);
    struct ag_proxy_settings *s = route_to_h2(w, f);

    f->script = keep_silent;
    f->on_data = refuse_late;
    cr_assert(s->retry.elsewhere && !s->retry.buffer_bytes);
    h2_ask(w, f, c, POST, OK);
    (void)retry_of(s, 1);
    f->requests = 0;
    h2_ask(w, f, c, POST, OK);
    cr_expect_eq(f->requests, 2);
    cr_expect_eq(f->conns[0].content, 20);
    cr_expect_eq(f->accepted, 1);
    s->retry.buffer_bytes = 0;
    f->requests = 0;
    h2_ask(w, f, c, POST, "refuses the stream\n");
    cr_expect_eq(f->requests, 1);
    h2_world_free(w, f);
}

static void refuse_always(struct h2_fake_conn *c, uint32_t id, struct ag_span data, bool end)
{
    cr_expect(end && ag_span_eq(data, AG_SPAN("hello")));
    h2_refuse(c, id, AG_H2_REFUSED_STREAM);
}

BOTH(proxy_retry_h2, content_is_refused_four_times_at_most)
{
    struct world *w = world_new(kind);
    struct h2_fake *f = h2_fake_new();
    struct client *c = client_new(w);

    (void)route_to_h2(w, f);
    f->script = keep_silent;
    f->on_data = refuse_always;
    h2_ask(w, f, c, POST, "refuses the stream\n");
    cr_expect_eq(f->requests, 4);
    h2_world_free(w, f);
}

/* The first has its content, and was not looked at. */
static void go_away_late(struct h2_fake_conn *c, uint32_t id, struct ag_span data, bool end)
{
    cr_expect(ag_span_eq(data, AG_SPAN("hello")));
    if (end && c->fake->requests == 1) {
        h2_send_goaway(c, 0);
    } else if (end) {
        h2_answer(c, id);
    }
}

BOTH(proxy_retry_h2, content_survives_who_goes_away)
{
    struct world *w = world_new(kind);
    struct h2_fake *f = h2_fake_new();
    struct client *c = client_new(w);

    (void)route_to_h2(w, f);
    f->script = keep_silent;
    f->on_data = go_away_late;
    h2_ask(w, f, c, POST, OK);
    cr_expect_eq(f->requests, 2);
    cr_expect_eq(f->accepted, 2);
    h2_world_free(w, f);
}

static void answer_head(struct h2_fake_conn *c, uint32_t id, const struct ag_request *req)
{
    (void)req;
    h2_send_fields(c, id, ":status: 200\n", false);
}

static const struct ag_replay *replay_of(const struct world *w)
{
    const struct ag_proxy_call *call = w->ex ? w->ex->action_data : NULL;

    return call && call->more && call->more->replays ? &call->more->content : NULL;
}

/* Both ways at once, of no known length: what comes after the head is not kept, either. */
BOTH(proxy_retry_h2, content_is_let_go_with_the_head)
{
    struct world *w = world_new(kind);
    struct h2_fake *f = h2_fake_new();
    struct client *c = client_new(w);

    (void)route_to_h2(w, f);
    f->script = keep_silent;
    client_send(c,
                "POST /up HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n");
    h2_until(w, f, f->conns[0].content == 3);
    cr_assert(replay_of(w));
    cr_expect_eq(replay_of(w)->kept.bytes, 3);
    answer_head(&f->conns[0], 1, NULL);
    h2_until(w, f, client_has(c, "\r\n\r\n"));
    cr_expect_eq(replay_of(w)->kept.bytes, 0);
    client_send(c, "3\r\ntwo\r\n0\r\n\r\n");
    h2_until(w, f, f->conns[0].content == 6 && f->conns[0].ends == 1);
    cr_expect_eq(replay_of(w)->kept.bytes, 0);
    cr_expect_not(replay_of(w)->keeping);
    h2_send_data(&f->conns[0], 1, "ok", true);
    h2_until(w, f, client_has(c, "ok\r\n0\r\n\r\n"));
    h2_world_free(w, f);
}

#define LONG 70000u

/* All that is to come is here. */
static void refuse_the_long(struct h2_fake_conn *c, uint32_t id, struct ag_span data, bool end)
{
    (void)data;
    if (end) {
        h2_refuse(c, id, AG_H2_REFUSED_STREAM);
    }
}

/* Content beyond the buffer passes, and is not asked again; one whose length says so is not kept at all. */
BOTH(proxy_retry_h2, long_content_is_not_kept)
{
    struct world *w = world_new(kind);
    struct h2_fake *f = h2_fake_new();
    char *text = malloc(LONG + 1), head[128];

    cr_assert(text);
    memset(text, 'x', LONG);
    text[LONG] = 0;
    (void)route_to_h2(w, f);
    f->script = keep_silent;
    f->on_data = refuse_the_long;
    for (unsigned chunked = 0; chunked < 2; chunked++) {
        struct client *c = client_new(w);
        unsigned before = f->requests;

        (void)snprintf(head, sizeof(head), "POST /up HTTP/1.1\r\nHost: x\r\n%s\r\n%s",
                       chunked ? "Transfer-Encoding: chunked\r\n" : "Content-Length: 70000\r\n",
                       chunked ? "11170\r\n" : "");
        client_send(c, head);
        h2_until(w, f, f->requests == before + 1);
        cr_expect_eq(replay_of(w) != NULL, chunked == 1);
        client_send(c, text);
        h2_until(w, f, f->conns[0].content == LONG * (chunked + 1));
        cr_expect(!replay_of(w) || (!replay_of(w)->keeping && replay_of(w)->kept.bytes == 0));
        if (chunked) {
            client_send(c, "\r\n0\r\n\r\n");
        }
        h2_until(w, f, client_has(c, "refuses the stream\n"));
        cr_expect_eq(f->requests, before + 1);
        client_close(c);
    }
    free(text);
    h2_world_free(w, f);
}

BOTH(proxy_retry_h2, a_reset_stream_by_the_method)
{
    struct world *w = world_new(kind);
    struct h2_fake *f = h2_fake_new();
    struct client *c = client_new(w);

    (void)retry_of(route_to_h2(w, f), 2);
    f->script = keep_silent;
    f->on_data = break_late;
    h2_ask(w, f, c, POST, "INTERNAL_ERROR\n");
    cr_expect_eq(f->requests, 1);
    f->requests = 0;
    h2_ask(w, f, c, PUT, OK);
    cr_expect_eq(f->requests, 2);
    h2_world_free(w, f);
}

/* The first is answered with 503, in one frame or with content that does not end. */
static void busy_at_once(struct h2_fake_conn *c, uint32_t id, const struct ag_request *req)
{
    (void)req;
    if (c->fake->requests == 1) {
        h2_send_fields(c, id, ":status: 503\n", true);
    } else {
        h2_answer(c, id);
    }
}

static void busy_for_long(struct h2_fake_conn *c, uint32_t id, const struct ag_request *req)
{
    (void)req;
    if (c->fake->requests == 1) {
        h2_send_fields(c, id, ":status: 503\n", false);
        h2_send_data(c, id, "busy", false);
    } else {
        h2_answer(c, id);
    }
}

BOTH(proxy_retry_h2, a_status_is_asked_again)
{
    struct world *w = world_new(kind);
    struct h2_fake *f = h2_fake_new();
    struct client *c = client_new(w);

    on_status(retry_of(route_to_h2(w, f), 2), 503);
    f->script = busy_at_once;
    h2_ask(w, f, c, GET, OK);
    cr_expect_eq(f->requests, 2);
    cr_expect_eq(f->conns[0].resets, 0);
    f->script = busy_for_long;
    f->requests = 0;
    h2_ask(w, f, c, GET, OK);
    cr_expect_eq(f->requests, 2);
    h2_until(w, f, f->conns[0].resets == 1);
    cr_expect_eq(f->conns[0].reset_code, AG_H2_CANCEL);
    cr_expect_eq(f->accepted, 1);
    h2_world_free(w, f);
}

/* Both of them servers of one upstream. */
BOTH(proxy_retry_h2, the_loser_of_a_hedge_is_reset)
{
    struct world *w = world_new(kind);
    struct h2_fake *f = h2_fake_new(), *g = h2_fake_new();
    struct client *c = client_new(w);
    struct ag_proxy_settings *s;
    char authority[128];

    (void)snprintf(authority, sizeof(authority), "127.0.0.1:%u,127.0.0.1:%u", f->port, g->port);
    s = route_to(w, authority);
    ((struct ag_upstream *)(uintptr_t)s->upstream)->protocol = AG_UPSTREAM_H2C;
    s->retry.hedges = 1;
    s->retry.after_ms = 10;
    f->script = keep_silent;
    client_send(c, GET);
    for (unsigned i = 0; i < TURNS_MAX && !client_has(c, OK); i++) {
        world_turn(w);
        h2_fake_pump(f);
        h2_fake_pump(g);
    }
    cr_assert(client_has(c, OK));
    cr_expect_eq(f->requests, 1);
    cr_expect_eq(g->requests, 1);
    h2_until(w, f, f->conns[0].resets == 1);
    cr_expect_eq(f->conns[0].reset_code, AG_H2_CANCEL);
    cr_expect_eq(h2_fake_open(f), 1);
    h2_fake_free(g);
    h2_world_free(w, f);
}
