/*
 * action: what answers a request. Each kind is one file here and one line in registry.c.
 *
 *   load:    DSL or config --parse (router)--> struct ag_action_decl --configure--> settings
 *   request: pipeline --start--> ... ag_exchange_respond ... ag_exchange_release
 */
#pragma once
#include "engine/node.h"
#include "engine/opener.h"
#include "engine/tls_files.h"
#include "proto/exchange.h"
#include "proto/media.h"

enum ag_action_kind {
    AG_ACTION_FIXED = 0,
    AG_ACTION_ECHO,
    AG_ACTION_REDIRECT,
    AG_ACTION_STATIC,
    AG_ACTION_PROXY,
    AG_ACTION_KINDS,
};

/* A path built from captured parameters: "/users/:id/x" -> "/users/", param 0, "/x". */
struct ag_template_part {
    struct ag_span literal; /* when param < 0 */
    int16_t param;          /* index into the route's parameters, or -1 */
};

struct ag_template {
    const struct ag_template_part *parts;
    uint16_t count;
};

/* Appends the expansion for this exchange; parameters go in still percent-encoded, as matched. */
void ag_template_expand(const struct ag_template *t, const struct ag_exchange *ex,
                        struct ag_buf *out);

/* An action as the config spells it, checked for form; spans live as long as the config's arena, which
 * is the snapshot's. */
struct ag_action_decl {
    enum ag_action_kind kind;
    struct ag_pos pos;        /* of the action */
    unsigned status;          /* fixed, echo, redirect */
    struct ag_span body;      /* fixed */
    struct ag_pos body_pos;   /* fixed */
    struct ag_span scheme;    /* proxy: "http", "https", ... */
    struct ag_span authority; /* proxy: upstream name, host[:port]{,host[:port]}, or unix:/path: */
    struct ag_pos authority_pos;
    struct ag_span path; /* proxy, static, redirect: as written */
    struct ag_pos path_pos;
    bool has_path; /* proxy: a target path was written */
    struct ag_template
        target;      /* path (redirect: the whole target), against the route's parameters */
    bool has_params; /* target is not one literal */
    const struct ag_node
        *options; /* the route's long form (a map), or NULL: extra keys of actions */
};

/* What configure works with. */
struct ag_action_build {
    struct ag_arena *arena; /* the snapshot's; malloc */
    struct ag_diags *diags;
    const struct ag_node *config; /* the whole tree's root: an action reads its own section */
    const char *base_dir;         /* directory of the config file: relative paths start here */
    struct ag_opener *opener; /* all that is read from outside goes through it; NULL: the system */
    struct ag_tls_files *tls_files; /* certificates of the config, read once */
    void *shared[AG_ACTION_KINDS];  /* each action's common settings (upstreams, static root) */
    const struct ag_addr_list *relay_listens; /* the listeners of `tcp`; NULL: none */
    /* Of the route: */
    const struct ag_param_spec *params;
    uint16_t param_count;
    bool pattern_has_splat;
    struct ag_span pattern;       /* for messages */
    struct ag_media_change media; /* what its filters make of Content-Type */
};

