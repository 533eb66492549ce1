#include "proto/h2_conn_parts.h"

/* Beyond what DATA fills: answers to PING and SETTINGS, resets, window updates. A peer that does not take
 * them is not read. */
#define CONTROL_QUEUE_BYTES (16u * 1024u)
/* Sections of one connection that are worked on before others have their turn. */
#define SECTIONS_AT_ONCE 128u
/* Frames but DATA and sections are no longer than this, as far as we read them. */
#define CONTROL_BYTES_MAX AG_BUF_SMALL_BYTES

static bool bad(struct ag_h2_conn *c, enum ag_h2_error code, const char *what)
{
    ag_h2_conn_fail(c, code, AG_REASON_PROTOCOL, what);
    return false;
}

/* ---- bytes ---- */

/* Drops `n` bytes of the first slice. */
static void use(struct ag_h2_conn *c, size_t n)
{
    struct ag_chain *q = &c->in.q;
    struct ag_slice *first = &q->head->slice;

    if (n < first->len) {
        ag_slice_advance(first, n);
        q->bytes -= n;
    } else {
        ag_chain_consume(q, &c->loop->nodes, n);
    }
}

static void drop_part(struct ag_h2_input *in)
{
    ag_block_release(in->part);
    in->part = NULL;
    in->part_len = 0;
    in->section_len = 0;
}

void ag_h2_input_clear(struct ag_h2_conn *c)
{
    ag_chain_clear(&c->in.q, &c->loop->nodes);
    drop_part(&c->in);
    c->in.in_frame = false;
    c->in.section_id = 0;
}

bool ag_h2_input_is_partial(const struct ag_h2_conn *c)
{
    const struct ag_h2_input *in = &c->in;

    return in->section_id != 0 || in->header_len > 0 ||
           (in->in_frame && in->frame.type != AG_H2_DATA) ||
           (c->state == AG_H2_PREFACE && in->q.bytes > 0);
}

/* Makes room for `bytes` in all; what is there stays. */
static bool grow_part(struct ag_h2_conn *c, size_t bytes)
{
    struct ag_h2_input *in = &c->in;
    struct ag_block *b;

    if (in->part && bytes <= in->part->size) {
        return true;
    }
    AG_ASSERT(bytes <= AG_BUF_LARGE_BYTES);
    b = ag_loop_buf(c->loop, bytes <= AG_BUF_SMALL_BYTES ? AG_BUF_SMALL : AG_BUF_LARGE);
    if (!b) {
        ag_h2_conn_fail(c, AG_H2_ENHANCE_YOUR_CALM, AG_REASON_RESOURCES, "out of buffers");
        return false;
    }
    if (in->part) {
        memcpy(b->data, in->part->data, in->part_len);
    }
    ag_block_release(in->part);
    in->part = b;
    return true;
}

bool ag_h2_input_keep(struct ag_h2_conn *c, struct ag_span bytes)
{
    struct ag_h2_input *in = &c->in;

    if (!grow_part(c, in->part_len + bytes.len)) {
        return false;
    }
    if (bytes.len) {
        memcpy(in->part->data + in->part_len, bytes.ptr, bytes.len);
        in->part_len += (uint32_t)bytes.len;
    }
    return true;
}

/* ---- headers of frames ---- */

/* Rules that need no more than the header; sizes, ids, order (RFC 9113 sections 4.2, 5.1, 6). */
static bool check_stream_frame(struct ag_h2_conn *c, const struct ag_h2_frame *f)
{
    if (f->id == 0) {
        return bad(c, AG_H2_PROTOCOL_ERROR, "a stream's frame without a stream");
    }
    if (f->type != AG_H2_HEADERS && f->type != AG_H2_PRIORITY && ag_h2_is_idle(c, f->id)) {
        return bad(c, AG_H2_PROTOCOL_ERROR, "a frame for an idle stream");
    }
    if ((f->type == AG_H2_RST_STREAM || f->type == AG_H2_WINDOW_UPDATE) && f->len != 4) {
        return bad(c, AG_H2_FRAME_SIZE_ERROR, "a frame of a wrong size");
    }
    return true;
}

static bool check_conn_frame(struct ag_h2_conn *c, const struct ag_h2_frame *f)
{
    size_t least = f->type == AG_H2_PRIORITY_UPDATE ? 4 : f->type == AG_H2_SETTINGS ? 0 : 8;

    if (f->id != 0) {
        return bad(c, AG_H2_PROTOCOL_ERROR, "a connection's frame with a stream");
    }
    if (f->len < least || (f->type == AG_H2_PING && f->len != least) ||
        (f->type == AG_H2_SETTINGS &&
         (f->len % AG_H2_SETTING_BYTES || (f->len > 0 && f->flags & AG_H2_ACK)))) {
        return bad(c, AG_H2_FRAME_SIZE_ERROR, "a frame of a wrong size");
    }
    if (f->type == AG_H2_SETTINGS && f->len > CONTROL_BYTES_MAX) {
        return bad(c, AG_H2_ENHANCE_YOUR_CALM, "too many settings");
    }
    return true;
}

