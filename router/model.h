/*
 * model: the config's sections as typed values, checked; what SPEC.md section 3 shows. Sections of
 * actions (proxy, static, echo) are read by the actions themselves.
 */
#pragma once
#include "engine/log.h"
#include "engine/loop.h"
#include "engine/networks.h"
#include "engine/node.h"
#include "engine/resolver.h"
#include "engine/tls_files.h"
#include "engine/tls_settings.h"
#include "proto/h1_server.h"
#include "router/access_log.h"

struct ag_listen {
    struct ag_pos pos;
    struct ag_span text;            /* as written */
    union ag_addr addr;             /* ":8080" is [::] with IPv4 besides: two entries, v4 and v6 */
    uint16_t port;                  /* 0: unix */
    struct ag_server_limits limits; /* server.limits with its own over them */
    bool admin;                     /* server.admin: no route is served there */
    bool deferred;                  /* who has connected and says nothing waits in the kernel */
    const struct ag_node *node;     /* its map, or NULL */
    uint32_t tcp;                   /* of an entry of `tcp`, from 1 on; 0: it speaks HTTP */
    struct ag_networks proxied;     /* peers whose connections begin with a PROXY header */
    /* By ag_model_read_tls; NULL: plain. Listeners of one entry share it. */
    struct ag_tls_server_settings *tls;
};

/* NULL: nobody's. */
static inline const struct ag_networks *ag_listen_proxied(const struct ag_listen *l)
{
    return ag_networks_are_empty(&l->proxied) ? NULL : &l->proxied;
}

/* What listeners of one kind have in common for the dispatcher; by limits.index. */
struct ag_listen_kind {
    bool certs_asked;         /* clients are asked for certificates, or some are */
    bool certs_required;      /* nobody is served without a good one */
    struct ag_span client_ca; /* PEM; whose certificates are good */
    uint16_t listener;        /* the first of them */
};

/* Session tickets, one ring for the whole process. */
struct ag_ticket_settings {
    bool on;
    uint64_t rotate_ms;
    uint32_t keep;
    const char *file; /* where the keys are kept; NULL: nowhere */
};

/* What a route or a group says of client certificates; as with limits, who is further in goes first. */
enum ag_client_cert {
    AG_CLIENT_CERT_UNSAID = 0,
    AG_CLIENT_CERT_OFF,
    AG_CLIENT_CERT_OPTIONAL, /* asked for; a bad one is refused */
    AG_CLIENT_CERT_REQUIRED,
};

#define AG_LISTEN_MAX 64u

/* server.memory: pools of each shard; 0: by the connections that it may have. */
struct ag_memory {
    uint32_t small_buffers, large_buffers, pages;
};

struct ag_group {
    struct ag_pos pos;
    struct ag_span match;       /* pattern text */
    const struct ag_node *node; /* filters, limits, timeouts, stream, client_cert, hsts */
};

struct ag_plugin {
    struct ag_span name;
    const struct ag_node
        *node; /* one key: the filter's name, or the plugin's name is the filter's */
};

/* server.seccomp: whether system calls that a server does not make are refused. */
enum ag_confine {
    AG_CONFINE_AUTO, /* in a worker, where the system can */
    AG_CONFINE_ON,   /* or do not start */
    AG_CONFINE_OFF,
    AG_CONFINE_LOG, /* allowed, and told to the kernel's log */
};

/* One route as declared, whichever way. */
struct ag_route_node {
    const struct ag_node *node; /* dsl line, or a map entry (key: pattern) */
};

struct ag_model {
    struct ag_listen listens[AG_LISTEN_MAX];
    uint16_t listen_count;
    uint32_t workers; /* 0: auto */
    enum ag_backend_kind backend;
    struct ag_server_limits limits; /* of listeners that say nothing else */
    /* The different `limits.route` of all listeners, by limits.index; at least one. */
    struct ag_route_limits route_limits[AG_LISTEN_MAX];
    struct ag_listen_kind listen_kinds[AG_LISTEN_MAX]; /* by limits.index, too */
    uint16_t route_limit_count;
    struct ag_ticket_settings tickets;
    struct ag_span hsts; /* the field of routes that say nothing else; empty: none */
    uint32_t drain_timeout_ms;
    enum ag_log_level log_level;
    enum ag_log_format log_format;
    const char *pid_file; /* made from the working directory on; NULL: none */
    struct ag_pos pid_file_pos;
    const char *user; /* NULL: stay; "name", "name:group" or numbers */
    struct ag_pos user_pos;
    const char *chroot; /* absolute; NULL: none */
    struct ag_pos chroot_pos;
    enum ag_confine seccomp;
    const struct ag_node *trusted_proxies; /* one value or a list of them, or NULL */
    enum ag_access_format access_log;      /* default: off */
    uint64_t max_connections;              /* 0: from RLIMIT_NOFILE */
    struct ag_memory memory;
    struct ag_resolver_settings resolver;
    struct ag_span admin_token; /* shown by who asks at an admin listener; empty: none is needed */
    const struct ag_group *groups;
    uint32_t group_count;
    const struct ag_plugin *plugins;
    uint32_t plugin_count;
    const struct ag_route_node *routes;
    uint32_t route_count;
};

/*
 * What groups and routes may say of limits: the keys `limits` and `stream` of `owner` (a map, or NULL)
 * over *io. AG_EINVAL after a diagnosis, *io as it was.
 */
AG_MUST_USE enum ag_status ag_model_route_limits(const struct ag_node *owner,
                                                 struct ag_diags *diags,
                                                 struct ag_route_limits *io);

/* As text for people, "key: value, ...": what is a listener's alone; and what routes may change, only
 * where it differs from `base` unless that is NULL. */
void ag_model_put_limits(const struct ag_server_limits *l, struct ag_buf *out);
void ag_model_put_route_limits(const struct ag_route_limits *l, const struct ag_route_limits *base,
                               struct ag_buf *out);

/* NULL only when nothing could be read; mistakes are in `diags`. Lives in diags->arena. */
AG_MUST_USE struct ag_model *ag_model_read(const struct ag_node *root, struct ag_diags *diags);

/* ---- model_tls.c ---- */

/* The section `tls` and what listeners say over it: m->listens[].tls but for ask_names and key (compile_tls.c),
 * tickets, hsts; then the kinds of listeners. Certificates are read through `files`. Mistakes are
 * diagnoses there. */
void ag_model_read_tls(struct ag_model *m, const struct ag_node *root, struct ag_tls_files *files);
/* The key `hsts` of a section, group or route, as the field's value; off: empty. False: it is not there (*out as
 * it was), or has mistakes. */
bool ag_model_hsts(const struct ag_node *owner, struct ag_diags *diags, struct ag_span *out);
/* The key `client_cert` of a group or route. False as above. */
bool ag_model_client_cert(const struct ag_node *owner, struct ag_diags *diags,
                          enum ag_client_cert *out);
/* "modern". */
const char *ag_tls_profile_name(enum ag_tls_profile profile);
