/*
 * Goal: heads leave byte by byte as told, whether they fit one reservation or not; no field of one
 * connection gets into another; what was parsed and written parses to the same.
 * Method: a stream whose transport appends to memory.
 */
#include "proto/h1_write.h"

#include "loops.h"
#include "proto/h1_parse.h"

#include <criterion/criterion.h>

struct memory {
    struct ag_stream stream;
    char text[65536];
    size_t len;
    unsigned flushes;
};

static struct fixture *fixture;
static struct memory *memory;
static struct ag_arena arena;

static void flush(struct ag_stream *s)
{
    struct memory *m = ag_container_of(s, struct memory, stream);

    m->flushes++;
    while (s->out.count) {
        struct ag_slice slice = ag_chain_pop(&s->out, &s->loop->nodes);
        cr_assert(slice.len < sizeof(m->text) - m->len);
        memcpy(m->text + m->len, slice.ptr, slice.len);
        m->len += slice.len;
        ag_slice_release(&slice);
    }
    m->text[m->len] = '\0';
}

static void never(struct ag_stream *s, enum ag_reason why)
{
    cr_assert_fail("aborted: %s, %llu queued", ag_reason_text(why),
                   (unsigned long long)ag_stream_queued(s));
}

static const struct ag_stream_ops ops = {.flush = flush, .abort = never};
static const struct ag_stream_user user = {0};

static void open_with(uint32_t buffers)
{
    fixture = fixture_new(AG_BACKEND_EPOLL, buffers, 4);
    memory = calloc(1, sizeof(*memory));
    cr_assert(memory);
    ag_stream_init(&memory->stream, &fixture->loop, &ops, &user);
    ag_arena_init(&arena, NULL, 0);
}

static void setup(void)
{
    open_with(32);
}

static void teardown(void)
{
    ag_arena_release(&arena);
    ag_stream_deinit(&memory->stream);
    free(memory);
    fixture_free(fixture);
}

TestSuite(h1_write, .init = setup, .fini = teardown);

/* All that was written since the last call. */
static const char *taken(void)
{
    memory->len = 0;
    memory->text[0] = '\0';
    ag_loop_turn(&fixture->loop, 0);
    return memory->text;
}

static void add(struct ag_fields *f, const char *name, const char *value)
{
    struct ag_span key = ag_span_str(name);

    cr_assert_eq(ag_fields_add(f, &arena, ag_field_id_from_name(key), key, ag_span_str(value)),
                 AG_OK);
}

Test(h1_write, responses)
{
    static const struct {
        struct ag_response res;
        struct ag_h1_response_opts opts;
        const char *want;
    } rows[] = {
        {{.status = 200, .framing = AG_FRAMING_LENGTH, .content_length = 12345678901},
         {.close = false},
         "HTTP/1.1 200 OK\r\nContent-Length: 12345678901\r\n\r\n"},
        {{.status = 200, .reason = AG_SPAN_INIT("Fine"), .framing = AG_FRAMING_CHUNKED},
         {.close = true},
         "HTTP/1.1 200 Fine\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"},
        {{.status = 404, .framing = AG_FRAMING_NONE},
         {.date_line = AG_SPAN_INIT("Date: x\r\n"), .keep_alive_10 = true},
         "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nDate: x\r\n"
         "Connection: keep-alive\r\n\r\n"},
        {{.status = 200, .framing = AG_FRAMING_CLOSE, .content_length = 5},
         {.close = true},
         "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"},
        /* HEAD and 304: the length when it is known */
        {{.status = 200, .framing = AG_FRAMING_NONE, .content_length = 7},
         {.close = false},
         "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"},
        {{.status = 200, .framing = AG_FRAMING_NONE, .content_length = AG_LENGTH_UNKNOWN},
         {.close = false},
         "HTTP/1.1 200 OK\r\n\r\n"},
        {{.status = 304, .framing = AG_FRAMING_NONE, .content_length = 7},
         {.close = false},
         "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n"},
        {{.status = 304, .framing = AG_FRAMING_NONE},
         {.close = false},
         "HTTP/1.1 304 Not Modified\r\n\r\n"},
        /* RFC 9110 section 8.6 */
        {{.status = 204, .framing = AG_FRAMING_NONE},
         {.close = false},
         "HTTP/1.1 204 No Content\r\n\r\n"},
        {{.status = 204, .framing = AG_FRAMING_LENGTH, .content_length = 3},
         {.close = false},
         "HTTP/1.1 204 No Content\r\n\r\n"},
        {{.status = 204, .framing = AG_FRAMING_CHUNKED},
         {.close = false},
         "HTTP/1.1 204 No Content\r\n\r\n"},
        {{.status = 100, .framing = AG_FRAMING_NONE},
         {.close = false},
         "HTTP/1.1 100 Continue\r\n\r\n"},
        {{.status = 101, .framing = AG_FRAMING_TUNNEL},
         {.upgrade = true},
         "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n"},
        {{.status = 599, .framing = AG_FRAMING_NONE, .content_length = AG_LENGTH_UNKNOWN},
         {.close = true},
         "HTTP/1.1 599 \r\nConnection: close\r\n\r\n"},
    };

    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        cr_assert_eq(ag_h1_write_response(&memory->stream, &rows[i].res, &rows[i].opts), AG_OK);
        cr_expect_str_eq(taken(), rows[i].want, "row %zu: %s", i, memory->text);
    }
}

