/*
 * Goal: what is sent as a field section is what was to be said, without what belongs to a connection; within
 * the bound that is told for it; and with secrets in no table.
 * Method: sections are decoded again by our decoder, and looked at byte by byte where their form matters.
 */
#include "h2_sections.h"

#include "proto/h1_write.h"

TestSuite(h2_fields_write, .init = setup, .fini = teardown);

static uint8_t bytes[1 << 17];
static char text[1 << 17];

/* A list of fields of `lines`, names as they are. */
static struct ag_fields fields_of(const char *lines)
{
    struct ag_fields f = {0};
    struct ag_span in = ag_span_str(lines), name, value;

    while (next_line(&in, &name, &value)) {
        cr_assert_eq(ag_fields_add(&f, &arena, ag_field_id_from_name(name), name, value), AG_OK);
    }
    return f;
}

static const char *lines_of(const struct ag_buf *section)
{
    struct ag_buf lines = ag_buf(text, sizeof(text) - 1);

    cr_assert_not(section->overflow);
    put_lines_of(&decoder, ag_buf_span(section), &lines);
    text[lines.len] = 0;
    return text;
}

/* In as much room as the bound tells, three times: literals, added, indices. */
static void expect_response(const struct ag_response *res, const char *date, const char *want)
{
    for (unsigned round = 0; round < 3; round++) {
        struct ag_buf b = ag_buf(bytes, ag_h2_response_max(res));

        ag_h2_put_response(&encoder, &b, res, ag_span_str(date));
        cr_expect_str_eq(lines_of(&b), want);
    }
}

static void expect_request(const struct ag_request *req, const char *target, const char *host,
                           bool te, const char *want)
{
    for (unsigned round = 0; round < 3; round++) {
        struct ag_buf b =
            ag_buf(bytes, ag_h2_request_max(req, ag_span_str(target), ag_span_str(host)));

        ag_h2_put_request(&encoder, &b, req, AG_SPAN("https"), ag_span_str(target),
                          ag_span_str(host), te);
        cr_expect_str_eq(lines_of(&b), want);
    }
}

#define OF_CONNECTION                                                                        \
    "Connection: close, X\nKeep-Alive: 5\nProxy-Connection: x\nTransfer-Encoding: chunked\n" \
    "Upgrade: websocket\nTE: gzip\nHTTP2-Settings: AA\nContent-Length: 99\nHost: b\n"

Test(h2_fields_write, requests)
{
    struct ag_request req = {.method_name = AG_SPAN("GET"),
                             .method = AG_METHOD_GET,
                             .content_length = AG_LENGTH_UNKNOWN};

    req.fields = fields_of(OF_CONNECTION "User-Agent: x\nX_Y: \nX-Mixed!: A\xff\tb\nCookie: a=b\n");
    expect_request(&req, "/a?b", "h:1", false,
                   ":method: GET\n:scheme: https\n:path: /a?b\n:authority: h:1\nuser-agent: x\n"
                   "x_y: \nx-mixed!: A\xff\tb\ncookie: a=b\n");
    ag_fields_remove(&req.fields, AG_FIELD_USER_AGENT);
    req.method_name = AG_SPAN("PROP");
    req.method = AG_METHOD_OTHER;
    req.framing = AG_FRAMING_LENGTH;
    req.content_length = 7;
    expect_request(&req, "/", "h", true,
                   ":method: PROP\n:scheme: https\n:path: /\n:authority: h\nx_y: \n"
                   "x-mixed!: A\xff\tb\ncookie: a=b\ncontent-length: 7\nte: trailers\n");
    req.fields.count = 0;
    req.framing = AG_FRAMING_H2;
    expect_request(&req, "*", "h", false,
                   ":method: PROP\n:scheme: https\n:path: *\n:authority: h\ncontent-length: 7\n");
    req.content_length = AG_LENGTH_UNKNOWN;
    expect_request(&req, "*", "h", false,
                   ":method: PROP\n:scheme: https\n:path: *\n:authority: h\n");
    req.framing = AG_FRAMING_CHUNKED;
    req.content_length = 3;
    expect_request(&req, "*", "h", false,
                   ":method: PROP\n:scheme: https\n:path: *\n:authority: h\n");
    req.framing = AG_FRAMING_NONE;
    expect_request(&req, "*", "h", false,
                   ":method: PROP\n:scheme: https\n:path: *\n:authority: h\n");
}

Test(h2_fields_write, connect)
{
    struct ag_request req = {.method_name = AG_SPAN("CONNECT"),
                             .method = AG_METHOD_CONNECT,
                             .content_length = AG_LENGTH_UNKNOWN};

    expect_request(&req, "", "h:1", false, ":method: CONNECT\n:authority: h:1\n");
    req.protocol = AG_SPAN("websocket");
    expect_request(&req, "/x", "h", false,
                   ":method: CONNECT\n:scheme: https\n:path: /x\n:authority: h\n"
                   ":protocol: websocket\n");
}

