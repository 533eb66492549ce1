#include "actions/proxy/proxy_head.h"

#include "actions/proxy/proxy_forward.h"
#include "actions/proxy/proxy_tunnel.h"
#include "proto/websocket.h"

/* Connection may name so many fields; nobody needs more than two or three. */
#define NOMINATED_MAX 16u
/* Heads up to this are copied, but for small answers: cheaper than to keep a receive buffer until the exchange ends. */
#define COPY_MAX 2048u
/* What is added to a request's fields: the forwarding ones, Via, a tunnel's. */
#define ADDED_MAX (AG_FORWARDS + 1u + AG_PROXY_TUNNEL_FIELDS)
/* Longest name that is compared as an alias. */
#define ALIAS_MAX 64u

#define VIA_NAME "anygate"

_Static_assert(AG_FIELDS <= 64, "sets of fields are 64 bits");
#define BIT(id) (UINT64_C(1) << (id))

/* Of one connection alone, or rewritten by what this connection does. */
#define CONNECTION_FIELDS                                                                   \
    (BIT(AG_FIELD_CONNECTION) | BIT(AG_FIELD_KEEP_ALIVE) | BIT(AG_FIELD_PROXY_CONNECTION) | \
     BIT(AG_FIELD_TRANSFER_ENCODING) | BIT(AG_FIELD_CONTENT_LENGTH) | BIT(AG_FIELD_TE) |    \
     BIT(AG_FIELD_HTTP2_SETTINGS) | BIT(AG_FIELD_PROXY_AUTHENTICATE) |                      \
     BIT(AG_FIELD_PROXY_AUTHORIZATION))

/* A peer may name its own fields as connection-specific, but never those that others rely on
 * (CVE-2022-31813). */
#define UNNAMEABLE_FIELDS                                                                         \
    (BIT(AG_FIELD_AUTHORIZATION) | BIT(AG_FIELD_HOST) | BIT(AG_FIELD_COOKIE) |                    \
     BIT(AG_FIELD_SET_COOKIE) | BIT(AG_FIELD_X_FORWARDED_FOR) | BIT(AG_FIELD_X_FORWARDED_HOST) |  \
     BIT(AG_FIELD_X_FORWARDED_PROTO) | BIT(AG_FIELD_FORWARDED) | BIT(AG_FIELD_VIA) |              \
     BIT(AG_FIELD_CDN_LOOP) | BIT(AG_FIELD_ORIGIN) | BIT(AG_FIELD_CONTENT_TYPE) |                 \
     BIT(AG_FIELD_CONTENT_ENCODING) | BIT(AG_FIELD_CONTENT_RANGE) | BIT(AG_FIELD_CACHE_CONTROL) | \
     BIT(AG_FIELD_VARY) | BIT(AG_FIELD_WWW_AUTHENTICATE) | BIT(AG_FIELD_DATE) |                   \
     BIT(AG_FIELD_EXPECT))

struct nominated {
    struct ag_span v[NOMINATED_MAX];
    uint32_t count;
};

static bool has_bit(uint64_t set, const struct ag_field *f)
{
    return BIT(f->id) & set;
}

/* Content whose length was told has no trailers in HTTP/1. */
static bool may_trail(uint8_t framing, uint64_t length)
{
    return framing == AG_FRAMING_CHUNKED ||
           (framing == AG_FRAMING_H2 && length == AG_LENGTH_UNKNOWN);
}

/* ---- fields named by Connection ---- */

static bool is_own_option(struct ag_span s)
{
    return ag_span_eq(s, AG_SPAN("keep-alive")) || ag_span_ieq(s, AG_SPAN("keep-alive")) ||
           ag_span_ieq(s, AG_SPAN("close")) || ag_span_ieq(s, AG_SPAN("upgrade")) ||
           ag_span_ieq(s, AG_SPAN("te"));
}

/* Of one Connection field. */
static enum ag_status read_options(struct ag_span value, struct nominated *io)
{
    struct ag_span option;
    size_t at = 0;

    if (is_own_option(value)) {
        return AG_OK; /* as nearly all do: spares the walk */
    }
    while (ag_list_next(value, &at, &option)) {
        if (is_own_option(option)) {
            continue;
        }
        if (io->count == NOMINATED_MAX) {
            return AG_EPROTO;
        }
        io->v[io->count++] = option;
    }
    return AG_OK;
}

