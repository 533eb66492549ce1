/*
 * access_log: one line for each exchange, at its end, whatever became of it (400, 404, 408 too).
 *
 *   human     127.0.0.1 GET /a?b 200 12 0.4ms "example.com"
 *   combined  127.0.0.1 - - [21/Nov/2026:04:00:00 +0000] "GET /a?b HTTP/1.1" 200 12 "-" "curl/8"
 *   json      {"time":"2026-11-21T04:00:00Z","remote":"127.0.0.1","method":"GET",...}
 *
 * What comes from the client is escaped (CWE-117). The line goes to the log's ring: no shard waits.
 */
#pragma once
#include "proto/exchange.h"

enum ag_access_format { AG_ACCESS_OFF, AG_ACCESS_HUMAN, AG_ACCESS_COMBINED, AG_ACCESS_JSON };

/* `ex` is ending; its started_ns is 0 when the head was never understood. */
void ag_access_log(struct ag_exchange *ex, enum ag_access_format format);
