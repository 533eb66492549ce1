/*
 * proxy_tunnel: WebSocket and other protocols through the proxy, between any two versions of HTTP.
 *
 *   client              upstream h1                        upstream h2
 *   h1  Upgrade         Upgrade, 101 verified              extended CONNECT when announced, 2xx, else 502
 *   h2  ext. CONNECT    GET, Upgrade and a key of ours,    extended CONNECT when announced, else 502
 *                       101 verified, told as 200
 *
 * RFC 9110 section 7.8, RFC 6455, RFC 8441. Only WebSocket changes versions: an Upgrade to anything else is left out of
 * what HTTP/2 is asked, as an ordinary request. Where ALPN settles the version, what HTTP/2 does not take goes on a
 * connection of HTTP/1.1.
 */
#pragma once
#include "proto/exchange.h"
#include "proto/websocket.h"

enum ag_proxy_tunnel {
    AG_PROXY_NO_TUNNEL = 0,
    AG_PROXY_UPGRADE, /* asked for in HTTP/1 */
    AG_PROXY_CONNECT, /* by extended CONNECT */
};

struct ag_proxy_tunneling {
    uint8_t asked;                     /* enum ag_proxy_tunnel: by the client */
    uint8_t sent;                      /* of the upstream, with the request that was sent last */
    uint8_t key[AG_WEBSOCKET_KEY_LEN]; /* ours, of CONNECT sent as UPGRADE */
};

/* What the client asks for in a way that may be passed on. */
enum ag_proxy_tunnel ag_proxy_tunnel_asked(const struct ag_request *req);
/* Whether HTTP/1.1 may take what this connection of HTTP/2 does not; `connects`: it takes extended CONNECT. */
bool ag_proxy_tunnel_needs_h1(const struct ag_proxy_tunneling *t, const struct ag_exchange *ex,
                              bool connects);
/* Fields that ag_proxy_tunnel_shape adds at most. */
#define AG_PROXY_TUNNEL_FIELDS 3u
/*
 * Makes `req` and `opts` what the upstream is to be asked.
 *   req       a copy of ex->req with fields of its own, which have room for AG_PROXY_TUNNEL_FIELDS more; may
 *             have been shaped before
 *   h2        what the connection speaks
 *   connects  it takes extended CONNECT
 * NULL, or why it cannot be asked at all (a 502).
 */
AG_MUST_USE const char *ag_proxy_tunnel_shape(struct ag_proxy_tunneling *t, struct ag_exchange *ex,
                                              struct ag_request *req,
                                              struct ag_h1_request_opts *opts, bool h2,
                                              bool connects);

enum ag_proxy_agreement {
    AG_PROXY_ANSWER = 0, /* an ordinary answer */
    AG_PROXY_AGREED,     /* to the tunnel */
    AG_PROXY_DISAGREED,  /* to something else than what was asked for: a 502 */
};
enum ag_proxy_agreement ag_proxy_tunnel_agreement(const struct ag_proxy_tunneling *t,
                                                  const struct ag_request *asked,
                                                  const struct ag_response *res);
/* Makes an agreeing answer in ex->res what the client waits for: 101 with the proof of its own key. To clients
 * of HTTP/2 the server says 200. AG_ENOMEM. */
AG_MUST_USE enum ag_status ag_proxy_tunnel_answer(const struct ag_proxy_tunneling *t,
                                                  struct ag_exchange *ex);
