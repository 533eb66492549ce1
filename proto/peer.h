/*
 * peer: a client's address in few bytes: it does not change, and idle connections are to be small.
 */
#pragma once
#include "engine/stream.h"

/* All zero: not asked for yet. */
struct ag_peer {
    uint16_t port;  /* network order */
    uint8_t family; /* AF_INET, AF_INET6, AF_UNIX; AF_UNSPEC: not asked for, or not known */
    uint8_t bytes[16];
};

/* `addr` in few bytes. */
void ag_peer_set(struct ag_peer *p, const union ag_addr *addr);
/* Asks the stream for it, once; and what is known (AF_UNSPEC: nothing). */
void ag_peer_look(struct ag_peer *p, struct ag_stream *s);
void ag_peer_known(const struct ag_peer *p, union ag_addr *out_addr);
/* Both: the address of the stream's peer. */
void ag_peer_address(struct ag_peer *p, struct ag_stream *s, union ag_addr *out_addr);
