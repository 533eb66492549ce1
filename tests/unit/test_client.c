/*
 * Goal: requests of the server's own get their answer whole, or a reason, once; nothing is left of them.
 * Method: real sockets, scripted upstreams of both versions. Over TLS: tests/integration/test_health.py, whose checks
 * are such requests.
 */
#include "actions/upstream/client.h"
#include "tests/unit/h2_fake.h"

struct asked {
    struct ag_client_request r; /* first */
    unsigned done;
    unsigned status;
    char answer[256];
    char type[64];
    const char *detail;
};

static void on_done(struct ag_client_request *r)
{
    struct asked *a = (struct asked *)r;
    const struct ag_field *type = ag_fields_find(r->fields, AG_FIELD_CONTENT_TYPE, NULL);

    a->done++;
    a->status = r->status;
    a->detail = r->detail;
    (void)snprintf(a->answer, sizeof(a->answer), "%.*s", (int)ag_min_size(r->answer.len, 200),
                   (const char *)r->answer.ptr);
    if (type) {
        (void)snprintf(a->type, sizeof(a->type), "%.*s", (int)type->value_len,
                       (const char *)type->value);
    }
}

static struct ag_arena arena;

static void question(struct world *w, uint16_t port, struct asked *a)
{
    char url[64];

    ag_arena_init(&arena, NULL, 0);
    (void)snprintf(url, sizeof(url), "http://127.0.0.1:%u/ocsp?x", port);
    *a = (struct asked){
        .r = {.target = ag_client_target_new(&arena, ag_arena_copy(&arena, ag_span_str(url)), 2000),
              .method = AG_METHOD_POST,
              .content_type = AG_SPAN("application/ocsp-request"),
              .content = AG_SPAN("question"),
              .done = on_done}};
    cr_assert(a->r.target);
    cr_assert(ag_client_ops.request(ag_client_of(&w->ctx), &a->r));
    cr_expect_eq(a->done, 0, "never from within");
}

static void end(struct world *w)
{
    world_free(w);
    ag_arena_release(&arena);
}

BOTH(client, an_answer_comes_whole)
{
    struct world *w = world_new(kind);
    struct fake *f =
        fake_new(w, "HTTP/1.1 200 OK\r\nContent-Type: application/ocsp-response\r\n"
                    "Transfer-Encoding: chunked\r\n\r\n3\r\nans\r\n3\r\nwer\r\n0\r\n\r\n");
    struct asked a;

    question(w, f->port, &a);
    world_until(w, a.done > 0);
    cr_expect_eq(a.done, 1);
    cr_expect_eq(a.status, 200);
    cr_expect_str_eq(a.answer, "answer");
    cr_expect_str_eq(a.type, "application/ocsp-response");
    cr_expect(strstr(f->head, "POST /ocsp?x HTTP/1.1\r\n") == f->head, "%s", f->head);
    cr_expect(strstr(f->head, "Content-Length: 8\r\n"));
    cr_expect(strstr(f->head, "Content-Type: application/ocsp-request\r\n"));
    cr_expect(strstr(f->head, "Host: 127.0.0.1:"));
    end(w);
}

BOTH(client, an_answer_without_content_is_one)
{
    struct world *w = world_new(kind);
    struct fake *f = fake_new(w, "HTTP/1.1 204 No Content\r\n\r\n");
    struct asked a;

    question(w, f->port, &a);
    world_until(w, a.done > 0);
    cr_expect_eq(a.status, 204);
    cr_expect_str_eq(a.answer, "");
    end(w);
}

static void cut(struct fake *f, struct fake_conn *c)
{
    (void)f;
    fake_send(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\npart");
    fake_hang_up(c);
}

BOTH(client, a_part_is_no_answer)
{
    struct world *w = world_new(kind);
    struct fake *f = fake_new(w, NULL);
    struct asked a;

    f->script = cut;
    question(w, f->port, &a);
    world_until(w, a.done > 0);
    world_settle(w);
    cr_expect_eq(a.done, 1);
    cr_expect_eq(a.status, 0);
    cr_expect(a.detail);
    end(w);
}

BOTH(client, too_large_an_answer_is_none)
{
    struct world *w = world_new(kind);
    struct fake *f = fake_new(w, NULL);
    struct asked a;
    char head[128], part[4096];

    question(w, f->port, &a);
    world_until(w, f->requests == 1);
    (void)snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nContent-Length: %u\r\n\r\n",
                   AG_CLIENT_ANSWER_MAX + 1);
    fake_send(&f->conns[0], head);
    memset(part, 'x', sizeof(part) - 1);
    part[sizeof(part) - 1] = 0;
    for (unsigned sent = 0; a.done == 0 && sent <= AG_CLIENT_ANSWER_MAX; sent += sizeof(part) - 1) {
        fake_send(&f->conns[0], part);
        world_settle(w);
    }
    world_until(w, a.done > 0);
    cr_expect_eq(a.status, 0);
    cr_expect_eq(a.r.reason, AG_REASON_LIMIT);
    end(w);
}

