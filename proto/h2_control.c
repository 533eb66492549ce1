#include "proto/h2_conn_parts.h"

static bool bad(struct ag_h2_conn *c, enum ag_h2_error code, const char *what)
{
    ag_h2_conn_fail(c, code, AG_REASON_PROTOCOL, what);
    return false;
}

/* ---- sections ---- */

static void skip_section(struct ag_h2_conn *c, struct ag_span section)
{
    enum ag_status st = ag_h2_skip_section(&c->decoder, section, &AG_H1_LIMITS_DEFAULT);

    if (st == AG_ELIMIT) {
        ag_h2_conn_fail(c, AG_H2_ENHANCE_YOUR_CALM, AG_REASON_LIMIT, "a flood of fields");
    } else if (st != AG_OK) {
        (void)bad(c, AG_H2_COMPRESSION_ERROR, "a field section that cannot be decoded");
    }
}

static void live_section(struct ag_h2_conn *c, struct ag_h2_stream *s, struct ag_span section,
                         bool end)
{
    if (s->ended) {
        skip_section(c, section);
        if (!ag_h2_conn_is_closing(c)) {
            ag_h2_stream_error(s, AG_H2_STREAM_CLOSED, "fields behind the end of a stream");
        }
        return;
    }
    c->role->section(s, section, end);
    if (end && s->live) {
        ag_h2_stream_ended(s);
    }
}

static void closed_section(struct ag_h2_conn *c, uint32_t id, struct ag_span section)
{
    enum ag_h2_closed by = ag_h2_closed_by(c, id);

    if (by == AG_H2_CLOSED_BY_END && c->role->server && id != c->last_id) {
        /* Numbers go up: what was never begun is closed by those above (section 5.1.1). */
        (void)bad(c, AG_H2_PROTOCOL_ERROR, "a stream's number goes back");
        return;
    }
    if (by == AG_H2_CLOSED_BY_END) {
        (void)bad(c, AG_H2_STREAM_CLOSED, "fields for a closed stream");
        return;
    }
    /* An upstream that goes on for one that was given up costs no other call. */
    if (c->role->server && !ag_h2_conn_noise(c, "fields of closed streams")) {
        return;
    }
    skip_section(c, section);
    if (by == AG_H2_CLOSED_BY_PEER && !ag_h2_conn_is_closing(c)) {
        ag_h2_conn_refuse(c, id, AG_H2_STREAM_CLOSED, true);
    }
}

/* A whole section of the stream that its HEADERS named. */
static void take_section(struct ag_h2_conn *c, uint32_t id, struct ag_span section, bool end)
{
    struct ag_h2_stream *s;

    if (c->role->server && id & 1 && id > c->last_id) {
        c->last_id = id;
        if (id <= c->goaway_id) {
            c->role->open(c, id, section, end);
        } else if (ag_h2_conn_noise(c, "streams behind GOAWAY")) {
            skip_section(c, section);
        }
        return;
    }
    s = ag_h2_conn_find(c, id);
    if (s) {
        live_section(c, s, section, end);
    } else if (ag_h2_is_idle(c, id)) {
        (void)bad(c, AG_H2_PROTOCOL_ERROR, "a stream that its side may not begin");
    } else {
        closed_section(c, id, section);
    }
}

/* Without padding and priority. */
static bool strip_headers(struct ag_h2_conn *c, struct ag_span *p, bool *out_on_itself)
{
    const struct ag_h2_frame *f = &c->in.frame;
    size_t front = (f->flags & AG_H2_PADDED ? 1u : 0u) + (f->flags & AG_H2_PRIORITISED ? 5u : 0u);
    size_t padding = f->flags & AG_H2_PADDED && p->len ? p->ptr[0] : 0;

    if (front > p->len) {
        return bad(c, AG_H2_FRAME_SIZE_ERROR, "HEADERS of a wrong size");
    }
    if (padding > p->len - front) {
        return bad(c, AG_H2_PROTOCOL_ERROR, "more padding than payload");
    }
    *out_on_itself = f->flags & AG_H2_PRIORITISED && ag_h2_u31(p->ptr + front - 5) == f->id;
    *p = ag_span_sub(*p, front, p->len - padding);
    return true;
}

