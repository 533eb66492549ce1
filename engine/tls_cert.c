#include "engine/tls_cert.h"

#include "engine/tls_chain.h"
#include "engine/tls_pem.h"
#include "engine/tls_verify.h"

static bool is_ascii_host(struct ag_span name)
{
    return name.len > 0 && name.len <= 255;
}

/* "a.example" under "*.example": one label, and not a part of one. */
static bool under_wildcard(struct ag_span pattern, struct ag_span name)
{
    size_t dot = ag_span_find(name, '.');

    return ag_span_starts(pattern, AG_SPAN("*.")) && dot > 0 && dot < name.len &&
           ag_span_eq(ag_span_sub(pattern, 1, pattern.len), ag_span_sub(name, dot, name.len));
}

bool ag_tls_identity_covers(const struct ag_tls_identity *id, struct ag_span name)
{
    for (uint32_t i = 0; is_ascii_host(name) && i < id->name_count; i++) {
        if (ag_span_eq(id->names[i], name) || under_wildcard(id->names[i], name)) {
            return true;
        }
    }
    return false;
}

#if AG_WOLFSSL

#    define CHAIN_MAX       16u
#    define AUTHORITIES_MAX 4096u
#    define NAMES_MAX       1000u
#    define NAME_BYTES_MAX  1024u

/* One certificate of a file. */
struct part {
    struct ag_pem pem;
    struct ag_x509 cert;
};

/* ---- the file ---- */

static enum ag_status read_certificate(struct ag_arena *arena, const struct ag_pem *pem,
                                       uint32_t number, struct part *out, const char **out_why)
{
    struct ag_span der;

    if (ag_pem_decode(pem, arena, &der) != AG_OK || !ag_x509_parse(der, &out->cert)) {
        *out_why = ag_arena_printf(arena, "certificate %u is broken", number);
        return AG_EINVAL;
    }
    out->pem = *pem;
    return AG_OK;
}

static enum ag_status read_chain(struct ag_arena *arena, struct ag_span text, struct part *parts,
                                 uint32_t *out_count, const char **out_why)
{
    struct ag_pem pem;
    enum ag_status st;
    uint32_t count = 0;

    while ((st = ag_pem_next(&text, &pem)) == AG_OK) {
        if (!ag_span_eq(pem.label, AG_SPAN("CERTIFICATE"))) {
            continue; /* one file may hold both, and parameters of old */
        }
        if (count == CHAIN_MAX) {
            *out_why = ag_arena_printf(arena, "more than %u certificates in a chain", CHAIN_MAX);
            return AG_EINVAL;
        }
        st = read_certificate(arena, &pem, count + 1, &parts[count], out_why);
        if (st != AG_OK) {
            return st;
        }
        count++;
    }
    if (st == AG_EINVAL) {
        *out_why = "a -----BEGIN line without its -----END line";
        return AG_EINVAL;
    }
    if (count == 0) {
        *out_why = "no certificate in it";
        return AG_EINVAL;
    }
    *out_count = count;
    return AG_OK;
}

static enum ag_status read_key(struct ag_arena *arena, struct ag_span text, struct ag_pem *out,
                               struct ag_span *out_der, const char **out_why)
{
    enum ag_status st;

    do {
        st = ag_pem_next(&text, out);
    } while (st == AG_OK && !ag_pem_is_key(out));
    if (st != AG_OK) {
        *out_why = st == AG_ENOENT ? "no private key in it"
                                   : "a -----BEGIN line without its -----END line";
        return AG_EINVAL;
    }
    if (out->encrypted) {
        *out_why = "the private key is encrypted: a server has nobody to ask for the password";
        return AG_EINVAL;
    }
    if (ag_pem_decode(out, arena, out_der) != AG_OK) {
        *out_why = "the private key is broken";
        return AG_EINVAL;
    }
    return AG_OK;
}

/* ---- checks ---- */

static const char *name_text(struct ag_arena *arena, struct ag_span name)
{
    uint8_t room[NAME_BYTES_MAX];
    struct ag_buf b = ag_buf(room, sizeof(room));

    ag_x509_put_name(name, &b);
    return ag_arena_strdup(arena, ag_buf_span(&b));
}

static bool issued_by(const struct ag_x509 *c, const struct ag_x509 *issuer)
{
    return ag_span_eq(c->issuer, issuer->subject) &&
           (c->signature_kind == AG_X509_SIGNATURE_OTHER ||
            ag_tls_signed_by(issuer, c->signature_kind, c->tbs, c->signature));
}

