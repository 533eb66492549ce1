#include "tests/sim/run.h"

#include "actions/proxy/relay_config.h"
#include "tests/sim/relay.h"

#include <inttypes.h>

/* Turns that a shard may take in one simulated second: more is a spin. */
#define TURNS_MAX 20000u
/* Bytes of a request and its answer that go in any case within such a drain_timeout. */
#define SPARED_MAX 20000u
#define SPARED_MS  8000u
/* The server's clock is behind by less than so much. */
#define CLOCK_MS 2u
/* The last client comes when all others are through and what had failed had time to recover. */
#define PROBE_US (3 * SIM_S)

/* ---- the network's ways ---- */

static bool is_upstream(uint32_t ip)
{
    return ip >> 16 == NET_IP(10, 1, 0, 0) >> 16;
}

static void profile(struct sim *s, struct net_conn *c)
{
    static const uint32_t windows[] = {600, 2000, 8000, 40000, 150000};
    const struct run *r = s->run;
    struct net_profile *p = &c->profile;
    bool storms = is_upstream(c->server_ip) ? r->weather.upstream_storms : r->weather.storms;

    if (sim_chance(s, 150)) { /* nearly byte by byte, and fast */
        p->piece_max = (uint32_t)sim_between(s, 1, 16);
        p->latency_max_us = 200;
    } else {
        p->piece_max = sim_chance(s, 500) ? (uint32_t)sim_between(s, 50, 5000) : 0;
        p->latency_max_us = sim_chance(s, 300) ? 30 * SIM_MS : 2 * SIM_MS;
    }
    p->latency_min_us = sim_chance(s, 500) ? 0 : p->latency_max_us / 2;
    p->window = windows[sim_below(s, AG_COUNT(windows))];
    if (storms && !r->probing) {
        p->stall_per_mille = sim_chance(s, 300) ? 20 : 0;
        p->stall_us = sim_between(s, 100 * SIM_MS, 20 * SIM_S);
        p->reset_per_mille = sim_chance(s, 300) ? 10 : 0;
    }
}

/* An address of the upstream with a name at which nobody ever is. */
#define NOWHERE NET_IP(10, 1, 0, 20)

static enum net_fate fate(struct sim *s, struct net_conn *c)
{
    const struct run *r = s->run;

    if (c->server_ip == NET_IP(10, 1, 0, 3) || c->server_ip == NET_IP(10, 1, 0, 4)) {
        return sim_chance(s, 300) ? (enum net_fate)sim_between(s, NET_REFUSE, NET_UNREACHABLE)
                                  : NET_ADMIT;
    }
    if (is_upstream(c->server_ip) && r->weather.upstream_storms && !r->probing &&
        sim_chance(s, 50)) {
        return (enum net_fate)sim_between(s, NET_REFUSE, NET_UNREACHABLE);
    }
    return c->server_ip == NOWHERE ? (enum net_fate)sim_between(s, NET_REFUSE, NET_UNREACHABLE)
                                   : NET_ADMIT;
}

/* Other ones each time; what leads nowhere may be anywhere among them. */
static uint32_t resolve(struct sim *s, const char *name, uint32_t ips[static 4])
{
    uint32_t good = 1 + (uint32_t)sim_below(s, 2), first = (uint32_t)sim_below(s, 2), count = 0;
    uint32_t hole = sim_chance(s, 700) ? (uint32_t)sim_below(s, good + 1) : UINT32_MAX;

    for (uint32_t i = 0; i < good; i++) {
        if (i == hole) {
            ips[count++] = NOWHERE;
        }
        ips[count++] = NET_IP(10, 1, 0, 6 + (first + i) % 2);
    }
    if (good == hole) {
        ips[count++] = NOWHERE;
    }
    return strcmp(name, "good.sim") == 0 ? count : 0;
}

static uint32_t places(struct sim *s, const char *name, struct ag_srv_target targets[static 4])
{
    uint32_t count = 1 + (uint32_t)sim_below(s, 2); /* other ones each time */

    targets[0] = (struct ag_srv_target){.port = 80, .host_len = 8, .host = "good.sim"};
    targets[1] =
        (struct ag_srv_target){.port = 80, .host_len = 7, .host = "bad.sim", .priority = 1};
    return strcmp(name, "_good._tcp.sim") == 0 ? count : 0;
}

