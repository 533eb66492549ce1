#include "engine/foreign.h"
#include "proto/uri.h"
#include "router/dsl_lex.h"

static const char *const schemes[] = {"http", "https", "h2c", "h2", "ws", "wss"};

#define FROM_PATTERN "a target has what the pattern has matched: *, :name"

/* What the parser of one action works with. */
struct action {
    struct ag_dsl d;
    const struct ag_pattern *pattern; /* NULL: it had mistakes, parameters cannot be checked */
    struct ag_action_decl *out;
};

static enum ag_status mistake(struct action *a, struct ag_pos pos, const char *hint,
                              const char *what, struct ag_span about)
{
    ag_diag_error(a->d.diags, pos, hint, "\"%.*s\" %s", AG_DSL_SHOW(about), what);
    return AG_EINVAL;
}

static size_t word_len(struct ag_span s)
{
    size_t n = 0;

    while (n < s.len && !ag_dsl_is_space(s.ptr[n])) {
        n++;
    }
    return n;
}

/* ---- templates: paths with parameters ---- */

/* The index of the parameter that segment `s` (":id", "*", "*rest") names, or -1 after a diagnosis. */
static int find_param(struct action *a, struct ag_pos pos, struct ag_span s)
{
    bool splat = s.ptr[0] == '*';
    struct ag_span name = ag_span_sub(s, 1, s.len);
    const char *hint = splat ? "end the pattern with /*" : NULL;
    const char *names[AG_PARAMS_MAX];
    size_t count = 0;

    for (uint16_t i = 0; i < a->pattern->param_count; i++) {
        const struct ag_param_spec *p = &a->pattern->params[i];

        if (p->splat == splat && (ag_span_eq(p->name, name) || (splat && name.len == 0))) {
            return i;
        }
        if (!p->splat) {
            names[count++] = ag_arena_strdup(a->d.arena, p->name);
        }
    }
    if (!splat) {
        hint = ag_diag_nearest(a->d.diags, name, names, count);
        hint = hint ? hint : "a target's :name is one of the pattern's";
    }
    (void)mistake(a, pos, hint, "is not in the pattern", s);
    return -1;
}

/* Whether a target's segment names a parameter; AG_EINVAL when it only looks like one. */
static enum ag_status is_param(struct action *a, struct ag_pos pos, struct ag_span s,
                               bool *out_param)
{
    struct ag_span name;

    *out_param = s.len > 0 && (s.ptr[0] == ':' || s.ptr[0] == '*');
    if (!*out_param) {
        return AG_OK;
    }
    name = ag_span_sub(s, 1, s.len);
    if (ag_dsl_is_name(name) || (s.ptr[0] == '*' && name.len == 0)) {
        return AG_OK;
    }
    return mistake(a, pos, "parameters stand as whole segments: :name, * or *name",
                   "is not a parameter", s);
}

/* Collects parts; neighbouring literals are one. */
struct parts {
    struct ag_template_part *v;
    uint16_t count;
    struct ag_buf literal; /* the open literal's bytes; earlier ones lie before it */
    size_t from;
};

static void close_literal(struct parts *p)
{
    if (p->literal.len > p->from) {
        p->v[p->count++] = (struct ag_template_part){
            ag_span(p->literal.ptr + p->from, p->literal.len - p->from), -1};
        p->from = p->literal.len;
    }
}

static bool has_param(const struct ag_pattern *p, struct ag_span name)
{
    for (uint16_t i = 0; i < p->param_count; i++) {
        if (!p->params[i].splat && ag_span_eq(p->params[i].name, name)) {
            return true;
        }
    }
    return false;
}

/* "new*" and "u-:id" are literal, though the pattern has what they seem to stand for. */
static void warn_inner_param(const struct action *a, struct ag_pos pos, struct ag_span s)
{
    for (size_t i = 1; i < s.len && a->pattern; i++) {
        size_t end = i + 1;

        while (end < s.len && ag_dsl_is_name(ag_span_sub(s, i + 1, end + 1))) {
            end++;
        }
        if ((s.ptr[i] == '*' && a->pattern->has_splat) ||
            (s.ptr[i] == ':' && has_param(a->pattern, ag_span_sub(s, i + 1, end)))) {
            ag_diag_warn(a->d.diags, ag_pos_at(pos, i),
                         "parameters stand as whole segments: put a / before it",
                         "\"%.*s\" is taken literally", AG_DSL_SHOW(ag_span_sub(s, i, end)));
            return;
        }
    }
}

