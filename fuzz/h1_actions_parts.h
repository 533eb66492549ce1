/*
 * h1_actions_parts: what the two files of h1_actions share; nobody else includes it.
 *
 *   h1_pipeline.c  requests come, are seen, and go
 *   h1_actions.c   what is done with them
 */
#pragma once
#include "fuzz/h1_actions.h"

/* One request under way; in the exchange's arena. */
struct act_work {
    struct ag_exchange *ex;
    struct acts *all;
    struct act_seen *seen;
    struct ag_block *kept; /* content that was read, NULL: none */
    size_t kept_len, sent;
    bool waits, filter, over;
};

/* Begins, or goes on behind a filter. */
void act_run(struct act_work *w);
/* The action is over, and holds its exchange no more. Once or more. */
void act_let_go(struct act_work *w);
/* Fills what is answered. */
void act_init(void);
