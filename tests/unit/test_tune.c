/*
 * Goal: tune stays within its bounds whatever the files below its root hold or are.
 * Method: a root made for each test; tests/integration/test_tune.py has the table and the command.
 */
#include "tools/tune.h"

#include "tests/unit/folder.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static struct ag_tune tune;

static void make_root(void)
{
    folder_make();
    tune = (struct ag_tune){.root = folder};
}

TestSuite(tune, .init = make_root, .fini = folder_remove);

Test(tune, a_file_is_read_to_a_bound)
{
    char out[AG_TUNE_VALUE_MAX], text[2 * AG_TUNE_VALUE_MAX];

    memset(text, 'x', sizeof(text));
    folder_put("long", text, sizeof(text));
    cr_assert_eq(ag_tune_read(&tune, "/long", out), AG_OK);
    cr_expect_eq(strlen(out), AG_TUNE_VALUE_MAX - 1);
    folder_put("short", "4096 \n", 6);
    cr_assert_eq(ag_tune_read(&tune, "/short", out), AG_OK);
    cr_expect_str_eq(out, "4096");
    folder_put("empty", "", 0);
    cr_assert_eq(ag_tune_read(&tune, "/empty", out), AG_OK);
    cr_expect_str_eq(out, "");
    cr_expect_eq(ag_tune_read(&tune, "/none", out), AG_ENOENT);
    cr_expect_eq(ag_tune_read(&tune, "/short/none", out), AG_ENOENT);
    cr_expect_eq(ag_tune_read(&tune, "/", out), AG_ESYS);
}

Test(tune, a_path_has_a_bound)
{
    char path[2 * AG_TUNE_PATH_MAX], out[AG_TUNE_VALUE_MAX], whole[AG_TUNE_PATH_MAX];

    memset(path, '/', sizeof(path));
    path[sizeof(path) - 1] = '\0';
    cr_expect_not(ag_tune_path(&tune, path, whole));
    cr_expect_eq(ag_tune_read(&tune, path, out), AG_ENOENT);
}

Test(tune, results_have_a_bound)
{
    static const struct ag_tune_check check = {
        .name = "x", .want = AG_TUNE_WORDS, .words = "y", .why = "z"};
    char now[300];

    memset(now, 'n', sizeof(now));
    now[sizeof(now) - 1] = '\0';
    for (unsigned i = 0; i < AG_TUNE_RESULTS_MAX + 8; i++) {
        ag_tune_add(&tune, &check, now, AG_OK, now, true);
    }
    cr_expect_eq(tune.count, AG_TUNE_RESULTS_MAX);
    cr_expect_eq(strlen(tune.results[0].name), AG_TUNE_NAME_MAX - 1);
    cr_expect_eq(strlen(tune.results[0].now), AG_TUNE_TEXT_MAX - 1);
    cr_expect(ag_tune_is_good(&tune));
}

Test(tune, each_state_counts)
{
    static const struct {
        enum ag_tune_state state;
        bool good;
    } cases[] = {{AG_TUNE_GOOD, true},     {AG_TUNE_DIFFERS, false}, {AG_TUNE_ABSENT, true},
                 {AG_TUNE_UNKNOWN, false}, {AG_TUNE_SET, true},      {AG_TUNE_FAILED, false}};

    tune.count = 1;
    for (size_t i = 0; i < AG_COUNT(cases); i++) {
        tune.results[0].state = cases[i].state;
        cr_expect_eq(ag_tune_is_good(&tune), cases[i].good, "%s",
                     ag_tune_state_name(cases[i].state));
    }
}

Test(tune, an_empty_root_is_good)
{
    ag_tune_run(&tune, folder);
    ag_tune_apply(&tune);
    cr_expect_gt(tune.count, 20);
    for (size_t i = 0; i < tune.count; i++) {
        cr_expect_eq(tune.results[i].state, AG_TUNE_ABSENT, "%s", tune.results[i].name);
    }
}
