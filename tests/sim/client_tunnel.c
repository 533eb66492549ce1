#include "tests/sim/run.h"

#include <errno.h>
#include <inttypes.h>

#define PIECE_MAX 16384u

static struct request *tunnel_of(const struct client *c)
{
    return c->requests[c->answered - 1];
}

static void check_end(struct client *c, bool by_error)
{
    const struct request *q = tunnel_of(c);

    sim_note(c->run->sim, "client: tunnel ends", q->id, c->tunnel_got);
    if ((by_error || c->tunnel_got != q->tunnel_down) && !(oracle_allows(c->run, c, q) & OUT_CUT)) {
        sim_fail(c->run->sim,
                 "client %u: the tunnel of request %u ends after %" PRIu64 " of %u: %s", c->index,
                 q->id, c->tunnel_got, q->tunnel_down, by_error ? "reset" : "closed");
    }
    c->tunnel_ended = true;
    if (by_error) {
        client_finish(c);
    }
}

void client_tunnel_bytes(struct client *c, struct ag_span bytes)
{
    const struct request *q = tunnel_of(c);

    if (bytes.len > q->tunnel_down - c->tunnel_got ||
        !content_is(answer_key(q), c->tunnel_got, bytes)) {
        sim_fail(c->run->sim, "client %u: wrong bytes at %" PRIu64 " of the tunnel of request %u",
                 c->index, c->tunnel_got, q->id);
    }
    c->tunnel_got += bytes.len;
}

static void receive(struct client *c)
{
    uint8_t buf[PIECE_MAX];
    int64_t n;

    while (!c->done && !c->tunnel_ended && (n = net_read(c->end, buf, sizeof(buf))) != -EAGAIN) {
        if (n <= 0) {
            check_end(c, n < 0);
            return;
        }
        client_tunnel_bytes(c, ag_span(buf, (size_t)n));
    }
}

static void transmit(struct client *c)
{
    const struct request *q = tunnel_of(c);

    while (!c->done && c->tunnel_sent < q->tunnel_up) {
        struct ag_span piece = content_at(
            request_key(q), c->tunnel_sent,
            ag_min_u64(q->tunnel_up - c->tunnel_sent, sim_between(c->run->sim, 1, 20000)));
        int64_t n = net_write(c->end, piece.ptr, piece.len);

        if (n < 0) {
            if (n != -EAGAIN) {
                check_end(c, true);
            }
            return;
        }
        c->tunnel_sent += (uint64_t)n;
    }
    if (c->done || c->tunnel_sent < q->tunnel_up) {
        return;
    }
    /* Half of the tunnels are ended by the client, half by the upstream. */
    if (c->tunnel_ended) {
        client_finish(c);
    } else if (q->id % 2) {
        net_shut(c->end);
    }
}

void client_tunnel_look(struct client *c)
{
    receive(c);
    if (!c->done) {
        transmit(c);
    }
}

static void on_leave(struct sim *s, void *arg)
{
    struct client *c = arg;

    (void)s;
    c->gone = true;
    client_finish(c);
}

void client_tunnel_begin(struct client *c)
{
    c->tunnel = true;
    if (c->manners.rude && sim_chance(c->run->sim, 500)) {
        sim_at(c->run->sim, sim_below(c->run->sim, SIM_S), on_leave, c);
    }
    sim_note(c->run->sim, "client: tunnel", tunnel_of(c)->id, 0);
}
