#include "actions/static/static_config.h"

#include "proto/http.h"

#include <unistd.h>
#include <xxhash.h>

#define CACHE_MAX_FILE_DEFAULT  (256u << 10)
#define CACHE_MAX_FILE_LIMIT    (16u << 20) /* read in one piece */
#define CACHE_MAX_BYTES_DEFAULT (64u << 20)

/* ---- the section ---- */

static bool read_index(const struct ag_node *n, struct ag_diags *d, struct ag_static_options *o)
{
    bool list = n->kind == AG_NODE_SEQ;

    o->index_count = 0;
    for (const struct ag_node *one = list ? n->first : n; one; one = list ? one->next : NULL) {
        struct ag_span name;
        if (!ag_node_text(one, d, &name)) {
            return false;
        }
        if (name.len == 0 || name.len > 255 || ag_span_find(name, '/') < name.len ||
            memchr(name.ptr, 0, name.len)) {
            ag_diag_error(d, one->pos, "as in index.html", "an index is a file's name");
            return false;
        }
        if (o->index_count == AG_STATIC_INDEX_MAX) {
            ag_diag_error(d, one->pos, NULL, "more than %u index names", AG_STATIC_INDEX_MAX);
            return false;
        }
        o->index[o->index_count++] = name;
    }
    return true;
}

static bool read_cache_control(const struct ag_node *n, struct ag_diags *d,
                               struct ag_static_options *o)
{
    struct ag_span value;

    if (!ag_node_text(n, d, &value)) {
        return false;
    }
    value = ag_span_trim(value);
    if (ag_span_eq(value, AG_SPAN("auto"))) {
        o->cache_control = AG_STATIC_CC_AUTO;
    } else if (ag_span_eq(value, AG_SPAN("off"))) {
        o->cache_control = AG_STATIC_CC_OFF;
    } else if (value.len && value.len <= 256 && ag_is_field_value(value)) {
        o->cache_control = AG_STATIC_CC_VALUE;
        o->cache_control_value = value;
    } else {
        ag_diag_error(d, n->pos, "auto, off, or a value such as \"max-age=600\"",
                      "not a valid Cache-Control value");
        return false;
    }
    return true;
}

/* Keys that section and route have in common; absent ones leave `o` as it is. */
static enum ag_status read_options(const struct ag_node *n, struct ag_diags *d,
                                   struct ag_static_options *o)
{
    static const char *const follow[] = {"beneath", "any", "none"};
    static const char *const dotfiles[] = {"hide", "allow"};
    static const char *const spa[] = {"auto", "off"};
    const struct ag_node *index = ag_node_get(n, "index");
    const struct ag_node *cache_control = ag_node_get(n, "cache_control");
    uint32_t errors = d->errors;
    unsigned choice;

    if (index) {
        (void)read_index(index, d, o);
    }
    if (cache_control) {
        (void)read_cache_control(cache_control, d, o);
    }
    if (ag_node_enum(ag_node_get(n, "follow"), d, follow, AG_COUNT(follow), &choice)) {
        o->follow = (enum ag_follow)choice;
    }
    if (ag_node_enum(ag_node_get(n, "dotfiles"), d, dotfiles, AG_COUNT(dotfiles), &choice)) {
        o->dotfiles = choice == 1;
    }
    if (ag_node_enum(ag_node_get(n, "spa"), d, spa, AG_COUNT(spa), &choice)) {
        o->spa = choice == 0;
    }
    return d->errors == errors ? AG_OK : AG_EINVAL;
}

static bool is_type(struct ag_span s)
{
    size_t slash = ag_span_find(s, '/');

    return slash > 0 && slash + 1 < s.len && ag_is_token(ag_span_sub(s, 0, slash)) &&
           ag_is_field_value(s) && s.len <= AG_MIME_TYPE_MAX;
}

static bool read_type(struct ag_action_build *b, const struct ag_node *n,
                      struct ag_mime_override *out)
{
    struct ag_span key =
        ag_span_starts(n->key, AG_SPAN(".")) ? ag_span_sub(n->key, 1, n->key.len) : n->key;
    uint8_t *lower = ag_arena_alloc(b->arena, key.len);

