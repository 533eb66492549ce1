/*
 * pipes: content that goes from one socket to another without being copied into this process.
 *
 *   socket --splice--> pipe --splice--> socket      a receive fills it, one slice names all of it, a send empties it
 *
 * A shard has few of them, made when they are wanted, kept while much passes and closed a second after. One is
 * in use from the receive that fills it to the send that empties it; what waits behind a slow peer therefore holds
 * it, and who finds none left receives into memory. One that goes back with bytes in it is closed.
 */
#pragma once
#include "engine/loop.h"

#define AG_PIPES_MAX     64u
#define AG_PIPES_KEEP_MS 1000u
/* What one holds. Where the system allows less (fs.pipe-user-pages-soft) there are no more of them, until later. */
#define AG_PIPE_BYTES ((size_t)256 * 1024)

struct ag_pipes;

/* At most `count` (1 .. AG_PIPES_MAX), none of them open yet. NULL: no memory. */
AG_MUST_USE struct ag_pipes *ag_pipes_new(struct ag_loop *l, uint32_t count);
/* None may be in use. */
void ag_pipes_free(struct ag_pipes *ps);

/* Moves what `socket` has, at most `most` bytes, into an empty pipe, without waiting: bytes (> 0), 0 at the end of
 * input, or -errno.
 *   *out  with bytes: the pipe, refs 1, its size being those bytes; else NULL
 * -ENOBUFS: there is no pipe to be had, or the system moves nothing of this socket; receiving into memory works. */
int32_t ag_pipes_recv(struct ag_pipes *ps, int socket, size_t most, struct ag_block **out);
/* Bytes have left the pipe for a socket. */
void ag_pipe_sent(struct ag_block *pipe, size_t bytes);

/* Pipes that exist, and those of them in use; for tests and leak checks. */
uint32_t ag_pipes_open(const struct ag_pipes *ps);
uint32_t ag_pipes_used(const struct ag_pipes *ps);
