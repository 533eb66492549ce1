/*
 * Goal: of a certificate and its key all that is told is true, and what cannot work is refused with its cause.
 * Method: certificates of the openssl command, put together rightly and wrongly; broken bytes at every place.
 */
#include "engine/tls_cert.h"

#include "engine/tls_pem.h"
#include "engine/tls_verify.h"
#include "tests/unit/certs.h"

#if AG_WOLFSSL

#    include <time.h>

static struct ag_arena arena;

static void setup(void)
{
    folder_make();
    ag_arena_init(&arena, NULL, 0);
}

static void teardown(void)
{
    ag_arena_release(&arena);
    folder_remove();
}

TestSuite(tls_cert, .init = setup, .fini = teardown);

static struct ag_tls_identity *good(const char *chain, const char *key)
{
    struct ag_tls_identity *id = NULL;
    const char *why = "";

    cr_assert_eq(
        ag_tls_identity_read(&arena, certs_read(&arena, chain), certs_read(&arena, key), &id, &why),
        AG_OK, "%s", why);
    return id;
}

static void bad(const char *chain, const char *key, const char *cause)
{
    struct ag_tls_identity *id = NULL;
    const char *why = "";

    cr_assert_eq(
        ag_tls_identity_read(&arena, certs_read(&arena, chain), certs_read(&arena, key), &id, &why),
        AG_EINVAL);
    cr_assert_null(id);
    cr_assert_not_null(strstr(why, cause), "\"%s\" in: %s", cause, why);
}

static bool has_name(const struct ag_tls_identity *id, const char *name)
{
    for (uint32_t i = 0; i < id->name_count; i++) {
        if (ag_span_eq(id->names[i], ag_span_str(name))) {
            return true;
        }
    }
    return false;
}

static void expect_text(struct ag_span is, const char *text)
{
    cr_assert(ag_span_eq(is, ag_span_str(text)), "%.*s, not %s", (int)is.len, (const char *)is.ptr,
              text);
}

Test(tls_cert, tells_what_a_certificate_says)
{
    certs_self(
        "a", CERTS_P256, "/O=Some, Org/CN=a.example",
        "-addext 'subjectAltName=DNS:A.example,DNS:*.b.example,IP:127.0.0.1,IP:::1,email:x@y' "
        "-addext 'authorityInfoAccess=OCSP;URI:http://ocsp.example/' -addext tlsfeature=status_request");
    struct ag_tls_identity *id = good("a.crt", "a.key");

    cr_assert_eq(id->kind, AG_TLS_KEY_ECDSA);
    cr_assert_eq(id->key_bits, 256);
    cr_assert_eq(id->name_count, 4);
    cr_assert(has_name(id, "a.example") && has_name(id, "*.b.example") &&
              has_name(id, "127.0.0.1") && has_name(id, "::1"));
    expect_text(id->subject, "CN=a.example,O=Some\\, Org");
    expect_text(id->issuer, "CN=a.example,O=Some\\, Org");
    expect_text(id->ocsp_url, "http://ocsp.example/");
    cr_assert(id->must_staple && id->self_signed && !id->no_alt_names && id->for_servers);
    cr_assert_eq(id->issuer_pem.len, 0);
    int64_t now = time(NULL);
    cr_assert(id->not_before_s <= now && id->not_before_s > now - 600);
    cr_assert_eq(id->not_after_s - id->not_before_s, 90 * 86400);
}

Test(tls_cert, fingerprint_is_that_of_openssl)
{
    char hex[65];

    certs_self("a", "ed25519", "/CN=a", "");
    certs_run("openssl x509 -in a.crt -outform DER | sha256sum | cut -c1-64 >sum");
    struct ag_tls_identity *id = good("a.crt", "a.key");
    for (unsigned i = 0; i < 32; i++) {
        (void)snprintf(hex + 2 * (size_t)i, 3, "%02x", id->sha256[i]);
    }
    cr_assert_arr_eq(certs_read(&arena, "sum").ptr, hex, 64);
    cr_assert_eq(id->kind, AG_TLS_KEY_ED25519);
}

