#include "tests/sim/client_h2.h"

#define CODE(c) (UINT32_C(1) << (c))
#define FLOODS  7u

struct antic {
    const char *name;
    uint32_t codes; /* CODE(...) | ... of GOAWAY */
    /* A frame by hand; id and payload may be changed by `put`. */
    uint8_t type, flags;
    uint32_t id;
    const char *payload;
    size_t len;
    void (*put)(struct client_h2 *v);
    bool flood;
    bool unseen; /* by a server that has told which stream was its last one */
};

static struct h2_stream *some_stream(struct client_h2 *v)
{
    struct h2_stream *found = NULL;
    uint64_t n = 1;

    for (struct h2_stream *st = v->h.streams; st; st = st->next) {
        if (!h2_is_over(st) && sim_below(v->h.sim, n++) == 0) {
            found = st;
        }
    }
    return found;
}

/* ---- mistakes ---- */

static void put_too_large(struct client_h2 *v)
{
    uint8_t bytes[20000] = {0};

    h2_put_frame(&v->h, H2_DATA, 0, 1, bytes, sizeof(bytes));
}

static void put_unfinished_head(struct client_h2 *v)
{
    h2_put_frame(&v->h, H2_HEADERS, 0, v->h.next_id, "\x82", 1);
    h2_put_ping(&v->h, 1);
}

static void put_garbage(struct client_h2 *v)
{
    h2_put_frame(&v->h, H2_HEADERS, H2_END_HEADERS | H2_END_STREAM, v->h.next_id,
                 "\xff\xff\xff\xff", 4);
}

static void put_bad_padding(struct client_h2 *v)
{
    h2_put_frame(&v->h, H2_HEADERS, H2_END_HEADERS | H2_PADDED, v->h.next_id, "\x09\x82", 2);
}

/* To a window that is used up the first of them may be added. */
static void put_connection_overflow(struct client_h2 *v)
{
    h2_put_u32(&v->h, H2_WINDOW_UPDATE, 0, H2_ID_MAX);
    h2_put_u32(&v->h, H2_WINDOW_UPDATE, 0, H2_ID_MAX);
}

/* The window that this end knows: the server may just have told of a larger one, and the connection goes on then. So the
 * head, of which the encoder does not know, adds nothing to the server's table. */
static void put_over_window(struct client_h2 *v)
{
    uint8_t bytes[H2_FRAME_MIN] = {0};
    const struct h2_stream *st = h2_open(&v->h, v->h.next_id, v->h.ignored);

    h2_put_frame(&v->h, H2_HEADERS, H2_END_HEADERS, st->id, "\x83\x86\x84\x01\x01x", 6);
    for (int64_t left = v->h.send_window; left >= 0; left -= H2_FRAME_MIN) {
        h2_put_frame(&v->h, H2_DATA, 0, st->id, bytes, sizeof(bytes));
    }
}

static void put_older_stream(struct client_h2 *v)
{
    /* A number that was left out is one that was closed. */
    uint32_t id = v->h.next_id;

    (void)h2_open(&v->h, id + 2, v->h.ignored);
    h2_put_frame(&v->h, H2_HEADERS, H2_END_HEADERS | H2_END_STREAM, id + 2, "\x82\x86\x84\x01\x01x",
                 6);
    h2_put_frame(&v->h, H2_HEADERS, H2_END_HEADERS | H2_END_STREAM, id, "\x82\x86\x84\x01\x01x", 6);
}

/* ---- floods ---- */

static void put_pings(struct client_h2 *v)
{
    for (uint64_t n = sim_below(v->h.sim, 2000); n > 0; n--) {
        h2_put_ping(&v->h, n);
    }
}

static void put_many_settings(struct client_h2 *v)
{
    for (uint64_t n = sim_below(v->h.sim, 10); n > 0 && v->h.pending_count < H2_PENDING_MAX; n--) {
        h2_put_settings(&v->h, NULL, 0);
    }
}

