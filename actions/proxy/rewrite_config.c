#include "actions/proxy/rewrite_config.h"

#include "proto/uri.h"

#define ENTRIES_MAX 32u /* parameters, or maps of one kind */

/* Reading one route. */
struct reading {
    struct ag_action_build *b;
    const struct ag_action_decl *decl;
    struct ag_rewrite *rw;
};

static bool is_there(const struct ag_node *n)
{
    return n && n->kind != AG_NODE_NULL;
}

static uint16_t count_of(const struct ag_node *n)
{
    uint16_t count = 0;

    for (const struct ag_node *c = n ? n->first : NULL; c && count <= ENTRIES_MAX; c = c->next) {
        count++;
    }
    return count;
}

static bool is_map(struct reading *r, const struct ag_node *n, const char *form)
{
    if (n->kind != AG_NODE_MAP) {
        ag_diag_error(r->b->diags, n->pos, form, "expected a mapping");
        return false;
    }
    if (count_of(n) > ENTRIES_MAX) {
        ag_diag_error(r->b->diags, n->pos, NULL, "more than %u entries", ENTRIES_MAX);
        return false;
    }
    return true;
}

/* ---- prefixes ---- */

/* The path that begins in the pattern's text: behind methods, host and port. */
static struct ag_span pattern_path(struct ag_span pattern)
{
    return ag_span_sub(pattern, ag_span_find(pattern, '/'), pattern.len);
}

/* Whether some path of the pattern lies below the prefix, segment by segment. */
static bool may_be_below(struct ag_span pattern, struct ag_span prefix)
{
    struct ag_span path = pattern_path(pattern);

    for (unsigned i = 0;; i++) {
        struct ag_span want = ag_path_segment(prefix, i, false);
        struct ag_span have = ag_path_segment(path, i, false);

        if (want.len == 0 || (have.len && have.ptr[0] == '*')) {
            return true;
        }
        if (!ag_span_eq(want, have) && !(have.len && have.ptr[0] == ':')) {
            return false;
        }
    }
}

static bool read_prefix(struct reading *r, const char *key, struct ag_span *out)
{
    const struct ag_node *n = ag_node_get(r->decl->options, key);
    struct ag_span text;

    if (!n) {
        return true;
    }
    if (!ag_node_text(n, r->b->diags, &text)) {
        return false;
    }
    if (r->decl->has_path) {
        ag_diag_error(r->b->diags, n->key_pos,
                      "write the whole path in the target, as in http://host/v1/*, or none",
                      "%s has no effect: the target says what the path is", key);
        return false;
    }
    if (text.len > 1 && text.ptr[text.len - 1] == '/') {
        text.len--;
    }
    if (text.len < 2 || text.ptr[0] != '/' || text.ptr[1] == '/' || !ag_path_is_normal(text)) {
        ag_diag_error(r->b->diags, n->pos, "such as /api", "%s: expected a path's beginning", key);
        return false;
    }
    *out = text;
    return true;
}

static bool read_prefixes(struct reading *r)
{
    const struct ag_node *strip = ag_node_get(r->decl->options, "strip_prefix");

    if (!read_prefix(r, "strip_prefix", &r->rw->strip) ||
        !read_prefix(r, "add_prefix", &r->rw->add)) {
        return false;
    }
    if (r->rw->strip.len && !may_be_below(r->b->pattern, r->rw->strip)) {
        ag_diag_error(r->b->diags, strip->pos, "it stands at the beginning of the route's paths",
                      "no path of the route begins with %.*s", (int)r->rw->strip.len,
                      (const char *)r->rw->strip.ptr);
        return false;
    }
    return true;
}

/* ---- the query ---- */

static bool read_param(struct reading *r, const struct ag_node *n, bool removes, bool value,
                       struct ag_rewrite_param *out)
{
    struct ag_span name = n->key, text;
    struct ag_buf encoded;

    if (!value && !ag_node_text(n, r->b->diags, &name)) {
        return false;
    }
    if (name.len == 0 || name.len > 255) {
        ag_diag_error(r->b->diags, value ? n->key_pos : n->pos, "1 to 255 bytes, not encoded",
                      "not a parameter's name");
        return false;
    }
    encoded = ag_buf(ag_arena_alloc(r->b->arena, name.len * 3), name.len * 3);
    ag_rewrite_encode(name, &encoded);
    *out = (struct ag_rewrite_param){
        .name = name, .encoded = ag_buf_span(&encoded), .removes = removes};
    if (!value) {
        return true;
    }
    if (!ag_node_text(n, r->b->diags, &text)) {
        return false;
    }
    out->value = ag_vars_compile(r->b->arena, r->b->diags, n->pos, text);
    return out->value != NULL;
}

