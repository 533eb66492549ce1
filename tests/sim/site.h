/*
 * site: the configurations that runs serve, and the files. Configuration N is a text that follows from N
 * alone; it is compiled once for each process, because the snapshot is immutable (some runs compile one
 * of their own, to see it freed).
 *
 *   /fixed/small, /fixed/large, /fixed/p/:id, /filtered, /echo/..., /r/... -> /fixed/...
 *   /s/...: files    /a/... to /x/...: upstreams (upstream.h)
 *
 * Those from SITE_CONFIGS on have TLS: a listener more, and some upstreams by https and h2. Those from SITE_MORE on,
 * without TLS and with it, have what else comes before HTTP: listeners that pass connections on (relay.h), with SNI and
 * without, and listeners and upstreams of PROXY headers (greeting.h); and of TLS client certificates, both ways, and
 * stapled OCSP responses.
 */
#pragma once
#include "tests/sim/net.h"

#include "router/snapshot.h"

#define SITE_CONFIGS     32u /* without TLS, and as many with it behind them */
#define SITE_MORE        (2u * SITE_CONFIGS)
#define SITE_ALL         (4u * SITE_CONFIGS)
#define SITE_PORT        8080u /* in every configuration; 8081 and 8082 in some */
#define SITE_PORTS       8u
#define SITE_TLS         3u    /* 8083: TLS, where there is any */
#define SITE_RELAY       4u    /* 8084: passed on to q */
#define SITE_SNI         5u    /* 8085: by name to q or r; a PROXY header comes first */
#define SITE_GREETED     6u    /* 8086: a PROXY header, then HTTP */
#define SITE_GREETED_TLS 7u    /* 8087: a PROXY header, then TLS */
#define SITE_BEHIND      7000u /* where q and r listen */
#define SITE_BODY_MAX    131072u
#define SITE_ECHO_MAX    4096u
#define SITE_IP          NET_IP(10, 0, 0, 1)
#define SITE_LARGE       200000u /* bytes of /s/large.bin, which is sent by sendfile */
#define SITE_MIDDLE      40000u
#define SITE_SMALL       1234u
#define SITE_TRUSTED     2u /* so many clients, by address, are believed to be proxies */
#define SITE_FILE_KEY    UINT64_C(7000000)
#define SITE_ATTEMPTS    3u /* of a request, where retries are configured */
#define SITE_HEDGES      1u
/* Times that an upstream sees a request that may happen twice: a dead pooled connection is made up for, too. */
#define SITE_SEEN_MAX (SITE_ATTEMPTS + SITE_HEDGES + 1u)
/* Copies of one, at upstream a. */
#define SITE_COPIES_MAX 1u

enum site_client_auth { SITE_UNASKED = 0, SITE_OPTIONAL, SITE_REQUIRED };

struct site_config {
    uint32_t number;
    bool listens[SITE_PORTS];
    uint32_t header_ms, idle_ms, body_ms, write_ms, drain_ms;
    uint32_t connect_ms, first_byte_ms, read_ms, upstream_write_ms, tunnel_ms, total_ms;
    uint32_t discard_bytes;
    uint32_t few_connections, few_pending; /* of upstream c, */
    bool few_by_server;                    /* or of its server */
    uint32_t max_idle, min_idle, keep_ms, max_age_ms, max_requests;
    uint32_t fixed_large; /* bytes of /fixed/large */
    bool tls;
    uint32_t generation;    /* of certificates: tls.h */
    uint32_t tls_upstreams; /* those that are spoken to by TLS, as bits from 'a' on */
    /* Of upstreams b and h; 0: none. */
    uint32_t check_ms, breaker_errors, breaker_max, slow_start_ms, panic;
    bool retries, hedges;
    bool mirrors; /* of /a/..., to where the requests themselves go */
    uint32_t retry_buffer;
    bool more;
    uint8_t client_auth;     /* enum site_client_auth, of listeners with TLS */
    bool relay_default;      /* q is where other names go */
    uint32_t proxy_protocol; /* of upstream p: 1 or 2; r has the other one */
};

/* Writes files and configuration texts into a directory of its own. */
void site_init(void);
void site_deinit(void);
void site_config(uint32_t number, struct site_config *out);
/* Of upstreams that have a name, servers are listed by it, or found by it, as the configuration's number has it. */
bool site_is_found(const struct site_config *c, char up);
/* The cached one, or (`own`) one that the caller frees. */
struct ag_snapshot *site_snapshot(uint32_t number, bool own);
/* One with TLS, for so many shards and with these ticket keys, that the caller frees. */
struct ag_snapshot *site_snapshot_tls(uint32_t number, uint32_t shard_count,
                                      struct ag_tls_tickets *tickets);
/* The bodies of fixed answers. `large`: of /fixed/large. */
size_t site_fixed_body(uint32_t number, bool large, char *to, size_t max);
