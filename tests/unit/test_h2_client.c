/*
 * Goal: one answer for one stream of frames, however it is split; a call that fails takes no other with it
 * unless the connection goes; nothing that is cut short looks whole; nothing is left at whatever point.
 * Method: a client on a stream in memory; the test is the upstream, frame by frame.
 */
#include "tests/unit/h2_client_rig.h"

/* ---- the connection ---- */

Test(h2_client, waits_for_settings)
{
    struct rig *r = rig_new();
    struct ag_h2_frame f = {0};
    struct ag_span p = AG_SPAN("");

    cr_assert(seek(r, AG_H2_SETTINGS, 0, &f, &p));
    cr_expect_eq(f.flags, 0);
    cr_expect_eq(ag_h2_client_room(&r->c), 0);
    put_setting(r, AG_H2_MAX_CONCURRENT_STREAMS, 3);
    feed(r);
    cr_expect_eq(r->settled, 1);
    cr_expect_eq(ag_h2_client_room(&r->c), 3);
    cr_expect(seek(r, AG_H2_SETTINGS, 0, &f, &p) && f.flags == AG_H2_ACK);
    rig_free(r);
}

Test(h2_client, room_is_what_the_upstream_allows)
{
    struct rig *r = rig_open();

    cr_expect_eq(ag_h2_client_room(&r->c), AG_H2_CLIENT_CALLS_MAX);
    put_setting(r, AG_H2_MAX_CONCURRENT_STREAMS, 2);
    feed(r);
    cr_expect_eq(r->settled, 2);
    struct one *a = get(r);
    cr_expect_eq(ag_h2_client_room(&r->c), 1);
    get(r);
    cr_expect_eq(ag_h2_client_room(&r->c), 0);
    put_setting(r, AG_H2_MAX_CONCURRENT_STREAMS, 1);
    feed(r);
    cr_expect_eq(ag_h2_client_room(&r->c), 0);
    put_headers(r, 1, ":status: 204\n", true);
    feed(r);
    cr_expect_eq(a->dones, 1);
    cr_expect_eq(ag_h2_client_room(&r->c), 0);
    rig_free(r);
}

Test(h2_client, no_http2_is_an_end)
{
    struct rig *r = rig_new();

    ag_buf_put(&r->in, AG_SPAN("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"));
    feed(r);
    tick(r, 0);
    cr_expect_eq(r->settled, 0);
    cr_expect_eq(r->c.conn.reason, AG_REASON_PROTOCOL);
    rig_free(r);
}

/* ---- answers ---- */

struct answer {
    void (*put)(struct rig *, uint32_t id);
    const char *body, *x, *trailer;
    unsigned status, interims;
};

static void put_plain_answer(struct rig *r, uint32_t id)
{
    put_headers(r, id, ":status: 200\nx: 1\ncontent-length: 5\n", false);
    put_data(r, id, "hel", false);
    put_data(r, id, "lo", true);
}

static void put_unsized(struct rig *r, uint32_t id)
{
    put_headers(r, id, ":status: 200\n", false);
    put_data(r, id, "hello", false);
    put_data(r, id, "", true);
}

static void put_empty(struct rig *r, uint32_t id)
{
    put_headers(r, id, ":status: 204\nx: y\n", true);
}

static void put_trailers_only(struct rig *r, uint32_t id)
{
    put_headers(r, id, ":status: 200\ncontent-type: application/grpc\nx: 7\n", true);
}

static void put_with_trailers(struct rig *r, uint32_t id)
{
    put_headers(r, id, ":status: 200\n", false);
    put_data(r, id, "hi", false);
    put_headers(r, id, "t: sum\n", true);
}

static void put_with_interims(struct rig *r, uint32_t id)
{
    put_headers(r, id, ":status: 100\n", false);
    put_headers(r, id, ":status: 103\nlink: </a>\n", false);
    put_headers(r, id, ":status: 201\nx: z\n", false);
    put_data(r, id, ".", true);
}

static void put_padded(struct rig *r, uint32_t id)
{
    static const uint8_t padded[] = {3, 'h', 'i', 0, 0, 0};

    put_headers(r, id, ":status: 200\n", false);
    put_frame(r, AG_H2_DATA, AG_H2_PADDED | AG_H2_END_STREAM, id, ag_span(padded, sizeof(padded)));
}

