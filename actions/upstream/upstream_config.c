#include "actions/upstream/upstream_config.h"

#include "engine/resolver.h"
#include "proto/http.h"
#include "proto/uri.h"

#include <xxhash.h>

#define DURATION_MAX_MS (UINT64_C(24) * 3600 * 1000 * 30)
#define COUNT_MAX       1000000u

struct ag_upstream_options ag_upstream_default_options(void)
{
    struct ag_upstream_options o = {
        .timeouts = {.connect_ms = 3000,
                     .first_byte_ms = 60000,
                     .read_ms = 60000,
                     .write_ms = 60000,
                     .idle_ms = 60000},
        .max_idle = 1024,
        .idle_timeout_ms = 60000,
        .max_age_ms = 3600000,
        .max_pending = 1024,
        .retry = ag_retry_default_policy(),
        .buffer = ag_buffer_default_policy(),
        .tls = {.verify = true, .h2 = true, .handshake_ms = 10000},
    };

    ag_health_defaults(&o.health);
    return o;
}

/* ---- options ---- */

bool ag_upstream_read_ms(const struct ag_node *map, const char *key, uint64_t min_ms,
                         struct ag_diags *diags, uint32_t *io)
{
    const struct ag_node *n = ag_node_get(map, key);
    uint64_t ms = *io;

    if (!n) {
        return true;
    }
    if (!ag_node_duration(n, diags, &ms)) {
        return false;
    }
    if (ms < min_ms || ms > DURATION_MAX_MS) {
        ag_diag_error(diags, n->pos,
                      ag_arena_printf(diags->arena, "use %llums to 30 days",
                                      (unsigned long long)(min_ms ? min_ms : 1)),
                      "%s is out of range", key);
        return false;
    }
    *io = (uint32_t)ms;
    return true;
}

bool ag_upstream_read_timeouts(const struct ag_node *node, struct ag_diags *diags,
                               struct ag_upstream_timeouts *io)
{
    static const char *const keys[] = {"connect", "first_byte", "read", "write", "idle", "total"};
    bool ok = true;

    if (!node) {
        return true;
    }
    if (!ag_node_check_keys(node, diags, "timeouts", keys, AG_COUNT(keys))) {
        return false;
    }
    ok = ag_upstream_read_ms(node, "connect", 1, diags, &io->connect_ms) && ok;
    ok = ag_upstream_read_ms(node, "first_byte", 0, diags, &io->first_byte_ms) && ok;
    ok = ag_upstream_read_ms(node, "read", 0, diags, &io->read_ms) && ok;
    ok = ag_upstream_read_ms(node, "write", 0, diags, &io->write_ms) && ok;
    ok = ag_upstream_read_ms(node, "idle", 0, diags, &io->idle_ms) && ok;
    return ag_upstream_read_ms(node, "total", 0, diags, &io->total_ms) && ok;
}

bool ag_upstream_read_host(const struct ag_node *node, struct ag_diags *diags,
                           struct ag_upstream_options *io)
{
    struct ag_span text, host;
    uint16_t port;

    if (!node) {
        return true;
    }
    if (!ag_node_text(node, diags, &text)) {
        return false;
    }
    if (!node->quoted && ag_span_eq(text, AG_SPAN("keep"))) {
        io->host_mode = AG_UPSTREAM_HOST_KEEP;
    } else if (!node->quoted && ag_span_eq(text, AG_SPAN("upstream"))) {
        io->host_mode = AG_UPSTREAM_HOST_SERVER;
    } else if (ag_authority_parse(text, &host, &port) == AG_OK) {
        io->host_mode = AG_UPSTREAM_HOST_LITERAL;
        io->host = text;
    } else {
        ag_diag_error(diags, node->pos, "use keep, upstream, or a host with an optional port",
                      "\"%.*s\" is not a host", (int)text.len, (const char *)text.ptr);
        return false;
    }
    return true;
}

