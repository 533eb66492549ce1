/* Requests and answers of the server (RFC 9113 section 8), and what a route allows of a request's content. */
#include "tests/unit/h2_rig.h"

/* ---- answers ---- */

H2_TEST(h2_server, answers_at_once)
{
    ask(r, 1, "/fixed", END);
    expect_told(r, "HEADERS 1 :status=200,content-length=2\nDATA 1 \"ok\" END\n");
    ask(r, 3, "/fixed", END);
    expect_told(r, "HEADERS 3 :status=200,content-length=2\nDATA 3 \"ok\" END\n");
    cr_expect_eq(r->dones, 2);
    cr_expect_eq(r->ctx.exchanges_live, 0);
}

H2_TEST(h2_server, answers_head_without_content)
{
    request(r, 1, "HEAD", "/fixed", "", END);
    expect_told(r, "HEADERS 1 :status=200,content-length=2 END\n");
    request(r, 3, "HEAD", "/wait", "", END);
    answer(r, 1, AG_SPAN("four"));
    tick(r, 0);
    expect_told(r, "HEADERS 3 :status=200,content-length=4 END\n");
}

H2_TEST(h2_server, answers_without_content)
{
    ask(r, 1, "/wait", END);
    (void)begin_answer(&r->works[0], 204, AG_FRAMING_NONE, 0);
    end_answer(&r->works[0]);
    tick(r, 0);
    expect_told(r, "HEADERS 1 :status=204 END\n");
    ask(r, 3, "/wait", END);
    answer(r, 1, AG_SPAN(""));
    tick(r, 0);
    expect_told(r, "HEADERS 3 :status=200,content-length=0 END\n");
}

H2_TEST(h2_server, echoes_content)
{
    ask(r, 1, "/echo", OPEN);
    data(r, 1, "hello ", 0);
    data(r, 1, "world", END);
    expect_told(r, "HEADERS 1 :status=200,content-length=11\nDATA 1 \"hello world\" END\n");
    cr_expect(!r->works[0].aborted);
}

H2_TEST(h2_server, echoes_what_ends_with_an_empty_frame)
{
    ask(r, 1, "/echo", OPEN);
    data(r, 1, "hello", 0);
    data(r, 1, "", END);
    expect_told(r, "HEADERS 1 :status=200,content-length=5\nDATA 1 \"hello\" END\n");
}

H2_TEST(h2_server, streams_as_content_comes)
{
    ask(r, 1, "/open", END);
    expect_told(r, "HEADERS 1 :status=200\n");
    write_answer(&r->works[0], ag_slice_static(AG_SPAN("one")));
    tick(r, 0);
    expect_told(r, "DATA 1 \"one\"\n");
    write_answer(&r->works[0], ag_slice_static(AG_SPAN("two")));
    write_answer(&r->works[0], ag_slice_static(AG_SPAN("three")));
    end_answer(&r->works[0]);
    tick(r, 0);
    expect_told(r, "DATA 1 \"two\"\nDATA 1 \"three\" END\n");
}

H2_TEST(h2_server, ends_with_an_empty_frame_when_it_must)
{
    ask(r, 1, "/open", END);
    end_answer(&r->works[0]);
    tick(r, 0);
    expect_told(r, "HEADERS 1 :status=200\nDATA 1 \"\" END\n");
}

H2_TEST(h2_server, many_answers_leave_in_one_flush)
{
    unsigned flushes = r->w.flushes;

    for (uint32_t id = 1; id < 65; id += 2) {
        say_part(r, AG_H2_HEADERS, END | WHOLE, id, section(head_of("GET", "/fixed", "")));
    }
    tick(r, 0);
    cr_expect_eq(times(told(r), "\"ok\" END"), 32);
    if (!r->bytewise) {
        cr_expect_eq(r->w.flushes, flushes + 1);
        cr_expect_leq(r->m.loop.pages.used,
                      4); /* the decoder's table; each exchange was gone at once */
    }
}

