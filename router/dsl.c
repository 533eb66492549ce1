#include "proto/uri.h"
#include "router/config_impl.h"
#include "router/dsl_lex.h"

struct ag_span ag_dsl_trim(struct ag_span s, struct ag_pos *pos)
{
    size_t from = 0, to = s.len;

    while (from < to && ag_dsl_is_space(s.ptr[from])) {
        from++;
    }
    while (to > from && ag_dsl_is_space(s.ptr[to - 1])) {
        to--;
    }
    *pos = ag_pos_at(*pos, from);
    return ag_span_sub(s, from, to);
}

size_t ag_dsl_quote_end(struct ag_span s)
{
    AG_ASSERT(s.len > 0 && s.ptr[0] == '"');
    for (size_t i = 1; i < s.len; i++) {
        if (s.ptr[i] == '\\') {
            i++;
        } else if (s.ptr[i] == '"') {
            return i + 1;
        }
    }
    return 0;
}

enum ag_status ag_dsl_unquote(struct ag_dsl *d, struct ag_pos pos, struct ag_span s,
                              struct ag_span *out_text)
{
    size_t end = ag_dsl_quote_end(s);
    size_t bad = 0;

    if (end == 0) {
        ag_diag_error(d->diags, pos, "close it with \" on the same line",
                      "the quote is not closed");
        return AG_EINVAL;
    }
    if (end != s.len) {
        ag_diag_error(d->diags, ag_pos_at(pos, end), "put all of it inside the quotes, or none",
                      "text after the closing quote");
        return AG_EINVAL;
    }
    if (!ag_config_unescape(d->arena, ag_span_sub(s, 1, end - 1), out_text, &bad)) {
        ag_diag_error(d->diags, ag_pos_at(pos, 1 + bad),
                      "JSON escapes: \\\" \\\\ \\/ \\b \\f \\n \\r \\t \\uXXXX",
                      "not a valid escape");
        return AG_EINVAL;
    }
    return AG_OK;
}

enum ag_status ag_dsl_no_controls(struct ag_dsl *d, struct ag_pos pos, struct ag_span s,
                                  const char *but)
{
    for (size_t i = 0; i < s.len; i++) {
        if ((s.ptr[i] < 0x20 && !(s.ptr[i] && strchr(but, s.ptr[i]))) || s.ptr[i] == 0x7f) {
            ag_diag_error(d->diags, ag_pos_at(pos, i),
                          "a body may have line ends and tabs, no other",
                          "control byte 0x%02x in a route", s.ptr[i]);
            return AG_EINVAL;
        }
    }
    return AG_OK;
}

bool ag_dsl_is_name(struct ag_span s)
{
    if (s.len == 0 || s.len > AG_DSL_NAME_MAX) {
        return false;
    }
    for (size_t i = 0; i < s.len; i++) {
        uint8_t ch = s.ptr[i], low = ch | 0x20;
        bool letter = (low >= 'a' && low <= 'z') || ch == '_';
        bool later = (ch >= '0' && ch <= '9') || ch == '-';

        if (!letter && !(later && i > 0)) {
            return false;
        }
    }
    return true;
}

struct ag_span ag_dsl_upper(struct ag_arena *arena, struct ag_span s)
{
    uint8_t *p = ag_arena_alloc(arena, s.len + 1);

    for (size_t i = 0; i < s.len; i++) {
        uint8_t ch = s.ptr[i];

        p[i] = (uint8_t)(ch >= 'a' && ch <= 'z' ? ch - 32 : ch);
    }
    return ag_span(p, s.len);
}

/* "/" and the segment, with what a client would have to encode encoded. */
static struct ag_span encoded(struct ag_arena *arena, struct ag_span s)
{
    size_t cap = 1 + s.len * 3;
    struct ag_buf b = ag_buf(ag_arena_alloc(arena, cap), cap);

    ag_buf_putc(&b, '/');
    for (size_t i = 0; i < s.len; i++) {
        uint8_t ch = s.ptr[i];

        if (ch >= 0x80 || ch == ' ') {
            ag_buf_putc(&b, '%');
            ag_buf_putc(&b, (uint8_t) "0123456789ABCDEF"[ch >> 4]);
            ag_buf_putc(&b, (uint8_t) "0123456789ABCDEF"[ch & 15]);
        } else {
            ag_buf_putc(&b, ch);
        }
    }
    return ag_buf_span(&b);
}

enum ag_status ag_dsl_literal(struct ag_dsl *d, struct ag_pos pos, struct ag_span s,
                              struct ag_span *out_text)
{
    struct ag_span in;
    struct ag_buf out;

    if (s.len == 0) {
        *out_text = s;
        return AG_OK;
    }
    in = encoded(d->arena, s);
    out = ag_buf(ag_arena_alloc(d->arena, in.len), in.len);
    if (ag_path_normalise(in, &out) != AG_OK) {
        ag_diag_error(d->diags, pos, "write a path as in a URL: %XX for what is no printable ASCII",
                      "\"%.*s\" is not a valid path segment", AG_DSL_SHOW(s));
        return AG_EINVAL;
    }
    if (out.len < 2) { /* the segment was "." or ".." in some spelling */
        ag_diag_error(d->diags, pos, "paths are normalised before they are matched: leave it out",
                      "the dot segment \"%.*s\" can match nothing", AG_DSL_SHOW(s));
        return AG_EINVAL;
    }
    *out_text = ag_span_sub(ag_buf_span(&out), 1, out.len);
    return AG_OK;
}

