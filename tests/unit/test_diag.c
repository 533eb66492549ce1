/*
 * Goal: a mistake is shown where it is. Method: exact output for lines with tabs, wide and combining
 * characters, controls, and of great length; order; bounds; JSON.
 */
#include "engine/log.h"
#include "tests/unit/diag_util.h"

static void check(struct fixture *f, enum ag_diag_format format, bool colour, const char *want)
{
    char *got = printed(&f->diags, format, colour);

    cr_assert_str_eq(got, want);
    free(got);
}

/* One error at `line`:`col` of `text`; the output behind the first line. */
static void check_excerpt(const char *text, uint32_t line, uint32_t col, const char *want)
{
    struct fixture f;
    fixture_init(&f);
    struct ag_source src = {"t", ag_span_str(text)};

    ag_diag_error(&f.diags, (struct ag_pos){&src, line, col}, NULL, "x");
    char *got = printed(&f.diags, AG_DIAG_HUMAN, false);
    char *excerpt = strchr(got, '\n');
    cr_assert_not_null(excerpt);
    cr_assert_str_eq(excerpt + 1, want);
    free(got);
    fixture_deinit(&f);
}

Test(diag, prints_the_picture_of_the_header)
{
    struct fixture f;
    fixture_init(&f);
    struct ag_source src = {"anygate.yml", AG_SPAN_INIT("routes:\n  GET /x: FORBIDEN {\"a\":1}\n")};

    ag_diag_error(&f.diags, (struct ag_pos){&src, 2, 11}, "did you mean FORBIDDEN?",
                  "unknown status \"%s\"", "FORBIDEN");
    check(&f, AG_DIAG_HUMAN, false,
          "anygate.yml:2:11: error: unknown status \"FORBIDEN\"; hint: did you mean FORBIDDEN?\n"
          "    2 |   GET /x: FORBIDEN {\"a\":1}\n"
          "      |           ^\n");
    check(&f, AG_DIAG_HUMAN, true,
          "\033[1manygate.yml:2:11:\033[0m \033[1;31merror:\033[0m unknown status \"FORBIDEN\""
          "\033[36m; hint: did you mean FORBIDDEN?\033[0m\n"
          "    2 |   GET /x: FORBIDEN {\"a\":1}\n"
          "      |           \033[1;32m^\033[0m\n");
    check(&f, AG_DIAG_JSON, true,
          "{\"file\":\"anygate.yml\",\"line\":2,\"col\":11,\"severity\":\"error\","
          "\"what\":\"unknown status \\\"FORBIDEN\\\"\",\"hint\":\"did you mean FORBIDDEN?\"}\n");
    fixture_deinit(&f);
}

Test(diag, without_a_position)
{
    struct fixture f;
    fixture_init(&f);

    ag_diag_warn(&f.diags, (struct ag_pos){0}, NULL, "no routes");
    check(&f, AG_DIAG_HUMAN, false, "warning: no routes\n");
    check(&f, AG_DIAG_JSON, false,
          "{\"file\":null,\"line\":0,\"col\":0,\"severity\":\"warning\",\"what\":\"no routes\","
          "\"hint\":null}\n");
    cr_assert_eq(f.diags.warnings, 1);
    cr_assert_eq(f.diags.errors, 0);
    fixture_deinit(&f);
}

