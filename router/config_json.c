/* JSON as RFC 8259 has it and nothing more: no comments, no trailing commas, no duplicate keys. */
#include "engine/utf8.h"
#include "router/config_impl.h"

struct frame {
    struct ag_node *node;
    struct ag_span key; /* in an object: of the value to come */
    struct ag_pos key_pos;
};

struct json {
    const struct ag_source *src;
    struct ag_diags *diags;
    struct ag_span text;
    size_t at, line_at; /* offsets: here, and where this line begins */
    uint32_t line;
    struct ag_keyset seen;
    struct frame stack[AG_CONFIG_DEPTH_MAX];
    size_t depth;
    struct ag_node *root;
};

static struct ag_pos here(const struct json *j)
{
    return (struct ag_pos){j->src, j->line, (uint32_t)(j->at - j->line_at + 1)};
}

/* The next byte, or 0 at the end (a NUL is no JSON anywhere). */
static uint8_t peek(const struct json *j)
{
    return j->at < j->text.len ? j->text.ptr[j->at] : 0;
}

static bool refuse(struct json *j, const char *hint, const char *what)
{
    ag_diag_error(j->diags, here(j), hint, "%s", what);
    return false;
}

/* "expected ..., found ...": the byte at hand, or the end. */
static bool unexpected(struct json *j, const char *hint, const char *expected)
{
    uint8_t ch = peek(j);

    if (j->at == j->text.len) {
        ag_diag_error(j->diags, here(j), hint, "expected %s, found the end of the file", expected);
    } else if (ch == '\'') {
        ag_diag_error(j->diags, here(j), "strings stand in double quotes",
                      "expected %s, found a single quote", expected);
    } else if (ch == '/' || ch == '#') {
        ag_diag_error(j->diags, here(j), "JSON has no comments", "expected %s, found '%c'",
                      expected, ch);
    } else if (ch > 0x20 && ch < 0x7f) {
        ag_diag_error(j->diags, here(j), hint, "expected %s, found '%c'", expected, ch);
    } else {
        ag_diag_error(j->diags, here(j), hint, "expected %s, found byte 0x%02x", expected, ch);
    }
    return false;
}

static void skip_space(struct json *j)
{
    for (; j->at < j->text.len; j->at++) {
        switch (j->text.ptr[j->at]) {
        case '\n':
            j->line++;
            j->line_at = j->at + 1;
            break;
        case ' ':
        case '\t':
        case '\r':
            break;
        default:
            return;
        }
    }
}

/* A string; stands on its opening quote, ends behind the closing one. */
static bool read_string(struct json *j, struct ag_span *out)
{
    struct ag_pos open = here(j);
    size_t from = ++j->at, bad = 0;

    while (peek(j) != '"') {
        uint32_t cp = 0;
        uint8_t ch = peek(j);
        size_t n = 1;

        if (j->at == j->text.len || ch == '\n' || ch == '\r') {
            ag_diag_error(j->diags, open, "close it with \" on the same line",
                          "the string is not closed");
            return false;
        }
        if (ch < 0x20) {
            return refuse(j, "write it as an escape: \\t, \\u0009",
                          "a control character in a string");
        }
        if (ch == '\\' && j->at + 1 < j->text.len && j->text.ptr[j->at + 1] != '\n') {
            j->at++;
        }
        if (peek(j) >= 0x80) {
            n = ag_utf8_decode(ag_span_sub(j->text, j->at, j->text.len), &cp);
            if (n == 0) {
                return refuse(j, "save the file as UTF-8", "not UTF-8");
            }
        }
        j->at += n;
    }
    struct ag_span raw = ag_span_sub(j->text, from, j->at);
    if (!ag_config_unescape(j->diags->arena, raw, out, &bad)) {
        j->at = from + bad;
        return refuse(j, "JSON knows \\\" \\\\ \\/ \\b \\f \\n \\r \\t and \\uXXXX",
                      "not a valid escape");
    }
    j->at++;
    return true;
}

static size_t skip_digits(struct json *j)
{
    size_t from = j->at;

    while (peek(j) >= '0' && peek(j) <= '9') {
        j->at++;
    }
    return j->at - from;
}

static bool read_number(struct json *j)
{
    if (peek(j) == '-') {
        j->at++;
    }
    bool zero = peek(j) == '0';
    size_t digits = skip_digits(j);
    if (digits == 0) {
        return unexpected(j, NULL, "a digit");
    }
    if (zero && digits > 1) {
        j->at -= digits;
        return refuse(j, "write the number without leading zeros, or in quotes",
                      "a number with a leading zero");
    }
    if (peek(j) == '.') {
        j->at++;
        if (skip_digits(j) == 0) {
            return unexpected(j, NULL, "a digit");
        }
    }
    if (peek(j) == 'e' || peek(j) == 'E') {
        j->at++;
        if (peek(j) == '+' || peek(j) == '-') {
            j->at++;
        }
        if (skip_digits(j) == 0) {
            return unexpected(j, NULL, "a digit");
        }
    }
    return true;
}

