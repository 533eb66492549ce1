/*
 * proxy: passes requests on to an upstream and its answers back, both ways as streams.
 *
 *   start --> head for the upstream --> claim a connection --> call --> head, content --> done
 *                                          |  ^ once more on a new connection, when a pooled one
 *                                          v  |  proved dead and nothing was lost
 *                                        502, 503, 504
 */
#pragma once
#include "actions/action.h"

extern const struct ag_action_ops ag_action_proxy;
