/*
 * proxy_head: what a request looks like to the upstream, and its answer to the client.
 *
 *   request   connection fields go, forwarding fields are extended or replaced, Via is added
 *   answer    connection fields go, Via is added, framing becomes the server's own
 *
 * Connection-specific fields and those that Connection names are removed (RFC 9110 section 7.6.1);
 * those that carry identity, routing or meaning cannot be named away, nor can what filters have added.
 * Forwarding fields (X-Forwarded-*, Forwarded, X-Real-IP) are believed from trusted peers alone; those
 * that a filter has set stand as they are. `Proxy` is dropped, and so are names with "_" that a CGI-like
 * upstream would take for a field that is known or set here.
 */
#pragma once
#include "engine/networks.h"
#include "proto/exchange.h"

/* More entries of our own in Via or CDN-Loop are a loop (RFC 8586). */
#define AG_PROXY_HOPS_MAX 5u

/* What a request's fields tell beside. */
struct ag_proxy_told {
    unsigned hops;    /* it went through here so often before */
    bool te_trailers; /* its client takes trailers */
};

/*
 * Fills `out` (in the exchange's arena) with the fields to send.
 * AG_EPROTO: Connection lists too much. AG_ENOMEM.
 */
AG_MUST_USE enum ag_status ag_proxy_request_fields(struct ag_exchange *ex,
                                                   const struct ag_networks *trust, bool upgrade,
                                                   struct ag_fields *out,
                                                   struct ag_proxy_told *out_told);

/*
 * Sets ex->res to the upstream's answer: status, reason, fields, framing.
 *   owner  holds the bytes of `from`; kept by the exchange when they are many, else they are copied. NULL:
 *          they lie in the exchange's arena already, or are static
 * AG_EPROTO: Connection lists too much. AG_ENOMEM.
 */
AG_MUST_USE enum ag_status ag_proxy_response(struct ag_exchange *ex, const struct ag_response *from,
                                             struct ag_block *owner);
/* An interim answer's fields, without those of the connection. `room` has AG_PROXY_INTERIM_FIELDS;
 * what is beyond is left out. */
#define AG_PROXY_INTERIM_FIELDS 64u
struct ag_fields ag_proxy_interim_fields(const struct ag_response *from, struct ag_field *room);

/* Whether the request asks for another protocol in a way that may be passed on: one protocol, no
 * content, not HTTP/2 in cleartext; a WebSocket with a valid key. */
bool ag_proxy_wants_upgrade(const struct ag_request *req);
/* Whether a 101 answer agrees to what `req` asked for (RFC 6455 section 4.1 for WebSocket). */
bool ag_proxy_upgrade_agreed(const struct ag_request *req, const struct ag_response *res);
