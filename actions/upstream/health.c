#include "actions/upstream/health.h"

#include "actions/upstream/health_parts.h"

#include <stdlib.h>

/* How often groups are looked at: who is new is checked within this time. */
#define SWEEP_MS 250u

/* ---- the members of an upstream ---- */

static struct ag_health_task *make_check(struct ag_health_watch *w, struct ag_upstream_member *m)
{
    struct ag_health *h = w->health;
    struct ag_health_task *c = ag_pool_get(&h->checks);

    if (!c) {
        return NULL;
    }
    memset(c, 0, sizeof(*c));
    c->watch = w;
    c->aim.member = m;
    ag_health_task_init(c);
    return c;
}

static void drop_check(struct ag_health_task *c)
{
    ag_health_task_stop(c);
    ag_upstream_member_release(c->aim.member);
    ag_pool_put(&c->watch->health->checks, c);
}

/* `m`, held, is at index `i` now; NULL: nobody. Without a slot it is not checked, until the next change. */
static void follow_member(struct ag_health_watch *w, uint32_t i, struct ag_upstream_member *m)
{
    struct ag_health_task *c = w->checks[i];

    if (c && c->aim.member == m) {
        ag_upstream_member_release(m);
        return;
    }
    if (c) {
        drop_check(c);
        w->checks[i] = NULL;
    }
    if (m && w->up->options.health.check.on) {
        w->checks[i] = make_check(w, m);
    }
    if (m && !w->checks[i]) {
        ag_upstream_member_release(m);
    }
}

static void follow_group(struct ag_health_watch *w)
{
    struct ag_upstream_member *members[AG_UPSTREAM_SERVERS_MAX];
    struct ag_upstream_options options;
    uint32_t count;

    w->version = ag_upstream_group_read(w->group, &options, members, &count);
    for (uint32_t i = 0; i < AG_UPSTREAM_SERVERS_MAX; i++) {
        follow_member(w, i, i < count ? members[i] : NULL);
    }
}

/* ---- the upstreams in use ---- */

static void drop_watch(struct ag_health_watch *w)
{
    for (uint32_t i = 0; i < AG_UPSTREAM_SERVERS_MAX; i++) {
        if (w->checks[i]) {
            drop_check(w->checks[i]);
        }
    }
    ag_upstream_group_release(w->group);
    ag_list_remove(&w->link);
    free(w->headers);
    free(w);
}

static struct ag_health_watch *find_watch(struct ag_health *h, const struct ag_upstream *up)
{
    ag_list_foreach(it, &h->watches) {
        struct ag_health_watch *w = ag_container_of(it, struct ag_health_watch, link);

        if (w->key[0] == up->key[0] && w->key[1] == up->key[1]) {
            return w;
        }
    }
    return NULL;
}

/* NULL: no memory, it goes unchecked. */
static struct ag_health_watch *make_watch(struct ag_health *h, const struct ag_upstream *up)
{
    struct ag_health_watch *w = calloc(1, sizeof(*w));

    if (!w) {
        return NULL;
    }
    w->group = ag_upstream_group_hold(h->all->groups, up, h->all->order);
    if (!w->group) {
        free(w);
        return NULL;
    }
    w->health = h;
    w->key[0] = up->key[0];
    w->key[1] = up->key[1];
    ag_list_init(&w->link);
    ag_list_push(&h->watches, &w->link);
    return w;
}

/* The fields that its checks have; without memory they have none, and may fail for it. */
static void set_headers(struct ag_health_watch *w)
{
    const struct ag_node *map = w->up->options.health.check.headers;
    uint32_t count = 0;

    free(w->headers);
    w->headers = NULL;
    w->header_count = 0;
    for (const struct ag_node *n = map ? map->first : NULL; n; n = n->next) {
        count++;
    }
    if (count > 0) {
        w->headers = calloc(count, sizeof(*w->headers));
    }
    if (!w->headers) {
        return;
    }
    for (const struct ag_node *n = map->first; n; n = n->next) {
        w->headers[w->header_count++] =
            (struct ag_client_header){ag_span_trim(n->key), ag_span_trim(n->text)};
    }
}

