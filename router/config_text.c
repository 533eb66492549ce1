#include "engine/utf8.h"
#include "router/config_impl.h"

struct ag_source *ag_config_source(struct ag_arena *arena, const char *name, struct ag_span text)
{
    struct ag_source *src = ag_arena_zalloc(arena, sizeof(*src));

    src->name = name;
    src->text = text;
    return src;
}

struct ag_node *ag_config_child(struct ag_node *n, const char *key)
{
    struct ag_span want = ag_span_str(key);

    for (struct ag_node *c = n->first; c; c = c->next) {
        if (!c->dsl && ag_span_eq(c->key, want)) {
            return c;
        }
    }
    return NULL;
}

/* What YAML calls printable; CR only as half of a line end. */
static bool is_allowed(struct ag_span text, size_t at, uint32_t cp)
{
    if (cp < 0x20) {
        return cp == '\t' || cp == '\n' ||
               (cp == '\r' && at + 1 < text.len && text.ptr[at + 1] == '\n');
    }
    return cp != 0x7f && !(cp >= 0x80 && cp < 0xa0 && cp != 0x85) && cp != 0xfeff && cp != 0xfffe &&
           cp != 0xffff;
}

static bool refuse_byte(const struct ag_source *src, struct ag_diags *diags, struct ag_pos pos,
                        size_t at, bool malformed)
{
    uint8_t first = src->text.ptr[0];

    if (malformed && at == 0 && (first == 0xff || first == 0xfe)) {
        ag_diag_error(diags, pos, "save the file as UTF-8", "the file is UTF-16");
    } else if (malformed) {
        ag_diag_error(diags, pos, "save the file as UTF-8", "byte 0x%02x is not UTF-8",
                      src->text.ptr[at]);
    } else if (src->text.ptr[at] == '\r') {
        ag_diag_error(diags, pos, "end lines with LF or CR LF", "a carriage return inside a line");
    } else {
        ag_diag_error(diags, pos, "remove it, or write it as an escape in a quoted string",
                      "a control character");
    }
    return false;
}

bool ag_config_check_text(const struct ag_source *src, struct ag_diags *diags)
{
    struct ag_span text = src->text;
    size_t line_at = 0;
    uint32_t line = 1;

    for (size_t at = 0; at < text.len;) {
        uint8_t ch = text.ptr[at];
        uint32_t cp = 0;
        size_t n = 1;

        if (ch == '\n') {
            line++;
            line_at = at + 1;
        } else if (ch < 0x20 || ch >= 0x7f) {
            n = ag_utf8_decode(ag_span_sub(text, at, text.len), &cp);
            if (n == 0 || !is_allowed(text, at, cp)) {
                struct ag_pos pos = {src, line, (uint32_t)(at - line_at + 1)};
                return refuse_byte(src, diags, pos, at, n == 0);
            }
        }
        at += n;
    }
    return true;
}

static int hex_value(uint8_t ch)
{
    if (ch >= '0' && ch <= '9') {
        return ch - '0';
    }
    ch |= 0x20;
    return ch >= 'a' && ch <= 'f' ? ch - 'a' + 10 : -1;
}

/* "\uXXXX" at s[at]; false when it is something else. */
static bool read_u16(struct ag_span s, size_t at, uint32_t *out)
{
    uint32_t value = 0;

    if (s.len - at < 6 || s.ptr[at] != '\\' || s.ptr[at + 1] != 'u') {
        return false;
    }
    for (size_t i = at + 2; i < at + 6; i++) {
        int digit = hex_value(s.ptr[i]);
        if (digit < 0) {
            return false;
        }
        value = value << 4 | (uint32_t)digit;
    }
    *out = value;
    return true;
}

/* The escape at s[at] (a backslash) into `out`; returns its bytes, 0 when it is not valid. */
static size_t read_escape(struct ag_span s, size_t at, struct ag_buf *out)
{
    static const char letters[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    uint32_t high = 0, low = 0;
    uint8_t bytes[4];

    if (s.len - at < 2) {
        return 0;
    }
    const char *letter = s.ptr[at + 1] ? strchr(letters, s.ptr[at + 1]) : NULL;
    if (letter) {
        ag_buf_putc(out, (uint8_t)values[letter - letters]);
        return 2;
    }
    if (!read_u16(s, at, &high)) {
        return 0;
    }
    size_t used = 6;
    if (high >= 0xd800 && high <= 0xdfff) {
        /* Characters beyond the BMP come as a pair; half of one stands for nothing. */
        if (high > 0xdbff || !read_u16(s, at + 6, &low) || low < 0xdc00 || low > 0xdfff) {
            return 0;
        }
        high = 0x10000 + ((high & 0x3ff) << 10) + (low & 0x3ff);
        used = 12;
    }
    ag_buf_put(out, ag_span(bytes, ag_utf8_encode(high, bytes)));
    return used;
}

bool ag_config_unescape(struct ag_arena *arena, struct ag_span raw, struct ag_span *out_text,
                        size_t *out_bad)
{
    size_t at = ag_span_find(raw, '\\');

    if (at == raw.len) {
        *out_text = raw;
        return true;
    }
    /* No escape is longer than what it is written as. */
    struct ag_buf b = ag_buf(ag_arena_alloc(arena, raw.len), raw.len);
    ag_buf_put(&b, ag_span_sub(raw, 0, at));
    while (at < raw.len) {
        if (raw.ptr[at] != '\\') {
            ag_buf_putc(&b, raw.ptr[at++]);
            continue;
        }
        size_t used = read_escape(raw, at, &b);
        if (used == 0) {
            *out_bad = at;
            return false;
        }
        at += used;
    }
    AG_ASSERT(!b.overflow);
    *out_text = ag_buf_span(&b);
    return true;
}
