/* Windows both ways, who is served first, and the memory that content may hold (RFC 9113 section 5.2, 9218). */
#include "tests/unit/h2_rig.h"

static uint8_t plenty[1024 * 1024];

static struct ag_slice bytes(size_t n)
{
    return ag_slice_static(ag_span(plenty, n));
}

/* Content bytes of stream `id` among what was told. */
static size_t content_of(const char *text, uint32_t id)
{
    size_t total = 0;
    char start[32];

    (void)snprintf(start, sizeof(start), "DATA %u [", id);
    for (const char *at = text; (at = strstr(at, start)); at++) {
        total += strtoul(at + strlen(start), NULL, 10);
    }
    return total;
}

/* A long answer's begin; the test's action goes on writing by itself. */
static void answer_long(struct rig *r, unsigned index, size_t n)
{
    struct work *w = &r->works[index];

    if (begin_answer(w, 200, AG_FRAMING_LENGTH, n)) {
        write_answer(w, bytes(n));
        end_answer(w);
    }
}

/* ---- windows of what goes ---- */

H2_TEST(h2_send, no_more_than_the_streams_window)
{
    ask(r, 1, "/wait", END);
    answer_long(r, 0, 100000);
    tick(r, 0);
    cr_expect_eq(content_of(told(r), 1), 65535);
    say_u32(r, AG_H2_WINDOW_UPDATE, 0, 1000000);
    expect_told(r, "");
    say_u32(r, AG_H2_WINDOW_UPDATE, 1, 5000);
    expect_told(r, "DATA 1 [5000]\n");
    say_u32(r, AG_H2_WINDOW_UPDATE, 1, 1000000);
    cr_expect_eq(content_of(told(r), 1), 100000 - 70535);
    cr_expect(strstr(r->text, "END"));
}

H2_TEST(h2_send, no_more_than_the_connections_window)
{
    ask(r, 1, "/wait", END);
    ask(r, 3, "/wait", END);
    answer_long(r, 0, 50000);
    answer_long(r, 1, 50000);
    tick(r, 0);
    (void)told(r);
    cr_expect_eq(content_of(r->text, 1) + content_of(r->text, 3), 65535);
    say_u32(r, AG_H2_WINDOW_UPDATE, 0, 5000);
    cr_expect_eq(content_of(told(r), 1) + content_of(r->text, 3), 5000);
    say_u32(r, AG_H2_WINDOW_UPDATE, 0, 100000);
    cr_expect_eq(times(told(r), "END"), 2);
}

H2_TEST(h2_send, ends_and_resets_need_no_window)
{
    ask(r, 1, "/wait", END);
    answer_long(r, 0, 65535);
    ask(r, 3, "/open", END);
    ask(r, 5, "/open", END);
    (void)told(r);
    end_answer(&r->works[1]);
    tick(r, 0);
    expect_told(r, "DATA 3 \"\" END\n");
    ag_body_abort(&r->works[2].ex->res_body, AG_REASON_EOF);
    tick(r, 0);
    expect_told(r, "RST_STREAM 5 INTERNAL_ERROR\n");
}

H2_TEST(h2_send, settings_change_windows_of_live_streams)
{
    say_setting(r, AG_H2_INITIAL_WINDOW_SIZE, 10);
    (void)told(r);
    ask(r, 1, "/wait", END);
    answer(r, 0, AG_SPAN("0123456789abcdef"));
    tick(r, 0);
    expect_told(r, "HEADERS 1 :status=200,content-length=16\nDATA 1 \"0123456789\"\n");
    say_setting(r, AG_H2_INITIAL_WINDOW_SIZE, 5); /* now it is 5 below 0 */
    expect_told(r, "SETTINGS ACK\n");
    say_u32(r, AG_H2_WINDOW_UPDATE, 1, 5);
    expect_told(r, "");
    say_setting(r, AG_H2_INITIAL_WINDOW_SIZE, 7);
    expect_told(r, "SETTINGS ACK\nDATA 1 \"ab\"\n");
    say_u32(r, AG_H2_WINDOW_UPDATE, 1, 100);
    expect_told(r, "DATA 1 \"cdef\" END\n");
}

