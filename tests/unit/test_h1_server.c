/*
 * Goal: a client is waited for as long as it has time, and no longer; what it sends ahead waits within
 * bounds and is answered in order; what it leaves unfinished ends cleanly.
 * Method: the server's machine on a stream in memory; time passes as the test says.
 */
#include "tests/unit/h1_rig.h"

#define GET(path)  "GET " path " HTTP/1.1\r\nHost: a\r\n\r\n"
#define POST(path) "POST " path " HTTP/1.1\r\nHost: a\r\n"
#define UPGRADE    "GET /tunnel HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: test\r\n\r\n"

/* ---- deadlines ---- */

Test(h1_server_deadline, a_head_has_to_be_there_in_time_however_it_comes)
{
    struct rig *r = rig_new();

    for (const char *at = "GET /fixe"; *at; at++) {
        say_bytes(r, ag_span(at, 1));
        tick(r, 1000);
    }
    tick(r, 900);
    cr_expect_eq(r->h.state, AG_H1_HEAD);
    tick(r, 100 + LATE_MS);
    cr_expect(strstr(got(r), "HTTP/1.1 408 ") == got(r), "%s", got(r));
    cr_expect_eq(got_times(r, "Connection: close\r\n"), 1);
    cr_expect(ended(r));
    cr_expect_eq(r->starts, 0);
    rig_free(r);
}

Test(h1_server_deadline, a_client_that_never_speaks_has_the_time_of_a_head)
{
    struct rig *r = rig_new();

    tick(r, 9900);
    cr_expect(memwire_open(&r->w));
    tick(r, 100 + LATE_MS);
    cr_expect(ended(r));
    cr_expect_eq(r->w.out.len, 0);
    rig_free(r);
}

Test(h1_server_deadline, an_idle_connection_ends_without_a_word)
{
    struct rig *r = rig_new();

    say(r, GET("/fixed"));
    tick(r, 74900);
    cr_expect(memwire_open(&r->w));
    tick(r, 100 + LATE_MS);
    cr_expect(ended(r));
    cr_expect_eq(got_times(r, "HTTP/1.1 "), 1);
    rig_free(r);
}

Test(h1_server_deadline, a_second_head_has_its_own_time_not_what_is_left_of_idling)
{
    struct rig *r = rig_new();

    say(r, GET("/fixed"));
    tick(r, 30000);
    say(r, "GET /f");
    tick(r, 9900);
    cr_expect(memwire_open(&r->w));
    tick(r, 100 + LATE_MS);
    cr_expect_eq(got_times(r, "HTTP/1.1 408 "), 1);
    cr_expect(ended(r));
    rig_free(r);
}

Test(h1_server_deadline, content_that_does_not_come_is_given_up)
{
    struct rig *r = rig_new();

    say(r, POST("/echo") "Content-Length: 10\r\n\r\n12345");
    tick(r, 4900);
    cr_expect_eq(r->aborts, 0);
    tick(r, 200 + LATE_MS);
    cr_expect_eq(r->aborts, 1);
    cr_expect_eq(r->abort_why, AG_REASON_TIMEOUT);
    cr_expect_eq(got_times(r, "HTTP/1.1 408 "), 1);
    cr_expect(ended(r));
    rig_free(r);
}

Test(h1_server_deadline, who_waits_for_100_waits_for_its_answer)
{
    struct rig *r = rig_new();

    say(r, POST("/wait") "Expect: 100-continue\r\nContent-Length: 10\r\n\r\n");
    tick(r, 3600000);
    cr_expect(memwire_open(&r->w) && r->w.out.len == 0);
    say(r, "1"); /* it waits no longer: a grace begins */
    tick(r, 4900);
    cr_expect_eq(r->w.out.len, 0);
    tick(r, 100 + LATE_MS);
    cr_expect_eq(got_times(r, "HTTP/1.1 408 "), 1);
    cr_expect(ended(r));
    rig_free(r);
}

Test(h1_server_deadline, who_was_told_to_go_on_has_to)
{
    struct rig *r = rig_new();

    say(r, POST("/echo") "Expect: 100-continue\r\nContent-Length: 10\r\n\r\n");
    cr_expect_eq(got_times(r, "HTTP/1.1 100 "), 1);
    tick(r, 4900);
    cr_expect_eq(got_times(r, "HTTP/1.1 "), 1);
    tick(r, 100 + LATE_MS);
    cr_expect_eq(got_times(r, "HTTP/1.1 408 "), 1);
    cr_expect(ended(r));
    rig_free(r);
}

