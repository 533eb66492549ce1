#include "actions/upstream/upstream_members.h"

#include <stdlib.h>

struct ag_upstream_groups *ag_upstream_groups_new(void)
{
    struct ag_upstream_groups *all = calloc(1, sizeof(*all));

    if (all) {
        AG_ASSERT(pthread_mutex_init(&all->lock, NULL) == 0);
        for (uint32_t i = 0; i < AG_UPSTREAM_GROUP_BUCKETS; i++) {
            ag_list_init(&all->buckets[i]);
        }
    }
    return all;
}

static void lock(struct ag_upstream_groups *all)
{
    AG_ASSERT(pthread_mutex_lock(&all->lock) == 0);
}

static void unlock(struct ag_upstream_groups *all)
{
    AG_ASSERT(pthread_mutex_unlock(&all->lock) == 0);
}

/* ---- groups ---- */

static void changed(struct ag_upstream_group *g)
{
    uint32_t next = atomic_load_explicit(&g->version, memory_order_relaxed) + 1;

    atomic_store_explicit(&g->version, next ? next : 1, memory_order_release);
}

void ag_upstream_group_changed(struct ag_upstream_group *g)
{
    lock(g->all);
    changed(g);
    unlock(g->all);
}

static struct ag_link *bucket_of(struct ag_upstream_groups *all, const struct ag_upstream *up)
{
    return &all->buckets[up->key[0] % AG_UPSTREAM_GROUP_BUCKETS];
}

static struct ag_upstream_group *find(struct ag_upstream_groups *all, const struct ag_upstream *up)
{
    ag_list_foreach(it, bucket_of(all, up)) {
        struct ag_upstream_group *g = ag_container_of(it, struct ag_upstream_group, link);

        if (g->key[0] == up->key[0] && g->key[1] == up->key[1]) {
            return g;
        }
    }
    return NULL;
}

static void free_group(struct ag_upstream_group *g)
{
    for (uint32_t i = 0; i < AG_UPSTREAM_SERVERS_MAX; i++) {
        if (g->members[i]) {
            ag_upstream_members_take_out(g, g->members[i]);
        }
    }
    ag_upstream_members_forget(g, NULL);
    ag_list_remove(&g->link);
    g->all->count--;
    free(g);
}

static struct ag_upstream_group *make(struct ag_upstream_groups *all, const struct ag_upstream *up)
{
    size_t size = sizeof(struct ag_upstream_group) + up->name.len;
    struct ag_upstream_group *g = aligned_alloc(64, (size + 63) / 64 * 64);
    uint8_t *name;
    bool any;

    if (!g) {
        return NULL;
    }
    memset(g, 0, sizeof(*g));
    name = (uint8_t *)(g + 1);
    memcpy(name, up->name.ptr, up->name.len);
    g->all = all;
    g->key[0] = up->key[0];
    g->key[1] = up->key[1];
    g->protocol = up->protocol;
    g->tls = up->tls != NULL;
    g->name = ag_span(name, up->name.len);
    g->options = up->options;
    atomic_init(&g->version, 1);
    ag_list_init(&g->link);
    ag_list_init(&g->pools);
    ag_list_push_front(bucket_of(all, up), &g->link);
    all->count++;
    atomic_init(&g->servers, up->options.discovered ? AG_SERVERS_AWAITED : AG_SERVERS_KNOWN);
    if (ag_upstream_members_become(g, up->servers, up->server_count, AG_MEMBER_CONFIGURED, &any) !=
        AG_OK) {
        free_group(g);
        return NULL;
    }
    return g;
}

static void let_go(struct ag_upstream_group *g)
{
    AG_ASSERT(g->holders > 0);
    if (--g->holders == 0) {
        free_group(g);
    }
}

static bool change_flags(struct ag_upstream_member *m, uint32_t set, uint32_t clear,
                         uint64_t now_ms)
{
    uint32_t before = atomic_load_explicit(&m->flags, memory_order_relaxed);
    uint32_t after = (before | set) & ~clear;

    if (after == before) {
        return false;
    }
    if (after == 0) {
        atomic_store_explicit(&m->up_ms, now_ms, memory_order_relaxed);
    }
    atomic_store_explicit(&m->flags, after, memory_order_relaxed);
    return true;
}

