/*
 * Goal: a PROXY header is read the same however it comes, nothing malformed passes, and what is written is read
 *   back.
 * Method: headers put together here, in every prefix, each ending at an unmapped page.
 */
#include "engine/resolver.h"
#include "proto/proxy_protocol.h"
#include "tests/unit/guarded.h"

#include <criterion/criterion.h>

#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
/* 192.0.2.1:4660 -> 192.0.2.2:443 */
#define V4 "\xc0\0\2\1\xc0\0\2\2\x12\x34\1\xbb"
/* The header up to its length: command, family, length. */
#define V2(rest) AG_SPAN(SIGNATURE rest)

static struct guarded guarded;
static struct ag_proxied got;
static size_t got_len;
static const char *why;

static void setup(void)
{
    guarded_open(&guarded);
    why = NULL;
}

static void teardown(void)
{
    guarded_close(&guarded);
}

TestSuite(proxy_protocol, .init = setup, .fini = teardown);

static enum ag_status read_at_guard(struct ag_span in)
{
    memset(&got, 0xaa, sizeof(got));
    return ag_proxy_protocol_read(guarded_copy(&guarded, in), &got, &got_len, &why);
}

/* The whole of `in`, and each beginning of it, which must neither pass nor fail. */
static void expect_header(struct ag_span in)
{
    uint8_t more[8192];

    for (size_t n = 0; n < in.len; n++) {
        cr_assert_eq(read_at_guard(ag_span_sub(in, 0, n)), AG_AGAIN, "%zu of %.*s", n, (int)in.len,
                     (const char *)in.ptr);
        cr_assert_eq(got.source.family, 0xaa, "untouched");
    }
    memcpy(more, in.ptr, in.len);
    memcpy(more + in.len, "\r\n\0GET /", 8);
    cr_assert_eq(read_at_guard(ag_span(more, in.len + 8)), AG_OK, "%s", why);
    cr_assert_eq(got_len, in.len);
    cr_assert_eq(read_at_guard(in), AG_OK, "%s", why);
    cr_assert_eq(got_len, in.len);
}

static void expect_refused(struct ag_span in, const char *text)
{
    why = NULL;
    cr_expect_eq(read_at_guard(in), AG_EPROTO, "%.*s", (int)in.len, (const char *)in.ptr);
    cr_expect(why && strstr(why, text), "%s is not %s: %.*s", why, text, (int)in.len,
              (const char *)in.ptr);
}

static void expect_peer(const struct ag_peer *p, const char *text)
{
    char room[80];
    struct ag_buf b = ag_buf(room, sizeof(room));
    union ag_addr addr;

    ag_peer_known(p, &addr);
    if (addr.sa.sa_family != AF_UNSPEC) {
        ag_addr_format(&addr, true, &b);
    }
    cr_expect(ag_span_eq(ag_buf_span(&b), ag_span_str(text)), "%.*s is not %s", (int)b.len, room,
              text);
}

static void expect_ends(const char *source, const char *destination)
{
    expect_peer(&got.source, source);
    expect_peer(&got.destination, destination);
}

Test(proxy_protocol, lines)
{
    expect_header(AG_SPAN("PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n"));
    expect_ends("192.0.2.1:56324", "192.0.2.2:443");
    expect_header(AG_SPAN("PROXY TCP6 2001:db8::1 2001:db8::2 0 65535\r\n"));
    expect_ends("[2001:db8::1]:0", "[2001:db8::2]:65535");
    expect_header(AG_SPAN("PROXY TCP6 ::ffff:192.0.2.1 ::2 1 2\r\n"));
    expect_ends("192.0.2.1:1", "[::2]:2");
    expect_header(AG_SPAN("PROXY UNKNOWN\r\n"));
    expect_ends("", "");
    expect_header(AG_SPAN("PROXY UNKNOWN ffff::1 \t whatever\n\r\n"));
    expect_ends("", "");
    cr_expect_not(got.tls);
}

