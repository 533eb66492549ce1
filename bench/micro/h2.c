/*
 * A request to the server of HTTP/2, without kernel and router: fixed answers to GET, 32 at a time on each of 16
 * connections in memory, as h2load asks for them.
 */
#include "bench/micro/micro.h"
#include "proto/h2_server.h"
#include "tests/memwire.h"

#define CONNECTIONS 16u
#define AT_ONCE     32u
#define OUT_BYTES   8192u

struct client {
    struct memwire wire;
    struct ag_h2_server h2;
    uint32_t next_id;
    uint8_t out[OUT_BYTES];
};

static struct memloop loop;
static struct client clients[CONNECTIONS];

static const struct ag_prepared fixed = {
    .status = 200,
    .h2 = AG_SPAN_INIT("\x88\x0f\x10\x19text/plain; charset=utf-8\x0f\x0d\x01"
                       "2"),
    .body = AG_SPAN_INIT("hi"),
    .response = {.status = 200, .framing = AG_FRAMING_LENGTH, .content_length = 2},
};

static void start(struct ag_exchange *ex)
{
    ag_exchange_respond_prepared(ex, &fixed);
}

static void respond(struct ag_exchange *ex)
{
    ex->server->send_head(ex);
}

static void aborted(struct ag_exchange *ex, enum ag_reason why)
{
    (void)ex;
    (void)why;
}

static void done(struct ag_exchange *ex)
{
    (void)ex;
}

static const struct ag_pipeline_ops pipeline = {
    .start = start, .respond = respond, .abort = aborted, .done = done};

static struct client *of(struct ag_stream *s)
{
    return ag_container_of(memwire_of(s), struct client, wire);
}

static void on_data(struct ag_stream *s, struct ag_slice slice)
{
    ag_h2_server_data(&of(s)->h2, slice);
}

static void on_eof(struct ag_stream *s)
{
    ag_h2_server_eof(&of(s)->h2);
}

static void on_drain(struct ag_stream *s)
{
    ag_h2_server_drained(&of(s)->h2);
}

static void on_deadline(struct ag_stream *s)
{
    ag_h2_server_deadline(&of(s)->h2);
}

static void on_close(struct ag_stream *s, enum ag_reason why)
{
    ag_h2_server_closed(&of(s)->h2, why);
}

static const struct ag_stream_user user = {.on_data = on_data,
                                           .on_eof = on_eof,
                                           .on_drain = on_drain,
                                           .on_deadline = on_deadline,
                                           .on_close = on_close};

static void feed(struct client *c, struct ag_span bytes)
{
    AG_ASSERT(memwire_feed(&c->wire, bytes) == bytes.len);
}

/* Preface, and a request that puts authority and user agent into the table, as clients do. */
static void greet(struct client *c)
{
    static const uint8_t settings[AG_H2_HEADER_BYTES] = {0, 0, 0, AG_H2_SETTINGS};
    struct ag_span head = AG_SPAN("\x82\x86\x04\x06/fixed\x41\x0a"
                                  "example.no\x7a\x06h2load");
    uint8_t room[64];

    feed(c, AG_H2_MAGIC);
    feed(c, ag_span(settings, sizeof(settings)));
    memcpy(ag_h2_put_header(room, head.len, AG_H2_HEADERS, AG_H2_END_HEADERS | AG_H2_END_STREAM, 1),
           head.ptr, head.len);
    feed(c, ag_span(room, AG_H2_HEADER_BYTES + head.len));
    c->next_id = 3;
}

static void ask(struct client *c)
{
    struct ag_span head = AG_SPAN("\x82\x86\x04\x85\x62\x53\x79\x2c\x9f\xbf\xbe"); /* Huffman */
    uint8_t room[AT_ONCE * 32];
    uint8_t *window = ag_h2_put_header(room, 4, AG_H2_WINDOW_UPDATE, 0, 0);
    size_t n = (size_t)(ag_h2_put_u32(window, (uint32_t)(AT_ONCE * fixed.body.len)) - room);

    for (unsigned i = 0; i < AT_ONCE; i++, c->next_id += 2) {
        memcpy(ag_h2_put_header(room + n, head.len, AG_H2_HEADERS,
                                AG_H2_END_HEADERS | AG_H2_END_STREAM, c->next_id),
               head.ptr, head.len);
        n += AG_H2_HEADER_BYTES + head.len;
    }
    c->wire.out.len = 0;
    feed(c, ag_span(room, n));
}

static void set_up(const struct micro *m)
{
    static struct ag_context ctx = {.loop = &loop.loop, .pipeline = &pipeline, .shard_count = 1};
    static struct ag_server_limits limits = {.head = {8192, 32768, 100},
                                             .header_timeout_ms = 10000,
                                             .idle_timeout_ms = 75000,
                                             .route = AG_ROUTE_LIMITS_DEFAULT};

    (void)m;
    memloop_init(&loop, (struct ag_loop_config){.buf_count = {1024, 16}});
    for (unsigned i = 0; i < CONNECTIONS; i++) {
        memwire_init(&clients[i].wire, &loop, &user, ag_buf(clients[i].out, OUT_BYTES));
        ag_h2_server_init(&clients[i].h2, &clients[i].wire.stream, &ctx, &limits, 80);
        greet(&clients[i]);
    }
    memloop_turn(&loop, 0);
}

static void run(const struct micro *m)
{
    (void)m;
    for (unsigned i = 0; i < CONNECTIONS; i++) {
        ask(&clients[i]);
    }
    memloop_turn(&loop, 0);
    /* The longest answer, so that none is missing: two headers, the section, two bytes. */
    AG_ASSERT(clients[0].wire.out.len >= (size_t)AT_ONCE * 60);
}

static const struct micro all[] = {
    {"h2, fixed answer, 32 streams", CONNECTIONS *AT_ONCE, 0, set_up, NULL, run, NULL, NULL},
};
const struct micro_list micro_h2 = {all, AG_COUNT(all)};
