/*
 * Goal: no field section takes more memory, or more time for what is not kept, than the limits say; and who
 * goes beyond them loses the stream, or floods and loses the connection.
 */
#include "h2_sections.h"

#include <stdio.h>

#define GET ":method: GET\n:scheme: http\n:path: /\n:authority: a\n"

static const struct ag_h1_limits limits = {200, 4096, 8};

TestSuite(h2_fields_bounds, .init = setup, .fini = teardown);

/* A section of `count` fields "xN: vvv", with values of `len` bytes, behind a GET. */
static void put_many(struct ag_buf *b, unsigned count, size_t len)
{
    static uint8_t value[8192];
    char name[16];

    memset(value, 'v', sizeof(value));
    put_plain_lines(b, AG_SPAN(GET));
    for (unsigned i = 0; i < count; i++) {
        (void)snprintf(name, sizeof(name), "x%03u", i);
        put_plain(b, ag_span_str(name), ag_span(value, len));
    }
    cr_assert_not(b->overflow);
}

static uint8_t bytes[1 << 18];

static void expect_many(unsigned count, size_t len, enum ag_status want, unsigned code)
{
    struct ag_buf b = ag_buf(bytes, sizeof(bytes));
    struct ag_request req = {0};
    struct ag_h2_field_error e = {0};

    put_many(&b, count, len);
    cr_expect_eq(ag_h2_read_request(&decoder, ag_buf_span(&b), &limits, &req, &arena, &e), want,
                 "%u of %zu", count, len);
    cr_expect_eq(e.status, code, "%u of %zu: %u", count, len, e.status);
    cr_expect_not(e.connection);
    cr_expect_eq(req.method, AG_METHOD_GET, "who is refused is still answered by method");
    empty_arena();
}

/* As RFC 9113 section 6.5.2 counts; pseudo-fields are fields, too, but for their number. */
Test(h2_fields_bounds, size_and_number_are_bounded)
{
    size_t of_get = (7 + 3) + (7 + 4) + (5 + 1) + (10 + 1) + 4 * AG_HPACK_ENTRY_BYTES;
    size_t most = limits.head_max - of_get - 4 - AG_HPACK_ENTRY_BYTES;

    expect_many(8, 1, AG_OK, 0);
    expect_many(9, 1, AG_ELIMIT, 431);
    expect_many(1, most, AG_OK, 0);
    expect_many(1, most + 1, AG_ELIMIT, 431);
    expect_many(2, most / 2 + 1, AG_ELIMIT, 431);
    expect_many(200, 0, AG_ELIMIT, 431);
}

Test(h2_fields_bounds, crumbs_are_counted)
{
    struct ag_buf b = ag_buf(bytes, sizeof(bytes));
    struct ag_request req = {0};
    struct ag_h2_field_error e = {0};

    put_plain_lines(&b, AG_SPAN(GET));
    for (unsigned i = 0; i < 9; i++) {
        put_plain(&b, AG_SPAN("cookie"), AG_SPAN(""));
    }
    cr_expect_eq(ag_h2_read_request(&decoder, ag_buf_span(&b), &limits, &req, &arena, &e),
                 AG_ELIMIT);
    cr_expect_eq(e.status, 431);
}

Test(h2_fields_bounds, method_and_path_are_bounded_as_a_line)
{
    static const struct ag_h1_limits wide = {4000, 8192, 8};
    size_t most = wide.line_max - strlen("GET ") - strlen(" HTTP/1.1\r\n");
    char path[4096];

    memset(path, 'p', sizeof(path));
    path[0] = '/';
    for (size_t len = most; len <= most + 1; len++) {
        struct ag_buf b = ag_buf(bytes, sizeof(bytes));
        struct ag_request req = {0};
        struct ag_h2_field_error e = {0};

        put_plain(&b, AG_SPAN(":method"), AG_SPAN("GET"));
        put_plain(&b, AG_SPAN(":scheme"), AG_SPAN("http"));
        put_plain(&b, AG_SPAN(":authority"), AG_SPAN("a"));
        put_plain(&b, AG_SPAN(":path"), ag_span(path, len));
        cr_expect_eq(ag_h2_read_request(&decoder, ag_buf_span(&b), &wide, &req, &arena, &e),
                     len == most ? AG_OK : AG_ELIMIT);
        cr_expect_eq(e.status, len == most ? 0 : 414);
    }
}

