/*
 * Goal: bounds of connections, an upstream's and its servers', hold over shards at every moment; whoever waits is
 * served as soon as a slot can be had, whichever shard has it; every slot comes back.
 * Method: two shards with real connections to listeners that nobody serves (the kernel makes them), and to a port
 * that refuses; random requests, releases, cancellations and changes of the bounds from fixed seeds, in one thread
 * with all invariants looked at after each, and in two that run as they like.
 */
#include "actions/upstream/upstream_parts.h"
#include "engine/random.h"
#include "tests/unit/loops.h"

#include <pthread.h>

#define SHARDS    2u
#define JOBS      24u
#define SERVERS   3u
#define RACED     600u /* requests of each shard */
#define STEPS_MAX 4000000u
#define BACKLOG   4096    /* connections that a listener holds, which are all of a run */
#define NEVER     600000u /* ms: what waits so long has been forgotten */

enum job_state { FREE, WAITS, HAS };

struct shard;

struct job {
    struct ag_upstream_claim claim; /* first */
    struct shard *shard;
    enum job_state state;
};

struct shard {
    struct ag_loop loop;
    struct ag_upstreams *upstreams;
    struct job jobs[JOBS];
    uint64_t rng[4];
    uint64_t served, failed;
    uint32_t beyond; /* looks that found more connections than may be */
    bool cancels;
    struct fleet *fleet;
};

struct fleet {
    int listeners[SERVERS];
    struct ag_upstream_groups *groups;
    struct ag_upstream_group *group;
    struct ag_upstream_server servers[SERVERS];
    struct ag_upstream up;
    struct shard shards[SHARDS];
    enum ag_backend_kind kind;
    unsigned fds;
    uint32_t before[SERVERS], before_all; /* connections at the last look */
    _Atomic uint32_t busy;                /* shards that are not done */
};

static const struct ag_upstream_timeouts timeouts = {.connect_ms = NEVER};

static uint32_t below(struct shard *s, uint32_t n)
{
    return (uint32_t)((ag_random_next(s->rng) >> 32) * n >> 32);
}

/* ---- the world ---- */

/* The last one refuses: it is bound to a port, but does not listen. */
static void open_servers(struct fleet *f)
{
    for (uint32_t i = 0; i < SERVERS; i++) {
        struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
        socklen_t len = sizeof(in);
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

        cr_assert(fd >= 0 && bind(fd, (struct sockaddr *)&in, sizeof(in)) == 0);
        cr_assert(i + 1 == SERVERS || listen(fd, BACKLOG) == 0);
        cr_assert_eq(getsockname(fd, (struct sockaddr *)&in, &len), 0);
        f->listeners[i] = fd;
        f->servers[i] = (struct ag_upstream_server){.host = AG_SPAN("127.0.0.1"),
                                                    .authority = AG_SPAN("127.0.0.1"),
                                                    .written = AG_SPAN("127.0.0.1"),
                                                    .weight = 1,
                                                    .port = ntohs(in.sin_port),
                                                    .addr = {.in = in}};
    }
}

static struct fleet *fleet_new(enum ag_backend_kind kind, uint32_t count, uint64_t seed)
{
    struct fleet *f = calloc(1, sizeof(*f));

    cr_assert(f);
    f->kind = kind;
    f->fds = count_fds();
    open_servers(f);
    f->groups = ag_upstream_groups_new();
    f->up = (struct ag_upstream){.key = {5, 1},
                                 .config = f,
                                 .name = AG_SPAN("up"),
                                 .servers = f->servers + SERVERS - count,
                                 .server_count = count,
                                 .options = {.max_idle = 3,
                                             .idle_timeout_ms = NEVER,
                                             .max_requests = 5,
                                             .max_pending = SHARDS * JOBS,
                                             .pending_ms = NEVER}};
    for (uint32_t i = 0; i < SHARDS; i++) {
        f->shards[i].fleet = f;
        for (unsigned k = 0; k < 4; k++) {
            f->shards[i].rng[k] = seed + 10 * i + k + 1;
        }
    }
    f->group = ag_upstream_group_hold(f->groups, &f->up, 1);
    cr_assert(f->group);
    return f;
}