/* ---- snapshots ---- */

static struct shard *shard_of(struct ag_serving *v)
{
    return ag_container_of(v, struct shard, serving);
}

static void let_go(struct ag_serving *v, struct ag_snapshot *snapshot)
{
    struct run *r = shard_of(v)->run;

    AG_ASSERT(r->uses > 0);
    r->uses--;
    if (atomic_fetch_sub(&snapshot->users, 1) == 1 && r->own_snapshots) {
        ag_snapshot_free(snapshot);
    }
}

static void on_change(struct ag_loop *l, struct ag_msg *m)
{
    struct ag_serving_change *c = ag_container_of(m, struct ag_serving_change, msg);
    struct run *r = shard_of(c->serving)->run;

    (void)l;
    r->changes--;
    if (r->changes == 0) {
        r->config_settled = r->config_count - 1;
    }
    sim_note(r->sim, "shard: change", (uint64_t)(shard_of(c->serving) - r->shards),
             c->serving->draining);
    for (uint32_t i = 0; i < c->listen_count && c->serving->draining; i++) {
        if (c->listens[i].fd >= 0) { /* it will be dropped, by a close of the real system's */
            host_close(&r->host, c->listens[i].fd);
            c->listens[i].fd = -1;
        }
    }
    ag_serving_apply(c->serving, c);
}

static void add_listen(struct run *r, struct ag_serving_change *c, uint32_t port, bool fresh)
{
    struct ag_serving_listen *l = &c->listens[c->listen_count++];
    const struct ag_model *model = r->snapshot->model;
    uint32_t i = 0;

    while (model->listens[i].port != SITE_PORT + port) {
        AG_ASSERT(++i < model->listen_count);
    }
    l->socket_id = r->listens[port].socket_id;
    l->fd = fresh ? host_listen(&r->host, (uint16_t)(SITE_PORT + port), 64) : -1;
    l->port = (uint16_t)(SITE_PORT + port);
    l->limits = model->listens[i].limits;
    l->tls = r->snapshot->tls[i];
    l->proxied = ag_listen_proxied(&model->listens[i]);
    if (model->listens[i].tcp) {
        l->relay =
            ag_relay_settings_of(r->snapshot->shared[AG_ACTION_PROXY], model->listens[i].tcp - 1);
    }
}

/* Hands one of the configurations to every shard. */
static void publish(struct run *r)
{
    uint32_t number = (uint32_t)sim_below(r->sim, SITE_CONFIGS) +
                      (r->weather.tls ? SITE_CONFIGS : 0) + (r->weather.more ? SITE_MORE : 0);
    struct site_config config;
    bool fresh[SITE_PORTS];

    site_config(number, &config);
    AG_ASSERT(r->config_count < AG_COUNT(r->configs));
    r->configs[r->config_count++] = number;
    r->snapshot =
        r->weather.tls ? run_tls_snapshot(r, number) : site_snapshot(number, r->own_snapshots);
    atomic_fetch_add(&r->snapshot->users, r->shard_count);
    sim_note(r->sim, "run: publish", number, r->config_count);
    for (uint32_t p = 0; p < SITE_PORTS; p++) {
        fresh[p] = config.listens[p] && !r->listens[p].open;
        r->listens[p].open = config.listens[p];
        r->listens[p].socket_id += fresh[p] ? SITE_PORTS : 0;
        relays_at_risk(r, config.listens[p] ? 0 : 1u << p);
        for (uint32_t i = 0; i < r->client_count; i++) {
            struct client *c = r->clients[i];

            c->port_at_risk |= !config.listens[p] && c->port == SITE_PORT + p;
        }
    }
    for (uint32_t i = 0; i < r->shard_count; i++) {
        struct ag_serving_change *c =
            ag_serving_change_new(&r->shards[i].serving, r->snapshot, SITE_PORTS);

        for (uint32_t p = 0; p < SITE_PORTS; p++) {
            if (config.listens[p]) {
                add_listen(r, c, p, fresh[p]);
            }
        }
        c->msg.run = on_change;
        r->uses++;
        r->changes++;
        ag_loop_post(&r->host.loops[i].loop, &c->msg);
    }
}

