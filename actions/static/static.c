#include "actions/static/static.h"

#include "actions/location.h"
#include "actions/static/static_cache.h"
#include "actions/static/static_path.h"
#include "actions/static/static_send.h"

#include <errno.h>
#include <unistd.h>

/*
 * A request that was not answered at once. In the exchange's arena.
 *
 * op          submitted here; the kernel or a helper sees path.text and entry->content; its done() is the
 *             final completion. While it is in flight (busy) the exchange stays held, aborted or not.
 */
struct static_work {
    struct ag_static_stage stage; /* first */
    struct ag_exchange *ex;
    struct ag_static_waiter waiter; /* for the directory, or a look at a cached entry */
    struct ag_file_op op;
    struct ag_static_path path;
    struct ag_block *dir;          /* while files are opened below it */
    struct ag_static_entry *entry; /* being filled */
    uint16_t index_at;             /* the index name being tried */
    bool index;                    /* path.text has an index name at its end */
    bool fallback;                 /* the root's index for a path without a file */
    bool looked;                   /* at the cached entry, or it was tried to */
    bool busy, aborted;
    bool over; /* all is given back */
};

static struct ag_static_cache *cache_of(const struct ag_exchange *ex)
{
    return ex->context->action_state[AG_ACTION_STATIC];
}

static const struct ag_static_settings *settings_of(const struct ag_exchange *ex)
{
    return ex->action->settings;
}

/* ---- the end ---- */

/* Gives everything back and lets go of the exchange. */
static void let_go(struct static_work *w)
{
    struct ag_exchange *ex = w->ex;

    AG_ASSERT(!w->busy);
    if (w->over) {
        return; /* an answer that broke the stream has aborted the action already */
    }
    w->over = true;
    if (ex->action_data == &w->stage) { /* else the exchange waits for an error's page */
        ex->action_data = NULL;
    }
    ag_list_remove(&w->waiter.link);
    ag_block_release(w->dir);
    ag_block_release(w->entry ? &w->entry->block : NULL);
    ag_exchange_release(ex);
}

static void fail(struct static_work *w, unsigned status, enum ag_reason why, const char *detail)
{
    ag_exchange_fail(w->ex, status, why, detail);
    let_go(w);
}

static void fail_op(struct static_work *w)
{
    switch (w->op.status) {
    case AG_EACCES:
        fail(w, 403, AG_REASON_NONE, "permission denied");
        break;
    case AG_ELIMIT:
    case AG_ENOMEM:
        fail(w, 503, AG_REASON_RESOURCES,
             w->op.error == EAGAIN   ? "too many files are waited for"
             : w->op.error == ENOMEM ? "out of memory"
                                     : "no descriptor is free");
        break;
    case AG_OK:
    case AG_AGAIN:
    case AG_EPROTO:
    case AG_EINVAL:
    case AG_ENOENT:
    case AG_ESYS:
        fail(w, 500, AG_REASON_OTHER, "the file cannot be read");
        break;
    }
}

/* True when the client has gone meanwhile; then all is given back. */
static bool gone(struct static_work *w)
{
    w->busy = false;
    if (w->aborted) {
        let_go(w);
        return true;
    }
    return false;
}

/* ---- from memory ---- */

static struct ag_static_key key_of(const struct ag_exchange *ex, bool fallback)
{
    return (struct ag_static_key){.settings = settings_of(ex),
                                  .path = fallback ? AG_SPAN("") : ex->req.path,
                                  .fallback = fallback};
}

/* All at once: it is in memory anyway, and of few slices. */
static void write_entry(struct ag_exchange *ex, struct ag_static_entry *e,
                        struct ag_static_content *c)
{
    while (ag_static_content_goes_on(c)) {
        struct ag_slice s;
        if (c->left > 0) {
            s = (struct ag_slice){
                {.ptr = e->content + c->from}, (size_t)c->left, ag_block_hold(&e->block)};
            c->left = 0;
        } else {
            s = ag_static_content_head(c);
        }
        if (ag_body_write(&ex->res_body, s) != AG_OK) {
            return;
        }
    }
    ag_body_end(&ex->res_body, NULL);
}

static void serve_entry(struct ag_exchange *ex, struct ag_static_entry *e)
{
    struct ag_static_content c;

    /* Filters may look at the fields after the entry has gone: they get copies. */
    if (ex->filter_at == 0 && ex->hsts.len == 0 && !ag_conditional_asked(&ex->req.fields)) {
        ag_exchange_respond_prepared(ex, &e->prepared);
        return;
    }
    if (ag_static_respond(ex, &e->rep, &c)) {
        write_entry(ex, e, &c);
        ag_static_content_release(&c);
    }
}

/* ---- opening ---- */

static void lookup(struct static_work *w);
static void open_file(struct static_work *w);

