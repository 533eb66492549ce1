#include "tools/server.h"

#include "engine/helper.h"
#include "engine/resolver.h"
#include "tools/commands.h"
#include "tools/crash.h"
#include "tools/seccomp.h"
#include "tools/server_parts.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

/* Which one asks for OCSP responses. */
#define STAPLING_SHARD 0u

#define HELPER_THREADS   4u
#define HELPER_QUEUE_MAX 1024u
#define LOG_RING_BYTES   (256u * 1024u)

/* ---- a shard's life ---- */

void ag_server_wake(struct ag_server *s)
{
    const uint64_t one = 1;
    ssize_t n = write(s->wake_fd, &one, sizeof(one));

    AG_ASSERT(n == (ssize_t)sizeof(one) || errno == EAGAIN);
}

bool ag_server_post(struct ag_server *s, uint32_t shard, struct ag_msg *m)
{
    bool alive;

    (void)pthread_mutex_lock(&s->ending);
    alive = !s->each[shard].ended;
    if (alive) {
        ag_loop_post(&ag_shards_at(s->shards, shard)->loop, m);
    }
    (void)pthread_mutex_unlock(&s->ending);
    return alive;
}

static void on_drain(struct ag_loop *l, struct ag_msg *m)
{
    (void)l;
    ag_serving_drain(&ag_container_of(m, struct ag_server_shard, drain_msg)->serving);
}

static void on_abort(struct ag_loop *l, struct ag_msg *m)
{
    (void)l;
    ag_serving_abort(&ag_container_of(m, struct ag_server_shard, abort_msg)->serving);
}

static void on_yield(struct ag_loop *l, struct ag_msg *m)
{
    (void)l;
    ag_serving_yield(&ag_container_of(m, struct ag_server_shard, yield_msg)->serving);
}

static void on_ping(struct ag_loop *l, struct ag_msg *m)
{
    struct ag_server *s = ag_container_of(m, struct ag_server_shard, ping_msg)->server;

    (void)l;
    if (atomic_fetch_sub(&s->unheard, 1) == 1) {
        ag_server_wake(s);
    }
}

static void on_ended(struct ag_serving *serving)
{
    ag_loop_stop(serving->ctx.loop);
}

static bool post_to(void *server, uint32_t shard, struct ag_msg *m)
{
    return ag_server_post(server, shard, m);
}

static enum ag_status start_shard(struct ag_shard *shard, void *arg, const char **out_why)
{
    struct ag_server *server = arg;
    struct ag_server_shard *s = &server->each[shard->index];

    ag_crash_thread();
    ag_log_thread("shard");
    shard->app = s;
    s->server = server;
    s->shard = shard;
    s->drain_msg.run = on_drain;
    s->abort_msg.run = on_abort;
    s->yield_msg.run = on_yield;
    s->ping_msg.run = on_ping;
    s->serving.owner = s;
    s->serving.commons = &server->commons;
    s->serving.board = &server->board;
    s->serving.spread.post = post_to;
    s->serving.spread.owner = server;
    atomic_store_explicit(&server->board.each[shard->index].loop, &shard->loop.stats,
                          memory_order_release);
    s->serving.resolver = &server->snapshot->model->resolver;
    s->serving.ended = on_ended;
    s->serving.let_go = ag_server_let_go;
    *out_why = "out of memory for connections";
    return ag_serving_open(&s->serving, &shard->loop, shard->index, server->sizing.shards,
                           server->sizing.connections);
}

static void stop_shard(struct ag_shard *shard, void *arg)
{
    struct ag_server_shard *s = shard->app;
    struct ag_server *server = arg;

    (void)pthread_mutex_lock(&server->ending);
    s->ended = true;
    (void)pthread_mutex_unlock(&server->ending);
    /* What was posted before that still comes: changes give their descriptors back. */
    ag_loop_turn(&shard->loop, 0);
    if (s->serving.cut) {
        atomic_store(&server->cut, true);
    }
    if (shard->index == STAPLING_SHARD) {
        ag_stapling_leave(&server->stapling);
    }
    ag_serving_close(&s->serving);
    if (atomic_fetch_sub(&server->running, 1) == 1) {
        ag_server_wake(server);
    }
}

