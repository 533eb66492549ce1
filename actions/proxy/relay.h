/*
 * relay: one connection that is passed on as it is (layer 4): what is not HTTP, and TLS that is not ended here.
 *
 *   tcp:
 *     - {listen: ":5432", to: db}
 *     - {listen: ":443", sni: {a.example: one, "*.b.example": two}, default: three}
 *
 *   HELLO --name read, or it is no TLS--> CONNECTING --given--> OPEN --both ways ended--> ENDING --both closed--> freed
 *     |  nobody's name: alert, closed        |  no server: closed        |  reset, too long idle: both reset
 *     '--------------------------------------'---------------------------'--> ENDING
 *
 * Two streams and nothing between them: what one has received the other sends, by reference, much of it through
 * pipes (engine/pipes.h); one that takes no more has the other's reading paused. An end of input is passed on as one
 * (half-close). What comes before the server is there is bounded (AG_RELAY_EARLY_MAX) and waits.
 */
#pragma once
#include "actions/upstream/upstream_pool.h"
#include "engine/tls_hello.h"
#include "proto/exchange.h"

/* Of a client's bytes before there is a server: a ClientHello in records of usual sizes, and what follows it at once. */
#define AG_RELAY_EARLY_MAX (2u * AG_TLS_HELLO_MAX)

/* A name of SNI, in lower case, and where it goes; ".b.example" is every name that ends so. */
struct ag_relay_name {
    struct ag_span name;
    const struct ag_upstream *to;
};

/* One entry of `tcp`; in the snapshot. */
struct ag_relay_settings {
    struct ag_span text; /* its first address, for people */
    const struct ag_upstream
        *fallback; /* `to`, or `default`; NULL: names that nobody has are refused */
    const struct ag_relay_name *names;
    const struct ag_addr_list *listens;   /* of `tcp`: no connection goes there; NULL: none */
    uint32_t name_count;                  /* 0: nothing is read of what comes */
    struct ag_upstream_timeouts timeouts; /* connect_ms alone counts */
    uint32_t hello_ms, idle_ms;
};

enum ag_relay_state {
    AG_RELAY_HELLO = 0,  /* the client's first bytes are read    -> CONNECTING, ENDING */
    AG_RELAY_CONNECTING, /* a claim is under way                 -> OPEN, ENDING */
    AG_RELAY_OPEN,       /* both ways                            -> ENDING */
    AG_RELAY_ENDING,     /* what is still open ends by itself */
};

struct ag_relay;

/* What the owner's connection is told, once: both ends are gone. May free the relay. */
typedef void ag_relay_over_fn(struct ag_relay *);

struct ag_relay {
    struct ag_stream *front; /* the client's; NULL: gone */
    struct ag_stream *back;  /* the server's; NULL: not there yet, or gone */
    struct ag_context *context;
    const struct ag_relay_settings *settings; /* until there is a server */
    struct ag_block *settings_owner;          /* held as long */
    ag_relay_over_fn *over;
    struct ag_upstream_claim claim;
    struct ag_upstream_timeouts timeouts;
    struct ag_tls_hello hello;
    struct ag_chain early; /* what came before the server was there */
    struct ag_block *tail; /* where small pieces of it are put together */
    uint32_t tail_used;
    uint32_t idle_ms;
    uint64_t active_ms; /* loop time of the last bytes, either way */
    uint64_t started_ms;
    uint64_t up_bytes, down_bytes; /* from the client, from the server */
    struct ag_peer peer;
    const struct ag_proxied *proxied;
    const char *detail; /* why it ended; static; NULL: in order */
    uint8_t reason;     /* enum ag_reason */
    uint8_t state;      /* enum ag_relay_state */
    bool leads_back;    /* the server was this process itself */
    bool front_eof, back_eof;
    bool front_full, back_full; /* of its output: the other one's reading is paused */
    uint8_t server_len, greeting_len;
    char server[80]; /* "db 10.0.0.1:5432", for the log */
    uint8_t greeting[112];
};

/*
 * Begins on the client's open stream, whose callbacks the owner hands on below.
 *   settings  valid as long as settings_owner is held
 *   proxied   what a PROXY header has told, or NULL; outlives the relay
 *   over      called from the loop
 */
void ag_relay_begin(struct ag_relay *r, struct ag_context *ctx, struct ag_stream *front,
                    const struct ag_relay_settings *settings, struct ag_block *settings_owner,
                    const struct ag_proxied *proxied, ag_relay_over_fn *over);
/* The client's stream's events. */
void ag_relay_data(struct ag_relay *r, struct ag_slice slice);
void ag_relay_eof(struct ag_relay *r);
void ag_relay_drained(struct ag_relay *r);
void ag_relay_deadline(struct ag_relay *r);
void ag_relay_closed(struct ag_relay *r, enum ag_reason why);
/* What a connection would come back to: `to`, connected to from `from` (NULL: it is not yet). False: nothing here. */
bool ag_relay_leads_back(const struct ag_addr_list *listens, const union ag_addr *to,
                         const union ag_addr *from);
/* Ends both at once. */
void ag_relay_abort(struct ag_relay *r, enum ag_reason why);

/* Where `name` (lower case; may be empty) goes; NULL: nowhere. Exact names go first, then the longest ending. */
const struct ag_upstream *ag_relay_choose(const struct ag_relay_settings *s, struct ag_span name);