static bool read_params(struct reading *r, const struct ag_node *n, bool removes, bool value,
                        struct ag_rewrite_param *v, uint16_t *io_count)
{
    bool ok = true;

    if (!is_there(n)) {
        return true;
    }
    if (value ? !is_map(r, n, "{name: value}") : n->kind == AG_NODE_MAP) {
        if (!value) {
            ag_diag_error(r->b->diags, n->pos, "remove: [name, name]", "expected a list");
        }
        return false;
    }
    for (const struct ag_node *c = n->kind == AG_NODE_SCALAR ? n : n->first; c;
         c = n->kind == AG_NODE_SCALAR ? NULL : c->next) {
        if (*io_count == ENTRIES_MAX) {
            ag_diag_error(r->b->diags, c->pos, NULL, "more than %u changes of a query",
                          ENTRIES_MAX);
            return false;
        }
        ok = read_param(r, c, removes, value, &v[(*io_count)++]) && ok;
    }
    return ok;
}

static bool read_query(struct reading *r)
{
    static const char *const keys[] = {"set", "add", "remove"};
    const struct ag_node *n = ag_node_get(r->decl->options, "query");
    struct ag_rewrite_param *v;
    uint16_t count = 0;
    uint32_t errors = r->b->diags->errors;

    if (!is_there(n)) {
        return true;
    }
    if (!ag_node_check_keys(n, r->b->diags, "query", keys, AG_COUNT(keys)) ||
        r->b->diags->errors != errors) {
        return false;
    }
    v = ag_arena_zalloc(r->b->arena, ENTRIES_MAX * sizeof(*v));
    if (!read_params(r, ag_node_get(n, "remove"), true, false, v, &count) ||
        !read_params(r, ag_node_get(n, "set"), true, true, v, &count) ||
        !read_params(r, ag_node_get(n, "add"), false, true, v, &count)) {
        return false;
    }
    r->rw->params = v;
    r->rw->param_count = count;
    return true;
}

/* ---- maps ---- */

static bool is_web(struct ag_span s)
{
    return ag_span_starts(s, AG_SPAN("http://")) || ag_span_starts(s, AG_SPAN("https://"));
}

/* Where scheme and authority of a URL end; 0 for a path. */
static size_t authority_end(struct ag_span s)
{
    size_t at = is_web(s) ? ag_span_find(s, '/') + 2 : 0;

    return at ? at + ag_span_find(ag_span_sub(s, at, s.len), '/') : 0;
}

static bool ends_in_slash(struct ag_span s)
{
    return s.len && s.ptr[s.len - 1] == '/';
}

/* "/path" or "http://host..."; for cookies paths alone. */
static bool is_place(struct ag_span s, bool urls)
{
    return (s.len && s.ptr[0] == '/' && !ag_span_starts(s, AG_SPAN("//"))) ||
           (urls && is_web(s) && authority_end(s) > ag_span_find(s, '/') + 2);
}

static bool read_place(struct reading *r, const struct ag_node *n, bool urls, struct ag_span *out)
{
    if (!ag_node_text(n, r->b->diags, out)) {
        return false;
    }
    if (is_place(*out, urls) && out->len <= UINT16_MAX && ag_is_field_value(*out) &&
        ag_span_find(*out, ' ') == out->len) {
        return true;
    }
    ag_diag_error(r->b->diags, n->pos, urls ? "/path/, or http://host/path/" : "such as /app/",
                  "expected where a path begins");
    return false;
}

static bool read_map(struct reading *r, struct ag_span from, const struct ag_node *to, bool urls,
                     struct ag_rewrite_map *out)
{
    struct ag_span text;

    if (!read_place(r, to, urls, &text)) {
        return false;
    }
    if (ends_in_slash(from) != ends_in_slash(text)) {
        ag_diag_error(r->b->diags, to->pos, "what follows is put behind it",
                      "one ends in a slash, the other does not");
        return false;
    }
    *out = (struct ag_rewrite_map){.from = from,
                                   .any_case = (uint16_t)authority_end(from),
                                   .to = ag_vars_compile(r->b->arena, r->b->diags, to->pos, text)};
    return out->to != NULL;
}

/* ---- redirects ---- */

