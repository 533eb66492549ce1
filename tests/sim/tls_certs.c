#include "tests/sim/tls_certs.h"

#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <unistd.h>

/* 2020 to 2044: the host's clock (host_parts.h) lies between. */
#define FROM "200101000000Z"
#define TO   "440101000000Z"

static struct identity authority;
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

/* `by`: NULL: by itself. `host`: NULL: an authority's. */
static struct identity make(const char *name, const char *host, const struct identity *by)
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
    } else {
        add_extension(id.cert, NID_basic_constraints, "critical,CA:TRUE");
        add_extension(id.cert, NID_key_usage, "critical,keyCertSign");
    }
    AG_ASSERT(X509_sign(id.cert, by ? by->key : id.key, EVP_sha256()) > 0);
    return id;
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

void certs_init(const char *dir)
{
    static const char *const hosts[] = {"sim", "other"};

    authority = make("authority", NULL, NULL);
    write_pem(dir, "ca", &authority, false);
    for (unsigned h = 0; h < AG_COUNT(hosts); h++) {
        for (unsigned g = 0; g < TLS_GENERATIONS; g++) {
            char name[32], host[32];
            struct identity id;

            (void)snprintf(name, sizeof(name), "%s-%u", hosts[h], g);
            (void)snprintf(host, sizeof(host), "%s.test", hosts[h]);
            id = make(name, host, &authority);
            write_pem(dir, name, &id, true);
            release(&id);
        }
    }
}

void certs_deinit(const char *dir)
{
    char path[128];

    release(&authority);
    for (unsigned i = 0; i < 2 * TLS_GENERATIONS + 1; i++) {
        (void)snprintf(path, sizeof(path), "%s/%s-%u.pem", dir, i % 2 ? "sim" : "other", i / 2);
        (void)unlink(path);
    }
    (void)snprintf(path, sizeof(path), "%s/ca.pem", dir);
    (void)unlink(path);
}
