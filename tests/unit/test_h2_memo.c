/*
 * Goal: a section that comes again is what reading it again would give, whatever came between; what is
 * kept is bounded, and nothing that was refused is.
 * Method: each section is read twice, by way of a memo and without, by two decoders of one connection; the
 * messages, the tables and what is wrong have to be the same. Sections, limits and room are chosen so that they
 * repeat, change what indices mean, are refused, or do not fit.
 */
#include "proto/h2_memo.h"

#include "h2_sections.h"
#include "heads.h"

#include <stdio.h>

static struct ag_arena other_connection, other_arena;
static struct ag_hpack_decoder plain;
static struct ag_h2_memo memo;
static struct ag_h1_limits limits;

static void begin(void)
{
    setup();
    ag_arena_init(&other_connection, &memory.loop.pages, 16);
    ag_arena_init(&other_arena, &memory.loop.pages, 16);
    ag_hpack_decoder_init(&plain, &other_connection);
    memo = (struct ag_h2_memo){0};
    limits = AG_H1_LIMITS_DEFAULT;
}

static void end(void)
{
    ag_arena_release(&other_connection);
    ag_arena_release(&other_arena);
    teardown();
}

TestSuite(h2_memo, .init = begin, .fini = end);

#define TEXT_BYTES 8192u

static void describe_all(const struct ag_request *r, struct ag_buf *b)
{
    describe(r, b);
    put_named(b, "target", r->target);
    put_named(b, "protocol", r->protocol);
    ag_buf_printf(b, " %d %u ", r->https_target, r->received_count);
    describe_fields(&r->fields, b);
    cr_assert_not(b->overflow);
}

/* The arena of an exchange has a page before its request is read. */
static void first_page(struct ag_arena *a)
{
    ag_arena_release(a);
    cr_assert(ag_arena_alloc(a, 64));
}

/* What the section says: its request, or what is wrong with it. `cap`: room for fields. */
static enum ag_status read_with(struct ag_h2_memo *m, struct ag_hpack_decoder *d,
                                struct ag_span block, struct ag_arena *a, uint16_t cap,
                                char text[static TEXT_BYTES])
{
    struct ag_field room[24];
    struct ag_request req = {.fields = {room, 0, cap}, .tls = true};
    struct ag_h2_field_error e = {0};
    struct ag_buf b = ag_buf(text, TEXT_BYTES);
    uint8_t in[1024];
    enum ag_status st;

    cr_assert_leq(block.len, sizeof(in));
    memcpy(in, block.ptr, block.len);
    st = ag_h2_memo_request(m, d, ag_span(in, block.len), &limits, &req, a, &e);
    memset(in, 0xee, sizeof(in)); /* nothing may point into the section */
    cr_assert(req.tls);
    if (st == AG_OK) {
        describe_all(&req, &b);
    } else {
        ag_buf_printf(&b, "%d %u %d %s", st, e.status, e.connection, e.why);
    }
    ag_buf_putc(&b, 0);
    return st;
}

static enum ag_status read_both(struct ag_span block, uint16_t cap, char text[static TEXT_BYTES])
{
    static char other[TEXT_BYTES];
    enum ag_status st;

    first_page(&arena);
    first_page(&other_arena);
    st = read_with(&memo, &decoder, block, &arena, cap, text);
    cr_assert_eq(read_with(NULL, &plain, block, &other_arena, cap, other), st);
    cr_assert_str_eq(text, other);
    cr_assert_eq(decoder.table.count, plain.table.count);
    cr_assert_eq(decoder.table.bytes, plain.table.bytes);
    cr_assert_eq(decoder.table.max_bytes, plain.table.max_bytes);
    return st;
}

static struct ag_span coded(struct ag_buf *b, const char *lines, enum ag_hpack_indexing how)
{
    b->len = 0;
    put_coded_lines(&encoder, b, ag_span_str(lines), how);
    cr_assert_not(b->overflow);
    return ag_buf_span(b);
}