size_t ag_dsl_find_colon(struct ag_span line)
{
    bool token_start = true;

    for (size_t at = 0; at < line.len; at++) {
        uint8_t ch = line.ptr[at];

        if (token_start && ch == '#') {
            break;
        }
        if (token_start && ch == '"') {
            size_t end = ag_dsl_quote_end(ag_span_sub(line, at, line.len));

            if (end == 0) {
                break;
            }
            at += end - 1;
            token_start = false;
            continue;
        }
        if (ch == ':' && (at + 1 == line.len || ag_dsl_is_space(line.ptr[at + 1]))) {
            return at;
        }
        token_start = ag_dsl_is_space(ch);
    }
    return line.len;
}

/* Where the action's comment begins, or s.len. `s` begins with the action's first byte. */
static size_t find_comment(struct ag_span s)
{
    size_t at = 0;
    bool json, in_string = false;

    if (s.len > 0 && s.ptr[0] == '#') {
        return 0;
    }
    if (s.len > 0 && s.ptr[0] == '"') {
        at = ag_dsl_quote_end(s);
    } else {
        while (at < s.len && !ag_dsl_is_space(s.ptr[at])) {
            at++;
        }
        while (at < s.len && ag_dsl_is_space(s.ptr[at])) {
            at++;
        }
    }
    if (at < s.len && at > 0 && s.ptr[at] == '"' && s.ptr[0] != '"') {
        at += ag_dsl_quote_end(ag_span_sub(s, at, s.len));
    }
    json = at < s.len && (s.ptr[at] == '{' || s.ptr[at] == '[');
    for (; at < s.len; at++) {
        if (in_string && s.ptr[at] == '\\') {
            at++;
        } else if (json && s.ptr[at] == '"') {
            in_string = !in_string;
        } else if (!in_string && s.ptr[at] == '#' && (at == 0 || ag_dsl_is_space(s.ptr[at - 1]))) {
            return at;
        }
    }
    return s.len;
}

static enum ag_status check_bytes(struct ag_dsl *d, struct ag_pos pos, struct ag_span s)
{
    if (s.len > AG_DSL_LINE_MAX) {
        ag_diag_error(d->diags, pos, "serve a long body from a file", "the line is longer than 1m");
        return AG_EINVAL;
    }
    return ag_dsl_no_controls(d, pos, s, "\t");
}

static enum ag_status no_colon(struct ag_dsl *d, struct ag_pos pos, struct ag_span line)
{
    size_t colon = ag_span_find(line, ':');

    if (line.ptr[0] == '"' && ag_dsl_quote_end(line) == 0) {
        ag_diag_error(d->diags, pos, "close it with \" on the same line",
                      "the quote is not closed");
        return AG_EINVAL;
    }
    ag_diag_error(d->diags, ag_pos_at(pos, colon < line.len ? colon : line.len - 1),
                  colon < line.len ? "put a space after the colon before the action"
                                   : "a route is \"[METHODS] PATTERN: ACTION\"",
                  "no \": \" between pattern and action");
    return AG_EINVAL;
}

enum ag_status ag_dsl_parse_line(struct ag_arena *arena, struct ag_diags *diags, struct ag_pos pos,
                                 struct ag_span line, struct ag_pattern *out_pattern,
                                 struct ag_action_decl *out_action)
{
    struct ag_dsl d = {arena, diags};
    struct ag_span left, right;
    struct ag_pos right_pos;
    struct ag_pattern pattern;
    struct ag_action_decl action;
    size_t colon;
    enum ag_status st;

    line = ag_dsl_trim(line, &pos);
    if (line.len == 0 || line.ptr[0] == '#') {
        return AG_ENOENT;
    }
    if (check_bytes(&d, pos, line) != AG_OK) {
        return AG_EINVAL;
    }
    colon = ag_dsl_find_colon(line);
    if (colon == line.len) {
        return no_colon(&d, pos, line);
    }
    left = ag_span_sub(line, 0, colon);
    right_pos = ag_pos_at(pos, colon + 1);
    right = ag_dsl_trim(ag_span_sub(line, colon + 1, line.len), &right_pos);
    right = ag_dsl_trim(ag_span_sub(right, 0, find_comment(right)), &right_pos);
    /* Both halves are parsed, so that one run reports the mistakes of both. */
    st = ag_dsl_pattern(&d, pos, left, true, &pattern);
    if (ag_dsl_action(&d, right_pos, right, true, st == AG_OK ? &pattern : NULL, &action) !=
            AG_OK ||
        st != AG_OK) {
        return AG_EINVAL;
    }
    *out_pattern = pattern;
    *out_action = action;
    return AG_OK;
}

enum ag_status ag_dsl_parse_pattern(struct ag_arena *arena, struct ag_diags *diags,
                                    struct ag_pos pos, struct ag_span text,
                                    struct ag_pattern *out_pattern)
{
    struct ag_dsl d = {arena, diags};

    return ag_dsl_pattern(&d, pos, text, false, out_pattern);
}

enum ag_status ag_dsl_parse_action(struct ag_arena *arena, struct ag_diags *diags,
                                   struct ag_pos pos, struct ag_span text,
                                   const struct ag_pattern *pattern,
                                   struct ag_action_decl *out_action)
{
    struct ag_dsl d = {arena, diags};

    return ag_dsl_action(&d, pos, text, false, pattern, out_action);
}
