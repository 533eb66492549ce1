/*
 * Goal: whatever a client sends, a server of TLS answers with an alert, a clear 400 or a close, in time, and holds
 * nothing of it.
 * Method: raw sockets against our server, on both backends.
 */
#include "tests/unit/tls_rig.h"

#if AG_WOLFSSL

#    include <sys/socket.h>
#    include <sys/wait.h>
#    include <wolfssl/options.h>

#    include <wolfssl/ssl.h>

TestSuite(tls_refuse, .init = rig_setup, .fini = rig_teardown);

static int raw_open(void)
{
    int pair[2];

    make_tcp_pair(pair);
    rig_accept(pair[1]);
    return pair[0];
}

/* What the server answers until it closes; it must. */
static size_t answer(int fd, uint8_t *to, size_t room)
{
    size_t len = 0;
    ssize_t n = -1;

    for (unsigned i = 0; i < TURNS_MAX && n != 0; i++) {
        ag_loop_turn(rig.l, 1);
        n = recv(fd, to + len, room - len, 0);
        cr_assert(n >= 0 || errno == EAGAIN || errno == ECONNRESET, "%d", errno);
        if (n < 0 && errno == ECONNRESET) {
            break;
        }
        len += n > 0 ? (size_t)n : 0;
    }
    (void)close(fd);
    turn_until(rig.l, !rig.server.live);
    return len;
}

/* `len` bytes bring an alert (0: none, a close alone). */
static void expect_alert(const void *bytes, size_t len, uint8_t alert)
{
    uint8_t got[256];
    int fd = raw_open();
    size_t n;

    cr_assert_eq(send(fd, bytes, len, MSG_NOSIGNAL), (ssize_t)len);
    n = answer(fd, got, sizeof(got));
    cr_expect_eq(rig.server.readies, 0);
    cr_expect_eq(rig.server.why, AG_REASON_TLS);
    cr_expect_not_null(rig.server.detail);
    if (alert) {
        const uint8_t want[] = {21, 3, 3, 0, 2, 2, alert};
        cr_expect_eq(n, sizeof(want));
        cr_expect_arr_eq(got, want, sizeof(want));
    } else {
        cr_expect_eq(n, 0);
    }
}

BOTH(tls_refuse, what_is_not_tls)
{
    rig_open(kind, 64, 16);
    expect_alert("\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10", 11, 70); /* SSL 2 */
    expect_alert("\0\0\0\0\0\0\0\0", 8, 10);
    expect_alert("\x16\x03\x01\x00\x00", 5, 50);
    expect_alert("\x16\x03\x01\x00\x04\x02\x00\x00\x00", 9, 10);
    expect_alert("\x15\x03\x01\x00\x02\x01\x00", 7, 10);
    rig_close();
}

static void expect_400(const char *request)
{
    static const char text[] = "This port speaks TLS: the address begins with https://\n";
    char got[1024] = {0};
    int fd = raw_open();
    size_t n;

    cr_assert(send(fd, request, strlen(request), MSG_NOSIGNAL) > 0);
    n = answer(fd, (uint8_t *)got, sizeof(got) - 1);
    cr_expect(strncmp(got, "HTTP/1.1 400 Bad Request\r\n", 26) == 0, "%s", got);
    cr_expect_not_null(strstr(got, "\r\nContent-Length: 55\r\nConnection: close\r\n\r\n"));
    cr_expect(n > sizeof(text) && strcmp(got + n - (sizeof(text) - 1), text) == 0);
    cr_expect_str_eq(rig.server.detail, "plain HTTP on a port that speaks TLS");
}

