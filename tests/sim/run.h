/*
 * run: one simulated life of a server: started, visited, reloaded, drained; what it is made of, and what
 * its parts know of each other.
 *
 *   clients --simulated network--> shards of the real server --simulated network--> upstreams
 *      |                                                                               |
 *      +------------------------- requests: what is sent, what must come back ---------+
 *
 * How each request is to be answered is decided when it is made; the upstream looks its plan up by the
 * X-Id field. So the oracle (oracle.c) knows what a client may get, whatever goes wrong on the way.
 */
#pragma once
#include "tests/sim/content.h"
#include "tests/sim/greeting.h"
#include "tests/sim/host.h"
#include "tests/sim/message.h"
#include "tests/sim/site.h"
#include "tests/sim/tls.h"

#include "tools/serving.h"

#define RUN_REQUESTS 128u
#define RUN_CLIENTS  24u
#define RUN_LIFE_S   3000u /* simulated; longer is a hang */
#define RUN_TEXT_MAX 32768u

/* ---- requests ---- */

enum request_kind {
    REQUEST_FIXED = 0,
    REQUEST_FIXED_LARGE,
    REQUEST_PARAM,
    REQUEST_FILTERED,
    REQUEST_ECHO,
    REQUEST_STATIC,
    REQUEST_REDIRECT,
    REQUEST_MISSING, /* 404 */
    REQUEST_METHOD,  /* 405 */
    REQUEST_BAD,     /* malformed or too large: request.c has a table */
    REQUEST_PROXY,
    REQUEST_TUNNEL, /* WebSocket */
    REQUEST_KINDS,
};

/* What an upstream does with a request. */
enum plan {
    PLAN_LENGTH = 0, /* a right answer, framed so */
    PLAN_CHUNKED,
    PLAN_CLOSE,
    PLAN_EMPTY,   /* 204 */
    PLAN_INTERIM, /* some 1xx first */
    PLAN_LAST_RIGHT = PLAN_INTERIM,
    PLAN_EARLY,       /* the answer comes before the content was read, which goes on */
    PLAN_EARLY_CLOSE, /* and the connection is closed then */
    PLAN_STORM,       /* more 1xx than anybody needs */
    PLAN_NO_ANSWER,   /* stalls */
    PLAN_STALL,       /* within the content */
    PLAN_CUT_HEAD,
    PLAN_CUT_FIN, /* within the content */
    PLAN_CUT_RST,
    PLAN_CLOSED, /* without an answer */
    PLAN_RESET,
    PLAN_EXTRA, /* bytes beyond Content-Length */
    PLAN_BAD_CHUNK,
    PLAN_GARBAGE,
    PLAN_TWO_LENGTHS,
    PLAN_SWITCH,     /* to another protocol, unasked */
    PLAN_LARGE_HEAD, /* more than anybody takes */
    PLANS,
};

/* What a client may get instead of the right answer; bits. */
enum outcome {
    OUT_RIGHT = 1u << 0,
    OUT_CUT = 1u << 1, /* the connection ends before the answer does */
    OUT_408 = 1u << 2,
    OUT_413 = 1u << 3,
    OUT_500 = 1u << 4,
    OUT_502 = 1u << 5,
    OUT_503 = 1u << 6,
    OUT_504 = 1u << 7,
    OUT_403 = 1u << 8, /* of its client's certificate */
    OUT_421 = 1u << 9,
};

