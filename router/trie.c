#include "router/trie_block.h"

/* A name's labels, 2 candidates each (with and without port), are at most what fits 255 bytes. */
#define HOST_BYTES_MAX 255u

enum step { STEP_EDGE, STEP_PARAM, STEP_SPLAT, STEP_BACK };

/* A node of the path's way, and what of it is tried next. */
struct frame {
    uint64_t key;
    uint32_t node;
    uint32_t at;  /* path bytes used: the next segment begins here; path.len + 1: none is left */
    uint32_t end; /* of that segment */
    enum step step;
};

/*
 * Yields the leaves of all patterns that match the path below one root, best first. Every node has one
 * parent and one depth, so a walk enters each at most once: 2^depth steps at worst, never more than
 * there are nodes, and `depth` steps where no literal has a parameter beside it.
 */
struct walk {
    const struct ag_trie *t;
    struct ag_span path;
    struct frame now;
    uint32_t depth;                      /* frames to come back to */
    struct frame stack[AG_SEGMENTS_MAX]; /* uninitialised beyond `depth` */
};

/* The roots that a request may use, best first. */
struct roots {
    const struct ag_trie *t;
    uint16_t port;
    uint8_t stage;     /* 0: with port, 1: without */
    bool done;         /* the unnamed host was given */
    struct ag_span at; /* the rest of the host that is tried next; empty: any host */
    uint8_t host[HOST_BYTES_MAX];
};

static void roots_init(struct roots *r, const struct ag_trie *t, const struct ag_trie_query *q)
{
    struct ag_span host = q->host;

    r->t = t;
    r->port = q->port;
    r->stage = t->has_ports && q->port ? 0 : 1;
    r->done = false;
    r->at = AG_SPAN("");
    if (host.len > 0 && host.ptr[host.len - 1] == '.') {
        host.len--;
    }
    if (!t->has_hosts || host.len == 0 || host.len > HOST_BYTES_MAX || host.ptr[0] == '.') {
        return;
    }
    for (size_t i = 0; i < host.len; i++) {
        r->host[i] = ag_ascii_lower(host.ptr[i]);
    }
    r->at = ag_span(r->host, host.len);
}

/* A host's root record, or 0. */
static uint32_t find_root(const struct ag_trie *t, struct ag_span host, uint16_t port)
{
    const struct ag_trie_slot *slots = ag_trie_slots(t, t->host_at);
    uint32_t hash = ag_trie_host_hash(host, port);

    for (uint32_t i = ag_trie_home(hash, t->host_slots); slots[i].record;) {
        const struct ag_trie_root *root = ag_trie_at(t, slots[i].record);

        if (slots[i].hash == hash && root->port == port &&
            ag_span_eq(host, ag_span(root->host, root->host_len))) {
            return slots[i].record;
        }
        i = i + 1 == t->host_slots ? 0 : i + 1;
    }
    return 0;
}

/* From "a.b.c" to ".b.c", from ".b.c" to ".c", then to nothing. */
static struct ag_span next_suffix(const struct ag_trie *t, struct ag_span host)
{
    struct ag_span rest = ag_span_sub(host, 1, host.len);

    return t->has_suffixes ? ag_span_sub(rest, ag_span_find(rest, '.'), rest.len) : AG_SPAN("");
}

/* The next root's record, 0 when there is none left. */
static uint32_t roots_next(struct roots *r)
{
    while (!r->done) {
        uint16_t port = r->stage == 0 ? r->port : 0;
        uint32_t found =
            r->at.len == 0 && port == 0 ? r->t->any_root : find_root(r->t, r->at, port);

        if (r->stage == 0) {
            r->stage = 1;
        } else if (r->at.len == 0) {
            r->done = true;
        } else {
            r->stage = r->t->has_ports && r->port ? 0 : 1;
            r->at = next_suffix(r->t, r->at);
        }
        if (found) {
            return found;
        }
    }
    return 0;
}

/* Path bytes [at, at + n) are `text`, behind which 8 bytes can be read. */
static bool text_matches(struct ag_span path, size_t at, const uint8_t *text, size_t n)
{
    for (size_t i = 0; i < n; i += 8) {
        uint64_t w;

        memcpy(&w, text + i, sizeof(w));
        w ^= ag_trie_word(path, at + i);
        if (n - i < 8) {
            w <<= 8 * (8 - (n - i));
        }
        if (w) {
            return false;
        }
    }
    return true;
}