H2_TEST(h2_server, answers_in_any_order)
{
    ask(r, 1, "/wait", END);
    ask(r, 3, "/wait", END);
    ask(r, 5, "/fixed", END);
    expect_told(r, "HEADERS 5 :status=200,content-length=2\nDATA 5 \"ok\" END\n");
    answer(r, 1, AG_SPAN("b"));
    tick(r, 0);
    expect_told(r, "HEADERS 3 :status=200,content-length=1\nDATA 3 \"b\" END\n");
    answer(r, 0, AG_SPAN("a"));
    tick(r, 0);
    expect_told(r, "HEADERS 1 :status=200,content-length=1\nDATA 1 \"a\" END\n");
}

H2_TEST(h2_server, trailers_of_answers)
{
    struct ag_field field = {.name = (const uint8_t *)"Grpc-Status",
                             .name_len = 11,
                             .value = (const uint8_t *)"0",
                             .value_len = 1};
    struct ag_fields trailers = {&field, 1, 1};

    ask(r, 1, "/open", END);
    write_answer(&r->works[0], ag_slice_static(AG_SPAN("x")));
    ag_body_end(&r->works[0].ex->res_body, &trailers);
    let_go(&r->works[0]);
    tick(r, 0);
    expect_told(r, "HEADERS 1 :status=200\nDATA 1 \"x\"\nHEADERS 1 grpc-status=0 END\n");
}

H2_TEST(h2_server, interim_answers)
{
    struct ag_field field = {.name = (const uint8_t *)"Link",
                             .name_len = 4,
                             .value = (const uint8_t *)"</a>",
                             .value_len = 4};
    struct ag_fields fields = {&field, 1, 1};

    ask(r, 1, "/wait", END);
    r->works[0].ex->server->send_interim(r->works[0].ex, 103, &fields);
    tick(r, 0);
    expect_told(r, "HEADERS 1 :status=103,link=</a>\n");
    answer(r, 0, AG_SPAN("x"));
    tick(r, 0);
    expect_told(r, "HEADERS 1 :status=200,content-length=1\nDATA 1 \"x\" END\n");
}

H2_TEST(h2_server, expectations)
{
    request(r, 1, "POST", "/echo", "expect: 100-continue\n", OPEN);
    expect_told(r, "HEADERS 1 :status=100\n");
    data(r, 1, "x", END);
    expect_told(r, "HEADERS 1 :status=200,content-length=1\nDATA 1 \"x\" END\n");
    request(r, 3, "POST", "/wait", "expect: 100-continue\n", OPEN);
    expect_told(r, "");
    answer(r, 1, AG_SPAN("no"));
    tick(r, 0);
    expect_told(
        r, "HEADERS 3 :status=200,content-length=2\nDATA 3 \"no\" END\nRST_STREAM 3 NO_ERROR\n");
    request(r, 5, "POST", "/wait", "expect: something\n", OPEN); /* it does not wait for 100 */
    expect_begins(r, "HEADERS 5 :status=417");
    cr_expect(!strstr(r->text, "RST_STREAM"), "%s", r->text);
    data(r, 5, "x", END);
    expect_told(r, "");
}

H2_TEST(h2_server, a_head_larger_than_a_small_buffer)
{
    static char value[30000];
    struct work *w;

    memset(value, 'v', sizeof(value));
    ask(r, 1, "/wait", END);
    w = &r->works[0];
    cr_assert(ag_fields_add(&w->ex->res.fields, &w->ex->arena, AG_FIELD_OTHER, AG_SPAN("x"),
                            ag_span(value, sizeof(value))) == AG_OK);
    answer(r, 0, AG_SPAN("x"));
    tick(r, 0);
    expect_told(r, "HEADERS 1\nCONTINUATION 1 :status=200,x=[30000],content-length=1\n"
                   "DATA 1 \"x\" END\n");
}

H2_TEST(h2_server, a_head_larger_than_any_buffer)
{
    static char value[70000];
    struct work *w;

    memset(value, 'v', sizeof(value));
    ask(r, 1, "/wait", END);
    w = &r->works[0];
    cr_assert(ag_fields_add(&w->ex->res.fields, &w->ex->arena, AG_FIELD_OTHER, AG_SPAN("x"),
                            ag_span(value, sizeof(value))) == AG_OK);
    (void)begin_answer(w, 200, AG_FRAMING_NONE, 0);
    tick(r, 0);
    expect_told(r, "RST_STREAM 1 INTERNAL_ERROR\n");
    expect_alive(r);
}

