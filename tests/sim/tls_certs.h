/* tls_certs: the certificates of a simulation (tls.h), made by OpenSSL; all on P-256, good for decades. */
#pragma once
#include "tests/sim/tls.h"

#include <openssl/ssl.h>

struct identity {
    X509 *cert;
    EVP_PKEY *key;
};

/* Writes ca.pem, and sim-N.pem and other-N.pem (certificate and key, for sim.test and other.test). */
void certs_init(const char *dir);
void certs_deinit(const char *dir);
/* One for up.test, by the same authority or by nobody's; the caller's. */
struct identity certs_of_upstream(bool stranger);
