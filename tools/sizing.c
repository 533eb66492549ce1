#include "tools/sizing.h"

#include "actions/proxy/proxy_config.h"
#include "engine/arena.h"
#include "engine/buffers.h"
#include "engine/conn.h"
#include "engine/file.h"
#include "engine/pipes.h"
#include "engine/shard.h"
#include "tools/downstream.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <unistd.h>

/* Descriptors that are no connections: log, pid file, files being opened; of each shard its ring or set,
 * wake-up, names' sockets. */
#define FDS_PROCESS     32u
#define FDS_SHARD       8u
#define FDS_EACH_PIPE   64u
#define CONNECTIONS_MAX 100000u
/* Fewer than a server should be able to have, unless somebody wants it so. */
#define FEW_CONNECTIONS 1024u

#define RING_ENTRIES  1024u
#define SMALL_BUFFERS 4096u
#define LARGE_BUFFERS 512u
#define SLICE_NODES   32768u
#define ARENA_PAGES   16384u

/* What a connection that is served takes when it is tight (buffers.h): a block of its request, two of
 * the answer on its way, and as many again for those who came before. Pages: one for a plain exchange,
 * three for a proxied one. */
#define SMALL_EACH 4u
#define NODES_EACH 8u
#define PAGES_EACH 3u

/* Of the memory there is, what all shards may come to. */
#define MEMORY_SHARE 2u
/* How often pools are halved for it at most. */
#define HALVED_MAX 5u
/* A thread's stack as far as it is used, c-ares, the resolver's table, rings and the table of descriptors
 * (which are mapped for more than is touched). */
#define LOOP_BYTES (4u << 20)

/* ---- descriptors ---- */

static uint64_t raise_nofile(void)
{
    struct rlimit rl = {0};

    if (getrlimit(RLIMIT_NOFILE, &rl) == 0 && rl.rlim_cur < rl.rlim_max) {
        rl.rlim_cur = rl.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &rl);
        (void)getrlimit(RLIMIT_NOFILE, &rl);
    }
    return rl.rlim_cur;
}

/* A part of them, each of which takes two: what finds none left is received into memory. */
static void size_pipes(struct ag_sizing *s)
{
    uint64_t count = s->nofile / s->shards / FDS_EACH_PIPE;

    s->loop.pipe_count = count ? (uint32_t)ag_min_u64(count, AG_PIPES_MAX) : 1;
}

/* As asked, as far as there are descriptors. Unasked one is left for each, as a proxied request takes
 * two. */
static void size_connections(struct ag_sizing *s, uint32_t listen_count)
{
    uint64_t each = FDS_SHARD + listen_count + 2 * s->loop.pipe_count;
    uint64_t reserved = FDS_PROCESS + s->shards * each;
    uint64_t total = s->connections_asked;

    s->connections_by_fds = s->nofile > 2 * reserved ? s->nofile - reserved : s->nofile / 2;
    if (total == 0) {
        total = s->connections_by_fds / 2;
    }
    total = ag_min_u64(total, s->connections_by_fds);
    total = ag_min_u64(total, CONNECTIONS_MAX) / s->shards;
    s->connections = total ? (uint32_t)total : 1;
}

/* ---- memory ---- */

/* The number in a file, UINT64_MAX when there is none ("max"). */
static uint64_t read_limit(const char *path)
{
    char text[32];
    uint64_t value = UINT64_MAX;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd >= 0) {
        ssize_t n = read(fd, text, sizeof(text));

        if (n > 1 && ag_span_u64(ag_span((const uint8_t *)text, (size_t)n - 1), &value) != AG_OK) {
            value = UINT64_MAX;
        }
        (void)close(fd);
    }
    return value;
}

/* Of the machine, or of the control group that this process sees as its root (containers). */
static uint64_t memory_here(void)
{
    struct sysinfo info;
    uint64_t bytes = UINT64_MAX;

    if (sysinfo(&info) == 0) {
        bytes = (uint64_t)info.totalram * info.mem_unit;
    }
    bytes = ag_min_u64(bytes, read_limit("/sys/fs/cgroup/memory.max"));
    bytes = ag_min_u64(bytes, read_limit("/sys/fs/cgroup/memory/memory.limit_in_bytes"));
    return bytes == UINT64_MAX ? 0 : bytes;
}

