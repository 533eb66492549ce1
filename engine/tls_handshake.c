#include "engine/tls_impl.h"

#if AG_WOLFSSL

#    include "engine/fault.h"
#    include "engine/tls_memory.h"
#    include "engine/tls_verify.h"

#    include <arpa/inet.h>
#    include <wolfssl/options.h>

#    include <wolfssl/error-ssl.h>
#    include <wolfssl/ssl.h>
#    include <wolfssl/wolfcrypt/error-crypt.h>

/* ---- life ---- */

static void on_deadline(struct ag_timer *timer)
{
    struct ag_tls_shake *k = ag_container_of(timer, struct ag_tls_shake, deadline);

    ag_tls_break(k->tls, AG_REASON_TIMEOUT, "the handshake took too long");
}

bool ag_tls_shake_start(struct ag_tls *t, uint32_t handshake_ms)
{
    struct ag_tls_shake *k = AG_SYS_NULL("tls.shake", ag_tls_alloc(sizeof(*k)));

    if (!k) {
        return false;
    }
    memset(k, 0, sizeof(*k));
    k->tls = t;
    ag_tls_hello_init(&k->hello);
    ag_timer_init(&k->deadline, on_deadline);
    ag_loop_arm(t->stream.loop, &k->deadline, handshake_ms);
    t->shake = k;
    return true;
}

void ag_tls_shake_end(struct ag_tls *t)
{
    struct ag_tls_shake *k = t->shake;

    if (k) {
        t->shake = NULL;
        ag_timer_cancel(&t->stream.loop->wheel, &k->deadline);
        ag_block_release(k->tail);
        if (k->context) {
            ag_tls_context_clean(k->context);
        }
        ag_tls_free(k);
    }
    ag_tls_server_release(t->server);
    t->server = NULL;
}

/* ---- refusals before the library is asked ---- */

static const char plain_answer[] = "HTTP/1.1 400 Bad Request\r\n"
                                   "Content-Type: text/plain; charset=utf-8\r\n"
                                   "Content-Length: 55\r\n"
                                   "Connection: close\r\n\r\n"
                                   "This port speaks TLS: the address begins with https://\n";

_Static_assert(sizeof("This port speaks TLS: the address begins with https://\n") - 1 == 55,
               "its length is told");

/* An alert of level fatal, in a record of its own (RFC 8446 section 6). */
static void send_alert(struct ag_tls *t, uint8_t alert)
{
    const uint8_t record[] = {21, 3, 3, 0, 2, 2, alert};

    if (ag_stream_put(&t->conn.stream, ag_span(record, sizeof(record))) != AG_OK) {
        t->starved = true; /* then without one */
    }
}

static void refuse(struct ag_tls *t, uint8_t alert, const char *why)
{
    if (alert != AG_TLS_ALERT_NONE) {
        send_alert(t, alert);
    }
    ag_tls_fail(t, AG_REASON_TLS, why);
}

static void refuse_hello(struct ag_tls *t, const struct ag_tls_hello *h)
{
    const char *why = h->why;

    if (h->plain_http &&
        ag_stream_put(&t->conn.stream, ag_span(plain_answer, sizeof(plain_answer) - 1)) != AG_OK) {
        why = "plain HTTP on a port that speaks TLS, and no memory to say so";
    }
    refuse(t, h->alert, why);
}

/* ---- the ClientHello ---- */

/* A piece that pins much more than it has, of a hello that comes in pieces, is copied behind the others. */
static enum ag_status keep_hello(struct ag_tls *t, struct ag_slice slice)
{
    struct ag_tls_shake *k = t->shake;
    struct ag_loop *l = t->stream.loop;
    struct ag_slice_node *last = t->in.tail;
    uint8_t *to;

    if (!last || slice.len >= AG_BUF_SMALL_BYTES / 4) {
        return ag_chain_push(&t->in, &l->nodes, slice);
    }
    if (!k->tail || slice.len > k->tail->size - k->tail_used) {
        ag_block_release(k->tail);
        k->tail = ag_loop_buf(l, AG_BUF_SMALL);
        k->tail_used = 0;
    }
    if (!k->tail) {
        ag_slice_release(&slice);
        return AG_ENOMEM;
    }
    to = k->tail->data + k->tail_used;
    memcpy(to, slice.ptr, slice.len);
    k->tail_used += (uint32_t)slice.len;
    size_t len = slice.len;
    ag_slice_release(&slice);
    if (last->slice.owner == k->tail && last->slice.ptr + last->slice.len == to) {
        last->slice.len += len;
        t->in.bytes += len;
        return AG_OK;
    }
    return ag_chain_push(&t->in, &l->nodes,
                         (struct ag_slice){{.ptr = to}, len, ag_block_hold(k->tail)});
}