/* Fields that a connection owns, and some that it does not. */
static void add_mixed(struct ag_fields *f)
{
    add(f, "x-Case", "Kept");
    add(f, "Connection", "X-Case, keep-alive");
    add(f, "Keep-Alive", "timeout=5");
    add(f, "proxy-connection", "close");
    add(f, "Transfer-Encoding", "gzip");
    add(f, "content-length", "99");
    add(f, "TE", "trailers");
    add(f, "Upgrade", "websocket");
    add(f, "HTTP2-Settings", "AAMAAABkAAQ");
    add(f, "Expect", "100-continue");
    add(f, "Host", "old");
    add(f, "Gone", "1");
    add(f, "Empty", "");
    ag_fields_remove_name(f, AG_SPAN("Gone"));
}

Test(h1_write, response_fields)
{
    struct ag_response res = {.status = 200, .framing = AG_FRAMING_LENGTH, .content_length = 1};
    struct ag_h1_response_opts opts = {.close = false};

    add_mixed(&res.fields);
    cr_assert_eq(ag_h1_write_response(&memory->stream, &res, &opts), AG_OK);
    cr_expect_str_eq(taken(), "HTTP/1.1 200 OK\r\nx-Case: Kept\r\nExpect: 100-continue\r\n"
                              "Host: old\r\nEmpty: \r\nContent-Length: 1\r\n\r\n");
    res.status = 101;
    res.framing = AG_FRAMING_TUNNEL;
    opts.upgrade = true;
    cr_assert_eq(ag_h1_write_response(&memory->stream, &res, &opts), AG_OK);
    cr_expect_str_eq(taken(),
                     "HTTP/1.1 101 Switching Protocols\r\nx-Case: Kept\r\n"
                     "Upgrade: websocket\r\nExpect: 100-continue\r\nHost: old\r\nEmpty: \r\n"
                     "Connection: Upgrade\r\n\r\n");
}

Test(h1_write, requests)
{
    struct ag_request req = {.method_name = AG_SPAN("PURGE"), .framing = AG_FRAMING_NONE};
    struct ag_h1_request_opts opts = {.target = AG_SPAN("/a?b"), .host = AG_SPAN("h:81")};

    add_mixed(&req.fields);
    cr_assert_eq(ag_h1_write_request(&memory->stream, &req, &opts), AG_OK);
    cr_expect_str_eq(taken(), "PURGE /a?b HTTP/1.1\r\nHost: h:81\r\nx-Case: Kept\r\n"
                              "Expect: 100-continue\r\nEmpty: \r\n\r\n");
    req.framing = AG_FRAMING_LENGTH;
    req.content_length = 0;
    opts.close = true;
    cr_assert_eq(ag_h1_write_request(&memory->stream, &req, &opts), AG_OK);
    cr_expect_str_eq(taken(), "PURGE /a?b HTTP/1.1\r\nHost: h:81\r\nx-Case: Kept\r\n"
                              "Expect: 100-continue\r\nEmpty: \r\nContent-Length: 0\r\n"
                              "Connection: close\r\n\r\n");
    req.framing = AG_FRAMING_CHUNKED;
    opts.close = false;
    opts.te_trailers = true;
    cr_assert_eq(ag_h1_write_request(&memory->stream, &req, &opts), AG_OK);
    cr_expect_str_eq(taken(), "PURGE /a?b HTTP/1.1\r\nHost: h:81\r\nx-Case: Kept\r\n"
                              "Expect: 100-continue\r\nEmpty: \r\nTransfer-Encoding: chunked\r\n"
                              "Connection: TE\r\nTE: trailers\r\n\r\n");
    req.framing = AG_FRAMING_NONE;
    opts.upgrade = true;
    cr_assert_eq(ag_h1_write_request(&memory->stream, &req, &opts), AG_OK);
    cr_expect_str_eq(taken(), "PURGE /a?b HTTP/1.1\r\nHost: h:81\r\nx-Case: Kept\r\n"
                              "Upgrade: websocket\r\nExpect: 100-continue\r\nEmpty: \r\n"
                              "Connection: Upgrade, TE\r\nTE: trailers\r\n\r\n");
}

