#include "engine/tls_chain.h"

#if AG_WOLFSSL

#    include "engine/tls_constraints.h"
#    include "engine/tls_memory.h"
#    include "engine/tls_pem.h"
#    include "engine/tls_verify.h"

#    include <arpa/inet.h>
#    include <wolfssl/options.h>
#    include <wolfssl/ssl.h>
#    include <wolfssl/wolfcrypt/asn.h>
#    include <wolfssl/wolfcrypt/error-crypt.h>

#    define HOST_MAX  255u
#    define CERTS_MAX 10u /* looked at; what is sent beyond is not */

struct authority {
    uint8_t mark[AG_TLS_MARK_BYTES];
    struct ag_span constraints; /* ours; of what is believed as itself: none */
};

struct ag_tls_authorities {
    WOLFSSL_CERT_MANAGER *manager;
    uint32_t count;
    struct authority *all;
};

/* ---- authorities ---- */

/* Of an authority: its name and its key, which are what it is known by where it has signed. */
static bool mark_of(const byte name[static SIGNER_DIGEST_SIZE], struct ag_span key,
                    uint8_t out[static AG_TLS_MARK_BYTES])
{
    uint8_t text[SIGNER_DIGEST_SIZE + 32];

    memcpy(text, name, SIGNER_DIGEST_SIZE);
    return ag_tls_sha256(key, text + SIGNER_DIGEST_SIZE) &&
           ag_tls_sha256(ag_span(text, sizeof(text)), out);
}

static bool mark_authority(struct ag_span der, uint8_t out[static AG_TLS_MARK_BYTES])
{
    DecodedCert *d = ag_tls_alloc(sizeof(*d));
    bool good;

    if (!d) {
        return false;
    }
    wc_InitDecodedCert(d, der.ptr, (word32)der.len, NULL);
    good = wc_ParseCert(d, CERT_TYPE, NO_VERIFY, NULL) == 0 &&
           mark_of(d->subjectHash, ag_span(d->publicKey, d->pubKeySize), out);
    wc_FreeDecodedCert(d);
    ag_tls_free(d);
    return good;
}

bool ag_tls_authority_mark(struct ag_span der, uint8_t out[static AG_TLS_MARK_BYTES])
{
    struct ag_x509 x;

    return ag_x509_parse(der, &x) && (x.is_ca ? mark_authority(der, out) : ag_tls_sha256(der, out));
}

static bool keep_authority(struct ag_tls_authorities *a, const struct ag_x509 *x)
{
    struct ag_span limits = x->is_ca ? x->constraints : AG_SPAN("");
    struct authority *all = ag_tls_realloc(a->all, ((size_t)a->count + 1) * sizeof(*all));
    uint8_t *copy = NULL;

    if (!all) {
        return false;
    }
    a->all = all;
    if (limits.len > 0) {
        copy = ag_tls_alloc(limits.len);
        if (!copy) {
            return false;
        }
        memcpy(copy, limits.ptr, limits.len);
    }
    if (!ag_tls_authority_mark(x->der, all[a->count].mark)) {
        ag_tls_free(copy);
        return false;
    }
    all[a->count++].constraints = ag_span(copy, limits.len);
    return true;
}

static void release(struct ag_tls_authorities *a)
{
    wolfSSL_CertManagerFree(a->manager);
    for (uint32_t i = 0; i < a->count; i++) {
        ag_tls_free((void *)(uintptr_t)a->all[i].constraints.ptr);
    }
    ag_tls_free(a->all);
}

static bool is_date_error(int error)
{
    return error == ASN_AFTER_DATE_E || error == ASN_BEFORE_DATE_E;
}

/* True: it is of use, or would be at another time. What is not of now is left out, and vouches for nobody. */
static bool add_authority(struct ag_tls_authorities *a, struct ag_span der)
{
    int error = WOLFSSL_SUCCESS;
    struct ag_x509 x;

    if (!ag_x509_parse(der, &x)) {
        return false;
    }
    if (x.is_ca) {
        error = wolfSSL_CertManagerLoadCABuffer(a->manager, der.ptr, (long)der.len,
                                                WOLFSSL_FILETYPE_ASN1);
    }
    return error == WOLFSSL_SUCCESS ? keep_authority(a, &x) : is_date_error(error);
}

bool ag_tls_authority_is_usable(struct ag_span der)
{
    struct ag_tls_authorities a = {.manager = wolfSSL_CertManagerNew()};
    bool good = a.manager && add_authority(&a, der);

    release(&a);
    return good;
}

struct ag_tls_authorities *ag_tls_authorities_new(struct ag_span pem)
{
    struct ag_tls_authorities *a = ag_tls_alloc(sizeof(*a));
    struct ag_arena arena;
    struct ag_pem block;
    struct ag_span der;
    uint32_t good = 0;