/* What is switched off keeps nobody away. */
static void forget_judgements(struct ag_upstream_group *g)
{
    const struct ag_health_options *o = &g->options.health;
    bool ejects = ag_breaker_is_on(&o->breaker) || o->ejection.latency_percent;

    for (uint32_t i = 0; i < g->count; i++) {
        struct ag_upstream_member *m = g->members[i];

        if (m && !o->check.on) {
            (void)change_flags(m, 0, AG_MEMBER_DOWN, 0);
        }
        if (m && !ejects) {
            ag_breaker_reset(&m->breaker);
            (void)change_flags(m, 0, AG_MEMBER_EJECTED, 0);
        }
    }
}

static bool has_members(const struct ag_upstream_group *g)
{
    return g->count > 0;
}

static void set_servers(struct ag_upstream_group *g, enum ag_group_servers to)
{
    atomic_store_explicit(&g->servers, (uint8_t)to, memory_order_release);
}

/* Those that were found at addresses that are not allowed, or no longer. */
static void take_out_forbidden(struct ag_upstream_group *g)
{
    for (uint32_t i = 0; i < AG_UPSTREAM_SERVERS_MAX; i++) {
        struct ag_upstream_member *m = g->members[i];

        if (m && m->server.one_of && !ag_addresses_allow(&g->options.addresses, &m->server.addr)) {
            ag_upstream_members_take_out(g, m);
        }
    }
}

/* Servers are looked for from now on: those that there are stay until some are found. */
static void expect(struct ag_upstream_group *g)
{
    take_out_forbidden(g);
    set_servers(g, has_members(g) ? AG_SERVERS_KNOWN : AG_SERVERS_AWAITED);
}

/* Becomes what a newer configuration says. Without memory some servers are missing, until the next one. */
static void follow(struct ag_upstream_group *g, const struct ag_upstream *up, uint64_t order)
{
    bool any;

    if (order > g->order) {
        g->order = order;
        g->options = up->options;
        if (up->options.discovered) {
            expect(g);
        } else {
            (void)!ag_upstream_members_become(g, up->servers, up->server_count,
                                              AG_MEMBER_CONFIGURED, &any);
            set_servers(g, AG_SERVERS_KNOWN);
        }
        forget_judgements(g);
        changed(g);
    }
}

struct ag_upstream_group *ag_upstream_group_hold(struct ag_upstream_groups *all,
                                                 const struct ag_upstream *up, uint64_t order)
{
    struct ag_upstream_group *g;

    lock(all);
    g = find(all, up);
    if (!g) {
        g = make(all, up);
    }
    if (g) {
        g->holders++;
        follow(g, up, order);
    }
    unlock(all);
    return g;
}

void ag_upstream_group_follow(struct ag_upstream_group *g, const struct ag_upstream *up,
                              uint64_t order)
{
    lock(g->all);
    follow(g, up, order);
    unlock(g->all);
}

void ag_upstream_group_release(struct ag_upstream_group *g)
{
    struct ag_upstream_groups *all = g->all;

    lock(all);
    let_go(g);
    unlock(all);
}

void ag_upstream_groups_each(struct ag_upstream_groups *all,
                             void (*each)(void *arg, struct ag_upstream_group *g), void *arg)
{
    lock(all);
    for (uint32_t i = 0; i < AG_UPSTREAM_GROUP_BUCKETS; i++) {
        ag_list_foreach(it, &all->buckets[i]) {
            each(arg, ag_container_of(it, struct ag_upstream_group, link));
        }
    }
    unlock(all);
}

void ag_upstream_group_keep(struct ag_upstream_group *g)
{
    lock(g->all);
    if (!g->kept) {
        g->kept = true;
        g->holders++;
    }
    unlock(g->all);
}

