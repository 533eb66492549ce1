#include "actions/static/static_rep.h"

#include <xxhash.h>

/* ---- names with content hashes ---- */

static bool is_digit(uint8_t ch)
{
    return ch >= '0' && ch <= '9';
}

static bool is_upper(uint8_t ch)
{
    return ch >= 'A' && ch <= 'Z';
}

static bool is_lower(uint8_t ch)
{
    return ch >= 'a' && ch <= 'z';
}

/* Lower-case hexadecimal, 8 to 64 digits, with figures and letters: a date is no hash, nor is a word. */
static bool is_hex_hash(struct ag_span s)
{
    bool digit = false, letter = false;

    for (size_t i = 0; i < s.len; i++) {
        uint8_t ch = s.ptr[i];
        if (!is_digit(ch) && !(ch >= 'a' && ch <= 'f')) {
            return false;
        }
        digit = digit || is_digit(ch);
        letter = letter || !is_digit(ch);
    }
    return s.len >= 8 && s.len <= 64 && digit && letter;
}

/* Eight characters of base64url with all of lower case, upper case and figures (Vite, Rollup). */
static bool is_base64_hash(struct ag_span s)
{
    bool digit = false, lower = false, upper = false;

    for (size_t i = 0; i < s.len; i++) {
        uint8_t ch = s.ptr[i];
        if (!is_digit(ch) && !is_upper(ch) && !is_lower(ch) && ch != '_' && ch != '-') {
            return false;
        }
        digit = digit || is_digit(ch);
        lower = lower || is_lower(ch);
        upper = upper || is_upper(ch);
    }
    return s.len == 8 && digit && lower && upper;
}

/* Eight characters of upper-case base32 (esbuild), for code alone: cameras name pictures like that. */
static bool is_base32_hash(struct ag_span s, struct ag_span extension)
{
    bool digit = false, letter = false;

    for (size_t i = 0; i < s.len; i++) {
        uint8_t ch = s.ptr[i];
        if (!is_upper(ch) && !(ch >= '2' && ch <= '7')) {
            return false;
        }
        digit = digit || is_digit(ch);
        letter = letter || is_upper(ch);
    }
    return s.len == 8 && digit && letter &&
           (ag_span_eq(extension, AG_SPAN("js")) || ag_span_eq(extension, AG_SPAN("css")));
}

/* What bundlers emit; a document with a number in its name is not among it. */
static bool is_asset(struct ag_span extension)
{
    static const char *const assets[] = {"js",  "mjs",  "css",  "map", "wasm", "woff", "woff2",
                                         "ttf", "otf",  "eot",  "svg", "png",  "jpg",  "jpeg",
                                         "gif", "webp", "avif", "ico", "mp4",  "webm", "mp3"};

    for (size_t i = 0; i < AG_COUNT(assets); i++) {
        if (ag_span_eq(extension, ag_span_str(assets[i]))) {
            return true;
        }
    }
    return false;
}

static struct ag_span last_segment(struct ag_span path)
{
    size_t from = path.len;

    while (from > 0 && path.ptr[from - 1] != '/') {
        from--;
    }
    return ag_span_sub(path, from, path.len);
}

bool ag_static_name_is_hashed(struct ag_span name)
{
    struct ag_span segment = last_segment(name), extension = ag_mime_extension(segment), stem;
    size_t from = 0;

    if (!is_asset(extension)) {
        return false;
    }
    stem = ag_span_sub(segment, 0, segment.len - extension.len - 1);
    for (size_t i = 0; i <= stem.len; i++) {
        if (i == stem.len || stem.ptr[i] == '.' || stem.ptr[i] == '-' || stem.ptr[i] == '_') {
            struct ag_span word = ag_span_sub(stem, from, i);
            if (is_hex_hash(word) || (i == stem.len && from && is_base32_hash(word, extension))) {
                return true;
            }
            from = i + 1;
        }
    }
    /* Vite's hash may itself hold '-' and '_', so it is counted from the end. */
    return stem.len > 9 && (stem.ptr[stem.len - 9] == '-' || stem.ptr[stem.len - 9] == '.') &&
           is_base64_hash(ag_span_sub(stem, stem.len - 8, stem.len));
}

