/* Floods and their budgets, deadlines, drain, and what is left of a connection (THREATS.md, HTTP/2). */
#include "tests/unit/h2_rig.h"

static void expect_calm(struct rig *r, const char *what)
{
    const char *at;

    tick(r, 0);
    at = strstr(told(r), "ENHANCE_YOUR_CALM");
    cr_assert(at, "it goes on");
    cr_expect(strstr(at, what), "%s is not about %s", at, what);
    cr_expect(ended(r));
    cr_expect_eq(r->h.conn.reason, AG_REASON_LIMIT);
}

/* As many frames as a budget has, and as many again: the connection ends in between. */
static void flood(struct rig *r, enum ag_h2_type type, unsigned flags, uint32_t id,
                  struct ag_span payload)
{
    unsigned n = 0;

    while (memwire_open(&r->w) && n < 3 * AG_H2_NOISE_MAX) {
        say(r, type, flags, id, payload);
        n++;
    }
    cr_expect_geq(n, AG_H2_NOISE_MAX - 20, "%u", n);
    cr_expect_leq(n, AG_H2_NOISE_MAX + 20, "%u", n);
}

/* ---- floods ---- */

H2_TEST(h2_flood, pings)
{
    flood(r, AG_H2_PING, 0, 0, AG_SPAN("12345678"));
    expect_calm(r, "PING");
}

H2_TEST(h2_flood, settings)
{
    flood(r, AG_H2_SETTINGS, 0, 0, AG_SPAN("\0\1\0\0\x10\0"));
    expect_calm(r, "SETTINGS");
}

H2_TEST(h2_flood, acknowledgements)
{
    flood(r, AG_H2_SETTINGS, AG_H2_ACK, 0, AG_SPAN(""));
    expect_calm(r, "SETTINGS");
}

H2_TEST(h2_flood, priorities)
{
    flood(r, AG_H2_PRIORITY, 0, 5, AG_SPAN("\0\0\0\1\x10"));
    expect_calm(r, "PRIORITY");
}

H2_TEST(h2_flood, priority_updates)
{
    flood(r, AG_H2_PRIORITY_UPDATE, 0, 0, AG_SPAN("\0\0\0\5u=1"));
    expect_calm(r, "PRIORITY_UPDATE");
}

H2_TEST(h2_flood, window_updates)
{
    flood(r, AG_H2_WINDOW_UPDATE, 0, 0, AG_SPAN("\0\0\0\1"));
    expect_calm(r, "WINDOW_UPDATE");
}

H2_TEST(h2_flood, window_updates_of_a_stream)
{
    ask(r, 1, "/wait", END);
    flood(r, AG_H2_WINDOW_UPDATE, 0, 1, AG_SPAN("\0\0\0\1"));
    expect_calm(r, "WINDOW_UPDATE");
}

H2_TEST(h2_flood, empty_data)
{
    ask(r, 1, "/echo", OPEN);
    flood(r, AG_H2_DATA, 0, 1, AG_SPAN(""));
    expect_calm(r, "empty DATA");
}

H2_TEST(h2_flood, data_of_padding)
{
    ask(r, 1, "/echo", OPEN);
    flood(r, AG_H2_DATA, AG_H2_PADDED, 1, AG_SPAN("\1\0"));
    expect_calm(r, "DATA of padding");
}

H2_TEST(h2_flood, unknown_frames)
{
    flood(r, 77, 0, 0, AG_SPAN("x"));
    expect_calm(r, "unknown");
}

H2_TEST(h2_flood, goaways)
{
    ask(r, 1, "/wait", END);
    flood(r, AG_H2_GOAWAY, 0, 0, AG_SPAN("\0\0\0\0\0\0\0\0"));
    expect_calm(r, "GOAWAY");
}

H2_TEST(h2_flood, resets_of_streams_that_are_over)
{
    ask(r, 1, "/fixed", END);
    flood(r, AG_H2_RST_STREAM, 0, 1, AG_SPAN("\0\0\0\x8"));
    expect_calm(r, "RST_STREAM");
}

H2_TEST(h2_flood, continuations)
{
    say(r, AG_H2_HEADERS, END, 1, AG_SPAN("\x82"));
    for (unsigned i = 0; i < AG_H2_CONTINUATIONS_MAX; i++) {
        say(r, AG_H2_CONTINUATION, 0, 1, AG_SPAN("\x86"));
    }
    cr_expect(!ended(r));
    say(r, AG_H2_CONTINUATION, 0, 1, AG_SPAN("\x86"));
    expect_told(r, "GOAWAY 0 ENHANCE_YOUR_CALM a field section too large\n");
}

