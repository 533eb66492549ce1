#include "router/trie_block.h"

#include <sys/mman.h>

#define HUGE_PAGE_BYTES (2u << 20)

/* Records of a group: their text is compared in turn, in lines of memory that lie side by side; fewer
 * groups make a table that stays in the cache. */
#define GROUP_RECORDS 5u

/* Parameter children lie behind their parent up to this size in all. */
#define BUNDLE_BYTES_MAX 1024u

/* Routes of one pattern before they are placed: a list sorted by preference. */
struct item {
    const struct ag_trie_entry *entry;
    uint32_t next; /* index, 0: none */
};

struct build_node {
    struct ag_span text; /* the segment that leads here; of a whole chain once chains are joined */
    uint32_t parent;     /* index; above the joined chain, once it is; 0: a tree's top */
    uint32_t param;
    uint32_t edges;      /* literal children */
    uint32_t splat, own; /* lists of items */
    uint32_t at;         /* record */
    uint32_t units;      /* of that record, parameter children behind it included */
    uint64_t key;
    bool literal; /* reached by a literal segment */
    bool behind;  /* placed behind its parent */
};

struct build_root {
    struct ag_span host; /* a suffix begins with its dot */
    uint16_t port;
    uint32_t node;
    uint32_t at;
};

/* Index 0 of each array stands for "none". */
struct build {
    struct item *items;
    struct build_node *nodes;
    struct build_root *roots;
    uint32_t item_count, node_count, root_count;
    /* indices by hash, of power-of-two size */
    uint32_t *node_table, *root_table;
    uint32_t node_mask, root_mask;
    uint8_t *text; /* of joined chains */
    size_t text_len;
    uint32_t *order;  /* literal nodes that stay, by group */
    uint32_t ordered; /* how many */
    uint32_t groups;
    uint32_t used; /* of the block, in units */
    struct ag_trie *out;
};

static void *must_calloc(size_t count, size_t size)
{
    void *p = calloc(count, size);

    if (!p) {
        ag_panic(__FILE__, __LINE__, "out of memory for the routes");
    }
    return p;
}

/* Twice as many slots as entries, at least 8. */
static uint32_t mask_for(size_t count)
{
    uint32_t slots = 8;

    AG_ASSERT(count < UINT32_MAX / 8);
    while (slots < count * 2) {
        slots *= 2;
    }
    return slots - 1;
}

static bool is_named(const struct ag_trie_entry *e)
{
    return e->pattern->methods != 0 || e->pattern->other_count != 0;
}

static bool is_better(const struct ag_trie_entry *a, const struct ag_trie_entry *b)
{
    if (is_named(a) != is_named(b)) {
        return is_named(a);
    }
    return a->id < b->id;
}

static void add_item(struct build *b, uint32_t *list, const struct ag_trie_entry *e)
{
    uint32_t index = b->item_count++;

    while (*list && is_better(b->items[*list].entry, e)) {
        list = &b->items[*list].next;
    }
    b->items[index] = (struct item){e, *list};
    *list = index;
}

static uint32_t node_new(struct build *b, uint32_t parent, struct ag_span text, bool literal)
{
    b->nodes[b->node_count] =
        (struct build_node){.text = text, .parent = parent, .literal = literal};
    return b->node_count++;
}

/* The tree's top node for a pattern's host and port. */
static uint32_t top_for(struct build *b, struct ag_span host, uint16_t port)
{
    uint32_t i;

    if (ag_span_starts(host, AG_SPAN("*."))) {
        host = ag_span_sub(host, 1, host.len);
    }
    i = ag_trie_host_hash(host, port) & b->root_mask;
    for (; b->root_table[i]; i = (i + 1) & b->root_mask) {
        const struct build_root *r = &b->roots[b->root_table[i]];

        if (r->port == port && ag_span_eq(r->host, host)) {
            return r->node;
        }
    }
    b->root_table[i] = b->root_count;
    b->roots[b->root_count] =
        (struct build_root){.host = host, .port = port, .node = node_new(b, 0, AG_SPAN(""), false)};
    b->nodes[b->roots[b->root_count].node].key = b->root_count;
    return b->roots[b->root_count++].node;
}

