#include "engine/tls_ocsp.h"

#include "engine/tls_pem.h"
#include "engine/tls_verify.h"

#if AG_WOLFSSL

#    define CLOCK_SLACK_S 300
/* A responder that says no next update has newer ones at any time: for so long one is stapled all the same. */
#    define UNTOLD_S 3600

/* AlgorithmIdentifier of SHA-1, with its NULL. */
static const uint8_t sha1_algorithm[] = {0x30, 0x09, 0x06, 0x05, 0x2b, 0x0e,
                                         0x03, 0x02, 0x1a, 0x05, 0x00};
static const uint8_t sha1_oid[] = {0x2b, 0x0e, 0x03, 0x02, 0x1a};
static const uint8_t sha256_oid[] = {0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01};
/* id-pkix-ocsp-basic */
static const uint8_t basic_oid[] = {0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x01};

/* ---- the certificates that it is about ---- */

struct pair {
    struct ag_arena arena;
    struct ag_x509 leaf, issuer;
};

static bool first_certificate(struct ag_arena *arena, struct ag_span pem_text, struct ag_x509 *out)
{
    struct ag_pem pem;
    struct ag_span der;

    return ag_pem_next(&pem_text, &pem) == AG_OK && ag_pem_decode(&pem, arena, &der) == AG_OK &&
           ag_x509_parse(der, out);
}

static bool open_pair(const struct ag_tls_identity *id, struct pair *p)
{
    ag_arena_init(&p->arena, NULL, 0);
    return first_certificate(&p->arena, id->chain_pem, &p->leaf) &&
           first_certificate(&p->arena, id->issuer_pem, &p->issuer);
}

/* ---- asking ---- */

/* Everything here is short. */
static void put_head(struct ag_buf *out, uint8_t tag, size_t len)
{
    ag_buf_putc(out, tag);
    if (len >= 0x80) {
        ag_buf_putc(out, 0x81);
    }
    ag_buf_putc(out, (uint8_t)len);
}

static size_t whole(size_t content)
{
    return content + (content >= 0x80 ? 3 : 2);
}

static enum ag_status put_request(const struct pair *p, struct ag_buf *out)
{
    uint8_t name[20], key[20];
    struct ag_span serial = p->leaf.serial;
    size_t id =
        sizeof(sha1_algorithm) + whole(sizeof(name)) + whole(sizeof(key)) + whole(serial.len);
    size_t list = whole(whole(id)); /* Request in requestList */

    if (serial.len == 0 || serial.len > 40 || !ag_tls_sha1(p->issuer.subject, name) ||
        !ag_tls_sha1(p->issuer.key, key)) {
        return AG_EINVAL;
    }
    put_head(out, AG_DER_SEQUENCE, whole(whole(list)));
    put_head(out, AG_DER_SEQUENCE, whole(list)); /* TBSRequest */
    put_head(out, AG_DER_SEQUENCE, list);
    put_head(out, AG_DER_SEQUENCE, whole(id));
    put_head(out, AG_DER_SEQUENCE, id);
    ag_buf_put(out, ag_span(sha1_algorithm, sizeof(sha1_algorithm)));
    put_head(out, AG_DER_OCTETS, sizeof(name));
    ag_buf_put(out, ag_span(name, sizeof(name)));
    put_head(out, AG_DER_OCTETS, sizeof(key));
    ag_buf_put(out, ag_span(key, sizeof(key)));
    put_head(out, AG_DER_INTEGER, serial.len);
    ag_buf_put(out, serial);
    return out->overflow ? AG_EINVAL : AG_OK;
}

enum ag_status ag_ocsp_request(const struct ag_tls_identity *id, struct ag_buf *out)
{
    struct pair p;
    enum ag_status st = AG_EINVAL;

    if (open_pair(id, &p)) {
        st = put_request(&p, out);
    }
    ag_arena_release(&p.arena);
    return st;
}

/* ---- the answer ---- */

/* A BasicOCSPResponse. */
struct basic {
    struct ag_span data; /* whole: what is signed */
    struct ag_span entries;
    enum ag_x509_signature signature_kind;
    struct ag_span signature;
    struct ag_span certificates; /* content; empty: none */
};

static const char *status_text(uint8_t status)
{
    static const char *const texts[] = {"successful",
                                        "the responder does not understand the request",
                                        "the responder has an error",
                                        "the responder says to try later",
                                        "the responder has an error",
                                        "the responder wants signed requests",
                                        "the responder refuses"};

    return status < AG_COUNT(texts) ? texts[status] : "the responder says what nobody understands";
}

