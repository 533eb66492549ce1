/*
 * A client's connection that is passed on as it is: hands the stream's events to the relay, and writes its line of
 * the access log at the end.
 */
#include "engine/resolver.h"
#include "router/snapshot.h"
#include "tools/downstream.h"

#include <time.h>

static struct ag_relay *of(struct ag_stream *s)
{
    return &ag_container_of(s, struct ag_downstream, stream)->relay->relay;
}

static void on_data(struct ag_stream *s, struct ag_slice slice)
{
    ag_relay_data(of(s), slice);
}

static void on_eof(struct ag_stream *s)
{
    ag_relay_eof(of(s));
}

static void on_drain(struct ag_stream *s)
{
    ag_relay_drained(of(s));
}

static void on_deadline(struct ag_stream *s)
{
    ag_relay_deadline(of(s));
}

static void on_close(struct ag_stream *s, enum ag_reason why)
{
    ag_relay_closed(of(s), why);
}

static const struct ag_stream_user relay_user = {
    .on_data = on_data,
    .on_eof = on_eof,
    .on_drain = on_drain,
    .on_deadline = on_deadline,
    .on_close = on_close,
};

/* ---- the access log ---- */

static void put_client(const struct ag_relay *r, struct ag_buf *out)
{
    union ag_addr addr;

    ag_peer_known(&r->peer, &addr);
    if (addr.sa.sa_family == AF_INET || addr.sa.sa_family == AF_INET6) {
        ag_addr_format(&addr, false, out);
    } else {
        ag_buf_put(out, addr.sa.sa_family == AF_UNIX ? AG_SPAN("unix") : AG_SPAN("-"));
    }
}

static void put_json(const struct ag_downstream *ds, struct ag_buf *out)
{
    const struct ag_relay *r = &ds->relay->relay;
    struct ag_loop *l = ds->all->context->loop;
    time_t now = (time_t)l->wall_s;
    struct tm tm;
    char when[40] = "";

    if (gmtime_r(&now, &tm)) {
        (void)strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", &tm);
    }
    ag_buf_printf(out, "{\"time\":\"%s\",\"remote\":\"", when);
    put_client(r, out);
    ag_buf_printf(out, "\",\"protocol\":\"tcp\",\"port\":%u,\"name\":\"", ds->origin->port);
    ag_log_escape(out, ag_tls_hello_name(&r->hello));
    ag_buf_put(out, AG_SPAN("\",\"upstream\":\""));
    ag_log_escape(out, ag_span(r->server, r->server_len));
    ag_buf_printf(out, "\",\"bytes_in\":%llu,\"bytes\":%llu,\"duration_us\":%llu",
                  (unsigned long long)r->up_bytes, (unsigned long long)r->down_bytes,
                  (unsigned long long)(l->now_ms - r->started_ms) * 1000);
    if (r->reason != AG_REASON_NONE) {
        ag_buf_printf(out, ",\"reason\":\"%s\",\"detail\":\"%s\"",
                      ag_reason_text((enum ag_reason)r->reason), r->detail ? r->detail : "");
    }
    ag_buf_putc(out, '}');
}

static void put_human(const struct ag_downstream *ds, struct ag_buf *out)
{
    const struct ag_relay *r = &ds->relay->relay;
    uint64_t ms = ds->all->context->loop->now_ms - r->started_ms;

    put_client(r, out);
    ag_buf_printf(out, " TCP :%u to %.*s %llu up %llu down %llums \"", ds->origin->port,
                  r->server_len ? (int)r->server_len : 1, r->server_len ? r->server : "-",
                  (unsigned long long)r->up_bytes, (unsigned long long)r->down_bytes,
                  (unsigned long long)ms);
    ag_log_escape(out, ag_tls_hello_name(&r->hello));
    ag_buf_putc(out, '"');
    if (r->reason != AG_REASON_NONE) {
        ag_buf_printf(out, " %s: %s", ag_reason_text((enum ag_reason)r->reason),
                      r->detail ? r->detail : "-");
    }
}

static void write_line(const struct ag_downstream *ds)
{
    enum ag_access_format format = ds->all->context->snapshot->model->access_log;
    uint8_t line[1024];
    struct ag_buf b = ag_buf(line, sizeof(line) - 1);

    if (format == AG_ACCESS_OFF) {
        return;
    }
    if (format == AG_ACCESS_JSON) {
        put_json(ds, &b);
    } else {
        put_human(ds, &b);
    }
    line[b.len++] = '\n';
    ag_log_raw(ag_buf_span(&b));
}

/* ---- life ---- */

static void on_over(struct ag_relay *r)
{
    struct ag_downstream *ds = ((struct ag_downstream_relay *)(void *)r)->ds;

    if (r->leads_back) {
        ag_downstream_warn(ds, &r->peer, "tcp", r->detail);
    }
    write_line(ds);
    ag_downstream_release(ds);
}

void ag_downstream_relay(struct ag_downstream *ds, const struct ag_relay_settings *settings,
                         struct ag_block *owner)
{
    struct ag_downstreams *all = ds->all;

    ds->relay = ag_pool_take(&all->relays); /* there are as many as connections */
    ds->relayed = true;
    ds->relay->ds = ds;
    ds->stream.user = &relay_user;
    ag_relay_begin(&ds->relay->relay, all->context, &ds->stream, settings, owner, ds->proxied,
                   on_over);
}
