/*
 * dispatch_tls: what TLS means for a request that is dispatched: where it has to go, who may make it, and what the
 * answer says of it. Private to router/dispatch*.c.
 *
 *   request --listener: redirect to https 308, no good certificate 403, not asked yet or judged by
 *                        authorities of the past 421-->
 *           --route: SNI and Host disagree 421, certificate 403--> filters, action
 *   answer  <--Strict-Transport-Security--
 */
#pragma once
#include "router/snapshot.h"

/* Before a route is known. False: it was answered. */
AG_MUST_USE bool ag_dispatch_tls_listener(struct ag_exchange *ex, const struct ag_snapshot *s);
/* With ex->route set. False: it was answered. */
AG_MUST_USE bool ag_dispatch_tls_route(struct ag_exchange *ex, const struct ag_snapshot *s);
/* The answer's head is complete but for what belongs to TLS. */
void ag_dispatch_tls_head(struct ag_exchange *ex);
