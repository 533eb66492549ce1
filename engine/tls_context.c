#include "engine/tls_context.h"

#if AG_WOLFSSL

#    include "engine/tls_impl.h"
#    include "engine/tls_memory.h"

#    include <pthread.h>
#    include <sys/random.h>
#    include <wolfssl/options.h>

#    include <wolfssl/error-ssl.h>
#    include <wolfssl/ssl.h>
#    include <wolfssl/wolfcrypt/random.h>

/* ---- the library ---- */

static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool ready;

#    if defined(WC_RNG_SEED_CB)
/* By the system call: a confined process has no /dev. */
static int on_seed(OS_Seed *os, byte *out, word32 len)
{
    size_t done = 0;

    (void)os;
    while (done < len) {
        ssize_t n = getrandom(out + done, len - done, 0);
        if (n <= 0) {
            return RNG_FAILURE_E;
        }
        done += (size_t)n;
    }
    return 0;
}
#    endif

static void set_up(void)
{
    if (wolfSSL_SetAllocators(ag_tls_alloc, ag_tls_free, ag_tls_realloc) != 0) {
        return;
    }
    if (wolfSSL_Init() != WOLFSSL_SUCCESS) {
        return;
    }
#    if defined(WC_RNG_SEED_CB)
    if (wc_SetSeed_Cb(on_seed) != 0) { /* behind wolfSSL_Init, which sets its own */
        return;
    }
#    endif
    ready = true;
}

enum ag_status ag_tls_library_init(void)
{
    return pthread_once(&once, set_up) == 0 && ready ? AG_OK : AG_ESYS;
}

/* Alerts (RFC 8446 section 6.2) as a peer sends them. */
const char *ag_tls_alert_text(int alert)
{
    switch (alert) {
    case 10:
        return "alert of the peer: unexpected message";
    case 20:
        return "alert of the peer: bad record";
    case 40:
        return "alert of the peer: handshake failure";
    case 42:
        return "alert of the peer: bad certificate";
    case 43:
        return "alert of the peer: unsupported certificate";
    case 44:
        return "alert of the peer: certificate revoked";
    case 45:
        return "alert of the peer: certificate expired";
    case 46:
        return "alert of the peer: certificate unknown";
    case 47:
        return "alert of the peer: illegal parameter";
    case 48:
        return "alert of the peer: unknown authority";
    case 49:
        return "alert of the peer: access denied";
    case 50:
        return "alert of the peer: decode error";
    case 51:
        return "alert of the peer: decrypt error";
    case 70:
        return "alert of the peer: protocol version";
    case 71:
        return "alert of the peer: insufficient security";
    case 80:
        return "alert of the peer: internal error";
    case 90:
        return "alert of the peer: cancelled by its user";
    case 112:
        return "alert of the peer: unrecognized name";
    case 116:
        return "alert of the peer: certificate required";
    case 120:
        return "alert of the peer: no application protocol";
    default:
        return "alert of the peer";
    }
}

const char *ag_tls_why(WOLFSSL *ssl, int error)
{
    WOLFSSL_ALERT_HISTORY alerts;

    if (ssl && error == FATAL_ERROR && wolfSSL_get_alert_history(ssl, &alerts) == WOLFSSL_SUCCESS &&
        alerts.last_rx.code >= 0) {
        return ag_tls_alert_text(alerts.last_rx.code);
    }
    return wolfSSL_ERR_reason_error_string((unsigned long)error);
}

/* ---- what both kinds of contexts have in common ---- */

/* The server's order where it is asked for, else the client's: who has no AES instructions prefers ChaCha. */
static const char *suites_of(enum ag_tls_profile profile)
{
    switch (profile) {
    case AG_TLS_INTERMEDIATE:
        return "TLS13-AES128-GCM-SHA256:TLS13-AES256-GCM-SHA384:TLS13-CHACHA20-POLY1305-SHA256:"
               "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
               "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
               "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";
    case AG_TLS_MODERN:
        return "TLS13-AES128-GCM-SHA256:TLS13-AES256-GCM-SHA384:TLS13-CHACHA20-POLY1305-SHA256";
    case AG_TLS_FIPS_LIKE:
        return "TLS13-AES128-GCM-SHA256:TLS13-AES256-GCM-SHA384:"
               "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
               "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384";
    }
    AG_UNREACHABLE("a profile that is none");
}

