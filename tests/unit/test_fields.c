/*
 * Goal: each known name is found in any case and nothing else is; lists keep order, removed entries
 * stay unseen; list values are cut at commas outside of quotes only.
 */
#include "proto/http.h"

#include <criterion/criterion.h>

#include <ctype.h>

static struct ag_arena arena;

static void setup(void)
{
    ag_arena_init(&arena, NULL, 0);
}

static void teardown(void)
{
    ag_arena_release(&arena);
}

TestSuite(fields, .init = setup, .fini = teardown);

Test(fields, every_known_name_in_any_case)
{
    for (unsigned id = AG_FIELD_OTHER + 1; id < AG_FIELDS; id++) {
        struct ag_span name = ag_field_name((enum ag_field_id)id);
        char text[64];

        cr_assert(name.len > 1 && name.len < sizeof(text) && ag_is_token(name));
        cr_expect_eq(ag_field_id_from_name(name), id);
        for (unsigned mode = 0; mode < 3; mode++) {
            for (size_t i = 0; i < name.len; i++) {
                int ch = name.ptr[i];
                text[i] = (char)(mode == 0 || (mode == 2 && i % 2) ? tolower(ch) : toupper(ch));
            }
            cr_expect_eq(ag_field_id_from_name(ag_span(text, name.len)), id, "%.*s", (int)name.len,
                         text);
        }
    }
}

Test(fields, one_byte_off_is_another_name)
{
    for (unsigned id = AG_FIELD_OTHER + 1; id < AG_FIELDS; id++) {
        struct ag_span name = ag_field_name((enum ag_field_id)id);
        uint8_t text[64];

        memcpy(text, name.ptr, name.len);
        for (size_t i = 0; i < name.len; i++) {
            for (unsigned ch = 0; ch < 256; ch++) {
                text[i] = (uint8_t)ch;
                enum ag_field_id got = ag_field_id_from_name(ag_span(text, name.len));
                bool same = tolower((int)ch) == tolower(name.ptr[i]);
                cr_assert(same ? got == id : got != id, "%.*s at %zu: %02x", (int)name.len,
                          (const char *)name.ptr, i, ch);
            }
            text[i] = name.ptr[i];
        }
        text[name.len] = 's';
        cr_expect_neq(ag_field_id_from_name(ag_span(text, name.len + 1)), id);
        cr_expect_neq(ag_field_id_from_name(ag_span(text, name.len - 1)), id);
    }
    cr_expect_eq(ag_field_id_from_name(AG_SPAN("")), AG_FIELD_OTHER);
    cr_expect_eq(ag_field_id_from_name(AG_SPAN("x")), AG_FIELD_OTHER);
    cr_expect_eq(ag_field_id_from_name(AG_SPAN("Content_Length")), AG_FIELD_OTHER);
}

Test(fields, canonical_spelling)
{
    cr_expect(ag_span_eq(ag_field_name(AG_FIELD_CONTENT_TYPE), AG_SPAN("Content-Type")));
    cr_expect(ag_span_eq(ag_field_name(AG_FIELD_ETAG), AG_SPAN("ETag")));
    cr_expect(ag_span_eq(ag_field_name(AG_FIELD_WWW_AUTHENTICATE), AG_SPAN("WWW-Authenticate")));
    cr_expect(ag_span_eq(ag_field_name(AG_FIELD_SEC_WEBSOCKET_KEY), AG_SPAN("Sec-WebSocket-Key")));
}

Test(fields, grows_and_keeps_order)
{
    struct ag_field first[3];
    struct ag_fields f = {first, 0, AG_COUNT(first)};
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz";

    for (unsigned i = 0; i < 500; i++) {
        cr_assert_eq(ag_fields_add(&f, &arena, AG_FIELD_OTHER, ag_span(letters + i % 26, 1),
                                   ag_span(letters, i % 26)),
                     AG_OK);
        cr_assert_eq(f.v == first, i < 3, "the caller's entries come first");
    }
    cr_assert_eq(f.count, 500);
    for (unsigned i = 0; i < 500; i++) {
        cr_assert_eq(*f.v[i].name, (uint8_t)letters[i % 26]);
        cr_assert_eq(f.v[i].value_len, i % 26);
        cr_assert_not(f.v[i].removed);
    }
}

