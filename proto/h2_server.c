#include "proto/h2_server_parts.h"

/* How long a client may take to see that the connection is about to end. */
#define DRAIN_GRACE_MS 1000u

static uint64_t now_of(const struct ag_h2_server *h)
{
    return h->conn.loop->now_ms;
}

/* ---- the end of streams ---- */

/* The last of an exchange: its slot is free. */
static void on_freed(void *owner)
{
    struct ag_h2_request *r = owner;

    ag_list_remove(&r->s.link);
    if (r->server) {
        r->server->slots--;
    }
}

/* It may have been the last one. */
static void set_idle(struct ag_h2_server *h)
{
    if (h->conn.streams == 0) {
        h->idle_due_ms = now_of(h) + h->limits->idle_timeout_ms;
    }
}

void ag_h2_server_orphan(struct ag_h2_request *r)
{
    AG_ASSERT(!r->s.live && r->server);
    ag_list_remove(&r->done);
    ag_list_push(&r->server->orphans, &r->s.link);
    r->ex->freed = on_freed;
    r->ex->freed_owner = r;
    r->ex->sent_bytes = r->s.sent_bytes;
    set_idle(r->server);
}

void ag_h2_server_answered(struct ag_h2_request *r)
{
    struct ag_exchange *ex = r->ex;
    struct ag_h2_server *h = r->server;

    if (!r->s.ended && r->tunnel) { /* the other way goes on */
        ag_h2_server_check_at(h, ag_h2_server_body_due(r));
        return;
    }
    if (!r->s.ended && !r->discards && ag_h2_server_rest_is_small(r)) {
        ag_h2_server_discard(r);
        return;
    }
    if (r->s.ended) {
        ag_h2_stream_leave(&r->s);
    } else { /* the rest of the request is of no use (RFC 9113 section 8.1) */
        ag_h2_stream_reset(&r->s, AG_H2_NO_ERROR);
    }
    ex->sent_bytes = r->s.sent_bytes;
    ag_list_remove(&r->done); /* the request's end came while the answer's was to be looked at */
    ag_exchange_complete(ex);
    if (ag_exchange_reap(ex)) { /* nobody works on it: no need of an orphan */
        h->slots--;
        set_idle(h);
    } else {
        ag_h2_server_orphan(r);
    }
}

void ag_h2_server_answered_soon(struct ag_h2_request *r)
{
    if (ag_list_empty(&r->done)) {
        ag_list_push(&r->server->done, &r->done);
    }
    ag_h2_conn_wake(&r->server->conn);
}

void ag_h2_server_lost(struct ag_h2_stream *s, enum ag_h2_error code, enum ag_reason why,
                       const char *what)
{
    struct ag_h2_request *r = ag_h2_request_of(s);

    (void)code;
    if (!r->ex->detail) {
        r->ex->detail = what;
    }
    ag_h2_server_orphan(r);
    if (s->sent) {
        ag_exchange_complete(r->ex); /* only the request's rest is lost */
    } else {
        ag_exchange_abort(r->ex, why);
    }
}

void ag_h2_server_drop(struct ag_h2_request *r, enum ag_h2_error code, enum ag_reason why)
{
    if (r->s.live) {
        ag_h2_stream_reset(&r->s, code);
        ag_h2_server_orphan(r);
        ag_exchange_abort(r->ex, why);
    }
}

static void on_sent(struct ag_h2_stream *s)
{
    ag_h2_server_answered(ag_h2_request_of(s));
}

/* The client must not take a part for the whole. */
static void on_broken(struct ag_h2_stream *s, enum ag_reason why)
{
    ag_h2_server_drop(ag_h2_request_of(s), AG_H2_INTERNAL_ERROR, why);
}

/* ---- deadlines ---- */

void ag_h2_server_check_at(struct ag_h2_server *h, uint64_t due_ms)
{
    if (due_ms && (!h->check_due_ms || due_ms < h->check_due_ms)) {
        h->check_due_ms = due_ms;
    }
}

