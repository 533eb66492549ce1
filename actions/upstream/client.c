#include "actions/upstream/client.h"

#include "actions/upstream/upstream_config.h"
#include "actions/upstream/upstream_pool.h"

/* Pages that one question may take: itself, and the answer's fields. */
#define PAGES_MAX 8u

/* A question under way; in its own arena. */
struct question {
    struct ag_arena arena;
    struct ag_loop *loop;
    struct ag_client_request *owner; /* NULL: cancelled */
    struct ag_upstream_claim claim;
    struct ag_call call;
    struct ag_request req;
    struct ag_h1_request_opts opts;
    struct ag_body req_body, res_body;
    struct ag_span host; /* copied; empty: the server's own */
    struct ag_response res;
    struct ag_fields fields; /* of the answer, copied */
    struct ag_block *answer; /* its content */
    uint32_t answer_len;
    struct ag_task end;
};

/* ---- the end ---- */

static void free_question(struct question *q)
{
    struct ag_arena arena = q->arena;

    ag_task_cancel(&q->end);
    ag_body_deinit(&q->req_body);
    ag_body_deinit(&q->res_body);
    ag_block_release(q->answer);
    ag_arena_release(&arena); /* q lies in it */
}

/* By a task: the owner may ask again or go in `done`, and a carrier is not to be freed under itself. */
static void on_end(struct ag_task *t)
{
    struct question *q = ag_container_of(t, struct question, end);
    struct ag_client_request *owner = q->owner;

    if (owner) {
        owner->under_way = NULL;
        owner->fields = &q->fields;
        owner->answer = ag_span(q->answer ? q->answer->data : NULL, q->answer_len);
        owner->done(owner);
    }
    free_question(q);
}

/* The first word counts. */
static void end(struct question *q, enum ag_reason why, const char *detail)
{
    if (q->owner && !ag_task_queued(&q->end)) {
        q->owner->status = why == AG_REASON_NONE ? q->res.status : 0;
        q->owner->reason = why;
        q->owner->detail = detail;
    }
    ag_task_queue(q->loop, &q->end);
}

/* ---- the answer ---- */

static struct question *of(struct ag_call *call)
{
    return ag_container_of(call, struct question, call);
}

static void on_interim(struct ag_call *call, const struct ag_response *res)
{
    (void)call;
    (void)res;
}

static void on_head(struct ag_call *call, const struct ag_response *res)
{
    struct question *q = of(call);

    q->res.status = res->status;
    for (uint16_t i = 0; i < res->fields.count; i++) {
        const struct ag_field *f = &res->fields.v[i];
        struct ag_span name = ag_arena_copy(&q->arena, ag_field_key(f));
        struct ag_span value = ag_arena_copy(&q->arena, ag_field_value(f));

        if (!name.ptr || (f->value_len > 0 && !value.ptr) ||
            ag_fields_add(&q->fields, &q->arena, (enum ag_field_id)f->id, name, value) != AG_OK) {
            ag_upstream_cancel(&q->claim);
            end(q, AG_REASON_LIMIT, "the answer's fields are too many");
            return;
        }
    }
    ag_upstream_moved(&q->claim);
}

/* There is no buffer, or the answer does not fit: the connection is given up. */
static void stop_reading(struct question *q, bool fits)
{
    if (fits) {
        end(q, AG_REASON_RESOURCES, "no buffer for the answer");
    } else if (q->owner && q->owner->clip) {
        end(q, AG_REASON_NONE, NULL);
    } else {
        end(q, AG_REASON_LIMIT, "the answer is too large");
    }
}

static void on_content(struct ag_body *b, void *owner)
{
    struct question *q = owner;

    while (b->q.bytes > 0) {
        struct ag_slice s = ag_body_take(b);
        size_t room = AG_CLIENT_ANSWER_MAX - q->answer_len;
        bool fits = s.len <= room;

        if (!q->answer) {
            q->answer = ag_loop_buf(q->loop, AG_BUF_LARGE);
        }
        if (q->answer) {
            memcpy(q->answer->data + q->answer_len, s.ptr, fits ? s.len : room);
            q->answer_len += (uint32_t)(fits ? s.len : room);
        }
        ag_slice_release(&s);
        if (!q->answer || !fits) {
            ag_upstream_cancel(&q->claim);
            ag_body_discard(b);
            stop_reading(q, fits);
            return;
        }
    }
    if (ag_body_at_end(b)) {
        end(q, AG_REASON_NONE, NULL);
    }
}

