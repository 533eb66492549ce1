#include "proto/exchange.h"

#include "proto/accept.h"

/* Pages an exchange may take: the head's copy, field tables, formatted values. */
#define EXCHANGE_PAGES_MAX 16u

static const struct ag_route_limits no_route_limits = AG_ROUTE_LIMITS_DEFAULT;

static void free_exchange(struct ag_task *t)
{
    struct ag_exchange *ex = ag_container_of(t, struct ag_exchange, free_task);
    struct ag_context *ctx = ex->context;
    struct ag_block *snapshot_ref = ex->snapshot_ref;

    AG_ASSERT(ex->holders == 0 && ctx->exchanges_live > 0);
    if (ex->freed) {
        ex->freed(ex->freed_owner);
    }
    ag_body_deinit(&ex->req_body);
    ag_body_deinit(&ex->res_body);
    ag_block_release(ex->head_owner);
    ag_block_release(ex->res_owner);
    ctx->exchanges_live--;
    ctx->exchanges_dying--;
    ag_list_remove(&ex->pinned);
    ag_arena_end(&ex->arena); /* ex lies in it: gone from here on */
    ag_block_release(snapshot_ref);
}

struct ag_exchange *ag_exchange_new(struct ag_context *ctx, const struct ag_server_ops *server,
                                    void *stream)
{
    struct ag_exchange *ex =
        ag_arena_begin(ctx->loop, EXCHANGE_PAGES_MAX, sizeof(*ex) + server->room_bytes,
                       offsetof(struct ag_exchange, arena));

    if (!ex) {
        return NULL;
    }
    /* The table of fields is written before it is read: clearing it would cost more than the rest. */
    memset(ex, 0, offsetof(struct ag_exchange, arena));
    ex->context = ctx;
    ex->server = server;
    ex->server_stream = stream;
    ex->req.fields = (struct ag_fields){ex->field_room, 0, AG_COUNT(ex->field_room)};
    ex->limits = &no_route_limits;
    ag_list_init(&ex->pinned);
    ex->res_source = &ex->res_body;
    ex->holders = 1;
    ag_body_init(&ex->req_body, ctx->loop);
    ag_body_init(&ex->res_body, ctx->loop);
    ag_task_init(&ex->free_task, free_exchange);
    if (ctx->exchanges_live++ == 0) {
        ag_list_init(&ctx->pinned); /* a context may begin as zeros */
    }
    ctx->exchanges_total++;
    return ex;
}

void ag_exchange_hold(struct ag_exchange *ex)
{
    AG_ASSERT(ex->holders > 0 && ex->holders < UINT8_MAX);
    ex->holders++;
}

void ag_exchange_release(struct ag_exchange *ex)
{
    AG_ASSERT(ex->holders > 0);
    if (--ex->holders == 0) {
        ex->context->exchanges_dying++;
        ag_task_queue(ex->context->loop, &ex->free_task);
    }
}

bool ag_exchange_reap(struct ag_exchange *ex)
{
    if (ex->holders > 0) {
        return false;
    }
    ag_task_cancel(&ex->free_task);
    free_exchange(&ex->free_task);
    return true;
}

void ag_exchange_pin(struct ag_exchange *ex)
{
    AG_ASSERT(!ex->snapshot_ref && ag_list_empty(&ex->pinned));
    ex->snapshot_ref = ag_block_hold(ex->context->snapshot_ref);
    ag_list_push(&ex->context->pinned, &ex->pinned);
}

static void unpin(struct ag_exchange *ex)
{
    struct ag_block *ref = ex->snapshot_ref;

    ex->snapshot_ref = NULL;
    ag_list_remove(&ex->pinned);
    ag_block_release(ref);
}

uint32_t ag_context_retire(struct ag_context *ctx, const struct ag_block *old)
{
    uint32_t kept = 0;
    struct ag_link *next;

    AG_ASSERT(old != ctx->snapshot_ref);
    if (ctx->exchanges_live == 0) {
        return 0;
    }
    for (struct ag_link *it = ctx->pinned.next; it != &ctx->pinned; it = next) {
        struct ag_exchange *ex = ag_container_of(it, struct ag_exchange, pinned);

        next = it->next;
        if (ex->snapshot_ref == ctx->snapshot_ref) {
            break; /* so do all that follow */
        }
        if (ex->snapshot_ref != old) {
            continue;
        }
        if (ctx->pipeline->outlive(ex)) {
            unpin(ex);
        } else {
            kept++;
        }
    }
    return kept;
}

enum ag_status ag_exchange_detach(struct ag_exchange *ex)
{
    struct ag_span copy;

    if (!ex->head_owner) {
        return AG_OK;
    }
    if (ex->head.len > AG_ARENA_ALLOC_MAX) {
        return AG_ENOMEM; /* it would only go from one large buffer into another */
    }
    copy = ag_arena_copy(&ex->arena, ex->head);
    if (!copy.ptr) {
        return AG_ENOMEM;
    }
    ag_request_rebase(&ex->req, ex->head.ptr, ex->head.len, copy.ptr);
    ex->head = copy;
    ag_block_release(ex->head_owner);
    ex->head_owner = NULL;
    return AG_OK;
}

