#include "proto/h1_head.h"

#include "proto/field_names.h"
#include "proto/h1_scan.h"

#define BIT(id) AG_FIELD_BIT(id)

/* The answer to what is too long, but for a start line. */
#define LIMIT 431

/* What ag_h1_summarise looks at. */
#define SUMMARY_FIELDS                                                                     \
    (BIT(AG_FIELD_HOST) | BIT(AG_FIELD_CONTENT_LENGTH) | BIT(AG_FIELD_TRANSFER_ENCODING) | \
     BIT(AG_FIELD_CONNECTION) | BIT(AG_FIELD_EXPECT) | BIT(AG_FIELD_UPGRADE))

enum ag_status ag_h1_fail(struct ag_h1_parser *p, uint16_t status, const char *error)
{
    p->status = status;
    p->error = error;
    return AG_EPROTO;
}

/* The line that starts at p->at and has to end within `bound` bytes of `in`.
 *   more  whether the bound is the input's end, so that more bytes may help */
static inline enum ag_status find_line(struct ag_h1_parser *p, struct ag_span in, size_t bound,
                                       bool more, struct ag_span *out_line)
{
    const uint8_t *line = in.ptr + p->at, *end = in.ptr + bound;
    const uint8_t *stop;

    if (end - line >= 2 && line[0] == '\r' && line[1] == '\n') {
        *out_line = ag_span(line, 0);
        p->at += 2;
        p->scanned = 0;
        return AG_OK;
    }
    stop = ag_scan_ctl(in.ptr, line + p->scanned, end);
    if (ag_unlikely(stop < end && *stop != '\r')) {
        return ag_h1_fail(p, 400, *stop == '\n' ? "bare LF" : "control character");
    }
    if (ag_unlikely(end - stop < 2)) {
        p->scanned = (uint32_t)(stop - line);
        return more ? AG_AGAIN : ag_h1_fail(p, LIMIT, "line or head too long");
    }
    if (ag_unlikely(stop[1] != '\n')) {
        return ag_h1_fail(p, 400, "bare CR");
    }
    *out_line = ag_span(line, (size_t)(stop - line));
    p->at = (uint32_t)(stop + 2 - in.ptr);
    p->scanned = 0;
    return AG_OK;
}

enum ag_status ag_h1_start_line(struct ag_h1_parser *p, struct ag_span in,
                                const struct ag_h1_limits *limits, struct ag_span *out_line)
{
    AG_ASSERT(p->at <= in.len && p->scanned <= in.len - p->at);
    size_t max = ag_min_size(limits->line_max, limits->head_max);
    size_t avail = in.len - p->at;

    if (avail == 0) {
        return AG_AGAIN; /* the span may be NULL */
    }
    enum ag_status st = find_line(p, in, p->at + ag_min_size(avail, max), avail < max, out_line);
    if (st == AG_EPROTO && p->status == LIMIT) {
        p->status = 414;
    }
    return st;
}

/* Finds the words for a line that is no field line; `name` is what stands before its first colon,
 * or all of it. */
static AG_COLD enum ag_status bad_field(struct ag_h1_parser *p, struct ag_span line,
                                        struct ag_span name)
{
    if (line.ptr[0] == ' ' || line.ptr[0] == '\t') {
        return ag_h1_fail(p, 400, "folded field line");
    }
    if (name.len == line.len) {
        return ag_h1_fail(p, 400, "field line without a colon");
    }
    if (name.len == 0) {
        return ag_h1_fail(p, 400, "empty field name");
    }
    uint8_t last = name.ptr[name.len - 1];
    if (last == ' ' || last == '\t') {
        return ag_h1_fail(p, 400, "space before the colon");
    }
    return ag_h1_fail(p, 400, "invalid field name");
}

/* One field line of `in`, all of which the search for the colon may read 16 bytes at a time. */
static inline enum ag_status read_field(struct ag_h1_parser *p, struct ag_span line,
                                        struct ag_span in, bool trailers, struct ag_fields *out,
                                        struct ag_arena *arena)
{
    const uint8_t *end = line.ptr + line.len, *limit = in.ptr + in.len;
    const uint8_t *colon = ag_scan_byte(line.ptr, limit, ':');

