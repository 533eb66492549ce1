/*
 * Goal: HTTP/2 is as strict as HTTP/1, where they say the same, and what converts from one to the other
 * keeps its meaning.
 * Method: a table of requests, each read in both versions, that says where they differ and why; and random
 * ones: as fields of HTTP/2 they are read as they were written, and what the HTTP/1 parser lets pass goes
 * to HTTP/2 and back.
 */
#include "proto/head.h"

#include "h2_sections.h"
#include "heads.h"
#include "proto/h1_write.h"

#include <stdio.h>

static const struct ag_h1_limits limits = AG_H1_LIMITS_DEFAULT;
static uint8_t section[1 << 17];

TestSuite(h2_fields_same, .init = setup, .fini = teardown);

/* ---- both versions ---- */

/* What is said in either: no version, no framing but the length. */
static void put_meaning(struct ag_buf *b, const struct ag_request *r)
{
    ag_buf_printf(b, "%.*s %.*s%s%.*s", (int)r->method_name.len, (const char *)r->method_name.ptr,
                  (int)r->path.len, (const char *)r->path.ptr, r->has_query ? "?" : "",
                  (int)r->query.len, (const char *)r->query.ptr);
    put_named(b, "host", r->host);
    put_named(b, "auth", r->authority);
    ag_buf_printf(b, " %u %lld %d\n", r->port, (long long)r->content_length, r->expect_continue);
}

/* Names in lower case, without those of a connection and Host; Cookie as one, without empty crumbs. */
static void put_fields_meaning(struct ag_buf *b, const struct ag_fields *f)
{
    struct ag_span cookie = AG_SPAN("");
    unsigned cookies = 0;
    static char joined[1 << 16];

    for (size_t i = 0; i < f->count; i++) {
        static const enum ag_field_id out[] = {
            AG_FIELD_CONNECTION, AG_FIELD_KEEP_ALIVE,        AG_FIELD_PROXY_CONNECTION,
            AG_FIELD_TE,         AG_FIELD_TRANSFER_ENCODING, AG_FIELD_UPGRADE,
            AG_FIELD_HOST,       AG_FIELD_HTTP2_SETTINGS,    AG_FIELD_CONTENT_LENGTH};
        struct ag_span value = ag_field_value(&f->v[i]);
        bool left_out = false;

        for (size_t k = 0; k < AG_COUNT(out); k++) {
            left_out = left_out || f->v[i].id == out[k];
        }
        if (f->v[i].id == AG_FIELD_COOKIE) {
            size_t at = cookie.len;

            cookies++;
            at += (size_t)sprintf(joined + at, "%s%.*s", cookie.len && value.len ? "; " : "",
                                  (int)value.len, (const char *)value.ptr);
            cookie = ag_span(joined, at);
        } else if (!left_out) {
            for (size_t k = 0; k < f->v[i].name_len; k++) {
                ag_buf_putc(b, ag_ascii_lower(f->v[i].name[k]));
            }
            ag_buf_printf(b, ": %.*s\n", (int)value.len, (const char *)value.ptr);
        }
    }
    if (cookies) {
        ag_buf_printf(b, "cookie: %.*s\n", (int)cookie.len, (const char *)cookie.ptr);
    }
}

static enum ag_status parse_h1(struct ag_span wire, struct ag_request *out)
{
    struct ag_h1_parser p = {0};
    enum ag_status st = ag_h1_parse_request(&p, wire, &limits, out, &arena);

    cr_assert(st != AG_OK || p.at == wire.len);
    return st;
}

static enum ag_status parse_h2(struct ag_span block, struct ag_request *out)
{
    struct ag_h2_field_error e = {0};

    return ag_h2_read_request(&decoder, block, &limits, out, &arena, &e);
}

/* ---- where they differ ---- */

struct row {
    const char *method, *target, *fields;
    bool h1, h2;
    const char *why; /* they differ */
};

