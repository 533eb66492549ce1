#include "fuzz/h1_oracle.h"

#include <arpa/inet.h>

#define FIELDS_MAX 64u

unsigned oracle_status_bit(unsigned status)
{
    switch (status) {
    case 400:
        return ORACLE_400;
    case 413:
        return ORACLE_413;
    case 414:
        return ORACLE_414;
    case 417:
        return ORACLE_417;
    case 421:
        return ORACLE_421;
    case 431:
        return ORACLE_431;
    case 501:
        return ORACLE_501;
    case 505:
        return ORACLE_505;
    default:
        return 0;
    }
}

/* ---- characters ---- */

static bool one_of(uint8_t ch, const char *set)
{
    return ch && strchr(set, ch);
}

static bool is_digit(uint8_t ch)
{
    return ch >= '0' && ch <= '9';
}

static bool is_alpha(uint8_t ch)
{
    return (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z');
}

static int hex(uint8_t ch)
{
    static const char lower[] = "0123456789abcdef", upper[] = "0123456789ABCDEF";
    const char *at = ch ? strchr(lower, ch) : NULL;

    if (at) {
        return (int)(at - lower);
    }
    at = ch ? strchr(upper, ch) : NULL;
    return at ? (int)(at - upper) : -1;
}

/* RFC 9110 5.6.2 */
static bool is_tchar(uint8_t ch)
{
    return is_digit(ch) || is_alpha(ch) || one_of(ch, "!#$%&'*+-.^_`|~");
}

static bool is_token(struct ag_span s)
{
    for (size_t i = 0; i < s.len; i++) {
        if (!is_tchar(s.ptr[i])) {
            return false;
        }
    }
    return s.len > 0;
}

/* RFC 3986 2.3 */
static bool is_unreserved(uint8_t ch)
{
    return is_digit(ch) || is_alpha(ch) || one_of(ch, "-._~");
}

/* RFC 3986 3.3, and what browsers send raw. */
static bool is_path_char(uint8_t ch)
{
    return is_unreserved(ch) || one_of(ch, "!$&'()*+,;=:@/") || one_of(ch, "\"<>[]^`{|}");
}

static bool same(struct ag_span a, const char *b)
{
    size_t i = 0;

    for (; i < a.len && b[i]; i++) {
        uint8_t x = a.ptr[i], y = (uint8_t)b[i];
        if (x != y && !(is_alpha(x) && is_alpha(y) && (x ^ y) == 0x20)) {
            return false;
        }
    }
    return i == a.len && !b[i];
}

static struct ag_span cut(struct ag_span s, size_t from, size_t to)
{
    return (struct ag_span){s.ptr + from, to - from};
}

static size_t find(struct ag_span s, uint8_t ch)
{
    size_t i = 0;

    while (i < s.len && s.ptr[i] != ch) {
        i++;
    }
    return i;
}

static struct ag_span strip(struct ag_span s)
{
    while (s.len && one_of(s.ptr[0], " \t")) {
        s = cut(s, 1, s.len);
    }
    while (s.len && one_of(s.ptr[s.len - 1], " \t")) {
        s.len--;
    }
    return s;
}

/* ---- lines (RFC 9112 2.2) ---- */

enum line { LINE_OK, LINE_MORE, LINE_BAD, LINE_LONG };

/* The line at `at`, which has to end, CRLF included, within `room` bytes. */
static enum line read_line(struct ag_span in, size_t at, size_t room, struct ag_span *out)
{
    for (size_t i = at; i < in.len && i - at < room; i++) {
        uint8_t ch = in.ptr[i];

        if (ch == '\r') {
            if (i + 1 - at >= room) {
                return LINE_LONG;
            }
            if (i + 1 == in.len) {
                return LINE_MORE;
            }
            *out = cut(in, at, i);
            return in.ptr[i + 1] == '\n' ? LINE_OK : LINE_BAD;
        }
        if ((ch < ' ' && ch != '\t') || ch == 0x7f) {
            return LINE_BAD;
        }
    }
    return in.len - at >= room ? LINE_LONG : LINE_MORE;
}

struct field {
    struct ag_span name, value;
};

/* RFC 9112 5: no fold, no space before the colon, a name that is a token. */
static bool read_field(struct ag_span line, struct field *out)
{
    size_t colon = find(line, ':');

    if (colon == line.len || !is_token(cut(line, 0, colon))) {
        return false;
    }
    *out = (struct field){cut(line, 0, colon), strip(cut(line, colon + 1, line.len))};
    return true;
}

/* ---- targets (RFC 9112 3.2) ---- */

/* Host, and a port if there is one; RFC 3986 3.2 without user info and escapes. */
static bool read_authority(struct ag_span s, bool *out_has_port)
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
    h->query = cut(s, mark < s.len ? mark + 1 : mark, s.len);
    for (size_t i = 0; i < h->query.len; i++) {
        uint8_t ch = h->query.ptr[i];
        if (ch <= ' ' || ch >= 0x7f || ch == '#') {
            return false;
        }
    }
    return true;
}

