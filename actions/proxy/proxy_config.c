#include "actions/proxy/proxy_config.h"

#include "actions/proxy/relay_config.h"
#include "actions/proxy/rewrite_config.h"
#include "actions/proxy/spool.h"
#include "actions/upstream/upstream_config.h"
#include "proto/uri.h"

#include <errno.h>
#include <string.h>
#include <xxhash.h>

#define BUCKETS  1024u
#define NEAR_MAX 256u /* names that are looked at for a hint */
/* On the disk for all that is buffered, unless the config says otherwise. */
#define BUFFER_TOTAL (UINT64_C(8) << 30)

/* ---- upstreams by name ---- */

static struct ag_proxy_name **bucket_of(const struct ag_proxy_section *s, struct ag_span name)
{
    return &s->buckets[XXH3_64bits(name.ptr, name.len) % BUCKETS];
}

static struct ag_proxy_name *find(const struct ag_proxy_section *s, struct ag_span name)
{
    for (struct ag_proxy_name *n = *bucket_of(s, name); n; n = n->next) {
        if (ag_span_eq(n->name, name)) {
            return n;
        }
    }
    return NULL;
}

static bool is_elsewhere(const struct ag_proxy_section *s, const struct ag_upstream_server *server)
{
    return s->zone.len > 0 && server->zone.len > 0 && !ag_span_eq(s->zone, server->zone);
}

/* Which of its servers stand elsewhere. */
static void place(const struct ag_proxy_section *s, struct ag_upstream *up)
{
    for (uint32_t i = 0; i < up->server_count; i++) {
        struct ag_upstream_server *server = &up->servers[i];

        server->remote = is_elsewhere(s, server);
    }
    up->source.like.remote = is_elsewhere(s, &up->source.like);
}

static struct ag_proxy_name *put(struct ag_action_build *build, struct ag_span name,
                                 struct ag_pos pos, struct ag_upstream *upstream)
{
    struct ag_proxy_section *s = build->shared[AG_ACTION_PROXY];
    struct ag_proxy_name *n = ag_arena_alloc(build->arena, sizeof(*n));
    struct ag_proxy_name **bucket = bucket_of(s, name);

    AG_ASSERT(n);
    if (upstream) {
        upstream->config = s;
        place(s, upstream);
    }
    *n = (struct ag_proxy_name){.next = *bucket, .name = name, .pos = pos, .upstream = upstream};
    *bucket = n;
    if (s->last) {
        s->last->following = n;
    } else {
        s->first = n;
    }
    s->last = n;
    return n;
}

/* ---- the section ---- */

static bool read_zone(const struct ag_node *n, struct ag_diags *diags, struct ag_span *out)
{
    return !n || ag_node_text(n, diags, out);
}

static bool read_upstreams(struct ag_action_build *build, struct ag_proxy_section *s,
                           const struct ag_node *list)
{
    bool ok = true;

    if (!list || list->kind == AG_NODE_NULL) {
        return true;
    }
    if (list->kind != AG_NODE_MAP) {
        ag_diag_error(build->diags, list->pos, "upstreams: {name: {servers: [...]}}",
                      "proxy.upstreams is not a map");
        return false;
    }
    for (const struct ag_node *n = list->first; n; n = n->next) {
        struct ag_upstream *up = ag_upstream_read(build, n, &s->defaults);

        ok = up && ok;
        struct ag_proxy_name *name = put(build, n->key, n->key_pos, up);

        name->has_tls_settings = ag_node_get(n, "tls") != NULL;
        name->listed = true;
        /* Files that no route needs are to be there all the same. */
        if (up && ag_node_get(n, "tls")) {
            ok = ag_upstream_tls_settings(build, &up->options.tls, AG_UPSTREAM_AUTO, n->key_pos) &&
                 ok;
        }
    }
    return ok;
}

enum ag_status ag_proxy_configure_section(struct ag_action_build *build)
{
    static const char *const keys[] = {
        "upstreams",   "timeouts",        "host",       "keepalive", "max_connections",
        "max_pending", "pending_timeout", "tls",        "zone",      "health",
        "breaker",     "ejection",        "slow_start", "panic",     "retry",
        "hedge",       "proxy_protocol",  "addresses",  "buffer"};
    const struct ag_node *node = ag_node_get(build->config, "proxy");
    const struct ag_node *server = ag_node_get(build->config, "server");
    struct ag_proxy_section *s = ag_arena_zalloc(build->arena, sizeof(*s));
    bool ok = true;

