/*
 * sim: runs seeds [--from, --from + --count) on --jobs processes.
 *
 *   sim --seed N [--verbose]     one run, told
 *   sim --count N [--from M] [--jobs N] [--twice] [--failures N]
 *
 * Prints each seed that fails, then a line of figures; the exit code is 0 when none failed. --twice runs
 * each seed two times, of which the traces must be equal.
 */
#include "tests/sim/run.h"

#include "engine/log.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define JOBS_MAX 64u

struct options {
    uint64_t from, count, jobs, failures;
    bool one, verbose, twice;
};

/* What a worker is at; shared with its parent. */
struct progress {
    _Atomic uint64_t next;   /* the seed it runs, or will */
    _Atomic uint64_t passed; /* seeds */
    _Atomic uint64_t requests, turns, events, virtual_s;
};

static struct sim sim;
static struct run run;
static char epitaph[64]; /* what is to be said when the server ends this process */

/* ---- one process ---- */

static void run_one(const struct options *o, uint64_t seed, struct progress *p)
{
    uint64_t trace;

    (void)snprintf(epitaph, sizeof(epitaph), "sim: seed %" PRIu64 " ended by a signal\n", seed);
    trace = run_seed(&run, &sim, seed, o->verbose);

    if (o->one) {
        (void)printf("seed %" PRIu64 ": trace %016" PRIx64 ", %u requests, %" PRIu64
                     " turns, %" PRIu64 " events, %" PRIu64 " s\n",
                     seed, trace, run.request_count, run.turns, sim.events, sim.now_us / SIM_S);
    }
    if (o->twice && run_seed(&run, &sim, seed, false) != trace) {
        sim_fail(&sim, "a second run is another one");
    }
    atomic_fetch_add(&p->passed, 1);
    atomic_fetch_add(&p->requests, run.request_count);
    atomic_fetch_add(&p->turns, run.turns);
    atomic_fetch_add(&p->events, sim.events);
    atomic_fetch_add(&p->virtual_s, sim.now_us / SIM_S);
}

/* A panic of the server's ends the process without telling the seed. */
static void on_abort(int sig)
{
    (void)!write(STDERR_FILENO, epitaph, strlen(epitaph));
    (void)signal(sig, SIG_DFL);
    (void)raise(sig);
}

static void work(const struct options *o, uint64_t stride, struct progress *p)
{
    (void)signal(SIGABRT, on_abort);
    (void)signal(SIGSEGV, on_abort);
    (void)signal(SIGILL, on_abort);
    sim_init(&sim);
    while (atomic_load(&p->next) < o->from + o->count) {
        run_one(o, atomic_load(&p->next), p);
        atomic_fetch_add(&p->next, stride);
    }
    sim_deinit(&sim);
}

/* ---- all of them ---- */

static pid_t spawn(const struct options *o, struct progress *p)
{
    pid_t pid;

    (void)fflush(stdout);
    pid = fork();
    AG_ASSERT(pid >= 0);
    if (pid == 0) {
        work(o, o->jobs, p);
        exit(0); /* NOLINT(concurrency-mt-unsafe): sanitizers look for leaks then */
    }
    return pid;
}

/* Starts a worker again behind a seed that failed, until there are too many. */
static uint64_t run_all(const struct options *o, struct progress *each)
{
    pid_t pids[JOBS_MAX] = {0};
    uint64_t failed = 0, running = o->jobs;

    for (uint64_t i = 0; i < o->jobs; i++) {
        atomic_store(&each[i].next, o->from + i);
        pids[i] = spawn(o, &each[i]);
    }
    while (running > 0) {
        int status = 0;
        pid_t pid = wait(&status);
        uint64_t i = 0;

        AG_ASSERT(pid > 0);
        while (pids[i] != pid) {
            i++;
        }
        if (status == 0) {
            running--;
            continue;
        }
        failed++;
        (void)fprintf(stderr, "sim: FAIL seed %" PRIu64 "\n", atomic_load(&each[i].next));
        if (failed >= o->failures) {
            running--;
            pids[i] = -1;
            atomic_store(&each[i].next, UINT64_MAX / 2);
            for (uint64_t k = 0; k < o->jobs; k++) {
                if (pids[k] > 0) {
                    (void)kill(pids[k], SIGTERM);
                }
            }
            break;
        }
        atomic_fetch_add(&each[i].next, o->jobs);
        pids[i] = spawn(o, &each[i]);
    }
    while (wait(NULL) > 0) {
    }
    return failed;
}

