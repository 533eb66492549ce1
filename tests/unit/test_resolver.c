/*
 * Goal: each lookup is answered exactly once or cancelled; answers are shared, kept for their time to
 * live, and bounded.
 * Method: a name server of our own on loopback (UDP, and TCP for cut answers) that counts what it is
 * asked; both backends.
 */
#include "engine/resolver.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

/* ---- the name server ---- */

enum { TYPE_A = 1, TYPE_AAAA = 28 };

struct zone {
    const char *name; /* a query for a name that ends so */
    int rcode;        /* 0, 2: server failure, 3: no such name, -1: silence */
    unsigned a, aaaa; /* records */
    uint32_t ttl_s;
    bool tcp; /* cut short by UDP */
    _Atomic unsigned asked;
};

static struct zone zones[] = {
    {.name = "one.test", .a = 1, .ttl_s = 300},
    {.name = "both.test", .a = 1, .aaaa = 1, .ttl_s = 60},
    {.name = "six.test", .aaaa = 2, .ttl_s = 60},
    {.name = "many.test", .a = 20, .ttl_s = 60},
    {.name = "cut.test", .a = 3, .ttl_s = 60, .tcp = true},
    {.name = "brief.test", .a = 1, .ttl_s = 0},
    {.name = "eternal.test", .a = 1, .ttl_s = 100000000},
    {.name = "missing.test", .rcode = 3},
    {.name = "empty.test"},
    {.name = "broken.test", .rcode = 2},
    {.name = "silent.test", .rcode = -1},
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

/* RFC 1035 section 4: the header and question come back with the answers behind. 0: say nothing. */
static size_t reply_to(const uint8_t *query, size_t len, bool by_tcp, uint8_t out[1024])
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
    unsigned count = !z || cut ? 0 : type == TYPE_A ? z->a : type == TYPE_AAAA ? z->aaaa : 0;
    memcpy(out, query, question_end);
    put16(out + 2, 0x8180u | (cut ? 0x200u : 0) | (unsigned)(z ? z->rcode : 3));
    put16(out + 6, count);
    put16(out + 8, 0);
    put16(out + 10, 0); /* an OPT record of the query is not repeated */
    at = question_end;
    for (unsigned i = 0; i < count; i++) {
        size_t bytes = type == TYPE_A ? 4 : 16;

        put16(out + at, 0xc00c); /* the question's name */
        put16(out + at + 2, type);
        put16(out + at + 4, 1);
        put16(out + at + 6, z->ttl_s >> 16);
        put16(out + at + 8, z->ttl_s & 0xffff);
        put16(out + at + 10, (unsigned)bytes);
        memset(out + at + 12, 0, bytes);
        out[at + 12] = type == TYPE_A ? 10 : 0xfd;
        out[at + 12 + bytes - 1] = (uint8_t)(i + 1);
        at += 12 + bytes;
    }
    return at;
}

static void serve_tcp(void)
{
    uint8_t in[512], out[1026];
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
            uint8_t in[512], out[1024];
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
    tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(tcp, (struct sockaddr *)&a, sizeof(a)), 0);
    cr_assert_eq(listen(tcp, 4), 0);
    cr_assert_eq(getsockname(tcp, (struct sockaddr *)&a, &len), 0);
    cr_assert_eq(bind(udp, (struct sockaddr *)&a, sizeof(a)), 0);
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
    char servers[32];

    done_count = 0;
    for (size_t i = 0; i < AG_COUNT(zones); i++) {
        atomic_store(&zones[i].asked, 0);
    }
    cr_assert_eq(ag_loop_init(&loop, &config, &why), AG_OK, "%s", why);
    cr_assert_eq(ag_resolver_init(&loop), AG_OK);
    (void)snprintf(servers, sizeof(servers), "127.0.0.1:%u", server_port);
    cr_assert_eq(ag_resolver_set_servers(&loop, servers), AG_OK);
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

TestSuite(resolver, .init = setup, .fini = teardown);

static void on_done(struct ag_resolve *r)
{
    (void)r;
    done_count++;
}

static void begin(struct ag_resolve *r, const char *name)
{
    unsigned before = done_count;

    ag_resolve_start(&loop, r, ag_span_str(name), 8080, on_done);
    cr_assert_eq(done_count, before, "done comes from the loop, not from the call");
}

static void await(unsigned count)
{
    while (done_count < count) {
        ag_loop_turn(&loop, UINT32_MAX);
    }
    cr_assert_eq(done_count, count);
}

static void resolve(struct ag_resolve *r, const char *name)
{
    begin(r, name);
    await(done_count + 1);
}

static bool has(const struct ag_resolve *r, const char *want)
{
    for (uint32_t i = 0; i < r->count; i++) {
        uint8_t text[128];
        struct ag_buf b = ag_buf(text, sizeof(text));

        ag_addr_format(&r->addr[i], true, &b);
        if (ag_span_eq(ag_buf_span(&b), ag_span_str(want))) {
            return true;
        }
    }
    return false;
}

