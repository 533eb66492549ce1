#include "engine/tls_server_impl.h"

#if AG_WOLFSSL

#    include "engine/tls_memory.h"
#    include "engine/tls_pem.h"
#    include "engine/tls_verify.h"

#    include <wolfssl/options.h>
#    include <wolfssl/ssl.h>

/* How long sessions may be resumed, seconds; the ring of keys may end it sooner (RFC 8446 section 4.6.1). */
#    define SESSION_S 7200

/* ---- copies of the settings ---- */

static const struct ag_span *copy_spans(struct ag_arena *a, const struct ag_span *from, uint32_t n)
{
    struct ag_span *to = ag_arena_zalloc(a, (n + 1) * sizeof(*to));

    for (uint32_t i = 0; i < n; i++) {
        to[i] = ag_arena_copy(a, from[i]);
    }
    return to;
}

static struct ag_tls_identity *copy_identity(struct ag_arena *a, const struct ag_tls_identity *from)
{
    struct ag_tls_identity *to = ag_arena_alloc(a, sizeof(*to));

    *to = *from;
    to->chain_pem = ag_arena_copy(a, from->chain_pem);
    to->issuer_pem = ag_arena_copy(a, from->issuer_pem);
    to->key_pem = ag_span(NULL, 0); /* the contexts have it, and it is to lie about nowhere else */
    to->names = copy_spans(a, from->names, from->name_count);
    to->subject = to->issuer = to->ocsp_url = ag_span(NULL, 0);
    return to;
}

static struct ag_span first_der(struct ag_arena *a, struct ag_span pem)
{
    struct ag_span der = {0};
    struct ag_pem block;

    return ag_pem_next(&pem, &block) == AG_OK && ag_pem_decode(&block, a, &der) == AG_OK
               ? der
               : ag_span(NULL, 0);
}

static int compare_names(const void *a, const void *b)
{
    const struct ag_tls_server_name *x = a, *y = b;
    int order = ag_tls_server_order(x->text, y->text);

    return order ? order : (x->identity > y->identity) - (x->identity < y->identity);
}

static void index_names(struct ag_tls_server *s)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < s->settings.identity_count; i++) {
        n += s->settings.identities[i]->name_count;
    }
    s->names = ag_arena_zalloc(&s->arena, ((size_t)n + 1) * sizeof(*s->names));
    for (uint32_t i = 0; i < s->settings.identity_count; i++) {
        const struct ag_tls_identity *id = s->identities[i].facts;

        for (uint32_t k = 0; k < id->name_count; k++) {
            s->names[s->name_count++] = (struct ag_tls_server_name){id->names[k], i};
        }
    }
    qsort(s->names, s->name_count, sizeof(*s->names), compare_names);
}

static void copy_settings(struct ag_tls_server *s, const struct ag_tls_server_settings *from)
{
    const struct ag_tls_identity **ids =
        ag_arena_zalloc(&s->arena, from->identity_count * sizeof(void *));

    s->settings = *from;
    s->identities = ag_arena_zalloc(&s->arena, from->identity_count * sizeof(*s->identities));
    for (uint32_t i = 0; i < from->identity_count; i++) {
        ids[i] = s->identities[i].facts = copy_identity(&s->arena, from->identities[i]);
        s->identities[i].leaf = first_der(&s->arena, ids[i]->chain_pem);
    }
    s->settings.identities = ids;
    s->settings.ask_names = copy_spans(&s->arena, from->ask_names, from->ask_name_count);
    s->settings.client_ca = ag_span(NULL, 0);
    index_names(s);
}

/* ---- tickets ---- */

/* What a ticket, or a session that is kept, is bound to: the settings, the certificate, the name that the client asked for. */
static bool ticket_context(const struct ag_tls_context *c, WOLFSSL *ssl, uint8_t out[static 16])
{
    const struct ag_tls_server *s = c->server;
    uint8_t text[16 + 32 + 255], hash[32];
    struct ag_buf buf = ag_buf(text, sizeof(text));

    ag_buf_put(&buf, ag_span(s->settings.key, sizeof(s->settings.key)));
    ag_buf_put(&buf, ag_span(s->identities[c->identity].facts->sha256, 32));
    ag_buf_put(&buf, ag_tls_name_of(ssl));
    if (buf.overflow || !ag_tls_sha256(ag_buf_span(&buf), hash)) {
        return false;
    }
    memcpy(out, hash, 16);
    return true;
}

