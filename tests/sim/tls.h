/*
 * tls: TLS on a simulated connection, as clients and upstreams speak it: OpenSSL, so that what the server's
 * library says is read by another one. A layer on an end (net.h): its owner reads and writes plain bytes.
 *
 *   owner --net_write--> record --net_raw_write--> pipe     one record at a time, when there is room for all of it
 *   owner <--net_read--- SSL    <--net_raw_read--- pipe     as much as the owner asks for
 *
 * An end of input without a close_notify is an error, as a reset is. A handshake goes on by itself as bytes
 * arrive; afterwards nothing is read that the owner does not ask for.
 *
 * The server's certificates come in generations (site.h), which a leaf's common name tells: NAME-GENERATION. A client
 * is shown the name that it asks for, of a configuration that was current meanwhile; and it resumes what was made
 * for that name, under settings that are current again, with a key that is not too old.
 */
#pragma once
#include "tests/sim/net.h"

#define TLS_PORT        443u /* of upstreams, beside 80 */
#define TLS_GENERATIONS 3u
#define TLS_TICKET_KEYS 2u /* that the server's ring holds */
#define TLS_STAPLES     2u /* OCSP responses that there are for a certificate */

/* ---- once for each process ---- */

/* Makes certificates and writes them to `dir`: ca.pem, sim-N.pem and other-N.pem with their keys (N: the generation),
 * and keeps those of upstreams. */
void tls_init(const char *dir);
/* Removes what was written, too. */
void tls_deinit(const char *dir);

/* ---- each run ---- */

/* Forgets the last run. */
void tls_begin(struct sim *s);
/* Gives back what the run's ends have. */
void tls_end(void);
/* What the server's ticket keys have become: one more. */
void tls_keys_turn(void);

/* ---- ends ---- */

enum tls_harm {
    TLS_SOUND = 0,
    TLS_SPOIL,   /* one byte that is sent is another one */
    TLS_SILENCE, /* nothing is sent any more */
};

/* What a client shows when it is asked. */
enum tls_shown { TLS_SHOWS_NONE = 0, TLS_SHOWS_GOOD, TLS_SHOWS_STRANGER };

/* What a client says. */
struct tls_ways {
    bool h2;          /* by ALPN; else http/1.1, or nothing */
    bool resumes;     /* a good ticket has to be taken */
    bool passes;      /* through the server, to an upstream: nothing of it is the server's */
    const char *name; /* of that one; NULL: none is asked for */
    uint8_t shows;    /* enum tls_shown */
    bool
        asks_status; /* for a stapled OCSP response, which the next one is shown; empty: none came */
    void (*stapled)(const struct net_end *, uint32_t generation, struct ag_span der);
    uint8_t harm;
    uint64_t harm_at; /* in bytes sent, records as they are */
    /* The generations that may be shown, as bits, and the settings (certificate, whether clients are asked for
     * theirs) that may hold; asked when the handshake is done. */
    uint32_t (*generations)(const struct net_end *);
    uint32_t (*settings)(const struct net_end *);
};

void tls_connect(struct net_end *e, const struct tls_ways *ways);
/* `stranger`: its certificate is nobody's; nobody shakes hands with it. */
void tls_accept(struct net_end *e, bool h2, bool stranger);
/* Behind it: the client must show the certificate of CN=me. */
void tls_demand(struct net_end *e);