Test(h1_server_deadline, content_at_the_least_rate_may_take_its_time)
{
    static const uint8_t second[240] = "at the least rate";
    struct rig *r = rig_new();

    say(r, POST("/echo") "Content-Length: 4080\r\n\r\n");
    for (unsigned i = 0; i < 17; i++) {
        tick(r, 1000);
        say_bytes(r, ag_span(second, sizeof(second)));
    }
    tick(r, 0);
    cr_expect_eq(got_times(r, "HTTP/1.1 200 "), 1);
    cr_expect(memwire_open(&r->w));
    rig_free(r);
}

Test(h1_server_deadline, content_that_trickles_is_given_up)
{
    struct rig *r = rig_new();
    unsigned seconds = 0;

    say(r, POST("/echo") "Content-Length: 1000\r\n\r\n");
    while (memwire_open(&r->w) && seconds++ < 100) {
        tick(r, 1000);
        if (memwire_open(&r->w)) {
            say_bytes(r, AG_SPAN("x"));
        }
    }
    cr_expect(seconds >= 5 && seconds < 8, "%u s", seconds);
    cr_expect_eq(got_times(r, "HTTP/1.1 408 "), 1);
    rig_free(r);
}

/* Who is not read is not waited for; who is read again is, from then on. */
Test(h1_server_deadline, a_filter_s_time_is_not_the_client_s)
{
    struct rig *r = rig_new();

    say(r, POST("/filter") "Content-Length: 10\r\n\r\n12345");
    cr_expect(r->w.paused);
    tick(r, 3600000);
    cr_assert(memwire_open(&r->w));
    resume(r);
    tick(r, 0);
    cr_expect(!r->w.paused);
    tick(r, 4900);
    cr_expect(memwire_open(&r->w));
    tick(r, 200 + LATE_MS);
    cr_expect_eq(got_times(r, "HTTP/1.1 408 "), 1);
    rig_free(r);
}

Test(h1_server_deadline, nor_is_it_where_there_is_no_grace)
{
    struct rig *r = rig_new();

    r->limits.route.body_grace_ms = 0;
    say(r, POST("/filter") "Content-Length: 10\r\n\r\n12345");
    cr_expect(r->w.paused);
    tick(r, 3600000);
    resume(r);
    tick(r, 0);
    tick(r, 1000);
    say(r, "67890");
    cr_expect(strstr(got(r), "\r\n\r\n1234567890"), "%s", got(r));
    rig_free(r);
}

/* Its time begins when it is told to go on, however late that is. */
Test(h1_server_deadline, who_waits_for_100_has_its_time_from_then_on)
{
    struct rig *r = rig_new();

    say(r, POST("/filter") "Expect: 100-continue\r\nContent-Length: 10\r\n\r\n");
    tick(r, 3600000);
    cr_assert(memwire_open(&r->w));
    resume(r);
    tick(r, 0);
    cr_expect_eq(got_times(r, "HTTP/1.1 100 "), 1);
    tick(r, 4900);
    cr_expect_eq(got_times(r, "HTTP/1.1 408 "), 0);
    tick(r, 200 + LATE_MS);
    cr_expect_eq(got_times(r, "HTTP/1.1 408 "), 1);
    rig_free(r);
}

/* Without one the rate counts from the first byte on, and who is silent has stalled. */
Test(h1_server_deadline, no_grace_is_not_no_time)
{
    struct rig *r = rig_new();

    r->limits.route.body_grace_ms = 0;
    say(r, POST("/echo") "Content-Length: 10\r\n\r\n");
    tick(r, 1000);
    say(r, "1234567890");
    cr_expect(strstr(got(r), "\r\n\r\n1234567890"), "%s", got(r));
    say(r, POST("/echo") "Content-Length: 10\r\n\r\n");
    tick(r, r->limits.route.body_timeout_ms + LATE_MS);
    cr_expect_eq(got_times(r, "HTTP/1.1 408 "), 1);
    rig_free(r);
}

