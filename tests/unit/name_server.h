/*
 * name_server.h: a name server of our own on loopback (UDP, and TCP for cut answers) that counts what it is asked, and a
 * loop whose resolver asks it.
 */
#pragma once
#include "engine/resolver.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

/* ---- the name server ---- */

enum { TYPE_A = 1, TYPE_AAAA = 28, TYPE_SRV = 33 };

#define ANSWER_MAX 8192u

struct zone {
    const char *name;      /* a query for a name that ends so */
    int rcode;             /* 0, 2: server failure, 3: no such name, -1: silence */
    unsigned a, aaaa, srv; /* records */
    uint32_t ttl_s;
    bool tcp;                /* cut short by UDP */
    bool no_service, broken; /* SRV: the target is ".", is beyond the message */
    _Atomic unsigned asked;
};

static struct zone zones[] = {
    {.name = "one.test", .a = 1, .ttl_s = 300},
    {.name = "both.test", .a = 1, .aaaa = 1, .ttl_s = 60},
    {.name = "six.test", .aaaa = 2, .ttl_s = 60},
    {.name = "many.test", .a = 20, .ttl_s = 60},
    {.name = "mixed.test", .a = 20, .aaaa = 3, .ttl_s = 60},
    {.name = "vast.test", .a = 400, .ttl_s = 60, .tcp = true},
    {.name = "cut.test", .a = 3, .ttl_s = 60, .tcp = true},
    {.name = "brief.test", .a = 1, .ttl_s = 0},
    {.name = "eternal.test", .a = 1, .ttl_s = 100000000},
    {.name = "missing.test", .rcode = 3},
    {.name = "empty.test"},
    {.name = "broken.test", .rcode = 2},
    {.name = "silent.test", .rcode = -1},
    {.name = "_web._tcp.test", .srv = 3, .ttl_s = 30},
    {.name = "_huge._tcp.test", .srv = 200, .ttl_s = 30, .tcp = true},
    {.name = "_gone._tcp.test", .srv = 1, .ttl_s = 30, .no_service = true},
    {.name = "_bad._tcp.test", .srv = 1, .ttl_s = 30, .broken = true},
};

static int udp = -1, tcp = -1, quit[2];
static uint16_t server_port;
static pthread_t server;

static struct zone *zone_of(const char *name)
{
    for (size_t i = 0; i < AG_COUNT(zones); i++) {
        size_t len = strlen(zones[i].name), have = strlen(name);

        if (have >= len && strcmp(name + have - len, zones[i].name) == 0) {
            return &zones[i];
        }
    }
    return NULL;
}

static struct zone *zone(const char *name)
{
    struct zone *z = zone_of(name);

    cr_assert(z);
    return z;
}

