/*
 * Goal: a server that is not who it should be, and a client whose certificate is not good, are found out, each with
 * its reason; and nothing that a peer sends makes another one believed.
 * Method: chains made for the purpose, shown by our own ends to each other.
 */
#include "tests/unit/tls_rig.h"

#if AG_WOLFSSL

TestSuite(tls_verify_peer, .init = rig_setup, .fini = rig_teardown);

#    define INTERMEDIATE "basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign,cRLSign\n"

/* NAME.crt becomes a chain with what else is named behind it. */
static void append(const char *name, const char *more)
{
    certs_run("cat %s >>%s.crt", more, name);
}

/* NAME, signed by SIGNER, valid between two days as `date` understands them. */
static void signed_between(const char *name, const char *signer, const char *from, const char *to)
{
    certs_run(
        "printf 'subjectAltName=DNS:localhost\\n' >%s.ext && : >index.txt && echo 01 >serial && "
        "printf '[ca]\\ndefault_ca=d\\n[d]\\ndatabase=index.txt\\nserial=serial\\n"
        "new_certs_dir=.\\ndefault_md=sha256\\npolicy=p\\n[p]\\ncommonName=supplied\\n' >ca.cnf && "
        "openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout %s.key "
        "-out %s.csr -subj /CN=%s && openssl ca -batch -notext -config ca.cnf -cert %s.crt "
        "-keyfile %s.key -in %s.csr -out %s.crt -extfile %s.ext "
        "-startdate $(date -u -d '%s' +%%Y%%m%%d%%H%%M%%SZ) "
        "-enddate $(date -u -d '%s' +%%Y%%m%%d%%H%%M%%SZ)",
        name, name, name, name, signer, signer, name, name, name, from, to);
}

/* ---- servers ---- */

/* The rig's client meets a server with that identity. NULL: it is content; else why it is not. */
static const char *meet(enum ag_backend_kind kind, const char *name, const char *host)
{
    const char *why;

    rig.identities[0] = rig_identity(name);
    rig.host = host;
    rig_open(kind, 64, 16);
    rig_start();
    turn_until(rig.l, rig.client.readies || rig.client.closes);
    why = rig.client.readies ? NULL : rig.client.detail;
    if (!rig.client.readies) {
        cr_expect_eq(rig.client.why, AG_REASON_TLS, "%s", ag_reason_text(rig.client.why));
        cr_expect_not_null(why);
        turn_until(rig.l, !rig.server.live);
    } else {
        turn_until(rig.l, rig.server.readies);
        rig_finish();
    }
    rig_close();
    return why;
}

static void expect_met(enum ag_backend_kind kind, const char *name, const char *host,
                       const char *want)
{
    const char *why = meet(kind, name, host);

    cr_expect((why == NULL) == (want == NULL) && (!why || strcmp(why, want) == 0),
              "%s as %s: %s, not %s", name, host, why ? why : "good", want ? want : "good");
}

/* A server that says something else than TLS. */
BOTH(tls_verify_peer, who_speaks_no_tls)
{
    static const char *const words[] = {"HTTP/1.1 400 Bad Request\r\n\r\n", "SSH-2.0-x\r\n",
                                        "\x17\x03\x03", "\n"};

    rig_open(kind, 64, 16);
    for (size_t i = 0; i < AG_COUNT(words); i++) {
        int fd;

        rig_connect();
        fd = rig_accepted();
        cr_assert_eq(send(fd, words[i], strlen(words[i]), MSG_NOSIGNAL), (ssize_t)strlen(words[i]));
        turn_until(rig.l, rig.client.closes);
        cr_expect_eq(rig.client.why, AG_REASON_TLS);
        cr_expect_str_eq(rig.client.detail, "the server answers without TLS");
        (void)close(fd);
    }
    rig_close();
}