static bool set_alpn(WOLFSSL *ssl, uint8_t alpn)
{
    char h2[] = "h2", http_11[] = "http/1.1";

    switch ((enum ag_alpn)alpn) {
    case AG_ALPN_H2:
        return wolfSSL_UseALPN(ssl, h2, sizeof(h2) - 1, WOLFSSL_ALPN_FAILED_ON_MISMATCH) ==
               WOLFSSL_SUCCESS;
    case AG_ALPN_HTTP_11:
        return wolfSSL_UseALPN(ssl, http_11, sizeof(http_11) - 1,
                               WOLFSSL_ALPN_FAILED_ON_MISMATCH) == WOLFSSL_SUCCESS;
    case AG_ALPN_NONE:
    case AG_ALPN_ACME:
        break;
    }
    return true;
}

/* Of those that the client names it is taken that was named here before, and is of the size that is wanted. */
static bool set_group(WOLFSSL *ssl, uint16_t group)
{
    return group == 0 || (wolfSSL_UseSupportedCurve(ssl, group) == WOLFSSL_SUCCESS &&
                          wolfSSL_SetTmpEC_DHE_Sz(ssl, group == WOLFSSL_ECC_SECP384R1 ? 48 : 32) ==
                              WOLFSSL_SUCCESS);
}

static bool make_session(struct ag_tls *t, WOLFSSL_CTX *ctx)
{
    t->ssl = ag_tls_memory_is_short() ? NULL : AG_SYS_NULL("tls.session", wolfSSL_new(ctx));
    if (!t->ssl) {
        return false;
    }
    wolfSSL_SetIOReadCtx(t->ssl, t);
    wolfSSL_SetIOWriteCtx(t->ssl, t);
    wolfSSL_SetCertCbCtx(t->ssl, t);
    return true;
}

static void hello_read(struct ag_tls *t)
{
    struct ag_tls_shake *k = t->shake;
    struct ag_tls_choice choice =
        ag_tls_server_choose(t->server, t->shard, &k->hello, t->stream.loop->wall_s);

    if (!choice.context) {
        refuse(t, choice.alert, choice.why);
        return;
    }
    if (!make_session(t, choice.context->ctx) || !set_alpn(t->ssl, choice.alpn) ||
        !set_group(t->ssl, choice.group) ||
        (k->hello.prefers_chacha && wolfSSL_UseClientSuites(t->ssl) != 0)) {
        send_alert(t, AG_TLS_ALERT_INTERNAL_ERROR);
        ag_tls_fail(t, AG_REASON_RESOURCES, "no memory for a session");
        return;
    }
    k->context = choice.context;
    t->session.alpn = choice.alpn;
    t->session.client_cert_asked = choice.context->asked;
    t->session.client_cert_required = choice.cert_required;
    ag_tls_set_state(t, AG_TLS_HANDSHAKE);
    ag_tls_shake_go_on(t);
}

void ag_tls_shake_hello(struct ag_tls *t, struct ag_slice slice)
{
    struct ag_tls_shake *k = t->shake;
    enum ag_status st = ag_tls_hello_read(&k->hello, ag_slice_span(&slice));

    if (keep_hello(t, slice) != AG_OK) {
        ag_tls_break(t, AG_REASON_RESOURCES, NULL);
    } else if (st == AG_OK) {
        hello_read(t);
    } else if (st != AG_AGAIN) {
        refuse_hello(t, &k->hello);
    }
}

struct ag_span ag_tls_name_of(WOLFSSL *ssl)
{
    const struct ag_tls *t = wolfSSL_GetIOReadCtx(ssl);

    return t->shake ? ag_tls_hello_name(&t->shake->hello) : ag_span(NULL, 0);
}

/* ---- the peer's chain ---- */

/* What the library may find wrong with a chain that is judged by us. Anything else, a key that it cannot use
 * above all, would leave the peer unproven. */
