#include "proto/h2_server_parts.h"

/* Requests of a connection before a memo is kept for it: one that asks little stays as small as it was. */
#define MEMO_AFTER 64u

/* A request's content from here on is received in large buffers. */
#define LARGE_BODY_BYTES (16u * 1024u)

/* ---- content, as its route allows ---- */

/* How long the client may take to begin with its content, or to go on with it; without a grace that is a stall. */
static uint32_t grace_ms(const struct ag_h2_request *r)
{
    const struct ag_route_limits *limits = r->ex->limits;

    return limits->min_rate && limits->body_grace_ms ? limits->body_grace_ms
                                                     : limits->body_timeout_ms;
}

/* Size and rate of the request's content count until the answer's head is sent, and again when the rest is
 * only read to be dropped; silence counts always. While a page for an error is being asked for the windows are
 * all that bounds it. */
static bool is_bounded(const struct ag_h2_request *r)
{
    return r->discards || (!r->res_started && !r->ex->streams && r->ex->req.protocol.len == 0 &&
                           !ag_exchange_awaits_page(r->ex));
}

uint64_t ag_h2_server_body_due(const struct ag_h2_request *r)
{
    const struct ag_h2_stream *s = &r->s;

    if (s->ended || ag_exchange_awaits_page(r->ex) || (r->ex->req.protocol.len > 0 && !s->sent)) {
        return 0; /* a tunnel is its upstream's to watch, as long as there is one */
    }
    if (r->continue_owed && !r->res_started) {
        return 0; /* who waits for 100 has to wait for whoever says it */
    }
    if (is_bounded(r)) {
        return r->body_pace.due_ms;
    }
    return s->moved_ms + r->server->limits->idle_timeout_ms;
}

void ag_h2_server_await_body(struct ag_h2_request *r)
{
    if (!r->s.ended) {
        ag_pace_start(&r->body_pace, r->server->conn.loop->now_ms, grace_ms(r));
        ag_h2_server_check_at(r->server, ag_h2_server_body_due(r));
    }
}

/* Answers by ourselves; whoever works on the request lets go first, so that it cannot answer too. */
static void refuse(struct ag_h2_request *r, unsigned status, enum ag_reason why, const char *what)
{
    struct ag_exchange *ex = r->ex;

    ag_body_abort(&ex->req_body, why);
    ag_exchange_abandon(ex, why);
    ag_exchange_fail(ex, status, why, what);
}

bool ag_h2_server_rest_is_small(const struct ag_h2_request *r)
{
    uint64_t left = r->s.sink_left;

    /* A client that waits for 100 may send its content or not: nobody can tell (RFC 9110 10.1.1). What was too
     * large or too slow is not waited for. */
    return !r->continue_owed && !r->ex->req_body.aborted &&
           (left == AG_LENGTH_UNKNOWN || left <= r->server->limits->discard_max_bytes);
}

/* Lets the client send all that is read to be dropped, at once: nobody takes it, which would open the window. */
static void open_for_rest(struct ag_h2_request *r)
{
    uint64_t most = r->server->limits->discard_max_bytes, left = r->s.sink_left;
    int32_t window = r->s.recv_window;

    if (window <= 0 || (uint64_t)window <= ag_min_u64(left, most)) {
        ag_h2_stream_let(&r->s, most + AG_H2_WINDOW_DEFAULT); /* padding counts, too */
    }
}

void ag_h2_server_discard(struct ag_h2_request *r)
{
    r->discards = true;
    r->body_bytes = 0;
    /* Whoever still takes it must stop. */
    ag_body_abort(&r->ex->req_body, AG_REASON_ABORTED);
    ag_exchange_abandon(r->ex, AG_REASON_ABORTED);
    ag_h2_server_await_body(r);
    open_for_rest(r); /* last: without a buffer for that the stream is gone */
}

void ag_h2_server_body_late(struct ag_h2_request *r)
{
    struct ag_h2_conn *c = &r->server->conn;

    if (r->s.recv_window <= 0 || c->recv_window <= 0 || c->paused || ag_stream_starved(c->stream)) {
        /* What the client could not send is not held against it. */
        ag_pace_extend(&r->body_pace, c->loop->now_ms, grace_ms(r));
        r->s.moved_ms = c->loop->now_ms;
        ag_h2_server_check_at(r->server, ag_h2_server_body_due(r));
    } else if (r->discards) {
        ag_h2_server_answered(r);
    } else if (!r->res_started) {
        r->s.moved_ms = c->loop->now_ms; /* for the answer */
        refuse(r, 408, AG_REASON_TIMEOUT, "request content took too long");
    } else {
        ag_h2_server_drop(r, AG_H2_CANCEL, AG_REASON_TIMEOUT);
    }
}

