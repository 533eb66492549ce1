#include "actions/proxy/rewrite_answer.h"

#include "proto/uri.h"

/* A URL in parts: scheme "://" authority path, "//" authority path, or path alone. The path holds query and
 * fragment. */
struct url {
    struct ag_span scheme; /* "http"; empty: none */
    struct ag_span authority;
    struct ag_span path;
    bool has_authority;
};

/* ---- reading ---- */

static bool is_web(struct ag_span scheme)
{
    return ag_span_ieq(scheme, AG_SPAN("http")) || ag_span_ieq(scheme, AG_SPAN("https"));
}

static size_t find_any(struct ag_span s, const char *bytes)
{
    size_t at = 0;

    while (at < s.len && !(s.ptr[at] && strchr(bytes, s.ptr[at]))) {
        at++;
    }
    return at;
}

/* False: it is relative to the request's path, of another scheme, or has what browsers leave out of URLs, so
 * that it may mean something else to them than to us. */
static bool split(struct ag_span s, struct url *out)
{
    size_t colon = find_any(s, ":/?#"), end;

    *out = (struct url){.path = s};
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] <= ' ' || s.ptr[i] >= 0x7F) {
            return false;
        }
    }
    if (colon < s.len && s.ptr[colon] == ':') {
        out->scheme = ag_span_sub(s, 0, colon);
        s = ag_span_sub(s, colon + 1, s.len);
        if (!is_web(out->scheme) || !ag_span_starts(s, AG_SPAN("//"))) {
            return false;
        }
    }
    if (ag_span_starts(s, AG_SPAN("//"))) {
        s = ag_span_sub(s, 2, s.len);
        end = find_any(s, "/?#");
        out->has_authority = true;
        out->authority = ag_span_sub(s, 0, end);
        s = ag_span_sub(s, end, s.len);
    }
    out->path = s;
    return out->has_authority || (s.len > 0 && s.ptr[0] == '/');
}

static bool same_place(struct ag_span a, uint16_t port_a, struct ag_span b, uint16_t port_b)
{
    struct ag_span host_a, host_b;
    uint16_t of_a = 0, of_b = 0;

    return ag_authority_parse(a, &host_a, &of_a) == AG_OK &&
           ag_authority_parse(b, &host_b, &of_b) == AG_OK && ag_span_ieq(host_a, host_b) &&
           (of_a ? of_a : port_a) == (of_b ? of_b : port_b);
}

static uint16_t port_of(bool tls)
{
    return tls ? 443 : 80;
}

static bool is_own(const struct ag_rewrite_peer *peer, const struct url *u)
{
    uint16_t own = port_of(peer->tls);
    uint16_t port = u->scheme.len ? port_of(u->scheme.len == 5) : own;

    for (unsigned i = 0; i < AG_COUNT(peer->own); i++) {
        if (same_place(u->authority, port, peer->own[i], own)) {
            return true;
        }
    }
    return false;
}

/* ---- paths ---- */

static struct ag_span without_slash(struct ag_span s)
{
    return s.len && s.ptr[s.len - 1] == '/' ? ag_span_sub(s, 0, s.len - 1) : s;
}

static enum ag_status paths_of_target(struct ag_exchange *ex, const struct ag_template *target,
                                      struct ag_rewrite_paths *out)
{
    const struct ag_template_part *last;
    size_t max = 1, common;
    struct ag_buf b;

    AG_ASSERT(target->parts && target->count > 0);
    for (uint16_t i = 0; i < target->count; i++) {
        max += target->parts[i].param < 0 ? target->parts[i].literal.len : ex->req.path.len;
    }
    b = ag_buf(ag_arena_alloc(&ex->arena, max), max);
    if (!b.ptr) {
        return AG_ENOMEM;
    }
    ag_template_expand(target, ex, &b);
    last = &target->parts[target->count - 1];
    *out = (struct ag_rewrite_paths){ex->req.path, ag_buf_span(&b),
                                     last->param < 0 || !ex->params[last->param].splat};
    if (!out->whole) {
        common = ag_exchange_param(ex, (unsigned)last->param).len;
        out->outer = without_slash(ag_span_sub(out->outer, 0, out->outer.len - common));
        out->inner = without_slash(ag_span_sub(out->inner, 0, out->inner.len - common));
    }
    return AG_OK;
}

enum ag_status ag_rewrite_find_paths(const struct ag_rewrite *rw, struct ag_exchange *ex,
                                     const struct ag_template *target, struct ag_rewrite_paths *out)
{
    bool stripped = rw->strip.len && ag_rewrite_is_below(ex->req.path, rw->strip);

    if (target) {
        return paths_of_target(ex, target, out);
    }
    *out = (struct ag_rewrite_paths){stripped ? rw->strip : AG_SPAN(""), rw->add, false};
    return AG_OK;
}

