/*
 * rewrite_config: what the long form of a proxy route says of rewriting.
 *
 *   strip_prefix: /api
 *   add_prefix: /v1
 *   query: {set: {via: gate}, add: {ip: "{remote.ip}"}, remove: [debug]}
 *   rewrite_redirects: auto | off | [{from: "http://old.example/", to: /}, auto]
 *   cookies: {domain: {app.internal: ""}, path: {/: /app/}, secure: true, http_only: true, same_site: lax}
 */
#pragma once
#include "actions/proxy/rewrite.h"

/* Reads decl->options. Redirects that nothing is said of are rewritten where `unlike` (the upstream may know the
 * route by another host), or where the target's path is another than the pattern's. NULL in *out: there is
 * nothing to rewrite. AG_EINVAL after a diagnosis. */
AG_MUST_USE enum ag_status ag_rewrite_read(struct ag_action_build *build,
                                           const struct ag_action_decl *decl, bool unlike,
                                           const struct ag_rewrite **out);
/* Appends it for people, in one line; `check` prints it. */
void ag_rewrite_describe(const struct ag_rewrite *rw, struct ag_buf *out);
