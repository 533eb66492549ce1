#include "proto/h2_conn_parts.h"

/* Content up to this size is copied behind its frame's header: cheaper than a second piece to send. */
#define INLINE_MAX 1024u
/* A frame that carries less than this, because of a window, is of no use to anybody but a peer that wants
 * to keep us busy. */
#define USEFUL_MIN 256u
/* What a nearly shut window cuts off is held back below this: if the peer gives back such pieces as they
 * come, they stay as small for ever (the silly window syndrome, RFC 1122 section 4.2.3.4). */
#define HOLD_MIN 4096u
/* Of one stream before another one of its urgency has its turn, where they share. */
#define TURN_BYTES AG_H2_FRAME_DEFAULT

bool ag_h2_put_frame(struct ag_h2_conn *c, enum ag_h2_type type, unsigned flags, uint32_t id,
                     struct ag_span payload)
{
    size_t total = AG_H2_HEADER_BYTES + payload.len;
    uint8_t *p;

    if (c->stream->closing) {
        return false;
    }
    p = ag_stream_reserve(c->stream, total);
    if (!p) {
        ag_h2_conn_abort(c, AG_REASON_RESOURCES);
        return false;
    }
    p = ag_h2_put_header(p, payload.len, type, flags, id);
    if (payload.len) {
        memcpy(p, payload.ptr, payload.len);
    }
    ag_stream_commit(c->stream, total);
    return true;
}

/* ---- sections ---- */

enum ag_status ag_h2_section_begin(struct ag_h2_conn *c, size_t max, struct ag_h2_section *out)
{
    struct ag_block *block;
    uint8_t *p;

    if (max <= AG_BUF_SMALL_BYTES - AG_H2_HEADER_BYTES) {
        p = ag_stream_reserve(c->stream, AG_H2_HEADER_BYTES + max);
        if (!p) {
            return AG_ENOMEM;
        }
        *out = (struct ag_h2_section){.buf = ag_buf(p + AG_H2_HEADER_BYTES, max), .at = p};
        return AG_OK;
    }
    if (max > AG_BUF_LARGE_BYTES) {
        return AG_ELIMIT;
    }
    block = ag_loop_buf(c->loop, AG_BUF_LARGE);
    if (!block) {
        return AG_ENOMEM;
    }
    *out = (struct ag_h2_section){.buf = ag_buf(block->data, block->size), .block = block};
    return AG_OK;
}

/* A large one: in as many frames as the peer's bound makes of it. */
static bool send_block(struct ag_h2_stream *s, struct ag_h2_section *w, unsigned flags)
{
    struct ag_h2_conn *c = s->conn;
    struct ag_slice all = {{.ptr = w->block->data}, w->buf.len, w->block};
    enum ag_h2_type type = AG_H2_HEADERS;
    bool ok = true;

    do {
        size_t n = ag_min_size(all.len, c->peer_frame_max);
        unsigned last = n == all.len ? AG_H2_END_HEADERS : 0;
        uint8_t header[AG_H2_HEADER_BYTES];

        (void)ag_h2_put_header(header, n, type, flags | last, s->id);
        ok = ag_stream_put(c->stream, ag_span(header, sizeof(header))) == AG_OK &&
             ag_stream_write(c->stream, ag_slice_sub(&all, 0, n)) == AG_OK;
        ag_slice_advance(&all, n);
        type = AG_H2_CONTINUATION;
        flags = 0;
    } while (ok && all.len > 0);
    ag_block_release(w->block);
    if (!ok) {
        ag_h2_conn_abort(c, AG_REASON_RESOURCES);
    }
    return ok;
}

bool ag_h2_section_send(struct ag_h2_stream *s, struct ag_h2_section *w, bool end)
{
    unsigned flags = end ? AG_H2_END_STREAM : 0;

    AG_ASSERT(!w->buf.overflow && s->live && !s->sent);
    s->sent = end;
    if (w->block) {
        return send_block(s, w, flags);
    }
    (void)ag_h2_put_header(w->at, w->buf.len, AG_H2_HEADERS, flags | AG_H2_END_HEADERS, s->id);
    ag_stream_commit(s->conn->stream, AG_H2_HEADER_BYTES + w->buf.len);
    return !ag_h2_conn_is_closing(s->conn);
}

