#include "proto/uri.h"

#include "proto/h1_scan.h"

#include <arpa/inet.h>

/* Longest text of an IPv6 address: eight groups, or six and a dotted quad. */
#define IPV6_TEXT_MAX 45u

/* The byte of the escape at s[at], which is a "%"; -1 when it is broken or NUL. */
static int escape_at(struct ag_span s, size_t at)
{
    if (s.len - at < 3) {
        return -1;
    }
    int high = ag_hex_value(s.ptr[at + 1]), low = ag_hex_value(s.ptr[at + 2]);
    if (high < 0 || low < 0 || (high | low) == 0) {
        return -1;
    }
    return high << 4 | low;
}

static bool is_lower_hex(uint8_t ch)
{
    return ch >= 'a' && ch <= 'f';
}

/* Whether the escape at s[at] stays as it is. */
static bool escape_is_normal(struct ag_span s, size_t at)
{
    int ch = escape_at(s, at);

    return ch >= 0 && !ag_char_is((uint8_t)ch, AG_CHAR_PLAIN) && !is_lower_hex(s.ptr[at + 1]) &&
           !is_lower_hex(s.ptr[at + 2]);
}

/* Whether a segment that starts at s[at] is "." or "..", as it is written. */
static bool is_dot_segment(struct ag_span s, size_t at)
{
    for (size_t dots = 0; dots <= 2; dots++) {
        if (at + dots == s.len || s.ptr[at + dots] == '/') {
            return dots > 0;
        }
        if (s.ptr[at + dots] != '.') {
            break;
        }
    }
    return false;
}

bool ag_path_is_normal(struct ag_span path)
{
    if (path.len == 0 || path.ptr[0] != '/') {
        return false;
    }
    /* Most paths are letters and slashes; from the first other byte on all are looked at. */
    for (size_t i = ag_scan_path(path); i < path.len; i++) {
        uint8_t ch = path.ptr[i];
        if (ag_likely(ag_char_is(ch, AG_CHAR_PATH) && ch != '.')) {
            continue;
        }
        if (ch == '.') {
            if (path.ptr[i - 1] == '/' && is_dot_segment(path, i)) {
                return false;
            }
        } else if (ch == '%') {
            if (!escape_is_normal(path, i)) {
                return false;
            }
            i += 2;
        } else if (!ag_char_is(ch, AG_CHAR_RAW)) {
            return false;
        }
    }
    return true;
}

/* What is written so far of the normal form. */
struct normal {
    uint8_t *ptr;
    size_t len;
    size_t segment; /* where the segment being written starts; the byte before is its "/" */
};

/* At a segment's end: removes it when it is a dot segment (RFC 3986 section 5.2.4). At the path's
 * end the slash stays, for "/a/.." names a directory. */
static void end_segment(struct normal *n, bool last)
{
    const uint8_t *seg = n->ptr + n->segment;
    size_t len = n->len - n->segment;

    if (len == 1 && seg[0] == '.') {
        n->len = n->segment - 1;
    } else if (len == 2 && seg[0] == '.' && seg[1] == '.') {
        n->len = n->segment - 1;
        while (n->len > 0 && n->ptr[n->len - 1] != '/') {
            n->len--;
        }
        /* The slash of the segment removed goes too; above the root there is none. */
        n->len -= n->len > 0;
    } else {
        return;
    }
    if (last) {
        n->ptr[n->len++] = '/';
    }
}

/* Writes the normal form of the escape `%XY` whose byte is `ch`. */
static void put_escape(struct normal *n, uint8_t ch)
{
    static const char hex[] = "0123456789ABCDEF";

    if (ag_char_is(ch, AG_CHAR_PLAIN)) {
        n->ptr[n->len++] = ch;
        return;
    }
    n->ptr[n->len++] = '%';
    n->ptr[n->len++] = (uint8_t)hex[ch >> 4];
    n->ptr[n->len++] = (uint8_t)hex[ch & 15];
}

