/*
 * Any bytes as what a client sends to a server of TLS, from the first byte on or behind a ClientHello that is good: no
 * crash, it ends, and nothing is left.
 *
 *   input: [ flags: 1: behind a ClientHello, 2: in small pieces ][ bytes ]
 */
#include "engine/tls.h"

#include <fcntl.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define TURNS_MAX 1000u

/* For nobody but this: the key is no secret, and no date is looked at. */
static const char chain[] = "-----BEGIN CERTIFICATE-----\n"
                            "MIIBfzCCASWgAwIBAgIUW9ELMouC9DatC8OHOX91H+9eQhMwCgYIKoZIzj0EAwIw\n"
                            "FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyOTE0NTM1MVoYDzIxMjYxMTA1\n"
                            "MTQ1MzUxWjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO\n"
                            "PQMBBwNCAASfgb5qh8C30s5ROQDaligePG3yPtV/pC6Kt+/dH+ZaNQr4BMXi5hXX\n"
                            "A7IHFRUwgkUQeXVuzts9+dE51tIYoy6Do1MwUTAdBgNVHQ4EFgQUSbwvR9OshBBI\n"
                            "V0C6fdmd3Bt3fSAwHwYDVR0jBBgwFoAUSbwvR9OshBBIV0C6fdmd3Bt3fSAwDwYD\n"
                            "VR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNIADBFAiEAqYgvFXCWpZCnTMkfdd16\n"
                            "L/rWTYmCKa8aRQlPDAPnOC8CIHF3HEJbYSFi1Oy0CusQHQQ5HAdhGs5yUHyEI5wI\n"
                            "g4aR\n"
                            "-----END CERTIFICATE-----\n";
static const char key[] = "-----BEGIN PRIVATE KEY-----\n"
                          "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgghEb6n/ZOoyteIsa\n"
                          "1KzadMHQEUqr7MudeZc7RIwnhAyhRANCAASfgb5qh8C30s5ROQDaligePG3yPtV/\n"
                          "pC6Kt+/dH+ZaNQr4BMXi5hXXA7IHFRUwgkUQeXVuzts9+dE51tIYoy6D\n"
                          "-----END PRIVATE KEY-----\n";

/* As openssl's client sends it to www.example.org. */
static const uint8_t hello[] = {
    0x16, 0x03, 0x01, 0x01, 0x06, 0x01, 0x00, 0x01, 0x02, 0x03, 0x03, 0x10, 0x01, 0x6f, 0xc2, 0x56,
    0x69, 0xee, 0x48, 0x1a, 0x3e, 0xad, 0xcd, 0x8a, 0x08, 0x85, 0x02, 0xaa, 0xe2, 0x7e, 0xa3, 0x06,
    0x8c, 0x83, 0x49, 0x5f, 0x76, 0x2e, 0x45, 0x76, 0x83, 0x75, 0xb6, 0x20, 0x9e, 0x99, 0x98, 0x0f,
    0xb6, 0xa1, 0x1a, 0x80, 0x44, 0x3b, 0x16, 0x47, 0x6d, 0xe6, 0xdd, 0xfb, 0xf9, 0xa6, 0x92, 0xca,
    0x24, 0xdf, 0x2f, 0xf7, 0xd9, 0x38, 0xe2, 0xfd, 0xcf, 0xc7, 0x92, 0xc7, 0x00, 0x08, 0x13, 0x02,
    0x13, 0x03, 0x13, 0x01, 0x00, 0xff, 0x01, 0x00, 0x00, 0xb1, 0x00, 0x00, 0x00, 0x14, 0x00, 0x12,
    0x00, 0x00, 0x0f, 0x77, 0x77, 0x77, 0x2e, 0x65, 0x78, 0x61, 0x6d, 0x70, 0x6c, 0x65, 0x2e, 0x6f,
    0x72, 0x67, 0x00, 0x0b, 0x00, 0x04, 0x03, 0x00, 0x01, 0x02, 0x00, 0x0a, 0x00, 0x16, 0x00, 0x14,
    0x00, 0x1d, 0x00, 0x17, 0x00, 0x1e, 0x00, 0x19, 0x00, 0x18, 0x01, 0x00, 0x01, 0x01, 0x01, 0x02,
    0x01, 0x03, 0x01, 0x04, 0x00, 0x23, 0x00, 0x00, 0x00, 0x10, 0x00, 0x0e, 0x00, 0x0c, 0x02, 0x68,
    0x32, 0x08, 0x68, 0x74, 0x74, 0x70, 0x2f, 0x31, 0x2e, 0x31, 0x00, 0x16, 0x00, 0x00, 0x00, 0x17,
    0x00, 0x00, 0x00, 0x0d, 0x00, 0x1e, 0x00, 0x1c, 0x04, 0x03, 0x05, 0x03, 0x06, 0x03, 0x08, 0x07,
    0x08, 0x08, 0x08, 0x09, 0x08, 0x0a, 0x08, 0x0b, 0x08, 0x04, 0x08, 0x05, 0x08, 0x06, 0x04, 0x01,
    0x05, 0x01, 0x06, 0x01, 0x00, 0x2b, 0x00, 0x03, 0x02, 0x03, 0x04, 0x00, 0x2d, 0x00, 0x02, 0x01,
    0x01, 0x00, 0x33, 0x00, 0x26, 0x00, 0x24, 0x00, 0x1d, 0x00, 0x20, 0x81, 0xff, 0x16, 0x35, 0xda,
    0x1a, 0xbf, 0x87, 0xfc, 0xae, 0x0d, 0x66, 0x66, 0x77, 0x54, 0x11, 0xd9, 0x4a, 0x7c, 0x80, 0xd4,
    0xf6, 0x24, 0x5d, 0x10, 0x0c, 0xc0, 0x6f, 0xcc, 0xf3, 0x84, 0x19,
};

