/*
 * A whole HTTP/2 connection: the server's machine over a stream in memory, a client that sends frames of any
 * kind in pieces of any size, and actions behind it that do whatever actions may. What the server sends is
 * read by rules of its own (h2_seen.h); no request is forgotten, no client waits for ever, bounds hold, and
 * in the end nothing is left behind.
 *
 * Input:  seed | mode | steps ...   a step is a byte that says what, and what that needs
 */
#include "fuzz/h2_seen.h"
#include "fuzz/h2_stream.h"
#include "fuzz/scarce.h"
#include "proto/h2_server.h"
#include "tests/memwire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define OUT_BYTES   (8u * 1024u * 1024u)
#define STEPS_MAX   2000u
#define WORKS       2048u
#define SILENCE_MS  400000u
#define LARGE       32u
#define STREAMS_MAX 8u

enum mode {
    MODE_BARE = 1,  /* no preface is sent but what the input has */
    MODE_BYTES = 2, /* input comes byte by byte */
    MODE_CLOSE = 4, /* the client ends by shutting its side, not by falling silent */
    MODE_DRAIN = 8, /* accepted while the server drains */
};

struct work {
    struct ag_exchange *ex; /* held; NULL: over */
    bool answered, tunnel;
};

static struct {
    struct memloop m;
    struct memwire wire;
    struct ag_h2_server h2;
    struct ag_context ctx;
    struct ag_block snapshot_ref;
    struct ag_server_limits limits;
    struct work works[WORKS];
    unsigned starts, dones, closes;
    struct h2_seen seen;
    struct scarce scarce;
    const uint8_t *at, *end; /* of the input */
    uint32_t random, next_id;
    unsigned mode;
    uint8_t out[OUT_BYTES];
} rig;

static const uint8_t content[70000];
static uint8_t letters[55u * 1500u];

/* ---- input ---- */

static unsigned byte(void)
{
    return rig.at < rig.end ? *rig.at++ : 0;
}

static uint32_t roll(uint32_t below)
{
    rig.random = rig.random * 1664525u + 1013904223u;
    return (rig.random >> 8) % below;
}

/* ---- actions ---- */

static void let_go(struct work *w)
{
    struct ag_exchange *ex = w->ex;

    if (ex) {
        w->ex = NULL;
        ex->action_data = NULL;
        ag_body_set_consumer(&ex->req_body, NULL, NULL);
        ag_body_set_producer(&ex->res_body, NULL, NULL);
        ag_exchange_release(ex);
    }
}

static void on_content(struct ag_body *b, void *owner)
{
    struct work *w = owner;

    while (w->ex && b->q.bytes > 0) {
        struct ag_slice s = ag_body_take(b);

        if (w->tunnel && w->answered && !w->ex->res_body.ended && ag_body_room(&w->ex->res_body)) {
            if (ag_body_write(&w->ex->res_body, s) != AG_OK) {
                let_go(w);
            }
        } else {
            ag_slice_release(&s);
        }
    }
}

static void answer(struct work *w, unsigned status, enum ag_framing framing, uint64_t length)
{
    if (w->ex && !w->answered) {
        w->answered = true;
        w->ex->res.status = status;
        w->ex->res.framing = (uint8_t)framing;
        w->ex->res.content_length = length;
        ag_exchange_respond(w->ex);
    }
}

static void write_some(struct work *w, size_t n)
{
    if (w->ex && w->answered && !w->ex->res_body.ended && !w->ex->res_body.aborted &&
        ag_body_room(&w->ex->res_body) &&
        ag_body_write(&w->ex->res_body, ag_slice_static(ag_span(content, n))) != AG_OK) {
        let_go(w);
    }
}

static struct ag_field field = {
    .name = (const uint8_t *)"x-sum", .name_len = 5, .value = (const uint8_t *)"1", .value_len = 1};
static const struct ag_fields one_field = {&field, 1, 1};