#    define TICKET_MAX 512u

/* The library wants what sealing adds in three places of its own. */
static int seal(const struct ag_tls_context *c, uint8_t *text, size_t len,
                const uint8_t context[static 16], uint8_t *places[static 3])
{
    if (ag_tls_ticket_seal(c->server->tickets, context, text, len, TICKET_MAX) !=
        len + AG_TLS_TICKET_OVERHEAD) {
        return WOLFSSL_TICKET_RET_FATAL;
    }
    memcpy(places[0], text + len, 16);
    memcpy(places[1], text + len + 16, 16);
    memset(places[2], 0, 32);
    memcpy(places[2], text + len + 32, 16);
    return WOLFSSL_TICKET_RET_OK;
}

// NOLINTNEXTLINE(readability-function-size): the library's signature
static int on_ticket(WOLFSSL *ssl, unsigned char name[16], unsigned char iv[16],
                     unsigned char mac[32], int encrypt, unsigned char *ticket, int len,
                     int *out_len, void *user)
{
    struct ag_tls_context *c = user;
    uint8_t text[TICKET_MAX], context[16], *places[3] = {name, iv, mac};
    size_t n = (size_t)len;
    bool renew = false;

    if (!c->server->tickets || c->asked || !c->server->settings.tickets || len <= 0 ||
        n + AG_TLS_TICKET_OVERHEAD > sizeof(text) || !ticket_context(c, ssl, context)) {
        return encrypt ? WOLFSSL_TICKET_RET_FATAL : WOLFSSL_TICKET_RET_REJECT;
    }
    memcpy(text, ticket, n);
    if (encrypt) {
        int rc = seal(c, text, n, context, places);
        memcpy(ticket, text, n);
        *out_len = len;
        return rc;
    }
    memcpy(text + n, name, 16);
    memcpy(text + n + 16, iv, 16);
    memcpy(text + n + 32, mac, 16);
    n = ag_tls_ticket_open(c->server->tickets, context, text, n + AG_TLS_TICKET_OVERHEAD, &renew);
    if (n == 0 || n > (size_t)len) {
        return WOLFSSL_TICKET_RET_REJECT;
    }
    memcpy(ticket, text, n);
    explicit_bzero(text, sizeof(text));
    *out_len = (int)n;
    /* Of TLS 1.3 each handshake brings new ones (and the library would not take this one). */
    return renew && strcmp(wolfSSL_get_version(ssl), "TLSv1.3") != 0 ? WOLFSSL_TICKET_RET_CREATE
                                                                     : WOLFSSL_TICKET_RET_OK;
}

/* ---- sessions by id ---- */

#    if defined(HAVE_EXT_CACHE)

/* Of the connection's context and server name. */
static bool session_key(WOLFSSL *ssl, const uint8_t *id, size_t len, struct ag_tls_session_key *out)
{
    const struct ag_tls *t = wolfSSL_GetIOReadCtx(ssl);

    if (len != sizeof(out->id) || !t->shake || !t->shake->context ||
        !ticket_context(t->shake->context, ssl, out->binding)) {
        return false;
    }
    memcpy(out->id, id, len);
    return true;
}

static int64_t session_clock(WOLFSSL *ssl)
{
    const struct ag_tls *t = wolfSSL_GetIOReadCtx(ssl);

    return (int64_t)(t->stream.loop->now_ms / 1000);
}

/* Where a session's id lies in what the library writes of it, behind side, time and timeout. */
#        define WRITTEN_ID 10u