/* One segment of a target. `normal`: a URL path, whose literals take the form that requests have. */
static enum ag_status add_segment(struct action *a, struct ag_pos pos, struct ag_span s,
                                  bool normal, struct parts *p)
{
    bool param = false;
    int index;

    if (is_param(a, pos, s, &param) != AG_OK) {
        return AG_EINVAL;
    }
    if (!param) {
        struct ag_span text = s;

        warn_inner_param(a, pos, s);
        if (normal && ag_dsl_literal(&a->d, pos, s, &text) != AG_OK) {
            return AG_EINVAL;
        }
        ag_buf_put(&p->literal, text);
        return AG_OK;
    }
    if (!a->pattern) {
        return AG_OK;
    }
    index = find_param(a, pos, s);
    if (index < 0) {
        return AG_EINVAL;
    }
    close_literal(p);
    p->v[p->count++] = (struct ag_template_part){{NULL, 0}, (int16_t)index};
    a->out->has_params = true;
    return AG_OK;
}

/* Compiles "prefix" + path + "suffix" into out->target; parameters are looked for in the path alone. */
static enum ag_status compile_target(struct action *a, struct ag_span whole, struct ag_pos pos,
                                     size_t path_from, size_t path_to, bool normal)
{
    size_t cap = whole.len * 3 + 1, segments = 1, at = path_from;
    struct parts p = {0};

    for (size_t i = path_from; i < path_to; i++) {
        segments += whole.ptr[i] == '/';
    }
    if (segments > AG_SEGMENTS_MAX) {
        return mistake(a, pos, NULL, "has more than 64 segments", whole);
    }
    p.v = ag_arena_alloc(a->d.arena, (segments * 2 + 2) * sizeof(*p.v));
    p.literal = ag_buf(ag_arena_alloc(a->d.arena, cap), cap);
    ag_buf_put(&p.literal, ag_span_sub(whole, 0, path_from));
    while (at < path_to) {
        size_t n;

        if (whole.ptr[at] == '/') {
            ag_buf_putc(&p.literal, '/');
            at++;
            continue;
        }
        n = ag_span_find(ag_span_sub(whole, at, path_to), '/');
        if (add_segment(a, ag_pos_at(pos, at), ag_span_sub(whole, at, at + n), normal, &p) !=
            AG_OK) {
            return AG_EINVAL;
        }
        at += n;
    }
    ag_buf_put(&p.literal, ag_span_sub(whole, path_to, whole.len));
    close_literal(&p);
    AG_ASSERT(!p.literal.overflow && p.count <= segments * 2 + 2);
    a->out->target = (struct ag_template){p.v, p.count};
    return AG_OK;
}

/* ---- proxy ---- */

static enum ag_status check_authority(struct action *a, struct ag_pos pos, struct ag_span authority)
{
    size_t at = 0;

    if (authority.len == 0) {
        ag_diag_error(a->d.diags, pos, "http://HOST[:PORT], or an upstream of proxy.upstreams",
                      "the target has no host");
        return AG_EINVAL;
    }
    while (at <= authority.len) {
        size_t n = ag_span_find(ag_span_sub(authority, at, authority.len), ',');
        struct ag_span one = ag_span_sub(authority, at, at + n), host;
        struct ag_pos one_pos = ag_pos_at(pos, at);
        uint16_t port = 0;

        if (ag_span_find(one, '*') < one.len || (one.len > 0 && one.ptr[0] == ':')) {
            return mistake(a, one_pos, "parameters can stand in the path only",
                           "cannot be a host: it would let clients choose the upstream", one);
        }
        if (ag_span_find(one, '@') < one.len) {
            return mistake(a, one_pos, "set the Authorization field with the headers filter",
                           "has user information", one);
        }
        if (one.len == 0 || ag_authority_parse(one, &host, &port) != AG_OK) {
            bool ends = one.len && one.ptr[one.len - 1] == ';';

            return mistake(a, one_pos,
                           ends ? "leave the semicolon out"
                                : "HOST, HOST:PORT, [IPV6]:PORT, or several with commas",
                           "is not a host", one);
        }
        at += n + 1;
    }
    return AG_OK;
}

