/*
 * The client's machine of HTTP/2 over a stream in memory: several calls at a time, whose callers give content, take
 * it, give up, and an upstream that answers by any frames, lies, or falls silent, in pieces of any size. Each call
 * that is not given up ends exactly once, and nothing comes for it behind that; content is what was sent, byte by
 * byte, both ways; what the client sends is lawful; and in the end nothing is left behind.
 *
 * Input:  seed | mode | steps ...   a step is a byte that says what, and what that needs
 */
#include "fuzz/h2_asked.h"
#include "fuzz/h2_stream.h"
#include "fuzz/scarce.h"
#include "proto/h2_client.h"
#include "tests/memwire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define OUT_BYTES  (8u * 1024u * 1024u)
#define STEPS_MAX  2000u
#define CALLS      40u
#define SILENCE_MS 700000u /* pings are as rare as that */
#define LARGE      32u
#define PERIOD     H2_ASKED_PERIOD

enum mode {
    MODE_BARE = 1,   /* the upstream sends no SETTINGS but what the input has */
    MODE_BYTES = 2,  /* input comes byte by byte */
    MODE_CLOSE = 4,  /* the upstream ends by shutting its side, not by falling silent */
    MODE_TUNNEL = 8, /* it takes extended CONNECT */
};

/* How its caller behaves. */
enum manner {
    HOLDS = 1,
    ACCEPTS = 2,
    LEAVES_AT_HEAD = 4,
    LEAVES_AT_INTERIM = 8,
    LEAVES_LATER = 16
};

struct one {
    struct ag_call call;
    struct ag_body req_body, res_body;
    struct ag_arena keep;
    uint32_t id;
    unsigned manner, heads, ends; /* done or failed */
    bool left;                    /* given up */
    bool connect, done;
    uint64_t given, taken; /* bytes of the request, of the answer */
    uint64_t sent, whole;  /* of the answer: by the upstream, and when it ended the stream */
    bool upstream_ended;
};

static struct {
    struct memloop m;
    struct memwire wire;
    struct ag_h2_client h2;
    struct one calls[CALLS];
    unsigned count, closes;
    struct scarce scarce;
    const uint8_t *at, *end; /* of the input */
    uint32_t random;
    unsigned mode;
    bool loose; /* frames were sent that nobody keeps account of */
    struct h2_asked asked;
    uint8_t out[OUT_BYTES];
} rig;

static uint8_t content[2 * PERIOD]; /* a call's byte number i is content[i % PERIOD] */

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

/* ---- callers ---- */

static struct one *of(struct ag_call *call)
{
    return ag_container_of(call, struct one, call);
}

static void give_up(struct one *o)
{
    const struct ag_call_ops *ops = o->call.ops;

    if (ops) {
        AG_ASSERT(o->ends == 0 && !o->left);
        o->left = true;
        ops->cancel(&o->call);
        AG_ASSERT(!o->call.ops);
    }
}

static void check_field(const struct ag_field *f)
{
    struct ag_span value = ag_field_value(f);

    AG_ASSERT(f->name_len > 0 && f->name[0] != ':');
    for (size_t i = 0; i < value.len; i++) {
        AG_ASSERT(value.ptr[i] != '\r' && value.ptr[i] != '\n' && value.ptr[i] != '\0');
    }
}

static void check_fields(const struct ag_fields *fields)
{
    for (uint16_t i = 0; i < fields->count; i++) {
        check_field(&fields->v[i]);
    }
}

static void on_interim(struct ag_call *call, const struct ag_response *res)
{
    struct one *o = of(call);

    AG_ASSERT(o->heads == 0 && o->ends == 0 && !o->left);
    AG_ASSERT(res->status >= 100 && res->status < 200 && res->status != 101);
    check_fields(&res->fields);
    if (o->manner & LEAVES_AT_INTERIM) {
        give_up(o);
    }
}

static void on_head(struct ag_call *call, const struct ag_response *res)
{
    struct one *o = of(call);

    AG_ASSERT(o->heads++ == 0 && o->ends == 0 && !o->left);
    AG_ASSERT(res->status >= 200 && res->status < 600);
    check_fields(&res->fields);
    if (o->manner & LEAVES_AT_HEAD) {
        give_up(o);
    } else if (o->connect && res->status < 300 && o->manner & ACCEPTS) {
        call->ops->accept_tunnel(call);
    }
}

