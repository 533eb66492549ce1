#include "proto/proxy_protocol.h"
#include "proto/proxy_protocol_parts.h"

#include "engine/resolver.h"

static bool is_ip(const union ag_addr *a)
{
    return a->sa.sa_family == AF_INET || a->sa.sa_family == AF_INET6;
}

/* An IPv4 address in IPv6's clothes. */
static union ag_addr to_v6(const union ag_addr *a)
{
    union ag_addr v6 = {.in6 = {.sin6_family = AF_INET6}};

    if (a->sa.sa_family == AF_INET6) {
        return *a;
    }
    v6.in6.sin6_port = a->in.sin_port;
    v6.in6.sin6_addr.s6_addr[10] = v6.in6.sin6_addr.s6_addr[11] = 0xff;
    memcpy(&v6.in6.sin6_addr.s6_addr[12], &a->in.sin_addr, 4);
    return v6;
}

static uint16_t port_of(const union ag_addr *a)
{
    return ntohs(a->sa.sa_family == AF_INET ? a->in.sin_port : a->in6.sin6_port);
}

/* ---- version 1 ---- */

static void put_v1(struct ag_buf *out, const union ag_addr *source,
                   const union ag_addr *destination)
{
    ag_buf_put(out,
               source->sa.sa_family == AF_INET ? AG_SPAN("PROXY TCP4 ") : AG_SPAN("PROXY TCP6 "));
    ag_addr_format(source, false, out);
    ag_buf_putc(out, ' ');
    ag_addr_format(destination, false, out);
    ag_buf_putc(out, ' ');
    ag_buf_put_u64(out, port_of(source));
    ag_buf_putc(out, ' ');
    ag_buf_put_u64(out, port_of(destination));
    ag_buf_put(out, AG_SPAN("\r\n"));
}

/* ---- version 2 ---- */

static void put_u16(struct ag_buf *out, size_t n)
{
    ag_buf_putc(out, (uint8_t)(n >> 8));
    ag_buf_putc(out, (uint8_t)n);
}

/* The length in the two bytes before `from` is that of all from there on. */
static void close_length(struct ag_buf *out, size_t from)
{
    size_t n = out->len - from;

    AG_ASSERT(!out->overflow && n <= UINT16_MAX);
    out->ptr[from - 2] = (uint8_t)(n >> 8);
    out->ptr[from - 1] = (uint8_t)n;
}

static void put_tlv(struct ag_buf *out, uint8_t type, struct ag_span value)
{
    if (value.len > 0) {
        ag_buf_putc(out, type);
        put_u16(out, value.len);
        ag_buf_put(out, value);
    }
}

static void put_addresses(struct ag_buf *out, const union ag_addr *source,
                          const union ag_addr *destination)
{
    if (source->sa.sa_family == AF_INET) {
        ag_buf_put(out, ag_span(&source->in.sin_addr, 4));
        ag_buf_put(out, ag_span(&destination->in.sin_addr, 4));
    } else {
        ag_buf_put(out, ag_span(&source->in6.sin6_addr, 16));
        ag_buf_put(out, ag_span(&destination->in6.sin6_addr, 16));
    }
    put_u16(out, port_of(source));
    put_u16(out, port_of(destination));
}

static struct ag_span alpn_name(uint8_t alpn)
{
    switch ((enum ag_alpn)alpn) {
    case AG_ALPN_H2:
        return AG_SPAN("h2");
    case AG_ALPN_HTTP_11:
        return AG_SPAN("http/1.1");
    case AG_ALPN_ACME:
        return AG_SPAN("acme-tls/1");
    case AG_ALPN_NONE:
        break;
    }
    return AG_SPAN("");
}

static struct ag_span text_of(const char *s)
{
    return s ? ag_span_str(s) : AG_SPAN("");
}

static void put_session(struct ag_buf *out, const struct ag_tls_session *tls)
{
    bool shown = tls->client_cert != AG_TLS_CLIENT_NONE;
    bool good = tls->client_cert == AG_TLS_CLIENT_VALID;
    const uint8_t verify[] = {0, 0, 0, !good};
    size_t from;

    put_tlv(out, AG_PP_ALPN, alpn_name(tls->alpn));
    put_tlv(out, AG_PP_AUTHORITY, tls->server_name);
    ag_buf_putc(out, AG_PP_SSL);
    put_u16(out, 0);
    from = out->len;
    ag_buf_putc(out, (uint8_t)(AG_PP_CLIENT_SSL | (shown ? AG_PP_CLIENT_CERT : 0)));
    ag_buf_put(out, ag_span(verify, sizeof(verify)));
    put_tlv(out, AG_PP_SSL_VERSION, text_of(tls->version));
    put_tlv(out, AG_PP_SSL_CIPHER, text_of(tls->cipher));
    close_length(out, from);
}

static void put_head(struct ag_buf *out, uint8_t command, uint8_t family)
{
    ag_buf_put(out, AG_PP_SIGNATURE);
    ag_buf_putc(out, command);
    ag_buf_putc(out, family);
    put_u16(out, 0);
}

/* ---- either ---- */

void ag_proxy_protocol_put(struct ag_buf *out, enum ag_proxy_protocol version,
                           const union ag_addr *source, const union ag_addr *destination,
                           const struct ag_tls_session *tls)
{
    union ag_addr from = *source, to = *destination;
    size_t start = out->len;

    AG_ASSERT(version != AG_PROXY_PROTOCOL_NONE);
    if (!is_ip(source) || !is_ip(destination)) {
        if (version == AG_PROXY_PROTOCOL_V1) {
            ag_buf_put(out, AG_SPAN("PROXY UNKNOWN\r\n"));
        } else {
            put_head(out, AG_PP_PROXY, AG_PP_UNSPEC);
        }
        return;
    }
    if (from.sa.sa_family != to.sa.sa_family) {
        from = to_v6(source);
        to = to_v6(destination);
    }
    if (version == AG_PROXY_PROTOCOL_V1) {
        put_v1(out, &from, &to);
        return;
    }
    put_head(out, AG_PP_PROXY, from.sa.sa_family == AF_INET ? AG_PP_TCP4 : AG_PP_TCP6);
    put_addresses(out, &from, &to);
    if (tls) {
        put_session(out, tls);
    }
    close_length(out, start + AG_PP_HEAD);
}

void ag_proxy_protocol_put_local(struct ag_buf *out, enum ag_proxy_protocol version)
{
    AG_ASSERT(version != AG_PROXY_PROTOCOL_NONE);
    if (version == AG_PROXY_PROTOCOL_V1) {
        ag_buf_put(out, AG_SPAN("PROXY UNKNOWN\r\n"));
    } else {
        put_head(out, AG_PP_LOCAL, AG_PP_UNSPEC);
    }
}

/* Bit by bit: a header is short, and comes once a connection. */
uint32_t ag_pp_crc32c(uint32_t crc, struct ag_span bytes)
{
    for (size_t i = 0; i < bytes.len; i++) {
        crc ^= bytes.ptr[i];
        for (unsigned bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (crc & 1 ? UINT32_C(0x82f63b78) : 0);
        }
    }
    return crc;
}