    if (!a) {
        return NULL;
    }
    *a = (struct ag_tls_authorities){.manager = wolfSSL_CertManagerNew()};
    ag_arena_init(&arena, NULL, 0);
    while (a->manager && ag_pem_next(&pem, &block) == AG_OK) {
        if (ag_span_eq(block.label, AG_SPAN("CERTIFICATE")) &&
            ag_pem_decode(&block, &arena, &der) == AG_OK) {
            good += add_authority(a, der) ? 1 : 0;
        }
    }
    ag_arena_release(&arena);
    if (good == 0) {
        ag_tls_authorities_free(a);
        return NULL;
    }
    return a;
}

void ag_tls_authorities_free(struct ag_tls_authorities *a)
{
    if (a) {
        release(a);
        ag_tls_free(a);
    }
}

bool ag_tls_authorities_have(const struct ag_tls_authorities *a,
                             const uint8_t mark[static AG_TLS_MARK_BYTES])
{
    for (uint32_t i = 0; i < a->count; i++) {
        if (memcmp(a->all[i].mark, mark, AG_TLS_MARK_BYTES) == 0) {
            return true;
        }
    }
    return false;
}

/* An authority is marked by something else than its certificate's hash. */
static bool is_pinned(const struct ag_tls_authorities *a, const struct ag_tls_chain *chain)
{
    uint8_t hash[32];

    if (!ag_tls_sha256(chain->certs[0], hash) || !ag_tls_authorities_have(a, hash)) {
        return false;
    }
    if (chain->mark) {
        memcpy(chain->mark, hash, sizeof(hash));
    }
    return true;
}

/* ---- steps ---- */

static const char *why_of(int error)
{
    switch (error) {
    case 0:
        return NULL;
    case ASN_NO_SIGNER_E:
    case ASN_SELF_SIGNED_E:
        return "unknown authority";
    case ASN_AFTER_DATE_E:
        return "certificate has expired";
    case ASN_BEFORE_DATE_E:
        return "certificate is not yet valid";
    case ASN_SIG_CONFIRM_E:
    case ASN_SIG_HASH_E:
    case ASN_SIG_KEY_E:
    case ASN_SIG_OID_E:
        return "bad signature of certificate";
    case ASN_NAME_INVALID_E:
        return "name not permitted by its authority";
    case ASN_CRIT_EXT_E:
        return "critical extension not understood";
    case ASN_PATHLEN_SIZE_E:
    case ASN_PATHLEN_INV_E:
        return "chain is too long";
    case MEMORY_E:
        return "out of memory";
    default:
        return "malformed certificate";
    }
}

/* What a certificate has to be where it stands. `below`: intermediates between it and the leaf. */
static const char *check_issuer(const DecodedCert *d, uint32_t below)
{
    if (!d->isCA || (d->extKeyUsageSet && !(d->extKeyUsage & KEYUSE_KEY_CERT_SIGN))) {
        return "issued by what is no authority";
    }
    return d->pathLengthSet && d->pathLength < below ? "chain is too long" : NULL;
}

static const char *check_leaf(const DecodedCert *d, bool of_client)
{
    unsigned use = of_client ? EXTKEYUSE_CLIENT_AUTH : EXTKEYUSE_SERVER_AUTH;

    if ((d->extExtKeyUsageSet && !(d->extExtKeyUsage & (EXTKEYUSE_ANY | use))) ||
        (d->extKeyUsageSet && !(d->extKeyUsage & KEYUSE_DIGITAL_SIG))) {
        return of_client ? "certificate is not for clients" : "certificate is not for servers";
    }
    return NULL;
}

/* Certificate `at` of the chain against what `manager` believes.
 *   out_error  the library's */
static const char *check_step(WOLFSSL_CERT_MANAGER *manager, const struct ag_tls_chain *chain,
                              uint32_t at, int *out_error)
{
    DecodedCert *d = ag_tls_alloc(sizeof(*d));
    const char *why;

    *out_error = MEMORY_E;
    if (!d) {
        return why_of(MEMORY_E);
    }
    wc_InitDecodedCert(d, chain->certs[at].ptr, (word32)chain->certs[at].len, NULL);
    *out_error = wc_ParseCert(d, CERT_TYPE, VERIFY, manager);
    if (*out_error == ASN_NAME_INVALID_E && d->ca) {
        /* The last thing that it looks at, and in its own way; ours is in check_names. */
        *out_error = d->badDate ? d->badDate : d->criticalExt;
    }
    why = why_of(*out_error);
    if (!why && (d->signatureOID == CTC_SHAwRSA || d->signatureOID == CTC_SHAwECDSA)) {
        why = "certificate signed with SHA-1";
    }
    if (!why) {
        why = at > 0 ? check_issuer(d, at - 1) : check_leaf(d, chain->of_client);
    }
    if (!why && d->ca && d->ca->pathLengthSet && d->ca->pathLength < at) {
        why = "chain is too long";
    }
    if (!why && chain->mark &&
        !(d->ca && mark_of(d->ca->subjectNameHash, ag_span(d->ca->publicKey, d->ca->pubKeySize),
                           chain->mark))) {
        why = why_of(MEMORY_E);
    }
    wc_FreeDecodedCert(d);
    ag_tls_free(d);
    return why;
}