/* ---- answers that break off ---- */

H2_TEST(h2_server, an_answer_that_is_aborted)
{
    ask(r, 1, "/open", END);
    write_answer(&r->works[0], ag_slice_static(AG_SPAN("half")));
    ag_body_abort(&r->works[0].ex->res_body, AG_REASON_EOF);
    tick(r, 0);
    expect_told(r, "HEADERS 1 :status=200\nDATA 1 \"half\"\nRST_STREAM 1 INTERNAL_ERROR\n");
    expect_alive(r);
}

H2_TEST(h2_server, an_answer_shorter_than_told)
{
    ask(r, 1, "/wait", END);
    (void)begin_answer(&r->works[0], 200, AG_FRAMING_LENGTH, 10);
    write_answer(&r->works[0], ag_slice_static(AG_SPAN("half")));
    end_answer(&r->works[0]);
    tick(r, 0);
    expect_told(
        r,
        "HEADERS 1 :status=200,content-length=10\nDATA 1 \"half\"\nRST_STREAM 1 INTERNAL_ERROR\n");
}

H2_TEST(h2_server, an_answer_longer_than_told)
{
    ask(r, 1, "/wait", END);
    (void)begin_answer(&r->works[0], 200, AG_FRAMING_LENGTH, 3);
    write_answer(&r->works[0], ag_slice_static(AG_SPAN("much")));
    tick(r, 0);
    expect_told(r, "HEADERS 1 :status=200,content-length=3\nRST_STREAM 1 INTERNAL_ERROR\n");
    cr_expect(r->works[0].aborted);
}

H2_TEST(h2_server, reasons_of_resets)
{
    static const struct {
        enum ag_reason why;
        const char *text;
    } cases[] = {{AG_REASON_TIMEOUT, "RST_STREAM 1 CANCEL\n"},
                 {AG_REASON_ABORTED, "RST_STREAM 1 CANCEL\n"},
                 {AG_REASON_RESET, "RST_STREAM 1 INTERNAL_ERROR\n"},
                 {AG_REASON_PROTOCOL, "RST_STREAM 1 INTERNAL_ERROR\n"}};

    for (size_t i = 0; i < AG_COUNT(cases); i++) {
        struct rig *own = rig_new_raw(r->bytewise);

        rig_greet(own);
        ask(own, 1, "/open", END);
        (void)told(own);
        ag_exchange_fail(own->works[0].ex, 502, cases[i].why, "broke off");
        tick(own, 0);
        expect_told(own, cases[i].text);
        cr_expect_eq(own->works[0].why, cases[i].why);
        expect_alive(own);
        rig_free(own);
    }
}

H2_TEST(h2_server, a_client_that_resets)
{
    ask(r, 1, "/open", END);
    (void)told(r);
    say_u32(r, AG_H2_RST_STREAM, 1, AG_H2_CANCEL);
    cr_expect_eq(r->works[0].why, AG_REASON_RESET);
    expect_told(r, "");
    cr_expect_eq(r->dones, 1);
    expect_alive(r);
}

/* ---- requests that are malformed (section 8.1.1) ---- */

H2_TEST(h2_server, malformed_requests_reach_nobody)
{
    static const char *const bad[] = {
        ":method: GET\n:scheme: http\n:path: /fixed\n:authority: a\nUpper: x\n",
        ":method: GET\n:scheme: http\n:path: /fixed\n:authority: a\nconnection: close\n",
        ":method: GET\n:scheme: http\n:path: /fixed\n:authority: a\nte: gzip\n",
        ":method: GET\n:method: GET\n:scheme: http\n:path: /fixed\n:authority: a\n",
        ":method: GET\n:scheme: http\n:authority: a\n",
        ":method: GET\n:path: /fixed\n:authority: a\n",
        ":scheme: http\n:path: /fixed\n:authority: a\n",
        ":method: GET\n:scheme: http\n:path: /fixed\n:authority: a\nx: y\n:late: z\n",
        ":method: GET\n:scheme: http\n:path: /fixed\n:authority: a\nhost: b\n",
        ":status: 200\n:method: GET\n:scheme: http\n:path: /fixed\n:authority: a\n",
    };
    uint32_t id = 1;

    for (size_t i = 0; i < AG_COUNT(bad); i++, id += 2) {
        char want[64];

        say(r, AG_H2_HEADERS, END | WHOLE, id, section(bad[i]));
        (void)snprintf(want, sizeof(want), "RST_STREAM %u PROTOCOL_ERROR\n", id);
        expect_told(r, want);
    }
    cr_expect_eq(r->starts, 0);
    cr_expect_eq(r->h.slots, 0);
    expect_alive(r);
}

