/* The servers of an upstream as the config, a target or a file lists them. */
#include "actions/upstream/upstream_config.h"
#include "engine/foreign.h"
#include "engine/resolver.h"
#include "proto/uri.h"

static bool set_unix(struct ag_upstream_server *s, struct ag_pos pos, struct ag_span text,
                     struct ag_diags *diags)
{
    if (ag_addr_parse(text, 0, &s->addr) != AG_OK) {
        ag_diag_error(diags, pos, "use unix:/absolute/path, at most 107 bytes",
                      "\"%.*s\" is not a unix socket", (int)text.len, (const char *)text.ptr);
        return false;
    }
    s->host = text;
    s->authority = AG_SPAN("localhost");
    return true;
}

bool ag_upstream_set_address(struct ag_upstream_server *s, struct ag_pos pos, struct ag_span text,
                             uint16_t default_port, struct ag_diags *diags)
{
    struct ag_span host;
    uint16_t port = 0;

    s->written = text;
    if (ag_span_starts(text, AG_SPAN("unix:"))) {
        return set_unix(s, pos, text, diags);
    }
    if (ag_authority_parse(text, &host, &port) != AG_OK || host.len > AG_UPSTREAM_HOST_MAX) {
        bool scheme = ag_span_find(text, '/') < text.len;

        ag_diag_error(diags, pos,
                      scheme ? "leave the scheme out: a route's target says it, http://NAME"
                             : "use host, host:port, [ipv6]:port or unix:/path",
                      "\"%.*s\" is not a server", (int)text.len, (const char *)text.ptr);
        return false;
    }
    s->port = port ? port : default_port;
    s->authority = port == default_port ? host : text;
    s->host = host.ptr[0] == '[' ? ag_span_sub(host, 1, host.len - 1) : host;
    s->named = ag_addr_parse(s->host, s->port, &s->addr) != AG_OK;
    return true;
}

static bool read_number(struct ag_pos pos, struct ag_span text, uint32_t most, const char *what,
                        struct ag_diags *diags, uint32_t *out)
{
    uint64_t value;

    if (ag_span_u64(text, &value) != AG_OK || value < 1 || value > most) {
        ag_diag_error(diags, pos, ag_arena_printf(diags->arena, "use 1 to %u", most), "not a %s",
                      what);
        return false;
    }
    *out = (uint32_t)value;
    return true;
}

static const char *const option_keys[] = {"weight", "max", "zone", "backup"};

/* Whether it is the first of its name behind that address. */
static bool is_new_option(struct ag_pos pos, struct ag_span text, struct ag_diags *diags,
                          unsigned *io_seen)
{
    struct ag_span key = ag_span_sub(text, 0, ag_span_find(text, '='));

    for (unsigned i = 0; i < AG_COUNT(option_keys); i++) {
        if (ag_span_eq(key, ag_span_str(option_keys[i])) && *io_seen & 1u << i) {
            ag_diag_error(diags, pos, "leave one of them out", "%s is said twice of a server",
                          option_keys[i]);
            return false;
        }
        *io_seen |= ag_span_eq(key, ag_span_str(option_keys[i])) ? 1u << i : 0;
    }
    return true;
}

/* "weight=2" behind an address. */
static bool set_server_option(struct ag_upstream_server *s, struct ag_pos pos, struct ag_span text,
                              struct ag_diags *diags)
{
    size_t eq = ag_span_find(text, '=');
    struct ag_span key = ag_span_sub(text, 0, eq);
    struct ag_span value = ag_span_sub(text, ag_min_size(eq + 1, text.len), text.len);
    struct ag_pos there = ag_pos_at(pos, eq + 1);
    const char *near;