H2_TEST(h2_send, prepared_answers_keep_windows)
{
    say_setting(r, AG_H2_INITIAL_WINDOW_SIZE, 1);
    (void)told(r);
    ask(r, 1, "/fixed", END);
    expect_told(r, "HEADERS 1 :status=200,content-length=2\nDATA 1 \"o\"\n");
    say_u32(r, AG_H2_WINDOW_UPDATE, 1, 1);
    expect_told(r, "DATA 1 \"k\" END\n");
}

H2_TEST(h2_send, frames_as_large_as_the_peer_takes)
{
    say_setting(r, AG_H2_MAX_FRAME_SIZE, 30000);
    say_setting(r, AG_H2_INITIAL_WINDOW_SIZE, 1000000);
    say_u32(r, AG_H2_WINDOW_UPDATE, 0, 1000000);
    (void)told(r);
    request(r, 1, "GET", "/wait", "priority: u=3\n", END);
    answer_long(r, 0, 60000);
    tick(r, 0);
    expect_told(r,
                "HEADERS 1 :status=200,content-length=60000\nDATA 1 [30000]\nDATA 1 [30000] END\n");
}

/* What is queued for a peer that takes nothing is bounded, and goes on when it takes again. */
H2_TEST(h2_send, a_full_queue_holds_content_back)
{
    say_setting(r, AG_H2_INITIAL_WINDOW_SIZE, 1 << 24);
    say_u32(r, AG_H2_WINDOW_UPDATE, 0, 1 << 24);
    (void)told(r);
    r->w.window = 0;
    ask(r, 1, "/open", END);
    for (int i = 0; i < 20; i++) {
        write_answer(&r->works[0], bytes(50000));
        tick(r, 0);
    }
    cr_expect_leq(ag_stream_queued(&r->w.stream), AG_STREAM_HIGH + 20000);
    end_answer(&r->works[0]);
    memwire_open_window(&r->w, SIZE_MAX);
    for (int i = 0; i < 20; i++) {
        tick(r, 0);
    }
    cr_expect_eq(content_of(told(r), 1), 1000000);
    cr_expect(strstr(r->text, "END"));
}

/* Requests wait, too, when answers pile up. */
H2_TEST(h2_send, a_full_queue_holds_requests_back)
{
    unsigned asked = 0;

    if (r->bytewise) {
        return; /* the same, and it takes long */
    }
    r->w.window = 0;
    for (uint32_t id = 1; asked < 8000 && !r->w.paused; id += 2, asked++) {
        say_part(r, AG_H2_HEADERS, END | WHOLE, id,
                 AG_SPAN("\x82\x86\x04\x06/fixed\x01\x01"
                         "a"));
        r->starts = 0; /* its room for works */
        if (asked % 64 == 0) {
            tick(r, 0);
        }
    }
    cr_expect(r->w.paused);
    cr_expect_leq(ag_stream_queued(&r->w.stream), AG_STREAM_HIGH + 1000);
    memwire_open_window(&r->w, SIZE_MAX);
    tick(r, 0);
    tick(r, 0);
    cr_expect(!r->w.paused);
    cr_expect_eq(times(told(r), "\"ok\" END"), asked);
}

/* ---- peers that keep windows shut ---- */

H2_TEST(h2_stall, a_streams_window_that_stays_shut)
{
    say_setting(r, AG_H2_INITIAL_WINDOW_SIZE, 0);
    (void)told(r);
    ask(r, 1, "/wait", END);
    answer(r, 0, AG_SPAN("never"));
    ask(r, 3, "/wait", END);
    tick(r, 0);
    (void)told(r);
    for (int i = 0; i < 29; i++) {
        tick(r, 1000);
    }
    expect_told(r, "");
    for (int i = 0; i < 11; i++) {
        tick(r, 1000);
    }
    expect_told(r, "RST_STREAM 1 CANCEL\n");
    cr_expect(!r->works[1].aborted);
}

H2_TEST(h2_stall, window_updates_of_a_byte)
{
    say_setting(r, AG_H2_INITIAL_WINDOW_SIZE, 0);
    (void)told(r);
    ask(r, 1, "/wait", END);
    answer_long(r, 0, 10000);
    for (int i = 0; i < 45; i++) {
        tick(r, 1000);
        say_u32(r, AG_H2_WINDOW_UPDATE, 1, 1);
    }
    cr_expect(strstr(told(r), "RST_STREAM 1 CANCEL\n"));
}