/* Longer than a page of the arena: names, values, paths that are not in normal form, cookies. */
Test(h2_fields_bounds, what_is_larger_than_a_page_finds_room)
{
    static const struct ag_h1_limits wide = {20000, 65536, 100};
    static char text[3][12000];
    struct ag_buf b = ag_buf(bytes, sizeof(bytes));
    struct ag_request req = {0};
    struct ag_h2_field_error e = {0};

    memset(text[0], 'n', sizeof(text[0]));
    memset(text[1], 'v', sizeof(text[1]));
    memset(text[2], 'p', sizeof(text[2]));
    memcpy(text[2], "/../", 4);
    put_plain(&b, AG_SPAN(":method"), AG_SPAN("GET"));
    put_plain(&b, AG_SPAN(":scheme"), AG_SPAN("http"));
    put_plain(&b, AG_SPAN(":authority"), AG_SPAN("a"));
    put_plain(&b, AG_SPAN(":path"), ag_span(text[2], sizeof(text[2])));
    ag_hpack_put(&encoder, &b, AG_FIELD_OTHER, ag_span(text[0], sizeof(text[0])),
                 ag_span(text[1], sizeof(text[1])), AG_HPACK_PLAIN); /* with Huffman */
    put_plain(&b, AG_SPAN("cookie"), ag_span(text[1], 3000));
    put_plain(&b, AG_SPAN("cookie"), ag_span(text[1], 3000));
    cr_assert_eq(ag_h2_read_request(&decoder, ag_buf_span(&b), &wide, &req, &arena, &e), AG_OK,
                 "%s", e.why);
    cr_expect_eq(req.path.len, sizeof(text[2]) - 3);
    cr_assert_eq(req.fields.count, 3);
    cr_expect(ag_span_eq(ag_field_key(&req.fields.v[0]), ag_span(text[0], sizeof(text[0]))));
    cr_expect(ag_span_eq(ag_field_value(&req.fields.v[0]), ag_span(text[1], sizeof(text[1]))));
    cr_expect_eq(req.fields.v[1].value_len, 6002);
    cr_expect_leq(ag_loop_bufs_used(&memory.loop, AG_BUF_LARGE), 2);
    empty_arena();
    cr_expect_eq(ag_loop_bufs_used(&memory.loop, AG_BUF_LARGE), 0);
}

/* A name of 65536 bytes would be counted as none by struct ag_field. */
Test(h2_fields_bounds, a_name_beyond_16_bits_is_refused)
{
    static const struct ag_h1_limits wide = {8192, 1 << 17, 100};
    static uint8_t name[65536];
    struct ag_arena heap;

    memset(name, 'n', sizeof(name));
    ag_arena_init(&heap, NULL, 0);
    for (size_t len = 65535; len <= 65536; len++) {
        struct ag_buf b = ag_buf(bytes, sizeof(bytes));
        struct ag_request req = {0};
        struct ag_h2_field_error e = {0};

        put_plain_lines(&b, AG_SPAN(GET));
        put_plain(&b, ag_span(name, len), AG_SPAN(""));
        cr_expect_eq(ag_h2_read_request(&decoder, ag_buf_span(&b), &wide, &req, &heap, &e),
                     len == 65535 ? AG_OK : AG_ELIMIT);
    }
    ag_arena_release(&heap);
}

/* One byte of a section may stand for 4 KB of a field: what is not kept is not copied, and nothing beyond
 * the bound takes memory. */
Test(h2_fields_bounds, a_bomb_takes_no_memory)
{
    static uint8_t value[4000];
    struct ag_buf b = ag_buf(bytes, sizeof(bytes));
    struct ag_request req = {0};
    struct ag_h2_field_error e = {0};
    uint32_t pages;

    memset(value, 'v', sizeof(value));
    ag_buf_putc(&b, 0x40);
    put_length(&b, 1);
    ag_buf_putc(&b, 'a');
    put_length(&b, sizeof(value));
    ag_buf_put(&b, ag_span(value, sizeof(value)));
    cr_assert_eq(ag_h2_skip_section(&decoder, ag_buf_span(&b), &limits), AG_OK);
    cr_assert_eq(decoder.table.count, 1);
    pages = memory.loop.pages.used;
    b.len = 0;
    put_plain_lines(&b, AG_SPAN(GET));
    memset(b.ptr + b.len, 0xbe, 1000);
    b.len += 1000;
    cr_expect_eq(ag_h2_read_request(&decoder, ag_buf_span(&b), &limits, &req, &arena, &e),
                 AG_ELIMIT);
    cr_expect_eq(e.status, 431);
    cr_expect_not(e.connection);
    cr_expect_leq(memory.loop.pages.used, pages + 2);
    cr_expect_eq(decoder.table.count, 1, "and the tables still agree");
    cr_expect_eq(ag_h2_skip_section(&decoder, ag_buf_span(&b), &limits), AG_OK);

    memset(b.ptr + b.len, 0xbe, 1000);
    b.len += 1000;
    cr_expect_eq(ag_h2_read_request(&decoder, ag_buf_span(&b), &limits, &req, &arena, &e),
                 AG_ELIMIT);
    cr_expect(e.connection);
    cr_expect_str_eq(e.why, "flood of fields");
    cr_expect_eq(ag_h2_skip_section(&decoder, ag_buf_span(&b), &limits), AG_ELIMIT);
}

