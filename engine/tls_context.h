/*
 * tls_context: the library's contexts, made of settings at load, on the control thread; used by shards.
 *
 *   settings --new--> ag_tls_server: for each shard, each identity, with and without client certificates:
 *                                    one WOLFSSL_CTX
 *                     ag_tls_client: one WOLFSSL_CTX, authorities, some sessions to resume
 *
 * A server's context is one shard's, for its count of uses takes a mutex. Both objects are counted by
 * atomics: a snapshot holds one, and so does each live connection in its handshake or pool that uses it.
 *
 * Chains are judged by tls_chain.c, not by the library's own walk: that one takes intermediates of peers into
 * the context for good, and where a bad chain is only to be recorded, bad ones too.
 */
#pragma once
#include "engine/tls_settings.h"
#include "engine/tls_tickets.h"

struct ag_tls_server;
struct ag_tls_client;

/* Once, before any other call and any thread: sets the library up with the bounded allocators (tls_memory.h).
 * Further calls do nothing. AG_ESYS: the library failed, or there is none in this build. */
AG_MUST_USE enum ag_status ag_tls_library_init(void);

/*
 *   settings     copied; needed no longer
 *   shard_count  shards that will accept, numbered from 0
 *   tickets      the process's ring, which outlives the object; NULL: no tickets
 *   out_why      the cause, for people; thread-lifetime
 * NULL: the library refused something, or no memory.
 */
AG_MUST_USE struct ag_tls_server *ag_tls_server_new(const struct ag_tls_server_settings *settings,
                                                    uint32_t shard_count,
                                                    struct ag_tls_tickets *tickets,
                                                    const char **out_why);
struct ag_tls_server *ag_tls_server_hold(struct ag_tls_server *s); /* NULL is allowed */
void ag_tls_server_release(struct ag_tls_server *s);               /* NULL is allowed */

/* Whether the authority that has vouched for a client's certificate (client_mark of its session) is one of
 * this server's. NULL is allowed, and has none. */
AG_MUST_USE bool ag_tls_server_takes(const struct ag_tls_server *s, const uint8_t *mark);

/* The same for upstreams. */
AG_MUST_USE struct ag_tls_client *ag_tls_client_new(const struct ag_tls_client_settings *settings,
                                                    const char **out_why);
struct ag_tls_client *ag_tls_client_hold(struct ag_tls_client *c);
void ag_tls_client_release(struct ag_tls_client *c);

/* OCSP: the response that is stapled for an identity from now on; from the control thread. Shards take it up at
 * their next handshake; no handshake waits for anything.
 *   id   one of the settings', known by its sha256
 *   der  copied; empty: none
 *   until_s  since the epoch: its nextUpdate, from which on it is stapled no longer
 * AG_EINVAL: it is not a good one for this identity; what was stapled before stays. AG_ENOMEM. */
AG_MUST_USE enum ag_status ag_tls_server_staple(struct ag_tls_server *s,
                                                const struct ag_tls_identity *id,
                                                struct ag_span der, int64_t until_s);

/* ---- counts, for metrics ---- */

/* What the library's allocator has given out, bytes: by this thread less what it gave back (may be negative
 * where others took it), and in all. */
int64_t ag_tls_memory_thread_bytes(void);
uint64_t ag_tls_memory_bytes(void);
