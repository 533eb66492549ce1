/*
 * Goal: whenever a connection ends (drain, reset, want of memory), in whatever state it is, the action
 * is told once, what was begun is not taken for whole, and nothing is left behind.
 * Method: the server's machine on a stream in memory, brought into each state; and one conversation run
 * with less and less memory.
 */
#include "tests/unit/h1_rig.h"

#define GET(path)  "GET " path " HTTP/1.1\r\nHost: a\r\n\r\n"
#define POST(path) "POST " path " HTTP/1.1\r\nHost: a\r\n"
#define UPGRADE    "GET /tunnel HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: test\r\n\r\n"

/* More than the time that idle connections are given when a drain begins. */
#define DRAIN_MS 200u

/* ---- drain ---- */

static void drain(struct rig *r)
{
    ag_h1_server_drain(&r->h);
    tick(r, 0);
}

/* It ends soon, with `answers` in all, of which the last one says so if `told`. */
static void expect_drained(struct rig *r, unsigned answers, bool told)
{
    tick(r, DRAIN_MS);
    cr_expect(ended(r));
    cr_expect_eq(got_times(r, "HTTP/1.1 "), answers, "%s", got(r));
    cr_expect_eq(got_times(r, "HTTP/1.1 200 "), answers, "%s", got(r));
    cr_expect_eq(got_times(r, "Connection: close\r\n"), told);
    rig_free(r);
}

Test(h1_server_drain, an_idle_connection_ends)
{
    struct rig *r = rig_new();

    say(r, GET("/fixed"));
    drain(r);
    expect_drained(r, 1, false);
}

Test(h1_server_drain, a_request_on_its_way_is_answered)
{
    struct rig *r = rig_new();

    drain(r);
    say(r, GET("/fixed"));
    expect_drained(r, 1, true);
}

Test(h1_server_drain, a_head_that_has_begun_is_answered)
{
    struct rig *r = rig_new();

    say(r, "GET /fixed HT");
    drain(r);
    tick(r, DRAIN_MS);
    say(r, "TP/1.1\r\nHost: a\r\n\r\n");
    expect_drained(r, 1, true);
}

Test(h1_server_drain, an_empty_line_is_no_head)
{
    struct rig *r = rig_new();

    say(r, GET("/fixed") "\r\n");
    drain(r);
    expect_drained(r, 1, false);
}

Test(h1_server_drain, a_head_behind_an_empty_line_has_its_time)
{
    struct rig *r = rig_new();

    say(r, GET("/fixed") "\r");
    drain(r);
    say(r, "\nGET /fixed HTTP/1.1\r\n");
    tick(r, DRAIN_MS);
    say(r, "Host: a\r\n\r\n");
    expect_drained(r, 2, true);
}

Test(h1_server_drain, content_that_comes_is_answered)
{
    struct rig *r = rig_new();

    say(r, POST("/echo") "Content-Length: 10\r\n\r\n12345");
    drain(r);
    say(r, "67890");
    expect_drained(r, 1, true);
}

Test(h1_server_drain, who_waits_is_answered_and_none_behind_it)
{
    struct rig *r = rig_new();

    say(r, GET("/wait") GET("/fixed"));
    drain(r);
    tick(r, 60000);
    answer(r, AG_SPAN("at last"));
    expect_drained(r, 1, true);
}

Test(h1_server_drain, an_answer_under_way_comes_to_its_end)
{
    struct rig *r = rig_new();

    say(r, GET("/open"));
    drain(r);
    tick(r, 60000);
    write_answer(r, ag_slice_static(AG_SPAN("all of it")));
    end_answer(r);
    tick(r, 0);
    cr_expect(strstr(got(r), "all of it\r\n0\r\n\r\n"));
    expect_drained(r, 1, false);
}

Test(h1_server_drain, an_answer_under_way_has_promised_another)
{
    struct rig *r = rig_new();

    say(r, GET("/open"));
    drain(r);
    end_answer(r);
    say(r, GET("/fixed"));
    expect_drained(r, 2, true);
}

Test(h1_server_drain, a_tunnel_is_not_cut)
{
    struct rig *r = rig_new();

    say(r, UPGRADE);
    drain(r);
    tick(r, 3600000);
    cr_expect(memwire_open(&r->w));
    end_answer(r);
    memwire_eof(&r->w);
    tick(r, 0);
    cr_expect(ended(r));
    rig_free(r);
}