static void on_done(struct ag_call *call)
{
    struct one *o = of(call);

    AG_ASSERT(o->ends++ == 0 && !o->left && o->heads == 1 && !call->ops);
    AG_ASSERT(o->res_body.ended && !o->res_body.aborted);
    if (o->res_body.trailers) {
        check_fields(o->res_body.trailers);
    }
    o->done = true;
}

static void on_failed(struct ag_call *call, enum ag_reason why, const char *detail)
{
    struct one *o = of(call);

    (void)why;
    AG_ASSERT(o->ends++ == 0 && !o->left && !call->ops && detail);
    /* Never a clean end, but for a tunnel's one side. */
    AG_ASSERT(o->heads == 0 || o->res_body.aborted || (o->connect && o->res_body.ended));
}

static const struct ag_call_events events = {
    .interim = on_interim, .head = on_head, .done = on_done, .failed = on_failed};

static void take(struct ag_body *b, void *owner)
{
    struct one *o = owner;

    while (!(o->manner & HOLDS) && b->q.bytes > 0) {
        struct ag_slice s = ag_body_take(b);

        AG_ASSERT(rig.loose ||
                  !memcmp(s.ptr, content + o->taken % PERIOD, ag_min_size(s.len, PERIOD)));
        o->taken += s.len;
        ag_slice_release(&s);
        if (o->manner & LEAVES_LATER && roll(4) == 0) {
            give_up(o);
        }
    }
}

/* A new call, if the connection takes one. */
static void start(unsigned how, unsigned manner)
{
    static const enum ag_method methods[] = {AG_METHOD_GET, AG_METHOD_HEAD, AG_METHOD_POST,
                                             AG_METHOD_POST};
    struct one *o = &rig.calls[rig.count];
    bool connect = how & 4 && ag_h2_client_tunnels(&rig.h2);
    unsigned kind = connect ? 0 : how % 4;
    const struct ag_request req = {
        .method_name = ag_method_name(connect ? AG_METHOD_CONNECT : methods[kind]),
        .method = (uint8_t)(connect ? AG_METHOD_CONNECT : methods[kind]),
        .framing = kind == 3   ? AG_FRAMING_CHUNKED
                   : kind == 2 ? AG_FRAMING_LENGTH
                               : AG_FRAMING_NONE,
        .content_length = kind == 2 ? (uint64_t)(how >> 3) * 512u : AG_LENGTH_UNKNOWN,
        .protocol = connect ? AG_SPAN("websocket") : AG_SPAN(""),
        .version = AG_HTTP_2};
    const struct ag_h1_request_opts opts = {
        .target = AG_SPAN("/t?q"), .host = AG_SPAN("example"), .te_trailers = how & 8};

    if (rig.count == CALLS || rig.closes || ag_h2_client_room(&rig.h2) == 0) {
        return;
    }
    *o = (struct one){.manner = manner, .connect = connect, .id = rig.h2.conn.next_id};
    ag_arena_init(&o->keep, &rig.m.loop.pages, 16);
    ag_body_init(&o->req_body, &rig.m.loop);
    ag_body_init(&o->res_body, &rig.m.loop);
    ag_body_set_consumer(&o->res_body, take, o);
    o->call = (struct ag_call){.events = &events,
                               .req = &req,
                               .opts = &opts,
                               .scheme = AG_SPAN("https"),
                               .req_body = kind >= 2 || connect ? &o->req_body : NULL,
                               .res_body = &o->res_body,
                               .keep = &o->keep};
    rig.count++;
    if (ag_h2_client_start(&rig.h2, &o->call) != AG_OK) {
        o->left = true; /* never under way */
        AG_ASSERT(!o->call.ops);
    }
}

static const struct ag_fields *trailers(void)
{
    static struct ag_field field = {.name = (const uint8_t *)"x-sum",
                                    .name_len = 5,
                                    .value = (const uint8_t *)"1",
                                    .value_len = 1};
    static const struct ag_fields fields = {&field, 1, 1};

    return &fields;
}

