/* admin_upstreams: what the endpoints that show upstreams and those that change them share. */
#pragma once
#include "actions/upstream/upstream_pool.h"
#include "tools/admin.h"

/* An upstream of the configuration that this shard serves by. */
struct ag_admin_upstream {
    const struct ag_upstream *up;
    struct ag_span zone;             /* where this process stands; empty: not said */
    struct ag_upstream_group *group; /* held */
};

/* The one that the path (segment 1) and the query (?scheme=) say. False: there is none, or there are several, which was
 * answered. */
AG_MUST_USE bool ag_admin_upstream_find(struct ag_admin *a, struct ag_exchange *ex,
                                        struct ag_admin_upstream *out);
/* What a target writes before "://" to have servers spoken to so; two that come to the same have one name. */
const char *ag_admin_upstream_scheme(enum ag_upstream_protocol protocol, bool tls, bool offers_h2);
/* The server at the path's segment 3, as far as such an address can be: else it was answered. `arena`: malloc. */
AG_MUST_USE bool ag_admin_upstream_place(struct ag_exchange *ex, const struct ag_admin_upstream *u,
                                         struct ag_arena *arena, struct ag_upstream_server *out);
/* The server that is at `place` now, as JSON; 404 when none is. */
void ag_admin_upstream_answer(struct ag_admin *a, struct ag_exchange *ex, unsigned status,
                              const struct ag_admin_upstream *u,
                              const struct ag_upstream_server *place);
