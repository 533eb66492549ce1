/*
 * Goal: errors are problems of RFC 9457 for those who want JSON at least as much as text, and text for all
 * others, whatever they write into Accept.
 * Method: a table.
 */
#include "proto/accept.h"

#include <criterion/criterion.h>

Test(accept, json_or_text)
{
    static const struct {
        const char *lines[2];
        bool json;
    } cases[] = {
        {{NULL}, false},
        {{""}, false},
        {{"*/*"}, false},
        {{"application/*"}, false},
        {{"application/json"}, true},
        {{"Application/JSON"}, true},
        {{"application/problem+json"}, true},
        {{"application/vnd.api+json, text/html;q=0.5"}, true},
        {{"application/json, text/plain, */*"}, true},
        {{"text/html, application/json;q=0.9"}, false},
        {{"text/html;q=0.8, application/json;q=0.9"}, true},
        {{"text/html;q=0.85,application/json;q=0.851"}, true},
        {{"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}, false},
        {{"text/html", "application/json"}, true},
        {{"text/*, application/json;q=0.2"}, false},
        {{"application/json;q=0"}, false},
        {{"application/json;q=0.000"}, false},
        {{"application/json;q=0.001"}, true},
        {{"application/json; charset=utf-8; Q=0"}, false},
        {{"application/json;q=x"}, true},
        {{"application/json;q="}, true},
        {{"application/json;q=99999999999999999999"}, true},
        {{"application/jsonp"}, false},
        {{"text/plain;note=\"application/json\""}, false},
        {{"json"}, false},
        {{";q=1,,/"}, false},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct ag_arena arena;
        struct ag_fields fields = {0};

        ag_arena_init(&arena, NULL, 0);
        for (unsigned k = 0; k < 2 && cases[i].lines[k]; k++) {
            cr_assert(ag_fields_add_id(&fields, &arena, AG_FIELD_ACCEPT,
                                       ag_span_str(cases[i].lines[k])) == AG_OK);
        }
        cr_expect_eq(ag_accepts_json(&fields), cases[i].json, "%s", cases[i].lines[0]);
        ag_arena_release(&arena);
    }
}
