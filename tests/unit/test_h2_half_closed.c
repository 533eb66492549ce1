/*
 * Streams of the server that one side has ended before the other: requests that are answered before they end,
 * and tunnels (RFC 9113 section 8.1, RFC 8441).
 */
#include "tests/unit/h2_rig.h"

/* ---- requests that are answered before they end ---- */

static void answer_early(struct rig *r)
{
    ask(r, 1, "/wait", OPEN);
    data(r, 1, "some", 0);
    answer(r, 0, AG_SPAN("early"));
    tick(r, 0);
    expect_told(r, "HEADERS 1 :status=200,content-length=5\nDATA 1 \"early\" END\n");
}

H2_TEST(h2_early, the_rest_is_dropped)
{
    answer_early(r);
    data(r, 1, "more", 0);
    expect_told(r, "");
    data(r, 1, "", END);
    expect_told(r, "");
    cr_expect_eq(r->ctx.exchanges_live, 0);
    cr_expect_eq(r->works[0].why, AG_REASON_NONE);
    expect_alive(r);
}

H2_TEST(h2_early, a_long_rest_is_not_waited_for)
{
    answer_early(r);
    data_bytes(r, 1, 1000, 0);
    expect_told(r, "");
    data_bytes(r, 1, 1, 0);
    expect_told(r, "RST_STREAM 1 NO_ERROR\n");
    cr_expect_eq(r->ctx.exchanges_live, 0);
    expect_alive(r);
}

/* More than the window has room for, and no more than is read to be dropped. */
H2_TEST(h2_early, a_rest_beyond_the_window)
{
    if (r->bytewise) {
        return;
    }
    r->limits.discard_max_bytes = 200000;
    request(r, 1, "POST", "/fixed", "content-length: 200000\n", OPEN);
    expect_told(r, "HEADERS 1 :status=200,content-length=2\nDATA 1 \"ok\" END\n"
                   "WINDOW_UPDATE 1 200000\n");
    for (int i = 0; i < 20; i++) {
        data_bytes(r, 1, 10000, i < 19 ? OPEN : END);
    }
    cr_expect(!strstr(told(r), "RST_STREAM"), "%s", r->text);
    cr_expect_eq(r->ctx.exchanges_live, 0);
    expect_alive(r);
}

/* One whose length is not known is read as far. */
H2_TEST(h2_early, a_rest_beyond_the_window_without_a_length)
{
    if (r->bytewise) {
        return;
    }
    r->limits.discard_max_bytes = 200000;
    ask(r, 1, "/fixed", OPEN);
    cr_expect(strstr(told(r), "WINDOW_UPDATE 1 200000\n"));
    for (int i = 0; i < 20; i++) {
        data_bytes(r, 1, 10000, OPEN);
    }
    cr_expect(!strstr(told(r), "RST_STREAM"), "%s", r->text);
    data_bytes(r, 1, 1, OPEN);
    expect_told(r, "RST_STREAM 1 NO_ERROR\n");
    cr_expect_eq(r->ctx.exchanges_live, 0);
    expect_alive(r);
}

H2_TEST(h2_early, a_rest_that_takes_its_time)
{
    answer_early(r);
    tick(r, 4900);
    expect_told(r, "");
    tick(r, 200);
    expect_told(r, "RST_STREAM 1 NO_ERROR\n");
    cr_expect_eq(r->ctx.exchanges_live, 0);
}

H2_TEST(h2_early, a_rest_that_is_malformed)
{
    answer_early(r);
    say(r, AG_H2_HEADERS, WHOLE, 1, section("x: y\n"));
    expect_told(r, "RST_STREAM 1 PROTOCOL_ERROR\n");
    cr_expect_eq(r->dones, 1);
    expect_alive(r);
}

