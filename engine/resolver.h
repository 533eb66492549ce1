/*
 * resolver: names to addresses, asynchronously, by c-ares on the loop's own sockets and timers.
 *
 * Numeric addresses and unix paths need no resolver and complete as well (from the loop). Answers are
 * shared by name within the shard and kept for their TTL (at least 1 s, at most 1 h); failures for 1 s.
 */
#pragma once
#include "engine/loop.h"

#define AG_RESOLVE_MAX 16u /* addresses kept of one answer */

struct ag_resolve;
typedef void ag_resolve_fn(struct ag_resolve *);

/* Embedded in its owner; must stay until done, or be cancelled. */
struct ag_resolve {
    ag_resolve_fn *done;
    struct ag_link link; /* private */
    struct ag_task task; /* private */
    struct ag_loop *loop;
    /* outputs: AG_OK, AG_ENOENT (no such name), AG_AGAIN (time-out or server failure) */
    enum ag_status status;
    const char *error; /* static text of the cause */
    union ag_addr addr[AG_RESOLVE_MAX];
    uint32_t count;
    uint64_t expires_ms; /* loop time */
};

/* Names come from /etc/hosts, then from the servers of /etc/resolv.conf (which is read here, once).
 * AG_ENOMEM, or AG_ESYS when c-ares cannot be set up. */
AG_MUST_USE enum ag_status ag_resolver_init(struct ag_loop *l);
/* Every lookup must be done or cancelled. From outside the loop's callbacks: it turns the loop until its
 * sockets are closed. Harmless when not initialised. */
void ag_resolver_deinit(struct ag_loop *l);
/* Asks these servers ("ip:port,[ip6]:port") instead, before the first lookup. AG_EINVAL. */
AG_MUST_USE enum ag_status ag_resolver_set_servers(struct ag_loop *l, const char *servers);
/* `host` (borrowed for the call): a name, an IPv4 or IPv6 literal (without brackets), or "unix:/path".
 * `port` is put into each address, in host order here. */
void ag_resolve_start(struct ag_loop *l, struct ag_resolve *r, struct ag_span host, uint16_t port,
                      ag_resolve_fn *done);
/* done() will not be called. Harmless when it has been, or when `r` is all zero. */
void ag_resolve_cancel(struct ag_resolve *r);

/* Bytes of the sockaddr that `a` holds. */
socklen_t ag_addr_len(const union ag_addr *a);
/* Whether both name the same place: family, address, port, scope, path. */
bool ag_addr_same(const union ag_addr *a, const union ag_addr *b);
/* An IPv4 address in IPv6's clothes (::ffff:1.2.3.4, RFC 4291 2.5.5.2) becomes plain IPv4: so a client
 * has one address, whichever kind of socket it came by. Others stay. */
void ag_addr_unmap(union ag_addr *a);
/* Parses "1.2.3.4", "::1" or "unix:/path"; port in host order. AG_EINVAL. */
AG_MUST_USE enum ag_status ag_addr_parse(struct ag_span host, uint16_t port,
                                         union ag_addr *out_addr);
/* "1.2.3.4:80", "[::1]:80", "unix:/path"; without the port when `port` is false (and no brackets). */
void ag_addr_format(const union ag_addr *a, bool port, struct ag_buf *out);