static bool read_keepalive(const struct ag_node *node, struct ag_diags *diags,
                           struct ag_upstream_options *io)
{
    static const char *const keys[] = {"max_idle", "min_idle", "idle_timeout", "max_age",
                                       "max_requests"};
    bool ok = true;

    if (!node) {
        return true;
    }
    if (!ag_node_check_keys(node, diags, "keepalive", keys, AG_COUNT(keys))) {
        return false;
    }
    ok = ag_node_number(node, "max_idle", 0, COUNT_MAX, diags, &io->max_idle) && ok;
    ok = ag_node_number(node, "min_idle", 0, COUNT_MAX, diags, &io->min_idle) && ok;
    if (ok && io->min_idle > io->max_idle) {
        ag_diag_error(diags, node->pos, "raise max_idle, or lower min_idle",
                      "min_idle is more than max_idle (%u)", io->max_idle);
        ok = false;
    }
    ok = ag_upstream_read_ms(node, "idle_timeout", 1, diags, &io->idle_timeout_ms) && ok;
    ok = ag_upstream_read_ms(node, "max_age", 0, diags, &io->max_age_ms) && ok;
    return ag_node_number(node, "max_requests", 0, COUNT_MAX, diags, &io->max_requests) && ok;
}

static bool read_proxy_protocol(const struct ag_node *node, struct ag_diags *diags,
                                struct ag_upstream_options *io)
{
    static const char *const versions[] = {"off", "v1", "v2"};
    unsigned version = io->proxy_protocol;

    _Static_assert(AG_PROXY_PROTOCOL_V1 == 1 && AG_PROXY_PROTOCOL_V2 == 2, "in the enum's order");
    if (node && node->kind == AG_NODE_SCALAR && !node->quoted &&
        ag_span_eq(node->text, AG_SPAN("false"))) {
        version = AG_PROXY_PROTOCOL_NONE;
    } else if (node && !ag_node_enum(node, diags, versions, AG_COUNT(versions), &version)) {
        return false;
    }
    io->proxy_protocol = (uint8_t)version;
    return true;
}

bool ag_upstream_read_options(const struct ag_node *node, struct ag_diags *diags,
                              struct ag_upstream_options *io)
{
    bool ok = ag_upstream_read_timeouts(ag_node_get(node, "timeouts"), diags, &io->timeouts);

    ok = ag_upstream_read_host(ag_node_get(node, "host"), diags, io) && ok;
    ok = read_keepalive(ag_node_get(node, "keepalive"), diags, io) && ok;
    ok = ag_node_number(node, "max_connections", 0, COUNT_MAX, diags, &io->max_connections) && ok;
    ok = ag_upstream_read_tls(ag_node_get(node, "tls"), diags, &io->tls) && ok;
    ok = ag_upstream_read_ms(node, "pending_timeout", 1, diags, &io->pending_ms) && ok;
    ok = ag_health_read(node, diags, &io->health) && ok;
    ok = ag_retry_read(node, diags, &io->retry) && ok;
    ok = read_proxy_protocol(ag_node_get(node, "proxy_protocol"), diags, io) && ok;
    ok = ag_addresses_read(ag_node_get(node, "addresses"), diags, &io->addresses) && ok;
    return ag_node_number(node, "max_pending", 0, COUNT_MAX, diags, &io->max_pending) && ok;
}

/* ---- upstreams ---- */

static void hash(uint64_t key[2], const void *bytes, size_t len)
{
    /* The length goes in too, so that neighbouring texts cannot trade bytes. */
    key[0] = XXH3_64bits_withSeed(bytes, len, key[0] ^ len);
    key[1] = XXH3_64bits_withSeed(bytes, len, ~key[1] + len);
}

static void set_key(struct ag_upstream *u)
{
    const uint32_t numbers[] = {u->protocol, u->options.proxy_protocol};

    hash(u->key, u->name.ptr, u->name.len);
    hash(u->key, numbers, sizeof(numbers));
    if (u->tls) {
        hash(u->key, u->tls->key, sizeof(u->tls->key));
    }
}