/* A session was made. 0: the library keeps its reference. */
static int on_new_session(WOLFSSL *ssl, WOLFSSL_SESSION *session)
{
    const struct ag_tls *t = wolfSSL_GetIOReadCtx(ssl);
    uint8_t bytes[AG_TLS_SESSION_BYTES] = {0}, *at = bytes;
    int len = wolfSSL_i2d_SSL_SESSION(session, NULL);
    struct ag_tls_session_key key;

    if (len > (int)(WRITTEN_ID + sizeof(key.id)) && (size_t)len <= sizeof(bytes) &&
        wolfSSL_i2d_SSL_SESSION(session, &at) == len &&
        session_key(ssl, bytes + WRITTEN_ID, bytes[WRITTEN_ID - 1], &key)) {
        ag_tls_sessions_put(t->shake->context->server->sessions, &key, bytes, (size_t)len,
                            session_clock(ssl));
    }
    explicit_bzero(bytes, sizeof(bytes));
    return 0;
}

static WOLFSSL_SESSION *on_get_session(WOLFSSL *ssl, const unsigned char *id, int len, int *copy)
{
    const struct ag_tls *t = wolfSSL_GetIOReadCtx(ssl);
    uint8_t bytes[AG_TLS_SESSION_BYTES];
    const uint8_t *at = bytes;
    WOLFSSL_SESSION *session = NULL;
    struct ag_tls_session_key key;
    size_t n;

    *copy = 0; /* it is the library's to free */
    if (len > 0 && session_key(ssl, id, (size_t)len, &key)) {
        n = ag_tls_sessions_get(t->shake->context->server->sessions, &key, session_clock(ssl),
                                SESSION_S, bytes);
        session = n > 0 ? wolfSSL_d2i_SSL_SESSION(NULL, &at, (long)n) : NULL;
    }
    explicit_bzero(bytes, sizeof(bytes));
    return session;
}

#    endif

/* The library's own table is one for all contexts, and forgets what a session was made for. */
static void set_session_cache(struct ag_tls_context *c)
{
#    if defined(HAVE_EXT_CACHE)
    if (c->server->sessions && !c->asked) {
        (void)wolfSSL_CTX_set_session_cache_mode(c->ctx, WOLFSSL_SESS_CACHE_NO_INTERNAL_STORE |
                                                             WOLFSSL_SESS_CACHE_NO_INTERNAL_LOOKUP);
        wolfSSL_CTX_sess_set_new_cb(c->ctx, on_new_session);
        wolfSSL_CTX_sess_set_get_cb(c->ctx, on_get_session);
        return;
    }
#    endif
    (void)wolfSSL_CTX_set_session_cache_mode(c->ctx, WOLFSSL_SESS_CACHE_OFF);
}

/* ---- contexts ---- */

static bool load_issuer(const struct ag_tls_context *c)
{
    struct ag_span pem = c->server->settings.identities[c->identity]->issuer_pem;

    /* Responses are checked against it. It vouches for no client: tls_chain.c alone does. */
    return !c->server->settings.stapling || pem.len == 0 ||
           wolfSSL_CTX_load_verify_buffer(c->ctx, pem.ptr, (long)pem.len, WOLFSSL_FILETYPE_PEM) ==
               WOLFSSL_SUCCESS;
}

void ag_tls_context_clean(struct ag_tls_context *c)
{
    if (c->tainted) {
        c->tainted = false;
        (void)wolfSSL_CTX_UnloadCAs(c->ctx);
        (void)load_issuer(c);
    }
}

static bool make_context(struct ag_tls_context *c, const struct ag_tls_identity *id,
                         const char **out_why)
{
    struct ag_tls_server *s = c->server;

    c->ctx = wolfSSL_CTX_new(s->settings.profile == AG_TLS_MODERN ? wolfTLSv1_3_server_method()
                                                                  : wolfSSLv23_server_method());
    if (!c->ctx) {
        *out_why = "out of memory";
        return false;
    }
    if (!ag_tls_ctx_prepare(c->ctx, s->settings.profile, out_why) ||
        !ag_tls_ctx_identity(c->ctx, id, out_why)) {
        return false;
    }
    set_session_cache(c);
    (void)wolfSSL_CTX_set_TicketEncCb(c->ctx, on_ticket);
    (void)wolfSSL_CTX_set_TicketEncCtx(c->ctx, c);
    (void)wolfSSL_CTX_set_TicketHint(c->ctx, SESSION_S);
    (void)wolfSSL_CTX_set_timeout(c->ctx, SESSION_S);
    if (c->asked || !s->settings.tickets || !s->tickets) {
        (void)wolfSSL_CTX_NoTicketTLSv12(c->ctx);
        (void)wolfSSL_CTX_no_ticket_TLSv13(c->ctx);
    }
    wolfSSL_CTX_set_verify(c->ctx, c->asked ? WOLFSSL_VERIFY_PEER : WOLFSSL_VERIFY_NONE,
                           ag_tls_on_client_chain);
    if (!load_issuer(c)) {
        *out_why = "the issuer's certificate is not taken";
        return false;
    }
    return true;
}

