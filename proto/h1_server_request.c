#include "proto/h1_server_parts.h"

/* A request's content from here on is received in large buffers. */
#define LARGE_BODY_BYTES (16u * 1024u)
/* So many requests without it end that: whoever uploads once probably does so again, and the next head and its
 * content then come in one piece. */
#define SMALL_RUN 8u

/* ---- input that must lie in one piece ---- */

/*
 * Makes the first slice of `in` longer by what follows it: within its own buffer where that has room
 * and is ours alone, else in a larger one, as far as that holds it. *out_moved_from tells the old place
 * when it moved. AG_AGAIN: there is nothing more to add. AG_ELIMIT: the largest buffer is full.
 */
static enum ag_status gather(struct ag_h1_server *h, struct ag_span *out_moved_from)
{
    struct ag_slice_node *node = h->in.head, *behind = node->next;
    struct ag_slice *first = &node->slice, *next;
    struct ag_block *own = first->owner;
    size_t used = own && own->data ? (size_t)(first->ptr - own->data) + first->len : 0, take;

    *out_moved_from = (struct ag_span){NULL, 0};
    if (!behind) {
        return AG_AGAIN;
    }
    next = &behind->slice;
    if (own && own->data && own->refs == 1 && next->len <= own->size - used) {
        take = next->len;
        memcpy(own->data + used, next->ptr, take);
        first->len += take;
    } else {
        bool small = first->len + next->len <= AG_BUF_SMALL_BYTES;
        struct ag_block *b = ag_loop_buf(h->stream->loop, small ? AG_BUF_SMALL : AG_BUF_LARGE);

        if (!b) {
            return AG_ENOMEM;
        }
        take = ag_min_size(next->len, b->size - first->len);
        if (take == 0) {
            ag_block_release(b);
            return AG_ELIMIT;
        }
        memcpy(b->data, first->ptr, first->len);
        memcpy(b->data + first->len, next->ptr, take);
        *out_moved_from = ag_slice_span(first);
        ag_block_release(own);
        *first = (struct ag_slice){{.ptr = b->data}, first->len + take, b};
    }
    if (take < next->len) {
        ag_slice_advance(next, take);
        return AG_OK;
    }
    node->next = behind->next;
    h->in.tail = node->next ? h->in.tail : node;
    h->in.count--;
    ag_slice_release(next);
    ag_pool_put(&h->stream->loop->nodes, behind);
    return AG_OK;
}

/* ---- request head ---- */

/* The next request will probably be like the last ones. */
static void choose_group(struct ag_h1_server *h)
{
    if (h->ex->req.framing == AG_FRAMING_CHUNKED ||
        ag_h1_progress(h)->body_left > LARGE_BODY_BYTES) {
        h->small_run = 0;
        ag_h1_server_want_group(h, true);
    } else if (h->large && ++h->small_run >= SMALL_RUN) {
        ag_h1_server_want_group(h, false);
    }
}

static void begin_exchange(struct ag_h1_server *h)
{
    struct ag_exchange *ex = h->ex;
    const struct ag_request *req = &ex->req;
    uint64_t length = req->framing == AG_FRAMING_LENGTH ? req->content_length : 0;

    ag_h1_server_set_state(h, AG_H1_EXCHANGE);
    h->due_ms = h->stream->loop->now_ms + h->limits->idle_timeout_ms;
    h->requests++;
    h->keep_alive = req->keep_alive && !h->draining &&
                    (!h->limits->max_requests || h->requests < h->limits->max_requests);
    ag_h1_progress(h)->body_left = length;
    h->body_done = req->framing != AG_FRAMING_CHUNKED && length == 0;
    /* RFC 9112 section 9.6. Old clients send an empty line behind content, which would come too late. */
    h->last = h->body_done && req->framing == AG_FRAMING_NONE && !req->keep_alive;
    h->in_trailers = false;
    h->continue_owed = req->expect_continue && !h->body_done && h->in.bytes == 0;
    ag_body_set_producer(&ex->req_body, ag_h1_server_body_event, h);
    if (h->large || !h->body_done) {
        choose_group(h);
    }
    if (h->body_done) {
        ag_body_end(&ex->req_body, NULL);
    }
    ex->limits_index = h->limits->index;
    ex->redirect_port = h->limits->redirect_port;
    ex->context->pipeline->start(ex);
    if (h->ex == ex && !h->res_done) {
        /* Out of room only means that the receive buffer stays pinned. */
        (void)!ag_exchange_detach(ex);
    }
    if (h->ex == ex) {
        ag_h1_server_await_body(h); /* by the limits of its route */
    }
}