/* ---- start ---- */

static void announce(const struct ag_server *server, const char *backend, const char *why)
{
    const struct ag_model *m = server->snapshot->model;

    ag_log(AG_LOG_INFO, "anygate " AG_VERSION " serves %u route%s on %u shard%s with %s (%s)",
           server->snapshot->route_count, server->snapshot->route_count == 1 ? "" : "s",
           server->sizing.shards, server->sizing.shards == 1 ? "" : "s", backend, why);
    for (uint32_t i = 0; i < m->listen_count; i++) {
        char text[160];
        struct ag_buf b = ag_buf(text, sizeof(text));
        const char *scheme = m->listens[i].tls   ? "https://"
                             : m->listens[i].tcp ? "tcp://"
                                                 : "http://";

        const struct ag_socket *k = ag_sockets_find(&server->sockets, &m->listens[i].addr);

        if (!k || k->fd_count == 0) {
            continue;
        }
        ag_addr_format(&m->listens[i].addr, true, &b);
        if (m->listens[i].admin) {
            ag_log(AG_LOG_INFO, "admin listens on %.*s", (int)b.len, text);
            continue;
        }
        if (ag_addr_is_any(&m->listens[i].addr)) {
            ag_log(AG_LOG_INFO, "listening on %.*s: %slocalhost:%u/", (int)b.len, text, scheme,
                   m->listens[i].port);
        } else {
            ag_log(AG_LOG_INFO, "listening on %s%.*s", m->listens[i].port ? scheme : "", (int)b.len,
                   text);
        }
    }
    if (geteuid() == 0) { /* a worker is root no more */
        ag_log(AG_LOG_WARN,
               "runs as root, and so would whoever breaks in; hint: server.user names who "
               "serves once files and ports are open");
    }
}

/* ---- the control thread ---- */

/* `offset`: of the message in struct ag_server_shard. How many shards will get it. */
static uint32_t post_all(struct ag_server *s, size_t offset)
{
    uint32_t posted = 0;

    for (uint32_t i = 0; i < s->sizing.shards; i++) {
        posted += ag_server_post(s, i, (struct ag_msg *)(void *)((char *)&s->each[i] + offset));
    }
    return posted;
}

void ag_server_stop_shards(struct ag_server *s, bool at_once)
{
    (void)post_all(s, at_once ? offsetof(struct ag_server_shard, abort_msg)
                              : offsetof(struct ag_server_shard, drain_msg));
}

void ag_server_yield_shards(struct ag_server *s)
{
    s->yielded = true;
    (void)post_all(s, offsetof(struct ag_server_shard, yield_msg));
}

static void all_heard(struct ag_server *s)
{
    if (s->pinging && atomic_load(&s->unheard) == 0) {
        s->pinging = false;
        if (s->worker) {
            ag_worker_tell(s->worker, AG_CHANNEL_ALIVE, 0, AG_SPAN(""));
        } else {
            ag_lifecycle_alive(&s->life);
        }
    }
}

void ag_server_ping_shards(struct ag_server *s)
{
    uint32_t posted;

    AG_ASSERT(!s->pinging);
    s->pinging = true;
    /* One more, so that it does not come to zero before all are posted. */
    atomic_store(&s->unheard, s->sizing.shards + 1);
    posted = post_all(s, offsetof(struct ag_server_shard, ping_msg));
    atomic_fetch_sub(&s->unheard, s->sizing.shards - posted + 1);
    all_heard(s);
}

static void stop(struct ag_server *s, bool at_once)
{
    s->stops = at_once ? 2 : 1;
    ag_lifecycle_stopping(&s->life);
    ag_server_stop_shards(s, at_once);
}

static void on_stop_signal(struct ag_server *s, const char *name)
{
    if (s->stops == 2) {
        return;
    }
    ag_log(AG_LOG_INFO, "%s: %s", name,
           s->stops == 0 ? "draining; again to stop at once" : "stopping at once");
    stop(s, s->stops == 1);
}

/* ---- what the lifecycle asks for ---- */