/* ---- reload and drain ---- */

static void on_reload(struct sim *s, void *arg)
{
    struct run *r = arg;

    if (r->draining || r->yielding || r->probing || r->reloads_left == 0) {
        return;
    }
    r->reloads_left--;
    publish(r);
    if (sim_chance(s, 200)) { /* and another, before the shards have seen the first */
        publish(r);
    }
    sim_at(s, sim_below(s, 3 * SIM_S), on_reload, r);
}

static void on_drain_msg(struct ag_loop *l, struct ag_msg *m)
{
    struct shard *d = ag_container_of(m, struct shard, drain_msg);

    (void)l;
    sim_note(d->run->sim, "shard: drain", (uint64_t)(d - d->run->shards), 0);
    ag_serving_drain(&d->serving);
}

static void on_abort_msg(struct ag_loop *l, struct ag_msg *m)
{
    (void)l;
    ag_serving_abort(&ag_container_of(m, struct shard, abort_msg)->serving);
}

static void on_abort(struct sim *s, void *arg)
{
    struct run *r = arg;

    (void)s;
    for (uint32_t i = 0; i < r->shard_count; i++) {
        if (!r->shards[i].ended) {
            r->shards[i].abort_msg.run = on_abort_msg;
            ag_loop_post(&r->host.loops[i].loop, &r->shards[i].abort_msg);
        }
    }
}

/* An upstream that does not answer may be asked several times, and each try may take all of its time. */
static bool gives_up_within(const struct run *r, const struct request *q, uint32_t drain_ms)
{
    struct site_config c;

    for (uint32_t i = q->config_first; i < r->config_count; i++) {
        site_config(r->configs[i], &c);
        if (c.retries &&
            SITE_ATTEMPTS * (c.first_byte_ms + c.connect_ms) > drain_ms - SPARED_MS / 4) {
            return false;
        }
    }
    return true;
}

/* What is being answered when the drain begins, and is short enough to be within drain_timeout. */
static void spare(struct run *r, struct request *q, bool began)
{
    struct site_config config;

    site_config(r->configs[r->config_count - 1], &config);
    if (!r->aborts && config.drain_ms >= SPARED_MS && !q->slow && q->kind != REQUEST_TUNNEL &&
        q->upstream != 'g' && (began || q->seen > 0) &&
        q->body_bytes + q->answer_bytes < SPARED_MAX &&
        (q->plan != PLAN_NO_ANSWER || gives_up_within(r, q, config.drain_ms))) {
        q->spared = true;
    }
}

static void spare_all(struct run *r, struct client *c)
{
    if (c->h2) {
        client_h2_each(c, spare);
    } else if (c->answered < c->request_count) {
        spare(r, c->requests[c->answered], c->arrival.began);
    }
}

static void drain(struct run *r)
{
    if (r->draining) {
        return;
    }
    sim_note(r->sim, "run: drain", 0, 0);
    r->draining = true;
    relays_at_risk(r, UINT32_MAX);
    r->aborts = sim_chance(r->sim, 300);
    for (uint32_t i = 0; i < r->client_count; i++) {
        r->clients[i]->drained_under = true;
        spare_all(r, r->clients[i]);
    }
    for (uint32_t i = 0; i < r->shard_count; i++) {
        if (!r->shards[i].ended) {
            r->shards[i].drain_msg.run = on_drain_msg;
            ag_loop_post(&r->host.loops[i].loop, &r->shards[i].drain_msg);
        }
    }
    if (r->aborts) {
        sim_at(r->sim, sim_below(r->sim, 5 * SIM_S), on_abort, r);
    }
}

static void on_yield_msg(struct ag_loop *l, struct ag_msg *m)
{
    (void)l;
    ag_serving_yield(&ag_container_of(m, struct shard, yield_msg)->serving);
}

