/*
 * static_cache: small files held in a shard's memory, with their answer's head written out.
 *
 *   key: route settings, request path        entry: one malloc'ed block
 *   [ entry | key | path | values, head | content ]
 *
 *   FILLING --insert--> LISTED --evicted, replaced or changed--> UNLISTED --last reference--> freed
 *
 * An entry is a block: an answer in flight keeps it alive after it was evicted. All memory, that of
 * unlisted entries included, counts against the bound. Eviction is CLOCK: a hit sets a bit. A listed
 * entry is compared with the file system at most once a second; while that runs, requests are served
 * from memory if the last look is less than two seconds old, else they wait for its outcome. An index that
 * is not a directory's first choice goes at its first look.
 */
#pragma once
#include "actions/static/static_dirs.h"
#include "actions/static/static_rep.h"

/* An entry older than this is not served before it was looked at again. */
#define AG_STATIC_STALE_MS 2000u
/* Nor is one that nobody could look at for this long, as helpers or descriptors ran out. */
#define AG_STATIC_UNKNOWN_MS 10000u

struct ag_static_cache;

struct ag_static_key {
    const struct ag_static_settings *settings;
    struct ag_span path; /* of the request, normalised; empty for a fallback */
    bool fallback;
};

struct ag_static_entry {
    struct ag_block block; /* first; refs: one of the list, one of each answer or operation */
    struct ag_static_cache *cache;
    struct ag_link clock;         /* while listed */
    struct ag_static_entry *next; /* in its bucket, while listed */
    uint64_t hash;
    uint64_t id[2]; /* of the settings */
    struct ag_span key;
    const char *path; /* of the file, below the root */
    uint64_t charge_bytes;
    uint64_t checked_ms;
    bool fallback, listed, used;
    bool second; /* a better one may come: of a directory whose first index names are missing */
    bool busy;   /* being looked at: dir_waiter or op is in use */
    enum ag_follow follow;
    struct ag_file_stat stat;
    struct ag_static_rep rep;
    struct ag_prepared prepared;
    struct ag_field fields[AG_STATIC_FIELDS];
    uint8_t *content;
    uint8_t *values, *values_end; /* room for the values and the head */
    /* Of a look at the file system: */
    const struct ag_static_root *root; /* of a snapshot, held meanwhile */
    struct ag_block *snapshot_ref, *dir;
    struct ag_static_waiter dir_waiter;
    struct ag_link waiters;
    struct ag_file_op op;
};

struct ag_static_cache {
    struct ag_loop *loop;
    struct ag_static_dirs dirs;
    struct ag_static_entry **buckets;
    uint32_t count;       /* listed entries */
    uint32_t ops;         /* looks in flight */
    struct ag_link clock; /* listed entries; the hand is at the front */
    uint64_t used_bytes;  /* of all entries that are not freed yet */
    uint64_t hits, misses, evictions;
    bool closed;
};

/* AG_ENOMEM. */
AG_MUST_USE enum ag_status ag_static_cache_new(struct ag_loop *l, struct ag_static_cache **out);
/* What it takes when it holds `max_bytes` of entries, the allocator's share of that included. */
uint64_t ag_static_cache_bytes(uint64_t max_bytes);
/* Waits for looks in flight; the last answer that holds an entry frees the rest. */
void ag_static_cache_free(struct ag_static_cache *c);

/* The listed entry, borrowed, or NULL. */
struct ag_static_entry *ag_static_cache_find(struct ag_static_cache *c,
                                             const struct ag_static_key *key);

/* Room for a file of st->size_bytes at `content`; held once, for the caller. Evicts what must go; NULL
 * when the bound or the system leaves no room. `path` is copied. */
AG_MUST_USE struct ag_static_entry *ag_static_entry_new(struct ag_static_cache *c,
                                                        const struct ag_static_key *key,
                                                        const char *path,
                                                        const struct ag_file_stat *st);
/* The content is there: computes the validators and writes the head. `key` as at new. */
void ag_static_entry_fill(struct ag_static_entry *e, const struct ag_static_key *key);
/* Lists a filled entry in place of an older one of the same key. */
void ag_static_entry_insert(struct ag_static_entry *e);

/* Compares with the file system; an entry whose file has changed is unlisted, one that could not be compared
 * stays as old as it was. `w` (may be NULL) is called afterwards. `snapshot_ref` (may be NULL) keeps `key->settings` alive meanwhile. */
void ag_static_entry_look(struct ag_static_entry *e, const struct ag_static_key *key,
                          struct ag_block *snapshot_ref, struct ag_static_waiter *w);
