/*
 * Goal: one answer for one byte stream, however it is split; violations end the call and never look
 * like a clean end; memory stays bounded; nothing is left behind at whatever point a call ends.
 * Method: a client on one end of a TCP pair, the test on the other, on both backends.
 */
#include "engine/bulk.h"
#include "engine/conn.h"
#include "proto/h1_client.h"
#include "tests/unit/loops.h"

#include <errno.h>
#include <stdio.h>

struct rig {
    struct fixture *f;
    struct ag_conn conn;
    struct ag_h1_client c;
    struct ag_call call;
    struct ag_body req_body, res_body;
    struct ag_arena keep;
    int fd; /* the upstream's end; -1: closed */
    bool closed;
    enum ag_reason closed_why;
    /* what the calls brought */
    unsigned heads, interims, dones, faileds;
    unsigned status, interim_status;
    bool reusable, accept;
    enum ag_reason why;
    char seen[64]; /* value of the answer's X field */
    char detail[128];
    /* what the reader took */
    bool hold; /* it takes nothing */
    uint8_t body[512 * 1024];
    size_t body_len;
    uint64_t taken;
    bool body_ended, body_aborted;
    /* what the upstream got */
    uint8_t got[512 * 1024];
    size_t got_len;
    bool got_eof, got_reset;
};

static struct rig *rig_of(struct ag_stream *s)
{
    return ag_container_of(ag_conn_of(s), struct rig, conn);
}

static void on_data(struct ag_stream *s, struct ag_slice slice)
{
    ag_h1_client_data(&rig_of(s)->c, slice);
}

static void on_eof(struct ag_stream *s)
{
    ag_h1_client_eof(&rig_of(s)->c);
}

static void on_drain(struct ag_stream *s)
{
    ag_h1_client_drained(&rig_of(s)->c);
}

static void on_deadline(struct ag_stream *s)
{
    (void)s;
}

static void on_close(struct ag_stream *s, enum ag_reason why)
{
    struct rig *r = rig_of(s);

    ag_h1_client_closed(&r->c, why);
    r->closed = true;
    r->closed_why = why;
}

static const struct ag_stream_user user = {.on_data = on_data,
                                           .on_eof = on_eof,
                                           .on_drain = on_drain,
                                           .on_deadline = on_deadline,
                                           .on_close = on_close};

static void on_interim(struct ag_call *call, const struct ag_response *res)
{
    struct rig *r = ag_container_of(call, struct rig, call);

    r->interims++;
    r->interim_status = res->status;
}

static void on_head(struct ag_call *call, const struct ag_response *res)
{
    struct rig *r = ag_container_of(call, struct rig, call);
    struct ag_field *x = ag_fields_find_name(&res->fields, AG_SPAN("x"), NULL);

    r->heads++;
    r->status = res->status;
    if (x) {
        (void)snprintf(r->seen, sizeof(r->seen), "%.*s", (int)x->value_len, (const char *)x->value);
    }
    if (res->status == 101 && r->accept) {
        call->ops->accept_tunnel(call);
    }
}

static void on_done(struct ag_call *call)
{
    struct rig *r = ag_container_of(call, struct rig, call);

    r->dones++;
    r->reusable = r->c.state == AG_H1_CLIENT_READY;
}

static void on_failed(struct ag_call *call, enum ag_reason why, const char *detail)
{
    struct rig *r = ag_container_of(call, struct rig, call);

    r->faileds++;
    r->why = why;
    (void)snprintf(r->detail, sizeof(r->detail), "%s", detail);
}

static const struct ag_call_events events = {
    .interim = on_interim, .head = on_head, .done = on_done, .failed = on_failed};

static void take_body(struct ag_body *b, void *owner)
{
    struct rig *r = owner;

    while (!r->hold && b->q.bytes > 0) {
        struct ag_slice s = ag_body_take(b);
        if (r->body_len + s.len <= sizeof(r->body)) {
            memcpy(r->body + r->body_len, s.ptr, s.len);
            r->body_len += s.len;
        }
        r->taken += s.len;
        ag_slice_release(&s);
    }
    r->body_ended = ag_body_at_end(b);
    r->body_aborted = b->aborted && b->q.bytes == 0;
}

static struct rig *rig_new(enum ag_backend_kind kind)
{
    struct rig *r = calloc(1, sizeof(*r));
    int pair[2];

