#include "tests/sim/tls_certs.h"

#include <openssl/ec.h>
#include <openssl/ocsp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <unistd.h>

/* 2020 to 2044: the host's clock (host_parts.h) lies between. */
#define FROM "200101000000Z"
#define TO   "440101000000Z"

static struct identity authority, clients;
static struct {
    uint8_t *der;
    int len;
} staples[TLS_GENERATIONS][TLS_STAPLES];
static long serial = 1;

static void add_extension(X509 *x, int nid, const char *value)
{
    X509V3_CTX context;
    X509_EXTENSION *extension;

    X509V3_set_ctx_nodb(&context);
    X509V3_set_ctx(&context, x, x, NULL, NULL, 0);
    extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    AG_ASSERT(extension && X509_add_ext(x, extension, -1) == 1);
    X509_EXTENSION_free(extension);
}

static void set_name(X509 *x, const char *name)
{
    X509_NAME *n = X509_get_subject_name(x);

    AG_ASSERT(X509_NAME_add_entry_by_txt(n, "CN", MBSTRING_ASC, (const uint8_t *)name, -1, -1, 0) ==
              1);
}

/* `by`: NULL: by itself. `host`: NULL: an authority's. `stapled`: it names whom to ask (OCSP). */
static struct identity make_whole(const char *name, const char *host, const struct identity *by,
                                  bool stapled)
{
    struct identity id = {X509_new(), EVP_EC_gen("P-256")};
    char text[64];

    AG_ASSERT(id.cert && id.key && X509_set_version(id.cert, X509_VERSION_3) == 1);
    AG_ASSERT(ASN1_INTEGER_set(X509_get_serialNumber(id.cert), serial++) == 1);
    AG_ASSERT(ASN1_TIME_set_string(X509_getm_notBefore(id.cert), FROM) == 1 &&
              ASN1_TIME_set_string(X509_getm_notAfter(id.cert), TO) == 1);
    set_name(id.cert, name);
    AG_ASSERT(X509_set_issuer_name(id.cert, X509_get_subject_name(by ? by->cert : id.cert)) == 1 &&
              X509_set_pubkey(id.cert, id.key) == 1);
    if (host) {
        (void)snprintf(text, sizeof(text), "DNS:%s", host);
        add_extension(id.cert, NID_subject_alt_name, text);
        if (stapled) {
            add_extension(id.cert, NID_info_access, "OCSP;URI:http://ocsp.sim/");
        }
    } else {
        add_extension(id.cert, NID_basic_constraints, "critical,CA:TRUE");
        add_extension(id.cert, NID_key_usage, "critical,keyCertSign");
    }
    AG_ASSERT(X509_sign(id.cert, by ? by->key : id.key, EVP_sha256()) > 0);
    return id;
}

static struct identity make(const char *name, const char *host, const struct identity *by)
{
    return make_whole(name, host, by, false);
}

static void release(struct identity *id)
{
    X509_free(id->cert);
    EVP_PKEY_free(id->key);
    *id = (struct identity){0};
}

static void write_pem(const char *dir, const char *name, const struct identity *id, bool key)
{
    char path[128];
    FILE *f;

    (void)snprintf(path, sizeof(path), "%s/%s.pem", dir, name);
    f = fopen(path, "we");
    AG_ASSERT(f && PEM_write_X509(f, id->cert) == 1);
    AG_ASSERT(!key || PEM_write_PrivateKey(f, id->key, NULL, NULL, 0, NULL, NULL) == 1);
    AG_ASSERT(fclose(f) == 0);
}

struct identity certs_of_upstream(bool stranger)
{
    struct identity nobody = {0}, id;

    if (!stranger) {
        return make("upstream", "up.test", &authority);
    }
    nobody = make("nobody", NULL, NULL);
    id = make("upstream", "up.test", &nobody);
    release(&nobody);
    return id;
}

struct identity certs_of_client(bool stranger)
{
    struct identity nobody, id;

    if (!stranger) {
        return make("client", "client.test", &clients);
    }
    nobody = make("nobody", NULL, NULL);
    id = make("stranger", "client.test", &nobody);
    release(&nobody);
    return id;
}

/* ---- OCSP ---- */

struct ag_span certs_staple(uint32_t generation, uint32_t form)
{
    return ag_span(staples[generation][form].der, (size_t)staples[generation][form].len);
}