Test(proxy_protocol, a_line_has_107_bytes)
{
    uint8_t line[200];

    memset(line, 'x', sizeof(line));
    memcpy(line, "PROXY UNKNOWN ", 14);
    memcpy(line + 105, "\r\n", 2);
    expect_header(ag_span(line, 107));
    line[105] = 'x';
    memcpy(line + 106, "\r\n", 2);
    cr_expect_eq(read_at_guard(ag_span(line, 106)), AG_AGAIN);
    expect_refused(ag_span(line, 107), "too long");
    expect_refused(ag_span(line, 108), "too long");
    memset(line + 14, 'x', sizeof(line) - 14);
    expect_refused(ag_span(line, 200), "too long");
}

Test(proxy_protocol, bad_lines)
{
    static const struct {
        const char *line, *why;
    } cases[] = {
        {"GET / HTTP/1.1\r\n", "no header"},
        {"proxy TCP4 1.2.3.4 1.2.3.4 1 1\r\n", "no header"},
        {"PROXYTCP4", "no header"},
        {"\r\n\r\nPROXY", "no header"},
        {"PROXY\tTCP4 1.2.3.4 1.2.3.4 1 1\r\n", "no header"},
        {"PROXY UDP4 1.2.3.4 1.2.3.4 1 1\r\n", "protocol"},
        {"PROXY UNKNOWNS\r\n", "protocol"},
        {"PROXY  TCP4 1.2.3.4 1.2.3.4 1 1\r\n", "protocol"},
        {"PROXY TCP4\r\n", "port"},
        {"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", "port"},
        {"PROXY TCP4 1.2.3.4 1.2.3.4 1 \r\n", "port"},
        {"PROXY TCP4 1.2.3.4 1.2.3.4 1 1 \r\n", "port"},
        {"PROXY TCP4 1.2.3.4 1.2.3.4 1 1 1\r\n", "port"},
        {"PROXY TCP4 1.2.3.4 1.2.3.4 01 1\r\n", "port"},
        {"PROXY TCP4 1.2.3.4 1.2.3.4 +1 1\r\n", "port"},
        {"PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n", "port"},
        {"PROXY TCP4 1.2.3.4 1.2.3.4 1 1\n\r\n", "port"},
        {"PROXY TCP4  1.2.3.4 1.2.3.4 1 1\r\n", "port"},
        {"PROXY TCP4 1.2.3 1.2.3.4 1 1\r\n", "address"},
        {"PROXY TCP4 01.2.3.4 1.2.3.4 1 1\r\n", "address"},
        {"PROXY TCP4 1.2.3.4 ::1 1 1\r\n", "address"},
        {"PROXY TCP6 1.2.3.4 1.2.3.4 1 1\r\n", "address"},
        {"PROXY TCP4 unix:/x 1.2.3.4 1 1\r\n", "address"},
        {"PROXY TCP4 1.2.3.4 1.2.3.4 1 1\rx", "end"},
    };

    for (size_t i = 0; i < AG_COUNT(cases); i++) {
        expect_refused(ag_span_str(cases[i].line), cases[i].why);
    }
}

Test(proxy_protocol, binary)
{
    expect_header(V2("\x21\x11\0\x0c" V4));
    expect_ends("192.0.2.1:4660", "192.0.2.2:443");
    expect_header(V2("\x21\x21\0\x24\x20\1\xd\xb8\0\0\0\0\0\0\0\0\0\0\0\1"
                     "\x20\1\xd\xb8\0\0\0\0\0\0\0\0\0\0\0\2\x12\x34\1\xbb"));
    expect_ends("[2001:db8::1]:4660", "[2001:db8::2]:443");
    expect_header(V2("\x21\x21\0\x24\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\0\2\1"
                     "\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\0\2\2\x12\x34\1\xbb"));
    expect_ends("192.0.2.1:4660", "192.0.2.2:443");
    /* LOCAL: whatever it says. */
    expect_header(V2("\x20\x11\0\x0c" V4));
    expect_ends("", "");
    expect_header(V2("\x20\0\0\3???"));
    expect_ends("", "");
    /* Nothing is known. */
    expect_header(V2("\x21\0\0\0"));
    expect_ends("", "");
    expect_header(V2("\x21\x01\0\4????"));
    expect_ends("", "");
    expect_header(V2("\x21\x10\0\5?????"));
    expect_ends("", "");
    /* Datagrams. */
    expect_header(V2("\x21\x12\0\x0c" V4));
    expect_ends("", "");
}