Test(h1_server_drain, a_connection_that_ends_anyway_does)
{
    struct rig *r = rig_new();

    r->w.window = 0;
    say(r, "GET /fixed HTTP/1.0\r\n\r\n");
    cr_expect_eq(r->h.state, AG_H1_CLOSING);
    drain(r);
    memwire_open_window(&r->w, SIZE_MAX);
    expect_drained(r, 1, true);
}

/* ---- the client is gone ---- */

static void reach_new(struct rig *r)
{
    (void)r;
}

static void reach_idle(struct rig *r)
{
    say(r, GET("/fixed"));
}

static void reach_head(struct rig *r)
{
    say(r, GET("/fixed") "GET /wa");
}

static void reach_wait(struct rig *r)
{
    say(r, GET("/wait") GET("/fixed"));
}

static void reach_filter(struct rig *r)
{
    say(r, POST("/filter") "Content-Length: 10\r\n\r\n12345");
}

static void reach_content(struct rig *r)
{
    say(r, POST("/echo") "Content-Length: 10\r\n\r\n12345");
}

static void reach_trailers(struct rig *r)
{
    say(r, POST("/echo") "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-A: b\r\nX-");
}

static void reach_full_body(struct rig *r)
{
    r->hold = true;
    say(r, POST("/echo") "Content-Length: 1000\r\n\r\n");
    while (!r->w.paused) {
        (void)memwire_feed(&r->w, AG_SPAN("x"));
    }
}

static void reach_open(struct rig *r)
{
    r->w.window = 50;
    say(r, GET("/open"));
    write_answer(r, ag_slice_static(AG_SPAN("a part")));
    tick(r, 0);
}

static void reach_discard(struct rig *r)
{
    say(r, POST("/fixed") "Content-Length: 10\r\n\r\n12345");
}

static void reach_tunnel(struct rig *r)
{
    say(r, UPGRADE "frames");
}

static void reach_refused(struct rig *r)
{
    r->w.window = 0;
    say(r, "GARBAGE\r\n");
}

static void reach_timed_out(struct rig *r)
{
    r->w.window = 0;
    reach_content(r);
    tick(r, 6000);
}

/* Each state of the machine, and who has to be told when the connection ends in it. */
static const struct {
    const char *name;
    void (*reach)(struct rig *);
    enum ag_h1_state state;
    unsigned aborts, dones;
} states[] = {
    {"new", reach_new, AG_H1_IDLE, 0, 0},
    {"idle", reach_idle, AG_H1_IDLE, 0, 1},
    {"head", reach_head, AG_H1_HEAD, 0, 2},
    {"wait", reach_wait, AG_H1_EXCHANGE, 1, 1},
    {"filter", reach_filter, AG_H1_EXCHANGE, 1, 1},
    {"content", reach_content, AG_H1_EXCHANGE, 1, 1},
    {"trailers", reach_trailers, AG_H1_EXCHANGE, 1, 1},
    {"full body", reach_full_body, AG_H1_EXCHANGE, 1, 1},
    {"open", reach_open, AG_H1_EXCHANGE, 1, 1},
    {"discard", reach_discard, AG_H1_EXCHANGE, 0, 1},
    {"tunnel", reach_tunnel, AG_H1_TUNNEL, 1, 1},
    {"refused", reach_refused, AG_H1_CLOSING, 0, 1},
    {"timed out", reach_timed_out, AG_H1_CLOSING, 1, 1},
};

Test(h1_server_reset, in_any_state_the_action_is_told_once)
{
    for (size_t i = 0; i < AG_COUNT(states); i++) {
        struct rig *r = rig_new();

        states[i].reach(r);
        cr_assert_eq(r->h.state, states[i].state, "%s", states[i].name);
        memwire_abort(&r->w.stream, AG_REASON_RESET);
        tick(r, 0);
        cr_expect_eq(r->aborts, states[i].aborts, "%s", states[i].name);
        cr_expect_eq(r->dones, states[i].dones, "%s", states[i].name);
        cr_expect(r->aborts == 0 || r->abort_why != AG_REASON_NONE, "%s", states[i].name);
        rig_free(r);
    }
}

/* What was under way comes from the loop after the stream is gone; nobody is there for it. */
Test(h1_server_reset, in_any_state_what_still_comes_is_dropped)
{
    for (size_t i = 0; i < AG_COUNT(states); i++) {
        struct rig *r = rig_new();
        size_t out;

        states[i].reach(r);
        out = r->w.out.len;
        ag_stream_abort(&r->w.stream, AG_REASON_RESET);
        ag_h1_server_closed(&r->h, AG_REASON_RESET);
        ag_h1_server_drain(&r->h);
        ag_h1_server_deadline(&r->h);
        ag_h1_server_drained(&r->h);
        ag_h1_server_eof(&r->h);
        (void)memwire_feed(&r->w, AG_SPAN(GET("/fixed")));
        tick(r, 0);
        cr_expect_eq(r->w.out.len, out, "%s", states[i].name);
        rig_free(r);
    }
}