/* ---- who is next ---- */

/* In order of their ids, those that do not share first among themselves: most come so. */
static void insert_in_order(struct ag_link *queue, struct ag_h2_stream *s)
{
    struct ag_link *at = queue->prev;

    while (at != queue) {
        const struct ag_h2_stream *before = ag_container_of(at, struct ag_h2_stream, link);

        if (!before->incremental && before->id < s->id) {
            break;
        }
        at = at->prev;
    }
    ag_list_push_front(at, &s->link);
}

void ag_h2_stream_queue(struct ag_h2_stream *s)
{
    struct ag_link *queue = &s->conn->queues[s->urgency];

    if (s->queued || !s->source) {
        return;
    }
    if (s->waiting) {
        if (s->send_window <= 0 && s->source->q.bytes > 0) {
            return;
        }
        ag_list_remove(&s->link);
        s->waiting = false;
    }
    s->queued = true;
    s->conn->queued++;
    if (s->incremental) {
        ag_list_push(queue, &s->link);
    } else {
        insert_in_order(queue, s);
    }
}

void ag_h2_stream_unqueue(struct ag_h2_stream *s)
{
    ag_list_remove(&s->link);
    s->conn->queued -= s->queued;
    s->queued = false;
    s->waiting = false;
}

static void begin_stall(const struct ag_h2_conn *c, struct ag_h2_stall *w)
{
    if (w->pace.due_ms == 0) {
        ag_pace_start(&w->pace, c->loop->now_ms, c->stream->stall_ms);
        w->step = 0;
    }
}

/* `n` bytes went, by whatever room the peer gave. */
static void ease_stall(const struct ag_h2_conn *c, struct ag_h2_stall *w, size_t n)
{
    if (w->pace.due_ms) {
        ag_pace_moved(&w->pace, c->loop->now_ms, n, c->stream->rate, c->stream->stall_ms);
    }
}

/* It took too long, and nothing that was sent is an excuse any more. */
static bool is_over(struct ag_h2_conn *c, struct ag_h2_stall *w)
{
    uint64_t now = c->loop->now_ms;

    if (!ag_pace_is_late(&w->pace, now)) {
        return false;
    }
    if (w->step == 0 && ag_stream_is_out(c->stream, &w->mark)) {
        w->step = 1;
    } else if (w->step == 1) {
        w->step = ag_stream_has_reached(c->stream, w->mark) ? 2 : 1;
    } else {
        return true;
    }
    ag_pace_start(&w->pace, now, c->stream->stall_ms);
    return false;
}

static void wait_for_window(struct ag_h2_stream *s)
{
    ag_h2_stream_unqueue(s);
    s->waiting = true;
    ag_list_push(&s->conn->waiting, &s->link);
    begin_stall(s->conn, &s->stall);
}

/* Content, the end or an abort is in the source. */
static void on_source(struct ag_body *b, void *owner)
{
    struct ag_h2_stream *s = owner;

    (void)b;
    ag_h2_conn_wake(s->conn);
    ag_h2_stream_queue(s);
}

void ag_h2_stream_set_source(struct ag_h2_stream *s, struct ag_body *source, uint64_t length)
{
    s->source = source;
    s->source_left = length;
    if (ag_body_has_news(source)) {
        ag_h2_conn_wake(s->conn);
        ag_h2_stream_queue(s);
    }
    ag_body_set_consumer(source, on_source, s);
}

/* ---- DATA ---- */

static void source_done(struct ag_h2_stream *s)
{
    ag_h2_stream_unqueue(s);
    ag_body_set_consumer(s->source, NULL, NULL);
    s->source = NULL;
    s->stall.pace.due_ms = 0;
    s->conn->role->sent(s);
}