static void use(struct ag_health_watch *w, const struct ag_upstream *up)
{
    const struct ag_ejection_options *e = &up->options.health.ejection;
    bool was_checked = w->up && w->up->options.health.check.on;

    w->up = up;
    w->seen = true;
    set_headers(w);
    if (w->outliers_ms == 0 || w->outliers_ms > w->health->all->loop->now_ms + e->window_ms) {
        w->outliers_ms = w->health->all->loop->now_ms + e->window_ms;
    }
    for (uint32_t i = 0; i < AG_UPSTREAM_SERVERS_MAX; i++) {
        if (w->checks[i] && !up->options.health.check.on) {
            drop_check(w->checks[i]);
            w->checks[i] = NULL;
        } else if (w->checks[i]) {
            ag_health_task_renew(w->checks[i]);
        }
    }
    if (!was_checked) {
        w->version = 0; /* all are to be looked at */
    }
}

static bool is_watched(const struct ag_upstream *up)
{
    return up->options.health.check.on || up->options.health.ejection.latency_percent > 0;
}

/* The configuration before goes: none of its texts may be in use. */
void ag_health_use(struct ag_health *h, const struct ag_upstream *const *upstreams, uint32_t count)
{
    struct ag_link *next;

    ag_list_foreach(it, &h->watches) {
        ag_container_of(it, struct ag_health_watch, link)->seen = false;
    }
    for (uint32_t i = 0; i < count; i++) {
        if (is_watched(upstreams[i])) {
            struct ag_health_watch *w = find_watch(h, upstreams[i]);

            w = w ? w : make_watch(h, upstreams[i]);
            if (w) {
                use(w, upstreams[i]);
            }
        }
    }
    for (struct ag_link *it = h->watches.next; it != &h->watches; it = next) {
        struct ag_health_watch *w = ag_container_of(it, struct ag_health_watch, link);

        next = it->next;
        if (!w->seen) {
            drop_watch(w);
        }
    }
    if (!ag_list_empty(&h->watches)) {
        ag_loop_arm(h->all->loop, &h->sweep, 0);
    }
}

/* ---- outliers ---- */

/* What all shards have met since the last time. */
static void take_samples(struct ag_health *h, struct ag_upstream_member *const *members,
                         uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        struct ag_upstream_member *m = members[i];

        h->samples[i] = (struct ag_ejection_sample){0};
        if (m) {
            h->samples[i].sum_us =
                atomic_exchange_explicit(&m->latency_sum_us, 0, memory_order_relaxed);
            h->samples[i].count =
                atomic_exchange_explicit(&m->latency_count, 0, memory_order_relaxed);
        }
    }
}

static void eject_outlier(struct ag_health_watch *w, struct ag_upstream_member *m, uint32_t i)
{
    const struct ag_ejection_sample *s = &w->health->samples[i];
    char why[128];

    AG_ASSERT(s->count > 0);
    (void)snprintf(why, sizeof(why),
                   "%llu us to the first byte in the mean of %u, against %llu us of the others",
                   (unsigned long long)(s->sum_us / s->count), s->count,
                   (unsigned long long)w->health->median_us[i]);
    ag_upstream_eject(m, &w->up->options.health.breaker, w->health->all->loop->now_ms, why);
}

static void look_for_outliers(struct ag_health_watch *w)
{
    struct ag_health *h = w->health;
    struct ag_upstream_member *members[AG_UPSTREAM_SERVERS_MAX];
    struct ag_upstream_options options;
    struct ag_balance_set outliers;
    uint32_t count;

    (void)ag_upstream_group_read(w->group, &options, members, &count);
    take_samples(h, members, count);
    ag_ejection_find(h->samples, count, &w->up->options.health.ejection, &outliers, h->median_us);
    for (uint32_t i = 0; i < count; i++) {
        if (ag_balance_set_has(&outliers, i)) {
            eject_outlier(w, members[i], i);
        }
        if (members[i]) {
            ag_upstream_member_release(members[i]);
        }
    }
}