static void on_headers(struct ag_h2_conn *c, struct ag_span p)
{
    const struct ag_h2_frame *f = &c->in.frame;
    bool end = f->flags & AG_H2_END_STREAM, on_itself = false;

    if (!strip_headers(c, &p, &on_itself)) {
        return;
    }
    if (on_itself) {
        (void)bad(c, AG_H2_PROTOCOL_ERROR, "a stream that depends on itself");
        return;
    }
    if (f->flags & AG_H2_END_HEADERS) {
        take_section(c, f->id, p, end);
        return;
    }
    if (p.len == 0 && !ag_h2_conn_noise(c, "empty HEADERS")) {
        return;
    }
    if (c->in.part) { /* its payload was gathered there */
        memmove(c->in.part->data, p.ptr, p.len);
        c->in.part_len = (uint32_t)p.len;
    } else if (!ag_h2_input_keep(c, p)) {
        return;
    }
    c->in.section_len = c->in.part_len;
    c->in.section_id = f->id;
    c->in.section_end = end;
    c->in.section_frames = 0;
}

static void on_continuation(struct ag_h2_conn *c, struct ag_span p)
{
    struct ag_h2_input *in = &c->in;
    uint32_t id = in->section_id;

    if (++in->section_frames > AG_H2_CONTINUATIONS_MAX ||
        p.len > AG_H2_SECTION_MAX - in->section_len) {
        (void)bad(c, AG_H2_ENHANCE_YOUR_CALM, "a field section too large");
        return;
    }
    if (p.len == 0 && !ag_h2_conn_noise(c, "empty CONTINUATION")) {
        return;
    }
    if (in->part_len == in->section_len && !ag_h2_input_keep(c, p)) {
        return;
    }
    in->section_len = in->part_len; /* else it was gathered behind the rest */
    if (in->frame.flags & AG_H2_END_HEADERS) {
        in->section_id = 0;
        take_section(c, id, ag_span(in->part->data, in->section_len), in->section_end);
    }
}

/* ---- what else there is ---- */

static void on_priority(struct ag_h2_conn *c, struct ag_span p)
{
    uint32_t id = c->in.frame.id;
    struct ag_h2_stream *s;
    enum ag_h2_error code = p.len != 5 ? AG_H2_FRAME_SIZE_ERROR : AG_H2_PROTOCOL_ERROR;

    /* What it says is of no interest: SETTINGS_NO_RFC7540_PRIORITIES. */
    if (!ag_h2_conn_noise(c, "PRIORITY") || (p.len == 5 && ag_h2_u31(p.ptr) != id)) {
        return;
    }
    s = ag_h2_conn_find(c, id);
    if (s) {
        ag_h2_stream_error(s, code, "a malformed PRIORITY");
    } else {
        (void)bad(c, code, "a malformed PRIORITY");
    }
}

static void on_reset(struct ag_h2_conn *c, struct ag_span p)
{
    struct ag_h2_stream *s = ag_h2_conn_find(c, c->in.frame.id);
    uint32_t code = ag_h2_u32(p.ptr);

    /* Behind the end of an answer it wastes no work. */
    if (!s || s->sent ? !ag_h2_conn_noise(c, "RST_STREAM of closed streams")
                      : !ag_h2_conn_count_reset(c)) {
        return;
    }
    if (s) {
        ag_h2_remember_reset(c, s->id);
        ag_h2_stream_lose(s, code <= AG_H2_HTTP_1_1_REQUIRED ? code : AG_H2_INTERNAL_ERROR,
                          AG_REASON_RESET, "the peer reset the stream");
    }
}

