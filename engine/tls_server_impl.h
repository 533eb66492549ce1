/*
 * tls_server_impl: what is inside of an ag_tls_server. Private to engine/tls_server.c, tls_choose.c and
 * tls_staple.c.
 *
 *   contexts:  [ shard 0: identity 0, unasked | asked | identity 1, unasked | asked ... ][ shard 1: ...
 *
 * All but the responses is made at load and never changes.
 */
#pragma once
#include "engine/arena.h"
#include "engine/tls_impl.h"
#include "engine/tls_sessions.h"

#if AG_WOLFSSL
#    include <pthread.h>

/* A response that the control thread has put there for all shards. */
struct ag_tls_server_identity {
    const struct ag_tls_identity *facts; /* ours */
    struct ag_span leaf;                 /* DER */
    _Atomic uint32_t generation;         /* of the response; written under the lock */
    uint8_t *response;                   /* malloc; the lock's */
    size_t response_len;
    int64_t until_s;
};

/* Names of certificates in order; equal ones in the order of their identities. */
struct ag_tls_server_name {
    struct ag_span text;
    uint32_t identity;
};

struct ag_tls_server {
    _Atomic uint32_t refs;
    struct ag_arena arena; /* all but the contexts and responses */
    struct ag_tls_server_settings settings;
    struct ag_tls_tickets *tickets;
    uint32_t shard_count;
    struct ag_tls_server_identity *identities;
    struct ag_tls_server_name *names;
    uint32_t name_count;
    struct ag_tls_context *contexts; /* of shard, identity, asked: see ag_tls_server_context */
    struct ag_tls_authorities *client_ca;
    struct ag_tls_sessions *sessions; /* NULL: none are kept */
    pthread_mutex_t lock;             /* of responses */
};

static inline struct ag_tls_context *
ag_tls_server_context(const struct ag_tls_server *s, uint32_t shard, uint32_t identity, bool asked)
{
    return &s->contexts[((size_t)shard * s->settings.identity_count + identity) * 2 + asked];
}

/* The order of names, as of memcmp. */
int ag_tls_server_order(struct ag_span a, struct ag_span b);
/* Brings what the context staples to what it is to be now. */
void ag_tls_server_refresh(struct ag_tls_context *c, int64_t wall_s);
#endif