static void put_continued(struct rig *r, uint32_t id)
{
    uint8_t block[256];
    size_t n = write_fields(block, sizeof(block), ":status: 200\nx: cont\n");

    put_frame(r, AG_H2_HEADERS, AG_H2_END_STREAM, id, ag_span(block, 3));
    put_frame(r, AG_H2_CONTINUATION, 0, id, ag_span(block + 3, 2));
    put_frame(r, AG_H2_CONTINUATION, AG_H2_END_HEADERS, id, ag_span(block + 5, n - 5));
}

static const struct answer answers[] = {
    {put_plain_answer, "hello", "1", "", 200, 0},
    {put_unsized, "hello", "", "", 200, 0},
    {put_empty, "", "y", "", 204, 0},
    {put_trailers_only, "", "7", "", 200, 0},
    {put_with_trailers, "hi", "", "sum", 200, 0},
    {put_with_interims, ".", "z", "", 201, 2},
    {put_padded, "hi", "", "", 200, 0},
    {put_continued, "", "cont", "", 200, 0},
};

Test(h2_client, answers_in_every_split)
{
    for (size_t i = 0; i < AG_COUNT(answers); i++) {
        struct rig *r = rig_open();
        uint32_t id = 1;

        for (size_t step = 1; step < 60; step++, id += 2) {
            struct one *o = get(r);

            r->step = step;
            answers[i].put(r, id);
            feed(r);
            cr_assert_eq(o->dones, 1, "%zu in %zu", i, step);
            cr_expect_eq(o->heads, 1);
            cr_expect_eq(o->interims, answers[i].interims);
            cr_expect_eq(o->status, answers[i].status);
            cr_expect_str_eq(o->x, answers[i].x);
            cr_expect_str_eq(o->body, answers[i].body);
            cr_expect_str_eq(o->trailer, answers[i].trailer);
            cr_expect(o->ended && !o->aborted);
        }
        cr_expect_eq(r->c.conn.streams, 0);
        rig_free(r);
    }
}

Test(h2_client, calls_at_once_answered_in_any_order)
{
    struct rig *r = rig_open();
    struct one *o[AG_H2_CLIENT_CALLS_MAX];

    for (unsigned i = 0; i < AG_COUNT(o); i++) {
        o[i] = get(r);
    }
    cr_expect_eq(ag_h2_client_room(&r->c), 0);
    for (unsigned i = AG_COUNT(o); i-- > 0;) {
        put_headers(r, 2 * i + 1, ":status: 200\n", false);
    }
    feed(r);
    for (unsigned i = 0; i < AG_COUNT(o); i++) {
        put_data(r, 2 * i + 1, "x", true);
    }
    feed(r);
    for (unsigned i = 0; i < AG_COUNT(o); i++) {
        cr_expect_eq(o[i]->dones, 1);
        cr_expect_str_eq(o[i]->body, "x");
    }
    cr_expect_eq(ag_h2_client_room(&r->c), AG_H2_CLIENT_CALLS_MAX);
    rig_free(r);
}

Test(h2_client, calls_of_one_turn_leave_in_one_write)
{
    struct rig *r = rig_open();
    unsigned before = r->w.flushes;

    for (unsigned i = 0; i < 20; i++) {
        cr_assert_eq(start(one_new(r), AG_METHOD_GET, AG_FRAMING_NONE, 0, ""), AG_OK);
    }
    tick(r, 0);
    cr_expect_eq(r->w.flushes, before + 1);
    rig_free(r);
}

/* ---- requests ---- */

