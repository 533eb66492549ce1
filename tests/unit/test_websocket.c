/*
 * Goal: the proof is the one that every WebSocket client computes; SHA-1 is right at the edges of
 * its blocks.
 */
#include "proto/websocket.h"

#include <criterion/criterion.h>

Test(websocket, accept)
{
    /* Base64(SHA-1(key + GUID)); keys of 0 and 1 bytes, up to both sides of where the length no
     * longer fits the last block (key + GUID of 55, 56, 63, 64 and 119, 120 bytes), made with
     * another implementation. The first is the example of RFC 6455 section 1.3. */
    static const struct {
        const char *key;
        size_t repeat;
        const char *want;
    } rows[] = {
        {"dGhlIHNhbXBsZSBub25jZQ==", 1, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="},
        {"x3JJHMbDL1EzLkh9GBhXDw==", 1, "HSmrc0sMlYUkAGmm5OPpG2HaGWk="},
        {"a", 0, "Kfh9QIsMVZcl6xEPYxPHzW8SZ8w="},
        {"a", 1, "FtgH8qqfEKHvZKEZYEWkYDhlXNY="},
        {"a", 19, "yzaGyu0mcUukN7CdsSwa30tnCpc="},
        {"a", 20, "dUYRM7bOMwDmbriNIPr11x+r3E0="},
        {"a", 27, "NCEiOv6lMC9mC8oEZnneqRdJ4DU="},
        {"a", 28, "xMWmCBqYJY4uXzUs8PNU1t+Pzro="},
        {"a", 83, "JM5KfcY+04u0quK7uTyka1S7/6k="},
        {"a", 84, "ulKRXZrQnbZPxNi6BcFGPe3Py5Q="},
        {"a", 220, "hruJtsLdnF5/cGF5Fjw2WFfWgIw="},
    };

    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        uint8_t key[256], got[AG_WEBSOCKET_ACCEPT_LEN];
        struct ag_buf b = ag_buf(key, sizeof(key));

        for (size_t n = 0; n < rows[i].repeat; n++) {
            ag_buf_put(&b, ag_span_str(rows[i].key));
        }
        cr_assert_not(b.overflow);
        ag_websocket_accept(ag_buf_span(&b), got);
        cr_expect_eq(memcmp(got, rows[i].want, sizeof(got)), 0, "row %zu: %.28s", i,
                     (const char *)got);
    }
}

Test(websocket, key)
{
    cr_expect(ag_websocket_key_is_valid(AG_SPAN("dGhlIHNhbXBsZSBub25jZQ==")));
    cr_expect(ag_websocket_key_is_valid(AG_SPAN("+/AAAAAAAAAAAAAAAAAAAA==")));
    cr_expect_not(ag_websocket_key_is_valid(AG_SPAN("")));
    cr_expect_not(ag_websocket_key_is_valid(AG_SPAN("dGhlIHNhbXBsZSBub25jZQ=")));
    cr_expect_not(ag_websocket_key_is_valid(AG_SPAN("dGhlIHNhbXBsZSBub25jZQ===")));
    cr_expect_not(ag_websocket_key_is_valid(AG_SPAN("dGhlIHNhbXBsZSBub25jZQA=")));
    cr_expect_not(ag_websocket_key_is_valid(AG_SPAN("dGhlIHNhbXBsZSBub25jZ===")));
    cr_expect_not(ag_websocket_key_is_valid(AG_SPAN("dGhlIHNhbXBs-SBub25jZQ==")));
    cr_expect_not(ag_websocket_key_is_valid(AG_SPAN("dGhlIHNhbXBs SBub25jZQ==")));
    cr_expect_not(ag_websocket_key_is_valid(AG_SPAN("dGhlIHNhbXBs\0SBub25jZQ==")));
}
