#include "proto/h1_write.h"

#include "proto/date.h"
#include "proto/h2_fields.h"
#include "proto/head.h"

/* Bytes of a head beside names, values, reason, target and host: start line, framing, Connection,
 * TE, the empty line. Each is bounded, and their sum is less. */
#define FIXED_BYTES 256u
/* ": " and CRLF */
#define FIELD_EXTRA 4u

/* Where a head goes: into one reservation, or piece by piece when it is too long for that. */
struct writer {
    uint8_t *at; /* NULL: by ag_stream_put */
    struct ag_stream *stream;
    enum ag_status status; /* the first failure of the stream; later pieces are not put */
};

static AG_COLD void put_piece(struct writer *w, struct ag_span s)
{
    if (w->status == AG_OK) {
        w->status = ag_stream_put(w->stream, s);
    }
}

/* Inlined: of text that is known here a few stores are left. */
static inline __attribute__((always_inline)) void put(struct writer *w, struct ag_span s)
{
    if (ag_unlikely(!w->at)) {
        put_piece(w, s);
        return;
    }
    w->at = ag_put(w->at, s);
}

static bool is_put(const struct ag_field *f, uint64_t left_out)
{
    return !f->removed && !(AG_FIELD_BIT(f->id) & left_out);
}

/* It lies as it is written, up to the end of its value. */
static bool is_line(const struct ag_field *f)
{
    return f->line && f->value == f->name + f->name_len + 2;
}

static inline void put_lines(struct writer *w, const uint8_t *from, const uint8_t *to)
{
    if (to != from) {
        put(w, ag_span(from, (size_t)(to - from)));
        put(w, AG_SPAN("\r\n"));
    }
}

/* Lines that lie behind each other, as most of a head that came over HTTP/1, are one piece. */
static void put_fields(struct writer *w, const struct ag_fields *fields, uint64_t left_out)
{
    static const uint8_t none[4];
    const struct ag_field *f = fields->v;
    const uint8_t *from = none, *to = none; /* lines that are to be put; equal: none */

    for (uint32_t left = fields->count; left > 0; left--, f++) {
        if (!is_put(f, left_out)) {
            continue;
        }
        if (is_line(f)) {
            if (f->name != to + 2) {
                put_lines(w, from, to);
                from = f->name;
            }
            to = f->value + f->value_len;
        } else {
            put_lines(w, from, to);
            from = to;
            put(w, ag_field_key(f));
            put(w, AG_SPAN(": "));
            put(w, ag_field_value(f));
            put(w, AG_SPAN("\r\n"));
        }
    }
    put_lines(w, from, to);
}

/* At least what put_fields writes. */
static size_t fields_max(const struct ag_fields *fields)
{
    size_t sum = 0;

    for (size_t i = 0; i < fields->count; i++) {
        sum += (size_t)fields->v[i].name_len + fields->v[i].value_len + FIELD_EXTRA;
    }
    return sum;
}

static void put_length(struct writer *w, uint64_t length)
{
    uint8_t digits[20]; /* of 64 bits */
    size_t at = sizeof(digits);

    do {
        digits[--at] = (uint8_t)('0' + length % 10);
        length /= 10;
    } while (length);
    put(w, AG_SPAN("Content-Length: "));
    put(w, ag_span(digits + at, sizeof(digits) - at));
    put(w, AG_SPAN("\r\n"));
}

/* Of a "Connection" line that lists those options that are told. */
static inline __attribute__((always_inline)) void put_option(struct writer *w, bool told,
                                                             struct ag_span name, bool *io_any)
{
    if (told) {
        put(w, *io_any ? AG_SPAN(", ") : AG_SPAN("Connection: "));
        put(w, name);
        *io_any = true;
    }
}

/* Opens a reservation when `max` bytes fit one. */
static enum ag_status begin(struct writer *w, struct ag_stream *s, size_t max, uint8_t **out_start)
{
    *w = (struct writer){NULL, s, AG_OK};
    *out_start = NULL;
    if (max <= AG_BUF_SMALL_BYTES) {
        *out_start = w->at = ag_stream_reserve(s, max);
        return w->at ? AG_OK : AG_ENOMEM;
    }
    return AG_OK;
}

static enum ag_status end(struct writer *w, const uint8_t *start, size_t max)
{
    if (start) {
        size_t written = (size_t)(w->at - start);
        AG_ASSERT(written <= max);
        ag_stream_commit(w->stream, written);
    }
    return w->status;
}

void ag_date_renew(struct ag_date_cache *d, int64_t wall_s)
{
    memcpy(d->line, "Date: ", 6);
    ag_date_format(wall_s, d->line + 6);
    memcpy(d->line + 6 + AG_DATE_LEN, "\r\n", 2);
    d->second = wall_s;
}

struct ag_span ag_date_value(struct ag_date_cache *d, int64_t wall_s)
{
    return ag_span_sub(ag_date_line(d, wall_s), 6, 6 + AG_DATE_LEN);
}

struct ag_span ag_date_h2(struct ag_date_cache *d, int64_t wall_s)
{
    if (d->h2_second != wall_s || d->h2_len == 0) {
        struct ag_buf b = ag_buf(d->h2, sizeof(d->h2));

        ag_h2_prepare_date(&b, ag_date_value(d, wall_s));
        AG_ASSERT(!b.overflow);
        d->h2_len = (uint8_t)b.len;
        d->h2_second = wall_s;
    }
    return ag_span(d->h2, d->h2_len);
}
_Static_assert(sizeof(((struct ag_date_cache *)0)->h2) == AG_H2_DATE_BYTES, "the longest date");
_Static_assert(sizeof(((struct ag_date_cache *)0)->line) == 6 + AG_DATE_LEN + 2, "a whole line");

