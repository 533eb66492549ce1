#include "actions/proxy/mirror.h"

/* Pages that the copy of a head may take. */
#define PAGES_MAX 12u
/* An answer that is longer is not worth its reading: the connection is given up. */
#define ANSWER_MAX (1u << 20)
/* No mirror lives longer. */
#define TOTAL_MS 60000u

/* In its own arena. */
struct mirror {
    struct ag_arena arena;
    struct ag_mirrors *all;
    struct ag_link link;
    struct ag_upstream_claim claim;
    struct ag_upstream_timeouts timeouts;
    struct ag_call call;
    struct ag_request req;
    struct ag_h1_request_opts opts;
    struct ag_body req_body, res_body;
    struct ag_task end;
    bool host_of_server;
};

/* ---- the end ---- */

static void free_mirror(struct mirror *m)
{
    struct ag_arena arena = m->arena;

    ag_list_remove(&m->link);
    m->all->count--;
    ag_task_cancel(&m->end);
    ag_body_deinit(&m->req_body);
    ag_body_deinit(&m->res_body);
    ag_arena_release(&arena); /* m lies in it */
}

/* By a task: a carrier is not to be freed under itself. */
static void on_end(struct ag_task *t)
{
    free_mirror(ag_container_of(t, struct mirror, end));
}

/* The first word counts. */
static void end(struct mirror *m, bool answered)
{
    if (!ag_task_queued(&m->end)) {
        m->all->answered += answered;
        m->all->failed += !answered;
        ag_task_queue(m->all->loop, &m->end);
    }
}

/* ---- the answer, which is dropped ---- */

static struct mirror *of(struct ag_call *call)
{
    return ag_container_of(call, struct mirror, call);
}

static void on_interim(struct ag_call *call, const struct ag_response *res)
{
    (void)call;
    (void)res;
}

static void on_head(struct ag_call *call, const struct ag_response *res)
{
    (void)res;
    ag_upstream_moved(&of(call)->claim);
}

static void on_content(struct ag_body *b, void *owner)
{
    struct mirror *m = owner;

    while (b->q.bytes > 0) {
        struct ag_slice s = ag_body_take(b);

        ag_slice_release(&s);
    }
    if (b->total_bytes > ANSWER_MAX && m->claim.state == AG_CLAIM_GIVEN) {
        ag_upstream_cancel(&m->claim);
        end(m, true);
    }
}

static void on_done(struct ag_call *call)
{
    ag_upstream_release(&of(call)->claim);
    end(of(call), true);
}

static void on_failed(struct ag_call *call, enum ag_reason why, const char *detail)
{
    (void)why;
    (void)detail;
    ag_upstream_release(&of(call)->claim);
    end(of(call), false);
}

static const struct ag_call_events call_events = {
    .interim = on_interim,
    .head = on_head,
    .done = on_done,
    .failed = on_failed,
};

/* ---- the request ---- */

static void go_on(struct mirror *m, enum ag_status st)
{
    if (st == AG_AGAIN) {
        return;
    }
    if (st != AG_OK) {
        end(m, false);
        return;
    }
    if (m->host_of_server) {
        m->opts.host = m->claim.peer->authority;
    }
    if (ag_upstream_start(&m->claim, &m->call) != AG_OK) {
        ag_upstream_release(&m->claim);
        end(m, false);
    }
}

static void on_ready(struct ag_upstream_claim *claim)
{
    go_on(ag_container_of(claim, struct mirror, claim), AG_OK);
}

static void on_refused(struct ag_upstream_claim *claim)
{
    go_on(ag_container_of(claim, struct mirror, claim), AG_ESYS);
}

static const struct ag_upstream_claim_ops claim_ops = {.ready = on_ready, .failed = on_refused};

