#include "actions/proxy/proxy_forward.h"

#include "engine/resolver.h"

#define IP_MAX 64u /* bytes of an address as text */
/* Of all lines, without what they quote but for the client's address, twice. */
#define LINES_MAX (192u + 2u * IP_MAX)

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
    f->any = true;
    return seen->ptr ? AG_OK : AG_ENOMEM;
}

/* The client's address alone; "unknown" (RFC 7239 section 6.2) where there is none. True: it has colons. */
static bool put_ip(const union ag_addr *a, struct ag_buf *to)
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
            return true;
        }
    } else {
        ag_buf_put(to, AG_SPAN("unknown"));
    }
    return false;
}

/* Adds fields as the lines that they are in a head of HTTP/1; text and table have room for them. */
struct lines {
    uint8_t *at;
    struct ag_field *field; /* the next one */
};

static inline __attribute__((always_inline)) void put(struct lines *l, struct ag_span s)
{
    l->at = ag_put(l->at, s);
}

/* head  "Name: " */
static inline __attribute__((always_inline)) void begin(struct lines *l, enum ag_field_id id,
                                                        struct ag_span head)
{
    *l->field = (struct ag_field){.name = l->at,
                                  .value = l->at + head.len,
                                  .name_len = (uint16_t)(head.len - 2),
                                  .id = (uint8_t)id,
                                  .line = true};
    put(l, head);
}

static inline void end(struct lines *l)
{
    l->field->value_len = (uint32_t)(l->at - l->field->value);
    l->field++;
    put(l, AG_SPAN("\r\n"));
}

static void put_before(struct lines *l, struct ag_span before)
{
    if (before.len) {
        put(l, before);
        put(l, AG_SPAN(", "));
    }
}

/* for=192.0.2.1;host="example.com:8080";proto=http */
static void put_forwarded(struct lines *l, struct ag_span before, struct ag_span ip, bool colons,
                          const struct ag_request *req)
{
    begin(l, AG_FIELD_FORWARDED, AG_SPAN("Forwarded: "));
    put_before(l, before);
    put(l, AG_SPAN("for="));
    if (colons) {
        put(l, AG_SPAN("\"["));
        put(l, ip);
        put(l, AG_SPAN("]\""));
    } else {
        put(l, ip);
    }
    if (req->authority.len) {
        /* Neither a quote nor a backslash can be in an authority. */
        put(l, AG_SPAN(";host=\""));
        put(l, req->authority);
        put(l, AG_SPAN("\""));
    }
    put(l, AG_SPAN(";proto=http"));
    if (req->tls) {
        put(l, AG_SPAN("s"));
    }
    end(l);
}

/* What is there of the field already stands, else `own`. */
static struct ag_span kept_or(struct ag_span seen, struct ag_span own)
{
    return seen.len ? seen : own;
}

enum ag_status ag_proxy_forward_add(const struct ag_proxy_forward *f, struct ag_exchange *ex,
                                    struct ag_span via, struct ag_fields *out)
{
    const struct ag_request *req = &ex->req;
    const struct ag_span *seen = f->seen;
    struct ag_span host = kept_or(seen[AG_FORWARD_HOST], req->authority), ip;
    size_t max = LINES_MAX + via.len + seen[AG_FORWARD_FOR].len + host.len +
                 seen[AG_FORWARD_PROTO].len + seen[AG_FORWARD_FORWARDED].len + req->authority.len;
    uint8_t ip_room[IP_MAX];
    struct ag_buf ip_text = ag_buf(ip_room, sizeof(ip_room));
    bool colons = put_ip(ag_exchange_remote(ex), &ip_text);
    uint8_t *text = ag_arena_alloc(&ex->arena, max);
    struct lines l = {text, out->v + out->count};

    if (!text) {
        return AG_ENOMEM;
    }
    AG_ASSERT(out->cap - out->count > AG_FORWARDS);
    ip = ag_buf_span(&ip_text);
    put(&l, AG_SPAN("\r\n"));
    if (!f->fixed[AG_FORWARD_FOR]) {
        begin(&l, AG_FIELD_X_FORWARDED_FOR, AG_SPAN("X-Forwarded-For: "));
        put_before(&l, seen[AG_FORWARD_FOR]);
        put(&l, ip);
        end(&l);
    }
    if (!f->fixed[AG_FORWARD_HOST] && host.len) { /* HTTP/1.0 may come without */
        begin(&l, AG_FIELD_X_FORWARDED_HOST, AG_SPAN("X-Forwarded-Host: "));
        put(&l, host);
        end(&l);
    }
    if (!f->fixed[AG_FORWARD_PROTO]) {
        begin(&l, AG_FIELD_X_FORWARDED_PROTO, AG_SPAN("X-Forwarded-Proto: "));
        put(&l, kept_or(seen[AG_FORWARD_PROTO], req->tls ? AG_SPAN("https") : AG_SPAN("http")));
        end(&l);
    }
    if (!f->fixed[AG_FORWARD_FORWARDED]) {
        put_forwarded(&l, seen[AG_FORWARD_FORWARDED], ip, colons, req);
    }
    /* The line's CRLF is behind the line before it already. */
    *l.field++ = ag_proxy_via_field(ag_span(l.at - 2, via.len));
    put(&l, ag_span_sub(via, 2, via.len));
    AG_ASSERT((size_t)(l.at - text) <= max);
    out->count = (uint16_t)(l.field - out->v);
    ag_arena_trim(&ex->arena, text, max, (size_t)(l.at - text));
    return AG_OK;
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
