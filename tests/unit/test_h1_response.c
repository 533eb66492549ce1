/*
 * Goal: an upstream's answer ends where RFC 9112 section 6.3 says, or is refused; trailers carry
 * nothing that belongs in a head.
 * Method: as for requests: every split, moving input, an unmapped page behind it.
 */
#include "proto/h1_parse.h"

#include "guarded.h"

static const struct ag_h1_limits limits = {64, 256, 6};

static struct guarded guarded;
static struct ag_arena arena;

static void setup(void)
{
    guarded_open(&guarded);
    ag_arena_init(&arena, NULL, 0);
}

static void teardown(void)
{
    ag_arena_release(&arena);
    guarded_close(&guarded);
}

TestSuite(h1_response, .init = setup, .fini = teardown);

struct result {
    enum ag_status status;
    unsigned code;
    const char *error;
    size_t used;
    char text[1024];
};

static void describe(const struct ag_response *r, struct ag_buf *b)
{
    static const char *const framing[] = {"none", "length", "chunked", "close", "tunnel", "h2"};

    ag_buf_printf(b, "%u(%.*s) %u %s", r->status, (int)r->reason.len, (const char *)r->reason.ptr,
                  r->version, framing[r->framing]);
    if (r->content_length != AG_LENGTH_UNKNOWN) {
        ag_buf_printf(b, "=%llu", (unsigned long long)r->content_length);
    }
    ag_buf_printf(b, "%s%s", r->keep_alive ? " keep" : " end", r->upgrade ? " upgrade" : "");
}

static void describe_fields(const struct ag_fields *f, struct ag_buf *b)
{
    for (size_t i = 0; i < f->count; i++) {
        struct ag_span name = ag_field_key(&f->v[i]), value = ag_field_value(&f->v[i]);

        ag_buf_printf(b, "[%.*s=%.*s]", (int)name.len, (const char *)name.ptr, (int)value.len,
                      (const char *)value.ptr);
    }
}

/* Parses a response (or, with `method` AG_METHODS, a trailer section) in steps. */
static void parse(struct ag_span wire, size_t step, enum ag_method method, struct result *out)
{
    struct ag_h1_parser p = {0};
    struct ag_response r = {0};
    struct ag_span in = {NULL, 0};
    struct ag_buf text = ag_buf(out->text, sizeof(out->text) - 1);
    enum ag_status st = AG_AGAIN;

    while (st == AG_AGAIN && in.len < wire.len) {
        struct ag_span before = in;
        in = guarded_copy(&guarded, ag_span(wire.ptr, ag_min_size(before.len + step, wire.len)));
        ag_response_rebase(&r, before.ptr, before.len, in.ptr);
        st = method == AG_METHODS ? ag_h1_parse_trailers(&p, in, &limits, &r.fields, &arena)
                                  : ag_h1_parse_response(&p, in, &limits, method, &r, &arena);
    }
    memset(out->text, 0, sizeof(out->text));
    out->status = st;
    out->code = p.status;
    out->error = p.error;
    out->used = st == AG_OK ? p.at : 0;
    if (st == AG_OK) {
        if (method != AG_METHODS) {
            describe(&r, &text);
        }
        describe_fields(&r.fields, &text);
        cr_assert_not(text.overflow);
    }
}

static void parse_splits(struct ag_span wire, enum ag_method method, struct result *out)
{
    static struct result other;

    parse(wire, wire.len, method, out);
    for (size_t step = 1; step < wire.len; step++) {
        parse(wire, step, method, &other);
        cr_assert_eq(other.status, out->status, "%.40s, step %zu: %d", (const char *)wire.ptr, step,
                     (int)other.status);
        cr_assert_eq(other.code, out->code, "%.40s, step %zu", (const char *)wire.ptr, step);
        cr_assert_eq(other.error, out->error, "%.40s, step %zu", (const char *)wire.ptr, step);
        cr_assert_eq(other.used, out->used, "%.40s, step %zu", (const char *)wire.ptr, step);
        cr_assert_str_eq(other.text, out->text, "%.40s, step %zu", (const char *)wire.ptr, step);
    }
}

struct good_row {
    enum ag_method method;
    const char *wire, *want;
};