Test(h1_server_reset, an_action_that_fails_behind_its_head_resets)
{
    struct rig *r = rig_new();

    say(r, GET("/open"));
    write_answer(r, ag_slice_static(AG_SPAN("a part")));
    ag_exchange_fail(r->ex, 502, AG_REASON_RESET, "upstream is gone");
    tick(r, 0);
    cr_expect(r->w.aborted);
    cr_expect_eq(r->aborts, 1);
    cr_expect_eq(got_times(r, "0\r\n\r\n"), 0);
    rig_free(r);
}

Test(h1_server_reset, a_part_is_not_taken_for_the_whole)
{
    static const struct {
        enum ag_framing framing;
        size_t length;
        const char *content;
        bool reset; /* else its framing says that more was to come, and what did is not lost */
    } parts[] = {
        {AG_FRAMING_LENGTH, 10, "01234", false},
        {AG_FRAMING_LENGTH, 4, "01234", true},
        {AG_FRAMING_CHUNKED, 0, "01234", false},
        {AG_FRAMING_CLOSE, 0, "01234", true},
    };

    for (size_t i = 0; i < AG_COUNT(parts); i++) {
        struct rig *r = rig_new();

        say(r, GET("/wait"));
        cr_assert(begin_answer(r, 200, parts[i].framing, parts[i].length));
        write_answer(r, ag_slice_static(ag_span_str(parts[i].content)));
        tick(r, 0);
        /* Whoever else ends the connection now finds the same. */
        cr_expect_eq(r->w.stream.incomplete, parts[i].framing == AG_FRAMING_CLOSE, "%zu", i);
        if (r->ex && parts[i].framing == AG_FRAMING_LENGTH) {
            ag_body_end(&r->ex->res_body, NULL);
        } else if (r->ex) {
            ag_body_abort(&r->ex->res_body, AG_REASON_RESET);
        }
        tick(r, 0);
        cr_expect_eq(r->w.aborted, parts[i].reset, "%zu", i);
        cr_expect_eq(ended(r), !parts[i].reset, "%zu", i);
        cr_expect_eq(r->aborts, 1);
        cr_expect_eq(got_times(r, "0\r\n\r\n"), 0);
        cr_expect_eq(r->w.stream.incomplete, parts[i].framing == AG_FRAMING_CLOSE, "%zu", i);
        rig_free(r);
    }
}

/* ---- memory is out ---- */

enum scarce { NODES, PAGES, SMALL, LARGE, KINDS };

/* All of one kind, but for `left`. */
struct hoard {
    void *objects[1024];
    unsigned count;
};

static void *take_one(struct rig *r, enum scarce kind)
{
    switch (kind) {
    case NODES:
        return ag_pool_get(&r->m.loop.nodes);
    case PAGES:
        return ag_pool_get(&r->m.loop.pages);
    case SMALL:
        return ag_loop_buf(&r->m.loop, AG_BUF_SMALL);
    case LARGE:
        return ag_loop_buf(&r->m.loop, AG_BUF_LARGE);
    case KINDS:
        break;
    }
    return NULL;
}

static void give_one(struct rig *r, enum scarce kind, void *object)
{
    if (kind == NODES || kind == PAGES) {
        ag_pool_put(kind == NODES ? &r->m.loop.nodes : &r->m.loop.pages, object);
    } else {
        ag_block_release(object);
    }
}

static void hoard_all(struct rig *r, struct hoard *h, enum scarce kind, unsigned left)
{
    while ((h->objects[h->count] = take_one(r, kind))) {
        h->count++;
    }
    while (left-- > 0 && h->count > 0) {
        give_one(r, kind, h->objects[--h->count]);
    }
}

/* A conversation that needs memory of all kinds: heads in pieces, one beyond a small buffer, content
 * with its length and in chunks, trailers, answers that are prepared, copied and streamed. */
static const char *const pieces[] = {
    GET("/fixed"),
    "GET /fi",
    "xed HTTP/1.1\r\nHost: a\r\n",
    "A: b\r\n\r\n" POST("/echo") "Content-Length: 10\r\n\r\n12345",
    "67890" POST("/echo") "Transfer-Encoding: chunked\r\n\r\n2",
    "\r\nhi\r\n0\r\n",
    "X-A: b\r\nX-B",
    ": c\r\n\r\nHEAD /fixed HTTP/1.1\r\nHost: a\r\n\r\nGET /a/../fixed HTTP/1.1\r\n",
    "Host: a\r\n\r\n",
    GET("/wait"),
};