H2_TEST(h2_flood, a_section_that_takes_its_time)
{
    say(r, AG_H2_HEADERS, END, 1, AG_SPAN("\x82"));
    for (unsigned i = 0; i < 9; i++) {
        tick(r, 1000);
        say(r, AG_H2_CONTINUATION, 0, 1, AG_SPAN("\x86"));
    }
    tick(r, 1000 + LATE_MS);
    tick(r, 0);
    expect_begins(r, "GOAWAY 0 ENHANCE_YOUR_CALM the rest of a frame or field section");
}

H2_TEST(h2_flood, a_frame_that_takes_its_time)
{
    ask(r, 1, "/wait", END);
    feed(r, AG_SPAN("\0\0\x08\x06\0\0\0\0\0pin"));
    for (unsigned i = 0; i < 4; i++) {
        tick(r, 2000);
        feed(r, AG_SPAN("g"));
    }
    tick(r, 2000 + LATE_MS);
    tick(r, 0);
    expect_begins(r, "GOAWAY 1 ENHANCE_YOUR_CALM the rest of a frame or field section");
}

/* Budgets fill up again: what an honest peer does is never too much. */
H2_TEST(h2_flood, pings_that_take_their_time)
{
    ask(r, 1, "/wait", END);
    for (int s = 0; s < 40; s++) {
        for (int i = 0; i < 90; i++) {
            say_part(r, AG_H2_PING, 0, 0, AG_SPAN("12345678"));
        }
        tick(r, 1000);
    }
    cr_expect_eq(times(told(r), "PING"), 3600);
    cr_expect(!ended(r));
}

/* Each request that is answered earns some window updates. */
H2_TEST(h2_flood, window_updates_beside_requests)
{
    for (uint32_t id = 1; id < 1900; id += 2) {
        r->starts = 0;
        ask(r, id, "/fixed", END);
        say_u32(r, AG_H2_WINDOW_UPDATE, 0, 2);
        say_u32(r, AG_H2_WINDOW_UPDATE, id, 2);
        say_u32(r, AG_H2_RST_STREAM, id, AG_H2_CANCEL);
    }
    cr_expect(!ended(r));
}

/* What comes for streams that we have reset, or do not look at any more, is passed over, within bounds. */
H2_TEST(h2_flood, ends_of_streams_that_we_have_reset)
{
    say(r, AG_H2_HEADERS, OPEN | WHOLE, 1, section(":method: GET\n"));
    expect_told(r, "RST_STREAM 1 PROTOCOL_ERROR\n");
    flood(r, AG_H2_DATA, END, 1, AG_SPAN(""));
    expect_calm(r, "ends of closed streams");
}

H2_TEST(h2_flood, fields_of_streams_that_we_have_reset)
{
    say(r, AG_H2_HEADERS, OPEN | WHOLE, 1, section(":method: GET\n"));
    expect_told(r, "RST_STREAM 1 PROTOCOL_ERROR\n");
    flood(r, AG_H2_HEADERS, END | WHOLE, 1, section("x: y\n"));
    expect_calm(r, "fields of closed streams");
}

H2_TEST(h2_flood, requests_behind_the_last)
{
    r->limits.max_requests = 1;
    ask(r, 1, "/wait", END);
    expect_told(r, "GOAWAY 1 NO_ERROR\n");
    for (uint32_t id = 3; memwire_open(&r->w) && id < 6000; id += 2) {
        ask(r, id, "/wait", END);
    }
    expect_calm(r, "streams behind GOAWAY");
}

/* As much as is on its way when our resets leave. */
H2_TEST(h2_flood, the_rest_of_many_that_we_have_reset)
{
    uint32_t id = 1;

    for (; id < 2 * 180; id += 2) {
        say(r, AG_H2_HEADERS, OPEN | WHOLE, id, section(":method: GET\n"));
        for (int i = 0; i < 3; i++) {
            data(r, id, "more", OPEN);
        }
        if (id % 4 == 1) {
            data(r, id, "", END);
        } else {
            say(r, AG_H2_HEADERS, END | WHOLE, id, section("x: y\n"));
        }
    }
    cr_expect(!ended(r));
    ask(r, id, "/fixed", END);
    cr_expect(strstr(told(r), "\"ok\" END"));
}

