/*
 * foreign: words of nginx, HAProxy and Traefik, and what stands for them here: hints for those who
 * bring a configuration (docs/MIGRATION.md has them all).
 *
 *   proxy_read_timeout -> timeouts: {read: 60s}
 *   $remote_addr       -> {remote.ip}
 */
#pragma once
#include "engine/diag.h"

/* What stands for `word`, as a hint; NULL when it is nobody's. Case counts. */
const char *ag_foreign_hint(struct ag_span word);
/* Warns of the first variable of theirs in `text`, which begins at `pos`: it would be sent as it is
 * written. `hint` instead of what stands for it, where no variables are known; or NULL. */
void ag_foreign_warn(struct ag_diags *d, struct ag_pos pos, struct ag_span text, const char *hint);