static void put_resets(struct client_h2 *v)
{
    struct h2 *h = &v->h;

    for (uint64_t n = sim_below(h->sim, 400); n > 0; n--) {
        struct h2_stream *st = h2_open(h, h->next_id, h->ignored);

        h2_head_begin(h);
        h2_head_put(h, ":method", AG_SPAN("GET"));
        h2_head_put(h, ":scheme", AG_SPAN("http"));
        h2_head_put(h, ":path", n % 2 ? AG_SPAN("/fixed/large") : AG_SPAN("/s/large.bin"));
        h2_head_put(h, ":authority", AG_SPAN("sim.test"));
        h2_head_end(h, st, true);
        h2_put_reset(h, st, H2_CANCEL);
    }
}

static void put_priorities(struct client_h2 *v)
{
    for (uint64_t n = sim_below(v->h.sim, 1000); n > 0; n--) {
        if (n % 2) {
            h2_put_frame(&v->h, H2_PRIORITY, 0, 1 + 2 * (uint32_t)(n % 50), "\0\0\0\0\x10", 5);
        } else {
            h2_put_frame(&v->h, H2_PRIORITY_UPDATE, 0, 0, "\0\0\0\x07u=1", 7);
        }
    }
}

static void put_empty_data(struct client_h2 *v)
{
    struct h2_stream *st = some_stream(v);

    for (uint64_t n = sim_below(v->h.sim, 1000); n > 0 && st && !st->end_sent; n--) {
        h2_put_frame(&v->h, H2_DATA, 0, st->id, NULL, 0);
    }
}

static void put_window_updates(struct client_h2 *v)
{
    const struct h2_stream *st = some_stream(v);

    for (uint64_t n = sim_below(v->h.sim, 2000); n > 0; n--) {
        h2_grant(&v->h, n % 2 ? NULL : h2_stream_of(&v->h, st ? st->id : 0), 1);
    }
}

/* Never ends it: what has no end is a flood, what waits too long a timeout. */
static void put_continuations(struct client_h2 *v)
{
    h2_put_frame(&v->h, H2_HEADERS, H2_END_STREAM, v->h.next_id, "\x82", 1);
    for (uint64_t n = sim_below(v->h.sim, 1000); n > 0; n--) {
        h2_put_frame(&v->h, H2_CONTINUATION, 0, v->h.next_id, "\x86", n % 3 ? 1 : 0);
    }
}

/* ---- the table ---- */

#define FRAME(t, f, i, p) .type = (t), .flags = (f), .id = (i), .payload = (p), .len = sizeof(p) - 1

