/* tls_certs: the certificates of a simulation (tls.h), made by OpenSSL; all on P-256, good for decades. */
#pragma once
#include "tests/sim/tls.h"

#include <openssl/ssl.h>

struct identity {
    X509 *cert;
    EVP_PKEY *key;
};

/* Writes ca.pem, and sim-N.pem and other-N.pem (certificate and key, for sim.test and other.test); chain-N.pem, for
 * sim.test too, which says whom to ask about it (OCSP), with its authority's behind it; clients.pem, the authority of clients, and me.pem, the server's own as a
 * client. */
void certs_init(const char *dir);
void certs_deinit(const char *dir);
/* One for up.test, by the same authority or by nobody's; the caller's. */
struct identity certs_of_upstream(bool stranger);
/* A client's, CN=client or CN=stranger, whose authority is nobody's; the caller's. */
struct identity certs_of_client(bool stranger);
/* The authority's word that chain-N's is good (OCSP, DER), in one of TLS_STAPLES forms. */
struct ag_span certs_staple(uint32_t generation, uint32_t form);
