/*
 * A histogram of times with at most 0.8 % of error: each power of two is cut into 128 equal parts, as HdrHistogram
 * does it. Up to 2^42 ns, more than an hour; longer ones count as that.
 */
#ifndef BENCH_HISTOGRAM_H
#define BENCH_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_BITS 7u /* of a value that count */
#define HISTOGRAM_SUB  (1u << HISTOGRAM_BITS)
#define HISTOGRAM_TOP  42u

struct histogram {
    uint64_t count, max_ns;
    uint64_t parts[(HISTOGRAM_TOP - HISTOGRAM_BITS + 1) * HISTOGRAM_SUB];
};

static inline void histogram_add(struct histogram *h, uint64_t ns)
{
    uint64_t v = ns >> HISTOGRAM_TOP ? (1ull << HISTOGRAM_TOP) - 1 : ns;
    unsigned top =
        63u - (unsigned)__builtin_clzll(v | HISTOGRAM_SUB); /* below 128 each is one part */
    unsigned row = top - HISTOGRAM_BITS;

    h->parts[row * HISTOGRAM_SUB + (v >> row)]++;
    h->count++;
    h->max_ns = ns > h->max_ns ? ns : h->max_ns;
}

/* The time that a share `q` (0 to 1) of them does not exceed: the middle of its part, in ns; 0 when empty. */
static inline double histogram_quantile(const struct histogram *h, double q)
{
    double wanted = q * (double)h->count;
    uint64_t seen = 0;

    for (unsigned i = 0; i < sizeof(h->parts) / sizeof(h->parts[0]); i++) {
        seen += h->parts[i];
        if (h->parts[i] > 0 && (double)seen >= wanted) {
            unsigned row = i < HISTOGRAM_SUB ? 0 : i / HISTOGRAM_SUB - 1;
            double from = (double)((uint64_t)(i - row * HISTOGRAM_SUB) << row);
            double middle = from + (double)((1ull << row) - 1) / 2;

            return middle < (double)h->max_ns ? middle : (double)h->max_ns;
        }
    }
    return 0;
}

#endif
