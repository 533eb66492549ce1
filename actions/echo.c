#include "actions/echo.h"

#include "actions/json_write.h"
#include "actions/prepare.h"
#include "engine/utf8.h"

#include <arpa/inet.h>
#include <stdio.h>

#define MAX_BODY_DEFAULT 4096u
/* The first bytes of the content are kept in one large buffer. */
#define MAX_BODY_LIMIT 65536u
/* A head of 32k and 64k of content, all of it escaped: room enough; beyond it is refused. */
#define ANSWER_BYTES_MAX (1024u * 1024u)

struct echo_section {
    uint64_t max_body_bytes;
};

struct echo_settings {
    unsigned status;
};

/* In the exchange's arena, from the first wait until the action lets go. */
struct echo_work {
    struct ag_block *kept; /* the content's first bytes; NULL: none came */
    uint32_t kept_len;
    uint32_t kept_max; /* of the settings, like status: a slow upload may outlive them */
    unsigned status;
    struct ag_json_out json; /* the answer while it waits for room */
};

/* ---- load time ---- */

static enum ag_status configure_section(struct ag_action_build *b)
{
    static const char *const keys[] = {"max_body"};
    const struct ag_node *node = ag_node_get(b->config, "echo");
    struct echo_section *s = ag_arena_zalloc(b->arena, sizeof(*s));
    const struct ag_node *max_body;
    uint32_t errors = b->diags->errors;

    s->max_body_bytes = MAX_BODY_DEFAULT;
    b->shared[AG_ACTION_ECHO] = s;
    (void)ag_node_check_keys(node, b->diags, "echo", keys, AG_COUNT(keys));
    max_body = ag_node_get(node, "max_body");
    (void)ag_node_size(max_body, b->diags, &s->max_body_bytes);
    if (s->max_body_bytes > MAX_BODY_LIMIT) {
        ag_diag_error(b->diags, max_body->pos, "64k at most", "echo.max_body is too large");
    }
    return b->diags->errors == errors ? AG_OK : AG_EINVAL;
}

static enum ag_status configure(struct ag_action_build *b, const struct ag_action_decl *decl,
                                const void **out_settings)
{
    struct echo_settings *s = ag_arena_zalloc(b->arena, sizeof(*s));

    s->status = decl->status ? decl->status : 200;
    if (s->status < 200 || s->status > 599) {
        ag_diag_error(b->diags, decl->pos, "200 to 599", "status %u cannot be a final answer",
                      s->status);
        return AG_EINVAL;
    }
    if (ag_status_has_no_content(s->status)) {
        ag_diag_warn(b->diags, decl->pos, NULL,
                     "an answer with status %u has no content: nothing is echoed", s->status);
    }
    *out_settings = s;
    return AG_OK;
}

/* ---- the answer ---- */

static void put_remote(struct ag_json_out *o, struct ag_exchange *ex)
{
    const union ag_addr *a = ag_exchange_remote(ex);
    char host[INET6_ADDRSTRLEN] = "", text[INET6_ADDRSTRLEN + 9] = "";

    if (a && a->sa.sa_family == AF_INET) {
        (void)inet_ntop(AF_INET, &a->in.sin_addr, host, sizeof(host));
        (void)snprintf(text, sizeof(text), "%s:%u", host, ntohs(a->in.sin_port));
    } else if (a && a->sa.sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&a->in6.sin6_addr)) {
        (void)inet_ntop(AF_INET, a->in6.sin6_addr.s6_addr + 12, host, sizeof(host));
        (void)snprintf(text, sizeof(text), "%s:%u", host, ntohs(a->in6.sin6_port));
    } else if (a && a->sa.sa_family == AF_INET6) {
        (void)inet_ntop(AF_INET6, &a->in6.sin6_addr, host, sizeof(host));
        (void)snprintf(text, sizeof(text), "[%s]:%u", host, ntohs(a->in6.sin6_port));
    } else if (a && a->sa.sa_family == AF_UNIX) {
        (void)snprintf(text, sizeof(text), "unix");
    }
    ag_json_string(o, ag_span_str(text));
}

static void put_params(struct ag_json_out *o, const struct ag_exchange *ex)
{
    ag_json_put(o, AG_SPAN(",\"params\":{"));
    for (uint16_t i = 0; i < ex->param_count; i++) {
        struct ag_span name = ex->params[i].name;
        ag_json_put(o, ag_span(",", i > 0));
        ag_json_string(o, name.len ? name : AG_SPAN("*"));
        ag_json_put(o, AG_SPAN(":"));
        ag_json_string(o, ag_exchange_param(ex, i));
    }
    ag_json_put(o, AG_SPAN("}"));
}