struct request {
    uint32_t id;
    uint8_t kind;
    uint8_t plan;
    char upstream; /* 'a' ... */
    bool head, chunked, expect, version_10, close, idempotent, trailers;
    bool slow;            /* answer or tunnel, in pieces far between */
    bool refused_upgrade; /* TUNNEL: the upstream answers like to any request */
    const char *method;
    char target[96];
    char forwarded[96]; /* PROXY, TUNNEL: the target that its upstream sees */
    uint32_t body_bytes, answer_bytes;
    uint32_t tunnel_up, tunnel_down; /* bytes each way */
    uint32_t pad_bytes;              /* of a field that makes the head longer */
    uint32_t file;                   /* STATIC */
    uint32_t range_from, range_to;   /* STATIC: bytes, inclusive, when range_to > 0 */
    bool unmodified;                 /* STATIC: the client has it */
    const struct bad *bad;           /* BAD */
    const struct bad_h2 *bad_h2;     /* the same over HTTP/2 */
    bool h2;                         /* its client speaks HTTP/2 */
    bool cancelled;                  /* by its client */
    bool refused;                    /* by an upstream, once, which says that it did nothing */
    char websocket_key[32];          /* TUNNEL: as its upstream sees it */
    bool hops;                       /* names a client and proxies before it */
    unsigned status;                 /* of the right answer */
    const uint8_t *wire;
    size_t wire_len, wire_head;
    struct client *client;
    uint32_t config_first; /* index in run->configs when it was sent */
    /* what became of it */
    uint32_t seen;         /* heads that reached an upstream */
    uint32_t completed;    /* of them with all content */
    uint64_t completed_us; /* the last of those */
    bool answering;        /* an upstream has begun to answer */
    uint64_t sent_us;      /* its last byte was written */
    bool spared;           /* a drain found it being answered: that goes on */
};

/* The keys of content. */
static inline uint64_t request_key(const struct request *r)
{
    return 2 * (uint64_t)r->id + 1000;
}

static inline uint64_t answer_key(const struct request *r)
{
    return 2 * (uint64_t)r->id + 1001;
}

/* ---- clients ---- */

/* How a client behaves; all zero is a good one that waits for each answer. */
struct manners {
    uint32_t depth;     /* requests under way at once */
    uint32_t piece_max; /* bytes written at once; 0: all */
    uint64_t pause_us;  /* between two writes, at most */
    uint32_t read_max;  /* bytes read at once; 0: all */
    uint64_t read_us;   /* between two reads, at most */
    uint64_t think_us;  /* between answer and next request, at most */
    uint64_t stop_at;   /* bytes sent after which it falls silent; UINT64_MAX: never */
    uint64_t leave_at;  /* bytes sent, or (leave_reading) received, after which it goes */
    bool leave_reading;
    bool leave_by_reset; /* else it closes */
    bool deaf_at_end;    /* reads nothing any more once all is sent */
    bool half_close;     /* shuts its side behind the last request */
    bool stays;          /* after its last answer it waits for the server to close */
    bool rude;           /* any of it may cost it its answers */
};

struct client_h2;

/* An answer that is coming in. */
struct arrival {
    struct message message;
    uint8_t *text; /* RUN_TEXT_MAX: of an answer that is checked as a whole */
    size_t text_len;
    bool text_wanted;
    uint64_t content_key;  /* else: content compared as it comes */
    uint64_t content_from; /* its first byte */
    uint64_t content_len;
    uint16_t kind_of_answer; /* enum outcome bit */
    bool began;              /* its head was taken */
};

struct client {
    struct run *run;
    struct client_h2 *h2; /* it speaks HTTP/2: client_h2.h */
    uint32_t index;
    uint16_t port;
    bool tls;
    struct greeting *greeting; /* its PROXY header; NULL: it sends none */
    struct tls_ways ways;      /* of it */
    uint32_t config_first;     /* index in run->configs when it connected */
    uint64_t started_us;
    struct net_end *end;
    struct manners manners;
    struct request *requests[16];
    uint32_t request_count;
    uint32_t sending;  /* index of the request being sent */
    uint32_t answered; /* of those, how many have their answer */
    size_t sent;       /* bytes of the one being sent */
    uint64_t sent_total, received_total;
    uint64_t moved_then; /* of both, at the last look whether it hangs */
    struct arrival arrival;
    bool waits_for_100;
    bool told_close; /* an answer said that the connection ends */
    /* What nobody read of a request may have been too much: at once, or after a reload. */
    bool discarded, discards_length;
    bool tunnel, tunnel_ended; /* the server's part */
    uint64_t tunnel_sent, tunnel_got;
    bool probe;  /* the last one: nothing is wrong any more */
    bool broken; /* a write told of the connection's reset, which a read will not repeat */
    bool writing, reading; /* an event is under way */
    bool silent, gone, done;
    bool drained_under; /* drain began before it was through */
    bool port_at_risk;  /* its listener was closed meanwhile */
};

/* ---- the run ---- */

