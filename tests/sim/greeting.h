/*
 * greeting: PROXY headers (proxy-protocol.txt) as the simulation's clients send them and its upstreams read them, by a
 * writer and a reader of its own.
 *
 *   client --header--> listener with proxy_protocol ... upstream with proxy_protocol --header--> server
 *
 * What came in must come out, with the addresses of the connection itself where a header tells none.
 */
#pragma once
#include "tests/sim/net.h"

#define GREETING_MAX 768u
/* What headers name as the address that their connections came to. */
#define GREETING_TO_IP   NET_IP(10, 9, 9, 9)
#define GREETING_TO_PORT 4444u

/* The ends of a connection, as a header tells them. */
struct greeting_ends {
    bool told;
    uint32_t from_ip, to_ip;
    uint16_t from_port, to_port;
};

/* One that is sent. */
struct greeting {
    struct greeting_ends ends;
    bool bad; /* nobody must take it */
    uint8_t bytes[GREETING_MAX];
    uint32_t len;
};

/* One that comes. */
struct greeting_seen {
    struct greeting_ends ends;
    uint8_t bytes[GREETING_MAX];
    uint32_t len;
};

/* Of either version, with or without addresses. `bad`: malformed. */
struct greeting *greeting_make(struct sim *s, bool bad);
/* Sends it ahead of all else; right behind net_connect. NULL is allowed. */
void greeting_send(struct net_end *e, const struct greeting *g);
/* Takes what has arrived of one: 1: it is whole; -EAGAIN; 0 and errors: as net_raw_read. Fails the run when it is none. */
int64_t greeting_read(struct net_end *e, struct greeting_seen *g);
/* Where the connection of end 0 comes from and has come to, by its header `g` (or NULL) and the network. */
struct greeting_ends greeting_ends(const struct net_end *e, const struct greeting *g);
/* Fails the run unless `g` tells what that is. */
void greeting_check(const struct net_end *upstream, const struct greeting_seen *g,
                    const struct net_end *client, const struct greeting *sent);