BOTH(tls_verify_peer, names_of_servers)
{
    certs_signed("names", CERTS_P256, "/CN=cn.example", "ca",
                 "subjectAltName=DNS:a.example,DNS:*.b.example,IP:127.0.0.1,IP:::1\n");
    certs_signed("likeness", CERTS_P256, "/CN=likeness", "ca",
                 "subjectAltName=DNS:127.0.0.1,DNS:*.0.0.1\n");
    certs_signed("nameless", CERTS_P256, "/CN=localhost", "ca", "extendedKeyUsage=serverAuth\n");
    expect_met(kind, "names", "a.example", NULL);
    expect_met(kind, "names", "A.Example.", NULL);
    expect_met(kind, "names", "x.b.example", NULL);
    expect_met(kind, "names", "127.0.0.1", NULL);
    expect_met(kind, "names", "::1", NULL);
    expect_met(kind, "names", "[0:0::1]", NULL);
    expect_met(kind, "names", "b.example", "name does not match");
    expect_met(kind, "names", "x.y.b.example", "name does not match");
    expect_met(kind, "names", "cn.example", "name does not match");
    expect_met(kind, "names", "127.0.0.2", "name does not match");
    expect_met(kind, "names", "", "name does not match");
    expect_met(kind, "nameless", "localhost", "name does not match");
    expect_met(kind, "likeness", "127.0.0.1", "name does not match");
}

/* A name is asked for without the dot that ends it. */
BOTH(tls_verify_peer, a_name_that_ends_in_a_dot)
{
    uint8_t hello[4096];
    ssize_t n;
    int fd;

    rig.host = "a.example.";
    rig_open(kind, 64, 16);
    rig_connect();
    fd = rig_accepted();
    while ((n = recv(fd, hello, sizeof(hello), MSG_DONTWAIT)) < 0) {
        ag_loop_turn(rig.l, 10);
    }
    /* The length stands before it. */
    cr_expect_not_null(memmem(hello, (size_t)n, "\0\11a.example", 11));
    cr_expect_null(memmem(hello, (size_t)n, "a.example.", 10));
    (void)close(fd);
    turn_until(rig.l, rig.client.closes);
    rig_close();
}

BOTH(tls_verify_peer, name_of_the_settings_comes_first)
{
    rig.upstream.server_name = AG_SPAN("x.wild.example");
    expect_met(kind, "server", "unknown.example", NULL);
    rig.upstream.server_name = AG_SPAN("x.example");
    expect_met(kind, "server", "localhost", "name does not match");
}

BOTH(tls_verify_peer, dates_of_servers)
{
    signed_between("old", "ca", "40 days ago", "2 days ago");
    signed_between("young", "ca", "2 days", "40 days");
    expect_met(kind, "old", "localhost", "certificate has expired");
    expect_met(kind, "young", "localhost", "certificate is not yet valid");
}

BOTH(tls_verify_peer, authorities_of_servers)
{
    certs_self("self", CERTS_P256, "/CN=localhost", "-addext subjectAltName=DNS:localhost");
    certs_self("ca2", CERTS_P256, "/CN=ca", ""); /* of the same name, with another key */
    certs_signed("forged", CERTS_P256, "/CN=server", "ca2", "subjectAltName=DNS:localhost\n");
    expect_met(kind, "self", "localhost", "unknown authority");
    expect_met(kind, "forged", "localhost", "unknown authority");
}

/* It is no reason not to start, and vouches for nobody. */
BOTH(tls_verify_peer, an_authority_that_has_expired)
{
    certs_authority_between("old", "40 days ago", "2 days ago");
    certs_signed("leaf", CERTS_P256, "/CN=leaf", "old", "subjectAltName=DNS:localhost\n");
    rig.upstream.ca = certs_read(&rig.arena, "old.crt");
    expect_met(kind, "leaf", "localhost", "unknown authority");
    certs_run("cat ca.crt >>old.crt");
    rig.upstream.ca = certs_read(&rig.arena, "old.crt");
    expect_met(kind, "leaf", "localhost", "unknown authority");
    expect_met(kind, "server", "localhost", NULL);
}

