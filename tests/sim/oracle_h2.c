#include "actions/upstream/upstream_pool.h"
#include "tests/sim/client_h2.h"
#include "tests/sim/h2.h"
#include "tests/sim/run.h"

#include <inttypes.h>

/* ---- failures of streams and connections ---- */

/* Why a whole connection may fail, or a stream of it not be taken. */
static bool may_break(const struct run *r, const struct client *c)
{
    return c->manners.rude || c->manners.half_close || c->end->conn->faulted ||
           c->end->conn->profile.stall_per_mille || r->weather.shortage;
}

static bool is_held_up(const struct client *c)
{
    return c->end->conn->profile.stall_per_mille || net_unacked(c->end) > 0 ||
           c->ways.harm == TLS_SILENCE;
}

static bool is_going(const struct run *r, const struct client *c)
{
    return c->drained_under || r->draining || r->yielding || oracle_port_went(r, c);
}

void oracle_reset(struct run *r, struct client *c, struct request *q, uint32_t code)
{
    bool allowed = oracle_allows(r, c, q) & OUT_CUT;

    sim_note(r->sim, "client: stream fails", q->id, code);
    if (q->bad_h2 && request_bad_h2_resets(q) && code == H2_PROTOCOL_ERROR) {
        return;
    }
    if (code == H2_REFUSED_STREAM) {
        allowed = may_break(r, c) || (is_going(r, c) && !q->spared);
    }
    if (!allowed || code == H2_NO_ERROR) {
        sim_fail(r->sim, "client %u: request %u (kind %u, plan %u, %s) is reset: %u", c->index,
                 q->id, q->kind, q->plan, q->target, code);
    }
}

void oracle_goaway(struct run *r, struct client *c, uint32_t code, uint32_t codes, bool flood)
{
    bool famine = code == H2_INTERNAL_ERROR && r->weather.shortage;
    bool allowed = code == H2_NO_ERROR || may_break(r, c);

    if (codes && !flood) {
        /* What is held up by the network is late, and not seen to be wrong. */
        allowed = (codes & UINT32_C(1) << code) || code == H2_NO_ERROR || famine ||
                  (code == H2_CALM && (c->end->conn->faulted || is_held_up(c)));
    } else if (flood) {
        allowed = code == H2_CALM || code == H2_NO_ERROR || (codes & UINT32_C(1) << code) || famine;
    }
    if (!allowed) {
        sim_fail(r->sim, "client %u: GOAWAY %u", c->index, code);
    }
}

void oracle_gone_h2(struct run *r, struct client *c, bool by_error, bool late, bool told)
{
    sim_note(r->sim, "client: gone", c->index, by_error);
    /* One whose preface has not come is no HTTP/2 to the server. */
    told |= !c->h2->h.settled && is_going(r, c);
    if (late ? !may_break(r, c) && !oracle_was_starved(r)
             : !told && !by_error && !may_break(r, c)) {
        sim_fail(r->sim, "client %u: the connection ends without GOAWAY", c->index);
    }
}

void oracle_unanswered(struct run *r, struct client *c, struct request *q, bool by_error)
{
    if (!may_break(r, c) && !(is_going(r, c) && !q->spared)) {
        sim_fail(r->sim, "client %u: no answer to request %u (kind %u, plan %u, %s): %s", c->index,
                 q->id, q->kind, q->plan, q->target, by_error ? "reset" : "closed");
    }
}

/* ---- bounds ---- */

/* Whether a stream of an upstream's connection fills it, or may have. */
static bool may_be_of_stream(const struct ag_context *ctx, const struct ag_body *b)
{
    const struct ag_upstreams *all = ctx->action_state[AG_ACTION_PROXY];

    ag_list_foreach(it, &all->live) {
        const struct ag_h2_client *h2 = ag_container_of(it, struct ag_upstream_conn, live)->h2;

        for (size_t i = 0; h2 && i < AG_H2_BUCKETS; i++) {
            for (const struct ag_h2_stream *s = h2->conn.buckets[i]; s; s = s->next) {
                if (s->sink == b) {
                    return true;
                }
            }
        }
    }
    return b->ended || b->aborted;
}

static bool holds_more(const struct ag_body *b, uint64_t more)
{
    return b->pinned_bytes > AG_BODY_BYTES_MAX + AG_BUF_LARGE_BYTES + more;
}

bool oracle_holds_too_much(const struct ag_context *ctx, const struct ag_body *b)
{
    bool by_slices = b->q.count > AG_BODY_SLICES_MAX + 1;

    return (by_slices || holds_more(b, 0)) &&
           (holds_more(b, AG_H2_STREAM_WINDOW_MAX) || !may_be_of_stream(ctx, b));
}

void oracle_bounds_h2(const struct run *r, const struct ag_h2_server *h)
{
    const struct ag_h2_conn *c = &h->conn;

    if (c->in.q.bytes > 256 * 1024 || c->held > AG_H2_CONN_WINDOW_MAX) {
        sim_fail(r->sim, "%" PRIu64 " bytes wait as input, %" PRIu64 " in bodies", c->in.q.bytes,
                 c->held);
    }
    if (h->slots > AG_H2_STREAMS_MAX || c->streams > h->slots) {
        sim_fail(r->sim, "%u streams and %u exchanges of a connection", c->streams, h->slots);
    }
    if (ag_stream_queued(c->stream) > AG_STREAM_HIGH + AG_BODY_BYTES_MAX) {
        sim_fail(r->sim, "%" PRIu64 " bytes wait to be sent", ag_stream_queued(c->stream));
    }
    for (size_t i = 0; i < AG_H2_BUCKETS; i++) {
        for (const struct ag_h2_stream *s = c->buckets[i]; s; s = s->next) {
            if ((s->sink && holds_more(s->sink, AG_H2_STREAM_WINDOW_MAX)) ||
                (s->source && oracle_holds_too_much(h->context, s->source))) {
                sim_fail(r->sim, "the body of stream %u holds too much", s->id);
            }
        }
    }
}
