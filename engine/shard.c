#include "engine/shard.h"

#include "engine/fault.h"
#include "engine/helper.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>

/* Processors that an affinity mask may name. */
#define CORES_MAX (8u * CPU_SETSIZE)

struct core_set {
    cpu_set_t sets[CORES_MAX / CPU_SETSIZE];
};

enum verdict { VERDICT_WAIT = 0, VERDICT_RUN, VERDICT_END };

struct ag_shards {
    struct ag_shards_config config;
    pthread_mutex_t lock; /* what is below, used at start and end only */
    pthread_cond_t change;
    uint32_t up;      /* shards that came up or failed */
    uint32_t posters; /* shards not yet stopped, and the thread that joins them */
    enum verdict verdict;
    uint32_t threads;        /* started, to be joined */
    struct ag_shard shard[]; /* config.count of them */
};

static bool cores_read(struct core_set *out)
{
    memset(out, 0, sizeof(*out));
    return sched_getaffinity(0, sizeof(*out), out->sets) == 0;
}

uint32_t ag_cores_available(void)
{
    struct core_set cores;
    int n = cores_read(&cores) ? CPU_COUNT_S(sizeof(cores), cores.sets) : 0;

    return n > 0 ? (uint32_t)n : 1;
}

/* The `index`th core of this process's mask, or -1. */
static int core_at(uint32_t index)
{
    struct core_set cores;

    if (!cores_read(&cores)) {
        return -1;
    }
    for (unsigned core = 0; core < CORES_MAX; core++) {
        if (CPU_ISSET_S(core, sizeof(cores), cores.sets) && index-- == 0) {
            return (int)core;
        }
    }
    return -1;
}

/* Before anything is mapped or touched, so that the shard's memory is near its core. */
static void pin(struct ag_shard *s)
{
    struct core_set cores = {0};

    if (s->core >= 0) {
        CPU_SET_S((unsigned)s->core, sizeof(cores), cores.sets);
        if (pthread_setaffinity_np(pthread_self(), sizeof(cores), cores.sets) != 0) {
            s->core = -1; /* the core went away: slower, not wrong */
        }
    }
}

/* Tells how the start went and waits for the others. */
static enum verdict await_verdict(struct ag_shard *s)
{
    struct ag_shards *all = s->all;

    (void)pthread_mutex_lock(&all->lock);
    all->up++;
    (void)pthread_cond_broadcast(&all->change);
    while (all->verdict == VERDICT_WAIT) {
        (void)pthread_cond_wait(&all->change, &all->lock);
    }
    enum verdict v = all->verdict;
    (void)pthread_mutex_unlock(&all->lock);
    return v;
}

static void poster_gone(struct ag_shards *all)
{
    AG_ASSERT(all->posters > 0);
    all->posters--;
    (void)pthread_cond_broadcast(&all->change);
}

/* Whoever may post to a loop touches it until its call returns, also after the message has arrived and
 * ended that loop. So no loop goes before all have stopped and their owner waits to join them. */
static void await_posters(struct ag_shards *all)
{
    (void)pthread_mutex_lock(&all->lock);
    poster_gone(all);
    while (all->posters > 0) {
        (void)pthread_cond_wait(&all->change, &all->lock);
    }
    (void)pthread_mutex_unlock(&all->lock);
}

static void *shard_main(void *arg)
{
    struct ag_shard *s = arg;
    const struct ag_shards_config *c = &s->all->config;
    bool looped = false, started = false;
    char name[16];

    /* By the thread itself: from outside it takes a file of /proc, which may be forbidden. */
    (void)snprintf(name, sizeof(name), "shard-%u", s->index);
    (void)pthread_setname_np(pthread_self(), name);
    pin(s);
    s->status = ag_loop_init(&s->loop, &c->loop, &s->why);
    if (s->status == AG_OK) {
        looped = true;
        s->loop.user = s;
        s->status = c->start ? c->start(s, c->arg, &s->why) : AG_OK;
        started = s->status == AG_OK;
    }
    if (await_verdict(s) == VERDICT_RUN) {
        ag_loop_run(&s->loop);
    }
    if (started && c->stop) {
        c->stop(s, c->arg);
    }
    await_posters(s->all);
    if (looped) {
        if (s->loop.helpers) {
            ag_helpers_settle(s->loop.helpers);
        }
        ag_loop_deinit(&s->loop);
    }
    return NULL;
}

