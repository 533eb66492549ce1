#include "actions/fixed.h"
#include "actions/mime.h"
#include "actions/proxy/error_pages.h"
#include "actions/proxy/proxy_config.h"
#include "proto/uri.h"

#include <errno.h>

#define PAGES_MAX 64u
/* How long an upstream may take to say what stands for an error. */
#define ASK_MS 10000u

static const struct ag_span status_name = AG_SPAN_INIT("{status}");

/* ---- statuses ---- */

static bool read_status(struct ag_span s, uint16_t *out)
{
    uint64_t value;

    if (s.len != 3 || ag_span_u64(s, &value) != AG_OK || value < 400 || value > 599) {
        return false;
    }
    *out = (uint16_t)value;
    return true;
}

/* "404", "4xx", "500-504", "default". */
static bool read_statuses(struct ag_span s, struct ag_error_page *p)
{
    size_t dash = ag_span_find(s, '-');

    if (ag_span_eq(s, AG_SPAN("default"))) {
        p->from = 400;
        p->to = 599;
        return true;
    }
    if (s.len == 3 && (s.ptr[0] == '4' || s.ptr[0] == '5') &&
        ag_span_ieq(ag_span_sub(s, 1, 3), AG_SPAN("xx"))) {
        p->from = (uint16_t)(s.ptr[0] == '4' ? 400 : 500);
        p->to = (uint16_t)(p->from + 99);
        return true;
    }
    if (dash < s.len) {
        return read_status(ag_span_sub(s, 0, dash), &p->from) &&
               read_status(ag_span_sub(s, dash + 1, s.len), &p->to) && p->from <= p->to;
    }
    p->to = 0;
    if (!read_status(s, &p->from)) {
        return false;
    }
    p->to = p->from;
    return true;
}

/* ---- one page ---- */

static bool read_file(struct ag_action_build *b, const struct ag_node *n, struct ag_span text,
                      struct ag_error_page *p)
{
    const char *path = ag_node_path(b->arena, n, text);
    struct ag_answer a;

    ag_opener_file(b->opener, b->arena, path, AG_ERROR_FILE_MAX, &a);
    if (a.error || a.kind != AG_FILE_REGULAR) {
        ag_diag_error(b->diags, n->pos,
                      a.error == EFBIG ? "a page may have 1m"
                                       : "a text that is no file's path does not begin with / or .",
                      "%s cannot be read: %s", path,
                      a.error ? strerrordesc_np(a.error) : "it is no file");
        return false;
    }
    p->shown = text;
    p->body = a.text;
    p->type = ag_mime_type(text, NULL);
    return true;
}

static bool read_body(struct ag_action_build *b, const struct ag_node *n, struct ag_span text,
                      struct ag_error_page *p)
{
    if (text.len == 0) {
        ag_diag_error(b->diags, n->pos, "a text, a file such as ./404.html, or http://host/path",
                      "the page is empty");
        return false;
    }
    p->body = text;
    p->type = ag_fixed_type_of(text);
    return true;
}

/* The path must be one whatever the status. */
static bool check_path(const struct ag_error_page *p, struct ag_arena *arena)
{
    size_t max = p->path.len + p->rest.len + 3, mark;
    struct ag_buf text = ag_buf(ag_arena_alloc(arena, max), max);
    struct ag_buf normal = ag_buf(ag_arena_alloc(arena, max), max);
    struct ag_span path;

    ag_buf_put(&text, p->path);
    ag_buf_put(&text, p->tells_status ? AG_SPAN("404") : AG_SPAN(""));
    ag_buf_put(&text, p->rest);
    mark = ag_span_find(ag_buf_span(&text), '?');
    path = ag_span_sub(ag_buf_span(&text), 0, mark);
    return ag_path_normalise(path, &normal) == AG_OK &&
           (mark == text.len ||
            ag_query_is_valid(ag_span_sub(ag_buf_span(&text), mark + 1, text.len)));
}

static void split_path(struct ag_span path, struct ag_error_page *p)
{
    p->path = path;
    for (size_t at = 0; at + status_name.len <= path.len; at++) {
        if (ag_span_starts(ag_span_sub(path, at, path.len), status_name)) {
            p->path = ag_span_sub(path, 0, at);
            p->rest = ag_span_sub(path, at + status_name.len, path.len);
            p->tells_status = true;
            return;
        }
    }
}

