/*
 * Goal: a request is one that a responder understands, and only what the certificate's issuer vouches for, now, for this
 * certificate, is good to be stapled.
 * Method: responses of the openssl command's responder, right and wrong in one point each; every bit of one changed.
 */
#include "engine/tls_ocsp.h"

#include "tests/unit/certs.h"

#if AG_WOLFSSL

#    include <time.h>

static struct ag_arena arena;
static struct ag_tls_identity *id;

/* An authority, "leaf" of it, "other" of it, a responder that it has appointed and one that it has not. */
static void setup(void)
{
    const char *why = "";

    folder_make();
    ag_arena_init(&arena, NULL, 0);
    certs_self("ca", CERTS_P256, "/CN=ca", "");
    certs_signed("leaf", CERTS_P256, "/CN=leaf", "ca",
                 "authorityInfoAccess=OCSP;URI:http://127.0.0.1:1/\n");
    certs_signed("other", CERTS_P256, "/CN=other", "ca", "basicConstraints=CA:FALSE\n");
    certs_signed("resp", "rsa:2048", "/CN=resp", "ca", "extendedKeyUsage=OCSPSigning\n");
    certs_signed("plain", CERTS_P256, "/CN=plain", "ca", "extendedKeyUsage=serverAuth\n");
    certs_self("stranger", CERTS_P256, "/CN=ca", "-addext extendedKeyUsage=OCSPSigning");
    certs_run("for c in leaf other; do s=$(openssl x509 -in $c.crt -noout -serial | cut -d= -f2); "
              "printf 'V\\t491231235959Z\\t\\t%%s\\tunknown\\t/CN=%%s\\n' $s $c; done >index");
    certs_run("cat leaf.crt ca.crt >chain");
    cr_assert_eq(ag_tls_identity_read(&arena, certs_read(&arena, "chain"),
                                      certs_read(&arena, "leaf.key"), &id, &why),
                 AG_OK, "%s", why);
}

static void teardown(void)
{
    ag_arena_release(&arena);
    folder_remove();
}

TestSuite(tls_ocsp, .init = setup, .fini = teardown);

/* The answer about `cert` by `signer`. */
static struct ag_span respond(const char *cert, const char *signer, const char *more)
{
    certs_run("openssl ocsp -issuer ca.crt -cert %s.crt -reqout req.der && openssl ocsp -index "
              "index -CA ca.crt -rsigner %s.crt -rkey %s.key -reqin req.der -respout resp.der %s",
              cert, signer, signer, more);
    return certs_read(&arena, "resp.der");
}

static const char *check(struct ag_span der, int64_t offset_s, struct ag_ocsp_answer *out)
{
    const char *why = NULL;
    enum ag_status st = ag_ocsp_check(id, der, time(NULL) + offset_s, out, &why);

    cr_assert_eq(st, why ? AG_EINVAL : AG_OK);
    return why ? why : "good";
}

Test(tls_ocsp, a_request_that_a_responder_understands)
{
    uint8_t room[AG_OCSP_REQUEST_MAX];
    struct ag_buf b = ag_buf(room, sizeof(room));
    struct ag_ocsp_answer a;

    cr_assert(ag_ocsp_askable(id));
    cr_assert_eq(ag_ocsp_request(id, &b), AG_OK);
    folder_put("mine.der", b.ptr, b.len);
    certs_run("openssl ocsp -issuer ca.crt -cert leaf.crt -no_nonce -reqout theirs.der && cmp "
              "mine.der theirs.der");
    certs_run("openssl ocsp -index index -CA ca.crt -rsigner ca.crt -rkey ca.key -reqin mine.der "
              "-respout resp.der -ndays 2");
    cr_expect_str_eq(check(certs_read(&arena, "resp.der"), 0, &a), "good");
    cr_expect_eq(a.status, AG_OCSP_GOOD);
    cr_expect_eq(a.next_update_s - a.this_update_s, 2 * 86400);
    cr_expect_eq(a.next_ask_s - a.this_update_s, 86400);
}

Test(tls_ocsp, who_may_sign)
{
    struct ag_ocsp_answer a;

    cr_expect_str_eq(check(respond("leaf", "ca", "-ndays 1"), 0, &a), "good");
    cr_expect_str_eq(check(respond("leaf", "resp", "-ndays 1"), 0, &a), "good");
    cr_expect_str_eq(check(respond("leaf", "plain", "-ndays 1"), 0, &a),
                     "the response is not signed by the certificate's issuer");
    cr_expect_str_eq(check(respond("leaf", "stranger", "-ndays 1"), 0, &a),
                     "the response is not signed by the certificate's issuer");
    cr_expect_eq(a.next_update_s, 0);
}