static void end_answer(struct work *w, bool with_trailers)
{
    if (w->ex) {
        answer(w, 200, AG_FRAMING_CHUNKED, AG_LENGTH_UNKNOWN);
    }
    if (w->ex) {
        ag_body_end(&w->ex->res_body, with_trailers ? &one_field : NULL);
        let_go(w);
    }
}

static void act(struct work *w, unsigned what, unsigned much)
{
    struct ag_exchange *ex = w->ex;

    if (!ex) {
        return;
    }
    switch (what % 12) {
    case 0:
        answer(w, 200, AG_FRAMING_LENGTH, much * 64u);
        write_some(w, much * 64u);
        end_answer(w, false);
        break;
    case 1:
        if (!w->answered && much > 200 &&
            ag_fields_add(&ex->res.fields, &ex->arena, AG_FIELD_OTHER, AG_SPAN("x-long"),
                          ag_span(letters, (much - 200) * 1500u)) != AG_OK) {
            break;
        }
        answer(w, 200, AG_FRAMING_CHUNKED, AG_LENGTH_UNKNOWN);
        break;
    case 2:
        write_some(w, 1 + (size_t)much * 256u);
        break;
    case 3:
        end_answer(w, much & 1);
        break;
    case 4:
        ag_body_abort(&ex->res_body, AG_REASON_EOF);
        break;
    case 5:
        ag_body_set_consumer(&ex->req_body, on_content, w);
        break;
    case 6:
        ag_body_discard(&ex->req_body);
        break;
    case 7:
        ag_exchange_fail(ex, 502, (enum ag_reason)(much % (AG_REASON_OTHER + 1)), "fails");
        let_go(w);
        break;
    case 8:
        ex->server->send_interim(ex, 103, much & 1 ? &one_field : NULL);
        break;
    case 9:
        answer(w, much & 1 ? 204 : 304, AG_FRAMING_NONE, 0);
        end_answer(w, false);
        break;
    case 10:
        ex->server->want_body(ex);
        break;
    case 11:
        w->tunnel = true;
        answer(w, much & 1 ? 101 : 200, AG_FRAMING_CHUNKED, AG_LENGTH_UNKNOWN);
        break;
    }
}

static void start(struct ag_exchange *ex)
{
    static const struct ag_prepared fixed = {
        .status = 200,
        .h2 = AG_SPAN_INIT("\x88\x0f\x0d\x01"
                           "2"),
        .body = AG_SPAN_INIT("ok"),
    };
    struct work *w = &rig.works[rig.starts++];
    unsigned how = ex->req.path.len > 1 ? ex->req.path.ptr[1] : 0u;

    AG_ASSERT(rig.starts < WORKS);
    *w = (struct work){.ex = ex};
    ex->action_data = w;
    ag_exchange_pin(ex);
    ag_exchange_hold(ex);
    AG_ASSERT(!ex->server->tls(ex) && ag_exchange_remote(ex));
    ex->streams = how & 16;
    if (how % 16 == 15) {
        w->answered = true;
        ag_exchange_respond_prepared(ex, &fixed);
        let_go(w);
    } else if (how % 16 < 12) {
        act(w, how % 16, how);
    }
}

static void respond(struct ag_exchange *ex)
{
    ex->head_sent = true;
    ex->server->send_head(ex);
}

static void on_abort(struct ag_exchange *ex, enum ag_reason why)
{
    struct work *w = ex->action_data;

    (void)why;
    if (w && roll(8) > 0) { /* else it lets go later */
        let_go(w);
    }
}

static void on_done(struct ag_exchange *ex)
{
    rig.dones += ex->action_data || ex->snapshot_ref; /* it was started */
}

static const struct ag_pipeline_ops pipeline = {
    .start = start, .respond = respond, .abort = on_abort, .done = on_done};

/* ---- the connection ---- */

H2_STREAM_USER(server, rig.h2, rig.closes);

