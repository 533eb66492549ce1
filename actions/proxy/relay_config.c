#include "actions/proxy/relay_config.h"

#include "actions/upstream/upstream_config.h"
#include "proto/uri.h"

#define NAME_MAX_BYTES 255u

static bool read_timeouts(const struct ag_node *n, struct ag_diags *diags,
                          struct ag_relay_settings *s)
{
    static const char *const keys[] = {"connect", "idle", "hello"};
    bool ok = !n || ag_node_check_keys(n, diags, "timeouts", keys, AG_COUNT(keys));

    s->timeouts = (struct ag_upstream_timeouts){.connect_ms = 3000};
    s->idle_ms = 3600000;
    s->hello_ms = 10000;
    if (!n || !ok) {
        return ok;
    }
    ok = ag_upstream_read_ms(n, "connect", 1, diags, &s->timeouts.connect_ms) && ok;
    ok = ag_upstream_read_ms(n, "idle", 0, diags, &s->idle_ms) && ok;
    return ag_upstream_read_ms(n, "hello", 1, diags, &s->hello_ms) && ok;
}

/* None of its servers is a listener of `tcp`, as far as their addresses tell. */
static bool goes_on(struct ag_action_build *build, const struct ag_upstream *up, struct ag_pos pos)
{
    for (uint32_t i = 0; i < up->server_count; i++) {
        const struct ag_upstream_server *s = &up->servers[i];

        if (!s->named && ag_relay_leads_back(build->relay_listens, &s->addr, NULL)) {
            ag_diag_error(build->diags, pos, "name the server that they are for",
                          "%.*s is a tcp listener of this config: connections would come back",
                          (int)s->written.len, (const char *)s->written.ptr);
            return false;
        }
    }
    return true;
}

/* Each of them says its port: no port is the usual one of what is not HTTP. */
static bool has_ports(struct ag_action_build *build, struct ag_span text, struct ag_pos pos)
{
    const char *near = ag_proxy_nearest(build->shared[AG_ACTION_PROXY], build->diags, text);

    for (size_t at = 0; at < text.len;) {
        struct ag_span rest = ag_span_sub(text, at, text.len);
        struct ag_span one = ag_span_sub(rest, 0, ag_span_find(rest, ',')), host;
        uint16_t port;

        if (!ag_span_starts(one, AG_SPAN("unix:")) &&
            ag_authority_parse(one, &host, &port) == AG_OK && port == 0) {
            ag_diag_error(build->diags, ag_pos_at(pos, at),
                          near ? near : "a name of proxy.upstreams, or host:port",
                          "\"%.*s\" is no upstream, and has no port", (int)one.len,
                          (const char *)one.ptr);
            return false;
        }
        at += one.len + 1;
    }
    return true;
}

static const struct ag_upstream *read_target(struct ag_action_build *build, const struct ag_node *n)
{
    struct ag_pos pos = n->quoted ? ag_pos_at(n->pos, 1) : n->pos;
    const struct ag_upstream *up;
    struct ag_span text;

    if (!ag_node_text(n, build->diags, &text)) {
        return NULL;
    }
    if (text.len == 0 || memchr(text.ptr, '/', text.len)) {
        ag_diag_error(build->diags, pos, "a name of proxy.upstreams, or host:port",
                      "\"%.*s\" is no upstream", (int)text.len, (const char *)text.ptr);
        return NULL;
    }
    if (!ag_proxy_lists(build, text) && !has_ports(build, text, pos)) {
        return NULL;
    }
    up = ag_proxy_upstream_named(build, text, pos);
    return up && goes_on(build, up, pos) ? up : NULL;
}

/* "*.b.example" is kept as ".b.example". */
static bool read_name(struct ag_action_build *build, const struct ag_node *n,
                      struct ag_relay_name *out)
{
    struct ag_span name = n->key;
    uint8_t *lower = ag_arena_alloc(build->arena, name.len + 1);
    bool wild = ag_span_starts(name, AG_SPAN("*."));
    struct ag_span rest = wild ? ag_span_sub(name, 2, name.len) : name;

    AG_ASSERT(lower);
    if (rest.len == 0 || name.len > NAME_MAX_BYTES || rest.ptr[0] == '.' ||
        memchr(rest.ptr, '*', rest.len) || memchr(rest.ptr, ':', rest.len)) {
        ag_diag_error(build->diags, n->key_pos, "such as a.example.com or \"*.example.com\"",
                      "\"%.*s\" is not a server name", (int)name.len, (const char *)name.ptr);
        return false;
    }
    for (size_t i = wild ? 1 : 0; i < name.len; i++) {
        lower[i] = ag_ascii_lower(name.ptr[i]);
    }
    out->name = ag_span(lower + (wild ? 1 : 0), name.len - (wild ? 1 : 0));
    out->to = read_target(build, n);
    return out->to != NULL;
}