/* Those that the process keeps and no upstream of the newest configuration is, nor of the one before: shards that come
 * to it later still begin requests by that. */
static void drop_gone(struct ag_upstream_groups *all)
{
    for (uint32_t i = 0; i < AG_UPSTREAM_GROUP_BUCKETS; i++) {
        struct ag_link *bucket = &all->buckets[i];

        for (struct ag_link *it = bucket->next, *next; it != bucket; it = next) {
            struct ag_upstream_group *g = ag_container_of(it, struct ag_upstream_group, link);

            next = it->next;
            if (g->kept && g->order + 1 < all->order) {
                g->kept = false;
                let_go(g);
            }
        }
    }
}

void ag_upstream_groups_configure(struct ag_upstream_groups *all,
                                  const struct ag_upstream *const *upstreams, uint32_t count,
                                  uint64_t order)
{
    lock(all);
    if (order > all->order) {
        all->order = order;
        for (uint32_t i = 0; i < count; i++) {
            struct ag_upstream_group *g = find(all, upstreams[i]);

            if (g) {
                follow(g, upstreams[i], order);
            }
        }
        drop_gone(all);
    }
    unlock(all);
}

void ag_upstream_groups_free(struct ag_upstream_groups *all)
{
    if (!all) {
        return;
    }
    ag_upstream_groups_configure(all, NULL, 0, UINT64_MAX);
    AG_ASSERT(all->count == 0);
    AG_ASSERT(pthread_mutex_destroy(&all->lock) == 0);
    free(all);
}

uint32_t ag_upstream_group_read(struct ag_upstream_group *g,
                                struct ag_upstream_options *out_options,
                                struct ag_upstream_member *out_members[AG_UPSTREAM_SERVERS_MAX],
                                uint32_t *out_count)
{
    uint32_t version;

    lock(g->all);
    version = atomic_load_explicit(&g->version, memory_order_relaxed);
    *out_options = g->options;
    *out_count = g->count;
    for (uint32_t i = 0; i < g->count; i++) {
        out_members[i] = g->members[i];
        if (g->members[i]) {
            g->members[i]->holders++;
        }
    }
    unlock(g->all);
    return version;
}

void ag_upstream_group_lock(struct ag_upstream_group *g)
{
    lock(g->all);
}

void ag_upstream_group_unlock(struct ag_upstream_group *g)
{
    unlock(g->all);
}

/* ---- servers that come and go ---- */

/* The first one from index `from` on; NULL: there is none. */
static struct ag_upstream_member *member_at(const struct ag_upstream_group *g, uint32_t from,
                                            const struct ag_upstream_server *place)
{
    for (uint32_t i = from; i < g->count; i++) {
        if (g->members[i] && ag_upstream_member_is_at(g->members[i], place)) {
            return g->members[i];
        }
    }
    return NULL;
}

enum ag_status ag_upstream_group_add(struct ag_upstream_group *g,
                                     const struct ag_upstream_server *server,
                                     enum ag_member_origin origin)
{
    enum ag_status st = AG_OK;
    struct ag_upstream_member *m, *gone;

    lock(g->all);
    gone = ag_upstream_members_removed_at(g, server);
    if (member_at(g, 0, server)) {
        st = AG_EINVAL;
    } else if ((m = ag_upstream_members_add(g, server, gone ? gone->origin : origin)) != NULL) {
        if (gone) { /* it is back: a weight that is ordered now stays when that of the configuration does */
            m->server.weight = gone->server.weight;
            ag_upstream_members_forget(g, server);
        }
        changed(g);
    } else {
        st = AG_ENOMEM;
    }
    unlock(g->all);
    return st;
}

enum ag_status ag_upstream_group_remove(struct ag_upstream_group *g,
                                        const struct ag_upstream_server *place)
{
    enum ag_status st = AG_ENOENT;
    struct ag_upstream_member *m;

    lock(g->all);
    while ((m = member_at(g, 0, place)) != NULL) {
        if (m->origin != AG_MEMBER_ORDERED) {
            m->holders++;
            m->next_removed = g->removed;
            g->removed = m;
        }
        ag_upstream_members_take_out(g, m);
        st = AG_OK;
    }
    if (st == AG_OK) {
        changed(g);
    }
    unlock(g->all);
    return st;
}

