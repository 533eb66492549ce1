/* What a client must not send (RFC 9113, section by section), and what it may. */
#include "tests/unit/h2_rig.h"

/* The connection ends with this code, behind what came before; nothing else is said. */
static void expect_fails(struct rig *r, const char *code)
{
    char text[64];
    const char *at;

    tick(r, 0);
    at = strstr(told(r), "GOAWAY");
    (void)snprintf(text, sizeof(text), " %s", code);
    cr_assert(at, "no GOAWAY");
    cr_expect(strstr(at, text), "%s is not %s", at, code);
    cr_expect(ended(r));
}

/* ---- section 3.4: the preface ---- */

Test(h2_preface, comes_in_any_split)
{
    for (size_t cut = 1; cut < AG_H2_MAGIC.len; cut++) {
        struct rig *r = rig_new_raw(false);

        feed(r, ag_span_sub(AG_H2_MAGIC, 0, cut));
        tick(r, 0);
        feed(r, ag_span_sub(AG_H2_MAGIC, cut, AG_H2_MAGIC.len));
        say(r, AG_H2_SETTINGS, 0, 0, AG_SPAN(""));
        expect_alive(r);
        rig_free(r);
    }
}

Test(h2_preface, anything_else_is_an_error)
{
    static const char *const bad[] = {"GET / HTTP/1.1\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\r",
                                      "PRI * HTTP/1.1\r\n", "\x16\x03\x01"};

    for (size_t i = 0; i < AG_COUNT(bad); i++) {
        struct rig *r = rig_new_raw(i % 2);

        feed(r, ag_span_str(bad[i]));
        expect_fails(r, "PROTOCOL_ERROR");
        rig_free(r);
    }
}

Test(h2_preface, settings_come_first)
{
    for (unsigned i = 0; i < 4; i++) {
        struct rig *r = rig_new_raw(false);

        feed(r, AG_H2_MAGIC);
        if (i == 0) {
            say(r, AG_H2_PING, 0, 0, AG_SPAN("12345678"));
        } else if (i == 1) {
            say(r, AG_H2_SETTINGS, AG_H2_ACK, 0, AG_SPAN(""));
        } else if (i == 2) {
            ask(r, 1, "/fixed", END);
        } else {
            say(r, 77, 0, 0, AG_SPAN(""));
        }
        expect_fails(r, "PROTOCOL_ERROR");
        cr_expect_eq(r->starts, 0);
        rig_free(r);
    }
}

/* ---- section 4: frames ---- */

H2_TEST(h2_frames, a_frame_of_the_largest_size)
{
    ask(r, 1, "/echo", OPEN);
    data_bytes(r, 1, AG_H2_FRAME_DEFAULT, END);
    cr_expect(strstr(told(r), "HEADERS 1 :status=200"));
    cr_expect_eq(r->works[0].total, AG_H2_FRAME_DEFAULT);
}

H2_TEST(h2_frames, a_larger_one)
{
    static uint8_t much[AG_H2_FRAME_DEFAULT + 1];

    ask(r, 1, "/echo", OPEN);
    say(r, AG_H2_DATA, 0, 1, ag_span(much, sizeof(much)));
    expect_fails(r, "FRAME_SIZE_ERROR");
    cr_expect_eq(r->aborts, 1);
}

H2_TEST(h2_frames, a_larger_one_of_a_kind_not_known)
{
    static uint8_t much[AG_H2_FRAME_DEFAULT + 1];

    say(r, 77, 0, 0, ag_span(much, sizeof(much)));
    expect_fails(r, "FRAME_SIZE_ERROR");
}

H2_TEST(h2_frames, kinds_not_known_are_passed_over)
{
    static uint8_t much[AG_H2_FRAME_DEFAULT];

    say(r, 77, 0xff, 0, AG_SPAN("something"));
    say(r, 78, 0xff, 5, AG_SPAN(""));
    say(r, 79, 0xff, 5, ag_span(much, sizeof(much)));
    expect_told(r, "");
    expect_alive(r);
}

