/*
 * tls_cert: certificates and keys as they are read at load: parsed, checked and described once. Immutable;
 * the library's own objects are made of the PEM texts by tls_context.c.
 *
 *   file: [ leaf | issuer | ... ]  key   --read--> identity: texts with nothing else in them, and the leaf's facts
 */
#pragma once
#include "engine/arena.h"
#include "engine/span.h"

enum ag_tls_key_kind { AG_TLS_KEY_RSA = 0, AG_TLS_KEY_ECDSA, AG_TLS_KEY_ED25519, AG_TLS_KEY_KINDS };

/* A certificate chain and its private key. */
struct ag_tls_identity {
    struct ag_span chain_pem,
        key_pem; /* checked: well-formed, the key is the leaf's; in the arena */
    /* Of the leaf: */
    enum ag_tls_key_kind kind;
    uint32_t key_bits;
    const struct ag_span
        *names; /* DNS names and addresses of its SAN, in lower case; "*.example" as it is */
    uint32_t name_count;
    int64_t not_before_s, not_after_s; /* since the epoch */
    struct ag_span subject, issuer;    /* "CN=name,O=org" (RFC 4514) */
    struct ag_span ocsp_url;           /* of its AIA; empty: none */
    bool must_staple;                  /* RFC 7633 */
    bool self_signed;
    bool no_alt_names; /* it has no SAN, which clients look at alone; `names` is its common name */
    bool for_servers;  /* its extended key usage allows it to be one */
    struct ag_span issuer_pem; /* the certificate that signed it, of the chain; empty: not there */
    uint8_t sha256[32];        /* of its DER */
};

/*
 * Parses and checks a chain and its key; what is kept of them lies in `arena` (malloc). Either text may hold
 * other blocks as well: one file for both is given twice.
 *   out_why  static or in the arena: the cause, for people
 * AG_EINVAL: unreadable, the key is not the leaf's, an encrypted key, a chain out of order, a kind or size
 * of key that is not used. Expired ones are no error here: the caller looks at the dates. AG_ENOMEM.
 */
AG_MUST_USE enum ag_status ag_tls_identity_read(struct ag_arena *arena, struct ag_span chain_pem,
                                                struct ag_span key_pem,
                                                struct ag_tls_identity **out, const char **out_why);

/* Whether a name (lower case, no trailing dot; or an address) is one of the leaf's; wildcards stand for one
 * whole label (RFC 9525 section 6.3). */
bool ag_tls_identity_covers(const struct ag_tls_identity *id, struct ag_span name);

/* Counts those certificates of a PEM bundle that are authorities; others are believed as themselves alone. AG_EINVAL:
 * one cannot be read, none at all is there, or none can be used. Expired ones are no error here, either. */
AG_MUST_USE enum ag_status ag_tls_authorities_check(struct ag_arena *arena, struct ag_span pem,
                                                    uint32_t *out_count, const char **out_why);