/* The exchange's head may go while the copy is under way. False: out of memory. */
static bool copy_head(struct mirror *m, const struct ag_mirror_settings *s,
                      const struct ag_mirror_request *r)
{
    const struct ag_upstream_options *o = &s->upstream->options;
    struct ag_span host = o->host_mode == AG_UPSTREAM_HOST_LITERAL ? o->host : r->req->authority;

    m->req = (struct ag_request){.method = r->req->method,
                                 .method_name = ag_arena_copy(&m->arena, r->req->method_name),
                                 .version = AG_HTTP_11,
                                 .path = ag_arena_copy(&m->arena, r->target),
                                 .content_length = AG_LENGTH_UNKNOWN};
    m->opts.target = m->req.path;
    m->opts.host = ag_arena_copy(&m->arena, host);
    m->opts.te_trailers = r->te_trailers;
    m->host_of_server = o->host_mode == AG_UPSTREAM_HOST_SERVER || host.len == 0;
    if (!m->req.method_name.ptr || !m->req.path.ptr || (host.len > 0 && !m->opts.host.ptr)) {
        return false;
    }
    for (uint16_t i = 0; i < r->req->fields.count; i++) {
        const struct ag_field *f = &r->req->fields.v[i];
        struct ag_span name = ag_arena_copy(&m->arena, ag_field_key(f));
        struct ag_span value = ag_arena_copy(&m->arena, ag_field_value(f));

        if (f->removed || f->id == AG_FIELD_EXPECT) { /* its content is here already */
            continue;
        }
        if (!name.ptr || (f->value_len > 0 && !value.ptr) ||
            ag_fields_add(&m->req.fields, &m->arena, (enum ag_field_id)f->id, name, value) !=
                AG_OK) {
            return false;
        }
    }
    return true;
}

/* Content is shared. False: out of memory. */
static bool share_content(struct mirror *m, const struct ag_chain *content)
{
    m->req.framing = AG_FRAMING_LENGTH;
    m->req.content_length = content->bytes;
    m->call.req_body = &m->req_body;
    for (const struct ag_slice_node *n = content->head; n; n = n->next) {
        if (ag_body_write(&m->req_body, ag_slice_sub(&n->slice, 0, n->slice.len)) != AG_OK) {
            return false;
        }
    }
    ag_body_end(&m->req_body, NULL);
    return true;
}

static struct mirror *mirror_new(struct ag_mirrors *all, const struct ag_mirror_settings *s)
{
    struct ag_upstream_timeouts *t;
    struct ag_arena arena;
    struct mirror *m;

    ag_arena_init(&arena, &all->loop->pages, PAGES_MAX);
    ag_arena_widen(&arena, all->loop);
    m = ag_arena_zalloc(&arena, sizeof(*m));
    if (!m) {
        return NULL;
    }
    m->arena = arena;
    m->all = all;
    ag_list_init(&m->link);
    ag_list_push(&all->live, &m->link);
    all->count++;
    ag_task_init(&m->end, on_end);
    ag_body_init(&m->req_body, all->loop);
    ag_body_init(&m->res_body, all->loop);
    ag_body_set_consumer(&m->res_body, on_content, m);
    m->timeouts = s->upstream->options.timeouts;
    t = &m->timeouts;
    t->total_ms = t->total_ms > 0 && t->total_ms < TOTAL_MS ? t->total_ms : TOTAL_MS;
    m->claim.ops = &claim_ops;
    m->claim.timeouts = t;
    m->call.events = &call_events;
    m->call.req = &m->req;
    m->call.opts = &m->opts;
    m->call.res_body = &m->res_body;
    m->call.keep = &m->arena;
    return m;
}

void ag_mirror_send(struct ag_mirrors *m, const struct ag_mirror_settings *s,
                    const struct ag_mirror_request *r)
{
    struct mirror *one;

    if (m->count >= AG_MIRRORS_MAX || m->loop->tight || !(one = mirror_new(m, s))) {
        ag_mirror_leave_out(m);
        return;
    }
    if (!copy_head(one, s, r) || (r->content && !share_content(one, r->content))) {
        free_mirror(one);
        ag_mirror_leave_out(m);
        return;
    }
    m->begun++;
    go_on(one, ag_upstream_claim(m->upstreams, s->upstream, &one->claim));
}

bool ag_mirror_wants(struct ag_mirrors *m, const struct ag_mirror_settings *s)
{
    return s->parts >= AG_MIRROR_PARTS || ag_loop_random(m->loop) % AG_MIRROR_PARTS < s->parts;
}

/* ---- a shard's ---- */

void ag_mirrors_init(struct ag_mirrors *m, struct ag_upstreams *u)
{
    *m = (struct ag_mirrors){.loop = u->loop, .upstreams = u};
    ag_list_init(&m->live);
}

void ag_mirrors_deinit(struct ag_mirrors *m)
{
    while (!ag_list_empty(&m->live)) {
        struct mirror *one = ag_container_of(m->live.next, struct mirror, link);

        ag_upstream_cancel(&one->claim);
        free_mirror(one);
    }
}
