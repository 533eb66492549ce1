#include "actions/proxy/proxy_tunnel.h"

#include "actions/proxy/proxy_head.h"

static bool is_websocket(struct ag_span protocol)
{
    return ag_span_ieq(protocol, AG_SPAN("websocket"));
}

enum ag_proxy_tunnel ag_proxy_tunnel_asked(const struct ag_request *req)
{
    if (req->protocol.len > 0) {
        return AG_PROXY_CONNECT;
    }
    return ag_proxy_wants_upgrade(req) ? AG_PROXY_UPGRADE : AG_PROXY_NO_TUNNEL;
}

/* ---- requests ---- */

#define NO_CONNECT "the upstream takes no extended CONNECT"
#define NO_WEBSOCKET \
    "the upstream takes no WebSocket over HTTP/2 (RFC 8441); http, https and wss can do without"

static bool wants_websocket(const struct ag_proxy_tunneling *t, const struct ag_exchange *ex)
{
    const struct ag_field *f;

    if (t->asked == AG_PROXY_CONNECT) {
        return is_websocket(ex->req.protocol);
    }
    f = ag_fields_find(&ex->req.fields, AG_FIELD_UPGRADE, NULL);
    return f && is_websocket(ag_field_value(f));
}

bool ag_proxy_tunnel_needs_h1(const struct ag_proxy_tunneling *t, const struct ag_exchange *ex,
                              bool connects)
{
    return wants_websocket(t, ex) ? !connects : t->asked == AG_PROXY_UPGRADE;
}

/* The key is the proof of HTTP/1 alone (RFC 8441 section 5). */
static void hide_key(struct ag_fields *fields, bool hidden)
{
    for (uint16_t i = 0; i < fields->count; i++) {
        if (fields->v[i].id == AG_FIELD_SEC_WEBSOCKET_KEY) {
            fields->v[i].removed = hidden;
        }
    }
}

static void as_connect(struct ag_request *req, struct ag_span protocol)
{
    req->method = AG_METHOD_CONNECT;
    req->method_name = ag_method_name(AG_METHOD_CONNECT);
    req->protocol = protocol;
    hide_key(&req->fields, true);
}

static void make_key(struct ag_loop *l, uint8_t out[static AG_WEBSOCKET_KEY_LEN])
{
    const uint64_t random[2] = {ag_loop_random(l), ag_loop_random(l)};

    ag_websocket_key((const uint8_t *)random, out);
}

/* Once: the key is not made anew when the request is sent again. */
static bool add_handshake(struct ag_proxy_tunneling *t, struct ag_exchange *ex,
                          struct ag_fields *fields)
{
    struct ag_span key = ag_span(t->key, sizeof(t->key));

    if (t->key[0]) {
        return true;
    }
    make_key(ex->context->loop, t->key);
    return ag_fields_add_id(fields, &ex->arena, AG_FIELD_UPGRADE, AG_SPAN("websocket")) == AG_OK &&
           ag_fields_add_id(fields, &ex->arena, AG_FIELD_SEC_WEBSOCKET_KEY, key) == AG_OK &&
           (ag_fields_find(fields, AG_FIELD_SEC_WEBSOCKET_VERSION, NULL) ||
            ag_fields_add_id(fields, &ex->arena, AG_FIELD_SEC_WEBSOCKET_VERSION, AG_SPAN("13")) ==
                AG_OK);
}

const char *ag_proxy_tunnel_shape(struct ag_proxy_tunneling *t, struct ag_exchange *ex,
                                  struct ag_request *req, struct ag_h1_request_opts *opts, bool h2,
                                  bool connects)
{
    bool websocket = wants_websocket(t, ex);

    req->method = ex->req.method;
    req->method_name = ex->req.method_name;
    req->protocol = AG_SPAN("");
    req->framing = AG_FRAMING_NONE;
    t->sent = AG_PROXY_NO_TUNNEL;
    opts->upgrade = false;
    if (h2 && t->asked == AG_PROXY_UPGRADE && !websocket) {
        return NULL;
    }
    if (h2) {
        as_connect(req, websocket ? AG_SPAN("websocket") : ex->req.protocol);
        t->sent = AG_PROXY_CONNECT;
        return connects ? NULL : websocket ? NO_WEBSOCKET : NO_CONNECT;
    }
    hide_key(&req->fields, false);
    t->sent = AG_PROXY_UPGRADE;
    opts->upgrade = true;
    if (t->asked == AG_PROXY_CONNECT) {
        req->method = AG_METHOD_GET;
        req->method_name = ag_method_name(AG_METHOD_GET);
        if (!websocket) {
            return NO_CONNECT;
        }
        return add_handshake(t, ex, &req->fields) ? NULL : "out of memory for the request";
    }
    return NULL;
}

/* ---- answers ---- */

enum ag_proxy_agreement ag_proxy_tunnel_agreement(const struct ag_proxy_tunneling *t,
                                                  const struct ag_request *asked,
                                                  const struct ag_response *res)
{
    bool success = res->status / 100 == 2;

    switch ((enum ag_proxy_tunnel)t->sent) {
    case AG_PROXY_NO_TUNNEL:
        return AG_PROXY_ANSWER;
    case AG_PROXY_CONNECT:
        return success ? AG_PROXY_AGREED : AG_PROXY_ANSWER;
    case AG_PROXY_UPGRADE:
        break;
    }
    if (res->status == 101) {
        return ag_proxy_upgrade_agreed(asked, res) ? AG_PROXY_AGREED : AG_PROXY_DISAGREED;
    }
    /* A success without a tunnel would be one to a client of HTTP/2. */
    return t->asked == AG_PROXY_CONNECT && success ? AG_PROXY_DISAGREED : AG_PROXY_ANSWER;
}

enum ag_status ag_proxy_tunnel_answer(const struct ag_proxy_tunneling *t, struct ag_exchange *ex)
{
    struct ag_response *res = &ex->res;
    const struct ag_field *key;
    uint8_t *accept;

    res->framing = AG_FRAMING_TUNNEL;
    res->content_length = AG_LENGTH_UNKNOWN;
    if (t->asked == AG_PROXY_CONNECT) {
        ag_fields_remove(&res->fields, AG_FIELD_UPGRADE);
        ag_fields_remove(&res->fields, AG_FIELD_SEC_WEBSOCKET_ACCEPT);
        return AG_OK;
    }
    if (t->sent == AG_PROXY_UPGRADE) {
        return AG_OK;
    }
    key = ag_fields_find(&ex->req.fields, AG_FIELD_SEC_WEBSOCKET_KEY, NULL);
    accept = key ? ag_arena_alloc(&ex->arena, AG_WEBSOCKET_ACCEPT_LEN) : NULL;
    if (!accept) {
        return AG_ENOMEM;
    }
    ag_websocket_accept(ag_field_value(key), accept);
    res->status = 101;
    res->upgrade = true;
    ag_fields_remove(&res->fields, AG_FIELD_SEC_WEBSOCKET_ACCEPT);
    if (ag_exchange_field(ex, AG_FIELD_UPGRADE, AG_SPAN("websocket")) != AG_OK) {
        return AG_ENOMEM;
    }
    return ag_exchange_field(ex, AG_FIELD_SEC_WEBSOCKET_ACCEPT,
                             ag_span(accept, AG_WEBSOCKET_ACCEPT_LEN));
}
