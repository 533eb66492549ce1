/*
 * Goal: who asked for a reload learns how that one went, never how an earlier one did, and never half of
 * it.
 */
#include "tools/outcome.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

static char folder[64], path[128], text[64];
static struct ag_outcome outcome;
static struct ag_buf out;

static void setup(void)
{
    (void)snprintf(folder, sizeof(folder), "/tmp/anygate-outcome-XXXXXX");
    cr_assert_not_null(mkdtemp(folder));
    (void)snprintf(path, sizeof(path), "%s/x.pid", folder);
    out = ag_buf(text, sizeof(text));
    outcome.fd = -1;
    ag_outcome_open(&outcome, path);
    cr_assert_geq(outcome.fd, 0);
}

static void teardown(void)
{
    ag_outcome_close(&outcome);
    ag_outcome_remove(path);
    cr_expect_eq(rmdir(folder), 0, "something is left in %s", folder);
}

TestSuite(outcome, .init = setup, .fini = teardown);

static enum ag_status reading(uint64_t since, bool *out_applied)
{
    out.len = 0;
    out.overflow = false;
    return ag_outcome_read(path, since, out_applied, &out);
}

Test(outcome, only_of_a_reload_that_began_later)
{
    uint64_t before = ag_outcome_now_ns();
    bool applied = false;

    cr_assert_eq(reading(before, &applied), AG_AGAIN);
    ag_outcome_begin(&outcome);
    ag_outcome_say(&outcome, "%s:%d\n", "a.yml", 3);
    cr_assert_eq(reading(before, &applied), AG_AGAIN, "not yet whole");
    uint64_t during = ag_outcome_now_ns();
    ag_outcome_end(&outcome, true);
    cr_assert_eq(reading(before, &applied), AG_OK);
    cr_expect(applied);
    cr_expect(ag_span_eq(ag_buf_span(&out), AG_SPAN("a.yml:3\n")));
    cr_assert_eq(reading(outcome.began_ns, &applied), AG_OK);
    cr_assert_eq(reading(during, &applied), AG_AGAIN, "asked after it had read the files");

    ag_outcome_begin(&outcome);
    ag_outcome_end(&outcome, false);
    cr_assert_eq(reading(during, &applied), AG_OK);
    cr_expect_not(applied);
    cr_expect_eq(out.len, 0);
}

Test(outcome, a_long_text_is_cut)
{
    bool applied = false;

    ag_outcome_begin(&outcome);
    for (int i = 0; i < 64; i++) {
        ag_outcome_say(&outcome, "x");
    }
    ag_outcome_end(&outcome, true);
    cr_assert_eq(reading(0, &applied), AG_OK);
    cr_expect_eq(out.len, sizeof(text));
    cr_expect_not(out.overflow, "it fits");
    ag_outcome_begin(&outcome);
    for (int i = 0; i < 65; i++) {
        ag_outcome_say(&outcome, "x");
    }
    ag_outcome_end(&outcome, true);
    cr_assert_eq(reading(0, &applied), AG_OK);
    cr_expect_eq(out.len, sizeof(text));
    cr_expect(out.overflow);
}

Test(outcome, a_shorter_text_after_a_longer_one)
{
    bool applied = true;

    ag_outcome_begin(&outcome);
    ag_outcome_say(&outcome, "a long text");
    ag_outcome_end(&outcome, true);
    ag_outcome_begin(&outcome);
    ag_outcome_say(&outcome, "short");
    cr_assert_eq(reading(0, &applied), AG_AGAIN, "the one before is not told again");
    ag_outcome_end(&outcome, false);
    cr_assert_eq(reading(0, &applied), AG_OK);
    cr_expect(ag_span_eq(ag_buf_span(&out), AG_SPAN("short")));
    cr_expect_not(applied);
}

/* A link that somebody has put there is replaced. */
Test(outcome, a_link_is_not_followed)
{
    char file[160], target[128];
    bool applied = false;

    (void)snprintf(file, sizeof(file), "%s.reload", path);
    (void)snprintf(target, sizeof(target), "%s/precious", folder);
    ag_outcome_close(&outcome);
    cr_assert_eq(unlink(file), 0);
    cr_assert_eq(symlink(target, file), 0);
    ag_outcome_open(&outcome, path);
    ag_outcome_begin(&outcome);
    ag_outcome_end(&outcome, true);
    cr_assert_eq(reading(0, &applied), AG_OK);
    cr_expect_neq(access(target, F_OK), 0);
}

