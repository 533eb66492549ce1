/*
 * tls_x509: certificates (RFC 5280) as they lie in DER, without the library: borrowed views of what is used.
 *
 *   Certificate: [ tbs | algorithm | signature ]
 *     tbs: serial, issuer, validity, subject, public key, extensions
 *
 * The library's own parser tells little of what people are to be told and hides the rest behind configure flags. This
 * one trusts nothing: definite, minimal lengths, each bounded by what it lies in (X.690 section 10.1).
 */
#pragma once
#include "engine/span.h"

/* ---- DER ---- */

enum {
    AG_DER_BOOLEAN = 0x01,
    AG_DER_INTEGER = 0x02,
    AG_DER_BITS = 0x03,
    AG_DER_OCTETS = 0x04,
    AG_DER_OID = 0x06,
    AG_DER_ENUM = 0x0a,
    AG_DER_UTC_TIME = 0x17,
    AG_DER_TIME = 0x18,
    AG_DER_SEQUENCE = 0x30,
    AG_DER_SET = 0x31,
    AG_DER_CONTEXT = 0x80,     /* [0], primitive */
    AG_DER_CONSTRUCTED = 0xa0, /* [0], constructed */
};

struct ag_der {
    uint8_t tag;
    struct ag_span content;
    struct ag_span whole; /* with tag and length */
};

/* Takes the next element off *io. False: nothing is left, or what is there is no DER; *io stays. */
AG_MUST_USE bool ag_der_next(struct ag_span *io, struct ag_der *out);
/* The same, of that tag alone. */
AG_MUST_USE bool ag_der_take(struct ag_span *io, uint8_t tag, struct ag_der *out);
/* UTCTime or GeneralizedTime in the form that RFC 5280 section 4.1.2.5 asks for. Seconds since the epoch. */
AG_MUST_USE bool ag_der_time(const struct ag_der *t, int64_t *out_s);
/* The bytes of a BIT STRING of whole bytes. */
AG_MUST_USE bool ag_der_bits(const struct ag_der *bits, struct ag_span *out);

/* ---- certificates ---- */

enum ag_x509_key { AG_X509_KEY_OTHER = 0, AG_X509_KEY_RSA, AG_X509_KEY_EC, AG_X509_KEY_ED25519 };

/* Algorithms of signatures that are understood; others need not be wrong. */
enum ag_x509_signature {
    AG_X509_SIGNATURE_OTHER = 0,
    AG_X509_RSA_SHA1,
    AG_X509_RSA_SHA256,
    AG_X509_RSA_SHA384,
    AG_X509_RSA_SHA512,
    AG_X509_ECDSA_SHA256,
    AG_X509_ECDSA_SHA384,
    AG_X509_ECDSA_SHA512,
    AG_X509_ED25519,
};

/* All spans borrowed from the DER. */
struct ag_x509 {
    struct ag_span der;
    struct ag_span tbs; /* what is signed */
    enum ag_x509_signature signature_kind;
    struct ag_span signature;
    struct ag_span serial;          /* content of the INTEGER */
    struct ag_span issuer, subject; /* whole Names */
    int64_t not_before_s, not_after_s;
    enum ag_x509_key key_kind;
    uint32_t key_bits;   /* of RSA: of the modulus; of EC: of the curve, 0: one that is not used */
    struct ag_span spki; /* whole */
    struct ag_span key;  /* bytes of the subjectPublicKey */
    struct ag_span rsa_modulus, rsa_exponent; /* RSA: without leading zeros */
    struct ag_span names;       /* content of the subjectAltName; empty: there is none */
    struct ag_span constraints; /* content of the nameConstraints; empty: there are none */
    struct ag_span ocsp_url;
    bool is_ca;
    bool must_staple;
    bool for_servers, for_clients,
        for_ocsp; /* extended key usage; without it: servers and clients */
};

/* False: not a certificate, or beyond what is bounded here. */
AG_MUST_USE bool ag_x509_parse(struct ag_span der, struct ag_x509 *out);

/* Issued by itself, by name. */
static inline bool ag_x509_is_self_issued(const struct ag_x509 *c)
{
    return ag_span_eq(c->issuer, c->subject);
}

/* A Name as people read it, most specific part first: "CN=name,O=org" (RFC 4514). */
void ag_x509_put_name(struct ag_span name, struct ag_buf *out);
/* The last common name of a Name; empty: none, or not plain text. */
struct ag_span ag_x509_common_name(struct ag_span name);

/* The names of a subjectAltName that a server can be: DNS names as they are, addresses as text, appended to
 * `out`. False: there are no more. `io` begins as ag_x509.names.
 *   out_address  it is an address's entry: a DNS name that reads like one is none (RFC 9525 section 6.5) */
AG_MUST_USE bool ag_x509_next_name(struct ag_span *io, struct ag_buf *out, bool *out_address);

/* The algorithm in an AlgorithmIdentifier (whole). */
enum ag_x509_signature ag_x509_signature_of(struct ag_span algorithm);
