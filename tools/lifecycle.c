#include "tools/lifecycle.h"

#include "engine/log.h"
#include "engine/tls_tickets.h"
#include "tools/activation.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

/* A predecessor sends everything as soon as its child runs. */
#define RECEIVE_TIMEOUT_MS 5000
/* A successor that was told "yours" answers at once, unless it hangs. */
#define TAKEN_TIMEOUT_MS 1000

static uint64_t now_ms(void)
{
    return ag_outcome_now_ns() / 1000000u;
}

static bool complain(const struct ag_buf *why)
{
    (void)fprintf(stderr, "anygate: error: %.*s\n", (int)why->len, (const char *)why->ptr);
    return false;
}

/* ---- start ---- */

static bool inherit(struct ag_lifecycle *lc, struct ag_sockets *s, struct ag_buf *why)
{
    if (ag_upgrade_inherit(&lc->predecessor) != AG_OK) {
        ag_buf_printf(why, "ANYGATE_UPGRADE is set, but names no channel to another anygate; hint: "
                           "only an upgrading anygate sets it");
        return false;
    }
    return lc->predecessor < 0 ||
           ag_handover_receive(lc->predecessor, RECEIVE_TIMEOUT_MS, s, why) == AG_OK;
}

static bool activate(const struct ag_model *m, struct ag_sockets *s, struct ag_buf *why)
{
    struct ag_activation *a = calloc(1, sizeof(*a));
    bool good;

    AG_ASSERT(a);
    good = ag_activation_read(a, AG_ACTIVATION_FIRST, why) == AG_OK &&
           ag_activation_give(a, m, s, why) == AG_OK;
    free(a);
    return good;
}

void ag_lifecycle_init(struct ag_lifecycle *lc, const struct ag_lifecycle_ops *ops, void *owner)
{
    *lc = (struct ag_lifecycle){.ops = ops, .owner = owner};
    lc->predecessor = lc->notify.fd = lc->outcome.fd = -1;
    ag_upgrade_init(&lc->upgrade);
}

bool ag_lifecycle_open(struct ag_lifecycle *lc, const struct ag_model *m, struct ag_sockets *s)
{
    char text[512];
    struct ag_buf why = ag_buf(text, sizeof(text));

    if (!inherit(lc, s, &why) || (lc->predecessor < 0 && !activate(m, s, &why))) {
        return complain(&why);
    }
    if (ag_notify_open(&lc->notify) != AG_OK) {
        (void)fprintf(stderr, "anygate: warning: NOTIFY_SOCKET names no socket that can be used; "
                              "the service manager is told nothing\n");
    }
    return true;
}

static bool write_pid_file(struct ag_lifecycle *lc, struct ag_buf *why)
{
    lc->claimed = ag_pidfile_write(lc->pid_file, getpid(), why) == AG_OK;
    return lc->claimed;
}

bool ag_lifecycle_claim(struct ag_lifecycle *lc, const char *pid_file)
{
    char text[2 * AG_PIDFILE_PATH];
    struct ag_buf why = ag_buf(text, sizeof(text));

    if (!pid_file) {
        return true;
    }
    if ((size_t)snprintf(lc->pid_file, sizeof(lc->pid_file), "%s", pid_file) >=
        sizeof(lc->pid_file) - 32) { /* names are made by appending to it */
        ag_buf_printf(&why, "the path of the pid file is too long: %.60s...", pid_file);
        return complain(&why);
    }
    if (lc->predecessor >= 0) { /* which writes our number there; it may hold its own now */
        if (ag_pidfile_look(lc->pid_file, &why) != AG_OK) {
            return complain(&why);
        }
        ag_outcome_join(&lc->outcome, lc->pid_file);
        return true;
    }
    if (ag_pidfile_check(lc->pid_file, &why) != AG_OK || !write_pid_file(lc, &why)) {
        return complain(&why);
    }
    ag_outcome_open(&lc->outcome, lc->pid_file);
    return true;
}

static void tell_ready(struct ag_lifecycle *lc)
{
    ag_notify_send(&lc->notify, "READY=1\nSTATUS=%s", lc->status);
}

static void set_status(struct ag_lifecycle *lc, const char *status)
{
    (void)snprintf(lc->status, sizeof(lc->status), "%s", status);
}

void ag_lifecycle_up(struct ag_lifecycle *lc, const char *status)
{
    AG_ASSERT(!lc->is_up);
    lc->is_up = true;
    lc->watchdog_due_ms = now_ms();
    set_status(lc, status);
    if (lc->predecessor < 0) {
        tell_ready(lc);
    } else {
        /* It is gone when this fails; then the channel says so too. */
        (void)!ag_handover_say_ready(lc->predecessor, lc->pid_file);
    }
}

