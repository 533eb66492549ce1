#include "tools/sizing.h"

#include "engine/arena.h"
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

/* As asked, and never more than the descriptors allow (two for a proxied one). */
static void size_connections(struct ag_sizing *s)
{
    uint64_t total = s->connections_asked;

    s->connections_by_fds =
        s->nofile > 2 * FDS_RESERVED ? (s->nofile - FDS_RESERVED) / 2 : FDS_RESERVED / 2;
    if (total == 0 || total > s->connections_by_fds) {
        total = s->connections_by_fds;
    }
    total = ag_min_u64(total, CONNECTIONS_MAX) / s->shards;
    s->connections = total ? (uint32_t)total : 1;
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
        .loop = {.ring_entries = RING_ENTRIES,
                 .buf_count = {[AG_BUF_SMALL] = SMALL_BUFFERS, [AG_BUF_LARGE] = LARGE_BUFFERS},
                 .node_count = SLICE_NODES,
                 .page_count = ARENA_PAGES},
        .nofile = raise_nofile(),
        .connections_asked = m->max_connections,
    };
    size_connections(out);
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
