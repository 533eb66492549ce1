/*
 * range: the byte ranges of a request (RFC 9110 section 14).
 *
 *   "bytes=0-499" of 1000 -> [0, 500)     "bytes=-1" -> [999, 1000)     "bytes=1000-" -> none: 416
 *   "bytes=500-599,0-9,600-699,1000-" of 1000 -> [500, 700) [0, 10)
 *
 * Ranges that overlap or are close are one. What is malformed, of another unit, asks for more than AG_RANGES_MAX or
 * for more than all is answered with the whole: small requests must not make large answers (CVE-2011-3192).
 */
#pragma once
#include "engine/span.h"

#define AG_RANGES_MAX 16u
/* Two ranges with less between them are one: the head of a part takes as much. */
#define AG_RANGE_GAP_BYTES 80u

struct ag_range {
    uint64_t from, len;
};

/* In order of the request, AG_RANGE_GAP_BYTES between any two. */
struct ag_ranges {
    uint32_t count;
    struct ag_range v[AG_RANGES_MAX];
};

enum ag_range_result {
    AG_RANGE_WHOLE,         /* no (usable) range: 200 */
    AG_RANGE_PART,          /* 206 */
    AG_RANGE_UNSATISFIABLE, /* 416 */
};

/* `value` is the Range field's, `size_bytes` the content's length. For PART out->count >= 1, and each range has from <
 * size_bytes and len >= 1; else *out means nothing. */
enum ag_range_result ag_range_parse(struct ag_span value, uint64_t size_bytes,
                                    struct ag_ranges *out);

#define AG_CONTENT_RANGE_MAX 68u /* "bytes 1-2/3" with the largest numbers */
/* The value of Content-Range: "bytes 0-499/1000", or for len 0 "bytes *" "/1000". */
void ag_range_put_content_range(struct ag_buf *out, uint64_t from, uint64_t len,
                                uint64_t size_bytes);
