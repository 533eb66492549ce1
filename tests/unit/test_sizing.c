/*
 * Goal: what a server takes follows from its configuration and the machine, and the ceiling that is told is
 * the sum of what is set up.
 * Method: configurations through the real reader, with limits of open files set by the test. Pools that are
 * mapped for the sizes found are measured against the parts of the ceiling.
 */
#include "engine/buffers.h"
#include "engine/pipes.h"
#include "tools/sizing.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

static struct ag_sizing sizing_of(const char *yaml, rlim_t nofile)
{
    struct rlimit rl = {nofile, nofile};
    struct ag_sizing out;
    struct ag_arena arena;
    struct ag_diags diags;
    struct ag_source source = {"t.yml", ag_span_str(yaml)};
    struct ag_snapshot *s;

    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &rl), 0);
    ag_arena_init(&arena, NULL, 0);
    ag_diags_init(&diags, &arena);
    s = ag_snapshot_compile(&arena, ag_config_parse_yaml(&source, &diags), "/", NULL, &diags);
    cr_assert(s, "%s", diags.first ? diags.first->what : "?");
    ag_sizing_compute(s, &out);
    ag_snapshot_free(s);
    ag_arena_release(&arena);
    return out;
}

static uint64_t sum_of(const struct ag_sizing *s)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < AG_SIZING_PARTS; i++) {
        cr_assert_gt(s->part_bytes[i], 0, "part %u", i);
        sum += s->part_bytes[i];
    }
    return sum;
}

Test(sizing, descriptors_bound_connections)
{
    struct ag_sizing s = sizing_of("server: {workers: 2}\nroutes: {/x: OK}\n", 2000);

    cr_assert_eq(s.shards, 2);
    cr_assert_eq(s.nofile, 2000);
    /* 32, and of each shard 8, its two listening sockets (IPv4 and IPv6), and two for each pipe */
    cr_assert_eq(s.loop.pipe_count, 2000 / 2 / 64);
    cr_assert_eq(s.connections_by_fds, 2000 - 32 - 2 * (10 + 2 * 15));
    cr_assert_eq(s.connections, s.connections_by_fds / 2 / 2);
    cr_assert_eq(s.ceiling_bytes, sum_of(&s));

    s = sizing_of("server: {workers: 2, max_connections: 1800}\nroutes: {/x: OK}\n", 2000);
    cr_assert_eq(s.connections, 900);
    s = sizing_of("server: {workers: 2, max_connections: 5000}\nroutes: {/x: OK}\n", 2000);
    cr_assert_eq(s.connections, s.connections_by_fds / 2);
    s = sizing_of("server: {workers: 1}\nroutes: {/x: OK}\n", 20);
    cr_assert_gt(s.connections, 0);
    cr_assert_lt(s.connections, 20);
    cr_assert_eq(s.loop.pipe_count, 1);
}

Test(sizing, pipes_are_few)
{
    struct ag_sizing s = sizing_of("server: {workers: 1}\nroutes: {/x: OK}\n", 10000);

    cr_assert_eq(s.loop.pipe_count, AG_PIPES_MAX);
}

Test(sizing, memory_is_as_configured)
{
    struct ag_sizing s = sizing_of("server:\n  workers: 1\n"
                                   "  memory: {small_buffers: 16, large_buffers: 4, pages: 8}\n"
                                   "routes: {/x: OK}\n",
                                   1000);
    struct ag_sizing usual = sizing_of("server: {workers: 1}\nroutes: {/x: OK}\n", 1000);

    cr_assert_eq(s.loop.buf_count[AG_BUF_SMALL], 16);
    cr_assert_eq(s.loop.buf_count[AG_BUF_LARGE], 4);
    cr_assert_eq(s.loop.page_count, 8);
    cr_assert_eq(s.ceiling_bytes, sum_of(&s));
    cr_assert_geq(s.part_bytes[AG_SIZING_BUFFERS],
                  16 * AG_BUF_SMALL_BYTES + 4 * AG_BUF_LARGE_BYTES);
    cr_assert_eq(s.part_bytes[AG_SIZING_PAGES], 8 * AG_ARENA_STRIDE_BYTES);
    cr_assert_eq(usual.loop.buf_count[AG_BUF_LARGE], 512);
    cr_assert_geq(usual.loop.buf_count[AG_BUF_SMALL], usual.connections * 4);
    cr_assert_geq(usual.loop.page_count, usual.connections * 3);
    cr_assert_lt(s.ceiling_bytes, usual.ceiling_bytes);
}

