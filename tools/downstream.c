#include "tools/downstream.h"

#include "actions/upstream/upstream_pool.h"
#include "engine/resolver.h"
#include "router/snapshot.h"

#include <stdio.h>

#define WARN_EVERY_MS 1000u

#define PLAIN_BYTES (offsetof(struct ag_downstream, conn) + sizeof(struct ag_conn))

_Static_assert(PLAIN_BYTES <= 448, "idle connections are what there is most of");
_Static_assert(offsetof(struct ag_conn, stream) == 0 && offsetof(struct ag_tls, stream) == 0,
               "either transport is found by its stream");

static struct ag_downstream *of(struct ag_stream *s)
{
    return ag_container_of(s, struct ag_downstream, stream);
}

/* ---- the end ---- */

void ag_downstream_release(struct ag_downstream *ds)
{
    struct ag_downstreams *all = ds->all;
    struct ag_downstream_origin *origin = ds->origin;

    ag_list_remove(&ds->link);
    ag_upstreams_client_gone(all->context->action_state[AG_ACTION_PROXY], &ds->stream);
    if (ds->relayed) {
        ag_pool_put(&all->relays, ds->relay);
    }
    if (ds->proxied) {
        ag_pool_put(&all->proxied, ds->proxied);
    }
    ag_pool_put(ds->secure ? &all->tls : &all->plain, ds);
    all->count--;
    origin->connections--;
    all->changed(all, origin);
}

/* ---- what nobody has asked for, and so no access log tells ---- */

/* Told where requests are told; else to who looks for trouble. */
static enum ag_log_level trouble_level(const struct ag_downstream *ds)
{
    const struct ag_snapshot *s = ds->all->context->snapshot;

    return s->model->access_log == AG_ACCESS_OFF ? AG_LOG_DEBUG : AG_LOG_INFO;
}

static void put_client(const struct ag_peer *peer, struct ag_buf *out)
{
    union ag_addr addr;

    ag_peer_known(peer, &addr);
    if (addr.sa.sa_family == AF_INET || addr.sa.sa_family == AF_INET6) {
        ag_addr_format(&addr, false, out);
    } else {
        ag_buf_put(out, AG_SPAN("a client"));
    }
}

void ag_downstream_trouble(const struct ag_downstream *ds, const struct ag_peer *peer,
                           const char *protocol, const char *what)
{
    char text[64];
    struct ag_buf from = ag_buf(text, sizeof(text));

    if (!ag_log_enabled(trouble_level(ds))) {
        return;
    }
    put_client(peer, &from);
    ag_log(trouble_level(ds), "%.*s on port %u: %s: %s", (int)from.len, text, ds->origin->port,
           protocol, what);
}

void ag_downstream_warn(const struct ag_downstream *ds, const struct ag_peer *peer,
                        const char *protocol, const char *what)
{
    struct ag_downstreams *all = ds->all;
    uint64_t now_ms = all->context->loop->now_ms;
    char text[64], more[64] = "";
    struct ag_buf from = ag_buf(text, sizeof(text));

    if (trouble_level(ds) == AG_LOG_INFO) {
        ag_downstream_trouble(ds, peer, protocol, what);
        return;
    }
    if (all->warned_ms > 0 && now_ms - all->warned_ms < WARN_EVERY_MS) {
        all->unwarned++;
        return;
    }
    if (all->unwarned > 0) {
        (void)snprintf(more, sizeof(more), "; %u more since the last warning", all->unwarned);
    }
    all->warned_ms = now_ms;
    all->unwarned = 0;
    put_client(peer, &from);
    ag_log(AG_LOG_WARN, "%.*s on port %u: %s: %s%s", (int)from.len, text, ds->origin->port,
           protocol, what, more);
}

/* What a header has told holds for the protocol. */
static void introduce(const struct ag_downstream *ds, struct ag_peer *peer,
                      const struct ag_proxied **out)
{
    *out = ds->proxied;
    if (ds->proxied) {
        *peer = ds->proxied->source; /* not known: the protocol asks the stream */
    }
}

/* ---- HTTP/1 ---- */

