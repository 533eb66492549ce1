#include "proto/h2_server_parts.h"

/* Answers up to this size are copied behind their head: cheaper than a second piece to send. */
#define INLINE_BODY_MAX 1024u

static bool has_content(const struct ag_exchange *ex, unsigned status)
{
    return ex->req.method != AG_METHOD_HEAD && status != 204 && status != 304;
}

/* The answer begins: what it is sent by. */
static void before_final_head(struct ag_h2_request *r)
{
    AG_ASSERT(!r->res_started);
    r->res_started = true;
    r->s.moved_ms = r->server->conn.loop->now_ms;
    ag_stream_set_pace(r->server->conn.stream, r->ex->limits->min_read_rate,
                       r->ex->limits->write_timeout_ms);
    if (!r->s.ended) { /* its silence counts from now on */
        ag_h2_server_check_at(r->server, r->s.moved_ms + r->server->limits->idle_timeout_ms);
    }
}

/* RFC 9218 section 5: the request's field, unless a frame has said otherwise. */
static void read_priority(struct ag_h2_request *r)
{
    struct ag_h2_priority p = AG_H2_PRIORITY_DEFAULT;
    const struct ag_field *f;

    if (r->s.prioritised) {
        return;
    }
    f = ag_fields_find(&r->ex->req.fields, AG_FIELD_PRIORITY, NULL);
    if (f) {
        ag_h2_priority_read(ag_field_value(f), &p);
        ag_h2_stream_set_priority(&r->s, p);
    }
}

/* Writes a head. False: the stream, or all of the connection, is over. */
static bool put_head(struct ag_h2_request *r, const struct ag_response *res, struct ag_span date,
                     bool end)
{
    struct ag_h2_conn *c = &r->server->conn;
    struct ag_h2_section w;
    enum ag_status st = ag_h2_section_begin(c, ag_h2_response_max(res), &w);

    if (st == AG_ENOMEM) {
        ag_h2_conn_abort(c, AG_REASON_RESOURCES);
        return false;
    }
    if (st != AG_OK) {
        r->ex->detail = "the answer's head is too large";
        ag_h2_server_drop(r, AG_H2_INTERNAL_ERROR, AG_REASON_LIMIT);
        return false;
    }
    ag_h2_put_response(&c->encoder, &w.buf, res, date);
    return ag_h2_section_send(&r->s, &w, end);
}

/* An answer to an extended CONNECT that opens it (RFC 8441 section 5); h1 upstreams say 101. */
static bool opens_tunnel(const struct ag_exchange *ex)
{
    return ex->req.protocol.len > 0 && (ex->res.status == 101 || ex->res.status / 100 == 2);
}

static void send_head(struct ag_exchange *ex)
{
    struct ag_h2_request *r = ex->server_stream;
    struct ag_response *res = &ex->res;
    struct ag_span date = AG_SPAN("");
    uint64_t length = AG_LENGTH_UNKNOWN;
    bool end;

    ex->head_sent = true;
    /* Before the write queues the flush: content that comes in this turn leaves with the head. */
    ag_h2_conn_wake(&r->server->conn);
    before_final_head(r);
    if (opens_tunnel(ex)) {
        r->tunnel = true;
        res->status = 200;
        ex->status = 200;
        res->framing = AG_FRAMING_TUNNEL;
    } else if (res->status < 200) { /* RFC 9113 section 8.6: there is no 101 */
        ag_h2_server_drop(r, AG_H2_INTERNAL_ERROR, AG_REASON_PROTOCOL);
        return;
    }
    if (res->framing == AG_FRAMING_LENGTH) {
        length = res->content_length;
    }
    end = !r->tunnel &&
          (!has_content(ex, res->status) || res->framing == AG_FRAMING_NONE || length == 0);
    if (!ag_fields_find(&res->fields, AG_FIELD_DATE, NULL)) {
        date = ag_date_value(&r->server->context->date, r->server->conn.loop->wall_s);
    }
    if (!put_head(r, res, date, end)) {
        return;
    }
    if (end) {
        ag_body_discard(ex->res_source);
        ag_h2_server_answered_soon(r);
        return;
    }
    read_priority(r);
    ag_h2_stream_set_source(&r->s, ex->res_source, length);
}

/* ---- answers made at load ---- */

/* As fields and content, for want of anything better. */
static void send_as_fields(struct ag_exchange *ex, const struct ag_prepared *p)
{
    struct ag_slice body = {
        {.ptr = p->body.ptr}, p->body.len, ag_block_hold(p->owner ? p->owner : ex->snapshot_ref)};

    ex->res = p->response;
    if (ag_body_write(&ex->res_body, body) == AG_OK) {
        ag_body_end(&ex->res_body, NULL);
    }
    send_head(ex);
}

/* Whether the content may leave with the head, in one frame and one copy. */
static bool fits_inline(const struct ag_h2_request *r, struct ag_span body)
{
    return body.len <= INLINE_BODY_MAX && (int64_t)body.len <= r->s.send_window &&
           (int64_t)body.len <= r->server->conn.send_window;
}

/* By the library: where the compiler knows a bound it writes a loop of its own, which takes five times as
 * long. Returns where the next byte goes. */
static uint8_t *copy(uint8_t *to, struct ag_span s)
{
    __asm__("" : "+r"(s.len));
    memcpy(to, s.ptr, s.len);
    return to + s.len;
}

