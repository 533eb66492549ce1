/*
 * Goal: what the simulation has found stays mended (tests/sim).
 * Method: real sockets, a scripted upstream; each test is the shortest way to one mistake.
 */
#include "tests/unit/proxying.h"

#define SWITCH "HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"

/* The upstream has ended its part of a tunnel, and is then reset while the client still sends: nothing
 * but that reset could tell the client. */
BOTH(proxy_found, a_half_closed_tunnel_ends_with_its_upstream)
{
    const struct linger reset = {.l_onoff = 1};
    struct world *w = world_new(kind);
    struct fake *f = fake_new(w, SWITCH);
    struct client *c = client_new(w);

    route_to_fake(w, f)->timeouts.idle_ms = 600000;
    client_send(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: tcp\r\n\r\n");
    world_until(w, client_has(c, "HTTP/1.1 101 "));
    cr_assert_eq(shutdown(f->conns[0].fd, SHUT_WR), 0);
    world_until(w, client_over(c));
    cr_expect(c->eof && !c->reset);
    cr_assert_eq(setsockopt(f->conns[0].fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)), 0);
    fake_hang_up(&f->conns[0]);
    world_settle(w);
    cr_assert(write(c->fd, "more", 4) >= 0 || errno == EPIPE || errno == ECONNRESET);
    world_until(w, !w->downs[0].open);
    world_free(w);
}

/* Pipelined input has paused reading; when its turn comes, the rest of the trailers is still missing. */
BOTH(proxy_found, trailers_in_part_are_read_on)
{
    struct world *w = world_new(kind);
    struct fake *f = fake_new(w, NULL);
    struct client *c = client_new(w);

    (void)route_to_fake(w, f);
    client_send(c, "GET /first HTTP/1.1\r\nHost: x\r\n\r\n");
    world_until(w, f->requests == 1);
    client_send(c, "POST /second HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    /* A slice short of the bound, so that it is the trailers' beginning that pauses. */
    for (unsigned i = 0; i < 40 && w->downs[0].h.in.count < 16; i++) {
        client_send(c, "1\r\nx\r\n");
        world_settle(w);
    }
    client_send(c, "0\r\n\r");
    world_settle(w);
    cr_assert(w->downs[0].h.paused);
    fake_send(&f->conns[0], "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    world_until(w, f->requests == 2);
    world_settle(w);
    f->wire = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    client_send(c, "\n"); /* the fake takes the content's end for that of a head */
    world_until(w, client_has(c, "\r\n\r\nok"));
    world_free(w);
}

/* Most of the content went to the upstream before it answered: only the rest is dropped. */
BOTH(proxy_found, what_was_used_is_not_dropped)
{
    static char bytes[30001];
    struct world *w = world_new(kind);
    struct fake *f = fake_new(w, NULL);
    struct client *c = client_new(w);

    memset(bytes, 'x', sizeof(bytes) - 1);
    (void)route_to_fake(w, f);
    client_send(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 90000\r\n\r\n");
    for (unsigned i = 1; i <= 2; i++) {
        client_send(c, bytes);
        for (size_t got = 0; got < sizeof(bytes) - 1;) {
            world_turn(w);
            got += f->conns[0].len;
            f->conns[0].len = 0;
        }
    }
    fake_send(&f->conns[0], "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly");
    world_until(w, client_has(c, "\r\n\r\nearly"));
    cr_expect_not(client_has(c, "Connection: close"));
    f->wire = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    client_send(c, bytes + 10000);
    world_settle(w);
    client_send(c, bytes + 20000);
    client_send(c, "GET /next HTTP/1.1\r\nHost: x\r\n\r\n");
    world_until(w, client_over(c) || client_has(c, "\r\n\r\nok"));
    cr_expect_not(client_over(c));
    world_free(w);
}

/* "size CRLF bytes CRLF"; read by the server at once, unless it is longer than a buffer. */
static void send_chunk(struct world *w, struct fake *f, unsigned size)
{
    char chunk[8192];
    int n = snprintf(chunk, sizeof(chunk), "%x\r\n%0*d\r\n", size, (int)size, 0);

    cr_assert_eq(write(f->conns[0].fd, chunk, (size_t)n), n);
    world_turn(w);
    world_turn(w);
}

/* Returns false where the kernel took more of the answer after all, so that nothing was shown. */
static bool input_waits(enum ag_backend_kind kind)
{
    struct world *w = world_new(kind);
    struct fake *f = fake_new(w, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    struct client *c = client_new(w);
    struct ag_h1_server *h = &w->downs[0].h;
    const int bytes = 16384;
    bool shown;

    (void)route_to_fake(w, f);
    client_send(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    world_until(w, f->requests == 1);
    /* Or the kernel's buffers grow with time, and take what is to stay. */
    cr_assert_eq(setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes)), 0);
    cr_assert_eq(setsockopt(w->downs[0].conn.fd.fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes)),
                 0);
    do { /* until the sockets take no more, though they are given time */
        while (!ag_stream_full(h->stream)) {
            send_chunk(w, f, ag_stream_queued(h->stream) < AG_STREAM_LOW ? 8000 : 500);
        }
        world_settle(w);
    } while (!ag_stream_full(h->stream));
    fake_send(&f->conns[0], "0\r\n\r\n");
    world_until(w, h->state == AG_H1_IDLE);
    /* The kernel may bring several at once, so it is not told how many pieces they come in. */
    for (unsigned i = 0; i < 5000 && h->state == AG_H1_IDLE && !h->paused; i++) {
        client_send(c, "GET / HTTP/1.1\r\n");
        world_turn(w);
    }
    world_settle(w);
    shown = h->state == AG_H1_IDLE && ag_stream_full(h->stream);
    if (shown) {
        cr_expect_leq(h->in.count, 20);
        cr_expect(h->paused);
    }
    world_free(w);
    return shown;
}

/* The answer waits for a client that reads nothing: what it pipelines meanwhile must not pile up. */
BOTH(proxy_found, input_waits_behind_answers_that_do_not_leave)
{
    unsigned tries = 1;

    while (!input_waits(kind)) {
        cr_assert_lt(tries++, 10u);
    }
}
