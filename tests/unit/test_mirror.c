/*
 * Goal: copies of requests reach another upstream whole, and whatever becomes of them is no concern of the
 * client's; they are bounded; nothing is left.
 * Method: real server, real action, one upstream that answers and one that does what it likes, both backends.
 */
#include "actions/proxy/mirror.h"
#include "tests/unit/proxying.h"

#define OK2  "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
#define GET  "GET /p?q=1 HTTP/1.1\r\nHost: x\r\nX-A: 1\r\n\r\n"
#define POST "POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
#define OK   "\r\n\r\nok"

static struct ag_mirror_settings mirror;

static struct ag_proxy_settings *mirrored(struct world *w, const struct fake *f,
                                          const struct fake *shadow)
{
    struct ag_proxy_settings *s;

    mirror = (struct ag_mirror_settings){.upstream = route_to_fake(w, shadow)->upstream,
                                         .parts = AG_MIRROR_PARTS,
                                         .buffer_bytes = 65536};
    s = route_to_fake(w, f);
    s->mirror = &mirror;
    return s;
}

static struct ag_mirrors *mirrors_of(struct world *w)
{
    return upstreams_of(w)->mirrors;
}

static void silent(struct fake *f, struct fake_conn *c)
{
    (void)f;
    (void)c;
}

static void close_always(struct fake *f, struct fake_conn *c)
{
    (void)f;
    fake_hang_up(c);
}

BOTH(mirror, a_copy_as_the_upstream_sees_it)
{
    struct world *w = world_new(kind);
    struct fake *f = fake_new(w, OK2),
                *shadow = fake_new(w, "HTTP/1.1 500 X\r\nContent-Length: 2\r\n\r\nno");
    struct client *c = client_new(w);

    (void)mirrored(w, f, shadow);
    for (unsigned i = 0; i < 3; i++) {
        ask(w, c, GET, OK);
        world_until(w, shadow->requests == i + 1);
        cr_expect_str_eq(shadow->head, f->head);
        world_until(w, mirrors_of(w)->answered == i + 1);
    }
    cr_expect(strstr(shadow->head, "\r\nX-Forwarded-For: 127.0.0.1\r\n") != NULL);
    cr_expect(strncmp(shadow->head, "GET /p?q=1 HTTP/1.1\r\nHost: x\r\n", 30) == 0, "%s",
              shadow->head);
    cr_expect_eq(shadow->accepted, 1);
    cr_expect_eq(mirrors_of(w)->count, 0);
    world_free(w);
}

BOTH(mirror, content_is_copied_too)
{
    struct world *w = world_new(kind);
    struct fake *f = fake_new(w, NULL), *shadow = fake_new(w, NULL);
    struct client *c = client_new(w);

    f->script = shadow->script = silent;
    (void)mirrored(w, f, shadow);
    client_send(c, POST);
    world_until(w, f->conns[0].len == 5 && shadow->conns[0].len == 5);
    cr_expect(memcmp(shadow->conns[0].in, "hello", 5) == 0);
    cr_expect(strstr(shadow->head, "\r\nContent-Length: 5\r\n") != NULL);
    fake_send(&f->conns[0], OK2);
    world_until(w, client_has(c, OK)); /* whatever the copy does */
    f->conns[0].len = 0;
    c->len = 0;
    client_send(c, "POST /p HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n");
    world_until(w, f->requests == 2);
    world_settle(w);
    cr_expect_eq(shadow->accepted, 1, "not before it is whole");
    client_send(c, "2\r\nlo\r\n0\r\n\r\n");
    world_until(w, shadow->accepted == 2 && shadow->conns[1].len == 5);
    fake_send(&f->conns[0], OK2);
    world_until(w, client_has(c, OK));
    world_free(w);
}

BOTH(mirror, long_content_is_not)
{
    struct world *w = world_new(kind);
    struct fake *f = fake_new(w, NULL), *shadow = fake_new(w, NULL);
    struct client *c = client_new(w);

    f->script = silent;
    (void)mirrored(w, f, shadow);
    mirror.buffer_bytes = 4;
    for (unsigned i = 0; i < 2; i++) {
        f->conns[0].len = c->len = 0;
        client_send(c, i ? "POST /p HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                           "5\r\nhello\r\n0\r\n\r\n"
                         : POST);
        /* the empty line of the last chunk counts as a request */
        world_until(w, f->conns[0].len == 5 || f->requests == 3);
        fake_send(&f->conns[0], OK2);
        world_until(w, client_has(c, OK));
        cr_expect_eq(mirrors_of(w)->left_out, i + 1);
    }
    world_settle(w);
    cr_expect_eq(shadow->accepted, 0);
    world_free(w);
}