/* False: it ended before its time. */
static bool converse(struct rig *r)
{
    static char big[4000];

    for (size_t i = 0; i < AG_COUNT(pieces); i++) {
        if (!memwire_open(&r->w) || !memwire_feed(&r->w, ag_span_str(pieces[i]))) {
            return false;
        }
        tick(r, 0);
    }
    if (r->ex) {
        answer(r, AG_SPAN("waited"));
        tick(r, 0);
    }
    memset(big, 'b', sizeof(big));
    memcpy(big, "GET /fixed HTTP/1.1\r\nHost: a\r\nBig: ", 35);
    if (!memwire_open(&r->w) || !memwire_feed(&r->w, ag_span(big, sizeof(big))) ||
        !memwire_open(&r->w) || !memwire_feed(&r->w, AG_SPAN("bbbb\r\n\r\n"))) {
        return false;
    }
    tick(r, 0);
    return got_times(r, "HTTP/1.1 200 ") == 8;
}

/* Runs it with `left` objects of a kind. True: it went well. */
static bool survives(enum scarce kind, unsigned left)
{
    struct rig *r = rig_new();
    struct hoard *h = calloc(1, sizeof(*h));
    bool whole;

    cr_assert(h);
    r->limits.head = (struct ag_h1_limits){1024, 8192, 50};
    hoard_all(r, h, kind, left);
    whole = converse(r);
    /* What was answered was answered rightly, or said to be for want of memory; and then it ends. */
    cr_expect_eq(got_times(r, "HTTP/1.1 "),
                 got_times(r, "HTTP/1.1 200 ") + got_times(r, "HTTP/1.1 503 "), "%d %u: %s", kind,
                 left, got(r));
    cr_expect(got_times(r, "HTTP/1.1 503 ") == 0 || !whole);
    while (h->count > 0) {
        give_one(r, kind, h->objects[--h->count]);
    }
    free(h);
    rig_free(r);
    return whole;
}

Test(h1_server_memory, at_each_point_where_it_is_out_a_connection_ends_and_leaves_nothing)
{
    for (enum scarce kind = NODES; kind < KINDS; kind++) {
        unsigned left = 0;

        while (!survives(kind, left)) {
            cr_assert_lt(++left, 100u, "kind %d: it never goes well", kind);
        }
        cr_expect_gt(left, 0, "kind %d: it is not needed at all", kind);
        cr_expect(survives(kind, left + 1), "kind %d: more is worse", kind);
    }
}

Test(h1_server_memory, a_client_that_comes_back_is_served)
{
    struct rig *r = rig_new();
    struct hoard *h = calloc(1, sizeof(*h));

    cr_assert(h);
    hoard_all(r, h, PAGES, 0);
    say(r, GET("/fixed"));
    cr_expect_eq(got_times(r, "HTTP/1.1 503 Service Unavailable\r\nRetry-After: "), 1);
    cr_expect(ended(r));
    while (h->count > 0) {
        give_one(r, PAGES, h->objects[--h->count]);
    }
    free(h);
    rig_free(r);
    r = rig_new();
    say(r, GET("/fixed"));
    cr_expect_eq(got_times(r, "HTTP/1.1 200 "), 1);
    rig_free(r);
}

/* ---- those who wait for a buffer ---- */

Test(h1_server_starved, gets_its_time_once_more_and_then_503)
{
    struct rig *r = rig_new();

    r->w.starved = true;
    tick(r, 10000 + LATE_MS);
    cr_expect_not(ended(r));
    cr_expect_str_eq(got(r), "");
    tick(r, 10000 + LATE_MS);
    cr_expect(ended(r));
    cr_expect_eq(got_times(r, "HTTP/1.1 503 Service Unavailable\r\nRetry-After: "), 1);
    rig_free(r);
}

Test(h1_server_starved, is_served_when_a_buffer_comes)
{
    struct rig *r = rig_new();

    r->w.starved = true;
    tick(r, 10000 + LATE_MS);
    r->w.starved = false;
    say(r, GET("/fixed"));
    cr_expect_eq(got_times(r, "HTTP/1.1 200 "), 1);
    r->w.starved = true; /* the next time counts anew */
    tick(r, 75000 + LATE_MS);
    cr_expect_not(ended(r));
    tick(r, 10000 + LATE_MS);
    cr_expect(ended(r));
    rig_free(r);
}

