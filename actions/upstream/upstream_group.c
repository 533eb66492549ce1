#include "actions/upstream/upstream_group.h"

#include <stdlib.h>
#include <xxhash.h>

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

/* ---- members ---- */

static void let_member_go(struct ag_upstream_member *m)
{
    AG_ASSERT(m->holders > 0);
    if (--m->holders == 0) {
        free(m);
    }
}

void ag_upstream_member_hold(struct ag_upstream_member *m)
{
    lock(m->group->all);
    m->holders++;
    unlock(m->group->all);
}

void ag_upstream_member_release(struct ag_upstream_member *m)
{
    struct ag_upstream_groups *all = m->group->all;

    lock(all);
    let_member_go(m);
    unlock(all);
}

static struct ag_span copy_text(struct ag_buf *to, struct ag_span s)
{
    const uint8_t *at = to->ptr + to->len;

    ag_buf_put(to, s);
    AG_ASSERT(!to->overflow);
    return ag_span(at, s.len);
}

static uint64_t identity_of(const struct ag_upstream_server *s)
{
    return XXH3_64bits_withSeed(s->host.ptr, s->host.len, s->port);
}

/* One that stands there twice is two servers, and two identities. */
static uint64_t own_identity(const struct ag_upstream_group *g, const struct ag_upstream_server *s)
{
    uint64_t identity = identity_of(s);

    for (uint32_t i = 0; i < g->count; i++) {
        const struct ag_upstream_member *m = g->members[i];

        identity += m && m->server.port == s->port && ag_span_eq(m->server.host, s->host);
    }
    return identity;
}

/* NULL: no memory. */
static struct ag_upstream_member *make_member(struct ag_upstream_group *g,
                                              const struct ag_upstream_server *server,
                                              enum ag_member_origin origin)
{
    size_t bytes = server->host.len + server->authority.len + server->written.len;
    size_t size = sizeof(struct ag_upstream_member) + bytes;
    struct ag_upstream_member *m = aligned_alloc(64, (size + 63) / 64 * 64);
    struct ag_buf text;

    if (!m) {
        return NULL;
    }
    memset(m, 0, sizeof(*m));
    m->group = g;
    m->server = *server;
    text = ag_buf(m->text, bytes);
    m->server.host = copy_text(&text, server->host);
    m->server.authority = copy_text(&text, server->authority);
    m->server.written = copy_text(&text, server->written);
    m->identity = own_identity(g, server);
    m->origin = origin;
    m->holders = 1;
    atomic_init(&m->flags, g->options.health.check.on && g->options.health.check.starts_down
                               ? AG_MEMBER_DOWN
                               : 0);
    atomic_init(&m->weight, server->weight);
    atomic_init(&m->max_connections, server->max_connections);
    atomic_init(&m->up_ms, 0);
    return m;
}

/* Puts it at the first free index. False: there is none. */
static bool put_member(struct ag_upstream_group *g, struct ag_upstream_member *m)
{
    for (uint32_t i = 0; i < AG_UPSTREAM_SERVERS_MAX; i++) {
        if (!g->members[i]) {
            g->members[i] = m;
            m->index = i;
            g->count = i >= g->count ? i + 1 : g->count;
            return true;
        }
    }
    return false;
}

static void take_out(struct ag_upstream_group *g, struct ag_upstream_member *m)
{
    atomic_fetch_or_explicit(&m->flags, AG_MEMBER_REMOVED, memory_order_relaxed);
    g->members[m->index] = NULL;
    while (g->count > 0 && !g->members[g->count - 1]) {
        g->count--;
    }
    let_member_go(m);
}

/* All that connections depend on; the weight and the bound may change. */
static bool is_same_server(const struct ag_upstream_member *m, const struct ag_upstream_server *s)
{
    return m->server.port == s->port && m->server.backup == s->backup &&
           m->server.remote == s->remote && ag_span_eq(m->server.host, s->host) &&
           ag_span_eq(m->server.authority, s->authority);
}

static struct ag_upstream_member *find_member(const struct ag_upstream_group *g,
                                              const struct ag_upstream_server *s)
{
    for (uint32_t i = 0; i < g->count; i++) {
        if (g->members[i] && !g->members[i]->seen && is_same_server(g->members[i], s)) {
            return g->members[i];
        }
    }
    return NULL;
}

static struct ag_upstream_member *add(struct ag_upstream_group *g,
                                      const struct ag_upstream_server *server,
                                      enum ag_member_origin origin)
{
    struct ag_upstream_member *m = make_member(g, server, origin);

    if (m && !put_member(g, m)) {
        let_member_go(m);
        return NULL;
    }
    return m;
}

static void weigh(struct ag_upstream_member *m, uint32_t weight)
{
    if (m->server.weight != weight) { /* else what was ordered since stays */
        m->server.weight = weight;
        atomic_store_explicit(&m->weight, weight, memory_order_relaxed);
    }
}