#define GET ":method: GET\n:scheme: http\n:authority: a.example:80\n:path: "

/* ---- what is kept ---- */

static uint8_t bytes[1024];
static char text[TEXT_BYTES];

/* Twice in a row, with the table as it was. */
Test(h2_memo, what_comes_twice_is_kept)
{
    struct ag_buf b = ag_buf(bytes, sizeof(bytes));

    cr_assert_eq(read_both(coded(&b, GET "/a?b\nx: y\n", AG_HPACK_INDEX), 24, text), AG_OK);
    cr_expect_eq(memo.block_len, 0, "it has changed the table");
    coded(&b, GET "/a?b\nx: y\n", AG_HPACK_INDEX);
    cr_assert_eq(read_both(ag_buf_span(&b), 24, text), AG_OK);
    cr_expect_not(memo.kept);
    cr_assert_eq(read_both(ag_buf_span(&b), 24, text), AG_OK);
    cr_expect(memo.kept);
    cr_assert_eq(read_both(ag_buf_span(&b), 24, text), AG_OK);
    cr_expect(memo.kept);
    /* It is what the answer comes from. */
    memo.request.port = 81;
    first_page(&arena);
    cr_assert_eq(read_with(&memo, &decoder, ag_buf_span(&b), &arena, 24, text), AG_OK);
    cr_expect(strstr(text, "port=81"));
}

/* Nobody is to write to what the next request gets, nor to read what the next section leaves. */
Test(h2_memo, each_request_has_its_own)
{
    struct ag_buf b = ag_buf(bytes, sizeof(bytes));
    struct ag_field room[2][8];
    struct ag_request req[2] = {{.fields = {room[0], 0, 8}}, {.fields = {room[1], 0, 8}}};
    struct ag_h2_field_error e = {0};

    coded(&b, GET "/a\nx: y\n", AG_HPACK_PLAIN);
    for (unsigned i = 0; i < 2; i++) {
        cr_assert_eq(read_both(ag_buf_span(&b), 24, text), AG_OK);
    }
    cr_assert(memo.kept);
    first_page(&arena);
    for (unsigned i = 0; i < 2; i++) {
        cr_assert_eq(
            ag_h2_memo_request(&memo, &decoder, ag_buf_span(&b), &limits, &req[i], &arena, &e),
            AG_OK);
    }
    cr_expect_neq(req[0].path.ptr, req[1].path.ptr);
    cr_expect_neq(req[0].fields.v, req[1].fields.v);
    ag_fields_remove_name(&req[0].fields, AG_SPAN("x"));
    cr_expect(ag_fields_find_name(&req[1].fields, AG_SPAN("x"), NULL));
    memset(&memo, 0xee, sizeof(memo));
    cr_expect(ag_span_eq(req[1].path, AG_SPAN("/a")));
    cr_expect(ag_span_eq(req[1].host, AG_SPAN("a.example")));
    cr_expect(ag_span_eq(ag_field_value(&req[1].fields.v[0]), AG_SPAN("y")));
}

/* ---- what is read again ---- */