    AG_ASSERT(s);
    s->own_resolver = ag_node_get(ag_node_get(server, "resolver"), "servers") != NULL;
    s->defaults = ag_upstream_default_options();
    s->place.total_bytes = BUFFER_TOTAL;
    s->buckets = ag_arena_zalloc(build->arena, BUCKETS * sizeof(struct ag_proxy_name *));
    build->shared[AG_ACTION_PROXY] = s;
    ok = ag_networks_read(build->arena, ag_node_get(server, "trusted_proxies"), build->diags,
                          "trusted_proxies", &s->trust);
    if (node) {
        ok = ag_node_check_keys(node, build->diags, "proxy", keys, AG_COUNT(keys)) && ok;
        ok = ag_upstream_read_options(node, build->diags, &s->defaults) && ok;
        ok = ag_buffer_read(node, build->diags, &s->defaults.buffer, &s->place) && ok;
        ok = read_zone(ag_node_get(node, "zone"), build->diags, &s->zone) && ok;
        ok = read_upstreams(build, s, ag_node_get(node, "upstreams")) && ok;
    }
    ok = ag_relay_configure(build, s, ag_node_get(build->config, "tcp")) && ok;
    return ok ? AG_OK : AG_EINVAL;
}

/* ---- a route ---- */

/* A route goes there. */
static const struct ag_upstream *use(struct ag_action_build *build, const struct ag_upstream *up)
{
    struct ag_proxy_section *s = build->shared[AG_ACTION_PROXY];

    if (!up) {
        return NULL;
    }
    if (s->used_count == s->used_room) {
        uint32_t room = s->used_room ? 2 * s->used_room : 16;
        const struct ag_upstream **more =
            ag_arena_alloc(build->arena, room * sizeof(struct ag_upstream *));

        AG_ASSERT(more);
        for (uint32_t i = 0; i < s->used_count; i++) {
            more[i] = s->used[i];
        }
        s->used = more;
        s->used_room = room;
    }
    s->used[s->used_count++] = up;
    return up;
}

/* The plain one, which is used now. NULL: it had mistakes, which were reported where they stand. */
static const struct ag_upstream *plain(struct ag_action_build *build, struct ag_proxy_name *n)
{
    if (!n->used) {
        n->used = true;
        (void)use(build, n->upstream);
    }
    return n->upstream;
}

/* The upstream as that scheme has it; NULL: it had mistakes. */
static const struct ag_upstream *variant_of(struct ag_action_build *build, struct ag_proxy_name *n,
                                            const struct ag_action_decl *decl)
{
    struct ag_upstream_scheme scheme;
    struct ag_proxy_variant *v;

    if (!ag_upstream_scheme_of(decl->scheme, &scheme)) {
        AG_UNREACHABLE("the router knows the same schemes");
    }
    if (!n->upstream || (!scheme.tls && scheme.protocol == AG_UPSTREAM_H1)) {
        return plain(build, n);
    }
    for (v = n->variants; v; v = v->next) {
        if (ag_span_eq(v->scheme, decl->scheme)) {
            return v->upstream;
        }
    }
    v = ag_arena_alloc(build->arena, sizeof(*v));
    AG_ASSERT(v);
    *v = (struct ag_proxy_variant){n->variants, decl->scheme,
                                   ag_upstream_with_scheme(build, n->upstream, scheme, decl->pos)};
    n->variants = v;
    return use(build, v->upstream);
}

static struct ag_proxy_name *name_of(struct ag_action_build *build, struct ag_span name,
                                     struct ag_pos pos)
{
    struct ag_proxy_section *section = build->shared[AG_ACTION_PROXY];
    struct ag_proxy_name *n = find(section, name);

    return n ? n
             : put(build, name, pos,
                   ag_upstream_from_authority(build->arena, name, pos, build->diags,
                                              &section->defaults));
}

bool ag_proxy_lists(const struct ag_action_build *build, struct ag_span name)
{
    const struct ag_proxy_name *n = find(build->shared[AG_ACTION_PROXY], name);

    return n && n->listed;
}

