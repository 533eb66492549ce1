#include "tests/sim/tls.h"

#include "tests/sim/chance.h"
#include "tests/sim/tls_certs.h"

#include <errno.h>
#include <openssl/err.h>

#define PIECE_MAX  4096u
#define RECORD_MAX 16384u
#define SESSIONS   8u
/* A ClientHello is no older on the way than the server allows, which is 10 s. */
#define HELLO_FRESH_US (8 * SIM_S)
/* What a record adds to its content, and a key update before it. */
#define OVERHEAD    128u
#define TICKET_KEYS 80u /* bytes */
/* Of 1000 writes so many have a new key before them. */
#define KEY_UPDATES 5u

/* A session that a client may come back with. */
struct kept {
    SSL_SESSION *session;
    uint32_t generation; /* of the certificate that was shown */
    uint32_t settings;   /* that may have held */
    uint32_t keys;       /* turns of the server's ticket keys, when it came */
    uint32_t
        keys_least; /* the same, before its connection began: it may have been long on the way */
    uint64_t under_way_us; /* at most */
    bool named;
};

struct tls_end_state {
    struct net_end *end;
    SSL *ssl;
    BIO *in, *out;
    struct tls_ways ways;
    const struct kept *offered; /* NULL: none */
    struct kept tried;          /* a copy of it */
    uint32_t generation;        /* seen, or of what was resumed */
    uint32_t settings;          /* that may hold */
    uint32_t keys;              /* turns of ticket keys when it began */
    uint64_t begun_us;
    uint32_t record_max;
    uint64_t sent;
    bool client, named;
    bool open;   /* the handshake is done */
    bool failed; /* nothing goes any more */
    bool eof;    /* the peer's close_notify has come */
    bool shut_owed;
    struct tls_end_state *next;
};

static SSL_CTX *client_ctx, *upstream_ctx, *stranger_ctx;
static struct identity shown[3]; /* by enum tls_shown */

/* The run's. */
static struct sim *sim;
static struct tls_end_state *ends;
static struct kept sessions[SESSIONS];
static uint32_t session_count;
static uint32_t key_turns;

static struct tls_end_state *of(const struct net_end *e)
{
    return e->layer_state;
}

/* ---- what the server shows ---- */

/* NAME-GENERATION of the certificate; fails the run when it is not of the name that was asked for. */
static uint32_t generation_of(const struct tls_end_state *t)
{
    X509 *cert = SSL_get1_peer_certificate(t->ssl);
    char name[64] = "";

    if (!cert ||
        X509_NAME_get_text_by_NID(X509_get_subject_name(cert), NID_commonName, name,
                                  sizeof(name)) <= 0 ||
        strncmp(name, "sim-", 4) != 0) {
        sim_fail(sim, "conn %u: the server shows a certificate of \"%s\"", t->end->conn->id, name);
    }
    X509_free(cert);
    return (uint32_t)(name[4] - '0');
}

static void check_resumed(struct tls_end_state *t)
{
    if (!t->offered || t->tried.named != t->named) {
        sim_fail(sim, "conn %u: a session of another name is resumed", t->end->conn->id);
    }
    if (t->keys - t->tried.keys >= TLS_TICKET_KEYS && SSL_SESSION_has_ticket(t->tried.session)) {
        sim_fail(sim, "conn %u: a ticket is opened that is %u keys old", t->end->conn->id,
                 t->keys - t->tried.keys);
    }
    if (!(t->settings & t->tried.settings)) {
        sim_fail(sim, "conn %u: a session of other settings is resumed: %x, %x", t->end->conn->id,
                 t->tried.settings, t->settings);
    }
    t->generation = t->tried.generation;
}

/* What came with the certificate. */
static void check_status(const struct tls_end_state *t)
{
    const uint8_t *der = NULL;
    long len = SSL_get_tlsext_status_ocsp_resp(t->ssl, &der);

    if (t->ways.asks_status) {
        t->ways.stapled(t->end, t->generation, ag_span(der, len > 0 ? (size_t)len : 0));
    } else if (len > 0) {
        sim_fail(sim, "conn %u: a response that was not asked for", t->end->conn->id);
    }
}

