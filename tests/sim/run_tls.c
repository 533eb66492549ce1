#include "tests/sim/run.h"

#include "engine/tls_memory.h"

#include <inttypes.h>

/* Runs in a hundred with TLS: it costs processor time. */
#define TLS_PERCENT 25u
/* With what comes before HTTP. */
#define MORE_PERCENT 35u

bool run_tls_wanted(const struct sim *s)
{
    return AG_WOLFSSL && sim_hash(s->seed, 300) % 100 < TLS_PERCENT;
}

bool run_more_wanted(const struct sim *s)
{
    return sim_hash(s->seed, 310) % 100 < MORE_PERCENT;
}

/* ---- configurations ---- */

struct ag_snapshot *run_tls_snapshot(struct run *r, uint32_t number)
{
    struct ag_snapshot *snapshot;

    ag_tls_memory_bound(AG_TLS_MEMORY_MAX); /* the control thread's */
    snapshot = site_snapshot_tls(number, r->shard_count, r->tickets);
    ag_tls_memory_bound(r->tls_bound ? (uint64_t)ag_tls_memory_thread_bytes() + r->tls_bound
                                     : AG_TLS_MEMORY_MAX);
    return snapshot;
}

uint32_t run_tls_generations(const struct net_end *e)
{
    const struct client *c = e->owner;
    const struct run *r = c->run;
    struct site_config config;
    uint32_t bits = 0;

    for (uint32_t i = c->config_first; i < r->config_count; i++) {
        site_config(r->configs[i], &config);
        bits |= 1u << config.generation;
    }
    return bits;
}

/* ---- ticket keys ---- */

static void on_keys_turn(struct sim *s, void *arg)
{
    struct run *r = arg;

    if (r->tickets && !r->probing) {
        sim_note(s, "run: ticket keys turn", 0, 0);
        ag_tls_tickets_rotate(r->tickets);
        tls_keys_turn();
        sim_at(s, sim_below(s, 3 * SIM_S), on_keys_turn, r);
    }
}

void run_tls_start(struct run *r)
{
    r->tls_bytes = ag_tls_memory_bytes();
    tls_begin(r->sim);
    if (!r->weather.tls) {
        return;
    }
    r->own_snapshots = true;
    r->tickets = ag_tls_tickets_new(TLS_TICKET_KEYS);
    AG_ASSERT(r->tickets);
    if (r->weather.shortage && sim_chance(r->sim, 500)) {
        r->tls_bound = (uint32_t)sim_between(r->sim, 20000, 300000);
    }
    if (sim_chance(r->sim, 300)) {
        sim_at(r->sim, sim_below(r->sim, 3 * SIM_S), on_keys_turn, r);
    }
}

void run_tls_end(struct run *r)
{
    uint64_t bytes = ag_tls_memory_bytes();

    tls_end();
    ag_tls_tickets_free(r->tickets);
    r->tickets = NULL;
    ag_tls_memory_bound(AG_TLS_MEMORY_MAX);
    if (bytes != r->tls_bytes) {
        sim_fail(r->sim, "%" PRIu64 " bytes of the TLS library's are left, %" PRIu64 " before",
                 bytes, r->tls_bytes);
    }
}

void run_tls_calm(struct run *r)
{
    r->tls_bound = 0;
    ag_tls_memory_bound(AG_TLS_MEMORY_MAX);
}
