/*
 * rewrite_answer: redirects and cookies of an upstream's answer, as they have to be for its client.
 *
 *   auto     the upstream's own authority goes, its paths become those of the route:
 *              request /api/x sent as /v1/x     "/v1" is inner, "/api" is outer
 *              http://10.0.0.1:8080/v1/y  -->  /api/y
 *              /v1/y?q#f                  -->  /api/y?q#f
 *              http://other.example/v1/y  -->  as it is
 *   maps     what a Location begins with, and what stands for it; before auto
 *
 * What comes out never begins with "//" or "/\": a browser would take what follows for a host.
 */
#pragma once
#include "actions/proxy/rewrite.h"

/* The request's path as the client has it, and as the upstream has it: of all paths below, without a slash at the end;
 * or, `whole`, those two alone. */
struct ag_rewrite_paths {
    struct ag_span outer, inner;
    bool whole;
};

/* Who answered, and what it was asked. */
struct ag_rewrite_peer {
    const struct ag_template *target;     /* of the route; NULL: the request's path */
    const struct ag_rewrite_paths *paths; /* where they are known already; else NULL */
    struct ag_span own[3];                /* authorities that are the upstream's own; empty: none */
    bool tls; /* it is spoken to over TLS: the port that goes without saying */
};

/* Whether there may be something to rewrite among them. */
static inline bool ag_rewrite_may_concern(const struct ag_fields *f)
{
    const uint64_t ids = UINT64_C(1) << AG_FIELD_LOCATION | UINT64_C(1) << AG_FIELD_SET_COOKIE |
                         UINT64_C(1) << AG_FIELD_OTHER;

    for (uint16_t i = 0; i < f->count; i++) {
        if (ids >> f->v[i].id & 1) {
            return true;
        }
    }
    return false;
}
/* Changes Location, Content-Location, Refresh and Set-Cookie in ex->res. Values are in the exchange's arena.
 * AG_ENOMEM: some are as they came. */
AG_MUST_USE enum ag_status ag_rewrite_answer(const struct ag_rewrite *rw, struct ag_exchange *ex,
                                             const struct ag_rewrite_peer *peer);

/* What an answer's rewriting needs, all in the exchange's arena. */
struct ag_rewrite_kept {
    struct ag_rewrite rw; /* redirects and cookies */
    struct ag_rewrite_peer peer;
    struct ag_rewrite_paths paths;
};
/* rewrite_keep.c: for an exchange whose snapshot goes before its answer has come. NULL: no memory. */
AG_MUST_USE const struct ag_rewrite_kept *ag_rewrite_keep(const struct ag_rewrite *rw,
                                                          struct ag_exchange *ex,
                                                          const struct ag_rewrite_peer *peer);

/* ---- parts ---- */

/* AG_ENOMEM. */
AG_MUST_USE enum ag_status ag_rewrite_find_paths(const struct ag_rewrite *rw,
                                                 struct ag_exchange *ex,
                                                 const struct ag_template *target,
                                                 struct ag_rewrite_paths *out);

/* What `s` becomes by the first map that fits, where its path ends at a byte of `ends` ("/?#"). Appends it, at
 * most s.len + AG_REWRITE_VALUE_MAX bytes. False: none fits, nothing is appended. */
bool ag_rewrite_mapped(const struct ag_rewrite_maps *maps, const struct ag_exchange *ex,
                       struct ag_span s, const char *ends, struct ag_buf *out);
/* rewrite_cookie.c: appends a Set-Cookie value as it has to be. */
void ag_rewrite_cookie(const struct ag_rewrite_cookies *c, const struct ag_exchange *ex,
                       struct ag_span value, struct ag_buf *out);
/* Bytes that it appends at most. */
size_t ag_rewrite_cookie_bound(const struct ag_rewrite_cookies *c, struct ag_span value);