Test(h1_server_deadline, a_client_that_waits_for_its_answer_may_wait)
{
    struct rig *r = rig_new();

    say(r, GET("/wait"));
    tick(r, 3600000);
    cr_assert(memwire_open(&r->w));
    answer(r, AG_SPAN("at last"));
    tick(r, 0);
    cr_expect(strstr(got(r), "\r\n\r\nat last"));
    cr_expect_eq(r->h.state, AG_H1_IDLE);
    rig_free(r);
}

Test(h1_server_deadline, content_that_is_owed_behind_its_answer_ends_the_connection_in_order)
{
    struct rig *r = rig_new();

    say(r, POST("/fixed") "Content-Length: 10\r\n\r\n12345");
    cr_expect_eq(got_times(r, "HTTP/1.1 200 "), 1);
    tick(r, 5000 + LATE_MS);
    cr_expect(ended(r));
    cr_expect_eq(got_times(r, "HTTP/1.1 "), 1);
    rig_free(r);
}

Test(h1_server_deadline, a_client_that_takes_nothing_is_reset)
{
    struct rig *r = rig_new();

    r->w.window = 10;
    say(r, GET("/wait"));
    answer(r, AG_SPAN("nobody takes it"));
    tick(r, 0);
    cr_expect_eq(r->h.state, AG_H1_IDLE);
    for (unsigned s = 0; s < 115 && !r->w.closed; s++) {
        tick(r, 1000);
    }
    cr_expect(r->w.closed && r->w.aborted && r->w.why == AG_REASON_TIMEOUT);
    cr_expect_eq(r->w.out.len, 10);
    rig_free(r);
}

Test(h1_server_deadline, a_client_that_takes_enough_is_not)
{
    static uint8_t content[24000];
    struct rig *r = rig_new();

    r->w.window = 10;
    say(r, GET("/open"));
    write_answer(r, ag_slice_static(ag_span(content, sizeof(content))));
    for (unsigned s = 0; s < 90; s++) {
        memwire_open_window(&r->w, 250);
        tick(r, 1000);
        cr_assert(memwire_open(&r->w), "after %u s", s);
    }
    cr_expect_eq(r->w.out.len, 10 + 90 * 250);
    rig_free(r);
}

Test(h1_server_deadline, a_stream_that_falls_silent_ends)
{
    struct rig *r = rig_new();

    say(r, POST("/open") "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n");
    tick(r, 74900);
    cr_expect(memwire_open(&r->w));
    tick(r, 100 + LATE_MS);
    cr_expect(r->w.aborted && r->w.why == AG_REASON_TIMEOUT);
    cr_expect_eq(r->aborts, 1);
    rig_free(r);
}

Test(h1_server_deadline, a_tunnel_has_none)
{
    struct rig *r = rig_new();

    say(r, UPGRADE);
    cr_expect_eq(r->h.state, AG_H1_TUNNEL);
    tick(r, 3600000);
    cr_expect(memwire_open(&r->w));
    rig_free(r);
}

/* The empty line that old clients send behind content is no head, and no request. */
Test(h1_server_blank, it_is_as_idle_as_nothing)
{
    struct rig *r = rig_new();

    say(r, GET("/fixed") "\r\n");
    tick(r, 74000);
    cr_expect(memwire_open(&r->w));
    tick(r, 1000 + LATE_MS);
    cr_expect(ended(r));
    cr_expect_eq(got_times(r, "HTTP/1.1 "), 1);
    cr_expect_eq(r->dones, 1);
    rig_free(r);
}

Test(h1_server_blank, it_is_no_time_for_a_head)
{
    struct rig *r = rig_new();

    say(r, GET("/fixed"));
    say(r, "\r");
    tick(r, 30000);
    say(r, "\nGET /fixed");
    tick(r, 9000);
    cr_expect(memwire_open(&r->w));
    tick(r, 1000 + LATE_MS);
    cr_expect_eq(got_times(r, "HTTP/1.1 408 "), 1);
    cr_expect(ended(r));
    cr_expect_eq(r->dones, 2);
    rig_free(r);
}

Test(h1_server_blank, of_it_nobody_is_told)
{
    struct rig *r = rig_new();

    say(r, GET("/fixed") "\r\n");
    memwire_abort(&r->w.stream, AG_REASON_RESET);
    tick(r, 0);
    cr_expect_eq(r->dones, 1);
    rig_free(r);
    r = rig_new();
    say(r, "\r");
    memwire_eof(&r->w);
    tick(r, 0);
    cr_expect(ended(r) && r->dones == 0 && r->w.out.len == 0);
    rig_free(r);
}