/* CVE-2023-44487: each reset makes room for another request. */
H2_TEST(h2_flood, rapid_reset)
{
    uint32_t id = 1;

    for (; memwire_open(&r->w) && id < 1500; id += 2) {
        ask(r, id, "/wait", END);
        if (memwire_open(&r->w)) {
            say_u32(r, AG_H2_RST_STREAM, id, AG_H2_CANCEL);
        }
    }
    cr_expect_eq(r->starts, AG_H2_RESETS_MAX + 1);
    expect_calm(r, "too many streams reset");
}

/* CVE-2025-8671: the client has us reset its streams. */
H2_TEST(h2_flood, resets_that_it_provokes)
{
    uint32_t id = 1;

    for (; memwire_open(&r->w) && id < 1500; id += 2) {
        ask(r, id, "/wait", END);
        if (memwire_open(&r->w)) {
            say_u32(r, AG_H2_WINDOW_UPDATE, id, 0);
        }
    }
    cr_expect_eq(r->starts, AG_H2_RESETS_MAX + 1);
    expect_calm(r, "too many streams reset");
}

H2_TEST(h2_flood, both_kinds_count_together)
{
    uint32_t id = 1;

    for (; memwire_open(&r->w) && id < 1500; id += 2) {
        ask(r, id, "/wait", END);
        if (memwire_open(&r->w)) {
            say_u32(r, id % 4 == 1 ? AG_H2_WINDOW_UPDATE : AG_H2_RST_STREAM, id, 0);
        }
    }
    cr_expect_eq(r->starts, AG_H2_RESETS_MAX + 1);
    expect_calm(r, "too many streams reset");
}

H2_TEST(h2_flood, malformed_requests)
{
    uint32_t id = 1;

    for (; memwire_open(&r->w) && id < 1500; id += 2) {
        say(r, AG_H2_HEADERS, END | WHOLE, id, section(":method: GET\n"));
    }
    expect_calm(r, "too many streams reset");
    cr_expect_leq(id, 2 * AG_H2_RESETS_MAX + 5);
}

H2_TEST(h2_flood, refused_streams)
{
    uint32_t id = 1;

    for (; memwire_open(&r->w) && id < 1500; id += 2) {
        ask(r, id, "/wait", END);
    }
    expect_calm(r, "too many streams reset");
    cr_expect_eq(r->starts, AG_H2_STREAMS_MAX);
    cr_expect_leq(id, 2 * (AG_H2_RESETS_MAX + AG_H2_STREAMS_MAX) + 5);
}

H2_TEST(h2_flood, resets_that_take_their_time)
{
    uint32_t id = 1;

    for (int s = 0; s < 50; s++) {
        for (int i = 0; i < 18; i++, id += 2) {
            ask(r, id, "/wait", END);
            say_u32(r, AG_H2_RST_STREAM, id, AG_H2_CANCEL);
        }
        tick(r, 1000);
    }
    cr_expect(!ended(r));
    cr_expect_eq(r->aborts, 900);
}

Test(h2_flood, the_bounds_can_be_set)
{
    struct rig *r = rig_new_raw(false);

    memwire_abort(&r->w.stream, AG_REASON_RESET);
    tick(r, 0);
    memwire_init(&r->w, &r->m, &rig_user, ag_buf(r->out, RIG_OUT_BYTES));
    r->closes = 0;
    r->limits.h2_streams_max = 2;
    r->limits.h2_resets_max = 3;
    ag_h2_server_init(&r->h, &r->w.stream, &r->ctx, &r->limits, 80);
    feed(r, AG_H2_MAGIC);
    say(r, AG_H2_SETTINGS, 0, 0, AG_SPAN(""));
    cr_expect(strstr(told(r), "SETTINGS 3=2 "));
    for (uint32_t id = 1; id < 11; id += 2) {
        ask(r, id, "/wait", END);
    }
    cr_expect_eq(times(told(r), "REFUSED_STREAM"), 3);
    ask(r, 11, "/wait", END);
    expect_calm(r, "too many streams reset");
    rig_free(r);
}

/* A stream that was reset keeps its slot as long as somebody works on it. */
H2_TEST(h2_flood, slots_are_held_until_the_work_ends)
{
    r->linger = true;
    for (uint32_t id = 1; id < 257; id += 2) {
        ask(r, id, "/wait", END);
        say_u32(r, AG_H2_RST_STREAM, id, AG_H2_CANCEL);
    }
    cr_expect_eq(r->starts, 128);
    cr_expect_eq(r->h.conn.streams, 0);
    expect_told(r, "");
    ask(r, 257, "/wait", END);
    expect_told(r, "RST_STREAM 257 REFUSED_STREAM\n");
    let_go(&r->works[7]);
    tick(r, 0);
    ask(r, 259, "/fixed", END);
    cr_expect(strstr(told(r), "DATA 259 \"ok\" END"));
    cr_expect_eq(r->h.slots, 127);
}