Test(h2_client, a_request_is_fields_and_content)
{
    struct rig *r = rig_open();
    struct one *o = post(r, 5);
    struct ag_h2_field_error error;
    struct ag_request req = {0};
    struct ag_h2_frame f = {0};
    struct ag_span p = AG_SPAN("");

    give(o, "hel");
    give(o, "lo");
    give_end(o);
    cr_assert(seek(r, AG_H2_HEADERS, 1, &f, &p));
    cr_expect_eq(f.flags, AG_H2_END_HEADERS);
    cr_assert_eq(
        ag_h2_read_request(&r->decoder, p, &AG_H1_LIMITS_DEFAULT, &req, &r->tables, &error), AG_OK);
    cr_expect_eq(req.method, AG_METHOD_POST);
    cr_expect(ag_span_eq(req.path, AG_SPAN("/t")));
    cr_expect(ag_span_eq(req.authority, AG_SPAN("example")));
    cr_expect_eq(req.content_length, 5);
    cr_assert(seek(r, AG_H2_DATA, 1, &f, &p));
    cr_expect(ag_span_eq(p, AG_SPAN("hel")));
    cr_assert(seek(r, AG_H2_DATA, 1, &f, &p));
    cr_expect(ag_span_eq(p, AG_SPAN("lo")));
    cr_expect(f.flags & AG_H2_END_STREAM || got(r, AG_H2_DATA, 1));
    rig_free(r);
}

Test(h2_client, content_waits_for_windows)
{
    struct rig *r = rig_open();
    struct one *o;
    uint64_t since;

    put_setting(r, AG_H2_INITIAL_WINDOW_SIZE, 4);
    feed(r);
    o = post(r, AG_LENGTH_UNKNOWN);
    give(o, "hello!");
    cr_expect_eq(o->req_body.q.bytes, 2);
    cr_expect_eq(o->call.ops->phase(&o->call, &since), AG_CALL_WINDOW);
    put_u32(r, AG_H2_WINDOW_UPDATE, 1, 100);
    feed(r);
    cr_expect_eq(o->req_body.q.bytes, 0);
    cr_expect_eq(o->call.ops->phase(&o->call, &since), AG_CALL_CALLER);
    give_end(o);
    cr_expect_eq(o->call.ops->phase(&o->call, &since), AG_CALL_FIRST_BYTE);
    put_headers(r, 1, ":status: 200\n", false);
    feed(r);
    cr_expect_eq(o->call.ops->phase(&o->call, &since), AG_CALL_READ);
    rig_free(r);
}

Test(h2_client, a_cut_request_never_ends_well)
{
    struct rig *r = rig_open();
    struct one *aborted = post(r, AG_LENGTH_UNKNOWN), *shorter = post(r, 10);
    struct ag_h2_frame f = {0};
    struct ag_span p = AG_SPAN("");

    give(aborted, "part");
    ag_body_abort(&aborted->req_body, AG_REASON_RESET);
    give(shorter, "part");
    give_end(shorter);
    tick(r, 0);
    for (unsigned i = 0; i < 2; i++) {
        struct one *o = i ? shorter : aborted;

        cr_expect_eq(o->faileds, 1);
        cr_expect_eq(o->why, AG_REASON_ABORTED);
    }
    r->at = AG_H2_MAGIC.len;
    expect_reset(r, 1, AG_H2_CANCEL);
    r->at = AG_H2_MAGIC.len;
    expect_reset(r, 3, AG_H2_CANCEL);
    r->at = AG_H2_MAGIC.len;
    while (seek(r, AG_H2_DATA, 1, &f, &p) || seek(r, AG_H2_DATA, 3, &f, &p)) {
        cr_expect_not(f.flags & AG_H2_END_STREAM);
    }
    rig_free(r);
}

Test(h2_client, an_early_answer_stops_the_content)
{
    struct rig *r = rig_open();
    struct one *o = post(r, 100);

    give(o, "part");
    put_headers(r, 1, ":status: 413\n", true);
    feed(r);
    cr_expect_eq(o->dones, 1);
    cr_expect_eq(o->status, 413);
    cr_expect(o->ended && o->req_body.discarding);
    expect_reset(r, 1, AG_H2_CANCEL);
    put_reset(r, 1, AG_H2_NO_ERROR); /* crosses ours */
    feed(r);
    cr_expect_eq(r->closes, 0);
    cr_expect_eq(r->c.conn.streams, 0);
    rig_free(r);
}