static bool read_redirect(struct reading *r, const struct ag_node *n,
                          struct ag_rewrite_redirects *out, struct ag_rewrite_map *v)
{
    static const char *const keys[] = {"from", "to"};
    const struct ag_node *from = ag_node_get(n, "from"), *to = ag_node_get(n, "to");
    struct ag_span text;

    if (n->kind == AG_NODE_SCALAR && ag_span_eq(n->text, AG_SPAN("auto"))) {
        out->automatic = true;
        return true;
    }
    if (n->kind != AG_NODE_MAP || !from || !to) {
        ag_diag_error(r->b->diags, n->pos, "{from: \"http://old.example/\", to: /}, or auto",
                      "this is no rule for redirects");
        return false;
    }
    return ag_node_check_keys(n, r->b->diags, "a rule for redirects", keys, AG_COUNT(keys)) &&
           read_place(r, from, true, &text) && read_map(r, text, to, true, &v[out->maps.count++]);
}

static bool read_redirect_list(struct reading *r, const struct ag_node *n,
                               struct ag_rewrite_redirects *out)
{
    struct ag_rewrite_map *v = ag_arena_zalloc(r->b->arena, ENTRIES_MAX * sizeof(*v));

    if (n->kind != AG_NODE_SEQ || count_of(n) > ENTRIES_MAX) {
        ag_diag_error(r->b->diags, n->pos, "auto, off, or a list of {from: ..., to: ...}",
                      n->kind == AG_NODE_SEQ ? "rewrite_redirects: too many rules"
                                             : "rewrite_redirects: this is none of its values");
        return false;
    }
    out->maps.v = v;
    for (const struct ag_node *c = n->first; c; c = c->next) {
        if (!read_redirect(r, c, out, v)) {
            return false;
        }
    }
    return true;
}

static bool read_redirects(struct reading *r, bool unlike)
{
    const struct ag_node *n = ag_node_get(r->decl->options, "rewrite_redirects");
    struct ag_rewrite_redirects *out = ag_arena_zalloc(r->b->arena, sizeof(*out));

    if (!n) {
        out->automatic =
            unlike || r->rw->strip.len || r->rw->add.len ||
            (r->decl->has_path && !ag_span_eq(pattern_path(r->b->pattern), r->decl->path));
    } else if (n->kind == AG_NODE_SCALAR && ag_span_eq(n->text, AG_SPAN("auto"))) {
        out->automatic = true;
    } else if (!(n->kind == AG_NODE_SCALAR && ag_span_eq(n->text, AG_SPAN("off"))) &&
               !read_redirect_list(r, n, out)) {
        return false;
    }
    r->rw->redirects = out->automatic || out->maps.count ? out : NULL;
    return true;
}

/* ---- cookies ---- */

static bool read_flag(struct reading *r, const struct ag_node *n, enum ag_rewrite_flag *out)
{
    bool on = false;

    if (!n) {
        return true;
    }
    if (!ag_node_bool(n, r->b->diags, &on)) {
        return false;
    }
    *out = on ? AG_REWRITE_SET : AG_REWRITE_REMOVE;
    return true;
}

static bool read_same_site(struct reading *r, const struct ag_node *n, struct ag_rewrite_cookies *c)
{
    static const char *const names[] = {"strict", "lax", "none", "off"};
    static const struct ag_span values[] = {AG_SPAN_INIT("Strict"), AG_SPAN_INIT("Lax"),
                                            AG_SPAN_INIT("None"), AG_SPAN_INIT("")};
    unsigned index = 0;

    if (!n) {
        return true;
    }
    if (!ag_node_enum(n, r->b->diags, names, AG_COUNT(names), &index)) {
        return false;
    }
    c->same_site_value = values[index];
    c->same_site = values[index].len ? AG_REWRITE_SET : AG_REWRITE_REMOVE;
    if (index == 2 && c->secure != AG_REWRITE_SET) {
        ag_diag_warn(r->b->diags, n->pos, "secure: true",
                     "browsers refuse cookies with SameSite=None that are not Secure");
    }
    return true;
}

static bool read_domain(struct reading *r, const struct ag_node *n, struct ag_rewrite_map *out)
{
    struct ag_span text = AG_SPAN("");

    *out = (struct ag_rewrite_map){.from = n->key};
    if (n->kind == AG_NODE_NULL) {
        return true;
    }
    if (!ag_node_text(n, r->b->diags, &text)) {
        return false;
    }
    if (!ag_is_field_value(text) || ag_span_find(text, ';') < text.len) {
        ag_diag_error(r->b->diags, n->pos, "such as example.com; empty: the host that is asked",
                      "not a domain");
        return false;
    }
    out->to = text.len ? ag_vars_compile(r->b->arena, r->b->diags, n->pos, text) : NULL;
    return text.len == 0 || out->to;
}

