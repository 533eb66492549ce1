/* Endpoints that show upstreams and their servers, as all shards of the process know them. */
#include "tools/admin_upstreams.h"

#include "actions/proxy/proxy_config.h"
#include "actions/upstream/upstream_config.h"
#include "tools/serving.h"

/* ---- which ones ---- */

static const struct ag_proxy_section *section_of(const struct ag_admin *a)
{
    return a->ctx.snapshot->shared[AG_ACTION_PROXY];
}

static struct ag_upstreams *upstreams_of(const struct ag_admin *a)
{
    return a->serving->ctx.action_state[AG_ACTION_PROXY];
}

/* Two schemes may be spoken in the same way: they are one upstream then. */
static bool is_first(const struct ag_proxy_section *s, uint32_t index)
{
    for (uint32_t i = 0; i < index; i++) {
        if (s->used[i]->key[0] == s->used[index]->key[0] &&
            s->used[i]->key[1] == s->used[index]->key[1]) {
            return false;
        }
    }
    return true;
}

static bool is_configured(const struct ag_proxy_section *s, const struct ag_upstream_group *g)
{
    for (uint32_t i = 0; i < s->used_count; i++) {
        if (s->used[i]->key[0] == g->key[0] && s->used[i]->key[1] == g->key[1]) {
            return true;
        }
    }
    return false;
}

/* What is asked for. */
struct query {
    struct ag_span name; /* ptr NULL: any */
    bool has_scheme;
    struct ag_upstream_scheme scheme;
};

/* False: it was answered. */
static bool read_query(struct ag_exchange *ex, bool has_name, struct query *out)
{
    struct ag_span key = AG_SPAN("scheme="), q = ex->req.query;

    *out = (struct query){.has_scheme = q.len > 0};
    if (out->has_scheme && (!ag_span_starts(q, key) ||
                            !ag_upstream_scheme_of(ag_span_sub(q, key.len, q.len), &out->scheme))) {
        ag_admin_refuse(ex, 400,
                        AG_SPAN("the query may be scheme=http, ws, h2c, https, h2 or wss"));
        return false;
    }
    if (has_name) {
        out->name = ag_admin_segment(ex, 1);
        if (!out->name.ptr) {
            ag_admin_refuse(ex, 404, AG_SPAN("there is no such upstream"));
            return false;
        }
    }
    return true;
}

static bool is_asked_for(const struct query *q, struct ag_span name,
                         enum ag_upstream_protocol protocol, bool tls, bool offers_h2)
{
    enum ag_upstream_protocol wanted = q->scheme.protocol;

    if (wanted == AG_UPSTREAM_AUTO && !offers_h2) {
        wanted = AG_UPSTREAM_H1;
    }
    return (!q->name.ptr || ag_span_eq(q->name, name)) &&
           (!q->has_scheme || (wanted == protocol && q->scheme.tls == tls));
}

static bool wants_upstream(const struct query *q, const struct ag_upstream *up)
{
    return is_asked_for(q, up->name, up->protocol, up->tls != NULL, up->options.tls.h2);
}

bool ag_admin_upstream_find(struct ag_admin *a, struct ag_exchange *ex,
                            struct ag_admin_upstream *out)
{
    const struct ag_proxy_section *s = section_of(a);
    struct ag_upstreams *u = upstreams_of(a);
    const struct ag_upstream *up = NULL;
    uint32_t count = 0;
    struct query q;

    if (!read_query(ex, true, &q)) {
        return false;
    }
    for (uint32_t i = 0; i < s->used_count; i++) {
        if (wants_upstream(&q, s->used[i]) && is_first(s, i)) {
            up = s->used[i];
            count++;
        }
    }
    if (count == 0) {
        ag_admin_refuse(ex, 404, AG_SPAN("there is no such upstream"));
        return false;
    }
    if (count > 1) {
        ag_admin_refuse(ex, 400,
                        AG_SPAN("several upstreams have that name: say which by ?scheme="));
        return false;
    }
    *out = (struct ag_admin_upstream){up, s->zone, ag_upstream_group_hold(u->groups, up, u->order)};
    if (!out->group) {
        ag_exchange_fail(ex, 503, AG_REASON_RESOURCES, "no memory for the upstream");
    }
    return out->group != NULL;
}