static uint32_t larger(uint32_t base, uint64_t each, uint32_t most)
{
    return (uint32_t)ag_min_u64(each > base ? each : base, most);
}

/* Halved `shift` times, but what the configuration says itself. */
static void size_pools(struct ag_sizing *s, const struct ag_memory *m, unsigned shift)
{
    struct ag_loop_config *l = &s->loop;
    uint64_t n = s->connections >> shift;

    l->buf_count[AG_BUF_SMALL] =
        m->small_buffers ? m->small_buffers
                         : larger(SMALL_BUFFERS >> shift, n * SMALL_EACH, AG_BUF_COUNT_MAX);
    l->buf_count[AG_BUF_LARGE] = m->large_buffers ? m->large_buffers : LARGE_BUFFERS >> shift;
    l->node_count = larger(SLICE_NODES >> shift, n * NODES_EACH, UINT32_MAX);
    l->page_count = m->pages ? m->pages : larger(ARENA_PAGES >> shift, n * PAGES_EACH, UINT32_MAX);
}

static uint64_t actions_bytes(const struct ag_snapshot *snapshot)
{
    uint64_t sum = 0;

    for (unsigned kind = 0; kind < AG_ACTION_KINDS; kind++) {
        const struct ag_action_ops *ops = ag_action_ops_of((enum ag_action_kind)kind);

        sum += ops->shard_bytes ? ops->shard_bytes(snapshot->shared[kind]) : 0;
    }
    return sum;
}

static void sum_up(struct ag_sizing *s)
{
    const struct ag_loop_config *l = &s->loop;
    uint64_t *part = s->part_bytes;

    part[AG_SIZING_BUFFERS] = ag_bufs_bytes(l->buf_count);
    part[AG_SIZING_PAGES] = ag_pool_bytes(AG_ARENA_STRIDE_BYTES, l->page_count);
    part[AG_SIZING_QUEUES] = ag_pool_bytes(sizeof(struct ag_slice_node), l->node_count) +
                             ag_pool_bytes(sizeof(struct ag_conn_send), l->node_count) +
                             ag_pool_bytes(sizeof(struct ag_file_block), l->node_count);
    part[AG_SIZING_CLIENTS] = ag_downstreams_bytes(s->connections);
    part[AG_SIZING_LOOP] = LOOP_BYTES;
    s->ceiling_bytes = 0;
    for (unsigned i = 0; i < AG_SIZING_PARTS; i++) {
        s->ceiling_bytes += part[i];
    }
}

/* Smaller pools than the connections ask for, as long as all of it would not fit: who finds them empty
 * waits or gets a 503, and that is better than the system's killer. */
static void fit_memory(struct ag_sizing *s, const struct ag_memory *m)
{
    const uint32_t fixed[AG_BUF_GROUPS] = {
        [AG_BUF_SMALL] = m->small_buffers, [AG_BUF_LARGE] = m->large_buffers};
    uint64_t most = s->memory_bytes / MEMORY_SHARE / s->shards;

    s->fixed_bytes = ag_bufs_bytes(fixed) + ag_pool_bytes(AG_ARENA_STRIDE_BYTES, m->pages);
    s->excess = most && s->fixed_bytes > most;
    if (s->excess) {
        return; /* however small the others were, it would not fit: only they would run short */
    }
    for (unsigned shift = 1; most && s->ceiling_bytes > most && shift <= HALVED_MAX; shift++) {
        s->by_memory = true;
        size_pools(s, m, shift);
        sum_up(s);
    }
}

void ag_sizing_compute(const struct ag_snapshot *snapshot, struct ag_sizing *out)
{
    const struct ag_model *m = snapshot->model;

    *out = (struct ag_sizing){
        .shards = m->workers ? m->workers : ag_cores_available(),
        .loop = {.ring_entries = RING_ENTRIES},
        .nofile = raise_nofile(),
        .memory_bytes = memory_here(),
        .connections_asked = m->max_connections,
        .proxies = ag_proxy_has_targets(snapshot->shared[AG_ACTION_PROXY]),
    };
    size_pipes(out);
    size_connections(out, m->listen_count);
    size_pools(out, &m->memory, 0);
    out->part_bytes[AG_SIZING_ACTIONS] = actions_bytes(snapshot);
    sum_up(out);
    fit_memory(out, &m->memory);
}

