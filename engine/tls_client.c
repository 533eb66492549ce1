#include "engine/tls_impl.h"

#if AG_WOLFSSL

#    include "engine/arena.h"
#    include "engine/tls_memory.h"

#    include <pthread.h>
#    include <wolfssl/options.h>
#    include <wolfssl/ssl.h>

/* Hosts whose last session is kept, of each client. */
#    define SESSIONS 16u
/* Larger tickets are not kept. */
#    define TICKET_MAX 2048u

struct session {
    uint8_t host[AG_TLS_HOST_MAX];
    uint8_t host_len;
    uint64_t used; /* order of use */
    WOLFSSL_SESSION *session;
};

struct ag_tls_client {
    _Atomic uint32_t refs;
    struct ag_arena arena;
    struct ag_tls_client_settings settings; /* without the identity */
    WOLFSSL_CTX *ctx;
    struct ag_tls_authorities *authorities; /* NULL: not verified */
    pthread_mutex_t lock;                   /* of what follows */
    uint64_t uses;
    struct session sessions[SESSIONS];
};

WOLFSSL_CTX *ag_tls_client_ctx(const struct ag_tls_client *c)
{
    return c->ctx;
}

const struct ag_tls_client_settings *ag_tls_client_settings_of(const struct ag_tls_client *c)
{
    return &c->settings;
}

const struct ag_tls_authorities *ag_tls_client_authorities(const struct ag_tls_client *c)
{
    return c->authorities;
}

/* ---- sessions ---- */

/* That of `host`; else NULL, or with `make` the one that was used longest ago. */
static struct session *find_session(struct ag_tls_client *c, struct ag_span host, bool make)
{
    struct session *oldest = &c->sessions[0];

    for (uint32_t i = 0; i < SESSIONS; i++) {
        struct session *s = &c->sessions[i];

        if (s->session && ag_span_eq(ag_span(s->host, s->host_len), host)) {
            return s;
        }
        oldest = s->used < oldest->used ? s : oldest;
    }
    return make ? oldest : NULL;
}

void ag_tls_client_resume(struct ag_tls_client *c, struct ag_span host, WOLFSSL *ssl)
{
    struct session *s;

    pthread_mutex_lock(&c->lock);
    s = find_session(c, host, false);
    if (s) {
        s->used = ++c->uses;
        /* Copied; one that is too old is refused, and a whole handshake takes place. */
        (void)wolfSSL_set_session(ssl, s->session);
    }
    pthread_mutex_unlock(&c->lock);
}

void ag_tls_client_forget(struct ag_tls_client *c, struct ag_span host)
{
    WOLFSSL_SESSION *old = NULL;
    struct session *s;

    pthread_mutex_lock(&c->lock);
    s = find_session(c, host, false);
    if (s) {
        old = s->session;
        s->session = NULL;
        s->used = 0;
    }
    pthread_mutex_unlock(&c->lock);
    wolfSSL_SESSION_free(old);
}

/* A session of TLS 1.3 is its ticket. Before one has come on the connection, the library has the ticket that was
 * offered beside this handshake's secret: nobody opens that. */
static bool can_resume(WOLFSSL *ssl, bool has_ticket)
{
    uint8_t ticket[TICKET_MAX];
    word32 len = sizeof(ticket);

    return strcmp(wolfSSL_get_version(ssl), "TLSv1.3") != 0 ||
           (has_ticket && wolfSSL_get_SessionTicket(ssl, ticket, &len) == WOLFSSL_SUCCESS &&
            len > 0);
}

void ag_tls_client_keep(struct ag_tls_client *c, struct ag_span host, WOLFSSL *ssl, bool ticket)
{
    WOLFSSL_SESSION *session, *old;
    struct session *s;

    if (host.len == 0 || host.len > AG_TLS_HOST_MAX || !can_resume(ssl, ticket)) {
        return;
    }
    session = wolfSSL_get1_session(ssl);
    if (!session) {
        return;
    }
    pthread_mutex_lock(&c->lock);
    s = find_session(c, host, true);
    old = s->session;
    memcpy(s->host, host.ptr, host.len);
    s->host_len = (uint8_t)host.len;
    s->session = session;
    s->used = ++c->uses;
    pthread_mutex_unlock(&c->lock);
    wolfSSL_SESSION_free(old);
}

/* ---- life ---- */

static bool make_context(struct ag_tls_client *c, const struct ag_tls_client_settings *settings,
                         const char **out_why)
{
    *out_why = "out of memory";
    c->ctx = wolfSSL_CTX_new(wolfSSLv23_client_method());
    if (!c->ctx || !ag_tls_ctx_prepare(c->ctx, AG_TLS_INTERMEDIATE, out_why) ||
        (settings->identity && !ag_tls_ctx_identity(c->ctx, settings->identity, out_why))) {
        return false;
    }
    (void)wolfSSL_CTX_UseSessionTicket(c->ctx);
    (void)wolfSSL_CTX_set_session_cache_mode(c->ctx, WOLFSSL_SESS_CACHE_NO_INTERNAL_STORE |
                                                         WOLFSSL_SESS_CACHE_NO_INTERNAL_LOOKUP);
    /* No verdict of the library's: the callback gives ours, and a bad one ends the handshake. */
    wolfSSL_CTX_set_verify(c->ctx, WOLFSSL_VERIFY_NONE, ag_tls_on_server_chain);
    return true;
}

struct ag_tls_client *ag_tls_client_new(const struct ag_tls_client_settings *settings,
                                        const char **out_why)
{
    struct ag_tls_client *c = calloc(1, sizeof(*c));

    *out_why = "out of memory";
    if (!c) {
        return NULL;
    }
    atomic_init(&c->refs, 1);
    pthread_mutex_init(&c->lock, NULL);
    ag_arena_init(&c->arena, NULL, 0);
    c->settings = *settings;
    c->settings.server_name = ag_arena_copy(&c->arena, settings->server_name);
    c->settings.ca = ag_span(NULL, 0);
    c->settings.identity = NULL;
    if (settings->verify) {
        c->authorities = ag_tls_authorities_new(settings->ca);
        *out_why = "no authority for servers' certificates can be used";
    }
    if ((settings->verify && !c->authorities) || !make_context(c, settings, out_why)) {
        ag_tls_client_release(c);
        return NULL;
    }
    return c;
}

struct ag_tls_client *ag_tls_client_hold(struct ag_tls_client *c)
{
    if (c) {
        atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
    }
    return c;
}

void ag_tls_client_release(struct ag_tls_client *c)
{
    if (!c || atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) > 1) {
        return;
    }
    for (uint32_t i = 0; i < SESSIONS; i++) {
        wolfSSL_SESSION_free(c->sessions[i].session);
    }
    wolfSSL_CTX_free(c->ctx);
    ag_tls_authorities_free(c->authorities);
    pthread_mutex_destroy(&c->lock);
    ag_arena_release(&c->arena);
    free(c);
}

#endif