/* `s` is owned; sends it as one frame. */
static bool put_data(struct ag_h2_stream *s, struct ag_slice slice, bool end)
{
    struct ag_stream *out = s->conn->stream;
    size_t copied = slice.len <= INLINE_MAX && !ag_slice_is_file(&slice) ? slice.len : 0;
    uint8_t *p = ag_stream_reserve(out, AG_H2_HEADER_BYTES + copied);
    bool ok = p != NULL;

    if (p) {
        p = ag_h2_put_header(p, slice.len, AG_H2_DATA, end ? AG_H2_END_STREAM : 0, s->id);
        if (copied) {
            memcpy(p, slice.ptr, copied);
        }
        ag_stream_commit(out, AG_H2_HEADER_BYTES + copied);
    }
    if (ok && copied < slice.len) {
        ok = ag_stream_write(out, slice) == AG_OK;
    } else {
        ag_slice_release(&slice);
    }
    if (!ok) {
        ag_h2_conn_abort(s->conn, AG_REASON_RESOURCES);
    }
    return ok && !ag_h2_conn_is_closing(s->conn);
}

static bool put_trailers(struct ag_h2_stream *s, const struct ag_fields *trailers)
{
    struct ag_h2_conn *c = s->conn;
    struct ag_h2_section w;
    enum ag_status st = ag_h2_section_begin(c, ag_h2_fields_max(trailers), &w);

    if (st == AG_ELIMIT) {
        return false;
    }
    if (st != AG_OK) {
        ag_h2_conn_abort(c, AG_REASON_RESOURCES);
        return false;
    }
    ag_h2_put_trailers(&c->encoder, &w.buf, trailers);
    return ag_h2_section_send(s, &w, true);
}

/* The source has no more bytes: its end or abort is due. */
static void send_end(struct ag_h2_stream *s)
{
    struct ag_body *src = s->source;
    struct ag_h2_conn *c = s->conn;
    bool ok;

    /* What its length says is all there is whole, whatever became of who gave it. */
    if (s->source_left == AG_LENGTH_UNKNOWN ? src->aborted : s->source_left > 0) {
        ag_h2_stream_unqueue(s);
        c->role->broken(s, src->aborted ? (enum ag_reason)src->reason : AG_REASON_PROTOCOL);
        return;
    }
    if (src->trailers && src->trailers->count > 0) {
        ok = put_trailers(s, src->trailers);
    } else {
        ok = ag_h2_put_frame(c, AG_H2_DATA, AG_H2_END_STREAM, s->id, AG_SPAN(""));
    }
    if (ok) {
        s->sent = true;
        source_done(s);
    } else if (!ag_h2_conn_is_closing(c)) {
        ag_h2_stream_unqueue(s);
        c->role->broken(s, AG_REASON_RESOURCES);
    }
}

/* The next frame of a stream whose source has bytes and whose windows are open. */
static void send_frame(struct ag_h2_stream *s)
{
    struct ag_h2_conn *c = s->conn;
    struct ag_body *src = s->source;
    size_t window = (size_t)(s->send_window < c->send_window ? s->send_window : c->send_window);
    size_t most = ag_min_size(window, s->incremental ? TURN_BYTES : c->peer_frame_max);
    struct ag_slice slice = ag_body_take_most(src, most);
    size_t n = slice.len;
    bool end;

    if (s->source_left != AG_LENGTH_UNKNOWN) {
        if (n > s->source_left) {
            ag_slice_release(&slice);
            ag_h2_stream_unqueue(s);
            c->role->broken(s, AG_REASON_PROTOCOL);
            return;
        }
        s->source_left -= n;
    }
    end = ag_body_at_end(src) && !(src->trailers && src->trailers->count > 0) &&
          (s->source_left == AG_LENGTH_UNKNOWN || s->source_left == 0);
    if (!put_data(s, slice, end)) {
        return;
    }
    s->send_window -= (int32_t)n;
    c->send_window -= (int64_t)n;
    s->sent_bytes += n;
    s->owed += n;
    c->owed += n;
    s->moved_ms = c->loop->now_ms;
    if (n >= USEFUL_MIN || n < window) {
        ag_h2_conn_earn_updates(c);
    }
    ease_stall(c, &s->stall, n);
    ease_stall(c, &c->stall, n);
    if (end) {
        s->sent = true;
        source_done(s);
    } else if (!ag_body_has_news(src)) {
        ag_h2_stream_unqueue(s);
        s->stall.pace.due_ms = 0;
    } else if (s->incremental) {
        ag_list_remove(&s->link);
        ag_list_push(&c->queues[s->urgency], &s->link);
    }
}

