/*
 * range: one byte range of a request (RFC 9110 section 14).
 *
 *   "bytes=0-499" of 1000 -> [0, 500)     "bytes=-1" -> [999, 1000)     "bytes=1000-" -> none: 416
 *
 * What is malformed, of another unit or asks for several ranges is answered with the whole.
 */
#pragma once
#include "engine/span.h"

enum ag_range_result {
    AG_RANGE_WHOLE,         /* no (usable) range: 200 */
    AG_RANGE_PART,          /* 206 */
    AG_RANGE_UNSATISFIABLE, /* 416 */
};

/* `value` is the Range field's, `size_bytes` the content's length. For PART *out_from < size_bytes and
 * *out_len >= 1; else both are untouched. */
enum ag_range_result ag_range_parse(struct ag_span value, uint64_t size_bytes, uint64_t *out_from,
                                    uint64_t *out_len);

#define AG_CONTENT_RANGE_MAX 68u /* "bytes 1-2/3" with the largest numbers */
/* The value of Content-Range: "bytes 0-499/1000", or for len 0 "bytes *" "/1000". */
void ag_range_put_content_range(struct ag_buf *out, uint64_t from, uint64_t len,
                                uint64_t size_bytes);
