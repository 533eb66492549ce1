/*
 * Why a pre-scan: plain YAML fails or lies on route lines (`: *` is an alias, `{"msg":"x: y"}` an
 * error, `OK {"m":"a #b"}` is cut at the #, `- GET /x: OK` a mapping). So route lines are taken from
 * the raw bytes, and the YAML parser sees a comment of the same length in their place; what is left to
 * it keeps its line and column.
 *
 *   routes:
 *     GET /x: OK            a line:       #############
 *     "/y": {action: OK}    a long form:  kkkk: {action: OK}     (the key by ag_raw_key)
 *     /z:                                 kk:
 *       action: OK          untouched       action: OK
 */
#include "router/config_impl.h"
#include "router/dsl.h"

enum form {
    FORM_UNKNOWN, /* no child line yet */
    FORM_MAP,     /* KEY: VALUE */
    FORM_LIST,    /* - KEY: VALUE */
    FORM_BLOCK,   /* lines of a block scalar or of a .gate file */
};

struct line {
    size_t at, to;   /* offsets: first byte, and the line end (without CR) */
    size_t first;    /* offset of the first byte that is not a space */
    size_t next;     /* offset of the next line */
    uint32_t number; /* from 1 */
};

struct scan {
    struct ag_prescan *out;
    struct ag_span text;
    struct line line;
    size_t next;          /* offset of the line to read next */
    uint32_t next_number; /* its number */
    enum form form;
    size_t root_indent;  /* columns before the key `routes` */
    size_t child_indent; /* columns before the first child; SIZE_MAX: none yet */
    bool whole_file;     /* every line is a route, whatever its indent */
    bool long_form;      /* deeper lines belong to YAML */
};

static bool read_line(struct scan *s)
{
    if (s->next == s->text.len) {
        return false;
    }
    struct ag_span rest = ag_span_sub(s->text, s->next, s->text.len);
    size_t len = ag_span_find(rest, '\n');
    struct line *l = &s->line;

    l->at = s->next;
    l->to = l->at + len;
    l->next = l->at + ag_min_size(len + 1, rest.len);
    l->number = s->next_number;
    s->next = l->next;
    s->next_number++;
    if (l->to > l->at && s->text.ptr[l->to - 1] == '\r') {
        l->to--;
    }
    l->first = l->at;
    while (l->first < l->to && s->text.ptr[l->first] == ' ') {
        l->first++;
    }
    return true;
}

static bool is_blank(uint8_t ch)
{
    return ch == ' ' || ch == '\t';
}

/* Offset of the first byte from `at` on that is no blank, or the line's end. */
static size_t skip_blanks(const struct scan *s, size_t at)
{
    while (at < s->line.to && is_blank(s->text.ptr[at])) {
        at++;
    }
    return at;
}

static struct ag_pos pos_at(const struct scan *s, size_t offset)
{
    return (struct ag_pos){s->out->src, s->line.number, (uint32_t)(offset - s->line.at + 1)};
}

/* From `from` to the line's end the YAML parser sees a comment; each byte is replaced, so that no
 * half of a code point is left. `from` follows a blank or a line end. */
static void mask_rest(struct scan *s, size_t from)
{
    if (s->out->mask) {
        memset(s->out->mask + from, '#', s->line.to - from);
    }
}

static bool has_dash(const struct scan *s)
{
    size_t at = s->line.first;

    return s->text.ptr[at] == '-' && (at + 1 == s->line.to || is_blank(s->text.ptr[at + 1]));
}

static bool is_document_mark(const struct scan *s)
{
    struct ag_span l = ag_span_sub(s->text, s->line.at, s->line.to);

    return (ag_span_starts(l, AG_SPAN("---")) || ag_span_starts(l, AG_SPAN("..."))) &&
           (l.len == 3 || is_blank(l.ptr[3]));
}

/* Whether the line still lies below `routes`. */
static bool is_below(const struct scan *s)
{
    size_t indent = s->line.first - s->line.at;

    if (s->whole_file || indent > s->root_indent) {
        return true;
    }
    /* YAML lets a list stand under its key without an indent. */
    return indent == s->root_indent && has_dash(s) &&
           (s->form == FORM_UNKNOWN || (s->form == FORM_LIST && s->child_indent == indent));
}

