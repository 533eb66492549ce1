#include "engine/tls.h"

#if AG_WOLFSSL

#    include "engine/tls_impl.h"
#    include "engine/tls_memory.h"

#    include <wolfssl/options.h>
#    include <wolfssl/ssl.h>

_Static_assert(sizeof(struct ag_tls) <= 1024, "an idle TLS connection is to cost at most 9,000");

void ag_tls_set_state(struct ag_tls *t, enum ag_tls_state next)
{
    static const uint8_t edges[] = {
        [AG_TLS_HELLO] = 1u << AG_TLS_HANDSHAKE | 1u << AG_TLS_ENDING,
        [AG_TLS_CONNECTING] = 1u << AG_TLS_HANDSHAKE | 1u << AG_TLS_ENDING,
        [AG_TLS_HANDSHAKE] = 1u << AG_TLS_OPEN | 1u << AG_TLS_ENDING,
        [AG_TLS_OPEN] = 1u << AG_TLS_FLUSHING | 1u << AG_TLS_ENDING,
        [AG_TLS_FLUSHING] = 1u << AG_TLS_ENDING,
        [AG_TLS_ENDING] = 1u << AG_TLS_CLOSED,
        [AG_TLS_CLOSED] = 0,
    };

    AG_ASSERT(edges[t->state] & 1u << next);
    t->state = (uint8_t)next;
}

/* ---- the end ---- */

/* To ENDING, from wherever it is; the first reason stays. What ends the connection below follows. */
static void begin_end(struct ag_tls *t, enum ag_reason why, const char *detail)
{
    struct ag_stream *s = &t->stream;

    ag_tls_set_state(t, AG_TLS_ENDING);
    t->reason = (uint8_t)why;
    t->detail = t->detail ? t->detail : detail;
    s->closing = true;
    ag_stream_set_pace(&t->conn.stream, s->rate, s->stall_ms);
    ag_timer_cancel(&s->loop->wheel, &s->deadline);
    ag_task_cancel(&s->flush_task);
    ag_task_cancel(&t->input);
    ag_chain_clear(&s->out, &s->loop->nodes);
    ag_chain_clear(&t->in, &s->loop->nodes);
    ag_tls_write_end(t);
    ag_tls_shake_end(t);
}

void ag_tls_fail(struct ag_tls *t, enum ag_reason why, const char *detail)
{
    if (t->state < AG_TLS_ENDING) {
        begin_end(t, why, detail);
        ag_stream_finish(&t->conn.stream);
    }
}

void ag_tls_break(struct ag_tls *t, enum ag_reason why, const char *detail)
{
    struct ag_stream *s = &t->stream;

    if (t->state < AG_TLS_ENDING) {
        /* What was queued will never be whole. */
        t->conn.stream.incomplete |= s->incomplete || ag_stream_queued(s) > 0;
        begin_end(t, why, detail);
    }
    if (t->state != AG_TLS_CLOSED) {
        ag_stream_abort(&t->conn.stream, why);
    }
}

/* A server that breaks the handshake off may do so for the session that it was offered, and say nothing. */
static void doubt_session(struct ag_tls *t)
{
    if (t->client && t->state == AG_TLS_HANDSHAKE) {
        ag_tls_client_forget(t->client, t->shake->host);
    }
}

static void on_conn_close(struct ag_stream *below, enum ag_reason why)
{
    struct ag_tls *t = ag_container_of(ag_conn_of(below), struct ag_tls, conn);
    struct ag_stream *s = &t->stream;

    if (t->state < AG_TLS_ENDING) {
        doubt_session(t);
        begin_end(t, why, NULL);
    }
    ag_tls_set_state(t, AG_TLS_CLOSED);
    if (t->client && t->ssl && t->names) { /* the handshake was done */
        ag_tls_client_keep(t->client, t->session.server_name, t->ssl, t->ticket);
    }
    wolfSSL_free(t->ssl);
    t->ssl = NULL;
    ag_tls_client_release(t->client);
    ag_tls_free(t->names);
    /* What is static still tells who is told of the end what the connection was. */
    t->session = (struct ag_tls_session){
        .version = t->session.version, .cipher = t->session.cipher, .resumed = t->session.resumed};
    ag_stream_deinit(s);
    s->user->on_close(s, (enum ag_reason)t->reason);
}

/* ---- the connection below ---- */

static struct ag_tls *of_conn(struct ag_stream *below)
{
    return ag_container_of(ag_conn_of(below), struct ag_tls, conn);
}

/* What comes after finish is of no interest, up to a bound. */
static void discard(struct ag_tls *t, struct ag_slice slice)
{
    t->discarded_bytes += (uint32_t)slice.len;
    ag_slice_release(&slice);
    if (t->discarded_bytes >= AG_CONN_LINGER_BYTES) {
        ag_stream_pause(&t->conn.stream);
    }
}

