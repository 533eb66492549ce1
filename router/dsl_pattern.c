#include "engine/foreign.h"
#include "engine/resolver.h"
#include "proto/uri.h"
#include "router/dsl_lex.h"

/* A hint for a word that is nearly a method, or NULL; capitals aside, one slip is allowed. */
static const char *nearest_method(struct ag_dsl *d, struct ag_span word)
{
    struct ag_span upper = ag_dsl_upper(d->arena, word);

    for (unsigned m = 1; m < AG_METHODS && word.len >= 2; m++) {
        struct ag_span name = ag_method_name((enum ag_method)m);

        if (ag_span_distance(upper, name, 2) < 2) {
            return ag_arena_printf(d->arena, "did you mean %.*s?", AG_DSL_SHOW(name));
        }
    }
    return NULL;
}

static bool is_capitals(struct ag_span s)
{
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] >= 'a' && s.ptr[i] <= 'z') {
            return false;
        }
    }
    return true;
}

/* Also of a rule: Host(`example.com`). */
static const char *foreign_hint(struct ag_span word)
{
    return ag_foreign_hint(ag_span_sub(word, 0, ag_span_find(word, '(')));
}

/* GET|POST is a token, and so would be a method of its own. */
static bool is_joined(struct ag_span word)
{
    return ag_span_find(word, '|') < word.len || ag_span_find(word, ',') < word.len;
}

static enum ag_status bad_method(struct ag_dsl *d, struct ag_pos pos, struct ag_span word)
{
    const char *hint = foreign_hint(word);

    hint = hint ? hint : nearest_method(d, word);
    if (is_joined(word)) {
        hint = "methods are parted by spaces: GET POST /path";
    } else if (ag_span_find(word, '.') < word.len && !foreign_hint(word)) {
        hint = "a pattern begins with \"/\" or \"host/\": end the host with a slash";
    } else if (!hint) {
        hint = "methods are in capitals, a pattern begins with \"/\" or \"host/\"";
    }
    ag_diag_error(d->diags, pos, hint, "\"%.*s\" is neither a method nor a pattern",
                  AG_DSL_SHOW(word));
    return AG_EINVAL;
}

static enum ag_status add_other(struct ag_dsl *d, struct ag_pos pos, struct ag_span word,
                                struct ag_pattern *p)
{
    struct ag_span *names;
    const char *hint;

    for (uint16_t i = 0; i < p->other_count; i++) {
        if (ag_span_eq(p->other_methods[i], word)) {
            ag_diag_warn(d->diags, pos, NULL, "the method %.*s is named twice", AG_DSL_SHOW(word));
            return AG_OK;
        }
    }
    if (p->other_count == AG_METHOD_NAMES_MAX) {
        ag_diag_error(d->diags, pos, "name no method to take all",
                      "more than %u methods beside the usual ones", AG_METHOD_NAMES_MAX);
        return AG_EINVAL;
    }
    hint = nearest_method(d, word);
    if (hint) {
        ag_diag_warn(d->diags, pos, hint, "%.*s is not a usual method", AG_DSL_SHOW(word));
    }
    names = ag_arena_alloc(d->arena, (p->other_count + 1u) * sizeof(*names));
    if (p->other_count) {
        memcpy(names, p->other_methods, p->other_count * sizeof(*names));
    }
    names[p->other_count++] = word;
    p->other_methods = names;
    return AG_OK;
}

static enum ag_status add_method(struct ag_dsl *d, struct ag_pos pos, struct ag_span word,
                                 struct ag_pattern *p)
{
    enum ag_method m;

    if (!ag_is_token(word) || !is_capitals(word) || is_joined(word) || foreign_hint(word)) {
        return bad_method(d, pos, word);
    }
    m = ag_method_from_name(word);
    if (m == AG_METHOD_TRACE || m == AG_METHOD_CONNECT) {
        ag_diag_error(d->diags, pos, "it is always answered with 405", "%.*s cannot be routed",
                      AG_DSL_SHOW(word));
        return AG_EINVAL;
    }
    if (m == AG_METHOD_OTHER) {
        return add_other(d, pos, word, p);
    }
    if (p->methods & 1u << m) {
        ag_diag_warn(d->diags, pos, NULL, "the method %.*s is named twice", AG_DSL_SHOW(word));
    }
    p->methods |= 1u << m;
    return AG_OK;
}