/* Only part of the line that old clients send after content (RFC 9112 section 2.2), or all of it. */
static bool is_blank(const struct ag_h1_server *h)
{
    return ag_span_starts(AG_SPAN("\r\n"), ag_slice_span(&h->in.head->slice));
}

/* A head has begun. */
static void await_head(struct ag_h1_server *h)
{
    h->blank = false;
    h->due_ms = h->stream->loop->now_ms + h->limits->header_timeout_ms;
}

/* AG_AGAIN: all that is here is in one piece, and more is needed. */
static enum ag_status parse_head(struct ag_h1_server *h)
{
    struct ag_exchange *ex = h->ex;
    struct ag_h1_parser *p = &ag_h1_progress(h)->parser;
    struct ag_span in = ag_slice_span(&h->in.head->slice), from;
    enum ag_status st = ag_h1_parse_request(p, in, &h->limits->head, &ex->req, &ex->arena);

    while (st == AG_AGAIN) {
        st = gather(h, &from);
        if (st != AG_OK) {
            return st;
        }
        in = ag_slice_span(&h->in.head->slice);
        ag_request_rebase(&ex->req, from.ptr, from.len, in.ptr);
        st = ag_h1_parse_request(p, in, &h->limits->head, &ex->req, &ex->arena);
    }
    return st;
}

/* True when there was something to do. */
bool ag_h1_server_read_head(struct ag_h1_server *h)
{
    struct ag_exchange *ex = h->ex;
    struct ag_h1_parser *p = &ag_h1_progress(h)->parser;
    struct ag_slice *s;
    enum ag_status st;

    if (!h->in.head) {
        return false;
    }
    st = parse_head(h);
    s = &h->in.head->slice;
    if (h->blank && (st != AG_AGAIN || !is_blank(h))) {
        await_head(h);
    }
    if (st == AG_AGAIN) {
        return false;
    }
    if (st != AG_OK) {
        bool proto = st == AG_EPROTO;

        ag_h1_server_refuse(h,
                            proto             ? p->status
                            : st == AG_ELIMIT ? 431
                                              : 503,
                            proto             ? AG_REASON_PROTOCOL
                            : st == AG_ELIMIT ? AG_REASON_LIMIT
                                              : AG_REASON_RESOURCES,
                            proto             ? p->error
                            : st == AG_ELIMIT ? "request head too large"
                                              : "out of memory");
        return true;
    }
    ex->head = ag_span(s->ptr, p->at);
    ex->head_owner = ag_block_hold(s->owner);
    ex->req.tls = h->tls;
    ag_chain_consume(&h->in, &h->stream->loop->nodes, p->at);
    if (ex->req.https_target && !h->tls) { /* RFC 9110 section 7.4 */
        ag_h1_server_refuse(h, 421, AG_REASON_PROTOCOL, "an https target without TLS");
        return true;
    }
    begin_exchange(h);
    return true;
}