/* Answers to PING pile up for a peer that takes none: it is not read any more. */
H2_TEST(h2_flood, control_frames_that_nobody_takes)
{
    unsigned n = 0;

    if (r->bytewise) {
        return;
    }
    r->w.window = 0;
    for (; n < 20000 && !r->w.paused; n++) {
        r->h.conn.noise = AG_H2_NOISE_MAX; /* not what is asked for here */
        say_part(r, AG_H2_PING, 0, 0, AG_SPAN("12345678"));
        if (n % 64 == 0) {
            tick(r, 0);
        }
    }
    cr_expect(r->w.paused);
    cr_expect_leq(ag_stream_queued(&r->w.stream), AG_STREAM_HIGH + 20000);
    memwire_open_window(&r->w, SIZE_MAX);
    tick(r, 0);
    cr_expect(!r->w.paused);
}

/* ---- deadlines ---- */

Test(h2_deadline, of_the_preface)
{
    for (unsigned i = 0; i < 3; i++) {
        struct rig *r = rig_new_raw(false);

        if (i > 0) {
            feed(r, ag_span_sub(AG_H2_MAGIC, 0, 5));
        }
        if (i > 1) {
            feed(r, ag_span_sub(AG_H2_MAGIC, 5, AG_H2_MAGIC.len));
            say(r, AG_H2_SETTINGS, 0, 0, AG_SPAN(""));
        }
        tick(r, 9000);
        cr_expect(!r->w.closed);
        tick(r, 1000 + LATE_MS);
        tick(r, 0);
        cr_expect(r->w.closed, "%u", i);
        rig_free(r);
    }
}

H2_TEST(h2_deadline, of_idleness)
{
    ask(r, 1, "/fixed", END);
    (void)told(r);
    for (int i = 0; i < 7; i++) {
        tick(r, 10000);
        say(r, AG_H2_PING, 0, 0, AG_SPAN("12345678")); /* does not keep it alive */
    }
    (void)told(r);
    cr_expect(!r->w.closed);
    tick(r, 5000 + LATE_MS);
    tick(r, 0);
    expect_told(r, "GOAWAY 1 NO_ERROR\n");
    cr_expect(ended(r));
}

H2_TEST(h2_deadline, requests_put_it_off)
{
    for (uint32_t id = 1; id < 13; id += 2) {
        ask(r, id, "/fixed", END);
        tick(r, 50000);
    }
    cr_expect(!r->w.closed);
    ask(r, 13, "/wait", END);
    tick(r, 300000);
    cr_expect(!r->w.closed); /* it is we who are slow */
}

/* ---- the last requests ---- */

H2_TEST(h2_drain, two_steps)
{
    ask(r, 1, "/wait", END);
    ag_h2_server_drain(&r->h);
    tick(r, 0);
    expect_told(r, "GOAWAY 2147483647 NO_ERROR\nPING anygate1\n");
    ask(r, 3, "/fixed", END); /* was on its way */
    expect_told(r, "HEADERS 3 :status=200,content-length=2\nDATA 3 \"ok\" END\n");
    say(r, AG_H2_PING, AG_H2_ACK, 0, AG_SPAN("anygate\1"));
    expect_told(r, "GOAWAY 3 NO_ERROR\n");
    ask(r, 5, "/fixed", END); /* for another connection */
    data(r, 5, "x", 0);
    expect_told(r, "");
    cr_expect_eq(r->starts, 2);
    answer(r, 0, AG_SPAN("x"));
    tick(r, 0);
    tick(r, 0);
    expect_told(r, "HEADERS 1 :status=200,content-length=1\nDATA 1 \"x\" END\n");
    cr_expect(ended(r));
}

H2_TEST(h2_drain, a_client_that_does_not_answer)
{
    ag_h2_server_yield(&r->h);
    tick(r, 0);
    expect_told(r, "GOAWAY 2147483647 NO_ERROR\nPING anygate1\n");
    tick(r, 900);
    cr_expect(!r->w.closed);
    tick(r, 100 + LATE_MS);
    tick(r, 0);
    expect_told(r, "GOAWAY 0 NO_ERROR\n");
    cr_expect(ended(r));
}

