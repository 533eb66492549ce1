#include "tools/server.h"

#include "engine/helper.h"
#include "engine/resolver.h"
#include "engine/shard.h"
#include "tools/commands.h"
#include "tools/downstream.h"
#include "tools/load.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#define HELPER_THREADS   4u
#define HELPER_QUEUE_MAX 1024u
#define LOG_RING_BYTES   (256u * 1024u)
#define LISTEN_BACKLOG   4096
#define FDS_RESERVED     64u /* log, rings, timers, files being opened */
#define CONNECTIONS_MAX  100000u
#define WAITING_MAX      1024u
#define STOP_TURNS_MAX   200 /* of 10 ms: for cancelled operations to come home */

struct server;

/* Accepted beyond the limit. */
struct waiting {
    int fd;
    uint16_t port;
};

/* One shard's part; lives as long as its thread. */
struct server_shard {
    struct server *server;
    struct ag_shard *shard;
    struct ag_context ctx;
    struct ag_downstreams down;
    struct ag_block snapshot_ref;
    struct ag_listener listeners[AG_LISTEN_MAX];
    uint32_t listening;
    struct waiting waiting[WAITING_MAX];
    uint32_t waiting_count;
    struct ag_msg drain_msg, abort_msg;
    struct ag_timer drain_timer;
    struct ag_task end_task;
    bool draining;
    bool ended; /* under server->ending: posts no more */
};

struct server {
    struct ag_snapshot *snapshot;
    const struct ag_model *model;
    uint32_t shard_count;
    uint32_t connection_max; /* of each shard */
    int *fds; /* shard_count * listen_count; -1: an address family this system lacks */
    struct server_shard *shards;
    struct ag_helpers *helpers;
    pthread_t control;
    pthread_mutex_t ending; /* guards `ended` against posts of the control thread */
    _Atomic uint32_t
        running; /* shards that have not ended; the last one wakes control by SIGUSR1 */
    _Atomic bool cut;
};

/* ---- a shard's life ---- */

static void release_snapshot(struct ag_block *b)
{
    struct server_shard *s = ag_container_of(b, struct server_shard, snapshot_ref);
    struct ag_snapshot *snapshot = s->server->snapshot;

    if (atomic_fetch_sub(&snapshot->users, 1) == 1) {
        ag_snapshot_free(snapshot);
    }
}

/* All listeners closed and no connection left: the shard is done. */
static void end_if_idle(struct ag_task *t)
{
    struct server_shard *s = ag_container_of(t, struct server_shard, end_task);

    if (s->draining && s->listening == 0 && ag_list_empty(&s->down.open)) {
        ag_timer_cancel(&s->ctx.loop->wheel, &s->drain_timer);
        ag_loop_stop(s->ctx.loop);
    }
}

static void listener_closed(struct ag_listener *ls)
{
    struct server_shard *s = ls->user;

    s->listening--;
    ag_task_queue(s->ctx.loop, &s->end_task);
}

static void pause_accept(struct server_shard *s, bool pause)
{
    for (uint32_t i = 0; i < s->server->model->listen_count; i++) {
        struct ag_listener *ls = &s->listeners[i];

        if (ls->fd.fd >= 0 && pause && !ls->paused) {
            ag_listener_pause(ls);
        } else if (ls->fd.fd >= 0 && !pause && ls->paused) {
            ag_listener_resume(ls);
        }
    }
}

static void close_descriptor(struct server_shard *s, int fd)
{
    struct ag_fd f;

    ag_fd_init(&f, fd);
    ag_loop_close(s->ctx.loop, &f);
}

static void downstream_gone(struct ag_downstreams *d)
{
    struct server_shard *s = ag_container_of(d, struct server_shard, down);

    if (s->waiting_count > 0) {
        struct waiting w = s->waiting[0];

        memmove(s->waiting, s->waiting + 1, --s->waiting_count * sizeof(w));
        AG_ASSERT(ag_downstream_accept(d, w.fd, w.port));
    } else if (s->draining) {
        ag_task_queue(s->ctx.loop, &s->end_task);
    } else {
        pause_accept(s, false);
    }
}

/* Accept stops at the limit, but what the kernel had accepted by then still comes: it waits here for
 * the next free slot, so that no client that was let in is turned away. */
static void accepted(struct ag_listener *ls, int fd)
{
    struct server_shard *s = ls->user;
    uint16_t port = s->server->model->listens[ls - s->listeners].port;

    if (ag_downstream_accept(&s->down, fd, port)) {
        if (ag_downstreams_full(&s->down) && !s->draining) {
            pause_accept(s, true);
        }
    } else if (s->waiting_count < WAITING_MAX) {
        s->waiting[s->waiting_count++] = (struct waiting){fd, port};
    } else {
        close_descriptor(s, fd);
    }
}

