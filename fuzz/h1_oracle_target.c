#include "fuzz/h1_oracle_text.h"

#include <arpa/inet.h>

bool oracle_read_authority(struct ag_span s, bool *out_has_port)
{
    size_t host = 0, port = 0;

    if (s.len && s.ptr[0] == '[') {
        char text[64] = "";
        struct in6_addr address;

        host = find(s, ']');
        if (host == s.len || host - 1 >= sizeof(text)) {
            return false;
        }
        memcpy(text, s.ptr + 1, host - 1);
        if (strlen(text) != host - 1 || inet_pton(AF_INET6, text, &address) != 1) {
            return false;
        }
        host++;
    } else {
        while (host < s.len && (is_unreserved(s.ptr[host]) || one_of(s.ptr[host], "!$&'()*+,;="))) {
            host++;
        }
    }
    *out_has_port = host < s.len;
    if (host == 0 || host == s.len) {
        return host > 0;
    }
    for (size_t i = host + 1; i < s.len; i++) {
        if (!is_digit(s.ptr[i])) {
            return false;
        }
        port = port * 10 + (size_t)(s.ptr[i] - '0');
    }
    return s.ptr[host] == ':' && s.len - host - 1 >= 1 && s.len - host - 1 <= 5 && port >= 1 &&
           port <= 65535;
}

/* Escapes in their normal form (RFC 3986 6.2.2.1, 6.2.2.2) into `out`; false: not a path. */
static bool unescape(struct ag_span s, struct ag_buf *out)
{
    for (size_t i = 0; i < s.len; i++) {
        uint8_t ch = s.ptr[i];

        if (ch != '%') {
            if (!is_path_char(ch)) {
                return false;
            }
            ag_buf_putc(out, ch);
            continue;
        }
        int high = i + 1 < s.len ? hex(s.ptr[i + 1]) : -1;
        int low = i + 2 < s.len ? hex(s.ptr[i + 2]) : -1;
        if (high < 0 || low < 0 || high + low == 0) {
            return false; /* broken, or NUL */
        }
        ch = (uint8_t)(high * 16 + low);
        if (is_unreserved(ch)) {
            ag_buf_putc(out, ch);
        } else {
            ag_buf_putc(out, '%');
            ag_buf_putc(out, (uint8_t) "0123456789ABCDEF"[high]);
            ag_buf_putc(out, (uint8_t) "0123456789ABCDEF"[low]);
        }
        i += 2;
    }
    return true;
}

static bool starts(struct ag_span s, const char *text)
{
    size_t len = strlen(text);

    return s.len >= len && memcmp(s.ptr, text, len) == 0;
}

/* RFC 3986 5.2.4, step by step, in place: what is written never overtakes what is read. */
static void remove_dots(struct ag_buf *path)
{
    struct ag_span in = {path->ptr, path->len};
    size_t len = 0;
    static const uint8_t slash[] = "/";

    while (in.len > 0) {
        if (starts(in, "/./")) {
            in = cut(in, 2, in.len);
        } else if (same(in, "/.")) {
            in = ag_span(slash, 1);
        } else if (starts(in, "/../") || same(in, "/..")) {
            in = in.len == 3 ? ag_span(slash, 1) : cut(in, 3, in.len);
            while (len > 0 && path->ptr[--len] != '/') {
            }
        } else {
            size_t end = 1 + find(cut(in, 1, in.len), '/');

            memmove(path->ptr + len, in.ptr, end);
            len += end;
            in = cut(in, end, in.len);
        }
    }
    path->len = len;
}

/* Path and query; false: a byte that may not stand there. */
static bool read_path(struct ag_span s, struct oracle_head *h)
{
    size_t mark = find(s, '?');

    if (!unescape(cut(s, 0, mark), &h->path)) {
        return false;
    }
    remove_dots(&h->path);
    h->has_query = mark < s.len;
    h->query = cut(s, mark < s.len ? mark + 1 : mark, s.len);
    for (size_t i = 0; i < h->query.len; i++) {
        uint8_t ch = h->query.ptr[i];
        if (ch <= ' ' || ch >= 0x7f || ch == '#') {
            return false;
        }
    }
    return true;
}

bool oracle_read_target(struct oracle_head *h)
{
    struct ag_span t = h->target;
    bool options = ag_span_eq(h->method, AG_SPAN("OPTIONS")), port = false;
    size_t scheme;

    if (ag_span_eq(h->method, AG_SPAN("CONNECT"))) {
        h->authority = t;
        return oracle_read_authority(t, &port) && port;
    }
    if (t.ptr[0] == '/') {
        return read_path(t, h);
    }
    if (ag_span_eq(t, AG_SPAN("*"))) {
        ag_buf_put(&h->path, t);
        return options;
    }
    scheme = find(t, ':');
    if ((!same(cut(t, 0, scheme), "http") && !same(cut(t, 0, scheme), "https")) ||
        !starts(cut(t, scheme, t.len), "://")) {
        return false;
    }
    h->secured = scheme == 5;
    h->absolute = true;
    t = cut(t, scheme + 3, t.len);
    h->authority = cut(t, 0, ag_min_size(find(t, '/'), find(t, '?')));
    t = cut(t, h->authority.len, t.len);
    if (!oracle_read_authority(h->authority, &port)) {
        return false;
    }
    if (t.len && t.ptr[0] == '/') {
        return read_path(t, h);
    }
    /* An empty path: "/", or the server as a whole (RFC 9112 3.2.4). */
    if (!read_path(t, h)) {
        return false;
    }
    ag_buf_put(&h->path, t.len == 0 && options ? AG_SPAN("*") : AG_SPAN("/"));
    return true;
}