/* What may go wrong in it, beside bad upstreams and rude clients. */
struct weather {
    bool shortage; /* pools, descriptors, files and calls fail */
    bool famine;   /* and pools are emptied at times */
    bool storms;   /* the network between clients and server stalls and breaks */
    bool upstream_storms;
    bool rude;      /* some clients are */
    bool flaky;     /* plans other than right ones occur */
    bool few_slots; /* the server has fewer connections than there are clients */
    bool early_drain;
    bool files; /* file operations fail */
    bool tls;   /* some clients and upstreams speak it */
    bool more;  /* connections are passed on, PROXY headers come and go */
    bool names;
};

struct shard {
    struct ag_serving serving;
    struct ag_msg yield_msg, drain_msg, abort_msg;
    struct run *run;
    struct famine *famine; /* NULL: none */
    bool ended;
    uint64_t turns; /* in the present second */
};

struct run {
    struct sim *sim;
    struct host host;
    struct weather weather;
    uint32_t shard_count;
    struct shard shards[HOST_LOOPS];
    struct ag_board board;
    struct ag_board_shard board_each[HOST_LOOPS];
    struct ag_action_commons commons;
    uint32_t connection_max;
    struct request *requests[RUN_REQUESTS];
    uint32_t request_count;
    struct client *clients[RUN_CLIENTS];
    uint32_t client_count, clients_done;
    /* Configurations served so far, the last one is the current one. */
    uint32_t configs[16];
    uint64_t config_us[16];
    struct staples {
        uint8_t forms;     /* that were stapled in it, as bits from 1 on; 1: none */
        uint64_t from_us;  /* the earliest time at which one ends, or is put in place of another */
        uint64_t until_us; /* the latest */
    } staples[16];
    uint32_t config_count;
    uint32_t config_settled; /* index of the last one that every shard has applied */
    bool own_snapshots;
    struct ag_tls_tickets *tickets; /* TLS */
    uint32_t tls_bound; /* bytes that shards' handshakes may take; 0: as many as they like */
    uint64_t tls_bytes; /* of the library's memory, before the run */
    struct ag_snapshot *snapshot; /* the current one */
    uint32_t uses;                /* applied and not let go */
    uint32_t changes;             /* posted and not applied */
    uint32_t reloads_left;
    uint32_t few_left; /* requests to upstream c, where all is well */
    struct upstreams *upstreams;
    struct up_h2 *upstreams_h2; /* all connections to those that speak HTTP/2 */
    struct relays *relays;      /* NULL: none (relay.h) */
    struct {
        uint32_t socket_id;
        bool open;
    } listens[SITE_PORTS];
    bool probing; /* faults are over */
    bool draining;
    bool yielding; /* before it: another process would serve on */
    bool aborts;   /* and the drain is cut short later */
    uint64_t turns;
    uint64_t second; /* in which shards count their turns */
};

/* Runs the server's life of `seed`; ends the process when a mistake is found. Returns the trace. */
uint64_t run_seed(struct run *r, struct sim *s, uint64_t seed, bool verbose);

/* ---- run_tls.c ---- */

/* Whether the run of this seed has TLS; nothing else of it follows from that. */
bool run_tls_wanted(const struct sim *s);
/* Before the server starts, and when it has ended: the library has got its memory back then. */
void run_tls_start(struct run *r);
void run_tls_end(struct run *r);
/* Memory is short no longer. */
void run_tls_calm(struct run *r);
struct ag_snapshot *run_tls_snapshot(struct run *r, uint32_t number);
/* What the listener of this client's end may show: the settings of each configuration that was current meanwhile. */
uint32_t run_tls_generations(const struct net_end *e);
/* The same, and who is asked for a certificate. */
uint32_t run_tls_settings(const struct net_end *e);
/* What was stapled for its client's sake. */
void run_tls_stapled(const struct net_end *e, uint32_t generation, struct ag_span der);
/* What may be answered for the sake of its client's certificate: OUT_403, OUT_421; true: nothing else may. */
uint32_t run_tls_refusals(const struct client *c, bool *out_must);
/* Whether X-Client is what a filter may say of its certificate. */
bool run_tls_is_client(const struct client *c, struct ag_span value);

