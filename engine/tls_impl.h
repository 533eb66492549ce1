/*
 * tls_impl: what the files of ag_tls share. Private to engine/tls*.c.
 *
 *   tls.c            the stream: states, the connection below, the end
 *   tls_handshake.c  from the first byte to `ready`
 *   tls_write.c      output: records, files
 *   tls_read.c       input
 *   tls_context.c    the library's contexts, tls_client.c those of upstreams, tls_server.c which one to take
 */
#pragma once
#include "engine/file.h"
#include "engine/tls.h"
#include "engine/tls_chain.h"
#include "engine/tls_hello.h"

#if AG_WOLFSSL
#    include <stdatomic.h>

/* The library's own; its headers are for the .c files. */
typedef struct WOLFSSL WOLFSSL;
typedef struct WOLFSSL_CTX WOLFSSL_CTX;
typedef struct WOLFSSL_X509_STORE_CTX WOLFSSL_X509_STORE_CTX;

#    define AG_TLS_SUBJECT_MAX 512u
#    define AG_TLS_HOST_MAX    255u
#    define AG_TLS_CERTS_MAX   10u

/* ---- contexts ---- */

/* One of a server's: a shard's, for one identity. Used by that shard alone. */
struct ag_tls_context {
    WOLFSSL_CTX *ctx; /* NULL: not made, for no client gets it */
    struct ag_tls_server *server;
    uint32_t identity;
    bool asked;        /* client certificates are asked for */
    bool tainted;      /* the library has kept certificates of a peer */
    bool stapling;     /* switched on */
    uint32_t staple;   /* generation of the response below */
    uint8_t *response; /* OCSP, DER; malloc */
    size_t response_len;
    int64_t response_until_s;
};

/* What a ClientHello gets. */
struct ag_tls_choice {
    struct ag_tls_context *context; /* NULL: it is refused, with `alert` */
    uint8_t alpn;                   /* enum ag_alpn */
    uint8_t alert;                  /* enum ag_tls_alert */
    uint16_t group;                 /* what ECDHE is to be on; 0: what the library chooses */
    bool cert_required;             /* as ag_tls_session.client_cert_required */
    const char *why;                /* static; of a refusal */
};

/* Which context, for shard `shard`. `wall_s`: now, for stapled responses. */
struct ag_tls_choice ag_tls_server_choose(struct ag_tls_server *s, uint32_t shard,
                                          const struct ag_tls_hello *hello, int64_t wall_s);
uint32_t ag_tls_server_handshake_ms(const struct ag_tls_server *s);
uint32_t ag_tls_server_client_depth(const struct ag_tls_server *s);
const struct ag_tls_authorities *ag_tls_server_client_ca(const struct ag_tls_server *s);
/* A handshake on it is over: forgets what the library has kept of the peer's certificates. */
void ag_tls_context_clean(struct ag_tls_context *c);

WOLFSSL_CTX *ag_tls_client_ctx(const struct ag_tls_client *c);
const struct ag_tls_client_settings *ag_tls_client_settings_of(const struct ag_tls_client *c);
const struct ag_tls_authorities *ag_tls_client_authorities(const struct ag_tls_client *c);
/* Offers the session that was kept for `host`, if there is one. Any thread. */
void ag_tls_client_resume(struct ag_tls_client *c, struct ag_span host, WOLFSSL *ssl);
/* Drops it: the handshake that it was for has failed. */
void ag_tls_client_forget(struct ag_tls_client *c, struct ag_span host);
/* Keeps the session of a connection that ends. `ticket`: one has come on it. Any thread. */
void ag_tls_client_keep(struct ag_tls_client *c, struct ag_span host, WOLFSSL *ssl, bool ticket);

/* For contexts: the I/O callbacks (their context is the ag_tls), and the one that is shown a peer's chain. */
int ag_tls_on_recv(WOLFSSL *ssl, char *to, int room, void *ctx);
int ag_tls_on_send(WOLFSSL *ssl, char *from, int len, void *ctx);
int ag_tls_on_client_chain(int good, WOLFSSL_X509_STORE_CTX *store);
int ag_tls_on_server_chain(int good, WOLFSSL_X509_STORE_CTX *store);
/* The server name that a ticket is bound to. */
struct ag_span ag_tls_name_of(WOLFSSL *ssl);

