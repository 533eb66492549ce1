/*
 * static_config: the `static` section and the settings of one static route.
 *
 *   static:
 *     root: /srv/www          # "/dist/" in a route is /srv/www/dist/; relative: to the config file
 *     index: [index.html]     # names tried for a directory, in order
 *     follow: beneath         # symlinks: beneath | any | none
 *     dotfiles: hide          # hide | allow; /.well-known/ is always served (RFC 8615)
 *     spa: auto               # auto: history fallback where the directory has an index; off
 *     cache_control: auto     # auto | off | a value for every file
 *     types: {wasm: application/wasm}
 *     cache: {max_file: 256k, max_bytes: 64m}    # in memory, per shard
 *
 * A route's long form may set index, follow, dotfiles, spa and cache_control for itself.
 */
#pragma once
#include "actions/action.h"
#include "actions/mime.h"
#include "engine/file.h"

#define AG_STATIC_INDEX_MAX 8u

enum ag_static_cache_control {
    AG_STATIC_CC_AUTO,  /* hashed names: immutable; index: no-cache; others: none */
    AG_STATIC_CC_OFF,   /* none, but no-cache on the history fallback */
    AG_STATIC_CC_VALUE, /* the same for every file, but no-cache on the history fallback */
};

struct ag_static_options {
    struct ag_span index[AG_STATIC_INDEX_MAX];
    uint16_t index_count;
    enum ag_follow follow;
    bool dotfiles; /* served */
    bool spa;
    enum ag_static_cache_control cache_control;
    struct ag_span cache_control_value;
};

/* A directory that routes serve from, opened at load. */
struct ag_static_root {
    struct ag_static_root *next;
    const char *path; /* absolute, without a trailing slash unless it is "/" */
    uint64_t hash;    /* of path */
    int fd;           /* O_PATH; -1: was missing at load */
    bool pinned;      /* the path is another process's: it stays what it was at load */
    uint64_t device, inode;
};

/* build->shared[AG_ACTION_STATIC] */
struct ag_static_section {
    struct ag_static_options options;
    const char *root; /* absolute; NULL: none */
    struct ag_mime_table types;
    uint64_t cache_max_file, cache_max_bytes;
    struct ag_static_root *roots; /* the snapshot's own; closed by ag_static_section_release */
};

#define AG_STATIC_NO_REST UINT16_MAX

struct ag_static_settings {
    const struct ag_static_section *section;
    const struct ag_static_root *root;
    struct ag_static_options options;
    struct ag_template tail; /* below the root, before the rest of the path; may be empty */
    bool directory;          /* else the tail names one file */
    uint16_t rest_segment;   /* of the request's path: from there on it is appended, or NO_REST */
    uint64_t
        id[2]; /* hash of all that shapes answers: what is cached outlives a reload that keeps it */
};

enum ag_status ag_static_section_read(struct ag_action_build *b);
void ag_static_section_release(void *shared);
enum ag_status ag_static_settings_read(struct ag_action_build *b, const struct ag_action_decl *decl,
                                       const void **out_settings);