static bool is_about_chain(int error)
{
    switch (error) {
    case 0:
    case ASN_NO_SIGNER_E:
    case ASN_SELF_SIGNED_E:
    case ASN_AFTER_DATE_E:
    case ASN_BEFORE_DATE_E:
    case ASN_SIG_CONFIRM_E:
    case ASN_SIG_OID_E:
    case ASN_SIG_KEY_E:
    case ASN_SIG_HASH_E:
    case ASN_PATHLEN_SIZE_E:
    case ASN_PATHLEN_INV_E:
    case ASN_NAME_INVALID_E:
    case KEYUSE_SIGNATURE_E:
    case EXTKEYUSE_AUTH_E:
#    ifdef OPENSSL_EXTRA /* the same by other names, in builds that have OpenSSL's interface */
    case X509_V_ERR_CERT_SIGNATURE_FAILURE:
    case X509_V_ERR_CERT_NOT_YET_VALID:
    case X509_V_ERR_CERT_HAS_EXPIRED:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_INVALID_CA:
    case X509_V_ERR_PATH_LENGTH_EXCEEDED:
#    endif
        return true;
    default:
        return false;
    }
}

static uint32_t take_certs(const WOLFSSL_X509_STORE_CTX *store, struct ag_span out[static 1])
{
    uint32_t n = 0;

    for (int i = 0; i < store->totalCerts && n < AG_TLS_CERTS_MAX; i++) {
        out[n++] = ag_span(store->certs[i].buffer, store->certs[i].length);
    }
    return n;
}

static void describe_client(struct ag_tls_shake *k, struct ag_span leaf)
{
    struct ag_buf subject = ag_buf(k->subject, sizeof(k->subject));
    struct ag_x509 x;

    if (ag_x509_parse(leaf, &x)) {
        ag_x509_put_name(x.subject, &subject);
    }
    k->subject_len = subject.len;
    if (!ag_tls_sha256(leaf, k->sha256)) {
        memset(k->sha256, 0, sizeof(k->sha256));
        k->client_error = "its fingerprint cannot be told";
    }
}

int ag_tls_on_client_chain(int good, WOLFSSL_X509_STORE_CTX *store)
{
    struct ag_tls *t = store->userCtx;
    struct ag_tls_shake *k = t->shake;
    struct ag_span certs[AG_TLS_CERTS_MAX];
    struct ag_tls_chain chain = {.certs = certs, .of_client = true, .mark = k->mark};
    uint64_t refusals = ag_tls_memory_refusals();

    (void)good;
    k->context->tainted |= store->totalCerts > 1;
    if (store->error_depth > 0 || store->totalCerts <= 0) {
        return 1; /* judged with the leaf, which comes last; or the client has none to show */
    }
    if (!is_about_chain(store->error)) {
        return 0;
    }
    chain.count = take_certs(store, certs);
    if (chain.count == 0) {
        return 1; /* it has none to show, which is said in this way, too */
    }
    chain.depth = ag_tls_server_client_depth(t->server);
    k->client_error = ag_tls_chain_judge(ag_tls_server_client_ca(t->server), &chain);
    /* Without memory there is no verdict: the handshake ends, and nothing is held against the client. */
    t->starved |= k->client_error && ag_tls_memory_refusals() != refusals;
    describe_client(k, certs[0]);
    k->client_cert = k->client_error ? AG_TLS_CLIENT_INVALID : AG_TLS_CLIENT_VALID;
    return 1;
}

int ag_tls_on_server_chain(int good, WOLFSSL_X509_STORE_CTX *store)
{
    struct ag_tls *t = store->userCtx;
    struct ag_tls_shake *k = t->shake;
    const struct ag_tls_authorities *authorities = ag_tls_client_authorities(t->client);
    struct ag_span certs[AG_TLS_CERTS_MAX];
    struct ag_tls_chain chain = {.certs = certs, .depth = AG_TLS_CERTS_MAX};

    (void)good;
    if (store->error_depth > 0) {
        return 1;
    }
    if (!is_about_chain(store->error)) {
        return 0;
    }
    chain.count = take_certs(store, certs);
    if (authorities) {
        t->detail = ag_tls_chain_judge(authorities, &chain);
        if (!t->detail && !ag_tls_chain_names(certs[0], k->host)) {
            t->detail = "name does not match";
        }
    }
    k->verified = t->detail == NULL;
    return k->verified;
}

/* ---- done ---- */

static void put_hex(uint8_t *to, const uint8_t *from, size_t n)
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < n; i++) {
        to[2 * i] = (uint8_t)digits[from[i] >> 4];
        to[2 * i + 1] = (uint8_t)digits[from[i] & 15];
    }
}

static struct ag_span append(uint8_t **at, struct ag_span text)
{
    struct ag_span to = ag_span(*at, text.len);

    if (text.len > 0) {
        memcpy(*at, text.ptr, text.len);
        *at += text.len;
    }
    return to;
}