Test(h2_client, streams_both_ways_at_once)
{
    struct rig *r = rig_open();
    struct one *o = post(r, AG_LENGTH_UNKNOWN);

    put_headers(r, 1, ":status: 200\n", false);
    feed(r);
    for (unsigned i = 0; i < 50; i++) {
        give(o, "ping");
        cr_assert(got(r, AG_H2_DATA, 1));
        put_data(r, 1, "pong", false);
        feed(r);
        cr_assert_eq(o->taken, 4 * (i + 1));
    }
    give_end(o);
    cr_expect_eq(o->dones, 0);
    put_headers(r, 1, "t: ok\n", true);
    feed(r);
    cr_expect_eq(o->dones, 1);
    cr_expect_str_eq(o->trailer, "ok");
    rig_free(r);
}

/* ---- who goes away ---- */

Test(h2_client, a_cancelled_call_is_one_reset)
{
    struct rig *r = rig_open();
    struct one *gone = get(r), *stays = get(r);

    cancel(gone);
    tick(r, 0);
    expect_reset(r, 1, AG_H2_CANCEL);
    put_headers(r, 1, ":status: 200\n", false); /* it was on its way */
    put_data(r, 1, "late", true);
    put_headers(r, 3, ":status: 200\n", false);
    put_data(r, 3, "ok", true);
    feed(r);
    cr_expect_eq(gone->heads + gone->dones + gone->faileds, 0);
    cr_expect_eq(stays->dones, 1);
    cr_expect_str_eq(stays->body, "ok");
    cr_expect_eq(r->closes, 0);
    rig_free(r);
}

/* What the upstream had sent for them by then is no flood, however many they are. */
Test(h2_client, answers_to_cancelled_calls_are_lawful)
{
    struct rig *r = rig_open();
    struct one *o = get(r);

    for (uint32_t id = 1; id < 2 * 1500; id += 2) {
        cancel(o);
        ag_arena_release(&o->keep);
        ag_arena_init(&o->keep, &r->m.loop.pages, 16);
        put_headers(r, id, ":status: 103\n", false);
        put_headers(r, id, ":status: 200\n", false);
        put_data(r, id, "x", false);
        put_headers(r, id, "t: u\n", true);
        feed(r);
        cr_assert_eq(start(o, AG_METHOD_GET, AG_FRAMING_NONE, AG_LENGTH_UNKNOWN, ""), AG_OK);
    }
    cr_expect_eq(r->closes, 0);
    cr_expect_eq(o->faileds, 0);
    rig_free(r);
}

Test(h2_client, a_call_may_be_given_up_in_its_head)
{
    struct rig *r = rig_open();
    struct one *o = get(r);

    o->drop = true;
    put_headers(r, 1, ":status: 200\n", false);
    put_data(r, 1, "x", true);
    feed(r);
    cr_expect_eq(o->heads, 1);
    cr_expect_eq(o->dones + o->faileds, 0);
    expect_reset(r, 1, AG_H2_CANCEL);
    rig_free(r);
}

Test(h2_client, refused_is_replayable_and_lowers_the_bound)
{
    struct rig *r = rig_open();
    struct one *a = get(r), *b = get(r);

    put_reset(r, 3, AG_H2_REFUSED_STREAM);
    feed(r);
    cr_expect_eq(b->faileds, 1);
    cr_expect(b->call.replayable);
    cr_expect_eq(ag_h2_client_room(&r->c), 0); /* one it did take */
    put_headers(r, 1, ":status: 204\n", true);
    feed(r);
    cr_expect_eq(a->dones, 1);
    cr_expect_eq(ag_h2_client_room(&r->c), 2); /* and grows */
    rig_free(r);
}

Test(h2_client, a_reset_fails_its_call_alone)
{
    static const enum ag_h2_error codes[] = {AG_H2_NO_ERROR, AG_H2_CANCEL, AG_H2_INTERNAL_ERROR,
                                             AG_H2_HTTP_1_1_REQUIRED};

    for (unsigned late = 0; late < 2; late++) {
        for (unsigned i = 0; i < AG_COUNT(codes); i++) {
            struct rig *r = rig_open();
            struct one *a = get(r), *b = get(r);

            if (late) {
                put_headers(r, 1, ":status: 200\n", false);
                put_data(r, 1, "part", false);
            }
            put_reset(r, 1, codes[i]);
            put_headers(r, 3, ":status: 204\n", true);
            feed(r);
            cr_expect_eq(a->faileds, 1);
            cr_expect_not(a->call.replayable);
            cr_expect_eq(a->call.h1_required, codes[i] == AG_H2_HTTP_1_1_REQUIRED && !late);
            cr_expect_eq(a->why, AG_REASON_ABORTED);
            cr_expect_eq(a->aborted, late == 1);
            cr_expect_not(a->ended);
            cr_expect_eq(b->dones, 1);
            rig_free(r);
        }
    }
}