static struct ag_loop loop;
static struct ag_tls tls;
static struct ag_tls_server *server;
static bool live;

static void on_data(struct ag_stream *s, struct ag_slice slice)
{
    (void)s;
    ag_slice_release(&slice);
}

static void on_nothing(struct ag_stream *s)
{
    (void)s;
}

static void on_close(struct ag_stream *s, enum ag_reason why)
{
    (void)s;
    (void)why;
    live = false;
}

static const struct ag_stream_user user = {on_data,    on_nothing, on_nothing,
                                           on_nothing, on_close,   NULL};

static void ready(struct ag_tls *t)
{
    (void)t;
}

static void set_up(void)
{
    static struct ag_arena arena;
    static struct ag_tls_identity *id;
    const struct ag_loop_config config = {
        .backend = AG_BACKEND_EPOLL, .buf_count = {64, 8}, .node_count = 512, .page_count = 4};
    struct ag_tls_server_settings settings = {
        .identity_count = 1, .h2 = true, .handshake_ms = 10000};
    const char *why = NULL;

    ag_arena_init(&arena, NULL, 0);
    AG_ASSERT(ag_tls_library_init() == AG_OK);
    AG_ASSERT(ag_tls_identity_read(&arena, ag_span_str(chain), ag_span_str(key), &id, &why) ==
              AG_OK);
    AG_ASSERT(ag_loop_init(&loop, &config, &why) == AG_OK);
    settings.identities = (const struct ag_tls_identity *const *)&id;
    server = ag_tls_server_new(&settings, 1, NULL, &why);
    AG_ASSERT(server);
}

/* Writes, and takes what is answered, until the server has all or is gone. */
static void feed(int fd, struct ag_span bytes, size_t piece)
{
    uint8_t answer[4096];

    for (unsigned i = 0; i < TURNS_MAX && live && bytes.len > 0; i++) {
        ssize_t n = send(fd, bytes.ptr, ag_min_size(bytes.len, piece), MSG_NOSIGNAL);

        if (n > 0) {
            bytes = ag_span_sub(bytes, (size_t)n, bytes.len);
        }
        ag_loop_turn(&loop, 0);
        (void)!recv(fd, answer, sizeof(answer), 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint64_t memory;
    int pair[2];

    if (size < 1 || size > 8192 || !AG_WOLFSSL) {
        return 0;
    }
    if (!server) {
        set_up();
    }
    AG_ASSERT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
    memory = ag_tls_memory_bytes();
    live = true;
    ag_tls_accept(&tls, &loop, pair[1], server, 0, &user, ready);
    if (data[0] & 1) {
        feed(pair[0], ag_span(hello, sizeof(hello)), sizeof(hello));
    }
    feed(pair[0], ag_span(data + 1, size - 1), data[0] & 2 ? 7 : 4096);
    (void)close(pair[0]);
    for (unsigned i = 0; i < TURNS_MAX && live; i++) {
        ag_loop_turn(&loop, 1);
    }
    AG_ASSERT(!live);
    AG_ASSERT(ag_tls_memory_bytes() == memory && loop.nodes.used == 0);
    AG_ASSERT(ag_loop_bufs_used(&loop, AG_BUF_SMALL) == 0);
    return 0;
}
