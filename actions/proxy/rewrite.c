#include "actions/proxy/rewrite.h"

#define PREFIX_NAME AG_SPAN("X-Forwarded-Prefix")

bool ag_rewrite_has_target(const struct ag_rewrite *rw)
{
    return rw->strip.len || rw->add.len || rw->param_count;
}

/* ---- the path ---- */

bool ag_rewrite_is_below(struct ag_span path, struct ag_span prefix)
{
    return ag_span_starts(path, prefix) &&
           (path.len == prefix.len || prefix.len == 0 || path.ptr[prefix.len] == '/');
}

static bool strips(const struct ag_rewrite *rw, const struct ag_exchange *ex)
{
    return rw->strip.len && ag_rewrite_is_below(ex->req.path, rw->strip);
}

static void put_path(const struct ag_rewrite *rw, const struct ag_exchange *ex, struct ag_buf *out)
{
    struct ag_span path = ex->req.path;

    if (strips(rw, ex)) {
        path = ag_span_sub(path, rw->strip.len, path.len);
        /* "/api//evil" must not become "//evil": servers take that for a host. */
        while (path.len > 1 && path.ptr[1] == '/') {
            path = ag_span_sub(path, 1, path.len);
        }
    }
    ag_buf_put(out, rw->add);
    ag_buf_put(out, path);
}

struct ag_span ag_rewrite_one_slash(const struct ag_template *target, struct ag_span path)
{
    bool written = target->parts[0].param < 0 && target->parts[0].literal.len > 1;

    while (!written && ag_span_starts(path, AG_SPAN("//"))) {
        path = ag_span_sub(path, 1, path.len);
    }
    return path;
}

/* ---- the query ---- */