H2_TEST(h2_stall, a_slow_but_honest_peer)
{
    say_setting(r, AG_H2_INITIAL_WINDOW_SIZE, 0);
    (void)told(r);
    ask(r, 1, "/wait", END);
    answer_long(r, 0, 20000);
    for (int i = 0; i < 60; i++) {
        tick(r, 1000);
        say_u32(r, AG_H2_WINDOW_UPDATE, 1, 300);
    }
    cr_expect(!strstr(told(r), "RST_STREAM"));
}

H2_TEST(h2_stall, the_connections_window_that_stays_shut)
{
    ask(r, 1, "/wait", END);
    answer_long(r, 0, 65535);
    ask(r, 3, "/wait", END);
    answer(r, 1, AG_SPAN("never"));
    tick(r, 0);
    (void)told(r);
    for (int i = 0; i < 45 && !r->w.closed; i++) {
        tick(r, 1000);
    }
    tick(r, 0);
    expect_begins(r, "GOAWAY 3 NO_ERROR");
    cr_expect(ended(r));
    cr_expect_eq(r->h.conn.reason, AG_REASON_TIMEOUT);
}

/* Who waited for it is gone: the client has no reason to open it for the others. */
H2_TEST(h2_stall, the_connections_window_that_nobody_waits_for)
{
    ask(r, 1, "/wait", END);
    answer_long(r, 0, 65536);
    ask(r, 3, "/wait", END);
    tick(r, 0);
    say_u32(r, AG_H2_WINDOW_UPDATE, 1, 1);
    tick(r, 1000);
    say_u32(r, AG_H2_RST_STREAM, 1, AG_H2_CANCEL);
    (void)told(r);
    for (int i = 0; i < 60; i++) {
        tick(r, 1000);
    }
    expect_told(r, "");
    cr_expect(!r->w.closed);
    cr_expect(!r->works[1].aborted);
}

H2_TEST(h2_stall, a_peer_that_takes_nothing)
{
    say_setting(r, AG_H2_INITIAL_WINDOW_SIZE, 1 << 20);
    say_u32(r, AG_H2_WINDOW_UPDATE, 0, 1 << 20);
    r->w.window = 0;
    ask(r, 1, "/wait", END);
    answer_long(r, 0, 500000);
    for (int i = 0; i < 45 && !r->w.closed; i++) {
        tick(r, 1000);
    }
    cr_expect(r->w.closed);
    cr_expect_eq(r->close_why, AG_REASON_TIMEOUT);
}

/* ---- who is served first (RFC 9218) ---- */

/* Two long answers that wait for one window; then it opens by as much as each has. */
static void contend(struct rig *r, const char *first, const char *second)
{
    say_u32(r, AG_H2_WINDOW_UPDATE, 0, 1);
    ask(r, 1, "/wait", END); /* uses up the window */
    answer_long(r, 0, 65535);
    ask(r, 3, "/wait", END);
    answer(r, 1, AG_SPAN("x"));
    request(r, 5, "GET", "/wait", first, END);
    request(r, 7, "GET", "/wait", second, END);
    answer_long(r, 2, 60000);
    answer_long(r, 3, 60000);
    tick(r, 0);
    (void)told(r);
    say_u32(r, AG_H2_WINDOW_UPDATE, 0, 60000);
    (void)told(r);
}

H2_TEST(h2_order, the_urgent_first)
{
    contend(r, "priority: u=5\n", "priority: u=1\n");
    cr_expect_eq(content_of(r->text, 7), 60000);
    cr_expect_eq(content_of(r->text, 5), 0);
}

H2_TEST(h2_order, in_order_where_they_do_not_share)
{
    contend(r, "priority: u=3\n", "priority: u=3\n");
    cr_expect_eq(content_of(r->text, 5), 60000);
    cr_expect_eq(content_of(r->text, 7), 0);
}

H2_TEST(h2_order, in_turns_where_they_share)
{
    contend(r, "priority: u=3, i\n", "priority: u=3, i\n");
    cr_expect_gt(content_of(r->text, 5), 20000);
    cr_expect_gt(content_of(r->text, 7), 20000);
}

H2_TEST(h2_order, fair_without_a_word)
{
    contend(r, "", "");
    cr_expect_gt(content_of(r->text, 5), 20000);
    cr_expect_gt(content_of(r->text, 7), 20000);
}

H2_TEST(h2_order, a_malformed_priority_is_none)
{
    contend(r, "priority: u=9\n", "priority: ,,\n");
    cr_expect_gt(content_of(r->text, 5) + content_of(r->text, 7), 59999);
}

