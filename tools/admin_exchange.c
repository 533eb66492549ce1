/* What endpoints do with an exchange: its path, its content, its answer. */
#include "proto/accept.h"
#include "proto/uri.h"
#include "router/config.h"
#include "tools/admin.h"

/* In the exchange's arena, while content comes or an answer waits for room; the exchange is held meanwhile. */
struct work {
    ag_admin_content_fn *then;
    struct ag_block *content; /* NULL: none came */
    uint32_t content_bytes;
    struct ag_json_out answer;
};

/* NULL: no memory, which was answered. */
static struct work *begin(struct ag_exchange *ex)
{
    struct work *w = ag_arena_zalloc(&ex->arena, sizeof(*w));

    if (!w) {
        ag_exchange_fail(ex, 503, AG_REASON_RESOURCES, "out of memory");
        return NULL;
    }
    AG_ASSERT(!ex->action_data);
    ag_json_init(&w->answer, ex->context->loop, AG_ADMIN_JSON_MAX);
    ex->action_data = w;
    ag_exchange_hold(ex);
    return w;
}

void ag_admin_let_go(struct ag_exchange *ex)
{
    struct work *w = ex->action_data;

    if (!w) {
        return;
    }
    ex->action_data = NULL;
    ag_json_release(&w->answer);
    ag_block_release(w->content);
    ag_body_set_consumer(&ex->req_body, NULL, NULL);
    ag_body_set_producer(&ex->res_body, NULL, NULL);
    ag_exchange_release(ex);
}

/* ---- answers ---- */

static void add_fields(struct ag_exchange *ex, struct ag_span type)
{
    /* Without memory for one of them the answer is the same. */
    if (type.len > 0) {
        (void)!ag_exchange_field(ex, AG_FIELD_CONTENT_TYPE, type);
    }
    (void)!ag_exchange_field(ex, AG_FIELD_CACHE_CONTROL, AG_SPAN("no-store"));
    (void)!ag_fields_add(&ex->res.fields, &ex->arena, AG_FIELD_OTHER,
                         AG_SPAN("X-Content-Type-Options"), AG_SPAN("nosniff"));
}

void ag_admin_text(struct ag_exchange *ex, unsigned status, struct ag_span text)
{
    add_fields(ex, AG_SPAN("text/plain; charset=utf-8"));
    ex->res.status = status;
    ex->res.framing = AG_FRAMING_LENGTH;
    ex->res.content_length = text.len;
    if (ag_body_write(&ex->res_body, ag_slice_static(text)) == AG_OK) {
        ag_body_end(&ex->res_body, NULL);
    }
    ag_exchange_respond(ex);
}

void ag_admin_nothing(struct ag_exchange *ex)
{
    add_fields(ex, AG_SPAN(""));
    ex->res.status = 204;
    ex->res.framing = AG_FRAMING_NONE;
    ag_body_end(&ex->res_body, NULL);
    ag_exchange_respond(ex);
}

/* Moves the answer into the body while that has room. */
static void pump(struct ag_body *body, void *owner)
{
    struct ag_exchange *ex = owner;
    struct work *w = ex->action_data;
    bool written = true;

    if (!w) {
        return;
    }
    while (written && w->answer.done.count > 0 && ag_body_room(body)) {
        written = ag_body_write(body, ag_chain_pop(&w->answer.done, &body->loop->nodes)) == AG_OK;
    }
    if (written && w->answer.done.count == 0) {
        ag_body_end(body, NULL);
    }
    if (!written || w->answer.done.count == 0) {
        ag_admin_let_go(ex);
    }
}

/* Takes what is in `o`. */
static void answer_with(struct ag_exchange *ex, unsigned status, struct ag_span type,
                        struct ag_json_out *o)
{
    struct work *w;