bool ag_tls_ctx_prepare(WOLFSSL_CTX *ctx, enum ag_tls_profile profile, const char **out_why)
{
    int groups[] = {WOLFSSL_ECC_SECP256R1, WOLFSSL_ECC_X25519, WOLFSSL_ECC_SECP384R1};
    int nist[] = {WOLFSSL_ECC_SECP256R1, WOLFSSL_ECC_SECP384R1};
    bool fips = profile == AG_TLS_FIPS_LIKE;

    if ((profile != AG_TLS_MODERN &&
         wolfSSL_CTX_SetMinVersion(ctx, WOLFSSL_TLSV1_2) != WOLFSSL_SUCCESS) ||
        wolfSSL_CTX_set_cipher_list(ctx, suites_of(profile)) != WOLFSSL_SUCCESS ||
        wolfSSL_CTX_set_groups(ctx, fips ? nist : groups,
                               fips ? AG_COUNT(nist) : AG_COUNT(groups)) != WOLFSSL_SUCCESS) {
        *out_why = "the TLS library lacks what the profile asks for";
        return false;
    }
    wolfSSL_CTX_SetIORecv(ctx, ag_tls_on_recv);
    wolfSSL_CTX_SetIOSend(ctx, ag_tls_on_send);
    return true;
}

bool ag_tls_ctx_identity(WOLFSSL_CTX *ctx, const struct ag_tls_identity *id, const char **out_why)
{
    int rc =
        wolfSSL_CTX_use_certificate_chain_buffer(ctx, id->chain_pem.ptr, (long)id->chain_pem.len);

    if (rc == WOLFSSL_SUCCESS) {
        rc = wolfSSL_CTX_use_PrivateKey_buffer(ctx, id->key_pem.ptr, (long)id->key_pem.len,
                                               WOLFSSL_FILETYPE_PEM);
    }
    if (rc != WOLFSSL_SUCCESS) {
        *out_why = ag_tls_why(NULL, rc);
    }
    return rc == WOLFSSL_SUCCESS;
}

#else

#    include "engine/tls_memory.h"

static const char none[] = "built without TLS";

enum ag_status ag_tls_library_init(void)
{
    return AG_ESYS;
}

struct ag_tls_server *ag_tls_server_new(const struct ag_tls_server_settings *settings,
                                        uint32_t shard_count, struct ag_tls_tickets *tickets,
                                        const char **out_why)
{
    (void)settings;
    (void)shard_count;
    (void)tickets;
    *out_why = none;
    return NULL;
}

struct ag_tls_server *ag_tls_server_hold(struct ag_tls_server *s)
{
    return s;
}

void ag_tls_server_release(struct ag_tls_server *s)
{
    (void)s;
}

bool ag_tls_server_takes(const struct ag_tls_server *s, const uint8_t *mark)
{
    (void)s;
    (void)mark;
    return false;
}

struct ag_tls_client *ag_tls_client_new(const struct ag_tls_client_settings *settings,
                                        const char **out_why)
{
    (void)settings;
    *out_why = none;
    return NULL;
}

struct ag_tls_client *ag_tls_client_hold(struct ag_tls_client *c)
{
    return c;
}

void ag_tls_client_release(struct ag_tls_client *c)
{
    (void)c;
}

enum ag_status ag_tls_server_staple(struct ag_tls_server *s, const struct ag_tls_identity *id,
                                    struct ag_span der, int64_t until_s)
{
    (void)s;
    (void)id;
    (void)der;
    (void)until_s;
    return AG_EINVAL;
}

#endif
