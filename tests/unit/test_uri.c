/*
 * Goal: a path has one normal form, whatever way it was written, and nothing that could mean
 * another file or host to someone else passes.
 */
#include "proto/uri.h"

#include "guarded.h"
#include "proto/h1_scan.h"

static struct guarded guarded;

static void setup(void)
{
    guarded_open(&guarded);
}

static void teardown(void)
{
    guarded_close(&guarded);
}

TestSuite(uri, .init = setup, .fini = teardown);

struct row {
    const char *in, *want; /* want NULL: refused */
};

static const struct row paths[] = {
    {"/", "/"},
    {"/a", "/a"},
    {"/a/", "/a/"},
    {"/a/./b/../%7Ec%2Fd//e", "/a/~c%2Fd//e"},
    /* dot segments, RFC 3986 section 5.2.4 */
    {"/.", "/"},
    {"/./", "/"},
    {"/..", "/"},
    {"/../", "/"},
    {"/../..", "/"},
    {"/../../../etc/passwd", "/etc/passwd"},
    {"/a/b/c/./../../g", "/a/g"},
    {"/a/..", "/"},
    {"/a/../", "/"},
    {"/a/.", "/a/"},
    {"/a/b/..", "/a/"},
    {"/a/../..", "/"},
    {"/a/...", "/a/..."},
    {"/...", "/..."},
    {"/.a", "/.a"},
    {"/..a", "/..a"},
    {"/a.", "/a."},
    {"/a..", "/a.."},
    {"/a./b", "/a./b"},
    {"/.a/..b/c..", "/.a/..b/c.."},
    {"/a/.b/../c", "/a/c"},
    {"/..;/a", "/..;/a"},
    /* written otherwise */
    {"/%2e", "/"},
    {"/%2E%2e/a", "/a"},
    {"/a/%2e%2e/b", "/b"},
    {"/a/.%2e/b", "/b"},
    {"/a/%2e./b", "/b"},
    {"/a/%2e%2e", "/"},
    {"/a/%2e%2e%2fb", "/a/..%2Fb"},
    {"/a/%252e%252e/b", "/a/%252e%252e/b"},
    {"/a/..%2fb", "/a/..%2Fb"},
    {"/a/..%5cb", "/a/..%5Cb"},
    /* double slashes stay, and ".." takes one away */
    {"//", "//"},
    {"//a", "//a"},
    {"//evil.example/..", "//"},
    {"/a//b", "/a//b"},
    {"/a//../b", "/a/b"},
    {"/a/.//b", "/a//b"},
    {"/..//b", "//b"},
    {"/.//", "//"},
    /* escapes */
    {"/%41%7a%30%2d%2E%5f%7e", "/Az0-._~"},
    {"/%2f%5c%25%3f%23", "/%2F%5C%25%3F%23"},
    {"/%2F%5C%3a", "/%2F%5C%3A"},
    {"/%c3%a9", "/%C3%A9"},
    {"/%C0%AE%c0%ae/", "/%C0%AE%C0%AE/"},
    {"/%0d%0A%20%7f", "/%0D%0A%20%7F"},
    {"/%ff", "/%FF"},
    {"/a%", NULL},
    {"/a%4", NULL},
    {"/%", NULL},
    {"/%%41", NULL},
    {"/%4g", NULL},
    {"/%g4", NULL},
    {"/%-1", NULL},
    {"/%u0041", NULL},
    {"/a%00", NULL},
    {"/%00/../b", NULL},
    /* raw bytes */
    {"/!$&'()*+,;=:@-._~", "/!$&'()*+,;=:@-._~"},
    {"/\"<>[]^`{|}", "/\"<>[]^`{|}"},
    {"/a b", NULL},
    {"/a\tb", NULL},
    {"/a\x01", NULL},
    {"/a\x7f", NULL},
    {"/a\x80", NULL},
    {"/\xc3\xa9", NULL},
    {"/a#b", NULL},
    {"/a?b", NULL},
    {"/..\\a", NULL},
    /* no paths */
    {"", NULL},
    {"a", NULL},
    {"*", NULL},
    {"./a", NULL},
    {"\\a", NULL},
};