Test(h2_client, goaway_spares_what_it_took)
{
    struct rig *r = rig_open();
    struct one *a = get(r), *b = get(r), *c = get(r);

    put_headers(r, 1, ":status: 200\n", false);
    put_goaway(r, 3, AG_H2_NO_ERROR);
    feed(r);
    cr_expect_eq(r->closing, 1);
    cr_expect_eq(ag_h2_client_room(&r->c), 0);
    cr_expect_eq(c->faileds, 1);
    cr_expect(c->call.replayable);
    cr_expect_eq(a->faileds + b->faileds, 0);
    put_data(r, 1, "a", true);
    put_headers(r, 3, ":status: 204\n", true);
    feed(r);
    cr_expect_eq(a->dones, 1);
    cr_expect_eq(b->dones, 1);
    rig_free(r);
}

Test(h2_client, goaway_at_each_moment)
{
    for (unsigned moment = 0; moment < 6; moment++) {
        for (uint32_t last = 0; last <= 1; last++) {
            struct rig *r = rig_open();
            struct one *o = post(r, 4);
            bool taken = last == 1;

            if (moment > 0) {
                give(o, "ab");
            }
            if (moment > 1) {
                put_headers(r, 1, ":status: 100\n", false);
            }
            if (moment > 2) {
                put_headers(r, 1, ":status: 200\n", false);
            }
            if (moment > 3) {
                put_data(r, 1, "x", false);
            }
            put_goaway(r, last, AG_H2_NO_ERROR);
            if (moment > 4) {
                put_goaway(r, 0, AG_H2_NO_ERROR);
                taken = false;
            }
            feed(r);
            cr_expect_eq(o->faileds, !taken, "%u %u", moment, last);
            cr_expect_eq(o->call.replayable, !taken && moment < 2);
            cr_expect_eq(o->aborted, !taken && moment > 2);
            if (taken) {
                put_data(r, 1, "", true);
                if (moment <= 2) {
                    r->in.len = 0;
                    put_headers(r, 1, ":status: 200\n", true);
                }
                feed(r);
                cr_expect_eq(o->dones, 1);
            }
            rig_free(r);
        }
    }
}

Test(h2_client, the_connections_end_fails_all)
{
    for (unsigned how = 0; how < 3; how++) {
        struct rig *r = rig_open();
        struct one *a = get(r), *b = get(r);

        put_headers(r, 1, ":status: 200\n", false);
        put_data(r, 1, "part", false);
        feed(r);
        if (how == 0) {
            memwire_eof(&r->w);
        } else if (how == 1) {
            memwire_abort(&r->w.stream, AG_REASON_RESET);
        } else {
            put_frame(r, AG_H2_DATA, 0, 0, AG_SPAN("x"));
            feed(r);
            expect_goaway(r, AG_H2_PROTOCOL_ERROR);
        }
        tick(r, 0);
        tick(r, 0);
        cr_expect_eq(a->faileds, 1);
        cr_expect_eq(b->faileds, 1);
        cr_expect(a->aborted && !a->ended);
        cr_expect(a->call.received && !b->call.received);
        cr_expect(a->call.sent && !b->call.replayable);
        cr_expect_eq(a->why, how == 0   ? AG_REASON_EOF
                             : how == 1 ? AG_REASON_RESET
                                        : AG_REASON_PROTOCOL);
        rig_free(r);
    }
}

/* ---- bounds ---- */

