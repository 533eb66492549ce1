#include "engine/tls_verify.h"

#if AG_WOLFSSL

#    include <wolfssl/options.h>
#    include <wolfssl/wolfcrypt/asn_public.h>
#    include <wolfssl/wolfcrypt/ecc.h>
#    include <wolfssl/wolfcrypt/ed25519.h>
#    include <wolfssl/wolfcrypt/rsa.h>
#    include <wolfssl/wolfcrypt/sha.h>
#    include <wolfssl/wolfcrypt/sha256.h>
#    include <wolfssl/wolfcrypt/signature.h>

#    define RSA_BYTES_MAX 512u /* the library's arithmetic ends at 4096 bits */

bool ag_tls_sha256(struct ag_span data, uint8_t out[static 32])
{
    return wc_Sha256Hash(data.ptr, (word32)data.len, out) == 0;
}

bool ag_tls_sha1(struct ag_span data, uint8_t out[static 20])
{
    return wc_ShaHash(data.ptr, (word32)data.len, out) == 0;
}

/* ---- signatures ---- */

static enum wc_HashType hash_of(enum ag_x509_signature kind)
{
    switch (kind) {
    case AG_X509_RSA_SHA1:
        return WC_HASH_TYPE_SHA;
    case AG_X509_RSA_SHA256:
    case AG_X509_ECDSA_SHA256:
        return WC_HASH_TYPE_SHA256;
    case AG_X509_RSA_SHA384:
    case AG_X509_ECDSA_SHA384:
        return WC_HASH_TYPE_SHA384;
    case AG_X509_RSA_SHA512:
    case AG_X509_ECDSA_SHA512:
        return WC_HASH_TYPE_SHA512;
    case AG_X509_ED25519:
    case AG_X509_SIGNATURE_OTHER:
        break;
    }
    return WC_HASH_TYPE_NONE;
}

static bool rsa_signed(const struct ag_x509 *signer, enum ag_x509_signature kind,
                       struct ag_span data, struct ag_span signature)
{
    RsaKey *key = malloc(sizeof(*key)); /* large, as all of the library's are */
    bool good;

    AG_ASSERT(key);
    if (wc_InitRsaKey(key, NULL) != 0) {
        free(key);
        return false;
    }
    good =
        wc_RsaPublicKeyDecodeRaw(signer->rsa_modulus.ptr, (word32)signer->rsa_modulus.len,
                                 signer->rsa_exponent.ptr, (word32)signer->rsa_exponent.len,
                                 key) == 0 &&
        wc_SignatureVerify(hash_of(kind), WC_SIGNATURE_TYPE_RSA_W_ENC, data.ptr, (word32)data.len,
                           signature.ptr, (word32)signature.len, key, sizeof(*key)) == 0;
    wc_FreeRsaKey(key);
    free(key);
    return good;
}

static int curve_id(uint32_t bits)
{
    return bits == 256 ? ECC_SECP256R1 : bits == 384 ? ECC_SECP384R1 : ECC_SECP521R1;
}

static bool ecdsa_signed(const struct ag_x509 *signer, enum ag_x509_signature kind,
                         struct ag_span data, struct ag_span signature)
{
    ecc_key *key = malloc(sizeof(*key));
    bool good;

    AG_ASSERT(key);
    if (wc_ecc_init(key) != 0) {
        free(key);
        return false;
    }
    good = wc_ecc_import_x963_ex(signer->key.ptr, (word32)signer->key.len, key,
                                 curve_id(signer->key_bits)) == 0 &&
           wc_SignatureVerify(hash_of(kind), WC_SIGNATURE_TYPE_ECC, data.ptr, (word32)data.len,
                              signature.ptr, (word32)signature.len, key, sizeof(*key)) == 0;
    (void)wc_ecc_free(key);
    free(key);
    return good;
}

static bool ed25519_signed(const struct ag_x509 *signer, struct ag_span data,
                           struct ag_span signature)
{
    ed25519_key key;
    int valid = 0;
    bool good;

    if (wc_ed25519_init(&key) != 0) {
        return false;
    }
    good = wc_ed25519_import_public(signer->key.ptr, (word32)signer->key.len, &key) == 0 &&
           wc_ed25519_verify_msg(signature.ptr, (word32)signature.len, data.ptr, (word32)data.len,
                                 &valid, &key) == 0 &&
           valid == 1;
    wc_ed25519_free(&key);
    return good;
}

bool ag_tls_signed_by(const struct ag_x509 *signer, enum ag_x509_signature kind,
                      struct ag_span data, struct ag_span signature)
{
    switch (kind) {
    case AG_X509_RSA_SHA1:
    case AG_X509_RSA_SHA256:
    case AG_X509_RSA_SHA384:
    case AG_X509_RSA_SHA512:
        return signer->key_kind == AG_X509_KEY_RSA && rsa_signed(signer, kind, data, signature);
    case AG_X509_ECDSA_SHA256:
    case AG_X509_ECDSA_SHA384:
    case AG_X509_ECDSA_SHA512:
        return signer->key_kind == AG_X509_KEY_EC && signer->key_bits != 0 &&
               ecdsa_signed(signer, kind, data, signature);
    case AG_X509_ED25519:
        return signer->key_kind == AG_X509_KEY_ED25519 && ed25519_signed(signer, data, signature);
    case AG_X509_SIGNATURE_OTHER:
        break;
    }
    return false;
}

