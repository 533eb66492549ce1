#include "actions/param_text.h"

#include "actions/json_write.h"

/* The longest form of one byte: "&quot;", "\u00xx". */
#define ESCAPE_MAX 6u

static int find_param(const struct ag_action_build *b, struct ag_span name, bool splat)
{
    for (uint16_t i = 0; i < b->param_count; i++) {
        const struct ag_param_spec *p = &b->params[i];
        if (splat ? p->splat : ag_span_eq(p->name, name)) {
            return i;
        }
    }
    return -1;
}

/* What stands in the braces at `rest`: its parameter and length. False: plain text. */
static bool take_reference(struct ag_action_build *b, struct ag_pos pos, struct ag_span rest,
                           int *out_param, size_t *out_len)
{
    const struct ag_span splat = AG_SPAN("{splat}"), prefix = AG_SPAN("{param.");
    size_t end = ag_span_find(rest, '}');

    if (ag_span_starts(rest, splat)) {
        *out_len = splat.len;
        *out_param = find_param(b, ag_span(NULL, 0), true);
        if (*out_param < 0) {
            ag_diag_error(b->diags, pos, "end the pattern with a segment *",
                          "{splat} without a splat in the pattern");
        }
        return true;
    }
    if (!ag_span_starts(rest, prefix) || end == rest.len) {
        return false;
    }
    struct ag_span name = ag_span_sub(rest, prefix.len, end);
    *out_len = end + 1;
    *out_param = find_param(b, name, false);
    if (name.len == 0 || *out_param < 0) {
        *out_param = -1;
        ag_diag_error(b->diags, pos, "name a :segment of the pattern",
                      "the pattern has no parameter \"%.*s\"", (int)ag_min_size(name.len, 64),
                      (const char *)name.ptr);
    }
    return true;
}

static bool add_part(struct ag_param_text *t, struct ag_span literal, int param)
{
    if (param < 0 && literal.len == 0) {
        return true;
    }
    if (t->count == AG_PARAM_TEXT_PARTS_MAX) {
        return false;
    }
    t->v[t->count++] = (struct ag_template_part){literal, (int16_t)param};
    return true;
}

const struct ag_param_text *ag_param_text_compile(struct ag_action_build *b, struct ag_pos pos,
                                                  struct ag_span text)
{
    struct ag_param_text *t = ag_arena_zalloc(b->arena, sizeof(*t));
    size_t from = 0;
    bool fits = true;

    for (size_t at = 0; at < text.len && fits;) {
        int param;
        size_t len;
        if (text.ptr[at] != '{' ||
            !take_reference(b, ag_pos_at(pos, at), ag_span_sub(text, at, text.len), &param, &len)) {
            at++;
            continue;
        }
        if (param < 0) {
            return NULL;
        }
        fits = add_part(t, ag_span_sub(text, from, at), -1) && add_part(t, ag_span(NULL, 0), param);
        at += len;
        from = at;
    }
    if (!fits || !add_part(t, ag_span_sub(text, from, text.len), -1)) {
        ag_diag_error(b->diags, pos, NULL, "too many parameters in one text, at most 16");
        return NULL;
    }
    return t;
}

bool ag_param_text_literal(const struct ag_param_text *t, struct ag_span *out)
{
    if (t->count == 0) {
        *out = ag_span(NULL, 0);
        return true;
    }
    *out = t->v[0].literal;
    return t->count == 1 && t->v[0].param < 0;
}

static int hex_digit(uint8_t ch)
{
    if (ch >= '0' && ch <= '9') {
        return ch - '0';
    }
    ch |= 0x20;
    return ch >= 'a' && ch <= 'f' ? ch - 'a' + 10 : -1;
}

/* One byte of a percent-encoded value; not ag_path_decode: "%2F" is right in a text. */
static uint8_t next_byte(struct ag_span s, size_t *at)
{
    uint8_t ch = s.ptr[(*at)++];

    if (ch == '%' && s.len - *at >= 2) {
        int high = hex_digit(s.ptr[*at]), low = hex_digit(s.ptr[*at + 1]);
        if (high >= 0 && low >= 0) {
            *at += 2;
            return (uint8_t)(high << 4 | low);
        }
    }
    return ch;
}

static void put_html(struct ag_buf *out, uint8_t ch)
{
    switch (ch) {
    case '&':
        ag_buf_put(out, AG_SPAN("&amp;"));
        break;
    case '<':
        ag_buf_put(out, AG_SPAN("&lt;"));
        break;
    case '>':
        ag_buf_put(out, AG_SPAN("&gt;"));
        break;
    case '"':
        ag_buf_put(out, AG_SPAN("&quot;"));
        break;
    case '\'':
        ag_buf_put(out, AG_SPAN("&#39;"));
        break;
    case '\\': /* from here on for scripts in the page, whose strings it must not end or compute */
        ag_buf_put(out, AG_SPAN("&#92;"));
        break;
    case '`':
        ag_buf_put(out, AG_SPAN("&#96;"));
        break;
    case '$':
        ag_buf_put(out, AG_SPAN("&#36;"));
        break;
    default:
        ag_buf_putc(out, ch);
        break;
    }
}

/* Decoded bytes of up to a whole UTF-8 character at a time, so that the escape sees characters. */
static void put_json(struct ag_buf *out, struct ag_span value)
{
    const struct ag_span special = AG_SPAN("\"&'<>`$");
    size_t at = 0;

    while (at < value.len) {
        uint8_t raw[4], text[ESCAPE_MAX];
        size_t n = 0, look = at, used = 0;
        while (n < sizeof(raw) && look < value.len) {
            raw[n++] = next_byte(value, &look);
        }
        if (ag_span_find(special, raw[0]) < special.len) {
            ag_buf_put(out, AG_SPAN("\\u00"));
            ag_buf_put_hex(out, raw[0]); /* all have two digits */
            used = 1;
        } else {
            ag_buf_put(out, ag_span(text, ag_json_escape(ag_span(raw, n), &used, text)));
        }
        while (used-- > 0) {
            (void)next_byte(value, &at);
        }
    }
}

static void put_param(struct ag_buf *out, struct ag_span value, enum ag_param_escape how)
{
    if (how == AG_PARAM_RAW) {
        ag_buf_put(out, value);
        return;
    }
    if (how == AG_PARAM_JSON) {
        put_json(out, value);
        return;
    }
    for (size_t at = 0; at < value.len;) {
        uint8_t ch = next_byte(value, &at);
        if (how == AG_PARAM_HTML) {
            put_html(out, ch);
        } else {
            ag_buf_putc(out, ch);
        }
    }
}

void ag_param_text_expand(const struct ag_param_text *t, const struct ag_exchange *ex,
                          enum ag_param_escape how, struct ag_buf *out)
{
    for (uint16_t i = 0; i < t->count; i++) {
        if (t->v[i].param < 0) {
            ag_buf_put(out, t->v[i].literal);
        } else {
            put_param(out, ag_exchange_param(ex, (unsigned)t->v[i].param), how);
        }
    }
}

size_t ag_param_text_bound(const struct ag_param_text *t, const struct ag_exchange *ex,
                           enum ag_param_escape how)
{
    size_t n = 0, each = how == AG_PARAM_RAW || how == AG_PARAM_TEXT ? 1 : ESCAPE_MAX;

    for (uint16_t i = 0; i < t->count; i++) {
        n += t->v[i].param < 0 ? t->v[i].literal.len
                               : ag_exchange_param(ex, (unsigned)t->v[i].param).len * each;
    }
    return n;
}
