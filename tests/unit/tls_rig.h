/*
 * tls_rig: a client and a server of ours on one loop, over loopback, with certificates made for the test. Either
 * end may be a raw socket that the test plays.
 *
 *   rig_start --> rig.client, rig.server: struct ag_tls, what came of them counted in struct end
 */
#pragma once
#include "engine/tls.h"
#include "engine/tls_info.h"
#include "engine/tls_memory.h"
#include "tests/unit/certs.h"
#include "tests/unit/loops.h"

#include <errno.h>

#define NAMES_MAX 4u

struct end {
    struct ag_tls tls;
    bool live; /* began and has not closed */
    bool quiet;
    unsigned readies, closes, eofs, drains, datas;
    uint64_t in; /* bytes that came, checked against the pattern */
    size_t longest;
    bool bad;
    enum ag_reason why;
    const char *detail;
    const char *version;           /* as of the end */
    struct ag_tls_session session; /* as of ready; its texts go with the connection */
    char name[256], subject[256], sha256[65];
    bool taken;                 /* the listener takes the authority of its certificate */
    void (*then)(struct end *); /* at ready and at the end of on_data and on_eof */
};

static struct {
    struct ag_arena arena;
    struct fixture *f;
    struct ag_loop *l;
    struct ag_tls_server_settings settings;
    const struct ag_tls_identity *identities[NAMES_MAX];
    struct ag_tls_client_settings upstream;
    struct ag_tls_tickets *tickets;
    struct ag_tls_server *listener;
    struct ag_tls_client *dialler;
    int listening;
    struct sockaddr_in at;
    uint64_t memory; /* of the library, before it has contexts */
    const char *host;
    uint32_t shard;
    struct end client, server;
} rig;

static inline struct end *end_of(struct ag_stream *s)
{
    return ag_container_of(ag_tls_of(s), struct end, tls);
}

static inline void end_data(struct ag_stream *s, struct ag_slice slice)
{
    struct end *e = end_of(s);

    for (size_t i = 0; i < slice.len; i++) {
        e->bad |= slice.ptr[i] != pattern_at(e->in + i);
    }
    e->in += slice.len;
    e->datas++;
    e->longest = slice.len > e->longest ? slice.len : e->longest;
    ag_slice_release(&slice);
    if (e->then) {
        e->then(e);
    }
}

static inline void end_eof(struct ag_stream *s)
{
    end_of(s)->eofs++;
    if (end_of(s)->then) {
        end_of(s)->then(end_of(s));
    }
}

static inline void end_drain(struct ag_stream *s)
{
    end_of(s)->drains++;
}

static inline void end_deadline(struct ag_stream *s)
{
    ag_stream_abort(s, AG_REASON_TIMEOUT);
}

static inline void end_close(struct ag_stream *s, enum ag_reason why)
{
    struct end *e = end_of(s);

    e->closes++;
    e->why = why;
    e->detail = ag_tls_detail(&e->tls);
    e->version = e->tls.session.version;
    e->live = false;
    memset(&e->tls, 0xa5, sizeof(e->tls)); /* freed: whoever touches it now fails */
}

static inline void put_text(char *to, size_t room, struct ag_span text)
{
    (void)snprintf(to, room, "%.*s", (int)text.len, (const char *)text.ptr);
}

static inline void end_ready(struct ag_tls *t)
{
    struct end *e = ag_container_of(t, struct end, tls);

    e->readies++;
    e->session = t->session;
    put_text(e->name, sizeof(e->name), t->session.server_name);
    put_text(e->subject, sizeof(e->subject), t->session.client_subject);
    put_text(e->sha256, sizeof(e->sha256), t->session.client_sha256);
    e->taken = ag_tls_server_takes(rig.listener, t->session.client_mark);
    if (e->then) {
        e->then(e);
    }
}

static const struct ag_stream_user end_user = {end_data,     end_eof,   end_drain,
                                               end_deadline, end_close, NULL};

/* An identity of NAME.crt and NAME.key. */
static inline const struct ag_tls_identity *rig_identity(const char *name)
{
    struct ag_tls_identity *id = NULL;
    const char *why = "";
    char crt[80], key[80];

    (void)snprintf(crt, sizeof(crt), "%s.crt", name);
    (void)snprintf(key, sizeof(key), "%s.key", name);
    cr_assert_eq(ag_tls_identity_read(&rig.arena, certs_read(&rig.arena, crt),
                                      certs_read(&rig.arena, key), &id, &why),
                 AG_OK, "%s", why);
    return id;
}

