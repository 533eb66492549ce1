/*
 * host_parts: what the files of the host share; nobody else includes it.
 *
 *   host_fd.c       descriptors
 *   host.c          ops and their completions (struct ag_backend)
 *   host_write.c    what ops that write do
 *   host_pipe.c     pipes, for both
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
/* Bytes, or -errno, as net_read. */
int64_t host_receive(struct host_sock *s, void *to, size_t len);
/* Something about it changed: completions come, now or a little later. */
void host_look(struct host_sock *s);
/* notify of an end that a descriptor has. */
void host_on_end(struct net_end *e);
void host_look_soon(struct host_sock *s);

/* What this receive brings may be left in a pipe. */
bool host_pipe_is_due(const struct ag_op *op);
/* A pipe with what has come, its size being that, refs 1. NULL: none is due or to be had, or there are no bytes. */
struct ag_block *host_pipe_recv(struct host_sock *s, const struct ag_op *op);
/* The result of a send of what is in a pipe, or -EAGAIN. */
int32_t host_pipe_send(struct host_sock *s, const struct ag_write *w);
/* All of them were given back. */
void host_pipes_check(const struct host_loop *l);