/* In the thread that it is to run in. */
static void shard_open(struct shard *s)
{
    const struct ag_loop_config config = {.backend = s->fleet->kind,
                                          .ring_entries = 256,
                                          .buf_count = {64, 16},
                                          .node_count = 4096,
                                          .page_count = 16};
    const char *why = "";

    cr_assert_eq(ag_loop_init(&s->loop, &config, &why), AG_OK, "%s", why);
    s->upstreams = ag_upstreams_new(&s->loop, SHARDS, s->fleet->groups);
    cr_assert(s->upstreams);
    s->upstreams->config = s->fleet;
    s->upstreams->order = 1;
}

static void shard_close(struct shard *s)
{
    ag_upstreams_free(s->upstreams);
    cr_expect_eq(ag_loop_bufs_used(&s->loop, AG_BUF_SMALL), 0);
    cr_expect_eq(s->loop.nodes.used, 0);
    ag_loop_deinit(&s->loop);
}

/* When its shards are closed. */
static void fleet_free(struct fleet *f)
{
    cr_assert_eq(f->group->connections, 0);
    cr_assert_eq(f->group->pending, 0);
    for (uint32_t i = 0; i < f->group->count; i++) {
        cr_assert_eq(f->group->members[i]->connections, 0);
    }
    ag_upstream_group_release(f->group);
    ag_upstream_groups_free(f->groups);
    for (uint32_t i = 0; i < SERVERS; i++) {
        (void)close(f->listeners[i]);
    }
    cr_expect_eq(count_fds(), f->fds);
    free(f);
}

/* ---- requests ---- */

static void on_ready(struct ag_upstream_claim *c)
{
    struct job *j = (struct job *)c;

    j->state = HAS;
    j->shard->served++;
}

static void on_failed(struct ag_upstream_claim *c)
{
    struct job *j = (struct job *)c;

    j->state = FREE;
    j->shard->failed++;
}

static const struct ag_upstream_claim_ops ops = {.ready = on_ready, .failed = on_failed};

static void begin(struct job *j)
{
    enum ag_status st;

    j->claim = (struct ag_upstream_claim){.ops = &ops, .timeouts = &timeouts};
    j->state = WAITS;
    st = ag_upstream_claim(j->shard->upstreams, &j->shard->fleet->up, &j->claim);
    if (st == AG_OK) {
        on_ready(&j->claim);
    } else if (st != AG_AGAIN) {
        on_failed(&j->claim);
    }
}

static void end(struct job *j)
{
    j->state = FREE;
    ag_upstream_release(&j->claim);
}

static void act(struct shard *s)
{
    struct job *j = &s->jobs[below(s, JOBS)];

    j->shard = s;
    switch (j->state) {
    case FREE:
        begin(j);
        break;
    case HAS:
        end(j);
        break;
    case WAITS:
        if (s->cancels && below(s, 8) == 0) {
            j->state = FREE;
            ag_upstream_cancel(&j->claim);
        }
        break;
    }
}

static uint32_t count(const struct shard *s, enum job_state state)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < JOBS; i++) {
        n += s->jobs[i].state == state;
    }
    return n;
}

/* ---- what must hold ---- */

static const struct ag_upstream_pool *pool_of(const struct shard *s)
{
    const struct ag_link *bucket = &s->upstreams->buckets[s->fleet->up.key[0]];

    return ag_list_empty(bucket) ? NULL
                                 : ag_container_of(bucket->next, struct ag_upstream_pool, link);
}

/* Within the bound, or on the way there from one that was higher. */
static void check_bound(uint32_t now, uint32_t max, uint32_t *before)
{
    cr_assert(max == 0 || now <= max || now <= *before, "%u of %u, %u before", now, max, *before);
    *before = now;
}

static void check_bounds(struct fleet *f)
{
    uint32_t all = 0;

    for (uint32_t i = 0; i < f->group->count; i++) {
        const struct ag_upstream_member *m = f->group->members[i];
        uint32_t counted = 0;

        for (uint32_t k = 0; k < SHARDS; k++) {
            const struct ag_upstream_pool *p = pool_of(&f->shards[k]);

            counted += p && p->peers[i] ? p->peers[i]->conn_count : 0;
        }
        cr_assert_eq(counted, m->connections, "server %u: %u counted, %u known", i, counted,
                     m->connections);
        check_bound(m->connections, m->max_connections, &f->before[i]);
        all += counted;
    }
    cr_assert_eq(all, f->group->connections);
    check_bound(all, f->group->options.max_connections, &f->before_all);
}

