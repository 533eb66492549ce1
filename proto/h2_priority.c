/*
 * Structured field values (RFC 8941) as far as Priority needs them: a dictionary whose members may hold
 * anything, for what is not known is left out, but must be well-formed.
 */
#include "proto/h1_scan.h"
#include "proto/h2_fields.h"

struct cursor {
    struct ag_span s;
    size_t at;
};

/* What a member's value is, as far as somebody asks. */
struct item {
    enum { ITEM_OTHER, ITEM_INTEGER, ITEM_BOOLEAN } kind;
    int64_t integer; /* a boolean's is 0 or 1 */
};

static int peek(const struct cursor *c)
{
    return c->at < c->s.len ? c->s.ptr[c->at] : -1;
}

static bool take(struct cursor *c, int ch)
{
    bool there = peek(c) == ch;

    c->at += there;
    return there;
}

static bool is_digit(int ch)
{
    return ch >= '0' && ch <= '9';
}

static bool is_lower(int ch)
{
    return ch >= 'a' && ch <= 'z';
}

static void skip_spaces(struct cursor *c, bool tabs)
{
    while (peek(c) == ' ' || (tabs && peek(c) == '\t')) {
        c->at++;
    }
}

/* Section 4.2.3.3. */
static bool read_key(struct cursor *c, struct ag_span *out)
{
    size_t from = c->at;

    if (!is_lower(peek(c)) && peek(c) != '*') {
        return false;
    }
    while (is_lower(peek(c)) || is_digit(peek(c)) || peek(c) == '_' || peek(c) == '-' ||
           peek(c) == '.' || peek(c) == '*') {
        c->at++;
    }
    *out = ag_span_sub(c->s, from, c->at);
    return true;
}

/* Section 4.2.4. A decimal has a value of no use here. */
static bool read_number(struct cursor *c, struct item *out)
{
    bool minus = take(c, '-');
    int64_t value = 0;
    size_t digits = 0, behind = 0;

    for (; is_digit(peek(c)); digits++) {
        if (digits == 15) {
            return false;
        }
        value = value * 10 + (peek(c) - '0');
        c->at++;
    }
    *out = (struct item){ITEM_INTEGER, minus ? -value : value};
    if (digits && take(c, '.')) {
        out->kind = ITEM_OTHER;
        for (; is_digit(peek(c)); behind++) {
            c->at++;
        }
        return digits <= 12 && behind >= 1 && behind <= 3;
    }
    return digits > 0;
}

/* Section 4.2.5. */
static bool read_string(struct cursor *c)
{
    c->at++;
    while (peek(c) >= 0x20 && peek(c) < 0x7f) {
        if (take(c, '"')) {
            return true;
        }
        if (take(c, '\\') && peek(c) != '"' && peek(c) != '\\') {
            return false;
        }
        c->at++;
    }
    return false;
}

/* Section 4.2.6; the first character was looked at. */
static void skip_token(struct cursor *c)
{
    while (peek(c) >= 0 &&
           (ag_char_is((uint8_t)peek(c), AG_CHAR_TOKEN) || peek(c) == ':' || peek(c) == '/')) {
        c->at++;
    }
}

/* Section 4.2.7. */
static bool read_bytes(struct cursor *c)
{
    c->at++;
    while (is_digit(peek(c)) || is_lower(peek(c) | 0x20) || peek(c) == '+' || peek(c) == '/' ||
           peek(c) == '=') {
        c->at++;
    }
    return take(c, ':');
}

/* Section 4.2.3.1, without parameters. */
static bool read_bare(struct cursor *c, struct item *out)
{
    int ch = peek(c);

    *out = (struct item){ITEM_OTHER, 0};
    if (ch == '-' || is_digit(ch)) {
        return read_number(c, out);
    }
    if (ch == '?') {
        c->at++;
        *out = (struct item){ITEM_BOOLEAN, peek(c) == '1'};
        return take(c, '1') || take(c, '0');
    }
    if (ch == '"') {
        return read_string(c);
    }
    if (ch == ':') {
        return read_bytes(c);
    }
    skip_token(c);
    return is_lower(ch | 0x20) || ch == '*';
}

/* Section 4.2.3.2. */
static bool read_parameters(struct cursor *c)
{
    struct ag_span key;
    struct item value;

    while (take(c, ';')) {
        skip_spaces(c, false);
        if (!read_key(c, &key) || (take(c, '=') && !read_bare(c, &value))) {
            return false;
        }
    }
    return true;
}

/* Section 4.2.1.2. */
static bool read_inner_list(struct cursor *c)
{
    struct item item;

    c->at++;
    for (;;) {
        skip_spaces(c, false);
        if (take(c, ')')) {
            return true;
        }
        if (!read_bare(c, &item) || !read_parameters(c) || (peek(c) != ' ' && peek(c) != ')')) {
            return false;
        }
    }
}

/* What RFC 9218 section 4 knows; others, and values that mean nothing, are left out. */
static void set(struct ag_h2_priority *p, struct ag_span key, const struct item *value)
{
    if (ag_span_eq(key, AG_SPAN("u")) && value->kind == ITEM_INTEGER && value->integer >= 0 &&
        value->integer <= 7) {
        p->urgency = (uint8_t)value->integer;
    } else if (ag_span_eq(key, AG_SPAN("i")) && value->kind == ITEM_BOOLEAN) {
        p->incremental = value->integer != 0;
    }
}

/* Section 4.2.2: one member, and its value, which is true when none is told. */
static bool read_member(struct cursor *c, struct ag_h2_priority *p)
{
    struct item value = {ITEM_BOOLEAN, 1};
    struct ag_span key;
    bool list;

    if (!read_key(c, &key)) {
        return false;
    }
    if (take(c, '=')) {
        list = peek(c) == '(';
        if (list) {
            value.kind = ITEM_OTHER;
        }
        if (!(list ? read_inner_list(c) : read_bare(c, &value))) {
            return false;
        }
    }
    if (!read_parameters(c)) {
        return false;
    }
    set(p, key, &value);
    return true;
}

void ag_h2_priority_read(struct ag_span value, struct ag_h2_priority *p)
{
    struct cursor c = {value, 0};
    struct ag_h2_priority told = *p;

    skip_spaces(&c, false);
    while (peek(&c) >= 0) {
        if (!read_member(&c, &told)) {
            return;
        }
        skip_spaces(&c, true);
        if (peek(&c) < 0) {
            break;
        }
        if (!take(&c, ',')) {
            return;
        }
        skip_spaces(&c, true);
        if (peek(&c) < 0) {
            return; /* a comma at the end */
        }
    }
    *p = told;
}