Test(h2_drain, before_the_preface)
{
    struct rig *r = rig_new_raw(false);

    ag_h2_server_drain(&r->h);
    feed(r, AG_H2_MAGIC);
    say_part(r, AG_H2_SETTINGS, 0, 0, AG_SPAN(""));
    say_part(r, AG_H2_SETTINGS, AG_H2_ACK, 0, AG_SPAN(""));
    ask(r, 1, "/fixed", END);
    say(r, AG_H2_PING, AG_H2_ACK, 0, AG_SPAN("anygate\1"));
    tick(r, 0);
    cr_expect(strstr(told(r), "DATA 1 \"ok\" END\nGOAWAY 1 NO_ERROR\n"), "%s", r->text);
    cr_expect(ended(r));
    rig_free(r);
}

H2_TEST(h2_drain, so_many_requests)
{
    r->limits.max_requests = 2;
    ask(r, 1, "/wait", END);
    ask(r, 3, "/wait", END);
    expect_told(r, "GOAWAY 3 NO_ERROR\n");
    ask(r, 5, "/wait", END);
    cr_expect_eq(r->starts, 2);
    answer(r, 1, AG_SPAN("b"));
    answer(r, 0, AG_SPAN("a"));
    tick(r, 0);
    tick(r, 0);
    cr_expect_eq(times(told(r), "END"), 2);
    cr_expect(ended(r));
}

/* Its last stream is told: that number never goes up again. */
H2_TEST(h2_drain, behind_so_many_requests)
{
    r->limits.max_requests = 1;
    ask(r, 1, "/wait", END);
    expect_told(r, "GOAWAY 1 NO_ERROR\n");
    ag_h2_server_drain(&r->h);
    tick(r, 0);
    tick(r, 2000);
    expect_told(r, "");
    answer(r, 0, AG_SPAN("a"));
    tick(r, 0);
    tick(r, 0);
    cr_expect_eq(times(told(r), "END"), 1);
    cr_expect(!strstr(r->text, "GOAWAY"));
    cr_expect(ended(r));
}

H2_TEST(h2_drain, a_client_that_goes_away)
{
    ask(r, 1, "/wait", END);
    say(r, AG_H2_GOAWAY, 0, 0, AG_SPAN("\0\0\0\0\0\0\0\0bye"));
    expect_told(r, "");
    answer(r, 0, AG_SPAN("a"));
    tick(r, 0);
    tick(r, 0);
    cr_expect(strstr(told(r), "DATA 1 \"a\" END\nGOAWAY 1 NO_ERROR\n"));
    cr_expect(ended(r));
}

H2_TEST(h2_drain, is_idle)
{
    cr_expect(ag_h2_server_idle(&r->h));
    ask(r, 1, "/wait", END);
    cr_expect(!ag_h2_server_idle(&r->h));
    answer(r, 0, AG_SPAN("a"));
    tick(r, 0);
    cr_expect(ag_h2_server_idle(&r->h));
    feed(r, AG_SPAN("\0\0\x08\x06\0\0\0\0\0pin"));
    cr_expect(!ag_h2_server_idle(&r->h));
}

/* ---- memory ---- */

H2_TEST(h2_memory, an_idle_connection_holds_little)
{
    for (uint32_t id = 1; id < 21; id += 2) {
        ask(r, id, "/fixed", END);
        (void)told(r);
    }
    cr_expect_eq(ag_loop_bufs_used(&r->m.loop, AG_BUF_SMALL), 0);
    cr_expect_eq(ag_loop_bufs_used(&r->m.loop, AG_BUF_LARGE), 0);
    cr_expect_eq(r->m.loop.nodes.used, 0);
    cr_expect_eq(r->ctx.exchanges_live, 0);
    cr_expect_leq(sizeof(struct ag_h2_server), 2048);
}

