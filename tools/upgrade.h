/*
 * upgrade: a new binary takes the place of the running one, and no connection is refused meanwhile.
 *
 *   predecessor: start --> [sends sockets, waits for "ready"] --> offer: "yours" --> [waits for "taken"]
 *                    \--> failed: the new process is ended, the old one goes on
 *   successor:   inherit --> receive sockets --> serve --> say "ready" --> [yours] it is the main one
 *
 * What is started is the file that this process was started from, by its path then: whatever lies there
 * now. Same arguments, same environment; ANYGATE_UPGRADE names the channel's descriptor.
 */
#pragma once
#include "tools/handover.h"

#include <signal.h>

#define AG_UPGRADE_TIMEOUT_MS 30000

/* How this process was started, and its successor while there is one. */
struct ag_upgrade {
    char *program; /* absolute; NULL: not known */
    char **argv;
    char **env;
    char **tickets_env; /* where ANYGATE_TICKETS goes in it */
    char *arguments;    /* what argv points into */
    sigset_t mask;
    /* the successor */
    pid_t child;  /* 0: none */
    int child_fd; /* pidfd: readable when it has ended */
    int channel;
    int tickets_fd; /* memory file for the next one; -1: none */
    struct ag_handover_cursor cursor;
    bool offered; /* "yours" was said */
};

/* Remembers program, arguments, environment and signal mask: before any of them is changed. Without
 * /proc nothing is known, and there can be no upgrade. */
void ag_upgrade_init(struct ag_upgrade *u);
/* Forgets; a successor that is not ready yet is ended. */
void ag_upgrade_deinit(struct ag_upgrade *u);

static inline bool ag_upgrade_under_way(const struct ag_upgrade *u)
{
    return u->child != 0;
}

/* What the next successor is handed as keys of session tickets (ANYGATE_TICKETS names a memory file's descriptor,
 * which releases that know of none leave alone); empty: nothing. Without memory they are not handed over. */
void ag_upgrade_give_tickets(struct ag_upgrade *u, struct ag_span text);
/* The predecessor's, appended to `out`; nothing when there are none. Removes ANYGATE_TICKETS. Before any
 * thread. */
void ag_upgrade_inherit_tickets(struct ag_buf *out);
/* Starts the successor. AG_ESYS: the reason is appended to `why`. */
AG_MUST_USE enum ag_status ag_upgrade_start(struct ag_upgrade *u, struct ag_buf *why);
enum ag_upgrade_event {
    AG_UPGRADE_NOTHING, /* yet */
    AG_UPGRADE_READY,   /* it serves, `out_ready` tells more; ag_upgrade_offer is due */
    AG_UPGRADE_TAKEN,   /* it is the main process, and none of ours any more */
    AG_UPGRADE_FAILED,  /* it has been ended; the reason is appended to `why` */
};

/* To be called when `channel` (-1: it has been closed by the other side) is readable, or writable while
 * `cursor.ended` is false, or when `child_fd` is readable. */
enum ag_upgrade_event ag_upgrade_step(struct ag_upgrade *u, const struct ag_sockets *s,
                                      struct ag_handover_ready *out_ready, struct ag_buf *why);
/* Says "yours". When it has gone meanwhile, the next step tells. */
void ag_upgrade_offer(struct ag_upgrade *u);
/* Waits that long for the answer to it, if it was said. True: it is the main process, as AG_UPGRADE_TAKEN. */
AG_MUST_USE bool ag_upgrade_await_taken(struct ag_upgrade *u, int timeout_ms);
/* Ends a successor that is not ready. */
void ag_upgrade_abort(struct ag_upgrade *u);

/* The channel to the predecessor (close-on-exec), or -1: nobody hands over. Removes ANYGATE_UPGRADE.
 * Before any thread. AG_EINVAL: it names no channel; nothing is set. */
AG_MUST_USE enum ag_status ag_upgrade_inherit(int *out_channel);
