/* Endpoints that tell how the process is. */
#include "tools/admin.h"
#include "tools/commands.h"
#include "tools/serving.h"

#include <unistd.h>

static bool serves(const struct ag_serving *s)
{
    const struct ag_board *b = s->board;
    bool all = !s->draining;

    for (uint32_t i = 0; b && i < b->shard_count; i++) {
        all = all && atomic_load_explicit(&b->each[i].serves, memory_order_relaxed);
    }
    return all;
}

static void answer_healthz(struct ag_admin *a, struct ag_exchange *ex)
{
    (void)a;
    ag_admin_text(ex, 200, AG_SPAN("alive\n"));
}

static void answer_readyz(struct ag_admin *a, struct ag_exchange *ex)
{
    if (serves(a->serving)) {
        ag_admin_text(ex, 200, AG_SPAN("ready\n"));
    } else {
        ag_admin_text(ex, 503, AG_SPAN("not ready: starting or draining\n"));
    }
}

static void put_number(struct ag_json_out *o, const char *name, uint64_t value)
{
    ag_json_put(o, AG_SPAN(",\""));
    ag_json_put(o, ag_span_str(name));
    ag_json_put(o, AG_SPAN("\":"));
    ag_json_u64(o, value);
}

static uint64_t connections(const struct ag_serving *s)
{
    uint64_t sum = 0;

    if (!s->board) {
        return s->down.count;
    }
    for (uint32_t i = 0; i < s->board->shard_count; i++) {
        sum += atomic_load_explicit(&s->board->each[i].connections, memory_order_relaxed);
    }
    return sum;
}

/* Pieces of streams that were passed on by all shards. */
static void put_passed(struct ag_json_out *o, const struct ag_board *b)
{
    uint64_t at_once = 0, later = 0;

    for (uint32_t i = 0; i < b->shard_count; i++) {
        const struct ag_loop_stats *l =
            atomic_load_explicit(&b->each[i].loop, memory_order_acquire);

        if (l) {
            at_once += atomic_load_explicit(&l->passed_at_once, memory_order_relaxed);
            later += atomic_load_explicit(&l->passed_later, memory_order_relaxed);
        }
    }
    put_number(o, "passed_at_once", at_once);
    put_number(o, "passed_later", later);
}

/* Of clients, by shard. */
static void put_shards(struct ag_json_out *o, const struct ag_board *b)
{
    for (uint32_t i = 0; i < b->shard_count; i++) {
        ag_json_put(o, i > 0 ? AG_SPAN(",") : AG_SPAN(""));
        ag_json_u64(o, atomic_load_explicit(&b->each[i].connections, memory_order_relaxed));
    }
}

static void answer_status(struct ag_admin *a, struct ag_exchange *ex)
{
    const struct ag_serving *s = a->serving;
    struct ag_json_out o;

    ag_json_init(&o, a->ctx.loop, AG_ADMIN_JSON_MAX);
    ag_json_put(&o, AG_SPAN("{\"version\":\"" AG_VERSION "\",\"state\":"));
    ag_json_put(&o, serves(s) ? AG_SPAN("\"ready\"") : AG_SPAN("\"not ready\""));
    if (s->board) {
        ag_json_put(&o, AG_SPAN(",\"backend\":"));
        ag_json_string(&o, ag_span_str(s->board->backend));
        put_number(&o, "uptime_s", (a->ctx.loop->now_ms - s->board->started_ms) / 1000);
    }
    put_number(&o, "pid", (uint64_t)getpid());
    put_number(&o, "shards", a->ctx.shard_count);
    put_number(&o, "routes", a->ctx.snapshot->route_count);
    put_number(&o, "connections", connections(s));
    put_number(&o, "max_connections", (uint64_t)s->down.max * a->ctx.shard_count);
    if (s->board) {
        ag_json_put(&o, AG_SPAN(",\"shard_connections\":["));
        put_shards(&o, s->board);
        ag_json_put(&o, AG_SPAN("]"));
        put_passed(&o, s->board);
    }
    ag_json_put(&o, AG_SPAN("}\n"));
    ag_admin_json(ex, 200, &o);
}

const struct ag_admin_endpoint ag_admin_status_endpoints[] = {
    {"/healthz", 1u << AG_METHOD_GET, answer_healthz},
    {"/readyz", 1u << AG_METHOD_GET, answer_readyz},
    {"/status", 1u << AG_METHOD_GET, answer_status},
    {NULL, 0, NULL},
};