Test(fields, a_bounded_arena_ends_growth)
{
    struct ag_pool pages;
    struct ag_arena bounded;
    struct ag_fields f = {0};
    unsigned n = 0;

    cr_assert_eq(ag_pool_init(&pages, "pages", AG_ARENA_PAGE_BYTES, 16), AG_OK);
    ag_arena_init(&bounded, &pages, 16);
    while (n < 1000 && ag_fields_add_id(&f, &bounded, AG_FIELD_AGE, AG_SPAN("1")) == AG_OK) {
        n++;
    }
    cr_expect_eq(n, AG_ARENA_ALLOC_MAX / sizeof(struct ag_field), "a whole page is used");
    cr_expect_eq(f.count, n, "a failure adds nothing");
    ag_arena_release(&bounded);
    ag_pool_deinit(&pages);
}

static struct ag_fields sample(void)
{
    struct ag_fields f = {0};

    cr_assert_eq(ag_fields_add_id(&f, &arena, AG_FIELD_VIA, AG_SPAN("1")), AG_OK);
    cr_assert_eq(ag_fields_add(&f, &arena, AG_FIELD_OTHER, AG_SPAN("X-A"), AG_SPAN("2")), AG_OK);
    cr_assert_eq(ag_fields_add_id(&f, &arena, AG_FIELD_VIA, AG_SPAN("3")), AG_OK);
    cr_assert_eq(ag_fields_add(&f, &arena, AG_FIELD_OTHER, AG_SPAN("x-a"), AG_SPAN("4")), AG_OK);
    return f;
}

Test(fields, find_and_remove)
{
    struct ag_fields f = sample();
    struct ag_field *a = ag_fields_find(&f, AG_FIELD_VIA, NULL);

    cr_assert_eq(a, &f.v[0]);
    cr_assert_eq(ag_fields_find(&f, AG_FIELD_VIA, a), &f.v[2]);
    cr_assert_null(ag_fields_find(&f, AG_FIELD_VIA, &f.v[2]));
    cr_assert_null(ag_fields_find(&f, AG_FIELD_HOST, NULL));
    a = ag_fields_find_name(&f, AG_SPAN("x-A"), NULL);
    cr_assert_eq(a, &f.v[1]);
    cr_assert_eq(ag_fields_find_name(&f, AG_SPAN("x-A"), a), &f.v[3]);
    cr_assert_null(ag_fields_find_name(&f, AG_SPAN("x-b"), NULL));

    ag_fields_remove_name(&f, AG_SPAN("X-a"));
    cr_assert_null(ag_fields_find_name(&f, AG_SPAN("X-A"), NULL));
    cr_assert(ag_fields_find(&f, AG_FIELD_VIA, NULL));
    ag_fields_remove(&f, AG_FIELD_VIA);
    cr_assert_null(ag_fields_find(&f, AG_FIELD_VIA, NULL));
    cr_assert_null(ag_fields_find_name(&f, AG_SPAN("via"), NULL));
    cr_assert_eq(f.count, 4, "removed entries keep their places");
}

Test(fields, what_was_removed_needs_no_name)
{
    struct ag_field room[1] = {{.name_len = 3, .removed = true}};
    struct ag_fields f = {room, 1, 1};

    cr_assert_null(ag_fields_find_name(&f, AG_SPAN("abc"), NULL));
    ag_fields_remove_name(&f, AG_SPAN("abc"));
    cr_expect(room[0].removed);
}

Test(fields, lists)
{
    static const struct {
        const char *value, *want; /* elements, each in brackets */
    } rows[] = {
        {"", ""},
        {" \t", ""},
        {",", ""},
        {" , ,,\t, ", ""},
        {"a", "[a]"},
        {" a , b\t,c", "[a][b][c]"},
        {",a,,b,", "[a][b]"},
        {"\"a,b\", c", "[\"a,b\"][c]"},
        {"\"a\\\",b\",c", "[\"a\\\",b\"][c]"},
        {"\"a\\\\\",b", "[\"a\\\\\"][b]"},
        {"a\\,b", "[a\\][b]"},
        {"\"open, b", "[\"open, b]"},
        {"\"x\\", "[\"x\\]"},
        {"W/\"1,2\",\"3\"", "[W/\"1,2\"][\"3\"]"},
    };

    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        uint8_t room[128];
        struct ag_buf got = ag_buf(room, sizeof(room));
        struct ag_span element;
        size_t at = 0;

        while (ag_list_next(ag_span_str(rows[i].value), &at, &element)) {
            ag_buf_putc(&got, '[');
            ag_buf_put(&got, element);
            ag_buf_putc(&got, ']');
        }
        cr_expect(ag_span_eq(ag_buf_span(&got), ag_span_str(rows[i].want)), "%s: %.*s",
                  rows[i].value, (int)got.len, (const char *)got.ptr);
        cr_expect_not(ag_list_next(ag_span_str(rows[i].value), &at, &element), "stays at its end");
    }
}

