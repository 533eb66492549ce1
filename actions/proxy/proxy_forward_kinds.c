/*
 * What a trusted peer tells by X-Forwarded-* as Forwarded, and the other way round (RFC 7239 section 7.4).
 * Addresses, hosts and schemes alone go over, in a form of their own: nothing of what one kind quotes can mean
 * something in the other.
 */
#include "actions/proxy/proxy_forward.h"

#include "engine/resolver.h"
#include "proto/uri.h"

#define ELEMENTS_MAX 64u /* of a list; a longer one is left alone */
#define ELEMENT_MAX  64u /* bytes of an address, or "unknown", with what stands around it */
#define AROUND_MAX   64u /* of ;host="";proto=https and the like */

struct element {
    struct ag_span client, host, proto;
};

/* ---- what may go over ---- */

/* 192.0.2.1, 192.0.2.1:4711, 2001:db8::1, [2001:db8::1], [2001:db8::1]:4711 */
static bool read_address(struct ag_span s, union ag_addr *out)
{
    size_t colon = ag_span_find(s, ':');

    if (s.len && s.ptr[0] == '[') {
        s = ag_span_sub(s, 1, ag_span_find(s, ']'));
    } else if (colon < s.len &&
               ag_span_find(ag_span_sub(s, colon + 1, s.len), ':') == s.len - colon - 1) {
        s = ag_span_sub(s, 0, colon);
    }
    return ag_addr_parse(s, 0, out) == AG_OK && out->sa.sa_family != AF_UNIX;
}

static struct ag_span host_of(struct ag_span s)
{
    struct ag_span host;
    uint16_t port;

    return ag_authority_parse(s, &host, &port) == AG_OK ? s : AG_SPAN("");
}

static struct ag_span proto_of(struct ag_span s)
{
    return ag_span_ieq(s, AG_SPAN("https"))  ? AG_SPAN("https")
           : ag_span_ieq(s, AG_SPAN("http")) ? AG_SPAN("http")
                                             : AG_SPAN("");
}

static struct ag_span first_of(struct ag_span list)
{
    struct ag_span s = AG_SPAN("");
    size_t at = 0;

    return ag_list_next(list, &at, &s) ? s : AG_SPAN("");
}

static size_t count_of(struct ag_span list)
{
    struct ag_span s;
    size_t at = 0, n = 0;

    while (ag_list_next(list, &at, &s)) {
        n++;
    }
    return n;
}

static struct ag_buf room_for(struct ag_exchange *ex, size_t max)
{
    return ag_buf(ag_arena_alloc(&ex->arena, max), max);
}

/* ---- X-Forwarded-* as Forwarded ---- */

static void put_client(struct ag_buf *b, struct ag_span s)
{
    union ag_addr a;
    bool known = read_address(s, &a), quoted = known && a.sa.sa_family == AF_INET6;

    ag_buf_put(b, quoted ? AG_SPAN("for=\"[") : AG_SPAN("for="));
    if (known) {
        ag_addr_format(&a, false, b);
    } else {
        ag_buf_put(b, AG_SPAN("unknown"));
    }
    ag_buf_put(b, quoted ? AG_SPAN("]\"") : AG_SPAN(""));
}

/* for=192.0.2.7;host="y";proto=https, for=192.0.2.8: what was asked for is the first one's. */
static bool to_forwarded(struct ag_exchange *ex, struct ag_span *io)
{
    struct ag_span list = io[AG_FORWARD_FOR], s = AG_SPAN("");
    struct ag_span host = host_of(first_of(io[AG_FORWARD_HOST]));
    struct ag_span proto = proto_of(first_of(io[AG_FORWARD_PROTO]));
    size_t n = count_of(list), at = 0;
    struct ag_buf b;

    if (n > ELEMENTS_MAX || (n == 0 && host.len == 0 && proto.len == 0)) {
        return true;
    }
    b = room_for(ex, (n + 1) * ELEMENT_MAX + host.len + AROUND_MAX);
    if (!b.ptr) {
        return false;
    }
    (void)ag_list_next(list, &at, &s); /* without one it is unknown */
    put_client(&b, s);
    if (host.len) {
        ag_buf_put(&b, AG_SPAN(";host=\""));
        ag_buf_put(&b, host);
        ag_buf_put(&b, AG_SPAN("\""));
    }
    if (proto.len) {
        ag_buf_put(&b, AG_SPAN(";proto="));
        ag_buf_put(&b, proto);
    }
    while (ag_list_next(list, &at, &s)) {
        ag_buf_put(&b, AG_SPAN(", "));
        put_client(&b, s);
    }
    AG_ASSERT(!b.overflow);
    io[AG_FORWARD_FORWARDED] = ag_buf_span(&b);
    return true;
}

