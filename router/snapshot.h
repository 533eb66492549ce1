/*
 * snapshot: everything a shard needs to serve, compiled from one config, immutable.
 *
 *   tree of nodes --model--> typed, checked --compile--> snapshot: trie, routes, chains, settings
 *
 * One malloc arena holds it all, freed at once when no shard uses it any more. Each shard counts its own
 * uses in a block (ag_context.snapshot_ref); the last shard's release frees it.
 */
#pragma once
#include "filters/filter.h"
#include "router/config.h"
#include "router/model.h"
#include "router/trie.h"

struct ag_route {
    struct ag_pattern pattern; /* as declared */
    struct ag_action_decl decl;
    struct ag_action action;
    struct ag_filter_chain filters;
    struct ag_route_limits limits;
    uint32_t id;             /* declaration order */
    uint32_t split_of;       /* the declared route it was split from at a group; else its own id */
    const char *group;       /* the group's match, or NULL; for explain */
    struct ag_pattern match; /* what the trie has: pattern, or the group's boundary */
};

struct ag_snapshot {
    struct ag_arena arena;
    const struct ag_model *model;
    const struct ag_route *routes;
    uint32_t route_count;
    struct ag_trie *trie;
    void *shared[AG_ACTION_KINDS];
    struct ag_route_limits default_limits; /* before and without a route */
    _Atomic uint32_t users;                /* shards that hold it */
};

/* Compiles what ag_config_load read. Takes over `arena` (the one the tree lives in; the caller's struct
 * is left empty) when it succeeds. NULL after diagnoses. */
AG_MUST_USE struct ag_snapshot *ag_snapshot_compile(struct ag_arena *arena,
                                                    const struct ag_node *root,
                                                    const char *base_dir, struct ag_diags *diags);
void ag_snapshot_free(struct ag_snapshot *s);

/* The pipeline that dispatches over context->snapshot (dispatch.c). */
extern const struct ag_pipeline_ops ag_dispatch;
