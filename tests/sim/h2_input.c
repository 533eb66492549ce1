#include "tests/sim/h2_parts.h"

_Noreturn static void bad(const struct h2 *h, uint32_t id, const char *why)
{
    sim_fail(h->sim, "conn %u, stream %u: the %s breaks HTTP/2: %s", h->end->conn->id, id,
             h->server ? "client" : "server", why);
}

static void must(const struct h2 *h, bool good, uint32_t id, const char *why)
{
    if (!good) {
        bad(h, id, why);
    }
}

/* ---- input: field sections ---- */

static bool is_token(struct ag_span name)
{
    for (size_t i = 0; i < name.len; i++) {
        uint8_t ch = name.ptr[i];

        if (!((ch >= '0' && ch <= '9') || (ch >= 'a' && ch <= 'z') ||
              (ch && strchr("!#$%&'*+-.^_`|~", ch)))) {
            return false;
        }
    }
    return name.len > 0;
}

/* RFC 9113 section 8.2. */
static void check_field(const struct h2 *h, uint32_t id, struct ag_span name, struct ag_span value)
{
    static const char *const hops[] = {"connection", "keep-alive", "proxy-connection",
                                       "transfer-encoding", "upgrade"};

    must(h, is_token(name), id, "a field's name");
    for (size_t i = 0; i < AG_COUNT(hops); i++) {
        must(h, !ag_span_eq(name, ag_span_str(hops[i])), id, "a field of a connection");
    }
    must(h,
         !ag_span_eq(name, AG_SPAN("te")) || (h->server && ag_span_eq(value, AG_SPAN("trailers"))),
         id, "TE");
    for (size_t i = 0; i < value.len; i++) {
        uint8_t ch = value.ptr[i];

        must(h, ch != 0 && ch != '\r' && ch != '\n', id, "a control in a value");
    }
    if (value.len) {
        uint8_t first = value.ptr[0], last = value.ptr[value.len - 1];

        must(h, first != ' ' && first != '\t' && last != ' ' && last != '\t', id,
             "white space around a value");
    }
}

static void take_pseudo(const struct h2 *h, uint32_t id, struct message *m, struct ag_span name,
                        struct ag_span value)
{
    must(h, m->field_count == 0 || m->fields[m->field_count - 1].name.ptr[0] == ':', id,
         "a pseudo-field behind others");
    for (unsigned i = 0; i < m->field_count; i++) {
        must(h, !ag_span_eq(m->fields[i].name, name), id, "a pseudo-field twice");
    }
    if (!h->server) {
        uint64_t status = message_number(value);

        must(h, ag_span_eq(name, AG_SPAN(":status")), id, "another pseudo-field in an answer");
        must(h, value.len == 3 && status >= 100 && status <= 599 && status != 101, id, "a status");
        m->status = (unsigned)status;
    } else if (ag_span_eq(name, AG_SPAN(":method"))) {
        m->method = value;
    } else if (ag_span_eq(name, AG_SPAN(":path"))) {
        must(h, value.len > 0 && value.ptr[0] == '/', id, "a path");
        m->target = value;
    } else {
        must(h,
             ag_span_eq(name, AG_SPAN(":scheme")) || ag_span_eq(name, AG_SPAN(":authority")) ||
                 ag_span_eq(name, AG_SPAN(":protocol")),
             id, "an unknown pseudo-field");
    }
}

static enum ag_status no_more(struct ag_hpack_section *s, size_t bytes)
{
    (void)s;
    (void)bytes;
    return AG_ENOMEM;
}

