#include "actions/proxy/proxy_buffer.h"

#include "actions/proxy/proxy_retry_parts.h"

/* Content that waits for a call beside what is kept: little. */
#define SENDING_BYTES (64u * 1024u)

/* ---- what is buffered ---- */

static bool holds(const struct ag_proxy_call *p)
{
    return p->settings->buffer.request && ag_proxy_has_content(p) && !p->ex->streams;
}

static bool may_spool(const struct ag_proxy_call *p)
{
    return p->settings->buffer.response && !ag_proxy_has_tunnel(p) && !p->ex->streams;
}

/* Events and calls are to arrive when they happen. */
static bool is_streamed(const struct ag_response *res)
{
    static const struct ag_span types[] = {AG_SPAN_INIT("text/event-stream"),
                                           AG_SPAN_INIT("application/grpc")};
    const struct ag_field *type = ag_fields_find(&res->fields, AG_FIELD_CONTENT_TYPE, NULL);
    const struct ag_field *asked =
        ag_fields_find_name(&res->fields, AG_SPAN("x-accel-buffering"), NULL);

    for (size_t i = 0; type && i < AG_COUNT(types); i++) {
        struct ag_span value = ag_field_value(type);

        if (value.len >= types[i].len &&
            ag_span_ieq(ag_span_sub(value, 0, types[i].len), types[i])) {
            return true;
        }
    }
    return asked && ag_span_ieq(ag_field_value(asked), AG_SPAN("no"));
}

static struct ag_spool_settings settings_of(const struct ag_proxy_call *p)
{
    const struct ag_proxy_section *section = p->ex->action->shared;
    struct ag_proxy_common *common = p->ex->context->action_common[AG_ACTION_PROXY];
    const struct ag_buffer_policy *policy = &p->settings->buffer;

    return (struct ag_spool_settings){
        .folder = common ? section->folder : NULL,
        .disk = common ? &common->disk : NULL,
        .disk_bytes = policy->disk_bytes,
        .total_bytes = section->place.total_bytes,
        .memory_bytes = policy->memory_bytes,
    };
}

bool ag_proxy_buffers_init(struct ag_proxy_call *p)
{
    struct ag_arena *arena = &p->ex->arena;
    bool request = holds(p), answer = may_spool(p);
    struct ag_proxy_buffers *b;

    if (!request && !answer) {
        return true;
    }
    b = ag_arena_zalloc(arena, sizeof(*b));
    if (!b || (request && !(b->request = ag_arena_zalloc(arena, sizeof(*b->request)))) ||
        (answer && !(b->answer = ag_arena_zalloc(arena, sizeof(*b->answer))))) {
        return false;
    }
    b->whole = p;
    b->set = settings_of(p);
    ag_body_init(&b->sending, ag_proxy_loop(p));
    ag_body_init(&b->coming, ag_proxy_loop(p));
    if (answer) {
        p->first.call.res_body = &b->coming;
    }
    if (request) {
        struct ag_spool_settings set = b->set;
        uint32_t kept = ag_proxy_kept_bytes(p);

        set.hold = true;
        set.memory_bytes = kept > set.memory_bytes ? kept : set.memory_bytes;
        ag_spool_init(b->request, p->ex, &p->ex->req_body, NULL, &set);
    }
    (void)ag_spool_folder_hold(b->set.folder);
    p->buffers = b;
    return true;
}

/* ---- requests ---- */

/* All of it is here: the upstream is told how long it is, unless trailers follow it. */
static void begin_whole(struct ag_proxy_call *p)
{
    const struct ag_body *content = &p->ex->req_body;

    if (p->req.framing == AG_FRAMING_CHUNKED &&
        (!content->trailers || content->trailers->count == 0)) {
        p->req.framing = AG_FRAMING_LENGTH;
        p->req.content_length = content->total_bytes;
    }
    ag_proxy_begin(p, ag_proxy_upstreams(p));
}

static void on_held(struct ag_spool *sp, void *owner)
{
    struct ag_proxy_call *p = owner;

    switch ((enum ag_spool_failure)sp->failure) {
    case AG_SPOOL_NO_FAILURE:
        begin_whole(p);
        return;
    case AG_SPOOL_ABORTED:
        ag_proxy_fail(p, 400, (enum ag_reason)p->ex->req_body.reason,
                      "the request's content was cut short");
        return;
    case AG_SPOOL_TOO_LARGE:
        ag_proxy_fail(p, 413, AG_REASON_LIMIT, "the request is larger than its buffer");
        return;
    case AG_SPOOL_NO_ROOM:
        ag_proxy_fail(p, 503, AG_REASON_RESOURCES, "no room to buffer the request");
        return;
    }
    AG_UNREACHABLE("no such failure");
}

void ag_proxy_buffers_begin(struct ag_proxy_call *p)
{
    if (!p->buffers || !p->buffers->request) {
        ag_proxy_begin(p, ag_proxy_upstreams(p));
        return;
    }
    /* The client is told to go on by us, and the upstream has nothing to say about it. */
    ag_fields_remove(&p->req.fields, AG_FIELD_EXPECT);
    ag_spool_tell(p->buffers->request, on_held, p);
    p->ex->server->want_body(p->ex);
}

/* What a try has left. */
static void drop_sending(struct ag_proxy_buffers *b)
{
    ag_spool_close(b->request);
    ag_body_deinit(&b->sending);
    ag_body_init(&b->sending, ag_proxy_loop(b->whole));
}

void ag_proxy_buffers_forget(struct ag_proxy_buffers *b, bool goes_on)
{
    if (!goes_on) {
        drop_sending(b);
    }
    ag_spool_forget(b->request);
}

struct ag_body *ag_proxy_buffers_content(struct ag_proxy_buffers *b)
{
    drop_sending(b);
    b->sending.limit_bytes = SENDING_BYTES;
    ag_spool_open(b->request, &b->sending);
    return &b->sending;
}

bool ag_proxy_buffers_lost(const struct ag_proxy_buffers *b)
{
    return b && b->request && b->request->failure != AG_SPOOL_NO_FAILURE;
}

/* ---- answers ---- */

static void on_passed(struct ag_spool *sp, void *owner)
{
    struct ag_proxy_call *p = owner;

    if (sp->failure == AG_SPOOL_NO_ROOM) {
        ag_proxy_cancel_tries(p); /* what was taken is lost */
        p->ex->reason = AG_REASON_RESOURCES;
        p->ex->detail = "the buffered answer cannot be read back";
    }
    ag_proxy_passed(p);
}

bool ag_proxy_buffers_answer(struct ag_proxy_call *p, struct ag_body *from,
                             const struct ag_response *res)
{
    struct ag_proxy_buffers *b = p->buffers;

    if (!b || !b->answer || is_streamed(res)) {
        return false;
    }
    b->passes = true;
    ag_spool_init(b->answer, p->ex, from, &p->ex->res_body, &b->set);
    ag_spool_tell(b->answer, on_passed, p);
    return true;
}

/* ---- the end ---- */

void ag_proxy_buffers_end(struct ag_proxy_call *p)
{
    struct ag_proxy_buffers *b = p->buffers;

    if (!b) {
        return;
    }
    if (b->request) {
        if (b->request->state == AG_SPOOL_TAKING) {
            ag_body_discard(&p->ex->req_body);
        }
        ag_spool_deinit(b->request);
    }
    if (b->passes) {
        ag_spool_deinit(b->answer);
    }
    ag_body_deinit(&b->sending);
    ag_body_deinit(&b->coming);
    ag_spool_folder_release(b->set.folder);
    b->set.folder = NULL;
}
