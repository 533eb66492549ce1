/*
 * upstream_members: the servers of a group: how one becomes a member, how a list of them takes the place of another,
 * and which an operator has removed. For upstream_group.c alone: everything here is under the lock.
 */
#pragma once
#include "actions/upstream/upstream_group.h"

/* All but those that an operator has added become these; a server that stands there twice is two members. Those that
 * go make room for those that come. AG_ENOMEM: some could not be added. */
AG_MUST_USE enum ag_status ag_upstream_members_become(struct ag_upstream_group *g,
                                                      const struct ag_upstream_server *servers,
                                                      uint32_t count, enum ag_member_origin origin,
                                                      bool *out_changed);
/* NULL: no memory, or no index is free. */
struct ag_upstream_member *ag_upstream_members_add(struct ag_upstream_group *g,
                                                   const struct ag_upstream_server *server,
                                                   enum ag_member_origin origin);
/* It is REMOVED, and the group's no longer. */
void ag_upstream_members_take_out(struct ag_upstream_group *g, struct ag_upstream_member *m);
/* Whether its host and port are those of `place`. */
bool ag_upstream_member_is_at(const struct ag_upstream_member *m,
                              const struct ag_upstream_server *place);

/* ---- those that an operator has removed ---- */

/* NULL: there is none. */
struct ag_upstream_member *ag_upstream_members_removed_at(const struct ag_upstream_group *g,
                                                          const struct ag_upstream_server *place);
/* NULL: all of them. */
void ag_upstream_members_forget(struct ag_upstream_group *g,
                                const struct ag_upstream_server *place);
