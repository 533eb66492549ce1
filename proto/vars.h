/*
 * vars: text with variables, compiled at load, expanded per exchange.
 *
 *   "{remote.ip} -> {param.id}"   {{ is a literal brace
 *
 * Names: method path query uri host port scheme protocol status remote.ip remote.port server.port
 * splat param.NAME header.NAME (of the request) response.NAME trace_id
 * tls.version tls.cipher tls.server_name tls.client.subject tls.client.fingerprint (SHA-256 in hex)
 * tls.client.verified (valid, invalid, none); all empty on a plain connection
 */
#pragma once
#include "engine/diag.h"
#include "proto/exchange.h"

struct ag_vars; /* compiled, in the arena */

/* `params` of the route, or NULL where none are known yet (a named plugin): then they are found by
 * name per exchange. NULL after a diagnosis. */
AG_MUST_USE const struct ag_vars *ag_vars_compile(struct ag_arena *arena, struct ag_diags *diags,
                                                  struct ag_pos pos, struct ag_span text);
/* Appends the expansion. Bytes that are not allowed in a field value are left out. */
void ag_vars_expand(const struct ag_vars *v, const struct ag_exchange *ex, struct ag_buf *out);
/* A copy with all that it needs, in an exchange's arena. NULL: no memory. */
AG_MUST_USE const struct ag_vars *ag_vars_copy(struct ag_arena *arena, const struct ag_vars *v);
/* The text when it has no variables, else false. */
bool ag_vars_literal(const struct ag_vars *v, struct ag_span *out);