H2_TEST(h2_frames, flags_and_the_reserved_bit_mean_nothing)
{
    say(r, AG_H2_PING, 0xfe, 0x80000000u, AG_SPAN("12345678"));
    cr_expect(strstr(told(r), "PING 123456756 ACK"));
    request(r, 0x80000001u, "GET", "/fixed", "", END | 0xc2);
    cr_expect(strstr(told(r), "DATA 1 \"ok\" END"));
}

/* ---- section 4.3, 6.2, 6.10: sections ---- */

static void cut_request(struct rig *r, uint32_t id, size_t cut, size_t cut2)
{
    struct ag_span s = section(head_of("GET", "/fixed", "x: y\n"));

    say_part(r, AG_H2_HEADERS, END, id, ag_span_sub(s, 0, cut));
    say_part(r, AG_H2_CONTINUATION, 0, id, ag_span_sub(s, cut, cut2));
    say(r, AG_H2_CONTINUATION, WHOLE, id, ag_span_sub(s, cut2, s.len));
}

H2_TEST(h2_frames, continuations)
{
    size_t len = section(head_of("GET", "/fixed", "x: y\n")).len;
    uint32_t id = 1;

    for (size_t cut = 0; cut <= len; cut += 7) {
        cut_request(r, id, cut, len - (len - cut) / 2);
        cr_expect(strstr(told(r), "\"ok\" END"), "%zu", cut);
        id += 2;
    }
}

H2_TEST(h2_frames, padding_and_priority_of_headers)
{
    uint8_t room[300] = {5, 0, 0, 0, 0, 200};
    struct ag_span s = section(head_of("GET", "/fixed", ""));

    memcpy(room + 6, s.ptr, s.len);
    say(r, AG_H2_HEADERS, END | WHOLE | AG_H2_PADDED | AG_H2_PRIORITISED, 1,
        ag_span(room, 6 + s.len + 5));
    cr_expect(strstr(told(r), "DATA 1 \"ok\" END"));
}

H2_TEST(h2_frames, padding_with_continuations)
{
    uint8_t room[300] = {5, 0, 0, 0, 0, 200};
    struct ag_span s = section(head_of("GET", "/fixed", ""));

    memcpy(room + 6, s.ptr, 10);
    say(r, AG_H2_HEADERS, END | AG_H2_PADDED | AG_H2_PRIORITISED, 1, ag_span(room, 6 + 10 + 5));
    say(r, AG_H2_CONTINUATION, WHOLE, 1, ag_span_sub(s, 10, s.len));
    cr_expect(strstr(told(r), "DATA 1 \"ok\" END"));
}

H2_TEST(h2_frames, more_padding_than_headers)
{
    say(r, AG_H2_HEADERS, END | WHOLE | AG_H2_PADDED, 1, AG_SPAN("\x03\x82\x84"));
    expect_fails(r, "PROTOCOL_ERROR");
}

H2_TEST(h2_frames, headers_too_short_for_their_flags)
{
    say(r, AG_H2_HEADERS, END | WHOLE | AG_H2_PADDED | AG_H2_PRIORITISED, 1, AG_SPAN("\x00\x82"));
    expect_fails(r, "FRAME_SIZE_ERROR");
}

H2_TEST(h2_frames, another_frame_within_a_section)
{
    say_part(r, AG_H2_HEADERS, END, 1, ag_span_sub(section(head_of("GET", "/fixed", "")), 0, 9));
    say(r, AG_H2_PING, 0, 0, AG_SPAN("12345678"));
    expect_fails(r, "PROTOCOL_ERROR");
}

H2_TEST(h2_frames, an_unknown_frame_within_a_section)
{
    say_part(r, AG_H2_HEADERS, END, 1, ag_span_sub(section(head_of("GET", "/fixed", "")), 0, 9));
    say(r, 77, 0, 0, AG_SPAN(""));
    expect_fails(r, "PROTOCOL_ERROR");
}

H2_TEST(h2_frames, headers_of_another_stream_within_a_section)
{
    say_part(r, AG_H2_HEADERS, END, 1, ag_span_sub(section(head_of("GET", "/fixed", "")), 0, 9));
    ask(r, 3, "/fixed", END);
    expect_fails(r, "PROTOCOL_ERROR");
}

H2_TEST(h2_frames, continuation_of_another_stream)
{
    say_part(r, AG_H2_HEADERS, END, 1, ag_span_sub(section(head_of("GET", "/fixed", "")), 0, 9));
    say(r, AG_H2_CONTINUATION, WHOLE, 3, AG_SPAN(""));
    expect_fails(r, "PROTOCOL_ERROR");
}

