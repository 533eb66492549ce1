/*
 * Goal: TLS carries bytes whole and in order, tells what was settled, and leaves nothing behind, however its peer
 * behaves.
 * Method: our client and our server on one loop, or one of them and a raw socket; on both backends.
 */
#include "tests/unit/tls_rig.h"

#if AG_WOLFSSL

TestSuite(tls, .init = rig_setup, .fini = rig_teardown);

BOTH(tls, says_what_was_settled)
{
    rig_open(kind, 64, 16);
    rig_shake();
    cr_assert_str_eq(rig.server.session.version, "TLSv1.3");
    cr_assert_str_eq(rig.client.session.version, "TLSv1.3");
    cr_assert_str_eq(rig.server.session.cipher, "TLS_AES_128_GCM_SHA256");
    cr_assert_str_eq(rig.server.name, "localhost");
    cr_assert_eq(rig.server.session.alpn, AG_ALPN_H2);
    cr_assert_eq(rig.client.session.alpn, AG_ALPN_H2);
    cr_assert(!rig.server.session.resumed && !rig.server.session.client_cert_asked);
    rig_finish();
    cr_assert_eq(rig.client.why, AG_REASON_NONE, "%s", ag_reason_text(rig.client.why));
    cr_assert_eq(rig.server.why, AG_REASON_NONE);
    rig_close();
}

/* For who logs what the connection was. */
BOTH(tls, what_was_settled_is_known_at_the_end)
{
    rig_open(kind, 64, 16);
    rig_shake();
    ag_stream_abort(&rig.client.tls.stream, AG_REASON_NONE);
    turn_until(rig.l, !rig.server.live);
    cr_expect(rig.server.version && strcmp(rig.server.version, "TLSv1.3") == 0);
    rig_close();
}

/* ---- versions and suites ---- */

/* Handshakes with settings as they are; the client's session says what came of it. */
static void shake_once(enum ag_backend_kind kind, const char *version)
{
    rig_open(kind, 64, 16);
    rig_shake();
    cr_expect_str_eq(rig.client.session.version, version);
    cr_expect_str_eq(rig.server.session.version, version);
    end_send(&rig.client, 0, 3000);
    end_send(&rig.server, 0, 3000);
    turn_until(rig.l, rig.server.in == 3000 && rig.client.in == 3000);
    rig_finish();
    rig_close();
}

BOTH(tls, modern_is_1_3)
{
    rig.settings.profile = AG_TLS_MODERN;
    shake_once(kind, "TLSv1.3");
}

BOTH(tls, fips_like_has_the_nist_curves)
{
    rig.settings.profile = AG_TLS_FIPS_LIKE;
    shake_once(kind, "TLSv1.3");
}

/* Runs openssl as a client against the rig's server; true: it was content. */
static bool openssl_client(const char *options)
{
    char command[1024];
    FILE *p;
    int rc;

    (void)snprintf(command, sizeof(command),
                   "cd %s && timeout 60 openssl s_client -connect 127.0.0.1:%u -CAfile ca.crt "
                   "-verify_return_error %s %s </dev/null >out 2>err",
                   folder, (unsigned)ntohs(rig.at.sin_port),
                   strstr(options, "servername") ? "" : "-servername localhost", options);
    p = popen(command, "re"); // NOLINT
    cr_assert(p);
    rig_accept(rig_accepted());
    turn_until(rig.l, rig.server.eofs > 0 || !rig.server.live);
    if (rig.server.live) {
        ag_stream_finish(&rig.server.tls.stream);
    }
    turn_until(rig.l, !rig.server.live);
    rc = pclose(p);
    return rc == 0;
}