/* ---- windows that are nearly shut ---- */

void ag_h2_send_given(struct ag_h2_conn *c, struct ag_h2_stream *s, uint32_t more)
{
    uint64_t *owed = s ? &s->owed : &c->owed;

    *owed -= ag_min_u64(*owed, more); /* beyond that it is a window made larger */
    c->gives_early |= *owed > 0;
    if (!s) {
        c->send_window += more;
        return;
    }
    s->send_window += (int32_t)more;
    if (s->waiting) {
        ag_h2_stream_queue(s);
    }
}

/* What `window` lets through of the `bytes` that wait is a crumb, and more of it is due: the peer has got more
 * than half of it, and gives back early. (One that gives back when all is used up must have the crumb, too.) */
static bool is_crumb(struct ag_h2_conn *c, int64_t window, uint64_t owed, size_t bytes)
{
    if (!c->gives_early || window >= (int64_t)HOLD_MIN || bytes <= (uint64_t)window ||
        owed <= (uint64_t)window || owed < USEFUL_MIN) {
        return false;
    }
    if (c->hold_ms == 0) {
        c->hold_ms = c->loop->now_ms + AG_H2_HOLD_MS;
    }
    return true;
}

void ag_h2_send_held(struct ag_h2_conn *c)
{
    if (c->hold_ms == 0 || c->loop->now_ms < c->hold_ms) {
        return;
    }
    c->hold_ms = 0;
    c->gives_early = false; /* until it does so again */
    for (struct ag_link *it = c->waiting.next, *next; it != &c->waiting; it = next) {
        next = it->next;
        ag_h2_stream_queue(ag_container_of(it, struct ag_h2_stream, link));
    }
}

/* The first one that may send something now; NULL: none may. */
static struct ag_h2_stream *next_stream(struct ag_h2_conn *c)
{
    for (size_t i = 0; i < AG_H2_URGENCIES; i++) {
        for (struct ag_link *it = c->queues[i].next, *next; it != &c->queues[i]; it = next) {
            struct ag_h2_stream *s = ag_container_of(it, struct ag_h2_stream, link);

            next = it->next;
            if (s->source->q.bytes == 0) {
                return s; /* an end needs no window */
            }
            if (s->send_window <= 0 || is_crumb(c, s->send_window, s->owed, s->source->q.bytes)) {
                wait_for_window(s);
            } else if (c->send_window > 0 &&
                       !is_crumb(c, c->send_window, c->owed, s->source->q.bytes)) {
                return s;
            }
        }
    }
    return NULL;
}

void ag_h2_send_data(struct ag_h2_conn *c)
{
    while (c->queued > 0 && !ag_h2_conn_is_closing(c) && !ag_stream_full(c->stream)) {
        struct ag_h2_stream *s = next_stream(c);

        if (!s) {
            if (c->queued > 0) {
                begin_stall(c, &c->stall);
            }
            return;
        }
        if (s->source->q.bytes > 0) {
            send_frame(s);
        } else {
            send_end(s);
        }
    }
    if (c->send_window > 0 || c->queued == 0) {
        c->stall.pace.due_ms = 0;
    }
}

/* ---- peers that keep their windows shut ---- */

bool ag_h2_send_is_stalled(const struct ag_h2_conn *c)
{
    return !ag_list_empty(&c->waiting) || c->stall.pace.due_ms != 0;
}

void ag_h2_send_look(struct ag_h2_conn *c)
{
    if (c->stall.pace.due_ms && is_over(c, &c->stall)) {
        ag_h2_conn_fail(c, AG_H2_NO_ERROR, AG_REASON_TIMEOUT, "the connection's window stays shut");
        return;
    }
    for (struct ag_link *it = c->waiting.next, *next; it != &c->waiting; it = next) {
        struct ag_h2_stream *s = ag_container_of(it, struct ag_h2_stream, link);

        next = it->next;
        if (is_over(c, &s->stall)) {
            ag_h2_put_reset(c, s->id, AG_H2_CANCEL);
            if (ag_h2_conn_is_closing(c)) {
                return;
            }
            ag_h2_stream_lose(s, AG_H2_CANCEL, AG_REASON_TIMEOUT, "the stream's window stays shut");
        }
    }
}