static void on_conn_data(struct ag_stream *below, struct ag_slice slice)
{
    struct ag_tls *t = of_conn(below);

    if (t->state == AG_TLS_HELLO) {
        ag_tls_shake_hello(t, slice);
    } else if (t->state > AG_TLS_OPEN || t->eof) {
        discard(t, slice);
    } else if (ag_chain_push(&t->in, &t->stream.loop->nodes, slice) != AG_OK) {
        ag_tls_break(t, AG_REASON_RESOURCES, NULL);
    } else if (t->state == AG_TLS_OPEN) {
        ag_tls_read_go_on(t);
    } else {
        ag_tls_shake_go_on(t);
    }
}

static void on_conn_eof(struct ag_stream *below)
{
    struct ag_tls *t = of_conn(below);

    t->fin = true;
    if (t->state < AG_TLS_OPEN) {
        doubt_session(t);
        ag_tls_break(t, AG_REASON_EOF, "closed during the handshake");
    } else if (t->state == AG_TLS_OPEN && !t->eof) {
        ag_tls_read_go_on(t);
    }
}

/* Comes with each send that leaves little: see ag_tls_write_go_on. */
static void on_conn_drain(struct ag_stream *below)
{
    struct ag_tls *t = of_conn(below);

    ag_tls_write_sent(t);
    ag_tls_write_go_on(t);
}

/* Nobody sets one on the connection below. */
static void on_conn_deadline(struct ag_stream *below)
{
    (void)below;
}

static const struct ag_stream_user conn_user = {
    .on_data = on_conn_data,
    .on_eof = on_conn_eof,
    .on_drain = on_conn_drain,
    .on_deadline = on_conn_deadline,
    .on_close = on_conn_close,
};

/* ---- the stream's operations ---- */

static void tls_flush(struct ag_stream *s)
{
    ag_tls_write_go_on(ag_tls_of(s));
}

static void tls_pause(struct ag_stream *s)
{
    struct ag_tls *t = ag_tls_of(s);

    t->reading = false;
    if (t->state == AG_TLS_OPEN) {
        ag_stream_pause(&t->conn.stream);
    }
}

static void tls_resume(struct ag_stream *s, enum ag_buf_group group)
{
    struct ag_tls *t = ag_tls_of(s);

    t->reading = true;
    t->group = (uint8_t)group;
    if (t->state == AG_TLS_OPEN) {
        ag_task_queue(s->loop, &t->input);
    }
}

static void tls_shut(struct ag_stream *s)
{
    ag_tls_of(s)->shut = true;
    ag_task_queue(s->loop, &s->flush_task);
}

static void tls_finish(struct ag_stream *s)
{
    struct ag_tls *t = ag_tls_of(s);

    if (t->state != AG_TLS_OPEN) {
        ag_tls_fail(t, AG_REASON_NONE, NULL);
        return;
    }
    ag_tls_set_state(t, AG_TLS_FLUSHING);
    ag_task_cancel(&t->input);
    ag_chain_clear(&t->in, &s->loop->nodes);
    ag_stream_resume(&t->conn.stream, AG_BUF_SMALL); /* to see it close, or what it sends still */
    ag_stream_watch_flush(s);
    ag_task_queue(s->loop, &s->flush_task);
}

static void tls_abort(struct ag_stream *s, enum ag_reason why)
{
    ag_tls_break(ag_tls_of(s), why, NULL);
}

static void tls_peer(struct ag_stream *s, union ag_addr *out_addr)
{
    ag_conn_peer(&ag_tls_of(s)->conn, out_addr);
}

static void tls_local(struct ag_stream *s, union ag_addr *out_addr)
{
    ag_conn_local(&ag_tls_of(s)->conn, out_addr);
}

static uint32_t tls_progress(struct ag_stream *s, uint32_t *out_unsent)
{
    struct ag_stream *below = &ag_tls_of(s)->conn.stream;

    return below->ops->progress(below, out_unsent);
}

static bool tls_starved(struct ag_stream *s)
{
    struct ag_tls *t = ag_tls_of(s);

    return (t->state == AG_TLS_OPEN && t->reading && t->in.bytes > 0) ||
           ag_stream_starved(&t->conn.stream);
}

static const struct ag_tls_session *tls_session(struct ag_stream *s)
{
    return &ag_tls_of(s)->session;
}

static const struct ag_stream_ops tls_ops = {
    .flush = tls_flush,
    .pause = tls_pause,
    .resume = tls_resume,
    .shut = tls_shut,
    .finish = tls_finish,
    .abort = tls_abort,
    .peer = tls_peer,
    .local = tls_local,
    .progress = tls_progress,
    .starved = tls_starved,
    .tls = tls_session,
};

/* ---- the beginning ---- */

/* From the loop: after resume, and when a buffer may be had. */
static void on_input(struct ag_task *task)
{
    ag_tls_read_go_on(ag_container_of(task, struct ag_tls, input));
}

/* All but the connection below, which may be open. */
static void init(struct ag_tls *t, struct ag_loop *l, const struct ag_stream_user *user,
                 void (*ready)(struct ag_tls *))
{
    uint8_t *above = (uint8_t *)t;
    size_t after = offsetof(struct ag_tls, conn) + sizeof(t->conn);

    memset(above, 0, offsetof(struct ag_tls, conn));
    memset(above + after, 0, sizeof(*t) - after);
    t->ready = ready;
    t->reading = true;
    ag_stream_init(&t->stream, l, &tls_ops, user);
    ag_task_init(&t->input, on_input);
}

