/*
 * Goal: the decoder gives one answer for one byte stream, however it is split.
 * Method: each row runs at every split width 1..len, each piece ending at an unmapped page.
 */
#include "proto/h1_chunk.h"

#include "guarded.h"

static struct guarded guarded;

static void setup(void)
{
    guarded_open(&guarded);
}

static void teardown(void)
{
    guarded_close(&guarded);
}

TestSuite(h1_chunk, .init = setup, .fini = teardown);

struct row {
    const char *name, *wire, *body;
    enum ag_status want;
    size_t rest; /* bytes after the end */
};

static const struct row rows[] = {
    {"one chunk", "4\r\nWiki\r\n0\r\n\r\n", "Wiki", AG_OK, 2},
    {"two chunks, extension", "1;a=b\r\nx\r\n0A\r\n0123456789\r\n0\r\n\r\n", "x0123456789", AG_OK,
     2},
    {"upper and lower hex", "b\r\n0123456789a\r\nB\r\n0123456789b\r\n0\r\n",
     "0123456789a0123456789b", AG_OK, 0},
    {"leading zeros", "0000000000000001\r\nx\r\n000\r\n", "x", AG_OK, 0},
    {"data that looks like framing", "5\r\n0\r\n\r\n\r\n0\r\n", "0\r\n\r\n", AG_OK, 0},
    {"no body at all", "0\r\n", "", AG_OK, 0},
    {"trailers and the next message are left", "0\r\nA: b\r\n\r\nGET", "", AG_OK, 11},
    {"extension on the last chunk", "0;x=\"a;b\"\r\n", "", AG_OK, 0},
    {"extension with tab and 8-bit", "1;\t\x80\r\nx\r\n0\r\n", "x", AG_OK, 0},
    {"bare LF after size", "1\nx\r\n0\r\n\r\n", "", AG_EPROTO, 0},
    {"LF LF after size", "1\n\nx\r\n0\r\n\r\n", "", AG_EPROTO, 0},
    {"bare CR after size", "1\rx\r\n0\r\n", "", AG_EPROTO, 0},
    {"CR CR LF after size", "1\r\r\nx\r\n0\r\n", "", AG_EPROTO, 0},
    {"LF in extension", "1;a\nx\r\n0\r\n", "", AG_EPROTO, 0},
    {"bare CR in extension", "1;a\rb\r\nx\r\n", "", AG_EPROTO, 0},
    {"control in extension", "1;a\x01\r\nx\r\n", "", AG_EPROTO, 0},
    {"DEL in extension", "1;a\x7f\r\nx\r\n", "", AG_EPROTO, 0},
    {"empty size", "\r\n", "", AG_EPROTO, 0},
    {"empty size, extension", ";a\r\n", "", AG_EPROTO, 0},
    {"17 digits", "11111111111111111\r\n", "", AG_EPROTO, 0},
    {"overflow", "10000000000000000\r\n", "", AG_EPROTO, 0},
    {"plus sign", "+1\r\nx\r\n", "", AG_EPROTO, 0},
    {"minus sign", "-1\r\nx\r\n", "", AG_EPROTO, 0},
    {"0x", "0x1\r\nx\r\n", "", AG_EPROTO, 0},
    {"space before size", " 1\r\nx\r\n", "", AG_EPROTO, 0},
    {"space after size", "1 \r\nx\r\n", "", AG_EPROTO, 0},
    {"space before extension", "1 ;a\r\nx\r\n", "", AG_EPROTO, 0},
    {"tab after size", "1\t\r\nx\r\n", "", AG_EPROTO, 0},
    {"underscore", "1_0\r\n", "", AG_EPROTO, 0},
    {"not hex", "1g\r\nx\r\n", "", AG_EPROTO, 0},
    {"excess chunk data", "1\r\nxy\r\n", "x", AG_EPROTO, 0},
    {"short chunk data", "3\r\nx\r\n0\r\n", "x\r\n", AG_EPROTO, 0},
    {"LF after data", "1\r\nx\n0\r\n", "x", AG_EPROTO, 0},
    {"CR CR after data", "1\r\nx\r\r0\r\n", "x", AG_EPROTO, 0},
    {"empty line between chunks", "1\r\nx\r\n\r\n0\r\n", "x", AG_EPROTO, 0},
    {"truncated data", "5\r\nab", "ab", AG_AGAIN, 0},
    {"truncated size", "5", "", AG_AGAIN, 0},
    {"largest size", "ffffffffffffffff\r\nab", "ab", AG_AGAIN, 0},
};

