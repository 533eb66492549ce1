#include "engine/tls_x509.h"

#include "engine/resolver.h"

#include <arpa/inet.h>
#include <time.h>

/* ---- DER ---- */

bool ag_der_next(struct ag_span *io, struct ag_der *out)
{
    const uint8_t *p = io->ptr;
    size_t head = 2, len;

    if (io->len < 2 || (p[0] & 0x1f) == 0x1f) { /* long tags are used by nobody */
        return false;
    }
    len = p[1];
    if (len & 0x80) {
        size_t bytes = len & 0x7f;

        if (bytes < 1 || bytes > 3 || io->len - 2 < bytes) {
            return false;
        }
        len = 0;
        for (size_t i = 0; i < bytes; i++) {
            len = len << 8 | p[2 + i];
        }
        if (len < 0x80 || p[2] == 0) {
            return false; /* not the shortest form */
        }
        head += bytes;
    }
    if (len > io->len - head) {
        return false;
    }
    out->tag = p[0];
    out->content = ag_span(p + head, len);
    out->whole = ag_span(p, head + len);
    *io = ag_span_sub(*io, head + len, io->len);
    return true;
}

bool ag_der_take(struct ag_span *io, uint8_t tag, struct ag_der *out)
{
    return io->len > 0 && io->ptr[0] == tag && ag_der_next(io, out);
}

static bool read_digits(struct ag_span s, size_t at, size_t count, int *out)
{
    *out = 0;
    for (size_t i = at; i < at + count; i++) {
        if (s.ptr[i] < '0' || s.ptr[i] > '9') {
            return false;
        }
        *out = *out * 10 + (s.ptr[i] - '0');
    }
    return true;
}

bool ag_der_time(const struct ag_der *t, int64_t *out_s)
{
    size_t year_digits = t->tag == AG_DER_UTC_TIME ? 2 : 4;
    struct ag_span s = t->content;
    struct tm tm = {0};

    if ((t->tag != AG_DER_UTC_TIME && t->tag != AG_DER_TIME) || s.len != year_digits + 11 ||
        s.ptr[s.len - 1] != 'Z' || !read_digits(s, 0, year_digits, &tm.tm_year) ||
        !read_digits(s, year_digits, 2, &tm.tm_mon) ||
        !read_digits(s, year_digits + 2, 2, &tm.tm_mday) ||
        !read_digits(s, year_digits + 4, 2, &tm.tm_hour) ||
        !read_digits(s, year_digits + 6, 2, &tm.tm_min) ||
        !read_digits(s, year_digits + 8, 2, &tm.tm_sec)) {
        return false;
    }
    if (tm.tm_mon < 1 || tm.tm_mon > 12 || tm.tm_mday < 1 || tm.tm_mday > 31 || tm.tm_hour > 23 ||
        tm.tm_min > 59 || tm.tm_sec > 60) {
        return false;
    }
    if (year_digits == 2) {
        tm.tm_year += tm.tm_year < 50 ? 100 : 0;
    } else {
        tm.tm_year -= 1900;
    }
    tm.tm_mon--;
    *out_s = (int64_t)timegm(&tm);
    return true;
}

bool ag_der_bits(const struct ag_der *bits, struct ag_span *out)
{
    if (bits->tag != AG_DER_BITS || bits->content.len < 1 || bits->content.ptr[0] != 0) {
        return false;
    }
    *out = ag_span_sub(bits->content, 1, bits->content.len);
    return true;
}

/* ---- object identifiers ---- */

static bool is_oid(struct ag_span content, struct ag_span oid)
{
    return ag_span_eq(content, oid);
}

enum ag_x509_signature ag_x509_signature_of(struct ag_span algorithm)
{
    static const struct {
        struct ag_span oid;
        enum ag_x509_signature kind;
    } known[] = {
        {AG_SPAN_INIT("\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05"), AG_X509_RSA_SHA1},
        {AG_SPAN_INIT("\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b"), AG_X509_RSA_SHA256},
        {AG_SPAN_INIT("\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c"), AG_X509_RSA_SHA384},
        {AG_SPAN_INIT("\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0d"), AG_X509_RSA_SHA512},
        {AG_SPAN_INIT("\x2a\x86\x48\xce\x3d\x04\x03\x02"), AG_X509_ECDSA_SHA256},
        {AG_SPAN_INIT("\x2a\x86\x48\xce\x3d\x04\x03\x03"), AG_X509_ECDSA_SHA384},
        {AG_SPAN_INIT("\x2a\x86\x48\xce\x3d\x04\x03\x04"), AG_X509_ECDSA_SHA512},
        {AG_SPAN_INIT("\x2b\x65\x70"), AG_X509_ED25519},
    };
    struct ag_der sequence, oid;