Test(h1_server_blank, what_follows_it_is_a_head)
{
    struct rig *r = rig_new();

    say(r, GET("/fixed") "\r");
    say(r, "GET /fixed"); /* no line */
    cr_expect_eq(got_times(r, "HTTP/1.1 400 "), 1);
    cr_expect_eq(r->dones, 2);
    rig_free(r);
    r = rig_new();
    say(r, GET("/fixed") "\r\n" GET("/fixed") "\r\n");
    say(r, GET("/fixed"));
    cr_expect_eq(got_times(r, "HTTP/1.1 200 "), 3);
    cr_expect_eq(r->dones, 3);
    rig_free(r);
}

Test(h1_server_blank, shorter_limits_hold_for_it_as_for_who_is_idle)
{
    struct rig *r = rig_new();

    say(r, GET("/fixed") "\r\n");
    r->limits.idle_timeout_ms = 20000;
    r->limits.header_timeout_ms = 1000;
    ag_h1_server_hasten(&r->h);
    tick(r, 19000);
    cr_expect(memwire_open(&r->w));
    tick(r, 1000 + LATE_MS);
    cr_expect(ended(r));
    rig_free(r);
}

/* ---- what is sent ahead ---- */

Test(h1_server_ahead, sixteen_requests_in_one_piece_are_answered_in_one)
{
    static uint8_t requests[16 * sizeof(GET("/fixed"))];
    struct ag_buf b = ag_buf(requests, sizeof(requests));
    struct rig *r = rig_new();

    for (unsigned i = 0; i < 16; i++) {
        ag_buf_put(&b, AG_SPAN(GET("/fixed")));
    }
    say_bytes(r, ag_buf_span(&b));
    tick(r, 0);
    cr_expect_eq(got_times(r, "HTTP/1.1 200 "), 16);
    cr_expect_eq(r->w.flushes, 1);
    cr_expect_eq(r->dones, 16);
    rig_free(r);
}

/* Feeds `text` again and again, a slice each, until the server reads no more; how often it did. */
static unsigned say_until_paused(struct rig *r, struct ag_span text)
{
    unsigned n = 0;

    while (!r->w.paused && n < 5000) {
        cr_assert_eq(memwire_feed(&r->w, text), text.len);
        tick(r, 0);
        n++;
    }
    return n;
}

Test(h1_server_ahead, requests_behind_one_that_waits_are_bounded_in_slices)
{
    struct rig *r = rig_new();
    unsigned n;

    say(r, GET("/wait"));
    n = say_until_paused(r, AG_SPAN(GET("/fixed")));
    cr_expect_eq(n, 17);
    cr_expect_eq(r->starts, 1);
    answer(r, AG_SPAN("first"));
    tick(r, 0);
    cr_expect(!r->w.paused);
    cr_expect_eq(got_times(r, "HTTP/1.1 200 "), 1 + n);
    cr_expect_lt((uintptr_t)strstr(got(r), "first"), (uintptr_t)strstr(got(r), "\r\nok"));
    rig_free(r);
}

Test(h1_server_ahead, requests_behind_one_that_waits_are_bounded_in_bytes)
{
    static uint8_t large[AG_BUF_LARGE_BYTES];
    struct rig *r = rig_new();

    say(r, GET("/wait"));
    r->w.group = AG_BUF_LARGE;
    cr_expect_eq(say_until_paused(r, ag_span(large, sizeof(large))), 1);
    rig_free(r);
}

/* A client that has uploaded is received in large buffers, for it may do so again; but only content lies in them,
 * and after some requests without any it is like all others. */
