#include "tools/sizing.h"

#include "engine/arena.h"
#include "engine/buffers.h"
#include "engine/file.h"
#include "engine/shard.h"
#include "tools/downstream.h"

#include <sys/resource.h>

#define FDS_RESERVED    64u /* log, rings, timers, files being opened */
#define CONNECTIONS_MAX 100000u

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

/* As asked, as far as there are descriptors. Unasked one is left for each, as a proxied request takes
 * two. */
static void size_connections(struct ag_sizing *s)
{
    uint64_t total = s->connections_asked;

    s->connections_by_fds = s->nofile > 2 * FDS_RESERVED ? s->nofile - FDS_RESERVED : s->nofile / 2;
    if (total == 0) {
        total = s->connections_by_fds / 2;
    }
    total = ag_min_u64(total, s->connections_by_fds);
    total = ag_min_u64(total, CONNECTIONS_MAX) / s->shards;
    s->connections = total ? (uint32_t)total : 1;
}

static uint32_t at_least(uint32_t base, uint64_t each, uint32_t most)
{
    return (uint32_t)ag_min_u64(each > base ? each : base, most);
}

static void size_pools(struct ag_sizing *s)
{
    struct ag_loop_config *l = &s->loop;
    uint64_t n = s->connections;

    l->buf_count[AG_BUF_SMALL] = at_least(SMALL_BUFFERS, n * SMALL_EACH, AG_BUF_COUNT_MAX);
    l->node_count = at_least(SLICE_NODES, n * NODES_EACH, UINT32_MAX);
    l->page_count = at_least(ARENA_PAGES, n * PAGES_EACH, UINT32_MAX);
}

static uint64_t pools_bytes(const struct ag_sizing *s)
{
    const struct ag_loop_config *l = &s->loop;

    return (uint64_t)l->buf_count[AG_BUF_SMALL] * AG_BUF_SMALL_BYTES +
           (uint64_t)l->buf_count[AG_BUF_LARGE] * AG_BUF_LARGE_BYTES +
           l->node_count * (sizeof(struct ag_slice_node) + sizeof(struct ag_file_block)) +
           (uint64_t)l->page_count * AG_ARENA_PAGE_BYTES +
           s->connections * sizeof(struct ag_downstream);
}

void ag_sizing_compute(const struct ag_snapshot *snapshot, struct ag_sizing *out)
{
    const struct ag_model *m = snapshot->model;

    *out = (struct ag_sizing){
        .shards = m->workers ? m->workers : ag_cores_available(),
        .loop = {.ring_entries = RING_ENTRIES, .buf_count = {[AG_BUF_LARGE] = LARGE_BUFFERS}},
        .nofile = raise_nofile(),
        .connections_asked = m->max_connections,
    };
    size_connections(out);
    size_pools(out);
    out->ceiling_bytes = pools_bytes(out);
}

void ag_sizing_log(const struct ag_sizing *s)
{
    if (s->connections_asked > s->connections_by_fds) {
        ag_log(AG_LOG_WARN, "max_connections %llu is lowered to %llu: RLIMIT_NOFILE is %llu",
               (unsigned long long)s->connections_asked, (unsigned long long)s->connections_by_fds,
               (unsigned long long)s->nofile);
    }
    ag_log(AG_LOG_INFO, "each shard takes %u connections and at most %llu MiB", s->connections,
           (unsigned long long)(s->ceiling_bytes >> 20));
}