    if (!ag_json_finish(o)) {
        ag_exchange_fail(ex, status < 400 ? 503 : status, AG_REASON_RESOURCES,
                         "no memory for the answer");
        return;
    }
    w = begin(ex);
    if (!w) {
        ag_json_release(o);
        return;
    }
    w->answer = *o;
    add_fields(ex, type);
    ex->res.status = status;
    ex->res.framing = AG_FRAMING_LENGTH;
    ex->res.content_length = o->bytes;
    ag_exchange_respond(ex);
    if (ex->action_data) { /* else the stream broke in respond */
        ag_body_set_producer(&ex->res_body, pump, ex);
        pump(&ex->res_body, ex);
    }
}

void ag_admin_json(struct ag_exchange *ex, unsigned status, struct ag_json_out *o)
{
    answer_with(ex, status, AG_SPAN("application/json"), o);
}

void ag_admin_refuse(struct ag_exchange *ex, unsigned status, struct ag_span why)
{
    struct ag_json_out o;

    ag_json_init(&o, ex->context->loop, AG_ADMIN_JSON_MAX);
    if (!ag_accepts_json(&ex->req.fields)) {
        ag_json_put(&o, why);
        ag_json_put(&o, AG_SPAN("\n"));
        answer_with(ex, status, AG_SPAN("text/plain; charset=utf-8"), &o);
        return;
    }
    ag_json_put(&o, AG_SPAN("{\"type\":\"about:blank\",\"title\":"));
    ag_json_string(&o, ag_status_phrase(status));
    ag_json_put(&o, AG_SPAN(",\"status\":"));
    ag_json_u64(&o, status);
    ag_json_put(&o, AG_SPAN(",\"detail\":"));
    ag_json_string(&o, why);
    ag_json_put(&o, AG_SPAN("}\n"));
    answer_with(ex, status, AG_SPAN("application/problem+json"), &o);
}

void ag_admin_refuse_content(struct ag_exchange *ex, const struct ag_diags *diags)
{
    const struct ag_diag *d = diags->first;
    char *text;

    AG_ASSERT(d);
    text = ag_arena_printf(diags->arena, "%u:%u: %s%s%s", d->pos.line, d->pos.col, d->what,
                           d->hint ? "; " : "", d->hint ? d->hint : "");
    /* It may have parts of the content in it: a terminal shows it. */
    for (char *at = text; *at; at++) {
        if ((unsigned char)*at < 0x20 || *at == 0x7f) {
            *at = '?';
        }
    }
    ag_admin_refuse(ex, 400, ag_span_str(text));
}

/* ---- paths ---- */

struct ag_span ag_admin_segment(struct ag_exchange *ex, unsigned index)
{
    struct ag_span raw = ag_path_segment(ex->req.path, index, false), slash = AG_SPAN("%2F");
    uint8_t *room = raw.len > AG_ADMIN_SEGMENT_MAX ? NULL : ag_arena_alloc(&ex->arena, raw.len + 1);
    struct ag_buf b = ag_buf(room, raw.len);
    size_t from = 0;

    for (size_t at = 0; room && at <= raw.len; at++) {
        bool is_slash = ag_span_starts(ag_span_sub(raw, at, raw.len), slash);

        if (is_slash || at == raw.len) {
            if (ag_path_decode(ag_span_sub(raw, from, at), &b) != AG_OK) {
                return (struct ag_span){NULL, 0};
            }
            ag_buf_put(&b, is_slash ? AG_SPAN("/") : AG_SPAN(""));
            from = at + slash.len;
        }
    }
    return room ? ag_buf_span(&b) : (struct ag_span){NULL, 0};
}

/* ---- content ---- */

/* "application/json", with parameters or without: what no form of a page can say (Fetch, CORS-safelisted). */
static bool says_json(const struct ag_exchange *ex)
{
    const struct ag_field *f = ag_fields_find(&ex->req.fields, AG_FIELD_CONTENT_TYPE, NULL);
    struct ag_span value = f ? ag_field_value(f) : AG_SPAN("");
    struct ag_span type = ag_span_trim(ag_span_sub(value, 0, ag_span_find(value, ';')));

    return ag_span_ieq(type, AG_SPAN("application/json")) &&
           !ag_fields_find(&ex->req.fields, AG_FIELD_CONTENT_TYPE, f);
}

