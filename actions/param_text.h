/*
 * param_text: text with "{param.NAME}" and "{splat}" in it, for bodies and field values of fixed answers.
 *
 *   "hello {param.name}"  ->  "hello ", parameter 0
 *
 * All other braces are text, so JSON and CSS stay as they are.
 */
#pragma once
#include "actions/action.h"

#define AG_PARAM_TEXT_PARTS_MAX 33u /* 16 parameters with text around them */

struct ag_param_text {
    struct ag_template_part v[AG_PARAM_TEXT_PARTS_MAX];
    uint16_t count;
};

/* How a parameter is written. */
enum ag_param_escape {
    AG_PARAM_RAW,  /* percent-encoded, as matched */
    AG_PARAM_TEXT, /* decoded */
    AG_PARAM_JSON, /* decoded, escaped for the inside of a string of JSON or a script, in a way that is no markup */
    AG_PARAM_HTML, /* decoded, & < > " ' as references, and \ ` $ for scripts in the page */
};

/* Splits `text`, whose bytes are kept, not copied. An unknown parameter's name is a mistake.
 * NULL after a diagnosis. */
AG_MUST_USE const struct ag_param_text *
ag_param_text_compile(struct ag_action_build *b, struct ag_pos pos, struct ag_span text);
/* True when there is no parameter in it; then *out is the whole text. */
bool ag_param_text_literal(const struct ag_param_text *t, struct ag_span *out);
/* Appends the expansion for this exchange. */
void ag_param_text_expand(const struct ag_param_text *t, const struct ag_exchange *ex,
                          enum ag_param_escape how, struct ag_buf *out);
/* Bytes that expand may write at most for this exchange. */
size_t ag_param_text_bound(const struct ag_param_text *t, const struct ag_exchange *ex,
                           enum ag_param_escape how);