/* "unix:/path:" with the path of the request's target after the second colon. Returns its length. */
static size_t unix_len(struct ag_span s)
{
    size_t from = sizeof("unix:") - 1;
    size_t colon = ag_span_find(ag_span_sub(s, from, s.len), ':');

    return colon < s.len - from ? from + colon + 1 : s.len;
}

static enum ag_status take_authority(struct action *a, struct ag_pos pos, struct ag_span s,
                                     size_t *out_len)
{
    struct ag_action_decl *out = a->out;
    size_t n;

    out->authority_pos = pos;
    if (!ag_span_starts(s, AG_SPAN("unix:"))) {
        *out_len = ag_span_find(s, '/');
        out->authority = ag_span_sub(s, 0, *out_len);
        return check_authority(a, pos, out->authority);
    }
    n = unix_len(s);
    out->authority = ag_span_sub(s, 0, n);
    if (n < 7 || s.ptr[5] != '/') {
        return mistake(a, pos, "http://unix:/run/app.sock:/path", "has no absolute socket path",
                       out->authority);
    }
    if (ag_span_find(out->authority, '*') < out->authority.len) {
        return mistake(a, pos, "end the socket's path with a colon: http://unix:/run/app.sock:/*",
                       "has a splat in the socket's path", out->authority);
    }
    if (s.ptr[n - 1] != ':') {
        out->authority =
            ag_span_str(ag_arena_printf(a->d.arena, "%.*s:", (int)n, (const char *)s.ptr));
    }
    *out_len = n;
    return AG_OK;
}

/* A splat whose target is "http://host/", as nginx has it: all would go to that one path. */
static void warn_lost_splat(const struct action *a)
{
    const struct ag_pattern *p = a->pattern;
    struct ag_span path = a->out->path;

    if (p && p->count && p->segments[p->count - 1].kind == AG_SEG_SPLAT && path.len &&
        path.ptr[path.len - 1] == '/' && ag_span_find(path, '*') == path.len) {
        ag_diag_warn(a->d.diags, a->out->path_pos,
                     "end it with /* to pass on what the pattern's * has matched",
                     "every request of the route goes to the path \"%.*s\"", AG_DSL_SHOW(path));
    }
}

static enum ag_status parse_proxy(struct action *a, struct ag_pos pos, struct ag_span s)
{
    struct ag_action_decl *out = a->out;
    size_t n = ag_span_find(s, ':'), used = 0, bad;
    struct ag_span rest;
    char *name = ag_arena_strdup(a->d.arena, ag_span_sub(s, 0, n));

    out->kind = AG_ACTION_PROXY;
    for (char *c = name; *c; c++) {
        *c = (char)ag_ascii_lower((uint8_t)*c);
    }
    out->scheme = ag_span_str(name);
    for (size_t i = 0; i < AG_COUNT(schemes) && used == 0; i++) {
        used = ag_span_eq(out->scheme, ag_span_str(schemes[i])) ? n + 3 : 0;
    }
    if (used == 0) {
        const char *hint = ag_diag_nearest(a->d.diags, out->scheme, schemes, AG_COUNT(schemes));

        return mistake(a, pos, hint ? hint : "one of http, https, h2c, h2, ws, wss",
                       "is not a scheme", out->scheme);
    }
    pos = ag_pos_at(pos, used);
    rest = ag_span_sub(s, used, s.len);
    if (word_len(rest) < rest.len) {
        return mistake(a, ag_pos_at(pos, word_len(rest)), "write a space in a path as %20",
                       "has text after it", ag_span_sub(rest, 0, word_len(rest)));
    }
    if (take_authority(a, pos, rest, &used) != AG_OK) {
        return AG_EINVAL;
    }
    out->path_pos = ag_pos_at(pos, used);
    out->path = ag_span_sub(rest, used, rest.len);
    out->has_path = out->path.len > 0;
    for (bad = 0; bad < out->path.len && out->path.ptr[bad] != '?' && out->path.ptr[bad] != '#';) {
        bad++;
    }
    if (bad < out->path.len) {
        return mistake(
            a, ag_pos_at(out->path_pos, bad), "leave it out: the request's own query is kept",
            "cannot stand in a proxy target", ag_span_sub(out->path, bad, out->path.len));
    }
    if (out->has_path && out->path.ptr[0] != '/') {
        return mistake(a, out->path_pos, "begin it with /", "is not a path", out->path);
    }
    ag_foreign_warn(a->d.diags, out->path_pos, out->path, FROM_PATTERN);
    warn_lost_splat(a);
    return compile_target(a, out->path, out->path_pos, 0, out->path.len, true);
}