/* The same bytes, and an index that means something else. */
Test(h2_memo, an_index_may_mean_another)
{
    static const uint8_t block[] = {0x82, 0x86, 0x84, 0xbf, 0xbe}; /* authority, and 62 */
    static const uint8_t first[] = {0x82, 0x86, 0x84, 0x41, 1, 'a', 0x40, 1, 'x', 1, '1'};
    static const uint8_t again[] = {0x82, 0x86, 0x84, 0x41, 1, 'b', 0x40, 1, 'x', 1, '2'};
    static const uint8_t resized[] = {0x20, 0x3f, 0xe1, 0x1f, 0x82, 0x86, 0x84, 0x01, 1, 'c'};

    cr_assert_eq(read_both(ag_span(first, sizeof(first)), 24, text), AG_OK);
    for (unsigned i = 0; i < 3; i++) {
        cr_assert_eq(read_both(ag_span(block, sizeof(block)), 24, text), AG_OK);
        cr_expect(strstr(text, "[x=1]") && strstr(text, "host=a"));
    }
    cr_assert(memo.kept);
    cr_assert_eq(read_both(ag_span(again, sizeof(again)), 24, text), AG_OK);
    cr_assert(memo.kept);
    for (unsigned i = 0; i < 3; i++) {
        cr_assert_eq(read_both(ag_span(block, sizeof(block)), 24, text), AG_OK);
        cr_expect(strstr(text, "[x=2]") && strstr(text, "host=b"));
    }
    cr_assert_eq(read_both(ag_span(resized, sizeof(resized)), 24, text), AG_OK);
    cr_assert(memo.kept);
    cr_assert_eq(read_both(ag_span(block, sizeof(block)), 24, text), AG_EPROTO,
                 "the table is empty");
}

/* A reload may change them. */
Test(h2_memo, limits_are_those_of_now)
{
    struct ag_buf b = ag_buf(bytes, sizeof(bytes));
    const struct ag_h1_limits all[] = {{20, 32768, 100}, {8192, 100, 100}, {8192, 32768, 1}};

    coded(&b, GET "/a-long-path-it-is\nx: y\nz: 1\n", AG_HPACK_PLAIN);
    for (size_t i = 0; i < AG_COUNT(all); i++) {
        limits = AG_H1_LIMITS_DEFAULT;
        for (unsigned k = 0; k < 3; k++) {
            cr_assert_eq(read_both(ag_buf_span(&b), 24, text), AG_OK);
        }
        cr_assert(memo.kept);
        limits = all[i];
        cr_expect_eq(read_both(ag_buf_span(&b), 24, text), AG_ELIMIT);
    }
}

Test(h2_memo, what_is_refused_is_not_kept)
{
    struct ag_buf b = ag_buf(bytes, sizeof(bytes));

    coded(&b, GET "/a\nconnection: close\n", AG_HPACK_PLAIN);
    for (unsigned i = 0; i < 4; i++) {
        cr_assert_eq(read_both(ag_buf_span(&b), 24, text), AG_EPROTO);
        cr_expect(!memo.kept && memo.block_len == 0);
    }
    coded(&b, GET "/a\nexpect: x\n", AG_HPACK_PLAIN);
    for (unsigned i = 0; i < 4; i++) {
        cr_assert_eq(read_both(ag_buf_span(&b), 24, text), AG_EPROTO);
        cr_expect(!memo.kept && memo.block_len == 0);
    }
}

/* Sections, texts and fields that are larger than what there is for them. */
Test(h2_memo, what_is_large_is_read_each_time)
{
    struct ag_buf b = ag_buf(bytes, sizeof(bytes)), l;
    char lines[1024];

    for (unsigned kind = 0; kind < 3; kind++) {
        l = ag_buf(lines, sizeof(lines));
        ag_buf_put(&l, AG_SPAN(GET "/a\n"));
        for (unsigned i = 0; kind == 0 && i <= AG_H2_MEMO_FIELDS; i++) {
            ag_buf_put(&l, AG_SPAN("accept: \n"));
        }
        if (kind == 1) { /* in few bytes, by the table */
            ag_buf_printf(&l, "x: %0*u\ny: %0*u\n", 300, 1, 300, 2);
        }
        if (kind == 2) {
            ag_buf_printf(&l, "x: %0*u\n", 130 * 8 / 5, 1);
        }
        ag_buf_putc(&l, 0);
        for (unsigned i = 0; i < 5; i++) {
            coded(&b, lines, kind == 2 ? AG_HPACK_PLAIN : AG_HPACK_INDEX);
            cr_assert_eq(read_both(ag_buf_span(&b), 24, text), AG_OK);
            cr_expect_not(memo.kept, "kind %u", kind);
        }
        cr_expect(kind == 2 ? b.len > AG_H2_MEMO_BLOCK : memo.block_len == b.len);
    }
}