static uint32_t literal_child(struct build *b, uint32_t parent, struct ag_span text)
{
    uint32_t i = (uint32_t)XXH3_64bits_withSeed(text.ptr, text.len, parent) & b->node_mask;

    for (; b->node_table[i]; i = (i + 1) & b->node_mask) {
        const struct build_node *n = &b->nodes[b->node_table[i]];

        if (n->parent == parent && ag_span_eq(n->text, text)) {
            return b->node_table[i];
        }
    }
    b->node_table[i] = node_new(b, parent, text, true);
    b->nodes[parent].edges++;
    return b->node_table[i];
}

static void add_pattern(struct build *b, const struct ag_trie_entry *e)
{
    const struct ag_pattern *p = e->pattern;
    uint32_t at = top_for(b, p->host, p->port);

    for (uint16_t i = 0; i < p->count; i++) {
        const struct ag_segment *s = &p->segments[i];

        switch (s->kind) {
        case AG_SEG_EXACT:
            at = literal_child(b, at, s->text);
            break;
        case AG_SEG_PARAM:
            if (!b->nodes[at].param) {
                uint32_t child = node_new(b, at, AG_SPAN(""), false);

                b->nodes[at].param = child;
            }
            at = b->nodes[at].param;
            break;
        case AG_SEG_SPLAT:
            AG_ASSERT(i + 1 == p->count);
            add_item(b, &b->nodes[at].splat, e);
            return;
        }
    }
    add_item(b, &b->nodes[at].own, e);
}

/* A node that only leads from one literal to the next. */
static bool is_passage(const struct build_node *n)
{
    return n->literal && n->edges == 1 && !n->param && !n->splat && !n->own;
}

/* Gives a literal node the text of the passages above it, and the parent above those. */
static void join_chain(struct build *b, struct build_node *n)
{
    size_t len = n->text.len;
    uint8_t *to;
    uint32_t k;

    for (k = n->parent; is_passage(&b->nodes[k]); k = b->nodes[k].parent) {
        len += b->nodes[k].text.len + 1;
    }
    if (len == n->text.len) {
        return;
    }
    to = b->text + b->text_len + len - n->text.len;
    memcpy(to, n->text.len ? n->text.ptr : to, n->text.len);
    for (k = n->parent; is_passage(&b->nodes[k]); k = b->nodes[k].parent) {
        struct ag_span s = b->nodes[k].text;

        *--to = '/';
        to -= s.len;
        if (s.len) {
            memcpy(to, s.ptr, s.len);
        }
    }
    AG_ASSERT(to == b->text + b->text_len && len <= UINT16_MAX);
    n->text = ag_span(to, len);
    n->parent = k;
    b->text_len += len;
}

/* ---- placing: with b->out NULL only the room is counted ---- */

static uint32_t take(struct build *b, size_t bytes)
{
    size_t units = (bytes + 3) / 4;
    uint32_t at = b->used;

    AG_ASSERT(units < UINT32_MAX - b->used);
    b->used += (uint32_t)units;
    return at;
}

static void *room_at(const struct build *b, uint32_t at)
{
    return (uint8_t *)b->out + (size_t)at * 4;
}

static uint32_t place_others(struct build *b, const struct ag_pattern *p)
{
    size_t bytes = 0;
    uint32_t at;
    uint8_t *to;

    for (uint16_t i = 0; i < p->other_count; i++) {
        bytes += sizeof(uint16_t) + p->other_methods[i].len;
    }
    at = take(b, bytes);
    if (!b->out) {
        return at;
    }
    to = room_at(b, at);
    for (uint16_t i = 0; i < p->other_count; i++) {
        uint16_t len = (uint16_t)p->other_methods[i].len;

        memcpy(to, &len, sizeof(len));
        memcpy(to + sizeof(len), p->other_methods[i].ptr, len);
        to += sizeof(len) + len;
    }
    return at;
}

