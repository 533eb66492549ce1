#include "proto/proxy_protocol.h"

#include "engine/resolver.h"
#include "proto/proxy_protocol_parts.h"

#include <arpa/inet.h>

#define V1_MAX 107u /* bytes, CRLF included */

static const struct ag_span v1_begin = AG_SPAN_INIT("PROXY ");

/* A reading, while it goes on. */
struct reading {
    struct ag_proxied *to;
    const char *why;
};

static enum ag_status refuse(struct reading *r, const char *why)
{
    r->why = why;
    return AG_EPROTO;
}

/* ---- version 1 ---- */

/* Takes what stands before the next space, or before the end; with the space. */
static struct ag_span take_word(struct ag_span *io)
{
    size_t n = ag_span_find(*io, ' ');
    struct ag_span word = ag_span_sub(*io, 0, n);

    *io = ag_span_sub(*io, n < io->len ? n + 1 : n, io->len);
    return word;
}

static bool read_port(struct ag_span text, uint16_t *out)
{
    uint64_t port = 0;

    if (text.len > 5 || (text.len > 1 && text.ptr[0] == '0') || ag_span_u64(text, &port) != AG_OK ||
        port > UINT16_MAX) {
        return false;
    }
    *out = (uint16_t)port;
    return true;
}

static bool read_text_address(struct ag_span text, sa_family_t family, uint16_t port,
                              struct ag_peer *out)
{
    union ag_addr addr;

    if (ag_addr_parse(text, port, &addr) != AG_OK || addr.sa.sa_family != family) {
        return false;
    }
    ag_addr_unmap(&addr);
    ag_peer_set(out, &addr);
    return true;
}

/* Behind "PROXY ", without the end of the line. */
static enum ag_status read_line(struct reading *r, struct ag_span line)
{
    bool ends_in_space = line.len > 0 && line.ptr[line.len - 1] == ' ';
    struct ag_span protocol = take_word(&line);
    struct ag_span source, destination;
    uint16_t from, to;
    sa_family_t family;

    if (ag_span_eq(protocol, AG_SPAN("UNKNOWN"))) {
        return AG_OK;
    }
    if (ag_span_eq(protocol, AG_SPAN("TCP4"))) {
        family = AF_INET;
    } else if (ag_span_eq(protocol, AG_SPAN("TCP6"))) {
        family = AF_INET6;
    } else {
        return refuse(r, "a protocol that is none");
    }
    source = take_word(&line);
    destination = take_word(&line);
    if (!read_port(take_word(&line), &from) || !read_port(take_word(&line), &to) || line.len > 0 ||
        ends_in_space) {
        return refuse(r, "a port that is none");
    }
    if (!read_text_address(source, family, from, &r->to->source) ||
        !read_text_address(destination, family, to, &r->to->destination)) {
        return refuse(r, "an address that is none");
    }
    return AG_OK;
}

static enum ag_status read_v1(struct reading *r, struct ag_span in, size_t *out_len)
{
    size_t end = ag_span_find(ag_span_sub(in, 0, ag_min_size(in.len, V1_MAX)), '\r');

    if (end + 1 < in.len && end + 1 < V1_MAX) {
        if (in.ptr[end + 1] != '\n') {
            return refuse(r, "a line without its end");
        }
        *out_len = end + 2;
        return read_line(r, ag_span_sub(in, v1_begin.len, end));
    }
    return in.len < V1_MAX ? AG_AGAIN : refuse(r, "a line that is too long");
}

/* ---- version 2 ---- */

static uint16_t u16(const uint8_t *at)
{
    return (uint16_t)(at[0] << 8 | at[1]);
}

static uint32_t u32(const uint8_t *at)
{
    return (uint32_t)u16(at) << 16 | u16(at + 2);
}

