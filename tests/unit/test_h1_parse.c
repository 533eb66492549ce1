/*
 * Goal: a request head has one meaning, however it arrives, and every head of THREATS.md's framing
 * rows is refused with the right status.
 * Method: each row runs at every split width 1..len. Each call sees the head so far at another
 * address than before, ending at an unmapped page; what was parsed is rebased. All that the parser
 * tells is written out as text and compared, also between the splits.
 */
#include "proto/h1_parse.h"

#include "guarded.h"
#include "heads.h"

#include <stdio.h>

#define HOST "Host: a\r\n"
#define END  HOST "\r\n"

static const struct ag_h1_limits small = {64, 256, 6};

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

TestSuite(h1_parse, .init = setup, .fini = teardown);

/* What came of a head: the summary, and the fields after it. */
struct result {
    enum ag_status status;
    unsigned code;
    const char *error;
    size_t used;
    char text[1024], fields[4096];
};

static void parse(struct ag_span wire, size_t step, const struct ag_h1_limits *limits,
                  struct result *out)
{
    struct ag_h1_parser p = {0};
    struct ag_field first[2];
    struct ag_request r = {.fields = {first, 0, AG_COUNT(first)}};
    struct ag_span in = {NULL, 0};
    struct ag_buf text = ag_buf(out->text, sizeof(out->text));
    struct ag_buf fields = ag_buf(out->fields, sizeof(out->fields));
    enum ag_status st = AG_AGAIN;

    while (st == AG_AGAIN && in.len < wire.len) {
        struct ag_span before = in;
        in = guarded_copy(&guarded, ag_span(wire.ptr, ag_min_size(before.len + step, wire.len)));
        ag_request_rebase(&r, before.ptr, before.len, in.ptr);
        st = ag_h1_parse_request(&p, in, limits, &r, &arena);
    }
    memset(out->text, 0, sizeof(out->text));
    memset(out->fields, 0, sizeof(out->fields));
    out->status = st;
    out->code = p.status;
    out->error = p.error;
    out->used = st == AG_OK ? p.at : 0;
    if (st == AG_OK) {
        describe(&r, &text);
        describe_fields(&r.fields, &fields);
        cr_assert_not(text.overflow || fields.overflow);
    }
}

/* Runs `wire` in all splits, which must agree; the result is in `out`. */
static void parse_splits(const char *name, struct ag_span wire, const struct ag_h1_limits *limits,
                         struct result *out)
{
    static struct result other;

    parse(wire, wire.len, limits, out);
    for (size_t step = 1; step < wire.len; step++) {
        parse(wire, step, limits, &other);
        cr_assert_eq(other.status, out->status, "%s, step %zu: %d", name, step, (int)other.status);
        cr_assert_eq(other.code, out->code, "%s, step %zu: %u", name, step, other.code);
        cr_assert_eq(other.error, out->error, "%s, step %zu: %s", name, step, other.error);
        cr_assert_eq(other.used, out->used, "%s, step %zu", name, step);
        cr_assert_str_eq(other.text, out->text, "%s, step %zu", name, step);
        cr_assert_str_eq(other.fields, out->fields, "%s, step %zu", name, step);
    }
}

static void expect_good(const char *wire, const char *want)
{
    static struct result got;

    parse_splits(wire, ag_span_str(wire), &small, &got);
    cr_expect_eq(got.status, AG_OK, "%s: %d %s", wire, (int)got.status, got.error);
    if (got.status == AG_OK) {
        cr_expect_str_eq(got.text, want, "%s: %s", wire, got.text);
        cr_expect_eq(got.used, strlen(wire), "%s", wire);
    }
}

struct bad_row {
    unsigned code;
    const char *error; /* so that each row meets the check it is meant for */
    const char *wire;
};

static void expect_bad(const struct bad_row *rows, size_t count)
{
    static struct result got;

    for (size_t i = 0; i < count; i++) {
        parse_splits(rows[i].wire, ag_span_str(rows[i].wire), &small, &got);
        cr_expect_eq(got.status, AG_EPROTO, "%s: %d %s", rows[i].wire, (int)got.status, got.text);
        cr_expect_eq(got.code, rows[i].code, "%s: %u %s", rows[i].wire, got.code, got.error);
        cr_expect_str_eq(got.error ? got.error : "", rows[i].error, "%s", rows[i].wire);
    }
}

struct good_row {
    const char *wire, *want;
};

static void expect_all_good(const struct good_row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        expect_good(rows[i].wire, rows[i].want);
    }
}