/* ---- static ---- */

static enum ag_status parse_static(struct action *a, struct ag_pos pos, struct ag_span s,
                                   bool plain)
{
    struct ag_action_decl *out = a->out;
    size_t n = word_len(s);

    out->kind = AG_ACTION_STATIC;
    out->path = s;
    out->path_pos = pos;
    out->has_path = true;
    if (n < s.len && plain) {
        return mistake(a, ag_pos_at(pos, n), "put a path with spaces in quotes",
                       "has text after it", ag_span_sub(s, 0, n));
    }
    if (ag_dsl_no_controls(&a->d, pos, s, "") != AG_OK) {
        return AG_EINVAL;
    }
    return compile_target(a, s, pos, 0, s.len, false);
}

/* ---- those that begin with a status ---- */

static bool is_redirect_status(unsigned status)
{
    return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

/* Where the path of a redirect's target begins and ends; the authority must be free of parameters. */
static enum ag_status redirect_path(struct action *a, struct ag_pos pos, struct ag_span s,
                                    size_t *out_from, size_t *out_to)
{
    size_t from = 0, to, colon = ag_span_find(s, ':');

    if (s.ptr[0] != '/') {
        static const struct ag_span sep = AG_SPAN_INIT("://");

        if (colon == s.len || colon == 0 || !ag_span_starts(ag_span_sub(s, colon, s.len), sep) ||
            (!ag_span_ieq(ag_span_sub(s, 0, colon), AG_SPAN("http")) &&
             !ag_span_ieq(ag_span_sub(s, 0, colon), AG_SPAN("https")))) {
            return mistake(a, pos, "a redirect goes to /path or http(s)://host/path",
                           "is not a redirect's target", s);
        }
        from = colon + sep.len;
        to = from + ag_span_find(ag_span_sub(s, from, s.len), '/');
        if (check_authority(a, ag_pos_at(pos, from), ag_span_sub(s, from, to)) != AG_OK) {
            return AG_EINVAL;
        }
        from = to;
    } else if (s.len > 1 && (s.ptr[1] == '/' || s.ptr[1] == '\\')) {
        return mistake(a, pos, "write http:// or https:// for another host",
                       "would send browsers to another host", s);
    }
    for (to = from; to < s.len && s.ptr[to] != '?' && s.ptr[to] != '#';) {
        to++;
    }
    *out_from = from;
    *out_to = to;
    return AG_OK;
}

static enum ag_status parse_redirect(struct action *a, struct ag_pos pos, struct ag_span s)
{
    struct ag_action_decl *out = a->out;
    size_t from = 0, to = 0;

    out->kind = AG_ACTION_REDIRECT;
    s = ag_dsl_trim(s, &pos);
    out->path = s;
    out->path_pos = pos;
    out->has_path = true;
    if (!is_redirect_status(out->status)) {
        ag_diag_error(a->d.diags, out->pos, "301, 302, 303, 307 or 308",
                      "%u is not the status of a redirect", out->status);
        return AG_EINVAL;
    }
    if (s.len == 0) {
        ag_diag_error(a->d.diags, pos, "FOUND -> /path", "the redirect has no target");
        return AG_EINVAL;
    }
    ag_foreign_warn(a->d.diags, pos, s, FROM_PATTERN);
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] <= 0x20 || s.ptr[i] >= 0x7f) {
            return mistake(a, ag_pos_at(pos, i), "percent-encode it (%20 for a space)",
                           "cannot stand in a URL", ag_span_sub(s, i, s.len));
        }
    }
    if (redirect_path(a, pos, s, &from, &to) != AG_OK) {
        return AG_EINVAL;
    }
    return compile_target(a, s, pos, from, to, false);
}

