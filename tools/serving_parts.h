/*
 * serving_parts: what the files of serving share; nobody else includes it.
 *
 *   serving.c         the snapshot in use, drain, open and close
 *   serving_listen.c  listeners: who is accepted, who waits for room, what a change makes of them
 */
#pragma once
#include "tools/serving.h"

/* ---- serving.c ---- */

/* What others may read of this shard is as it is now. */
void ag_serving_tell_board(const struct ag_serving *s);
/* Something has gone: a shard that drains may have come to its end. */
void ag_serving_end_soon(struct ag_serving *s);

/* ---- serving_listen.c ---- */

/* AG_ENOMEM. */
AG_MUST_USE enum ag_status ag_serving_listen_open(struct ag_serving *s);
/* When all listeners are closed. */
void ag_serving_listen_drop(struct ag_serving *s);
/* Opens, keeps and closes listeners, and accepts by the limits that hold now. */
void ag_serving_listen_change(struct ag_serving *s, const struct ag_serving_change *c);
/* Closes those of admin, or all others. */
void ag_serving_listen_close(struct ag_serving *s, bool admin);
/* Closes the connections that wait for room; whether there were any. */
bool ag_serving_waiting_cut(struct ag_serving *s);

/* Callbacks of downstreams and spread: a connection has gone, or is another way than before; one comes of another
 * shard (false: there is no room for it), or is home again. */
void ag_serving_changed(struct ag_downstreams *d, struct ag_downstream_origin *origin);
void ag_serving_admin_changed(struct ag_downstreams *d, struct ag_downstream_origin *origin);
bool ag_serving_take_passed(struct ag_spread *sp, uint32_t socket_id, int fd);
void ag_serving_home(struct ag_spread *sp, void *origin, int fd);