static bool is_index(const struct ag_static_options *o, struct ag_span path)
{
    struct ag_span name = last_segment(path);

    for (uint16_t i = 0; i < o->index_count; i++) {
        if (ag_span_eq(o->index[i], name)) {
            return true;
        }
    }
    return false;
}

struct ag_span ag_static_cache_control(const struct ag_static_settings *s, struct ag_span path,
                                       bool fallback)
{
    const struct ag_static_options *o = &s->options;

    if (fallback) {
        return AG_SPAN("no-cache");
    }
    switch (o->cache_control) {
    case AG_STATIC_CC_AUTO:
        if (is_index(o, path)) {
            return AG_SPAN("no-cache");
        }
        return ag_static_name_is_hashed(path) ? AG_SPAN("public, max-age=31536000, immutable")
                                              : AG_SPAN("");
    case AG_STATIC_CC_OFF:
        return AG_SPAN("");
    case AG_STATIC_CC_VALUE:
        return o->cache_control_value;
    }
    AG_UNREACHABLE("no such preset");
}

/* ---- validators ---- */

void ag_static_etag_of_content(struct ag_buf *out, struct ag_span content)
{
    static const char hex[] = "0123456789abcdef";
    XXH128_canonical_t digest;

    XXH128_canonicalFromHash(&digest, XXH3_128bits(content.ptr, content.len));
    ag_buf_putc(out, '"');
    for (size_t i = 0; i < sizeof(digest.digest); i++) {
        ag_buf_putc(out, (uint8_t)hex[digest.digest[i] >> 4]);
        ag_buf_putc(out, (uint8_t)hex[digest.digest[i] & 15]);
    }
    ag_buf_putc(out, '"');
}

void ag_static_etag_of_stat(struct ag_buf *out, const struct ag_file_stat *st)
{
    ag_buf_put(out, AG_SPAN("W/\""));
    ag_buf_put_hex(out, (uint64_t)st->mtime_s * 1000000000u + st->mtime_ns);
    ag_buf_putc(out, '-');
    ag_buf_put_hex(out, st->size_bytes);
    ag_buf_putc(out, '-');
    ag_buf_put_hex(out, st->inode);
    ag_buf_putc(out, '"');
}

/* ---- answers ---- */

static struct ag_field field(enum ag_field_id id, struct ag_span value)
{
    struct ag_span name = ag_field_name(id);

    return (struct ag_field){.name = name.ptr,
                             .value = value.ptr,
                             .value_len = (uint32_t)value.len,
                             .name_len = (uint16_t)name.len,
                             .id = (uint8_t)id};
}

uint16_t ag_static_fields(const struct ag_static_rep *rep,
                          struct ag_field v[static AG_STATIC_FIELDS])
{
    uint16_t n = 0;

    v[n++] = field(AG_FIELD_CONTENT_TYPE, rep->type);
    v[n++] = field(AG_FIELD_ETAG, rep->validators.etag);
    v[n++] = field(AG_FIELD_LAST_MODIFIED, rep->last_modified);
    if (rep->cache_control.len) {
        v[n++] = field(AG_FIELD_CACHE_CONTROL, rep->cache_control);
    }
    v[n++] = field(AG_FIELD_ACCEPT_RANGES, AG_SPAN("bytes"));
    return n;
}

/* The cached file may be gone before the exchange is: what goes into the answer is copied. */
static bool add(struct ag_exchange *ex, enum ag_field_id id, struct ag_span value)
{
    struct ag_span copy = ag_arena_copy(&ex->arena, value);

    return copy.ptr && ag_exchange_field(ex, id, copy) == AG_OK;
}

static bool add_fields(struct ag_exchange *ex, const struct ag_static_rep *rep)
{
    struct ag_field v[AG_STATIC_FIELDS];
    uint16_t n = ag_static_fields(rep, v);
    bool ok = true;

    for (uint16_t i = 0; ok && i < n; i++) {
        /* A 304 says nothing of what the client has already (RFC 9110 section 15.4.5). */
        if (ex->res.status != 304 ||
            (v[i].id != AG_FIELD_CONTENT_TYPE && v[i].id != AG_FIELD_ACCEPT_RANGES)) {
            ok = add(ex, (enum ag_field_id)v[i].id, ag_field_value(&v[i]));
        }
    }
    return ok;
}