static void on_yield_over(struct sim *s, void *arg)
{
    struct run *r = arg;

    (void)s;
    relays_at_risk(r, UINT32_MAX);
    for (uint32_t i = 0; i < r->client_count; i++) {
        r->clients[i]->drained_under = true;
    }
}

/* As before an upgrade: who had an answer gets another one within drain_timeout, and is told to go. */
static void yield(struct run *r)
{
    struct site_config config;

    sim_note(r->sim, "run: yield", 0, 0);
    r->yielding = true;
    site_config(r->configs[r->config_count - 1], &config);
    sim_at(r->sim, (config.drain_ms - CLOCK_MS) * SIM_MS, on_yield_over, r);
    for (uint32_t i = 0; i < r->client_count; i++) {
        struct client *c = r->clients[i];

        c->drained_under |= c->h2 || (c->answered == 0 && !c->arrival.began);
    }
    for (uint32_t i = 0; i < r->shard_count; i++) {
        r->shards[i].yield_msg.run = on_yield_msg;
        ag_loop_post(&r->host.loops[i].loop, &r->shards[i].yield_msg);
    }
}

static void on_early_drain(struct sim *s, void *arg)
{
    struct run *r = arg;

    if (r->probing) {
        return;
    }
    if (!r->yielding && sim_chance(s, 500)) {
        yield(r);
        sim_at(s, sim_below(s, 5 * SIM_S), on_early_drain, r);
    } else {
        drain(r);
    }
}

/* What has ended gets no message; what was on its way by then still comes. */
static bool post_to(void *run, uint32_t shard, struct ag_msg *m)
{
    struct run *r = run;

    if (r->shards[shard].ended) {
        return false;
    }
    ag_loop_post(&r->host.loops[shard].loop, m);
    return true;
}

static void on_ended(struct ag_serving *v)
{
    AG_ASSERT(!shard_of(v)->ended);
    shard_of(v)->ended = true;
}

/* ---- start ---- */

static void choose_weather(struct run *r)
{
    struct sim *s = r->sim;
    struct weather *w = &r->weather;
    uint64_t kind = sim_below(s, 10);

    *w = (struct weather){0};
    if (kind >= 3) { /* three in ten runs have nothing against them but chance */
        w->flaky = sim_chance(s, 600);
        w->rude = sim_chance(s, 500);
        w->shortage = sim_chance(s, 250);
        w->famine = w->shortage && sim_chance(s, 600);
        w->storms = sim_chance(s, 200);
        w->upstream_storms = sim_chance(s, 200);
        w->few_slots = sim_chance(s, 200);
        w->files = sim_chance(s, 200);
        w->names = sim_chance(s, 200);
        w->early_drain = sim_chance(s, 250);
    }
    w->tls = run_tls_wanted(s);
    w->more = run_more_wanted(s);
    r->reloads_left = sim_chance(s, 500) ? (uint32_t)sim_between(s, 1, 5) : 0;
    r->own_snapshots = sim_chance(s, 60);
}

static void choose_faults(struct run *r)
{
    struct sim *s = r->sim;
    struct host_faults *f = &r->host.faults;

    f->lag = sim_chance(s, 500) ? (uint32_t)sim_below(s, 300) : 0;
    f->file_slow = sim_chance(s, 500) ? 300 : 0;
    f->file = r->weather.files ? 100 : 0;
    f->name = r->weather.names ? 200 : 0;
    f->name_slow = r->weather.names ? 300 : 0;
    if (r->weather.storms && r->weather.upstream_storms) {
        f->recv = (uint32_t)sim_below(s, 8);
    }
    if (r->weather.shortage && sim_chance(s, 500)) {
        f->socket = (uint32_t)sim_below(s, 100);
        f->send = (uint32_t)sim_below(s, 30);
        r->host.fd_limit = (uint32_t)sim_between(s, 20, 60) +
                           (r->weather.more ? r->shard_count * (SITE_PORTS - SITE_RELAY) : 0);
    }
}

static struct ag_loop_config loop_config(struct run *r)
{
    struct sim *s = r->sim;
    struct ag_loop_config c = {.buf_count = {1000, 100}, .node_count = 4000, .page_count = 400};

