/*
 * upstream_pool: one shard's live upstreams: their servers' addresses and connections, and who waits
 * for one.
 *
 *   claim --pick a server--> a connection that is idle, or shared and takes one more --> GIVEN
 *                        \-> one that is being made for others, and will take this one --> GIVEN
 *                        \-> resolve its name -> connect (TLS, SETTINGS) -------------> GIVEN
 *                        |       \-- late: its next address beside it; failed: that, then the next server
 *                        |-> no slot is free: PENDING, in order of arrival
 *                        \-> its servers are looked for and none is known yet: SERVERS
 *
 *   connection:  CONNECTING -> ACTIVE <-> IDLE -> CLOSING
 *
 * A connection of HTTP/1 carries one call, one of HTTP/2 as many as the upstream allows; it is filled before
 * the next one is made. One that the upstream drains (GOAWAY), or that is too old, takes no more calls and
 * ends with its last.
 *
 * A server's idle connections are a stack: the most recently used one is the least likely to be
 * closed by the upstream just now. Whatever an idle connection of HTTP/1 receives ends it.
 *
 * Live upstreams are found by their definition's key and own a copy of what they need, so they
 * outlive snapshots. One that nothing uses for a minute is dropped; it is made again when needed.
 *
 * Which servers there are, and how they are, the group knows (upstream_group.h). A pool that finds it changed
 * takes new ones in and retires others: these get no more requests, and go with their last connection.
 */
#pragma once
#include "actions/upstream/eyeballs.h"
#include "actions/upstream/proxy_retry_policy.h"
#include "actions/upstream/upstream_group.h"
#include "engine/resolver.h"
#include "engine/tls.h"
#include "proto/h1_client.h"
#include "proto/h2_client.h"

#define AG_UPSTREAM_POOLS 1024u  /* live upstreams of a shard */
#define AG_UPSTREAM_PEERS 4096u  /* their servers */
#define AG_UPSTREAM_CONNS 16384u /* their connections */
#define AG_UPSTREAM_H2S   4096u  /* of them, those of HTTP/2 */
#define AG_UPSTREAM_JOINED \
    100u /* claims that wait for one connection: most upstreams allow that many */
#define AG_UPSTREAM_TRIES   8u /* connection attempts of one claim */
#define AG_UPSTREAM_BUCKETS 256u

/* How late a server is asked: those of this zone, those of others, those that stand by. */
enum ag_upstream_tier {
    AG_UPSTREAM_NEAR = 0,
    AG_UPSTREAM_FAR,
    AG_UPSTREAM_BACKUP,
    AG_UPSTREAM_TIERS,
};

/* A server at work. */
struct ag_upstream_peer {
    struct ag_upstream_pool *pool;
    struct ag_upstream_member *member; /* held */
    struct ag_link idle;               /* struct ag_upstream_conn, most recently used first */
    struct ag_link open;      /* of HTTP/2, ACTIVE, that take more calls; the fullest first */
    struct ag_link making;    /* CONNECTING, that may take more claims than they have */
    struct ag_link waiting;   /* struct ag_upstream_claim that wait for its name */
    uint32_t index;           /* in the pool; of one that is retired, in the past */
    uint32_t number;          /* in the order in which the pool's were made, from 1 on */
    uint32_t weight;          /* with slow start */
    uint32_t max_connections; /* the member's */
    uint32_t conn_count;      /* in any state, but own ones */
    uint32_t users;           /* connections in any state, and who is at work on it */
    uint32_t addr_count;
    uint32_t addr_next;  /* addresses of one family are used in turn */
    uint32_t edition;    /* of the addresses: their indices mean others from one to the next */
    uint64_t expires_ms; /* of the addresses, when named */
    struct ag_breaker_tally tally;
    uint64_t latency_sum_us,
        latency_told_ms; /* what the member was not told yet, and when it was */
    uint32_t latency_count;
    uint16_t port;
    bool named;                     /* its addresses come from the resolver */
    bool resolving;                 /* `resolve` is under way */
    bool large;                     /* its last answer was long: begin in large buffers */
    bool h1;                        /* AUTO: it was last found to speak HTTP/1 */
    bool h1_required;               /* AUTO: it wants no HTTP/2, though it speaks it */
    bool refused;                   /* no address of the last answer was allowed */
    bool retired;                   /* its server is no longer one of the upstream's */
    struct ag_span host, authority; /* the member's */
    union ag_addr addr[AG_RESOLVE_MAX];
    struct ag_eyeballs eyeballs; /* where there are several */
    struct ag_resolve resolve;
};

