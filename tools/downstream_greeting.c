/*
 * The PROXY header of a connection whose peer is believed: it is there, whole, within header_timeout, or the
 * connection ends. Without it nobody would know whose the requests are.
 */
#include "tools/downstream.h"

/* What is read is the connection below, which lies elsewhere in a slot with TLS: its user tells. */
enum { OVER_PLAIN, OVER_TLS };
static const struct ag_stream_user users[2];

static struct ag_downstream *of(struct ag_stream *below)
{
    struct ag_conn *c = ag_conn_of(below);

    return below->user == &users[OVER_TLS] ? ag_container_of(c, struct ag_downstream, tls.conn)
                                           : ag_container_of(c, struct ag_downstream, conn);
}

static void let_go(struct ag_downstream *ds)
{
    ag_block_release(ds->greeter.block);
    ds->greeter.block = NULL;
}

static void give_up(struct ag_downstream *ds, enum ag_reason why, const char *what)
{
    struct ag_stream *below = ag_downstream_below(ds);
    struct ag_peer peer = {0};

    if (what) {
        ag_peer_look(&peer, below);
        ag_downstream_warn(ds, &peer, "PROXY protocol", what);
    }
    ag_stream_abort(below, why);
}

/* ---- what has come so far ---- */

/* Puts `slice` behind the pieces before it, as far as a header may go. False: no memory. */
static bool gather(struct ag_downstream *ds, const struct ag_slice *slice)
{
    struct ag_greeter *g = &ds->greeter;
    size_t n;

    if (!g->block) {
        g->block = ag_loop_buf(ds->all->context->loop, AG_BUF_SMALL);
        g->used = 0;
    }
    if (!g->block) {
        return false;
    }
    n = ag_min_size(slice->len, AG_PROXY_PROTOCOL_MAX - g->used);
    memcpy(g->block->data + g->used, slice->ptr, n);
    g->used += (uint32_t)n;
    return true;
}

_Static_assert(AG_PROXY_PROTOCOL_MAX <= AG_BUF_SMALL_BYTES, "a header lies in a small buffer");

/* The header is whole; `len` bytes of the slice are the last of it. */
static void greeted(struct ag_downstream *ds, const struct ag_proxied *p, struct ag_slice slice,
                    size_t len)
{
    struct ag_greeter as;

    let_go(ds);
    as = ds->greeter;
    ds->proxied = ag_pool_take(&ds->all->proxied); /* there are as many as connections */
    *ds->proxied = *p;
    ag_slice_advance(&slice, len);
    ag_stream_deadline(ag_downstream_below(ds), UINT64_MAX);
    if (slice.len == 0) {
        ag_slice_release(&slice);
    }
    ag_downstream_begin(ds, as, slice);
}

/* ---- events ---- */

static void on_data(struct ag_stream *below, struct ag_slice slice)
{
    struct ag_downstream *ds = of(below);
    struct ag_greeter *g = &ds->greeter;
    size_t before = g->block ? g->used : 0, len = 0;
    struct ag_proxied p;
    const char *why = NULL;
    enum ag_status st;

    if (g->block && !gather(ds, &slice)) {
        AG_UNREACHABLE("what it gathers in is there");
    }
    st = ag_proxy_protocol_read(g->block ? ag_span(g->block->data, g->used) : ag_slice_span(&slice),
                                &p, &len, &why);
    if (st == AG_OK) {
        greeted(ds, &p, slice, len - before);
        return;
    }
    if (st != AG_AGAIN) {
        give_up(ds, AG_REASON_PROTOCOL, why);
    } else if (!g->block && !gather(ds, &slice)) {
        give_up(ds, AG_REASON_RESOURCES, NULL);
    }
    ag_slice_release(&slice);
}

/* Who says nothing has looked whether somebody listens. */
static void on_eof(struct ag_stream *below)
{
    struct ag_downstream *ds = of(below);

    give_up(ds, AG_REASON_EOF, ds->greeter.block ? "closed within the header" : NULL);
}

static void on_deadline(struct ag_stream *below)
{
    give_up(of(below), AG_REASON_TIMEOUT, "no header in time");
}

static void on_drain(struct ag_stream *below)
{
    (void)below;
    AG_UNREACHABLE("nothing is sent before the header has come");
}

static void on_close(struct ag_stream *below, enum ag_reason why)
{
    struct ag_downstream *ds = of(below);

    (void)why;
    let_go(ds);
    ag_tls_server_release(ds->greeter.tls);
    ag_block_release(ds->greeter.relay_owner);
    ag_downstream_release(ds);
}

#define EVENTS                                                                                  \
    {                                                                                           \
        .on_data = on_data, .on_eof = on_eof, .on_drain = on_drain, .on_deadline = on_deadline, \
        .on_close = on_close,                                                                   \
    }

static const struct ag_stream_user users[2] = {[OVER_PLAIN] = EVENTS, [OVER_TLS] = EVENTS};

void ag_downstream_greet(struct ag_downstream *ds, int fd)
{
    bool tls = ds->secure;
    struct ag_conn *c = tls ? &ds->tls.conn : &ds->conn;

    ds->greeter = (struct ag_greeter){.tls = ag_tls_server_hold(ds->origin->tls),
                                      .relay = ds->origin->relay,
                                      .relay_owner = ag_block_hold(ds->origin->relay_owner)};
    ag_conn_accept(c, ds->all->context->loop, fd, &users[tls ? OVER_TLS : OVER_PLAIN]);
    ag_stream_deadline(&c->stream, ds->origin->limits.header_timeout_ms);
}