static bool read_cookie_path(struct reading *r, const struct ag_node *n, struct ag_rewrite_map *out)
{
    if (!is_place(n->key, false)) {
        ag_diag_error(r->b->diags, n->key_pos, "such as /app/", "expected where a path begins");
        return false;
    }
    return read_map(r, n->key, n, false, out);
}

static bool read_cookie_maps(struct reading *r, const struct ag_node *n, bool paths,
                             struct ag_rewrite_maps *out)
{
    struct ag_rewrite_map *v = ag_arena_zalloc(r->b->arena, ENTRIES_MAX * sizeof(*v));

    if (!is_there(n)) {
        return true;
    }
    if (!is_map(r, n, paths ? "path: {/: /app/}" : "domain: {app.internal: example.com}")) {
        return false;
    }
    out->v = v;
    for (const struct ag_node *c = n->first; c; c = c->next) {
        struct ag_rewrite_map *m = &v[out->count++];

        if (paths ? !read_cookie_path(r, c, m) : !read_domain(r, c, m)) {
            return false;
        }
    }
    return true;
}

static bool read_cookies(struct reading *r)
{
    static const char *const keys[] = {"domain", "path", "secure", "http_only", "same_site"};
    const struct ag_node *n = ag_node_get(r->decl->options, "cookies");
    struct ag_rewrite_cookies *c = ag_arena_zalloc(r->b->arena, sizeof(*c));
    uint32_t errors = r->b->diags->errors;

    if (!is_there(n)) {
        return true;
    }
    if (!ag_node_check_keys(n, r->b->diags, "cookies", keys, AG_COUNT(keys)) ||
        r->b->diags->errors != errors ||
        !read_cookie_maps(r, ag_node_get(n, "domain"), false, &c->domains) ||
        !read_cookie_maps(r, ag_node_get(n, "path"), true, &c->paths) ||
        !read_flag(r, ag_node_get(n, "secure"), &c->secure) ||
        !read_flag(r, ag_node_get(n, "http_only"), &c->http_only) ||
        !read_same_site(r, ag_node_get(n, "same_site"), c)) {
        return false;
    }
    r->rw->cookies = c;
    return true;
}

/* ---- all ---- */

enum ag_status ag_rewrite_read(struct ag_action_build *build, const struct ag_action_decl *decl,
                               bool unlike, const struct ag_rewrite **out)
{
    struct reading r = {build, decl, ag_arena_zalloc(build->arena, sizeof(*r.rw))};

    if (!read_prefixes(&r) || !read_query(&r) || !read_redirects(&r, unlike) || !read_cookies(&r)) {
        return AG_EINVAL;
    }
    *out = ag_rewrite_has_target(r.rw) || r.rw->redirects || r.rw->cookies ? r.rw : NULL;
    return AG_OK;
}

static void put_part(struct ag_buf *out, size_t from, struct ag_span text, struct ag_span value)
{
    ag_buf_put(out, out->len > from ? AG_SPAN(", ") : AG_SPAN(""));
    ag_buf_put(out, text);
    ag_buf_put(out, value);
}

void ag_rewrite_describe(const struct ag_rewrite *rw, struct ag_buf *out)
{
    size_t from = out->len;

    if (rw->strip.len) {
        put_part(out, from, AG_SPAN("without "), rw->strip);
    }
    if (rw->add.len) {
        put_part(out, from, AG_SPAN("below "), rw->add);
    }
    for (uint16_t i = 0; i < rw->param_count; i++) {
        const struct ag_rewrite_param *p = &rw->params[i];

        put_part(out, from,
                 !p->value    ? AG_SPAN("query without ")
                 : p->removes ? AG_SPAN("query sets ")
                              : AG_SPAN("query adds "),
                 p->name);
    }
    for (uint16_t i = 0; rw->redirects && i < rw->redirects->maps.count; i++) {
        put_part(out, from, AG_SPAN("redirects from "), rw->redirects->maps.v[i].from);
    }
    if (rw->redirects && rw->redirects->automatic) {
        put_part(out, from, AG_SPAN("redirects auto"), AG_SPAN(""));
    }
    if (rw->cookies) {
        put_part(out, from, AG_SPAN("cookies"), AG_SPAN(""));
    }
}