    if (!ag_der_take(&algorithm, AG_DER_SEQUENCE, &sequence) ||
        !ag_der_take(&sequence.content, AG_DER_OID, &oid)) {
        return AG_X509_SIGNATURE_OTHER;
    }
    for (size_t i = 0; i < AG_COUNT(known); i++) {
        if (is_oid(oid.content, known[i].oid)) {
            return known[i].kind;
        }
    }
    return AG_X509_SIGNATURE_OTHER;
}

/* ---- the public key ---- */

static struct ag_span unsigned_integer(const struct ag_der *n)
{
    struct ag_span s = n->content;

    while (s.len > 0 && s.ptr[0] == 0) {
        s = ag_span_sub(s, 1, s.len);
    }
    return s;
}

static bool read_rsa(struct ag_x509 *out)
{
    struct ag_span rest = out->key;
    struct ag_der sequence, modulus, exponent;

    if (!ag_der_take(&rest, AG_DER_SEQUENCE, &sequence) ||
        !ag_der_take(&sequence.content, AG_DER_INTEGER, &modulus) ||
        !ag_der_take(&sequence.content, AG_DER_INTEGER, &exponent)) {
        return false;
    }
    out->key_kind = AG_X509_KEY_RSA;
    out->rsa_modulus = unsigned_integer(&modulus);
    out->rsa_exponent = unsigned_integer(&exponent);
    if (out->rsa_modulus.len == 0 || out->rsa_exponent.len == 0) {
        return false;
    }
    out->key_bits = (uint32_t)out->rsa_modulus.len * 8 -
                    ((uint32_t)__builtin_clz(out->rsa_modulus.ptr[0]) - 24u);
    return true;
}

static void read_curve(struct ag_span parameters, struct ag_x509 *out)
{
    struct ag_der oid;

    out->key_kind = AG_X509_KEY_EC;
    if (!ag_der_take(&parameters, AG_DER_OID, &oid)) {
        return;
    }
    if (is_oid(oid.content, AG_SPAN("\x2a\x86\x48\xce\x3d\x03\x01\x07"))) {
        out->key_bits = 256;
    } else if (is_oid(oid.content, AG_SPAN("\x2b\x81\x04\x00\x22"))) {
        out->key_bits = 384;
    } else if (is_oid(oid.content, AG_SPAN("\x2b\x81\x04\x00\x23"))) {
        out->key_bits = 521;
    }
}

static bool read_public_key(struct ag_span *io, struct ag_x509 *out)
{
    struct ag_der info, algorithm, oid, bits;

    if (!ag_der_take(io, AG_DER_SEQUENCE, &info) ||
        !ag_der_take(&info.content, AG_DER_SEQUENCE, &algorithm) ||
        !ag_der_take(&algorithm.content, AG_DER_OID, &oid) ||
        !ag_der_take(&info.content, AG_DER_BITS, &bits) || !ag_der_bits(&bits, &out->key)) {
        return false;
    }
    out->spki = info.whole;
    if (is_oid(oid.content, AG_SPAN("\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01"))) {
        return read_rsa(out);
    }
    if (is_oid(oid.content, AG_SPAN("\x2a\x86\x48\xce\x3d\x02\x01"))) {
        read_curve(algorithm.content, out);
    } else if (is_oid(oid.content, AG_SPAN("\x2b\x65\x70"))) {
        out->key_kind = AG_X509_KEY_ED25519;
        out->key_bits = 256;
    }
    return true;
}

/* ---- extensions ---- */

static void read_key_usages(struct ag_span value, struct ag_x509 *out)
{
    struct ag_der list, oid;

    if (!ag_der_take(&value, AG_DER_SEQUENCE, &list)) {
        return;
    }
    out->for_servers = out->for_clients = false;
    while (ag_der_take(&list.content, AG_DER_OID, &oid)) {
        bool any = is_oid(oid.content, AG_SPAN("\x55\x1d\x25\x00"));

        out->for_servers |= any || is_oid(oid.content, AG_SPAN("\x2b\x06\x01\x05\x05\x07\x03\x01"));
        out->for_clients |= any || is_oid(oid.content, AG_SPAN("\x2b\x06\x01\x05\x05\x07\x03\x02"));
        out->for_ocsp |= is_oid(oid.content, AG_SPAN("\x2b\x06\x01\x05\x05\x07\x03\x09"));
    }
}

