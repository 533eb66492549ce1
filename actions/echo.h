/*
 * echo: answers with the request as JSON (SPEC.md section 5).
 *
 *   {"method":"POST","path":"/a","query":"x=1","params":{"id":"7"},"protocol":"HTTP/1.1",
 *    "remote":"192.0.2.1:4711","headers":[["Host","example.com"],["X-A","1"],["X-A","2"]],
 *    "body":"hello","base64":false,"truncated":false,"body_length":5}
 *
 * `path` is the normalised one; `query` is as received, without "?". `headers` are pairs, so that order,
 * case and repetition can be seen. `body` holds the first echo.max_body bytes: text, or base64 when they
 * are not readable UTF-8. It is answered once the request was read to its end.
 *
 * Section: echo: {max_body: 4k}, at most 64k.
 */
#pragma once
#include "actions/action.h"

extern const struct ag_action_ops ag_action_echo;
