#include "engine/tls_server_impl.h"

#if AG_WOLFSSL

#    include <wolfssl/options.h>

#    include <wolfssl/ssl.h>

/* ---- names ---- */

int ag_tls_server_order(struct ag_span a, struct ag_span b)
{
    size_t n = a.ptr && b.ptr ? ag_min_size(a.len, b.len) : 0; /* an empty one may have no bytes */
    int order = n > 0 ? memcmp(a.ptr, b.ptr, n) : 0;

    return order ? order : (a.len > b.len) - (a.len < b.len);
}

/* The first certificate's name that is `text`, or where it would be. */
static uint32_t find_name(const struct ag_tls_server *s, struct ag_span text)
{
    uint32_t from = 0, to = s->name_count;

    while (from < to) {
        uint32_t middle = from + (to - from) / 2;

        if (ag_tls_server_order(s->names[middle].text, text) < 0) {
            from = middle + 1;
        } else {
            to = middle;
        }
    }
    return from;
}

/* "*.example" of "a.example"; empty: a name of one label. */
static struct ag_span wildcard_of(struct ag_span name, uint8_t out[static 256])
{
    size_t dot = ag_span_find(name, '.');

    if (dot == 0 || dot == name.len) {
        return ag_span(NULL, 0);
    }
    out[0] = '*';
    memcpy(out + 1, name.ptr + dot, name.len - dot);
    return ag_span(out, name.len - dot + 1);
}

/* ---- certificates ---- */

/* Whether the client can check its signatures, in the version that will be spoken. */
static bool suits(const struct ag_tls_identity *id, const struct ag_tls_hello *h)
{
    static const uint8_t rsa = AG_TLS_SIGNS_RSA, ed25519 = AG_TLS_SIGNS_ED25519;
    uint8_t want = ed25519;

    switch (id->kind) {
    case AG_TLS_KEY_RSA:
        want = rsa;
        break;
    case AG_TLS_KEY_ECDSA:
        want = id->key_bits == 384   ? AG_TLS_SIGNS_P384
               : id->key_bits == 521 ? AG_TLS_SIGNS_P521
                                     : AG_TLS_SIGNS_P256;
        break;
    case AG_TLS_KEY_ED25519:
    case AG_TLS_KEY_KINDS:
        break;
    }
    if (h->signatures && !(h->signs & want)) {
        return false;
    }
    return h->tls_13 || (id->kind == AG_TLS_KEY_RSA ? h->suites_rsa : h->suites_ecdsa);
}

/* Whether its curve is one that the client knows (RFC 8422 section 5.3; of TLS 1.2 alone). */
static bool is_on_curve(const struct ag_tls_identity *id, const struct ag_tls_hello *h)
{
    uint8_t want = id->key_bits == 384   ? AG_TLS_ON_P384
                   : id->key_bits == 521 ? AG_TLS_ON_P521
                                         : AG_TLS_ON_P256;

    return h->tls_13 || !h->groups || id->kind != AG_TLS_KEY_ECDSA || (h->on & want);
}

/* The best so far: the first of those that suit best. */
struct best {
    int64_t id; /* -1: none yet */
    int rank;
};

static void consider(struct best *b, const struct ag_tls_server *s, uint32_t id,
                     const struct ag_tls_hello *h)
{
    const struct ag_tls_identity *facts = s->identities[id].facts;
    int rank = !suits(facts, h) ? 0 : is_on_curve(facts, h) ? 2 : 1;

    if (b->id < 0 || rank > b->rank) {
        *b = (struct best){id, rank};
    }
}

static void consider_named(struct best *b, const struct ag_tls_server *s, struct ag_span name,
                           const struct ag_tls_hello *h)
{
    for (uint32_t i = find_name(s, name);
         i < s->name_count && name.len > 0 && ag_span_eq(s->names[i].text, name); i++) {
        consider(b, s, s->names[i].identity, h);
    }
}

static int64_t choose_identity(const struct ag_tls_server *s, const struct ag_tls_hello *h)
{
    struct ag_span name = ag_tls_hello_name(h);
    uint8_t text[256];
    struct best best = {-1, 0};

    consider_named(&best, s, name, h);
    consider_named(&best, s, wildcard_of(name, text), h);
    if (best.id >= 0) {
        return best.id;
    }
    if (name.len > 0 && s->settings.strict_sni) {
        return -1;
    }
    for (uint32_t i = 0; i < s->settings.identity_count; i++) {
        consider(&best, s, i, h);
    }
    return best.id;
}