    cr_assert(r);
    r->f = fixture_new(kind, 256, 32);
    make_tcp_pair(pair);
    r->fd = pair[0];
    ag_conn_accept(&r->conn, &r->f->loop, pair[1], &user);
    ag_h1_client_init(&r->c, &r->conn.stream);
    ag_arena_init(&r->keep, &r->f->loop.pages, 4);
    ag_body_init(&r->req_body, &r->f->loop);
    ag_body_init(&r->res_body, &r->f->loop);
    return r;
}

/* Ready for another call. */
static void rig_again(struct rig *r)
{
    ag_body_deinit(&r->req_body);
    ag_body_deinit(&r->res_body);
    ag_body_init(&r->req_body, &r->f->loop);
    ag_body_init(&r->res_body, &r->f->loop);
    r->body_len = 0;
    r->taken = 0;
    r->body_ended = r->body_aborted = false;
    r->heads = r->dones = r->faileds = r->interims = 0;
    r->seen[0] = 0;
}

static void cancel(struct rig *r)
{
    if (r->call.ops) {
        r->call.ops->cancel(&r->call);
    }
}

static void rig_free(struct rig *r)
{
    cancel(r);
    if (!r->closed) {
        ag_stream_abort(&r->conn.stream, AG_REASON_ABORTED);
    }
    turn_until(&r->f->loop, r->closed);
    ag_body_deinit(&r->req_body);
    ag_body_deinit(&r->res_body);
    ag_arena_release(&r->keep);
    if (r->fd >= 0) {
        (void)close(r->fd);
    }
    cr_expect_eq(r->f->loop.pages.used, 0);
    fixture_free(r->f);
    free(r);
}

static void start(struct rig *r, enum ag_method method, enum ag_framing framing, uint64_t length,
                  bool upgrade)
{
    const struct ag_request req = {.method_name = ag_method_name(method),
                                   .method = (uint8_t)method,
                                   .framing = (uint8_t)framing,
                                   .content_length = length,
                                   .version = AG_HTTP_11};
    const struct ag_h1_request_opts opts = {
        .target = AG_SPAN("/t?q"), .host = AG_SPAN("example"), .upgrade = upgrade};

    r->call =
        (struct ag_call){.events = &events,
                         .req = &req,
                         .opts = &opts,
                         .req_body = framing == AG_FRAMING_NONE && !upgrade ? NULL : &r->req_body,
                         .res_body = &r->res_body,
                         .keep = &r->keep};
    ag_body_set_consumer(&r->res_body, take_body, r);
    cr_assert_eq(ag_h1_client_start(&r->c, &r->call), AG_OK);
}

static bool over(const struct rig *r)
{
    return r->dones + r->faileds > 0;
}

/* The upstream's side. */
static void pull(struct rig *r)
{
    while (r->fd >= 0 && !r->got_eof && !r->got_reset) {
        ssize_t n = read(r->fd, r->got + r->got_len, sizeof(r->got) - r->got_len);
        if (n > 0) {
            r->got_len += (size_t)n;
        } else if (n == 0) {
            r->got_eof = sizeof(r->got) > r->got_len;
            return;
        } else {
            r->got_reset = errno == ECONNRESET;
            return;
        }
    }
}

static bool got(struct rig *r, const char *text)
{
    pull(r);
    return memmem(r->got, r->got_len, text, strlen(text)) != NULL;
}

/* A request without content that has arrived. */
static void get(struct rig *r)
{
    r->got_len = 0;
    start(r, AG_METHOD_GET, AG_FRAMING_NONE, 0, false);
    turn_until(&r->f->loop, got(r, "\r\n\r\n"));
}

static void push(struct rig *r, const void *bytes, size_t len)
{
    size_t at = 0;

    while (at < len) {
        ssize_t n = write(r->fd, (const uint8_t *)bytes + at, len - at);
        if (n > 0) {
            at += (size_t)n;
        }
        ag_loop_turn(&r->f->loop, 0);
    }
}

static void push_text(struct rig *r, const char *text)
{
    push(r, text, strlen(text));
}

static void upstream_closes(struct rig *r)
{
    (void)close(r->fd);
    r->fd = -1;
}

static void settle(struct rig *r)
{
    for (unsigned i = 0; i < 20; i++) {
        ag_loop_turn(&r->f->loop, 1);
    }
}

/* ---- answers ---- */

struct answer {
    const char *wire, *body, *x;
    unsigned status;
    bool reusable;
};

