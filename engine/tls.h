/*
 * tls: TLS on a socket, as a stream. The protocol above sees a stream as it sees a plain one.
 *
 *   protocol  --ag_stream-->  ag_tls: records  --ag_stream-->  ag_conn: socket
 *
 *   server:  HELLO --ClientHello read, context chosen--> HANDSHAKE --done: ready--> OPEN
 *   client:  CONNECTING --connected--> HANDSHAKE --done: ready--> OPEN
 *   OPEN --finish--> FLUSHING --all encrypted, close_notify--> ENDING --conn closed--> CLOSED
 *   HELLO, HANDSHAKE --refused, failed, late: an alert or a clear 400--> ENDING
 *   any --abort, error--> ENDING
 *
 * The library works over memory (its I/O callbacks): received slices are what it reads, and what it writes lies in
 * blocks of the connection's output, sent once a turn. Records begin small, so that the first bytes of an
 * answer need no second packet, grow to 16k, and begin small again after a pause. A close_notify ends the
 * output; input that ends without one is a truncation (on_eof does not come: AG_REASON_EOF). Handshake
 * memory is given back after it. The handshake has its own deadline; the user's callbacks come after it
 * alone, but for on_close, which comes once in any case.
 */
#pragma once
#include "engine/conn.h"
#include "engine/tls_context.h"

enum ag_tls_state {
    AG_TLS_HELLO = 0,  /* server: ClientHello is read           -> HANDSHAKE, ENDING */
    AG_TLS_CONNECTING, /* client: connect in flight             -> HANDSHAKE, ENDING */
    AG_TLS_HANDSHAKE,  /*                                       -> OPEN, ENDING */
    AG_TLS_OPEN,       /* both ways                             -> FLUSHING, ENDING */
    AG_TLS_FLUSHING,   /* finish called, output left to encrypt -> ENDING */
    AG_TLS_ENDING,     /* the connection below ends             -> CLOSED */
    AG_TLS_CLOSED,     /* on_close called */
};

struct ag_tls_shake;
struct ag_tls_file;
struct ag_tls_sink;

/* A slot; all but `session` is the implementation's. */
struct ag_tls {
    struct ag_stream stream;      /* first: a stream of this kind is an ag_tls */
    struct ag_conn conn;          /* below; its user is this */
    void *ssl;                    /* WOLFSSL; NULL before the context is chosen and in the end */
    struct ag_tls_shake *shake;   /* of a handshake, until it is over */
    struct ag_tls_file *file;     /* of a file being read, else NULL */
    struct ag_tls_server *server; /* held during the handshake */
    struct ag_tls_client *client; /* held as long as there is a session of it to keep */
    struct ag_tls_sink *sink;     /* while it encrypts, else NULL */
    void (*ready)(struct ag_tls *);
    const char *detail;   /* static: why it failed; NULL: see the reason */
    uint8_t *names;       /* what `session` points to */
    struct ag_chain in;   /* received records, not yet read by the library */
    struct ag_task input; /* goes on with `in` */
    struct ag_tls_session session;
    uint64_t wrote_ms;      /* loop time of the last record with content */
    uint32_t written_bytes; /* since a pause; what record sizes grow by */
    uint32_t shard;
    uint8_t state;  /* enum ag_tls_state */
    uint8_t reason; /* enum ag_reason, given to on_close */
    uint8_t group;  /* enum ag_buf_group wanted by the user */
    bool reading;   /* the user wants data */
    bool fin;       /* the peer's FIN was seen */
    bool notified;  /* the peer's close_notify was seen */
    bool eof;       /* and on_eof has come */
    bool shut;      /* a close_notify is owed (after the output) or sent */
    bool shut_done;
    uint32_t discarded_bytes; /* input since finish */
    uint32_t replied_bytes;   /* what the library sent by itself, since nothing was queued */
    bool starved; /* no node or buffer was left for a record, or no memory to judge a client */
    bool h1_only; /* a client's: whatever its settings are, HTTP/2 is not offered */
    bool ticket;  /* a client's: one has come, of this very connection */
};

static inline struct ag_tls *ag_tls_of(struct ag_stream *s)
{
    return ag_container_of(s, struct ag_tls, stream);
}

/* Takes over an accepted, non-blocking descriptor and begins the handshake. `ready` is called once when it is
 * done, with t->session filled in; the user's on_data and so on come after it alone. A handshake that
 * fails ends in on_close without `ready`: AG_REASON_TLS, or as a plain connection would.
 *   server  held until the handshake is over
 *   shard   which of the server's contexts is this thread's */
void ag_tls_accept(struct ag_tls *t, struct ag_loop *l, int fd, struct ag_tls_server *server,
                   uint32_t shard, const struct ag_stream_user *user,
                   void (*ready)(struct ag_tls *));

/* The same on t->conn, which is open and was read by another user until now; nothing else of `t` needs to be set.
 *   rest  what that user has received of the handshake; may be empty */
void ag_tls_adopt(struct ag_tls *t, struct ag_tls_server *server, uint32_t shard,
                  const struct ag_stream_user *user, void (*ready)(struct ag_tls *),
                  struct ag_slice rest);

/* Connects and shakes hands; the user may write before `ready`. on_close as above, or with the reason of the
 * connect that failed. Where verification is on, `ready` comes only after it.
 * t->h1_only may be set behind it.
 *   client  held as long as the connection lives
 *   host    name or address, for SNI and verification where the settings give no server_name; copied */
void ag_tls_connect(struct ag_tls *t, struct ag_loop *l, const union ag_addr *addr,
                    socklen_t addr_len, struct ag_tls_client *client, struct ag_span host,
                    const struct ag_stream_user *user, void (*ready)(struct ag_tls *),
                    enum ag_buf_group group);

/* Right after ag_tls_connect: what goes to the server in clear, before the handshake. AG_ENOMEM. */
AG_MUST_USE enum ag_status ag_tls_put_before(struct ag_tls *t, struct ag_span bytes);

/* Why the handshake or the encrypted stream failed, a short static phrase for logs: "certificate has expired",
 * "no common cipher"; NULL when there is no more to say than the reason does. Valid in on_close too. */
static inline const char *ag_tls_detail(const struct ag_tls *t)
{
    return t->detail;
}
