/*
 * conditional: may this request be answered from the representation at hand? (RFC 9110 section 13)
 *
 *   If-Match, else If-Unmodified-Since      false -> 412
 *   If-None-Match, else If-Modified-Since   false -> 304 (GET, HEAD), else 412
 *   Range with If-Range                     false -> the range is ignored
 */
#pragma once
#include "proto/http.h"

/* The validators of the selected representation. */
struct ag_validators {
    struct ag_span etag;     /* with quotes, "W/" before a weak one; empty: none */
    int64_t last_modified_s; /* as sent; meaningful with has_last_modified */
    bool has_last_modified;
};

enum ag_precondition {
    AG_PRECONDITION_HOLDS,        /* go on */
    AG_PRECONDITION_NOT_MODIFIED, /* 304 */
    AG_PRECONDITION_FAILED,       /* 412 */
};

/* True when some field asks for more than the plain answer; one pass over the fields. */
bool ag_conditional_asked(const struct ag_fields *fields);
/* Evaluates in the order of section 13.2.2, steps 1 to 4. */
enum ag_precondition ag_conditional_check(const struct ag_request *req,
                                          const struct ag_validators *v);
/* Step 5: the value of the Range field that is to be applied, or an empty span. `now_s`: wall clock, a
 * date of this very second is no strong validator. */
struct ag_span ag_conditional_range(const struct ag_request *req, const struct ag_validators *v,
                                    int64_t now_s);