/* The content may still be on its way through the body: its end is the answer's. */
static void on_done(struct ag_call *call)
{
    struct question *q = of(call);

    ag_upstream_release(&q->claim);
    on_content(&q->res_body, q);
}

static void on_failed(struct ag_call *call, enum ag_reason why, const char *detail)
{
    struct question *q = of(call);

    ag_upstream_release(&q->claim);
    end(q, why == AG_REASON_NONE ? AG_REASON_OTHER : why, detail);
}

static const struct ag_call_events call_events = {
    .interim = on_interim,
    .head = on_head,
    .done = on_done,
    .failed = on_failed,
};

/* ---- the question ---- */

static void go_on(struct question *q, enum ag_status st)
{
    if (st == AG_OK) {
        q->opts.host = q->host.len ? q->host : q->claim.peer->authority;
        st = ag_upstream_start(&q->claim, &q->call);
        if (st != AG_OK) {
            ag_upstream_release(&q->claim);
            end(q, AG_REASON_RESOURCES, "out of buffers");
        }
    } else if (st != AG_AGAIN) {
        end(q, (enum ag_reason)q->claim.reason, q->claim.detail);
    }
}

static void on_ready(struct ag_upstream_claim *claim)
{
    go_on(ag_container_of(claim, struct question, claim), AG_OK);
}

static void on_refused(struct ag_upstream_claim *claim)
{
    go_on(ag_container_of(claim, struct question, claim), AG_ESYS);
}

static const struct ag_upstream_claim_ops claim_ops = {.ready = on_ready, .failed = on_refused};

/* Fields and content. False: out of memory. */
static bool write_question(struct question *q)
{
    const struct ag_client_request *r = q->owner;
    struct ag_request *req = &q->req;
    struct ag_block *block;

    *req = (struct ag_request){.method = (uint8_t)r->method,
                               .method_name = ag_method_name(r->method),
                               .version = AG_HTTP_11,
                               .path = r->target->path,
                               .content_length = AG_LENGTH_UNKNOWN};
    if ((r->accept.len > 0 &&
         ag_fields_add_id(&req->fields, &q->arena, AG_FIELD_ACCEPT, r->accept) != AG_OK) ||
        (r->loop.len > 0 &&
         ag_fields_add_id(&req->fields, &q->arena, AG_FIELD_CDN_LOOP, r->loop) != AG_OK)) {
        return false;
    }
    for (uint32_t i = 0; i < r->header_count; i++) {
        const struct ag_client_header *h = &r->headers[i];

        if (ag_fields_add(&req->fields, &q->arena, ag_field_id_from_name(h->name), h->name,
                          h->value) != AG_OK) {
            return false;
        }
    }
    q->host = ag_arena_copy(&q->arena, r->host);
    if (r->host.len > 0 && !q->host.ptr) {
        return false;
    }
    if (r->content_type.len == 0) {
        return true;
    }
    block =
        ag_loop_buf(q->loop, r->content.len <= AG_BUF_SMALL_BYTES ? AG_BUF_SMALL : AG_BUF_LARGE);
    if (!block || ag_fields_add_id(&req->fields, &q->arena, AG_FIELD_CONTENT_TYPE,
                                   r->content_type) != AG_OK) {
        ag_block_release(block);
        return false;
    }
    AG_ASSERT(r->content.len <= block->size);
    memcpy(block->data, r->content.ptr, r->content.len);
    req->framing = AG_FRAMING_LENGTH;
    req->content_length = r->content.len;
    q->call.req_body = &q->req_body;
    if (ag_body_write(&q->req_body,
                      (struct ag_slice){{.ptr = block->data}, r->content.len, block}) != AG_OK) {
        return false;
    }
    ag_body_end(&q->req_body, NULL);
    return true;
}