uint32_t ag_upstream_group_at(struct ag_upstream_group *g, const struct ag_upstream_server *place,
                              struct ag_upstream_member *out_members[AG_UPSTREAM_SERVERS_MAX])
{
    struct ag_upstream_member *m;
    uint32_t count = 0, from = 0;

    lock(g->all);
    while ((m = member_at(g, from, place)) != NULL) {
        m->holders++;
        out_members[count++] = m;
        from = m->index + 1;
    }
    unlock(g->all);
    return count;
}

enum ag_status ag_upstream_group_found(struct ag_upstream_group *g,
                                       const struct ag_upstream_server *servers, uint32_t count,
                                       bool *out_changed)
{
    enum ag_status st = AG_OK;

    AG_ASSERT(count > 0);
    *out_changed = false;
    lock(g->all);
    if (g->options.discovered) {
        st = ag_upstream_members_become(g, servers, count, AG_MEMBER_FOUND, out_changed);
        take_out_forbidden(g); /* who looked goes by an older configuration yet */
        set_servers(g, has_members(g) ? AG_SERVERS_KNOWN : AG_SERVERS_REFUSED);
    }
    if (*out_changed) {
        changed(g);
    }
    unlock(g->all);
    return st;
}

bool ag_upstream_group_not_found(struct ag_upstream_group *g, enum ag_group_servers why)
{
    bool none;

    lock(g->all);
    none = g->options.discovered && !has_members(g);
    if (none) {
        set_servers(g, why);
    }
    unlock(g->all);
    return none;
}

/* ---- flags ---- */

bool ag_upstream_member_mark(struct ag_upstream_member *m, uint32_t set, uint32_t clear,
                             uint64_t now_ms)
{
    struct ag_upstream_group *g = m->group;
    bool is_other;

    lock(g->all);
    if (!g->options.health.check.on) {
        set &= ~AG_MEMBER_DOWN;
    }
    is_other = change_flags(m, set, clear, now_ms);
    if (is_other) {
        changed(g);
    }
    unlock(g->all);
    return is_other;
}

bool ag_upstream_member_take_up(struct ag_upstream_member *m, uint64_t now_ms)
{
    struct ag_upstream_group *g = m->group;
    bool was_away;

    lock(g->all);
    ag_breaker_reset(&m->breaker);
    was_away = change_flags(m, 0, AG_MEMBER_DOWN | AG_MEMBER_EJECTED, now_ms);
    if (was_away) {
        changed(g);
    }
    unlock(g->all);
    return was_away;
}

bool ag_upstream_member_eject(struct ag_upstream_member *m, uint32_t max_percent)
{
    struct ag_upstream_group *g = m->group;
    uint32_t members = 0, ejected = 0;
    bool done;

    lock(g->all);
    if (ag_breaker_state(&m->breaker) == AG_BREAKER_CLOSED) {
        max_percent = 0; /* it was taken up meanwhile */
    }
    for (uint32_t i = 0; i < g->count; i++) {
        uint32_t flags = g->members[i]
                             ? atomic_load_explicit(&g->members[i]->flags, memory_order_relaxed)
                             : AG_MEMBER_DRAINED;

        members += !(flags & AG_MEMBER_DRAINED);
        ejected += flags & AG_MEMBER_EJECTED && !(flags & AG_MEMBER_DRAINED);
    }
    done = (ejected + 1) * 100 <= max_percent * members && change_flags(m, AG_MEMBER_EJECTED, 0, 0);
    if (done) {
        changed(g);
    }
    unlock(g->all);
    return done;
}

void ag_upstream_member_weigh(struct ag_upstream_member *m, uint32_t weight)
{
    lock(m->group->all);
    atomic_store_explicit(&m->weight, weight, memory_order_relaxed);
    changed(m->group);
    unlock(m->group->all);
}