static const struct row rows[] = {
    /* Where HTTP/2 refuses what HTTP/1 takes: it has no connection of its own to speak of. */
    {"GET", "/", "connection: close\n", true, false, "a field of a connection (9113 8.2.2)"},
    {"GET", "/", "keep-alive: 5\n", true, false, "a field of a connection"},
    {"GET", "/", "proxy-connection: x\n", true, false, "a field of a connection"},
    {"GET", "/", "upgrade: x\n", true, false, "a field of a connection"},
    {"POST", "/", "transfer-encoding: chunked\n", true, false, "frames delimit content"},
    {"GET", "/", "te: gzip\n", true, false, "transfer codings are HTTP/1's; ours ignores them"},
    {"GET", "/", "te: \n", true, false, "the same"},
    {"GET", "/", "Accept: x\n", true, false, "names are sent in lower case (8.2.1)"},
    {"GET", "/", "accept:  x\n", true, false, "there is no space to trim around a value (8.2.1)"},
    {"GET", "/", "accept: x \n", true, false, "the same"},
    {"GET", "http://a/", "", true, false, ":path has no absolute form (8.3.1)"},
    {"GET", "/", ":: x\n", false, false, NULL},
    /* Where HTTP/2 takes what HTTP/1 refuses. */
    {"GET", "/", "host: a\n", false, true, "Host beside :authority, when it says the same"},
    {"GET", "/", "host: A:80\n", false, true, "the same"},
    /* Hosts and targets are the same. */
    {"GET", "/", "host: b\n", false, false, NULL},
    {"GET", "/a/../b%7e?c=%zz|d", "", true, true, NULL},
    {"GET", "//x//y/.", "", true, true, NULL},
    {"GET", "/%2e%2E/x", "", true, true, NULL},
    {"GET", "/%00", "", false, false, NULL},
    {"GET", "/%", "", false, false, NULL},
    {"GET", "/a\\b", "", false, false, NULL},
    {"GET", "/a\"<>^`{|}", "", true, true, NULL},
    {"GET", "/\xc3", "", false, false, NULL},
    {"GET", "/?\xc3", "", false, false, NULL},
    {"GET", "/#x", "", false, false, NULL},
    {"GET", "/?#x", "", false, false, NULL},
    {"GET", "*", "", false, false, NULL},
    {"OPTIONS", "*", "", true, true, NULL},
    {"GET", "x", "", false, false, NULL},
    {"GET", "a:80", "", false, false, NULL},
    {"GET", "", "", false, false, NULL},
    {"G(T", "/", "", false, false, NULL},
    {"", "/", "", false, false, NULL},
    {"get", "/", "", true, true, NULL},
    {"M-SEARCH", "/", "", true, true, NULL},
    /* Fields are the same. */
    {"GET", "/", "x: \n", true, true, NULL},
    {"GET", "/", "x: a\tb\n", true, true, NULL},
    {"GET", "/", "x: \xff\x80\n", true, true, NULL},
    {"GET", "/", "x: a\x01\n", false, false, NULL},
    {"GET", "/", "x: a\rb\n", false, false, NULL},
    {"GET", "/", "x: \x7f\n", false, false, NULL},
    {"GET", "/", "x y: a\n", false, false, NULL},
    {"GET", "/", "x : a\n", false, false, NULL},
    {"GET", "/", "x\x80: a\n", false, false, NULL},
    {"GET", "/", ": a\n", false, false, NULL},
    {"GET", "/", "x_y!#$%&'*+-.^`|~: a\n", true, true, NULL},
    {"GET", "/", "te: trailers\n", true, true, NULL},
    {"GET", "/", "http2-settings: AA\n", true, true, NULL},
    {"GET", "/", "cookie: a\ncookie: b\n", true, true, NULL},
    {"GET", "/", "expect: 100-continue\n", true, true, NULL},
    {"GET", "/", "expect: 100-Continue\n", true, true, NULL},
    {"GET", "/", "expect: x\n", false, false, NULL},
    {"GET", "/", "expect: 100-continue\nexpect: x\n", false, false, NULL},
    {"POST", "/", "content-length: 5\n", true, true, NULL},
    {"POST", "/", "content-length: 0005\n", true, true, NULL},
    {"POST", "/", "content-length: 9223372036854775807\n", true, true, NULL},
    {"POST", "/", "content-length: 9223372036854775808\n", false, false, NULL},
    {"POST", "/", "content-length: 00000000000000000001\n", false, false, NULL},
    {"POST", "/", "content-length: \n", false, false, NULL},
    {"POST", "/", "content-length: +1\n", false, false, NULL},
    {"POST", "/", "content-length: 0x1\n", false, false, NULL},
    {"POST", "/", "content-length: 1,1\n", false, false, NULL},
    {"POST", "/", "content-length: 1 1\n", false, false, NULL},
    {"POST", "/", "content-length: 1\ncontent-length: 1\n", false, false, NULL},
    {"POST", "/", "transfer-encoding: gzip\n", false, false, NULL},
    {"POST", "/", "transfer-encoding: chunked\ncontent-length: 1\n", false, false, NULL},
};