/* The key's text as a pattern: `"a b"` whole in quotes loses them; any other stays as it is, and what
 * is wrong with it is for the DSL to say. */
static struct ag_span key_text(const struct scan *s, struct ag_span raw)
{
    struct ag_span text = raw, inside;
    size_t bad = 0, at = 1;

    if (raw.len < 2 || raw.ptr[0] != '"') {
        return raw;
    }
    while (at < raw.len && raw.ptr[at] != '"') {
        at += raw.ptr[at] == '\\' ? 2 : 1;
    }
    if (at != raw.len - 1) {
        return raw;
    }
    inside = ag_span_sub(raw, 1, raw.len - 1);
    if (!ag_config_unescape(s->out->diags->arena, inside, &text, &bad)) {
        ag_diag_error(s->out->diags, pos_at(s, (size_t)(inside.ptr - s->text.ptr) + bad),
                      "JSON escapes: \\\" \\\\ \\/ \\b \\f \\n \\r \\t \\uXXXX",
                      "not a valid escape in \"%.*s\"", AG_CONFIG_SHOW(inside));
        return raw;
    }
    return text;
}

/* The bytes before the colon at `colon`, without blanks at the end. */
static struct ag_span key_before(const struct scan *s, size_t from, size_t colon)
{
    return ag_span_trim(ag_span_sub(s->text, from, colon));
}

static void take_line(struct scan *s, size_t from, size_t colon)
{
    struct ag_prescan *p = s->out;
    struct ag_node *n = ag_node_new(p->diags->arena, AG_NODE_SCALAR, pos_at(s, from));

    n->dsl = true;
    n->text = ag_span_sub(s->text, from, s->line.to);
    mask_rest(s, s->line.first);
    s->long_form = false;
    if (s->form == FORM_MAP && colon < s->line.to) {
        struct ag_span key = key_text(s, key_before(s, from, colon));
        if (!ag_config_key_is_new(&p->seen, p->diags, &p->lines, key, n)) {
            return;
        }
    }
    ag_node_append(&p->lines, n);
}

/* The closing quote of the string that text[at] opens, or the text's end. */
static size_t quote_end(struct ag_span text, size_t at)
{
    uint8_t quote = text.ptr[at];

    for (at++; at < text.len; at++) {
        uint8_t ch = text.ptr[at];
        bool doubled = at + 1 < text.len && text.ptr[at + 1] == quote;

        if ((quote == '"' && ch == '\\') || (quote == '\'' && ch == quote && doubled)) {
            at++;
        } else if (ch == quote) {
            return at;
        }
    }
    return text.len;
}

/* Follows a value in brackets over as many lines as it has: within them indents mean nothing, so no
 * line in there is a route. A quote opens a string only where a token may begin. */
static void skip_flow(struct scan *s, size_t at)
{
    struct ag_span text = s->text;
    size_t depth = 0;
    uint8_t before = '[', prev = ' '; /* the last byte that is no space; the last byte */

    for (; at < text.len; at++) {
        uint8_t ch = text.ptr[at];

        if (ch == '#' && (is_blank(prev) || prev == '\n')) {
            at += ag_span_find(ag_span_sub(text, at, text.len), '\n');
            prev = '\n';
            continue;
        }
        if ((ch == '"' || ch == '\'') && strchr("[{,:", before)) {
            at = quote_end(text, at);
        } else if (ch == '[' || ch == '{') {
            depth++;
        } else if ((ch == ']' || ch == '}') && --depth == 0) {
            break;
        }
        prev = ch;
        if (!is_blank(ch) && ch != '\n' && ch != '\r') {
            before = ch;
        }
    }
    while (s->next <= at && read_line(s)) {
    }
}

