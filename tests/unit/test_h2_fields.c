/*
 * Goal: what a field section of HTTP/2 says is what HTTP/1 would let say, and all else is refused: each
 * row of THREATS.md that concerns fields, with bounds on memory.
 * Method: each row runs as literals, and twice by our encoder, the second time as indices, each time on
 * the same decoder, from memory that ends at an unmapped page. A refused section is followed by a good one
 * that uses what was added by it.
 */
#include "guarded.h"
#include "h2_sections.h"
#include "heads.h"

static const struct ag_h1_limits limits = {200, 4096, 8};

static struct guarded guarded;

static void begin(void)
{
    setup();
    guarded_open(&guarded);
}

static void end(void)
{
    guarded_close(&guarded);
    teardown();
}

TestSuite(h2_fields, .init = begin, .fini = end);

/* ---- rows ---- */

struct result {
    enum ag_status status;
    struct ag_h2_field_error error;
    char text[2048];
};

enum kind { REQUEST, RESPONSE, TRAILERS };

/* What a response to GET says, then its fields. */
static void describe_response(const struct ag_response *r, struct ag_buf *b)
{
    static const char *const framing[] = {"none", "length", "chunked", "close", "tunnel", "h2"};

    ag_buf_printf(b, "%u %u %s", r->status, r->version, framing[r->framing]);
    if (r->content_length != AG_LENGTH_UNKNOWN) {
        ag_buf_printf(b, "=%llu", (unsigned long long)r->content_length);
    }
}

static void describe_h2_request(const struct ag_request *r, struct ag_buf *b)
{
    describe(r, b);
    put_named(b, "protocol", r->protocol);
    ag_buf_printf(b, "%s", r->https_target ? " https" : "");
    cr_assert_eq(r->received_count, r->fields.count);
}

static void read_section(enum kind kind, struct ag_span block, enum ag_method method,
                         struct result *out)
{
    struct ag_field room[2];
    struct ag_request req = {.fields = {room, 0, AG_COUNT(room)}};
    struct ag_response res = {0};
    struct ag_fields trailers = {0}, *fields = &req.fields;
    struct ag_buf b = ag_buf(out->text, sizeof(out->text));
    struct ag_span in = guarded_copy(&guarded, block);

    memset(out, 0, sizeof(*out));
    switch (kind) {
    case REQUEST:
        out->status = ag_h2_read_request(&decoder, in, &limits, &req, &arena, &out->error);
        break;
    case RESPONSE:
        out->status = ag_h2_read_response(&decoder, in, &limits, method, &res, &arena, &out->error);
        fields = &res.fields;
        break;
    case TRAILERS:
        out->status = ag_h2_read_trailers(&decoder, in, &limits, &trailers, &arena, &out->error);
        fields = &trailers;
        break;
    }
    (void)guarded_copy(&guarded, AG_SPAN("x")); /* nothing may point into the section */
    memset((void *)(uintptr_t)in.ptr, 0xee, in.len);
    if (out->status != AG_OK) {
        cr_assert(out->error.why);
        return;
    }
    cr_assert(!out->error.why && !out->error.status && !out->error.connection);
    if (kind == REQUEST) {
        describe_h2_request(&req, &b);
    } else if (kind == RESPONSE) {
        describe_response(&res, &b);
    }
    describe_fields(fields, &b);
    cr_assert_not(b.overflow);
}

/* The last one, after all codings agreed. */
static void read_lines(enum kind kind, const char *lines, enum ag_method method, struct result *out)
{
    static uint8_t bytes[65536];
    static struct result other;

    for (unsigned round = 0; round < 4; round++) {
        struct ag_buf b = ag_buf(bytes, sizeof(bytes));

        if (round == 0) {
            put_plain_lines(&b, ag_span_str(lines));
        } else {
            put_coded_lines(&encoder, &b, ag_span_str(lines),
                            round == 3 ? AG_HPACK_PLAIN : AG_HPACK_INDEX);
        }
        cr_assert_not(b.overflow);
        read_section(kind, ag_buf_span(&b), method, round ? &other : out);
        if (round) {
            cr_assert_eq(other.status, out->status, "%s, %u: %s", lines, round, other.error.why);
            cr_assert_eq(other.error.status, out->error.status, "%s", lines);
            cr_assert_eq(other.error.why, out->error.why, "%s", lines);
            cr_assert_str_eq(other.text, out->text, "%s, %u", lines, round);
        }
        cr_assert_eq(decoder.table.count, encoder.table.count, "%s", lines);
    }
    teardown();
    setup();
}