Test(h1_parse, request_lines)
{
    static const struct good_row rows[] = {
        {"GET / HTTP/1.1\r\n" END, "1 GET path=/ host=a auth=a 11 none keep"},
        {"\r\nGET / HTTP/1.1\r\n" END, "1 GET path=/ host=a auth=a 11 none keep"},
        {"GET / HTTP/1.0\r\n\r\n", "1 GET path=/ 10 none close"},
        {"GET / HTTP/1.0\r\nHost: b:81\r\n\r\n",
         "1 GET path=/ host=b auth=b:81 port=81 10 none close"},
        {"GET / HTTP/1.2\r\n" END, "1 GET path=/ host=a auth=a 11 none keep"},
        {"GET / HTTP/1.9\r\n" END, "1 GET path=/ host=a auth=a 11 none keep"},
        {"DELETE /a HTTP/1.1\r\n" END, "5 DELETE path=/a host=a auth=a 11 none keep"},
        {"PROP!#$%&'*+-.^_`|~9 / HTTP/1.1\r\n" END,
         "0 PROP!#$%&'*+-.^_`|~9 path=/ host=a auth=a 11 none keep"},
        {"get / HTTP/1.1\r\n" END, "0 get path=/ host=a auth=a 11 none keep"},
        {"GET /a/b?c=d&e=f HTTP/1.1\r\n" END, "1 GET path=/a/b?c=d&e=f host=a auth=a 11 none keep"},
        {"GET /? HTTP/1.1\r\n" END, "1 GET path=/? host=a auth=a 11 none keep"},
        {"GET /a?b?c/../d HTTP/1.1\r\n" END, "1 GET path=/a?b?c/../d host=a auth=a 11 none keep"},
        {"GET /a/%2e%2e/b%2fc//d HTTP/1.1\r\n" END,
         "1 GET path=/b%2Fc//d host=a auth=a 11 none keep"},
        {"GET /../../x HTTP/1.1\r\n" END, "1 GET path=/x host=a auth=a 11 none keep"},
        {"GET //x/y HTTP/1.1\r\n" END, "1 GET path=//x/y host=a auth=a 11 none keep"},
    };

    expect_all_good(rows, AG_COUNT(rows));
}

Test(h1_parse, target_forms)
{
    static const struct good_row rows[] = {
        {"GET http://b/c?d HTTP/1.1\r\n" END,
         "1 GET path=/c?d host=b auth=b 11 none absolute keep"},
        {"GET HTTP://B:8080 HTTP/1.1\r\n" END,
         "1 GET path=/ host=B auth=B:8080 port=8080 11 none absolute keep"},
        {"GET https://[::1]:44/../x HTTP/1.1\r\n" END,
         "1 GET path=/x host=[::1] auth=[::1]:44 port=44 11 none absolute keep"},
        {"GET http://b?q HTTP/1.1\r\n" END, "1 GET path=/?q host=b auth=b 11 none absolute keep"},
        {"GET http://b HTTP/1.0\r\n\r\n", "1 GET path=/ host=b auth=b 10 none absolute close"},
        {"OPTIONS http://b HTTP/1.1\r\n" END,
         "7 OPTIONS path=* host=b auth=b 11 none absolute keep"},
        {"OPTIONS http://b/ HTTP/1.1\r\n" END,
         "7 OPTIONS path=/ host=b auth=b 11 none absolute keep"},
        {"OPTIONS http://b?q HTTP/1.1\r\n" END,
         "7 OPTIONS path=/?q host=b auth=b 11 none absolute keep"},
        {"OPTIONS * HTTP/1.1\r\n" END, "7 OPTIONS path=* host=a auth=a 11 none keep"},
        {"OPTIONS /x HTTP/1.1\r\n" END, "7 OPTIONS path=/x host=a auth=a 11 none keep"},
        {"CONNECT b:443 HTTP/1.1\r\n" END, "6 CONNECT host=b auth=b:443 port=443 11 none keep"},
        {"CONNECT [::1]:443 HTTP/1.1\r\n" HOST "Content-Length: 0\r\n\r\n",
         "6 CONNECT host=[::1] auth=[::1]:443 port=443 11 length=0 keep"},
    };

    expect_all_good(rows, AG_COUNT(rows));
}