/* true, false, null. */
static bool read_word(struct json *j, struct ag_node *n)
{
    static const char *const words[] = {"true", "false", "null"};
    struct ag_pos pos = here(j);
    size_t from = j->at;

    while ((peek(j) | 0x20) >= 'a' && (peek(j) | 0x20) <= 'z') {
        j->at++;
    }
    struct ag_span word = ag_span_sub(j->text, from, j->at);
    for (size_t i = 0; i < AG_COUNT(words); i++) {
        if (ag_span_eq(word, ag_span_str(words[i]))) {
            n->kind = i == 2 ? AG_NODE_NULL : AG_NODE_SCALAR;
            n->text = i == 2 ? AG_SPAN("") : word;
            return true;
        }
    }
    const char *near = ag_diag_nearest(j->diags, word, words, AG_COUNT(words));
    ag_diag_error(j->diags, pos, near ? near : "strings stand in double quotes",
                  "\"%.*s\" is not a JSON value", AG_CONFIG_SHOW(word));
    return false;
}

/* A string, number or word. */
static bool read_scalar(struct json *j, struct ag_node *n)
{
    size_t from = j->at;
    uint8_t ch = peek(j);

    n->kind = AG_NODE_SCALAR;
    if (ch == '"') {
        n->quoted = true;
        return read_string(j, &n->text);
    }
    if (ch == '-' || (ch >= '0' && ch <= '9')) {
        if (!read_number(j)) {
            return false;
        }
        n->text = ag_span_sub(j->text, from, j->at);
        return true;
    }
    if ((ch | 0x20) >= 'a' && (ch | 0x20) <= 'z') {
        return read_word(j, n);
    }
    return unexpected(j, NULL, "a value");
}

static void attach(struct json *j, struct ag_node *n)
{
    if (j->depth == 0) {
        j->root = n;
        return;
    }
    struct frame *f = &j->stack[j->depth - 1];
    if (f->node->kind == AG_NODE_SEQ) {
        ag_node_append(f->node, n);
        return;
    }
    n->key = f->key;
    n->key_pos = f->key_pos;
    if (ag_config_key_is_new(&j->seen, j->diags, f->node, n->key, n)) {
        ag_node_append(f->node, n);
    }
}

/* "key": */
static bool read_key(struct json *j)
{
    struct frame *f = &j->stack[j->depth - 1];

    skip_space(j);
    if (peek(j) != '"') {
        return unexpected(j, "keys stand in double quotes", "a key");
    }
    f->key_pos = here(j);
    if (!read_string(j, &f->key)) {
        return false;
    }
    skip_space(j);
    if (peek(j) != ':') {
        return unexpected(j, NULL, "':'");
    }
    j->at++;
    return true;
}

static uint8_t closing(const struct frame *f)
{
    return f->node->kind == AG_NODE_MAP ? '}' : ']';
}

/* Opens an object or array; *out_empty when it closes at once. */
static bool open_container(struct json *j, struct ag_node *n, bool *out_empty)
{
    if (j->depth == AG_CONFIG_DEPTH_MAX) {
        return refuse(j, NULL, "nested too deeply");
    }
    n->kind = peek(j) == '{' ? AG_NODE_MAP : AG_NODE_SEQ;
    attach(j, n);
    j->stack[j->depth++] = (struct frame){.node = n};
    j->at++;
    skip_space(j);
    *out_empty = peek(j) == closing(&j->stack[j->depth - 1]);
    return *out_empty || n->kind == AG_NODE_SEQ || read_key(j);
}

/* After a value: closes what ends here, up to a comma that leads to the next value, or the end. */
static bool after_value(struct json *j)
{
    while (j->depth > 0) {
        struct frame *f = &j->stack[j->depth - 1];

        skip_space(j);
        if (peek(j) == closing(f)) {
            j->at++;
            j->depth--;
            continue;
        }
        if (peek(j) != ',') {
            return unexpected(j, "is a comma missing?",
                              f->node->kind == AG_NODE_MAP ? "',' or '}'" : "',' or ']'");
        }
        struct ag_pos comma = here(j);
        j->at++;
        skip_space(j);
        if (peek(j) == closing(f)) {
            ag_diag_error(j->diags, comma, "remove the comma", "trailing comma");
            return false;
        }
        return f->node->kind == AG_NODE_SEQ || read_key(j);
    }
    return true;
}

/* Values one after the other; no recursion, so that depth costs no stack. */
static bool read_all(struct json *j)
{
    do {
        bool is_empty = false;

        skip_space(j);
        struct ag_node *n = ag_node_new(j->diags->arena, AG_NODE_NULL, here(j));
        if (peek(j) == '{' || peek(j) == '[') {
            if (!open_container(j, n, &is_empty)) {
                return false;
            }
            if (!is_empty) {
                continue;
            }
        } else {
            if (!read_scalar(j, n)) {
                return false;
            }
            attach(j, n);
        }
        if (!after_value(j)) {
            return false;
        }
    } while (j->depth > 0);
    skip_space(j);
    return j->at == j->text.len || unexpected(j, NULL, "the end of the file");
}

struct ag_node *ag_config_json_value(const struct ag_source *src, struct ag_diags *diags)
{
    struct json *j = ag_arena_zalloc(diags->arena, sizeof(*j));

    j->src = src;
    j->diags = diags;
    j->text = src->text;
    j->line = 1;
    bool ok = read_all(j);
    ag_keyset_deinit(&j->seen);
    return ok ? j->root : NULL;
}

struct ag_node *ag_config_parse_json(const struct ag_source *src, struct ag_diags *diags)
{
    struct ag_node *root = ag_config_json_value(src, diags);

    if (!root) {
        return NULL;
    }
    if (root->kind != AG_NODE_MAP) {
        ag_diag_error(diags, root->pos, NULL,
                      "a config is an object of sections: server, proxy, routes, ...");
        return NULL;
    }
    ag_config_routes_normalise(root, diags);
    return root;
}
