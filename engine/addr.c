/* addr: text to socket addresses and back; see resolver.h. */
#include "engine/resolver.h"

#include <arpa/inet.h>

socklen_t ag_addr_len(const union ag_addr *a)
{
    switch (a->sa.sa_family) {
    case AF_INET:
        return sizeof(a->in);
    case AF_INET6:
        return sizeof(a->in6);
    case AF_UNIX: {
        size_t len = strnlen(a->un.sun_path, sizeof(a->un.sun_path));

        len += len < sizeof(a->un.sun_path); /* its NUL, when there is room for one */
        return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
    }
    default:
        return sizeof(a->sa);
    }
}

bool ag_addr_same(const union ag_addr *a, const union ag_addr *b)
{
    if (a->sa.sa_family != b->sa.sa_family) {
        return false;
    }
    switch (a->sa.sa_family) {
    case AF_INET:
        return a->in.sin_port == b->in.sin_port && a->in.sin_addr.s_addr == b->in.sin_addr.s_addr;
    case AF_INET6:
        return a->in6.sin6_port == b->in6.sin6_port &&
               a->in6.sin6_scope_id == b->in6.sin6_scope_id &&
               memcmp(&a->in6.sin6_addr, &b->in6.sin6_addr, sizeof(a->in6.sin6_addr)) == 0;
    case AF_UNIX: /* an abstract name may hold NULs: compared whole, rests are zero */
        return memcmp(a->un.sun_path, b->un.sun_path, sizeof(a->un.sun_path)) == 0;
    default:
        return false;
    }
}

bool ag_addr_is_any(const union ag_addr *a)
{
    return (a->sa.sa_family == AF_INET && a->in.sin_addr.s_addr == INADDR_ANY) ||
           (a->sa.sa_family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&a->in6.sin6_addr));
}

_Static_assert(offsetof(struct sockaddr_in, sin_port) == offsetof(struct sockaddr_in6, sin6_port),
               "a port is found without asking for the family");

bool ag_addr_overlaps(const union ag_addr *a, const union ag_addr *b)
{
    return ag_addr_same(a, b) ||
           (a->sa.sa_family == b->sa.sa_family && (ag_addr_is_any(a) || ag_addr_is_any(b)) &&
            a->in.sin_port == b->in.sin_port);
}

void ag_addr_unmap(union ag_addr *a)
{
    union ag_addr plain = {.in = {.sin_family = AF_INET}};

    if (a->sa.sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&a->in6.sin6_addr)) {
        plain.in.sin_port = a->in6.sin6_port;
        memcpy(&plain.in.sin_addr, &a->in6.sin6_addr.s6_addr[12], sizeof(plain.in.sin_addr));
        *a = plain;
    }
}

bool ag_addr_is_loopback(const union ag_addr *a)
{
    union ag_addr plain = *a;

    ag_addr_unmap(&plain);
    if (plain.sa.sa_family == AF_INET) {
        return ntohl(plain.in.sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
    }
    return plain.sa.sa_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&plain.in6.sin6_addr);
}

/* Neither IPv6's clothes nor "any", which who connects to it takes for loopback. */
static union ag_addr destination(union ag_addr a)
{
    ag_addr_unmap(&a);
    if (ag_addr_is_any(&a) && a.sa.sa_family == AF_INET) {
        a.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    } else if (ag_addr_is_any(&a)) {
        a.in6.sin6_addr = in6addr_loopback;
    }
    return a;
}

bool ag_addr_leads_to(const union ag_addr *to, const union ag_addr *from,
                      const union ag_addr *listen)
{
    union ag_addr at = destination(*to), own = from ? *from : at, listens = *listen;

    ag_addr_unmap(&own);
    ag_addr_unmap(&listens);
    if (!ag_addr_is_any(&listens) || listens.sa.sa_family != at.sa.sa_family) {
        return ag_addr_same(&at, &listens);
    }
    own.in.sin_port = at.in.sin_port;
    return listens.in.sin_port == at.in.sin_port &&
           (ag_addr_is_loopback(&at) || (from && ag_addr_same(&at, &own)));
}

static enum ag_status parse_unix(struct ag_span path, union ag_addr *out_addr)
{
    union ag_addr a = {.un.sun_family = AF_UNIX};

