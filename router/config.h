/*
 * config: files, flags and environment into one tree of nodes (engine/node.h).
 *
 * Formats by extension: .yml .yaml (libyaml), .json, .gate (DSL lines alone). `include: glob` merges
 * files; ANYGATE_A__B=x sets a.b; ${NAME} and ${NAME:-default} expand inside string values.
 * Precedence: flag, environment, file, default.
 */
#pragma once
#include "engine/node.h"
#include "engine/opener.h"

struct ag_config_input {
    const char *file;          /* -c, or NULL */
    const char *const *routes; /* -r, in order */
    size_t route_count;
    const char *const *listens; /* -l */
    size_t listen_count;
    const char *pid_file;     /* --pid-file, or NULL */
    const char *dir;          /* `serve ./dist`: a static route for "/", or NULL */
    const char *const *env;   /* environ, or NULL: none */
    struct ag_opener *opener; /* NULL: the system */
};

/* Loads and merges; the tree, the texts and the sources live in diags->arena. Reports all mistakes it
 * can find; NULL when the file cannot be read or its syntax leaves no tree. *out_base_dir: directory of
 * the config file (or "."), in the arena. */
AG_MUST_USE struct ag_node *ag_config_load(const struct ag_config_input *in, struct ag_diags *diags,
                                           const char **out_base_dir);

/* The formats, one file each; NULL after a diagnosis. */
struct ag_node *ag_config_parse_yaml(const struct ag_source *src, struct ag_diags *diags);
struct ag_node *ag_config_parse_json(const struct ag_source *src, struct ag_diags *diags);
/* Any text of JSON, as a tree; what is wrong with it (a key that stands twice, too) is a diagnosis. */
struct ag_node *ag_config_json_value(const struct ag_source *src, struct ag_diags *diags);
struct ag_node *ag_config_parse_gate(const struct ag_source *src, struct ag_diags *diags);