struct good_row {
    const char *lines, *want;
};

static void expect_good(enum kind kind, enum ag_method method, const struct good_row *rows,
                        size_t count)
{
    static struct result got;

    for (size_t i = 0; i < count; i++) {
        read_lines(kind, rows[i].lines, method, &got);
        cr_expect_eq(got.status, AG_OK, "%s: %d %s", rows[i].lines, (int)got.status, got.error.why);
        cr_expect_str_eq(got.text, rows[i].want, "%s: %s", rows[i].lines, got.text);
    }
}

struct bad_row {
    unsigned code;
    const char *why, *lines;
};

static void expect_bad(enum kind kind, const struct bad_row *rows, size_t count)
{
    static struct result got;

    for (size_t i = 0; i < count; i++) {
        read_lines(kind, rows[i].lines, AG_METHOD_GET, &got);
        cr_expect_neq(got.status, AG_OK, "%s: %s", rows[i].lines, got.text);
        cr_expect_eq(got.error.status, rows[i].code, "%s: %u", rows[i].lines, got.error.status);
        cr_expect_not(got.error.connection);
        cr_expect_str_eq(got.error.why ? got.error.why : "", rows[i].why, "%s", rows[i].lines);
    }
}

#define TARGET ":method: GET\n:scheme: http\n:path: /\n"
#define GET    TARGET ":authority: a\n"
#define SAID   "1 GET path=/ host=a auth=a 20 h2 keep"

/* ---- requests ---- */

Test(h2_fields, requests)
{
    static const struct good_row rows[] = {
        {GET, SAID "[host=a]"},
        {":path: /x?y\n:authority: b.c:8443\n:scheme: https\n:method: HEAD\nx: 1\n",
         "2 HEAD path=/x?y host=b.c auth=b.c:8443 port=8443 20 h2 keep https[x=1][host=b.c:8443]"},
        {":method: PROP!#$%&'*+-.^_`|~9\n:scheme: HTTPS\n:path: /\n:authority: a\n",
         "0 PROP!#$%&'*+-.^_`|~9 path=/ host=a auth=a 20 h2 keep https[host=a]"},
        {":method: OPTIONS\n:scheme: http\n:path: *\n:authority: a\n",
         "7 OPTIONS path=* host=a auth=a 20 h2 keep[host=a]"},
        {":method: GET\n:scheme: http\n:path: /a/./%7eb/../c%2fd//e?f=../g&\"<>\n:authority: [::1]:80\n",
         "1 GET path=/a/c%2Fd//e?f=../g&\"<> host=[::1] auth=[::1]:80 port=80 20 h2 keep"
         "[host=[::1]:80]"},
        {GET "te: trailers\n", SAID "[te=trailers][host=a]"},
        {GET "te: Trailers\n", SAID "[te=Trailers][host=a]"},
        {GET "http2-settings: AAA\nhttp2: x\n", SAID "[http2-settings=AAA][http2=x][host=a]"},
        {GET "empty: \nx-tab: a\tb\xff\n", SAID "[empty=][x-tab=a\tb\xff][host=a]"},
        {GET "a!#$%&'*+-.^_`|~9: x\n", SAID "[a!#$%&'*+-.^_`|~9=x][host=a]"},
        {GET "expect: 100-Continue\n", SAID " expect[expect=100-Continue][host=a]"},
        {GET "content-length: 007\n",
         "1 GET path=/ host=a auth=a 20 h2=7 keep[content-length=007][host=a]"},
    };

    expect_good(REQUEST, AG_METHOD_OTHER, rows, AG_COUNT(rows));
}