static bool add_content_range(struct ag_exchange *ex, uint64_t from, uint64_t len, uint64_t size)
{
    uint8_t text[AG_CONTENT_RANGE_MAX];
    struct ag_buf b = ag_buf(text, sizeof(text));

    ag_range_put_content_range(&b, from, len, size);
    return add(ex, AG_FIELD_CONTENT_RANGE, ag_buf_span(&b));
}

static bool no_memory(struct ag_exchange *ex)
{
    ag_exchange_fail(ex, 503, AG_REASON_RESOURCES, "no memory for the answer");
    return false;
}

/* Several parts: type and range of each are told in its head. */
static bool add_parts(struct ag_exchange *ex, const struct ag_static_rep *rep,
                      const struct ag_ranges *ranges, struct ag_static_content *out)
{
    uint8_t text[AG_MULTIPART_TYPE_LEN];
    struct ag_buf type = ag_buf(text, sizeof(text));
    struct ag_static_rep whole = *rep;

    if (ag_static_parts_begin(ex, ranges, rep->type, rep->size_bytes, out, &type) != AG_OK) {
        return false;
    }
    whole.type = ag_buf_span(&type);
    if (!add_fields(ex, &whole)) {
        ag_static_content_release(out);
        return false;
    }
    return true;
}

/* Sets status and framing, and which bytes follow. False: it is an error, and answered. */
static bool choose(struct ag_exchange *ex, const struct ag_static_rep *rep,
                   struct ag_static_content *out)
{
    enum ag_precondition cond = ag_conditional_check(&ex->req, &rep->validators);
    int64_t now_s = ex->context->loop->wall_s;
    struct ag_ranges ranges;
    struct ag_span range;

    ex->res.framing = AG_FRAMING_LENGTH;
    *out = (struct ag_static_content){0};
    if (cond == AG_PRECONDITION_NOT_MODIFIED) {
        ex->res.status = 304;
        ex->res.framing = AG_FRAMING_NONE;
        return add_fields(ex, rep) || no_memory(ex);
    }
    if (cond == AG_PRECONDITION_FAILED) {
        ag_exchange_fail(ex, 412, AG_REASON_NONE, "the file is not as the request has it");
        return false;
    }
    range = ag_conditional_range(&ex->req, &rep->validators, now_s);
    switch (range.len ? ag_range_parse(range, rep->size_bytes, &ranges) : AG_RANGE_WHOLE) {
    case AG_RANGE_UNSATISFIABLE:
        if (!add_content_range(ex, 0, 0, rep->size_bytes)) {
            return no_memory(ex);
        }
        ag_exchange_fail(ex, 416, AG_REASON_NONE, "the file ends before the range");
        return false;
    case AG_RANGE_PART:
        ex->res.status = 206;
        if (ranges.count > 1) {
            return add_parts(ex, rep, &ranges, out) || no_memory(ex);
        }
        out->from = ranges.v[0].from;
        out->left = ranges.v[0].len;
        return (add_content_range(ex, out->from, out->left, rep->size_bytes) &&
                add_fields(ex, rep)) ||
               no_memory(ex);
    case AG_RANGE_WHOLE:
        ex->res.status = 200;
        out->left = rep->size_bytes;
        return add_fields(ex, rep) || no_memory(ex);
    }
    AG_UNREACHABLE("no such result");
}

bool ag_static_respond(struct ag_exchange *ex, const struct ag_static_rep *rep,
                       struct ag_static_content *out)
{
    if (!choose(ex, rep, out)) {
        return false;
    }
    ex->res.content_length = ag_static_content_bytes(out);
    /* Of HEAD no range is looked at (RFC 9110 section 14.2): there are no parts to release. */
    if (ex->res.content_length == 0 || ex->req.method == AG_METHOD_HEAD) {
        ag_body_end(&ex->res_body, NULL);
        ag_exchange_respond(ex);
        return false;
    }
    ag_exchange_respond(ex);
    return true;
}