static void check_kinds(void)
{
    struct ag_resolve r;

    resolve(&r, "one.test");
    cr_expect_eq(r.status, AG_OK);
    cr_expect(r.count == 1 && has(&r, "10.0.0.1:8080"));
    resolve(&r, "both.test");
    cr_expect(r.count == 2 && has(&r, "10.0.0.1:8080") && has(&r, "[fd00::1]:8080"));
    resolve(&r, "six.test");
    cr_expect(r.count == 2 && has(&r, "[fd00::1]:8080") && has(&r, "[fd00::2]:8080"));
    resolve(&r, "many.test");
    cr_expect_eq(r.count, AG_RESOLVE_MAX);
    resolve(&r, "cut.test");
    cr_expect_eq(r.status, AG_OK, "%s", r.error);
    cr_expect(r.count == 3 && has(&r, "10.0.0.3:8080"));
    cr_expect_geq(atomic_load(&zone("cut.test")->asked), 2, "asked by UDP, then by TCP");
    resolve(&r, "missing.test");
    cr_expect(r.status == AG_ENOENT && r.count == 0 && r.error);
    resolve(&r, "empty.test");
    cr_expect(r.status == AG_ENOENT && r.count == 0 && r.error);
    resolve(&r, "broken.test");
    cr_expect(r.status == AG_AGAIN && r.count == 0 && r.error);
}

Test(resolver, answers_of_every_kind)
{
    check_kinds();
}

Test(resolver, answers_of_every_kind_by_io_uring)
{
    enum ag_backend_kind kind;
    const char *why;

    if (ag_backend_choose(AG_BACKEND_URING, &kind, &why) != AG_OK) {
        cr_skip_test("no io_uring here");
    }
    stop();
    start_on(AG_BACKEND_URING);
    check_kinds();
}