enum ag_upstream_conn_state {
    AG_UPSTREAM_CONNECTING = 0, /* for its claim          -> ACTIVE, CLOSING */
    AG_UPSTREAM_ACTIVE,         /* given to its claims    -> IDLE, CLOSING */
    AG_UPSTREAM_IDLE,           /* in its peer's stack    -> ACTIVE, CLOSING */
    AG_UPSTREAM_CLOSING,        /* on_close is to come */
};

/* Connections that are being made to one server, at addresses of its, for the same claims (upstream_making.c). */
struct ag_upstream_race {
    struct ag_link
        members; /* struct ag_upstream_conn, CONNECTING; never none. The claims have joined the first */
    struct ag_timer timer; /* the next one begins beside them */
    struct ag_eyeballs_plan plan;
    uint32_t edition; /* the peer's, when it was planned */
    uint8_t begun;    /* of the plan's addresses */
    bool aside;       /* it is about another port than requests go to */
};

struct ag_upstream_conn {
    union { /* first; each begins with its stream */
        struct ag_stream stream;
        struct ag_conn plain;
        struct ag_tls tls;
    };
    struct ag_h1_client h1;
    struct ag_h2_client *h2; /* NULL: it speaks HTTP/1, or it is not known yet */
    struct ag_link live;     /* in the shard's list */
    struct ag_link link;     /* in the peer's list: idle, open, making */
    struct ag_upstream_peer *peer;
    struct ag_upstream_race *race;  /* CONNECTING: it is in that; NULL: there is one address */
    struct ag_link rival;           /* in the race */
    struct ag_link joined;          /* CONNECTING: struct ag_upstream_claim, whose it will be */
    struct ag_link claims;          /* ACTIVE: those that it was given to */
    struct ag_link kin;             /* with those whose `client` is as likely the same */
    const struct ag_stream *client; /* whose calls alone it may carry; NULL: anybody's */
    uint64_t greeted;               /* of what it was greeted with, then */
    struct ag_timer alarm;          /* looks at what may be late */
    uint64_t opened_ms, idle_ms;    /* loop time */
    uint32_t calls;                 /* given so many times */
    uint32_t joined_count;
    uint8_t state; /* enum ag_upstream_conn_state */
    uint8_t at;    /* CONNECTING: which of the peer's addresses it is made at */
    bool offered;  /* in its peer's `open` */
    bool raw;      /* its claim's own: it carries no calls */
    bool retired;  /* of HTTP/2: takes no more calls */
    bool barred;   /* nor does this one: its address is no longer allowed */
    bool own;      /* for one claim alone, closed after it */
    bool bare;     /* plain, whatever the upstream speaks */
    bool h1_alone; /* HTTP/2 is not offered on it, whatever its peer speaks */
};
_Static_assert(offsetof(struct ag_conn, stream) == 0 && offsetof(struct ag_tls, stream) == 0,
               "streams come first");

struct ag_upstream_claim;
/* Events of a stream that was claimed raw, while it is GIVEN. */
struct ag_upstream_raw_ops {
    void (*data)(struct ag_upstream_claim *, struct ag_slice);
    void (*eof)(struct ag_upstream_claim *);
    void (*drained)(struct ag_upstream_claim *);
    /* The last one: the claim is OVER, its connection is gone. */
    void (*closed)(struct ag_upstream_claim *, enum ag_reason);
};
struct ag_upstream_claim_ops {
    /* claim->conn is given, as from ag_upstream_claim. */
    void (*ready)(struct ag_upstream_claim *);
    /* There will be none: claim->status, reason and detail tell why. */
    void (*failed)(struct ag_upstream_claim *);
};

enum ag_upstream_claim_state {
    AG_CLAIM_OVER = 0,   /* not begun, failed or given back */
    AG_CLAIM_PENDING,    /* waits for a slot */
    AG_CLAIM_NAME,       /* waits for its peer's name */
    AG_CLAIM_SERVERS,    /* waits for servers to be known */
    AG_CLAIM_CONNECTING, /* conn is on its way, for this one and others */
    AG_CLAIM_GIVEN,      /* conn is the claimer's, or its share of it */
};

