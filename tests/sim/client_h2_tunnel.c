#include "tests/sim/client_h2.h"

/* The upstream has ended its side: the client does so when it has sent all. */
void client_h2_end_tunnel(struct lane *l)
{
    struct client *c = l->client;

    if (l->arrival.message.body_bytes != l->q->tunnel_down) {
        oracle_reset(c->run, c, l->q, H2_CANCEL);
    }
    if (l->st->end_sent) {
        client_h2_settle(l);
    }
}

/* Half of the tunnels are ended by the client, half by the upstream; refused ones by who asked. */
bool client_h2_can_tunnel(const struct client_h2 *v, const struct lane *l)
{
    if (!l->tunnel) {
        return l->settled;
    }
    return l->sent < l->q->tunnel_up ? h2_room(&v->h, l->st) > 0
                                     : l->st->end_got || l->q->id % 2 == 1;
}

void client_h2_tunnel(struct client_h2 *v, struct lane *l)
{
    size_t max = ag_min_size(h2_room(&v->h, l->st), l->q->tunnel_up - l->sent);
    struct ag_span piece =
        content_at(request_key(l->q), l->sent, max ? sim_between(v->h.sim, 1, max) : 0);
    bool end = !l->tunnel || l->sent == l->q->tunnel_up;

    sim_note(v->h.sim, end ? "client: tunnel shut" : "client: tunnel sends", l->q->id, l->sent);
    h2_put_data(&v->h, l->st, end ? AG_SPAN("") : piece, end);
    l->sent += end ? 0 : (uint32_t)piece.len;
    if (end) {
        client_h2_sent(l);
        if (l->st->end_got) {
            client_h2_settle(l);
        }
    }
}
