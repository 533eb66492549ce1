#include "actions/proxy/proxy_forward.h"

#include "engine/resolver.h"

#define IP_MAX 64u /* bytes of an address as text */

unsigned ag_proxy_forward_index(enum ag_field_id id)
{
    /* A chain of comparisons: the compiler would have a default in a switch. */
    return id == AG_FIELD_X_FORWARDED_FOR     ? AG_FORWARD_FOR
           : id == AG_FIELD_X_FORWARDED_HOST  ? AG_FORWARD_HOST
           : id == AG_FIELD_X_FORWARDED_PROTO ? AG_FORWARD_PROTO
           : id == AG_FIELD_FORWARDED         ? AG_FORWARD_FORWARDED
                                              : AG_FORWARDS;
}

/* `a` ", " `b` in the exchange's arena; its ptr is NULL when that has no room. */
static struct ag_span join(struct ag_exchange *ex, struct ag_span a, struct ag_span b)
{
    size_t max = a.len + 2 + b.len;
    uint8_t *room = ag_arena_alloc(&ex->arena, max);
    struct ag_buf buf;

    if (!room) {
        return (struct ag_span){NULL, 0};
    }
    buf = ag_buf(room, max);
    ag_buf_put(&buf, a);
    ag_buf_put(&buf, AG_SPAN(", "));
    ag_buf_put(&buf, b);
    return ag_buf_span(&buf);
}

enum ag_status ag_proxy_forward_seen(struct ag_proxy_forward *f, struct ag_exchange *ex,
                                     unsigned index, struct ag_span value)
{
    struct ag_span *seen = &f->seen[index];

    if (value.len == 0) {
        return AG_OK;
    }
    *seen = seen->len ? join(ex, *seen, value) : value;
    return seen->ptr ? AG_OK : AG_ENOMEM;
}

/* The client's address alone; "unknown" (RFC 7239 section 6.2) where there is none. */
static void put_ip(const union ag_addr *a, struct ag_buf *to)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};

    if (a && a->sa.sa_family == AF_INET) {
        ag_addr_put_ipv4(to, (const uint8_t *)&a->in.sin_addr);
    } else if (a && a->sa.sa_family == AF_INET6) {
        const uint8_t *bytes = a->in6.sin6_addr.s6_addr;
        if (memcmp(bytes, mapped, sizeof(mapped)) == 0) {
            ag_addr_put_ipv4(to, bytes + sizeof(mapped));
        } else {
            ag_addr_format(a, false, to);
        }
    } else {
        ag_buf_put(to, AG_SPAN("unknown"));
    }
}

/* for=192.0.2.1;host="example.com:8080";proto=http */
static struct ag_span make_forwarded(struct ag_exchange *ex, struct ag_span before,
                                     struct ag_span ip)
{
    struct ag_span host = ex->req.authority;
    size_t max = before.len + ip.len + host.len + 64;
    uint8_t *room = ag_arena_alloc(&ex->arena, max);
    bool v6 = ag_span_find(ip, ':') < ip.len;
    struct ag_buf b;

    if (!room) {
        return (struct ag_span){NULL, 0};
    }
    b = ag_buf(room, max);
    if (before.len) {
        ag_buf_put(&b, before);
        ag_buf_put(&b, AG_SPAN(", "));
    }
    ag_buf_put(&b, v6 ? AG_SPAN("for=\"[") : AG_SPAN("for="));
    ag_buf_put(&b, ip);
    ag_buf_put(&b, v6 ? AG_SPAN("]\"") : AG_SPAN(""));
    if (host.len) {
        /* Neither a quote nor a backslash can be in an authority. */
        ag_buf_put(&b, AG_SPAN(";host=\""));
        ag_buf_put(&b, host);
        ag_buf_put(&b, AG_SPAN("\""));
    }
    ag_buf_put(&b, ex->req.tls ? AG_SPAN(";proto=https") : AG_SPAN(";proto=http"));
    AG_ASSERT(!b.overflow);
    return ag_buf_span(&b);
}

static enum ag_status add(struct ag_fields *out, struct ag_exchange *ex, enum ag_field_id id,
                          struct ag_span value)
{
    return value.ptr ? ag_fields_add_id(out, &ex->arena, id, value) : AG_ENOMEM;
}

enum ag_status ag_proxy_forward_add(const struct ag_proxy_forward *f, struct ag_exchange *ex,
                                    struct ag_fields *out)
{
    struct ag_span scheme = ex->req.tls ? AG_SPAN("https") : AG_SPAN("http");
    const struct ag_span *seen = f->seen;
    enum ag_status st = AG_OK;
    uint8_t *room = ag_arena_alloc(&ex->arena, IP_MAX);
    struct ag_buf ip;

    if (!room) {
        return AG_ENOMEM;
    }
    ip = ag_buf(room, IP_MAX);
    put_ip(ag_exchange_remote(ex), &ip);
    if (!f->fixed[AG_FORWARD_FOR]) {
        struct ag_span own = ag_buf_span(&ip), before = seen[AG_FORWARD_FOR];
        st = add(out, ex, AG_FIELD_X_FORWARDED_FOR, before.len ? join(ex, before, own) : own);
    }
    if (st == AG_OK && !f->fixed[AG_FORWARD_HOST]) {
        struct ag_span before = seen[AG_FORWARD_HOST], own = ex->req.authority;
        if (before.len || own.len) { /* HTTP/1.0 may come without */
            st = add(out, ex, AG_FIELD_X_FORWARDED_HOST, before.len ? before : own);
        }
    }
    if (st == AG_OK && !f->fixed[AG_FORWARD_PROTO]) {
        struct ag_span before = seen[AG_FORWARD_PROTO];
        st = add(out, ex, AG_FIELD_X_FORWARDED_PROTO, before.len ? before : scheme);
    }
    if (st == AG_OK && !f->fixed[AG_FORWARD_FORWARDED]) {
        st = add(out, ex, AG_FIELD_FORWARDED,
                 make_forwarded(ex, seen[AG_FORWARD_FORWARDED], ag_buf_span(&ip)));
    }
    return st;
}

struct ag_span ag_proxy_greeting(struct ag_exchange *ex, enum ag_proxy_protocol version)
{
    static const union ag_addr unknown;
    const union ag_addr *remote = ag_exchange_remote(ex);
    uint8_t room[AG_PROXY_PROTOCOL_OUT_MAX];
    struct ag_buf b = ag_buf(room, sizeof(room));
    union ag_addr local;

    ag_exchange_local(ex, &local);
    ag_proxy_protocol_put(&b, version, remote ? remote : &unknown, &local, ag_exchange_tls(ex));
    AG_ASSERT(!b.overflow);
    return ag_arena_copy(&ex->arena, ag_buf_span(&b));
}