static void bound(struct ag_upstream_member *m, uint32_t max_connections)
{
    m->server.max_connections = max_connections;
    atomic_store_explicit(&m->max_connections, max_connections, memory_order_relaxed);
}

/* What is of `origin` becomes these; a server that stands there twice is two members. Those that go make room for
 * those that come. */
static enum ag_status become(struct ag_upstream_group *g, const struct ag_upstream_server *servers,
                             uint32_t count, enum ag_member_origin origin)
{
    bool is_new[AG_UPSTREAM_SERVERS_MAX] = {false};
    enum ag_status st = AG_OK;

    AG_ASSERT(count <= AG_UPSTREAM_SERVERS_MAX);
    for (uint32_t i = 0; i < count; i++) {
        struct ag_upstream_member *m = find_member(g, &servers[i]);

        is_new[i] = !m;
        if (m) {
            m->seen = true;
            m->origin = origin;
            weigh(m, servers[i].weight);
            bound(m, servers[i].max_connections);
        }
    }
    for (uint32_t i = 0; i < AG_UPSTREAM_SERVERS_MAX; i++) {
        struct ag_upstream_member *m = g->members[i];

        if (m && !m->seen && m->origin == origin) {
            take_out(g, m);
        } else if (m) {
            m->seen = false;
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        if (is_new[i] && !add(g, &servers[i], origin)) {
            st = AG_ENOMEM;
        }
    }
    return st;
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
            take_out(g, g->members[i]);
        }
    }
    ag_list_remove(&g->link);
    g->all->count--;
    free(g);
}

static struct ag_upstream_group *make(struct ag_upstream_groups *all, const struct ag_upstream *up)
{
    size_t size = sizeof(struct ag_upstream_group) + up->name.len;
    struct ag_upstream_group *g = aligned_alloc(64, (size + 63) / 64 * 64);
    uint8_t *name;

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
    g->name = ag_span(name, up->name.len);
    g->options = up->options;
    atomic_init(&g->version, 1);
    ag_list_init(&g->link);
    ag_list_init(&g->pools);
    ag_list_push_front(bucket_of(all, up), &g->link);
    all->count++;
    if (become(g, up->servers, up->server_count, AG_MEMBER_CONFIGURED) != AG_OK) {
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

/* Becomes what a newer configuration says. Without memory some servers are missing, until the next one. */
static void follow(struct ag_upstream_group *g, const struct ag_upstream *up, uint64_t order)
{
    if (order > g->order) {
        g->order = order;
        g->options = up->options;
        (void)become(g, up->servers, up->server_count, AG_MEMBER_CONFIGURED);
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

/* Those that the process keeps and no upstream of the newest configuration is. */
static void drop_gone(struct ag_upstream_groups *all)
{
    for (uint32_t i = 0; i < AG_UPSTREAM_GROUP_BUCKETS; i++) {
        struct ag_link *bucket = &all->buckets[i];

        for (struct ag_link *it = bucket->next, *next; it != bucket; it = next) {
            struct ag_upstream_group *g = ag_container_of(it, struct ag_upstream_group, link);

            next = it->next;
            if (g->kept && g->order != all->order) {
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

enum ag_status ag_upstream_group_add(struct ag_upstream_group *g,
                                     const struct ag_upstream_server *server,
                                     enum ag_member_origin origin)
{
    enum ag_status st;

    lock(g->all);
    if (find_member(g, server)) {
        st = AG_EINVAL;
    } else if (add(g, server, origin)) {
        st = AG_OK;
        changed(g);
    } else {
        st = AG_ENOMEM;
    }
    unlock(g->all);
    return st;
}

enum ag_status ag_upstream_group_remove(struct ag_upstream_group *g, struct ag_span address)
{
    enum ag_status st = AG_ENOENT;

    lock(g->all);
    for (uint32_t i = 0; i < AG_UPSTREAM_SERVERS_MAX && st != AG_OK; i++) {
        struct ag_upstream_member *m = g->members[i];

        if (m &&
            (ag_span_eq(m->server.written, address) || ag_span_eq(m->server.authority, address))) {
            take_out(g, m);
            changed(g);
            st = AG_OK;
        }
    }
    unlock(g->all);
    return st;
}

enum ag_status ag_upstream_group_found(struct ag_upstream_group *g,
                                       const struct ag_upstream_server *servers, uint32_t count)
{
    enum ag_status st;

    lock(g->all);
    st = become(g, servers, count, AG_MEMBER_FOUND);
    changed(g);
    unlock(g->all);
    return st;
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

bool ag_upstream_member_eject(struct ag_upstream_member *m, uint32_t max_percent)
{
    struct ag_upstream_group *g = m->group;
    uint32_t members = 0, ejected = 0;
    bool done;

    lock(g->all);
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
