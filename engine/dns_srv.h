/*
 * dns_srv: the SRV records of a DNS answer (RFC 1035 section 4, RFC 2782), and the order to try them in.
 *
 *   message --parse--> targets by priority, host, port, each once --order--> by priority, by chance of weight
 *
 * Pure: no sockets, no clock, nothing kept. A message is what a name server sent: nothing in it is believed.
 * Aliases (CNAME) of the name that was asked for are followed within the message, records of other names are
 * not looked at. A target whose host is no name that could be looked up is left out, and so is "." ("the
 * service is not there", RFC 2782).
 */
#pragma once
#include "engine/span.h"

#define AG_SRV_MAX         256u  /* targets kept: those with the lowest priority numbers */
#define AG_DNS_NAME_MAX    253u  /* bytes of a name as text (RFC 1035 section 3.1) */
#define AG_DNS_RECORDS_MAX 1024u /* looked at of one answer */

struct ag_srv_target {
    uint16_t priority; /* lower ones first */
    uint16_t weight;   /* among those of one priority; 0: hardly ever */
    uint16_t port;
    uint8_t host_len;
    char host[AG_DNS_NAME_MAX + 1]; /* lower case, NUL-terminated, without a dot at the end */
};

struct ag_srv_answer {
    uint32_t count;
    bool cut;       /* there were more */
    uint32_t ttl_s; /* the shortest of all that was used: a set has one (RFC 2181 section 5.2) */
    struct ag_srv_target targets[AG_SRV_MAX];
};

/* AG_ENOENT: a sound message without a target. AG_EINVAL: it is broken; *out is undefined. */
AG_MUST_USE enum ag_status ag_dns_srv_parse(struct ag_span message, struct ag_srv_answer *out);

/* Puts targets that are sorted by priority into the order of RFC 2782: within one, each next one is drawn with a
 * chance in proportion to its weight. `random`: a state of random.h. */
void ag_srv_order(struct ag_srv_target *targets, uint32_t count, uint64_t random[static 4]);