BOTH(tls_verify_peer, chains_of_servers)
{
    certs_signed("mid", CERTS_P256, "/CN=mid", "ca", INTERMEDIATE);
    certs_signed("low", "rsa:2048", "/CN=low", "mid", INTERMEDIATE);
    certs_signed("leaf", CERTS_P256, "/CN=leaf", "low", "subjectAltName=DNS:localhost\n");
    certs_run("cp leaf.crt bare.crt && cp leaf.key bare.key");
    append("leaf", "low.crt mid.crt");
    expect_met(kind, "leaf", "localhost", NULL);
    expect_met(kind, "bare", "localhost", "unknown authority");
}

BOTH(tls_verify_peer, leaves_are_no_authorities)
{
    certs_signed("child", CERTS_P256, "/CN=child", "server", "subjectAltName=DNS:localhost\n");
    append("child", "server.crt");
    expect_met(kind, "child", "localhost", "issued by what is no authority");
    certs_signed("nosign", CERTS_P256, "/CN=nosign", "ca",
                 "basicConstraints=critical,CA:TRUE\nkeyUsage=digitalSignature\n");
    certs_signed("child2", CERTS_P256, "/CN=child2", "nosign", "subjectAltName=DNS:localhost\n");
    append("child2", "nosign.crt");
    expect_met(kind, "child2", "localhost", "issued by what is no authority");
}

BOTH(tls_verify_peer, path_lengths_hold)
{
    certs_signed("mid", CERTS_P256, "/CN=mid", "ca",
                 "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=keyCertSign\n");
    certs_signed("low", CERTS_P256, "/CN=low", "mid", INTERMEDIATE);
    certs_signed("leaf", CERTS_P256, "/CN=leaf", "low", "subjectAltName=DNS:localhost\n");
    certs_signed("fair", CERTS_P256, "/CN=fair", "mid", "subjectAltName=DNS:localhost\n");
    append("leaf", "low.crt mid.crt");
    append("fair", "mid.crt");
    expect_met(kind, "leaf", "localhost", "chain is too long");
    expect_met(kind, "fair", "localhost", NULL);
}

/* What an authority may vouch for holds for all below it, not for what it has signed itself alone. */
BOTH(tls_verify_peer, names_that_an_authority_may_not_vouch_for)
{
    static const char denied[] = "name not permitted by its authority";

    certs_signed("mid", CERTS_P256, "/CN=mid", "ca",
                 INTERMEDIATE "nameConstraints=critical,permitted;DNS:corp.test,"
                              "permitted;IP:10.0.0.0/255.0.0.0\n");
    certs_signed("low", CERTS_P256, "/CN=Sub CA of Corp", "mid", INTERMEDIATE);
    certs_signed("good", CERTS_P256, "/CN=good", "low", "subjectAltName=DNS:a.corp.test\n");
    certs_signed("evil", CERTS_P256, "/CN=evil", "low", "subjectAltName=DNS:localhost\n");
    certs_signed("near", CERTS_P256, "/CN=near", "mid", "subjectAltName=DNS:evilcorp.test\n");
    certs_signed("address", CERTS_P256, "/CN=address", "mid", "subjectAltName=IP:127.0.0.1\n");
    append("good", "low.crt mid.crt");
    append("evil", "low.crt mid.crt");
    append("near", "mid.crt");
    append("address", "mid.crt");
    expect_met(kind, "good", "a.corp.test", NULL);
    expect_met(kind, "evil", "localhost", denied);
    expect_met(kind, "near", "evilcorp.test", denied);
    expect_met(kind, "address", "127.0.0.1", denied);
}