/* Takes the next of type, length and value. False: it is cut short. */
static bool take_tlv(struct ag_span *io, uint8_t *out_type, struct ag_span *out_value)
{
    size_t len;

    if (io->len < AG_PP_TLV_HEAD) {
        return false;
    }
    len = u16(io->ptr + 1);
    if (io->len - AG_PP_TLV_HEAD < len) {
        return false;
    }
    *out_type = io->ptr[0];
    *out_value = ag_span_sub(*io, AG_PP_TLV_HEAD, AG_PP_TLV_HEAD + len);
    *io = ag_span_sub(*io, AG_PP_TLV_HEAD + len, io->len);
    return true;
}

static void keep(struct ag_span value, uint8_t *to, size_t max, uint8_t *out_len)
{
    if (value.len > 0 && value.len <= max) {
        memcpy(to, value.ptr, value.len);
        *out_len = (uint8_t)value.len;
    }
}

/* The checksum of the whole header, its own four bytes taken for zeros. */
static bool sums_up(struct ag_span header, struct ag_span sum)
{
    static const uint8_t zeros[4];
    size_t at = (size_t)(sum.ptr - header.ptr);
    uint32_t crc = AG_PP_CRC_BEGIN;

    crc = ag_pp_crc32c(crc, ag_span_sub(header, 0, at));
    crc = ag_pp_crc32c(crc, ag_span(zeros, sizeof(zeros)));
    crc = ag_pp_crc32c(crc, ag_span_sub(header, at + sizeof(zeros), header.len));
    return ~crc == u32(sum.ptr);
}

static enum ag_status read_ssl(struct reading *r, struct ag_span value)
{
    uint8_t type;
    struct ag_span ignored;

    if (value.len < AG_PP_SSL_HEAD) {
        return refuse(r, "a TLS part that is cut short");
    }
    r->to->tls = value.ptr[0] & AG_PP_CLIENT_SSL;
    value = ag_span_sub(value, AG_PP_SSL_HEAD, value.len);
    while (value.len > 0) {
        if (!take_tlv(&value, &type, &ignored)) {
            return refuse(r, "a TLS part that is cut short");
        }
    }
    return AG_OK;
}

static enum ag_status read_tlv(struct reading *r, struct ag_span header, uint8_t type,
                               struct ag_span value)
{
    struct ag_proxied *to = r->to;

    switch (type) {
    case AG_PP_ALPN:
        keep(value, to->alpn, sizeof(to->alpn), &to->alpn_len);
        return AG_OK;
    case AG_PP_AUTHORITY:
        keep(value, to->authority, sizeof(to->authority), &to->authority_len);
        return AG_OK;
    case AG_PP_CRC32C:
        return value.len == 4 && sums_up(header, value) ? AG_OK : refuse(r, "a wrong checksum");
    case AG_PP_UNIQUE_ID:
        if (value.len > sizeof(to->id)) {
            return refuse(r, "an id that is too long");
        }
        keep(value, to->id, sizeof(to->id), &to->id_len);
        return AG_OK;
    case AG_PP_SSL:
        return read_ssl(r, value);
    default:
        return AG_OK;
    }
}

static void read_addresses(struct ag_proxied *to, uint8_t family, const uint8_t *at)
{
    union ag_addr source = {0}, destination = {0};

    if (family == AG_PP_TCP4) {
        source.in.sin_family = destination.in.sin_family = AF_INET;
        memcpy(&source.in.sin_addr, at, 4);
        memcpy(&destination.in.sin_addr, at + 4, 4);
        memcpy(&source.in.sin_port, at + 8, 2);
        memcpy(&destination.in.sin_port, at + 10, 2);
    } else if (family == AG_PP_TCP6) {
        source.in6.sin6_family = destination.in6.sin6_family = AF_INET6;
        memcpy(&source.in6.sin6_addr, at, 16);
        memcpy(&destination.in6.sin6_addr, at + 16, 16);
        memcpy(&source.in6.sin6_port, at + 32, 2);
        memcpy(&destination.in6.sin6_port, at + 34, 2);
    }
    ag_addr_unmap(&source);
    ag_addr_unmap(&destination);
    ag_peer_set(&to->source, &source);
    ag_peer_set(&to->destination, &destination);
}