BOTH(tls, openssl_shakes_hands_in_each_way)
{
    static const char *const good[] = {
        "-tls1_3",
        "-tls1_2",
        "-tls1_3 -groups X25519",
        "-tls1_3 -groups P-384",
        "-tls1_3 -groups P-521:P-256",
        "-tls1_2 -groups P-384:P-256",
        "-tls1_3 -ciphersuites TLS_CHACHA20_POLY1305_SHA256",
        "-tls1_2 -cipher ECDHE-ECDSA-CHACHA20-POLY1305",
        "-tls1_2 -cipher ECDHE-ECDSA-AES256-GCM-SHA384",
        "-alpn h2,http/1.1",
    };
    static const char *const bad[] = {
        "-tls1_1 -cipher DEFAULT@SECLEVEL=0",
        "-tls1_2 -cipher AES128-SHA256",
        "-tls1_2 -cipher ECDHE-ECDSA-AES128-SHA256",
        "-tls1_2 -cipher ECDHE-RSA-AES128-GCM-SHA256",
        "-alpn smtp",
    };

    rig_open(kind, 64, 16);
    for (unsigned i = 0; i < AG_COUNT(good); i++) {
        cr_expect(openssl_client(good[i]), "%s", good[i]);
        cr_expect_eq(rig.server.readies, 1, "%s: %s", good[i], rig.server.detail);
    }
    for (unsigned i = 0; i < AG_COUNT(bad); i++) {
        cr_expect(!openssl_client(bad[i]), "%s", bad[i]);
        cr_expect_eq(rig.server.readies, 0, "%s", bad[i]);
        cr_expect_eq(rig.server.why, AG_REASON_TLS, "%s: %s", bad[i],
                     ag_reason_text(rig.server.why));
        cr_expect_not_null(rig.server.detail);
    }
    rig_close();
}

BOTH(tls, server_prefers_aes_unless_the_client_has_none)
{
    rig_open(kind, 64, 16);
    cr_assert(openssl_client("-ciphersuites TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256"));
    cr_assert_str_eq(rig.server.session.cipher, "TLS_AES_128_GCM_SHA256");
    cr_assert(openssl_client("-ciphersuites TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256"));
    cr_assert_str_eq(rig.server.session.cipher, "TLS_CHACHA20_POLY1305_SHA256");
    rig_close();
}

/* ---- certificates ---- */

/* The common name of the certificate that openssl was shown. */
static void expect_shown(const char *options, const char *name)
{
    char text[64];

    cr_expect(openssl_client(options), "%s", options);
    (void)snprintf(text, sizeof(text), "s:CN = %s\n", name);
    cr_expect(system(NULL) != 0);
    struct ag_span out = certs_read(&rig.arena, "out");
    bool found = false;
    for (size_t i = 0; i + strlen(text) <= out.len && !found; i++) {
        found = memcmp(out.ptr + i, text, strlen(text)) == 0;
    }
    cr_expect(found, "%s: not %s", options, name);
}

static void many_identities(void)
{
    certs_signed("rsa", "rsa:2048", "/CN=rsa", "ca",
                 "subjectAltName=DNS:localhost,DNS:rsa.example\n");
    certs_signed("other", CERTS_P256, "/CN=other", "ca",
                 "subjectAltName=DNS:other.example,DNS:a.wild.example\n");
    rig.identities[1] = rig_identity("rsa");
    rig.identities[2] = rig_identity("other");
    rig.settings.identity_count = 3;
}

BOTH(tls, certificate_by_name_and_by_kind)
{
    many_identities();
    rig_open(kind, 64, 16);
    expect_shown("", "server");
    expect_shown("-servername LOCALHOST", "server");
    expect_shown("-sigalgs rsa_pss_rsae_sha256:RSA+SHA256", "rsa");
    expect_shown("-tls1_2 -cipher ECDHE-RSA-AES128-GCM-SHA256", "rsa");
    expect_shown("-servername rsa.example", "rsa");
    expect_shown("-servername other.example", "other");
    expect_shown("-servername a.wild.example", "other");
    expect_shown("-servername b.wild.example", "server");
    expect_shown("-servername b.b.wild.example", "server");
    expect_shown("-servername unknown.example", "server");
    expect_shown("-servername unknown.example -sigalgs rsa_pss_rsae_sha256:RSA+SHA256", "rsa");
    expect_shown("-noservername", "server");
    rig_close();
}

