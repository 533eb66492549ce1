#include "tools/master.h"

#include "tools/commands.h"
#include "tools/crash.h"
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

/* A worker that was told to end and is still there so long after it should have gone is killed. */
#define PATIENCE_MS 10000u

enum state { STARTING, SERVING, LOADING, DRAINING };

struct master {
    struct ag_config_input input; /* opener: of the load under way */
    struct ag_sockets sockets;
    struct ag_user user;
    char *chroot; /* or NULL */
    enum ag_confine seccomp;
    int signal_fd;
    int channel; /* to the worker; -1: closed */
    pid_t worker;
    enum state state;
    uint32_t generation; /* of the last bundle */
    bool reload_asked;   /* while another was under way */
    unsigned stops;
    bool killed;
    uint64_t drain_timeout_ms;
    uint64_t kill_at_ms; /* 0: not waiting for the worker's end */
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
        [LOADING] = 1 << SERVING | 1 << DRAINING,
        [DRAINING] = 0,
    };

    AG_ASSERT(edges[m->state] >> to & 1);
    m->state = to;
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

static void stop(struct master *m, const char *name)
{
    if (m->stops == 2) {
        return;
    }
    ag_log(AG_LOG_INFO, "%s: %s", name,
           m->stops == 0 ? "draining; again to stop at once" : "stopping at once");
    if (m->stops++ == 0) {
        set_state(m, DRAINING);
        ag_sockets_cancel(&m->sockets);
        ag_sockets_deinit(&m->sockets); /* or they would go on to take connections */
        tell(m, AG_CHANNEL_DRAIN);
        m->kill_at_ms = now_ms() + m->drain_timeout_ms + PATIENCE_MS;
    } else {
        tell(m, AG_CHANNEL_ABORT);
        m->kill_at_ms = now_ms() + PATIENCE_MS;
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
        return WEXITSTATUS(status);
    }
    ag_log(AG_LOG_ERROR, "worker %d %s", m->worker,
           m->state == STARTING ? "could not start" : "ended by itself");
    return AG_EXIT_ERROR;
}

/* Sends what was loaded and what the plan has bound. */
static enum ag_status send_bundle(struct master *m, struct ag_buf *why)
{
    if (m->chroot && !ag_bundle_detach(m->input.opener)) {
        ag_log(AG_LOG_WARN, "this system gives no mounts of their own: a worker that is taken over "
                            "could leave server.chroot by way of a served directory outside of it");
    }
    return ag_bundle_send(m->channel, ++m->generation, m->input.opener, &m->sockets, why);
}

/* ---- reload ---- */

static void refuse(const char *why, int len)
{
    ag_log(AG_LOG_ERROR, "reload refused: %.*s; the configuration before stays", len, why);
}

/* False: refused, with the reason in `why`. */
static bool load_and_send(struct master *m, struct ag_buf *why)
{
    struct ag_load load;
    bool sent = false;

    m->input.opener = ag_opener_record();
    ag_load_config(&load, &m->input);
    ag_load_print(&load, AG_DIAG_HUMAN);
    if (!load.snapshot) {
        ag_buf_printf(why, "%u error%s", load.diags.errors, load.diags.errors == 1 ? "" : "s");
    } else if (ag_sockets_plan(&m->sockets, load.snapshot->model, why) == AG_OK) {
        sent = send_bundle(m, why) == AG_OK;
        if (sent) {
            m->drain_timeout_ms = load.snapshot->model->drain_timeout_ms;
            ag_log_set_level(load.snapshot->model->log_level);
        } else {
            ag_sockets_cancel(&m->sockets);
        }
    }
    ag_load_release(&load);
    ag_opener_free(m->input.opener);
    m->input.opener = NULL;
    return sent;
}

static void reload(struct master *m)
{
    char text[512];
    struct ag_buf why = ag_buf(text, sizeof(text));

    if (m->state != SERVING) {
        ag_log(AG_LOG_INFO, "SIGHUP: %s",
               m->state == DRAINING ? "too late, it is draining" : "after what is under way");
        m->reload_asked = m->state != DRAINING;
        return;
    }
    m->reload_asked = false;
    if (load_and_send(m, &why)) {
        set_state(m, LOADING);
    } else {
        refuse(text, (int)why.len);
    }
}

