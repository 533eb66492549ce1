/*
 * rewrite: what a proxy route changes in a request's path and query on the way to the upstream, and in
 * an answer's redirects and cookies on the way back.
 *
 *   /api/users?debug=1   --strip /api, add /v1, remove debug-->   /v1/users
 *   Location: http://10.0.0.1:8080/v1/users/7   <--auto--          /api/users/7
 *
 * Paths are changed in their normal form, by whole segments: "/api" is no prefix of "/apix". A route
 * whose settings have none of it has no struct ag_rewrite.
 */
#pragma once
#include "actions/action.h"
#include "proto/vars.h"

/* A text, or what it begins with, and what stands for it. */
struct ag_rewrite_map {
    struct ag_span from;
    uint16_t
        any_case; /* so many bytes of `from`, scheme and authority, are compared without case */
    const struct ag_vars *to; /* NULL: what has it goes (Domain of a cookie) */
};

struct ag_rewrite_maps {
    const struct ag_rewrite_map *v;
    uint16_t count;
};

/* A parameter of a query. */
struct ag_rewrite_param {
    struct ag_span name;         /* decoded */
    struct ag_span encoded;      /* as it is written */
    const struct ag_vars *value; /* NULL: it is only removed */
    bool removes;                /* those of that name go first */
};

struct ag_rewrite_redirects {
    bool automatic; /* by where the request went */
    struct ag_rewrite_maps maps;
};

enum ag_rewrite_flag { AG_REWRITE_KEEP = 0, AG_REWRITE_SET, AG_REWRITE_REMOVE };

struct ag_rewrite_cookies {
    struct ag_rewrite_maps domains; /* `from` "*": any */
    struct ag_rewrite_maps paths;
    enum ag_rewrite_flag secure, http_only, same_site;
    struct ag_span same_site_value; /* SET */
};

struct ag_rewrite {
    struct ag_span strip, add; /* without a slash at the end; empty: none */
    const struct ag_rewrite_param *params;
    uint16_t param_count;
    const struct ag_rewrite_redirects *redirects; /* NULL: they stay */
    const struct ag_rewrite_cookies *cookies;     /* NULL: they stay */
};

/* Bytes that a value with variables may come to; a longer one is left empty. */
#define AG_REWRITE_VALUE_MAX 1024u

/* ---- rewrite.c: requests ---- */

/* Whether path or query are changed. */
bool ag_rewrite_has_target(const struct ag_rewrite *rw);
/* `path`, which a target has made of a request's, as it goes out: what follows its first slash has not made it two, which
 * servers take for a host. Two that the config has written stay. */
struct ag_span ag_rewrite_one_slash(const struct ag_template *target, struct ag_span path);
/* Path and query for the upstream, in the exchange's arena.
 *   target  what the route's target makes of the path; NULL: it is kept
 * Its ptr is NULL when there is no room. */
struct ag_span ag_rewrite_target(const struct ag_rewrite *rw, struct ag_exchange *ex,
                                 const struct ag_template *target);
/* Adds X-Forwarded-Prefix to the fields for the upstream when a prefix was taken off, unless a filter has set
 * it. AG_ENOMEM. */
AG_MUST_USE enum ag_status ag_rewrite_fields(const struct ag_rewrite *rw, struct ag_exchange *ex,
                                             struct ag_fields *fields);

/* ---- parts, for tests ---- */

/* Whether `path` is `prefix` or lies below it; every path lies below the empty one. */
bool ag_rewrite_is_below(struct ag_span path, struct ag_span prefix);
/* Appends the query without parameters that are removed, with those that are added; at most
 * ag_rewrite_query_bound bytes. */
void ag_rewrite_query(const struct ag_rewrite *rw, const struct ag_exchange *ex,
                      struct ag_buf *out);
size_t ag_rewrite_query_bound(const struct ag_rewrite *rw, const struct ag_exchange *ex);
/* Appends a name or value of a query, percent-encoded: at most three bytes for each. */
void ag_rewrite_encode(struct ag_span s, struct ag_buf *out);
