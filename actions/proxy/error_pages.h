/*
 * error_pages: what stands for the short text of an error: a file, a text of the config, or what an
 * upstream has to say, with the error's status. The part that the router uses is in actions/action.h.
 *
 *   error_pages:                              of server, a group, a route
 *     404: ./errors/404.html                  a file, read when the configuration is loaded
 *     5xx: '{"error": "try again"}'           a text
 *     502: "http://sorry/{status}.html"       an upstream, asked by GET
 *     default: {file: ./e, type: text/html}   the long form: file, body or upstream; type
 *     intercept: true                         errors of upstreams, too
 *
 * A status has one page: of the innermost place that has any for it, the one for the fewest statuses.
 *
 *   ag_exchange_fail --pipeline.error_page--> in memory: answered at once
 *                                         --> upstream: the exchange waits --2xx--> answered
 *                                                                          --else-> ag_exchange_fail again,
 *                                                                                   which asks no more
 */
#pragma once
#include "actions/action.h"
#include "actions/upstream/client.h"

#define AG_ERROR_FILE_MAX (1u << 20)

struct ag_error_page {
    uint16_t from, to;    /* statuses */
    struct ag_span shown; /* as written; for a text its type */
    struct ag_span body, type;
    const struct ag_client_target *target; /* NULL: `body` is it */
    struct ag_span path, rest; /* of the target: what stands before {status}, and behind */
    bool tells_status;
};

struct ag_error_level {
    const struct ag_error_page *v;
    uint16_t count;
    bool says_intercept, intercept;
};

/* An inner level over an outer one. */
struct ag_error_pages {
    const struct ag_error_pages *outer; /* NULL: none */
    const struct ag_error_level *level;
    bool intercept;
};

/* The page for a status; NULL: there is none. */
const struct ag_error_page *ag_error_pages_find(const struct ag_error_pages *pages,
                                                unsigned status);

/* Whether a page takes the place of an upstream's answer; then what belongs to the error is in ex->res, and
 * ag_exchange_fail is to follow. */
bool ag_error_pages_take(struct ag_exchange *ex, const struct ag_response *res);
