/*
 * Goal: all shards come up or none does; each lives on its own thread and core; messages between them
 * arrive in order, whatever the end looks like.
 */
#include "engine/shard.h"

#include <criterion/criterion.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

enum { SHARDS = 3, HOPS = 3000 };

struct probe {
    _Atomic int started, stopped;
    int fail_at; /* index of the shard whose start fails; -1: none */
    _Atomic int cores_right;
    bool unready;
};

static enum ag_status on_start(struct ag_shard *s, void *arg, const char **out_why)
{
    struct probe *p = arg;

    cr_assert_eq(s->loop.user, s);
    if ((int)s->index == p->fail_at) {
        static _Thread_local char why[32]; /* goes with the thread */

        (void)snprintf(why, sizeof(why), "port %d is taken", 80);
        *out_why = why;
        return AG_ESYS;
    }
    atomic_fetch_add(&p->cores_right, s->core < 0 || s->core == sched_getcpu());
    atomic_fetch_add(&p->started, 1);
    return AG_OK;
}

static void on_stop(struct ag_shard *s, void *arg)
{
    struct probe *p = arg;

    cr_assert(s->status == AG_OK);
    atomic_fetch_add(&p->stopped, 1);
}

static struct ag_shards_config config_of(struct probe *p, uint32_t count)
{
    return (struct ag_shards_config){
        .count = count,
        .loop = {.backend = AG_BACKEND_EPOLL, .buf_count = {64, 8}},
        .start = on_start,
        .stop = on_stop,
        .arg = p,
    };
}

struct order {
    struct ag_msg msg;
};

static void on_stop_message(struct ag_loop *l, struct ag_msg *m)
{
    (void)m;
    ag_loop_stop(l);
}

static void stop_all(struct ag_shards *s, struct order *orders)
{
    for (uint32_t i = 0; i < ag_shards_count(s); i++) {
        orders[i].msg.run = on_stop_message;
        ag_loop_post(&ag_shards_at(s, i)->loop, &orders[i].msg);
    }
    ag_shards_join(s);
}

Test(shard, all_up_then_down)
{
    struct probe p = {.fail_at = -1};
    struct ag_shards_config c = config_of(&p, SHARDS);
    struct order orders[SHARDS];
    const char *why = NULL;

    for (int round = 1; round <= 3; round++) {
        struct ag_shards *s = ag_shards_start(&c, &why);
        cr_assert(s, "%s", why);
        cr_expect_eq(atomic_load(&p.started), round * SHARDS, "start returns when all are up");
        cr_expect_eq(ag_shards_count(s), SHARDS);
        for (uint32_t i = 0; i < SHARDS; i++) {
            cr_expect_eq(ag_shards_at(s, i)->index, i);
            cr_expect_eq(ag_shards_at(s, i)->core >= 0, ag_cores_available() >= SHARDS);
        }
        stop_all(s, orders);
        cr_expect_eq(atomic_load(&p.stopped), round * SHARDS);
    }
}

Test(shard, pinned_when_there_are_cores)
{
    struct probe p = {.fail_at = -1};
    struct ag_shards_config c = config_of(&p, ag_cores_available());
    static struct order orders[1024];
    const char *why = NULL;
    cpu_set_t set;

    cr_assert_eq(sched_getaffinity(0, sizeof(set), &set), 0);
    cr_expect_eq(ag_cores_available(), (uint32_t)CPU_COUNT(&set));
    struct ag_shards *s = ag_shards_start(&c, &why);
    cr_assert(s, "%s", why);
    for (uint32_t i = 0; i < c.count; i++) {
        int core = ag_shards_at(s, i)->core;

        cr_expect(core >= 0 && CPU_ISSET((unsigned)core, &set));
        for (uint32_t j = 0; j < i; j++) {
            cr_expect_neq(ag_shards_at(s, j)->core, core);
        }
    }
    cr_expect_eq((uint32_t)atomic_load(&p.cores_right), c.count, "each ran on its own core");
    stop_all(s, orders);
}

Test(shard, fewer_cores_than_shards_pins_none)
{
    struct probe p = {.fail_at = -1};
    struct ag_shards_config c = config_of(&p, SHARDS);
    struct order orders[SHARDS];
    const char *why = NULL;
    cpu_set_t set;

    cr_assert_eq(sched_getaffinity(0, sizeof(set), &set), 0);
    for (unsigned core = 0, seen = 0; core < CPU_SETSIZE; core++) {
        if (CPU_ISSET(core, &set) && seen++ > 0) {
            CPU_CLR(core, &set);
        }
    }
    cr_assert_eq(sched_setaffinity(0, sizeof(set), &set), 0);
    cr_expect_eq(ag_cores_available(), 1);
    struct ag_shards *s = ag_shards_start(&c, &why);
    cr_assert(s, "%s", why);
    for (uint32_t i = 0; i < SHARDS; i++) {
        cr_expect_eq(ag_shards_at(s, i)->core, -1);
    }
    stop_all(s, orders);
}