bool ag_admin_upstream_place(struct ag_exchange *ex, const struct ag_admin_upstream *u,
                             struct ag_arena *arena, struct ag_upstream_server *out)
{
    struct ag_span text = ag_admin_segment(ex, 3);
    struct ag_diags diags;

    ag_diags_init(&diags, arena);
    *out = (struct ag_upstream_server){.weight = 1};
    if (!text.ptr || !ag_upstream_set_address(
                         out, (struct ag_pos){0}, text,
                         u->up->tls ? AG_UPSTREAM_TLS_PORT : AG_UPSTREAM_PLAIN_PORT, &diags)) {
        ag_admin_refuse(ex, 404, AG_SPAN("there is no such server"));
        return false;
    }
    return true;
}

/* ---- how they are shown ---- */

const char *ag_admin_upstream_scheme(enum ag_upstream_protocol protocol, bool tls, bool offers_h2)
{
    switch (protocol) {
    case AG_UPSTREAM_H1:
        return !tls ? "http" : offers_h2 ? "wss" : "https";
    case AG_UPSTREAM_H2C:
        return "h2c";
    case AG_UPSTREAM_H2:
        return "h2";
    case AG_UPSTREAM_AUTO:
        return "https";
    }
    AG_UNREACHABLE("a protocol");
}

static void put_key(struct ag_json_out *o, const char *name)
{
    ag_json_put(o, AG_SPAN(",\""));
    ag_json_put(o, ag_span_str(name));
    ag_json_put(o, AG_SPAN("\":"));
}

static void put_number(struct ag_json_out *o, const char *name, uint64_t value)
{
    put_key(o, name);
    ag_json_u64(o, value);
}

static void put_text(struct ag_json_out *o, const char *name, struct ag_span text)
{
    put_key(o, name);
    ag_json_string(o, text);
}

static void put_bool(struct ag_json_out *o, const char *name, bool value)
{
    put_key(o, name);
    ag_json_put(o, value ? AG_SPAN("true") : AG_SPAN("false"));
}

static void put_state(struct ag_json_out *o, uint32_t flags)
{
    static const struct {
        uint32_t flag;
        struct ag_span name;
    } names[] = {{AG_MEMBER_DOWN, AG_SPAN_INIT("\"down\"")},
                 {AG_MEMBER_EJECTED, AG_SPAN_INIT("\"ejected\"")},
                 {AG_MEMBER_DRAINED, AG_SPAN_INIT("\"drained\"")}};
    bool any = false;

    put_key(o, "state");
    ag_json_put(o, AG_SPAN("["));
    for (size_t i = 0; i < AG_COUNT(names); i++) {
        if (flags & names[i].flag) {
            ag_json_put(o, any ? AG_SPAN(",") : AG_SPAN(""));
            ag_json_put(o, names[i].name);
            any = true;
        }
    }
    ag_json_put(o, any ? AG_SPAN("]") : AG_SPAN("\"up\"]"));
}

