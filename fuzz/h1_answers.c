#include "fuzz/h1_answers.h"

/* What a head says. */
struct head {
    unsigned status;
    unsigned dates, lengths, codings, connections;
    bool close, keep_alive, upgrade, chunked, upgrade_field;
    size_t length;
};

static bool is_token(struct ag_span s)
{
    for (size_t i = 0; i < s.len; i++) {
        uint8_t ch = s.ptr[i];
        bool alnum =
            (ch >= '0' && ch <= '9') || (ch >= 'A' && ch <= 'Z') || (ch >= 'a' && ch <= 'z');

        if (!alnum && (ch == 0 || !strchr("!#$%&'*+-.^_`|~", ch))) {
            return false;
        }
    }
    return s.len > 0;
}

static bool is_text(struct ag_span s)
{
    for (size_t i = 0; i < s.len; i++) {
        if ((s.ptr[i] < ' ' && s.ptr[i] != '\t') || s.ptr[i] == 0x7f) {
            return false;
        }
    }
    return true;
}

/* The line at *at, without its CRLF; false: it is not all there. */
static bool next_line(struct ag_span in, size_t *at, struct ag_span *out)
{
    for (size_t i = *at; i + 1 < in.len; i++) {
        if (in.ptr[i] == '\r' && in.ptr[i + 1] == '\n') {
            *out = ag_span_sub(in, *at, i);
            AG_ASSERT(is_text(*out));
            *at = i + 2;
            return true;
        }
    }
    return false;
}

/* "name: value", with one space and no other around. */
static void split(struct ag_span line, struct ag_span *name, struct ag_span *value)
{
    size_t colon = ag_span_find(line, ':');

    AG_ASSERT(colon < line.len);
    *name = ag_span_sub(line, 0, colon);
    *value = ag_span_sub(line, colon + 1, line.len);
    AG_ASSERT(is_token(*name) && value->len > 0 && value->ptr[0] == ' ');
    *value = ag_span_sub(*value, 1, value->len);
    AG_ASSERT(ag_span_trim(*value).len == value->len);
}

/* Digits, without zeros before them. */
static size_t number(struct ag_span s, unsigned base)
{
    static const char digits[] = "0123456789abcdef";
    size_t value = 0;

    AG_ASSERT(s.len > 0 && s.len <= 8 && (s.len == 1 || s.ptr[0] != '0'));
    for (size_t i = 0; i < s.len; i++) {
        const char *at = strchr(digits, ag_ascii_lower(s.ptr[i]));
        AG_ASSERT(at && at < digits + base);
        value = value * base + (size_t)(at - digits);
    }
    return value;
}

static void read_connection(struct ag_span value, struct head *h)
{
    AG_ASSERT(h->connections++ == 0);
    h->close = ag_span_eq(value, AG_SPAN("close"));
    h->keep_alive = ag_span_eq(value, AG_SPAN("keep-alive"));
    h->upgrade = ag_span_eq(value, AG_SPAN("Upgrade"));
    AG_ASSERT(h->close || h->keep_alive || h->upgrade);
}

static void read_field(struct ag_span line, struct head *h)
{
    struct ag_span name, value;

    split(line, &name, &value);
    if (ag_span_ieq(name, AG_SPAN("date"))) {
        h->dates++;
    } else if (ag_span_ieq(name, AG_SPAN("content-length"))) {
        h->lengths++;
        h->length = number(value, 10);
    } else if (ag_span_ieq(name, AG_SPAN("transfer-encoding"))) {
        h->codings++;
        h->chunked = ag_span_eq(value, AG_SPAN("chunked"));
    } else if (ag_span_ieq(name, AG_SPAN("connection"))) {
        read_connection(value, h);
    } else if (ag_span_ieq(name, AG_SPAN("upgrade"))) {
        h->upgrade_field = true;
    }
}

