/*
 * Goal: a request goes to an upstream with the right head, its answer comes back whole or is seen to
 * be cut, connections are used again where that is safe and only there, failures get their status, and
 * nothing is left at whatever point a side goes away.
 * Method: real server, real action, raw sockets on both outer ends, on both backends.
 */
#include "proto/websocket.h"
#include "tests/unit/proxying.h"

#define OK2   "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
#define GET   "GET /p?q=1 HTTP/1.1\r\nHost: example.com:81\r\n\r\n"
#define POST0 "POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"

static bool in_head(const struct fake *f, const char *text)
{
    return strstr(f->head, text) != NULL;
}

static unsigned count_in(const char *text, const char *what)
{
    unsigned n = 0;

    while ((text = strstr(text, what)) != NULL) {
        text += strlen(what);
        n++;
    }
    return n;
}

/* ---- heads ---- */

BOTH(proxy, a_request_as_the_upstream_sees_it)
{
    struct world *w = world_new(kind);
    struct fake *f =
        fake_new(w, "HTTP/1.1 200 Fine\r\nX-Up: 1\r\nConnection: X-Gone\r\nX-Gone: 1\r\n"
                    "Keep-Alive: timeout=5\r\nDate: d\r\nContent-Length: 2\r\n\r\nok");
    struct client *c = client_new(w);

    (void)route_to_fake(w, f);
    ask(w, c,
        "GET /a/../p?q=1 HTTP/1.1\r\nHost: example.com:81\r\nConnection: keep-alive, X-Gone, Host, "
        "Authorization, X-Forwarded-For\r\nX-Gone: 1\r\nAuthorization: a\r\nKeep-Alive: 5\r\n"
        "X-Forwarded-For: evil\r\nX_Forwarded_Proto: evil\r\nForwarded: for=evil\r\nProxy: evil\r\n"
        "X-Real-IP: evil\r\nTE: gzip, trailers\r\nTrailer: evil\r\nUpgrade: h2c\r\nX-A: 1\r\n\r\n",
        "\r\n\r\nok");
    cr_expect(ag_span_starts(ag_span_str(f->head), AG_SPAN("GET /p?q=1 HTTP/1.1\r\n"
                                                           "Host: example.com:81\r\n")),
              "%s", f->head);
    cr_expect_not(in_head(f, "evil"), "%s", f->head);
    cr_expect_not(in_head(f, "X-Gone"));
    cr_expect_not(in_head(f, "Upgrade"));
    cr_expect(in_head(f, "\r\nAuthorization: a\r\n"));
    cr_expect(in_head(f, "\r\nX-A: 1\r\n"));
    cr_expect(in_head(f, "\r\nX-Forwarded-For: 127.0.0.1\r\n"), "%s", f->head);
    cr_expect(in_head(f, "\r\nX-Forwarded-Host: example.com:81\r\n"));
    cr_expect(in_head(f, "\r\nX-Forwarded-Proto: http\r\n"));
    cr_expect(in_head(f, "\r\nForwarded: for=127.0.0.1;host=\"example.com:81\";proto=http\r\n"));
    cr_expect(in_head(f, "\r\nVia: 1.1 anygate\r\n"));
    cr_expect(in_head(f, "\r\nTE: trailers\r\n"));
    cr_expect(in_head(f, "\r\nConnection: TE\r\n"));
    cr_expect(client_has(c, "HTTP/1.1 200 Fine\r\nX-Up: 1\r\nDate: d\r\nVia: 1.1 anygate\r\n"),
              "%.*s", (int)c->len, (char *)c->got);
    cr_expect_not(client_has(c, "X-Gone"));
    cr_expect_not(client_has(c, "Keep-Alive"));
    world_free(w);
}

