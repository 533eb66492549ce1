/*
 * Goal: HPACK as RFC 7541 has it: both sides keep the same table, bounds hold, and what is malformed is
 * told apart from what is only too large.
 * Method: the examples of its appendix C; our encoder against our decoder over random stories with tables
 * that change their size; sections cut at every byte; hand-made sections for each error.
 */
#include "proto/hpack.h"

#include "proto/hpack_table.h"

#include <criterion/criterion.h>
#include <stdio.h>

struct side {
    struct ag_pool pool;
    struct ag_arena memory;
    struct ag_hpack_decoder d;
    struct ag_hpack_encoder e;
};

static struct side side;
static uint8_t text[65536];
static size_t more_calls;

static void begin(void)
{
    cr_assert_eq(ag_pool_init(&side.pool, "pages", AG_ARENA_PAGE_BYTES, 16), AG_OK);
    ag_arena_init(&side.memory, &side.pool, 16);
    ag_hpack_decoder_init(&side.d, &side.memory);
    ag_hpack_encoder_init(&side.e, &side.memory);
}

static void end(void)
{
    ag_arena_release(&side.memory);
    ag_pool_deinit(&side.pool);
}

TestSuite(hpack, .init = begin, .fini = end);

static enum ag_status more(struct ag_hpack_section *s, size_t bytes)
{
    cr_assert(bytes > 0 && bytes <= s->left_bytes);
    cr_assert_leq(bytes, sizeof(text));
    more_calls++;
    s->text = ag_buf(text, sizeof(text));
    return AG_OK;
}

static unsigned digit(char ch)
{
    return (unsigned)(ch <= '9' ? ch - '0' : ch - 'a' + 10);
}

static size_t from_hex(const char *hex, uint8_t *to)
{
    size_t n = 0;

    for (; *hex; hex += 2) {
        hex += *hex == ' ';
        to[n++] = (uint8_t)(digit(hex[0]) << 4 | digit(hex[1]));
    }
    return n;
}

/* Decodes a section into lines "name: value"; what it ended with. */
static enum ag_status decode(struct ag_span in, size_t left_bytes, struct ag_buf *lines)
{
    struct ag_hpack_section s = {.in = in, .more = more, .left_bytes = left_bytes};
    struct ag_field f;
    enum ag_status st;

    while ((st = ag_hpack_next(&side.d, &s, &f)) == AG_OK) {
        cr_assert_eq(f.id, ag_field_id_from_name(ag_field_key(&f)));
        ag_buf_put(lines, ag_field_key(&f));
        ag_buf_put(lines, AG_SPAN(": "));
        ag_buf_put(lines, ag_field_value(&f));
        ag_buf_put(lines, AG_SPAN("\n"));
    }
    return st;
}

static void expect(const char *hex, const char *lines)
{
    uint8_t in[512], out[1024];
    struct ag_buf b = ag_buf(out, sizeof(out));

    cr_expect_eq(decode(ag_span(in, from_hex(hex, in)), 65536, &b), AG_AGAIN);
    cr_expect(ag_span_eq(ag_buf_span(&b), ag_span_str(lines)), "%s: %.*s", hex, (int)b.len, out);
}

/* ---- the examples of appendix C ---- */

#define REQUEST_1 ":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com\n"
#define REQUEST_2 REQUEST_1 "cache-control: no-cache\n"
#define REQUEST_3                                                                     \
    ":method: GET\n:scheme: https\n:path: /index.html\n:authority: www.example.com\n" \
    "custom-key: custom-value\n"

static void expect_table(unsigned count, unsigned bytes)
{
    cr_expect_eq(side.d.table.count, count);
    cr_expect_eq(side.d.table.bytes, bytes);
}

Test(hpack, requests_without_huffman)
{
    expect("8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d", REQUEST_1);
    expect_table(1, 57);
    expect("8286 84be 5808 6e6f 2d63 6163 6865", REQUEST_2);
    expect_table(2, 110);
    expect("8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65", REQUEST_3);
    expect_table(3, 164);
}

Test(hpack, requests_with_huffman)
{
    expect("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff", REQUEST_1);
    expect("8286 84be 5886 a8eb 1064 9cbf", REQUEST_2);
    expect("8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf", REQUEST_3);
    expect_table(3, 164);
}

#define AT_21      "date: Mon, 21 Oct 2013 20:13:21 GMT\n"
#define AT_22      "date: Mon, 21 Oct 2013 20:13:22 GMT\n"
#define LOCATION   "location: https://www.example.com\n"
#define RESPONSE_1 ":status: 302\ncache-control: private\n" AT_21 LOCATION
#define RESPONSE_2 ":status: 307\ncache-control: private\n" AT_21 LOCATION
#define RESPONSE_3                                                                                 \
    ":status: 200\ncache-control: private\n" AT_22 LOCATION "content-encoding: gzip\nset-cookie: " \
    "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1\n"