static void give(struct one *o, size_t n)
{
    struct ag_body *b = &o->req_body;
    struct ag_span piece = ag_span(content + o->given % PERIOD, n);

    if (o->call.req_body && !b->ended && !b->aborted && ag_body_room(b)) {
        o->given += n;
        if (ag_body_write(b, ag_slice_static(piece)) != AG_OK) {
            AG_ASSERT(b->aborted);
        }
    }
}

/* What callers do meanwhile. */
static void act(struct one *o, unsigned what, unsigned much)
{
    struct ag_body *b = &o->req_body;
    uint64_t since;

    switch (what % 8) {
    case 0:
    case 1:
        give(o, 1 + (size_t)much * (what % 8 ? 200u : 1u));
        break;
    case 2:
        ag_body_end(b, much & 1 ? trailers() : NULL);
        break;
    case 3:
        ag_body_abort(b, AG_REASON_EOF);
        break;
    case 4:
        o->manner ^= HOLDS;
        take(&o->res_body, o);
        break;
    case 5:
        give_up(o);
        break;
    case 6:
        if (o->call.ops) {
            o->call.ops->fail(&o->call, AG_REASON_TIMEOUT, "it took too long");
            AG_ASSERT(o->ends == 1);
        }
        break;
    case 7:
        if (o->call.ops && much & 1) {
            (void)o->call.ops->phase(&o->call, &since);
            AG_ASSERT(since <= rig.m.now_ms);
        } else if (much == 2) {
            ag_body_discard(&o->res_body);
        }
        break;
    }
}

/* ---- the connection ---- */

H2_STREAM_USER(client, rig.h2, rig.closes);

static void on_news(struct ag_h2_client *c)
{
    AG_ASSERT(c == &rig.h2);
}

static const struct ag_h2_client_ops client_ops = {.settled = on_news, .closing = on_news};

/* Bounds that hold at any time. */
static void check(void)
{
    const struct ag_h2_conn *c = &rig.h2.conn;

    h2_asked_read(&rig.asked, ag_buf_span(&rig.wire.out));
    for (unsigned i = 0; i < rig.count; i++) {
        const struct h2_asked_stream *s = &rig.asked.streams[rig.calls[i].id / 2];

        AG_ASSERT(s->got <= rig.calls[i].given && (!s->ended || s->got == rig.calls[i].given));
    }
    AG_ASSERT(rig.asked.last_id < rig.h2.conn.next_id);
    if (rig.closes) {
        return;
    }
    h2_stream_check(c);
    AG_ASSERT(c->send_window >= 0 && c->send_window <= AG_H2_WINDOW_MAX);
}

static void turn(uint64_t after_ms)
{
    memloop_turn(&rig.m, after_ms);
    check();
}

static void feed(struct ag_span bytes)
{
    while (bytes.len > 0 && memwire_open(&rig.wire)) {
        size_t most = rig.mode & MODE_BYTES ? 1 : roll(4) ? bytes.len : 1 + roll(64);
        size_t n =
            rig.wire.paused
                ? 0
                : memwire_feed(&rig.wire, ag_span_sub(bytes, 0, ag_min_size(most, bytes.len)));

        if (n == 0) {
            rig.loose = true; /* the rest is never read */
            return;
        }
        bytes = ag_span_sub(bytes, n, bytes.len);
        if (roll(3) == 0) {
            turn(0);
        }
    }
}

/* ---- the upstream's steps ---- */

static uint8_t room[AG_H2_HEADER_BYTES + 17000];

static void say(enum ag_h2_type type, unsigned flags, uint32_t id, size_t len)
{
    (void)ag_h2_put_header(room, len, type, flags, id);
    feed(ag_span(room, AG_H2_HEADER_BYTES + len));
}

static struct one *pick(void)
{
    return &rig.calls[rig.count - 1 - byte() % rig.count];
}