    if (r->weather.shortage) {
        c.buf_count[AG_BUF_SMALL] = (uint32_t)sim_between(s, 16, 60);
        c.buf_count[AG_BUF_LARGE] = (uint32_t)sim_between(s, 8, 20);
        c.node_count = (uint32_t)sim_between(s, 80, 400);
        c.page_count = (uint32_t)sim_between(s, 16, 60);
    }
    return c;
}

static void start_server(struct run *r)
{
    struct sim *s = r->sim;
    struct ag_loop_config config = loop_config(r);

    r->shard_count = (uint32_t)sim_between(s, 1, HOST_LOOPS);
    r->connection_max = r->weather.few_slots ? (uint32_t)sim_between(s, 1, 4) : RUN_CLIENTS;
    r->host.ip = SITE_IP;
    r->host.resolve = resolve;
    r->host.places = places;
    for (uint32_t p = 0; p < SITE_PORTS; p++) {
        r->listens[p].socket_id = p;
    }
    if (ag_action_commons_open(&r->commons) != AG_OK) {
        sim_fail(s, "no memory");
    }
    r->board = (struct ag_board){.shard_count = r->shard_count, .each = r->board_each};
    for (uint32_t i = 0; i < r->shard_count; i++) {
        struct shard *d = &r->shards[i];

        *d = (struct shard){.run = r};
        d->serving.let_go = let_go;
        d->serving.ended = on_ended;
        d->serving.board = &r->board;
        d->serving.spread.post = post_to;
        d->serving.spread.owner = r;
        d->serving.commons = &r->commons;
        host_loop_init(&r->host, i, sim_chance(s, 500), &config);
        if (ag_serving_open(&d->serving, &r->host.loops[i].loop, i, r->shard_count,
                            r->connection_max) != AG_OK) {
            sim_fail(s, "a shard does not start");
        }
        host_after_turn(&r->host.loops[i]);
        d->famine = r->weather.famine ? famine_start(r, &r->host.loops[i].loop) : NULL;
    }
    choose_faults(r);
    publish(r);
}

static void start_clients(struct run *r)
{
    struct sim *s = r->sim;
    uint32_t count = (uint32_t)sim_between(s, 2, 9);

    r->few_left = 4;
    uint64_t over_us = sim_chance(s, 500) ? 50 * SIM_MS : 3 * SIM_S;

    for (uint32_t i = 0; i < count; i++) {
        client_start(client_make(r, false), sim_between(s, SIM_MS, over_us));
    }
    if (r->reloads_left) {
        sim_at(s, sim_below(s, 2 * SIM_S), on_reload, r);
    }
    if (r->weather.early_drain) {
        sim_at(s, sim_below(s, 4 * SIM_S), on_early_drain, r);
    }
}

/* ---- the run ---- */

static void turn(struct run *r, uint32_t i)
{
    struct host_loop *l = &r->host.loops[i];

    if (r->sim->now_us / SIM_S != r->second) {
        r->second = r->sim->now_us / SIM_S;
        for (uint32_t k = 0; k < r->shard_count; k++) {
            r->shards[k].turns = 0;
        }
    }
    if (++r->shards[i].turns > TURNS_MAX) {
        sim_fail(r->sim, "shard %u spins: %u turns in a second", i, TURNS_MAX);
    }
    r->turns++;
    sim_note(r->sim, "turn", i, 0);
    famine_before_turn(r->shards[i].famine);
    ag_loop_turn(&l->loop, UINT32_MAX);
    famine_after_turn(r->shards[i].famine);
    host_after_turn(l);
    oracle_bounds(r);
    r->sim->now_us += sim_below(r->sim, 30); /* it took its time */
    if (r->shards[i].ended && l->live) {
        sim_note(r->sim, "shard: ends", i, r->host.fd_count);
        famine_stop(r->shards[i].famine);
        ag_serving_close(&r->shards[i].serving);
        host_loop_deinit(&r->host, i);
    }
}