static bool spawn(struct ag_shard *s)
{
    sigset_t set, old;

    /* Signals are the control thread's; those that a fault raises stay with the faulting thread. */
    (void)sigfillset(&set);
    (void)sigdelset(&set, SIGSEGV);
    (void)sigdelset(&set, SIGBUS);
    (void)sigdelset(&set, SIGFPE);
    (void)sigdelset(&set, SIGILL);
    (void)sigdelset(&set, SIGABRT);
    (void)sigdelset(&set, SIGTRAP);
    (void)pthread_sigmask(SIG_SETMASK, &set, &old);
    int rc = AG_FAULT("thread.shard") ? EAGAIN : pthread_create(&s->thread, NULL, shard_main, s);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    return rc == 0;
}

static void release(struct ag_shards *all)
{
    (void)pthread_mutex_lock(&all->lock);
    poster_gone(all);
    (void)pthread_mutex_unlock(&all->lock);
    for (uint32_t i = 0; i < all->threads; i++) {
        int rc = pthread_join(all->shard[i].thread, NULL);

        AG_ASSERT(rc == 0);
    }
    (void)pthread_cond_destroy(&all->change);
    (void)pthread_mutex_destroy(&all->lock);
    free(all);
}

/* Waits until every thread has come up or failed, and gives the verdict. A failure's reason is copied
 * while its thread, which may own the text, still lives. */
static bool await_all_up(struct ag_shards *all, const char **out_why)
{
    const struct ag_shards_config *c = &all->config;
    static _Thread_local char text[200];
    bool good = all->threads == all->config.count;

    (void)pthread_mutex_lock(&all->lock);
    while (all->up < all->threads) {
        (void)pthread_cond_wait(&all->change, &all->lock);
    }
    if (!good) {
        *out_why = "the system gives no more threads";
    }
    for (uint32_t i = 0; i < all->threads && good; i++) {
        const struct ag_shard *s = &all->shard[i];

        if (s->status != AG_OK) {
            (void)snprintf(text, sizeof(text), "shard %u: %s", i, s->why ? s->why : "start failed");
            *out_why = text;
            good = false;
        }
    }
    good = good && (!c->ready || c->ready(c->arg, out_why) == AG_OK);
    all->verdict = good ? VERDICT_RUN : VERDICT_END;
    (void)pthread_cond_broadcast(&all->change);
    (void)pthread_mutex_unlock(&all->lock);
    return good;
}

struct ag_shards *ag_shards_start(const struct ag_shards_config *config, const char **out_why)
{
    _Static_assert(_Alignof(struct ag_shard) <= 16, "malloc's alignment is enough");
    size_t bytes = sizeof(struct ag_shards) + config->count * sizeof(struct ag_shard);
    bool pinned = ag_cores_available() >= config->count;

    AG_ASSERT(config->count > 0);
    struct ag_shards *all = AG_SYS_NULL("calloc.shards", calloc(1, bytes));
    if (!all) {
        *out_why = "no memory for the shards";
        return NULL;
    }
    all->config = *config;
    (void)pthread_mutex_init(&all->lock, NULL);
    (void)pthread_cond_init(&all->change, NULL);
    all->posters = config->count + 1;
    for (uint32_t i = 0; i < config->count; i++) {
        struct ag_shard *s = &all->shard[i];

        s->index = i;
        s->core = pinned ? core_at(i) : -1;
        s->all = all;
        if (!spawn(s)) {
            break;
        }
        all->threads++;
    }
    (void)pthread_mutex_lock(&all->lock);
    all->posters -= config->count - all->threads;
    (void)pthread_mutex_unlock(&all->lock);
    if (!await_all_up(all, out_why)) {
        release(all);
        return NULL;
    }
    return all;
}

uint32_t ag_shards_count(const struct ag_shards *s)
{
    return s->config.count;
}

struct ag_shard *ag_shards_at(struct ag_shards *s, uint32_t index)
{
    AG_ASSERT(index < s->config.count);
    return &s->shard[index];
}

void ag_shards_join(struct ag_shards *s)
{
    release(s);
}
