/* model_impl: what the files of the model share. Private to router/model*.c. */
#pragma once
#include "router/model.h"

/* Fills in all that `server` sets, over defaults. `server` may be NULL. */
void ag_model_read_server(struct ag_model *m, const struct ag_node *server, struct ag_diags *diags);
/* The value of `listen`, or NULL, behind what is there. */
void ag_model_read_listens(struct ag_model *m, const struct ag_node *n, struct ag_diags *diags);
/* model_tcp.c: listeners of the section `tcp`. */
void ag_model_read_tcp(struct ag_model *m, const struct ag_node *list, struct ag_diags *diags);
/* model_privileges.c: user, chroot, seccomp. */
void ag_model_read_privileges(struct ag_model *m, const struct ag_node *server,
                              struct ag_diags *diags);
/* Defaults, then the keys of server.limits (`n`, or NULL) over them, into m->limits. */
void ag_model_read_limits(struct ag_model *m, const struct ag_node *n, struct ag_diags *diags);
/* Adds what a listener's address stands for: HOST:PORT, :PORT (two listeners) or unix:PATH. */
void ag_model_read_address(struct ag_model *m, const struct ag_node *n, struct ag_diags *diags);
/* model_admin.c: server.admin (`n`, or NULL), behind all other listeners. */
void ag_model_read_admin(struct ag_model *m, const struct ag_node *n, struct ag_diags *diags);
/* model_resolver.c: server.resolver (`n`, or NULL). */
void ag_model_read_resolver(struct ag_model *m, const struct ag_node *n, struct ag_diags *diags);
/* server.memory (`n`, or NULL). */
void ag_model_read_memory(struct ag_model *m, const struct ag_node *n, struct ag_diags *diags);
/* A listener's `limits` and `stream` over m->limits; `owner` is its map, or NULL. The index is ag_model_read_tls's. */
void ag_model_listener_limits(const struct ag_model *m, const struct ag_node *owner,
                              struct ag_diags *diags, struct ag_server_limits *out);
/* The index of listeners with these limits of routes and of this kind, a new one where there are none yet. */
uint16_t ag_model_listen_kind(struct ag_model *m, const struct ag_route_limits *limits,
                              const struct ag_listen_kind *kind);
/* "... is not supported yet", at the key. False when `n` is NULL or null. */
bool ag_model_refuse_unbuilt(const struct ag_node *n, struct ag_diags *diags, const char *what);