static bool read_upstream(struct ag_action_build *b, const struct ag_node *n, struct ag_span text,
                          struct ag_error_page *p)
{
    size_t colon = ag_span_find(text, ':'), slash;
    struct ag_action_decl decl = {.kind = AG_ACTION_PROXY, .pos = n->pos};
    const struct ag_upstream *upstream;
    struct ag_span rest;

    decl.scheme = ag_span_sub(text, 0, colon);
    rest = ag_span_sub(text, ag_min_size(colon + 3, text.len), text.len);
    slash = ag_span_find(rest, '/');
    decl.authority = ag_span_sub(rest, 0, slash);
    decl.authority_pos = ag_pos_at(n->pos, text.len - rest.len);
    split_path(slash < rest.len ? ag_span_sub(rest, slash, rest.len) : AG_SPAN("/"), p);
    if (!ag_proxy_has_scheme(decl.scheme) || decl.authority.len == 0 || !check_path(p, b->arena)) {
        ag_diag_error(b->diags, n->pos, "such as http://sorry/{status}.html",
                      "this is no upstream with a path");
        return false;
    }
    upstream = ag_proxy_upstream_of(b, &decl);
    if (!upstream) {
        return false;
    }
    p->shown = text;
    p->target = ag_client_target_of(b->arena, upstream, p->path, ASK_MS);
    return true;
}

static bool is_one_word(struct ag_span s)
{
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] <= ' ') {
            return false;
        }
    }
    return true;
}

static bool is_url(struct ag_span s)
{
    size_t colon = ag_span_find(s, ':');
    struct ag_span scheme = ag_span_sub(s, 0, colon);

    return ag_span_starts(ag_span_sub(s, colon, s.len), AG_SPAN("://")) &&
           (ag_proxy_has_scheme(scheme) || (ag_is_token(scheme) && is_one_word(s)));
}

/* "errors/404.html" is hardly meant to be the page itself. */
static void warn_of_name(struct ag_action_build *b, const struct ag_node *n, struct ag_span text)
{
    if (is_one_word(text) && ag_mime_extension(text).len &&
        !ag_span_eq(ag_mime_type(text, NULL), AG_SPAN("application/octet-stream"))) {
        ag_diag_warn(b->diags, n->pos,
                     ag_arena_printf(b->arena, "the file is ./%.*s; {body: ...} for a text",
                                     (int)text.len, (const char *)text.ptr),
                     "the page is this text, not a file of that name");
    }
}

static bool is_path(struct ag_span s)
{
    return ag_span_starts(s, AG_SPAN("/")) || ag_span_starts(s, AG_SPAN("./")) ||
           ag_span_starts(s, AG_SPAN("../"));
}

static bool read_type(struct ag_action_build *b, const struct ag_node *n, struct ag_error_page *p)
{
    struct ag_span text;

    if (!n) {
        return true;
    }
    if (!ag_node_text(n, b->diags, &text)) {
        return false;
    }
    if (text.len == 0 || text.len > 255 || !ag_is_field_value(text) || p->target) {
        ag_diag_error(b->diags, n->pos,
                      p->target ? "the upstream tells the type" : "such as text/html",
                      "not the type of a page");
        return false;
    }
    p->type = text;
    return true;
}

static bool read_long(struct ag_action_build *b, const struct ag_node *n, struct ag_error_page *p)
{
    static const char *const keys[] = {"file", "body", "upstream", "type"};
    const struct ag_node *file = ag_node_get(n, "file"), *body = ag_node_get(n, "body");
    const struct ag_node *upstream = ag_node_get(n, "upstream");
    const struct ag_node *one = file ? file : body ? body : upstream;
    struct ag_span text;

    if (!ag_node_check_keys(n, b->diags, "a page", keys, AG_COUNT(keys))) {
        return false;
    }
    if (!one || (file != NULL) + (body != NULL) + (upstream != NULL) > 1) {
        ag_diag_error(b->diags, n->pos, "file, body or upstream, and type",
                      "a page is one of a file, a body and an upstream");
        return false;
    }
    return ag_node_text(one, b->diags, &text) &&
           (file   ? read_file(b, file, text, p)
            : body ? read_body(b, body, text, p)
                   : read_upstream(b, upstream, text, p)) &&
           read_type(b, ag_node_get(n, "type"), p);
}

