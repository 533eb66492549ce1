#include "tools/master.h"

#include "actions/proxy/proxy_config.h"
#include "tools/commands.h"
#include "tools/crash.h"
#include "tools/lifecycle.h"
#include "tools/material.h"
#include "tools/sizing.h"
#include "tools/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* A worker's answer to a bundle or to COMMIT is due after this, and ten times what the load took here. */
#define ANSWER_MS 5000u

enum state { STARTING, SERVING, LOADING, APPLYING, DRAINING };

struct master {
    struct ag_config_input input; /* opener: of the load under way */
    struct ag_lifecycle life;
    struct ag_material material; /* the worker is sent the ticket keys */
    struct ag_sockets sockets;   /* empty once the worker is to end */
    uint32_t shards;
    uint32_t routes; /* of what is served, or loaded */
    struct ag_user user;
    char *chroot; /* or NULL */
    enum ag_confine seccomp;
    bool buffers; /* the last configuration does, in `folder` */
    struct stat folder;
    int signal_fd;
    int channel; /* to the worker; -1: closed */
    pid_t worker;
    enum state state;
    uint32_t generation; /* of the last bundle */
    uint32_t cancelled;  /* of the last one that the worker did not answer in time */
    bool reload_asked;   /* while another was under way */
    unsigned stops;
    bool killed;
    bool given_up; /* by the predecessor: whatever the worker does, this was no success */
    uint64_t drain_timeout_ms;
    uint64_t kill_at_ms;   /* 0: not waiting for the worker's end */
    uint64_t answer_ms;    /* how long the worker may take for the load under way */
    uint64_t answer_by_ms; /* 0: no answer is due, or it is overdue */
};

