#include "router/access_log.h"

#include "engine/log.h"
#include "engine/resolver.h"

#include <time.h>

/* Longest values, escaped; what is longer is cut. With them every line has room for all its members. */
#define METHOD_MAX_BYTES 128u
#define HOST_MAX_BYTES   512u
#define TARGET_MAX_BYTES 4096u
#define FIELD_MAX_BYTES  1024u /* Referer, User-Agent */
#define OURS_MAX_BYTES   128u  /* text of our own: protocol, TLS version, reason, detail */
#define FRAME_MAX_BYTES  512u  /* addresses, times, numbers, names of members */
#define LINE_MAX_BYTES   8192u

_Static_assert(METHOD_MAX_BYTES + HOST_MAX_BYTES + TARGET_MAX_BYTES + 2 * FIELD_MAX_BYTES +
                       4 * OURS_MAX_BYTES + FRAME_MAX_BYTES <=
                   LINE_MAX_BYTES,
               "every line is whole");

static struct ag_span header(const struct ag_exchange *ex, enum ag_field_id id)
{
    const struct ag_field *f = ag_fields_find(&ex->req.fields, id, NULL);

    return f ? ag_field_value(f) : AG_SPAN("");
}

static void put_remote(struct ag_buf *b, struct ag_exchange *ex)
{
    const union ag_addr *a = ag_exchange_remote(ex);

    if (!a || a->sa.sa_family == AF_UNSPEC) {
        ag_buf_putc(b, '-');
    } else if (a->sa.sa_family == AF_UNIX) {
        ag_buf_put(b, AG_SPAN("unix"));
    } else {
        ag_addr_format(a, false, b);
    }
}

/* Microseconds since the head was complete, or 0. */
static uint64_t spent_us(struct ag_exchange *ex)
{
    return ex->started_ns ? (ag_loop_now_ns(ex->context->loop) - ex->started_ns) / 1000 : 0;
}

/* The path and query of a request that was understood, else a dash. */
static void put_target(struct ag_buf *b, const struct ag_exchange *ex)
{
    ag_log_escape_cut(b, ex->req.target.len ? ex->req.target : AG_SPAN("-"), TARGET_MAX_BYTES);
}

static void put_method(struct ag_buf *b, const struct ag_exchange *ex)
{
    ag_log_escape_cut(b, ex->req.method_name.len ? ex->req.method_name : AG_SPAN("-"),
                      METHOD_MAX_BYTES);
}

static struct ag_span protocol_of(const struct ag_exchange *ex)
{
    switch ((enum ag_http_version)ex->req.version) {
    case AG_HTTP_10:
        return AG_SPAN("HTTP/1.0");
    case AG_HTTP_2:
        return AG_SPAN("HTTP/2.0");
    case AG_HTTP_11:
        break;
    }
    return AG_SPAN("HTTP/1.1");
}

static void put_version(struct ag_buf *b, const struct ag_exchange *ex)
{
    ag_buf_put(b, protocol_of(ex));
}

static void put_human(struct ag_buf *b, struct ag_exchange *ex)
{
    uint64_t us = spent_us(ex);

    put_remote(b, ex);
    ag_buf_putc(b, ' ');
    put_method(b, ex);
    ag_buf_putc(b, ' ');
    put_target(b, ex);
    ag_buf_printf(b, " %u %llu %llu.%03llums \"", ex->status, (unsigned long long)ex->sent_bytes,
                  (unsigned long long)(us / 1000), (unsigned long long)(us % 1000));
    ag_log_escape_cut(b, ex->req.authority, HOST_MAX_BYTES);
    ag_buf_putc(b, '"');
    if (ex->reason != AG_REASON_NONE) {
        ag_buf_printf(b, " %s: ", ag_reason_text((enum ag_reason)ex->reason));
        ag_log_escape_cut(b, ag_span_str(ex->detail ? ex->detail : "-"), OURS_MAX_BYTES);
    }
}