Test(h2_client, who_takes_nothing_is_sent_no_more_than_a_window)
{
    struct rig *r = rig_open();
    struct one *slow = get(r), *fast = get(r);
    static const uint8_t full[AG_H2_FRAME_DEFAULT];
    uint64_t since;

    slow->hold = true;
    put_headers(r, 1, ":status: 200\n", false);
    put_headers(r, 3, ":status: 200\n", false);
    for (unsigned i = 0; i < 3; i++) {
        put_frame(r, AG_H2_DATA, 0, 1, ag_span(full, sizeof(full)));
    }
    put_frame(r, AG_H2_DATA, 0, 1, ag_span(full, sizeof(full) - 1));
    feed(r);
    cr_expect_eq(slow->call.ops->phase(&slow->call, &since), AG_CALL_CALLER);
    cr_expect_not(got(r, AG_H2_WINDOW_UPDATE, 1));
    for (unsigned i = 0; i < 64; i++) {
        put_frame(r, AG_H2_DATA, 0, 3, ag_span(full, sizeof(full)));
        feed(r);
    }
    cr_expect_eq(fast->taken, 64 * sizeof(full));
    slow->hold = false;
    one_take(&slow->res_body, slow);
    tick(r, 0);
    cr_expect(got(r, AG_H2_WINDOW_UPDATE, 1));
    cr_expect_eq(slow->call.ops->phase(&slow->call, &since), AG_CALL_READ);
    cr_expect_eq(since, r->m.loop.now_ms);
    rig_free(r);
}

/* Callers that take nothing, as many as fill the connection's window: others get their answers, and those that
 * get none have it held against the upstream. */
Test(h2_client, who_takes_nothing_stops_no_other)
{
    struct rig *r = rig_open();
    static const uint8_t full[AG_H2_FRAME_DEFAULT];
    struct one *last, *silent;
    uint64_t since;
    uint32_t id = 1;

    for (; id < 2 * 17; id += 2) {
        get(r)->hold = true;
        put_headers(r, id, ":status: 200\n", false);
        for (unsigned i = 0; i < 3; i++) {
            put_frame(r, AG_H2_DATA, 0, id, ag_span(full, sizeof(full)));
        }
        put_frame(r, AG_H2_DATA, 0, id, ag_span(full, sizeof(full) - 1));
        feed(r);
    }
    cr_expect_gt(r->c.conn.held, AG_H2_CONN_WINDOW);
    last = get(r);
    silent = get(r);
    cr_expect_eq(silent->call.ops->phase(&silent->call, &since), AG_CALL_FIRST_BYTE);
    put_headers(r, id, ":status: 200\n", false);
    put_data(r, id, "all of it", true);
    feed(r);
    cr_expect_eq(last->dones, 1);
    cr_expect_str_eq(last->body, "all of it");
    cr_expect_eq(r->closes, 0);
    rig_free(r);
}

/* However large windows have grown, of many streams each gets its share. */
Test(h2_client, windows_are_shared)
{
    struct rig *r = rig_open();
    static const uint8_t full[AG_H2_FRAME_DEFAULT];
    int64_t most = 0, windows = 0;
    const struct ag_h2_stream *s;

    r->c.conn.stream_target = AG_H2_STREAM_WINDOW_MAX;
    for (uint32_t id = 1; id < 2 * 100; id += 2) {
        (void)get(r);
        put_headers(r, id, ":status: 200\n", false);
        for (unsigned i = 0; i < 3; i++) {
            put_frame(r, AG_H2_DATA, 0, id, ag_span(full, sizeof(full)));
        }
        feed(r);
        s = ag_h2_conn_find(&r->c.conn, id);
        cr_assert(s);
        most = s->recv_window > most ? s->recv_window : most;
        windows += s->recv_window;
        cr_expect_geq(s->recv_window, AG_H2_WINDOW_DEFAULT / 2);
    }
    cr_expect_geq(most, AG_H2_STREAM_WINDOW_MAX / 2);
    cr_expect_leq(windows, 20 * 1024 * 1024);
    rig_free(r);
}

Test(h2_client, a_full_connection_takes_no_more_content)
{
    struct rig *r = rig_open();
    struct one *o = post(r, AG_LENGTH_UNKNOWN);
    static const uint8_t piece[16384];
    uint64_t since;

    put_u32(r, AG_H2_WINDOW_UPDATE, 0, 10u << 20);
    put_u32(r, AG_H2_WINDOW_UPDATE, 1, 10u << 20);
    feed(r);
    r->w.window = 0;
    for (unsigned i = 0; i < 40 && ag_body_room(&o->req_body); i++) {
        cr_assert_eq(ag_body_write(&o->req_body, ag_slice_static(ag_span(piece, sizeof(piece)))),
                     AG_OK);
        tick(r, 0);
    }
    cr_expect_leq(ag_stream_queued(&r->w.stream), AG_STREAM_HIGH + 2 * sizeof(piece));
    cr_expect_eq(o->call.ops->phase(&o->call, &since), AG_CALL_WRITE);
    memwire_open_window(&r->w, SIZE_MAX);
    tick(r, 0);
    tick(r, 0);
    tick(r, 0);
    cr_expect_eq(o->req_body.q.bytes, 0);
    rig_free(r);
}

