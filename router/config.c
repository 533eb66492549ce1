/*
 * Files are read in the order of their includes: a file, then what it includes, sorted by name, each
 * followed by its own includes. Routes stand in that order; those of flags come before all others,
 * for at one pattern the first declared wins.
 */
#include "router/config_impl.h"

#include <errno.h>

/* One file that was asked for. */
struct file {
    struct file *next; /* in the order of reading */
    struct file *parent;
    const char *path;
    struct ag_pos pos;      /* of the include */
    uint64_t device, inode; /* 0: not read */
    uint32_t depth;         /* includes above it */
};

struct loader {
    struct ag_arena *arena;
    struct ag_diags *diags;
    struct ag_opener *opener;
    struct ag_config_env env;
    struct ag_node *root;
    struct file *files; /* in the order of reading */
    uint32_t count;
};

typedef struct ag_node *parse_fn(const struct ag_source *src, struct ag_diags *diags);

static const struct {
    const char *suffix;
    parse_fn *parse;
} formats[] = {
    {".yml", ag_config_parse_yaml},
    {".yaml", ag_config_parse_yaml},
    {".json", ag_config_parse_json},
    {".gate", ag_config_parse_gate},
};

static bool is_foreign(const char *path, size_t len)
{
    return len > 5 && (strcmp(path + len - 5, ".conf") == 0 || strcmp(path + len - 4, ".cfg") == 0);
}

/* The parser for a path's extension; NULL after a diagnosis. */
static parse_fn *parser_of(struct loader *l, const struct file *f)
{
    size_t len = strlen(f->path);

    for (size_t i = 0; i < AG_COUNT(formats); i++) {
        size_t n = strlen(formats[i].suffix);
        if (len > n && strcmp(f->path + len - n, formats[i].suffix) == 0) {
            return formats[i].parse;
        }
    }
    ag_diag_error(l->diags, f->pos,
                  is_foreign(f->path, len)
                      ? "nginx's and HAProxy's are not read: docs/MIGRATION.md "
                        "has what stands for what"
                      : "known: .yml, .yaml, .json, .gate",
                  "%s: the format is told by the extension, and this one is unknown", f->path);
    return NULL;
}

/* Up to the last slash, without it; "." when there is none. */
static const char *dir_of(struct ag_arena *arena, const char *path)
{
    const char *slash = strrchr(path, '/');

    if (!slash) {
        return ".";
    }
    return slash == path ? "/" : ag_arena_strdup(arena, ag_span(path, (size_t)(slash - path)));
}

/* ---- reading ---- */

/* Says where else this file was read; true when nowhere. */
static bool is_first_time(struct loader *l, const struct file *f)
{
    for (const struct file *up = f->parent; up; up = up->parent) {
        if (up->device == f->device && up->inode == f->inode) {
            ag_diag_error(l->diags, f->pos, "remove this include",
                          "include cycle: %s includes itself by way of %s", up->path,
                          f->parent->path);
            return false;
        }
    }
    for (const struct file *o = l->files; o != f; o = o->next) {
        if (o->inode && o->device == f->device && o->inode == f->inode) {
            ag_diag_error(l->diags, f->pos, "remove one of the includes", "%s is included twice",
                          f->path);
            return false;
        }
    }
    return true;
}