    if (ag_unlikely(colon >= end)) {
        return bad_field(p, line, line);
    }
    struct ag_span name = ag_span(line.ptr, (size_t)(colon - line.ptr));
    if (ag_unlikely(name.len > UINT16_MAX)) {
        return ag_h1_fail(p, LIMIT, "field name too long");
    }
    enum ag_field_id id = ag_field_id_from_name(name);
    if (id == AG_FIELD_OTHER && ag_unlikely(!ag_scan_is_token(name.ptr, name.len, limit))) {
        return bad_field(p, line, name);
    }
    if (trailers && !ag_head_may_trail(name)) {
        return AG_OK;
    }
    const uint8_t *value = colon + 1;
    while (value < end && ag_scan_is_ows(*value)) {
        value++;
    }
    while (end > value && ag_scan_is_ows(end[-1])) {
        end--;
    }
    return ag_head_add_field(out, arena,
                             &(struct ag_field){.name = name.ptr,
                                                .value = value,
                                                .value_len = (uint32_t)(end - value),
                                                .name_len = (uint16_t)name.len,
                                                .id = (uint8_t)id,
                                                .line = colon[1] == ' ' && end > value});
}

/* The name at `line`, up to the first colon. Returns its length; 0: it is none. That colon may be on a later line: then
 * there is CR in what would be a name. */
static inline size_t read_name(const uint8_t *line, const uint8_t *end, enum ag_field_id *out_id)
{
    size_t len;

#if AG_SCAN_SIMD
    if (ag_likely(end - line >= 16)) { /* short names: all by the first 16 bytes */
        ag_scan_vec v = ag_scan_load(line);
        uint64_t colons = ag_scan_bits(ag_scan_eq(v, ':')), before = (colons - 1) & ~colons;

        if (ag_likely(colons)) {
            len = (size_t)__builtin_ctzll(colons) / AG_SCAN_BITS;
            *out_id = len ? ag_field_candidate(line, len) : AG_FIELD_OTHER;
            if (ag_likely(*out_id != AG_FIELD_OTHER)) {
                ag_scan_vec known = ag_scan_load(ag_known_names[*out_id].text);
                ag_scan_vec differ = ag_scan_differ(ag_scan_fold(v), ag_scan_fold(known));

                if (ag_likely(!(ag_scan_bits(differ) & before))) {
                    return len;
                }
                *out_id = AG_FIELD_OTHER;
            }
            return ag_scan_is_token(line, len, end) ? len : 0;
        }
    }
#endif
    len = (size_t)(ag_scan_byte(line, end, ':') - line);
    *out_id = ag_field_id_from_name(ag_span(line, len));
    return len <= UINT16_MAX && (*out_id != AG_FIELD_OTHER || ag_scan_is_token(line, len, end))
               ? len
               : 0;
}

/* Field lines that are as nearly all are: whole, a name, one space, a value without space at its end. Returns where the
 * first one begins that is not, or has no room in `out`: it is to be looked at closer. */
static const uint8_t *read_plain_fields(const uint8_t *from, const uint8_t *line,
                                        const uint8_t *end, struct ag_fields *out, size_t max)
{
    struct ag_field *f = out->v + out->count, *last = out->v + ag_min_size(out->cap, max);

    for (; f < last && line < end && *line != '\r'; f++) {
        enum ag_field_id id;
        size_t len = read_name(line, end, &id);
        const uint8_t *colon = line + len, *stop;

        /* Both ends of the value are above SP: no space, no control. */
        if (len == 0 || end - colon < 4 || colon[1] != ' ' || colon[2] <= ' ') {
            break;
        }
        stop = ag_scan_ctl(from, colon + 2, end);
        if (end - stop < 2 || memcmp(stop, "\r\n", 2) != 0 || stop[-1] <= ' ') {
            break;
        }
        *f = (struct ag_field){.name = line,
                               .value = colon + 2,
                               .value_len = (uint32_t)(stop - colon - 2),
                               .name_len = (uint16_t)len,
                               .id = (uint8_t)id,
                               .line = true};
        line = stop + 2;
    }
    out->count = (uint16_t)(f - out->v);
    return line;
}