    if (ag_span_eq(text, AG_SPAN("backup"))) {
        s->backup = true;
        return true;
    }
    if (ag_span_eq(key, AG_SPAN("zone")) && eq + 1 < text.len) {
        s->zone = value;
        return true;
    }
    if (ag_span_eq(key, AG_SPAN("weight")) && eq < text.len) {
        return read_number(there, value, AG_UPSTREAM_WEIGHT_MAX, "weight", diags, &s->weight);
    }
    if (ag_span_eq(key, AG_SPAN("max")) && eq < text.len) {
        return read_number(there, value, AG_UPSTREAM_CONNECTIONS_MAX, "number of connections",
                           diags, &s->max_connections);
    }
    near = ag_foreign_hint(key);
    near = near || eq == text.len ? near
                                  : ag_diag_nearest(diags, key, option_keys, AG_COUNT(option_keys));
    ag_diag_error(diags, pos,
                  near ? near : "a server may be followed by weight=N, max=N, zone=NAME and backup",
                  "unknown option \"%.*s\"", (int)text.len, (const char *)text.ptr);
    return false;
}

/* "10.0.0.1:8080 weight=2" */
bool ag_upstream_read_server(struct ag_pos pos, struct ag_span text, struct ag_diags *diags,
                             struct ag_upstream_server *out)
{
    unsigned seen = 0; /* of option_keys */
    bool first = true;

    *out = (struct ag_upstream_server){.weight = 1};
    for (size_t at = 0; at < text.len;) {
        struct ag_span rest = ag_span_sub(text, at, text.len);
        struct ag_span word = ag_span_sub(rest, 0, ag_span_find(rest, ' '));

        if (word.len > 0) {
            struct ag_pos here = ag_pos_at(pos, at);
            if (first ? !ag_upstream_set_address(out, here, word, AG_UPSTREAM_PLAIN_PORT, diags)
                      : !is_new_option(here, word, diags, &seen) ||
                            !set_server_option(out, here, word, diags)) {
                return false;
            }
            first = false;
        }
        at += word.len + 1;
    }
    if (first) {
        ag_diag_error(diags, pos, "use host:port", "a server without an address");
    }
    return !first;
}

/* ---- several ---- */

/* Room for `count` servers; NULL after a diagnosis. */
struct ag_upstream_server *ag_upstream_server_room(struct ag_arena *arena, struct ag_pos pos,
                                                   struct ag_diags *diags, uint32_t count)
{
    if (count > AG_UPSTREAM_SERVERS_MAX) {
        ag_diag_error(diags, pos, NULL, "more than %u servers", AG_UPSTREAM_SERVERS_MAX);
        return NULL;
    }
    return ag_arena_zalloc(arena, count * sizeof(struct ag_upstream_server));
}

/* One server may stand without the brackets. */
static bool read_list(struct ag_action_build *build, const struct ag_node *list,
                      struct ag_upstream_server **out_servers, uint32_t *out_count)
{
    const struct ag_node *first = list->kind == AG_NODE_SEQ ? list->first : list;
    struct ag_upstream_server *servers;
    uint32_t count = 0;
    bool ok = true;

    for (const struct ag_node *n = first; n; n = n == list ? NULL : n->next) {
        count++;
    }
    servers = ag_upstream_server_room(build->arena, list->pos, build->diags, count);
    if (!servers) {
        return false;
    }
    *out_servers = servers;
    *out_count = count;
    for (const struct ag_node *n = first; n; n = n == list ? NULL : n->next) {
        struct ag_pos pos = n->quoted ? ag_pos_at(n->pos, 1) : n->pos;
        struct ag_span text;

        ok = ag_node_text(n, build->diags, &text) &&
             ag_upstream_read_server(pos, text, build->diags, servers++) && ok;
    }
    return ok;
}

/* ---- a file of them ---- */

/* The next line without its comment and the spaces around it; false: there is none. */
static bool next_line(const struct ag_source *src, size_t *io_at, struct ag_pos *io_pos,
                      struct ag_span *out_text)
{
    struct ag_span rest = ag_span_sub(src->text, *io_at, src->text.len), line;
    size_t from = 0, to;

