#include "actions/proxy/error_pages.h"

/* An upstream is asked for the page; in the exchange's arena. It is the exchange's action meanwhile. */
struct asking {
    struct ag_client_request request;
    struct ag_exchange *ex;
    unsigned status;
};

/* ---- which ---- */

static const struct ag_error_page *find_in(const struct ag_error_level *level, unsigned status)
{
    const struct ag_error_page *best = NULL;

    for (uint16_t i = 0; i < level->count; i++) {
        const struct ag_error_page *p = &level->v[i];

        if (status >= p->from && status <= p->to &&
            (!best || p->to - p->from < best->to - best->from)) {
            best = p;
        }
    }
    return best;
}

const struct ag_error_page *ag_error_pages_find(const struct ag_error_pages *pages, unsigned status)
{
    const struct ag_error_page *found = NULL;

    for (; pages && !found; pages = pages->outer) {
        found = find_in(pages->level, status);
    }
    return found;
}

bool ag_error_pages_intercept(const struct ag_error_pages *pages, unsigned status)
{
    return pages && pages->intercept && ag_error_pages_find(pages, status);
}

bool ag_error_pages_take(struct ag_exchange *ex, const struct ag_response *res)
{
    static const enum ag_field_id kept[] = {AG_FIELD_ALLOW, AG_FIELD_RETRY_AFTER,
                                            AG_FIELD_WWW_AUTHENTICATE, AG_FIELD_CONTENT_RANGE};
    const struct ag_pipeline_ops *pipeline = ex->context->pipeline;
    const struct ag_field *f = NULL;

    if (!pipeline->intercepts || !pipeline->intercepts(ex, res->status)) {
        return false;
    }
    for (size_t i = 0; i < AG_COUNT(kept); i++) {
        while ((f = ag_fields_find(&res->fields, kept[i], f)) != NULL) {
            struct ag_span value = ag_arena_copy(&ex->arena, ag_field_value(f));

            if (value.ptr) { /* else the error goes without */
                (void)!ag_exchange_field(ex, kept[i], value);
            }
        }
    }
    return true;
}

/* ---- answering ---- */

/* With the fields that are in ex->res; takes the slice's reference. */
static void respond(struct ag_exchange *ex, unsigned status, struct ag_slice body)
{
    ex->res = (struct ag_response){.status = status,
                                   .fields = ex->res.fields,
                                   .framing = AG_FRAMING_LENGTH,
                                   .content_length = body.len};
    ag_body_deinit(&ex->res_body);
    ag_body_init(&ex->res_body, ex->context->loop);
    if (ag_body_write(&ex->res_body, body) == AG_OK) {
        ag_body_end(&ex->res_body, NULL);
    }
    ag_exchange_respond(ex);
}

static bool answer_from_memory(const struct ag_error_page *p, struct ag_exchange *ex,
                               unsigned status)
{
    if (ag_exchange_field(ex, AG_FIELD_CONTENT_TYPE, p->type) != AG_OK) {
        return false;
    }
    respond(ex, status,
            (struct ag_slice){{.ptr = p->body.ptr}, p->body.len, ag_block_hold(ex->snapshot_ref)});
    return true;
}

/* ---- asking ---- */

/* What a request for a page says of itself, so that one which comes back here asks for no other. */
#define LOOP_MARK AG_SPAN("anygate;error-page")

/* Copies of what the upstream says of its content. */
static bool copy_fields(struct asking *a)
{
    static const enum ag_field_id kept[] = {AG_FIELD_CONTENT_TYPE, AG_FIELD_CONTENT_ENCODING,
                                            AG_FIELD_CACHE_CONTROL};

    for (size_t i = 0; i < AG_COUNT(kept); i++) {
        const struct ag_field *f = ag_fields_find(a->request.fields, kept[i], NULL);
        struct ag_span value;

        if (!f || f->value_len == 0) {
            continue;
        }
        value = ag_arena_copy(&a->ex->arena, ag_field_value(f));
        if (!value.ptr || ag_exchange_field(a->ex, kept[i], value) != AG_OK) {
            return false;
        }
    }
    return true;
}

