/*
 * Goal: calls share connections of HTTP/2 within what the upstream allows; one that fails, is late or whose
 * client goes away costs nobody else; what the upstream has not begun is made again elsewhere, what it has
 * is not; nothing is left.
 * Method: real server, real action and pool, an upstream of frames on raw sockets, on both backends.
 */
#include "tests/unit/h2_fake.h"

#define GET  "GET /p?q=1 HTTP/1.1\r\nHost: example.com\r\nUser-Agent: u\r\n\r\n"
#define OK   "\r\n\r\nok"
#define POST "POST /up HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"

static void keep_silent(struct h2_fake_conn *c, uint32_t id, const struct ag_request *req)
{
    (void)c;
    (void)id;
    (void)req;
}

/* Goes away without a word. */
static void client_reset(struct client *c)
{
    const struct linger now = {.l_onoff = 1};

    cr_assert_eq(setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now)), 0);
    client_close(c);
}

/* ---- sharing ---- */

BOTH(proxy_h2, a_request_and_its_answer)
{
    struct world *w = world_new(kind);
    struct h2_fake *f = h2_fake_new();
    struct client *c = client_new(w);

    (void)route_to_h2(w, f);
    h2_ask(w, f, c, GET, OK);
    cr_expect(strncmp(f->head, "GET /p?q=1 \n", 12) == 0, "%s", f->head);
    cr_expect(strstr(f->head, "user-agent: u\n") != NULL, "%s", f->head);
    cr_expect(strstr(f->head, "via: 1.1 anygate\n") != NULL, "%s", f->head);
    cr_expect(client_has(c, "HTTP/1.1 200 OK\r\n"));
    cr_expect(client_has(c, "Via: 2 anygate\r\n"));
    cr_expect(client_has(c, "content-length: 2\r\n") || client_has(c, "Content-Length: 2\r\n"));
    h2_ask(w, f, c, GET, OK);
    cr_expect_eq(f->accepted, 1);
    cr_expect_eq(upstreams_of(w)->conns.used, 1);
    h2_world_free(w, f);
}

BOTH(proxy_h2, many_share_the_connection_that_is_being_made)
{
    struct world *w = world_new(kind);
    struct h2_fake *f = h2_fake_new();
    struct client *c[CLIENTS_MAX];

    (void)route_to_h2(w, f);
    for (unsigned i = 0; i < CLIENTS_MAX; i++) {
        c[i] = client_new(w);
        client_send(c[i], GET);
    }
    for (unsigned i = 0; i < CLIENTS_MAX; i++) {
        h2_until(w, f, client_has(c[i], OK));
    }
    cr_expect_eq(f->accepted, 1);
    cr_expect_eq(f->conns[0].requests, CLIENTS_MAX);
    h2_world_free(w, f);
}

BOTH(proxy_h2, no_more_at_once_than_the_upstream_allows)
{
    struct world *w = world_new(kind);
    struct h2_fake *f = h2_fake_new();
    struct client *c[8];
    struct ag_proxy_settings *s = route_to_h2(w, f);

    f->settings[f->setting_count++] = (struct ag_h2_pair){AG_H2_MAX_CONCURRENT_STREAMS, 2};
    f->script = keep_silent;
    options_of(s)->max_connections = 1;
    for (unsigned i = 0; i < AG_COUNT(c); i++) {
        c[i] = client_new(w);
        client_send(c[i], GET);
    }
    h2_until(w, f, f->requests == 2);
    h2_settle(w, f);
    cr_expect_eq(f->requests, 2);
    for (uint32_t id = 1; id < 2 * AG_COUNT(c); id += 2) { /* each answer lets another one in */
        h2_until(w, f, f->conns[0].last_id >= id);
        h2_answer(&f->conns[0], id);
    }
    for (unsigned i = 0; i < AG_COUNT(c); i++) {
        h2_until(w, f, client_has(c[i], OK));
    }
    cr_expect_eq(f->accepted, 1);
    cr_expect_eq(f->conns[0].most_open, 2);
    h2_world_free(w, f);
}

