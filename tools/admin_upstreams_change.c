/*
 * Endpoints that add, weigh, drain and remove servers. What is changed is the group that all shards look at
 * (upstream_group.h); the process holds it from then on, so that a reload does not undo it.
 */
#include "actions/upstream/upstream_config.h"
#include "engine/log.h"
#include "tools/admin_upstreams.h"

#include <stdio.h>

#define ZONE_MAX 255u

/* Who did what to which server. */
static void tell(struct ag_exchange *ex, const struct ag_admin_upstream *u,
                 const struct ag_upstream_server *server, const char *what)
{
    const union ag_addr *peer = ag_exchange_remote(ex), unknown = {0};
    char text[160];
    struct ag_buf b = ag_buf(text, sizeof(text) - 1);

    ag_addr_format(peer ? peer : &unknown, true, &b);
    text[b.len] = '\0';
    ag_log(AG_LOG_INFO, "admin: %s: upstream %.*s (%s): server %.*s: %s", text,
           (int)u->up->name.len, (const char *)u->up->name.ptr,
           ag_admin_upstream_scheme(u->up->protocol, u->up->tls != NULL, u->up->options.tls.h2),
           (int)server->written.len, (const char *)server->written.ptr, what);
}

/* A member of the content; null is what clients send that say nothing of it. */
static const struct ag_node *said(const struct ag_node *root, const char *key)
{
    const struct ag_node *n = ag_node_get(root, key);

    return n && n->kind != AG_NODE_NULL ? n : NULL;
}

/* ---- add ---- */

static void read_zone(const struct ag_node *n, struct ag_diags *diags,
                      struct ag_upstream_server *io)
{
    struct ag_span zone;
    bool good;

    if (!n || !ag_node_text(n, diags, &zone)) {
        return;
    }
    good = zone.len > 0 && zone.len <= ZONE_MAX;
    for (size_t i = 0; i < zone.len; i++) {
        good = good && zone.ptr[i] > ' ' && zone.ptr[i] != 0x7f;
    }
    if (!good) {
        ag_diag_error(diags, n->pos, "a word of at most 255 bytes", "not a zone");
    }
    io->zone = zone;
}

static void read_address(const struct ag_node *root, const struct ag_upstream *up,
                         struct ag_diags *diags, struct ag_upstream_server *io)
{
    const struct ag_node *n = said(root, "address");
    struct ag_span text;

    if (!n) {
        ag_diag_error(diags, root->pos, "{\"address\": \"10.0.0.3:8080\"}",
                      "a server needs an address");
        return;
    }
    if (n->kind == AG_NODE_SCALAR && !n->quoted) {
        ag_diag_error(diags, n->pos, "write it in quotes", "address: expected text");
        return;
    }
    if (!ag_node_text(n, diags, &text) ||
        !ag_upstream_set_address(io, n->pos, text,
                                 up->tls ? AG_UPSTREAM_TLS_PORT : AG_UPSTREAM_PLAIN_PORT, diags)) {
        return;
    }
    if (io->port == 0 && up->tls && up->options.tls.verify &&
        up->options.tls.server_name.len == 0) {
        ag_diag_error(diags, n->pos, "tls: {server_name: NAME} in the configuration",
                      "the certificate cannot be verified without a name for it");
    }
}

/* False: it was answered. */
static bool read_server(struct ag_exchange *ex, const struct ag_admin_upstream *u,
                        const struct ag_node *root, struct ag_diags *diags,
                        struct ag_upstream_server *out)
{
    static const char *const keys[] = {"address", "weight", "zone", "backup"};
    uint64_t weight = 1;

    *out = (struct ag_upstream_server){.weight = 1};
    (void)ag_node_check_keys(root, diags, "server", keys, AG_COUNT(keys));
    read_address(root, u->up, diags, out);
    (void)ag_node_u64(said(root, "weight"), diags, 1, AG_UPSTREAM_WEIGHT_MAX, &weight);
    read_zone(said(root, "zone"), diags, out);
    (void)ag_node_bool(said(root, "backup"), diags, &out->backup);
    out->weight = (uint32_t)weight;
    out->remote = u->zone.len > 0 && out->zone.len > 0 && !ag_span_eq(u->zone, out->zone);
    if (diags->errors > 0) {
        ag_admin_refuse_content(ex, diags);
    }
    return diags->errors == 0;
}

static void tell_added(struct ag_exchange *ex, const struct ag_admin_upstream *u,
                       const struct ag_upstream_server *s)
{
    char text[ZONE_MAX + 64];

    (void)snprintf(text, sizeof(text), "added, weight %u%s%.*s%s", s->weight,
                   s->zone.len > 0 ? ", zone " : "", (int)s->zone.len, (const char *)s->zone.ptr,
                   s->backup ? ", backup" : "");
    tell(ex, u, s, text);
}

