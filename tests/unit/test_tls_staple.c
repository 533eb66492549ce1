/*
 * Goal: a good OCSP response is stapled for its certificate as long as it is good, and never one that would fail a
 * handshake.
 * Method: responses made by `openssl ocsp`, shown to openssl's client.
 */
#include "tests/unit/tls_rig.h"

#if AG_WOLFSSL

#    include <time.h>

/* `ocsp.key` and an index that knows the certificate `server`; response in NAME, good for so many days. */
static void respond(const char *name, const char *cert, int days)
{
    certs_run("openssl ocsp -issuer ca.crt -cert %s.crt -no_nonce -reqout req.der && "
              "openssl ocsp -index index.txt -CA ca.crt -rsigner ca.crt -rkey ca.key "
              "-reqin req.der -respout %s -ndays %d",
              cert, name, days);
}

static void setup(void)
{
    rig_setup();
    certs_signed(
        "server", CERTS_P256, "/CN=server", "ca",
        "subjectAltName=DNS:localhost\nauthorityInfoAccess=OCSP;URI:http://127.0.0.1:1/\n");
    certs_signed("other", CERTS_P256, "/CN=other", "ca",
                 "subjectAltName=DNS:other\nauthorityInfoAccess=OCSP;URI:http://127.0.0.1:1/\n");
    certs_run(
        "for c in server other; do printf 'V\\t491231235959Z\\t\\t%%s\\tunknown\\t/CN=%%s\\n' "
        "$(openssl x509 -in $c.crt -noout -serial | cut -d= -f2) $c; done >index.txt && "
        "cat ca.crt >>server.crt");
    rig.identities[0] = rig_identity("server");
    cr_assert(rig.identities[0]->issuer_pem.len > 0);
    rig.settings.stapling = true;
}

TestSuite(tls_staple, .init = setup, .fini = rig_teardown);

/* What openssl says of the response that it was shown. */
static bool shown(const char *options, const char *text)
{
    char command[512];
    FILE *p;
    struct ag_span out;

    (void)snprintf(
        command, sizeof(command),
        "cd %s && timeout 60 openssl s_client -connect 127.0.0.1:%u -status "
        "-servername localhost -CAfile ca.crt -verify_return_error %s </dev/null >out 2>err",
        folder, (unsigned)ntohs(rig.at.sin_port), options);
    p = popen(command, "re"); // NOLINT
    cr_assert(p);
    rig_accept(rig_accepted());
    turn_until(rig.l, rig.server.eofs > 0 || !rig.server.live);
    cr_expect_eq(rig.server.readies, 1, "%s", rig.server.detail);
    if (rig.server.live) {
        ag_stream_finish(&rig.server.tls.stream);
    }
    turn_until(rig.l, !rig.server.live);
    int rc = pclose(p);
    struct ag_span err = certs_read(&rig.arena, "err");
    cr_expect_eq(rc, 0, "%s: %.*s", options, (int)err.len, (const char *)err.ptr);
    out = certs_read(&rig.arena, "out");
    return memmem(out.ptr, out.len, text, strlen(text)) != NULL;
}

#    define GOOD "OCSP Response Status: successful"
#    define NONE "OCSP response: no response sent"

static enum ag_status staple(const char *name, int64_t until_s)
{
    return ag_tls_server_staple(rig.listener, rig.identities[0], certs_read(&rig.arena, name),
                                until_s);
}

BOTH(tls_staple, response_comes_and_goes)
{
    int64_t now = time(NULL);

    respond("good.der", "server", 1);
    rig_open(kind, 64, 16);
    cr_expect(shown("-tls1_3", NONE));
    cr_assert_eq(staple("good.der", now + 86400), AG_OK);
    cr_expect(shown("-tls1_3", GOOD));
    cr_expect(shown("-tls1_2", GOOD));
    rig.shard = 1;
    cr_expect(shown("-tls1_3", GOOD));
    rig.shard = 0;
    cr_assert_eq(staple("good.der", now - 1), AG_OK);
    cr_expect(shown("-tls1_3", NONE));
    cr_assert_eq(staple("good.der", now + 86400), AG_OK);
    cr_expect(shown("-tls1_2", GOOD));
    cr_assert_eq(
        ag_tls_server_staple(rig.listener, rig.identities[0], ag_span(NULL, 0), now + 86400),
        AG_OK);
    cr_expect(shown("-tls1_2", NONE));
    rig_close();
}

BOTH(tls_staple, bad_responses_are_refused)
{
    int64_t later = time(NULL) + 86400;

    respond("good.der", "server", 1);
    respond("other.der", "other", 1);
    certs_run(
        "head -c 100 good.der >cut.der && sed 's/^V/R/; s/\\tunknown/\\tunknown/' index.txt >x");
    rig_open(kind, 64, 16);
    cr_expect_eq(staple("other.der", later), AG_EINVAL);
    cr_expect_eq(staple("cut.der", later), AG_EINVAL);
    cr_expect(shown("-tls1_3", NONE));
    cr_assert_eq(staple("good.der", later), AG_OK);
    cr_expect_eq(staple("other.der", later), AG_EINVAL);
    cr_expect(shown("-tls1_3", GOOD));
    rig_close();
}

/* Where client certificates are asked for as well: the issuer of ours vouches for no client. */
BOTH(tls_staple, beside_client_certificates)
{
    respond("good.der", "server", 1);
    certs_self("clients", CERTS_P256, "/CN=clients", "");
    certs_signed("mid", CERTS_P256, "/CN=mid", "clients", "basicConstraints=CA:TRUE\n");
    certs_signed("user", CERTS_P256, "/CN=user", "mid", "extendedKeyUsage=clientAuth\n");
    certs_run("cat mid.crt >>user.crt");
    rig.settings.client_auth = AG_TLS_CLIENTS_ASKED;
    rig.settings.client_ca = certs_read(&rig.arena, "clients.crt");
    rig_open(kind, 64, 16);
    cr_assert_eq(staple("good.der", time(NULL) + 86400), AG_OK);
    for (unsigned i = 0; i < 2; i++) {
        cr_expect(shown("-cert user.crt -key user.key -cert_chain user.crt", GOOD));
        cr_expect_eq(rig.server.session.client_cert, AG_TLS_CLIENT_VALID, "%s",
                     rig.server.session.client_error);
        cr_expect(shown("-cert other.crt -key other.key", GOOD));
        cr_expect_eq(rig.server.session.client_cert, AG_TLS_CLIENT_INVALID);
        cr_expect_str_eq(rig.server.session.client_error, "unknown authority");
    }
    rig_close();
}

#endif
