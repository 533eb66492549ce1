#include "proto/h2_client.h"

#define FIELD_ROOM 32u
/* For the rest of a field section that has begun to come. */
#define PART_TIMEOUT_MS 30000u
/* Who keeps its windows shut is what the caller's timeouts are for. */
#define STALL_MS (24u * 3600u * 1000u)

/* A call under way; in its keep. */
struct h2_call {
    struct ag_h2_stream stream; /* first */
    struct ag_call *call;       /* NULL: over */
    struct ag_fields *trailers; /* of the answer; NULL: none */
    uint64_t taken; /* bytes of the request's content that had been sent at the last look */
    uint8_t method; /* enum ag_method */
    uint8_t interim_count;
    bool head_done;
    bool connect; /* an extended CONNECT */
    bool tunnel;  /* that was agreed to */
    bool expects; /* 100 was asked for, and has not come */
    bool blocked; /* the caller took nothing at the last look */
};

static const struct ag_h1_limits limits = AG_H1_LIMITS_DEFAULT;

static struct h2_call *of(struct ag_h2_stream *s)
{
    return ag_container_of(s, struct h2_call, stream);
}

static struct ag_h2_client *client_of(struct ag_h2_conn *c)
{
    return ag_container_of(c, struct ag_h2_client, conn);
}

static uint64_t now_of(const struct h2_call *h)
{
    return h->stream.conn->loop->now_ms;
}

/* ---- the end of a call ---- */

/* Lets go of the call; its stream has left. */
static struct ag_call *release(struct h2_call *h)
{
    struct ag_call *call = h->call;

    AG_ASSERT(!h->stream.live);
    h->call = NULL;
    call->ops = NULL;
    return call;
}

static void end_badly(struct h2_call *h, enum ag_reason why, const char *detail)
{
    struct ag_call *call = release(h);

    if (h->head_done) {
        ag_body_abort(call->res_body, why);
    }
    call->events->failed(call, why, detail);
}

/* This side gives it up: the upstream is told to stop. */
static void fail(struct h2_call *h, enum ag_reason why, const char *detail)
{
    ag_h2_stream_reset(&h->stream, AG_H2_CANCEL);
    end_badly(h, why, detail);
}

/* The answer is in res_body; of a tunnel both sides have ended. */
static void complete(struct h2_call *h)
{
    struct ag_call *call = h->call;
    struct ag_h2_client *c = client_of(h->stream.conn);

    if (h->stream.sent) {
        ag_h2_stream_leave(&h->stream);
    } else {
        if (call->req_body) {
            ag_body_discard(call->req_body);
        }
        ag_h2_stream_reset(&h->stream, AG_H2_CANCEL);
    }
    c->calls_max += c->calls_max < AG_H2_CLIENT_CALLS_MAX;
    release(h);
    call->events->done(call);
}

/* ---- answers ---- */

static void read_failed(struct h2_call *h, enum ag_status st, const struct ag_h2_field_error *error)
{
    if (error->connection) {
        bool memory = st == AG_ENOMEM;

        ag_h2_conn_fail(h->stream.conn, memory ? AG_H2_INTERNAL_ERROR : AG_H2_COMPRESSION_ERROR,
                        memory ? AG_REASON_RESOURCES : AG_REASON_PROTOCOL, error->why);
    } else if (st == AG_ENOMEM) {
        fail(h, AG_REASON_RESOURCES, "out of memory for the upstream's answer");
    } else if (st == AG_ELIMIT) {
        fail(h, AG_REASON_PROTOCOL, error->why);
    } else {
        ag_h2_stream_error(&h->stream, AG_H2_PROTOCOL_ERROR, error->why);
    }
}

static void on_interim(struct h2_call *h, const struct ag_response *res)
{
    if (++h->interim_count > AG_CALL_INTERIM_MAX) {
        fail(h, AG_REASON_PROTOCOL, "too many interim answers");
    } else {
        h->expects = h->expects && res->status != 100;
        h->call->events->interim(h->call, res);
    }
}

static void on_final(struct h2_call *h, struct ag_response *res, bool end)
{
    bool agreed = h->connect && res->status < 300;
    struct ag_call *call = h->call; /* which may be given up in `head` */

    h->head_done = true;
    ag_h2_stream_set_sink(&h->stream, call->res_body,
                          res->framing == AG_FRAMING_NONE ? 0 : res->content_length);
    if (end && !agreed) {
        res->framing = AG_FRAMING_NONE; /* gRPC tells an error by a head that is the end, too */
    }
    call->events->head(call, res);
    if (agreed && h->call && !h->tunnel) {
        fail(h, AG_REASON_PROTOCOL, "the new protocol is not the one asked for");
    }
}