BOTH(tls_refuse, plain_http_gets_a_clear_answer)
{
    rig_open(kind, 64, 16);
    expect_400("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    expect_400("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    expect_400("P");
    rig_close();
}

/* A body that is still arriving must not take the answer away by a reset. */
BOTH(tls_refuse, the_answer_outlives_a_body)
{
    static char body[100000];
    char got[1024] = {0};
    int fd;
    size_t sent = 0;

    rig_open(kind, 64, 16);
    fd = raw_open();
    memcpy(body, "POST / HTTP/1.1\r\n", 17);
    for (unsigned i = 0; i < 1000 && sent < sizeof(body); i++) {
        ssize_t n = send(fd, body + sent, sizeof(body) - sent, MSG_NOSIGNAL);
        sent += n > 0 ? (size_t)n : 0;
        ag_loop_turn(rig.l, 1);
    }
    cr_expect_eq(sent, sizeof(body));
    cr_expect(answer(fd, (uint8_t *)got, sizeof(got) - 1) > 100);
    rig_close();
}

/* Any bytes at all behind a head that looks right. */
BOTH(tls_refuse, garbage_in_records)
{
    uint8_t bytes[2000], got[4096];
    uint32_t seed = 1;

    rig_open(kind, 64, 16);
    for (unsigned round = 0; round < 150; round++) {
        int fd = raw_open();
        for (size_t i = 0; i < sizeof(bytes); i++) {
            seed = seed * 1664525 + 1013904223;
            bytes[i] = (uint8_t)(seed >> 24);
        }
        memcpy(bytes, (uint8_t[]){22, 3, 1, 1, 0, 1, 0, 0, 252, 3, 3}, 11);
        if (round % 2) { /* well-formed up to the session */
            bytes[43] = 0;
        }
        (void)send(fd, bytes, round % 3 ? sizeof(bytes) : 261, MSG_NOSIGNAL);
        cr_expect(answer(fd, got, sizeof(got)) >= 7);
        cr_expect_eq(rig.server.why, AG_REASON_TLS);
    }
    rig_close();
}

/* A handshake up to some point, then garbage: records that the library reads. */
BOTH(tls_refuse, garbage_after_the_hello)
{
    uint8_t hello[4096], got[8192];
    ssize_t len = -1;
    int fd, client;

    rig_open(kind, 64, 16);
    rig_connect();
    client = rig_accepted();
    for (unsigned i = 0; i < TURNS_MAX && len <= 0; i++) {
        ag_loop_turn(rig.l, 1);
        len = recv(client, hello, sizeof(hello), 0);
    }
    cr_assert(len > 100);
    for (uint8_t type = 20; type < 26; type++) {
        uint8_t junk[64] = {type, 3, 3, 0, 40, 1, 2, 3};
        fd = raw_open();
        cr_assert_eq(send(fd, hello, (size_t)len, MSG_NOSIGNAL), len);
        for (unsigned i = 0; i < 10; i++) {
            ag_loop_turn(rig.l, 1);
        }
        cr_assert_eq(send(fd, junk, 45, MSG_NOSIGNAL), 45);
        (void)answer(fd, got, sizeof(got));
        cr_expect_eq(rig.server.readies, 0);
        cr_expect_eq(rig.server.why, AG_REASON_TLS, "%u: %s", type, ag_reason_text(rig.server.why));
    }
    (void)close(client);
    turn_until(rig.l, !rig.client.live);
    cr_expect_eq(rig.client.why, AG_REASON_EOF);
    rig_close();
}

BOTH(tls_refuse, a_client_that_says_nothing)
{
    uint8_t got[16];

    rig.settings.handshake_ms = 50;
    rig_open(kind, 64, 16);
    cr_expect_eq(answer(raw_open(), got, sizeof(got)), 0);
    cr_expect_eq(rig.server.why, AG_REASON_TIMEOUT);
    int fd = raw_open();
    cr_assert_eq(send(fd, "\x16\x03\x01\x01\x00\x01", 6, 0), 6);
    cr_expect_eq(answer(fd, got, sizeof(got)), 0);
    cr_expect_eq(rig.server.why, AG_REASON_TIMEOUT);
    cr_expect_str_eq(rig.server.detail, "the handshake took too long");
    rig_close();
}

BOTH(tls_refuse, short_of_memory_no_handshake_begins)
{
    rig_open(kind, 64, 16);
    for (uint64_t part = 0; part < 9; part++) {
        ag_tls_memory_bound((uint64_t)ag_tls_memory_thread_bytes() * (part + 1) / 8);
        rig_start();
        turn_until(rig.l, !rig.client.live && !rig.server.live);
        cr_expect(rig.client.readies == 0 && rig.server.readies == 0);
        cr_expect_eq(rig.client.why, AG_REASON_RESOURCES);
    }
    ag_tls_memory_bound(AG_TLS_MEMORY_MAX);
    rig_shake();
    rig_finish();
    rig_close();
}

/* Runs openssl's client until it is gone. Each of `typed` is one read of its own to it. It ends when the server has got
 * `content` bytes, or has left. */
static void interactive(const char *options, const struct ag_span *typed, size_t count,
                        uint64_t content)
{
    char command[512];
    int in[2];

    (void)snprintf(command, sizeof(command),
                   "cd %s && timeout 60 openssl s_client %s -connect 127.0.0.1:%u >out 2>err",
                   folder, options, (unsigned)ntohs(rig.at.sin_port));
    cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, in), 0);
    pid_t pid = fork();
    cr_assert_neq(pid, -1);
    if (pid == 0) {
        if (dup2(in[0], STDIN_FILENO) == STDIN_FILENO) {
            execl("/bin/sh", "sh", "-c", command, NULL);
        }
        _exit(127);
    }
    (void)close(in[0]);
    for (size_t i = 0; i < count; i++) {
        cr_assert_eq(send(in[1], typed[i].ptr, typed[i].len, 0), (ssize_t)typed[i].len);
    }
    rig_accept(rig_accepted());
    turn_until(rig.l, !rig.server.live || (content > 0 && rig.server.in >= content));
    for (unsigned i = 0; i < 5; i++) { /* what it is answered is sent */
        ag_loop_turn(rig.l, 0);
    }
    (void)close(in[1]);
    turn_until(rig.l, !rig.server.live || rig.server.eofs > 0);
    if (rig.server.live) {
        ag_stream_finish(&rig.server.tls.stream);
    }
    turn_until(rig.l, !rig.server.live);
    cr_expect_eq(rig.server.readies, 1);
    cr_assert_eq(waitpid(pid, NULL, 0), pid);
}

