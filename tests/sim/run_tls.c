#include "tests/sim/run.h"

#include "engine/tls_memory.h"
#include "tests/sim/host_parts.h"
#include "tests/sim/tls_certs.h"

#include <inttypes.h>

/* Runs in a hundred with TLS: it costs processor time. */
#define TLS_PERCENT 25u
/* The server's clock is behind by less than so much. */
#define CLOCK_US (10 * SIM_MS)
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

/* ---- what may hold ---- */

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

uint32_t run_tls_settings(const struct net_end *e)
{
    const struct client *c = e->owner;
    const struct run *r = c->run;
    struct site_config config;
    uint32_t bits = 0;

    for (uint32_t i = c->config_first; i < r->config_count; i++) {
        site_config(r->configs[i], &config);
        bits |= 1u << (config.generation * 3 + config.client_auth);
    }
    return bits;
}

/* ---- client certificates ---- */

uint32_t run_tls_refusals(const struct client *c, bool *out_must)
{
    const struct run *r = c->run;
    struct site_config config;
    bool some = false, all = true;

    for (uint32_t i = c->config_first; i < r->config_count && c->tls; i++) {
        site_config(r->configs[i], &config);
        some |= config.client_auth == SITE_REQUIRED;
        all &= config.client_auth == SITE_REQUIRED;
    }
    *out_must = some && all && c->ways.shows != TLS_SHOWS_GOOD;
    return !some ? 0 : OUT_421 | (c->ways.shows != TLS_SHOWS_GOOD ? OUT_403 : 0);
}

bool run_tls_is_client(const struct client *c, struct ag_span value)
{
    static const char *const texts[] = {
        [TLS_SHOWS_NONE] = "none", /* white space at the end is none of a value */
        [TLS_SHOWS_GOOD] = "valid CN=client",
        [TLS_SHOWS_STRANGER] = "invalid CN=stranger",
    };
    const struct run *r = c->run;
    struct site_config config;

    if (!c->tls) {
        return value.len == 0;
    }
    for (uint32_t i = c->config_first; i < r->config_count; i++) {
        bool asked;

        site_config(r->configs[i], &config);
        asked = config.client_auth != SITE_UNASKED;
        if (ag_span_eq(value, ag_span_str(texts[asked ? c->ways.shows : TLS_SHOWS_NONE]))) {
            return true;
        }
    }
    return false;
}

/* ---- stapled responses ---- */

/* Another one from now on, or none, for a while. */
static void staple(struct run *r)
{
    struct staples *now = &r->staples[r->config_count - 1];
    uint32_t form = (uint32_t)sim_below(r->sim, TLS_STAPLES + 1);
    uint64_t until_us =
        r->sim->now_us + (sim_chance(r->sim, 500) ? sim_between(r->sim, 1, 20) * SIM_S
                                                  : sim_below(r->sim, 2 * SIM_S));
    struct site_config config;

    site_config(r->configs[r->config_count - 1], &config);
    now->from_us = now->forms ? r->sim->now_us : until_us;
    now->until_us = until_us > now->until_us ? until_us : now->until_us;
    now->forms |= (uint8_t)(1u << form);
    sim_note(r->sim, "run: staple", config.generation, form);
    for (uint32_t i = 0; i < r->snapshot->model->listen_count; i++) {
        const struct ag_tls_server_settings *s = r->snapshot->model->listens[i].tls;
        struct ag_span der = form ? certs_staple(config.generation, form - 1) : ag_span(NULL, 0);

        if (s && ag_tls_server_staple(r->snapshot->tls[i], s->identities[0], der,
                                      HOST_WALL_S + (int64_t)(until_us / SIM_S)) != AG_OK) {
            sim_fail(r->sim, "a good response is not taken");
        }
    }
}

/* What the control thread does is not bounded, what shards' handshakes take may be. */
static void begin_control(void)
{
    ag_tls_memory_bound(AG_TLS_MEMORY_MAX);
}

static void end_control(const struct run *r)
{
    ag_tls_memory_bound(r->tls_bound ? (uint64_t)ag_tls_memory_thread_bytes() + r->tls_bound
                                     : AG_TLS_MEMORY_MAX);
}

static void on_staple(struct sim *s, void *arg)
{
    struct run *r = arg;

    if (r->tickets && r->uses > 0 && !r->probing && !r->draining) {
        begin_control();
        staple(r);
        end_control(r);
        sim_at(s, sim_below(s, 5 * SIM_S), on_staple, r);
    }
}

void run_tls_stapled(const struct net_end *e, uint32_t generation, struct ag_span der)
{
    const struct client *c = e->owner;
    const struct run *r = c->run;
    bool found = false, due = !r->weather.shortage && c->config_first + 1 == r->config_count;
    struct site_config config;

    for (uint32_t i = c->config_first; i < r->config_count; i++) {
        const struct staples *s = &r->staples[i];

        site_config(r->configs[i], &config);
        for (uint32_t form = 1; form <= TLS_STAPLES && config.generation == generation; form++) {
            /* The library keeps one as long as that is good: others come later. */
            found |= s->forms >> form & 1 && c->started_us < s->until_us + CLOCK_US &&
                     ag_span_eq(der, certs_staple(generation, form - 1));
        }
        due &= s->forms > 1 && !(s->forms & 1) && r->sim->now_us + SIM_S < s->from_us;
    }
    sim_note(r->sim, "client: staple", c->index, der.len);
    if (der.len > 0 ? !found : due) {
        sim_fail(r->sim, "client %u: %s", c->index,
                 der.len > 0 ? "a response that is not to be stapled" : "no response is stapled");
    }
}

struct ag_snapshot *run_tls_snapshot(struct run *r, uint32_t number)
{
    struct ag_snapshot *snapshot;

    begin_control();
    snapshot = site_snapshot_tls(number, r->shard_count, r->tickets);
    if (r->weather.more && sim_chance(r->sim, 700)) {
        r->snapshot = snapshot;
        staple(r);
    } else {
        r->staples[r->config_count - 1].forms = 1;
    }
    end_control(r);
    return snapshot;
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
    if (r->weather.more) {
        sim_at(r->sim, sim_below(r->sim, 3 * SIM_S), on_staple, r);
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