/* One thing that can happen now, by chance; else time goes on. False: nothing will happen any more. */
static bool step(struct run *r)
{
    struct sim *s = r->sim;
    uint32_t can[HOST_LOOPS], count = 0;
    uint64_t next = sim_next_us(s);
    bool event = next <= s->now_us;

    for (uint32_t i = 0; i < r->shard_count; i++) {
        const struct host_loop *l = &r->host.loops[i];

        if (l->live && host_runnable(l)) {
            can[count++] = i;
        } else if (l->live) {
            next = ag_min_u64(next, host_wakes_us(l));
        }
    }
    if (count + event > 0) {
        uint64_t n = sim_below(s, count + (event ? 2 : 0));

        if (n < count) {
            turn(r, can[n]);
        } else {
            (void)sim_step(s);
        }
        return true;
    }
    if (next == UINT64_MAX) {
        return false;
    }
    s->now_us = next;
    return true;
}

static bool any_live(const struct run *r)
{
    for (uint32_t i = 0; i < r->shard_count; i++) {
        if (r->host.loops[i].live) {
            return true;
        }
    }
    return false;
}

static void live_until(struct run *r, bool (*over)(const struct run *), const char *what)
{
    while (!over(r)) {
        if (r->sim->now_us > RUN_LIFE_S * SIM_S) {
            sim_fail(r->sim, "it takes too long: %s", what);
        }
        if (!step(r)) {
            sim_fail(r->sim, "nothing happens any more: %s", what);
        }
    }
}

static bool clients_done(const struct run *r)
{
    return r->clients_done == r->client_count && relays_done(r);
}

static bool is_down(const struct run *r)
{
    return !any_live(r);
}

static bool is_quiet(const struct run *r)
{
    return upstreams_open(r) == 0 && relays_open(r) == 0 && r->host.pending_files == 0 &&
           r->host.pending_names == 0;
}

static void on_nothing(struct sim *s, void *arg)
{
    (void)s;
    *(bool *)arg = true;
}

/* Whoever comes when everything works again must be served as if nothing had been. */
static void probe(struct run *r)
{
    bool *waited = sim_alloc(r->sim, sizeof(*waited));

    r->probing = true;
    r->host.faults = (struct host_faults){0};
    r->host.fd_limit = HOST_FDS;
    run_tls_calm(r);
    for (uint32_t i = 0; i < r->shard_count; i++) {
        famine_stop(r->shards[i].famine);
    }
    sim_at(r->sim, PROBE_US, on_nothing, waited);
    while (!*waited) {
        (void)step(r);
    }
    client_start(client_make(r, true), 0);
    live_until(r, clients_done, "the last client");
}

static void check_end(struct run *r)
{
    ag_action_commons_close(&r->commons); /* asserts that nothing is held */
    if (r->host.fd_count) {
        sim_fail(r->sim, "%u descriptors are left open", r->host.fd_count);
    }
    if (r->uses || r->changes) {
        sim_fail(r->sim, "%u uses of snapshots and %u changes are left", r->uses, r->changes);
    }
    for (const struct net_conn *c = r->sim->net->conns; c; c = c->older) {
        if (c->end[c->server_ip == SITE_IP ? 1 : 0].open) {
            sim_fail(r->sim, "the server's end of connection %u is open", c->id);
        }
    }
}

uint64_t run_seed(struct run *r, struct sim *s, uint64_t seed, bool verbose)
{
    struct host *h = &r->host;

    sim_begin(s, seed, verbose);
    net_begin(s);
    memset(r, 0, sizeof(*r));
    host_begin(h, s);
    r->sim = s;
    s->run = r;
    s->net->profile = profile;
    s->net->fate = fate;
    choose_weather(r);
    run_tls_start(r);
    upstreams_start(r);
    start_server(r);
    start_clients(r);
    if (r->weather.more) {
        relays_start(r);
    }
    live_until(r, clients_done, "clients");
    if (!r->draining && !r->yielding) {
        probe(r);
    }
    drain(r);
    live_until(r, is_down, "drain");
    live_until(r, is_quiet, "upstreams");
    check_end(r);
    run_tls_end(r);
    return s->trace;
}