Test(h2_fields, authority_and_host)
{
    static const struct good_row rows[] = {
        {TARGET "host: b:81\n", "1 GET path=/ host=b auth=b:81 port=81 20 h2 keep[host=b:81]"},
        {GET "x: y\nhost: a\n", SAID "[x=y][host=a]"},
        {GET "host: A\n", SAID "[host=a]"},
        {GET "host: a:80\n", SAID "[host=a]"},
        {":method: GET\n:scheme: https\n:path: /\n:authority: a:443\nhost: a\n",
         "1 GET path=/ host=a auth=a:443 port=443 20 h2 keep https[host=a:443]"},
    };
    static const struct bad_row bad[] = {
        {0, "neither :authority nor Host", TARGET},
        {0, "Host differs from :authority", GET "host: b\n"},
        {0, "Host differs from :authority", GET "host: a:81\n"},
        {0, "Host differs from :authority", GET "host: a:443\n"},
        {0, "more than one Host", GET "host: a\nhost: a\n"},
        {0, "more than one Host", TARGET "host: a\nhost: b\n"},
        {0, "invalid Host", GET "host: \n"},
        {0, "invalid Host", TARGET "host: u@a\n"},
        {0, "invalid Host", TARGET "host: a, b\n"},
        {0, "invalid :authority", TARGET ":authority: \n"},
        {0, "invalid :authority", TARGET ":authority: u@a\n"},
        {0, "invalid :authority", TARGET ":authority: a:0\n"},
        {0, "invalid :authority", TARGET ":authority: a:\n"},
        {0, "invalid :authority", TARGET ":authority: a/b\n"},
        {0, "invalid :authority", TARGET ":authority: \nhost: a\n"},
        {0, "invalid :authority", TARGET ":authority: [::1\n"},
    };

    expect_good(REQUEST, AG_METHOD_OTHER, rows, AG_COUNT(rows));
    expect_bad(REQUEST, bad, AG_COUNT(bad));
}

Test(h2_fields, connect)
{
    static const struct good_row rows[] = {
        {":method: CONNECT\n:authority: a:443\n",
         "6 CONNECT host=a auth=a:443 port=443 20 h2 keep[host=a:443]"},
        {":method: CONNECT\n:authority: a:443\ncontent-length: 0\n",
         "6 CONNECT host=a auth=a:443 port=443 20 h2=0 keep[content-length=0][host=a:443]"},
        {":method: CONNECT\n:protocol: websocket\n:scheme: https\n:path: /c?d\n:authority: a\n",
         "6 CONNECT path=/c?d host=a auth=a 20 h2 keep protocol=websocket https[host=a]"},
    };
    static const struct bad_row bad[] = {
        {0, "invalid CONNECT", ":method: CONNECT\n:authority: a:443\n:path: /\n"},
        {0, "invalid CONNECT", ":method: CONNECT\n:authority: a:443\n:scheme: http\n"},
        {0, "invalid CONNECT", ":method: CONNECT\n:scheme: http\n:path: /\n:authority: a:1\n"},
        {0, "invalid CONNECT", ":method: CONNECT\nhost: a:443\n"},
        {0, "CONNECT without a port", ":method: CONNECT\n:authority: a\n"},
        {0, "CONNECT with content", ":method: CONNECT\n:authority: a:1\ncontent-length: 1\n"},
        {0, "Host differs from :authority", ":method: CONNECT\n:authority: a:80\nhost: a\n"},
        {0, "invalid :protocol, or with another method than CONNECT", GET ":protocol: websocket\n"},
        {0, "invalid :protocol, or with another method than CONNECT",
         ":method: CONNECT\n:protocol: a b\n:scheme: http\n:path: /\n:authority: a\n"},
        {0, "invalid :protocol, or with another method than CONNECT",
         ":method: CONNECT\n:protocol: \n:scheme: http\n:path: /\n:authority: a\n"},
        {0, "invalid :protocol, or with another method than CONNECT",
         ":method: CONNECT\n:protocol: websocket\n:scheme: http\n:path: /\nhost: a\n"},
        {0, "no :scheme or no :path",
         ":method: CONNECT\n:protocol: websocket\n:path: /\n:authority: a\n"},
        {0, "no :scheme or no :path",
         ":method: CONNECT\n:protocol: websocket\n:scheme: http\n:authority: a\n"},
        {0, "CONNECT with content",
         ":method: CONNECT\n:protocol: websocket\n:scheme: http\n:path: /\n:authority: a\n"
         "content-length: 5\n"},
    };

    expect_good(REQUEST, AG_METHOD_OTHER, rows, AG_COUNT(rows));
    expect_bad(REQUEST, bad, AG_COUNT(bad));
}

