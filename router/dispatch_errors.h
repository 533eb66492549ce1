/* dispatch_errors: which pages for errors hold for an exchange; parts of ag_dispatch. */
#pragma once
#include "router/snapshot.h"

/* As the pipeline's error_page and intercepts (proto/exchange.h). */
bool ag_dispatch_error_page(struct ag_exchange *ex, unsigned status);
bool ag_dispatch_intercepts(const struct ag_exchange *ex, unsigned status);