static void h1_on_data(struct ag_stream *s, struct ag_slice slice)
{
    ag_h1_server_data(&of(s)->h1, slice);
}

static void h1_on_eof(struct ag_stream *s)
{
    ag_h1_server_eof(&of(s)->h1);
}

static void h1_on_cut(struct ag_stream *s)
{
    ag_h1_server_cut(&of(s)->h1);
}

static void h1_on_drain(struct ag_stream *s)
{
    ag_h1_server_drained(&of(s)->h1);
}

static void h1_on_deadline(struct ag_stream *s)
{
    ag_h1_server_deadline(&of(s)->h1);
}

static void h1_on_close(struct ag_stream *s, enum ag_reason why)
{
    struct ag_downstream *ds = of(s);

    ag_h1_server_closed(&ds->h1, why);
    ag_downstream_release(ds);
}

static const struct ag_stream_user h1_user = {
    .on_data = h1_on_data,
    .on_eof = h1_on_eof,
    .on_drain = h1_on_drain,
    .on_deadline = h1_on_deadline,
    .on_close = h1_on_close,
    .on_cut = h1_on_cut,
};

static void begin_h1(struct ag_downstream *ds)
{
    ag_h1_server_init(&ds->h1, &ds->stream, ds->all->context, &ds->origin->limits,
                      ds->origin->port);
    introduce(ds, &ds->h1.peer, &ds->h1.proxied);
    ds->h1.draining =
        ds->origin->draining || ds->yielding; /* its first request is still answered */
    ds->h1.yielding = ds->yielding;
}

/* ---- HTTP/2 ---- */

static void h2_on_data(struct ag_stream *s, struct ag_slice slice)
{
    ag_h2_server_data(of(s)->h2, slice);
}

static void h2_on_eof(struct ag_stream *s)
{
    ag_h2_server_eof(of(s)->h2);
}

static void h2_on_drain(struct ag_stream *s)
{
    ag_h2_server_drained(of(s)->h2);
}

static void h2_on_deadline(struct ag_stream *s)
{
    ag_h2_server_deadline(of(s)->h2);
}

static void h2_on_close(struct ag_stream *s, enum ag_reason why)
{
    struct ag_downstream *ds = of(s);
    const struct ag_h2_conn *c = &ds->h2->conn;

    if (c->what && c->reason != AG_REASON_NONE && c->reason != AG_REASON_ABORTED) {
        ag_downstream_trouble(ds, &ds->h2->peer, "HTTP/2", c->what);
    }
    ag_h2_server_closed(ds->h2, why);
    ag_pool_put(&ds->all->h2, ds->h2);
    ag_downstream_release(ds);
}

static const struct ag_stream_user h2_user = {
    .on_data = h2_on_data,
    .on_eof = h2_on_eof,
    .on_cut = h2_on_eof, /* each stream has an end of its own */
    .on_drain = h2_on_drain,
    .on_deadline = h2_on_deadline,
    .on_close = h2_on_close,
};

static void begin_h2(struct ag_downstream *ds)
{
    ds->is_h2 = true;
    ds->h2 = ag_pool_take(&ds->all->h2); /* there are as many as connections */
    ds->stream.user = &h2_user;
    ag_h2_server_init(ds->h2, &ds->stream, ds->all->context, &ds->origin->limits, ds->origin->port);
    introduce(ds, &ds->h2->peer, &ds->h2->proxied);
    if (ag_log_enabled(trouble_level(ds))) {
        ag_peer_look(&ds->h2->peer, &ds->stream); /* when it has broken nobody knows any more */
    }
    if (ds->yielding) {
        ag_h2_server_yield(ds->h2);
    } else if (ds->origin->draining) {
        ag_h2_server_drain(ds->h2);
    }
}

/* ---- plain: the first bytes tell ---- */

/* How many bytes of `in` go on with the preface behind what has matched of it. */
static size_t match_preface(const struct ag_downstream *ds, struct ag_span in)
{
    struct ag_span rest = ag_span_sub(AG_H2_MAGIC, ds->matched, AG_H2_MAGIC.len);
    size_t n = 0;

    while (n < in.len && n < rest.len && in.ptr[n] == rest.ptr[n]) {
        n++;
    }
    return n;
}

