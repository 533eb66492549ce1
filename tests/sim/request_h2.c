#include "tests/sim/client_h2.h"

#include "engine/span.h"

/* What is wrong with a request. */
struct bad_h2 {
    const char *name, *value;     /* a field beside the others */
    const char *without;          /* a pseudo-field that is left out */
    const char *pseudo, *meaning; /* one that comes first, or another value of the same */
    const char *
        content; /* with a Content-Length of 5; it may go to an upstream, which must not see its end */
    uint32_t long_target, long_field, many_fields;
    bool bad_trailers;
    unsigned status; /* 0: the stream is reset, or 400 */
};

#define CONTENT_LENGTH 5u

static const struct bad_h2 all[] = {
    {.name = "X-Upper", .value = "x"},
    {.name = "bad name", .value = "x"},
    {.name = "", .value = "x"},
    {.name = "x-cr", .value = "a\rb"},
    {.name = "x-lf", .value = "a\nb: c"},
    {.name = "x-space", .value = " a"},
    {.name = "x-space", .value = "a\t"},
    {.name = "connection", .value = "close"},
    {.name = "transfer-encoding", .value = "chunked"},
    {.name = "keep-alive", .value = "1"},
    {.name = "upgrade", .value = "websocket"},
    {.name = "te", .value = "gzip"},
    {.name = ":path", .value = "/late"},
    {.name = "host", .value = "other.test"},
    {.name = "content-length", .value = "5"},
    {.name = "content-length", .value = "x"},
    {.without = ":method"},
    {.without = ":path"},
    {.without = ":scheme"},
    {.pseudo = ":path", .meaning = "/twice"},
    {.pseudo = ":status", .meaning = "200"},
    {.pseudo = ":unknown", .meaning = "x"},
    {.content = "abc"},
    {.content = "abcdefgh"},
    {.content = "abc", .bad_trailers = true},
    {.long_target = 9000, .status = 414},
    {.long_field = 33000, .status = 431},
    {.many_fields = 101, .status = 431},
};

void request_choose_bad_h2(struct run *r, struct request *q)
{
    q->bad_h2 = &all[sim_below(r->sim, AG_COUNT(all))];
    q->status = q->bad_h2->status ? q->bad_h2->status : 400;
    (void)snprintf(q->target, sizeof(q->target), "/fixed/small");
    if (q->bad_h2->content) {
        q->method = "POST";
        q->idempotent = false;
        q->body_bytes = CONTENT_LENGTH;
        q->upstream = sim_chance(r->sim, 700) ? 'a' : 0;
        (void)snprintf(q->target, sizeof(q->target), q->upstream ? "/a/%u" : "/echo/%u", q->id);
        memcpy(q->forwarded, q->target, sizeof(q->forwarded));
    }
}

bool request_bad_h2_resets(const struct request *q)
{
    return q->bad_h2 && q->bad_h2->status == 0;
}

bool request_bad_h2_is_longer(const struct request *q)
{
    return q->bad_h2->content && strlen(q->bad_h2->content) > CONTENT_LENGTH;
}

/* ---- heads ---- */

static void put_text(struct h2 *h, const struct request *q, const char *name, const char *before,
                     size_t bytes)
{
    size_t len = strlen(before);
    uint8_t *text = sim_alloc_raw(h->sim, len + bytes);

    memcpy(text, before, len);
    content_fill(request_key(q), 0, text + len, bytes);
    for (size_t i = len; i < len + bytes; i++) {
        text[i] = (uint8_t)('a' + text[i] % 16);
    }
    h2_head_put(h, name, ag_span(text, len + bytes));
}

static void put_pseudo(struct h2 *h, const struct request *q, const char *name, const char *value)
{
    const struct bad_h2 *bad = q->bad_h2;

    if (bad && bad->without && strcmp(bad->without, name) == 0) {
        return;
    }
    if (bad && bad->long_target && strcmp(name, ":path") == 0) {
        put_text(h, q, name, value, bad->long_target);
        return;
    }
    h2_head_put(h, name, ag_span_str(value));
}