/* What the client can check goes before what is nearest: a curve of its own (TLS 1.2), a wildcard's certificate. */
BOTH(tls, certificate_that_the_client_can_check)
{
    many_identities();
    certs_signed("wild", "rsa:2048", "/CN=wild", "ca", "subjectAltName=DNS:*.wild.example\n");
    rig.identities[3] = rig_identity("wild");
    rig.settings.identity_count = 4;
    rig_open(kind, 64, 16);
    expect_shown("-tls1_2 -groups P-384", "rsa");
    expect_shown("-tls1_2 -groups P-384:P-256", "server");
    expect_shown("-tls1_3 -groups P-384", "server");
    expect_shown("-tls1_2 -servername a.wild.example", "other");
    expect_shown("-tls1_2 -servername a.wild.example -sigalgs RSA+SHA256", "wild");
    expect_shown("-tls1_2 -servername a.wild.example -cipher ECDHE-RSA-AES128-GCM-SHA256", "wild");
    rig_close();
}

BOTH(tls, strict_names_refuse_others)
{
    rig.settings.strict_sni = true;
    rig_open(kind, 64, 16);
    cr_expect(openssl_client(""));
    cr_expect(openssl_client("-noservername"));
    cr_expect(!openssl_client("-servername unknown.example"));
    cr_expect_str_eq(rig.server.detail, "no certificate for this server name");
    rig_close();
}

BOTH(tls, protocols_as_the_settings_say)
{
    rig.settings.h2 = false;
    rig_open(kind, 64, 16);
    cr_expect(openssl_client("-alpn h2,http/1.1"));
    cr_expect_eq(rig.server.session.alpn, AG_ALPN_HTTP_11);
    cr_expect(openssl_client(""));
    cr_expect_eq(rig.server.session.alpn, AG_ALPN_NONE);
    cr_expect(!openssl_client("-alpn h2"));
    cr_expect_str_eq(rig.server.detail, "no common application protocol");
    rig_close();
}

/* ---- resumption ---- */

static void finish_now(struct end *e)
{
    if (!e->quiet) {
        e->quiet = true;
        ag_stream_finish(&e->tls.stream);
    }
}

/* Connects with openssl, keeps its session, and comes back with it on the other shard. */
static void resumes(const char *options, bool expected)
{
    char text[256];

    rig.shard = 0;
    (void)snprintf(text, sizeof(text), "%s -sess_out session -ign_eof", options);
    /* The ticket of TLS 1.3 comes behind the handshake: s_client waits for the server's close. */
    rig.server.then = finish_now;
    cr_expect(openssl_client(text));
    rig.server.then = NULL;
    if (access(folder_at("session"), F_OK) != 0) {
        cr_expect(!expected, "%s: no session", options);
        return;
    }
    rig.shard = 1;
    (void)snprintf(text, sizeof(text), "%s -sess_in session", options);
    cr_expect(openssl_client(text));
    cr_expect_eq(rig.server.session.resumed, expected, "%s", options);
    rig.shard = 0;
    (void)unlink(folder_at("session"));
}

BOTH(tls, tickets_resume_on_another_shard)
{
    rig_open(kind, 64, 16);
    resumes("-tls1_3", true);
    resumes("-tls1_2", true);
    rig_close();
}

BOTH(tls, tickets_are_off_when_the_settings_say_so)
{
    rig.settings.tickets = false;
    rig_open(kind, 64, 16);
    resumes("-tls1_3", false);
    resumes("-tls1_2", false);
    rig_close();
}

BOTH(tls, ticket_of_another_name_does_not_open)
{
    rig_open(kind, 64, 16);
    cr_expect(openssl_client("-tls1_2 -sess_out session"));
    cr_expect(openssl_client("-tls1_2 -sess_in session -servername x.wild.example"));
    cr_expect(!rig.server.session.resumed);
    cr_expect(openssl_client("-tls1_2 -sess_in session"));
    cr_expect(rig.server.session.resumed);
    rig_close();
}

BOTH(tls, ticket_of_other_settings_does_not_open)
{
    const char *why;

    rig_open(kind, 64, 16);
    cr_expect(openssl_client("-tls1_2 -sess_out session"));
    ag_tls_server_release(rig.listener);
    rig.settings.key[3] = 1;
    rig.listener = ag_tls_server_new(&rig.settings, 2, rig.tickets, &why);
    cr_assert(rig.listener);
    cr_expect(openssl_client("-tls1_2 -sess_in session"));
    cr_expect(!rig.server.session.resumed);
    rig_close();
}

