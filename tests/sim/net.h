/*
 * net: simulated TCP over IPv4: listeners with accept queues, connections of two pipes.
 *
 *   end 0 (who connected)                                       end 1 (who accepted)
 *     net_write -> [ sent, on the way ][ arrived, not taken ] -> net_read        pipe 0
 *     net_read  <- [ arrived, not taken ][ sent, on the way ] <- net_write       pipe 1
 *
 * What is on the way arrives in pieces, late, or after a stall, as the connection's profile says; a
 * sender has room for what is on the way, a receiver for what has arrived. Resets overtake data; a
 * close with unread input, or with input still to come, is a reset (RFC 1122 4.2.2.13, as Linux does).
 *
 * `notify` of an end says that something about it changed; it comes from events alone, never from
 * within a call on that end or its peer.
 *
 * An end may have a layer (tls.h): what its owner reads and writes is then what the layer makes of the bytes that
 * arrive, and the functions without `raw` mean that.
 */
#pragma once
#include "tests/sim/world.h"

#include "engine/loop.h"

struct net_conn;

struct net_profile {
    uint64_t latency_min_us, latency_max_us; /* of anything that arrives */
    uint32_t piece_max;       /* bytes that arrive at once at first; 0: all there is */
    uint32_t window;          /* bytes of each buffer at first; they grow with use */
    uint32_t stall_per_mille; /* arrivals that take up to stall_us more */
    uint32_t reset_per_mille; /* arrivals that break the connection instead */
    uint64_t stall_us;
};

struct net_pipe {
    struct net_conn *conn;
    uint8_t *ring;                    /* NULL: nothing was written yet */
    uint32_t size;                    /* of the ring; a power of two */
    uint64_t written, arrived, taken; /* bytes since the start */
    bool fin, fin_arrived;
    bool moving; /* an arrival is under way */
    bool cut;    /* nothing arrives any more */
};

struct net_end;

struct net_layer {
    /* As the functions of these names below. */
    int64_t (*write)(struct net_end *, const void *ptr, size_t len);
    int64_t (*read)(struct net_end *, void *buf, size_t len);
    bool (*has_input)(const struct net_end *);
    bool (*has_room)(const struct net_end *);
    void (*shut)(struct net_end *);
    /* Before the owner is told. */
    void (*notify)(struct net_end *);
    /* Before the end is closed. */
    void (*close)(struct net_end *);
};

struct net_end {
    struct net_conn *conn;
    const struct net_layer *layer; /* NULL: none */
    void *layer_state;
    struct ag_span before; /* of end 0: written, below any layer, when the connection opens */
    uint8_t side;
    bool open; /* somebody holds it */
    bool shut; /* FIN was sent */
    bool dead; /* reset, by whomever */
    bool reset_on_close;
    bool forgets; /* a reset erases what has arrived (not on Linux) */
    int error;    /* of the reset, to be told once: -errno */
    void (*notify)(struct net_end *);
    void *owner;
};

enum net_state {
    NET_CONNECTING = 0,
    NET_OPEN,
    NET_FAILED, /* never came to be: end 0's error says why */
};

struct net_conn {
    struct sim *sim;
    uint32_t id;
    uint8_t state;
    bool faulted;     /* the network has broken it, or a fault was injected on it */
    bool accepted;    /* end 1 was taken from the queue */
    bool rst_flushes; /* what is on the way arrives before the reset that is on its way */
    uint8_t tries;    /* of the first packet */
    uint32_t client_ip, server_ip;
    uint16_t client_port, server_port;
    struct net_profile profile;
    struct net_end end[2];
    struct net_pipe pipe[2]; /* written by that end */
    struct net_conn *next;   /* in its listener's queue */
    struct net_conn *older;  /* in net->conns */
};

struct net_listener {
    struct sim *sim;
    uint32_t ip;
    uint16_t port;
    bool open;
    uint32_t backlog, queued;
    struct net_conn *first, *last;
    void (*notify)(struct net_listener *);
    void *owner;
    struct net_listener *next; /* in net->listeners */
};

/* What becomes of a connection attempt, beside what the listeners say. */
enum net_fate { NET_ADMIT, NET_REFUSE, NET_DROP, NET_UNREACHABLE };

struct net {
    struct net_listener *listeners;
    struct net_conn *conns; /* all, the newest first */
    uint32_t conn_count;
    uint32_t port_next; /* of those who connect */
    /* The run's: how a new connection is to behave, and its fate. */
    void (*profile)(struct sim *, struct net_conn *);
    enum net_fate (*fate)(struct sim *, struct net_conn *);
};

#define NET_IP(a, b, c, d) \
    ((uint32_t)(a) << 24 | (uint32_t)(b) << 16 | (uint32_t)(c) << 8 | (uint32_t)(d))

void net_begin(struct sim *s);

/* Several may listen on one address: connections are spread. */
struct net_listener *net_listen(struct sim *s, uint32_t ip, uint16_t port, uint32_t backlog,
                                void (*on_event)(struct net_listener *), void *owner);
/* Resets what waits in its queue. */
void net_unlisten(struct net_listener *l);
/* The end of the first connection that waits, or NULL. The caller sets notify and owner. */
struct net_end *net_accept(struct net_listener *l);

/* notify says when it is OPEN or FAILED. */
struct net_end *net_connect(struct sim *s, uint32_t from_ip, uint32_t ip, uint16_t port,
                            void (*on_event)(struct net_end *), void *owner);

/* Bytes taken (> 0), or -EAGAIN, -ECONNRESET, -EPIPE. */
int64_t net_write(struct net_end *e, const void *ptr, size_t len);
/* Bytes (> 0), 0 at the end of input, or -EAGAIN, -ECONNRESET. */
int64_t net_read(struct net_end *e, void *buf, size_t len);
/* Bytes that have arrived and were not taken, below a layer. */
size_t net_readable(const struct net_end *e);
/* A read would bring something: bytes, the end or an error. */
bool net_has_input(const struct net_end *e);
/* A write would be taken, or fail. */
bool net_has_room(const struct net_end *e);
/* Written and not yet arrived; arrived in all. */
uint64_t net_unacked(const struct net_end *e);
uint64_t net_acked(const struct net_end *e);

/* The same below a layer; and how many bytes a write would take. */
int64_t net_raw_write(struct net_end *e, const void *ptr, size_t len);
int64_t net_raw_read(struct net_end *e, void *buf, size_t len);
bool net_raw_has_input(const struct net_end *e);
void net_raw_shut(struct net_end *e);
size_t net_raw_room(const struct net_end *e);
/* The first byte that has arrived and was not taken, or -1. */
int net_raw_peek(const struct net_end *e);

/* All that was written has arrived and was read: a reset takes none of it along. */
static inline bool net_is_taken(struct net_end *e)
{
    return net_unacked(e) == 0 && net_readable(&e->conn->end[1 - e->side]) == 0;
}

void net_shut(struct net_end *e);
void net_close(struct net_end *e);
/* Closes with a reset. */
void net_abort(struct net_end *e);
/* The network breaks the connection: both ends get an error. */
void net_break(struct net_conn *c);

static inline struct net_end *net_peer(struct net_end *e)
{
    return &e->conn->end[1 - e->side];
}