BOTH(mirror, long_content_is_not_though_retries_keep_it)
{
    struct world *w = world_new(kind);
    struct fake *f = fake_new(w, NULL), *shadow = fake_new(w, NULL);
    struct client *c = client_new(w);
    struct ag_proxy_settings *s = mirrored(w, f, shadow);

    f->script = shadow->script = silent;
    s->retry = (struct ag_retry_policy){.attempts = 2, .buffer_bytes = 65536};
    for (unsigned i = 0; i < 2; i++) {
        f->conns[0].len = c->len = 0;
        mirror.buffer_bytes = i ? 5 : 4;
        client_send(c, "PUT /p HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello");
        world_until(w, f->conns[0].len == 5);
        world_settle(w);
        fake_send(&f->conns[0], OK2);
        world_until(w, client_has(c, OK));
        cr_expect_eq(mirrors_of(w)->left_out, 1);
        cr_expect_eq(shadow->accepted, i);
    }
    world_free(w);
}

BOTH(mirror, its_failures_are_its_own)
{
    struct world *w = world_new(kind);
    struct fake *f = fake_new(w, OK2), *shadow = fake_new(w, NULL);
    struct client *c = client_new(w);

    (void)mirrored(w, f, shadow);
    shadow->script = close_always;
    ask(w, c, GET, OK);
    world_until(w, mirrors_of(w)->failed == 1);
    fake_close(shadow);
    ask(w, c, GET, OK);
    world_until(w, mirrors_of(w)->failed == 2);
    cr_expect(client_has(c, "HTTP/1.1 200 OK"));
    world_free(w);
}

BOTH(mirror, so_many_at_once)
{
    struct world *w = world_new(kind);
    struct fake *f = fake_new(w, OK2), *shadow = fake_new(w, NULL);
    struct client *c = client_new(w);

    (void)mirrored(w, f, shadow);
    shadow->script = silent;
    ((struct ag_upstream_options *)(uintptr_t)&mirror.upstream->options)->max_connections = 8;
    for (unsigned i = 0; i < AG_MIRRORS_MAX + 3; i++) {
        ask(w, c, GET, OK);
    }
    cr_expect_eq(mirrors_of(w)->count, AG_MIRRORS_MAX);
    cr_expect_eq(mirrors_of(w)->left_out, 3);
    world_free(w);
}

BOTH(mirror, none_when_buffers_run_short)
{
    struct world *w = world_new(kind);
    struct fake *f = fake_new(w, OK2), *shadow = fake_new(w, OK2);
    struct client *c = client_new(w);

    (void)mirrored(w, f, shadow);
    ask(w, c, GET, OK); /* and the connections are there */
    world_until(w, mirrors_of(w)->answered == 1);
    for (unsigned i = 0; i < 20; i++) {
        static const struct ag_request none;
        const struct ag_mirror_request r = {.req = &none};

        w->loop.tight = true;
        ag_mirror_send(mirrors_of(w), &mirror, &r);
    }
    w->loop.tight = false;
    cr_expect_eq(mirrors_of(w)->left_out, 20);
    cr_expect_eq(mirrors_of(w)->begun, 1);
    world_free(w);
}

BOTH(mirror, a_share_of_all_requests)
{
    struct world *w = world_new(kind);
    struct ag_mirror_settings s = {.parts = AG_MIRROR_PARTS / 10};
    unsigned n = 0;

    for (unsigned i = 0; i < 100000; i++) {
        n += ag_mirror_wants(mirrors_of(w), &s);
    }
    cr_expect_gt(n, 9000);
    cr_expect_lt(n, 11000);
    s.parts = AG_MIRROR_PARTS;
    for (unsigned i = 0; i < 1000; i++) {
        cr_assert(ag_mirror_wants(mirrors_of(w), &s));
    }
    world_free(w);
}

BOTH(mirror, a_shard_ends_with_copies_under_way)
{
    struct world *w = world_new(kind);
    struct fake *f = fake_new(w, OK2), *shadow = fake_new(w, NULL);
    struct client *c = client_new(w);

    (void)mirrored(w, f, shadow);
    shadow->script = silent;
    ask(w, c, GET, OK);
    world_until(w, shadow->requests == 1);
    cr_expect_eq(mirrors_of(w)->count, 1);
    world_free(w);
}

BOTH(mirror, an_endless_answer_is_given_up)
{
    static char piece[16001];
    struct world *w = world_new(kind);
    struct fake *f = fake_new(w, OK2), *shadow = fake_new(w, "HTTP/1.1 200 OK\r\n\r\n");
    struct client *c = client_new(w);
    unsigned n = 0;

    memset(piece, 'x', sizeof(piece) - 1);
    (void)mirrored(w, f, shadow);
    ask(w, c, GET, OK);
    world_until(w, shadow->requests == 1);
    while (mirrors_of(w)->count > 0 && n < 200) {
        (void)!write(shadow->conns[0].fd, piece, sizeof(piece) - 1);
        world_turn(w);
        n++;
    }
    cr_expect_lt(n, 200);
    world_free(w);
}