enum ag_status ag_dsl_parse_method(struct ag_arena *arena, struct ag_diags *diags,
                                   struct ag_pos pos, struct ag_span name, struct ag_pattern *p)
{
    struct ag_dsl d = {arena, diags};

    return add_method(&d, pos, name, p);
}

static bool is_host_byte(uint8_t ch)
{
    uint8_t low = ch | 0x20;

    return (low >= 'a' && low <= 'z') || (ch >= '0' && ch <= '9') || ch == '-' || ch == '_' ||
           ch == '.';
}

static const char *host_mistake(struct ag_span name)
{
    size_t from = 0;

    if (name.ptr[0] == '[') {
        uint16_t port;
        struct ag_span host;

        return ag_authority_parse(name, &host, &port) == AG_OK ? NULL : "not an IPv6 address";
    }
    if (name.ptr[0] == '*') {
        if (name.len < 3 || name.ptr[1] != '.') {
            return "a wildcard host is \"*.\" and a domain; leave the host out for any";
        }
        from = 2;
    }
    for (size_t i = from; i < name.len; i++) {
        if (name.ptr[i] == '*') {
            return "\"*\" can only be the first label";
        }
        if (!is_host_byte(name.ptr[i])) {
            return "a host has letters, digits, \"-\" and \".\"";
        }
        if (name.ptr[i] == '.' && (i == from || name.ptr[i - 1] == '.')) {
            return "a label is empty";
        }
    }
    return name.len > 255 ? "a host has at most 255 bytes" : NULL;
}

/* In lower case; an IPv6 address as clients write it, the shortest way. */
static struct ag_span normal_host(struct ag_dsl *d, struct ag_span name)
{
    size_t cap = name.len + 64; /* of an address: enough for any */
    struct ag_buf b = ag_buf(ag_arena_alloc(d->arena, cap), cap);
    union ag_addr address;

    if (name.ptr[0] == '[' &&
        ag_addr_parse(ag_span_sub(name, 1, name.len - 1), 0, &address) == AG_OK) {
        ag_buf_putc(&b, '[');
        ag_addr_format(&address, false, &b);
        ag_buf_putc(&b, ']');
    } else {
        for (size_t i = 0; i < name.len; i++) {
            ag_buf_putc(&b, ag_ascii_lower(name.ptr[i]));
        }
    }
    AG_ASSERT(!b.overflow);
    return ag_buf_span(&b);
}

static enum ag_status parse_host(struct ag_dsl *d, struct ag_pos pos, struct ag_span host,
                                 struct ag_pattern *p)
{
    struct ag_span name = host;
    const char *mistake;
    size_t colon = host.len;

    for (size_t i = host.len; i > 0 && colon == host.len && host.ptr[i - 1] != ']'; i--) {
        colon = host.ptr[i - 1] == ':' ? i - 1 : colon;
    }
    if (colon < host.len) {
        uint64_t port = 0;

        name = ag_span_sub(host, 0, colon);
        if (ag_span_u64(ag_span_sub(host, colon + 1, host.len), &port) != AG_OK || port == 0 ||
            port > 65535) {
            bool scheme = ag_span_eq(host, AG_SPAN("http:")) || ag_span_eq(host, AG_SPAN("https:"));

            ag_diag_error(d->diags, ag_pos_at(pos, colon + 1),
                          scheme ? "leave the scheme out: host/path"
                                 : "a host or port stands before the path: host/path, "
                                   "host:8080/path, :8080/path",
                          "\"%.*s\" is not a port",
                          AG_DSL_SHOW(ag_span_sub(host, colon + 1, host.len)));
            return AG_EINVAL;
        }
        p->port = (uint16_t)port;
    }
    if (name.len > 1 && name.ptr[name.len - 1] == '.') {
        name.len--; /* a name's root dot means nothing to HTTP */
    }
    if (name.len == 0) {
        return AG_OK;
    }
    mistake = host_mistake(name);
    if (mistake) {
        const char *hint = foreign_hint(name);

        ag_diag_error(d->diags, pos, hint ? hint : mistake, "\"%.*s\" is not a host",
                      AG_DSL_SHOW(name));
        return AG_EINVAL;
    }
    p->host = normal_host(d, name);
    return AG_OK;
}