/* What outlives the handshake. False: no memory. */
static bool keep_names(struct ag_tls *t)
{
    const struct ag_tls_shake *k = t->shake;
    struct ag_tls_session *session = &t->session;
    struct ag_span name = t->client ? k->host : ag_tls_hello_name(&k->hello);
    bool cert = k->client_cert != AG_TLS_CLIENT_NONE;
    uint8_t *at = t->names =
        AG_SYS_NULL("tls.names", ag_tls_alloc(name.len + k->subject_len +
                                              (cert ? 64 + sizeof(k->mark) : 0) + 1));

    if (!at) {
        return false;
    }
    session->server_name = append(&at, name);
    if (cert) {
        session->client_subject = append(&at, ag_span(k->subject, k->subject_len));
        put_hex(at, k->sha256, sizeof(k->sha256));
        session->client_sha256 = ag_span(at, 64);
        memcpy(at + 64, k->mark, sizeof(k->mark));
        session->client_mark = at + 64;
        session->client_error = k->client_error;
        session->client_cert = k->client_cert;
    }
    return true;
}

static uint8_t chosen_alpn(WOLFSSL *ssl)
{
    char *name = NULL;
    unsigned short len = 0;
    struct ag_span span;

    if (wolfSSL_ALPN_GetProtocol(ssl, &name, &len) != WOLFSSL_SUCCESS) {
        return AG_ALPN_NONE;
    }
    span = ag_span(name, len);
    return ag_span_eq(span, AG_SPAN("h2"))         ? AG_ALPN_H2
           : ag_span_eq(span, AG_SPAN("http/1.1")) ? AG_ALPN_HTTP_11
                                                   : AG_ALPN_NONE;
}

/* The library may have told the peer that all is over, and gone on. */
static bool has_given_up(WOLFSSL *ssl)
{
    WOLFSSL_ALERT_HISTORY alerts;

    return wolfSSL_get_alert_history(ssl, &alerts) == WOLFSSL_SUCCESS &&
           alerts.last_tx.level == alert_fatal;
}

static void done(struct ag_tls *t)
{
    int suite = wolfSSL_get_current_cipher_suite(t->ssl);
    struct ag_tls_session *session = &t->session;
    struct ag_stream *below = &t->conn.stream;

    session->version = wolfSSL_get_version(t->ssl);
    session->cipher =
        wolfSSL_get_cipher_name_iana_from_suite((byte)(suite >> 8), (byte)(suite & 255));
    session->resumed = wolfSSL_session_reused(t->ssl) != 0;
    session->alpn = t->client ? chosen_alpn(t->ssl) : session->alpn;
    /* A resumed session was verified when it was made: it is kept for this name and these settings alone. */
    if (t->client && !t->shake->verified && !session->resumed) {
        ag_tls_fail(t, AG_REASON_TLS, "the server has shown no certificate");
        return;
    }
    if (has_given_up(t->ssl)) {
        ag_tls_fail(t, AG_REASON_TLS, "certificate that is not taken");
        return;
    }
    if (!keep_names(t) || t->starved) {
        ag_tls_break(t, AG_REASON_RESOURCES, NULL);
        return;
    }
    if (t->client && strcmp(session->version, "TLSv1.3") != 0) {
        wolfSSL_FreeArrays(t->ssl); /* no message is to follow */
    }
    ag_tls_shake_end(t);
    ag_tls_set_state(t, AG_TLS_OPEN);
    ag_task_queue(t->stream.loop,
                  &t->input); /* what has come behind it; or pausing, for nothing has */
    ag_task_queue(t->stream.loop, &t->stream.flush_task); /* what was written meanwhile */
    if (ag_task_queued(&below->flush_task)) { /* tickets leave with the answer to that */
        ag_task_cancel(&below->flush_task);
        ag_task_queue(t->stream.loop, &below->flush_task);
    }
    t->replied_bytes = 0;
    t->ready(t);
}

/* What a server says first is a record with a handshake or an alert (RFC 8446 section 5.1): the library would
 * find fault with the length that it reads out of anything else. */
static bool is_answered_plainly(struct ag_tls *t)
{
    if (!t->client || t->shake->heard || !t->in.head) {
        return false;
    }
    t->shake->heard = true;
    return t->in.head->slice.ptr[0] != 21 && t->in.head->slice.ptr[0] != 22;
}