H2_TEST(h2_frames, continuation_of_nothing)
{
    ask(r, 1, "/wait", END);
    say(r, AG_H2_CONTINUATION, WHOLE, 1, AG_SPAN(""));
    expect_fails(r, "PROTOCOL_ERROR");
    cr_expect_eq(r->aborts, 1);
}

H2_TEST(h2_frames, a_section_that_cannot_be_decoded)
{
    say(r, AG_H2_HEADERS, END | WHOLE, 1, AG_SPAN("\xff\xff\xff\xff\xff\x7f"));
    expect_fails(r, "COMPRESSION_ERROR");
    cr_expect_eq(r->starts, 0);
}

/* ---- section 5.1: states ---- */

H2_TEST(h2_states, frames_of_an_idle_stream)
{
    static const uint8_t kinds[] = {AG_H2_DATA, AG_H2_RST_STREAM, AG_H2_WINDOW_UPDATE};

    (void)r;
    for (size_t i = 0; i < AG_COUNT(kinds); i++) {
        struct rig *own = rig_new_raw(false);

        rig_greet(own);
        say_u32(own, kinds[i], 3, 1);
        expect_fails(own, "PROTOCOL_ERROR");
        rig_free(own);
    }
}

H2_TEST(h2_states, priority_of_an_idle_stream_is_nothing)
{
    say(r, AG_H2_PRIORITY, 0, 7, AG_SPAN("\0\0\0\1\x10"));
    expect_told(r, "");
    expect_alive(r);
}

H2_TEST(h2_states, ids_must_rise)
{
    ask(r, 5, "/fixed", END);
    (void)told(r);
    ask(r, 3, "/fixed", END);
    expect_fails(r, "PROTOCOL_ERROR");
    cr_expect_eq(r->starts, 1);
}

H2_TEST(h2_states, ids_of_clients_are_odd)
{
    ask(r, 2, "/fixed", END);
    expect_fails(r, "PROTOCOL_ERROR");
}

H2_TEST(h2_states, headers_of_no_stream)
{
    ask(r, 0, "/fixed", END);
    expect_fails(r, "PROTOCOL_ERROR");
}

H2_TEST(h2_states, data_of_no_stream)
{
    data(r, 0, "x", 0);
    expect_fails(r, "PROTOCOL_ERROR");
}

H2_TEST(h2_states, content_behind_the_end)
{
    ask(r, 1, "/wait", END);
    data(r, 1, "x", 0);
    expect_told(r, "RST_STREAM 1 STREAM_CLOSED\n");
    cr_expect_eq(r->aborts, 1);
    expect_alive(r);
}

H2_TEST(h2_states, fields_behind_the_end)
{
    ask(r, 1, "/wait", END);
    say(r, AG_H2_HEADERS, END | WHOLE, 1, section("x: y\n"));
    expect_told(r, "RST_STREAM 1 STREAM_CLOSED\n");
    expect_alive(r);
}

H2_TEST(h2_states, content_of_a_stream_that_is_over)
{
    ask(r, 1, "/fixed", END);
    (void)told(r);
    data(r, 1, "x", END);
    expect_fails(r, "STREAM_CLOSED");
}

H2_TEST(h2_states, fields_of_a_stream_that_is_over)
{
    ask(r, 1, "/fixed", END);
    (void)told(r);
    say(r, AG_H2_HEADERS, END | WHOLE, 1, section("x: y\n"));
    expect_fails(r, "STREAM_CLOSED");
}

H2_TEST(h2_states, content_of_a_stream_that_the_client_reset)
{
    ask(r, 1, "/echo", OPEN);
    say_u32(r, AG_H2_RST_STREAM, 1, AG_H2_CANCEL);
    expect_told(r, "");
    cr_expect_eq(r->aborts, 1);
    data(r, 1, "x", 0);
    expect_told(r, "RST_STREAM 1 STREAM_CLOSED\n");
    data(r, 1, "once is enough", END);
    expect_told(r, "");
    expect_alive(r);
}