/* Whether nothing stands against it that a ticket which was offered is good. Of TLS 1.3 a ClientHello tells how old it
 * is, from when the ticket came: one that was long on the way may be an old one that is sent again (RFC 8446 section
 * 8.3). */
static bool should_resume(const struct tls_end_state *t, uint32_t allowed)
{
    const struct kept *k = &t->tried;

    return sim->now_us - t->begun_us + k->under_way_us < HELLO_FRESH_US && t->offered &&
           t->ways.resumes && t->ways.harm == TLS_SOUND && allowed == 1u << k->generation &&
           k->named == t->named && k->keys_least == key_turns &&
           SSL_SESSION_has_ticket(k->session) && SSL_SESSION_is_resumable(k->session) &&
           SSL_SESSION_get_protocol_version(k->session) == SSL_version(t->ssl) &&
           !(SSL_get_options(t->ssl) & SSL_OP_NO_TICKET);
}

static void on_client_open(struct tls_end_state *t)
{
    uint32_t allowed = t->ways.generations(t->end);
    bool resumed = SSL_session_reused(t->ssl);

    t->settings = t->ways.settings(t->end);
    if (resumed) {
        check_resumed(t);
    } else {
        t->generation = generation_of(t);
        check_status(t);
    }
    if (!resumed && should_resume(t, allowed)) {
        sim_fail(sim, "conn %u: a good ticket of %s is not taken, %ld s old", t->end->conn->id,
                 SSL_get_version(t->ssl),
                 (long)(time(NULL) - SSL_SESSION_get_time(t->tried.session)));
    }
    sim_note(sim, resumed ? "tls: resumed" : "tls: open", t->end->conn->id, t->generation);
    if (!(allowed & 1u << t->generation)) {
        sim_fail(sim, "conn %u: settings of generation %u, which are not served (%x), resumed: %d",
                 t->end->conn->id, t->generation, allowed, resumed);
    }
}

/* From OpenSSL: one may come with a handshake, or behind it. The reference is ours when 1 is returned. */
static int on_session(SSL *ssl, SSL_SESSION *session)
{
    const struct tls_end_state *t = SSL_get_app_data(ssl);
    struct kept *k;

    if (t->ways.passes) {
        return 0;
    }
    k = &sessions[session_count++ % SESSIONS];
    SSL_SESSION_free(k->session);
    *k = (struct kept){.session = session,
                       .generation = t->open ? t->generation : generation_of(t),
                       .settings = t->open ? t->settings : t->ways.settings(t->end),
                       .keys = key_turns,
                       .keys_least = t->keys,
                       .under_way_us = sim->now_us - t->begun_us,
                       .named = t->named};
    return 1;
}

/* ---- bytes ---- */

static void fail(struct tls_end_state *t)
{
    unsigned long error = ERR_peek_last_error();
    const char *why = error ? ERR_reason_error_string(error) : NULL;

    t->failed = true;
    sim_note(sim, why ? why : "tls: fails", t->end->conn->id, t->open);
    ERR_clear_error();
}

/* What becomes of `len` bytes that go out. False: they are not to go. */
static bool harm(struct tls_end_state *t, uint8_t *bytes, size_t len)
{
    uint64_t from = t->sent;

    t->sent += len;
    if (t->ways.harm == TLS_SPOIL && t->ways.harm_at >= from && t->ways.harm_at < t->sent) {
        sim_note(sim, "tls: spoils", t->end->conn->id, t->ways.harm_at);
        bytes[t->ways.harm_at - from] ^= (uint8_t)(1 + sim_below(sim, 255));
    }
    return t->ways.harm != TLS_SILENCE || t->sent < t->ways.harm_at;
}

/* Sends what OpenSSL has written, as far as there is room. */
static void flush(struct tls_end_state *t)
{
    uint8_t piece[PIECE_MAX];

    for (;;) {
        size_t max = ag_min_size(net_raw_room(t->end), sizeof(piece));
        int n = max > 0 && BIO_pending(t->out) > 0 ? BIO_read(t->out, piece, (int)max) : 0;

        if (n <= 0) {
            break;
        }
        if (harm(t, piece, (size_t)n)) {
            AG_ASSERT(net_raw_write(t->end, piece, (size_t)n) == n);
        }
    }
    if (t->shut_owed && BIO_pending(t->out) == 0) {
        t->shut_owed = false;
        net_raw_shut(t->end);
    }
}