static void not_found(struct static_work *w)
{
    struct ag_exchange *ex = w->ex;
    const struct ag_static_settings *s = settings_of(ex);

    if (!w->fallback && ag_static_may_fall_back(ex, s)) {
        w->fallback = true;
        w->looked = false;
        w->index_at = 0;
        w->path.len = 0;
        w->path.wants_index = true;
        lookup(w);
        return;
    }
    fail(w, 404, AG_REASON_NONE, "no such file");
}

/* Without the slash relative links in the index would lead elsewhere. */
static void redirect_to_directory(struct static_work *w)
{
    struct ag_exchange *ex = w->ex;
    struct ag_location l;
    size_t bound = ag_location_path_bound(ex->req.path) + ex->req.query.len + 2;

    if (!ag_location_begin(&l, ex, bound)) {
        fail(w, 503, AG_REASON_RESOURCES, "no memory for the answer");
        return;
    }
    ag_location_put_path(&l, ex->req.path);
    ag_location_put(&l, AG_SPAN("/"));
    ag_location_put_query(&l, ex, '?');
    ag_location_respond(&l, ex, 301);
    let_go(w);
}

static void content_read(struct ag_file_op *op)
{
    struct static_work *w = ag_container_of(op, struct static_work, op);
    struct ag_static_entry *e = w->entry;
    struct ag_static_key key;
    bool whole = op->status == AG_OK && op->out_len == e->stat.size_bytes;

    (void)close(op->fd);
    if (gone(w)) {
        return;
    }
    if (op->status != AG_OK) {
        fail_op(w);
        return;
    }
    e->stat.size_bytes = op->out_len;
    key = key_of(w->ex, w->fallback);
    ag_static_entry_fill(e, &key);
    if (whole) { /* else the file is being written: what was read is served, but not kept */
        ag_static_entry_insert(e);
    }
    serve_entry(w->ex, e);
    let_go(w);
}

/* A regular file is open at op.out_fd. */
static void serve_file(struct static_work *w)
{
    struct ag_exchange *ex = w->ex;
    const struct ag_static_section *section = settings_of(ex)->section;
    struct ag_static_key key = key_of(ex, w->fallback);
    int fd = w->op.out_fd;
    uint64_t size = w->op.stat.size_bytes;

    if (size <= section->cache_max_file) {
        w->entry = ag_static_entry_new(cache_of(ex), &key, w->path.text, &w->op.stat);
    }
    if (w->entry) {
        w->entry->second = w->index && w->index_at > 0;
        w->busy = true;
        ag_file_read(ex->context->loop, &w->op, fd, w->entry->content, (size_t)size, 0,
                     content_read);
        return;
    }
    /* From here on the exchange's action is a file on its way out. */
    struct ag_static_file file = {.fd = fd, .stat = w->op.stat, .fallback = w->fallback};
    file.name = ag_span_str(w->path.text);
    ag_exchange_hold(ex);
    let_go(w);
    ag_static_send(ex, &file);
}

static void file_opened(struct ag_file_op *op)
{
    struct static_work *w = ag_container_of(op, struct static_work, op);
    bool is_file = op->status == AG_OK && op->stat.is_regular;

    if (op->status == AG_OK && (!is_file || w->aborted)) {
        (void)close(op->out_fd);
    }
    if (gone(w)) { /* and perhaps the settings, too */
        return;
    }
    if (is_file) {
        serve_file(w);
    } else if (op->status == AG_OK && op->stat.is_dir && settings_of(w->ex)->directory &&
               !w->index) {
        redirect_to_directory(w);
    } else if (op->status != AG_OK && op->status != AG_ENOENT) {
        fail_op(w);
    } else if (w->index && w->index_at + 1 < settings_of(w->ex)->options.index_count) {
        w->index_at++;
        open_file(w);
    } else {
        not_found(w);
    }
}

/* Opens the path as it stands, or the next index name behind it. */
static void open_file(struct static_work *w)
{
    const struct ag_static_settings *s = settings_of(w->ex);

    w->index = w->path.wants_index;
    if (w->index) {
        if (s->options.index_count == 0) { /* then there is no fallback either */
            fail(w, 404, AG_REASON_NONE, "no such file");
            return;
        }
        ag_static_path_add_index(&w->path, s, w->index_at);
    }
    w->busy = true;
    ag_file_open(w->ex->context->loop, &w->op, w->dir->fd, w->path.text, s->options.follow,
                 file_opened);
}

static void open_dir(struct ag_static_waiter *waiter)
{
    struct static_work *w = ag_container_of(waiter, struct static_work, waiter);
    struct ag_exchange *ex = w->ex;
    enum ag_status st;

    if (w->dir) { /* the fallback: it is open already */
        open_file(w);
        return;
    }
    st = ag_static_dirs_get(&cache_of(ex)->dirs, settings_of(ex)->root, &w->waiter, &w->dir);
    if (st == AG_AGAIN) {
        return;
    }
    if (st != AG_OK) {
        fail(w, 503, AG_REASON_RESOURCES, "out of memory or descriptors");
    } else if (!w->dir) {
        fail(w, 404, AG_REASON_NONE, "no such directory");
    } else {
        open_file(w);
    }
}