/* For checks: one server, and how. */
struct ag_upstream_aim {
    struct ag_upstream_member *member;
    uint16_t port; /* 0: its own */
    bool bare;     /* TCP alone: no TLS, and nothing is said on it */
};

/* Embedded in whoever wants a connection; must stay until it is over. */
struct ag_upstream_claim {
    const struct ag_upstream_claim_ops *ops;     /* set by the owner */
    const struct ag_upstream_timeouts *timeouts; /* set by the owner */
    /* Set by the owner: the PROXY header of whom it is for, where the upstream wants one; stays as long as the claim
     * may connect. Empty: the connection is our own. */
    struct ag_span greeting;
    /* Set by the owner with the greeting: whose the connection will be, and no other's (ag_exchange_client). NULL: it
     * carries one call. */
    const struct ag_stream *client;
    /* Set by the owner: a connection of its own, new, on whose stream (conn->stream) nothing is spoken; it is not
     * released, but ended by its stream, and `closed` follows. The upstream is plain. NULL: one that carries calls. */
    const struct ag_upstream_raw_ops *raw;
    struct ag_upstream_pool *pool;
    struct ag_upstream_peer *peer;
    struct ag_upstream_conn *conn;
    struct ag_call *call; /* GIVEN: what was started on it; NULL: nothing yet */
    struct ag_link
        link; /* PENDING, NAME, SERVERS: with those who wait; CONNECTING, GIVEN: in the conn's list */
    struct ag_timer timer;       /* PENDING, NAME, SERVERS; CONNECTING, where others wait longer */
    struct ag_balance_set tried; /* peers that are of no use */
    const struct ag_upstream_aim *aim; /* NULL: any server */
    struct ag_upstream_member
        *trial;        /* held: its breaker waits for how this one ends; NULL: none does */
    uint64_t given_ns; /* where latency counts; else 0 */
    uint32_t index;    /* of the peer that was chosen last */
    uint32_t number;   /* and its number */
    uint32_t known;    /* `tried` tells of peers up to this number */
    /* Set by the owner before the claim; zero: nothing is known. */
    uint64_t key;    /* of the request, where servers are chosen by hash */
    uint64_t wanted; /* `wants`: the identity of the server that it sticks to */
    uint64_t started_ms;
    const char *detail; /* of the failure; static. AG_REASON_TLS: what was wrong; may be NULL */
    uint16_t status;    /* of the failure: 502, 503, 504 */
    uint8_t reason;     /* enum ag_reason of the failure */
    uint8_t state;      /* enum ag_upstream_claim_state */
    uint8_t tries;      /* connection attempts made */
    bool fresh;         /* wants no pooled connection */
    bool h1_alone;      /* wants one of HTTP/1.1, which is made for it (ag_upstream_claim_h1) */
    bool given;         /* its request has had a connection, of whatever server */
    bool wants;
    bool ageing;  /* what made it want that server is to be said again */
    bool crowded; /* that server is there, but has no connection to spare: it went elsewhere */
    bool maker;   /* the connection that it waits for, or has, was made for it */
    bool charged; /* it counts as under way at `index` */
    bool pooled;  /* GIVEN, and after: conn has carried other calls before */
    bool paused;  /* to be made again: its pool stays for it */
};