static enum ag_status add_param(struct ag_dsl *d, struct ag_pos pos, struct ag_span name,
                                uint16_t segment, struct ag_pattern *p)
{
    struct ag_param_spec *params;

    if (p->param_count == AG_PARAMS_MAX) {
        ag_diag_error(d->diags, pos, NULL, "more than %u parameters", AG_PARAMS_MAX);
        return AG_EINVAL;
    }
    for (uint16_t i = 0; i < p->param_count; i++) {
        if (ag_span_eq(p->params[i].name, name)) {
            ag_diag_error(d->diags, pos, "give each parameter a name of its own",
                          "the parameter \"%.*s\" is there twice", AG_DSL_SHOW(name));
            return AG_EINVAL;
        }
    }
    params = ag_arena_alloc(d->arena, (p->param_count + 1u) * sizeof(*params));
    if (p->param_count) {
        memcpy(params, p->params, p->param_count * sizeof(*params));
    }
    params[p->param_count++] = (struct ag_param_spec){name, segment, p->has_splat};
    p->params = params;
    return AG_OK;
}

static enum ag_status parse_exact(struct ag_dsl *d, struct ag_pos pos, struct ag_span s,
                                  struct ag_segment *out)
{
    static const char bad[] = "*?#{}";
    static const char *const hints[] = {
        "a splat is a whole segment, the last: /files/*",
        "patterns match the path; the query is kept and matches always",
        "a fragment is never sent to a server",
        "a parameter is written :name, a whole segment",
        "a parameter is written :name, a whole segment",
    };

    for (size_t i = 0; i < s.len; i++) {
        const char *at = memchr(bad, s.ptr[i], sizeof(bad) - 1);

        if (at) {
            ag_diag_error(d->diags, ag_pos_at(pos, i), hints[at - bad],
                          "'%c' cannot stand in a literal segment", s.ptr[i]);
            return AG_EINVAL;
        }
    }
    out->kind = AG_SEG_EXACT;
    return ag_dsl_literal(d, pos, s, &out->text);
}

/* One segment of the pattern; `last`: nothing follows. */
static enum ag_status parse_segment(struct ag_dsl *d, struct ag_pos pos, struct ag_span s,
                                    bool last, struct ag_pattern *p, struct ag_segment *out)
{
    uint8_t lead = s.len ? s.ptr[0] : 0;
    struct ag_span name;

    if (lead != ':' && lead != '*') {
        return parse_exact(d, pos, s, out);
    }
    name = ag_span_sub(s, 1, s.len);
    if (lead == ':' && !ag_dsl_is_name(name)) {
        ag_diag_error(
            d->diags, pos,
            "a parameter is a whole segment: \":\" and a name of letters, digits, - and _",
            "\"%.*s\" is not a parameter", AG_DSL_SHOW(s));
        return AG_EINVAL;
    }
    if (lead == '*' && name.len > 0 && !ag_dsl_is_name(name)) {
        ag_diag_error(d->diags, pos, "a splat is a whole segment, the last: * or *name",
                      "\"%.*s\" is not a splat", AG_DSL_SHOW(s));
        return AG_EINVAL;
    }
    if (lead == '*' && !last) {
        ag_diag_error(d->diags, pos, "use :name for one segment in the middle",
                      "\"%.*s\" is not the last segment", AG_DSL_SHOW(s));
        return AG_EINVAL;
    }
    p->has_splat = lead == '*';
    *out = (struct ag_segment){lead == '*' ? AG_SEG_SPLAT : AG_SEG_PARAM, name};
    return add_param(d, pos, name, p->count, p);
}

static enum ag_status parse_path(struct ag_dsl *d, struct ag_pos pos, struct ag_span path,
                                 struct ag_pattern *p)
{
    struct ag_segment *segments;
    size_t count = 0, at = 1;