static void put_h1(struct ag_buf *b, const struct row *r)
{
    struct ag_span in = ag_span_str(r->fields), name, value;

    ag_buf_printf(b, "%s %s HTTP/1.1\r\nHost: a\r\n", r->method, r->target);
    while (next_line(&in, &name, &value)) {
        ag_buf_put(b, name);
        ag_buf_put(b, AG_SPAN(": "));
        ag_buf_put(b, value);
        ag_buf_put(b, AG_SPAN("\r\n"));
    }
    ag_buf_put(b, AG_SPAN("\r\n"));
}

static void put_h2(struct ag_buf *b, const struct row *r)
{
    put_plain(b, AG_SPAN(":method"), ag_span_str(r->method));
    put_plain(b, AG_SPAN(":scheme"), AG_SPAN("http"));
    put_plain(b, AG_SPAN(":path"), ag_span_str(r->target));
    put_plain(b, AG_SPAN(":authority"), AG_SPAN("a"));
    put_plain_lines(b, ag_span_str(r->fields));
}

Test(h2_fields_same, as_strict_as_http1)
{
    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        const struct row *r = &rows[i];
        char head[1024], one[2048], two[2048];
        struct ag_buf h = ag_buf(head, sizeof(head)), s = ag_buf(section, sizeof(section));
        struct ag_buf a = ag_buf(one, sizeof(one)), b = ag_buf(two, sizeof(two));
        struct ag_request h1 = {0}, h2 = {0};

        put_h1(&h, r);
        put_h2(&s, r);
        cr_expect_eq(parse_h1(ag_buf_span(&h), &h1) == AG_OK, r->h1, "%s %s %s", r->method,
                     r->target, r->fields);
        cr_expect_eq(parse_h2(ag_buf_span(&s), &h2) == AG_OK, r->h2, "%s %s %s", r->method,
                     r->target, r->fields);
        cr_expect_eq(r->h1 != r->h2, r->why != NULL);
        if (r->h1 && r->h2) {
            put_meaning(&a, &h1);
            put_fields_meaning(&a, &h1.fields);
            put_meaning(&b, &h2);
            put_fields_meaning(&b, &h2.fields);
            cr_expect(ag_span_eq(ag_buf_span(&a), ag_buf_span(&b)), "%.*s%.*s", (int)a.len, one,
                      (int)b.len, two);
        }
        empty_arena();
    }
}

/* ---- random ones ---- */

static const char *one_of(const char *const *texts, size_t count)
{
    return texts[(size_t)rand() % count];
}
#define ONE_OF(...)                            \
    one_of((const char *const[]){__VA_ARGS__}, \
           sizeof((const char *const[]){__VA_ARGS__}) / sizeof(const char *))

static const char *random_value(void)
{
    static char text[4][700];
    static unsigned turn;
    char *to = text[turn++ % 4];
    size_t len = (size_t)rand() % (rand() % 20 ? 30 : 600);

    for (size_t i = 0; i < len; i++) {
        int ch = rand() % 3 ? 'a' + rand() % 26 : 0x20 + rand() % 0xe0;
        bool edge = i == 0 || i == len - 1;

        to[i] = (char)(ch == 0x7f || (edge && ch == ' ') ? 'x' : rand() % 40 || edge ? ch : '\t');
    }
    to[len] = 0;
    return to;
}

static const char *random_path(void)
{
    static char text[600];
    struct ag_buf b = ag_buf(text, sizeof(text));

    for (int n = 1 + rand() % 5; n > 0; n--) {
        ag_buf_printf(&b, "/%s",
                      ONE_OF("a", "..", ".", "", "%7e", "%2f", "b%c3%a9", "c;d=e,f@g", "~x_y-z",
                             "{|}", "long-segment-of-a-path", "%2E%2e"));
    }
    if (rand() % 3 == 0) {
        ag_buf_printf(&b, "?%s", ONE_OF("", "a=b&c=d", "?", "%zz", "/../", "[]{}|\\^`\"<>"));
    }
    ag_buf_putc(&b, 0);
    cr_assert_not(b.overflow);
    return text;
}