/* ---- as text ---- */

static unsigned mib(uint64_t bytes)
{
    return (unsigned)((bytes + (1u << 20) - 1) >> 20);
}

void ag_sizing_describe(const struct ag_sizing *s, struct ag_buf *out)
{
    static const char *const names[] = {
        [AG_SIZING_BUFFERS] = "buffers", [AG_SIZING_PAGES] = "pages",
        [AG_SIZING_QUEUES] = "queues",   [AG_SIZING_CLIENTS] = "clients",
        [AG_SIZING_ACTIONS] = "actions", [AG_SIZING_LOOP] = "loop"};

    ag_buf_printf(out, "shards %u, each at most %u connections and %u MiB of memory:\n ", s->shards,
                  s->connections, mib(s->ceiling_bytes));
    for (unsigned i = 0; i < AG_SIZING_PARTS; i++) {
        ag_buf_printf(out, " %s %u%s", names[i], mib(s->part_bytes[i]),
                      i + 1 < AG_SIZING_PARTS ? "," : " MiB\n");
    }
    ag_buf_printf(out, "  %u small and %u large buffers, %u pages; beside the shards %u MiB\n",
                  s->loop.buf_count[AG_BUF_SMALL], s->loop.buf_count[AG_BUF_LARGE],
                  s->loop.page_count, AG_SIZING_BASE_BYTES >> 20);
}

bool ag_sizing_excess(const struct ag_sizing *s, struct ag_buf *out)
{
    if (s->excess) {
        ag_buf_printf(
            out,
            "server.memory comes to %u MiB for each of %u shards, and of %u MiB of memory half is for all "
            "of them; hint: lower its numbers, or the system may end the server when they are in use",
            mib(s->fixed_bytes), s->shards, mib(s->memory_bytes));
    }
    return s->excess;
}

static void log_descriptors(const struct ag_sizing *s)
{
    static const char hint[] = "LimitNOFILE= of the unit, ulimit -Hn or docker --ulimit raise it";
    uint64_t clients = (uint64_t)s->connections * s->shards;

    if (s->connections_asked > s->connections_by_fds) {
        ag_log(AG_LOG_WARN,
               "max_connections %llu is lowered to %llu: RLIMIT_NOFILE is %llu; hint: %s",
               (unsigned long long)s->connections_asked, (unsigned long long)s->connections_by_fds,
               (unsigned long long)s->nofile, hint);
    }
    if (s->connections_asked && s->proxies && clients > s->connections_by_fds / 2) {
        ag_log(
            AG_LOG_WARN,
            "%llu connections of clients leave %llu descriptors for those to upstreams: RLIMIT_NOFILE is "
            "%llu; hint: lower max_connections; %s",
            (unsigned long long)clients, (unsigned long long)(s->connections_by_fds - clients),
            (unsigned long long)s->nofile, hint);
    }
    if (s->connections_asked == 0 && s->connections_by_fds / 2 < FEW_CONNECTIONS) {
        ag_log(AG_LOG_WARN, "no more than %u connections at once: RLIMIT_NOFILE is %llu; hint: %s",
               s->connections * s->shards, (unsigned long long)s->nofile, hint);
    }
}

void ag_sizing_log(const struct ag_sizing *s)
{
    char text[400];
    struct ag_buf excess = ag_buf(text, sizeof(text));

    log_descriptors(s);
    if (ag_sizing_excess(s, &excess)) {
        ag_log(AG_LOG_WARN, "%.*s", (int)excess.len, text);
    }
    if (s->by_memory) {
        ag_log(
            AG_LOG_WARN,
            "pools are smaller than %u connections of a shard may want: of %u MiB of memory half "
            "is for them",
            s->connections, mib(s->memory_bytes));
    }
    ag_log(AG_LOG_INFO, "each shard takes at most %u connections and %u MiB", s->connections,
           mib(s->ceiling_bytes));
}