static void yield(void *owner)
{
    ag_server_yield_shards(owner);
}

static void quit(void *owner)
{
    struct ag_server *s = owner;

    atomic_store(&s->cut, true);
    if (s->stops < 2) {
        stop(s, true);
    }
}

static void reload(void *owner)
{
    ag_server_reload(owner);
}

static void ping(void *owner)
{
    ag_server_ping_shards(owner);
}

static void tickets(void *owner, struct ag_buf *out)
{
    ag_tickets_save(&((const struct ag_server *)owner)->material.tickets, out);
}

static const struct ag_lifecycle_ops lifecycle_ops = {
    .yield = yield, .quit = quit, .reload = reload, .ping = ping, .tickets = tickets};

/* ---- its loop ---- */

static void on_signal(struct ag_server *s)
{
    struct signalfd_siginfo info;

    if (read(s->signal_fd, &info, sizeof(info)) != (ssize_t)sizeof(info)) {
        return;
    }
    if (info.ssi_signo == SIGINT || info.ssi_signo == SIGTERM) {
        on_stop_signal(s, info.ssi_signo == SIGINT ? "SIGINT" : "SIGTERM");
    } else if (info.ssi_signo == SIGHUP) {
        ag_server_reload(s);
    } else if (info.ssi_signo == SIGUSR2) {
        ag_lifecycle_upgrade(&s->life);
    }
}

/* A line for the service manager. */
static void describe(const struct ag_server *s, char *out, size_t cap)
{
    (void)snprintf(out, cap, "serving %u route%s on %u shard%s", s->snapshot->route_count,
                   s->snapshot->route_count == 1 ? "" : "s", s->sizing.shards,
                   s->sizing.shards == 1 ? "" : "s");
}

/* Every shard has applied the change: the first one, or a reload's. */
static void settle(struct ag_server *s)
{
    if (atomic_load(&s->changing) > 0 || ag_server_ends(s)) {
        return;
    }
    if (!s->life.is_up || s->life.reloading) {
        char status[sizeof(s->life.status)];

        describe(s, status, sizeof(status));
        if (s->life.is_up) {
            ag_server_tell_reloaded(s);
            ag_lifecycle_reload_applied(&s->life, status);
        } else {
            ag_lifecycle_up(&s->life, status);
        }
    }
    if (s->reload_asked) {
        ag_server_reload(s);
    }
}

/* A shard has ended, has applied a change, has let a snapshot go, or has answered. */
static void on_wake(struct ag_server *s)
{
    uint64_t count;
    ssize_t n = read(s->wake_fd, &count, sizeof(count));

    AG_ASSERT(n == (ssize_t)sizeof(count) || errno == EAGAIN);
    ag_server_reclaim(s);
    if (s->worker) {
        ag_server_report(s);
    } else {
        settle(s);
    }
    all_heard(s);
}

/* Certificates, ticket keys, OCSP responses. Who stops needs no new ones, and its configuration may go. */
static void look_at_material(struct ag_server *s)
{
    unsigned events = ag_material_turn(&s->material);

    if (ag_server_ends(s)) {
        return;
    }
    if (events & AG_MATERIAL_FILES) {
        ag_server_reload(s);
    }
    ag_stapling_turn(&s->stapling);
}

static int wait_ms(const struct ag_server *s)
{
    int ms = ag_material_wait_ms(&s->material, ag_lifecycle_wait_ms(&s->life));

    return ag_server_ends(s) ? ms : ag_stapling_wait_ms(&s->stapling, ms);
}

static bool stapling_post(void *owner, struct ag_msg *m)
{
    return ag_server_post(owner, STAPLING_SHARD, m);
}

static void stapling_wake(void *owner)
{
    ag_server_wake(owner);
}

static const struct ag_stapling_ops stapling_ops = {.post = stapling_post, .wake = stapling_wake};