static void put_headers(struct ag_json_out *o, const struct ag_fields *fields)
{
    bool first = true;

    ag_json_put(o, AG_SPAN(",\"headers\":["));
    for (uint16_t i = 0; i < fields->count; i++) {
        const struct ag_field *f = &fields->v[i];
        if (f->removed) {
            continue;
        }
        ag_json_put(o, first ? AG_SPAN("[") : AG_SPAN(",["));
        ag_json_string(o, ag_field_key(f));
        ag_json_put(o, AG_SPAN(","));
        ag_json_string(o, ag_field_value(f));
        ag_json_put(o, AG_SPAN("]"));
        first = false;
    }
    ag_json_put(o, AG_SPAN("]"));
}

/* UTF-8 without controls but tab, LF and CR: what people can read. */
static bool is_text(struct ag_span s)
{
    while (s.len) {
        uint32_t cp;
        size_t n = ag_utf8_decode(s, &cp);
        if (n == 0 || cp == 0x7F || (cp < 0x20 && cp != '\t' && cp != '\n' && cp != '\r')) {
            return false;
        }
        s = ag_span_sub(s, n, s.len);
    }
    return true;
}

static void put_body(struct ag_json_out *o, const struct echo_work *w, uint64_t total)
{
    struct ag_span kept = w->kept ? ag_span(w->kept->data, w->kept_len) : AG_SPAN("");
    struct ag_span text = kept;
    bool truncated = kept.len < total;

    /* A character that the bound has cut is left out, rather than make base64 of a text. */
    for (size_t cut = 0; truncated && cut < 4 && text.len && !is_text(text); cut++) {
        text.len--;
    }
    ag_json_put(o, AG_SPAN(",\"body\":"));
    if (is_text(text) && (text.len || !kept.len)) {
        ag_json_string(o, text);
        ag_json_put(o, AG_SPAN(",\"base64\":false"));
    } else {
        ag_json_base64(o, kept);
        ag_json_put(o, AG_SPAN(",\"base64\":true"));
    }
    ag_json_put(o, truncated ? AG_SPAN(",\"truncated\":true") : AG_SPAN(",\"truncated\":false"));
    ag_json_put(o, AG_SPAN(",\"body_length\":"));
    ag_json_u64(o, total);
}

static bool write_answer(struct ag_exchange *ex, struct echo_work *w)
{
    const struct ag_request *req = &ex->req;
    struct ag_json_out *o = &w->json;

    ag_json_init(o, ex->context->loop, ANSWER_BYTES_MAX);
    ag_json_put(o, AG_SPAN("{\"method\":"));
    ag_json_string(o, req->method_name);
    ag_json_put(o, AG_SPAN(",\"path\":"));
    ag_json_string(o, req->path);
    ag_json_put(o, AG_SPAN(",\"query\":"));
    ag_json_string(o, req->query);
    put_params(o, ex);
    ag_json_put(o, AG_SPAN(",\"protocol\":"));
    ag_json_string(o, req->version == AG_HTTP_2    ? AG_SPAN("HTTP/2")
                      : req->version == AG_HTTP_10 ? AG_SPAN("HTTP/1.0")
                                                   : AG_SPAN("HTTP/1.1"));
    ag_json_put(o, AG_SPAN(",\"remote\":"));
    put_remote(o, ex);
    put_headers(o, &req->fields);
    put_body(o, w, ex->req_body.total_bytes);
    ag_json_put(o, AG_SPAN("}\n"));
    return ag_json_finish(o);
}

/* ---- requests ---- */

/* Lets go, once: everything back, and no callback comes any more. An answer that breaks the stream has
 * aborted the action already. */
static void finish(struct ag_exchange *ex)
{
    struct echo_work *w = ex->action_data;

    if (!w) {
        return;
    }
    ex->action_data = NULL;
    ag_json_release(&w->json);
    ag_block_release(w->kept);
    ag_body_set_consumer(&ex->req_body, NULL, NULL);
    ag_body_set_producer(&ex->res_body, NULL, NULL);
    ag_exchange_release(ex);
}

/* Lets go first: an error's page that is asked for takes the action's place. */
static void fail(struct ag_exchange *ex, unsigned status, enum ag_reason why, const char *detail)
{
    ag_exchange_hold(ex);
    finish(ex);
    ag_exchange_fail(ex, status, why, detail);
    ag_exchange_release(ex);
}

/* Moves the answer into the body while that has room. */
static void pump(struct ag_body *body, void *owner)
{
    struct ag_exchange *ex = owner;
    struct echo_work *w = ex->action_data;

    if (!w) {
        return;
    }
    while (w->json.done.count && ag_body_room(body)) {
        struct ag_slice s = ag_chain_pop(&w->json.done, &ex->context->loop->nodes);
        if (ag_body_write(body, s) != AG_OK) {
            finish(ex);
            return;
        }
    }
    if (w->json.done.count == 0) {
        ag_body_end(body, NULL);
        finish(ex);
    }
}

