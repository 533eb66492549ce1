/*
 * conn: a plain socket as a stream. Owns the descriptor, one receive and one send in flight.
 *
 * An idle one is to be small: what only a send needs comes from a pool of the loop's and goes back there.
 *
 * Sending: flush takes up to AG_CONN_IOV memory slices into one sendmsg, or one file slice into
 * sendfile; head and first bytes leave together (MSG_MORE before a file). The slices are released
 * when the kernel has taken the bytes.
 */
#pragma once
#include "engine/stream.h"

#define AG_CONN_IOV 64u

/* A lingering close discards at most this much input, for at most this long (RFC 9112 9.6). */
#define AG_CONN_LINGER_BYTES (256u * 1024u)
#define AG_CONN_LINGER_MS    2000u

enum ag_conn_state {
    AG_CONN_CONNECTING = 0, /* connect in flight             -> OPEN, CLOSING */
    AG_CONN_OPEN,           /* both ways                     -> FLUSHING, CLOSING */
    AG_CONN_FLUSHING,       /* finish called, output left    -> LINGERING, CLOSING */
    AG_CONN_LINGERING,      /* FIN sent, input discarded     -> CLOSING */
    AG_CONN_CLOSING,        /* ops being cancelled           -> CLOSED */
    AG_CONN_CLOSED,         /* on_close called */
};

/* A send in flight, or one that goes on with the next flush. It holds a slice at least: there are as many
 * in the loop's pool as slices. */
struct ag_conn_send {
    struct ag_write wr;     /* send, sendfile; memory: `chain` */
    struct ag_chain chain;  /* what the kernel may still read */
    struct ag_block *block; /* struct ag_conn_iov of a gathered send, while in flight */
    struct ag_conn *conn;
};

struct ag_conn {
    struct ag_stream stream; /* first: a stream of this kind is a conn */
    struct ag_fd fd;
    struct ag_op
        rd; /* connect; then recv; memory: the loop's buffers; final: end, error, cancelled */
    union {
        struct ag_conn_send *send;           /* NULL: nothing is being sent */
        void (*connected)(struct ag_conn *); /* while `rd` is the connect */
    };
    uint32_t lingered_bytes; /* input discarded since finish */
    uint8_t state;           /* enum ag_conn_state */
    uint8_t reason;     /* enum ag_reason, given to on_close; set while OPEN: sending has failed */
    uint8_t group;      /* enum ag_buf_group wanted */
    bool reading   : 1; /* the user wants data */
    bool eof       : 1; /* the peer's FIN was seen */
    bool shut      : 1; /* a FIN is owed (after the output) or sent */
    bool shut_done : 1;
};

/* Takes over an accepted, non-blocking descriptor and starts reading in small buffers. */
void ag_conn_accept(struct ag_conn *c, struct ag_loop *l, int fd,
                    const struct ag_stream_user *user);

/* Connects to `addr`; `connected` is called once when that succeeds (then reading starts in `group`);
 * failure comes by on_close with the reason. The deadline of the stream works meanwhile. Errors found
 * at once (no descriptor) come by on_close too, from the loop. */
void ag_conn_connect(struct ag_conn *c, struct ag_loop *l, const union ag_addr *addr,
                     socklen_t addr_len, const struct ag_stream_user *user,
                     void (*connected)(struct ag_conn *), enum ag_buf_group group);

static inline bool ag_conn_is_sending(const struct ag_conn *c)
{
    return c->state != AG_CONN_CONNECTING && c->send && ag_op_in_flight(&c->send->wr.op);
}

/* All output has gone, for good, and as far as the network; or it is being closed. An abort cuts nothing any more. */
bool ag_conn_is_through(const struct ag_conn *c);

static inline struct ag_conn *ag_conn_of(struct ag_stream *s)
{
    return ag_container_of(s, struct ag_conn, stream);
}

/* The peer's address (getpeername) and ours; the family is AF_UNSPEC when the system will not say. */
void ag_conn_peer(const struct ag_conn *c, union ag_addr *out_addr);
void ag_conn_local(const struct ag_conn *c, union ag_addr *out_addr);