static void control(struct ag_server *s)
{
    /* A worker leaves signals to its master: a terminal and a service manager send them to both. */
    struct pollfd fds[4 + AG_LIFECYCLE_FDS] = {
        {.fd = s->worker ? -1 : s->signal_fd, .events = POLLIN},
        {.fd = s->wake_fd, .events = POLLIN},
        {.fd = -1, .events = POLLIN},
        {.fd = -1, .events = POLLIN}};

    while (atomic_load(&s->running) > 0) {
        fds[2].fd = s->worker ? s->worker->channel : -1;
        fds[3].fd = s->material.watch.fd;
        ag_lifecycle_fds(&s->life, fds + 4);
        if (poll(fds, AG_COUNT(fds), wait_ms(s)) < 0) {
            AG_ASSERT(errno == EINTR);
            continue;
        }
        if (fds[0].revents) {
            on_signal(s);
        }
        if (fds[1].revents) {
            on_wake(s);
        }
        if (fds[2].revents) {
            ag_server_obey(s);
        }
        look_at_material(s);
        ag_lifecycle_turn(&s->life, &s->sockets);
    }
}

/* Signals are read by the control thread alone; shards inherit the mask. */
static int open_signals(void)
{
    sigset_t set;

    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGINT);
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGHUP);
    (void)sigaddset(&set, SIGUSR2);
    (void)pthread_sigmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
}

/* All threads are there, and nothing has come from outside. */
static enum ag_status on_ready(void *arg, const char **out_why)
{
    struct ag_server *s = arg;
    enum ag_confine seccomp = s->snapshot->model->seccomp;

    if (s->worker) {
        return ag_worker_drop(s->worker, out_why);
    }
    /* Not by itself: who is alone may be asked for an upgrade, and that takes an exec. */
    return seccomp == AG_CONFINE_ON || seccomp == AG_CONFINE_LOG
               ? ag_seccomp_apply(AG_SECCOMP_ALONE, seccomp == AG_CONFINE_LOG, out_why)
               : AG_OK;
}

/* The exit status. */
static int say_end(const struct ag_server *s)
{
    const char *cut = atomic_load(&s->cut) ? "; connections were cut" : "";

    if (s->life.handed_over) { /* the successor writes to the same log */
        ag_log(AG_LOG_INFO, "process %d has drained%s", (int)getpid(), cut);
    } else {
        ag_log(AG_LOG_INFO, "stopped%s", cut);
    }
    return cut[0] ? AG_EXIT_ERROR : AG_EXIT_OK;
}

/* Shards up, then signals until they are down again. */
static int serve(struct ag_server *s, enum ag_backend_kind backend, const char *backend_why)
{
    struct ag_shards_config config = {.count = s->sizing.shards,
                                      .start = start_shard,
                                      .stop = stop_shard,
                                      .ready = on_ready,
                                      .arg = s};
    const char *why = "";

    if (!s->worker) { /* before system calls are given up, and anybody is accepted */
        ag_material_follow(&s->material, s->snapshot);
    }
    s->helpers = ag_helpers_new(HELPER_THREADS, HELPER_QUEUE_MAX);
    config.loop = s->sizing.loop;
    config.loop.backend = backend;
    config.loop.helpers = s->helpers;
    s->shards = ag_shards_start(&config, &why);
    if (!s->shards) {
        ag_log(AG_LOG_ERROR, "cannot start: %s", why);
        ag_helpers_free(s->helpers);
        ag_snapshot_free(s->snapshot);
        return AG_EXIT_ERROR;
    }
    announce(s, ag_backend_name(backend), backend_why);
    ag_sizing_log(&s->sizing);
    if (!s->worker) { /* whose master does that */
        ag_sockets_listen(&s->sockets);
    }
    ag_server_publish(s);
    s->untold = s->worker != NULL;
    control(s);
    ag_server_unstage(s);
    ag_shards_join(s->shards);
    ag_helpers_free(s->helpers);
    ag_server_reclaim(s);
    return say_end(s);
}

