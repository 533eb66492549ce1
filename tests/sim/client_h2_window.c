#include "tests/sim/client_h2.h"

#define SLOW_US (50 * SIM_MS) /* between two reads */

/* Who gives back less at a time, and that often, is taken for somebody who wants to keep a server busy. */
#define DRIBBLE_BYTES 600u

static struct sim *sim_of(const struct client *c)
{
    return c->run->sim;
}

static uint64_t due(const struct client_h2 *v, uint64_t owed, int64_t window)
{
    if (v->grant == GRANT_HALF && (int64_t)owed < window / 2) {
        return 0;
    }
    if (v->grant == GRANT_DRIBBLE && owed > 0) {
        uint64_t most = DRIBBLE_BYTES + v->client->received_total / 8;

        return ag_min_u64(owed,
                          sim_between(v->h.sim, v->client->manners.rude ? 1 : DRIBBLE_BYTES, most));
    }
    return v->grant == GRANT_NEVER ? 0 : owed;
}

static void give_back(struct client_h2 *v)
{
    struct h2 *h = &v->h;
    uint64_t n = due(v, h->owed, H2_WINDOW);

    if (n) {
        h2_grant(h, NULL, (uint32_t)n);
    }
    for (struct h2_stream *st = h->streams; st; st = st->next) {
        n = st->end_got || st->reset_sent || st->reset_got ? 0 : due(v, st->owed, h->window);
        if (n) {
            h2_grant(h, st, (uint32_t)n);
        }
    }
}

static bool owes(const struct h2 *h)
{
    bool any = h->owed > 0;

    for (const struct h2_stream *st = h->streams; st; st = st->next) {
        any |= st->owed > 0 && !(st->end_got || st->reset_sent || st->reset_got);
    }
    return any;
}

static void on_grant(struct sim *s, void *arg)
{
    struct client *c = arg;
    struct client_h2 *v = c->h2;

    v->granting = false;
    if (c->done || c->silent) {
        return;
    }
    give_back(v);
    client_h2_write_soon(c, 0);
    if (v->grant == GRANT_DRIBBLE && owes(&v->h)) {
        v->granting = true;
        sim_at(s, 1 + sim_below(s, v->grant_us), on_grant, c);
    }
}

void client_h2_grant(struct client *c)
{
    struct client_h2 *v = c->h2;

    if (v->grant == GRANT_EAGER || v->grant == GRANT_HALF) {
        give_back(v);
    } else if (v->grant != GRANT_NEVER && !v->granting) {
        v->granting = true;
        sim_at(sim_of(c), 1 + sim_below(sim_of(c), v->grant_us), on_grant, c);
    }
}

static void on_second_window(struct sim *s, void *arg)
{
    struct client *c = arg;
    const struct h2_pair pair = {H2_INITIAL_WINDOW, c->h2->second_window};

    (void)s;
    if (!c->done) {
        h2_put_settings(&c->h2->h, &pair, 1);
        client_h2_write_soon(c, 0);
    }
}

void client_h2_open_windows(struct client *c)
{
    struct sim *s = sim_of(c);

    if (sim_chance(s, 400)) {
        h2_grant(&c->h2->h, NULL, (uint32_t)sim_between(s, 1, 1000000));
    }
    if (c->h2->second_window) {
        sim_at(s, sim_below(s, SIM_S), on_second_window, c);
    }
}

void client_h2_choose_windows(struct client_h2 *v)
{
    static const uint32_t windows[] = {0, 1200, 5000, 20000, 200000, 1000000};
    struct sim *s = sim_of(v->client);

    v->grant = (uint8_t)sim_below(s, GRANT_NEVER);
    v->grant_us = sim_chance(s, 500) ? 1000 : 100 * SIM_MS;
    v->first_window = sim_chance(s, 500) ? H2_WINDOW : windows[sim_below(s, AG_COUNT(windows))];
    if (v->grant == GRANT_DRIBBLE) {
        v->grant_us = sim_between(s, 100, 5000);
    }
    /* Who reads late and lets so little come at once would read for longer than anybody lives. */
    if (v->first_window < 1000 ||
        (v->first_window < 5000 && v->client->manners.read_us > SLOW_US) || sim_chance(s, 200)) {
        v->second_window = (uint32_t)sim_between(s, 2000, 100000);
    }
}