/* ---- dead upstreams ---- */

Test(h2_client, a_silent_upstream_is_asked)
{
    struct rig *r = rig_open();
    struct one *o = get(r);
    struct ag_h2_frame f = {0};
    struct ag_span p = AG_SPAN("");

    tick(r, AG_H2_CLIENT_SILENCE_MS - 100);
    cr_expect_not(got(r, AG_H2_PING, 0));
    tick(r, 200);
    tick(r, 0);
    cr_assert(seek(r, AG_H2_PING, 0, &f, &p));
    put_frame(r, AG_H2_PING, AG_H2_ACK, 0, p);
    feed(r);
    tick(r, AG_H2_CLIENT_PONG_MS + 1000);
    cr_expect_eq(o->faileds, 0);
    for (unsigned i = 0; i < 10; i++) { /* it need not say so again soon */
        tick(r, AG_H2_CLIENT_SILENCE_MS);
    }
    cr_expect_not(got(r, AG_H2_PING, 0));
    tick(r, AG_H2_CLIENT_PING_AGAIN_MS);
    tick(r, 0);
    cr_assert(got(r, AG_H2_PING, 0));
    tick(r, AG_H2_CLIENT_PONG_MS + 100);
    tick(r, 0);
    cr_expect_eq(o->faileds, 1);
    cr_expect_eq(o->why, AG_REASON_TIMEOUT);
    rig_free(r);
}

/* One that sends something else instead of the answer lives, and is asked again. */
Test(h2_client, a_ping_without_an_answer_is_not_the_last)
{
    struct rig *r = rig_open();
    struct one *o = get(r);

    tick(r, AG_H2_CLIENT_SILENCE_MS + 100);
    tick(r, 0);
    cr_assert(got(r, AG_H2_PING, 0));
    tick(r, 100);
    put_headers(r, 1, ":status: 200\n", false);
    feed(r);
    for (uint64_t passed = 0; passed < 2 * AG_H2_CLIENT_PING_AGAIN_MS && o->faileds == 0;
         passed += 1000) {
        tick(r, 1000);
    }
    cr_assert(got(r, AG_H2_PING, 0));
    cr_expect_eq(o->faileds, 1);
    cr_expect_eq(o->why, AG_REASON_TIMEOUT);
    rig_free(r);
}

/* It takes a long request, and cannot answer what stands behind that. */
Test(h2_client, who_takes_content_lives)
{
    struct rig *r = rig_open();
    struct one *o = post(r, AG_LENGTH_UNKNOWN);
    static const uint8_t piece[16384];

    put_u32(r, AG_H2_WINDOW_UPDATE, 0, 100u << 20);
    put_u32(r, AG_H2_WINDOW_UPDATE, 1, 100u << 20);
    feed(r);
    r->w.window = 0;
    for (unsigned i = 0; i < 120; i++) {
        while (ag_body_room(&o->req_body)) {
            cr_assert_eq(ag_body_write(&o->req_body, ag_slice_static(ag_span(piece, 16384))),
                         AG_OK);
            tick(r, 0);
        }
        tick(r, 1000);
        memwire_open_window(&r->w, 1000);
    }
    cr_expect_eq(o->faileds, 0);
    for (unsigned i = 0; i < 2 * AG_H2_CLIENT_PONG_MS / 1000; i++) { /* now it takes nothing */
        tick(r, 1000);
    }
    tick(r, 100);
    cr_expect_eq(o->faileds, 1);
    cr_expect_eq(o->why, AG_REASON_TIMEOUT);
    rig_free(r);
}