static bool check_header(struct ag_h2_conn *c, const struct ag_h2_frame *f)
{
    if (f->len > AG_H2_FRAME_DEFAULT) {
        return bad(c, AG_H2_FRAME_SIZE_ERROR, "a frame larger than allowed");
    }
    if (c->state == AG_H2_SETTLING && (f->type != AG_H2_SETTINGS || f->flags & AG_H2_ACK)) {
        return bad(c, AG_H2_PROTOCOL_ERROR, "the first frame is not SETTINGS");
    }
    if ((c->in.section_id != 0) != (f->type == AG_H2_CONTINUATION) ||
        (c->in.section_id != 0 && c->in.section_id != f->id)) {
        return bad(c, AG_H2_PROTOCOL_ERROR, "a field section that is not continued, or not begun");
    }
    switch (f->type) {
    case AG_H2_DATA:
    case AG_H2_HEADERS:
    case AG_H2_PRIORITY:
    case AG_H2_RST_STREAM:
        return check_stream_frame(c, f);
    case AG_H2_SETTINGS:
    case AG_H2_PING:
    case AG_H2_GOAWAY:
        return check_conn_frame(c, f);
    case AG_H2_PUSH_PROMISE:
        return bad(c, AG_H2_PROTOCOL_ERROR, "nobody is to push");
    case AG_H2_WINDOW_UPDATE:
        if (f->id == 0 && f->len != 4) {
            return bad(c, AG_H2_FRAME_SIZE_ERROR, "a frame of a wrong size");
        }
        return f->id == 0 || check_stream_frame(c, f);
    case AG_H2_PRIORITY_UPDATE:
        if (!c->role->server) {
            return bad(c, AG_H2_PROTOCOL_ERROR, "a server does not set priorities");
        }
        return check_conn_frame(c, f);
    default: /* CONTINUATION, and what is not known */
        return true;
    }
}

/* ---- DATA ---- */

/* The stream that the frame's content goes to; NULL: to nobody. */
static struct ag_h2_stream *receiver(const struct ag_h2_conn *c)
{
    struct ag_h2_stream *s = ag_h2_conn_find(c, c->in.frame.id);

    return s && !s->ended ? s : NULL;
}

static void closed_data(struct ag_h2_conn *c, const struct ag_h2_frame *f)
{
    switch (ag_h2_closed_by(c, f->id)) {
    case AG_H2_CLOSED_BY_END:
        (void)bad(c, AG_H2_STREAM_CLOSED, "content for a closed stream");
        break;
    case AG_H2_CLOSED_BY_PEER:
        ag_h2_conn_refuse(c, f->id, AG_H2_STREAM_CLOSED, true);
        break;
    case AG_H2_CLOSED_BY_US: /* the window bounds what has content, begin_data what has not */
        if (c->role->server && f->len == 0 && f->flags & AG_H2_END_STREAM) {
            (void)ag_h2_conn_noise(c, "ends of closed streams");
        }
        break;
    }
}

/* False: the connection has failed. */
static bool begin_data(struct ag_h2_conn *c)
{
    const struct ag_h2_frame *f = &c->in.frame;
    struct ag_h2_stream *s = ag_h2_conn_find(c, f->id);

    if (f->len > c->recv_window) {
        return bad(c, AG_H2_FLOW_CONTROL_ERROR, "more content than the connection's window");
    }
    if (!s) {
        closed_data(c, f);
    } else if (s->ended) {
        ag_h2_stream_error(s, AG_H2_STREAM_CLOSED, "content behind the end of a stream");
    } else if ((int64_t)f->len > s->recv_window) {
        ag_h2_stream_error(s, AG_H2_FLOW_CONTROL_ERROR, "more content than the stream's window");
    }
    if (f->len == 0 && !(f->flags & AG_H2_END_STREAM) && !ag_h2_conn_is_closing(c)) {
        (void)ag_h2_conn_noise(c, "empty DATA");
    }
    return !ag_h2_conn_is_closing(c);
}

