/*
 * filter: what stands between route and action. Each is one file here and one line in registry.c.
 *
 *   request:   pre of each, in order    CONTINUE --> next ... action
 *                                       ANSWERED --> the filter has answered; no action runs
 *                                       WAIT     --> later: ex->pipeline->resume(ex, verdict)
 *                                       FAIL     --> 500
 *   response:  on_head, wrap_body, on_done of those whose pre has run, in reverse order
 *
 * While a filter waits the request's content is not read. When the client goes meanwhile, cancel is
 * called; the filter then lets go (ag_exchange_release, the hold taken by WAIT) and never resumes.
 * A route without filters pays nothing.
 *
 * Settings live in the snapshot. A tunnel or stream that outlives it by a reload goes on without: its
 * on_done is called then, not at its end. So a transform (wrap_body) copies what it needs of them, and
 * what a filter changes in the exchange are fields alone, or lies in the arena.
 */
#pragma once
#include "engine/node.h"
#include "proto/exchange.h"
#include "proto/media.h"

enum ag_verdict { AG_CONTINUE, AG_ANSWERED, AG_WAIT, AG_FAIL };

struct ag_filter_build {
    struct ag_arena *arena; /* the snapshot's */
    struct ag_diags *diags;
    const char *base_dir;
};

struct ag_filter_ops {
    const char *name;
    uint32_t state_bytes; /* of an exchange, zeroed; 0: none */
    /* `node`: the settings (map or scalar). AG_EINVAL after a diagnosis. */
    enum ag_status (*configure)(struct ag_filter_build *, const struct ag_node *node,
                                const void **out_settings);
    enum ag_verdict (*pre)(struct ag_exchange *, const void *settings, void *state);
    void (*cancel)(struct ag_exchange *, const void *settings, void *state);
    /* ex->res may be changed; not the framing. */
    void (*on_head)(struct ag_exchange *, const void *settings, void *state);
    /* A transform: takes from `source` and returns the body that the next one takes from; NULL: none
     * wanted. It sets ex->res.framing and content_length as its output needs. */
    struct ag_body *(*wrap_body)(struct ag_exchange *, const void *settings, void *state,
                                 struct ag_body *source);
    void (*on_done)(struct ag_exchange *, const void *settings, void *state);
    /* At load: what on_head makes of Content-Type, after `change` has been made already; NULL: nothing. */
    void (*media)(const void *settings, struct ag_media_change *change);
};

/* Part of the snapshot. */
struct ag_filter {
    const struct ag_filter_ops *ops;
    const void *settings;
    uint32_t state_offset; /* into the exchange's filter_data */
};

struct ag_filter_chain {
    const struct ag_filter *v;
    uint16_t count;
    uint32_t state_bytes; /* of all */
};

/* NULL when there is no such filter. */
const struct ag_filter_ops *ag_filter_find(struct ag_span name);
/* All names, for hints. */
const char *const *ag_filter_names(size_t *out_count);
/* Adds test filters to the registry (tests only, before any load); static table of `count`. */
void ag_filter_register_tests(const struct ag_filter_ops *const *table, size_t count);