static void keep_snapshot(struct ag_block *b)
{
    (void)b;
    AG_UNREACHABLE("the rig holds the snapshot");
}

/* Bounds that hold at any time. */
static void check(void)
{
    const struct ag_h2_conn *c = &rig.h2.conn;

    h2_seen_read(&rig.seen, ag_buf_span(&rig.wire.out));
    if (rig.closes) {
        return;
    }
    h2_stream_check(c);
    AG_ASSERT(rig.h2.slots <= STREAMS_MAX && c->streams <= rig.h2.slots);
    AG_ASSERT(c->in.q.count <= SCARCE_SMALL + LARGE);
}

static void turn(uint64_t after_ms)
{
    memloop_turn(&rig.m, after_ms);
    check();
}

static void feed(struct ag_span bytes)
{
    while (bytes.len > 0 && memwire_open(&rig.wire) && !rig.wire.paused) {
        size_t most = rig.mode & MODE_BYTES ? 1 : roll(4) ? bytes.len : 1 + roll(64);
        size_t n = memwire_feed(&rig.wire, ag_span_sub(bytes, 0, ag_min_size(most, bytes.len)));

        if (n == 0) {
            return; /* receiving waits for a buffer: the rest never comes */
        }
        bytes = ag_span_sub(bytes, n, bytes.len);
        if (roll(3) == 0) {
            turn(0);
        }
    }
}

/* ---- steps ---- */

static void say_frame(unsigned type)
{
    static uint8_t room[AG_H2_HEADER_BYTES + 17000];
    unsigned flags = byte(), id = byte(), len = byte();
    uint8_t *payload = room + AG_H2_HEADER_BYTES;
    size_t n = id & 128 ? (size_t)len * 66u : len;

    memset(payload, 0, n);
    for (size_t i = 0; i < ag_min_size(n, 64) && i < (size_t)(rig.end - rig.at); i++) {
        payload[i] = (uint8_t)byte();
    }
    (void)ag_h2_put_header(room, n, (enum ag_h2_type)type, flags, id & 63);
    feed(ag_span(room, AG_H2_HEADER_BYTES + n));
}

/* Content as fast as windows may let it through. */
static void say_burst(unsigned frames)
{
    static uint8_t room[AG_H2_HEADER_BYTES + 8192];
    uint32_t id = rig.next_id - 2 - 2 * (byte() % 4);

    (void)ag_h2_put_header(room, 8192, AG_H2_DATA, 0, id & AG_H2_ID_MAX);
    for (unsigned i = 0; i < frames; i++) {
        feed(ag_span(room, sizeof(room)));
    }
}

/* A frame that is right as such, about a stream that may be there. */
static void say_small(unsigned type, unsigned times)
{
    uint8_t room[AG_H2_HEADER_BYTES + 8] = {0}, *p = room + AG_H2_HEADER_BYTES;
    uint32_t id = byte() & 63u, value = (uint32_t)1 << (byte() & 31);
    size_t n = type == AG_H2_PING ? 8 : type == AG_H2_SETTINGS ? 6 : 4;

    if (type == AG_H2_SETTINGS) {
        (void)ag_h2_put_setting(p, (enum ag_h2_setting)(1 + byte() % 9), value);
        id = 0;
    } else if (type == AG_H2_PING) {
        memcpy(p, "anygate", 7);
        p[7] = (uint8_t)(id & 3);
    } else {
        (void)ag_h2_put_u32(p, value);
    }
    (void)ag_h2_put_header(room, n, (enum ag_h2_type)type,
                           type == AG_H2_PING ? value & AG_H2_ACK : 0, type == AG_H2_PING ? 0 : id);
    for (unsigned i = 0; i < times; i++) {
        feed(ag_span(room, AG_H2_HEADER_BYTES + n));
    }
}