static enum ag_status check_status(struct action *a, struct ag_pos pos, unsigned status)
{
    if (status < 200) {
        ag_diag_error(a->d.diags, pos, "a final status is 200 to 599",
                      "%u is no final answer: the client would wait for another", status);
        return AG_EINVAL;
    }
    if (status > 599) {
        ag_diag_error(a->d.diags, pos, "a final status is 200 to 599", "there is no status %u",
                      status);
        return AG_EINVAL;
    }
    return AG_OK;
}

static bool is_digits(struct ag_span s)
{
    uint64_t v;

    return ag_span_u64(s, &v) == AG_OK;
}

/* "http:" and the like at the start, or 0. */
static size_t scheme_len(struct ag_span word)
{
    size_t n = ag_span_find(word, ':');

    for (size_t i = 0; n < word.len && i < AG_COUNT(schemes); i++) {
        if (ag_span_ieq(ag_span_sub(word, 0, n), ag_span_str(schemes[i]))) {
            return n + 1;
        }
    }
    return 0;
}

static enum ag_status unknown_word(struct action *a, struct ag_pos pos, struct ag_span word)
{
    struct ag_span upper = ag_dsl_upper(a->d.arena, word), near;
    unsigned distance = 0;
    const char *hint = "a status (OK, 404), *, http://..., /dir/, ./file, or FOUND -> /path";

    near = ag_status_nearest_word(upper, &distance);
    if (word.ptr[0] == '\'') {
        hint = AG_DSL_SINGLE;
    } else if (ag_foreign_hint(word)) {
        hint = ag_foreign_hint(word);
    } else if (scheme_len(word)) {
        struct ag_span rest = ag_span_sub(word, scheme_len(word), word.len);

        while (rest.len && rest.ptr[0] == '/') {
            rest = ag_span_sub(rest, 1, rest.len);
        }
        hint = ag_arena_printf(a->d.arena, "did you mean %.*s//%.*s?", (int)scheme_len(word),
                               (const char *)word.ptr, AG_DSL_SHOW(rest));
    } else if (distance <= 1 + word.len / 4) {
        hint = ag_arena_printf(a->d.arena, "did you mean %.*s?", AG_DSL_SHOW(near));
    } else if (ag_span_find(word, ':') < word.len ||
               (word.len > 0 && ag_span_find(word, '/') < word.len - 1)) {
        hint = ag_arena_printf(a->d.arena, "did you mean http://%.*s to proxy, or ./%.*s?",
                               AG_DSL_SHOW(word), AG_DSL_SHOW(word));
    } else if (word.len > 0 && word.ptr[word.len - 1] == '/') {
        hint = ag_arena_printf(a->d.arena, "did you mean ./%.*s?", AG_DSL_SHOW(word));
    }
    return mistake(a, pos, hint, "is neither a status nor another action", word);
}

/* Status codes that never have content (RFC 9110 sections 15.3.5, 15.3.6, 15.4.5). */
static bool is_bodiless(unsigned status)
{
    return status == 204 || status == 205 || status == 304;
}

/* The body of a redirect that is written without "->", or without the space behind it. */
static bool looks_like_target(struct ag_span s)
{
    return s.ptr[0] == '/' || ag_span_starts(s, AG_SPAN("->")) ||
           ag_span_starts(s, AG_SPAN("http://")) || ag_span_starts(s, AG_SPAN("https://"));
}