static bool is_nominated(const struct nominated *n, const struct ag_field *f)
{
    for (uint32_t i = 0; i < n->count; i++) {
        if (ag_span_ieq(n->v[i], ag_field_key(f)) && !has_bit(UNNAMEABLE_FIELDS, f)) {
            return true;
        }
    }
    return false;
}

/* Takes what is nominated out of the first `count` of a list that is to be passed on. Rarely there is any: so one walk
 * makes the list and finds out. */
static void drop_nominated(const struct nominated *n, uint16_t count, struct ag_fields *io)
{
    uint16_t kept = 0;

    for (uint16_t i = 0; n->count > 0 && i < io->count; i++) {
        if (i >= count || !is_nominated(n, &io->v[i])) {
            io->v[kept++] = io->v[i];
        }
    }
    io->count = n->count > 0 ? kept : io->count;
}

/* ---- requests ---- */

struct request_walk {
    struct ag_exchange *ex;
    bool trusted, upgrade;
    struct ag_proxy_told told;
    struct ag_proxy_forward forward;
    struct nominated nominated;
};

/* Whether the client sent it; else a filter has added it. */
static bool is_received(const struct ag_exchange *ex, const struct ag_field *f)
{
    return f - ex->req.fields.v < ex->req.received_count;
}

/* Entries of ours: "1.1 anygate" in Via, "anygate" in CDN-Loop. */
static unsigned count_hops(const struct ag_field *f)
{
    struct ag_span entry;
    size_t at = 0;
    unsigned n = 0;

    while (ag_list_next(ag_field_value(f), &at, &entry)) {
        if (f->id == AG_FIELD_VIA) {
            entry = ag_span_trim(
                ag_span_sub(entry, ag_min_size(ag_span_find(entry, ' '), entry.len), entry.len));
        }
        entry =
            ag_span_sub(entry, 0, ag_min_size(ag_span_find(entry, ' '), ag_span_find(entry, ';')));
        n += ag_span_ieq(entry, AG_SPAN(VIA_NAME));
    }
    return n;
}

static bool starts_forwarding(struct ag_span name)
{
    static const struct ag_span prefix = AG_SPAN_INIT("x-forwarded-");

    return (name.len > prefix.len && ag_span_ieq(ag_span_sub(name, 0, prefix.len), prefix)) ||
           ag_span_ieq(name, AG_SPAN("x-real-ip"));
}

/* Whether CGI and its like would read the name as one that is known, forwarding, or added here. */
static bool is_alias(const struct ag_exchange *ex, struct ag_span name)
{
    uint8_t text[ALIAS_MAX];
    struct ag_span plain;
    const struct ag_fields *all = &ex->req.fields;

    if (name.len > sizeof(text) || !memchr(name.ptr, '_', name.len)) {
        return false;
    }
    for (size_t i = 0; i < name.len; i++) {
        text[i] = name.ptr[i] == '_' ? '-' : name.ptr[i];
    }
    plain = ag_span(text, name.len);
    if (ag_field_id_from_name(plain) != AG_FIELD_OTHER || starts_forwarding(plain)) {
        return true;
    }
    for (uint16_t i = 0; i < all->count; i++) {
        if (!is_received(ex, &all->v[i]) && ag_span_ieq(plain, ag_field_key(&all->v[i]))) {
            return true;
        }
    }
    return false;
}

/* Whether a field that the client sent is passed on. */
static bool keeps_received(const struct request_walk *w, const struct ag_field *f)
{
    struct ag_span name = ag_field_key(f);

    if (f->id != AG_FIELD_OTHER) {
        return f->id != AG_FIELD_PROXY;
    }
    if ((name.ptr[0] | 0x20) == 'x' && !w->trusted && starts_forwarding(name)) {
        return false;
    }
    return !is_alias(w->ex, name);
}

/* Fields that are looked at before they go on; the others go as they are, unless Connection names them. */
#define LOOKED_AT_FIELDS                                                                          \
    (CONNECTION_FIELDS | BIT(AG_FIELD_OTHER) | BIT(AG_FIELD_X_FORWARDED_FOR) |                    \
     BIT(AG_FIELD_X_FORWARDED_HOST) | BIT(AG_FIELD_X_FORWARDED_PROTO) | BIT(AG_FIELD_FORWARDED) | \
     BIT(AG_FIELD_VIA) | BIT(AG_FIELD_CDN_LOOP) | BIT(AG_FIELD_HOST) | BIT(AG_FIELD_UPGRADE) |    \
     BIT(AG_FIELD_EXPECT) | BIT(AG_FIELD_TRAILER) | BIT(AG_FIELD_PROXY))