static void drain_timeout(struct ag_timer *t)
{
    struct server_shard *s = ag_container_of(t, struct server_shard, drain_timer);

    atomic_store(&s->server->cut, true);
    while (s->waiting_count > 0) {
        close_descriptor(s, s->waiting[--s->waiting_count].fd);
    }
    ag_downstreams_abort(&s->down);
}

static void drain(struct ag_loop *l, struct ag_msg *m)
{
    struct server_shard *s = ag_container_of(m, struct server_shard, drain_msg);

    s->draining = true;
    for (uint32_t i = 0; i < s->server->model->listen_count; i++) {
        if (s->listeners[i].fd.fd >= 0) {
            ag_listener_close(&s->listeners[i], listener_closed);
        }
    }
    ag_downstreams_drain(&s->down);
    ag_loop_arm(l, &s->drain_timer, s->server->model->drain_timeout_ms);
    ag_task_queue(l, &s->end_task);
}

static void abort_all(struct ag_loop *l, struct ag_msg *m)
{
    struct server_shard *s = ag_container_of(m, struct server_shard, abort_msg);

    (void)l;
    drain_timeout(&s->drain_timer);
}

static enum ag_status open_actions(struct server_shard *s)
{
    for (unsigned kind = 0; kind < AG_ACTION_KINDS; kind++) {
        const struct ag_action_ops *ops = ag_action_ops_of((enum ag_action_kind)kind);

        if (ops->shard_open) {
            enum ag_status st = ops->shard_open(&s->ctx, &s->ctx.action_state[kind]);

            if (st != AG_OK) {
                return st;
            }
        }
    }
    return AG_OK;
}

static enum ag_status start_shard(struct ag_shard *shard, void *arg, const char **out_why)
{
    struct server *server = arg;
    struct server_shard *s = &server->shards[shard->index];
    struct ag_loop *l = &shard->loop;

    ag_log_thread("shard");
    shard->app = s;
    s->server = server;
    s->shard = shard;
    s->snapshot_ref = (struct ag_block){.refs = 1, .free = release_snapshot, .fd = -1};
    s->ctx = (struct ag_context){.loop = l,
                                 .pipeline = &ag_dispatch,
                                 .snapshot = server->snapshot,
                                 .snapshot_ref = &s->snapshot_ref,
                                 .shard_count = server->shard_count};
    s->drain_msg.run = drain;
    s->abort_msg.run = abort_all;
    ag_timer_init(&s->drain_timer, drain_timeout);
    ag_task_init(&s->end_task, end_if_idle);
    *out_why = "out of memory for connections";
    if (ag_resolver_init(l) != AG_OK || open_actions(s) != AG_OK ||
        ag_downstreams_init(&s->down, &s->ctx, &server->model->limits, server->connection_max) !=
            AG_OK) {
        return AG_ENOMEM;
    }
    s->down.changed = downstream_gone;
    for (uint32_t i = 0; i < server->model->listen_count; i++) {
        int fd = server->fds[shard->index * server->model->listen_count + i];

        s->listeners[i].fd.fd = -1;
        if (fd >= 0) {
            s->listeners[i].user = s;
            ag_listener_open(&s->listeners[i], l, fd, accepted);
            s->listening++;
        }
    }
    return AG_OK;
}

static void stop_shard(struct ag_shard *shard, void *arg)
{
    struct server_shard *s = shard->app;
    struct server *server = arg;
    struct ag_loop *l = &shard->loop;

    (void)pthread_mutex_lock(&server->ending);
    s->ended = true;
    (void)pthread_mutex_unlock(&server->ending);
    for (unsigned kind = 0; kind < AG_ACTION_KINDS; kind++) {
        const struct ag_action_ops *ops = ag_action_ops_of((enum ag_action_kind)kind);

        if (ops->shard_close && s->ctx.action_state[kind]) {
            ops->shard_close(&s->ctx, s->ctx.action_state[kind]);
        }
    }
    for (int i = 0; i < STOP_TURNS_MAX && s->ctx.exchanges_live > 0; i++) {
        ag_loop_turn(l, 10);
    }
    ag_downstreams_deinit(&s->down);
    ag_resolver_deinit(l);
    ag_block_release(&s->snapshot_ref);
    if (atomic_fetch_sub(&server->running, 1) == 1) {
        (void)pthread_kill(server->control, SIGUSR1);
    }
}

/* ---- start ---- */