Test(h1_server_ahead, after_an_upload_heads_hold_no_large_buffer)
{
    static uint8_t content[20000];
    struct rig *r = rig_new();

    say(r, POST("/wait") "Content-Length: 20000\r\n\r\n");
    cr_expect_eq(r->w.group, AG_BUF_LARGE);
    say_bytes(r, ag_span(content, sizeof(content)));
    answer(r, AG_SPAN("taken"));
    tick(r, 0);
    cr_assert_eq(r->h.state, AG_H1_IDLE);
    cr_expect_eq(r->w.group, AG_BUF_LARGE);
    say(r, "GET /wait HTTP");
    cr_expect_eq(ag_loop_bufs_used(&r->m.loop, AG_BUF_LARGE), 0, "part of a head");
    say(r, "/1.1\r\nHost: a\r\n\r\n");
    say(r, GET("/fixed"));
    cr_expect_eq(ag_loop_bufs_used(&r->m.loop, AG_BUF_LARGE), 0, "a head behind another request");
    answer(r, AG_SPAN("late"));
    tick(r, 0);
    for (unsigned i = 0; i < 6; i++) {
        cr_expect_eq(r->w.group, AG_BUF_LARGE, "%u", i);
        say(r, GET("/fixed"));
    }
    cr_expect_eq(r->w.group, AG_BUF_SMALL);
    cr_expect_eq(got_times(r, "HTTP/1.1 200 "), 9);
    rig_free(r);
}

Test(h1_server_ahead, after_an_upload_what_waits_in_large_buffers_is_bounded_in_slices)
{
    static uint8_t content[20000], large[AG_BUF_SMALL_BYTES + 1];
    struct rig *r = rig_new();

    memset(large, 'a', sizeof(large));
    say(r, POST("/wait") "Content-Length: 20000\r\n\r\n");
    say_bytes(r, ag_span(content, sizeof(content)));
    cr_expect_eq(say_until_paused(r, ag_span(large, sizeof(large))), 4);
    rig_free(r);
}

/* `start`, and behind it a large buffer full: `rest`, and requests. All are answered. */
static void expect_all_answered(const char *start, const char *rest)
{
    static char full[AG_BUF_LARGE_BYTES];
    static const char next[] = GET("/fixed");
    struct rig *r = rig_new();
    size_t at = strlen(rest);
    unsigned n = 1;

    memcpy(full, rest, at);
    for (; sizeof(full) - at >= sizeof(next) - 1; at += sizeof(next) - 1, n++) {
        memcpy(full + at, next, sizeof(next) - 1);
    }
    memcpy(full + at, next, sizeof(full) - at);
    say(r, start);
    r->w.group = AG_BUF_LARGE;
    say_bytes(r, ag_span(full, sizeof(full)));
    for (unsigned i = 0; i < n; i++) {
        tick(r, 0);
    }
    cr_expect_eq(got_times(r, "HTTP/1.1 200 "), n, "%s", got(r));
    rig_free(r);
}

Test(h1_server_ahead, a_head_that_goes_on_in_a_full_buffer)
{
    expect_all_answered("GET /fixed HTTP/1.1\r\nHost", ": a\r\n\r\n");
}

Test(h1_server_ahead, a_trailer_section_that_goes_on_in_a_full_buffer)
{
    expect_all_answered(POST("/echo") "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-A",
                        ": a\r\n\r\n");
}

Test(h1_server_ahead, answers_that_pile_up_hold_back_what_follows)
{
    static uint8_t content[AG_STREAM_HIGH + 1000];
    struct rig *r = rig_new();
    unsigned n;

    r->w.window = 0;
    say(r, GET("/wait"));
    answer(r, ag_span(content, sizeof(content)));
    tick(r, 0);
    cr_expect_eq(r->h.state, AG_H1_IDLE);
    n = say_until_paused(r, AG_SPAN(GET("/fixed")));
    cr_expect_eq(n, 17);
    cr_expect_eq(r->starts, 1);
    memwire_open_window(&r->w, SIZE_MAX);
    tick(r, 0);
    cr_expect_eq(r->starts, 1 + n);
    cr_expect(!r->w.paused);
    rig_free(r);
}

Test(h1_server_ahead, content_that_nobody_takes_is_bounded)
{
    static uint8_t piece[1000];
    struct rig *r = rig_new();

    r->hold = true;
    say(r, POST("/echo") "Content-Length: 1000000\r\n\r\n");
    cr_expect_leq(say_until_paused(r, ag_span(piece, sizeof(piece))), AG_BODY_SLICES_MAX + 1);
    cr_expect_leq(r->h.in.count, 1);
    rig_free(r);
}