H2_TEST(h2_states, fields_of_a_stream_that_the_client_reset)
{
    ask(r, 1, "/echo", OPEN);
    say_u32(r, AG_H2_RST_STREAM, 1, AG_H2_CANCEL);
    say(r, AG_H2_HEADERS, END | WHOLE, 1, section("x: y\n"));
    expect_told(r, "RST_STREAM 1 STREAM_CLOSED\n");
    expect_alive(r);
}

H2_TEST(h2_states, what_comes_for_a_stream_that_we_reset)
{
    request(r, 1, "POST", "/wait", "content-length: 100000\n", OPEN);
    answer(r, 0, AG_SPAN("early"));
    tick(r, 0);
    cr_expect(strstr(told(r), "DATA 1 \"early\" END\nRST_STREAM 1 NO_ERROR\n"));
    data(r, 1, "it did not know", 0);
    say(r, AG_H2_HEADERS, END | WHOLE, 1, section("x: y\n"));
    say_u32(r, AG_H2_WINDOW_UPDATE, 1, 100);
    say_u32(r, AG_H2_RST_STREAM, 1, AG_H2_CANCEL);
    expect_told(r, "");
    expect_alive(r);
}

H2_TEST(h2_states, window_updates_and_resets_of_a_stream_that_is_over)
{
    ask(r, 1, "/fixed", END);
    (void)told(r);
    say_u32(r, AG_H2_WINDOW_UPDATE, 1, 100);
    say_u32(r, AG_H2_RST_STREAM, 1, AG_H2_CANCEL);
    say(r, AG_H2_PRIORITY, 0, 1, AG_SPAN("\0\0\0\3\x10"));
    expect_told(r, "");
    expect_alive(r);
}

H2_TEST(h2_states, more_streams_than_allowed_are_refused)
{
    for (uint32_t i = 0; i < 130; i++) {
        ask(r, 1 + 2 * i, "/wait", END);
    }
    expect_told(r, "RST_STREAM 257 REFUSED_STREAM\nRST_STREAM 259 REFUSED_STREAM\n");
    cr_expect_eq(r->starts, 128);
    answer(r, 0, AG_SPAN("x"));
    tick(r, 0);
    ask(r, 261, "/fixed", END);
    cr_expect(strstr(told(r), "DATA 261 \"ok\" END"));
}

/* ---- section 5.3.1 of RFC 7540 ---- */

H2_TEST(h2_states, a_stream_that_depends_on_itself)
{
    ask(r, 1, "/wait", END);
    say(r, AG_H2_PRIORITY, 0, 1, AG_SPAN("\0\0\0\1\x10"));
    expect_told(r, "RST_STREAM 1 PROTOCOL_ERROR\n");
    expect_alive(r);
}

H2_TEST(h2_states, headers_that_depend_on_themselves)
{
    say(r, AG_H2_HEADERS, END | WHOLE | AG_H2_PRIORITISED, 1, AG_SPAN("\0\0\0\1\x10\x82\x84\x86"));
    expect_fails(r, "PROTOCOL_ERROR");
}

/* ---- section 6 ---- */

H2_TEST(h2_data, padding_is_no_content)
{
    ask(r, 1, "/echo", OPEN);
    say(r, AG_H2_DATA, AG_H2_PADDED, 1, AG_SPAN("\3abc\0\0\0"));
    say(r, AG_H2_DATA, AG_H2_PADDED, 1, AG_SPAN("\0def"));
    say(r, AG_H2_DATA, AG_H2_PADDED | END, 1, AG_SPAN("\2\0\0"));
    expect_told(r, "HEADERS 1 :status=200,content-length=6\nDATA 1 \"abcdef\" END\n");
}

H2_TEST(h2_data, padding_as_long_as_the_frame)
{
    ask(r, 1, "/echo", OPEN);
    say(r, AG_H2_DATA, AG_H2_PADDED, 1, AG_SPAN("\4abc"));
    expect_fails(r, "PROTOCOL_ERROR");
}

H2_TEST(h2_data, padding_without_its_length)
{
    ask(r, 1, "/echo", OPEN);
    say(r, AG_H2_DATA, AG_H2_PADDED, 1, AG_SPAN(""));
    expect_fails(r, "FRAME_SIZE_ERROR");
}