/* Bytes of the addresses of `family`; SIZE_MAX: how many is not known. */
static size_t address_bytes(uint8_t family)
{
    if ((family & 15u) == 0) {
        return SIZE_MAX;
    }
    switch (family >> 4) {
    case 1:
        return AG_PP_V4_BYTES;
    case 2:
        return AG_PP_V6_BYTES;
    case 3:
        return AG_PP_UNIX_BYTES;
    default:
        return SIZE_MAX;
    }
}

static enum ag_status read_proxied(struct reading *r, struct ag_span header)
{
    uint8_t family = header.ptr[13], type = 0;
    struct ag_span rest = ag_span_sub(header, AG_PP_HEAD, header.len), value = rest;
    size_t n = address_bytes(family);

    if (n == SIZE_MAX) {
        return AG_OK; /* there may be anything */
    }
    if (rest.len < n) {
        return refuse(r, "addresses that are cut short");
    }
    read_addresses(r->to, family, rest.ptr);
    rest = ag_span_sub(rest, n, rest.len);
    while (rest.len > 0) {
        enum ag_status st = AG_EPROTO;

        if (!take_tlv(&rest, &type, &value)) {
            return refuse(r, "a part that is cut short");
        }
        st = read_tlv(r, header, type, value);
        if (st != AG_OK) {
            return st;
        }
    }
    return AG_OK;
}

static enum ag_status read_v2(struct reading *r, struct ag_span in, size_t *out_len)
{
    size_t len;

    if (in.len > 12 && in.ptr[12] != AG_PP_PROXY && in.ptr[12] != AG_PP_LOCAL) {
        return refuse(r, "a version or command that is none");
    }
    if (in.len > 13 && (in.ptr[13] >> 4 > 3 || (in.ptr[13] & 15u) > 2)) {
        return refuse(r, "a family or transport that is none");
    }
    if (in.len < AG_PP_HEAD) {
        return AG_AGAIN;
    }
    len = AG_PP_HEAD + u16(in.ptr + 14);
    if (len > AG_PROXY_PROTOCOL_MAX) {
        r->why = "a header that is too long";
        return AG_ELIMIT;
    }
    if (in.len < len) {
        return AG_AGAIN;
    }
    *out_len = len;
    return in.ptr[12] == AG_PP_LOCAL ? AG_OK : read_proxied(r, ag_span_sub(in, 0, len));
}

void ag_proxied_local(const struct ag_proxied *p, struct ag_stream *s, union ag_addr *out_addr)
{
    if (p && p->destination.family != AF_UNSPEC) {
        ag_peer_known(&p->destination, out_addr);
    } else {
        ag_stream_local(s, out_addr);
    }
}

/* ---- either ---- */

/* Whether `in` begins with `text`, or may yet. */
static bool begins(struct ag_span in, struct ag_span text)
{
    size_t n = ag_min_size(in.len, text.len);

    return ag_span_eq(ag_span_sub(in, 0, n), ag_span_sub(text, 0, n));
}

enum ag_status ag_proxy_protocol_read(struct ag_span in, struct ag_proxied *out, size_t *out_len,
                                      const char **out_why)
{
    struct ag_proxied read = {0};
    struct reading r = {&read, NULL};
    enum ag_status st = AG_AGAIN;
    size_t len = 0;

    if (begins(in, AG_PP_SIGNATURE)) {
        st = in.len < AG_PP_SIGNATURE.len ? AG_AGAIN : read_v2(&r, in, &len);
    } else if (begins(in, v1_begin)) {
        st = in.len < v1_begin.len ? AG_AGAIN : read_v1(&r, in, &len);
    } else {
        st = refuse(&r, "no header");
    }
    if (st == AG_OK) {
        *out = read;
        *out_len = len;
    } else if (st != AG_AGAIN) {
        *out_why = r.why;
    }
    return st;
}