Test(resolver, literals_and_garbage_ask_nobody)
{
    static const char *const garbage[] = {"",      "a b",  "a/b",          "1.2.3.4:80",
                                          "[::1]", "a\nb", "\xc3\xa4.test"};
    char longest[300];
    struct ag_resolve r;

    resolve(&r, "192.0.2.7");
    cr_expect(r.status == AG_OK && r.count == 1 && has(&r, "192.0.2.7:8080"));
    cr_expect_eq(r.expires_ms, UINT64_MAX);
    resolve(&r, "2001:db8::7");
    cr_expect(r.status == AG_OK && has(&r, "[2001:db8::7]:8080"));
    resolve(&r, "unix:/run/app.sock");
    cr_expect(r.status == AG_OK && has(&r, "unix:/run/app.sock"));
    for (size_t i = 0; i < AG_COUNT(garbage); i++) {
        resolve(&r, garbage[i]);
        cr_expect(r.status == AG_ENOENT && r.count == 0 && r.error, "%s", garbage[i]);
    }
    memset(longest, 'x', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    resolve(&r, longest);
    cr_expect_eq(r.status, AG_ENOENT);
}

Test(resolver, the_hosts_file_comes_first)
{
    struct ag_resolve r;

    resolve(&r, "LocalHost");
    cr_expect_eq(r.status, AG_OK);
    cr_expect(has(&r, "127.0.0.1:8080") || has(&r, "[::1]:8080"));
}

Test(resolver, answers_are_shared_and_kept)
{
    static struct ag_resolve r[20];

    for (unsigned i = 0; i < 20; i++) {
        begin(&r[i], i % 2 ? "one.test" : "ONE.Test");
    }
    await(20);
    for (unsigned i = 0; i < 20; i++) {
        cr_expect(r[i].status == AG_OK && has(&r[i], "10.0.0.1:8080"));
    }
    cr_expect_eq(atomic_load(&zone("one.test")->asked), 2, "one A, one AAAA");
    ag_resolve_start(&loop, &r[0], AG_SPAN("one.test"), 443, on_done);
    await(21);
    cr_expect(has(&r[0], "10.0.0.1:443"), "the port is the caller's");
    cr_expect_eq(atomic_load(&zone("one.test")->asked), 2);
}

/* Failures and a TTL of 0 are kept for a second. */
static void kept_while_fresh(const char *name)
{
    struct ag_resolve r;

    resolve(&r, name);
    unsigned asked = atomic_load(&zone(name)->asked);
    cr_expect(r.expires_ms <= loop.now_ms + 1000);
    bool fresh = r.expires_ms > loop.now_ms;
    resolve(&r, name);
    cr_expect(!fresh || atomic_load(&zone(name)->asked) == asked, "%s", name);
}

Test(resolver, time_to_live)
{
    struct ag_resolve r;

    resolve(&r, "one.test");
    cr_expect(r.expires_ms > loop.now_ms + 290000 && r.expires_ms <= loop.now_ms + 300000);
    resolve(&r, "eternal.test");
    cr_expect(r.expires_ms > loop.now_ms + 3590000 && r.expires_ms <= loop.now_ms + 3600000);
    kept_while_fresh("missing.test");
    kept_while_fresh("brief.test");
    unsigned missing = atomic_load(&zone("missing.test")->asked);
    unsigned brief = atomic_load(&zone("brief.test")->asked);
    resolve(&r, "brief.test"); /* the one that expires last */
    while (loop.now_ms < r.expires_ms) {
        ag_loop_turn(&loop, 50);
    }
    resolve(&r, "brief.test");
    cr_expect_gt(atomic_load(&zone("brief.test")->asked), brief);
    resolve(&r, "missing.test");
    cr_expect_gt(atomic_load(&zone("missing.test")->asked), missing);
}

Test(resolver, cancel_at_any_time)
{
    static struct ag_resolve r[4];

    ag_resolve_cancel(&r[3]); /* never begun */
    begin(&r[0], "one.test");
    ag_resolve_cancel(&r[0]);
    begin(&r[0], "one.test"); /* may be used again at once */
    begin(&r[1], "one.test");
    begin(&r[2], "127.0.0.1");
    ag_resolve_cancel(&r[1]);
    ag_resolve_cancel(&r[2]); /* its answer waits in a task */
    await(1);
    cr_expect(r[0].status == AG_OK && has(&r[0], "10.0.0.1:8080"));
    ag_resolve_cancel(&r[0]);
    begin(&r[0], "one.test"); /* from the cache, by task */
    ag_resolve_cancel(&r[0]);
    for (int i = 0; i < 5; i++) {
        ag_loop_turn(&loop, 1);
    }
    cr_expect_eq(done_count, 1);
    cr_expect_eq(atomic_load(&zone("one.test")->asked), 2);
}

/* Silent servers: the end comes with lookups still under way (teardown). */
Test(resolver, many_names_are_bounded)
{
    static struct ag_resolve r[300];
    unsigned refused = 0;
    char name[32];

    for (unsigned i = 0; i < 300; i++) {
        (void)snprintf(name, sizeof(name), "n%u.one.test", i);
        resolve(&r[i], name);
        cr_assert(r[i].status == AG_OK && has(&r[i], "10.0.0.1:8080"));
    }
    unsigned asked = atomic_load(&zone("one.test")->asked);
    resolve(&r[0], "n299.one.test");
    cr_expect_eq(atomic_load(&zone("one.test")->asked), asked, "the latest are kept");
    resolve(&r[0], "n0.one.test");
    cr_expect_gt(atomic_load(&zone("one.test")->asked), asked, "the oldest went");

    done_count = 0;
    for (unsigned i = 0; i < 300; i++) {
        (void)snprintf(name, sizeof(name), "n%u.silent.test", i);
        begin(&r[i], name);
    }
    for (int i = 0; i < 5; i++) {
        ag_loop_turn(&loop, 1);
    }
    for (unsigned i = 0; i < 300; i++) {
        if (ag_list_empty(&r[i].link)) {
            cr_expect_eq(r[i].status, AG_AGAIN);
            refused++;
        }
        ag_resolve_cancel(&r[i]);
    }
    cr_expect_eq(refused, 300 - 256);
    cr_expect_eq(done_count, refused);
}

Test(resolver, a_bad_server_list_is_refused)
{
    cr_expect_eq(ag_resolver_set_servers(&loop, "not an address"), AG_EINVAL);
}

/* ---- addresses ---- */

Test(addr, parse_and_format)
{
    static const struct {
        const char *text, *with_port, *without;
        size_t len; /* of the sockaddr */
    } rows[] = {
        {"1.2.3.4", "1.2.3.4:80", "1.2.3.4", sizeof(struct sockaddr_in)},
        {"0.0.0.0", "0.0.0.0:80", "0.0.0.0", sizeof(struct sockaddr_in)},
        {"255.255.255.255", "255.255.255.255:80", "255.255.255.255", sizeof(struct sockaddr_in)},
        {"::1", "[::1]:80", "::1", sizeof(struct sockaddr_in6)},
        {"2001:DB8:0:0::5", "[2001:db8::5]:80", "2001:db8::5", sizeof(struct sockaddr_in6)},
        {"unix:/a b", "unix:/a b", "unix:/a b", offsetof(struct sockaddr_un, sun_path) + 5},
        {"", NULL, NULL, 0},
        {"1.2.3", NULL, NULL, 0},
        {"1.2.3.256", NULL, NULL, 0},
        {"01.2.3.4.5", NULL, NULL, 0},
        {" 1.2.3.4", NULL, NULL, 0},
        {"1.2.3.4 ", NULL, NULL, 0},
        {"[::1]", NULL, NULL, 0},
        {":::", NULL, NULL, 0},
        {"unix:", NULL, NULL, 0},
        {"localhost", NULL, NULL, 0},
    };

    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        union ag_addr a;
        enum ag_status st = ag_addr_parse(ag_span_str(rows[i].text), 80, &a);

        cr_assert_eq(st, rows[i].len ? AG_OK : AG_EINVAL, "%s", rows[i].text);
        if (st == AG_OK) {
            uint8_t text[128];
            struct ag_buf b = ag_buf(text, sizeof(text));

            ag_addr_format(&a, true, &b);
            cr_expect(ag_span_eq(ag_buf_span(&b), ag_span_str(rows[i].with_port)), "%s",
                      rows[i].text);
            b = ag_buf(text, sizeof(text));
            ag_addr_format(&a, false, &b);
            cr_expect(ag_span_eq(ag_buf_span(&b), ag_span_str(rows[i].without)), "%s",
                      rows[i].text);
            cr_expect_eq(ag_addr_len(&a), rows[i].len);
        }
    }
}