/* Reads the section into `m`; trailers have no pseudo-fields. */
static void decode(struct h2 *h, uint32_t id, struct message *m, bool trailers)
{
    struct ag_hpack_section section = {.in = ag_span(h->block, h->block_len),
                                       .text = ag_buf(m->head, MESSAGE_HEAD_MAX),
                                       .more = no_more,
                                       .left_bytes = MESSAGE_HEAD_MAX};
    struct ag_field f;
    enum ag_status st;

    m->field_count = 0;
    while ((st = ag_hpack_next(&h->decoder, &section, &f)) == AG_OK) {
        struct ag_span name = ag_field_key(&f), value = ag_field_value(&f);

        must(h, name.len > 0, id, "a field without a name");
        if (name.ptr[0] == ':') {
            must(h, !trailers, id, "a pseudo-field among trailers");
            take_pseudo(h, id, m, name, value);
        } else {
            check_field(h, id, name, value);
        }
        must(h, m->field_count < MESSAGE_FIELDS_MAX, id, "more fields than there are");
        m->fields[m->field_count++] = (struct message_field){name, value};
    }
    must(h, st == AG_AGAIN, id, "a field section");
    must(h, h->decoder.table.max_bytes <= h->table_max, id, "a larger table than was allowed");
    m->head_seen = true;
}

/* Content-Length says how much there will be (RFC 9113 section 8.1.1). */
static void frame_message(const struct h2 *h, uint32_t id, struct message *m)
{
    unsigned count;
    struct ag_span length = message_field(m, "content-length", &count);

    must(h, count <= 1, id, "Content-Length twice");
    m->left = count ? message_number(length) : UINT64_MAX;
    must(h, !count || m->left != UINT64_MAX, id, "Content-Length");
    m->keep_alive = true;
    m->chunked = count == 0; /* as far as anybody asks: the length is not told */
    m->state = MESSAGE_BODY;
}

static void on_ended(struct h2 *h, struct h2_stream *st)
{
    struct message *m = st->message;
    bool was = h2_is_over(st);
    bool none = !h->server && (m->to_head || m->status == 204 || m->status == 304);

    must(h, m->left == UINT64_MAX || none || m->body_bytes == m->left, st->id,
         "content and Content-Length differ");
    must(h, !none || m->body_bytes == 0, st->id, "content where there is none");
    st->end_got = true;
    m->state = MESSAGE_DONE;
    h2_count_over(h, was, st);
    h->events->end(h, st);
}

static void open_for_peer(struct h2 *h, uint32_t id)
{
    struct h2_stream *st;

    must(h, id % 2 == 1 && id > h->top_id, id, "a stream's number");
    h->top_id = id;
    must(h, h->open < h->streams_max, id, "more streams than may be");
    st = h->events->opened(h, id);
    if (!st) {
        decode(h, id, h->ignored, false);
        return;
    }
    decode(h, id, st->message, false);
    must(h, st->message->method.len > 0, id, "no method");
    frame_message(h, id, st->message);
    st->headed = true;
    h->events->head(h, st);
    if (h->block_ends && h->end->open) {
        on_ended(h, st);
    }
}

static bool is_interim(const struct h2 *h, const struct message *m)
{
    return !h->server && m->status < 200;
}

static void on_section(struct h2 *h)
{
    uint32_t id = h->block_id;
    struct h2_stream *st = h2_stream_of(h, id);
    bool trailers = st && st->headed;

    h->block_id = 0;
    h->ignored->sim = h->sim;
    h->ignored->head =
        h->ignored->head ? h->ignored->head : sim_alloc_raw(h->sim, MESSAGE_HEAD_MAX);
    if (!st && h->server && id > h->top_id) {
        open_for_peer(h, id);
        return;
    }
    must(h, st || id <= h->top_id, id, "HEADERS on a stream that nobody opened");
    if (!st || st->reset_sent) {
        decode(h, id, h->ignored, trailers);
        return;
    }
    must(h, !st->end_got && !st->reset_got, id, "HEADERS on a stream that has ended");
    if (trailers) {
        must(h, h->block_ends, id, "trailers that are not the end");
        decode(h, id, h->ignored, true);
        st->trailed = true;
        on_ended(h, st);
        return;
    }
    decode(h, id, st->message, false);
    must(h, st->message->status > 0, id, "no status");
    st->headed = !is_interim(h, st->message);
    must(h, st->headed || !h->block_ends, id, "an interim answer that is the end");
    if (st->headed) {
        frame_message(h, id, st->message);
    }
    h->events->head(h, st);
    if (h->block_ends && h->end->open && !st->reset_sent) {
        on_ended(h, st);
    }
}