BOTH(proxy, a_trusted_peer_is_believed)
{
    struct world *w = world_new(kind);
    struct fake *f = fake_new(w, OK2);
    struct client *c = client_new(w);
    struct ag_network block = {.bits = 104}; /* 127.0.0.0/8 */

    memcpy(block.bytes, (const uint8_t[]){0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 127}, 13);
    (void)route_to_fake(w, f);
    ((struct ag_proxy_section *)(uintptr_t)w->action.shared)->trust =
        (struct ag_networks){.blocks = &block, .count = 1};
    ask(w, c,
        "GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 10.0.0.1\r\nX-Forwarded-For: 10.0.0.2\r\n"
        "X-Forwarded-Proto: https\r\nX-Forwarded-Host: h\r\nForwarded: for=a\r\nX-Real-IP: r\r\n\r\n",
        "\r\n\r\nok");
    cr_expect(in_head(f, "\r\nX-Forwarded-For: 10.0.0.1, 10.0.0.2, 127.0.0.1\r\n"), "%s", f->head);
    cr_expect(in_head(f, "\r\nX-Forwarded-Proto: https\r\n"));
    cr_expect(in_head(f, "\r\nX-Forwarded-Host: h\r\n"));
    cr_expect(in_head(f, "\r\nForwarded: for=a, for=127.0.0.1;host=\"x\";proto=http\r\n"));
    cr_expect(in_head(f, "\r\nX-Real-IP: r\r\n"));
    world_free(w);
}

BOTH(proxy, targets_and_hosts)
{
    static const struct ag_template_part parts[] = {{AG_SPAN_INIT("/new"), -1}};
    struct world *w = world_new(kind);
    struct fake *f = fake_new(w, OK2);
    struct client *c = client_new(w);
    struct ag_proxy_settings *s = route_to_fake(w, f);
    char want[64];

    s->has_target = true;
    s->target = (struct ag_template){parts, 1};
    s->target_bytes = 4;
    s->host_mode = AG_UPSTREAM_HOST_SERVER;
    ask(w, c, GET, "\r\n\r\nok");
    (void)snprintf(want, sizeof(want), "GET /new?q=1 HTTP/1.1\r\nHost: 127.0.0.1:%u\r\n", f->port);
    cr_expect(in_head(f, want), "%s", f->head);
    s->has_target = false;
    s->host_mode = AG_UPSTREAM_HOST_LITERAL;
    s->host = AG_SPAN("literal");
    ask(w, c, GET, "\r\n\r\nok");
    cr_expect(in_head(f, "GET /p?q=1 HTTP/1.1\r\nHost: literal\r\n"));
    world_free(w);
}

BOTH(proxy, loops_end)
{
    struct world *w = world_new(kind);
    struct fake *f = fake_new(w, OK2);
    struct client *c = client_new(w);

    (void)route_to_fake(w, f);
    ask(w, c,
        "GET / HTTP/1.1\r\nHost: x\r\nVia: 1.1 anygate, 1.0 other\r\nVia: 2 anygate (x)\r\n"
        "CDN-Loop: anygate; a=b, anygate, anygate\r\n\r\n",
        "\r\n\r\nok");
    ask(w, c,
        "GET / HTTP/1.1\r\nHost: x\r\nVia: 1.1 anygate, 1.1 anygate, 1.1 anygate\r\n"
        "CDN-Loop: anygate, anygate, anygate\r\n\r\n",
        "loop\n");
    cr_expect(client_has(c, "HTTP/1.1 508 "));
    cr_expect_eq(f->requests, 1);
    world_free(w);
}

BOTH(proxy, a_large_answer_head_is_passed_on)
{
    static char wire[16000];
    struct world *w = world_new(kind);
    struct fake *f = fake_new(w, wire);
    struct client *c = client_new(w);
    char cookie[5001];

    memset(cookie, 'c', sizeof(cookie) - 1);
    cookie[5000] = 0;
    (void)snprintf(wire, sizeof(wire),
                   "HTTP/1.1 200 OK\r\nSet-Cookie: %s\r\nX-B: 2\r\nContent-Length: 2\r\n\r\nok",
                   cookie);
    (void)route_to_fake(w, f);
    for (unsigned i = 0; i < 3; i++) {
        ask(w, c, GET, "\r\n\r\nok");
        cr_expect(client_has(c, cookie));
        cr_expect(client_has(c, "\r\nX-B: 2\r\n"));
    }
    world_free(w);
}

/* ---- connections ---- */

BOTH(proxy, connections_are_used_again)
{
    struct world *w = world_new(kind);
    struct fake *f = fake_new(w, OK2);
    struct client *c = client_new(w), *d = client_new(w);

    (void)route_to_fake(w, f);
    for (unsigned i = 0; i < 5; i++) {
        ask(w, i % 2 ? c : d, GET, "\r\n\r\nok");
    }
    cr_expect_eq(f->requests, 5);
    cr_expect_eq(f->accepted, 1);
    world_free(w);
}