Test(h2_fields, pseudo_fields)
{
    static const struct bad_row rows[] = {
        {0, "no :method, or an invalid one", ":scheme: http\n:path: /\n:authority: a\n"},
        {0, "no :method, or an invalid one", ":method: \n:scheme: http\n:path: /\n:authority: a\n"},
        {0, "no :method, or an invalid one", ":method: G T\n:scheme: http\n:path: /\nhost: a\n"},
        {0, "no :method, or an invalid one", ":method: G\xe9\n:scheme: http\n:path: /\nhost: a\n"},
        {0, "no :method, or an invalid one", "host: a\n"},
        {0, "no :scheme or no :path", ":method: GET\n:path: /\n:authority: a\n"},
        {0, "no :scheme or no :path", ":method: GET\n:scheme: http\n:authority: a\n"},
        {0, "pseudo-field twice", GET ":method: GET\n"},
        {0, "pseudo-field twice", GET ":path: /\n"},
        {0, "pseudo-field twice", GET ":path: /x\n"},
        {0, "pseudo-field twice", GET ":scheme: http\n"},
        {0, "pseudo-field twice", GET ":authority: b\n"},
        {0, "pseudo-field behind a field",
         ":method: GET\n:scheme: http\na: b\n:path: /\nhost: a\n"},
        {0, "pseudo-field behind a field", TARGET "a: b\n:authority: a\n"},
        {0, "unknown pseudo-field", GET ":status: 200\n"},
        {0, "unknown pseudo-field", GET ":host: a\n"},
        {0, "unknown pseudo-field", GET ":patH: /\n"},
        {0, "unknown pseudo-field", GET ":Method: GET\n"},
        {0, "unknown pseudo-field", GET "a: b\n:x: y\n"},
        {0, "unknown pseudo-field", GET ":: y\n"},
        {400, "unknown scheme", ":method: GET\n:scheme: ftp\n:path: /\n:authority: a\n"},
        {400, "unknown scheme", ":method: GET\n:scheme: \n:path: /\n:authority: a\n"},
        {0, "invalid :path", ":method: GET\n:scheme: http\n:path: \n:authority: a\n"},
        {0, "invalid :path", ":method: GET\n:scheme: http\n:authority: a\n:path: \nreferer: /\n"},
        {0, "invalid :path", ":method: GET\n:scheme: http\n:path: *\n:authority: a\n"},
        {0, "invalid :path", ":method: OPTIONS\n:scheme: http\n:path: **\n:authority: a\n"},
        {0, "invalid :path", ":method: GET\n:scheme: http\n:path: x\n:authority: a\n"},
        {0, "invalid :path", ":method: GET\n:scheme: http\n:path: ?x\n:authority: a\n"},
        {0, "invalid :path", ":method: GET\n:scheme: http\n:path: http://a/\n:authority: a\n"},
        {400, "invalid path", ":method: GET\n:scheme: http\n:path: /%00\n:authority: a\n"},
        {400, "invalid path", ":method: GET\n:scheme: http\n:path: /a b\n:authority: a\n"},
        {400, "invalid path", ":method: GET\n:scheme: http\n:path: /a#b\n:authority: a\n"},
        {400, "invalid path", ":method: GET\n:scheme: http\n:path: /..\\x\n:authority: a\n"},
        {400, "invalid path", ":method: GET\n:scheme: http\n:path: /\xc3\xa9\n:authority: a\n"},
        {400, "invalid query", ":method: GET\n:scheme: http\n:path: /?a b\n:authority: a\n"},
        {400, "invalid query", ":method: GET\n:scheme: http\n:path: /?a#b\n:authority: a\n"},
        {0, "invalid field value", ":method: GET\n:scheme: http\n:path:  /\n:authority: a\n"},
        {0, "invalid field value", ":method: GET \n:scheme: http\n:path: /\n:authority: a\n"},
        {0, "invalid field value", ":method: GET\n:scheme: http\n:path: /\r\n:authority: a\n"},
    };

    expect_bad(REQUEST, rows, AG_COUNT(rows));
}