    if (rest.len == 0) {
        return false;
    }
    line = ag_span_sub(rest, 0, ag_span_find(rest, '\n'));
    *io_at += line.len + (line.len < rest.len);
    io_pos->line++;
    to = ag_span_find(line, '#');
    while (from < to && (line.ptr[from] == ' ' || line.ptr[from] == '\t')) {
        from++;
    }
    while (to > from &&
           (line.ptr[to - 1] == ' ' || line.ptr[to - 1] == '\t' || line.ptr[to - 1] == '\r')) {
        to--;
    }
    io_pos->col = (uint32_t)from + 1;
    *out_text = ag_span_sub(line, from, to);
    return true;
}

static bool read_lines(struct ag_action_build *build, const struct ag_node *file,
                       const struct ag_source *src, struct ag_upstream_server **out_servers,
                       uint32_t *out_count)
{
    struct ag_pos pos = {.source = src};
    struct ag_span text;
    uint32_t count = 0;
    size_t at = 0;
    bool ok = true;

    while (next_line(src, &at, &pos, &text)) {
        count += text.len > 0;
    }
    if (count == 0) {
        ag_diag_error(build->diags, file->pos, "a line for each: 10.0.0.1:8080 weight=2",
                      "%s lists no server", src->name);
        return false;
    }
    *out_servers = ag_upstream_server_room(build->arena, file->pos, build->diags, count);
    *out_count = count;
    pos.line = 0;
    at = 0;
    for (struct ag_upstream_server *s = *out_servers; s && next_line(src, &at, &pos, &text);) {
        if (text.len > 0) {
            ok = ag_upstream_read_server(pos, text, build->diags, s++) && ok;
        }
    }
    return ok && *out_servers;
}

static bool read_file(struct ag_action_build *build, const struct ag_node *file,
                      struct ag_upstream_server **out_servers, uint32_t *out_count)
{
    struct ag_source *src = ag_arena_zalloc(build->arena, sizeof(*src));
    struct ag_span text;

    if (!ag_node_text(file, build->diags, &text)) {
        return false;
    }
    AG_ASSERT(src);
    src->name = ag_node_path(build->arena, file, text);
    return ag_tls_files_text(build->tls_files, file->pos, src->name, &src->text) &&
           read_lines(build, file, src, out_servers, out_count);
}

/* servers: {file: FILE}, {srv: NAME} or {dns: NAME} */
static bool read_elsewhere(struct ag_action_build *build, const struct ag_node *map,
                           struct ag_upstream *to)
{
    static const char *const of_file[] = {"file"};
    static const char *const of_name[] = {"srv", "dns", "refresh", "zone", "file"};
    const struct ag_node *file = ag_node_get(map, "file");
    size_t of_name_count = AG_COUNT(of_name);
    bool looked_for = ag_node_get(map, "srv") || ag_node_get(map, "dns");

    if (file && looked_for) {
        ag_diag_error(build->diags, file->key_pos, "leave out one of them",
                      "servers has both a file and a name to look for");
        return false;
    }
    of_name_count -= looked_for; /* a file is another way */
    if (!(file ? ag_node_check_keys(map, build->diags, "servers", of_file, AG_COUNT(of_file))
               : ag_node_check_keys(map, build->diags, "servers", of_name, of_name_count))) {
        return false;
    }
    if (file) {
        return read_file(build, file, &to->servers, &to->server_count);
    }
    if (!looked_for) {
        ag_diag_error(
            build->diags, map->pos,
            "servers: {file: servers.txt}, {srv: _http._tcp.NAME}, or {dns: \"NAME:PORT\"}",
            "expected a list of servers, a file that lists them, or a name to look for");
        return false;
    }
    to->options.discovered = true;
    return ag_upstream_read_source(build, map, &to->source);
}

bool ag_upstream_read_servers(struct ag_action_build *build, const struct ag_node *node,
                              struct ag_upstream *to)
{
    return node->kind == AG_NODE_MAP ? read_elsewhere(build, node, to)
                                     : read_list(build, node, &to->servers, &to->server_count);
}