Test(tls_cert, kinds_and_sizes_of_keys)
{
    certs_self("rsa", "rsa:2048", "/CN=a", "");
    certs_self("rsa3", "rsa:3072", "/CN=a", "");
    certs_self("p384", "ec -pkeyopt ec_paramgen_curve:P-384", "/CN=a", "");
    certs_self("p521", "ec -pkeyopt ec_paramgen_curve:P-521", "/CN=a", "");
    cr_assert_eq(good("rsa.crt", "rsa.key")->key_bits, 2048);
    cr_assert_eq(good("rsa.crt", "rsa.key")->kind, AG_TLS_KEY_RSA);
    cr_assert_eq(good("rsa3.crt", "rsa3.key")->key_bits, 3072);
    cr_assert_eq(good("p384.crt", "p384.key")->key_bits, 384);
    cr_assert_eq(good("p521.crt", "p521.key")->key_bits, 521);
}

Test(tls_cert, forms_of_keys)
{
    certs_self("rsa", "rsa:2048", "/CN=a", "");
    certs_self("ec", CERTS_P256, "/CN=a", "");
    certs_run("openssl rsa -in rsa.key -traditional -out rsa1.key && openssl ec -in ec.key -out "
              "ec1.key && (openssl ecparam -name prime256v1; cat ec1.key) >ec2.key");
    certs_run("openssl ec -in ec.key -no_public -out ec3.key");
    (void)good("rsa.crt", "rsa1.key");
    (void)good("ec.crt", "ec1.key");
    (void)good("ec.crt", "ec2.key");
    (void)good("ec.crt", "ec3.key");
}

Test(tls_cert, unusable_keys_are_refused)
{
    certs_self("small", "rsa:1024", "/CN=a", "");
    certs_self("k1", "ec -pkeyopt ec_paramgen_curve:secp256k1", "/CN=a", "");
    certs_self("ed448", "ed448", "/CN=a", "");
    bad("small.crt", "small.key", "RSA key of 1024 bits");
    bad("k1.crt", "k1.key", "elliptic curve");
    bad("ed448.crt", "ed448.key", "kind of key");
}

Test(tls_cert, a_key_that_is_anothers)
{
    certs_self("a", CERTS_P256, "/CN=a", "");
    certs_self("b", CERTS_P256, "/CN=a", "");
    certs_self("c", "rsa:2048", "/CN=a", "");
    certs_self("d", "rsa:2048", "/CN=a", "");
    certs_self("e", "ed25519", "/CN=a", "");
    certs_self("f", "ed25519", "/CN=a", "");
    bad("a.crt", "b.key", "not the certificate's");
    bad("a.crt", "c.key", "not the certificate's");
    bad("c.crt", "d.key", "not the certificate's");
    bad("c.crt", "a.key", "not the certificate's");
    bad("e.crt", "f.key", "not the certificate's");
}

Test(tls_cert, encrypted_keys)
{
    certs_self("a", "rsa:2048", "/CN=a", "");
    certs_run("openssl pkcs8 -topk8 -in a.key -passout pass:xxxx -out p8.key && openssl rsa -in "
              "a.key -traditional -aes128 -passout pass:xxxx -out old.key");
    bad("a.crt", "p8.key", "encrypted");
    bad("a.crt", "old.key", "encrypted");
}