/* A field section that is larger than allowed. */
static const char *too_much(void)
{
    static char more[3600];

    more[0] = '\0';
    for (int i = 0; i < 30; i++) {
        strcat(more,
               "x: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
               "aaaaaaaaaaaaaaaaaaaaaaa\n");
    }
    return more;
}

H2_TEST(h2_server, a_section_too_large)
{
    request(r, 1, "GET", "/fixed", too_much(), END);
    cr_expect(!strncmp(told(r), "HEADERS 1 :status=431", 21), "%s", r->text);
    cr_expect_eq(r->starts, 0);
    expect_alive(r);
}

/* The content of such a request is read and dropped as that of others. */
H2_TEST(h2_server, a_section_too_large_with_content)
{
    request(r, 1, "POST", "/fixed", too_much(), OPEN);
    expect_begins(r, "HEADERS 1 :status=431");
    cr_expect(strstr(r->text, " END\n"));
    data(r, 1, "hello", OPEN);
    data(r, 1, "", END);
    expect_told(r, "");
    expect_alive(r);
}

H2_TEST(h2_server, a_section_that_nobody_reads_to_its_end)
{
    static uint8_t much[AG_H2_FRAME_DEFAULT];

    say(r, AG_H2_HEADERS, END, 1, ag_span(much, sizeof(much)));
    for (size_t n = 2 * sizeof(much); n <= AG_H2_SECTION_MAX; n += sizeof(much)) {
        say(r, AG_H2_CONTINUATION, 0, 1, ag_span(much, sizeof(much)));
    }
    tick(r, 0);
    expect_told(r, "");
    say(r, AG_H2_CONTINUATION, 0, 1, ag_span(much, sizeof(much)));
    tick(r, 0);
    expect_told(r, "GOAWAY 0 ENHANCE_YOUR_CALM a field section too large\n");
}

H2_TEST(h2_server, an_https_target_without_tls)
{
    say(r, AG_H2_HEADERS, END | WHOLE, 1,
        section(":method: GET\n:scheme: https\n:path: /fixed\n:authority: a\n"));
    expect_begins(r, "HEADERS 1 :status=421");
    cr_expect_eq(r->starts, 0);
}

/* ---- content-length (section 8.1.1) ---- */

H2_TEST(h2_server, more_content_than_told)
{
    request(r, 1, "POST", "/echo", "content-length: 3\n", OPEN);
    data(r, 1, "four", END);
    expect_told(r, "RST_STREAM 1 PROTOCOL_ERROR\n");
    cr_expect_eq(r->works[0].why, AG_REASON_PROTOCOL);
    expect_alive(r);
}

H2_TEST(h2_server, less_content_than_told)
{
    request(r, 1, "POST", "/echo", "content-length: 5\n", OPEN);
    data(r, 1, "four", END);
    expect_told(r, "RST_STREAM 1 PROTOCOL_ERROR\n");
    request(r, 3, "POST", "/echo", "content-length: 5\n", END);
    expect_told(r, "RST_STREAM 3 PROTOCOL_ERROR\n");
    cr_expect_eq(r->starts, 1);
    request(r, 5, "POST", "/echo", "content-length: 5\n", OPEN);
    say(r, AG_H2_HEADERS, END | WHOLE, 5, section("x: y\n"));
    expect_told(r, "RST_STREAM 5 PROTOCOL_ERROR\n");
    expect_alive(r);
}

H2_TEST(h2_server, as_much_content_as_told)
{
    request(r, 1, "POST", "/echo", "content-length: 4\n", OPEN);
    data(r, 1, "fo", 0);
    data(r, 1, "ur", END);
    expect_told(r, "HEADERS 1 :status=200,content-length=4\nDATA 1 \"four\" END\n");
}

/* ---- trailers ---- */

