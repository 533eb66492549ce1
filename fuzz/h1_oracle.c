#include "fuzz/h1_oracle_text.h"

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
    if (!oracle_read_target(h)) {
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

/* The fields as they are to be handed on. */
static void list_fields(const struct field *f, size_t n, struct oracle_head *h)
{
    for (size_t i = 0; i < n; i++) {
        const struct ag_span accept =
            same(f[i].name, "accept") ? f[i].value : (struct ag_span){NULL, 0};

        put_line(&h->fields, f[i].name, same(f[i].name, "host") ? h->authority : f[i].value);
        for (size_t k = 0; k + 4 <= accept.len; k++) {
            h->json |= same(cut(accept, k, k + 4), "json");
        }
    }
    AG_ASSERT(!h->fields.overflow);
}

static void split_authority(struct oracle_head *h)
{
    size_t end = h->authority.len;

    h->host = h->authority;
    while (end > 0 && is_digit(h->authority.ptr[end - 1])) {
        end--;
    }
    /* An address in brackets ends with one. */
    if (end > 0 && end < h->authority.len && h->authority.ptr[end - 1] == ':') {
        h->host.len = end - 1;
        for (size_t i = end; i < h->authority.len; i++) {
            h->port = h->port * 10 + (unsigned)(h->authority.ptr[i] - '0');
        }
    }
}

/* What the fields say together. */
static void read_meaning(const struct field *f, size_t n, struct oracle_head *h)
{
    struct ag_span host = {NULL, 0}, unused;
    unsigned hosts = count(f, n, "host", &host);
    bool port;

    if (hosts > 1 || (hosts == 0 && !h->http10) || (hosts && !oracle_read_authority(host, &port))) {
        refuse(h, ORACLE_400);
    }
    if (!h->authority.len) {
        h->authority = host;
    }
    split_authority(h);
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
    if (h->secured) { /* nothing here is secured (RFC 9110 7.4) */
        refuse(h, ORACLE_421);
    }
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
                      struct ag_buf fields, struct oracle_head *out)
{
    size_t line_max = ag_min_size(limits->line_max, limits->head_max), at = 0, n = 0;
    struct field list[FIELDS_MAX];
    struct ag_span line;

    AG_ASSERT(limits->field_max <= FIELDS_MAX);
    *out = (struct oracle_head){.verdict = ORACLE_OK, .path = path, .fields = fields};
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
        } else if (!read_field(line, &list[n++])) {
            refuse(out, ORACLE_400);
        }
    }
    if (out->verdict == ORACLE_OK) {
        out->head_len = at;
        read_meaning(list, n, out);
    }
    if (out->verdict == ORACLE_OK) {
        list_fields(list, n, out);
    }
}