static void put16(uint8_t *at, unsigned value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static size_t put_address(unsigned type, unsigned i, uint8_t *at)
{
    size_t bytes = type == TYPE_A ? 4 : 16;

    memset(at, 0, bytes);
    at[0] = type == TYPE_A ? 10 : 0xfd;
    at[bytes - 2] = (uint8_t)((i + 1) >> 8);
    at[bytes - 1] = (uint8_t)(i + 1);
    return bytes;
}

/* Target i: priority i / 2, weight 10, port 8000 + i, host "hI.test". */
static size_t put_srv(const struct zone *z, unsigned i, uint8_t *at)
{
    char label[8];
    size_t len = (size_t)snprintf(label, sizeof(label), "h%u", i);

    put16(at, i / 2);
    put16(at + 2, 10);
    put16(at + 4, 8000 + i);
    if (z->no_service) {
        at[6] = 0;
        return 7;
    }
    at[6] = z->broken ? 63 : (uint8_t)len;
    memcpy(at + 7, label, len);
    memcpy(at + 7 + len, "\4test", 6);
    return 7 + len + 6;
}

/* RFC 1035 section 4: the header and question come back with the answers behind. 0: say nothing. */
static size_t reply_to(const uint8_t *query, size_t len, bool by_tcp, uint8_t out[ANSWER_MAX])
{
    char name[256] = "";
    size_t at = 12, n = 0;

    if (len < 17 || len > 300) {
        return 0;
    }
    while (query[at] && at + query[at] + 5 < len) {
        n += (size_t)snprintf(name + n, sizeof(name) - n, "%s%.*s", n ? "." : "", query[at],
                              (const char *)query + at + 1);
        at += query[at] + 1u;
    }
    struct zone *z = zone_of(name);
    unsigned type = query[at + 2];
    size_t question_end = at + 5;

    if (z) {
        atomic_fetch_add(&z->asked, 1);
    }
    if (z && z->rcode < 0) {
        return 0;
    }
    bool cut = z && z->tcp && !by_tcp;
    unsigned count = 0;

    if (z && !cut) {
        count = type == TYPE_A ? z->a : type == TYPE_AAAA ? z->aaaa : type == TYPE_SRV ? z->srv : 0;
    }
    memcpy(out, query, question_end);
    put16(out + 2, 0x8180u | (cut ? 0x200u : 0) | (unsigned)(z ? z->rcode : 3));
    put16(out + 6, count);
    put16(out + 8, 0);
    put16(out + 10, 0); /* an OPT record of the query is not repeated */
    at = question_end;
    for (unsigned i = 0; i < count; i++) {
        size_t bytes;

        put16(out + at, 0xc00c); /* the question's name */
        put16(out + at + 2, type);
        put16(out + at + 4, 1);
        put16(out + at + 6, z->ttl_s >> 16);
        put16(out + at + 8, z->ttl_s & 0xffff);
        bytes =
            type == TYPE_SRV ? put_srv(z, i, out + at + 12) : put_address(type, i, out + at + 12);
        put16(out + at + 10, (unsigned)bytes);
        at += 12 + bytes;
    }
    return at;
}

static void serve_tcp(void)
{
    uint8_t in[512], out[ANSWER_MAX + 2];
    int fd = accept(tcp, NULL, NULL);
    size_t have = 0;

    /* A connection may bring several questions; each is answered in turn until it is closed. */
    for (ssize_t n; (n = recv(fd, in + have, sizeof(in) - have, 0)) > 0;) {
        have += (size_t)n;
        while (have >= 2 && have - 2 >= (size_t)(in[0] << 8 | in[1])) {
            size_t len = (size_t)(in[0] << 8 | in[1]), m = reply_to(in + 2, len, true, out + 2);

            put16(out, (unsigned)m);
            (void)send(fd, out, m + 2, MSG_NOSIGNAL);
            have -= len + 2;
            memmove(in, in + len + 2, have);
        }
    }
    close(fd);
}

static void *serve(void *arg)
{
    struct pollfd p[] = {{udp, POLLIN, 0}, {tcp, POLLIN, 0}, {quit[0], POLLIN, 0}};

    while (poll(p, 3, -1) > 0 && !p[2].revents) {
        if (p[0].revents) {
            uint8_t in[512], out[ANSWER_MAX];
            struct sockaddr_in from;
            socklen_t from_len = sizeof(from);
            ssize_t n = recvfrom(udp, in, sizeof(in), 0, (struct sockaddr *)&from, &from_len);
            size_t m = n > 0 ? reply_to(in, (size_t)n, false, out) : 0;

            if (m) {
                (void)sendto(udp, out, m, 0, (struct sockaddr *)&from, from_len);
            }
        }
        if (p[1].revents) {
            serve_tcp();
        }
    }
    return arg;
}

static void serve_start(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof(a);

    udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    do { /* the port that TCP got may be in use by UDP */
        close(tcp);
        tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        a.sin_port = 0;
        cr_assert_eq(bind(tcp, (struct sockaddr *)&a, sizeof(a)), 0);
        cr_assert_eq(listen(tcp, 4), 0);
        cr_assert_eq(getsockname(tcp, (struct sockaddr *)&a, &len), 0);
    } while (bind(udp, (struct sockaddr *)&a, sizeof(a)) != 0);
    server_port = ntohs(a.sin_port);
    cr_assert_eq(pipe(quit), 0);
    cr_assert_eq(pthread_create(&server, NULL, serve, NULL), 0);
}

/* ---- the client ---- */

static struct ag_loop loop;
static unsigned done_count;

static void start_on(enum ag_backend_kind kind)
{
    const struct ag_loop_config config = {.backend = kind, .buf_count = {64, 8}};
    const char *why = NULL;
    struct ag_resolver_settings settings = AG_RESOLVER_SETTINGS_DEFAULT;

    done_count = 0;
    for (size_t i = 0; i < AG_COUNT(zones); i++) {
        atomic_store(&zones[i].asked, 0);
    }
    cr_assert_eq(ag_loop_init(&loop, &config, &why), AG_OK, "%s", why);
    cr_assert_eq(ag_resolver_init(&loop), AG_OK);
    (void)snprintf(settings.servers, sizeof(settings.servers), "127.0.0.1:%u", server_port);
    settings.timeout_ms = 60000; /* what is asked again would be counted twice */
    cr_assert_eq(ag_resolver_configure(&loop, &settings), AG_OK);
}

static void stop(void)
{
    ag_resolver_deinit(&loop);
    ag_resolver_deinit(&loop);
    ag_loop_deinit(&loop);
}

static void setup(void)
{
    serve_start();
    start_on(AG_BACKEND_EPOLL);
}

static void teardown(void)
{
    stop();
    cr_assert_eq(write(quit[1], "", 1), 1);
    cr_assert_eq(pthread_join(server, NULL), 0);
}

static void await(unsigned count)
{
    while (done_count < count) {
        ag_loop_turn(&loop, UINT32_MAX);
    }
    cr_assert_eq(done_count, count);
}