/* Whether it has what SITE_MORE's configurations have, likewise. */
bool run_more_wanted(const struct sim *s);

/* ---- request.c ---- */

/* A request for `c`, with all that follows from it. */
struct request *request_make(struct run *r, struct client *c, bool probe, bool h2);
void request_write(struct run *r, struct request *q);
/* Something is wrong with it for which its stream is reset (or the answer is 400). */
bool request_bad_h2_resets(const struct request *q);
/* Its content is longer than told: what was told may have gone on before that was seen. */
bool request_bad_h2_is_longer(const struct request *q);

/* It goes to an upstream, whole or not. */
static inline bool request_is_proxied(const struct request *q)
{
    return q->upstream != 0;
}

/* ---- oracle.c ---- */

/* What `q` may come to, by all that is known now. */
uint32_t oracle_allows(const struct run *r, const struct client *c, const struct request *q);
/* The head of the answer to `q` is complete: fails the run, or tells how its content is to be checked. */
void oracle_head(struct run *r, struct client *c, struct request *q, struct arrival *a);
/* A piece of its content, the last one that a->message counts. */
void oracle_content(struct run *r, struct client *c, struct request *q, struct arrival *a,
                    struct ag_span piece);
/* The answer is complete. */
void oracle_answer(struct run *r, struct client *c, struct request *q, struct arrival *a);
/* The connection has ended; requests from c->answered on have no answer. */
void oracle_gone(struct run *r, struct client *c, bool by_error);
/* It could not even connect. */
void oracle_refused(struct run *r, struct client *c);
/* Inside the server, between turns. */
void oracle_bounds(struct run *r);
/* A receive had to wait for a buffer; the client's listener was closed while it was there. */
bool oracle_was_starved(const struct run *r);
bool oracle_port_went(const struct run *r, const struct client *c);

/* ---- oracle_h2.c ---- */

/* RST_STREAM, or GOAWAY that leaves it out (then `code` is REFUSED_STREAM), instead of an answer. */
void oracle_reset(struct run *r, struct client *c, struct request *q, uint32_t code);
/* GOAWAY. `codes`: those that a mistake of the client's must have, as bits; 0: it made none. `flood`: it did
 * too much, and may be told so. */
void oracle_goaway(struct run *r, struct client *c, uint32_t code, uint32_t codes, bool flood);
/* The connection has ended, `late`: in HTTP/1, before it had begun; `told` by GOAWAY; and `q` is under way on
 * it. */
void oracle_gone_h2(struct run *r, struct client *c, bool by_error, bool late, bool told);
void oracle_unanswered(struct run *r, struct client *c, struct request *q, bool by_error);
/* A body is bounded by itself; what an upstream's stream fills by that one's window. */
bool oracle_holds_too_much(const struct ag_context *ctx, const struct ag_body *b);
void oracle_bounds_h2(const struct run *r, const struct ag_h2_server *h);

/* ---- client.c ---- */

struct client *client_make(struct run *r, bool probe);
/* Connects, after `delay_us`. */
void client_start(struct client *c, uint64_t delay_us);
/* In a tunnel: client_tunnel.c. */
void client_tunnel_begin(struct client *c);
void client_tunnel_bytes(struct client *c, struct ag_span bytes);
void client_tunnel_look(struct client *c);
void client_finish(struct client *c);
void client_leave(struct client *c);
/* client_h2.c: its requests are there, and its manners; it has begun to connect. */
void client_h2_make(struct client *c);
void client_h2_start(struct client *c);
void client_h2_notify(struct net_end *e);
/* For each request that is under way. */
void client_h2_each(struct client *c, void (*fn)(struct run *, struct request *, bool began));

/* ---- famine.c ---- */

/* From now on the pools of `l` are nearly empty at times. */
struct famine *famine_start(struct run *r, struct ag_loop *l);
/* It may also be for one turn alone. NULL is allowed, as below. */
void famine_before_turn(struct famine *f);
void famine_after_turn(struct famine *f);
/* All is given back, and stays. */
void famine_stop(struct famine *f);

/* ---- upstream.c ---- */

void upstreams_start(struct run *r);
/* Connections that upstreams still hold. */
uint32_t upstreams_open(const struct run *r);