static bool request(struct ag_client *client, struct ag_client_request *r)
{
    struct ag_upstreams *upstreams = (struct ag_upstreams *)(void *)client;
    struct ag_arena arena;
    struct question *q;

    AG_ASSERT(!r->under_way);
    ag_arena_init(&arena, &upstreams->loop->pages, PAGES_MAX);
    q = ag_arena_zalloc(&arena, sizeof(*q));
    if (!q) {
        return false;
    }
    q->arena = arena;
    q->loop = upstreams->loop;
    q->owner = r;
    ag_body_init(&q->req_body, q->loop);
    ag_body_init(&q->res_body, q->loop);
    ag_body_set_consumer(&q->res_body, on_content, q);
    ag_task_init(&q->end, on_end);
    q->opts.target = r->target->path;
    q->call.events = &call_events;
    q->call.req = &q->req;
    q->call.opts = &q->opts;
    q->call.scheme = r->target->upstream->tls ? AG_SPAN("https") : AG_SPAN("http");
    q->call.res_body = &q->res_body;
    q->call.keep = &q->arena;
    q->claim.ops = &claim_ops;
    q->claim.timeouts = &r->target->timeouts;
    if (!write_question(q)) {
        free_question(q);
        return false;
    }
    r->under_way = q;
    go_on(q, r->aim ? ag_upstream_claim_aimed(upstreams, r->target->upstream, r->aim, &q->claim)
                    : ag_upstream_claim(upstreams, r->target->upstream, &q->claim));
    return true;
}

static void cancel(struct ag_client_request *r)
{
    struct question *q = r->under_way;

    if (q) {
        r->under_way = NULL;
        q->owner = NULL;
        ag_upstream_cancel(&q->claim);
        ag_task_queue(q->loop, &q->end);
    }
}

const struct ag_client_ops ag_client_ops = {.request = request, .cancel = cancel};

/* ---- where to ---- */

struct ag_client *ag_client_of(struct ag_context *ctx)
{
    return (struct ag_client *)ctx->action_state[AG_ACTION_PROXY];
}

/* What may stand in a request's first line: nothing that ends it (RFC 3986 sections 3.3, 3.4). */
static bool is_target(struct ag_span target)
{
    static const char marks[] = "-._~!$&'()*+,;=:@/?%";

    for (size_t i = 0; i < target.len; i++) {
        uint8_t ch = ag_ascii_lower(target.ptr[i]);
        bool is_alnum = (ch >= 'a' && ch <= 'z') || (ch >= '0' && ch <= '9');

        if (!is_alnum && !memchr(marks, ch, sizeof(marks) - 1)) {
            return false;
        }
    }
    return true;
}

const struct ag_client_target *ag_client_target_new(struct ag_arena *arena, struct ag_span url,
                                                    uint32_t total_ms)
{
    struct ag_span scheme = AG_SPAN("http://"), rest;
    struct ag_upstream_options options = ag_upstream_default_options();
    struct ag_client_target *t = ag_arena_zalloc(arena, sizeof(*t));
    struct ag_diags ignored;
    size_t slash;

    if (!t || url.len <= scheme.len || !ag_span_ieq(ag_span_sub(url, 0, scheme.len), scheme)) {
        return NULL;
    }
    rest = ag_span_sub(url, scheme.len, url.len);
    slash = ag_span_find(rest, '/');
    for (size_t i = 0; i < slash; i++) { /* one server alone, and no user information */
        if (rest.ptr[i] == ',' || rest.ptr[i] == '@' || rest.ptr[i] <= ' ') {
            return NULL;
        }
    }
    ag_diags_init(&ignored, arena);
    options.timeouts.total_ms = total_ms;
    options.host_mode = AG_UPSTREAM_HOST_SERVER;
    t->timeouts = options.timeouts;
    t->path = slash < rest.len ? ag_span_sub(rest, slash, rest.len) : AG_SPAN("/");
    if (!is_target(t->path)) {
        return NULL;
    }
    t->upstream = ag_upstream_from_authority(arena, ag_span_sub(rest, 0, slash), (struct ag_pos){0},
                                             &ignored, &options);
    return t->upstream ? t : NULL;
}

const struct ag_client_target *ag_client_target_of(struct ag_arena *arena,
                                                   const struct ag_upstream *upstream,
                                                   struct ag_span path, uint32_t total_ms)
{
    struct ag_client_target *t = ag_arena_zalloc(arena, sizeof(*t));

    if (t) {
        t->upstream = upstream;
        t->timeouts = upstream->options.timeouts;
        t->timeouts.total_ms = total_ms;
        t->path = path;
    }
    return t;
}

const struct ag_client_target *ag_client_target_at(struct ag_arena *arena,
                                                   const struct ag_client_target *other,
                                                   struct ag_span path)
{
    struct ag_client_target *t = ag_arena_alloc(arena, sizeof(*t));

    if (t) {
        *t = *other;
        t->path = path;
    }
    return t;
}
