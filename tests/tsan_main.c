/*
 * tsan_main: runs a Criterion test binary under ThreadSanitizer.
 *
 * Criterion's own runner maps memory where TSan keeps its shadow and stops at start (Criterion
 * issue 274). This one replaces it in MODE=tsan alone: same tests, same assertions, same closing
 * line; each test in a child of its own, so that a crash or a race ends only that test.
 *
 * Criterion leaves a pointer to each test in section cr_tst and to each suite in cr_sts; the
 * linker gives their bounds. Functions below without a prototype here replace the library's.
 */
#include "engine/base.h"

#include <criterion/criterion.h>
#include <criterion/event.h>
#include <criterion/parameterized.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#define TEST_TIMEOUT_S 120u
#define EXIT_FAILED    99
#define EXIT_SKIPPED   77

extern struct criterion_test *const __start_cr_tst[];
extern struct criterion_test *const __stop_cr_tst[];
extern struct criterion_suite *const __start_cr_sts[] __attribute__((weak));
extern struct criterion_suite *const __stop_cr_sts[] __attribute__((weak));

const char *__tsan_default_options(void);

static const struct criterion_test *current;
static void *parameter;
static bool failed;

/* Signals that a test expects must reach it; a race ends the child with TSan's exit code, 66. */
const char *__tsan_default_options(void)
{
    return "halt_on_error=1:second_deadlock_stack=1:"
           "handle_segv=0:handle_sigbus=0:handle_abort=0:handle_sigill=0:handle_sigfpe=0";
}

void criterion_send_assert(struct criterion_assert_stats *stats)
{
    if (!stats->passed) {
        failed = true;
        (void)fprintf(stderr, "%s:%u: %s/%s: %s\n", stats->file, stats->line, current->category,
                      current->name, stats->message ? stats->message : "assertion failed");
    }
}

void criterion_abort_test(void)
{
    exit(EXIT_FAILED);
}

void criterion_continue_test(void)
{
}

void criterion_skip_test(const char *format, ...)
{
    (void)format;
    exit(EXIT_SKIPPED);
}

void criterion_test_die(const char *msg, ...)
{
    (void)fprintf(stderr, "%s\n", msg);
    exit(EXIT_FAILED);
}

void cri_asserts_passed_incr(void)
{
}

static const struct criterion_test_extra_data *suite_of(const struct criterion_test *test)
{
    for (struct criterion_suite *const *s = __start_cr_sts; s != __stop_cr_sts; s++) {
        if (*s && strcmp((*s)->name, test->category) == 0) {
            return (*s)->data;
        }
    }
    return NULL;
}

static void call(void (*fn)(void))
{
    if (fn) {
        fn();
    }
}

void criterion_internal_test_setup(void)
{
    const struct criterion_test_extra_data *suite = suite_of(current);

    call(suite ? suite->init : NULL);
    call(current->data->init);
}

void criterion_internal_test_main(void (*fn)(void))
{
    if (parameter) {
        ((void (*)(void *))fn)(parameter);
    } else {
        fn();
    }
}

void criterion_internal_test_teardown(void)
{
    const struct criterion_test_extra_data *suite = suite_of(current);

    call(current->data->fini);
    call(suite ? suite->fini : NULL);
}

/* True when `status` is the end that the test, or else its suite, declares. */
static bool as_expected(const struct criterion_test *test, int status)
{
    const struct criterion_test_extra_data *suite = suite_of(test);
    int signal_no = test->data->signal;
    int exit_code = test->data->exit_code;

    if (signal_no == 0 && suite) {
        signal_no = suite->signal;
    }
    if (exit_code == 0 && suite) {
        exit_code = suite->exit_code;
    }
    if (WIFSIGNALED(status)) {
        return WTERMSIG(status) == signal_no;
    }
    return signal_no == 0 && WIFEXITED(status) &&
           (WEXITSTATUS(status) == exit_code || WEXITSTATUS(status) == EXIT_SKIPPED);
}

static bool run(const struct criterion_test *test, void *param)
{
    int status = 0;
    pid_t pid;

    (void)fflush(NULL);
    pid = fork();
    if (pid == 0) {
        (void)alarm(TEST_TIMEOUT_S);
        current = test;
        parameter = param;
        test->test();
        exit(failed ? EXIT_FAILED : 0);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid) {
        perror("tsan_main");
        return false;
    }
    if (!as_expected(test, status)) {
        (void)fprintf(stderr, "[FAIL] %s/%s: wait status 0x%x\n", test->category, test->name,
                      (unsigned)status);
        return false;
    }
    return true;
}

static bool disabled(const struct criterion_test *test)
{
    const struct criterion_test_extra_data *suite = suite_of(test);

    return test->data->disabled || (suite && suite->disabled);
}

int main(void)
{
    size_t tested = 0;
    size_t passing = 0;

    for (struct criterion_test *const *t = __start_cr_tst; t != __stop_cr_tst; t++) {
        struct criterion_test_params params = {.length = 1};

        if (!*t || disabled(*t)) {
            continue;
        }
        if ((*t)->data->param_) {
            params = (*t)->data->param_();
        }
        for (size_t i = 0; i < params.length; i++) {
            void *param = params.params ? (char *)params.params + i * params.size : NULL;

            tested++;
            passing += run(*t, param);
        }
    }
    (void)fprintf(stderr,
                  "[====] Synthesis: Tested: %zu | Passing: %zu | Failing: %zu | Crashing: 0\n",
                  tested, passing, tested - passing);
    return tested == passing ? 0 : 1;
}