/* All that wait for content of the client; one that is late may end, with whoever it takes along. */
static void check_streams(struct ag_h2_server *h)
{
    uint64_t now = now_of(h);

    h->check_due_ms = 0;
    for (size_t i = 0; i < AG_H2_BUCKETS; i++) {
        for (struct ag_h2_stream *s = h->conn.buckets[i]; s;) {
            struct ag_h2_request *r = ag_h2_request_of(s);
            uint64_t due = ag_h2_server_body_due(r);

            s = s->next;
            if (due && now >= due) {
                ag_h2_server_body_late(r);
                s = h->conn.buckets[i];
            } else {
                ag_h2_server_check_at(h, due);
            }
        }
    }
}

/* An idle connection ends, unless its last answer is still on its way. */
static void end_idle(struct ag_h2_server *h)
{
    struct ag_stream *s = h->conn.stream;

    if (ag_stream_queued(s) == 0) {
        ag_h2_conn_finish(&h->conn, h->requests ? AG_REASON_ABORTED : AG_REASON_TIMEOUT);
    } else if (s->sending_bytes == 0) {
        h->idle_due_ms = now_of(h) + 1; /* answers to PING of this very turn: no reason to stay */
    } else if (ag_stream_too_slow(s)) {
        ag_h2_conn_abort(&h->conn, AG_REASON_TIMEOUT);
    } else {
        h->idle_due_ms = now_of(h) + ag_stream_look_ms(s);
    }
}

/* The drain's second step: the client has had the time to see the first. */
static void end_drain(struct ag_h2_server *h)
{
    h->drain_due_ms = 0;
    if (!h->ending) {
        h->ending = true;
        ag_h2_conn_goaway(&h->conn, h->conn.last_id, AG_H2_NO_ERROR, AG_SPAN(""));
    }
}

static void on_late(struct ag_h2_conn *c)
{
    struct ag_h2_server *h = ag_h2_server_of(c);
    uint64_t now = now_of(h);

    if (h->drain_due_ms && now >= h->drain_due_ms) {
        end_drain(h);
    }
    if (!ag_h2_conn_is_closing(c) && h->check_due_ms && now >= h->check_due_ms) {
        check_streams(h);
    }
    if (!ag_h2_conn_is_closing(c) && c->streams == 0 && now >= h->idle_due_ms) {
        end_idle(h);
    }
}

static uint64_t sooner(uint64_t a, uint64_t b)
{
    return b && (!a || b < a) ? b : a;
}

/* The end of a round: answers that were complete at once, and whether this was all. */
static void on_settle(struct ag_h2_conn *c)
{
    struct ag_h2_server *h = ag_h2_server_of(c);

    for (struct ag_link *it; !ag_h2_conn_is_closing(c) && (it = ag_list_pop(&h->done));) {
        ag_h2_server_answered(ag_container_of(it, struct ag_h2_request, done));
    }
    if (ag_h2_conn_is_closing(c)) {
        return;
    }
    if (c->streams == 0 && h->ending) {
        ag_h2_conn_finish(c, AG_REASON_ABORTED);
        return;
    }
    if (c->receiving == 0) {
        c->large = false;
    }
    c->due_ms = sooner(c->due_ms, sooner(h->drain_due_ms, h->check_due_ms));
    c->due_ms = sooner(c->due_ms, c->streams == 0 ? h->idle_due_ms : 0);
}

/* ---- drain ---- */

static void on_pong(struct ag_h2_conn *c, uint8_t kind)
{
    struct ag_h2_server *h = ag_h2_server_of(c);

    if (kind == AG_H2_PING_DRAIN && h->drain_due_ms) {
        end_drain(h);
    }
}

/* A client that goes away itself ends with its last answer. */
static void on_goaway(struct ag_h2_conn *c, uint32_t last, uint32_t code)
{
    (void)last;
    (void)code;
    ag_h2_server_of(c)->ending = true;
}

void ag_h2_server_drain(struct ag_h2_server *h)
{
    if (h->draining || ag_h2_conn_is_closing(&h->conn)) {
        return;
    }
    h->draining = true;
    if (h->ending && h->conn.goaway_sent) {
        return; /* it ends as it is, and what was told is not taken back (RFC 9113 section 6.8) */
    }
    ag_h2_conn_wake(&h->conn); /* for the deadline */
    ag_h2_conn_goaway(&h->conn, AG_H2_ID_MAX, AG_H2_NO_ERROR, AG_SPAN(""));
    ag_h2_conn_ping(&h->conn, AG_H2_PING_DRAIN);
    h->drain_due_ms = now_of(h) + DRAIN_GRACE_MS;
}