/* A head or trailers, mostly lawful. */
static void say_fields(struct one *o, unsigned how)
{
    static const struct ag_span starts[] = {
        AG_SPAN_INIT("\x88"),                                     /* 200 */
        AG_SPAN_INIT("\x89"),                                     /* 204 */
        AG_SPAN_INIT("\x8b"),                                     /* 304 */
        AG_SPAN_INIT("\x08\x03\x31\x30\x33"),                     /* 103 */
        AG_SPAN_INIT("\x00\x0bgrpc-status\x01\x30"),              /* trailers */
        AG_SPAN_INIT("\x08\x03\x31\x30\x31"),                     /* 101 */
        AG_SPAN_INIT("\x88\x0f\x0d\x01\x30"),                     /* a length of 0 */
        AG_SPAN_INIT("\x88\x0f\x0d\x04\x31\x30\x30\x30"),         /* of 1000 */
        AG_SPAN_INIT("\x88\x40\x03x-a\x05value\x40\x03x-b\x01b"), /* into the table */
        AG_SPAN_INIT("\x8d\xbe"),                                 /* 404, out of it */
    };
    struct ag_buf b = ag_buf(room + AG_H2_HEADER_BYTES, sizeof(room) - AG_H2_HEADER_BYTES);
    unsigned cut = how & 64 ? byte() : 0;
    bool end = how & 16;

    ag_buf_put(&b, starts[how % 16 % AG_COUNT(starts)]);
    if (how & 32) {
        for (unsigned n = byte() % 32; n > 0; n--) {
            ag_buf_putc(&b, (uint8_t)byte());
        }
    }
    if (cut == 0 || cut >= b.len) {
        say(AG_H2_HEADERS, AG_H2_END_HEADERS | (end ? AG_H2_END_STREAM : 0), o->id, b.len);
    } else {
        uint8_t rest[128];
        size_t n = b.len - cut;

        memcpy(rest, b.ptr + cut, n);
        say(AG_H2_HEADERS, end ? AG_H2_END_STREAM : 0, o->id, cut);
        memcpy(room + AG_H2_HEADER_BYTES, rest, n);
        say(AG_H2_CONTINUATION, AG_H2_END_HEADERS, o->id, n);
    }
    if (end && !o->upstream_ended) {
        o->upstream_ended = true;
        o->whole = o->sent;
    }
}

/* Content, the next bytes of the call's. */
static void say_content(struct one *o, unsigned how)
{
    size_t n = how & 4 ? byte() * 60u : byte(), pad = how & 2 ? byte() : 0, front = how & 2 ? 1 : 0;
    uint8_t *p = room + AG_H2_HEADER_BYTES;
    bool end = how & 1;

    p[0] = (uint8_t)pad;
    memcpy(p + front, content + o->sent % PERIOD, n);
    memset(p + front + n, 0, pad);
    o->sent += n;
    if (end && !o->upstream_ended) {
        o->upstream_ended = true;
        o->whole = o->sent;
    }
    say(AG_H2_DATA, (front ? AG_H2_PADDED : 0) | (end ? AG_H2_END_STREAM : 0), o->id,
        front + n + pad);
}

/* A frame of a few bytes that is right as such, one or many. */
static void say_small(unsigned type, unsigned count)
{
    uint8_t *p = room + AG_H2_HEADER_BYTES;
    uint32_t id = byte() & 63u, value = (uint32_t)1 << (byte() & 31);
    size_t n = type == AG_H2_PING || type == AG_H2_GOAWAY ? 8 : type == AG_H2_SETTINGS ? 6 : 4;
    unsigned flags = 0;

    memset(p, 0, 8);
    if (type == AG_H2_SETTINGS) {
        (void)ag_h2_put_setting(p, (enum ag_h2_setting)(1 + byte() % 9), value);
        id = 0;
    } else if (type == AG_H2_PING) {
        memcpy(p, "anygate", 7);
        p[7] = (uint8_t)(id & 3);
        flags = value & AG_H2_ACK;
        id = 0;
    } else if (type == AG_H2_GOAWAY) {
        (void)ag_h2_put_u32(ag_h2_put_u32(p, id), byte() % 15);
        id = 0;
    } else if (type == AG_H2_RST_STREAM) {
        (void)ag_h2_put_u32(p, byte() % 15);
    } else {
        (void)ag_h2_put_u32(p, value);
    }
    for (unsigned i = 0; i < count; i++) {
        say((enum ag_h2_type)type, flags, id, n);
    }
}