/* Whoever is to have them gets the bytes that matched: they are known, and need not be kept. */
static void hand_over(struct ag_downstream *ds)
{
    struct ag_span matched = ag_span_sub(AG_H2_MAGIC, 0, ds->matched);

    if (matched.len > 0) {
        ds->stream.user->on_data(&ds->stream, ag_slice_static(matched));
    }
}

static void first_on_data(struct ag_stream *s, struct ag_slice slice)
{
    struct ag_downstream *ds = of(s);
    struct ag_span in = ag_slice_span(&slice);
    size_t n = match_preface(ds, in);

    if (n == in.len && ds->matched + n < AG_H2_MAGIC.len) {
        if (ds->matched == 0) { /* a head has begun, of either protocol */
            ds->h1.due_ms = ds->all->context->loop->now_ms + ds->origin->limits.header_timeout_ms;
        }
        ds->matched += (uint8_t)n;
        ag_slice_release(&slice);
        return;
    }
    if (ds->matched + n == AG_H2_MAGIC.len) {
        ag_h1_server_closed(&ds->h1, AG_REASON_NONE); /* it has seen nothing */
        begin_h2(ds);
    } else {
        s->user = &h1_user;
    }
    hand_over(ds);
    s->user->on_data(s, slice);
}

static void first_on_eof(struct ag_stream *s)
{
    struct ag_downstream *ds = of(s);

    s->user = &h1_user;
    hand_over(ds);
    ag_h1_server_eof(&ds->h1);
}

/* What is begun and does not go on is a head of HTTP/1 that is late. */
static void first_on_deadline(struct ag_stream *s)
{
    struct ag_downstream *ds = of(s);
    uint64_t due_ms = ds->h1.due_ms;

    if (ds->matched > 0 && ds->all->context->loop->now_ms >= due_ms) {
        s->user = &h1_user;
        hand_over(ds);
        ds->h1.due_ms = due_ms;
    }
    ag_h1_server_deadline(&ds->h1);
}

static const struct ag_stream_user first_user = {
    .on_data = first_on_data,
    .on_eof = first_on_eof,
    .on_drain = h1_on_drain,
    .on_deadline = first_on_deadline,
    .on_close = h1_on_close,
};

/* ---- TLS: the handshake tells ---- */

static void handshake_on_data(struct ag_stream *s, struct ag_slice slice)
{
    (void)s;
    ag_slice_release(&slice);
    AG_UNREACHABLE("data before the handshake is done");
}

static void handshake_on_event(struct ag_stream *s)
{
    (void)s;
    AG_UNREACHABLE("the transport has its own until the handshake is done");
}

static void handshake_on_close(struct ag_stream *s, enum ag_reason why)
{
    struct ag_downstream *ds = of(s);
    const char *detail = ag_tls_detail(&ds->tls);

    if (why == AG_REASON_TLS || detail) {
        ag_downstream_trouble(ds, &ds->peer, "TLS handshake", detail ? detail : "failed");
    }
    ag_downstream_release(ds);
}

static const struct ag_stream_user handshake_user = {
    .on_data = handshake_on_data,
    .on_eof = handshake_on_event,
    .on_drain = handshake_on_event,
    .on_deadline = handshake_on_event,
    .on_close = handshake_on_close,
};

static void on_ready(struct ag_tls *t)
{
    struct ag_downstream *ds = of(&t->stream);

    ds->handshaking = false;
    if (t->session.alpn == AG_ALPN_H2) {
        begin_h2(ds);
    } else {
        t->stream.user = &h1_user;
        begin_h1(ds);
    }
}

/* ---- all of them ---- */