void ag_h2_server_yield(struct ag_h2_server *h)
{
    ag_h2_server_drain(h);
}

void ag_h2_server_hasten(struct ag_h2_server *h)
{
    if (h->conn.streams == 0 && !ag_h2_conn_is_closing(&h->conn)) {
        h->idle_due_ms =
            ag_min_u64(h->idle_due_ms, now_of(h) + (h->requests ? h->limits->idle_timeout_ms
                                                                : h->limits->header_timeout_ms));
        ag_h2_conn_wake(&h->conn); /* for the deadline */
    }
}

bool ag_h2_server_idle(const struct ag_h2_server *h)
{
    const struct ag_h2_input *in = &h->conn.in;

    return h->conn.streams == 0 && in->section_id == 0 && !in->in_frame && in->q.bytes == 0;
}

/* ---- the stream's callbacks ---- */

/* Nothing more comes: what is not whole never will be. */
static void on_eof(struct ag_h2_conn *c)
{
    for (size_t i = 0; i < AG_H2_BUCKETS; i++) {
        struct ag_h2_stream *s = c->buckets[i];

        while (s) {
            if (!s->ended) {
                ag_h2_server_drop(ag_h2_request_of(s), AG_H2_CANCEL, AG_REASON_EOF);
                s = c->buckets[i];
            } else {
                s = s->next;
            }
        }
    }
    if (c->streams == 0) {
        ag_h2_conn_finish(c, AG_REASON_EOF);
    }
}

static const struct ag_h2_role role = {
    .server = true,
    .open = ag_h2_server_open,
    .section = ag_h2_server_trailers,
    .content = ag_h2_server_content,
    .ended = ag_h2_server_ended,
    .sent = on_sent,
    .broken = on_broken,
    .lost = ag_h2_server_lost,
    .goaway = on_goaway,
    .pong = on_pong,
    .eof = on_eof,
    .settle = on_settle,
    .late = on_late,
};

void ag_h2_server_init(struct ag_h2_server *h, struct ag_stream *s, struct ag_context *ctx,
                       const struct ag_server_limits *limits, uint16_t listener_port)
{
    uint32_t streams = limits->h2_streams_max ? limits->h2_streams_max : AG_H2_STREAMS_MAX;
    const struct ag_h2_pair settings[] = {
        {AG_H2_MAX_CONCURRENT_STREAMS, streams},
        {AG_H2_MAX_HEADER_LIST_SIZE, limits->head.head_max},
        {AG_H2_ENABLE_CONNECT_PROTOCOL, 1},
        {AG_H2_NO_RFC7540_PRIORITIES, 1},
    };

    *h = (struct ag_h2_server){.context = ctx, .limits = limits, .listener_port = listener_port};
    ag_list_init(&h->done);
    ag_list_init(&h->orphans);
    h->tls = ag_stream_tls(s) != NULL;
    h->idle_due_ms = s->loop->now_ms + limits->header_timeout_ms;
    ag_h2_conn_init(&h->conn, s, &role, limits->header_timeout_ms);
    h->conn.resets_max = limits->h2_resets_max ? limits->h2_resets_max : AG_H2_RESETS_MAX;
    if (ag_h2_conn_start(&h->conn, settings, AG_COUNT(settings))) {
        h->conn.due_ms = h->idle_due_ms;
        ag_stream_deadline(s, limits->header_timeout_ms);
    }
}

void ag_h2_server_data(struct ag_h2_server *h, struct ag_slice s)
{
    ag_h2_conn_data(&h->conn, s);
}

void ag_h2_server_eof(struct ag_h2_server *h)
{
    ag_h2_conn_eof(&h->conn);
}

void ag_h2_server_drained(struct ag_h2_server *h)
{
    ag_h2_conn_drained(&h->conn);
}

void ag_h2_server_deadline(struct ag_h2_server *h)
{
    ag_h2_conn_deadline(&h->conn);
}

void ag_h2_server_closed(struct ag_h2_server *h, enum ag_reason why)
{
    ag_h2_conn_closed(&h->conn, why);
    for (struct ag_link *it; (it = ag_list_pop(&h->orphans));) {
        struct ag_h2_request *r = ag_h2_request_of(ag_container_of(it, struct ag_h2_stream, link));

        r->server = NULL;
        r->ex->freed = NULL;
    }
}