static double seconds_since(const struct timespec *start)
{
    struct timespec now;

    AG_ASSERT(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
    return (double)(now.tv_sec - start->tv_sec) + (double)(now.tv_nsec - start->tv_nsec) / 1e9;
}

static int summarize(const struct options *o, const struct progress *each, uint64_t failed,
                     double s)
{
    uint64_t passed = 0, requests = 0, turns = 0, events = 0, virtual_s = 0;

    for (uint64_t i = 0; i < o->jobs; i++) {
        passed += atomic_load(&each[i].passed);
        requests += atomic_load(&each[i].requests);
        turns += atomic_load(&each[i].turns);
        events += atomic_load(&each[i].events);
        virtual_s += atomic_load(&each[i].virtual_s);
    }
    (void)printf("sim: %" PRIu64 " seeds passed, %" PRIu64 " failed; %.0f a second; %" PRIu64
                 " requests, %" PRIu64 " turns, %" PRIu64 " events, %" PRIu64 " simulated hours\n",
                 passed, failed, (double)passed / s, requests, turns, events, virtual_s / 3600);
    return failed || passed == 0;
}

static uint64_t number(const char *text)
{
    char *end;
    uint64_t n = strtoull(text, &end, 10);

    if (*end || end == text) {
        (void)fprintf(stderr, "sim: %s is no number\n", text);
        _exit(2);
    }
    return n;
}

static void parse(int argc, char **argv, struct options *o)
{
    static const struct option known[] = {{"seed", 1, NULL, 's'},     {"from", 1, NULL, 'f'},
                                          {"count", 1, NULL, 'c'},    {"jobs", 1, NULL, 'j'},
                                          {"twice", 0, NULL, 't'},    {"verbose", 0, NULL, 'v'},
                                          {"failures", 1, NULL, 'm'}, {0}};
    int c;

    *o = (struct options){.from = 1, .count = 1000, .jobs = 1, .failures = 1};
    while ((c = getopt_long(argc, argv, "", known, NULL)) !=
           -1) { /* NOLINT(concurrency-mt-unsafe) */
        if (c == 's' || c == 'f') {
            o->from = number(optarg);
            o->one = c == 's';
            o->count = c == 's' ? 1 : o->count;
        } else if (c == 'c') {
            o->count = number(optarg);
        } else if (c == 'j') {
            o->jobs = number(optarg);
        } else if (c == 'm') {
            o->failures = number(optarg);
        } else if (c == 't' || c == 'v') {
            o->twice |= c == 't';
            o->verbose |= c == 'v';
        } else {
            _exit(2);
        }
    }
    if (o->jobs == 0 || o->jobs > JOBS_MAX) {
        o->jobs = 1;
    }
}

int main(int argc, char **argv)
{
    struct options o;
    struct progress *each;
    struct timespec start;
    uint64_t failed;

    parse(argc, argv, &o);
    ag_log_set_level(AG_LOG_ERROR);
    AG_ASSERT(clock_gettime(CLOCK_MONOTONIC, &start) == 0);
    each = mmap(NULL, JOBS_MAX * sizeof(*each), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                -1, 0);
    AG_ASSERT(each != MAP_FAILED);
    site_init();
    failed = run_all(&o, each);
    site_deinit();
    return summarize(&o, each, failed, seconds_since(&start));
}
