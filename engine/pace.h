/*
 * pace: a peer must come along at some rate, and may stall only so long.
 *
 *   due:  now + grace at first; each byte of progress buys 1 / rate seconds, up to now + stall
 *
 *     due - now
 *     stall  _ _ _ _ ___ _ _ _ _ _ _ _ _ _ _ _    a burst buys no more than one stall
 *                  /    \
 *     grace \     /      \     nothing comes
 *            \___/        \
 *     0       a trickle    late
 *
 * So whoever keeps the rate never is late, and whoever does not is, however it spreads its bytes.
 */
#pragma once
#include "engine/base.h"

struct ag_pace {
    uint64_t due_ms; /* loop time by which more must have come; 0: not begun */
    uint64_t
        spare; /* thousandths of bytes that have bought no millisecond yet; less than the rate */
};

static inline void ag_pace_start(struct ag_pace *p, uint64_t now_ms, uint32_t grace_ms)
{
    p->due_ms = now_ms + grace_ms;
    p->spare = 0;
}

/* Not before `ms` from now: what kept the peer back was not its own doing. */
static inline void ag_pace_extend(struct ag_pace *p, uint64_t now_ms, uint32_t ms)
{
    if (p->due_ms < now_ms + ms) {
        p->due_ms = now_ms + ms;
    }
}

/* `bytes` of progress. `rate`: bytes per second; 0: any progress is enough for another stall. */
static inline void ag_pace_moved(struct ag_pace *p, uint64_t now_ms, uint64_t bytes, uint32_t rate,
                                 uint32_t stall_ms)
{
    uint64_t bought_ms, most_ms = now_ms + stall_ms;

    if (bytes == 0 || p->due_ms >= most_ms) {
        return;
    }
    if (rate == 0 || bytes > UINT32_MAX) {
        p->due_ms = most_ms;
        return;
    }
    p->spare += bytes * 1000;
    bought_ms = p->spare / rate;
    p->spare %= rate;
    p->due_ms = p->due_ms + bought_ms < most_ms ? p->due_ms + bought_ms : most_ms;
}

static inline bool ag_pace_is_late(const struct ag_pace *p, uint64_t now_ms)
{
    return now_ms >= p->due_ms;
}
