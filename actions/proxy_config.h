/*
 * proxy_config: the proxy's settings: its sections (proxy, server.trusted_proxies), and one route's.
 *
 *   /api/:id: http://api/v1/:id            named upstream, or host[:port]{,...}, or unix:/path:
 *   "/x":
 *     action: "http://10.0.0.1:8080"
 *     timeouts: {read: 5s}                 over the upstream's
 *     host: upstream
 *
 * Schemes: http ws, over TLS https wss, and h2c, h2 for HTTP/2 alone (upstream.h).
 */
#pragma once
#include "actions/action.h"
#include "actions/upstream.h"
#include "engine/networks.h"

/* An upstream under a scheme. */
struct ag_proxy_variant {
    struct ag_proxy_variant *next;
    struct ag_span scheme;
    struct ag_upstream *upstream; /* NULL: it had mistakes */
};

/* An upstream as the config names it: in proxy.upstreams, or by an authority. */
struct ag_proxy_name {
    struct ag_proxy_name *next;      /* of its bucket */
    struct ag_proxy_name *following; /* in order of appearance */
    struct ag_span name;
    struct ag_pos pos;
    const struct ag_upstream *upstream; /* plain; NULL: it had mistakes */
    struct ag_proxy_variant *variants;  /* as targets with other schemes use it */
    bool has_tls_settings;              /* of its own */
};

struct ag_relay_settings;

struct ag_proxy_section {
    const struct ag_relay_settings *relays; /* of the section `tcp` */
    uint32_t relay_count;
    struct ag_upstream_options defaults;
    struct ag_networks trust;
    struct ag_proxy_name **buckets; /* upstreams by name or authority; load time only */
    struct ag_proxy_name *first, *last;
};

struct ag_proxy_settings {
    const struct ag_upstream *upstream;
    struct ag_upstream_timeouts timeouts;
    enum ag_upstream_host_mode host_mode;
    struct ag_span host;       /* LITERAL */
    bool has_target;           /* else the request's path is kept */
    bool target_has_query;     /* the request's query goes behind it */
    struct ag_template target; /* has_target */
    uint32_t target_bytes;     /* of its literal parts */
    uint32_t target_params;    /* parameters in it */
};

enum ag_status ag_proxy_configure_section(struct ag_action_build *build);
/* Makes the TLS contexts of upstreams, and lets them go. */
enum ag_status ag_proxy_open_section(void *section, struct ag_diags *diags);
void ag_proxy_release_section(void *section);
enum ag_status ag_proxy_configure(struct ag_action_build *build, const struct ag_action_decl *decl,
                                  const void **out_settings);

/* The plain upstream that the config calls so, or of that authority. NULL: it has mistakes, which were told. */
const struct ag_upstream *ag_proxy_upstream_of(struct ag_action_build *build, struct ag_span name,
                                               struct ag_pos pos);
