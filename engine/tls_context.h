/*
 * tls_context: the library's contexts, made of settings at load, on the control thread; used by shards.
 *
 *   settings --new--> ag_tls_server: for each shard, each identity: one WOLFSSL_CTX
 *                     ag_tls_client: one WOLFSSL_CTX
 *
 * A server's context is one shard's, for its count of uses takes a mutex. Both objects are counted by
 * atomics: a snapshot holds one, and so does each live connection in its handshake or pool that uses it.
 */
#pragma once
#include "engine/tls_settings.h"
#include "engine/tls_tickets.h"

struct ag_tls_server;
struct ag_tls_client;

/* Once, before any other call and any thread: sets the library up with the bounded allocators (tls_memory.c).
 * AG_ESYS. */
AG_MUST_USE enum ag_status ag_tls_library_init(void);

/*
 *   settings  borrowed until the object is freed: the caller's snapshot outlives it, or copies
 *   tickets   the process's ring; NULL: no tickets
 *   out_why   the cause, for people; thread-lifetime
 * NULL: the library refused something, or no memory.
 */
AG_MUST_USE struct ag_tls_server *ag_tls_server_new(const struct ag_tls_server_settings *settings,
                                                    uint32_t shard_count,
                                                    struct ag_tls_tickets *tickets,
                                                    const char **out_why);
struct ag_tls_server *ag_tls_server_hold(struct ag_tls_server *s); /* NULL is allowed */
void ag_tls_server_release(struct ag_tls_server *s);               /* NULL is allowed */

AG_MUST_USE struct ag_tls_client *ag_tls_client_new(const struct ag_tls_client_settings *settings,
                                                    const char **out_why);
struct ag_tls_client *ag_tls_client_hold(struct ag_tls_client *c);
void ag_tls_client_release(struct ag_tls_client *c);

/* OCSP: the response to be stapled for an identity from now on, DER; empty: none. From the control thread. */
void ag_tls_server_staple(struct ag_tls_server *s, const struct ag_tls_identity *id,
                          struct ag_span der);