/* Connections that are being made, and a message to it that the kernel has yet to bring. */
static uint32_t under_way(const struct shard *s)
{
    const struct ag_upstream_pool *p = pool_of(s);
    uint32_t n = p && p->told;

    for (uint32_t i = 0; i < JOBS; i++) {
        n += s->jobs[i].state == WAITS && s->jobs[i].claim.state == AG_CLAIM_CONNECTING;
    }
    return n;
}

/* Nothing more happens by itself. */
static void settle(struct fleet *f)
{
    for (unsigned quiet = 0, turns = 0; quiet < 4; turns++) {
        uint64_t had =
            f->shards[0].served + f->shards[1].served + f->shards[0].failed + f->shards[1].failed;

        cr_assert(turns < TURNS_MAX);
        for (uint32_t i = 0; i < SHARDS; i++) {
            ag_loop_turn(&f->shards[i].loop, turns < 1000 ? 0 : 1);
            check_bounds(f);
        }
        quiet = under_way(&f->shards[0]) + under_way(&f->shards[1]) > 0 ||
                        f->shards[0].served + f->shards[1].served + f->shards[0].failed +
                                f->shards[1].failed !=
                            had
                    ? 0
                    : quiet + 1;
    }
}

/* Who waits does so because every slot is in use. */
static void check_that_none_waits_in_vain(const struct fleet *f)
{
    const struct ag_upstream_group *g = f->group;

    if (g->pending == 0) {
        return;
    }
    for (uint32_t k = 0; k < SHARDS; k++) {
        const struct ag_upstream_pool *p = pool_of(&f->shards[k]);

        cr_assert(!p || p->idle_count == 0, "shard %u has %u idle ones, and %u wait", k,
                  p->idle_count, g->pending);
    }
    for (uint32_t i = 0; i < g->count; i++) {
        const struct ag_upstream_member *m = g->members[i];

        if (m->server.port == f->servers[SERVERS - 1].port) {
            continue; /* whoever waits may have met its refusal */
        }
        cr_assert(g->connections >= g->options.max_connections ||
                      (m->max_connections && m->connections >= m->max_connections),
                  "%u wait, and server %u has %u of %u", g->pending, i, m->connections,
                  m->max_connections);
    }
}

/* Everyone who waits is served once those before them let go. */
static void finish(struct fleet *f)
{
    for (unsigned turns = 0;
         count(&f->shards[0], FREE) + count(&f->shards[1], FREE) < SHARDS * JOBS; turns++) {
        cr_assert(turns < TURNS_MAX, "%u wait for ever", f->group->pending);
        for (uint32_t k = 0; k < SHARDS; k++) {
            for (uint32_t i = 0; i < JOBS; i++) {
                if (f->shards[k].jobs[i].state == HAS) {
                    end(&f->shards[k].jobs[i]);
                }
            }
            ag_loop_turn(&f->shards[k].loop, turns < 1000 ? 0 : 1);
            check_bounds(f);
        }
    }
}

/* A new configuration, which shards come to one after the other. */
static void change_bounds(struct fleet *f)
{
    const struct ag_upstream *const up = &f->up;
    struct shard *s = &f->shards[0];

    for (uint32_t i = 0; i < SERVERS; i++) {
        f->servers[i].max_connections = below(s, 4) ? 1 + below(s, 5) : 0;
    }
    f->up.options.max_connections = below(s, 2) ? 1 + below(s, 8) : 0;
    for (uint32_t k = 0; k < SHARDS; k++) {
        ag_upstreams_use(f->shards[k].upstreams, f, &up, 1);
        check_bounds(f);
    }
}

/* One shard lets go of all that it has: what is idle there is for the other one. */
static void fall_silent(struct fleet *f)
{
    struct shard *s = &f->shards[below(&f->shards[0], SHARDS)], *other = &f->shards[s == f->shards];

    for (uint32_t i = 0; i < JOBS; i++) {
        struct job *j = &s->jobs[i];

        if (j->state == WAITS) {
            j->state = FREE;
            ag_upstream_cancel(&j->claim);
        } else if (j->state == HAS) {
            end(j);
        }
    }
    settle(f);
    for (uint32_t i = 0; i < JOBS; i++) {
        other->jobs[i].shard = other;
        if (other->jobs[i].state == FREE) {
            begin(&other->jobs[i]);
        }
    }
    settle(f);
}