static void run(const struct row *r, size_t step)
{
    struct ag_h1_chunk c = {0};
    uint8_t room[64];
    struct ag_buf body = ag_buf(room, sizeof(room));
    size_t at = 0, len = strlen(r->wire);
    enum ag_status st = AG_AGAIN;

    while (at < len && st == AG_AGAIN) {
        struct ag_span in =
            guarded_copy(&guarded, ag_span(r->wire + at, ag_min_size(step, len - at)));
        struct ag_span found;
        size_t used = 0;

        st = ag_h1_chunk_decode(&c, in, &used, &found);
        cr_assert(used <= in.len && used > 0);
        cr_assert(found.len == 0 ||
                  (found.ptr >= in.ptr && found.ptr + found.len <= in.ptr + used));
        ag_buf_put(&body, found);
        at += used;
    }
    cr_expect_eq(st, r->want, "%s, step %zu: %d", r->name, step, (int)st);
    cr_expect(ag_span_eq(ag_buf_span(&body), ag_span_str(r->body)), "%s, step %zu", r->name, step);
    if (st == AG_OK) {
        cr_expect_eq(len - at, r->rest, "%s, step %zu", r->name, step);
        cr_expect_eq(c.state, AG_H1_CHUNK_TRAILERS);
    }
}

Test(h1_chunk, every_split)
{
    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        for (size_t step = 1; step <= strlen(rows[i].wire); step++) {
            run(&rows[i], step);
        }
    }
}

Test(h1_chunk, nul_bytes)
{
    static const uint8_t wires[][8] = {"1\0\r\nx\r\n", "1;\0\r\nx\r", "\0001\r\nx\r\n"};

    for (size_t i = 0; i < AG_COUNT(wires); i++) {
        struct ag_h1_chunk c = {0};
        struct ag_span body;
        size_t used = 0;
        cr_expect_eq(ag_h1_chunk_decode(&c, ag_span(wires[i], 8), &used, &body), AG_EPROTO);
    }
}

/* A size line of `len` bytes with CRLF, padded by an extension or zeros. */
static enum ag_status size_line(size_t len, char pad)
{
    struct ag_h1_chunk c = {0};
    char wire[AG_H1_CHUNK_LINE_MAX + 8];
    struct ag_span body;
    size_t used = 0;

    memset(wire, pad, len);
    wire[0] = '0';
    wire[1] = pad == '0' ? '0' : ';';
    wire[len - 2] = '\r';
    wire[len - 1] = '\n';
    return ag_h1_chunk_decode(&c, ag_span(wire, len), &used, &body);
}

Test(h1_chunk, size_lines_are_bounded)
{
    cr_expect_eq(size_line(AG_H1_CHUNK_LINE_MAX, 'x'), AG_OK);
    cr_expect_eq(size_line(AG_H1_CHUNK_LINE_MAX + 1, 'x'), AG_ELIMIT);
    cr_expect_eq(size_line(AG_H1_CHUNK_LINE_MAX + 2, 'x'), AG_ELIMIT);
    cr_expect_eq(size_line(AG_H1_CHUNK_LINE_MAX, '0'), AG_OK);
    cr_expect_eq(size_line(AG_H1_CHUNK_LINE_MAX + 3, '0'), AG_ELIMIT);
}

Test(h1_chunk, the_bound_is_per_line)
{
    struct ag_h1_chunk c = {0};

    for (unsigned i = 0; i < 3 * AG_H1_CHUNK_LINE_MAX; i++) {
        struct ag_span in = AG_SPAN("1;abc\r\nx\r\n"), body;
        size_t at = 0, used = 0;

        while (at < in.len) {
            cr_assert_eq(ag_h1_chunk_decode(&c, ag_span_sub(in, at, in.len), &used, &body),
                         AG_AGAIN);
            at += used;
        }
    }
}

Test(h1_chunk, empty_input_asks_for_more)
{
    struct ag_h1_chunk c = {0};
    struct ag_span body;
    size_t used = 7;

    cr_expect_eq(ag_h1_chunk_decode(&c, (struct ag_span){NULL, 0}, &used, &body), AG_AGAIN);
    cr_expect_eq(used, 0);
    cr_expect_eq(body.len, 0);
}

Test(h1_chunk, headers_decode_to_their_size)
{
    static const uint64_t sizes[] = {1, 9, 10, 15, 16, 255, 4096, 65536, UINT64_MAX};

    for (size_t i = 0; i < AG_COUNT(sizes); i++) {
        struct ag_h1_chunk c = {0};
        uint8_t line[AG_H1_CHUNK_HEADER_MAX];
        size_t len = ag_h1_chunk_header(sizes[i], line), used = 0;
        struct ag_span body;

        cr_assert_leq(len, sizeof(line));
        cr_expect_eq(ag_h1_chunk_decode(&c, ag_span(line, len), &used, &body), AG_AGAIN);
        cr_expect_eq(used, len);
        cr_expect_eq(c.state, AG_H1_CHUNK_DATA);
        cr_expect_eq(c.left, sizes[i]);
    }
    uint8_t line[AG_H1_CHUNK_HEADER_MAX];
    cr_expect_eq(ag_h1_chunk_header(0x1aF, line), 5);
    cr_expect_eq(memcmp(line, "1af\r\n", 5), 0);
}