static uint32_t segments_in(int fd)
{
    struct tcp_info info;
    socklen_t len = sizeof(info);

    cr_assert_eq(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len), 0);
    return info.tcpi_data_segs_in;
}

BOTH(proxy, head_and_content_leave_together)
{
    struct world *w = world_new(kind);
    struct fake *f = fake_new(w, OK2);
    struct client *c = client_new(w);
    uint32_t up, down;

    (void)route_to_fake(w, f);
    ask(w, c, GET, "\r\n\r\nok");
    up = segments_in(f->conns[0].fd);
    down = segments_in(c->fd);
    ask(w, c, "POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", "\r\n\r\nok");
    cr_expect_eq(segments_in(f->conns[0].fd), up + 1);
    cr_expect_eq(segments_in(c->fd), down + 1);
    world_free(w);
}

BOTH(proxy, round_robin_by_weight)
{
    struct world *w = world_new(kind);
    struct fake *a = fake_new(w, OK2), *b = fake_new(w, OK2), *d = fake_new(w, OK2);
    struct client *c = client_new(w);
    struct ag_proxy_settings *s;
    char authority[128];

    (void)snprintf(authority, sizeof(authority), "127.0.0.1:%u,127.0.0.1:%u,127.0.0.1:%u", a->port,
                   b->port, d->port);
    s = route_to(w, authority);
    ((struct ag_upstream_server *)(uintptr_t)s->upstream->servers)[0].weight = 2;
    for (unsigned i = 0; i < 8; i++) {
        ask(w, c, GET, "\r\n\r\nok");
    }
    cr_expect_eq(a->requests, 4);
    cr_expect_eq(b->requests, 2);
    cr_expect_eq(d->requests, 2);
    cr_expect_eq(a->accepted, 1);
    world_free(w);
}

BOTH(proxy, names_are_resolved)
{
    struct world *w = world_new(kind);
    struct fake *f = fake_new(w, OK2);
    struct client *c = client_new(w);
    char authority[64];

    (void)snprintf(authority, sizeof(authority), "localhost:%u", f->port);
    (void)route_to(w, authority);
    ask(w, c, GET, "\r\n\r\nok");
    cr_expect_eq(f->requests, 1);
    world_free(w);
}

BOTH(proxy, unix_sockets)
{
    struct world *w = world_new(kind);
    struct fake *f = fake_new(w, OK2);
    struct client *c = client_new(w);
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    char dir[] = "/tmp/agproxyXXXXXX", authority[64];

    cr_assert(mkdtemp(dir));
    (void)snprintf(un.sun_path, sizeof(un.sun_path), "%s/s", dir);
    (void)snprintf(authority, sizeof(authority), "unix:%s/s:", dir);
    fake_close(f);
    fake_listen(f, (struct sockaddr *)&un, sizeof(un));
    f->wire = OK2;
    (void)route_to(w, authority)->upstream;
    ask(w, c, GET, "\r\n\r\nok");
    cr_expect(in_head(f, "Host: example.com:81\r\n"));
    world_free(w);
    (void)unlink(un.sun_path);
    (void)rmdir(dir);
}

BOTH(proxy, a_dead_server_is_passed_over)
{
    struct world *w = world_new(kind);
    struct fake *a = fake_new(w, OK2), *b = fake_new(w, OK2);
    struct client *c = client_new(w);
    char authority[64];

    (void)snprintf(authority, sizeof(authority), "127.0.0.1:%u,127.0.0.1:%u", a->port, b->port);
    (void)route_to(w, authority);
    fake_close(a);
    for (unsigned i = 0; i < 4; i++) {
        ask(w, c, GET, "\r\n\r\nok");
        ask(w, c, POST0, "\r\n\r\nok");
    }
    cr_expect_eq(b->requests, 8);
    fake_close(b);
    world_settle(w);
    ask(w, c, GET, "connection refused\n");
    cr_expect(client_has(c, "HTTP/1.1 502 "));
    world_free(w);
}

/* The second request on a connection is met by a close. */
static void close_on_second(struct fake *f, struct fake_conn *c)
{
    if (c->requests > 1) {
        fake_hang_up(c);
    } else {
        fake_send(c, f->wire);
    }
}