BOTH(proxy_h2, a_full_connection_is_followed_by_another)
{
    struct world *w = world_new(kind);
    struct h2_fake *f = h2_fake_new();
    struct client *c[8];

    (void)route_to_h2(w, f);
    f->settings[f->setting_count++] = (struct ag_h2_pair){AG_H2_MAX_CONCURRENT_STREAMS, 3};
    f->script = keep_silent;
    for (unsigned i = 0; i < AG_COUNT(c); i++) {
        c[i] = client_new(w);
        client_send(c[i], GET);
    }
    h2_until(w, f, f->requests == AG_COUNT(c));
    cr_expect_eq(f->accepted, 3);
    for (unsigned i = 0; i < 3; i++) {
        cr_expect_leq(f->conns[i].most_open, 3);
        for (uint32_t id = 1; id <= f->conns[i].last_id; id += 2) {
            h2_answer(&f->conns[i], id);
        }
    }
    for (unsigned i = 0; i < AG_COUNT(c); i++) {
        h2_until(w, f, client_has(c[i], OK));
    }
    h2_world_free(w, f);
}

BOTH(proxy_h2, one_that_is_full_of_requests_takes_no_more)
{
    struct world *w = world_new(kind);
    struct h2_fake *f = h2_fake_new();
    struct client *c = client_new(w);
    struct ag_proxy_settings *s = route_to_h2(w, f);

    options_of(s)->max_requests = 2;
    for (unsigned i = 0; i < 5; i++) {
        h2_ask(w, f, c, GET, OK);
    }
    cr_expect_eq(f->accepted, 3);
    h2_until(w, f, h2_fake_open(f) == 1);
    h2_world_free(w, f);
}

BOTH(proxy_h2, an_idle_connection_ends_in_order)
{
    struct world *w = world_new(kind);
    struct h2_fake *f = h2_fake_new();
    struct client *c = client_new(w);
    struct ag_proxy_settings *s = route_to_h2(w, f);

    options_of(s)->idle_timeout_ms = 50;
    h2_ask(w, f, c, GET, OK);
    h2_until(w, f, f->conns[0].eof);
    cr_expect_eq(f->conns[0].goaways, 1);
    h2_fake_hang_up(&f->conns[0]);
    h2_until(w, f, upstreams_of(w)->conns.used == 0 && upstreams_of(w)->h2s.used == 0);
    h2_world_free(w, f);
}

/* ---- failures ---- */

BOTH(proxy_h2, a_client_that_goes_away_cancels_its_stream_alone)
{
    struct world *w = world_new(kind);
    struct h2_fake *f = h2_fake_new();
    struct client *gone = client_new(w), *stays = client_new(w);

    (void)route_to_h2(w, f);
    f->script = keep_silent;
    client_send(gone, GET);
    h2_until(w, f, f->requests == 1);
    client_send(stays, GET);
    h2_until(w, f, f->requests == 2);
    client_reset(gone);
    h2_until(w, f, f->conns[0].resets == 1);
    cr_expect_eq(f->conns[0].reset_code, AG_H2_CANCEL);
    cr_expect_eq(f->conns[0].reset_id, 1);
    h2_answer(&f->conns[0], 3);
    h2_until(w, f, client_has(stays, OK));
    cr_expect_eq(f->accepted, 1);
    h2_world_free(w, f);
}

BOTH(proxy_h2, a_late_call_fails_alone)
{
    struct world *w = world_new(kind);
    struct h2_fake *f = h2_fake_new();
    struct client *late = client_new(w), *next = client_new(w);
    struct ag_proxy_settings *s = route_to_h2(w, f);

    s->timeouts.first_byte_ms = 100;
    f->script = keep_silent;
    client_send(late, GET);
    h2_until(w, f, client_has(late, "504 Gateway Timeout"));
    h2_until(w, f, f->conns[0].resets == 1);
    f->script = NULL;
    h2_ask(w, f, next, GET, OK);
    cr_expect_eq(f->accepted, 1);
    h2_world_free(w, f);
}

static unsigned to_refuse;

static void refuse_some(struct h2_fake_conn *c, uint32_t id, const struct ag_request *req)
{
    (void)req;
    if (to_refuse > 0) {
        to_refuse--;
        h2_refuse(c, id, AG_H2_REFUSED_STREAM);
    } else {
        h2_answer(c, id);
    }
}

BOTH(proxy_h2, what_was_refused_is_made_again)
{
    struct world *w = world_new(kind);
    struct h2_fake *f = h2_fake_new();
    struct client *c = client_new(w);

    (void)route_to_h2(w, f);
    f->script = refuse_some;
    to_refuse = 2;
    h2_ask(w, f, c, "POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", OK);
    cr_expect_eq(f->requests, 3);
    to_refuse = 100; /* but not for ever */
    h2_ask(w, f, c, GET, "502 Bad Gateway");
    cr_expect_eq(f->requests, 3 + 4);
    h2_world_free(w, f);
}

static void refuse_late(struct h2_fake_conn *c, uint32_t id, struct ag_span data, bool end)
{
    (void)data;
    (void)end;
    h2_refuse(c, id, AG_H2_REFUSED_STREAM);
}