H2_TEST(h2_frames, sizes_that_are_fixed)
{
    static const struct {
        uint8_t type, flags;
        uint32_t id;
        struct ag_span payload;
    } bad[] = {
        {AG_H2_RST_STREAM, 0, 1, AG_SPAN_INIT("123")},
        {AG_H2_RST_STREAM, 0, 1, AG_SPAN_INIT("12345")},
        {AG_H2_SETTINGS, 0, 0, AG_SPAN_INIT("12345")},
        {AG_H2_SETTINGS, AG_H2_ACK, 0, AG_SPAN_INIT("123456")},
        {AG_H2_PING, 0, 0, AG_SPAN_INIT("1234567")},
        {AG_H2_PING, 0, 0, AG_SPAN_INIT("123456789")},
        {AG_H2_GOAWAY, 0, 0, AG_SPAN_INIT("1234567")},
        {AG_H2_WINDOW_UPDATE, 0, 0, AG_SPAN_INIT("123")},
        {AG_H2_WINDOW_UPDATE, 0, 1, AG_SPAN_INIT("12345")},
        {AG_H2_PRIORITY_UPDATE, 0, 0, AG_SPAN_INIT("123")},
    };

    for (size_t i = 0; i < AG_COUNT(bad); i++) {
        struct rig *own = rig_new_raw(r->bytewise);

        rig_greet(own);
        ask(own, 1, "/wait", END);
        say(own, bad[i].type, bad[i].flags, bad[i].id, bad[i].payload);
        expect_fails(own, "FRAME_SIZE_ERROR");
        rig_free(own);
    }
}

H2_TEST(h2_frames, streams_where_they_do_not_belong)
{
    static const struct {
        uint8_t type;
        uint32_t id;
        struct ag_span payload;
    } bad[] = {
        {AG_H2_PRIORITY, 0, AG_SPAN_INIT("\0\0\0\3\x10")},
        {AG_H2_RST_STREAM, 0, AG_SPAN_INIT("\0\0\0\1")},
        {AG_H2_SETTINGS, 1, AG_SPAN_INIT("")},
        {AG_H2_PING, 1, AG_SPAN_INIT("12345678")},
        {AG_H2_GOAWAY, 1, AG_SPAN_INIT("12345678")},
        {AG_H2_PRIORITY_UPDATE, 1, AG_SPAN_INIT("\0\0\0\1u=1")},
        {AG_H2_PUSH_PROMISE, 1, AG_SPAN_INIT("\0\0\0\2")},
    };

    for (size_t i = 0; i < AG_COUNT(bad); i++) {
        struct rig *own = rig_new_raw(r->bytewise);

        rig_greet(own);
        ask(own, 1, "/wait", END);
        say(own, bad[i].type, 0, bad[i].id, bad[i].payload);
        expect_fails(own, "PROTOCOL_ERROR");
        rig_free(own);
    }
}

H2_TEST(h2_frames, priority_of_a_wrong_size_is_the_streams)
{
    ask(r, 1, "/wait", END);
    say(r, AG_H2_PRIORITY, 0, 1, AG_SPAN("1234"));
    expect_told(r, "RST_STREAM 1 FRAME_SIZE_ERROR\n");
    expect_alive(r);
}

H2_TEST(h2_settings, are_acknowledged)
{
    say_setting(r, AG_H2_HEADER_TABLE_SIZE, 0);
    expect_told(r, "SETTINGS ACK\n");
    say_setting(r, 0x7777, 1);
    expect_told(r, "SETTINGS ACK\n");
    expect_alive(r);
}

H2_TEST(h2_settings, values_out_of_range)
{
    static const struct {
        uint16_t id;
        uint32_t value;
        const char *code;
    } bad[] = {
        {AG_H2_ENABLE_PUSH, 2, "PROTOCOL_ERROR"},
        {AG_H2_INITIAL_WINDOW_SIZE, 0x80000000u, "FLOW_CONTROL_ERROR"},
        {AG_H2_MAX_FRAME_SIZE, 16383, "PROTOCOL_ERROR"},
        {AG_H2_MAX_FRAME_SIZE, 16777216, "PROTOCOL_ERROR"},
        {AG_H2_ENABLE_CONNECT_PROTOCOL, 2, "PROTOCOL_ERROR"},
        {AG_H2_NO_RFC7540_PRIORITIES, 2, "PROTOCOL_ERROR"},
    };

    for (size_t i = 0; i < AG_COUNT(bad); i++) {
        struct rig *own = rig_new_raw(r->bytewise);

        rig_greet(own);
        say_setting(own, bad[i].id, bad[i].value);
        expect_fails(own, bad[i].code);
        rig_free(own);
    }
}