BOTH(client, nobody_there_is_a_reason)
{
    struct world *w = world_new(kind);
    struct fake *f = fake_new(w, NULL);
    uint16_t port = f->port;
    struct asked a;

    fake_close(f);
    question(w, port, &a);
    world_until(w, a.done > 0);
    cr_expect_eq(a.status, 0);
    cr_expect_eq(a.r.reason, AG_REASON_REFUSED);
    end(w);
}

BOTH(client, what_is_cancelled_is_never_done)
{
    struct world *w = world_new(kind);
    struct fake *f = fake_new(w, NULL);
    struct asked a;

    question(w, f->port, &a);
    world_until(w, f->requests == 1);
    ag_client_ops.cancel(&a.r);
    ag_client_ops.cancel(&a.r);
    world_settle(w);
    cr_expect_eq(a.done, 0);
    end(w);
}

Test(client, urls)
{
    static const char *const bad[] = {"https://x/",
                                      "ftp://x/",
                                      "http://",
                                      "http://a,b/",
                                      "http://me@x/",
                                      "http://a b/",
                                      "x",
                                      "",
                                      "http://x/a b",
                                      "http://x/\r\nX: 1",
                                      "http://x/?\n",
                                      "http://x/\xe4",
                                      "http://x/#a",
                                      "http://x/\x7f",
                                      "http://x/\\",
                                      "http://x/\t"};

    ag_arena_init(&arena, NULL, 0);
    for (size_t i = 0; i < AG_COUNT(bad); i++) {
        cr_expect_not(ag_client_target_new(&arena, ag_span_str(bad[i]), 1), "%s", bad[i]);
    }
    cr_expect(ag_client_target_new(&arena, AG_SPAN("HTTP://ocsp.example"), 1));
    cr_expect(ag_client_target_new(&arena, AG_SPAN("http://[::1]:8080/a"), 1));
    cr_expect(ag_client_target_new(&arena, AG_SPAN("http://x/-._~!$&'()*+,;=:@/%20?a=b?/"), 1));
    ag_arena_release(&arena);
}

/* What checks ask: fields and a Host of their own, and of a long answer only the beginning. */
BOTH(client, a_long_answer_is_clipped_where_that_is_enough)
{
    static const struct ag_client_header headers[] = {{AG_SPAN_INIT("X-A"), AG_SPAN_INIT("b")}};
    static char wire[100000];
    struct world *w = world_new(kind);
    struct fake *f = fake_new(w, wire);
    struct asked a;
    int n = snprintf(wire, sizeof(wire), "HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\n");

    memset(wire + n, 'x', 90000);
    question(w, f->port, &a);
    world_until(w, a.done > 0);
    cr_expect_eq(a.status, 0, "it is too large");
    cr_expect_eq(a.r.reason, AG_REASON_LIMIT);
    a.r.clip = true;
    a.r.headers = headers;
    a.r.header_count = 1;
    a.r.host = AG_SPAN("other.example");
    cr_assert(ag_client_ops.request(ag_client_of(&w->ctx), &a.r));
    world_until(w, a.done > 1);
    cr_expect_eq(a.status, 200);
    cr_expect_eq(a.answer[0], 'x');
    cr_expect(strstr(f->head, "\r\nHost: other.example\r\n"), "%s", f->head);
    cr_expect(strstr(f->head, "\r\nX-A: b\r\n"));
    end(w);
}

