/*
 * trie_block: how the compiled trie lies in memory. Private to router/trie*.c.
 *
 *   struct ag_trie | hosts | groups | records ...       one block; offsets count units of 4 bytes
 *
 *   hosts   (host, port) -> root record          open addressing, slots {hash, record}
 *   groups  (node, segment) -> where the records of that hash begin, and which there may be; the next group
 *           tells their end
 *
 *   record  of a node: parent, length | text | parameter child, splat's leaves | own leaves ...
 *   leaf    one route: id, methods, flags        names of other methods lie elsewhere
 *
 * A chain of literal nodes that branches nowhere is one node, whose text has several segments; its
 * record is found by the first. A lookup pays for cache misses above all, so records are packed (some
 * 35 bytes a route), lie in the order of their hash without slots between, and a parameter child lies
 * behind its parent: one of many routes costs about two misses, side by side, because the levels above
 * are few and hot, and the groups are small. A segment that is not there mostly costs none: its group says so,
 * and the groups' table is small enough to stay near.
 */
#pragma once
#include "router/trie.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

/* What an unnamed route takes: all but the two that are always answered with 405. */
#define AG_TRIE_ANY \
    (((1u << AG_METHODS) - 1u) & ~(1u << AG_METHOD_TRACE) & ~(1u << AG_METHOD_CONNECT))
_Static_assert(AG_METHODS <= 16, "methods of a leaf have 16 bits");

struct ag_trie_slot {
    uint32_t hash;
    uint32_t record; /* 0: empty */
};

#define AG_TRIE_LAST     1u /* of this pattern */
#define AG_TRIE_OWN_HEAD 2u /* HEAD was named, not implied */

struct ag_trie_leaf {
    uint32_t id;
    uint16_t methods; /* bits; HEAD is in where GET is; bit 0: any other token */
    uint8_t flags;
    uint8_t other_count; /* above 0: the next leaf's place holds their record's offset */
};
_Static_assert(sizeof(struct ag_trie_leaf) == 8, "leaves are packed behind their node");

#define AG_TRIE_PARAM     1u /* fields that are there, in this order */
#define AG_TRIE_SPLAT     2u
#define AG_TRIE_OWN       4u
#define AG_TRIE_EDGES     8u /* has literal children */
#define AG_TRIE_FLAG_BITS 4u

struct ag_trie_node {
    uint32_t parent_flags; /* the parent's offset, then the flags */
    uint16_t len;          /* bytes of text */
    uint16_t units;        /* of the record and the parameter children that lie behind it */
    uint8_t text[];
};

struct ag_trie_group {
    uint32_t record; /* the first; they lie side by side */
    uint32_t marks;  /* a bit for each, by ag_trie_mark */
};

struct ag_trie_root {
    uint32_t node;
    uint32_t seed; /* of the keys below */
    uint16_t port;
    uint8_t host_len;
    uint8_t host[]; /* a suffix begins with its dot */
};

/* Bytes that may be read beyond the last record. */
#define AG_TRIE_SLACK 8u

struct ag_trie {
    size_t bytes;
    uint32_t host_slots, groups; /* counts */
    uint32_t host_at, group_at;
    uint32_t any_root; /* record of the root without host and port; 0: none */
    bool has_hosts, has_suffixes, has_ports;
};

static inline const void *ag_trie_at(const struct ag_trie *t, uint32_t offset)
{
    return (const uint8_t *)t + (size_t)offset * 4;
}

static inline const struct ag_trie_slot *ag_trie_slots(const struct ag_trie *t, uint32_t offset)
{
    return (const struct ag_trie_slot *)ag_trie_at(t, offset);
}

/* The slot where a hash's search begins. */
static inline uint32_t ag_trie_home(uint32_t hash, uint32_t slots)
{
    return (uint32_t)((uint64_t)hash * slots >> 32);
}

static inline uint32_t ag_trie_host_hash(struct ag_span host, uint16_t port)
{
    return (uint32_t)XXH3_64bits_withSeed(host.ptr, host.len, port);
}

/*
 * Every node has a key: a hash of how it is reached, made of its parent's key and its first segment, in
 * words of 8 bytes, so that looking for a segment's end and hashing are one pass. Not secret: what
 * clients send is looked up, never put in, so nobody can fill a group. A segment has no NUL: the zeros
 * that fill its last word are unambiguous.
 */
static inline uint64_t ag_trie_key_start(uint64_t parent)
{
    return parent + 0x9e3779b97f4a7c15u;
}

static inline uint64_t ag_trie_key_word(uint64_t key, uint64_t word)
{
    key = (key ^ word) * 0xd6e8feb86659fd93u;
    return key ^ key >> 32;
}

static inline uint64_t ag_trie_key_param(uint64_t parent)
{
    return ag_trie_key_word(ag_trie_key_start(parent), 0);
}

/* The group of a node. */
static inline uint32_t ag_trie_group(uint64_t key, uint32_t groups)
{
    return ag_trie_home((uint32_t)(key >> 32), groups);
}

/* The bit of a node in its group's `marks`. */
static inline uint32_t ag_trie_mark(uint64_t key)
{
    return 1u << (key & 31u);
}

/* Bytes [at, at + 8) of `s` as a little-endian word; what is beyond the end is zero. */
static inline uint64_t ag_trie_word(struct ag_span s, size_t at)
{
    size_t left = s.len - at;
    uint64_t w = 0;

    if (ag_likely(left >= 8)) {
        memcpy(&w, s.ptr + at, 8);
    } else if (s.len >= 8) {
        memcpy(&w, s.ptr + s.len - 8, 8);
        w = left ? w >> (8 * (8 - left)) : 0;
    } else if (left >= 4) {
        uint32_t low, high; /* they overlap */

        memcpy(&low, s.ptr + at, 4);
        memcpy(&high, s.ptr + s.len - 4, 4);
        w = low | (uint64_t)high << (8 * (left - 4));
    } else {
        for (size_t i = 0; i < left; i++) {
            w |= (uint64_t)s.ptr[at + i] << (8 * i);
        }
    }
    return w;
}
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "words are read little-endian");

/* The high bit of each byte of `w` that is a slash, at least up to the first one. */
static inline uint64_t ag_trie_slashes(uint64_t w)
{
    uint64_t x = w ^ 0x2f2f2f2f2f2f2f2fu;

    return (x - 0x0101010101010101u) & ~x & 0x8080808080808080u;
}

/* The segment of `path` that begins at `at`: its end, and the key of a node `parent` + segment. */
static inline size_t ag_trie_scan(struct ag_span path, size_t at, uint64_t parent,
                                  uint64_t *out_key)
{
    uint64_t key = ag_trie_key_start(parent);

    for (; at < path.len; at += 8) {
        uint64_t w = ag_trie_word(path, at), slashes = ag_trie_slashes(w);

        if (slashes) {
            unsigned bits = (unsigned)__builtin_ctzll(slashes) & ~7u;

            *out_key = bits ? ag_trie_key_word(key, w & (((uint64_t)1 << bits) - 1)) : key;
            return at + bits / 8;
        }
        key = ag_trie_key_word(key, w);
    }
    *out_key = key;
    return path.len;
}