/* Where it is from now on; without memory the answer goes without it. */
static void put_location(struct ag_exchange *ex, struct ag_span address)
{
    static const char plain[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~:";
    size_t room = ex->req.path.len + 1 + 3 * address.len + 1 + ex->req.query.len;
    uint8_t *to = ag_arena_alloc(&ex->arena, room);
    struct ag_buf b = ag_buf(to, room);

    if (!to) {
        return;
    }
    ag_buf_put(&b, ex->req.path);
    ag_buf_putc(&b, '/');
    for (size_t i = 0; i < address.len; i++) {
        uint8_t ch = address.ptr[i];

        if (ch != '\0' && strchr(plain, ch)) {
            ag_buf_putc(&b, ch);
        } else {
            ag_buf_printf(&b, "%%%02X", ch);
        }
    }
    if (ex->req.query.len > 0) {
        ag_buf_putc(&b, '?');
        ag_buf_put(&b, ex->req.query);
    }
    (void)!ag_exchange_field(ex, AG_FIELD_LOCATION, ag_buf_span(&b));
}

static void add(struct ag_admin *a, struct ag_exchange *ex, const struct ag_node *root,
                struct ag_diags *diags)
{
    struct ag_admin_upstream u;
    struct ag_upstream_server s;
    enum ag_status st;

    if (!ag_admin_upstream_find(a, ex, &u)) {
        return;
    }
    if (!read_server(ex, &u, root, diags, &s)) {
        ag_upstream_group_release(u.group);
        return;
    }
    st = ag_upstream_group_add(u.group, &s, AG_MEMBER_ORDERED);
    if (st == AG_OK) {
        ag_upstream_group_keep(u.group);
        tell_added(ex, &u, &s);
        put_location(ex, s.written);
        ag_admin_upstream_answer(a, ex, 201, &u, &s);
    } else if (st == AG_EINVAL) {
        ag_admin_refuse(ex, 409, AG_SPAN("that server is there already"));
    } else {
        ag_admin_refuse(ex, 503, AG_SPAN("the upstream has no room for another server"));
    }
    ag_upstream_group_release(u.group);
}

/* ---- change ---- */

struct change {
    bool weighs, drains; /* said at all */
    bool drain;
    uint64_t weight;
};

/* False: it was answered. */
static bool read_change(struct ag_exchange *ex, const struct ag_node *root, struct ag_diags *diags,
                        struct change *out)
{
    static const char *const keys[] = {"weight", "drain"};

    *out = (struct change){0};
    (void)ag_node_check_keys(root, diags, "change", keys, AG_COUNT(keys));
    out->weighs = ag_node_u64(said(root, "weight"), diags, 1, AG_UPSTREAM_WEIGHT_MAX, &out->weight);
    out->drains = ag_node_bool(said(root, "drain"), diags, &out->drain);
    if (diags->errors == 0 && !out->weighs && !out->drains) {
        ag_diag_error(diags, root->pos, "{\"weight\": 5}, {\"drain\": true}",
                      "nothing is to be changed");
    }
    if (diags->errors > 0) {
        ag_admin_refuse_content(ex, diags);
    }
    return diags->errors == 0;
}

static void apply(struct ag_admin *a, struct ag_exchange *ex, const struct ag_admin_upstream *u,
                  struct ag_upstream_member *m, const struct change *c)
{
    char text[32];

    if (c->weighs) {
        ag_upstream_member_weigh(m, (uint32_t)c->weight);
        (void)snprintf(text, sizeof(text), "weight %u", (unsigned)c->weight);
        tell(ex, u, &m->server, text);
    }
    if (c->drains &&
        ag_upstream_member_mark(m, c->drain ? AG_MEMBER_DRAINED : 0,
                                c->drain ? 0 : AG_MEMBER_DRAINED, a->ctx.loop->now_ms)) {
        tell(ex, u, &m->server, c->drain ? "drained" : "drained no more");
    }
}

static void change(struct ag_admin *a, struct ag_exchange *ex, const struct ag_node *root,
                   struct ag_diags *diags)
{
    struct ag_upstream_member *members[AG_UPSTREAM_SERVERS_MAX];
    struct ag_admin_upstream u;
    struct ag_upstream_server place;
    struct change c;
    uint32_t count;

    if (!ag_admin_upstream_find(a, ex, &u)) {
        return;
    }
    if (ag_admin_upstream_place(ex, &u, diags->arena, &place) && read_change(ex, root, diags, &c)) {
        count = ag_upstream_group_at(u.group, &place, members);
        if (count > 0) {
            ag_upstream_group_keep(u.group);
        }
        for (uint32_t i = 0; i < count; i++) {
            apply(a, ex, &u, members[i], &c);
            ag_upstream_member_release(members[i]);
        }
        ag_admin_upstream_answer(a, ex, 200, &u, &place);
    }
    ag_upstream_group_release(u.group);
}

/* ---- remove ---- */

static void remove_server(struct ag_admin *a, struct ag_exchange *ex)
{
    struct ag_admin_upstream u;
    struct ag_upstream_server place;
    struct ag_arena arena;

    if (!ag_admin_upstream_find(a, ex, &u)) {
        return;
    }
    ag_arena_init(&arena, NULL, 0);
    if (ag_admin_upstream_place(ex, &u, &arena, &place)) {
        if (ag_upstream_group_remove(u.group, &place) == AG_OK) {
            ag_upstream_group_keep(u.group);
            tell(ex, &u, &place, "removed");
            ag_admin_nothing(ex);
        } else {
            ag_admin_refuse(ex, 404, AG_SPAN("there is no such server"));
        }
    }
    ag_arena_release(&arena);
    ag_upstream_group_release(u.group);
}

/* ---- with content ---- */

static void answer_add(struct ag_admin *a, struct ag_exchange *ex)
{
    (void)a;
    ag_admin_read(ex, add);
}

static void answer_change(struct ag_admin *a, struct ag_exchange *ex)
{
    (void)a;
    ag_admin_read(ex, change);
}

const struct ag_admin_endpoint ag_admin_upstream_change_endpoints[] = {
    {"/upstreams/*/servers", 1u << AG_METHOD_POST, answer_add},
    {"/upstreams/*/servers/*", 1u << AG_METHOD_PATCH, answer_change},
    {"/upstreams/*/servers/*", 1u << AG_METHOD_DELETE, remove_server},
    {NULL, 0, NULL},
};