Test(outcome, what_is_something_else_stays)
{
    char name[160], read[16] = "";
    FILE *f;

    (void)snprintf(name, sizeof(name), "%s.reload", path);
    for (unsigned i = 0; i < 2; i++) {
        const char *precious = i ? "x" : "precious notes";

        ag_outcome_close(&outcome);
        f = fopen(name, "w");
        cr_assert(f && fputs(precious, f) >= 0 && fclose(f) == 0);
        ag_outcome_open(&outcome, path);
        cr_expect_lt(outcome.fd, 0);
        ag_outcome_remove(path);
        f = fopen(name, "r");
        cr_assert(f && fgets(read, sizeof(read), f) && fclose(f) == 0);
        cr_expect_str_eq(read, precious);
    }
    cr_assert_eq(unlink(name), 0);
}

Test(outcome, nowhere_to_write)
{
    char missing[128];
    bool applied;

    ag_outcome_open(&outcome, NULL);
    cr_expect_eq(outcome.fd, -1);
    ag_outcome_begin(&outcome);
    ag_outcome_say(&outcome, "x");
    ag_outcome_end(&outcome, true);
    (void)snprintf(missing, sizeof(missing), "%s/no/x.pid", folder);
    ag_outcome_open(&outcome, missing);
    cr_expect_eq(outcome.fd, -1);
    cr_expect_eq(ag_outcome_read(missing, 0, &applied, &out), AG_AGAIN);
}

Test(outcome, what_is_none)
{
    static const char *const texts[] = {"",
                                        "applied",
                                        "applied 12\n",
                                        "applied 0000000000000000001x 0000000000\n",
                                        "applied 00000000000000000012 000000000x\n",
                                        "applied 00000000000000000012 0000000005\nfour"};
    char file[160];
    bool applied;

    (void)snprintf(file, sizeof(file), "%s.reload", path);
    for (size_t i = 0; i < AG_COUNT(texts); i++) {
        FILE *f = fopen(file, "w");

        cr_assert_not_null(f);
        (void)fputs(texts[i], f);
        (void)fclose(f);
        cr_expect_eq(reading(0, &applied), AG_AGAIN, "row %zu", i);
    }
}

/* A successor may be up before who asked for the last reload has looked. */
Test(outcome, of_a_predecessor)
{
    struct ag_outcome successor = {.fd = -1};
    uint64_t before = ag_outcome_now_ns();
    bool applied = false;

    ag_outcome_begin(&outcome);
    ag_outcome_end(&outcome, true);
    ag_outcome_join(&successor, path);
    cr_assert_eq(reading(before, &applied), AG_OK);
    cr_expect(applied);
    ag_outcome_begin(&successor);
    ag_outcome_end(&successor, false);
    cr_assert_eq(reading(outcome.began_ns + 1, &applied), AG_OK);
    cr_expect_not(applied);
    ag_outcome_close(&successor);

    ag_outcome_remove(path); /* it has another pid file, or an older release replaces it */
    ag_outcome_join(&successor, path);
    cr_assert_geq(successor.fd, 0);
    cr_expect_eq(reading(0, &applied), AG_AGAIN);
    ag_outcome_close(&successor);
}

Test(outcome, of_a_predecessor_is_no_others_file)
{
    char name[160], other[160];
    struct ag_outcome successor = {.fd = -1};
    char byte = 0;

    (void)snprintf(name, sizeof(name), "%s.reload", path);
    (void)snprintf(other, sizeof(other), "%s/other", folder);
    ag_outcome_remove(path);
    int fd = open(other, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    cr_assert_geq(fd, 0);
    for (int hard = 0; hard < 2; hard++) {
        cr_assert_eq(hard ? link(other, name) : symlink(other, name), 0);
        ag_outcome_join(&successor, path);
        ag_outcome_begin(&successor);
        ag_outcome_end(&successor, true);
        cr_expect_eq(pread(fd, &byte, 1, 0), 0, "it was written through a link");
        ag_outcome_close(&successor);
        ag_outcome_remove(path);
    }
    (void)close(fd);
    cr_expect_eq(unlink(other), 0);
}
