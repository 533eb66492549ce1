/* headers_option: `headers: {Name: value, Name: [value, value]}` in a route's long form. */
#pragma once
#include "actions/action.h"
#include "actions/param_text.h"

/* A field whose value may hold parameters. */
struct ag_header_option {
    enum ag_field_id id;
    struct ag_span name; /* canonical spelling when known, else as written; in the arena */
    const struct ag_param_text *value;
};

#define AG_HEADER_OPTIONS_MAX 32u

/* Reads `node` (NULL: none) in order. Refused: names that are no token, values that are no field value,
 * and fields that frame the message or belong to the connection or the server. AG_EINVAL after a
 * diagnosis. */
AG_MUST_USE enum ag_status ag_headers_option_read(struct ag_action_build *b,
                                                  const struct ag_node *node,
                                                  const struct ag_header_option **out_v,
                                                  uint16_t *out_count);