    if (!ag_node_text(n, b->diags, &out->type)) {
        return false;
    }
    if (key.len == 0 || key.len > AG_MIME_EXTENSION_MAX || ag_span_find(key, '.') < key.len ||
        !is_type(out->type)) {
        ag_diag_error(b->diags, n->key_pos, "as in {wasm: application/wasm}",
                      "not an extension and its media type");
        return false;
    }
    for (size_t i = 0; i < key.len; i++) {
        lower[i] = ag_ascii_lower(key.ptr[i]);
    }
    out->extension = ag_span(lower, key.len);
    return true;
}

static enum ag_status read_types(struct ag_action_build *b, const struct ag_node *n,
                                 struct ag_mime_table *out)
{
    struct ag_mime_override *v;
    size_t count = 0;
    uint32_t errors = b->diags->errors;

    if (!n || n->kind == AG_NODE_NULL) {
        return AG_OK;
    }
    if (n->kind != AG_NODE_MAP) {
        ag_diag_error(b->diags, n->pos, "write types: {extension: type}",
                      "static.types wants a map");
        return AG_EINVAL;
    }
    for (const struct ag_node *one = n->first; one; one = one->next) {
        count++;
    }
    v = ag_arena_zalloc(b->arena, sizeof(*v) * (count + 1));
    *out = (struct ag_mime_table){v, count};
    for (const struct ag_node *one = n->first; one; one = one->next) {
        (void)read_type(b, one, v++);
    }
    return b->diags->errors == errors ? AG_OK : AG_EINVAL;
}

static enum ag_status read_cache(struct ag_diags *d, const struct ag_node *n,
                                 struct ag_static_section *s)
{
    static const char *const keys[] = {"max_file", "max_bytes"};
    const struct ag_node *max_file = ag_node_get(n, "max_file");
    uint32_t errors = d->errors;

    s->cache_max_file = CACHE_MAX_FILE_DEFAULT;
    s->cache_max_bytes = CACHE_MAX_BYTES_DEFAULT;
    (void)ag_node_check_keys(n, d, "static.cache", keys, AG_COUNT(keys));
    (void)ag_node_size(max_file, d, &s->cache_max_file);
    (void)ag_node_size(ag_node_get(n, "max_bytes"), d, &s->cache_max_bytes);
    if (s->cache_max_file > CACHE_MAX_FILE_LIMIT) {
        ag_diag_error(d, max_file->pos, "16m at most; larger files go by sendfile",
                      "static.cache.max_file is too large");
    }
    return d->errors == errors ? AG_OK : AG_EINVAL;
}

/* Removes empty, "." and ".." segments from an absolute path, in place; file operations take no "..". */
static char *clean(char *path)
{
    char *out = path;

    for (const char *at = path; *at;) {
        size_t len;
        at += *at == '/';
        len = strcspn(at, "/");
        if (len == 2 && at[0] == '.' && at[1] == '.') {
            while (out > path && *--out != '/') {
            }
        } else if (len > 0 && !(len == 1 && at[0] == '.')) {
            *out++ = '/';
            memmove(out, at, len);
            out += len;
        }
        at += len;
    }
    if (out == path) {
        *out++ = '/';
    }
    *out = '\0';
    return path;
}

/* An absolute path of `path` below `dir`, which may be relative to the working directory. When it climbs
 * by "..", symlinks in `dir` are resolved first, as the kernel would. */
static const char *join(struct ag_action_build *b, const char *dir, struct ag_span path)
{
    struct ag_answer real, cwd;
    const char *before = "";

    if (ag_span_starts(path, AG_SPAN("../"))) {
        ag_opener_realpath(b->opener, b->arena, dir, &real);
        dir = real.error ? dir : (const char *)real.text.ptr;
    }
    if (dir[0] != '/') {
        ag_opener_cwd(b->opener, b->arena, &cwd);
        before = cwd.error ? "" : (const char *)cwd.text.ptr;
    }
    return clean(ag_arena_printf(b->arena, "%s/%s/%.*s", before, dir, (int)path.len,
                                 (const char *)path.ptr));
}

enum ag_status ag_static_section_read(struct ag_action_build *b)
{
    static const char *const keys[] = {"root", "index",         "follow", "dotfiles",
                                       "spa",  "cache_control", "types",  "cache"};
    const struct ag_node *n = ag_node_get(b->config, "static"), *root = ag_node_get(n, "root");
    struct ag_static_section *s = ag_arena_zalloc(b->arena, sizeof(*s));
    uint32_t errors = b->diags->errors;
    struct ag_span text;