Test(h1_server_ahead, a_tunnel_s_bytes_that_nobody_takes_are_bounded)
{
    struct rig *r = rig_new();
    unsigned n;

    say(r, UPGRADE);
    n = say_until_paused(r, AG_SPAN("frame"));
    cr_expect_leq(n, AG_BODY_SLICES_MAX + 1);
    cr_expect_leq(r->h.in.count, 1);
    while (r->ex->req_body.q.count > 0) {
        struct ag_slice s = ag_body_take(&r->ex->req_body);

        ag_slice_release(&s);
    }
    tick(r, 0);
    cr_expect(!r->w.paused);
    cr_expect_eq(r->ex->req_body.total_bytes, n * 5);
    rig_free(r);
}

Test(h1_server_ahead, part_of_a_trailer_section_does_not_stop_reading)
{
    struct rig *r = rig_new();

    say(r, POST("/filter") "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-A: ");
    cr_expect(r->w.paused);
    resume(r);
    tick(r, 0);
    cr_assert(!r->w.paused);
    say(r, "b\r\n\r\n");
    cr_expect(strstr(got(r), "\r\n\r\nhi"), "%s", got(r));
    rig_free(r);
}

/* ---- the client shuts its side ---- */

static void shut(struct rig *r)
{
    memwire_eof(&r->w);
    tick(r, 0);
}

Test(h1_server_eof, half_a_head_is_refused_at_once)
{
    struct rig *r = rig_new();

    say(r, "GET /fixed HTTP/1.1\r\nHo");
    shut(r);
    cr_expect_eq(got_times(r, "HTTP/1.1 400 "), 1);
    cr_expect(ended(r));
    rig_free(r);
}

Test(h1_server_eof, an_empty_line_is_not_half_a_head)
{
    struct rig *r = rig_new();

    say(r, GET("/fixed") "\r");
    shut(r);
    cr_expect_eq(got_times(r, "HTTP/1.1 "), 1);
    cr_expect(ended(r));
    rig_free(r);
}

Test(h1_server_eof, half_the_content_aborts_the_exchange)
{
    struct rig *r = rig_new();

    say(r, POST("/echo") "Content-Length: 10\r\n\r\n12345");
    shut(r);
    cr_expect_eq(r->aborts, 1);
    cr_expect_eq(r->abort_why, AG_REASON_EOF);
    cr_expect(r->w.aborted);
    rig_free(r);
}

Test(h1_server_eof, half_a_trailer_section_aborts_the_exchange)
{
    struct rig *r = rig_new();

    say(r, POST("/echo") "Transfer-Encoding: chunked\r\n\r\n0\r\nX-A");
    shut(r);
    cr_expect_eq(r->aborts, 1);
    cr_expect(r->w.aborted);
    rig_free(r);
}

Test(h1_server_eof, an_answer_that_was_there_before_is_sent)
{
    struct rig *r = rig_new();

    r->w.window = 0;
    say(r, POST("/fixed") "Content-Length: 10\r\n\r\n12345");
    shut(r);
    cr_expect(!r->w.aborted);
    memwire_open_window(&r->w, SIZE_MAX);
    tick(r, 0);
    cr_expect_eq(got_times(r, "HTTP/1.1 200 "), 1);
    cr_expect(ended(r));
    rig_free(r);
}

/* Though its content was not read when its client shut: once it has been, nothing is left that could come. */
Test(h1_server_eof, an_early_answer_that_does_not_go_on_ends)
{
    static uint8_t content[65536];
    struct rig *r = rig_new();
    struct ag_body *b;

    say(r, POST("/open") "Content-Length: 1000000\r\n\r\n");
    (void)say_until_paused(r, ag_span(content, sizeof(content)));
    shut(r);
    for (b = &r->h.ex->req_body; b->q.bytes > 0; tick(r, 0)) {
        struct ag_slice s = ag_body_take(b);

        ag_slice_release(&s);
    }
    cr_assert(memwire_open(&r->w) && r->h.in.bytes == 0 && r->h.paused);
    tick(r, 75000 + LATE_MS);
    cr_expect(!memwire_open(&r->w));
    rig_free(r);
}

