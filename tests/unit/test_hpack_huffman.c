/*
 * Goal: the Huffman code is that of RFC 7541 appendix B, both ways, and nothing else is taken for it.
 * Method: codes and the decoder's tables derived anew from the lengths alone; every symbol, pairs and
 * random strings there and back; strings that end wrongly.
 */
#include "proto/hpack_huffman.h"

#include "proto/hpack_huffman_table.h"

#include <criterion/criterion.h>

static unsigned length_of(unsigned symbol)
{
    return codes[symbol] & 63;
}

Test(huffman, the_tables_follow_from_the_lengths)
{
    uint64_t code = 0;
    unsigned place = 0, covered = 0;

    for (unsigned length = 1; length <= LENGTH_MAX; length++, code <<= 1) {
        unsigned count = 0;

        for (unsigned symbol = 0; symbol <= EOS; symbol++) {
            if (length_of(symbol) != length) {
                continue;
            }
            if (count++ == 0) {
                cr_assert_eq(lengths[length].first, code);
                cr_assert_eq(lengths[length].place, place);
            }
            cr_assert_eq(codes[symbol] >> 6, code);
            cr_assert_eq(order[place], symbol);
            for (unsigned i = 0; length <= FAST_BITS && i < 1u << (FAST_BITS - length); i++) {
                cr_assert_eq(fast[(code << (FAST_BITS - length)) + i], symbol << 8 | length);
                covered++;
            }
            place++;
            code++;
        }
        cr_assert_eq(lengths[length].count, count);
    }
    cr_assert_eq(place, EOS + 1);
    cr_assert_eq(code, UINT64_C(2) << LENGTH_MAX, "a complete code");
    for (unsigned i = 0; i < AG_COUNT(fast); i++) {
        covered += fast[i] == 0;
    }
    cr_assert_eq(covered, AG_COUNT(fast));
}

static void there_and_back(struct ag_span s)
{
    uint8_t encoded[600], decoded[256];
    struct ag_buf e = ag_buf(encoded, ag_huffman_length(s)), d = ag_buf(decoded, s.len);

    ag_huffman_encode(&e, s);
    cr_assert(!e.overflow && e.len == e.cap);
    cr_assert_eq(ag_huffman_decode(&d, ag_buf_span(&e)), AG_OK);
    cr_assert(ag_span_eq(ag_buf_span(&d), s));
    if (s.len) {
        struct ag_buf small = ag_buf(decoded, s.len - 1), none = ag_buf(encoded, e.len - 1);

        cr_assert_eq(ag_huffman_decode(&small, ag_buf_span(&e)), AG_ELIMIT);
        cr_assert_eq(small.len, 0);
        ag_huffman_encode(&none, s);
        cr_assert(none.overflow && none.len == 0);
    }
}

Test(huffman, there_and_back)
{
    uint8_t text[128];

    there_and_back(ag_span(NULL, 0));
    for (unsigned a = 0; a < 256; a++) {
        for (unsigned b = 0; b < 256; b++) {
            text[0] = (uint8_t)a;
            text[1] = (uint8_t)b;
            there_and_back(ag_span(text, 2));
        }
    }
    srand(1);
    for (unsigned round = 0; round < 2000; round++) {
        size_t len = (size_t)rand() % sizeof(text);

        for (size_t i = 0; i < len; i++) {
            text[i] = (uint8_t)(rand() % (round % 2 ? 256 : 128));
        }
        there_and_back(ag_span(text, len));
    }
}

static enum ag_status decode(const char *bytes, size_t len)
{
    uint8_t out[64];
    struct ag_buf b = ag_buf(out, sizeof(out));

    return ag_huffman_decode(&b, ag_span(bytes, len));
}

Test(huffman, what_is_no_string)
{
    cr_expect_eq(decode("\x1f", 1), AG_OK, "'a' and ones");
    cr_expect_eq(decode("\x18", 1), AG_EPROTO, "'a' and zeros");
    cr_expect_eq(decode("\x1e", 1), AG_EPROTO, "not all of them ones");
    cr_expect_eq(decode("\xff", 1), AG_EPROTO, "a byte of padding");
    cr_expect_eq(decode("\x1f\xff", 2), AG_EPROTO, "more than a byte of it");
    cr_expect_eq(decode("\xff\xff\xff\xff", 4), AG_EPROTO, "the end of the string");
    cr_expect_eq(decode("\xff\xff\xff\xfc", 4), AG_EPROTO);
    cr_expect_eq(decode("\xff\xff\xff\xf0", 4), AG_EPROTO, "a long code, and zeros");
    cr_expect_eq(decode("\xff\xff\xea", 3), AG_OK, "24 bits: 0xc7 would be 25");
}