/* Down to the BasicOCSPResponse's content. */
static bool open_response(struct ag_span response, struct ag_span *out, const char **out_why)
{
    struct ag_der whole_response, status, bytes, typed, oid, octets, basic;

    *out_why = "not an OCSP response";
    if (response.len > AG_OCSP_RESPONSE_MAX ||
        !ag_der_take(&response, AG_DER_SEQUENCE, &whole_response) || response.len > 0 ||
        !ag_der_take(&whole_response.content, AG_DER_ENUM, &status) || status.content.len != 1) {
        return false;
    }
    if (status.content.ptr[0] != 0) {
        *out_why = status_text(status.content.ptr[0]);
        return false;
    }
    if (!ag_der_take(&whole_response.content, AG_DER_CONSTRUCTED | 0, &bytes) ||
        !ag_der_take(&bytes.content, AG_DER_SEQUENCE, &typed) ||
        !ag_der_take(&typed.content, AG_DER_OID, &oid) ||
        !ag_span_eq(oid.content, ag_span(basic_oid, sizeof(basic_oid))) ||
        !ag_der_take(&typed.content, AG_DER_OCTETS, &octets) ||
        !ag_der_take(&octets.content, AG_DER_SEQUENCE, &basic)) {
        return false;
    }
    *out = basic.content;
    return true;
}

static bool open_data(struct ag_span data, struct basic *out)
{
    struct ag_der tbs, version, responder, produced, entries;

    if (!ag_der_take(&data, AG_DER_SEQUENCE, &tbs)) {
        return false;
    }
    (void)!ag_der_take(&tbs.content, AG_DER_CONSTRUCTED | 0, &version);
    if (!ag_der_next(&tbs.content, &responder) ||
        !ag_der_take(&tbs.content, AG_DER_TIME, &produced) ||
        !ag_der_take(&tbs.content, AG_DER_SEQUENCE, &entries)) {
        return false;
    }
    out->entries = entries.content;
    return true;
}

static bool open_basic(struct ag_span content, struct basic *out)
{
    struct ag_der data, algorithm, bits, tagged, certificates;

    if (!ag_der_take(&content, AG_DER_SEQUENCE, &data) ||
        !ag_der_take(&content, AG_DER_SEQUENCE, &algorithm) ||
        !ag_der_take(&content, AG_DER_BITS, &bits) || !ag_der_bits(&bits, &out->signature)) {
        return false;
    }
    out->data = data.whole;
    out->signature_kind = ag_x509_signature_of(algorithm.whole);
    out->certificates = AG_SPAN("");
    if (ag_der_take(&content, AG_DER_CONSTRUCTED | 0, &tagged)) {
        if (!ag_der_take(&tagged.content, AG_DER_SEQUENCE, &certificates)) {
            return false;
        }
        out->certificates = certificates.content;
    }
    return open_data(data.whole, out);
}

/* By the issuer itself, or by one whom it has given the right to. */
static bool is_authentic(const struct basic *b, const struct ag_x509 *issuer, int64_t now_s)
{
    struct ag_span rest = b->certificates;
    struct ag_der element;
    struct ag_x509 c;

    if (ag_tls_signed_by(issuer, b->signature_kind, b->data, b->signature)) {
        return true;
    }
    while (ag_der_take(&rest, AG_DER_SEQUENCE, &element)) {
        if (ag_x509_parse(element.whole, &c) && c.for_ocsp &&
            ag_span_eq(c.issuer, issuer->subject) && c.not_before_s <= now_s + CLOCK_SLACK_S &&
            c.not_after_s > now_s - CLOCK_SLACK_S &&
            ag_tls_signed_by(issuer, c.signature_kind, c.tbs, c.signature) &&
            ag_tls_signed_by(&c, b->signature_kind, b->data, b->signature)) {
            return true;
        }
    }
    return false;
}

static bool is_hash(struct ag_span oid, struct ag_span data, struct ag_span hash)
{
    uint8_t room[32];

    if (ag_span_eq(oid, ag_span(sha1_oid, sizeof(sha1_oid)))) {
        return ag_tls_sha1(data, room) && ag_span_eq(hash, ag_span(room, 20));
    }
    return ag_span_eq(oid, ag_span(sha256_oid, sizeof(sha256_oid))) && ag_tls_sha256(data, room) &&
           ag_span_eq(hash, ag_span(room, 32));
}