/* An upstream at work. */
struct ag_upstream_pool {
    struct ag_upstreams *all;
    struct ag_link link; /* in its bucket */
    struct ag_link pending;
    struct ag_link expectant;        /* struct ag_upstream_claim that wait for servers */
    struct ag_task wake;             /* serves `pending` */
    struct ag_link in_group;         /* among the other shards' */
    struct ag_msg tell;              /* to this one: a slot, or servers, may be had */
    bool told;                       /* it is under way; under the group's lock */
    struct ag_upstream_group *group; /* held */
    uint64_t key[2];
    uint64_t order;               /* of the newest definition that it was asked by */
    uint64_t look_ms;             /* loop time: the group is to be looked at then, changed or not */
    uint32_t version;             /* of the group, as it is here */
    struct ag_balance_set usable; /* peers that take requests */
    struct ag_balance_set tiers[AG_UPSTREAM_TIERS]; /* the same, by tier */
    struct ag_upstream_peer *lone; /* the only one of all tiers; NULL: there are none, or more */
    struct ag_balance_set trial;   /* of them, those whose breaker lets trials through alone */
    struct ag_balance_set bounded; /* peers that have a bound of connections of their own */
    bool bounds;                   /* connections are bounded: the upstream's, or a server's */
    bool server_bounds;            /* some server's are */
    bool asks_again;               /* whoever is still pending after the next wake */
    bool waking;                   /* those who are pending are being asked: it stays */
    bool panics;                   /* too few are usable: all are asked */
    bool times_latency;            /* how long answers take is of interest */
    struct ag_balance balance;     /* which of them */
    uint64_t used_ms;              /* loop time of the last claim */
    uint32_t conn_count;           /* in any state, but own ones */
    uint32_t own_count;            /* connections of aimed claims, beside all bounds */
    uint32_t idle_count;           /* in state IDLE */
    uint32_t open_count;           /* in a peer's `open` */
    uint32_t pending_count;        /* claims that wait for a slot */
    uint32_t waiting_count; /* claims that wait for a name, for servers, or to be made again */
    uint32_t peer_count;    /* in `peers` */
    uint32_t retired_count; /* peers that are no longer there */
    uint32_t made_count;    /* peers so far: the number of the newest one */
    uint32_t count;         /* one more than the highest index in `peers` */
    struct ag_upstream_options options; /* the group's: numbers alone */
    struct ag_timer warm_timer;         /* looks whether there are connections to spare */
    struct ag_upstream_timeouts warm_timeouts;
    struct ag_upstream_claim warm; /* OVER, or one that is being made */
    uint64_t warm_at_ms;           /* loop time before which none is made */
    enum ag_upstream_protocol protocol;
    struct ag_tls_client *tls; /* held; NULL: plain */
    struct ag_retry_budget retries;
    struct ag_upstream_peer *peers[AG_UPSTREAM_SERVERS_MAX]; /* by the member's index; NULL: none */
};

struct ag_mirrors;

/* One shard's. */
struct ag_upstreams {
    struct ag_loop *loop;
    struct ag_mirrors *mirrors; /* mirror.h; NULL: there are none */
    struct ag_pool pools, peers, conns, h2s, races;
    struct ag_link buckets[AG_UPSTREAM_BUCKETS];
    struct ag_link live;                      /* struct ag_upstream_conn in any state */
    struct ag_link kins[AG_UPSTREAM_BUCKETS]; /* those that have a client, by that */
    uint32_t kin_count;
    struct ag_timer sweep;
    uint32_t shard_count;
    struct ag_upstream_groups *groups;
    const void *config;       /* the present one's mark */
    uint64_t order;           /* of it: grows from one to the next, the same in every shard */
    struct ag_health *health; /* NULL: another shard checks them, and looks for them */
    struct ag_discover *discover;
    bool owns_groups;
    uint64_t seed; /* makes shards begin with different servers; 0: with the first */
    bool closing;
};

/* Maps a shard's pools; `shard_count` is among how many connections are shared out. `groups` are the process's,
 * NULL: it is alone and has its own. NULL: no memory. */
AG_MUST_USE struct ag_upstreams *ag_upstreams_new(struct ag_loop *l, uint32_t shard_count,
                                                  struct ag_upstream_groups *groups);
/* The configuration whose upstreams have this mark is the shard's present one from now on. */
void ag_upstreams_use(struct ag_upstreams *u, const void *config,
                      const struct ag_upstream *const *upstreams, uint32_t count);
/* What they take when all are in use. */
uint64_t ag_upstreams_bytes(void);
/* Closes every connection and turns the loop until they are gone: not from within a turn. No claim
 * may be left that waits. */
void ag_upstreams_free(struct ag_upstreams *u);

/* The client's connection has ended: those that are for it alone go. `u` may be NULL. */
void ag_upstreams_client_gone(struct ag_upstreams *u, const struct ag_stream *client);

