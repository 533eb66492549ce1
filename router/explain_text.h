/* explain_text: routes, patterns and reasons as text. Private to router/explain*.c. */
#pragma once
#include "router/explain.h"

/* "GET POST", or "any". */
void ag_explain_methods(struct ag_buf *out, const struct ag_route *r);
/* What the route does: "http://auth/ping", "403 {\"msg\":...", "301 -> /new". */
void ag_explain_action(struct ag_buf *out, const struct ag_route *r);
/* "logger, headers, client certificate": what stands before the action. */
void ag_explain_filters(struct ag_buf *out, const struct ag_route *r);
/* A pattern from its segments: what a split or an implied route serves. */
void ag_explain_pattern(struct ag_buf *out, const struct ag_pattern *p);
/* The pattern without methods, as written. */
struct ag_span ag_explain_written(const struct ag_route *r);

/* How far a path fits a pattern. */
struct ag_fit {
    bool host, port, path, method;
    uint16_t segments; /* that fit, from the first */
};
struct ag_fit ag_explain_fit(const struct ag_route *r, const struct ag_trie_query *q);
/* Why `r` lost: it does not fit, or `winner` goes before it. */
void ag_explain_reason(struct ag_buf *out, const struct ag_route *r, const struct ag_route *winner,
                       const struct ag_trie_query *q);

/* Of certificates and of what routes want of them (explain_tls.c). */
void ag_explain_tls_warnings(const struct ag_snapshot *s, struct ag_diags *diags);

#define AG_EXPLAIN_BOLD  "\x1b[1m"
#define AG_EXPLAIN_DIM   "\x1b[2m"
#define AG_EXPLAIN_GREEN "\x1b[32m"
#define AG_EXPLAIN_RESET "\x1b[0m"
