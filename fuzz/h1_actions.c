#include "fuzz/h1_actions.h"

/* One request under way; in the exchange's arena. */
struct act_work {
    struct ag_exchange *ex;
    struct acts *all;
    struct act_seen *seen;
    struct ag_block *kept; /* content that was read, NULL: none */
    size_t kept_len, sent;
    bool waits, filter, over;
};

/* Of LIMIT; all others go by the listener's. */
static const struct ag_route_limits tight = {.max_body_bytes = ACT_LIMIT_BYTES,
                                             .body_grace_ms = 2000,
                                             .min_rate = 100,
                                             .body_timeout_ms = 10000,
                                             .min_read_rate = 100,
                                             .write_timeout_ms = 10000};

static struct acts *acts_of(struct ag_exchange *ex)
{
    return ag_container_of(ex->context, struct acts, ctx);
}

/* ---- what is answered ---- */

#define LONG_BODY_BYTES 3000u
static uint8_t long_body[LONG_BODY_BYTES], big_body[ACT_BIG_BYTES], long_value[5000];

static struct ag_prepared fixed = {
    .status = 200,
    .h1 = AG_SPAN_INIT("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n"),
    .body = AG_SPAN_INIT("fixed\n"),
};
static struct ag_prepared fixed_long = {
    .status = 200,
    .h1 = AG_SPAN_INIT("HTTP/1.1 200 OK\r\nContent-Length: 3000\r\n"),
    .body = {long_body, LONG_BODY_BYTES},
};

uint8_t act_big_byte(size_t i)
{
    return (uint8_t)(i * 131 + (i >> 8) * 7);
}

struct ag_span act_fixed_body(enum act act)
{
    return act == ACT_FIXED || act == ACT_HINTS    ? fixed.body
           : act == ACT_FIXED_LONG                 ? fixed_long.body
           : act == ACT_BIG                        ? ag_span(big_body, sizeof(big_body))
           : act == ACT_CLOSE                      ? AG_SPAN("until the end")
           : act == ACT_WAIT || act == ACT_DELAYED ? AG_SPAN("waited")
                                                   : AG_SPAN("");
}

/* ---- the end of a request ---- */

static void let_go(struct act_work *w)
{
    struct ag_exchange *ex = w->ex;

    if (w->over) {
        return;
    }
    w->over = true;
    w->all->work = NULL;
    ag_block_release(w->kept);
    ag_body_set_consumer(&ex->req_body, NULL, NULL);
    ag_body_set_producer(&ex->res_body, NULL, NULL);
    ag_exchange_release(ex);
}

static void fail(struct act_work *w, unsigned status)
{
    ag_exchange_fail(w->ex, status, AG_REASON_OTHER, "the test's action has failed");
    let_go(w);
}

/* The head; true when the exchange has outlived it. */
static bool respond(struct act_work *w, unsigned status, enum ag_framing framing, uint64_t length)
{
    struct ag_response *res = &w->ex->res;

    res->status = status;
    res->framing = (uint8_t)framing;
    res->content_length = length;
    ag_exchange_respond(w->ex);
    return !w->over;
}

/* False: the exchange is over. */
static bool write(struct act_work *w, struct ag_slice s)
{
    if (ag_body_write(&w->ex->res_body, s) != AG_OK) {
        let_go(w);
    }
    return !w->over;
}

/* Head and content, and nothing more to do. */
static void answer(struct act_work *w, unsigned status, enum ag_framing framing,
                   struct ag_span body)
{
    if (respond(w, status, framing, body.len) && write(w, ag_slice_static(body))) {
        ag_body_end(&w->ex->res_body, NULL);
        let_go(w);
    }
}

/* ---- content there and back ---- */

/* Notes what the action took of the request's content. */
static void note(struct act_work *w, struct ag_span s)
{
    struct ag_buf *b = &w->all->bytes;

    if (w->seen->body_len == 0) {
        w->seen->body = b->len;
    }
    ag_buf_put(b, s);
    w->seen->body_len += s.len;
}

/* Sends `from` on as far as there is room: in pieces of `most`; the rest when there is room again. */
static void send_rest(struct act_work *w, struct ag_span from, struct ag_block *owner, size_t most)
{
    struct ag_body *to = &w->ex->res_body;

    while (w->sent < from.len && ag_body_room(to)) {
        size_t n = ag_min_size(most, from.len - w->sent);
        struct ag_slice s = {{.ptr = from.ptr + w->sent}, n, ag_block_hold(owner)};

        w->sent += n;
        if (!write(w, s)) {
            return;
        }
    }
    if (w->sent == from.len) {
        ag_body_end(to, NULL);
        let_go(w);
    }
}