Test(sizing, the_cache_of_files_counts)
{
    struct ag_sizing none = sizing_of("routes: {/x: OK}\n", 1000);
    struct ag_sizing much = sizing_of("static: {cache: {max_bytes: 1g}}\nroutes: {/x: OK}\n", 1000);

    cr_assert_geq(much.part_bytes[AG_SIZING_ACTIONS],
                  none.part_bytes[AG_SIZING_ACTIONS] + (1u << 30) - (64u << 20));
}

Test(sizing, pools_shrink_to_the_memory_there_is)
{
    /* More shards than the memory of any machine of today has room for at full size. */
    struct ag_sizing s = sizing_of("server: {workers: 1024}\nroutes: {/x: OK}\n", 1000);
    struct ag_sizing one = sizing_of("server: {workers: 1}\nroutes: {/x: OK}\n", 1000);

    cr_assert_gt(s.memory_bytes, 0);
    if (one.ceiling_bytes * 1024 > s.memory_bytes / 2) {
        cr_assert(s.by_memory);
        cr_assert_lt(s.loop.buf_count[AG_BUF_SMALL], one.loop.buf_count[AG_BUF_SMALL]);
        cr_assert_lt(s.loop.page_count, one.loop.page_count);
        cr_assert_geq(s.loop.buf_count[AG_BUF_SMALL], 128);
        cr_assert_geq(s.loop.buf_count[AG_BUF_LARGE], 16);
        cr_assert_eq(s.ceiling_bytes, sum_of(&s));
    }
    if (one.ceiling_bytes < s.memory_bytes / 2) {
        cr_assert_not(one.by_memory);
    }
}

/* Pools that cannot be had are told, and are no reason to take from the others. */
Test(sizing, more_memory_than_there_is)
{
    struct ag_sizing usual = sizing_of("server: {workers: 1}\nroutes: {/x: OK}\n", 1000);
    struct ag_sizing s = sizing_of("server:\n  workers: 1\n  memory: {pages: 16777216}\n"
                                   "routes: {/x: OK}\n",
                                   1000);
    char room[400] = "";
    struct ag_buf b = ag_buf(room, sizeof(room) - 1);

    cr_expect_not(ag_sizing_excess(&usual, &b));
    if (s.memory_bytes / 2 >= 16777216ull * AG_ARENA_STRIDE_BYTES) {
        cr_skip("this machine has room for them");
    }
    cr_expect(ag_sizing_excess(&s, &b));
    cr_expect(strstr(room, "server.memory comes to 6"), "%s", room);
    cr_expect_not(s.by_memory);
    cr_expect_eq(s.loop.buf_count[AG_BUF_SMALL], 4096);
    cr_expect_eq(s.loop.buf_count[AG_BUF_LARGE], 512);
}

Test(sizing, the_text_has_it_all)
{
    char room[1024] = "";
    struct ag_buf b = ag_buf(room, sizeof(room) - 1);
    struct ag_sizing s = {.shards = 2,
                          .connections = 100,
                          .ceiling_bytes = (70u << 20) - 1,
                          .part_bytes = {[AG_SIZING_BUFFERS] = 30u << 20,
                                         [AG_SIZING_PAGES] = 20u << 20,
                                         [AG_SIZING_QUEUES] = 10u << 20,
                                         [AG_SIZING_CLIENTS] = 1,
                                         [AG_SIZING_ACTIONS] = 5u << 20,
                                         [AG_SIZING_LOOP] = 4u << 20},
                          .loop = {.buf_count = {7, 8}, .page_count = 9}};

    ag_sizing_describe(&s, &b);
    cr_assert_str_eq(room, "shards 2, each at most 100 connections and 70 MiB of memory:\n"
                           "  buffers 30, pages 20, queues 10, clients 1, actions 5, loop 4 MiB\n"
                           "  7 small and 8 large buffers, 9 pages; beside the shards 16 MiB\n");
}