static void complain_bind(const struct ag_listen *listen, int error, const char *step)
{
    char text[160];
    struct ag_buf b = ag_buf(text, sizeof(text));
    const char *hint = "";

    ag_addr_format(&listen->addr, true, &b);
    if (error == EADDRINUSE) {
        hint = "; hint: another process listens there; stop it or choose another port";
    } else if (error == EACCES) {
        hint = "; hint: ports below 1024 need root or CAP_NET_BIND_SERVICE";
    } else if (error == EADDRNOTAVAIL) {
        hint = "; hint: no interface of this machine has that address";
    }
    (void)fprintf(stderr, "anygate: error: cannot %s %.*s: %s%s\n", step, (int)b.len, text,
                  strerror(error), hint); /* NOLINT(concurrency-mt-unsafe): before any thread */
}

/* One socket alone, without SO_REUSEPORT: with it the kernel would let two servers of the same user share
 * the port in silence. */
static enum ag_status only_user(const union ag_addr *addr, int *out_error, const char **out_step)
{
    int fd = -1;
    enum ag_status st = ag_listener_bind(addr, false, 1, &fd, out_error, out_step);

    if (st == AG_OK) {
        (void)close(fd);
    }
    return st;
}

/* Every shard binds every address (SO_REUSEPORT); a unix socket is bound once and shared. */
static bool bind_all(struct server *server)
{
    const struct ag_model *m = server->model;
    size_t count = (size_t)server->shard_count * m->listen_count;

    server->fds = calloc(count ? count : 1, sizeof(int));
    AG_ASSERT(server->fds);
    memset(server->fds, 0xff, count * sizeof(int));
    for (uint32_t i = 0; i < m->listen_count; i++) {
        bool unix_socket = m->listens[i].addr.sa.sa_family == AF_UNIX;

        for (uint32_t s = 0; s < server->shard_count; s++) {
            int *fd = &server->fds[s * m->listen_count + i], error = 0;
            const char *step = "";

            if (unix_socket && s > 0) {
                *fd = dup(server->fds[i]);
                continue;
            }
            bool probe = s == 0 && server->shard_count > 1 && !unix_socket;
            if ((!probe || only_user(&m->listens[i].addr, &error, &step) == AG_OK) &&
                ag_listener_bind(&m->listens[i].addr, server->shard_count > 1, LISTEN_BACKLOG, fd,
                                 &error, &step) == AG_OK) {
                continue;
            }
            *fd = -1;
            if (error == EAFNOSUPPORT && m->listens[i].addr.sa.sa_family == AF_INET6) {
                continue; /* ":8080" without IPv6 in this system is just IPv4 */
            }
            complain_bind(&m->listens[i], error, step);
            return false;
        }
    }
    return true;
}

static void close_all(struct server *server)
{
    size_t count = (size_t)server->shard_count * server->model->listen_count;

    for (size_t i = 0; server->fds && i < count; i++) {
        if (server->fds[i] >= 0) {
            (void)close(server->fds[i]);
        }
    }
}

/* Connections of each shard: as asked, and never more than the descriptors allow (two for a proxied
 * one). */
static void size_connections(struct server *server)
{
    struct rlimit rl = {0};
    uint64_t total = server->model->max_connections, by_fds;

    if (getrlimit(RLIMIT_NOFILE, &rl) == 0 && rl.rlim_cur < rl.rlim_max) {
        rl.rlim_cur = rl.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &rl);
        (void)getrlimit(RLIMIT_NOFILE, &rl);
    }
    by_fds = rl.rlim_cur > 2 * FDS_RESERVED ? (rl.rlim_cur - FDS_RESERVED) / 2 : FDS_RESERVED / 2;
    if (total == 0 || total > by_fds) {
        if (total > by_fds) {
            ag_log(AG_LOG_WARN, "max_connections %llu is lowered to %llu: RLIMIT_NOFILE is %llu",
                   (unsigned long long)total, (unsigned long long)by_fds,
                   (unsigned long long)rl.rlim_cur);
        }
        total = by_fds;
    }
    total = ag_min_u64(total, CONNECTIONS_MAX);
    server->connection_max = (uint32_t)(total / server->shard_count);
    if (server->connection_max == 0) {
        server->connection_max = 1;
    }
}

static bool is_wildcard(const union ag_addr *a)
{
    return (a->sa.sa_family == AF_INET && a->in.sin_addr.s_addr == INADDR_ANY) ||
           (a->sa.sa_family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&a->in6.sin6_addr));
}

static void announce(const struct server *server, const char *backend, const char *why)
{
    const struct ag_model *m = server->model;

    ag_log(AG_LOG_INFO, "anygate " AG_VERSION " serves %u route%s on %u shard%s with %s (%s)",
           server->snapshot->route_count, server->snapshot->route_count == 1 ? "" : "s",
           server->shard_count, server->shard_count == 1 ? "" : "s", backend, why);
    for (uint32_t i = 0; i < m->listen_count; i++) {
        char text[160];
        struct ag_buf b = ag_buf(text, sizeof(text));

        if (server->fds[i] < 0) {
            continue;
        }
        ag_addr_format(&m->listens[i].addr, true, &b);
        if (is_wildcard(&m->listens[i].addr)) {
            ag_log(AG_LOG_INFO, "listening on %.*s: http://localhost:%u/", (int)b.len, text,
                   m->listens[i].port);
        } else {
            ag_log(AG_LOG_INFO, "listening on %s%.*s", m->listens[i].port ? "http://" : "",
                   (int)b.len, text);
        }
    }
}

