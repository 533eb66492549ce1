/*
 * Goal: of a ClientHello the same is read however it is cut into records and pieces, and nothing malformed passes.
 * Method: hellos put together here, whole, byte by byte, cut at each place, with each length changed.
 */
#include "engine/tls_hello.h"
#include "tests/unit/guarded.h"

#include <criterion/criterion.h>

static uint8_t bytes[40000];
static struct ag_buf msg;
static struct guarded guarded;

static void setup(void)
{
    guarded_open(&guarded);
}

static void teardown(void)
{
    guarded_close(&guarded);
}

TestSuite(tls_hello, .init = setup, .fini = teardown);

static void put(const void *from, size_t n)
{
    ag_buf_put(&msg, ag_span(from, n));
}

static void put16(unsigned n)
{
    put((uint8_t[]){(uint8_t)(n >> 8), (uint8_t)n}, 2);
}

/* An extension of `n` bytes. */
static void put_ext(unsigned type, const void *data, size_t n)
{
    put16(type);
    put16((unsigned)n);
    put(data, n);
}

static void put_name(const char *name)
{
    size_t n = strlen(name);

    put16(0);
    put16((unsigned)n + 5);
    put16((unsigned)n + 3);
    put("\0", 1);
    put16((unsigned)n);
    put(name, n);
}

/* The length at `at`, of `size` bytes, is that of what follows it. */
static void close_length(size_t at, unsigned size)
{
    size_t n = msg.len - at - size;

    for (unsigned i = 0; i < size; i++) {
        msg.ptr[at + i] = (uint8_t)(n >> 8 * (size - 1 - i));
    }
}

/* Up to the extensions; 8 bytes of suites. */
static void begin(unsigned version)
{
    msg = ag_buf(bytes, sizeof(bytes));
    put("\1\0\0\0", 4);
    put16(version);
    put("0123456789abcdef0123456789abcdef", 32);
    put("\4sess", 5);
    put16(8);
    put16(0x0a0a);
    put16(0x1301);
    put16(0xc02b);
    put16(0x009c);
    put("\1\0", 2);
    put16(0);
}

#define EXTENSIONS_AT (4 + 2 + 32 + 5 + 2 + 8 + 2)

static struct ag_span end(void)
{
    close_length(EXTENSIONS_AT, 2);
    close_length(1, 3);
    cr_assert(!msg.overflow);
    return ag_buf_span(&msg);
}

static struct ag_span usual(void)
{
    begin(0x0303);
    put_ext(0x2a2a, "", 0);
    put_name("WWW.Example.org");
    put_ext(16, "\0\14\2h2\10http/1.1", 14);
    put_ext(13, "\0\6\4\3\10\4\10\7", 8);
    put_ext(10, "\0\10\x1a\x1a\0\x1d\0\x18\0\x19", 10);
    put_ext(43, "\6\x1a\x1a\3\4\3\3", 7);
    put_ext(51, "\0\2\0\0", 4);
    return end();
}

/* In records of `most` bytes. */
static struct ag_span records(struct ag_span m, size_t most)
{
    static uint8_t wire[400000];
    struct ag_buf out = ag_buf(wire, sizeof(wire));

    while (m.len > 0) {
        size_t n = ag_min_size(m.len, most);
        ag_buf_put(&out, ag_span((uint8_t[]){22, 3, 1, (uint8_t)(n >> 8), (uint8_t)n}, 5));
        ag_buf_put(&out, ag_span_sub(m, 0, n));
        m = ag_span_sub(m, n, m.len);
    }
    cr_assert(!out.overflow);
    return ag_buf_span(&out);
}

/* In pieces of `piece` bytes. */
static enum ag_status feed(struct ag_tls_hello *h, struct ag_span wire, size_t piece)
{
    enum ag_status st = AG_AGAIN;

    ag_tls_hello_init(h);
    while (st == AG_AGAIN && wire.len > 0) {
        size_t n = ag_min_size(wire.len, piece);
        st = ag_tls_hello_read(h, guarded_copy(&guarded, ag_span_sub(wire, 0, n)));
        wire = ag_span_sub(wire, n, wire.len);
    }
    return st;
}

static enum ag_status read_all(struct ag_tls_hello *h, struct ag_span m)
{
    return feed(h, records(m, 16384), 100000);
}

static void expect_usual(const struct ag_tls_hello *h)
{
    cr_assert(ag_span_eq(ag_tls_hello_name(h), AG_SPAN("www.example.org")));
    cr_assert(h->alpn && h->h2 && h->http_11 && !h->acme);
    cr_assert(h->tls_13 && h->tls_12 && h->signatures);
    cr_assert_eq(h->signs, AG_TLS_SIGNS_P256 | AG_TLS_SIGNS_RSA | AG_TLS_SIGNS_ED25519);
    cr_assert(h->groups && h->on == (AG_TLS_ON_X25519 | AG_TLS_ON_P384 | AG_TLS_ON_P521));
    cr_assert(h->suites_ecdsa && !h->suites_rsa && !h->prefers_chacha);
}