/* Takes what has arrived: 1, or as net_raw_read. */
static int64_t take(struct tls_end_state *t)
{
    uint8_t piece[PIECE_MAX];
    int64_t n = net_raw_read(t->end, piece, sizeof(piece));

    if (n > 0) {
        AG_ASSERT(BIO_write(t->in, piece, (int)n) == n);
        return 1;
    }
    return n;
}

/* ---- the handshake ---- */

static void on_open(struct tls_end_state *t)
{
    if (t->client && t->ways.passes) {
        sim_note(sim, "tls: passes", t->end->conn->id, 0);
    } else if (t->client) {
        on_client_open(t);
    } else {
        sim_note(sim, SSL_session_reused(t->ssl) ? "tls: upstream resumed" : "tls: upstream open",
                 t->end->conn->id, 0);
    }
    t->open = true;
}

static void shake(struct tls_end_state *t)
{
    while (!t->open && !t->failed) {
        int rc = SSL_do_handshake(t->ssl);

        flush(t);
        if (rc == 1) {
            on_open(t);
        } else if (SSL_get_error(t->ssl, rc) != SSL_ERROR_WANT_READ) {
            fail(t);
        } else {
            int64_t n = take(t);

            if (n == -EAGAIN) {
                return;
            }
            t->failed = n <= 0;
        }
    }
}

/* ---- struct net_layer ---- */

static void layer_notify(struct net_end *e)
{
    if (e->conn->state == NET_OPEN) {
        flush(of(e));
        shake(of(e));
    }
}

static int64_t layer_write(struct net_end *e, const void *ptr, size_t len)
{
    struct tls_end_state *t = of(e);
    size_t room;

    if (e->dead) {
        return net_raw_write(e, ptr, len);
    }
    if (t->failed || e->shut) {
        return -EPIPE;
    }
    flush(t);
    room = net_raw_room(e);
    if (!t->open || BIO_pending(t->out) > 0 || room <= OVERHEAD) {
        return -EAGAIN;
    }
    if (t->client && SSL_version(t->ssl) == TLS1_3_VERSION && sim_chance(sim, KEY_UPDATES)) {
        AG_ASSERT(SSL_key_update(t->ssl, SSL_KEY_UPDATE_REQUESTED) == 1);
    }
    len = ag_min_size(ag_min_size(len, t->record_max), room - OVERHEAD);
    if (SSL_write(t->ssl, ptr, (int)len) != (int)len) {
        fail(t);
        return -EPIPE;
    }
    flush(t);
    return (int64_t)len;
}

static int64_t layer_read(struct net_end *e, void *buf, size_t len)
{
    struct tls_end_state *t = of(e);

    while (t->open && !t->failed && !t->eof) {
        int rc = SSL_read(t->ssl, buf, (int)len), error = SSL_get_error(t->ssl, rc);
        int64_t n;

        flush(t);
        if (rc > 0) {
            return rc;
        }
        if (error == SSL_ERROR_ZERO_RETURN) {
            t->eof = true;
        } else if (error != SSL_ERROR_WANT_READ) {
            fail(t);
        } else if ((n = take(t)) < 0) {
            return n;
        } else if (n == 0) {
            sim_note(sim, "tls: truncated", e->conn->id, 0);
            t->failed = true;
        }
    }
    return t->failed ? -ECONNRESET : t->eof ? 0 : -EAGAIN;
}

static bool layer_has_input(const struct net_end *e)
{
    const struct tls_end_state *t = of(e);

    return t->failed || t->eof ||
           (t->open && (SSL_pending(t->ssl) > 0 || BIO_pending(t->in) > 0 || net_raw_has_input(e)));
}

static bool layer_has_room(const struct net_end *e)
{
    const struct tls_end_state *t = of(e);

    return t->failed || (t->open && BIO_pending(t->out) == 0 && net_raw_room(e) > OVERHEAD);
}