enum ag_status ag_downstreams_init(struct ag_downstreams *d, struct ag_context *ctx,
                                   uint32_t connection_max)
{
    *d = (struct ag_downstreams){.context = ctx, .max = connection_max};
    ag_list_init(&d->open);
    if (ag_pool_init(&d->plain, "downstream connections", PLAIN_BYTES, connection_max) != AG_OK) {
        return AG_ENOMEM;
    }
    if (ag_pool_init(&d->tls, "downstream TLS connections", sizeof(struct ag_downstream),
                     connection_max) != AG_OK) {
        ag_pool_deinit(&d->plain);
        return AG_ENOMEM;
    }
    if (ag_pool_init(&d->h2, "HTTP/2 connections", sizeof(struct ag_h2_server), connection_max) !=
        AG_OK) {
        goto no_h2;
    }
    if (ag_pool_init(&d->proxied, "PROXY headers", sizeof(struct ag_proxied), connection_max) !=
        AG_OK) {
        goto no_proxied;
    }
    if (ag_pool_init(&d->relays, "relays", sizeof(struct ag_downstream_relay), connection_max) !=
        AG_OK) {
        goto no_relays;
    }
    return AG_OK;
no_relays:
    ag_pool_deinit(&d->proxied);
no_proxied:
    ag_pool_deinit(&d->h2);
no_h2:
    ag_pool_deinit(&d->tls);
    ag_pool_deinit(&d->plain);
    return AG_ENOMEM;
}

uint64_t ag_downstreams_bytes(uint32_t connection_max)
{
    return ag_pool_bytes(sizeof(struct ag_downstream), connection_max) +
           ag_pool_bytes(sizeof(struct ag_h2_server), connection_max) +
           ag_pool_bytes(sizeof(struct ag_proxied), connection_max) +
           ag_pool_bytes(sizeof(struct ag_downstream_relay), connection_max);
}

void ag_downstreams_deinit(struct ag_downstreams *d)
{
    AG_ASSERT(d->count == 0);
    ag_pool_deinit(&d->relays);
    ag_pool_deinit(&d->proxied);
    ag_pool_deinit(&d->h2);
    ag_pool_deinit(&d->tls);
    ag_pool_deinit(&d->plain);
}

/* While it shakes hands somebody reads of failures: when it has broken nobody knows any more whose it was. */
static void note_peer(struct ag_downstream *ds)
{
    ds->peer = ds->proxied ? ds->proxied->source : (struct ag_peer){0};
    if (ag_log_enabled(trouble_level(ds))) {
        ag_peer_look(&ds->peer, &ds->tls.conn.stream);
    }
}

void ag_downstream_begin(struct ag_downstream *ds, struct ag_greeter as, struct ag_slice rest)
{
    ds->greeting = false;
    if (as.tls) {
        note_peer(ds);
        ag_tls_adopt(&ds->tls, as.tls, ds->all->context->shard_index, &handshake_user, on_ready,
                     rest);
        ag_tls_server_release(as.tls);
        return;
    }
    ds->handshaking = false;
    if (as.relay) {
        ag_downstream_relay(ds, as.relay, as.relay_owner);
        ag_block_release(as.relay_owner);
    } else {
        ds->stream.user = &first_user;
        begin_h1(ds);
    }
    if (rest.len > 0) {
        ds->stream.user->on_data(&ds->stream, rest);
    }
}

/* Of no peer is more asked than has to be: it is a system call. */
static bool is_to_greet(struct ag_downstreams *d, const struct ag_downstream_origin *origin, int fd)
{
    union ag_addr peer;
    struct ag_fd f;

    if (!origin->proxied) {
        return false;
    }
    ag_fd_init(&f, fd);
    ag_loop_peer(d->context->loop, &f, &peer);
    ag_addr_unmap(&peer);
    return ag_networks_have(origin->proxied, &peer);
}