/* Certificate `at`, issued by the one after it, which has been checked. */
static const char *check_below(const struct ag_tls_chain *chain, uint32_t at)
{
    const struct ag_span *issuer = &chain->certs[at + 1];
    struct ag_tls_chain below = *chain;
    WOLFSSL_CERT_MANAGER *m = wolfSSL_CertManagerNew();
    int error = MEMORY_E;
    const char *why = why_of(MEMORY_E);

    below.mark = NULL; /* the one at its end counts */
    if (m) {
        error = wolfSSL_CertManagerLoadCABuffer(m, issuer->ptr, (long)issuer->len,
                                                WOLFSSL_FILETYPE_ASN1);
        why = error == WOLFSSL_SUCCESS ? check_step(m, &below, at, &error) : why_of(error);
        wolfSSL_CertManagerFree(m);
    }
    return why;
}

/* A leaf that is believed as itself: its dates and its use are all there is to it. */
static const char *check_pinned(const struct ag_tls_chain *chain)
{
    DecodedCert *d = ag_tls_alloc(sizeof(*d));
    const char *why = why_of(MEMORY_E);
    struct ag_x509 x;
    time_t now = time(NULL);

    if (d) {
        wc_InitDecodedCert(d, chain->certs[0].ptr, (word32)chain->certs[0].len, NULL);
        why = why_of(wc_ParseCert(d, CERT_TYPE, NO_VERIFY, NULL));
        why = why ? why : check_leaf(d, chain->of_client);
        wc_FreeDecodedCert(d);
        ag_tls_free(d);
    }
    if (!why && !ag_x509_parse(chain->certs[0], &x)) {
        why = why_of(ASN_PARSE_E);
    }
    if (!why && (now < x.not_before_s || now > x.not_after_s)) {
        why = why_of(now < x.not_before_s ? ASN_BEFORE_DATE_E : ASN_AFTER_DATE_E);
    }
    return why;
}

/* Which of them has that name and is not its own issuer; `count`: none has. */
static uint32_t find_issuer(const struct ag_x509 *x, uint32_t count, struct ag_span name)
{
    uint32_t at = 1; /* the leaf issues nothing */

    while (at < count &&
           !(name.len > 0 && ag_span_eq(x[at].subject, name) && !ag_x509_is_self_issued(&x[at]))) {
        at++;
    }
    return at < count ? at : count;
}

/* Each behind the one that it has issued, by name, and what is no part of that left out (RFC 8446 section 4.4.2
 * wants any order to be borne with). Returns how many there are. */
static uint32_t in_order(const struct ag_tls_chain *chain, struct ag_span out[static CERTS_MAX])
{
    struct ag_x509 x[CERTS_MAX];
    uint32_t n = 0, count = chain->count < CERTS_MAX ? chain->count : CERTS_MAX;

    for (uint32_t i = 0; i < count; i++) {
        if (!ag_x509_parse(chain->certs[i], &x[i])) {
            x[i] = (struct ag_x509){0}; /* has no name */
        }
    }
    for (uint32_t at = 0; at < count && n < count; at = find_issuer(x, count, x[at].issuer)) {
        out[n++] = chain->certs[at];
    }
    return n;
}

/* What stands below an authority of those constraints: certificates 0 to `count` - 1. None of them but the leaf is
 * self-issued, which would be exempt. */
static const char *check_below_names(const struct ag_tls_chain *chain, uint32_t count,
                                     struct ag_span constraints)
{
    const char *why = NULL;
    struct ag_x509 x;

    for (uint32_t i = 0; !why && constraints.len > 0 && i < count; i++) {
        why = ag_x509_parse(chain->certs[i], &x) ? ag_tls_constraints_judge(constraints, &x)
                                                 : why_of(ASN_PARSE_E);
    }
    return why;
}