void ag_h2_server_content(struct ag_h2_stream *s, size_t len)
{
    struct ag_h2_request *r = ag_h2_request_of(s);
    const struct ag_route_limits *limits = r->ex->limits;

    if (r->continue_owed) { /* the client did not wait for it any longer */
        r->continue_owed = false;
        ag_h2_server_await_body(r);
    }
    r->body_bytes += len;
    ag_pace_moved(&r->body_pace, r->server->conn.loop->now_ms, len, limits->min_rate,
                  limits->body_timeout_ms);
    if (r->body_bytes > LARGE_BODY_BYTES) {
        r->server->conn.large = true;
    }
    if (r->discards) {
        if (r->body_bytes > r->server->limits->discard_max_bytes || s->recv_window <= 0) {
            ag_h2_server_answered(r);
        }
        return;
    }
    if (limits->max_body_bytes && r->body_bytes > limits->max_body_bytes && is_bounded(r) &&
        !r->ex->abandoned) {
        refuse(r, 413, AG_REASON_LIMIT, "request content too large");
    }
}

void ag_h2_server_ended(struct ag_h2_stream *s)
{
    struct ag_h2_request *r = ag_h2_request_of(s);

    ag_body_end(&r->ex->req_body, r->ex->trailers);
    if (s->sent) {
        ag_h2_server_answered(r);
    }
}

/* ---- sections ---- */

/* The tables disagree now, or the section was a flood. */
static void fail_tables(struct ag_h2_conn *c, enum ag_status st, const char *what)
{
    switch (st) {
    case AG_ELIMIT:
        ag_h2_conn_fail(c, AG_H2_ENHANCE_YOUR_CALM, AG_REASON_LIMIT, what);
        break;
    case AG_ENOMEM:
        ag_h2_conn_fail(c, AG_H2_INTERNAL_ERROR, AG_REASON_RESOURCES, what);
        break;
    case AG_EPROTO:
    case AG_OK:
    case AG_AGAIN:
    case AG_EINVAL:
    case AG_ENOENT:
    case AG_EACCES:
    case AG_ESYS:
        ag_h2_conn_fail(c, AG_H2_COMPRESSION_ERROR, AG_REASON_PROTOCOL, what);
        break;
    }
}

void ag_h2_server_trailers(struct ag_h2_stream *s, struct ag_span section, bool end)
{
    struct ag_h2_request *r = ag_h2_request_of(s);
    struct ag_exchange *ex = r->ex;
    struct ag_h2_field_error error = {0};
    struct ag_fields *trailers = ag_arena_zalloc(&ex->arena, sizeof(*trailers));
    enum ag_status st;

    if (!trailers) {
        st = ag_h2_skip_section(&s->conn->decoder, section, &r->server->limits->head);
        error = (struct ag_h2_field_error){
            .status = 503, .connection = st != AG_OK, .why = "no room for the trailer section"};
        st = st == AG_OK ? AG_ENOMEM : st;
    } else {
        st = ag_h2_read_trailers(&s->conn->decoder, section, &r->server->limits->head, trailers,
                                 &ex->arena, &error);
    }
    if (st != AG_OK && error.connection) {
        fail_tables(s->conn, st, error.why);
    } else if (!end) { /* RFC 9113 section 8.1 */
        ag_h2_stream_error(s, AG_H2_PROTOCOL_ERROR, "trailers that do not end the stream");
    } else if (st == AG_EPROTO) {
        ag_h2_stream_error(s, AG_H2_PROTOCOL_ERROR, error.why);
    } else if (st != AG_OK) {
        ag_h2_server_drop(r, AG_H2_INTERNAL_ERROR, AG_REASON_RESOURCES);
    } else {
        ex->trailers = trailers;
    }
}

static enum ag_reason reason_of(enum ag_status st)
{
    return st == AG_EPROTO   ? AG_REASON_PROTOCOL
           : st == AG_ELIMIT ? AG_REASON_LIMIT
                             : AG_REASON_RESOURCES;
}

/* The section could not be read as a request. True: the exchange is to answer. */
static bool settle_error(struct ag_h2_request *r, uint32_t id, enum ag_status st,
                         const struct ag_h2_field_error *error)
{
    struct ag_h2_server *h = r->server;
    struct ag_exchange *ex = r->ex;

    if (!error->connection && error->status) {
        return true;
    }
    ex->detail = error->why;
    ag_h2_server_orphan(r);
    ag_exchange_abort(ex, reason_of(st));
    if (error->connection) {
        fail_tables(&h->conn, st, error->why);
    } else if (st == AG_ENOMEM) {
        ag_h2_conn_refuse(&h->conn, id, AG_H2_INTERNAL_ERROR, false);
    } else {
        ag_h2_conn_refuse(&h->conn, id, AG_H2_PROTOCOL_ERROR, true);
    }
    return false;
}