Test(hpack, responses_with_eviction)
{
    ag_hpack_table_resize(&side.d.table, 256);
    expect(
        "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a "
        "3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        RESPONSE_1);
    expect_table(4, 222);
    expect("4803 3330 37c1 c0bf", RESPONSE_2);
    expect_table(4, 222);
    expect(
        "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 "
        "677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 "
        "553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31",
        RESPONSE_3);
    expect_table(3, 215);
}

Test(hpack, responses_with_huffman_and_eviction)
{
    ag_hpack_table_resize(&side.d.table, 256);
    expect(
        "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e "
        "919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
        RESPONSE_1);
    expect("4883 640e ffc1 c0bf", RESPONSE_2);
    expect(
        "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 "
        "821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed "
        "4ee5 b106 3d50 07",
        RESPONSE_3);
    expect_table(3, 215);
}

/* ---- errors and bounds ---- */

static enum ag_status status_of(const char *hex, size_t left_bytes)
{
    uint8_t in[8192], out[8192];
    struct ag_buf b = ag_buf(out, sizeof(out));

    return decode(ag_span(in, from_hex(hex, in)), left_bytes, &b);
}

Test(hpack, what_is_malformed)
{
    static const char *const bad[] = {
        "80",           /* index 0 */
        "be",           /* an empty dynamic table */
        "ff",           /* an integer without its end */
        "ff80",         /* the same */
        "ffffffffff0f", /* more than it may be */
        "ff8080808000", /* more bytes than it may have */
        "40",           /* a name without its end */
        "400161",       /* a value without its beginning */
        "40016105",     /* and without its bytes */
        "41",           /* the same by index */
        "7f00",         /* a name's index that is none */
        "40811801",     /* padding of zeros */
        "4081ff00",     /* a byte of padding */
        "3fe21f",       /* a table of 4097 */
        "8220",         /* a size update behind a field */
        "3f",           /* one without its end */
    };

    for (size_t i = 0; i < AG_COUNT(bad); i++) {
        cr_expect_eq(status_of(bad[i], 65536), AG_EPROTO, "%s", bad[i]);
    }
    cr_expect_eq(status_of("203fe11f82", 65536), AG_AGAIN, "two updates, the second of 4096");
    cr_expect_eq(side.d.table.max_bytes, 4096);
    cr_expect_eq(status_of("82", 4 + 7 + 2), AG_ELIMIT);
}

/* Beyond the limit nothing is kept, but the table goes on as the sender's does. */
Test(hpack, a_field_too_large_is_added_all_the_same)
{
    uint8_t in[16];
    struct ag_hpack_section s = {
        .in = {in, from_hex("40016100 4001620163", in)}, .more = more, .left_bytes = 32};
    struct ag_field f;

    cr_expect_eq(ag_hpack_next(&side.d, &s, &f), AG_ELIMIT);
    cr_expect_eq(ag_hpack_next(&side.d, &s, &f), AG_ELIMIT);
    cr_expect_eq(ag_hpack_next(&side.d, &s, &f), AG_AGAIN);
    expect_table(2, 67);
    expect("bebf", "b: c\na: \n");
}

/* One larger than the table empties it (section 4.4), kept or not. */
Test(hpack, a_field_larger_than_the_table_empties_it)
{
    static uint8_t in[6000], out[8192];
    struct ag_buf lines = ag_buf(out, sizeof(out));

    for (unsigned kept = 0; kept < 2; kept++) {
        expect("40016100", "a: \n");
        expect_table(1, 33);
        memset(in, 'v', sizeof(in));
        (void)from_hex("4001617f 891f", in); /* 127 + 9 + 31 * 128 bytes */
        lines.len = 0;
        cr_expect_eq(decode(ag_span(in, 6 + 4104), kept ? 8192 : 4000, &lines),
                     kept ? AG_AGAIN : AG_ELIMIT);
        expect_table(0, 0);
    }
}

Test(hpack, without_memory_nothing_is_added)
{
    struct ag_arena none;

    ag_arena_init(&none, &side.pool, 1); /* the entries, but not their text */
    ag_hpack_decoder_init(&side.d, &none);
    ag_hpack_encoder_init(&side.e, &none);
    cr_expect_eq(status_of("40016100", 65536), AG_ENOMEM);
    ag_arena_release(&none);
}

Test(hpack, a_section_cut_anywhere_is_malformed_or_shorter)
{
    static const char whole[] =
        "828684418cf1e3c2e5f23a6ba0ab90f4ff400a637573746f6d2d6b65790c637573746f6d"
        "2d76616c7565100870617373776f726406736563726574";
    uint8_t in[128], out[512];
    size_t len = from_hex(whole, in);

    for (size_t cut = 0; cut <= len; cut++) {
        struct ag_buf b = ag_buf(out, sizeof(out));
        enum ag_status st;

        end();
        begin();
        st = decode(ag_span(in, cut), 65536, &b);
        cr_expect(st == AG_AGAIN || st == AG_EPROTO);
        cr_expect_eq(st == AG_AGAIN, cut <= 3 || cut == 17 || cut == 42 || cut == len, "%zu", cut);
    }
}

/* ---- both ways ---- */

static struct ag_span random_text(unsigned max)
{
    static uint8_t pool[4][4096];
    static unsigned turn;
    uint8_t *to = pool[turn++ % 4];
    size_t len = (size_t)rand() % max;

    for (size_t i = 0; i < len; i++) {
        to[i] = (uint8_t)(rand() % 4 ? 'a' + rand() % 26 : rand() % 256);
    }
    return ag_span(to, len);
}

static struct ag_span one_of(const char *const *texts, unsigned count)
{
    return ag_span_str(texts[(unsigned)rand() % count]);
}

static void put_random(struct ag_buf *section, struct ag_buf *lines)
{
    static const char *const values[] = {"",          "GET",           "/",        "200",
                                         "text/html", "gzip, deflate", "max-age=0"};
    static const char *const names[] = {"x-one", "x-two", "x-a-longer-name-for-once", "strict"};
    enum ag_hpack_indexing how = (enum ag_hpack_indexing)(rand() % 4);
    struct ag_span value =
        rand() % 3 ? one_of(values, AG_COUNT(values)) : random_text(rand() % 50 ? 60 : 3000);
    struct ag_span name = one_of(names, AG_COUNT(names));
    enum ag_field_id id = AG_FIELD_OTHER;
    char lower[64];

    if (rand() % 5 == 0) {
        static const enum ag_hpack_pseudo all[] = {AG_HPACK_AUTHORITY, AG_HPACK_METHOD,
                                                   AG_HPACK_PATH, AG_HPACK_SCHEME, AG_HPACK_STATUS};
        enum ag_hpack_pseudo pseudo = all[(unsigned)rand() % AG_COUNT(all)];

        name = ag_hpack_static[pseudo].name;
        ag_hpack_put_pseudo(&side.e, section, pseudo, value, how);
    } else {
        if (rand() % 2) {
            id = (enum ag_field_id)(1 + rand() % (AG_FIELDS - 1));
            for (size_t i = 0; i < ag_field_name(id).len; i++) {
                lower[i] = (char)ag_ascii_lower(ag_field_name(id).ptr[i]);
            }
            name = ag_span(lower, ag_field_name(id).len);
        }
        ag_hpack_put(&side.e, section, id, name, value, how);
    }
    ag_buf_put(lines, name);
    ag_buf_put(lines, AG_SPAN(": "));
    ag_buf_put(lines, value);
    ag_buf_put(lines, AG_SPAN("\n"));
}

Test(hpack, stories_come_out_as_they_went_in)
{
    static uint8_t section[100000], lines[100000], got[100000];
    unsigned indexed = 0;

    srand(5);
    for (unsigned round = 0; round < 10000; round++) {
        struct ag_buf s = ag_buf(section, sizeof(section)), want = ag_buf(lines, sizeof(lines));
        struct ag_buf is = ag_buf(got, sizeof(got));

        for (int resizes = rand() % 20 ? 0 : rand() % 4; resizes > 0; resizes--) {
            ag_hpack_resize(&side.e, (uint32_t)(rand() % 3 ? rand() % 5000 : rand() % 300));
        }
        ag_hpack_begin(&side.e, &s);
        for (int fields = rand() % 20; fields > 0; fields--) {
            put_random(&s, &want);
        }
        cr_assert(!s.overflow && !want.overflow);
        cr_assert_eq(decode(ag_buf_span(&s), sizeof(text), &is), AG_AGAIN, "round %u", round);
        cr_assert(ag_span_eq(ag_buf_span(&is), ag_buf_span(&want)), "round %u", round);
        cr_assert_eq(side.d.table.bytes, side.e.table.bytes);
        cr_assert_eq(side.d.table.count, side.e.table.count);
        indexed += side.e.table.count;
    }
    cr_expect_gt(indexed, 10000);
}
