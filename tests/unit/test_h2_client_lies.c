/*
 * Goal: an upstream that breaks a rule loses the call that it concerns, or the connection where the rule is the
 * connection's; its answer never looks whole, and other calls go on.
 * Method: as test_h2_client.c; each lie in several splits.
 */
#include "tests/unit/h2_client_rig.h"

struct lie {
    const char *what;
    void (*put)(struct rig *);
    bool connection; /* all is lost, not one call */
    enum ag_h2_error code;
};

static void lie_data_first(struct rig *r)
{
    put_data(r, 1, "x", false);
}

static void lie_end_first(struct rig *r)
{
    put_data(r, 1, "", true);
}

static void lie_interim_end(struct rig *r)
{
    put_headers(r, 1, ":status: 100\n", true);
}

static void lie_only_interim(struct rig *r)
{
    put_headers(r, 1, ":status: 103\n", false);
    put_data(r, 1, "", true);
}

static void lie_101(struct rig *r)
{
    put_headers(r, 1, ":status: 101\nupgrade: x\n", false);
}

static void lie_no_status(struct rig *r)
{
    put_headers(r, 1, "x: 1\n", true);
}

static void lie_longer(struct rig *r)
{
    put_headers(r, 1, ":status: 200\ncontent-length: 2\n", false);
    put_data(r, 1, "abc", true);
}

static void lie_shorter(struct rig *r)
{
    put_headers(r, 1, ":status: 200\ncontent-length: 5\n", false);
    put_data(r, 1, "abc", true);
}

static void lie_nothing(struct rig *r)
{
    put_headers(r, 1, ":status: 200\ncontent-length: 5\n", true);
}

static void lie_content_of_204(struct rig *r)
{
    put_headers(r, 1, ":status: 204\n", false);
    put_data(r, 1, "abc", true);
}

static void lie_upper_case(struct rig *r)
{
    put_headers(r, 1, ":status: 200\nX: 1\n", true);
}

static void lie_connection_field(struct rig *r)
{
    put_headers(r, 1, ":status: 200\nconnection: close\n", true);
}

static void lie_open_trailers(struct rig *r)
{
    put_headers(r, 1, ":status: 200\n", false);
    put_headers(r, 1, "t: 1\n", false);
}

static void lie_status_in_trailers(struct rig *r)
{
    put_headers(r, 1, ":status: 200\n", false);
    put_headers(r, 1, ":status: 200\n", true);
}

static void lie_over_window(struct rig *r)
{
    static const uint8_t full[AG_H2_FRAME_DEFAULT];

    put_headers(r, 1, ":status: 200\n", false);
    for (unsigned i = 0; i < 5; i++) { /* nothing is taken: 64k is what it may send */
        put_frame(r, AG_H2_DATA, 0, 1, ag_span(full, sizeof(full)));
    }
}

static void lie_window_of_nothing(struct rig *r)
{
    put_u32(r, AG_H2_WINDOW_UPDATE, 1, 0);
}

static void lie_window_overflow(struct rig *r)
{
    put_u32(r, AG_H2_WINDOW_UPDATE, 1, AG_H2_WINDOW_MAX);
}

static void lie_conn_window_of_nothing(struct rig *r)
{
    put_u32(r, AG_H2_WINDOW_UPDATE, 0, 0);
}

static void lie_push(struct rig *r)
{
    put_u32(r, AG_H2_PUSH_PROMISE, 1, 2);
}

static void lie_idle_stream(struct rig *r)
{
    put_headers(r, 99, ":status: 200\n", true);
}

static void lie_even_stream(struct rig *r)
{
    put_headers(r, 2, ":status: 200\n", true);
}

static void lie_frame_size(struct rig *r)
{
    static const uint8_t full[AG_H2_FRAME_DEFAULT + 1];

    put_frame(r, AG_H2_DATA, 0, 1, ag_span(full, sizeof(full)));
}

static void lie_hpack(struct rig *r)
{
    static const uint8_t bad[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0x0f};

    put_frame(r, AG_H2_HEADERS, AG_H2_END_HEADERS, 1, ag_span(bad, sizeof(bad)));
}

static void lie_interrupted(struct rig *r)
{
    put_frame(r, AG_H2_HEADERS, 0, 1, AG_SPAN("\x88"));
    put_data(r, 1, "x", false);
}

static void lie_push_setting(struct rig *r)
{
    put_setting(r, AG_H2_ENABLE_PUSH, 1);
}

static void lie_settings_size(struct rig *r)
{
    put_frame(r, AG_H2_SETTINGS, 0, 0, AG_SPAN("1234567"));
}