static void on_room(struct ag_body *b, void *owner)
{
    struct act_work *w = owner;

    (void)b;
    if (w->seen->act == ACT_BIG) {
        send_rest(w, ag_span(big_body, sizeof(big_body)), NULL, 16384);
    } else {
        send_rest(w, ag_span(w->kept ? w->kept->data : NULL, w->kept_len), w->kept,
                  w->seen->act == ACT_CHUNKS ? 7 : SIZE_MAX);
    }
}

/* Content that was kept goes back. */
static void answer_kept(struct act_work *w)
{
    enum act act = w->seen->act;

    if (act == ACT_CLOSE) {
        answer(w, 200, AG_FRAMING_CLOSE, act_fixed_body(act));
    } else if (respond(w, 200, act == ACT_CHUNKS ? AG_FRAMING_CHUNKED : AG_FRAMING_LENGTH,
                       w->kept_len)) {
        ag_body_set_producer(&w->ex->res_body, on_room, w);
        on_room(&w->ex->res_body, w);
    }
}

static bool keep(struct act_work *w, struct ag_span s)
{
    if (!w->kept) {
        w->kept = ag_loop_buf(w->ex->context->loop, AG_BUF_SMALL);
    }
    if (w->kept && s.len > w->kept->size - w->kept_len && w->kept->size == AG_BUF_SMALL_BYTES) {
        struct ag_block *large = ag_loop_buf(w->ex->context->loop, AG_BUF_LARGE);

        if (large) {
            memcpy(large->data, w->kept->data, w->kept_len);
        }
        ag_block_release(w->kept);
        w->kept = large;
    }
    if (!w->kept || s.len > w->kept->size - w->kept_len) {
        return false;
    }
    memcpy(w->kept->data + w->kept_len, s.ptr, s.len);
    w->kept_len += s.len;
    return true;
}

static void on_content(struct ag_body *b, void *owner)
{
    struct act_work *w = owner;

    while (!w->over && b->q.bytes > 0) {
        struct ag_slice s = ag_body_take(b);
        bool kept = keep(w, ag_slice_span(&s));

        note(w, ag_slice_span(&s));
        ag_slice_release(&s);
        if (!kept) {
            fail(w, 503);
        }
    }
    if (w->over) {
        return;
    }
    if (b->aborted) {
        fail(w, 400);
    } else if (ag_body_at_end(b)) {
        w->seen->body_ended = true;
        ag_body_set_consumer(b, NULL, NULL);
        answer_kept(w);
    }
}

/* STREAM and UPGRADE: slices go through as a proxy's do. */
static void pump(struct act_work *w)
{
    struct ag_body *from = &w->ex->req_body, *to = &w->ex->res_body;

    while (!w->over && from->q.bytes > 0 && ag_body_room(to)) {
        struct ag_slice s = ag_body_take(from);

        note(w, ag_slice_span(&s));
        (void)write(w, s);
    }
    if (w->over || from->q.bytes > 0) {
        return;
    }
    if (from->aborted) {
        ag_body_abort(to, (enum ag_reason)from->reason);
        let_go(w);
    } else if (ag_body_at_end(from)) {
        w->seen->body_ended = true;
        ag_body_end(to, from->trailers);
        let_go(w);
    }
}

static void on_either(struct ag_body *b, void *owner)
{
    (void)b;
    pump(owner);
}

static void start_pump(struct act_work *w)
{
    ag_body_set_consumer(&w->ex->req_body, on_either, w);
    ag_body_set_producer(&w->ex->res_body, on_either, w);
    pump(w);
}

static void start_reading(struct act_work *w)
{
    struct ag_exchange *ex = w->ex;

    if (ag_body_at_end(&ex->req_body)) {
        w->seen->body_ended = true;
        answer_kept(w);
        return;
    }
    ex->server->want_body(ex);
    if (!w->over) {
        ag_body_set_consumer(&ex->req_body, on_content, w);
    }
}

/* ---- odd answers ---- */

static void start_long_head(struct act_work *w)
{
    struct ag_exchange *ex = w->ex;

    if (ag_fields_add(&ex->res.fields, &ex->arena, AG_FIELD_OTHER, AG_SPAN("X-Long"),
                      ag_span(long_value, sizeof(long_value))) != AG_OK) {
        fail(w, 503);
    } else {
        answer(w, 200, AG_FRAMING_LENGTH, AG_SPAN(""));
    }
}

static void start_upgrade(struct act_work *w)
{
    struct ag_exchange *ex = w->ex;

    if (!ex->req.upgrade || !ag_body_at_end(&ex->req_body)) {
        fail(w, 426);
        return;
    }
    if (ag_exchange_field(ex, AG_FIELD_UPGRADE, AG_SPAN("test")) != AG_OK) {
        fail(w, 503);
    } else if (respond(w, 101, AG_FRAMING_NONE, 0)) {
        start_pump(w);
    }
}