H2_TEST(h2_settings, connect_protocol_is_not_taken_back)
{
    say_setting(r, AG_H2_ENABLE_CONNECT_PROTOCOL, 1);
    say_setting(r, AG_H2_ENABLE_CONNECT_PROTOCOL, 0);
    expect_fails(r, "PROTOCOL_ERROR");
}

H2_TEST(h2_settings, many_in_one_frame)
{
    static uint8_t many[600 * AG_H2_SETTING_BYTES], more[700 * AG_H2_SETTING_BYTES];

    say(r, AG_H2_SETTINGS, 0, 0, ag_span(many, sizeof(many)));
    expect_told(r, "SETTINGS ACK\n");
    say(r, AG_H2_SETTINGS, 0, 0, ag_span(more, sizeof(more)));
    expect_fails(r, "ENHANCE_YOUR_CALM");
}

H2_TEST(h2_ping, comes_back)
{
    say(r, AG_H2_PING, 0, 0, AG_SPAN("abcdefg\x07"));
    expect_told(r, "PING abcdefg7 ACK\n");
    say(r, AG_H2_PING, AG_H2_ACK, 0, AG_SPAN("abcdefgh"));
    expect_told(r, "");
}

H2_TEST(h2_window, updates_of_nothing)
{
    ask(r, 1, "/wait", END);
    say_u32(r, AG_H2_WINDOW_UPDATE, 1, 0);
    expect_told(r, "RST_STREAM 1 PROTOCOL_ERROR\n");
    expect_alive(r);
    say_u32(r, AG_H2_WINDOW_UPDATE, 0, 0x80000000u);
    expect_fails(r, "PROTOCOL_ERROR");
}

H2_TEST(h2_window, beyond_its_bound)
{
    ask(r, 1, "/wait", END);
    say_u32(r, AG_H2_WINDOW_UPDATE, 1, 0x7fffffff - AG_H2_WINDOW_DEFAULT);
    expect_told(r, "");
    say_u32(r, AG_H2_WINDOW_UPDATE, 1, 1);
    expect_told(r, "RST_STREAM 1 FLOW_CONTROL_ERROR\n");
    expect_alive(r);
    say_u32(r, AG_H2_WINDOW_UPDATE, 0, 0x7fffffff);
    expect_fails(r, "FLOW_CONTROL_ERROR");
}

H2_TEST(h2_window, settings_beyond_its_bound)
{
    ask(r, 1, "/wait", END);
    say_u32(r, AG_H2_WINDOW_UPDATE, 1, 0x7fffffff - AG_H2_WINDOW_DEFAULT);
    say_setting(r, AG_H2_INITIAL_WINDOW_SIZE, AG_H2_WINDOW_DEFAULT + 1);
    expect_fails(r, "FLOW_CONTROL_ERROR");
}

H2_TEST(h2_priority, updates_of_no_stream)
{
    say(r, AG_H2_PRIORITY_UPDATE, 0, 0, AG_SPAN("\0\0\0\0u=1"));
    expect_fails(r, "PROTOCOL_ERROR");
}

/* The errors of one stream reach no other. */
H2_TEST(h2_frames, a_broken_stream_is_alone)
{
    ask(r, 1, "/wait", END);
    ask(r, 3, "/wait", END);
    say_u32(r, AG_H2_WINDOW_UPDATE, 1, 0);
    expect_told(r, "RST_STREAM 1 PROTOCOL_ERROR\n");
    cr_expect(r->works[0].aborted && !r->works[1].aborted);
    cr_expect_eq(r->works[0].why, AG_REASON_PROTOCOL);
    answer(r, 1, AG_SPAN("fine"));
    tick(r, 0);
    expect_told(r, "HEADERS 3 :status=200,content-length=4\nDATA 3 \"fine\" END\n");
}
