#include "tests/sim/message.h"

static void bad(struct message *m, const char *why)
{
    m->state = MESSAGE_BAD;
    m->error = why;
}

void message_begin(struct message *m, struct sim *s, bool request, bool to_head)
{
    uint8_t *head = m->head;

    *m = (struct message){.sim = s, .request = request, .to_head = to_head};
    m->head = head ? head : sim_alloc_raw(s, MESSAGE_HEAD_MAX);
}

static bool is_tchar(uint8_t ch)
{
    return (ch >= '0' && ch <= '9') || (ch >= 'A' && ch <= 'Z') || (ch >= 'a' && ch <= 'z') ||
           (ch && strchr("!#$%&'*+-.^_`|~", ch));
}

struct ag_span message_field(const struct message *m, const char *name, unsigned *out_count)
{
    struct ag_span found = AG_SPAN("");

    *out_count = 0;
    for (unsigned i = 0; i < m->field_count; i++) {
        if (ag_span_ieq(m->fields[i].name, ag_span_str(name))) {
            found = m->fields[i].value;
            ++*out_count;
        }
    }
    return found;
}

uint64_t message_number(struct ag_span s)
{
    uint64_t n = 0;

    if (s.len == 0 || s.len > 18) {
        return UINT64_MAX;
    }
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] < '0' || s.ptr[i] > '9') {
            return UINT64_MAX;
        }
        n = n * 10 + (s.ptr[i] - '0');
    }
    return n;
}

/* ---- heads ---- */

/* "name: value"; false: malformed. */
static bool parse_field(struct message *m, struct ag_span line)
{
    size_t colon = 0;

    while (colon < line.len && is_tchar(line.ptr[colon])) {
        colon++;
    }
    if (colon == 0 || colon == line.len || line.ptr[colon] != ':' ||
        m->field_count == MESSAGE_FIELDS_MAX) {
        return false;
    }
    struct ag_span value = ag_span_sub(line, colon + 1, line.len);
    while (value.len && (value.ptr[0] == ' ' || value.ptr[0] == '\t')) {
        value = ag_span_sub(value, 1, value.len);
    }
    while (value.len && (value.ptr[value.len - 1] == ' ' || value.ptr[value.len - 1] == '\t')) {
        value.len--;
    }
    for (size_t i = 0; i < value.len; i++) {
        if ((value.ptr[i] < 0x20 && value.ptr[i] != '\t') || value.ptr[i] == 0x7f) {
            return false;
        }
    }
    m->fields[m->field_count++] = (struct message_field){ag_span_sub(line, 0, colon), value};
    return true;
}

static bool parse_version(struct message *m, struct ag_span v)
{
    m->version_10 = ag_span_eq(v, AG_SPAN("HTTP/1.0"));
    return m->version_10 || ag_span_eq(v, AG_SPAN("HTTP/1.1"));
}

static bool parse_request_line(struct message *m, struct ag_span line)
{
    size_t a = 0, b;

    while (a < line.len && is_tchar(line.ptr[a])) {
        a++;
    }
    if (a == 0 || a == line.len || line.ptr[a] != ' ') {
        return false;
    }
    for (b = a + 1; b < line.len && line.ptr[b] > 0x20 && line.ptr[b] < 0x7f; b++) {
    }
    if (b == a + 1 || b == line.len || line.ptr[b] != ' ') {
        return false;
    }
    m->method = ag_span_sub(line, 0, a);
    m->target = ag_span_sub(line, a + 1, b);
    return parse_version(m, ag_span_sub(line, b + 1, line.len));
}

static bool parse_status_line(struct message *m, struct ag_span line)
{
    uint64_t status;

    if (line.len < 13 || line.ptr[8] != ' ' || line.ptr[12] != ' ' ||
        !parse_version(m, ag_span_sub(line, 0, 8))) {
        return false;
    }
    status = message_number(ag_span_sub(line, 9, 12));
    m->status = (unsigned)status;
    return status >= 100 && status <= 599;
}

static bool has_token(struct message *m, const char *name, const char *token)
{
    unsigned count;
    struct ag_span v = message_field(m, name, &count);
    size_t len = strlen(token);

    for (size_t i = 0; i + len <= v.len; i++) {
        if (ag_span_ieq(ag_span_sub(v, i, i + len), ag_span_str(token))) {
            return true;
        }
    }
    return false;
}

/* RFC 9112 section 6.3, with no choices left. */
static void frame(struct message *m)
{
    unsigned te, cl;
    struct ag_span coding = message_field(m, "transfer-encoding", &te);
    uint64_t length = message_number(message_field(m, "content-length", &cl));
    /* 408: nobody knew the method yet. */
    bool no_body = m->to_head && m->status != 408;

    m->keep_alive = m->version_10 ? has_token(m, "connection", "keep-alive")
                                  : !has_token(m, "connection", "close");
    if (te > 1 || cl > 1 || (te && cl) || (cl && length == UINT64_MAX) ||
        (te && !ag_span_ieq(coding, AG_SPAN("chunked"))) || (te && m->version_10)) {
        bad(m, "ambiguous framing");
    } else if (m->request ? !te && !cl
                          : no_body || m->status < 200 || m->status == 204 || m->status == 304) {
        m->state = MESSAGE_DONE;
    } else if (te) {
        m->chunked = true;
        m->state = MESSAGE_CHUNK_SIZE;
    } else if (cl) {
        m->left = length;
        m->state = length ? MESSAGE_BODY : MESSAGE_DONE;
    } else {
        m->close_delimited = true;
        m->keep_alive = false;
        m->left = UINT64_MAX;
        m->state = MESSAGE_BODY;
    }
}

