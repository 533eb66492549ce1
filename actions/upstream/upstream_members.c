#include "actions/upstream/upstream_members.h"

#include "engine/resolver.h"

#include <stdlib.h>
#include <xxhash.h>

static void let_member_go(struct ag_upstream_member *m)
{
    AG_ASSERT(m->holders > 0);
    if (--m->holders == 0) {
        free(m);
    }
}

void ag_upstream_member_hold(struct ag_upstream_member *m)
{
    ag_upstream_group_lock(m->group);
    m->holders++;
    ag_upstream_group_unlock(m->group);
}

void ag_upstream_member_release(struct ag_upstream_member *m)
{
    struct ag_upstream_group *g = m->group; /* it is not freed meanwhile: that takes the lock */

    ag_upstream_group_lock(g);
    let_member_go(m);
    ag_upstream_group_unlock(g);
}

static struct ag_span copy_text(struct ag_buf *to, struct ag_span s)
{
    const uint8_t *at = to->ptr + to->len;

    ag_buf_put(to, s);
    AG_ASSERT(!to->overflow);
    return ag_span(at, s.len);
}

/* An address that was found is the same server as one that is listed. */
static uint64_t identity_of(const struct ag_upstream_server *s)
{
    uint8_t room[INET6_ADDRSTRLEN];
    struct ag_buf text = ag_buf(room, sizeof(room));
    struct ag_span host = s->host;

    if (s->one_of) {
        ag_addr_format(&s->addr, false, &text);
        host = ag_buf_span(&text);
    }
    return XXH3_64bits_withSeed(host.ptr, host.len, s->port);
}

/* Both are the same place. */
static bool is_same_place(const struct ag_upstream_server *a, const struct ag_upstream_server *b)
{
    return a->port == b->port && a->one_of == b->one_of && ag_span_eq(a->host, b->host) &&
           (!a->one_of || ag_addr_same(&a->addr, &b->addr));
}

/* One that stands there twice is two servers, and two identities. */
static uint64_t own_identity(const struct ag_upstream_group *g, const struct ag_upstream_server *s)
{
    uint64_t identity = identity_of(s);

    for (uint32_t i = 0; i < g->count; i++) {
        const struct ag_upstream_member *m = g->members[i];

        identity += m && is_same_place(&m->server, s);
    }
    return identity;
}