/* KEY: with a value that YAML reads. */
static void take_long_form(struct scan *s, size_t from, size_t colon, size_t value)
{
    struct ag_prescan *p = s->out;
    struct ag_span raw = key_before(s, from, colon);
    struct ag_raw_key *k = ag_arena_zalloc(p->diags->arena, sizeof(*k));

    k->offset = from;
    k->key = key_text(s, raw);
    k->pos = pos_at(s, from);
    k->next = p->keys;
    p->keys = k;
    memset(p->mask + from, 'k', raw.len);
    s->long_form = true;
    if (value < s->line.to && (s->text.ptr[value] == '{' || s->text.ptr[value] == '[')) {
        skip_flow(s, value);
    }
}

static bool begins_yaml_value(uint8_t ch)
{
    return ch && strchr("{[|>&!", ch);
}

/* A child's text, from `from` to the line's end. */
static void take_child(struct scan *s, size_t from)
{
    size_t to = s->line.to;
    size_t colon = from + ag_dsl_find_colon(ag_span_sub(s->text, from, to));

    if (s->form == FORM_BLOCK) {
        take_line(s, from, to);
        return;
    }
    if (s->form == FORM_LIST) {
        uint8_t ch = s->text.ptr[from];
        if (begins_yaml_value(ch)) {
            s->long_form = true;
            if (ch == '{' || ch == '[') {
                skip_flow(s, from);
            }
            return;
        }
        if (colon == to && (ch == '"' || ch == '\'')) { /* a whole line as a YAML string */
            s->long_form = false;
            return;
        }
    }
    size_t value = colon < to ? skip_blanks(s, colon + 1) : to;
    if (colon < to && colon > from &&
        (value == to || s->text.ptr[value] == '#' || begins_yaml_value(s->text.ptr[value]))) {
        take_long_form(s, from, colon, value);
    } else {
        take_line(s, from, colon);
    }
}

static void refuse_line(struct scan *s, size_t at, const char *hint, const char *what)
{
    ag_diag_error(s->out->diags, pos_at(s, at), hint, "%s", what);
    mask_rest(s, s->line.first);
}

/* One line below `routes` that is neither blank nor a comment. */
static void take(struct scan *s)
{
    size_t first = s->line.first, indent = first - s->line.at;

    if (s->long_form && indent > s->child_indent) {
        return;
    }
    if (s->text.ptr[first] == '\t') {
        refuse_line(s, first, "indent with spaces", "a tab in the indentation");
        return;
    }
    if (s->form == FORM_UNKNOWN) {
        s->form = has_dash(s) ? FORM_LIST : FORM_MAP;
    }
    if (s->child_indent == SIZE_MAX) {
        s->child_indent = indent;
    }
    if (indent > s->child_indent) {
        refuse_line(s, first,
                    "write the whole route on one line, or use the long form (action: ...)",
                    "a route cannot be continued on the next line");
    } else if (indent < s->child_indent) {
        refuse_line(s, first, "indent all routes alike",
                    "this line is indented less than the first route");
    } else if (s->form == FORM_LIST && !has_dash(s)) {
        refuse_line(s, first, "each entry of this list begins with \"- \"", "expected \"- \"");
    } else if (s->form == FORM_MAP && has_dash(s)) {
        refuse_line(s, first, "write all routes with \"- \", or none",
                    "a list entry among entries of a mapping");
    } else if (s->form == FORM_LIST) {
        size_t from = skip_blanks(s, first + 1);
        if (from == s->line.to || s->text.ptr[from] == '#') {
            s->long_form = true;
        } else {
            take_child(s, from);
        }
    } else {
        take_child(s, first);
    }
}

static void take_lines(struct scan *s)
{
    while (read_line(s)) {
        size_t text = skip_blanks(s, s->line.first);

        if (text == s->line.to || s->text.ptr[text] == '#') {
            continue;
        }
        if (!s->whole_file && (is_document_mark(s) || !is_below(s))) {
            return;
        }
        /* `routes:` and its whole value on the next line: YAML's alone. */
        if (s->form == FORM_UNKNOWN && begins_yaml_value(s->text.ptr[text])) {
            return;
        }
        take(s);
    }
}

/* Keys were collected newest first. */
static void finish(struct scan *s)
{
    struct ag_raw_key *in_order = NULL;

    while (s->out->keys) {
        struct ag_raw_key *k = s->out->keys;
        s->out->keys = k->next;
        k->next = in_order;
        in_order = k;
    }
    s->out->keys = in_order;
}