static int hex_value(uint8_t ch)
{
    uint8_t lower = ag_ascii_lower(ch);

    return ch >= '0' && ch <= '9' ? ch - '0' : lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

/* Whether an upstream that decodes it would read the name. */
static bool reads_as(struct ag_span written, struct ag_span name)
{
    size_t at = 0, n = 0;

    for (; at < written.len && n < name.len; at++, n++) {
        uint8_t ch = written.ptr[at] == '+' ? ' ' : written.ptr[at];

        if (ch == '%' && written.len - at > 2 && hex_value(written.ptr[at + 1]) >= 0 &&
            hex_value(written.ptr[at + 2]) >= 0) {
            ch = (uint8_t)(hex_value(written.ptr[at + 1]) * 16 + hex_value(written.ptr[at + 2]));
            at += 2;
        }
        if (ch != name.ptr[n]) {
            return false;
        }
    }
    return at == written.len && n == name.len;
}

static bool is_removed(const struct ag_rewrite *rw, struct ag_span piece)
{
    struct ag_span name = ag_span_sub(piece, 0, ag_span_find(piece, '='));

    for (uint16_t i = 0; i < rw->param_count; i++) {
        if (rw->params[i].removes && reads_as(name, rw->params[i].name)) {
            return true;
        }
    }
    return false;
}

void ag_rewrite_encode(struct ag_span s, struct ag_buf *out)
{
    static const char hex[] = "0123456789ABCDEF";

    for (size_t i = 0; i < s.len; i++) {
        uint8_t ch = s.ptr[i], lower = ag_ascii_lower(ch);

        if ((lower >= 'a' && lower <= 'z') || (ch >= '0' && ch <= '9') ||
            (ch && strchr("-._~/:@!*", ch))) {
            ag_buf_putc(out, ch);
        } else {
            uint8_t escape[3] = {'%', (uint8_t)hex[ch >> 4], (uint8_t)hex[ch & 15]};
            ag_buf_put(out, ag_span(escape, sizeof(escape)));
        }
    }
}

/* Empty when it outgrows the room: half a value may mean another. */
static struct ag_span value_of(const struct ag_rewrite_param *p, const struct ag_exchange *ex,
                               uint8_t room[static AG_REWRITE_VALUE_MAX])
{
    struct ag_buf value = ag_buf(room, AG_REWRITE_VALUE_MAX);

    ag_vars_expand(p->value, ex, &value);
    return value.overflow ? AG_SPAN("") : ag_buf_span(&value);
}

size_t ag_rewrite_query_bound(const struct ag_rewrite *rw, const struct ag_exchange *ex)
{
    uint8_t room[AG_REWRITE_VALUE_MAX];
    size_t bound = ex->req.query.len;

    for (uint16_t i = 0; i < rw->param_count; i++) {
        const struct ag_rewrite_param *p = &rw->params[i];

        bound += p->value ? 2 + p->encoded.len + 3 * value_of(p, ex, room).len : 0;
    }
    return bound;
}

void ag_rewrite_query(const struct ag_rewrite *rw, const struct ag_exchange *ex, struct ag_buf *out)
{
    uint8_t room[AG_REWRITE_VALUE_MAX];
    struct ag_span query = ex->req.query;
    size_t from = out->len;

    for (size_t at = 0; at < query.len;) {
        struct ag_span rest = ag_span_sub(query, at, query.len);
        struct ag_span piece = ag_span_sub(rest, 0, ag_span_find(rest, '&'));

        at += piece.len + 1;
        if (!is_removed(rw, piece)) {
            ag_buf_put(out, out->len > from ? AG_SPAN("&") : AG_SPAN(""));
            ag_buf_put(out, piece);
        }
    }
    for (uint16_t i = 0; i < rw->param_count; i++) {
        const struct ag_rewrite_param *p = &rw->params[i];

        if (p->value) {
            ag_buf_put(out, out->len > from ? AG_SPAN("&") : AG_SPAN(""));
            ag_buf_put(out, p->encoded);
            ag_buf_putc(out, '=');
            ag_rewrite_encode(value_of(p, ex, room), out);
        }
    }
}

/* ---- both ---- */

static size_t path_bound(const struct ag_rewrite *rw, const struct ag_exchange *ex,
                         const struct ag_template *target)
{
    size_t bound = rw->add.len + ex->req.path.len;

    for (uint16_t i = 0; target && i < target->count; i++) {
        const struct ag_template_part *p = &target->parts[i];
        bound += p->param < 0 ? p->literal.len : ex->req.path.len;
    }
    return bound;
}

struct ag_span ag_rewrite_target(const struct ag_rewrite *rw, struct ag_exchange *ex,
                                 const struct ag_template *target)
{
    size_t max = path_bound(rw, ex, target) + 2 + ag_rewrite_query_bound(rw, ex), joint;
    struct ag_buf b = ag_buf(ag_arena_alloc(&ex->arena, max), max);
    struct ag_span all;

    if (!b.ptr) {
        return (struct ag_span){NULL, 0};
    }
    if (target) {
        ag_template_expand(target, ex, &b);
    } else {
        put_path(rw, ex, &b);
    }
    if (b.len == 0) {
        ag_buf_putc(&b, '/');
    }
    joint = b.len;
    ag_buf_putc(&b, '?');
    if (rw->param_count) {
        ag_rewrite_query(rw, ex, &b);
    } else {
        ag_buf_put(&b, ex->req.query);
    }
    AG_ASSERT(!b.overflow);
    if (b.len == joint + 1 && (rw->param_count || !ex->req.has_query)) {
        b.len = joint; /* nothing is left of it */
    }
    ag_arena_trim(&ex->arena, b.ptr, max, b.len);
    all = ag_buf_span(&b);
    return target ? ag_rewrite_one_slash(target, all) : all;
}

/* ---- fields ---- */

enum ag_status ag_rewrite_fields(const struct ag_rewrite *rw, struct ag_exchange *ex,
                                 struct ag_fields *fields)
{
    const struct ag_field *f = NULL;

    if (!strips(rw, ex)) {
        return AG_OK;
    }
    while ((f = ag_fields_find_name(&ex->req.fields, PREFIX_NAME, f)) != NULL) {
        if (f - ex->req.fields.v >= ex->req.received_count) {
            return AG_OK;
        }
    }
    return ag_fields_add(fields, &ex->arena, AG_FIELD_OTHER, PREFIX_NAME, rw->strip);
}