BOTH(tls_verify_peer, names_that_the_authority_at_the_end_may_not_vouch_for)
{
    certs_self("root", CERTS_P256, "/CN=root",
               "-addext 'nameConstraints=critical,permitted;DNS:corp.test'");
    certs_signed("mid", CERTS_P256, "/CN=Sub CA", "root", INTERMEDIATE);
    certs_signed("good", CERTS_P256, "/CN=good", "mid", "subjectAltName=DNS:a.corp.test\n");
    certs_signed("evil", CERTS_P256, "/CN=evil", "mid", "subjectAltName=DNS:localhost\n");
    append("good", "mid.crt");
    append("evil", "mid.crt");
    rig.upstream.ca = certs_read(&rig.arena, "root.crt");
    expect_met(kind, "good", "a.corp.test", NULL);
    expect_met(kind, "evil", "localhost", "name not permitted by its authority");
}

/* Where the library stops for a name, the rest is looked at all the same. */
BOTH(tls_verify_peer, a_name_hides_nothing_else)
{
    certs_signed("mid", CERTS_P256, "/CN=mid", "ca",
                 INTERMEDIATE "nameConstraints=critical,permitted;DNS:corp.test\n");
    certs_self("mid2", CERTS_P256, "/CN=mid", "");
    certs_signed("forged", CERTS_P256, "/CN=low", "mid2",
                 INTERMEDIATE "authorityKeyIdentifier=none\n");
    /* A signature that our own end does not look at when it loads the chain. */
    certs_run("openssl x509 -req -sha1 -in forged.csr -CA mid2.crt -CAkey mid2.key -extfile "
              "forged.ext -days 90 -out forged.crt");
    certs_signed("a", CERTS_P256, "/CN=a", "forged", "subjectAltName=DNS:a.corp.test\n");
    signed_between("old", "mid", "40 days ago", "2 days ago");
    append("a", "forged.crt mid.crt");
    append("old", "mid.crt");
    expect_met(kind, "a", "a.corp.test", "bad signature of certificate");
    expect_met(kind, "old", "localhost", "certificate has expired");
}

BOTH(tls_verify_peer, weak_signatures)
{
    certs_signed("weak", CERTS_P256, "/CN=weak", "ca", "subjectAltName=DNS:localhost\n");
    certs_run("openssl x509 -req -sha1 -in weak.csr -CA ca.crt -CAkey ca.key -extfile weak.ext "
              "-days 90 -out weak.crt");
    expect_met(kind, "weak", "localhost", "certificate signed with SHA-1");
}

BOTH(tls_verify_peer, purpose_of_servers)
{
    certs_signed("client", CERTS_P256, "/CN=c", "ca",
                 "subjectAltName=DNS:localhost\nextendedKeyUsage=clientAuth\n");
    expect_met(kind, "client", "localhost", "certificate is not for servers");
}

BOTH(tls_verify_peer, a_leaf_may_be_believed_as_itself)
{
    certs_signed("pin", CERTS_P256, "/CN=pin", "ca", "subjectAltName=DNS:localhost\n");
    rig.upstream.ca = certs_read(&rig.arena, "pin.crt");
    expect_met(kind, "pin", "localhost", NULL);
    expect_met(kind, "pin", "other.example", "name does not match");
    expect_met(kind, "server", "localhost", "unknown authority");
    certs_self("self", CERTS_P256, "/CN=self", "-addext subjectAltName=DNS:localhost");
    rig.upstream.ca = certs_read(&rig.arena, "self.crt");
    expect_met(kind, "self", "localhost", NULL);
    signed_between("old", "ca", "40 days ago", "2 days ago");
    rig.upstream.ca = certs_read(&rig.arena, "old.crt");
    expect_met(kind, "old", "localhost", "certificate has expired");
}

BOTH(tls_verify_peer, off_by_an_explicit_word)
{
    certs_self("self", CERTS_P256, "/CN=x", "");
    rig.upstream.verify = false;
    expect_met(kind, "self", "localhost", NULL);
}