enum ag_status ag_h1_read_fields(struct ag_h1_parser *p, struct ag_span in,
                                 const struct ag_h1_limits *limits, bool trailers,
                                 struct ag_fields *out, struct ag_arena *arena)
{
    AG_ASSERT(p->at <= in.len && p->scanned <= in.len - p->at);
    bool more = in.len < limits->head_max;
    size_t bound = more ? in.len : limits->head_max;

    if (bound <= p->at) {
        return more ? AG_AGAIN : ag_h1_fail(p, LIMIT, "line or head too long");
    }
    for (;;) {
        struct ag_span line;
        enum ag_status st;

        /* Not what has been looked at before: it is not to be walked again each time that one more byte comes. */
        if (!trailers && p->scanned == 0 && out->count < out->cap) {
            const uint8_t *next =
                read_plain_fields(in.ptr, in.ptr + p->at, in.ptr + bound, out, limits->field_max);
            p->at = (uint32_t)(next - in.ptr);
        }
        st = find_line(p, in, bound, more, &line);
        if (st != AG_OK || line.len == 0) {
            return st;
        }
        if (out->count >= limits->field_max) {
            return ag_h1_fail(p, LIMIT, "too many fields");
        }
        st = read_field(p, line, in, trailers, out, arena);
        if (st != AG_OK) {
            return st;
        }
    }
}

static void read_connection(struct ag_span value, struct ag_h1_summary *s)
{
    struct ag_span option;
    size_t at = 0;

    if (ag_span_eq(value, AG_SPAN("keep-alive"))) {
        s->keep_alive = true; /* what most send: spares the walk */
        return;
    }
    while (ag_list_next(value, &at, &option)) {
        s->close |= ag_span_ieq(option, AG_SPAN("close"));
        s->keep_alive |= ag_span_ieq(option, AG_SPAN("keep-alive"));
        s->upgrade_option |= ag_span_ieq(option, AG_SPAN("upgrade"));
    }
}

static void summarise_field(struct ag_field *f, struct ag_h1_summary *s)
{
    if (f->id == AG_FIELD_HOST) {
        s->host = s->host_count++ ? s->host : f;
    } else if (f->id == AG_FIELD_CONTENT_LENGTH) {
        s->length = s->length_count++ ? s->length : f;
    } else if (f->id == AG_FIELD_TRANSFER_ENCODING) {
        s->coding = s->coding_count++ ? s->coding : f;
    } else if (f->id == AG_FIELD_CONNECTION) {
        read_connection(ag_field_value(f), s);
    } else if (f->id == AG_FIELD_UPGRADE) {
        s->upgrade_field = true;
    } else if (ag_span_ieq(ag_field_value(f), AG_SPAN("100-continue"))) {
        s->expect_continue = true;
    } else {
        s->expect_other = true;
    }
}

void ag_h1_summarise(const struct ag_fields *fields, struct ag_h1_summary *out)
{
    memset(out, 0, sizeof(*out));
    for (size_t i = 0; i < fields->count; i++) {
        if (BIT(fields->v[i].id) & SUMMARY_FIELDS) {
            summarise_field(&fields->v[i], out);
        }
    }
}

enum ag_status ag_h1_check_framing(struct ag_h1_parser *p, const struct ag_h1_summary *s,
                                   enum ag_http_version version, uint64_t *out_length,
                                   bool *out_chunked)
{
    uint64_t length = AG_LENGTH_UNKNOWN;

    if (s->length_count > 1 ||
        (s->length && !ag_head_read_length(ag_field_value(s->length), &length))) {
        return ag_h1_fail(p, 400, "invalid Content-Length");
    }
    if (s->coding) {
        struct ag_span coding = ag_field_value(s->coding);
        if (s->length) {
            return ag_h1_fail(p, 400, "Content-Length beside Transfer-Encoding");
        }
        if (version < AG_HTTP_11) {
            return ag_h1_fail(p, 400, "Transfer-Encoding in HTTP/1.0");
        }
        if (s->coding_count > 1 || !ag_is_token(coding)) {
            return ag_h1_fail(p, 400, "invalid Transfer-Encoding");
        }
        if (!ag_span_ieq(coding, AG_SPAN("chunked"))) {
            return ag_h1_fail(p, 501, "unknown transfer coding");
        }
    }
    *out_length = length;
    *out_chunked = s->coding != NULL;
    return AG_OK;
}
