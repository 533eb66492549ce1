#include "router/explain_text.h"

#define BODY_SHOWN 40u

static void put_methods(struct ag_buf *out, uint32_t methods, const struct ag_pattern *p,
                        const char *between)
{
    const char *sep = "";

    for (unsigned m = 1; m < AG_METHODS; m++) {
        if (methods & 1u << m) {
            ag_buf_put(out, ag_span_str(sep));
            ag_buf_put(out, ag_method_name((enum ag_method)m));
            sep = between;
        }
    }
    for (uint16_t i = 0; i < p->other_count; i++) {
        ag_buf_put(out, ag_span_str(sep));
        ag_buf_put(out, p->other_methods[i]);
        sep = between;
    }
}

static bool is_named(const struct ag_pattern *p)
{
    return p->methods || p->other_count;
}

/* What it takes as declared; 0: any. */
static uint32_t methods_of(const struct ag_route *r)
{
    return is_named(&r->pattern) ? r->pattern.methods : r->action.ops->default_methods;
}

void ag_explain_methods(struct ag_buf *out, const struct ag_route *r)
{
    if (!is_named(&r->pattern) && methods_of(r) == 0) {
        ag_buf_put(out, AG_SPAN("any"));
        return;
    }
    put_methods(out, methods_of(r), &r->pattern, " ");
}

static void put_fixed(struct ag_buf *out, const struct ag_action_decl *d)
{
    size_t shown = ag_min_size(d->body.len, BODY_SHOWN);

    ag_buf_put_u64(out, d->status);
    if (!shown) {
        return;
    }
    ag_buf_putc(out, ' ');
    for (size_t i = 0; i < shown; i++) {
        ag_buf_putc(out, d->body.ptr[i] < 0x20 ? ' ' : d->body.ptr[i]);
    }
    if (shown < d->body.len) {
        ag_buf_put(out, AG_SPAN("..."));
    }
}

void ag_explain_action(struct ag_buf *out, const struct ag_route *r)
{
    const struct ag_action_decl *d = &r->decl;

    switch (d->kind) {
    case AG_ACTION_FIXED:
        put_fixed(out, d);
        break;
    case AG_ACTION_ECHO:
        ag_buf_put_u64(out, d->status);
        ag_buf_put(out, AG_SPAN(" echo"));
        break;
    case AG_ACTION_REDIRECT:
        ag_buf_put_u64(out, d->status);
        ag_buf_put(out, AG_SPAN(" -> "));
        ag_buf_put(out, d->path);
        break;
    case AG_ACTION_STATIC:
        ag_buf_put(out, d->path);
        break;
    case AG_ACTION_PROXY:
        ag_buf_put(out, d->scheme);
        ag_buf_put(out, AG_SPAN("://"));
        ag_buf_put(out, d->authority);
        ag_buf_put(out, d->path);
        break;
    case AG_ACTION_KINDS:
        AG_UNREACHABLE("not a kind");
    }
}

void ag_explain_filters(struct ag_buf *out, const struct ag_route *r)
{
    for (uint16_t i = 0; i < r->filters.count; i++) {
        ag_buf_put(out, ag_span_str(i ? ", " : ""));
        ag_buf_put(out, ag_span_str(r->filters.v[i].ops->name));
    }
    if (r->client_cert >= AG_CLIENT_CERT_OPTIONAL) {
        ag_buf_put(out, ag_span_str(r->filters.count ? ", " : ""));
        ag_buf_put(out, r->client_cert == AG_CLIENT_CERT_REQUIRED
                            ? AG_SPAN("client certificate")
                            : AG_SPAN("client certificate if any"));
    }
}

void ag_explain_pattern(struct ag_buf *out, const struct ag_pattern *p)
{
    static const char lead[] = {[AG_SEG_EXACT] = 0, [AG_SEG_PARAM] = ':', [AG_SEG_SPLAT] = '*'};

    ag_buf_put(out, p->host);
    if (p->port) {
        ag_buf_putc(out, ':');
        ag_buf_put_u64(out, p->port);
    }
    for (uint16_t i = 0; i < p->count; i++) {
        ag_buf_putc(out, '/');
        if (lead[p->segments[i].kind]) {
            ag_buf_putc(out, (uint8_t)lead[p->segments[i].kind]);
        }
        ag_buf_put(out, p->segments[i].text);
    }
}

struct ag_span ag_explain_written(const struct ag_route *r)
{
    return r->pattern.text;
}

/* ---- why ---- */

static bool host_fits(struct ag_span want, struct ag_span host)
{
    struct ag_span tail;

    if (host.len && host.ptr[host.len - 1] == '.') {
        host.len--;
    }
    if (want.len == 0) {
        return true;
    }
    if (want.ptr[0] != '*') {
        return ag_span_ieq(want, host);
    }
    tail = ag_span_sub(want, 1, want.len);
    return host.len > tail.len &&
           ag_span_ieq(tail, ag_span_sub(host, host.len - tail.len, host.len));
}

static uint32_t segment_count(struct ag_span path)
{
    uint32_t n = 0;

    for (size_t i = 0; i < path.len; i++) {
        n += path.ptr[i] == '/';
    }
    return n;
}

/* How many of the pattern's segments fit; *out_all: the whole path does. */
static uint16_t path_fits(const struct ag_pattern *p, struct ag_span path, bool *out_all)
{
    uint32_t have = segment_count(path);
    uint16_t i = 0;

    *out_all = false;
    for (; i < p->count && i < have; i++) {
        struct ag_span s = ag_path_segment(path, i, false);

        if (p->segments[i].kind == AG_SEG_SPLAT) {
            *out_all = true;
            return (uint16_t)(i + 1);
        }
        if (p->segments[i].kind == AG_SEG_EXACT ? !ag_span_eq(s, p->segments[i].text)
                                                : s.len == 0) {
            return i;
        }
    }
    *out_all = i == p->count && i == have;
    return i;
}