static void read_head(struct h2_call *h, struct ag_span section, bool end)
{
    struct ag_field room[FIELD_ROOM];
    struct ag_response res = {.fields = {room, 0, FIELD_ROOM}};
    struct ag_h2_field_error error = {0};
    struct ag_h2_client *c = client_of(h->stream.conn);
    enum ag_status st;

    if (!c->memo && h->stream.id > 1) { /* not for the sake of one call */
        c->memo = ag_arena_zalloc(&c->conn.memory, sizeof(*c->memo));
    }
    st = ag_h2_memo_response(c->memo, &c->conn.decoder, section, &limits, (enum ag_method)h->method,
                             &res, h->call->keep, &error);
    if (st != AG_OK) {
        read_failed(h, st, &error);
    } else if (res.status < 200) {
        on_interim(h, &res);
    } else if (end && res.framing == AG_FRAMING_H2 && res.content_length != AG_LENGTH_UNKNOWN &&
               res.content_length > 0) {
        ag_h2_stream_error(&h->stream, AG_H2_PROTOCOL_ERROR,
                           "less content than content-length tells");
    } else {
        on_final(h, &res, end);
    }
}

static void read_trailers(struct h2_call *h, struct ag_span section, bool end)
{
    struct ag_field room[FIELD_ROOM];
    struct ag_fields fields = {room, 0, FIELD_ROOM}, *kept;
    struct ag_h2_field_error error = {0};
    enum ag_status st = ag_h2_read_trailers(&h->stream.conn->decoder, section, &limits, &fields,
                                            h->call->keep, &error);

    if (st != AG_OK) {
        read_failed(h, st, &error);
        return;
    }
    if (!end) {
        ag_h2_stream_error(&h->stream, AG_H2_PROTOCOL_ERROR, "trailers that do not end the stream");
        return;
    }
    if (fields.count == 0 || h->tunnel) {
        return;
    }
    kept = ag_arena_zalloc(h->call->keep, sizeof(*kept));
    for (uint16_t i = 0; kept && i < fields.count; i++) {
        const struct ag_field *f = &fields.v[i];
        if (!f->removed && ag_fields_add(kept, h->call->keep, (enum ag_field_id)f->id,
                                         ag_field_key(f), ag_field_value(f)) != AG_OK) {
            kept = NULL;
        }
    }
    h->trailers = kept;
    if (!kept) {
        fail(h, AG_REASON_RESOURCES, "out of memory for the upstream's answer");
    }
}

/* ---- the connection's callbacks ---- */

static void moved(struct h2_call *h)
{
    h->call->progress_ms = now_of(h);
    client_of(h->stream.conn)->silence_ms = AG_H2_CLIENT_SILENCE_MS;
}

static void on_section(struct ag_h2_stream *s, struct ag_span section, bool end)
{
    struct h2_call *h = of(s);

    h->call->received = true;
    moved(h);
    if (h->head_done) {
        read_trailers(h, section, end);
    } else {
        read_head(h, section, end);
    }
}

static void on_content(struct ag_h2_stream *s, size_t len)
{
    struct h2_call *h = of(s);

    (void)len;
    moved(h);
    if (!h->head_done) {
        ag_h2_stream_error(s, AG_H2_PROTOCOL_ERROR, "content before the answer's head");
    }
}

static void on_ended(struct ag_h2_stream *s)
{
    struct h2_call *h = of(s);

    if (!h->head_done) {
        ag_h2_stream_error(s, AG_H2_PROTOCOL_ERROR, "no head before the answer's end");
        return;
    }
    ag_body_end(h->call->res_body, h->trailers);
    if (!h->tunnel || s->sent) {
        complete(h);
    }
}

static void on_sent(struct ag_h2_stream *s)
{
    struct h2_call *h = of(s);

    h->call->progress_ms = now_of(h);
    if (h->tunnel && s->ended) {
        complete(h);
    }
}

static void on_broken(struct ag_h2_stream *s, enum ag_reason why)
{
    if (why == AG_REASON_RESOURCES) {
        fail(of(s), why, "out of buffers towards the upstream");
    } else {
        /* Never a clean end: the upstream must not take a part for the whole. */
        fail(of(s), AG_REASON_ABORTED, "request content was cut short");
    }
}

