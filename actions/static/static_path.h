/*
 * static_path: from a request's path to a file's, below the route's root.
 *
 *   "/docs/a%20b" -> "docs/a b"      "/docs/" -> "docs/", an index name follows
 *
 * Escapes are decoded once; "%2F", NUL, "." and ".." segments name no file, and neither do empty
 * segments: "//admin/x" must not reach the file that "/admin/x" guards.
 */
#pragma once
#include "actions/static/static_config.h"

/* A longer path names no file (PATH_MAX). */
#define AG_STATIC_PATH_MAX 3840u

enum ag_static_path_result {
    AG_STATIC_PATH_OK,
    AG_STATIC_PATH_NONE,   /* there can be no such file */
    AG_STATIC_PATH_HIDDEN, /* a dotfile */
    AG_STATIC_PATH_ENOMEM,
};

struct ag_static_path {
    char *text;       /* NUL-terminated, in the exchange's arena */
    size_t len;       /* without an index name */
    size_t cap;       /* bytes at text */
    bool wants_index; /* it ends with a slash, or is the root itself asked for with one */
};

/* Writes the path, with room for any index name of the settings. */
enum ag_static_path_result ag_static_path_build(struct ag_exchange *ex,
                                                const struct ag_static_settings *s,
                                                struct ag_static_path *out);
/* Puts index name number `i` behind it. */
void ag_static_path_add_index(struct ag_static_path *p, const struct ag_static_settings *s,
                              uint16_t i);
/* True when the root's index may stand in for a missing file: history fallback (SPEC.md section 5). */
bool ag_static_may_fall_back(const struct ag_exchange *ex, const struct ag_static_settings *s);