static bool method_fits(const struct ag_route *r, const struct ag_trie_query *q)
{
    uint32_t methods = methods_of(r);

    if (methods & 1u << AG_METHOD_GET) {
        methods |= 1u << AG_METHOD_HEAD;
    }
    if (!is_named(&r->pattern) && methods == 0) {
        return q->method != AG_METHOD_TRACE && q->method != AG_METHOD_CONNECT;
    }
    if (q->method != AG_METHOD_OTHER) {
        return (methods & 1u << q->method) != 0;
    }
    for (uint16_t i = 0; i < r->pattern.other_count; i++) {
        if (ag_span_eq(r->pattern.other_methods[i], q->method_name)) {
            return true;
        }
    }
    return false;
}

struct ag_fit ag_explain_fit(const struct ag_route *r, const struct ag_trie_query *q)
{
    struct ag_fit fit = {.host = host_fits(r->match.host, q->host),
                         .port = !r->match.port || r->match.port == q->port,
                         .method = method_fits(r, q)};

    fit.segments = path_fits(&r->match, q->path, &fit.path);
    return fit;
}

static void put_path_reason(struct ag_buf *out, const struct ag_pattern *p, struct ag_span path,
                            uint16_t fits)
{
    uint32_t have = segment_count(path);
    struct ag_span got = fits < have ? ag_path_segment(path, fits, false) : AG_SPAN("");
    struct ag_span want = fits < p->count ? p->segments[fits].text : AG_SPAN("");
    enum ag_segment_kind kind = fits < p->count ? p->segments[fits].kind : AG_SEG_EXACT;

    if (fits == have && fits + 1 == p->count && kind != AG_SEG_PARAM &&
        (kind == AG_SEG_SPLAT || want.len == 0)) {
        ag_buf_put(out, AG_SPAN("the path has no slash at its end"));
    } else if (fits == p->count && fits + 1u == have && got.len == 0) {
        ag_buf_put(out, AG_SPAN("the path has a slash at its end"));
    } else if (fits == have) {
        ag_buf_put(out, AG_SPAN("the path ends too early"));
    } else if (fits == p->count) {
        ag_buf_put(out, AG_SPAN("the path goes on after it"));
    } else if (kind == AG_SEG_PARAM) {
        ag_buf_printf(out, "segment %u is empty, :%.*s needs a value", fits + 1u, (int)want.len,
                      (const char *)want.ptr);
    } else {
        ag_buf_printf(out, "segment %u is \"%.*s\", not \"%.*s\"", fits + 1u, (int)got.len,
                      (const char *)got.ptr, (int)want.len, (const char *)want.ptr);
    }
}

/* Both match: what decided (SPEC.md section 4, the order of choice). */
static void put_order_reason(struct ag_buf *out, const struct ag_route *r, const struct ag_route *w,
                             const struct ag_trie_query *q)
{
    uint32_t named = w->pattern.methods & ~r->pattern.methods;
    static const char *const kinds[] = {
        [AG_SEG_EXACT] = "a literal", [AG_SEG_PARAM] = "a parameter", [AG_SEG_SPLAT] = "a splat"};

    if (!ag_span_eq(r->match.host, w->match.host)) {
        ag_buf_put(out, AG_SPAN("matches too, but the other's host is closer"));
        return;
    }
    if (r->match.port != w->match.port) {
        ag_buf_put(out, AG_SPAN("matches too, but the other names the port"));
        return;
    }
    for (uint16_t i = 0; i < r->match.count && i < w->match.count; i++) {
        enum ag_segment_kind a = r->match.segments[i].kind, b = w->match.segments[i].kind;

        if (a != b) {
            ag_buf_printf(out, "matches too, but at segment %u %s goes before %s", i + 1u, kinds[b],
                          kinds[a]);
            return;
        }
    }
    /* HEAD goes to who names it before whom GET implies it. */
    if (is_named(&r->pattern) != is_named(&w->pattern) ||
        (q->method == AG_METHOD_HEAD && named & 1u << AG_METHOD_HEAD)) {
        ag_buf_put(out, AG_SPAN("matches too, but the other names the method"));
    } else {
        ag_buf_put(out, AG_SPAN("matches too, but the other is declared first"));
    }
}

void ag_explain_reason(struct ag_buf *out, const struct ag_route *r, const struct ag_route *winner,
                       const struct ag_trie_query *q)
{
    struct ag_fit fit = ag_explain_fit(r, q);

    if (!fit.port) {
        ag_buf_printf(out, "serves port %u, not %u", r->match.port, q->port);
    } else if (!fit.host) {
        ag_buf_printf(out, "host is \"%.*s\", not \"%.*s\"", (int)q->host.len,
                      (const char *)q->host.ptr, (int)r->match.host.len,
                      (const char *)r->match.host.ptr);
    } else if (!fit.path) {
        put_path_reason(out, &r->match, q->path, fit.segments);
    } else if (!fit.method) {
        ag_buf_put(out, AG_SPAN("takes "));
        put_methods(out, methods_of(r), &r->pattern, ", ");
        ag_buf_put(out, AG_SPAN(" only"));
    } else if (winner) {
        put_order_reason(out, r, winner, q);
    }
}
