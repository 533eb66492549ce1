/* json_check: is a text one JSON value? Strict RFC 8259, UTF-8 checked, no recursion. */
#pragma once
#include "engine/span.h"

/* Nesting beyond this counts as not valid. */
#define AG_JSON_DEPTH_MAX 512u

/* White space around the value is allowed; anything else beside it is not. */
bool ag_json_is_valid(struct ag_span text);
