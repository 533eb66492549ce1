/*
 * proxy_protocol: the header that a balancer puts before a connection that it passes on, to tell whose it is
 * (HAProxy's proxy-protocol.txt, versions 1 and 2). Reading and writing.
 *
 *   v1:  PROXY TCP4 192.0.2.1 192.0.2.2 56324 443 CR LF      or TCP6, or UNKNOWN and anything; at most 107 bytes
 *   v2:  [ signature 12 | 2, command | family, transport | length 2 ][ addresses ][ type | length 2 | value ]...
 *
 * Who may be believed is for the caller to say: anybody can write this.
 */
#pragma once
#include "engine/tls_session.h"
#include "proto/peer.h"

/* Of a header that is read, bytes. Real ones have 28 to 600; the rest are certificates. */
#define AG_PROXY_PROTOCOL_MAX 4096u
/* Of one that is written. */
#define AG_PROXY_PROTOCOL_OUT_MAX 768u
/* What is kept of texts; longer protocols and names are not, a longer id is a mistake. */
#define AG_PROXIED_ALPN_MAX      32u
#define AG_PROXIED_AUTHORITY_MAX 255u
#define AG_PROXIED_ID_MAX        128u

enum ag_proxy_protocol { AG_PROXY_PROTOCOL_NONE = 0, AG_PROXY_PROTOCOL_V1, AG_PROXY_PROTOCOL_V2 };

/* What a header tells of the connection behind it. */
struct ag_proxied {
    /* AF_INET or AF_INET6; both AF_UNSPEC: the connection's own addresses hold (LOCAL, UNKNOWN, and what is no
     * TCP). */
    struct ag_peer source, destination;
    bool tls; /* the client speaks TLS to the sender */
    uint8_t alpn_len, authority_len, id_len;
    uint8_t alpn[AG_PROXIED_ALPN_MAX];
    uint8_t authority[AG_PROXIED_AUTHORITY_MAX]; /* the name that the client asked for */
    uint8_t id[AG_PROXIED_ID_MAX];               /* the sender's name of the connection */
};

/*
 * Reads the header that `in`, all that has come so far, begins with.
 *   out      filled in by AG_OK, else untouched
 *   out_len  bytes of the header; what follows is the connection's
 *   out_why  of AG_EPROTO and AG_ELIMIT: a static phrase
 * AG_AGAIN: it is not whole, and nothing is wrong with it so far; AG_EPROTO: malformed, or no header; AG_ELIMIT:
 * longer than AG_PROXY_PROTOCOL_MAX. Families and transports that are none (section 2.2) are malformed; of those
 * that are none of ours (unix, datagrams) the addresses are ignored, the rest is read. A checksum that is there
 * must be right.
 */
AG_MUST_USE enum ag_status ag_proxy_protocol_read(struct ag_span in, struct ag_proxied *out,
                                                  size_t *out_len, const char **out_why);

/* Where the client has connected to: what the header tells (`p`, or NULL), else the stream's own address. */
void ag_proxied_local(const struct ag_proxied *p, struct ag_stream *s, union ag_addr *out_addr);

/*
 * Writes a header, AG_PROXY_PROTOCOL_OUT_MAX bytes at most.
 *   version              not NONE
 *   source, destination  of the client's connection; where one is no IP address (or one is not known), neither is
 *                        told. Of two families both are told as IPv6
 *   tls                  v2: what the client's handshake has settled is told (protocol, name, version, cipher,
 *                        whether it has shown a good certificate); NULL: it is plain
 */
void ag_proxy_protocol_put(struct ag_buf *out, enum ag_proxy_protocol version,
                           const union ag_addr *source, const union ag_addr *destination,
                           const struct ag_tls_session *tls);
/* The header of a connection that is the sender's own: a health check's, for example. */
void ag_proxy_protocol_put_local(struct ag_buf *out, enum ag_proxy_protocol version);
