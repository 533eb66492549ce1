/*
 * mirror: copies of requests for another upstream, whose answers nobody reads.
 *
 *   mirror: {to: NAME or URL, percent: 10, buffer: 64k}       of a route
 *
 *   exchange --head, and content that was kept (replay.h)--> mirror --call--> its upstream
 *                                                               `--- the answer is dropped
 *
 * A mirror is a thing of its own: it has its own pages, lives on when the exchange is over, and nothing of it
 * comes back. It starts when the request is whole; content is shared with the exchange, not copied, and bounded
 * by `buffer`: of a longer request there is no copy. A shard has AG_MIRRORS_MAX at once; more are left out, and
 * so are all when buffers run short. Trailers of a request are not copied.
 */
#pragma once
#include "actions/upstream/upstream_pool.h"

#define AG_MIRRORS_MAX  64u
#define AG_MIRROR_PARTS 10000u /* a whole, in shares of requests */

/* Of a route; in the snapshot. */
struct ag_mirror_settings {
    const struct ag_upstream *upstream;
    uint32_t parts;        /* of AG_MIRROR_PARTS requests, those that are mirrored */
    uint32_t buffer_bytes; /* of a request's content */
};

/* One shard's. */
struct ag_mirrors {
    struct ag_loop *loop;
    struct ag_upstreams *upstreams;
    struct ag_link live;
    uint32_t count;
    uint64_t begun, answered, failed, left_out;
};

/* What a copy is made of; borrowed for the call. */
struct ag_mirror_request {
    const struct ag_request *req;   /* method and fields as the upstream of the route gets them */
    struct ag_span target;          /* origin-form */
    const struct ag_chain *content; /* all of it; NULL: none */
    bool te_trailers;
};

void ag_mirrors_init(struct ag_mirrors *m, struct ag_upstreams *u);
/* Gives up all that are under way. */
void ag_mirrors_deinit(struct ag_mirrors *m);
/* Reads `n`: NAME, or {to: NAME, percent: 10, buffer: 64k}.
 *   out_to  the node that says where to; the caller finds the upstream
 * False after a diagnosis. */
bool ag_mirror_read(const struct ag_node *n, struct ag_diags *diags, struct ag_mirror_settings *out,
                    const struct ag_node **out_to);
/* Whether this request is one of those that are mirrored: a throw of the dice. */
bool ag_mirror_wants(struct ag_mirrors *m, const struct ag_mirror_settings *s);
/* Sends a copy. Where that cannot be it is counted as left out, and nothing else happens. */
void ag_mirror_send(struct ag_mirrors *m, const struct ag_mirror_settings *s,
                    const struct ag_mirror_request *r);
/* A copy that was wanted cannot be made: the content is too long, or was never whole. */
static inline void ag_mirror_leave_out(struct ag_mirrors *m)
{
    m->left_out++;
}
