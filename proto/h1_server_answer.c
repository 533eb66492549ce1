#include "proto/h1_server_parts.h"

/* Answers up to this size are copied behind their head: cheaper than a second piece to send. */
#define INLINE_BODY_MAX 1024u

/* Whether the rest of the request's content can be read and dropped, so that the connection lives on. */
static bool rest_is_small(const struct ag_h1_server *h)
{
    if (h->body_done) {
        return true;
    }
    /* A client that waits for 100 may send its content or not: nobody can tell (RFC 9110 10.1.1). */
    return !h->continue_owed && ag_h1_progress(h)->body_left <= h->limits->discard_max_bytes;
}

static void before_final_head(struct ag_h1_server *h)
{
    AG_ASSERT(!h->res_started);
    h->res_started = true;
    ag_stream_set_pace(h->stream, h->ex->limits->min_read_rate, h->ex->limits->write_timeout_ms);
    if (!rest_is_small(h) || h->draining) {
        h->keep_alive = false;
    }
}

static void answer_done(struct ag_h1_server *h)
{
    h->res_done = true;
    h->stream->incomplete = false;
    if (!h->body_done) {
        ag_h1_progress(h)->body_bytes = 0;
        ag_h1_server_await_body(h); /* limits hold again: nothing is left to stream for */
    }
}

static bool has_content(const struct ag_exchange *ex, unsigned status)
{
    return ex->req.method != AG_METHOD_HEAD && status != 204 && status != 304;
}

static void send_head(struct ag_exchange *ex)
{
    struct ag_h1_server *h = ex->server_stream;
    struct ag_response *res = &ex->res;
    struct ag_h1_response_opts opts = {0};
    uint64_t queued = ag_stream_queued(h->stream);
    bool tunnel = res->status == 101;

    ex->head_sent = true;
    before_final_head(h);
    if (ex->req.version == AG_HTTP_10 && res->framing == AG_FRAMING_CHUNKED) {
        res->framing = AG_FRAMING_CLOSE;
    }
    if (res->framing == AG_FRAMING_CLOSE && has_content(ex, res->status)) {
        h->keep_alive = false;
    }
    if (!ag_fields_find(&res->fields, AG_FIELD_DATE, NULL)) {
        opts.date_line = ag_date_line(&h->context->date, h->stream->loop->wall_s);
    }
    opts.close = !h->keep_alive && !tunnel;
    opts.keep_alive_10 = h->keep_alive && ex->req.version == AG_HTTP_10;
    opts.upgrade = tunnel;
    /* Before the write queues the flush: content that comes in this turn leaves with the head. */
    ag_h1_server_wake(h);
    if (ag_h1_write_response(h->stream, res, &opts) != AG_OK) {
        if (ag_stream_queued(h->stream) == queued) {
            ag_h1_server_overload(h);
        } else {
            ag_h1_server_close_now(h, AG_REASON_RESOURCES);
        }
        return;
    }
    ag_h1_progress(h)->res_left = res->framing == AG_FRAMING_LENGTH ? res->content_length : 0;
    if (tunnel) {
        ag_h1_server_set_state(h, AG_H1_TUNNEL);
        h->body_done = false;
        ag_body_reopen(&ex->req_body);
        res->framing = AG_FRAMING_TUNNEL;
    } else if (!has_content(ex, res->status)) {
        answer_done(h);
        ag_body_discard(ex->res_source);
        return;
    }
    h->stream->incomplete = res->framing == AG_FRAMING_CLOSE;
    ex->res_source->pipes = res->framing == AG_FRAMING_LENGTH && ag_stream_takes_pipes(h->stream);
    ag_body_set_consumer(ex->res_source, ag_h1_server_body_event, h);
}

static uint8_t *copy(uint8_t *to, struct ag_span s)
{
    if (s.len) {
        memcpy(to, s.ptr, s.len);
    }
    return to + s.len;
}

static void send_prepared(struct ag_exchange *ex, const struct ag_prepared *p)
{
    struct ag_h1_server *h = ex->server_stream;
    struct ag_span date = ag_date_line(&h->context->date, h->stream->loop->wall_s);
    struct ag_span body = has_content(ex, p->status) ? p->body : AG_SPAN("");
    struct ag_span end = AG_SPAN("\r\n");
    bool whole = body.len <= INLINE_BODY_MAX;
    size_t total;
    uint8_t *room, *at;

    before_final_head(h);
    if (!h->keep_alive) {
        end = AG_SPAN("Connection: close\r\n\r\n");
    } else if (ex->req.version == AG_HTTP_10) {
        end = AG_SPAN("Connection: keep-alive\r\n\r\n");
    }
    total = p->h1.len + date.len + end.len + (whole ? body.len : 0);
    room = ag_stream_reserve(h->stream, total);
    if (!room) {
        ag_h1_server_overload(h);
        return;
    }
    at = copy(room, p->h1);
    at = copy(at, date);
    at = copy(at, end);
    at = whole ? copy(at, body) : at;
    AG_ASSERT(at == room + total);
    ag_stream_commit(h->stream, total);
    if (!whole) {
        struct ag_block *owner = p->owner ? p->owner : ex->snapshot_ref;
        struct ag_slice s = {{.ptr = body.ptr}, body.len, ag_block_hold(owner)};

        if (ag_stream_write(h->stream, s) != AG_OK) {
            ag_h1_server_close_now(h, AG_REASON_RESOURCES);
            return;
        }
    }
    ex->sent_bytes = body.len;
    answer_done(h);
    ag_h1_server_wake(h);
}

