#include "proto/h1_head.h"

/* "HTTP/1.1 200", without a reason. */
#define STATUS_LINE_MIN 12u

/* "HTTP/1.x SP 3DIGIT SP reason" (RFC 9112 section 4). Servers are known to leave out the last
 * space together with the reason; nothing depends on it. */
static enum ag_status read_status_line(struct ag_h1_parser *p, struct ag_span line,
                                       struct ag_response *r)
{
    const uint8_t *c = line.ptr;

    if (line.len < STATUS_LINE_MIN || memcmp(c, "HTTP/1.", 7) != 0 || !ag_is_digit(c[7]) ||
        c[8] != ' ') {
        return ag_h1_fail(p, 502, "malformed status line");
    }
    if (c[9] < '1' || c[9] > '9' || !ag_is_digit(c[10]) || !ag_is_digit(c[11]) ||
        (line.len > STATUS_LINE_MIN && c[12] != ' ')) {
        return ag_h1_fail(p, 502, "malformed status code");
    }
    r->version = c[7] == '0' ? AG_HTTP_10 : AG_HTTP_11;
    r->status = (unsigned)(c[9] - '0') * 100u + (unsigned)(c[10] - '0') * 10u + (c[11] - '0');
    if (line.len > STATUS_LINE_MIN + 1) {
        r->reason = ag_span_sub(line, STATUS_LINE_MIN + 1, line.len);
    }
    r->content_length = AG_LENGTH_UNKNOWN;
    return AG_OK;
}

static enum ag_status read_start(struct ag_h1_parser *p, struct ag_span in,
                                 const struct ag_h1_limits *limits, struct ag_response *r)
{
    struct ag_span line;
    enum ag_status st = ag_h1_start_line(p, in, limits, &line);

    return st == AG_OK ? read_status_line(p, line, r) : st;
}

/* RFC 9112 section 6.3, in its order. The lengths are checked even where they mean nothing: a
 * server that sends two of them is not to be believed about where the next answer starts. */
static enum ag_status finish_response(struct ag_h1_parser *p, enum ag_method request_method,
                                      struct ag_response *r)
{
    struct ag_h1_summary s;
    bool chunked = false;

    ag_h1_summarise(&r->fields, &s);
    enum ag_status st = ag_h1_check_framing(p, &s, r->version, &r->content_length, &chunked);
    if (st != AG_OK) {
        return st;
    }
    r->keep_alive = ag_h1_wants_keep_alive(&s, r->version);
    r->upgrade = s.upgrade_option && s.upgrade_field && r->version >= AG_HTTP_11;
    if (r->status == 101 ||
        (request_method == AG_METHOD_CONNECT && r->status >= 200 && r->status < 300)) {
        r->framing = AG_FRAMING_TUNNEL;
    } else if (ag_head_has_no_content(request_method, r->status)) {
        r->framing = AG_FRAMING_NONE;
        if (r->status == 204 && (chunked || (s.length && r->content_length))) {
            /* Must not be sent (RFC 9110 section 8.6, RFC 9112 section 6.1): what it announces may
             * still come, and would be the next request's answer. */
            r->keep_alive = false;
        }
    } else if (chunked) {
        r->framing = AG_FRAMING_CHUNKED;
    } else if (s.length) {
        r->framing = AG_FRAMING_LENGTH;
    } else {
        r->framing = AG_FRAMING_CLOSE;
        r->keep_alive = false;
    }
    return AG_OK;
}

enum ag_status ag_h1_parse_response(struct ag_h1_parser *p, struct ag_span in,
                                    const struct ag_h1_limits *limits,
                                    enum ag_method request_method, struct ag_response *out,
                                    struct ag_arena *arena)
{
    enum ag_status st = AG_OK;

    AG_ASSERT(p->state != AG_H1_PARSE_DONE);
    if (p->state == AG_H1_PARSE_START) {
        st = read_start(p, in, limits, out);
        if (st == AG_OK) {
            p->state = AG_H1_PARSE_FIELDS;
        }
    }
    if (st == AG_OK) {
        st = ag_h1_read_fields(p, in, limits, false, &out->fields, arena);
    }
    if (st == AG_OK) {
        p->state = AG_H1_PARSE_DONE;
        st = finish_response(p, request_method, out);
    }
    if (st == AG_EPROTO) {
        p->status = 502; /* whatever is wrong, the client is told of a bad gateway */
    }
    return st;
}

enum ag_status ag_h1_parse_trailers(struct ag_h1_parser *p, struct ag_span in,
                                    const struct ag_h1_limits *limits, struct ag_fields *out,
                                    struct ag_arena *arena)
{
    AG_ASSERT(p->state != AG_H1_PARSE_DONE);
    enum ag_status st = ag_h1_read_fields(p, in, limits, true, out, arena);

    if (st == AG_OK) {
        p->state = AG_H1_PARSE_DONE;
    }
    return st;
}