Test(uri, normal_form)
{
    for (size_t i = 0; i < AG_COUNT(paths); i++) {
        struct ag_span in = guarded_copy(&guarded, ag_span_str(paths[i].in));
        uint8_t *room = malloc(in.len + 1);
        struct ag_buf out = ag_buf(room, in.len);
        const char *want = paths[i].want;
        enum ag_status st = ag_path_normalise(in, &out);

        cr_assert(room);
        cr_expect_eq(st, want ? AG_OK : AG_EPROTO, "%s", paths[i].in);
        cr_expect_eq(ag_path_is_normal(in), want && strcmp(want, paths[i].in) == 0, "%s",
                     paths[i].in);
        if (st == AG_OK && want) {
            cr_expect(ag_span_eq(ag_buf_span(&out), ag_span_str(want)), "%s: %.*s", paths[i].in,
                      (int)out.len, (const char *)out.ptr);
            cr_expect(ag_path_is_normal(ag_buf_span(&out)), "%s", paths[i].in);
        } else {
            cr_expect_eq(out.len, 0);
        }
        free(room);
    }
}

Test(uri, every_byte_in_a_path)
{
    for (unsigned ch = 1; ch < 256; ch++) {
        uint8_t text[3] = {'/', (uint8_t)ch, 'x'}, room[3];
        struct ag_buf out = ag_buf(room, sizeof(room));
        bool good = ch > 0x20 && ch < 0x7f && !strchr("#?\\%", (int)ch);

        cr_expect_eq(ag_path_is_normal(ag_span(text, 3)), good, "%02x", ch);
        cr_expect_eq(ag_path_normalise(ag_span(text, 3), &out) == AG_OK, good, "%02x", ch);
    }
}

/* Plain bytes all through, then one that is not, at every place of a long path. */
Test(uri, odd_bytes_anywhere)
{
    char text[70];

    for (size_t len = 2; len < sizeof(text); len++) {
        for (size_t at = 1; at < len; at++) {
            memset(text, 'a', len);
            text[0] = '/';
            cr_assert(ag_path_is_normal(guarded_copy(&guarded, ag_span(text, len))));
            text[at] = ' ';
            cr_assert_not(ag_path_is_normal(guarded_copy(&guarded, ag_span(text, len))));
            cr_assert_not(ag_query_is_valid(guarded_copy(&guarded, ag_span(text, len))));
            text[at] = '/';
            cr_assert(ag_path_is_normal(guarded_copy(&guarded, ag_span(text, len))));
            if (at + 1 < len) {
                text[at + 1] = '.';
                cr_assert_eq(ag_path_is_normal(guarded_copy(&guarded, ag_span(text, len))),
                             at + 2 < len);
            }
        }
    }
}

Test(uri, appends_to_what_is_there)
{
    uint8_t room[16];
    struct ag_buf out = ag_buf(room, sizeof(room));

    ag_buf_put(&out, AG_SPAN("ab/"));
    cr_assert_eq(ag_path_normalise(AG_SPAN("/../%41"), &out), AG_OK);
    cr_assert(ag_span_eq(ag_buf_span(&out), AG_SPAN("ab//A")));
    cr_assert_eq(ag_path_decode(AG_SPAN("%2e%C3"), &out), AG_OK);
    cr_assert(ag_span_eq(ag_buf_span(&out), AG_SPAN("ab//A.\xc3")));
}