    AG_ASSERT(path.len > 0 && path.ptr[0] == '/');
    for (size_t i = 0; i < path.len; i++) {
        count += path.ptr[i] == '/';
    }
    if (count > AG_SEGMENTS_MAX) {
        ag_diag_error(d->diags, pos, NULL, "more than %u segments", AG_SEGMENTS_MAX);
        return AG_EINVAL;
    }
    segments = ag_arena_alloc(d->arena, count * sizeof(*segments));
    p->segments = segments;
    for (; p->count < count; p->count++) {
        struct ag_span rest = ag_span_sub(path, at, path.len);
        struct ag_span s = ag_span_sub(rest, 0, ag_span_find(rest, '/'));

        if (parse_segment(d, ag_pos_at(pos, at), s, p->count + 1u == count, p,
                          &segments[p->count]) != AG_OK) {
            return AG_EINVAL;
        }
        at += s.len + 1;
    }
    return AG_OK;
}

/* host and path, without methods. */
static enum ag_status parse_place(struct ag_dsl *d, struct ag_pos pos, struct ag_span text,
                                  struct ag_pattern *p)
{
    size_t slash = ag_span_find(text, '/');

    p->pos = pos;
    p->text = text;
    if (text.len > AG_DSL_PATTERN_MAX) {
        ag_diag_error(d->diags, pos, NULL, "the pattern is longer than %u bytes",
                      AG_DSL_PATTERN_MAX);
        return AG_EINVAL;
    }
    if (slash == text.len) {
        ag_diag_error(d->diags, pos, "a pattern is [HOST][:PORT]/PATH; /* is every path",
                      "\"%.*s\" has no \"/\"", AG_DSL_SHOW(text));
        return AG_EINVAL;
    }
    if (slash > 0 && parse_host(d, pos, ag_span_sub(text, 0, slash), p) != AG_OK) {
        return AG_EINVAL;
    }
    return parse_path(d, ag_pos_at(pos, slash), ag_span_sub(text, slash, text.len), p);
}

static bool is_place(struct ag_span word)
{
    return word.ptr[0] == ':' || word.ptr[0] == '*' || word.ptr[0] == '[' ||
           ag_span_find(word, '/') < word.len;
}

static struct ag_span first_word(struct ag_span s)
{
    size_t n = 0;

    while (n < s.len && !ag_dsl_is_space(s.ptr[n])) {
        n++;
    }
    return ag_span_sub(s, 0, n);
}

enum ag_status ag_dsl_pattern(struct ag_dsl *d, struct ag_pos pos, struct ag_span text, bool plain,
                              struct ag_pattern *out_pattern)
{
    struct ag_pattern p = {.pos = pos};
    bool quoted = false;

    for (;;) {
        struct ag_span word;

        if (ag_dsl_no_controls(d, pos, text, "\t") != AG_OK) {
            return AG_EINVAL;
        }
        text = ag_dsl_trim(text, &pos);
        if (text.len == 0) {
            ag_diag_error(d->diags, pos, "a route is \"[METHODS] PATTERN: ACTION\"",
                          "there is no pattern");
            return AG_EINVAL;
        }
        if (text.ptr[0] == '"' && !quoted) {
            if (ag_dsl_unquote(d, pos, text, &text) != AG_OK) {
                return AG_EINVAL;
            }
            pos = ag_pos_at(pos, 1);
            quoted = true;
            plain = false;
            continue;
        }
        if (text.ptr[0] == '\'') {
            ag_diag_error(d->diags, pos, AG_DSL_SINGLE, "\"%.*s\" is not a pattern",
                          AG_DSL_SHOW(text));
            return AG_EINVAL;
        }
        word = first_word(text);
        if (!is_place(word)) {
            if (add_method(d, pos, word, &p) != AG_OK) {
                return AG_EINVAL;
            }
            pos = ag_pos_at(pos, word.len);
            text = ag_span_sub(text, word.len, text.len);
            continue;
        }
        if (plain && word.len < text.len) {
            ag_diag_error(d->diags, ag_pos_at(pos, word.len),
                          "write a space in a path as %20, or put the pattern in quotes",
                          "text after the pattern");
            return AG_EINVAL;
        }
        if (parse_place(d, pos, text, &p) != AG_OK) {
            return AG_EINVAL;
        }
        *out_pattern = p;
        return AG_OK;
    }
}