Test(tls_hello, reads_what_is_asked)
{
    struct ag_tls_hello h;

    cr_assert_eq(read_all(&h, usual()), AG_OK);
    expect_usual(&h);
}

Test(tls_hello, any_records_any_pieces)
{
    struct ag_tls_hello h;
    struct ag_span m = usual();

    for (size_t most = 1; most <= m.len; most++) {
        cr_assert_eq(feed(&h, records(m, most), 1), AG_OK, "records of %zu", most);
        expect_usual(&h);
        cr_assert_eq(feed(&h, records(m, most), 7), AG_OK);
        expect_usual(&h);
    }
}

Test(tls_hello, without_extensions_is_an_old_client)
{
    struct ag_tls_hello h;
    struct ag_span m;

    begin(0x0303);
    msg.len -= 2;
    close_length(1, 3);
    m = ag_buf_span(&msg);
    cr_assert_eq(read_all(&h, m), AG_OK);
    cr_assert(h.tls_12 && !h.tls_13 && !h.alpn && !h.signatures && h.name_len == 0);
    msg.ptr[5] = 2;
    cr_assert_eq(read_all(&h, m), AG_OK);
    cr_assert(!h.tls_12 && !h.tls_13);
}

Test(tls_hello, versions_offered_are_those_of_the_extension)
{
    struct ag_tls_hello h;

    begin(0x0303);
    put_ext(43, "\2\3\4", 3);
    cr_assert_eq(read_all(&h, end()), AG_OK);
    cr_assert(h.tls_13 && !h.tls_12);
}

Test(tls_hello, first_suite_tells_a_client_without_aes)
{
    struct ag_tls_hello h;
    struct ag_span m = usual();

    msg.ptr[4 + 2 + 32 + 5 + 2 + 3] = 3; /* 0x1303 */
    cr_assert_eq(read_all(&h, m), AG_OK);
    cr_assert(h.prefers_chacha);
}

/* Every cut message waits for more; a shorter length anywhere is malformed, or is another message. */
Test(tls_hello, cut_short_is_never_whole)
{
    struct ag_tls_hello h;
    struct ag_span m = usual();

    for (size_t n = 1; n < m.len; n++) {
        cr_assert_eq(read_all(&h, ag_span_sub(m, 0, n)), AG_AGAIN, "%zu", n);
    }
    /* The length says that this is all: none is well-formed, but the one without extensions. */
    for (size_t n = 4; n < m.len; n++) {
        usual();
        msg.len = n;
        close_length(1, 3);
        cr_assert_eq(read_all(&h, ag_buf_span(&msg)), n == EXTENSIONS_AT ? AG_OK : AG_EPROTO, "%zu",
                     n);
    }
}

/* The same with the rest of the bytes behind it: they are another message's. */
Test(tls_hello, a_message_ends_where_it_says)
{
    struct ag_tls_hello h;
    struct ag_span m = usual();

    for (size_t n = 4; n < m.len; n++) {
        usual();
        msg.ptr[2] = (uint8_t)((n - 4) >> 8);
        msg.ptr[3] = (uint8_t)(n - 4);
        cr_assert_eq(read_all(&h, m), n == EXTENSIONS_AT ? AG_OK : AG_EPROTO, "%zu", n);
        cr_assert_eq(read_all(&h, ag_span_sub(m, 0, n + 1)), n == EXTENSIONS_AT ? AG_OK : AG_EPROTO,
                     "%zu", n);
    }
}

/* Lengths of the usual one, by place: a change of any does not pass. */
Test(tls_hello, lengths_must_agree)
{
    struct ag_tls_hello h;
    struct ag_span m = usual();
    size_t name = EXTENSIONS_AT + 2 + 4 + 4, alpn = name + 20 + 4, signs = alpn + 14 + 4,
           groups = signs + 8 + 4;
    const size_t places[] = {3,         39 - 1,    44,         EXTENSIONS_AT + 1, name - 1,
                             name + 1,  name + 4,  alpn - 1,   alpn + 1,          alpn + 2,
                             signs - 1, signs + 1, groups - 1, groups + 1,        groups + 10 + 4};

    for (unsigned i = 0; i < AG_COUNT(places); i++) {
        for (int by = -1; by <= 1; by += 2) {
            usual();
            msg.ptr[places[i]] = (uint8_t)(msg.ptr[places[i]] + by);
            enum ag_status st = read_all(&h, m);
            cr_assert(st == AG_EPROTO || (places[i] == 3 && st == AG_AGAIN), "place %zu by %d: %d",
                      places[i], by, st);
        }
    }
}