/* An exchange, and a buffer for its answer. False: refused, or `work` runs when there may be more. */
static bool make_exchange(struct ag_h1_server *h)
{
    struct ag_loop *l = h->stream->loop;

    if (!ag_loop_buf_or_wait(l, &h->work)) {
        h->due_ms = ag_min_u64(h->due_ms, l->now_ms + h->limits->header_timeout_ms);
        return false;
    }
    ag_task_cancel(&h->work); /* it may have waited */
    h->ex = ag_exchange_new(h->context, &ag_h1_server_ops, h);
    if (!h->ex && h->context->exchanges_dying > 0) {
        ag_task_queue(l, &h->work); /* behind those who give their pages back */
    } else if (!h->ex) {
        ag_h1_server_overload(h); /* not even a page for an error */
    }
    return h->ex != NULL;
}

bool ag_h1_server_begin_head(struct ag_h1_server *h)
{
    if (!h->in.head || !make_exchange(h)) {
        return false;
    }
    h->ex->listener_port = h->listener_port;
    h->ex->limits = &h->limits->route;
    *ag_h1_progress(h) = (struct ag_h1_progress){0};
    h->res_started = h->res_done = false; /* a head that is refused is answered too */
    if (is_blank(h)) {
        h->blank = true;
    } else {
        await_head(h);
    }
    ag_h1_server_set_state(h, AG_H1_HEAD);
    return true;
}

/* ---- request content ---- */

void ag_h1_server_body_complete(struct ag_h1_server *h, const struct ag_fields *trailers)
{
    h->body_done = true;
    ag_body_end(&h->ex->req_body, trailers);
}

/* The request's content is not what it has to be, or there is no room for it. */
static void refuse_content(struct ag_h1_server *h, unsigned status, enum ag_reason why,
                           const char *what)
{
    if (h->res_done) {
        /* It is answered: the connection ends behind the answer, which must not be lost. */
        h->keep_alive = false;
        h->body_done = true;
    } else if (h->res_started) {
        ag_h1_server_close_now(h, why);
    } else {
        ag_h1_server_refuse(h, status, why, what);
    }
}

/* The first `len` bytes of the input's first slice go to the exchange. */
static bool forward(struct ag_h1_server *h, size_t skip, size_t len)
{
    struct ag_h1_progress *p = ag_h1_progress(h);
    struct ag_pool *nodes = &h->stream->loop->nodes;
    struct ag_slice *s = &h->in.head->slice;
    struct ag_slice part = ag_slice_sub(s, skip, len);
    const struct ag_route_limits *limits = h->ex->limits;

    ag_chain_consume(&h->in, nodes, skip + len);
    p->body_bytes += len;
    ag_pace_moved(&p->body_pace, h->stream->loop->now_ms, len, limits->min_rate,
                  limits->body_timeout_ms);
    if (limits->max_body_bytes && p->body_bytes > limits->max_body_bytes && !h->res_started &&
        !h->ex->streams) {
        ag_slice_release(&part);
        ag_h1_server_refuse(h, 413, AG_REASON_LIMIT, "request content too large");
        return false;
    }
    if (ag_body_write(&h->ex->req_body, part) != AG_OK) {
        ag_h1_server_close_now(h, AG_REASON_RESOURCES);
        return false;
    }
    return true;
}