/* The literal child of key `key` for the segment at hand; *out_at: where the path's next one begins. */
static uint32_t find_edge(const struct walk *w, uint64_t key, uint32_t *out_at)
{
    const struct ag_trie_group *groups = ag_trie_at(w->t, w->t->group_at);
    const struct ag_trie_group *g = &groups[ag_trie_group(key, w->t->groups)];
    uint32_t at = w->now.at;
    size_t left = w->path.len - at;

    if (!(g->marks & ag_trie_mark(key))) {
        return 0;
    }
    /* A group of a large trie spans two lines, and neither is in the cache. */
    __builtin_prefetch((const uint8_t *)ag_trie_at(w->t, g->record) + AG_CACHE_LINE);
    for (uint32_t record = g->record; record < g[1].record;) {
        const struct ag_trie_node *n = ag_trie_at(w->t, record);

        /* The node's text begins with the segment when the path goes on with that text and one of its
         * segments ends there. */
        if (n->parent_flags >> AG_TRIE_FLAG_BITS == w->now.node && n->len <= left &&
            (n->len == left || w->path.ptr[at + n->len] == '/') &&
            text_matches(w->path, at, n->text, n->len)) {
            *out_at = at + n->len + 1;
            return record;
        }
        record += n->units;
    }
    return 0;
}

/* The fields behind a node's text. */
static const uint32_t *node_fields(const struct ag_trie_node *n)
{
    return (const uint32_t *)(const void *)((const uint8_t *)n +
                                            (sizeof(*n) + n->len + 3u) / 4u * 4u);
}

static void walk_init(struct walk *w, const struct ag_trie *t, uint32_t root, struct ag_span path)
{
    const struct ag_trie_root *r = ag_trie_at(t, root);

    w->t = t;
    w->path = path;
    w->depth = 0;
    w->now = (struct frame){r->seed, r->node, 1, 1, STEP_EDGE};
}

/* What is left to try here, from `rest` on, is kept for later. */
static void keep(struct walk *w, enum step rest)
{
    AG_ASSERT(w->depth < AG_COUNT(w->stack));
    w->stack[w->depth] = w->now;
    w->stack[w->depth++].step = rest;
}

static bool try_edge(struct walk *w, uint32_t flags)
{
    uint64_t key;
    uint32_t at, child;

    w->now.end = (uint32_t)ag_trie_scan(w->path, w->now.at, w->now.key, &key);
    child = flags & AG_TRIE_EDGES ? find_edge(w, key, &at) : 0;
    if (!child) {
        return false;
    }
    if (flags & (AG_TRIE_PARAM | AG_TRIE_SPLAT)) {
        keep(w, STEP_PARAM);
    }
    w->now.key = key;
    w->now.node = child;
    w->now.at = at;
    return true;
}

static bool try_param(struct walk *w, uint32_t flags, const uint32_t *fields)
{
    if (!(flags & AG_TRIE_PARAM) || w->now.end == w->now.at) {
        return false;
    }
    if (flags & AG_TRIE_SPLAT) {
        keep(w, STEP_SPLAT);
    }
    w->now.key = ag_trie_key_param(w->now.key);
    w->now.node = fields[0];
    w->now.at = w->now.end + 1;
    return true;
}

/* The leaves of the next matching pattern, or NULL at the end. */
static const struct ag_trie_leaf *walk_next(struct walk *w)
{
    for (;;) {
        const struct ag_trie_node *n = ag_trie_at(w->t, w->now.node);
        uint32_t flags = n->parent_flags & ((1u << AG_TRIE_FLAG_BITS) - 1);
        const uint32_t *fields = node_fields(n);

        switch (w->now.step) {
        case STEP_EDGE:
            if (w->now.at > w->path.len) {
                w->now.step = STEP_BACK;
                if (flags & AG_TRIE_OWN) {
                    fields += (flags & AG_TRIE_PARAM) + (flags / AG_TRIE_SPLAT & 1u);
                    return (const struct ag_trie_leaf *)(const void *)fields;
                }
            } else if (!try_edge(w, flags)) {
                w->now.step = STEP_PARAM;
            }
            break;
        case STEP_PARAM:
            w->now.step = try_param(w, flags, fields) ? STEP_EDGE : STEP_SPLAT;
            break;
        case STEP_SPLAT:
            w->now.step = STEP_BACK;
            if (flags & AG_TRIE_SPLAT) {
                return ag_trie_at(w->t, fields[flags & AG_TRIE_PARAM]);
            }
            break;
        case STEP_BACK:
            if (w->depth == 0) {
                return NULL;
            }
            w->now = w->stack[--w->depth];
            break;
        }
    }
}