BOTH(proxy, a_pooled_connection_that_dies_is_made_up_for)
{
    struct world *w = world_new(kind);
    struct fake *f = fake_new(w, OK2);
    struct client *c = client_new(w);

    f->script = close_on_second;
    (void)route_to_fake(w, f);
    ask(w, c, GET, "\r\n\r\nok");
    ask(w, c, GET, "\r\n\r\nok"); /* silently on a second one */
    cr_expect_eq(f->accepted, 2);
    cr_expect_eq(f->requests, 3);
    /* What may have had an effect is not done twice. */
    ask(w, c, POST0, "\n");
    cr_expect(client_has(c, "HTTP/1.1 502 "), "%.*s", (int)c->len, (char *)c->got);
    cr_expect_eq(f->requests, 4);
    world_free(w);
}

static void close_always(struct fake *f, struct fake_conn *c)
{
    (void)f;
    fake_hang_up(c);
}

BOTH(proxy, a_new_connection_that_dies_is_502)
{
    struct world *w = world_new(kind);
    struct fake *f = fake_new(w, NULL);
    struct client *c = client_new(w);

    f->script = close_always;
    (void)route_to_fake(w, f);
    ask(w, c, GET, "\n");
    cr_expect(client_has(c, "HTTP/1.1 502 "));
    cr_expect_eq(f->requests, 1);
    world_free(w);
}

BOTH(proxy, idle_connections_end)
{
    struct world *w = world_new(kind);
    struct fake *f = fake_new(w, OK2);
    struct client *c = client_new(w);
    struct ag_proxy_settings *s = route_to_fake(w, f);

    options_of(s)->idle_timeout_ms = 30;
    ask(w, c, GET, "\r\n\r\nok");
    cr_expect_eq(fake_open_count(f), 1);
    world_until(w, fake_open_count(f) == 0);
    world_until(w, upstreams_of(w)->conns.used == 0);
    ask(w, c, GET, "\r\n\r\nok");
    cr_expect_eq(f->accepted, 2);
    world_free(w);
}

BOTH(proxy, connections_are_used_so_often_and_so_long)
{
    struct world *w = world_new(kind);
    struct fake *f = fake_new(w, OK2);
    struct client *c = client_new(w);
    struct ag_proxy_settings *s = route_to_fake(w, f);

    options_of(s)->max_requests = 2;
    for (unsigned i = 0; i < 6; i++) {
        ask(w, c, GET, "\r\n\r\nok");
    }
    cr_expect_eq(f->accepted, 3);
    world_free(w);
}

/* Bytes between two answers end the connection, not the next request. */
BOTH(proxy, poison_on_an_idle_connection)
{
    struct world *w = world_new(kind);
    struct fake *f = fake_new(w, OK2);
    struct client *c = client_new(w);

    (void)route_to_fake(w, f);
    ask(w, c, GET, "\r\n\r\nok");
    fake_send(&f->conns[0], "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison");
    world_until(w, upstreams_of(w)->conns.used == 0);
    f->wire = OK2 "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
    ask(w, c, GET, "\r\n\r\nok");
    f->wire = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood";
    ask(w, c, GET, "\r\n\r\ngood");
    cr_expect_eq(f->accepted, 3);
    world_free(w);
}

/* ---- limits ---- */

BOTH(proxy, who_waits_is_served_in_turn)
{
    struct world *w = world_new(kind);
    struct fake *f = fake_new(w, NULL);
    struct client *a = client_new(w), *b = client_new(w), *c = client_new(w);
    struct ag_proxy_settings *s = route_to_fake(w, f);

    options_of(s)->max_connections = 1;
    options_of(s)->max_pending = 1;
    client_send(a, GET);
    world_until(w, f->requests == 1);
    client_send(b, GET);
    world_settle(w);
    ask(w, c, GET, "wait for the upstream\n");
    cr_expect(client_has(c, "HTTP/1.1 503 "));
    cr_expect_eq(f->requests, 1);
    fake_send(&f->conns[0], OK2);
    world_until(w, client_has(a, "\r\n\r\nok"));
    world_until(w, f->requests == 2);
    fake_send(&f->conns[0], OK2);
    world_until(w, client_has(b, "\r\n\r\nok"));
    cr_expect_eq(f->accepted, 1);
    world_free(w);
}