/* `slice` is owned: a piece of content. */
static void deliver(struct ag_h2_conn *c, struct ag_slice slice)
{
    struct ag_h2_stream *s = receiver(c);
    size_t n = slice.len;

    if (s) {
        c->role->content(s, n);
        s = receiver(c);
    }
    if (s && s->sink_left != AG_LENGTH_UNKNOWN) {
        AG_ASSERT(n <= s->sink_left); /* see check_length */
        s->sink_left -= n;
    }
    if (!s || !s->sink) {
        ag_slice_release(&slice);
        return;
    }
    if (ag_body_append(s->sink, slice) != AG_OK) {
        ag_h2_put_reset(c, s->id, AG_H2_INTERNAL_ERROR);
        if (s->live) {
            ag_h2_stream_lose(s, AG_H2_INTERNAL_ERROR, AG_REASON_RESOURCES, "out of buffers");
        }
        return;
    }
    s->moved_ms = c->loop->now_ms;
    c->held += s->sink->q.bytes - s->held;
    s->held = (uint32_t)s->sink->q.bytes;
    ag_body_owe_room(s->sink);
}

static void end_data(struct ag_h2_conn *c)
{
    struct ag_h2_stream *s = receiver(c);

    c->in.in_frame = false;
    if (s && c->in.frame.flags & AG_H2_END_STREAM) {
        ag_h2_stream_ended(s);
        s = receiver(c);
    }
    ag_h2_flow_open(c, s);
}

/* What is more than content-length tells is known before its first byte: none of the frame is passed on. */
static void check_length(struct ag_h2_conn *c)
{
    struct ag_h2_stream *s = receiver(c);

    if (s && s->sink_left != AG_LENGTH_UNKNOWN && c->in.left - c->in.padding > s->sink_left) {
        ag_h2_stream_error(s, AG_H2_PROTOCOL_ERROR, "more content than content-length tells");
    }
}

/* The length of the padding, a byte before the content. False: not there yet, or bad. */
static bool read_padding(struct ag_h2_conn *c)
{
    struct ag_h2_input *in = &c->in;

    in->padding = 0;
    if (in->frame.flags & AG_H2_PADDED) {
        if (in->frame.len == 0) {
            return bad(c, AG_H2_FRAME_SIZE_ERROR, "DATA of a wrong size");
        }
        if (!in->q.head) {
            return false;
        }
        in->padding = *in->q.head->slice.ptr;
        if (in->padding >= in->frame.len) {
            return bad(c, AG_H2_PROTOCOL_ERROR, "more padding than payload");
        }
        if (in->padding + 1u == in->frame.len && !(in->frame.flags & AG_H2_END_STREAM) &&
            !ag_h2_conn_noise(c, "DATA of padding")) {
            return false;
        }
        ag_h2_flow_count(c, receiver(c), 1);
        use(c, 1);
        in->left--;
    }
    in->in_data = true;
    check_length(c);
    return !ag_h2_conn_is_closing(c);
}

/* False: there is no more input. */
static bool read_data(struct ag_h2_conn *c)
{
    struct ag_h2_input *in = &c->in;

    if (!in->in_data && !read_padding(c)) {
        return false;
    }
    while (in->left > 0) {
        struct ag_slice *first = in->q.head ? &in->q.head->slice : NULL, part;
        size_t n;

        if (!first) {
            return false;
        }
        n = ag_min_size(first->len, in->left > in->padding ? in->left - in->padding : in->left);
        ag_h2_flow_count(c, receiver(c), n);
        if (in->left > in->padding) {
            part = ag_slice_sub(first, 0, n);
            use(c, n);
            in->left -= (uint32_t)n;
            deliver(c, part);
        } else {
            use(c, n);
            in->left -= (uint32_t)n;
        }
        if (ag_h2_conn_is_closing(c)) {
            return false;
        }
    }
    end_data(c);
    return true;
}

/* ---- frames ---- */

static bool read_magic(struct ag_h2_conn *c)
{
    struct ag_span magic = AG_H2_MAGIC;

    while (c->in.q.head && c->in.header_len < magic.len) {
        const struct ag_slice *first = &c->in.q.head->slice;
        size_t n = ag_min_size(first->len, magic.len - c->in.header_len);

        if (memcmp(first->ptr, magic.ptr + c->in.header_len, n) != 0) {
            return bad(c, AG_H2_PROTOCOL_ERROR, "not the preface of HTTP/2");
        }
        c->in.header_len = (uint8_t)(c->in.header_len + n);
        use(c, n);
    }
    if (c->in.header_len < magic.len) {
        return false;
    }
    c->in.header_len = 0;
    c->state = AG_H2_SETTLING;
    return true;
}

