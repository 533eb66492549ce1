#include "actions/upstream/balance_key.h"

#include "engine/resolver.h"
#include "proto/cookie.h"

#include <xxhash.h>

static uint64_t hash(struct ag_span s)
{
    return XXH3_64bits(s.ptr, s.len);
}

/* "192.0.2.1", "192.0.2.1:80", "2001:db8::1", "[2001:db8::1]:80" */
static bool read_address(struct ag_span text, union ag_addr *out)
{
    size_t colon = ag_span_find(text, ':');

    if (ag_span_starts(text, AG_SPAN("unix:"))) {
        return false; /* ag_addr_parse would take it */
    }
    if (text.len > 0 && text.ptr[0] == '[') {
        text = ag_span_sub(text, 1, text.len);
        text = ag_span_sub(text, 0, ag_span_find(text, ']'));
    } else if (colon < text.len &&
               ag_span_find(ag_span_sub(text, colon + 1, text.len), ':') == text.len - colon - 1) {
        text = ag_span_sub(text, 0, colon); /* one colon: a port; an IPv6 address has two */
    }
    return ag_addr_parse(text, 0, out) == AG_OK;
}

/* From the right, as far as those who wrote it are trusted; read from the left, in one pass. False: nothing
 * is to be believed, whatever `out` holds. */
static bool forwarded_for(const struct ag_fields *fields, const struct ag_networks *trust,
                          union ag_addr *out)
{
    const struct ag_field *f = NULL;
    bool found = false;

    while ((f = ag_fields_find(fields, AG_FIELD_X_FORWARDED_FOR, f)) != NULL) {
        struct ag_span entry;
        size_t at = 0;

        while (ag_list_next(ag_field_value(f), &at, &entry)) {
            union ag_addr addr;

            if (!read_address(entry, &addr)) {
                found = false; /* nobody looks beyond it */
            } else if (!found || !ag_networks_have(trust, &addr)) {
                *out = addr;
                found = true;
            }
        }
    }
    return found;
}

static uint64_t hash_client(struct ag_exchange *ex, const struct ag_networks *trust)
{
    const union ag_addr *peer = ag_exchange_remote(ex);
    union ag_addr addr = {0}, client;

    if (peer) {
        addr = *peer;
    }
    if (!ag_networks_are_empty(trust) && ag_networks_have(trust, peer) &&
        forwarded_for(&ex->req.fields, trust, &client)) {
        addr = client;
    }
    ag_addr_unmap(&addr);
    if (addr.sa.sa_family == AF_INET) {
        return XXH3_64bits(&addr.in.sin_addr, sizeof(addr.in.sin_addr));
    }
    if (addr.sa.sa_family == AF_INET6) {
        return XXH3_64bits(&addr.in6.sin6_addr, sizeof(addr.in6.sin6_addr));
    }
    return hash(AG_SPAN("unix"));
}

static struct ag_span header_value(const struct ag_fields *fields,
                                   const struct ag_balance_options *o)
{
    const struct ag_field *f = o->by_field == AG_FIELD_OTHER
                                   ? ag_fields_find_name(fields, o->by_name, NULL)
                                   : ag_fields_find(fields, o->by_field, NULL);

    return f ? ag_field_value(f) : AG_SPAN("");
}

static struct ag_span cookie_value(const struct ag_fields *fields, struct ag_span name)
{
    struct ag_cookie_walk walk = {0};
    struct ag_span value;

    return ag_cookie_next(fields, name, &walk, &value) ? value : AG_SPAN("");
}

static struct ag_span query_value(struct ag_span query, struct ag_span name)
{
    for (size_t at = 0; at < query.len;) {
        struct ag_span rest = ag_span_sub(query, at, query.len);
        struct ag_span pair = ag_span_sub(rest, 0, ag_span_find(rest, '&'));

        if (pair.len > name.len && ag_span_starts(pair, name) && pair.ptr[name.len] == '=') {
            return ag_span_sub(pair, name.len + 1, pair.len);
        }
        at += pair.len + 1;
    }
    return AG_SPAN("");
}

static uint64_t hash_uri(const struct ag_request *r)
{
    uint64_t path = hash(r->path);

    return r->has_query ? XXH3_64bits_withSeed(r->query.ptr, r->query.len, path) : path;
}

uint64_t ag_balance_key(struct ag_exchange *ex, const struct ag_balance_options *o,
                        const struct ag_networks *trust)
{
    struct ag_span value = AG_SPAN("");

    if (o->kind != AG_BALANCE_HASH) {
        return 0;
    }
    switch (o->by) {
    case AG_BALANCE_BY_IP:
        break;
    case AG_BALANCE_BY_URI:
        return hash_uri(&ex->req);
    case AG_BALANCE_BY_PATH:
        return hash(ex->req.path);
    case AG_BALANCE_BY_HEADER:
        value = header_value(&ex->req.fields, o);
        break;
    case AG_BALANCE_BY_COOKIE:
        value = cookie_value(&ex->req.fields, o->by_name);
        break;
    case AG_BALANCE_BY_QUERY:
        value = query_value(ex->req.query, o->by_name);
        break;
    }
    return value.len > 0 ? hash(value) : hash_client(ex, trust);
}