Test(h2_fields_write, responses)
{
    struct ag_response res = {.status = 200, .content_length = AG_LENGTH_UNKNOWN};

    res.fields = fields_of(OF_CONNECTION "Server: x\nSet-Cookie: a\nSet-Cookie: b\nX-A: 1\n");
    expect_response(&res, "now",
                    ":status: 200\nserver: x\nset-cookie: a\nset-cookie: b\nx-a: 1\ndate: now\n");
    expect_response(&res, "", ":status: 200\nserver: x\nset-cookie: a\nset-cookie: b\nx-a: 1\n");
    res.status = 999;
    res.fields = fields_of("A:  \t1 \t\nB: \t\nC: x y\n"); /* of a configuration */
    expect_response(&res, "", ":status: 999\na: 1\nb: \nc: x y\n");
}

Test(h2_fields_write, content_length)
{
    static const struct {
        unsigned status;
        enum ag_framing framing;
        uint64_t length;
        bool told;
    } rows[] = {
        {200, AG_FRAMING_LENGTH, 5, true},
        {200, AG_FRAMING_LENGTH, 0, true},
        {200, AG_FRAMING_H2, 5, true},
        {200, AG_FRAMING_H2, AG_LENGTH_UNKNOWN, false},
        {200, AG_FRAMING_CHUNKED, 5, false},
        {200, AG_FRAMING_CLOSE, 5, false},
        {200, AG_FRAMING_TUNNEL, 5, false},
        {200, AG_FRAMING_NONE, 5, true},
        {200, AG_FRAMING_NONE, 0, true},
        {304, AG_FRAMING_NONE, 0, false},
        {304, AG_FRAMING_NONE, 5, true},
        {204, AG_FRAMING_NONE, 0, false},
        {204, AG_FRAMING_LENGTH, 0, false},
        {103, AG_FRAMING_NONE, 0, false},
        {200, AG_FRAMING_NONE, AG_LENGTH_UNKNOWN, false},
    };

    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        struct ag_response res = {.status = rows[i].status,
                                  .framing = (uint8_t)rows[i].framing,
                                  .content_length = rows[i].length};
        struct ag_buf b = ag_buf(bytes, ag_h2_response_max(&res));

        ag_h2_put_response(&encoder, &b, &res, AG_SPAN(""));
        cr_expect_eq(strstr(lines_of(&b), "content-length") != NULL, rows[i].told, "row %zu", i);
    }
}

Test(h2_fields_write, trailers)
{
    struct ag_fields f = fields_of(OF_CONNECTION "Grpc-Status: 0\nETag: x\n");
    struct ag_buf b = ag_buf(bytes, ag_h2_fields_max(&f));

    ag_h2_put_trailers(&encoder, &b, &f);
    cr_expect_str_eq(lines_of(&b), "grpc-status: 0\netag: x\n");
    b.len = 0;
    f.count = 0;
    ag_h2_put_trailers(&encoder, &b, &f);
    cr_expect_eq(b.len, 0);
}

/* Whatever the names, values and table sizes are. */
Test(h2_fields_write, the_bound_holds)
{
    static uint8_t long_text[70000];

    srand(9);
    for (unsigned round = 0; round < 3000; round++) {
        struct ag_response res = {
            .status = 100 + (unsigned)rand() % 900,
            .framing = AG_FRAMING_LENGTH,
            .content_length = rand() % 2 ? INT64_MAX : (uint64_t)rand() % 10,
        };
        struct ag_buf b;

        memset(long_text, rand() % 2 ? 'Q' : 0xfa,
               sizeof(long_text)); /* short, or long in Huffman */
        ag_hpack_resize(&encoder, (uint32_t)rand() % 5000);
        for (unsigned n = (unsigned)rand() % 5; n > 0; n--) {
            size_t name_len = 1 + (size_t)rand() % (rand() % 50 ? 40 : 65535);
            struct ag_span name = ag_span(long_text, name_len);
            struct ag_span value = ag_span(long_text, (size_t)rand() % (rand() % 20 ? 300 : 9000));
            unsigned id = (unsigned)rand() % AG_FIELDS;

            name = id ? ag_field_name((enum ag_field_id)id) : name;
            cr_assert_eq(ag_fields_add(&res.fields, &arena, (enum ag_field_id)id, name, value),
                         AG_OK);
        }
        b = ag_buf(bytes, ag_h2_response_max(&res));
        cr_assert_leq(b.cap, sizeof(bytes) * 3);
        if (b.cap <= sizeof(bytes)) {
            ag_h2_put_response(&encoder, &b, &res, AG_SPAN("Sun, 06 Nov 1994 08:49:37 GMT"));
            (void)lines_of(&b);
        }
        empty_arena();
    }
}