struct ag_action_ops {
    const char *name;
    enum ag_action_kind kind; /* also the index of context->action_state */
    /* Reads the action's own section(s) into build->shared[kind]; called once a load, may be NULL. */
    enum ag_status (*configure_section)(struct ag_action_build *);
    /* For `check`: lines about the section, and warnings that take time to find. May be NULL. */
    void (*describe)(const void *shared, struct ag_buf *out);
    void (*examine)(const void *shared, struct ag_diags *);
    /* One route. AG_EINVAL after a diagnosis. Settings live in the arena. */
    enum ag_status (*configure)(struct ag_action_build *, const struct ag_action_decl *,
                                const void **out_settings);
    /* Before it serves: makes what the TLS library has to make of the settings; may be NULL. AG_EINVAL after a
     * diagnosis. */
    enum ag_status (*open_section)(void *shared, struct ag_diags *);
    /* Gives back what is not memory (descriptors, the library's objects) when a snapshot is freed; may be NULL. */
    void (*release_section)(void *shared);
    /* What all shards of a process share (context->action_common), made before the first and gone after the
     * last; may be NULL. */
    enum ag_status (*common_open)(void **out_common);
    void (*common_close)(void *common);
    /* A shard's state (caches, pools), made at start and on its thread; may be NULL. */
    enum ag_status (*shard_open)(struct ag_context *, void **out_state);
    void (*shard_close)(struct ag_context *, void *state);
    /* The snapshot of that section is the shard's current one from now on; may be NULL. */
    void (*shard_use)(struct ag_context *, void *state, const void *shared);
    /* The memory that such a state takes at most; may be NULL: next to none. */
    uint64_t (*shard_bytes)(const void *shared);
    /* The exchange is held for the action; settings: ex->action->settings, until `outlive`. */
    void (*start)(struct ag_exchange *);
    /* The exchange was aborted; the action lets go (at once or later) and calls nothing else on it. */
    void (*abort)(struct ag_exchange *, enum ag_reason);
    /* The exchange lives on, its snapshot goes (exchange.h). True: neither settings nor shared are used
     * from here on. NULL: they are not once the head was given to the server (ex->head_sent). */
    bool (*outlive)(struct ag_exchange *);
    /* Methods it takes on a route that names none; bits by enum ag_method, 0: all. */
    uint32_t default_methods;
};

/* Part of the snapshot. */
struct ag_action {
    const struct ag_action_ops *ops;
    const void *settings;
    const void *shared; /* build->shared[kind] */
};

/* What a process's shards share of each kind of action; NULL: nothing. */
struct ag_action_commons {
    void *v[AG_ACTION_KINDS];
};
/* AG_ENOMEM leaves nothing open. */
AG_MUST_USE enum ag_status ag_action_commons_open(struct ag_action_commons *out_commons);
void ag_action_commons_close(struct ag_action_commons *commons);

/* By kind; never NULL. */
const struct ag_action_ops *ag_action_ops_of(enum ag_action_kind kind);
/* Keys of a route's long form that this kind reads from decl->options, beside those of all routes. */
const char *const *ag_action_option_keys(enum ag_action_kind kind, size_t *out_count);

/* ---- what groups say for routes of proxies ---- */

/* Diagnoses the mistakes in a group's `timeouts` (NULL: it has none), which are merged into its routes' options. */
void ag_group_timeouts_check(const struct ag_node *timeouts, struct ag_diags *diags);

/* ---- pages for errors: error_pages.h ---- */

struct ag_error_level; /* what one place of the config says; in the snapshot */
struct ag_error_pages; /* what holds for a route: levels over each other; NULL: none */

/* The key `error_pages` of a server, group or route (`owner`, a map or NULL); after the actions' sections. NULL
 * in *out: it is not there. AG_EINVAL after a diagnosis. */
AG_MUST_USE enum ag_status ag_error_level_read(struct ag_action_build *build,
                                               const struct ag_node *owner,
                                               const struct ag_error_level **out);
/* `level` over `outer`; either may be NULL. */
const struct ag_error_pages *ag_error_pages_over(struct ag_arena *arena,
                                                 const struct ag_error_pages *outer,
                                                 const struct ag_error_level *level);
/* One line for people. */
void ag_error_level_describe(const struct ag_error_level *level, struct ag_buf *out);
/*
 * Answers with the page for the status and with the fields that are in ex->res. The exchange holds its snapshot.
 *   may_ask  the answer may come later; an upstream is asked, and the exchange's action changes
 * False: there is no page, or it cannot be had now; nothing was done.
 */
bool ag_error_pages_answer(const struct ag_error_pages *pages, struct ag_exchange *ex,
                           unsigned status, bool may_ask);
/* Whether an upstream's answer of that status gives way to a page. */
bool ag_error_pages_intercept(const struct ag_error_pages *pages, unsigned status);