/* Where a kept one has no room there may be some for reading it, or the same refusal. */
Test(h2_memo, room_that_is_wanting)
{
    struct ag_buf b = ag_buf(bytes, sizeof(bytes));
    struct ag_arena small;

    coded(&b, GET "/a\nx: y\nz: 1\n", AG_HPACK_PLAIN);
    for (unsigned i = 0; i < 2; i++) {
        cr_assert_eq(read_both(ag_buf_span(&b), 24, text), AG_OK);
    }
    cr_assert(memo.kept);
    for (uint16_t cap = 0; cap < 5; cap++) {
        cr_assert_eq(read_both(ag_buf_span(&b), cap, text), AG_OK);
    }
    ag_arena_init(&small, &memory.loop.pages, 1);
    while (ag_arena_alloc(&small, 8)) {
    }
    cr_expect_eq(read_with(&memo, &decoder, ag_buf_span(&b), &small, 24, text), AG_ENOMEM);
    ag_arena_release(&small);
}

/* ---- responses ---- */

static enum ag_status response_with(struct ag_h2_memo *m, struct ag_hpack_decoder *d,
                                    struct ag_span block, enum ag_method method, struct ag_arena *a,
                                    uint16_t cap, char to[static TEXT_BYTES])
{
    struct ag_field room[24];
    struct ag_response res = {.fields = {room, 0, cap}};
    struct ag_h2_field_error e = {0};
    struct ag_buf b = ag_buf(to, TEXT_BYTES);
    enum ag_status st = ag_h2_memo_response(m, d, block, &limits, method, &res, a, &e);

    if (st == AG_OK) {
        ag_buf_printf(&b, "%u %u %u %d %lld ", res.status, res.version, res.framing, res.keep_alive,
                      (long long)res.content_length);
        describe_fields(&res.fields, &b);
    } else {
        ag_buf_printf(&b, "%d %u %d %s", st, e.status, e.connection, e.why);
    }
    ag_buf_putc(&b, 0);
    cr_assert_not(b.overflow);
    return st;
}

static enum ag_status response_both(struct ag_span block, enum ag_method method, uint16_t cap)
{
    static char other[TEXT_BYTES];
    enum ag_status st;

    first_page(&arena);
    first_page(&other_arena);
    st = response_with(&memo, &decoder, block, method, &arena, cap, text);
    cr_assert_eq(response_with(NULL, &plain, block, method, &other_arena, cap, other), st);
    cr_assert_str_eq(text, other);
    cr_assert_eq(decoder.table.bytes, plain.table.bytes);
    return st;
}

#define OK_200 ":status: 200\ncontent-type: text/plain\ncontent-length: 5\n"

/* What it means depends on the request's method. */
Test(h2_memo, a_response_is_kept_for_its_method)
{
    static const enum ag_method methods[] = {AG_METHOD_GET, AG_METHOD_HEAD, AG_METHOD_CONNECT};
    struct ag_buf b = ag_buf(bytes, sizeof(bytes));
    static char said[AG_COUNT(methods)][TEXT_BYTES];

    coded(&b, OK_200, AG_HPACK_PLAIN);
    for (size_t i = 0; i < AG_COUNT(methods); i++) {
        for (unsigned k = 0; k < 3; k++) {
            cr_assert_eq(response_both(ag_buf_span(&b), methods[i], 24), AG_OK);
            cr_expect_eq(memo.kept, k > 0);
        }
        (void)snprintf(said[i], TEXT_BYTES, "%s", text);
        for (size_t k = 0; k < i; k++) {
            cr_expect_str_neq(said[i], said[k]);
        }
    }
}

static const char *const answers[] = {
    OK_200,
    ":status: 200\ndate: Sun, 06 Nov 1994 08:49:37 GMT\nserver: s\nx: y\n",
    ":status: 304\netag: \"a\"\n",
    ":status: 103\nlink: </a>\n",
    ":status: 101\n",
    ":status: 200\nConnection: close\n",
    ":status: 200\nset-cookie: a=b\nset-cookie: c=d\nvary: \n",
    ":status: 200\ncontent-type: application/grpc\n"};