static bool may_ask(const struct ag_tls_server *s)
{
    return s->client_ca && s->settings.client_auth != AG_TLS_CLIENTS_UNASKED;
}

static bool may_not_ask(const struct ag_tls_server *s)
{
    return !may_ask(s) || s->settings.client_auth == AG_TLS_CLIENTS_BY_NAME;
}

static bool make_contexts(struct ag_tls_server *s, const struct ag_tls_server_settings *settings,
                          const char **out_why)
{
    size_t n = (size_t)s->shard_count * settings->identity_count * 2;

    s->contexts = ag_arena_zalloc(&s->arena, n * sizeof(*s->contexts));
    for (size_t i = 0; i < n; i++) {
        struct ag_tls_context *c = &s->contexts[i];

        c->server = s;
        c->identity = (uint32_t)(i / 2 % settings->identity_count);
        c->asked = i % 2;
        if ((c->asked ? may_ask(s) : may_not_ask(s)) &&
            !make_context(c, settings->identities[c->identity], out_why)) {
            return false;
        }
    }
    return true;
}

struct ag_tls_server *ag_tls_server_new(const struct ag_tls_server_settings *settings,
                                        uint32_t shard_count, struct ag_tls_tickets *tickets,
                                        const char **out_why)
{
    struct ag_tls_server *s = calloc(1, sizeof(*s));

    AG_ASSERT(settings->identity_count > 0 && shard_count > 0);
    *out_why = "out of memory";
    if (!s) {
        return NULL;
    }
    atomic_init(&s->refs, 1);
    ag_arena_init(&s->arena, NULL, 0);
    pthread_mutex_init(&s->lock, NULL);
    s->shard_count = shard_count;
    s->tickets = tickets;
    copy_settings(s, settings);
    s->sessions = ag_tls_sessions_new(settings->session_cache);
    if (settings->client_ca.len > 0) {
        s->client_ca = ag_tls_authorities_new(settings->client_ca);
        *out_why = "no authority for client certificates can be used";
    }
    if ((settings->client_ca.len > 0 && !s->client_ca) || !make_contexts(s, settings, out_why)) {
        ag_tls_server_release(s);
        return NULL;
    }
    return s;
}

struct ag_tls_server *ag_tls_server_hold(struct ag_tls_server *s)
{
    if (s) {
        atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    }
    return s;
}

void ag_tls_server_release(struct ag_tls_server *s)
{
    if (!s || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) > 1) {
        return;
    }
    for (size_t i = 0; s->contexts && i < (size_t)s->shard_count * s->settings.identity_count * 2;
         i++) {
        wolfSSL_CTX_free(s->contexts[i].ctx);
        ag_tls_free(s->contexts[i].response);
    }
    for (uint32_t i = 0; i < s->settings.identity_count; i++) {
        ag_tls_free(s->identities[i].response);
    }
    ag_tls_authorities_free(s->client_ca);
    ag_tls_sessions_free(s->sessions);
    pthread_mutex_destroy(&s->lock);
    ag_arena_release(&s->arena);
    free(s);
}

uint32_t ag_tls_server_handshake_ms(const struct ag_tls_server *s)
{
    return s->settings.handshake_ms;
}

uint32_t ag_tls_server_client_depth(const struct ag_tls_server *s)
{
    return s->settings.client_depth;
}

bool ag_tls_server_takes(const struct ag_tls_server *s, const uint8_t *mark)
{
    return s && s->client_ca && mark && ag_tls_authorities_have(s->client_ca, mark);
}

const struct ag_tls_authorities *ag_tls_server_client_ca(const struct ag_tls_server *s)
{
    return s->client_ca;
}

#endif