Test(tls_cert, chains)
{
    certs_self("root", CERTS_P256, "/CN=root", "");
    certs_signed("mid", "rsa:2048", "/CN=mid", "root", "basicConstraints=critical,CA:TRUE\n");
    certs_signed("leaf", CERTS_P256, "/CN=leaf", "mid", "subjectAltName=DNS:leaf.example\n");
    certs_self("other", CERTS_P256, "/CN=mid", "");
    certs_run(
        "cat leaf.crt mid.crt root.crt >chain; cat leaf.crt leaf.key mid.crt >both; cat mid.crt "
        "leaf.crt >turned; cat leaf.crt root.crt >gap; cat leaf.crt other.crt >namesake");
    struct ag_tls_identity *id = good("chain", "leaf.key");

    expect_text(id->subject, "CN=leaf");
    expect_text(id->issuer, "CN=mid");
    cr_assert_not(id->self_signed);
    expect_text(id->issuer_pem,
                (const char *)ag_arena_strdup(&arena, certs_read(&arena, "mid.crt")));
    id = good("both", "both");
    expect_text(id->chain_pem,
                ag_arena_printf(&arena, "%s%s",
                                ag_arena_strdup(&arena, certs_read(&arena, "leaf.crt")),
                                ag_arena_strdup(&arena, certs_read(&arena, "mid.crt"))));
    cr_assert(ag_span_starts(id->key_pem, AG_SPAN("-----BEGIN PRIVATE KEY-----")));
    bad("turned", "leaf.key", "the key is that of certificate 2");
    bad("gap", "leaf.key", "certificate 2 (CN=root) did not sign certificate 1");
    bad("namesake", "leaf.key", "certificate 2 (CN=mid) did not sign certificate 1");
}