/* ---- one shard's ---- */

static void on_sweep(struct ag_timer *t)
{
    struct ag_health *h = ag_container_of(t, struct ag_health, sweep);
    uint64_t now_ms = h->all->loop->now_ms;

    ag_list_foreach(it, &h->watches) {
        struct ag_health_watch *w = ag_container_of(it, struct ag_health_watch, link);
        const struct ag_ejection_options *e = &w->up->options.health.ejection;

        if (w->version != ag_upstream_group_version(w->group)) {
            follow_group(w);
        }
        if (e->latency_percent > 0 && now_ms >= w->outliers_ms) {
            w->outliers_ms = now_ms + e->window_ms;
            look_for_outliers(w);
        }
    }
    if (!ag_list_empty(&h->watches)) {
        ag_loop_arm(h->all->loop, &h->sweep, SWEEP_MS);
    }
}

struct ag_health *ag_health_new(struct ag_upstreams *all)
{
    struct ag_health *h = calloc(1, sizeof(*h));

    if (!h) {
        return NULL;
    }
    if (ag_pool_init(&h->checks, "health checks", sizeof(struct ag_health_task),
                     AG_HEALTH_CHECKS) != AG_OK) {
        free(h);
        return NULL;
    }
    h->all = all;
    ag_list_init(&h->watches);
    ag_timer_init(&h->sweep, on_sweep);
    return h;
}

void ag_health_free(struct ag_health *h)
{
    bool any;

    if (!h) {
        return;
    }
    any = h->under_way > 0;
    ag_timer_cancel(&h->all->loop->wheel, &h->sweep);
    while (!ag_list_empty(&h->watches)) {
        drop_watch(ag_container_of(h->watches.next, struct ag_health_watch, link));
    }
    if (any) {
        ag_loop_turn(h->all->loop, 0); /* what was given up goes by tasks */
    }
    ag_pool_deinit(&h->checks);
    free(h);
}

uint64_t ag_health_bytes(void)
{
    return sizeof(struct ag_health) +
           ag_pool_bytes(sizeof(struct ag_health_task), AG_HEALTH_CHECKS);
}

/* ---- for who asks how things are ---- */

struct asking {
    void (*each)(void *arg, const struct ag_health_view *v);
    void *arg;
};

static uint64_t value_of(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

static void view_group(void *arg, struct ag_upstream_group *g)
{
    const struct asking *a = arg;

    for (uint32_t i = 0; i < g->count; i++) {
        const struct ag_upstream_member *m = g->members[i];

        if (m) {
            const struct ag_health_view v = {
                .upstream = g->name,
                .server = m->server.written,
                .flags = atomic_load_explicit(&m->flags, memory_order_relaxed),
                .weight = atomic_load_explicit(&m->weight, memory_order_relaxed),
                .breaker = ag_breaker_state(&m->breaker),
                .origin = m->origin,
                .backup = m->server.backup,
                .checked = g->options.health.check.on,
                .errors = value_of(&m->counts.errors),
                .ejections = value_of(&m->counts.ejections),
                .held_back = value_of(&m->counts.held_back),
                .checks = value_of(&m->counts.checks),
                .checks_failed = value_of(&m->counts.checks_failed),
                .downs = value_of(&m->counts.downs),
            };

            a->each(a->arg, &v);
        }
    }
}

void ag_health_each(struct ag_upstream_groups *all,
                    void (*each)(void *arg, const struct ag_health_view *v), void *arg)
{
    struct asking a = {each, arg};

    ag_upstream_groups_each(all, view_group, &a);
}