static bool read_target(struct oracle_head *h)
{
    struct ag_span t = h->target;
    bool options = ag_span_eq(h->method, AG_SPAN("OPTIONS")), port = false;
    size_t scheme;

    if (ag_span_eq(h->method, AG_SPAN("CONNECT"))) {
        h->authority = t;
        return read_authority(t, &port) && port;
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
    t = cut(t, scheme + 3, t.len);
    h->authority = cut(t, 0, ag_min_size(find(t, '/'), find(t, '?')));
    t = cut(t, h->authority.len, t.len);
    if (!read_authority(h->authority, &port)) {
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

/* ---- heads ---- */

static void refuse(struct oracle_head *h, unsigned statuses)
{
    h->verdict = ORACLE_REFUSE;
    h->statuses |= statuses;
}

/* RFC 9112 3 */
static void read_request_line(struct ag_span line, struct oracle_head *h)
{
    size_t method = find(line, ' ');
    const uint8_t *version = line.ptr + (line.len < 9 ? 0 : line.len - 9);

    if (line.len < 9 || memcmp(version, " HTTP/", 6) != 0 || !is_digit(version[6]) ||
        version[7] != '.' || !is_digit(version[8])) {
        refuse(h, ORACLE_400);
        return;
    }
    if (method + 1 >= line.len - 9 || !is_token(cut(line, 0, method))) {
        refuse(h, ORACLE_400);
        return;
    }
    if (version[6] != '1') {
        refuse(h, ORACLE_505);
    }
    h->http10 = version[8] == '0';
    h->method = cut(line, 0, method);
    h->target = cut(line, method + 1, line.len - 9);
    if (!read_target(h)) {
        refuse(h, ORACLE_400);
    }
}

static unsigned count(const struct field *f, size_t n, const char *name, struct ag_span *out_value)
{
    unsigned found = 0;

    for (size_t i = 0; i < n; i++) {
        if (same(f[i].name, name)) {
            *out_value = found++ ? *out_value : f[i].value;
        }
    }
    return found;
}

/* Whether a field `name` lists `member`. */
static bool lists(const struct field *f, size_t n, const char *name, const char *member)
{
    for (size_t i = 0; i < n; i++) {
        struct ag_span rest = f[i].value;

        while (same(f[i].name, name) && rest.len) {
            size_t comma = find(rest, ',');

            if (same(strip(cut(rest, 0, comma)), member)) {
                return true;
            }
            rest = cut(rest, ag_min_size(comma + 1, rest.len), rest.len);
        }
    }
    return false;
}

/* RFC 9112 6: how the content is framed, if in one way alone. */
static void read_framing(const struct field *f, size_t n, struct oracle_head *h)
{
    struct ag_span length = {NULL, 0}, coding = {NULL, 0};
    unsigned lengths = count(f, n, "content-length", &length);
    unsigned codings = count(f, n, "transfer-encoding", &coding);

    if (lengths) {
        h->has_length = true;
        for (size_t i = 0; i < length.len; i++) {
            if (!is_digit(length.ptr[i]) || i >= 19) {
                refuse(h, ORACLE_400);
                return;
            }
            h->length = h->length * 10 + (uint64_t)(length.ptr[i] - '0');
        }
        if (length.len == 0 || lengths > 1 || h->length > INT64_MAX) {
            refuse(h, ORACLE_400);
        }
    }
    if (codings) {
        h->chunked = true;
        if (codings > 1 || lengths || h->http10 || !is_token(coding)) {
            refuse(h, ORACLE_400);
        }
        if (is_token(coding) && !same(coding, "chunked")) {
            refuse(h, ORACLE_501);
        }
    }
    if (ag_span_eq(h->method, AG_SPAN("CONNECT")) && (h->chunked || h->length)) {
        refuse(h, ORACLE_400);
    }
}

/* What the fields say together. */
static void read_meaning(const struct field *f, size_t n, struct oracle_head *h)
{
    struct ag_span host = {NULL, 0}, unused;
    unsigned hosts = count(f, n, "host", &host);
    bool port;

    if (hosts > 1 || (hosts == 0 && !h->http10) || (hosts && !read_authority(host, &port))) {
        refuse(h, ORACLE_400);
    }
    if (!h->authority.len) {
        h->authority = host;
    }
    read_framing(f, n, h);
    for (size_t i = 0; i < n; i++) {
        if (same(f[i].name, "expect")) {
            bool known = same(f[i].value, "100-continue");

            h->expects |= known && !h->http10;
            if (!known) {
                refuse(h, ORACLE_417);
            }
        }
        h->odd_connection |=
            same(f[i].name, "connection") && find(f[i].value, '"') < f[i].value.len;
    }
    h->keep_alive = !lists(f, n, "connection", "close") &&
                    (!h->http10 || lists(f, n, "connection", "keep-alive"));
    h->upgrade =
        !h->http10 && lists(f, n, "connection", "upgrade") && count(f, n, "upgrade", &unused) > 0;
}

/* True when `line` is one; else the verdict is set. */
static bool judge_line(enum line line, struct oracle_head *h, unsigned too_long)
{
    if (line == LINE_MORE) {
        h->verdict = ORACLE_MORE;
    } else if (line != LINE_OK) {
        refuse(h, line == LINE_LONG ? too_long : ORACLE_400);
    }
    return line == LINE_OK;
}

void oracle_read_head(struct ag_span in, const struct oracle_limits *limits, struct ag_buf path,
                      struct oracle_head *out)
{
    size_t line_max = ag_min_size(limits->line_max, limits->head_max), at = 0, n = 0;
    struct field fields[FIELDS_MAX];
    struct ag_span line;

    AG_ASSERT(limits->field_max <= FIELDS_MAX);
    *out = (struct oracle_head){.verdict = ORACLE_OK, .path = path};
    if (!judge_line(read_line(in, 0, line_max, &line), out, ORACLE_414)) {
        return;
    }
    if (line.len == 0) { /* one empty line is let pass (RFC 9112 2.2) */
        at = 2;
        if (!judge_line(read_line(in, at, line_max, &line), out, ORACLE_414)) {
            return;
        }
    }
    read_request_line(line, out);
    at += line.len + 2;
    while (out->verdict == ORACLE_OK) {
        size_t room = limits->head_max - ag_min_size(at, limits->head_max);

        if (!judge_line(read_line(in, at, room, &line), out, ORACLE_431)) {
            return;
        }
        at += line.len + 2;
        if (line.len == 0) {
            break;
        }
        if (n == limits->field_max) {
            refuse(out, ORACLE_431);
        } else if (!read_field(line, &fields[n++])) {
            refuse(out, ORACLE_400);
        }
    }
    if (out->verdict == ORACLE_OK) {
        out->head_len = at;
        read_meaning(fields, n, out);
    }
}

/* ---- content ---- */

/* RFC 9112 7.1: "HEX[;ext]" of the line; false: refused. */
static bool read_size(struct ag_span line, uint64_t *out_size)
{
    size_t i = 0;

    *out_size = 0;
    while (i < line.len && hex(line.ptr[i]) >= 0) {
        if (*out_size > UINT64_MAX / 16) {
            return false;
        }
        *out_size = *out_size * 16 + (uint64_t)hex(line.ptr[i++]);
    }
    return i > 0 && (i == line.len || line.ptr[i] == ';');
}

/* What an unfinished size line may still become: the server need not wait for its end. */
static bool may_be_size(struct ag_span rest, size_t room)
{
    size_t len = 0;
    uint64_t size;

    while (len < rest.len && len < room && rest.ptr[len] != '\r') {
        len++;
    }
    return rest.len == 0 || read_size(cut(rest, 0, len), &size);
}

static enum oracle_verdict read_trailers(struct ag_span in, const struct oracle_limits *limits,
                                         struct oracle_body *out)
{
    size_t start = out->len;

    for (;;) {
        struct ag_span text;
        struct field field;
        size_t room = limits->head_max - ag_min_size(out->len - start, limits->head_max);
        enum line line = read_line(in, out->len, room, &text);

        if (line != LINE_OK) {
            out->statuses = line == LINE_LONG ? ORACLE_431 : ORACLE_400;
            return line == LINE_MORE ? ORACLE_MORE : ORACLE_REFUSE;
        }
        out->len += text.len + 2;
        if (text.len == 0) {
            return ORACLE_OK;
        }
        if (!read_field(text, &field)) {
            return ORACLE_REFUSE;
        }
        out->trailers++;
    }
}

static enum oracle_verdict read_chunks(struct ag_span in, const struct oracle_limits *limits,
                                       struct oracle_body *out)
{
    for (;;) {
        struct ag_span text;
        uint64_t size = 0;
        enum line line = read_line(in, out->len, limits->chunk_line_max, &text);

        if (line != LINE_OK) {
            struct ag_span rest = cut(in, out->len, in.len);

            return line == LINE_MORE && may_be_size(rest, limits->chunk_line_max) ? ORACLE_MORE
                                                                                  : ORACLE_REFUSE;
        }
        if (!read_size(text, &size)) {
            return ORACLE_REFUSE;
        }
        out->len += text.len + 2;
        if (size == 0) {
            return read_trailers(in, limits, out);
        }
        size_t take = (size_t)ag_min_u64(size, in.len - out->len);
        ag_buf_put(&out->body, cut(in, out->len, out->len + take));
        out->len += take;
        for (size_t i = 0; i < 2; i++) {
            if (take < size || out->len == in.len) {
                return ORACLE_MORE;
            }
            if (in.ptr[out->len++] != (i == 0 ? '\r' : '\n')) {
                return ORACLE_REFUSE;
            }
        }
    }
}

void oracle_read_body(struct ag_span in, const struct oracle_head *head,
                      const struct oracle_limits *limits, struct ag_buf body,
                      struct oracle_body *out)
{
    *out = (struct oracle_body){.verdict = ORACLE_OK, .statuses = ORACLE_400, .body = body};
    if (head->chunked) {
        out->verdict = read_chunks(in, limits, out);
    } else if (head->has_length) {
        out->len = (size_t)ag_min_u64(head->length, in.len);
        ag_buf_put(&out->body, cut(in, 0, out->len));
        out->verdict = out->len < head->length ? ORACLE_MORE : ORACLE_OK;
    }
    AG_ASSERT(!out->body.overflow);
}