/* One of them; *out_keep tells whether it goes as it is. */
static enum ag_status walk_field(struct request_walk *w, const struct ag_field *f, bool *out_keep)
{
    bool received = is_received(w->ex, f);
    unsigned forward = ag_proxy_forward_index((enum ag_field_id)f->id);

    *out_keep = false;
    if (forward < AG_FORWARDS) {
        if (!received) {
            w->forward.fixed[forward] = true;
            *out_keep = true;
        } else if (w->trusted) {
            return ag_proxy_forward_seen(&w->forward, w->ex, forward, ag_field_value(f));
        }
        return AG_OK;
    }
    if (f->id == AG_FIELD_CONNECTION) {
        return read_options(ag_field_value(f), &w->nominated);
    }
    if (f->id == AG_FIELD_VIA || f->id == AG_FIELD_CDN_LOOP) {
        w->told.hops += count_hops(f);
    }
    if (f->id == AG_FIELD_TE && ag_list_has(ag_field_value(f), AG_SPAN("trailers"))) {
        w->told.te_trailers = true;
    }
    if (has_bit(CONNECTION_FIELDS | BIT(AG_FIELD_HOST), f) ||
        (f->id == AG_FIELD_UPGRADE && !w->upgrade) ||
        (f->id == AG_FIELD_EXPECT && !w->ex->req.expect_continue) ||
        (f->id == AG_FIELD_TRAILER && !may_trail(w->ex->req.framing, w->ex->req.content_length))) {
        return AG_OK;
    }
    *out_keep = !received || keeps_received(w, f);
    return AG_OK;
}

/* As a line of HTTP/1, with the CRLF before it. */
static struct ag_span via_of(uint8_t version)
{
    static const struct ag_span h1 = AG_SPAN_INIT("\r\nVia: 1.1 " VIA_NAME);
    static const struct ag_span h10 = AG_SPAN_INIT("\r\nVia: 1.0 " VIA_NAME);
    static const struct ag_span h2 = AG_SPAN_INIT("\r\nVia: 2 " VIA_NAME);

    return version == AG_HTTP_11 ? h1 : version == AG_HTTP_10 ? h10 : h2;
}

enum ag_status ag_proxy_request_fields(struct ag_exchange *ex, const struct ag_networks *trust,
                                       bool upgrade, struct ag_fields *out,
                                       struct ag_proxy_told *out_told)
{
    const struct ag_fields *from = &ex->req.fields;
    size_t cap = from->count + ADDED_MAX;
    enum ag_status st = AG_OK;
    uint16_t received = 0;
    struct request_walk w;

    memset(&w, 0, offsetof(struct request_walk, nominated));
    w.ex = ex;
    w.upgrade = upgrade;
    w.nominated.count = 0;
    *out = (struct ag_fields){.v = ag_arena_alloc(&ex->arena, cap * sizeof(*out->v)),
                              .cap = (uint16_t)cap};
    if (!out->v) {
        return AG_ENOMEM;
    }
    w.trusted = !ag_networks_are_empty(trust) && ag_networks_have(trust, ag_exchange_remote(ex));
    for (uint16_t i = 0; st == AG_OK && i < from->count; i++) {
        bool keep = !from->v[i].removed;

        if (keep && has_bit(LOOKED_AT_FIELDS, &from->v[i])) {
            st = walk_field(&w, &from->v[i], &keep);
        }
        if (keep) {
            out->v[out->count++] = from->v[i];
            received = i < ex->req.received_count ? out->count : received;
        }
    }
    drop_nominated(&w.nominated, received, out);
    *out_told = w.told;
    if (st == AG_OK && w.forward.any) {
        st = ag_proxy_forward_complete(ex, w.forward.seen);
    }
    return st == AG_OK ? ag_proxy_forward_add(&w.forward, ex, via_of(ex->req.version), out) : st;
}

/* ---- answers ---- */

/* What of an answer is not passed on, whatever Connection names beside. */
static uint64_t dropped_fields(const struct ag_response *r)
{
    return CONNECTION_FIELDS | (r->status == 101 ? 0 : BIT(AG_FIELD_UPGRADE)) |
           (may_trail(r->framing, r->content_length) ? 0 : BIT(AG_FIELD_TRAILER));
}