BOTH(proxy, who_waits_too_long_gets_503)
{
    struct world *w = world_new(kind);
    struct fake *f = fake_new(w, NULL);
    struct client *a = client_new(w), *b = client_new(w), *c = client_new(w);
    struct ag_proxy_settings *s = route_to_fake(w, f);

    options_of(s)->max_connections = 1;
    s->timeouts.connect_ms = 60;
    client_send(a, GET);
    world_until(w, f->requests == 1);
    client_send(b, GET);
    client_send(c, GET);
    world_settle(w);
    client_close(c); /* one leaves the queue by itself */
    world_until(w, client_has(b, "came free in time\n"));
    cr_expect(client_has(b, "HTTP/1.1 503 "));
    fake_send(&f->conns[0], OK2);
    world_until(w, client_has(a, "\r\n\r\nok"));
    world_free(w);
}

BOTH(proxy, a_server_that_ends_frees_its_slot)
{
    struct world *w = world_new(kind);
    struct fake *f = fake_new(w, NULL);
    struct client *a = client_new(w), *b = client_new(w);
    struct ag_proxy_settings *s = route_to_fake(w, f);

    options_of(s)->max_connections = 1;
    client_send(a, GET);
    world_until(w, f->requests == 1);
    client_send(b, GET);
    world_settle(w);
    fake_send(&f->conns[0], "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
    world_until(w, client_has(a, "\r\n\r\nok") && f->requests == 2);
    f->wire = OK2;
    for (unsigned i = 0; i < FAKE_CONNS_MAX; i++) {
        if (f->conns[i].fd >= 0 && !f->conns[i].eof) {
            fake_send(&f->conns[i], OK2);
        }
    }
    world_until(w, client_has(b, "\r\n\r\nok"));
    cr_expect_eq(f->accepted, 2);
    world_free(w);
}

/* ---- timeouts ---- */

BOTH(proxy, a_silent_upstream_is_504)
{
    struct world *w = world_new(kind);
    struct fake *f = fake_new(w, NULL);
    struct client *c = client_new(w);
    struct ag_proxy_settings *s = route_to_fake(w, f);

    s->timeouts.first_byte_ms = 40;
    ask(w, c, GET, "answer: timeout\n");
    cr_expect(client_has(c, "HTTP/1.1 504 "));
    world_until(w, upstreams_of(w)->conns.used == 0);
    s->timeouts.first_byte_ms = 60000;
    s->timeouts.total_ms = 40;
    ask(w, c, GET, "total timeout\n");
    cr_expect(client_has(c, "HTTP/1.1 504 "));
    world_free(w);
}

/* False: it was cut, but this test itself stood still for long enough. */
static bool read_slowly(enum ag_backend_kind kind)
{
    enum { CONTENT = 40000, PIECE = 500, PAUSE_US = 5000, FIRST_BYTE_MS = 100, STOOD_MS = 25 };
    struct world *w = world_new(kind);
    struct fake *f = fake_new(w, NULL);
    struct client *c = client_new(w);
    struct ag_proxy_settings *s = route_to_fake(w, f);
    const int small = 4096;
    static char request[CONTENT + 100];
    size_t taken = 0;
    bool cut = false, stood = false;
    int n;

    s->timeouts.first_byte_ms = FIRST_BYTE_MS;
    cr_assert_eq(setsockopt(f->ls, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)), 0);
    n = snprintf(request, sizeof(request),
                 "POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%0*d", CONTENT, CONTENT,
                 0);
    cr_assert_eq(n, (int)strlen(request));
    client_send(c, request);
    world_until(w, f->requests == 1);
    for (struct fake_conn *up = f->conns; taken + up->len < CONTENT && !cut;) {
        size_t piece = ag_min_size(up->len, PIECE);
        uint64_t before = w->loop.now_ms;

        taken += piece;
        up->len -= piece;
        memmove(up->in, up->in + piece, up->len);
        (void)usleep(PAUSE_US);
        world_turn(w);
        stood |= w->loop.now_ms - before > STOOD_MS;
        cut = client_has(c, "HTTP/1.1 ");
    }
    cr_assert(!cut || stood, "%zu of %d bytes had gone", taken, CONTENT);
    if (!cut) {
        fake_send(&f->conns[0], OK2);
        world_until(w, client_has(c, "\r\n\r\nok"));
    }
    world_free(w);
    return !cut;
}

/* What it has not taken yet lies in the kernel, all of it. */
BOTH(proxy, an_upstream_that_reads_slowly_is_not_silent)
{
    unsigned tries = 0;

    while (!read_slowly(kind)) {
        cr_assert_lt(++tries, 50);
    }
}