const char *ag_proxy_nearest(const struct ag_proxy_section *s, struct ag_diags *diags,
                             struct ag_span word)
{
    const char *names[NEAR_MAX];
    size_t count = 0;

    for (const struct ag_proxy_name *n = s->first; n && count < NEAR_MAX; n = n->following) {
        if (n->listed) {
            names[count++] =
                ag_arena_printf(diags->arena, "%.*s", (int)n->name.len, (const char *)n->name.ptr);
        }
    }
    return ag_diag_nearest(diags, word, names, count);
}

const struct ag_upstream *ag_proxy_upstream_named(struct ag_action_build *build,
                                                  struct ag_span name, struct ag_pos pos)
{
    return plain(build, name_of(build, name, pos));
}

static const struct ag_upstream *upstream_of(struct ag_action_build *build,
                                             const struct ag_action_decl *decl)
{
    return variant_of(build, name_of(build, decl->authority, decl->authority_pos), decl);
}

bool ag_proxy_has_scheme(struct ag_span scheme)
{
    struct ag_upstream_scheme ignored;

    return ag_upstream_scheme_of(scheme, &ignored);
}

const struct ag_upstream *ag_proxy_upstream_of(struct ag_action_build *build,
                                               const struct ag_action_decl *decl)
{
    return upstream_of(build, decl);
}

/* Where copies go: the name of an upstream, or SCHEME://AUTHORITY. */
static const struct ag_upstream *
mirror_to(struct ag_action_build *build, struct ag_proxy_section *section, const struct ag_node *n)
{
    struct ag_action_decl decl = {.kind = AG_ACTION_PROXY, .scheme = AG_SPAN("http")};
    struct ag_upstream_scheme known;
    struct ag_span text;
    size_t colon;

    if (!ag_node_text(n, build->diags, &text)) {
        return NULL;
    }
    decl.pos = decl.authority_pos = n->quoted ? ag_pos_at(n->pos, 1) : n->pos;
    decl.authority = text;
    colon = ag_span_find(text, ':');
    if (ag_span_starts(ag_span_sub(text, colon, text.len), AG_SPAN("://"))) {
        decl.scheme = ag_span_sub(text, 0, colon);
        decl.authority = ag_span_sub(text, colon + 3, text.len);
        decl.authority_pos = ag_pos_at(decl.pos, colon + 3);
    } else if (!find(section, text)) {
        ag_diag_error(build->diags, n->pos, "an upstream of proxy.upstreams, or http://HOST[:PORT]",
                      "\"%.*s\" is no upstream", (int)text.len, (const char *)text.ptr);
        return NULL;
    }
    if (!ag_upstream_scheme_of(decl.scheme, &known)) {
        ag_diag_error(build->diags, decl.pos, "use http, https, h2c or h2", "\"%.*s\" is no scheme",
                      (int)decl.scheme.len, (const char *)decl.scheme.ptr);
        return NULL;
    }
    if (decl.authority.len == 0 || ag_span_find(decl.authority, '/') < decl.authority.len) {
        ag_diag_error(build->diags, decl.authority_pos,
                      "a copy is asked for what the request itself is asked for",
                      "the target of a mirror has no path");
        return NULL;
    }
    return upstream_of(build, &decl);
}

/* mirror: NAME, or {to: NAME, percent: 10, buffer: 64k}. `*out` stays NULL when it is not there, or off. */
static bool read_mirror(struct ag_action_build *build, struct ag_proxy_section *section,
                        const struct ag_node *n, const struct ag_mirror_settings **out)
{
    struct ag_mirror_settings *m;
    const struct ag_node *to = n;

    if (!n) {
        return true;
    }
    m = ag_arena_zalloc(build->arena, sizeof(*m));
    AG_ASSERT(m);
    if (!ag_mirror_read(n, build->diags, m, &to)) {
        return false;
    }
    m->upstream = mirror_to(build, section, to);
    *out = m;
    return m->upstream != NULL;
}

