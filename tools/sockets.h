/*
 * sockets: the process's listening sockets. They belong to the control thread and outlive snapshots: a
 * listener that is configured before and after a reload keeps its descriptors, for closing one would
 * reset the connections that wait in its queue.
 *
 *   model's listens --want--> plan: kept, bound, dropped --commit or cancel--> the set
 *
 * Each address has one descriptor a shard (SO_REUSEPORT), or one socket whose duplicates all shards
 * share (unix paths, sockets that a supervisor gave). Descriptor i is served by shard i % shards.
 */
#pragma once
#include "router/model.h"

#define AG_LISTEN_BACKLOG 4096
#define AG_SOCKET_FDS     1024u /* as many as there may be shards */

struct ag_socket {
    union ag_addr addr; /* as configured */
    uint32_t id;        /* of this process; never used twice */
    uint32_t fd_count;  /* 0: an address family that this system lacks; shared: [::]'s serve it */
    uint32_t quiet;     /* of them, the last so many are bound and do not listen yet */
    bool shared;        /* one socket, duplicated */
    bool wanted;        /* by the plan under way */
    bool fresh;         /* made by the plan under way: no shard has it yet */
    int fds[AG_SOCKET_FDS]; /* listening, non-blocking, close-on-exec */
};

/* Those before a reload and those after it. */
#define AG_SOCKETS_MAX (2 * AG_LISTEN_MAX)

struct ag_sockets {
    struct ag_socket *items; /* AG_SOCKETS_MAX */
    uint32_t count;
    uint32_t last_id;
    uint32_t shard_count;
    int backlog;
    bool keeps; /* the shards are another process's: descriptors stay ours too, and we close them */
};

void ag_sockets_init(struct ag_sockets *s, uint32_t shard_count, int backlog);
/* Closes the descriptors that no shard has taken over. */
void ag_sockets_deinit(struct ag_sockets *s);

/* Takes over listening descriptors that another made (supervisor, predecessor), before the first plan;
 * at most AG_LISTEN_MAX addresses. The address is the one to be matched by a configured listener.
 * `shared`: they are one socket. At most AG_SOCKET_FDS descriptors. */
void ag_sockets_adopt(struct ag_sockets *s, const union ag_addr *addr, const int *fds,
                      uint32_t count, bool shared);

/* Finds or binds what the model listens on. Blocking: what holds an address is given 300 ms to let go of it. The
 * set is as before when it fails: AG_ESYS or AG_EACCES, the reason with a hint appended to `why`. */
AG_MUST_USE enum ag_status ag_sockets_plan(struct ag_sockets *s, const struct ag_model *m,
                                           struct ag_buf *why);
/* Before the first commit, once there is who accepts: those that were bound beside adopted ones listen
 * from now on. Before, connections to an address that another process serves would come to them, and be
 * lost when this one cannot start. One that cannot listen takes nothing; the log says so. */
void ag_sockets_listen(struct ag_sockets *s);
/* The plan holds: its descriptors are the shards' from now on, which close them. Forgets what is wanted
 * no more (what no shard ever had is closed). */
void ag_sockets_commit(struct ag_sockets *s);
/* The plan is given up: what it bound is closed. */
void ag_sockets_cancel(struct ag_sockets *s);
/* The socket of a configured address; NULL: none. */
const struct ag_socket *ag_sockets_find(const struct ag_sockets *s, const union ag_addr *addr);