/* The library reads a certificate's key, and what was signed by it, before we see anything of that. */
static bool is_about_key(int error)
{
    switch (error) {
    case WC_KEY_SIZE_E:
    case RSA_KEY_SIZE_E:
    case ECC_KEY_SIZE_E:
    case SIG_VERIFY_E:
    case PEER_KEY_ERROR:
    case VERIFY_SIGN_ERROR:
    case INVALID_PARAMETER:
        return true;
    default:
        return false;
    }
}

/* A client of TLS 1.3 that does not take our certificate may say so before it encrypts (OpenSSL's does): the library
 * stumbles over that behind the record's head. */
static const char *why_failed(const struct ag_tls *t, int error)
{
    static const uint8_t alert[] = {21, 3, 3, 0, 2}; /* then its level and what it is */
    const struct ag_slice_node *next = t->in.head;

    if (t->session.client_cert_asked && is_about_key(error)) {
        return "the key of the client's certificate cannot be used, or has not signed";
    }
    if (error != PARSE_ERROR || memcmp(t->shake->last, alert, sizeof(alert)) != 0) {
        return ag_tls_why(t->ssl, error);
    }
    return ag_tls_alert_text(next && next->slice.len >= 2 ? next->slice.ptr[1] : -1);
}

void ag_tls_shake_go_on(struct ag_tls *t)
{
    int rc, error;

    if (is_answered_plainly(t)) {
        ag_tls_client_forget(t->client, t->shake->host);
        ag_tls_fail(t, AG_REASON_TLS, "the server answers without TLS");
        return;
    }
    rc = t->client ? wolfSSL_connect(t->ssl) : wolfSSL_accept(t->ssl);
    if (rc == WOLFSSL_SUCCESS) {
        done(t);
        return;
    }
    error = wolfSSL_get_error(t->ssl, rc);
    if (t->starved) {
        ag_tls_break(t, AG_REASON_RESOURCES, NULL);
    } else if (error != WOLFSSL_ERROR_WANT_READ) {
        if (t->client) {
            ag_tls_client_forget(t->client, t->shake->host);
        }
        ag_tls_fail(t, error == MEMORY_E ? AG_REASON_RESOURCES : AG_REASON_TLS,
                    why_failed(t, error));
    }
}

/* ---- the client's beginning ---- */

static bool is_address(const char *host)
{
    struct in6_addr address;

    return inet_pton(AF_INET6, host, &address) == 1 || inet_pton(AF_INET, host, &address) == 1 ||
           host[0] == '[';
}

/* From the library, with each ticket. */
static int on_ticket(WOLFSSL *ssl, const unsigned char *ticket, int len, void *ctx)
{
    struct ag_tls *t = ctx;

    (void)ssl;
    (void)ticket;
    (void)len;
    t->ticket = true;
    return 0;
}

static bool offer(struct ag_tls *t)
{
    const struct ag_tls_client_settings *settings = ag_tls_client_settings_of(t->client);
    struct ag_tls_shake *k = t->shake;
    char both[] = "h2,http/1.1", h2[] = "h2", h1[] = "http/1.1";
    bool has_h2 = settings->h2 && !t->h1_only;
    char *alpn = has_h2 && settings->h1 ? both : has_h2 ? h2 : h1;

    /* Addresses are no server names (RFC 6066 section 3). */
    if (k->host.len > 0 && !is_address(k->host_text) &&
        wolfSSL_UseSNI(t->ssl, WOLFSSL_SNI_HOST_NAME, k->host_text, (unsigned short)k->host.len) !=
            WOLFSSL_SUCCESS) {
        return false;
    }
    if ((has_h2 || settings->h1) &&
        wolfSSL_UseALPN(t->ssl, alpn, (unsigned)strlen(alpn), WOLFSSL_ALPN_CONTINUE_ON_MISMATCH) !=
            WOLFSSL_SUCCESS) {
        return false;
    }
    /* With them goes where the library puts a message together: a ticket may come in several records, too. */
    wolfSSL_KeepArrays(t->ssl);
    (void)wolfSSL_set_SessionTicket_cb(t->ssl, on_ticket, t);
    ag_tls_client_resume(t->client, k->host, t->ssl);
    return true;
}

void ag_tls_shake_connected(struct ag_tls *t)
{
    if (!make_session(t, ag_tls_client_ctx(t->client)) || !offer(t)) {
        ag_tls_break(t, AG_REASON_RESOURCES, "no memory for a session");
        return;
    }
    ag_tls_set_state(t, AG_TLS_HANDSHAKE);
    ag_tls_shake_go_on(t);
}

#endif
