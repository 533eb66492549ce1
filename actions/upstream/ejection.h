/*
 * ejection: which servers of an upstream are far slower than the others.
 *
 *   each shard: time to the first byte --once a second--> member's sum --each window--> shard 0: outliers
 *
 * A server is an outlier when its mean is more than `latency` times the median of the others' means, and more
 * than AG_EJECTION_LEAST_US above it: among servers that answer within a millisecond three times as long is
 * nothing. There must be two others to compare with: of a pair none can be told to be the odd one.
 */
#pragma once
#include "actions/upstream/balance.h"

#define AG_EJECTION_LEAST_US 5000u

struct ag_ejection_options {
    uint32_t latency_percent; /* of the others' median; 0: off */
    uint32_t minimum;         /* requests of a server in a window that a mean is made of */
    uint32_t window_ms;
};

/* What was met at a server in one window. */
struct ag_ejection_sample {
    uint64_t sum_us;
    uint32_t count;
};

/* The outliers among servers 0 .. count-1 (at most AG_BALANCE_SERVERS); *out_median_us[i]: what i was compared
 * with. */
void ag_ejection_find(const struct ag_ejection_sample *samples, uint32_t count,
                      const struct ag_ejection_options *o, struct ag_balance_set *out_outliers,
                      uint64_t out_median_us[]);