static void entry_looked_at(struct ag_static_waiter *waiter)
{
    struct static_work *w = ag_container_of(waiter, struct static_work, waiter);

    w->looked = true;
    lookup(w);
}

/* From memory when it is there and was looked at lately; else from the file system. */
static void lookup(struct static_work *w)
{
    struct ag_exchange *ex = w->ex;
    struct ag_static_key key = key_of(ex, w->fallback);
    struct ag_static_entry *e = ag_static_cache_find(cache_of(ex), &key);
    uint64_t most_ms = w->looked ? AG_STATIC_UNKNOWN_MS : AG_STATIC_STALE_MS;

    if (!e) {
        w->waiter.ready = open_dir;
        open_dir(&w->waiter);
    } else if (ex->context->loop->now_ms - e->checked_ms < most_ms) {
        serve_entry(ex, e);
        let_go(w);
    } else if (w->looked) {
        fail(w, 503, AG_REASON_RESOURCES, "too many files are open or waited for");
    } else {
        w->waiter.ready = entry_looked_at;
        ag_static_entry_look(e, &key, ex->snapshot_ref, &w->waiter);
    }
}

/* ---- requests ---- */

static void abort_work(struct ag_static_stage *stage)
{
    struct static_work *w = ag_container_of(stage, struct static_work, stage);

    if (w->busy) {
        w->aborted = true;
    } else {
        let_go(w);
    }
}

static void begin_work(struct ag_exchange *ex)
{
    struct static_work *w = ag_arena_zalloc(&ex->arena, sizeof(*w));
    enum ag_static_path_result r;

    if (!w) {
        ag_exchange_fail(ex, 503, AG_REASON_RESOURCES, "out of memory");
        ag_exchange_release(ex);
        return;
    }
    w->ex = ex;
    w->stage.abort = abort_work;
    ag_list_init(&w->waiter.link);
    ex->action_data = &w->stage;
    r = ag_static_path_build(ex, settings_of(ex), &w->path);
    switch (r) {
    case AG_STATIC_PATH_OK:
        lookup(w);
        break;
    case AG_STATIC_PATH_NONE:
    case AG_STATIC_PATH_HIDDEN:
        fail(w, 404, AG_REASON_NONE, "no such file");
        break;
    case AG_STATIC_PATH_ENOMEM:
        fail(w, 503, AG_REASON_RESOURCES, "out of memory");
        break;
    }
}

/* The short way: from memory, nothing allocated. */
static bool serve_cached(struct ag_exchange *ex)
{
    struct ag_static_key key = key_of(ex, false);
    struct ag_static_entry *e = ag_static_cache_find(cache_of(ex), &key);
    uint64_t age_ms;

    if (!e) {
        return false;
    }
    age_ms = ex->context->loop->now_ms - e->checked_ms;
    if (age_ms >= AG_STATIC_STALE_MS) {
        return false;
    }
    serve_entry(ex, e);
    if (age_ms >= AG_STATIC_CHECK_MS) {
        ag_static_entry_look(e, &key, ex->snapshot_ref, NULL);
    }
    ag_exchange_release(ex);
    return true;
}

static void start(struct ag_exchange *ex)
{
    ex->action_data = NULL;
    if (ex->req.method != AG_METHOD_GET && ex->req.method != AG_METHOD_HEAD) {
        (void)!ag_exchange_field(ex, AG_FIELD_ALLOW, AG_SPAN("GET, HEAD"));
        ag_exchange_fail(ex, 405, AG_REASON_NONE, "files are read only");
        ag_exchange_release(ex);
    } else if (!serve_cached(ex)) {
        begin_work(ex);
    }
}

static void on_abort(struct ag_exchange *ex, enum ag_reason why)
{
    struct ag_static_stage *stage = ex->action_data;

    (void)why;
    if (stage) {
        stage->abort(stage);
    }
}

static enum ag_status shard_open(struct ag_context *ctx, void **out_state)
{
    struct ag_static_cache *c;
    enum ag_status st = ag_static_cache_new(ctx->loop, &c);

    if (st == AG_OK) {
        *out_state = c;
    }
    return st;
}

static void shard_close(struct ag_context *ctx, void *state)
{
    (void)ctx;
    ag_static_cache_free(state);
}

static uint64_t shard_bytes(const void *shared)
{
    const struct ag_static_section *section = shared;

    return ag_static_cache_bytes(section->cache_max_bytes);
}

const struct ag_action_ops ag_action_static = {
    .name = "static",
    .kind = AG_ACTION_STATIC,
    .configure_section = ag_static_section_read,
    .configure = ag_static_settings_read,
    .release_section = ag_static_section_release,
    .shard_open = shard_open,
    .shard_close = shard_close,
    .shard_bytes = shard_bytes,
    .start = start,
    .abort = on_abort,
    .default_methods = 1u << AG_METHOD_GET | 1u << AG_METHOD_HEAD,
};