/* ---- the end ---- */

/* Serving matters more: what cannot be written is told, and no more. */
static void put_pid_file(const char *path, pid_t pid)
{
    char text[AG_PIDFILE_PATH + 200];
    struct ag_buf why = ag_buf(text, sizeof(text));

    if (path[0] && ag_pidfile_write(path, pid, &why) != AG_OK) {
        ag_log(AG_LOG_ERROR, "%.*s", (int)why.len, text);
    }
}

/* What was offered was not taken. */
static void take_back(struct ag_lifecycle *lc)
{
    if (lc->successor.pid != 0) {
        ag_notify_send(&lc->notify, "MAINPID=%d", (int)getpid());
        put_pid_file(lc->pid_file, getpid());
    }
    lc->successor.pid = 0;
}

static void forget_pid_file(struct ag_lifecycle *lc)
{
    if (lc->claimed) {
        ag_outcome_remove(lc->pid_file);
        ag_pidfile_remove(lc->pid_file);
    }
    lc->claimed = false;
}

void ag_lifecycle_close(struct ag_lifecycle *lc)
{
    forget_pid_file(lc);
    ag_outcome_close(&lc->outcome);
    ag_notify_close(&lc->notify);
    ag_upgrade_deinit(&lc->upgrade);
    if (lc->predecessor >= 0) {
        (void)close(lc->predecessor);
    }
    lc->predecessor = -1;
}

void ag_lifecycle_leave(struct ag_lifecycle *lc)
{
    lc->claimed = false;
    lc->upgrade.child = 0;
    ag_lifecycle_close(lc);
}

/* ---- the predecessor ---- */

static void take_over(struct ag_lifecycle *lc, const char *how)
{
    (void)close(lc->predecessor);
    lc->predecessor = -1;
    lc->claimed = lc->pid_file[0] != '\0';
    ag_log(AG_LOG_INFO, "upgraded: process %d serves; %s", (int)getpid(), how);
    tell_ready(lc);
}

static void hear_predecessor(struct ag_lifecycle *lc)
{
    enum ag_handover_word word = AG_HANDOVER_READY;
    struct ag_handover_ready unused;
    enum ag_status st = ag_handover_hear(lc->predecessor, &word, &unused);

    if (st == AG_ENOENT) {
        if (lc->is_up) {
            put_pid_file(lc->pid_file, getpid());
            take_over(lc, "its predecessor is gone");
        }
    } else if (st == AG_OK && word == AG_HANDOVER_YOURS) {
        (void)!ag_handover_say(lc->predecessor, AG_HANDOVER_TAKEN);
        take_over(lc, "its predecessor drains");
    } else if (st == AG_OK && word == AG_HANDOVER_NEVER) {
        (void)close(lc->predecessor);
        lc->predecessor = -1;
        lc->stopping = true; /* the service manager does not hear of it: it knows the predecessor */
        ag_log(AG_LOG_ERROR, "upgrade: the predecessor has given this process up");
        lc->ops->quit(lc->owner);
    }
}

/* ---- the successor ---- */

/* A reload that was asked for meanwhile is done by who serves now. */
static void pass_reload(struct ag_lifecycle *lc, pid_t successor)
{
    if (!lc->reload_asked) {
        return;
    }
    lc->reload_asked = false;
    if (successor) {
        (void)kill(successor, SIGHUP);
    } else {
        lc->ops->reload(lc->owner);
    }
}

/* Before "yours", since the manager hears the main process alone, and so that there is always a pid
 * file, and one that names a living process. */
static void offer(struct ag_lifecycle *lc, const struct ag_handover_ready *ready)
{
    lc->successor = *ready;
    ag_notify_send(&lc->notify, "MAINPID=%d", (int)ready->pid);
    put_pid_file(ready->pid_file, ready->pid);
    ag_upgrade_offer(&lc->upgrade);
}

static void hand_over(struct ag_lifecycle *lc)
{
    lc->handed_over = true;
    if (strcmp(lc->successor.pid_file, lc->pid_file) == 0) {
        lc->claimed = false;
    } else {
        forget_pid_file(lc);
    }
    ag_notify_close(&lc->notify);
    ag_log(AG_LOG_INFO, "upgraded: process %d serves; process %d drains", (int)lc->successor.pid,
           (int)getpid());
    lc->ops->yield(lc->owner);
    pass_reload(lc, lc->successor.pid);
}