static bool read_names(struct ag_action_build *build, const struct ag_node *map,
                       struct ag_relay_settings *s)
{
    struct ag_relay_name *names;
    uint32_t count = 0;
    bool ok = true;

    if (map->kind != AG_NODE_MAP || !map->first) {
        ag_diag_error(build->diags, map->pos, "sni: {a.example.com: app}",
                      "sni must be a mapping of names to upstreams");
        return false;
    }
    for (const struct ag_node *n = map->first; n; n = n->next) {
        count++;
    }
    names = ag_arena_zalloc(build->arena, count * sizeof(*names));
    AG_ASSERT(names);
    s->names = names;
    for (const struct ag_node *n = map->first; n; n = n->next) {
        ok = read_name(build, n, &names[s->name_count++]) && ok;
    }
    return ok;
}

static bool read_entry(struct ag_action_build *build, const struct ag_node *n,
                       struct ag_relay_settings *s)
{
    static const char *const keys[] = {"listen", "to", "sni", "default", "timeouts"};
    const struct ag_node *to = ag_node_get(n, "to"), *sni = ag_node_get(n, "sni");
    const struct ag_node *other = ag_node_get(n, "default");
    bool ok = ag_node_check_keys(n, build->diags, "tcp", keys, AG_COUNT(keys));

    if (!ok) {
        return false;
    }
    s->listens = build->relay_listens;
    ok = read_timeouts(ag_node_get(n, "timeouts"), build->diags, s);
    if (!to == !sni) {
        ag_diag_error(build->diags, n->pos, "to: db, or sni: {a.example.com: app}",
                      to ? "to and sni exclude each other" : "connections go nowhere");
        return false;
    }
    if (to && other) {
        ag_diag_error(build->diags, other->key_pos, NULL, "default is for names that sni has not");
        return false;
    }
    if (sni) {
        ok = read_names(build, sni, s) && ok;
    }
    if (to || other) {
        s->fallback = read_target(build, to ? to : other);
        ok = s->fallback && ok;
    }
    return ok;
}

bool ag_relay_configure(struct ag_action_build *build, struct ag_proxy_section *section,
                        const struct ag_node *list)
{
    struct ag_relay_settings *relays;
    uint32_t count = 0;
    bool ok = true;

    if (!list || list->kind != AG_NODE_SEQ) { /* the model tells */
        return true;
    }
    for (const struct ag_node *n = list->first; n; n = n->next) {
        count++;
    }
    relays = ag_arena_zalloc(build->arena, (count + 1) * sizeof(*relays));
    AG_ASSERT(relays);
    section->relays = relays;
    for (const struct ag_node *n = list->first; n; n = n->next) {
        ok = (n->kind != AG_NODE_MAP || read_entry(build, n, &relays[section->relay_count])) && ok;
        section->relay_count++;
    }
    return ok;
}

static void put_target(const struct ag_upstream *up, struct ag_buf *out)
{
    ag_buf_put(out, up->name);
    ag_buf_putc(out, '\n');
}

void ag_relay_describe(const struct ag_proxy_section *section, struct ag_buf *out)
{
    for (uint32_t i = 0; i < section->relay_count; i++) {
        const struct ag_relay_settings *s = &section->relays[i];

        ag_buf_printf(out, "tcp %u\n", i + 1);
        for (uint32_t k = 0; k < s->name_count; k++) {
            ag_buf_put(out, s->names[k].name.ptr[0] == '.' ? AG_SPAN("  *") : AG_SPAN("  "));
            ag_buf_put(out, s->names[k].name);
            ag_buf_put(out, AG_SPAN(" to "));
            put_target(s->names[k].to, out);
        }
        if (s->fallback) {
            ag_buf_put(out, s->name_count ? AG_SPAN("  others to ") : AG_SPAN("  to "));
            put_target(s->fallback, out);
        } else {
            ag_buf_put(out, AG_SPAN("  others are refused\n"));
        }
    }
}

const struct ag_relay_settings *ag_relay_settings_of(const void *section, uint32_t index)
{
    const struct ag_proxy_section *s = section;

    return index < s->relay_count ? &s->relays[index] : NULL;
}
