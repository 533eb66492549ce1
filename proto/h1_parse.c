#include "proto/h1_parse.h"

#include "proto/h1_head.h"
#include "proto/h1_scan.h"
#include "proto/uri.h"

/* " HTTP/1.1" at the end of a request line, and the shortest line that has one. */
#define VERSION_LEN      9u
#define REQUEST_LINE_MIN 12u

static enum ag_status set_path(struct ag_h1_parser *p, struct ag_span s, struct ag_request *r,
                               struct ag_arena *arena)
{
    struct ag_head_error e = {0};
    enum ag_status st = ag_head_set_path(r, s, arena, &e);

    return ag_likely(st != AG_EPROTO) ? st : ag_h1_fail(p, e.status, e.why);
}

static enum ag_status set_authority(struct ag_h1_parser *p, struct ag_span authority,
                                    struct ag_request *r, const char *error)
{
    return ag_likely(ag_head_set_authority(r, authority) == AG_OK) ? AG_OK
                                                                   : ag_h1_fail(p, 400, error);
}

/* "http://host/path?query" (RFC 9112 section 3.2.2). */
static AG_NOINLINE enum ag_status set_absolute(struct ag_h1_parser *p, struct ag_request *r,
                                               struct ag_arena *arena)
{
    static const struct ag_span schemes[] = {AG_SPAN_INIT("http://"), AG_SPAN_INIT("https://")};
    struct ag_span rest = {NULL, 0};

    for (size_t i = 0; i < AG_COUNT(schemes); i++) {
        size_t len = schemes[i].len;
        if (r->target.len > len && ag_span_ieq(ag_span_sub(r->target, 0, len), schemes[i])) {
            rest = ag_span_sub(r->target, len, r->target.len);
            r->https_target = i == 1;
        }
    }
    if (rest.len == 0) {
        return ag_h1_fail(p, 400, "invalid request target");
    }
    size_t end = 0;
    while (end < rest.len && rest.ptr[end] != '/' && rest.ptr[end] != '?') {
        end++;
    }
    enum ag_status st =
        set_authority(p, ag_span_sub(rest, 0, end), r, "invalid authority in the request target");
    if (st != AG_OK) {
        return st;
    }
    r->absolute_form = true;
    rest = ag_span_sub(rest, end, rest.len);
    if (rest.len && rest.ptr[0] == '/') {
        return set_path(p, rest, r, arena);
    }
    /* An empty path is "/", and for OPTIONS without a query the whole server (3.2.4). */
    r->path = rest.len == 0 && r->method == AG_METHOD_OPTIONS ? AG_SPAN("*") : AG_SPAN("/");
    if (rest.len) {
        r->has_query = true;
        r->query = ag_span_sub(rest, 1, rest.len);
        if (!ag_query_is_valid(r->query)) {
            return ag_h1_fail(p, 400, "invalid query");
        }
    }
    return AG_OK;
}

/* The four forms of RFC 9112 section 3.2. Every byte of the target passes one of the checks of
 * uri.h, so none that is a space, a control, 8-bit or "#" gets through. */
static enum ag_status set_target(struct ag_h1_parser *p, struct ag_request *r,
                                 struct ag_arena *arena)
{
    if (r->method == AG_METHOD_CONNECT) {
        enum ag_status st = set_authority(p, r->target, r, "invalid CONNECT target");
        /* RFC 9110 section 9.3.6: there is no default port. */
        return st == AG_OK && r->port == 0 ? ag_h1_fail(p, 400, "CONNECT without a port") : st;
    }
    if (ag_likely(r->target.ptr[0] == '/')) {
        return set_path(p, r->target, r, arena);
    }
    if (ag_span_eq(r->target, AG_SPAN("*"))) {
        r->path = r->target;
        return r->method == AG_METHOD_OPTIONS
                   ? AG_OK
                   : ag_h1_fail(p, 400, "asterisk target without OPTIONS");
    }
    return set_absolute(p, r, arena);
}

/* "METHOD SP target SP HTTP/1.x" (RFC 9112 section 3). The version has a fixed length, so the line
 * is read from both ends. */
static enum ag_status read_request_line(struct ag_h1_parser *p, struct ag_span line,
                                        struct ag_request *r, struct ag_arena *arena)
{
    size_t method_len = 0;

