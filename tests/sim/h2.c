#include "tests/sim/h2_parts.h"

#include <stdarg.h>

void h2_init(struct h2 *h, struct sim *s, struct net_end *end, bool server,
             const struct h2_events *events, void *owner)
{
    *h = (struct h2){.sim = s, .end = end, .server = server, .events = events, .owner = owner};
    h->next_id = 1;
    h->peer_frame_max = h->frame_max = H2_FRAME_MIN;
    h->peer_window = h->window = h->send_window = h->recv_window = H2_WINDOW;
    h->peer_streams_max = h->streams_max = UINT32_MAX;
    h->table_max = AG_HPACK_TABLE_BYTES;
    h->out_max = 16384;
    h->out = sim_alloc_raw(s, h->out_max);
    h->block = sim_alloc_raw(s, H2_BLOCK_MAX);
    h->ignored = sim_alloc(s, sizeof(*h->ignored));
    /* Both tables and the decoder's scratch: it is never more. */
    h->memory.at = sim_alloc_raw(s, 4 * AG_ARENA_PAGE_BYTES);
    h->memory.end = h->memory.at + 4 * AG_ARENA_PAGE_BYTES;
    ag_hpack_decoder_init(&h->decoder, &h->memory);
    ag_hpack_encoder_init(&h->encoder, &h->memory);
}

struct h2_stream *h2_stream_of(const struct h2 *h, uint32_t id)
{
    struct h2_stream *st = h->streams;

    while (st && st->id != id) {
        st = st->next;
    }
    return st;
}

struct h2_stream *h2_open(struct h2 *h, uint32_t id, struct message *m)
{
    struct h2_stream *st = sim_alloc(h->sim, sizeof(*st));
    int64_t most = h->window, promised = h->window;

    for (uint32_t i = 0; i < h->pending_count; i++) { /* as if it had been there (raise_windows) */
        if (h->pending[i].windows) {
            most += h->pending[i].window > promised ? h->pending[i].window - promised : 0;
            promised = h->pending[i].window;
        }
    }
    *st = (struct h2_stream){
        .id = id, .message = m, .send_window = h->peer_window, .recv_window = most};
    st->next = h->streams;
    h->streams = st;
    h->open++;
    h->top_id = id > h->top_id ? id : h->top_id;
    h->next_id = id >= h->next_id ? id + 2 : h->next_id;
    return st;
}

/* ---- output ---- */

void h2_put_raw(struct h2 *h, const void *bytes, size_t len)
{
    if (h->out_at == h->out_len) {
        h->out_at = h->out_len = 0;
    }
    if (len > h->out_max - h->out_len) {
        uint8_t *from = h->out + h->out_at;
        size_t left = h2_unwritten(h);

        while (len > h->out_max - left) {
            h->out_max *= 2;
            h->out = NULL;
        }
        h->out = h->out ? h->out : sim_alloc_raw(h->sim, h->out_max);
        memmove(h->out, from, left);
        h->out_at = 0;
        h->out_len = left;
    }
    if (len) {
        memcpy(h->out + h->out_len, bytes, len);
        h->out_len += len;
    }
}

int64_t h2_write(struct h2 *h, size_t max)
{
    int64_t n = net_write(h->end, h->out + h->out_at, ag_min_size(max, h2_unwritten(h)));

    if (n > 0) {
        h->out_at += (size_t)n;
    }
    return n;
}

void h2_put_frame(struct h2 *h, unsigned type, unsigned flags, uint32_t id, const void *payload,
                  size_t len)
{
    uint8_t header[H2_HEADER_BYTES];

    h2_u32_to(header, (uint32_t)len << 8 | type);
    header[4] = (uint8_t)flags;
    h2_u32_to(header + 5, id);
    h2_put_raw(h, header, sizeof(header));
    h2_put_raw(h, payload, len);
}

void h2_put_u32(struct h2 *h, unsigned type, uint32_t id, uint32_t value)
{
    uint8_t payload[4];

    h2_u32_to(payload, value);
    h2_put_frame(h, type, 0, id, payload, sizeof(payload));
}

void h2_put_ping(struct h2 *h, uint64_t opaque)
{
    h->pings_sent++;
    h2_put_frame(h, H2_PING, 0, 0, &opaque, sizeof(opaque));
}