/* The next frame's header. False: not there, or bad. */
static bool read_header(struct ag_h2_conn *c)
{
    struct ag_h2_input *in = &c->in;
    struct ag_slice *first = in->q.head ? &in->q.head->slice : NULL;

    if (!first) {
        return false;
    }
    if (in->header_len == 0 && first->len >= AG_H2_HEADER_BYTES) {
        in->frame = ag_h2_read_header(first->ptr);
        use(c, AG_H2_HEADER_BYTES);
    } else {
        while (in->header_len < AG_H2_HEADER_BYTES) {
            if (!in->q.head) {
                return false;
            }
            in->header[in->header_len++] = *in->q.head->slice.ptr;
            use(c, 1);
        }
        in->frame = ag_h2_read_header(in->header);
        in->header_len = 0;
    }
    in->left = in->frame.len;
    in->in_data = false;
    in->in_frame = true;
    return check_header(c, &in->frame) && (in->frame.type != AG_H2_DATA || begin_data(c));
}

/* Bytes of the present frame's payload that are worth keeping. */
static size_t wanted(const struct ag_h2_input *in)
{
    bool fields = in->frame.type == AG_H2_HEADERS || in->frame.type == AG_H2_CONTINUATION;

    return fields ? in->frame.len : ag_min_size(in->frame.len, CONTROL_BYTES_MAX);
}

/* A payload that does not lie in the first slice alone, behind what there is of its section: in no larger a
 * buffer than what has come needs. False: it is not all there. */
static bool gather(struct ag_h2_conn *c)
{
    struct ag_h2_input *in = &c->in;
    size_t most = wanted(in);

    if (in->section_len + most > AG_H2_SECTION_MAX) {
        return bad(c, AG_H2_ENHANCE_YOUR_CALM, "a field section too large");
    }
    while (in->left > 0 && in->q.head) {
        const struct ag_slice *first = &in->q.head->slice;
        size_t n = ag_min_size(first->len, in->left);
        size_t keep = ag_min_size(n, most - (in->part_len - in->section_len));

        if (!grow_part(c, in->part_len + keep)) {
            return false;
        }
        memcpy(in->part->data + in->part_len, first->ptr, keep);
        in->part_len += (uint32_t)keep;
        in->left -= (uint32_t)n;
        use(c, n);
    }
    return in->left == 0;
}

/* False: not all of it is there, or the connection has failed. */
static bool read_payload(struct ag_h2_conn *c)
{
    struct ag_h2_input *in = &c->in;
    struct ag_slice *first = in->q.head ? &in->q.head->slice : NULL;

    if (in->left == in->frame.len && (in->left == 0 || (first && first->len >= in->left))) {
        struct ag_span payload = first ? ag_span(first->ptr, in->left) : AG_SPAN("");
        struct ag_block *owner = first ? ag_block_hold(first->owner) : NULL;

        if (in->left > 0) {
            use(c, in->left);
        }
        in->left = 0;
        in->in_frame = false;
        ag_h2_dispatch(c, payload);
        ag_block_release(owner);
    } else {
        if (!gather(c)) {
            return false;
        }
        in->in_frame = false;
        ag_h2_dispatch(c,
                       ag_span(in->part->data + in->section_len, in->part_len - in->section_len));
    }
    if (in->section_id == 0 && in->part) {
        drop_part(in);
    }
    c->part_due_ms = in->section_id ? c->part_due_ms : 0;
    return !ag_h2_conn_is_closing(c);
}

/* What is queued for the peer has to go first. */
static bool must_wait(struct ag_h2_conn *c)
{
    bool full = ag_stream_full(c->stream);

    if (c->in.frame.type == AG_H2_HEADERS) { /* its answer needs a buffer */
        return full || !ag_loop_buf_or_wait(c->loop, &c->work);
    }
    return full && ag_stream_queued(c->stream) >= AG_STREAM_HIGH + CONTROL_QUEUE_BYTES;
}

void ag_h2_read_frames(struct ag_h2_conn *c)
{
    unsigned sections = 0;

    c->blocked = false;
    if (c->state == AG_H2_PREFACE && !read_magic(c)) {
        return;
    }
    while (!ag_h2_conn_is_closing(c)) {
        if (!c->in.in_frame && !read_header(c)) {
            return;
        }
        if (c->in.frame.type == AG_H2_HEADERS && ++sections > SECTIONS_AT_ONCE) {
            c->blocked = true;
            ag_task_queue(c->loop, &c->work);
            return;
        }
        if (must_wait(c)) {
            c->blocked = true;
            return;
        }
        if (!(c->in.frame.type == AG_H2_DATA ? read_data(c) : read_payload(c))) {
            return;
        }
    }
}