Test(diag, caret_stands_under_its_column)
{
    check_excerpt("abc", 1, 1, "    1 | abc\n      | ^\n");
    check_excerpt("abc\r\n", 1, 3, "    1 | abc\n      |   ^\n");
    /* Behind the end: one past the last character, however far. */
    check_excerpt("abc\n", 1, 4, "    1 | abc\n      |    ^\n");
    check_excerpt("abc\n", 1, 400, "    1 | abc\n      |    ^\n");
    check_excerpt("abc\n", 2, 1, "    2 | \n      | ^\n");
    check_excerpt("", 9, 1, "    9 | \n      | ^\n");
    check_excerpt("\tx: 1\n", 1, 2, "    1 |     x: 1\n      |     ^\n");
    check_excerpt("a\tx: 1\n", 1, 3, "    1 | a   x: 1\n      |     ^\n");
    /* Columns count bytes, carets count what is seen: one for ü, two for 中, none for U+0301. */
    check_excerpt("\xc3\xbc: x\n", 1, 5, "    1 | \xc3\xbc: x\n      |    ^\n");
    check_excerpt("\xe4\xb8\xad: x\n", 1, 6, "    1 | \xe4\xb8\xad: x\n      |     ^\n");
    check_excerpt("e\xcc\x81: x\n", 1, 6, "    1 | e\xcc\x81: x\n      |    ^\n");
    /* The middle of a character counts as its place. */
    check_excerpt("\xe4\xb8\xad: x\n", 1, 2, "    1 | \xe4\xb8\xad: x\n      | ^\n");
    /* Nothing reaches the terminal that would steer it. */
    check_excerpt("a\033[2Jb\xff\x7f", 1, 6, "    1 | a?[2Jb??\n      |      ^\n");
}

Test(diag, gutter_grows_with_the_line_number)
{
    char *text = malloc(123457);
    AG_ASSERT(text);

    memset(text, '\n', 123456);
    text[123455] = 'x';
    text[123456] = 0;
    check_excerpt(text, 123456, 1, "123456 | x\n       | ^\n");
    free(text);
}

Test(diag, long_lines_are_windowed)
{
    char line[1001], want[400];

    memset(line, 'a', 1000);
    line[1000] = 0;
    line[499] = 'X';
    (void)snprintf(want, sizeof(want), "    1 | ...%.60sX%.59s...\n      | %63s^\n", line, line,
                   "");
    check_excerpt(line, 1, 500, want);
    (void)snprintf(want, sizeof(want), "    1 | %.120s...\n      | %10s^\n", line, "");
    check_excerpt(line, 1, 11, want);
    (void)snprintf(want, sizeof(want), "    1 | ...%.60s\n      | %63s^\n", line, "");
    check_excerpt(line, 1, 1001, want);
}

Test(diag, sorted_by_source_then_position)
{
    struct fixture f;
    fixture_init(&f);
    struct ag_source a = {"a", AG_SPAN_INIT("")}, b = {"b", AG_SPAN_INIT("")};
    static const char *const order[] = {"none", "a1", "a2", "a2again", "a3", "b1", "b9"};

    ag_diag_error(&f.diags, (struct ag_pos){&a, 2, 1}, NULL, "a2");
    ag_diag_error(&f.diags, (struct ag_pos){&b, 9, 1}, NULL, "b9");
    ag_diag_error(&f.diags, (struct ag_pos){&a, 2, 7}, NULL, "a3");
    ag_diag_warn(&f.diags, (struct ag_pos){&a, 1, 8}, NULL, "a1");
    ag_diag_error(&f.diags, (struct ag_pos){0}, NULL, "none");
    ag_diag_error(&f.diags, (struct ag_pos){&b, 1, 1}, NULL, "b1");
    ag_diag_error(&f.diags, (struct ag_pos){&a, 2, 1}, NULL, "a2again");
    char *got = printed(&f.diags, AG_DIAG_JSON, false), *at = got;
    for (size_t i = 0; i < AG_COUNT(order); i++) {
        char want[32];
        (void)snprintf(want, sizeof(want), "\"what\":\"%s\"", order[i]);
        at = strstr(at, want);
        cr_assert_not_null(at, "%s is not in its place in\n%s", order[i], got);
    }
    free(got);
    fixture_deinit(&f);
}