static void say_request(void)
{
    uint8_t room[128];
    struct ag_buf b = ag_buf(room + AG_H2_HEADER_BYTES, sizeof(room) - AG_H2_HEADER_BYTES);
    unsigned how = byte();
    uint8_t path[2] = {'/', (uint8_t)('0' + byte() % 64)};

    if (how & 2) { /* extended CONNECT */
        ag_buf_put(&b, AG_SPAN("\x02\x07"
                               "CONNECT\x00\x09:protocol\x09websocket"));
    } else {
        ag_buf_putc(&b, how & 4 ? 0x83 : 0x82);
    }
    ag_buf_put(&b, AG_SPAN("\x86\x04\x02"));
    ag_buf_put(&b, ag_span(path, sizeof(path)));
    ag_buf_put(&b, AG_SPAN("\x41\x01"
                           "a"));
    if (how & 8) {
        ag_buf_put(&b, how & 64 ? AG_SPAN("\x00\x08priority\x06u=1, i")
                                : AG_SPAN("\x00\x08priority\x03u=1"));
    }
    if (how & 16) {
        ag_buf_put(&b, AG_SPAN("\x0f\x0d\x02"
                               "99")); /* content-length */
    }
    if (how & 32) {
        ag_buf_put(&b, AG_SPAN("\x0f\x14\x0c"
                               "100-continue"));
    }
    (void)ag_h2_put_header(room, b.len, AG_H2_HEADERS, AG_H2_END_HEADERS | (how & 1), rig.next_id);
    rig.next_id += 2;
    feed(ag_span(room, AG_H2_HEADER_BYTES + b.len));
}

static void happen(unsigned what)
{
    unsigned much;

    switch (what % 8) {
    case 0:
        rig.wire.window = 0;
        break;
    case 1:
        memwire_open_window(&rig.wire, (size_t)byte() * 1000u);
        break;
    case 2:
        memwire_open_window(&rig.wire, SIZE_MAX);
        break;
    case 3:
        if (memwire_open(&rig.wire)) {
            ag_h2_server_drain(&rig.h2);
        }
        break;
    case 4:
        much = byte();
        scarce_make(&rig.scarce, &rig.m.loop, much, byte() % 32);
        break;
    case 5:
        rig.m.loop.tight = true;
        break;
    case 6:
        if (memwire_open(&rig.wire) && !rig.wire.paused) {
            memwire_eof(&rig.wire);
        }
        break;
    case 7:
        if (byte() == 7) {
            memwire_abort(&rig.wire.stream, AG_REASON_RESET);
        }
        break;
    }
}

static void step(void)
{
    static const uint8_t small[] = {AG_H2_RST_STREAM, AG_H2_SETTINGS, AG_H2_PING,
                                    AG_H2_WINDOW_UPDATE};
    unsigned what = byte(), much = what >> 4;
    uint8_t raw[16];

    switch (what % 16) {
    case 0:
    case 1:
    case 2:
        say_request();
        break;
    case 3:
        say_frame(AG_H2_DATA);
        break;
    case 4:
        say_frame(much);
        break;
    case 5:
        say_frame(AG_H2_CONTINUATION);
        break;
    case 6:
        say_frame(much & 1 ? AG_H2_PRIORITY_UPDATE : AG_H2_HEADERS);
        break;
    case 7:
    case 8:
        say_small(small[much % 4], much & 8 ? 400 : 1); /* a flood */
        break;
    case 9:
        if (much & 8) {
            say_burst(much & 7);
            break;
        }
        for (unsigned i = 0; i < much; i++) {
            raw[i] = (uint8_t)byte();
        }
        feed(ag_span(raw, much));
        break;
    case 10:
        turn((uint64_t)1 << much);
        break;
    case 11:
        happen(much);
        break;
    default:
        if (rig.starts > 0) {
            struct work *w = &rig.works[rig.starts - 1 - byte() % rig.starts];

            act(w, what % 16 * 4 + much % 4, byte());
        }
        break;
    }
    if (what & 32) {
        turn(0);
    }
}

/* ---- a run ---- */