static void expect_good(const struct good_row *rows, size_t count)
{
    static struct result got;

    for (size_t i = 0; i < count; i++) {
        parse_splits(ag_span_str(rows[i].wire), rows[i].method, &got);
        cr_expect_eq(got.status, AG_OK, "%s: %s", rows[i].wire, got.error);
        cr_expect_str_eq(got.text, rows[i].want, "%s: %s", rows[i].wire, got.text);
        cr_expect_eq(got.used, got.status == AG_OK ? strlen(rows[i].wire) : 0);
    }
}

struct bad_row {
    const char *error, *wire;
};

static void expect_bad(const struct bad_row *rows, size_t count)
{
    static struct result got;

    for (size_t i = 0; i < count; i++) {
        parse_splits(ag_span_str(rows[i].wire), AG_METHOD_GET, &got);
        cr_expect_eq(got.status, AG_EPROTO, "%s: %s", rows[i].wire, got.text);
        cr_expect_eq(got.code, 502, "%s: %u", rows[i].wire, got.code);
        cr_expect_str_eq(got.error ? got.error : "", rows[i].error, "%s", rows[i].wire);
    }
}

#define OK "HTTP/1.1 200 OK\r\n"

Test(h1_response, status_lines)
{
    static const struct good_row good[] = {
        {AG_METHOD_GET, OK "Content-Length: 2\r\n\r\n",
         "200(OK) 11 length=2 keep[Content-Length=2]"},
        {AG_METHOD_GET, "HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n",
         "200() 11 length=0 keep[Content-Length=0]"},
        {AG_METHOD_GET, "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
         "200() 11 length=0 keep[Content-Length=0]"},
        {AG_METHOD_GET, "HTTP/1.1 404 Nicht  da \t\x80\r\n\r\n",
         "404(Nicht  da \t\x80) 11 close end"},
        {AG_METHOD_GET, "HTTP/1.0 200 OK\r\n\r\n", "200(OK) 10 close end"},
        {AG_METHOD_GET, "HTTP/1.5 999 x\r\n\r\n", "999(x) 11 close end"},
    };
    static const struct bad_row bad[] = {
        {"malformed status line", "\r\n" OK "\r\n"},
        {"malformed status line", " " OK "\r\n"},
        {"malformed status line", "HTTP/2.0 200 OK\r\n\r\n"},
        {"malformed status line", "HTTP/1.x 200 OK\r\n\r\n"},
        {"malformed status line", "http/1.1 200 OK\r\n\r\n"},
        {"malformed status line", "HTTP/1.1\t200 OK\r\n\r\n"},
        {"malformed status line", "HTTP/1.10 200 OK\r\n\r\n"},
        {"malformed status line", "HTTP/1.1 20\r\n\r\n"},
        {"malformed status line", "ICY 200 OK and more\r\n\r\n"},
        {"malformed status code", "HTTP/1.1  200 OK\r\n\r\n"},
        {"malformed status code", "HTTP/1.1 2000 OK\r\n\r\n"},
        {"malformed status code", "HTTP/1.1 200OK\r\n\r\n"},
        {"malformed status code", "HTTP/1.1 200\tOK\r\n\r\n"},
        {"malformed status code", "HTTP/1.1 099 OK\r\n\r\n"},
        {"malformed status code", "HTTP/1.1 20x OK\r\n\r\n"},
        {"malformed status code", "HTTP/1.1 2 0 OK\r\n\r\n"},
        {"malformed status code", "HTTP/1.1 -20 OK\r\n\r\n"},
        {"malformed status code", "HTTP/1.1 OKAY NO\r\n\r\n"},
        {"bare LF", "HTTP/1.1 200 OK\n\r\n"},
        {"bare CR", "HTTP/1.1 200 O\rK\r\n\r\n"},
        {"control character", "HTTP/1.1 200 O\x02K\r\n\r\n"},
        {"line or head too long",
         "HTTP/1.1 200 xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n\r\n"},
    };

    expect_good(good, AG_COUNT(good));
    expect_bad(bad, AG_COUNT(bad));
}

#define CL5     "Content-Length: 5\r\n"
#define CHUNKED "Transfer-Encoding: chunked\r\n"