static void run(enum ag_backend_kind kind, uint32_t servers, uint64_t seed)
{
    struct fleet *f = fleet_new(kind, servers, seed);

    for (uint32_t k = 0; k < SHARDS; k++) {
        shard_open(&f->shards[k]);
    }
    for (unsigned round = 0; round < 40; round++) {
        f->shards[0].cancels = f->shards[1].cancels = round % 2;
        change_bounds(f);
        for (unsigned step = 0; step < 150; step++) {
            struct shard *s = &f->shards[below(&f->shards[0], SHARDS)];

            act(s);
            check_bounds(f);
            if (below(s, 3) == 0) {
                ag_loop_turn(&s->loop, 0);
                check_bounds(f);
            }
        }
        if (below(&f->shards[0], 2)) {
            fall_silent(f);
        }
        settle(f);
        check_that_none_waits_in_vain(f);
    }
    cr_assert(f->shards[0].served > 300 && f->shards[1].served > 300, "%lu %lu",
              f->shards[0].served, f->shards[1].served);
    finish(f);
    for (uint32_t k = 0; k < SHARDS; k++) {
        shard_close(&f->shards[k]);
    }
    fleet_free(f);
}

BOTH(upstream_slots, bounds_hold_and_none_waits_in_vain)
{
    for (uint64_t seed = 1; seed <= 4; seed++) {
        run(kind, SERVERS, seed * 100);
    }
}

/* ---- as they like ---- */

/* Not for a moment. */
static void watch_bounds(struct shard *s)
{
    const struct ag_upstream_group *g = s->fleet->group;

    for (uint32_t i = 0; i < SERVERS; i++) {
        s->beyond += atomic_load(&g->members[i]->connections) > g->members[i]->max_connections;
    }
}

static void *work(void *arg)
{
    struct shard *s = arg;

    shard_open(s);
    s->upstreams->order = 2;
    for (unsigned step = 0; s->served < RACED && step < STEPS_MAX; step++) {
        act(s);
        watch_bounds(s);
        if (step % 4 == 0) { /* with time for the other thread, should it stand still */
            ag_loop_turn(&s->loop, step < STEPS_MAX / 8 ? 0 : 1);
        }
    }
    for (unsigned turns = 0; count(s, FREE) < JOBS && turns < TURNS_MAX; turns++) {
        for (uint32_t i = 0; i < JOBS; i++) {
            if (s->jobs[i].state == HAS) {
                end(&s->jobs[i]);
            }
        }
        ag_loop_turn(&s->loop, 1);
    }
    atomic_fetch_sub(&s->fleet->busy, 1);
    for (unsigned turns = 0; atomic_load(&s->fleet->busy) > 0 && turns < TURNS_MAX; turns++) {
        ag_loop_turn(&s->loop, 1);
    }
    shard_close(s);
    return NULL;
}

BOTH(upstream_slots, shards_that_race_lose_no_slot_and_nobody)
{
    for (unsigned round = 0; round < 4; round++) {
        struct fleet *f = fleet_new(kind, SERVERS, 1000 + round * 100);
        pthread_t other;

        for (uint32_t i = 0; i < SERVERS; i++) {
            f->servers[i].max_connections = 1 + round % 3;
        }
        f->up.options.max_connections = round == 3 ? 3 : 0;
        ag_upstream_group_follow(f->group, &f->up, 2);
        f->busy = SHARDS;
        f->shards[0].cancels = f->shards[1].cancels = round % 2;
        cr_assert_eq(pthread_create(&other, NULL, work, &f->shards[1]), 0);
        (void)work(&f->shards[0]);
        cr_assert_eq(pthread_join(other, NULL), 0);
        for (uint32_t k = 0; k < SHARDS; k++) {
            cr_assert_eq(count(&f->shards[k], FREE), JOBS, "%u of shard %u wait for ever",
                         JOBS - count(&f->shards[k], FREE), k);
            cr_assert(f->shards[k].served >= RACED, "%lu", f->shards[k].served);
            cr_assert_eq(f->shards[k].beyond, 0);
        }
        fleet_free(f);
    }
}