void h2_put_goaway(struct h2 *h, uint32_t last, uint32_t code)
{
    uint8_t payload[8];

    h2_u32_to(payload, last);
    h2_u32_to(payload + 4, code);
    h->went = true;
    h->went_last = last;
    h2_put_frame(h, H2_GOAWAY, 0, 0, payload, sizeof(payload));
}

void h2_put_reset(struct h2 *h, struct h2_stream *st, uint32_t code)
{
    bool was = h2_is_over(st);

    st->reset_sent = true;
    h2_count_over(h, was, st);
    h2_put_u32(h, H2_RST_STREAM, st->id, code);
}

/* What the peer may believe until it says ACK is the best of the old and the new. */
static void raise_windows(struct h2 *h, int64_t from, int64_t to)
{
    for (struct h2_stream *st = h->streams; st; st = st->next) {
        st->recv_window += to > from ? to - from : 0;
    }
}

static int64_t window_promised(const struct h2 *h)
{
    for (uint32_t i = h->pending_count; i > 0; i--) {
        if (h->pending[i - 1].windows) {
            return h->pending[i - 1].window;
        }
    }
    return h->window;
}

void h2_put_settings(struct h2 *h, const struct h2_pair *pairs, unsigned count)
{
    uint8_t payload[6 * 8];
    uint32_t i = h->pending_count++;

    AG_ASSERT(count <= 8 && i < H2_PENDING_MAX);
    memset(&h->pending[i], 0, sizeof(h->pending[i]));
    h->pending[i].streams = UINT32_MAX;
    for (unsigned k = 0; k < count; k++) {
        uint8_t *p = payload + 6 * (size_t)k;
        uint32_t value = pairs[k].value;

        p[0] = 0;
        p[1] = (uint8_t)pairs[k].id;
        h2_u32_to(p + 2, value);
        if (pairs[k].id == H2_INITIAL_WINDOW) {
            raise_windows(h, window_promised(h), value);
            h->pending[i].windows = true;
            h->pending[i].window = value;
        } else if (pairs[k].id == H2_TABLE_SIZE) {
            h->pending[i].tables = true;
            h->pending[i].table = value;
        } else if (pairs[k].id == H2_MAX_FRAME) {
            h->frame_max = value > h->frame_max ? value : h->frame_max;
        } else if (pairs[k].id == H2_MAX_STREAMS) {
            h->pending[i].streams = value;
        }
    }
    h2_put_frame(h, H2_SETTINGS, 0, 0, payload, 6 * (size_t)count);
}

void h2_grant(struct h2 *h, struct h2_stream *st, uint32_t bytes)
{
    uint64_t *owed = st ? &st->owed : &h->owed;
    int64_t *window = st ? &st->recv_window : &h->recv_window;

    AG_ASSERT(bytes > 0);
    *owed -= ag_min_u64(*owed, bytes);
    *window += bytes;
    h2_put_u32(h, H2_WINDOW_UPDATE, st ? st->id : 0, bytes);
}

/* ---- heads ---- */

void h2_head_begin(struct h2 *h)
{
    h->head = ag_buf(sim_alloc_raw(h->sim, H2_BLOCK_MAX), H2_BLOCK_MAX);
    ag_hpack_begin(&h->encoder, &h->head);
}

static enum ag_hpack_pseudo pseudo_of(const char *name)
{
    return strcmp(name, ":authority") == 0 ? AG_HPACK_AUTHORITY
           : strcmp(name, ":method") == 0  ? AG_HPACK_METHOD
           : strcmp(name, ":path") == 0    ? AG_HPACK_PATH
           : strcmp(name, ":scheme") == 0  ? AG_HPACK_SCHEME
                                           : AG_HPACK_STATUS;
}