/* A session of one name is never offered for another. */
BOTH(tls_verify_peer, sessions_are_of_one_name)
{
    rig_open(kind, 64, 16);
    rig_shake();
    end_send(&rig.server, 0, 10);
    turn_until(rig.l, rig.client.in == 10);
    rig_finish();
    rig.host = "x.wild.example";
    rig_shake();
    cr_expect(!rig.client.session.resumed);
    rig_finish();
    rig.host = "unknown.example";
    rig_start();
    turn_until(rig.l, !rig.client.live && !rig.server.live);
    cr_expect_eq(rig.client.readies, 0);
    rig_close();
}

/* ---- clients ---- */

static void ask(uint8_t how)
{
    rig.settings.client_auth = how;
    rig.settings.client_ca = certs_read(&rig.arena, "ca.crt");
}

/* The rig's client shows NAME; NULL: nothing. */
static void show(enum ag_backend_kind kind, const char *name)
{
    rig.upstream.identity = name ? rig_identity(name) : NULL;
    rig_open(kind, 64, 16);
    rig_shake();
    rig_finish();
    rig_close();
}

static void expect_client(uint8_t cert, const char *error)
{
    const char *is = rig.server.session.client_error;

    cr_expect_eq(rig.server.session.client_cert, cert, "%u: %s", rig.server.session.client_cert,
                 is ? is : "-");
    cr_expect((!is && !error) || (is && error && strcmp(is, error) == 0), "%s, not %s",
              is ? is : "-", error ? error : "-");
    cr_expect_eq(rig.server.taken, cert == AG_TLS_CLIENT_VALID);
}

BOTH(tls_verify_peer, clients_are_told)
{
    char sum[65];

    certs_signed("user", CERTS_P256, "/O=org/CN=user", "ca", "extendedKeyUsage=clientAuth\n");
    ask(AG_TLS_CLIENTS_ASKED);
    show(kind, "user");
    cr_expect(rig.server.session.client_cert_asked);
    expect_client(AG_TLS_CLIENT_VALID, NULL);
    cr_expect_str_eq(rig.server.subject, "CN=user,O=org");
    certs_run("openssl x509 -in user.crt -outform DER | sha256sum | cut -c1-64 >sum");
    put_text(sum, sizeof(sum), ag_span(certs_read(&rig.arena, "sum").ptr, 64));
    cr_expect_str_eq(rig.server.sha256, sum);
    show(kind, NULL);
    cr_expect(rig.server.session.client_cert_asked);
    expect_client(AG_TLS_CLIENT_NONE, NULL);
    cr_expect(rig.server.subject[0] == '\0' && rig.server.sha256[0] == '\0');
}

BOTH(tls_verify_peer, clients_of_each_kind_of_key)
{
    certs_signed("rsa", "rsa:2048", "/CN=rsa", "ca", "extendedKeyUsage=clientAuth\n");
    certs_signed("ed", "ed25519", "/CN=ed", "ca", "extendedKeyUsage=clientAuth\n");
    ask(AG_TLS_CLIENTS_REQUIRED);
    show(kind, "rsa");
    expect_client(AG_TLS_CLIENT_VALID, NULL);
    show(kind, "ed");
    expect_client(AG_TLS_CLIENT_VALID, NULL);
}

BOTH(tls_verify_peer, a_client_that_is_believed_as_itself)
{
    certs_signed("self", CERTS_P256, "/CN=self", "ca", "extendedKeyUsage=clientAuth\n");
    rig.settings.client_auth = AG_TLS_CLIENTS_REQUIRED;
    rig.settings.client_ca = certs_read(&rig.arena, "self.crt");
    show(kind, "self");
    expect_client(AG_TLS_CLIENT_VALID, NULL);
}