    s->options =
        (struct ag_static_options){.index = {AG_SPAN("index.html")}, .index_count = 1, .spa = true};
    b->shared[AG_ACTION_STATIC] = s;
    (void)ag_node_check_keys(n, b->diags, "static", keys, AG_COUNT(keys));
    if (ag_node_text(root, b->diags, &text)) {
        bool absolute = text.len && text.ptr[0] == '/';
        s->root = join(b, absolute ? "/" : b->base_dir, text);
    }
    (void)read_options(n, b->diags, &s->options);
    (void)read_types(b, ag_node_get(n, "types"), &s->types);
    (void)read_cache(b->diags, ag_node_get(n, "cache"), s);
    return b->diags->errors == errors ? AG_OK : AG_EINVAL;
}

void ag_static_section_release(void *shared)
{
    struct ag_static_section *s = shared;

    for (struct ag_static_root *r = s ? s->roots : NULL; r; r = r->next) {
        if (r->fd >= 0) {
            (void)close(r->fd);
            r->fd = -1;
        }
    }
}

/* ---- one route ---- */

/* The directory `path`, opened once a snapshot. */
static struct ag_static_root *get_root(struct ag_action_build *b, struct ag_static_section *s,
                                       const char *path)
{
    struct ag_static_root *r;
    struct ag_answer found;

    for (r = s->roots; r; r = r->next) {
        if (strcmp(r->path, path) == 0) {
            return r;
        }
    }
    r = ag_arena_zalloc(b->arena, sizeof(*r));
    r->path = path;
    r->hash = XXH3_64bits(path, strlen(path));
    ag_opener_dir(b->opener, r->path, &found);
    r->fd = found.fd;
    r->pinned = found.pinned;
    r->device = found.device;
    r->inode = found.inode;
    r->next = s->roots;
    s->roots = r;
    return r;
}

/* Where the file system path begins that a route's path means. */
static const char *resolve(struct ag_action_build *b, const struct ag_static_section *s,
                           struct ag_span path)
{
    if (path.len && path.ptr[0] == '/') {
        return join(b, s->root ? s->root : "/", path);
    }
    return join(b, b->base_dir, path);
}

/* Segments of a pattern before its end or trailing slash: "h/a/b/" -> 2. */
static uint16_t pattern_depth(struct ag_span text)
{
    size_t from = ag_span_find(text, '/');
    uint16_t depth = 0;
    bool segment = false;

    for (size_t i = from; i < text.len && text.ptr[i] != '"'; i++) {
        if (text.ptr[i] == '/') {
            segment = false;
        } else if (!segment) {
            segment = true;
            depth++;
        }
    }
    return depth;
}

static uint16_t rest_segment_of(const struct ag_action_build *b, const struct ag_template *t)
{
    for (uint16_t i = 0; i < t->count; i++) {
        if (t->parts[i].param >= 0 && b->params[t->parts[i].param].splat) {
            return AG_STATIC_NO_REST; /* it stands in the path already */
        }
    }
    for (uint16_t i = 0; i < b->param_count; i++) {
        if (b->params[i].splat) {
            return b->params[i].segment;
        }
    }
    return pattern_depth(b->pattern);
}

/* Splits the path into a fixed directory and what may change with the request. */
static struct ag_span split(struct ag_action_build *b, const struct ag_action_decl *decl,
                            struct ag_static_settings *s)
{
    const struct ag_template *t = &decl->target;
    struct ag_span first = t->count && t->parts[0].param < 0 ? t->parts[0].literal : decl->path;
    size_t cut = first.len;
    struct ag_template_part *parts;

    if (!s->directory || decl->has_params) {
        while (cut > 0 && first.ptr[cut - 1] != '/') {
            cut--;
        }
    }
    if (cut < first.len || decl->has_params) {
        parts = ag_arena_alloc(b->arena, sizeof(*parts) * (t->count + 1u));
        s->tail.parts = parts;
        if (cut < first.len) {
            parts[s->tail.count++] =
                (struct ag_template_part){ag_span_sub(first, cut, first.len), -1};
        }
        for (uint16_t i = 1; i < t->count; i++) {
            parts[s->tail.count++] = t->parts[i];
        }
    }
    return ag_span_sub(first, 0, cut);
}