/* The next route of the same pattern, or NULL. */
static const struct ag_trie_leaf *leaf_next(const struct ag_trie_leaf *leaf)
{
    return leaf->flags & AG_TRIE_LAST ? NULL : leaf + 1 + (leaf->other_count > 0);
}

static bool takes_name(const struct ag_trie *t, const struct ag_trie_leaf *leaf,
                       struct ag_span name)
{
    const uint8_t *at;

    if (leaf->other_count == 0) {
        return false;
    }
    at = ag_trie_at(t, leaf[1].id);
    for (uint8_t i = 0; i < leaf->other_count; i++) {
        uint16_t len;

        memcpy(&len, at, sizeof(len));
        at += sizeof(len);
        if (ag_span_eq(ag_span(at, len), name)) {
            return true;
        }
        at += len;
    }
    return false;
}

/* Which of a pattern's routes takes the method: they are sorted, named ones first. */
static uint32_t pick(const struct ag_trie *t, const struct ag_trie_leaf *leaves,
                     const struct ag_trie_query *q)
{
    const struct ag_trie_leaf *leaf;

    if (q->method == AG_METHOD_HEAD) {
        /* A route that names HEAD goes before one that only names GET. */
        for (leaf = leaves; leaf; leaf = leaf_next(leaf)) {
            if (leaf->flags & AG_TRIE_OWN_HEAD) {
                return leaf->id;
            }
        }
    }
    for (leaf = leaves; leaf; leaf = leaf_next(leaf)) {
        if (leaf->methods & 1u << q->method ||
            (q->method == AG_METHOD_OTHER && takes_name(t, leaf, q->method_name))) {
            return leaf->id;
        }
    }
    return AG_TRIE_NONE;
}

static bool is_path(struct ag_span path)
{
    return path.len > 0 && path.len < UINT32_MAX && path.ptr[0] == '/';
}

uint32_t ag_trie_lookup(const struct ag_trie *t, const struct ag_trie_query *q)
{
    struct roots roots;
    uint32_t root;

    if (!is_path(q->path)) {
        return AG_TRIE_NONE;
    }
    roots_init(&roots, t, q);
    while ((root = roots_next(&roots)) != 0) {
        const struct ag_trie_leaf *leaves;
        struct walk walk;

        walk_init(&walk, t, root, q->path);
        while ((leaves = walk_next(&walk)) != NULL) {
            uint32_t id = pick(t, leaves, q);

            if (id != AG_TRIE_NONE) {
                return id;
            }
        }
    }
    return AG_TRIE_NONE;
}

void ag_trie_each(const struct ag_trie *t, const struct ag_trie_query *q, ag_trie_fn *fn, void *arg)
{
    struct roots roots;
    uint32_t root;

    if (!is_path(q->path)) {
        return;
    }
    roots_init(&roots, t, q);
    while ((root = roots_next(&roots)) != 0) {
        const struct ag_trie_leaf *leaf;
        struct walk walk;

        walk_init(&walk, t, root, q->path);
        while ((leaf = walk_next(&walk)) != NULL) {
            for (; leaf; leaf = leaf_next(leaf)) {
                fn(arg, leaf->id, leaf->methods | (leaf->other_count ? 1u : 0u));
            }
        }
    }
}

static void add_methods(void *arg, uint32_t id, uint32_t methods)
{
    uint32_t *all = arg;

    (void)id;
    *all |= methods;
}

uint32_t ag_trie_allowed(const struct ag_trie *t, const struct ag_trie_query *q)
{
    uint32_t all = 0;

    ag_trie_each(t, q, add_methods, &all);
    return all;
}

size_t ag_trie_bytes(const struct ag_trie *t)
{
    return t->bytes;
}

void ag_trie_free(struct ag_trie *t)
{
    free(t);
}