Test(proxy_protocol, unix_addresses_are_ignored)
{
    uint8_t bytes[16 + 216 + 5] = SIGNATURE "\x21\x31\0\xdd";

    memcpy(bytes + 16 + 216, "\5\0\2id", 5);
    expect_header(ag_span(bytes, sizeof(bytes)));
    expect_ends("", "");
    cr_expect_eq(got.id_len, 2);
}

Test(proxy_protocol, parts)
{
    expect_header(V2("\x21\x11\0\x45" V4 "\1\0\2h2"
                     "\2\0\7a.local"
                     "\4\0\3???"
                     "\5\0\3id1"
                     "\x20\0\x0f\3\0\0\0\0\x21\0\7TLSv1.3"
                     "\xe0\0\1x"
                     "\2\0\0"
                     "\x30\0\2ns"));
    expect_ends("192.0.2.1:4660", "192.0.2.2:443");
    cr_expect(got.tls);
    cr_expect(ag_span_eq(ag_span(got.alpn, got.alpn_len), AG_SPAN("h2")));
    cr_expect(ag_span_eq(ag_span(got.authority, got.authority_len), AG_SPAN("a.local")));
    cr_expect(ag_span_eq(ag_span(got.id, got.id_len), AG_SPAN("id1")));
    expect_header(V2("\x21\x11\0\x14" V4 "\x20\0\5\0\0\0\0\1"));
    cr_expect_not(got.tls, "a client without it");
}

Test(proxy_protocol, long_parts)
{
    uint8_t bytes[5000] = SIGNATURE "\x21\x11";
    size_t len = AG_PROXY_PROTOCOL_MAX - 16;

    memcpy(bytes + 16, V4, 12);
    bytes[14] = (uint8_t)(len >> 8);
    bytes[15] = (uint8_t)len;
    bytes[28] = 2; /* a name that is longer than names are */
    bytes[29] = (uint8_t)((len - 15) >> 8);
    bytes[30] = (uint8_t)(len - 15);
    expect_header(ag_span(bytes, AG_PROXY_PROTOCOL_MAX));
    cr_expect_eq(got.authority_len, 0);
    bytes[28] = 5;
    expect_refused(ag_span(bytes, AG_PROXY_PROTOCOL_MAX), "id");
    bytes[15]++;
    cr_expect_eq(read_at_guard(ag_span(bytes, 16)), AG_ELIMIT, "told by its length alone");
    cr_expect_str_eq(why, "a header that is too long");
}

Test(proxy_protocol, bad_binaries)
{
    expect_refused(V2("\x11"), "version");
    expect_refused(V2("\x31"), "version");
    expect_refused(V2("\x22"), "version");
    expect_refused(V2("\x21\x41"), "family");
    expect_refused(V2("\x21\xf0"), "family");
    expect_refused(V2("\x21\x13"), "transport");
    expect_refused(V2("\x21\x11\0\0"), "addresses");
    expect_refused(V2("\x21\x11\0\x0b" V4), "addresses");
    expect_refused(V2("\x21\x21\0\x0c" V4), "addresses");
    expect_refused(V2("\x21\x11\0\x0d" V4 "\1"), "part");
    expect_refused(V2("\x21\x11\0\x0e" V4 "\1\0"), "part");
    expect_refused(V2("\x21\x11\0\x11" V4 "\1\0\3h2"), "part");
    expect_refused(V2("\x21\x11\0\x13" V4 "\x20\0\4\1\0\0\0"), "TLS part");
    expect_refused(V2("\x21\x11\0\x16" V4 "\x20\0\7\1\0\0\0\0\x21\0"), "TLS part");
    expect_refused(V2("\x21\x11\0\x18" V4 "\x20\0\x09\1\0\0\0\0\x21\0\2x"), "TLS part");
}

