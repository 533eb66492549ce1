/*
 * tickets: the process's ring of ticket keys (engine/tls_tickets.h): when it turns, and the file that it is kept
 * in. The control thread's; where there is a master it is the master's, and the worker is sent the keys.
 *
 *   start: keys of a predecessor, of the file, or new ones
 *   rotate: a new key every tls.tickets.rotate; the file is written (0600, by renaming), unless another process has
 *           just written a newer one, which is read instead
 */
#pragma once
#include "router/snapshot.h"

struct ag_tickets {
    struct ag_tls_tickets *ring; /* NULL: no listener has ever given tickets */
    bool on;                     /* some listener does */
    char *file;                  /* malloc; NULL: none */
    uint64_t rotate_ms;
    uint64_t rotate_at_ms; /* monotonic */
    uint64_t look_at_ms;   /* monotonic: at the file */
    uint64_t seen;         /* of the file: what tells its states apart; 0: not there */
    bool failed;           /* to write it, and it was told */
    bool foreign;          /* what is there could not be read as such a file, and stays as it is */
};

/* All zero is empty; `inherited`: what a predecessor handed over, or empty. */
void ag_tickets_init(struct ag_tickets *t, struct ag_span inherited);
void ag_tickets_deinit(struct ag_tickets *t);
/* Before a configuration's contexts are made: there is a ring when it gives tickets, the keys being those of its
 * file. False: no memory or no randomness. */
AG_MUST_USE bool ag_tickets_prepare(struct ag_tickets *t, const struct ag_model *m);
/* The configuration is served: rotation and file as it says. A worker calls this not at all. */
void ag_tickets_apply(struct ag_tickets *t, const struct ag_model *m);
/* How long until a turn has something to do; -1: for ever. */
int ag_tickets_wait_ms(const struct ag_tickets *t);
/* Rotates and looks at the file when it is time. True: the keys have changed. */
bool ag_tickets_turn(struct ag_tickets *t);
/* The keys as text; nothing without a ring. */
void ag_tickets_save(const struct ag_tickets *t, struct ag_buf *out);