Test(uri, decode)
{
    static const struct row rows[] = {
        {"/a", "/a"},
        {"/%20%5C%25", "/ \\%"},
        {"/%C3%A9", "/\xc3\xa9"},
        {"/%c3%a9", "/\xc3\xa9"},
        {"/%252e", "/%2e"},
        {"/%2525", "/%25"},
        {"/a%2Fb", NULL},
        {"/a%2fb", NULL},
        {"/%00", NULL},
        {"/%", NULL},
        {"/%4", NULL},
        {"/%zz", NULL},
        {"", ""},
    };

    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        struct ag_span in = guarded_copy(&guarded, ag_span_str(rows[i].in));
        uint8_t room[32];
        struct ag_buf out = ag_buf(room, in.len);
        enum ag_status st = ag_path_decode(in, &out);

        cr_expect_eq(st, rows[i].want ? AG_OK : AG_EPROTO, "%s", rows[i].in);
        if (st == AG_OK && rows[i].want) {
            cr_expect(ag_span_eq(ag_buf_span(&out), ag_span_str(rows[i].want)), "%s", rows[i].in);
        }
    }
    uint8_t room[4];
    struct ag_buf out = ag_buf(room, sizeof(room));
    cr_expect_eq(ag_path_decode(AG_SPAN("/a\0b"), &out), AG_EPROTO, "a raw NUL");
}

Test(uri, query)
{
    for (unsigned ch = 0; ch < 256; ch++) {
        uint8_t text[40];
        bool good = ch > 0x20 && ch < 0x7f && ch != '#';

        for (size_t at = 0; at < sizeof(text); at++) {
            memset(text, 'q', sizeof(text));
            text[at] = (uint8_t)ch;
            cr_assert_eq(ag_query_is_valid(ag_span(text, sizeof(text))), good, "%02x", ch);
        }
    }
    cr_expect(ag_query_is_valid(AG_SPAN("")));
    cr_expect(ag_query_is_valid((struct ag_span){NULL, 0}));
    cr_expect(ag_query_is_valid(AG_SPAN("q=100%&r=%zz&s=[]{}|^`\"<>\\/?")));
}

Test(uri, good_authorities)
{
    static const struct {
        const char *in, *host;
        unsigned port;
    } rows[] = {
        {"a", "a", 0},
        {"example.com", "example.com", 0},
        {"Example.COM.:80", "Example.COM.", 80},
        {"x:1", "x", 1},
        {"x:65535", "x", 65535},
        {"x:00080", "x", 80},
        {"127.0.0.1:8080", "127.0.0.1", 8080},
        {"my_host-1~x", "my_host-1~x", 0},
        {"a!$&'()*+,;=b", "a!$&'()*+,;=b", 0},
        {"[::1]", "[::1]", 0},
        {"[::]:443", "[::]", 443},
        {"[2001:DB8::ffff:1]:8443", "[2001:DB8::ffff:1]", 8443},
        {"[::ffff:192.0.2.1]", "[::ffff:192.0.2.1]", 0},
        {"[1:2:3:4:5:6:7:8]", "[1:2:3:4:5:6:7:8]", 0},
    };

    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        struct ag_span host = {NULL, 0};
        uint16_t port = 77;
        struct ag_span in = guarded_copy(&guarded, ag_span_str(rows[i].in));

        cr_expect_eq(ag_authority_parse(in, &host, &port), AG_OK, "%s", rows[i].in);
        cr_expect(ag_span_eq(host, ag_span_str(rows[i].host)), "%s", rows[i].in);
        cr_expect_eq(port, rows[i].port, "%s", rows[i].in);
    }
}

