/*
 * cookie: the cookies of a request by name (RFC 6265 sections 4.2 and 5.4): "a=1; b=2", in one Cookie field or several
 * (HTTP/2 may have one for each: RFC 9113 section 8.2.3).
 */
#pragma once
#include "proto/http.h"

/* Begins as zeros; after the last one it is as at first. */
struct ag_cookie_walk {
    const struct ag_field *field;
    size_t at;
};

/* The next cookie called `name`, letters as they are; its value without the quotes around it. False: no more. */
bool ag_cookie_next(const struct ag_fields *fields, struct ag_span name,
                    struct ag_cookie_walk *walk, struct ag_span *out_value);