/* ---- the control thread ---- */

static void post_all(struct server *server, struct ag_shards *shards, bool abort)
{
    (void)pthread_mutex_lock(&server->ending);
    for (uint32_t i = 0; i < server->shard_count; i++) {
        struct server_shard *s = &server->shards[i];

        if (!s->ended) {
            ag_loop_post(&ag_shards_at(shards, i)->loop, abort ? &s->abort_msg : &s->drain_msg);
        }
    }
    (void)pthread_mutex_unlock(&server->ending);
}

static void control(struct server *server, struct ag_shards *shards, const sigset_t *set)
{
    unsigned stops = 0;

    for (;;) {
        int sig = sigwaitinfo(set, NULL);

        if (sig == SIGUSR1 && atomic_load(&server->running) == 0) {
            return;
        }
        if ((sig == SIGINT || sig == SIGTERM) && stops < 2) {
            stops++;
            ag_log(AG_LOG_INFO, "%s: %s", sig == SIGINT ? "SIGINT" : "SIGTERM",
                   stops == 1 ? "draining; again to stop at once" : "stopping at once");
            post_all(server, shards, stops == 2);
        } else if (sig == SIGHUP) {
            ag_log(AG_LOG_WARN, "SIGHUP ignored: this version cannot reload; restart it instead");
        }
    }
}

static void block_signals(sigset_t *set)
{
    (void)sigemptyset(set);
    (void)sigaddset(set, SIGINT);
    (void)sigaddset(set, SIGTERM);
    (void)sigaddset(set, SIGHUP);
    (void)sigaddset(set, SIGUSR1);
    (void)pthread_sigmask(SIG_BLOCK, set, NULL);
}

/* Shards up, then signals until they are down again. */
static int serve(struct server *server, enum ag_backend_kind backend, const char *backend_why,
                 const sigset_t *set)
{
    struct ag_shards_config config = {
        .count = server->shard_count, .start = start_shard, .stop = stop_shard, .arg = server};
    struct ag_shards *shards;
    const char *why = "";

    server->control = pthread_self();
    server->helpers = ag_helpers_new(HELPER_THREADS, HELPER_QUEUE_MAX);
    config.loop.backend = backend;
    config.loop.helpers = server->helpers;
    announce(server, ag_backend_name(backend), backend_why);
    shards = ag_shards_start(&config, &why);
    if (!shards) {
        ag_log(AG_LOG_ERROR, "cannot start: %s", why);
        ag_helpers_free(server->helpers);
        return AG_EXIT_ERROR;
    }
    control(server, shards, set);
    ag_shards_join(shards);
    ag_helpers_free(server->helpers);
    ag_log(AG_LOG_INFO, "%s",
           atomic_load(&server->cut) ? "stopped; connections were cut" : "stopped");
    return atomic_load(&server->cut) ? AG_EXIT_ERROR : AG_EXIT_OK;
}

int ag_server_run(struct ag_snapshot *snapshot)
{
    struct server server = {.snapshot = snapshot, .model = snapshot->model};
    enum ag_backend_kind backend;
    const char *why = "";
    int rc = AG_EXIT_ERROR;
    sigset_t set;

    server.shard_count = server.model->workers ? server.model->workers : ag_cores_available();
    atomic_store(&snapshot->users, server.shard_count);
    atomic_store(&server.running, server.shard_count);
    (void)pthread_mutex_init(&server.ending, NULL);
    if (ag_backend_choose(server.model->backend, &backend, &why) != AG_OK) {
        (void)fprintf(
            stderr,
            "anygate: error: backend io_uring is not to be had: %s; hint: server.backend: "
            "auto falls back to epoll\n",
            why);
        ag_snapshot_free(snapshot);
        return rc;
    }
    /* Who sees it listen may ask it to stop: from here on that is done in order. */
    block_signals(&set);
    if (!bind_all(&server)) {
        close_all(&server);
        free(server.fds);
        ag_snapshot_free(snapshot);
        return rc;
    }
    server.shards = calloc(server.shard_count, sizeof(*server.shards));
    AG_ASSERT(server.shards);
    size_connections(&server);
    if (ag_log_start(STDERR_FILENO, server.model->log_level, server.model->log_format,
                     LOG_RING_BYTES) == AG_OK) {
        rc = serve(&server, backend, why, &set);
        ag_log_stop();
    }
    free(server.shards);
    free(server.fds);
    return rc;
}