/* A client that does not take the certificate: of TLS 1.3 OpenSSL's says so before it encrypts. */
BOTH(tls_refuse, why_a_client_refuses_is_told)
{
    static const char *const versions[] = {"-tls1_2", "-tls1_3"};
    char command[512];
    FILE *p;

    for (size_t i = 0; i < AG_COUNT(versions); i++) {
        rig_open(kind, 64, 16);
        (void)snprintf(command, sizeof(command),
                       "timeout 60 openssl s_client %s -verify_return_error -connect 127.0.0.1:%u "
                       ">/dev/null 2>&1 </dev/null",
                       versions[i], (unsigned)ntohs(rig.at.sin_port));
        p = popen(command, "re"); // NOLINT
        cr_assert(p);
        rig_accept(rig_accepted());
        turn_until(rig.l, !rig.server.live);
        cr_expect_eq(rig.server.why, AG_REASON_TLS);
        cr_expect_str_eq(rig.server.detail, "alert of the peer: unknown authority");
        (void)pclose(p);
        rig_close();
    }
}

BOTH(tls_refuse, renegotiation_is_off)
{
    static const struct ag_span typed = AG_SPAN_INIT("R\n");

    rig_open(kind, 64, 16);
    interactive("-tls1_2", &typed, 1, 0);
    cr_expect_eq(rig.server.why, AG_REASON_PROTOCOL, "%s, %s", ag_reason_text(rig.server.why),
                 rig.server.detail);
    rig_close();
}

BOTH(tls_refuse, key_updates_are_answered)
{
    char text[8];
    const struct ag_span typed[] = {AG_SPAN("K\n"), AG_SPAN("k\n"), ag_span(text, sizeof(text))};

    for (unsigned i = 0; i < sizeof(text); i++) {
        text[i] = (char)pattern_at(i);
    }
    rig_open(kind, 64, 16);
    interactive("-tls1_3", typed, AG_COUNT(typed), sizeof(text));
    cr_expect_eq(rig.server.in, sizeof(text));
    cr_expect_eq(rig.server.why, AG_REASON_NONE, "%s, %s", ag_reason_text(rig.server.why),
                 rig.server.detail);
    rig_close();
}

/* Who has ended its side is asked to change its keys: it cannot answer, and what comes is read all the same. */
BOTH(tls_refuse, key_updates_behind_our_end_are_not_answered)
{
    rig_open(kind, 64, 16);
    rig_shake();
    ag_stream_shut(&rig.server.tls.stream);
    turn_until(rig.l, rig.client.eofs > 0);
    for (unsigned i = 0; i < 3; i++) {
        cr_assert_eq(wolfSSL_update_keys(rig.client.tls.ssl), WOLFSSL_SUCCESS);
        end_send(&rig.client, 1000 * i, 1000);
        turn_until(rig.l, rig.server.in >= UINT64_C(1000) * (i + 1));
    }
    ag_stream_finish(&rig.client.tls.stream);
    turn_until(rig.l, rig.server.eofs > 0);
    cr_expect(rig.server.live);
    ag_stream_finish(&rig.server.tls.stream);
    turn_until(rig.l, !rig.server.live && !rig.client.live);
    cr_expect_eq(rig.server.why, AG_REASON_NONE, "%s", ag_reason_text(rig.server.why));
    rig_close();
}

/* Each asks for an answer, and none is taken: they must not pile up. */
BOTH(tls_refuse, key_updates_that_take_no_answer)
{
    int bytes = 4096;

    rig_open(kind, 256, 16);
    rig_shake();
    for (unsigned i = 0; i < 20; i++) {
        ag_loop_turn(rig.l, 1);
    }
    (void)setsockopt(rig.client.tls.conn.fd.fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
    (void)setsockopt(rig.server.tls.conn.fd.fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
    ag_stream_pause(&rig.client.tls.conn.stream);
    for (unsigned i = 0; i < 300000 && rig.server.live && rig.client.live; i++) {
        cr_assert_eq(wolfSSL_update_keys(rig.client.tls.ssl), WOLFSSL_SUCCESS);
        if (i % 100 == 0) {
            ag_loop_turn(rig.l, 0);
        }
        cr_assert(!rig.server.live || ag_stream_queued(&rig.server.tls.conn.stream) < 200000);
    }
    cr_expect(!rig.server.live);
    cr_expect_eq(rig.server.why, AG_REASON_LIMIT, "%s", ag_reason_text(rig.server.why));
    if (rig.client.live) {
        ag_stream_abort(&rig.client.tls.stream, AG_REASON_ABORTED);
    }
    turn_until(rig.l, !rig.client.live);
    rig_close();
}

#endif
