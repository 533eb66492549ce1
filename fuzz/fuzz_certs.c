/* Any bytes as a certificate (below itself, too), a file of them and a key, an OCSP response, ticket keys: no crash,
 * nothing read beyond them, and names that are fit for fields and logs. */
#include "engine/tls_cert.h"
#include "engine/tls_constraints.h"
#include "engine/tls_ocsp.h"
#include "engine/tls_pem.h"
#include "engine/tls_tickets.h"
#include "engine/tls_x509.h"

/* When the corpus was made. */
#define MADE_S 1795962394

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_text(const struct ag_buf *b)
{
    for (size_t i = 0; i < b->len; i++) {
        AG_ASSERT(b->ptr[i] >= ' ' && b->ptr[i] < 0x7f);
    }
}

static void as_certificate(struct ag_span der)
{
    uint8_t room[512];
    struct ag_buf b = ag_buf(room, sizeof(room));
    struct ag_x509 c;
    struct ag_span names;
    bool address;

    if (!ag_x509_parse(der, &c)) {
        return;
    }
    AG_ASSERT(c.tbs.ptr >= der.ptr && c.tbs.ptr + c.tbs.len <= der.ptr + der.len);
    ag_x509_put_name(c.subject, &b);
    check_text(&b);
    names = c.names;
    for (b.len = 0; ag_x509_next_name(&names, &b, &address); b.len = 0) {
        check_text(&b);
    }
    (void)ag_x509_common_name(c.issuer);
    (void)!ag_tls_constraints_judge(c.constraints, &c);
}

static void as_files(struct ag_span text)
{
    struct ag_arena arena;
    struct ag_tls_identity *id;
    struct ag_pem pem;
    struct ag_span rest = text, der;
    const char *why = NULL;
    uint32_t count;

    ag_arena_init(&arena, NULL, 0);
    while (ag_pem_next(&rest, &pem) == AG_OK) {
        if (ag_pem_decode(&pem, &arena, &der) == AG_OK) {
            as_certificate(der);
        }
    }
    if (ag_tls_identity_read(&arena, text, text, &id, &why) != AG_OK) {
        AG_ASSERT(why);
    }
    why = NULL;
    if (ag_tls_authorities_check(&arena, text, &count, &why) != AG_OK) {
        AG_ASSERT(why);
    }
    ag_arena_release(&arena);
}

/* A certificate of "ca" and its own, that the corpus has responses for. */
static const char leaf_pem[] = "-----BEGIN CERTIFICATE-----\n"
                               "MIICHDCCAcOgAwIBAgIUXopcwCjkMue5SVk8DYkEofSAqVcwCgYIKoZIzj0EAwIw\n"
                               "DTELMAkGA1UEAwwCY2EwHhcNMjYxMTI5MTQyNjEzWhcNNDYxMTI0MTQyNjEzWjAb\n"
                               "MQowCAYDVQQKDAF4MQ0wCwYDVQQDDARsZWFmMFkwEwYHKoZIzj0CAQYIKoZIzj0D\n"
                               "AQcDQgAE95zbDb85jnnJyjH54GlOlBmA1tExA9Y9NvAWuXc6kS1Y6gCq4xn+7lQv\n"
                               "yw6dszeB+CJJPKgXG6ROKqlYmxxf4aOB8jCB7zBBBgNVHREEOjA4ggxsZWFmLmV4\n"
                               "YW1wbGWCCyouYi5leGFtcGxlhwR/AAABhxAAAAAAAAAAAAAAAAAAAAABgQNhQGIw\n"
                               "LQYIKwYBBQUHAQEEITAfMB0GCCsGAQUFBzABhhFodHRwOi8vby5leGFtcGxlLzAR\n"
                               "BggrBgEFBQcBGAQFMAMCAQUwHQYDVR0lBBYwFAYIKwYBBQUHAwEGCCsGAQUFBwMC\n"
                               "MAkGA1UdEwQCMAAwHQYDVR0OBBYEFP2wLu88+uKPoewK0FD+yHIaI9HRMB8GA1Ud\n"
                               "IwQYMBaAFGMWFaYBgHntDYcDm0wEY28vSy5LMAoGCCqGSM49BAMCA0cAMEQCIH7u\n"
                               "7SrxoTO630RyDwM8kFkUHoONOOXNk8XmOCjj4iFXAiApV+wqeD0PeQM65HQQEX5T\n"
                               "iFXIa0X+1dsgkftZd/RrbA==\n"
                               "-----END CERTIFICATE-----\n";
static const char ca_pem[] = "-----BEGIN CERTIFICATE-----\n"
                             "MIIBbzCCARWgAwIBAgIUcbPMUaYcz+rNisjHVoqzZpXaDNQwCgYIKoZIzj0EAwIw\n"
                             "DTELMAkGA1UEAwwCY2EwHhcNMjYxMTI5MTQyNjEyWhcNNDYxMTI0MTQyNjEyWjAN\n"
                             "MQswCQYDVQQDDAJjYTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABNU9N6q3pwSm\n"
                             "G427G0OdT3V06bxQaagVohfeH9OjlF7tdWgPWG2xSi4eoDZldSDxAvAw3wKwzmzW\n"
                             "HNCDCP6F/MSjUzBRMB0GA1UdDgQWBBRjFhWmAYB57Q2HA5tMBGNvL0suSzAfBgNV\n"
                             "HSMEGDAWgBRjFhWmAYB57Q2HA5tMBGNvL0suSzAPBgNVHRMBAf8EBTADAQH/MAoG\n"
                             "CCqGSM49BAMCA0gAMEUCIAz+JES31k2WKrgPMsXL46WPrANn4kFmn7FucH9xpFFZ\n"
                             "AiEA2Zxa/9QsDhAHcK/rYqljz06zTePxWKTboyX8NdNeYeg=\n"
                             "-----END CERTIFICATE-----\n";

static void as_response(struct ag_span der)
{
    const struct ag_tls_identity id = {.chain_pem = ag_span_str(leaf_pem),
                                       .issuer_pem = ag_span_str(ca_pem)};
    uint8_t room[AG_OCSP_REQUEST_MAX];
    struct ag_buf request = ag_buf(room, sizeof(room));
    struct ag_ocsp_answer a;
    const char *why = NULL;

    (void)!ag_ocsp_request(&id, &request);
    if (ag_ocsp_check(&id, der, MADE_S, &a, &why) != AG_OK) {
        AG_ASSERT(why);
    } else {
        AG_ASSERT(a.status == AG_OCSP_GOOD && a.this_update_s <= a.next_ask_s);
    }
}

static void as_keys(struct ag_span text)
{
    struct ag_tls_tickets *t = ag_tls_tickets_new(3);

    AG_ASSERT(t);
    (void)!ag_tls_tickets_load(t, text);
    ag_tls_tickets_free(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ag_span bytes = ag_span(data, size);

    as_certificate(bytes);
    as_files(bytes);
    as_response(bytes);
    as_keys(bytes);
    return 0;
}