static bool read_page(struct ag_action_build *b, const struct ag_node *n, struct ag_error_page *p)
{
    struct ag_span text;

    if (!read_statuses(n->key, p)) {
        ag_diag_error(b->diags, n->key_pos, "404, 4xx, 500-504, default; intercept: true",
                      "\"%.*s\" names no errors", (int)ag_min_size(n->key.len, 60),
                      (const char *)n->key.ptr);
        return false;
    }
    if (n->kind == AG_NODE_MAP) {
        return read_long(b, n, p);
    }
    if (n->kind == AG_NODE_NULL) {
        return read_body(b, n, AG_SPAN(""), p);
    }
    if (!ag_node_text(n, b->diags, &text)) {
        return false;
    }
    if (is_url(text)) {
        return read_upstream(b, n, text, p);
    }
    if (is_path(text)) {
        return read_file(b, n, text, p);
    }
    warn_of_name(b, n, text);
    return read_body(b, n, text, p);
}

/* ---- a level ---- */

enum ag_status ag_error_level_read(struct ag_action_build *b, const struct ag_node *owner,
                                   const struct ag_error_level **out)
{
    const struct ag_node *n = ag_node_get(owner, "error_pages");
    struct ag_error_level *level;
    struct ag_error_page *v;
    bool ok = true;

    *out = NULL;
    if (!n || n->kind == AG_NODE_NULL) {
        return AG_OK;
    }
    if (n->kind != AG_NODE_MAP) {
        ag_diag_error(b->diags, n->pos, "error_pages: {404: ./404.html, 5xx: \"try again\"}",
                      "error_pages must be a mapping");
        return AG_EINVAL;
    }
    level = ag_arena_zalloc(b->arena, sizeof(*level));
    v = ag_arena_zalloc(b->arena, PAGES_MAX * sizeof(*v));
    level->v = v;
    for (const struct ag_node *c = n->first; c; c = c->next) {
        if (ag_span_eq(c->key, AG_SPAN("intercept"))) {
            level->says_intercept = ag_node_bool(c, b->diags, &level->intercept);
            ok = ok && level->says_intercept;
        } else if (level->count == PAGES_MAX) {
            ag_diag_error(b->diags, c->key_pos, NULL, "more than %u pages", PAGES_MAX);
            return AG_EINVAL;
        } else {
            ok = read_page(b, c, &v[level->count++]) && ok;
        }
    }
    *out = level;
    return ok ? AG_OK : AG_EINVAL;
}

const struct ag_error_pages *ag_error_pages_over(struct ag_arena *arena,
                                                 const struct ag_error_pages *outer,
                                                 const struct ag_error_level *level)
{
    struct ag_error_pages *p;

    if (!level) {
        return outer;
    }
    p = ag_arena_alloc(arena, sizeof(*p));
    *p = (struct ag_error_pages){
        outer, level, level->says_intercept ? level->intercept : outer && outer->intercept};
    return p;
}

/* ---- for people ---- */

static void put_statuses(const struct ag_error_page *p, struct ag_buf *out)
{
    if (p->from == 400 && p->to == 599) {
        ag_buf_put(out, AG_SPAN("default"));
        return;
    }
    ag_buf_put_u64(out, p->from);
    if (p->from != p->to) {
        ag_buf_putc(out, '-');
        ag_buf_put_u64(out, p->to);
    }
}

void ag_error_level_describe(const struct ag_error_level *level, struct ag_buf *out)
{
    for (uint16_t i = 0; i < level->count; i++) {
        const struct ag_error_page *p = &level->v[i];

        ag_buf_put(out, i ? AG_SPAN(", ") : AG_SPAN(""));
        put_statuses(p, out);
        ag_buf_putc(out, ' ');
        ag_buf_put(out, p->shown.len ? p->shown : p->type);
        if (!p->target) {
            ag_buf_put(out, AG_SPAN(" ("));
            ag_buf_put_u64(out, p->body.len);
            ag_buf_put(out, AG_SPAN(" bytes)"));
        }
    }
    if (level->says_intercept) {
        ag_buf_put(out, level->count ? AG_SPAN(", ") : AG_SPAN(""));
        ag_buf_put(out, level->intercept ? AG_SPAN("upstreams' errors too")
                                         : AG_SPAN("not upstreams' errors"));
    }
}