static bool add_fields(struct ag_exchange *ex)
{
    return ag_exchange_field(ex, AG_FIELD_CONTENT_TYPE, AG_SPAN("application/json")) == AG_OK &&
           ag_exchange_field(ex, AG_FIELD_CACHE_CONTROL, AG_SPAN("no-store")) == AG_OK &&
           ag_fields_add(&ex->res.fields, &ex->arena, AG_FIELD_OTHER,
                         AG_SPAN("X-Content-Type-Options"), AG_SPAN("nosniff")) == AG_OK;
}

static void respond(struct ag_exchange *ex)
{
    struct echo_work *w = ex->action_data;

    ex->res.status = w->status;
    if (ag_status_has_no_content(w->status)) {
        ex->res.framing = w->status == 205 ? AG_FRAMING_LENGTH : AG_FRAMING_NONE;
        ag_body_end(&ex->res_body, NULL);
        ag_exchange_respond(ex);
        finish(ex);
        return;
    }
    if (!write_answer(ex, w) || !add_fields(ex)) {
        fail(ex, 503, AG_REASON_RESOURCES, "no memory for the echo");
        return;
    }
    ex->res.framing = AG_FRAMING_LENGTH;
    ex->res.content_length = w->json.bytes;
    ag_exchange_respond(ex);
    if (ex->action_data) { /* else the stream broke in respond, and abort has let go */
        ag_body_set_producer(&ex->res_body, pump, ex);
        pump(&ex->res_body, ex);
    }
}

/* Keeps the first bytes of `s`. False: no buffer. */
static bool keep(struct ag_exchange *ex, struct echo_work *w, struct ag_span s)
{
    size_t want = ag_min_size(s.len, w->kept_max - w->kept_len);

    if (want == 0) {
        return true;
    }
    if (!w->kept) {
        bool small = w->kept_max <= AG_BUF_SMALL_BYTES;
        w->kept = ag_loop_buf(ex->context->loop, small ? AG_BUF_SMALL : AG_BUF_LARGE);
    }
    if (!w->kept) {
        return false;
    }
    memcpy(w->kept->data + w->kept_len, s.ptr, want);
    w->kept_len += (uint32_t)want;
    return true;
}

/* The request's content, as it comes. */
static void on_content(struct ag_body *body, void *owner)
{
    struct ag_exchange *ex = owner;
    struct echo_work *w = ex->action_data;
    bool ok = true;

    if (!w) {
        return;
    }
    while (ok && body->q.bytes > 0) {
        struct ag_slice s = ag_body_take(body);
        ok = keep(ex, w, ag_slice_span(&s));
        ag_slice_release(&s);
    }
    if (!ok) {
        fail(ex, 503, AG_REASON_RESOURCES, "no buffer for the request's content");
    } else if (body->aborted) {
        fail(ex, 400, (enum ag_reason)body->reason, "the request's content broke off");
    } else if (ag_body_at_end(body)) {
        ag_body_set_consumer(body, NULL, NULL);
        respond(ex);
    }
}

static void start(struct ag_exchange *ex)
{
    const struct echo_section *section = ex->action->shared;
    const struct echo_settings *settings = ex->action->settings;
    struct echo_work *w = ag_arena_zalloc(&ex->arena, sizeof(*w));

    if (!w) {
        ag_exchange_fail(ex, 503, AG_REASON_RESOURCES, "out of memory");
        ag_exchange_release(ex);
        return;
    }
    w->kept_max = (uint32_t)section->max_body_bytes;
    w->status = settings->status;
    ex->action_data = w;
    w->json.loop = ex->context->loop;
    if (ag_body_at_end(&ex->req_body)) {
        respond(ex);
        return;
    }
    ex->server->want_body(ex);
    if (ex->action_data) {
        ag_body_set_consumer(&ex->req_body, on_content, ex);
    }
}

static void on_abort(struct ag_exchange *ex, enum ag_reason why)
{
    (void)why;
    if (ex->action_data) {
        finish(ex);
    }
}

/* All it needs was copied at its start. */
static bool outlive(struct ag_exchange *ex)
{
    (void)ex;
    return true;
}

const struct ag_action_ops ag_action_echo = {
    .name = "echo",
    .kind = AG_ACTION_ECHO,
    .configure_section = configure_section,
    .configure = configure,
    .start = start,
    .abort = on_abort,
    .outlive = outlive,
};
