/*
 * resolver: names to addresses, and to places of services (SRV, RFC 2782), asynchronously, by c-ares on the
 * loop's own sockets and timers.
 *
 * Numeric addresses and unix paths need no resolver and complete as well (from the loop). Answers are
 * shared by name within the shard and kept for their TTL (at least 1 s, at most 1 h); failures for 1 s. An
 * answer has one TTL, the shortest of its records.
 */
#pragma once
#include "engine/dns_srv.h"
#include "engine/loop.h"

#define AG_RESOLVE_MAX      16u  /* addresses of one answer, for who connects to any of them */
#define AG_RESOLVE_ALL      256u /* the same, for who asks for all of them */
#define AG_RESOLVER_SERVERS 8u

/* Whom to ask, and how patiently. */
struct ag_resolver_settings {
    /* "ip:port,[ip6]:port", at most AG_RESOLVER_SERVERS; empty: as /etc/resolv.conf says. */
    char servers[AG_RESOLVER_SERVERS * (INET6_ADDRSTRLEN + sizeof("[]:65535,"))];
    uint32_t timeout_ms; /* of a server's answer; twice that in the second round, and so on */
    uint32_t attempts;   /* rounds: how often each server is asked */
};

#define AG_RESOLVER_SETTINGS_DEFAULT      \
    {                                     \
        .timeout_ms = 2000, .attempts = 3 \
    }

struct ag_resolve;
typedef void ag_resolve_fn(struct ag_resolve *);

/* Embedded in its owner; must stay until done, or be cancelled. */
struct ag_resolve {
    ag_resolve_fn *done;
    struct ag_link link; /* private */
    struct ag_task task; /* private */
    struct ag_loop *loop;
    /* Set by the owner. */
    bool anew;          /* what is known does not do: the name servers are asked */
    union ag_addr *all; /* room for AG_RESOLVE_ALL: the whole answer, beside `addr`; or NULL */
    /* outputs: AG_OK, AG_ENOENT (no such name), AG_AGAIN (time-out or server failure) */
    enum ag_status status;
    const char *error; /* static text of the cause */
    /* In the order to try them: the best first (RFC 6724), then the families in turn (RFC 8305 section 4). */
    union ag_addr addr[AG_RESOLVE_MAX];
    uint32_t count;
    uint32_t all_count;
    bool cut;            /* there are more than AG_RESOLVE_ALL */
    uint64_t expires_ms; /* loop time */
};

struct ag_resolve_srv;
typedef void ag_resolve_srv_fn(struct ag_resolve_srv *);

/* The same for the places of a service. 66 KB: one a source of servers, none by request. */
struct ag_resolve_srv {
    ag_resolve_srv_fn *done;
    struct ag_link link; /* private */
    struct ag_task task; /* private */
    struct ag_loop *loop;
    bool anew; /* as above */
    /* outputs as above; AG_ENOENT also when the service is said not to be there (a target of ".") */
    enum ag_status status;
    const char *error;
    uint32_t count;
    bool cut; /* there are more than AG_SRV_MAX */
    uint64_t expires_ms;
    /* By priority, within one by chance of weight, anew each time; their addresses are looked up by host. */
    struct ag_srv_target targets[AG_SRV_MAX];
};

/* Names come from /etc/hosts, then from the servers of /etc/resolv.conf (which is read here, once).
 * AG_ENOMEM, or AG_ESYS when c-ares cannot be set up. */
AG_MUST_USE enum ag_status ag_resolver_init(struct ag_loop *l);
/* Every lookup must be done or cancelled. From outside the loop's callbacks: it turns the loop until its
 * sockets are closed. Harmless when not initialised. */
void ag_resolver_deinit(struct ag_loop *l);
/* Asks by these from now on, at any time on the loop's thread. When they are others than before, what is known is asked
 * for anew, and so is what is under way. With servers of its own nothing of /etc/resolv.conf counts: names are whole as they
 * are. AG_EINVAL (servers), AG_ENOMEM, AG_ESYS (also where there is no /dev/urandom): all stays as it is. */
AG_MUST_USE enum ag_status ag_resolver_configure(struct ag_loop *l,
                                                 const struct ag_resolver_settings *settings);
/* `host` (borrowed for the call): a name, an IPv4 or IPv6 literal (without brackets), or "unix:/path".
 * `port` is put into each address, in host order here. */
void ag_resolve_start(struct ag_loop *l, struct ag_resolve *r, struct ag_span host, uint16_t port,
                      ag_resolve_fn *done);
/* done() will not be called. Harmless when it has been, or when `r` is all zero. */
void ag_resolve_cancel(struct ag_resolve *r);
/* `name` (borrowed for the call): "_http._tcp.example.com". Asked for as it is: neither /etc/hosts nor domains to search
 * count. */
void ag_resolve_srv_start(struct ag_loop *l, struct ag_resolve_srv *r, struct ag_span name,
                          ag_resolve_srv_fn *done);
void ag_resolve_srv_cancel(struct ag_resolve_srv *r);

struct ag_addr_list {
    uint32_t count;
    union ag_addr each[];
};

/* Bytes of the sockaddr that `a` holds. */
socklen_t ag_addr_len(const union ag_addr *a);
/* Whether both name the same place: family, address, port, scope, path. */
bool ag_addr_same(const union ag_addr *a, const union ag_addr *b);
/* 0.0.0.0 or ::, which stand for every address of their family. */
bool ag_addr_is_any(const union ag_addr *a);
/* Whether no two sockets can listen on both: the same place, or one port and one of them every address. An IPv6
 * socket is taken to be for IPv6 alone. */
bool ag_addr_overlaps(const union ag_addr *a, const union ag_addr *b);
/* An IPv4 address in IPv6's clothes (::ffff:1.2.3.4, RFC 4291 2.5.5.2) becomes plain IPv4: so a client
 * has one address, whichever kind of socket it came by. Others stay. */
void ag_addr_unmap(union ag_addr *a);
/* 127.0.0.0/8, ::1, and the former in IPv6's clothes. */
bool ag_addr_is_loopback(const union ag_addr *a);
/* Whether who connects to `to` gets to a socket that listens at `listen`, itself or as one of all of the machine's.
 *   from  where such a connection has come from; NULL: it is not made yet, and loopback alone is known to be here */
bool ag_addr_leads_to(const union ag_addr *to, const union ag_addr *from,
                      const union ag_addr *listen);
/* Parses "1.2.3.4", "::1" or "unix:/path"; port in host order. AG_EINVAL. */
AG_MUST_USE enum ag_status ag_addr_parse(struct ag_span host, uint16_t port,
                                         union ag_addr *out_addr);
/* "1.2.3.4" */
void ag_addr_put_ipv4(struct ag_buf *out, const uint8_t octets[static 4]);
/* "1.2.3.4:80", "[::1]:80", "unix:/path"; without the port when `port` is false (and no brackets). */
void ag_addr_format(const union ag_addr *a, bool port, struct ag_buf *out);
