/*
 * compile: what the parts of the snapshot's compiler share. Private to router/compile*.c.
 *
 *   compile.c          the order of things; trie; the snapshot itself
 *   compile_route.c    one declared route: DSL line or long form
 *   compile_filter.c   plugins, filter lists, chains
 *   compile_group.c    which groups hold where; regions of paths
 *   compile_tls.c      client certificates and HSTS of routes; what listeners ask for because of them
 *   compile_errors.c   pages for errors: which levels hold where
 *
 * Temporary arrays are malloc'ed and freed with the compiler; what stays is in the arena.
 */
#pragma once
#include "router/snapshot.h"

/* A filter as a list names it, configured. */
struct ag_filter_ref {
    const struct ag_filter_ops *ops;
    const void *settings;
    const void *instance; /* a named one is attached to a route once, however often it is listed */
};

struct ag_filter_refs {
    const struct ag_filter_ref *v;
    uint16_t count;
};

/* What a route or a group says of TLS. */
struct ag_compile_tls {
    enum ag_client_cert client_cert;
    bool has_hsts;
    struct ag_span hsts;
};

struct ag_compile_plugin {
    struct ag_filter_ref ref; /* ops NULL: it had mistakes */
};

struct ag_compile_group {
    const struct ag_group *decl;
    const char *name;              /* the match, for people */
    struct ag_pattern patterns[2]; /* match; for one that ends in a splat, also without the slash */
    uint16_t pattern_count;        /* 0: it had mistakes */
    struct ag_filter_refs filters;
    const struct ag_node *timeouts; /* or NULL */
    struct ag_compile_tls tls;
    const struct ag_error_level *errors;
    uint32_t outer; /* groups that contain it: the order of filters */
};

/* The groups that hold for some paths, outer ones first; each set exists once. */
struct ag_compile_set {
    const uint32_t *groups;
    uint32_t count;
    bool has_chain;
    struct ag_filter_chain chain; /* of a route without filters of its own */
    const struct ag_route_limits
        *limits; /* of one without limits of its own; NULL: not asked yet */
    bool has_errors;
    const struct ag_error_pages *errors; /* of one without pages of its own */
};

/*
 * Where a set holds: a group's pattern, or what several have in common. Regions are closed under
 * intersection, so of those that match a path one lies within all others, and it is the one that the
 * trie prefers.
 */
struct ag_compile_region {
    struct ag_pattern pattern;
    uint32_t set;
};

/* What a declared route has beside its struct ag_route. */
struct ag_compile_own {
    struct ag_filter_refs filters;
    const struct ag_node *options; /* the long form, or NULL */
    struct ag_compile_tls tls;
    const struct ag_error_level *errors;
};

struct ag_compile {
    struct ag_arena *arena;
    struct ag_diags *diags;
    struct ag_model *model; /* done but for what listeners ask for (compile_tls.c) */
    struct ag_tls_files *tls_files;
    struct ag_action_build build;
    struct ag_compile_plugin *plugins;
    struct ag_compile_group *groups; /* as declared */
    struct ag_compile_set *sets;     /* 0: no group */
    uint32_t set_count, set_cap;
    struct ag_compile_region *regions; /* 0: none */
    uint32_t region_count;
    bool region_hosts; /* some region has a host or port */
    struct ag_trie *region_trie;
    const struct ag_error_level *errors; /* the server's */
    struct ag_error_place *first_errors, *last_errors;
    struct ag_route *routes; /* declared, then implied, then split */
    uint32_t route_count, route_cap, declared;
    struct ag_compile_own *own; /* by declared route */
};

/* Grows a malloc'ed array to hold one more. */
void *ag_compile_grow(void *array, uint32_t count, uint32_t *cap, size_t size);

/* The status of what reads a part of the config. One that failed has said why, here or there; where nothing at all was
 * said this is, at `pos`: what fails must not pass for good. */
AG_MUST_USE enum ag_status ag_compile_told(struct ag_compile *c, enum ag_status st,
                                           struct ag_pos pos, const char *what);

/* ---- compile_route.c ---- */

/* Parses the model's routes into c->routes and c->own; mistakes are reported. */
void ag_compile_routes(struct ag_compile *c);

/* ---- compile_filter.c ---- */

void ag_compile_plugins(struct ag_compile *c);
/* A `filters:` list; NULL: none. */
AG_MUST_USE enum ag_status ag_compile_filters(struct ag_compile *c, const struct ag_node *list,
                                              struct ag_filter_refs *out);
/* The chain of a set's groups and a route's own filters. AG_EINVAL after a diagnosis at `pos`. */
AG_MUST_USE enum ag_status ag_compile_chain(struct ag_compile *c, uint32_t set,
                                            const struct ag_filter_refs *own, struct ag_pos pos,
                                            struct ag_filter_chain *out);

/* ---- compile_group.c ---- */

void ag_compile_groups(struct ag_compile *c);
/* Makes regions, sets and the region trie from the groups. */
AG_MUST_USE enum ag_status ag_compile_regions(struct ag_compile *c);
/* The set that holds for all of a pattern. */
uint32_t ag_compile_base_set(struct ag_compile *c, const struct ag_pattern *p);
/* What two patterns have in common; false: nothing. Segments lie in `segments` (AG_SEGMENTS_MAX). */
bool ag_pattern_meet(const struct ag_pattern *a, const struct ag_pattern *b,
                     struct ag_segment *segments, struct ag_pattern *out);
/* Same hosts, ports and segments, parameters' names aside. */
bool ag_pattern_same(const struct ag_pattern *a, const struct ag_pattern *b);

/* ---- compile_tls.c ---- */

/* The keys of a group or route; mistakes are reported. */
void ag_compile_tls_keys(struct ag_compile *c, const struct ag_node *owner,
                         struct ag_compile_tls *out);
/* What a set's groups and then the route itself say, into `r`. */
void ag_compile_tls_route(const struct ag_compile *c, const struct ag_compile_set *set,
                          const struct ag_compile_own *own, struct ag_route *r);
/* With all routes known: finishes the settings of listeners; the hosts with client certificates into *out. Mistakes
 * are reported. */
void ag_compile_tls_listeners(struct ag_compile *c, struct ag_tls_hosts *out);

/* ---- compile_errors.c ---- */

/* The key of a server, group or route, whose place is called `name`; mistakes are reported. */
void ag_compile_errors_read(struct ag_compile *c, const struct ag_node *owner, struct ag_span name,
                            const struct ag_error_level **out);
/* What holds for a route of that set; `own` may be NULL. */
const struct ag_error_pages *ag_compile_errors(struct ag_compile *c, struct ag_compile_set *set,
                                               const struct ag_error_level *own);
/* What holds where there is no route, and what is told of all levels. */
void ag_compile_errors_snapshot(struct ag_compile *c, struct ag_snapshot *s);