static void make_staples(const struct identity *id, uint32_t generation)
{
    static const char *const until[TLS_STAPLES] = {"20440101000000Z", "20430101000000Z"};

    for (uint32_t i = 0; i < TLS_STAPLES; i++) {
        OCSP_BASICRESP *basic = OCSP_BASICRESP_new();
        OCSP_CERTID *about = OCSP_cert_to_id(EVP_sha1(), id->cert, authority.cert);
        ASN1_TIME *from = ASN1_TIME_new(), *to = ASN1_TIME_new();
        OCSP_RESPONSE *whole;

        AG_ASSERT(basic && about && from && to &&
                  ASN1_TIME_set_string(from, "20200101000000Z") == 1 &&
                  ASN1_TIME_set_string(to, until[i]) == 1);
        AG_ASSERT(OCSP_basic_add1_status(basic, about, V_OCSP_CERTSTATUS_GOOD, 0, NULL, from, to));
        AG_ASSERT(OCSP_basic_sign(basic, authority.cert, authority.key, EVP_sha256(), NULL, 0) ==
                  1);
        whole = OCSP_response_create(OCSP_RESPONSE_STATUS_SUCCESSFUL, basic);
        AG_ASSERT(whole);
        staples[generation][i].len = i2d_OCSP_RESPONSE(whole, &staples[generation][i].der);
        AG_ASSERT(staples[generation][i].len > 0);
        OCSP_RESPONSE_free(whole);
        OCSP_BASICRESP_free(basic);
        OCSP_CERTID_free(about);
        ASN1_TIME_free(from);
        ASN1_TIME_free(to);
    }
}

static void write_chain(const char *dir, const struct identity *id, uint32_t generation)
{
    char path[128];
    FILE *f;

    (void)snprintf(path, sizeof(path), "%s/chain-%u.pem", dir, generation);
    f = fopen(path, "we");
    AG_ASSERT(f && PEM_write_X509(f, id->cert) == 1 && PEM_write_X509(f, authority.cert) == 1);
    AG_ASSERT(PEM_write_PrivateKey(f, id->key, NULL, NULL, 0, NULL, NULL) == 1 && fclose(f) == 0);
}

void certs_init(const char *dir)
{
    static const char *const hosts[] = {"sim", "other"};
    struct identity me;

    authority = make("authority", NULL, NULL);
    write_pem(dir, "ca", &authority, false);
    clients = make("clients", NULL, NULL);
    write_pem(dir, "clients", &clients, false);
    me = make("me", "me.test", &authority);
    write_pem(dir, "me", &me, true);
    release(&me);
    for (unsigned h = 0; h < AG_COUNT(hosts); h++) {
        for (unsigned g = 0; g < TLS_GENERATIONS; g++) {
            char name[32], host[32];
            struct identity id;

            (void)snprintf(name, sizeof(name), "%s-%u", hosts[h], g);
            (void)snprintf(host, sizeof(host), "%s.test", hosts[h]);
            id = make(name, host, &authority);
            write_pem(dir, name, &id, true);
            release(&id);
            if (h == 0) {
                id = make_whole(name, host, &authority, true);
                write_chain(dir, &id, g);
                make_staples(&id, g);
                release(&id);
            }
        }
    }
}

void certs_deinit(const char *dir)
{
    static const char *const others[] = {"ca.pem", "clients.pem", "me.pem"};
    char path[128];

    release(&authority);
    release(&clients);
    for (unsigned i = 0; i < 2 * TLS_GENERATIONS + 1; i++) {
        (void)snprintf(path, sizeof(path), "%s/%s-%u.pem", dir, i % 2 ? "sim" : "other", i / 2);
        (void)unlink(path);
    }
    for (unsigned g = 0; g < TLS_GENERATIONS; g++) {
        (void)snprintf(path, sizeof(path), "%s/chain-%u.pem", dir, g);
        (void)unlink(path);
        for (unsigned i = 0; i < TLS_STAPLES; i++) {
            OPENSSL_free(staples[g][i].der);
        }
    }
    for (unsigned i = 0; i < AG_COUNT(others); i++) {
        (void)snprintf(path, sizeof(path), "%s/%s", dir, others[i]);
        (void)unlink(path);
    }
}