Test(tls_cert, what_is_no_pem)
{
    certs_self("a", CERTS_P256, "/CN=a", "");
    folder_put_text("empty", "");
    folder_put_text("open", "-----BEGIN CERTIFICATE-----\nAAAA\n");
    folder_put_text("junk", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    folder_put_text("chars", "-----BEGIN CERTIFICATE-----\nA?AA\n-----END CERTIFICATE-----\n");
    folder_put_text("crossed", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END PRIVATE KEY-----\n");
    folder_put_text("key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    bad("empty", "a.key", "no certificate");
    bad("a.key", "a.key", "no certificate");
    bad("a.crt", "a.crt", "no private key");
    bad("open", "a.key", "without its -----END");
    bad("crossed", "a.key", "without its -----END");
    bad("junk", "a.key", "certificate 1 is broken");
    bad("chars", "a.key", "certificate 1 is broken");
    bad("a.crt", "key", "cannot be read");
}

Test(tls_cert, names_without_alternatives)
{
    certs_self("a", CERTS_P256, "/O=x/CN=Old.Example", "");
    struct ag_tls_identity *id = good("a.crt", "a.key");

    cr_assert(id->no_alt_names);
    cr_assert(ag_tls_identity_covers(id, AG_SPAN("old.example")));
}

Test(tls_cert, not_for_servers)
{
    certs_self("a", CERTS_P256, "/CN=a", "-addext extendedKeyUsage=clientAuth");
    cr_assert_not(good("a.crt", "a.key")->for_servers);
}

Test(tls_cert, covers_whole_labels)
{
    const struct ag_span names[] = {AG_SPAN("a.example"), AG_SPAN("*.b.example"), AG_SPAN("::1")};
    const struct ag_tls_identity id = {.names = names, .name_count = 3};
    const char *yes[] = {"a.example", "x.b.example", "::1"};
    const char *no[] = {"",           "example",     "b.example", ".b.example", "x.y.b.example",
                        "xa.example", "a.example.x", "*"};

    for (size_t i = 0; i < AG_COUNT(yes); i++) {
        cr_assert(ag_tls_identity_covers(&id, ag_span_str(yes[i])), "%s", yes[i]);
    }
    for (size_t i = 0; i < AG_COUNT(no); i++) {
        cr_assert_not(ag_tls_identity_covers(&id, ag_span_str(no[i])), "%s", no[i]);
    }
}

Test(tls_cert, authorities)
{
    uint32_t count = 0;
    const char *why = "";

    certs_self("a", CERTS_P256, "/CN=a", "");
    certs_self("b", "rsa:2048", "/CN=b", "");
    certs_run("cat a.crt b.crt >all; (cat a.crt; echo -----BEGIN CERTIFICATE-----) >open");
    cr_assert_eq(ag_tls_authorities_check(&arena, certs_read(&arena, "all"), &count, &why), AG_OK);
    cr_assert_eq(count, 2);
    certs_signed("leaf", CERTS_P256, "/CN=leaf", "a", "extendedKeyUsage=clientAuth\n");
    cr_assert_eq(ag_tls_authorities_check(&arena, certs_read(&arena, "leaf.crt"), &count, &why),
                 AG_OK);
    cr_assert_eq(count, 0);
    cr_assert_eq(ag_tls_authorities_check(&arena, certs_read(&arena, "open"), &count, &why),
                 AG_EINVAL);
    cr_assert_eq(ag_tls_authorities_check(&arena, certs_read(&arena, "a.key"), &count, &why),
                 AG_EINVAL);
    cr_assert_str_eq(why, "no certificate in it");
}

static struct ag_span der_of(const char *name)
{
    struct ag_span text = certs_read(&arena, name), der = {0};
    struct ag_pem pem;

    cr_assert_eq(ag_pem_next(&text, &pem), AG_OK);
    cr_assert_eq(ag_pem_decode(&pem, &arena, &der), AG_OK);
    return der;
}

Test(tls_cert, signatures_of_each_kind)
{
    static const char *const options[] = {"rsa:2048 -sha1",
                                          "rsa:2048 -sha256",
                                          "rsa:2048 -sha384",
                                          "rsa:2048 -sha512",
                                          "ec -pkeyopt ec_paramgen_curve:P-256 -sha256",
                                          "ec -pkeyopt ec_paramgen_curve:P-384 -sha384",
                                          "ec -pkeyopt ec_paramgen_curve:P-521 -sha512",
                                          "ed25519"};

    for (size_t i = 0; i < AG_COUNT(options); i++) {
        struct ag_x509 c;

        certs_self("a", options[i], "/CN=a", "");
        struct ag_span der = der_of("a.crt");
        cr_assert(ag_x509_parse(der, &c), "%s", options[i]);
        cr_assert_eq(c.signature_kind, (enum ag_x509_signature)(i + 1), "%s", options[i]);
        cr_assert(ag_tls_signed_by(&c, c.signature_kind, c.tbs, c.signature), "%s", options[i]);
        ((uint8_t *)(uintptr_t)c.tbs.ptr)[c.tbs.len - 1] ^= 1;
        cr_assert_not(ag_tls_signed_by(&c, c.signature_kind, c.tbs, c.signature), "%s", options[i]);
    }
}

/* Each byte changed, and each length: never more than an answer of no. */
Test(tls_cert, broken_bytes_are_survived)
{
    struct ag_x509 c;
    uint8_t room[512];
    bool address;

    certs_self("a", CERTS_P256, "/O=x/CN=a",
               "-addext subjectAltName=DNS:a,IP:1.2.3.4 -addext "
               "'authorityInfoAccess=OCSP;URI:http://o/' -addext tlsfeature=status_request");
    struct ag_span der = der_of("a.crt");

    for (size_t i = 0; i < der.len; i++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            uint8_t *copy = malloc(der.len);
            struct ag_buf b = ag_buf(room, sizeof(room));

            memcpy(copy, der.ptr, der.len);
            copy[i] ^= (uint8_t)(1u << bit);
            if (ag_x509_parse(ag_span(copy, der.len), &c)) {
                struct ag_span names = c.names;
                ag_x509_put_name(c.subject, &b);
                while (ag_x509_next_name(&names, &b, &address)) {
                }
            }
            free(copy);
        }
        uint8_t *cut = malloc(i ? i : 1);
        memcpy(cut, der.ptr, i);
        cr_assert_not(ag_x509_parse(ag_span(cut, i), &c));
        free(cut);
    }
}

#else

Test(tls_cert, built_without)
{
    struct ag_tls_identity *id = NULL;
    const char *why = "";

    cr_assert_eq(ag_tls_identity_read(NULL, AG_SPAN(""), AG_SPAN(""), &id, &why), AG_EINVAL);
    cr_assert_not_null(strstr(why, "without TLS"));
}

#endif