/* A frame that tells that it is large holds a large buffer when it is. */
H2_TEST(h2_memory, of_a_frame_that_has_begun)
{
    static const char *const hex = "0123456789abcdef";
    struct ag_span head = section(head_of("GET", "/fixed", ""));
    uint8_t frame[AG_H2_HEADER_BYTES + AG_H2_FRAME_DEFAULT];
    size_t at = AG_H2_HEADER_BYTES + head.len;

    memcpy(frame + AG_H2_HEADER_BYTES, head.ptr, head.len);
    while (at + 200 < 8000) { /* "x: ...", of 103 bytes in all */
        memcpy(frame + at, "\0\1x\x64", 4);
        for (size_t i = 0; i < 100; i++) {
            frame[at + 4 + i] = (uint8_t)hex[i % 16];
        }
        at += 104;
    }
    (void)ag_h2_put_header(frame, at - AG_H2_HEADER_BYTES, AG_H2_HEADERS, END | WHOLE, 1);
    r->limits.head = (struct ag_h1_limits){16000, 16000, 200};
    feed(r, ag_span(frame, 100));
    tick(r, 0);
    cr_expect_eq(ag_loop_bufs_used(&r->m.loop, AG_BUF_LARGE), 0);
    cr_expect_eq(ag_loop_bufs_used(&r->m.loop, AG_BUF_SMALL), 1);
    feed(r, ag_span(frame + 100, 5000));
    tick(r, 0);
    cr_expect_eq(ag_loop_bufs_used(&r->m.loop, AG_BUF_LARGE), 1);
    cr_expect_eq(ag_loop_bufs_used(&r->m.loop, AG_BUF_SMALL), 0);
    feed(r, ag_span(frame + 5100, at - 5100));
    tick(r, 0);
    cr_expect(strstr(told(r), "DATA 1 \"ok\" END\n"), "%s", r->text);
}

/* Out of pages: the request is refused, the rest goes on. */
H2_TEST(h2_memory, out_of_pages)
{
    struct ag_arena all;

    r->limits.h2_streams_max = 1;
    ask(r, 1, "/wait", END);
    ask(r, 3, "/wait", END); /* the decoder takes the page that it reads and forgets with */
    expect_told(r, "RST_STREAM 3 REFUSED_STREAM\n");
    r->limits.h2_streams_max = 100;
    ag_arena_init(&all, &r->m.loop.pages, UINT32_MAX);
    while (ag_arena_alloc(&all, AG_ARENA_ALLOC_MAX)) {
    }
    for (uint32_t id = 5; id < 1005; id += 2) { /* that is not held against the client */
        ask(r, id, "/wait", END);
        cr_expect(strstr(told(r), "REFUSED_STREAM\n"));
    }
    ag_arena_release(&all);
    ask(r, 1005, "/fixed", END);
    cr_expect(strstr(told(r), "DATA 1005 \"ok\" END"));
}

/* Out of buffers: requests wait for one. */
H2_TEST(h2_memory, out_of_buffers)
{
    struct ag_block *all[1025];
    unsigned n = 0;
    struct ag_span head = section(head_of("GET", "/fixed", ""));
    uint8_t frame[200];

    if (r->bytewise) {
        return;
    }
    (void)ag_h2_put_header(frame, head.len, AG_H2_HEADERS, END | WHOLE, 1);
    memcpy(frame + AG_H2_HEADER_BYTES, head.ptr, head.len);
    while ((all[n] = ag_loop_buf(&r->m.loop, AG_BUF_SMALL))) {
        n++;
    }
    ag_block_release(all[--n]); /* that one holds the request */
    feed(r, ag_span(frame, AG_H2_HEADER_BYTES + head.len));
    tick(r, 0);
    cr_expect_eq(r->starts, 0);
    cr_expect(r->w.paused);
    while (n > 0) {
        ag_block_release(all[--n]);
    }
    tick(r, 0);
    tick(r, 0);
    cr_expect(strstr(told(r), "DATA 1 \"ok\" END"), "%s", r->text);
    cr_expect(!r->w.paused);
}

/* The last request that is allowed finds no buffer for the word that it is the last. */
H2_TEST(h2_memory, no_buffer_for_the_last_request)
{
    struct ag_block *all[1025];
    unsigned n = 0;
    struct ag_span head = section(head_of("GET", "/fixed", ""));

    if (r->bytewise) {
        return;
    }
    r->limits.max_requests = 1;
    say(r, AG_H2_HEADERS, END, 1, ag_span_sub(head, 0, 10));
    while ((all[n] = ag_loop_buf(&r->m.loop, AG_BUF_SMALL))) {
        n++;
    }
    ag_block_release(all[--n]); /* that one holds the request's rest */
    say(r, AG_H2_CONTINUATION, WHOLE, 1, ag_span_sub(head, 10, head.len));
    tick(r, 0);
    cr_expect_eq(r->starts, 0);
    cr_expect(r->w.closed);
    cr_expect_eq(r->close_why, AG_REASON_RESOURCES);
    while (n > 0) {
        ag_block_release(all[--n]);
    }
}
