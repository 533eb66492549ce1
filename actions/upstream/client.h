/*
 * client: requests of the server's own (proto/client.h), over the upstream pools of a shard.
 */
#pragma once
#include "actions/action.h"
#include "actions/upstream/upstream.h"
#include "proto/client.h"

/* Where requests go; stays until they have ended. */
struct ag_client_target {
    const struct ag_upstream *upstream;
    struct ag_upstream_timeouts timeouts;
    struct ag_span path; /* with the query */
};

/* The shard's, from its context; valid as long as its actions are open. */
struct ag_client *ag_client_of(struct ag_context *ctx);
extern const struct ag_client_ops ag_client_ops;

/* Where requests to `url` ("http://host[:port][/path[?query]]") go; lives in `arena`. NULL: it is none that this
 * can ask, or holds what may not stand in a path or a query (RFC 3986), such as a line's end.
 *   total_ms  how long an answer may take */
AG_MUST_USE const struct ag_client_target *
ag_client_target_new(struct ag_arena *arena, struct ag_span url, uint32_t total_ms);

struct ag_upstream;
/* A path, with its query, of an upstream of the config; all live as long as the target. */
AG_MUST_USE const struct ag_client_target *ag_client_target_of(struct ag_arena *arena,
                                                               const struct ag_upstream *upstream,
                                                               struct ag_span path,
                                                               uint32_t total_ms);
/* Another path of the same. NULL: no memory. */
AG_MUST_USE const struct ag_client_target *ag_client_target_at(struct ag_arena *arena,
                                                               const struct ag_client_target *other,
                                                               struct ag_span path);