Test(h1_response, where_content_ends)
{
    /* RFC 9112 section 6.3, in its order. */
    static const struct good_row good[] = {
        {AG_METHOD_HEAD, OK CL5 "\r\n", "200(OK) 11 none=5 keep[Content-Length=5]"},
        {AG_METHOD_HEAD, OK CHUNKED "\r\n", "200(OK) 11 none keep[Transfer-Encoding=chunked]"},
        {AG_METHOD_HEAD, OK "\r\n", "200(OK) 11 none keep"},
        {AG_METHOD_GET, "HTTP/1.1 100 Continue\r\n\r\n", "100(Continue) 11 none keep"},
        {AG_METHOD_GET, "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n",
         "103(Early Hints) 11 none keep[Link=x]"},
        {AG_METHOD_GET, "HTTP/1.1 204 No Content\r\n\r\n", "204(No Content) 11 none keep"},
        {AG_METHOD_GET, "HTTP/1.1 204 x\r\nContent-Length: 0\r\n\r\n",
         "204(x) 11 none=0 keep[Content-Length=0]"},
        {AG_METHOD_GET, "HTTP/1.1 204 x\r\n" CL5 "\r\n", "204(x) 11 none=5 end[Content-Length=5]"},
        {AG_METHOD_GET, "HTTP/1.1 204 x\r\n" CHUNKED "\r\n",
         "204(x) 11 none end[Transfer-Encoding=chunked]"},
        {AG_METHOD_GET, "HTTP/1.1 304 x\r\n" CL5 "\r\n", "304(x) 11 none=5 keep[Content-Length=5]"},
        {AG_METHOD_GET, "HTTP/1.1 205 x\r\nContent-Length: 0\r\n\r\n",
         "205(x) 11 length=0 keep[Content-Length=0]"},
        {AG_METHOD_GET, "HTTP/1.1 101 x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
         "101(x) 11 tunnel keep upgrade[Connection=Upgrade][Upgrade=websocket]"},
        {AG_METHOD_GET, "HTTP/1.1 101 x\r\n\r\n", "101(x) 11 tunnel keep"},
        {AG_METHOD_CONNECT, OK "\r\n", "200(OK) 11 tunnel keep"},
        {AG_METHOD_CONNECT, OK CL5 "\r\n", "200(OK) 11 tunnel=5 keep[Content-Length=5]"},
        {AG_METHOD_CONNECT, "HTTP/1.1 403 x\r\n" CL5 "\r\n",
         "403(x) 11 length=5 keep[Content-Length=5]"},
        {AG_METHOD_GET, OK CHUNKED "\r\n", "200(OK) 11 chunked keep[Transfer-Encoding=chunked]"},
        {AG_METHOD_GET, OK CL5 "Connection: close\r\n\r\n",
         "200(OK) 11 length=5 end[Content-Length=5][Connection=close]"},
        {AG_METHOD_GET, "HTTP/1.0 200 OK\r\n" CL5 "\r\n",
         "200(OK) 10 length=5 end[Content-Length=5]"},
        {AG_METHOD_GET, "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n" CL5 "\r\n",
         "200(OK) 10 length=5 keep[Connection=keep-alive][Content-Length=5]"},
        {AG_METHOD_GET, OK "Connection: keep-alive\r\n\r\n",
         "200(OK) 11 close end[Connection=keep-alive]"},
    };
    static const struct bad_row bad[] = {
        {"Content-Length beside Transfer-Encoding", OK CL5 CHUNKED "\r\n"},
        {"invalid Content-Length", OK CL5 CL5 "\r\n"},
        {"invalid Content-Length", OK CL5 "Content-Length: 6\r\n\r\n"},
        {"invalid Content-Length", OK "Content-Length: 5, 5\r\n\r\n"},
        {"invalid Content-Length", OK "Content-Length: x\r\n\r\n"},
        {"invalid Content-Length", OK "Content-Length: x\r\n" CHUNKED "\r\n"},
        {"invalid Content-Length", "HTTP/1.1 304 x\r\nContent-Length: -1\r\n\r\n"},
        {"Transfer-Encoding in HTTP/1.0", "HTTP/1.0 200 OK\r\n" CHUNKED "\r\n"},
        {"invalid Transfer-Encoding", OK CHUNKED CHUNKED "\r\n"},
        {"invalid Transfer-Encoding", OK "Transfer-Encoding: gzip, chunked\r\n\r\n"},
        {"unknown transfer coding", OK "Transfer-Encoding: gzip\r\n\r\n"},
        {"unknown transfer coding", OK "Transfer-Encoding: identity\r\n\r\n"},
        {"folded field line", OK "A: b\r\n c\r\n\r\n"},
        {"space before the colon", OK "A : b\r\n\r\n"},
        {"field line without a colon", OK "A\r\n\r\n"},
        {"bare LF", OK "A: b\n\r\n"},
        {"too many fields", OK "A:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\n\r\n"},
    };

    expect_good(good, AG_COUNT(good));
    expect_bad(bad, AG_COUNT(bad));
}