static const struct answer answers[] = {
    {"HTTP/1.1 200 OK\r\nX: 1\r\nContent-Length: 5\r\n\r\nhello", "hello", "1", 200, true},
    {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "", "", 200, true},
    {"HTTP/1.1 204 No Content\r\nX: y\r\n\r\n", "", "y", 204, true},
    {"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", "", "", 304, true},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;e=f\r\n!\r\n0\r\n\r\n",
     "hello!", "", 200, true},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 7\r\n\r\n", "hi",
     "", 200, true},
    {"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi", "hi", "", 200, false},
    {"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", "hi", "", 200, false},
    {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
     "HTTP/1.1 201 Created\r\nX: z\r\nContent-Length: 1\r\n\r\n.",
     ".", "z", 201, true},
    {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi+", "hi", "", 200, false},
};

static void check_answer(struct rig *r, const struct answer *a, size_t step)
{
    size_t len = strlen(a->wire);

    rig_again(r);
    get(r);
    for (size_t at = 0; at < len && !over(r); at += step) {
        push(r, a->wire + at, ag_min_size(step, len - at));
        ag_loop_turn(&r->f->loop, step < 4 ? 1 : 0);
    }
    turn_until(&r->f->loop, over(r) && r->body_ended);
    cr_assert_eq(r->dones, 1, "%s at %zu: %s", a->wire, step, r->detail);
    cr_expect_eq(r->heads, 1);
    cr_expect_eq(r->status, a->status);
    cr_expect_str_eq(r->seen, a->x);
    cr_expect_eq(r->body_len, strlen(a->body));
    cr_expect_eq(memcmp(r->body, a->body, r->body_len), 0, "%s at %zu", a->wire, step);
}

BOTH(h1_client, answers_in_every_split)
{
    for (size_t i = 0; i < AG_COUNT(answers); i++) {
        struct rig *r = rig_new(kind);
        size_t len = strlen(answers[i].wire);

        for (size_t step = len; step >= 1; step = step > 9 ? step - 7 : step - 1) {
            check_answer(r, &answers[i], step);
            if (!r->reusable) {
                break; /* a new stream for each would only repeat this */
            }
        }
        /* In pieces, what is beyond an answer comes after it. */
        cr_expect_eq(r->reusable, answers[i].reusable, "%s", answers[i].wire);
        cr_expect_eq(r->c.state == AG_H1_CLIENT_READY, answers[i].reusable);
        rig_free(r);
    }
}

