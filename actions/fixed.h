/* fixed: an answer written in the config, made ready at load time (SPEC.md section 5). */
#pragma once
#include "actions/action.h"

extern const struct ag_action_ops ag_action_fixed;