/* The bits of CRC-32C one by one, from its definition: polynomial 0x1EDC6F41, reflected. */
static uint32_t slow_crc(struct ag_span s)
{
    uint32_t crc = 0;

    for (size_t i = 0; i < s.len + 4;
         i++) { /* with four bytes of zeros behind, and the first four turned */
        for (unsigned bit = 0; bit < 8; bit++) {
            uint32_t in = i < s.len ? s.ptr[i] >> bit & 1 : 0;
            uint32_t top;

            in ^= i < 4;
            top = crc >> 31;
            crc = crc << 1 | in;
            crc ^= top ? UINT32_C(0x1EDC6F41) : 0;
        }
    }
    uint32_t reflected = 0;
    for (unsigned bit = 0; bit < 32; bit++) {
        reflected |= (crc >> bit & 1) << (31 - bit);
    }
    return ~reflected;
}

Test(proxy_protocol, checksums)
{
    uint8_t bytes[] = SIGNATURE "\x21\x11\0\x18" V4 "\3\0\4\0\0\0\0"
                                "\1\0\2h2";
    size_t n = sizeof(bytes) - 1;
    uint32_t sum;

    cr_assert_eq(slow_crc(AG_SPAN("123456789")), UINT32_C(0xe3069283), "the known check value");
    sum = slow_crc(ag_span(bytes, n));
    for (unsigned i = 0; i < 4; i++) {
        bytes[31 + i] = (uint8_t)(sum >> (24 - 8 * i));
    }
    expect_header(ag_span(bytes, n));
    expect_ends("192.0.2.1:4660", "192.0.2.2:443");
    cr_expect_eq(got.alpn_len, 2);
    for (size_t i = 16; i < n; i++) {
        bool is_type = i == 28; /* of another type it is none */

        bytes[i] ^= 1;
        cr_expect(read_at_guard(ag_span(bytes, n)) != AG_OK || is_type, "byte %zu", i);
        bytes[i] ^= 1;
    }
    expect_refused(V2("\x21\x11\0\x0f" V4 "\3\0\0"), "checksum");
}

/* ---- writing ---- */

static struct ag_span written(enum ag_proxy_protocol version, const char *source,
                              const char *destination, const struct ag_tls_session *tls)
{
    static uint8_t room[AG_PROXY_PROTOCOL_OUT_MAX];
    struct ag_buf b = ag_buf(room, sizeof(room));
    union ag_addr from = {0}, to = {0};

    if (source) {
        cr_assert_eq(ag_addr_parse(ag_span_str(source), 1111, &from), AG_OK);
    }
    if (destination) {
        cr_assert_eq(ag_addr_parse(ag_span_str(destination), 2222, &to), AG_OK);
    }
    ag_proxy_protocol_put(&b, version, &from, &to, tls);
    cr_assert_not(b.overflow);
    return ag_buf_span(&b);
}

static void expect_line(const char *source, const char *destination, const char *line)
{
    struct ag_span out = written(AG_PROXY_PROTOCOL_V1, source, destination, NULL);

    cr_expect(ag_span_eq(out, ag_span_str(line)), "%.*s is not %s", (int)out.len,
              (const char *)out.ptr, line);
    expect_header(out);
}

