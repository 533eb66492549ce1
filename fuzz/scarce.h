/*
 * scarce: a loop whose pages or small buffers are nearly all taken, for as long as a target wants it.
 */
#pragma once
#include "engine/loop.h"

/* What the loop is to have of each. */
#define SCARCE_SMALL 512u
#define SCARCE_PAGES 512u

struct scarce {
    struct ag_block *buffers[SCARCE_SMALL];
    void *pages[SCARCE_PAGES];
    unsigned buffer_count, page_count;
};

/* Takes all but `left` pages (what % 3 is 0) or small buffers (1), or gives all back (2). */
void scarce_make(struct scarce *s, struct ag_loop *l, unsigned what, unsigned left);