/* A response head of about `value_bytes`, all in one field; what it is to look like in `want`. */
static size_t big_head(struct ag_response *res, size_t value_bytes, char *want, size_t room)
{
    char *value = calloc(1, value_bytes + 1);
    struct ag_buf b = ag_buf(want, room - 1);

    cr_assert(value);
    for (size_t i = 0; i < value_bytes; i++) {
        value[i] = (char)('a' + i % 26);
    }
    struct ag_span copy = ag_arena_copy(&arena, ag_span(value, value_bytes));
    cr_assert_eq(ag_fields_add(&res->fields, &arena, AG_FIELD_OTHER, AG_SPAN("X"), copy), AG_OK);
    add(&res->fields, "Y", "z");
    ag_buf_put(&b, AG_SPAN("HTTP/1.1 200 OK\r\nX: "));
    ag_buf_put(&b, copy);
    ag_buf_put(&b, AG_SPAN("\r\nY: z\r\nContent-Length: 4\r\nConnection: close\r\n\r\n"));
    cr_assert_not(b.overflow);
    want[b.len] = '\0';
    free(value);
    return b.len;
}

Test(h1_write, heads_of_any_size)
{
    static char want[32768];

    for (size_t bytes = 3500; bytes < 20000; bytes += bytes < 4300 ? 1 : 1777) {
        struct ag_response res = {.status = 200, .framing = AG_FRAMING_LENGTH, .content_length = 4};
        struct ag_h1_response_opts opts = {.close = true};
        size_t len = big_head(&res, bytes, want, sizeof(want));

        cr_assert_eq(ag_h1_write_response(&memory->stream, &res, &opts), AG_OK);
        cr_assert_str_eq(taken(), want, "%zu", bytes);
        cr_assert_eq(memory->len, len);
    }
}

Test(h1_write, pipelined_heads_leave_together)
{
    struct ag_response res = {.status = 200, .framing = AG_FRAMING_LENGTH, .content_length = 1};
    struct ag_h1_response_opts opts = {.close = false};

    for (unsigned i = 0; i < 200; i++) {
        cr_assert_eq(ag_h1_write_response(&memory->stream, &res, &opts), AG_OK);
    }
    cr_assert_eq(strlen(taken()), 200 * strlen("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n"));
    cr_assert_eq(memory->flushes, 1);
}

Test(h1_write, last_chunk)
{
    struct ag_fields trailers = {0};

    cr_assert_eq(ag_h1_write_last_chunk(&memory->stream, NULL), AG_OK);
    cr_expect_str_eq(taken(), "0\r\n\r\n");
    cr_assert_eq(ag_h1_write_last_chunk(&memory->stream, &trailers), AG_OK);
    cr_expect_str_eq(taken(), "0\r\n\r\n");
    add(&trailers, "grpc-status", "0");
    add(&trailers, "Gone", "1");
    add(&trailers, "Content-Length", "1");
    add(&trailers, "Host", "a");
    ag_fields_remove_name(&trailers, AG_SPAN("gone"));
    cr_assert_eq(ag_h1_write_last_chunk(&memory->stream, &trailers), AG_OK);
    cr_expect_str_eq(taken(), "0\r\ngrpc-status: 0\r\n\r\n");
}

/* Names and values that lie next to each other in memory, but not as "name: value". */
Test(h1_write, neighbours_in_memory)
{
    static const char *const rows[] = {"A: b", "A:\tb", "A=>b", "A :b"};

    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        struct ag_response res = {.status = 204};
        struct ag_h1_response_opts opts = {.close = false};

        cr_assert_eq(ag_fields_add(&res.fields, &arena, AG_FIELD_OTHER, ag_span(rows[i], 1),
                                   ag_span(rows[i] + 3, 1)),
                     AG_OK);
        cr_assert_eq(ag_h1_write_response(&memory->stream, &res, &opts), AG_OK);
        cr_expect_str_eq(taken(), "HTTP/1.1 204 No Content\r\nA: b\r\n\r\n");
    }
}

