#include "engine/tls_server_impl.h"

#if AG_WOLFSSL

#    include "engine/tls_memory.h"

#    include <wolfssl/ocsp.h>
#    include <wolfssl/options.h>
#    include <wolfssl/ssl.h>

/* The library asks for what it is to staple; it is here. */
// NOLINTNEXTLINE(readability-non-const-parameter): the library's signature
static int on_ocsp(void *user, const char *url, int url_len, byte *request, int request_len,
                   byte **out_response)
{
    struct ag_tls_context *c = user;

    (void)url;
    (void)url_len;
    (void)request;
    (void)request_len;
    *out_response = c->response;
    return c->response ? (int)c->response_len : WOLFSSL_CBIO_ERR_GENERAL;
}

// NOLINTNEXTLINE(readability-non-const-parameter): the library's signature
static void on_ocsp_done(void *user, byte *response)
{
    (void)user;
    (void)response;
}

/* Takes over a new response, if there is one. */
static void update_response(struct ag_tls_context *c, struct ag_tls_server_identity *id)
{
    uint8_t *copy = NULL;

    if (atomic_load_explicit(&id->generation, memory_order_acquire) == c->staple) {
        return;
    }
    pthread_mutex_lock(&c->server->lock);
    if (id->response_len > 0) {
        copy = ag_tls_alloc(id->response_len);
    }
    if (copy || id->response_len == 0) {
        if (copy) {
            memcpy(copy, id->response, id->response_len);
        }
        ag_tls_free(c->response);
        c->response = copy;
        c->response_len = id->response_len;
        c->response_until_s = id->until_s;
        c->staple = atomic_load_explicit(&id->generation, memory_order_relaxed);
    }
    pthread_mutex_unlock(&c->server->lock);
}

/* The library fails a handshake over a response that is too old: it must not see one. */
void ag_tls_server_refresh(struct ag_tls_context *c, int64_t wall_s)
{
    bool want;

    update_response(c, &c->server->identities[c->identity]);
    want = c->response && wall_s < c->response_until_s;
    if (want == c->stapling) {
        return;
    }
    if (want) {
        c->stapling = wolfSSL_CTX_EnableOCSPStapling(c->ctx) == WOLFSSL_SUCCESS &&
                      wolfSSL_CTX_SetOCSP_Cb(c->ctx, on_ocsp, on_ocsp_done, c) == WOLFSSL_SUCCESS;
    } else {
        (void)wolfSSL_CTX_DisableOCSPStapling(c->ctx);
        c->stapling = false;
    }
}

/* Whether the library would take it: tried on a manager of its own. */
static bool is_good_response(const struct ag_tls_server_identity *id, struct ag_span der)
{
    struct ag_tls_context probe = {.response = (uint8_t *)(uintptr_t)der.ptr,
                                   .response_len = der.len};
    WOLFSSL_CERT_MANAGER *m = wolfSSL_CertManagerNew();
    bool good;

    if (!m) {
        return false;
    }
    good = id->facts->issuer_pem.len > 0 && id->leaf.len > 0 &&
           wolfSSL_CertManagerLoadCABuffer(m, id->facts->issuer_pem.ptr,
                                           (long)id->facts->issuer_pem.len,
                                           WOLFSSL_FILETYPE_PEM) == WOLFSSL_SUCCESS &&
           wolfSSL_CertManagerEnableOCSP(m, 0) == WOLFSSL_SUCCESS &&
           wolfSSL_CertManagerSetOCSP_Cb(m, on_ocsp, on_ocsp_done, &probe) == WOLFSSL_SUCCESS &&
           wolfSSL_CertManagerCheckOCSP(m, (uint8_t *)(uintptr_t)id->leaf.ptr, (int)id->leaf.len) ==
               WOLFSSL_SUCCESS;
    wolfSSL_CertManagerFree(m);
    return good;
}

static struct ag_tls_server_identity *find_identity(struct ag_tls_server *s,
                                                    const struct ag_tls_identity *facts)
{
    for (uint32_t i = 0; i < s->settings.identity_count; i++) {
        if (memcmp(s->identities[i].facts->sha256, facts->sha256, 32) == 0) {
            return &s->identities[i];
        }
    }
    return NULL;
}

enum ag_status ag_tls_server_staple(struct ag_tls_server *s, const struct ag_tls_identity *id,
                                    struct ag_span der, int64_t until_s)
{
    struct ag_tls_server_identity *to = find_identity(s, id);
    uint8_t *copy = NULL, *old;

    if (!to || !s->settings.stapling || (der.len > 0 && !is_good_response(to, der))) {
        return AG_EINVAL;
    }
    if (der.len > 0) {
        copy = ag_tls_alloc(der.len);
        if (!copy) {
            return AG_ENOMEM;
        }
        memcpy(copy, der.ptr, der.len);
    }
    pthread_mutex_lock(&s->lock);
    old = to->response;
    to->response = copy;
    to->response_len = der.len;
    to->until_s = until_s;
    atomic_fetch_add_explicit(&to->generation, 1, memory_order_release);
    pthread_mutex_unlock(&s->lock);
    ag_tls_free(old);
    return AG_OK;
}

#endif