/* The names of a chain whose last certificate, `top`, was issued by the authority of chain->mark. */
static const char *check_names(const struct ag_tls_authorities *a, const struct ag_tls_chain *chain,
                               uint32_t top)
{
    const char *why = NULL;
    struct ag_x509 x;

    for (uint32_t at = 1; !why && at <= top; at++) {
        why = ag_x509_parse(chain->certs[at], &x) ? check_below_names(chain, at, x.constraints)
                                                  : why_of(ASN_PARSE_E);
    }
    if (why) {
        return why;
    }
    /* Certificates of one authority may differ in what they permit: each is believed. */
    for (uint32_t i = 0; i < a->count; i++) {
        if (memcmp(a->all[i].mark, chain->mark, AG_TLS_MARK_BYTES) == 0) {
            why = check_below_names(chain, top + 1, a->all[i].constraints);
            if (!why) {
                return NULL;
            }
        }
    }
    return why ? why : why_of(ASN_NO_SIGNER_E);
}

const char *ag_tls_chain_judge(const struct ag_tls_authorities *a, const struct ag_tls_chain *sent)
{
    struct ag_span certs[CERTS_MAX] = {{0}};
    struct ag_tls_chain ordered = *sent, *chain = &ordered;
    const char *why = "no certificate";
    uint8_t mark[AG_TLS_MARK_BYTES];
    int error = 0;
    uint32_t at = 0, top;

    ordered.certs = certs;
    ordered.count = in_order(sent, certs);
    if (chain->count > 0 && is_pinned(a, chain)) {
        return check_pinned(chain);
    }
    ordered.mark = mark;
    /* Up to the first that an authority has issued. */
    for (; at < chain->count; at++) {
        if (at > chain->depth) {
            return "chain is too long";
        }
        why = check_step(a->manager, chain, at, &error);
        if (error != ASN_NO_SIGNER_E && error != ASN_SELF_SIGNED_E) {
            break;
        }
    }
    /* And down again. */
    top = at;
    while (!why && at > 0) {
        why = check_below(chain, --at);
    }
    why = why ? why : check_names(a, chain, top);
    if (!why && sent->mark) {
        memcpy(sent->mark, mark, sizeof(mark));
    }
    return why;
}

/* ---- names ---- */

/* As the names of certificates are written: an address in its shortest form. */
static struct ag_span plain_host(struct ag_span host, char out[static HOST_MAX + 1])
{
    struct in6_addr address;
    size_t len = 0;

    if (host.len > 2 && host.ptr[0] == '[' && host.ptr[host.len - 1] == ']') {
        host = ag_span_sub(host, 1, host.len - 1);
    }
    if (host.len > 0 && host.ptr[host.len - 1] == '.') {
        host.len--;
    }
    if (host.len > HOST_MAX) {
        return ag_span(NULL, 0);
    }
    for (; len < host.len; len++) {
        out[len] = (char)ag_ascii_lower(host.ptr[len]);
    }
    out[len] = '\0';
    if (inet_pton(AF_INET6, out, &address) == 1) {
        (void)inet_ntop(AF_INET6, &address, out, HOST_MAX);
    }
    return ag_span_str(out);
}

static bool is_address(const char *text)
{
    struct in6_addr address;

    return inet_pton(AF_INET6, text, &address) == 1 || inet_pton(AF_INET, text, &address) == 1;
}

/* A wildcard is the whole first label and stands for one label of a name. */
static bool matches(struct ag_span name, struct ag_span host)
{
    size_t dot = ag_span_find(host, '.');

    if (ag_span_ieq(name, host)) {
        return true;
    }
    return ag_span_starts(name, AG_SPAN("*.")) && dot > 0 && dot < host.len &&
           ag_span_find(ag_span_sub(name, 2, name.len), '.') < name.len - 2 &&
           ag_span_ieq(ag_span_sub(name, 1, name.len), ag_span_sub(host, dot, host.len));
}

bool ag_tls_chain_names(struct ag_span leaf, struct ag_span host)
{
    char text[HOST_MAX + 1];
    uint8_t name[HOST_MAX + 1];
    struct ag_buf buf = ag_buf(name, sizeof(name));
    struct ag_span want = plain_host(host, text), names;
    bool address, of_address;
    struct ag_x509 x;

    if (want.len == 0 || !ag_x509_parse(leaf, &x)) {
        return false;
    }
    address = is_address(text);
    for (names = x.names; ag_x509_next_name(&names, &buf, &of_address);
         buf = ag_buf(name, sizeof(name))) {
        if (!buf.overflow && of_address == address && matches(ag_buf_span(&buf), want)) {
            return true;
        }
    }
    return false;
}

#else

bool ag_tls_authority_is_usable(struct ag_span der)
{
    (void)der;
    return false;
}

#endif