void ag_exchange_respond(struct ag_exchange *ex)
{
    if (ex->ended || ex->head_sent) {
        return;
    }
    ex->status = (uint16_t)ex->res.status;
    ex->context->pipeline->respond(ex);
}

/* With filters the answer goes the long way, as fields that they may change. */
static void respond_as_fields(struct ag_exchange *ex, const struct ag_prepared *p)
{
    struct ag_slice body = {
        {.ptr = p->body.ptr}, p->body.len, ag_block_hold(p->owner ? p->owner : ex->snapshot_ref)};
    struct ag_fields own = {0};

    ex->res = p->response;
    for (uint16_t i = 0; i < p->response.fields.count; i++) {
        const struct ag_field *f = &p->response.fields.v[i];

        if (ag_fields_add(&own, &ex->arena, f->id, ag_field_key(f), ag_field_value(f)) != AG_OK) {
            ag_slice_release(&body);
            ag_exchange_fail(ex, 503, AG_REASON_RESOURCES, "out of memory for the answer");
            return;
        }
    }
    ex->res.fields = own;
    if (ag_body_write(&ex->res_body, body) == AG_OK) {
        ag_body_end(&ex->res_body, NULL);
    }
    ag_exchange_respond(ex);
}

void ag_exchange_respond_prepared(struct ag_exchange *ex, const struct ag_prepared *p)
{
    if (ex->ended || ex->head_sent) {
        return;
    }
    if (ex->filter_at > 0 || ex->hsts.len > 0) {
        respond_as_fields(ex, p);
        return;
    }
    ex->status = (uint16_t)p->status;
    ex->head_sent = true;
    ex->server->send_prepared(ex, p);
}

/* In a block of its own: the bytes outlive the exchange's arena on their way out. Without a buffer the
 * answer goes without content. */
static struct ag_slice problem_body(struct ag_exchange *ex, unsigned status, const char *detail,
                                    bool json)
{
    struct ag_span phrase = ag_status_phrase(status);
    struct ag_block *block = ag_loop_buf(ex->context->loop, AG_BUF_SMALL);
    struct ag_buf b;

    if (!block) {
        return (struct ag_slice){{.ptr = NULL}, 0, NULL};
    }
    b = ag_buf(block->data, block->size);
    if (json) {
        ag_buf_put(&b, AG_SPAN("{\"type\":\"about:blank\",\"title\":\""));
        ag_buf_put(&b, phrase);
        ag_buf_put(&b, AG_SPAN("\",\"status\":"));
        ag_buf_put_u64(&b, status);
        ag_buf_put(&b, AG_SPAN(",\"detail\":\""));
        ag_buf_put(&b, ag_span_str(detail));
        ag_buf_put(&b, AG_SPAN("\"}\n"));
    } else {
        ag_buf_put_u64(&b, status);
        ag_buf_putc(&b, ' ');
        ag_buf_put(&b, phrase);
        ag_buf_put(&b, AG_SPAN(": "));
        ag_buf_put(&b, ag_span_str(detail));
        ag_buf_putc(&b, '\n');
    }
    AG_ASSERT(!b.overflow);
    return (struct ag_slice){{.ptr = block->data}, b.len, block};
}

/* Allow, Retry-After, WWW-Authenticate and the length that a 416 tells belong to the failure; what else an
 * action had set does not. */
static void keep_fields(struct ag_exchange *ex, enum ag_field_id id, struct ag_fields *kept)
{
    const struct ag_field *f = NULL;

    while ((f = ag_fields_find(&ex->res.fields, id, f)) != NULL) {
        (void)!ag_fields_add_id(kept, &ex->arena, id, ag_field_value(f));
    }
}

void ag_exchange_fail(struct ag_exchange *ex, unsigned status, enum ag_reason why,
                      const char *detail)
{
    bool json = ag_accepts_json(&ex->req.fields);
    struct ag_slice body;
    struct ag_fields kept = {0};

    if (ex->ended) {
        return;
    }
    ex->reason = (uint8_t)why;
    ex->detail = detail;
    if (ex->head_sent) {
        ex->server->reset(ex, why);
        return;
    }
    keep_fields(ex, AG_FIELD_ALLOW, &kept);
    keep_fields(ex, AG_FIELD_RETRY_AFTER, &kept);
    keep_fields(ex, AG_FIELD_WWW_AUTHENTICATE, &kept);
    if (status == 416) { /* it has no meaning beside others (RFC 9110 section 14.4) */
        keep_fields(ex, AG_FIELD_CONTENT_RANGE, &kept);
    }
    if (status == 503 && !ag_fields_find(&kept, AG_FIELD_RETRY_AFTER, NULL)) {
        (void)!ag_fields_add_id(&kept, &ex->arena, AG_FIELD_RETRY_AFTER, AG_SPAN("1"));
    }
    ex->res = (struct ag_response){.status = status, .fields = kept};
    if (!ex->paged && ex->context->pipeline->error_page) {
        ex->paged = true;
        if (ex->context->pipeline->error_page(ex, status)) {
            return;
        }
        kept = ex->res.fields;
    }
    body = problem_body(ex, status, detail, json);
    ex->res = (struct ag_response){
        .status = status, .fields = kept, .framing = AG_FRAMING_LENGTH, .content_length = body.len};
    (void)!ag_exchange_field(ex, AG_FIELD_CONTENT_TYPE,
                             json ? AG_SPAN("application/problem+json")
                                  : AG_SPAN("text/plain; charset=utf-8"));
    ag_body_deinit(&ex->res_body);
    ag_body_init(&ex->res_body, ex->context->loop);
    if (ag_body_write(&ex->res_body, body) == AG_OK) {
        ag_body_end(&ex->res_body, NULL);
    }
    ag_exchange_respond(ex);
}