static void put_status_line(struct writer *w, unsigned status, struct ag_span reason)
{
    uint8_t start[] = "HTTP/1.1 000 ";

    AG_ASSERT(status >= 100 && status <= 999);
    start[9] = (uint8_t)('0' + status / 100);
    start[10] = (uint8_t)('0' + status / 10 % 10);
    start[11] = (uint8_t)('0' + status % 10);
    put(w, ag_span(start, sizeof(start) - 1));
    put(w, reason);
    put(w, AG_SPAN("\r\n"));
}

static void put_response_framing(struct writer *w, const struct ag_response *res)
{
    AG_ASSERT(res->framing != AG_FRAMING_H2); /* the caller says what it becomes in HTTP/1 */
    if (res->framing == AG_FRAMING_CHUNKED && res->status >= 200 && res->status != 204) {
        put(w, AG_SPAN("Transfer-Encoding: chunked\r\n")); /* RFC 9112 section 6.1 */
    } else if (ag_head_tells_length(res)) {
        put_length(w, res->content_length);
    }
}

enum ag_status ag_h1_write_response(struct ag_stream *s, const struct ag_response *res,
                                    const struct ag_h1_response_opts *opts)
{
    struct ag_span reason = res->reason.len ? res->reason : ag_status_phrase(res->status);
    size_t max = FIXED_BYTES + reason.len + opts->date_line.len + fields_max(&res->fields);
    struct writer w;
    uint8_t *start;
    bool any = false;

    if (begin(&w, s, max, &start) != AG_OK) {
        return AG_ENOMEM;
    }
    put_status_line(&w, res->status, reason);
    put_fields(&w, &res->fields,
               opts->upgrade ? AG_CONNECTION_FIELDS & ~AG_FIELD_BIT(AG_FIELD_UPGRADE)
                             : AG_CONNECTION_FIELDS);
    put_response_framing(&w, res);
    put(&w, opts->date_line);
    put_option(&w, opts->upgrade, AG_SPAN("Upgrade"), &any);
    put_option(&w, opts->close, AG_SPAN("close"), &any);
    put_option(&w, opts->keep_alive_10, AG_SPAN("keep-alive"), &any);
    put(&w, any ? AG_SPAN("\r\n\r\n") : AG_SPAN("\r\n"));
    return end(&w, start, max);
}

static void put_request_framing(struct writer *w, const struct ag_request *req)
{
    /* A request never ends by closing, and what came as frames gets its framing from the caller. */
    AG_ASSERT(req->framing != AG_FRAMING_CLOSE && req->framing != AG_FRAMING_H2);
    if (req->framing == AG_FRAMING_CHUNKED) {
        put(w, AG_SPAN("Transfer-Encoding: chunked\r\n"));
    } else if (req->framing == AG_FRAMING_LENGTH) {
        AG_ASSERT(req->content_length != AG_LENGTH_UNKNOWN);
        put_length(w, req->content_length);
    }
}

enum ag_status ag_h1_write_request(struct ag_stream *s, const struct ag_request *req,
                                   const struct ag_h1_request_opts *opts)
{
    size_t max = FIXED_BYTES + req->method_name.len + opts->target.len + opts->host.len +
                 fields_max(&req->fields);
    uint64_t left_out = AG_CONNECTION_FIELDS | AG_FIELD_BIT(AG_FIELD_HOST);
    struct writer w;
    uint8_t *start;
    bool any = false;

    if (begin(&w, s, max, &start) != AG_OK) {
        return AG_ENOMEM;
    }
    put(&w, req->method_name);
    put(&w, AG_SPAN(" "));
    put(&w, opts->target);
    put(&w, AG_SPAN(" HTTP/1.1\r\nHost: "));
    put(&w, opts->host);
    put(&w, AG_SPAN("\r\n"));
    put_fields(&w, &req->fields,
               opts->upgrade ? left_out & ~AG_FIELD_BIT(AG_FIELD_UPGRADE) : left_out);
    put_request_framing(&w, req);
    put_option(&w, opts->upgrade, AG_SPAN("Upgrade"), &any);
    put_option(&w, opts->close, AG_SPAN("close"), &any);
    /* RFC 9110 section 10.1.4: TE is for the next hop only, and must be named as such. */
    put_option(&w, opts->te_trailers, AG_SPAN("TE"), &any);
    if (opts->te_trailers) {
        put(&w, AG_SPAN("\r\nTE: trailers"));
    }
    put(&w, any ? AG_SPAN("\r\n\r\n") : AG_SPAN("\r\n"));
    return end(&w, start, max);
}

enum ag_status ag_h1_write_last_chunk(struct ag_stream *s, const struct ag_fields *trailers)
{
    static const struct ag_fields none = {NULL, 0, 0};
    const struct ag_fields *fields = trailers ? trailers : &none;
    size_t max = FIXED_BYTES + fields_max(fields);
    struct writer w;
    uint8_t *start;

    if (begin(&w, s, max, &start) != AG_OK) {
        return AG_ENOMEM;
    }
    put(&w, AG_SPAN("0\r\n"));
    put_fields(&w, fields, AG_CONNECTION_FIELDS | AG_FIELD_BIT(AG_FIELD_HOST));
    put(&w, AG_SPAN("\r\n"));
    return end(&w, start, max);
}