static size_t list_bytes(const struct build *b, uint32_t list)
{
    size_t leaves = 0;

    for (; list; list = b->items[list].next) {
        leaves += b->items[list].entry->pattern->other_count ? 2 : 1;
    }
    return leaves * sizeof(struct ag_trie_leaf);
}

static struct ag_trie_leaf leaf_of(const struct ag_trie_entry *e)
{
    const struct ag_pattern *p = e->pattern;
    uint32_t methods = p->methods;
    struct ag_trie_leaf leaf = {.id = e->id, .other_count = (uint8_t)p->other_count};

    if (!is_named(e)) {
        methods = e->methods ? e->methods : AG_TRIE_ANY;
    }
    if (methods & 1u << AG_METHOD_GET) {
        methods |= 1u << AG_METHOD_HEAD;
    }
    leaf.methods = (uint16_t)methods;
    leaf.flags = p->methods & 1u << AG_METHOD_HEAD ? AG_TRIE_OWN_HEAD : 0;
    return leaf;
}

/* Writes a list's leaves to their place; their other names come behind all that is placed. */
static void place_list(struct build *b, uint32_t list, uint32_t at)
{
    for (size_t i = 0; list; list = b->items[list].next) {
        const struct ag_trie_entry *e = b->items[list].entry;
        struct ag_trie_leaf leaf = leaf_of(e), *to = b->out ? room_at(b, at) : NULL;
        uint32_t others = leaf.other_count ? place_others(b, e->pattern) : 0;

        leaf.flags |= b->items[list].next == 0 ? AG_TRIE_LAST : 0;
        if (to) {
            to[i++] = leaf;
            if (others) {
                to[i++] = (struct ag_trie_leaf){.id = others};
            }
        }
    }
}

/* Bytes of a node's own record. */
static size_t node_bytes(const struct build *b, const struct build_node *n)
{
    return (sizeof(struct ag_trie_node) + n->text.len + 3) / 4 * 4 + (n->param ? 4u : 0u) +
           (n->splat ? 4u : 0u) + list_bytes(b, n->own) + list_bytes(b, n->splat);
}

static void place_node(struct build *b, struct build_node *n)
{
    size_t splat_bytes = list_bytes(b, n->splat), own_bytes = list_bytes(b, n->own);
    uint32_t splat_at, own_at;

    n->at = take(b, node_bytes(b, n));
    splat_at = b->used - (uint32_t)(splat_bytes / 4);
    own_at = splat_at - (uint32_t)(own_bytes / 4);
    if (b->out) {
        struct ag_trie_node *out = room_at(b, n->at);
        uint32_t *field = room_at(b, own_at - (n->param ? 1u : 0u) - (n->splat ? 1u : 0u));
        uint32_t flags = (n->param ? AG_TRIE_PARAM : 0) | (n->splat ? AG_TRIE_SPLAT : 0) |
                         (n->own ? AG_TRIE_OWN : 0) | (n->edges ? AG_TRIE_EDGES : 0);

        /* What lies elsewhere has its place from the first round. */
        *out = (struct ag_trie_node){b->nodes[n->parent].at << AG_TRIE_FLAG_BITS | flags,
                                     (uint16_t)n->text.len, (uint16_t)n->units};
        if (n->text.len) {
            memcpy(out->text, n->text.ptr, n->text.len);
        }
        if (n->param) {
            *field++ = b->nodes[n->param].at;
        }
        if (n->splat) {
            *field++ = splat_at;
        }
    }
    place_list(b, n->own, own_at);
    place_list(b, n->splat, splat_at);
}

/* A node, and behind it its parameter child, that one's and so on, while they are small: they are
 * read together. */