static void note_route(struct ag_action_build *build, struct ag_proxy_section *section,
                       const struct ag_action_decl *decl, const struct ag_proxy_settings *s)
{
    bool retry = ag_node_get(decl->options, "retry") || ag_node_get(decl->options, "hedge");
    bool buffer = ag_node_get(decl->options, "buffer") != NULL;
    struct ag_proxy_route *r;

    if (s->upstream) {
        ag_upstream_check_hedge(ag_node_get(decl->options, "hedge"), s->upstream, &s->retry,
                                build->diags);
    }
    if (!retry && !s->mirror && !buffer) {
        return;
    }
    r = ag_arena_alloc(build->arena, sizeof(*r));
    AG_ASSERT(r);
    *r = (struct ag_proxy_route){NULL, build->pattern, s, retry, buffer};
    if (section->last_route) {
        section->last_route->next = r;
    } else {
        section->first_route = r;
    }
    section->last_route = r;
}

/* The folder of what is buffered, for a route that may need it. */
static void want_folder(struct ag_action_build *build, struct ag_proxy_section *section,
                        const struct ag_action_decl *decl, const struct ag_buffer_policy *policy)
{
    const struct ag_node *named = section->place.node;
    const char *system = getenv("TMPDIR"); /* NOLINT(concurrency-mt-unsafe): nobody sets it */
    struct ag_answer found;

    if (section->folder_path || policy->disk_bytes == 0 ||
        (!policy->request && !policy->response)) {
        return;
    }
    section->folder_pos = named ? named->pos : decl->pos;
    section->folder_path =
        section->place.folder.len    ? ag_node_path(build->arena, named, section->place.folder)
        : system && system[0] == '/' ? ag_arena_printf(build->arena, "%s", system)
                                     : "/var/tmp";
    ag_opener_dir(build->opener, section->folder_path, &found);
    section->folder_error = found.error;
    if (found.error == 0) {
        section->folder = ag_spool_folder_new(found.fd);
    }
}

int ag_proxy_folder_fd(const void *section)
{
    const struct ag_proxy_section *s = section;

    return s && s->folder ? s->folder->fd : -1;
}

bool ag_proxy_has_targets(const void *section)
{
    const struct ag_proxy_section *s = section;

    return s && s->used_count > 0;
}

/* ---- what is needed to serve ---- */

/* A file can be made where content is to be buffered. */
static bool check_folder(const struct ag_proxy_section *s, struct ag_diags *diags)
{
    int error = s->folder ? ag_spool_folder_try(s->folder) : s->folder_error;

    if (error == 0) {
        return true;
    }
    ag_diag_error(
        diags, s->folder_pos,
        "name a folder that the server may write to by proxy.buffer.folder, or use memory "
        "alone: disk: 0",
        "no file to buffer in can be made in %s: %s", s->folder_path,
        error == EOPNOTSUPP || error == EISDIR ? "its file system has no files without a name"
                                               : strerrordesc_np(error));
    return false;
}

enum ag_status ag_proxy_open_section(void *section, struct ag_diags *diags)
{
    struct ag_proxy_section *s = section;
    enum ag_status st = check_folder(s, diags) ? AG_OK : AG_EINVAL;
    const char *why = "there is no TLS library, or it fails";

    for (struct ag_proxy_name *n = s->first; n; n = n->following) {
        for (struct ag_proxy_variant *v = n->variants; v; v = v->next) {
            if (!v->upstream || !v->upstream->tls) {
                continue;
            }
            if (ag_tls_library_init() == AG_OK) {
                v->upstream->client = ag_tls_client_new(v->upstream->tls, &why);
            }
            if (!v->upstream->client) {
                ag_diag_error(diags, n->pos, NULL, "TLS to %.*s cannot be set up: %s",
                              (int)n->name.len, (const char *)n->name.ptr, why);
                st = AG_EINVAL;
            }
        }
    }
    return st;
}

void ag_proxy_release_section(void *section)
{
    struct ag_proxy_section *s = section;

    for (struct ag_proxy_name *n = s->first; n; n = n->following) {
        for (struct ag_proxy_variant *v = n->variants; v; v = v->next) {
            if (v->upstream) {
                ag_tls_client_release(v->upstream->client);
            }
        }
    }
    ag_spool_folder_release(s->folder);
    s->folder = NULL;
}

/* ---- targets ---- */