/* ---- what the worker says ---- */

/* What became of the bundle under way. */
static void settle(struct master *m, const struct ag_channel_msg *msg)
{
    set_state(m, SERVING);
    if (msg->type == AG_CHANNEL_LOADED) {
        ag_sockets_commit(&m->sockets); /* before the worker closes what is wanted no more */
        tell(m, AG_CHANNEL_COMMIT);
    } else {
        char text[512];
        struct ag_buf escaped = ag_buf(text, sizeof(text));

        ag_sockets_cancel(&m->sockets);
        ag_log_escape(&escaped, ag_span(msg->text, ag_min_size(msg->text_len, 80)));
        refuse(text, (int)escaped.len);
    }
}

/* False: nothing that belongs here. */
static bool on_message(struct master *m, const struct ag_channel_msg *msg)
{
    bool ready = m->state == STARTING && msg->type == AG_CHANNEL_READY;
    bool loaded = m->state == LOADING && msg->generation == m->generation &&
                  (msg->type == AG_CHANNEL_LOADED || msg->type == AG_CHANNEL_REFUSED);

    if (ready) {
        set_state(m, SERVING);
        ag_sockets_commit(&m->sockets);
        ag_log(AG_LOG_INFO, "worker %d serves", m->worker);
    } else if (loaded) {
        settle(m, msg);
    }
    if (m->reload_asked && m->state == SERVING) {
        reload(m);
    }
    return ready || loaded || m->state == DRAINING; /* then it was on its way */
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
    uint64_t now = now_ms();

    if (m->kill_at_ms == 0 || m->killed) {
        return -1;
    }
    return m->kill_at_ms > now ? (int)ag_min_u64(m->kill_at_ms - now, INT32_MAX) : 0;
}

static int supervise(struct master *m)
{
    int rc = AG_EXIT_ERROR;

    for (;;) {
        struct pollfd fds[] = {{.fd = m->signal_fd, .events = POLLIN},
                               {.fd = m->channel, .events = POLLIN}};
        int n = poll(fds, AG_COUNT(fds), wait_ms(m));

        AG_ASSERT(n >= 0 || errno == EINTR);
        if (n == 0) {
            kill_worker(m);
        }
        if (n > 0 && fds[1].revents) {
            on_channel(m);
        }
        if (n > 0 && fds[0].revents && !on_signal(m, &rc)) {
            return rc;
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
    if (ag_sockets_plan(&m->sockets, model, &why) != AG_OK) {
        (void)fprintf(stderr, "anygate: error: %.*s\n", (int)why.len, text);
        return false;
    }
    m->chroot = model->chroot ? strdup(model->chroot) : NULL;
    m->seccomp = model->seccomp;
    m->drain_timeout_ms = model->drain_timeout_ms;
    ag_log_direct(STDERR_FILENO, model->log_level, model->log_format);
    return true;
}

static int open_signals(void)
{
    static const int taken[] = {SIGINT, SIGTERM, SIGHUP, SIGCHLD};
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
    struct master m = {.input = *input, .signal_fd = -1, .channel = -1};
    int rc = AG_EXIT_ERROR;
    bool prepared;

    ag_crash_install();
    /* Who sees it listen may ask it to stop: from here on that is done in order. */
    m.signal_fd = open_signals();
    if (m.signal_fd < 0) {
        (void)fprintf(stderr, "anygate: error: no descriptor for signals: %s\n",
                      strerrordesc_np(errno));
    }
    prepared = m.signal_fd >= 0 && prepare(&m, snapshot);
    ag_snapshot_free(snapshot);
    if (prepared) {
        rc = start(&m);
    }
    ag_sockets_deinit(&m.sockets);
    ag_opener_free(m.input.opener);
    free(m.chroot);
    if (m.signal_fd >= 0) {
        (void)close(m.signal_fd);
    }
    if (m.channel >= 0) {
        (void)close(m.channel);
    }
    return rc;
}
