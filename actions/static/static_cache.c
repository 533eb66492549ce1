#include "actions/static/static_cache.h"

#include "actions/prepare.h"
#include "proto/date.h"

#include <xxhash.h>

/* A power of two. 64m hold some 50,000 entries at most; memory that is not touched costs nothing. */
#define BUCKETS 16384u
/* Heads and values beside Content-Type and Cache-Control, which count three times: as values, and in the head
 * of each version. */
#define HEAD_BYTES 512u
/* Entries come and go in all sizes: what malloc keeps between them, as a part of them. */
#define MALLOC_SHARE 4u

enum ag_status ag_static_cache_new(struct ag_loop *l, struct ag_static_cache **out)
{
    struct ag_static_cache *c = calloc(1, sizeof(*c));

    if (!c) {
        return AG_ENOMEM;
    }
    c->buckets = calloc(BUCKETS, sizeof(struct ag_static_entry *));
    if (!c->buckets) {
        free(c);
        return AG_ENOMEM;
    }
    c->loop = l;
    ag_list_init(&c->clock);
    ag_static_dirs_init(&c->dirs, l);
    *out = c;
    return AG_OK;
}

uint64_t ag_static_cache_bytes(uint64_t max_bytes)
{
    return sizeof(struct ag_static_cache) + BUCKETS * sizeof(struct ag_static_entry *) + max_bytes +
           max_bytes / MALLOC_SHARE;
}

/* ---- the table ---- */

static uint64_t hash_of(const struct ag_static_key *key)
{
    const uint64_t *id = key->settings->id;

    return XXH3_64bits_withSeed(key->path.ptr, key->path.len, id[0] + key->fallback);
}

static bool matches(const struct ag_static_entry *e, uint64_t hash, const uint64_t id[static 2],
                    bool fallback, struct ag_span path)
{
    return e->hash == hash && e->id[0] == id[0] && e->id[1] == id[1] && e->fallback == fallback &&
           ag_span_eq(e->key, path);
}

static struct ag_static_entry **bucket_of(const struct ag_static_cache *c, uint64_t hash)
{
    return &c->buckets[hash & (BUCKETS - 1)];
}

struct ag_static_entry *ag_static_cache_find(struct ag_static_cache *c,
                                             const struct ag_static_key *key)
{
    uint64_t hash = hash_of(key);
    struct ag_static_entry *e = *bucket_of(c, hash);

    while (e && !matches(e, hash, key->settings->id, key->fallback, key->path)) {
        e = e->next;
    }
    if (e) {
        e->used = true;
        c->hits++;
    } else {
        c->misses++;
    }
    return e;
}

static void unlist(struct ag_static_entry *e)
{
    struct ag_static_entry **at = bucket_of(e->cache, e->hash);

    AG_ASSERT(e->listed);
    while (*at != e) {
        at = &(*at)->next;
    }
    *at = e->next;
    e->listed = false;
    ag_list_remove(&e->clock);
    e->cache->count--;
    ag_block_release(&e->block);
}

void ag_static_entry_insert(struct ag_static_entry *e)
{
    struct ag_static_cache *c = e->cache;
    struct ag_static_entry **at = bucket_of(c, e->hash);

    AG_ASSERT(!e->listed && e->prepared.h1.len > 0);
    for (struct ag_static_entry *old = *at; old; old = old->next) {
        if (matches(old, e->hash, e->id, e->fallback, e->key)) {
            unlist(old);
            break;
        }
    }
    e->next = *at;
    *at = e;
    e->listed = true;
    e->used = false;
    ag_list_push(&c->clock, &e->clock);
    c->count++;
    (void)ag_block_hold(&e->block);
}

/* ---- entries ---- */

static void free_if_unused(struct ag_static_cache *c)
{
    if (c->closed && c->used_bytes == 0) {
        free(c);
    }
}

static void entry_free(struct ag_block *b)
{
    struct ag_static_entry *e = ag_container_of(b, struct ag_static_entry, block);
    struct ag_static_cache *c = e->cache;

    AG_ASSERT(!e->listed && !e->busy && ag_list_empty(&e->waiters));
    c->used_bytes -= e->charge_bytes;
    free(e);
    free_if_unused(c);
}