static const char *random_name(void)
{
    return ONE_OF("accept", "user-agent", "x-a", "x_y", "referer", "cookie", "cookie", "te-x",
                  "a!#$%&'*+-.^_`|~9", "if-none-match", "range", "authorization", "origin", "via",
                  "x-forwarded-for", "content-type", "priority", "a-rather-long-name-of-a-field");
}

/* What was written is read. */
Test(h2_fields_same, random_requests_are_read_as_written)
{
    srand(11);
    for (unsigned round = 0; round < 20000; round++) {
        static char want[1 << 16], got[1 << 16];
        struct ag_buf a = ag_buf(want, sizeof(want)), b = ag_buf(got, sizeof(got)), s;
        struct ag_request req = {.content_length = AG_LENGTH_UNKNOWN}, back = {0};
        char authority[64];
        struct ag_head_error e = {0};

        req.method_name =
            ag_span_str(ONE_OF("GET", "HEAD", "POST", "PUT", "PATCH", "PROP!FIND", "get"));
        req.target = ag_span_str(random_path());
        cr_assert_eq(ag_head_set_path(&req, req.target, &arena, &e), AG_OK, "%s", e.why);
        (void)snprintf(authority, sizeof(authority), "%s%s",
                       ONE_OF("a", "www.example.com", "[::1]", "10.0.0.1"),
                       ONE_OF("", ":80", ":443", ":65535"));
        cr_assert_eq(ag_head_set_authority(&req, ag_span_str(authority)), AG_OK);
        req.framing = AG_FRAMING_H2;
        req.content_length = rand() % 3 ? AG_LENGTH_UNKNOWN : (uint64_t)rand();
        for (int n = rand() % 12; n > 0; n--) {
            struct ag_span name = ag_span_str(random_name());
            struct ag_span value = ag_arena_copy(&arena, ag_span_str(random_value()));

            cr_assert_eq(
                ag_fields_add(&req.fields, &arena, ag_field_id_from_name(name), name, value),
                AG_OK);
        }
        if (rand() % 30 == 0) {
            ag_hpack_resize(&encoder, (uint32_t)rand() % 5000);
        }
        s = ag_buf(section, ag_h2_request_max(&req, req.target, req.authority));
        cr_assert_leq(s.cap, sizeof(section));
        ag_h2_put_request(&encoder, &s, &req, AG_SPAN("http"), req.target, req.authority, false);
        cr_assert_not(s.overflow);
        cr_assert_eq(parse_h2(ag_buf_span(&s), &back), AG_OK, "round %u", round);
        put_meaning(&a, &req);
        put_fields_meaning(&a, &req.fields);
        put_meaning(&b, &back);
        put_fields_meaning(&b, &back.fields);
        cr_assert_not(a.overflow);
        cr_assert(ag_span_eq(ag_buf_span(&a), ag_buf_span(&b)), "%.*s%.*s", (int)a.len, want,
                  (int)b.len, got);
        empty_arena();
    }
}

static void random_head(struct ag_buf *b)
{
    const char *method = ONE_OF("GET", "POST", "OPTIONS", "X-1", "CONNECT", "GE T");
    const char *target = rand() % 4 ? random_path()
                                    : ONE_OF("*", "http://b:81/x", "HTTPS://c?d", "a:443",
                                             "http://u@b/", "/a b", "x");

    ag_buf_printf(b, "%s %s HTTP/1.1\r\n", method, target);
    if (rand() % 20) {
        ag_buf_printf(b, "Host: %s\r\n", ONE_OF("a", "B.example:8080", "[::1]:9", "a", "u@x"));
    }
    for (int n = rand() % 8; n > 0; n--) {
        ag_buf_printf(b, "%s:%s%s%s\r\n",
                      rand() % 2 ? random_name()
                                 : ONE_OF("Accept", "X-UPPER", "Connection", "Cookie", "TE",
                                          "Content-Length", "Upgrade", "Expect", "b@d", "Trailer",
                                          "Keep-Alive", "HTTP2-Settings", "Transfer-Encoding"),
                      ONE_OF("", " ", "\t "),
                      rand() % 2
                          ? random_value()
                          : ONE_OF("close", "5", "100-continue", "chunked", "x-a", "", "h2c"),
                      ONE_OF("", " ", " \t"));
    }
    ag_buf_put(b, AG_SPAN("\r\n"));
}