BOTH(proxy_h2, a_request_that_is_not_whole_any_more_is_not_made_again)
{
    struct world *w = world_new(kind);
    struct h2_fake *f = h2_fake_new();
    struct client *c = client_new(w);
    struct ag_proxy_settings *s = route_to_h2(w, f);

    s->retry.elsewhere = false; /* `retry: {buffer: 0}` */
    f->script = keep_silent;
    f->on_data = refuse_late;
    h2_ask(w, f, c, POST, "502 Bad Gateway");
    cr_expect_eq(f->requests, 1);
    h2_world_free(w, f);
}

static void go_away(struct h2_fake_conn *c, uint32_t id, const struct ag_request *req)
{
    (void)req;
    if (c->fake->accepted == 1) {
        h2_send_goaway(c, 0);
    } else {
        h2_answer(c, id);
    }
}

BOTH(proxy_h2, what_a_goaway_leaves_out_is_made_again_elsewhere)
{
    struct world *w = world_new(kind);
    struct h2_fake *f = h2_fake_new();
    struct client *c = client_new(w);

    (void)route_to_h2(w, f);
    f->script = go_away;
    h2_ask(w, f, c, "POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", OK);
    cr_expect_eq(f->requests, 2);
    cr_expect_eq(f->accepted, 2);
    h2_until(w, f, f->conns[0].eof);
    h2_world_free(w, f);
}

BOTH(proxy_h2, a_drained_connection_ends_with_its_last_call)
{
    struct world *w = world_new(kind);
    struct h2_fake *f = h2_fake_new();
    struct client *a = client_new(w), *b = client_new(w);

    (void)route_to_h2(w, f);
    f->script = keep_silent;
    client_send(a, GET);
    h2_until(w, f, f->requests == 1);
    h2_send_goaway(&f->conns[0], 1);
    h2_settle(w, f);
    f->script = NULL;
    h2_ask(w, f, b, GET, OK);
    cr_expect_eq(f->accepted, 2);
    cr_expect_not(f->conns[0].eof);
    h2_answer(&f->conns[0], 1);
    h2_until(w, f, client_has(a, OK));
    h2_until(w, f, f->conns[0].eof);
    cr_expect_eq(h2_fake_open(f), 1);
    h2_world_free(w, f);
}

BOTH(proxy_h2, a_dead_connection_is_made_up_for_once)
{
    struct world *w = world_new(kind);
    struct h2_fake *f = h2_fake_new();
    struct client *c = client_new(w);

    (void)route_to_h2(w, f);
    h2_ask(w, f, c, GET, OK);
    f->script = keep_silent;
    c->len = 0;
    client_send(c, GET);
    h2_until(w, f, f->requests == 2);
    h2_fake_hang_up(&f->conns[0]);
    f->script = NULL;
    h2_until(w, f, client_has(c, OK));
    cr_expect_eq(f->accepted, 2);
    /* Nothing that may have happened happens twice. */
    f->script = keep_silent;
    c->len = 0;
    client_send(c, POST);
    h2_until(w, f, f->requests == 4);
    for (unsigned i = 0; i < H2_FAKE_CONNS; i++) {
        h2_fake_hang_up(&f->conns[i]);
    }
    h2_until(w, f, client_has(c, "502 Bad Gateway"));
    cr_expect_eq(f->requests, 4);
    h2_world_free(w, f);
}

static void cut_answer(struct h2_fake_conn *c, uint32_t id, const struct ag_request *req)
{
    (void)req;
    h2_send_fields(c, id, ":status: 200\n", false);
    h2_send_data(c, id, "part", false);
    h2_refuse(c, id, AG_H2_INTERNAL_ERROR);
}

BOTH(proxy_h2, a_cut_answer_is_seen_to_be_cut)
{
    struct world *w = world_new(kind);
    struct h2_fake *f = h2_fake_new();
    struct client *c = client_new(w);

    (void)route_to_h2(w, f);
    f->script = cut_answer;
    client_send(c, GET);
    h2_until(w, f, client_over(c));
    cr_expect_not(client_has(c, "\r\n0\r\n"));
    h2_world_free(w, f);
}

