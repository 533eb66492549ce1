/* proxy_describe: upstreams for people: what `check` prints and warns of. Load time only. */
#pragma once
#include "actions/proxy/proxy_config.h"

/* One line an upstream: its name, then its servers with their weights; and one for each scheme other than http
 * that it is used with: protocols, and how its servers are verified. */
void ag_proxy_describe(const void *section, struct ag_buf *out);
/* Warns of servers whose names do not resolve here and now; asks the system's resolver, and waits. */
void ag_proxy_examine(const void *section, struct ag_diags *diags);
