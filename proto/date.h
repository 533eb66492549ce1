/* date: IMF-fixdate (RFC 9110 section 5.6.7). */
#pragma once
#include "engine/span.h"

#define AG_DATE_LEN 29u /* "Sun, 06 Nov 1994 08:49:37 GMT" */

/* Writes AG_DATE_LEN bytes, no NUL. Years beyond 0..9999 are clamped: file times may be
 * anything. */
void ag_date_format(int64_t seconds, uint8_t out[static AG_DATE_LEN]);
/* Accepts IMF-fixdate, and the obsolete RFC 850 and asctime forms; names are case-sensitive, and
 * the weekday is not compared with the date. RFC 850 has two-digit years: one more than 50 years
 * ahead is in the past, where "ahead" is counted from the start of 2026, for proto/ has no clock
 * (years mean 1976 to 2075). AG_EINVAL. */
AG_MUST_USE enum ag_status ag_date_parse(struct ag_span s, int64_t *out_seconds);