/* Appends the fields that are passed on, as far as there is room. AG_EPROTO. */
static enum ag_status keep_answer(const struct ag_response *from, struct ag_fields *out)
{
    uint64_t dropped = dropped_fields(from);
    struct nominated nominated;
    enum ag_status st = AG_OK;

    nominated.count = 0;
    for (uint16_t i = 0; st == AG_OK && i < from->fields.count; i++) {
        const struct ag_field *f = &from->fields.v[i];

        if (f->removed) {
            continue;
        }
        if (!has_bit(dropped, f)) {
            if (ag_likely(out->count < out->cap)) {
                out->v[out->count++] = *f;
            }
        } else if (f->id == AG_FIELD_CONNECTION) {
            st = read_options(ag_field_value(f), &nominated);
        }
    }
    drop_nominated(&nominated, out->count, out);
    return st;
}

/* The smallest range that holds the reason and all fields: they come from one head, in order. */
static struct ag_span range_of(const struct ag_response *r)
{
    const uint8_t *from = r->reason.ptr, *to = r->reason.ptr + r->reason.len;

    if (r->fields.count > 0) {
        const struct ag_field *first = &r->fields.v[0], *last = first + r->fields.count - 1;

        from = from ? from : first->name - (first->line ? 2 : 0); /* with the CRLF before it */
        to = last->value_len ? last->value + last->value_len : last->name + last->name_len;
    }
    return ag_span(from, (size_t)(to - from));
}

/* Of an answer over HTTP/2: it tells a length of 0, its stream not ended by the head: what may come is trailers, as of
 * gRPC's errors. Those of HTTP/1 need chunks, which only a client that asked for trailers gets here. */
static bool may_only_trail(const struct ag_exchange *ex, const struct ag_response *from)
{
    return from->content_length == 0 &&
           (ex->req.version == AG_HTTP_2 ||
            (ex->req.version == AG_HTTP_11 &&
             ag_fields_list_has(&ex->req.fields, AG_FIELD_TE, AG_SPAN("trailers"))));
}

static void set_framing(const struct ag_exchange *ex, struct ag_response *to,
                        const struct ag_response *from)
{
    bool empty = from->framing == AG_FRAMING_NONE && from->content_length == AG_LENGTH_UNKNOWN &&
                 ex->req.method != AG_METHOD_HEAD && from->status >= 200 && from->status != 204 &&
                 from->status != 304;
    bool framed = from->framing == AG_FRAMING_H2, only_trails = framed && may_only_trail(ex, from);

    to->content_length = from->content_length;
    to->framing = from->framing;
    if (empty && ex->req.version != AG_HTTP_2) {
        to->content_length = 0; /* frames had told so; HTTP/1 would wait for the connection's end */
    }
    if (only_trails && ex->req.version == AG_HTTP_2) {
        to->framing = AG_FRAMING_H2;
    } else if (framed && from->content_length != AG_LENGTH_UNKNOWN && !only_trails) {
        to->framing = AG_FRAMING_LENGTH;
    } else if (framed || from->framing == AG_FRAMING_CHUNKED || from->framing == AG_FRAMING_CLOSE) {
        to->framing = AG_FRAMING_CHUNKED;
        to->content_length = AG_LENGTH_UNKNOWN;
    }
}

/* It ends with what is here, or nearly: its buffer will not be held for long. */
static bool is_small(const struct ag_exchange *ex, const struct ag_response *from,
                     const struct ag_block *owner)
{
    bool known = from->framing == AG_FRAMING_NONE || from->framing == AG_FRAMING_LENGTH;

    return known && from->content_length <= AG_BUF_SMALL_BYTES &&
           owner->size <= AG_BUF_SMALL_BYTES && !ex->context->loop->tight;
}

enum ag_status ag_proxy_response(struct ag_exchange *ex, const struct ag_response *from,
                                 struct ag_block *owner)
{
    struct ag_span range = owner ? range_of(from) : AG_SPAN(""), copy = range;
    struct ag_response *to = &ex->res;
    size_t cap = from->fields.count + 2u; /* Via, and one for filters */
    struct ag_span via = via_of(from->version);