static uint64_t now_ms(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static void set_state(struct master *m, enum state to)
{
    static const uint8_t edges[] = {
        [STARTING] = 1 << SERVING | 1 << DRAINING,
        [SERVING] = 1 << LOADING | 1 << DRAINING,
        [LOADING] = 1 << SERVING | 1 << APPLYING | 1 << DRAINING,
        [APPLYING] = 1 << SERVING | 1 << DRAINING,
        [DRAINING] = 1 << DRAINING, /* by yielding, then by a signal */
    };

    AG_ASSERT(edges[m->state] >> to & 1);
    m->state = to;
    m->answer_by_ms = to == LOADING || to == APPLYING ? now_ms() + m->answer_ms : 0;
}

/* ---- the worker ---- */

static void kill_worker(struct master *m)
{
    if (!m->killed) {
        (void)kill(m->worker, SIGKILL);
        m->killed = true;
    }
}

static void tell(struct master *m, enum ag_channel_type type)
{
    if (m->channel >= 0 && ag_channel_tell(m->channel, type, m->generation) != AG_OK) {
        /* It does not read. When it does again, it finds the end, and drains. */
        (void)close(m->channel);
        m->channel = -1;
    }
}

static void send_tickets(struct master *m)
{
    struct ag_channel_msg *msg;
    struct ag_buf b;

    if (!m->material.tickets.on || m->channel < 0) {
        return;
    }
    msg = calloc(1, sizeof(*msg));
    AG_ASSERT(msg); /* a few kilobytes, once in hours */
    msg->type = AG_CHANNEL_TICKETS;
    msg->generation = m->generation;
    b = ag_buf(msg->text, sizeof(msg->text));
    ag_tickets_save(&m->material.tickets, &b);
    msg->text_len = (uint32_t)b.len;
    (void)!ag_channel_send(m->channel,
                           msg); /* a worker that does not read is found by other words */
    explicit_bzero(msg, sizeof(*msg));
    free(msg);
}

/* The worker is to end: for `order`, and at the latest after `ms` (and some patience). */
static void send_off(struct master *m, enum ag_channel_type order, uint64_t ms)
{
    set_state(m, DRAINING);
    ag_sockets_cancel(&m->sockets);
    ag_sockets_deinit(&m->sockets); /* or they would go on to take connections */
    tell(m, order);
    m->kill_at_ms = now_ms() + ms + AG_MASTER_PATIENCE_MS;
}

static void stop(struct master *m, const char *name)
{
    if (m->stops == 2) {
        return;
    }
    ag_log(AG_LOG_INFO, "%s: %s", name,
           m->stops == 0 ? "draining; again to stop at once" : "stopping at once");
    ag_lifecycle_stopping(&m->life);
    if (m->stops++ == 0) {
        send_off(m, AG_CHANNEL_DRAIN, m->drain_timeout_ms);
    } else {
        send_off(m, AG_CHANNEL_ABORT, 0);
    }
}

/* The exit status that a worker's end means. */
static int judge(const struct master *m, int status)
{
    int sig = WIFSIGNALED(status) ? WTERMSIG(status) : 0;

    if (sig) {
        ag_log(AG_LOG_ERROR, "worker %d was ended by SIG%s%s", m->worker, sigabbrev_np(sig),
               m->killed       ? ": it did not do as it was told"
               : sig == SIGSYS ? ": it made a system call that no server makes"
                               : "");
        return AG_EXIT_ERROR;
    }
    if (m->state == DRAINING) {
        return m->given_up ? AG_EXIT_ERROR : WEXITSTATUS(status);
    }
    ag_log(AG_LOG_ERROR, "worker %d %s", m->worker,
           m->state == STARTING ? "could not start" : "ended by itself");
    return AG_EXIT_ERROR;
}

/* Where the configuration buffers content, which the worker may write to. */
static void note_folder(struct master *m, const struct ag_snapshot *snapshot)
{
    int fd = ag_proxy_folder_fd(snapshot->shared[AG_ACTION_PROXY]);

    m->buffers = fd >= 0 && fstat(fd, &m->folder) == 0;
}

/* Sends what was loaded and what the plan has bound. */
static enum ag_status send_bundle(struct master *m, struct ag_buf *why)
{
    if (m->chroot && !ag_bundle_detach(m->input.opener, m->buffers ? &m->folder : NULL)) {
        ag_log(AG_LOG_WARN, "this system gives no mounts of their own: a worker that is taken over "
                            "could leave server.chroot by way of a served directory outside of it");
    }
    return ag_bundle_send(m->channel, ++m->generation, m->input.opener, &m->sockets, why);
}

/* ---- reload ---- */

/* False: refused, with the reason in `why`. */
static bool load_and_send(struct master *m, struct ag_buf *why)
{
    uint64_t begun_ms = now_ms();
    struct ag_load load;
    bool sent = false;

    m->input.opener = ag_opener_record();
    ag_load_config(&load, &m->input);
    ag_load_open_tls(&load, 1, NULL); /* what the worker's library would refuse */
    ag_lifecycle_print(&m->life, &load);
    if (!load.snapshot) {
        ag_buf_printf(why, "%u error%s", load.diags.errors, load.diags.errors == 1 ? "" : "s");
    } else if (ag_sockets_plan(&m->sockets, load.snapshot->model, why) == AG_OK) {
        note_folder(m, load.snapshot);
        sent = send_bundle(m, why) == AG_OK;
        if (sent) {
            m->drain_timeout_ms = load.snapshot->model->drain_timeout_ms;
            m->routes = load.snapshot->route_count;
            ag_log_set_level(load.snapshot->model->log_level);
            ag_material_follow(&m->material, load.snapshot);
            send_tickets(m);
        } else {
            ag_sockets_cancel(&m->sockets);
        }
    }
    ag_load_release(&load);
    ag_opener_free(m->input.opener);
    m->input.opener = NULL;
    m->answer_ms = ANSWER_MS + 10 * (now_ms() - begun_ms);
    return sent;
}

/* The worker should have taken up what was committed; until it has there can be no other reload. */
static bool is_overdue(const struct master *m)
{
    return m->state == APPLYING && m->answer_by_ms == 0;
}

/* The worker's control thread hangs, or a shard does. What it still serves it shall serve: none of its
 * connections is cut. Who watches it (watchdog) finds it, too. */
static void on_silence(struct master *m)
{
    bool applying = m->state == APPLYING;
    char text[160];
    struct ag_buf why = ag_buf(text, sizeof(text));

    m->answer_by_ms = 0; /* overdue from now on */
    ag_buf_printf(
        &why, "worker %d has not %s within %u s; hint: it hangs; restart, or upgrade by SIGUSR2",
        m->worker, applying ? "taken the configuration up" : "answered",
        (unsigned)(m->answer_ms / 1000));
    if (applying) { /* there is no way back; it may still come to it */
        ag_lifecycle_reload_failed(&m->life, ag_buf_span(&why));
        return;
    }
    m->cancelled = m->generation;
    set_state(m, SERVING);
    ag_sockets_cancel(&m->sockets);
    tell(m, AG_CHANNEL_CANCEL);
    ag_lifecycle_reload_refused(&m->life, ag_buf_span(&why));
}

static void reload(struct master *m)
{
    bool overdue = is_overdue(m);
    char text[512];
    struct ag_buf why = ag_buf(text, sizeof(text));

    if (m->state != SERVING && m->state != DRAINING && !overdue) {
        m->reload_asked = true; /* when the one before is served */
        return;
    }
    m->reload_asked = false;
    if (!ag_lifecycle_reload_begins(&m->life)) {
        return;
    }
    if (overdue) {
        ag_buf_printf(&why, "worker %d has not taken the last one up yet", m->worker);
        ag_lifecycle_reload_failed(&m->life, ag_buf_span(&why));
    } else if (load_and_send(m, &why)) {
        set_state(m, LOADING);
    } else {
        ag_lifecycle_reload_refused(&m->life, ag_buf_span(&why));
    }
}

static void reload_if_asked(struct master *m)
{
    if (m->reload_asked && (m->state == SERVING || is_overdue(m))) {
        reload(m);
    }
}

/* ---- what the worker says ---- */

/* A line for the service manager. */
static const char *describe(const struct master *m, char *room, size_t cap)
{
    (void)snprintf(room, cap, "serving %u route%s on %u shard%s", m->routes,
                   m->routes == 1 ? "" : "s", m->shards, m->shards == 1 ? "" : "s");
    return room;
}

static void on_ready(struct master *m)
{
    char status[sizeof(m->life.status)];

    set_state(m, SERVING);
    ag_sockets_listen(&m->sockets); /* the worker, who may not, tries to accept again and again */
    ag_sockets_commit(&m->sockets);
    ag_log(AG_LOG_INFO, "worker %d serves", m->worker);
    ag_lifecycle_up(&m->life, describe(m, status, sizeof(status)));
}

static void on_loaded(struct master *m)
{
    set_state(m, APPLYING);
    ag_sockets_commit(&m->sockets); /* before the worker closes what is wanted no more */
    tell(m, AG_CHANNEL_COMMIT);
}

static void on_refused(struct master *m, const struct ag_channel_msg *msg)
{
    char text[512];
    struct ag_buf escaped = ag_buf(text, sizeof(text));

    set_state(m, SERVING);
    ag_sockets_cancel(&m->sockets);
    ag_log_escape(&escaped, ag_span(msg->text, ag_min_size(msg->text_len, 80)));
    ag_lifecycle_reload_refused(&m->life, ag_buf_span(&escaped));
}

static void on_applied(struct master *m, const struct ag_channel_msg *msg)
{
    char status[sizeof(m->life.status)], text[512];
    struct ag_buf escaped = ag_buf(text, sizeof(text));

    set_state(m, SERVING);
    if (m->life.reloading) {
        ag_log_escape(&escaped, ag_span(msg->text, ag_min_size(msg->text_len, 200)));
        ag_lifecycle_reload_lacks(&m->life, ag_buf_span(&escaped));
        ag_lifecycle_reload_applied(&m->life, describe(m, status, sizeof(status)));
    } else {
        ag_log(AG_LOG_INFO, "worker %d has taken the configuration up after all", m->worker);
    }
}

/* Answers to what was cancelled since: they crossed. */
static bool is_late(const struct master *m, const struct ag_channel_msg *msg)
{
    return (msg->type == AG_CHANNEL_LOADED || msg->type == AG_CHANNEL_REFUSED) &&
           msg->generation != 0 && msg->generation <= m->cancelled;
}

/* False: nothing that belongs here. */
static bool on_message(struct master *m, const struct ag_channel_msg *msg)
{
    bool good = true, current = msg->generation == m->generation;

    if (msg->type == AG_CHANNEL_ALIVE && m->life.pinged) {
        ag_lifecycle_alive(&m->life);
    } else if (m->state == DRAINING) {
        return true; /* it was on its way */
    } else if (msg->type == AG_CHANNEL_READY && m->state == STARTING) {
        on_ready(m);
    } else if (msg->type == AG_CHANNEL_LOADED && m->state == LOADING && current) {
        on_loaded(m);
    } else if (msg->type == AG_CHANNEL_REFUSED && m->state == LOADING && current) {
        on_refused(m, msg);
    } else if (msg->type == AG_CHANNEL_APPLIED && m->state == APPLYING && current) {
        on_applied(m, msg);
    } else {
        good = is_late(m, msg);
    }
    reload_if_asked(m);
    return good;
}

static AG_COLD void on_channel(struct master *m)
{
    struct ag_channel_msg msg;
    enum ag_status st = ag_channel_receive(m->channel, false, &msg);

    if (st == AG_AGAIN) {
        return;
    }
    if (st == AG_OK && on_message(m, &msg)) {
        return;
    }
    if (st != AG_ENOENT) {
        ag_log(AG_LOG_ERROR, "worker %d says what makes no sense: it may be in other hands",
               m->worker);
        kill_worker(m);
    }
    if (m->channel >= 0) {
        (void)close(m->channel);
        m->channel = -1; /* its end will be told by SIGCHLD */
    }
}

/* ---- what the lifecycle asks for ---- */

static void life_yield(void *owner)
{
    struct master *m = owner;

    send_off(m, AG_CHANNEL_YIELD, m->drain_timeout_ms);
}

static void life_quit(void *owner)
{
    struct master *m = owner;

    m->given_up = true;
    m->stops = 2;
    send_off(m, AG_CHANNEL_ABORT, 0);
}

static void life_reload(void *owner)
{
    reload(owner);
}

static void life_ping(void *owner)
{
    tell(owner, AG_CHANNEL_PING);
}

static void life_tickets(void *owner, struct ag_buf *out)
{
    ag_tickets_save(&((const struct master *)owner)->material.tickets, out);
}

static const struct ag_lifecycle_ops life_ops = {.yield = life_yield,
                                                 .quit = life_quit,
                                                 .reload = life_reload,
                                                 .ping = life_ping,
                                                 .tickets = life_tickets};

/* ---- the loop ---- */

/* False: the worker has ended, with *out_rc. */
static bool on_signal(struct master *m, int *out_rc)
{
    struct signalfd_siginfo info;
    int status;

    if (read(m->signal_fd, &info, sizeof(info)) != (ssize_t)sizeof(info)) {
        return true;
    }
    switch (info.ssi_signo) {
    case SIGINT:
    case SIGTERM:
        stop(m, info.ssi_signo == SIGINT ? "SIGINT" : "SIGTERM");
        break;
    case SIGHUP:
        reload(m);
        break;
    case SIGUSR2:
        ag_lifecycle_upgrade(&m->life);
        break;
    default: /* SIGCHLD */
        if (waitpid(m->worker, &status, WNOHANG) == m->worker) {
            *out_rc = judge(m, status);
            return false;
        }
        break;
    }
    return true;
}

static int wait_ms(const struct master *m)
{
    uint64_t now = now_ms(), until = m->killed || m->kill_at_ms == 0 ? UINT64_MAX : m->kill_at_ms;
    int wait = ag_material_wait_ms(&m->material, ag_lifecycle_wait_ms(&m->life));

    if (m->answer_by_ms != 0) {
        until = ag_min_u64(until, m->answer_by_ms);
    }
    if (until == UINT64_MAX) {
        return wait;
    }
    uint64_t left = until > now ? until - now : 0;
    return (int)ag_min_u64(left, wait < 0 ? INT32_MAX : (uint64_t)wait);
}

/* Of certificates, and of ticket keys. */
static void look_at_files(struct master *m)
{
    unsigned events = ag_material_turn(&m->material);

    if (events & AG_MATERIAL_KEYS) {
        send_tickets(m);
    }
    if (events & AG_MATERIAL_FILES && m->state != DRAINING) {
        reload(m);
    }
}

static int supervise(struct master *m)
{
    struct pollfd fds[3 + AG_LIFECYCLE_FDS];
    int rc = AG_EXIT_ERROR;

    for (;;) {
        fds[0] = (struct pollfd){.fd = m->signal_fd, .events = POLLIN};
        fds[1] = (struct pollfd){.fd = m->channel, .events = POLLIN};
        fds[2] = (struct pollfd){.fd = m->material.watch.fd, .events = POLLIN};
        ag_lifecycle_fds(&m->life, fds + 3);
        int n = poll(fds, AG_COUNT(fds), wait_ms(m));
        AG_ASSERT(n >= 0 || errno == EINTR);
        if (n > 0 && fds[1].revents) {
            on_channel(m);
        }
        if (n > 0 && fds[0].revents && !on_signal(m, &rc)) {
            return rc;
        }
        look_at_files(m);
        ag_lifecycle_turn(&m->life, &m->sockets);
        if (m->kill_at_ms != 0 && now_ms() >= m->kill_at_ms) {
            kill_worker(m);
        }
        if (m->answer_by_ms != 0 && now_ms() >= m->answer_by_ms) {
            on_silence(m);
            reload_if_asked(m);
        }
    }
}

/* ---- start ---- */

bool ag_master_wanted(const struct ag_model *m)
{
    return geteuid() == 0 && m->user;
}

/* An error at the place of `server.user`. */
static bool find_user(struct master *m, const struct ag_model *model)
{
    const struct ag_source *source = model->user_pos.source;
    char text[256];
    struct ag_buf why = ag_buf(text, sizeof(text));

    if (ag_user_find(model->user, &m->user, &why) == AG_OK) {
        return true;
    }
    (void)fprintf(stderr, "%s:%u:%u: error: %.*s\n", source ? source->name : "anygate",
                  model->user_pos.line, model->user_pos.col, (int)why.len, text);
    return false;
}

static bool prepare(struct master *m, const struct ag_snapshot *snapshot)
{
    const struct ag_model *model = snapshot->model;
    char text[512];
    struct ag_buf why = ag_buf(text, sizeof(text));
    struct ag_sizing sizing;
    struct stat st;

    if (!find_user(m, model)) {
        return false;
    }
    if (model->chroot && (stat(model->chroot, &st) != 0 || !S_ISDIR(st.st_mode))) {
        (void)fprintf(stderr, "anygate: error: server.chroot: no directory %s\n", model->chroot);
        return false;
    }
    ag_sizing_compute(snapshot, &sizing);
    ag_sockets_init(&m->sockets, sizing.shards, AG_LISTEN_BACKLOG);
    m->sockets.keeps = true;
    m->shards = sizing.shards;
    m->routes = snapshot->route_count;
    if (!ag_lifecycle_open(&m->life, model, &m->sockets)) {
        return false;
    }
    if (ag_sockets_plan(&m->sockets, model, &why) != AG_OK) {
        (void)fprintf(stderr, "anygate: error: %.*s\n", (int)why.len, text);
        return false;
    }
    m->chroot = model->chroot ? strdup(model->chroot) : NULL;
    m->seccomp = model->seccomp;
    note_folder(m, snapshot);
    m->drain_timeout_ms = model->drain_timeout_ms;
    ag_log_direct(STDERR_FILENO, model->log_level, model->log_format);
    ag_material_follow(&m->material, snapshot);
    return ag_lifecycle_claim(&m->life, model->pid_file);
}

static int open_signals(void)
{
    static const int taken[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR2, SIGCHLD};
    sigset_t set;

    (void)sigemptyset(&set);
    for (size_t i = 0; i < AG_COUNT(taken); i++) {
        (void)sigaddset(&set, taken[i]);
    }
    (void)pthread_sigmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
}

/* What is typed at a terminal, and whoever reads this program's output, is no business of the worker's. */
static void let_standard_streams_go(void)
{
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

    if (fd >= 0) {
        (void)dup2(fd, STDIN_FILENO);
        (void)dup2(fd, STDOUT_FILENO);
    }
}

/* In the child: nothing of the master's goes along but the channel and the log. */
static AG_COLD int be_worker(struct master *m, int channel)
{
    struct ag_worker w = {
        .channel = channel, .user = &m->user, .chroot = m->chroot, .seccomp = m->seccomp};
    int rc;

    ag_sockets_deinit(&m->sockets);
    ag_material_deinit(&m->material);
    ag_lifecycle_leave(&m->life);
    ag_opener_free(m->input.opener);
    m->input.opener = NULL;
    (void)close(m->signal_fd);
    (void)close(m->channel);
    m->signal_fd = m->channel = -1;
    let_standard_streams_go();
    (void)syscall(SYS_close_range, STDERR_FILENO + 1, channel - 1, 0);
    (void)syscall(SYS_close_range, channel + 1, ~0u, 0);
    rc = ag_worker_run(&w, &m->input);
    ag_bundle_close(&w.bundle);
    ag_bundle_close(&w.bundle);
    if (w.channel >= 0) {
        (void)close(w.channel);
    }
    return rc;
}

/* In the master. */
static AG_COLD int be_master(struct master *m)
{
    char text[512];
    struct ag_buf why = ag_buf(text, sizeof(text));

    if (send_bundle(m, &why) != AG_OK) {
        ag_log(AG_LOG_ERROR, "cannot start: %.*s", (int)why.len, text);
        kill_worker(m);
    }
    ag_opener_free(m->input.opener);
    m->input.opener = NULL;
    send_tickets(m);
    return supervise(m);
}

static int start(struct master *m)
{
    int ends[2];

    if (ag_channel_pair(ends) != AG_OK) {
        (void)fprintf(stderr, "anygate: error: no channel to a worker: %s\n",
                      strerrordesc_np(errno));
        return AG_EXIT_ERROR;
    }
    m->channel = ends[0];
    m->worker = fork();
    if (m->worker == 0) {
        return be_worker(m, ends[1]);
    }
    (void)close(ends[1]);
    if (m->worker < 0) {
        (void)fprintf(stderr, "anygate: error: no worker: %s\n", strerrordesc_np(errno));
        return AG_EXIT_ERROR;
    }
    return be_master(m);
}

int ag_master_run(const struct ag_config_input *input, struct ag_snapshot *snapshot)
{
    struct master *m = calloc(1, sizeof(*m));
    int rc = AG_EXIT_ERROR;
    bool prepared;

    AG_ASSERT(m); /* at the start */
    m->input = *input;
    m->signal_fd = m->channel = -1;
    ag_crash_install();
    ag_lifecycle_init(&m->life, &life_ops, m);
    /* Who sees it listen may ask it to stop: from here on that is done in order. */
    m->signal_fd = open_signals();
    if (m->signal_fd < 0) {
        (void)fprintf(stderr, "anygate: error: no descriptor for signals: %s\n",
                      strerrordesc_np(errno));
    }
    ag_material_init(&m->material, true);
    prepared = m->signal_fd >= 0 && prepare(m, snapshot);
    ag_snapshot_free(snapshot);
    if (prepared) {
        rc = start(m);
    }
    ag_lifecycle_close(&m->life);
    ag_material_deinit(&m->material);
    ag_sockets_deinit(&m->sockets);
    ag_opener_free(m->input.opener);
    free(m->chroot);
    if (m->signal_fd >= 0) {
        (void)close(m->signal_fd);
    }
    if (m->channel >= 0) {
        (void)close(m->channel);
    }
    free(m);
    return rc;
}