static void send_prepared(struct ag_exchange *ex, const struct ag_prepared *p)
{
    struct ag_h2_request *r = ex->server_stream;
    struct ag_h2_conn *c = &r->server->conn;
    struct ag_span body = has_content(ex, p->status) ? p->body : AG_SPAN("");
    struct ag_span date = ag_date_h2(&r->server->context->date, c->loop->wall_s);
    bool whole = fits_inline(r, body);
    size_t copied = whole ? body.len : 0, head = p->h2.len + date.len;
    size_t total = AG_H2_HEADER_BYTES + head + (copied ? AG_H2_HEADER_BYTES + copied : 0);
    uint8_t *at;

    /* A table's new size is told at the start of the first section behind it (RFC 7541 section 4.2). */
    if (p->h2.len == 0 || total > AG_BUF_SMALL_BYTES || c->encoder.size_owed) {
        send_as_fields(ex, p);
        return;
    }
    before_final_head(r);
    at = ag_stream_reserve(c->stream, total);
    if (!at) {
        ag_h2_conn_abort(c, AG_REASON_RESOURCES);
        return;
    }
    at = ag_h2_put_header(at, head, AG_H2_HEADERS,
                          AG_H2_END_HEADERS | (body.len ? 0 : AG_H2_END_STREAM), r->s.id);
    at = copy(copy(at, p->h2), date);
    if (copied) {
        at = ag_h2_put_header(at, copied, AG_H2_DATA, AG_H2_END_STREAM, r->s.id);
        (void)copy(at, body);
        r->s.send_window -= (int32_t)copied;
        c->send_window -= (int64_t)copied;
        r->s.sent_bytes = copied;
    }
    ag_stream_commit(c->stream, total);
    if (whole) {
        r->s.sent = true;
        ag_h2_server_answered_soon(r);
    } else {
        struct ag_block *owner = p->owner ? p->owner : ex->snapshot_ref;
        struct ag_slice s = {{.ptr = body.ptr}, body.len, ag_block_hold(owner)};

        if (ag_body_write(&ex->res_body, s) == AG_OK) {
            ag_body_end(&ex->res_body, NULL);
        }
        read_priority(r);
        ag_h2_stream_set_source(&r->s, &ex->res_body, body.len);
    }
}

static void send_interim(struct ag_exchange *ex, unsigned status, const struct ag_fields *fields)
{
    struct ag_h2_request *r = ex->server_stream;
    struct ag_response res = {.status = status};

    if (!r || r->res_started) {
        return;
    }
    if (status == 100) {
        if (!r->continue_owed) {
            return;
        }
        r->continue_owed = false;
        ag_h2_server_await_body(r);
        ag_h2_conn_wake(&r->server->conn); /* for its deadline */
    }
    if (fields) {
        res.fields = *fields;
    }
    (void)put_head(r, &res, AG_SPAN(""), false);
}

static void want_body(struct ag_exchange *ex)
{
    send_interim(ex, 100, NULL);
}

static void remote(struct ag_exchange *ex, union ag_addr *out_addr)
{
    struct ag_h2_server *h = ((struct ag_h2_request *)ex->server_stream)->server;

    ag_peer_address(&h->peer, h->conn.stream, out_addr);
}

static void local(struct ag_exchange *ex, union ag_addr *out_addr)
{
    struct ag_h2_server *h = ((struct ag_h2_request *)ex->server_stream)->server;

    ag_proxied_local(h->proxied, h->conn.stream, out_addr);
}

static const struct ag_proxied *proxied(struct ag_exchange *ex)
{
    return ((struct ag_h2_request *)ex->server_stream)->server->proxied;
}

static const struct ag_stream *client(const struct ag_exchange *ex)
{
    return ((const struct ag_h2_request *)ex->server_stream)->server->conn.stream;
}

static const struct ag_tls_session *tls_of(struct ag_exchange *ex)
{
    struct ag_h2_request *r = ex->server_stream;

    return ag_stream_tls(r->server->conn.stream);
}

/* What a client is told of an answer that broke off. */
static enum ag_h2_error code_of(enum ag_reason why)
{
    switch (why) {
    case AG_REASON_NONE:
    case AG_REASON_ABORTED:
    case AG_REASON_TIMEOUT:
        return AG_H2_CANCEL;
    case AG_REASON_LIMIT:
        return AG_H2_ENHANCE_YOUR_CALM;
    case AG_REASON_EOF:
    case AG_REASON_RESET:
    case AG_REASON_REFUSED:
    case AG_REASON_UNREACHABLE:
    case AG_REASON_NAME:
    case AG_REASON_RESOURCES:
    case AG_REASON_PROTOCOL:
    case AG_REASON_TLS:
    case AG_REASON_OTHER:
        return AG_H2_INTERNAL_ERROR;
    }
    AG_UNREACHABLE("a reason that is none");
}

static void reset(struct ag_exchange *ex, enum ag_reason why)
{
    struct ag_h2_request *r = ex->server_stream;

    if (r) {
        ag_h2_server_drop(r, code_of(why), why);
    }
}

const struct ag_server_ops ag_h2_server_ops = {
    .memory_only = true,
    .send_head = send_head,
    .send_prepared = send_prepared,
    .send_interim = send_interim,
    .want_body = want_body,
    .remote = remote,
    .local = local,
    .proxied = proxied,
    .client = client,
    .tls = tls_of,
    .reset = reset,
};