/* The file's text without a byte order mark. */
static bool read_file(struct loader *l, struct file *f, struct ag_span *out)
{
    struct ag_answer found;

    ag_opener_file(l->opener, l->arena, f->path, AG_CONFIG_FILE_MAX, &found);
    if (found.error == EFBIG) {
        ag_diag_error(l->diags, f->pos, "split it up and use include", "%s is larger than 64m",
                      f->path);
        return false;
    }
    if (found.error) {
        errno = found.error; /* for %m */
        ag_diag_error(l->diags, f->pos, NULL, "cannot read %s: %m", f->path);
        return false;
    }
    if (found.kind != AG_FILE_REGULAR) {
        ag_diag_error(l->diags, f->pos, NULL, "cannot read %s: not a regular file", f->path);
        return false;
    }
    if (found.text.len == 0 && f->depth == 0) { /* a reload would take all routes away */
        ag_diag_error(l->diags, f->pos,
                      "is it just being written? To serve by flags alone, leave -c out",
                      "%s is empty", f->path);
        return false;
    }
    f->device = found.device;
    f->inode = found.inode;
    bool has_mark = ag_span_starts(found.text, AG_SPAN("\xef\xbb\xbf"));
    *out = ag_span_sub(found.text, has_mark ? 3 : 0, found.text.len);
    return is_first_time(l, f);
}

/* ---- includes ---- */

/* Puts a file right behind `after` in the order of reading. */
static struct file *add_file(struct loader *l, struct file *parent, struct file *after,
                             const char *path, struct ag_pos pos)
{
    struct file *f = ag_arena_zalloc(l->arena, sizeof(*f));

    f->parent = parent;
    f->path = path;
    f->pos = pos;
    f->depth = parent ? parent->depth + 1 : 0;
    if (after) {
        f->next = after->next;
        after->next = f;
    } else {
        l->files = f;
    }
    l->count++;
    return f;
}

/* `pattern` below the directory of `f`, whose own name is no pattern. */
static const char *glob_below(struct loader *l, const struct file *f, struct ag_span pattern)
{
    const char *dir = dir_of(l->arena, f->path);
    size_t cap = strlen(dir) * 2 + pattern.len + 2;
    struct ag_buf b = ag_buf(ag_arena_alloc(l->arena, cap), cap);

    if (pattern.ptr[0] != '/' && strcmp(dir, ".") != 0) {
        for (const char *c = dir; *c; c++) {
            if (strchr("*?[]\\", *c)) {
                ag_buf_putc(&b, '\\');
            }
            ag_buf_putc(&b, (uint8_t)*c);
        }
        ag_buf_putc(&b, '/');
    }
    ag_buf_put(&b, pattern);
    ag_buf_putc(&b, '\0');
    AG_ASSERT(!b.overflow);
    return (const char *)b.ptr;
}

/* One pattern; returns the last file added, or `after`. */
static struct file *include_glob(struct loader *l, struct file *f, struct file *after,
                                 const struct ag_node *n)
{
    struct ag_answer found;

    if (n->kind != AG_NODE_SCALAR || n->text.len == 0 ||
        ag_span_find(n->text, '\0') < n->text.len) {
        ag_diag_error(l->diags, n->pos, "such as conf.d/*.yml", "include: expected a file pattern");
        return after;
    }
    const char *pattern = glob_below(l, f, n->text);
    ag_opener_glob(l->opener, l->arena, pattern, &found);
    if (found.error) {
        errno = found.error; /* for %m */
        ag_diag_error(l->diags, n->pos, NULL, "cannot search for %s: %m", pattern);
    } else if (found.text.len == 0 && !strpbrk(pattern, "*?[")) {
        /* A pattern may match nothing (an empty conf.d); a plain name must be there. */
        ag_diag_error(l->diags, n->pos, NULL, "cannot read %s: no such file", pattern);
    }
    for (size_t at = 0; at < found.text.len && l->count <= AG_CONFIG_FILES_MAX;) {
        const char *path = (const char *)found.text.ptr + at;

        after = add_file(l, f, after, path, n->pos);
        at += strlen(path) + 1;
    }
    if (l->count > AG_CONFIG_FILES_MAX) {
        ag_diag_error(l->diags, n->pos, NULL, "more than %u files", AG_CONFIG_FILES_MAX);
    }
    return after;
}