/* `prefix` and what follows it as a path that begins with exactly one slash, whatever they begin with. */
static void put_local(struct ag_buf *out, struct ag_span prefix, struct ag_span rest)
{
    size_t from = out->len;
    struct ag_span all;

    ag_buf_put(out, prefix);
    ag_buf_put(out, rest);
    all = ag_span_sub(ag_buf_span(out), from, out->len);
    while (all.len && (all.ptr[0] == '/' || all.ptr[0] == '\\')) {
        all = ag_span_sub(all, 1, all.len);
    }
    memmove(out->ptr + from + 1, all.ptr, all.len); /* the caller has room for the slash */
    out->ptr[from] = '/';
    out->len = from + 1 + all.len;
}

/* ---- one URL ---- */

/* What a map's text came to leads to a host of its own, or to none. */
static bool leads_somewhere(struct ag_span to)
{
    struct ag_span host;
    struct url u;
    uint16_t port;

    return split(to, &u) &&
           (!u.has_authority || ag_authority_parse(u.authority, &host, &port) == AG_OK);
}

static bool fits(const struct ag_rewrite_map *m, struct ag_span s, const char *ends)
{
    struct ag_span head, rest;

    if (s.len < m->from.len) {
        return false;
    }
    head = ag_span_sub(s, 0, m->from.len);
    rest = ag_span_sub(s, m->from.len, s.len);
    return ag_span_ieq(ag_span_sub(head, 0, m->any_case), ag_span_sub(m->from, 0, m->any_case)) &&
           ag_span_eq(ag_span_sub(head, m->any_case, head.len),
                      ag_span_sub(m->from, m->any_case, head.len)) &&
           (rest.len == 0 || m->from.ptr[m->from.len - 1] == '/' || find_any(rest, ends) == 0) &&
           !(m->from.ptr[0] == '/' && ag_span_starts(s, AG_SPAN("//")));
}

bool ag_rewrite_mapped(const struct ag_rewrite_maps *maps, const struct ag_exchange *ex,
                       struct ag_span s, const char *ends, struct ag_buf *out)
{
    uint8_t room[AG_REWRITE_VALUE_MAX];

    for (uint16_t i = 0; i < maps->count; i++) {
        const struct ag_rewrite_map *m = &maps->v[i];
        struct ag_buf to = ag_buf(room, sizeof(room));

        if (!fits(m, s, ends)) {
            continue;
        }
        ag_vars_expand(m->to, ex, &to);
        if (to.overflow || !leads_somewhere(ag_buf_span(&to))) {
            return false;
        }
        if (to.ptr[0] == '/') {
            put_local(out, ag_buf_span(&to), ag_span_sub(s, m->from.len, s.len));
        } else {
            ag_buf_put(out, ag_buf_span(&to));
            ag_buf_put(out, ag_span_sub(s, m->from.len, s.len));
        }
        return true;
    }
    return false;
}

/* Where a URL leads, as the upstream wrote it. */
enum whose { LOCAL, OWN, CLIENTS, OTHERS };

static enum whose whose_is(const struct url *u, const struct ag_exchange *ex,
                           const struct ag_rewrite_peer *peer)
{
    if (!u->has_authority) {
        return LOCAL;
    }
    if (is_own(peer, u)) {
        return OWN;
    }
    return u->scheme.len && same_place(u->authority, port_of(u->scheme.len == 5), ex->req.authority,
                                       port_of(ex->req.tls))
               ? CLIENTS
               : OTHERS;
}

/* Whether a path of the upstream's is one of ours. */
static bool is_within(const struct ag_rewrite_paths *p, struct ag_span path, struct ag_span base)
{
    /* With the slash that a directory is asked for with, too. */
    return p->whole ? ag_span_eq(path, base) || ag_span_eq(without_slash(path), base)
                    : ag_rewrite_is_below(path, base);
}

/* What `auto` makes of a URL; `out` untouched: it stays. */
static void put_automatic(struct ag_exchange *ex, const struct ag_rewrite_peer *peer,
                          const struct ag_rewrite_paths *p, const struct url *u, struct ag_buf *out)
{
    struct ag_span path = ag_span_sub(u->path, 0, find_any(u->path, "?#"));
    enum whose whose = whose_is(u, ex, peer);

    if (whose == OTHERS || (whose != OWN && ag_span_eq(p->outer, p->inner))) {
        return;
    }
    if (path.len == 0) { /* "http://host?query" is the root's */
        if (whose == OWN && without_slash(p->inner).len == 0) {
            put_local(out, p->outer, p->whole ? AG_SPAN("") : AG_SPAN("/"));
            ag_buf_put(out, u->path);
        } else if (whose == OWN) {
            put_local(out, AG_SPAN("/"), u->path);
        }
        return;
    }
    /* An upstream that knows where it lives has written it already; what lies elsewhere may be another route's. */
    if ((p->outer.len && is_within(p, path, p->outer) && !is_within(p, p->inner, p->outer)) ||
        !is_within(p, path, p->inner)) {
        if (whose == OWN) { /* nobody but us is to know that host */
            put_local(out, AG_SPAN(""), u->path);
        }
        return;
    }
    if (whose == CLIENTS) { /* scheme and host stay: they may be what the redirect is about */
        ag_buf_put(out, u->scheme);
        ag_buf_put(out, AG_SPAN("://"));
        ag_buf_put(out, u->authority);
    }
    put_local(out, p->outer, ag_span_sub(u->path, p->inner.len, u->path.len));
}

