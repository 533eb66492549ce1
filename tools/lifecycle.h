/*
 * lifecycle: a process among others: its service manager (notify.h, activation.h), the file that names
 * it (pidfile.h), who asks for reloads (outcome.h), and the processes before and after it (upgrade.h).
 * One control thread owns it; what it cannot do itself it asks of its owner.
 *
 *   init --> open --> claim --> up --> [reload begins, ends]* --> stopping --> close
 *                                \--> upgrade --> [successor is ready] --> owner's yield --> close
 *
 * After an upgrade this process is nobody's any more: it drains, and tells the service manager nothing.
 */
#pragma once
#include "tools/load.h"
#include "tools/notify.h"
#include "tools/outcome.h"
#include "tools/upgrade.h"

#include <poll.h>

#define AG_LIFECYCLE_FDS 3u

/* What is asked of the owner, on its control thread. */
struct ag_lifecycle_ops {
    /* A successor serves: accept no more, and let what is connected come to its end. */
    void (*yield)(void *owner);
    /* The predecessor has given this process up before it was ready: end at once. */
    void (*quit)(void *owner);
    /* A reload was asked for while there was no telling which process would have to do it. */
    void (*reload)(void *owner);
    /* Have every shard answer through its inbox; ag_lifecycle_alive when all have. */
    void (*ping)(void *owner);
    /* The keys of session tickets, for a successor. May be NULL: there are none. */
    void (*tickets)(void *owner, struct ag_buf *out);
};

struct ag_lifecycle {
    const struct ag_lifecycle_ops *ops;
    void *owner;
    struct ag_notify notify;
    struct ag_upgrade upgrade;
    struct ag_outcome outcome;          /* of reloads */
    struct ag_handover_ready successor; /* once it was ready; pid 0: none */
    int predecessor;                    /* its channel until it says "yours"; -1: none */
    bool is_up;                         /* all shards serve */
    bool handed_over;                   /* a successor serves */
    bool stopping;
    bool upgrade_asked; /* while starting or reloading */
    bool reload_asked;  /* during an upgrade */
    bool reloading;
    bool pinged;                    /* and not all have answered */
    bool claimed;                   /* the pid file is ours */
    uint64_t upgrade_by_ms;         /* monotonic: when a successor must be ready */
    uint64_t watchdog_due_ms;       /* monotonic: when to ping next */
    char pid_file[AG_PIDFILE_PATH]; /* "": none */
    char status[128];               /* what READY=1 tells */
};

/* Before signals are blocked: remembers how the process was started. */
void ag_lifecycle_init(struct ag_lifecycle *lc, const struct ag_lifecycle_ops *ops, void *owner);
/* Before any thread: finds manager and predecessor, and puts the sockets that either gives into `s`.
 * False after an error was printed. */
bool ag_lifecycle_open(struct ag_lifecycle *lc, const struct ag_model *m, struct ag_sockets *s);
/* The listeners are bound, and files can still be made: writes `pid_file` (NULL: none), which in an
 * upgrade the predecessor does. False after an error was printed. */
bool ag_lifecycle_claim(struct ag_lifecycle *lc, const char *pid_file);
/* Every shard serves. `status`: a line for the service manager. */
void ag_lifecycle_up(struct ag_lifecycle *lc, const char *status);
/* SIGTERM: no more upgrades and reloads. A successor that has taken over already serves on. */
void ag_lifecycle_stopping(struct ag_lifecycle *lc);
/* Harmless after init alone. */
void ag_lifecycle_close(struct ag_lifecycle *lc);
/* The same in a forked child: what it holds is its parent's, whose files and successor stay. */
void ag_lifecycle_leave(struct ag_lifecycle *lc);

/* ---- the control thread's loop ---- */

/* What to poll for; unused ones have fd -1. */
void ag_lifecycle_fds(const struct ag_lifecycle *lc, struct pollfd out[static AG_LIFECYCLE_FDS]);
/* How long poll may wait; -1: for ever. */
int ag_lifecycle_wait_ms(const struct ag_lifecycle *lc);
/* After each poll, whatever it brought. `s`: what a successor gets. */
void ag_lifecycle_turn(struct ag_lifecycle *lc, const struct ag_sockets *s);

/* Every shard has answered the ping. */
void ag_lifecycle_alive(struct ag_lifecycle *lc);

/* ---- reload and upgrade ---- */

/* SIGHUP. False: it is not to be done now (kept for later, or refused: the log says so). True: it has
 * begun; exactly one of refused, failed and applied follows. */
bool ag_lifecycle_reload_begins(struct ag_lifecycle *lc);
/* Before it is applied: what it has changed and only a restart takes up, if anything; who asked is told. */
void ag_lifecycle_reload_lacks(struct ag_lifecycle *lc, struct ag_span keys);
void ag_lifecycle_reload_refused(struct ag_lifecycle *lc, struct ag_span why);
/* The same when the configuration before may not be what is served. */
void ag_lifecycle_reload_failed(struct ag_lifecycle *lc, struct ag_span why);
/* The diagnoses, to the log and to who asked. */
void ag_lifecycle_print(struct ag_lifecycle *lc, const struct ag_load *load);
/* Every shard serves by the new configuration. `status` as above. */
void ag_lifecycle_reload_applied(struct ag_lifecycle *lc, const char *status);

/* SIGUSR2. The log says what comes of it. */
void ag_lifecycle_upgrade(struct ag_lifecycle *lc);