static void place_bundle(struct build *b, uint32_t index)
{
    struct build_node *first = &b->nodes[index], *n = first;

    place_node(b, n);
    while (n->param &&
           (b->used - first->at) * 4 + node_bytes(b, &b->nodes[n->param]) <= BUNDLE_BYTES_MAX) {
        n = &b->nodes[n->param];
        n->behind = true;
        place_node(b, n);
    }
    first->units = b->used - first->at;
    AG_ASSERT(first->units <= UINT16_MAX);
}

static void place_root(struct build *b, struct build_root *r)
{
    r->at = take(b, sizeof(struct ag_trie_root) + r->host.len);
    if (b->out) {
        struct ag_trie_root *out = room_at(b, r->at);

        *out = (struct ag_trie_root){b->nodes[r->node].at, (uint32_t)b->nodes[r->node].key, r->port,
                                     (uint8_t)r->host.len};
        if (r->host.len) {
            memcpy(out->host, r->host.ptr, r->host.len);
        }
    }
}

/* Slots for the roots at a load of 0.6, and an empty one that ends each search. */
static uint32_t host_slots(const struct build *b)
{
    return b->root_count + b->root_count / 3 * 2 + 2;
}

/* Lays everything out; called twice: to count, then with the block there. */
static void place_all(struct build *b)
{
    struct ag_trie head = {
        .bytes = b->out ? b->out->bytes : 0, .host_slots = host_slots(b), .groups = b->groups};
    struct ag_trie_group *groups;
    uint32_t group = 0;

    b->used = 0;
    (void)take(b, (sizeof(head) + AG_CACHE_LINE - 1) / AG_CACHE_LINE * AG_CACHE_LINE);
    head.group_at = take(b, (b->groups + 1u) * sizeof(*groups));
    head.host_at = take(b, head.host_slots * sizeof(struct ag_trie_slot));
    groups = b->out ? room_at(b, head.group_at) : NULL;
    if (b->out) {
        *b->out = head;
    }
    for (uint32_t i = 0; i <= b->ordered; i++) {
        uint32_t end =
            i < b->ordered ? ag_trie_group(b->nodes[b->order[i]].key, b->groups) : b->groups;

        for (; group <= end; group++) {
            if (groups) {
                groups[group].record = b->used;
            }
        }
        if (i == b->ordered) {
            break;
        }
        place_bundle(b, b->order[i]);
        if (groups) {
            groups[end].marks |= ag_trie_mark(b->nodes[b->order[i]].key);
        }
    }
    for (uint32_t i = 1; i < b->node_count; i++) {
        if (!b->nodes[i].literal && !b->nodes[i].behind) {
            place_bundle(b, i);
        }
    }
    for (uint32_t i = 1; i < b->root_count; i++) {
        place_root(b, &b->roots[i]);
    }
    (void)take(b, AG_TRIE_SLACK);
}

static void fill_hosts(struct build *b)
{
    struct ag_trie *t = b->out;
    struct ag_trie_slot *slots = room_at(b, t->host_at);

    for (uint32_t i = 1; i < b->root_count; i++) {
        const struct build_root *r = &b->roots[i];
        uint32_t hash = ag_trie_host_hash(r->host, r->port);
        uint32_t k = ag_trie_home(hash, t->host_slots);

        while (slots[k].record) {
            k = k + 1 == t->host_slots ? 0 : k + 1;
        }
        slots[k] = (struct ag_trie_slot){hash, r->at};
        t->has_hosts |= r->host.len > 0;
        t->has_suffixes |= r->host.len > 0 && r->host.ptr[0] == '.';
        t->has_ports |= r->port != 0;
        if (r->host.len == 0 && r->port == 0) {
            t->any_root = r->at;
        }
    }
}