Test(h2_memo, random_responses_are_read_as_without_it)
{
    static const enum ag_method methods[] = {AG_METHOD_GET, AG_METHOD_HEAD, AG_METHOD_CONNECT};
    struct ag_buf b = ag_buf(bytes, sizeof(bytes));
    enum ag_method method = AG_METHOD_GET;
    unsigned kept = 0;

    srand(9);
    for (unsigned round = 0; round < 20000; round++) {
        if (round == 0 || rand() % 3 == 0) {
            if (rand() % 50 == 0) {
                ag_hpack_resize(&encoder, (uint32_t)rand() % 400);
            }
            coded(&b, answers[(size_t)rand() % AG_COUNT(answers)],
                  rand() % 3 ? AG_HPACK_INDEX : AG_HPACK_PLAIN);
        }
        if (rand() % 10 == 0) {
            method = methods[(size_t)rand() % AG_COUNT(methods)];
        }
        if (rand() % 20 == 0) {
            limits.head_max = rand() % 2 ? 32768 : 60 + (uint32_t)rand() % 200;
        }
        (void)response_both(ag_buf_span(&b), method, rand() % 5 ? 24 : 1);
        kept += memo.kept;
    }
    cr_expect_gt(kept, 1000u);
}

/* ---- random requests ---- */

static const char *const fields[] = {
    "",
    "x: y\n",
    "cookie: a=b\ncookie: c=d\n",
    "te: trailers\nuser-agent: u\n",
    "host: a.example\n",
    "content-length: 0\naccept: \n",
    "content-length: 5\nexpect: 100-continue\n",
    "transfer-encoding: chunked\n",
    "a-long-name-of-a-field: and-a-value-that-takes-its-room-in-the-table-of-either-side\n"};

static const char *const heads[] = {
    GET "/\n",
    GET "/a/../b?c\n",
    ":method: POST\n:scheme: https\n:path: /p\n:authority: b\n",
    ":method: CONNECT\n:authority: c:443\n",
    ":method: CONNECT\n:protocol: websocket\n:scheme: http\n:path: /w\n:authority: d\n",
    ":method: OPTIONS\n:scheme: http\n:path: *\n:authority: [::1]:8080\n",
    ":method: GET\n:scheme: http\n:path: x\n:authority: e\n"};

Test(h2_memo, random_sections_are_read_as_without_it)
{
    struct ag_buf b = ag_buf(bytes, sizeof(bytes));
    unsigned kept = 0;

    srand(7);
    for (unsigned round = 0; round < 20000; round++) {
        if (round == 0 || rand() % 3 == 0) { /* else the one before, byte for byte */
            char lines[512];

            (void)snprintf(lines, sizeof(lines), "%s%s%s", heads[(size_t)rand() % AG_COUNT(heads)],
                           fields[(size_t)rand() % AG_COUNT(fields)],
                           rand() % 4 ? "" : fields[(size_t)rand() % AG_COUNT(fields)]);
            if (rand() % 50 == 0) {
                ag_hpack_resize(&encoder, (uint32_t)rand() % 400);
            }
            coded(&b, lines, rand() % 3 ? AG_HPACK_INDEX : AG_HPACK_PLAIN);
        }
        if (rand() % 20 == 0) {
            limits = rand() % 2 ? AG_H1_LIMITS_DEFAULT
                                : (struct ag_h1_limits){.line_max = 20,
                                                        .head_max = 100 + (uint32_t)rand() % 300,
                                                        .field_max = (uint16_t)(rand() % 4)};
        }
        (void)read_both(ag_buf_span(&b), rand() % 5 ? 24 : 2, text);
        kept += memo.kept;
    }
    cr_expect_gt(kept, 1000u);
}
