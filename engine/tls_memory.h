/*
 * tls_memory: what the TLS library takes its memory from: counted, bounded, and fast for its habits.
 *
 *   piece:  [ head 16 | bytes ]       head: class and size, or the block that it lies in
 *
 *   class   sizes are rounded up to one of 64 classes; what is given back waits in a list of its thread, up to
 *           AG_TLS_MEMORY_CACHE bytes, for a handshake takes and gives back some ninety pieces
 *   lent    while a large record is encrypted, the library's output buffer is taken from a block of the
 *           connection's output: so the record lies where it is sent from, and is not copied
 *
 * Each thread counts for itself; what one gave out another may take back, so single counts may be negative,
 * their sum is right. A thread whose count has reached the bound gets no more: its handshakes fail.
 */
#pragma once
#include "engine/slice.h"

/* What a thread keeps of what was given back, bytes. */
#define AG_TLS_MEMORY_CACHE ((size_t)1024 * 1024)
/* What a thread gives out at most, bytes, unless said otherwise. */
#define AG_TLS_MEMORY_MAX ((uint64_t)1024 * 1024 * 1024)

/* NULL: the bound is reached, or the system has none. Aligned to 16. */
AG_MUST_USE void *ag_tls_alloc(size_t n);
/* NULL is allowed. */
void ag_tls_free(void *p);
/* As realloc(3). */
AG_MUST_USE void *ag_tls_realloc(void *p, size_t n);

/* The bound of each thread from now on, bytes. Any thread. */
void ag_tls_memory_bound(uint64_t thread_bytes);
/* Whether this thread has little left below its bound: no handshake is to begin. The library loses some bytes of one
 * that runs out of memory in its midst, and those that are under way are to have the rest. */
AG_MUST_USE bool ag_tls_memory_is_short(void);
/* How often this thread has got none: what the library says of anything during which that grew may come of it. */
uint64_t ag_tls_memory_refusals(void);
/* Gives this thread's kept pieces back to the system: before it ends. */
void ag_tls_memory_trim(void);

/* The next piece of at least AG_TLS_LENT_MIN bytes that this thread takes lies in `b` from `from` on, if there
 * is room, and holds it; until ag_tls_memory_unlend. */
#define AG_TLS_LENT_MIN 2048u
void ag_tls_memory_lend(struct ag_block *b, uint32_t from);
void ag_tls_memory_unlend(void);
/* Bytes that the head of a piece and the alignment may take before it. */
#define AG_TLS_LENT_HEAD 32u