Test(h2_client, without_calls_nobody_is_asked)
{
    struct rig *r = rig_open();
    struct one *o = get(r);

    put_headers(r, 1, ":status: 204\n", true);
    feed(r);
    cr_expect_eq(o->dones, 1);
    for (unsigned i = 0; i < 100; i++) {
        tick(r, AG_H2_CLIENT_SILENCE_MS);
    }
    cr_expect_not(got(r, AG_H2_PING, 0));
    cr_expect_eq(r->closes, 0);
    rig_free(r);
}

/* ---- tunnels ---- */

static struct one *tunnel(struct rig *r)
{
    struct one *o = one_new(r);

    o->accept = true;
    cr_assert_eq(start(o, AG_METHOD_CONNECT, AG_FRAMING_NONE, AG_LENGTH_UNKNOWN, "websocket"),
                 AG_OK);
    tick(r, 0);
    return o;
}

Test(h2_client, a_tunnel_ends_when_both_sides_have)
{
    for (unsigned first = 0; first < 2; first++) {
        struct rig *r = rig_open();
        struct one *o = tunnel(r);
        struct ag_h2_frame f = {0};
        struct ag_span p = AG_SPAN("");
        uint64_t since;

        cr_assert(seek(r, AG_H2_HEADERS, 1, &f, &p));
        cr_expect_not(f.flags & AG_H2_END_STREAM);
        give(o, "early");
        cr_expect_not(got(r, AG_H2_DATA, 1)); /* nothing before it is agreed to */
        put_headers(r, 1, ":status: 200\n", false);
        feed(r);
        cr_expect(got(r, AG_H2_DATA, 1));
        cr_expect_eq(o->call.ops->phase(&o->call, &since), AG_CALL_TUNNEL);
        put_data(r, 1, "down", first == 0);
        feed(r);
        cr_expect_str_eq(o->body, "down");
        cr_expect_eq(o->dones, 0);
        give_end(o);
        cr_expect(seek(r, AG_H2_DATA, 1, &f, &p) && f.flags & AG_H2_END_STREAM);
        if (first) {
            cr_expect_eq(o->dones, 0);
            put_data(r, 1, "", true);
            feed(r);
        }
        cr_expect_eq(o->dones, 1);
        cr_expect(o->ended);
        rig_free(r);
    }
}

Test(h2_client, a_refused_tunnel_is_an_answer)
{
    struct rig *r = rig_open();
    struct one *o = tunnel(r);

    o->accept = false;
    put_headers(r, 1, ":status: 403\n", false);
    put_data(r, 1, "no", true);
    feed(r);
    cr_expect_eq(o->dones, 1);
    cr_expect_eq(o->status, 403);
    cr_expect_str_eq(o->body, "no");
    rig_free(r);
}

Test(h2_client, a_tunnel_that_nobody_accepts_fails)
{
    struct rig *r = rig_open();
    struct one *o = tunnel(r);

    o->accept = false;
    put_headers(r, 1, ":status: 200\n", false);
    feed(r);
    cr_expect_eq(o->faileds, 1);
    expect_reset(r, 1, AG_H2_CANCEL);
    rig_free(r);
}

/* ---- the owner's end ---- */

Test(h2_client, finish_says_goodbye)
{
    struct rig *r = rig_open();

    ag_h2_client_finish(&r->c);
    tick(r, 0);
    tick(r, 0);
    expect_goaway(r, AG_H2_NO_ERROR);
    cr_expect_eq(r->closes, 1);
    cr_expect_eq(ag_h2_client_room(&r->c), 0);
    rig_free(r);
}

Test(h2_client, no_buffer_fails_cleanly)
{
    struct rig *r = rig_open();
    struct one *a = get(r), *b = one_new(r);
    struct ag_block *all[1025];
    unsigned n = 0;

    while ((all[n] = ag_loop_buf(&r->m.loop, AG_BUF_SMALL)) != NULL) {
        n++;
    }
    cr_expect_eq(start(b, AG_METHOD_GET, AG_FRAMING_NONE, 0, ""), AG_ENOMEM);
    cr_expect_eq(b->faileds, 0);
    while (n > 0) {
        ag_block_release(all[--n]);
    }
    tick(r, 0);
    put_headers(r, 1, ":status: 204\n", true);
    feed(r);
    cr_expect_eq(a->dones, 1);
    rig_free(r);
}