Test(diag, counts_beyond_what_it_keeps)
{
    struct fixture f;
    fixture_init(&f);

    for (unsigned i = 0; i < AG_DIAGS_MAX + 36; i++) {
        ag_diag_warn(&f.diags, (struct ag_pos){0}, NULL, "w");
    }
    /* However many warnings there are, an error is still shown. */
    ag_diag_error(&f.diags, (struct ag_pos){0}, NULL, "the error");
    cr_assert_eq(f.diags.warnings, AG_DIAGS_MAX + 36);
    char *got = printed(&f.diags, AG_DIAG_HUMAN, false);
    cr_assert_not_null(strstr(got, "error: the error\n"));
    cr_assert_not_null(strstr(got, "warning: 36 more warnings are not shown\n"));
    size_t lines = 0;
    for (const char *c = got; *c; c++) {
        lines += *c == '\n';
    }
    cr_assert_eq(lines, AG_DIAGS_MAX + 2);
    free(got);
    fixture_deinit(&f);
}

Test(diag, the_log_gets_what_is_printed)
{
    struct fixture f;
    fixture_init(&f);
    static char name[3000]; /* longer than what is gathered at once */
    memset(name, 'x', sizeof(name) - 1);
    struct ag_source src = {.name = name, .text = AG_SPAN("server: {}\n")};
    int fd = memfd_create("log", MFD_CLOEXEC);

    cr_assert_geq(fd, 0);
    ag_diag_error(&f.diags, (struct ag_pos){&src, 1, 1}, "a hint", "an error");
    ag_diag_warn(&f.diags, (struct ag_pos){0}, NULL, "a warning");
    char *want = printed(&f.diags, AG_DIAG_HUMAN, true);
    ag_log_direct(fd, AG_LOG_ERROR, AG_LOG_JSON);
    ag_diags_log(&f.diags, true);
    char *got = calloc(1, strlen(want) + 2);
    cr_assert_not_null(got);
    cr_assert_eq(pread(fd, got, strlen(want) + 1, 0), (ssize_t)strlen(want));
    cr_assert_str_eq(got, want);
    free(want);
    free(got);
    close(fd);
    fixture_deinit(&f);
}

Test(diag, long_texts_are_cut_between_characters)
{
    struct fixture f;
    fixture_init(&f);
    char text[1200] = {0};

    for (size_t i = 0; i + 1 < sizeof(text) - 2; i += 2) {
        memcpy(text + i, "\xc3\xbc", 2);
    }
    for (size_t shift = 0; shift < 2; shift++) {
        fixture_deinit(&f);
        fixture_init(&f);
        ag_diag_error(&f.diags, (struct ag_pos){0}, text, "%s%s", shift ? "a" : "", text);
        const char *what = f.diags.first->what;
        size_t len = strlen(what);
        cr_assert(len > 300 && len < 450, "%zu", len);
        cr_assert_str_eq(what + len - 5, "\xc3\xbc...");
        cr_assert(strlen(f.diags.first->hint) < 450);
    }
    fixture_deinit(&f);
}

Test(diag, nearest_name)
{
    static const char *const names[] = {"listen", "limits", "workers", "backend", "log"};
    static const struct {
        const char *word, *hint;
    } rows[] = {
        {"lisen", "did you mean listen?"},
        {"Listen", "did you mean listen?"},
        {"limit", "did you mean limits?"},
        {"worker", "did you mean workers?"},
        {"bakcend", "did you mean backend?"},
        {"lgo", "did you mean log?"},
        {"x", NULL},
        {"", NULL},
        {"completely_different", NULL},
        {"abc", NULL},
    };
    struct fixture f;
    fixture_init(&f);

    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        const char *hint =
            ag_diag_nearest(&f.diags, ag_span_str(rows[i].word), names, AG_COUNT(names));
        cr_assert((!hint && !rows[i].hint) || (hint && rows[i].hint && !strcmp(hint, rows[i].hint)),
                  "%s: %s", rows[i].word, hint ? hint : "(none)");
    }
    fixture_deinit(&f);
}