/* ---- the rest ---- */

/* "*.example" of a route stands for every name below, at any depth. */
static bool is_below(struct ag_span name, struct ag_span pattern)
{
    return pattern.ptr[0] == '*' && name.len >= pattern.len &&
           ag_span_eq(ag_span_sub(name, name.len - (pattern.len - 1), name.len),
                      ag_span_sub(pattern, 1, pattern.len));
}

static bool is_asked(const struct ag_tls_server *s, struct ag_span name)
{
    if (!s->client_ca || s->settings.client_auth != AG_TLS_CLIENTS_BY_NAME) {
        return s->client_ca && s->settings.client_auth != AG_TLS_CLIENTS_UNASKED;
    }
    for (uint32_t i = 0; i < s->settings.ask_name_count; i++) {
        struct ag_span ask = s->settings.ask_names[i];

        if (ask.len == 0 || ag_span_eq(ask, name) || is_below(name, ask)) {
            return true;
        }
    }
    return false;
}

/* In TLS 1.2 the library takes any group that it knows, and of two of one size the client's first: it is told here where
 * that may be none of the profile's. Where there is none in common it falls back on another (1.2), or asks in vain for
 * another hello (1.3). False: there is none. */
static bool choose_group(enum ag_tls_profile profile, const struct ag_tls_hello *h,
                         uint16_t *out_group)
{
    static const uint8_t nist = AG_TLS_ON_P256 | AG_TLS_ON_P384;
    bool fips = profile == AG_TLS_FIPS_LIKE;

    if (!h->groups) { /* P-256, or nothing but a session to resume (RFC 8422 section 4, RFC 8446 section 4.2.9) */
        return true;
    }
    if (fips && !h->tls_13) {
        *out_group = h->on & AG_TLS_ON_P256 ? WOLFSSL_ECC_SECP256R1 : WOLFSSL_ECC_SECP384R1;
    }
    return h->on & (fips ? nist : nist | AG_TLS_ON_X25519);
}

static struct ag_tls_choice refuse(enum ag_tls_alert alert, const char *why)
{
    return (struct ag_tls_choice){.alert = (uint8_t)alert, .why = why};
}

struct ag_tls_choice ag_tls_server_choose(struct ag_tls_server *s, uint32_t shard,
                                          const struct ag_tls_hello *hello, int64_t wall_s)
{
    struct ag_tls_choice choice = {0};
    bool asked = is_asked(s, ag_tls_hello_name(hello));
    int64_t id;

    AG_ASSERT(shard < s->shard_count);
    if (!hello->tls_13 && (s->settings.profile == AG_TLS_MODERN || !hello->tls_12)) {
        return refuse(AG_TLS_ALERT_PROTOCOL_VERSION, "no common version");
    }
    id = choose_identity(s, hello);
    if (id < 0) {
        return refuse(AG_TLS_ALERT_UNRECOGNIZED_NAME, "no certificate for this server name");
    }
    if (!suits(s->identities[id].facts, hello)) {
        return refuse(AG_TLS_ALERT_HANDSHAKE_FAILURE, "no certificate that the client can check");
    }
    if (!choose_group(s->settings.profile, hello, &choice.group)) {
        return refuse(AG_TLS_ALERT_HANDSHAKE_FAILURE, "no common group");
    }
    if (hello->alpn) {
        choice.alpn = s->settings.h2 && hello->h2 ? AG_ALPN_H2
                      : hello->http_11            ? AG_ALPN_HTTP_11
                                                  : AG_ALPN_NONE;
        if (choice.alpn == AG_ALPN_NONE) {
            return refuse(AG_TLS_ALERT_NO_APPLICATION_PROTOCOL, "no common application protocol");
        }
    }
    choice.context = ag_tls_server_context(s, shard, (uint32_t)id, asked);
    choice.cert_required = s->settings.client_auth == AG_TLS_CLIENTS_REQUIRED;
    ag_tls_server_refresh(choice.context, wall_s);
    return choice;
}

#endif