/* A client that stops sending by itself has done nothing wrong. */
H2_TEST(h2_early, a_client_that_resets_then)
{
    for (uint32_t id = 1; id < 801; id += 2) {
        ask(r, id, "/fixed", OPEN);
        say_u32(r, AG_H2_RST_STREAM, id, AG_H2_NO_ERROR);
    }
    cr_expect(!ended(r));
    cr_expect_eq(r->starts, 400);
    cr_expect_eq(r->ctx.exchanges_live, 0);
}

/* Content that was under way when we reset its stream, however many the client has reset since. */
H2_TEST(h2_early, resets_of_others_make_no_mistake_of_the_rest)
{
    answer_early(r);
    tick(r, 5100);
    expect_told(r, "RST_STREAM 1 NO_ERROR\n");
    for (uint32_t id = 3; id < 803; id += 2) {
        ask(r, id, "/fixed", OPEN);
        say_u32(r, AG_H2_RST_STREAM, id, AG_H2_NO_ERROR);
    }
    (void)told(r);
    data(r, 1, "more", 0);
    data(r, 1, "", END);
    expect_told(r, "");
    cr_expect(!ended(r));
}

/* ---- extended CONNECT (RFC 8441) ---- */

static void open_tunnel(struct rig *r)
{
    say(r, AG_H2_HEADERS, WHOLE, 1,
        section(":method: CONNECT\n:protocol: websocket\n:scheme: http\n:path: /tunnel\n"
                ":authority: example.com\nsec-websocket-version: 13\n"));
    expect_told(r, "HEADERS 1 :status=200\n");
}

H2_TEST(h2_tunnel, bytes_both_ways)
{
    open_tunnel(r);
    data(r, 1, "a", 0);
    expect_told(r, "DATA 1 \"a\"\n");
    tick(r, 200000); /* the upstream's to watch */
    data(r, 1, "b", 0);
    expect_told(r, "DATA 1 \"b\"\n");
    data(r, 1, "", END);
    expect_told(r, "DATA 1 \"\" END\n");
    cr_expect_eq(r->ctx.exchanges_live, 0);
    cr_expect(!r->works[0].aborted);
}

/* What the client sent is its to the last byte, though nothing more is to be said to it. */
H2_TEST(h2_tunnel, the_server_ends_first)
{
    struct ag_body *content;
    struct ag_slice s;

    open_tunnel(r);
    content = &r->works[0].ex->req_body;
    ag_body_set_consumer(content, NULL, NULL);
    ag_body_end(&r->works[0].ex->res_body, NULL);
    tick(r, 0);
    expect_told(r, "DATA 1 \"\" END\n");
    data(r, 1, "still", END);
    tick(r, 0);
    cr_assert(!r->works[0].aborted, "who passes it on goes on");
    cr_expect_eq(r->h.conn.streams, 0);
    cr_expect_eq(r->ctx.exchanges_live, 1);
    for (size_t taken = 0; taken < 5;) { /* it may have come byte by byte */
        s = ag_body_take(content);
        cr_assert_gt(s.len, 0);
        cr_expect(ag_span_starts(ag_span_sub(AG_SPAN("still"), taken, 5), ag_slice_span(&s)));
        taken += s.len;
        ag_slice_release(&s);
    }
    end_answer(&r->works[0]);
    tick(r, 0);
    expect_told(r, "");
    cr_expect_eq(r->ctx.exchanges_live, 0);
}

/* Unless nobody is there any more who would take them. */
H2_TEST(h2_tunnel, what_nobody_takes_keeps_no_stream)
{
    open_tunnel(r);
    ag_body_set_consumer(&r->works[0].ex->req_body, NULL, NULL);
    data(r, 1, "late", END);
    end_answer(&r->works[0]);
    tick(r, 0);
    expect_told(r, "DATA 1 \"\" END\n");
    cr_expect_eq(r->h.conn.streams, 0);
    cr_expect_eq(r->ctx.exchanges_live, 0);
}

H2_TEST(h2_tunnel, nobody_waits_for_ever)
{
    open_tunnel(r);
    ag_body_set_consumer(&r->works[0].ex->req_body, NULL, NULL);
    end_answer(&r->works[0]);
    tick(r, 0);
    expect_told(r, "DATA 1 \"\" END\n");
    tick(r, 75000 + LATE_MS);
    expect_told(r, "RST_STREAM 1 CANCEL\n");
    cr_expect_eq(r->ctx.exchanges_live, 0);
}