/* Any frame at all. */
static void say_frame(unsigned type)
{
    unsigned flags = byte(), id = byte(), len = byte();
    size_t n = id & 128 ? (size_t)len * 66u : len;

    rig.loose = true;
    memset(room, 0, sizeof(room));
    for (size_t i = 0; i < ag_min_size(n, 64) && i < (size_t)(rig.end - rig.at); i++) {
        room[AG_H2_HEADER_BYTES + i] = (uint8_t)byte();
    }
    say((enum ag_h2_type)type, flags, id & 63, n);
}

static void say_bytes(unsigned n)
{
    rig.loose = true;
    for (unsigned i = 0; i < n; i++) {
        room[i] = (uint8_t)byte();
    }
    feed(ag_span(room, n));
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
        if (memwire_open(&rig.wire) && rig.h2.conn.streams == 0) {
            ag_h2_client_finish(&rig.h2);
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
                                    AG_H2_WINDOW_UPDATE, AG_H2_GOAWAY};
    unsigned what = byte(), much = what >> 4;

    switch (what % 16) {
    case 0:
    case 1:
        start(byte(), byte());
        break;
    case 2:
    case 3:
        if (rig.count > 0) {
            say_fields(pick(), byte());
        }
        break;
    case 4:
    case 5:
        if (rig.count > 0) {
            say_content(pick(), much);
        }
        break;
    case 6:
    case 7:
        say_small(small[much % 8 % AG_COUNT(small)], much & 8 ? 400 : 1);
        break;
    case 8:
        say_frame(much);
        break;
    case 9:
        say_bytes(much);
        break;
    case 10:
        turn((uint64_t)1 << much);
        break;
    case 11:
        happen(much);
        break;
    default:
        if (rig.count > 0) {
            act(pick(), what % 4 * 4 + much % 4, byte());
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
        for (size_t i = 0; i < sizeof(content); i++) {
            content[i] = (uint8_t)(i * 7 + (i % PERIOD >> 8));
        }
        made = true;
    }
    rig.count = rig.closes = 0;
    rig.loose = false;
    h2_asked_begin(&rig.asked, content);
    memwire_init(&rig.wire, &rig.m, &user, ag_buf(rig.out, OUT_BYTES));
    AG_ASSERT(ag_h2_client_open(&rig.h2, &rig.wire.stream, &client_ops));
    if (!(rig.mode & MODE_BARE)) {
        (void)ag_h2_put_setting(room + AG_H2_HEADER_BYTES, AG_H2_ENABLE_CONNECT_PROTOCOL, 1);
        say(AG_H2_SETTINGS, 0, 0, rig.mode & MODE_TUNNEL ? AG_H2_SETTING_BYTES : 0);
    }
}

/* The upstream falls silent or goes, callers take all that there is: every call has to end by itself. */
static void settle(void)
{
    scarce_make(&rig.scarce, &rig.m.loop, 2, 0);
    memwire_open_window(&rig.wire, SIZE_MAX);
    turn(0);
    for (unsigned i = 0; i < rig.count; i++) {
        rig.calls[i].manner &= ~(unsigned)HOLDS;
        take(&rig.calls[i].res_body, &rig.calls[i]);
    }
    turn(0);
    if (rig.mode & MODE_CLOSE && memwire_open(&rig.wire) && !rig.wire.paused) {
        memwire_eof(&rig.wire);
    }
    for (uint64_t passed = 0; passed < SILENCE_MS && !rig.wire.closed; passed += 500) {
        if (memwire_open(&rig.wire) && rig.h2.conn.streams == 0) {
            ag_h2_client_finish(&rig.h2); /* as its owner does */
        }
        turn(500);
    }
    turn(0);
    AG_ASSERT(rig.wire.closed && rig.closes == 1);
}

static void finish(void)
{
    for (unsigned i = 0; i < rig.count; i++) {
        struct one *o = &rig.calls[i];

        AG_ASSERT(!o->call.ops && o->ends == (o->left ? 0 : 1));
        AG_ASSERT(!o->done || rig.loose || o->res_body.discarding || o->taken == o->whole);
        ag_body_deinit(&o->req_body);
        ag_body_deinit(&o->res_body);
        ag_arena_release(&o->keep);
    }
    h2_asked_end(&rig.asked);
    AG_ASSERT(rig.h2.conn.streams == 0 && rig.h2.conn.held == 0 && rig.h2.conn.queued == 0);
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