/* What a reset by the upstream says; the caller may tell its own client so (CANCEL), or the log. */
static const char *reset_text(enum ag_h2_error code)
{
    static const char *const text[] = {
        [AG_H2_NO_ERROR] = "the upstream reset the stream: NO_ERROR",
        [AG_H2_PROTOCOL_ERROR] = "the upstream reset the stream: PROTOCOL_ERROR",
        [AG_H2_INTERNAL_ERROR] = "the upstream reset the stream: INTERNAL_ERROR",
        [AG_H2_FLOW_CONTROL_ERROR] = "the upstream reset the stream: FLOW_CONTROL_ERROR",
        [AG_H2_SETTINGS_TIMEOUT] = "the upstream reset the stream: SETTINGS_TIMEOUT",
        [AG_H2_STREAM_CLOSED] = "the upstream reset the stream: STREAM_CLOSED",
        [AG_H2_FRAME_SIZE_ERROR] = "the upstream reset the stream: FRAME_SIZE_ERROR",
        [AG_H2_REFUSED_STREAM] = "the upstream refuses the stream",
        [AG_H2_CANCEL] = "the upstream reset the stream: CANCEL",
        [AG_H2_COMPRESSION_ERROR] = "the upstream reset the stream: COMPRESSION_ERROR",
        [AG_H2_CONNECT_ERROR] = "the upstream reset the stream: CONNECT_ERROR",
        [AG_H2_ENHANCE_YOUR_CALM] = "the upstream reset the stream: ENHANCE_YOUR_CALM",
        [AG_H2_INADEQUATE_SECURITY] = "the upstream reset the stream: INADEQUATE_SECURITY",
        [AG_H2_HTTP_1_1_REQUIRED] = "the upstream reset the stream: HTTP_1_1_REQUIRED",
    };

    return text[code];
}

static void on_lost(struct ag_h2_stream *s, enum ag_h2_error code, enum ag_reason why,
                    const char *what)
{
    struct h2_call *h = of(s);
    struct ag_h2_client *c = client_of(s->conn);

    if (!h->call) {
        return;
    }
    if (code == AG_H2_REFUSED_STREAM) {
        h->call->replayable = !h->call->received;
        c->calls_max = s->conn->streams > 0 ? s->conn->streams : 1;
    }
    h->call->h1_required = code == AG_H2_HTTP_1_1_REQUIRED && !h->call->received;
    if (why == AG_REASON_RESET && what) { /* of the stream, not the connection */
        h->call->given_up = code != AG_H2_NO_ERROR && code != AG_H2_CANCEL &&
                            code != AG_H2_REFUSED_STREAM && code != AG_H2_HTTP_1_1_REQUIRED;
        end_badly(h, AG_REASON_ABORTED, reset_text(code));
    } else {
        why = why == AG_REASON_NONE ? AG_REASON_EOF : why;
        /* A budget of ours that the upstream overran is its mistake, no want of room here. */
        why = why == AG_REASON_LIMIT ? AG_REASON_PROTOCOL : why;
        end_badly(h, why, what ? what : ag_reason_text(why));
    }
}

static void on_settled(struct ag_h2_conn *conn)
{
    struct ag_h2_client *c = client_of(conn);

    c->settled = true;
    c->ops->settled(c);
}

static void on_goaway(struct ag_h2_conn *conn, uint32_t last, uint32_t code)
{
    (void)last;
    (void)code;
    client_of(conn)->ops->closing(client_of(conn));
}

static void on_eof(struct ag_h2_conn *conn)
{
    ag_h2_conn_abort(conn, AG_REASON_EOF);
}

static void on_settle(struct ag_h2_conn *conn)
{
    (void)conn;
}

/* ---- whether it still lives ---- */

static void watch(struct ag_h2_client *c, uint64_t after_ms)
{
    ag_h2_conn_wake(&c->conn);
    c->conn.due_ms = c->conn.loop->now_ms + after_ms;
}

static void on_pong(struct ag_h2_conn *conn, uint8_t kind)
{
    (void)kind;
    watch(client_of(conn), AG_H2_CLIENT_PING_AGAIN_MS);
}

/* There is more for it to take yet, and it has taken some since this was asked last: the ping may be behind that. */
static bool takes_what_was_sent(struct ag_h2_client *c)
{
    return ag_stream_has_moved(c->conn.stream, &c->taken) && c->taken.owed_bytes > 0;
}

