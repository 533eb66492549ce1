/*
 * tls_verify: signatures and keys of certificates, by the library's arithmetic: whether a key is a
 * certificate's, and whether a certificate or an answer was signed by another's key.
 */
#pragma once
#include "engine/tls_x509.h"

/* `signature` of `kind` over `data` is by the key of `signer`. False too for what is not understood. */
AG_MUST_USE bool ag_tls_signed_by(const struct ag_x509 *signer, enum ag_x509_signature kind,
                                  struct ag_span data, struct ag_span signature);

enum ag_tls_match {
    AG_TLS_MATCHES = 0,
    AG_TLS_OTHER_KEY,  /* a key, but not this certificate's */
    AG_TLS_UNREADABLE, /* no key, or of a kind that is not used */
};

/* A private key (PKCS #1, SEC 1 or PKCS #8, DER) against a certificate's public one. */
AG_MUST_USE enum ag_tls_match ag_tls_key_match(const struct ag_x509 *c, struct ag_span key_der);

/* SHA-256 and SHA-1 (which RFC 6960 names things by). False: the library has failed. */
AG_MUST_USE bool ag_tls_sha256(struct ag_span data, uint8_t out[static 32]);
AG_MUST_USE bool ag_tls_sha1(struct ag_span data, uint8_t out[static 20]);
