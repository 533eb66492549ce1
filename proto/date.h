/* date: IMF-fixdate (RFC 9110 section 5.6.7). */
#pragma once
#include "engine/span.h"

#define AG_DATE_LEN 29u /* "Sun, 06 Nov 1994 08:49:37 GMT" */

/* Writes AG_DATE_LEN bytes, no NUL. */
void ag_date_format(int64_t seconds, uint8_t out[static AG_DATE_LEN]);
/* Accepts IMF-fixdate, and the obsolete RFC 850 and asctime forms. AG_EINVAL. */
AG_MUST_USE enum ag_status ag_date_parse(struct ag_span s, int64_t *out_seconds);