bool ag_downstream_accept(struct ag_downstreams *d, int fd, struct ag_downstream_origin *origin)
{
    struct ag_context *ctx = d->context;
    struct ag_downstream *ds;

    if (ag_downstreams_room(d) == 0) {
        return false;
    }
    ds = ag_pool_take(origin->tls ? &d->tls : &d->plain); /* each has as many slots */
    ds->all = d;
    ds->origin = origin;
    ds->secure = origin->tls != NULL;
    ds->is_h2 = false;
    ds->proxied = NULL;
    ds->relayed = false;
    ds->matched = 0;
    ds->handshaking = origin->tls != NULL;
    ds->greeting = is_to_greet(d, origin, fd);
    ds->yielding = false;
    d->count++;
    origin->connections++;
    ag_list_init(&ds->link);
    ag_list_push(&d->open, &ds->link);
    if (ds->greeting) {
        ds->handshaking = true;
        ag_downstream_greet(ds, fd);
    } else if (origin->tls) {
        ag_tls_accept(&ds->tls, ctx->loop, fd, origin->tls, ctx->shard_index, &handshake_user,
                      on_ready);
        note_peer(ds);
    } else {
        ag_conn_accept(&ds->conn, ctx->loop, fd, &first_user);
        if (origin->relay) {
            ag_downstream_relay(ds, origin->relay, origin->relay_owner);
        } else {
            begin_h1(ds);
        }
    }
    return true;
}

/* No protocol has seen it yet, but something has come. */
static bool has_begun(const struct ag_downstream *ds)
{
    return !ds->handshaking && ds->stream.user == &first_user && ds->matched > 0;
}

static void drain(struct ag_downstream *ds)
{
    if (ds->handshaking || ds->stream.user == &first_user) {
        /* Its protocol is told when there is one: by its origin, or where that goes on, by this. */
        ds->yielding = !ds->origin->draining;
    }
    if (ds->handshaking || ds->relayed) {
        return;
    }
    if (ds->is_h2) {
        ag_h2_server_drain(ds->h2);
    } else if (has_begun(ds)) {
        ds->h1.draining = true;
        ds->h1.yielding = false;
    } else {
        ag_h1_server_drain(&ds->h1);
    }
}

void ag_downstreams_drain(struct ag_downstreams *d, struct ag_downstream_origin *origin)
{
    for (struct ag_link *it = d->open.next, *next; it != &d->open; it = next) {
        struct ag_downstream *ds = ag_container_of(it, struct ag_downstream, link);

        next = it->next;
        if (!origin || ds->origin == origin) {
            drain(ds);
        }
    }
}

void ag_downstreams_hasten(struct ag_downstreams *d, struct ag_downstream_origin *origin)
{
    ag_list_foreach(it, &d->open) {
        struct ag_downstream *ds = ag_container_of(it, struct ag_downstream, link);

        if (ds->origin != origin || ds->handshaking || ds->relayed) {
            continue;
        }
        if (ds->is_h2) {
            ag_h2_server_hasten(ds->h2);
        } else {
            ag_h1_server_hasten(&ds->h1);
        }
    }
}

void ag_downstreams_yield(struct ag_downstreams *d)
{
    ag_list_foreach(it, &d->open) {
        struct ag_downstream *ds = ag_container_of(it, struct ag_downstream, link);

        if (ds->handshaking) {
            ds->yielding = true;
        } else if (ds->relayed) {
            continue; /* there is no way to say that it should end */
        } else if (ds->is_h2) {
            ag_h2_server_yield(ds->h2);
        } else {
            ag_h1_server_yield(&ds->h1);
        }
    }
}

static bool is_idle(struct ag_downstream *ds)
{
    /* What is waited for is the client's FIN, behind an answer that has gone. */
    if (ag_conn_is_through(ag_conn_of(ag_downstream_below(ds)))) {
        return true;
    }
    if (ds->relayed) {
        return false;
    }
    return ds->handshaking ||
           (ds->is_h2 ? ag_h2_server_idle(ds->h2) : ag_h1_server_idle(&ds->h1) && !has_begun(ds));
}

bool ag_downstreams_abort(struct ag_downstreams *d)
{
    bool idle = true;

    for (struct ag_link *it = d->open.next, *next; it != &d->open; it = next) {
        struct ag_downstream *ds = ag_container_of(it, struct ag_downstream, link);

        next = it->next;
        idle = is_idle(ds) && idle;
        if (ds->relayed) {
            ag_relay_abort(&ds->relay->relay, AG_REASON_ABORTED);
            continue;
        }
        ag_stream_abort(ds->greeting ? ag_downstream_below(ds) : &ds->stream, AG_REASON_ABORTED);
    }
    return idle;
}