void ag_config_prescan_lines(struct ag_prescan *p)
{
    struct scan s = {.out = p,
                     .text = p->src->text,
                     .next_number = 1,
                     .form = FORM_BLOCK,
                     .child_indent = SIZE_MAX,
                     .whole_file = true};

    take_lines(&s);
    finish(&s);
}

/* `|` with its indicators, and nothing else but a comment. */
static bool is_block_header(const struct scan *s, size_t at)
{
    at++;
    while (at < s->line.to && strchr("+-0123456789", s->text.ptr[at]) && s->text.ptr[at]) {
        at++;
    }
    size_t rest = skip_blanks(s, at);
    return rest == s->line.to || (rest > at && s->text.ptr[rest] == '#');
}

void ag_config_prescan(struct ag_prescan *p, size_t key_at, size_t key_end, uint32_t key_line)
{
    struct scan s = {
        .out = p, .text = p->src->text, .next_number = key_line, .child_indent = SIZE_MAX};

    AG_ASSERT(p->mask && key_at < key_end && key_end <= s.text.len);
    s.next = key_at;
    while (s.next > 0 && s.text.ptr[s.next - 1] != '\n') {
        s.next--;
    }
    s.root_indent = key_at - s.next;
    bool has_line = read_line(&s);
    AG_ASSERT(has_line);
    size_t colon = skip_blanks(&s, key_end);
    if (colon == s.line.to || s.text.ptr[colon] != ':') {
        return; /* `? routes` and the like: YAML's alone */
    }
    size_t value = skip_blanks(&s, colon + 1);
    if (value == s.line.to || s.text.ptr[value] == '#') {
        take_lines(&s);
    } else if (s.text.ptr[value] == '|' && is_block_header(&s, value)) {
        s.form = FORM_BLOCK;
        mask_rest(&s, value);
        take_lines(&s);
    }
    finish(&s);
}

void ag_config_prescan_merge(struct ag_prescan *p, struct ag_node *routes)
{
    struct ag_node *line = p->lines.first, *entry = routes->first;

    if (routes->kind == AG_NODE_NULL && line) {
        routes->kind = AG_NODE_SEQ;
    }
    routes->first = routes->last = NULL;
    while (line || entry) {
        struct ag_pos a = line ? line->pos : (struct ag_pos){0};
        struct ag_pos b = entry ? entry->key.len ? entry->key_pos : entry->pos : a;
        bool line_first =
            !entry || (line && (a.line < b.line || (a.line == b.line && a.col < b.col)));
        struct ag_node **from = line_first ? &line : &entry;
        struct ag_node *n = *from;

        *from = n->next;
        n->next = NULL;
        ag_node_append(routes, n);
    }
    p->lines.first = p->lines.last = NULL;
}

void ag_config_routes_normalise(struct ag_node *root, struct ag_diags *diags)
{
    struct ag_node *routes = ag_config_child(root, "routes");

    if (!routes || routes->kind == AG_NODE_NULL || routes->kind == AG_NODE_MAP) {
        return;
    }
    struct ag_node *n = routes->first;
    routes->first = routes->last = NULL;
    if (routes->kind == AG_NODE_SCALAR) {
        ag_diag_error(diags, routes->pos, "a block of lines begins with |",
                      "routes must be a mapping, a list, or a block of lines");
        routes->kind = AG_NODE_NULL;
        return;
    }
    while (n) {
        struct ag_node *next = n->next;

        n->next = NULL;
        if (n->kind == AG_NODE_SCALAR) {
            if (!n->dsl) {
                n->pos = ag_pos_at(n->pos, n->quoted ? 1 : 0);
                n->dsl = true;
            }
            ag_node_append(routes, n);
        } else if (n->kind == AG_NODE_MAP) {
            while (n->first) {
                struct ag_node *entry = n->first;
                n->first = entry->next;
                entry->next = NULL;
                ag_node_append(routes, entry);
            }
        } else {
            ag_diag_error(diags, n->pos, "write METHODS PATTERN: ACTION",
                          "a route is expected here");
        }
        n = next;
    }
}