H2_TEST(h2_server, trailers_of_requests)
{
    ask(r, 1, "/echo", OPEN);
    data(r, 1, "x", 0);
    say(r, AG_H2_HEADERS, END | WHOLE, 1, section("x-sum: 7\n"));
    expect_told(r, "HEADERS 1 :status=200,content-length=1\nDATA 1 \"x\" END\n");
    cr_assert(r->works[0].trailers);
}

H2_TEST(h2_server, trailers_that_do_not_end)
{
    ask(r, 1, "/echo", OPEN);
    say(r, AG_H2_HEADERS, WHOLE, 1, section("x-sum: 7\n"));
    expect_told(r, "RST_STREAM 1 PROTOCOL_ERROR\n");
    expect_alive(r);
}

H2_TEST(h2_server, trailers_with_pseudo_fields)
{
    ask(r, 1, "/echo", OPEN);
    say(r, AG_H2_HEADERS, END | WHOLE, 1, section(":path: /x\n"));
    expect_told(r, "RST_STREAM 1 PROTOCOL_ERROR\n");
    expect_alive(r);
}

/* ---- limits of content ---- */

H2_TEST(h2_limits, content_too_large)
{
    r->limits.route.max_body_bytes = 10;
    ask(r, 1, "/echo", OPEN);
    data(r, 1, "0123456789", 0);
    expect_told(r, "");
    data(r, 1, "x", 0);
    cr_expect(!strncmp(told(r), "HEADERS 1 :status=413", 21));
    cr_expect(strstr(r->text, "RST_STREAM 1 NO_ERROR\n"));
    cr_expect(r->works[0].aborted);
    expect_alive(r);
}

H2_TEST(h2_limits, streams_have_no_bound_of_size)
{
    r->limits.route.max_body_bytes = 10;
    ask(r, 1, "/wait", OPEN);
    r->works[0].ex->streams = true;
    read_content(&r->works[0]);
    data(r, 1, "0123456789x", END);
    expect_told(r, "HEADERS 1 :status=200,content-length=11\nDATA 1 \"0123456789x\" END\n");
}

H2_TEST(h2_limits, the_bound_ends_with_the_head_of_the_answer)
{
    r->limits.route.max_body_bytes = 10;
    ask(r, 1, "/open", OPEN);
    (void)told(r);
    data(r, 1, "0123456789x", 0);
    expect_told(r, "");
    cr_expect(!r->works[0].aborted);
}

H2_TEST(h2_limits, content_too_slow)
{
    ask(r, 1, "/echo", OPEN);
    data(r, 1, "x", 0);
    tick(r, 4000);
    expect_told(r, "");
    tick(r, 1000 + LATE_MS + 8);
    cr_expect(!strncmp(told(r), "HEADERS 1 :status=408", 21), "%s", r->text);
    cr_expect(strstr(r->text, "RST_STREAM 1 NO_ERROR\n"));
    expect_alive(r);
}

H2_TEST(h2_limits, content_that_keeps_the_rate)
{
    ask(r, 1, "/echo", OPEN);
    for (int i = 0; i < 60; i++) {
        data_bytes(r, 1, 250, 0);
        tick(r, 1000);
    }
    expect_begins(r, "");
    cr_expect(!r->works[0].aborted);
    data(r, 1, "", END);
    cr_expect(strstr(told(r), "HEADERS 1 :status=200"));
}

static void may_not_send(struct rig *r, uint32_t grace_ms)
{
    r->hold = true;
    ask(r, 1, "/echo", OPEN);
    for (int i = 0; i < 3; i++) {
        data_bytes(r, 1, 16384, 0);
    }
    data_bytes(r, 1, 16383, 0);
    r->limits.route.body_grace_ms = grace_ms;
    for (int i = 0; i < 100; i++) {
        tick(r, 1000);
    }
    cr_expect(!r->works[0].aborted);
    r->works[0].hold = false;
    on_content(&r->works[0].ex->req_body, &r->works[0]);
    tick(r, 0);
    cr_expect(strstr(told(r), "WINDOW_UPDATE 1 65535"));
    data(r, 1, "", END);
    cr_expect(strstr(told(r), "HEADERS 1 :status=200"));
}

H2_TEST(h2_limits, a_client_that_may_not_send_is_not_late)
{
    may_not_send(r, r->limits.route.body_grace_ms);
}