H2_TEST(h2_order, updates_of_live_streams)
{
    contend(r, "priority: u=1\n", "priority: u=5\n");
    say_u32(r, AG_H2_WINDOW_UPDATE, 0, 1);
    cr_expect_eq(content_of(r->text, 5), 60000);
    request(r, 9, "GET", "/wait", "priority: u=1\n", END);
    answer_long(r, 4, 50000);
    say(r, AG_H2_PRIORITY_UPDATE, 0, 0, AG_SPAN("\0\0\0\x07u=0"));
    tick(r, 0);
    (void)told(r);
    say_u32(r, AG_H2_WINDOW_UPDATE, 0, 29999); /* and the 1 of before */
    (void)told(r);
    cr_expect_eq(content_of(r->text, 7), 30000);
    cr_expect_eq(content_of(r->text, 9), 0);
}

H2_TEST(h2_order, updates_before_their_stream)
{
    say(r, AG_H2_PRIORITY_UPDATE, 0, 0, AG_SPAN("\0\0\0\x07u=0"));
    contend(r, "priority: u=2\n", "priority: u=6\n");
    cr_expect_eq(content_of(r->text, 7), 60000);
    cr_expect_eq(content_of(r->text, 5), 0);
}

/* ---- windows of what comes ---- */

H2_TEST(h2_receive, more_than_the_streams_window)
{
    r->hold = true;
    ask(r, 1, "/echo", OPEN);
    for (int i = 0; i < 3; i++) {
        data_bytes(r, 1, 16384, 0);
    }
    data_bytes(r, 1, 16383, 0);
    expect_told(r, "");
    data_bytes(r, 1, 1, 0);
    expect_told(r, "RST_STREAM 1 FLOW_CONTROL_ERROR\n");
    ask(r, 3, "/fixed", END);
    cr_expect(strstr(told(r), "\"ok\" END"));
}

H2_TEST(h2_receive, more_than_the_connections_window)
{
    if (r->bytewise) {
        return;
    }
    r->hold = true;
    for (uint32_t id = 1; !ended(r) && id < 200; id += 2) {
        ask(r, id, "/echo", OPEN);
        for (int i = 0; i < 3 && !ended(r); i++) {
            data_bytes(r, id, 16384, 0);
        }
    }
    cr_expect(strstr(told(r), "FLOW_CONTROL_ERROR"));
    cr_expect_leq(r->starts, 24); /* a window of 1m, and those of 48k */
}

H2_TEST(h2_receive, windows_open_as_content_is_taken)
{
    if (r->bytewise) {
        return;
    }
    ask(r, 1, "/echo", OPEN);
    for (int i = 0; i < 400; i++) {
        data_bytes(r, 1, 16384, 0);
        cr_assert(!ended(r), "%d", i);
    }
    data_bytes(r, 1, 1, END);
    cr_expect(strstr(told(r), "HEADERS 1 :status=200"));
    cr_expect_eq(r->works[0].total, 400 * 16384 + 1);
    cr_expect(strstr(r->text, "WINDOW_UPDATE 0 "));
    cr_expect(strstr(r->text, "WINDOW_UPDATE 1 "));
}

H2_TEST(h2_receive, windows_stay_shut_while_nothing_is_taken)
{
    r->hold = true;
    ask(r, 1, "/echo", OPEN);
    for (int i = 0; i < 3; i++) {
        data_bytes(r, 1, 16384, 0);
    }
    expect_told(r, "");
    r->works[0].hold = false;
    on_content(&r->works[0].ex->req_body, &r->works[0]);
    tick(r, 0);
    cr_expect(strstr(told(r), "WINDOW_UPDATE 1 49152"));
}

/* What nobody takes is given back to the connection. */
H2_TEST(h2_receive, content_for_nobody)
{
    if (r->bytewise) {
        return;
    }
    for (uint32_t id = 1; id < 130; id += 2) {
        ask(r, id, "/wait", OPEN);
        answer(r, (id - 1) / 2, AG_SPAN("no"));
        tick(r, 0);
        for (int i = 0; i < 3; i++) {
            data_bytes(r, id, 16384, 0);
        }
    }
    cr_expect(!ended(r));
    cr_expect_eq(r->h.conn.held, 0);
    cr_expect_geq(times(told(r), "WINDOW_UPDATE 0 "), 3);
}