/* Each certificate is followed by the one that signed it (RFC 8446 section 4.4.2). */
static enum ag_status check_order(struct ag_arena *arena, const struct part *parts, uint32_t count,
                                  const char **out_why)
{
    for (uint32_t i = 0; i + 1 < count; i++) {
        if (!issued_by(&parts[i].cert, &parts[i + 1].cert)) {
            *out_why = ag_arena_printf(
                arena, "the chain is out of order: certificate %u (%s) did not sign certificate %u",
                i + 2, name_text(arena, parts[i + 1].cert.subject), i + 1);
            return AG_EINVAL;
        }
    }
    return AG_OK;
}

static enum ag_status check_kind(struct ag_arena *arena, const struct ag_x509 *c,
                                 const char **out_why)
{
    bool good = false;

    switch (c->key_kind) {
    case AG_X509_KEY_RSA:
        /* What the library has arithmetic for. */
        good = c->key_bits == 2048 || c->key_bits == 3072 || c->key_bits == 4096;
        *out_why = ag_arena_printf(
            arena, "an RSA key of %u bits: 2048, 3072 and 4096 are supported", c->key_bits);
        break;
    case AG_X509_KEY_EC:
        good = c->key_bits != 0 && c->key.len > 0 && c->key.ptr[0] == 4;
        *out_why = "an elliptic curve that is not supported: P-256, P-384 and P-521 are";
        break;
    case AG_X509_KEY_ED25519:
        good = true;
        break;
    case AG_X509_KEY_OTHER:
        *out_why = "a kind of key that is not supported: RSA, ECDSA and Ed25519 are";
        break;
    }
    return good ? AG_OK : AG_EINVAL;
}

static enum ag_status check_key(struct ag_arena *arena, const struct part *parts, uint32_t count,
                                struct ag_span der, const char **out_why)
{
    switch (ag_tls_key_match(&parts[0].cert, der)) {
    case AG_TLS_MATCHES:
        return AG_OK;
    case AG_TLS_UNREADABLE:
        *out_why = "the private key cannot be read, or is of a kind that is not supported";
        return AG_EINVAL;
    case AG_TLS_OTHER_KEY:
        break;
    }
    for (uint32_t i = 1; i < count; i++) {
        if (ag_tls_key_match(&parts[i].cert, der) == AG_TLS_MATCHES) {
            *out_why = ag_arena_printf(arena,
                                       "the chain is out of order: the key is that of certificate "
                                       "%u, which has to be the first",
                                       i + 1);
            return AG_EINVAL;
        }
    }
    *out_why = "the private key is not the certificate's";
    return AG_EINVAL;
}

/* ---- what is kept ---- */

static struct ag_span put_name(struct ag_arena *arena, struct ag_span name)
{
    return ag_span_str(name_text(arena, name));
}

static struct ag_span lower(struct ag_arena *arena, struct ag_span s)
{
    struct ag_buf b = ag_buf(ag_arena_alloc(arena, s.len + 1), s.len);

    for (size_t i = 0; i < s.len; i++) {
        ag_buf_putc(&b, ag_ascii_lower(s.ptr[i]));
    }
    return ag_buf_span(&b);
}

/* Without a subjectAltName, which clients of today look at alone, the common name at least says for which
 * name the certificate was meant. */
static void keep_names(struct ag_arena *arena, const struct ag_x509 *c, struct ag_tls_identity *id)
{
    struct ag_span at = c->names, cn;
    uint8_t room[NAME_BYTES_MAX];
    struct ag_span *names = ag_arena_alloc(arena, NAMES_MAX * sizeof(*names));
    struct ag_buf b = ag_buf(room, sizeof(room));
    bool address;

    while (id->name_count < NAMES_MAX && ag_x509_next_name(&at, &b, &address)) {
        if (!b.overflow) {
            names[id->name_count++] = lower(arena, ag_buf_span(&b));
        }
        b = ag_buf(room, sizeof(room));
    }
    cn = ag_x509_common_name(c->subject);
    id->no_alt_names = c->names.len == 0;
    if (id->no_alt_names && cn.len > 0) {
        names[id->name_count++] = lower(arena, cn);
    }
    id->names = names;
}

static struct ag_span join(struct ag_arena *arena, const struct part *parts, uint32_t count)
{
    size_t bytes = 0;
    struct ag_buf b;

    for (uint32_t i = 0; i < count; i++) {
        bytes += parts[i].pem.text.len + 1;
    }
    b = ag_buf(ag_arena_alloc(arena, bytes), bytes);
    for (uint32_t i = 0; i < count; i++) {
        ag_buf_put(&b, parts[i].pem.text);
        ag_buf_putc(&b, '\n');
    }
    return ag_buf_span(&b);
}

