/*
 * tls_sessions: sessions of TLS 1.2 that are resumed by their id (RFC 5246 section 7.3), for clients that take no
 * tickets. A bounded table for all shards, under one lock: such clients are few.
 *
 *   id --> row of AG_TLS_SESSIONS_WAYS entries, the oldest makes room for a new one
 *
 * A session is bound to what it was made for, as tickets are: it opens under nothing else.
 */
#pragma once
#include "engine/base.h"

#define AG_TLS_SESSIONS_WAYS 4u
/* Of a session as the library writes it. */
#define AG_TLS_SESSION_BYTES 240u

struct ag_tls_sessions;

/* NULL: no memory, or `count` is 0. */
AG_MUST_USE struct ag_tls_sessions *ag_tls_sessions_new(uint32_t count);
void ag_tls_sessions_free(struct ag_tls_sessions *t); /* NULL is allowed */

struct ag_tls_session_key {
    uint8_t id[32];
    uint8_t binding[16];
};

/* Keeps it; longer ones are not kept. `now_s`: any clock that goes on. */
void ag_tls_sessions_put(struct ag_tls_sessions *t, const struct ag_tls_session_key *key,
                         const uint8_t *bytes, size_t len, int64_t now_s);
/* Copies it to `out`. Returns its bytes; 0: it is not there, of something else, or older than `age_s`. */
size_t ag_tls_sessions_get(struct ag_tls_sessions *t, const struct ag_tls_session_key *key,
                           int64_t now_s, int64_t age_s, uint8_t out[static AG_TLS_SESSION_BYTES]);