static void upgrade_failed(struct ag_lifecycle *lc, const struct ag_buf *why)
{
    take_back(lc);
    if (lc->claimed) {
        ag_outcome_join(&lc->outcome, lc->pid_file); /* the new process may have made its own */
    }
    ag_log(AG_LOG_ERROR, "upgrade failed: %.*s; this process goes on serving", (int)why->len,
           (const char *)why->ptr);
    ag_notify_send(&lc->notify, "STATUS=%s; the upgrade failed", lc->status);
    pass_reload(lc, 0);
}

static void step_upgrade(struct ag_lifecycle *lc, const struct ag_sockets *s)
{
    char text[600];
    struct ag_buf why = ag_buf(text, sizeof(text));
    struct ag_handover_ready ready;

    switch (ag_upgrade_step(&lc->upgrade, s, &ready, &why)) {
    case AG_UPGRADE_READY:
        offer(lc, &ready);
        break;
    case AG_UPGRADE_TAKEN:
        hand_over(lc);
        break;
    case AG_UPGRADE_FAILED:
        upgrade_failed(lc, &why);
        break;
    case AG_UPGRADE_NOTHING:
        if (now_ms() >= lc->upgrade_by_ms) {
            ag_upgrade_abort(&lc->upgrade);
            ag_buf_printf(&why, "%s was not ready within %d s", lc->upgrade.program,
                          AG_UPGRADE_TIMEOUT_MS / 1000);
            upgrade_failed(lc, &why);
        }
        break;
    }
}

/* Why there can be no upgrade now, or NULL. */
static const char *against_upgrade(const struct ag_lifecycle *lc)
{
    if (lc->stopping) {
        return "this process is stopping";
    }
    if (lc->handed_over) {
        return "this process has a successor and drains";
    }
    if (ag_upgrade_under_way(&lc->upgrade)) {
        return "one is under way";
    }
    if (getpid() == 1) {
        return "process 1 of a container cannot end without it; hint: replace the container";
    }
    return NULL;
}

static void give_tickets(struct ag_lifecycle *lc)
{
    uint8_t text[AG_TLS_TICKETS_TEXT_BYTES];
    struct ag_buf b = ag_buf(text, sizeof(text));

    if (lc->ops->tickets) {
        lc->ops->tickets(lc->owner, &b);
    }
    ag_upgrade_give_tickets(&lc->upgrade, ag_buf_span(&b));
    explicit_bzero(text, sizeof(text));
}

void ag_lifecycle_upgrade(struct ag_lifecycle *lc)
{
    const char *against = against_upgrade(lc);
    char text[1024];
    struct ag_buf why = ag_buf(text, sizeof(text));

    if (against) {
        ag_log(AG_LOG_WARN, "SIGUSR2: no upgrade: %s", against);
        return;
    }
    if (!lc->is_up || lc->predecessor >= 0 || lc->reloading) {
        lc->upgrade_asked = true; /* when that is through */
        return;
    }
    lc->upgrade_asked = false;
    give_tickets(lc);
    if (ag_upgrade_start(&lc->upgrade, &why) != AG_OK) {
        upgrade_failed(lc, &why);
        return;
    }
    ag_log(AG_LOG_INFO, "SIGUSR2: upgrade: %s is started as process %d", lc->upgrade.program,
           (int)lc->upgrade.child);
    lc->upgrade_by_ms = now_ms() + AG_UPGRADE_TIMEOUT_MS;
}

/* ---- the signal to stop ---- */

/* Who was offered the place may have it already, and then it is not ended with this process. */
static void stop_upgrade(struct ag_lifecycle *lc)
{
    if (!ag_upgrade_under_way(&lc->upgrade)) {
        return;
    }
    if (ag_upgrade_await_taken(&lc->upgrade, TAKEN_TIMEOUT_MS)) {
        hand_over(lc);
        return;
    }
    ag_upgrade_abort(&lc->upgrade);
    take_back(lc);
    ag_log(AG_LOG_WARN, "upgrade given up: this process is to stop");
}

void ag_lifecycle_stopping(struct ag_lifecycle *lc)
{
    if (lc->stopping) {
        return;
    }
    lc->stopping = true;
    lc->upgrade_asked = false;
    stop_upgrade(lc);
    ag_notify_send(&lc->notify, "STOPPING=1\nSTATUS=draining");
    if (lc->reloading) {
        ag_lifecycle_reload_refused(lc, AG_SPAN("the server is stopping"));
    }
}

/* ---- reload ---- */