/* Who is refused costs no more memory. */
Test(h2_fields_bounds, behind_a_mistake_nothing_is_kept)
{
    struct ag_buf b = ag_buf(bytes, sizeof(bytes));
    struct ag_request req = {0};
    struct ag_h2_field_error e = {0};
    uint32_t pages;

    put_plain(&b, AG_SPAN("A"), AG_SPAN("b"));
    put_many(&b, 3, 1000);
    cr_assert_eq(ag_h2_skip_section(&decoder, ag_buf_span(&b), &limits), AG_OK);
    pages = memory.loop.pages.used;
    cr_expect_eq(ag_h2_read_request(&decoder, ag_buf_span(&b), &limits, &req, &arena, &e),
                 AG_EPROTO);
    cr_expect_str_eq(e.why, "invalid field name");
    cr_expect_eq(req.fields.count, 0);
    cr_expect_leq(memory.loop.pages.used, pages + 1);
}

/* The usual request takes no more of its page than it says. */
Test(h2_fields_bounds, text_takes_its_length)
{
    struct ag_buf b = ag_buf(bytes, sizeof(bytes));
    struct ag_field room[8];
    struct ag_request req = {.fields = {room, 0, AG_COUNT(room)}};
    struct ag_h2_field_error e = {0};
    const uint8_t *before, *first = ag_arena_alloc(&arena, 8);

    cr_assert(first);
    before = arena.at;
    put_many(&b, 2, 100);
    cr_assert_eq(ag_h2_read_request(&decoder, ag_buf_span(&b), &limits, &req, &arena, &e), AG_OK);
    cr_expect_eq(arena.page_count, 1);
    cr_expect_leq(arena.at - before, (ptrdiff_t)(b.len + 8));
}

/* Without room the stream goes, and the connection stays. */
Test(h2_fields_bounds, want_of_memory)
{
    struct ag_buf b = ag_buf(bytes, sizeof(bytes));
    struct ag_pool *pages = &memory.loop.pages;
    struct ag_arena rest;
    void *page = NULL;

    ag_arena_init(&rest, pages, 100);
    ag_buf_put(&b, AG_SPAN("\x40\x01x\x01y")); /* the table takes its memory now */
    cr_assert_eq(ag_h2_skip_section(&decoder, ag_buf_span(&b), &limits), AG_OK);
    while ((page = ag_arena_alloc(&rest, AG_ARENA_ALLOC_MAX))) {
    }
    cr_assert_null(page);
    for (unsigned kind = 0; kind < 3; kind++) {
        static const char *const lines[] = {
            GET,
            GET "a: b\n",
            ":method: GET\n:scheme: http\n:path: /\nhost: a\n",
        };
        struct ag_request req = {0};
        struct ag_h2_field_error e = {0};

        b.len = 0;
        put_plain_lines(&b, ag_span_str(lines[kind]));
        cr_expect_eq(ag_h2_read_request(&decoder, ag_buf_span(&b), &limits, &req, &arena, &e),
                     AG_ENOMEM);
        cr_expect_eq(e.status, 503);
        cr_expect_not(e.connection);
    }
    ag_arena_release(&rest);
}

/* The table's own memory is the connection's end. */
Test(h2_fields_bounds, broken_compression)
{
    static const struct {
        const char *section;
        enum ag_status want;
    } rows[] = {{"\x82\xff\xff\xff\xff\xff\x0f", AG_EPROTO},
                {"\x82\xbe", AG_EPROTO},
                {"\x82\x40\x01", AG_EPROTO},
                {"\x82\x3f\xe1\x1f", AG_EPROTO}};

    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        struct ag_request req = {0};
        struct ag_response res = {0};
        struct ag_fields trailers = {0};
        struct ag_h2_field_error e = {0}, f = {0}, g = {0};
        struct ag_span in = ag_span_str(rows[i].section);

        cr_expect_eq(ag_h2_read_request(&decoder, in, &limits, &req, &arena, &e), rows[i].want);
        cr_expect(e.connection);
        cr_expect_eq(ag_h2_read_response(&decoder, in, &limits, AG_METHOD_GET, &res, &arena, &f),
                     rows[i].want);
        cr_expect(f.connection);
        cr_expect_eq(ag_h2_read_trailers(&decoder, in, &limits, &trailers, &arena, &g),
                     rows[i].want);
        cr_expect(g.connection);
        cr_expect_eq(ag_h2_skip_section(&decoder, in, &limits), rows[i].want);
    }
}
