/*
 * criterion.h: the few words of Criterion that our unit tests use, for ThreadSanitizer builds alone:
 * Criterion's sandbox maps memory where TSan's shadow lies and ends at once. Found before the true
 * header by -Itests/tsan. Each test runs in a process of its own here too.
 */
#pragma once
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

struct tsan_test {
    const char *suite, *name;
    void (*run)(void);
    void (*init)(void);
    void (*fini)(void);
    int signal; /* that must end it; 0: none */
    double timeout;
    bool disabled;
    struct tsan_test *next;
};

static struct tsan_test *tsan_tests, *tsan_suites;
static bool tsan_failed;

static inline void tsan_check(bool good, bool fatal, const char *what, const char *file, int line)
{
    if (!good) {
        (void)fprintf(stderr, "%s:%d: failed: %s\n", file, line, what);
        tsan_failed = true;
        if (fatal) {
            exit(1);
        }
    }
}

#define TSAN_REGISTER(list, s, n, fn, ...)                            \
    static __attribute__((constructor)) void tsan_add_##s##_##n(void) \
    {                                                                 \
        static struct tsan_test t = {__VA_ARGS__};                    \
        t.suite = #s;                                                 \
        t.name = #n;                                                  \
        t.run = fn;                                                   \
        t.next = list;                                                \
        list = &t;                                                    \
    }
#define Test(s, n, ...)                                                          \
    static void s##_##n##_impl(void);                                            \
    TSAN_REGISTER(tsan_tests, s, n, s##_##n##_impl, .next = NULL, ##__VA_ARGS__) \
    static void s##_##n##_impl(void)
#define TestSuite(s, ...) TSAN_REGISTER(tsan_suites, s, suite, NULL, .next = NULL, ##__VA_ARGS__)

#define cr_assert(cond, ...)           tsan_check(cond, true, #cond, __FILE__, __LINE__)
#define cr_expect(cond, ...)           tsan_check(cond, false, #cond, __FILE__, __LINE__)
#define cr_assert_not(cond, ...)       cr_assert(!(cond))
#define cr_expect_not(cond, ...)       cr_expect(!(cond))
#define cr_assert_eq(a, b, ...)        cr_assert((a) == (b))
#define cr_expect_eq(a, b, ...)        cr_expect((a) == (b))
#define cr_assert_neq(a, b, ...)       cr_assert((a) != (b))
#define cr_expect_neq(a, b, ...)       cr_expect((a) != (b))
#define cr_assert_lt(a, b, ...)        cr_assert((a) < (b))
#define cr_expect_lt(a, b, ...)        cr_expect((a) < (b))
#define cr_assert_leq(a, b, ...)       cr_assert((a) <= (b))
#define cr_expect_leq(a, b, ...)       cr_expect((a) <= (b))
#define cr_assert_gt(a, b, ...)        cr_assert((a) > (b))
#define cr_expect_gt(a, b, ...)        cr_expect((a) > (b))
#define cr_assert_geq(a, b, ...)       cr_assert((a) >= (b))
#define cr_expect_geq(a, b, ...)       cr_expect((a) >= (b))
#define cr_assert_null(p, ...)         cr_assert((p) == NULL)
#define cr_expect_null(p, ...)         cr_expect((p) == NULL)
#define cr_assert_not_null(p, ...)     cr_assert((p) != NULL)
#define cr_expect_not_null(p, ...)     cr_expect((p) != NULL)
#define cr_assert_str_eq(a, b, ...)    cr_assert(strcmp((a), (b)) == 0)
#define cr_expect_str_eq(a, b, ...)    cr_expect(strcmp((a), (b)) == 0)
#define cr_assert_arr_eq(a, b, n, ...) cr_assert(memcmp((a), (b), (n)) == 0)
#define cr_expect_arr_eq(a, b, n, ...) cr_expect(memcmp((a), (b), (n)) == 0)
#define cr_assert_fail(...)            cr_assert(false)
#define cr_fail(...)                   cr_expect(false)
#define cr_skip_test(...)              exit(tsan_failed)
#define cr_log_info(...)               (void)0

static inline void tsan_run_test(const struct tsan_test *t, const struct tsan_test *suite)
{
    void (*init)(void) = t->init ? t->init : suite ? suite->init : NULL;
    void (*fini)(void) = t->fini ? t->fini : suite ? suite->fini : NULL;

    if (init) {
        init();
    }
    t->run();
    if (fini) {
        fini();
    }
    exit(tsan_failed); /* TSan may turn it into its own exit code */
}

int main(void)
{
    int failed = 0, count = 0;

    for (const struct tsan_test *t = tsan_tests; t; t = t->next) {
        const struct tsan_test *suite = tsan_suites;
        int status = 0;

        while (suite && strcmp(suite->suite, t->suite) != 0) {
            suite = suite->next;
        }
        if (t->disabled) {
            continue;
        }
        count++;
        (void)fflush(NULL);
        pid_t pid = fork();
        if (pid == 0) {
            tsan_run_test(t, suite);
        }
        if (pid < 0 || waitpid(pid, &status, 0) != pid) {
            perror("fork");
            return 1;
        }
        if (t->signal ? !(WIFSIGNALED(status) && WTERMSIG(status) == t->signal) : status != 0) {
            (void)fprintf(stderr, "[FAIL] %s::%s (status %d)\n", t->suite, t->name, status);
            failed++;
        }
    }
    (void)fprintf(stderr, "[====] Tested: %d | Failing: %d\n", count, failed);
    return failed != 0;
}