Test(proxy_protocol, written_lines)
{
    expect_line("192.0.2.1", "192.0.2.2", "PROXY TCP4 192.0.2.1 192.0.2.2 1111 2222\r\n");
    expect_line("::1", "2001:db8::1", "PROXY TCP6 ::1 2001:db8::1 1111 2222\r\n");
    expect_line("192.0.2.1", "::2", "PROXY TCP6 ::ffff:192.0.2.1 ::2 1111 2222\r\n");
    expect_line("::2", "192.0.2.1", "PROXY TCP6 ::2 ::ffff:192.0.2.1 1111 2222\r\n");
    expect_line("unix:/x", "192.0.2.1", "PROXY UNKNOWN\r\n");
    expect_line("192.0.2.1", "unix:/x", "PROXY UNKNOWN\r\n");
    expect_line(NULL, NULL, "PROXY UNKNOWN\r\n");
}

Test(proxy_protocol, written_binaries)
{
    struct ag_tls_session tls = {.server_name = AG_SPAN("a.local"),
                                 .version = "TLSv1.3",
                                 .cipher = "TLS_AES_128_GCM_SHA256",
                                 .alpn = AG_ALPN_H2};
    struct ag_span out = written(AG_PROXY_PROTOCOL_V2, "192.0.2.1", "192.0.2.2", NULL);

    cr_expect_eq(out.len, 28);
    expect_header(out);
    expect_ends("192.0.2.1:1111", "192.0.2.2:2222");
    expect_header(written(AG_PROXY_PROTOCOL_V2, "::1", "192.0.2.2", NULL));
    expect_ends("[::1]:1111", "192.0.2.2:2222");
    expect_header(written(AG_PROXY_PROTOCOL_V2, "unix:/x", "::1", &tls));
    expect_ends("", "");
    out = written(AG_PROXY_PROTOCOL_V2, "::1", "::2", &tls);
    expect_header(out);
    expect_ends("[::1]:1111", "[::2]:2222");
    cr_expect(got.tls);
    cr_expect(ag_span_eq(ag_span(got.alpn, got.alpn_len), AG_SPAN("h2")));
    cr_expect(ag_span_eq(ag_span(got.authority, got.authority_len), AG_SPAN("a.local")));
    /* client: TLS; verify: none was shown; then version and cipher */
    cr_expect(memmem(out.ptr, out.len, "\x20\0\x28\1\0\0\0\1\x21\0\7TLSv1.3\x23", 19));
    tls.client_cert = AG_TLS_CLIENT_VALID;
    out = written(AG_PROXY_PROTOCOL_V2, "::1", "::2", &tls);
    cr_expect(memmem(out.ptr, out.len, "\x20\0\x28\3\0\0\0\0\x21", 9));
    tls.client_cert = AG_TLS_CLIENT_INVALID;
    out = written(AG_PROXY_PROTOCOL_V2, "::1", "::2", &tls);
    cr_expect(memmem(out.ptr, out.len, "\x20\0\x28\3\0\0\0\1\x21", 9));
}

Test(proxy_protocol, the_longest_fits)
{
    uint8_t name[255];
    struct ag_tls_session tls = {.server_name = ag_span(name, sizeof(name)),
                                 .version = "TLSv1.3",
                                 .cipher = "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
                                 .alpn = AG_ALPN_ACME};

    memset(name, 'n', sizeof(name));
    expect_header(written(AG_PROXY_PROTOCOL_V2, "::1", "::2", &tls));
    cr_expect_eq(got.authority_len, 255);
}

Test(proxy_protocol, local)
{
    uint8_t room[AG_PROXY_PROTOCOL_OUT_MAX];
    struct ag_buf b = ag_buf(room, sizeof(room));

    ag_proxy_protocol_put_local(&b, AG_PROXY_PROTOCOL_V2);
    cr_expect(ag_span_eq(ag_buf_span(&b), V2("\x20\0\0\0")));
    b.len = 0;
    ag_proxy_protocol_put_local(&b, AG_PROXY_PROTOCOL_V1);
    cr_expect(ag_span_eq(ag_buf_span(&b), AG_SPAN("PROXY UNKNOWN\r\n")));
}