/* ---- Forwarded as X-Forwarded-* ---- */

/* The end of the pair: a semicolon outside of quotes, or the element's end. */
static size_t pair_end(struct ag_span s, size_t at)
{
    bool quoted = false;

    for (; at < s.len && (quoted || s.ptr[at] != ';'); at++) {
        quoted ^= s.ptr[at] == '"';
        at += quoted && s.ptr[at] == '\\' && at + 1 < s.len;
    }
    return at;
}

static struct element read_element(struct ag_span s)
{
    struct element e = {{NULL, 0}, {NULL, 0}, {NULL, 0}};

    for (size_t at = 0, end; at < s.len; at = end + 1) {
        struct ag_span pair, name, value, *to;
        size_t equals;

        end = pair_end(s, at);
        pair = ag_span_trim(ag_span_sub(s, at, end));
        equals = ag_span_find(pair, '=');
        name = ag_span_sub(pair, 0, equals);
        value = equals < pair.len ? ag_span_sub(pair, equals + 1, pair.len) : AG_SPAN("");
        if (value.len >= 2 && value.ptr[0] == '"' && value.ptr[value.len - 1] == '"') {
            value = ag_span_sub(value, 1, value.len - 1);
        }
        to = ag_span_ieq(name, AG_SPAN("for"))     ? &e.client
             : ag_span_ieq(name, AG_SPAN("host"))  ? &e.host
             : ag_span_ieq(name, AG_SPAN("proto")) ? &e.proto
                                                   : NULL;
        if (to && !to->ptr) {
            *to = value;
        }
    }
    return e;
}

static bool from_forwarded(struct ag_exchange *ex, struct ag_span *io)
{
    struct ag_span list = io[AG_FORWARD_FORWARDED], s;
    size_t n = count_of(list), at = 0;
    struct ag_buf b;

    if (n == 0 || n > ELEMENTS_MAX) {
        return true;
    }
    b = room_for(ex, n * ELEMENT_MAX);
    if (!b.ptr) {
        return false;
    }
    while (ag_list_next(list, &at, &s)) {
        struct element e = read_element(s);
        union ag_addr a;

        ag_buf_put(&b, b.len ? AG_SPAN(", ") : AG_SPAN(""));
        if (read_address(e.client, &a)) {
            ag_addr_format(&a, false, &b);
        } else {
            ag_buf_put(&b, AG_SPAN("unknown"));
        }
        if (io[AG_FORWARD_HOST].len == 0) {
            io[AG_FORWARD_HOST] = host_of(e.host);
        }
        if (io[AG_FORWARD_PROTO].len == 0) {
            io[AG_FORWARD_PROTO] = proto_of(e.proto);
        }
    }
    AG_ASSERT(!b.overflow);
    io[AG_FORWARD_FOR] = ag_buf_span(&b);
    return true;
}

enum ag_status ag_proxy_forward_complete(struct ag_exchange *ex,
                                         struct ag_span io[static AG_FORWARDS])
{
    bool x = io[AG_FORWARD_FOR].len || io[AG_FORWARD_HOST].len || io[AG_FORWARD_PROTO].len;
    bool forwarded = io[AG_FORWARD_FORWARDED].len > 0;

    if (x == forwarded) { /* who says both says what they are */
        return AG_OK;
    }
    return (x ? to_forwarded(ex, io) : from_forwarded(ex, io)) ? AG_OK : AG_ENOMEM;
}