BOTH(proxy, an_answer_that_stalls_is_cut)
{
    struct world *w = world_new(kind);
    struct fake *f = fake_new(w, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345");
    struct client *c = client_new(w);
    struct ag_proxy_settings *s = route_to_fake(w, f);

    s->timeouts.read_ms = 40;
    client_send(c, GET);
    world_until(w, client_over(c));
    cr_expect(client_has(c, "\r\n\r\n12345"));
    world_free(w);
}

/* ---- upstreams that lie ---- */

static const char *const lies[] = {
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi!",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    "HTTP/1.1 200 OK\r\nConnection: a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q,r\r\nContent-Length: 0\r\n\r\n",
    "garbage\r\n\r\n",
};

BOTH(proxy, lies_are_502)
{
    struct world *w = world_new(kind);
    struct fake *f = fake_new(w, NULL);
    struct client *c = client_new(w);

    (void)route_to_fake(w, f);
    for (unsigned i = 0; i < AG_COUNT(lies); i++) {
        f->wire = lies[i];
        ask(w, c, GET, "HTTP/1.1 502 ");
        world_until(w, client_has(c, "\n502 ") || client_has(c, "\r\n\r\n502 "));
        world_until(w, upstreams_of(w)->conns.used == 0);
    }
    f->wire = OK2;
    ask(w, c, GET, "\r\n\r\nok");
    world_free(w);
}

static const char *const cuts[] = {
    "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\nzz\r\n",
};

static void send_and_close(struct fake *f, struct fake_conn *c)
{
    fake_send(c, f->wire);
    fake_hang_up(c);
}

BOTH(proxy, a_cut_answer_has_no_clean_end)
{
    for (unsigned i = 0; i < AG_COUNT(cuts); i++) {
        struct world *w = world_new(kind);
        struct fake *f = fake_new(w, cuts[i]);
        struct client *c = client_new(w);

        f->script = send_and_close;
        (void)route_to_fake(w, f);
        client_send(c, GET);
        world_until(w, client_over(c));
        cr_expect_not(client_has(c, "\r\n0\r\n\r\n"));
        cr_expect_not(client_has(c, "1234567890"));
        world_free(w);
    }
}

BOTH(proxy, an_answer_until_close_is_whole)
{
    struct world *w = world_new(kind);
    struct fake *f = fake_new(w, "HTTP/1.1 200 OK\r\n\r\nall of it");
    struct client *c = client_new(w);

    f->script = send_and_close;
    (void)route_to_fake(w, f);
    ask(w, c, GET, "9\r\nall of it\r\n0\r\n\r\n");
    world_free(w);
}

BOTH(proxy, interim_answers_are_relayed)
{
    struct world *w = world_new(kind);
    struct fake *f =
        fake_new(w, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nKeep-Alive: x\r\n\r\n" OK2);
    struct client *c = client_new(w);

    (void)route_to_fake(w, f);
    ask(w, c, GET, "\r\n\r\nok");
    cr_expect(client_has(c, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n"));
    world_free(w);
}

static void continue_then_echo(struct fake *f, struct fake_conn *c)
{
    cr_expect(in_head(f, "Expect: 100-continue\r\n"));
    fake_send(c, "HTTP/1.1 100 Continue\r\n\r\n");
}

BOTH(proxy, expect_goes_through)
{
    struct world *w = world_new(kind);
    struct fake *f = fake_new(w, NULL);
    struct client *c = client_new(w);

    f->script = continue_then_echo;
    (void)route_to_fake(w, f);
    ask(w, c, "POST /p HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n");
    client_send(c, "hello");
    world_until(w, f->conns[0].len == 5);
    fake_send(&f->conns[0], OK2);
    world_until(w, client_has(c, "\r\n\r\nok"));
    world_free(w);
}

BOTH(proxy, an_early_answer_to_an_upload)
{
    struct world *w = world_new(kind);
    struct fake *f = fake_new(w, "HTTP/1.1 413 No\r\nContent-Length: 4\r\n\r\nstop");
    struct client *c = client_new(w);

    (void)route_to_fake(w, f);
    ask(w, c, "POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\nbegin", "\r\n\r\nstop");
    cr_expect(client_has(c, "HTTP/1.1 413 "));
    world_until(w, upstreams_of(w)->conns.used == 0);
    world_free(w);
}

/* ---- bulk ---- */

BOTH(proxy, a_slow_client_bounds_memory)
{
    struct world *w = world_new(kind);
    struct fake *f = fake_new(w, NULL);
    struct client *c = client_new(w);
    const uint64_t total =
        64u << 20; /* more than systems let a receiver's buffer grow to: 32 MiB */
    const int small = 65536;
    static uint8_t piece[16384];
    uint64_t sent = 0, received = 0;
    char head[100];

    (void)route_to_fake(w, f);
    client_send(c, GET);
    world_until(w, f->requests == 1);
    (void)snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nContent-Length: %llu\r\n\r\n",
                   (unsigned long long)total);
    fake_send(&f->conns[0], head);
    /* Of the other two ends alone the system may hold megabytes. */
    cr_assert_eq(setsockopt(f->conns[0].fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
    cr_assert_eq(setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)), 0);
    for (unsigned stuck = 0; stuck < 100;) {
        ssize_t n = write(f->conns[0].fd, piece, sizeof(piece));
        sent += n > 0 ? (uint64_t)n : 0;
        stuck = n > 0 ? 0 : stuck + 1;
        ag_loop_turn(&w->loop, 1);
        cr_assert_lt(sent, total);
    }
    /* What is in flight: a stream's and a body's bounds, in pieces of 16k that have a large buffer each. */
    cr_expect_leq(ag_loop_bufs_used(&w->loop, AG_BUF_LARGE), AG_STREAM_HIGH / sizeof(piece) + 8);
    cr_expect_leq(ag_loop_bufs_used(&w->loop, AG_BUF_SMALL), 160);
    while (received < total) {
        ssize_t n = sent < total ? write(f->conns[0].fd, piece,
                                         (size_t)ag_min_u64(sizeof(piece), total - sent))
                                 : 0;
        sent += n > 0 ? (uint64_t)n : 0;
        client_pull(c);
        cr_assert_not(c->eof || c->reset);
        if (received == 0 && c->len > 0) {
            uint8_t *end = memmem(c->got, c->len, "\r\n\r\n", 4);
            cr_assert(end);
            received = c->len - (size_t)(end + 4 - c->got);
        } else {
            received += c->len;
        }
        c->len = 0;
        ag_loop_turn(&w->loop, 0);
    }
    cr_expect_eq(received, total);
    client_send(c, GET); /* still alive on both sides */
    world_until(w, f->requests == 2);
    fake_send(&f->conns[0], OK2);
    world_until(w, client_has(c, "\r\n\r\nok"));
    cr_expect_eq(f->accepted, 1);
    world_free(w);
}

/* ---- upgrades ---- */

#define WS_KEY "MDEyMzQ1Njc4OWFiY2RlZg=="
#define WS                                                                                     \
    "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n" \
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " WS_KEY "\r\n\r\n"

static void switch_protocols(struct fake *f, struct fake_conn *c)
{
    char answer[256];

    (void)snprintf(
        answer, sizeof(answer),
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n"
        "Sec-WebSocket-Accept: %s\r\n\r\nearly",
        f->wire);
    fake_send(c, answer);
}

BOTH(proxy, a_websocket_goes_through)
{
    struct world *w = world_new(kind);
    struct fake *f = fake_new(w, NULL);
    struct client *c = client_new(w);
    uint8_t accept[AG_WEBSOCKET_ACCEPT_LEN];
    char text[AG_WEBSOCKET_ACCEPT_LEN + 1];

    ag_websocket_accept(AG_SPAN(WS_KEY), accept);
    (void)snprintf(text, sizeof(text), "%.*s", (int)sizeof(accept), (char *)accept);
    f->wire = text;
    f->script = switch_protocols;
    (void)route_to_fake(w, f);
    ask(w, c, WS, "\r\n\r\nearly");
    cr_expect(in_head(f, "\r\nUpgrade: websocket\r\n"));
    cr_expect(in_head(f, "\r\nConnection: Upgrade\r\n"), "%s", f->head);
    cr_expect(client_has(c, "HTTP/1.1 101 "));
    cr_expect(client_has(c, "\r\nConnection: Upgrade\r\n"));
    client_send(c, "\x01\x02up");
    world_until(w, f->conns[0].len == 4);
    fake_send(&f->conns[0], "down");
    world_until(w, client_has(c, "earlydown"));
    cr_assert_eq(shutdown(c->fd, SHUT_WR), 0);
    world_until(w, f->conns[0].eof);
    fake_send(&f->conns[0], "last");
    fake_hang_up(&f->conns[0]);
    world_until(w, client_has(c, "downlast") && client_over(c));
    cr_expect(c->eof);
    world_free(w);
}

BOTH(proxy, a_false_accept_is_502)
{
    struct world *w = world_new(kind);
    struct fake *f = fake_new(w, "AAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    struct client *c = client_new(w);

    f->script = switch_protocols;
    (void)route_to_fake(w, f);
    ask(w, c, WS, "HTTP/1.1 502 ");
    world_until(w, upstreams_of(w)->conns.used == 0);
    world_free(w);
}

BOTH(proxy, a_silent_tunnel_ends)
{
    struct world *w = world_new(kind);
    struct fake *f = fake_new(w, "HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n");
    struct client *c = client_new(w);

    route_to_fake(w, f)->timeouts.idle_ms = 40;
    client_send(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: tcp\r\n\r\n");
    world_until(w, client_has(c, "HTTP/1.1 101 "));
    world_until(w, client_over(c));
    world_until(w, upstreams_of(w)->conns.used == 0);
    world_free(w);
}

BOTH(proxy, invalid_upgrades_are_plain_requests)
{
    struct world *w = world_new(kind);
    struct fake *f = fake_new(w, OK2);
    struct client *c = client_new(w);

    (void)route_to_fake(w, f);
    ask(w, c,
        "GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Key: short\r\n\r\n",
        "\r\n\r\nok");
    cr_expect_not(in_head(f, "Upgrade"));
    ask(w, c,
        "GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        "HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
        "\r\n\r\nok");
    cr_expect_not(in_head(f, "Upgrade"));
    cr_expect_not(in_head(f, "HTTP2"));
    cr_expect_eq(count_in(f->head, "Connection"), 0);
    world_free(w);
}

/* ---- clients that leave ---- */

static const char *const stages[] = {
    NULL,
    "HTTP/1.1 2",
    "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n123",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n123\r\n",
};

BOTH(proxy, a_client_that_leaves_ends_the_call)
{
    for (unsigned i = 0; i < AG_COUNT(stages); i++) {
        struct world *w = world_new(kind);
        struct fake *f = fake_new(w, stages[i]);
        struct client *c = client_new(w);

        (void)route_to_fake(w, f);
        client_send(c, "POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc");
        world_until(w, f->requests == 1);
        world_settle(w);
        client_close(c);
        world_until(w, upstreams_of(w)->conns.used == 0 && w->ctx.exchanges_live == 0);
        world_until(w, fake_open_count(f) == 0);
        world_free(w);
    }
}

/* While its connection is being made, or its name looked up. */
BOTH(proxy, a_client_that_leaves_before_the_connection)
{
    for (unsigned turns = 0; turns < 4; turns++) {
        struct world *w = world_new(kind);
        struct fake *f = fake_new(w, OK2);
        struct client *c = client_new(w);
        char authority[64];

        (void)snprintf(authority, sizeof(authority), "%s:%u", turns % 2 ? "127.0.0.1" : "localhost",
                       f->port);
        (void)route_to(w, authority);
        client_send(c, GET);
        for (unsigned i = 0; i < turns; i++) {
            ag_loop_turn(&w->loop, 1);
        }
        client_close(c);
        world_until(w, w->ctx.exchanges_live == 0);
        world_free(w);
    }
}

/* The shard ends while a call is on. */
BOTH(proxy, the_end_of_a_shard_closes_all)
{
    struct world *w = world_new(kind);
    struct fake *f = fake_new(w, NULL);
    struct client *c = client_new(w), *d = client_new(w);

    (void)route_to_fake(w, f);
    client_send(c, GET);
    world_until(w, f->requests == 1);
    f->wire = OK2;
    ask(w, d, GET, "\r\n\r\nok");
    ag_action_proxy.shard_close(&w->ctx, upstreams_of(w));
    world_until(w, fake_open_count(f) == 0);
    world_until(w, client_has(c, "HTTP/1.1 502 "));
    cr_assert_eq(ag_action_proxy.shard_open(&w->ctx, &w->ctx.action_state[AG_ACTION_PROXY]), AG_OK);
    world_free(w);
}
