/*
 * sim: runs seeds [--from, --from + --count) on --jobs processes.
 *
 *   sim --seed N [--verbose]     one run, told
 *   sim --count N [--from M] [--jobs N] [--twice] [--failures N]
 *
 * Prints each seed that fails with the command that runs it again, what it is at every ten seconds, and at
 * the end a line of figures; the exit code is 0 when none failed. The figures' trace is made of the runs'
 * traces in any order: the same seeds give the same one, however they were spread over processes. --twice
 * runs each seed two times, of which the traces must be equal.
 */
#include "tests/sim/run.h"

#include "engine/log.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define JOBS_MAX 64u
/* Processor time that no run takes: it hangs within one turn. */
#define HANG_S 60
/* Between two lines of what has been done so far. */
#define TELL_S 10

struct options {
    const char *program;
    uint64_t from, count, jobs, failures;
    bool one, verbose, twice;
};

/* Shared by all processes. */
struct progress {
    _Atomic uint64_t next;         /* the first seed that nobody has taken */
    _Atomic uint64_t at[JOBS_MAX]; /* the seed each worker is at */
    _Atomic uint64_t passed;       /* seeds */
    _Atomic uint64_t requests, turns, events, virtual_s, trace;
};

static struct sim sim;
static struct run run;
static char epitaph[64]; /* what is to be said when the server ends this process */

/* ---- one process ---- */

static void run_one(const struct options *o, uint64_t seed, struct progress *p)
{
    const struct itimerval hang = {.it_value = {.tv_sec = HANG_S}};
    uint64_t trace;

    (void)snprintf(epitaph, sizeof(epitaph), "sim: seed %" PRIu64 " ended by a signal\n", seed);
    AG_ASSERT(setitimer(ITIMER_VIRTUAL, &hang, NULL) == 0);
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
    atomic_fetch_add(&p->trace, trace);
}

/* A panic of the server's, or a loop without end, ends the process without telling the seed. */
static void on_signal(int sig)
{
    (void)!write(STDERR_FILENO, epitaph, strlen(epitaph));
    (void)signal(sig, SIG_DFL);
    (void)raise(sig);
}

static void work(const struct options *o, uint64_t worker, struct progress *p)
{
    static const int signals[] = {SIGABRT, SIGSEGV, SIGBUS, SIGILL, SIGVTALRM};

    for (size_t i = 0; i < AG_COUNT(signals); i++) {
        (void)signal(signals[i], on_signal);
    }
    (void)signal(SIGALRM, SIG_DFL);
    sim_init(&sim);
    for (;;) {
        uint64_t seed = atomic_fetch_add(&p->next, 1);

        if (seed >= o->from + o->count) {
            break;
        }
        atomic_store(&p->at[worker], seed);
        run_one(o, seed, p);
    }
    sim_deinit(&sim);
}

/* ---- all of them ---- */

static pid_t spawn(const struct options *o, uint64_t worker, struct progress *p)
{
    pid_t pid;

    (void)fflush(stdout);
    pid = fork();
    AG_ASSERT(pid >= 0);
    if (pid == 0) {
        work(o, worker, p);
        exit(0); /* NOLINT(concurrency-mt-unsafe): sanitizers look for leaks then */
    }
    return pid;
}

static double seconds_since(const struct timespec *start)
{
    struct timespec now;

    AG_ASSERT(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
    return (double)(now.tv_sec - start->tv_sec) + (double)(now.tv_nsec - start->tv_nsec) / 1e9;
}

static void tell(const struct options *o, const struct progress *p, uint64_t failed,
                 const struct timespec *start)
{
    uint64_t done = atomic_load(&p->passed) + failed;
    double rate = (double)done / seconds_since(start);

    (void)fprintf(stderr,
                  "sim: %" PRIu64 " of %" PRIu64 " seeds, %" PRIu64 " failed; %.0f a second; %.0f "
                  "s to go\n",
                  done, o->count, failed, rate, rate > 0 ? (double)(o->count - done) / rate : 0.0);
}

/* A signal between two waits would be lost to the line it asks for: the next one comes. */
static void on_alarm(int sig)
{
    (void)sig;
}

static void stop_all(const pid_t *pids, uint64_t jobs)
{
    for (uint64_t i = 0; i < jobs; i++) {
        if (pids[i] > 0) {
            (void)kill(pids[i], SIGTERM);
        }
    }
    while (wait(NULL) > 0 || errno == EINTR) {
    }
}

/* Starts a worker again behind a seed that failed, until there are too many. */
static uint64_t run_all(const struct options *o, struct progress *p, const struct timespec *start)
{
    pid_t pids[JOBS_MAX] = {0};
    uint64_t failed = 0, running = o->jobs;

    for (uint64_t i = 0; i < o->jobs; i++) {
        pids[i] = spawn(o, i, p);
    }
    while (running > 0) {
        int status = 0;
        pid_t pid = wait(&status);
        uint64_t i = 0;

        if (pid < 0) {
            AG_ASSERT(errno == EINTR);
            tell(o, p, failed, start);
            continue;
        }
        while (pids[i] != pid) {
            AG_ASSERT(++i < o->jobs);
        }
        pids[i] = 0;
        if (status == 0) {
            running--;
            continue;
        }
        failed++;
        (void)fprintf(stderr,
                      "sim: FAIL seed %" PRIu64 "; again: %s --seed %" PRIu64 " --verbose\n",
                      atomic_load(&p->at[i]), o->program, atomic_load(&p->at[i]));
        if (failed >= o->failures) {
            stop_all(pids, o->jobs);
            break;
        }
        pids[i] = spawn(o, i, p);
    }
    return failed;
}

static int summarize(const struct options *o, const struct progress *p, uint64_t failed, double s)
{
    uint64_t passed = atomic_load(&p->passed);

    (void)printf("sim: seeds %" PRIu64 " to %" PRIu64 ": %" PRIu64 " passed, %" PRIu64
                 " failed; %.0f a second; %" PRIu64 " requests, %" PRIu64 " turns, %" PRIu64
                 " events, %" PRIu64 " simulated hours; trace %016" PRIx64 "\n",
                 o->from, o->from + o->count - 1, passed, failed, (double)passed / s,
                 atomic_load(&p->requests), atomic_load(&p->turns), atomic_load(&p->events),
                 atomic_load(&p->virtual_s) / 3600, atomic_load(&p->trace));
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

    *o = (struct options){.program = argv[0], .from = 1, .count = 1000, .jobs = 1, .failures = 1};
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
    const struct itimerval every = {{.tv_sec = TELL_S}, {.tv_sec = TELL_S}};
    const struct sigaction alarm = {.sa_handler = on_alarm}; /* wait() is to be interrupted */
    struct options o;
    struct progress *p;
    struct timespec start;
    enum ag_status tls;
    uint64_t failed;

    parse(argc, argv, &o);
    ag_log_set_level(AG_LOG_ERROR);
    tls = ag_tls_library_init();
    AG_ASSERT(tls == (AG_WOLFSSL ? AG_OK : AG_ESYS));
    AG_ASSERT(clock_gettime(CLOCK_MONOTONIC, &start) == 0);
    p = mmap(NULL, sizeof(*p), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    AG_ASSERT(p != MAP_FAILED);
    atomic_store(&p->next, o.from);
    AG_ASSERT(sigaction(SIGALRM, &alarm, NULL) == 0 && setitimer(ITIMER_REAL, &every, NULL) == 0);
    site_init();
    failed = run_all(&o, p, &start);
    site_deinit();
    return summarize(&o, p, failed, seconds_since(&start));
}