/* A session stays good, however its connection ended (RFC 8446 section 6.1). */
static void release(struct tls_end_state *t)
{
    if (t->ssl) {
        SSL_set_shutdown(t->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
        SSL_free(t->ssl);
        t->ssl = NULL;
    }
}

/* A close_notify; the end of the pipe follows it. */
static void layer_shut(struct net_end *e)
{
    struct tls_end_state *t = of(e);

    if (!e->shut && !e->dead) {
        e->shut = true;
        t->shut_owed = true;
        if (t->open && !t->failed) {
            (void)SSL_shutdown(t->ssl);
        }
        flush(t);
    }
}

static void layer_close(struct net_end *e)
{
    if (!e->reset_on_close) {
        layer_shut(e); /* what finds no room is lost, as nobody waits for it */
    }
    release(of(e));
}

static const struct net_layer layer = {
    .write = layer_write,
    .read = layer_read,
    .has_input = layer_has_input,
    .has_room = layer_has_room,
    .shut = layer_shut,
    .notify = layer_notify,
    .close = layer_close,
};

/* ---- the beginning of one ---- */

static struct tls_end_state *begin(struct net_end *e, SSL_CTX *ctx)
{
    struct tls_end_state *t = sim_alloc(sim, sizeof(*t));

    t->end = e;
    t->begun_us = sim->now_us;
    t->ssl = SSL_new(ctx);
    t->in = BIO_new(BIO_s_mem());
    t->out = BIO_new(BIO_s_mem());
    AG_ASSERT(t->ssl && t->in && t->out);
    SSL_set_bio(t->ssl, t->in, t->out);
    (void)SSL_set_app_data(t->ssl, t);
    BIO_set_mem_eof_return(t->in, -1);
    t->record_max = sim_chance(sim, 500) ? (uint32_t)sim_between(sim, 512, RECORD_MAX) : RECORD_MAX;
    AG_ASSERT(SSL_set_max_send_fragment(t->ssl, t->record_max) == 1);
    t->next = ends;
    ends = t;
    e->layer = &layer;
    e->layer_state = t;
    return t;
}

static void offer_session(struct tls_end_state *t)
{
    uint32_t count = (uint32_t)ag_min_size(session_count, SESSIONS);
    const struct kept *k = count > 0 ? &sessions[sim_below(sim, count)] : NULL;

    /* OpenSSL does not offer one that has met a fatal alert. */
    if (k && SSL_SESSION_is_resumable(k->session) && sim_chance(sim, 800)) {
        t->offered = k;
        t->tried = *k;
        AG_ASSERT(SSL_SESSION_up_ref(t->tried.session) == 1 &&
                  SSL_set_session(t->ssl, t->tried.session) == 1);
    }
}

void tls_connect(struct net_end *e, const struct tls_ways *ways)
{
    /* P-521 is not the server's: it asks for another ClientHello. */
    static const char *const groups[] = {"P-256", "P-256:P-384", "P-521:P-256"};
    static const uint8_t h2[] = "\x02h2\x08http/1.1", h1[] = "\x08http/1.1";
    struct tls_end_state *t = begin(e, client_ctx);

    t->client = true;
    t->ways = *ways;
    t->keys = key_turns;
    t->named = !ways->passes && sim_chance(sim, 700);
    SSL_set_connect_state(t->ssl);
    AG_ASSERT(SSL_set1_groups_list(t->ssl, groups[sim_below(sim, AG_COUNT(groups))]) == 1);
    if (sim_chance(sim, 350)) {
        AG_ASSERT(SSL_set_max_proto_version(t->ssl, TLS1_2_VERSION) == 1);
        (void)SSL_set_options(t->ssl, sim_chance(sim, 300) ? SSL_OP_NO_TICKET : 0);
    }
    AG_ASSERT(!t->named || SSL_set_tlsext_host_name(t->ssl, "sim.test") == 1);
    AG_ASSERT(!ways->name || SSL_set_tlsext_host_name(t->ssl, ways->name) == 1);
    if (ways->h2) {
        AG_ASSERT(SSL_set_alpn_protos(t->ssl, h2, sizeof(h2) - 1) == 0);
    } else if (sim_chance(sim, 500)) {
        AG_ASSERT(SSL_set_alpn_protos(t->ssl, h1, sizeof(h1) - 1) == 0);
    }
    if (ways->shows) {
        AG_ASSERT(SSL_use_certificate(t->ssl, shown[ways->shows].cert) == 1 &&
                  SSL_use_PrivateKey(t->ssl, shown[ways->shows].key) == 1);
    }
    AG_ASSERT(!ways->asks_status ||
              SSL_set_tlsext_status_type(t->ssl, TLSEXT_STATUSTYPE_ocsp) == 1);
    if (!ways->passes) {
        offer_session(t);
    }
}

void tls_accept(struct net_end *e, bool h2, bool stranger)
{
    struct tls_end_state *t = begin(e, stranger ? stranger_ctx : upstream_ctx);

    t->ways.h2 = h2;
    SSL_set_accept_state(t->ssl);
}

/* The authority is not looked at, which another library has done for the server's own sake. */
static int on_proxy_chain(int good, X509_STORE_CTX *store)
{
    X509 *cert = X509_STORE_CTX_get0_cert(store);
    char name[64] = "";

    (void)good;
    (void)X509_NAME_get_text_by_NID(X509_get_subject_name(cert), NID_commonName, name,
                                    sizeof(name));
    return strcmp(name, "me") == 0;
}

void tls_demand(struct net_end *e)
{
    SSL_set_verify(of(e)->ssl, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, on_proxy_chain);
    AG_ASSERT(SSL_set_session_id_context(of(e)->ssl, (const uint8_t *)"p", 1) == 1);
}

/* ---- runs ---- */

void tls_keys_turn(void)
{
    key_turns++;
}

void tls_begin(struct sim *s)
{
    uint8_t keys[TICKET_KEYS];

    sim = s;
    ends = NULL;
    session_count = key_turns = 0;
    for (size_t i = 0; i < sizeof(keys); i++) {
        keys[i] = (uint8_t)sim_hash(s->seed, 900 + i);
    }
    AG_ASSERT(SSL_CTX_set_tlsext_ticket_keys(upstream_ctx, keys, sizeof(keys)) == 1);
}

void tls_end(void)
{
    for (struct tls_end_state *t = ends; t; t = t->next) {
        release(t);
        SSL_SESSION_free(t->tried.session);
    }
    for (unsigned i = 0; i < SESSIONS; i++) {
        SSL_SESSION_free(sessions[i].session);
        sessions[i] = (struct kept){0};
    }
    ends = NULL;
}

/* ---- once ---- */

/* The protocol that the upstream speaks, if the proxy offers it. */
static int on_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len,
                   const unsigned char *in, unsigned in_len, void *arg)
{
    static const uint8_t h2[] = "\x02h2", h1[] = "\x08http/1.1";
    const struct tls_end_state *t = SSL_get_app_data(ssl);
    const uint8_t *want = t->ways.h2 ? h2 : h1;
    unsigned char *chosen;

    (void)arg;
    if (SSL_select_next_proto(&chosen, out_len, want, want[0] + 1u, in, in_len) !=
        OPENSSL_NPN_NEGOTIATED) {
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    }
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

static SSL_CTX *server_ctx(bool stranger)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    struct identity id = certs_of_upstream(stranger);

    AG_ASSERT(ctx && SSL_CTX_use_certificate(ctx, id.cert) == 1 &&
              SSL_CTX_use_PrivateKey(ctx, id.key) == 1);
    SSL_CTX_set_alpn_select_cb(ctx, on_alpn, NULL);
    (void)SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    X509_free(id.cert);
    EVP_PKEY_free(id.key);
    return ctx;
}

void tls_init(const char *dir)
{
    chance_init();
    certs_init(dir);
    shown[TLS_SHOWS_GOOD] = certs_of_client(false);
    shown[TLS_SHOWS_STRANGER] = certs_of_client(true);
    upstream_ctx = server_ctx(false);
    stranger_ctx = server_ctx(true);
    client_ctx = SSL_CTX_new(TLS_client_method());
    AG_ASSERT(client_ctx);
    (void)SSL_CTX_set_session_cache_mode(client_ctx,
                                         SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(client_ctx, on_session);
}

void tls_deinit(const char *dir)
{
    certs_deinit(dir);
    for (unsigned i = 0; i < AG_COUNT(shown); i++) {
        X509_free(shown[i].cert);
        EVP_PKEY_free(shown[i].key);
    }
    SSL_CTX_free(client_ctx);
    SSL_CTX_free(upstream_ctx);
    SSL_CTX_free(stranger_ctx);
}