/* Takes `include` out of the tree of `f` and queues what it names. */
static void take_includes(struct loader *l, struct file *f, struct ag_node *root)
{
    struct ag_node *include = ag_config_child(root, "include");
    struct ag_node *prev = root->first;
    struct file *after = f;

    if (!include) {
        return;
    }
    if (prev == include) {
        root->first = include->next;
    } else {
        while (prev->next != include) {
            prev = prev->next;
        }
        prev->next = include->next;
    }
    if (root->last == include) {
        root->last = root->first ? prev : NULL;
    }
    if (f->depth >= AG_CONFIG_INCLUDE_MAX) {
        ag_diag_error(l->diags, include->pos, NULL, "includes lead more than %u files deep",
                      AG_CONFIG_INCLUDE_MAX);
    } else if (include->kind == AG_NODE_SEQ) {
        for (const struct ag_node *c = include->first; c; c = c->next) {
            after = include_glob(l, f, after, c);
        }
    } else if (include->kind != AG_NODE_NULL) {
        (void)include_glob(l, f, after, include);
    }
}

/* False when the file gave no tree. */
static bool load_file(struct loader *l, struct file *f)
{
    parse_fn *parse = parser_of(l, f);
    struct ag_span text;

    if (!parse || !read_file(l, f, &text)) {
        return false;
    }
    struct ag_node *root = parse(ag_config_source(l->arena, f->path, text), l->diags);
    if (!root) {
        return false;
    }
    ag_config_expand(root, &l->env, l->diags);
    take_includes(l, f, root);
    if (l->root) {
        ag_config_merge(l->root, root, l->diags);
    } else {
        l->root = root;
    }
    return true;
}

/* ---- flags ---- */

static struct ag_pos flag_pos(struct loader *l, const char *flag, size_t index, const char *text)
{
    const char *name = ag_arena_printf(l->arena, "<flag %s %zu>", flag, index + 1);

    return (struct ag_pos){ag_config_source(l->arena, name, ag_span_str(text)), 1, 1};
}

/* The flag's listeners in the place of the file's. */
static void set_listens(struct loader *l, const struct ag_config_input *in)
{
    if (in->listen_count == 0) {
        return;
    }
    struct ag_pos pos = flag_pos(l, "-l", 0, in->listens[0]);
    struct ag_node *server = ag_config_map_in(l->root, "server", pos, l->arena);
    struct ag_node *list = server ? ag_config_child(server, "listen") : NULL;

    if (!server) {
        return; /* the file's `server` is no mapping; the model says so */
    }
    if (!list) {
        list = ag_node_new(l->arena, AG_NODE_SEQ, pos);
        list->key = AG_SPAN("listen");
        list->key_pos = pos;
        ag_node_append(server, list);
    }
    list->kind = AG_NODE_SEQ;
    list->pos = pos;
    list->first = list->last = NULL;
    for (size_t i = 0; i < in->listen_count; i++) {
        struct ag_node *n =
            ag_node_new(l->arena, AG_NODE_SCALAR, flag_pos(l, "-l", i, in->listens[i]));
        n->text = ag_span_str(in->listens[i]);
        ag_node_append(list, n);
    }
}

static void set_pid_file(struct loader *l, const struct ag_config_input *in)
{
    if (!in->pid_file) {
        return;
    }
    struct ag_pos pos = flag_pos(l, "--pid-file", 0, in->pid_file);
    struct ag_node *server = ag_config_map_in(l->root, "server", pos, l->arena);
    struct ag_node *n = server ? ag_config_child(server, "pid_file") : NULL;

    if (!server) {
        return;
    }
    if (!n) {
        n = ag_node_new(l->arena, AG_NODE_SCALAR, pos);
        n->key = AG_SPAN("pid_file");
        n->key_pos = pos;
        ag_node_append(server, n);
    }
    n->kind = AG_NODE_SCALAR;
    n->pos = pos;
    n->first = n->last = NULL;
    n->text = ag_span_str(in->pid_file);
}

/* A route for `serve DIR`. A path of the command line starts at the working directory, one in a route
 * at the config file: with both, it is made absolute. */