static void parse_head(struct message *m)
{
    struct ag_span head = ag_span(m->head, m->head_len - 2); /* without the empty line */
    bool first = true;

    m->head_seen = true;
    while (head.len > 0) {
        size_t end = 0;

        while (head.ptr[end] != '\r') {
            if (head.ptr[end] == '\n' || head.ptr[end] == 0) {
                bad(m, "a control in a head");
                return;
            }
            end++;
        }
        if (end + 1 >= head.len || head.ptr[end + 1] != '\n') {
            bad(m, "a bare CR in a head");
            return;
        }
        struct ag_span line = ag_span_sub(head, 0, end);
        bool good = !first       ? parse_field(m, line)
                    : m->request ? parse_request_line(m, line)
                                 : parse_status_line(m, line);
        if (!good) {
            bad(m, first ? "a malformed start line" : "a malformed field");
            return;
        }
        first = false;
        head = ag_span_sub(head, end + 2, head.len);
    }
    frame(m);
}

/* ---- content ---- */

static void on_chunk_size(struct message *m)
{
    uint64_t size = 0;
    size_t digits = m->line_len - 2;

    if (digits == 0 || digits > 8) {
        bad(m, "a malformed chunk size");
        return;
    }
    for (size_t i = 0; i < digits; i++) {
        uint8_t ch = ag_ascii_lower(m->line[i]);
        unsigned digit = ch >= '0' && ch <= '9'   ? ch - 0u - '0'
                         : ch >= 'a' && ch <= 'f' ? ch - 'a' + 10u
                                                  : 16u;
        if (digit > 15) {
            bad(m, "a malformed chunk size");
            return;
        }
        size = size * 16 + digit;
    }
    m->left = size;
    m->state = size ? MESSAGE_CHUNK_DATA : MESSAGE_TRAILERS;
}

static void on_line(struct message *m)
{
    if (m->state == MESSAGE_CHUNK_SIZE) {
        on_chunk_size(m);
    } else if (m->state == MESSAGE_TRAILERS) {
        if (m->line_len == 2) {
            m->state = MESSAGE_DONE;
        }
    } else if (m->line_len != 2) {
        bad(m, "a chunk longer than its size");
    } else {
        m->state = MESSAGE_CHUNK_SIZE;
    }
    m->line_len = 0;
}

static void take_line_byte(struct message *m, uint8_t ch)
{
    if (m->line_len == sizeof(m->line)) {
        bad(m, "a line that is too long");
        return;
    }
    m->line[m->line_len++] = ch;
    if (ch == '\n') {
        if (m->line_len < 2 || m->line[m->line_len - 2] != '\r') {
            bad(m, "a bare LF");
        } else {
            on_line(m);
        }
    } else if (m->line_len > 1 && m->line[m->line_len - 2] == '\r') {
        bad(m, "a bare CR");
    }
}

static size_t take_content(struct message *m, struct ag_span in, struct ag_span *out_body)
{
    size_t n = ag_min_u64(in.len, m->left);

    *out_body = ag_span_sub(in, 0, n);
    m->body_bytes += n;
    if (m->left != UINT64_MAX) {
        m->left -= n;
    }
    if (m->left == 0) {
        m->state = m->chunked ? MESSAGE_CHUNK_END : MESSAGE_DONE;
    }
    return n;
}

static bool head_ends(const struct message *m)
{
    return m->head_len >= 4 && memcmp(m->head + m->head_len - 4, "\r\n\r\n", 4) == 0;
}

size_t message_feed(struct message *m, struct ag_span in, struct ag_span *out_body)
{
    size_t used = 0;

    *out_body = AG_SPAN("");
    m->begun = m->begun || in.len > 0;
    while (used < in.len && m->state < MESSAGE_DONE) {
        if (m->state == MESSAGE_BODY || m->state == MESSAGE_CHUNK_DATA) {
            return used + take_content(m, ag_span_sub(in, used, in.len), out_body);
        }
        if (m->state != MESSAGE_HEAD) {
            take_line_byte(m, in.ptr[used++]);
        } else if (m->head_len == MESSAGE_HEAD_MAX) {
            bad(m, "a head that is too long");
        } else {
            m->head[m->head_len++] = in.ptr[used++];
            if (head_ends(m)) {
                parse_head(m);
                return used;
            }
        }
    }
    return used;
}

void message_end(struct message *m)
{
    if (m->state == MESSAGE_BODY && m->close_delimited) {
        m->state = MESSAGE_DONE;
    } else if (m->state < MESSAGE_DONE) {
        bad(m, "the connection ended within it");
    }
}
