/*
 * headers: sets, adds and removes fields of requests and answers.
 *
 *   headers:
 *     request:  {set: {X-Env: prod}, add: {...}, remove: [Cookie]}
 *     response: {set: {X-Api: "1"}, add: {Vary: Accept}, remove: [Server]}
 *
 * The short form {set: {...}} is the response's. Values may hold variables (proto/vars.h). Order:
 * remove, set, add. Refused at load: names that are no token, fields that frame a message or belong to
 * one connection (RFC 9110 section 7.6.1), and Host.
 */
#pragma once
#include "filters/filter.h"

extern const struct ag_filter_ops ag_filter_headers;