/* Streams that hold most of the connection's window, and the first id behind them. */
static uint32_t fill_window(struct rig *r)
{
    uint32_t id = 1;

    r->hold = true;
    for (; id < 25; id += 2) {
        ask(r, id, "/echo", OPEN);
        for (int i = 0; i < 3; i++) {
            data_bytes(r, id, 16384, 0);
        }
    }
    cr_expect_eq(times(told(r), "WINDOW_UPDATE"), 0);
    cr_expect_eq(r->h.conn.held, 12 * 49152);
    return id;
}

/* Nobody has to send anything for that: with a window of nothing nobody could. */
H2_TEST(h2_receive, what_streams_held_that_the_client_resets)
{
    uint32_t end;

    if (r->bytewise) {
        return;
    }
    end = fill_window(r);
    for (uint32_t id = 1; id < end; id += 2) {
        say_u32(r, AG_H2_RST_STREAM, id, AG_H2_CANCEL);
    }
    cr_expect_eq(r->h.conn.held, 0);
    expect_begins(r, "WINDOW_UPDATE 0 ");
    cr_expect_geq(r->h.conn.recv_window, r->h.conn.recv_target / 2);
}

H2_TEST(h2_receive, what_streams_held_that_break_a_rule)
{
    uint32_t end;

    if (r->bytewise) {
        return;
    }
    end = fill_window(r);
    for (uint32_t id = 1; id < end; id += 2) { /* trailers that do not end */
        say(r, AG_H2_HEADERS, WHOLE, id, section("x: y\n"));
    }
    cr_expect_eq(r->h.conn.held, 0);
    cr_expect(strstr(told(r), "WINDOW_UPDATE 0 "), "%s", r->text);
}

/* The window grows while it is what keeps the client back. */
H2_TEST(h2_receive, windows_grow_with_the_path)
{
    const struct ag_h2_stream *s;
    int32_t most = 0;
    bool pinged = false;

    if (r->bytewise) {
        return;
    }
    ask(r, 1, "/echo", OPEN);
    s = r->works[0].ex->server_stream;
    for (int trip = 0; trip < 12; trip++) {
        most = s->recv_window > most ? s->recv_window : most;
        for (int32_t left = s->recv_window; left > 0;) {
            size_t n = ag_min_size((size_t)left, AG_H2_FRAME_DEFAULT);

            data_bytes(r, 1, n, 0);
            left -= (int32_t)n;
        }
        tick(r, 50);
        if (pinged) { /* what was allowed by then has come within this trip */
            say(r, AG_H2_PING, AG_H2_ACK, 0, AG_SPAN("anygate\0"));
            pinged = false;
        }
        pinged = strstr(told(r), "PING anygate0\n") || pinged;
    }
    cr_expect_geq(most, 500000);
    cr_expect_leq(most, AG_H2_STREAM_WINDOW_MAX);
}

/* One-byte frames behind each other share buffers. */
H2_TEST(h2_receive, small_frames_do_not_pin_buffers)
{
    r->hold = true;
    ask(r, 1, "/echo", OPEN);
    for (int i = 0; i < 600; i++) {
        data(r, 1, "x", 0);
        say(r, AG_H2_PING, 0, 0, AG_SPAN("12345678"));
    }
    cr_expect_leq(ag_loop_bufs_used(&r->m.loop, AG_BUF_SMALL), 4);
    cr_expect_leq(ag_loop_bufs_used(&r->m.loop, AG_BUF_LARGE), 1);
    cr_expect_leq(r->works[0].ex->req_body.q.count, 3);
    r->works[0].hold = false;
    on_content(&r->works[0].ex->req_body, &r->works[0]);
    data(r, 1, "", END);
    cr_expect_eq(r->works[0].total, 600);
}

/* Streams that stall hold what their windows let through, and no buffers beside. */
H2_TEST(h2_receive, many_stalled_streams)
{
    if (r->bytewise) {
        return;
    }
    r->hold = true;
    for (uint32_t id = 1; id < 201; id += 2) {
        ask(r, id, "/echo", OPEN);
        data_bytes(r, id, 10, 0);
    }
    cr_expect_eq(r->h.conn.held, 1000);
    cr_expect_leq(ag_loop_bufs_used(&r->m.loop, AG_BUF_SMALL), 101);
}