/* A new size of windows counts for streams that live, too (RFC 9113 section 6.9.2). */
static bool set_window(struct ag_h2_conn *c, uint32_t value)
{
    int64_t more = (int64_t)value - c->peer_window;

    if (value > AG_H2_WINDOW_MAX) {
        return bad(c, AG_H2_FLOW_CONTROL_ERROR, "a window too large");
    }
    c->peer_window = (int32_t)value;
    for (size_t i = 0; i < AG_H2_BUCKETS && more != 0; i++) {
        for (struct ag_h2_stream *s = c->buckets[i]; s; s = s->next) {
            if (s->send_window + more > AG_H2_WINDOW_MAX) {
                return bad(c, AG_H2_FLOW_CONTROL_ERROR, "a window too large");
            }
            s->send_window += (int32_t)more;
            if (s->waiting && s->send_window > 0) {
                ag_h2_stream_queue(s);
            }
        }
    }
    return true;
}

static bool set(struct ag_h2_conn *c, struct ag_h2_pair pair)
{
    uint32_t value = pair.value;

    switch (pair.id) {
    case AG_H2_HEADER_TABLE_SIZE:
        ag_hpack_resize(&c->encoder, value);
        return true;
    case AG_H2_ENABLE_PUSH:
        return value <= (c->role->server ? 1 : 0) ||
               bad(c, AG_H2_PROTOCOL_ERROR, "a bad value of ENABLE_PUSH");
    case AG_H2_MAX_CONCURRENT_STREAMS:
        c->peer_streams_max = value;
        return true;
    case AG_H2_INITIAL_WINDOW_SIZE:
        return set_window(c, value);
    case AG_H2_MAX_FRAME_SIZE:
        if (value < AG_H2_FRAME_DEFAULT || value > AG_H2_FRAME_MAX) {
            return bad(c, AG_H2_PROTOCOL_ERROR, "a bad value of MAX_FRAME_SIZE");
        }
        c->peer_frame_max = value;
        return true;
    case AG_H2_ENABLE_CONNECT_PROTOCOL:
        if (value > 1 || (value == 0 && c->peer_connect)) {
            return bad(c, AG_H2_PROTOCOL_ERROR, "a bad value of ENABLE_CONNECT_PROTOCOL");
        }
        c->peer_connect = value == 1;
        return true;
    case AG_H2_NO_RFC7540_PRIORITIES:
        return value <= 1 || bad(c, AG_H2_PROTOCOL_ERROR, "a bad value of NO_RFC7540_PRIORITIES");
    default:
        return true;
    }
}

static void on_settings(struct ag_h2_conn *c, struct ag_span p)
{
    if (!ag_h2_conn_noise(c, "SETTINGS") || c->in.frame.flags & AG_H2_ACK) {
        return;
    }
    if (c->state == AG_H2_SETTLING) {
        c->state = AG_H2_OPEN;
        c->peer_streams_max = UINT32_MAX;
    }
    for (size_t at = 0; at < p.len; at += AG_H2_SETTING_BYTES) {
        if (!set(c, ag_h2_read_setting(p.ptr + at))) {
            return;
        }
    }
    if (ag_h2_put_frame(c, AG_H2_SETTINGS, AG_H2_ACK, 0, AG_SPAN("")) && c->role->settled) {
        c->role->settled(c);
    }
}

/* What we have asked for is no noise: a fast peer of a large answer is asked thousands of times a second. */
static void on_pong(struct ag_h2_conn *c, uint8_t kind)
{
    c->ping_sent_ms[kind] = 0;
    if (kind == AG_H2_PING_BDP) {
        ag_h2_flow_measured(c);
    } else {
        c->role->pong(c, kind);
    }
}

static void on_ping(struct ag_h2_conn *c, struct ag_span p)
{
    bool ack = c->in.frame.flags & AG_H2_ACK;
    uint8_t kind = p.ptr[7];

    if (ack && kind < AG_H2_PINGS && c->ping_sent_ms[kind]) {
        on_pong(c, kind);
    } else if (ag_h2_conn_noise(c, "PING") && !ack) {
        (void)ag_h2_put_frame(c, AG_H2_PING, AG_H2_ACK, 0, p);
    }
}

