#include "fuzz/h1_actions_parts.h"

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

enum act act_of_letter(uint8_t letter)
{
    return letter >= 'a' && letter <= 'z' ? (enum act)letter : ACT_NONE;
}

static enum act act_of(struct acts *a, struct ag_span target)
{
    enum act act = act_of_letter(target.ptr[target.len - 1]);

    if (act == ACT_BIG && a->big_count++ >= ACT_BIG_MAX) {
        return ACT_NONE;
    }
    return act;
}

static struct act_seen *see(struct acts *a, const struct ag_request *req)
{
    struct act_seen *seen = &a->seen[a->seen_count++];

    AG_ASSERT(a->seen_count <= ACT_SEEN_MAX);
    seen_request(seen, req, &a->bytes);
    seen->act = act_of(a, req->target);
    return seen;
}

static void on_start(struct ag_exchange *ex)
{
    struct acts *a = acts_of(ex);
    struct act_seen *seen = see(a, &ex->req);
    struct act_work *w;

    AG_ASSERT(!a->work && ex->listener_port == a->port);
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
        act_run(w);
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
        act_let_go(w);
    }
}

static void on_done(struct ag_exchange *ex)
{
    struct act_seen *seen = ex->filter_data;

    ex->filter_at = 0;
    if (seen) {
        seen_done(seen, ex, &acts_of(ex)->bytes);
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
    act_init();
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

    a->ctx.snapshot_ref = &a->snapshots[(size_t)(old - a->snapshots + 1) % AG_COUNT(a->snapshots)];
    for (size_t i = 0; i < AG_COUNT(a->snapshots); i++) {
        if (&a->snapshots[i] != a->ctx.snapshot_ref) {
            const struct act_work *w = a->work && a->work->waits ? a->work : NULL;
            bool needed = w && w->ex->snapshot_ref == &a->snapshots[i];

            AG_ASSERT(ag_context_retire(&a->ctx, &a->snapshots[i]) == needed);
            AG_ASSERT(!needed || w->ex->snapshot_ref == &a->snapshots[i]);
        }
    }
}

bool acts_waits(const struct acts *a, bool long_ones)
{
    unsigned act = a->work ? a->work->seen->act : ACT_NONE;

    return a->work && a->work->waits && (long_ones || (act != ACT_DELAYED && act != ACT_LAZY));
}
