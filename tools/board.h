/*
 * board: what each shard lets the others read: stored by it alone, without order, read by whoever asks. One a process.
 */
#pragma once
#include "engine/loop.h"

#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct ag_board_shard {
    alignas(64) _Atomic uint32_t connections; /* of clients */
    _Atomic bool serves;                      /* it has listeners, and is not draining */
    const struct ag_loop_stats *_Atomic loop; /* its counters; NULL: it has not opened */
    struct ag_spread *_Atomic spread; /* where connections for it go; set before it serves */
};

struct ag_board {
    uint64_t started_ms; /* by the clock of loops */
    const char *backend; /* static */
    uint32_t shard_count;
    struct ag_board_shard *each;
};