/* AuthorityInfoAccess (RFC 5280 section 4.2.2.1): the first URL of a responder. */
static void read_access(struct ag_span value, struct ag_x509 *out)
{
    struct ag_der list, entry, method, location;

    if (!ag_der_take(&value, AG_DER_SEQUENCE, &list)) {
        return;
    }
    while (out->ocsp_url.len == 0 && ag_der_take(&list.content, AG_DER_SEQUENCE, &entry)) {
        if (ag_der_take(&entry.content, AG_DER_OID, &method) &&
            is_oid(method.content, AG_SPAN("\x2b\x06\x01\x05\x05\x07\x30\x01")) &&
            ag_der_take(&entry.content, AG_DER_CONTEXT | 6, &location)) {
            out->ocsp_url = location.content;
        }
    }
}

/* TLS feature (RFC 7633): status_request is 5. */
static void read_features(struct ag_span value, struct ag_x509 *out)
{
    struct ag_der list, number;

    if (!ag_der_take(&value, AG_DER_SEQUENCE, &list)) {
        return;
    }
    while (ag_der_take(&list.content, AG_DER_INTEGER, &number)) {
        out->must_staple |= number.content.len == 1 && number.content.ptr[0] == 5;
    }
}

static void read_constraints(struct ag_span value, struct ag_x509 *out)
{
    struct ag_der list, ca;

    out->is_ca = ag_der_take(&value, AG_DER_SEQUENCE, &list) &&
                 ag_der_take(&list.content, AG_DER_BOOLEAN, &ca) && ca.content.len == 1 &&
                 ca.content.ptr[0] != 0;
}

static bool read_extension(struct ag_span ext, struct ag_x509 *out)
{
    struct ag_der oid, critical, value, names, constraints;

    if (!ag_der_take(&ext, AG_DER_OID, &oid)) {
        return false;
    }
    (void)!ag_der_take(&ext, AG_DER_BOOLEAN, &critical);
    if (!ag_der_take(&ext, AG_DER_OCTETS, &value)) {
        return false;
    }
    if (is_oid(oid.content, AG_SPAN("\x55\x1d\x11"))) {
        if (!ag_der_take(&value.content, AG_DER_SEQUENCE, &names)) {
            return false;
        }
        out->names = names.content;
    } else if (is_oid(oid.content, AG_SPAN("\x55\x1d\x1e"))) {
        if (!ag_der_take(&value.content, AG_DER_SEQUENCE, &constraints)) {
            return false;
        }
        out->constraints = constraints.content;
    } else if (is_oid(oid.content, AG_SPAN("\x55\x1d\x13"))) {
        read_constraints(value.content, out);
    } else if (is_oid(oid.content, AG_SPAN("\x55\x1d\x25"))) {
        read_key_usages(value.content, out);
    } else if (is_oid(oid.content, AG_SPAN("\x2b\x06\x01\x05\x05\x07\x01\x01"))) {
        read_access(value.content, out);
    } else if (is_oid(oid.content, AG_SPAN("\x2b\x06\x01\x05\x05\x07\x01\x18"))) {
        read_features(value.content, out);
    }
    return true;
}

/* What is left of the tbs: unique identifiers, which nobody uses, and [3] extensions. */
static bool read_extensions(struct ag_span rest, struct ag_x509 *out)
{
    struct ag_der element, list, ext;

    while (ag_der_next(&rest, &element)) {
        if (element.tag != (AG_DER_CONSTRUCTED | 3)) {
            continue;
        }
        if (!ag_der_take(&element.content, AG_DER_SEQUENCE, &list)) {
            return false;
        }
        while (list.content.len > 0) {
            if (!ag_der_take(&list.content, AG_DER_SEQUENCE, &ext) ||
                !read_extension(ext.content, out)) {
                return false;
            }
        }
    }
    return rest.len == 0;
}

/* ---- the certificate ---- */