H2_TEST(h2_limits, nor_is_it_where_there_is_no_grace)
{
    may_not_send(r, 0);
}

H2_TEST(h2_limits, who_waits_for_100_waits_for_its_answer)
{
    request(r, 1, "POST", "/wait", "expect: 100-continue\n", OPEN);
    tick(r, 3600000);
    expect_told(r, "");
    cr_expect(!r->works[0].aborted);
    data(r, 1, "a", 0); /* it waits no longer: a grace begins */
    tick(r, 4000);
    expect_told(r, "");
    tick(r, 1000 + LATE_MS + 8);
    cr_expect(!strncmp(told(r), "HEADERS 1 :status=408", 21), "%s", r->text);
}

H2_TEST(h2_limits, who_was_told_to_go_on_has_to)
{
    request(r, 1, "POST", "/echo", "expect: 100-continue\n", OPEN);
    expect_told(r, "HEADERS 1 :status=100\n");
    tick(r, 4000);
    expect_told(r, "");
    tick(r, 1000 + LATE_MS + 8);
    cr_expect(!strncmp(told(r), "HEADERS 1 :status=408", 21), "%s", r->text);
}

H2_TEST(h2_limits, silence_behind_the_head_of_the_answer)
{
    ask(r, 1, "/open", OPEN);
    (void)told(r);
    for (int i = 0; i < 5; i++) {
        tick(r, 60000);
        data(r, 1, "x", 0);
    }
    cr_expect(!r->works[0].aborted);
    tick(r, 75000 + LATE_MS);
    expect_told(r, "RST_STREAM 1 CANCEL\n");
    cr_expect_eq(r->works[0].why, AG_REASON_TIMEOUT);
}

H2_TEST(h2_limits, a_filter_that_waits)
{
    ask(r, 1, "/filter", OPEN);
    data(r, 1, "hello", END);
    tick(r, 20000);
    expect_told(r, "");
    resume(&r->works[0]);
    tick(r, 0);
    expect_told(r, "HEADERS 1 :status=200,content-length=5\nDATA 1 \"hello\" END\n");
}

/* ---- the client's end ---- */

H2_TEST(h2_server, a_client_that_shuts_its_side_gets_its_answers)
{
    ask(r, 1, "/wait", END);
    ask(r, 3, "/echo", OPEN);
    memwire_eof(&r->w);
    tick(r, 0);
    cr_expect(r->works[1].aborted && !r->works[0].aborted);
    answer(r, 0, AG_SPAN("x"));
    tick(r, 0);
    tick(r, 0);
    cr_expect(strstr(told(r), "DATA 1 \"x\" END\nGOAWAY 3 NO_ERROR\n"), "%s", r->text);
    cr_expect(ended(r));
}

H2_TEST(h2_server, a_client_that_is_gone)
{
    ask(r, 1, "/wait", END);
    ask(r, 3, "/open", OPEN);
    memwire_abort(&r->w.stream, AG_REASON_RESET);
    tick(r, 0);
    cr_expect_eq(r->aborts, 2);
    cr_expect_eq(r->dones, 2);
    cr_expect_eq(r->works[0].why, AG_REASON_RESET);
}

/* Whoever works on it may outlive the connection. */
H2_TEST(h2_server, work_outlives_the_connection)
{
    r->linger = true;
    ask(r, 1, "/wait", END);
    memwire_abort(&r->w.stream, AG_REASON_RESET);
    tick(r, 0);
    cr_expect_eq(r->closes, 1);
    cr_expect_eq(r->ctx.exchanges_live, 1);
}

Test(h2_server, the_peers_address)
{
    union ag_addr addr = {.in = {.sin_family = AF_INET, .sin_port = 7}};
    struct rig *r = rig_new_raw(false);
    const union ag_addr *got;

    r->w.peer = &addr;
    rig_greet(r);
    ask(r, 1, "/wait", END);
    got = ag_exchange_remote(r->works[0].ex);
    cr_assert(got);
    cr_expect_eq(got->in.sin_port, 7);
    cr_expect_eq(r->works[0].ex->listener_port, 80);
    cr_expect_eq(r->works[0].ex->req.version, AG_HTTP_2);
    rig_free(r);
}