Test(h2_fields, fields_that_no_request_has)
{
    static const struct bad_row rows[] = {
        {0, "field of a connection", GET "connection: close\n"},
        {0, "field of a connection", GET "connection: \n"},
        {0, "field of a connection", GET "keep-alive: 5\n"},
        {0, "field of a connection", GET "proxy-connection: x\n"},
        {0, "field of a connection", GET "transfer-encoding: chunked\n"},
        {0, "field of a connection", GET "upgrade: websocket\n"},
        {0, "TE other than trailers", GET "te: gzip\n"},
        {0, "TE other than trailers", GET "te: trailers, gzip\n"},
        {0, "TE other than trailers", GET "te: trailers;q=1\n"},
        {0, "TE other than trailers", GET "te: \n"},
        {0, "TE other than trailers", GET "te: trailers\nte: gzip\n"},
        {0, "invalid field name", GET "A: b\n"},
        {0, "invalid field name", GET "Host: a\n"},
        {0, "invalid field name", GET "content-Length: 1\n"},
        {0, "invalid field name", GET "x-a-longer-name-with-a-capitaL: b\n"},
        {0, "invalid field name", GET ": b\n"},
        {0, "invalid field name", GET "a b: c\n"},
        {0, "invalid field name", GET " a: c\n"},
        {0, "invalid field name", GET "a : c\n"},
        {0, "invalid field name", GET "a\t: c\n"},
        {0, "invalid field name", GET "a\r: c\n"},
        {0, "invalid field name", GET "\xc3\xa9: c\n"},
        {0, "invalid field name", GET "a(b: c\n"},
        {0, "invalid field name", GET "a\x7f: c\n"},
        {0, "invalid field value", GET "a:  b\n"},
        {0, "invalid field value", GET "a: b \n"},
        {0, "invalid field value", GET "a: \tb\n"},
        {0, "invalid field value", GET "a: b\t\n"},
        {0, "invalid field value", GET "a:  \n"},
        {0, "invalid field value", GET "a: b\rc\n"},
        {0, "invalid field value", GET "a: b\x01\n"},
        {0, "invalid field value", GET "a: \x7f\n"},
        {0, "invalid field value", GET "te: trailers\r\n"},
        {0, "invalid Content-Length", GET "content-length: \n"},
        {0, "invalid Content-Length", GET "content-length: +1\n"},
        {0, "invalid Content-Length", GET "content-length: -1\n"},
        {0, "invalid Content-Length", GET "content-length: 0x1\n"},
        {0, "invalid Content-Length", GET "content-length: 1 1\n"},
        {0, "invalid Content-Length", GET "content-length: 1, 1\n"},
        {0, "invalid Content-Length", GET "content-length: 9223372036854775808\n"},
        {0, "invalid Content-Length", GET "content-length: 18446744073709551617\n"},
        {0, "invalid Content-Length", GET "content-length: 1\ncontent-length: 1\n"},
        {0, "invalid Content-Length", GET "content-length: 1\ncontent-length: 2\n"},
        {417, "unknown expectation", GET "expect: 200-ok\n"},
        {417, "unknown expectation", GET "expect: \n"},
        {417, "unknown expectation", GET "expect: 100-continue\nexpect: x\n"},
        {0, "field of a connection", GET "expect: x\nconnection: close\n"},
    };

    expect_bad(REQUEST, rows, AG_COUNT(rows));
}

/* Every byte at every place of names and values of every length about the widths of the scans. */
Test(h2_fields, each_byte)
{
    static struct result got;

    for (unsigned len = 1; len <= 40; len += len < 20 ? 1 : 7) {
        for (unsigned ch = 0; ch < 256; ch++) {
            bool ctl = (ch < 0x20 && ch != '\t') || ch == 0x7f, space = ch == ' ' || ch == '\t';
            bool name_good = (ch >= 'a' && ch <= 'z') || (ch >= '0' && ch <= '9') ||
                             (ch && strchr("!#$%&'*+-.^_`|~", (int)ch));

            for (unsigned at = 0; at < len; at += len < 20 ? 1 : 3) {
                uint8_t bytes[256], text[40];
                struct ag_buf b = ag_buf(bytes, sizeof(bytes));
                bool value_good = !ctl && !(space && (at == 0 || at == len - 1));

                memset(text, 'x', sizeof(text));
                text[at] = (uint8_t)ch;
                put_plain_lines(&b, AG_SPAN(GET));
                put_plain(&b, AG_SPAN("x"), ag_span(text, len));
                read_section(REQUEST, ag_buf_span(&b), AG_METHOD_OTHER, &got);
                cr_assert_eq(got.status, value_good ? AG_OK : AG_EPROTO, "%02x at %u of %u", ch, at,
                             len);
                b.len = 0;
                put_plain_lines(&b, AG_SPAN(GET));
                put_plain(&b, ag_span(text, len), AG_SPAN("x"));
                read_section(REQUEST, ag_buf_span(&b), AG_METHOD_OTHER, &got);
                cr_assert_eq(got.status, name_good ? AG_OK : AG_EPROTO, "%02x at %u of %u", ch, at,
                             len);
                empty_arena();
            }
        }
    }
}