    *to = (struct ag_response){.status = from->status, .reason = from->reason};
    to->version = from->version;
    to->upgrade = from->upgrade;
    set_framing(ex, to, from);
    to->fields.v = ag_arena_alloc(&ex->arena, cap * sizeof(*to->fields.v));
    if (range.len > 0 && range.len <= COPY_MAX && !is_small(ex, from, owner)) {
        copy = ag_arena_copy(&ex->arena, range);
    }
    if (!to->fields.v || (range.len > 0 && !copy.ptr)) {
        to->fields = (struct ag_fields){0};
        return AG_ENOMEM;
    }
    to->fields.cap = (uint16_t)cap;
    if (keep_answer(from, &to->fields) != AG_OK) {
        to->fields = (struct ag_fields){0};
        return AG_EPROTO;
    }
    if (copy.ptr != range.ptr) {
        ag_response_rebase(to, range.ptr, range.len, copy.ptr);
    } else if (owner) {
        AG_ASSERT(!ex->res_owner);
        ex->res_owner = ag_block_hold(owner);
    }
    to->fields.v[to->fields.count++] = ag_proxy_via_field(via);
    return AG_OK;
}

struct ag_fields ag_proxy_interim_fields(const struct ag_response *from, struct ag_field *room)
{
    struct ag_fields out = {room, 0, AG_PROXY_INTERIM_FIELDS};

    if (keep_answer(from, &out) != AG_OK) {
        out.count = 0;
    }
    return out;
}

/* ---- upgrades ---- */

/* The one protocol of the one Upgrade field; empty when there is not exactly one. */
static struct ag_span only_protocol(const struct ag_fields *fields)
{
    struct ag_field *f = ag_fields_find(fields, AG_FIELD_UPGRADE, NULL);
    struct ag_span first, more;
    size_t at = 0;

    if (!f || ag_fields_find(fields, AG_FIELD_UPGRADE, f) ||
        !ag_list_next(ag_field_value(f), &at, &first) ||
        ag_list_next(ag_field_value(f), &at, &more)) {
        return AG_SPAN("");
    }
    return first;
}

static bool is_websocket(struct ag_span protocol)
{
    return ag_span_ieq(protocol, AG_SPAN("websocket"));
}

static bool is_refused(struct ag_span protocol)
{
    /* HTTP/2 without TLS by Upgrade hides requests from whoever only sees HTTP/1 (RFC 9113 made it
     * obsolete), and TLS inside of this connection would as well. */
    return protocol.len == 0 || ag_span_ieq(protocol, AG_SPAN("h2c")) ||
           (protocol.len >= 4 && (ag_span_ieq(ag_span_sub(protocol, 0, 4), AG_SPAN("http")) ||
                                  ag_span_ieq(ag_span_sub(protocol, 0, 4), AG_SPAN("tls/"))));
}

bool ag_proxy_wants_upgrade(const struct ag_request *req)
{
    bool empty = req->framing == AG_FRAMING_NONE ||
                 (req->framing == AG_FRAMING_LENGTH && req->content_length == 0);
    struct ag_span protocol;
    struct ag_field *key;

    if (!req->upgrade || !empty || req->version != AG_HTTP_11) {
        return false;
    }
    protocol = only_protocol(&req->fields);
    if (!is_websocket(protocol)) {
        return !is_refused(protocol);
    }
    key = ag_fields_find(&req->fields, AG_FIELD_SEC_WEBSOCKET_KEY, NULL);
    return req->method == AG_METHOD_GET && key &&
           !ag_fields_find(&req->fields, AG_FIELD_SEC_WEBSOCKET_KEY, key) &&
           ag_websocket_key_is_valid(ag_field_value(key));
}

bool ag_proxy_upgrade_agreed(const struct ag_request *req, const struct ag_response *res)
{
    struct ag_span asked = only_protocol(&req->fields);
    uint8_t want[AG_WEBSOCKET_ACCEPT_LEN];
    struct ag_field *key, *accept;

    if (!res->upgrade || !ag_span_ieq(only_protocol(&res->fields), asked)) {
        return false;
    }
    if (!is_websocket(asked)) {
        return true;
    }
    key = ag_fields_find(&req->fields, AG_FIELD_SEC_WEBSOCKET_KEY, NULL);
    accept = ag_fields_find(&res->fields, AG_FIELD_SEC_WEBSOCKET_ACCEPT, NULL);
    if (!key || !accept) {
        return false;
    }
    ag_websocket_accept(ag_field_value(key), want);
    return ag_span_eq(ag_field_value(accept), ag_span(want, sizeof(want)));
}