static bool read_trailers(struct ag_h1_server *h)
{
    struct ag_exchange *ex = h->ex;
    struct ag_h1_parser *p = &ag_h1_progress(h)->parser;
    struct ag_fields *trailers = ex->trailers;
    enum ag_status st;

    if (!trailers) {
        trailers = ex->trailers = ag_arena_zalloc(&ex->arena, sizeof(*trailers));
        if (!trailers) {
            refuse_content(h, 503, AG_REASON_RESOURCES, "no room for the trailer section");
            return false;
        }
        *p = (struct ag_h1_parser){0};
    }
    for (;;) {
        struct ag_span from;
        struct ag_slice *s = h->in.head ? &h->in.head->slice : NULL;

        if (!s) {
            return false;
        }
        st = ag_h1_parse_trailers(p, ag_slice_span(s), &h->limits->head, trailers, &ex->arena);
        if (st != AG_AGAIN) {
            break;
        }
        st = gather(h, &from);
        if (st == AG_AGAIN) {
            return false;
        }
        if (st != AG_OK) {
            break;
        }
        ag_fields_rebase(trailers, from.ptr, from.len, h->in.head->slice.ptr);
    }
    if (st != AG_OK) {
        if (st == AG_EPROTO) {
            refuse_content(h, p->status, AG_REASON_PROTOCOL, p->error);
        } else {
            refuse_content(h, st == AG_ELIMIT ? 431 : 503, AG_REASON_RESOURCES,
                           "no room for the trailer section");
        }
        return false;
    }
    /* The spans point into a receive buffer that goes now: keep copies. */
    for (uint16_t i = 0; i < trailers->count; i++) {
        struct ag_field *f = &trailers->v[i];
        struct ag_span name = ag_arena_copy(&ex->arena, ag_field_key(f));
        struct ag_span value = ag_arena_copy(&ex->arena, ag_field_value(f));

        f->removed = f->removed || !name.ptr || (f->value_len && !value.ptr);
        f->line = false;
        f->name = name.ptr;
        f->value = value.ptr;
    }
    ag_chain_consume(&h->in, &h->stream->loop->nodes, p->at);
    ag_h1_server_body_complete(h, trailers);
    return true;
}

static bool read_chunked(struct ag_h1_server *h)
{
    struct ag_span in = ag_slice_span(&h->in.head->slice), body;
    size_t used = 0;
    enum ag_status st = ag_h1_chunk_decode(&ag_h1_progress(h)->chunk, in, &used, &body);

    if (st != AG_OK && st != AG_AGAIN) {
        refuse_content(h, 400, AG_REASON_PROTOCOL, "malformed chunked content");
        return false;
    }
    if (body.len) {
        /* Framing bytes before and after the span are dropped with it. */
        size_t before = (size_t)(body.ptr - in.ptr), after = used - before - body.len;

        if (!forward(h, before, body.len)) {
            return false;
        }
        ag_chain_consume(&h->in, &h->stream->loop->nodes, after);
    } else {
        ag_chain_consume(&h->in, &h->stream->loop->nodes, used);
    }
    if (st == AG_OK) {
        h->in_trailers = true;
        h->ex->trailers = NULL;
    }
    return true;
}

/* What is still to come, beside what is here: behind the next `used` bytes of it. */
static void expect_unseen(struct ag_h1_server *h, size_t used)
{
    uint64_t left = ag_h1_progress(h)->body_left, here = h->in.bytes - used;

    ag_stream_unseen(h->stream, left > here ? left - here : 0);
}

/* True when input was used. */
bool ag_h1_server_read_body(struct ag_h1_server *h)
{
    struct ag_exchange *ex = h->ex;
    struct ag_h1_progress *p = ag_h1_progress(h);

    if (h->body_done) {
        return false;
    }
    if (h->in_trailers) {
        return read_trailers(h);
    }
    if (!h->in.head) {
        return false;
    }
    if (ex->filter_waits || ag_exchange_awaits_page(ex) || !ag_body_room(&ex->req_body)) {
        ag_h1_server_pause(h);
        return false;
    }
    if (h->state == AG_H1_TUNNEL) {
        return forward(h, 0, h->in.head->slice.len);
    }
    if (h->continue_owed) { /* the client did not wait for it any longer */
        h->continue_owed = false;
        ag_h1_server_await_body(h);
    }
    if (ex->req.framing == AG_FRAMING_CHUNKED) {
        return read_chunked(h);
    }
    size_t take = ag_min_u64(h->in.head->slice.len, p->body_left);
    p->body_left -= take;
    if (ex->req_body.pipes) {
        expect_unseen(h, take);
    }
    if (!forward(h, 0, take)) {
        return false;
    }
    if (p->body_left == 0) {
        ag_h1_server_body_complete(h, NULL);
    }
    return true;
}