static const struct antic all[] = {
    {.name = "pings", .put = put_pings, .flood = true},
    {.name = "settings", .put = put_many_settings, .flood = true},
    {.name = "resets", .put = put_resets, .flood = true},
    {.name = "priorities", .put = put_priorities, .flood = true},
    {.name = "empty DATA", .put = put_empty_data, .flood = true},
    {.name = "window updates", .put = put_window_updates, .flood = true},
    {.name = "continuations",
     .put = put_continuations,
     .codes = CODE(H2_CALM) | CODE(H2_PROTOCOL_ERROR),
     .flood = true},
    {.name = "too large", .put = put_too_large, .codes = CODE(H2_FRAME_SIZE_ERROR)},
    {.name = "unfinished head", .put = put_unfinished_head, .codes = CODE(H2_PROTOCOL_ERROR)},
    {.name = "garbage", .put = put_garbage, .codes = CODE(H2_COMPRESSION_ERROR)},
    {.name = "padding", .put = put_bad_padding, .codes = CODE(H2_PROTOCOL_ERROR)},
    {.name = "overflow", .put = put_connection_overflow, .codes = CODE(H2_FLOW_CONTROL_ERROR)},
    {.name = "over window",
     .put = put_over_window,
     .codes = CODE(H2_FLOW_CONTROL_ERROR) | CODE(H2_STREAM_CLOSED) | CODE(H2_PROTOCOL_ERROR) |
              CODE(H2_CALM),
     .flood = true},
    {.name = "older stream",
     .put = put_older_stream,
     .unseen = true,
     .codes = CODE(H2_PROTOCOL_ERROR) | CODE(H2_STREAM_CLOSED)},
    {.name = "DATA 0", .codes = CODE(H2_PROTOCOL_ERROR), FRAME(H2_DATA, 0, 0, "abc")},
    {.name = "HEADERS 0", .codes = CODE(H2_PROTOCOL_ERROR), FRAME(H2_HEADERS, 5, 0, "\x82")},
    {.name = "HEADERS 2", .codes = CODE(H2_PROTOCOL_ERROR), FRAME(H2_HEADERS, 5, 2, "\x82")},
    {.name = "ACK that says more",
     .codes = CODE(H2_FRAME_SIZE_ERROR),
     FRAME(H2_SETTINGS, H2_ACK, 0, "\0\1\0\0\0\0")},
    {.name = "SETTINGS of 5",
     .codes = CODE(H2_FRAME_SIZE_ERROR),
     FRAME(H2_SETTINGS, 0, 0, "\0\1\0\0\0")},
    {.name = "SETTINGS 1", .codes = CODE(H2_PROTOCOL_ERROR), FRAME(H2_SETTINGS, 0, 1, "")},
    {.name = "window of 2^31",
     .codes = CODE(H2_FLOW_CONTROL_ERROR),
     FRAME(H2_SETTINGS, 0, 0, "\0\4\x80\0\0\0")},
    {.name = "frames of 100",
     .codes = CODE(H2_PROTOCOL_ERROR),
     FRAME(H2_SETTINGS, 0, 0, "\0\5\0\0\0\x64")},
    {.name = "push 2", .codes = CODE(H2_PROTOCOL_ERROR), FRAME(H2_SETTINGS, 0, 0, "\0\2\0\0\0\2")},
    {.name = "no growth",
     .codes = CODE(H2_PROTOCOL_ERROR),
     FRAME(H2_WINDOW_UPDATE, 0, 0, "\0\0\0\0")},
    {.name = "growth of 3",
     .codes = CODE(H2_FRAME_SIZE_ERROR),
     FRAME(H2_WINDOW_UPDATE, 0, 0, "\0\0\1")},
    {.name = "reset of nothing",
     .codes = CODE(H2_PROTOCOL_ERROR),
     FRAME(H2_RST_STREAM, 0, 0x7ffffff1, "\0\0\0\x08")},
    {.name = "PING of 7", .codes = CODE(H2_FRAME_SIZE_ERROR), FRAME(H2_PING, 0, 0, "1234567")},
    {.name = "PING 1", .codes = CODE(H2_PROTOCOL_ERROR), FRAME(H2_PING, 0, 1, "12345678")},
    {.name = "CONTINUATION",
     .codes = CODE(H2_PROTOCOL_ERROR),
     FRAME(H2_CONTINUATION, H2_END_HEADERS, 1, "\x82")},
    {.name = "PUSH_PROMISE",
     .codes = CODE(H2_PROTOCOL_ERROR),
     FRAME(H2_PUSH_PROMISE, H2_END_HEADERS, 1, "\0\0\0\2\x82")},
    {.name = "GOAWAY 1",
     .codes = CODE(H2_PROTOCOL_ERROR),
     FRAME(H2_GOAWAY, 0, 1, "\0\0\0\0\0\0\0\0")},
    {.name = "GOAWAY of 4", .codes = CODE(H2_FRAME_SIZE_ERROR), FRAME(H2_GOAWAY, 0, 0, "\0\0\0\0")},
};

uint32_t antic_codes(const struct antic *a)
{
    return a->codes;
}

bool antic_is_flood(const struct antic *a)
{
    return a->flood;
}

bool antic_is_unseen(const struct antic *a)
{
    return a->unseen;
}

const struct antic *antic_choose(struct sim *s)
{
    return &all[sim_below(s, sim_chance(s, 500) ? FLOODS : AG_COUNT(all))];
}

void antic_do(struct client_h2 *v)
{
    const struct antic *a = v->antic;

    sim_note(v->h.sim, "client: antic", v->client->index, (uint64_t)(a - all));
    if (v->h.sim->verbose) {
        (void)printf("            %s\n", a->name);
    }
    v->antic_done = true;
    if (a->put) {
        a->put(v);
    } else {
        h2_put_frame(&v->h, a->type, a->flags, a->id, a->payload, a->len);
    }
    h2_put_ping(&v->h, ANTIC_PING);
}