/*
 * Asks for a connection to a server of `up`. c->ops and c->timeouts are set by the caller, all else
 * is zero.
 * AG_OK     c->conn is given: go on with ag_upstream_start; end with ag_upstream_release
 * AG_AGAIN  ops->ready or ops->failed will be called, unless it is cancelled
 * AG_ESYS   there is none: c->status, reason and detail tell why
 */
AG_MUST_USE enum ag_status ag_upstream_claim(struct ag_upstreams *u, const struct ag_upstream *up,
                                             struct ag_upstream_claim *c);
/* The same for a connection of its own to that one server, whatever is known of it and beyond max_connections;
 * it is closed after it. */
AG_MUST_USE enum ag_status ag_upstream_claim_aimed(struct ag_upstreams *u,
                                                   const struct ag_upstream *up,
                                                   const struct ag_upstream_aim *aim,
                                                   struct ag_upstream_claim *c);
/* It will be made again after a while, during which its upstream stays: until that, or until it is unpaused. */
void ag_upstream_pause(struct ag_upstream_claim *c);
/* It will not. Harmless when it was not paused. */
void ag_upstream_unpause(struct ag_upstream_claim *c);
/* Once more after a call failed; with `fresh` only a new connection will do. The same results. */
AG_MUST_USE enum ag_status ag_upstream_claim_again(struct ag_upstream_claim *c, bool fresh);
/* Of a claim that is GIVEN a connection of HTTP/2 on which nothing was started: gives it back for one of HTTP/1.1, to the
 * same server where that has room. Where ag_upstream_has_h1. The same results. */
AG_MUST_USE enum ag_status ag_upstream_claim_h1(struct ag_upstream_claim *c);
/* The present peer is of no use for this claim any more: it goes on elsewhere. False: nobody else is left. */
bool ag_upstream_elsewhere(struct ag_upstream_claim *c);
/* The present peer of `of`, a claim beside it or itself, may be asked again: what failed was one connection to it. */
void ag_upstream_absolve(struct ag_upstream_claim *c, const struct ag_upstream_claim *of);
/* No peer is left: each is as good as new again, but for the present one where there are others. */
void ag_upstream_forgive(struct ag_upstream_claim *c);
/* `c`, which is yet to be made, is to go elsewhere than `other` has been. */
void ag_upstream_avoid_same(struct ag_upstream_claim *c, const struct ag_upstream_claim *other);
/* Of a claim that is GIVEN: what its connection speaks, and whether it takes extended CONNECT. */
static inline bool ag_upstream_is_h2(const struct ag_upstream_claim *claim)
{
    return claim->conn->h2 != NULL;
}
/* Its upstream may take HTTP/1.1 as well: ALPN leaves the choice. */
static inline bool ag_upstream_has_h1(const struct ag_upstream_claim *claim)
{
    return claim->pool->protocol == AG_UPSTREAM_AUTO;
}
static inline bool ag_upstream_tunnels(const struct ag_upstream_claim *claim)
{
    return claim->conn->h2 && ag_h2_client_tunnels(claim->conn->h2);
}
/* What has become of the call on what was given, for the judgement of its server: its answer's head is here, or
 * it has failed before that (after, when it is no tunnel). */
void ag_upstream_answered(struct ag_upstream_claim *c, unsigned status);
void ag_upstream_failed(struct ag_upstream_claim *c, const struct ag_call *call,
                        enum ag_reason why);
/* Starts the call on what was given, and watches over its timeouts: one that is late fails. Not AG_OK: it
 * was not started. */
AG_MUST_USE enum ag_status ag_upstream_start(struct ag_upstream_claim *claim, struct ag_call *call);
/* The call is in another phase: what its connection has taken so far says nothing of that. */
static inline void ag_upstream_moved(struct ag_upstream_claim *claim)
{
    if (!claim->conn->h2) {
        ag_stream_look_anew(&claim->conn->stream);
    }
}
/* In `failed` of a call that the server wants over HTTP/1.1 (call->h1_required): from now on it is asked so. False:
 * its protocol is a matter of configuration. */
bool ag_upstream_fall_back(struct ag_upstream_claim *claim);
/* The claimer wants it no more; a call that is under way is cancelled. Harmless when over. */
void ag_upstream_cancel(struct ag_upstream_claim *c);
/* Gives back what was given; no call is under way on it. */
void ag_upstream_release(struct ag_upstream_claim *claim);