Test(h1_response, what_follows_is_left)
{
    static struct result got;
    struct ag_span wire = AG_SPAN(OK CL5 "\r\nhelloHTTP/1.1");

    parse_splits(wire, AG_METHOD_GET, &got);
    cr_expect_eq(got.status, AG_OK);
    cr_expect_eq(got.used, wire.len - 13);
}

Test(h1_response, the_head_is_bounded)
{
    static struct result got;
    char wire[512];

    for (size_t len = limits.head_max - 2; len < limits.head_max + 4; len++) {
        memset(wire, 'x', len);
        memcpy(wire, OK "A: ", 20);
        memcpy(wire + len - 4, "\r\n\r\n", 4);
        parse_splits(ag_span(wire, len), AG_METHOD_GET, &got);
        cr_expect_eq(got.status, len <= limits.head_max ? AG_OK : AG_EPROTO, "%zu", len);
        cr_expect_eq(got.code, len <= limits.head_max ? 0 : 502);
    }
}

Test(h1_response, trailers)
{
    static const struct good_row good[] = {
        {AG_METHODS, "\r\n", ""},
        {AG_METHODS, "Checksum: abc\r\n\r\n", "[Checksum=abc]"},
        {AG_METHODS, "grpc-status: 0\r\ngrpc-message:\r\nETag: \"x\"\r\n\r\n",
         "[grpc-status=0][grpc-message=][ETag=\"x\"]"},
        {AG_METHODS, "Content-Length: 5\r\nTransfer-Encoding: chunked\r\nA: b\r\n\r\n", "[A=b]"},
        {AG_METHODS, "Host: evil\r\nAuthorization: x\r\nCookie: y\r\nSet-Cookie: z\r\n\r\n", ""},
        {AG_METHODS, "Connection: close\r\nTE: x\r\nTrailer: y\r\nUpgrade: z\r\n\r\n", ""},
        {AG_METHODS,
         "X-Forwarded-For: 1\r\nx-forwarded-port: 2\r\nForwarded: 3\r\nX-Real-IP: 4\r\n\r\n", ""},
        {AG_METHODS, "Content-Language: x\r\nContent: y\r\nMax-Forwards: 1\r\n\r\n", "[Content=y]"},
        {AG_METHODS, "Cache-Control: x\r\nPragma: y\r\nExpires: z\r\nSec-Fetch-Mode: a\r\n\r\n",
         ""},
        {AG_METHODS, "Proxy-Authorization: x\r\nAuthentication-Info: y\r\nRange: z\r\n\r\n", ""},
        {AG_METHODS, "Content_Length: 1\r\nX_Forwarded-For: 2\r\nx_real_ip: 3\r\nA_b: c\r\n\r\n",
         "[A_b=c]"},
    };
    static struct result got;

    expect_good(good, AG_COUNT(good));
    parse_splits(AG_SPAN("Host : a\r\n\r\n"), AG_METHODS, &got);
    cr_expect_eq(got.status, AG_EPROTO);
    cr_expect_eq(got.code, 400);
    parse_splits(AG_SPAN("A: b\n\r\n"), AG_METHODS, &got);
    cr_expect_eq(got.status, AG_EPROTO);
    parse_splits(AG_SPAN("A: b\r\n"), AG_METHODS, &got);
    cr_expect_eq(got.status, AG_AGAIN);
    parse_splits(AG_SPAN("\r\nGET / HTTP/1.1\r\n"), AG_METHODS, &got);
    cr_expect_eq(got.status, AG_OK);
    cr_expect_eq(got.used, 2);
}

Test(h1_response, trailers_are_bounded)
{
    static struct result got;
    char wire[512];

    memset(wire, 'x', sizeof(wire));
    memcpy(wire, "A:", 2);
    parse_splits(ag_span(wire, limits.head_max), AG_METHODS, &got);
    cr_expect_eq(got.status, AG_EPROTO);
    cr_expect_eq(got.code, 431);
    /* Fields that are left out do not count, the bytes do. */
    struct ag_buf b = ag_buf(wire, sizeof(wire));
    for (unsigned i = 0; i < 20; i++) {
        ag_buf_put(&b, AG_SPAN("Host: a\r\n"));
    }
    ag_buf_put(&b, AG_SPAN("\r\n"));
    parse_splits(ag_buf_span(&b), AG_METHODS, &got);
    cr_expect_eq(got.status, AG_OK);
}