/* An exchange and its stream, in one page. NULL: the section was passed over, the stream refused. */
static struct ag_h2_request *make_request(struct ag_h2_server *h, uint32_t id,
                                          struct ag_span section)
{
    uint32_t most = h->limits->h2_streams_max ? h->limits->h2_streams_max : AG_H2_STREAMS_MAX;
    bool full = h->slots >= most;
    struct ag_exchange *ex = full ? NULL : ag_exchange_new(h->context, &ag_h2_server_ops, NULL);
    struct ag_h2_request *r = ex ? ag_arena_alloc(&ex->arena, sizeof(*r)) : NULL;
    enum ag_status st;

    if (!r) {
        AG_ASSERT(!ex); /* its first page has room */
        st = ag_h2_skip_section(&h->conn.decoder, section, &h->limits->head);
        if (st != AG_OK) {
            fail_tables(&h->conn, st, "a field section that cannot be read");
        } else {
            ag_h2_conn_refuse(&h->conn, id, AG_H2_REFUSED_STREAM, full);
        }
        return NULL;
    }
    *r = (struct ag_h2_request){.server = h, .ex = ex};
    ag_list_init(&r->done);
    ag_list_init(&r->s.link);
    ex->server_stream = r;
    ex->listener_port = h->listener_port;
    ex->limits = &h->limits->route;
    ex->limits_index = h->limits->index;
    ex->redirect_port = h->limits->redirect_port;
    ex->req.tls = h->tls;
    h->slots++;
    return r;
}

static void begin(struct ag_h2_request *r, uint32_t id, bool end)
{
    struct ag_h2_server *h = r->server;
    struct ag_request *req = &r->ex->req;

    ag_h2_stream_accept(&r->s, &h->conn, id, end);
    if (end) {
        /* A length of nothing that was told is passed on: not every upstream does without (411). */
        req->framing = req->content_length == 0 ? AG_FRAMING_LENGTH : AG_FRAMING_NONE;
        ag_body_end(&r->ex->req_body, NULL);
    } else {
        ag_h2_stream_set_sink(&r->s, &r->ex->req_body, req->content_length);
        r->continue_owed = req->expect_continue;
    }
}

/* What the listener has to say before a route is known. True: the pipeline goes on. */
static bool admit(struct ag_h2_request *r, enum ag_status st, const struct ag_h2_field_error *error)
{
    struct ag_exchange *ex = r->ex;

    if (st != AG_OK) {
        ag_exchange_fail(ex, error->status, reason_of(st), error->why);
    } else if (ex->req.https_target && !ex->req.tls) { /* RFC 9110 section 7.4 */
        ag_exchange_fail(ex, 421, AG_REASON_PROTOCOL, "an https target without TLS");
    }
    return !ex->head_sent && !ex->ended;
}

void ag_h2_server_open(struct ag_h2_conn *c, uint32_t id, struct ag_span section, bool end)
{
    struct ag_h2_server *h = ag_h2_server_of(c);
    struct ag_h2_request *r = make_request(h, id, section);
    struct ag_h2_field_error error = {0};
    struct ag_exchange *ex;
    enum ag_status st;

    if (!r) {
        return;
    }
    ex = r->ex;
    if (!h->memo && h->requests >= MEMO_AFTER) {
        h->memo = ag_arena_zalloc(&c->memory, sizeof(*h->memo));
    }
    st = ag_h2_memo_request(h->memo, &c->decoder, section, &h->limits->head, &ex->req, &ex->arena,
                            &error);
    if (st == AG_OK && end && ex->req.content_length != AG_LENGTH_UNKNOWN &&
        ex->req.content_length > 0) {
        st = AG_EPROTO;
        error.why = "less content than content-length tells";
    }
    if (st != AG_OK && !settle_error(r, id, st, &error)) {
        return;
    }
    h->requests++;
    ag_h2_conn_earn(c);
    begin(r, id, end);
    if (h->limits->max_requests && h->requests >= h->limits->max_requests && !h->ending) {
        h->ending = true;
        ag_h2_conn_goaway(c, id, AG_H2_NO_ERROR, AG_SPAN(""));
        if (ag_h2_conn_is_closing(c)) {
            return; /* for want of a buffer: this one is lost, too */
        }
    }
    if (admit(r, st, &error)) {
        ex->context->pipeline->start(ex);
    }
    if (!ag_list_empty(&r->done)) {
        ag_list_remove(&r->done);
        ag_h2_server_answered(r);
    } else if (r->s.live) {
        ag_h2_server_await_body(r); /* by the limits of its route */
    }
}