/* The target's literal parts, with "x" for each parameter, must be a path and maybe a query. */
static bool check_target(struct ag_action_build *build, const struct ag_action_decl *decl,
                         struct ag_proxy_settings *s)
{
    size_t max = 1, mark;
    struct ag_buf text, normal;
    struct ag_span path;

    for (uint16_t i = 0; i < s->target.count; i++) {
        const struct ag_template_part *part = &s->target.parts[i];
        s->target_params += part->param >= 0;
        s->target_bytes += part->param >= 0 ? 0 : (uint32_t)part->literal.len;
    }
    max += s->target_bytes + s->target_params;
    text = ag_buf(ag_arena_alloc(build->arena, max), max);
    normal = ag_buf(ag_arena_alloc(build->arena, max), max);
    for (uint16_t i = 0; i < s->target.count; i++) {
        const struct ag_template_part *part = &s->target.parts[i];
        ag_buf_put(&text, part->param >= 0 ? AG_SPAN("x") : part->literal);
    }
    mark = ag_span_find(ag_buf_span(&text), '?');
    path = ag_span_sub(ag_buf_span(&text), 0, mark);
    s->target_has_query = mark < text.len;
    if (ag_path_normalise(path, &normal) == AG_OK &&
        (!s->target_has_query ||
         ag_query_is_valid(ag_span_sub(ag_buf_span(&text), mark + 1, text.len)))) {
        return true;
    }
    ag_diag_error(build->diags, decl->path_pos, "percent-encode what is not allowed in a path",
                  "\"%.*s\" is not a path", (int)decl->path.len, (const char *)decl->path.ptr);
    return false;
}

/* A route that groups split is configured more than once: it is told of once. */
static void tell_of(struct ag_action_build *build, struct ag_proxy_section *section,
                    const struct ag_rewrite *rewrite)
{
    struct ag_proxy_rewriting *last = section->last_rewriting, *told;

    if (last && last->pattern.ptr == build->pattern.ptr) {
        return;
    }
    told = ag_arena_alloc(build->arena, sizeof(*told));
    AG_ASSERT(told);
    *told = (struct ag_proxy_rewriting){NULL, build->pattern, rewrite};
    *(last ? &last->next : &section->first_rewriting) = told;
    section->last_rewriting = told;
}

void ag_group_timeouts_check(const struct ag_node *timeouts, struct ag_diags *diags)
{
    struct ag_upstream_timeouts scratch = {0};

    (void)ag_upstream_read_timeouts(timeouts, diags, &scratch);
}

enum ag_status ag_proxy_configure(struct ag_action_build *build, const struct ag_action_decl *decl,
                                  const void **out_settings)
{
    struct ag_proxy_section *section = build->shared[AG_ACTION_PROXY];
    struct ag_proxy_settings *s = ag_arena_zalloc(build->arena, sizeof(*s));
    struct ag_upstream_options options;

    AG_ASSERT(s && section);
    s->upstream = upstream_of(build, decl);
    if (!s->upstream) {
        return AG_EINVAL;
    }
    options = s->upstream->options;
    if (!ag_upstream_read_timeouts(ag_node_get(decl->options, "timeouts"), build->diags,
                                   &options.timeouts) ||
        !ag_upstream_read_host(ag_node_get(decl->options, "host"), build->diags, &options) ||
        !ag_retry_read(decl->options, build->diags, &options.retry) ||
        !ag_buffer_read(decl->options, build->diags, &options.buffer, NULL) ||
        !read_mirror(build, section, ag_node_get(decl->options, "mirror"), &s->mirror)) {
        return AG_EINVAL;
    }
    s->retry = options.retry;
    s->buffer = options.buffer;
    want_folder(build, section, decl, &s->buffer);
    s->timeouts = options.timeouts;
    s->host_mode = options.host_mode;
    s->host = options.host;
    s->has_target = decl->has_path;
    s->target = decl->target;
    if (s->has_target && !check_target(build, decl, s)) {
        return AG_EINVAL;
    }
    if (ag_rewrite_read(build, decl, s->host_mode != AG_UPSTREAM_HOST_KEEP, &s->rewrite) != AG_OK) {
        return AG_EINVAL;
    }
    if (s->rewrite) {
        tell_of(build, section, s->rewrite);
    }
    note_route(build, section, decl, s);
    *out_settings = s;
    return AG_OK;
}
