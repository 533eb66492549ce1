/* Set-Cookie (RFC 6265 section 4.1): the pair stays byte for byte, attributes are changed in place, new
 * ones come behind. */
#include "actions/proxy/rewrite_answer.h"

static const struct ag_span between = AG_SPAN_INIT("; ");

/* An attribute: "Path=/x", its name and value. */
struct attribute {
    struct ag_span text, name, value;
};

static struct attribute attribute_of(struct ag_span piece)
{
    struct ag_span text = ag_span_trim(piece);
    size_t equals = ag_span_find(text, '=');

    return (struct attribute){
        text, ag_span_trim(ag_span_sub(text, 0, equals)),
        ag_span_trim(ag_span_sub(text, ag_min_size(equals + 1, text.len), text.len))};
}

/* Browsers want such a cookie's Path and Domain as they are (draft RFC 6265bis, section 4.1.3.2). */
static bool is_bound_to_host(struct ag_span pair)
{
    struct ag_span prefix = AG_SPAN("__Host-");

    pair = ag_span_trim(pair);
    return pair.len > prefix.len && ag_span_ieq(ag_span_sub(pair, 0, prefix.len), prefix);
}

static struct ag_span without_dot(struct ag_span domain)
{
    return domain.len && domain.ptr[0] == '.' ? ag_span_sub(domain, 1, domain.len) : domain;
}

/* A domain comes of what a client sent: nothing that ends an attribute. */
static bool is_domain(struct ag_span s)
{
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] <= ' ' || s.ptr[i] >= 0x7F || s.ptr[i] == ';' || s.ptr[i] == ',') {
            return false;
        }
    }
    return s.len > 0;
}

static void put(struct ag_buf *out, struct ag_span name, struct ag_span value)
{
    ag_buf_put(out, between);
    ag_buf_put(out, name);
    ag_buf_putc(out, '=');
    ag_buf_put(out, value);
}

static void put_domain(const struct ag_rewrite_maps *maps, const struct ag_exchange *ex,
                       const struct attribute *a, struct ag_buf *out)
{
    uint8_t room[AG_REWRITE_VALUE_MAX];
    struct ag_buf to = ag_buf(room, sizeof(room));

    for (uint16_t i = 0; i < maps->count; i++) {
        const struct ag_rewrite_map *m = &maps->v[i];

        if (!ag_span_eq(m->from, AG_SPAN("*")) &&
            !ag_span_ieq(without_dot(m->from), without_dot(a->value))) {
            continue;
        }
        if (m->to) {
            ag_vars_expand(m->to, ex, &to);
        }
        if (!to.overflow && is_domain(ag_buf_span(&to))) {
            put(out, a->name, ag_buf_span(&to));
        } /* else the cookie is the host's that answers */
        return;
    }
    ag_buf_put(out, between);
    ag_buf_put(out, a->text);
}

static void put_path(const struct ag_rewrite_maps *maps, const struct ag_exchange *ex,
                     const struct attribute *a, struct ag_buf *out)
{
    size_t from = out->len;

    put(out, a->name, AG_SPAN(""));
    if (!ag_rewrite_mapped(maps, ex, a->value, "/", out)) {
        out->len = from;
        ag_buf_put(out, between);
        ag_buf_put(out, a->text);
    }
}

/* Whether an attribute goes as it is; one that is set comes behind all others. */
static bool stays(const struct ag_rewrite_cookies *c, const struct attribute *a)
{
    return !((c->secure && ag_span_ieq(a->name, AG_SPAN("secure"))) ||
             (c->http_only && ag_span_ieq(a->name, AG_SPAN("httponly"))) ||
             (c->same_site && ag_span_ieq(a->name, AG_SPAN("samesite"))));
}

static void put_flags(const struct ag_rewrite_cookies *c, struct ag_buf *out)
{
    if (c->secure == AG_REWRITE_SET) {
        ag_buf_put(out, AG_SPAN("; Secure"));
    }
    if (c->http_only == AG_REWRITE_SET) {
        ag_buf_put(out, AG_SPAN("; HttpOnly"));
    }
    if (c->same_site == AG_REWRITE_SET) {
        put(out, AG_SPAN("SameSite"), c->same_site_value);
    }
}

void ag_rewrite_cookie(const struct ag_rewrite_cookies *c, const struct ag_exchange *ex,
                       struct ag_span value, struct ag_buf *out)
{
    struct ag_span pair = ag_span_sub(value, 0, ag_span_find(value, ';'));
    bool bound = is_bound_to_host(pair);

    ag_buf_put(out, pair);
    for (size_t at = pair.len + 1; at <= value.len;) {
        struct ag_span rest = ag_span_sub(value, at, value.len);
        struct ag_span piece = ag_span_sub(rest, 0, ag_span_find(rest, ';'));
        struct attribute a = attribute_of(piece);

        at += piece.len + 1;
        if (!bound && ag_span_ieq(a.name, AG_SPAN("domain"))) {
            put_domain(&c->domains, ex, &a, out);
        } else if (!bound && ag_span_ieq(a.name, AG_SPAN("path"))) {
            put_path(&c->paths, ex, &a, out);
        } else if (a.text.len && stays(c, &a)) {
            ag_buf_put(out, between);
            ag_buf_put(out, a.text);
        }
    }
    put_flags(c, out);
}

size_t ag_rewrite_cookie_bound(const struct ag_rewrite_cookies *c, struct ag_span value)
{
    size_t bound = value.len + sizeof("; Secure; HttpOnly; SameSite=Strict");

    for (size_t at = 0; at <= value.len;) {
        struct ag_span rest = ag_span_sub(value, at, value.len);
        struct ag_span piece = ag_span_sub(rest, 0, ag_span_find(rest, ';'));
        struct ag_span name = attribute_of(piece).name;
        bool mapped = (c->paths.count && ag_span_ieq(name, AG_SPAN("path"))) ||
                      (c->domains.count && ag_span_ieq(name, AG_SPAN("domain")));

        at += piece.len + 1;
        bound += between.len + 1 + (mapped ? AG_REWRITE_VALUE_MAX : 0);
    }
    return bound;
}