/* NULL: no memory. */
static struct ag_upstream_member *make_member(struct ag_upstream_group *g,
                                              const struct ag_upstream_server *server,
                                              enum ag_member_origin origin)
{
    size_t bytes =
        server->host.len + server->authority.len + server->written.len + server->zone.len;
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
    m->server.zone = copy_text(&text, server->zone);
    m->identity = own_identity(g, server);
    m->origin = origin;
    m->holders = 1;
    atomic_init(&m->flags, g->options.health.check.on && g->options.health.check.starts_down
                               ? AG_MEMBER_DOWN
                               : 0);
    atomic_init(&m->weight, server->weight);
    atomic_init(&m->backup, server->backup);
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

void ag_upstream_members_take_out(struct ag_upstream_group *g, struct ag_upstream_member *m)
{
    atomic_fetch_or_explicit(&m->flags, AG_MEMBER_REMOVED, memory_order_relaxed);
    g->members[m->index] = NULL;
    while (g->count > 0 && !g->members[g->count - 1]) {
        g->count--;
    }
    let_member_go(m);
}

/* All that connections depend on; its weight, its bound, and when it is asked, may change. */
static bool is_same_server(const struct ag_upstream_member *m, const struct ag_upstream_server *s)
{
    return is_same_place(&m->server, s) && m->server.remote == s->remote &&
           ag_span_eq(m->server.zone, s->zone) && ag_span_eq(m->server.authority, s->authority);
}

bool ag_upstream_member_is_at(const struct ag_upstream_member *m,
                              const struct ag_upstream_server *place)
{
    if (!m->server.named && !place->named && place->addr.sa.sa_family != AF_UNSPEC) {
        return ag_addr_same(&m->server.addr, &place->addr);
    }
    return m->server.port == place->port && ag_span_ieq(m->server.host, place->host);
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

struct ag_upstream_member *ag_upstream_members_add(struct ag_upstream_group *g,
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

/* True: it is another one. */
static bool weigh(struct ag_upstream_member *m, uint32_t weight)
{
    if (m->server.weight == weight) {
        return false; /* what was ordered since stays */
    }
    m->server.weight = weight;
    atomic_store_explicit(&m->weight, weight, memory_order_relaxed);
    return true;
}

/* ---- those that an operator has removed ---- */

struct ag_upstream_member *ag_upstream_members_removed_at(const struct ag_upstream_group *g,
                                                          const struct ag_upstream_server *place)
{
    struct ag_upstream_member *m = g->removed;

    while (m && !ag_upstream_member_is_at(m, place)) {
        m = m->next_removed;
    }
    return m;
}

static bool is_removed(const struct ag_upstream_group *g, const struct ag_upstream_server *server)
{
    struct ag_upstream_member *m = ag_upstream_members_removed_at(g, server);

    if (m) {
        m->seen = true;
    }
    return m != NULL;
}

/* Those of `origin` that were not seen are nowhere any more. */
static void forget_unseen(struct ag_upstream_group *g, enum ag_member_origin origin)
{
    for (struct ag_upstream_member **at = &g->removed; *at;) {
        struct ag_upstream_member *m = *at;

        if (!m->seen && m->origin == origin) {
            *at = m->next_removed;
            let_member_go(m);
        } else {
            m->seen = false;
            at = &m->next_removed;
        }
    }
}

void ag_upstream_members_forget(struct ag_upstream_group *g, const struct ag_upstream_server *place)
{
    for (struct ag_upstream_member **at = &g->removed; *at;) {
        struct ag_upstream_member *m = *at;

        if (!place || ag_upstream_member_is_at(m, place)) {
            *at = m->next_removed;
            let_member_go(m);
        } else {
            at = &m->next_removed;
        }
    }
}

static bool stand_by(struct ag_upstream_member *m, bool backup)
{
    if (m->server.backup == backup) {
        return false;
    }
    m->server.backup = backup;
    atomic_store_explicit(&m->backup, backup, memory_order_relaxed);
    return true;
}

static bool bound(struct ag_upstream_member *m, uint32_t max_connections)
{
    if (m->server.max_connections == max_connections) {
        return false;
    }
    m->server.max_connections = max_connections;
    atomic_store_explicit(&m->max_connections, max_connections, memory_order_relaxed);
    return true;
}

enum ag_status ag_upstream_members_become(struct ag_upstream_group *g,
                                          const struct ag_upstream_server *servers, uint32_t count,
                                          enum ag_member_origin origin, bool *out_changed)
{
    bool is_new[AG_UPSTREAM_SERVERS_MAX] = {false};
    enum ag_status st = AG_OK;
    bool differs = false;

    AG_ASSERT(count <= AG_UPSTREAM_SERVERS_MAX);
    for (uint32_t i = 0; i < count; i++) {
        struct ag_upstream_member *m = find_member(g, &servers[i]);

        is_new[i] = !is_removed(g, &servers[i]) && !m;
        if (m) {
            m->seen = true;
            m->origin = origin;
            differs = weigh(m, servers[i].weight) || differs;
            differs = stand_by(m, servers[i].backup) || differs;
            differs = bound(m, servers[i].max_connections) || differs;
        }
        differs = differs || is_new[i];
    }
    for (uint32_t i = 0; i < AG_UPSTREAM_SERVERS_MAX; i++) {
        struct ag_upstream_member *m = g->members[i];

        if (m && !m->seen && m->origin != AG_MEMBER_ORDERED) {
            ag_upstream_members_take_out(g, m);
            differs = true;
        } else if (m) {
            m->seen = false;
        }
    }
    forget_unseen(g, origin);
    for (uint32_t i = 0; i < count; i++) {
        if (is_new[i] && !ag_upstream_members_add(g, &servers[i], origin)) {
            st = AG_ENOMEM;
        }
    }
    *out_changed = differs;
    return st;
}
