/*
 * explain: why a request goes where it goes; the route tree and the check report, as text.
 */
#pragma once
#include "router/snapshot.h"

/* Prints the tree of routes with methods, actions, filters. */
void ag_explain_tree(const struct ag_snapshot *s, struct ag_buf *out, bool colour);
/* Which route wins for `method path host`, its parameters, and why each near miss lost. `port`: of the
 * listener, 0: the first one. False when none wins (the text says 404 or 405 and why). */
bool ag_explain_request(const struct ag_snapshot *s, struct ag_span method, struct ag_span target,
                        struct ag_span host, uint16_t port, struct ag_buf *out, bool colour);
/* Prints what actions have to say of their sections: upstreams. */
void ag_explain_sections(const struct ag_snapshot *s, struct ag_buf *out);
/* Prints the limits of each listener, and of routes where they differ. */
void ag_explain_limits(const struct ag_snapshot *s, struct ag_buf *out);
/* Prints what each listener with TLS is: names, keys and dates of certificates, protocols, who is asked for one. */
void ag_explain_tls(const struct ag_snapshot *s, struct ag_buf *out);
/* Warnings: shadowed rules, overlaps, unreachable routes, names that do not resolve,
 * certificates that do not fit. */
void ag_explain_warnings(const struct ag_snapshot *s, struct ag_diags *diags);