/* ---- input: frames ---- */

struct frame {
    uint32_t len, id;
    uint8_t type, flags;
    struct ag_span payload;
};

/* Without padding, which counts all the same. */
static struct ag_span unpadded(const struct h2 *h, const struct frame *f)
{
    struct ag_span p = f->payload;

    if (f->flags & H2_PADDED) {
        must(h, p.len > 0 && p.ptr[0] < p.len, f->id, "padding");
        p = ag_span_sub(p, 1, p.len - p.ptr[0]);
    }
    return p;
}

static void on_data(struct h2 *h, const struct frame *f)
{
    struct h2_stream *st = h2_stream_of(h, f->id);
    struct ag_span content = unpadded(h, f);

    must(h, st || (f->id > 0 && f->id <= h->top_id && h->server), f->id, "DATA on no stream");
    h->recv_window -= f->len;
    h->owed += f->len;
    must(h, h->recv_window >= 0, f->id, "more than the connection's window");
    if (!st) {
        return;
    }
    st->recv_window -= f->len;
    st->owed += f->len;
    /* An end needs no window, and that may have been made smaller. */
    must(h, st->recv_window >= 0 || f->len == 0 || st->reset_sent, f->id,
         "more than the stream's window");
    if (st->reset_sent) {
        return;
    }
    must(h, st->headed && !st->end_got && !st->reset_got, f->id, "DATA at the wrong time");
    if (content.len) {
        sim_show(h->sim, content.ptr, content.len);
        st->message->body_bytes += content.len;
        h->events->data(h, st, content);
    }
    if (f->flags & H2_END_STREAM && h->end->open && !st->reset_sent) {
        on_ended(h, st);
    }
}

static void on_headers(struct h2 *h, const struct frame *f)
{
    struct ag_span p = unpadded(h, f);

    if (f->type == H2_HEADERS) {
        must(h, f->id > 0, 0, "HEADERS without a stream");
        p = f->flags & H2_PRIORITISED ? ag_span_sub(p, 5, p.len) : p;
        h->block_id = f->id;
        h->block_ends = f->flags & H2_END_STREAM;
        h->block_len = 0;
    }
    must(h, p.len <= H2_BLOCK_MAX - h->block_len, f->id, "too large a field section");
    memcpy(h->block + h->block_len, p.ptr, p.len);
    h->block_len += p.len;
    if (f->flags & H2_END_HEADERS) {
        on_section(h);
    }
}

static void on_reset(struct h2 *h, const struct frame *f)
{
    struct h2_stream *st = h2_stream_of(h, f->id);
    bool was;

    must(h, f->payload.len == 4, f->id, "RST_STREAM's size");
    must(h, f->id > 0 && (st || f->id <= h->top_id), f->id, "RST_STREAM on no stream");
    if (!st || st->reset_sent) {
        return;
    }
    must(h, !st->reset_got, f->id, "RST_STREAM twice");
    was = h2_is_over(st);
    st->reset_got = true;
    h2_count_over(h, was, st);
    h->events->reset(h, st, h2_u32_at(f->payload.ptr));
}

static void on_setting(struct h2 *h, uint32_t id, uint32_t value)
{
    if (id == H2_INITIAL_WINDOW) {
        must(h, value <= H2_WINDOW_MAX, 0, "an initial window");
        for (struct h2_stream *st = h->streams; st; st = st->next) {
            st->send_window += (int64_t)value - h->peer_window;
        }
        h->peer_window = value;
    } else if (id == H2_MAX_FRAME) {
        must(h, value >= H2_FRAME_MIN && value < 1u << 24, 0, "a frame size");
        h->peer_frame_max = value;
    } else if (id == H2_TABLE_SIZE) {
        ag_hpack_resize(&h->encoder, value);
    } else if (id == H2_MAX_STREAMS) {
        h->peer_streams_max = value;
    } else if (id == H2_CONNECT_PROTOCOL) {
        must(h, value <= 1 && !h->server, 0, "ENABLE_CONNECT_PROTOCOL");
        h->peer_connect = value;
    } else if (id == H2_ENABLE_PUSH) {
        must(h, value <= h->server, 0, "ENABLE_PUSH");
    }
}