BOTH(client, an_upstream_that_keeps_silent_is_given_up)
{
    struct world *w = world_new(kind);
    struct fake *f = fake_new(w, NULL);
    struct ag_client_target target;
    struct asked a;

    question(w, f->port, &a);
    world_until(w, f->requests == 1);
    ag_client_ops.cancel(&a.r);
    target = *a.r.target;
    target.timeouts.total_ms = 50;
    a.r.target = &target;
    cr_assert(ag_client_ops.request(ag_client_of(&w->ctx), &a.r));
    world_until(w, a.done > 0);
    world_settle(w);
    cr_expect_eq(a.done, 1);
    cr_expect_eq(a.status, 0);
    cr_expect_eq(a.r.reason, AG_REASON_TIMEOUT);
    end(w);
}

/* ---- HTTP/2 ---- */

static void question_h2(struct world *w, struct h2_fake *f, struct asked *a, uint32_t total_ms)
{
    const struct ag_proxy_settings *s = route_to_h2(w, f);

    ag_arena_init(&arena, NULL, 0);
    *a = (struct asked){
        .r = {.target = ag_client_target_of(&arena, s->upstream, AG_SPAN("/ocsp?x"), total_ms),
              .method = AG_METHOD_POST,
              .content_type = AG_SPAN("application/ocsp-request"),
              .content = AG_SPAN("question"),
              .done = on_done}};
    cr_assert(a->r.target);
    cr_assert(ag_client_ops.request(ag_client_of(&w->ctx), &a->r));
}

static void end_h2(struct world *w, struct h2_fake *f)
{
    h2_world_free(w, f);
    ag_arena_release(&arena);
}

static void answer_in_parts(struct h2_fake_conn *c, uint32_t id, const struct ag_request *req)
{
    (void)req;
    h2_send_fields(c, id, ":status: 200\ncontent-type: application/ocsp-response\n", false);
    h2_send_data(c, id, "ans", false);
    h2_send_data(c, id, "wer", true);
}

BOTH(client, an_answer_of_http2_comes_whole)
{
    struct world *w = world_new(kind);
    struct h2_fake *f = h2_fake_new();
    struct asked a;

    f->script = answer_in_parts;
    question_h2(w, f, &a, 2000);
    h2_until(w, f, a.done > 0);
    cr_expect_eq(a.done, 1);
    cr_expect_eq(a.status, 200);
    cr_expect_str_eq(a.answer, "answer");
    cr_expect_str_eq(a.type, "application/ocsp-response");
    cr_expect(strncmp(f->head, "POST /ocsp?x \n", 14) == 0, "%s", f->head);
    end_h2(w, f);
}

static void begin_answer(struct h2_fake_conn *c, uint32_t id, const struct ag_request *req)
{
    (void)req;
    h2_send_fields(c, id, ":status: 200\n", false);
}

/* Within the windows that the client opens. */
BOTH(client, too_large_an_answer_of_http2_is_none)
{
    struct world *w = world_new(kind);
    struct h2_fake *f = h2_fake_new();
    struct asked a;
    char part[4096];

    f->script = begin_answer;
    question_h2(w, f, &a, 2000);
    h2_until(w, f, f->requests == 1);
    memset(part, 'x', sizeof(part) - 1);
    part[sizeof(part) - 1] = 0;
    for (unsigned sent = 0; a.done == 0 && sent <= AG_CLIENT_ANSWER_MAX; sent += sizeof(part) - 1) {
        h2_send_data(&f->conns[0], 1, part, false);
        h2_settle(w, f);
    }
    h2_until(w, f, a.done > 0);
    cr_expect_eq(a.status, 0);
    cr_expect_eq(a.r.reason, AG_REASON_LIMIT);
    end_h2(w, f);
}

static void keep_silent(struct h2_fake_conn *c, uint32_t id, const struct ag_request *req)
{
    (void)c;
    (void)id;
    (void)req;
}

BOTH(client, a_stream_that_keeps_silent_is_given_up)
{
    struct world *w = world_new(kind);
    struct h2_fake *f = h2_fake_new();
    struct asked a;

    f->script = keep_silent;
    question_h2(w, f, &a, 50);
    h2_until(w, f, a.done > 0);
    h2_settle(w, f);
    cr_expect_eq(a.done, 1);
    cr_expect_eq(a.status, 0);
    cr_expect_eq(a.r.reason, AG_REASON_TIMEOUT);
    end_h2(w, f);
}