/* Turns the clock until `need` bytes fit, or nothing is left to evict. */
static bool make_room(struct ag_static_cache *c, uint64_t need, uint64_t max_bytes)
{
    if (need > max_bytes) {
        return false;
    }
    while (c->used_bytes > max_bytes - need) {
        struct ag_link *l = ag_list_pop(&c->clock);
        struct ag_static_entry *e;
        if (!l) {
            return false; /* answers in flight hold the rest */
        }
        e = ag_container_of(l, struct ag_static_entry, clock);
        if (e->used) {
            e->used = false;
            ag_list_push(&c->clock, l);
        } else {
            c->evictions++;
            unlist(e);
        }
    }
    return true;
}

static void copy_to(uint8_t **at, struct ag_span from, struct ag_span *out)
{
    *out = ag_span(*at, from.len);
    if (from.len) {
        memcpy(*at, from.ptr, from.len);
    }
    *at += from.len;
}

struct ag_static_entry *ag_static_entry_new(struct ag_static_cache *c,
                                            const struct ag_static_key *key, const char *path,
                                            const struct ag_file_stat *st)
{
    const struct ag_static_section *section = key->settings->section;
    struct ag_span name = ag_span_str(path), path_copy;
    size_t values = HEAD_BYTES;
    size_t bytes = sizeof(struct ag_static_entry) + key->path.len + name.len + 1;
    struct ag_static_entry *e;
    uint8_t *at;

    values += 3 * ag_mime_type(name, &section->types).len;
    values += 3 * ag_static_cache_control(key->settings, name, key->fallback).len;
    bytes += values + (size_t)st->size_bytes;
    if (!make_room(c, bytes, section->cache_max_bytes)) {
        return NULL;
    }
    e = malloc(bytes);
    if (!e) {
        return NULL;
    }
    memset(e, 0, sizeof(*e));
    at = (uint8_t *)(e + 1);
    /* No size: the cache counts its memory itself, and a part of it is never worth a copy. */
    e->block = (struct ag_block){.refs = 1, .free = entry_free, .data = at, .fd = -1};
    e->cache = c;
    e->hash = hash_of(key);
    memcpy(e->id, key->settings->id, sizeof(e->id));
    e->fallback = key->fallback;
    e->charge_bytes = bytes;
    e->follow = key->settings->options.follow;
    e->stat = *st;
    copy_to(&at, key->path, &e->key);
    e->path = (const char *)at;
    copy_to(&at, ag_span(name.ptr, name.len + 1), &path_copy);
    e->values = at;
    e->values_end = at + values;
    e->content = e->values_end;
    ag_list_init(&e->clock);
    ag_list_init(&e->waiters);
    ag_list_init(&e->dir_waiter.link);
    c->used_bytes += bytes;
    return e;
}

void ag_static_entry_fill(struct ag_static_entry *e, const struct ag_static_key *key)
{
    struct ag_static_rep *rep = &e->rep;
    struct ag_span name = ag_span_str(e->path);
    struct ag_span content = ag_span(e->content, (size_t)e->stat.size_bytes);
    struct ag_response *res = &e->prepared.response;
    struct ag_buf b;

    rep->size_bytes = content.len;
    b = ag_buf(e->values, AG_ETAG_STRONG_LEN);
    ag_static_etag_of_content(&b, content);
    rep->validators.etag = ag_buf_span(&b);
    e->values += b.len;
    /* Never later than now (RFC 9110 section 8.8.2.1). */
    rep->validators.has_last_modified = true;
    rep->validators.last_modified_s =
        e->stat.mtime_s < e->cache->loop->wall_s ? e->stat.mtime_s : e->cache->loop->wall_s;
    ag_date_format(rep->validators.last_modified_s, e->values);
    rep->last_modified = ag_span(e->values, AG_DATE_LEN);
    e->values += AG_DATE_LEN;
    copy_to(&e->values, ag_mime_type(name, &key->settings->section->types), &rep->type);
    copy_to(&e->values, ag_static_cache_control(key->settings, name, e->fallback),
            &rep->cache_control);
    res->status = 200;
    res->framing = AG_FRAMING_LENGTH;
    res->content_length = content.len;
    res->fields.v = e->fields;
    res->fields.count = ag_static_fields(rep, e->fields);
    res->fields.cap = AG_STATIC_FIELDS;
    b = ag_buf(e->values, (size_t)(e->values_end - e->values));
    ag_prepare_write(res, &b);
    AG_ASSERT(!b.overflow);
    e->prepared.status = 200;
    e->prepared.h1 = ag_buf_span(&b);
    e->prepared.h2 = ag_prepare_write_h2(res, &b);
    AG_ASSERT(!b.overflow);
    e->prepared.body = content;
    e->prepared.owner = &e->block;
    e->checked_ms = e->cache->loop->now_ms;
}