static void start_hints(struct act_work *w)
{
    struct ag_field link = {.name = (const uint8_t *)"Link",
                            .name_len = 4,
                            .value = (const uint8_t *)"</a>",
                            .value_len = 4};
    const struct ag_fields fields = {&link, 1, 1};

    w->ex->server->send_interim(w->ex, 103, &fields);
    if (!w->over) {
        ag_exchange_respond_prepared(w->ex, &fixed);
        let_go(w);
    }
}

/* Answers whose content is not what their head says, or does not come to its end. */
static void start_liar(struct act_work *w)
{
    enum act act = w->seen->act;
    bool chunked = act == ACT_ABORT || act == ACT_RESET;
    struct ag_exchange *ex = w->ex;

    if (!respond(w, 200, chunked ? AG_FRAMING_CHUNKED : AG_FRAMING_LENGTH,
                 act == ACT_LONG ? 5 : 10) ||
        !write(w, ag_slice_static(act == ACT_LONG ? AG_SPAN("0123456789") : AG_SPAN("01234")))) {
        return;
    }
    if (act == ACT_ABORT) {
        ag_body_abort(&ex->res_body, AG_REASON_RESET);
    } else if (act == ACT_RESET) {
        ag_exchange_fail(ex, 502, AG_REASON_OTHER, "after the head");
    } else {
        ag_body_end(&ex->res_body, NULL);
    }
    let_go(w);
}

/* ---- the pipeline ---- */

static void run_action(struct act_work *w)
{
    struct ag_exchange *ex = w->ex;

    switch (w->seen->act) {
    case ACT_FIXED:
        (void)ag_exchange_remote(ex);
        ag_exchange_respond_prepared(ex, &fixed);
        let_go(w);
        return;
    case ACT_FIXED_LONG:
        ag_exchange_respond_prepared(ex, &fixed_long);
        let_go(w);
        return;
    case ACT_BIG:
        if (respond(w, 200, AG_FRAMING_LENGTH, ACT_BIG_BYTES)) {
            ag_body_set_producer(&ex->res_body, on_room, w);
            on_room(&ex->res_body, w);
        }
        return;
    case ACT_EMPTY:
        answer(w, 204, AG_FRAMING_NONE, AG_SPAN(""));
        return;
    case ACT_UNCHANGED:
        if (respond(w, 304, AG_FRAMING_LENGTH, 10)) { /* what GET would have had */
            ag_body_end(&ex->res_body, NULL);
            let_go(w);
        }
        return;
    case ACT_HINTS:
        start_hints(w);
        return;
    case ACT_HEAD:
        start_long_head(w);
        return;
    case ACT_UPGRADE:
        start_upgrade(w);
        return;
    case ACT_STREAM:
        ex->streams = true;
        ex->server->want_body(ex);
        if (!w->over && respond(w, 200, AG_FRAMING_CHUNKED, AG_LENGTH_UNKNOWN)) {
            start_pump(w);
        }
        return;
    case ACT_ECHO:
    case ACT_CHUNKS:
    case ACT_CLOSE:
    case ACT_LIMIT:
    case ACT_FILTER:
        start_reading(w);
        return;
    case ACT_WAIT:
    case ACT_DELAYED:
        w->waits = true;
        return;
    case ACT_SHORT:
    case ACT_LONG:
    case ACT_ABORT:
    case ACT_RESET:
        start_liar(w);
        return;
    case ACT_FAIL:
        fail(w, 500);
        return;
    case ACT_NONE:
        fail(w, 404);
        return;
    }
    AG_UNREACHABLE("an action that is none");
}

static struct ag_span copy(struct ag_buf *b, struct ag_span s)
{
    size_t at = b->len;

    ag_buf_put(b, s);
    AG_ASSERT(!b->overflow);
    return ag_span(b->ptr + at, s.len);
}

static enum act act_of(struct acts *a, struct ag_span target)
{
    enum act act = target.len ? (enum act)target.ptr[target.len - 1] : ACT_NONE;

    if (act == 'h' || act == 'j' || act == 'r' || act < 'a' || act > 'x') {
        return ACT_NONE;
    }
    if (act == ACT_BIG && a->big_count++ >= ACT_BIG_MAX) {
        return ACT_NONE;
    }
    return act;
}

static struct act_seen *see(struct acts *a, const struct ag_request *req)
{
    struct act_seen *seen = &a->seen[a->seen_count++];