static void put_url(const struct ag_rewrite_redirects *r, struct ag_exchange *ex,
                    const struct ag_rewrite_peer *peer, const struct ag_rewrite_paths *p,
                    struct ag_span s, struct ag_buf *out)
{
    struct url u;

    if (split(s, &u) && !ag_rewrite_mapped(&r->maps, ex, s, "/?#", out) && r->automatic) {
        put_automatic(ex, peer, p, &u, out);
    }
}

/* ---- fields ---- */

/* Where a URL lies in the value of Refresh: "5; url=URL", also in quotes; empty: nowhere. */
static struct ag_span refresh_url(struct ag_span value)
{
    size_t at = find_any(value, ";,");
    struct ag_span url;

    if (at == value.len) {
        return AG_SPAN("");
    }
    url = ag_span_trim(ag_span_sub(value, at + 1, value.len));
    if (url.len >= 4 && ag_span_ieq(ag_span_sub(url, 0, 4), AG_SPAN("url="))) {
        url = ag_span_trim(ag_span_sub(url, 4, url.len));
    }
    if (url.len >= 2 && (url.ptr[0] == '"' || url.ptr[0] == '\'') &&
        url.ptr[url.len - 1] == url.ptr[0]) {
        url = ag_span_sub(url, 1, url.len - 1);
    }
    return url;
}

/* The URL that a field holds; empty: it is none that redirects. */
static struct ag_span url_in(const struct ag_field *f)
{
    struct ag_span name = ag_field_key(f), value = ag_field_value(f);

    if (f->removed) {
        return AG_SPAN("");
    }
    if (f->id == AG_FIELD_LOCATION ||
        (f->id == AG_FIELD_OTHER && ag_span_ieq(name, AG_SPAN("Content-Location")))) {
        return value;
    }
    return f->id == AG_FIELD_OTHER && ag_span_ieq(name, AG_SPAN("Refresh")) ? refresh_url(value)
                                                                            : AG_SPAN("");
}

static enum ag_status rewrite_url(const struct ag_rewrite *rw, struct ag_exchange *ex,
                                  const struct ag_rewrite_peer *peer, struct ag_span url,
                                  struct ag_field *f)
{
    struct ag_span value = ag_field_value(f);
    size_t max, before = (size_t)(url.ptr - value.ptr), from;
    struct ag_rewrite_paths p;
    struct ag_buf b;

    if (peer->paths) {
        p = *peer->paths;
    } else if (ag_rewrite_find_paths(rw, ex, peer->target, &p) != AG_OK) {
        return AG_ENOMEM;
    }
    max = value.len + p.outer.len + AG_REWRITE_VALUE_MAX + 2;
    b = ag_buf(ag_arena_alloc(&ex->arena, max), max);
    if (!b.ptr) {
        return AG_ENOMEM;
    }
    ag_buf_put(&b, ag_span_sub(value, 0, before));
    from = b.len;
    put_url(rw->redirects, ex, peer, &p, url, &b);
    if (b.len == from) {
        return AG_OK;
    }
    ag_buf_put(&b, ag_span_sub(value, before + url.len, value.len));
    AG_ASSERT(!b.overflow);
    ag_arena_trim(&ex->arena, b.ptr, max, b.len);
    f->value = b.ptr;
    f->value_len = (uint32_t)b.len;
    return AG_OK;
}

static enum ag_status rewrite_cookie(const struct ag_rewrite_cookies *c, struct ag_exchange *ex,
                                     struct ag_field *f)
{
    size_t max = ag_rewrite_cookie_bound(c, ag_field_value(f));
    struct ag_buf b = ag_buf(ag_arena_alloc(&ex->arena, max), max);

    if (!b.ptr) {
        return AG_ENOMEM;
    }
    ag_rewrite_cookie(c, ex, ag_field_value(f), &b);
    AG_ASSERT(!b.overflow);
    ag_arena_trim(&ex->arena, b.ptr, max, b.len);
    f->value = b.ptr;
    f->value_len = (uint32_t)b.len;
    return AG_OK;
}

enum ag_status ag_rewrite_answer(const struct ag_rewrite *rw, struct ag_exchange *ex,
                                 const struct ag_rewrite_peer *peer)
{
    enum ag_status st = AG_OK;

    for (uint16_t i = 0; st == AG_OK && i < ex->res.fields.count; i++) {
        struct ag_field *f = &ex->res.fields.v[i];
        struct ag_span url = rw->redirects ? url_in(f) : AG_SPAN("");

        if (url.len) {
            st = rewrite_url(rw, ex, peer, url, f);
        } else if (rw->cookies && f->id == AG_FIELD_SET_COOKIE && !f->removed) {
            st = rewrite_cookie(rw->cookies, ex, f);
        }
    }
    return st;
}
