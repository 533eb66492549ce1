/*
 * node: a configuration tree whose every node knows file, line and column. YAML, JSON and TOML load
 * into it (router/config_*.c); sections are read out of it by typed accessors that report mistakes.
 * Lives in a malloc arena together with its texts.
 */
#pragma once
#include "engine/diag.h"

enum ag_node_kind { AG_NODE_NULL, AG_NODE_SCALAR, AG_NODE_MAP, AG_NODE_SEQ };

struct ag_node {
    enum ag_node_kind kind;
    struct ag_pos pos;            /* of the value */
    struct ag_pos key_pos;        /* in a map: of the key */
    struct ag_span key;           /* in a map */
    struct ag_span text;          /* scalar: the value, escapes undone */
    bool quoted;                  /* scalar: in quotes, so never a number or boolean */
    bool told;                    /* NULL: in the place of a mistake that is told */
    bool dsl;                     /* a whole route line as raw bytes (text); key is empty */
    struct ag_node *first, *last; /* children, in order */
    struct ag_node *next;
};

AG_MUST_USE struct ag_node *ag_node_new(struct ag_arena *a, enum ag_node_kind kind,
                                        struct ag_pos pos);
void ag_node_append(struct ag_node *parent, struct ag_node *child);
/* The child named `key`, or NULL; `n` may be NULL. */
const struct ag_node *ag_node_get(const struct ag_node *n, const char *key);

/*
 * What is behind a key, as all readers have it:
 *   no such key (NULL)       the default: false, silent, *out untouched
 *   a key with nothing       of a section: a map without keys; of a value: a mistake, as a value of another shape is
 *   the place of a mistake   (n->told) false, silent
 */

/* Reports keys of the map `n` that are not among `keys`, with the nearest as hint; and a node that is
 * not a map. `what` names the section for people ("server.limits"). False when not a map; with nothing behind its
 * key it is one without keys. */
bool ag_node_check_keys(const struct ag_node *n, struct ag_diags *d, const char *what,
                        const char *const *keys, size_t count);

/* Typed values; false with a diagnosis when the node is of another shape, or nothing. */
bool ag_node_bool(const struct ag_node *n, struct ag_diags *d, bool *out);
bool ag_node_u64(const struct ag_node *n, struct ag_diags *d, uint64_t min, uint64_t max,
                 uint64_t *out);
/* That of the key of a map; one that is not there is as good as the value that stands. */
bool ag_node_number(const struct ag_node *map, const char *key, uint32_t min, uint32_t max,
                    struct ag_diags *d, uint32_t *io);
/* "250ms", "10s", "5m", "1h", "30d"; a plain 0 is allowed. Milliseconds. */
bool ag_node_duration(const struct ag_node *n, struct ag_diags *d, uint64_t *out_ms);
/* That of the key of a map, within bounds; one that is not there is as good as the value that stands. */
struct ag_node_ms_bounds {
    uint32_t min, max;
    const char *hint; /* tells them; static */
};
bool ag_node_ms(const struct ag_node *map, const char *key, struct ag_node_ms_bounds bounds,
                struct ag_diags *d, uint32_t *io_ms);
/* "64k", "10m", "1g", or plain bytes; powers of 1024. */
bool ag_node_size(const struct ag_node *n, struct ag_diags *d, uint64_t *out_bytes);
/* "100/s", "5/m", "1000/h": how many in which period; never 0. */
bool ag_node_rate(const struct ag_node *n, struct ag_diags *d, uint64_t *out_count,
                  uint64_t *out_period_ms);
bool ag_node_text(const struct ag_node *n, struct ag_diags *d, struct ag_span *out);
/* The index of the value among `names`. */
bool ag_node_enum(const struct ag_node *n, struct ag_diags *d, const char *const *names,
                  size_t count, unsigned *out_index);

/* The path that a text at `n` names, NUL-terminated in `arena`: one in a file starts where that file is, one of
 * a flag or a variable at the working directory. */
AG_MUST_USE const char *ag_node_path(struct ag_arena *arena, const struct ag_node *n,
                                     struct ag_span text);