static void on_late(struct ag_h2_conn *conn)
{
    struct ag_h2_client *c = client_of(conn);
    uint64_t asked = conn->ping_sent_ms[AG_H2_PING_ALIVE];
    uint64_t silent = conn->loop->now_ms - c->heard_ms;

    conn->due_ms = 0;
    if (conn->streams == 0) {
        return; /* the next call begins anew */
    }
    if (asked && c->heard_ms <= asked && takes_what_was_sent(c)) {
        watch(c, AG_H2_CLIENT_PONG_MS);
    } else if (asked && c->heard_ms <= asked) {
        ag_h2_conn_fail(conn, AG_H2_NO_ERROR, AG_REASON_TIMEOUT, "the upstream answers no ping");
    } else if (silent < c->silence_ms) {
        watch(c, c->silence_ms - silent);
    } else {
        c->silence_ms = AG_H2_CLIENT_PING_AGAIN_MS;
        conn->ping_sent_ms[AG_H2_PING_ALIVE] = 0; /* what came instead of its answer will do */
        ag_h2_conn_ping(conn, AG_H2_PING_ALIVE);
        (void)takes_what_was_sent(c);
        watch(c, AG_H2_CLIENT_PONG_MS);
    }
}

static const struct ag_h2_role client_role = {
    .server = false,
    .section = on_section,
    .content = on_content,
    .ended = on_ended,
    .sent = on_sent,
    .broken = on_broken,
    .lost = on_lost,
    .settled = on_settled,
    .goaway = on_goaway,
    .pong = on_pong,
    .eof = on_eof,
    .settle = on_settle,
    .late = on_late,
};

/* ---- what a caller asks of its call ---- */

static void cancel_call(struct ag_call *call)
{
    struct h2_call *h = call->carrier;

    AG_ASSERT(h->call == call);
    ag_h2_stream_reset(&h->stream, AG_H2_CANCEL);
    release(h);
}

static void fail_call(struct ag_call *call, enum ag_reason why, const char *detail)
{
    struct h2_call *h = call->carrier;

    AG_ASSERT(h->call == call);
    fail(h, why, detail);
}

static void accept_tunnel(struct ag_call *call)
{
    struct h2_call *h = call->carrier;

    AG_ASSERT(h->connect && h->head_done && call->req_body);
    h->tunnel = true;
    ag_h2_stream_set_source(&h->stream, call->req_body, AG_LENGTH_UNKNOWN);
}

static enum ag_call_phase phase_of(struct ag_call *call, uint64_t *out_since_ms)
{
    struct h2_call *h = call->carrier;
    const struct ag_h2_stream *s = &h->stream;
    bool content = s->source && s->source->q.bytes > 0;
    bool blocked = s->recv_window <= 0; /* the connection's stays open */
    /* Its caller waits with the content until it is told to go on. */
    bool to_continue = h->expects && s->source && s->source->total_bytes == 0;
    uint64_t taken = call->req_body ? call->req_body->total_bytes - call->req_body->q.bytes : 0;

    if ((h->blocked && !blocked) || taken != h->taken) {
        call->progress_ms = now_of(h); /* that long it could not send; or it took something */
    }
    h->blocked = blocked;
    h->taken = taken;
    *out_since_ms = call->progress_ms;
    if (h->tunnel) { /* or its client takes what is there, slowly */
        return blocked ? AG_CALL_CALLER : AG_CALL_TUNNEL;
    }
    if (content) {
        return s->waiting || s->conn->send_window <= 0 ? AG_CALL_WINDOW : AG_CALL_WRITE;
    }
    if (blocked || (!s->sent && !h->head_done && !to_continue)) {
        return AG_CALL_CALLER; /* its own limits hold */
    }
    return h->head_done ? AG_CALL_READ : AG_CALL_FIRST_BYTE;
}

static const struct ag_call_ops call_ops = {
    .cancel = cancel_call,
    .fail = fail_call,
    .accept_tunnel = accept_tunnel,
    .phase = phase_of,
};

/* ---- calls ---- */

static enum ag_status send_head(struct ag_h2_client *c, struct h2_call *h,
                                const struct ag_call *call, bool end)
{
    const struct ag_h1_request_opts *o = call->opts;
    struct ag_h2_section w;
    enum ag_status st =
        ag_h2_section_begin(&c->conn, ag_h2_request_max(call->req, o->target, o->host), &w);

    if (st != AG_OK) {
        return st;
    }
    ag_h2_put_request(&c->conn.encoder, &w.buf, call->req, call->scheme, o->target, o->host,
                      o->te_trailers);
    return ag_h2_section_send(&h->stream, &w, end) ? AG_OK : AG_ENOMEM;
}

