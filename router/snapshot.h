/*
 * snapshot: everything a shard needs to serve, compiled from one config, immutable.
 *
 *   tree of nodes --model--> typed, checked --compile--> snapshot: trie, routes, chains, settings
 *
 * One malloc arena holds it all, freed at once when no shard uses it any more. Each shard counts its own
 * uses in a block (ag_context.snapshot_ref); the last shard's release frees it.
 */
#pragma once
#include "engine/tls_context.h"
#include "filters/filter.h"
#include "router/config.h"
#include "router/model.h"
#include "router/trie.h"

/* What a route becomes within a region of its paths. */
struct ag_route_split {
    uint32_t region; /* ascending */
    uint32_t route;  /* index in the snapshot */
};

/*
 * Declared routes come first, in order; then implied ones ("/docs" beside the directory "/docs/"); both
 * are in the trie. Then what groups split from these: splitting must not change which route wins, so
 * splits are not in the trie, but found by the region of the path once their origin has won.
 */
struct ag_route {
    struct ag_pattern pattern; /* as declared */
    struct ag_action_decl decl;
    struct ag_action action;
    struct ag_filter_chain filters;
    const struct ag_route_limits *limits; /* by limits_index; model->route_limit_count of them */
    uint32_t id;                          /* declaration order */
    uint32_t split_of;       /* the declared route it was split from at a group; else its own id */
    const char *group;       /* the group's match, or NULL; for explain */
    struct ag_pattern match; /* what it serves: pattern, subtree, or the part within the group */
    const struct ag_route_split *splits; /* NULL: the groups hold for all of it, or none does */
    uint32_t split_count;
    enum ag_client_cert client_cert;
    struct ag_span hsts; /* Strict-Transport-Security of answers over TLS (RFC 6797); empty: none */
    const struct ag_error_pages *errors; /* NULL: none */
};

/* A place of the config that has pages for errors, for people. */
struct ag_error_place {
    struct ag_error_place *next;
    struct ag_span name;
    const struct ag_error_level *level;
};

/* Patterns of hosts: "a.example", "*.example" with any number of labels; an empty one: all. */
struct ag_tls_hosts {
    const struct ag_span *v;
    uint32_t count;
};

struct ag_snapshot {
    struct ag_arena arena;
    const struct ag_model *model;
    const struct ag_route *routes;
    uint32_t route_count;    /* splits included */
    uint32_t declared_count; /* as written, the first ones */
    struct ag_trie *trie;
    struct ag_trie *regions; /* of groups, for routes with splits; NULL: none */
    const struct ag_error_place *error_places;
    /* By region, 0: of no group: what holds for paths without a route; NULL: there are no pages. */
    const struct ag_error_pages *const *region_errors;
    void *shared[AG_ACTION_KINDS];
    struct ag_tls_files *tls_files;           /* what was read of certificates */
    struct ag_tls_hosts cert_hosts;           /* some route there wants a client's certificate */
    struct ag_tls_server *tls[AG_LISTEN_MAX]; /* by listener; ag_snapshot_open_tls. NULL: plain */
    _Atomic uint32_t users;                   /* shards that hold it */
};

/* Compiles what ag_config_load read. Takes over `arena` (the one the tree lives in; the caller's struct
 * is left empty) when it succeeds. `opener` is the one that the tree was loaded with. NULL after
 * diagnoses. */
AG_MUST_USE struct ag_snapshot *ag_snapshot_compile(struct ag_arena *arena,
                                                    const struct ag_node *root,
                                                    const char *base_dir, struct ag_opener *opener,
                                                    struct ag_diags *diags);
void ag_snapshot_free(struct ag_snapshot *s);

/*
 * Makes the TLS library's objects of the settings, of listeners and of upstreams; once, before it serves or to
 * learn whether it could. Freed with the snapshot, but for what connections still hold.
 *   shard_count  shards that will accept
 *   tickets      the process's ring, or NULL: no tickets
 * AG_EINVAL: the library refuses something, which `diags` tells.
 */
AG_MUST_USE enum ag_status ag_snapshot_open_tls(struct ag_snapshot *s, uint32_t shard_count,
                                                struct ag_tls_tickets *tickets,
                                                struct ag_diags *diags);

/* The route for a request, of its group where groups split it; NULL: none. */
const struct ag_route *ag_snapshot_find(const struct ag_snapshot *s, const struct ag_trie_query *q);

/* The pipeline that dispatches over context->snapshot (dispatch.c). */
extern const struct ag_pipeline_ops ag_dispatch;