/* ---- keys ---- */

static bool ends_with(struct ag_span padded, struct ag_span number)
{
    while (padded.len > 0 && padded.ptr[0] == 0) {
        padded = ag_span_sub(padded, 1, padded.len);
    }
    return ag_span_eq(padded, number);
}

static enum ag_tls_match rsa_match(const struct ag_x509 *c, struct ag_span der)
{
    uint8_t e[RSA_BYTES_MAX], n[RSA_BYTES_MAX];
    word32 e_len = sizeof(e), n_len = sizeof(n), at = 0;
    enum ag_tls_match match = AG_TLS_UNREADABLE;
    RsaKey *key = malloc(sizeof(*key));

    AG_ASSERT(key);
    if (wc_InitRsaKey(key, NULL) != 0) {
        free(key);
        return AG_TLS_UNREADABLE;
    }
    if (wc_RsaPrivateKeyDecode(der.ptr, &at, key, (word32)der.len) == 0 &&
        wc_RsaFlattenPublicKey(key, e, &e_len, n, &n_len) == 0) {
        match = ends_with(ag_span(n, n_len), c->rsa_modulus) &&
                        ends_with(ag_span(e, e_len), c->rsa_exponent)
                    ? AG_TLS_MATCHES
                    : AG_TLS_OTHER_KEY;
    }
    wc_FreeRsaKey(key);
    free(key);
    return match;
}

/* A SEC 1 key may come without its public half. */
static bool complete(ecc_key *key)
{
    return key->type != ECC_PRIVATEKEY_ONLY || wc_ecc_make_pub(key, NULL) == 0;
}

static enum ag_tls_match ecc_match(const struct ag_x509 *c, struct ag_span der)
{
    uint8_t point[2 * MAX_ECC_BYTES + 1];
    word32 len = sizeof(point), at = 0;
    enum ag_tls_match match = AG_TLS_UNREADABLE;
    ecc_key *key = malloc(sizeof(*key));

    AG_ASSERT(key);
    if (wc_ecc_init(key) != 0) {
        free(key);
        return AG_TLS_UNREADABLE;
    }
    if (wc_EccPrivateKeyDecode(der.ptr, &at, key, (word32)der.len) == 0 && complete(key) &&
        wc_ecc_export_x963(key, point, &len) == 0) {
        match = ag_span_eq(ag_span(point, len), c->key) ? AG_TLS_MATCHES : AG_TLS_OTHER_KEY;
    }
    (void)wc_ecc_free(key);
    free(key);
    return match;
}

static enum ag_tls_match ed25519_match(const struct ag_x509 *c, struct ag_span der)
{
    uint8_t public[ED25519_PUB_KEY_SIZE];
    word32 at = 0;
    enum ag_tls_match match = AG_TLS_UNREADABLE;
    ed25519_key key;

    if (wc_ed25519_init(&key) != 0) {
        return AG_TLS_UNREADABLE;
    }
    if (wc_Ed25519PrivateKeyDecode(der.ptr, &at, &key, (word32)der.len) == 0 &&
        wc_ed25519_make_public(&key, public, sizeof(public)) == 0) {
        match =
            ag_span_eq(ag_span(public, sizeof(public)), c->key) ? AG_TLS_MATCHES : AG_TLS_OTHER_KEY;
    }
    wc_ed25519_free(&key);
    return match;
}

/* A key of another kind than the certificate's is a key all the same. */
static bool is_other_kind(const struct ag_x509 *c, struct ag_span der)
{
    struct ag_x509 none = {0};

    return (c->key_kind != AG_X509_KEY_RSA && rsa_match(&none, der) != AG_TLS_UNREADABLE) ||
           (c->key_kind != AG_X509_KEY_EC && ecc_match(&none, der) != AG_TLS_UNREADABLE) ||
           (c->key_kind != AG_X509_KEY_ED25519 && ed25519_match(&none, der) != AG_TLS_UNREADABLE);
}

enum ag_tls_match ag_tls_key_match(const struct ag_x509 *c, struct ag_span key_der)
{
    enum ag_tls_match match = AG_TLS_UNREADABLE;

    switch (c->key_kind) {
    case AG_X509_KEY_RSA:
        match = rsa_match(c, key_der);
        break;
    case AG_X509_KEY_EC:
        match = ecc_match(c, key_der);
        break;
    case AG_X509_KEY_ED25519:
        match = ed25519_match(c, key_der);
        break;
    case AG_X509_KEY_OTHER:
        break;
    }
    if (match == AG_TLS_UNREADABLE && is_other_kind(c, key_der)) {
        match = AG_TLS_OTHER_KEY;
    }
    return match;
}

#endif
