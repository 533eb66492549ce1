#include "fuzz/h1_oracle_text.h"

/* Bytes of a trailer's name that are looked at; all that are refused are shorter. */
#define NAME_MAX_BYTES 64u

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

/* RFC 9110 6.5.1: nothing that frames, routes, authenticates, controls the request or describes its
 * content comes behind it, nor what a gateway reads as such. */
static bool may_trail(struct ag_span name)
{
    static const char *const refused[] = {"accept",
                                          "accept-encoding",
                                          "accept-ranges",
                                          "access-control-request-method",
                                          "age",
                                          "allow",
                                          "authentication-info",
                                          "authorization",
                                          "cache-control",
                                          "cdn-loop",
                                          "connection",
                                          "cookie",
                                          "date",
                                          "expect",
                                          "expires",
                                          "forwarded",
                                          "host",
                                          "http2-settings",
                                          "if-match",
                                          "if-modified-since",
                                          "if-none-match",
                                          "if-range",
                                          "if-unmodified-since",
                                          "keep-alive",
                                          "last-modified",
                                          "location",
                                          "max-forwards",
                                          "origin",
                                          "pragma",
                                          "proxy",
                                          "proxy-authenticate",
                                          "proxy-authentication-info",
                                          "proxy-authorization",
                                          "proxy-connection",
                                          "range",
                                          "referer",
                                          "retry-after",
                                          "server",
                                          "set-cookie",
                                          "te",
                                          "trailer",
                                          "transfer-encoding",
                                          "upgrade",
                                          "user-agent",
                                          "vary",
                                          "via",
                                          "www-authenticate",
                                          "x-real-ip"};
    static const char *const families[] = {"content-", "sec-", "x-forwarded-"};
    uint8_t text[NAME_MAX_BYTES];
    struct ag_span plain = {text, ag_min_size(name.len, sizeof(text))};

    for (size_t i = 0; i < plain.len; i++) {
        text[i] = name.ptr[i] == '_' ? '-' : name.ptr[i]; /* as CGI merges them */
    }
    for (size_t i = 0; i < AG_COUNT(refused); i++) {
        if (same(plain, refused[i])) {
            return false;
        }
    }
    for (size_t i = 0; i < AG_COUNT(families); i++) {
        size_t len = strlen(families[i]);

        if (plain.len > len && same(cut(plain, 0, len), families[i])) {
            return false;
        }
    }
    return true;
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
        if (may_trail(field.name)) {
            put_line(&out->passed, field.name, field.value);
        }
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
                      const struct oracle_limits *limits, struct ag_buf body, struct ag_buf passed,
                      struct oracle_body *out)
{
    *out = (struct oracle_body){
        .verdict = ORACLE_OK, .statuses = ORACLE_400, .body = body, .passed = passed};
    if (head->chunked) {
        out->verdict = read_chunks(in, limits, out);
    } else if (head->has_length) {
        out->len = (size_t)ag_min_u64(head->length, in.len);
        ag_buf_put(&out->body, cut(in, 0, out->len));
        out->verdict = out->len < head->length ? ORACLE_MORE : ORACLE_OK;
    }
    AG_ASSERT(!out->body.overflow && !out->passed.overflow);
}
