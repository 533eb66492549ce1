/*
 * Goal: each job runs once on a helper and comes back once on its own loop; a full queue says so.
 */
#include "engine/helper.h"

#include <criterion/criterion.h>
#include <pthread.h>

#define JOBS 200u

struct work {
    struct ag_job job;
    pthread_t ran_on;
    uint64_t n, square;
    bool done;
};

static struct ag_loop loop;
static struct work works[JOBS];
static unsigned done_count;

static void setup(void)
{
    const struct ag_loop_config config = {.backend = AG_BACKEND_EPOLL, .buf_count = {64, 8}};
    const char *why = NULL;

    cr_assert_eq(ag_loop_init(&loop, &config, &why), AG_OK, "%s", why);
    done_count = 0;
}

static void teardown(void)
{
    ag_loop_deinit(&loop);
}

TestSuite(helper, .init = setup, .fini = teardown);

static void square(struct ag_job *j)
{
    struct work *w = ag_container_of(j, struct work, job);

    w->ran_on = pthread_self();
    w->square = w->n * w->n;
}

static void squared(struct ag_job *j)
{
    struct work *w = ag_container_of(j, struct work, job);

    cr_assert_not(w->done);
    cr_assert_not(pthread_equal(w->ran_on, pthread_self()));
    cr_assert_eq(w->square, w->n * w->n);
    w->done = true;
    done_count++;
}

static struct ag_job *job_of(uint64_t n)
{
    struct work *w = &works[n];

    *w = (struct work){.n = n, .job = {.run = square, .done = squared}};
    return &w->job;
}

Test(helper, every_job_comes_back)
{
    struct ag_helpers *h = ag_helpers_new(3, JOBS);

    cr_assert(h);
    for (unsigned i = 0; i < JOBS; i++) {
        cr_assert_eq(ag_helpers_submit(h, &loop, job_of(i)), AG_OK);
    }
    while (done_count < JOBS) {
        ag_loop_turn(&loop, UINT32_MAX);
    }
    ag_helpers_free(h);
    ag_helpers_free(NULL);
}

Test(helper, queued_jobs_are_run_at_the_end)
{
    struct ag_helpers *h = ag_helpers_new(1, JOBS);

    cr_assert(h);
    for (unsigned i = 0; i < 50; i++) {
        cr_assert_eq(ag_helpers_submit(h, &loop, job_of(i)), AG_OK);
    }
    ag_helpers_free(h);
    while (done_count < 50) {
        ag_loop_turn(&loop, UINT32_MAX);
    }
}

Test(helper, settled_means_that_nothing_is_under_way)
{
    struct ag_helpers *h = ag_helpers_new(3, JOBS);

    cr_assert(h);
    ag_helpers_settle(h);
    for (unsigned i = 0; i < JOBS; i++) {
        cr_assert_eq(ag_helpers_submit(h, &loop, job_of(i)), AG_OK);
    }
    ag_helpers_settle(h);
    for (unsigned i = 0; i < JOBS; i++) {
        cr_assert_eq(works[i].square, (uint64_t)i * i);
    }
    ag_loop_turn(&loop, 0);
    cr_expect_eq(done_count, JOBS, "all have been posted");
    ag_helpers_free(h);
}

struct gate {
    struct ag_job job;
    pthread_barrier_t entered, leave;
    bool done;
};

static void hold(struct ag_job *j)
{
    struct gate *g = ag_container_of(j, struct gate, job);

    (void)pthread_barrier_wait(&g->entered);
    (void)pthread_barrier_wait(&g->leave);
}

static void held(struct ag_job *j)
{
    ag_container_of(j, struct gate, job)->done = true;
}

Test(helper, a_full_queue_is_a_value)
{
    struct gate g = {.job = {.run = hold, .done = held}};
    struct ag_helpers *h = ag_helpers_new(1, 2);

    cr_assert(h);
    cr_assert_eq(pthread_barrier_init(&g.entered, NULL, 2), 0);
    cr_assert_eq(pthread_barrier_init(&g.leave, NULL, 2), 0);
    cr_assert_eq(ag_helpers_submit(h, &loop, &g.job), AG_OK);
    (void)pthread_barrier_wait(&g.entered); /* the one thread is busy, the queue empty */
    cr_expect_eq(ag_helpers_submit(h, &loop, job_of(0)), AG_OK);
    cr_expect_eq(ag_helpers_submit(h, &loop, job_of(1)), AG_OK);
    cr_expect_eq(ag_helpers_submit(h, &loop, job_of(2)), AG_ELIMIT);
    (void)pthread_barrier_wait(&g.leave);
    while (!g.done || done_count < 2) {
        ag_loop_turn(&loop, UINT32_MAX);
    }
    cr_expect_not(works[2].done, "a refused job is never called");
    cr_expect_eq(ag_helpers_submit(h, &loop, job_of(3)), AG_OK, "and there is room again");
    ag_helpers_free(h);
    while (!works[3].done) {
        ag_loop_turn(&loop, UINT32_MAX);
    }
    cr_expect_eq(pthread_barrier_destroy(&g.entered), 0);
    cr_expect_eq(pthread_barrier_destroy(&g.leave), 0);
}