static bool answer_from_upstream(struct asking *a)
{
    struct ag_span text = a->request.answer;
    struct ag_slice body = {{.ptr = NULL}, 0, NULL};

    if (a->request.status < 200 || a->request.status > 299) {
        return false;
    }
    if (text.len) {
        body.owner = ag_loop_buf(a->ex->context->loop,
                                 text.len <= AG_BUF_SMALL_BYTES ? AG_BUF_SMALL : AG_BUF_LARGE);
        if (!body.owner) {
            return false;
        }
        memcpy(body.owner->data, text.ptr, text.len);
        body.ptr = body.owner->data;
        body.len = text.len;
    }
    if (!copy_fields(a)) {
        ag_slice_release(&body);
        return false;
    }
    respond(a->ex, a->status, body);
    return true;
}

static void on_page(struct ag_client_request *request)
{
    struct asking *a = ag_container_of(request, struct asking, request);
    struct ag_exchange *ex = a->ex;

    if (!ex->ended && !answer_from_upstream(a)) {
        ag_exchange_fail(ex, a->status, (enum ag_reason)ex->reason, ex->detail);
    }
    ag_exchange_release(ex);
}

static void abort_asking(struct ag_exchange *ex, enum ag_reason why)
{
    struct asking *a = ex->action_data;

    (void)why;
    if (a->request.under_way) {
        ag_client_ops.cancel(&a->request);
        ag_exchange_release(ex);
    }
}

static const struct ag_action_ops asking_ops = {
    .name = "error page",
    .kind = AG_ACTION_PROXY,
    .abort = abort_asking,
};

static const struct ag_client_target *target_of(const struct ag_error_page *p,
                                                struct ag_exchange *ex, unsigned status)
{
    size_t max = p->path.len + 3 + p->rest.len;
    struct ag_buf path;

    if (!p->tells_status) {
        return p->target;
    }
    path = ag_buf(ag_arena_alloc(&ex->arena, max), max);
    if (!path.ptr) {
        return NULL;
    }
    ag_buf_put(&path, p->path);
    ag_buf_put_u64(&path, status);
    ag_buf_put(&path, p->rest);
    return ag_client_target_at(&ex->arena, p->target, ag_buf_span(&path));
}

static bool is_asked_for_a_page(const struct ag_exchange *ex)
{
    const struct ag_field *f = NULL;

    while ((f = ag_fields_find(&ex->req.fields, AG_FIELD_CDN_LOOP, f)) != NULL) {
        struct ag_span entry;
        size_t at = 0;

        while (ag_list_next(ag_field_value(f), &at, &entry)) {
            if (ag_span_ieq(entry, LOOP_MARK)) {
                return true;
            }
        }
    }
    return false;
}

static bool ask(const struct ag_error_page *p, struct ag_exchange *ex, unsigned status)
{
    static const struct ag_action action = {.ops = &asking_ops};
    struct asking *a = is_asked_for_a_page(ex) ? NULL : ag_arena_zalloc(&ex->arena, sizeof(*a));

    if (!a) {
        return false;
    }
    /* Nothing is lost without: the head's buffer waits too, then. */
    (void)!ag_exchange_detach(ex);
    a->ex = ex;
    a->status = status;
    a->request.method = AG_METHOD_GET;
    a->request.accept = AG_SPAN("*/*");
    a->request.loop = LOOP_MARK;
    a->request.target = target_of(p, ex, status);
    a->request.done = on_page;
    if (!a->request.target || !ag_client_ops.request(ag_client_of(ex->context), &a->request)) {
        return false;
    }
    ex->action = &action;
    ex->action_data = a;
    ag_exchange_hold(ex);
    return true;
}

bool ag_error_pages_answer(const struct ag_error_pages *pages, struct ag_exchange *ex,
                           unsigned status, bool may_ask)
{
    const struct ag_error_page *p = ag_error_pages_find(pages, status);

    if (!p) {
        return false;
    }
    return p->target ? may_ask && ask(p, ex, status) : answer_from_memory(p, ex, status);
}
