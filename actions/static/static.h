/*
 * static: files and directories (SPEC.md section 5).
 *
 *   GET --cached, looked at lately--> answer from memory, nothing allocated
 *    |
 *    +--> directory of the shard --> open --> small: read into the cache --> answer from memory
 *          directory: Location with "/"       large: file slices, warmed ahead of sendfile
 *          none: index names, then the history fallback, then 404
 */
#pragma once
#include "actions/action.h"

extern const struct ag_action_ops ag_action_static;