static bool read_tbs(struct ag_span tbs, struct ag_x509 *out)
{
    struct ag_der version, serial, algorithm, issuer, validity, from, to, subject;

    (void)!ag_der_take(&tbs, AG_DER_CONSTRUCTED | 0, &version);
    if (!ag_der_take(&tbs, AG_DER_INTEGER, &serial) ||
        !ag_der_take(&tbs, AG_DER_SEQUENCE, &algorithm) ||
        !ag_der_take(&tbs, AG_DER_SEQUENCE, &issuer) ||
        !ag_der_take(&tbs, AG_DER_SEQUENCE, &validity) ||
        !ag_der_take(&tbs, AG_DER_SEQUENCE, &subject)) {
        return false;
    }
    out->serial = serial.content;
    out->issuer = issuer.whole;
    out->subject = subject.whole;
    return ag_der_next(&validity.content, &from) && ag_der_next(&validity.content, &to) &&
           ag_der_time(&from, &out->not_before_s) && ag_der_time(&to, &out->not_after_s) &&
           read_public_key(&tbs, out) && read_extensions(tbs, out);
}

bool ag_x509_parse(struct ag_span der, struct ag_x509 *out)
{
    struct ag_x509 c = {.for_servers = true, .for_clients = true};
    struct ag_span rest = der;
    struct ag_der certificate, tbs, algorithm, bits;

    if (!ag_der_take(&rest, AG_DER_SEQUENCE, &certificate) || rest.len > 0 ||
        !ag_der_take(&certificate.content, AG_DER_SEQUENCE, &tbs) ||
        !ag_der_take(&certificate.content, AG_DER_SEQUENCE, &algorithm) ||
        !ag_der_take(&certificate.content, AG_DER_BITS, &bits) ||
        !ag_der_bits(&bits, &c.signature) || !read_tbs(tbs.content, &c)) {
        return false;
    }
    c.der = der;
    c.tbs = tbs.whole;
    c.signature_kind = ag_x509_signature_of(algorithm.whole);
    *out = c;
    return true;
}

/* ---- names ---- */

static const char *attribute_label(struct ag_span oid)
{
    static const struct {
        struct ag_span oid;
        const char *label;
    } known[] = {
        {AG_SPAN_INIT("\x55\x04\x03"), "CN"},
        {AG_SPAN_INIT("\x55\x04\x0a"), "O"},
        {AG_SPAN_INIT("\x55\x04\x0b"), "OU"},
        {AG_SPAN_INIT("\x55\x04\x06"), "C"},
        {AG_SPAN_INIT("\x55\x04\x07"), "L"},
        {AG_SPAN_INIT("\x55\x04\x08"), "ST"},
        {AG_SPAN_INIT("\x55\x04\x09"), "STREET"},
        {AG_SPAN_INIT("\x55\x04\x05"), "serialNumber"},
        {AG_SPAN_INIT("\x2a\x86\x48\x86\xf7\x0d\x01\x09\x01"), "emailAddress"},
        {AG_SPAN_INIT("\x09\x92\x26\x89\x93\xf2\x2c\x64\x01\x19"), "DC"},
        {AG_SPAN_INIT("\x09\x92\x26\x89\x93\xf2\x2c\x64\x01\x01"), "UID"},
    };

    for (size_t i = 0; i < AG_COUNT(known); i++) {
        if (is_oid(oid, known[i].oid)) {
            return known[i].label;
        }
    }
    return NULL;
}

/* 1.3.6.1...: what has no label (RFC 4514 section 2.3). */
static void put_dotted(struct ag_span oid, struct ag_buf *out)
{
    uint64_t value = 0;
    bool first = true;

    for (size_t i = 0; i < oid.len; i++) {
        value = (value & UINT64_MAX >> 8) << 7 | (oid.ptr[i] & 0x7f);
        if (oid.ptr[i] & 0x80) {
            continue;
        }
        if (first) {
            uint64_t arc = value < 80 ? value / 40 : 2;
            ag_buf_put_u64(out, arc);
            value -= arc * 40;
            first = false;
        }
        ag_buf_putc(out, '.');
        ag_buf_put_u64(out, value);
        value = 0;
    }
}

static void put_escaped(struct ag_buf *out, uint8_t ch)
{
    static const char digits[] = "0123456789abcdef";

    ag_buf_putc(out, '\\');
    ag_buf_putc(out, (uint8_t)digits[ch >> 4]);
    ag_buf_putc(out, (uint8_t)digits[ch & 15]);
}

/* A value as RFC 4514 section 2.4 escapes it; controls, which it leaves alone, besides: these texts go
 * into fields and logs. */