    if (path.len == 0 || path.len >= sizeof(a.un.sun_path) || ag_span_find(path, '\0') < path.len) {
        return AG_EINVAL;
    }
    memcpy(a.un.sun_path, path.ptr, path.len);
    *out_addr = a;
    return AG_OK;
}

enum ag_status ag_addr_parse(struct ag_span host, uint16_t port, union ag_addr *out_addr)
{
    struct ag_span prefix = AG_SPAN("unix:");
    char text[INET6_ADDRSTRLEN];
    union ag_addr a = {0};

    if (ag_span_starts(host, prefix)) {
        return parse_unix(ag_span_sub(host, prefix.len, host.len), out_addr);
    }
    if (host.len == 0 || host.len >= sizeof(text) || ag_span_find(host, '\0') < host.len) {
        return AG_EINVAL;
    }
    memcpy(text, host.ptr, host.len);
    text[host.len] = '\0';
    if (inet_pton(AF_INET, text, &a.in.sin_addr) == 1) {
        a.in.sin_family = AF_INET;
        a.in.sin_port = htons(port);
    } else if (inet_pton(AF_INET6, text, &a.in6.sin6_addr) == 1) {
        a.in6.sin6_family = AF_INET6;
        a.in6.sin6_port = htons(port);
    } else {
        return AG_EINVAL;
    }
    *out_addr = a;
    return AG_OK;
}

/* "7.", "42.", "255.": each octet with its dot. */
#define DIGIT(n) (uint8_t)('0' + (n) % 10)
#define OCTET(n)                                                                                \
    {                                                                                           \
        DIGIT((n) < 10    ? (n)                                                                 \
              : (n) < 100 ? (n) / 10                                                            \
                          : (n) / 100),                                                         \
            (n) < 10 ? '.' : DIGIT((n) < 100 ? (n) : (n) / 10), (n) < 100 ? '.' : DIGIT(n), '.' \
    }
#define OCTETS4(n)  OCTET(n), OCTET((n) + 1), OCTET((n) + 2), OCTET((n) + 3)
#define OCTETS16(n) OCTETS4(n), OCTETS4((n) + 4), OCTETS4((n) + 8), OCTETS4((n) + 12)
#define OCTETS64(n) OCTETS16(n), OCTETS16((n) + 16), OCTETS16((n) + 32), OCTETS16((n) + 48)
static const uint8_t octet_text[256][4] = {OCTETS64(0), OCTETS64(64), OCTETS64(128), OCTETS64(192)};

/* By hand: the access log and each request for an upstream have one. */
void ag_addr_put_ipv4(struct ag_buf *out, const uint8_t octets[static 4])
{
    uint8_t text[INET_ADDRSTRLEN], *at = text;

    for (unsigned i = 0; i < 4; i++) {
        memcpy(at, octet_text[octets[i]], 4);
        at += 2u + (octets[i] >= 10) + (octets[i] >= 100);
    }
    if (ag_likely(out->cap - out->len >= sizeof(text))) {
        memcpy(out->ptr + out->len, text, sizeof(text));
        out->len += (size_t)(at - text) - 1;
    } else {
        ag_buf_put(out, ag_span(text, (size_t)(at - text) - 1));
    }
}

static void put_port(struct ag_buf *out, in_port_t port)
{
    ag_buf_putc(out, ':');
    ag_buf_put_u64(out, ntohs(port));
}

void ag_addr_format(const union ag_addr *a, bool port, struct ag_buf *out)
{
    char text[INET6_ADDRSTRLEN];

    switch (a->sa.sa_family) {
    case AF_INET:
        ag_addr_put_ipv4(out, (const uint8_t *)&a->in.sin_addr);
        if (port) {
            put_port(out, a->in.sin_port);
        }
        return;
    case AF_INET6:
        AG_ASSERT(inet_ntop(AF_INET6, &a->in6.sin6_addr, text, sizeof(text)));
        if (port) {
            ag_buf_putc(out, '[');
        }
        ag_buf_put(out, ag_span_str(text));
        if (port) {
            ag_buf_putc(out, ']');
            put_port(out, a->in6.sin6_port);
        }
        return;
    case AF_UNIX: /* a client's has no path */
        ag_buf_put(out, AG_SPAN("unix:"));
        ag_buf_put(out, ag_span(a->un.sun_path, strnlen(a->un.sun_path, sizeof(a->un.sun_path))));
        return;
    default:
        ag_buf_put(out, AG_SPAN("unknown"));
        return;
    }
}
