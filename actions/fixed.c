#include "actions/fixed.h"

#include "actions/headers_option.h"
#include "actions/json_check.h"
#include "actions/prepare.h"

/* An expanded body must fit one large buffer, what clients put into it included. */
#define TEMPLATE_BYTES_MAX (32u * 1024u)

struct fixed_settings {
    struct ag_prepared prepared; /* unless `expands` */
    bool expands;                /* body or fields hold parameters: made per request */
    unsigned status;
    enum ag_param_escape escape; /* of parameters in the body */
    const struct ag_param_text *body;
    const struct ag_header_option *headers;
    uint16_t header_count;
    struct ag_span type; /* Content-Type unless `headers` has one; empty: none */
};

/* ---- load time ---- */

struct ag_span ag_fixed_type_of(struct ag_span body)
{
    if (body.len == 0) {
        return body;
    }
    if ((body.ptr[0] == '{' || body.ptr[0] == '[') && ag_json_is_valid(body)) {
        return AG_SPAN("application/json");
    }
    return AG_SPAN("text/plain; charset=utf-8");
}

/* What a client puts into the path must not become markup or code in the answer. */
static enum ag_param_escape escape_for(unsigned media)
{
    if (media & AG_MEDIA_SCRIPT) {
        return AG_PARAM_JSON; /* does for markup, too */
    }
    return media & AG_MEDIA_MARKUP ? AG_PARAM_HTML : AG_PARAM_TEXT;
}

static enum ag_status read_body(struct ag_action_build *b, const struct ag_action_decl *decl,
                                struct fixed_settings *s, struct ag_span *out_body)
{
    struct ag_span body = decl->body;

    if (ag_status_has_no_content(decl->status) && body.len) {
        ag_diag_warn(b->diags, decl->pos, "leave it out",
                     "an answer with status %u has no content: the body is dropped", decl->status);
        body.len = 0;
    }
    s->body = ag_param_text_compile(b, decl->body_pos, body);
    if (!s->body) {
        return AG_EINVAL;
    }
    if (!ag_param_text_literal(s->body, out_body)) {
        s->expands = true;
        if (body.len > TEMPLATE_BYTES_MAX) {
            ag_diag_error(b->diags, decl->pos, NULL, "a body with parameters may have %u bytes",
                          TEMPLATE_BYTES_MAX);
            return AG_EINVAL;
        }
    }
    s->type = ag_fixed_type_of(body);
    return AG_OK;
}

static enum ag_status read_headers(struct ag_action_build *b, const struct ag_action_decl *decl,
                                   struct fixed_settings *s)
{
    unsigned media = ag_media_of(s->type);
    struct ag_span value;
    bool typed = false;
    enum ag_status st = ag_headers_option_read(b, ag_node_get(decl->options, "headers"),
                                               &s->headers, &s->header_count);

    for (uint16_t i = 0; st == AG_OK && i < s->header_count; i++) {
        bool literal = ag_param_text_literal(s->headers[i].value, &value);
        s->expands = s->expands || !literal;
        if (s->headers[i].id == AG_FIELD_CONTENT_TYPE) {
            s->type = ag_span(NULL, 0);
            media = (typed ? media : 0) | (literal ? ag_media_of(value) : AG_MEDIA_ANY);
            typed = true;
        }
    }
    s->escape = escape_for((b->media.replaced ? 0 : media) | b->media.added);
    return st;
}

/* A body that begins as JSON does and is none, where no Content-Type says that this is meant. */
static void warn_broken_json(struct ag_action_build *b, const struct ag_action_decl *decl,
                             const struct fixed_settings *s)
{
    struct ag_span body = decl->body, type = s->type;

    for (uint16_t i = 0; i < s->header_count; i++) {
        if (s->headers[i].id == AG_FIELD_CONTENT_TYPE) {
            (void)ag_param_text_literal(s->headers[i].value, &type);
        }
    }
    if (body.len == 0 || (body.ptr[0] != '{' && body.ptr[0] != '[') || ag_json_is_valid(body) ||
        s->body->v[0].param >= 0 || (!s->type.len && !ag_media_is_json(type))) {
        return;
    }
    ag_diag_warn(b->diags, decl->body_pos,
                 "\" #\" begins a comment in a value without quotes: quote the action; or set "
                 "Content-Type, if it is to be no JSON",
                 "the body begins as JSON does, and is none");
}

static void set_framing(struct ag_response *res, unsigned status, uint64_t length)
{
    bool none = status == 204 || status == 304;

    res->status = status;
    res->framing = none ? AG_FRAMING_NONE : AG_FRAMING_LENGTH;
    res->content_length = none ? 0 : length;
}