static void begin(void)
{
    static bool made;

    if (!made) {
        memloop_init(&rig.m, (struct ag_loop_config){.buf_count = {SCARCE_SMALL, LARGE},
                                                     .node_count = 8192,
                                                     .page_count = SCARCE_PAGES});
        rig.snapshot_ref = (struct ag_block){.refs = 1, .free = keep_snapshot, .fd = -1};
        rig.limits = (struct ag_server_limits){.head = {1024, 4096, 50},
                                               .header_timeout_ms = 10000,
                                               .idle_timeout_ms = 75000,
                                               .discard_max_bytes = 1000,
                                               .h2_streams_max = STREAMS_MAX,
                                               .h2_resets_max = 50,
                                               .route = AG_ROUTE_LIMITS_DEFAULT};
        memset(letters, 'v', sizeof(letters));
        made = true;
    }
    rig.ctx = (struct ag_context){.loop = &rig.m.loop,
                                  .pipeline = &pipeline,
                                  .snapshot_ref = &rig.snapshot_ref,
                                  .shard_count = 1};
    rig.starts = rig.dones = rig.closes = 0;
    rig.next_id = 1;
    h2_seen_begin(&rig.seen);
    memwire_init(&rig.wire, &rig.m, &user, ag_buf(rig.out, OUT_BYTES));
    ag_h2_server_init(&rig.h2, &rig.wire.stream, &rig.ctx, &rig.limits, 80);
    if (rig.mode & MODE_DRAIN) {
        ag_h2_server_drain(&rig.h2);
    }
    if (!(rig.mode & MODE_BARE)) {
        uint8_t settings[AG_H2_HEADER_BYTES];

        (void)ag_h2_put_header(settings, 0, AG_H2_SETTINGS, 0, 0);
        feed(AG_H2_MAGIC);
        feed(ag_span(settings, sizeof(settings)));
    }
}

/* All that waits goes on: now the connection has to end by itself. */
static void settle(void)
{
    scarce_make(&rig.scarce, &rig.m.loop, 2, 0);
    memwire_open_window(&rig.wire, SIZE_MAX);
    turn(0);
    for (unsigned i = 0; i < rig.starts; i++) {
        end_answer(&rig.works[i], false);
    }
    turn(0);
    if (rig.mode & MODE_CLOSE && memwire_open(&rig.wire) && !rig.wire.paused) {
        memwire_eof(&rig.wire);
    }
    for (uint64_t passed = 0; passed < SILENCE_MS && !rig.wire.closed; passed += 500) {
        turn(500);
    }
    turn(0);
    AG_ASSERT(rig.wire.closed && rig.closes == 1);
}

static void finish(void)
{
    h2_seen_end(&rig.seen, rig.wire.aborted);
    AG_ASSERT(rig.wire.aborted || rig.seen.frames.at == rig.wire.out.len);
    AG_ASSERT(rig.dones == rig.starts);
    AG_ASSERT(rig.ctx.exchanges_live == 0 && rig.ctx.exchanges_dying == 0);
    AG_ASSERT(rig.h2.conn.streams == 0 && rig.h2.conn.held == 0 && rig.h2.conn.queued == 0);
    AG_ASSERT(rig.snapshot_ref.refs == 1);
    AG_ASSERT(rig.m.loop.nodes.used == 0 && rig.m.loop.pages.used == 0);
    AG_ASSERT(ag_loop_bufs_used(&rig.m.loop, AG_BUF_SMALL) == 0);
    AG_ASSERT(ag_loop_bufs_used(&rig.m.loop, AG_BUF_LARGE) == 0);
    AG_ASSERT(rig.m.loop.wheel.armed == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) {
        return 0;
    }
    rig.random = data[0];
    rig.mode = data[1];
    rig.at = data + 2;
    rig.end = data + size;
    begin();
    for (unsigned i = 0; i < STEPS_MAX && rig.at < rig.end && !rig.wire.closed; i++) {
        step();
    }
    settle();
    finish();
    return 0;
}
