#include "actions/json_check.h"

#include "engine/utf8.h"

/*
 * What may come next. A value done inside an array or object leads to AFTER; which of the two it is
 * lies in the bit stack, one bit a level.
 */
enum want {
    WANT_VALUE,
    WANT_VALUE_OR_END, /* after '[' */
    WANT_KEY,
    WANT_KEY_OR_END, /* after '{' */
    WANT_AFTER,      /* ',' or the end of the container; at depth 0: nothing */
};

struct check {
    const uint8_t *p, *end;
    uint32_t depth;
    uint64_t in_object[AG_JSON_DEPTH_MAX / 64];
};

static void skip_space(struct check *c)
{
    while (c->p < c->end && (*c->p == ' ' || *c->p == '\t' || *c->p == '\n' || *c->p == '\r')) {
        c->p++;
    }
}

static bool is_hex(uint8_t ch)
{
    return (ch >= '0' && ch <= '9') || ((ch | 0x20) >= 'a' && (ch | 0x20) <= 'f');
}

static bool take_escape(struct check *c)
{
    uint8_t ch;

    if (c->p == c->end) {
        return false;
    }
    ch = *c->p++;
    if (ch != 'u') {
        return ch && strchr("\"\\/bfnrt", ch);
    }
    for (int i = 0; i < 4; i++) {
        if (c->p == c->end || !is_hex(*c->p++)) {
            return false;
        }
    }
    return true;
}

/* At the opening quote. */
static bool take_string(struct check *c)
{
    if (c->p == c->end || *c->p++ != '"') {
        return false;
    }
    while (c->p < c->end) {
        uint8_t ch = *c->p;
        size_t n = 1;
        uint32_t code_point;
        if (ch < 0x20) {
            return false;
        }
        if (ch >= 0x80) {
            n = ag_utf8_decode(ag_span(c->p, (size_t)(c->end - c->p)), &code_point);
            if (n == 0) {
                return false;
            }
        }
        c->p += n;
        if (ch == '"') {
            return true;
        }
        if (ch == '\\' && !take_escape(c)) {
            return false;
        }
    }
    return false;
}

static bool take_digits(struct check *c)
{
    const uint8_t *from = c->p;

    while (c->p < c->end && *c->p >= '0' && *c->p <= '9') {
        c->p++;
    }
    return c->p > from;
}

static bool take_number(struct check *c)
{
    if (c->p < c->end && *c->p == '-') {
        c->p++;
    }
    if (c->p < c->end && *c->p == '0') {
        c->p++;
    } else if (!take_digits(c)) {
        return false;
    }
    if (c->p < c->end && *c->p == '.') {
        c->p++;
        if (!take_digits(c)) {
            return false;
        }
    }
    if (c->p < c->end && (*c->p | 0x20) == 'e') {
        c->p++;
        if (c->p < c->end && (*c->p == '+' || *c->p == '-')) {
            c->p++;
        }
        return take_digits(c);
    }
    return true;
}

static bool take_word(struct check *c, struct ag_span word)
{
    if (!ag_span_starts(ag_span(c->p, (size_t)(c->end - c->p)), word)) {
        return false;
    }
    c->p += word.len;
    return true;
}

static bool open_container(struct check *c, bool object)
{
    uint64_t bit;

    if (c->depth == AG_JSON_DEPTH_MAX) {
        return false;
    }
    bit = (uint64_t)1 << (c->depth % 64);
    if (object) {
        c->in_object[c->depth / 64] |= bit;
    } else {
        c->in_object[c->depth / 64] &= ~bit;
    }
    c->depth++;
    c->p++;
    return true;
}

static bool inside_object(const struct check *c)
{
    return c->in_object[(c->depth - 1) / 64] >> ((c->depth - 1) % 64) & 1;
}

static bool close_container(struct check *c, enum want *want)
{
    if (c->depth == 0 || *c->p != (inside_object(c) ? '}' : ']')) {
        return false;
    }
    c->p++;
    c->depth--;
    *want = WANT_AFTER;
    return true;
}

static bool take_value(struct check *c, enum want *want)
{
    *want = WANT_AFTER;
    switch (*c->p) {
    case '{':
        *want = WANT_KEY_OR_END;
        return open_container(c, true);
    case '[':
        *want = WANT_VALUE_OR_END;
        return open_container(c, false);
    case '"':
        return take_string(c);
    case 't':
        return take_word(c, AG_SPAN("true"));
    case 'f':
        return take_word(c, AG_SPAN("false"));
    case 'n':
        return take_word(c, AG_SPAN("null"));
    default:
        return take_number(c);
    }
}

static bool take_key(struct check *c, enum want *want)
{
    if (!take_string(c)) {
        return false;
    }
    skip_space(c);
    *want = WANT_VALUE;
    return c->p < c->end && *c->p++ == ':';
}

static bool step(struct check *c, enum want *want)
{
    switch (*want) {
    case WANT_VALUE_OR_END:
        if (*c->p == ']') {
            return close_container(c, want);
        }
        return take_value(c, want);
    case WANT_VALUE:
        return take_value(c, want);
    case WANT_KEY_OR_END:
        if (*c->p == '}') {
            return close_container(c, want);
        }
        return take_key(c, want);
    case WANT_KEY:
        return take_key(c, want);
    case WANT_AFTER:
        if (c->depth > 0 && *c->p == ',') {
            c->p++;
            *want = inside_object(c) ? WANT_KEY : WANT_VALUE;
            return true;
        }
        return close_container(c, want);
    }
    AG_UNREACHABLE("no such state");
}

bool ag_json_is_valid(struct ag_span text)
{
    struct check c = {.p = text.ptr, .end = text.ptr + text.len};
    enum want want = WANT_VALUE;

    skip_space(&c);
    while (c.p < c.end) {
        if (!step(&c, &want)) {
            return false;
        }
        skip_space(&c);
    }
    return want == WANT_AFTER && c.depth == 0;
}