Test(tls_hello, names_are_names)
{
    static const char *const good[] = {"a", "a.b-c.example", "xn--a_b.example", "1.2.3.4"};
    static const char *const bad[] = {"a b", "a/b", "a:1", "\xc3\xa4", "."};
    struct ag_tls_hello h;
    char longest[256];

    for (unsigned i = 0; i < AG_COUNT(good); i++) {
        begin(0x0303);
        put_name(good[i]);
        cr_assert_eq(read_all(&h, end()), AG_OK);
        cr_assert(ag_span_eq(ag_tls_hello_name(&h), ag_span_str(good[i])));
    }
    for (unsigned i = 0; i < AG_COUNT(bad); i++) {
        begin(0x0303);
        put_name(bad[i]);
        cr_assert_eq(read_all(&h, end()), AG_EPROTO, "%s", bad[i]);
    }
    begin(0x0303);
    put_name("example.org.");
    cr_assert_eq(read_all(&h, end()), AG_OK);
    cr_assert(ag_span_eq(ag_tls_hello_name(&h), AG_SPAN("example.org")));
    memset(longest, 'a', sizeof(longest));
    longest[255] = '\0';
    begin(0x0303);
    put_name(longest);
    cr_assert_eq(read_all(&h, end()), AG_OK);
    cr_assert_eq(h.name_len, 255);
}

Test(tls_hello, what_is_twice_or_empty_is_refused)
{
    struct ag_tls_hello h;

    begin(0x0303);
    put_name("a");
    put_name("b");
    cr_assert_eq(read_all(&h, end()), AG_EPROTO);
    cr_assert_eq(h.alert, AG_TLS_ALERT_ILLEGAL_PARAMETER);
    for (unsigned type = 0; type < 50; type++) {
        bool known = type == 0 || type == 10 || type == 13 || type == 16 || type == 43;
        begin(0x0303);
        put_ext(type, "", 0);
        put_ext(51, "\0\2\0\0", 4);
        cr_assert_eq(read_all(&h, end()), known ? AG_EPROTO : AG_OK, "%u", type);
        begin(0x0303);
        put_ext(type, "\0\0", 2);
        put_ext(51, "\0\2\0\0", 4);
        cr_assert_eq(read_all(&h, end()), known ? AG_EPROTO : AG_OK, "%u", type);
    }
    begin(0x0303);
    put_ext(16, "\0\4\0\2h2", 6);
    cr_assert_eq(read_all(&h, end()), AG_EPROTO);
}

Test(tls_hello, other_protocols_are_no_match)
{
    struct ag_tls_hello h;

    begin(0x0303);
    put_ext(16, "\0\47\1h\3h2x\13http/1.1abc\11acme-tls/\12acme-tls/1", 41);
    msg.ptr[EXTENSIONS_AT + 2 + 5] = 39;
    cr_assert_eq(read_all(&h, end()), AG_OK);
    cr_assert(h.alpn && !h.h2 && !h.http_11 && h.acme);
}

Test(tls_hello, what_is_not_tls)
{
    static const struct {
        const char *bytes;
        size_t len;
        uint8_t alert;
        bool http;
    } cases[] = {
        {"GET / HTTP/1.1\r\n", 16, AG_TLS_ALERT_NONE, true},
        {"PRI * HTTP/2.0\r\n", 16, AG_TLS_ALERT_NONE, true},
        {"\x80\x2e\1\0\2", 5, AG_TLS_ALERT_PROTOCOL_VERSION, false},
        {"\0\0\0\0\0", 5, AG_TLS_ALERT_UNEXPECTED_MESSAGE, false},
        {"\27\3\3\0\1", 5, AG_TLS_ALERT_UNEXPECTED_MESSAGE, false},
        {"\26\2\0\0\1", 5, AG_TLS_ALERT_PROTOCOL_VERSION, false},
        {"\26\3\1\0\0", 5, AG_TLS_ALERT_DECODE_ERROR, false},
        {"\26\3\1\100\1", 5, AG_TLS_ALERT_DECODE_ERROR, false},
        {"\26\3\1\0\1\2", 6, AG_TLS_ALERT_UNEXPECTED_MESSAGE, false},
        {"\26\3\1\0\54\1\0\0\50\2\0", 11, AG_TLS_ALERT_PROTOCOL_VERSION, false},
    };
    struct ag_tls_hello h;

    for (unsigned i = 0; i < AG_COUNT(cases); i++) {
        cr_assert_eq(feed(&h, ag_span(cases[i].bytes, cases[i].len), 1), AG_EPROTO, "%u", i);
        cr_assert_eq(h.alert, cases[i].alert, "%u", i);
        cr_assert_eq(h.plain_http, cases[i].http, "%u", i);
        cr_assert_not_null(h.why);
    }
}

Test(tls_hello, is_bounded)
{
    static uint8_t filler[30000];
    struct ag_tls_hello h;

    begin(0x0303);
    put_ext(21, filler, AG_TLS_HELLO_MAX - EXTENSIONS_AT - 2 - 4);
    cr_assert_eq(end().len, AG_TLS_HELLO_MAX);
    cr_assert_eq(feed(&h, records(ag_buf_span(&msg), 16384), 1000), AG_OK);
    begin(0x0303);
    put_ext(21, filler, AG_TLS_HELLO_MAX - EXTENSIONS_AT - 2 - 3);
    cr_assert_eq(feed(&h, records(end(), 16384), 1000), AG_ELIMIT);
}
