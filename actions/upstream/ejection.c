#include "actions/upstream/ejection.h"

#include <stdlib.h>

static uint64_t mean_of(const struct ag_ejection_sample *s)
{
    return s->sum_us / s->count;
}

static int by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

/* The median of sorted `v` without the element at `gone`; `count` is at least 2. */
static uint64_t median_without(const uint64_t *v, uint32_t count, uint32_t gone)
{
    uint32_t middle = (count - 1) / 2; /* among the others */
    uint64_t high = v[middle < gone ? middle : middle + 1], low;

    if ((count - 1) % 2 == 1) {
        return high;
    }
    middle--;
    low = v[middle < gone ? middle : middle + 1];
    return low + (high - low) / 2;
}

static uint32_t place_of(const uint64_t *v, uint32_t count, uint64_t value)
{
    uint32_t i = 0;

    while (i < count && v[i] != value) {
        i++;
    }
    AG_ASSERT(i < count);
    return i;
}

void ag_ejection_find(const struct ag_ejection_sample *samples, uint32_t count,
                      const struct ag_ejection_options *o, struct ag_balance_set *out_outliers,
                      uint64_t out_median_us[])
{
    uint64_t sorted[AG_BALANCE_SERVERS];
    uint32_t n = 0;

    AG_ASSERT(count <= AG_BALANCE_SERVERS && o->minimum > 0);
    *out_outliers = (struct ag_balance_set){{0}};
    for (uint32_t i = 0; i < count; i++) {
        out_median_us[i] = 0;
        if (samples[i].count >= o->minimum) {
            sorted[n++] = mean_of(&samples[i]);
        }
    }
    if (n < 3) {
        return;
    }
    qsort(sorted, n, sizeof(sorted[0]), by_size);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t mean, median;

        if (samples[i].count < o->minimum) {
            continue;
        }
        mean = mean_of(&samples[i]);
        median = median_without(sorted, n, place_of(sorted, n, mean));
        out_median_us[i] = median;
        if (mean * 100 > median * o->latency_percent && mean > median + AG_EJECTION_LEAST_US) {
            ag_balance_set_add(out_outliers, i);
        }
    }
}