Test(fields, list_has)
{
    struct ag_fields f = {0};

    cr_assert_eq(ag_fields_add_id(&f, &arena, AG_FIELD_CONNECTION, AG_SPAN("a, Close")), AG_OK);
    cr_assert_eq(ag_fields_add_id(&f, &arena, AG_FIELD_VARY, AG_SPAN("Origin")), AG_OK);
    cr_assert_eq(ag_fields_add_id(&f, &arena, AG_FIELD_CONNECTION, AG_SPAN("upgrade")), AG_OK);
    cr_expect(ag_fields_list_has(&f, AG_FIELD_CONNECTION, AG_SPAN("close")));
    cr_expect(ag_fields_list_has(&f, AG_FIELD_CONNECTION, AG_SPAN("Upgrade")));
    cr_expect_not(ag_fields_list_has(&f, AG_FIELD_CONNECTION, AG_SPAN("origin")));
    cr_expect_not(ag_fields_list_has(&f, AG_FIELD_CONNECTION, AG_SPAN("clos")));
    ag_fields_remove(&f, AG_FIELD_CONNECTION);
    cr_expect_not(ag_fields_list_has(&f, AG_FIELD_CONNECTION, AG_SPAN("close")));
}

Test(fields, characters)
{
    /* RFC 9110 sections 5.6.2 and 5.5, byte by byte. */
    for (unsigned ch = 0; ch < 256; ch++) {
        uint8_t byte = (uint8_t)ch, long_one[40];
        bool token = isalnum((int)ch) != 0 || (ch && strchr("!#$%&'*+-.^_`|~", (int)ch));
        bool value = ch == '\t' || (ch >= 0x20 && ch != 0x7f);

        cr_expect_eq(ag_is_token(ag_span(&byte, 1)), token, "%02x", ch);
        for (size_t at = 0; at < sizeof(long_one); at++) {
            memset(long_one, 'a', sizeof(long_one));
            long_one[at] = byte;
            cr_assert_eq(ag_is_field_value(ag_span(long_one, sizeof(long_one))), value, "%02x", ch);
            cr_assert_eq(ag_is_token(ag_span(long_one, sizeof(long_one))), token, "%02x", ch);
        }
    }
    cr_expect_not(ag_is_token(AG_SPAN("")));
    cr_expect(ag_is_field_value(AG_SPAN("")));
    cr_expect(ag_is_field_value((struct ag_span){NULL, 0}));
}

Test(fields, rebase_moves_what_lies_inside)
{
    static const uint8_t from[8] = "Via: 1x", to[8] = "Via: 1x", other[] = "2";
    struct ag_fields f = {0};

    cr_assert_eq(ag_fields_add(&f, &arena, AG_FIELD_VIA, ag_span(from, 3), ag_span(from + 5, 1)),
                 AG_OK);
    cr_assert_eq(ag_fields_add_id(&f, &arena, AG_FIELD_VIA, ag_span(other, 1)), AG_OK);
    cr_assert_eq(ag_fields_add(&f, &arena, AG_FIELD_VIA, ag_span(from + 7, 1), ag_span(NULL, 0)),
                 AG_OK);
    ag_fields_rebase(&f, from, 7, to);
    cr_expect_eq(f.v[0].name, to);
    cr_expect_eq(f.v[0].value, to + 5);
    cr_expect_eq(f.v[1].value, other);
    cr_expect_eq(f.v[2].name, from + 7, "the byte after the range is another's");
    cr_expect_null(f.v[2].value);
}
