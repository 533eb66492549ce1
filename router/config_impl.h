/*
 * config_impl: what the files of the config loader share. Private to router/config*.c and their tests;
 * dsl.c undoes escapes as they do.
 *
 *   file --read--> source --parse_{yaml,json,gate}--> tree --expand--> ${} filled in --merge--> root
 *                                                     environment, flags --set--------------------^
 */
#pragma once
#include "router/config.h"

/* Levels of maps and lists in one file. */
#define AG_CONFIG_DEPTH_MAX 64u
/* Bytes of one file. */
#define AG_CONFIG_FILE_MAX (64u << 20)
/* Files that one config may take in, and how deep an include may lead to another. */
#define AG_CONFIG_FILES_MAX   256u
#define AG_CONFIG_INCLUDE_MAX 16u

/* A span as the two arguments of "%.*s", cut to what a message can bear. */
#define AG_CONFIG_SHOW(s) (int)ag_min_size((s).len, 80), (const char *)(s).ptr

/* ---- config_keys.c: which keys a map has, by hash; for maps of any size. ---- */

struct ag_keyset_entry {
    const void *map;
    struct ag_span key; /* borrowed */
    struct ag_node *node;
};

/* Keys of many maps in one table on the heap; all zero is empty. */
struct ag_keyset {
    struct ag_keyset_entry *v;
    size_t cap; /* entries at v, a power of two or 0 */
    size_t count;
};

/* Remembers that `map` (any pointer that stands for it) has `key`, at `node`. Returns the node that was
 * there before, and keeps it, or NULL. */
struct ag_node *ag_keyset_add(struct ag_keyset *s, const void *map, struct ag_span key,
                              struct ag_node *node);
void ag_keyset_deinit(struct ag_keyset *s);

/* Where a node's key stands; of a route line, the line. */
struct ag_pos ag_config_key_pos(const struct ag_node *n);
/* ag_keyset_add, and an error at whichever of the two comes second. False when it is one. */
bool ag_config_key_is_new(struct ag_keyset *s, struct ag_diags *diags, const void *map,
                          struct ag_span key, struct ag_node *node);

/* ---- config_prescan.c: route lines from the raw bytes ---- */

/* A key of a long form as it stands in the file; the YAML parser sees a placeholder. */
struct ag_raw_key {
    struct ag_raw_key *next;
    size_t offset;      /* in the text: where the placeholder begins */
    struct ag_span key; /* quotes removed */
    struct ag_pos pos;
};

struct ag_prescan {
    const struct ag_source *src;
    struct ag_diags *diags;
    uint8_t *mask;        /* a copy of the text: what is taken here is overwritten, length kept */
    struct ag_node lines; /* children: the route lines, in order */
    struct ag_raw_key *keys;
    struct ag_keyset seen; /* keys of the lines and of long forms; map: &lines */
};

/* Takes the route lines below the key `routes`.
 *   key_at, key_end  offsets of the key and of the first byte behind it (its quotes included)
 *   key_line         line number of the key, from 1
 * The caller sets src, diags and mask, and gives `seen` back (ag_keyset_deinit). */
void ag_config_prescan(struct ag_prescan *p, size_t key_at, size_t key_end, uint32_t key_line);
/* The same for a text that is nothing but route lines; mask may be NULL. */
void ag_config_prescan_lines(struct ag_prescan *p);
/* Moves the lines in among the children of `routes`, by position. */
void ag_config_prescan_merge(struct ag_prescan *p, struct ag_node *routes);
/* Brings `routes` of a parsed tree into the form that the model reads: children are lines (dsl) or
 * entries of a mapping; a list's strings become lines, its maps are replaced by their entries. */
void ag_config_routes_normalise(struct ag_node *root, struct ag_diags *diags);

/* ---- config_text.c ---- */

/* UTF-8 without controls, as YAML 1.2 section 5.1 wants it; false after a diagnosis. */
bool ag_config_check_text(const struct ag_source *src, struct ag_diags *diags);
/* Undoes JSON's escapes in `raw`, the inside of a string (RFC 8259 section 7). False when an escape is
 * not valid, with its index in *out_bad. The text lies in the arena, or in `raw` if nothing changed. */
bool ag_config_unescape(struct ag_arena *arena, struct ag_span raw, struct ag_span *out_text,
                        size_t *out_bad);
/* The child named `key` of the map `n`, to be changed; or NULL. */
struct ag_node *ag_config_child(struct ag_node *n, const char *key);

/* ---- config_expand.c ---- */

/* The environment, sorted by name; all zero is empty. */
struct ag_config_env {
    const char **v; /* "NAME=value", borrowed */
    size_t count;
};

/* `environ` may be NULL. In the arena. */
void ag_config_env_init(struct ag_config_env *e, struct ag_arena *arena,
                        const char *const *environ);
/* Fills in ${NAME} and ${NAME:-default} in every scalar of the tree; $${ becomes ${. An empty variable
 * counts as unset where there is a default. */
void ag_config_expand(struct ag_node *root, const struct ag_config_env *env,
                      struct ag_diags *diags);

/* ---- config_merge.c ---- */

/*
 * Merges `src` into `dst` (both maps), which takes over its nodes. Maps merge key by key, lists are
 * appended, `routes` too. A single value that stands in both is an error even when it is the same:
 * whether the first or the last file wins is nothing a reader of one file could know. `version` may
 * stand in each file.
 */
void ag_config_merge(struct ag_node *dst, struct ag_node *src, struct ag_diags *diags);
/* ANYGATE_A__B=x: sets a.b in `root`. A value in '…' or "…" is text; any other with commas is a list. */
void ag_config_set_env(struct ag_node *root, const struct ag_config_env *env,
                       struct ag_diags *diags);
/* The map named `key` in the map `parent`, made when it is missing or null. NULL when it is no map. */
struct ag_node *ag_config_map_in(struct ag_node *parent, const char *key, struct ag_pos pos,
                                 struct ag_arena *arena);
/* A source in the arena; the name is borrowed. */
struct ag_source *ag_config_source(struct ag_arena *arena, const char *name, struct ag_span text);