/* Missing files are no mistake: they may come later; a file without its slash that is a directory is. */
static enum ag_status check_presence(struct ag_action_build *b, const struct ag_action_decl *decl,
                                     const struct ag_static_settings *s)
{
    struct ag_answer found;
    const char *file;

    if (s->root->fd < 0) {
        ag_diag_warn(b->diags, decl->path_pos, "requests get 404 until it is there",
                     "no directory %s", s->root->path);
        return AG_OK;
    }
    if (s->directory || decl->has_params) {
        return AG_OK;
    }
    file = ag_arena_strdup(b->arena, s->tail.parts[0].literal);
    ag_opener_look(b->opener, ag_arena_printf(b->arena, "%s/%s", s->root->path, file), &found);
    if (found.error) {
        ag_diag_warn(b->diags, decl->path_pos, "requests get 404 until it is there",
                     "no file %s/%s", s->root->path, file);
    } else if (found.kind == AG_FILE_DIR) {
        ag_diag_error(b->diags, decl->path_pos, "end the path with / to serve a directory",
                      "%s/%s is a directory", s->root->path, file);
        return AG_EINVAL;
    }
    return AG_OK;
}

/* Names everything that an answer depends on besides the request's path and the file. */
static void identify(struct ag_action_build *b, const struct ag_action_decl *decl,
                     struct ag_static_settings *s)
{
    const struct ag_static_options *o = &s->options;
    char *text = ag_arena_printf(
        b->arena, "%s\n%.*s\n%.*s\n%d%d%d%d\n%.*s", s->root->path, (int)b->pattern.len,
        (const char *)b->pattern.ptr, (int)decl->path.len, (const char *)decl->path.ptr,
        (int)o->follow, o->dotfiles, s->directory, (int)o->cache_control,
        (int)o->cache_control_value.len, (const char *)o->cache_control_value.ptr);
    XXH128_hash_t h = XXH3_128bits(text, strlen(text));

    for (size_t i = 0; i < s->section->types.count; i++) {
        const struct ag_mime_override *m = &s->section->types.v[i];
        h = XXH3_128bits_withSeed(m->extension.ptr, m->extension.len, h.low64 ^ h.high64);
        h = XXH3_128bits_withSeed(m->type.ptr, m->type.len, h.low64 ^ h.high64);
    }
    for (uint16_t i = 0; i < o->index_count; i++) {
        h = XXH3_128bits_withSeed(o->index[i].ptr, o->index[i].len, h.low64 ^ h.high64);
    }
    s->id[0] = h.low64;
    s->id[1] = h.high64;
}

/* The fallback is the index of the one directory that a route serves. */
static enum ag_status check_spa(struct ag_action_build *b, const struct ag_action_decl *decl,
                                const struct ag_static_settings *s)
{
    const struct ag_node *spa = ag_node_get(decl->options, "spa");

    if (!spa || !s->options.spa || (s->directory && s->tail.count == 0)) {
        return AG_OK;
    }
    ag_diag_error(b->diags, spa->pos, "such as \"/app/\": {action: \"./app/\", spa: auto}",
                  "spa: auto needs a directory: a path that ends with /, without parameters");
    return AG_EINVAL;
}

enum ag_status ag_static_settings_read(struct ag_action_build *b, const struct ag_action_decl *decl,
                                       const void **out_settings)
{
    struct ag_static_section *section = b->shared[AG_ACTION_STATIC];
    struct ag_static_settings *s = ag_arena_zalloc(b->arena, sizeof(*s));
    const struct ag_template *t = &decl->target;
    const struct ag_template_part *last = t->count ? &t->parts[t->count - 1] : NULL;
    struct ag_span dir;

    s->section = section;
    s->options = section->options;
    if (decl->options && read_options(decl->options, b->diags, &s->options) != AG_OK) {
        return AG_EINVAL;
    }
    if (memchr(decl->path.ptr, 0, decl->path.len)) {
        ag_diag_error(b->diags, decl->path_pos, NULL, "a path cannot hold NUL");
        return AG_EINVAL;
    }
    s->directory = decl->path.len && decl->path.ptr[decl->path.len - 1] == '/';
    if (last && last->param >= 0 && b->params[last->param].splat) {
        s->directory = true;
    }
    s->rest_segment = s->directory ? rest_segment_of(b, t) : AG_STATIC_NO_REST;
    dir = split(b, decl, s);
    s->root = get_root(b, section, resolve(b, section, dir));
    identify(b, decl, s);
    if (check_spa(b, decl, s) != AG_OK) {
        return AG_EINVAL;
    }
    *out_settings = s;
    return check_presence(b, decl, s);
}