BOTH(proxy_h2, an_upstream_of_http1_is_502)
{
    struct world *w = world_new(kind);
    struct h2_fake none = {0};
    struct fake *f = fake_new(w, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    struct client *c = client_new(w);

    none.port = f->port;
    (void)route_to_h2(w, &none);
    ask(w, c, GET, "it speaks no HTTP/2");
    cr_expect(client_has(c, "HTTP/1.1 502 Bad Gateway\r\n"));
    world_until(w, upstreams_of(w)->conns.used == 0);
    world_free(w);
}

BOTH(proxy_h2, an_upstream_that_never_settles_is_504)
{
    struct world *w = world_new(kind);
    struct h2_fake *f = h2_fake_new();
    struct client *c = client_new(w), *gone = client_new(w);
    struct ag_proxy_settings *s = route_to_h2(w, f);

    f->mute = true;
    s->timeouts.connect_ms = 100;
    client_send(c, GET);
    client_send(gone, GET);
    h2_settle(w, f);
    client_close(gone);
    h2_until(w, f, client_has(c, "504 Gateway Timeout"));
    cr_expect_eq(f->accepted, 1);
    h2_world_free(w, f);
}

BOTH(proxy_h2, claimers_that_go_away_leave_no_connection)
{
    struct world *w = world_new(kind);
    struct h2_fake *f = h2_fake_new();
    struct client *a = client_new(w), *b = client_new(w);

    (void)route_to_h2(w, f);
    f->mute = true;
    client_send(a, GET);
    client_send(b, GET);
    h2_settle(w, f);
    client_close(a);
    client_close(b);
    h2_until(w, f, upstreams_of(w)->conns.used == 0);
    cr_expect_eq(upstreams_of(w)->h2s.used, 0);
    h2_world_free(w, f);
}

/* ---- content ---- */

static void answer_at_end(struct h2_fake_conn *c, uint32_t id, struct ag_span data, bool end)
{
    (void)data;
    if (end) {
        h2_answer(c, id);
    }
}

BOTH(proxy_h2, an_upload_larger_than_any_window)
{
    struct world *w = world_new(kind);
    struct h2_fake *f = h2_fake_new();
    struct client *c = client_new(w);
    static char piece[8192];
    char head[128];
    size_t left = 1000000;

    (void)route_to_h2(w, f);
    f->script = keep_silent;
    f->on_data = answer_at_end;
    memset(piece, 'x', sizeof(piece));
    (void)snprintf(head, sizeof(head),
                   "POST /up HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n", left);
    client_send(c, head);
    while (left > 0) {
        ssize_t n = write(c->fd, piece, ag_min_size(left, sizeof(piece)));

        left -= n > 0 ? (size_t)n : 0;
        world_turn(w);
        h2_fake_pump(f);
    }
    h2_until(w, f, client_has(c, OK));
    cr_expect_eq(f->conns[0].content, 1000000);
    h2_world_free(w, f);
}

static void answer_with_trailers(struct h2_fake_conn *c, uint32_t id, const struct ag_request *req)
{
    (void)req;
    h2_send_fields(c, id, ":status: 103\nlink: </a>\n", false);
    h2_send_fields(c, id, ":status: 200\n", false);
    h2_send_data(c, id, "grpc", false);
    h2_send_fields(c, id, "grpc-status: 0\n", true);
}

BOTH(proxy_h2, trailers_and_interim_answers)
{
    struct world *w = world_new(kind);
    struct h2_fake *f = h2_fake_new();
    struct client *c = client_new(w);

    (void)route_to_h2(w, f);
    f->script = answer_with_trailers;
    h2_ask(w, f, c, "GET / HTTP/1.1\r\nHost: x\r\nTE: trailers\r\n\r\n", "grpc-status: 0\r\n\r\n");
    cr_expect(client_has(c, "HTTP/1.1 103 "));
    cr_expect(client_has(c, "\r\n4\r\ngrpc\r\n0\r\n"));
    cr_expect(strstr(f->head, "te: trailers\n") != NULL, "%s", f->head);
    h2_world_free(w, f);
}

static void answer_by_head_alone(struct h2_fake_conn *c, uint32_t id, const struct ag_request *req)
{
    (void)req;
    h2_send_fields(c, id, ":status: 200\ngrpc-status: 5\n", true);
}

BOTH(proxy_h2, a_head_that_is_all_has_a_length_in_http1)
{
    struct world *w = world_new(kind);
    struct h2_fake *f = h2_fake_new();
    struct client *c = client_new(w);

    (void)route_to_h2(w, f);
    f->script = answer_by_head_alone;
    h2_ask(w, f, c, GET, "\r\n\r\n");
    cr_expect(client_has(c, "\r\nContent-Length: 0\r\n"));
    cr_expect(client_has(c, "grpc-status: 5\r\n"));
    h2_ask(w, f, c, "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", "\r\n\r\n");
    cr_expect_not(client_has(c, "Content-Length"));
    h2_world_free(w, f);
}

static void answer_early(struct h2_fake_conn *c, uint32_t id, const struct ag_request *req)
{
    (void)req;
    h2_send_fields(c, id, ":status: 413\n", true);
    h2_send_u32(c, AG_H2_RST_STREAM, id, AG_H2_NO_ERROR);
}

BOTH(proxy_h2, an_early_answer_is_the_answer)
{
    struct world *w = world_new(kind);
    struct h2_fake *f = h2_fake_new();
    struct client *c = client_new(w), *d = client_new(w);

    (void)route_to_h2(w, f);
    f->script = answer_early;
    client_send(c, "POST /up HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\npart");
    h2_until(w, f, client_has(c, "413 "));
    f->script = NULL;
    h2_ask(w, f, d, GET, OK);
    cr_expect_eq(f->accepted, 1);
    h2_world_free(w, f);
}

/* ---- tunnels ---- */

#define UPGRADE                                                                    \
    "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" \
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

static void accept_tunnel(struct h2_fake_conn *c, uint32_t id, const struct ag_request *req)
{
    (void)req;
    h2_send_fields(c, id, ":status: 200\nsec-websocket-protocol: chat\n", false);
}

static void echo_data(struct h2_fake_conn *c, uint32_t id, struct ag_span data, bool end)
{
    h2_send(c, AG_H2_DATA, end ? AG_H2_END_STREAM : 0, id, data);
}

BOTH(proxy_h2, a_websocket_of_http1_becomes_an_extended_connect)
{
    struct world *w = world_new(kind);
    struct h2_fake *f = h2_fake_new();
    struct client *c = client_new(w);

    (void)route_to_h2(w, f);
    f->settings[f->setting_count++] = (struct ag_h2_pair){AG_H2_ENABLE_CONNECT_PROTOCOL, 1};
    f->script = accept_tunnel;
    f->on_data = echo_data;
    h2_ask(w, f, c, UPGRADE, "\r\n\r\n");
    cr_expect(client_has(c, "HTTP/1.1 101 Switching Protocols\r\n"));
    cr_expect(client_has(c, "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
    cr_expect(client_has(c, "Upgrade: websocket\r\n"));
    cr_expect(client_has(c, "sec-websocket-protocol: chat\r\n"));
    cr_expect(strncmp(f->head, "CONNECT /ws websocket\n", 22) == 0, "%s", f->head);
    cr_expect(strstr(f->head, "sec-websocket-version: 13\n") != NULL, "%s", f->head);
    cr_expect(strstr(f->head, "sec-websocket-key") == NULL, "%s", f->head);
    client_send(c, "ping");
    h2_until(w, f, client_has(c, "ping"));
    (void)shutdown(c->fd, SHUT_WR);
    h2_until(w, f, client_over(c));
    cr_expect_eq(f->conns[0].ends, 1);
    h2_until(w, f, w->ctx.exchanges_live == 0);
    cr_expect_not(f->conns[0].eof); /* the connection is for others */
    h2_world_free(w, f);
}

BOTH(proxy_h2, where_it_is_not_announced_there_is_no_websocket)
{
    struct world *w = world_new(kind);
    struct h2_fake *f = h2_fake_new();
    struct client *c = client_new(w);

    (void)route_to_h2(w, f);
    h2_ask(w, f, c, UPGRADE, "can do without\n");
    cr_expect(client_has(c, "HTTP/1.1 502 Bad Gateway\r\n"));
    cr_expect_eq(f->requests, 0);
    h2_ask(w, f, c, GET, OK);
    cr_expect_eq(f->accepted, 1);
    h2_world_free(w, f);
}

/* A server may ignore it (RFC 9110 section 7.8), and whoever offers it must expect that. */
BOTH(proxy_h2, an_upgrade_to_something_else_is_an_ordinary_request)
{
    struct world *w = world_new(kind);
    struct h2_fake *f = h2_fake_new();
    struct client *c = client_new(w);

    (void)route_to_h2(w, f);
    f->settings[f->setting_count++] = (struct ag_h2_pair){AG_H2_ENABLE_CONNECT_PROTOCOL, 1};
    h2_ask(w, f, c, "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n",
           OK);
    cr_expect(strncmp(f->head, "GET /ws \n", 9) == 0, "%s", f->head);
    cr_expect(strstr(f->head, "upgrade") == NULL, "%s", f->head);
    cr_expect(client_has(c, "HTTP/1.1 200 OK\r\n"));
    h2_world_free(w, f);
}