static bool is_ours(struct ag_span cert_id, const struct pair *p)
{
    struct ag_der algorithm, oid, name, key, serial;

    return ag_der_take(&cert_id, AG_DER_SEQUENCE, &algorithm) &&
           ag_der_take(&algorithm.content, AG_DER_OID, &oid) &&
           ag_der_take(&cert_id, AG_DER_OCTETS, &name) &&
           ag_der_take(&cert_id, AG_DER_OCTETS, &key) &&
           ag_der_take(&cert_id, AG_DER_INTEGER, &serial) &&
           ag_span_eq(serial.content, p->leaf.serial) &&
           is_hash(oid.content, p->issuer.subject, name.content) &&
           is_hash(oid.content, p->issuer.key, key.content);
}

/* What follows the id of an entry. */
static bool read_entry(struct ag_span rest, struct ag_ocsp_answer *out)
{
    struct ag_der status, from, tagged, to;

    if (!ag_der_next(&rest, &status) || !ag_der_take(&rest, AG_DER_TIME, &from) ||
        !ag_der_time(&from, &out->this_update_s)) {
        return false;
    }
    switch (status.tag) {
    case AG_DER_CONTEXT | 0:
        out->status = AG_OCSP_GOOD;
        break;
    case AG_DER_CONSTRUCTED | 1:
        out->status = AG_OCSP_REVOKED;
        break;
    case AG_DER_CONTEXT | 2:
        out->status = AG_OCSP_UNKNOWN;
        break;
    default:
        return false;
    }
    out->next_update_s = out->this_update_s + UNTOLD_S;
    if (ag_der_take(&rest, AG_DER_CONSTRUCTED | 0, &tagged)) {
        return ag_der_take(&tagged.content, AG_DER_TIME, &to) &&
               ag_der_time(&to, &out->next_update_s);
    }
    return true;
}

static bool find_entry(const struct basic *b, const struct pair *p, struct ag_ocsp_answer *out)
{
    struct ag_span rest = b->entries;
    struct ag_der entry, id;

    while (ag_der_take(&rest, AG_DER_SEQUENCE, &entry)) {
        if (ag_der_take(&entry.content, AG_DER_SEQUENCE, &id) && is_ours(id.content, p)) {
            return read_entry(entry.content, out);
        }
    }
    return false;
}

static const char *against(const struct ag_ocsp_answer *a, int64_t now_s)
{
    if (a->status != AG_OCSP_GOOD) {
        return a->status == AG_OCSP_REVOKED ? "the certificate is revoked"
                                            : "the responder does not know the certificate";
    }
    if (a->this_update_s > now_s + CLOCK_SLACK_S) {
        return "the response is of the future";
    }
    return a->next_update_s <= now_s ? "the response is too old" : NULL;
}

static const char *check(const struct pair *p, struct ag_span response, int64_t now_s,
                         struct ag_ocsp_answer *out)
{
    struct ag_ocsp_answer a = {0};
    struct ag_span content;
    struct basic b;
    const char *why = NULL;

    if (!open_response(response, &content, &why)) {
        return why;
    }
    if (!open_basic(content, &b)) {
        return "not an OCSP response";
    }
    if (!is_authentic(&b, &p->issuer, now_s)) {
        return "the response is not signed by the certificate's issuer";
    }
    if (!find_entry(&b, p, &a)) {
        return "the response is for another certificate";
    }
    a.next_ask_s = a.this_update_s + (a.next_update_s - a.this_update_s) / 2;
    if (a.next_ask_s <= now_s) {
        a.next_ask_s = now_s + (a.next_update_s - now_s) / 2;
    }
    *out = a;
    return against(&a, now_s);
}

enum ag_status ag_ocsp_check(const struct ag_tls_identity *id, struct ag_span response,
                             int64_t now_s, struct ag_ocsp_answer *out, const char **out_why)
{
    struct pair p;
    const char *why = "the certificate's issuer is not known";

    *out = (struct ag_ocsp_answer){0};
    if (open_pair(id, &p)) {
        why = check(&p, response, now_s, out);
    }
    ag_arena_release(&p.arena);
    if (why) {
        *out_why = why;
    }
    return why ? AG_EINVAL : AG_OK;
}

#else

enum ag_status ag_ocsp_request(const struct ag_tls_identity *id, struct ag_buf *out)
{
    (void)id;
    (void)out;
    return AG_EINVAL;
}

enum ag_status ag_ocsp_check(const struct ag_tls_identity *id, struct ag_span response,
                             int64_t now_s, struct ag_ocsp_answer *out, const char **out_why)
{
    (void)id;
    (void)response;
    (void)now_s;
    *out = (struct ag_ocsp_answer){0};
    *out_why = "this anygate is built without TLS";
    return AG_EINVAL;
}

#endif