/* RFC 9110 6.6.1 and 8.6, RFC 9112 6.1 */
static void check_head(const struct head *h)
{
    bool interim = h->status < 200, dated = h->status >= 200 && h->status < 500;

    AG_ASSERT(h->lengths + h->codings <= (!interim && h->status != 204));
    AG_ASSERT(h->chunked == (h->codings == 1));
    AG_ASSERT(h->dates <= 1 && (h->dates == 1 || !dated));
    AG_ASSERT(h->upgrade == (h->status == 101) && h->upgrade_field >= h->upgrade);
    AG_ASSERT(!interim || (!h->close && !h->keep_alive));
}

/* False: the head is not all there. */
static bool read_head(struct ag_span in, size_t *at, struct head *h)
{
    struct ag_span line;

    *h = (struct head){0};
    if (!next_line(in, at, &line)) {
        return false;
    }
    AG_ASSERT(line.len >= 13 && memcmp(line.ptr, "HTTP/1.1 ", 9) == 0 && line.ptr[12] == ' ');
    h->status = (unsigned)number(ag_span_sub(line, 9, 12), 10);
    while (next_line(in, at, &line)) {
        if (line.len == 0) {
            check_head(h);
            return true;
        }
        read_field(line, h);
    }
    return false;
}

/* Appends up to `len` bytes of the input to the body; false: they are not all there. */
static bool take(struct ag_span in, size_t *at, size_t len, uint8_t *body, struct answer *out)
{
    size_t n = ag_min_size(len, in.len - *at);

    if (n) {
        memcpy(body + out->body.len, in.ptr + *at, n);
    }
    out->body.len += n;
    *at += n;
    return n == len;
}

static bool read_chunks(struct ag_span in, size_t *at, uint8_t *body, struct answer *out)
{
    struct ag_span line, name, value;

    for (;;) {
        if (!next_line(in, at, &line)) {
            return false;
        }
        size_t len = number(line, 16);
        if (len == 0) {
            break;
        }
        if (!take(in, at, len, body, out) || in.len - *at < 2) {
            return false;
        }
        AG_ASSERT(in.ptr[*at] == '\r' && in.ptr[*at + 1] == '\n');
        *at += 2;
    }
    out->trailers_at = ag_span(in.ptr + *at, 0);
    for (;;) {
        if (!next_line(in, at, &line)) {
            return false;
        }
        if (line.len == 0) {
            return true;
        }
        split(line, &name, &value);
        out->trailers++;
        out->trailers_at.len = (size_t)(in.ptr + *at - out->trailers_at.ptr);
    }
}

unsigned answer_field(struct ag_span head, const char *name, struct ag_span *out_value)
{
    struct ag_span line, key, value;
    unsigned found = 0;
    size_t at = 0;

    *out_value = ag_span(NULL, 0);
    for (bool first = true; at < head.len && next_line(head, &at, &line); first = false) {
        if (!first) {
            split(line, &key, &value);
            if (ag_span_ieq(key, ag_span_str(name)) && found++ == 0) {
                *out_value = value;
            }
        }
    }
    return found;
}

size_t answer_read(struct ag_span in, bool head_request, bool ended, uint8_t *body,
                   struct answer *out)
{
    struct head h;
    size_t at = 0;

    *out = (struct answer){.body = {body, 0}};
    do {
        size_t start = at;

        if (!read_head(in, &at, &h)) {
            return at;
        }
        out->head = ag_span_sub(in, start, at - 2);
        if (h.status < 200 && h.status != 101) {
            out->interim++;
            out->continues += h.status == 100;
            out->hints = out->head;
        }
    } while (h.status < 200 && h.status != 101);
    out->has_length = h.lengths > 0;
    out->length = h.length;
    out->status = h.status;
    out->close = h.close;
    out->keep_alive = h.keep_alive;
    out->tunnel = h.status == 101;
    if (out->tunnel) {
        (void)take(in, &at, in.len - at, body, out);
        out->complete = ended;
    } else if (head_request || h.status == 204 || h.status == 304) {
        out->complete = true;
    } else if (h.chunked) {
        out->complete = read_chunks(in, &at, body, out);
    } else if (h.lengths) {
        out->complete = take(in, &at, h.length, body, out);
    } else {
        AG_ASSERT(out->close);
        out->until_close = true;
        (void)take(in, &at, in.len - at, body, out);
        out->complete = ended;
    }
    return at;
}