/* What both kinds of contexts have in common. False: with *out_why. */
AG_MUST_USE bool ag_tls_ctx_prepare(WOLFSSL_CTX *ctx, enum ag_tls_profile profile,
                                    const char **out_why);
AG_MUST_USE bool ag_tls_ctx_identity(WOLFSSL_CTX *ctx, const struct ag_tls_identity *id,
                                     const char **out_why);
/* Why a call of the library's failed, a static phrase: its own text, or the alert that has come. */
const char *ag_tls_why(WOLFSSL *ssl, int error);
const char *ag_tls_alert_text(int alert);

/* ---- a handshake ---- */

/* Lives from the first byte to `ready`. */
struct ag_tls_shake {
    struct ag_tls *tls;
    struct ag_timer deadline;
    struct ag_tls_hello hello; /* server */
    struct ag_tls_context *context;
    struct ag_span host; /* client: what is verified, in host_text */
    char host_text[AG_TLS_HOST_MAX + 1];
    bool verified; /* client: the chain and the name are good, or need not be */
    bool heard;    /* client: the server has said something */
    uint8_t client_cert;
    const char *client_error;
    uint8_t subject[AG_TLS_SUBJECT_MAX];
    size_t subject_len;
    uint8_t sha256[32];
    uint8_t mark[AG_TLS_MARK_BYTES]; /* of the authority of a client's that is good */
    uint8_t last[5];                 /* bytes that the library was given: a record's head */
    struct ag_block *tail;           /* where small pieces of a ClientHello are put together */
    uint32_t tail_used;
};

/* Begins with the first bytes (server) or a ClientHello of ours (client). False: no memory. */
AG_MUST_USE bool ag_tls_shake_start(struct ag_tls *t, uint32_t handshake_ms);
void ag_tls_shake_hello(struct ag_tls *t, struct ag_slice slice);
void ag_tls_shake_connected(struct ag_tls *t);
/* Goes on with what has come. */
void ag_tls_shake_go_on(struct ag_tls *t);
/* Gives back all that only a handshake needs; harmless when there is nothing. */
void ag_tls_shake_end(struct ag_tls *t);

/* ---- the stream ---- */

void ag_tls_set_state(struct ag_tls *t, enum ag_tls_state next);
/* Ends it, in order below: what lies in the connection (an alert) is still sent. */
void ag_tls_fail(struct ag_tls *t, enum ag_reason why, const char *detail);
/* Ends it at once; the peer gets a reset where what it has is not whole. */
void ag_tls_break(struct ag_tls *t, enum ag_reason why, const char *detail);

/* ---- output ---- */

/* Where large records are put; on the stack of who writes. */
struct ag_tls_sink {
    struct ag_block *block; /* NULL: none, records are copied */
    uint32_t used;
};

/* A file that is being read ahead of. */
struct ag_tls_file {
    struct ag_file_op op;
    struct ag_tls *tls;     /* NULL: its stream is gone, the last completion frees this */
    struct ag_block *owner; /* the file, held while it is read */
    struct ag_block *block; /* what is read lies here; NULL: nothing */
    uint32_t head;          /* bytes of the queue before the file, to be put before what is read */
    uint32_t from, to;      /* plain bytes in the block, ready to be encrypted */
    bool reading;
};

/* Encrypts what is queued, as long as the connection below takes it; then what finish and shut owe. */
void ag_tls_write_go_on(struct ag_tls *t);
/* The connection below has sent some. */
void ag_tls_write_sent(struct ag_tls *t);
/* Gives back what output needs; what is being read is left to its completion. */
void ag_tls_write_end(struct ag_tls *t);

/* ---- input ---- */

/* Decrypts what has come, as long as the user reads. */
void ag_tls_read_go_on(struct ag_tls *t);
#endif
