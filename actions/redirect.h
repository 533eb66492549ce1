/* redirect: sends the client elsewhere; the query is kept (SPEC.md section 5). */
#pragma once
#include "actions/action.h"

extern const struct ag_action_ops ag_action_redirect;
