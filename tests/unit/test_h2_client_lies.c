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

/* ---- whatever comes ---- */

static uint64_t seed;

static uint32_t below(uint32_t n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed % n);
}

static void put_random_headers(struct rig *r, uint32_t id)
{
    static const char *const heads[] = {
        ":status: 200\n",
        ":status: 200\n",
        ":status: 200\ncontent-length: 3\n",
        ":status: 100\n",
        ":status: 204\n",
        ":status: 103\nlink: </a>\n",
        "t: 1\n",
        ":status: 101\n",
        ":status: 200\ncookie: a\n",
        "",
    };

    put_headers(r, id, heads[below(AG_COUNT(heads))], below(3) == 0);
}

static void put_random_frame(struct rig *r)
{
    static const uint8_t bytes[AG_H2_FRAME_DEFAULT];
    uint32_t id = 2 * below(r->c.conn.next_id / 2 + 1) + 1; /* one that was begun, most often */

    id = id >= r->c.conn.next_id && below(50) ? 1 : id;
    switch (below(24)) {
    case 0:
        put_reset(r, id, (enum ag_h2_error)below(20));
        break;
    case 1:
        put_u32(r, AG_H2_WINDOW_UPDATE, below(2) ? id : 0, below(100000));
        break;
    case 2:
        if (below(4)) {
            break;
        }
        put_goaway(r, below(2) ? id : AG_H2_ID_MAX, AG_H2_NO_ERROR);
        break;
    case 3:
        put_setting(r, AG_H2_INITIAL_WINDOW_SIZE, below(100000));
        break;
    case 4:
        put_setting(r, AG_H2_MAX_CONCURRENT_STREAMS, below(10));
        break;
    case 5: /* anything */
        if (below(8)) {
            break;
        }
        put_frame(r, (enum ag_h2_type)below(12), below(256), id, ag_span(bytes, below(30)));
        break;
    case 6:
    case 7:
    case 8:
        put_frame(r, AG_H2_DATA, below(4) == 0, id, ag_span(bytes, below(3) ? below(9) : 9000));
        break;
    default:
        put_random_headers(r, id);
        break;
    }
}

static void do_random_deed(struct rig *r)
{
    struct one *o = r->count ? r->calls[below(r->count)] : NULL;

    switch (below(8)) {
    case 0:
        if (o) {
            cancel(o);
        }
        break;
    case 1:
        if (o && o->call.ops && o->call.req_body && !o->req_body.ended) {
            give(o, "content");
        }
        break;
    case 2:
        if (o && o->call.ops && o->call.req_body) {
            give_end(o);
        }
        break;
    case 3:
        if (o) {
            o->hold = !o->hold;
            one_take(&o->res_body, o);
        }
        break;
    case 4:
        tick(r, below(30000));
        break;
    default:
        if (ag_h2_client_room(&r->c) > 0 && r->count < 40) {
            (void)(below(2) ? get(r) : post(r, below(2) ? 14 : AG_LENGTH_UNKNOWN));
        }
        break;
    }
}

/* Each call ends at most once, a part never as the whole, and nothing is left: rig_free looks. */
Test(h2_client_lies, whatever_comes_in_whatever_order)
{
    unsigned dones = 0, faileds = 0;

    for (uint64_t i = 1; i <= 1500; i++) {
        struct rig *r = rig_open();

        seed = i * UINT64_C(0x9e3779b97f4a7c15);
        r->step = below(3) ? 0 : 1 + below(40);
        for (unsigned n = 10 + below(150); n > 0 && memwire_open(&r->w); n--) {
            if (below(2)) {
                do_random_deed(r);
            } else {
                put_random_frame(r);
                feed(r);
            }
        }
        for (unsigned k = 0; k < r->count; k++) {
            struct one *o = r->calls[k];

            o->hold = false;
            one_take(&o->res_body, o);
            cr_assert(!o->dones || o->ended, "seed %zu", (size_t)i);
            cr_assert(!o->faileds || !o->ended, "seed %zu", (size_t)i);
            cr_assert(!o->ended || o->heads == 1, "seed %zu", (size_t)i);
            dones += o->dones;
            faileds += o->faileds;
        }
        rig_free(r);
    }
    cr_expect(dones > 100 && faileds > 1000, "%u ended well, %u did not", dones, faileds);
}
