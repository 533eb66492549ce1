/*
 * Any bytes as the first ones of a TLS connection: no crash; however they are split, and however the message is cut
 * into records, the same is read of it; what is said of a name holds.
 */
#include "engine/tls_hello.h"
#include "fuzz/pieces.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define HEAD_BYTES 5u

static enum ag_status read_in_pieces(struct ag_tls_hello *h, struct ag_span in, size_t most)
{
    struct pieces p = pieces_of(in.len, most);
    enum ag_status st = AG_AGAIN;
    size_t n;

    ag_tls_hello_init(h);
    while (st == AG_AGAIN && (n = pieces_next(&p)) > 0) {
        uint8_t *copy = malloc(n); /* cut to size: ASan sees a read beyond it */
        AG_ASSERT(copy);
        memcpy(copy, in.ptr, n);
        st = ag_tls_hello_read(h, ag_span(copy, n));
        free(copy);
        in = ag_span_sub(in, n, in.len);
    }
    return st;
}

static void check_same(const struct ag_tls_hello *a, const struct ag_tls_hello *b)
{
    AG_ASSERT(ag_span_eq(ag_tls_hello_name(a), ag_tls_hello_name(b)));
    AG_ASSERT(a->alpn == b->alpn && a->h2 == b->h2 && a->http_11 == b->http_11);
    AG_ASSERT(a->acme == b->acme && a->tls_12 == b->tls_12 && a->tls_13 == b->tls_13);
    AG_ASSERT(a->signatures == b->signatures && a->signs == b->signs);
    AG_ASSERT(a->suites_rsa == b->suites_rsa && a->suites_ecdsa == b->suites_ecdsa);
    AG_ASSERT(a->prefers_chacha == b->prefers_chacha && a->plain_http == b->plain_http);
    AG_ASSERT(a->alert == b->alert && a->why == b->why);
}

static void check(const struct ag_tls_hello *h, enum ag_status st)
{
    AG_ASSERT(st == AG_OK || st == AG_AGAIN || h->why);
    AG_ASSERT(st == AG_AGAIN || st == AG_OK || h->alert != AG_TLS_ALERT_NONE || h->plain_http);
    for (uint8_t i = 0; st == AG_OK && i < h->name_len; i++) {
        AG_ASSERT(h->name[i] == ag_ascii_lower(h->name[i]) && h->name[i] > ' ');
    }
    AG_ASSERT(st != AG_OK || h->alpn || !(h->h2 || h->http_11 || h->acme));
}

/* The message alone, out of its records. */
static struct ag_span message_of(struct ag_span in, uint8_t *to)
{
    struct ag_buf out = ag_buf(to, in.len);

    while (in.len > HEAD_BYTES) {
        size_t n = ag_min_size((size_t)in.ptr[3] << 8 | in.ptr[4], in.len - HEAD_BYTES);
        ag_buf_put(&out, ag_span_sub(in, HEAD_BYTES, HEAD_BYTES + n));
        in = ag_span_sub(in, HEAD_BYTES + n, in.len);
    }
    return ag_buf_span(&out);
}

/* In records of one byte each. */
static struct ag_span scattered(struct ag_span message, uint8_t *to)
{
    struct ag_buf out = ag_buf(to, message.len * (HEAD_BYTES + 1));

    for (size_t i = 0; i < message.len; i++) {
        const uint8_t record[] = {22, 3, 3, 0, 1, message.ptr[i]};
        ag_buf_put(&out, ag_span(record, sizeof(record)));
    }
    return ag_buf_span(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ag_span in = ag_span(data, ag_min_size(size, 2u * AG_TLS_HELLO_MAX));
    struct ag_tls_hello whole, pieces;
    enum ag_status st = read_in_pieces(&whole, in, SIZE_MAX);
    uint8_t *memory;

    check(&whole, st);
    AG_ASSERT(read_in_pieces(&pieces, in, 1) == st);
    check_same(&whole, &pieces);
    AG_ASSERT(read_in_pieces(&pieces, in, 40) == st);
    check_same(&whole, &pieces);
    if (st == AG_OK) {
        memory = malloc(in.len * (HEAD_BYTES + 2));
        AG_ASSERT(memory);
        in = message_of(in, memory);
        AG_ASSERT(read_in_pieces(&pieces, scattered(in, memory + in.len), 100) == AG_OK);
        check_same(&whole, &pieces);
        free(memory);
    }
    return 0;
}