bool ag_lifecycle_reload_begins(struct ag_lifecycle *lc)
{
    if (lc->predecessor >= 0) {
        hear_predecessor(lc); /* it passes reloads on after it has said "yours" */
    }
    if (ag_upgrade_under_way(&lc->upgrade)) {
        lc->reload_asked = true;
        ag_log(AG_LOG_INFO, "SIGHUP: an upgrade is under way; the reload follows it");
        return false;
    }
    if (lc->handed_over) {
        ag_log(AG_LOG_WARN, "SIGHUP: no reload: this process has a successor and drains");
        return false;
    }
    ag_outcome_begin(&lc->outcome);
    if (lc->stopping) {
        ag_lifecycle_reload_refused(lc, AG_SPAN("the server is stopping"));
        return false;
    }
    lc->reloading = true;
    ag_notify_reloading(&lc->notify);
    return true;
}

void ag_lifecycle_print(struct ag_lifecycle *lc, const struct ag_load *load)
{
    ag_load_log(load);
    if (lc->outcome.fd >= 0) {
        ag_diags_print(&load->diags, lc->outcome.fd, AG_DIAG_HUMAN, false);
    }
}

static void end_badly(struct ag_lifecycle *lc, const char *verb, struct ag_span why,
                      const char *rest)
{
    lc->reloading = false;
    ag_log(AG_LOG_ERROR, "reload %s: %.*s%s", verb, (int)why.len, (const char *)why.ptr, rest);
    ag_outcome_say(&lc->outcome, "reload %s: %.*s%s\n", verb, (int)why.len, (const char *)why.ptr,
                   rest);
    ag_outcome_end(&lc->outcome, false);
    if (!lc->stopping) {
        ag_notify_send(&lc->notify, "READY=1\nSTATUS=%s; the last reload %s%s", lc->status,
                       rest[0] ? "was " : "", verb);
    }
}

void ag_lifecycle_reload_lacks(struct ag_lifecycle *lc, struct ag_span keys)
{
    if (keys.len > 0) {
        ag_outcome_say(&lc->outcome, "warning: changed, which takes effect at a restart: %.*s\n",
                       (int)keys.len, (const char *)keys.ptr);
    }
}

void ag_lifecycle_reload_refused(struct ag_lifecycle *lc, struct ag_span why)
{
    end_badly(lc, "refused", why, "; the configuration before stays");
}

void ag_lifecycle_reload_failed(struct ag_lifecycle *lc, struct ag_span why)
{
    end_badly(lc, "failed", why, "");
}

void ag_lifecycle_reload_applied(struct ag_lifecycle *lc, const char *status)
{
    AG_ASSERT(lc->reloading);
    lc->reloading = false;
    set_status(lc, status);
    ag_outcome_end(&lc->outcome, true);
    tell_ready(lc);
}

/* ---- the loop ---- */

void ag_lifecycle_fds(const struct ag_lifecycle *lc, struct pollfd out[static AG_LIFECYCLE_FDS])
{
    const struct ag_upgrade *u = &lc->upgrade;

    out[0] = (struct pollfd){.fd = lc->predecessor, .events = POLLIN};
    out[1] = (struct pollfd){.fd = u->channel, .events = POLLIN};
    out[2] = (struct pollfd){.fd = u->child_fd, .events = POLLIN};
    if (!u->cursor.ended) {
        out[1].events |= POLLOUT;
    }
}

static bool watched(const struct ag_lifecycle *lc)
{
    return lc->is_up && !lc->pinged && !lc->handed_over && lc->predecessor < 0 &&
           ag_notify_on(&lc->notify) && lc->notify.watchdog_ms > 0;
}

int ag_lifecycle_wait_ms(const struct ag_lifecycle *lc)
{
    uint64_t now = now_ms(), until = UINT64_MAX;

    if (ag_upgrade_under_way(&lc->upgrade)) {
        until = lc->upgrade_by_ms;
    }
    if (watched(lc)) {
        until = ag_min_u64(until, lc->watchdog_due_ms);
    }
    if (until == UINT64_MAX) {
        return -1;
    }
    return until <= now ? 0 : (int)ag_min_u64(until - now, 60000);
}

void ag_lifecycle_turn(struct ag_lifecycle *lc, const struct ag_sockets *s)
{
    if (lc->predecessor >= 0) {
        hear_predecessor(lc);
    }
    if (ag_upgrade_under_way(&lc->upgrade)) {
        step_upgrade(lc, s);
    }
    if (lc->upgrade_asked) {
        ag_lifecycle_upgrade(lc);
    }
    if (watched(lc) && now_ms() >= lc->watchdog_due_ms) {
        lc->pinged = true;
        lc->ops->ping(lc->owner);
    }
}

void ag_lifecycle_alive(struct ag_lifecycle *lc)
{
    AG_ASSERT(lc->pinged);
    lc->pinged = false;
    lc->watchdog_due_ms = now_ms() + lc->notify.watchdog_ms;
    ag_notify_send(&lc->notify, "WATCHDOG=1");
}