void h2_head_put(struct h2 *h, const char *name, struct ag_span value)
{
    static const enum ag_hpack_indexing ways[] = {AG_HPACK_INDEX, AG_HPACK_INDEX, AG_HPACK_PLAIN,
                                                  AG_HPACK_SECRET};
    enum ag_hpack_indexing how = ways[sim_below(h->sim, AG_COUNT(ways))];
    struct ag_span key = ag_span_str(name);

    if (name[0] == ':' && strcmp(name, ":protocol") != 0) {
        ag_hpack_put_pseudo(&h->encoder, &h->head, pseudo_of(name), value, how);
    } else {
        ag_hpack_put(&h->encoder, &h->head, ag_field_id_from_name(key), key, value, how);
    }
    AG_ASSERT(!h->head.overflow);
}

void h2_head_raw(struct h2 *h, struct ag_span name, struct ag_span value)
{
    const uint8_t lens[2] = {(uint8_t)name.len, (uint8_t)value.len};

    AG_ASSERT(name.len < 127 && value.len < 127);
    ag_buf_putc(&h->head, 0);
    ag_buf_put(&h->head, ag_span(lens, 1));
    ag_buf_put(&h->head, name);
    ag_buf_put(&h->head, ag_span(lens + 1, 1));
    ag_buf_put(&h->head, value);
}

void h2_head_printf(struct h2 *h, const char *name, const char *fmt, ...)
{
    char text[256];
    va_list args;
    int n;

    va_start(args, fmt);
    n = vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    AG_ASSERT(n >= 0 && (size_t)n < sizeof(text));
    h2_head_put(h, name, ag_span(text, (size_t)n));
}

/* In one frame or some, with padding and an old priority at times. */
void h2_head_end(struct h2 *h, struct h2_stream *st, bool end_stream)
{
    struct sim *s = h->sim;
    struct ag_span left = ag_buf_span(&h->head);
    uint8_t payload[H2_FRAME_MIN];
    unsigned type = H2_HEADERS, flags = end_stream ? H2_END_STREAM : 0;
    bool cut = sim_chance(s, 150), was = h2_is_over(st);

    do {
        size_t at = 0, pad = 0, n;

        if (type == H2_HEADERS && sim_chance(s, 100)) {
            pad = (size_t)sim_below(s, 256);
            flags |= H2_PADDED;
            payload[at++] = (uint8_t)pad;
        }
        if (type == H2_HEADERS && !h->server && sim_chance(s, 50)) {
            flags |= H2_PRIORITISED;
            h2_u32_to(payload + at, 0);
            payload[at + 4] = 15;
            at += 5;
        }
        n = ag_min_size(left.len, sizeof(payload) - at - pad);
        n = cut ? (size_t)sim_between(s, 0, n) : n;
        cut = cut && sim_chance(s, 700);
        memcpy(payload + at, left.ptr, n);
        memset(payload + at + n, 0, pad);
        left = ag_span_sub(left, n, left.len);
        flags |= left.len == 0 ? H2_END_HEADERS : 0;
        h2_put_frame(h, type, flags, st->id, payload, at + n + pad);
        type = H2_CONTINUATION;
        flags = 0;
    } while (left.len > 0);
    st->end_sent |= end_stream;
    h2_count_over(h, was, st);
}

size_t h2_room(const struct h2 *h, const struct h2_stream *st)
{
    int64_t n = st->send_window < h->send_window ? st->send_window : h->send_window;

    return n > 0 ? ag_min_u64((uint64_t)n, H2_FRAME_MIN) : 0;
}

void h2_put_data(struct h2 *h, struct h2_stream *st, struct ag_span content, bool end_stream)
{
    uint8_t payload[H2_FRAME_MIN];
    size_t room = h2_room(h, st) - content.len, pad = 0, at = 0;
    bool was = h2_is_over(st);
    unsigned flags = end_stream ? H2_END_STREAM : 0;

    AG_ASSERT(content.len <= h2_room(h, st));
    if (room > 0 && sim_chance(h->sim, 50)) {
        pad = (size_t)sim_below(h->sim, ag_min_size(room, 256));
        flags |= H2_PADDED;
        payload[at++] = (uint8_t)pad;
    }
    memcpy(payload + at, content.ptr, content.len);
    memset(payload + at + content.len, 0, pad);
    at += content.len + pad;
    st->send_window -= (int64_t)at;
    h->send_window -= (int64_t)at;
    st->end_sent |= end_stream;
    h2_put_frame(h, H2_DATA, flags, st->id, payload, at);
    h2_count_over(h, was, st);
}