/* The oldest SETTINGS hold now, the less of them too. */
static void on_settings_ack(struct h2 *h)
{
    must(h, h->pending_count > 0, 0, "an acknowledgement of nothing");
    if (h->pending[0].windows) {
        int64_t value = h->pending[0].window;

        for (struct h2_stream *st = h->streams; st; st = st->next) {
            st->recv_window -= value < h->window ? h->window - value : 0;
        }
        h->window = value;
    }
    if (h->pending[0].tables) {
        h->table_max = ag_min_size(h->pending[0].table, AG_HPACK_TABLE_BYTES);
    }
    if (h->pending[0].streams != UINT32_MAX) {
        h->streams_max = h->pending[0].streams;
    }
    h->pending_count--;
    memmove(h->pending, h->pending + 1, h->pending_count * sizeof(h->pending[0]));
}

static void on_settings(struct h2 *h, const struct frame *f)
{
    must(h, f->id == 0, f->id, "SETTINGS of a stream");
    if (f->flags & H2_ACK) {
        must(h, f->len == 0, 0, "SETTINGS that acknowledge and say more");
        on_settings_ack(h);
        return;
    }
    must(h, f->len % 6 == 0, 0, "SETTINGS's size");
    for (uint32_t at = 0; at < f->len; at += 6) {
        const uint8_t *p = f->payload.ptr + at;

        on_setting(h, (uint32_t)p[0] << 8 | p[1], h2_u32_at(p + 2));
    }
    h->settled = true;
    h2_put_frame(h, H2_SETTINGS, H2_ACK, 0, NULL, 0);
}

static void on_ping(struct h2 *h, const struct frame *f)
{
    uint64_t opaque;

    must(h, f->id == 0 && f->len == 8, f->id, "PING");
    if (!(f->flags & H2_ACK)) {
        h2_put_frame(h, H2_PING, H2_ACK, 0, f->payload.ptr, 8);
        return;
    }
    memcpy(&opaque, f->payload.ptr, sizeof(opaque));
    must(h, ++h->pings_got <= h->pings_sent, 0, "an answer to no PING");
    h->events->ponged(h, opaque);
}

static void on_goaway(struct h2 *h, const struct frame *f)
{
    uint32_t last, code;

    must(h, f->id == 0 && f->len >= 8, f->id, "GOAWAY");
    last = h2_u32_at(f->payload.ptr);
    code = h2_u32_at(f->payload.ptr + 4);
    must(h, !h->going || last <= h->going_last, 0, "GOAWAY that takes more than before");
    h->going = true;
    h->going_last = last;
    h->going_code = code;
    sim_note(h->sim, "h2: goaway", last, code);
    sim_show(h->sim, f->payload.ptr + 8, f->len - 8);
    h->events->goaway(h, last, code);
}

static void on_window_update(struct h2 *h, const struct frame *f)
{
    struct h2_stream *st = h2_stream_of(h, f->id);
    int64_t *window = f->id ? st ? &st->send_window : NULL : &h->send_window;
    uint32_t more;

    must(h, f->len == 4, f->id, "WINDOW_UPDATE's size");
    must(h, f->id == 0 || st || f->id <= h->top_id, f->id, "WINDOW_UPDATE of no stream");
    more = h2_u32_at(f->payload.ptr);
    must(h, more > 0 && more <= H2_WINDOW_MAX, f->id, "a window's growth");
    if (window) {
        *window += more;
        must(h, *window <= H2_WINDOW_MAX, f->id, "a window");
    }
}

