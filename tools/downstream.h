/*
 * downstream: a client's connection: transport and protocol machine in one slab slot, and the shard's
 * list of them.
 *
 *   plain   conn --first bytes--> HTTP/1, or HTTP/2 by its preface (prior knowledge, RFC 9113 section 3.3)
 *   TLS     tls --handshake--> HTTP/1 or HTTP/2 by ALPN
 *
 * Either begins with a PROXY header where the listener believes the peer (downstream_greeting.c): what the
 * header tells are the client's addresses for all that follows.
 *
 * Plain slots end behind the conn: they are what there is most of. HTTP/2's machine is larger and has a slab
 * of its own.
 */
#pragma once
#include "actions/proxy/relay.h"
#include "engine/listener.h"
#include "engine/networks.h"
#include "engine/tls.h"
#include "proto/h1_server.h"
#include "proto/h2_server.h"
#include "proto/peer.h"

/* What connections of one listener share; outlives them. */
struct ag_downstream_origin {
    struct ag_server_limits limits;        /* a reload may change them under live connections */
    struct ag_tls_server *tls;             /* held; NULL: plain */
    const struct ag_relay_settings *relay; /* NULL: HTTP */
    struct ag_block *relay_owner;          /* of the settings, held; NULL once it is closed */
    struct ag_networks *proxied;           /* who begins with a PROXY header; own; NULL: nobody */
    uint32_t connections;
    uint16_t port;
    bool draining; /* new ones are answered once */
};

struct ag_downstreams {
    struct ag_context *context;
    struct ag_pool plain, tls; /* struct ag_downstream */
    struct ag_pool h2;         /* struct ag_h2_server */
    struct ag_pool proxied;    /* struct ag_proxied */
    struct ag_pool relays;     /* struct ag_downstream_relay */
    struct ag_link open;       /* all live ones */
    uint32_t count, max;       /* of them */
    uint64_t warned_ms;        /* loop time of the last warning */
    uint32_t unwarned;         /* since then */
    /* One has gone; origin->connections is counted down before. */
    void (*changed)(struct ag_downstreams *, struct ag_downstream_origin *);
};

/* A connection that is passed on as it is. */
struct ag_downstream_relay {
    struct ag_relay relay; /* first */
    struct ag_downstream *ds;
};

/* While a header is read; and its listener as it was when the connection was accepted. */
struct ag_greeter {
    struct ag_block *block;    /* what has come of it, when it comes in pieces; else NULL */
    uint32_t used;             /* bytes there */
    struct ag_tls_server *tls; /* held */
    const struct ag_relay_settings *relay; /* as long as relay_owner is held */
    struct ag_block *relay_owner;
};

struct ag_downstream {
    struct ag_link link;
    struct ag_downstreams *all;
    struct ag_downstream_origin *origin;
    struct ag_proxied *proxied; /* what its header has told; NULL: there was none */
    uint8_t matched;            /* so many first bytes are those of a preface */
    bool secure      : 1;       /* its slot is of the pool `tls` */
    bool handshaking : 1;       /* no protocol yet */
    bool greeting    : 1;       /* and no header yet: `greeter` holds */
    bool yielding    : 1;       /* from before there was one */
    bool relayed     : 1;       /* there will be none: `relay` holds */
    bool is_h2       : 1;
    union {
        struct ag_h1_server h1; /* unless one of the others holds */
        struct ag_h2_server *h2;
        struct ag_downstream_relay *relay;
        struct ag_greeter greeter;
        struct ag_peer peer; /* of one that shakes hands, while somebody reads of failures */
    };
    union { /* last; both begin with their stream */
        struct ag_stream stream;
        struct ag_conn conn;
        struct ag_tls tls;
    };
};

/* AG_ENOMEM. */
AG_MUST_USE enum ag_status ag_downstreams_init(struct ag_downstreams *d, struct ag_context *ctx,
                                               uint32_t connection_max);
/* What that maps, when all is in use. */
uint64_t ag_downstreams_bytes(uint32_t connection_max);
/* All must be gone. */
void ag_downstreams_deinit(struct ag_downstreams *d);
/* Takes over an accepted descriptor. False when there are `max` already: nothing is done. */
bool ag_downstream_accept(struct ag_downstreams *d, int fd, struct ag_downstream_origin *origin);
/* Those of `origin` (NULL: of every one): idle ones end now, busy ones after their exchange. */
void ag_downstreams_drain(struct ag_downstreams *d, struct ag_downstream_origin *origin);
/* All: each ends with its next answer, idle ones too (ag_h1_server_yield). */
void ag_downstreams_yield(struct ag_downstreams *d);
/* Those of `origin`, whose timeouts are shorter than before: waits under way, too. */
void ag_downstreams_hasten(struct ag_downstreams *d, struct ag_downstream_origin *origin);
/* Ends all at once. False: some were neither idle nor through with their last answer. */
bool ag_downstreams_abort(struct ag_downstreams *d);
/* How many more there may be. */
static inline uint32_t ag_downstreams_room(const struct ag_downstreams *d)
{
    return d->max - d->count;
}

/* ---- between the files of downstream ---- */

/* The connection that is under its protocol or TLS. */
static inline struct ag_stream *ag_downstream_below(struct ag_downstream *ds)
{
    return ds->secure ? &ds->tls.conn.stream : &ds->stream;
}
/* downstream_greeting.c: accepted, and its peer is believed: a header is read first. */
void ag_downstream_greet(struct ag_downstream *ds, int fd);
/* downstream.c: it is read; `rest` is what follows. Takes over what `as` holds. */
void ag_downstream_begin(struct ag_downstream *ds, struct ag_greeter as, struct ag_slice rest);
/* downstream_relay.c: the connection, open, is passed on. Holds `owner` as long as it needs the settings. */
void ag_downstream_relay(struct ag_downstream *ds, const struct ag_relay_settings *settings,
                         struct ag_block *owner);
/* It is gone. */
void ag_downstream_release(struct ag_downstream *ds);
/* Tells what no access log tells. */
void ag_downstream_trouble(const struct ag_downstream *ds, const struct ag_peer *peer,
                           const char *protocol, const char *what);
/* The same for what somebody has to mend: where requests are not told it is a warning, once a second, so that nobody can
 * fill a disk. */
void ag_downstream_warn(const struct ag_downstream *ds, const struct ag_peer *peer,
                        const char *protocol, const char *what);
