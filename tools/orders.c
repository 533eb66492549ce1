/*
 * The control thread of a worker: what the master orders takes the place of signals.
 *
 *   LOAD --> staged: loaded, its sockets planned --COMMIT--> published --shards--> the master is told
 *                                                 --CANCEL, drain--> given up
 *
 * One configuration at a time: the master sends the next one when it knows what became of the last.
 */
#include "engine/tls_tickets.h"
#include "tools/server_parts.h"

void ag_server_unstage(struct ag_server *s)
{
    if (s->staged.snapshot) {
        ag_sockets_cancel(&s->sockets);
        ag_load_release(&s->staged);
    }
}

static void refuse(struct ag_server *s, uint32_t generation, struct ag_buf *why)
{
    const struct ag_diag *first = s->staged.diags.first;

    ag_load_log(&s->staged);
    if (why->len == 0 && first) {
        ag_buf_printf(why, "%s", first->what);
    }
    ag_worker_tell(s->worker, AG_CHANNEL_REFUSED, generation, ag_buf_span(why));
    ag_load_release(&s->staged);
}

static void stage(struct ag_server *s)
{
    uint32_t generation = s->worker->bundle.generation;
    char text[512];
    struct ag_buf why = ag_buf(text, sizeof(text));

    ag_worker_load(s->worker, s->input, &s->staged, &why);
    ag_server_open_tls(s, &s->staged);
    if (!s->staged.snapshot) {
        ag_bundle_close(&s->worker->bundle);
        refuse(s, generation, &why);
        return;
    }
    ag_bundle_adopt(&s->worker->bundle, &s->sockets);
    if (ag_sockets_plan(&s->sockets, s->staged.snapshot->model, &why) != AG_OK) {
        refuse(s, generation, &why);
        return;
    }
    s->generation = generation;
    ag_worker_tell(s->worker, AG_CHANNEL_LOADED, generation, AG_SPAN(""));
}

static void commit(struct ag_server *s)
{
    if (s->staged.snapshot && s->worker->msg.generation == s->generation) {
        AG_ASSERT(atomic_load(&s->changing) == 0);
        ag_server_switch(s, &s->staged);
        s->untold = true;
    }
}

void ag_server_report(struct ag_server *s)
{
    if (s->untold && !ag_server_ends(s) && atomic_load(&s->changing) == 0) {
        s->untold = false;
        if (s->serves) {
            ag_server_tell_reloaded(s);
        }
        ag_worker_tell(s->worker, s->serves ? AG_CHANNEL_APPLIED : AG_CHANNEL_READY, s->generation,
                       s->fixed);
        s->serves = true;
    }
}

static void stop(struct ag_server *s, bool at_once, const char *why)
{
    unsigned stops = at_once ? 2 : 1;

    if (s->stops >= stops) {
        return;
    }
    s->stops = stops;
    ag_log(AG_LOG_INFO, "%s: %s", why, at_once ? "stopping at once" : "draining");
    ag_server_unstage(s);
    ag_bundle_close(&s->worker->bundle);
    ag_server_stop_shards(s, at_once);
}

/* A master's are whole, and as many as its configuration keeps; without a ring no configuration gives tickets yet. */
static void take_tickets(struct ag_server *s)
{
    struct ag_tls_tickets *ring = s->material.tickets.ring;
    struct ag_channel_msg *m = &s->worker->msg;

    if (ring) {
        ag_tls_tickets_keep(ring, AG_TLS_TICKETS_KEEP_MAX);
        if (ag_tls_tickets_load(ring, ag_span(m->text, m->text_len)) != AG_OK) {
            ag_log(AG_LOG_ERROR, "the master's ticket keys cannot be read");
        }
    }
    explicit_bzero(m->text, m->text_len);
}

/* False: nothing more for now. */
static bool obey(struct ag_server *s)
{
    switch (ag_worker_read(s->worker)) {
    case AG_ORDER_NONE:
        return false;
    case AG_ORDER_LOAD:
        if (!ag_server_ends(s)) {
            stage(s);
        }
        break;
    case AG_ORDER_COMMIT:
        commit(s);
        break;
    case AG_ORDER_CANCEL:
        ag_server_unstage(s);
        break;
    case AG_ORDER_YIELD:
        ag_server_yield_shards(s);
        break;
    case AG_ORDER_PING:
        if (!s->pinging) {
            ag_server_ping_shards(s);
        }
        break;
    case AG_ORDER_TICKETS:
        take_tickets(s);
        break;
    case AG_ORDER_DRAIN:
        stop(s, false, "the master says so");
        break;
    case AG_ORDER_ABORT:
        stop(s, true, "the master says so");
        break;
    case AG_ORDER_GONE:
        stop(s, false, "there is no master any more");
        return false;
    }
    return true;
}

void ag_server_obey(struct ag_server *s)
{
    while (obey(s)) {
    }
}