/* An authority `ca`, and of it `server` for localhost. Settings that suit each other. */
static inline void rig_setup(void)
{
    folder_make();
    ag_arena_init(&rig.arena, NULL, 0);
    cr_assert_eq(ag_tls_library_init(), AG_OK);
    certs_self("ca", CERTS_P256, "/CN=ca", "");
    certs_signed("server", CERTS_P256, "/CN=server", "ca",
                 "subjectAltName=DNS:localhost,DNS:*.wild.example,IP:127.0.0.1\n");
    rig.identities[0] = rig_identity("server");
    rig.settings = (struct ag_tls_server_settings){.identities = rig.identities,
                                                   .identity_count = 1,
                                                   .h2 = true,
                                                   .tickets = true,
                                                   .client_depth = 2,
                                                   .handshake_ms = 10000};
    rig.upstream = (struct ag_tls_client_settings){.verify = true,
                                                   .ca = certs_read(&rig.arena, "ca.crt"),
                                                   .h2 = true,
                                                   .h1 = true,
                                                   .handshake_ms = 10000};
    rig.host = "localhost";
    rig.tickets = ag_tls_tickets_new(2);
    rig.listening = -1;
    cr_assert(rig.tickets);
}

static inline void rig_teardown(void)
{
    ag_tls_tickets_free(rig.tickets);
    ag_arena_release(&rig.arena);
    folder_remove();
}

static inline void rig_listen(void)
{
    socklen_t len = sizeof(rig.at);

    rig.at = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    rig.listening = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    cr_assert(rig.listening >= 0);
    cr_assert_eq(bind(rig.listening, (struct sockaddr *)&rig.at, sizeof(rig.at)), 0);
    cr_assert_eq(listen(rig.listening, 8), 0);
    cr_assert_eq(getsockname(rig.listening, (struct sockaddr *)&rig.at, &len), 0);
}

/* The loop, and contexts of the settings as they are now. */
static inline void rig_open(enum ag_backend_kind kind, uint32_t small, uint32_t large)
{
    const char *why = "";

    rig.f = fixture_new(kind, small, large);
    rig.l = &rig.f->loop;
    rig_listen();
    rig.memory = ag_tls_memory_bytes();
    rig.listener = ag_tls_server_new(&rig.settings, 2, rig.tickets, &why);
    cr_assert(rig.listener, "%s", why);
    rig.dialler = ag_tls_client_new(&rig.upstream, &why);
    cr_assert(rig.dialler, "%s", why);
}

/* Both ends are closed; nothing may be left. */
static inline void rig_close(void)
{
    cr_expect(!rig.client.bad && !rig.server.bad);
    turn_until(rig.l, !rig.client.live && !rig.server.live);
    ag_tls_client_release(rig.dialler);
    ag_tls_server_release(rig.listener);
    (void)close(rig.listening);
    fixture_free(rig.f);
    if (ag_tls_info_is_ours()) { /* others make tables once, and keep them */
        cr_expect_eq(ag_tls_memory_bytes(), rig.memory, "%ld bytes of the library are left",
                     (long)(ag_tls_memory_bytes() - rig.memory));
    }
}

static inline void rig_accept(int fd)
{
    memset(&rig.server, 0, offsetof(struct end, then));
    rig.server.live = true;
    ag_tls_accept(&rig.server.tls, rig.l, fd, rig.listener, rig.shard, &end_user, end_ready);
}

static inline int rig_accepted(void)
{
    int fd = -1;

    for (unsigned turns = 0; fd < 0 && turns < TURNS_MAX; turns++) {
        fd = accept4(rig.listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        ag_loop_turn(rig.l, fd < 0 ? 1 : 0);
    }
    cr_assert(fd >= 0);
    return fd;
}

static inline void rig_connect(void)
{
    union ag_addr addr = {.in = rig.at};

    memset(&rig.client, 0, offsetof(struct end, then));
    rig.client.live = true;
    ag_tls_connect(&rig.client.tls, rig.l, &addr, sizeof(addr.in), rig.dialler,
                   ag_span_str(rig.host), &end_user, end_ready, AG_BUF_LARGE);
}

/* Both ends begin. */
static inline void rig_start(void)
{
    rig_connect();
    rig_accept(rig_accepted());
}

/* Both ends have shaken hands. */
static inline void rig_shake(void)
{
    rig_start();
    turn_until(rig.l, (rig.client.readies && rig.server.readies) || rig.client.closes ||
                          rig.server.closes);
    cr_assert(rig.client.readies && rig.server.readies, "client: %s, server: %s",
              rig.client.detail ? rig.client.detail : "-",
              rig.server.detail ? rig.server.detail : "-");
}

/* Queues bytes of the pattern from `from` on. */
static inline void end_send(struct end *e, uint64_t from, size_t len)
{
    uint8_t bytes[1024];

    for (size_t at = 0; at < len;) {
        size_t n = ag_min_size(sizeof(bytes), len - at);

        for (size_t i = 0; i < n; i++) {
            bytes[i] = pattern_at(from + at + i);
        }
        cr_assert_eq(ag_stream_put(&e->tls.stream, ag_span(bytes, n)), AG_OK);
        at += n;
    }
}

/* Ends both in order. */
static inline void rig_finish(void)
{
    if (rig.client.live) {
        ag_stream_finish(&rig.client.tls.stream);
    }
    turn_until(rig.l, !rig.server.live || rig.server.eofs > 0);
    if (rig.server.live) {
        ag_stream_finish(&rig.server.tls.stream);
    }
    turn_until(rig.l, !rig.server.live && !rig.client.live);
}