BOTH(tls_verify_peer, bad_clients_shake_hands_and_are_told)
{
    certs_self("stranger", CERTS_P256, "/CN=stranger", "");
    certs_signed("serving", CERTS_P256, "/CN=serving", "ca", "extendedKeyUsage=serverAuth\n");
    signed_between("old", "ca", "40 days ago", "2 days ago");
    ask(AG_TLS_CLIENTS_REQUIRED);
    show(kind, "stranger");
    expect_client(AG_TLS_CLIENT_INVALID, "unknown authority");
    cr_expect_str_eq(rig.server.subject, "CN=stranger");
    show(kind, "serving");
    expect_client(AG_TLS_CLIENT_INVALID, "certificate is not for clients");
    show(kind, "old");
    expect_client(AG_TLS_CLIENT_INVALID, "certificate has expired");
}

BOTH(tls_verify_peer, names_of_clients)
{
    certs_signed("mid", CERTS_P256, "/CN=mid", "ca",
                 INTERMEDIATE "nameConstraints=critical,permitted;email:corp.test\n");
    certs_signed("low", CERTS_P256, "/CN=low", "mid", INTERMEDIATE);
    certs_signed("good", CERTS_P256, "/CN=good", "low", "subjectAltName=email:a@corp.test\n");
    certs_signed("evil", CERTS_P256, "/CN=evil", "low", "subjectAltName=email:a@evil.test\n");
    append("good", "low.crt mid.crt");
    append("evil", "low.crt mid.crt");
    ask(AG_TLS_CLIENTS_ASKED);
    show(kind, "good");
    expect_client(AG_TLS_CLIENT_VALID, NULL);
    show(kind, "evil");
    expect_client(AG_TLS_CLIENT_INVALID, "name not permitted by its authority");
}

BOTH(tls_verify_peer, depth_of_clients)
{
    certs_signed("mid", CERTS_P256, "/CN=mid", "ca", INTERMEDIATE);
    certs_signed("low", CERTS_P256, "/CN=low", "mid", INTERMEDIATE);
    certs_signed("user", CERTS_P256, "/CN=user", "low", "extendedKeyUsage=clientAuth\n");
    append("user", "low.crt mid.crt");
    ask(AG_TLS_CLIENTS_ASKED);
    show(kind, "user");
    expect_client(AG_TLS_CLIENT_VALID, NULL);
    rig.settings.client_depth = 1;
    show(kind, "user");
    expect_client(AG_TLS_CLIENT_INVALID, "chain is too long");
}

/* An intermediate of a stranger's, once sent, must not vouch for who comes after; nor may a good one be taken for
 * an authority that is always there. */
BOTH(tls_verify_peer, what_clients_send_is_not_kept)
{
    certs_self("evil", CERTS_P256, "/CN=evil", "");
    certs_signed("evilmid", CERTS_P256, "/CN=evilmid", "evil", INTERMEDIATE);
    certs_signed("first", CERTS_P256, "/CN=first", "evilmid", "extendedKeyUsage=clientAuth\n");
    certs_signed("second", CERTS_P256, "/CN=second", "evilmid", "extendedKeyUsage=clientAuth\n");
    append("first", "evilmid.crt evil.crt");
    certs_signed("mid", CERTS_P256, "/CN=mid", "ca", INTERMEDIATE);
    certs_signed("bare", CERTS_P256, "/CN=bare", "mid", "extendedKeyUsage=clientAuth\n");
    certs_run("cp bare.crt whole.crt && cp bare.key whole.key");
    append("whole", "mid.crt");
    static const struct {
        const char *name;
        uint8_t cert;
    } turns[] = {{"first", AG_TLS_CLIENT_INVALID}, {"second", AG_TLS_CLIENT_INVALID},
                 {"first", AG_TLS_CLIENT_INVALID}, {"whole", AG_TLS_CLIENT_VALID},
                 {"bare", AG_TLS_CLIENT_INVALID},  {"whole", AG_TLS_CLIENT_VALID}};
    const char *why;

    ask(AG_TLS_CLIENTS_ASKED);
    rig_open(kind, 64, 16);
    for (unsigned i = 0; i < AG_COUNT(turns); i++) {
        ag_tls_client_release(rig.dialler);
        rig.upstream.identity = rig_identity(turns[i].name);
        rig.dialler = ag_tls_client_new(&rig.upstream, &why);
        rig_shake();
        cr_expect_eq(rig.server.session.client_cert, turns[i].cert, "%u: %s", i, turns[i].name);
        rig_finish();
    }
    rig_close();
}

