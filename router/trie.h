/*
 * trie: which route a request takes. Built once into one contiguous, immutable block; a lookup
 * allocates nothing and costs by the path's depth, not by the number of routes.
 *
 *   listener port, host (exact, *.suffix, any)  ->  tree of segments  ->  leaf: entries by method
 *
 * Choice (SPEC.md section 4): host exact, suffix (longest first), any; then segment by segment exact >
 * param > splat; a route that does not take the method is no candidate, the search goes on; explicit
 * method beats none; then declaration order.
 */
#pragma once
#include "router/dsl.h"

struct ag_trie;

/* One route for the builder; `id` is what a lookup returns, and the declaration order. */
struct ag_trie_entry {
    const struct ag_pattern *pattern;
    uint32_t methods; /* effective when none is named (static: GET and HEAD); 0: every method */
    uint32_t id;
};

/* One malloc'ed block; never fails but for memory (panics). */
AG_MUST_USE struct ag_trie *ag_trie_build(const struct ag_trie_entry *entries, size_t count);
void ag_trie_free(struct ag_trie *t);
size_t ag_trie_bytes(const struct ag_trie *t);

#define AG_TRIE_NONE UINT32_MAX

struct ag_trie_query {
    struct ag_span host; /* as received, any case, no port; empty: none */
    uint16_t port;       /* of the listener */
    struct ag_span path; /* normalised, begins with '/' (or is "*") */
    enum ag_method method;
    struct ag_span method_name; /* for OTHER */
};

/* The winning id, or AG_TRIE_NONE. */
uint32_t ag_trie_lookup(const struct ag_trie *t, const struct ag_trie_query *q);
/* After NONE: methods that some matching pattern takes (bits; bit 0: some other token too), 0: no
 * pattern matches the path at all (404). HEAD is in it where GET is. */
uint32_t ag_trie_allowed(const struct ag_trie *t, const struct ag_trie_query *q);

/* Every route whose pattern matches the path, whatever its methods (given as in ag_trie_allowed), in
 * the order of the choice; hosts and ports as in a lookup. */
typedef void ag_trie_fn(void *arg, uint32_t id, uint32_t methods);
void ag_trie_each(const struct ag_trie *t, const struct ag_trie_query *q, ag_trie_fn *fn,
                  void *arg);
