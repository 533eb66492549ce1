/*
 * host_parts: what the files of the host share; nobody else includes it.
 *
 *   host_fd.c       descriptors
 *   host.c          ops and their completions (struct ag_backend)
 *   host_write.c    what ops that write do
 *   host_system.c   what is answered at once (struct ag_system)
 */
#pragma once
#include "tests/sim/host.h"

/* The host's clocks when a run begins. */
#define HOST_BOOT_MS UINT64_C(1000000)
#define HOST_WALL_S  INT64_C(1790000000)

extern const struct ag_system host_system;

static inline struct host_loop *of(const struct ag_loop *l)
{
    return l->simulation;
}

static inline struct sim *sim_of(const struct ag_loop *l)
{
    return of(l)->host->sim;
}

static inline bool fails(struct host *h, uint32_t per_mille)
{
    return sim_chance(h->sim, per_mille);
}

/* The open descriptor; the run fails when it is none. */
struct host_sock *host_sock_of(const struct host *h, int fd);
/* The lowest free number, as a kernel gives: one used after its close meets another's socket. */
struct host_sock *host_open_fd(struct host *h, enum host_kind kind);
/* The same within the limit of descriptors, or -errno. */
int host_open_limited(struct host *h, struct host_sock **out);
/* A descriptor, -EAGAIN: nobody waits, or another -errno. */
int host_accept_one(struct host *h, struct net_listener *l);
/* The final result of `op`, or -EAGAIN with the progress in op->res. */
int32_t host_try_write(struct host_sock *s, struct ag_op *op);
/* Something about it changed: completions come, now or a little later. */
void host_look(struct host_sock *s);
/* notify of an end that a descriptor has. */
void host_on_end(struct net_end *e);
void host_look_soon(struct host_sock *s);