static uint64_t value_of(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

static void put_server(struct ag_json_out *o, const struct ag_upstream_member *m, uint64_t now_ms)
{
    static const char *const origins[] = {"configured", "ordered", "found"};
    static const char *const breakers[] = {"closed", "open", "half_open"};
    uint32_t flags = atomic_load_explicit(&m->flags, memory_order_relaxed);
    uint64_t up_ms = value_of(&m->up_ms);

    ag_json_put(o, AG_SPAN("{\"address\":"));
    ag_json_string(o, m->server.written);
    put_number(o, "weight", atomic_load_explicit(&m->weight, memory_order_relaxed));
    put_text(o, "zone", m->server.zone);
    put_bool(o, "backup", m->server.backup);
    put_text(o, "origin", ag_span_str(origins[m->origin]));
    put_state(o, flags);
    put_key(o, "up_s");
    if (flags == 0 && up_ms > 0) {
        ag_json_u64(o, now_ms > up_ms ? (now_ms - up_ms) / 1000 : 0);
    } else {
        ag_json_put(o, AG_SPAN("null"));
    }
    put_text(o, "breaker", ag_span_str(breakers[ag_breaker_state(&m->breaker)]));
    put_number(o, "errors", value_of(&m->counts.errors));
    put_number(o, "ejections", value_of(&m->counts.ejections));
    put_number(o, "held_back", value_of(&m->counts.held_back));
    put_number(o, "checks", value_of(&m->counts.checks));
    put_number(o, "checks_failed", value_of(&m->counts.checks_failed));
    put_number(o, "downs", value_of(&m->counts.downs));
    ag_json_put(o, AG_SPAN("}"));
}

static void put_removed(struct ag_json_out *o, const struct ag_upstream_group *g)
{
    put_key(o, "removed");
    ag_json_put(o, AG_SPAN("["));
    for (const struct ag_upstream_member *m = g->removed; m; m = m->next_removed) {
        ag_json_put(o, m == g->removed ? AG_SPAN("") : AG_SPAN(","));
        ag_json_string(o, m->server.written);
    }
    ag_json_put(o, AG_SPAN("]"));
}

/* Under the lock of the groups. */
static void put_upstream(struct ag_json_out *o, const struct ag_upstream_group *g, bool configured,
                         uint64_t now_ms)
{
    static const char *const protocols[AG_UPSTREAM_PROTOCOLS] = {"h1", "h2c", "h2", "auto"};
    bool any = false;

    ag_json_put(o, AG_SPAN("{\"name\":"));
    ag_json_string(o, g->name);
    put_text(o, "scheme",
             ag_span_str(ag_admin_upstream_scheme(g->protocol, g->tls, g->options.tls.h2)));
    put_text(o, "protocol", ag_span_str(protocols[g->protocol]));
    put_bool(o, "tls", g->tls);
    put_bool(o, "configured", configured);
    put_bool(o, "panics", atomic_load_explicit(&g->panics, memory_order_relaxed));
    put_number(o, "connections", atomic_load_explicit(&g->connections, memory_order_relaxed));
    put_number(o, "pending", atomic_load_explicit(&g->pending, memory_order_relaxed));
    put_removed(o, g);
    put_key(o, "servers");
    ag_json_put(o, AG_SPAN("["));
    for (uint32_t i = 0; i < g->count; i++) {
        if (g->members[i]) {
            ag_json_put(o, any ? AG_SPAN(",") : AG_SPAN(""));
            put_server(o, g->members[i], now_ms);
            any = true;
        }
    }
    ag_json_put(o, AG_SPAN("]}"));
}

/* ---- all of them ---- */

struct listing {
    const struct ag_proxy_section *section;
    struct query query;
    uint64_t now_ms;
    uint32_t count;
    struct ag_json_out out;
};

static void list(struct listing *l, const struct ag_upstream_group *g, bool configured)
{
    ag_json_put(&l->out, l->count++ ? AG_SPAN(",") : AG_SPAN(""));
    put_upstream(&l->out, g, configured, l->now_ms);
}

/* Those of the configuration; one that no request has come to yet is made for it, and goes again. */
static bool list_configured(struct listing *l, struct ag_upstreams *u)
{
    for (uint32_t i = 0; i < l->section->used_count; i++) {
        const struct ag_upstream *up = l->section->used[i];
        struct ag_upstream_group *g;

        if (!wants_upstream(&l->query, up) || !is_first(l->section, i)) {
            continue;
        }
        g = ag_upstream_group_hold(u->groups, up, u->order);
        if (!g) {
            return false;
        }
        ag_upstream_group_lock(g);
        list(l, g, true);
        ag_upstream_group_unlock(g);
        ag_upstream_group_release(g);
    }
    return true;
}

/* Others, on which something is still under way. */
static void list_other(void *arg, struct ag_upstream_group *g)
{
    struct listing *l = arg;

    if (!is_configured(l->section, g) &&
        is_asked_for(&l->query, g->name, g->protocol, g->tls, g->options.tls.h2)) {
        list(l, g, false);
    }
}

static void answer_list(struct ag_admin *a, struct ag_exchange *ex, bool has_name)
{
    struct ag_upstreams *u = upstreams_of(a);
    struct listing l = {.section = section_of(a), .now_ms = a->ctx.loop->now_ms};

    if (!read_query(ex, has_name, &l.query)) {
        return;
    }
    ag_json_init(&l.out, a->ctx.loop, AG_ADMIN_JSON_MAX);
    ag_json_put(&l.out, AG_SPAN("{\"upstreams\":["));
    if (!list_configured(&l, u)) {
        ag_json_release(&l.out);
        ag_exchange_fail(ex, 503, AG_REASON_RESOURCES, "no memory for the upstreams");
        return;
    }
    ag_upstream_groups_each(u->groups, list_other, &l);
    ag_json_put(&l.out, AG_SPAN("]}\n"));
    if (has_name && l.count == 0) {
        ag_json_release(&l.out);
        ag_admin_refuse(ex, 404, AG_SPAN("there is no such upstream"));
        return;
    }
    ag_admin_json(ex, 200, &l.out);
}

static void answer_all(struct ag_admin *a, struct ag_exchange *ex)
{
    answer_list(a, ex, false);
}

static void answer_one(struct ag_admin *a, struct ag_exchange *ex)
{
    answer_list(a, ex, true);
}

/* ---- a server ---- */

void ag_admin_upstream_answer(struct ag_admin *a, struct ag_exchange *ex, unsigned status,
                              const struct ag_admin_upstream *u,
                              const struct ag_upstream_server *place)
{
    struct ag_upstream_member *members[AG_UPSTREAM_SERVERS_MAX];
    uint32_t count = ag_upstream_group_at(u->group, place, members);
    struct ag_json_out o;

    if (count == 0) {
        ag_admin_refuse(ex, 404, AG_SPAN("there is no such server"));
        return;
    }
    ag_json_init(&o, a->ctx.loop, AG_ADMIN_JSON_MAX);
    ag_upstream_group_lock(u->group); /* a reload changes who put it there */
    put_server(&o, members[0], a->ctx.loop->now_ms);
    ag_upstream_group_unlock(u->group);
    ag_json_put(&o, AG_SPAN("\n"));
    for (uint32_t i = 0; i < count; i++) {
        ag_upstream_member_release(members[i]);
    }
    ag_admin_json(ex, status, &o);
}

static void answer_server(struct ag_admin *a, struct ag_exchange *ex)
{
    struct ag_admin_upstream u;
    struct ag_upstream_server place;
    struct ag_arena arena;

    if (!ag_admin_upstream_find(a, ex, &u)) {
        return;
    }
    ag_arena_init(&arena, NULL, 0);
    if (ag_admin_upstream_place(ex, &u, &arena, &place)) {
        ag_admin_upstream_answer(a, ex, 200, &u, &place);
    }
    ag_arena_release(&arena);
    ag_upstream_group_release(u.group);
}

const struct ag_admin_endpoint ag_admin_upstream_endpoints[] = {
    {"/upstreams", 1u << AG_METHOD_GET, answer_all},
    {"/upstreams/*", 1u << AG_METHOD_GET, answer_one},
    {"/upstreams/*/servers/*", 1u << AG_METHOD_GET, answer_server},
    {NULL, 0, NULL},
};