Test(h1_server_eof, an_early_answer_that_is_being_sent_goes_to_its_end)
{
    struct rig *r = rig_new();

    say(r, POST("/open") "Content-Length: 1000000\r\n\r\n12345");
    write_answer(r, ag_slice_static(AG_SPAN("no, ")));
    shut(r);
    cr_assert(memwire_open(&r->w) && r->aborts == 0);
    write_answer(r, ag_slice_static(AG_SPAN("thanks")));
    end_answer(r);
    tick(r, 0);
    cr_expect(strstr(got(r), "\r\n\r\n4\r\nno, \r\n6\r\nthanks\r\n0\r\n\r\n"), "%s", got(r));
    cr_expect(ended(r));
    rig_free(r);
}

Test(h1_server_eof, an_early_answer_that_does_not_go_on_is_given_up)
{
    struct rig *r = rig_new();

    say(r, POST("/open") "Content-Length: 10\r\n\r\n12345");
    shut(r);
    tick(r, r->limits.idle_timeout_ms - 1000);
    cr_expect(memwire_open(&r->w));
    tick(r, 1000 + LATE_MS);
    cr_expect(r->w.aborted && r->w.why == AG_REASON_TIMEOUT);
    cr_expect_eq(r->aborts, 1);
    rig_free(r);
}

Test(h1_server_eof, an_early_answer_ends_where_the_connection_was_cut)
{
    struct rig *r = rig_new();

    say(r, POST("/open") "Content-Length: 10\r\n\r\n12345");
    ag_h1_server_cut(&r->h);
    cr_expect_eq(r->h.state, AG_H1_CLOSING);
    rig_free(r);
}

Test(h1_server_eof, who_waits_is_answered)
{
    struct rig *r = rig_new();

    say(r, GET("/wait") GET("/fixed"));
    shut(r);
    cr_expect(memwire_open(&r->w));
    answer(r, AG_SPAN("first"));
    tick(r, 0);
    cr_expect_eq(got_times(r, "HTTP/1.1 200 "), 2);
    cr_expect(ended(r));
    rig_free(r);
}

/* It has no end of its own: what was cut must not look whole. An ordinary request does. */
Test(h1_server_eof, a_tunnel_that_was_cut_ends_at_once)
{
    struct rig *r = rig_new();

    say(r, GET("/open"));
    ag_h1_server_cut(&r->h);
    cr_expect_eq(r->h.state, AG_H1_EXCHANGE);
    rig_free(r);
    r = rig_new();
    say(r, UPGRADE);
    cr_expect_eq(r->h.state, AG_H1_TUNNEL);
    ag_h1_server_cut(&r->h);
    cr_expect_eq(r->h.state, AG_H1_CLOSING);
    rig_free(r);
}

Test(h1_server_eof, a_tunnel_goes_on_the_other_way)
{
    struct rig *r = rig_new();

    say(r, UPGRADE);
    shut(r);
    cr_assert(r->ex);
    cr_expect(ag_body_at_end(&r->ex->req_body));
    write_answer(r, ag_slice_static(AG_SPAN("bye")));
    tick(r, 0);
    cr_expect(memwire_open(&r->w));
    end_answer(r);
    tick(r, 0);
    cr_expect(strstr(got(r), "\r\n\r\nbye"));
    cr_expect(ended(r));
    rig_free(r);
}

/* Content that lies here, and is not passed on yet, is none that may still come in a pipe. */
Test(h1_server, what_may_go_unseen_is_what_has_not_come)
{
    struct rig *r = rig_new();

    say(r, POST("/filter") "Content-Length: 200000\r\n\r\n12345");
    cr_assert(r->filter && r->w.paused);
    cr_assert_eq(memwire_feed(&r->w, ag_span_str("67890")), 5, "what was under way");
    r->hold = true;
    r->ex->req_body.limit_bytes = 1;
    r->ex->req_body.pipes = true;
    resume(r);
    tick(r, 0);
    cr_expect_eq(r->ex->req_body.q.bytes, 5, "no room for more");
    cr_expect_eq(r->w.unseen, 200000 - 10);
    rig_free(r);
}

Test(h1_server, none_goes_unseen_unless_its_consumer_takes_pipes)
{
    struct rig *r = rig_new();

    say(r, POST("/wait") "Content-Length: 200000\r\n\r\n12345");
    cr_expect_eq(r->w.unseen, 0);
    r->ex->req_body.pipes = true;
    say(r, "67890");
    cr_expect_eq(r->w.unseen, 200000 - 10);
    ag_body_discard(&r->ex->req_body);
    cr_expect_not(r->ex->req_body.pipes);
    rig_free(r);
}