static void send_interim(struct ag_exchange *ex, unsigned status, const struct ag_fields *fields)
{
    struct ag_h1_server *h = ex->server_stream;
    struct ag_response res = {.status = status};
    struct ag_h1_response_opts opts = {0};

    if (!h || h->res_started || ex->req.version == AG_HTTP_10) {
        return; /* RFC 9110 15.2: never to a 1.0 client */
    }
    if (status == 100) {
        if (!h->continue_owed) {
            return;
        }
        h->continue_owed = false;
        ag_h1_server_await_body(h);
        ag_h1_server_wake(h); /* for its deadline */
    }
    if (fields) {
        res.fields = *fields;
    }
    if (ag_h1_write_response(h->stream, &res, &opts) != AG_OK) {
        ag_h1_server_close_now(h, AG_REASON_RESOURCES);
    }
}

static void want_body(struct ag_exchange *ex)
{
    send_interim(ex, 100, NULL);
}

static void remote(struct ag_exchange *ex, union ag_addr *out_addr)
{
    struct ag_h1_server *h = ex->server_stream;

    ag_peer_address(&h->peer, h->stream, out_addr);
}

static void local(struct ag_exchange *ex, union ag_addr *out_addr)
{
    struct ag_h1_server *h = ex->server_stream;

    ag_proxied_local(h->proxied, h->stream, out_addr);
}

static const struct ag_proxied *proxied(struct ag_exchange *ex)
{
    return ((struct ag_h1_server *)ex->server_stream)->proxied;
}

static const struct ag_stream *client(const struct ag_exchange *ex)
{
    return ((const struct ag_h1_server *)ex->server_stream)->stream;
}

static bool taken(struct ag_exchange *ex)
{
    struct ag_h1_server *h = ex->server_stream;

    return h && ag_stream_has_moved(h->stream, &ag_h1_progress(h)->taken);
}

static const struct ag_tls_session *tls_of(struct ag_exchange *ex)
{
    struct ag_h1_server *h = ex->server_stream;

    return ag_stream_tls(h->stream);
}

static void reset(struct ag_exchange *ex, enum ag_reason why)
{
    struct ag_h1_server *h = ex->server_stream;

    if (h) {
        ag_h1_server_close_now(h, why);
    }
}

const struct ag_server_ops ag_h1_server_ops = {
    .room_bytes = sizeof(struct ag_h1_progress),
    .send_head = send_head,
    .send_prepared = send_prepared,
    .send_interim = send_interim,
    .want_body = want_body,
    .remote = remote,
    .local = local,
    .proxied = proxied,
    .client = client,
    .taken = taken,
    .tls = tls_of,
    .reset = reset,
};

/* One slice of the answer's content onto the stream. */
static enum ag_status write_content(struct ag_h1_server *h, struct ag_slice s)
{
    uint8_t header[AG_H1_CHUNK_HEADER_MAX];
    size_t header_len;
    enum ag_status st;

    h->ex->sent_bytes += s.len;
    if (h->ex->res.framing != AG_FRAMING_CHUNKED) {
        return ag_stream_write(h->stream, s);
    }
    header_len = ag_h1_chunk_header(s.len, header);
    st = ag_stream_put(h->stream, ag_span(header, header_len));
    if (st != AG_OK) {
        ag_slice_release(&s);
        return st;
    }
    st = ag_stream_write(h->stream, s);
    return st == AG_OK ? ag_stream_put(h->stream, AG_SPAN("\r\n")) : st;
}

static void end_answer(struct ag_h1_server *h, const struct ag_body *src)
{
    const struct ag_response *res = &h->ex->res;

    /* The client must not take a part for the whole; what its length says is all there is whole, whatever became of
     * who answered. */
    if (res->framing == AG_FRAMING_LENGTH ? ag_h1_progress(h)->res_left > 0 : src->aborted) {
        ag_h1_server_break_off(h, src->aborted ? (enum ag_reason)src->reason : AG_REASON_PROTOCOL);
        return;
    }
    if (res->framing == AG_FRAMING_CHUNKED &&
        ag_h1_write_last_chunk(h->stream, src->trailers) != AG_OK) {
        ag_h1_server_close_now(h, AG_REASON_RESOURCES);
        return;
    }
    answer_done(h);
    if (h->state == AG_H1_TUNNEL) {
        ag_stream_shut(h->stream);
    }
}

/* True when something was sent or the answer ended. */
bool ag_h1_server_write_answer(struct ag_h1_server *h)
{
    struct ag_body *src;

    if (!h->res_started || h->res_done) {
        return false;
    }
    src = h->ex->res_source;
    if (!ag_body_has_news(src) || (src->q.bytes > 0 && ag_stream_full(h->stream))) {
        return false;
    }
    if (src->q.bytes > 0) {
        struct ag_slice s = ag_body_take(src);

        if (h->ex->res.framing == AG_FRAMING_LENGTH) {
            if (s.len > ag_h1_progress(h)->res_left) {
                ag_slice_release(&s);
                ag_h1_server_close_now(h, AG_REASON_PROTOCOL);
                return false;
            }
            ag_h1_progress(h)->res_left -= s.len;
        }
        if (write_content(h, s) != AG_OK) {
            ag_h1_server_close_now(h, AG_REASON_RESOURCES);
            return false;
        }
        return true;
    }
    end_answer(h, src);
    return h->state != AG_H1_CLOSING;
}