enum ag_status ag_h2_client_start(struct ag_h2_client *c, struct ag_call *call)
{
    const struct ag_request *req = call->req;
    struct h2_call *h = ag_arena_alloc(call->keep, sizeof(*h));
    bool connect = req->protocol.len > 0;
    bool content = req->framing != AG_FRAMING_NONE && !connect;
    enum ag_status st;

    AG_ASSERT(c->settled && (call->req_body || !(content || connect)));
    if (!h) {
        return AG_ENOMEM;
    }
    st = ag_h2_stream_open(&h->stream, &c->conn);
    if (st != AG_OK) {
        return st;
    }
    h->call = NULL; /* nobody is told yet that it is lost */
    if (content) {
        ag_h2_conn_wake(&c->conn); /* content that comes in this turn leaves with the head */
    }
    st = send_head(c, h, call, !content && !connect);
    if (st != AG_OK) {
        ag_h2_stream_leave(&h->stream);
        return st;
    }
    h->call = call;
    h->trailers = NULL;
    h->taken = 0;
    h->method = req->method;
    h->interim_count = 0;
    h->connect = connect;
    h->expects = content && req->expect_continue;
    h->head_done = h->tunnel = h->blocked = false;
    call->ops = &call_ops;
    call->carrier = h;
    call->progress_ms = now_of(h);
    call->sent = true;
    call->received = call->replayable = call->h1_required = call->given_up = false;
    if (content) {
        ag_h2_stream_set_source(&h->stream, call->req_body,
                                req->framing == AG_FRAMING_LENGTH ? req->content_length
                                                                  : AG_LENGTH_UNKNOWN);
    }
    if (c->conn.due_ms == 0) {
        c->heard_ms = call->progress_ms;
        c->silence_ms = AG_H2_CLIENT_SILENCE_MS;
        watch(c, c->silence_ms);
    }
    return AG_OK;
}

/* ---- the connection ---- */

bool ag_h2_client_open(struct ag_h2_client *c, struct ag_stream *s,
                       const struct ag_h2_client_ops *ops)
{
    const struct ag_h2_pair settings[] = {
        {AG_H2_ENABLE_PUSH, 0},
        {AG_H2_MAX_HEADER_LIST_SIZE, limits.head_max},
    };

    memset(c, 0, sizeof(*c));
    c->ops = ops;
    c->calls_max = AG_H2_CLIENT_CALLS_MAX;
    c->silence_ms = AG_H2_CLIENT_SILENCE_MS;
    ag_stream_set_pace(s, 0, STALL_MS);
    ag_h2_conn_init(&c->conn, s, &client_role, PART_TIMEOUT_MS);
    return ag_h2_conn_start(&c->conn, settings, AG_COUNT(settings));
}

uint32_t ag_h2_client_room(const struct ag_h2_client *c)
{
    const struct ag_h2_conn *conn = &c->conn;
    uint32_t most = c->calls_max < conn->peer_streams_max ? c->calls_max : conn->peer_streams_max;

    if (!c->settled || conn->goaway_seen || conn->next_id > AG_H2_ID_MAX ||
        ag_h2_conn_is_closing(conn) || conn->streams >= most) {
        return 0;
    }
    return most - conn->streams;
}

void ag_h2_client_finish(struct ag_h2_client *c)
{
    ag_h2_conn_finish(&c->conn, AG_REASON_NONE);
}

void ag_h2_client_data(struct ag_h2_client *c, struct ag_slice s)
{
    c->heard_ms = c->conn.loop->now_ms;
    ag_h2_conn_data(&c->conn, s);
}

void ag_h2_client_eof(struct ag_h2_client *c)
{
    ag_h2_conn_eof(&c->conn);
}

void ag_h2_client_drained(struct ag_h2_client *c)
{
    ag_h2_conn_drained(&c->conn);
}

void ag_h2_client_deadline(struct ag_h2_client *c)
{
    ag_h2_conn_deadline(&c->conn);
}

void ag_h2_client_closed(struct ag_h2_client *c, enum ag_reason why)
{
    ag_h2_conn_closed(&c->conn, why);
}