H2_TEST(h2_tunnel, the_client_resets)
{
    open_tunnel(r);
    say_u32(r, AG_H2_RST_STREAM, 1, AG_H2_CANCEL);
    cr_expect_eq(r->works[0].why, AG_REASON_RESET);
    expect_alive(r);
}

H2_TEST(h2_tunnel, upgrades_of_others_are_errors)
{
    ask(r, 1, "/tunnel", END); /* 101 to a GET */
    expect_told(r, "RST_STREAM 1 INTERNAL_ERROR\n");
    expect_alive(r);
}

/* ---- both ends in one round ---- */

/* The answer's end waits to be looked at when the request's end comes: the exchange is over by then, and nothing may
 * lead to it any more. */
static void expect_over(struct rig *r)
{
    tick(r, 0);
    cr_expect_eq(r->h.conn.streams, 0);
    cr_expect_eq(r->h.slots, 0);
    cr_expect_eq(r->ctx.exchanges_live, 0);
    cr_expect_eq(r->dones, 1);
    (void)told(r);
    expect_alive(r);
}

H2_TEST(h2_both_ends, an_answer_without_content)
{
    ask(r, 1, "/wait", OPEN);
    (void)begin_answer(&r->works[0], 204, AG_FRAMING_NONE, 0);
    let_go(&r->works[0]);
    say_part(r, AG_H2_DATA, END, 1, AG_SPAN(""));
    expect_over(r);
}

H2_TEST(h2_both_ends, content_too_large)
{
    uint8_t room[64], *at = room;

    r->limits.route.max_body_bytes = 10;
    ask(r, 1, "/echo", OPEN);
    at = ag_h2_put_header(at, 11, AG_H2_DATA, 0, 1);
    memset(at, 'x', 11);
    at = ag_h2_put_header(at + 11, 0, AG_H2_DATA, END, 1);
    feed(r, ag_span(room, (size_t)(at - room)));
    expect_over(r);
}

H2_TEST(h2_both_ends, a_tunnel_that_is_refused)
{
    say(r, AG_H2_HEADERS, WHOLE, 1,
        section(":method: CONNECT\n:protocol: websocket\n:scheme: http\n:path: /wait\n"
                ":authority: example.com\nsec-websocket-version: 13\n"));
    (void)begin_answer(&r->works[0], 403, AG_FRAMING_NONE, 0);
    let_go(&r->works[0]);
    say_part(r, AG_H2_DATA, END, 1, AG_SPAN(""));
    expect_over(r);
}

/* The stream is gone when the client's last bytes are taken; a reset of it is late. */
H2_TEST(h2_both_ends, a_tunnel_that_is_reset_as_well)
{
    struct work *w = &r->works[0];

    open_tunnel(r);
    ag_body_set_consumer(&w->ex->req_body, NULL, NULL);
    ag_body_end(&w->ex->res_body, NULL);
    tick(r, 0);
    data(r, 1, "last", END);
    cr_expect_eq(r->h.conn.streams, 0);
    while (w->ex->req_body.q.bytes > 0) {
        struct ag_slice s = ag_body_take(&w->ex->req_body);

        ag_slice_release(&s);
    }
    let_go(w);
    say_part(r, AG_H2_RST_STREAM, 0, 1, AG_SPAN("\0\0\0\x8"));
    expect_over(r);
}

/* Both ways end before the connection has had its turn. */
H2_TEST(h2_both_ends, a_tunnel_in_one_turn)
{
    struct work *w = &r->works[0];

    open_tunnel(r);
    ag_body_set_consumer(&w->ex->req_body, NULL, NULL);
    end_answer(w);
    say_part(r, AG_H2_DATA, END, 1, AG_SPAN("last"));
    expect_over(r);
}