static void on_goaway(struct ag_h2_conn *c, struct ag_span p)
{
    uint32_t last = ag_h2_u31(p.ptr), code = ag_h2_u32(p.ptr + 4);

    if (!ag_h2_conn_noise(c, "GOAWAY")) {
        return;
    }
    c->goaway_seen = true;
    if (!c->role->server) {
        ag_h2_conn_lose_above(c, last,
                              code == AG_H2_HTTP_1_1_REQUIRED ? AG_H2_HTTP_1_1_REQUIRED
                                                              : AG_H2_REFUSED_STREAM,
                              AG_REASON_ABORTED, "the peer goes away");
    }
    if (c->role->goaway && !ag_h2_conn_is_closing(c)) {
        c->role->goaway(c, last, code);
    }
}

static void on_window_update(struct ag_h2_conn *c, struct ag_span p)
{
    uint32_t id = c->in.frame.id, more = ag_h2_u31(p.ptr);
    struct ag_h2_stream *s = id ? ag_h2_conn_find(c, id) : NULL;

    if (c->updates > 0) {
        c->updates--;
    } else if (!ag_h2_conn_noise(c, "WINDOW_UPDATE")) {
        return;
    }
    if (id == 0) {
        if (more == 0) {
            (void)bad(c, AG_H2_PROTOCOL_ERROR, "a window update of nothing");
        } else if (c->send_window + more > AG_H2_WINDOW_MAX) {
            (void)bad(c, AG_H2_FLOW_CONTROL_ERROR, "a window too large");
        } else {
            ag_h2_send_given(c, NULL, more);
        }
        return;
    }
    if (!s) {
        return; /* it may have been on its way when the stream ended */
    }
    if (more == 0) {
        ag_h2_stream_error(s, AG_H2_PROTOCOL_ERROR, "a window update of nothing");
    } else if ((int64_t)s->send_window + more > AG_H2_WINDOW_MAX) {
        ag_h2_stream_error(s, AG_H2_FLOW_CONTROL_ERROR, "a window too large");
    } else {
        ag_h2_send_given(c, s, more);
    }
}

/* RFC 9218 section 7.1. */
static void on_priority_update(struct ag_h2_conn *c, struct ag_span p)
{
    uint32_t id = ag_h2_u31(p.ptr);
    struct ag_h2_priority priority = AG_H2_PRIORITY_DEFAULT;
    struct ag_h2_stream *s;

    if (!(id & 1)) {
        (void)bad(c, AG_H2_PROTOCOL_ERROR, "a priority of no stream");
        return;
    }
    if (!ag_h2_conn_noise(c, "PRIORITY_UPDATE")) {
        return;
    }
    ag_h2_priority_read(ag_span_sub(p, 4, p.len), &priority);
    s = ag_h2_conn_find(c, id);
    if (s) {
        s->prioritised = true;
        ag_h2_stream_set_priority(s, priority);
    } else if (ag_h2_is_idle(c, id)) {
        c->early[c->early_next++ % AG_H2_EARLY_IDS] = (struct ag_h2_early){id, priority};
    }
}

void ag_h2_dispatch(struct ag_h2_conn *c, struct ag_span payload)
{
    switch (c->in.frame.type) {
    case AG_H2_HEADERS:
        on_headers(c, payload);
        break;
    case AG_H2_PRIORITY:
        on_priority(c, payload);
        break;
    case AG_H2_RST_STREAM:
        on_reset(c, payload);
        break;
    case AG_H2_SETTINGS:
        on_settings(c, payload);
        break;
    case AG_H2_PING:
        on_ping(c, payload);
        break;
    case AG_H2_GOAWAY:
        on_goaway(c, payload);
        break;
    case AG_H2_WINDOW_UPDATE:
        on_window_update(c, payload);
        break;
    case AG_H2_CONTINUATION:
        on_continuation(c, payload);
        break;
    case AG_H2_PRIORITY_UPDATE:
        on_priority_update(c, payload);
        break;
    default: /* what is not known is passed over (RFC 9113 section 5.5) */
        (void)ag_h2_conn_noise(c, "unknown frames");
        break;
    }
}