/* Fields that came behind each other, with what happens to some of them on their way. */
Test(h1_write, lines_of_a_head_that_was_changed)
{
    static const char wire[] =
        "HTTP/1.1 200 OK\r\nServer: s\r\nA: 1\r\nB:  2\r\nC: \r\nD:4\r\nE: 5 \r\n"
        "Connection: F\r\nF: 6\r\nG: 7\r\nH: 8\r\nI: 9\r\nContent-Length: 0\r\n\r\n";
    const struct ag_h1_limits limits = AG_H1_LIMITS_DEFAULT;
    struct ag_h1_response_opts opts = {.close = false};
    struct ag_h1_parser p = {0};
    struct ag_field room[16];
    struct ag_response res = {.fields = {room, 0, AG_COUNT(room)}};

    cr_assert_eq(ag_h1_parse_response(&p, ag_span(wire, sizeof(wire) - 1), &limits, AG_METHOD_GET,
                                      &res, &arena),
                 AG_OK);
    ag_fields_remove_name(&res.fields, AG_SPAN("A"));
    ag_fields_find_name(&res.fields, AG_SPAN("G"), NULL)->value = (const uint8_t *)"x";
    ag_fields_find_name(&res.fields, AG_SPAN("H"), NULL)->value_len = 0;
    cr_assert_eq(ag_fields_add(&res.fields, &arena, AG_FIELD_OTHER, AG_SPAN("J"), AG_SPAN("10")),
                 AG_OK);
    cr_assert_eq(ag_h1_write_response(&memory->stream, &res, &opts), AG_OK);
    cr_expect_str_eq(taken(),
                     "HTTP/1.1 200 OK\r\nServer: s\r\nB: 2\r\nC: \r\nD: 4\r\nE: 5\r\nF: 6\r\n"
                     "G: x\r\nH: \r\nI: 9\r\nJ: 10\r\nContent-Length: 0\r\n\r\n");
}

Test(h1_write, what_is_parsed_is_written_and_parsed_again)
{
    static const char wire[] =
        "POST /x/../y?q HTTP/1.1\r\nHost: a:1\r\nX-A:\t b \r\nContent-Length: 3\r\n"
        "Connection: X-A\r\nCookie: c=d\r\n\r\n";
    const struct ag_h1_limits limits = AG_H1_LIMITS_DEFAULT;
    struct ag_h1_parser p = {0}, again = {0};
    struct ag_request req = {0}, back = {0};
    struct ag_h1_request_opts opts = {.target = AG_SPAN("/y?q")};

    cr_assert_eq(ag_h1_parse_request(&p, ag_span(wire, sizeof(wire) - 1), &limits, &req, &arena),
                 AG_OK);
    opts.host = req.authority;
    cr_assert_eq(ag_h1_write_request(&memory->stream, &req, &opts), AG_OK);
    cr_expect_str_eq(taken(), "POST /y?q HTTP/1.1\r\nHost: a:1\r\nX-A: b\r\nCookie: c=d\r\n"
                              "Content-Length: 3\r\n\r\n");
    cr_assert_eq(
        ag_h1_parse_request(&again, ag_span(memory->text, memory->len), &limits, &back, &arena),
        AG_OK);
    cr_expect_eq(again.at, memory->len);
    cr_expect_eq(back.content_length, 3);
    cr_expect(ag_span_eq(req.path, AG_SPAN("/y")));
    cr_expect(ag_span_eq(back.path, AG_SPAN("/y")));
}

Test(h1_write, date_line)
{
    struct ag_date_cache d = {0};

    cr_expect(ag_span_eq(ag_date_line(&d, 0), AG_SPAN("Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n")),
              "also when the second is that of an empty cache");
    cr_expect(ag_span_eq(ag_date_line(&d, 784111777),
                         AG_SPAN("Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n")));
    d.line[7] = '!';
    cr_expect_eq(ag_date_line(&d, 784111777).ptr[7], '!', "not written anew within a second");
    cr_expect_eq(ag_date_line(&d, 784111778).ptr[7], 'u');
}

TestSuite(h1_write_starved, .fini = teardown);

Test(h1_write_starved, no_buffer_left)
{
    struct ag_response res = {.status = 200, .framing = AG_FRAMING_NONE};
    struct ag_request req = {.method_name = AG_SPAN("GET")};
    struct ag_h1_response_opts opts = {.close = false};
    struct ag_h1_request_opts request_opts = {.target = AG_SPAN("/"), .host = AG_SPAN("a")};
    struct ag_block *held[64];
    static char want[32768];
    unsigned n = 0;

    open_with(8);
    while (n < AG_COUNT(held) && (held[n] = ag_loop_buf(&fixture->loop, AG_BUF_SMALL))) {
        n++;
    }
    cr_assert(n > 1 && n < AG_COUNT(held));
    cr_expect_eq(ag_h1_write_response(&memory->stream, &res, &opts), AG_ENOMEM);
    cr_expect_eq(ag_h1_write_request(&memory->stream, &req, &request_opts), AG_ENOMEM);
    cr_expect_eq(ag_h1_write_last_chunk(&memory->stream, NULL), AG_ENOMEM);
    cr_expect_str_eq(taken(), "");
    /* A long head runs out on its way; the caller aborts. */
    ag_block_release(held[--n]);
    (void)big_head(&res, 12000, want, sizeof(want));
    cr_expect_eq(ag_h1_write_response(&memory->stream, &res, &opts), AG_ENOMEM);
    while (n) {
        ag_block_release(held[--n]);
    }
}
