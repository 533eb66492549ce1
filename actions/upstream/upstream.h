/*
 * upstream: a group of servers that requests are proxied to, as the config says it. Immutable, in the
 * snapshot's arena; what lives at run time (connections, addresses) is upstream_pool.h's.
 *
 *   proxy.upstreams.NAME   or   the authority of a target: host1:80,host2:81
 *
 * Two definitions with the same key are the same upstream: what lives of it survives a reload, which may change its
 * servers and options (upstream_group.h). The scheme of
 * a target says how its servers are spoken to; a name that is used with several schemes is several upstreams:
 *
 *   http ws   H1, plain            h2c   H2C, plain
 *   https     AUTO over TLS        h2    H2 over TLS        wss   H1 over TLS
 */
#pragma once
#include "actions/upstream/balance_config.h"
#include "actions/upstream/buffer_policy.h"
#include "actions/upstream/health_options.h"
#include "actions/upstream/proxy_retry_policy.h"
#include "actions/upstream/upstream_addresses.h"
#include "engine/loop.h"
#include "engine/node.h"
#include "engine/tls_context.h"
#include "proto/proxy_protocol.h"

#define AG_UPSTREAM_SERVERS_MAX     AG_BALANCE_SERVERS
#define AG_UPSTREAM_HOST_MAX        255u /* bytes of a server's name, or of unix:/path */
#define AG_UPSTREAM_WEIGHT_MAX      1000u
#define AG_UPSTREAM_CONNECTIONS_MAX 1000000u /* that a bound of connections may say */

/* Milliseconds; 0: none (but connect_ms is never 0). */
struct ag_upstream_timeouts {
    uint32_t connect_ms;    /* each connection attempt, name look-up, and wait for a free slot */
    uint32_t first_byte_ms; /* from the request's last byte to the answer's first */
    uint32_t read_ms;       /* between two reads of the answer */
    uint32_t write_ms;      /* between two writes of the request */
    uint32_t idle_ms;       /* silence both ways in a tunnel */
    uint32_t total_ms;      /* the whole exchange */
};

/* The Host field that a server is sent. */
enum ag_upstream_host_mode {
    AG_UPSTREAM_HOST_KEEP = 0, /* the client's */
    AG_UPSTREAM_HOST_SERVER,   /* the server's own name and port */
    AG_UPSTREAM_HOST_LITERAL,
};

/* As configured; what the files hold is in struct ag_tls_client_settings. */
struct ag_upstream_tls_options {
    bool verify; /* false only by that very word */
    bool h2;     /* offered where the protocol leaves the choice */
    uint32_t handshake_ms;
    struct ag_span server_name; /* SNI, and the name that is verified; empty: the server's */
    const struct ag_node *ca, *cert, *key; /* paths; NULL: the system's store, no certificate */
};

struct ag_upstream_options {
    struct ag_upstream_timeouts timeouts;
    enum ag_upstream_host_mode host_mode;
    struct ag_span host; /* LITERAL */
    /* Connections without a call; a shard's each. */
    uint32_t max_idle;
    uint32_t min_idle; /* are made before anyone asks; 0: none */
    uint32_t idle_timeout_ms;
    uint32_t max_age_ms;   /* a connection older than this takes no other call; 0: any age */
    uint32_t max_requests; /* calls a connection carries; 0: any number */
    /* The whole process's. */
    uint32_t max_connections; /* 0: as many as the shard has room for */
    uint32_t max_pending;     /* requests that wait for a connection */
    uint32_t pending_ms;      /* how long they do; 0: as long as timeouts.connect */
    struct ag_balance_options balance;
    struct ag_retry_policy retry;
    struct ag_buffer_policy buffer;
    struct ag_upstream_tls_options tls;
    struct ag_health_options health;
    /* enum ag_proxy_protocol: a connection begins with a header that tells whose it is. It carries one call then:
     * the next one may be another client's. */
    uint8_t proxy_protocol;
    bool discovered;               /* its servers are looked for by its source */
    struct ag_addresses addresses; /* which of them names may lead to */
};

struct ag_upstream_server {
    struct ag_span host;      /* name, literal without brackets, or unix:/path */
    struct ag_span authority; /* as a Host field has it; "localhost" for unix */
    struct ag_span written;   /* address as configured */
    struct ag_span zone;      /* where it stands; empty: not said */
    uint32_t weight;          /* 1 .. AG_UPSTREAM_WEIGHT_MAX */
    uint32_t max_connections; /* to it, of the whole process; 0: no bound of its own */
    uint16_t port;            /* 0: unix */
    bool backup;              /* asked when no other one takes requests */
    bool remote; /* of another zone than this process: asked when none of its own does */
    bool named;  /* `host` is to be resolved; else `addr` is it */
    bool one_of; /* `host` has several addresses, `addr` is the one that this server is at */
    union ag_addr addr;
};

/* Where its servers are looked for (upstream_discover.h). */
enum ag_upstream_source_kind {
    AG_SOURCE_LISTED = 0, /* nowhere: they are listed */
    AG_SOURCE_SRV,        /* the records of a service (RFC 2782): each target is a server */
    AG_SOURCE_NAME,       /* a name: each of its addresses is one */
};

struct ag_upstream_source {
    enum ag_upstream_source_kind kind;
    uint32_t refresh_ms; /* asked for anew at least that often; 0: by its time to live */
    struct ag_pos pos;
    /* What is found is like this one: its host is the name, its zone theirs. SRV: without a port. */
    struct ag_upstream_server like;
};

/* What its servers are spoken to. */
enum ag_upstream_protocol {
    AG_UPSTREAM_H1 = 0, /* HTTP/1.1 */
    AG_UPSTREAM_H2C,    /* HTTP/2 with prior knowledge (RFC 9113 section 3.3); never over TLS */
    AG_UPSTREAM_H2,     /* HTTP/2 by ALPN alone; always over TLS */
    AG_UPSTREAM_AUTO,   /* HTTP/2 or HTTP/1.1, whichever ALPN settles; always over TLS */
};
#define AG_UPSTREAM_PROTOCOLS 4u

struct ag_upstream {
    uint64_t key[2];    /* hash of name, protocol and TLS: what a connection is good for */
    const void *config; /* a mark of the configuration that it is part of; NULL: of none */
    struct ag_span name;
    struct ag_upstream_server *servers;
    uint32_t server_count; /* 1 .. AG_UPSTREAM_SERVERS_MAX; 0: they are looked for */
    struct ag_upstream_source source;
    struct ag_upstream_options options;
    enum ag_upstream_protocol protocol;
    const struct ag_tls_client_settings *tls; /* NULL: plain; its h1 and h2 fit `protocol` */
    /* Made of `tls`; the snapshot holds it, and so does each pool that outlives that. NULL: plain. */
    struct ag_tls_client *client;
};