static const char *dir_route(struct loader *l, const struct ag_config_input *in)
{
    const char *lead =
        in->dir[0] == '/' || strncmp(in->dir, "./", 2) == 0 || strncmp(in->dir, "../", 3) == 0
            ? ""
            : "./";
    size_t len = strlen(in->dir);
    struct ag_answer cwd = {.text = AG_SPAN("")};
    uint8_t room[8];

    if (in->file && in->dir[0] != '/') {
        ag_opener_cwd(l->opener, l->arena, &cwd);
    }
    size_t cap = 2 * (len + cwd.text.len) + 32;
    struct ag_buf b = ag_buf(ag_arena_alloc(l->arena, cap), cap);
    ag_buf_put(&b, AG_SPAN("\"/\": \""));
    bool below_cwd = cwd.text.len > 0;
    const char *parts[] = {below_cwd ? (const char *)cwd.text.ptr : "", below_cwd ? "/" : lead,
                           in->dir};
    for (size_t i = 0; i < AG_COUNT(parts); i++) {
        for (const char *c = parts[i]; *c; c++) {
            struct ag_buf one = ag_buf(room, sizeof(room));
            if (*c == '"' || *c == '\\') {
                ag_buf_putc(&one, '\\');
            }
            ag_buf_putc(&one, (uint8_t)*c);
            ag_buf_put(&b, ag_buf_span(&one));
        }
    }
    ag_buf_put(&b, len && in->dir[len - 1] == '/' ? AG_SPAN("\"") : AG_SPAN("/\""));
    AG_ASSERT(!b.overflow);
    return ag_arena_strdup(l->arena, ag_buf_span(&b));
}

static void add_line(struct loader *l, struct ag_node *list, struct ag_pos pos)
{
    struct ag_node *n = ag_node_new(l->arena, AG_NODE_SCALAR, pos);

    n->dsl = true;
    n->text = pos.source->text;
    ag_node_append(list, n);
}

static void add_routes(struct loader *l, const struct ag_config_input *in)
{
    struct ag_node lines = {.kind = AG_NODE_SEQ};

    for (size_t i = 0; i < in->route_count; i++) {
        add_line(l, &lines, flag_pos(l, "-r", i, in->routes[i]));
    }
    ag_config_expand(&lines, &l->env, l->diags);
    if (in->dir) {
        struct ag_source *src =
            ag_config_source(l->arena, "<argument>", ag_span_str(dir_route(l, in)));
        add_line(l, &lines, (struct ag_pos){src, 1, 1});
    }
    struct ag_node *routes =
        lines.first ? ag_config_map_in(l->root, "routes", lines.first->pos, l->arena) : NULL;
    if (!lines.first) {
        return;
    }
    if (!routes) {
        routes = ag_config_child(l->root, "routes"); /* a list: as good */
    }
    lines.last->next = routes->first;
    routes->last = routes->last ? routes->last : lines.last;
    routes->first = lines.first;
}

struct ag_node *ag_config_load(const struct ag_config_input *in, struct ag_diags *diags,
                               const char **out_base_dir)
{
    struct loader l = {.arena = diags->arena, .diags = diags, .opener = in->opener};

    ag_config_env_init(&l.env, l.arena, in->env);
    if (in->file) {
        struct file *main_file = add_file(&l, NULL, NULL, in->file, (struct ag_pos){0});
        if (!load_file(&l, main_file)) {
            return NULL;
        }
        for (struct file *f = main_file->next; f; f = f->next) {
            (void)load_file(&l, f); /* reported; the others may have more to say */
        }
    } else {
        l.root = ag_node_new(l.arena, AG_NODE_MAP, (struct ag_pos){0});
    }
    ag_config_set_env(l.root, &l.env, diags);
    set_listens(&l, in);
    set_pid_file(&l, in);
    add_routes(&l, in);
    *out_base_dir = in->file ? dir_of(l.arena, in->file) : ".";
    return l.root;
}
