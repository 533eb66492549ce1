#include "actions/static/static_path.h"

#include "proto/uri.h"

static size_t longest_index(const struct ag_static_settings *s)
{
    size_t n = 1; /* "." */

    for (uint16_t i = 0; i < s->options.index_count; i++) {
        n = s->options.index[i].len > n ? s->options.index[i].len : n;
    }
    return n;
}

/* Segments of decoded text. `top`: it begins with the first segment of the request's path. */
static enum ag_static_path_result check_segments(struct ag_span text, bool dotfiles, bool top)
{
    bool first = true;

    while (text.len) {
        size_t len = ag_span_find(text, '/');
        struct ag_span segment = ag_span_sub(text, 0, len);
        bool well_known = top && first && ag_span_eq(segment, AG_SPAN(".well-known"));

        if (len == 0 || ag_span_eq(segment, AG_SPAN(".")) || ag_span_eq(segment, AG_SPAN(".."))) {
            return AG_STATIC_PATH_NONE;
        }
        if (segment.ptr[0] == '.' && !dotfiles && !well_known) {
            return AG_STATIC_PATH_HIDDEN;
        }
        text = ag_span_sub(text, len < text.len ? len + 1 : len, text.len);
        first = false;
    }
    return AG_STATIC_PATH_OK;
}

/* Appends a piece of the request's path. */
static enum ag_static_path_result put_decoded(struct ag_buf *out, struct ag_span piece,
                                              const struct ag_static_settings *s, bool top)
{
    struct ag_buf part = ag_buf(out->ptr + out->len, out->cap - out->len);

    if (ag_path_decode(piece, &part) != AG_OK) {
        return AG_STATIC_PATH_NONE;
    }
    out->overflow = out->overflow || part.overflow;
    out->len += part.len;
    return check_segments(ag_buf_span(&part), s->options.dotfiles, top);
}

static struct ag_span rest_of(const struct ag_exchange *ex, const struct ag_static_settings *s)
{
    return s->rest_segment == AG_STATIC_NO_REST
               ? ag_span(NULL, 0)
               : ag_path_segment(ex->req.path, s->rest_segment, true);
}

static bool ends_with_slash(struct ag_span path)
{
    return path.len > 0 && path.ptr[path.len - 1] == '/';
}

static enum ag_static_path_result fill(struct ag_exchange *ex, const struct ag_static_settings *s,
                                       struct ag_buf *out)
{
    enum ag_static_path_result r = AG_STATIC_PATH_OK;

    for (uint16_t i = 0; i < s->tail.count && r == AG_STATIC_PATH_OK; i++) {
        const struct ag_template_part *p = &s->tail.parts[i];
        if (p->param < 0) {
            ag_buf_put(out, p->literal);
        } else {
            r = put_decoded(out, ag_exchange_param(ex, (unsigned)p->param), s,
                            ex->params[p->param].segment == 0);
        }
    }
    return r == AG_STATIC_PATH_OK ? put_decoded(out, rest_of(ex, s), s, s->rest_segment == 0) : r;
}

enum ag_static_path_result ag_static_path_build(struct ag_exchange *ex,
                                                const struct ag_static_settings *s,
                                                struct ag_static_path *out)
{
    size_t cap = rest_of(ex, s).len + longest_index(s) + 1;
    enum ag_static_path_result r;
    struct ag_buf b;

    for (uint16_t i = 0; i < s->tail.count; i++) {
        const struct ag_template_part *p = &s->tail.parts[i];
        cap += p->param < 0 ? p->literal.len : ag_exchange_param(ex, (unsigned)p->param).len;
    }
    if (cap > AG_STATIC_PATH_MAX) {
        return AG_STATIC_PATH_NONE;
    }
    b = ag_buf(ag_arena_alloc(&ex->arena, cap), cap);
    if (!b.ptr) {
        return AG_STATIC_PATH_ENOMEM;
    }
    r = fill(ex, s, &b);
    if (r != AG_STATIC_PATH_OK) {
        return r;
    }
    AG_ASSERT(!b.overflow && b.len < cap);
    *out = (struct ag_static_path){.text = (char *)b.ptr, .len = b.len, .cap = cap};
    out->wants_index = s->directory && ends_with_slash(ex->req.path);
    if (b.len == 0 && !out->wants_index) {
        ag_buf_putc(&b, '.'); /* the root itself, asked for without its slash */
    }
    b.ptr[b.len] = 0;
    return AG_STATIC_PATH_OK;
}

void ag_static_path_add_index(struct ag_static_path *p, const struct ag_static_settings *s,
                              uint16_t i)
{
    struct ag_span name = s->options.index[i];

    AG_ASSERT(name.len < p->cap - p->len);
    memcpy(p->text + p->len, name.ptr, name.len);
    p->text[p->len + name.len] = 0;
}

/* Whether Accept names text/html, with a weight above zero. */
static bool names_html(struct ag_span accept)
{
    struct ag_span one;

    for (size_t at = 0; ag_list_next(accept, &at, &one);) {
        size_t end = ag_span_find(one, ';');
        struct ag_span q = ag_span_trim(ag_span_sub(one, end < one.len ? end + 1 : end, one.len));
        bool refused = ag_span_ieq(q, AG_SPAN("q=0")) || ag_span_ieq(q, AG_SPAN("q=0.0"));
        if (!refused && ag_span_ieq(ag_span_trim(ag_span_sub(one, 0, end)), AG_SPAN("text/html"))) {
            return true;
        }
    }
    return false;
}

/* Of the request's path: "/a/b.c" has one. A dot at the segment's start counts too. */
static bool has_extension(struct ag_span path)
{
    for (size_t i = path.len; i > 0 && path.ptr[i - 1] != '/'; i--) {
        if (path.ptr[i - 1] == '.') {
            return true;
        }
    }
    return false;
}

bool ag_static_may_fall_back(const struct ag_exchange *ex, const struct ag_static_settings *s)
{
    const struct ag_field *f = ag_fields_find(&ex->req.fields, AG_FIELD_ACCEPT, NULL);
    bool any = true; /* no Accept, or nothing but the wildcard */

    if (!s->directory || !s->options.spa || s->tail.count > 0 || s->options.index_count == 0) {
        return false;
    }
    for (; f; f = ag_fields_find(&ex->req.fields, AG_FIELD_ACCEPT, f)) {
        struct ag_span value = ag_span_trim(ag_field_value(f));
        if (names_html(value)) {
            return true;
        }
        any = any && ag_span_eq(value, AG_SPAN("*/*"));
    }
    return any && !has_extension(ex->req.path);
}
