/*
 * A client's connection that is passed on as it is: hands the stream's events to the relay, and writes its line of
 * the access log at the end.
 */
#include "engine/resolver.h"
#include "router/snapshot.h"
#include "tools/downstream.h"

#include <time.h>

/* Longest values, escaped; what is longer is cut. With them every line has room for all its members. */
#define NAME_MAX_BYTES  512u /* a name is shorter; a hello that is none has what its client likes */
#define OURS_MAX_BYTES  256u /* text of our own: server, reason, detail */
#define FRAME_MAX_BYTES 512u /* addresses, times, numbers, names of members */
#define LINE_MAX_BYTES  2048u

_Static_assert(NAME_MAX_BYTES + 3 * OURS_MAX_BYTES + FRAME_MAX_BYTES <= LINE_MAX_BYTES,
               "every line is whole");

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

static void put_name(const struct ag_relay *r, struct ag_buf *out)
{
    ag_log_escape_cut(out, ag_tls_hello_name(&r->hello), NAME_MAX_BYTES);
}

static void put_server(const struct ag_relay *r, struct ag_buf *out)
{
    ag_log_escape_cut(out, ag_span(r->server, r->server_len), OURS_MAX_BYTES);
}

static void put_text(const char *text, struct ag_buf *out)
{
    ag_log_escape_cut(out, ag_span_str(text), OURS_MAX_BYTES);
}

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
    put_name(r, out);
    ag_buf_put(out, AG_SPAN("\",\"upstream\":\""));
    put_server(r, out);
    ag_buf_printf(out, "\",\"bytes_in\":%llu,\"bytes\":%llu,\"duration_us\":%llu",
                  (unsigned long long)r->up_bytes, (unsigned long long)r->down_bytes,
                  (unsigned long long)(l->now_ms - r->started_ms) * 1000);
    if (r->reason != AG_REASON_NONE) {
        ag_buf_put(out, AG_SPAN(",\"reason\":\""));
        put_text(ag_reason_text((enum ag_reason)r->reason), out);
        ag_buf_put(out, AG_SPAN("\",\"detail\":\""));
        put_text(r->detail ? r->detail : "", out);
        ag_buf_putc(out, '"');
    }
    ag_buf_putc(out, '}');
}

static void put_human(const struct ag_downstream *ds, struct ag_buf *out)
{
    const struct ag_relay *r = &ds->relay->relay;
    uint64_t ms = ds->all->context->loop->now_ms - r->started_ms;

    put_client(r, out);
    ag_buf_printf(out, " TCP :%u to ", ds->origin->port);
    if (r->server_len > 0) {
        put_server(r, out);
    } else {
        ag_buf_putc(out, '-');
    }
    ag_buf_printf(out, " %llu up %llu down %llums \"", (unsigned long long)r->up_bytes,
                  (unsigned long long)r->down_bytes, (unsigned long long)ms);
    put_name(r, out);
    ag_buf_putc(out, '"');
    if (r->reason != AG_REASON_NONE) {
        ag_buf_putc(out, ' ');
        put_text(ag_reason_text((enum ag_reason)r->reason), out);
        ag_buf_put(out, AG_SPAN(": "));
        put_text(r->detail ? r->detail : "-", out);
    }
}

static void write_line(const struct ag_downstream *ds)
{
    enum ag_access_format format = ds->all->context->snapshot->model->access_log;
    uint8_t line[LINE_MAX_BYTES];
    struct ag_buf b = ag_buf(line, sizeof(line) - 1);

    if (format == AG_ACCESS_OFF) {
        return;
    }
    if (format == AG_ACCESS_JSON) {
        put_json(ds, &b);
    } else {
        put_human(ds, &b);
    }
    AG_ASSERT(!b.overflow);
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