static const struct lie lies[] = {
    {"content before a head", lie_data_first, false, AG_H2_PROTOCOL_ERROR},
    {"an end before a head", lie_end_first, false, AG_H2_PROTOCOL_ERROR},
    {"an interim answer that ends", lie_interim_end, false, AG_H2_PROTOCOL_ERROR},
    {"an end after an interim answer", lie_only_interim, false, AG_H2_PROTOCOL_ERROR},
    {"101", lie_101, false, AG_H2_PROTOCOL_ERROR},
    {"no status", lie_no_status, false, AG_H2_PROTOCOL_ERROR},
    {"more than told", lie_longer, false, AG_H2_PROTOCOL_ERROR},
    {"less than told", lie_shorter, false, AG_H2_PROTOCOL_ERROR},
    {"nothing where something was told", lie_nothing, false, AG_H2_PROTOCOL_ERROR},
    {"content of a 204", lie_content_of_204, false, AG_H2_PROTOCOL_ERROR},
    {"upper case", lie_upper_case, false, AG_H2_PROTOCOL_ERROR},
    {"a field of connections", lie_connection_field, false, AG_H2_PROTOCOL_ERROR},
    {"trailers without an end", lie_open_trailers, false, AG_H2_PROTOCOL_ERROR},
    {"a status in trailers", lie_status_in_trailers, false, AG_H2_PROTOCOL_ERROR},
    {"more than the window", lie_over_window, false, AG_H2_FLOW_CONTROL_ERROR},
    {"a window update of nothing", lie_window_of_nothing, false, AG_H2_PROTOCOL_ERROR},
    {"a window too large", lie_window_overflow, false, AG_H2_FLOW_CONTROL_ERROR},
    {"the same of the connection", lie_conn_window_of_nothing, true, AG_H2_PROTOCOL_ERROR},
    {"a push", lie_push, true, AG_H2_PROTOCOL_ERROR},
    {"a stream nobody began", lie_idle_stream, true, AG_H2_PROTOCOL_ERROR},
    {"a stream of its own", lie_even_stream, true, AG_H2_PROTOCOL_ERROR},
    {"a frame too large", lie_frame_size, true, AG_H2_FRAME_SIZE_ERROR},
    {"broken HPACK", lie_hpack, true, AG_H2_COMPRESSION_ERROR},
    {"a section interrupted", lie_interrupted, true, AG_H2_PROTOCOL_ERROR},
    {"push switched on", lie_push_setting, true, AG_H2_PROTOCOL_ERROR},
    {"settings of a wrong size", lie_settings_size, true, AG_H2_FRAME_SIZE_ERROR},
};

Test(h2_client_lies, a_lie_costs_its_call_or_the_connection)
{
    for (size_t i = 0; i < AG_COUNT(lies); i++) {
        for (size_t step = 0; step < 12; step += 4) {
            struct rig *r = rig_open();
            struct one *a = get(r), *b = get(r);

            a->hold = true;
            r->step = step == 0 ? 0 : step * step - 15;
            lies[i].put(r);
            feed(r);
            a->hold = false;
            one_take(&a->res_body, a);
            cr_expect_eq(a->faileds, 1, "%s", lies[i].what);
            cr_expect_eq(a->dones, 0, "%s", lies[i].what);
            cr_expect_not(a->ended, "%s", lies[i].what);
            cr_expect_eq(a->why, AG_REASON_PROTOCOL, "%s: %d", lies[i].what, a->why);
            cr_expect_eq(a->aborted, a->heads == 1, "%s", lies[i].what);
            cr_expect_eq(b->faileds, lies[i].connection, "%s", lies[i].what);
            if (lies[i].connection) {
                expect_goaway(r, lies[i].code);
            } else {
                expect_reset(r, 1, lies[i].code);
                put_headers(r, 3, ":status: 204\n", true);
                feed(r);
                cr_expect_eq(b->dones, 1, "%s", lies[i].what);
            }
            rig_free(r);
        }
    }
}

/* It would be passed on as a whole answer. */
Test(h2_client_lies, nothing_of_a_head_that_announces_what_does_not_come)
{
    struct rig *r = rig_open();
    struct one *o = get(r);

    lie_nothing(r);
    feed(r);
    cr_expect_eq(o->heads, 0);
    cr_expect_eq(o->faileds, 1);
    rig_free(r);
}

Test(h2_client_lies, interim_answers_are_counted)
{
    struct rig *r = rig_open();
    struct one *o = get(r);

    for (unsigned i = 0; i < AG_CALL_INTERIM_MAX + 1; i++) {
        put_headers(r, 1, ":status: 103\nlink: </a>\n", false);
    }
    put_headers(r, 1, ":status: 204\n", true);
    feed(r);
    cr_expect_eq(o->interims, AG_CALL_INTERIM_MAX);
    cr_expect_eq(o->faileds, 1);
    cr_expect_eq(o->why, AG_REASON_PROTOCOL);
    rig_free(r);
}

Test(h2_client_lies, huge_heads_fail_their_call)
{
    struct rig *r = rig_open();
    struct one *a = get(r), *b = get(r);
    char text[8000] = ":status: 200\n";

    for (unsigned i = 0; i < 110; i++) {
        (void)snprintf(text + strlen(text), sizeof(text) - strlen(text), "a%u: xxxxxxxxxxxx\n", i);
    }
    put_headers(r, 1, text, true);
    put_headers(r, 3, ":status: 204\n", true);
    feed(r);
    cr_expect_eq(a->faileds, 1);
    cr_expect_eq(a->why, AG_REASON_PROTOCOL);
    cr_expect_eq(a->heads, 0);
    cr_expect_eq(b->dones, 1);
    rig_free(r);
}
