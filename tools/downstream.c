#include "tools/downstream.h"

_Static_assert(sizeof(struct ag_downstream) <= 768, "idle connections are what there is most of");

static struct ag_downstream *of(struct ag_stream *s)
{
    return ag_container_of(ag_conn_of(s), struct ag_downstream, conn);
}

static void on_data(struct ag_stream *s, struct ag_slice slice)
{
    ag_h1_server_data(&of(s)->h1, slice);
}

static void on_eof(struct ag_stream *s)
{
    ag_h1_server_eof(&of(s)->h1);
}

static void on_drain(struct ag_stream *s)
{
    ag_h1_server_drained(&of(s)->h1);
}

static void on_deadline(struct ag_stream *s)
{
    ag_h1_server_deadline(&of(s)->h1);
}

static void on_close(struct ag_stream *s, enum ag_reason why)
{
    struct ag_downstream *ds = of(s);
    struct ag_downstreams *all = ds->all;
    struct ag_downstream_origin *origin = ds->origin;

    ag_h1_server_closed(&ds->h1, why);
    ag_list_remove(&ds->link);
    ag_pool_put(&all->pool, ds);
    origin->connections--;
    all->changed(all, origin);
}

static const struct ag_stream_user stream_user = {
    .on_data = on_data,
    .on_eof = on_eof,
    .on_drain = on_drain,
    .on_deadline = on_deadline,
    .on_close = on_close,
};

enum ag_status ag_downstreams_init(struct ag_downstreams *d, struct ag_context *ctx,
                                   uint32_t connection_max)
{
    *d = (struct ag_downstreams){.context = ctx};
    ag_list_init(&d->open);
    return ag_pool_init(&d->pool, "downstream connections", sizeof(struct ag_downstream),
                        connection_max);
}

void ag_downstreams_deinit(struct ag_downstreams *d)
{
    ag_pool_deinit(&d->pool);
}

bool ag_downstream_accept(struct ag_downstreams *d, int fd, struct ag_downstream_origin *origin)
{
    struct ag_downstream *ds = ag_pool_get(&d->pool);

    if (!ds) {
        return false;
    }
    ds->all = d;
    ds->origin = origin;
    origin->connections++;
    ag_list_init(&ds->link);
    ag_list_push(&d->open, &ds->link);
    ag_conn_accept(&ds->conn, d->context->loop, fd, &stream_user);
    ag_h1_server_init(&ds->h1, &ds->conn.stream, d->context, &origin->limits, origin->port);
    if (origin->draining) {
        ds->h1.draining = true; /* its first request is still answered */
    }
    return true;
}

void ag_downstreams_drain(struct ag_downstreams *d, struct ag_downstream_origin *origin)
{
    for (struct ag_link *it = d->open.next, *next; it != &d->open; it = next) {
        struct ag_downstream *ds = ag_container_of(it, struct ag_downstream, link);

        next = it->next;
        if (!origin || ds->origin == origin) {
            ag_h1_server_drain(&ds->h1);
        }
    }
}

void ag_downstreams_yield(struct ag_downstreams *d)
{
    ag_list_foreach(it, &d->open) {
        ag_h1_server_yield(&ag_container_of(it, struct ag_downstream, link)->h1);
    }
}

bool ag_downstreams_abort(struct ag_downstreams *d)
{
    bool idle = true;

    for (struct ag_link *it = d->open.next, *next; it != &d->open; it = next) {
        struct ag_downstream *ds = ag_container_of(it, struct ag_downstream, link);

        next = it->next;
        idle = ag_h1_server_idle(&ds->h1) && idle;
        ag_stream_abort(&ds->conn.stream, AG_REASON_ABORTED);
    }
    return idle;
}