Test(h2_fields, cookie_crumbs)
{
    static const struct good_row rows[] = {
        {GET "cookie: a=b\n", SAID "[cookie=a=b][host=a]"},
        {GET "x: 1\ncookie: a=b\ny: 2\ncookie: c=d\ncookie: e\nz: 3\n",
         SAID "[x=1][cookie=a=b; c=d; e][y=2][z=3][host=a]"},
        {GET "cookie: \ncookie: \nhost: a\n", SAID "[cookie=][host=a]"},
        {GET "cookie: \ncookie: a\ncookie: \ncookie: b\n", SAID "[cookie=a; b][host=a]"},
    };

    expect_good(REQUEST, AG_METHOD_OTHER, rows, AG_COUNT(rows));
}

/* ---- answers ---- */

Test(h2_fields, responses)
{
    static const struct good_row rows[] = {
        {":status: 200\n", "200 20 h2"},
        {":status: 200\ncontent-length: 5\nset-cookie: a\nset-cookie: b\ncookie: c\ncookie: d\n",
         "200 20 h2=5[content-length=5][set-cookie=a][set-cookie=b][cookie=c][cookie=d]"},
        {":status: 103\nlink: x\n", "103 20 none[link=x]"},
        {":status: 204\n", "204 20 none"},
        {":status: 304\ncontent-length: 9\n", "304 20 none=9[content-length=9]"},
        {":status: 999\n", "999 20 h2"},
    };
    static const struct good_row of_head[] = {
        {":status: 200\ncontent-length: 5\n", "200 20 none=5[content-length=5]"},
    };
    static const struct good_row of_connect[] = {
        {":status: 200\ncontent-length: 5\n", "200 20 tunnel[content-length=5]"},
        {":status: 404\ncontent-length: 5\n", "404 20 h2=5[content-length=5]"},
    };
    static const struct bad_row bad[] = {
        {0, "no :status, or an invalid one", "a: b\n"},
        {0, "no :status, or an invalid one", ":status: \n"},
        {0, "no :status, or an invalid one", ":status: 20\n"},
        {0, "no :status, or an invalid one", ":status: 2000\n"},
        {0, "no :status, or an invalid one", ":status: 2x0\n"},
        {0, "no :status, or an invalid one", ":status: 099\n"},
        {0, "no :status, or an invalid one", ":status: +20\n"},
        {0, "101 in HTTP/2", ":status: 101\n"},
        {0, "pseudo-field twice", ":status: 200\n:status: 200\n"},
        {0, "pseudo-field behind a field", "a: b\n:status: 200\n"},
        {0, "unknown pseudo-field", ":status: 200\n:method: GET\n"},
        {0, "unknown pseudo-field", ":status: 200\n:path: /\n"},
        {0, "field of a connection", ":status: 200\nconnection: close\n"},
        {0, "field of a connection", ":status: 200\ntransfer-encoding: chunked\n"},
        {0, "invalid Content-Length", ":status: 200\ncontent-length: 1\ncontent-length: 1\n"},
        {0, "invalid Content-Length", ":status: 200\ncontent-length: 1,1\n"},
        {0, "invalid field name", ":status: 200\nServer: x\n"},
        {0, "invalid field value", ":status: 200\nserver: x\r\n"},
    };

    expect_good(RESPONSE, AG_METHOD_GET, rows, AG_COUNT(rows));
    expect_good(RESPONSE, AG_METHOD_HEAD, of_head, AG_COUNT(of_head));
    expect_good(RESPONSE, AG_METHOD_CONNECT, of_connect, AG_COUNT(of_connect));
    expect_bad(RESPONSE, bad, AG_COUNT(bad));
}

Test(h2_fields, trailers)
{
    static const struct good_row rows[] = {
        {"", ""},
        {"grpc-status: 0\netag: x\n", "[grpc-status=0][etag=x]"},
        {"content-length: 5\nhost: b\nauthorization: x\nx-forwarded-for: y\nx_real_ip: z\n"
         "te: trailers\na: b\n",
         "[a=b]"},
        {"cookie: c\nexpect: x\npriority: u=1\nexpires: y\n", ""},
    };
    static const struct bad_row bad[] = {
        {0, "unknown pseudo-field", ":status: 200\n"},
        {0, "unknown pseudo-field", ":path: /\n"},
        {0, "unknown pseudo-field", "a: b\n:method: GET\n"},
        {0, "field of a connection", "connection: a\n"},
        {0, "field of a connection", "transfer-encoding: chunked\n"},
        {0, "invalid field name", "A: b\n"},
        {0, "invalid field value", "a: b\r\n"},
        {0, "invalid Content-Length", "content-length: x\n"},
    };

    expect_good(TRAILERS, AG_METHOD_GET, rows, AG_COUNT(rows));
    expect_bad(TRAILERS, bad, AG_COUNT(bad));
}