/* Without servers yet. */
static struct ag_upstream *make(struct ag_arena *arena, struct ag_span name,
                                const struct ag_upstream_options *options)
{
    struct ag_upstream *u = ag_arena_zalloc(arena, sizeof(*u));

    AG_ASSERT(u);
    u->name = name;
    u->options = *options;
    set_key(u);
    return u;
}

static bool check_upstream_keys(const struct ag_node *node, struct ag_diags *diags)
{
    static const char *const keys[] = {
        "servers",         "balance",        "host",      "keepalive",
        "max_connections", "max_pending",    "timeouts",  "tls",
        "pending_timeout", "sticky",         "health",    "breaker",
        "ejection",        "slow_start",     "panic",     "retry",
        "hedge",           "proxy_protocol", "addresses", "buffer",
        "protocol"};
    const size_t supported = AG_COUNT(keys) - 1;
    bool ok = ag_node_check_keys(node, diags, "upstream", keys, AG_COUNT(keys));

    for (size_t i = supported; ok && i < AG_COUNT(keys); i++) {
        const struct ag_node *n = ag_node_get(node, keys[i]);
        if (n) {
            ag_diag_error(diags, n->key_pos, NULL, "upstream.%s is not supported yet", keys[i]);
            ok = false;
        }
    }
    return ok;
}

void ag_upstream_check_hedge(const struct ag_node *hedge, const struct ag_upstream *up,
                             const struct ag_retry_policy *policy, struct ag_diags *diags)
{
    if (hedge && policy->hedges > 0 && up->server_count == 1) {
        ag_diag_warn(diags, hedge->key_pos, "a hedge asks another server of the upstream",
                     "hedge has no effect: %.*s has one server", (int)up->name.len,
                     (const char *)up->name.ptr);
    }
}

struct ag_upstream *ag_upstream_read(struct ag_action_build *build, const struct ag_node *node,
                                     const struct ag_upstream_options *defaults)
{
    struct ag_upstream_options options = *defaults;
    struct ag_diags *diags = build->diags;
    struct ag_upstream *up;
    bool ok = check_upstream_keys(node, diags);
    const struct ag_node *list = ag_node_get(node, "servers");

    if (!ok && node->kind != AG_NODE_MAP) {
        return NULL;
    }
    ok = ag_upstream_read_options(node, diags, &options) && ok;
    ok = ag_buffer_read(node, diags, &options.buffer, NULL) && ok;
    ok = ag_balance_read(ag_node_get(node, "balance"), ag_node_get(node, "sticky"), diags,
                         &options.balance) &&
         ok;
    if (!list || (list->kind == AG_NODE_SEQ && !list->first)) {
        ag_diag_error(diags, list ? list->pos : node->key_pos, "servers: [\"10.0.0.1:8080\"]",
                      "an upstream needs a list of servers");
        return NULL;
    }
    up = make(build->arena, node->key, &options);
    ok = ag_upstream_read_servers(build, list, up) && ok;
    if (ok) {
        ag_upstream_check_hedge(ag_node_get(node, "hedge"), up, &options.retry, diags);
    }
    return ok ? up : NULL;
}

struct ag_upstream *ag_upstream_from_authority(struct ag_arena *arena, struct ag_span authority,
                                               struct ag_pos pos, struct ag_diags *diags,
                                               const struct ag_upstream_options *defaults)
{
    struct ag_upstream *up = make(arena, authority, defaults);
    struct ag_upstream_server *servers;
    uint32_t count = 1;
    size_t at = 0;

    for (size_t i = 0; i < authority.len; i++) {
        count += authority.ptr[i] == ',';
    }
    servers = ag_upstream_server_room(arena, pos, diags, count);
    for (uint32_t i = 0; servers && i < count; i++) {
        struct ag_span rest = ag_span_sub(authority, at, authority.len);
        struct ag_span text = ag_span_sub(rest, 0, ag_span_find(rest, ','));
        struct ag_pos here = ag_pos_at(pos, at);

        at += text.len + 1;
        /* unix:/run/x.sock: ends in the colon that parts it from a path */
        if (ag_span_starts(text, AG_SPAN("unix:")) && text.ptr[text.len - 1] == ':') {
            text.len--;
        }
        if (!ag_upstream_read_server(here, text, diags, &servers[i])) {
            return NULL;
        }
    }
    up->servers = servers;
    up->server_count = count;
    return servers ? up : NULL;
}