Test(shard, a_failed_start_ends_all_and_says_why)
{
    for (int fail_at = 0; fail_at < SHARDS; fail_at++) {
        struct probe p = {.fail_at = fail_at};
        struct ag_shards_config c = config_of(&p, SHARDS);
        const char *why = NULL;
        char want[64];

        cr_expect_null(ag_shards_start(&c, &why));
        (void)snprintf(want, sizeof(want), "shard %d: port 80 is taken", fail_at);
        cr_assert(why);
        cr_expect_str_eq(why, want);
        cr_expect_eq(atomic_load(&p.started), SHARDS - 1);
        cr_expect_eq(atomic_load(&p.stopped), SHARDS - 1, "what had started was stopped");
    }
}

/* Between all starts and the first turn: on the starter's thread, with nothing run yet. */
static enum ag_status on_ready(void *arg, const char **out_why)
{
    struct probe *p = arg;

    cr_assert_eq(gettid(), getpid());
    cr_assert_eq(atomic_load(&p->started), SHARDS);
    *out_why = "not ready";
    return p->unready ? AG_ESYS : AG_OK;
}

Test(shard, ready_comes_before_any_runs)
{
    struct probe p = {.fail_at = -1};
    struct ag_shards_config c = config_of(&p, SHARDS);
    struct order orders[SHARDS];
    const char *why = "";

    c.ready = on_ready;
    struct ag_shards *s = ag_shards_start(&c, &why);
    cr_assert_not_null(s);
    stop_all(s, orders);
    cr_assert_eq(atomic_load(&p.stopped), SHARDS);
    p = (struct probe){.fail_at = -1, .unready = true};
    cr_assert_null(ag_shards_start(&c, &why));
    cr_assert_str_eq(why, "not ready");
    cr_assert_eq(atomic_load(&p.stopped), SHARDS);
}

Test(shard, a_loop_that_cannot_be_set_up_is_told)
{
    struct probe p = {.fail_at = -1};
    struct ag_shards_config c = config_of(&p, 2);
    const char *why = NULL;

    struct rlimit usual;
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &usual), 0);
    const struct rlimit none = {0, usual.rlim_max};
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &none), 0); /* no descriptor for the loop's eventfd */
    struct ag_shards *s = ag_shards_start(&c, &why);
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &usual), 0);
    cr_expect_null(s);
    cr_expect(why && strncmp(why, "shard 0: ", 9) == 0, "%s", why);
    cr_expect_eq(atomic_load(&p.started), 0);
}

/* A token goes round all shards; each hop is a message from one thread to the next. */
struct token {
    struct ag_msg msg;
    struct ag_shards *shards;
    unsigned at, hops;
    uint64_t seen[SHARDS]; /* written by each shard alone */
};

static void hop(struct ag_loop *l, struct ag_msg *m)
{
    struct token *t = ag_container_of(m, struct token, msg);
    struct ag_shard *s = l->user;

    cr_assert(pthread_equal(s->thread, pthread_self()));
    cr_assert_eq(s->index, t->at);
    t->seen[s->index]++;
    if (++t->hops == HOPS) {
        for (uint32_t i = 0; i < SHARDS; i++) {
            static struct order orders[SHARDS];

            orders[i].msg.run = on_stop_message;
            ag_loop_post(&ag_shards_at(t->shards, i)->loop, &orders[i].msg);
        }
        return;
    }
    t->at = (t->at + 1) % SHARDS;
    ag_loop_post(&ag_shards_at(t->shards, t->at)->loop, &t->msg);
}

static void send_round(enum ag_backend_kind backend)
{
    struct probe p = {.fail_at = -1};
    struct ag_shards_config c = config_of(&p, SHARDS);
    const char *why = NULL;

    c.loop.backend = backend;
    struct token t = {.msg = {.run = hop}, .shards = ag_shards_start(&c, &why)};
    cr_assert(t.shards, "%s", why);
    ag_loop_post(&ag_shards_at(t.shards, 0)->loop, &t.msg);
    ag_shards_join(t.shards);
    cr_expect_eq(t.hops, HOPS);
    for (uint32_t i = 0; i < SHARDS; i++) {
        cr_expect_eq(t.seen[i], HOPS / SHARDS);
    }
}

Test(shard, messages_between_shards)
{
    enum ag_backend_kind kind;
    const char *why;

    send_round(AG_BACKEND_EPOLL);
    if (ag_backend_choose(AG_BACKEND_URING, &kind, &why) == AG_OK) {
        send_round(AG_BACKEND_URING);
    }
}