BOTH(tls, ticket_lives_as_long_as_its_key)
{
    rig_open(kind, 64, 16);
    cr_expect(openssl_client("-tls1_2 -sess_out session"));
    ag_tls_tickets_rotate(rig.tickets);
    cr_expect(openssl_client("-tls1_2 -sess_in session"));
    cr_expect(rig.server.session.resumed);
    ag_tls_tickets_rotate(rig.tickets);
    cr_expect(openssl_client("-tls1_2 -sess_in session"));
    cr_expect(!rig.server.session.resumed);
    rig_close();
}

BOTH(tls, sessions_by_id_resume_where_some_are_kept)
{
    rig.settings.session_cache = 100;
    rig_open(kind, 64, 16);
    resumes("-tls1_2 -no_ticket", true);
    cr_expect(openssl_client("-tls1_2 -no_ticket -sess_out session"));
    cr_expect(openssl_client("-tls1_2 -no_ticket -sess_in session -servername x.wild.example"));
    cr_expect(!rig.server.session.resumed);
    cr_expect(openssl_client("-tls1_2 -no_ticket -sess_in session"));
    cr_expect(rig.server.session.resumed);
    resumes("-tls1_3", true);
    resumes("-tls1_2", true);
    rig_close();
}

BOTH(tls, sessions_by_id_are_off_else)
{
    rig_open(kind, 64, 16);
    resumes("-tls1_2 -no_ticket", false);
    rig_close();
}

BOTH(tls, client_resumes_what_it_has_kept)
{
    rig_open(kind, 64, 16);
    for (unsigned i = 0; i < 4; i++) {
        rig_shake();
        cr_expect_eq(rig.client.session.resumed, i > 0, "%u", i);
        cr_expect_eq(rig.server.session.resumed, i > 0);
        cr_expect_eq(rig.client.session.alpn, AG_ALPN_H2);
        end_send(&rig.server, 0, 10); /* behind the ticket */
        turn_until(rig.l, rig.client.in == 10);
        rig_finish();
    }
    rig_close();
}

static void leave(struct end *e)
{
    ag_stream_abort(&e->tls.stream, AG_REASON_NONE);
}

static void shake_with_ticket(bool resumed)
{
    rig_shake();
    cr_expect_eq(rig.client.session.resumed, resumed);
    end_send(&rig.server, 0, 10); /* behind the ticket */
    turn_until(rig.l, rig.client.in == 10);
    rig_finish();
}

/* The secret of the next session is made by the handshake, its ticket comes later. */
BOTH(tls, client_that_leaves_before_the_ticket_keeps_the_last_one)
{
    rig_open(kind, 64, 16);
    shake_with_ticket(false);
    rig.client.then = leave;
    rig_start();
    turn_until(rig.l, rig.client.closes && rig.server.closes);
    cr_expect_eq(rig.client.readies, 1);
    rig.client.then = NULL;
    shake_with_ticket(true);
    rig_close();
}

/* Whatever the server did not like about it. */
BOTH(tls, client_forgets_a_session_when_the_handshake_breaks_off)
{
    for (int reset = 0; reset < 2; reset++) {
        const struct linger at_once = {.l_onoff = 1};
        int fd;

        rig_open(kind, 64, 16);
        shake_with_ticket(false);
        rig_connect();
        fd = rig_accepted();
        if (reset) {
            cr_assert_eq(setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once)), 0);
        } else {
            uint8_t hello[4096];

            turn_until(rig.l, recv(fd, hello, sizeof(hello), MSG_DONTWAIT | MSG_PEEK) > 0);
            cr_assert_gt(recv(fd, hello, sizeof(hello), MSG_DONTWAIT), 0);
        }
        (void)close(fd);
        turn_until(rig.l, rig.client.closes > 0);
        cr_expect_eq(rig.client.why, reset ? AG_REASON_RESET : AG_REASON_EOF);
        shake_with_ticket(false);
        rig_close();
    }
}

/* ---- bytes ---- */

BOTH(tls, bytes_go_both_ways)
{
    rig_open(kind, 64, 16);
    rig_shake();
    end_send(&rig.client, 0, 100);
    end_send(&rig.server, 0, 50000);
    turn_until(rig.l, rig.server.in == 100 && rig.client.in == 50000);
    rig_finish();
    rig_close();
}

#endif