    AG_ASSERT(a->seen_count <= ACT_SEEN_MAX);
    *seen = (struct act_seen){.method = copy(&a->bytes, req->method_name),
                              .target = copy(&a->bytes, req->target),
                              .path = copy(&a->bytes, req->path),
                              .query = copy(&a->bytes, req->query),
                              .authority = copy(&a->bytes, req->authority),
                              .length = req->content_length,
                              .framing = req->framing,
                              .version = req->version,
                              .keep_alive = req->keep_alive,
                              .expects = req->expect_continue,
                              .upgrade = req->upgrade,
                              .act = act_of(a, req->target)};
    return seen;
}

static void on_start(struct ag_exchange *ex)
{
    struct acts *a = acts_of(ex);
    struct act_seen *seen = see(a, &ex->req);
    struct act_work *w;

    AG_ASSERT(!a->work);
    ag_exchange_pin(ex);
    ex->filter_data = seen;
    if (seen->act == ACT_LIMIT) {
        ex->limits = &tight;
        if (ex->req.content_length != AG_LENGTH_UNKNOWN &&
            ex->req.content_length > ACT_LIMIT_BYTES) {
            ag_exchange_fail(ex, 413, AG_REASON_LIMIT, "request content too large");
            return;
        }
    }
    w = ag_arena_zalloc(&ex->arena, sizeof(*w));
    if (!w) {
        ag_exchange_fail(ex, 503, AG_REASON_RESOURCES, "out of memory");
        return;
    }
    w->ex = ex;
    w->all = a;
    w->seen = seen;
    ex->action_data = w;
    a->work = w;
    ag_exchange_hold(ex);
    if (seen->act == ACT_FILTER) {
        ex->filter_waits = w->waits = w->filter = true;
        (void)!ag_exchange_detach(ex);
    } else {
        run_action(w);
    }
}

static void on_respond(struct ag_exchange *ex)
{
    ex->head_sent = true;
    ex->server->send_head(ex);
}

static void on_abort(struct ag_exchange *ex, enum ag_reason why)
{
    struct act_work *w = ex->action_data;

    (void)why;
    ex->filter_waits = false;
    if (w && !w->over) {
        AG_ASSERT(ex->holders > 1);
        let_go(w);
    }
}

static void on_done(struct ag_exchange *ex)
{
    struct act_seen *seen = ex->filter_data;

    if (seen) {
        AG_ASSERT(!seen->done);
        seen->done = true;
        acts_of(ex)->done_count++;
    }
}

/* Nothing of it lies in a snapshot but what holds that by itself; what waits does not answer yet. */
static bool on_outlive(struct ag_exchange *ex)
{
    struct act_work *w = ex->action_data;

    return !w || w->over || !w->waits;
}

static const struct ag_pipeline_ops pipeline = {
    .start = on_start,
    .respond = on_respond,
    .abort = on_abort,
    .done = on_done,
    .outlive = on_outlive,
};

static void keep_snapshot(struct ag_block *b)
{
    (void)b;
    AG_UNREACHABLE("the test holds the snapshot to the end");
}

void acts_init(struct acts *a, struct ag_loop *l, struct ag_buf bytes)
{
    *a = (struct acts){.bytes = bytes};
    for (size_t i = 0; i < AG_COUNT(a->snapshots); i++) {
        a->snapshots[i] = (struct ag_block){.refs = 1, .free = keep_snapshot, .fd = -1};
    }
    a->ctx = (struct ag_context){
        .loop = l, .pipeline = &pipeline, .snapshot_ref = &a->snapshots[0], .shard_count = 1};
    memset(long_value, 'v', sizeof(long_value));
    for (size_t i = 0; i < sizeof(big_body); i++) {
        big_body[i] = act_big_byte(i);
    }
    memcpy(long_body, big_body, sizeof(long_body));
}

void acts_reset(struct acts *a)
{
    AG_ASSERT(!a->work);
    a->seen_count = a->done_count = a->big_count = 0;
    a->bytes.len = 0;
    a->ctx.exchanges_total = 0;
}

void acts_reload(struct acts *a)
{
    struct ag_block *old = a->ctx.snapshot_ref;

    a->ctx.snapshot_ref = &a->snapshots[old == &a->snapshots[0]];
    (void)!ag_context_retire(&a->ctx, old);
}

bool acts_waits(const struct acts *a, bool long_ones)
{
    return a->work && a->work->waits && (long_ones || a->work->seen->act != ACT_DELAYED);
}

void acts_resume(struct acts *a)
{
    struct act_work *w = a->work;

    w->waits = false;
    if (w->filter) {
        w->filter = false;
        w->ex->filter_waits = false;
        ag_body_kick(&w->ex->req_body); /* the server had stopped reading content */
        run_action(w);
    } else {
        answer(w, 200, AG_FRAMING_LENGTH, act_fixed_body(w->seen->act));
    }
}