// NOLINTNEXTLINE(readability-function-size): the interface is wider than the body is long
void ag_tls_accept(struct ag_tls *t, struct ag_loop *l, int fd, struct ag_tls_server *server,
                   uint32_t shard, const struct ag_stream_user *user,
                   void (*ready)(struct ag_tls *))
{
    ag_conn_accept(&t->conn, l, fd, &conn_user);
    ag_tls_adopt(t, server, shard, user, ready, (struct ag_slice){0});
}

// NOLINTNEXTLINE(readability-function-size): the interface is wider than the body is long
void ag_tls_adopt(struct ag_tls *t, struct ag_tls_server *server, uint32_t shard,
                  const struct ag_stream_user *user, void (*ready)(struct ag_tls *),
                  struct ag_slice rest)
{
    init(t, t->conn.stream.loop, user, ready);
    t->state = AG_TLS_HELLO;
    t->shard = shard;
    t->server = ag_tls_server_hold(server);
    t->conn.stream.user = &conn_user;
    if (!ag_tls_shake_start(t, ag_tls_server_handshake_ms(server))) {
        ag_slice_release(&rest);
        ag_tls_break(t, AG_REASON_RESOURCES, NULL);
    } else if (rest.len > 0) {
        on_conn_data(&t->conn.stream, rest);
    }
}

static void on_connected(struct ag_conn *c)
{
    ag_tls_shake_connected(ag_container_of(c, struct ag_tls, conn));
}

// NOLINTNEXTLINE(readability-function-size): the interface is wider than the body is long
void ag_tls_connect(struct ag_tls *t, struct ag_loop *l, const union ag_addr *addr,
                    socklen_t addr_len, struct ag_tls_client *client, struct ag_span host,
                    const struct ag_stream_user *user, void (*ready)(struct ag_tls *),
                    enum ag_buf_group group)
{
    const struct ag_tls_client_settings *settings = ag_tls_client_settings_of(client);
    struct ag_span name = settings->server_name.len > 0 ? settings->server_name : host;

    init(t, l, user, ready);
    t->state = AG_TLS_CONNECTING;
    t->group = (uint8_t)group;
    t->client = ag_tls_client_hold(client);
    ag_conn_connect(&t->conn, l, addr, addr_len, &conn_user, on_connected, AG_BUF_SMALL);
    if (name.len > AG_TLS_HOST_MAX || !ag_tls_shake_start(t, settings->handshake_ms)) {
        ag_tls_break(t, AG_REASON_RESOURCES, NULL);
        return;
    }
    if (name.len > 0 && name.ptr[name.len - 1] == '.') {
        name.len--; /* which ends a name in full, is no part of one that is asked for (RFC 6066 section 3) */
    }
    memcpy(t->shake->host_text, name.ptr, name.len);
    t->shake->host = ag_span(t->shake->host_text, name.len);
}

enum ag_status ag_tls_put_before(struct ag_tls *t, struct ag_span bytes)
{
    AG_ASSERT(t->state == AG_TLS_CONNECTING || t->state == AG_TLS_ENDING);
    return ag_stream_put(&t->conn.stream, bytes);
}

#else

/* Nothing makes a server or a client in this build, so nothing calls these. */

// NOLINTNEXTLINE(readability-function-size): the interface is wider than the body is long
void ag_tls_accept(struct ag_tls *t, struct ag_loop *l, int fd, struct ag_tls_server *server,
                   uint32_t shard, const struct ag_stream_user *user,
                   void (*ready)(struct ag_tls *))
{
    (void)t, (void)l, (void)fd, (void)server, (void)shard, (void)user, (void)ready;
    AG_UNREACHABLE("built without TLS");
}

// NOLINTNEXTLINE(readability-function-size): the interface is wider than the body is long
void ag_tls_connect(struct ag_tls *t, struct ag_loop *l, const union ag_addr *addr,
                    socklen_t addr_len, struct ag_tls_client *client, struct ag_span host,
                    const struct ag_stream_user *user, void (*ready)(struct ag_tls *),
                    enum ag_buf_group group)
{
    (void)t, (void)l, (void)addr, (void)addr_len, (void)client, (void)host, (void)user;
    (void)ready, (void)group;
    AG_UNREACHABLE("built without TLS");
}

enum ag_status ag_tls_put_before(struct ag_tls *t, struct ag_span bytes)
{
    (void)t, (void)bytes;
    AG_UNREACHABLE("built without TLS");
}

// NOLINTNEXTLINE(readability-function-size): the interface is wider than the body is long
void ag_tls_adopt(struct ag_tls *t, struct ag_tls_server *server, uint32_t shard,
                  const struct ag_stream_user *user, void (*ready)(struct ag_tls *),
                  struct ag_slice rest)
{
    (void)t, (void)server, (void)shard, (void)user, (void)ready, (void)rest;
    AG_UNREACHABLE("built without TLS");
}

#endif