static void put_quoted(struct ag_buf *b, struct ag_span s)
{
    ag_buf_putc(b, '"');
    ag_log_escape_cut(b, s.len ? s : AG_SPAN("-"), FIELD_MAX_BYTES);
    ag_buf_putc(b, '"');
}

static void put_combined(struct ag_buf *b, struct ag_exchange *ex)
{
    time_t now = (time_t)ex->context->loop->wall_s;
    struct tm tm;
    char when[40] = "-";

    if (gmtime_r(&now, &tm)) {
        (void)strftime(when, sizeof(when), "%d/%b/%Y:%H:%M:%S +0000", &tm);
    }
    put_remote(b, ex);
    ag_buf_printf(b, " - - [%s] \"", when);
    put_method(b, ex);
    ag_buf_putc(b, ' ');
    put_target(b, ex);
    ag_buf_putc(b, ' ');
    put_version(b, ex);
    ag_buf_printf(b, "\" %u %llu ", ex->status, (unsigned long long)ex->sent_bytes);
    put_quoted(b, header(ex, AG_FIELD_REFERER));
    ag_buf_putc(b, ' ');
    put_quoted(b, header(ex, AG_FIELD_USER_AGENT));
}

static void put_member(struct ag_buf *b, const char *name, struct ag_span value, size_t max_bytes)
{
    ag_buf_printf(b, ",\"%s\":\"", name);
    ag_log_escape_cut(b, value, max_bytes);
    ag_buf_putc(b, '"');
}

static void put_json(struct ag_buf *b, struct ag_exchange *ex)
{
    time_t now = (time_t)ex->context->loop->wall_s;
    const struct ag_tls_session *t = ag_exchange_tls(ex);
    struct tm tm;
    char when[40] = "";

    if (gmtime_r(&now, &tm)) {
        (void)strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", &tm);
    }
    ag_buf_printf(b, "{\"time\":\"%s\",\"remote\":\"", when);
    put_remote(b, ex);
    ag_buf_putc(b, '"');
    put_member(b, "method", ex->req.method_name, METHOD_MAX_BYTES);
    put_member(b, "host", ex->req.authority, HOST_MAX_BYTES);
    put_member(b, "target", ex->req.target, TARGET_MAX_BYTES);
    ag_buf_printf(b, ",\"status\":%u,\"bytes\":%llu,\"duration_us\":%llu", ex->status,
                  (unsigned long long)ex->sent_bytes, (unsigned long long)spent_us(ex));
    if (ex->upstream_tries > 1) {
        ag_buf_printf(b, ",\"upstream_tries\":%u", ex->upstream_tries);
    }
    put_member(b, "protocol", protocol_of(ex), OURS_MAX_BYTES);
    if (t && t->version) {
        put_member(b, "tls", ag_span_str(t->version), OURS_MAX_BYTES);
    }
    put_member(b, "user_agent", header(ex, AG_FIELD_USER_AGENT), FIELD_MAX_BYTES);
    if (ex->reason != AG_REASON_NONE) {
        put_member(b, "reason", ag_span_str(ag_reason_text((enum ag_reason)ex->reason)),
                   OURS_MAX_BYTES);
        put_member(b, "detail", ag_span_str(ex->detail ? ex->detail : ""), OURS_MAX_BYTES);
    }
    ag_buf_putc(b, '}');
}

void ag_access_log(struct ag_exchange *ex, enum ag_access_format format)
{
    static _Thread_local uint8_t line[LINE_MAX_BYTES];
    struct ag_buf b = ag_buf(line, sizeof(line) - 1);

    switch (format) {
    case AG_ACCESS_OFF:
        return;
    case AG_ACCESS_HUMAN:
        put_human(&b, ex);
        break;
    case AG_ACCESS_COMBINED:
        put_combined(&b, ex);
        break;
    case AG_ACCESS_JSON:
        put_json(&b, ex);
        break;
    }
    AG_ASSERT(!b.overflow);
    line[b.len++] = '\n';
    ag_log_raw(ag_buf_span(&b));
}