static void put_fields(struct h2 *h, const struct request *q)
{
    h2_head_printf(h, "x-id", "%u", q->id);
    if (q->pad_bytes) {
        put_text(h, q, "x-pad", "", q->pad_bytes);
    }
    if (!q->chunked && (q->body_bytes || q->method[0] == 'P')) {
        h2_head_printf(h, "content-length", "%u", q->body_bytes);
    }
    if (q->hops) {
        h2_head_put(h, "x-forwarded-for", AG_SPAN("192.0.2.66"));
        h2_head_put(h, "x_forwarded_for", AG_SPAN("192.0.2.67"));
        h2_head_put(h, "via", AG_SPAN("1.0 fred"));
        h2_head_put(h, "forwarded", AG_SPAN("for=192.0.2.66"));
    }
    if (q->id % 6 == 0) {
        h2_head_put(h, "accept", AG_SPAN("application/json"));
    }
    if (q->id % 5 == 0) {
        h2_head_put(h, "te", AG_SPAN("trailers"));
    }
    if (q->id % 7 == 0) {
        h2_head_printf(h, "priority", "u=%u%s", q->id % 8, q->id % 3 ? ", i" : "");
    }
    if (q->kind == REQUEST_TUNNEL) {
        h2_head_put(h, "sec-websocket-version", AG_SPAN("13"));
    }
    if (q->unmodified) {
        h2_head_put(h, "if-modified-since", AG_SPAN("Tue, 14 Nov 2023 22:13:20 GMT"));
    }
    if (q->expect) {
        h2_head_put(h, "expect", AG_SPAN("100-continue"));
    }
    if (q->range_to) {
        h2_head_printf(h, "range", "bytes=%u-%u", q->range_from, q->range_to);
    }
}

static void put_bad(struct h2 *h, const struct request *q)
{
    const struct bad_h2 *bad = q->bad_h2;

    if (bad->name) {
        h2_head_raw(h, ag_span_str(bad->name), ag_span_str(bad->value));
    }
    if (bad->long_field) {
        put_text(h, q, "x-long", "", bad->long_field);
    }
    for (uint32_t i = 0; i < bad->many_fields; i++) {
        h2_head_put(h, "x-many", AG_SPAN("x"));
    }
}

static bool has_content(const struct request *q)
{
    return q->bad_h2                   ? q->bad_h2->content != NULL
           : q->kind == REQUEST_TUNNEL ? true
                                       : q->body_bytes || q->chunked;
}

struct h2_stream *request_put_h2(struct h2 *h, struct request *q, struct message *m)
{
    /* Numbers may be left out. */
    uint32_t id = h->next_id + (sim_chance(h->sim, 50) ? 2 * (uint32_t)sim_below(h->sim, 5) : 0);
    struct h2_stream *st = h2_open(h, id, m);

    st->q = q;
    h2_head_begin(h);
    if (q->bad_h2 && q->bad_h2->pseudo) {
        h2_head_raw(h, ag_span_str(q->bad_h2->pseudo), ag_span_str(q->bad_h2->meaning));
    }
    if (q->kind == REQUEST_TUNNEL) { /* RFC 8441 */
        h2_head_put(h, ":method", AG_SPAN("CONNECT"));
        h2_head_put(h, ":protocol", AG_SPAN("websocket"));
    } else {
        put_pseudo(h, q, ":method", q->method);
    }
    put_pseudo(h, q, ":scheme", h->end->layer ? "https" : "http");
    put_pseudo(h, q, ":path", q->target);
    put_pseudo(h, q, ":authority", "sim.test");
    put_fields(h, q);
    if (q->bad_h2) {
        put_bad(h, q);
    }
    h2_head_end(h, st, !has_content(q));
    return st;
}

/* ---- content ---- */

static void put_bad_content(struct h2 *h, struct h2_stream *st, const struct request *q)
{
    struct ag_span content = ag_span_str(q->bad_h2->content);

    content.len = ag_min_size(content.len, h2_room(h, st));
    h2_put_data(h, st, content, !q->bad_h2->bad_trailers);
    if (q->bad_h2->bad_trailers) {
        h2_head_begin(h);
        h2_head_raw(h, AG_SPAN(":path"), AG_SPAN("/"));
        h2_head_end(h, st, true);
    }
}

void request_put_content_h2(struct h2 *h, struct h2_stream *st, const struct request *q,
                            uint32_t from, uint32_t len)
{
    uint8_t piece[H2_FRAME_MIN];
    bool end = from + len == q->body_bytes;

    if (q->bad_h2) {
        put_bad_content(h, st, q);
        return;
    }
    AG_ASSERT(len <= sizeof(piece));
    content_fill(request_key(q), from, piece, len);
    for (uint32_t i = 0; i < len && q->kind == REQUEST_ECHO; i++) {
        piece[i] = (uint8_t)('a' + piece[i] % 16);
    }
    h2_put_data(h, st, ag_span(piece, len), end && !q->trailers);
    if (end && q->trailers) {
        h2_head_begin(h);
        h2_head_put(h, "x-trailer", AG_SPAN("t"));
        h2_head_end(h, st, true);
    }
}