static enum ag_tls_key_kind kind_of(enum ag_x509_key kind)
{
    return kind == AG_X509_KEY_RSA  ? AG_TLS_KEY_RSA
           : kind == AG_X509_KEY_EC ? AG_TLS_KEY_ECDSA
                                    : AG_TLS_KEY_ED25519;
}

static struct ag_span copy_of(struct ag_arena *arena, struct ag_span s)
{
    return s.len ? ag_arena_copy(arena, s) : s;
}

static enum ag_status make(struct ag_arena *arena, const struct part *parts, uint32_t count,
                           const struct ag_pem *key, struct ag_tls_identity **out,
                           const char **out_why)
{
    struct ag_tls_identity *id = ag_arena_zalloc(arena, sizeof(*id));
    const struct ag_x509 *c = &parts[0].cert;

    if (!id) {
        return AG_ENOMEM;
    }
    if (!ag_tls_sha256(c->der, id->sha256)) {
        *out_why = "the TLS library has failed";
        return AG_EINVAL;
    }
    id->chain_pem = join(arena, parts, count);
    id->key_pem = copy_of(arena, key->text);
    id->kind = kind_of(c->key_kind);
    id->key_bits = c->key_bits;
    keep_names(arena, c, id);
    id->not_before_s = c->not_before_s;
    id->not_after_s = c->not_after_s;
    id->subject = put_name(arena, c->subject);
    id->issuer = put_name(arena, c->issuer);
    id->ocsp_url = copy_of(arena, c->ocsp_url);
    id->must_staple = c->must_staple;
    id->self_signed = ag_x509_is_self_issued(c);
    id->for_servers = c->for_servers;
    if (count > 1) {
        id->issuer_pem = join(arena, parts + 1, 1);
    }
    *out = id;
    return AG_OK;
}

enum ag_status ag_tls_identity_read(struct ag_arena *arena, struct ag_span chain_pem,
                                    struct ag_span key_pem, struct ag_tls_identity **out,
                                    const char **out_why)
{
    struct part *parts = ag_arena_alloc(arena, CHAIN_MAX * sizeof(*parts));
    uint32_t count = 0;
    struct ag_pem key;
    struct ag_span der;
    enum ag_status st = read_chain(arena, chain_pem, parts, &count, out_why);

    if (st == AG_OK) {
        st = check_kind(arena, &parts[0].cert, out_why);
    }
    if (st == AG_OK) {
        st = read_key(arena, key_pem, &key, &der, out_why);
    }
    if (st == AG_OK) {
        st = check_key(arena, parts, count, der, out_why);
        /* The copy of the key in the arena was needed for this alone. */
        explicit_bzero((void *)(uintptr_t)der.ptr, der.len);
    }
    if (st == AG_OK) {
        st = check_order(arena, parts, count, out_why);
    }
    return st == AG_OK ? make(arena, parts, count, &key, out, out_why) : st;
}

enum ag_status ag_tls_authorities_check(struct ag_arena *arena, struct ag_span pem,
                                        uint32_t *out_count, const char **out_why)
{
    struct ag_pem block;
    struct part part;
    enum ag_status st;
    uint32_t count = 0, authorities = 0;
    bool usable = false;

    while ((st = ag_pem_next(&pem, &block)) == AG_OK) {
        if (!ag_span_eq(block.label, AG_SPAN("CERTIFICATE"))) {
            continue;
        }
        if (read_certificate(arena, &block, count + 1, &part, out_why) != AG_OK) {
            return AG_EINVAL;
        }
        authorities += part.cert.is_ca;
        usable = usable || ag_tls_authority_is_usable(part.cert.der);
        if (++count > AUTHORITIES_MAX) {
            *out_why = "too many certificates in it";
            return AG_EINVAL;
        }
    }
    if (st == AG_EINVAL || count == 0) {
        *out_why =
            count == 0 ? "no certificate in it" : "a -----BEGIN line without its -----END line";
        return AG_EINVAL;
    }
    if (!usable) {
        *out_why = "the TLS library takes no authority of it";
        return AG_EINVAL;
    }
    *out_count = authorities;
    return AG_OK;
}

#else

static const char without[] = "this anygate is built without TLS";

enum ag_status ag_tls_identity_read(struct ag_arena *arena, struct ag_span chain_pem,
                                    struct ag_span key_pem, struct ag_tls_identity **out,
                                    const char **out_why)
{
    (void)arena;
    (void)chain_pem;
    (void)key_pem;
    (void)out;
    *out_why = without;
    return AG_EINVAL;
}

enum ag_status ag_tls_authorities_check(struct ag_arena *arena, struct ag_span pem,
                                        uint32_t *out_count, const char **out_why)
{
    (void)arena;
    (void)pem;
    (void)out_count;
    *out_why = without;
    return AG_EINVAL;
}

#endif