enum ag_status ag_exchange_field(struct ag_exchange *ex, enum ag_field_id id, struct ag_span value)
{
    return ag_fields_add_id(&ex->res.fields, &ex->arena, id, value);
}

struct ag_span ag_path_segment(struct ag_span path, unsigned index, bool to_end)
{
    size_t at = 1;

    if (path.len == 0 || path.ptr[0] != '/') {
        return AG_SPAN("");
    }
    for (unsigned i = 0; i < index; i++) {
        at += ag_span_find(ag_span_sub(path, at, path.len), '/') + 1;
        if (at > path.len) {
            return AG_SPAN("");
        }
    }
    struct ag_span rest = ag_span_sub(path, at, path.len);
    return to_end ? rest : ag_span_sub(rest, 0, ag_span_find(rest, '/'));
}

struct ag_span ag_exchange_param(const struct ag_exchange *ex, unsigned index)
{
    AG_ASSERT(index < ex->param_count);
    return ag_path_segment(ex->req.path, ex->params[index].segment, ex->params[index].splat);
}

const union ag_addr *ag_exchange_remote(struct ag_exchange *ex)
{
    if (!ex->remote) {
        ex->remote = ag_arena_alloc(&ex->arena, sizeof(*ex->remote));
        if (ex->remote && ex->server_stream) {
            ex->server->remote(ex, ex->remote);
        } else if (ex->remote) {
            memset(ex->remote, 0, sizeof(*ex->remote));
        }
    }
    return ex->remote;
}

void ag_exchange_local(struct ag_exchange *ex, union ag_addr *out_addr)
{
    memset(out_addr, 0, sizeof(*out_addr));
    if (ex->server_stream && ex->server->local) {
        ex->server->local(ex, out_addr);
    }
}

const struct ag_proxied *ag_exchange_proxied(struct ag_exchange *ex)
{
    return ex->server_stream && ex->server->proxied ? ex->server->proxied(ex) : NULL;
}

const struct ag_stream *ag_exchange_client(const struct ag_exchange *ex)
{
    return ex->server_stream && ex->server->client ? ex->server->client(ex) : NULL;
}

/* Both ends of a server's hold: whoever works on the exchange is told, hooks run, the hold goes. */
static void let_go(struct ag_exchange *ex)
{
    ag_body_set_consumer(ex->res_source, NULL, NULL);
    ag_body_set_producer(&ex->req_body, NULL, NULL);
    ex->context->pipeline->done(ex);
    ex->server_stream = NULL;
    ag_exchange_release(ex);
}

void ag_exchange_abandon(struct ag_exchange *ex, enum ag_reason why)
{
    if (!ex->abandoned) {
        ex->abandoned = true;
        ex->context->pipeline->abort(ex, why);
    }
}

void ag_exchange_abort(struct ag_exchange *ex, enum ag_reason why)
{
    if (ex->ended) {
        return;
    }
    ex->ended = true;
    if (ex->reason == AG_REASON_NONE) {
        ex->reason = (uint8_t)why;
    }
    ag_body_abort(&ex->req_body, why);
    ag_body_discard(ex->res_source);
    ag_exchange_abandon(ex, why);
    let_go(ex);
}

void ag_exchange_forget(struct ag_exchange *ex)
{
    AG_ASSERT(!ex->ended && !ex->head_sent && !ex->snapshot_ref);
    ex->ended = true;
    ex->server_stream = NULL;
    ag_exchange_release(ex);
}

void ag_exchange_complete(struct ag_exchange *ex)
{
    AG_ASSERT(!ex->ended && ex->head_sent);
    ex->ended = true;
    /* Both ways of a tunnel have ended: who passes its last bytes on has all it needs, and ends by itself. Else it was
     * answered before the request was read to its end: whoever still takes it must stop. */
    if (ex->res.framing != AG_FRAMING_TUNNEL || !ex->req_body.ended) {
        ag_body_abort(&ex->req_body, AG_REASON_ABORTED);
        ag_exchange_abandon(ex, AG_REASON_ABORTED);
    }
    let_go(ex);
}