Test(addr, unix_paths_at_their_longest)
{
    char text[5 + 109] = "unix:";
    union ag_addr a;
    struct ag_buf b;
    uint8_t out[128];

    memset(text + 5, 'p', 108);
    cr_expect_eq(ag_addr_parse(ag_span(text, 5 + 107), 0, &a), AG_OK);
    cr_expect_eq(ag_addr_len(&a), sizeof(struct sockaddr_un));
    cr_expect_eq(ag_addr_parse(ag_span(text, 5 + 108), 0, &a), AG_EINVAL);
    cr_expect_eq(ag_addr_parse(ag_span("unix:/a\0b", 9), 0, &a), AG_EINVAL);
    cr_expect_eq(ag_addr_parse(ag_span("1.2.3.4\0x", 9), 0, &a), AG_EINVAL);

    /* From the kernel: a path that fills the field has no NUL, a client has no path at all. */
    a = (union ag_addr){.un.sun_family = AF_UNIX};
    memset(a.un.sun_path, 'p', sizeof(a.un.sun_path));
    b = ag_buf(out, sizeof(out));
    ag_addr_format(&a, true, &b);
    cr_expect_eq(b.len, 5 + sizeof(a.un.sun_path));
    cr_expect_eq(ag_addr_len(&a), sizeof(struct sockaddr_un));
    a = (union ag_addr){.un.sun_family = AF_UNIX};
    b = ag_buf(out, sizeof(out));
    ag_addr_format(&a, true, &b);
    cr_expect(ag_span_eq(ag_buf_span(&b), AG_SPAN("unix:")));
}

static union ag_addr parsed(const char *text, uint16_t port)
{
    union ag_addr a;

    cr_assert_eq(ag_addr_parse(ag_span_str(text), port, &a), AG_OK, "%s", text);
    return a;
}

Test(addr, same)
{
    static const struct {
        const char *text;
        uint16_t port;
    } all[] = {{"1.2.3.4", 80}, {"1.2.3.4", 81}, {"1.2.3.5", 80},        {"::1", 80},
               {"::1", 81},     {"::2", 80},     {"::ffff:1.2.3.4", 80}, {"unix:/a", 0},
               {"unix:/ab", 0}};
    union ag_addr none = {0};

    for (size_t i = 0; i < AG_COUNT(all); i++) {
        for (size_t j = 0; j < AG_COUNT(all); j++) {
            union ag_addr a = parsed(all[i].text, all[i].port),
                          b = parsed(all[j].text, all[j].port);

            cr_expect_eq(ag_addr_same(&a, &b), i == j, "%s %s", all[i].text, all[j].text);
        }
    }
    cr_expect_not(ag_addr_same(&none, &none));
    union ag_addr here = parsed("fe80::1", 80), there = here;
    there.in6.sin6_scope_id = 2;
    cr_expect_not(ag_addr_same(&here, &there));
    there = here;
    there.in6.sin6_flowinfo = 7; /* of packets, not of a place */
    cr_expect(ag_addr_same(&here, &there));
}

Test(addr, unmap)
{
    static const char *const rows[][2] = {{"::ffff:1.2.3.4", "1.2.3.4"},
                                          {"::1", "::1"},
                                          {"::1.2.3.4", "::1.2.3.4"},
                                          {"9.8.7.6", "9.8.7.6"},
                                          {"unix:/a", "unix:/a"}};

    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        union ag_addr a = parsed(rows[i][0], 443), want = parsed(rows[i][1], 443);

        ag_addr_unmap(&a);
        cr_expect(ag_addr_same(&a, &want), "%s", rows[i][0]);
    }
}
