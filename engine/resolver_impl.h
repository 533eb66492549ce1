/*
 * resolver_impl: what the files of the resolver share. Private to engine/resolver*.c.
 *
 *   resolver.c         look-ups: begin, cancel, who is told
 *   resolver_cache.c   names, their answers, who waits for them
 *   resolver_ares.c    asks: c-ares on the loop's sockets and timers
 *
 *   start --find, take--> entry --fresh--> answered by task
 *                           `--ask--> pending --settle--> each waiter answered by task
 */
#pragma once
#include "engine/backend.h"
#include "engine/resolver.h"

#define AG_RESOLVER_NAMES 256u /* remembered or being asked for: addresses */
#define AG_RESOLVER_SRVS  64u  /* the same: SRV */
#define AG_RESOLVER_SOCKS 32u

struct ares_channeldata;

/* A socket of c-ares. It stays open until the loop's polls on it have ended, though c-ares has let go. */
struct ag_resolver_sock {
    struct ag_fd fd;
    struct ag_op rd, wr;   /* polls, resubmitted while wanted */
    bool want_rd, want_wr; /* c-ares waits for it */
    bool used, closing;
};

/* An address without a port. */
struct ag_resolver_host {
    sa_family_t family;
    union {
        struct in_addr in;
        struct in6_addr in6;
    };
};

/* A name and its answer, or the look-up that will bring it. The first member of what holds the answer. */
struct ag_resolver_entry {
    struct ag_resolver *owner;
    struct ag_link waiters; /* by kind: struct ag_resolve or ag_resolve_srv, while pending */
    uint64_t expires_ms;
    uint64_t used_at; /* of `uses`: the longest unused goes first */
    const char *error;
    enum ag_status status;
    enum ag_lookup_kind kind;
    uint32_t count; /* of what the answer has */
    bool used, pending;
    uint8_t name_len;
    char name[AG_DNS_NAME_MAX + 1]; /* lower case */
};

struct ag_resolver_name {
    struct ag_resolver_entry entry;
    bool cut; /* there were more */
    struct ag_resolver_host hosts[AG_RESOLVE_ALL];
};

struct ag_resolver_srv {
    struct ag_resolver_entry entry;
    struct ag_srv_answer answer;
};

/* Addresses as they come, at most AG_RESOLVE_ALL of each family; each once. */
struct ag_resolver_gather {
    struct ag_resolver_host hosts[2][AG_RESOLVE_ALL];
    uint32_t count[2];
    bool cut;       /* there were more */
    unsigned first; /* whose family came first */
};

struct ag_resolver {
    struct ag_loop *loop;
    struct ares_channeldata *channel; /* NULL: somebody else looks names up (struct ag_system) */
    struct ag_resolver_settings settings;
    struct ag_timer timer; /* c-ares's next time-out */
    uint64_t uses;
    struct ag_resolver_sock socks[AG_RESOLVER_SOCKS];
    struct ag_resolver_gather gather; /* of the answer that is being read */
    struct ag_resolver_name names[AG_RESOLVER_NAMES];
    struct ag_resolver_srv srvs[AG_RESOLVER_SRVS];
};

/* ---- resolver_cache.c ---- */

/* Letters, digits, '-', '_' and '.', in lower case. False: no host name. */
bool ag_resolver_normalise(struct ag_span host, char out[static AG_DNS_NAME_MAX + 1]);
/* NULL: nothing is known of it. */
struct ag_resolver_entry *ag_resolver_find(struct ag_resolver *v, enum ag_lookup_kind kind,
                                           const char *name, size_t len);
/* A free entry for it, or the one that was not asked for the longest. NULL: all are being looked up. */
struct ag_resolver_entry *ag_resolver_take(struct ag_resolver *v, enum ag_lookup_kind kind,
                                           const char *name, size_t len);
/* Entry `at`, of both kinds; NULL behind the last. */
struct ag_resolver_entry *ag_resolver_entry_at(struct ag_resolver *v, size_t at);

/* Empty. */
struct ag_resolver_gather *ag_resolver_gather_begin(struct ag_resolver *v);
/* Neither IPv4 nor IPv6: left out. */
void ag_resolver_gather_add(struct ag_resolver_gather *g, const union ag_addr *a);
/*
 * What is pending is answered, for `ttl_ms`: with all that was gathered, the families in turn, the first one first
 * (RFC 8305 section 4); with what lies in its answer; or
 * with a failure.
 */
void ag_resolver_settle_hosts(struct ag_resolver_entry *e, const struct ag_resolver_gather *g,
                              uint64_t ttl_ms);
void ag_resolver_settle_srv(struct ag_resolver_srv *s);
void ag_resolver_settle_failed(struct ag_resolver_entry *e, enum ag_status status,
                               const char *error);

/* ---- resolver.c ---- */

/* Tells those who wait for `e`, which is no longer pending. */
void ag_resolver_tell(struct ag_resolver_entry *e);

/* ---- resolver_ares.c ---- */

/* Asks by `settings` from now on; what is under way is asked again. AG_ENOMEM, AG_ESYS, AG_EINVAL (servers): all is
 * as before. */
AG_MUST_USE enum ag_status ag_resolver_open_channel(struct ag_resolver *v,
                                                    const struct ag_resolver_settings *settings);
/* Gives up all that is asked for, and turns the loop until its sockets are closed. */
void ag_resolver_close_channel(struct ag_resolver *v);
/* Asks for `e`, which is pending. May settle it at once. */
void ag_resolver_ask(struct ag_resolver_entry *e);