/* ---- what is added to the table ---- */

static size_t added(const char *line)
{
    struct ag_response res = {.status = 200, .content_length = AG_LENGTH_UNKNOWN};
    struct ag_buf b;
    size_t before = encoder.table.count;

    res.fields = fields_of(line);
    b = ag_buf(bytes, ag_h2_response_max(&res));
    ag_h2_put_response(&encoder, &b, &res, AG_SPAN(""));
    cr_assert_eq(b.ptr[0], 0x88);
    (void)lines_of(&b);
    return encoder.table.count - before;
}

Test(h2_fields_write, what_repeats_is_added)
{
    static const char *const at_once[] = {
        "Server: x\n",    "Content-Type: text/html\n", "Via: 1.1 anygate\n",
        "Vary: accept\n", "Cache-Control: no-cache\n", "User-Agent: x\n",
        "Accept: x/y\n",  "Accept-Encoding: br\n",
    };
    static const char *const the_second_time[] = {
        "Date: now\n",
        "X-Own: 1\n",
        "Referer: x\n",
        "ETag: \"x\"\n",
        "Last-Modified: x\n",
        "Content-Length-X: 5\n",
        "X-Forwarded-For: 1.2.3.4\n",
        "Forwarded: for=x\n",
        "Cookie: a-session-of-more-than-20-bytes\n",
    };
    static const char *const never[] = {
        "Location: /x\n",
        "Age: 5\n",
        "If-None-Match: \"x\"\n",
        "Range: bytes=0-1\n",
        "Retry-After: 1\n",
        "Sec-WebSocket-Key: x\n",
        "WWW-Authenticate: x\n",
        "Authorization: Bearer x\n",
        "Proxy-Authorization: x\n",
        "Set-Cookie: x=y\n",
        "Cookie: short=19-bytes-all\n",
    };

    for (size_t i = 0; i < AG_COUNT(at_once); i++) {
        cr_expect_eq(added(at_once[i]), 1, "%s", at_once[i]);
        cr_expect_eq(added(at_once[i]), 0, "%s", at_once[i]);
    }
    for (size_t i = 0; i < AG_COUNT(the_second_time); i++) {
        cr_expect_eq(added(the_second_time[i]), 0, "%s", the_second_time[i]);
        cr_expect_eq(added(the_second_time[i]), 1, "%s", the_second_time[i]);
        cr_expect_eq(added(the_second_time[i]), 0, "%s", the_second_time[i]);
    }
    for (size_t i = 0; i < 3 * AG_COUNT(never); i++) {
        cr_expect_eq(added(never[i / 3]), 0, "%s", never[i / 3]);
    }
}

/* Paths of many clients: never. */
Test(h2_fields_write, paths_are_not_added)
{
    struct ag_request req = {.method_name = AG_SPAN("GET"), .content_length = AG_LENGTH_UNKNOWN};
    struct ag_buf b;

    for (unsigned i = 0; i < 3; i++) {
        b = ag_buf(bytes, sizeof(bytes));
        ag_h2_put_request(&encoder, &b, &req, AG_SPAN("http"), AG_SPAN("/x?token=1"), AG_SPAN("a"),
                          false);
        cr_expect_eq(encoder.table.count, 1, "the authority alone");
    }
}

/* RFC 7541 section 6.2.3: nobody on the way may add them. */
Test(h2_fields_write, secrets_are_told_as_such)
{
    static const char *const secrets[] = {
        "Authorization: a\n",
        "Proxy-Authorization: a\n",
        "Set-Cookie: a\n",
        "Cookie: a\n",
    };

    for (unsigned prepared = 0; prepared < 2; prepared++) {
        for (size_t i = 0; i < AG_COUNT(secrets); i++) {
            struct ag_response res = {.status = 200, .content_length = AG_LENGTH_UNKNOWN};
            struct ag_buf b = ag_buf(bytes, sizeof(bytes));

            res.fields = fields_of(secrets[i]);
            if (prepared) {
                ag_h2_prepare(&b, &res);
            } else {
                ag_h2_put_response(&encoder, &b, &res, AG_SPAN(""));
            }
            cr_expect_eq(b.ptr[1] & 0xf0, 0x10, "%s", secrets[i]);
        }
    }
}

/* ---- made at load ---- */

