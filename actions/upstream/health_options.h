/*
 * health_options: what an upstream's `health`, `breaker`, `ejection`, `slow_start` and `panic` say.
 *
 *   health: {path: /healthz, interval: 2s, timeout: 1s, jitter: 10%, rise: 2, fall: 3, status: ["2xx"],
 *            body: "ok", method: GET, host: NAME, headers: {X: y}, port: 8081, type: http, start: up}
 *   breaker: {consecutive: 5, errors: 50%, minimum: 20, window: 10s, for: 10s, max_for: 5m, trials: 1,
 *             statuses: [502, 503, 504], max: 50%}
 *   ejection: {latency: 3x, minimum: 50, window: 10s}
 *   slow_start: 30s
 *   panic: 30%
 *
 * `health: /path` is the short form; each of the first three may be off.
 */
#pragma once
#include "actions/upstream/breaker.h"
#include "actions/upstream/ejection.h"
#include "proto/http.h"

#define AG_HEALTH_BODY_MAX 1024u /* bytes that `body` may have */

enum ag_health_type {
    AG_HEALTH_HTTP = 0, /* a request, spoken as requests to the upstream are */
    AG_HEALTH_TCP,      /* a connection, and nothing on it */
    AG_HEALTH_TLS,      /* a connection with the handshake that requests would have */
};

struct ag_health_check {
    bool on;
    bool starts_down; /* servers that are new take requests when a check has passed */
    enum ag_health_type type;
    enum ag_method method;
    uint32_t interval_ms, timeout_ms;
    uint32_t jitter_percent; /* of the interval, either way */
    uint32_t rise, fall;     /* checks in a row that take it up, and down */
    uint16_t port;           /* 0: the server's */
    struct ag_statuses statuses;
    /* Borrowed from the config's tree. */
    struct ag_span path, host, body; /* empty: /, the server's own, any */
    const struct ag_node *headers;   /* a map; NULL: none */
};

struct ag_health_options {
    struct ag_health_check check;
    struct ag_breaker_options breaker;
    struct ag_ejection_options ejection;
    uint32_t slow_start_ms; /* 0: none */
    uint32_t panic_percent; /* with less usable all are asked that are not drained; 0: never */
};

void ag_health_defaults(struct ag_health_options *out);
/* The keys above of the map `node`, over what `io` holds. False after a diagnosis. */
bool ag_health_read(const struct ag_node *node, struct ag_diags *diags,
                    struct ag_health_options *io);
/* For `check`: lines about what was written, `indent` bytes in. */
void ag_health_describe(const struct ag_health_options *o, struct ag_buf *out);