static enum ag_status parse_status(struct action *a, struct ag_pos pos, struct ag_span s)
{
    struct ag_action_decl *out = a->out;
    size_t n = word_len(s);
    struct ag_span word = ag_span_sub(s, 0, n), rest;
    struct ag_pos rest_pos = ag_pos_at(pos, n);

    if (is_digits(word)) {
        if (n != 3) {
            return mistake(a, pos, "a status has three digits", "is not a status", word);
        }
        out->status = (unsigned)(word.ptr[0] - '0') * 100u + (unsigned)(word.ptr[1] - '0') * 10u +
                      (unsigned)(word.ptr[2] - '0');
    } else {
        out->status = ag_status_from_word(word);
        if (out->status == 0) {
            return unknown_word(a, pos, word);
        }
    }
    if (check_status(a, pos, out->status) != AG_OK) {
        return AG_EINVAL;
    }
    rest = ag_dsl_trim(ag_span_sub(s, n, s.len), &rest_pos);
    if (ag_span_starts(rest, AG_SPAN("->")) && (rest.len == 2 || ag_dsl_is_space(rest.ptr[2]))) {
        return parse_redirect(a, ag_pos_at(rest_pos, 2), ag_span_sub(rest, 2, rest.len));
    }
    out->kind = ag_span_eq(rest, AG_SPAN("*")) ? AG_ACTION_ECHO : AG_ACTION_FIXED;
    if (rest.len > 0 && is_bodiless(out->status)) {
        ag_diag_error(a->d.diags, rest_pos, "leave the body out", "%u answers have no body",
                      out->status);
        return AG_EINVAL;
    }
    if (is_redirect_status(out->status) && (rest.len == 0 || looks_like_target(rest))) {
        ag_diag_warn(a->d.diags, pos, "FOUND -> /path, with a space behind ->",
                     "%u without a target", out->status);
    }
    out->body = out->kind == AG_ACTION_FIXED ? rest : AG_SPAN("");
    out->body_pos = rest_pos;
    return AG_OK;
}

static enum ag_status parse_any(struct action *a, struct ag_pos pos, struct ag_span s, bool plain)
{
    struct ag_span word = ag_span_sub(s, 0, word_len(s));
    size_t colon = ag_span_find(word, ':');

    a->out->pos = pos;
    if (ag_span_starts(s, AG_SPAN("/")) || ag_span_starts(s, AG_SPAN("./")) ||
        ag_span_starts(s, AG_SPAN("../"))) {
        return parse_static(a, pos, s, plain);
    }
    if (s.ptr[0] == '*') {
        a->out->kind = AG_ACTION_ECHO;
        a->out->status = 200;
        return s.len == 1 ? AG_OK
                          : mistake(a, pos, "echo is * alone, or STATUS *", "is not an action", s);
    }
    if (colon < word.len && ag_span_starts(ag_span_sub(word, colon, word.len), AG_SPAN("://"))) {
        return parse_proxy(a, pos, s);
    }
    return parse_status(a, pos, s);
}

enum ag_status ag_dsl_action(struct ag_dsl *d, struct ag_pos pos, struct ag_span text, bool plain,
                             const struct ag_pattern *pattern, struct ag_action_decl *out_action)
{
    struct ag_action_decl decl = {.status = 0};
    struct action a = {*d, pattern, &decl};

    text = ag_dsl_trim(text, &pos);
    if (text.len > 0 && text.ptr[0] == '"') {
        if (ag_dsl_unquote(d, pos, text, &text) != AG_OK) {
            return AG_EINVAL;
        }
        pos = ag_pos_at(pos, 1);
        text = ag_dsl_trim(text, &pos);
        plain = false;
    }
    if (text.len == 0) {
        ag_diag_error(d->diags, pos,
                      "a status (OK), *, http://..., /dir/, ./file, or FOUND -> /path",
                      "there is no action");
        return AG_EINVAL;
    }
    if (ag_dsl_no_controls(d, pos, text, "\t\n\r") != AG_OK ||
        parse_any(&a, pos, text, plain) != AG_OK) {
        return AG_EINVAL;
    }
    *out_action = decl;
    return AG_OK;
}