Test(tls_ocsp, whom_it_is_about)
{
    struct ag_ocsp_answer a;

    cr_expect_str_eq(check(respond("other", "ca", "-ndays 1"), 0, &a),
                     "the response is for another certificate");
}

Test(tls_ocsp, when_it_holds)
{
    struct ag_ocsp_answer a;
    struct ag_span der = respond("leaf", "ca", "-ndays 1");

    cr_expect_str_eq(check(der, 86400 - 50, &a), "good");
    cr_expect_str_eq(check(der, 86400 + 50, &a), "the response is too old");
    cr_expect_str_eq(check(der, -250, &a), "good");
    cr_expect_str_eq(check(der, -350, &a), "the response is of the future");
    der = respond("leaf", "ca", "");
    cr_expect_str_eq(check(der, 3500, &a), "good");
    cr_expect_str_eq(check(der, 3700, &a), "the response is too old");
}

/* One that is served beyond half of its time, as responders do that make them ahead, is not asked for all the time. */
Test(tls_ocsp, when_to_ask_again)
{
    struct ag_ocsp_answer a;
    struct ag_span der = respond("leaf", "ca", "-ndays 1");
    int64_t now = time(NULL);

    cr_expect_str_eq(check(der, 40000, &a), "good");
    cr_expect_eq(a.next_ask_s, a.this_update_s + 43200);
    cr_expect_str_eq(check(der, 80000, &a), "good");
    cr_expect(a.next_ask_s >= now + 83190 && a.next_ask_s <= now + 83210);
}

Test(tls_ocsp, revoked_and_unknown)
{
    struct ag_ocsp_answer a;

    certs_run("sed -i 's/^V\\t\\([^\\t]*\\)\\t\\t/R\\t\\1\\t250101000000Z\\t/' index");
    cr_expect_str_eq(check(respond("leaf", "ca", "-ndays 1"), 0, &a), "the certificate is revoked");
    cr_expect_eq(a.status, AG_OCSP_REVOKED);
    cr_expect_neq(a.next_update_s, 0);
    certs_run(": >index");
    cr_expect_str_eq(check(respond("leaf", "ca", "-ndays 1"), 0, &a),
                     "the responder does not know the certificate");
    cr_expect_eq(a.status, AG_OCSP_UNKNOWN);
}

Test(tls_ocsp, refusals)
{
    static const uint8_t later[] = {0x30, 0x03, 0x0a, 0x01, 0x03};
    static const uint8_t odd[] = {0x30, 0x03, 0x0a, 0x01, 0x09};
    struct ag_ocsp_answer a;

    cr_expect_str_eq(check(ag_span(later, 5), 0, &a), "the responder says to try later");
    cr_expect_str_eq(check(ag_span(odd, 5), 0, &a), "the responder says what nobody understands");
    cr_expect_str_eq(check(AG_SPAN("<html>"), 0, &a), "not an OCSP response");
    cr_expect_str_eq(check(AG_SPAN(""), 0, &a), "not an OCSP response");
}

Test(tls_ocsp, without_an_issuer)
{
    struct ag_tls_identity alone = *id;
    uint8_t room[AG_OCSP_REQUEST_MAX];
    struct ag_buf b = ag_buf(room, sizeof(room));
    struct ag_ocsp_answer a;
    const char *why = "";

    alone.issuer_pem = AG_SPAN("");
    cr_expect_not(ag_ocsp_askable(&alone));
    cr_expect_eq(ag_ocsp_request(&alone, &b), AG_EINVAL);
    cr_expect_eq(ag_ocsp_check(&alone, respond("leaf", "ca", ""), time(NULL), &a, &why), AG_EINVAL);
}

Test(tls_ocsp, every_bit_counts)
{
    struct ag_ocsp_answer a;
    struct ag_span der = respond("leaf", "ca", "-ndays 1 -resp_no_certs");
    uint32_t passed = 0;

    for (size_t i = 0; i < der.len * 8; i++) {
        uint8_t *copy = malloc(der.len);

        memcpy(copy, der.ptr, der.len);
        copy[i / 8] ^= (uint8_t)(1u << i % 8);
        passed += strcmp(check(ag_span(copy, der.len), 0, &a), "good") == 0;
        free(copy);
    }
    /* The algorithm's name stands outside of what is signed: another hash fails, its NULL may be missing. */
    cr_expect_leq(passed, 16, "%u", passed);
    for (size_t cut = 0; cut < der.len; cut++) {
        uint8_t *copy = malloc(cut ? cut : 1);

        memcpy(copy, der.ptr, cut);
        cr_expect_str_neq(check(ag_span(copy, cut), 0, &a), "good");
        free(copy);
    }
}

#endif
