/*
 * accept: what a client would rather read: JSON or text (RFC 9110 section 12.5.1).
 *
 *   "application/json"                      JSON
 *   "text/html, application/json;q=0.9"     text
 *   "application/json, text/plain"          JSON: both are as good, and JSON was asked for by name
 *   "*" "/" "*", none                       text
 */
#pragma once
#include "proto/http.h"

/* Whether a problem of RFC 9457 is to be sent rather than text: JSON is named (application/json, +json, or
 * application/problem+json) and nothing that text could serve is wanted more. All fields count as one list; a
 * range whose q is malformed counts as q=1. */
bool ag_accepts_json(const struct ag_fields *fields);