/* All of it is here. */
static void parse(struct ag_exchange *ex, struct ag_span text, ag_admin_content_fn *then)
{
    struct ag_admin *a = ag_container_of(ex->context, struct ag_admin, ctx);
    const struct ag_source source = {"content", text};
    struct ag_arena arena;
    struct ag_diags diags;
    const struct ag_node *root;

    ag_arena_init(&arena, NULL, 0);
    ag_diags_init(&diags, &arena);
    root = ag_config_json_value(&source, &diags);
    if (root && root->kind != AG_NODE_MAP) {
        ag_diag_error(&diags, root->pos, NULL, "expected an object");
    }
    if (diags.errors > 0) {
        ag_admin_refuse_content(ex, &diags);
    } else {
        then(a, ex, root, &diags);
    }
    ag_arena_release(&arena);
}

static void finish_content(struct ag_exchange *ex)
{
    struct work *w = ex->action_data;
    struct ag_block *content = w->content;
    struct ag_span text = content ? ag_span(content->data, w->content_bytes) : AG_SPAN("");
    ag_admin_content_fn *then = w->then;

    w->content = NULL;
    ag_admin_let_go(ex); /* what answers begins anew */
    parse(ex, text, then);
    ag_block_release(content);
}

enum kept { KEPT, TOO_MUCH, NO_BUFFER };

static enum kept keep(struct work *w, struct ag_loop *l, struct ag_span s)
{
    if (s.len > AG_ADMIN_CONTENT_MAX - w->content_bytes) {
        return TOO_MUCH;
    }
    if (!w->content) {
        w->content = ag_loop_buf(l, AG_BUF_LARGE);
    }
    if (!w->content) {
        return NO_BUFFER;
    }
    memcpy(w->content->data + w->content_bytes, s.ptr, s.len);
    w->content_bytes += (uint32_t)s.len;
    return KEPT;
}

static void refuse_size(struct ag_exchange *ex)
{
    ag_admin_let_go(ex);
    ag_admin_refuse(ex, 413, AG_SPAN("the content may have 8 KB"));
}

static void on_content(struct ag_body *body, void *owner)
{
    struct ag_exchange *ex = owner;
    struct work *w = ex->action_data;
    enum kept kept = KEPT;

    if (!w) {
        return;
    }
    while (kept == KEPT && body->q.bytes > 0) {
        struct ag_slice s = ag_body_take(body);

        kept = keep(w, body->loop, ag_slice_span(&s));
        ag_slice_release(&s);
    }
    if (kept == TOO_MUCH) {
        refuse_size(ex);
    } else if (kept == NO_BUFFER) {
        ag_admin_let_go(ex);
        ag_exchange_fail(ex, 503, AG_REASON_RESOURCES, "no buffer for the request's content");
    } else if (body->aborted) {
        ag_admin_let_go(ex);
        ag_exchange_fail(ex, 400, (enum ag_reason)body->reason, "the request's content broke off");
    } else if (ag_body_at_end(body)) {
        finish_content(ex);
    }
}

void ag_admin_read(struct ag_exchange *ex, ag_admin_content_fn *then)
{
    struct work *w;

    if (!says_json(ex)) {
        ag_admin_refuse(ex, 415, AG_SPAN("content is wanted as Content-Type: application/json"));
        return;
    }
    w = begin(ex);
    if (!w) {
        return;
    }
    w->then = then;
    if (ex->req.content_length != AG_LENGTH_UNKNOWN &&
        ex->req.content_length > AG_ADMIN_CONTENT_MAX) {
        refuse_size(ex);
        return;
    }
    if (ag_body_at_end(&ex->req_body)) {
        finish_content(ex);
        return;
    }
    ex->server->want_body(ex);
    if (ex->action_data) {
        ag_body_set_consumer(&ex->req_body, on_content, ex);
    }
}
