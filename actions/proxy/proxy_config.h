/*
 * proxy_config: the proxy's settings: its sections (proxy, server.trusted_proxies), and one route's.
 *
 *   /api/:id: http://api/v1/:id            named upstream, or host[:port]{,...}, or unix:/path:
 *   "/x":
 *     action: "http://10.0.0.1:8080"
 *     timeouts: {read: 5s}                 over the upstream's, as are retry and hedge
 *     host: upstream
 *     strip_prefix: /x                     and what else rewrite_config.h reads
 *     mirror: {to: shadow, percent: 10}    mirror.h
 *
 * Schemes: http ws, over TLS https wss, and h2c, h2 for HTTP/2 alone (upstream.h).
 */
#pragma once
#include "actions/action.h"
#include "actions/proxy/mirror.h"
#include "actions/proxy/rewrite.h"
#include "actions/upstream/upstream.h"
#include "engine/networks.h"

/* A route that rewrites, for people. */
struct ag_proxy_rewriting {
    struct ag_proxy_rewriting *next;
    struct ag_span pattern;
    const struct ag_rewrite *rewrite;
};

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
    struct ag_upstream *upstream;      /* plain; NULL: it had mistakes */
    bool used;                         /* it is among the section's used ones */
    struct ag_proxy_variant *variants; /* as targets with other schemes use it */
    bool has_tls_settings;             /* of its own */
    bool listed;                       /* in proxy.upstreams; else a target wrote its servers */
};

struct ag_proxy_settings;

/* A route that has more to say than its upstream; for `check`. */
struct ag_proxy_route {
    struct ag_proxy_route *next;
    struct ag_span pattern;
    const struct ag_proxy_settings *settings;
    bool retry;  /* of its own */
    bool buffer; /* of its own */
};

struct ag_relay_settings;
struct ag_spool_folder;

struct ag_proxy_section {
    struct ag_span zone; /* where this process stands; empty: not said */
    struct ag_proxy_rewriting *first_rewriting, *last_rewriting;
    bool own_resolver; /* names are asked of servers that the config names (server.resolver) */
    const struct ag_relay_settings *relays; /* of the section `tcp` */
    uint32_t relay_count;
    struct ag_upstream_options defaults;
    struct ag_networks trust;
    struct ag_proxy_name **buckets; /* upstreams by name or authority; load time only */
    struct ag_proxy_name *first, *last;
    /* Those that routes go to, once each; grown while routes are read. */
    const struct ag_upstream **used;
    uint32_t used_count, used_room;
    struct ag_proxy_route *first_route, *last_route;
    /* Where content is buffered; opened when the first route wants it. */
    struct ag_buffer_place place;
    const char *folder_path;        /* NULL: nobody wants it */
    struct ag_pos folder_pos;       /* of what names it, or of the first route */
    struct ag_spool_folder *folder; /* NULL: it is not there, see folder_error */
    int folder_error;
};

struct ag_proxy_settings {
    /* NULL: nothing is rewritten. */
    const struct ag_rewrite *rewrite;
    const struct ag_upstream *upstream;
    const struct ag_mirror_settings *mirror; /* NULL: none */
    struct ag_retry_policy retry;
    struct ag_buffer_policy buffer;
    struct ag_upstream_timeouts timeouts;
    enum ag_upstream_host_mode host_mode;
    struct ag_span host;       /* LITERAL */
    bool has_target;           /* else the request's path is kept */
    bool target_has_query;     /* the request's query goes behind it */
    struct ag_template target; /* has_target */
    uint32_t target_bytes;     /* of its literal parts */
    uint32_t target_params;    /* parameters in it */
};

/* Whether a target may have that scheme. */
bool ag_proxy_has_scheme(struct ag_span scheme);
/* The upstream that decl->authority names, or is, under decl->scheme; after the section was configured. NULL: it
 * has mistakes, which are reported. */
const struct ag_upstream *ag_proxy_upstream_of(struct ag_action_build *build,
                                               const struct ag_action_decl *decl);

enum ag_status ag_proxy_configure_section(struct ag_action_build *build);
/* Makes the TLS contexts of upstreams, and tries the folder of buffers; lets both go. */
enum ag_status ag_proxy_open_section(void *section, struct ag_diags *diags);
void ag_proxy_release_section(void *section);
enum ag_status ag_proxy_configure(struct ag_action_build *build, const struct ag_action_decl *decl,
                                  const void **out_settings);

/* The folder that content is buffered in; the section's. -1: there is none. */
int ag_proxy_folder_fd(const void *section);
/* Whether any route or listener goes to an upstream; `section` may be NULL. */
bool ag_proxy_has_targets(const void *section);

/* Whether proxy.upstreams has that name. */
bool ag_proxy_lists(const struct ag_action_build *build, struct ag_span name);
/* A hint "did you mean X?", of the names in proxy.upstreams; NULL: none is near. */
const char *ag_proxy_nearest(const struct ag_proxy_section *s, struct ag_diags *diags,
                             struct ag_span word);
/* The plain upstream that the config calls so, or of that authority. NULL: it has mistakes, which were told. */
const struct ag_upstream *ag_proxy_upstream_named(struct ag_action_build *build,
                                                  struct ag_span name, struct ag_pos pos);