    if (line.len < REQUEST_LINE_MIN) {
        return ag_h1_fail(p, 400, "malformed request line");
    }
    size_t target_end = line.len - VERSION_LEN;
    const uint8_t *version = line.ptr + target_end;
    if (memcmp(version, " HTTP/", 6) != 0 || !ag_is_digit(version[6]) || version[7] != '.' ||
        !ag_is_digit(version[8])) {
        return ag_h1_fail(p, 400, "malformed HTTP version");
    }
    if (ag_likely(memcmp(line.ptr, "GET ", 4) == 0)) {
        method_len = 3;
    }
    while (ag_char_is(line.ptr[method_len], AG_CHAR_TOKEN)) {
        method_len++; /* ends at the latest at the SP before the version */
    }
    if (method_len == 0 || line.ptr[method_len] != ' ' || method_len + 1 >= target_end) {
        return ag_h1_fail(p, 400, "malformed request line");
    }
    r->method_name = ag_span(line.ptr, method_len);
    r->method = (uint8_t)ag_method_from_name(r->method_name); /* HEAD: no content for errors too */
    if (version[6] != '1') {
        return ag_h1_fail(p, 505, "HTTP version not supported");
    }
    /* A higher minor version is served as the highest known one (RFC 9110 section 2.5). */
    r->version = version[8] == '0' ? AG_HTTP_10 : AG_HTTP_11;
    r->target = ag_span_sub(line, method_len + 1, target_end);
    r->content_length = AG_LENGTH_UNKNOWN;
    return set_target(p, r, arena);
}

static enum ag_status read_start(struct ag_h1_parser *p, struct ag_span in,
                                 const struct ag_h1_limits *limits, struct ag_request *r,
                                 struct ag_arena *arena)
{
    struct ag_span line;
    enum ag_status st = ag_h1_start_line(p, in, limits, &line);

    if (st == AG_OK && line.len == 0 && !p->skipped_empty_line) {
        /* Old clients send a CRLF after a body (RFC 9112 section 2.2). */
        p->skipped_empty_line = true;
        st = ag_h1_start_line(p, in, limits, &line);
    }
    return st == AG_OK ? read_request_line(p, line, r, arena) : st;
}

/* RFC 9112 section 3.2. An empty Host is refused although the grammar has it: it names nothing. */
static enum ag_status check_host(struct ag_h1_parser *p, const struct ag_h1_summary *s,
                                 struct ag_request *r)
{
    struct ag_span host, authority;
    uint16_t port;

    if (s->host_count != 1) {
        if (s->host_count == 0 && r->version == AG_HTTP_10) {
            return AG_OK;
        }
        return ag_h1_fail(p, 400, s->host_count ? "more than one Host" : "no Host");
    }
    authority = ag_field_value(s->host);
    if (ag_unlikely(ag_authority_parse(authority, &host, &port) != AG_OK)) {
        return ag_h1_fail(p, 400, "invalid Host");
    }
    if (r->authority.len) {
        /* The target's authority wins, and the field must not say otherwise to anyone later. */
        s->host->value = r->authority.ptr;
        s->host->value_len = (uint32_t)r->authority.len;
        return AG_OK;
    }
    r->host = host;
    r->authority = authority;
    r->port = port;
    return AG_OK;
}

/* What only the whole head can tell. */
static enum ag_status finish_request(struct ag_h1_parser *p, struct ag_request *r)
{
    struct ag_h1_summary s;
    bool chunked = false;

    ag_h1_summarise(&r->fields, &s);
    enum ag_status st = check_host(p, &s, r);
    if (st != AG_OK) {
        return st;
    }
    st = ag_h1_check_framing(p, &s, r->version, &r->content_length, &chunked);
    if (st != AG_OK) {
        return st;
    }
    r->framing = chunked ? AG_FRAMING_CHUNKED : s.length ? AG_FRAMING_LENGTH : AG_FRAMING_NONE;
    if (r->method == AG_METHOD_CONNECT && (chunked || (s.length && r->content_length))) {
        /* It has no content (RFC 9110 section 9.3.6); peers disagree on what follows one that
         * does. */
        return ag_h1_fail(p, 400, "CONNECT with content");
    }
    if (s.expect_other) {
        return ag_h1_fail(p, 417, "unknown expectation");
    }
    r->keep_alive = ag_h1_wants_keep_alive(&s, r->version);
    /* Neither is known to HTTP/1.0 (RFC 9110 sections 10.1.1 and 7.8). */
    r->expect_continue = s.expect_continue && r->version >= AG_HTTP_11;
    r->upgrade = s.upgrade_option && s.upgrade_field && r->version >= AG_HTTP_11;
    r->received_count = r->fields.count;
    return AG_OK;
}

/* One function without calls but for what is rare: each request goes through it. */
AG_FLATTEN enum ag_status ag_h1_parse_request(struct ag_h1_parser *p, struct ag_span in,
                                              const struct ag_h1_limits *limits,
                                              struct ag_request *out, struct ag_arena *arena)
{
    enum ag_status st = AG_OK;

    AG_ASSERT(p->state != AG_H1_PARSE_DONE);
    if (p->state == AG_H1_PARSE_START) {
        st = read_start(p, in, limits, out, arena);
        if (st != AG_OK) {
            return st;
        }
        p->state = AG_H1_PARSE_FIELDS;
    }
    st = ag_h1_read_fields(p, in, limits, false, &out->fields, arena);
    if (st == AG_OK) {
        p->state = AG_H1_PARSE_DONE;
        st = finish_request(p, out);
    }
    return st;
}