Test(h1_server_starved, part_of_a_head_is_not_spared)
{
    struct rig *r = rig_new();

    say(r, "GET /fixed HT");
    r->w.starved = true;
    tick(r, 10000 + LATE_MS);
    cr_expect(ended(r));
    cr_expect_eq(got_times(r, "HTTP/1.1 503 "), 1);
    rig_free(r);
}

Test(h1_server_starved, content_gets_its_time_once_more_and_then_503)
{
    struct rig *r = rig_new();

    say(r, POST("/echo") "Content-Length: 10\r\n\r\n12345");
    r->w.starved = true;
    tick(r, 5000 + 1000);
    cr_expect_not(ended(r));
    tick(r, 10000 + LATE_MS);
    cr_expect(ended(r));
    cr_expect_eq(got_times(r, "HTTP/1.1 503 "), 1);
    rig_free(r);
}

/* All blocks but the one that the request comes in are taken. */
static struct rig *rig_without_blocks(struct hoard *h)
{
    struct rig *r = rig_new();

    hoard_all(r, h, SMALL, 1);
    say(r, GET("/fixed"));
    cr_expect_str_eq(got(r), "");
    return r;
}

Test(h1_server_starved, a_request_waits_for_a_buffer_for_its_answer)
{
    struct hoard h = {.count = 0};
    struct rig *r = rig_without_blocks(&h);

    give_one(r, SMALL, h.objects[--h.count]);
    tick(r, 0);
    cr_expect_eq(got_times(r, "HTTP/1.1 200 "), 1);
    while (h.count > 0) {
        give_one(r, SMALL, h.objects[--h.count]);
    }
    rig_free(r);
}

Test(h1_server_starved, but_no_longer_than_a_head_may_take)
{
    struct hoard h = {.count = 0};
    struct rig *r = rig_without_blocks(&h);

    tick(r, 10000 + LATE_MS);
    cr_expect(ended(r));
    cr_expect_eq(got_times(r, "HTTP/1.1 503 "), 1);
    while (h.count > 0) {
        give_one(r, SMALL, h.objects[--h.count]);
    }
    rig_free(r);
}

/* One that pipelines leaves others their turn, and the pages of its answered requests come back meanwhile. */
Test(h1_server_starved, many_requests_at_once_take_turns)
{
    struct rig *r = rig_new();
    char text[100 * sizeof(GET("/fixed"))] = "";

    for (unsigned i = 0; i < 100; i++) {
        memcpy(text + i * (sizeof(GET("/fixed")) - 1), GET("/fixed"), sizeof(GET("/fixed")));
    }
    say_bytes(r, ag_span_str(text));
    cr_expect_eq(r->starts, 32);
    tick(r, 0);
    tick(r, 0);
    cr_expect_eq(got_times(r, "HTTP/1.1 200 "), 100);
    rig_free(r);
}

/* ---- the last request ---- */

#define CLOSE "Connection: close\r\n"

/* Whose client has said that nothing follows is not waited for; who may send more is, for a reset would take
 * the answer away. */
Test(h1_server_last, only_who_can_send_no_more_is_not_waited_for)
{
    static const struct {
        const char *text;
        bool hasty;
    } rows[] = {
        {"GET /fixed HTTP/1.1\r\nHost: a\r\n" CLOSE "\r\n", true},
        {"GET /fixed HTTP/1.0\r\n\r\n", true},
        {"GET /fixed HTTP/1.1\r\nHost: a\r\n" CLOSE "\r\nGET", false},
        {"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n" CLOSE "\r\nab", false},
        {"POST /fixed HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n" CLOSE "\r\n", false},
        {"GET /fixed HTTP/1.1\r\nHost: a\r\n" CLOSE "bad field\r\n\r\n", false},
        {"GET /fixed HTTP/1.1\r\n" CLOSE "\r\n", false},
    };

    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        struct rig *r = rig_new();

        say(r, rows[i].text);
        cr_expect(ended(r), "%s", rows[i].text);
        cr_expect_eq(got_times(r, "HTTP/1.1 "), 1);
        cr_expect_eq(r->w.stream.hasty, rows[i].hasty, "%s", rows[i].text);
        rig_free(r);
    }
}

Test(h1_server_last, nor_does_a_drain_end_hastily)
{
    struct rig *r = rig_new();

    ag_h1_server_drain(&r->h);
    say(r, GET("/fixed"));
    cr_expect(ended(r));
    cr_expect_not(r->w.stream.hasty);
    rig_free(r);
}
