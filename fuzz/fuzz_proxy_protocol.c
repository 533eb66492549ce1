/*
 * Any bytes as the header before a connection: no crash; what is said of a beginning holds for all that goes on with
 * it; what follows a header changes nothing; what was read can be written and is read back.
 */
#include "proto/proxy_protocol.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Of memory cut to size: ASan sees a read beyond it. */
static enum ag_status read_alone(struct ag_span in, struct ag_proxied *out, size_t *out_len)
{
    uint8_t *copy = malloc(in.len ? in.len : 1);
    const char *why = NULL;
    enum ag_status st;

    AG_ASSERT(copy);
    if (in.len) {
        memcpy(copy, in.ptr, in.len);
    }
    memset(out, 0, sizeof(*out));
    st = ag_proxy_protocol_read(ag_span(copy, in.len), out, out_len, &why);
    free(copy);
    AG_ASSERT((st == AG_EPROTO || st == AG_ELIMIT) == (why != NULL));
    AG_ASSERT(st != AG_OK || (*out_len <= in.len && *out_len <= AG_PROXY_PROTOCOL_MAX));
    AG_ASSERT(st != AG_AGAIN || in.len < AG_PROXY_PROTOCOL_MAX);
    return st;
}

static bool same(const struct ag_peer *a, const struct ag_peer *b)
{
    return a->family == b->family && a->port == b->port &&
           memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
}

static bool same_text(const uint8_t *a, size_t a_len, const uint8_t *b, size_t b_len)
{
    return ag_span_eq(ag_span(a, a_len), ag_span(b, b_len));
}

static bool same_header(const struct ag_proxied *a, const struct ag_proxied *b)
{
    return same(&a->source, &b->source) && same(&a->destination, &b->destination) &&
           a->tls == b->tls && same_text(a->alpn, a->alpn_len, b->alpn, b->alpn_len) &&
           same_text(a->authority, a->authority_len, b->authority, b->authority_len) &&
           same_text(a->id, a->id_len, b->id, b->id_len);
}

static void write_back(const struct ag_proxied *p, enum ag_proxy_protocol version)
{
    uint8_t room[AG_PROXY_PROTOCOL_OUT_MAX];
    struct ag_buf b = ag_buf(room, sizeof(room));
    struct ag_tls_session tls = {.server_name = ag_span(p->authority, p->authority_len),
                                 .version = "TLSv1.3",
                                 .cipher = "TLS_AES_128_GCM_SHA256"};
    union ag_addr source, destination;
    struct ag_proxied again;
    size_t len = 0;

    ag_peer_known(&p->source, &source);
    ag_peer_known(&p->destination, &destination);
    ag_proxy_protocol_put(&b, version, &source, &destination, p->tls ? &tls : NULL);
    AG_ASSERT(!b.overflow);
    AG_ASSERT(read_alone(ag_buf_span(&b), &again, &len) == AG_OK && len == b.len);
    AG_ASSERT(same(&again.source, &p->source) && same(&again.destination, &p->destination));
    if (version == AG_PROXY_PROTOCOL_V2 && p->source.family != AF_UNSPEC) {
        AG_ASSERT(again.tls == p->tls);
        AG_ASSERT(!p->tls ||
                  ag_span_eq(ag_span(again.authority, again.authority_len), tls.server_name));
    }
}

static void check_beginnings(struct ag_span in, enum ag_status st, size_t len)
{
    struct ag_proxied ignored;
    size_t n = 0, most = st == AG_OK ? len : in.len;
    bool failed = false;

    for (size_t i = 0; i < most; i += 1 + i / 64) {
        enum ag_status part = read_alone(ag_span_sub(in, 0, i), &ignored, &n);

        AG_ASSERT(part == AG_AGAIN || part == st);
        AG_ASSERT(part != AG_OK);
        AG_ASSERT(!failed || part == st);
        failed = part != AG_AGAIN;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ag_span in = ag_span(data, ag_min_size(size, 2u * AG_PROXY_PROTOCOL_MAX));
    struct ag_proxied whole, exact;
    size_t len = 0, exact_len = 0;
    enum ag_status st = read_alone(in, &whole, &len);

    check_beginnings(in, st, len);
    if (st == AG_OK) {
        AG_ASSERT(read_alone(ag_span_sub(in, 0, len), &exact, &exact_len) == AG_OK);
        AG_ASSERT(exact_len == len && same_header(&exact, &whole));
        AG_ASSERT((whole.source.family == AF_UNSPEC) == (whole.destination.family == AF_UNSPEC));
        write_back(&whole, AG_PROXY_PROTOCOL_V1);
        write_back(&whole, AG_PROXY_PROTOCOL_V2);
    }
    return 0;
}
