/*
 * balance_config: reads how an upstream's servers are chosen.
 *
 *   balance: round_robin | least_conn | random_two | {random_two: ewma}
 *            | {hash: ip | uri | path | {header: NAME} | {cookie: NAME} | {query: NAME}}
 *   sticky:  NAME | {cookie: NAME, secret: TEXT, max_age: 1h, secure: auto, same_site: lax, http_only: true, path: /}
 */
#pragma once
#include "actions/upstream/balance.h"
#include "actions/upstream/sticky.h"
#include "engine/node.h"

/* What a request is hashed by. */
enum ag_balance_by {
    AG_BALANCE_BY_IP = 0, /* the client's address */
    AG_BALANCE_BY_URI,    /* path and query */
    AG_BALANCE_BY_PATH,
    AG_BALANCE_BY_HEADER, /* the value of by_name */
    AG_BALANCE_BY_COOKIE,
    AG_BALANCE_BY_QUERY,
};

struct ag_balance_options {
    enum ag_balance_kind kind;
    enum ag_balance_by by;     /* of HASH */
    struct ag_span by_name;    /* of the header, cookie or query parameter */
    enum ag_field_id by_field; /* of the header, where it is known by number */
    struct ag_sticky_options sticky;
};

/* Changes of the keys `balance` and `sticky` (each may be NULL) over what `io` holds, which begins as zeros: in turn,
 * nothing sticks. Texts are borrowed from the tree. False after a diagnosis. */
bool ag_balance_read(const struct ag_node *balance, const struct ag_node *sticky,
                     struct ag_diags *diags, struct ag_balance_options *io);
/* What two upstreams must have in common to be the same; without the secret, but with a hash of it. */
uint64_t ag_balance_options_hash(const struct ag_balance_options *o, uint64_t seed);
/* "hash by header X-User, sticky by cookie sid" */
void ag_balance_describe(const struct ag_balance_options *o, struct ag_buf *out);