static void put_value(struct ag_span value, struct ag_buf *out)
{
    for (size_t i = 0; i < value.len; i++) {
        uint8_t ch = value.ptr[i];
        bool edge = (i == 0 && (ch == ' ' || ch == '#')) || (i == value.len - 1 && ch == ' ');

        if (ch < 0x20 || ch >= 0x7f) {
            put_escaped(out, ch);
        } else {
            if (edge || strchr("\"+,;<>\\", ch)) {
                ag_buf_putc(out, '\\');
            }
            ag_buf_putc(out, ch);
        }
    }
}

static void put_rdn(struct ag_span set, struct ag_buf *out)
{
    struct ag_der pair, oid, value;
    bool first = true;

    while (ag_der_take(&set, AG_DER_SEQUENCE, &pair)) {
        if (!ag_der_take(&pair.content, AG_DER_OID, &oid) || !ag_der_next(&pair.content, &value)) {
            return;
        }
        const char *label = attribute_label(oid.content);
        if (!first) {
            ag_buf_putc(out, '+');
        }
        first = false;
        if (label) {
            ag_buf_put(out, ag_span_str(label));
        } else {
            put_dotted(oid.content, out);
        }
        ag_buf_putc(out, '=');
        put_value(value.content, out);
    }
}

#define RDNS_MAX 32u

void ag_x509_put_name(struct ag_span name, struct ag_buf *out)
{
    struct ag_span sets[RDNS_MAX];
    struct ag_der sequence, set;
    size_t count = 0;

    if (!ag_der_take(&name, AG_DER_SEQUENCE, &sequence)) {
        return;
    }
    while (count < RDNS_MAX && ag_der_take(&sequence.content, AG_DER_SET, &set)) {
        sets[count++] = set.content;
    }
    for (size_t i = count; i > 0; i--) {
        if (i < count) {
            ag_buf_putc(out, ',');
        }
        put_rdn(sets[i - 1], out);
    }
}

struct ag_span ag_x509_common_name(struct ag_span name)
{
    struct ag_span found = AG_SPAN("");
    struct ag_der sequence, set, pair, oid, value;

    if (!ag_der_take(&name, AG_DER_SEQUENCE, &sequence)) {
        return found;
    }
    while (ag_der_take(&sequence.content, AG_DER_SET, &set)) {
        while (ag_der_take(&set.content, AG_DER_SEQUENCE, &pair)) {
            if (ag_der_take(&pair.content, AG_DER_OID, &oid) &&
                is_oid(oid.content, AG_SPAN("\x55\x04\x03")) &&
                ag_der_next(&pair.content, &value)) {
                found = value.content;
            }
        }
    }
    for (size_t i = 0; i < found.len; i++) {
        if (found.ptr[i] <= ' ' || found.ptr[i] >= 0x7f) {
            return AG_SPAN("");
        }
    }
    return found;
}

static bool put_address(struct ag_span bytes, struct ag_buf *out)
{
    union ag_addr a = {0};

    if (bytes.len == sizeof(a.in.sin_addr)) {
        a.in.sin_family = AF_INET;
        memcpy(&a.in.sin_addr, bytes.ptr, bytes.len);
    } else if (bytes.len == sizeof(a.in6.sin6_addr)) {
        a.in6.sin6_family = AF_INET6;
        memcpy(&a.in6.sin6_addr, bytes.ptr, bytes.len);
    } else {
        return false;
    }
    ag_addr_format(&a, false, out);
    return true;
}

/* A NUL inside is how one name was once passed off as another (CVE-2009-2408). */
static bool put_dns(struct ag_span name, struct ag_buf *out)
{
    for (size_t i = 0; i < name.len; i++) {
        if (name.ptr[i] <= ' ' || name.ptr[i] >= 0x7f) {
            return false;
        }
    }
    ag_buf_put(out, name);
    return name.len > 0;
}

bool ag_x509_next_name(struct ag_span *io, struct ag_buf *out, bool *out_address)
{
    struct ag_der name;

    while (ag_der_next(io, &name)) {
        bool address = name.tag == (AG_DER_CONTEXT | 7);

        if ((name.tag == (AG_DER_CONTEXT | 2) && put_dns(name.content, out)) ||
            (address && put_address(name.content, out))) {
            *out_address = address;
            return true;
        }
    }
    return false;
}