static uint64_t room;

/* The client is done: what it has sent, the server still has to judge. */
static void leave_room(struct end *e)
{
    (void)e;
    ag_tls_memory_bound((uint64_t)ag_tls_memory_thread_bytes() + room);
}

/* Whose chain cannot be judged for want of memory is not told that it is bad: the handshake ends. */
BOTH(tls_verify_peer, no_memory_is_no_verdict)
{
    unsigned good = 0, ended = 0;

    certs_signed("user", CERTS_P256, "/CN=user", "ca", "extendedKeyUsage=clientAuth\n");
    ask(AG_TLS_CLIENTS_REQUIRED);
    rig.upstream.identity = rig_identity("user");
    rig_open(kind, 64, 16);
    rig.client.then = leave_room;
    for (room = 0; good < 8 && room < (uint64_t)256 * 1024; room += 256) {
        rig_start();
        turn_until(rig.l, rig.server.readies || rig.server.closes);
        ag_tls_memory_bound(AG_TLS_MEMORY_MAX);
        if (rig.server.readies) {
            expect_client(AG_TLS_CLIENT_VALID, NULL);
        }
        good += rig.server.readies;
        ended += rig.server.closes;
        rig_finish();
        ag_tls_memory_bound(AG_TLS_MEMORY_MAX);
    }
    cr_expect(good == 8 && ended > 8);
    rig_close();
}

BOTH(tls_verify_peer, asked_by_name_alone)
{
    static const struct ag_span names[] = {AG_SPAN_INIT("localhost"),
                                           AG_SPAN_INIT("*.wild.example")};

    certs_signed("user", CERTS_P256, "/CN=user", "ca", "extendedKeyUsage=clientAuth\n");
    ask(AG_TLS_CLIENTS_BY_NAME);
    rig.settings.ask_names = names;
    rig.settings.ask_name_count = 2;
    rig.upstream.verify = false;
    rig.host = "localhost";
    show(kind, "user");
    expect_client(AG_TLS_CLIENT_VALID, NULL);
    rig.host = "a.wild.example";
    show(kind, "user");
    expect_client(AG_TLS_CLIENT_VALID, NULL);
    rig.host = "a.b.wild.example"; /* as routes read a wildcard */
    show(kind, "user");
    expect_client(AG_TLS_CLIENT_VALID, NULL);
    rig.host = "wild.example";
    show(kind, "user");
    expect_client(AG_TLS_CLIENT_NONE, NULL);
    cr_expect(!rig.server.session.client_cert_asked);
}

/* Whoever has shown a certificate must show it each time: no ticket stands in for it. */
BOTH(tls_verify_peer, no_tickets_where_clients_are_asked)
{
    certs_signed("user", CERTS_P256, "/CN=user", "ca", "extendedKeyUsage=clientAuth\n");
    ask(AG_TLS_CLIENTS_ASKED);
    rig.upstream.identity = rig_identity("user");
    rig_open(kind, 64, 16);
    for (unsigned i = 0; i < 3; i++) {
        rig_shake();
        cr_expect(!rig.server.session.resumed && !rig.client.session.resumed);
        expect_client(AG_TLS_CLIENT_VALID, NULL);
        end_send(&rig.server, 0, 10);
        turn_until(rig.l, rig.client.in == 10);
        rig_finish();
    }
    rig_close();
}

#endif