static int run(struct ag_server *s, enum ag_backend_kind backend, const char *why)
{
    const struct ag_model *m = s->snapshot->model;
    int rc = AG_EXIT_ERROR;

    /* Who sees it listen may ask it to stop: from here on that is done in order. */
    s->signal_fd = open_signals();
    s->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (s->signal_fd < 0 || s->wake_fd < 0) {
        (void)fprintf(stderr, "anygate: error: no descriptor for signals: %s\n",
                      strerrordesc_np(errno));
    } else if (ag_server_bind(s) && (s->worker || ag_lifecycle_claim(&s->life, m->pid_file))) {
        if (ag_log_start(STDERR_FILENO, m->log_level, m->log_format, LOG_RING_BYTES) == AG_OK) {
            rc = serve(s, backend, why);
            ag_log_stop();
            s->snapshot = NULL; /* its last user has freed it */
        } else {
            (void)fprintf(stderr, "anygate: error: the log cannot start: no memory or thread\n");
        }
    }
    ag_snapshot_free(s->snapshot);
    (void)close(s->signal_fd);
    (void)close(s->wake_fd);
    return rc;
}

/* What the TLS library makes of the first snapshot. False after an error was printed. */
static bool open_tls(struct ag_server *s)
{
    struct ag_load load = {.snapshot = s->snapshot};

    ag_arena_init(&load.arena, NULL, 0);
    ag_diags_init(&load.diags, &load.arena);
    ag_server_open_tls(s, &load);
    ag_load_print(&load, AG_DIAG_HUMAN);
    s->snapshot = load.snapshot;
    ag_arena_release(&load.arena);
    return s->snapshot != NULL;
}

static void open_board(struct ag_server *s, const char *backend)
{
    struct timespec now;
    size_t bytes = s->sizing.shards * sizeof(*s->board.each);

    AG_ASSERT(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
    s->board = (struct ag_board){.started_ms = (uint64_t)now.tv_sec * 1000,
                                 .backend = backend,
                                 .shard_count = s->sizing.shards,
                                 .each = aligned_alloc(alignof(struct ag_board_shard), bytes)};
    AG_ASSERT(s->board.each);
    memset(s->board.each, 0, bytes);
}

int ag_server_run(const struct ag_config_input *input, struct ag_snapshot *snapshot,
                  struct ag_worker *worker)
{
    const struct ag_model *m = snapshot->model;
    struct ag_server s = {.input = input, .snapshot = snapshot, .worker = worker};
    enum ag_backend_kind backend;
    const char *why = "";
    int rc = AG_EXIT_ERROR;

    ag_crash_install();
    if (ag_backend_choose(m->backend, &backend, &why) != AG_OK) {
        (void)fprintf(
            stderr,
            "anygate: error: backend io_uring is not to be had: %s; hint: server.backend: "
            "auto falls back to epoll\n",
            why);
        ag_snapshot_free(snapshot);
        return AG_EXIT_ERROR;
    }
    ag_sizing_compute(snapshot, &s.sizing);
    atomic_store(&s.running, s.sizing.shards);
    (void)pthread_mutex_init(&s.ending, NULL);
    ag_sockets_init(&s.sockets, s.sizing.shards, AG_LISTEN_BACKLOG);
    if (worker) {
        ag_bundle_adopt(&worker->bundle, &s.sockets);
    }
    s.began = ag_server_fixed_new(m);
    s.each = calloc(s.sizing.shards, sizeof(*s.each));
    AG_ASSERT(s.each);
    open_board(&s, ag_backend_name(backend));
    ag_lifecycle_init(&s.life, &lifecycle_ops, &s);
    ag_material_init(&s.material, !worker);
    ag_stapling_init(&s.stapling, &stapling_ops, &s, &s.each[STAPLING_SHARD].serving.ctx);
    AG_ASSERT(ag_action_commons_open(&s.commons) == AG_OK); /* a start: nothing has run yet */
    if (open_tls(&s) && (worker || ag_lifecycle_open(&s.life, m, &s.sockets))) {
        rc = run(&s, backend, why);
    } else {
        ag_snapshot_free(s.snapshot);
    }
    ag_action_commons_close(&s.commons);
    ag_lifecycle_close(&s.life);
    ag_stapling_deinit(&s.stapling);
    ag_material_deinit(&s.material); /* who used the ring is gone */
    free(s.board.each);
    free(s.each);
    ag_server_fixed_free(s.began);
    ag_sockets_deinit(&s.sockets);
    (void)pthread_mutex_destroy(&s.ending);
    return rc;
}