/* Joins chains, gives nodes their keys, and sorts the literal ones by group (counting). */
static void order_nodes(struct build *b)
{
    uint32_t *starts;

    for (uint32_t i = 1; i < b->node_count; i++) {
        struct build_node *n = &b->nodes[i];

        if (n->literal && !is_passage(n)) {
            join_chain(b, n);
            (void)ag_trie_scan(n->text, 0, b->nodes[n->parent].key, &n->key);
            b->ordered++;
        } else if (!n->literal && n->parent) {
            n->key = ag_trie_key_param(b->nodes[n->parent].key);
        }
    }
    b->groups = b->ordered / GROUP_RECORDS + 1;
    starts = must_calloc(b->groups + 1u, sizeof(*starts));
    for (uint32_t i = 1; i < b->node_count; i++) {
        if (b->nodes[i].literal && !is_passage(&b->nodes[i])) {
            starts[ag_trie_group(b->nodes[i].key, b->groups) + 1]++;
        }
    }
    for (uint32_t g = 1; g <= b->groups; g++) {
        starts[g] += starts[g - 1];
    }
    for (uint32_t i = 1; i < b->node_count; i++) {
        if (b->nodes[i].literal && !is_passage(&b->nodes[i])) {
            b->order[starts[ag_trie_group(b->nodes[i].key, b->groups)]++] = i;
        }
    }
    free(starts);
}

static void alloc_build(struct build *b, const struct ag_trie_entry *entries, size_t count)
{
    size_t segments = 0, text = 1;

    for (size_t i = 0; i < count; i++) {
        const struct ag_pattern *p = entries[i].pattern;

        segments += p->count;
        for (uint16_t k = 0; k < p->count; k++) {
            text += p->segments[k].text.len + 1;
        }
    }
    AG_ASSERT(segments + count < UINT32_MAX / 8);
    *b = (struct build){.item_count = 1, .node_count = 1, .root_count = 1};
    b->items = must_calloc(count + 1, sizeof(*b->items));
    b->nodes = must_calloc(segments + count + 1, sizeof(*b->nodes));
    b->roots = must_calloc(count + 1, sizeof(*b->roots));
    b->node_mask = mask_for(segments + count);
    b->root_mask = mask_for(count);
    b->node_table = must_calloc(b->node_mask + 1u, sizeof(uint32_t));
    b->root_table = must_calloc(b->root_mask + 1u, sizeof(uint32_t));
    b->text = must_calloc(text, 1);
    b->order = must_calloc(segments + 1, sizeof(*b->order));
}

static void free_build(struct build *b)
{
    free(b->items);
    free(b->nodes);
    free(b->roots);
    free(b->node_table);
    free(b->root_table);
    free(b->text);
    free(b->order);
}

/* Zeroed. A lookup in a large trie waits for memory alone, half of that for the page tables: huge pages
 * spare them, where the system has some. */
static struct ag_trie *alloc_block(size_t bytes)
{
    bool huge = bytes >= HUGE_PAGE_BYTES / 4;
    size_t align = huge ? HUGE_PAGE_BYTES : AG_CACHE_LINE;
    struct ag_trie *t = aligned_alloc(align, (bytes + align - 1) / align * align);

    if (!t) {
        ag_panic(__FILE__, __LINE__, "out of memory for the routes");
    }
    if (huge) {
        (void)madvise(t, (bytes + align - 1) / align * align, MADV_HUGEPAGE); /* a wish */
    }
    memset(t, 0, bytes);
    return t;
}

struct ag_trie *ag_trie_build(const struct ag_trie_entry *entries, size_t count)
{
    struct build b;
    struct ag_trie *out;
    size_t bytes;

    alloc_build(&b, entries, count);
    for (size_t i = 0; i < count; i++) {
        add_pattern(&b, &entries[i]);
    }
    order_nodes(&b);
    place_all(&b);
    bytes = ((size_t)b.used * 4 + AG_CACHE_LINE - 1) / AG_CACHE_LINE * AG_CACHE_LINE;
    out = alloc_block(bytes);
    out->bytes = bytes;
    b.out = out;
    place_all(&b);
    AG_ASSERT((size_t)b.used * 4 <= bytes && b.used < 1u << (32 - AG_TRIE_FLAG_BITS));
    fill_hosts(&b);
    free_build(&b);
    return out;
}