static void on_frame(struct h2 *h, const struct frame *f)
{
    static const uint8_t flags[] = {H2_END_STREAM | H2_PADDED,
                                    H2_END_STREAM | H2_END_HEADERS | H2_PADDED | H2_PRIORITISED,
                                    0,
                                    0,
                                    H2_ACK,
                                    0,
                                    H2_ACK,
                                    0,
                                    0,
                                    H2_END_HEADERS};

    sim_note(h->sim, h->server ? "h2: frame of the client" : "h2: frame of the server",
             (uint64_t)f->type << 32 | f->id, (uint64_t)f->flags << 32 | f->len);
    must(h, f->type < AG_COUNT(flags), f->id, "a frame of no known type");
    must(h, !(f->flags & ~flags[f->type]), f->id, "flags");
    must(h, h->settled || (f->type == H2_SETTINGS && !(f->flags & H2_ACK)), f->id,
         "it does not begin with SETTINGS");
    must(h, !h->block_id || (f->type == H2_CONTINUATION && f->id == h->block_id), f->id,
         "a frame within a field section");
    must(h, h->block_id || f->type != H2_CONTINUATION, f->id, "CONTINUATION of nothing");
    switch ((enum h2_type)f->type) {
    case H2_DATA:
        on_data(h, f);
        return;
    case H2_HEADERS:
    case H2_CONTINUATION:
        on_headers(h, f);
        return;
    case H2_RST_STREAM:
        on_reset(h, f);
        return;
    case H2_SETTINGS:
        on_settings(h, f);
        return;
    case H2_PING:
        on_ping(h, f);
        return;
    case H2_GOAWAY:
        on_goaway(h, f);
        return;
    case H2_WINDOW_UPDATE:
        on_window_update(h, f);
        return;
    case H2_PRIORITY:
    case H2_PUSH_PROMISE:
    case H2_PRIORITY_UPDATE:
        break;
    }
    bad(h, f->id, "a frame that it does not send");
}

static size_t take_preface(struct h2 *h, struct ag_span in)
{
    struct ag_span want = AG_SPAN(H2_PREFACE);
    size_t n = ag_min_size(in.len, want.len - h->preface_got);

    must(h, memcmp(in.ptr, want.ptr + h->preface_got, n) == 0, 0, "its preface");
    h->preface_got += n;
    return n;
}

void h2_feed(struct h2 *h, struct ag_span in)
{
    size_t at = 0;

    if (!h->in) {
        h->in = sim_alloc_raw(h->sim, H2_HEADER_BYTES + 2 * H2_FRAME_MIN);
    }
    if (h->server && h->preface_got < sizeof(H2_PREFACE) - 1) {
        at = take_preface(h, in);
    }
    while (at < in.len && h->end->open) {
        uint32_t len = h->in_len < 3 ? 0 : h2_u32_at(h->in) >> 8;
        size_t want = h->in_len < H2_HEADER_BYTES ? H2_HEADER_BYTES : H2_HEADER_BYTES + len;
        size_t n = ag_min_size(want - h->in_len, in.len - at);

        memcpy(h->in + h->in_len, in.ptr + at, n);
        h->in_len += n;
        at += n;
        if (h->in_len < H2_HEADER_BYTES) {
            return;
        }
        len = h2_u32_at(h->in) >> 8;
        h->other = h->other || (!h->settled && memcmp(h->in, "HTTP/1.1 ", H2_HEADER_BYTES) == 0);
        if (h->other) {
            return;
        }
        must(h, len <= h->frame_max, 0, "a frame that is too large");
        if (h->in_len == H2_HEADER_BYTES + len) {
            struct frame f = {.len = len, .type = h->in[3], .flags = h->in[4]};

            f.id = h2_u32_at(h->in + 5);
            f.payload = ag_span(h->in + H2_HEADER_BYTES, len);
            h->in_len = 0;
            on_frame(h, &f);
        }
    }
}

bool h2_is_between(const struct h2 *h)
{
    return (h->in_len == 0 && h->block_id == 0) || h->other;
}