/* ---- schemes ---- */

bool ag_upstream_scheme_of(struct ag_span name, struct ag_upstream_scheme *out)
{
    static const struct {
        struct ag_span name;
        struct ag_upstream_scheme scheme;
    } known[] = {
        {AG_SPAN_INIT("http"), {AG_UPSTREAM_H1, false}},
        {AG_SPAN_INIT("ws"),
         {AG_UPSTREAM_H1, false}}, /* HTTP with an Upgrade, which http:// passes on as well */
        {AG_SPAN_INIT("https"), {AG_UPSTREAM_AUTO, true}},
        {AG_SPAN_INIT("wss"), {AG_UPSTREAM_H1, true}},
        {AG_SPAN_INIT("h2c"), {AG_UPSTREAM_H2C, false}},
        {AG_SPAN_INIT("h2"), {AG_UPSTREAM_H2, true}},
    };

    for (size_t i = 0; i < AG_COUNT(known); i++) {
        if (ag_span_eq(name, known[i].name)) {
            *out = known[i].scheme;
            return true;
        }
    }
    return false;
}

/* A path of this machine is no name that a certificate could have. */
static bool check_names(struct ag_action_build *build, const struct ag_upstream *base,
                        struct ag_pos pos)
{
    const struct ag_upstream_tls_options *o = &base->options.tls;

    for (uint32_t i = 0; i < base->server_count; i++) {
        if (base->servers[i].port == 0 && o->verify && o->server_name.len == 0) {
            ag_diag_error(build->diags, pos, "tls: {server_name: NAME}",
                          "the certificate of %.*s cannot be verified without a name for it",
                          (int)base->servers[i].host.len, (const char *)base->servers[i].host.ptr);
            return false;
        }
    }
    return true;
}

struct ag_upstream *ag_upstream_with_scheme(struct ag_action_build *build,
                                            const struct ag_upstream *base,
                                            struct ag_upstream_scheme scheme, struct ag_pos pos)
{
    struct ag_upstream *u = ag_arena_alloc(build->arena, sizeof(*u));
    struct ag_upstream_server *servers =
        ag_arena_alloc(build->arena, (base->server_count + 1) * sizeof(*servers));

    AG_ASSERT(u && servers && !base->tls);
    *u = *base;
    u->protocol = scheme.protocol == AG_UPSTREAM_AUTO && !base->options.tls.h2 ? AG_UPSTREAM_H1
                                                                               : scheme.protocol;
    u->key[0] = u->key[1] = 0;
    for (uint32_t i = 0; i < base->server_count; i++) {
        servers[i] = base->servers[i];
        if (scheme.tls && !ag_upstream_set_address(&servers[i], pos, servers[i].written,
                                                   AG_UPSTREAM_TLS_PORT, build->diags)) {
            AG_UNREACHABLE("it was an address before");
        }
    }
    u->servers = servers;
    if (scheme.tls && base->source.kind == AG_SOURCE_NAME &&
        !ag_upstream_set_address(&u->source.like, pos, u->source.like.written, AG_UPSTREAM_TLS_PORT,
                                 build->diags)) {
        AG_UNREACHABLE("it was a name before");
    }
    if (scheme.tls && check_names(build, base, pos)) {
        u->tls = ag_upstream_tls_settings(build, &base->options.tls, u->protocol, pos);
    }
    set_key(u);
    return scheme.tls && !u->tls ? NULL : u;
}
