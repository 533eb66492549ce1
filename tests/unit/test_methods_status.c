/*
 * Goal: names and numbers agree both ways, and nothing that only resembles a name is taken for it.
 */
#include "proto/http.h"

#include <criterion/criterion.h>

Test(methods, names_round_trip)
{
    for (unsigned m = AG_METHOD_GET; m < AG_METHODS; m++) {
        struct ag_span name = ag_method_name((enum ag_method)m);

        cr_expect(name.len > 0);
        cr_expect_eq(ag_method_from_name(name), m);
    }
}

Test(methods, others_are_other)
{
    static const char *const rows[] = {"",   "get",      "Get",   "GETS",
                                       "GE", "PROPFIND", "QUERY", "POSTS"};

    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        cr_expect_eq(ag_method_from_name(ag_span_str(rows[i])), AG_METHOD_OTHER, "%s", rows[i]);
    }
}

Test(methods, idempotent)
{
    /* RFC 9110 section 9.2.2 */
    for (unsigned m = AG_METHOD_OTHER; m < AG_METHODS; m++) {
        bool want = m != AG_METHOD_OTHER && m != AG_METHOD_POST && m != AG_METHOD_PATCH &&
                    m != AG_METHOD_CONNECT;
        cr_expect_eq(ag_method_is_idempotent((enum ag_method)m), want, "method %u", m);
    }
}

/* The word that SPEC's rule makes of a phrase. */
static struct ag_span word_of(struct ag_span phrase, struct ag_buf *b)
{
    b->len = 0;
    for (size_t i = 0; i < phrase.len; i++) {
        uint8_t ch = phrase.ptr[i];

        if (ch == ' ' || ch == '-') {
            ag_buf_putc(b, '_');
        } else if (ch != '\'') {
            ag_buf_putc(b, (uint8_t)(ch >= 'a' && ch <= 'z' ? ch - 'a' + 'A' : ch));
        }
    }
    return ag_buf_span(b);
}

Test(status, every_phrase_has_its_word)
{
    uint8_t room[64];
    struct ag_buf b = ag_buf(room, sizeof(room));
    unsigned known = 0;

    for (unsigned status = 0; status < 1000; status++) {
        struct ag_span phrase = ag_status_phrase(status);

        if (phrase.len) {
            known++;
            cr_expect_eq(ag_status_from_word(word_of(phrase, &b)), status, "%u", status);
        }
    }
    cr_expect_eq(known, 62);
    cr_expect(ag_span_eq(ag_status_phrase(200), AG_SPAN("OK")));
    cr_expect(ag_span_eq(ag_status_phrase(404), AG_SPAN("Not Found")));
    cr_expect(ag_span_eq(ag_status_phrase(413), AG_SPAN("Content Too Large")));
    cr_expect_eq(ag_status_phrase(306).len, 0);
    cr_expect_eq(ag_status_phrase(599).len, 0);
    cr_expect_eq(ag_status_phrase(UINT32_MAX).len, 0);
}

Test(status, words)
{
    cr_expect_eq(ag_status_from_word(AG_SPAN("FORBIDDEN")), 403);
    cr_expect_eq(ag_status_from_word(AG_SPAN("TOO_MANY_REQUESTS")), 429);
    cr_expect_eq(ag_status_from_word(AG_SPAN("PAYLOAD_TOO_LARGE")), 413);
    cr_expect_eq(ag_status_from_word(AG_SPAN("UNPROCESSABLE_ENTITY")), 422);
    cr_expect_eq(ag_status_from_word(AG_SPAN("Forbidden")), 0);
    cr_expect_eq(ag_status_from_word(AG_SPAN("NOT FOUND")), 0);
    cr_expect_eq(ag_status_from_word(AG_SPAN("")), 0);
    cr_expect_eq(ag_status_from_word(AG_SPAN("FORBIDDE")), 0);
}

Test(status, nearest_word)
{
    unsigned distance = 99;

    cr_expect(
        ag_span_eq(ag_status_nearest_word(AG_SPAN("FORBIDEN"), &distance), AG_SPAN("FORBIDDEN")));
    cr_expect_eq(distance, 1);
    cr_expect(
        ag_span_eq(ag_status_nearest_word(AG_SPAN("NOT_FUOND"), &distance), AG_SPAN("NOT_FOUND")));
    cr_expect_eq(distance, 1);
    cr_expect(ag_span_eq(ag_status_nearest_word(AG_SPAN("OK"), &distance), AG_SPAN("OK")));
    cr_expect_eq(distance, 0);
    (void)ag_status_nearest_word(AG_SPAN("XYZXYZXYZXYZ"), &distance);
    cr_expect(distance > 6);
}