Test(uri, bad_authorities)
{
    static const char *const rows[] = {
        "",
        ":",
        ":80",
        "a:",
        "a:0",
        "a:00000",
        "a:65536",
        "a:99999",
        "a:000080",
        "a:18446744073709551697",
        "a:+80",
        "a:-1",
        "a: 80",
        "a:80 ",
        "a:8a",
        "a:80:80",
        "user@a",
        "user:pw@a",
        "user:80@a",
        "@a",
        " a",
        "a ",
        "a b",
        "a\tb",
        "a/b",
        "a?b",
        "a#b",
        "a\\b",
        "a\"b",
        "a%41",
        "a%",
        "a\x7f",
        "a\x80",
        "\xc3\xa9.example",
        "a,b:80,c:81",
        "[",
        "]",
        "[]",
        "[:]",
        "[::1",
        "::1]",
        "::1",
        "[::1]a",
        "[::1]80",
        "[::1]:",
        "[::1]:0",
        "[::1]:65536",
        "[::1]]",
        "[[::1]]",
        "[::1%25eth0]",
        "[::1%eth0]",
        "[1:2:3:4:5:6:7:8:9]",
        "[1::2::3]",
        "[12345::]",
        "[127.0.0.1]",
        "[v1.a]",
        "[example.com]",
        "[ ::1]",
        "a[::1]",
        "[0000:0000:0000:0000:0000:0000:0000:0000:0000:0000]",
    };

    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        struct ag_span host = AG_SPAN("untouched");
        uint16_t port = 77;
        struct ag_span in = guarded_copy(&guarded, ag_span_str(rows[i]));

        cr_expect_eq(ag_authority_parse(in, &host, &port), AG_EPROTO, "%s", rows[i]);
        cr_expect_eq(host.len, 9);
        cr_expect_eq(port, 77);
    }
    struct ag_span host;
    uint16_t port;
    cr_expect_eq(ag_authority_parse(AG_SPAN("[::1\0x]"), &host, &port), AG_EPROTO);
    cr_expect_eq(ag_authority_parse(AG_SPAN("a\0b"), &host, &port), AG_EPROTO);
}

/* ---- 16 bytes at a time and one by one ---- */

#define SCANNED_MAX 36u

/* Calls `check` with every byte at every place of every length. */
static void each_byte(void (*check)(struct ag_span s, size_t at))
{
    uint8_t text[SCANNED_MAX];

    for (size_t len = 1; len <= SCANNED_MAX; len++) {
        for (size_t at = 0; at < len; at++) {
            for (unsigned ch = 0; ch < 256; ch++) {
                memset(text, 'a', len);
                text[at] = (uint8_t)ch;
                check(guarded_copy(&guarded, ag_span(text, len)), at);
            }
        }
    }
}

static void check_path(struct ag_span s, size_t at)
{
    uint8_t text[SCANNED_MAX + 1] = "/", room[SCANNED_MAX + 1];
    struct ag_span path = {text, s.len + 1};
    struct ag_buf out = ag_buf(room, sizeof(room));

    (void)at;
    memcpy(text + 1, s.ptr, s.len);
    path = guarded_copy(&guarded, path);
    bool same = ag_path_normalise(path, &out) == AG_OK && ag_span_eq(ag_buf_span(&out), path);
    cr_assert_eq(ag_path_is_normal(path), same, "%zu bytes, 0x%02x", path.len, s.ptr[at]);
}

static void check_query(struct ag_span s, size_t at)
{
    cr_assert_eq(ag_query_is_valid(s), ag_char_is(s.ptr[at], AG_CHAR_TARGET));
}

static void check_authority(struct ag_span s, size_t at)
{
    bool valid = ag_char_is(s.ptr[at], AG_CHAR_HOST);
    struct ag_span host;
    uint16_t port;

    if (s.ptr[at] != ':') {
        cr_assert_eq(ag_authority_parse(s, &host, &port) == AG_OK, valid, "0x%02x", s.ptr[at]);
        cr_assert(!valid || ag_span_eq(host, s));
    }
}

/* From every place on, so also less than 16 bytes from the end. */
static void check_scans(struct ag_span s, size_t at)
{
    const uint8_t *end = s.ptr + s.len;

    for (size_t from = 0; from <= s.len; from++) {
        const uint8_t *ctl = s.ptr + from, *byte = ctl;

        while (ctl < end && !ag_scan_is_ctl(*ctl)) {
            ctl++;
        }
        while (byte < end && *byte != '?') {
            byte++;
        }
        cr_assert_eq(ag_scan_ctl(s.ptr, s.ptr + from, end), ctl, "0x%02x", s.ptr[at]);
        cr_assert_eq(ag_scan_ctl(s.ptr + from, s.ptr + from, end), ctl);
        cr_assert_eq(ag_scan_byte(s.ptr + from, end, '?'), byte);
    }
}

Test(uri, each_byte_is_judged_alike_at_each_place)
{
    each_byte(check_path);
    each_byte(check_query);
    each_byte(check_authority);
    each_byte(check_scans);
}