static void prepare(struct ag_arena *arena, struct fixed_settings *s, struct ag_span body)
{
    struct ag_response res = {0};
    struct ag_span value;

    set_framing(&res, s->status, body.len);
    if (s->type.len) {
        AG_ASSERT(ag_fields_add_id(&res.fields, arena, AG_FIELD_CONTENT_TYPE, s->type) == AG_OK);
    }
    for (uint16_t i = 0; i < s->header_count; i++) {
        const struct ag_header_option *h = &s->headers[i];
        AG_ASSERT(ag_param_text_literal(h->value, &value));
        AG_ASSERT(ag_fields_add(&res.fields, arena, h->id, h->name, value) == AG_OK);
    }
    ag_prepare(arena, &res, body, &s->prepared);
}

static enum ag_status configure(struct ag_action_build *b, const struct ag_action_decl *decl,
                                const void **out_settings)
{
    struct fixed_settings *s = ag_arena_zalloc(b->arena, sizeof(*s));
    struct ag_span body;

    if (decl->status < 200 || decl->status > 599) {
        ag_diag_error(b->diags, decl->pos, "200 to 599", "status %u cannot be a final answer",
                      decl->status);
        return AG_EINVAL;
    }
    s->status = decl->status;
    if (read_body(b, decl, s, &body) != AG_OK || read_headers(b, decl, s) != AG_OK) {
        return AG_EINVAL;
    }
    warn_broken_json(b, decl, s);
    if (!s->expands) {
        prepare(b->arena, s, body);
    }
    *out_settings = s;
    return AG_OK;
}

/* ---- requests ---- */

static bool add_header(struct ag_exchange *ex, const struct ag_header_option *h)
{
    struct ag_span value;
    struct ag_buf out;

    if (!ag_param_text_literal(h->value, &value)) {
        size_t bound = ag_param_text_bound(h->value, ex, AG_PARAM_RAW);
        out = ag_buf(ag_arena_alloc(&ex->arena, bound), bound);
        if (!out.ptr) {
            return false;
        }
        ag_param_text_expand(h->value, ex, AG_PARAM_RAW, &out);
        value = ag_buf_span(&out);
    }
    return ag_fields_add(&ex->res.fields, &ex->arena, h->id, h->name, value) == AG_OK;
}

/* The expanded body in a buffer of its own; an empty slice with *out_ok false: it does not fit. */
static struct ag_slice expand_body(struct ag_exchange *ex, const struct fixed_settings *s,
                                   bool *out_ok)
{
    size_t bound = ag_param_text_bound(s->body, ex, s->escape);
    struct ag_slice none = {{.ptr = NULL}, 0, NULL};
    struct ag_block *block;
    struct ag_buf out;

    *out_ok = bound == 0;
    if (bound == 0 || bound > AG_BUF_LARGE_BYTES) {
        return none;
    }
    block =
        ag_loop_buf(ex->context->loop, bound <= AG_BUF_SMALL_BYTES ? AG_BUF_SMALL : AG_BUF_LARGE);
    if (!block) {
        return none;
    }
    out = ag_buf(block->data, bound);
    ag_param_text_expand(s->body, ex, s->escape, &out);
    AG_ASSERT(!out.overflow);
    *out_ok = true;
    return (struct ag_slice){{.ptr = block->data}, out.len, block};
}

static void respond_expanded(struct ag_exchange *ex, const struct fixed_settings *s)
{
    bool ok;
    struct ag_slice body = expand_body(ex, s, &ok);

    set_framing(&ex->res, s->status, body.len);
    if (s->type.len) {
        ok = ok && ag_exchange_field(ex, AG_FIELD_CONTENT_TYPE, s->type) == AG_OK;
    }
    for (uint16_t i = 0; ok && i < s->header_count; i++) {
        ok = add_header(ex, &s->headers[i]);
    }
    if (!ok) {
        ag_slice_release(&body);
        ag_exchange_fail(ex, 503, AG_REASON_RESOURCES, "no memory for the answer");
        return;
    }
    if (ag_body_write(&ex->res_body, body) == AG_OK) {
        ag_body_end(&ex->res_body, NULL);
    }
    ag_exchange_respond(ex);
}

static void start(struct ag_exchange *ex)
{
    const struct fixed_settings *s = ex->action->settings;

    if (s->expands) {
        respond_expanded(ex, s);
    } else {
        ag_prepared_respond(ex, &s->prepared);
    }
    ag_exchange_release(ex);
}

/* The action has let go when start returns. */
static void on_abort(struct ag_exchange *ex, enum ag_reason why)
{
    (void)ex;
    (void)why;
}

const struct ag_action_ops ag_action_fixed = {
    .name = "fixed",
    .kind = AG_ACTION_FIXED,
    .configure = configure,
    .start = start,
    .abort = on_abort,
};