static void never(struct ag_stream *s, enum ag_reason why)
{
    (void)s, (void)why;
    cr_assert_fail("the stream has ended");
}

/* Writes it as HTTP/1 and reads that. */
static void back_to_h1(const struct ag_request *req, struct ag_request *out)
{
    static const struct ag_stream_user user = {.on_close = never};
    static uint8_t wire_text[1 << 17];
    struct ag_h1_request_opts opts = {.host = req->authority, .target = req->target};
    struct ag_request sent = *req;
    struct memwire wire;

    sent.framing = req->content_length == AG_LENGTH_UNKNOWN ? AG_FRAMING_NONE : AG_FRAMING_LENGTH;
    memwire_init(&wire, &memory, &user, ag_buf(wire_text, sizeof(wire_text)));
    cr_assert_eq(ag_h1_write_request(&wire.stream, &sent, &opts), AG_OK);
    memloop_turn(&memory, 0);
    memloop_turn(&memory, 0);
    cr_assert_eq(ag_stream_queued(&wire.stream), 0);
    cr_assert_eq(parse_h1(ag_buf_span(&wire.out), out), AG_OK, "%.*s", (int)wire.out.len,
                 wire_text);
    ag_stream_deinit(&wire.stream);
}

/* A request that HTTP/1 lets pass goes to HTTP/2, and from there to HTTP/1 again. */
Test(h2_fields_same, what_http1_takes_goes_to_http2_and_back)
{
    unsigned passed = 0;

    srand(12);
    for (unsigned round = 0; round < 30000; round++) {
        static char head[1 << 15], want[1 << 16], got[1 << 16], again[1 << 16];
        struct ag_buf h = ag_buf(head, sizeof(head)), s = ag_buf(section, sizeof(section));
        struct ag_buf a = ag_buf(want, sizeof(want)), b = ag_buf(got, sizeof(got));
        struct ag_buf c = ag_buf(again, sizeof(again));
        struct ag_request h1 = {0}, h2 = {0}, back = {0};
        struct ag_span target;
        uint8_t text[1024];
        struct ag_buf t = ag_buf(text, sizeof(text));

        random_head(&h);
        cr_assert_not(h.overflow);
        if (parse_h1(ag_buf_span(&h), &h1) != AG_OK) {
            empty_arena();
            continue;
        }
        passed++;
        ag_buf_put(&t, h1.path);
        ag_buf_put(&t, h1.has_query ? AG_SPAN("?") : AG_SPAN(""));
        ag_buf_put(&t, h1.query);
        target = ag_buf_span(&t);
        cr_assert_not(t.overflow);
        ag_h2_put_request(&encoder, &s, &h1, AG_SPAN("http"), target, h1.authority,
                          ag_fields_list_has(&h1.fields, AG_FIELD_TE, AG_SPAN("trailers")));
        cr_assert_eq(parse_h2(ag_buf_span(&s), &h2), AG_OK, "%.*s", (int)h.len, head);
        back_to_h1(&h2, &back);
        if (h1.method == AG_METHOD_CONNECT) {
            cr_assert_not(h1.content_length && h1.content_length != AG_LENGTH_UNKNOWN);
            h1.content_length = h2.content_length; /* 0 or nothing */
        }
        put_meaning(&a, &h1);
        put_fields_meaning(&a, &h1.fields);
        put_meaning(&b, &h2);
        put_fields_meaning(&b, &h2.fields);
        put_meaning(&c, &back);
        put_fields_meaning(&c, &back.fields);
        cr_assert(ag_span_eq(ag_buf_span(&a), ag_buf_span(&b)), "%.*s%.*s", (int)a.len, want,
                  (int)b.len, got);
        cr_assert(ag_span_eq(ag_buf_span(&a), ag_buf_span(&c)), "%.*s%.*s", (int)a.len, want,
                  (int)c.len, again);
        empty_arena();
    }
    cr_expect_gt(passed, 3000);
}