Test(h1_parse, bad_request_lines)
{
    static const struct bad_row rows[] = {
        {400, "malformed request line", "\r\n\r\nGET / HTTP/1.1\r\n" END},
        {400, "malformed request line", " GET / HTTP/1.1\r\n" END},
        {400, "malformed request line", "\tGET / HTTP/1.1\r\n" END},
        {400, "malformed request line", "G\r\n" END},
        {400, "malformed HTTP version", "GET /abcdefgh\r\n" END},
        {400, "malformed request line", "GET HTTP/1.1\r\n" END},
        {400, "malformed request line", "GET  HTTP/1.1\r\n" END},
        {400, "malformed request line", " / HTTP/1.1\r\n" END},
        {400, "malformed request line", "GET/ HTTP/1.1\r\n" END},
        {400, "malformed request line", "G(T / HTTP/1.1\r\n" END},
        {400, "malformed request line", "G\x80T / HTTP/1.1\r\n" END},
        {400, "malformed request line", "G:T / HTTP/1.1\r\n" END},
        {400, "malformed request line", "GET\t/ HTTP/1.1\r\n" END},
        {400, "invalid request target", "GET  / HTTP/1.1\r\n" END},
        {400, "invalid path", "GET /  HTTP/1.1\r\n" END},
        {400, "invalid path", "GET /\t HTTP/1.1\r\n" END},
        {400, "malformed HTTP version", "GET /\tHTTP/1.1\r\n" END},
        {400, "malformed HTTP version", "GET / HTTP/1.1 \r\n" END},
        {400, "malformed HTTP version", "GET / HTTP/1.12\r\n" END},
        {400, "malformed HTTP version", "GET / HTTP/11.1\r\n" END},
        {400, "malformed HTTP version", "GET / http/1.1\r\n" END},
        {400, "malformed HTTP version", "GET / HTTP/1\r\n" END},
        {400, "malformed HTTP version", "GET / HTTP/1,1\r\n" END},
        {400, "malformed HTTP version", "GET / HTTP/a.1\r\n" END},
        {400, "malformed HTTP version", "GET / HTTP/1.a\r\n" END},
        {400, "malformed HTTP version", "GET / HTTPS/1.1\r\n" END},
        {400, "malformed HTTP version", "GET / ICAP/1.0\r\n" END},
        {400, "malformed HTTP version", "GET /abcdefgh\r\n" END},
        {505, "HTTP version not supported", "GET / HTTP/2.0\r\n" END},
        {505, "HTTP version not supported", "GET / HTTP/3.0\r\n" END},
        {505, "HTTP version not supported", "GET / HTTP/0.9\r\n" END},
        {505, "HTTP version not supported", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"},
    };

    expect_bad(rows, AG_COUNT(rows));
}

Test(h1_parse, bad_targets)
{
    static const struct bad_row rows[] = {
        {400, "invalid path", "GET /a b HTTP/1.1\r\n" END},
        {400, "invalid path", "GET /a#b HTTP/1.1\r\n" END},
        {400, "invalid query", "GET /a?b#c HTTP/1.1\r\n" END},
        {400, "invalid query", "GET /a?b c HTTP/1.1\r\n" END},
        {400, "invalid query", "GET /a?\xc3\xa9 HTTP/1.1\r\n" END},
        {400, "invalid path", "GET /\xc3\xa9 HTTP/1.1\r\n" END},
        {400, "invalid path", "GET /%00 HTTP/1.1\r\n" END},
        {400, "invalid path", "GET /%zz HTTP/1.1\r\n" END},
        {400, "invalid path", "GET /..\\x HTTP/1.1\r\n" END},
        {400, "invalid request target", "GET a HTTP/1.1\r\n" END},
        {400, "invalid request target", "GET ?a HTTP/1.1\r\n" END},
        {400, "invalid request target", "GET ** HTTP/1.1\r\n" END},
        {400, "invalid request target", "GET a:80 HTTP/1.1\r\n" END},
        {400, "invalid request target", "GET ftp://a/ HTTP/1.1\r\n" END},
        {400, "invalid request target", "GET http:/a HTTP/1.1\r\n" END},
        {400, "invalid request target", "GET http:// HTTP/1.1\r\n" END},
        {400, "asterisk target without OPTIONS", "GET * HTTP/1.1\r\n" END},
        {400, "invalid authority in the request target", "GET http:///a HTTP/1.1\r\n" END},
        {400, "invalid authority in the request target", "GET http://u@a/ HTTP/1.1\r\n" END},
        {400, "invalid authority in the request target", "GET http://a:0/ HTTP/1.1\r\n" END},
        {400, "invalid authority in the request target", "GET http://a\\b/ HTTP/1.1\r\n" END},
        {400, "invalid authority in the request target", "GET http://a#/ HTTP/1.1\r\n" END},
        {400, "invalid query", "GET http://a?b#c HTTP/1.1\r\n" END},
        {400, "invalid path", "GET http://a/b#c HTTP/1.1\r\n" END},
        {400, "invalid CONNECT target", "CONNECT / HTTP/1.1\r\n" END},
        {400, "invalid CONNECT target", "CONNECT http://a:1/ HTTP/1.1\r\n" END},
        {400, "invalid CONNECT target", "CONNECT a:0 HTTP/1.1\r\n" END},
        {400, "CONNECT without a port", "CONNECT a HTTP/1.1\r\n" END},
        {400, "CONNECT with content", "CONNECT a:1 HTTP/1.1\r\n" HOST "Content-Length: 1\r\n\r\n"},
        {400, "CONNECT with content",
         "CONNECT a:1 HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n"},
    };

    expect_bad(rows, AG_COUNT(rows));
}

Test(h1_parse, bad_line_ends)
{
    static const struct bad_row rows[] = {
        {400, "bare LF", "GET / HTTP/1.1\n" END},
        {400, "bare LF", "\nGET / HTTP/1.1\r\n" END},
        {400, "bare LF", "GET / HTTP/1.1\r\nHost: a\n\r\n"},
        {400, "bare LF", "GET / HTTP/1.1\r\nHost: a\r\n\n"},
        {400, "bare LF", "GET / HTTP/1.1\r\nHost: a\r\nA: b\nC: d\r\n\r\n"},
        {400, "bare CR", "GET / HTTP/1.1\rX" END},
        {400, "bare CR", "GET / HTTP/1.1\r\r\n" END},
        {400, "bare CR", "\r\r\nGET / HTTP/1.1\r\n" END},
        {400, "bare CR", "GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n"},
        {400, "bare CR", "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n"},
        {400, "bare CR", "GET / HTTP/1.1\r\nHost: a\r\n\rx"},
        {400, "control character", "GET /\x01 HTTP/1.1\r\n" END},
        {400, "control character", "GET / HTTP/1.1\r\nHost: a\r\nA: \x0b\r\n\r\n"},
        {400, "control character", "GET / HTTP/1.1\r\nHost: a\r\nA: \x7f\r\n\r\n"},
        {400, "control character",
         "GET / HTTP/1.1\r\nTransfer-Encoding: \x0b"
         "chunked\r\n" END},
        {400, "control character", "\x16\x03\x01\x02"},
    };

    expect_bad(rows, AG_COUNT(rows));
}

Test(h1_parse, nul_and_other_controls)
{
    static struct result got;

    for (unsigned ch = 0; ch < 256; ch++) {
        char wire[] = "GET / HTTP/1.1\r\nHost: a\r\nA: 0123456789abcdef0123456789\r\n\r\n";
        bool good = ch == '\t' || (ch >= 0x20 && ch != 0x7f);

        for (size_t at = 29; at < 54; at += 3) {
            char before = wire[at];
            wire[at] = (char)ch;
            parse_splits("byte", ag_span(wire, sizeof(wire) - 1), &small, &got);
            cr_assert_eq(got.status, good ? AG_OK : AG_EPROTO, "%02x at %zu", ch, at);
            wire[at] = before;
        }
    }
}

/* Names shorter, as long as and longer than what is looked at in one go; some of them known, in any case. */
Test(h1_parse, what_a_name_is_made_of)
{
    static const char *const names[] = {"A",
                                        "vIA",
                                        "Accept-Encoding",
                                        "X-Forwarded-Host",
                                        "X-Forwarded-Hos_",
                                        "If-Modified-Since",
                                        "a-name-that-nobody-knows"};
    static struct result got;

    for (size_t i = 0; i < AG_COUNT(names); i++) {
        size_t len = strlen(names[i]);

        for (unsigned ch = 0; ch < 256; ch++) {
            char wire[128];
            bool good = (ch >= '0' && ch <= '9') || (ch >= 'A' && ch <= 'Z') ||
                        (ch >= 'a' && ch <= 'z') || (ch && strchr("!#$%&'*+-.^_`|~", (int)ch));
            int n = snprintf(wire, sizeof(wire), "GET / HTTP/1.1\r\nHost: a\r\n%s: x\r\n\r\n",
                             names[i]);

            for (size_t at = 25; at<25 + len; at += len> 4 ? len / 4 : 1) {
                char before = wire[at];

                wire[at] = (char)ch;
                parse_splits("name", ag_span(wire, (size_t)n), &small, &got);
                /* A colon ends it earlier. */
                cr_expect_eq(got.status, good || (ch == ':' && at > 25) ? AG_OK : AG_EPROTO,
                             "%02x at %zu of %s", ch, at - 25, names[i]);
                wire[at] = before;
            }
        }
    }
}

Test(h1_parse, bad_field_lines)
{
    static const struct bad_row rows[] = {
        {400, "folded field line", "GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n"},
        {400, "folded field line", "GET / HTTP/1.1\r\nHost: a\r\n\tB: c\r\n\r\n"},
        {400, "folded field line", "GET / HTTP/1.1\r\n Host: a\r\n\r\n"},
        {400, "folded field line", "GET / HTTP/1.1\r\nHost: a\r\n \r\n\r\n"},
        {400, "field line without a colon", "GET / HTTP/1.1\r\nHost: a\r\nb\r\n\r\n"},
        {400, "field line without a colon", "GET / HTTP/1.1\r\nHost: a\r\nb\r\nC: d\r\n\r\n"},
        {400, "empty field name", "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n"},
        {400, "space before the colon", "GET / HTTP/1.1\r\nHost : a\r\n\r\n"},
        {400, "space before the colon", "GET / HTTP/1.1\r\nHost\t: a\r\n\r\n"},
        {400, "space before the colon", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 1\r\n\r\n"},
        {400, "invalid field name", "GET / HTTP/1.1\r\nHost: a\r\nB(: c\r\n\r\n"},
        {400, "invalid field name", "GET / HTTP/1.1\r\nHost: a\r\nB c: d\r\n\r\n"},
        {400, "invalid field name", "GET / HTTP/1.1\r\nHost: a\r\n\"b\": c\r\n\r\n"},
        {400, "invalid field name", "GET / HTTP/1.1\r\nHost: a\r\n\xc3\xa9: c\r\n\r\n"},
        {400, "invalid field name", "GET / HTTP/1.1\r\nHost: a\r\nb/c: d\r\n\r\n"},
    };

    expect_bad(rows, AG_COUNT(rows));
}

Test(h1_parse, fields_as_received)
{
    static struct result got;
    static const char wire[] = "GET / HTTP/1.1\r\nhOST:a\r\nX_Y: 1\r\nx-y:\t 2 \t\r\nEmpty:\r\n"
                               "Blank: \t \r\nA: b : c\td\x80\xff \"e\"\r\n\r\nrest";
    size_t rest = 4;

    parse_splits("fields", ag_span(wire, sizeof(wire) - 1), &small, &got);
    cr_assert_eq(got.status, AG_OK);
    cr_assert_eq(got.used, sizeof(wire) - 1 - rest, "what follows is another's");
    cr_assert_str_eq(got.fields, "[hOST=a][X_Y=1][x-y=2][Empty=][Blank=]"
                                 "[A=b : c\td\x80\xff \"e\"]");
}

Test(h1_parse, hosts)
{
    static const struct good_row good[] = {
        {"GET / HTTP/1.1\r\nHost: b.example:8080\r\n\r\n",
         "1 GET path=/ host=b.example auth=b.example:8080 port=8080 11 none keep"},
        {"GET / HTTP/1.1\r\nA: b\r\nHost:[::1] \r\n\r\n",
         "1 GET path=/ host=[::1] auth=[::1] 11 none keep"},
    };
    static const struct bad_row bad[] = {
        {400, "no Host", "GET / HTTP/1.1\r\n\r\n"},
        {400, "no Host", "GET http://b/ HTTP/1.1\r\n\r\n"},
        {400, "no Host", "CONNECT b:1 HTTP/1.1\r\n\r\n"},
        {400, "more than one Host", "GET / HTTP/1.1\r\n" HOST END},
        {400, "more than one Host", "GET / HTTP/1.1\r\n" HOST "hosT: b\r\n\r\n"},
        {400, "more than one Host", "GET / HTTP/1.0\r\n" HOST END},
        {400, "invalid Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n"},
        {400, "invalid Host", "GET / HTTP/1.1\r\nHost: \t\r\n\r\n"},
        {400, "invalid Host", "GET / HTTP/1.0\r\nHost: \r\n\r\n"},
        {400, "invalid Host", "GET http://b/ HTTP/1.1\r\nHost: \r\n\r\n"},
        {400, "invalid Host", "GET http://b/ HTTP/1.1\r\nHost: u@b\r\n\r\n"},
        {400, "invalid Host", "CONNECT b:1 HTTP/1.1\r\nHost: b/\r\n\r\n"},
        {400, "invalid Host", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"},
        {400, "invalid Host", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"},
        {400, "invalid Host", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"},
        {400, "invalid Host", "GET / HTTP/1.1\r\nHost: a:x\r\n\r\n"},
        {400, "invalid Host", "GET / HTTP/1.1\r\nHost: a:70000\r\n\r\n"},
        {400, "invalid Host", "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n"},
        {400, "invalid Host", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"},
        {400, "invalid Host", "GET / HTTP/1.1\r\nHost: a?b\r\n\r\n"},
        {400, "invalid Host", "GET / HTTP/1.1\r\nHost: a\\b\r\n\r\n"},
        {400, "invalid Host", "GET / HTTP/1.1\r\nHost: http://a\r\n\r\n"},
    };

    expect_all_good(good, AG_COUNT(good));
    expect_bad(bad, AG_COUNT(bad));
}

Test(h1_parse, the_target_replaces_host)
{
    static struct result got;
    static const char wire[] = "GET http://b:81/ HTTP/1.1\r\nHost: evil.example\r\nA: b\r\n\r\n";

    parse_splits("host", ag_span(wire, sizeof(wire) - 1), &small, &got);
    cr_assert_eq(got.status, AG_OK);
    cr_assert_str_eq(got.fields, "[Host=b:81][A=b]");
}

#define POST "POST / HTTP/1.1\r\n" HOST
#define WANT "3 POST path=/ host=a auth=a 11 "

Test(h1_parse, framing)
{
    static const struct good_row good[] = {
        {POST "\r\n", WANT "none keep"},
        {POST "Content-Length: 0\r\n\r\n", WANT "length=0 keep"},
        {POST "Content-Length: 5\r\n\r\n", WANT "length=5 keep"},
        {POST "content-length:0000000000000000005\r\n\r\n", WANT "length=5 keep"},
        {POST "Content-Length: 9223372036854775807\r\n\r\n",
         WANT "length=9223372036854775807 keep"},
        {POST "Transfer-Encoding: chunked\r\n\r\n", WANT "chunked keep"},
        {POST "TRANSFER-ENCODING:\tChunked \r\n\r\n", WANT "chunked keep"},
        {"GET / HTTP/1.1\r\n" HOST "Content-Length: 3\r\n\r\n",
         "1 GET path=/ host=a auth=a 11 length=3 keep"},
        {"POST / HTTP/1.0\r\nContent-Length: 3\r\n\r\n", "3 POST path=/ 10 length=3 close"},
    };
    static const struct bad_row bad[] = {
        {400, "invalid Content-Length", POST "Content-Length:\r\n\r\n"},
        {400, "invalid Content-Length", POST "Content-Length: +1\r\n\r\n"},
        {400, "invalid Content-Length", POST "Content-Length: -1\r\n\r\n"},
        {400, "invalid Content-Length", POST "Content-Length: 0x1\r\n\r\n"},
        {400, "invalid Content-Length", POST "Content-Length: 1 1\r\n\r\n"},
        {400, "invalid Content-Length", POST "Content-Length: 1,1\r\n\r\n"},
        {400, "invalid Content-Length", POST "Content-Length: 5, 5\r\n\r\n"},
        {400, "invalid Content-Length", POST "Content-Length: 5,\r\n\r\n"},
        {400, "invalid Content-Length", POST "Content-Length: 1.0\r\n\r\n"},
        {400, "invalid Content-Length", POST "Content-Length: 1e3\r\n\r\n"},
        {400, "invalid Content-Length", POST "Content-Length: 1_0\r\n\r\n"},
        {400, "invalid Content-Length", POST "Content-Length: \"5\"\r\n\r\n"},
        {400, "invalid Content-Length", POST "Content-Length: 5;a\r\n\r\n"},
        {400, "invalid Content-Length", POST "Content-Length: 9223372036854775808\r\n\r\n"},
        {400, "invalid Content-Length", POST "Content-Length: 18446744073709551616\r\n\r\n"},
        {400, "invalid Content-Length", POST "Content-Length: 00000000000000000005\r\n\r\n"},
        {400, "invalid Content-Length", POST "Content-Length: 5\r\nContent-Length: 5\r\n\r\n"},
        {400, "invalid Content-Length", POST "Content-Length: 5\r\ncontent-length: 6\r\n\r\n"},
        {400, "invalid Content-Length",
         POST "Content-Length: x\r\nTransfer-Encoding: chunked\r\n\r\n"},
        {400, "Content-Length beside Transfer-Encoding",
         POST "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"},
        {400, "Content-Length beside Transfer-Encoding",
         POST "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n"},
        {400, "Content-Length beside Transfer-Encoding",
         POST "Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\n"},
        {400, "Transfer-Encoding in HTTP/1.0",
         "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"},
        {400, "invalid Transfer-Encoding", POST "Transfer-Encoding:\r\n\r\n"},
        {400, "invalid Transfer-Encoding", POST "Transfer-Encoding: \"chunked\"\r\n\r\n"},
        {400, "invalid Transfer-Encoding", POST "Transfer-Encoding: chunked;a=b\r\n\r\n"},
        {400, "invalid Transfer-Encoding", POST "Transfer-Encoding: chunked,\r\n\r\n"},
        {400, "invalid Transfer-Encoding", POST "Transfer-Encoding: ,chunked\r\n\r\n"},
        {400, "invalid Transfer-Encoding", POST "Transfer-Encoding: chunked, chunked\r\n\r\n"},
        {400, "invalid Transfer-Encoding", POST "Transfer-Encoding: chunked, gzip\r\n\r\n"},
        {400, "invalid Transfer-Encoding", POST "Transfer-Encoding: gzip, chunked\r\n\r\n"},
        {400, "invalid Transfer-Encoding", POST "Transfer-Encoding: chunked x\r\n\r\n"},
        {400, "invalid Transfer-Encoding",
         POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"},
        {400, "invalid Transfer-Encoding",
         POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n"},
        {501, "unknown transfer coding", POST "Transfer-Encoding: identity\r\n\r\n"},
        {501, "unknown transfer coding", POST "Transfer-Encoding: xchunked\r\n\r\n"},
        {501, "unknown transfer coding", POST "Transfer-Encoding: chunke\r\n\r\n"},
        {501, "unknown transfer coding", POST "Transfer-Encoding: gzip\r\n\r\n"},
    };

    expect_all_good(good, AG_COUNT(good));
    expect_bad(bad, AG_COUNT(bad));
}

#define GET11  "GET / HTTP/1.1\r\n" HOST
#define GET10  "GET / HTTP/1.0\r\n" HOST
#define WANT11 "1 GET path=/ host=a auth=a 11 none "
#define WANT10 "1 GET path=/ host=a auth=a 10 none "

Test(h1_parse, connection_and_expect)
{
    static const struct good_row good[] = {
        {GET11 "Connection: close\r\n\r\n", WANT11 "close"},
        {GET11 "Connection: keep-alive\r\n\r\n", WANT11 "keep"},
        {GET11 "Connection: a, CLOSE ,b\r\n\r\n", WANT11 "close"},
        {GET11 "Connection: keep-alive\r\nConnection: close\r\n\r\n", WANT11 "close"},
        {GET11 "Connection: closed\r\n\r\n", WANT11 "keep"},
        {GET11 "Connection: \"close\"\r\n\r\n", WANT11 "keep"},
        {GET11 "Connection:\r\n\r\n", WANT11 "keep"},
        {GET11 "Proxy-Connection: close\r\n\r\n", WANT11 "keep"},
        {GET10 "Connection: Keep-Alive\r\n\r\n", WANT10 "keep"},
        {GET10 "Connection: Keep-Alive, close\r\n\r\n", WANT10 "close"},
        {GET10 "Keep-Alive: timeout=5\r\n\r\n", WANT10 "close"},
        {GET11 "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", WANT11 "keep upgrade"},
        {GET11 "Upgrade: x\r\nConnection: keep-alive, upgrade\r\n\r\n", WANT11 "keep upgrade"},
        {GET11 "Upgrade: websocket\r\n\r\n", WANT11 "keep"},
        {GET11 "Connection: upgrade\r\n\r\n", WANT11 "keep"},
        {GET10 "Connection: upgrade\r\nUpgrade: websocket\r\n\r\n", WANT10 "close"},
        {GET11 "Expect: 100-Continue\r\n\r\n", WANT11 "keep expect"},
        {GET11 "Expect: 100-continue\r\nExpect: 100-continue\r\n\r\n", WANT11 "keep expect"},
        {GET10 "Expect: 100-continue\r\n\r\n", WANT10 "close"},
        {POST "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n", WANT "length=5 keep expect"},
    };
    static const struct bad_row bad[] = {
        {417, "unknown expectation", GET11 "Expect:\r\n\r\n"},
        {417, "unknown expectation", GET11 "Expect: 200-ok\r\n\r\n"},
        {417, "unknown expectation", GET11 "Expect: 100-continue, x\r\n\r\n"},
        {417, "unknown expectation", GET11 "Expect: 100-continue\r\nExpect: x\r\n\r\n"},
        {417, "unknown expectation", GET10 "Expect: x\r\n\r\n"},
    };

    expect_all_good(good, AG_COUNT(good));
    expect_bad(bad, AG_COUNT(bad));
}

/* "GET /xxx HTTP/1.1" so long that the line has `len` bytes with CRLF, and what follows. */
static struct ag_span long_line(char *room, size_t len, const char *rest)
{
    memset(room, 'x', len);
    memcpy(room, "GET /", 5);
    memcpy(room + len - 11, " HTTP/1.1\r\n", 11);
    memcpy(room + len, rest, strlen(rest));
    return ag_span(room, len + strlen(rest));
}

Test(h1_parse, the_request_line_is_bounded)
{
    static struct result got;
    char room[256];

    parse_splits("fits", long_line(room, small.line_max, END), &small, &got);
    cr_expect_eq(got.status, AG_OK);
    parse_splits("a byte more", long_line(room, small.line_max + 1, END), &small, &got);
    cr_expect_eq(got.status, AG_EPROTO);
    cr_expect_eq(got.code, 414);
    parse_splits("two bytes more", long_line(room, small.line_max + 2, END), &small, &got);
    cr_expect_eq(got.code, 414);
    /* The answer does not wait for an LF that may never come. */
    memset(room, 'x', small.line_max);
    parse_splits("no end in sight", ag_span(room, small.line_max), &small, &got);
    cr_expect_eq(got.code, 414);
    parse_splits("one byte left", ag_span(room, small.line_max - 1), &small, &got);
    cr_expect_eq(got.status, AG_AGAIN);
}

/* A head of `len` bytes in all, the last field padded; `fields` of them. */
static struct ag_span long_head(char *room, size_t len)
{
    static const char start[] = GET11 "X: ";

    memset(room, 'x', len);
    memcpy(room, start, sizeof(start) - 1);
    memcpy(room + len - 4, "\r\n\r\n", 4);
    return ag_span(room, len);
}

Test(h1_parse, the_head_is_bounded)
{
    static struct result got;
    char room[512];

    parse_splits("fits", long_head(room, small.head_max), &small, &got);
    cr_expect_eq(got.status, AG_OK);
    for (size_t more = 1; more < 8; more++) {
        parse_splits("more", long_head(room, small.head_max + more), &small, &got);
        cr_expect_eq(got.status, AG_EPROTO, "%zu", more);
        cr_expect_eq(got.code, 431, "%zu", more);
    }
    parse_splits("no end", ag_span(long_head(room, 400).ptr, small.head_max), &small, &got);
    cr_expect_eq(got.code, 431);
    parse_splits("a byte left", ag_span(long_head(room, 400).ptr, small.head_max - 1), &small,
                 &got);
    cr_expect_eq(got.status, AG_AGAIN);
}

Test(h1_parse, fields_are_counted)
{
    static const struct bad_row bad[] = {
        {431, "too many fields", GET11 "A:\r\nA:\r\nA:\r\nA:\r\nA:\r\nA:\r\n\r\n"},
    };

    expect_good(GET11 "A:\r\nA:\r\nA:\r\nA:\r\nA:\r\n\r\n", WANT11 "keep");
    expect_bad(bad, AG_COUNT(bad));
}

Test(h1_parse, the_default_limits_hold_a_large_head)
{
    static struct result got;
    static char wire[32768];
    struct ag_buf b = ag_buf(wire, sizeof(wire));
    const struct ag_h1_limits limits = AG_H1_LIMITS_DEFAULT;

    ag_buf_put(&b, AG_SPAN(GET11));
    for (unsigned i = 1; i < 100; i++) {
        ag_buf_printf(&b, "X-%u: %030u\r\n", i, i);
    }
    ag_buf_put(&b, AG_SPAN("\r\n"));
    cr_assert_not(b.overflow);
    for (size_t step = 997; step <= b.len + 997; step += 997) {
        parse(ag_buf_span(&b), step, &limits, &got);
        cr_assert_eq(got.status, AG_OK, "%s", got.error);
        cr_assert(strstr(got.fields, "[X-99=000000000000000000000000000099]"));
    }
}

Test(h1_parse, incomplete_heads_ask_for_more)
{
    static struct result got;
    static const char wire[] = "\r\nGET /a?b HTTP/1.1\r\nHost: a\r\nA: b\r\n\r\n";

    for (size_t len = 1; len < sizeof(wire) - 1; len++) {
        parse_splits("incomplete", ag_span(wire, len), &small, &got);
        cr_assert_eq(got.status, AG_AGAIN, "%zu", len);
    }
    struct ag_h1_parser p = {0};
    struct ag_request r = {0};
    cr_assert_eq(ag_h1_parse_request(&p, ag_span(NULL, 0), &small, &r, &arena), AG_AGAIN);
}

Test(h1_parse, the_arena_may_be_out_of_room)
{
    struct ag_pool pages;
    struct ag_arena none;
    struct ag_field first[4];

    cr_assert_eq(ag_pool_init(&pages, "pages", AG_ARENA_PAGE_BYTES, 4), AG_OK);
    ag_arena_init(&none, &pages, 0);
    static const struct {
        const char *wire;
        enum ag_status want;
    } rows[] = {
        {"GET / HTTP/1.1\r\n" HOST "A: b\r\nA: b\r\nA: b\r\n\r\n", AG_OK},
        {"GET / HTTP/1.1\r\n" HOST "A: b\r\nA: b\r\nA: b\r\nA: b\r\n\r\n", AG_ENOMEM},
        {"GET /./ HTTP/1.1\r\n" END, AG_ENOMEM},
    };
    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        struct ag_h1_parser p = {0};
        struct ag_request r = {.fields = {first, 0, AG_COUNT(first)}};
        cr_expect_eq(ag_h1_parse_request(&p, ag_span_str(rows[i].wire), &small, &r, &none),
                     rows[i].want);
    }
    ag_pool_deinit(&pages);
}

Test(h1_parse, long_paths)
{
    static char wire[AG_ARENA_ALLOC_MAX + 64];
    const struct ag_h1_limits limits = AG_H1_LIMITS_DEFAULT;
    struct ag_pool pages;
    struct ag_arena pooled;

    cr_assert_eq(ag_pool_init(&pages, "pages", AG_ARENA_PAGE_BYTES, 4), AG_OK);
    ag_arena_init(&pooled, &pages, 4);
    for (unsigned odd = 0; odd < 2; odd++) {
        struct ag_h1_parser p = {0};
        struct ag_request r = {0};
        struct ag_span in = long_line(wire, AG_ARENA_ALLOC_MAX + 32, END);

        memcpy(wire + 4, odd ? "/./" : "/a/", 3);
        enum ag_status st = ag_h1_parse_request(&p, in, &limits, &r, &pooled);
        cr_expect_eq(st, odd ? AG_EPROTO : AG_OK);
        cr_expect_eq(p.status, odd ? 414 : 0);
    }
    ag_arena_release(&pooled);
    ag_pool_deinit(&pages);
}

Test(h1_parse, names_are_bounded)
{
    static char wire[70000];
    const struct ag_h1_limits wide = {1024, sizeof(wire), 10};
    static const char start[] = GET11;

    for (size_t more = 0; more < 2; more++) {
        struct ag_h1_parser p = {0};
        struct ag_request r = {0};
        struct ag_buf b = ag_buf(wire, sizeof(wire));

        ag_buf_put(&b, ag_span(start, sizeof(start) - 1));
        memset(wire + b.len, 'x', UINT16_MAX + more);
        b.len += UINT16_MAX + more;
        ag_buf_put(&b, AG_SPAN(": y\r\n\r\n"));
        cr_assert_not(b.overflow);
        enum ag_status st = ag_h1_parse_request(&p, ag_buf_span(&b), &wide, &r, &arena);
        cr_expect_eq(st, more ? AG_EPROTO : AG_OK);
        cr_expect_eq(p.status, more ? 431 : 0);
        cr_expect_eq(r.fields.count, more ? 1 : 2);
    }
}
