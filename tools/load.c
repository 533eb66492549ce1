#include "tools/load.h"

#include <unistd.h>

void ag_load_config(struct ag_load *l, const struct ag_config_input *in)
{
    const char *base_dir = ".";
    struct ag_node *root;

    *l = (struct ag_load){0};
    ag_arena_init(&l->arena, NULL, 0);
    ag_diags_init(&l->diags, &l->arena);
    root = ag_config_load(in, &l->diags, &base_dir);
    if (root) {
        l->snapshot = ag_snapshot_compile(&l->arena, root, base_dir, in->opener, &l->diags);
    }
}

void ag_load_open_tls(struct ag_load *l, uint32_t shard_count, struct ag_tls_tickets *tickets)
{
    if (l->snapshot &&
        ag_snapshot_open_tls(l->snapshot, shard_count, tickets, &l->diags) != AG_OK) {
        l->refused = l->snapshot;
        l->snapshot = NULL;
    }
}

bool ag_colour_wanted(int fd)
{
    const char *no = getenv("NO_COLOR"); /* NOLINT(concurrency-mt-unsafe): before any thread */

    return (!no || !no[0]) && isatty(fd);
}

void ag_load_print(const struct ag_load *l, enum ag_diag_format format)
{
    ag_diags_print(&l->diags, STDERR_FILENO, format, ag_colour_wanted(STDERR_FILENO));
}

void ag_load_log(const struct ag_load *l)
{
    ag_diags_log(&l->diags, ag_colour_wanted(STDERR_FILENO));
}

void ag_load_release(struct ag_load *l)
{
    /* What was diagnosed after the snapshot took the arena is in a new one. */
    ag_snapshot_free(l->snapshot);
    ag_snapshot_free(l->refused);
    ag_arena_release(&l->arena);
    *l = (struct ag_load){0};
}
