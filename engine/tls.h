/*
 * tls: TLS on a socket, as a stream. The protocol above sees a stream as it sees a plain one.
 *
 *   protocol  --ag_stream-->  ag_tls: records  --ag_stream-->  ag_conn: socket
 *
 *   HELLO --ClientHello read: context chosen--> HANDSHAKE --done--> OPEN --finish--> ENDING --> closed
 *         \-- malformed, plain HTTP, late: an alert or a clear 400, then closed --/
 *
 * The library works over memory (its I/O callbacks): received slices are what it reads, what it writes goes into
 * blocks of the connection's output, flushed once a turn. Records begin small, so that the first bytes of an
 * answer need no second packet, and grow to 16k. A close_notify ends the output; input that ends without
 * one is a truncation (AG_REASON_EOF while something was under way). Handshake memory is given back after
 * it. The handshake has its own deadline; the user's callbacks come after it alone.
 */
#pragma once
#include "engine/conn.h"
#include "engine/tls_context.h"

struct ag_tls;

/* The library's part and what is of no interest outside; see tls.c. */
struct ag_tls {
    struct ag_stream stream;      /* first: a stream of this kind is an ag_tls */
    struct ag_conn conn;          /* below; its user is this */
    void *ssl;                    /* WOLFSSL */
    void *more;                   /* what only some connections need: see tls.c */
    struct ag_tls_server *server; /* held during the handshake */
    void (*ready)(struct ag_tls *);
    struct ag_chain in; /* received records, not yet read by the library */
    struct ag_tls_session session;
    uint32_t shard;
    uint8_t state;
    uint8_t reason;
};

static inline struct ag_tls *ag_tls_of(struct ag_stream *s)
{
    return ag_container_of(s, struct ag_tls, stream);
}

/* Takes over an accepted descriptor and begins the handshake. `ready` is called once when it is done, with
 * t->session filled in; the user's on_data and so on come after it alone. A handshake that fails ends in
 * on_close without `ready`. */
void ag_tls_accept(struct ag_tls *t, struct ag_loop *l, int fd, struct ag_tls_server *server,
                   uint32_t shard, const struct ag_stream_user *user,
                   void (*ready)(struct ag_tls *));

/* Connects and shakes hands; `host` is for SNI and verification where the settings say nothing else. `ready`
 * and on_close as above. `resume` may hold a session of an earlier connection (tls_context.c keeps it). */
void ag_tls_connect(struct ag_tls *t, struct ag_loop *l, const union ag_addr *addr,
                    socklen_t addr_len, struct ag_tls_client *client, struct ag_span host,
                    const struct ag_stream_user *user, void (*ready)(struct ag_tls *),
                    enum ag_buf_group group);

/* What the library's allocator has given out on this thread's behalf, bytes; for metrics and bounds. */
uint64_t ag_tls_memory_bytes(void);
