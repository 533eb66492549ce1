/*
 * upstream_config: reads upstreams out of the config tree, and out of a proxy target's authority.
 *
 *   proxy:
 *     timeouts: {read: 30s}                   # defaults of all, as are host, keepalive, max_*
 *     upstreams:
 *       api:
 *         servers: ["10.0.0.1:8080", "10.0.0.2:8080 weight=2", "unix:/run/api.sock"]
 *                                             # or {file: FILE}, {srv: NAME}, {dns: NAME}
 *         balance: round_robin
 *         host: keep                          # keep, upstream, or a literal
 *         keepalive: {max_idle: 1024, min_idle: 0, idle_timeout: 60s, max_age: 1h, max_requests: 0}
 *         max_connections: 0
 *         max_pending: 1024
 *         pending_timeout: 3s
 *         retry, hedge                        # proxy_retry_policy.h
 *         buffer: request                     # buffer_policy.h
 *         proxy_protocol: v2                  # off, v1, v2: what a connection begins with
 *         addresses: public                   # upstream_addresses.h
 *         timeouts: {connect: 3s, first_byte: 60s, read: 60s, write: 60s, idle: 60s, total: 0}
 *         tls: {verify: true, ca: FILE, server_name: NAME, cert: FILE, key: FILE, h2: true,
 *               handshake_timeout: 10s}     # for targets of https://, h2:// and wss://
 *
 * health, breaker, ejection, slow_start, panic: see health_options.h
 *
 * Every mistake is a diagnosis with its position; the functions return false or NULL then.
 */
#pragma once
#include "actions/action.h"
#include "actions/upstream/upstream.h"

struct ag_upstream_options ag_upstream_default_options(void);

/* The duration at `key` of `map` over what `io` holds; none: no change. */
bool ag_upstream_read_ms(const struct ag_node *map, const char *key, uint64_t min_ms,
                         struct ag_diags *diags, uint32_t *io);
/* Changes of `node` (a map of the keys above; NULL: none) over what `io` holds. */
bool ag_upstream_read_timeouts(const struct ag_node *node, struct ag_diags *diags,
                               struct ag_upstream_timeouts *io);
/* `node`: the value of `host` (NULL: no change). Texts are borrowed from the tree. */
bool ag_upstream_read_host(const struct ag_node *node, struct ag_diags *diags,
                           struct ag_upstream_options *io);
/* timeouts, host, keepalive, max_connections, max_pending, pending_timeout, retry, hedge, tls, and those of
 * health_options.h, of the map `node`. */
bool ag_upstream_read_options(const struct ag_node *node, struct ag_diags *diags,
                              struct ag_upstream_options *io);

/* Warns of a `hedge` (NULL: none is written) by which nobody else can be asked. */
void ag_upstream_check_hedge(const struct ag_node *hedge, const struct ag_upstream *up,
                             const struct ag_retry_policy *policy, struct ag_diags *diags);
/* One entry of proxy.upstreams. */
struct ag_upstream *ag_upstream_read(struct ag_action_build *build, const struct ag_node *node,
                                     const struct ag_upstream_options *defaults);
/* host[:port]{,host[:port]} or unix:/path, as a target has it. */
struct ag_upstream *ag_upstream_from_authority(struct ag_arena *arena, struct ag_span authority,
                                               struct ag_pos pos, struct ag_diags *diags,
                                               const struct ag_upstream_options *defaults);

/* How a target's scheme has its servers spoken to. */
struct ag_upstream_scheme {
    enum ag_upstream_protocol protocol;
    bool tls;
};
/* http, https, h2c, h2, ws, wss. False: another. */
bool ag_upstream_scheme_of(struct ag_span name, struct ag_upstream_scheme *out);
/* `base`, which is plain, as that scheme has it: servers that name no port are at 443 with TLS. NULL after a
 * diagnosis at `pos` or at a file's name. */
struct ag_upstream *ag_upstream_with_scheme(struct ag_action_build *build,
                                            const struct ag_upstream *base,
                                            struct ag_upstream_scheme scheme, struct ag_pos pos);

/* ---- upstream_servers.c ---- */

#define AG_UPSTREAM_PLAIN_PORT 80u
#define AG_UPSTREAM_TLS_PORT   443u

/* "10.0.0.1:8080 weight=2 backup", at `pos`. */
bool ag_upstream_read_server(struct ag_pos pos, struct ag_span text, struct ag_diags *diags,
                             struct ag_upstream_server *out);
/* Its address alone. */
bool ag_upstream_set_address(struct ag_upstream_server *s, struct ag_pos pos, struct ag_span text,
                             uint16_t default_port, struct ag_diags *diags);
/* Room for `count` servers; NULL after a diagnosis. */
struct ag_upstream_server *ag_upstream_server_room(struct ag_arena *arena, struct ag_pos pos,
                                                   struct ag_diags *diags, uint32_t count);
/* The value of `servers`: a list, one server, {file: FILE} with a line for each, or where they are looked for. */
bool ag_upstream_read_servers(struct ag_action_build *build, const struct ag_node *node,
                              struct ag_upstream *to);

/* ---- upstream_discover_config.c ---- */

/* {srv: NAME} or {dns: NAME}, with refresh and zone; one of the two is there. */
bool ag_upstream_read_source(struct ag_action_build *build, const struct ag_node *map,
                             struct ag_upstream_source *out);

/* ---- upstream_tls.c ---- */

/* Changes of the key `tls` (`node`, or NULL) over what `io` holds. */
bool ag_upstream_read_tls(const struct ag_node *node, struct ag_diags *diags,
                          struct ag_upstream_tls_options *io);
/* Reads the files. NULL after a diagnosis at `pos` or at a file's name. */
struct ag_tls_client_settings *ag_upstream_tls_settings(struct ag_action_build *build,
                                                        const struct ag_upstream_tls_options *o,
                                                        enum ag_upstream_protocol protocol,
                                                        struct ag_pos pos);
