#include "engine/helper.h"

#include "engine/fault.h"

#include <pthread.h>
#include <signal.h>

struct ag_helpers {
    pthread_mutex_t lock; /* what is below; held for a few instructions at a time */
    pthread_cond_t wake;  /* a job came, or stop */
    pthread_cond_t idle;  /* nothing is queued and no thread is busy */
    struct ag_link queue; /* struct ag_job, oldest first */
    uint32_t queued, queue_max;
    uint32_t busy; /* threads with a job, until it is posted */
    bool stop;
    uint32_t thread_count;
    pthread_t threads[];
};

static void deliver(struct ag_loop *l, struct ag_msg *m)
{
    struct ag_job *j = ag_container_of(m, struct ag_job, msg);

    AG_ASSERT(j->loop == l);
    j->done(j);
}

/* Waits for a job; NULL: stop. `was_busy`: the thread comes back from one. */
static struct ag_job *next_job(struct ag_helpers *h, bool was_busy)
{
    (void)pthread_mutex_lock(&h->lock);
    if (was_busy && --h->busy == 0 && h->queued == 0) {
        (void)pthread_cond_broadcast(&h->idle);
    }
    while (ag_list_empty(&h->queue) && !h->stop) {
        (void)pthread_cond_wait(&h->wake, &h->lock);
    }
    struct ag_link *l = ag_list_pop(&h->queue);
    if (l) {
        h->queued--;
        h->busy++;
    }
    (void)pthread_mutex_unlock(&h->lock);
    return l ? ag_container_of(l, struct ag_job, link) : NULL;
}

static void *helper_main(void *arg)
{
    struct ag_helpers *h = arg;

    (void)pthread_setname_np(pthread_self(), "helper");
    for (struct ag_job *j = next_job(h, false); j; j = next_job(h, true)) {
        j->run(j);
        /* From here on the job is its loop's again. */
        ag_loop_post(j->loop, &j->msg);
    }
    return NULL;
}

/* Ends and joins the threads that run. */
static void stop_threads(struct ag_helpers *h)
{
    (void)pthread_mutex_lock(&h->lock);
    h->stop = true;
    (void)pthread_cond_broadcast(&h->wake);
    (void)pthread_mutex_unlock(&h->lock);
    for (uint32_t i = 0; i < h->thread_count; i++) {
        int rc = pthread_join(h->threads[i], NULL);

        AG_ASSERT(rc == 0);
    }
}

struct ag_helpers *ag_helpers_new(uint32_t threads, uint32_t queue_max)
{
    sigset_t all, old;
    int rc = 0;

    AG_ASSERT(threads > 0 && queue_max > 0);
    struct ag_helpers *h =
        AG_SYS_NULL("calloc.helpers", calloc(1, sizeof(*h) + threads * sizeof(h->threads[0])));
    if (!h) {
        return NULL;
    }
    (void)pthread_mutex_init(&h->lock, NULL);
    (void)pthread_cond_init(&h->wake, NULL);
    (void)pthread_cond_init(&h->idle, NULL);
    ag_list_init(&h->queue);
    h->queue_max = queue_max;
    (void)sigfillset(&all); /* signals are the control thread's */
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    while (rc == 0 && h->thread_count < threads) {
        rc = AG_FAULT("thread.helper")
                 ? EAGAIN
                 : pthread_create(&h->threads[h->thread_count], NULL, helper_main, h);
        h->thread_count += rc == 0;
    }
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc != 0) {
        ag_helpers_free(h);
        return NULL;
    }
    return h;
}

void ag_helpers_free(struct ag_helpers *h)
{
    if (!h) {
        return;
    }
    stop_threads(h);
    AG_ASSERT(h->queued == 0 && h->busy == 0);
    (void)pthread_cond_destroy(&h->idle);
    (void)pthread_cond_destroy(&h->wake);
    (void)pthread_mutex_destroy(&h->lock);
    free(h);
}

enum ag_status ag_helpers_submit(struct ag_helpers *h, struct ag_loop *l, struct ag_job *j)
{
    enum ag_status st = AG_ELIMIT;

    AG_ASSERT(j->run && j->done);
    j->loop = l;
    j->msg.run = deliver;
    (void)pthread_mutex_lock(&h->lock);
    AG_ASSERT(!h->stop);
    if (h->queued < h->queue_max) {
        h->queued++;
        ag_list_init(&j->link);
        ag_list_push(&h->queue, &j->link);
        st = AG_OK;
    }
    (void)pthread_mutex_unlock(&h->lock);
    if (st == AG_OK) {
        (void)pthread_cond_signal(&h->wake);
    }
    return st;
}

void ag_helpers_settle(struct ag_helpers *h)
{
    (void)pthread_mutex_lock(&h->lock);
    while (h->queued > 0 || h->busy > 0) {
        (void)pthread_cond_wait(&h->idle, &h->lock);
    }
    (void)pthread_mutex_unlock(&h->lock);
}