/* ---- a look at the file system ---- */

enum look { LOOK_SAME, LOOK_CHANGED, LOOK_UNKNOWN };

static void look_done(struct ag_static_entry *e, enum look found)
{
    e->busy = false;
    e->cache->ops--;
    ag_block_release(e->dir);
    ag_block_release(e->snapshot_ref);
    e->dir = e->snapshot_ref = NULL;
    e->root = NULL;
    if (found == LOOK_SAME) { /* an unknown one grows old: it is looked at again */
        e->checked_ms = e->cache->loop->now_ms;
    } else if (found == LOOK_CHANGED && e->listed) {
        unlist(e);
    }
    ag_static_wake(&e->waiters);
    ag_block_release(&e->block);
}

static void looked(struct ag_file_op *op)
{
    struct ag_static_entry *e = ag_container_of(op, struct ag_static_entry, op);
    const struct ag_file_stat *now = &op->stat, *then = &e->stat;
    bool same = op->status == AG_OK && now->is_regular && now->size_bytes == then->size_bytes &&
                now->mtime_s == then->mtime_s && now->mtime_ns == then->mtime_ns &&
                now->inode == then->inode && now->device == then->device;

    if (op->status == AG_ELIMIT) {
        look_done(e, LOOK_UNKNOWN);
    } else { /* of several names one would tell nothing of the others: they are tried anew */
        look_done(e, same && !e->second ? LOOK_SAME : LOOK_CHANGED);
    }
}

static void look_step(struct ag_static_waiter *w)
{
    struct ag_static_entry *e = ag_container_of(w, struct ag_static_entry, dir_waiter);
    enum ag_status st = ag_static_dirs_get(&e->cache->dirs, e->root, w, &e->dir);

    if (st == AG_AGAIN) {
        return;
    }
    if (st != AG_OK || !e->dir) {
        look_done(e, st == AG_OK ? LOOK_CHANGED : LOOK_UNKNOWN);
        return;
    }
    ag_file_stat(e->cache->loop, &e->op, e->dir->fd, e->path, e->follow, looked);
}

void ag_static_entry_look(struct ag_static_entry *e, const struct ag_static_key *key,
                          struct ag_block *snapshot_ref, struct ag_static_waiter *w)
{
    if (w) {
        ag_list_push(&e->waiters, &w->link);
    }
    if (e->busy) {
        return;
    }
    e->busy = true;
    e->cache->ops++;
    (void)ag_block_hold(&e->block);
    e->snapshot_ref = ag_block_hold(snapshot_ref);
    e->root = key->settings->root;
    e->dir_waiter.ready = look_step;
    look_step(&e->dir_waiter);
}

void ag_static_cache_free(struct ag_static_cache *c)
{
    if (!c) {
        return;
    }
    while (c->ops > 0) {
        ag_loop_turn(c->loop, 10);
    }
    for (struct ag_link *l = c->clock.next; l != &c->clock; l = c->clock.next) {
        unlist(ag_container_of(l, struct ag_static_entry, clock));
    }
    ag_static_dirs_deinit(&c->dirs);
    free(c->buckets);
    c->closed = true;
    free_if_unused(c);
}