Test(h2_fields_write, prepared_answers_need_no_table)
{
    struct ag_response res = {.status = 207, .framing = AG_FRAMING_LENGTH, .content_length = 12};
    struct ag_buf b, date;

    res.fields = fields_of("Content-Type: text/plain\nX-Own: 1\nX-Own: 1\nVary: x\nVary: x\n");
    b = ag_buf(bytes, ag_h2_response_max(&res));
    ag_h2_prepare(&b, &res);
    date = ag_buf(bytes + b.len, AG_H2_DATE_BYTES);
    ag_h2_prepare_date(&date, AG_SPAN("Sun, 06 Nov 1994 08:49:37 GMT"));
    cr_assert_not(date.overflow);
    b.len += date.len;
    for (unsigned i = 0; i < 2; i++) {
        cr_expect_str_eq(lines_of(&b), ":status: 207\ncontent-type: text/plain\nx-own: 1\n"
                                       "x-own: 1\nvary: x\nvary: x\ncontent-length: 12\n"
                                       "date: Sun, 06 Nov 1994 08:49:37 GMT\n");
        cr_expect_eq(decoder.table.count, 0);
    }
}

/* Every second of some days: none takes more room than there is. */
Test(h2_fields_write, dates)
{
    struct ag_date_cache d = {0};

    for (int64_t s = 0; s < 40000000; s += 7919) {
        struct ag_span field = ag_date_h2(&d, s);
        struct ag_buf b = {(uint8_t *)(uintptr_t)field.ptr, field.len, field.len, false};
        struct ag_span value = ag_date_value(&d, s);

        cr_assert(strncmp(lines_of(&b), "date: ", 6) == 0);
        cr_assert(strncmp(text + 6, (const char *)value.ptr, value.len) == 0);
        cr_assert_str_eq(text + 6 + value.len, "\n");
    }
    d.h2[1] = '!';
    cr_expect_eq(ag_date_h2(&d, d.h2_second).ptr[1], '!', "not written anew within a second");
    cr_expect_neq(ag_date_h2(&d, d.h2_second + 1).ptr[1], '!');
}

/* ---- priorities ---- */

Test(h2_fields_write, priorities)
{
    static const struct {
        const char *value;
        unsigned urgency;
        bool incremental;
    } rows[] = {
        {"", 3, false},
        {"u=0", 0, false},
        {"u=7, i", 7, true},
        {"i, u=1", 1, true},
        {"  u=1  ", 1, false},
        {"u=1,i=?1", 1, true},
        {"u=1 \t, \ti=?0", 1, false},
        {"i=?1, i=?0", 3, false},
        {"u=1, u=2", 2, false},
        {"u=5;x=1;y, i;z=\"a\"", 5, true},
        {"u=8", 3, false},
        {"u=-1", 3, false},
        {"u=-0", 0, false},
        {"u=1.0", 3, false},
        {"u=\"1\"", 3, false},
        {"u", 3, false},
        {"u=?1", 3, false},
        {"i=1", 3, false},
        {"i=(1 2)", 3, false},
        {"u=(1), i", 3, true},
        {"u=1, x=tok/en:*, *y_-.*=:aGk=:, z=( \"a\\\"\\\\\" b;c=1  2.5 );d, i", 1, true},
        {"x=123456789012345, y=-123456789012.123, u=2", 2, false},
        /* malformed: nothing of it holds */
        {"u=1,", 3, false},
        {",u=1", 3, false},
        {"u=1,,i", 3, false},
        {"u=1 i", 3, false},
        {"u=1; i;", 3, false},
        {"u =1", 3, false},
        {"u= 1", 3, false},
        {"U=1", 3, false},
        {"u=1, I", 3, false},
        {"1=u", 3, false},
        {"u=1, x=", 3, false},
        {"u=1, x=\"a", 3, false},
        {"u=1, x=\"a\\b\"", 3, false},
        {"u=1, x=\"\x80\"", 3, false},
        {"u=1, x=?2", 3, false},
        {"u=1, x=?", 3, false},
        {"u=1, x=:a", 3, false},
        {"u=1, x=:!:", 3, false},
        {"u=1, x=(a", 3, false},
        {"u=1, x=(a\"b\")", 3, false},
        {"u=1, x=(a,b)", 3, false},
        {"u=1, x=(!)", 3, false},
        {"u=1, x=-", 3, false},
        {"u=1, x=1.", 3, false},
        {"u=1, x=1.2345", 3, false},
        {"u=1, x=1234567890123456", 3, false},
        {"u=1, x=1234567890123.1", 3, false},
        {"u=1, x;=1", 3, false},
        {"u=1, x;a=", 3, false},
        {"u=1\ti", 3, false},
        {"\tu=1", 3, false},
        {"u=1\x80", 3, false},
    };

    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        struct ag_h2_priority p = AG_H2_PRIORITY_DEFAULT, kept = {6, true};

        ag_h2_priority_read(ag_span_str(rows[i].value), &p);
        cr_expect(p.urgency == rows[i].urgency && p.incremental == rows[i].incremental, "%s: %u %d",
                  rows[i].value, p.urgency, p.incremental);
        ag_h2_priority_read(ag_span_str(rows[i].value), &kept);
        cr_expect(kept.urgency == 6 || kept.urgency == rows[i].urgency);
    }
}