AG_NOINLINE enum ag_status ag_path_normalise(struct ag_span path, struct ag_buf *out)
{
    struct normal n = {out->ptr + out->len, 0, 1};

    AG_ASSERT(out->cap - out->len >= path.len);
    if (path.len == 0 || path.ptr[0] != '/') {
        return AG_EPROTO;
    }
    n.ptr[n.len++] = '/';
    for (size_t i = 1; i < path.len; i++) {
        uint8_t ch = path.ptr[i];
        if (ch == '/') {
            end_segment(&n, false);
            n.ptr[n.len++] = '/';
            n.segment = n.len;
        } else if (ch == '%') {
            int byte = escape_at(path, i);
            if (byte < 0) {
                return AG_EPROTO;
            }
            put_escape(&n, (uint8_t)byte);
            i += 2;
        } else if (ag_char_is(ch, AG_CHAR_PATH | AG_CHAR_RAW)) {
            n.ptr[n.len++] = ch;
        } else {
            return AG_EPROTO;
        }
    }
    end_segment(&n, true);
    AG_ASSERT(n.len > 0 && n.len <= path.len);
    out->len += n.len;
    return AG_OK;
}

enum ag_status ag_path_decode(struct ag_span path, struct ag_buf *out)
{
    uint8_t *ptr = out->ptr + out->len;
    size_t len = 0;

    AG_ASSERT(out->cap - out->len >= path.len);
    for (size_t i = 0; i < path.len; i++) {
        int byte = path.ptr[i];
        if (byte == '%') {
            byte = escape_at(path, i);
            if (byte < 0 || byte == '/') {
                return AG_EPROTO;
            }
            i += 2;
        } else if (byte == 0) {
            return AG_EPROTO;
        }
        ptr[len++] = (uint8_t)byte;
    }
    out->len += len;
    return AG_OK;
}

bool ag_query_is_valid(struct ag_span query)
{
    for (size_t i = ag_scan_path(query); i < query.len; i++) {
        if (!ag_char_is(query.ptr[i], AG_CHAR_TARGET)) {
            return false;
        }
    }
    return true;
}

/* The length of "[...]" at the start of `s`, or 0 when that is no IPv6 address. Zone identifiers
 * mean nothing to another host and are refused. */
static AG_NOINLINE size_t ipv6_literal_len(struct ag_span s)
{
    size_t close = ag_span_find(s, ']');
    char text[IPV6_TEXT_MAX + 1];
    struct in6_addr address;

    if (close == s.len || close < 2 || close - 1 > IPV6_TEXT_MAX) {
        return 0;
    }
    memcpy(text, s.ptr + 1, close - 1);
    text[close - 1] = '\0';
    /* inet_pton reads a string: a NUL inside would hide what follows. */
    if (memchr(text, '\0', close - 1) || inet_pton(AF_INET6, text, &address) != 1) {
        return 0;
    }
    return close + 1;
}

static size_t reg_name_len(struct ag_span s)
{
    size_t len = ag_scan_host(s);

    while (len < s.len && ag_char_is(s.ptr[len], AG_CHAR_HOST)) {
        len++;
    }
    return len;
}

/* ":" and 1..5 digits; a lone ":" is legal but never sent, and peers disagree on it. */
static bool read_port(struct ag_span s, uint16_t *out_port)
{
    uint32_t port = 0;

    if (s.ptr[0] != ':' || s.len < 2 || s.len > 6) {
        return false;
    }
    for (size_t i = 1; i < s.len; i++) {
        uint32_t digit = s.ptr[i] - (uint32_t)'0';

        if (digit > 9) {
            return false;
        }
        port = port * 10 + digit;
    }
    *out_port = (uint16_t)port;
    return port >= 1 && port <= UINT16_MAX;
}

enum ag_status ag_authority_parse(struct ag_span authority, struct ag_span *out_host,
                                  uint16_t *out_port)
{
    uint16_t port = 0;
    size_t host_len;

    if (authority.len == 0) {
        return AG_EPROTO;
    }
    host_len = authority.ptr[0] == '[' ? ipv6_literal_len(authority) : reg_name_len(authority);
    if (host_len == 0) {
        return AG_EPROTO;
    }
    if (host_len < authority.len &&
        !read_port(ag_span_sub(authority, host_len, authority.len), &port)) {
        return AG_EPROTO;
    }
    *out_host = ag_span_sub(authority, 0, host_len);
    *out_port = port;
    return AG_OK;
}