BOTH(h1_client, interims_are_told)
{
    struct rig *r = rig_new(kind);

    get(r);
    push_text(r, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
    turn_until(&r->f->loop, r->interims == 1);
    cr_expect_eq(r->interim_status, 103);
    cr_expect_eq(r->heads, 0);
    push_text(r, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    turn_until(&r->f->loop, over(r));
    cr_expect(r->reusable);
    rig_free(r);
}

BOTH(h1_client, trailers_are_kept)
{
    struct rig *r = rig_new(kind);
    const struct ag_field *f;

    get(r);
    push_text(r, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Su");
    settle(r);
    push_text(r, "m: 7\r\nHost: evil\r\n\r\n");
    turn_until(&r->f->loop, over(r));
    cr_assert(r->res_body.trailers);
    f = ag_fields_find_name(r->res_body.trailers, AG_SPAN("x-sum"), NULL);
    cr_assert(f);
    cr_expect(ag_span_eq(ag_field_value(f), AG_SPAN("7")));
    cr_expect_null(ag_fields_find(r->res_body.trailers, AG_FIELD_HOST, NULL));
    rig_free(r);
}

BOTH(h1_client, head_has_no_content)
{
    struct rig *r = rig_new(kind);

    start(r, AG_METHOD_HEAD, AG_FRAMING_NONE, 0, false);
    turn_until(&r->f->loop, got(r, "\r\n\r\n"));
    push_text(r, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
    turn_until(&r->f->loop, over(r) && r->body_ended);
    cr_expect(r->reusable);
    cr_expect_eq(r->body_len, 0);
    rig_free(r);
}

BOTH(h1_client, a_close_ends_what_has_no_length)
{
    struct rig *r = rig_new(kind);

    get(r);
    push_text(r, "HTTP/1.1 200 OK\r\n\r\nall ");
    settle(r);
    cr_expect_not(over(r));
    push_text(r, "of it");
    upstream_closes(r);
    turn_until(&r->f->loop, over(r) && r->body_ended);
    cr_expect_eq(r->dones, 1);
    cr_expect_not(r->reusable);
    cr_expect_eq(r->body_len, 9);
    rig_free(r);
}

/* ---- violations ---- */

static const char *const lies[] = {
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi!",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
    "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "HTTP/2 200\r\n\r\n",
    "SSH-2.0-OpenSSH\r\n",
    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    "HTTP/1.1 200 OK\r\nX : 1\r\n\r\n",
};

BOTH(h1_client, malformed_heads_fail)
{
    for (size_t i = 0; i < AG_COUNT(lies); i++) {
        struct rig *r = rig_new(kind);

        get(r);
        push_text(r, lies[i]);
        turn_until(&r->f->loop, over(r));
        cr_assert_eq(r->faileds, 1, "%s", lies[i]);
        cr_expect_eq(r->why, AG_REASON_PROTOCOL, "%s", lies[i]);
        cr_expect_eq(r->heads, 0);
        cr_expect(r->call.received && r->call.sent);
        cr_expect_neq(r->detail[0], 0);
        turn_until(&r->f->loop, r->closed);
        rig_free(r);
    }
}

static const char *const cuts[] = {
    "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n123",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n0\r\nX: 1\r\n",
};

BOTH(h1_client, cut_answers_are_aborted)
{
    for (size_t i = 0; i < AG_COUNT(cuts); i++) {
        struct rig *r = rig_new(kind);

        get(r);
        push_text(r, cuts[i]);
        turn_until(&r->f->loop, r->heads == 1);
        upstream_closes(r);
        turn_until(&r->f->loop, over(r) && r->body_aborted);
        cr_expect_eq(r->faileds, 1);
        cr_expect_not(r->body_ended);
        rig_free(r);
    }
}

BOTH(h1_client, bad_chunks_abort)
{
    struct rig *r = rig_new(kind);

    get(r);
    push_text(r, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n123456\r\n0\r\n\r\n");
    turn_until(&r->f->loop, over(r) && r->body_aborted);
    cr_expect_eq(r->why, AG_REASON_PROTOCOL);
    rig_free(r);
}

BOTH(h1_client, closing_without_an_answer)
{
    struct rig *r = rig_new(kind);

    get(r);
    upstream_closes(r);
    turn_until(&r->f->loop, over(r));
    cr_expect_eq(r->faileds, 1);
    cr_expect_eq(r->why, AG_REASON_EOF);
    cr_expect(r->call.sent && !r->call.received);
    rig_free(r);
}

/* A close that is met in the turn of the start: nothing has left. */
BOTH(h1_client, nothing_sent_is_known)
{
    struct rig *r = rig_new(kind);

    start(r, AG_METHOD_GET, AG_FRAMING_NONE, 0, false);
    ag_h1_client_eof(&r->c);
    cr_expect_eq(r->faileds, 1);
    cr_expect(!r->call.sent && !r->call.received);
    turn_until(&r->f->loop, r->closed);
    pull(r);
    cr_expect_eq(r->got_len, 0);
    rig_free(r);
}

BOTH(h1_client, a_storm_of_interims_fails)
{
    struct rig *r = rig_new(kind);

    get(r);
    for (unsigned i = 0; i < AG_CALL_INTERIM_MAX + 1; i++) {
        push_text(r, "HTTP/1.1 103 Early Hints\r\n\r\n");
    }
    turn_until(&r->f->loop, over(r));
    cr_expect_eq(r->why, AG_REASON_PROTOCOL);
    cr_expect_eq(r->interims, AG_CALL_INTERIM_MAX);
    rig_free(r);
}

BOTH(h1_client, an_endless_head_fails)
{
    struct rig *r = rig_new(kind);
    static char line[1000];

    memset(line, 'a', sizeof(line));
    get(r);
    push_text(r, "HTTP/1.1 200 OK\r\nX: ");
    for (unsigned i = 0; i < 40 && !over(r); i++) {
        push(r, line, sizeof(line));
        ag_loop_turn(&r->f->loop, 1);
    }
    turn_until(&r->f->loop, over(r));
    cr_expect_eq(r->why, AG_REASON_PROTOCOL);
    rig_free(r);
}

/* Across small buffers, into a large one. */
BOTH(h1_client, a_long_head_is_gathered)
{
    struct rig *r = rig_new(kind);
    static char line[7000];

    memset(line, 'a', sizeof(line));
    get(r);
    push_text(r, "HTTP/1.1 200 OK\r\nLong: ");
    push(r, line, sizeof(line));
    settle(r);
    push_text(r, "\r\nX: end\r\nContent-Length: 2\r\n\r\nhi");
    turn_until(&r->f->loop, over(r) && r->body_ended);
    cr_expect_eq(r->dones, 1, "%s", r->detail);
    cr_expect_str_eq(r->seen, "end");
    cr_expect_eq(r->body_len, 2);
    rig_free(r);
}

BOTH(h1_client, bytes_without_a_call_end_it)
{
    struct rig *r = rig_new(kind);

    push_text(r, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    turn_until(&r->f->loop, r->closed);
    cr_expect_eq(r->c.state, AG_H1_CLIENT_DEAD);
    cr_expect_eq(r->closed_why, AG_REASON_PROTOCOL);
    rig_free(r);
}

/* ---- requests with content ---- */

static void produce(struct rig *r, const char *text)
{
    cr_assert_eq(ag_body_write(&r->req_body, ag_slice_static(ag_span_str(text))), AG_OK);
}

BOTH(h1_client, content_of_known_length)
{
    struct rig *r = rig_new(kind);

    start(r, AG_METHOD_POST, AG_FRAMING_LENGTH, 10, false);
    produce(r, "01234");
    turn_until(&r->f->loop, got(r, "01234"));
    cr_expect(got(r, "POST /t?q HTTP/1.1\r\nHost: example\r\n"));
    cr_expect(got(r, "Content-Length: 10\r\n"));
    produce(r, "56789");
    ag_body_end(&r->req_body, NULL);
    turn_until(&r->f->loop, got(r, "\r\n\r\n0123456789"));
    push_text(r, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    turn_until(&r->f->loop, over(r));
    cr_expect(r->reusable);
    rig_free(r);
}

BOTH(h1_client, content_in_chunks)
{
    struct rig *r = rig_new(kind);

    start(r, AG_METHOD_POST, AG_FRAMING_CHUNKED, AG_LENGTH_UNKNOWN, false);
    produce(r, "hello world, 16.");
    produce(r, "x");
    ag_body_end(&r->req_body, NULL);
    turn_until(&r->f->loop, got(r, "\r\n\r\n10\r\nhello world, 16.\r\n1\r\nx\r\n0\r\n\r\n"));
    push_text(r, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    turn_until(&r->f->loop, over(r));
    cr_expect(r->reusable);
    rig_free(r);
}

/* Neither too little nor an abort may look like an end to the upstream. */
BOTH(h1_client, short_content_is_never_whole)
{
    for (unsigned way = 0; way < 3; way++) {
        struct rig *r = rig_new(kind);
        bool chunked = way == 2;

        start(r, AG_METHOD_POST, chunked ? AG_FRAMING_CHUNKED : AG_FRAMING_LENGTH, 10, false);
        produce(r, "01234");
        turn_until(&r->f->loop, got(r, "01234"));
        if (way == 0) {
            ag_body_end(&r->req_body, NULL);
        } else {
            ag_body_abort(&r->req_body, AG_REASON_RESET);
        }
        turn_until(&r->f->loop, over(r) && r->closed);
        cr_expect_eq(r->faileds, 1);
        cr_expect_eq(r->why, AG_REASON_ABORTED);
        cr_expect_not(got(r, "01234\r\n0"));
        rig_free(r);
    }
}

BOTH(h1_client, an_early_answer_stops_the_content)
{
    struct rig *r = rig_new(kind);

    start(r, AG_METHOD_POST, AG_FRAMING_LENGTH, 1000000, false);
    produce(r, "begin");
    turn_until(&r->f->loop, got(r, "begin"));
    push_text(r, "HTTP/1.1 413 No\r\nContent-Length: 4\r\n\r\nstop");
    turn_until(&r->f->loop, over(r) && r->body_ended);
    cr_expect_eq(r->dones, 1);
    cr_expect_not(r->reusable);
    cr_expect(r->req_body.discarding);
    cr_expect_eq(r->body_len, 4);
    turn_until(&r->f->loop, r->closed);
    rig_free(r);
}

/* ---- bulk ---- */

BOTH(h1_client, a_slow_reader_bounds_the_answer)
{
    struct rig *r = rig_new(kind);
    const size_t total = 3 * 1024 * 1024;
    static uint8_t piece[8192];
    size_t sent = 0;
    char head[128];
    int n = snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", total);

    r->hold = true;
    get(r);
    push(r, head, (size_t)n);
    for (unsigned idle = 0; idle < 50;) {
        ssize_t w = write(r->fd, piece, ag_min_size(sizeof(piece), total - sent));
        sent += w > 0 ? (size_t)w : 0;
        idle = w > 0 && sent < total ? 0 : idle + 1;
        ag_loop_turn(&r->f->loop, 1);
    }
    cr_expect(r->c.large);
    cr_expect(r->c.paused);
    cr_expect_leq(r->res_body.pinned_bytes, AG_BODY_BYTES_MAX + AG_BUF_LARGE_BYTES);
    cr_expect_lt(r->res_body.total_bytes, total);
    r->hold = false;
    take_body(&r->res_body, r);
    while (sent < total) {
        ssize_t w = write(r->fd, piece, ag_min_size(sizeof(piece), total - sent));
        sent += w > 0 ? (size_t)w : 0;
        ag_loop_turn(&r->f->loop, 1);
    }
    turn_until(&r->f->loop, over(r) && r->body_ended);
    cr_expect_eq(r->taken, total);
    cr_expect(r->reusable);
    /* Small answers bring the small buffers back. */
    for (unsigned i = 0; i < 8; i++) {
        cr_expect(r->c.large);
        rig_again(r);
        get(r);
        push_text(r, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
        turn_until(&r->f->loop, over(r) && r->body_ended);
    }
    cr_expect_not(r->c.large);
    rig_free(r);
}

BOTH(h1_client, a_slow_upstream_bounds_the_content)
{
    struct rig *r = rig_new(kind);
    static uint8_t piece[16384];
    const uint64_t total = 8u * 1024 * 1024;
    uint64_t written = 0, read_bytes = 0;

    for (size_t i = 0; i < sizeof(piece); i++) {
        piece[i] = pattern_at(i);
    }
    start(r, AG_METHOD_PUT, AG_FRAMING_LENGTH, total, false);
    for (unsigned i = 0; i < 400 && written < total; i++) {
        while (written < total && ag_body_room(&r->req_body)) {
            cr_assert_eq(
                ag_body_write(&r->req_body, ag_slice_static(ag_span(piece, sizeof(piece)))), AG_OK);
            written += sizeof(piece);
        }
        cr_expect_leq(ag_stream_queued(&r->conn.stream), AG_STREAM_HIGH + sizeof(piece));
        ag_loop_turn(&r->f->loop, 0);
    }
    cr_expect_lt(written, total);
    while (read_bytes < total) {
        ssize_t n;

        while (written < total && ag_body_room(&r->req_body)) {
            cr_assert_eq(
                ag_body_write(&r->req_body, ag_slice_static(ag_span(piece, sizeof(piece)))), AG_OK);
            written += sizeof(piece);
        }
        if (written == total) {
            ag_body_end(&r->req_body, NULL);
        }
        n = read(r->fd, r->got, sizeof(r->got));
        if (n > 0 && read_bytes == 0) { /* the head */
            uint8_t *end = memmem(r->got, (size_t)n, "\r\n\r\n", 4);
            cr_assert(end);
            n -= end + 4 - r->got;
        }
        read_bytes += n > 0 ? (uint64_t)n : 0;
        ag_loop_turn(&r->f->loop, 0);
        cr_assert_eq(r->faileds, 0, "%s", r->detail);
    }
    cr_expect_eq(read_bytes, total);
    push_text(r, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    turn_until(&r->f->loop, over(r));
    cr_expect(r->reusable);
    rig_free(r);
}

/* ---- tunnels ---- */

#define SWITCH "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"

BOTH(h1_client, a_tunnel_carries_both_ways)
{
    struct rig *r = rig_new(kind);

    r->accept = true;
    start(r, AG_METHOD_GET, AG_FRAMING_NONE, 0, true);
    push_text(r, SWITCH "early");
    turn_until(&r->f->loop, r->body_len == 5);
    cr_expect_eq(r->c.state, AG_H1_CLIENT_TUNNEL);
    produce(r, "up");
    turn_until(&r->f->loop, got(r, "\r\n\r\nup"));
    push_text(r, "down");
    turn_until(&r->f->loop, r->body_len == 9);
    /* Each side ends on its own. */
    ag_body_end(&r->req_body, NULL);
    turn_until(&r->f->loop, (pull(r), r->got_eof));
    cr_expect_not(over(r));
    push_text(r, "last");
    upstream_closes(r);
    turn_until(&r->f->loop, over(r) && r->body_ended && r->closed);
    cr_expect_eq(r->dones, 1, "%s", r->detail);
    cr_expect_not(r->reusable);
    cr_expect_eq(memcmp(r->body, "earlydownlast", 13), 0);
    rig_free(r);
}

BOTH(h1_client, a_tunnel_not_accepted_fails)
{
    struct rig *r = rig_new(kind);

    start(r, AG_METHOD_GET, AG_FRAMING_NONE, 0, true);
    push_text(r, SWITCH "early");
    turn_until(&r->f->loop, over(r));
    cr_expect_eq(r->faileds, 1);
    cr_expect_eq(r->why, AG_REASON_PROTOCOL);
    rig_free(r);
}

/* ---- cancelling ---- */

static const char *const stages[] = {
    NULL,
    "",
    "HTTP/1.1 200",
    "HTTP/1.1 103 x\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n123",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX: ",
    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\ntunnel",
};

BOTH(h1_client, cancelled_at_each_stage_nothing_is_left)
{
    for (size_t i = 0; i < AG_COUNT(stages); i++) {
        struct rig *r = rig_new(kind);
        unsigned heads;

        r->accept = r->hold = true;
        start(r, AG_METHOD_POST, AG_FRAMING_LENGTH, 5, i + 1 == AG_COUNT(stages));
        produce(r, "abc");
        if (stages[i]) {
            settle(r);
            push_text(r, stages[i]);
            settle(r);
        }
        cr_assert_not(over(r), "%s", r->detail);
        heads = r->heads;
        cancel(r);
        settle(r);
        cr_expect(r->closed);
        cr_expect_not(over(r));
        cr_expect_eq(r->heads, heads);
        rig_free(r);
    }
}

/* A large buffer with as much as is one unit of what may go unseen, as if it had just come. */
static void comes(struct rig *r)
{
    struct ag_block *block = ag_loop_buf(&r->f->loop, AG_BUF_LARGE);

    cr_assert(block);
    memset(block->data, 'x', AG_BULK_UNSEEN_BYTES);
    ag_h1_client_data(&r->c, (struct ag_slice){{.ptr = block->data}, AG_BULK_UNSEEN_BYTES, block});
}

/* Content that lies in the client, and is not passed on yet, is none that may still come in a pipe. */
BOTH(h1_client, what_may_go_unseen_is_what_has_not_come)
{
    struct rig *r = rig_new(kind);
    char head[64];

    (void)snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nContent-Length: %u\r\n\r\n",
                   10 * AG_BULK_UNSEEN_BYTES);
    r->hold = true;
    get(r);
    push_text(r, head);
    turn_until(&r->f->loop, r->heads == 1);
    r->res_body.limit_bytes = 1;
    comes(r);
    cr_expect_eq(r->conn.fd.unseen, 0, "its consumer takes no pipes");
    r->res_body.pipes = true;
    comes(r);
    comes(r);
    comes(r);
    for (uint64_t given = 2; given <= 4; given++) {
        struct ag_slice s = ag_body_take(&r->res_body);

        ag_slice_release(&s);
        turn_until(&r->f->loop, r->res_body.total_bytes == given * AG_BULK_UNSEEN_BYTES);
        cr_expect_eq(r->conn.fd.unseen, 10 - 4);
    }
    ag_body_discard(&r->res_body);
    for (unsigned i = 4; i < 10; i++) {
        comes(r);
    }
    cr_assert_eq(r->dones, 1);
    rig_free(r);
}

BOTH(h1_client, an_upload_takes_pipes_once_it_has_begun)
{
    struct rig *r = rig_new(kind);

    start(r, AG_METHOD_POST, AG_FRAMING_LENGTH, 5, false);
    cr_expect_not(r->req_body.pipes, "it may be made elsewhere");
    turn_until(&r->f->loop, got(r, "\r\n\r\n"));
    cr_expect_not(r->req_body.pipes);
    cr_assert_eq(ag_body_write(&r->req_body, ag_slice_static(AG_SPAN("hello"))), AG_OK);
    turn_until(&r->f->loop, got(r, "hello"));
    cr_expect(r->req_body.pipes);
    cr_expect(r->call.sent);
    rig_free(r);
}
