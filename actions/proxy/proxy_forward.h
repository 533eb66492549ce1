/*
 * proxy_forward: who the client is and what it asked for, told to the upstream: X-Forwarded-For, -Host,
 * -Proto and Forwarded (RFC 7239).
 *
 *   peer not trusted   what it sent is replaced
 *   peer trusted       X-Forwarded-For and Forwarded are extended, -Host and -Proto kept; of a peer that sends
 *                      one kind only the other one is built (proxy_forward_kinds.c)
 */
#pragma once
#include "proto/exchange.h"
#include "proto/proxy_protocol.h"

enum {
    AG_FORWARD_FOR,
    AG_FORWARD_HOST,
    AG_FORWARD_PROTO,
    AG_FORWARD_FORWARDED,
    AG_FORWARDS,
};

/* What is known of the four fields while a request's fields are walked. */
struct ag_proxy_forward {
    struct ag_span seen[AG_FORWARDS]; /* of a trusted peer; several lines are joined */
    bool fixed[AG_FORWARDS];          /* a filter has set it: it stands as it is */
    bool any;                         /* of `seen` */
};

/* The index of the field, or AG_FORWARDS when it is none of them. */
unsigned ag_proxy_forward_index(enum ag_field_id id);
/* A line of a trusted peer's. AG_ENOMEM: too long to be joined. */
AG_MUST_USE enum ag_status ag_proxy_forward_seen(struct ag_proxy_forward *f, struct ag_exchange *ex,
                                                 unsigned index, struct ag_span value);
/* Where X-Forwarded-* alone are there, or Forwarded alone, what the others would say. AG_ENOMEM. */
AG_MUST_USE enum ag_status ag_proxy_forward_complete(struct ag_exchange *ex,
                                                     struct ag_span io[static AG_FORWARDS]);
/* Appends the fields, and Via behind them (via: CRLF and its line); `out` has room for AG_FORWARDS + 1 more. AG_ENOMEM. */
AG_MUST_USE enum ag_status ag_proxy_forward_add(const struct ag_proxy_forward *f,
                                                struct ag_exchange *ex, struct ag_span via,
                                                struct ag_fields *out);

/* The field of a whole line, CRLF and "Via: ..."; as long as the line lies there. */
static inline struct ag_field ag_proxy_via_field(struct ag_span line)
{
    return (struct ag_field){.name = line.ptr + 2,
                             .value = line.ptr + 7,
                             .value_len = (uint32_t)line.len - 7,
                             .name_len = 3,
                             .id = AG_FIELD_VIA,
                             .line = true};
}

/* The PROXY header of the exchange's client, in its arena: where it comes from, where it has connected to, and what
 * its TLS has settled. Its len is 0 without memory. */
struct ag_span ag_proxy_greeting(struct ag_exchange *ex, enum ag_proxy_protocol version);
