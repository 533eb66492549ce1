/* fixed: an answer written in the config, made ready at load time (SPEC.md section 5). */
#pragma once
#include "actions/action.h"

extern const struct ag_action_ops ag_action_fixed;

/* The type of a text: JSON when it is, else plain text; empty for an empty one. */
struct ag_span ag_fixed_type_of(struct ag_span body);
